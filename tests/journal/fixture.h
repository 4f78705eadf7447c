/* fixture.h - a store, up to two hosts (a worker and a journal each) that share it, a clock that
 * the test turns, and an executor in C whose turns do what their input says:
 *
 *   finish, sleep, expire   end in that status            deadline   waits, for 1000 ms at most
 *   approval, event, pause  wait so, for 1000 ms at most
 *   fail, broken            fail as invalid, as script    suspend    goes on in retry_ms, then
 * waits call, call2             record one or two calls       checkpoint marks its row, as what
 * stands behind # hold stops
 * before anything; the test goes on with release() hold_begun              records a call, then
 * stops again                   shows the same prompt again
 * paid, loose                   record a call; paid has an undo, loose says that it may stay
 * fixed                         says that it cannot be taken back
 * back                          asks for a rollback over one prompt
 * correct, rather               asks for a trail: a command; a message that is to be one
 * answer                        is the answer that a step of the user's is completed with
 * decide                        is what an approval has come to
 * correct                       asks for what was done since step2 was answered, then waits
 * anything else                 waits for the next answer
 *
 * A rollback that has an undo to run does what on_undo says: undone, undo_call (a call, held until
 * the test goes on), undo_later (suspends once), undo_fail.
 *
 * A turn that somebody takes sleeps until its retry, or its rollback is given up; with force it
 * does what on_force says.
 *
 * break leaves its conversation failing; the turn then does what on_failing says: failed,
 * failing_call (a call, held until the test goes on), failing_later (undoes step 2 and suspends
 * once), failing_left (leaves step 3 and suspends once).
 *
 * A message is refused by it unless the conversation waits for one; a signal of kind pause pauses.
 */
#ifndef TM_TESTS_JOURNAL_FIXTURE_H
#define TM_TESTS_JOURNAL_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/json.h"
#include "journal/journal.h"
#include "journal/reader.h"
#include "keeping/janitor.h"
#include "keeping/session.h"

#define HOSTS     2
#define LEASE_MS  10000
#define PATIENCE  (UINT64_C(20) * 1000 * 1000 * 1000) /* ns that a test waits for a reply */
#define START_NOW INT64_C(1763800000000)

struct fixture;

typedef struct host {
  struct fixture *fx;
  tm_worker *worker;
  tm_journal *journal;
  tm_scheduler *scheduler;
  tm_rates *rates;
  tm_janitor *janitor; /* ends sessions of tenants with stores of their own; NULL: nobody does */
  char id[TM_ID_SIZE];
} host;

typedef struct run { /* a turn that the executor has */
  host *host;
  tm_turn *turn;
  char what[256];
  int64_t count; /* turns of the conversation, this one included */
  int calls_wanted, calls_made;
  bool held, resumed, cancelled;
  tm_error refused; /* what begin or call answered */
  struct run *next;
} run;

typedef struct answer {
  struct fixture *fx;
  bool here;
  tm_status status;
  char *json; /* NULL when it failed */
  tm_error error;
  struct answer *next;
} answer;

#define FIXTURE_KEY "q83Wm0m2cMyaGZBjyNKsRRjKJvSaTdZ5Zkdkm0W4yqE="

typedef struct fixture {
  char dir[128], file[160], url[256];
  const struct fixture_backend *backend;
  const char *tenant; /* who asks */
  bool isolated;
  tm_store_options options;
  tm_log log;
  int64_t now; /* atomic */
  tm_keyring_options keys;
  tm_codec_options coding; /* `keys` of it is made of the above */
  tm_codec *codec;
  tm_storage *storage;
  tm_registry *registry;
  bool compress, seal; /* what drafts ask for */
  size_t queue_limit, cache_bytes;
  tm_quotas quotas;        /* of journals */
  const char *concurrency; /* that records say; NULL: none */
  tm_concurrency at_once;  /* of journals */
  tm_retention keep;
  const char *on_wake;       /* what turns do that a deadline brings */
  const char *on_undo;       /* likewise a rollback */
  const char *on_force;      /* likewise one that another with force goes on with */
  const char *on_failing;    /* likewise, what goes on failing */
  const char *on_migrate;    /* likewise, a migration */
  const char *on_correct;    /* likewise, a correction; NULL: it waits for the next answer */
  const char *on_refused;    /* what one does that was refused what it asked for; NULL: it fails */
  int rollback;              /* that the flow allows; 0: not said */
  int64_t workflow;          /* when the conversation's time is over, as records say; 0: never */
  const char *usage;         /* of the conversation, as records say; NULL: none */
  bool counts;               /* drafts count executions of steps, as the runtime does */
  bool begins, stays;        /* begin rows say whose they are, as the runtime's do */
  const char *session;       /* of conversations that begin */
  tm_session_rules sessions; /* of their system */
  int64_t lease_ms, retry_ms;
  host hosts[HOSTS];
  uv_mutex_t lock; /* of everything below */
  uv_cond_t changed;
  answer *answers; /* all, to be freed */
  run *runs;       /* those that the executor has or had */
  int turns, outside_calls, cancelled;
  tm_turn_kind last_kind, last_began_as;
  bool last_unsealed;
  bool last_more; /* is last_input but a part of the list of what is to be undone? */
  size_t last_length;
  char last_input[4096], last_calls[256], last_runtime[512], last_version[33];
  tm_error last_refused;
} fixture;

/* ---- where each backend has its store: a line of the table ---- */

#include "tests/persistence/servers.h"
#include "tests/scratch.h"

static inline void place_file(fixture *fx) {
  (void)snprintf(fx->file, sizeof(fx->file), "%s/store.db", fx->dir);
  fx->options.location = fx->file;
}

static inline void place_nowhere(fixture *fx) {
  fx->options.location = "";
}

/* Bodies are plain in some and sealed and compressed in others, so that whatever is tested is
 * tested with both. */
static const struct fixture_backend {
  const char *scheme;
  bool coded;
  int one_in; /* of so many tests one runs on it, all in the long version: a database takes time */
  void (*make)(fixture *fx);   /* sets options.location to an empty store of this test's own */
  void (*remove)(fixture *fx); /* NULL: it lies in the fixture's folder */
} fixture_backends[] = {
    {"sqlite", false, 1, place_file, NULL},
    {"memory", true, 1, place_nowhere, NULL},
    {"file", true, 1, place_file, NULL},
    {"redis", false, 1, place_redis, unplace_redis},
    {"postgres", true, 3, place_postgres, unplace_postgres},
};

