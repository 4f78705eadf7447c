/* What a turn that corrects an answer gets: the executions, calls and the state since then. */
#include "fixture.h"

static tm_slice trail_of(const fixture *fx) {
  tm_slice trail = tm__json_get(tm__slice(fx->last_input), "trail");
  assert_non_null(trail.ptr);
  return trail;
}

/* The ids of the steps, or the keys of the calls. */
static void names(tm_slice list, const char *member, char *out, size_t size) {
  tm_json_walk w;
  tm_slice key;
  tm_slice one;
  out[0] = '\0';
  assert_true(tm__json_walk(&w, list));
  while (tm__json_next(&w, &key, &one)) {
    tm_buf name = {0};
    assert_true(tm__json_get_text(one, member, &name));
    size_t len = strlen(out);
    (void)snprintf(out + len, size - len, "%s%.*s", len > 0 ? " " : "", (int)name.len, name.ptr);
    tm__buf_free(&name);
  }
}

static void assert_trail(const fixture *fx, const char *steps, int calls, const char *count) {
  char list[256];
  names(tm__json_get(trail_of(fx), "steps"), "step_id", list, sizeof(list));
  assert_string_equal(list, steps);
  names(tm__json_get(trail_of(fx), "calls"), "key", list, sizeof(list));
  int found = list[0] != '\0';
  for (const char *at = list; *at != '\0'; at++)
    found += *at == ' ';
  assert_int_equal(found, calls);
  tm_slice state = tm__json_get(trail_of(fx), "state");
  assert_true(tm__slice_is(tm__json_get(state, "count"), count));
}

static answer *correct(host *h, const char *id) {
  return signal_it(h, id, TM_TURN_COMMAND, "correct");
}

static void test_trail(void **unused) {
  (void)unused;
  EACH_STARTED(fx, fixture_open, "one") {
    assert_answer(say(h, id, "answer"));
    assert_answer(say(h, id, "call2"));
    assert_answer(say(h, id, "three"));
    assert_answer(correct(h, id));
    assert_true(fx.last_kind == TM_TURN_COMMAND);
    assert_trail(&fx, "step2 step3 step4", 2, "1");
    assert_answer(correct(h, id)); /* what was corrected is part of it */
    assert_trail(&fx, "step2 step3 step4 step5", 2, "1");
  }
}

/* What a rollback has undone before it failed is said, also after one that went back less far. */
static void test_what_was_undone(void **unused) {
  (void)unused;
  EACH_STARTED(fx, fixture_open, "one") {
    assert_answer(say(h, id, "answer"));
    assert_answer(say(h, id, "paid"));
    assert_answer(say(h, id, "plain"));
    fx.on_undo = "undo_fail"; /* says that it has undone step 3 */
    assert_refused(undo(h, id, 3, 0, false), TM_ECONFLICT, "rollback.undo_failed");
    for (int i = 0; i < 2; i++) {
      assert_answer(correct(h, id));
      assert_trail(&fx, i == 0 ? "step2 step3 step4" : "step2 step3", 1, "1");
      assert_true(tm__slice_is(tm__json_get(trail_of(&fx), "undone"), "[3]"));
      assert_answer(undo(h, id, i == 0 ? 2 : 1, 0, false));
    }
  }
}

static void test_ways_that_were_left(void **unused) {
  (void)unused;
  EACH_STARTED(fx, fixture_open, "one") {
    assert_answer(say(h, id, "answer"));
    assert_answer(say(h, id, "call"));
    assert_answer(undo(h, id, 1, 0, true));
    assert_answer(say(h, id, "other"));
    assert_answer(correct(h, id));
    assert_trail(&fx, "step2 step3", 0, "1");
    assert_answer(undo(h, id, 3, 0, true));
    assert_refused(correct(h, id), TM_ECONFLICT, "command.refused");
  }
}

