/* Deadlines: when a conversation is woken, when only its head is armed anew, and the scheduler. */
#include <sqlite3.h>

#include "fixture.h"

static void await_turns(fixture *fx, int turns) {
  uv_mutex_lock(&fx->lock);
  while (fx->turns < turns)
    wait_change(fx);
  uv_mutex_unlock(&fx->lock);
}

static void await_status(fixture *fx, const char *id, tm_conversation_status status) {
  while (stored_head(fx, id).status != status) {
  }
}

/* What was submitted before is decided once a later request is answered. */
static void settle(host *h, const char *id) {
  assert_refused(undo(h, id, 0, 0, false), TM_EINVAL, "request.invalid");
}

static void test_expires(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    assert_answer(start(h, id, "deadline"));
    assert_int_equal(stored_head(&fx, id).wake_at, fx.now + 1000);
    wake(h, id); /* too early */
    settle(h, id);
    assert_int_equal(fx.turns, 1);
    turn_clock(&fx, 1000);
    wake(h, id);
    await_status(&fx, id, TM_EXPIRED);
    assert_int_equal(fx.last_kind, TM_TURN_WAKE);
    assert_string_equal(fx.last_input, "null");
    assert_int_equal(stored_head(&fx, id).wake_at, 0);
    assert_refused(say(h, id, "late"), TM_ECONFLICT, "conversation.finished");
  }
}

static void test_sleeper_wakes(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    char id[TM_ID_SIZE];
    assert_answer(start(&fx.hosts[0], id, "sleep"));
    fixture_stop(&fx); /* also when the host was down at that moment */
    turn_clock(&fx, 5000);
    storage_start(&fx);
    host_start(&fx, 0);
    if (!fixture_durable(&fx)) continue; /* nothing is left of it */
    scheduler_start(&fx.hosts[0], 1000000);
    await_status(&fx, id, TM_EXPIRED);
  }
}

/* A later deadline leaves the index alone; found too early, the head is armed anew. */
static void test_armed_anew(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    assert_answer(start(h, id, "deadline"));
    int64_t first = fx.now + 1000;
    turn_clock(&fx, 500);
    int64_t second = fx.now + 5000;
    assert_answer(say(h, id, "later"));
    assert_int_equal(stored_head(&fx, id).wake_at, first);
    turn_clock(&fx, 500);
    int turns = fx.turns;
    wake(h, id);
    while (stored_head(&fx, id).wake_at == first) {
    }
    assert_int_equal(stored_head(&fx, id).wake_at, second);
    assert_int_equal(fx.turns, turns);
    assert_answer(say(h, id, "deadline")); /* an earlier one is set at once */
    assert_int_equal(stored_head(&fx, id).wake_at, fx.now + 1000);
    assert_answer(say(h, id, "none")); /* without a deadline it is cleared when it is found */
    assert_int_equal(stored_head(&fx, id).wake_at, fx.now + 1000);
    turn_clock(&fx, 1000);
    turns = fx.turns;
    wake(h, id);
    while (stored_head(&fx, id).wake_at != 0) {
    }
    assert_int_equal(fx.turns, turns);
    assert_answer(say(h, id, "call"));
    assert_answer(say(h, id, "deadline"));
    assert_answer(say(h, id, "finish"));
    assert_int_equal(stored_head(&fx, id).wake_at, 0);
  }
}

/* A deadline whose turn fails is put off, so that it does not block those behind it. */
static void test_broken_deadline_is_put_off(void **unused) {
  (void)unused;
  fixture fx;
  fixture_open(&fx, "sqlite");
  char id[TM_ID_SIZE];
  add_system(&fx, "v9");
  assert_answer(start(&fx.hosts[0], id, "deadline"));
  fixture_restart(&fx); /* without v9 */
  turn_clock(&fx, 2000);
  wake(&fx.hosts[0], id);
  while (stored_head(&fx, id).wake_at <= fixture_now(&fx)) {
  }
  assert_int_equal(fx.turns, 1);
  fixture_close(&fx);
}

