/* store_redis_start.c - start keys: who starts a conversation with a key reserves it first, then
 * commits, in which the head gets the key as well. The two are in different slots, so a reservation
 * may stand alone:
 *
 * - The conversation exists and has the key: taken.
 * - It exists without the key: a left-over; nobody can make it any more, so the key is free.
 * - It does not exist and the reservation is young: its commit is under way. Others are refused and
 *   find it a moment later.
 * - It does not exist and the reservation is old: its host died, or hangs. Before another one takes
 *   the key, it makes sure that the conversation never comes to be (VOID, in the slot of the head):
 *   the host that hangs gets a conflict, finds the key taken and answers from there. */
#include <stdio.h>
#include <stdlib.h>

#include "persistence/store_redis.h"

#define YOUNG_MS 10000

typedef struct reservation {
  char conversation[TM_ID_SIZE], token[TM_REDIS_TOKEN];
  int64_t created;
} reservation;

static bool is_young(const reservation *r, int64_t now) {
  return r->created > now - YOUNG_MS && r->created < now + YOUNG_MS;
}

/* ---- reserving ---- */

static void add_reserve(tm_store_conn *c, const tm_redis_work *w, const char *replaces) {
  const tm_commit *item = w->item;
  int64_t now = tm__redis_now(c->store);
  char body[20];
  tm_redis_key k;
  (void)snprintf(body, sizeof(body), "%016llx", (unsigned long long)item->start_body);
  tm__redis_start_key_of(&k, c->store, tm__slice(item->head.tenant), item->start_key);
  tm__redis_run(c, TM_REDIS_RESERVE, 1, 6);
  tm__redis_key_arg(c, &k);
  tm__redis_text(c, item->head.id);
  tm__redis_text(c, body);
  tm__redis_int(c, now);
  tm__redis_text(c, w->token);
  tm__redis_int(c, now - TM_KEY_AGE_MS);
  tm__redis_text(c, replaces);
}

/* Sweeps find old keys by this. */
static void add_age(tm_store_conn *c, const tm_redis_work *w) {
  tm_redis_key ages, k;
  tm__redis_key(&ages, c->store, "keys");
  tm__redis_start_key_of(&k, c->store, tm__slice(w->item->head.tenant), w->item->start_key);
  tm__redis_command(c, "ZADD", 3);
  tm__redis_key_arg(c, &ages);
  tm__redis_int(c, tm__redis_now(c->store));
  tm__redis_key_arg(c, &k);
}

/* TM_OK with `*free` false: somebody has the key. */
static tm_status judge(tm_store_conn *c, const tm_redis_work *w, const reservation *r, bool *free_,
                       tm_error *err) {
  redisReply *reply;
  uint64_t key = 0;
  int64_t answer;
  *free_ = false;
  tm_status status = tm__redis_ready(c, err);
  if (status != TM_OK) return status;
  tm__redis_ask_head(c, tm__slice(r->conversation));
  status = tm__redis_ask(c, &reply, err);
  if (status != TM_OK) return status;
  bool exists = tm__redis_decode_start(reply, &key, &answer) == TM_OK;
  freeReplyObject(reply);
  if (exists) {
    *free_ = key != w->item->start_key;
    return TM_OK;
  }
  *free_ = strcmp(r->conversation, w->item->head.id) == 0;
  if (*free_ || is_young(r, tm__redis_now(c->store))) return TM_OK;
  status = tm__redis_ready(c, err);
  if (status != TM_OK) return status;
  tm_redis_key k;
  tm__redis_head_key(&k, c->store, tm__slice(r->conversation));
  tm__redis_run(c, TM_REDIS_VOID, 1, 1);
  tm__redis_key_arg(c, &k);
  tm__redis_int(c, tm__redis_now(c->store));
  status = tm__redis_ask(c, &reply, err);
  *free_ = status == TM_OK && reply->integer == 1;
  freeReplyObject(reply);
  return status;
}

