/* store_postgres_read.c - heads, rows, lists, deadlines, start keys. What is walked over is in
 * memory by then, a page at a time, so that a callback may use the connection. */
#include "persistence/recent.h"
#include "persistence/store_postgres.h"

#define PAGE       500                /* heads */
#define ROWS       32                 /* journal rows, */
#define ROWS_BYTES (INT64_C(4) << 20) /* ... or so many bytes of them */

/* ---- decoding: what does not fit our structs was not written by us ---- */

/* From TM_PG_HEAD_COLUMNS. */
static bool decode_head(const PGresult *r, int row, tm_head *h) {
  *h = (tm_head){0};
  bool ok = tm__pg_get_text(r, row, 0, h->id, sizeof(h->id));
  ok = tm__pg_get_text(r, row, 1, h->tenant, sizeof(h->tenant)) && ok;
  ok = tm__pg_get_text(r, row, 2, h->session, sizeof(h->session)) && ok;
  ok = tm__pg_get_text(r, row, 3, h->system, sizeof(h->system)) && ok;
  ok = tm__pg_get_text(r, row, 4, h->flow, sizeof(h->flow)) && ok;
  ok = tm__pg_get_text(r, row, 5, h->version, sizeof(h->version)) && ok;
  ok = tm__pg_get_text(r, row, 6, h->step, sizeof(h->step)) && ok;
  ok = tm__pg_get_text(r, row, 7, h->claim, sizeof(h->claim)) && ok;
  int64_t status = tm__pg_get_int(r, row, 8);
  h->revision = tm__pg_get_int(r, row, 9);
  h->tip = tm__pg_get_int(r, row, 10);
  h->wake_at = tm__pg_get_int(r, row, 11);
  h->created = tm__pg_get_int(r, row, 12);
  h->ended = tm__pg_get_int(r, row, 13);
  ok = ok && tm__head_is_sound(h);
  if (!ok || status < TM_ACTIVE || status > TM_CANCELLED) return false;
  h->status = (tm_conversation_status)status;
  return tm__recent_decode(h, tm__pg_get(r, row, 14));
}

/* From TM_PG_ROW_COLUMNS; the body is borrowed from the result. */
static bool decode_row(const PGresult *r, int at, tm_row *row) {
  int64_t kind = tm__pg_get_int(r, at, 4);
  *row = (tm_row){
      .id = tm__pg_get_int(r, at, 1),
      .parent = tm__pg_get_int(r, at, 2),
      .base = tm__pg_get_int(r, at, 3),
      .revision = tm__pg_get_int(r, at, 1),
      .created = tm__pg_get_int(r, at, 5),
      .checkpoint = tm__pg_get_int(r, at, 6) != 0,
      .flags = (uint32_t)tm__pg_get_int(r, at, 7),
      .body = tm__pg_get(r, at, 8),
  };
  bool ok = kind >= TM_ROW_BEGIN && kind <= TM_ROW_MIGRATE;
  if (ok) row->kind = (tm_row_kind)kind;
  return ok && tm__pg_get_text(r, at, 0, row->conversation, sizeof(row->conversation));
}

/* ---- heads ---- */

tm_status tm__pg_head(tm_store_conn *c, tm_slice id, tm_head *out, tm_error *err) {
  tm_pg_args a = {0};
  PGresult *r = NULL;
  if (!tm__pg_is_text(id)) return tm__pg_not_found(err, "conversation");
  tm__pg_bytes(&a, id.ptr != NULL ? id : TM_S(""));
  tm_status status = tm__pg_read(c, TM_PG_HEAD, NULL, &a, &r, "read a conversation", err);
  if (status != TM_OK) return status;
  if (PQntuples(r) == 0)
    status = tm__pg_not_found(err, "conversation");
  else if (!decode_head(r, 0, out))
    status = tm__head_damaged(id, c->store->place, err);
  PQclear(r);
  return status;
}

/* Gives every row of `r` to `fn`, and clears it; `last` becomes the last one. *whole (may be NULL):
 * those that are not damaged. What has no id at all cannot be named. */
static tm_status walk_heads(PGresult *r, tm_head *last, size_t *whole, tm_head_fn fn, void *ud) {
  tm_status status = TM_OK;
  size_t good = 0;
  for (int i = 0; status == TM_OK && i < PQntuples(r); i++) {
    if (decode_head(r, i, last))
      good++;
    else
      tm__head_spoil(last, tm__pg_get(r, i, 0));
    if (last->id[0] != '\0') status = fn(ud, last);
  }
  if (whole != NULL) *whole = good;
  PQclear(r);
  return status;
}

static void add_equal(tm_buf *sql, tm_pg_args *a, const char *column, tm_slice value) {
  if (value.ptr == NULL) return;
  tm__pg_bytes(a, value);
  tm__buf_printf(sql, " AND %s=$%d::text", column, a->count);
}

