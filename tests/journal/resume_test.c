/* Turns that do not end where they began: crashes, leases, retries, hosts that take over. */
#include <sys/wait.h>

#include "fixture.h"
#include "tests/provoke.h"

/* In a process of its own: starts a conversation, lets a message record a call, then dies as if by
 * SIGKILL, with the turn begun. The conversation's id comes through the pipe. */
static void die_in_turn(fixture *fx, int out, const char *first, const char *what,
                        const char *key) {
  char id[TM_ID_SIZE];
  fx->hosts[0] = (host){0};
  storage_start(fx);
  host_start(fx, 0);
  if (what == NULL) {
    (void)start_keyed(&fx->hosts[0], id, first, key);
  } else {
    assert_answer(start(&fx->hosts[0], id, first));
    (void)say_keyed(&fx->hosts[0], id, what, key);
  }
  (void)held_run(&fx->hosts[0]);
  if (write(out, id, sizeof(id)) != (ssize_t)sizeof(id)) _exit(1);
  _exit(0);
}

static void crash(fixture *fx, char id[TM_ID_SIZE], const char *first, const char *what,
                  const char *key) {
  int ends[2];
  int status = 0;
  assert_int_equal(pipe(ends), 0);
  pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) die_in_turn(fx, ends[1], first, what, key);
  (void)close(ends[1]);
  assert_int_equal(read(ends[0], id, TM_ID_SIZE), TM_ID_SIZE);
  (void)close(ends[0]);
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_int_equal(status, 0);
}

/* A dead host's claim is due at once, but where it may live elsewhere. */
static void take_over(fixture *fx) {
  bool shared = tm__storage_shared(fx->storage);
  assert_int_equal(recover(fx), shared ? 0 : 1);
  if (shared) turn_clock(fx, LEASE_MS);
}

static void test_crash_in_a_message(void **unused) {
  (void)unused;
  EACH_OPENED(fx, fixture_init) {
    if (!fixture_durable(&fx)) continue;
    char id[TM_ID_SIZE];
    crash(&fx, id, "hello", "hold_begun", "k1");
    storage_start(&fx);
    take_over(&fx);
    host_start(&fx, 0);
    wake(&fx.hosts[0], id);
    answer *a = say_keyed(&fx.hosts[0], id, "hold_begun", "k1");
    assert_answer(a);
    assert_int_equal(fx.last_kind, TM_TURN_RESUME);
    assert_int_equal(fx.turns, 1);
    assert_int_equal(fx.outside_calls, 0); /* the recorded call gave its result */
    assert_string_equal(fx.last_input, "\"hold_begun\"");
    assert_non_null(strstr(fx.last_calls, ":http:"));
    assert_holds(a, "one moment");
    assert_holds(a, "hold_begun 2");
    answer *again = say_keyed(&fx.hosts[0], id, "hold_begun", "k1");
    assert_answer(again);
    assert_string_equal(a->json, again->json);
    assert_refused(say_keyed(&fx.hosts[0], id, "other", "k1"), TM_EREUSED,
                   "idempotency.key_reused");
    assert_answer(say(&fx.hosts[0], id, "hello"));
  }
}

static void test_crash_in_a_start(void **unused) {
  (void)unused;
  EACH_OPENED(fx, fixture_init) {
    if (!fixture_durable(&fx)) continue;
    char id[TM_ID_SIZE];
    char other[TM_ID_SIZE];
    crash(&fx, id, "hold_begun", NULL, "s1");
    storage_start(&fx);
    take_over(&fx);
    host_start(&fx, 0);
    answer *a = start_keyed(&fx.hosts[0], other, "hold_begun", "s1"); /* waits for the first */
    wake(&fx.hosts[0], id);
    assert_answer(a);
    assert_holds(a, id);
    assert_holds(a, "hold_begun 1");
    assert_int_equal(fx.turns, 1);
    assert_string_equal(fx.last_input,
                        "{\"message\":\"hold_begun\",\"metadata\":null,\"user_id\":\"u\"}");
    assert_answer(say(&fx.hosts[0], id, "hello"));
  }
}

/* Another body under the key of an unfinished turn is refused while that is still unfinished. */
static void test_other_body_of_unfinished(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    char id[TM_ID_SIZE];
    host_start(&fx, 1);
    assert_answer(start(&fx.hosts[0], id, "hello"));
    answer *a = say_keyed(&fx.hosts[0], id, "hold_begun", "k1");
    run *r = held_run(&fx.hosts[0]);
    assert_refused(say_keyed(&fx.hosts[1], id, "other", "k1"), TM_EREUSED,
                   "idempotency.key_reused");
    answer *repeat = say_keyed(&fx.hosts[1], id, "hold_begun", "k1");
    answer *next = say_keyed(&fx.hosts[1], id, "next", "k2");
    release(r);
    assert_answer(a);
    assert_answer(repeat);
    assert_string_equal(a->json, repeat->json);
    assert_answer(next);
    assert_holds(next, "next 3");
  }
}

