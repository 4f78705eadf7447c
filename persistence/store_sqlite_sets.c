/* store_sqlite_sets.c - sessions, scripts, notes, tenants. */
#include "persistence/store_sqlite.h"

static int64_t limit_of(size_t limit) {
  return limit > INT32_MAX ? INT32_MAX : (int64_t)limit;
}

/* ---- sessions ---- */

/* From TM_SESSION_COLUMNS; all of it is borrowed until the next step. */
static void decode_session(sqlite3_stmt *st, tm_session *s) {
  *s = (tm_session){
      .tenant = tm__sqlite_column(st, 0),
      .id = tm__sqlite_column(st, 1),
      .user_id = tm__sqlite_column(st, 2),
      .metadata = tm__sqlite_column(st, 3),
      .created = sqlite3_column_int64(st, 5),
      .look_at = sqlite3_column_int64(st, 6),
      .ended = sqlite3_column_int64(st, 7),
  };
  tm__session_check(s, sqlite3_column_int64(st, 4));
}

/* Lists are read in pieces, as those of conversations. */
#define PIECE 16

typedef struct piece {
  tm_session items[PIECE];
  size_t count;
  tm_buf bytes; /* of all texts, one behind the other */
} piece;

static tm_slice *text_of(tm_session *s, int which) {
  tm_slice *texts[] = {&s->tenant, &s->id, &s->user_id, &s->metadata};
  return texts[which];
}

/* The texts are in `bytes`, which moves no more. */
static void piece_point(piece *p) {
  const char *at = p->bytes.ptr != NULL ? p->bytes.ptr : "";
  for (size_t i = 0; i < p->count; i++)
    for (int t = 0; t < 4; t++) {
      tm_slice *text = text_of(&p->items[i], t);
      if (text->ptr != NULL) text->ptr = at;
      at += text->len;
    }
}

/* Takes all rows of `st`, at most PIECE, and resets it. */
static tm_status piece_fill(tm_store_conn *c, sqlite3_stmt *st, piece *p, tm_error *err) {
  tm_status status = TM_OK;
  int rc = SQLITE_DONE;
  p->count = 0;
  tm__buf_clear(&p->bytes);
  while (status == TM_OK && p->count < PIECE && (rc = sqlite3_step(st)) == SQLITE_ROW) {
    tm_session *s = &p->items[p->count++];
    decode_session(st, s);
    for (int t = 0; t < 4; t++)
      tm__buf_slice(&p->bytes, *text_of(s, t));
  }
  if (status == TM_OK && rc != SQLITE_DONE && rc != SQLITE_ROW)
    status = tm__sqlite_conn_fail(c, rc, "read sessions", err);
  sqlite3_reset(st);
  if (status == TM_OK && !tm__buf_ok(&p->bytes)) status = tm__fail_memory(err, "sessions");
  if (status == TM_OK) piece_point(p);
  return status;
}

/* Whom the sessions of a piece go to, and where the next one begins: behind the last of this one.
 */
typedef struct walk {
  tm_session_fn fn;
  tm_unreadable_fn nameless; /* instead: those that have no name */
  void *ud;
  const char *path;
  size_t left;
  bool by_look; /* those that are damaged are none of `left` */
  bool begun;
  int64_t number; /* created or look_at */
  tm_buf tenant, id;
} walk;

static tm_status give_one(walk *w, const tm_session *s) {
  if (w->nameless == NULL) {
    if (!s->damaged || !w->by_look) w->left--;
    return w->fn(w->ud, s);
  }
  tm_error why;
  (void)tm__session_damaged(s, w->path, &why);
  return w->nameless(w->ud, &why);
}

static tm_status piece_give(const piece *p, walk *w) {
  tm_status status = TM_OK;
  for (size_t i = 0; status == TM_OK && i < p->count && w->left > 0; i++)
    if (tm__session_is_named(&p->items[i]) == (w->nameless == NULL))
      status = give_one(w, &p->items[i]);
  return status;
}

