/* store_redis_sweep.c - housekeeping in small pieces: start keys older than a day, then a round
 * over all keys, those of every tenant, at most one an hour and shared by all hosts and all
 * tenants' stores: heads get the hints that a crash kept from them, lists lose those that no head
 * stands behind. Where the round is, the server keeps. What is damaged is left as it is. */
#include <stdlib.h>

#include "persistence/store_redis.h"

#define ROUND_MS (INT64_C(60) * 60 * 1000)
#define PAGE_MAX 200
#define ID_MAX   (TM_ID_SIZE - 1)
#define DAMAGED  (-1) /* the revision of a head that cannot be read: its hints stay */

typedef struct sweep_state { /* of a round */
  char cursor[24];           /* of the scan; "": it has ended */
  int64_t begun;
} sweep_state;

static size_t page_of(size_t limit) {
  return limit < 1 ? 1 : limit > PAGE_MAX ? PAGE_MAX : limit;
}

/* A key that holds what another program wrote keeps none of the others from its turn. */
static tm_status skip_all(tm_store_conn *c, tm_error *err) {
  tm_status status = tm__redis_skip(c, c->awaited, err);
  return status == TM_ECORRUPT ? TM_OK : status;
}

/* ---- start keys ---- */

static tm_status expire(tm_store_conn *c, const redisReply *keys, int64_t oldest, tm_error *err) {
  tm_redis_key ages;
  tm_status status = tm__redis_ready(c, err);
  if (status != TM_OK) return status;
  tm__redis_key(&ages, c->store, "keys");
  for (size_t i = 0; i < keys->elements; i++) {
    tm__redis_run(c, TM_REDIS_EXPIRE, 1, 1);
    tm__redis_arg(c, tm__redis_slice(keys->element[i]));
    tm__redis_int(c, oldest);
  }
  status = tm__redis_flush(c, err);
  if (status == TM_OK) status = skip_all(c, err);
  if (status == TM_OK) status = tm__redis_ready(c, err);
  if (status != TM_OK) return status;
  tm__redis_command(c, "ZREM", 1 + keys->elements);
  tm__redis_key_arg(c, &ages);
  for (size_t i = 0; i < keys->elements; i++)
    tm__redis_arg(c, tm__redis_slice(keys->element[i]));
  return tm__redis_tell(c, err);
}

/* A key that was taken anew has its newer age by then. */
static tm_status sweep_keys(tm_store_conn *c, size_t limit, bool *more, tm_error *err) {
  redisReply *reply;
  tm_redis_key k;
  int64_t oldest = tm__redis_now(c->store) - TM_KEY_AGE_MS;
  tm_status status = tm__redis_ready(c, err);
  if (status != TM_OK) return status;
  tm__redis_key(&k, c->store, "keys");
  tm__redis_command(c, "ZRANGEBYSCORE", 6);
  tm__redis_key_arg(c, &k);
  tm__redis_text(c, "-inf");
  tm__redis_int(c, oldest - 1);
  tm__redis_text(c, "LIMIT");
  tm__redis_int(c, 0);
  tm__redis_int(c, (int64_t)limit);
  status = tm__redis_ask(c, &reply, err);
  if (status != TM_OK) return status;
  *more = reply->elements == limit;
  if (reply->elements > 0) status = expire(c, reply, oldest, err);
  freeReplyObject(reply);
  return status;
}

/* ---- heads ---- */

/* What the key names between its braces, without what is escaped. */
static bool id_of(tm_slice key, char out[TM_ID_SIZE]) {
  const char *from = memchr(key.ptr, '{', key.len);
  size_t len = 0;
  if (from == NULL) return false;
  for (const char *p = from + 1; p < key.ptr + key.len && *p != '}'; p++) {
    char hex[3] = {0};
    if (len == ID_MAX) return false;
    if (*p == '%' && key.ptr + key.len - p > 2) {
      memcpy(hex, p + 1, 2);
      p += 2;
    }
    out[len++] = hex[0] != '\0' ? (char)strtol(hex, NULL, 16) : *p;
  }
  out[len] = '\0';
  return len > 0;
}

