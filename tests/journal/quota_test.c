/* Quotas: how many steps the conversations of a session may have had, and how many turns may begin
 * in a minute, on whichever host. */
#include "fixture.h"
#include "journal/slot.h"

/* The system says it itself. */
static void limit(fixture *fx, const char *what, int most) {
  tm_error err;
  tm_buf description = {0};
  tm__buf_printf(&description, "{\"name\":\"shop\",\"session_config\":{\"%s\":%d}}", what, most);
  tm_bundle *b =
      tm__bundle_new(TM_S("shop"), TM_S("v1"), TM_S("{\"files\":{}}"), tm__buf_view(&description));
  tm__buf_free(&description);
  assert_non_null(b);
  assert_int_equal(tm__registry_switch(fx->registry, &b, 1, &err), TM_OK);
  fx->counts = true;
}

static void limit_steps(fixture *fx, int most) {
  limit(fx, "steps_most", most);
}

static void limit_rate(fixture *fx, int most) {
  limit(fx, "rate_most", most);
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

/* ---- turns of a minute ---- */

#define LEFT_MS (60000 - START_NOW % 60000) /* of the minute in which a test begins */

static void assert_too_fast(answer *a, int64_t wait) {
  assert_refused(a, TM_ELIMIT, "turn.rate");
  assert_int_equal(a->error.retry_after_ms, wait);
}

static void test_limits_turns_of_a_minute(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE], other[TM_ID_SIZE];
    limit_rate(&fx, 4);
    assert_answer(start_keyed(h, id, "hello", "k1"));
    assert_answer(say_keyed(h, id, "x", "k2"));
    assert_refused(say(h, id, "fail"), TM_EINVAL, "input.invalid"); /* it was a turn */
    assert_answer(signal_it(h, id, TM_TURN_COMMAND, "x"));
    int turns = fx.turns;
    assert_too_fast(say(h, id, "y"), LEFT_MS);
    assert_too_fast(start(h, other, "hello"), LEFT_MS);
    assert_too_fast(signal_it(h, id, TM_TURN_COMMAND, "y"), LEFT_MS);
    assert_int_equal(fx.turns, turns);
    assert_int_equal(stored_head(&fx, id).revision, 3);
    assert_answer(start_keyed(h, other, "hello", "k1"));
    assert_answer(say_keyed(h, id, "x", "k2"));
    fx.tenant = "t2";
    assert_answer(start(h, other, "hello"));
    fx.tenant = "t1";
    turn_clock(&fx, LEFT_MS - 1);
    assert_too_fast(say(h, id, "y"), 1);
    turn_clock(&fx, 1);
    for (int i = 0; i < 4; i++)
      assert_answer(say(h, id, "y"));
    assert_too_fast(say(h, id, "y"), 60000);
    limit_rate(&fx, 5);
    assert_answer(say(h, id, "y"));
    assert_too_fast(say(h, id, "y"), 60000);
    limit_rate(&fx, 0);
    assert_answer(say(h, id, "y"));
  }
}

/* Nothing has begun, so nothing is counted; and the error names nothing that is not there. */
static void test_counts_no_start_without_a_session(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE], other[TM_ID_SIZE];
    limit_rate(&fx, 4);
    fx.sessions.tenant_most = 1;
    assert_answer(start(h, id, "hello"));
    fx.session = "s2";
    for (int i = 0; i < 3; i++) {
      answer *a = start(h, other, i == 0 ? "call" : "hello");
      assert_refused(a, TM_ELIMIT, "session.limit");
      assert_string_equal(a->error.conversation_id, "");
    }
    for (int i = 0; i < 3; i++)
      assert_answer(say(h, id, "x"));
    assert_too_fast(say(h, id, "y"), LEFT_MS);
    turn_clock(&fx, LEFT_MS);
    answer *held = start(h, other, "hold");
    run *r = held_run(h);
    turn_clock(&fx, 60000);
    assert_answer(say(h, id, "x"));
    release(r); /* it was counted in another minute */
    assert_refused(held, TM_ELIMIT, "session.limit");
    for (int i = 0; i < 3; i++)
      assert_answer(say(h, id, "x"));
    assert_too_fast(say(h, id, "y"), 60000);
  }
}

typedef struct seen {
  run *r;
  bool interrupted;
} seen;

static void see(void *ud) {
  seen *is = ud;
  is->interrupted = is->r->turn->interrupted;
}

/* Who is refused ends nobody's turn. */
static void test_interrupts_by_what_may_run(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    fx.concurrency = "interrupt";
    limit_rate(&fx, 2);
    assert_answer(start(h, id, "hello"));
    answer *one = say(h, id, "hold");
    run *r = held_run(h);
    answer *two = say(h, id, "two");
    release(r);
    assert_answer(one);
    assert_too_fast(two, LEFT_MS);
    turn_clock(&fx, LEFT_MS);
    one = say(h, id, "hold");
    r = held_run(h);
    two = say(h, id, "two");
    seen is = {.r = r};
    while (!is.interrupted)
      on_worker(h, see, &is);
    release(r);
    assert_refused(one, TM_ECONFLICT, "conversation.interrupted");
    assert_answer(two);
  }
}

