/* Signals: what steers a conversation or comes from somebody else than its user is queued, run,
 * resumed, overtaken and repeated as a message is, whatever the conversation waits for. */
#include "fixture.h"

static const struct {
  const char *what;
  tm_conversation_status status;
} waits[] = {
    {"hello", TM_WAITING_INPUT}, {"approval", TM_WAITING_APPROVAL},
    {"event", TM_WAITING_EVENT}, {"sleep", TM_SLEEPING},
    {"pause", TM_PAUSED},
};
#define WAITS (sizeof(waits) / sizeof(waits[0]))

static const tm_turn_kind kinds[] = {TM_TURN_COMMAND, TM_TURN_APPROVAL, TM_TURN_EVENT,
                                     TM_TURN_PAUSE, TM_TURN_UNPAUSE};
#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

/* What was submitted before is decided once a later request is answered. */
static void settle(host *h, const char *id) {
  assert_refused(undo(h, id, 0, 0, false), TM_EINVAL, "request.invalid");
}

static void test_runs_whatever_is_waited_for(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    for (size_t i = 0; i < WAITS; i++) {
      for (size_t k = 0; k < KINDS; k++) {
        char id[TM_ID_SIZE];
        assert_answer(start(h, id, waits[i].what));
        assert_int_equal(stored_head(&fx, id).status, waits[i].status);
        answer *a = signal_it(h, id, kinds[k], kinds[k] == TM_TURN_PAUSE ? NULL : "hello");
        assert_answer(a);
        assert_int_equal(fx.last_kind, kinds[k]);
        assert_int_equal(fx.last_began_as, kinds[k]);
        if (kinds[k] == TM_TURN_PAUSE) {
          assert_string_equal(fx.last_input, "null");
          assert_member(a, "status", "\"paused\"");
        } else {
          assert_string_equal(fx.last_input, "{\"message\":\"hello\"}");
          assert_member(a, "status", "\"waiting_input\"");
        }
        assert_member(a, "revision", "2");
      }
    }
  }
}

static void test_message_is_decided_by_the_executor(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    for (size_t i = 1; i < WAITS; i++) {
      char id[TM_ID_SIZE];
      assert_answer(start(h, id, waits[i].what));
      answer *a = say(h, id, "hello");
      assert_refused(a, TM_ECONFLICT, "test.refused");
      assert_string_equal(a->error.conversation_id, id);
      assert_int_equal(fx.last_kind, TM_TURN_MESSAGE);
      assert_int_equal(stored_head(&fx, id).revision, 1);
    }
  }
}

static void test_what_is_over_or_unknown(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE], none[TM_ID_SIZE], waiting[TM_ID_SIZE];
    assert_answer(start(h, id, "finish"));
    assert_answer(start(h, waiting, "approval"));
    tm__uuid7(none, fx.now);
    int turns = fx.turns;
    for (size_t k = 0; k < KINDS; k++) {
      assert_refused(signal_it(h, id, kinds[k], "hello"), TM_ECONFLICT, "conversation.finished");
      assert_refused(signal_it(h, none, kinds[k], "hello"), TM_ENOTFOUND, "conversation.not_found");
      fx.tenant = "t2";
      assert_refused(signal_it(h, waiting, kinds[k], "hello"), TM_ENOTFOUND,
                     "conversation.not_found");
      fx.tenant = "t1";
    }
    assert_int_equal(fx.turns, turns);
  }
}

static void test_stands_in_the_queue(void **unused) {
  (void)unused;
  fixture fx;
  fixture_init(&fx, "sqlite");
  fx.queue_limit = 3;
  storage_start(&fx);
  host_start(&fx, 0);
  host *h = &fx.hosts[0];
  char id[TM_ID_SIZE];
  assert_answer(start(h, id, "hello"));
  answer *first = say(h, id, "hold");
  run *r = held_run(h);
  answer *approval = signal_it(h, id, TM_TURN_APPROVAL, "approved");
  answer *pause = signal_it(h, id, TM_TURN_PAUSE, NULL);
  answer *event = signal_it(h, id, TM_TURN_EVENT, "paid");
  assert_refused(signal_it(h, id, TM_TURN_EVENT, "more"), TM_ELIMIT, "conversation.queue_full");
  assert_false(is_here(approval));
  release(r);
  assert_answer(first);
  assert_answer(approval);
  assert_holds(approval, "approved 3");
  assert_answer(pause);
  assert_member(pause, "status", "\"paused\"");
  assert_member(pause, "revision", "4");
  assert_answer(event);
  assert_holds(event, "paid 5");
  fixture_close(&fx);
}