enum { FIXTURE_BACKENDS = sizeof(fixture_backends) / sizeof(fixture_backends[0]) };

static inline const struct fixture_backend *fixture_backend_of(const char *scheme) {
  size_t i = 0;
  while (i + 1 < FIXTURE_BACKENDS && strcmp(fixture_backends[i].scheme, scheme) != 0)
    i++;
  assert_string_equal(fixture_backends[i].scheme, scheme); /* not in the table? */
  return &fixture_backends[i];
}

/* The next of the table that this test is for, the first after NULL; NULL: none. */
static inline const struct fixture_backend *fixture_backend_next(const struct fixture_backend *b) {
  static int tests;
  const struct fixture_backend *end = fixture_backends + FIXTURE_BACKENDS;
  int test = b == NULL ? tests++ : tests - 1;
  b = b == NULL ? fixture_backends : b + 1;
  while (b < end && test % b->one_in != 0 && getenv("TIDEMILL_NIGHTLY") == NULL)
    b++;
  return b < end ? b : NULL;
}

/* ---- waiting ---- */

static inline void wait_change(fixture *fx) {
  if (uv_cond_timedwait(&fx->changed, &fx->lock, PATIENCE) != 0) {
    uv_mutex_unlock(&fx->lock);
    fail_msg("nothing happened any more");
  }
}

static inline int64_t fixture_now(void *ud) {
  return __atomic_load_n(&((fixture *)ud)->now, __ATOMIC_SEQ_CST);
}

static inline void turn_clock(fixture *fx, int64_t ms) {
  (void)__atomic_add_fetch(&fx->now, ms, __ATOMIC_SEQ_CST);
}

/* ---- the executor ---- */

static inline void go_on(run *r);

static inline bool does(const char *what, const char *name) {
  size_t len = strcspn(what, "#");
  return len == strlen(name) && strncmp(what, name, len) == 0;
}

static inline void state_of(const run *r, tm_buf *out) {
  tm__buf_byte(out, '{');
  tm__json_member_int(out, "count", r->count);
  tm__json_member_text(out, "last", r->what);
  tm__json_member_text(out, "pad",
                       "a text that stays as it is, so that a delta is smaller than the state");
  char name[8];
  (void)snprintf(name, sizeof(name), "slot%d", (int)(r->count % 5));
  tm__json_member_int(out, name, r->count);
  tm__buf_byte(out, '}');
}

typedef struct paper { /* the texts of a draft */
  tm_buf state, runtime, steps, messages, prompt;
} paper;

static inline bool undoes(const run *r) {
  return r->turn != NULL && tm__turn_view(r->turn)->began_as == TM_TURN_UNDO;
}

static inline void write_counts(const run *r, tm_buf *out, tm_conversation_status status) {
  tm_slice was = tm__turn_view(r->turn)->runtime, restored = tm__json_get(was, "restored");
  int64_t own = tm__json_get_int(was, "step_seq", 0);
  int64_t undone = tm__json_get_int(restored, "step_seq", 0);
  int64_t inherited = tm__json_get_int(was, "inherited", 0);
  tm__json_member_int(out, "inherited", tm__json_get_int(restored, "inherited", inherited));
  tm__json_member_int(out, "step_seq", (own > undone ? own : undone) + (status != TM_ACTIVE));
}

static inline void write_begun(const run *r, tm_buf *out) {
  tm__json_member_int(out, "started", 1);
  if (r->host->fx->stays) tm__json_member_bool(out, "stays", true);
  tm__json_member_int(out, "step_seq", r->count);
}

static inline void write_times(const run *r, tm_buf *out, tm_conversation_status status) {
  if (r->host->fx->workflow > 0) {
    tm__json_key(out, "deadlines");
    tm__buf_printf(out, "{\"workflow\":%lld}", (long long)r->host->fx->workflow);
  }
  if (status == TM_PAUSED) {
    tm__json_key(out, "paused");
    tm__buf_printf(out, "{\"since\":%lld}", (long long)fixture_now(r->host->fx));
  }
}

static inline const char *type_of(const run *r) {
  if (does(r->what, "decide")) return "approval";
  return does(r->what, "answer") ? "user_input" : "action";
}

static inline void write_runtime(const run *r, tm_buf *out, tm_conversation_status status) {
  tm__buf_byte(out, '{');
  if (r->host->fx->concurrency != NULL)
    tm__json_member_text(out, "concurrency", r->host->fx->concurrency);
  if (r->host->fx->rollback > 0) tm__json_member_int(out, "rollback", r->host->fx->rollback);
  tm_slice fork = tm__json_get(tm__turn_view(r->turn)->runtime, "forked_from");
  if (fork.ptr != NULL) tm__json_member_raw(out, "forked_from", fork);
  bool failing = does(r->what, "break") || strncmp(r->what, "failing", 7) == 0;
  if (failing) tm__json_member_raw(out, "failing", TM_S("{}"));
  if (does(r->what, "failing_later") || does(r->what, "failing_left"))
    tm__json_member_bool(out, "later", true);
  if (does(r->what, "failing_left"))
    tm__json_member_raw(out, "left", TM_S("[{\"seq\":3,\"step_id\":\"step3\"}]"));
  write_times(r, out, status);
  tm__json_member_int(out, "message_seq", 2 * r->count + 1);
  tm__json_member_int(out, "seq", r->count);
  tm__json_key(out, "summary");
  tm__buf_printf(out, "\"after %d\"", (int)r->count);
  if (r->host->fx->counts) write_counts(r, out, status);
  if (r->host->fx->begins && status == TM_ACTIVE) write_begun(r, out);
  if (r->host->fx->usage != NULL) tm__json_member_raw(out, "usage", tm__slice(r->host->fx->usage));
  if (does(r->what, "again")) tm__json_member_raw(out, "wait", TM_S("{\"shown\":2}"));
  tm__buf_byte(out, '}');
}