/* One page, after `before`. */
static tm_status list_page(tm_store_conn *c, const tm_list_filter *f, const char *before,
                           int64_t limit, PGresult **out, tm_error *err) {
  tm_pg_args a = {0};
  tm_buf sql = {0};
  tm__buf_text(&sql, "SELECT " TM_PG_HEAD_COLUMNS " FROM heads WHERE true");
  add_equal(&sql, &a, "tenant", f->tenant);
  add_equal(&sql, &a, "session", f->session);
  add_equal(&sql, &a, "system", f->system);
  add_equal(&sql, &a, "flow", f->flow);
  if (f->status >= 0) {
    tm__pg_int(&a, f->status);
    tm__buf_printf(&sql, " AND status=$%d::bigint", a.count);
  }
  if (before[0] != '\0') {
    tm__pg_text(&a, before);
    tm__buf_printf(&sql, " AND id<$%d::text", a.count);
  }
  tm__pg_int(&a, limit);
  tm__buf_printf(&sql, " ORDER BY id DESC LIMIT $%d::bigint", a.count);
  tm_status status = tm__buf_ok(&sql)
                         ? tm__pg_read(c, TM_PG_HEAD, sql.ptr, &a, out, "list conversations", err)
                         : tm__fail_memory(err, "a list of conversations");
  tm__buf_free(&sql);
  return status;
}

tm_status tm__pg_list(tm_store_conn *c, const tm_list_filter *f, tm_head_fn fn, void *ud,
                      tm_error *err) {
  const tm_slice texts[] = {f->tenant, f->session, f->system, f->flow, tm__slice(f->before)};
  for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
    if (!tm__pg_is_text(texts[i])) return TM_OK;
  tm_head last;
  (void)tm__copy(last.id, sizeof(last.id), tm__slice(f->before));
  bool more = true;
  for (size_t left = f->limit; left > 0 && more;) {
    PGresult *r = NULL;
    int64_t limit = left < PAGE ? (int64_t)left : PAGE;
    tm_status status = list_page(c, f, last.id, limit, &r, err);
    if (status != TM_OK) return status;
    int count = PQntuples(r);
    status = walk_heads(r, &last, NULL, fn, ud);
    if (status != TM_OK) return status;
    more = count == limit && last.id[0] != '\0';
    left -= (size_t)count;
  }
  return TM_OK;
}

/* ---- rows ---- */

typedef struct chain { /* a walk along parents */
  int64_t at;          /* the row it is at; 0: over */
  bool follow_base;
  tm_row_fn fn;
  void *ud;
} chain;

/* As far along the chain as the page of rows goes. */
static tm_status walk_rows(const tm_store_conn *c, const PGresult *r, chain *w, tm_error *err) {
  tm_row row;
  for (int i = 0; i < PQntuples(r) && w->at != 0; i++) {
    if (!decode_row(r, i, &row)) return tm__pg_damaged(err, c->store, "a row of the journal");
    if (row.id > w->at) continue; /* on another branch */
    if (row.id < w->at) {         /* the one wanted is no longer there */
      w->at = 0;
      return TM_OK;
    }
    tm_status status = w->fn(w->ud, &row);
    if (status != TM_OK) return status;
    w->at = w->follow_base && row.base != 0 ? row.base : row.parent;
    if (w->at >= row.id)
      return tm__fail(err, TM_ECORRUPT, "store.damaged",
                      "the journal turns in a circle at row %lld", (long long)row.id);
  }
  return TM_OK;
}

static bool begins_with(const PGresult *r, int64_t id) {
  return PQntuples(r) > 0 && tm__pg_get_int(r, 0, 1) == id;
}

tm_status tm__pg_chain(tm_store_conn *c, tm_slice conversation, int64_t row, bool follow_base,
                       tm_row_fn fn, void *ud, tm_error *err) {
  chain w = {row, follow_base, fn, ud};
  if (row == 0) return TM_OK;
  if (!tm__pg_is_text(conversation)) return tm__pg_not_found(err, "journal row");
  for (int64_t from = row; w.at != 0; from = w.at) {
    tm_pg_args a = {0};
    PGresult *r = NULL;
    tm__pg_bytes(&a, conversation.ptr != NULL ? conversation : TM_S(""));
    tm__pg_int(&a, from);
    tm__pg_int(&a, ROWS);
    tm__pg_int(&a, ROWS_BYTES);
    tm_status status = tm__pg_read(c, TM_PG_ROWS, NULL, &a, &r, "read the journal", err);
    if (status != TM_OK) return status;
    bool there = begins_with(r, from);
    if (!there && from == row) status = tm__pg_not_found(err, "journal row");
    if (there) status = walk_rows(c, r, &w, err);
    PQclear(r);
    if (status != TM_OK || !there) return status;
  }
  return TM_OK;
}

/* ---- deadlines ---- */

