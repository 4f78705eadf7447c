/* store_redis_read.c - heads, rows and lists. Lists are hints: each is checked against its head.
 * What a walk lends was read as a whole before, so that its caller may use the connection. */
#include <stdlib.h>

#include "persistence/store_redis.h"

#define PAGE        100
#define CHAIN_FIRST 8 /* rows in the first piece of a chain */
#define CHAIN_MORE  64
#define CHAIN_BYTES (1 << 20)

/* ---- heads ---- */

tm_status tm__redis_head(tm_store_conn *c, tm_slice id, tm_head *out, tm_error *err) {
  redisReply *reply;
  tm_status status = tm__redis_ready(c, err);
  if (status != TM_OK) return status;
  tm__redis_ask_head(c, id);
  status = tm__redis_ask(c, &reply, err);
  if (status != TM_OK) return status;
  status = tm__redis_decode_head(c->store, reply, id, out, err);
  freeReplyObject(reply);
  return status == TM_ENOTFOUND ? tm__redis_not_found("conversation", err) : status;
}

tm_status tm__redis_heads(tm_store_conn *c, const tm_slice *ids, size_t count, tm_head *out,
                          tm_error *err) {
  tm_status status = TM_OK;
  if (count == 0) return TM_OK;
  status = tm__redis_ready(c, err);
  for (size_t i = 0; status == TM_OK && i < count; i++)
    tm__redis_ask_head(c, ids[i]);
  if (status == TM_OK) status = tm__redis_flush(c, err);
  for (size_t i = 0; status == TM_OK && i < count; i++) {
    redisReply *reply;
    out[i] = (tm_head){0};
    status = tm__redis_take(c, &reply, err);
    if (status == TM_OK) status = tm__redis_decode_head(c->store, reply, ids[i], &out[i], err);
    if (status == TM_ECORRUPT) tm__head_spoil(&out[i], ids[i]);
    if (status == TM_ECORRUPT || status == TM_ENOTFOUND) status = TM_OK; /* the revision says it */
    freeReplyObject(reply);
  }
  return status;
}

/* ---- rows ---- */

static tm_status ask_chain(tm_store_conn *c, tm_slice conversation, int64_t row, bool follow_base,
                           int64_t limit, redisReply **out, tm_error *err) {
  tm_redis_key k;
  tm_status status = tm__redis_ready(c, err);
  *out = NULL;
  if (status != TM_OK) return status;
  tm__redis_rows_key(&k, c->store, conversation);
  tm__redis_run(c, TM_REDIS_CHAIN, 1, 4);
  tm__redis_key_arg(c, &k);
  tm__redis_int(c, row);
  tm__redis_text(c, follow_base ? "1" : "0");
  tm__redis_int(c, limit);
  tm__redis_int(c, CHAIN_BYTES);
  return tm__redis_ask(c, out, err);
}

typedef struct walk {
  const tm_store *store;
  tm_slice conversation;
  bool follow_base;
  int64_t next; /* the row that comes next; 0: none */
  tm_row_fn fn;
  void *ud;
} walk;

static tm_status visit(walk *w, const redisReply *piece, tm_error *err) {
  for (size_t i = 0; i + 1 < piece->elements; i += 2) {
    tm_row row;
    int64_t id = tm__redis_number(tm__redis_slice(piece->element[i]));
    tm_slice stored = tm__redis_slice(piece->element[i + 1]);
    tm_status status = tm__redis_decode_row(w->store, stored, w->conversation, id, &row, err);
    if (status == TM_OK) status = w->fn(w->ud, &row);
    if (status != TM_OK) return status;
    w->next = w->follow_base && row.base != 0 ? row.base : row.parent;
    if (w->next >= id) return tm__redis_damaged(w->store, "a journal that turns in a circle", err);
  }
  return TM_OK;
}

tm_status tm__redis_chain(tm_store_conn *c, tm_slice conversation, int64_t row, bool follow_base,
                          tm_row_fn fn, void *ud, tm_error *err) {
  walk w = {c->store, conversation, follow_base, row, fn, ud};
  for (int64_t limit = CHAIN_FIRST; w.next != 0; limit = CHAIN_MORE) {
    redisReply *piece;
    int64_t at = w.next;
    tm_status status = ask_chain(c, conversation, at, follow_base, limit, &piece, err);
    if (status != TM_OK) return status;
    bool absent = piece->elements == 0;
    status = visit(&w, piece, err);
    freeReplyObject(piece);
    if (absent && at == row) return tm__redis_not_found("journal row", err);
    if (absent || status != TM_OK) return status;
  }
  return TM_OK;
}