/* A host that is slow beyond its lease loses its turn to another one. */
static void test_lease_runs_out(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    char id[TM_ID_SIZE];
    host_start(&fx, 1);
    assert_answer(start(&fx.hosts[0], id, "hello"));
    answer *first = say(&fx.hosts[0], id, "hold_begun");
    answer *behind = say(&fx.hosts[0], id, "behind");
    run *r = held_run(&fx.hosts[0]);
    turn_clock(&fx, LEASE_MS + 1);
    answer *elsewhere = say(&fx.hosts[1], id, "elsewhere"); /* finishes the turn, then runs */
    assert_answer(elsewhere);
    assert_holds(elsewhere, "elsewhere 3");
    assert_false(is_here(first));
    on_worker(&fx.hosts[0], call_now, r); /* the stale owner wants to go on */
    assert_answer(first);
    assert_holds(first, "hold_begun 2");
    assert_answer(behind);
    assert_holds(behind, "behind 4");
    assert_true(r->cancelled);
    assert_int_equal(fx.cancelled, 1);
  }
}

/* The stale owner finds out while the next turn is unfinished already: its client gets the answer
 * of its own turn, not that of the other. */
static void test_lease_runs_out_twice(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    char id[TM_ID_SIZE];
    host_start(&fx, 1);
    assert_answer(start(&fx.hosts[0], id, "hello"));
    answer *first = say(&fx.hosts[0], id, "hold_begun");
    run *r = held_run(&fx.hosts[0]);
    turn_clock(&fx, LEASE_MS + 1);
    answer *elsewhere = say(&fx.hosts[1], id, "suspend");
    while (stored_head(&fx, id).claim[0] != '\0' || stored_head(&fx, id).status != TM_ACTIVE) {
    }
    on_worker(&fx.hosts[0], call_now, r);
    uv_sleep(50);
    turn_clock(&fx, 1001);
    assert_answer(first);
    assert_holds(first, "hold_begun 2");
    assert_answer(elsewhere);
    assert_holds(elsewhere, "retried 4");
  }
}

/* Lets the hours go by until an answer comes. */
static answer *grow_old(answer *a) {
  while (!is_here(a)) {
    (void)atomic_fetch_add(&provoke.hours, 1);
    uv_sleep(5);
  }
  atomic_store(&provoke.hours, 0);
  return a;
}

/* Nobody waits longer than five minutes for a turn that runs elsewhere, or that tries again later.
 */
static void test_waiting_has_an_end(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    char id[TM_ID_SIZE];
    host_start(&fx, 1);
    assert_answer(start(&fx.hosts[0], id, "hello"));
    answer *first = say(&fx.hosts[0], id, "hold_begun");
    run *r = held_run(&fx.hosts[0]);
    answer *other = say(&fx.hosts[1], id, "other");
    assert_refused(grow_old(other), TM_ECONFLICT, "conversation.busy");
    assert_true(other->error.retry_after_ms > 0);
    release(r);
    assert_answer(first);
    answer *later = say(&fx.hosts[0], id, "suspend");
    while (stored_head(&fx, id).claim[0] != '\0' || stored_head(&fx, id).status != TM_ACTIVE) {
    }
    assert_refused(grow_old(later), TM_EUNAVAILABLE, "conversation.unfinished");
    turn_clock(&fx, 1001);
    wake(&fx.hosts[0], id);
    assert_answer(say(&fx.hosts[0], id, "hello"));
  }
}

/* A clock that is turned back does not make a lease longer. */
static void test_lease_with_a_clock_turned_back(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    char id[TM_ID_SIZE];
    assert_answer(start(&fx.hosts[0], id, "hello"));
    answer *a = say(&fx.hosts[0], id, "hold_begun");
    run *r = held_run(&fx.hosts[0]);
    turn_clock(&fx, -3600000);
    on_worker(&fx.hosts[0], call_now, r);
    r = held_run(&fx.hosts[0]);
    assert_int_equal(stored_head(&fx, id).wake_at, fixture_now(&fx) + LEASE_MS);
    release(r);
    assert_answer(a);
  }
}

/* As above, when the stale owner is already about to end the turn. */
static void test_stale_end(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    char id[TM_ID_SIZE];
    host_start(&fx, 1);
    assert_answer(start(&fx.hosts[0], id, "hello"));
    answer *first = say_keyed(&fx.hosts[0], id, "hold_begun", "k");
    run *r = held_run(&fx.hosts[0]);
    turn_clock(&fx, LEASE_MS + 1);
    assert_answer(say(&fx.hosts[1], id, "elsewhere"));
    release(r);
    assert_answer(first);
    assert_holds(first, "hold_begun 2");
    assert_int_equal(fx.cancelled, 0);
  }
}

