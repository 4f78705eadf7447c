/* store_sqlite_write.c - commits: one transaction for many conversations, in which one that lost
 * its race leaves no trace. */
#include <errno.h>

#include "persistence/recent.h"
#include "persistence/store_sqlite.h"

/* ---- transactions ---- */

tm_status tm__sqlite_do(tm_store_conn *c, tm_sql which, const char *doing, tm_error *err) {
  sqlite3_stmt *st;
  tm_status status = tm__sqlite_statement(c, which, &st, err);
  return status == TM_OK ? tm__sqlite_run(c, st, doing, err) : status;
}

tm_status tm__sqlite_begin(tm_store_conn *c, tm_error *err) {
  tm_status status = tm__sqlite_in_place(c->store, err);
  return status == TM_OK ? tm__sqlite_do(c, TM_SQL_BEGIN, "begin a transaction", err) : status;
}

/* Without the memory for saying so, closing the handle rolls back as well. */
static void roll_back(tm_store_conn *c) {
  if (c->db == NULL || sqlite3_get_autocommit(c->db) != 0) return;
  (void)sqlite3_exec(c->db, "ROLLBACK", NULL, NULL, NULL);
  if (sqlite3_get_autocommit(c->db) == 0) tm__sqlite_drop(c);
}

/* Where SQLite cannot open the folder to sync it, it says nothing: errno alone does. */
static tm_status make_name_durable(tm_store_conn *c, tm_error *err) {
  if (c->store->wal || errno == 0) return TM_OK;
  tm__sqlite_doubt(c->store);
  return tm__sqlite_settle_doubts(c->store, err);
}

tm_status tm__sqlite_end(tm_store_conn *c, tm_status status, tm_error *err) {
  if (status == TM_OK) status = tm__sqlite_do(c, TM_SQL_COMMIT, "make a transaction durable", err);
  if (status == TM_OK) status = make_name_durable(c, err);
  if (status != TM_OK)
    roll_back(c);
  else if (c->store->wal)
    tm__sqlite_tidy_log(c);
  return status;
}

static tm_status newest_row(tm_store_conn *c, int64_t *out, tm_error *err) {
  sqlite3_stmt *st;
  tm_status status = tm__sqlite_statement(c, TM_SQL_NEWEST, &st, err);
  if (status != TM_OK) return status;
  int rc = sqlite3_step(st);
  *out = rc == SQLITE_ROW ? sqlite3_column_int64(st, 0) : 0;
  if (rc != SQLITE_ROW) status = tm__sqlite_conn_fail(c, rc, "find the newest row", err);
  sqlite3_reset(st);
  return status;
}

/* ---- heads ---- */

/* What TOUCH, WAKE, MOVE and ADD_HEAD have in common. row_id 0: there is none. */
static int bind_head(sqlite3_stmt *st, const tm_head *h, int64_t row_id, tm_slice recent) {
  int rc = sqlite3_bind_int64(st, 1, h->revision);
  rc |= row_id != 0 ? sqlite3_bind_int64(st, 2, row_id) : sqlite3_bind_null(st, 2);
  rc |= tm__sqlite_bind_text(st, 3, h->flow);
  rc |= tm__sqlite_bind_text(st, 4, h->version);
  rc |= tm__sqlite_bind_text(st, 5, h->step);
  rc |= sqlite3_bind_blob64(st, 6, recent.ptr, recent.len, SQLITE_STATIC);
  rc |= tm__sqlite_bind_text(st, 7, h->id);
  rc |= sqlite3_bind_int(st, 9, (int)h->status);
  rc |= sqlite3_bind_int64(st, 10, h->wake_at);
  rc |= tm__sqlite_bind_text(st, 11, h->claim);
  rc |= sqlite3_bind_int64(st, 12, h->ended);
  return rc;
}

