/* Turns on both backends: what is answered, stored, refused, repeated. */
#include "fixture.h"

static void test_start_and_message(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    char quoted[TM_ID_SIZE + 2];
    answer *a = start(h, id, "hello");
    assert_answer(a);
    (void)snprintf(quoted, sizeof(quoted), "\"%s\"", id);
    assert_member(a, "conversation_id", quoted);
    assert_member(a, "session_id", "\"s1\"");
    assert_member(a, "system", "\"shop\"");
    assert_member(a, "flow_id", "\"orders\"");
    assert_member(a, "flow_version", "\"v1\"");
    assert_member(a, "status", "\"waiting_input\"");
    assert_member(a, "revision", "1");
    assert_member(a, "current_step", "\"ask\"");
    assert_member(a, "replies",
                  "[{\"seq\":2,\"step_id\":\"step1\",\"agent\":\"bot\",\"text\":\"hello 1\","
                  "\"provider\":\"offline\"}]");
    assert_member(
        a, "prompt",
        "{\"attempt\":1,\"expires_at\":null,\"hint\":null,\"step_id\":\"ask1\",\"text\":\"?\"}");
    assert_member(a, "durable", fixture_durable(&fx) ? "true" : "false");
    a = say(h, id, "two");
    assert_answer(a);
    assert_member(a, "revision", "2");
    assert_holds(a, "\"two 2\"");
    assert_int_equal(fx.last_kind, TM_TURN_MESSAGE);
    assert_string_equal(fx.last_input, "\"two\"");
    a = say(h, id, "finish");
    assert_answer(a);
    assert_member(a, "status", "\"completed\"");
    assert_member(a, "current_step", "null");
    assert_member(a, "prompt", "null");
  }
}

static void test_calls(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    answer *a = start(h, id, "call2");
    assert_answer(a);
    assert_member(a, "revision", "4"); /* begin, two calls, turn */
    assert_int_equal(fx.outside_calls, 2);
    assert_holds(a, "\"one moment\"");
    assert_holds(a, "\"call2 1\"");
    a = say(h, id, "call");
    assert_answer(a);
    assert_member(a, "revision", "7");
    a = read_it(&fx, id, TM_READ_CONVERSATION, "", 0);
    assert_answer(a);
    assert_holds(a, "\"count\":2");
    assert_member(a, "status", "\"waiting_input\"");
  }
}

static void test_refusals(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    tm__uuid7(id, fx.now);
    answer *a = say(h, id, "hello");
    assert_refused(a, TM_ENOTFOUND, "conversation.not_found");
    assert_string_equal(a->error.conversation_id, id);
    tm_request *r = request_new("t1", TM_REQUEST_START, id);
    (void)snprintf(r->system, sizeof(r->system), "none");
    a = submit(h, r);
    assert_refused(a, TM_ENOTFOUND, "system.not_found");
    a = start(h, id, "hello");
    assert_answer(a);
    r = request_new("t1", TM_REQUEST_MESSAGE, id);
    (void)snprintf(r->tenant, sizeof(r->tenant), "t2");
    a = submit(h, r);
    assert_refused(a, TM_ENOTFOUND, "conversation.not_found");
    a = say(h, id, "fail");
    assert_refused(a, TM_EINVAL, "input.invalid");
    a = say(h, id, "sleep");
    assert_answer(a);
    a = say(h, id, "hello");
    assert_refused(a, TM_ECONFLICT, "test.refused"); /* the executor says what it waits for */
    a = start(h, id, "finish");
    assert_answer(a);
    a = say(h, id, "hello");
    assert_refused(a, TM_ECONFLICT, "conversation.finished");
    a = start(h, id, "broken");
    assert_refused(a, TM_ESCRIPT, "test.failed");
    a = say(h, id, "hello"); /* nothing was stored of it */
    assert_refused(a, TM_ENOTFOUND, "conversation.not_found");
  }
}