/* ---- lists ---- */

/* The list that is likely the shortest. */
static void choose(tm_redis_key *k, const tm_store *s, const tm_list_filter *f) {
  if (f->tenant.ptr == NULL)
    tm__redis_list_key(k, s, TM_LIST_ALL, f->tenant, f->tenant);
  else if (f->session.ptr != NULL)
    tm__redis_list_key(k, s, TM_LIST_SESSION, f->tenant, f->session);
  else if (f->status >= 0)
    tm__redis_list_key(k, s, TM_LIST_STATUS, f->tenant,
                       tm__slice(tm__conversation_status_name((tm_conversation_status)f->status)));
  else if (f->flow.ptr != NULL)
    tm__redis_list_key(k, s, TM_LIST_FLOW, f->tenant, f->flow);
  else if (f->system.ptr != NULL)
    tm__redis_list_key(k, s, TM_LIST_SYSTEM, f->tenant, f->system);
  else
    tm__redis_list_key(k, s, TM_LIST_TENANT, f->tenant, f->tenant);
}

/* What is damaged stood in the list that was chosen. */
static bool matches(const tm_head *h, const tm_list_filter *f) {
  if (h->revision < 0) return true;
  return h->revision > 0 && (f->tenant.ptr == NULL || tm__slice_is(f->tenant, h->tenant)) &&
         (f->session.ptr == NULL || tm__slice_is(f->session, h->session)) &&
         (f->system.ptr == NULL || tm__slice_is(f->system, h->system)) &&
         (f->flow.ptr == NULL || tm__slice_is(f->flow, h->flow)) &&
         (f->status < 0 || (int)h->status == f->status);
}

/* The heads of the next `PAGE` ids below `before`, which becomes the last of them. */
static tm_status read_page(tm_store_conn *c, const tm_list_filter *f, char before[TM_ID_SIZE],
                           tm_head *heads, size_t *count, bool *over, tm_error *err) {
  redisReply *reply;
  tm_redis_key k;
  tm_slice ids[PAGE];
  char edge[TM_ID_SIZE + 1] = "+";
  *count = 0;
  tm_status status = tm__redis_ready(c, err);
  if (status != TM_OK) return status;
  choose(&k, c->store, f);
  if (before[0] != '\0') {
    edge[0] = '(';
    (void)tm__copy(edge + 1, sizeof(edge) - 1, tm__slice(before));
  }
  tm__redis_command(c, "ZREVRANGEBYLEX", 6);
  tm__redis_key_arg(c, &k);
  tm__redis_text(c, edge);
  tm__redis_text(c, "-");
  tm__redis_text(c, "LIMIT");
  tm__redis_int(c, 0);
  tm__redis_int(c, PAGE);
  status = tm__redis_ask(c, &reply, err);
  if (status != TM_OK) return status;
  for (; *count < reply->elements && *count < PAGE; ++*count)
    ids[*count] = tm__redis_slice(tm__redis_item(reply, *count));
  status = tm__redis_heads(c, ids, *count, heads, err);
  if (*count > 0) { /* what is no id is cut: all that begins so comes before it */
    tm_slice last = ids[*count - 1];
    if (last.len >= TM_ID_SIZE) last.len = TM_ID_SIZE - 1;
    (void)tm__copy(before, TM_ID_SIZE, last);
    if (before[0] == '\0') *over = true;
  }
  freeReplyObject(reply);
  return status;
}

tm_status tm__redis_list(tm_store_conn *c, const tm_list_filter *f, tm_head_fn fn, void *ud,
                         tm_error *err) {
  char before[TM_ID_SIZE];
  size_t left = f->limit, count = PAGE;
  bool over = false;
  tm_status status = TM_OK;
  tm_head *heads = calloc(PAGE, sizeof(*heads));
  if (heads == NULL) return tm__fail_memory(err, "a list");
  memcpy(before, f->before, sizeof(before));
  while (status == TM_OK && left > 0 && count == PAGE && !over) {
    status = read_page(c, f, before, heads, &count, &over, err);
    for (size_t i = 0; status == TM_OK && i < count && left > 0; i++) {
      if (!matches(&heads[i], f)) continue;
      left--;
      status = fn(ud, &heads[i]);
    }
  }
  free(heads);
  return status;
}