static inline void write_draft(const run *r, tm_draft *d, paper *p, tm_conversation_status status) {
  state_of(r, &p->state);
  write_runtime(r, &p->runtime, status);
  const char *more = does(r->what, "paid")    ? ",\"output\":{\"id\":7},\"undo\":\"orders\""
                     : does(r->what, "loose") ? ",\"irreversible\":false"
                     : does(r->what, "fixed") ? ",\"irreversible\":true"
                     : does(r->what, "asked") ? ",\"called\":true"
                     : does(r->what, "turn")  ? ",\"corrects\":3,\"turns\":true"
                                              : "";
  tm__buf_printf(&p->steps,
                 "[{\"seq\":%d,\"status\":\"completed\",\"step_id\":\"step%d\","
                 "\"type\":\"%s\"%s",
                 (int)r->count, (int)r->count, type_of(r), more);
  if (does(r->what, "paid_large"))
    tm__buf_printf(&p->steps, ",\"output\":\"%0100000d\",\"undo\":\"orders\"", 1);
  tm__buf_text(&p->steps, "}]");
  int said = (int)(does(r->what, "suspend") ? strcspn(r->what, "#") : strlen(r->what));
  tm__buf_printf(&p->messages,
                 "[{\"agent\":\"bot\",\"provider\":\"offline\",\"role\":\"agent\",\"seq\":%d,"
                 "\"step_id\":\"step%d\",\"text\":\"%.*s %d\"},{\"role\":\"prompt\",\"seq\":%d,"
                 "\"text\":\"?\"}]",
                 2 * (int)r->count, (int)r->count, said, r->what, (int)r->count,
                 2 * (int)r->count + 1);
  bool asks = status == TM_WAITING_INPUT;
  if (asks) {
    tm__buf_printf(&p->prompt,
                   "{\"attempt\":1,\"expires_at\":null,\"hint\":null,"
                   "\"step_id\":\"ask%d\",\"text\":\"?\"}",
                   (int)r->count);
  }
  *d = (tm_draft){.status = status,
                  .step = asks ? TM_S("ask") : TM_S(""),
                  .compress = r->host->fx->compress,
                  .seal = r->host->fx->seal,
                  .steps = tm__buf_view(&p->steps),
                  .messages = tm__buf_view(&p->messages),
                  .state = tm__buf_view(&p->state),
                  .runtime = tm__buf_view(&p->runtime),
                  .prompt = asks ? tm__buf_view(&p->prompt) : (tm_slice){0}};
  if (does(r->what, "emit"))
    d->events = TM_S("[{\"data\":1,\"event\":\"a\"},{\"data\":null,\"event\":\"b\"}]");
}

static inline void free_paper(paper *p) {
  tm__buf_free(&p->state);
  tm__buf_free(&p->runtime);
  tm__buf_free(&p->steps);
  tm__buf_free(&p->messages);
  tm__buf_free(&p->prompt);
}

/* The turn ends: whoever looks for held ones must not find it any more. */
static inline tm_turn *take_turn(run *r) {
  uv_mutex_lock(&r->host->fx->lock);
  tm_turn *t = r->turn;
  r->turn = NULL;
  uv_mutex_unlock(&r->host->fx->lock);
  return t;
}

static inline void on_durable(void *ud, const tm_error *err) {
  run *r = ud;
  if (err != NULL) {
    r->refused = *err;
    uv_mutex_lock(&r->host->fx->lock);
    r->host->fx->last_refused = *err;
    uv_mutex_unlock(&r->host->fx->lock);
    tm__turn_fail(take_turn(r), err);
  } else {
    go_on(r);
  }
}

/* Begins, with the messages of the step before the calls. */
static inline void begin(run *r) {
  paper p = {0};
  tm_draft d;
  r->count--; /* the state is changed by the step that calls, which is not through yet */
  write_draft(r, &d, &p, TM_ACTIVE);
  r->count++;
  d.steps = TM_S("[]");
  if (r->host->fx->begins) d.step = TM_S("held");
  if (undoes(r)) d.state = tm__turn_view(r->turn)->state;
  d.messages = TM_S("[{\"agent\":\"bot\",\"provider\":null,\"role\":\"agent\",\"seq\":1,"
                    "\"step_id\":\"before\",\"text\":\"one moment\"}]");
  tm__turn_begin(r->turn, &d, on_durable, r);
  free_paper(&p);
}

/* Somebody takes the turn. */
static inline void give_way(run *r, int64_t retry_at) {
  paper p = {0};
  tm_draft d;
  tm_error why;
  (void)tm__fail(&why, TM_ECONFLICT, "rollback.given_up", "somebody else has come");
  write_draft(r, &d, &p, TM_SLEEPING);
  d.wake_at = retry_at;
  if (undoes(r)) {
    d.steps = d.messages = TM_S("[]");
    d.runtime = TM_S("{\"step_seq\":9,\"undone\":[3]}");
  }
  tm_turn *t = take_turn(r);
  if (tm__turn_view(t)->began_as == TM_TURN_UNDO) {
    tm__turn_undone(t, &d, &why);
  } else {
    tm__turn_commit(t, &d);
  }
  free_paper(&p);
}

/* A recorded call gives its result; another one leaves the host. */
static inline void next_call(run *r) {
  fixture *fx = r->host->fx;
  char key[64];
  int n = r->calls_made++;
  (void)snprintf(key, sizeof(key), "%d:http:%032d:0", (int)r->count, n);
  if (tm__json_get(tm__turn_view(r->turn)->calls, key).ptr != NULL) {
    go_on(r);
    return;
  }
  uv_mutex_lock(&fx->lock);
  fx->outside_calls++;
  uv_mutex_unlock(&fx->lock);
  tm__turn_call(r->turn, tm__slice(key), TM_S("{\"status\":200}"), on_durable, r);
}

