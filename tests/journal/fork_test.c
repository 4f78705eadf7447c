/* Forks: a conversation that goes on twice. */
#include "fixture.h"

static answer *fork_keyed(host *h, const char *id, int64_t checkpoint, const char *key) {
  char fresh[TM_ID_SIZE];
  tm__uuid7(fresh, fixture_now(h->fx));
  tm_request *r = request_new(h->fx->tenant, TM_REQUEST_FORK, fresh);
  (void)tm__copy(r->origin, sizeof(r->origin), tm__slice(id));
  r->checkpoint = checkpoint;
  r->key = digest(key);
  r->body = digest(id) + (uint64_t)checkpoint;
  return submit(h, r);
}

static answer *fork_it(host *h, const char *id, int64_t checkpoint) {
  return fork_keyed(h, id, checkpoint, NULL);
}

static void id_of(const answer *a, char id[TM_ID_SIZE]) {
  tm_slice quoted = tm__json_get(tm__slice(a->json), "conversation_id");
  assert_true(tm__copy(id, TM_ID_SIZE, (tm_slice){quoted.ptr + 1, quoted.len - 2}));
}

static void assert_at(fixture *fx, const char *id, const char *count, const char *ask) {
  answer *a = read_it(fx, id, TM_READ_CONVERSATION, "", 0);
  assert_answer(a);
  assert_holds(a, count);
  assert_holds(a, ask);
}

static void test_both_go_on(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    char other[TM_ID_SIZE];
    assert_answer(start(h, id, "one"));
    assert_answer(say(h, id, "two"));
    answer *a = fork_it(h, id, 0);
    assert_answer(a);
    id_of(a, other);
    assert_string_not_equal(id, other);
    assert_member(a, "status", "\"waiting_input\"");
    assert_member(a, "session_id", "\"s1\"");
    assert_member(a, "flow_version", "\"v1\"");
    assert_member(a, "revision", "1");
    assert_holds(a, "\"step_id\":\"ask2\"");
    assert_answer(say(h, id, "here"));
    a = say(h, other, "there");
    assert_answer(a);
    assert_holds(a, "there 3");
    assert_answer(say(h, other, "there"));
    assert_at(&fx, id, "\"count\":3", "ask3");
    assert_at(&fx, other, "\"count\":4", "ask4");
    assert_answer(undo(h, other, 2, 0, false)); /* as far as it is its own */
    assert_at(&fx, other, "\"count\":2", "ask2");
    assert_refused(undo(h, other, 1, 0, false), TM_ECONFLICT, "rollback.nothing");
    if (!fixture_durable(&fx)) continue;
    fixture_restart(&fx);
    assert_answer(say(&fx.hosts[0], other, "later"));
    assert_at(&fx, other, "\"count\":3", "ask3");
  }
}

static void test_from_a_checkpoint(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    char other[TM_ID_SIZE];
    assert_answer(start(h, id, "one"));
    assert_answer(say(h, id, "checkpoint"));
    assert_answer(say(h, id, "finish"));
    answer *a = fork_it(h, id, 2);
    assert_answer(a);
    id_of(a, other);
    assert_at(&fx, other, "\"count\":2", "ask2");
    a = fork_it(h, id, 0); /* one that is over goes on from its last prompt */
    assert_answer(a);
    assert_holds(a, "ask2");
    assert_refused(fork_it(h, id, 1), TM_ENOTFOUND, "checkpoint.not_found");
    assert_refused(fork_it(h, other, 2), TM_ENOTFOUND, "checkpoint.not_found");
  }
}

static void test_from_a_name(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE], other[TM_ID_SIZE];
    const char *names[] = {"here", "there"};
    assert_answer(start(h, id, "checkpoint#here"));
    assert_answer(say(h, id, "checkpoint#here"));
    assert_answer(say(h, id, "more"));
    for (size_t i = 0; i < 2; i++) {
      tm__uuid7(other, fx.now);
      tm_request *r = request_new(fx.tenant, TM_REQUEST_FORK, other);
      (void)tm__copy(r->origin, sizeof(r->origin), tm__slice(id));
      (void)tm__copy(r->checkpoint_name, sizeof(r->checkpoint_name), tm__slice(names[i]));
      answer *a = await(submit(h, r));
      if (i > 0) assert_refused(a, TM_ENOTFOUND, "checkpoint.not_found");
      if (i == 0) assert_at(&fx, other, "\"count\":2", "ask2");
    }
  }
}

/* Its prompt has its whole time; an answer that is running belongs to the other one. */
static void test_of_one_at_work(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    char other[TM_ID_SIZE];
    assert_answer(start(h, id, "deadline"));
    answer *held = say(h, id, "hold_begun");
    run *r = held_run(h);
    turn_clock(&fx, 5000);
    answer *a = fork_it(h, id, 0);
    assert_answer(a);
    id_of(a, other);
    assert_at(&fx, other, "\"count\":1", "ask1");
    assert_int_equal(stored_head(&fx, other).wake_at, fx.now + 1000);
    release(r);
    assert_answer(held);
    assert_answer(say(h, other, "on"));
    char restored[96];
    (void)snprintf(restored, sizeof(restored),
                   "\"restored\":{\"forked\":%lld,\"moved\":5000,\"revision\":1,\"step_seq\":",
                   (long long)fx.now);
    assert_non_null(strstr(fx.last_runtime, restored));
    assert_at(&fx, other, "\"count\":2", "ask2");
  }
}