/* The key has a reservation of somebody else's. */
static tm_status contend(tm_store_conn *c, tm_redis_work *w, const reservation *r, tm_error *err) {
  redisReply *reply;
  bool is_free;
  tm_status status = judge(c, w, r, &is_free, err);
  if (status == TM_OK && is_free) {
    status = tm__redis_ready(c, err);
    if (status != TM_OK) return status;
    add_reserve(c, w, r->token);
    status = tm__redis_ask(c, &reply, err);
    w->key = status == TM_OK && reply->type == REDIS_REPLY_INTEGER;
    freeReplyObject(reply);
  }
  if (status == TM_OK && !w->key) {
    w->done = true;
    w->item->status = TM_ECONFLICT;
  }
  return status;
}

static bool wants_key(const tm_redis_work *w) {
  return !w->done && !w->key && w->item->expect_revision == 0 && w->item->start_key != 0;
}

typedef struct contest {
  tm_redis_work *work;
  reservation with;
} contest;

/* What another program wrote in a key's place is the trouble of who wants that one. */
static tm_status concern(tm_redis_work *w, tm_status status) {
  if (status != TM_ECORRUPT) return status;
  w->done = true;
  w->item->status = status;
  return TM_OK;
}

static tm_status hear(tm_store_conn *c, tm_redis_work *w, tm_buf *contests, bool *forgot,
                      tm_error *err) {
  redisReply *reply;
  contest x = {.work = w};
  tm_status status = tm__redis_skip(c, 1, err);
  if (status == TM_OK) status = tm__redis_next(c, &reply, err);
  if (status != TM_OK) return status;
  if (tm__redis_is_noscript(reply)) {
    *forgot = true;
  } else if (tm__redis_is_error(reply)) {
    status = concern(w, tm__redis_refused(c->store, reply->str, err));
  } else if (reply->type == REDIS_REPLY_INTEGER) {
    w->key = true;
  } else {
    (void)tm__copy(x.with.conversation, sizeof(x.with.conversation),
                   tm__redis_slice(tm__redis_item(reply, 0)));
    (void)tm__copy(x.with.token, sizeof(x.with.token), tm__redis_slice(tm__redis_item(reply, 1)));
    x.with.created = tm__redis_number(tm__redis_slice(tm__redis_item(reply, 2)));
    tm__buf_add(contests, &x, sizeof(x));
  }
  freeReplyObject(reply);
  return status;
}

static tm_status reserve_once(tm_store_conn *c, tm_redis_work *works, size_t count,
                              tm_buf *contests, bool *forgot, tm_error *err) {
  *forgot = false;
  tm_status status = tm__redis_ready(c, err);
  if (status != TM_OK) return status;
  for (size_t i = 0; i < count; i++) {
    if (!wants_key(&works[i])) continue;
    add_age(c, &works[i]);
    add_reserve(c, &works[i], "");
  }
  if (c->awaited == 0) return TM_OK;
  status = tm__redis_flush(c, err);
  for (size_t i = 0; status == TM_OK && i < count; i++)
    if (wants_key(&works[i])) status = hear(c, &works[i], contests, forgot, err);
  if (status == TM_OK && *forgot) status = tm__redis_load(c, err);
  return status;
}

tm_status tm__redis_reserve_keys(tm_store_conn *c, tm_redis_work *works, size_t count,
                                 tm_error *err) {
  tm_buf contests = {0};
  bool forgot = true;
  tm_status status = TM_OK;
  for (int i = 0; i < 3 && status == TM_OK && forgot; i++) {
    tm__buf_clear(&contests);
    status = reserve_once(c, works, count, &contests, &forgot, err);
  }
  for (size_t at = 0; status == TM_OK && at < contests.len; at += sizeof(contest)) {
    contest x;
    memcpy(&x, contests.ptr + at, sizeof(x));
    status = concern(x.work, contend(c, x.work, &x.with, err));
  }
  if (status == TM_OK && !tm__buf_ok(&contests)) status = tm__fail_memory(err, "start keys");
  tm__buf_free(&contests);
  return status;
}