/* Neither decisions and deadlines, nor what operators do. */
static void test_loses_nothing_by_a_rate(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE], waits[TM_ID_SIZE];
    limit_rate(&fx, 2);
    assert_answer(start(h, id, "deadline"));
    assert_answer(start(h, waits, "approval"));
    assert_too_fast(say(h, id, "x"), LEFT_MS);
    assert_answer(signal_it(h, waits, TM_TURN_APPROVAL, "event"));
    assert_answer(signal_it(h, waits, TM_TURN_EVENT, "x"));
    turn_clock(&fx, 1000);
    wake(h, id);
    answer *a = cancel(h, id); /* behind it */
    assert_answer(a);
    assert_member(a, "status", "\"expired\"");
    assert_answer(undo(h, waits, 1, 0, true));
  }
}

/* Starts on the host until it refuses; how many were answered. */
static int start_all(host *h) {
  char id[TM_ID_SIZE];
  for (int i = 0;; i++) {
    answer *a = await(start(h, id, "finish"));
    if (a->status == TM_OK) continue;
    assert_refused(a, TM_ELIMIT, "turn.rate");
    return i;
  }
}

static void test_shares_a_minute(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    char id[TM_ID_SIZE];
    host_start(&fx, 1);
    limit_rate(&fx, 64);
    assert_answer(start(&fx.hosts[1], id, "finish"));
    assert_int_equal(start_all(&fx.hosts[0]), 60);
    assert_int_equal(start_all(&fx.hosts[1]), 3); /* what it had left of its share */
    assert_int_equal(start_all(&fx.hosts[0]), 0);
    turn_clock(&fx, 60000);
    assert_int_equal(start_all(&fx.hosts[1]), 64);
    assert_int_equal(start_all(&fx.hosts[0]), 0);
    turn_clock(&fx, 60000);
    assert_answer(start(&fx.hosts[0], id, "finish"));
    host_stop(&fx.hosts[0]); /* its share is lost for this minute */
    assert_int_equal(start_all(&fx.hosts[1]), 60);
  }
}

/* A host whose clock is behind takes from the minute of the others, or from its own if that is long
 * ago: never for ever from one that is far away. */
static void test_bears_other_clocks(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host_start(&fx, 1);
    limit_rate(&fx, 8);
    turn_clock(&fx, 60000);
    assert_int_equal(start_all(&fx.hosts[0]), 8);
    turn_clock(&fx, -60000);
    assert_int_equal(start_all(&fx.hosts[1]), 0);
    turn_clock(&fx, -60000);
    assert_int_equal(start_all(&fx.hosts[1]), 8);
  }
}

/* Of many that come at once, on both hosts, exactly as many as there may be. */
static void test_limits_concurrent_turns(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    answer *all[60];
    int begun = 0;
    char id[TM_ID_SIZE];
    host_start(&fx, 1);
    limit_rate(&fx, 20);
    for (int i = 0; i < 60; i++)
      all[i] = start(&fx.hosts[i % 2], id, "finish");
    for (int i = 0; i < 60; i++) {
      begun += await(all[i])->status == TM_OK;
      if (all[i]->status != TM_OK) assert_refused(all[i], TM_ELIMIT, "turn.rate");
    }
    assert_int_equal(begun + start_all(&fx.hosts[0]) + start_all(&fx.hosts[1]), 20);
  }
}

/* On a host that has only heard of the start. */
static void test_repeats_are_answered(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    char id[TM_ID_SIZE];
    host_start(&fx, 1);
    limit_rate(&fx, 3);
    assert_answer(start(&fx.hosts[0], id, "hello"));
    assert_answer(say(&fx.hosts[0], id, "x"));
    assert_answer(say_keyed(&fx.hosts[1], id, "x", "k1"));
    assert_answer(say_keyed(&fx.hosts[0], id, "x", "k1"));
    assert_too_fast(say_keyed(&fx.hosts[0], id, "x", "k2"), LEFT_MS);
    assert_answer(say_keyed(&fx.hosts[0], id, "x", "k1"));
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
      cmocka_unit_test(test_limits_turns_of_a_minute),
      cmocka_unit_test(test_counts_no_start_without_a_session),
      cmocka_unit_test(test_interrupts_by_what_may_run),
      cmocka_unit_test(test_loses_nothing_by_a_rate),
      cmocka_unit_test(test_shares_a_minute),
      cmocka_unit_test(test_bears_other_clocks),
      cmocka_unit_test(test_limits_concurrent_turns),
      cmocka_unit_test(test_repeats_are_answered),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
