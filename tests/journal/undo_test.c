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
    a = undo(h, id, 1, 0, false);
    assert_refused(a, TM_ECONFLICT, "rollback.nothing");
    assert_non_null(strstr(a->error.message, "has no answered prompt to go back to"));
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
    a = undo(h, id, 4, 0, false);
    assert_refused(a, TM_ECONFLICT, "rollback.nothing");
    assert_non_null(strstr(a->error.message, "has not had 4 answered prompts to go back over"));
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

/* The newest of a name; also the one that is only listed because none is older. */
static void test_checkpoint_by_name(void **unused) {
  (void)unused;
  EACH_STARTED(fx, fixture_open, "one") {
    assert_answer(say(h, id, "checkpoint#here"));
    assert_answer(say(h, id, "checkpoint"));
    assert_answer(say(h, id, "checkpoint#here"));
    assert_answer(say(h, id, "checkpoint#there"));
    assert_answer(say(h, id, "more"));
    answer *a = read_it(&fx, id, TM_READ_CHECKPOINTS, "", 0);
    assert_holds(a, "\"checkpoint_id\":\"5\",\"name\":\"there\"");
    assert_holds(a, "\"checkpoint_id\":\"3\",\"name\":null");
    assert_refused(undo_to(h, id, "her"), TM_ENOTFOUND, "checkpoint.not_found");
    assert_answer(undo_to(h, id, "here"));
    assert_holds(read_it(&fx, id, TM_READ_CONVERSATION, "", 0), "\"count\":4");
    fx.keep.checkpoints.most = 1;
    assert_refused(undo_to(h, id, "there"), TM_ENOTFOUND, "checkpoint.not_found");
    assert_answer(say(h, id, "checkpoint"));
    assert_answer(undo_to(h, id, "here")); /* that of before has gone with the others */
    assert_holds(read_it(&fx, id, TM_READ_CONVERSATION, "", 0), "\"count\":2");
  }
}

/* Where nobody is asked for anything, one cannot go back to: that is none. */
static void test_no_checkpoint_asleep(void **unused) {
  (void)unused;
  EACH_STARTED(fx, fixture_open, "one") {
    assert_answer(say(h, id, "checkpoint"));
    assert_answer(say(h, id, "checkpoint_asleep"));
    answer *a = read_it(&fx, id, TM_READ_CHECKPOINTS, "", 0);
    assert_holds(a, "\"checkpoint_id\":\"2\"");
    assert_null(strstr(a->json, "\"checkpoint_id\":\"3\""));
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
    assert_string_equal(
        fx.last_runtime,
        "{\"message_seq\":3,\"restored\":{\"moved\":10500,\"revision\":3,\"step_seq\":0},"
        "\"seq\":1,\"summary\":\"after 1\"}");
  }
}

/* What was used is not given back. */
static void test_usage_stays(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    fx.usage = "{\"cpu_us\":1}";
    assert_answer(start(h, id, "plain"));
    fx.usage = "{\"cpu_us\":2}";
    assert_answer(say(h, id, "plain"));
    fx.usage = "{\"cpu_us\":3}";
    assert_answer(say(h, id, "plain"));
    for (int i = 0; i < 2; i++) { /* the second goes back from what the first has left */
      assert_answer(undo(h, id, 1, 0, false));
      answer *a = read_it(&fx, id, TM_READ_CONVERSATION, NULL, 0);
      assert_member(a, "usage", "{\"cpu_us\":3}");
    }
    assert_answer(say(h, id, "plain"));
    assert_non_null(strstr(fx.last_runtime, "\"step_seq\":0,\"usage\":{\"cpu_us\":3}}"));
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
    assert_non_null(
        strstr(fx.last_runtime, "\"restored\":{\"moved\":10000,\"revision\":8,\"step_seq\":9}"));
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

static answer *undo_keyed(host *h, const char *id, int steps, const char *key) {
  tm_request *r = request_new(h->fx->tenant, TM_REQUEST_UNDO, id);
  r->steps = steps;
  r->key = digest(key);
  r->body = digest("steps") + (uint64_t)steps;
  return submit(h, r);
}

/* The same request tries it again; once it has succeeded, it is answered by that. */
static void test_failure_uses_up_no_key(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    paid_twice(h, id);
    fx.on_undo = "undo_fail";
    assert_refused(undo_keyed(h, id, 2, "key"), TM_ECONFLICT, "rollback.undo_failed");
    assert_refused(undo_keyed(h, id, 2, "key"), TM_ECONFLICT, "rollback.undo_failed");
    assert_string_equal(fx.last_input, "{\"steps\":[" PAID(2) "]}");
    fx.on_undo = "undone";
    answer *a = undo_keyed(h, id, 2, "key");
    assert_answer(a);
    assert_at_first(&fx, id);
    int turns = fx.turns;
    answer *again = undo_keyed(h, id, 2, "key");
    assert_answer(again);
    assert_string_equal(a->json, again->json);
    assert_int_equal(fx.turns, turns);
    assert_refused(undo_keyed(h, id, 1, "key"), TM_EREUSED, "idempotency.key_reused");
  }
}

