/* Cancelling: a conversation ends as it stands, after the turn that runs, once; and the limits of
 * sessions that are begun. */
#include "fixture.h"

static void test_cancels_a_waiting_one(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    assert_answer(start(h, id, "deadline"));
    int turns = fx.turns;
    answer *a = cancel(h, id);
    assert_answer(a);
    assert_member(a, "status", "\"cancelled\"");
    assert_member(a, "prompt", "null");
    assert_member(a, "revision", "2");
    tm_head head = stored_head(&fx, id);
    assert_int_equal(head.status, TM_CANCELLED);
    assert_int_equal(head.ended, fixture_now(&fx));
    assert_int_equal(head.wake_at, 0);
    assert_int_equal(fx.turns, turns); /* no script was asked */
    answer *again = cancel(h, id);
    assert_answer(again);
    assert_string_equal(again->json, a->json);
    assert_int_equal(stored_head(&fx, id).revision, 2);
    assert_refused(say(h, id, "x"), TM_ECONFLICT, "conversation.finished");
    assert_answer(undo(h, id, 1, 0, false)); /* as any other that is over */
    assert_int_equal(stored_head(&fx, id).status, TM_WAITING_INPUT);
    assert_int_equal(stored_head(&fx, id).ended, 0);
  }
}

static void test_leaves_what_is_over(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    char id[TM_ID_SIZE];
    assert_answer(start(&fx.hosts[0], id, "finish"));
    answer *a = cancel(&fx.hosts[0], id);
    assert_answer(a);
    assert_member(a, "status", "\"completed\"");
    assert_int_equal(stored_head(&fx, id).revision, 1);
  }
}

static void test_knows_its_tenant(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    char id[TM_ID_SIZE], none[TM_ID_SIZE];
    assert_answer(start(&fx.hosts[0], id, "hello"));
    tm_request *r = request_new(fx.tenant, TM_REQUEST_CANCEL, id);
    (void)snprintf(r->tenant, sizeof(r->tenant), "t2");
    assert_refused(submit(&fx.hosts[0], r), TM_ENOTFOUND, "conversation.not_found");
    assert_int_equal(stored_head(&fx, id).status, TM_WAITING_INPUT);
    tm__uuid7(none, fixture_now(&fx));
    assert_refused(cancel(&fx.hosts[0], none), TM_ENOTFOUND, "conversation.not_found");
  }
}

static void test_waits_for_the_turn(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    assert_answer(start(h, id, "hello"));
    answer *turn = say(h, id, "hold");
    run *held = held_run(h);
    answer *a = cancel(h, id);
    assert_answer(read_it(&fx, id, TM_READ_CONVERSATION, NULL, 0));
    assert_false(is_here(a));
    release(held);
    assert_answer(turn);
    assert_member(turn, "status", "\"waiting_input\"");
    assert_answer(a);
    assert_member(a, "status", "\"cancelled\"");
    assert_member(a, "revision", "3");
  }
}

/* A turn with calls that runs on another host is waited for as well. */
static void test_waits_for_the_turn_elsewhere(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    char id[TM_ID_SIZE];
    host_start(&fx, 1);
    assert_answer(start(&fx.hosts[0], id, "hello"));
    answer *turn = say(&fx.hosts[0], id, "hold_begun");
    run *held = held_run(&fx.hosts[0]);
    answer *a = cancel(&fx.hosts[1], id);
    assert_answer(read_it(&fx, id, TM_READ_CONVERSATION, NULL, 0));
    assert_false(is_here(a));
    release(held);
    assert_answer(turn);
    assert_answer(a);
    assert_member(a, "status", "\"cancelled\"");
    assert_int_equal(fx.cancelled, 0);
  }
}

/* One whose host is silent for longer than its lease is not: it loses its turn. */
static void test_takes_a_dead_turn_away(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    char id[TM_ID_SIZE];
    host_start(&fx, 1);
    assert_answer(start(&fx.hosts[0], id, "hello"));
    answer *turn = say(&fx.hosts[0], id, "hold_begun");
    run *held = held_run(&fx.hosts[0]);
    turn_clock(&fx, LEASE_MS + 1);
    answer *a = cancel(&fx.hosts[1], id);
    assert_answer(a);
    assert_member(a, "status", "\"cancelled\"");
    release(held);
    assert_answer(turn); /* what the conversation came to */
    assert_member(turn, "status", "\"cancelled\"");
    assert_int_equal(stored_head(&fx, id).status, TM_CANCELLED);
  }
}

