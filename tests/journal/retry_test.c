/* A turn that waits for a retry, at which nobody works: who takes it, who is answered at once, who
 * waits for it; and what a cancel leaves of those that came before it. */
#include "fixture.h"

#define HOUR_MS 3600000

static answer *migrate(host *h, const char *id, bool dry) {
  tm_request *r = request_new(h->fx->tenant, TM_REQUEST_SIGNAL, id);
  r->signal = TM_TURN_MIGRATE;
  r->dry_run = dry;
  r->input_json = strdup("{\"message\":\"sleep\"}");
  return submit(h, r);
}

static void await_resting(fixture *fx, const char *id) {
  while (stored_head(fx, id).status != TM_ACTIVE || stored_head(fx, id).claim[0] != '\0') {
  }
}

/* A conversation whose newest turn is tried again in an hour. Its answer. */
static answer *rest(host *h, char id[TM_ID_SIZE]) {
  assert_answer(start(h, id, "hello"));
  h->fx->retry_ms = HOUR_MS;
  answer *parked = say_keyed(h, id, "suspend", "k");
  await_resting(h->fx, id);
  return parked;
}

static void expect_retry(fixture *fx, const char *id, int64_t at) {
  tm_head head = stored_head(fx, id);
  assert_int_equal(head.status, TM_SLEEPING);
  assert_int_equal(head.wake_at, at);
}

/* ---- an operator ---- */

static void test_is_paused(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host_start(&fx, 1);
    for (int where = 0; where < 2; where++) {
      char id[TM_ID_SIZE];
      answer *parked = rest(&fx.hosts[0], id);
      int turns = fx.turns;
      answer *a = signal_it(&fx.hosts[where], id, TM_TURN_PAUSE, NULL);
      assert_answer(a);
      assert_member(a, "status", "\"paused\"");
      assert_int_equal(fx.turns, turns + 2); /* the one that ends there, and the pause */
      if (where == 1) wake(&fx.hosts[0], id);
      assert_answer(parked);
      assert_member(parked, "status", "\"sleeping\"");
      assert_holds(parked, "suspend 2"); /* what the turn had said */
      answer *again = say_keyed(&fx.hosts[where], id, "suspend", "k");
      assert_answer(again);
      assert_string_equal(again->json, parked->json);
    }
  }
}

static void test_is_migrated(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    answer *parked = rest(h, id);
    int64_t at = stored_head(&fx, id).wake_at;
    add_system(&fx, "v2");
    answer *a = migrate(h, id, true);
    assert_answer(a);
    assert_member(a, "dry_run", "true");
    assert_answer(parked);
    assert_member(parked, "status", "\"sleeping\"");
    expect_retry(&fx, id, at);
    assert_string_equal(stored_head(&fx, id).version, "v1");
    a = migrate(h, id, false);
    assert_answer(a);
    assert_member(a, "flow_version", "\"v2\"");
  }
}

/* It lands on the prompt whose answer had begun the turn. */
static void test_is_rolled_back(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    for (int force = 0; force < 2; force++) {
      host *h = &fx.hosts[0];
      char id[TM_ID_SIZE];
      answer *parked = rest(h, id);
      answer *a = undo(h, id, 1, 0, force == 1);
      assert_answer(a);
      assert_member(a, "status", "\"waiting_input\"");
      assert_holds(a, "\"step_id\":\"ask1\"");
      assert_answer(parked);
      assert_member(parked, "status", "\"sleeping\"");
      int turns = fx.turns;
      turn_clock(&fx, HOUR_MS + 1);
      wake(h, id);
      assert_answer(say(h, id, "on")); /* nothing is left of the retry */
      assert_int_equal(fx.turns, turns + 1);
    }
  }
}

/* What cannot be done leaves the retry as it was. */
static void test_refusal_leaves_the_retry(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    answer *parked = rest(h, id);
    int64_t at = stored_head(&fx, id).wake_at;
    assert_refused(undo(h, id, 9, 0, false), TM_ECONFLICT, "rollback.nothing");
    assert_answer(parked);
    expect_retry(&fx, id, at);
  }
}

/* ---- a rollback that waits to try again ---- */

