/* Reading: records, pages along the rows, lists; nothing of other tenants or conversations. */
#include <sqlite3.h>

#include "fixture.h"

static size_t count_items(const char *json, const char *of) {
  size_t n = 0;
  for (const char *at = strstr(json, of); at != NULL; at = strstr(at + 1, of))
    n++;
  return n;
}

/* Reads page after page; the number of items, each newer than the one behind it. */
static int read_all(fixture *fx, const char *id, tm_read what, const char *seq_of, int limit) {
  char cursor[64] = "";
  int64_t last = INT64_MAX;
  int total = 0;
  do {
    answer *a = read_it(fx, id, what, cursor, limit);
    assert_answer(a);
    tm_json_walk w;
    tm_slice key;
    tm_slice item;
    int on_page = 0;
    assert_true(tm__json_walk(&w, tm__json_get(tm__slice(a->json), "items")));
    while (tm__json_next(&w, &key, &item)) {
      int64_t seq = tm__json_get_int(item, seq_of, -1);
      assert_true(seq >= 0 && seq < last);
      last = seq;
      on_page++;
    }
    assert_true(on_page <= limit);
    total += on_page;
    tm_buf next = {0};
    cursor[0] = '\0';
    if (tm__json_get_text(tm__slice(a->json), "next", &next)) {
      assert_true(tm__copy(cursor, sizeof(cursor), tm__buf_view(&next)));
    }
    tm__buf_free(&next);
  } while (cursor[0] != '\0');
  return total;
}

static void test_pages(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    assert_answer(start(h, id, "one"));
    for (int i = 2; i <= 30; i++) {
      assert_answer(say(h, id, i % 3 == 0 ? "checkpoint" : "more"));
    }
    for (int limit = 1; limit < 9; limit++) {
      assert_int_equal(read_all(&fx, id, TM_READ_STEPS, "seq", limit), 30);
      assert_int_equal(read_all(&fx, id, TM_READ_MESSAGES, "seq", limit), 60);
      assert_int_equal(read_all(&fx, id, TM_READ_CHECKPOINTS, "revision", limit), 10);
    }
    assert_int_equal(read_all(&fx, id, TM_READ_STEPS, "seq", 200), 30);
    answer *a = read_it(&fx, id, TM_READ_STEPS, "", 0); /* 50 at most */
    assert_member(a, "next", "null");
    a = read_it(&fx, id, TM_READ_MESSAGES, "", 0);
    assert_int_equal(count_items(a->json, "\"role\""), 50);
  }
}

static void test_cursors_are_checked(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char mine[TM_ID_SIZE];
    char other[TM_ID_SIZE];
    assert_answer(start(h, mine, "one"));
    assert_answer(say(h, mine, "two"));
    assert_answer(say(h, mine, "three")); /* the cursor is of a row that the other has not */
    assert_answer(start(h, other, "one"));
    answer *a = read_it(&fx, mine, TM_READ_STEPS, "", 1);
    tm_buf next = {0};
    assert_true(tm__json_get_text(tm__slice(a->json), "next", &next));
    assert_answer(read_it(&fx, mine, TM_READ_STEPS, next.ptr, 1));
    assert_refused(read_it(&fx, mine, TM_READ_MESSAGES, next.ptr, 1), TM_EINVAL, "cursor.invalid");
    const char *bad[] = {next.ptr, "x",      "1-999999-0", "1",     "1--1-0",
                         "1-1-0 ", "1- 1-0", "1-1-00",     "1-A-0", "1-1-99999999999999999999"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
      assert_refused(read_it(&fx, other, TM_READ_STEPS, bad[i], 1), TM_EINVAL, "cursor.invalid");
    }
    tm__buf_free(&next);
  }
}

static void test_record(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    char text[64];
    int64_t created = fx.now;
    assert_answer(start(h, id, "one"));
    turn_clock(&fx, 5000);
    assert_answer(say(h, id, "call"));
    answer *a = read_it(&fx, id, TM_READ_CONVERSATION, "", 0);
    assert_answer(a);
    assert_null(strstr(a->json, "replies"));
    assert_member(a, "summary", "\"after 2\"");
    assert_member(a, "feedback", "null");
    (void)snprintf(text, sizeof(text), "%lld", (long long)created);
    assert_member(a, "created", text);
    (void)snprintf(text, sizeof(text), "%lld", (long long)created + 5000);
    assert_member(a, "updated", text);
    assert_member(a, "current_step", "\"ask\"");
    answer *held = say(h, id, "hold_begun"); /* in the middle of a turn */
    run *r = held_run(h);
    a = read_it(&fx, id, TM_READ_CONVERSATION, "", 0);
    assert_answer(a);
    assert_member(a, "status", "\"active\"");
    assert_member(a, "prompt", "null");
    release(r);
    assert_answer(held);
  }
}

