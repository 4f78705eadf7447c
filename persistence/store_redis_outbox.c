/* store_redis_outbox.c - events to be delivered: a hash in the slot of their conversation, which
 * its commits write. Who has events, and when one of them is due, are hints in slots of their own,
 * as those of heads are: store_redis_hint.c. A time is a hint that is never later than what it
 * stands for, but while somebody takes what is due. */
#include <stdio.h>
#include <stdlib.h>

#include "persistence/outgoing.h"
#include "persistence/store_redis.h"

#define PAGE   32
#define ROUNDS 1000 /* hints in a row that may be lies; the next call goes on */
#define HEADER 200

/* ---- one event ---- */

const char *tm__redis_event_field(char out[32], int64_t revision, int index) {
  (void)snprintf(out, 32, "%016llx.%08x", (unsigned long long)revision, (unsigned)index);
  return out;
}

bool tm__redis_is_event(tm_slice text) {
  return text.len == TM_REDIS_EVENT_FIELD && strspn(text.ptr, "0123456789abcdef") == 16 &&
         text.ptr[16] == '.' && strspn(text.ptr + 17, "0123456789abcdef") == 8;
}

static void add_value(tm_store_conn *c, const tm_outgoing *e) {
  char header[HEADER + sizeof(e->note) + sizeof(e->tenant)];
  int n = snprintf(header, sizeof(header), "0 %lld %d %zu %lld %lu %zu\n%s%s",
                   (long long)e->dead_at, e->attempts, strlen(e->note), (long long)e->created,
                   (unsigned long)e->flags, strlen(e->tenant), e->note, e->tenant);
  tm__redis_arg_two(c, (tm_slice){header, (size_t)n}, e->body);
}

/* "due dead attempts length-of-note created flags length-of-tenant", a line, note, tenant, body. */
static bool read_value(tm_slice value, tm_outgoing *e) {
  char header[HEADER];
  long long due = 0, dead = 0, created = 0;
  unsigned long flags = 0;
  size_t note = 0, tenant = 0;
  const char *end = value.len > 0 ? memchr(value.ptr, '\n', value.len) : NULL;
  if (end == NULL ||
      !tm__copy(header, sizeof(header), (tm_slice){value.ptr, (size_t)(end - value.ptr)}))
    return false;
  int count = sscanf(header, "%lld %lld %d %zu %lld %lu %zu", &due, &dead, &e->attempts, &note,
                     &created, &flags, &tenant);
  e->due_at = due;
  e->dead_at = dead;
  e->created = created;
  e->flags = (uint32_t)flags;
  size_t left = value.len - (size_t)(end + 1 - value.ptr);
  if (count != 7 || note > left) return false;
  tm_slice name = {end + 1 + note, tenant <= left - note ? tenant : 0};
  e->body = (tm_slice){name.ptr + name.len, left - note - name.len};
  return tm__outgoing_texts(e, tm__slice(e->conversation), name, (tm_slice){end + 1, note});
}

tm_status tm__redis_decode_event(const tm_store *s, tm_slice id, tm_slice field, tm_slice value,
                                 tm_outgoing *e, tm_error *err) {
  unsigned long long revision = 0;
  unsigned index = 0;
  *e = (tm_outgoing){.revision = 0};
  bool key = tm__copy(e->conversation, sizeof(e->conversation), id) && tm__redis_is_event(field) &&
             sscanf(field.ptr, "%16llx.%8x", &revision, &index) == 2;
  if (!key) return tm__redis_damaged(s, "an event", err);
  e->revision = (int64_t)revision;
  e->index = (int)index;
  if (!read_value(value, e)) {
    e->tenant[0] = e->note[0] = '\0';
    e->body = value;
  }
  return TM_OK;
}

/* ---- with a commit ---- */

size_t tm__redis_event_args(const tm_commit *item) {
  return 2 * item->event_count;
}

void tm__redis_add_events(tm_store_conn *c, const tm_commit *item) {
  char field[32];
  tm_outgoing e;
  int64_t at = item->event_count > 0 ? item->events[0].created : 0;
  tm__redis_int(c, at > 0 ? at : 1);
  tm__redis_int(c, (int64_t)tm__redis_event_args(item));
  for (size_t i = 0; i < item->event_count; i++) {
    tm__outgoing_of(&e, item, i);
    tm__redis_text(c, tm__redis_event_field(field, e.revision, e.index));
    add_value(c, &e);
  }
}

/* ---- hints ---- */

static void add_named(tm_store_conn *c, const char *command, size_t args, bool times) {
  tm_redis_key k;
  tm__redis_key(&k, c->store, times ? "outbox" : "outbox:ids");
  tm__redis_command(c, command, 1 + args);
  tm__redis_key_arg(c, &k);
}