static void test_repeats(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    assert_answer(start(h, id, "hello"));
    answer *first = say_keyed(h, id, "call", "k1");
    answer *during = say_keyed(h, id, "call", "k1");
    answer *other_body = say_keyed(h, id, "call2", "k1");
    assert_answer(first);
    assert_answer(during);
    assert_string_equal(first->json, during->json);
    assert_refused(other_body, TM_EREUSED, "idempotency.key_reused");
    int turns = fx.turns;
    for (int i = 2; i < 9; i++) { /* eight keys are remembered */
      char key[16];
      (void)snprintf(key, sizeof(key), "k%d", i);
      assert_answer(say_keyed(h, id, "x", key));
    }
    answer *after = say_keyed(h, id, "call", "k1");
    assert_answer(after);
    assert_string_equal(first->json, after->json);
    assert_int_equal(fx.turns, turns + 7);
    assert_answer(say_keyed(h, id, "x", "k9"));
    assert_answer(say_keyed(h, id, "call", "k1")); /* the ninth is forgotten: a new turn */
    assert_int_equal(fx.turns, turns + 9);
    assert_refused(say_keyed(h, id, "fail", "kf"), TM_EINVAL, "input.invalid");
    assert_answer(say_keyed(h, id, "x", "kf")); /* a refusal does not consume the key */
  }
}

static void test_repeated_starts(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    char second[TM_ID_SIZE];
    answer *a = start_keyed(h, id, "hello", "s");
    assert_answer(a);
    answer *b = start_keyed(h, second, "hello", "s");
    assert_answer(b);
    assert_string_equal(a->json, b->json);
    assert_refused(start_keyed(h, second, "other", "s"), TM_EREUSED, "idempotency.key_reused");
    assert_refused(start_keyed(h, second, "fail", "f"), TM_EINVAL, "input.invalid");
    assert_answer(start_keyed(h, second, "fine", "f"));
    /* two at once on two hosts: whoever commits second gives the first one's answer */
    host_start(&fx, 1);
    a = start_keyed(h, id, "hold", "h");
    run *held = held_run(h);
    b = start_keyed(&fx.hosts[1], second, "hold", "h");
    run *other = held_run(&fx.hosts[1]);
    release(held);
    assert_answer(a);
    release(other);
    assert_answer(b);
    assert_string_equal(a->json, b->json);
    /* the same, while the first one's turn is begun but unfinished */
    a = start_keyed(h, id, "hold_begun", "i");
    held = held_run(h);
    b = start_keyed(&fx.hosts[1], second, "hold_begun", "i");
    answer *c = start_keyed(h, second, "hold_begun", "i");
    release(held);
    assert_answer(a);
    assert_answer(b);
    assert_answer(c);
    assert_string_equal(a->json, b->json);
    assert_string_equal(a->json, c->json);
  }
}

static void test_repeat_after_restart(void **unused) {
  (void)unused;
  fixture fx;
  fixture_open(&fx, "sqlite");
  char id[TM_ID_SIZE];
  char second[TM_ID_SIZE];
  answer *start1 = start_keyed(&fx.hosts[0], id, "call2", "s");
  assert_answer(start1);
  answer *first = say_keyed(&fx.hosts[0], id, "call2", "k1");
  assert_answer(first);
  assert_answer(say(&fx.hosts[0], id, "more"));
  fixture_restart(&fx);
  int turns = fx.turns;
  answer *again = say_keyed(&fx.hosts[0], id, "call2", "k1");
  assert_answer(again);
  assert_string_equal(first->json, again->json);
  again = start_keyed(&fx.hosts[0], second, "call2", "s");
  assert_answer(again);
  assert_string_equal(start1->json, again->json);
  assert_int_equal(fx.turns, turns);
  turn_clock(&fx, TM_KEY_AGE_MS + 1000);
  again = start_keyed(&fx.hosts[0], second, "call2", "s"); /* a start's key lives for a day */
  assert_answer(again);
  assert_string_not_equal(start1->json, again->json);
  fixture_close(&fx);
}

