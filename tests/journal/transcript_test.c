/* What was said, read by a turn that runs: pages, back over forks and past what was undone, from
 * the row that was the newest when it began. */
#include "fixture.h"

typedef struct question {
  run *r;
  const char *cursor;
  bool cancel, done;
  tm_status status;
  char *page;
  tm_error error;
} question;

static void on_messages(void *ud, tm_slice page, const tm_error *err) {
  question *q = ud;
  fixture *fx = q->r->host->fx;
  uv_mutex_lock(&fx->lock);
  q->done = true;
  q->status = err != NULL ? err->status : TM_OK;
  if (err != NULL) q->error = *err;
  if (err == NULL) q->page = strndup(page.ptr, page.len);
  uv_cond_broadcast(&fx->changed);
  uv_mutex_unlock(&fx->lock);
}

static void ask_now(void *ud) {
  question *q = ud;
  tm_error err;
  tm_messages_read *read =
      tm__turn_messages(q->r->turn, tm__slice(q->cursor), on_messages, q, &err);
  assert_non_null(read);
  assert_false(q->done); /* never before it has returned */
  if (q->cancel) tm__messages_cancel(read);
}

static void ask(run *r, question *q, const char *cursor) {
  fixture *fx = r->host->fx;
  *q = (question){.r = r, .cursor = cursor};
  on_worker(r->host, ask_now, q);
  uv_mutex_lock(&fx->lock);
  while (!q->done)
    wait_change(fx);
  uv_mutex_unlock(&fx->lock);
}

/* The first letters of what the agent said, page after page, the newest first. */
static int said(run *r, char *out, size_t size) {
  char cursor[80] = "";
  int pages = 0;
  out[0] = '\0';
  do {
    question q;
    ask(r, &q, cursor);
    assert_int_equal(q.status, TM_OK);
    tm_json_walk w;
    tm_slice key;
    tm_slice message;
    assert_true(tm__json_walk(&w, tm__json_get(tm__slice(q.page), "items")));
    while (tm__json_next(&w, &key, &message)) {
      tm_slice text = tm__json_get(message, "text");
      size_t at = strlen(out);
      if (text.ptr[1] != '?') (void)snprintf(out + at, size - at, "%c", text.ptr[1]);
    }
    tm_buf next = {0};
    cursor[0] = '\0';
    if (tm__json_get_text(tm__slice(q.page), "next", &next))
      assert_true(tm__copy(cursor, sizeof(cursor), tm__buf_view(&next)));
    tm__buf_free(&next);
    free(q.page);
    pages++;
  } while (cursor[0] != '\0');
  return pages;
}

static void assert_said(run *r, const char *letters) {
  char out[64];
  assert_int_equal(said(r, out, sizeof(out)), 1);
  assert_string_equal(out, letters);
}

static void test_of_the_story(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    answer *held = start(h, id, "hold");
    assert_said(held_run(h), ""); /* nothing is stored of it yet */
    release(held_run(h));
    assert_answer(held);
    assert_answer(say(h, id, "apple"));
    assert_answer(say(h, id, "plum"));
    assert_answer(undo(h, id, 1, 0, false));
    assert_answer(say(h, id, "cherry"));
    held = say(h, id, "hold");
    assert_said(held_run(h), "cah");
    release(held_run(h));
    assert_answer(held);
  }
}

/* The rows of the turn itself are among them: it has said that, and says it no more. */
static void test_of_a_turn_that_began(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    assert_answer(start(h, id, "apple"));
    answer *held = say(h, id, "hold_begun");
    assert_said(held_run(h), "oa"); /* "one moment" */
    release(held_run(h));
    assert_answer(held);
  }
}

/* What another host has written meanwhile is not part of it; the turn is run again on that. */
static void test_overtaken(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    char id[TM_ID_SIZE];
    host_start(&fx, 1);
    assert_answer(start(&fx.hosts[0], id, "apple"));
    answer *held = say(&fx.hosts[0], id, "hold");
    run *r = held_run(&fx.hosts[0]);
    assert_answer(say(&fx.hosts[1], id, "plum"));
    assert_said(r, "a");
    release(r);
    r = held_run(&fx.hosts[0]);
    assert_said(r, "pa");
    release(r);
    assert_answer(held);
  }
}

static answer *fork_it(host *h, const char *id, const char *other) {
  tm_request *r = request_new(h->fx->tenant, TM_REQUEST_FORK, other);
  (void)snprintf(r->origin, sizeof(r->origin), "%s", id);
  return submit(h, r);
}

static void test_over_a_fork(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    char other[TM_ID_SIZE];
    assert_answer(start(h, id, "apple"));
    tm__uuid7(other, fx.now);
    assert_answer(fork_it(h, id, other));
    assert_answer(say(h, id, "plum"));
    assert_answer(say(h, other, "cherry"));
    answer *held = say(h, other, "hold");
    assert_said(held_run(h), "ca");
    release(held_run(h));
    assert_answer(held);
  }
}

static void test_pages(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    char out[512];
    assert_answer(start(h, id, "begin"));
    for (int i = 0; i < 105; i++)
      assert_answer(say(h, id, "more"));
    answer *held = say(h, id, "hold");
    assert_int_equal(said(held_run(h), out, sizeof(out)), 2);
    assert_int_equal(strspn(out, "m"), 105);
    assert_string_equal(out + 105, "b");
    release(held_run(h));
    assert_answer(held);
  }
}

static void test_refused_and_cancelled(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    assert_answer(start(h, id, "apple"));
    answer *held = say(h, id, "hold");
    run *r = held_run(h);
    question q;
    ask(r, &q, "nonsense");
    assert_int_equal(q.status, TM_EINVAL);
    assert_string_equal(q.error.code, "cursor.invalid");
    question given_up = {.r = r, .cursor = "", .cancel = true};
    on_worker(h, ask_now, &given_up);
    assert_said(r, "a"); /* read later, answered later */
    release(r);
    assert_answer(held);
    host_stop(h); /* waits for what is out */
    assert_false(given_up.done);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_of_the_story), cmocka_unit_test(test_of_a_turn_that_began),
      cmocka_unit_test(test_overtaken),    cmocka_unit_test(test_over_a_fork),
      cmocka_unit_test(test_pages),        cmocka_unit_test(test_refused_and_cancelled),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
