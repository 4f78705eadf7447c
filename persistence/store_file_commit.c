/* store_file_commit.c - commits: one group for many conversations, in which one that lost its race
 * leaves no trace. */
#include <string.h>

#include "persistence/store_file.h"

/* ---- what an item may do ---- */

static tm_status key_is_free(tm_store_conn *c, const tm_commit *item, bool *is_free,
                             tm_error *err) {
  sqlite3_stmt *st;
  bool found;
  int64_t since = c->store->now_ms(c->store->now_ud) - TM_KEY_AGE_MS;
  tm_status status = tm__file_bind(c, TM_FSQL_KEY, &st, err, "sii", item->head.tenant,
                                   (int64_t)item->start_key, since);
  if (status == TM_OK) status = tm__file_step(c, st, &found, err);
  if (status != TM_OK) return status;
  *is_free = !found;
  sqlite3_reset(st);
  return TM_OK;
}

/* The session as it is; its texts are borrowed from `st`, which the caller resets. *open: is it? */
static tm_status find_session(tm_store_conn *c, const tm_commit *item, sqlite3_stmt **st,
                              tm_session *out, bool *found, tm_error *err) {
  tm_status status =
      tm__file_bind(c, TM_FSQL_SESSION, st, err, "ss", item->head.tenant, item->head.session);
  if (status == TM_OK) status = tm__file_step(c, *st, found, err);
  if (status != TM_OK || !*found) return status;
  *out = (tm_session){.user_id = tm__file_column(*st, 2),
                      .metadata = tm__file_column(*st, 3),
                      .flags = (uint32_t)sqlite3_column_int64(*st, 4),
                      .created = sqlite3_column_int64(*st, 5),
                      .look_at = sqlite3_column_int64(*st, 6),
                      .ended = sqlite3_column_int64(*st, 7)};
  return TM_OK;
}

static tm_status session_fits(tm_store_conn *c, const tm_commit *item, bool *fits, tm_error *err) {
  sqlite3_stmt *st;
  bool found;
  *fits = true;
  if (item->sessions_max <= 0 && item->tenant_sessions_max <= 0) return TM_OK;
  tm_status status = tm__file_bind(c, TM_FSQL_SESSIONS_OPEN, &st, err, "s", item->head.tenant);
  if (status == TM_OK) status = tm__file_step(c, st, &found, err);
  if (status != TM_OK) return status;
  int64_t all = sqlite3_column_int64(st, 0), own = sqlite3_column_int64(st, 1);
  *fits = (item->sessions_max <= 0 || all < item->sessions_max) &&
          (item->tenant_sessions_max <= 0 || own < item->tenant_sessions_max);
  sqlite3_reset(st);
  return TM_OK;
}

/* Makes the item's session, or opens it again; TM_ELIMIT in the item when there is no room. */
static tm_status join_session(tm_store_conn *c, tm_commit *item, tm_error *err) {
  sqlite3_stmt *st = NULL;
  tm_session session = {0};
  bool found = false, fits = true;
  tm_status status = find_session(c, item, &st, &session, &found, err);
  if (status == TM_OK && (!found || session.ended != 0)) {
    status = session_fits(c, item, &fits, err);
    if (status == TM_OK && !fits) item->status = TM_ELIMIT;
    if (status == TM_OK && fits) {
      if (!found) session = *item->session;
      session.tenant = tm__slice(item->head.tenant);
      session.id = tm__slice(item->head.session);
      session.look_at = item->session->look_at;
      session.ended = 0;
      status = tm__file_session_keep(c, &session, err);
    }
  }
  sqlite3_reset(st);
  return status;
}

/* Everything that can say no comes before anything that is added. */
static tm_status judge(tm_store_conn *c, tm_commit *item, tm_file_entry *before, tm_error *err) {
  bool is_free = true;
  item->status = tm__commit_check(item, c->store->row_max);
  if (item->status != TM_OK) return TM_OK;
  tm_status status = tm__file_entry(c, tm__slice(item->head.id), before, err);
  if (status != TM_OK) return status;
  int64_t revision = before->found ? before->state.head.revision : 0;
  if (revision != item->expect_revision) item->status = TM_ECONFLICT;
  if (item->status != TM_OK || before->found) return TM_OK;
  if (item->start_key != 0) status = key_is_free(c, item, &is_free, err);
  if (status == TM_OK && !is_free) item->status = TM_ECONFLICT;
  if (status == TM_OK && is_free && item->session != NULL) status = join_session(c, item, err);
  return status;
}

/* ---- a commit ---- */

static void start_of(tm_file_state *s, const tm_commit *item, bool starts, int64_t row_id,
                     int64_t now) {
  if (starts && item->start_key != 0) {
    s->start_key = item->start_key;
    s->start_body = item->start_body;
    s->start_created = now;
  }
  if (s->start_key != 0 && s->start_row == 0 && item->start_answer) s->start_row = row_id;
}

/* The head as it will be, with what stands for ever kept. `row_id` 0: no row. */
static void next_state(tm_file_entry *entry, const tm_file_entry *before, const tm_commit *item,
                       int64_t row_id, int64_t now) {
  tm_head *h = &entry->state.head;
  *h = item->head;
  if (before->found) {
    const tm_head *b = &before->state.head;
    memcpy(h->tenant, b->tenant, sizeof(h->tenant));
    memcpy(h->session, b->session, sizeof(h->session));
    memcpy(h->system, b->system, sizeof(h->system));
    h->created = b->created;
  }
  h->tip = row_id != 0 ? row_id : before->found ? before->state.head.tip : 0;
  for (size_t i = 0; i < TM_RECENT_KEYS; i++)
    if (h->recent[i].row == TM_THIS_ROW) h->recent[i].row = row_id;
  start_of(&entry->state, item, !before->found, row_id, now);
}