/* An answer that a correction has left behind is none any more: an older one is. */
static void test_answers_that_were_dropped(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    assert_answer(start(h, id, "one"));
    assert_answer(say(h, id, "answer"));
    for (int seq = 3; seq <= 8; seq++) {
      assert_answer(say(h, id, "plain"));
    }
    assert_answer(say(h, id, "answer"));
    assert_answer(correct(h, id));
    assert_trail(&fx, "step9", 0, "8");
    assert_answer(say(h, id, "turn"));
    assert_answer(correct(h, id));
    assert_trail(&fx, "step2 step3 step4 step5 step6 step7 step8 step9 step10 step11", 0, "1");
  }
}

static void test_refusals(void **unused) {
  (void)unused;
  EACH_STARTED(fx, fixture_open, "one") {
    assert_answer(say(h, id, "two")); /* no answer, but step2 */
    assert_refused(correct(h, id), TM_ECONFLICT, "command.refused");
    assert_refused(say(h, id, "correct"), TM_ESCRIPT, "journal.draft"); /* no command */
    assert_answer(say(h, id, "on"));
  }
}

/* Where a message is one, it runs as that, and is otherwise what it was. */
static void test_message_that_corrects(void **unused) {
  (void)unused;
  EACH_STARTED(fx, fixture_open, "one") {
    assert_answer(say(h, id, "answer"));
    assert_answer(say(h, id, "call"));
    answer *a = say_keyed(h, id, "rather", "key");
    assert_answer(a);
    assert_true(fx.last_kind == TM_TURN_COMMAND);
    assert_trail(&fx, "step2 step3", 1, "1");
    tm_slice said = tm__json_get(tm__slice(fx.last_input), "said");
    assert_true(tm__slice_is(said, "\"rather\""));
    answer *again = say_keyed(h, id, "rather", "key");
    assert_answer(again);
    assert_string_equal(a->json, again->json);
  }
}

/* A message is then what it was, and says it. */
static void test_refusal_is_told(void **unused) {
  (void)unused;
  EACH_STARTED(fx, fixture_open, "one") {
    fx.on_refused = "told";
    assert_answer(say(h, id, "rather"));
    assert_true(fx.last_kind == TM_TURN_MESSAGE);
    assert_string_equal(fx.last_input, "\"rather\"");
    assert_answer(correct(h, id));
    assert_true(fx.last_kind == TM_TURN_COMMAND);
    assert_null(tm__json_get(tm__slice(fx.last_input), "trail").ptr);
  }
}

/* Repeated, it is the same answer; overtaken, it runs again on the record as it is now. */
static void test_repeated_and_overtaken(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    char id[TM_ID_SIZE];
    host_start(&fx, 1);
    assert_answer(start(&fx.hosts[0], id, "one"));
    assert_answer(say(&fx.hosts[0], id, "two"));
    assert_refused(correct(&fx.hosts[0], id), TM_ECONFLICT, "command.refused");
    assert_answer(undo(&fx.hosts[1], id, 1, 0, false));
    assert_answer(say(&fx.hosts[1], id, "answer"));
    assert_answer(say(&fx.hosts[1], id, "more"));
    answer *a = signal_keyed(&fx.hosts[0], id, TM_TURN_COMMAND, "correct", "key");
    assert_answer(a);
    assert_trail(&fx, "step2 step3", 0, "1");
    answer *again = signal_keyed(&fx.hosts[1], id, TM_TURN_COMMAND, "correct", "key");
    assert_answer(again);
    assert_string_equal(a->json, again->json);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_trail),
      cmocka_unit_test(test_what_was_undone),
      cmocka_unit_test(test_ways_that_were_left),
      cmocka_unit_test(test_answers_that_were_dropped),
      cmocka_unit_test(test_refusals),
      cmocka_unit_test(test_message_that_corrects),
      cmocka_unit_test(test_refusal_is_told),
      cmocka_unit_test(test_repeated_and_overtaken),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
