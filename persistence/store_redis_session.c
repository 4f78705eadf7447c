/* store_redis_session.c - sessions: a record each, and ordered sets of them, all in one slot, so
 * that scripts keep them together and the limits exact. A start reserves its session before it
 * commits and takes it back when the commit fails.
 *
 * Removing one: it is marked, then the session's conversations are looked for, then it goes if it
 * is still marked. A start in between either clears the mark, or has written the hint of its
 * conversation before, which is then seen. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "persistence/store_redis.h"

/* ---- keys ---- */

void tm__redis_session_key(tm_redis_key *k, const tm_store *s, const char *name,
                           const tm_slice *tenant) {
  tm__redis_key(k, s, name);
  if (tenant != NULL) tm__redis_key_part(k, *tenant);
}

void tm__redis_session_record(tm_redis_key *k, const tm_store *s, tm_redis_name n) {
  tm__redis_session_key(k, s, "{sessions}:record:", &n.tenant);
  tm__redis_key_text(k, ":");
  tm__redis_key_part(k, n.id);
}

static void add_keys(tm_store_conn *c, tm_redis_name n) {
  tm_redis_key k;
  tm__redis_session_record(&k, c->store, n);
  tm__redis_key_arg(c, &k);
  tm__redis_session_key(&k, c->store, "{sessions}:open", NULL);
  tm__redis_key_arg(c, &k);
  tm__redis_session_key(&k, c->store, "{sessions}:open:", &n.tenant);
  tm__redis_key_arg(c, &k);
  tm__redis_session_key(&k, c->store, "{sessions}:all", NULL);
  tm__redis_key_arg(c, &k);
  tm__redis_session_key(&k, c->store, "{sessions}:all:", &n.tenant);
  tm__redis_key_arg(c, &k);
  tm__redis_session_key(&k, c->store, "{sessions}:due", NULL);
  tm__redis_key_arg(c, &k);
}

/* A text that sorts as the time does. */
void tm__redis_session_order(char out[17], int64_t created) {
  (void)snprintf(out, 17, "%016llx",
                 (unsigned long long)((uint64_t)created ^ UINT64_C(0x8000000000000000)));
}

/* ---- fields ---- */

static size_t field_args(const tm_session *s) {
  return (size_t)10 + (s->user_id.ptr != NULL ? 2U : 0U) + (s->metadata.ptr != NULL ? 2U : 0U);
}

static void add_fields(tm_store_conn *c, tm_redis_name n, const tm_session *s) {
  tm__redis_text(c, "tenant");
  tm__redis_arg(c, n.tenant);
  tm__redis_text(c, "id");
  tm__redis_arg(c, n.id);
  tm__redis_text(c, "created");
  tm__redis_int(c, s->created);
  tm__redis_text(c, "flags");
  tm__redis_int(c, s->flags);
  tm__redis_text(c, "ended");
  tm__redis_int(c, s->ended);
  if (s->user_id.ptr != NULL) {
    tm__redis_text(c, "user_id");
    tm__redis_arg(c, s->user_id);
  }
  if (s->metadata.ptr == NULL) return;
  tm__redis_text(c, "metadata");
  tm__redis_arg(c, s->metadata);
}

/* ---- with a commit ---- */

static tm_redis_name names_of(const tm_redis_work *w) {
  return (tm_redis_name){tm__slice(w->item->head.tenant), tm__slice(w->item->head.session)};
}

static bool wants_session(const tm_redis_work *w) {
  return !w->done && !w->session && w->item->expect_revision == 0 && w->item->session != NULL;
}

static void add_join(tm_store_conn *c, const tm_redis_work *w) {
  const tm_commit *item = w->item;
  tm_session s = *item->session;
  tm_redis_name n = names_of(w);
  char order[17];
  s.ended = 0;
  tm__redis_session_order(order, s.created);
  tm__redis_run(c, TM_REDIS_JOIN, 6, 7 + field_args(&s));
  add_keys(c, n);
  tm__redis_arg(c, n.tenant);
  tm__redis_arg(c, n.id);
  tm__redis_text(c, w->token);
  tm__redis_text(c, order);
  tm__redis_int(c, s.look_at);
  tm__redis_int(c, item->sessions_max);
  tm__redis_int(c, item->tenant_sessions_max);
  add_fields(c, n, &s);
}

static void refuse(tm_store_conn *c, tm_redis_work *w, tm_status status) {
  w->done = true;
  w->item->status = status;
  tm__redis_part_all(c, &w->item->head);
}

static tm_status hear(tm_store_conn *c, tm_redis_work *w, bool *forgot, tm_error *err) {
  redisReply *reply;
  tm_error why;
  tm_status status = tm__redis_skip(c, w->before, &why);
  if (status != TM_OK && status != TM_ECORRUPT) { /* a list that is another's only misses it */
    if (err != NULL) *err = why;
    return status;
  }
  status = tm__redis_next(c, &reply, err);
  if (status != TM_OK) return status;
  if (tm__redis_is_noscript(reply)) {
    *forgot = true;
  } else if (tm__redis_is_error(reply)) {
    status = tm__redis_refused(c->store, reply->str, err);
    if (status == TM_ECORRUPT) { /* that record, not the store */
      const tm_redis_name n = names_of(w);
      const tm_session s = {.tenant = n.tenant, .id = n.id};
      refuse(c, w, tm__session_damaged(&s, c->store->place, err));
      status = TM_OK;
    }
  } else if (reply->integer == 1) {
    w->session = true;
  } else {
    refuse(c, w, TM_ELIMIT);
  }
  freeReplyObject(reply);
  return status;
}

