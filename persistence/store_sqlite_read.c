/* store_sqlite_read.c - heads, rows, lists, deadlines, start keys. */
#include <stdlib.h>
#include <string.h>

#include "persistence/recent.h"
#include "persistence/store_sqlite.h"

/* ---- decoding: what does not fit our structs was not written by us ---- */

bool tm__sqlite_text(sqlite3_stmt *st, int at, char *out, size_t size) {
  return tm__copy(out, size, tm__sqlite_column(st, at));
}

/* From TM_HEAD_COLUMNS. */
static bool decode_head(sqlite3_stmt *st, tm_head *h) {
  *h = (tm_head){0};
  bool ok = tm__sqlite_text(st, 0, h->id, sizeof(h->id));
  ok = tm__sqlite_text(st, 1, h->tenant, sizeof(h->tenant)) && ok;
  ok = tm__sqlite_text(st, 2, h->session, sizeof(h->session)) && ok;
  ok = tm__sqlite_text(st, 3, h->system, sizeof(h->system)) && ok;
  ok = tm__sqlite_text(st, 4, h->flow, sizeof(h->flow)) && ok;
  ok = tm__sqlite_text(st, 5, h->version, sizeof(h->version)) && ok;
  ok = tm__sqlite_text(st, 6, h->step, sizeof(h->step)) && ok;
  ok = tm__sqlite_text(st, 7, h->claim, sizeof(h->claim)) && ok;
  int status = sqlite3_column_int(st, 8);
  h->status = (tm_conversation_status)status;
  h->revision = sqlite3_column_int64(st, 9);
  h->tip = sqlite3_column_int64(st, 10);
  h->wake_at = sqlite3_column_int64(st, 11);
  h->created = sqlite3_column_int64(st, 12);
  h->ended = sqlite3_column_int64(st, 14);
  return ok && tm__head_is_sound(h) && status >= TM_ACTIVE && status <= TM_CANCELLED &&
         tm__recent_decode(h, tm__sqlite_column(st, 13));
}

/* From TM_ROW_COLUMNS; the body is borrowed until the next step. */
static bool decode_row(sqlite3_stmt *st, tm_row *row) {
  *row = (tm_row){
      .id = sqlite3_column_int64(st, 0),
      .parent = sqlite3_column_int64(st, 1),
      .base = sqlite3_column_int64(st, 2),
      .revision = sqlite3_column_int64(st, 4),
      .kind = (tm_row_kind)sqlite3_column_int(st, 5),
      .created = sqlite3_column_int64(st, 6),
      .checkpoint = sqlite3_column_int(st, 7) != 0,
      .flags = (uint32_t)sqlite3_column_int64(st, 8),
      .body = tm__sqlite_column(st, 9),
  };
  return tm__sqlite_text(st, 3, row->conversation, sizeof(row->conversation)) &&
         row->kind >= TM_ROW_BEGIN && row->kind <= TM_ROW_MIGRATE;
}

tm_status tm__sqlite_not_found(tm_error *err, const char *what) {
  return tm__fail(err, TM_ENOTFOUND, "store.not_found", "the store has no such %s", what);
}

/* Ends a statement that gave at most one row: TM_ENOTFOUND without it. */
static tm_status end_single(tm_store_conn *c, sqlite3_stmt *st, int rc, const char *what,
                            tm_error *err) {
  tm_status status = TM_OK;
  if (rc == SQLITE_DONE)
    status = tm__sqlite_not_found(err, what);
  else if (rc != SQLITE_ROW)
    status = tm__sqlite_conn_fail(c, rc, "read", err);
  sqlite3_reset(st);
  return status;
}

/* ---- heads ---- */

tm_status tm__sqlite_head(tm_store_conn *c, tm_slice id, tm_head *out, tm_error *err) {
  sqlite3_stmt *st;
  tm_status status = tm__sqlite_statement(c, TM_SQL_HEAD, &st, err);
  if (status != TM_OK) return status;
  int rc = tm__sqlite_bind(st, 1, id);
  if (rc == SQLITE_OK) rc = sqlite3_step(st);
  bool readable = rc != SQLITE_ROW || decode_head(st, out);
  status = end_single(c, st, rc, "conversation", err);
  return readable ? status : tm__head_damaged(id, c->store->path, err);
}

