/* Rollback: where it lands, what stands in its way, and what readers see afterwards. */
#include "fixture.h"
#include "journal/slot.h"

static void test_back_one(void **unused) {
  (void)unused;
  EACH_STARTED(fx, fixture_open, "one") {
    assert_answer(say(h, id, "two"));
    assert_answer(say(h, id, "three"));
    answer *a = undo(h, id, 1, 0, false);
    assert_answer(a);
    assert_member(a, "status", "\"waiting_input\"");
    assert_member(a, "revision", "4");
    assert_member(a, "replies", "[]");
    assert_holds(a, "\"step_id\":\"ask2\"");
    a = read_it(&fx, id, TM_READ_CONVERSATION, "", 0);
    assert_holds(a, "\"count\":2");
    assert_holds(a, "\"last\":\"two\"");
    a = undo(h, id, 1, 0, false); /* from there one more */
    assert_answer(a);
    assert_holds(a, "\"step_id\":\"ask1\"");
    assert_refused(undo(h, id, 1, 0, false), TM_ECONFLICT, "rollback.nothing");
    a = say(h, id, "other");
    assert_answer(a);
    assert_holds(a, "other 2");
    a = read_it(&fx, id, TM_READ_MESSAGES, "", 0); /* of this branch alone */
    assert_holds(a, "other 2");
    assert_holds(a, "one 1");
    assert_null(strstr(a->json, "two 2"));
    a = read_it(&fx, id, TM_READ_STEPS, "", 0); /* everything that ran */
    assert_holds(a, "step3");
  }
}

static void test_back_several(void **unused) {
  (void)unused;
  EACH_STARTED(fx, fixture_open, "one") {
    for (int i = 0; i < 20; i++) {
      assert_answer(say(h, id, "more"));
    }
    answer *a = undo(h, id, 17, 0, false);
    assert_answer(a);
    assert_holds(a, "\"step_id\":\"ask4\"");
    a = read_it(&fx, id, TM_READ_CONVERSATION, "", 0);
    assert_holds(a, "\"count\":4");
    assert_refused(undo(h, id, 4, 0, false), TM_ECONFLICT, "rollback.nothing");
    assert_refused(undo(h, id, 1000, 0, false), TM_ECONFLICT, "rollback.limit");
    assert_refused(undo(h, id, 0, 0, false), TM_EINVAL, "request.invalid");
    assert_answer(say(h, id, "finish")); /* the prompt that was answered last is asked again */
    a = undo(h, id, 1, 0, false);
    assert_answer(a);
    assert_holds(a, "\"step_id\":\"ask4\"");
    fixture_restart(&fx);
    if (!fixture_durable(&fx)) continue;
    a = say(&fx.hosts[0], id, "again");
    assert_answer(a);
    assert_holds(a, "again 5");
  }
}

static void test_checkpoint(void **unused) {
  (void)unused;
  EACH_STARTED(fx, fixture_open, "one") {
    assert_answer(say(h, id, "checkpoint"));
    assert_answer(say(h, id, "three"));
    answer *a = read_it(&fx, id, TM_READ_CHECKPOINTS, "", 0);
    assert_answer(a);
    assert_holds(a, "\"step_id\":\"ask\",\"status\":\"waiting_input\",\"revision\":2");
    const char *at = strstr(a->json, "\"checkpoint_id\":\"");
    assert_non_null(at);
    int64_t checkpoint = strtoll(at + 17, NULL, 10);
    a = undo(h, id, 0, checkpoint, false);
    assert_answer(a);
    assert_holds(a, "\"step_id\":\"ask2\"");
    assert_refused(undo(h, id, 0, checkpoint + 1, false), TM_ENOTFOUND, "checkpoint.not_found");
    char other[TM_ID_SIZE];
    assert_answer(start(h, other, "one"));
    assert_refused(undo(h, other, 0, checkpoint, false), TM_ENOTFOUND, "checkpoint.not_found");
  }
}