static void test_foreign(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    char id[TM_ID_SIZE];
    assert_answer(start(&fx.hosts[0], id, "one"));
    const char *ids[] = {id, "nonsense", "00000000-0000-0000-0000-000000000000", ""};
    for (size_t i = 0; i < 4; i++) {
      answer *a = answer_new(&fx);
      tm__reader_conversation(fx.storage, i == 0 ? TM_S("t2") : TM_S("t1"), tm__slice(ids[i]),
                              TM_READ_CONVERSATION, (tm_slice){0}, 0, NULL, on_reply, a);
      assert_refused(a, TM_ENOTFOUND, "conversation.not_found");
    }
  }
}

static answer *list(fixture *fx, tm_filter f) {
  answer *a = answer_new(fx);
  f.size = sizeof(f);
  if (f.tenant == NULL) f.tenant = "t1";
  tm__reader_list(fx->storage, &f, on_reply, a);
  return await(a);
}

static void test_list(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char ids[12][TM_ID_SIZE];
    for (int i = 0; i < 12; i++) {
      turn_clock(&fx, 1);
      const char *what = i % 4 == 3 ? "finish" : i % 4 == 2 ? "volatile" : "hello";
      assert_answer(start(h, ids[i], what));
    }
    answer *a = list(&fx, (tm_filter){0});
    assert_answer(a);
    assert_int_equal(count_items(a->json, "conversation_id"), 12);
    assert_member(a, "next", "null");
    char cursor[TM_ID_SIZE] = "";
    for (int i = 11; i >= 0; i -= 5) {
      a = list(&fx, (tm_filter){.limit = 5, .cursor = cursor});
      assert_answer(a);
      for (int k = i; k > i - 5 && k >= 0; k--) {
        assert_holds(a, ids[k]);
      }
      assert_int_equal(count_items(a->json, "conversation_id"), i >= 4 ? 5 : i + 1);
      tm_buf next = {0};
      assert_int_equal(tm__json_get_text(tm__slice(a->json), "next", &next), i >= 5);
      (void)tm__copy(cursor, sizeof(cursor), tm__buf_view(&next));
      tm__buf_free(&next);
    }
    a = list(&fx, (tm_filter){.status = "completed"});
    assert_int_equal(count_items(a->json, "conversation_id"), 3);
    assert_int_equal(count_items(list(&fx, (tm_filter){.session_id = "s1"})->json, "\"s1\""), 12);
    const tm_filter none[] = {
        {.session_id = "s2"}, {.system = "x"}, {.flow_id = "x"}, {.tenant = "t2"}};
    for (size_t i = 0; i < 4; i++) {
      assert_string_equal(list(&fx, none[i])->json, "{\"items\":[],\"next\":null}");
    }
    char long_name[200];
    memset(long_name, 'x', sizeof(long_name));
    long_name[sizeof(long_name) - 1] = '\0';
    assert_string_equal(list(&fx, (tm_filter){.session_id = long_name})->json,
                        "{\"items\":[],\"next\":null}");
    assert_refused(list(&fx, (tm_filter){.status = "nice"}), TM_EINVAL, "request.invalid");
    assert_refused(list(&fx, (tm_filter){.cursor = "nice"}), TM_EINVAL, "cursor.invalid");
  }
}

