/* Timers on a loop that the test runs itself, in one thread; and left over when a worker stops. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "loop/timer.h"

#define HOUR 3600000

typedef struct stage {
  uv_loop_t loop;
  uv_async_t alive; /* as a worker's inbox: timers alone do not keep a loop running */
  tm_timers timers;
  char ran[64]; /* a letter for each timer that ran */
  size_t count;
} stage;

typedef struct act {
  stage *on;
  char letter;
  uint64_t id, other;
  bool other_cancelled, self_cancelled;
  int again;
} act;

static int open_stage(void **state) {
  static stage s;
  s = (stage){0};
  if (uv_loop_init(&s.loop) != 0 || uv_async_init(&s.loop, &s.alive, NULL) != 0) return -1;
  tm__timers_init(&s.timers, &s.loop);
  *state = &s;
  return 0;
}

static int close_stage(void **state) {
  stage *s = *state;
  tm__timers_close(&s->timers);
  uv_close((uv_handle_t *)&s->alive, NULL);
  (void)uv_run(&s->loop, UV_RUN_DEFAULT);
  tm__timers_deinit(&s->timers);
  return uv_loop_close(&s->loop); /* fails when a handle is left */
}

static void run_until(stage *s, size_t count) {
  while (s->count < count) {
    (void)uv_run(&s->loop, UV_RUN_NOWAIT); /* waiting, it could wait for a timer that has run */
  }
}

static void note(void *ud) {
  act *a = ud;
  assert_true(a->on->count < sizeof(a->on->ran) - 1);
  a->on->ran[a->on->count++] = a->letter;
}

static void start(act *a, uint64_t ms, tm_timer_fn fn) {
  tm_error err = {0};
  assert_int_equal(tm__timers_start(&a->on->timers, ms, fn, a, &a->id, &err), TM_OK);
  assert_true(a->id != 0);
}

static void test_order(void **state) {
  stage *s = *state;
  act a = {.on = s, .letter = 'a'};
  act b = {.on = s, .letter = 'b'};
  act c = {.on = s, .letter = 'c'};
  start(&c, 5, note);
  start(&a, 0, note);
  start(&b, 3, note);
  run_until(s, 3);
  assert_string_equal(s->ran, "abc");
  assert_false(tm__timers_cancel(&s->timers, a.id));
}

static void test_cancel(void **state) {
  stage *s = *state;
  act a = {.on = s, .letter = 'a'};
  act b = {.on = s, .letter = 'b'};
  start(&a, 1, note);
  start(&b, 2, note);
  assert_true(tm__timers_cancel(&s->timers, a.id));
  assert_false(tm__timers_cancel(&s->timers, a.id));
  assert_false(tm__timers_cancel(&s->timers, 0));
  assert_false(tm__timers_cancel(&s->timers, UINT64_MAX));
  run_until(s, 1);
  assert_string_equal(s->ran, "b");
}

static void test_old_id_is_not_the_new_timer(void **state) {
  stage *s = *state;
  act a = {.on = s, .letter = 'a'};
  act b = {.on = s, .letter = 'b'};
  start(&a, HOUR, note);
  assert_true(tm__timers_cancel(&s->timers, a.id));
  start(&b, HOUR, note);
  assert_int_equal(s->timers.count, 1); /* the handle is used again */
  assert_true(a.id != b.id);
  assert_false(tm__timers_cancel(&s->timers, a.id));
  assert_true(tm__timers_cancel(&s->timers, b.id));
}

static void cancel_other(void *ud) {
  act *a = ud;
  note(ud);
  a->self_cancelled = tm__timers_cancel(&a->on->timers, a->id);
  a->other_cancelled = tm__timers_cancel(&a->on->timers, a->other);
}

/* Both are due in the same turn of the loop; the one that runs first cancels the other. */
static void test_cancel_within_a_callback(void **state) {
  stage *s = *state;
  act a = {.on = s, .letter = 'a'};
  act b = {.on = s, .letter = 'b'};
  act c = {.on = s, .letter = 'c'};
  start(&a, 1, cancel_other);
  start(&b, 1, cancel_other);
  start(&c, 4, note);
  a.other = b.id;
  b.other = a.id;
  for (uint64_t due = uv_now(&s->loop) + 3; uv_now(&s->loop) < due;) {
    uv_update_time(&s->loop);
  }
  run_until(s, 2);
  assert_string_equal(s->ran, "ac");
  assert_true(a.other_cancelled);
  assert_false(a.self_cancelled);
}