static inline tm_conversation_status status_of(const char *what) {
  static const struct {
    const char *what;
    tm_conversation_status status;
  } ends[] = {{"finish", TM_COMPLETED},
              {"sleep", TM_SLEEPING},
              {"expire", TM_EXPIRED},
              {"approval", TM_WAITING_APPROVAL},
              {"event", TM_WAITING_EVENT},
              {"pause", TM_PAUSED},
              {"failed", TM_FAILED},
              {"failing_call", TM_FAILED},
              {"checkpoint_asleep", TM_SLEEPING},
              {NULL, TM_WAITING_INPUT}};
  size_t i = 0;
  while (ends[i].what != NULL && !does(what, ends[i].what))
    i++;
  return ends[i].status;
}

static inline void finish_undo(run *r) {
  fixture *fx = r->host->fx;
  paper p = {0};
  tm_draft d;
  tm_error why;
  (void)tm__fail(&why, TM_ECONFLICT, "rollback.undo_failed", "the undo of step2 has failed");
  write_draft(r, &d, &p, TM_ACTIVE);
  d.steps = TM_S("[{\"seq\":9,\"status\":\"completed\",\"step_id\":\"step3\",\"undoes\":3}]");
  d.messages = TM_S("[]");
  d.state = tm__turn_view(r->turn)->state;
  d.runtime = TM_S("{\"step_seq\":9,\"undone\":[3]}");
  d.wake_at = fixture_now(fx) + fx->retry_ms;
  tm_turn *t = take_turn(r);
  if (does(r->what, "undo_later") && !r->resumed) {
    tm__turn_suspend(t, &d);
  } else {
    tm__turn_undone(t, &d, does(r->what, "undo_fail") ? &why : NULL);
  }
  free_paper(&p);
}

static inline void finish_run(run *r, const char *what) {
  fixture *fx = r->host->fx;
  if (undoes(r)) {
    finish_undo(r);
    return;
  }
  paper p = {0};
  tm_draft d;
  tm_conversation_status status = status_of(what);
  write_draft(r, &d, &p, status);
  d.checkpoint = does(what, "checkpoint") || does(what, "checkpoint_asleep");
  if (d.checkpoint && what[strcspn(what, "#")] == '#')
    d.checkpoint_name = tm__slice(what + strcspn(what, "#") + 1);
  d.in_memory = does(what, "volatile");
  if (does(what, "deadline") || (status != TM_WAITING_INPUT && status != TM_COMPLETED)) {
    d.wake_at = fixture_now(fx) + 1000;
  } else if (does(what, "later")) {
    d.wake_at = fixture_now(fx) + 5000;
  }
  if (status == TM_FAILED)
    d.error = TM_S("{\"code\":\"test.failed\",\"compensation\":{\"undone\":1}}");
  if (does(what, "failing_later"))
    d.steps = TM_S("[{\"seq\":9,\"status\":\"completed\",\"step_id\":\"step2\",\"undoes\":2}]");
  bool suspends = does(what, "suspend") || does(what, "break") || does(what, "failing_later") ||
                  does(what, "failing_left");
  tm_turn *t = take_turn(r);
  if (suspends) {
    d.wake_at = fixture_now(fx) + fx->retry_ms;
    tm__turn_suspend(t, &d);
  } else {
    tm__turn_commit(t, &d);
  }
  free_paper(&p);
}

static inline void fail_run(run *r, tm_status status, const char *code) {
  tm_error err;
  (void)tm__fail(&err, status, code, "the executor said so");
  tm__turn_fail(take_turn(r), &err);
}

static inline void hold(run *r) {
  fixture *fx = r->host->fx;
  uv_mutex_lock(&fx->lock);
  r->held = true;
  uv_cond_broadcast(&fx->changed);
  uv_mutex_unlock(&fx->lock);
}

static inline bool may_hold(const run *r) {
  if (does(r->what, "failing_call")) return r->host->fx->on_failing != NULL;
  return !r->resumed && (does(r->what, "hold_begun") || does(r->what, "undo_call"));
}

static inline void go_on(run *r) {
  if (r->calls_made < r->calls_wanted) {
    next_call(r);
  } else if (!r->held && may_hold(r)) {
    hold(r);
  } else {
    finish_run(r, r->what);
  }
}

/* For a rollback, or for a trail. */
static inline bool asks(run *r, const tm_turn_view *v) {
  static const char command[] = "{\"message\":\"correct\",\"said\":\"rather\"}";
  const tm_slice steps = TM_S("[\"step9\",\"step2\"]"), none = {NULL, 0};
  bool has_trail = tm__json_get(v->input, "trail").ptr != NULL;
  if (does(r->what, "back") || does(r->what, "back\\nback")) {
    tm__turn_rollback(take_turn(r), 1);
  } else if (does(r->what, "correct") && !has_trail) {
    tm__turn_trail(take_turn(r), steps, none);
  } else if (does(r->what, "rather")) {
    tm__turn_trail(take_turn(r), steps, tm__slice(command));
  } else {
    return false;
  }
  return true;
}

static inline void refused_run(run *r, tm_slice refused) {
  tm_buf code = {0};
  assert_true(tm__json_get_text(refused, "code", &code));
  assert_true(tm__json_get(refused, "message").len > 2);
  if (r->host->fx->on_refused != NULL) {
    finish_run(r, r->host->fx->on_refused);
  } else {
    fail_run(r, TM_ECONFLICT, code.ptr);
  }
  tm__buf_free(&code);
}