/* One statement on the head; *changed: it found the head as expected. */
static tm_status write_head(tm_store_conn *c, tm_sql which, const tm_commit *item, int64_t row_id,
                            bool *changed, tm_error *err) {
  char recent[TM_RECENT_BYTES];
  const tm_head *h = &item->head;
  sqlite3_stmt *st;
  tm_status status = tm__sqlite_statement(c, which, &st, err);
  if (status != TM_OK) return status;
  int rc = bind_head(st, h, row_id, tm__recent_encode(recent, h, row_id));
  if (which == TM_SQL_ADD_HEAD) {
    rc |= tm__sqlite_bind_text(st, 13, h->tenant);
    rc |= tm__sqlite_bind_text(st, 14, h->session);
    rc |= tm__sqlite_bind_text(st, 15, h->system);
    rc |= sqlite3_bind_int64(st, 16, h->created);
  } else {
    rc |= sqlite3_bind_int64(st, 8, item->expect_revision);
  }
  if (rc != SQLITE_OK) return tm__sqlite_conn_fail(c, rc, "bind a head", err);
  status = tm__sqlite_run(c, st, "write a head", err);
  *changed = status == TM_OK && sqlite3_changes(c->db) > 0;
  return status;
}

static tm_status compare_and_set(tm_store_conn *c, const tm_commit *item, int64_t row_id,
                                 bool *changed, tm_error *err) {
  static const tm_sql ways[] = {TM_SQL_TOUCH, TM_SQL_WAKE, TM_SQL_MOVE};
  if (item->expect_revision == 0) return write_head(c, TM_SQL_ADD_HEAD, item, row_id, changed, err);
  tm_status status = TM_OK;
  *changed = false;
  for (size_t i = 0; status == TM_OK && !*changed && i < sizeof(ways) / sizeof(ways[0]); i++)
    status = write_head(c, ways[i], item, row_id, changed, err);
  return status;
}

/* ---- rows, start keys ---- */

int tm__sqlite_bind_body(sqlite3_stmt *st, int at, uint32_t flags, tm_slice body) {
  const char *bytes = body.ptr != NULL ? body.ptr : "";
  if (flags == 0) return tm__sqlite_bind(st, at, (tm_slice){bytes, body.len});
  return sqlite3_bind_blob64(st, at, bytes, body.len, SQLITE_STATIC);
}

/* The tip before this commit; 0: none. */
static tm_status find_tip(tm_store_conn *c, const tm_commit *item, int64_t *tip, tm_error *err) {
  sqlite3_stmt *st;
  tm_status status = tm__sqlite_statement(c, TM_SQL_REVISION, &st, err);
  if (status != TM_OK) return status;
  int rc = tm__sqlite_bind_text(st, 1, item->head.id);
  if (rc == SQLITE_OK) rc = sqlite3_step(st);
  *tip = rc == SQLITE_ROW ? sqlite3_column_int64(st, 1) : 0;
  if (rc != SQLITE_ROW && rc != SQLITE_DONE)
    status = tm__sqlite_conn_fail(c, rc, "find the newest row", err);
  sqlite3_reset(st);
  return status;
}

static tm_status add_row(tm_store_conn *c, const tm_commit *item, int64_t row_id, int64_t parent,
                         tm_error *err) {
  const tm_row *row = item->row;
  sqlite3_stmt *st;
  tm_status status = tm__sqlite_statement(c, TM_SQL_ADD_ROW, &st, err);
  if (status != TM_OK) return status;
  int rc = sqlite3_bind_int64(st, 1, row_id);
  rc |= sqlite3_bind_int64(st, 2, parent);
  rc |= sqlite3_bind_int64(st, 3, row->base);
  rc |= tm__sqlite_bind_text(st, 4, item->head.id);
  rc |= sqlite3_bind_int64(st, 5, item->head.revision);
  rc |= sqlite3_bind_int(st, 6, (int)row->kind);
  rc |= sqlite3_bind_int64(st, 7, row->created);
  rc |= sqlite3_bind_int(st, 8, row->checkpoint);
  rc |= sqlite3_bind_int64(st, 9, row->flags);
  rc |= tm__sqlite_bind_body(st, 10, row->flags, row->body);
  if (rc != SQLITE_OK) return tm__sqlite_conn_fail(c, rc, "bind a row", err);
  return tm__sqlite_run(c, st, "append to the journal", err);
}