static void test_order_and_limit(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    assert_answer(start(h, id, "hello"));
    answer *held = say(h, id, "hold");
    run *r = held_run(h);
    answer *waiting[8];
    for (int i = 0; i < 8; i++) {
      char what[16];
      (void)snprintf(what, sizeof(what), "m%d", i);
      waiting[i] = say(h, id, what);
    }
    answer *over = say(h, id, "one too many");
    assert_refused(over, TM_ELIMIT, "conversation.queue_full");
    assert_true(over->error.retry_after_ms > 0);
    assert_false(is_here(waiting[0]));
    release(r);
    assert_answer(held);
    for (int i = 0; i < 8; i++) {
      char text[40];
      (void)snprintf(text, sizeof(text), "\"m%d %d\"", i, i + 3);
      assert_answer(waiting[i]);
      assert_holds(waiting[i], text);
    }
  }
}

static void test_pure_conflict_runs_again(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    host_start(&fx, 1);
    assert_answer(start(h, id, "hello"));
    answer *a = say_keyed(h, id, "hold", "k");
    run *r = held_run(h);
    assert_answer(say(&fx.hosts[1], id, "faster"));
    release(r);
    run *again = held_run(h);
    assert_ptr_not_equal(again, r);
    assert_int_equal(again->count, 3);
    release(again);
    assert_answer(a);
    assert_member(a, "revision", "3");
    /* overtaken each time: given up after some runs, and nothing is stored */
    a = say(h, id, "hold");
    for (int i = 0; i < 8; i++) {
      r = held_run(h);
      assert_answer(say(&fx.hosts[1], id, "faster"));
      release(r);
    }
    assert_refused(a, TM_ECONFLICT, "conversation.conflict");
    assert_answer(say(h, id, "hello"));
  }
}

/* A stale hot copy says "finished"; the truth is read before a request is refused. */
static void test_stale_copy_refuses_nobody(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    host_start(&fx, 1);
    assert_answer(start(h, id, "hello"));
    assert_answer(say(h, id, "more"));
    assert_answer(say(h, id, "finish"));
    assert_refused(say(h, id, "hello"), TM_ECONFLICT, "conversation.finished");
    assert_answer(undo(&fx.hosts[1], id, 1, 0, false));
    assert_answer(say(h, id, "hello"));
  }
}

static void test_deltas_make_the_state(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    assert_answer(start(h, id, "hello"));
    for (int i = 2; i <= 100; i++) {
      const char *what = i % 9 == 0 ? "call" : i % 31 == 0 ? "checkpoint" : "more";
      assert_answer(say(h, id, what));
      run expected = {.count = i};
      (void)tm__copy(expected.what, sizeof(expected.what), tm__slice(what));
      tm_buf state = {0};
      state_of(&expected, &state);
      answer *a = read_it(&fx, id, TM_READ_CONVERSATION, "", 0);
      assert_answer(a);
      assert_member(a, "state", state.ptr);
      tm__buf_free(&state);
    }
  }
}

typedef struct chain_job {
  tm_store_job job;
  fixture *fx;
  const char *id;
  int rows, since_full, longest, fulls, checkpoints;
  bool done;
} chain_job;

static tm_status on_row(void *ud, const tm_row *row) {
  chain_job *c = ud;
  bool full = tm__json_get(row->body, "state").ptr != NULL;
  c->rows++;
  c->fulls += full;
  c->since_full = full ? 0 : c->since_full + 1;
  if (c->since_full > c->longest) c->longest = c->since_full;
  if (row->checkpoint) {
    c->checkpoints++;
    assert_true(full);
  }
  return TM_OK;
}

static tm_status chain_work(tm_store_job *job, const tm_store_access *a, tm_error *err) {
  chain_job *c = (chain_job *)job;
  tm_head head;
  bool in_memory;
  tm_status status = tm__access_head(a, tm__slice(c->id), &head, &in_memory, err);
  if (status != TM_OK) return status;
  return tm__access_chain(a, in_memory, &head, head.tip, true, on_row, c, err);
}