/* Also when one has gone back a shorter way meanwhile, and what was undone lies before that. */
static void test_undone_before_the_target(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    paid_twice(h, id);
    assert_answer(say(h, id, "plain"));
    assert_answer(say(h, id, "paid"));
    fx.on_undo = "undo_fail";
    assert_refused(undo(h, id, 4, 0, false), TM_ECONFLICT, "rollback.undo_failed");
    fx.on_undo = "undone";
    assert_answer(undo(h, id, 1, 0, false)); /* with a function, and without one: */
    assert_answer(undo(h, id, 1, 0, false));
    assert_at_last(&fx, id);
    assert_answer(undo(h, id, 2, 0, false));
    assert_string_equal(fx.last_input, "{\"steps\":[" PAID(2) "]}");
  }
}

/* Who finds nothing to do is answered by how the conversation stands, not by what was refused. */
static void test_failure_is_nobody_elses(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    paid_twice(h, id);
    fx.on_undo = "undo_fail";
    assert_refused(undo(h, id, 2, 0, false), TM_ECONFLICT, "rollback.undo_failed");
    answer *a = signal_it(h, id, TM_TURN_MIGRATE, "migrate");
    assert_answer(a);
    assert_holds(a, "\"step_id\":\"ask3\"");
    assert_answer(say(h, id, "finish"));
    assert_refused(undo(h, id, 3, 0, false), TM_ECONFLICT, "rollback.undo_failed");
    a = cancel(h, id);
    assert_answer(a);
    assert_member(a, "status", "\"completed\"");
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
    assert_null(strstr(a->error.message, "calls")); /* step 4 made none */
    a = undo(h, id, 4, 0, true);                    /* what can be undone is */
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

/* What forbids it is told by the turn that asked, which is answered as any other. */
static void test_back_is_refused(void **unused) {
  (void)unused;
  EACH_STARTED(fx, fixture_open, "one") {
    fx.on_refused = "told";
    int turns = fx.turns;
    answer *a = say_keyed(h, id, "back", "key");
    assert_answer(a);
    assert_int_equal(fx.turns, turns + 2);
    assert_true(fx.last_kind == TM_TURN_MESSAGE);
    assert_string_equal(fx.last_input, "\"back\"");
    assert_holds(a, "\"step_id\":\"ask2\"");
    answer *again = say_keyed(h, id, "back", "key");
    assert_answer(again);
    assert_string_equal(a->json, again->json);
    assert_answer(say(h, id, "call"));
    a = signal_it(h, id, TM_TURN_COMMAND, "back"); /* irreversible */
    assert_answer(a);
    assert_true(fx.last_kind == TM_TURN_COMMAND);
    assert_holds(a, "\"step_id\":\"ask4\"");
    assert_refused(undo(h, id, 2, 0, false), TM_ECONFLICT, "rollback.irreversible");
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

/* The user goes back as far as to what somebody else has decided; an operator goes on. */
static void test_decided(void **unused) {
  (void)unused;
  EACH_STARTED(fx, fixture_open, "one") {
    assert_answer(say(h, id, "decide"));
    assert_answer(say(h, id, "three"));
    assert_answer(say(h, id, "back"));
    assert_refused(say(h, id, "back"), TM_ECONFLICT, "rollback.decided");
    assert_refused(signal_it(h, id, TM_TURN_COMMAND, "back"), TM_ECONFLICT, "rollback.decided");
    answer *a = undo(h, id, 1, 0, false);
    assert_answer(a);
    assert_holds(a, "\"step_id\":\"ask1\"");
    assert_answer(say(h, id, "two"));
    assert_answer(say(h, id, "back"));
  }
}

static const char *decided_in(tm_undo_steps *u, const char *steps) {
  add_row(u, TM_ROW_TURN, steps);
  return tm__undo_steps_decided(u);
}

/* What was decided is, also where the step failed behind that. */
static void test_what_is_decided(void **unused) {
  (void)unused;
  tm_undo_steps u = {0};
  assert_null(decided_in(&u, "{\"steps\":[{\"input\":1,\"seq\":9,\"status\":\"completed\","
                             "\"step_id\":\"asked\",\"type\":\"user_input\"},{\"seq\":10,"
                             "\"status\":\"failed\",\"step_id\":\"odd\",\"type\":\"approval\"}]}"));
  assert_string_equal(decided_in(&u,
                                 "{\"steps\":[{\"input\":{\"approved\":false},\"seq\":8,\"status\":"
                                 "\"failed\",\"step_id\":\"gate\",\"type\":\"approval\"}]}"),
                      "gate");
  assert_string_equal(decided_in(&u, "{\"steps\":[{\"seq\":7,\"status\":\"completed\","
                                     "\"step_id\":\"first\",\"type\":\"approval\"}]}"),
                      "gate"); /* the last one */
  tm__undo_steps_free(&u);
  u = (tm_undo_steps){0};
  assert_null(decided_in(&u, "{\"steps\":[{\"seq\":6,\"status\":\"completed\",\"step_id\":"
                             "\"in_vain\",\"type\":\"wait\"}]}"));
  assert_string_equal(decided_in(&u, "{\"steps\":[{\"input\":\"paid\",\"seq\":5,\"status\":"
                                     "\"completed\",\"step_id\":\"paid\",\"type\":\"wait\"}]}"),
                      "paid");
  tm__undo_steps_free(&u);
}

/* Of rollbacks without an answer in between the way counts from where the first of them began. */
static void test_limit_of_several(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    fx.rollback = 3;
    assert_answer(start(h, id, "one"));
    assert_answer(say(h, id, "two"));
    assert_answer(say(h, id, "checkpoint"));
    assert_answer(say(h, id, "paid")); /* has a function to run */
    assert_answer(say(h, id, "five"));
    assert_answer(undo(h, id, 1, 0, false));
    assert_answer(say(h, id, "back"));
    assert_answer(undo(h, id, 1, 0, false));
    assert_refused(say(h, id, "back"), TM_ECONFLICT, "rollback.limit");
    answer *a = undo(h, id, 1, 0, false);
    assert_refused(a, TM_ECONFLICT, "rollback.limit");
    assert_non_null(strstr(a->error.message, "at most 3 (max_rollback_steps), and it has gone 3"));
    assert_answer(say(h, id, "again")); /* no answer */
    assert_refused(undo(h, id, 1, 0, true), TM_ECONFLICT, "rollback.limit");
    fixture_restart(&fx);
    if (!fixture_durable(&fx)) continue;
    h = &fx.hosts[0];
    assert_refused(say(h, id, "back"), TM_ECONFLICT, "rollback.limit");
    assert_answer(say(h, id, "three"));
    assert_answer(undo(h, id, 2, 0, false));
    assert_refused(undo(h, id, 1, 0, false), TM_ECONFLICT, "rollback.nothing");
  }
}

/* Also where one of them failed, went to a checkpoint, or nothing was asked when it began. */
static void test_limit_counts_every_rollback(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    fx.rollback = 2;
    assert_answer(start(h, id, "one"));
    assert_answer(say(h, id, "checkpoint"));
    assert_answer(say(h, id, "three"));
    assert_answer(say(h, id, "finish"));
    assert_answer(undo(h, id, 1, 0, false)); /* the answer that it ended with */
    assert_answer(undo(h, id, 0, 2, false));
    assert_refused(undo(h, id, 1, 0, false), TM_ECONFLICT, "rollback.limit");
    assert_answer(say(h, id, "paid"));
    assert_answer(say(h, id, "four"));
    assert_answer(say(h, id, "back"));
    fx.on_undo = "undo_fail";
    assert_refused(say(h, id, "back"), TM_ECONFLICT, "rollback.undo_failed");
    assert_refused(undo(h, id, 2, 0, false), TM_ECONFLICT, "rollback.limit");
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_back_one),
      cmocka_unit_test(test_back_several),
      cmocka_unit_test(test_checkpoint),
      cmocka_unit_test(test_checkpoint_by_name),
      cmocka_unit_test(test_no_checkpoint_asleep),
      cmocka_unit_test(test_irreversible),
      cmocka_unit_test(test_deadline_moves),
      cmocka_unit_test(test_usage_stays),
      cmocka_unit_test(test_workflow_deadline_stays),
      cmocka_unit_test(test_one_prompt),
      cmocka_unit_test(test_waits_for_the_turn),
      cmocka_unit_test(test_functions),
      cmocka_unit_test(test_calls_of_branches),
      cmocka_unit_test(test_functions_go_on_after_a_crash),
      cmocka_unit_test(test_functions_are_tried_again),
      cmocka_unit_test(test_functions_fail),
      cmocka_unit_test(test_failure_uses_up_no_key),
      cmocka_unit_test(test_undone_before_the_target),
      cmocka_unit_test(test_failure_is_nobody_elses),
      cmocka_unit_test(test_failure_reaches_who_waits),
      cmocka_unit_test(test_what_steps_say),
      cmocka_unit_test(test_back),
      cmocka_unit_test(test_back_is_refused),
      cmocka_unit_test(test_back_is_overtaken),
      cmocka_unit_test(test_decided),
      cmocka_unit_test(test_what_is_decided),
      cmocka_unit_test(test_limit_of_several),
      cmocka_unit_test(test_limit_counts_every_rollback),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