/* The answers to what was asked for; one that is not there has revision 0. */
static tm_status take_heads(tm_store_conn *c, const tm_slice *ids, size_t count, tm_head *heads,
                            tm_error *err) {
  tm_status status = tm__redis_flush(c, err);
  for (size_t i = 0; status == TM_OK && i < count; i++) {
    redisReply *reply;
    status = tm__redis_take(c, &reply, err);
    if (status == TM_OK) status = tm__redis_decode_head(c->store, reply, ids[i], &heads[i], err);
    if (status == TM_ECORRUPT) heads[i].revision = DAMAGED;
    if (status == TM_ECORRUPT || status == TM_ENOTFOUND) status = TM_OK;
    freeReplyObject(reply);
  }
  return status;
}

/* Adds to `c`, for the store that `key` is of. */
static void ask_head(tm_store_conn *c, tm_slice key, tm_slice id) {
  tm_store *own = c->store, of;
  if (!tm__redis_store_of(&of, own, key)) return;
  c->store = &of;
  tm__redis_ask_head(c, id);
  c->store = own;
}

static void add_hints(tm_store_conn *c, tm_slice key, const tm_head *head) {
  const tm_commit item = {.head = *head};
  tm_store *own = c->store, of;
  if (!tm__redis_store_of(&of, own, key)) return;
  c->store = &of;
  (void)tm__redis_add_hints(c, &item, false);
  c->store = own;
}

static tm_status hint_all(tm_store_conn *c, const tm_slice *keys, const tm_slice *ids, size_t count,
                          tm_head *heads, tm_error *err) {
  tm_status status = tm__redis_ready(c, err);
  if (status != TM_OK) return status;
  for (size_t i = 0; i < count; i++)
    ask_head(c, keys[i], ids[i]);
  status = take_heads(c, ids, count, heads, err);
  if (status == TM_OK) status = tm__redis_ready(c, err);
  if (status != TM_OK) return status;
  for (size_t i = 0; i < count; i++)
    if (heads[i].revision > 0) add_hints(c, keys[i], &heads[i]);
  status = tm__redis_flush(c, err);
  return status == TM_OK ? skip_all(c, err) : status;
}

/* The keys of heads, of any store, get their hints. */
static tm_status hint_heads(tm_store_conn *c, const tm_slice *keys, size_t count, tm_error *err) {
  char ids[PAGE_MAX][TM_ID_SIZE];
  tm_slice named[PAGE_MAX], of[PAGE_MAX];
  size_t good = 0;
  for (size_t i = 0; i < count; i++) {
    if (!id_of(keys[i], ids[good])) continue;
    named[good] = tm__slice(ids[good]);
    of[good++] = keys[i];
  }
  if (good == 0) return TM_OK;
  tm_head *heads = calloc(good, sizeof(*heads));
  if (heads == NULL) return tm__fail_memory(err, "a sweep");
  tm_status status = hint_all(c, of, named, good, heads, err);
  free(heads);
  return status;
}

/* ---- lists ---- */

/* A page of the list behind `after`: ids whose heads are elsewhere leave it. */
static tm_status check_page(tm_store_conn *c, tm_slice list, const redisReply *page,
                            tm_error *err) {
  tm_slice ids[PAGE_MAX] = {{0}}, lies[PAGE_MAX] = {{0}};
  size_t count = page->elements < PAGE_MAX ? page->elements : PAGE_MAX, wrong = 0;
  tm_status status = tm__redis_ready(c, err);
  if (status != TM_OK || count == 0) return status;
  tm_head *heads = calloc(count, sizeof(*heads));
  if (heads == NULL) return tm__fail_memory(err, "a sweep");
  for (size_t i = 0; i < count; i++) {
    ids[i] = tm__redis_slice(page->element[i]);
    tm__redis_ask_head(c, ids[i]);
  }
  status = take_heads(c, ids, count, heads, err);
  for (size_t i = 0; status == TM_OK && i < count; i++)
    if (heads[i].revision != DAMAGED &&
        (heads[i].revision == 0 || !tm__redis_in_list(c->store, &heads[i], list)))
      lies[wrong++] = ids[i];
  if (status == TM_OK && wrong > 0) status = tm__redis_drop_hints(c, list, lies, wrong, err);
  free(heads);
  return status;
}

static void add_walk_key(tm_store_conn *c) {
  tm_redis_key k;
  tm__redis_common_key(&k, "sweep:lists");
  tm__redis_key_arg(c, &k);
}