static void chain_done(tm_message *m) {
  chain_job *c = (chain_job *)m;
  uv_mutex_lock(&c->fx->lock);
  c->done = true;
  uv_cond_broadcast(&c->fx->changed);
  uv_mutex_unlock(&c->fx->lock);
}

/* The whole state is never further away than 16 rows, and only then or at checkpoints repeated. */
static void test_whole_states_are_near(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    assert_answer(start(h, id, "hello"));
    for (int i = 2; i <= 100; i++) {
      if (i % 40 == 0) fixture_restart(&fx);
      if (i % 40 == 0 && !fixture_durable(&fx)) assert_answer(start(h, id, "hello"));
      assert_answer(say(h, id, i % 9 == 0 ? "call2" : i % 31 == 0 ? "checkpoint" : "more"));
    }
    chain_job c = {
        .job = {.message = {.run = chain_done}, .work = chain_work}, .fx = &fx, .id = id};
    tm__storage_run(fx.storage, &c.job);
    uv_mutex_lock(&fx.lock);
    while (!c.done)
      wait_change(&fx);
    uv_mutex_unlock(&fx.lock);
    assert_int_equal(c.job.status, TM_OK);
    assert_in_range(c.longest, 15, 15 + 2); /* the calls of a turn carry no state */
    assert_int_equal(c.checkpoints, fixture_durable(&fx) ? 3 : 1);
    assert_true(c.fulls <= c.rows / 16 + 1 + c.checkpoints);
  }
}

static void test_version_stays(void **unused) {
  (void)unused;
  fixture fx;
  fixture_open(&fx, "sqlite");
  char old[TM_ID_SIZE];
  char young[TM_ID_SIZE];
  tm_error err;
  assert_answer(start(&fx.hosts[0], old, "hello"));
  add_system(&fx, "v2");
  assert_answer(start(&fx.hosts[0], young, "hello"));
  assert_string_equal(fx.last_version, "v2");
  assert_answer(say(&fx.hosts[0], old, "hello"));
  assert_string_equal(fx.last_version, "v1");
  /* after a restart v2 must come from the store, where nobody put it */
  fixture_restart(&fx);
  answer *a = say(&fx.hosts[0], young, "hello");
  assert_refused(a, TM_ESCRIPT, "system.version_missing");
  tm_bundle *b = tm__bundle_new(TM_S("shop"), TM_S("v2"), TM_S("{}"), (tm_slice){0});
  tm__bundle_unref(tm__registry_add(fx.registry, b, &err));
  assert_answer(say(&fx.hosts[0], young, "hello"));
  fixture_close(&fx);
}

typedef struct put_job {
  tm_store_job job;
  bool done;
} put_job;

static tm_status put_work(tm_store_job *job, const tm_store_access *a, tm_error *err) {
  (void)job;
  return a->backend->script_put(a->conn, TM_S("shop"), TM_S("v1"), TM_S("kept sources"), err);
}

static void put_done(tm_message *m) {
  __atomic_store_n(&((put_job *)m)->done, true, __ATOMIC_SEQ_CST);
}

static void test_version_from_the_store(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    char id[TM_ID_SIZE];
    put_job job = {.job = {.message = {.run = put_done}, .write = true, .work = put_work}};
    tm__storage_run(fx.storage, &job.job);
    assert_answer(start(&fx.hosts[0], id, "hello"));
    while (!__atomic_load_n(&job.done, __ATOMIC_SEQ_CST)) { /* it is told by another thread */
    }
    assert_int_equal(job.job.status, TM_OK);
    tm__registry_free(fx.registry);
    fx.registry = tm__registry_new();
    host_start(&fx, 1);
    assert_answer(say(&fx.hosts[1], id, "hello"));
    assert_string_equal(fx.last_version, "v1");
    tm_bundle *b = tm__registry_find(fx.registry, TM_S("shop"), TM_S("v1"));
    assert_non_null(b);
    assert_true(tm__slice_is(b->sources, "kept sources"));
    assert_null(b->description.ptr);
    tm__bundle_unref(b);
    host_stop(&fx.hosts[0]);
  }
}

