/* store_redis_conn.c - one connection: commands are gathered and sent at once, replies read in
 * their order. Here it is found out that the server is gone; what that means for what was sent is
 * decided by who sent it. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>

#include "core/clock.h"
#include "persistence/store_redis.h"

#define PAUSE_MIN_MS 20
#define PAUSE_MAX_MS 500
#define SLICE_US     20000
#define OUT_KEPT     ((size_t)8 << 20) /* bytes of memory for commands */

static const char *const script_texts[] = {
#define SCRIPT(name, text) text,
#include "persistence/store_redis.def"
#undef SCRIPT
};

int64_t tm__redis_now(const tm_store *s) {
  return s->now_ms(s->now_ud);
}

/* ---- health ---- */

static void note_away(tm_store *s, const tm_error *err) {
  if (!__atomic_exchange_n(&s->life->away, true, __ATOMIC_RELAXED) && s->on_health != NULL)
    s->on_health(s->event_ud, err);
}

static void note_back(tm_store *s) {
  if (__atomic_exchange_n(&s->life->away, false, __ATOMIC_RELAXED) && s->on_health != NULL)
    s->on_health(s->event_ud, NULL);
}

/* ---- waiting ---- */

/* A part of each wait is random, so that hosts do not come back all at once. */
static int64_t some_of(int ms) {
  uint32_t random;
  int64_t us = (int64_t)ms * 1000;
  tm__random_bytes(&random, sizeof(random));
  return us / 2 + (int64_t)(random % (uint32_t)(us / 2 + 1));
}

static int next_pause(int ms) {
  ms = ms == 0 ? PAUSE_MIN_MS : ms * 2;
  return ms > PAUSE_MAX_MS ? PAUSE_MAX_MS : ms;
}

bool tm__redis_pause(tm_store_conn *c, int *pause_ms) {
  const tm_store *s = c->store;
  int64_t now = tm__clock_monotonic_us(), until = now + some_of(*pause_ms);
  if (c->redis == NULL && c->retry_at > until) until = c->retry_at;
  *pause_ms = next_pause(*pause_ms);
  for (; now < until; now = tm__clock_monotonic_us()) {
    if (__atomic_load_n(&s->life->interrupted, __ATOMIC_RELAXED)) return false;
    int64_t us = until - now < SLICE_US ? until - now : SLICE_US;
    const struct timespec slice = {0, (long)us * 1000};
    (void)nanosleep(&slice, NULL);
  }
  return !__atomic_load_n(&s->life->interrupted, __ATOMIC_RELAXED);
}

static void put_off(tm_store_conn *c, const tm_error *err) {
  c->pause_ms = next_pause(c->pause_ms);
  c->retry_at = tm__clock_monotonic_us() + some_of(c->pause_ms);
  c->why = *err;
}

static bool is_due(const tm_store_conn *c) {
  return c->pause_ms == 0 || tm__clock_monotonic_us() >= c->retry_at ||
         __atomic_load_n(&c->store->life->arrivals, __ATOMIC_RELAXED) != c->arrivals;
}

/* ---- commands ---- */

static void add_length(tm_store_conn *c, char kind, size_t n) {
  char text[24], *p = text + sizeof(text);
  *--p = '\n';
  *--p = '\r';
  do
    *--p = (char)('0' + n % 10);
  while ((n /= 10) > 0);
  *--p = kind;
  tm__buf_add(&c->out, p, (size_t)(text + sizeof(text) - p));
}

void tm__redis_arg(tm_store_conn *c, tm_slice s) {
  add_length(c, '$', s.len);
  tm__buf_add(&c->out, s.ptr, s.len);
  tm__buf_add(&c->out, "\r\n", 2);
}

void tm__redis_arg_two(tm_store_conn *c, tm_slice a, tm_slice b) {
  add_length(c, '$', a.len + b.len);
  tm__buf_add(&c->out, a.ptr, a.len);
  tm__buf_add(&c->out, b.ptr, b.len);
  tm__buf_add(&c->out, "\r\n", 2);
}

void tm__redis_text(tm_store_conn *c, const char *text) {
  tm__redis_arg(c, tm__slice(text));
}

void tm__redis_int(tm_store_conn *c, int64_t n) {
  char text[24], *p = text + sizeof(text);
  uint64_t rest = n < 0 ? 0 - (uint64_t)n : (uint64_t)n;
  do
    *--p = (char)('0' + rest % 10);
  while ((rest /= 10) > 0);
  if (n < 0) *--p = '-';
  tm__redis_arg(c, (tm_slice){p, (size_t)(text + sizeof(text) - p)});
}

void tm__redis_key_arg(tm_store_conn *c, const tm_redis_key *k) {
  tm__redis_arg(c, (tm_slice){k->text, k->len});
}

void tm__redis_command(tm_store_conn *c, const char *name, size_t args) {
  add_length(c, '*', args + 1);
  tm__redis_text(c, name);
  c->awaited++;
}

void tm__redis_run(tm_store_conn *c, tm_redis_script which, size_t keys, size_t args) {
  tm__redis_command(c, "EVALSHA", 2 + keys + args);
  tm__redis_text(c, c->sha[which]);
  tm__redis_int(c, (int64_t)keys);
}

