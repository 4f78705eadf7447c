/* What is undone before a conversation has failed for good: which steps, after which crash. */
#include "fixture.h"

#define PAID(n)                                                                                    \
  "{\"output\":{\"id\":7},\"seq\":" #n ",\"step_id\":\"step" #n "\",\"undo\":\"orders\"}"

static void assert_list(const fixture *fx, const char *irreversible, const char *steps) {
  char wanted[256];
  (void)snprintf(wanted, sizeof(wanted),
                 "{\"irreversible\":\"%s\",\"limited\":false,\"more\":false,\"steps\":[%s]}",
                 irreversible, steps);
  assert_string_equal(fx->last_input, wanted);
  assert_int_equal(fx->last_kind, TM_TURN_RESUME);
  assert_int_equal(fx->last_began_as, TM_TURN_MESSAGE);
}

static void ordered(host *h, char id[TM_ID_SIZE]) {
  h->fx->retry_ms = 0;
  assert_answer(start(h, id, "one"));
  assert_answer(say(h, id, "paid"));
  assert_answer(say(h, id, "paid"));
}

/* The steps from the start on, the newest first; the client gets the end of it. */
static void test_all_of_it(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    ordered(h, id);
    assert_answer(say(h, id, "fixed"));
    assert_answer(say(h, id, "loose"));
    assert_answer(say(h, id, "call"));
    assert_answer(say(h, id, "call"));
    answer *a = say_keyed(h, id, "break", "key");
    assert_answer(a);
    assert_member(a, "status", "\"failed\"");
    assert_list(&fx, "step7, step6, step4", PAID(3) "," PAID(2));
    int turns = fx.turns;
    answer *again = say_keyed(h, id, "break", "key");
    assert_answer(again);
    assert_string_equal(a->json, again->json);
    assert_int_equal(fx.turns, turns);
    assert_refused(say(h, id, "more"), TM_ECONFLICT, "conversation.finished");
    assert_refused(undo(h, id, 1, 0, false), TM_ECONFLICT, "rollback.compensated");
    assert_answer(undo(h, id, 1, 0, true));
  }
}

/* Not what was rolled back before, nor what was undone by a rollback that failed. */
static void test_not_twice(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    ordered(h, id);
    assert_answer(say(h, id, "paid"));
    assert_answer(undo(h, id, 1, 0, false)); /* step 4 */
    fx.on_undo = "undo_fail";                /* says that it has undone step 3 */
    assert_refused(undo(h, id, 2, 0, false), TM_ECONFLICT, "rollback.undo_failed");
    assert_answer(say(h, id, "break"));
    assert_list(&fx, "", PAID(2));
  }
}

/* One step at a time: what was undone before it was put off is not in the next list. */
static void test_goes_on(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    ordered(h, id);
    fx.on_failing = "failing_later";
    answer *a = say(h, id, "break");
    assert_answer(a);
    assert_member(a, "status", "\"failed\"");
    assert_list(&fx, "", PAID(3));
  }
}

static void test_what_is_left(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    ordered(h, id);
    fx.on_failing = "failing_left";
    assert_answer(say(h, id, "break"));
    assert_list(&fx, "", PAID(2));
  }
}

/* No more than what a worker can hold beside its work; the rest is in the next list. */
static void test_large_outputs(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    ordered(h, id);
    assert_answer(say(h, id, "paid_large"));
    assert_answer(say(h, id, "paid_large"));
    assert_answer(say(h, id, "break"));
    assert_true(fx.last_more);
    assert_in_range(fx.last_length, 100000, 101000); /* one of them */
  }
}

static void test_after_a_crash(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    char id[TM_ID_SIZE];
    if (!fixture_durable(&fx)) continue;
    ordered(&fx.hosts[0], id);
    fx.on_failing = "failing_call";
    answer *lost = say(&fx.hosts[0], id, "break");
    (void)held_run(&fx.hosts[0]);
    assert_int_equal(stored_head(&fx, id).status, TM_ACTIVE);
    int calls = fx.outside_calls;
    fx.on_failing = NULL;
    fixture_restart(&fx);
    assert_refused(lost, TM_EUNAVAILABLE, "host.stopping");
    assert_refused(say(&fx.hosts[0], id, "more"), TM_ECONFLICT, "conversation.finished");
    assert_int_equal(stored_head(&fx, id).status, TM_FAILED);
    assert_non_null(strstr(fx.last_input, "\"steps\":[" PAID(3) "," PAID(2) "]"));
    assert_non_null(strstr(fx.last_calls, "\"status\":200"));
    assert_int_equal(fx.outside_calls, calls);
  }
}

/* Half undone it can neither go on nor be as it was: a message that would interrupt waits. */
static void test_is_not_interrupted(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    fx.concurrency = "interrupt";
    ordered(h, id);
    fx.on_failing = "failing_call";
    answer *a = say(h, id, "break");
    run *r = held_run(h);
    answer *other = say(h, id, "more");
    release(r);
    assert_answer(a);
    assert_member(a, "status", "\"failed\"");
    assert_refused(other, TM_ECONFLICT, "conversation.finished");
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_all_of_it),
      cmocka_unit_test(test_not_twice),
      cmocka_unit_test(test_goes_on),
      cmocka_unit_test(test_what_is_left),
      cmocka_unit_test(test_large_outputs),
      cmocka_unit_test(test_after_a_crash),
      cmocka_unit_test(test_is_not_interrupted),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
