/* Out of memory, anywhere: each allocation of starting, loading, turning and stopping fails in
 * turn. The operation succeeds or fails with a clear error; afterwards everything works and nothing
 * is lost. See sweep.h for how. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>

#include "sweep.h"
#include "tidemill.h"

/* ---- what an operation said ---- */

typedef struct answer { /* of a fixed size: nothing of the test's allocates while memory is short */
  pthread_mutex_t lock;
  pthread_cond_t come;
  int done;
  tm_status status;
  tm_error error;
  char json[65536];
} answer;

static answer last = {.lock = PTHREAD_MUTEX_INITIALIZER, .come = PTHREAD_COND_INITIALIZER};

static void on_reply(void *ud, const tm_reply *r) {
  answer *a = ud;
  (void)pthread_mutex_lock(&a->lock);
  if (a->done++ != 0) complain("answered twice");
  a->status = r->status;
  if (r->status != TM_OK) a->error = *r->error;
  if (r->status == TM_OK) (void)snprintf(a->json, sizeof(a->json), "%s", r->json);
  (void)pthread_cond_signal(&a->come);
  (void)pthread_mutex_unlock(&a->lock);
}

static void wait_answer(void) {
  (void)pthread_mutex_lock(&last.lock);
  while (last.done == 0)
    (void)pthread_cond_wait(&last.come, &last.lock);
  (void)pthread_mutex_unlock(&last.lock);
}

static void ask(void) {
  last.done = 0;
}

static void expect_ok(const char *what) {
  if (last.status != TM_OK)
    complain("with memory back, %s: %s: %s", what, last.error.code, last.error.message);
}

/* Success, or an error that says that memory is short. */
static void expect_clear(void) {
  if (last.status == TM_OK || last.status == TM_ENOMEM || last.status == TM_EUNAVAILABLE) return;
  complain("no clear error: %d %s: %s", (int)last.status, last.error.code, last.error.message);
}

/* ---- hosts ---- */

static tm_host *host;
static const char *backend = "workflow_persistence.backend=memory";
static const char *scripts = "scripts=scripts";

static void on_log(void *ud, const char *line, size_t size) {
  (void)ud;
  if (getenv("SWEEP_LOG") != NULL) say("%.*s\n", (int)size, line);
}

static void start(void) {
  const char *set[] = {scripts, backend, "server.workers=1", NULL};
  tm_options o = TM_OPTIONS_INIT;
  o.set = set;
  o.log = on_log;
  last.status = tm_host_new(&host, &o, &last.error);
  if (last.status == TM_OK) last.status = tm_host_start(host, &last.error);
}

static void end(void) {
  tm_host_free(host);
  host = NULL;
}

static void begin(void) {
  tm_begin b = TM_BEGIN_INIT;
  b.system = "customer_service";
  b.flow_id = "comprehensive_workflow";
  ask();
  tm_conversation_begin(host, &b, on_reply, &last);
  wait_answer();
}

/* ---- start and stop ---- */

static void start_and_end(void) {
  start();
  expect_clear();
  end();
}

static void start_and_talk(void) {
  start();
  expect_ok("start");
  begin();
  expect_ok("begin");
  end();
}

static void test_start_memory(void **state) {
  (void)state;
  static const scenario s = {.name = "start, memory store",
                             .run = start_and_end,
                             .verify = start_and_talk,
                             .starts = true};
  assert_int_equal(sweep_run(&s), 0);
}

static void start_well(void) {
  start();
  expect_ok("start");
  begin();
  expect_ok("begin");
}

static void test_stop_memory(void **state) {
  (void)state;
  static const scenario s = {.name = "stop, memory store", .prepare = start_well, .run = end};
  assert_int_equal(sweep_run(&s), 0);
}

static void test_first_start(void **state) {
  (void)state;
  static const scenario s = {.name = "the first start of a process",
                             .run = start_and_end,
                             .verify = start_and_talk,
                             .starts = true,
                             .cold = true};
  assert_int_equal(sweep_run(&s), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_start_memory),
      cmocka_unit_test(test_first_start), /* behind what it leaves out */
      cmocka_unit_test(test_stop_memory),
  };
  alloc_init();
  if (!ALLOC_OWNED) return 0;
  return cmocka_run_group_tests(tests, NULL, NULL);
}