static void test_irreversible(void **unused) {
  (void)unused;
  EACH_STARTED(fx, fixture_open, "one") {
    assert_answer(say(h, id, "call2"));
    assert_answer(say(h, id, "call"));
    assert_answer(say(h, id, "plain"));
    assert_answer(undo(h, id, 1, 0, false)); /* nothing was called since */
    answer *a = undo(h, id, 2, 0, false);
    assert_refused(a, TM_ECONFLICT, "rollback.irreversible");
    assert_non_null(strstr(a->error.message, "step3, step2"));
    a = undo(h, id, 2, 0, true);
    assert_answer(a);
    assert_holds(a, "\"step_id\":\"ask1\"");
  }
}

/* The prompt is asked again, with its whole time. */
static void test_deadline_moves(void **unused) {
  (void)unused;
  EACH_STARTED(fx, fixture_open, "deadline") {
    turn_clock(&fx, 500);
    assert_answer(say(h, id, "plain"));
    turn_clock(&fx, 10000);
    assert_answer(undo(h, id, 1, 0, false));
    assert_int_equal(stored_head(&fx, id).wake_at, fx.now + 1000);
    assert_answer(say(h, id, "plain")); /* the runtime moves its own */
    assert_string_equal(fx.last_runtime, "{\"restored\":{\"moved\":10500,\"step_seq\":0},"
                                         "\"seq\":1,\"summary\":\"after 1\"}");
  }
}

static void assert_restored(const fixture *fx, int64_t workflow) {
  char text[64];
  (void)snprintf(text, sizeof(text), "\"workflow\":%lld},", (long long)workflow);
  assert_non_null(strstr(strstr(fx->last_runtime, "restored"), text));
}

/* That of the whole conversation counts from its start; a pause has moved it since, and the one
 * that it is in does. */
static void test_workflow_deadline_stays(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    fx.workflow = fx.now + 11000;
    assert_answer(start(h, id, "deadline"));
    fx.workflow += 200;
    assert_answer(say(h, id, "plain"));
    turn_clock(&fx, 10500);
    assert_answer(undo(h, id, 1, 0, false));
    assert_int_equal(stored_head(&fx, id).wake_at, fx.workflow);
    assert_answer(say(h, id, "pause"));
    assert_restored(&fx, fx.workflow);
    turn_clock(&fx, 100);
    assert_answer(undo(h, id, 1, 0, false));
    assert_answer(say(h, id, "plain"));
    assert_restored(&fx, fx.workflow + 100);
  }
}

/* What was shown again, without an answer in between, is one prompt. */
static void test_one_prompt(void **unused) {
  (void)unused;
  EACH_STARTED(fx, fixture_open, "one") {
    assert_answer(say(h, id, "two"));
    assert_answer(say(h, id, "again"));
    answer *a = undo(h, id, 1, 0, false);
    assert_answer(a);
    assert_holds(a, "\"step_id\":\"ask1\"");
  }
}

/* Between the turns of an unfinished one it waits its turn; a foreign tenant sees nothing. */
static void test_waits_for_the_turn(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    host_start(&fx, 1);
    assert_answer(start(h, id, "one"));
    answer *held = say(h, id, "hold_begun");
    run *r = held_run(h);
    answer *here = undo(h, id, 1, 0, true);
    answer *there = undo(&fx.hosts[1], id, 1, 0, true);
    assert_false(is_here(here));
    release(r);
    assert_answer(held);
    (void)await(here);
    (void)await(there); /* one lands on the first prompt, the other finds nothing before it */
    assert_int_equal((here->status == TM_OK) + (there->status == TM_OK), 1);
    assert_string_equal((here->status == TM_OK ? there : here)->error.code, "rollback.nothing");
    tm_request *foreign = request_new("t1", TM_REQUEST_UNDO, id);
    (void)tm__copy(foreign->tenant, sizeof(foreign->tenant), TM_S("t2"));
    foreign->steps = 1;
    assert_refused(submit(h, foreign), TM_ENOTFOUND, "conversation.not_found");
  }
}

/* ---- undo functions ---- */