static tm_status move_on(walk *w, const piece *p, tm_error *err) {
  if (p->count == 0) return TM_OK;
  const tm_session *last = &p->items[p->count - 1];
  w->begun = true;
  w->number = w->by_look ? last->look_at : last->created;
  tm__buf_clear(&w->tenant);
  tm__buf_slice(&w->tenant, last->tenant);
  tm__buf_clear(&w->id);
  tm__buf_slice(&w->id, last->id);
  return tm__buf_ok(&w->tenant) && tm__buf_ok(&w->id) ? TM_OK : tm__fail_memory(err, "sessions");
}

static void walk_free(walk *w) {
  tm__buf_free(&w->tenant);
  tm__buf_free(&w->id);
}

static tm_slice name_of(const tm_buf *b) {
  return b->len > 0 ? tm__buf_view(b) : TM_S("");
}

tm_status tm__sqlite_session(tm_store_conn *c, tm_slice tenant, tm_slice id, tm_session_fn fn,
                             void *ud, tm_error *err) {
  sqlite3_stmt *st;
  piece p = {.count = 0};
  tm_status status = tm__sqlite_statement(c, TM_SQL_SESSION, &st, err);
  if (status != TM_OK) return status;
  int rc = tm__sqlite_bind(st, 1, tenant);
  rc |= tm__sqlite_bind(st, 2, id);
  status = rc == SQLITE_OK ? piece_fill(c, st, &p, err)
                           : tm__sqlite_conn_fail(c, rc, "find a session", err);
  if (status == TM_OK && p.count == 0) status = tm__sqlite_not_found(err, "session");
  if (status == TM_OK && p.items[0].damaged)
    status = tm__session_damaged(&p.items[0], c->store->path, err);
  if (status == TM_OK) status = fn(ud, &p.items[0]);
  tm__buf_free(&p.bytes);
  return status;
}

/* Each session is in one of the two indexes; both together are merged in their order. */
#define PART(index)                                                                                \
  "SELECT " TM_SESSION_COLUMNS " FROM sessions INDEXED BY sessions_" index " WHERE tenant=?1"
#define AFTER " AND (created,id)<(?2,?3)"

static void sessions_sql(tm_buf *b, const tm_session_filter *f, bool after) {
  const char *part[] = {PART("open") " AND ended=0", PART("ended") " AND ended>0"};
  if (f->tenant.ptr == NULL) {
    tm__buf_text(b, "SELECT " TM_SESSION_COLUMNS " FROM sessions WHERE ?1 IS NULL");
    if (after) tm__buf_text(b, " AND (tenant,id)>(?4,?3)");
    if (f->ended >= 0) tm__buf_text(b, f->ended == 0 ? " AND ended=0" : " AND ended>0");
    tm__buf_text(b, " ORDER BY tenant,id LIMIT ?5");
    return;
  }
  for (int i = f->ended > 0 ? 1 : 0; i < (f->ended == 0 ? 1 : 2); i++) {
    if (f->ended < 0 && i == 1) tm__buf_text(b, " UNION ALL ");
    tm__buf_text(b, part[i]);
    if (after) tm__buf_text(b, AFTER);
  }
  tm__buf_text(b, " ORDER BY created DESC,id DESC LIMIT ?5");
}

static tm_status list_piece(tm_store_conn *c, const tm_session_filter *f, const walk *w, piece *p,
                            tm_error *err) {
  tm_buf sql = {0};
  sqlite3_stmt *st = NULL;
  tm_status status = tm__sqlite_mend(c, err);
  if (status != TM_OK) return status;
  sessions_sql(&sql, f, w->begun);
  int rc = tm__buf_ok(&sql) ? sqlite3_prepare_v2(c->db, sql.ptr, -1, &st, NULL) : SQLITE_NOMEM;
  if (rc == SQLITE_OK) {
    rc = tm__sqlite_bind(st, 1, f->tenant);
    if (w->begun) rc |= sqlite3_bind_int64(st, 2, w->number);
    if (w->begun) rc |= tm__sqlite_bind(st, 3, name_of(&w->id));
    if (w->begun && f->tenant.ptr == NULL) rc |= tm__sqlite_bind(st, 4, name_of(&w->tenant));
    rc |= sqlite3_bind_int64(st, 5, PIECE);
  }
  status = rc == SQLITE_OK ? piece_fill(c, st, p, err)
                           : tm__sqlite_conn_fail(c, rc, "list sessions", err);
  sqlite3_finalize(st);
  tm__buf_free(&sql);
  return status;
}

