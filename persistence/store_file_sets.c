/* store_file_sets.c - reading what is no conversation: start keys, sessions, scripts, notes,
 * tenants. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "persistence/store_file.h"

static int64_t limit_of(size_t limit) {
  return limit > INT32_MAX ? INT32_MAX : (int64_t)limit;
}

/* ---- start keys ---- */

tm_status tm__file_start_key(tm_store_conn *c, tm_slice tenant, uint64_t key, tm_start_key *out,
                             tm_error *err) {
  sqlite3_stmt *st;
  bool found, readable = true;
  int64_t since = c->store->now_ms(c->store->now_ud) - TM_KEY_AGE_MS;
  *out = (tm_start_key){0};
  tm_status status = tm__file_bind(c, TM_FSQL_KEY, &st, err, "tii", tenant, (int64_t)key, since);
  if (status == TM_OK) status = tm__file_step(c, st, &found, err);
  if (status != TM_OK) return status;
  if (found) {
    readable = tm__copy(out->conversation, sizeof(out->conversation), tm__file_column(st, 0));
    out->body = (uint64_t)sqlite3_column_int64(st, 1);
    out->row = sqlite3_column_int64(st, 2);
    out->created = sqlite3_column_int64(st, 3);
  }
  sqlite3_reset(st);
  if (!readable) return tm__file_sql_conn_fail(c, SQLITE_CORRUPT, "read a start key", err);
  return found ? TM_OK : tm__file_not_found(err, "start key");
}

tm_status tm__file_key_of(tm_store_conn *c, tm_slice conversation, uint64_t *key, tm_start_key *out,
                          tm_error *err) {
  tm_file_entry entry;
  int64_t since = c->store->now_ms(c->store->now_ud) - TM_KEY_AGE_MS;
  *out = (tm_start_key){0};
  tm_status status = tm__file_entry(c, conversation, &entry, err);
  if (status != TM_OK) return status;
  const tm_file_state *s = &entry.state;
  if (!entry.found || s->start_key == 0 || s->start_created < since)
    return tm__file_not_found(err, "start key");
  *key = s->start_key;
  *out = (tm_start_key){.body = s->start_body, .row = s->start_row, .created = s->start_created};
  memcpy(out->conversation, s->head.id, sizeof(out->conversation));
  return TM_OK;
}

/* ---- sessions ---- */

static void decode_session(sqlite3_stmt *st, tm_session *s) {
  *s = (tm_session){.tenant = tm__file_column(st, 0),
                    .id = tm__file_column(st, 1),
                    .user_id = tm__file_column(st, 2),
                    .metadata = tm__file_column(st, 3),
                    .created = sqlite3_column_int64(st, 5),
                    .look_at = sqlite3_column_int64(st, 6),
                    .ended = sqlite3_column_int64(st, 7)};
  tm__session_check(s, sqlite3_column_int64(st, 4));
}

/* Gives the rows of `st` that can be named to `fn`, at most `limit` of those that `damaged` counts;
 * resets nothing. */
static tm_status walk_sessions(tm_store_conn *c, sqlite3_stmt *st, size_t limit, bool damaged,
                               tm_session_fn fn, void *ud, tm_error *err) {
  int rc = SQLITE_DONE;
  tm_status status = TM_OK;
  while (status == TM_OK && limit > 0 && (rc = sqlite3_step(st)) == SQLITE_ROW) {
    tm_session session;
    decode_session(st, &session);
    if (!tm__session_is_named(&session)) continue;
    if (damaged || !session.damaged) limit--;
    status = fn(ud, &session);
  }
  if (rc == SQLITE_ROW || rc == SQLITE_DONE) return status;
  return tm__file_sql_conn_fail(c, rc, "read sessions", err);
}

tm_status tm__file_session(tm_store_conn *c, tm_slice tenant, tm_slice id, tm_session_fn fn,
                           void *ud, tm_error *err) {
  sqlite3_stmt *st;
  bool found;
  tm_session session;
  tm_status status = tm__file_bind(c, TM_FSQL_SESSION, &st, err, "tt", tenant, id);
  if (status == TM_OK) status = tm__file_step(c, st, &found, err);
  if (status != TM_OK) return status;
  if (found) {
    decode_session(st, &session);
    status =
        session.damaged ? tm__session_damaged(&session, c->store->root, err) : fn(ud, &session);
  }
  sqlite3_reset(st);
  return found ? status : tm__file_not_found(err, "session");
}

/* Each session is in one of the two indexes; both together are merged in their order. */
#define PART(index)                                                                                \
  "SELECT " TM_SESSION_COLUMNS " FROM sessions INDEXED BY sessions_" index " WHERE tenant=?1"

