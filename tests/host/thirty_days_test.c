/* A conversation of thirty days by a clock that the test turns: prompts that nobody answers, sleep,
 * approvals and events with timeouts, a digression, a sub-flow, a pause, and hosts that are down
 * when deadlines pass. Then the same once more for every commit of the store: the process is killed
 * there, and what a new one makes of it must be the undisturbed run to the letter.
 *
 * Each run is a process of its own; what it knows of the others is in shared memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dlfcn.h>
#include <jansson.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "asks.h"
#include "tests/scratch.h"

#define BEGAN   INT64_C(1800000000000)
#define HOUR_MS INT64_C(3600000)

enum { RECORD_BYTES = 1 << 18, LOOKS = 10000, LOOK_US = 1000 };

static char dir[40];
static asks all = {.lock = PTHREAD_MUTEX_INITIALIZER, .come = PTHREAD_COND_INITIALIZER};

/* ---- the month ---- */

typedef enum what {
  BEGIN,
  SAY,     /* text: the answer, as JSON */
  COMMAND, /* text: which */
  APPROVE, /* text: the role */
  EVENT,   /* text: its name */
  PAUSE,
  RESUME,
  WAKE,   /* looks at deadlines, until it stands as it should */
  RESTART /* the host stops before the hour, and a new one starts in it */
} what;

/* What happens in an hour, and how the conversation stands after it. */
typedef struct event {
  int hour;
  what what;
  const char *text;
  const char *refused; /* the code; NULL: it is not */
  const char *status, *step;
  const char *said; /* the newest message; NULL: the one before */
} event;

static const event month[] = {
    {0, BEGIN, NULL, NULL, "waiting_input", "name", "Your name?"},
    {1, SAY, "\"x\"", NULL, "waiting_input", "name", "Two letters at least.\nYour name?"},
    {2, COMMAND, "help", NULL, "waiting_input", "name",
     "Please answer with text. You can also say: restart.\nYour name?"},
    {26, WAKE, NULL, NULL, "waiting_input", "name", "Are you still there?"},
    {74, WAKE, NULL, NULL, "waiting_input", "desk", "Whom shall we call?"},
    {75, SAY, "\"What does it cost?\"", NULL, "waiting_input", "year", "In which year?"},
    {99, WAKE, NULL, NULL, "waiting_input", "year", "This year or the next?"},
    {100, RESTART, NULL, NULL, "waiting_input", "year", NULL},
    {101, SAY, "\"2027\"", NULL, "waiting_input", "desk", "Whom shall we call?"},
    {192, RESTART, NULL, NULL, "waiting_input", "desk", "We are waiting, you."},
    {200, SAY, "\"Ada\"", NULL, "sleeping", "rest", "Booked for Ada."},
    {210, PAUSE, NULL, NULL, "paused", "rest", NULL},
    {330, RESTART, NULL, NULL, "paused", "rest", NULL},
    {340, RESUME, NULL, NULL, "sleeping", "rest", NULL},
    {460, RESTART, NULL, NULL, "waiting_approval", "sign", "Deliver to Ada?"},
    {461, APPROVE, "clerk", "approval.role", "waiting_approval", "sign", NULL},
    {462, EVENT, "paid", "conversation.not_waiting", "waiting_approval", "sign", NULL},
    {560, RESTART, NULL, NULL, "waiting_input", "street", "Where, Ada?"},
    {561, SAY, "\"x\"", NULL, "waiting_input", "street",
     "The answer is too short: it needs at least 3 characters, this has 1.\nWhere, Ada?"},
    {600, RESTART, NULL, NULL, "waiting_input", "street", "Which street, Ada?"},
    {601, SAY, "\"Low Road\"", NULL, "sleeping", "check", "Low Road"},
    {613, WAKE, NULL, NULL, "waiting_approval", "release", "Drive to Low Road?"},
    {614, APPROVE, "driver", NULL, "waiting_event", "paid", NULL},
    {700, RESTART, NULL, NULL, "waiting_event", "paid", "Ada, please pay."},
    {701, SAY, "\"Yes\"", "conversation.not_waiting", "waiting_event", "paid", NULL},
    {720, EVENT, "paid", NULL, "completed", NULL, "Thank you, Ada, for 7."},
};
enum { EVENTS = sizeof(month) / sizeof(month[0]) };

/* ---- what the processes share ---- */

typedef struct shared {
  int at; /* the event that is under way */
  atomic_int commits;
  int cut;          /* the commit at which the process dies; 0: none */
  bool cut_is_done; /* it dies behind it, else before it */
  char id[40];
  char record[RECORD_BYTES];
} shared;
static shared *run;
static _Atomic int64_t now_ms;