/* Lists whose turn it is, each with the id behind which it is checked next. */
static tm_status queue_lists(tm_store_conn *c, const tm_slice *lists, size_t count, tm_error *err) {
  if (count == 0) return TM_OK;
  tm_status status = tm__redis_ready(c, err);
  if (status != TM_OK) return status;
  tm__redis_command(c, "HSET", 1 + 2 * count);
  add_walk_key(c);
  for (size_t i = 0; i < count; i++) {
    tm__redis_arg(c, lists[i]);
    tm__redis_text(c, "");
  }
  return tm__redis_tell(c, err);
}

static tm_status set_place(tm_store_conn *c, tm_slice list, tm_slice last, bool ends,
                           tm_error *err) {
  tm_status status = tm__redis_ready(c, err);
  if (status != TM_OK) return status;
  tm__redis_command(c, ends ? "HDEL" : "HSET", ends ? 2 : 3);
  add_walk_key(c);
  tm__redis_arg(c, list);
  if (!ends) tm__redis_arg(c, last);
  return tm__redis_tell(c, err);
}

static tm_status read_page(tm_store_conn *c, tm_slice list, tm_slice after, size_t limit,
                           redisReply **out, tm_error *err) {
  tm_status status = tm__redis_ready(c, err);
  *out = NULL;
  if (status != TM_OK) return status;
  tm__redis_command(c, "ZRANGEBYLEX", 6);
  tm__redis_arg(c, list);
  tm__redis_arg_two(c, after.len > 0 ? TM_S("(") : TM_S("-"), after);
  tm__redis_text(c, "+");
  tm__redis_text(c, "LIMIT");
  tm__redis_int(c, 0);
  tm__redis_int(c, (int64_t)limit);
  return tm__redis_ask(c, out, err);
}

static tm_status walk_list(tm_store_conn *c, tm_slice list, tm_slice after, size_t limit,
                           tm_error *err) {
  tm_store *own = c->store, of;
  tm_slice last = {NULL, 0};
  redisReply *page = NULL;
  bool ends = true;
  tm_status status = TM_OK;
  if (tm__redis_store_of(&of, own, list)) {
    c->store = &of;
    status = read_page(c, list, after, limit, &page, err);
    if (status == TM_OK) status = check_page(c, list, page, err);
    c->store = own;
    ends = page == NULL || page->elements < limit;
  }
  if (!ends) last = tm__redis_slice(page->element[page->elements - 1]);
  if (status == TM_OK || status == TM_ECORRUPT) status = set_place(c, list, last, ends, err);
  freeReplyObject(page);
  return status;
}

/* *any: there was a list to be checked. */
static tm_status sweep_list(tm_store_conn *c, size_t limit, bool *any, tm_error *err) {
  redisReply *reply;
  tm_status status = tm__redis_ready(c, err);
  *any = false;
  if (status != TM_OK) return status;
  tm__redis_command(c, "HRANDFIELD", 3);
  add_walk_key(c);
  tm__redis_int(c, 1);
  tm__redis_text(c, "WITHVALUES");
  status = tm__redis_ask(c, &reply, err);
  if (status != TM_OK) return status;
  *any = reply->elements == 2;
  if (*any)
    status = walk_list(c, tm__redis_slice(reply->element[0]), tm__redis_slice(reply->element[1]),
                       limit, err);
  freeReplyObject(reply);
  return status;
}

/* ---- the round ---- */

static bool is_kind(tm_slice key, const tm_store *of, const char *kind) {
  size_t n = strlen(of->prefix), m = strlen(kind);
  return key.len > n + m && memcmp(key.ptr + n, kind, m) == 0;
}

static tm_status mend_events(tm_store_conn *c, tm_store *of, tm_slice key, tm_error *err) {
  char id[TM_ID_SIZE];
  tm_store *own = c->store;
  if (!id_of(key, id)) return TM_OK;
  c->store = of;
  tm_status status = tm__redis_mend_events(c, id, err);
  c->store = own;
  return status == TM_ECORRUPT ? TM_OK : status;
}