static void sessions_sql(tm_buf *b, const tm_session_filter *f, bool after) {
  const char *part[] = {PART("open") " AND ended=0", PART("ended") " AND ended>0"};
  if (f->tenant.ptr == NULL) {
    tm__buf_text(b, "SELECT " TM_SESSION_COLUMNS " FROM sessions WHERE ?1 IS NULL");
    if (after) tm__buf_text(b, " AND (tenant,id)>(?4,?3)");
    if (f->ended >= 0) tm__buf_text(b, f->ended == 0 ? " AND ended=0" : " AND ended>0");
    tm__buf_text(b, " ORDER BY tenant,id");
    return;
  }
  for (int i = f->ended > 0 ? 1 : 0; i < (f->ended == 0 ? 1 : 2); i++) {
    if (f->ended < 0 && i == 1) tm__buf_text(b, " UNION ALL ");
    tm__buf_text(b, part[i]);
    if (after) tm__buf_text(b, " AND (created,id)<(?2,?3)");
  }
  tm__buf_text(b, " ORDER BY created DESC,id DESC");
}

static int bind_text(sqlite3_stmt *st, int at, tm_slice text) {
  return sqlite3_bind_text64(st, at, text.ptr, text.len, SQLITE_STATIC, SQLITE_UTF8);
}

tm_status tm__file_sessions(tm_store_conn *c, const tm_session_filter *f, tm_session_fn fn,
                            void *ud, tm_error *err) {
  tm_buf sql = {0};
  sqlite3_stmt *st = NULL;
  bool after = f->before_id.ptr != NULL;
  tm_status status = tm__file_mend(c, err);
  if (status != TM_OK) return status;
  sessions_sql(&sql, f, after);
  int rc =
      tm__buf_ok(&sql) ? sqlite3_prepare_v2(c->index.db, sql.ptr, -1, &st, NULL) : SQLITE_NOMEM;
  if (rc == SQLITE_OK) {
    rc = bind_text(st, 1, f->tenant);
    if (after && f->tenant.ptr != NULL) rc |= sqlite3_bind_int64(st, 2, f->before_created);
    if (after) rc |= bind_text(st, 3, f->before_id);
    if (after && f->tenant.ptr == NULL) rc |= bind_text(st, 4, f->before_tenant);
  }
  status = rc == SQLITE_OK ? walk_sessions(c, st, f->limit, true, fn, ud, err)
                           : tm__file_sql_conn_fail(c, rc, "list sessions", err);
  sqlite3_finalize(st);
  tm__buf_free(&sql);
  return status;
}

tm_status tm__file_sessions_due(tm_store_conn *c, int64_t now, size_t limit, tm_session_fn fn,
                                void *ud, tm_error *err) {
  sqlite3_stmt *st;
  tm_status status = tm__file_bind(c, TM_FSQL_SESSIONS_DUE, &st, err, "i", now);
  if (status != TM_OK) return status;
  status = walk_sessions(c, st, limit, false, fn, ud, err);
  sqlite3_reset(st);
  return status;
}

/* ---- scripts ---- */

tm_status tm__file_small_read(const char *path, tm_buf *out, tm_error *err) {
  struct stat st;
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  bool ok = fd >= 0 && fstat(fd, &st) == 0;
  char *room = ok ? tm__buf_room(out, (size_t)st.st_size + 1) : NULL;
  int64_t n = room != NULL ? tm__file_read_all(fd, room, (size_t)st.st_size, 0) : -1;
  if (ok && room == NULL) errno = ENOMEM;
  if (n >= 0) out->len += (size_t)n;
  tm_status status = n >= 0 ? TM_OK : tm__disk_fail(err, "read", path);
  if (fd >= 0) (void)close(fd);
  return status;
}

static tm_status read_script(tm_store_conn *c, const tm_file_name *name, tm_buf *out,
                             tm_error *err) {
  tm_buf path = {0}, bytes = {0}, names = {0};
  tm_file_name is;
  tm_slice sources;
  tm__file_path(&path, c->store, name);
  tm_status status = tm__buf_ok(&path) ? tm__file_small_read(path.ptr, &bytes, err)
                                       : tm__fail_memory(err, "the store's path");
  if (status == TM_OK) {
    bool whole = tm__file_small_decode(&is, &sources, tm__buf_view(&bytes), &names) &&
                 is.what == name->what && tm__slice_eq(is.a, name->a) &&
                 tm__slice_eq(is.b, name->b);
    if (whole)
      tm__buf_slice(out, sources);
    else
      status = tm__file_damaged(err, c->store, path.ptr);
  }
  if (status == TM_OK && !tm__buf_ok(out)) status = tm__fail_memory(err, "a script");
  tm__buf_free(&path);
  tm__buf_free(&bytes);
  tm__buf_free(&names);
  return status;
}

tm_status tm__file_script_get(tm_store_conn *c, tm_slice system, tm_slice version, tm_buf *out,
                              tm_error *err) {
  sqlite3_stmt *st;
  bool found;
  tm_status status = tm__file_bind(c, TM_FSQL_SCRIPT, &st, err, "tt", system, version);
  if (status == TM_OK) status = tm__file_step(c, st, &found, err);
  if (status != TM_OK) return status;
  sqlite3_reset(st);
  if (!found) return tm__file_not_found(err, "version of the system");
  return read_script(c, &(tm_file_name){TM_FILE_SCRIPT, system, version}, out, err);
}