static inline void first_move(run *r, const tm_turn_view *v) {
  r->resumed = v->kind == TM_TURN_RESUME; /* only the first run is held */
  bool waits = v->head->status == TM_WAITING_INPUT;
  if (v->kind == TM_TURN_MESSAGE && !waits) (void)snprintf(r->what, sizeof(r->what), "refuse");
  if (v->kind == TM_TURN_WAKE) (void)snprintf(r->what, sizeof(r->what), "%s", r->host->fx->on_wake);
  if (v->kind == TM_TURN_MIGRATE)
    (void)snprintf(r->what, sizeof(r->what), "%s", r->host->fx->on_migrate);
  if (v->kind == TM_TURN_PAUSE) (void)snprintf(r->what, sizeof(r->what), "pause");
  if ((does(r->what, "call") || does(r->what, "call2")))
    r->calls_wanted = does(r->what, "call2") ? 2 : 1;
  if (tm__json_get(v->runtime, "failing").ptr != NULL) {
    bool later = tm__json_get(v->runtime, "later").ptr != NULL;
    const char *what = r->host->fx->on_failing;
    (void)snprintf(r->what, sizeof(r->what), "%s", what == NULL || later ? "failed" : what);
  }
  if (r->host->fx->on_correct != NULL && tm__json_get(v->input, "trail").ptr != NULL)
    (void)snprintf(r->what, sizeof(r->what), "%s", r->host->fx->on_correct);
  if (v->began_as == TM_TURN_UNDO)
    (void)snprintf(r->what, sizeof(r->what), "%s",
                   v->forced ? r->host->fx->on_force : r->host->fx->on_undo);
  if (does(r->what, "hold_begun") || does(r->what, "undo_call") || does(r->what, "paid") ||
      does(r->what, "loose") || does(r->what, "failing_call"))
    r->calls_wanted = 1;
  if (v->refused.ptr != NULL) {
    refused_run(r, v->refused);
    return;
  }
  if (asks(r, v)) return;
  if (v->retry_at > 0 && !v->forced) {
    give_way(r, v->retry_at);
  } else if (r->resumed) {
    if (does(r->what, "suspend")) (void)memcpy(r->what, "retried", 7);
    if (does(r->what, "failing_call")) {
      begin(r);
    } else {
      go_on(r);
    }
  } else if (does(r->what, "fail")) {
    fail_run(r, TM_EINVAL, "input.invalid");
  } else if (does(r->what, "refuse")) {
    fail_run(r, TM_ECONFLICT, "test.refused");
  } else if (does(r->what, "broken")) {
    fail_run(r, TM_ESCRIPT, "test.failed");
  } else if (does(r->what, "hold")) {
    hold(r);
  } else if (r->calls_wanted > 0) {
    begin(r);
  } else {
    finish_run(r, r->what);
  }
}

static inline void exec_run(void *ud, tm_turn *t) {
  host *h = ud;
  fixture *fx = h->fx;
  const tm_turn_view *v = tm__turn_view(t);
  run *r = calloc(1, sizeof(*r));
  assert_non_null(r);
  r->host = h;
  r->turn = t;
  r->count = tm__json_get_int(v->state, "count", 0) + 1;
  if (v->input.len > 2 && v->input.ptr[0] == '"') {
    (void)tm__copy(r->what, sizeof(r->what), (tm_slice){v->input.ptr + 1, v->input.len - 2});
  } else {
    tm_buf text = {0};
    if (tm__json_get_text(v->input, "message", &text)) {
      (void)tm__copy(r->what, sizeof(r->what), tm__buf_view(&text));
    }
    tm__buf_free(&text);
  }
  uv_mutex_lock(&fx->lock);
  r->next = fx->runs;
  fx->runs = r;
  fx->turns++;
  fx->last_kind = v->kind;
  fx->last_began_as = v->began_as;
  fx->last_unsealed = v->unsealed;
  (void)tm__copy(fx->last_input, sizeof(fx->last_input), v->input);
  fx->last_more = tm__slice_is(tm__json_get(v->input, "more"), "true");
  fx->last_length = v->input.len;
  (void)tm__copy(fx->last_runtime, sizeof(fx->last_runtime), v->runtime);
  (void)tm__copy(fx->last_calls, sizeof(fx->last_calls), v->calls);
  (void)tm__copy(fx->last_version, sizeof(fx->last_version), tm__slice(v->bundle->version));
  uv_cond_broadcast(&fx->changed);
  uv_mutex_unlock(&fx->lock);
  first_move(r, v);
}

static inline void exec_cancel(void *ud, tm_turn *t) {
  host *h = ud;
  uv_mutex_lock(&h->fx->lock);
  for (run *r = h->fx->runs; r != NULL; r = r->next) {
    if (r->host != h || r->turn != t) continue;
    r->turn = NULL;
    r->cancelled = true;
    h->fx->cancelled++;
  }
  uv_cond_broadcast(&h->fx->changed);
  uv_mutex_unlock(&h->fx->lock);
}

/* ---- on a worker ---- */

typedef struct errand {
  tm_message message;
  fixture *fx;
  void (*fn)(void *ud);
  void *ud;
  bool done;
} errand;

static inline void run_errand(tm_message *m) {
  errand *e = (errand *)m;
  e->fn(e->ud);
  uv_mutex_lock(&e->fx->lock);
  e->done = true;
  uv_cond_broadcast(&e->fx->changed);
  uv_mutex_unlock(&e->fx->lock);
}

static inline void on_worker(host *h, void (*fn)(void *ud), void *ud) {
  errand e = {.message = {.run = run_errand}, .fx = h->fx, .fn = fn, .ud = ud};
  tm__worker_post(h->worker, &e.message);
  uv_mutex_lock(&h->fx->lock);
  while (!e.done)
    wait_change(h->fx);
  uv_mutex_unlock(&h->fx->lock);
}

/* The newest turn that is held on this host. */
static inline run *held_run(host *h) {
  fixture *fx = h->fx;
  run *found = NULL;
  uv_mutex_lock(&fx->lock);
  while (found == NULL) {
    for (run *r = fx->runs; r != NULL && found == NULL; r = r->next) {
      if (r->held && r->turn != NULL && r->host == h) found = r;
    }
    if (found == NULL) wait_change(fx);
  }
  uv_mutex_unlock(&fx->lock);
  return found;
}

static inline void release_now(void *ud) {
  run *r = ud;
  finish_run(r, r->what);
}

static inline void call_now(void *ud) {
  run *r = ud;
  r->calls_wanted++;
  uv_mutex_lock(&r->host->fx->lock);
  r->held = false;
  uv_mutex_unlock(&r->host->fx->lock);
  go_on(r);
}

static inline void release(run *r) {
  on_worker(r->host, release_now, r);
}

/* ---- requests ---- */

static inline answer *answer_new(fixture *fx) {
  answer *a = calloc(1, sizeof(*a));
  assert_non_null(a);
  a->fx = fx;
  a->next = fx->answers;
  fx->answers = a;
  return a;
}