/* Where the frame will begin: behind the log's first line, when there is no log yet. */
static int64_t place_of(tm_store_conn *c, const tm_file_entry *entry, const char *id) {
  if (entry->size != 0) return entry->size;
  tm__buf_clear(&c->text);
  tm__file_log_begin(&c->text, tm__slice(id));
  return (int64_t)c->text.len;
}

static tm_status apply(tm_store_conn *c, tm_commit *item, tm_error *err) {
  tm_file_entry before = {0}, entry;
  item->row_id = 0;
  tm_status status = judge(c, item, &before, err);
  if (status != TM_OK || item->status != TM_OK) return status;
  entry = before.found ? before : (tm_file_entry){0};
  int64_t row_id = item->row != NULL ? place_of(c, &before, item->head.id) : 0;
  next_state(&entry, &before, item, row_id, c->store->now_ms(c->store->now_ud));
  tm_row row = item->row != NULL ? *item->row : (tm_row){0};
  row.id = 0;
  row.revision = item->head.revision;
  if (row.parent == TM_TIP) row.parent = before.found ? before.state.head.tip : 0;
  status = tm__file_add_frame(c, &entry, &before, item->row != NULL ? &row : NULL, err);
  if (status == TM_OK && item->event_count > 0) status = tm__file_add_events(c, item, err);
  if (status == TM_OK) item->row_id = row_id;
  return status;
}

/* A few keys that are too old to be known go with every start. */
static tm_status expire_keys(tm_store_conn *c, tm_error *err) {
  int64_t since = c->store->now_ms(c->store->now_ud) - TM_KEY_AGE_MS;
  return tm__file_do(c, TM_FSQL_EXPIRE_KEYS, err, "ii", since, INT64_C(32));
}

/* One damaged log stops nobody else. */
static tm_status apply_all(tm_store_conn *c, tm_commit *const *items, size_t count, tm_error *err) {
  tm_status status = TM_OK;
  bool started = false;
  for (size_t i = 0; status == TM_OK && i < count; i++) {
    status = apply(c, items[i], err);
    started = started || (items[i]->start_key != 0 && items[i]->status == TM_OK);
    if (status != TM_ECORRUPT) continue;
    items[i]->status = status;
    status = TM_OK;
  }
  return status == TM_OK && started ? expire_keys(c, err) : status;
}

tm_status tm__file_commit(tm_store_conn *c, tm_commit *const *items, size_t count, tm_error *err) {
  tm_status status = tm__file_begin(c, err);
  if (status == TM_OK) status = tm__file_finish(c, apply_all(c, items, count, err), err);
  if (status == TM_OK) return TM_OK;
  for (size_t i = 0; i < count; i++) {
    items[i]->status = status;
    items[i]->row_id = 0;
  }
  return status;
}

/* ---- the rest that takes heads ---- */

tm_status tm__file_probe(tm_store_conn *c, tm_error *err) {
  tm_status status = tm__file_begin(c, err);
  return status == TM_OK ? tm__file_finish_always(c, err) : status;
}

static tm_status revive(tm_store_conn *c, const char *id, int64_t now, tm_error *err) {
  tm_file_entry before = {0};
  tm_status status = tm__file_entry(c, tm__slice(id), &before, err);
  if (status != TM_OK || !before.found) return status;
  tm_file_entry entry = before;
  entry.state.head.wake_at = now;
  status = tm__file_add_frame(c, &entry, &before, NULL, err);
  return status == TM_ECORRUPT ? TM_OK : status;
}

/* Appends the ids of the conversations that a host had claimed. */
static tm_status claimed(tm_store_conn *c, const char *claim, tm_buf *ids, tm_error *err) {
  sqlite3_stmt *st;
  bool found = true;
  tm_status status = tm__file_bind(c, TM_FSQL_CLAIMED, &st, err, "s", claim);
  while (status == TM_OK && found) {
    char id[TM_ID_SIZE] = "";
    status = tm__file_step(c, st, &found, err);
    if (status == TM_OK && found && tm__copy(id, sizeof(id), tm__file_column(st, 0)))
      tm__buf_add(ids, id, sizeof(id));
  }
  if (status != TM_OK) return status;
  sqlite3_reset(st);
  return tm__buf_ok(ids) ? TM_OK : tm__fail_memory(err, "the claims of dead hosts");
}

tm_status tm__file_recover(tm_store_conn *c, int64_t now, int64_t *taken, tm_error *err) {
  tm_buf *dead = &c->store->dead, ids = {0};
  *taken = 0;
  if (dead->len == 0) return TM_OK;
  tm_status status = tm__file_begin(c, err);
  if (status != TM_OK) return status;
  for (size_t at = 0; status == TM_OK && at < dead->len; at += TM_ID_SIZE)
    status = claimed(c, dead->ptr + at, &ids, err);
  for (size_t at = 0; status == TM_OK && at < ids.len; at += TM_ID_SIZE)
    status = revive(c, ids.ptr + at, now, err);
  status = tm__file_finish(c, status, err);
  if (status == TM_OK) {
    *taken = (int64_t)(ids.len / TM_ID_SIZE);
    tm__buf_clear(dead); /* a claim made from now on has an owner */
  }
  tm__buf_free(&ids);
  return status;
}