tm_status tm__file_scripts(tm_store_conn *c, tm_script_fn fn, void *ud, tm_error *err) {
  sqlite3_stmt *st;
  bool found = true;
  tm_status status = tm__file_bind(c, TM_FSQL_SCRIPTS, &st, err, "");
  if (status != TM_OK) return status;
  while (status == TM_OK && found) {
    status = tm__file_step(c, st, &found, err);
    if (status == TM_OK && found)
      status = fn(ud, tm__file_column(st, 0), tm__file_column(st, 1), sqlite3_column_int64(st, 2));
  }
  sqlite3_reset(st);
  return status;
}

/* ---- notes ---- */

tm_status tm__file_note_get(tm_store_conn *c, tm_slice name, tm_buf *out, tm_error *err) {
  sqlite3_stmt *st;
  bool found;
  tm_status status = tm__file_bind(c, TM_FSQL_NOTE, &st, err, "t", name);
  if (status == TM_OK) status = tm__file_step(c, st, &found, err);
  if (status != TM_OK) return status;
  if (found) tm__buf_slice(out, tm__file_column(st, 0));
  sqlite3_reset(st);
  if (!found) return tm__file_not_found(err, "note");
  return tm__buf_ok(out) ? TM_OK : tm__fail_memory(err, "a note");
}

/* ---- tenants ---- */

static tm_status walk_tenants(tm_store_conn *c, sqlite3_stmt *st, tm_tenant_fn fn, void *ud,
                              tm_error *err) {
  bool found = true;
  tm_status status = TM_OK;
  while (status == TM_OK && found) {
    status = tm__file_step(c, st, &found, err);
    if (status == TM_OK && found)
      status = fn(ud, tm__file_column(st, 0), sqlite3_column_int64(st, 1));
  }
  sqlite3_reset(st);
  return status;
}

tm_status tm__file_tenants_due(tm_store_conn *c, int64_t now, size_t limit, tm_tenant_fn fn,
                               void *ud, tm_error *err) {
  sqlite3_stmt *st;
  tm_status status = tm__file_bind(c, TM_FSQL_TENANTS_DUE, &st, err, "ii", now, limit_of(limit));
  return status == TM_OK ? walk_tenants(c, st, fn, ud, err) : status;
}

tm_status tm__file_tenants(tm_store_conn *c, tm_slice after, size_t limit, tm_tenant_fn fn,
                           void *ud, tm_error *err) {
  sqlite3_stmt *st;
  tm_slice from = after.ptr != NULL ? after : TM_S("");
  tm_status status = tm__file_bind(c, TM_FSQL_TENANTS, &st, err, "ti", from, limit_of(limit));
  return status == TM_OK ? walk_tenants(c, st, fn, ud, err) : status;
}

/* ---- what cannot be read ---- */

/* Events and tenants whose rows in the index have no name. */
static tm_status tell_nameless(tm_store_conn *c, tm_unreadable_fn fn, void *ud, tm_error *err) {
  sqlite3_stmt *st;
  bool found = true;
  tm_status status = tm__file_bind(c, TM_FSQL_NAMELESS, &st, err, "");
  if (status != TM_OK) return status;
  while (status == TM_OK && found) {
    tm_error why;
    status = tm__file_step(c, st, &found, err);
    if (status != TM_OK || !found) break;
    const char *what = (const char *)sqlite3_column_text(st, 0);
    (void)tm__store_nameless(what, tm__file_column(st, 1), c->store->root, &why);
    status = fn(ud, &why);
  }
  sqlite3_reset(st);
  return status;
}

/* Likewise sessions. */
static tm_status tell_sessions(tm_store_conn *c, tm_unreadable_fn fn, void *ud, tm_error *err) {
  sqlite3_stmt *st;
  bool found = true;
  tm_status status = tm__file_bind(c, TM_FSQL_SESSIONS, &st, err, "");
  if (status != TM_OK) return status;
  while (status == TM_OK && found) {
    tm_session session;
    tm_error why;
    status = tm__file_step(c, st, &found, err);
    if (status != TM_OK || !found) break;
    decode_session(st, &session);
    if (tm__session_is_named(&session)) continue;
    (void)tm__session_damaged(&session, c->store->root, &why);
    status = fn(ud, &why);
  }
  sqlite3_reset(st);
  return status;
}

tm_status tm__file_unreadable(tm_store_conn *c, tm_unreadable_fn fn, void *ud, tm_error *err) {
  sqlite3_stmt *st;
  int rc = SQLITE_DONE;
  tm_status status = tm__file_bind(c, TM_FSQL_UNREADABLE, &st, err, "");
  if (status != TM_OK) return status;
  while (status == TM_OK && (rc = sqlite3_step(st)) == SQLITE_ROW) {
    tm_error why;
    (void)tm__file_small_damaged(&why, c->store, tm__file_column(st, 0), tm__file_column(st, 1));
    status = fn(ud, &why);
  }
  if (status == TM_OK && rc != SQLITE_DONE)
    status = tm__file_sql_conn_fail(c, rc, "list what is damaged", err);
  sqlite3_reset(st);
  if (status == TM_OK) status = tell_sessions(c, fn, ud, err);
  return status == TM_OK ? tell_nameless(c, fn, ud, err) : status;
}
