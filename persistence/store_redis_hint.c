/* store_redis_hint.c - lists and deadlines are hints: they live in slots of their own, so no commit
 * changes them together with the head.
 *
 * A commit writes its hints before and behind itself, in one pipeline. Who finds a lie takes it off
 * and looks at the head once more: whichever way the two mix, either the writer's second hint comes
 * last, or the second look sees its commit. A time is only ever moved earlier by commits, so that
 * what was not committed wakes nobody too late. */
#include <stdlib.h>

#include "persistence/store_redis.h"

#define PARTED_MAX (size_t)65536 /* bytes; the rest is left to sweeps */

/* ---- what a commit writes ---- */

void tm__redis_times_key(tm_redis_key *k, const tm_store *s, tm_redis_times which) {
  tm__redis_key(k, s, which == TM_TIMES_DUE ? "due" : "ended");
}

int64_t tm__redis_time_of(tm_redis_times which, const tm_head *h) {
  return which == TM_TIMES_DUE ? h->wake_at : h->ended;
}

static void add_to_list(tm_store_conn *c, tm_slice key, tm_slice id) {
  tm__redis_command(c, "ZADD", 3);
  tm__redis_arg(c, key);
  tm__redis_text(c, "0");
  tm__redis_arg(c, id);
}

static size_t add_time(tm_store_conn *c, tm_redis_times which, const tm_head *h) {
  tm_redis_key k;
  int64_t time = tm__redis_time_of(which, h);
  if (time <= 0) return 0;
  tm__redis_times_key(&k, c->store, which);
  tm__redis_command(c, "ZADD", 4);
  tm__redis_key_arg(c, &k);
  tm__redis_text(c, "LT");
  tm__redis_int(c, time);
  tm__redis_text(c, h->id);
  return 1;
}

/* Most commits leave their conversation in the lists where it is, and most follow one of the same
 * connection: it remembers which lists have it. */
static uint64_t mix(uint64_t hash, const char *text) { /* FNV-1a, the NUL as well */
  do
    hash = (hash ^ (unsigned char)*text) * UINT64_C(0x100000001b3);
  while (*text++ != '\0');
  return hash;
}

#define MIX_START UINT64_C(0xcbf29ce484222325)

static tm_redis_known *place_of(const tm_store_conn *c, const tm_head *h, uint64_t *id) {
  *id = mix(MIX_START, h->id);
  return &c->known[*id % TM_REDIS_KNOWN];
}

static uint64_t lists_of(const tm_head *h) {
  uint64_t hash = mix(mix(MIX_START, h->tenant), h->flow);
  return mix(hash, tm__conversation_status_name(h->status));
}

void tm__redis_know(tm_store_conn *c, const tm_head *h) {
  uint64_t id;
  if (c->known == NULL) c->known = calloc(TM_REDIS_KNOWN, sizeof(*c->known));
  if (c->known == NULL) return;
  tm_redis_known *place = place_of(c, h, &id);
  *place = (tm_redis_known){id, lists_of(h), h->revision};
}

static bool is_known(const tm_store_conn *c, const tm_commit *item) {
  uint64_t id;
  if (c->known == NULL || item->expect_revision == 0) return false;
  const tm_redis_known *place = place_of(c, &item->head, &id);
  return place->id == id && place->revision == item->expect_revision &&
         place->lists == lists_of(&item->head);
}

size_t tm__redis_add_hints(tm_store_conn *c, const tm_commit *item, bool change) {
  const tm_head *h = &item->head;
  tm_redis_key k;
  int first = item->expect_revision == 0 ? TM_LIST_ALL : TM_LIST_FLOW;
  if (change && is_known(c, item)) first = TM_LISTS;
  for (int which = first; which < TM_LISTS; which++) {
    tm__redis_list_of(&k, c->store, (tm_redis_list)which, h);
    add_to_list(c, (tm_slice){k.text, k.len}, tm__slice(h->id));
  }
  size_t events =
      item->event_count > 0 ? tm__redis_hint_events(c, h->id, item->events[0].created) : 0;
  return (size_t)(TM_LISTS - first) + add_time(c, TM_TIMES_DUE, h) +
         add_time(c, TM_TIMES_ENDED, h) + events;
}

tm_status tm__redis_hint_heads(tm_store_conn *c, const tm_head *heads, size_t count,
                               tm_error *err) {
  tm_status status = tm__redis_ready(c, err);
  for (size_t i = 0; status == TM_OK && i < count; i++) {
    const tm_commit item = {.head = heads[i]};
    (void)tm__redis_add_hints(c, &item, false);
  }
  if (status == TM_OK) status = tm__redis_flush(c, err);
  return status == TM_OK ? tm__redis_skip(c, c->awaited, err) : status;
}

/* ---- lists ---- */

bool tm__redis_in_list(const tm_store *s, const tm_head *h, tm_slice list) {
  tm_redis_key k;
  for (int which = 0; which < TM_LISTS; which++) {
    tm__redis_list_of(&k, s, (tm_redis_list)which, h);
    if (tm__slice_eq(list, (tm_slice){k.text, k.len})) return true;
  }
  return false;
}

static tm_status put_back(tm_store_conn *c, tm_slice list, tm_slice id, tm_error *err) {
  tm_status status = tm__redis_ready(c, err);
  if (status != TM_OK) return status;
  add_to_list(c, list, id);
  return tm__redis_tell(c, err);
}

typedef struct parted { /* where a list and an id begin in a text of both */
  tm_slice list, id;
} parted;

static bool next_parted(tm_slice *rest, parted *out) {
  if (rest->len == 0) return false;
  size_t list = strlen(rest->ptr), id = strlen(rest->ptr + list + 1);
  *out = (parted){{rest->ptr, list}, {rest->ptr + list + 1, id}};
  *rest = (tm_slice){rest->ptr + list + id + 2, rest->len - list - id - 2};
  return true;
}

