/* store_postgres_sets.c - sessions, scripts, notes and tenants. */
#include "persistence/store_postgres.h"

static int64_t bounded(size_t limit) {
  return limit > INT32_MAX ? INT32_MAX : (int64_t)limit;
}

static void add_slice(tm_pg_args *a, tm_slice text) { /* never NULL */
  tm__pg_bytes(a, text.ptr != NULL ? text : TM_S(""));
}

static tm_status not_a_text(tm_error *err, const char *what) {
  return tm__fail(err, TM_EINVAL, "store.refused",
                  "the name of a %s is no UTF-8, or has a NUL in it: PostgreSQL cannot keep it",
                  what);
}

/* ---- sessions ---- */

/* From TM_PG_SESSION_COLUMNS; all is borrowed from the result. */
static tm_session decode_session(const PGresult *r, int row) {
  tm_session s = {.tenant = tm__pg_get(r, row, 0),
                  .id = tm__pg_get(r, row, 1),
                  .user_id = tm__pg_get(r, row, 2),
                  .metadata = tm__pg_get(r, row, 3),
                  .created = tm__pg_get_int(r, row, 5),
                  .look_at = tm__pg_get_int(r, row, 6),
                  .ended = tm__pg_get_int(r, row, 7)};
  tm__session_check(&s, tm__pg_get_int(r, row, 4));
  return s;
}

tm_status tm__pg_session(tm_store_conn *c, tm_slice tenant, tm_slice id, tm_session_fn fn, void *ud,
                         tm_error *err) {
  tm_pg_args a = {0};
  PGresult *r = NULL;
  if (!tm__pg_is_text(tenant) || !tm__pg_is_text(id)) return tm__pg_not_found(err, "session");
  add_slice(&a, tenant);
  add_slice(&a, id);
  tm_status status = tm__pg_read(c, TM_PG_SESSION, NULL, &a, &r, "read a session", err);
  if (status != TM_OK) return status;
  if (PQntuples(r) == 0) {
    status = tm__pg_not_found(err, "session");
  } else {
    const tm_session session = decode_session(r, 0);
    status =
        session.damaged ? tm__session_damaged(&session, c->store->place, err) : fn(ud, &session);
  }
  PQclear(r);
  return status;
}

#define PAGE 64

/* A walk through sessions, page by page: where it stands. */
typedef struct walk {
  tm_session_fn fn;
  void *ud;
  size_t left;
  bool by_look; /* those that are due; the damaged ones are none of `left` */
  bool begun;
  int64_t number; /* created or look_at */
  char tenant[65], id[129];
} walk;

static bool start_behind(walk *w, const tm_session_filter *f) {
  w->begun = f->before_id.ptr != NULL;
  w->number = f->before_created;
  return tm__copy(w->tenant, sizeof(w->tenant), f->before_tenant) &&
         tm__copy(w->id, sizeof(w->id), f->before_id);
}

static int page_of(const walk *w) {
  return w->left < PAGE ? (int)w->left : PAGE;
}

/* Gives a page, and clears it; *full: there may be more behind it. */
static tm_status give_page(walk *w, PGresult *r, bool *full) {
  tm_status status = TM_OK;
  *full = PQntuples(r) == page_of(w);
  for (int i = 0; status == TM_OK && i < PQntuples(r); i++) {
    const tm_session s = decode_session(r, i);
    w->begun = true;
    w->number = w->by_look ? s.look_at : s.created;
    (void)tm__copy(w->tenant, sizeof(w->tenant), s.tenant);
    (void)tm__copy(w->id, sizeof(w->id), s.id);
    if (!s.damaged || !w->by_look) w->left--;
    status = w->fn(w->ud, &s);
  }
  PQclear(r);
  return status;
}

static void sessions_sql(const tm_session_filter *f, const walk *w, tm_buf *sql, tm_pg_args *a) {
  bool all = f->tenant.ptr == NULL;
  tm__buf_text(sql, "SELECT " TM_PG_SESSION_COLUMNS " FROM sessions WHERE " TM_PG_SESSION_NAMED);
  if (!all) {
    tm__pg_bytes(a, f->tenant);
    tm__buf_printf(sql, " AND tenant=$%d::text", a->count);
  }
  if (f->ended >= 0) tm__buf_text(sql, f->ended == 0 ? " AND ended=0" : " AND ended>0");
  if (w->begun) {
    tm__pg_int(a, w->number);
    tm__pg_text(a, w->id);
    if (all) tm__pg_text(a, w->tenant);
    tm__buf_printf(sql,
                   all ? " AND (created,id,tenant)<($%d::bigint,$%d::text,$%d::text)"
                       : " AND (created,id)<($%d::bigint,$%d::text)",
                   a->count - (all ? 2 : 1), a->count - (all ? 1 : 0), a->count);
  }
  tm__pg_int(a, page_of(w));
  tm__buf_printf(sql, " ORDER BY created DESC,id DESC%s LIMIT $%d::bigint",
                 all ? ",tenant DESC" : "", a->count);
}