#define PAID(n)                                                                                    \
  "{\"output\":{\"id\":7},\"seq\":" #n ",\"step_id\":\"step" #n "\",\"undo\":\"orders\"}"

static void paid_twice(host *h, char id[TM_ID_SIZE]) {
  assert_answer(start(h, id, "deadline"));
  assert_answer(say(h, id, "paid"));
  assert_answer(say(h, id, "paid"));
}

static void assert_at_first(fixture *fx, const char *id) {
  answer *a = read_it(fx, id, TM_READ_CONVERSATION, "", 0);
  assert_answer(a);
  assert_holds(a, "\"step_id\":\"ask1\"");
  assert_holds(a, "\"count\":1");
  assert_holds(a, "\"last\":\"deadline\"");
  assert_int_equal(stored_head(fx, id).wake_at, fx->now + 1000);
}

static void assert_at_last(fixture *fx, const char *id) {
  answer *a = read_it(fx, id, TM_READ_CONVERSATION, "", 0);
  assert_answer(a);
  assert_holds(a, "\"status\":\"waiting_input\"");
  assert_holds(a, "\"step_id\":\"ask3\"");
  assert_holds(a, "\"count\":3");
  assert_holds(a, "\"last\":\"paid\"");
}

/* The executor gets what is to be undone, the newest first; then the target is restored. */
static void test_functions(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    paid_twice(h, id);
    turn_clock(&fx, 10000);
    answer *a = undo(h, id, 2, 0, false);
    assert_answer(a);
    assert_member(a, "status", "\"waiting_input\"");
    assert_int_equal(fx.last_kind, TM_TURN_UNDO);
    assert_string_equal(fx.last_input, "{\"steps\":[" PAID(3) "," PAID(2) "]}");
    assert_at_first(&fx, id);
    a = read_it(&fx, id, TM_READ_STEPS, "", 0);
    assert_holds(a, "\"undoes\":3");
    assert_answer(say(h, id, "on"));
    assert_non_null(strstr(fx.last_runtime, "\"restored\":{\"moved\":10000,\"step_seq\":9}"));
  }
}

static void add_row(tm_undo_steps *u, tm_row_kind kind, const char *body) {
  tm_row row = {.kind = kind};
  tm_row_fields f;
  tm_error err;
  row.body = tm__slice(body);
  tm__row_fields(&f, row.body);
  assert_int_equal(tm__undo_steps_add(u, &row, &f, &err), TM_OK);
}

/* A turn whose step 12 has two branches; what they called, and what the step itself says. */
static void names_of(char *names, size_t size, const char *says, const char *const *calls) {
  tm_undo_steps u = {0};
  tm_buf out = {0}, steps = {0};
  tm__buf_printf(&steps,
                 "{\"messages\":[],\"steps\":[{\"seq\":12,\"status\":\"completed\",\"step_id\":"
                 "\"fork\"%s},{\"branch\":\"a\",\"seq\":13,\"status\":\"completed\",\"step_id\":"
                 "\"a1\"},{\"branch\":\"a\",\"output\":7,\"seq\":14,\"status\":\"completed\","
                 "\"step_id\":\"a2\",\"undo\":\"main/fork/a\"},{\"branch\":\"b\",\"seq\":15,"
                 "\"status\":\"completed\",\"step_id\":\"b1\"}]}",
                 says);
  tm__buf_byte(&steps, '\0');
  add_row(&u, TM_ROW_TURN, steps.ptr);
  for (; *calls != NULL; calls++) {
    add_row(&u, TM_ROW_CALL, *calls);
  }
  tm__undo_steps_irreversible(&u, &out);
  assert_true(tm__copy(names, size, tm__buf_view(&out)));
  tm__buf_free(&out);
  tm__buf_free(&steps);
  tm__undo_steps_free(&u);
}

#define CALL(key) "{\"call\":{\"key\":\"" key "\",\"result\":1}}"

