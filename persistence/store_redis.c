/* store_redis.c - one server for several hosts: opening, closing, and what the backend provides. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "persistence/store_redis.h"

/* ---- opening ---- */

static tm_status bad_location(tm_error *err, const char *location) {
  return tm__fail(err, TM_EINVAL, "store.location",
                  "\"%.200s\" is no Redis server: give HOST:PORT/DB, as 127.0.0.1:6379/2",
                  location);
}

/* HOST:PORT/DB; the host of a version-6 address may stand in brackets. */
static tm_status parse_location(tm_store *s, const char *location, tm_error *err) {
  const char *slash = strrchr(location, '/');
  size_t len = slash != NULL ? (size_t)(slash - location) : strlen(location);
  const char *colon = memrchr(location, ':', len);
  char *end = NULL;
  if (colon == NULL || colon == location) return bad_location(err, location);
  long port = strtol(colon + 1, &end, 10);
  if (end != location + len || port < 1 || port > 65535) return bad_location(err, location);
  long db = slash != NULL ? strtol(slash + 1, &end, 10) : 0;
  if (slash != NULL && (*end != '\0' || end == slash + 1 || db < 0 || db > INT_MAX))
    return bad_location(err, location);
  tm_slice host = {location, (size_t)(colon - location)};
  if (host.len > 2 && host.ptr[0] == '[' && host.ptr[host.len - 1] == ']')
    host = (tm_slice){host.ptr + 1, host.len - 2};
  s->port = (int)port;
  s->db = (int)db;
  s->host = tm__slice_dup(host);
  (void)snprintf(s->place, sizeof(s->place), "%.*s:%d/%d", (int)(host.len < 200 ? host.len : 200),
                 host.ptr, s->port, s->db);
  return s->host != NULL ? TM_OK : tm__fail_memory(err, "the store");
}

static tm_status set_options(tm_store *s, const tm_store_options *o, tm_error *err) {
  int64_t timeout = o->timeout_ms < 1 ? 1 : o->timeout_ms;
  size_t most = TM_ROW_MAX - TM_REDIS_ROW_HEADER; /* what Redis takes as one text */
  bool own = o->tenant != NULL && o->tenant[0] != '\0';
  s->timeout_ms = timeout > INT_MAX ? INT_MAX : (int)timeout;
  s->row_max = o->record_bytes_max > 0 && o->record_bytes_max < most ? o->record_bytes_max : most;
  s->opening = o->opening;
  s->now_ms = o->now_ms;
  s->now_ud = o->now_ud;
  s->event_ud = o->event_ud;
  if (own && tm__store_tenant(o->tenant, err) != TM_OK) return TM_EINVAL;
  (void)snprintf(s->prefix, sizeof(s->prefix), own ? TM_REDIS_TENANTS "%s:" : TM_REDIS_PREFIX "%s",
                 own ? o->tenant : "");
  if (o->password != NULL && o->password[0] != '\0') {
    s->password = tm__slice_dup(tm__slice(o->password));
    if (s->password == NULL) return tm__fail_memory(err, "the store");
  }
  return parse_location(s, o->location, err);
}

/* The mark of the store, which is made if one is to be made; 0: there is none. */
static tm_status read_format(tm_store_conn *c, int64_t *format, tm_error *err) {
  redisReply *reply;
  tm_redis_key k;
  bool make = c->store->opening == TM_STORE_MAKE;
  tm_status status = tm__redis_ready(c, err);
  if (status != TM_OK) return status;
  tm__redis_key(&k, c->store, "meta");
  if (make) {
    tm__redis_command(c, "HSETNX", 3);
    tm__redis_key_arg(c, &k);
    tm__redis_text(c, "format");
    tm__redis_int(c, TM_REDIS_FORMAT);
  }
  tm__redis_command(c, "HGET", 2);
  tm__redis_key_arg(c, &k);
  tm__redis_text(c, "format");
  status = tm__redis_flush(c, err);
  if (status == TM_OK && make) status = tm__redis_skip(c, 1, err);
  if (status == TM_OK) status = tm__redis_take(c, &reply, err);
  if (status != TM_OK) return status;
  c->store->absent = reply->type == REDIS_REPLY_NIL;
  *format = tm__redis_number(tm__redis_slice(reply));
  freeReplyObject(reply);
  return TM_OK;
}

