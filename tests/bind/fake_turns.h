/* fake_turns.h - a journal, a timer wheel and an HTTP client that do what a test says, in place of
 * the real ones: nothing here takes time or needs a thread.
 */
#ifndef TESTS_BIND_FAKE_TURNS_H
#define TESTS_BIND_FAKE_TURNS_H

#include "tests/bind/fixture.h"

struct tm_turn {
  tm_turn_view view;
  tm_head head;
  char *input;  /* owned */
  char end[16]; /* "commit", "suspend", "fail", or "" */
  tm_draft draft;
  tm_buf text; /* everything the draft holds, for comparing */
  tm_error error;
  char call_key[64];
  bool answer_at_once; /* begin and call answer before they return */
  const tm_error *answer;
  tm_turn_done_fn done; /* what begin or call is to call */
  void *done_ud;
  void (*on_end)(struct tm_turn *t); /* what the journal does next */
};

/* ---- what the fakes remember ---- */
static struct {
  tm_timer_fn fn;
  void *ud;
  uint64_t id, ms, cancelled;
} timers[64];
static uint64_t timer_count;
static struct {
  tm_http_done_fn fn;
  bool (*room)(void *ud, size_t bytes);
  tm_slice body;
  void *ud;
  char request[512];
  uint64_t cancelled;
  bool refuse;
} http;

static inline void fake_draft(tm_turn *t, const tm_draft *d) {
  t->draft = *d;
  tm__buf_clear(&t->text);
  const tm_slice parts[] = {d->step,    d->steps,  d->messages, d->state,
                            d->runtime, d->prompt, d->error};
  for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
    tm__buf_slice(&t->text, parts[i]);
    tm__buf_byte(&t->text, '|');
  }
}

static inline void fake_end(tm_turn *t, const char *how) {
  if (t->end[0] != '\0') fail_msg("the turn ended twice: %s, %s", t->end, how);
  (void)snprintf(t->end, sizeof(t->end), "%s", how);
  if (t->on_end != NULL) t->on_end(t);
}

static inline void fake_wait(tm_turn *t, tm_turn_done_fn fn, void *ud) {
  t->done = fn;
  t->done_ud = ud;
  if (t->answer_at_once) fn(ud, t->answer);
}

void tm__turn_begin(tm_turn *t, const tm_draft *draft, tm_turn_done_fn fn, void *ud) {
  fake_draft(t, draft);
  fake_wait(t, fn, ud);
}

void tm__turn_call(tm_turn *t, tm_slice key, tm_slice result, tm_turn_done_fn fn, void *ud) {
  (void)tm__copy(t->call_key, sizeof(t->call_key), key);
  tm__buf_clear(&t->text);
  tm__buf_slice(&t->text, result);
  fake_wait(t, fn, ud);
}

static struct { /* the transcript that was asked for last */
  tm_messages_fn fn;
  void *ud;
  char cursor[32];
  bool cancelled;
} messages;

tm_messages_read *tm__turn_messages(const tm_turn *t, tm_slice cursor, tm_messages_fn fn, void *ud,
                                    tm_error *err) {
  (void)t;
  if (tm__slice_is(cursor, "refuse")) {
    (void)tm__fail(err, TM_EUNAVAILABLE, "store.full", "no room");
    return NULL;
  }
  messages.fn = fn;
  messages.ud = ud;
  messages.cancelled = false;
  (void)tm__copy(messages.cursor, sizeof(messages.cursor), cursor);
  return (tm_messages_read *)(void *)&messages;
}

void tm__messages_cancel(tm_messages_read *r) {
  (void)r;
  messages.cancelled = true;
}

void tm__turn_commit(tm_turn *t, const tm_draft *draft) {
  fake_draft(t, draft);
  fake_end(t, "commit");
}

void tm__turn_suspend(tm_turn *t, const tm_draft *draft) {
  fake_draft(t, draft);
  fake_end(t, "suspend");
}

void tm__turn_undone(tm_turn *t, const tm_draft *draft, const tm_error *why) {
  fake_draft(t, draft);
  if (why != NULL) t->error = *why;
  fake_end(t, why != NULL ? "undone, failed" : "undone");
}

void tm__turn_rollback(tm_turn *t, int steps) {
  (void)snprintf(t->call_key, sizeof(t->call_key), "%d", steps);
  fake_end(t, "rollback");
}

void tm__turn_trail(tm_turn *t, tm_slice steps, tm_slice command) {
  (void)command;
  (void)tm__copy(t->call_key, sizeof(t->call_key), steps);
  fake_end(t, "trail");
}

void tm__turn_fail(tm_turn *t, const tm_error *err) {
  t->error = *err;
  fake_end(t, "fail");
}

const tm_turn_view *tm__turn_view(const tm_turn *t) {
  return &t->view;
}