static tm_status due_piece(tm_store_conn *c, int64_t now, const walk *w, piece *p, tm_error *err) {
  sqlite3_stmt *st;
  tm_status status = tm__sqlite_statement(c, TM_SQL_SESSIONS_DUE, &st, err);
  if (status != TM_OK) return status;
  int rc = sqlite3_bind_int64(st, 1, now);
  rc |= sqlite3_bind_int64(st, 2, PIECE);
  rc |= sqlite3_bind_int64(st, 3, w->number);
  rc |= tm__sqlite_bind(st, 4, name_of(&w->tenant));
  rc |= tm__sqlite_bind(st, 5, name_of(&w->id));
  if (rc == SQLITE_OK) return piece_fill(c, st, p, err);
  return tm__sqlite_conn_fail(c, rc, "find idle sessions", err);
}

/* `f` NULL: those that are due. */
static tm_status walk_pieces(tm_store_conn *c, const tm_session_filter *f, int64_t now, walk *w,
                             tm_error *err) {
  piece p = {.count = PIECE};
  bool begun = tm__buf_ok(&w->tenant) && tm__buf_ok(&w->id);
  tm_status status = begun ? TM_OK : tm__fail_memory(err, "sessions");
  while (status == TM_OK && p.count == PIECE && w->left > 0) {
    status = f != NULL ? list_piece(c, f, w, &p, err) : due_piece(c, now, w, &p, err);
    if (status == TM_OK) status = move_on(w, &p, err);
    if (status == TM_OK) status = piece_give(&p, w);
  }
  tm__buf_free(&p.bytes);
  walk_free(w);
  return status;
}

tm_status tm__sqlite_sessions(tm_store_conn *c, const tm_session_filter *f, tm_session_fn fn,
                              void *ud, tm_error *err) {
  walk w = {.fn = fn,
            .ud = ud,
            .left = f->limit,
            .begun = f->before_id.ptr != NULL,
            .number = f->before_created};
  tm__buf_slice(&w.tenant, f->before_tenant);
  tm__buf_slice(&w.id, f->before_id);
  return walk_pieces(c, f, 0, &w, err);
}

tm_status tm__sqlite_sessions_due(tm_store_conn *c, int64_t now, size_t limit, tm_session_fn fn,
                                  void *ud, tm_error *err) {
  walk w = {.fn = fn, .ud = ud, .left = limit, .by_look = true};
  return walk_pieces(c, NULL, now, &w, err);
}

tm_status tm__sqlite_unreadable(tm_store_conn *c, tm_unreadable_fn fn, void *ud, tm_error *err) {
  const tm_session_filter all = {.ended = -1};
  walk w = {.nameless = fn, .ud = ud, .path = c->store->path, .left = 1};
  sqlite3_stmt *st;
  int rc = SQLITE_DONE;
  tm_status status = walk_pieces(c, &all, 0, &w, err);
  if (status == TM_OK) status = tm__sqlite_statement(c, TM_SQL_NAMELESS, &st, err);
  if (status != TM_OK) return status;
  while (status == TM_OK && (rc = sqlite3_step(st)) == SQLITE_ROW) {
    tm_error why;
    const char *what = (const char *)sqlite3_column_text(st, 0);
    (void)tm__store_nameless(what, tm__sqlite_column(st, 1), c->store->path, &why);
    status = fn(ud, &why);
  }
  if (status == TM_OK && rc != SQLITE_DONE)
    status = tm__sqlite_conn_fail(c, rc, "list what is damaged", err);
  sqlite3_reset(st);
  return status;
}

