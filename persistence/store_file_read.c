/* store_file_read.c - heads and lists from the index, rows from the logs. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "persistence/store_file.h"

/* ---- heads ---- */

tm_status tm__file_head(tm_store_conn *c, tm_slice id, tm_head *out, tm_error *err) {
  tm_file_entry entry;
  tm_status status = tm__file_entry(c, id, &entry, err);
  if (status == TM_OK && !entry.found) return tm__file_not_found(err, "conversation");
  if (status == TM_OK) *out = entry.state.head;
  return status;
}

/* Without a head there is an id in the second column. */
static bool take_head(tm_store_conn *c, sqlite3_stmt *st, tm_file_state *out) {
  if (sqlite3_column_type(st, 0) != SQLITE_NULL)
    return tm__file_state_decode(out, tm__file_column(st, 0), &c->text);
  *out = (tm_file_state){.head.revision = -1};
  tm_slice id = tm__file_column(st, 1);
  if (id.len >= sizeof(out->head.id)) id.len = sizeof(out->head.id) - 1;
  return tm__copy(out->head.id, sizeof(out->head.id), id);
}

/* Gives every head of `st` to `fn`; resets nothing. */
static tm_status walk_heads(tm_store_conn *c, sqlite3_stmt *st, tm_head_fn fn, void *ud,
                            tm_error *err) {
  tm_file_state state;
  int rc;
  while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
    if (!take_head(c, st, &state))
      return tm__file_sql_conn_fail(c, SQLITE_CORRUPT, "read a head", err);
    tm_status status = fn(ud, &state.head);
    if (status != TM_OK) return status;
  }
  return rc == SQLITE_DONE ? TM_OK : tm__file_sql_conn_fail(c, rc, "read heads", err);
}

/* Those whose logs cannot be read; a small file has no id. */
static void damaged_sql(tm_buf *b, const tm_list_filter *f) {
  tm__buf_text(b, " UNION ALL SELECT NULL,id FROM damaged WHERE id NOT GLOB '*.txt'"
                  " AND NOT EXISTS(SELECT 1 FROM heads WHERE heads.id=damaged.id)");
  if (f->before[0] != '\0') tm__buf_text(b, " AND id<?6");
}

static bool is_everything(const tm_list_filter *f) {
  return f->tenant.ptr == NULL && f->session.ptr == NULL && f->system.ptr == NULL &&
         f->flow.ptr == NULL && f->status < 0;
}

/* Through the index of the filter's rarest column; each has the id behind it. */
static void list_sql(tm_buf *b, const tm_list_filter *f) {
  const char *index = f->session.ptr != NULL  ? " INDEXED BY heads_session"
                      : f->system.ptr != NULL ? " INDEXED BY heads_system"
                      : f->status >= 0        ? " INDEXED BY heads_status"
                                              : " INDEXED BY heads_tenant";
  tm__buf_printf(b, "SELECT head,id FROM heads%s WHERE %s", f->tenant.ptr != NULL ? index : "",
                 f->tenant.ptr != NULL ? "tenant=?1" : "?1 IS NULL");
  if (f->session.ptr != NULL) tm__buf_text(b, " AND session=?2");
  if (f->system.ptr != NULL) tm__buf_text(b, " AND system=?3");
  if (f->flow.ptr != NULL) tm__buf_text(b, " AND flow=?4");
  if (f->status >= 0) tm__buf_text(b, " AND status=?5");
  if (f->before[0] != '\0') tm__buf_text(b, " AND id<?6");
  if (is_everything(f)) damaged_sql(b, f);
  tm__buf_text(b, " ORDER BY id DESC LIMIT ?7");
}

static int64_t limit_of(size_t limit) {
  return limit > INT32_MAX ? INT32_MAX : (int64_t)limit;
}

static int bind_text(sqlite3_stmt *st, int at, tm_slice text, bool used) {
  return used ? sqlite3_bind_text64(st, at, text.ptr, text.len, SQLITE_STATIC, SQLITE_UTF8)
              : SQLITE_OK;
}

