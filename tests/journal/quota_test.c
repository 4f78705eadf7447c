/* Quotas: how many steps the conversations of a session may have had, on whichever host. */
#include "fixture.h"

/* The system says it itself. */
static void limit_steps(fixture *fx, int most) {
  tm_error err;
  tm_buf description = {0};
  tm__buf_printf(&description, "{\"name\":\"shop\",\"session_config\":{\"steps_most\":%d}}", most);
  tm_bundle *b =
      tm__bundle_new(TM_S("shop"), TM_S("v1"), TM_S("{\"files\":{}}"), tm__buf_view(&description));
  tm__buf_free(&description);
  assert_non_null(b);
  assert_int_equal(tm__registry_switch(fx->registry, &b, 1, &err), TM_OK);
  fx->counts = true;
}

static answer *fork_it(host *h, const char *id, char other[TM_ID_SIZE]) {
  tm__uuid7(other, fixture_now(h->fx));
  tm_request *r = request_new(h->fx->tenant, TM_REQUEST_FORK, other);
  (void)tm__copy(r->origin, sizeof(r->origin), tm__slice(id));
  return submit(h, r);
}

static void assert_over(answer *a) {
  assert_refused(a, TM_ELIMIT, "session.steps");
  assert_int_equal(a->error.retry_after_ms, 0); /* time alone helps nobody */
}

static void test_counts_all_of_a_session(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char one[TM_ID_SIZE], other[TM_ID_SIZE], none[TM_ID_SIZE];
    limit_steps(&fx, 4);
    assert_answer(start(h, one, "hello"));
    assert_answer(start(h, other, "hello"));
    assert_answer(say(h, one, "x"));
    assert_answer(say(h, other, "x"));
    int turns = fx.turns;
    assert_over(say(h, one, "y"));
    assert_over(start(h, none, "hello"));
    assert_over(signal_it(h, other, TM_TURN_COMMAND, "x"));
    assert_int_equal(fx.turns, turns); /* nothing ran, and nothing was written */
    assert_int_equal(stored_head(&fx, one).revision, 2);
    fx.session = "s2";
    assert_answer(start(h, none, "hello"));
    fx.tenant = "t2";
    fx.session = "s1";
    assert_answer(start(h, none, "hello"));
    fx.tenant = "t1";
    limit_steps(&fx, 5);
    assert_answer(say(h, one, "y"));
    assert_over(say(h, one, "z"));
    limit_steps(&fx, 0);
    assert_answer(say(h, one, "z"));
  }
}

/* What has its answer gets it, and what others decide or time brings is never lost. */
static void test_refuses_only_users(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE], waits[TM_ID_SIZE];
    limit_steps(&fx, 3);
    assert_answer(start_keyed(h, id, "hello", "k1"));
    assert_answer(say_keyed(h, id, "deadline", "k2"));
    assert_answer(start(h, waits, "approval"));
    assert_over(say_keyed(h, id, "more", "k3"));
    char fresh[TM_ID_SIZE];
    assert_answer(start_keyed(h, fresh, "hello", "k1"));
    assert_answer(say_keyed(h, id, "deadline", "k2"));
    assert_answer(signal_it(h, waits, TM_TURN_APPROVAL, "event"));
    assert_answer(signal_it(h, waits, TM_TURN_EVENT, "x"));
    turn_clock(&fx, 1000);
    wake(h, id);
    answer *a = cancel(h, id); /* behind it */
    assert_answer(a);
    assert_member(a, "status", "\"expired\"");
    assert_answer(undo(h, id, 1, 0, true));
  }
}

