/* Calls whose answer is not recorded: a rollback knows of them by the step's record, or, where
 * there is none, by the row that was written before the call. */
#include "fixture.h"
#include "journal/slot.h"

static void add_row(tm_undo_steps *u, tm_row_kind kind, const char *body) {
  const tm_row row = {.kind = kind, .body = tm__slice(body)};
  tm_row_fields f;
  tm_error err;
  tm__row_fields(&f, row.body);
  assert_int_equal(tm__undo_steps_add(u, &row, &f, &err), TM_OK);
}

typedef struct line {
  tm_row_kind kind;
  const char *body;
} line;

/* What a rollback over the rows, the newest first, would name. */
static void assert_named(const line *rows, const char *names) {
  tm_undo_steps u = {0};
  tm_buf out = {0};
  for (; rows->body != NULL; rows++) {
    add_row(&u, rows->kind, rows->body);
  }
  tm__undo_steps_irreversible(&u, &out);
  tm__buf_byte(&out, '\0');
  assert_true(tm__buf_ok(&out));
  assert_string_equal(out.ptr, names);
  tm__buf_free(&out);
  tm__undo_steps_free(&u);
}

#define RAN(seq, id, status, more)                                                                 \
  "{\"called\":true,\"seq\":" #seq ",\"status\":\"" status "\",\"step_id\":\"" id "\"" more "}"
#define ROW(steps)             "{\"messages\":[],\"steps\":[" steps "]}"
#define BEGIN(seq, step, more) "{\"runtime\":{" more "\"step_seq\":" #seq "},\"step\":\"" step "\"}"
#define BEGUN(seq, step)       BEGIN(seq, step, "\"started\":5,")
#define CALL(key)              "{\"call\":{\"key\":\"" key "\",\"result\":1}}"
#define END                                                                                        \
  { TM_ROW_TURN, NULL }

static void test_records(void **unused) {
  (void)unused;
  const line late[] = {{TM_ROW_TURN, ROW(RAN(3, "p", "failed", ""))}, END};
  assert_named(late, "p");
  const line has_undo[] = {{TM_ROW_TURN, ROW(RAN(3, "p", "failed", ",\"undo\":\"main\""))}, END};
  assert_named(has_undo, "p");
  const line may_stay[] = {{TM_ROW_TURN, ROW(RAN(3, "p", "failed", ",\"irreversible\":false"))},
                           END};
  assert_named(may_stay, "");
  const line again[] = {
      {TM_ROW_TURN, ROW("{\"attempt\":2,\"seq\":4,\"status\":\"completed\",\"step_id\":\"p\","
                        "\"output\":1,\"undo\":\"main\"}")},
      {TM_ROW_BEGIN, ROW(RAN(3, "p", "failed", ",\"undo\":\"main\""))},
      END};
  assert_named(again, "");
  const line beside[] = {
      {TM_ROW_TURN,
       ROW("{\"seq\":2,\"status\":\"completed\",\"step_id\":\"fork\"},"
           "{\"branch\":\"l\",\"output\":1,\"seq\":3,\"status\":\"completed\",\"step_id\":\"l1\","
           "\"called\":true,\"undo\":\"main\"},"
           "{\"branch\":\"l\",\"seq\":4,\"status\":\"cancelled\",\"step_id\":\"l2\","
           "\"called\":true,\"undo\":\"main\"}")},
      END};
  assert_named(beside, "l2");
}