static void sql(const fixture *fx, const char *text) {
  sqlite3 *db;
  assert_int_equal(sqlite3_open(fx->file, &db), SQLITE_OK);
  assert_int_equal(sqlite3_exec(db, text, NULL, NULL, NULL), SQLITE_OK);
  assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

/* Likewise where the store takes everything but the claim of a turn that is to go on. */
static void test_refused_claim_is_put_off(void **unused) {
  (void)unused;
  fixture fx;
  char id[TM_ID_SIZE];
  fixture_open(&fx, "sqlite");
  assert_answer(start(&fx.hosts[0], id, "hello"));
  (void)say(&fx.hosts[0], id, "suspend");
  await_status(&fx, id, TM_ACTIVE);
  fixture_restart(&fx);
  sql(&fx, "CREATE TRIGGER no_claim BEFORE UPDATE ON heads WHEN NEW.claim<>'' "
           "BEGIN SELECT RAISE(ABORT,'no'); END");
  turn_clock(&fx, 2000);
  wake(&fx.hosts[0], id);
  while (stored_head(&fx, id).wake_at <= fixture_now(&fx)) {
  }
  assert_int_equal(stored_head(&fx, id).wake_at, fixture_now(&fx) + 1000);
  turn_clock(&fx, 1000);
  sql(&fx, "DROP TRIGGER no_claim");
  while (stored_head(&fx, id).status != TM_WAITING_INPUT)
    wake(&fx.hosts[0], id); /* one is passed over while the put-off comes to its end */
  fixture_close(&fx);
}

static int misses; /* atomic: lines that say that a deadline could not be met */

static void on_miss(void *ud, const char *line, size_t size) {
  static const char words[] = "a deadline could not be met";
  (void)ud;
  if (memmem(line, size, words, sizeof(words) - 1) != NULL)
    (void)__atomic_add_fetch(&misses, 1, __ATOMIC_SEQ_CST);
}

/* What is lost cannot be put off either: the log says so now and then, not at every look. */
static void test_lost_record_is_told_once(void **unused) {
  (void)unused;
  fixture fx;
  char id[TM_ID_SIZE], path[256];
  fixture_open(&fx, "file");
  assert_answer(start(&fx.hosts[0], id, "deadline"));
  fixture_restart(&fx);
  (void)snprintf(path, sizeof(path), "%s/conversations/%s/%s.log", fx.file, id + 33, id);
  assert_int_equal(unlink(path), 0);
  fx.log.sink = on_miss;
  turn_clock(&fx, 2000);
  for (int i = 0; i < 5; i++) {
    wake(&fx.hosts[0], id);
    assert_refused(say(&fx.hosts[0], id, "more"), TM_ECORRUPT, "journal.damaged");
    turn_clock(&fx, 1000);
  }
  assert_int_equal(__atomic_load_n(&misses, __ATOMIC_SEQ_CST), 1);
  fixture_close(&fx);
}

static void test_scheduler(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char ids[600][TM_ID_SIZE];
    char volatile_id[TM_ID_SIZE];
    scheduler_start(h, 1000000);
    for (int i = 0; i < 600; i++) {
      assert_answer(start(h, ids[i], "deadline"));
    }
    assert_answer(start(h, volatile_id, "volatile"));
    turn_clock(&fx, 1000);
    tm__scheduler_poke(h->scheduler); /* several pages */
    await_turns(&fx, 1201);
    for (int i = 0; i < 600; i++) {
      await_status(&fx, ids[i], TM_EXPIRED);
    }
    assert_int_equal(stored_head(&fx, volatile_id).status, TM_WAITING_INPUT);
  }
}

static void on_hint(void *ud, int64_t when) {
  tm__scheduler_hint(*(tm_scheduler **)ud, when);
}

/* Nobody pokes: the hint alone brings the look, at the right moment. */
static void test_hint(void **unused) {
  (void)unused;
  fixture fx;
  fixture_open(&fx, "sqlite");
  host *h = &fx.hosts[0];
  char id[TM_ID_SIZE];
  scheduler_start(h, 1000000);
  assert_answer(start(h, id, "deadline"));
  turn_clock(&fx, 1000);
  on_hint(&h->scheduler, 0); /* none */
  on_hint(&h->scheduler, fx.now + 5);
  turn_clock(&fx, 5);
  await_status(&fx, id, TM_EXPIRED);
  fixture_close(&fx);
}

/* A look that comes before an announced deadline does not make the scheduler forget it. */
static void test_hint_outlives_a_look(void **unused) {
  (void)unused;
  fixture fx;
  fixture_open(&fx, "sqlite");
  host *h = &fx.hosts[0];
  char first[TM_ID_SIZE], second[TM_ID_SIZE];
  scheduler_start(h, 1000000);
  assert_answer(start(h, first, "deadline"));
  turn_clock(&fx, 5);
  assert_answer(start(h, second, "deadline"));
  turn_clock(&fx, 995);
  on_hint(&h->scheduler, fx.now + 5);
  tm__scheduler_poke(h->scheduler);
  await_status(&fx, first, TM_EXPIRED);
  turn_clock(&fx, 5);
  await_status(&fx, second, TM_EXPIRED);
  fixture_close(&fx);
}

static void test_poll(void **unused) {
  (void)unused;
  fixture fx;
  fixture_open(&fx, "sqlite");
  char id[TM_ID_SIZE];
  scheduler_start(&fx.hosts[0], 5);
  assert_answer(start(&fx.hosts[0], id, "deadline"));
  turn_clock(&fx, 1000);
  await_status(&fx, id, TM_EXPIRED);
  fixture_close(&fx);
}

/* The scheduler takes up what a dead or slow host left, and what is suspended. */
static void test_takes_up_turns(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    char id[TM_ID_SIZE];
    char other[TM_ID_SIZE];
    host_start(&fx, 1);
    assert_answer(start(&fx.hosts[0], id, "hello"));
    answer *a = say(&fx.hosts[0], id, "hold_begun");
    run *r = held_run(&fx.hosts[0]);
    assert_answer(start(&fx.hosts[0], other, "hello"));
    answer *b = say(&fx.hosts[0], other, "suspend");
    await_status(&fx, other, TM_ACTIVE);
    turn_clock(&fx, LEASE_MS + 1);
    scheduler_start(&fx.hosts[1], 1000000);
    await_status(&fx, id, TM_WAITING_INPUT);
    await_status(&fx, other, TM_WAITING_INPUT);
    release(r);
    assert_answer(a);
    assert_answer(b);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_expires),
      cmocka_unit_test(test_sleeper_wakes),
      cmocka_unit_test(test_armed_anew),
      cmocka_unit_test(test_broken_deadline_is_put_off),
      cmocka_unit_test(test_refused_claim_is_put_off),
      cmocka_unit_test(test_lost_record_is_told_once),
      cmocka_unit_test(test_scheduler),
      cmocka_unit_test(test_hint),
      cmocka_unit_test(test_poll),
      cmocka_unit_test(test_takes_up_turns),
      cmocka_unit_test(test_hint_outlives_a_look),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