static inline void on_reply(void *ud, const tm_reply *reply) {
  answer *a = ud;
  uv_mutex_lock(&a->fx->lock);
  assert_false(a->here);
  a->status = reply->status;
  if (reply->status == TM_OK) {
    assert_int_equal(strlen(reply->json), reply->size);
    a->json = strdup(reply->json);
  } else {
    a->error = *reply->error;
  }
  a->here = true;
  uv_cond_broadcast(&a->fx->changed);
  uv_mutex_unlock(&a->fx->lock);
}

static inline answer *await(answer *a) {
  uv_mutex_lock(&a->fx->lock);
  while (!a->here)
    wait_change(a->fx);
  uv_mutex_unlock(&a->fx->lock);
  return a;
}

static inline bool is_here(answer *a) {
  uv_mutex_lock(&a->fx->lock);
  bool here = a->here;
  uv_mutex_unlock(&a->fx->lock);
  return here;
}

static inline tm_request *request_new(const char *tenant, tm_request_kind kind,
                                      const char *conversation) {
  tm_request *r = tm__request_new(kind);
  assert_non_null(r);
  (void)tm__copy(r->conversation, sizeof(r->conversation), tm__slice(conversation));
  (void)tm__copy(r->tenant, sizeof(r->tenant), tm__slice(tenant));
  return r;
}

static inline uint64_t digest(const char *text) {
  return text == NULL ? 0 : tm__digest_u64(&(tm_slice){text, strlen(text)}, 1);
}

static inline answer *submit(host *h, tm_request *r) {
  answer *a = answer_new(h->fx);
  r->reply = on_reply;
  r->reply_ud = a;
  tm__journal_submit(h->journal, r);
  return a;
}

/* `id` receives the conversation's id; `what` is the message that opens it. */
static inline answer *start_keyed(host *h, char id[TM_ID_SIZE], const char *what, const char *key) {
  tm__uuid7(id, fixture_now(h->fx));
  tm_request *r = request_new(h->fx->tenant, TM_REQUEST_START, id);
  (void)snprintf(r->system, sizeof(r->system), "shop");
  (void)snprintf(r->flow, sizeof(r->flow), "orders");
  (void)snprintf(r->session, sizeof(r->session), "%s", h->fx->session);
  r->user_id = strdup("u");
  r->metadata_json = strdup("{\"vip\":true}");
  r->session_look = tm__session_first_look(&h->fx->keep, &h->fx->sessions, fixture_now(h->fx));
  r->sessions_max = h->fx->sessions.most;
  r->tenant_sessions_max = h->fx->sessions.tenant_most;
  tm_buf input = {0};
  tm__buf_printf(&input, "{\"message\":\"%s\",\"metadata\":null,\"user_id\":\"u\"}", what);
  r->input_json = tm__buf_take(&input);
  r->key = digest(key);
  r->body = digest(what);
  return submit(h, r);
}

static inline answer *start(host *h, char id[TM_ID_SIZE], const char *what) {
  return start_keyed(h, id, what, NULL);
}

static inline answer *say_keyed(host *h, const char *id, const char *what, const char *key) {
  tm_request *r = request_new(h->fx->tenant, TM_REQUEST_MESSAGE, id);
  tm_buf input = {0};
  tm__buf_printf(&input, "\"%s\"", what);
  r->input_json = tm__buf_take(&input);
  r->key = digest(key);
  r->body = digest(what);
  return submit(h, r);
}

static inline answer *say(host *h, const char *id, const char *what) {
  return say_keyed(h, id, what, NULL);
}

/* What the turn does stands in its input as that of a message does. */
static inline answer *signal_keyed(host *h, const char *id, tm_turn_kind kind, const char *what,
                                   const char *key) {
  tm_request *r = request_new(h->fx->tenant, TM_REQUEST_SIGNAL, id);
  r->signal = kind;
  if (what != NULL) {
    tm_buf input = {0};
    tm__buf_printf(&input, "{\"message\":\"%s\"}", what);
    r->input_json = tm__buf_take(&input);
    r->body = digest(what) + (uint64_t)kind;
  }
  r->key = digest(key);
  return submit(h, r);
}

static inline answer *signal_it(host *h, const char *id, tm_turn_kind kind, const char *what) {
  return signal_keyed(h, id, kind, what, NULL);
}

static inline answer *undo(host *h, const char *id, int steps, int64_t checkpoint, bool force) {
  tm_request *r = request_new(h->fx->tenant, TM_REQUEST_UNDO, id);
  r->steps = steps;
  r->checkpoint = checkpoint;
  r->force = force;
  return submit(h, r);
}

static inline answer *undo_to(host *h, const char *id, const char *checkpoint) {
  tm_request *r = request_new(h->fx->tenant, TM_REQUEST_UNDO, id);
  (void)tm__copy(r->checkpoint_name, sizeof(r->checkpoint_name), tm__slice(checkpoint));
  return submit(h, r);
}

static inline void wake_for(host *h, const char *tenant, const char *id) {
  tm__journal_submit(h->journal, request_new(tenant, TM_REQUEST_WAKE, id));
}

static inline void wake(host *h, const char *id) {
  wake_for(h, h->fx->tenant, id);
}

static inline answer *cancel(host *h, const char *id) {
  return submit(h, request_new(h->fx->tenant, TM_REQUEST_CANCEL, id));
}

static inline answer *read_it(fixture *fx, const char *id, tm_read what, const char *cursor,
                              int limit) {
  answer *a = answer_new(fx);
  const tm_checkpoints listed = tm__checkpoints(&fx->keep.checkpoints, fixture_now(fx));
  tm__reader_conversation(fx->storage, tm__slice(fx->tenant), tm__slice(id), what,
                          tm__slice(cursor), limit, &listed, on_reply, a);
  return await(a);
}

/* ---- what is stored ---- */

typedef struct head_job {
  tm_store_job job;
  fixture *fx;
  char id[TM_ID_SIZE];
  tm_head head;
  bool done;
} head_job;

static inline tm_status head_work(tm_store_job *job, const tm_store_access *a, tm_error *err) {
  head_job *h = (head_job *)job;
  bool in_memory;
  return tm__access_head(a, tm__slice(h->id), &h->head, &in_memory, err);
}