static tm_status list_page(tm_store_conn *c, const tm_session_filter *f, walk *w, bool *full,
                           tm_error *err) {
  tm_pg_args a = {0};
  tm_buf sql = {0};
  PGresult *r = NULL;
  sessions_sql(f, w, &sql, &a);
  tm_status status = tm__buf_ok(&sql)
                         ? tm__pg_read(c, TM_PG_SESSION, sql.ptr, &a, &r, "list sessions", err)
                         : tm__fail_memory(err, "a list of sessions");
  tm__buf_free(&sql);
  return status == TM_OK ? give_page(w, r, full) : status;
}

tm_status tm__pg_sessions(tm_store_conn *c, const tm_session_filter *f, tm_session_fn fn, void *ud,
                          tm_error *err) {
  walk w = {.fn = fn, .ud = ud, .left = f->limit};
  bool full = true;
  tm_status status = TM_OK;
  if (!tm__pg_is_text(f->tenant) || !tm__pg_is_text(f->before_id) || !start_behind(&w, f))
    return TM_OK; /* nobody has such a name */
  while (status == TM_OK && full && w.left > 0)
    status = list_page(c, f, &w, &full, err);
  return status;
}

static tm_status due_page(tm_store_conn *c, int64_t now, walk *w, bool *full, tm_error *err) {
  tm_pg_args a = {0};
  PGresult *r = NULL;
  tm__pg_int(&a, now);
  tm__pg_int(&a, page_of(w));
  tm__pg_int(&a, w->number);
  tm__pg_text(&a, w->tenant);
  tm__pg_text(&a, w->id);
  tm_status status = tm__pg_read(c, TM_PG_SESSIONS_DUE, NULL, &a, &r, "find idle sessions", err);
  return status == TM_OK ? give_page(w, r, full) : status;
}

tm_status tm__pg_sessions_due(tm_store_conn *c, int64_t now, size_t limit, tm_session_fn fn,
                              void *ud, tm_error *err) {
  walk w = {.fn = fn, .ud = ud, .left = limit, .by_look = true};
  bool full = true;
  tm_status status = TM_OK;
  while (status == TM_OK && full && w.left > 0)
    status = due_page(c, now, &w, &full, err);
  return status;
}

tm_status tm__pg_unreadable(tm_store_conn *c, tm_unreadable_fn fn, void *ud, tm_error *err) {
  const tm_pg_args none = {0};
  PGresult *r = NULL;
  tm_status status = tm__pg_read(c, TM_PG_NAMELESS, NULL, &none, &r, "look for damage", err);
  for (int i = 0; status == TM_OK && i < PQntuples(r); i++) {
    const tm_session session = {.tenant = tm__pg_get(r, i, 1), .id = tm__pg_get(r, i, 2)};
    tm_error why;
    if (tm__slice_is(tm__pg_get(r, i, 0), "a session"))
      (void)tm__session_damaged(&session, c->store->place, &why);
    else
      (void)tm__store_nameless(PQgetvalue(r, i, 0), session.tenant, c->store->place, &why);
    status = fn(ud, &why);
  }
  PQclear(r);
  return status;
}

static void add_session(tm_pg_args *a, const tm_session *s) { /* without its names */
  tm__pg_bytes(a, s->user_id);
  tm__pg_bytes(a, s->metadata);
  tm__pg_int(a, s->flags);
  tm__pg_int(a, s->created);
  tm__pg_int(a, s->look_at);
  tm__pg_int(a, s->ended);
}

tm_status tm__pg_session_put(tm_store_conn *c, const tm_session *expect, const tm_session *session,
                             tm_error *err) {
  tm_pg_args a = {0};
  int64_t changed = 1;
  tm_pg_sql which = expect != NULL ? TM_PG_MOVE_SESSION : TM_PG_PUT_SESSION;
  if (!tm__pg_is_text(session->tenant) || !tm__pg_is_text(session->id))
    return not_a_text(err, "session");
  add_slice(&a, session->tenant);
  add_slice(&a, session->id);
  add_session(&a, session);
  if (expect != NULL) add_session(&a, expect);
  tm_status status = tm__pg_write_one(c, which, &a, &changed, "keep a session", err);
  return status == TM_OK && changed == 0 ? tm__session_moved(session->id, err) : status;
}