static int bind_filter(sqlite3_stmt *st, const tm_list_filter *f) {
  int rc = bind_text(st, 1, f->tenant, true);
  rc |= bind_text(st, 2, f->session, f->session.ptr != NULL);
  rc |= bind_text(st, 3, f->system, f->system.ptr != NULL);
  rc |= bind_text(st, 4, f->flow, f->flow.ptr != NULL);
  if (f->status >= 0) rc |= sqlite3_bind_int(st, 5, f->status);
  rc |= bind_text(st, 6, tm__slice(f->before), f->before[0] != '\0');
  return rc | sqlite3_bind_int64(st, 7, limit_of(f->limit));
}

tm_status tm__file_list(tm_store_conn *c, const tm_list_filter *f, tm_head_fn fn, void *ud,
                        tm_error *err) {
  tm_buf sql = {0};
  sqlite3_stmt *st = NULL;
  tm_status status = tm__file_mend(c, err);
  if (status != TM_OK) return status;
  list_sql(&sql, f);
  int rc =
      tm__buf_ok(&sql) ? sqlite3_prepare_v2(c->index.db, sql.ptr, -1, &st, NULL) : SQLITE_NOMEM;
  if (rc == SQLITE_OK) rc = bind_filter(st, f);
  status = rc == SQLITE_OK ? walk_heads(c, st, fn, ud, err)
                           : tm__file_sql_conn_fail(c, rc, "list conversations", err);
  sqlite3_finalize(st);
  tm__buf_free(&sql);
  return status;
}

static tm_status walk(tm_store_conn *c, tm_file_sql which, int64_t until, size_t limit,
                      tm_head_fn fn, void *ud, tm_error *err) {
  sqlite3_stmt *st;
  tm_status status = tm__file_bind(c, which, &st, err, "ii", until, limit_of(limit));
  if (status != TM_OK) return status;
  status = walk_heads(c, st, fn, ud, err);
  sqlite3_reset(st);
  return status;
}

tm_status tm__file_due(tm_store_conn *c, int64_t now, int64_t hold_ms, size_t limit, tm_head_fn fn,
                       void *ud, tm_error *err) {
  (void)hold_ms; /* hosts of one machine: who is faster commits, the other's turn is thrown away */
  return walk(c, TM_FSQL_DUE, now, limit, fn, ud, err);
}

tm_status tm__file_ended(tm_store_conn *c, int64_t before, size_t limit, tm_head_fn fn, void *ud,
                         tm_error *err) {
  return walk(c, TM_FSQL_ENDED, before, limit, fn, ud, err);
}

tm_status tm__file_next_due(tm_store_conn *c, int64_t *out, tm_error *err) {
  sqlite3_stmt *st;
  bool found;
  *out = 0;
  tm_status status = tm__file_bind(c, TM_FSQL_NEXT_DUE, &st, err, "");
  if (status == TM_OK) status = tm__file_step(c, st, &found, err);
  if (status != TM_OK) return status;
  if (found) *out = sqlite3_column_int64(st, 0);
  sqlite3_reset(st);
  return TM_OK;
}

/* ---- rows ---- */

/* From frame to frame without looking into them: for an id that nobody gave out. */
tm_status tm__file_frame_starts(tm_store_conn *c, int fd, const tm_file_entry *entry, int64_t at,
                                bool *there, tm_error *err) {
  tm_slice id = tm__slice(entry->state.head.id);
  int64_t place = 0, size;
  tm_file_look look =
      at > 0 && at < entry->size ? tm__file_log_check(fd, id, &place) : TM_FILE_GOOD;
  *there = false;
  if (at <= 0 || at >= entry->size) return TM_OK;
  while (look == TM_FILE_GOOD && place < at) {
    look = tm__file_frame_size(fd, place, &size);
    if (look == TM_FILE_GOOD) place += size;
  }
  if (look == TM_FILE_FAILED) return tm__disk_fail(err, "read", "a log");
  if (look != TM_FILE_GOOD)
    return tm__file_log_damaged(err, c->store, id, place, "there is no frame");
  *there = place == at;
  return TM_OK;
}

typedef struct walker {
  tm_store_conn *c;
  const tm_file_entry *entry;
  int fd;
  tm_buf bytes;
  tm_file_frame f;
} walker;