static inline void head_done(tm_message *m) {
  head_job *h = (head_job *)m;
  uv_mutex_lock(&h->fx->lock);
  h->done = true;
  uv_cond_broadcast(&h->fx->changed);
  uv_mutex_unlock(&h->fx->lock);
}

static inline tm_head stored_head(fixture *fx, const char *id) {
  head_job job = {.job = {.message = {.run = head_done}, .work = head_work}, .fx = fx};
  (void)tm__copy(job.id, sizeof(job.id), tm__slice(id));
  (void)tm__copy(job.job.tenant, sizeof(job.job.tenant), tm__slice(fx->tenant));
  tm__storage_run(fx->storage, &job.job);
  uv_mutex_lock(&fx->lock);
  while (!job.done)
    wait_change(fx);
  uv_mutex_unlock(&fx->lock);
  assert_int_equal(job.job.status, TM_OK);
  return job.head;
}

/* ---- looking at answers ---- */

#define assert_answer(a)                                                                           \
  do {                                                                                             \
    const answer *answer_ = await(a);                                                              \
    if (answer_->status != TM_OK) {                                                                \
      print_error("%s: %s\n", answer_->error.code, answer_->error.message);                        \
    }                                                                                              \
    assert_int_equal(answer_->status, TM_OK);                                                      \
  } while (0)

#define assert_refused(a, expected, code_text)                                                     \
  do {                                                                                             \
    const answer *answer_ = await(a);                                                              \
    assert_int_equal(answer_->status, expected);                                                   \
    assert_string_equal(answer_->error.code, code_text);                                           \
    assert_true(strlen(answer_->error.message) > 10);                                              \
  } while (0)

#define assert_member(a, name, raw)                                                                \
  do {                                                                                             \
    tm_slice member_ = tm__json_get(tm__slice((a)->json), name);                                   \
    if (!tm__slice_is(member_, raw)) {                                                             \
      print_error("%s is %.*s in %s\n", name, (int)member_.len, member_.ptr, (a)->json);           \
    }                                                                                              \
    assert_true(tm__slice_is(member_, raw));                                                       \
  } while (0)

#define assert_holds(a, text)                                                                      \
  do {                                                                                             \
    if (strstr((a)->json, text) == NULL) print_error("no %s in %s\n", text, (a)->json);            \
    assert_non_null(strstr((a)->json, text));                                                      \
  } while (0)

/* ---- life ---- */

static inline void fixture_log(void *ud, const char *line, size_t size) {
  (void)ud;
  if (getenv("JOURNAL_TEST_LOG") != NULL) print_message("%.*s\n", (int)size, line);
}

static inline void host_start(fixture *fx, int n) {
  host *h = &fx->hosts[n];
  tm_error err;
  *h = (host){.fx = fx};
  tm__uuid7(h->id, fx->now + n);
  assert_int_equal(tm__worker_start(&h->worker, "worker", &err), TM_OK);
  h->rates = tm__rates_new();
  assert_non_null(h->rates);
  tm_journal_options o = {.worker = h->worker,
                          .storage = fx->storage,
                          .registry = fx->registry,
                          .log = &fx->log,
                          .clock = {fixture_now, fx},
                          .executor = {h, exec_run, exec_cancel},
                          .lease_ms = fx->lease_ms,
                          .cache_bytes = fx->cache_bytes,
                          .queue_limit = fx->queue_limit,
                          .quotas = fx->quotas,
                          .rates = h->rates,
                          .concurrency = fx->at_once,
                          .checkpoints = &fx->keep.checkpoints};
  (void)tm__copy(o.host_id, sizeof(o.host_id), tm__slice(h->id));
  assert_int_equal(tm__journal_new(&h->journal, &o, &err), TM_OK);
}

typedef struct ending {
  host *host;
  bool finished;
} ending;

static inline void on_finished(void *ud) {
  ending *e = ud;
  uv_mutex_lock(&e->host->fx->lock);
  e->finished = true;
  uv_cond_broadcast(&e->host->fx->changed);
  uv_mutex_unlock(&e->host->fx->lock);
}

static inline void abandon_now(void *ud) {
  ending *e = ud;
  tm__journal_abandon(e->host->journal, on_finished, e);
}

static inline void drain_now(void *ud) {
  ending *e = ud;
  tm__journal_drain(e->host->journal, on_finished, e);
}

static inline void await_ending(ending *e) {
  uv_mutex_lock(&e->host->fx->lock);
  while (!e->finished)
    wait_change(e->host->fx);
  uv_mutex_unlock(&e->host->fx->lock);
}

static inline void stop_scheduler(void *ud) {
  tm__scheduler_stop(ud);
}

static inline void host_stop(host *h) {
  if (h->worker == NULL) return;
  ending e = {.host = h};
  if (h->scheduler != NULL) on_worker(h, stop_scheduler, h->scheduler);
  on_worker(h, abandon_now, &e);
  await_ending(&e);
  assert_int_equal(tm__worker_stop(h->worker), 0);
  tm__journal_free(h->journal);
  tm__scheduler_free(h->scheduler);
  tm__rates_free(h->rates);
  *h = (host){.fx = h->fx};
}

static inline void describe_system(fixture *fx, const char *version, const char *description) {
  tm_error err;
  tm_bundle *b = tm__bundle_new(TM_S("shop"), tm__slice(version), TM_S("{\"files\":{}}"),
                                tm__slice(description));
  assert_non_null(b);
  assert_int_equal(tm__registry_switch(fx->registry, &b, 1, &err), TM_OK);
}

static inline void add_system(fixture *fx, const char *version) {
  describe_system(fx, version, "{\"name\":\"shop\"}");
}

typedef struct recovery {
  tm_store_job job;
  uv_sem_t done;
  int64_t now, taken;
} recovery;

static inline tm_status recover_work(tm_store_job *job, const tm_store_access *a, tm_error *err) {
  recovery *r = (recovery *)job;
  return a->backend->recover(a->conn, r->now, &r->taken, err);
}

static inline void recover_done(tm_message *m) {
  uv_sem_post(&((recovery *)m)->done);
}