static void add_id(tm_store_conn *c, const char *id) {
  add_named(c, "ZADD", 2, false);
  tm__redis_text(c, "0");
  tm__redis_text(c, id);
}

size_t tm__redis_hint_events(tm_store_conn *c, const char *id, int64_t at) {
  add_id(c, id);
  add_named(c, "ZADD", 3, true);
  tm__redis_text(c, "LT");
  tm__redis_int(c, at > 0 ? at : 1);
  tm__redis_text(c, id);
  return 2;
}

static void add_part(tm_store_conn *c, const char *id, bool times) {
  add_named(c, "ZREM", 1, times);
  tm__redis_text(c, id);
}

void tm__redis_part_events(tm_store_conn *c, const char *id) {
  add_part(c, id, true);
  add_part(c, id, false);
}

typedef struct standing { /* of a conversation's events */
  int64_t due, count;
} standing;

static bool read_standing(const redisReply *r, standing *out) {
  if (tm__redis_item(r, 1) == NULL) return false;
  *out = (standing){tm__redis_number(tm__redis_slice(tm__redis_item(r, 0))),
                    tm__redis_number(tm__redis_slice(tm__redis_item(r, 1)))};
  return true;
}

static void run_on_events(tm_store_conn *c, tm_redis_script which, const char *id, size_t args) {
  tm_redis_key k;
  tm__redis_run(c, which, 1, args);
  tm__redis_events_key(&k, c->store, tm__slice(id));
  tm__redis_key_arg(c, &k);
}

static tm_status look(tm_store_conn *c, const char *id, standing *out, tm_error *err) {
  redisReply *reply;
  tm_status status = tm__redis_ready(c, err);
  if (status != TM_OK) return status;
  run_on_events(c, TM_REDIS_LOOK_EVENTS, id, 0);
  status = tm__redis_ask(c, &reply, err);
  if (status != TM_OK) return status;
  if (!read_standing(reply, out)) status = tm__redis_damaged(c->store, "an event", err);
  freeReplyObject(reply);
  return status;
}

static tm_status say(tm_store_conn *c, const char *id, const standing *s, tm_error *err) {
  tm_status status = tm__redis_ready(c, err);
  if (status != TM_OK) return status;
  if (s->count > 0)
    add_id(c, id);
  else
    add_part(c, id, false);
  if (s->due > 0) {
    add_named(c, "ZADD", 2, true);
    tm__redis_int(c, s->due);
    tm__redis_text(c, id);
  } else {
    add_part(c, id, true);
  }
  status = tm__redis_flush(c, err);
  return status == TM_OK ? tm__redis_skip(c, c->awaited, err) : status;
}

/* Says what stands, then looks again: what somebody else changed meanwhile he may have said before.
 */
static tm_status mend(tm_store_conn *c, const char *id, standing s, tm_error *err) {
  standing then = {0, 0};
  for (int i = 0; i < ROUNDS; i++) {
    tm_status status = say(c, id, &s, err);
    if (status == TM_OK) status = look(c, id, &then, err);
    if (status != TM_OK || (then.due == s.due && (then.count > 0) == (s.count > 0))) return status;
    s = then;
  }
  return TM_OK;
}

tm_status tm__redis_mend_events(tm_store_conn *c, const char *id, tm_error *err) {
  standing s = {0, 0};
  tm_status status = look(c, id, &s, err);
  return status == TM_OK ? mend(c, id, s, err) : status;
}

/* Whose events have a time; who has none has nothing that waits. */
static tm_status ask_times(tm_store_conn *c, const tm_head *heads, size_t count, bool *out,
                           tm_error *err) {
  tm_status status = tm__redis_ready(c, err);
  for (size_t i = 0; status == TM_OK && i < count; i++) {
    add_named(c, "ZSCORE", 1, true);
    tm__redis_text(c, heads[i].id);
  }
  if (status == TM_OK) status = tm__redis_flush(c, err);
  for (size_t i = 0; status == TM_OK && i < count; i++) {
    redisReply *reply;
    status = tm__redis_take(c, &reply, err);
    if (status == TM_OK) out[i] = reply->type != REDIS_REPLY_NIL;
    freeReplyObject(reply);
  }
  return status;
}

tm_status tm__redis_events_wait(tm_store_conn *c, const tm_head *heads, size_t count, bool *out,
                                tm_error *err) {
  standing s = {0, 0};
  tm_status status = count > 0 ? ask_times(c, heads, count, out, err) : TM_OK;
  for (size_t i = 0; status == TM_OK && i < count; i++) {
    if (!out[i]) continue;
    status = look(c, heads[i].id, &s, err);
    out[i] = status == TM_ECORRUPT || (status == TM_OK && s.due > 0);
    if (status == TM_ECORRUPT) status = TM_OK; /* nobody can tell: it stays */
  }
  return status;
}