/* A retry that is an hour away is not waited for; who waits for it hears of the end. */
static void test_cancels_a_suspended_turn(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE], first[TM_ID_SIZE];
    fx.retry_ms = 3600000;
    assert_answer(start(h, id, "hello"));
    answer *turn = say_keyed(h, id, "suspend", "k");
    while (stored_head(&fx, id).status != TM_ACTIVE) {
    }
    answer *a = cancel(h, id);
    assert_answer(a);
    assert_member(a, "status", "\"cancelled\"");
    assert_answer(turn);
    assert_member(turn, "status", "\"cancelled\"");
    answer *again = say_keyed(h, id, "suspend", "k");
    assert_answer(again);
    assert_member(again, "status", "\"cancelled\"");
    answer *begun = start_keyed(h, first, "suspend", "k2");
    while (await(read_it(&fx, first, TM_READ_CONVERSATION, NULL, 0))->status != TM_OK) {
    }
    assert_answer(cancel(h, first));
    assert_answer(begun);
    char other[TM_ID_SIZE];
    answer *repeat = start_keyed(h, other, "suspend", "k2");
    assert_answer(repeat);
    assert_holds(repeat, first);
    assert_member(repeat, "status", "\"cancelled\"");
  }
}

/* Nor where it was asked for before the turn was put off. */
static void test_cancels_what_is_being_suspended(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    fx.retry_ms = 3600000;
    assert_answer(start(h, id, "hello"));
    answer *turn = say(h, id, "hold");
    run *held = held_run(h);
    answer *a = cancel(h, id);
    assert_answer(read_it(&fx, id, TM_READ_CONVERSATION, NULL, 0));
    (void)snprintf(held->what, sizeof(held->what), "suspend");
    release(held);
    assert_answer(a);
    assert_member(a, "status", "\"cancelled\"");
    assert_answer(turn);
    assert_member(turn, "status", "\"cancelled\"");
  }
}

/* ---- limits ---- */

static answer *start_in(host *h, const char *session, const char *tenant) {
  char id[TM_ID_SIZE];
  fixture *fx = h->fx;
  tm__uuid7(id, fixture_now(fx));
  tm_request *r = request_new(tenant, TM_REQUEST_START, id);
  (void)snprintf(r->tenant, sizeof(r->tenant), "%s", tenant);
  (void)snprintf(r->system, sizeof(r->system), "shop");
  (void)snprintf(r->flow, sizeof(r->flow), "orders");
  (void)snprintf(r->session, sizeof(r->session), "%s", session);
  r->input_json = strdup("{\"message\":\"hello\",\"metadata\":null,\"user_id\":null}");
  r->sessions_max = fx->sessions.most;
  r->tenant_sessions_max = fx->sessions.tenant_most;
  return submit(h, r);
}

static void test_limits_open_sessions(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    fx.sessions.most = 3;
    fx.sessions.tenant_most = 2;
    host *h = &fx.hosts[0];
    assert_answer(start_in(h, "a", "t1"));
    assert_answer(start_in(h, "b", "t1"));
    answer *over = start_in(h, "c", "t1");
    assert_refused(over, TM_ELIMIT, "session.limit");
    assert_true(over->error.retry_after_ms > 0);
    assert_answer(start_in(h, "a", "t1")); /* sessions that run are not touched */
    assert_answer(start_in(h, "a", "t2"));
    assert_refused(start_in(h, "b", "t2"), TM_ELIMIT, "session.limit");
    fx.sessions.most = 0;
    assert_answer(start_in(h, "b", "t2"));
  }
}

/* Of many that begin at once exactly as many as there is room for. */
static void test_limits_concurrent_starts(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    answer *all[24];
    int begun = 0;
    fx.sessions.most = 7;
    host_start(&fx, 1);
    for (int i = 0; i < 24; i++) {
      char session[16];
      (void)snprintf(session, sizeof(session), "s%d", i);
      all[i] = start_in(&fx.hosts[i % 2], session, "t1");
    }
    for (int i = 0; i < 24; i++) {
      begun += await(all[i])->status == TM_OK;
      if (all[i]->status != TM_OK) assert_refused(all[i], TM_ELIMIT, "session.limit");
    }
    assert_int_equal(begun, 7);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_cancels_a_waiting_one),
      cmocka_unit_test(test_leaves_what_is_over),
      cmocka_unit_test(test_knows_its_tenant),
      cmocka_unit_test(test_waits_for_the_turn),
      cmocka_unit_test(test_waits_for_the_turn_elsewhere),
      cmocka_unit_test(test_takes_a_dead_turn_away),
      cmocka_unit_test(test_cancels_a_suspended_turn),
      cmocka_unit_test(test_cancels_what_is_being_suspended),
      cmocka_unit_test(test_limits_open_sessions),
      cmocka_unit_test(test_limits_concurrent_starts),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