/* ---- writing sessions ---- */

tm_status tm__sqlite_session_fits(tm_store_conn *c, const tm_commit *item, bool *fits,
                                  tm_error *err) {
  sqlite3_stmt *st;
  *fits = true;
  if (item->sessions_max <= 0 && item->tenant_sessions_max <= 0) return TM_OK;
  tm_status status = tm__sqlite_statement(c, TM_SQL_SESSIONS_OPEN, &st, err);
  if (status != TM_OK) return status;
  int rc = tm__sqlite_bind_text(st, 1, item->head.tenant);
  rc |= tm__sqlite_bind_text(st, 2, item->head.session);
  if (rc == SQLITE_OK) rc = sqlite3_step(st);
  if (rc == SQLITE_ROW) {
    bool all = item->sessions_max > 0 && sqlite3_column_int64(st, 0) >= item->sessions_max;
    bool own =
        item->tenant_sessions_max > 0 && sqlite3_column_int64(st, 1) >= item->tenant_sessions_max;
    *fits = (!all && !own) || sqlite3_column_int(st, 2) != 0;
  } else {
    status = tm__sqlite_conn_fail(c, rc, "count sessions", err);
  }
  sqlite3_reset(st);
  return status;
}

/* All but `ended`. */
static int bind_session(sqlite3_stmt *st, const tm_session *s) {
  int rc = tm__sqlite_bind(st, 1, s->tenant);
  rc |= tm__sqlite_bind(st, 2, s->id);
  if (s->user_id.ptr != NULL) rc |= tm__sqlite_bind_body(st, 3, s->flags, s->user_id);
  if (s->metadata.ptr != NULL) rc |= tm__sqlite_bind_body(st, 4, s->flags, s->metadata);
  if (s->user_id.ptr == NULL) rc |= sqlite3_bind_null(st, 3);
  if (s->metadata.ptr == NULL) rc |= sqlite3_bind_null(st, 4);
  rc |= sqlite3_bind_int64(st, 5, s->flags);
  rc |= sqlite3_bind_int64(st, 6, s->created);
  rc |= sqlite3_bind_int64(st, 7, s->look_at);
  return rc;
}

tm_status tm__sqlite_session_join(tm_store_conn *c, const tm_commit *item, tm_error *err) {
  sqlite3_stmt *st;
  tm_session s = *item->session;
  s.tenant = tm__slice(item->head.tenant);
  s.id = tm__slice(item->head.session);
  tm_status status = tm__sqlite_statement(c, TM_SQL_JOIN_SESSION, &st, err);
  if (status != TM_OK) return status;
  int rc = bind_session(st, &s);
  if (rc != SQLITE_OK) return tm__sqlite_conn_fail(c, rc, "bind a session", err);
  return tm__sqlite_run(c, st, "keep a session", err);
}

/* Within the transaction. */
static tm_status check_session(tm_store_conn *c, const tm_session *expect, const tm_session *s,
                               tm_error *err) {
  if (expect == NULL) return TM_OK;
  tm_status status = tm__sqlite_session(c, s->tenant, s->id, tm__session_is, &expect, err);
  bool moved = status == TM_ECONFLICT || status == TM_ENOTFOUND;
  return moved ? tm__session_moved(s->id, err) : status;
}

tm_status tm__sqlite_session_put(tm_store_conn *c, const tm_session *expect,
                                 const tm_session *session, tm_error *err) {
  sqlite3_stmt *st;
  tm_status status = tm__sqlite_begin(c, err);
  if (status != TM_OK) return status;
  status = check_session(c, expect, session, err);
  if (status == TM_OK) status = tm__sqlite_statement(c, TM_SQL_PUT_SESSION, &st, err);
  if (status == TM_OK) {
    int rc = bind_session(st, session);
    rc |= sqlite3_bind_int64(st, 8, session->ended);
    status = rc == SQLITE_OK ? tm__sqlite_run(c, st, "write a session", err)
                             : tm__sqlite_conn_fail(c, rc, "bind a session", err);
  }
  return tm__sqlite_end(c, status, err);
}