static void test_repeats(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    for (size_t k = 0; k < KINDS; k++) {
      char id[TM_ID_SIZE];
      assert_answer(start(h, id, "approval"));
      answer *first = signal_keyed(h, id, kinds[k], "call", "k1");
      answer *during = signal_keyed(h, id, kinds[k], "call", "k1");
      assert_answer(first);
      assert_answer(during);
      assert_string_equal(first->json, during->json);
      int turns = fx.turns;
      assert_refused(signal_keyed(h, id, kinds[k], "call2", "k1"), TM_EREUSED,
                     "idempotency.key_reused");
      assert_refused(say_keyed(h, id, "call", "k1"), TM_EREUSED, "idempotency.key_reused");
      if (backend_ == 0) fixture_restart(&fx);
      answer *later = signal_keyed(h, id, kinds[k], "call", "k1");
      assert_answer(later);
      assert_string_equal(first->json, later->json);
      assert_int_equal(fx.turns, turns);
    }
  }
}

/* A refusal does not use up the key. */
static void test_refused_key_is_free(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    assert_answer(start(h, id, "approval"));
    assert_refused(signal_keyed(h, id, TM_TURN_COMMAND, "refuse", "k1"), TM_ECONFLICT,
                   "test.refused");
    assert_answer(signal_keyed(h, id, TM_TURN_APPROVAL, "hello", "k1"));
  }
}

/* Another host takes it up and is told what it began as; the client of the first gets the answer.
 */
static void test_resumed_elsewhere(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    for (size_t k = 0; k < KINDS; k++) {
      if (kinds[k] == TM_TURN_PAUSE) continue; /* pauses at once */
      char id[TM_ID_SIZE];
      host_start(&fx, 1);
      assert_answer(start(&fx.hosts[0], id, "approval"));
      answer *a = signal_keyed(&fx.hosts[0], id, kinds[k], "hold_begun", "k1");
      run *r = held_run(&fx.hosts[0]);
      assert_int_equal(stored_head(&fx, id).status, TM_ACTIVE);
      assert_refused(signal_keyed(&fx.hosts[1], id, kinds[k], "other", "k1"), TM_EREUSED,
                     "idempotency.key_reused");
      turn_clock(&fx, LEASE_MS + 1);
      answer *repeat = signal_keyed(&fx.hosts[1], id, kinds[k], "hold_begun", "k1");
      assert_answer(repeat);
      assert_int_equal(fx.last_kind, TM_TURN_RESUME);
      assert_int_equal(fx.last_began_as, kinds[k]);
      assert_string_equal(fx.last_input, "{\"message\":\"hold_begun\"}");
      assert_non_null(strstr(fx.last_calls, ":http:"));
      on_worker(&fx.hosts[0], call_now, r);
      assert_answer(a);
      assert_string_equal(a->json, repeat->json);
      host_stop(&fx.hosts[1]);
    }
  }
}

static void test_goes_on_after_a_retry(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    assert_answer(start(h, id, "approval"));
    answer *a = signal_it(h, id, TM_TURN_APPROVAL, "suspend");
    while (stored_head(&fx, id).status != TM_ACTIVE) {
    }
    turn_clock(&fx, fx.retry_ms);
    wake(h, id);
    assert_answer(a);
    assert_holds(a, "retried 3");
    assert_int_equal(fx.last_began_as, TM_TURN_APPROVAL);
  }
}