static tm_status add_key(tm_store_conn *c, const tm_commit *item, int64_t row_id, int64_t now,
                         tm_error *err) {
  sqlite3_stmt *st;
  tm_status status = tm__sqlite_statement(c, TM_SQL_ADD_KEY, &st, err);
  if (status != TM_OK) return status;
  int rc = tm__sqlite_bind_text(st, 1, item->head.tenant);
  rc |= sqlite3_bind_int64(st, 2, (int64_t)item->start_key);
  rc |= tm__sqlite_bind_text(st, 3, item->head.id);
  rc |= sqlite3_bind_int64(st, 4, (int64_t)item->start_body);
  rc |= sqlite3_bind_int64(st, 5, item->start_answer ? row_id : 0);
  rc |= sqlite3_bind_int64(st, 6, now);
  if (rc != SQLITE_OK) return tm__sqlite_conn_fail(c, rc, "bind a start key", err);
  return tm__sqlite_run(c, st, "keep a start key", err);
}

static tm_status answer_key(tm_store_conn *c, const tm_commit *item, int64_t row_id,
                            tm_error *err) {
  sqlite3_stmt *st;
  tm_status status = tm__sqlite_statement(c, TM_SQL_ANSWER_KEY, &st, err);
  if (status != TM_OK) return status;
  int rc = tm__sqlite_bind_text(st, 1, item->head.id);
  rc |= sqlite3_bind_int64(st, 2, row_id);
  if (rc != SQLITE_OK) return tm__sqlite_conn_fail(c, rc, "bind a start key", err);
  return tm__sqlite_run(c, st, "answer a start key", err);
}

tm_status tm__sqlite_expire_keys(tm_store_conn *c, int64_t now, int *count, tm_error *err) {
  sqlite3_stmt *st;
  *count = 0;
  tm_status status = tm__sqlite_statement(c, TM_SQL_EXPIRE_KEYS, &st, err);
  if (status != TM_OK) return status;
  int rc = sqlite3_bind_int64(st, 1, now - TM_KEY_AGE_MS);
  if (rc != SQLITE_OK) return tm__sqlite_conn_fail(c, rc, "bind the time", err);
  status = tm__sqlite_run(c, st, "forget old start keys", err);
  if (status == TM_OK) *count = sqlite3_changes(c->db);
  return status;
}

/* Forgets a few old keys; gives pages that became free back to the file system. */
static tm_status tidy_keys(tm_store_conn *c, int64_t now, tm_error *err) {
  int count;
  tm_status status = tm__sqlite_expire_keys(c, now, &count, err);
  if (status != TM_OK || count == 0 || !c->store->auto_vacuum) return status;
  return tm__sqlite_do(c, TM_SQL_SHRINK, "shrink the file", err);
}

/* ---- a commit ---- */

/* Does nothing stand in the way? If something does, item->status says what. */
static tm_status judge(tm_store_conn *c, tm_commit *item, tm_error *err) {
  bool taken = false, fits = true, starts = item->expect_revision == 0;
  tm_start_key key;
  tm_status status = TM_OK;
  item->status = tm__commit_check(item, c->store->record_bytes_max);
  if (item->status != TM_OK || !starts) return TM_OK;
  if (item->start_key != 0)
    status =
        tm__sqlite_find_key(c, tm__slice(item->head.tenant), item->start_key, &key, &taken, err);
  if (status == TM_OK && item->session != NULL && !taken)
    status = tm__sqlite_session_fits(c, item, &fits, err);
  item->status = taken ? TM_ECONFLICT : fits ? TM_OK : TM_ELIMIT;
  return status;
}