static void test_keys(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    assert_answer(start(h, id, "one"));
    answer *first = fork_keyed(h, id, 0, "key");
    assert_answer(first);
    assert_answer(say(h, id, "two"));
    answer *again = fork_keyed(h, id, 0, "key");
    assert_answer(again);
    assert_string_equal(first->json, again->json);
    assert_refused(fork_keyed(h, id, 7, "key"), TM_EREUSED, "idempotency.key_reused");
    answer *other = fork_keyed(h, id, 0, "other");
    assert_answer(other);
    assert_string_not_equal(first->json, other->json);
  }
}

static answer *list_it(fixture *fx) {
  answer *a = answer_new(fx);
  const tm_filter f = {.tenant = fx->tenant};
  tm__reader_list(fx->storage, &f, on_reply, a);
  return await(a);
}

/* Which conversation, and which row of it; in its record and in the list, for as long as it lasts.
 */
static void test_says_of_what(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE], other[TM_ID_SIZE], third[TM_ID_SIZE], from[128];
    assert_answer(start(h, id, "one"));
    assert_answer(say(h, id, "two"));
    assert_null(strstr(read_it(&fx, id, TM_READ_CONVERSATION, "", 0)->json, "forked_from"));
    assert_null(strstr(list_it(&fx)->json, "forked_from"));
    answer *a = fork_it(h, id, 0);
    assert_answer(a);
    id_of(a, other);
    assert_answer(say(h, other, "call"));
    assert_answer(say(h, other, "three"));
    assert_answer(undo(h, other, 1, 0, false));
    answer *held = say(h, other, "hold_begun"); /* its newest row is a call */
    run *r = held_run(h);
    (void)snprintf(from, sizeof(from),
                   "\"forked_from\":{\"conversation_id\":\"%s\",\"revision\":2}", id);
    assert_at(&fx, other, "\"count\":3", from);
    assert_holds(list_it(&fx), from);
    release(r);
    assert_answer(held);
    a = fork_it(h, other, 0);
    assert_answer(a);
    id_of(a, third);
    (void)snprintf(from, sizeof(from), "\"forked_from\":{\"conversation_id\":\"%s\"", other);
    assert_at(&fx, third, "\"count\":4", from);
    assert_holds(list_it(&fx), from);
  }
}

/* The transcript goes on in the other one, page by page. */
static void test_what_came_before(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    char second[TM_ID_SIZE];
    char third[TM_ID_SIZE];
    char cursor[80] = "";
    char seen[512] = "";
    assert_answer(start(h, id, "one"));
    assert_answer(say(h, id, "two"));
    answer *a = fork_it(h, id, 0);
    assert_answer(a);
    id_of(a, second);
    assert_answer(say(h, id, "aside"));
    assert_answer(say(h, second, "three"));
    a = fork_it(h, second, 0);
    assert_answer(a);
    id_of(a, third);
    assert_answer(say(h, third, "four"));
    for (int page = 0; page < 20; page++) {
      a = read_it(&fx, third, TM_READ_MESSAGES, cursor, 1);
      assert_answer(a);
      tm_buf said = {0};
      tm_slice items = tm__json_get(tm__slice(a->json), "items");
      (void)tm__json_get_text((tm_slice){items.ptr + 1, items.len - 2}, "text", &said);
      size_t length = strlen(seen);
      (void)snprintf(seen + length, sizeof(seen) - length, "%.100s,", said.ptr);
      tm__buf_free(&said);
      tm_slice next = tm__json_get(tm__slice(a->json), "next");
      if (tm__slice_is(next, "null")) break;
      assert_true(tm__copy(cursor, sizeof(cursor), (tm_slice){next.ptr + 1, next.len - 2}));
    }
    assert_string_equal(seen, "?,four 4,?,three 3,?,two 2,?,one 1,");
    a = read_it(&fx, third, TM_READ_STEPS, "", 0);
    assert_holds(a, "\"step1\"");
    assert_int_equal(strlen(cursor) > 40, true); /* it names the conversation */
    fx.tenant = "t2";
    char foreign[TM_ID_SIZE];
    assert_answer(start(h, foreign, "theirs"));
    assert_refused(read_it(&fx, foreign, TM_READ_MESSAGES, cursor, 1), TM_EINVAL, "cursor.invalid");
  }
}

static void test_refused(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    assert_answer(start(h, id, "finish"));
    assert_refused(fork_it(h, id, 0), TM_ECONFLICT, "fork.nothing");
    fx.tenant = "t2";
    answer *a = fork_it(h, id, 0);
    assert_refused(a, TM_ENOTFOUND, "conversation.not_found");
    assert_string_equal(a->error.conversation_id, id);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_both_go_on),       cmocka_unit_test(test_from_a_checkpoint),
      cmocka_unit_test(test_of_one_at_work),   cmocka_unit_test(test_keys),
      cmocka_unit_test(test_refused),          cmocka_unit_test(test_says_of_what),
      cmocka_unit_test(test_what_came_before), cmocka_unit_test(test_from_a_name),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
