/* store_sqlite_purge.c - what goes: a conversation's head at once, its rows piece by piece along
 * their parents, then the space they took; and rows that get another body. */
#include "persistence/store_sqlite.h"

/* ---- purging ---- */

static tm_status find_revision(tm_store_conn *c, tm_slice id, int64_t *revision, int64_t *tip,
                               tm_error *err) {
  sqlite3_stmt *st;
  tm_status status = tm__sqlite_statement(c, TM_SQL_REVISION, &st, err);
  if (status != TM_OK) return status;
  int rc = tm__sqlite_bind(st, 1, id);
  if (rc == SQLITE_OK) rc = sqlite3_step(st);
  if (rc == SQLITE_ROW) {
    *revision = sqlite3_column_int64(st, 0);
    *tip = sqlite3_column_int64(st, 1);
  } else if (rc == SQLITE_DONE) {
    status = tm__sqlite_not_found(err, "conversation");
  } else {
    status = tm__sqlite_conn_fail(c, rc, "read", err);
  }
  sqlite3_reset(st);
  return status;
}

/* A statement with a text and (unless 0) a number. */
static tm_status change(tm_store_conn *c, tm_sql which, tm_slice text, int64_t number,
                        tm_error *err) {
  sqlite3_stmt *st;
  tm_status status = tm__sqlite_statement(c, which, &st, err);
  if (status != TM_OK) return status;
  int rc = tm__sqlite_bind(st, 1, text);
  if (number != 0) rc |= sqlite3_bind_int64(st, 2, number);
  if (rc != SQLITE_OK) return tm__sqlite_conn_fail(c, rc, "bind a conversation", err);
  return tm__sqlite_run(c, st, "purge a conversation", err);
}

/* Has it an event that is neither delivered nor dead? */
static tm_status waits(tm_store_conn *c, tm_slice id, bool *out, tm_error *err) {
  sqlite3_stmt *st;
  tm_status status = tm__sqlite_statement(c, TM_SQL_WAITING, &st, err);
  if (status != TM_OK) return status;
  int rc = tm__sqlite_bind(st, 1, id);
  if (rc == SQLITE_OK) rc = sqlite3_step(st);
  *out = rc == SQLITE_ROW;
  if (rc != SQLITE_ROW && rc != SQLITE_DONE) status = tm__sqlite_conn_fail(c, rc, "read", err);
  sqlite3_reset(st);
  return status;
}

static bool is_damaged(tm_store_conn *c, tm_slice id) {
  tm_head h;
  tm_error why = {.status = TM_OK};
  return tm__sqlite_head(c, id, &h, &why) == TM_ECORRUPT &&
         strcmp(why.code, "journal.damaged") == 0;
}

static tm_status drop_head(tm_store_conn *c, tm_slice id, int64_t expect_revision, bool undelivered,
                           tm_error *err) {
  int64_t revision = 0, tip = 0;
  bool stays = false;
  tm_status status = find_revision(c, id, &revision, &tip, err);
  if (status == TM_OK && revision != expect_revision && is_damaged(c, id))
    expect_revision = revision;
  if (status == TM_OK && !undelivered) status = waits(c, id, &stays, err);
  if (status == TM_OK && (stays || revision != expect_revision))
    status = tm__purge_conflict(id, err);
  if (status == TM_OK && tip != 0) status = change(c, TM_SQL_ADD_PURGED, id, tip, err);
  if (status == TM_OK) status = change(c, TM_SQL_DROP_KEYS, id, 0, err);
  if (status == TM_OK) status = change(c, TM_SQL_DROP_EVENTS, id, 0, err);
  if (status == TM_OK) status = change(c, TM_SQL_DROP_HEAD, id, 0, err);
  return status;
}

tm_status tm__sqlite_purge(tm_store_conn *c, tm_slice id, int64_t expect_revision, bool undelivered,
                           tm_error *err) {
  tm_status status = tm__sqlite_begin(c, err);
  if (status != TM_OK) return status;
  return tm__sqlite_end(c, drop_head(c, id, expect_revision, undelivered, err), err);
}

/* ---- sweeping ---- */

typedef struct leftover {
  int64_t tip; /* 0: there is none */
  char conversation[TM_ID_SIZE];
} leftover;

static tm_status find_leftover(tm_store_conn *c, leftover *out, tm_error *err) {
  sqlite3_stmt *st;
  bool readable = true;
  *out = (leftover){0};
  tm_status status = tm__sqlite_statement(c, TM_SQL_PURGED, &st, err);
  if (status != TM_OK) return status;
  int rc = sqlite3_step(st);
  if (rc == SQLITE_ROW) {
    out->tip = sqlite3_column_int64(st, 0);
    readable = tm__sqlite_text(st, 1, out->conversation, sizeof(out->conversation));
  } else if (rc != SQLITE_DONE) {
    status = tm__sqlite_conn_fail(c, rc, "find what was purged", err);
  }
  sqlite3_reset(st);
  return readable ? status : tm__sqlite_damaged(err, c->store->path, "what was purged");
}

static tm_status drop_by_id(tm_store_conn *c, tm_sql which, int64_t id, tm_error *err) {
  sqlite3_stmt *st;
  tm_status status = tm__sqlite_statement(c, which, &st, err);
  if (status != TM_OK) return status;
  int rc = sqlite3_bind_int64(st, 1, id);
  if (rc != SQLITE_OK) return tm__sqlite_conn_fail(c, rc, "bind a row", err);
  return tm__sqlite_run(c, st, "sweep rows", err);
}