/* Lists are read in pieces: nobody holds up the log, or without one a writer, while the caller
 * works on what it was given. */
#define PIECE 64
#define SCAN  4096 /* heads that are looked at for a piece */

typedef struct piece {
  tm_head *heads; /* room for PIECE */
  size_t count;
  size_t whole; /* of them those that are not damaged */
} piece;

static tm_status piece_init(piece *p, tm_error *err) {
  *p = (piece){.heads = malloc(PIECE * sizeof(*p->heads))};
  return p->heads != NULL ? TM_OK : tm__fail_memory(err, "a list");
}

/* Takes all rows of `st`, at most PIECE, and resets it. */
static tm_status piece_fill(tm_store_conn *c, sqlite3_stmt *st, piece *p, tm_error *err) {
  tm_status status = TM_OK;
  int rc = SQLITE_DONE;
  p->count = p->whole = 0;
  while (p->count < PIECE && (rc = sqlite3_step(st)) == SQLITE_ROW) {
    tm_head *h = &p->heads[p->count++];
    if (decode_head(st, h))
      p->whole++;
    else
      tm__head_spoil(h, tm__sqlite_column(st, 0));
  }
  if (rc != SQLITE_DONE && rc != SQLITE_ROW)
    status = tm__sqlite_conn_fail(c, rc, "read conversations", err);
  sqlite3_reset(st);
  return status;
}

/* What has no id at all cannot be named. */
static tm_status piece_give(const piece *p, tm_head_fn fn, void *ud) {
  tm_status status = TM_OK;
  for (size_t i = 0; status == TM_OK && i < p->count; i++)
    if (p->heads[i].id[0] != '\0') status = fn(ud, &p->heads[i]);
  return status;
}

static int64_t piece_limit(size_t left) {
  return left < PIECE ? (int64_t)left : PIECE;
}

/* The index of the filter's rarest column; each has the id behind it. */
static void from_sql(tm_buf *b, const char *columns, const tm_list_filter *f, bool before) {
  const char *index = f->session.ptr != NULL  ? "heads_session"
                      : f->status >= 0        ? "heads_status"
                      : f->system.ptr != NULL ? "heads_system"
                                              : "heads_tenant";
  tm__buf_printf(b, "SELECT %s FROM heads", columns);
  if (f->tenant.ptr != NULL)
    tm__buf_printf(b, " INDEXED BY %s WHERE tenant=?1", index);
  else
    tm__buf_text(b, " WHERE ?1 IS NULL");
  if (before) tm__buf_text(b, " AND id<?6");
}

/* Those that the filter wants, down to ?8. */
static void list_sql(tm_buf *b, const tm_list_filter *f, bool before, bool floor) {
  from_sql(b, TM_HEAD_COLUMNS, f, before);
  if (f->session.ptr != NULL) tm__buf_text(b, " AND session=?2");
  if (f->system.ptr != NULL) tm__buf_text(b, " AND system=?3");
  if (f->flow.ptr != NULL) tm__buf_text(b, " AND flow=?4");
  if (f->status >= 0) tm__buf_text(b, " AND status=?5");
  if (floor) tm__buf_text(b, " AND id>=?8");
  tm__buf_text(b, " ORDER BY id DESC LIMIT ?7");
}

/* The same index, without what it does not have: how far a piece may go. */
static void floor_sql(tm_buf *b, const tm_list_filter *f, bool before) {
  bool session = f->session.ptr != NULL, status = !session && f->status >= 0;
  from_sql(b, "id", f, before);
  if (f->tenant.ptr != NULL && session) tm__buf_text(b, " AND session=?2");
  if (f->tenant.ptr != NULL && status) tm__buf_text(b, " AND status=?5");
  if (f->tenant.ptr != NULL && !session && !status && f->system.ptr != NULL)
    tm__buf_text(b, " AND system=?3");
  tm__buf_text(b, " ORDER BY id DESC LIMIT 1 OFFSET ?7");
}

/* A parameter that a statement does not have is not bound. */
static int bind_if(sqlite3_stmt *st, int at, tm_slice text) {
  char name[4];
  (void)sqlite3_snprintf(sizeof(name), name, "?%d", at);
  return sqlite3_bind_parameter_index(st, name) != 0 ? tm__sqlite_bind(st, at, text) : SQLITE_OK;
}