/* A turn that lasts keeps its lease; calls go in between renewals without losing it. */
static void test_lease_is_renewed(void **unused) {
  (void)unused;
  EACH_OPENED(fx, fixture_init) {
    fx.lease_ms = 20;
    storage_start(&fx);
    host_start(&fx, 0);
    char id[TM_ID_SIZE];
    assert_answer(start(&fx.hosts[0], id, "hello"));
    answer *a = say(&fx.hosts[0], id, "hold_begun");
    run *r = held_run(&fx.hosts[0]);
    tm_head before = stored_head(&fx, id);
    assert_string_equal(before.claim, fx.hosts[0].id);
    assert_int_equal(before.wake_at, fixture_now(&fx) + 20);
    turn_clock(&fx, 15);
    while (stored_head(&fx, id).wake_at < fixture_now(&fx) + 20) {
    }
    for (int i = 0; i < 20; i++) {
      on_worker(&fx.hosts[0], call_now, r);
      r = held_run(&fx.hosts[0]);
    }
    release(r);
    assert_answer(a);
    assert_int_equal(fx.cancelled, 0);
    assert_int_equal(fx.outside_calls, 21);
    assert_string_equal(stored_head(&fx, id).claim, "");
  }
}

static void test_suspended(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    char id[TM_ID_SIZE];
    assert_answer(start(&fx.hosts[0], id, "hello"));
    answer *a = say_keyed(&fx.hosts[0], id, "suspend", "k");
    while (stored_head(&fx, id).status != TM_ACTIVE) {
    }
    tm_head h = stored_head(&fx, id);
    assert_string_equal(h.claim, "");
    assert_int_equal(h.wake_at, fixture_now(&fx) + 1000);
    assert_false(is_here(a));
    answer *behind = say(&fx.hosts[0], id, "behind");
    turn_clock(&fx, 1001);
    wake(&fx.hosts[0], id);
    assert_answer(a); /* the parked client gets the answer */
    assert_holds(a, "suspend 2");
    assert_holds(a, "retried 3"); /* messages of both parts of the turn */
    assert_answer(behind);
    assert_int_equal(fx.turns, 4);
  }
}

/* Nobody wakes it: the journal's own timer does. */
static void test_suspended_wakes_itself(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    char id[TM_ID_SIZE];
    fx.retry_ms = 30;
    assert_answer(start(&fx.hosts[0], id, "hello"));
    answer *a = say(&fx.hosts[0], id, "suspend");
    while (stored_head(&fx, id).status != TM_ACTIVE) {
    }
    turn_clock(&fx, 30);
    assert_answer(a);
    assert_holds(a, "retried 3");
  }
}

static void test_suspended_over_a_restart(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    if (!fixture_durable(&fx)) continue;
    char id[TM_ID_SIZE];
    assert_answer(start(&fx.hosts[0], id, "hello"));
    answer *a = say_keyed(&fx.hosts[0], id, "suspend", "k");
    while (stored_head(&fx, id).status != TM_ACTIVE) {
    }
    fixture_restart(&fx);
    assert_refused(a, TM_EUNAVAILABLE, "host.stopping");
    a = say_keyed(&fx.hosts[0], id, "suspend", "k"); /* the repeat waits for the retry */
    turn_clock(&fx, 1001);
    assert_answer(a);
    assert_holds(a, "retried 3");
    assert_string_equal(fx.last_input, "\"suspend\"");
  }
}

static void fail_now(void *ud) {
  fail_run(ud, TM_ESCRIPT, "test.failed");
}

/* A failed turn that was begun is taken up at the next request, or when its lease has run out. */
static void test_failed_after_begin(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    char id[TM_ID_SIZE];
    assert_answer(start(&fx.hosts[0], id, "hello"));
    for (int i = 0; i < 2; i++) {
      answer *a = say_keyed(&fx.hosts[0], id, "hold_begun", "k");
      if (i == 0) {
        on_worker(&fx.hosts[0], fail_now, held_run(&fx.hosts[0]));
        assert_refused(a, TM_ESCRIPT, "test.failed");
        assert_int_equal(stored_head(&fx, id).status, TM_ACTIVE);
      } else {
        assert_answer(a);
        assert_holds(a, "hold_begun 2");
      }
    }
    assert_int_equal(fx.last_kind, TM_TURN_RESUME);
    answer *a = say(&fx.hosts[0], id, "hold_begun");
    on_worker(&fx.hosts[0], fail_now, held_run(&fx.hosts[0]));
    assert_refused(a, TM_ESCRIPT, "test.failed");
    turn_clock(&fx, LEASE_MS + 1);
    wake(&fx.hosts[0], id);
    while (stored_head(&fx, id).status == TM_ACTIVE) {
    }
    assert_int_equal(fx.outside_calls, 2); /* those of the first runs */
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_crash_in_a_message),
      cmocka_unit_test(test_crash_in_a_start),
      cmocka_unit_test(test_other_body_of_unfinished),
      cmocka_unit_test(test_lease_runs_out),
      cmocka_unit_test(test_lease_runs_out_twice),
      cmocka_unit_test(test_waiting_has_an_end),
      cmocka_unit_test(test_lease_with_a_clock_turned_back),
      cmocka_unit_test(test_stale_end),
      cmocka_unit_test(test_lease_is_renewed),
      cmocka_unit_test(test_suspended),
      cmocka_unit_test(test_suspended_wakes_itself),
      cmocka_unit_test(test_suspended_over_a_restart),
      cmocka_unit_test(test_failed_after_begin),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