static void test_no_cache(void **unused) {
  (void)unused;
  fixture fx;
  fixture_init(&fx, "sqlite");
  fx.cache_bytes = 0;
  storage_start(&fx);
  host_start(&fx, 0);
  char ids[20][TM_ID_SIZE];
  for (int i = 0; i < 20; i++) {
    assert_answer(start(&fx.hosts[0], ids[i], "hello"));
  }
  for (int round = 2; round < 5; round++) {
    for (int i = 0; i < 20; i++) {
      char text[40];
      (void)snprintf(text, sizeof(text), "\"more %d\"", round);
      answer *a = say(&fx.hosts[0], ids[i], "more");
      assert_answer(a);
      assert_holds(a, text);
    }
  }
  fixture_close(&fx);
}

static void test_volatile(void **unused) {
  (void)unused;
  fixture fx;
  fixture_open(&fx, "sqlite");
  char id[TM_ID_SIZE];
  char second[TM_ID_SIZE];
  answer *a = start_keyed(&fx.hosts[0], id, "volatile", "k");
  assert_answer(a);
  assert_member(a, "durable", "false");
  answer *b = start_keyed(&fx.hosts[0], second, "volatile", "k");
  assert_answer(b);
  assert_string_equal(a->json, b->json);
  host_start(&fx, 1); /* without a hot copy it is found in memory */
  a = say(&fx.hosts[1], id, "call");
  assert_answer(a);
  assert_member(a, "durable", "false");
  assert_answer(read_it(&fx, id, TM_READ_MESSAGES, "", 0));
  fixture_restart(&fx);
  assert_refused(say(&fx.hosts[0], id, "hello"), TM_ENOTFOUND, "conversation.not_found");
  fixture_close(&fx);
}

static void misuse(void *ud) {
  run *r = ud;
  tm_draft d = {.status = TM_WAITING_INPUT, .state = TM_S("[]"), .runtime = TM_S("{}")};
  r->calls_wanted = 9;
  tm__turn_call(r->turn, TM_S("1:x:0"), TM_S("1"), on_durable, r); /* before begin */
  tm__turn_begin(r->turn, &d, on_durable, r); /* while the other is out: at once */
}

static void call_early(void *ud) {
  run *r = ud;
  tm__turn_call(r->turn, TM_S("1:x:0"), TM_S("1"), on_durable, r);
}

static void test_wrong_use_is_an_error(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    char id[TM_ID_SIZE];
    assert_answer(start(&fx.hosts[0], id, "hello"));
    answer *a = say(&fx.hosts[0], id, "hold");
    run *r = held_run(&fx.hosts[0]);
    on_worker(&fx.hosts[0], misuse, r);
    assert_refused(a, TM_ESCRIPT, "journal.busy");
    a = say(&fx.hosts[0], id, "hold");
    on_worker(&fx.hosts[0], call_early, held_run(&fx.hosts[0]));
    assert_refused(a, TM_ESCRIPT, "journal.not_begun");
    assert_answer(say(&fx.hosts[0], id, "hello"));
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_start_and_message),
      cmocka_unit_test(test_calls),
      cmocka_unit_test(test_refusals),
      cmocka_unit_test(test_repeats),
      cmocka_unit_test(test_repeated_starts),
      cmocka_unit_test(test_repeat_after_restart),
      cmocka_unit_test(test_order_and_limit),
      cmocka_unit_test(test_pure_conflict_runs_again),
      cmocka_unit_test(test_stale_copy_refuses_nobody),
      cmocka_unit_test(test_deltas_make_the_state),
      cmocka_unit_test(test_whole_states_are_near),
      cmocka_unit_test(test_version_stays),
      cmocka_unit_test(test_version_from_the_store),
      cmocka_unit_test(test_no_cache),
      cmocka_unit_test(test_volatile),
      cmocka_unit_test(test_wrong_use_is_an_error),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