static inline int64_t recover(fixture *fx) { /* how many turns of dead hosts are due now */
  recovery r = {.job = {.message = {.run = recover_done}, .write = true, .work = recover_work},
                .now = fixture_now(fx)};
  assert_int_equal(uv_sem_init(&r.done, 0), 0);
  tm__storage_run(fx->storage, &r.job);
  uv_sem_wait(&r.done);
  uv_sem_destroy(&r.done);
  assert_int_equal(r.job.status, TM_OK);
  return r.taken;
}

static inline tm_status storage_open(tm_storage **out, fixture *fx, const char *backend,
                                     tm_error *err) {
  const tm_storage_options o = {.backend = tm__slice(backend),
                                .store = fx->options,
                                .isolated = fx->isolated,
                                .tenants_open = 1,
                                .codec = fx->codec,
                                .log = &fx->log};
  return tm__storage_open(out, &o, err);
}

static inline void storage_start(fixture *fx) {
  tm_error err = {0};
  assert_int_equal(tm__keyring_new(&fx->coding.keys, &fx->keys, &err), TM_OK);
  assert_int_equal(tm__codec_new(&fx->codec, &fx->coding, &err), TM_OK);
  tm_status status = storage_open(&fx->storage, fx, fx->backend->scheme, &err);
  if (status != TM_OK) print_error("%s: %s\n", err.code, err.message);
  assert_int_equal(status, TM_OK);
  fx->registry = tm__registry_new();
  assert_non_null(fx->registry);
  add_system(fx, "v1");
}

static inline void fixture_init(fixture *fx, const char *backend) {
  *fx = (fixture){.backend = fixture_backend_of(backend),
                  .tenant = "t1",
                  .now = START_NOW,
                  .queue_limit = 8,
                  .cache_bytes = 1 << 20,
                  .lease_ms = LEASE_MS,
                  .retry_ms = 1000,
                  .on_wake = "expire",
                  .on_undo = "undone",
                  .on_force = "undone",
                  .session = "s1"};
  assert_true(scratch_make(fx->dir, sizeof(fx->dir), "journal"));
  fx->options = (tm_store_options){
      .timeout_ms = 10000, .wal = true, .auto_vacuum = true, .now_ms = fixture_now, .now_ud = fx};
  fx->backend->make(fx);
  fx->keys = (tm_keyring_options){.current = FIXTURE_KEY, .current_name = "key"};
  fx->coding.seal = fx->compress = fx->backend->coded;
  fx->log = (tm_log){.sink = fixture_log, .clock = {fixture_now, fx}};
  assert_int_equal(uv_mutex_init(&fx->lock), 0);
  assert_int_equal(uv_cond_init(&fx->changed), 0);
}

static inline void fixture_open(fixture *fx, const char *backend) {
  fixture_init(fx, backend);
  storage_start(fx);
  host_start(fx, 0);
}

static inline void fixture_stop(fixture *fx) { /* hosts and store; the file stays */
  for (int i = 0; i < HOSTS; i++)
    host_stop(&fx->hosts[i]);
  tm__storage_close(fx->storage);
  tm__registry_free(fx->registry);
  tm__codec_free(fx->codec);
  tm__keyring_free(fx->coding.keys);
  fx->coding.keys = NULL;
  fx->codec = NULL;
  fx->storage = NULL;
  fx->registry = NULL;
}

static inline bool fixture_durable(const fixture *fx) { /* is anything there after a restart? */
  return tm__store_backend(tm__slice(fx->backend->scheme))->durable;
}

static inline void fixture_restart(fixture *fx) {
  fixture_stop(fx);
  storage_start(fx);
  host_start(fx, 0);
}

static inline int remove_entry(const char *path, const struct stat *st, int flag,
                               struct FTW *where) {
  (void)st, (void)flag, (void)where;
  return remove(path);
}

static inline void fixture_close(fixture *fx) {
  fixture_stop(fx);
  for (answer *a = fx->answers, *next; a != NULL; a = next) {
    next = a->next;
    free(a->json);
    free(a);
  }
  for (run *r = fx->runs, *next; r != NULL; r = next) {
    next = r->next;
    free(r);
  }
  uv_cond_destroy(&fx->changed);
  uv_mutex_destroy(&fx->lock);
  if (fx->backend->remove != NULL) fx->backend->remove(fx);
  assert_int_equal(nftw(fx->dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS), 0);
}

static inline void on_due(void *ud, const tm_head *head) {
  host *h = ud;
  wake_for(h, head->tenant, head->id);
}

static inline tm_status on_due_sessions(void *ud, const tm_store_access *a, const char *tenant,
                                        tm_error *err) {
  host *h = ud;
  return h->janitor != NULL ? tm__janitor_sessions(h->janitor, a, tenant, err) : TM_OK;
}

static inline void scheduler_start(host *h, int64_t poll_ms) {
  tm_error err;
  const tm_scheduler_options o = {.worker = h->worker,
                                  .storage = h->fx->storage,
                                  .clock = {fixture_now, h->fx},
                                  .log = &h->fx->log,
                                  .poll_ms = poll_ms,
                                  .wake = on_due,
                                  .sessions = on_due_sessions,
                                  .ud = h};
  assert_int_equal(tm__scheduler_new(&h->scheduler, &o, &err), TM_OK);
}

/* On one backend after the other; `open` is fixture_open or what opens in another way. */
#define EACH_OPENED(fx, open)                                                                      \
  fixture fx;                                                                                      \
  for (const struct fixture_backend *backend_ = fixture_backend_next(NULL); backend_ != NULL;      \
       backend_ = fixture_backend_next(backend_))                                                  \
    for (bool once_ = (open(&fx, backend_->scheme), true); once_; fixture_close(&fx), once_ = false)

#define EACH_BACKEND(fx) EACH_OPENED(fx, fixture_open)

static inline host *fixture_started(fixture *fx, char id[TM_ID_SIZE], const char *text) {
  assert_answer(start(&fx->hosts[0], id, text));
  return &fx->hosts[0];
}

/* On each backend a conversation `id` that was started with `text`, and its host `h`. */
#define EACH_STARTED(fx, open, text)                                                               \
  char id[TM_ID_SIZE];                                                                             \
  EACH_OPENED(fx, open)                                                                            \
  for (host *h = fixture_started(&fx, id, text); h != NULL; h = NULL)

#endif
