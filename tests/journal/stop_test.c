/* Draining and stopping: running turns finish, waiting ones are refused, claims are given back. */
#include "fixture.h"

static bool is_finished(ending *e) {
  uv_mutex_lock(&e->host->fx->lock);
  bool finished = e->finished;
  uv_mutex_unlock(&e->host->fx->lock);
  return finished;
}

static void test_drain(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    char other[TM_ID_SIZE];
    char third[TM_ID_SIZE];
    ending e = {.host = h};
    assert_answer(start(h, id, "hello"));
    assert_answer(start(h, other, "hello"));
    answer *held = say(h, id, "hold");
    answer *behind = say(h, id, "behind");
    answer *begun = say(h, other, "hold_begun");
    run *r = held_run(h);
    while (r->what[4] == '_') /* the pure one may come second */
      r = r->next != NULL && strcmp(r->next->what, "hold") == 0 ? r->next : held_run(h);
    (void)begun;
    on_worker(h, drain_now, &e);
    assert_refused(behind, TM_EUNAVAILABLE, "host.stopping");
    assert_refused(say(h, id, "new"), TM_EUNAVAILABLE, "host.stopping");
    assert_refused(start(h, third, "new"), TM_EUNAVAILABLE, "host.stopping");
    assert_false(is_finished(&e));
    release(r);
    assert_answer(held);
    release(held_run(h));
    assert_answer(begun);
    await_ending(&e);
  }
}

static void test_drain_at_rest(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    ending e = {.host = &fx.hosts[0]};
    on_worker(&fx.hosts[0], drain_now, &e);
    await_ending(&e);
  }
}

/* Requests that wait for a turn elsewhere are not kept waiting by a host that stops. */
static void test_drain_refuses_the_patient(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    char id[TM_ID_SIZE];
    char other[TM_ID_SIZE];
    host_start(&fx, 1);
    assert_answer(start(&fx.hosts[0], id, "hello"));
    answer *a = say_keyed(&fx.hosts[0], id, "hold_begun", "k");
    run *r = held_run(&fx.hosts[0]);
    answer *patient = say_keyed(&fx.hosts[1], id, "hold_begun", "k");
    answer *suspended = start(&fx.hosts[1], other, "suspend");
    ending e = {.host = &fx.hosts[1]};
    on_worker(&fx.hosts[1], drain_now, &e);
    await_ending(&e);
    assert_refused(patient, TM_EUNAVAILABLE, "host.stopping");
    assert_refused(suspended, TM_EUNAVAILABLE, "host.stopping");
    release(r);
    assert_answer(a);
  }
}

static void test_abandon(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    char pure[TM_ID_SIZE];
    char begun[TM_ID_SIZE];
    assert_answer(start(&fx.hosts[0], pure, "hello"));
    assert_answer(start(&fx.hosts[0], begun, "hello"));
    answer *a = say(&fx.hosts[0], pure, "hold");
    (void)held_run(&fx.hosts[0]);
    answer *b = say_keyed(&fx.hosts[0], begun, "hold_begun", "k");
    while (strcmp(held_run(&fx.hosts[0])->what, "hold_begun") != 0) {
    }
    host_stop(&fx.hosts[0]);
    assert_refused(a, TM_EUNAVAILABLE, "host.stopping");
    assert_refused(b, TM_EUNAVAILABLE, "host.stopping");
    assert_int_equal(fx.cancelled, 2);
    tm_head h = stored_head(&fx, begun);
    assert_int_equal(h.status, TM_ACTIVE);
    assert_string_equal(h.claim, "");
    assert_int_equal(h.wake_at, fixture_now(&fx)); /* due at once */
    host_start(&fx, 1);
    answer *again = say_keyed(&fx.hosts[1], begun, "hold_begun", "k");
    assert_answer(again);
    assert_holds(again, "hold_begun 2");
    assert_int_equal(fx.outside_calls, 1);
    assert_answer(say(&fx.hosts[1], pure, "hello"));
  }
}

/* At any moment: what was answered is stored, what was not is refused or taken up. */
static void test_abandon_at_any_moment(void **unused) {
  (void)unused;
  for (int round = 0; round < 30; round++) {
    fixture fx;
    fixture_open(&fx, fixture_backends[round % FIXTURE_BACKENDS].scheme);
    char ids[8][TM_ID_SIZE];
    answer *answers[8];
    for (int i = 0; i < 8; i++) {
      assert_answer(start(&fx.hosts[0], ids[i], "hello"));
    }
    for (int i = 0; i < 8; i++) {
      answers[i] = say(&fx.hosts[0], ids[i], i % 2 == 0 ? "call2" : "plain");
    }
    for (volatile int spin = 0; spin < round * 2000; spin++) {
    }
    host_stop(&fx.hosts[0]);
    host_start(&fx, 1);
    for (int i = 0; i < 8; i++) {
      bool done = await(answers[i])->status == TM_OK;
      if (!done) assert_string_equal(answers[i]->error.code, "host.stopping");
      answer *next = say(&fx.hosts[1], ids[i], "next");
      assert_answer(next);
      if (done) assert_holds(next, "next 3");
    }
    fixture_close(&fx);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_drain),
      cmocka_unit_test(test_drain_at_rest),
      cmocka_unit_test(test_drain_refuses_the_patient),
      cmocka_unit_test(test_abandon),
      cmocka_unit_test(test_abandon_at_any_moment),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