static void start_again(void *ud) {
  act *a = ud;
  note(ud);
  if (a->again-- > 0) start(a, 0, start_again);
}

static void test_start_within_a_callback(void **state) {
  stage *s = *state;
  act a = {.on = s, .letter = 'a', .again = 9};
  start(&a, 0, start_again);
  run_until(s, 10);
  assert_string_equal(s->ran, "aaaaaaaaaa");
  assert_int_equal(s->timers.count, 1);
}

/* A timer that always starts the next one leaves each turn of the loop after one. */
static void test_zero_does_not_hold_the_loop(void **state) {
  stage *s = *state;
  act a = {.on = s, .letter = 'a', .again = 50};
  start(&a, 0, start_again);
  while (s->count < 51) {
    size_t before = s->count;
    (void)uv_run(&s->loop, UV_RUN_ONCE);
    assert_true(s->count <= before + 2); /* before and after it polls */
  }
}

static void test_many(void **state) {
  stage *s = *state;
  static act many[1000];
  for (size_t i = 0; i < 1000; i++) {
    many[i] = (act){.on = s, .letter = 'm'};
    start(&many[i], HOUR, note);
  }
  for (size_t i = 0; i < 1000; i += 2) {
    assert_true(tm__timers_cancel(&s->timers, many[i].id));
  }
  for (size_t i = 0; i < 1000; i++) {
    assert_int_equal(tm__timers_cancel(&s->timers, many[i].id), i % 2);
  }
  assert_int_equal(s->count, 0);
}

static void test_pending_at_close(void **state) {
  act a = {.on = *state, .letter = 'a'};
  start(&a, HOUR, note);
}

/* ---- in a worker ---- */

typedef struct job {
  tm_message message;
  tm_worker *worker;
  uv_sem_t ran;
  uint64_t hour, soon;
  bool on_thread, wrong;
} job;

static void on_hour(void *ud) {
  ((job *)ud)->wrong = true;
}

static void on_soon(void *ud) {
  job *j = ud;
  j->on_thread = tm__worker_here(j->worker);
  uv_sem_post(&j->ran);
}

static void start_both(tm_message *m) {
  job *j = (job *)m;
  tm_error err = {0};
  j->wrong = tm__timer_start(j->worker, HOUR, on_hour, j, &j->hour, &err) != TM_OK ||
             tm__timer_start(j->worker, HOUR, on_hour, j, &j->soon, &err) != TM_OK ||
             !tm__timer_cancel(j->worker, j->soon) ||
             tm__timer_start(j->worker, 1, on_soon, j, &j->soon, &err) != TM_OK;
}

static void test_worker_stops_with_a_timer(void **state) {
  (void)state;
  job j = {.message.run = start_both};
  assert_int_equal(uv_sem_init(&j.ran, 0), 0);
  assert_int_equal(tm__worker_start(&j.worker, "timers", NULL), TM_OK);
  tm__worker_post(j.worker, &j.message);
  uv_sem_wait(&j.ran);
  assert_int_equal(tm__worker_stop(j.worker), 1); /* the hour */
  assert_true(j.on_thread);
  assert_false(j.wrong);
  uv_sem_destroy(&j.ran);
}

#define STAGED(test) cmocka_unit_test_setup_teardown(test, open_stage, close_stage)

int main(void) {
  const struct CMUnitTest tests[] = {
      STAGED(test_order),
      STAGED(test_cancel),
      STAGED(test_old_id_is_not_the_new_timer),
      STAGED(test_cancel_within_a_callback),
      STAGED(test_start_within_a_callback),
      STAGED(test_zero_does_not_hold_the_loop),
      STAGED(test_many),
      STAGED(test_pending_at_close),
      cmocka_unit_test(test_worker_stops_with_a_timer),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