/* ---- sending and reading ---- */

void tm__redis_drop(tm_store_conn *c) {
  if (c->redis != NULL) redisFree(c->redis);
  c->redis = NULL;
  c->awaited = 0;
}

static tm_status lost(tm_store_conn *c, const char *what, tm_error *err) {
  tm_status status = tm__redis_unreachable(c->store, what, err); /* before `what` goes */
  tm__redis_drop(c);
  return status;
}

tm_status tm__redis_flush(tm_store_conn *c, tm_error *err) {
  if (!tm__buf_ok(&c->out)) {
    tm__redis_drop(c);
    return tm__fail_memory(err, "commands for Redis");
  }
  for (size_t at = 0; at < c->out.len;) {
    ssize_t n = send(c->redis->fd, c->out.ptr + at, c->out.len - at, MSG_NOSIGNAL);
    if (n >= 0)
      at += (size_t)n;
    else if (errno == EAGAIN || errno == EWOULDBLOCK)
      return lost(c, "it takes no commands within the time", err);
    else if (errno != EINTR)
      return lost(c, strerror(errno), err);
  }
  return TM_OK;
}

/* What one answers that is no primary; some versions put a script's error into their own words. */
static bool is_replica(const redisReply *r) {
  return tm__redis_is_error(r) &&
         (strstr(r->str, "READONLY") != NULL || strstr(r->str, "MASTERDOWN") != NULL);
}

tm_status tm__redis_next(tm_store_conn *c, redisReply **out, tm_error *err) {
  void *reply = NULL;
  *out = NULL;
  if (redisGetReply(c->redis, &reply) != REDIS_OK || reply == NULL) {
    if (c->redis->err == REDIS_ERR_OOM) {
      tm__redis_drop(c);
      return tm__fail_memory(err, "a reply of Redis");
    }
    bool late = c->redis->err == REDIS_ERR_IO && (errno == EAGAIN || errno == EWOULDBLOCK);
    return lost(c, late ? "it does not answer within the time" : c->redis->errstr, err);
  }
  c->awaited--;
  *out = reply;
  c->replica = c->replica || is_replica(*out);
  return TM_OK;
}

tm_status tm__redis_take(tm_store_conn *c, redisReply **out, tm_error *err) {
  tm_status status = tm__redis_next(c, out, err);
  if (status != TM_OK || !tm__redis_is_error(*out)) return status;
  status = tm__redis_refused(c->store, (*out)->str, err);
  freeReplyObject(*out);
  *out = NULL;
  return status;
}

tm_status tm__redis_skip(tm_store_conn *c, size_t count, tm_error *err) {
  tm_status first = TM_OK;
  for (size_t i = 0; i < count && c->redis != NULL; i++) {
    redisReply *reply;
    tm_status status = tm__redis_take(c, &reply, first == TM_OK ? err : NULL);
    if (first == TM_OK) first = status;
    freeReplyObject(reply);
  }
  return first;
}

/* Repeating is right: what a NOSCRIPT answers was not executed. */
tm_status tm__redis_ask(tm_store_conn *c, redisReply **out, tm_error *err) {
  tm_status status = tm__redis_flush(c, err);
  *out = NULL;
  if (status == TM_OK) status = tm__redis_next(c, out, err);
  if (status == TM_OK && tm__redis_is_noscript(*out)) {
    tm_buf again = c->out;
    freeReplyObject(*out);
    *out = NULL;
    c->out = (tm_buf){0};
    status = tm__redis_load(c, err);
    tm__buf_free(&c->out);
    c->out = again;
    c->awaited = 1;
    if (status == TM_OK) status = tm__redis_flush(c, err);
    if (status == TM_OK) status = tm__redis_next(c, out, err);
  }
  tm__buf_clear(&c->out);
  if (status != TM_OK || !tm__redis_is_error(*out)) return status;
  status = tm__redis_refused(c->store, (*out)->str, err);
  freeReplyObject(*out);
  *out = NULL;
  return status;
}

tm_status tm__redis_tell(tm_store_conn *c, tm_error *err) {
  redisReply *reply;
  tm_status status = tm__redis_ask(c, &reply, err);
  freeReplyObject(reply);
  return status;
}

bool tm__redis_is_error(const redisReply *r) {
  return r != NULL && r->type == REDIS_REPLY_ERROR;
}

bool tm__redis_is_noscript(const redisReply *r) {
  return tm__redis_is_error(r) && strncmp(r->str, "NOSCRIPT", 8) == 0;
}

tm_slice tm__redis_slice(const redisReply *r) {
  bool text = r != NULL && (r->type == REDIS_REPLY_STRING || r->type == REDIS_REPLY_STATUS);
  return text ? (tm_slice){r->str, r->len} : (tm_slice){NULL, 0};
}

const redisReply *tm__redis_item(const redisReply *r, size_t at) {
  return r != NULL && r->type == REDIS_REPLY_ARRAY && at < r->elements ? r->element[at] : NULL;
}