static tm_status settle(tm_store_conn *c, tm_slice all, tm_error *err) {
  parted p;
  tm_buf wrong = {0};
  for (tm_slice rest = all; next_parted(&rest, &p);) {
    tm__redis_command(c, "ZREM", 2);
    tm__redis_arg(c, p.list);
    tm__redis_arg(c, p.id);
    tm__redis_ask_head(c, p.id);
  }
  tm_status status = tm__redis_flush(c, err);
  for (tm_slice rest = all; status == TM_OK && next_parted(&rest, &p);) {
    redisReply *reply = NULL;
    tm_head head;
    status = tm__redis_skip(c, 1, err);
    if (status == TM_OK) status = tm__redis_take(c, &reply, err);
    if (status != TM_OK) break;
    if (tm__redis_decode_head(c->store, reply, p.id, &head, NULL) == TM_OK &&
        tm__redis_in_list(c->store, &head, p.list))
      tm__buf_add(&wrong, p.list.ptr, p.list.len + p.id.len + 2);
    freeReplyObject(reply);
  }
  for (tm_slice rest = tm__buf_view(&wrong); status == TM_OK && next_parted(&rest, &p);)
    status = put_back(c, p.list, p.id, err);
  tm__buf_free(&wrong);
  return status;
}

static void remember(tm_buf *b, tm_slice list, tm_slice id) {
  tm__buf_add(b, list.ptr, list.len);
  tm__buf_byte(b, '\0');
  tm__buf_add(b, id.ptr, id.len);
  tm__buf_byte(b, '\0');
}

void tm__redis_part(tm_store_conn *c, tm_redis_list which, tm_slice tenant, tm_slice value,
                    tm_slice id) {
  tm_redis_key k;
  if (c->parted.len > PARTED_MAX) return;
  tm__redis_list_key(&k, c->store, which, tenant, value);
  remember(&c->parted, (tm_slice){k.text, k.len}, id);
}

void tm__redis_part_all(tm_store_conn *c, const tm_head *h) {
  tm_redis_key k;
  if (c->parted.len > PARTED_MAX) return;
  for (int which = 0; which < TM_LISTS; which++) {
    tm__redis_list_of(&k, c->store, (tm_redis_list)which, h);
    remember(&c->parted, (tm_slice){k.text, k.len}, tm__slice(h->id));
  }
}

tm_status tm__redis_settle_parted(tm_store_conn *c, tm_error *err) {
  tm_buf all = c->parted;
  tm_status status = TM_OK;
  if (all.len == 0) return TM_OK;
  c->parted = (tm_buf){0};
  if (tm__buf_ok(&all)) {
    status = tm__redis_ready(c, err);
    if (status == TM_OK) status = settle(c, tm__buf_view(&all), err);
  }
  tm__buf_free(&all);
  return status;
}

tm_status tm__redis_drop_hints(tm_store_conn *c, tm_slice list, const tm_slice *ids, size_t count,
                               tm_error *err) {
  tm_buf all = {0};
  for (size_t i = 0; i < count; i++)
    remember(&all, list, ids[i]);
  tm_status status = tm__buf_ok(&all) ? tm__redis_ready(c, err) : tm__fail_memory(err, "hints");
  if (status == TM_OK && count > 0) status = settle(c, tm__buf_view(&all), err);
  tm__buf_free(&all);
  return status;
}

/* ---- times ---- */

static void add_mending(tm_store_conn *c, const tm_redis_key *k, int64_t time, const char *id) {
  if (time <= 0) {
    tm__redis_command(c, "ZREM", 2);
    tm__redis_key_arg(c, k);
  } else {
    tm__redis_command(c, "ZADD", 4);
    tm__redis_key_arg(c, k);
    tm__redis_text(c, "XX");
    tm__redis_int(c, time);
  }
  tm__redis_text(c, id);
  tm__redis_ask_head(c, tm__slice(id));
}

tm_status tm__redis_mend_times(tm_store_conn *c, tm_redis_times which, const tm_head *heads,
                               size_t count, tm_error *err) {
  tm_redis_key k;
  tm_buf again = {0};
  tm_status status = tm__redis_ready(c, err);
  if (status != TM_OK) return status;
  tm__redis_times_key(&k, c->store, which);
  for (size_t i = 0; i < count; i++)
    add_mending(c, &k, tm__redis_time_of(which, &heads[i]), heads[i].id);
  status = tm__redis_flush(c, err);
  for (size_t i = 0; status == TM_OK && i < count; i++) {
    redisReply *reply = NULL;
    tm_head now;
    status = tm__redis_skip(c, 1, err);
    if (status == TM_OK) status = tm__redis_take(c, &reply, err);
    if (status == TM_OK &&
        tm__redis_decode_head(c->store, reply, tm__slice(heads[i].id), &now, NULL) == TM_OK &&
        tm__redis_time_of(which, &now) != tm__redis_time_of(which, &heads[i]))
      tm__buf_add(&again, &now, sizeof(now));
    freeReplyObject(reply);
  }
  if (status == TM_OK && again.len > 0) status = tm__redis_ready(c, err);
  for (size_t at = 0; status == TM_OK && at < again.len; at += sizeof(tm_head)) {
    tm_head now;
    memcpy(&now, again.ptr + at, sizeof(now));
    (void)add_time(c, which, &now);
  }
  if (status == TM_OK && again.len > 0) status = tm__redis_flush(c, err);
  if (status == TM_OK && again.len > 0) status = tm__redis_skip(c, c->awaited, err);
  tm__buf_free(&again);
  return status;
}