static int64_t turned_clock(void *ud) {
  (void)ud;
  return atomic_load(&now_ms);
}

__attribute__((noreturn, format(printf, 1, 2))) static void die(const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  (void)fprintf(stderr, "cut %d%s, event %d: ", run->cut, run->cut_is_done ? " done" : "", run->at);
  (void)vfprintf(stderr, fmt, ap);
  (void)fputc('\n', stderr);
  va_end(ap);
  _exit(1);
}

/* Stands before SQLite's: a commit is counted, and may be the last thing the process did. */
int sqlite3_step(sqlite3_stmt *st) {
  static _Atomic(int (*)(sqlite3_stmt *)) real;
  if (atomic_load(&real) == NULL) {
    void *found = dlsym(RTLD_NEXT, "sqlite3_step");
    int (*step)(sqlite3_stmt *);
    memcpy(&step, &found, sizeof(step));
    atomic_store(&real, step);
  }
  const char *sql = sqlite3_sql(st);
  if (run == NULL || sql == NULL || strcmp(sql, "COMMIT") != 0) return atomic_load(&real)(st);
  bool last = atomic_fetch_add(&run->commits, 1) + 1 == run->cut;
  if (last && !run->cut_is_done) (void)raise(SIGKILL);
  int rc = atomic_load(&real)(st);
  if (last) (void)raise(SIGKILL);
  return rc;
}

/* ---- a host ---- */

static tm_host *start_host(int hour) {
  char config[64], store[128];
  (void)snprintf(config, sizeof(config), "%s/config.yaml", dir);
  (void)snprintf(store, sizeof(store), "workflow_persistence.sqlite.database_path=%s/s.db", dir);
  const char *set[] = {"scripts=tests/fixtures/time", store, "server.workers=1", NULL};
  tm_options o = TM_OPTIONS_INIT;
  o.config_file = config;
  o.set = set;
  o.clock = turned_clock;
  tm_error err;
  tm_host *h = NULL;
  atomic_store(&now_ms, BEGAN + hour * HOUR_MS);
  if (tm_host_new(&h, &o, &err) != TM_OK || tm_host_start(h, &err) != TM_OK) die("%s", err.message);
  return h;
}

static ask *read_all(tm_host *h, tm_read part) {
  ask *a = ask_new(&all);
  tm_conversation_read(h, NULL, run->id, part, NULL, 200, ask_reply, a);
  if (ask_wait(a)->status != TM_OK) die("%s", a->message);
  return a;
}

static json_t *parse(const ask *a) {
  json_t *tree = json_loads(a->json, 0, NULL);
  if (tree == NULL) die("no JSON: %s", a->json);
  return tree;
}

static const char *text_of(const json_t *tree, const char *name) {
  const char *text = json_string_value(json_object_get(tree, name));
  return text != NULL ? text : "";
}

/* ---- one event ---- */

static const char *newest_said(void) {
  int i = run->at;
  while (month[i].said == NULL)
    i--;
  return month[i].said;
}

static bool stands(tm_host *h, const event *e) {
  json_t *head = parse(read_all(h, TM_READ_CONVERSATION));
  json_t *messages = parse(read_all(h, TM_READ_MESSAGES));
  const json_t *newest = json_array_get(json_object_get(messages, "items"), 0);
  bool as_expected = strcmp(text_of(head, "status"), e->status) == 0 &&
                     (e->step == NULL || strcmp(text_of(head, "current_step"), e->step) == 0) &&
                     strcmp(text_of(newest, "text"), newest_said()) == 0;
  json_decref(head);
  json_decref(messages);
  return as_expected;
}

static void ask_event(tm_host *h, const event *e, const char *key, ask *a) {
  tm_begin begin = TM_BEGIN_INIT;
  tm_command command = TM_COMMAND_INIT;
  tm_approval approval = TM_APPROVAL_INIT;
  tm_event came = TM_EVENT_INIT;
  begin.system = "month";
  begin.flow_id = "order";
  begin.session_id = "s1";
  command.conversation_id = approval.conversation_id = came.conversation_id = run->id;
  command.command = e->text;
  approval.approved = 1;
  approval.role = e->text;
  came.name = e->text;
  came.data_json = "{\"sum\":7}";
  begin.idempotency_key = command.idempotency_key = key;
  approval.idempotency_key = came.idempotency_key = key;
  if (e->what == BEGIN) tm_conversation_begin(h, &begin, ask_reply, a);
  if (e->what == SAY) tm_message_send(h, NULL, run->id, e->text, key, ask_reply, a);
  if (e->what == COMMAND) tm_conversation_command(h, &command, ask_reply, a);
  if (e->what == APPROVE) tm_conversation_approve(h, &approval, ask_reply, a);
  if (e->what == EVENT) tm_conversation_event(h, &came, ask_reply, a);
  if (e->what == PAUSE) tm_conversation_pause(h, NULL, run->id, ask_reply, a);
  if (e->what == RESUME) tm_conversation_resume(h, NULL, run->id, ask_reply, a);
}