static void test_goes_for_all_hosts(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    char one[TM_ID_SIZE], other[TM_ID_SIZE], none[TM_ID_SIZE];
    host_start(&fx, 1);
    limit_steps(&fx, 4);
    assert_answer(start(&fx.hosts[0], one, "hello"));
    assert_answer(start(&fx.hosts[1], other, "hello"));
    assert_answer(say_keyed(&fx.hosts[1], one, "x", "k1"));
    assert_answer(say(&fx.hosts[0], other, "x"));
    assert_answer(
        say_keyed(&fx.hosts[0], one, "x", "k1")); /* whose hot copy is that of its start */
    assert_over(say(&fx.hosts[0], one, "y"));
    assert_over(say(&fx.hosts[1], other, "y"));
    assert_over(start(&fx.hosts[1], none, "hello"));
    if (!fixture_durable(&fx)) continue;
    fixture_restart(&fx);
    limit_steps(&fx, 4);
    assert_over(say(&fx.hosts[0], one, "y"));
  }
}

/* Whoever goes on with a turn does not count again what was counted. */
static void test_counts_a_resumed_turn_once(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    char id[TM_ID_SIZE];
    host_start(&fx, 1);
    limit_steps(&fx, 4);
    assert_answer(start(&fx.hosts[0], id, "hello"));
    answer *lost = say(&fx.hosts[0], id, "hold_begun");
    (void)held_run(&fx.hosts[0]);
    turn_clock(&fx, LEASE_MS + 1);
    assert_answer(say(&fx.hosts[1], id, "x")); /* after the turn, which it takes up */
    assert_answer(lost);
    assert_int_equal(fx.last_kind, TM_TURN_MESSAGE);
    assert_answer(say(&fx.hosts[1], id, "last"));
    assert_over(say(&fx.hosts[1], id, "y"));
  }
}

/* A turn that waits for its next attempt has had its first one. */
static void test_counts_attempts(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    char id[TM_ID_SIZE];
    limit_steps(&fx, 3);
    fx.retry_ms = 0;
    assert_answer(start(&fx.hosts[0], id, "hello"));
    answer *a = say(&fx.hosts[0], id, "suspend");
    assert_answer(a);
    assert_over(say(&fx.hosts[0], id, "y"));
  }
}

/* What was undone was done; what a fork goes on from was not done by it. */
static void test_counts_what_was_done(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE], other[TM_ID_SIZE], third[TM_ID_SIZE];
    limit_steps(&fx, 6);
    assert_answer(start(h, id, "hello"));
    assert_answer(say(h, id, "x"));
    assert_answer(undo(h, id, 1, 0, false));
    assert_answer(say(h, id, "x"));
    assert_answer(fork_it(h, id, other));
    assert_answer(say(h, other, "x"));
    assert_answer(undo(h, other, 1, 0, false));
    assert_answer(fork_it(h, other, third));
    assert_answer(say(h, third, "x"));
    assert_answer(say(h, other, "y"));
    assert_over(say(h, other, "z"));
    assert_over(say(h, third, "z"));
    assert_over(say(h, id, "z"));
  }
}

static void test_takes_what_the_configuration_says(void **unused) {
  (void)unused;
  EACH_OPENED(fx, fixture_init) {
    char id[TM_ID_SIZE];
    fx.counts = true;
    fx.quotas.session_steps = 2;
    storage_start(&fx);
    host_start(&fx, 0);
    assert_answer(start(&fx.hosts[0], id, "volatile"));
    assert_answer(say(&fx.hosts[0], id, "x"));
    assert_over(say(&fx.hosts[0], id, "y"));
    limit_steps(&fx, 3); /* what the system says is stronger */
    assert_answer(say(&fx.hosts[0], id, "y"));
  }
}

/* More conversations than are looked at in one go. */
static void test_counts_many(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    char id[TM_ID_SIZE];
    limit_steps(&fx, 70);
    for (int i = 0; i < 70; i++)
      assert_answer(start(&fx.hosts[0], id, i % 9 == 0 ? "volatile" : "finish"));
    assert_over(start(&fx.hosts[0], id, "finish"));
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_counts_all_of_a_session),
      cmocka_unit_test(test_refuses_only_users),
      cmocka_unit_test(test_goes_for_all_hosts),
      cmocka_unit_test(test_counts_a_resumed_turn_once),
      cmocka_unit_test(test_counts_attempts),
      cmocka_unit_test(test_counts_what_was_done),
      cmocka_unit_test(test_takes_what_the_configuration_says),
      cmocka_unit_test(test_counts_many),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