/* Marks a new store, and refuses one of a newer program. */
static tm_status check_format(tm_store_conn *c, tm_error *err) {
  int64_t format = 0;
  tm_status status = read_format(c, &format, err);
  if (status != TM_OK) return status;
  if (c->store->absent)
    return c->store->opening == TM_STORE_AS_IS ? TM_OK : tm__store_absent(c->store->place, err);
  if (format == TM_REDIS_FORMAT) return TM_OK;
  if (format < 1) return tm__redis_damaged(c->store, "the store's mark", err);
  return tm__fail(
      err, TM_ECORRUPT, "store.newer",
      "the store in redis %s was written by a newer program (format %lld, this one knows "
      "%d): install that one",
      c->store->place, (long long)format, TM_REDIS_FORMAT);
}

static void redis_close(tm_store *s) {
  if (s == NULL) return;
  free(s->host);
  free(s->password);
  free(s->life);
  free(s);
}

static tm_status redis_open(tm_store **out, const tm_store_options *o, tm_error *err) {
  tm_store_conn *c = NULL;
  *out = NULL;
  tm_store *s = calloc(1, sizeof(*s));
  if (s == NULL) return tm__fail_memory(err, "the store");
  s->life = calloc(1, sizeof(*s->life));
  tm_status status = s->life != NULL ? set_options(s, o, err) : tm__fail_memory(err, "the store");
  if (status == TM_OK) status = tm__redis_connect(&c, s, TM_STORE_WRITER, err);
  if (status == TM_OK) status = tm__redis_check_server(c, err);
  if (status == TM_OK) status = check_format(c, err);
  tm__redis_disconnect(c);
  if (status != TM_OK) {
    redis_close(s);
    return status;
  }
  s->life->away = false;
  s->on_health = o->on_health; /* what fails before, open says */
  *out = s;
  return TM_OK;
}

static void redis_interrupt(tm_store *s) {
  __atomic_store_n(&s->life->interrupted, true, __ATOMIC_RELAXED);
}

/* Whose host is dead, no other one can know. */
static tm_status redis_recover(tm_store_conn *c, int64_t now, int64_t *taken, tm_error *err) {
  (void)c, (void)now, (void)err;
  *taken = 0;
  return TM_OK;
}

static tm_status redis_probe(tm_store_conn *c, tm_error *err) {
  tm_redis_key k;
  tm_status status = tm__redis_ready(c, err);
  if (status != TM_OK) return status;
  tm__redis_key(&k, c->store, "meta");
  tm__redis_command(c, "HSET", 3);
  tm__redis_key_arg(c, &k);
  tm__redis_text(c, "probed");
  tm__redis_int(c, tm__redis_now(c->store));
  return tm__redis_tell(c, err);
}

const tm_store_backend tm__store_redis = {
    .abi = TM_STORE_ABI,
    .scheme = "redis",
    .durable = true,
    .shared = true,
    .writers = 2,
    .open = redis_open,
    .close = redis_close,
    .interrupt = redis_interrupt,
    .connect = tm__redis_connect,
    .disconnect = tm__redis_disconnect,
    .recover = redis_recover,
    .probe = redis_probe,
    .commit = tm__redis_commit,
    .head = tm__redis_head,
    .chain = tm__redis_chain,
    .list = tm__redis_list,
    .due = tm__redis_due,
    .next_due = tm__redis_next_due,
    .start_key = tm__redis_start_key,
    .key_of = tm__redis_key_of,
    .session = tm__redis_session,
    .sessions = tm__redis_sessions,
    .sessions_due = tm__redis_sessions_due,
    .session_put = tm__redis_session_put,
    .session_drop = tm__redis_session_drop,
    .outbox_take = tm__redis_outbox_take,
    .outbox_settle = tm__redis_outbox_settle,
    .outbox_next = tm__redis_outbox_next,
    .outbox_list = tm__redis_outbox_list,
    .outbox_put = tm__redis_outbox_put,
    .outbox_rewrite = tm__redis_outbox_rewrite,
    .ended = tm__redis_ended,
    .purge = tm__redis_purge,
    .sweep = tm__redis_sweep,
    .rewrite = tm__redis_rewrite,
    .script_put = tm__redis_script_put,
    .script_get = tm__redis_script_get,
    .script_use = tm__redis_script_use,
    .script_drop = tm__redis_script_drop,
    .scripts = tm__redis_script_list,
    .note_put = tm__redis_note_put,
    .note_get = tm__redis_note_get,
    .note_swap = tm__redis_note_swap,
    .tenant_wake = tm__redis_tenant_wake,
    .tenants_due = tm__redis_tenants_due,
    .tenants = tm__redis_tenants,
    .unreadable = tm__redis_unreadable,
    .inspect = tm__redis_inspect,
};