static tm_status reserve_once(tm_store_conn *c, tm_redis_work *works, size_t count, bool *forgot,
                              tm_error *err) {
  *forgot = false;
  tm_status status = tm__redis_ready(c, err);
  if (status != TM_OK) return status;
  for (size_t i = 0; i < count; i++) {
    if (!wants_session(&works[i])) continue;
    works[i].before = tm__redis_add_hints(c, works[i].item, true);
    add_join(c, &works[i]);
  }
  if (c->awaited == 0) return TM_OK;
  status = tm__redis_flush(c, err);
  for (size_t i = 0; status == TM_OK && i < count; i++)
    if (wants_session(&works[i])) status = hear(c, &works[i], forgot, err);
  if (status == TM_OK && *forgot) status = tm__redis_load(c, err);
  return status;
}

tm_status tm__redis_reserve_sessions(tm_store_conn *c, tm_redis_work *works, size_t count,
                                     tm_error *err) {
  bool forgot = true;
  tm_status status = TM_OK;
  for (int i = 0; i < 3 && status == TM_OK && forgot; i++)
    status = reserve_once(c, works, count, &forgot, err);
  return status;
}

static void add_leave(tm_store_conn *c, tm_redis_name n, const char *field, const char *token) {
  tm__redis_run(c, TM_REDIS_LEAVE, 6, 4);
  add_keys(c, n);
  tm__redis_arg(c, n.tenant);
  tm__redis_arg(c, n.id);
  tm__redis_text(c, field);
  tm__redis_text(c, token);
}

void tm__redis_release_session(tm_store_conn *c, const tm_redis_work *w) {
  add_leave(c, names_of(w), "by", w->token);
}

/* ---- writing ---- */

static void add_expected_text(tm_store_conn *c, tm_slice text) {
  tm__redis_arg_two(c, text.ptr != NULL ? TM_S("+") : TM_S("-"), text);
}

static void add_expected(tm_store_conn *c, const tm_session *s) {
  tm__redis_int(c, s->flags);
  tm__redis_int(c, s->created);
  tm__redis_int(c, s->look_at);
  tm__redis_int(c, s->ended);
  add_expected_text(c, s->user_id);
  add_expected_text(c, s->metadata);
}

tm_status tm__redis_session_put(tm_store_conn *c, const tm_session *expect, const tm_session *s,
                                tm_error *err) {
  tm_redis_name n = {s->tenant, s->id};
  redisReply *reply;
  char order[17];
  size_t expected = expect != NULL ? 6 : 0;
  tm_status status = tm__redis_ready(c, err);
  if (status != TM_OK) return status;
  tm__redis_session_order(order, s->created);
  tm__redis_run(c, TM_REDIS_PUT_SESSION, 6, 6 + expected + field_args(s));
  add_keys(c, n);
  tm__redis_arg(c, n.tenant);
  tm__redis_arg(c, n.id);
  tm__redis_text(c, order);
  tm__redis_int(c, s->look_at);
  tm__redis_text(c, s->ended == 0 ? "1" : "0");
  tm__redis_int(c, (int64_t)expected);
  if (expect != NULL) add_expected(c, expect);
  add_fields(c, n, s);
  status = tm__redis_ask(c, &reply, err);
  if (status != TM_OK) return status;
  bool put = reply->integer == 1;
  freeReplyObject(reply);
  return put ? TM_OK : tm__session_moved(s->id, err);
}

/* Hints count, also one without a head: its commit may be under way. Lies are left to sweeps. */
static tm_status is_used(tm_store_conn *c, tm_redis_name n, bool *used, tm_error *err) {
  redisReply *reply = NULL;
  tm_redis_key k;
  *used = false;
  tm_status status = tm__redis_ready(c, err);
  if (status != TM_OK) return status;
  tm__redis_list_key(&k, c->store, TM_LIST_SESSION, n.tenant, n.id);
  tm__redis_command(c, "EXISTS", 1);
  tm__redis_key_arg(c, &k);
  status = tm__redis_ask(c, &reply, err);
  if (status == TM_OK) *used = reply->integer > 0;
  freeReplyObject(reply);
  return status;
}

tm_status tm__redis_session_drop(tm_store_conn *c, tm_slice tenant, tm_slice id, tm_error *err) {
  tm_redis_name n = {tenant, id};
  redisReply *reply = NULL;
  tm_redis_key k;
  char token[TM_REDIS_TOKEN];
  uint64_t random;
  bool used = false;
  tm__random_bytes(&random, sizeof(random));
  (void)snprintf(token, sizeof(token), "%016llx", (unsigned long long)random);
  tm_status status = tm__redis_settle_parted(c, err);
  if (status == TM_OK) status = tm__redis_ready(c, err);
  if (status != TM_OK) return status;
  tm__redis_session_record(&k, c->store, n);
  tm__redis_run(c, TM_REDIS_MARK_SESSION, 1, 1);
  tm__redis_key_arg(c, &k);
  tm__redis_text(c, token);
  status = tm__redis_ask(c, &reply, err);
  bool exists = status == TM_OK && reply->integer == 1;
  freeReplyObject(reply);
  reply = NULL;
  if (!exists) return status;
  status = is_used(c, n, &used, err);
  if (status == TM_OK && !used) status = tm__redis_ready(c, err);
  if (status != TM_OK) return status;
  if (!used) {
    add_leave(c, n, "leaves", token);
    status = tm__redis_ask(c, &reply, err);
    used = status == TM_OK && reply->integer == 0;
    freeReplyObject(reply);
  }
  if (!used) return status;
  return tm__fail(err, TM_ECONFLICT, "store.session_in_use",
                  "session %.*s has conversations; purge them first",
                  (int)(id.len < 128 ? id.len : 128), id.ptr);
}
