/* together.c - messages of the user that come while another one is unfinished: what the system's
 * `concurrency` says happens to them. Repeats of a request with an Idempotency-Key are none. What
 * comes from somebody else (approvals, events, what an operator does) waits in the queue always. */
#include <string.h>

#include "core/json.h"
#include "journal/slot.h"

#define RETRY_MS   1000
#define JOINED_MAX ((size_t)1 << 20) /* bytes of messages that become one */

bool tm__concurrency_parse(tm_concurrency *out, tm_slice name) {
  static const char *const names[] = {[TM_CONCURRENCY_QUEUE] = "queue",
                                      [TM_CONCURRENCY_REJECT] = "reject",
                                      [TM_CONCURRENCY_MERGE] = "merge",
                                      [TM_CONCURRENCY_INTERRUPT] = "interrupt"};
  for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
    if (!tm__slice_is(name, names[i])) continue;
    *out = (tm_concurrency)i;
    return true;
  }
  return false;
}

void tm__together_learn(tm_slot *s) {
  tm_slice own = tm__json_get(tm__buf_view(&s->record.runtime), "concurrency");
  memcpy(s->tenant, s->record.head.tenant, sizeof(s->tenant));
  s->concurrency = s->journal->o.concurrency;
  if (own.len > 2)
    (void)tm__concurrency_parse(&s->concurrency, (tm_slice){own.ptr + 1, own.len - 2});
}

/* ---- who is who ---- */

static bool is_said(const tm_slot *s, const tm_request *r) {
  bool by_user = r->kind == TM_REQUEST_MESSAGE ||
                 (r->kind == TM_REQUEST_SIGNAL && r->signal == TM_TURN_COMMAND);
  return by_user && strcmp(r->tenant, s->tenant) == 0;
}

static bool was_said(tm_turn_kind began_as) {
  return began_as == TM_TURN_MESSAGE || began_as == TM_TURN_COMMAND;
}

static bool has_key(const tm_request *r, uint64_t key) {
  while (r != NULL && r->key != key)
    r = r->joined;
  return r != NULL;
}

/* Has the same key been seen in the record, or does a request with it run or wait before? */
static bool is_repeat(const tm_slot *s, const tm_request *r) {
  if (r->key == 0) return false;
  const tm_head *h = &s->record.head;
  for (size_t i = 0; i < TM_RECENT_KEYS; i++)
    if (h->recent[i].key == r->key) return true;
  if (tm__keys_find(s->turn != NULL ? &s->turn->keys : &s->record.keys, r->key) != NULL)
    return true;
  const tm_request *other = s->first;
  while (other != NULL && other != r && !has_key(other, r->key))
    other = other->queue;
  return other != NULL && other != r;
}

/* A message that is not parked for a turn that has begun already. */
static bool is_new(const tm_slot *s, const tm_request *r) {
  return is_said(s, r) && r->floor == 0 && !is_repeat(s, r);
}

/* ---- reject ---- */

static void set_busy(const tm_slot *s, tm_error *err) {
  (void)tm__fail(err, TM_ECONFLICT, "conversation.busy",
                 "another message to conversation %s is not answered yet; wait for its answer",
                 s->id);
  err->retry_after_ms = RETRY_MS;
}

/* While the record is read nobody can tell whether somebody with a key was answered before; when
 * the turn begins that is known. */
static bool may_be_repeat(const tm_slot *s, const tm_request *r) {
  return r->key != 0 && s->turn == NULL && !s->record.loaded;
}

static void refuse_others(tm_slot *s) {
  bool busy = s->turn != NULL &&
              (was_said(s->turn->view.began_as) || s->turn->view.began_as == TM_TURN_START);
  tm_request *before = NULL;
  for (tm_request *r = s->first; r != NULL;) {
    tm_request *next = r->queue;
    if (busy && is_new(s, r) && !may_be_repeat(s, r)) {
      tm_error err;
      set_busy(s, &err);
      tm__request_fail(tm__slot_take_behind(s, before), &err);
    } else {
      busy = busy || is_said(s, r);
      before = r;
    }
    r = next;
  }
}

void tm__together_refuse(tm_slot *s) {
  tm_error err;
  set_busy(s, &err);
  tm__slot_fail(s, &err);
}

bool tm__together_wants_newest(const tm_slot *s, const tm_request *r) {
  return s->concurrency == TM_CONCURRENCY_REJECT && is_said(s, r);
}

bool tm__together_was_overtaken(const tm_slot *s, const tm_request *r) {
  bool moved = r->ran_on != 0 && r->ran_on != s->record.head.tip;
  return moved && s->fresh && tm__together_wants_newest(s, r);
}

bool tm__together_is_busy(const tm_slot *s, const tm_request *r) {
  const tm_record *rec = &s->record;
  bool other = was_said(rec->began_as) || rec->began_as == TM_TURN_START;
  return other && tm__together_wants_newest(s, r) && is_new(s, r);
}