int64_t tm__redis_number(tm_slice text) {
  return text.ptr == NULL ? 0 : strtoll(text.ptr, NULL, 10);
}

/* ---- connecting ---- */

static struct timeval time_of(int ms) {
  return (struct timeval){ms / 1000, (suseconds_t)(ms % 1000) * 1000};
}

static void begin(tm_store_conn *c) {
  tm__buf_clear(&c->out);
  if (c->out.cap > OUT_KEPT) tm__buf_free(&c->out);
  c->awaited = 0;
}

static tm_status greet(tm_store_conn *c, tm_error *err) {
  begin(c);
  if (c->store->password != NULL) {
    tm__redis_command(c, "AUTH", 1);
    tm__redis_text(c, c->store->password);
  }
  tm__redis_command(c, "SELECT", 1);
  tm__redis_int(c, c->store->db);
  tm_status status = tm__redis_flush(c, err);
  return status == TM_OK ? tm__redis_skip(c, c->awaited, err) : status;
}

tm_status tm__redis_load(tm_store_conn *c, tm_error *err) {
  tm_status status = TM_OK;
  begin(c);
  for (size_t i = 0; i < TM_REDIS_SCRIPTS; i++) {
    tm__redis_command(c, "SCRIPT", 2);
    tm__redis_text(c, "LOAD");
    tm__redis_text(c, script_texts[i]);
  }
  status = tm__redis_flush(c, err);
  for (size_t i = 0; status == TM_OK && i < TM_REDIS_SCRIPTS; i++) {
    redisReply *reply;
    status = tm__redis_take(c, &reply, err);
    if (status == TM_OK) (void)tm__copy(c->sha[i], sizeof(c->sha[i]), tm__redis_slice(reply));
    freeReplyObject(reply);
  }
  begin(c);
  return status;
}

static tm_status connect_now(tm_store_conn *c, tm_error *err) {
  const tm_store *s = c->store;
  c->redis = redisConnectWithTimeout(s->host, s->port, time_of(s->timeout_ms));
  if (c->redis == NULL) return tm__fail_memory(err, "a connection to Redis");
  if (c->redis->err != 0) return lost(c, c->redis->errstr, err);
  if (redisSetTimeout(c->redis, time_of(c->patience_ms)) != REDIS_OK)
    return lost(c, c->redis->errstr, err);
  (void)redisEnableKeepAlive(c->redis);
  tm_status status = greet(c, err);
  return status == TM_OK ? tm__redis_load(c, err) : status;
}

/* Nothing is awaited: what can be read is the end of the connection. */
static bool is_stale(const tm_store_conn *c) {
  struct pollfd p = {.fd = c->redis->fd, .events = POLLIN};
  return poll(&p, 1, 0) > 0;
}

/* A replica keeps its connections open for ever, although another server may be the primary under
 * its name by now: who was refused connects again, and all others after it. */
static bool is_left_behind(const tm_store_conn *c) {
  return c->replica || c->moves != __atomic_load_n(&c->store->life->moves, __ATOMIC_RELAXED);
}

static void note_arrival(tm_store_conn *c) {
  c->pause_ms = 0;
  if (c->replica) c->moves = __atomic_add_fetch(&c->store->life->moves, 1, __ATOMIC_RELAXED);
  c->replica = false;
  __atomic_add_fetch(&c->store->life->arrivals, 1, __ATOMIC_RELAXED);
  note_back(c->store);
}

tm_status tm__redis_ready(tm_store_conn *c, tm_error *err) {
  if (c->redis != NULL && (c->awaited > 0 || is_left_behind(c) || is_stale(c))) tm__redis_drop(c);
  begin(c);
  if (c->redis != NULL) return TM_OK;
  tm_error why;
  if (!is_due(c)) {
    if (err != NULL) *err = c->why;
    return c->why.status;
  }
  c->arrivals = __atomic_load_n(&c->store->life->arrivals, __ATOMIC_RELAXED);
  c->moves = __atomic_load_n(&c->store->life->moves, __ATOMIC_RELAXED);
  tm_status status = connect_now(c, &why);
  begin(c);
  if (status == TM_OK) {
    note_arrival(c);
    return TM_OK;
  }
  tm__redis_drop(c);
  put_off(c, &why);
  note_away(c->store, &why);
  if (err != NULL) *err = why;
  return status;
}

tm_status tm__redis_connect(tm_store_conn **out, tm_store *s, tm_store_role role, tm_error *err) {
  *out = NULL;
  (void)role; /* Redis knows no difference */
  tm_store_conn *c = calloc(1, sizeof(*c));
  if (c == NULL) return tm__fail_memory(err, "a connection of the store");
  c->store = s;
  c->patience_ms = s->timeout_ms;
  tm_status status = tm__redis_ready(c, err);
  if (status == TM_OK)
    *out = c;
  else
    tm__redis_disconnect(c);
  return status;
}

void tm__redis_disconnect(tm_store_conn *c) {
  if (c == NULL) return;
  tm__redis_drop(c);
  tm__buf_free(&c->out);
  tm__buf_free(&c->parted);
  free(c->known);
  free(c);
}