void tm__redis_release_key(tm_store_conn *c, const tm_redis_work *w) {
  tm_redis_key k;
  tm__redis_start_key_of(&k, c->store, tm__slice(w->item->head.tenant), w->item->start_key);
  tm__redis_run(c, TM_REDIS_RELEASE, 1, 2);
  tm__redis_key_arg(c, &k);
  tm__redis_text(c, "token");
  tm__redis_text(c, w->token);
}

/* ---- finding ---- */

static tm_status read_key(tm_store_conn *c, tm_slice tenant, uint64_t key, tm_start_key *out,
                          tm_error *err) {
  static const char *const fields[] = {"conversation", "body", "created"};
  redisReply *reply;
  tm_redis_key k;
  tm_status status = tm__redis_ready(c, err);
  if (status != TM_OK) return status;
  tm__redis_start_key_of(&k, c->store, tenant, key);
  tm__redis_command(c, "HMGET", 4);
  tm__redis_key_arg(c, &k);
  for (size_t i = 0; i < 3; i++)
    tm__redis_text(c, fields[i]);
  status = tm__redis_ask(c, &reply, err);
  if (status != TM_OK) return status;
  tm_slice conversation = tm__redis_slice(tm__redis_item(reply, 0));
  tm_slice body = tm__redis_slice(tm__redis_item(reply, 1));
  *out = (tm_start_key){.created = tm__redis_number(tm__redis_slice(tm__redis_item(reply, 2)))};
  if (conversation.ptr == NULL || body.ptr == NULL ||
      out->created < tm__redis_now(c->store) - TM_KEY_AGE_MS ||
      !tm__copy(out->conversation, sizeof(out->conversation), conversation))
    status = tm__redis_not_found("start key", err);
  else
    out->body = strtoull(body.ptr, NULL, 16);
  freeReplyObject(reply);
  return status;
}

tm_status tm__redis_start_key(tm_store_conn *c, tm_slice tenant, uint64_t key, tm_start_key *out,
                              tm_error *err) {
  redisReply *reply;
  uint64_t own = 0;
  tm_status status = read_key(c, tenant, key, out, err);
  if (status == TM_OK) status = tm__redis_ready(c, err);
  if (status != TM_OK) return status;
  tm__redis_ask_head(c, tm__slice(out->conversation));
  status = tm__redis_ask(c, &reply, err);
  if (status != TM_OK) return status;
  bool exists = tm__redis_decode_start(reply, &own, &out->row) == TM_OK;
  freeReplyObject(reply);
  const reservation r = {.created = out->created};
  if (exists ? own == key : is_young(&r, tm__redis_now(c->store))) return TM_OK;
  return tm__redis_not_found("start key", err);
}

tm_status tm__redis_key_of(tm_store_conn *c, tm_slice conversation, uint64_t *key,
                           tm_start_key *out, tm_error *err) {
  redisReply *reply;
  tm_head head;
  int64_t answer;
  *key = 0;
  tm_status status = tm__redis_ready(c, err);
  if (status != TM_OK) return status;
  tm__redis_ask_head(c, conversation);
  status = tm__redis_ask(c, &reply, err);
  if (status != TM_OK) return status;
  status = tm__redis_decode_head(c->store, reply, conversation, &head, err);
  (void)tm__redis_decode_start(reply, key, &answer);
  freeReplyObject(reply);
  if (status == TM_ENOTFOUND || (status == TM_OK && *key == 0))
    return tm__redis_not_found("start key", err);
  if (status == TM_OK) status = tm__redis_start_key(c, tm__slice(head.tenant), *key, out, err);
  if (status == TM_OK && strcmp(out->conversation, head.id) != 0)
    return tm__redis_not_found("start key", err); /* another one took it when it was old */
  return status;
}