/* Everything that can say no comes before anything that writes. */
static tm_status apply(tm_store_conn *c, tm_commit *item, int64_t row_id, int64_t now,
                       tm_error *err) {
  bool as_expected = false, starts = item->expect_revision == 0;
  tm_status status = judge(c, item, err);
  if (status != TM_OK || item->status != TM_OK) return status;
  int64_t parent = item->row != NULL ? item->row->parent : 0;
  if (parent == TM_TIP) status = find_tip(c, item, &parent, err);
  if (status != TM_OK) return status;
  status = compare_and_set(c, item, row_id, &as_expected, err);
  if (status != TM_OK) return status;
  if (!as_expected) {
    item->status = TM_ECONFLICT;
    return TM_OK;
  }
  if (item->row != NULL) status = add_row(c, item, row_id, parent, err);
  if (status == TM_OK && starts && item->start_key != 0)
    status = add_key(c, item, row_id, now, err);
  if (status == TM_OK && !starts && item->start_answer && row_id != 0)
    status = answer_key(c, item, row_id, err);
  if (status == TM_OK && starts && item->session != NULL)
    status = tm__sqlite_session_join(c, item, err);
  if (status == TM_OK && item->event_count > 0) status = tm__sqlite_add_events(c, item, err);
  item->row_id = row_id;
  return status;
}

static tm_status apply_all(tm_store_conn *c, tm_commit *const *items, size_t count, tm_error *err) {
  int64_t newest = 0, now = c->store->now_ms(c->store->now_ud);
  bool started = false;
  tm_status status = newest_row(c, &newest, err);
  for (size_t i = 0; status == TM_OK && i < count; i++) {
    items[i]->row_id = 0;
    status = apply(c, items[i], items[i]->row != NULL ? newest + 1 : 0, now, err);
    if (items[i]->row_id != 0) newest = items[i]->row_id;
    started = started || (items[i]->start_key != 0 && items[i]->status == TM_OK);
  }
  if (status == TM_OK && started) status = tidy_keys(c, now, err);
  return status;
}

tm_status tm__sqlite_commit(tm_store_conn *c, tm_commit *const *items, size_t count,
                            tm_error *err) {
  tm_status status = tm__sqlite_begin(c, err);
  if (status == TM_OK) status = apply_all(c, items, count, err);
  status = tm__sqlite_end(c, status, err);
  if (status == TM_OK) return TM_OK;
  for (size_t i = 0; i < count; i++) {
    items[i]->status = status;
    items[i]->row_id = 0;
  }
  return status;
}

/* ---- the rest that writes ---- */

tm_status tm__sqlite_probe(tm_store_conn *c, tm_error *err) {
  tm_status status = tm__sqlite_in_place(c->store, err);
  return status == TM_OK ? tm__sqlite_do(c, TM_SQL_PROBE, "try to write", err) : status;
}

static tm_status revive(tm_store_conn *c, const char *claim, int64_t now, int64_t *taken,
                        tm_error *err) {
  sqlite3_stmt *st;
  tm_status status = tm__sqlite_statement(c, TM_SQL_REVIVE, &st, err);
  if (status != TM_OK) return status;
  int rc = sqlite3_bind_int64(st, 1, now);
  rc |= tm__sqlite_bind_text(st, 2, claim);
  if (rc != SQLITE_OK) return tm__sqlite_conn_fail(c, rc, "bind a claim", err);
  status = tm__sqlite_run(c, st, "take up the turns of a dead host", err);
  if (status == TM_OK) *taken += sqlite3_changes(c->db);
  return status;
}

tm_status tm__sqlite_recover(tm_store_conn *c, int64_t now, int64_t *taken, tm_error *err) {
  tm_buf *dead = &c->store->dead;
  *taken = 0;
  if (dead->len == 0) return TM_OK;
  tm_status status = tm__sqlite_begin(c, err);
  for (size_t at = 0; status == TM_OK && at < dead->len; at += TM_ID_SIZE)
    status = revive(c, dead->ptr + at, now, taken, err);
  status = tm__sqlite_end(c, status, err);
  if (status == TM_OK)
    tm__buf_clear(dead); /* a claim made from now on has an owner */
  else
    *taken = 0;
  return status;
}