static int bind_list(sqlite3_stmt *st, const tm_list_filter *f, const char *before) {
  int rc = tm__sqlite_bind(st, 1, f->tenant);
  rc |= bind_if(st, 2, f->session);
  rc |= bind_if(st, 3, f->system);
  rc |= bind_if(st, 4, f->flow);
  if (f->status >= 0 && sqlite3_bind_parameter_index(st, "?5") != 0)
    rc |= sqlite3_bind_int(st, 5, f->status);
  return rc | bind_if(st, 6, tm__slice(before));
}

static tm_status prepare_list(tm_store_conn *c, tm_buf *sql, const tm_list_filter *f,
                              const char *before, int64_t limit, sqlite3_stmt **out,
                              tm_error *err) {
  tm_status status = tm__sqlite_mend(c, err);
  *out = NULL;
  if (status != TM_OK) return status;
  int rc = tm__buf_ok(sql) ? sqlite3_prepare_v2(c->db, sql->ptr, -1, out, NULL) : SQLITE_NOMEM;
  if (rc == SQLITE_OK) rc = bind_list(*out, f, before);
  if (rc == SQLITE_OK) rc = sqlite3_bind_int64(*out, 7, limit);
  return rc == SQLITE_OK ? TM_OK : tm__sqlite_conn_fail(c, rc, "list conversations", err);
}

/* Does the filter say more than its index knows? */
static bool is_sparse(const tm_list_filter *f) {
  int served = f->tenant.ptr != NULL;
  int asked = (f->session.ptr != NULL) + (f->system.ptr != NULL) + (f->status >= 0);
  return f->flow.ptr != NULL || asked > served;
}

/* Where a piece ends that begins behind `before`, since the filter may want few of many; "": at the
 * list's end. */
static tm_status list_floor(tm_store_conn *c, const tm_list_filter *f, const char *before,
                            char floor[TM_ID_SIZE], tm_error *err) {
  tm_buf sql = {0};
  sqlite3_stmt *st;
  floor[0] = '\0';
  if (!is_sparse(f)) return TM_OK;
  floor_sql(&sql, f, before[0] != '\0');
  tm_status status = prepare_list(c, &sql, f, before, SCAN - 1, &st, err);
  int rc = status == TM_OK ? sqlite3_step(st) : SQLITE_DONE;
  tm_head head = {0};
  if (rc == SQLITE_ROW)
    tm__head_spoil(&head, tm__sqlite_column(st, 0)); /* as far as it fits */
  else if (rc != SQLITE_DONE)
    status = tm__sqlite_conn_fail(c, rc, "list conversations", err);
  memcpy(floor, head.id, TM_ID_SIZE);
  sqlite3_finalize(st);
  tm__buf_free(&sql);
  return status;
}

/* One piece of the list, from the one before `before` on ("": from the newest), not beyond
 * `floor`. */
static tm_status list_piece(tm_store_conn *c, const tm_list_filter *f, const char *before,
                            const char *floor, size_t left, piece *p, tm_error *err) {
  tm_buf sql = {0};
  sqlite3_stmt *st;
  list_sql(&sql, f, before[0] != '\0', floor[0] != '\0');
  tm_status status = prepare_list(c, &sql, f, before, piece_limit(left), &st, err);
  if (status == TM_OK && bind_if(st, 8, tm__slice(floor)) != SQLITE_OK)
    status = tm__fail_memory(err, "a list");
  if (status == TM_OK) status = piece_fill(c, st, p, err);
  sqlite3_finalize(st);
  tm__buf_free(&sql);
  return status;
}

tm_status tm__sqlite_list(tm_store_conn *c, const tm_list_filter *f, tm_head_fn fn, void *ud,
                          tm_error *err) {
  piece p;
  char before[TM_ID_SIZE], floor[TM_ID_SIZE];
  size_t left = f->limit;
  tm_status status = piece_init(&p, err);
  memcpy(before, f->before, sizeof(before));
  for (bool more = left > 0; status == TM_OK && more; left -= p.count) {
    status = list_floor(c, f, before, floor, err);
    if (status == TM_OK) status = list_piece(c, f, before, floor, left, &p, err);
    if (status != TM_OK) break;
    bool full = p.count == PIECE;
    memcpy(before, full ? p.heads[PIECE - 1].id : floor, sizeof(before));
    more = left > p.count && before[0] != '\0';
    status = piece_give(&p, fn, ud);
  }
  free(p.heads);
  return status;
}