/* Two steps with an undo; the newest one is undone, and the next one waits. */
static answer *rest_undoing(host *h, char id[TM_ID_SIZE]) {
  assert_answer(start(h, id, "one"));
  assert_answer(say(h, id, "paid"));
  assert_answer(say(h, id, "paid"));
  h->fx->retry_ms = HOUR_MS;
  h->fx->on_undo = "undo_later";
  answer *parked = undo(h, id, 2, 0, false);
  await_resting(h->fx, id);
  return parked;
}

static void test_force_goes_on(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host_start(&fx, 1);
    for (int where = 0; where < 2; where++) {
      char id[TM_ID_SIZE];
      answer *parked = rest_undoing(&fx.hosts[0], id);
      int turns = fx.turns;
      answer *a = undo(&fx.hosts[where], id, 1, 0, true);
      assert_answer(a);
      assert_holds(a, "\"step_id\":\"ask1\""); /* to where the first one was going */
      assert_int_equal(fx.turns, turns + 1);
      if (where == 1) wake(&fx.hosts[0], id);
      assert_answer(parked);
      assert_string_equal(parked->json, a->json);
    }
  }
}

/* Its repeat gets its answer, and does not go back once more. */
static void test_force_has_a_key(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    answer *parked = rest_undoing(h, id);
    answer *two[2];
    for (int i = 0; i < 2; i++) {
      tm_request *r = request_new(fx.tenant, TM_REQUEST_UNDO, id);
      r->steps = 1;
      r->force = true;
      r->key = digest("f");
      two[i] = submit(h, r);
      assert_answer(two[i]);
    }
    assert_answer(parked);
    assert_string_equal(two[0]->json, two[1]->json);
    assert_string_equal(two[0]->json, parked->json);
  }
}

/* Others take its place: the conversation is where it was before, and what was undone stays so. */
static void test_rollback_gives_way(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    answer *parked = rest_undoing(h, id);
    answer *a = signal_it(h, id, TM_TURN_PAUSE, NULL);
    assert_answer(a);
    assert_member(a, "status", "\"paused\"");
    assert_refused(parked, TM_ECONFLICT, "rollback.given_up");
    parked = rest_undoing(h, id);
    fx.on_undo = "undone";
    a = undo(h, id, 2, 0, false);
    assert_answer(a);
    assert_holds(a, "\"step_id\":\"ask1\"");
    assert_refused(parked, TM_ECONFLICT, "rollback.given_up");
    assert_null(strstr(fx.last_input, "\"seq\":3")); /* not a second time */
    assert_non_null(strstr(fx.last_input, "\"seq\":2"));
  }
}

/* ---- what must come to its end ---- */

static void test_compensation_is_not_taken(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    assert_answer(start(h, id, "hello"));
    fx.retry_ms = HOUR_MS;
    answer *parked = say(h, id, "break");
    await_resting(&fx, id);
    answer *a = undo(h, id, 1, 0, true);
    assert_refused(a, TM_ECONFLICT, "conversation.busy");
    assert_true(a->error.retry_after_ms > HOUR_MS - 60000);
    assert_refused(signal_it(h, id, TM_TURN_PAUSE, NULL), TM_ECONFLICT, "conversation.busy");
    assert_false(is_here(parked));
    assert_answer(cancel(h, id));
    assert_answer(parked);
  }
}

/* ---- everybody else ---- */

static void test_others_hear_when(void **unused) {
  (void)unused;
  static const tm_turn_kind others[] = {TM_TURN_COMMAND, TM_TURN_APPROVAL, TM_TURN_EVENT,
                                        TM_TURN_UNPAUSE};
  EACH_BACKEND(fx) {
    host_start(&fx, 1);
    for (int where = 0; where < 2; where++) {
      host *h = &fx.hosts[where];
      char id[TM_ID_SIZE];
      answer *parked = rest(&fx.hosts[0], id);
      answer *a = say(h, id, "two");
      assert_refused(a, TM_ECONFLICT, "conversation.busy");
      assert_int_equal(a->error.retry_after_ms, HOUR_MS);
      for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
        assert_refused(signal_it(h, id, others[i], "hello"), TM_ECONFLICT, "conversation.busy");
      answer *repeat = say_keyed(h, id, "suspend", "k"); /* of the turn itself: it waits */
      assert_refused(say_keyed(h, id, "other", "k"), TM_EREUSED, "idempotency.key_reused");
      assert_false(is_here(repeat));
      assert_false(is_here(parked));
      turn_clock(&fx, HOUR_MS + 1);
      wake(&fx.hosts[0], id);
      assert_answer(parked);
      assert_answer(repeat);
      assert_string_equal(repeat->json, parked->json);
    }
  }
}