/* A repeat may find that it has happened; a pause has no key that would say so. */
static bool is_answered(const event *e, const ask *a, bool repeated) {
  if (e->refused != NULL) return strcmp(a->code, e->refused) == 0;
  if (a->status == TM_OK) return true;
  return repeated && ((e->what == PAUSE && strcmp(a->code, "conversation.not_waiting") == 0) ||
                      (e->what == RESUME && strcmp(a->code, "conversation.not_paused") == 0));
}

static void request(tm_host *h, const event *e, bool repeated) {
  char key[16];
  (void)snprintf(key, sizeof(key), "event-%d", run->at);
  ask *a = ask_new(&all);
  ask_event(h, e, key, a);
  if (!is_answered(e, ask_wait(a), repeated)) die("%s %s", a->code, a->message);
  if (e->what == BEGIN) {
    json_t *turn = parse(a);
    (void)snprintf(run->id, sizeof(run->id), "%s", text_of(turn, "conversation_id"));
    json_decref(turn);
  }
  if (!stands(h, e))
    die("stands elsewhere: %s %s", read_all(h, TM_READ_CONVERSATION)->json,
        read_all(h, TM_READ_MESSAGES)->json);
}

static void await(tm_host *h, const event *e) {
  for (int i = 0; i < LOOKS; i++) {
    if (stands(h, e)) return;
    tm_host_wake(h);
    (void)usleep(LOOK_US);
  }
  die("never came there: %s", read_all(h, TM_READ_CONVERSATION)->json);
}

static tm_host *live(tm_host *h, const event *e, bool repeated) {
  if (e->what == RESTART) {
    tm_host_stop(h, 10000);
    tm_host_free(h);
    h = start_host(e->hour);
  }
  atomic_store(&now_ms, BEGAN + e->hour * HOUR_MS);
  if (e->what == RESTART || e->what == WAKE)
    await(h, e);
  else
    request(h, e, repeated);
  (void)asks_end(&all);
  return h;
}

/* ---- what is left of it ---- */

static void put(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void put(const char *fmt, ...) {
  size_t len = strlen(run->record);
  va_list ap;
  va_start(ap, fmt);
  (void)vsnprintf(run->record + len, sizeof(run->record) - len, fmt, ap);
  va_end(ap);
}

static long long hour_of(const json_t *step, const char *name) {
  return (json_integer_value(json_object_get(step, name)) - BEGAN) / HOUR_MS;
}

/* Oldest first. */
static void put_items(tm_host *h, tm_read part) {
  json_t *page = parse(read_all(h, part)), *items = json_object_get(page, "items");
  for (size_t i = json_array_size(items); i > 0; i--) {
    const json_t *item = json_array_get(items, i - 1);
    if (part == TM_READ_MESSAGES)
      put("%s: %s\n", text_of(item, "role"), text_of(item, "text"));
    else
      put("%s %s %lld-%lld\n", text_of(item, "step_id"), text_of(item, "status"),
          hour_of(item, "start"), hour_of(item, "end"));
  }
  json_decref(page);
}

/* To the letter, but for the id, which is another one in each run, and the revision, which also
 * counts claims and deadlines that were looked at too early. */
static void put_whole(tm_host *h, tm_read part) {
  char *json = read_all(h, part)->json, *revision = strstr(json, "\"revision\":");
  for (char *p = revision != NULL ? revision + 11 : json; p > json && *p >= '0' && *p <= '9'; p++)
    *p = '-';
  for (char *id = strstr(json, run->id); id != NULL; id = strstr(id, run->id))
    memset(id, '-', strlen(run->id));
  put("%s\n", json);
}

static void record(tm_host *h) {
  run->record[0] = '\0';
  put_items(h, TM_READ_MESSAGES);
  put("\n");
  put_items(h, TM_READ_STEPS);
  put("\n");
  put_whole(h, TM_READ_CONVERSATION);
  put_whole(h, TM_READ_STEPS);
  put_whole(h, TM_READ_MESSAGES);
  (void)asks_end(&all);
}

/* ---- runs ---- */

/* In a process of its own: from the event that is under way to the end. Returns how it ended. */
static int live_from(int first) {
  int status = 0;
  pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) {
    tm_host *h = start_host(month[first].hour);
    for (run->at = first; run->at < EVENTS; run->at++)
      h = live(h, &month[run->at], run->at == first);
    run->at = EVENTS - 1;
    record(h);
    tm_host_stop(h, 10000);
    tm_host_free(h);
    _exit(0);
  }
  assert_int_equal(waitpid(child, &status, 0), child);
  return status;
}