/* ---- rows ---- */

typedef struct walk {
  tm_slice conversation;
  bool follow_base;
  tm_row_fn fn;
  void *ud;
} walk;

/* Gives row `id` to the walk; *next is where it goes on, 0: nowhere. *absent: the conversation has
 * no such row. */
static tm_status visit_row(tm_store_conn *c, int64_t id, const walk *w, int64_t *next, bool *absent,
                           tm_error *err) {
  tm_row row;
  sqlite3_stmt *st;
  tm_status status = tm__sqlite_statement(c, TM_SQL_ROW, &st, err);
  if (status != TM_OK) return status;
  int rc = sqlite3_bind_int64(st, 1, id);
  if (rc == SQLITE_OK) rc = sqlite3_step(st);
  *absent = rc == SQLITE_DONE;
  if (rc != SQLITE_ROW) {
    if (!*absent) status = tm__sqlite_conn_fail(c, rc, "read the journal", err);
  } else if (decode_row(st, &row)) {
    *next = w->follow_base && row.base != 0 ? row.base : row.parent;
    *absent = !tm__slice_is(w->conversation, row.conversation);
    if (!*absent) status = w->fn(w->ud, &row);
  } else {
    status = tm__sqlite_damaged(err, c->store->path, "a row of the journal");
  }
  sqlite3_reset(st);
  return status;
}

tm_status tm__sqlite_chain(tm_store_conn *c, tm_slice conversation, int64_t row, bool follow_base,
                           tm_row_fn fn, void *ud, tm_error *err) {
  const walk w = {conversation, follow_base, fn, ud};
  for (int64_t at = row, next = 0; at != 0; at = next) {
    bool absent = false;
    tm_status status = visit_row(c, at, &w, &next, &absent, err);
    if (absent && at == row) return tm__sqlite_not_found(err, "journal row");
    if (absent || status != TM_OK) return status;
    if (next >= at) return tm__sqlite_damaged(err, c->store->path, "the journal turns in a circle");
  }
  return TM_OK;
}

/* ---- deadlines ---- */

/* One piece of the heads up to a time, behind (`after`, `id`). */
static tm_status until_piece(tm_store_conn *c, tm_sql which, int64_t time, int64_t after,
                             const char *id, size_t left, piece *p, tm_error *err) {
  sqlite3_stmt *st;
  tm_status status = tm__sqlite_statement(c, which, &st, err);
  if (status != TM_OK) return status;
  int rc = sqlite3_bind_int64(st, 1, time);
  rc |= sqlite3_bind_int64(st, 2, piece_limit(left));
  rc |= sqlite3_bind_int64(st, 3, after);
  rc |= tm__sqlite_bind_text(st, 4, id);
  if (rc == SQLITE_OK) return piece_fill(c, st, p, err);
  return tm__sqlite_conn_fail(c, rc, "find deadlines", err);
}

static tm_status heads_until(tm_store_conn *c, tm_sql which, int64_t time, size_t limit,
                             tm_head_fn fn, void *ud, tm_error *err) {
  piece p;
  tm_head last = {0};
  char behind[TM_BEHIND_SIZE] = "";
  size_t left = limit;
  tm_status status = piece_init(&p, err);
  for (bool more = left > 0; status == TM_OK && more; left -= p.whole) {
    int64_t after = which == TM_SQL_DUE ? last.wake_at : last.ended;
    status = until_piece(c, which, time, after, behind, left, &p, err);
    if (status != TM_OK) break;
    more = p.count == (size_t)piece_limit(left) && left > p.whole;
    if (p.count > 0) last = p.heads[p.count - 1];
    tm__head_behind(behind, &last);
    status = piece_give(&p, fn, ud);
  }
  free(p.heads);
  return status;
}