/* ---- taking ---- */

/* Of what can be no conversation; its time would be the first for ever. */
static tm_status drop_hint(tm_store_conn *c, tm_slice id, tm_error *err) {
  tm_status status = tm__redis_ready(c, err);
  if (status != TM_OK) return status;
  add_named(c, "ZREM", 1, true);
  tm__redis_arg(c, id);
  return tm__redis_tell(c, err);
}

static tm_status take_hints(tm_store_conn *c, int64_t now, int64_t until, size_t limit,
                            redisReply **out, tm_error *err) {
  tm_redis_key k;
  tm_status status = tm__redis_ready(c, err);
  *out = NULL;
  if (status != TM_OK) return status;
  tm__redis_key(&k, c->store, "outbox");
  tm__redis_run(c, TM_REDIS_TAKE, 1, 4);
  tm__redis_key_arg(c, &k);
  tm__redis_int(c, now);
  tm__redis_int(c, 0);
  tm__redis_int(c, (int64_t)limit);
  tm__redis_int(c, until);
  return tm__redis_ask(c, out, err);
}

static tm_status take_one(tm_store_conn *c, tm_slice id, int64_t now, int64_t until,
                          tm_outgoing_batch *b, tm_error *err) {
  redisReply *reply;
  standing s = {0, 0};
  tm_outgoing event;
  char name[TM_ID_SIZE];
  if (!tm__name_fits(id, sizeof(name) - 1)) return drop_hint(c, id, err);
  (void)tm__copy(name, sizeof(name), id);
  tm_status status = tm__redis_ready(c, err);
  if (status != TM_OK) return status;
  run_on_events(c, TM_REDIS_TAKE_EVENT, name, 2);
  tm__redis_int(c, now);
  tm__redis_int(c, until);
  status = tm__redis_ask(c, &reply, err);
  if (status != TM_OK) return status;
  bool taken = tm__redis_item(reply, 3) != NULL;
  if (!read_standing(reply, &s)) {
    status = tm__redis_damaged(c->store, "an event", err);
  } else if (taken) {
    status = tm__redis_decode_event(c->store, id, tm__redis_slice(tm__redis_item(reply, 2)),
                                    tm__redis_slice(tm__redis_item(reply, 3)), &event, err);
    if (status == TM_OK) status = tm__outgoing_add(b, &event, err);
  }
  freeReplyObject(reply);
  return status == TM_OK && !taken ? mend(c, name, s, err) : status;
}

/* One that has not even a key stops nobody else. */
static tm_status take_from(tm_store_conn *c, tm_slice id, int64_t now, int64_t until,
                           tm_outgoing_batch *b, tm_error *err) {
  tm_status status = take_one(c, id, now, until, b, err);
  return status == TM_ECORRUPT ? TM_OK : status;
}

static tm_status take_page(tm_store_conn *c, int64_t now, int64_t until, size_t limit,
                           tm_outgoing_batch *b, size_t *seen, tm_error *err) {
  redisReply *hints;
  tm_status status = take_hints(c, now, until, limit < PAGE ? limit : PAGE, &hints, err);
  *seen = 0;
  if (status != TM_OK) return status;
  for (; status == TM_OK && *seen < hints->elements / 2; ++*seen)
    status = take_from(c, tm__redis_slice(hints->element[2 * *seen]), now, until, b, err);
  freeReplyObject(hints);
  return status;
}

/* What fails in the middle keeps what it has taken: its lease ends. */
tm_status tm__redis_outbox_take(tm_store_conn *c, int64_t now, int64_t until, size_t limit,
                                tm_outgoing_fn fn, void *ud, tm_error *err) {
  tm_outgoing_batch b = {0};
  size_t seen = 1;
  tm_status status = TM_OK;
  for (int i = 0; status == TM_OK && seen > 0 && b.count < limit && i < ROUNDS; i++)
    status = take_page(c, now, until, limit - b.count, &b, &seen, err);
  if (status == TM_OK) status = tm__outgoing_give(&b, fn, ud);
  tm__outgoing_free(&b);
  return status;
}

/* The hint behind `from` others; *at 0: there is none. */
static tm_status hint_at(tm_store_conn *c, int64_t from, tm_buf *id, int64_t *at, tm_error *err) {
  redisReply *reply;
  *at = 0;
  tm_status status = tm__redis_ready(c, err);
  if (status != TM_OK) return status;
  add_named(c, "ZRANGE", 3, true);
  tm__redis_int(c, from);
  tm__redis_int(c, from);
  tm__redis_text(c, "WITHSCORES");
  status = tm__redis_ask(c, &reply, err);
  if (status != TM_OK) return status;
  tm__buf_clear(id);
  if (reply->elements == 2) {
    tm__buf_slice(id, tm__redis_slice(reply->element[0]));
    *at = (int64_t)strtod(reply->element[1]->str, NULL);
  }
  freeReplyObject(reply);
  return tm__buf_ok(id) ? TM_OK : tm__fail_memory(err, "an event");
}