static void renew(int cut, bool done) {
  char command[128];
  memset(run, 0, sizeof(*run));
  run->cut = cut;
  run->cut_is_done = done;
  (void)snprintf(command, sizeof(command), "rm -f %s/s.db*", dir);
  assert_int_equal(system(command), 0);
}

/* Whether there were as many commits. */
static bool live_with_a_cut(int cut, bool done, const char *undisturbed) {
  renew(cut, done);
  int status = live_from(0);
  if (status == 0) return false;
  if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL) fail_msg("cut %d: %d", cut, status);
  int at = run->at;
  run->cut = 0;
  if (live_from(run->at) != 0 || strcmp(run->record, undisturbed) != 0)
    fail_msg("after the cut %d%s at event %d:\n%s\ninstead of\n%s", cut, done ? " done" : "", at,
             run->record, undisturbed);
  return true;
}

/* Of the steps from which to which hour; each late one is there once. */
static const char expected[] =
    "prompt: Your name?\n"
    "user: x\n"
    "prompt: Two letters at least.\n"
    "Your name?\n"
    "prompt: Please answer with text. You can also say: restart.\n"
    "Your name?\n"
    "prompt: Are you still there?\n"
    "prompt: Whom shall we call?\n"
    "user: What does it cost?\n"
    "prompt: In which year?\n"
    "prompt: This year or the next?\n"
    "user: 2027\n"
    "agent: Nothing in 2027.\n"
    "prompt: Whom shall we call?\n"
    "prompt: We are waiting, you.\n"
    "user: Ada\n"
    "agent: Booked for Ada.\n"
    "prompt: Deliver to Ada?\n"
    "prompt: Where, Ada?\n"
    "user: x\n"
    "prompt: The answer is too short: it needs at least 3 characters, this has 1.\n"
    "Where, Ada?\n"
    "prompt: Which street, Ada?\n"
    "user: Low Road\n"
    "prompt: Drive to Low Road?\n"
    "agent: Ada, please pay.\n"
    "agent: Thank you, Ada, for 7.\n"
    "\n"
    "name failed 0-74\n"
    "year completed 75-101\n"
    "tell completed 101-101\n"
    "desk completed 74-200\n"
    "book completed 200-200\n"
    "confirm completed 200-200\n"
    "rest completed 200-460\n"
    "sign completed 460-560\n"
    "street completed 560-601\n"
    "check completed 601-613\n"
    "where completed 560-613\n"
    "release completed 613-614\n"
    "paid completed 614-700\n"
    "remind completed 700-700\n"
    "paid completed 700-720\n"
    "bye completed 720-720\n"
    "\n";

static void test_thirty_days(void **state) {
  (void)state;
  renew(0, false);
  assert_int_equal(live_from(0), 0);
  run->record[sizeof(expected) - 1] = '\0';
  assert_string_equal(run->record, expected);
}

/* Before it and behind it by turns; in the night both. */
static void test_every_commit(void **state) {
  (void)state;
  const char *night = getenv("TIDEMILL_NIGHTLY");
  bool both = night != NULL && strcmp(night, "1") == 0;
  renew(0, false);
  assert_int_equal(live_from(0), 0);
  char *undisturbed = strdup(run->record);
  assert_non_null(undisturbed);
  int cut = 1;
  while (live_with_a_cut(cut, cut % 2 == 0, undisturbed) &&
         (!both || live_with_a_cut(cut, cut % 2 != 0, undisturbed)))
    cut++;
  assert_true(cut > EVENTS);
  free(undisturbed);
}

static int setup(void **state) {
  (void)state;
  run = mmap(NULL, sizeof(*run), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (run == MAP_FAILED || !scratch_make(dir, sizeof(dir), "days")) return -1;
  char config[64];
  (void)snprintf(config, sizeof(config), "%s/config.yaml", dir);
  FILE *f = fopen(config, "w");
  return f == NULL || fputs("log:\n  level: error\n", f) < 0 || fclose(f) != 0;
}

static int teardown(void **state) {
  char command[128];
  (void)state;
  (void)munmap(run, sizeof(*run));
  run = NULL;
  (void)snprintf(command, sizeof(command), "rm -rf %s", dir);
  return system(command);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_thirty_days),
      cmocka_unit_test(test_every_commit),
  };
  return cmocka_run_group_tests(tests, setup, teardown);
}