/* Its copy is old: it loses, and runs on what the other host has written. */
static void test_overtaken(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    char id[TM_ID_SIZE];
    host_start(&fx, 1);
    assert_answer(start(&fx.hosts[0], id, "approval"));
    assert_answer(signal_it(&fx.hosts[1], id, TM_TURN_EVENT, "approval"));
    answer *a = signal_it(&fx.hosts[0], id, TM_TURN_APPROVAL, "hello");
    assert_answer(a);
    assert_member(a, "revision", "3");
    assert_holds(a, "hello 3");
  }
}

/* What is refused because of the record is refused because of the newest. */
static void test_no_refusal_by_an_old_copy(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    char id[TM_ID_SIZE];
    host_start(&fx, 1);
    assert_answer(start(&fx.hosts[0], id, "approval"));
    assert_answer(signal_it(&fx.hosts[1], id, TM_TURN_APPROVAL, "hello"));
    answer *a = say(&fx.hosts[0], id, "answered");
    assert_answer(a);
    assert_holds(a, "answered 3");
    assert_answer(signal_it(&fx.hosts[1], id, TM_TURN_EVENT, "finish"));
    assert_refused(signal_it(&fx.hosts[0], id, TM_TURN_COMMAND, "refuse"), TM_ECONFLICT,
                   "conversation.finished");
  }
}

/* ---- deadlines ---- */

static void test_wakes_whoever_waits(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    for (size_t i = 1; i < WAITS; i++) {
      char id[TM_ID_SIZE];
      assert_answer(start(h, id, waits[i].what));
      turn_clock(&fx, 1000);
      int turns = fx.turns;
      wake(h, id);
      settle(h, id);
      bool paused = waits[i].status == TM_PAUSED;
      assert_int_equal(fx.turns, paused ? turns : turns + 1);
      assert_int_equal(stored_head(&fx, id).status, paused ? TM_PAUSED : TM_EXPIRED);
      assert_int_equal(stored_head(&fx, id).wake_at, 0); /* and is not found again */
    }
  }
}

/* The deadline from before the pause brings nothing; the one of who goes on does. */
static void test_deadline_after_a_pause(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    assert_answer(start(h, id, "deadline"));
    turn_clock(&fx, 500);
    assert_answer(signal_it(h, id, TM_TURN_PAUSE, NULL));
    turn_clock(&fx, 10000);
    wake(h, id);
    settle(h, id);
    assert_int_equal(stored_head(&fx, id).wake_at, 0);
    assert_answer(signal_it(h, id, TM_TURN_UNPAUSE, "deadline"));
    assert_int_equal(stored_head(&fx, id).wake_at, fixture_now(&fx) + 1000);
    turn_clock(&fx, 1000);
    wake(h, id);
    settle(h, id);
    assert_int_equal(stored_head(&fx, id).status, TM_EXPIRED);
  }
}

/* A deadline that the executor refuses does not come back at every look. */
static void test_refused_deadline_is_put_off(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    fx.on_wake = "refuse";
    assert_answer(start(h, id, "event"));
    turn_clock(&fx, 1000);
    wake(h, id);
    settle(h, id);
    assert_int_equal(stored_head(&fx, id).wake_at, fixture_now(&fx) + 1000);
    assert_int_equal(stored_head(&fx, id).status, TM_WAITING_EVENT);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_runs_whatever_is_waited_for),
      cmocka_unit_test(test_message_is_decided_by_the_executor),
      cmocka_unit_test(test_what_is_over_or_unknown),
      cmocka_unit_test(test_stands_in_the_queue),
      cmocka_unit_test(test_repeats),
      cmocka_unit_test(test_refused_key_is_free),
      cmocka_unit_test(test_resumed_elsewhere),
      cmocka_unit_test(test_goes_on_after_a_retry),
      cmocka_unit_test(test_overtaken),
      cmocka_unit_test(test_no_refusal_by_an_old_copy),
      cmocka_unit_test(test_wakes_whoever_waits),
      cmocka_unit_test(test_deadline_after_a_pause),
      cmocka_unit_test(test_refused_deadline_is_put_off),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