/* Removes row `l->tip`, which then is its parent; 0: nothing is left of the conversation. */
static tm_status drop_row(tm_store_conn *c, leftover *l, tm_error *err) {
  sqlite3_stmt *st;
  tm_status status = tm__sqlite_statement(c, TM_SQL_PARENT, &st, err);
  if (status != TM_OK) return status;
  int rc = sqlite3_bind_int64(st, 1, l->tip);
  rc |= tm__sqlite_bind_text(st, 2, l->conversation);
  if (rc == SQLITE_OK) rc = sqlite3_step(st);
  bool there = rc == SQLITE_ROW;
  int64_t row = l->tip, parent = there ? sqlite3_column_int64(st, 0) : 0;
  if (!there && rc != SQLITE_DONE) status = tm__sqlite_conn_fail(c, rc, "sweep rows", err);
  sqlite3_reset(st);
  if (status != TM_OK) return status;
  l->tip = parent < row ? parent : 0;
  return there ? drop_by_id(c, TM_SQL_DROP_ROW, row, err) : TM_OK;
}

/* At most `limit` rows and leftovers; *left: how much of the limit was not used. */
static tm_status sweep_rows(tm_store_conn *c, size_t limit, size_t *left, tm_error *err) {
  tm_status status = TM_OK;
  for (*left = limit; status == TM_OK && *left > 0;) {
    leftover l;
    status = find_leftover(c, &l, err);
    if (status != TM_OK || l.tip == 0) return status;
    int64_t tip = l.tip;
    for (; status == TM_OK && *left > 0 && l.tip != 0; --*left)
      status = drop_row(c, &l, err);
    if (status == TM_OK) status = drop_by_id(c, TM_SQL_DROP_PURGED, tip, err);
    if (status == TM_OK && l.tip != 0)
      status = change(c, TM_SQL_ADD_PURGED, tm__slice(l.conversation), l.tip, err);
  }
  return status;
}

/* The number that a statement gives; `now` is its parameter, if it has one. */
static tm_status number(tm_store_conn *c, tm_sql which, const int64_t *now, int64_t *out,
                        tm_error *err) {
  sqlite3_stmt *st;
  tm_status status = tm__sqlite_statement(c, which, &st, err);
  if (status != TM_OK) return status;
  int rc = now != NULL ? sqlite3_bind_int64(st, 1, *now) : SQLITE_OK;
  if (rc == SQLITE_OK) rc = sqlite3_step(st);
  *out = rc == SQLITE_ROW ? sqlite3_column_int64(st, 0) : 0;
  if (rc != SQLITE_ROW) status = tm__sqlite_conn_fail(c, rc, "look what is left to sweep", err);
  sqlite3_reset(st);
  return status;
}

static tm_status sweep(tm_store_conn *c, size_t limit, bool *more, tm_error *err) {
  int64_t now = c->store->now_ms(c->store->now_ud), old = now - TM_KEY_AGE_MS, keys = 0, pages = 0;
  size_t left = 0;
  int count = 0;
  leftover rest = {0};
  tm_status status = sweep_rows(c, limit, &left, err);
  if (status == TM_OK && left > 0) status = tm__sqlite_expire_keys(c, now, &count, err);
  if (status == TM_OK && c->store->auto_vacuum)
    status = tm__sqlite_do(c, TM_SQL_SHRINK_MORE, "shrink the file", err);
  if (status == TM_OK) status = find_leftover(c, &rest, err);
  if (status == TM_OK) status = number(c, TM_SQL_OLD_KEYS, &old, &keys, err);
  if (status == TM_OK && c->store->auto_vacuum)
    status = number(c, TM_SQL_FREE_PAGES, NULL, &pages, err);
  *more = rest.tip != 0 || keys != 0 || pages != 0;
  return status;
}

tm_status tm__sqlite_sweep(tm_store_conn *c, size_t limit, bool *more, tm_error *err) {
  *more = false;
  tm_status status = tm__sqlite_begin(c, err);
  if (status != TM_OK) return status;
  return tm__sqlite_end(c, sweep(c, limit, more, err), err);
}

/* ---- other bodies ---- */

static tm_status rewrite_row(tm_store_conn *c, const tm_row *row, tm_error *err) {
  sqlite3_stmt *st;
  size_t most = c->store->record_bytes_max != 0 ? c->store->record_bytes_max : TM_ROW_MAX;
  if (row->body.len > most)
    return tm__fail(err, TM_ETOOLARGE, "store.too_large",
                    "row %lld of conversation %s would have %zu bytes, more than a store keeps",
                    (long long)row->id, row->conversation, row->body.len);
  tm_status status = tm__sqlite_statement(c, TM_SQL_REWRITE, &st, err);
  if (status != TM_OK) return status;
  int rc = sqlite3_bind_int64(st, 1, row->id);
  rc |= tm__sqlite_bind_text(st, 2, row->conversation);
  rc |= sqlite3_bind_int64(st, 3, row->flags);
  rc |= tm__sqlite_bind_body(st, 4, row->flags, row->body);
  if (rc != SQLITE_OK) return tm__sqlite_conn_fail(c, rc, "bind a row", err);
  return tm__sqlite_run(c, st, "write a row anew", err);
}

tm_status tm__sqlite_rewrite(tm_store_conn *c, const tm_row *rows, size_t count, tm_error *err) {
  tm_status status = tm__sqlite_begin(c, err);
  if (status != TM_OK) return status;
  for (size_t i = 0; status == TM_OK && i < count; i++)
    status = rewrite_row(c, &rows[i], err);
  return tm__sqlite_end(c, status, err);
}