/* What a sub-flow did is also taken back by its step, and is named with its flow. */
static void test_flows_in_flows(void **unused) {
  (void)unused;
#define PAID ROW(RAN(3, "pay", "completed", ",\"flow\":\"buy\""))
#define SUB(seq, more)                                                                             \
  ROW("{\"first\":3,\"output\":1,\"seq\":" #seq ",\"step_id\":\"buy\"" more "}")
  const line alone[] = {{TM_ROW_TURN, PAID}, END};
  assert_named(alone, "buy/pay");
  const line plain[] = {
      {TM_ROW_TURN, SUB(5, ",\"status\":\"completed\"")}, {TM_ROW_TURN, PAID}, END};
  assert_named(plain, "buy/pay");
  const line undone[] = {{TM_ROW_TURN, SUB(5, ",\"status\":\"completed\",\"undo\":\"main\"")},
                         {TM_ROW_TURN, PAID},
                         {TM_ROW_TURN, ROW(RAN(2, "before", "completed", ""))},
                         END};
  assert_named(undone, "before");
  const line aside[] = {
      {TM_ROW_TURN, SUB(5, ",\"status\":\"completed\",\"undo\":\"main\"")},
      {TM_ROW_TURN, ROW(RAN(4, "look", "completed", ",\"aside\":true,\"flow\":\"hours\""))},
      {TM_ROW_TURN, PAID},
      END};
  assert_named(aside, "hours/look");
  const line within[] = {{TM_ROW_TURN, SUB(5, ",\"status\":\"completed\",\"undo\":\"main\"")},
                         {TM_ROW_TURN, ROW(RAN(4, "ship", "completed", ",\"flow\":\"buy\""))},
                         END};
  assert_named(within, "buy, buy/ship");
  const line failed[] = {
      {TM_ROW_TURN, SUB(5, ",\"status\":\"failed\",\"undo\":\"main\"")}, {TM_ROW_TURN, PAID}, END};
  assert_named(failed, "buy/pay");
  const line stays[] = {{TM_ROW_TURN, SUB(5, ",\"status\":\"completed\",\"irreversible\":false")},
                        {TM_ROW_TURN, PAID},
                        END};
  assert_named(stays, "");
  const line cut[] = {{TM_ROW_TURN, ROW("")},
                      {TM_ROW_BEGIN, BEGIN(3, "pay", "\"flow\":\"buy\",\"started\":5,")},
                      END};
  assert_named(cut, "buy/pay");
}

static void test_begun_and_no_record(void **unused) {
  (void)unused;
  const line nothing[] = {{TM_ROW_TURN, ROW("")}, {TM_ROW_BEGIN, BEGUN(3, "p")}, END};
  const line behind[] = {{TM_ROW_TURN, ROW("")},
                         {TM_ROW_CALL, CALL("4:http:ab:1")},
                         {TM_ROW_BEGIN,
                          "{\"runtime\":{\"started\":5,\"step_seq\":3},\"step\":\"p\","
                          "\"steps\":[" RAN(3, "q", "completed", "") "]}"},
                         END};
  assert_named(behind, "p, q");
  assert_named(nothing, "p");
  const line put_off[] = {{TM_ROW_TURN, ROW("")}, {TM_ROW_BEGIN, BEGIN(3, "p", "")}, END};
  assert_named(put_off, "");
  const line stays[] = {{TM_ROW_TURN, ROW("")},
                        {TM_ROW_CALL, CALL("4:http:ab:1")},
                        {TM_ROW_BEGIN, BEGIN(3, "p", "\"started\":5,\"stays\":true,")},
                        END};
  assert_named(stays, "");
  const line answered[] = {{TM_ROW_TURN, ROW("")},
                           {TM_ROW_CALL, CALL("4:http:ab:1")},
                           {TM_ROW_BEGIN, BEGUN(3, "p")},
                           END};
  assert_named(answered, "p");
}

/* What the record says is all there is to it. */
static void test_begun_and_recorded(void **unused) {
  (void)unused;
  const line rows[] = {{TM_ROW_TURN, ROW("{\"seq\":4,\"status\":\"completed\",\"step_id\":\"p\"}")},
                       {TM_ROW_BEGIN, BEGUN(3, "p")},
                       END};
  assert_named(rows, "");
}

/* A result of ctx:once has the number of the attempt before, whose record comes later. */
static void test_begun_again(void **unused) {
  (void)unused;
  const line rows[] = {{TM_ROW_TURN, ROW("")},
                       {TM_ROW_CALL, CALL("3:once:ab")},
                       {TM_ROW_BEGIN, BEGUN(3, "p")},
                       {TM_ROW_BEGIN, ROW(RAN(3, "p", "failed", ""))},
                       {TM_ROW_TURN, ROW(RAN(2, "q", "completed", ""))},
                       END};
  assert_named(rows, "p, q");
}

static void test_steps_of_a_turn_that_was_given_up(void **unused) {
  (void)unused;
  const line rows[] = {{TM_ROW_TURN, ROW(RAN(5, "q", "completed", ""))},
                       {TM_ROW_UNDO, "{\"undo\":{\"called\":[\"p\",\"q\"],\"undone\":[]}}"},
                       END};
  assert_named(rows, "q, p");
}

/* The call of a branch has the number of the step around it, its own step has another one, and by
 * that it was undone. */
static void test_undone_in_a_branch(void **unused) {
  (void)unused;
  const line rows[] = {
      {TM_ROW_BEGIN, ROW("{\"seq\":4,\"status\":\"completed\",\"step_id\":\"p\",\"undoes\":3}")},
      {TM_ROW_TURN, ROW(RAN(2, "both", "completed", "") "," RAN(
                        3, "p", "completed", ",\"branch\":\"l\",\"output\":1,\"undo\":\"main\""))},
      {TM_ROW_CALL, CALL("2:l.1:http:ab:1@0")},
      END};
  tm_undo_steps u = {0};
  tm_buf out = {0};
  bool more;
  for (size_t i = 0; rows[i].body != NULL; i++) {
    add_row(&u, rows[i].kind, rows[i].body);
  }
  assert_int_equal(tm__undo_steps_write(&u, 1000, &more, &out), 0);
  tm__buf_free(&out);
  tm__undo_steps_free(&u);
}

/* ---- whole turns ---- */

static void test_rollback(void **unused) {
  (void)unused;
  EACH_STARTED(fx, fixture_open, "one") {
    assert_answer(say(h, id, "asked"));
    answer *a = undo(h, id, 1, 0, false);
    assert_refused(a, TM_ECONFLICT, "rollback.irreversible");
    assert_non_null(strstr(a->error.message, "step2"));
    assert_answer(undo(h, id, 1, 0, true));
  }
}

/* Its host has died within a call, and somebody ends the conversation. */
static void test_cancelled_within_a_call(void **unused) {
  (void)unused;
  for (int stays = 0; stays < 2; stays++) {
    EACH_BACKEND(fx) {
      char id[TM_ID_SIZE];
      host *h = &fx.hosts[1];
      fx.begins = true;
      fx.stays = stays != 0;
      host_start(&fx, 1);
      assert_answer(start(&fx.hosts[0], id, "hello"));
      answer *turn = say(&fx.hosts[0], id, "hold_begun");
      run *held = held_run(&fx.hosts[0]);
      turn_clock(&fx, LEASE_MS + 1);
      assert_answer(cancel(h, id));
      release(held);
      assert_answer(turn);
      answer *a = undo(h, id, 1, 0, false);
      if (stays != 0) {
        assert_answer(a);
      } else {
        assert_refused(a, TM_ECONFLICT, "rollback.irreversible");
        assert_non_null(strstr(a->error.message, "held"));
      }
    }
  }
}

static void open_interrupt(fixture *fx, const char *backend) {
  fixture_open(fx, backend);
  fx->concurrency = "interrupt";
  fx->begins = true;
}

/* A turn that another message takes the place of is on no branch any more; what it called stays. */
static void test_interrupted(void **unused) {
  (void)unused;
  EACH_STARTED(fx, open_interrupt, "hello") {
    answer *one = say(h, id, "hold_begun");
    run *r = held_run(h);
    answer *two = say(h, id, "plain");
    release(r);
    assert_refused(one, TM_ECONFLICT, "conversation.interrupted");
    assert_answer(two);
    answer *a = undo(h, id, 1, 0, false);
    assert_refused(a, TM_ECONFLICT, "rollback.irreversible");
    assert_non_null(strstr(a->error.message, "held"));
    a = undo(h, id, 1, 0, true);
    assert_answer(a);
    assert_answer(say(h, id, "plain"));
    assert_answer(undo(h, id, 1, 0, false)); /* that was before */
  }
}

/* Where nothing had left, nothing is named; nor what may stay. */
static void test_interrupted_before_a_call(void **unused) {
  (void)unused;
  EACH_STARTED(fx, open_interrupt, "hello") {
    fx.stays = true;
    answer *one = say(h, id, "hold_begun");
    run *r = held_run(h);
    answer *two = say(h, id, "plain");
    release(r);
    assert_refused(one, TM_ECONFLICT, "conversation.interrupted");
    assert_answer(two);
    assert_answer(undo(h, id, 1, 0, false));
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_records),
      cmocka_unit_test(test_flows_in_flows),
      cmocka_unit_test(test_begun_and_no_record),
      cmocka_unit_test(test_begun_and_recorded),
      cmocka_unit_test(test_begun_again),
      cmocka_unit_test(test_steps_of_a_turn_that_was_given_up),
      cmocka_unit_test(test_undone_in_a_branch),
      cmocka_unit_test(test_rollback),
      cmocka_unit_test(test_cancelled_within_a_call),
      cmocka_unit_test(test_interrupted),
      cmocka_unit_test(test_interrupted_before_a_call),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