typedef struct dropping {
  tm_pg_work work;
  const tm_pg_args *args;
  int64_t used;
} dropping;

/* The lock first: only what is asked after it sees a conversation that has just begun. */
static bool send_drop(tm_pg_work *w, PGconn *pg) {
  const dropping *d = (const dropping *)(void *)w;
  return tm__pg_send(pg, TM_PG_LOCK_SESSION, d->args) &&
         tm__pg_send(pg, TM_PG_DROP_SESSION, d->args);
}

static void take_drop(tm_pg_work *w, size_t index, PGresult *r) {
  if (index == 1) ((dropping *)(void *)w)->used = tm__pg_get_int(r, 0, 0);
}

tm_status tm__pg_session_drop(tm_store_conn *c, tm_slice tenant, tm_slice id, tm_error *err) {
  tm_pg_args a = {0};
  dropping d = {{"remove a session", send_drop, take_drop}, &a, 0};
  if (!tm__pg_is_text(tenant) || !tm__pg_is_text(id)) return TM_OK;
  add_slice(&a, tenant);
  add_slice(&a, id);
  tm_status status = tm__pg_write(c, &d.work, err);
  if (status != TM_OK || d.used == 0) return status;
  return tm__fail(err, TM_ECONFLICT, "store.session_in_use",
                  "session %.*s has conversations: they go first", (int)id.len, id.ptr);
}

/* ---- scripts ---- */

tm_status tm__pg_script_put(tm_store_conn *c, tm_slice system, tm_slice version, tm_slice sources,
                            tm_error *err) {
  tm_pg_args a = {0};
  if (!tm__pg_is_text(system) || !tm__pg_is_text(version)) return not_a_text(err, "system");
  add_slice(&a, system);
  add_slice(&a, version);
  add_slice(&a, sources);
  tm__pg_int(&a, c->store->now_ms(c->store->now_ud));
  return tm__pg_write_one(c, TM_PG_PUT_SCRIPT, &a, NULL, "keep a script", err);
}

/* Appends the only column of the only row. */
static tm_status read_one(tm_store_conn *c, tm_pg_sql which, const tm_pg_args *a, const char *what,
                          tm_buf *out, tm_error *err) {
  PGresult *r = NULL;
  tm_status status = tm__pg_read(c, which, NULL, a, &r, "read", err);
  if (status != TM_OK) return status;
  if (PQntuples(r) == 0)
    status = tm__pg_not_found(err, what);
  else
    tm__buf_slice(out, tm__pg_get(r, 0, 0));
  PQclear(r);
  return status != TM_OK || tm__buf_ok(out) ? status : tm__fail_memory(err, what);
}

tm_status tm__pg_script_get(tm_store_conn *c, tm_slice system, tm_slice version, tm_buf *out,
                            tm_error *err) {
  tm_pg_args a = {0};
  if (!tm__pg_is_text(system) || !tm__pg_is_text(version))
    return tm__pg_not_found(err, "version of the system");
  add_slice(&a, system);
  add_slice(&a, version);
  return read_one(c, TM_PG_SCRIPT, &a, "version of the system", out, err);
}

static tm_status change_script(tm_store_conn *c, tm_pg_sql which, tm_slice system, tm_slice version,
                               int64_t when, int64_t *changed, tm_error *err) {
  tm_pg_args a = {0};
  *changed = 0;
  if (!tm__pg_is_text(system) || !tm__pg_is_text(version))
    return tm__pg_not_found(err, "version of the system");
  add_slice(&a, system);
  add_slice(&a, version);
  tm__pg_int(&a, when);
  return tm__pg_write_one(c, which, &a, changed, "change a script", err);
}

tm_status tm__pg_script_use(tm_store_conn *c, tm_slice system, tm_slice version, tm_error *err) {
  int64_t changed, now = c->store->now_ms(c->store->now_ud);
  tm_status status = change_script(c, TM_PG_USE_SCRIPT, system, version, now, &changed, err);
  return status != TM_OK || changed > 0 ? status : tm__pg_not_found(err, "version of the system");
}

tm_status tm__pg_script_drop(tm_store_conn *c, tm_slice system, tm_slice version, int64_t before,
                             tm_error *err) {
  int64_t changed;
  tm_buf sources = {0};
  tm_status status = change_script(c, TM_PG_DROP_SCRIPT, system, version, before, &changed, err);
  if (status != TM_OK || changed > 0) return status;
  status = tm__pg_script_get(c, system, version, &sources, err);
  tm__buf_free(&sources);
  return status == TM_OK ? tm__script_used(system, version, err) : status;
}