static tm_file_look look_at_row(walker *w, int64_t row) {
  tm_slice id = tm__slice(w->entry->state.head.id);
  int64_t at = row;
  for (;;) {
    tm_file_look look = tm__file_frame_read(&w->f, &w->bytes, w->fd, id, at);
    if (look != TM_FILE_GOOD || w->f.moved == 0)
      return look == TM_FILE_GOOD && (!w->f.has_row || w->f.row.id != row) ? TM_FILE_BAD : look;
    if (w->f.moved <= at) return TM_FILE_BAD;
    at = w->f.moved;
  }
}

/* *absent: the conversation has no such row. What looks damaged may be half rewritten just now. */
static tm_status read_row(walker *w, int64_t row, bool *absent, tm_error *err) {
  bool there = true;
  *absent = row >= w->entry->size;
  if (*absent) return TM_OK;
  tm_file_look look = look_at_row(w, row);
  if (look == TM_FILE_GOOD) return TM_OK;
  tm_status status = tm__file_barrier(w->c, err);
  if (status != TM_OK) return status;
  look = look_at_row(w, row);
  if (look == TM_FILE_GOOD) return TM_OK;
  if (look == TM_FILE_FAILED) return tm__disk_fail(err, "read", "a log");
  status = tm__file_frame_starts(w->c, w->fd, w->entry, row, &there, err);
  *absent =
      status == TM_OK && (!there || (w->f.size != 0 && w->f.head.ptr != NULL && !w->f.has_row));
  if (status != TM_OK || *absent) return status;
  return tm__file_log_damaged(err, w->c->store, tm__slice(w->entry->state.head.id), row,
                              "a row of the journal cannot be read");
}

static tm_status walk_rows(walker *w, int64_t row, bool follow_base, tm_row_fn fn, void *ud,
                           tm_error *err) {
  for (int64_t at = row, next = 0; at != 0; at = next) {
    bool absent = false;
    tm_status status = read_row(w, at, &absent, err);
    if (absent && at == row) return tm__file_not_found(err, "journal row");
    if (absent || status != TM_OK) return status;
    next = follow_base && w->f.row.base != 0 ? w->f.row.base : w->f.row.parent;
    status = fn(ud, &w->f.row);
    if (status != TM_OK) return status;
    if (next >= at || next < 0)
      return tm__file_log_damaged(err, w->c->store, tm__slice(w->entry->state.head.id), at,
                                  "the journal turns in a circle");
  }
  return TM_OK;
}

static tm_status open_log(tm_store_conn *c, tm_slice id, int *fd, tm_error *err) {
  tm_buf path = {0};
  tm__file_path(&path, c->store, &(tm_file_name){TM_FILE_CONVERSATION, id, {0}});
  if (!tm__buf_ok(&path)) return tm__fail_memory(err, "the store's path");
  *fd = open(path.ptr, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  tm_status status = *fd >= 0 ? TM_OK : tm__disk_fail(err, "read", path.ptr);
  bool missing = *fd < 0 && errno == ENOENT;
  tm__buf_free(&path);
  return missing ? tm__file_log_missing(err, c->store, id) : status;
}

tm_status tm__file_chain(tm_store_conn *c, tm_slice conversation, int64_t row, bool follow_base,
                         tm_row_fn fn, void *ud, tm_error *err) {
  tm_file_entry entry;
  if (row == 0) return TM_OK;
  tm_status status = tm__file_entry(c, conversation, &entry, err);
  if (status == TM_OK && (!entry.found || row <= 0 || row >= entry.size))
    return tm__file_not_found(err, "journal row");
  if (status != TM_OK) return status;
  walker w = {.c = c, .entry = &entry, .fd = -1};
  status = open_log(c, conversation, &w.fd, err);
  if (status == TM_ECORRUPT) { /* purged since then? */
    tm_file_entry now;
    if (tm__file_barrier(c, NULL) == TM_OK &&
        tm__file_entry(c, conversation, &now, NULL) == TM_OK && !now.found)
      return tm__file_not_found(err, "journal row");
  }
  if (status == TM_OK) status = walk_rows(&w, row, follow_base, fn, ud, err);
  if (w.fd >= 0) (void)close(w.fd);
  tm__buf_free(&w.bytes);
  return status;
}