/* A statement about the session (tenant, id); *out: its first column, if it gives a row. */
static tm_status about_session(tm_store_conn *c, tm_sql which, tm_slice tenant, tm_slice id,
                               int64_t *out, tm_error *err) {
  sqlite3_stmt *st;
  tm_status status = tm__sqlite_statement(c, which, &st, err);
  if (status != TM_OK) return status;
  int rc = tm__sqlite_bind(st, 1, tenant);
  rc |= tm__sqlite_bind(st, 2, id);
  if (rc == SQLITE_OK) rc = sqlite3_step(st);
  if (rc == SQLITE_ROW) *out = sqlite3_column_int64(st, 0);
  if (rc != SQLITE_ROW && rc != SQLITE_DONE)
    status = tm__sqlite_conn_fail(c, rc, "remove a session", err);
  sqlite3_reset(st);
  return status;
}

tm_status tm__sqlite_session_drop(tm_store_conn *c, tm_slice tenant, tm_slice id, tm_error *err) {
  int64_t used = 0;
  tm_status status = tm__sqlite_begin(c, err);
  if (status != TM_OK) return status;
  status = about_session(c, TM_SQL_SESSION_IN_USE, tenant, id, &used, err);
  if (status == TM_OK && used != 0)
    status = tm__fail(err, TM_ECONFLICT, "store.session_in_use",
                      "the session has conversations: purge them first");
  if (status == TM_OK) status = about_session(c, TM_SQL_DROP_SESSION, tenant, id, &used, err);
  return tm__sqlite_end(c, status, err);
}

/* ---- scripts ---- */

tm_status tm__sqlite_script_put(tm_store_conn *c, tm_slice system, tm_slice version,
                                tm_slice sources, tm_error *err) {
  sqlite3_stmt *st;
  tm_status status = tm__sqlite_in_place(c->store, err);
  if (status == TM_OK) status = tm__sqlite_statement(c, TM_SQL_ADD_SCRIPT, &st, err);
  if (status != TM_OK) return status;
  int rc = tm__sqlite_bind(st, 1, system);
  rc |= tm__sqlite_bind(st, 2, version);
  rc |= tm__sqlite_bind(st, 3, sources);
  rc |= sqlite3_bind_int64(st, 4, c->store->now_ms(c->store->now_ud));
  if (rc != SQLITE_OK) return tm__sqlite_conn_fail(c, rc, "bind a script", err);
  return tm__sqlite_run(c, st, "keep a script", err);
}

/* Changes the script, if there is one and its last use allows that; *changed. */
static tm_status change_script(tm_store_conn *c, tm_sql which, tm_slice system, tm_slice version,
                               int64_t when, bool *changed, tm_error *err) {
  sqlite3_stmt *st;
  *changed = false;
  tm_status status = tm__sqlite_in_place(c->store, err);
  if (status == TM_OK) status = tm__sqlite_statement(c, which, &st, err);
  if (status != TM_OK) return status;
  int rc = tm__sqlite_bind(st, 1, system);
  rc |= tm__sqlite_bind(st, 2, version);
  rc |= sqlite3_bind_int64(st, 3, when);
  if (rc != SQLITE_OK) return tm__sqlite_conn_fail(c, rc, "bind a script", err);
  status = tm__sqlite_run(c, st, "change a script", err);
  *changed = status == TM_OK && sqlite3_changes(c->db) > 0;
  return status;
}

tm_status tm__sqlite_script_use(tm_store_conn *c, tm_slice system, tm_slice version,
                                tm_error *err) {
  bool changed;
  int64_t now = c->store->now_ms(c->store->now_ud);
  tm_status status = change_script(c, TM_SQL_USE_SCRIPT, system, version, now, &changed, err);
  return status != TM_OK || changed ? status : tm__sqlite_not_found(err, "version of the system");
}