/* A call of a branch is its step's, not that of the step around it. */
static void test_calls_of_branches(void **unused) {
  (void)unused;
  const char *const undone[] = {CALL("12:a.2:http:ab:0@1"), CALL("12:a:kept:1"), NULL};
  const char *const named[] = {CALL("12:b.1:http:ab:0@0"), CALL("12:a.2:http:ab:0@1"),
                               CALL("12:a.1:once:cd@0"), NULL};
  const char *const unknown[] = {CALL("12:b.2:http:ab:0@0"), NULL};
  char names[64];
  names_of(names, sizeof(names), "", undone);
  assert_string_equal(names, "");
  names_of(names, sizeof(names), "", named);
  assert_string_equal(names, "b1, a1");
  names_of(names, sizeof(names), ",\"irreversible\":false", named);
  assert_string_equal(names, "");
  names_of(names, sizeof(names), ",\"undo\":\"main\"", named);
  assert_string_equal(names, "");
  names_of(names, sizeof(names), "", unknown);
  assert_string_equal(names, "fork");
}

static void test_functions_go_on_after_a_crash(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    char id[TM_ID_SIZE];
    if (!fixture_durable(&fx)) continue;
    paid_twice(&fx.hosts[0], id);
    fx.on_undo = "undo_call";
    answer *lost = undo(&fx.hosts[0], id, 2, 0, false);
    (void)held_run(&fx.hosts[0]);
    assert_int_equal(stored_head(&fx, id).status, TM_ACTIVE);
    fixture_restart(&fx);
    assert_refused(lost, TM_EUNAVAILABLE, "host.stopping");
    int calls = fx.outside_calls;
    assert_refused(say(&fx.hosts[0], id, "refuse"), TM_ECONFLICT, "test.refused"); /* behind it */
    assert_int_equal(fx.outside_calls, calls);
    assert_at_first(&fx, id);
  }
}

static void test_functions_are_tried_again(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    fx.retry_ms = 0;
    paid_twice(h, id);
    fx.on_undo = "undo_later";
    answer *a = undo(h, id, 2, 0, false);
    assert_answer(a);
    assert_holds(a, "\"step_id\":\"ask1\"");
    assert_int_equal(fx.last_kind, TM_TURN_RESUME);
    assert_int_equal(fx.last_began_as, TM_TURN_UNDO);
    assert_string_equal(fx.last_input, "{\"steps\":[" PAID(3) "," PAID(2) "]}");
    assert_at_first(&fx, id);
  }
}

/* What was undone before one of them failed is not undone again. */
static void test_functions_fail(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    paid_twice(h, id);
    fx.on_undo = "undo_fail";
    assert_refused(undo(h, id, 2, 0, false), TM_ECONFLICT, "rollback.undo_failed");
    assert_at_last(&fx, id);
    fixture_stop(&fx);
    storage_start(&fx);
    host_start(&fx, 0);
    if (!fixture_durable(&fx)) continue;
    assert_refused(undo(h, id, 2, 0, false), TM_ECONFLICT, "rollback.undo_failed");
    assert_string_equal(fx.last_input, "{\"steps\":[" PAID(2) "]}");
    assert_at_last(&fx, id);
    fx.on_undo = "undone";
    assert_answer(undo(h, id, 2, 0, false));
    assert_string_equal(fx.last_input, "{\"steps\":[" PAID(2) "]}");
    assert_at_first(&fx, id);
  }
}

/* Whoever waits for a rollback whose turn went on elsewhere learns that it failed, too. */
static void test_failure_reaches_who_waits(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    char id[TM_ID_SIZE];
    host_start(&fx, 1);
    paid_twice(&fx.hosts[0], id);
    fx.on_undo = "undo_call";
    answer *a = undo(&fx.hosts[0], id, 2, 0, false);
    run *r = held_run(&fx.hosts[0]);
    turn_clock(&fx, 2 * fx.lease_ms);
    fx.on_undo = "undo_fail";
    wake(&fx.hosts[1], id);
    assert_refused(say(&fx.hosts[1], id, "refuse"), TM_ECONFLICT, "test.refused");
    release(r);
    assert_refused(a, TM_ECONFLICT, "rollback.undo_failed");
    assert_at_last(&fx, id);
  }
}