/* They had come while the turn ran. */
static void test_those_behind_hear_when(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    fx.retry_ms = HOUR_MS;
    assert_answer(start(h, id, "hello"));
    answer *parked = say(h, id, "hold");
    run *held = held_run(h);
    answer *said = say(h, id, "two");
    answer *pause = signal_it(h, id, TM_TURN_PAUSE, NULL);
    (void)snprintf(held->what, sizeof(held->what), "suspend");
    release(held);
    assert_refused(said, TM_ECONFLICT, "conversation.busy");
    assert_answer(pause);
    assert_member(pause, "status", "\"paused\"");
    assert_answer(parked);
  }
}

/* A retry that is due within moments is waited for, in the order in which they came. */
static void test_moments_are_waited_for(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    assert_answer(start(h, id, "hello"));
    answer *parked = say(h, id, "suspend");
    await_resting(&fx, id);
    answer *said = say(h, id, "two");
    answer *pause = signal_it(h, id, TM_TURN_PAUSE, NULL);
    assert_answer(read_it(&fx, id, TM_READ_CONVERSATION, NULL, 0));
    assert_false(is_here(said));
    assert_false(is_here(pause));
    turn_clock(&fx, 1001);
    wake(h, id);
    assert_answer(parked);
    assert_holds(parked, "retried 3");
    assert_answer(said);
    assert_holds(said, "two 4");
    assert_answer(pause);
  }
}

/* ---- cancelled ---- */

/* What waited when it was cancelled does not bring it back to life. */
static void test_cancel_ends_what_waits(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    assert_answer(start(h, id, "one"));
    assert_answer(say(h, id, "paid"));
    fx.retry_ms = 1000;
    fx.on_undo = "undo_later";
    answer *first = undo(h, id, 1, 0, false);
    await_resting(&fx, id);
    answer *second = undo(h, id, 1, 0, true);
    answer *said = say(h, id, "two");
    answer *back = signal_it(h, id, TM_TURN_COMMAND, "back");
    answer *a = cancel(h, id);
    assert_answer(a);
    assert_member(a, "status", "\"cancelled\"");
    assert_refused(first, TM_ECONFLICT, "conversation.finished");
    assert_refused(second, TM_ECONFLICT, "conversation.finished");
    assert_refused(said, TM_ECONFLICT, "conversation.finished");
    assert_refused(back, TM_ECONFLICT, "conversation.finished");
    assert_int_equal(stored_head(&fx, id).status, TM_CANCELLED);
    fx.on_undo = "undone";
    assert_answer(undo(h, id, 1, 0, true)); /* who comes afterwards knows of it */
  }
}

static answer *undo_keyed(host *h, const char *id) {
  tm_request *r = request_new(h->fx->tenant, TM_REQUEST_UNDO, id);
  r->steps = 1;
  r->key = digest("r");
  return submit(h, r);
}

/* Nor does the repeat of a rollback that it has ended. */
static void test_repeat_of_a_cancelled_rollback(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    assert_answer(start(h, id, "one"));
    assert_answer(say(h, id, "paid"));
    fx.retry_ms = HOUR_MS;
    fx.on_undo = "undo_later";
    answer *first = undo_keyed(h, id);
    await_resting(&fx, id);
    assert_answer(cancel(h, id));
    assert_refused(first, TM_ECONFLICT, "conversation.finished");
    assert_refused(undo_keyed(h, id), TM_ECONFLICT, "conversation.finished");
    assert_int_equal(stored_head(&fx, id).status, TM_CANCELLED);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_is_paused),
      cmocka_unit_test(test_is_migrated),
      cmocka_unit_test(test_is_rolled_back),
      cmocka_unit_test(test_refusal_leaves_the_retry),
      cmocka_unit_test(test_force_goes_on),
      cmocka_unit_test(test_force_has_a_key),
      cmocka_unit_test(test_rollback_gives_way),
      cmocka_unit_test(test_compensation_is_not_taken),
      cmocka_unit_test(test_others_hear_when),
      cmocka_unit_test(test_those_behind_hear_when),
      cmocka_unit_test(test_moments_are_waited_for),
      cmocka_unit_test(test_cancel_ends_what_waits),
      cmocka_unit_test(test_repeat_of_a_cancelled_rollback),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