tm_status tm__sqlite_script_drop(tm_store_conn *c, tm_slice system, tm_slice version,
                                 int64_t before, tm_error *err) {
  bool changed;
  tm_buf sources = {0};
  tm_status status = change_script(c, TM_SQL_DROP_SCRIPT, system, version, before, &changed, err);
  if (status != TM_OK || changed) return status;
  status = tm__sqlite_script_get(c, system, version, &sources, err);
  tm__buf_free(&sources);
  return status == TM_OK ? tm__script_used(system, version, err) : status;
}

/* Ends a statement that gives one text: appends it; TM_ENOTFOUND without a row. */
static tm_status take_text(tm_store_conn *c, sqlite3_stmt *st, int rc, tm_buf *out,
                           const char *what, tm_error *err) {
  tm_status status = TM_OK;
  if (rc == SQLITE_OK) rc = sqlite3_step(st);
  if (rc == SQLITE_ROW) {
    tm__buf_slice(out, tm__sqlite_column(st, 0));
    if (!tm__buf_ok(out)) status = tm__fail_memory(err, what);
  } else if (rc == SQLITE_DONE) {
    status = tm__sqlite_not_found(err, what);
  } else {
    status = tm__sqlite_conn_fail(c, rc, "read a text", err);
  }
  sqlite3_reset(st);
  return status;
}

tm_status tm__sqlite_script_get(tm_store_conn *c, tm_slice system, tm_slice version, tm_buf *out,
                                tm_error *err) {
  sqlite3_stmt *st;
  tm_status status = tm__sqlite_statement(c, TM_SQL_SCRIPT, &st, err);
  if (status != TM_OK) return status;
  int rc = tm__sqlite_bind(st, 1, system);
  rc |= tm__sqlite_bind(st, 2, version);
  return take_text(c, st, rc, out, "version of the system", err);
}

tm_status tm__sqlite_scripts(tm_store_conn *c, tm_script_fn fn, void *ud, tm_error *err) {
  sqlite3_stmt *st;
  int rc;
  tm_status status = tm__sqlite_statement(c, TM_SQL_SCRIPTS, &st, err);
  if (status != TM_OK) return status;
  while (status == TM_OK && (rc = sqlite3_step(st)) != SQLITE_DONE)
    status = rc == SQLITE_ROW ? fn(ud, tm__sqlite_column(st, 0), tm__sqlite_column(st, 1),
                                   sqlite3_column_int64(st, 2))
                              : tm__sqlite_conn_fail(c, rc, "list scripts", err);
  sqlite3_reset(st);
  return status;
}

/* ---- notes ---- */

tm_status tm__sqlite_note_put(tm_store_conn *c, tm_slice name, tm_slice text, tm_error *err) {
  sqlite3_stmt *st;
  bool keep = text.ptr != NULL;
  tm_status status = tm__sqlite_begin(c, err);
  if (status != TM_OK) return status;
  status = tm__sqlite_statement(c, keep ? TM_SQL_PUT_NOTE : TM_SQL_DROP_NOTE, &st, err);
  if (status == TM_OK) {
    int rc = tm__sqlite_bind(st, 1, name);
    if (keep) rc |= tm__sqlite_bind_body(st, 2, 1, text);
    status = rc == SQLITE_OK ? tm__sqlite_run(c, st, "keep a note", err)
                             : tm__sqlite_conn_fail(c, rc, "bind a note", err);
  }
  return tm__sqlite_end(c, status, err);
}

tm_status tm__sqlite_note_get(tm_store_conn *c, tm_slice name, tm_buf *out, tm_error *err) {
  sqlite3_stmt *st;
  tm_status status = tm__sqlite_statement(c, TM_SQL_NOTE, &st, err);
  if (status != TM_OK) return status;
  return take_text(c, st, tm__sqlite_bind(st, 1, name), out, "note", err);
}