tm_status tm__pg_scripts(tm_store_conn *c, tm_script_fn fn, void *ud, tm_error *err) {
  const tm_pg_args none = {0};
  PGresult *r = NULL;
  tm_status status = tm__pg_read(c, TM_PG_SCRIPTS, NULL, &none, &r, "list scripts", err);
  for (int i = 0; status == TM_OK && i < PQntuples(r); i++)
    status = fn(ud, tm__pg_get(r, i, 0), tm__pg_get(r, i, 1), tm__pg_get_int(r, i, 2));
  PQclear(r);
  return status;
}

/* ---- notes ---- */

tm_status tm__pg_note_put(tm_store_conn *c, tm_slice name, tm_slice text, tm_error *err) {
  tm_pg_args a = {0};
  if (!tm__pg_is_text(name)) return not_a_text(err, "note");
  add_slice(&a, name);
  if (text.ptr == NULL) return tm__pg_write_one(c, TM_PG_DROP_NOTE, &a, NULL, "remove a note", err);
  tm__pg_bytes(&a, text);
  return tm__pg_write_one(c, TM_PG_PUT_NOTE, &a, NULL, "keep a note", err);
}

tm_status tm__pg_note_get(tm_store_conn *c, tm_slice name, tm_buf *out, tm_error *err) {
  tm_pg_args a = {0};
  if (!tm__pg_is_text(name)) return tm__pg_not_found(err, "note");
  add_slice(&a, name);
  return read_one(c, TM_PG_NOTE, &a, "note", out, err);
}

tm_status tm__pg_note_swap(tm_store_conn *c, tm_slice name, tm_slice expect, tm_slice text,
                           tm_error *err) {
  tm_pg_args a = {0};
  int64_t changed = 0;
  bool is_new = expect.ptr == NULL;
  if (!tm__pg_is_text(name)) return not_a_text(err, "note");
  add_slice(&a, name);
  tm__pg_bytes(&a, text);
  if (!is_new) tm__pg_bytes(&a, expect);
  tm_status status = tm__pg_write_one(c, is_new ? TM_PG_ADD_NOTE : TM_PG_SWAP_NOTE, &a, &changed,
                                      "keep a note", err);
  return status == TM_OK && changed == 0 ? tm__store_note_moved(name, err) : status;
}

/* ---- tenants ---- */

tm_status tm__pg_tenant_wake(tm_store_conn *c, tm_slice tenant, int64_t expect, int64_t wake_at,
                             tm_error *err) {
  tm_pg_args a = {0};
  int64_t changed = 0;
  if (!tm__pg_is_text(tenant)) return not_a_text(err, "tenant");
  add_slice(&a, tenant);
  tm__pg_int(&a, wake_at);
  if (expect < 0) return tm__pg_write_one(c, TM_PG_WAKE_TENANT, &a, NULL, "wake a tenant", err);
  if (expect > 0) tm__pg_int(&a, expect);
  tm_pg_sql which = expect > 0 ? TM_PG_MOVE_TENANT : TM_PG_BEGIN_TENANT;
  tm_status status = tm__pg_write_one(c, which, &a, &changed, "wake a tenant", err);
  if (status != TM_OK || changed > 0) return status;
  return tm__fail(err, TM_ECONFLICT, "store.conflict",
                  "the next deadline of the tenant was changed by another process meanwhile");
}

static tm_status read_tenants(tm_store_conn *c, tm_pg_sql which, const tm_pg_args *a,
                              tm_tenant_fn fn, void *ud, tm_error *err) {
  PGresult *r = NULL;
  tm_status status = tm__pg_read(c, which, NULL, a, &r, "list tenants", err);
  for (int i = 0; status == TM_OK && i < PQntuples(r); i++)
    status = fn(ud, tm__pg_get(r, i, 0), tm__pg_get_int(r, i, 1));
  PQclear(r);
  return status;
}

tm_status tm__pg_tenants_due(tm_store_conn *c, int64_t now, size_t limit, tm_tenant_fn fn, void *ud,
                             tm_error *err) {
  tm_pg_args a = {0};
  tm__pg_int(&a, now);
  tm__pg_int(&a, bounded(limit));
  return read_tenants(c, TM_PG_TENANTS_DUE, &a, fn, ud, err);
}

tm_status tm__pg_tenants(tm_store_conn *c, tm_slice after, size_t limit, tm_tenant_fn fn, void *ud,
                         tm_error *err) {
  tm_pg_args a = {0};
  if (!tm__pg_is_text(after)) return TM_OK;
  add_slice(&a, after);
  tm__pg_int(&a, bounded(limit));
  return read_tenants(c, TM_PG_TENANTS, &a, fn, ud, err);
}