tm_status tm__timer_start(tm_worker *w, uint64_t ms, tm_timer_fn fn, void *ud, uint64_t *id,
                          tm_error *err) {
  (void)w;
  uint64_t i = timer_count % 64;
  if (ms == 77) return tm__fail(err, TM_EUNAVAILABLE, "timer.start", "no timer");
  *id = ++timer_count;
  timers[i].fn = fn;
  timers[i].ud = ud;
  timers[i].id = *id;
  timers[i].ms = ms;
  timers[i].cancelled = 0;
  return TM_OK;
}

bool tm__timer_cancel(tm_worker *w, uint64_t id) {
  (void)w;
  for (size_t i = 0; i < 64; i++)
    if (timers[i].id == id) timers[i].cancelled = id;
  return true;
}

tm_status tm__http_start(tm_http_client *c, const tm_http_call *call, tm_http_done_fn fn, void *ud,
                         uint64_t *id, tm_error *err) {
  (void)c;
  if (http.refuse) return tm__fail(err, TM_EINVAL, "http.invalid", "a bad URL");
  http.fn = fn;
  http.room = call->room;
  http.body = call->body;
  http.ud = ud;
  *id = 5;
  int n = snprintf(http.request, sizeof(http.request), "%s %s %.*s %lld %zu", call->method,
                   call->url, (int)call->body.len, call->body.ptr != NULL ? call->body.ptr : "",
                   (long long)call->timeout_ms, call->max_response);
  for (size_t i = 0; call->headers != NULL && call->headers[i] != NULL; i++)
    n += snprintf(http.request + n, sizeof(http.request) - (size_t)n, "|%s", call->headers[i]);
  return TM_OK;
}

bool tm__http_cancel(tm_http_client *c, uint64_t id) {
  (void)c;
  http.cancelled = id;
  return true;
}

static bool beside_waits;               /* what is to run on another thread is kept in `beside` */
static tm_beside *beside, *besides[16]; /* the oldest, and what came after it */
static size_t beside_count;             /* of the latter */

static inline void finish_beside(void) {
  tm_beside *b = beside;
  beside = beside_count > 0 ? besides[0] : NULL;
  if (beside_count > 0) memmove(besides, besides + 1, --beside_count * sizeof(besides[0]));
  b->work(b);
  b->done(b);
}

void tm__worker_beside(tm_worker *w, tm_beside *b) {
  (void)w;
  if (beside != NULL && beside_count == 16) abort();
  if (beside != NULL)
    besides[beside_count++] = b;
  else
    beside = b;
  if (!beside_waits) finish_beside();
}

/* ---- making turns ---- */
static inline tm_bundle *fake_bundle(const char *version, const char *init) {
  tm_buf task = {0}, sources = {0};
  if (tm__folder_read(SCRIPTS, TM_S("task.lua"), &task, NULL) != TM_OK) return NULL;
  tm__buf_text(&sources, "{\"files\":{\"init.lua\":");
  tm__json_string(&sources, tm__slice(init));
  tm__json_member(&sources, "task.lua", tm__buf_view(&task));
  tm__buf_text(&sources, "},\"root\":\"scripts/test\"}");
  tm_bundle *b =
      tm__bundle_new(TM_S("test"), tm__slice(version), tm__buf_view(&sources), TM_S("{}"));
  tm__buf_free(&task);
  tm__buf_free(&sources);
  return b;
}

/* A turn whose code is `code`, as the fixture's runtime wants it. */
static inline tm_turn *fake_turn(tm_bundle *b, const char *code) {
  static uint64_t last_id;
  tm_turn *t = calloc(1, sizeof(*t));
  if (t == NULL) abort();
  tm_buf input = {0};
  tm__json_string(&input, tm__slice(code));
  (void)snprintf(t->head.id, sizeof(t->head.id), "conversation-%d", (int)++last_id);
  (void)snprintf(t->head.tenant, sizeof(t->head.tenant), "default");
  (void)snprintf(t->head.system, sizeof(t->head.system), "test");
  t->head.revision = 7;
  t->head.created = 1000;
  t->view = (tm_turn_view){.id = last_id,
                           .kind = TM_TURN_MESSAGE,
                           .began_as = TM_TURN_MESSAGE,
                           .head = &t->head,
                           .state = TM_S("{\"list\":[],\"n\":1}"),
                           .runtime = TM_S("{}"),
                           .calls = TM_S("{}"),
                           .bundle = b,
                           .now = 2000};
  t->view.input.len = input.len;
  t->view.input.ptr = t->input = tm__buf_take(&input);
  return t;
}

static inline void free_turn(tm_turn *t) {
  free(t->input);
  tm__buf_free(&t->text);
  free(t);
}

#endif