/* Heads up to a time, a page behind the other: what is damaged takes nobody's place. `hold`:
 * until when and by whom what is taken is held. */
static tm_status heads_until(tm_store_conn *c, tm_pg_sql which, int64_t time, size_t limit,
                             const int64_t *hold, tm_head_fn fn, void *ud, tm_error *err) {
  tm_head last = {0};
  char behind[TM_BEHIND_SIZE] = "";
  size_t whole = 0;
  for (bool again = limit > 0; again; limit -= whole) {
    tm_pg_args a = {0};
    PGresult *r = NULL;
    int64_t page = limit < PAGE ? (int64_t)limit : PAGE;
    tm__pg_int(&a, time);
    tm__pg_int(&a, page);
    tm__pg_int(&a, which == TM_PG_ENDED ? last.ended : last.wake_at);
    tm__pg_text(&a, behind);
    for (size_t i = 0; i < 2 && which == TM_PG_TAKE_DUE; i++)
      tm__pg_int(&a, hold[i]);
    tm_status status = tm__pg_read(c, which, NULL, &a, &r, "find deadlines", err);
    if (status != TM_OK) return status;
    again = PQntuples(r) == page;
    status = walk_heads(r, &last, &whole, fn, ud);
    if (status != TM_OK) return status;
    tm__head_behind(behind, &last);
    again = again && whole < limit;
  }
  return TM_OK;
}

tm_status tm__pg_due(tm_store_conn *c, int64_t now, int64_t hold_ms, size_t limit, tm_head_fn fn,
                     void *ud, tm_error *err) {
  const int64_t hold[] = {now + hold_ms, c->store->id};
  tm_pg_sql which = hold_ms > 0 ? TM_PG_TAKE_DUE : TM_PG_DUE;
  return heads_until(c, which, now, limit, hold, fn, ud, err);
}

tm_status tm__pg_next_due(tm_store_conn *c, int64_t *out, tm_error *err) {
  const tm_pg_args none = {0};
  PGresult *r = NULL;
  *out = 0;
  tm_status status = tm__pg_read(c, TM_PG_NEXT_DUE, NULL, &none, &r, "find the next deadline", err);
  if (status == TM_OK && PQntuples(r) > 0) *out = tm__pg_get_int(r, 0, 0);
  PQclear(r);
  return status;
}

tm_status tm__pg_ended(tm_store_conn *c, int64_t before, size_t limit, tm_head_fn fn, void *ud,
                       tm_error *err) {
  return heads_until(c, TM_PG_ENDED, before, limit, NULL, fn, ud, err);
}

/* ---- start keys ---- */

static tm_status read_key(tm_store_conn *c, tm_pg_sql which, const tm_pg_args *a, uint64_t *key,
                          tm_start_key *out, tm_error *err) {
  PGresult *r = NULL;
  tm_status status = tm__pg_read(c, which, NULL, a, &r, "find a start key", err);
  if (status != TM_OK) return status;
  if (PQntuples(r) == 0) {
    status = tm__pg_not_found(err, "start key");
  } else if (!tm__pg_get_text(r, 0, 0, out->conversation, sizeof(out->conversation))) {
    status = tm__pg_damaged(err, c->store, "a start key");
  } else {
    out->body = (uint64_t)tm__pg_get_int(r, 0, 1);
    out->row = tm__pg_get_int(r, 0, 2);
    out->created = tm__pg_get_int(r, 0, 3);
    if (key != NULL) *key = (uint64_t)tm__pg_get_int(r, 0, 4);
  }
  PQclear(r);
  return status;
}

static int64_t oldest_key(const tm_store *s) {
  return s->now_ms(s->now_ud) - TM_KEY_AGE_MS;
}

tm_status tm__pg_start_key(tm_store_conn *c, tm_slice tenant, uint64_t key, tm_start_key *out,
                           tm_error *err) {
  tm_pg_args a = {0};
  *out = (tm_start_key){0};
  if (!tm__pg_is_text(tenant)) return tm__pg_not_found(err, "start key");
  tm__pg_bytes(&a, tenant.ptr != NULL ? tenant : TM_S(""));
  tm__pg_int(&a, (int64_t)key);
  tm__pg_int(&a, oldest_key(c->store));
  return read_key(c, TM_PG_KEY, &a, NULL, out, err);
}

tm_status tm__pg_key_of(tm_store_conn *c, tm_slice conversation, uint64_t *key, tm_start_key *out,
                        tm_error *err) {
  tm_pg_args a = {0};
  *out = (tm_start_key){0};
  if (!tm__pg_is_text(conversation)) return tm__pg_not_found(err, "start key");
  tm__pg_bytes(&a, conversation.ptr != NULL ? conversation : TM_S(""));
  tm__pg_int(&a, oldest_key(c->store));
  return read_key(c, TM_PG_KEY_OF, &a, key, out, err);
}