/* Several hosts on one machine look at the same: a claim decides who gets it. */
tm_status tm__sqlite_due(tm_store_conn *c, int64_t now, int64_t hold_ms, size_t limit,
                         tm_head_fn fn, void *ud, tm_error *err) {
  (void)hold_ms;
  return heads_until(c, TM_SQL_DUE, now, limit, fn, ud, err);
}

tm_status tm__sqlite_ended(tm_store_conn *c, int64_t before, size_t limit, tm_head_fn fn, void *ud,
                           tm_error *err) {
  return heads_until(c, TM_SQL_ENDED, before, limit, fn, ud, err);
}

tm_status tm__sqlite_next_due(tm_store_conn *c, int64_t *out, tm_error *err) {
  sqlite3_stmt *st;
  *out = 0;
  tm_status status = tm__sqlite_statement(c, TM_SQL_NEXT_DUE, &st, err);
  if (status != TM_OK) return status;
  int rc = sqlite3_step(st);
  if (rc == SQLITE_ROW) *out = sqlite3_column_int64(st, 0);
  if (rc != SQLITE_ROW && rc != SQLITE_DONE)
    status = tm__sqlite_conn_fail(c, rc, "find the next deadline", err);
  sqlite3_reset(st);
  return status;
}

/* ---- start keys ---- */

/* KEY or KEY_OF, whose first parameters are bound. *key (or NULL): its fifth column. */
static tm_status read_key(tm_store_conn *c, sqlite3_stmt *st, int rc, uint64_t *key,
                          tm_start_key *out, bool *found, tm_error *err) {
  bool readable = true;
  tm_status status = TM_OK;
  *out = (tm_start_key){0};
  *found = false;
  if (rc == SQLITE_OK) rc = sqlite3_step(st);
  if (rc == SQLITE_ROW) {
    *found = true;
    readable = tm__sqlite_text(st, 0, out->conversation, sizeof(out->conversation));
    out->body = (uint64_t)sqlite3_column_int64(st, 1);
    out->row = sqlite3_column_int64(st, 2);
    out->created = sqlite3_column_int64(st, 3);
    if (key != NULL) *key = (uint64_t)sqlite3_column_int64(st, 4);
  } else if (rc != SQLITE_DONE) {
    status = tm__sqlite_conn_fail(c, rc, "find a start key", err);
  }
  sqlite3_reset(st);
  return readable ? status : tm__sqlite_damaged(err, c->store->path, "a start key");
}

static int64_t oldest_key(const tm_store *s) {
  return s->now_ms(s->now_ud) - TM_KEY_AGE_MS;
}

tm_status tm__sqlite_find_key(tm_store_conn *c, tm_slice tenant, uint64_t key, tm_start_key *out,
                              bool *found, tm_error *err) {
  sqlite3_stmt *st;
  *found = false;
  tm_status status = tm__sqlite_statement(c, TM_SQL_KEY, &st, err);
  if (status != TM_OK) return status;
  int rc = tm__sqlite_bind(st, 1, tenant);
  rc |= sqlite3_bind_int64(st, 2, (int64_t)key);
  rc |= sqlite3_bind_int64(st, 3, oldest_key(c->store));
  return read_key(c, st, rc, NULL, out, found, err);
}

tm_status tm__sqlite_key_of(tm_store_conn *c, tm_slice conversation, uint64_t *key,
                            tm_start_key *out, tm_error *err) {
  sqlite3_stmt *st;
  bool found;
  tm_status status = tm__sqlite_statement(c, TM_SQL_KEY_OF, &st, err);
  if (status != TM_OK) return status;
  int rc = tm__sqlite_bind(st, 1, conversation);
  rc |= sqlite3_bind_int64(st, 2, oldest_key(c->store));
  status = read_key(c, st, rc, key, out, &found, err);
  return status == TM_OK && !found ? tm__sqlite_not_found(err, "start key") : status;
}

tm_status tm__sqlite_start_key(tm_store_conn *c, tm_slice tenant, uint64_t key, tm_start_key *out,
                               tm_error *err) {
  bool found;
  tm_status status = tm__sqlite_find_key(c, tenant, key, out, &found, err);
  return status == TM_OK && !found ? tm__sqlite_not_found(err, "start key") : status;
}
