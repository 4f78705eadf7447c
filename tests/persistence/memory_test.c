/* What only the backend in memory does: it holds so much and no more. Conversations that have ended
 * make room once they have told their events; open ones never do. */
#include "fixture.h"

#define LIMIT ((size_t)64 << 10)

static char body[1000];

static int set_up(void **state) {
  static fixture fx;
  memset(body, 'x', sizeof(body) - 1);
  fixture_make(&fx, tm__store_backend(TM_S("memory")));
  fx.options.memory_bytes = LIMIT;
  fixture_open(&fx);
  *state = &fx;
  return 0;
}

static int tear_down(void **state) {
  fixture_remove(*state);
  return 0;
}

/* Conversation n in a session of its own, with a start key. */
static tm_status begin(fixture *fx, int n, tm_conversation_status status) {
  tm_row row = row_of(fx, 0, body);
  tm_session session = {.user_id = TM_S("ann"), .metadata = TM_S("{}")};
  tm_commit c = commit_of(fx, nth(n).text, 0, &row);
  (void)snprintf(c.head.session, sizeof(c.head.session), "s%d", n);
  c.head.status = status;
  c.head.wake_at = fx->now;
  c.start_key = (uint64_t)n + 1;
  c.start_answer = true;
  c.session = &session;
  return commit_one(fx, &c);
}

static bool knows(fixture *fx, int n) {
  tm_head head;
  tm_start_key key;
  tm_slice tenant = TM_S("default");
  tm_status status = fx->backend->head(fx->reader, tm__slice(nth(n).text), &head, NULL);
  tm_status by_key = fx->backend->start_key(fx->reader, tenant, (uint64_t)n + 1, &key, NULL);
  assert_int_equal(by_key, status);
  return status == TM_OK;
}

static tm_status see_session(void *ud, const tm_session *session) {
  assert_true(tm__slice_is(session->user_id, "ann"));
  ++*(int *)ud;
  return TM_OK;
}

static tm_status see_row(void *ud, const tm_row *row) {
  assert_int_equal(row->body.len, strlen(body));
  ++*(int *)ud;
  return TM_OK;
}

static void ended_ones_make_room(void **state) {
  fixture *fx = *state;
  int sessions = 0, rows = 0;
  assert_ok(fx, begin(fx, 0, TM_WAITING_INPUT));
  for (int n = 1; n < 1000; n++)
    assert_ok(fx, begin(fx, n, n % 2 ? TM_COMPLETED : TM_FAILED));
  assert_true(knows(fx, 0));
  assert_true(knows(fx, 999));
  for (int n = 1; n < 900; n++)
    assert_false(knows(fx, n));
  assert_int_equal(
      fx->backend->chain(fx->reader, tm__slice(nth(1).text), 2, true, see_row, &rows, NULL),
      TM_ENOTFOUND);
  assert_int_equal(
      fx->backend->session(fx->reader, TM_S("default"), TM_S("s1"), see_session, &sessions, NULL),
      TM_ENOTFOUND);
  assert_ok(fx, fx->backend->chain(fx->reader, tm__slice(nth(0).text), 1, true, see_row, &rows,
                                   &fx->err));
  assert_ok(fx, fx->backend->session(fx->reader, TM_S("default"), TM_S("s0"), see_session,
                                     &sessions, &fx->err));
  assert_int_equal(rows, 1);
  assert_int_equal(sessions, 1);
}

static void open_ones_stay(void **state) {
  fixture *fx = *state;
  int n = 0;
  while (begin(fx, n, TM_WAITING_INPUT) == TM_OK)
    n++;
  assert_in_range(n, 10, 64);
  assert_int_equal(begin(fx, n, TM_WAITING_INPUT), TM_ELIMIT);
  assert_false(knows(fx, n));
  int64_t tip = head_of(fx, nth(3).text).tip;
  for (int i = 1; i < 100; i++) /* they go on */
    tip = turn(fx, nth(3).text, i, tip, body);
  assert_int_equal(begin(fx, n, TM_WAITING_INPUT), TM_ELIMIT);
  tm_row row = row_of(fx, tip, body);
  tm_commit end = commit_of(fx, nth(3).text, 100, &row);
  end.head.status = TM_EXPIRED;
  assert_ok(fx, commit_one(fx, &end));
  assert_ok(fx, begin(fx, n, TM_WAITING_INPUT));
  assert_false(knows(fx, 3));
  for (int i = 0; i <= n; i++)
    assert_true(i == 3 || knows(fx, i));
}

static tm_status see_event(void *ud, const tm_outgoing *event) {
  *(tm_outgoing *)ud = *event;
  return TM_OK;
}

/* What has ended makes no room before its events are told; then it does. */
static void those_with_events_stay(void **state) {
  fixture *fx = *state;
  const tm_store_backend *b = fx->backend;
  tm_row row = row_of(fx, 0, body);
  tm_outgoing event = {.created = fx->now, .body = TM_S("{}")};
  tm_commit told = commit_of(fx, nth(0).text, 0, &row);
  told.head.status = TM_COMPLETED;
  told.events = &event;
  told.event_count = 1;
  told.start_key = 1;
  assert_ok(fx, commit_one(fx, &told));
  for (int n = 1; n < 100; n++)
    assert_ok(fx, begin(fx, n, TM_COMPLETED));
  assert_false(knows(fx, 1));
  assert_true(knows(fx, 0));
  int n = 100;
  while (begin(fx, n, TM_WAITING_INPUT) == TM_OK) /* it is full, and says so */
    n++;
  assert_true(knows(fx, 0));
  assert_ok(fx, b->outbox_take(fx->writer, fx->now, fx->now + 9, 9, see_event, &event, &fx->err));
  assert_ok(fx, b->outbox_settle(fx->writer, &event, TM_OUTCOME_DELIVERED, fx->now, &fx->err));
  assert_ok(fx, begin(fx, n, TM_WAITING_INPUT));
  assert_false(knows(fx, 0));
}

typedef struct walk {
  fixture *fx;
  int rows, next;
} walk;

/* While it holds a row, conversations come and go. */
static tm_status see_slowly(void *ud, const tm_row *row) {
  walk *w = ud;
  for (int i = 0; i < 200; i++)
    assert_ok(w->fx, begin(w->fx, w->next++, TM_COMPLETED));
  return see_row(&w->rows, row);
}

static void nothing_leaves_during_a_walk(void **state) {
  fixture *fx = *state;
  walk w = {.fx = fx, .next = 10};
  int64_t tip = 0;
  for (int i = 0; i < 3; i++)
    tip = turn(fx, nth(1).text, i, tip, body);
  tm_row row = row_of(fx, tip, body);
  tm_commit end = commit_of(fx, nth(1).text, 3, &row);
  end.head.status = TM_COMPLETED;
  assert_ok(fx, commit_one(fx, &end));
  assert_ok(fx, fx->backend->chain(fx->reader, tm__slice(nth(1).text), end.row_id, true, see_slowly,
                                   &w, &fx->err));
  assert_int_equal(w.rows, 4);
  assert_ok(fx, begin(fx, w.next, TM_COMPLETED));
  tm_head head;
  assert_int_equal(fx->backend->head(fx->reader, tm__slice(nth(1).text), &head, NULL),
                   TM_ENOTFOUND);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void) {
  const struct CMUnitTest tests[] = {
      CASE(ended_ones_make_room),
      CASE(open_ones_stay),
      CASE(those_with_events_stay),
      CASE(nothing_leaves_during_a_walk),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