/* *right: it says when one is due. *from: what is to be passed over, since it cannot be read. */
static tm_status check_hint(tm_store_conn *c, tm_slice id, int64_t at, int64_t *from, bool *right,
                            tm_error *err) {
  char name[TM_ID_SIZE];
  standing s = {0, 0};
  tm_error why;
  if (!tm__name_fits(id, sizeof(name) - 1)) return drop_hint(c, id, err);
  (void)tm__copy(name, sizeof(name), id);
  tm_status status = look(c, name, &s, &why);
  *right = status == TM_OK && s.due == at;
  if (status == TM_OK) return *right ? TM_OK : mend(c, name, s, err);
  if (status == TM_ECORRUPT) {
    ++*from;
    return TM_OK;
  }
  if (err != NULL) *err = why;
  return status;
}

tm_status tm__redis_outbox_next(tm_store_conn *c, int64_t *out, tm_error *err) {
  tm_buf id = {0};
  bool right = false;
  int64_t from = 0, at = 0;
  tm_status status = TM_OK;
  for (int i = 0; status == TM_OK && !right && i < ROUNDS; i++) {
    status = hint_at(c, from, &id, &at, err);
    if (status != TM_OK || at == 0) break;
    status = check_hint(c, tm__buf_view(&id), at, &from, &right, err);
  }
  tm__buf_free(&id);
  *out = status == TM_OK ? at : 0;
  return status;
}

/* ---- changing one ---- */

/* Takes the answer of what was added, and says what stands then. */
static tm_status finish(tm_store_conn *c, const tm_outgoing *event, tm_error *err) {
  redisReply *reply;
  standing s = {0, 0};
  tm_status status = tm__redis_ask(c, &reply, err);
  if (status != TM_OK) return status;
  bool mine = read_standing(reply, &s);
  freeReplyObject(reply);
  return mine ? mend(c, event->conversation, s, err) : tm__outgoing_conflict(event, err);
}

tm_status tm__redis_outbox_settle(tm_store_conn *c, const tm_outgoing *event, tm_outcome outcome,
                                  int64_t at, tm_error *err) {
  char field[32];
  tm_status status = tm__redis_ready(c, err);
  if (status != TM_OK) return status;
  run_on_events(c, TM_REDIS_SETTLE_EVENT, event->conversation, 6);
  tm__redis_text(c, tm__redis_event_field(field, event->revision, event->index));
  tm__redis_int(c, event->attempts);
  tm__redis_int(c, (int64_t)outcome);
  tm__redis_int(c, at > 0 ? at : 1);
  tm__redis_text(c, event->note);
  tm__redis_int(c, event->dead_at);
  return finish(c, event, err);
}

tm_status tm__redis_outbox_put(tm_store_conn *c, const tm_outgoing *event, tm_error *err) {
  char field[32];
  tm_redis_key k;
  int64_t at = event->due_at > 0 ? event->due_at : event->created;
  tm_status status = tm__outgoing_check(event, c->store->row_max, err);
  if (status == TM_OK) status = tm__redis_ready(c, err);
  if (status != TM_OK) return status;
  tm__redis_run(c, TM_REDIS_PUT_EVENT, 2, 3);
  tm__redis_head_key(&k, c->store, tm__slice(event->conversation));
  tm__redis_key_arg(c, &k);
  tm__redis_events_key(&k, c->store, tm__slice(event->conversation));
  tm__redis_key_arg(c, &k);
  tm__redis_text(c, tm__redis_event_field(field, event->revision, event->index));
  add_value(c, event);
  tm__redis_int(c, at > 0 ? at : 1);
  return finish(c, event, err);
}

tm_status tm__redis_outbox_rewrite(tm_store_conn *c, const tm_outgoing *event, tm_error *err) {
  char field[32];
  tm_status status = tm__outgoing_check(event, c->store->row_max, err);
  if (status == TM_OK) status = tm__redis_ready(c, err);
  if (status != TM_OK) return status;
  run_on_events(c, TM_REDIS_REWRITE_EVENT, event->conversation, 3);
  tm__redis_text(c, tm__redis_event_field(field, event->revision, event->index));
  tm__redis_int(c, event->flags);
  tm__redis_arg(c, event->body);
  return tm__redis_tell(c, err);
}