static tm_status sort_out(tm_store_conn *c, const redisReply *keys, tm_error *err) {
  tm_slice heads[PAGE_MAX], lists[PAGE_MAX];
  tm_status status = TM_OK;
  size_t found = 0, listed = 0;
  for (size_t i = 0; status == TM_OK && i < keys->elements; i++) {
    tm_slice key = tm__redis_slice(keys->element[i]);
    tm_store of = {.prefix = ""};
    if (tm__redis_store_of(&of, c->store, key)) {
      if (is_kind(key, &of, "h:{")) heads[found++] = key;
      if (is_kind(key, &of, "l:")) lists[listed++] = key;
      if (is_kind(key, &of, "e:{")) status = mend_events(c, &of, key, err);
    }
    bool full = found == PAGE_MAX || listed == PAGE_MAX || i + 1 == keys->elements;
    if (status != TM_OK || !full) continue;
    status = hint_heads(c, heads, found, err);
    if (status == TM_OK) status = queue_lists(c, lists, listed, err);
    found = listed = 0;
  }
  return status;
}

static tm_status read_state(tm_store_conn *c, sweep_state *out, tm_error *err) {
  redisReply *reply;
  tm_redis_key k;
  tm_status status = tm__redis_ready(c, err);
  if (status != TM_OK) return status;
  tm__redis_common_key(&k, "sweep");
  tm__redis_command(c, "HMGET", 3);
  tm__redis_key_arg(c, &k);
  tm__redis_text(c, "cursor");
  tm__redis_text(c, "begun");
  status = tm__redis_ask(c, &reply, err);
  if (status != TM_OK) return status;
  (void)tm__copy(out->cursor, sizeof(out->cursor), tm__redis_slice(tm__redis_item(reply, 0)));
  out->begun = tm__redis_number(tm__redis_slice(tm__redis_item(reply, 1)));
  freeReplyObject(reply);
  return TM_OK;
}

static tm_status write_state(tm_store_conn *c, const sweep_state *s, tm_error *err) {
  tm_redis_key k;
  tm_status status = tm__redis_ready(c, err);
  if (status != TM_OK) return status;
  tm__redis_common_key(&k, "sweep");
  tm__redis_command(c, "HSET", 5);
  tm__redis_key_arg(c, &k);
  tm__redis_text(c, "cursor");
  tm__redis_text(c, s->cursor);
  tm__redis_text(c, "begun");
  tm__redis_int(c, s->begun);
  return tm__redis_tell(c, err);
}

static tm_status scan(tm_store_conn *c, sweep_state *s, size_t limit, tm_error *err) {
  redisReply *reply;
  tm_redis_key match;
  tm_status status = tm__redis_ready(c, err);
  if (status != TM_OK) return status;
  tm__redis_common_key(&match, "*[ehl]:*"); /* of tenants as well */
  tm__redis_command(c, "SCAN", 5);
  tm__redis_text(c, s->cursor);
  tm__redis_text(c, "MATCH");
  tm__redis_key_arg(c, &match);
  tm__redis_text(c, "COUNT");
  tm__redis_int(c, (int64_t)limit);
  status = tm__redis_ask(c, &reply, err);
  if (status != TM_OK) return status;
  const redisReply *keys = tm__redis_item(reply, 1);
  tm_slice next = tm__redis_slice(tm__redis_item(reply, 0));
  if (keys == NULL || next.ptr == NULL)
    status = tm__redis_refused(c->store, "what no scan answers", err);
  if (status == TM_OK && keys != NULL) status = sort_out(c, keys, err);
  if (status == TM_OK)
    (void)tm__copy(s->cursor, sizeof(s->cursor), tm__slice_is(next, "0") ? TM_S("") : next);
  freeReplyObject(reply);
  return status == TM_OK ? write_state(c, s, err) : status;
}

tm_status tm__redis_sweep(tm_store_conn *c, size_t limit, bool *more, tm_error *err) {
  sweep_state s;
  bool any = false;
  int64_t now = tm__redis_now(c->store);
  limit = page_of(limit);
  *more = false;
  tm_status status = tm__redis_settle_parted(c, err);
  if (status == TM_OK) status = sweep_keys(c, limit, more, err);
  if (status != TM_OK || *more) return status;
  status = sweep_list(c, limit, &any, err);
  if (status == TM_OK && !any) status = read_state(c, &s, err);
  *more = any;
  if (status != TM_OK || any) return status;
  if (s.cursor[0] == '\0') {
    if (s.begun != 0 && now - s.begun < ROUND_MS && now >= s.begun) return TM_OK;
    s = (sweep_state){.cursor = "0", .begun = now};
  }
  *more = true;
  return scan(c, &s, limit, err);
}