static void test_what_steps_say(void **unused) {
  (void)unused;
  EACH_STARTED(fx, fixture_open, "one") {
    assert_answer(say(h, id, "loose"));
    assert_answer(say(h, id, "paid"));
    assert_answer(say(h, id, "fixed"));
    assert_answer(say(h, id, "call"));
    answer *a = undo(h, id, 4, 0, false);
    assert_refused(a, TM_ECONFLICT, "rollback.irreversible");
    assert_non_null(strstr(a->error.message, "taken back: step5, step4;"));
    a = undo(h, id, 4, 0, true); /* what can be undone is */
    assert_answer(a);
    assert_string_equal(fx.last_input, "{\"force\":true,\"steps\":[" PAID(3) "]}");
    assert_holds(a, "\"step_id\":\"ask1\"");
    assert_answer(say(h, id, "loose"));
    assert_answer(undo(h, id, 1, 0, false));
  }
}

/* A turn asks for it: its request gets the answer, also when it is repeated. */
static void test_back(void **unused) {
  (void)unused;
  EACH_STARTED(fx, fixture_open, "one") {
    assert_answer(say(h, id, "two"));
    assert_answer(say(h, id, "paid"));
    answer *a = signal_keyed(h, id, TM_TURN_COMMAND, "back", "key");
    assert_answer(a);
    assert_holds(a, "\"step_id\":\"ask2\"");
    answer *again = signal_keyed(h, id, TM_TURN_COMMAND, "back", "key");
    assert_answer(again);
    assert_string_equal(a->json, again->json);
    a = say_keyed(h, id, "back", "other"); /* nothing to undo: the host alone */
    assert_answer(a);
    assert_holds(a, "\"step_id\":\"ask1\"");
    again = say_keyed(h, id, "back", "other");
    assert_answer(again);
    assert_string_equal(a->json, again->json);
    assert_refused(say(h, id, "back"), TM_ECONFLICT, "rollback.nothing");
    assert_answer(say(h, id, "call"));
    assert_refused(say(h, id, "back"), TM_ECONFLICT, "rollback.irreversible");
    assert_answer(say(h, id, "on"));
  }
}

/* Another host was faster: the turn that asked runs again on the record as it is now. */
static void test_back_is_overtaken(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    char id[TM_ID_SIZE];
    host_start(&fx, 1);
    assert_answer(start(&fx.hosts[0], id, "one"));
    assert_answer(say(&fx.hosts[0], id, "two"));
    assert_answer(say(&fx.hosts[1], id, "three"));
    answer *a = say(&fx.hosts[0], id, "back");
    assert_answer(a);
    assert_holds(a, "\"step_id\":\"ask2\"");
    assert_answer(say(&fx.hosts[1], id, "more"));
    assert_answer(say(&fx.hosts[1], id, "more"));
    a = undo(&fx.hosts[0], id, 3, 0, false); /* refused on its old copy only */
    assert_answer(a);
    assert_holds(a, "\"step_id\":\"ask1\"");
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_back_one),
      cmocka_unit_test(test_back_several),
      cmocka_unit_test(test_checkpoint),
      cmocka_unit_test(test_irreversible),
      cmocka_unit_test(test_deadline_moves),
      cmocka_unit_test(test_workflow_deadline_stays),
      cmocka_unit_test(test_one_prompt),
      cmocka_unit_test(test_waits_for_the_turn),
      cmocka_unit_test(test_functions),
      cmocka_unit_test(test_calls_of_branches),
      cmocka_unit_test(test_functions_go_on_after_a_crash),
      cmocka_unit_test(test_functions_are_tried_again),
      cmocka_unit_test(test_functions_fail),
      cmocka_unit_test(test_failure_reaches_who_waits),
      cmocka_unit_test(test_what_steps_say),
      cmocka_unit_test(test_back),
      cmocka_unit_test(test_back_is_overtaken),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