tm_status tm__sqlite_note_swap(tm_store_conn *c, tm_slice name, tm_slice expect, tm_slice text,
                               tm_error *err) {
  sqlite3_stmt *st;
  bool is_new = expect.ptr == NULL;
  tm_status status = tm__sqlite_begin(c, err);
  if (status != TM_OK) return status;
  status = tm__sqlite_statement(c, is_new ? TM_SQL_ADD_NOTE : TM_SQL_SWAP_NOTE, &st, err);
  if (status == TM_OK) {
    int rc = tm__sqlite_bind(st, 1, name);
    rc |= tm__sqlite_bind_body(st, 2, 1, text);
    if (!is_new) rc |= tm__sqlite_bind_body(st, 3, 1, expect);
    status = rc == SQLITE_OK ? tm__sqlite_run(c, st, "keep a note", err)
                             : tm__sqlite_conn_fail(c, rc, "bind a note", err);
  }
  if (status == TM_OK && sqlite3_changes(c->db) == 0) status = tm__store_note_moved(name, err);
  return tm__sqlite_end(c, status, err);
}

/* ---- tenants ---- */

tm_status tm__sqlite_tenant_wake(tm_store_conn *c, tm_slice tenant, int64_t expect, int64_t wake_at,
                                 tm_error *err) {
  sqlite3_stmt *st;
  tm_sql which = expect < 0    ? TM_SQL_WAKE_TENANT
                 : expect == 0 ? TM_SQL_ADD_TENANT
                               : TM_SQL_MOVE_TENANT;
  tm_status status = tm__sqlite_begin(c, err);
  if (status != TM_OK) return status;
  status = tm__sqlite_statement(c, which, &st, err);
  if (status == TM_OK) {
    int rc = tm__sqlite_bind(st, 1, tenant);
    rc |= sqlite3_bind_int64(st, 2, wake_at);
    if (expect > 0) rc |= sqlite3_bind_int64(st, 3, expect);
    status = rc == SQLITE_OK ? tm__sqlite_run(c, st, "note when a tenant is due", err)
                             : tm__sqlite_conn_fail(c, rc, "bind a tenant", err);
  }
  if (status == TM_OK && expect >= 0 && sqlite3_changes(c->db) == 0)
    status = tm__fail(err, TM_ECONFLICT, "store.conflict",
                      "when the tenant is due was changed meanwhile: read it again");
  return tm__sqlite_end(c, status, err);
}

/* Ends a statement that gives tenants. */
static tm_status walk_tenants(tm_store_conn *c, sqlite3_stmt *st, int rc, tm_tenant_fn fn, void *ud,
                              tm_error *err) {
  tm_status status = TM_OK;
  while (status == TM_OK && (rc == SQLITE_OK || rc == SQLITE_ROW) &&
         (rc = sqlite3_step(st)) == SQLITE_ROW)
    status = fn(ud, tm__sqlite_column(st, 0), sqlite3_column_int64(st, 1));
  if (status == TM_OK && rc != SQLITE_DONE)
    status = tm__sqlite_conn_fail(c, rc, "list tenants", err);
  sqlite3_reset(st);
  return status;
}

tm_status tm__sqlite_tenants_due(tm_store_conn *c, int64_t now, size_t limit, tm_tenant_fn fn,
                                 void *ud, tm_error *err) {
  sqlite3_stmt *st;
  tm_status status = tm__sqlite_statement(c, TM_SQL_TENANTS_DUE, &st, err);
  if (status != TM_OK) return status;
  int rc = sqlite3_bind_int64(st, 1, now);
  rc |= sqlite3_bind_int64(st, 2, limit_of(limit));
  return walk_tenants(c, st, rc, fn, ud, err);
}

tm_status tm__sqlite_tenants(tm_store_conn *c, tm_slice after, size_t limit, tm_tenant_fn fn,
                             void *ud, tm_error *err) {
  sqlite3_stmt *st;
  tm_status status = tm__sqlite_statement(c, TM_SQL_TENANTS, &st, err);
  if (status != TM_OK) return status;
  int rc = tm__sqlite_bind(st, 1, after.ptr != NULL ? after : TM_S(""));
  rc |= sqlite3_bind_int64(st, 2, limit_of(limit));
  return walk_tenants(c, st, rc, fn, ud, err);
}