/* A row that a newer program wrote in its own way is not taken for an empty one. */
static void test_rows_of_a_newer_program(void **unused) {
  (void)unused;
  fixture fx;
  fixture_open(&fx, "sqlite");
  host_start(&fx, 1); /* without a hot copy */
  char id[TM_ID_SIZE];
  assert_answer(start_keyed(&fx.hosts[0], id, "hello", "s"));
  assert_answer(say_keyed(&fx.hosts[0], id, "two", "k"));
  sqlite3 *db;
  assert_int_equal(sqlite3_open(fx.file, &db), SQLITE_OK);
  assert_int_equal(sqlite3_exec(db, "UPDATE journal SET flags=1", NULL, NULL, NULL), SQLITE_OK);
  (void)sqlite3_close(db);
  static const tm_read all[] = {TM_READ_CONVERSATION, TM_READ_STEPS, TM_READ_MESSAGES,
                                TM_READ_CHECKPOINTS};
  for (size_t i = 0; i < 4; i++) {
    assert_refused(read_it(&fx, id, all[i], "", 0), TM_ECORRUPT, "journal.newer");
  }
  assert_refused(say(&fx.hosts[1], id, "three"), TM_ECORRUPT, "journal.newer");
  char other[TM_ID_SIZE];
  assert_refused(start_keyed(&fx.hosts[1], other, "hello", "s"), TM_ECORRUPT, "journal.newer");
  assert_refused(say_keyed(&fx.hosts[0], id, "two", "k"), TM_ECORRUPT, "journal.newer");
  assert_refused(undo(&fx.hosts[0], id, 1, 0, false), TM_ECORRUPT, "journal.newer");
  fixture_close(&fx);
}

/* "123" for the executions that are on the branch that counts, "(4)" for the others; read by pages.
 */
static void branches(fixture *fx, const char *id, int page, char *out) {
  char next[112] = "";
  tm_buf all = {0};
  do {
    answer *a = read_it(fx, id, TM_READ_STEPS, next, page);
    assert_answer(a);
    tm_json_walk w;
    tm_slice key, step, at = tm__json_get(tm__slice(a->json), "next");
    bool more = tm__json_walk(&w, tm__json_get(tm__slice(a->json), "items"));
    while (more && tm__json_next(&w, &key, &step)) {
      bool undone = tm__slice_is(tm__json_get(step, "undone"), "true");
      tm__buf_printf(&all, undone ? "(%d)" : "%d", (int)tm__json_get_int(step, "seq", 0));
    }
    next[0] = '\0';
    if (at.ptr[0] == '"')
      assert_true(tm__copy(next, sizeof(next), (tm_slice){at.ptr + 1, at.len - 2}));
  } while (next[0] != '\0');
  assert_true(tm__copy(out, 64, tm__buf_view(&all)));
  tm__buf_free(&all);
}

static void assert_branches(fixture *fx, const char *id, const char *wanted) {
  char out[64];
  for (int page = 1; page < 8; page++) {
    branches(fx, id, page, out);
    assert_string_equal(out, wanted);
  }
}

/* The journal has both branches, and says which executions lie on one that was left. */
static void test_branches(void **unused) {
  (void)unused;
  EACH_STARTED(fx, fixture_open, "one") {
    assert_answer(say(h, id, "two"));
    assert_answer(say(h, id, "three"));
    assert_branches(&fx, id, "321");
    assert_answer(undo(h, id, 1, 0, false));
    assert_branches(&fx, id, "(3)21");
    assert_answer(say(h, id, "other"));
    assert_branches(&fx, id, "3(3)21");
    assert_answer(undo(h, id, 2, 0, false));
    assert_answer(say(h, id, "more"));
    assert_branches(&fx, id, "2(3)(3)(2)1");
    assert_answer(say(h, id, "more"));
    assert_answer(undo(h, id, 1, 0, false));
    assert_branches(&fx, id, "(3)2(3)(3)(2)1");
  }
}

/* What a rollback has done that failed is on no branch, and was not undone. */
static void test_branches_of_a_rollback_that_failed(void **unused) {
  (void)unused;
  EACH_STARTED(fx, fixture_open, "one") {
    assert_answer(say(h, id, "paid"));
    assert_answer(say(h, id, "paid"));
    fx.on_undo = "undo_fail";
    assert_refused(undo(h, id, 2, 0, false), TM_ECONFLICT, "rollback.undo_failed");
    assert_branches(&fx, id, "9321");
    fx.on_undo = "undo";
    assert_answer(undo(h, id, 2, 0, false));
    assert_branches(&fx, id, "99(3)(2)1");
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_branches), cmocka_unit_test(test_branches_of_a_rollback_that_failed),
      cmocka_unit_test(test_pages),    cmocka_unit_test(test_cursors_are_checked),
      cmocka_unit_test(test_record),   cmocka_unit_test(test_foreign),
      cmocka_unit_test(test_list),     cmocka_unit_test(test_rows_of_a_newer_program),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