/* ---- interrupt ---- */

/* What a correction has undone stays so. */
static bool is_correction(const tm_slot *s) {
  const tm_turn *t = s->turn;
  tm_turn_kind began_as = t != NULL ? t->view.began_as : s->record.began_as;
  tm_slice input = t != NULL ? t->view.input : tm__buf_view(&s->record.input);
  return began_as == TM_TURN_COMMAND && tm__json_get(input, "trail").ptr != NULL;
}

bool tm__together_holds(const tm_slot *s) {
  return tm__is_failing(&s->record) || is_correction(s);
}

bool tm__together_interrupts(const tm_slot *s) {
  if (s->concurrency != TM_CONCURRENCY_INTERRUPT || tm__together_holds(s)) return false;
  if (s->turn == NULL && s->record.loaded && !was_said(s->record.began_as)) return false;
  tm_request *r = s->first;
  while (r != NULL && !is_new(s, r))
    r = r->queue;
  return r != NULL && tm__quota_lets(s, r);
}

void tm__together_look(tm_slot *s) {
  tm_turn *t = s->turn;
  if (s->concurrency == TM_CONCURRENCY_REJECT) {
    refuse_others(s);
  } else if (t != NULL && was_said(t->view.began_as) && !t->ended && tm__together_interrupts(s)) {
    t->interrupted = true;
  }
}

void tm__together_heed(tm_slot *s) {
  tm__together_look(s);
  if (s->phase == TM_SLOT_WAITING) tm__slot_wait_end(s);
  tm__slot_go(s);
}

/* ---- merge ---- */

static bool is_text(const tm_request *r) {
  return r->input_json[0] == '"';
}

/* May `r` be joined to `first`, whose message has `size` bytes by now? */
static bool can_join(const tm_slot *s, const tm_turn *t, const tm_request *first, size_t size,
                     const tm_request *r) {
  if (r->kind != TM_REQUEST_MESSAGE || !is_new(s, r)) return false; /* others have no input */
  bool room = t->keys.count < TM_RECENT_KEYS && size + strlen(r->input_json) <= JOINED_MAX;
  return room && is_text(r) == is_text(first);
}

static void join_texts(tm_buf *out, const tm_request *first) {
  tm__buf_byte(out, '"');
  for (const tm_request *r = first; r != NULL; r = r->joined) {
    if (r != first) tm__buf_text(out, "\\n");
    tm__buf_add(out, r->input_json + 1, strlen(r->input_json) - 2);
  }
  tm__buf_byte(out, '"');
}

/* Of a member that several have the last one counts. */
static void join_objects(tm_buf *out, const tm_request *first) {
  json_t *all = NULL;
  for (const tm_request *r = first; r != NULL; r = r->joined) {
    json_t *one = NULL;
    tm_error err;
    bool ok = tm__json_parse(&one, tm__slice(r->input_json), TM_JSON_DEPTH, &err) == TM_OK;
    if (all == NULL) all = json_incref(one);
    ok = ok && json_object_update(all, one) == 0;
    json_decref(one);
    out->failed = out->failed || !ok;
  }
  if (!out->failed) tm__json_value(out, all);
  json_decref(all);
}

static void part_all(tm_slot *s, tm_turn *t) {
  tm__together_part(s, t->request);
  t->keys.count = t->request->key != 0;
  tm__buf_free(&t->input);
}

void tm__together_join(tm_slot *s, tm_turn *t) {
  tm_request *first = t->request, *last = first;
  if (s->concurrency != TM_CONCURRENCY_MERGE) return;
  size_t size = strlen(first->input_json);
  for (; last->joined != NULL; last = last->joined) /* it ran before */
    size += strlen(last->joined->input_json);
  while (s->first != NULL && can_join(s, t, first, size, s->first)) {
    last->joined = tm__slot_pop(s);
    last = last->joined;
    size += strlen(last->input_json);
    (void)tm__keys_add(&t->keys, last->key, last->body);
  }
  if (last == first) return;
  if (is_text(first)) {
    join_texts(&t->input, first);
  } else {
    join_objects(&t->input, first);
  }
  if (!tm__buf_ok(&t->input)) part_all(s, t);
  if (t->input.ptr != NULL) t->view.input = tm__buf_view(&t->input);
}

void tm__together_part(tm_slot *s, tm_request *r) {
  tm_request *joined = r->joined, *last = joined;
  r->joined = NULL;
  if (joined == NULL) return;
  for (s->waiting++; last->joined != NULL; s->waiting++) {
    last->queue = last->joined;
    last->joined = NULL;
    last = last->queue;
  }
  last->queue = s->first;
  s->first = joined;
  if (s->last == NULL) s->last = last;
}
