/* Messages that come while another one is unfinished: they wait, are refused, become one, or take
 * its place. Whatever is chosen, no prompt is answered twice and repeats get the first's answer. */
#include <sqlite3.h>

#include "fixture.h"

/* A fixture whose conversations say so themselves. */
static void open_with(fixture *fx, const char *backend, const char *concurrency) {
  fixture_open(fx, backend);
  fx->concurrency = concurrency;
}

static void open_reject(fixture *fx, const char *backend) {
  open_with(fx, backend, "reject");
}

static void open_merge(fixture *fx, const char *backend) {
  open_with(fx, backend, "merge");
}

static void open_interrupt(fixture *fx, const char *backend) {
  open_with(fx, backend, "interrupt");
}

static void await_active(fixture *fx, const char *id) {
  while (stored_head(fx, id).status != TM_ACTIVE) {
  }
}

static void begin_now(void *ud) {
  run *r = ud;
  r->calls_wanted = 1;
  begin(r);
}

static int64_t count_of(fixture *fx, const char *id) {
  answer *a = read_it(fx, id, TM_READ_CONVERSATION, "", 0);
  assert_answer(a);
  return tm__json_get_int(tm__json_get(tm__slice(a->json), "state"), "count", -1);
}

static answer *say_object(host *h, const char *id, const char *json, const char *key) {
  tm_request *r = request_new(h->fx->tenant, TM_REQUEST_MESSAGE, id);
  r->input_json = strdup(json);
  r->key = digest(key);
  r->body = digest(json);
  return submit(h, r);
}

/* ---- whose word counts ---- */

static void test_what_is_said_where(void **unused) {
  (void)unused;
  static const struct {
    const char *record;
    tm_concurrency journal;
    bool refused;
  } cases[] = {{NULL, TM_CONCURRENCY_QUEUE, false},
               {NULL, TM_CONCURRENCY_REJECT, true},
               {"reject", TM_CONCURRENCY_QUEUE, true},
               {"queue", TM_CONCURRENCY_REJECT, false},
               {"reject", TM_CONCURRENCY_MERGE, true}};
  for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
    fixture fx;
    fixture_init(&fx, "sqlite");
    fx.concurrency = cases[i].record;
    fx.at_once = cases[i].journal;
    storage_start(&fx);
    host_start(&fx, 0);
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    assert_answer(start(h, id, "hello"));
    fixture_restart(&fx); /* nothing is known of it when both come */
    answer *one = say(h, id, "hold");
    run *r = held_run(h);
    answer *two = say(h, id, "two");
    if (cases[i].refused) assert_refused(two, TM_ECONFLICT, "conversation.busy");
    release(r);
    assert_answer(one);
    if (!cases[i].refused) assert_answer(two);
    fixture_close(&fx);
  }
}

/* ---- reject ---- */

static void test_rejects_while_one_runs(void **unused) {
  (void)unused;
  EACH_STARTED(fx, open_reject, "hello") {
    answer *one = say_keyed(h, id, "hold", "k1");
    run *r = held_run(h);
    answer *repeat = say_keyed(h, id, "hold", "k1");
    answer *two = say_keyed(h, id, "two", "k2");
    assert_refused(two, TM_ECONFLICT, "conversation.busy");
    assert_true(two->error.retry_after_ms > 0);
    assert_refused(signal_it(h, id, TM_TURN_COMMAND, "back"), TM_ECONFLICT, "conversation.busy");
    answer *event = signal_it(h, id, TM_TURN_EVENT, "paid"); /* not of the user: it waits */
    assert_refused(say(h, id, "three"), TM_ECONFLICT, "conversation.busy");
    tm_request *foreign = request_new("t1", TM_REQUEST_MESSAGE, id);
    (void)snprintf(foreign->tenant, sizeof(foreign->tenant), "t2");
    foreign->input_json = strdup("\"x\"");
    answer *other = submit(h, foreign); /* is not told that there is such a conversation */
    assert_false(is_here(repeat) || is_here(event) || is_here(other));
    release(r);
    assert_answer(one);
    assert_answer(repeat);
    assert_string_equal(one->json, repeat->json);
    assert_answer(event);
    assert_refused(other, TM_ENOTFOUND, "conversation.not_found");
    assert_answer(say_keyed(h, id, "two", "k2")); /* what was refused has not used up its key */
    assert_int_equal(count_of(&fx, id), 4);
  }
}

/* Which of them comes first is open, but only one does. */
static void test_rejects_what_comes_at_once(void **unused) {
  (void)unused;
  EACH_OPENED(fx, open_reject) {
    for (int round = 0; round < 20; round++) {
      char id[TM_ID_SIZE];
      if (fx.hosts[1].worker == NULL) host_start(&fx, 1);
      assert_answer(start(&fx.hosts[0], id, "hello"));
      assert_answer(say(&fx.hosts[1], id, "hello")); /* both have a copy, one an old one */
      answer *a = say(&fx.hosts[0], id, "hold");
      run *r = held_run(&fx.hosts[0]);
      answer *b = say(&fx.hosts[1], id, "pure"); /* does not see that one runs */
      assert_answer(b);
      release(r);
      assert_refused(a, TM_ECONFLICT, "conversation.busy");
      assert_int_equal(count_of(&fx, id), 3);
    }
  }
}

/* Nobody is refused of whom it is not known yet whether he has been answered. */
static void test_rejects_no_repeat(void **unused) {
  (void)unused;
  EACH_STARTED(fx, open_reject, "hello") {
    answer *one = say_keyed(h, id, "hello", "k1");
    assert_answer(one);
    answer *two = say_keyed(h, id, "hold", "k2");
    answer *again = say_keyed(h, id, "hello", "k1"); /* while the record is read for two */
    answer *none = say(h, id, "hello");
    assert_refused(none, TM_ECONFLICT, "conversation.busy");
    release(held_run(h));
    assert_answer(two);
    assert_answer(again);
    assert_string_equal(again->json, one->json);
  }
}

/* What others did meanwhile is no message at the same time. */
static void test_old_copy_is_not_busy(void **unused) {
  (void)unused;
  EACH_OPENED(fx, open_reject) {
    char id[TM_ID_SIZE];
    host_start(&fx, 1);
    assert_answer(start(&fx.hosts[0], id, "hello"));
    for (int i = 0; i < 4; i++)
      assert_answer(say(&fx.hosts[i % 2], id, "hello"));
    assert_int_equal(count_of(&fx, id), 5);
  }
}

static void test_rejects_while_one_runs_elsewhere(void **unused) {
  (void)unused;
  EACH_OPENED(fx, open_reject) {
    char id[TM_ID_SIZE];
    host_start(&fx, 1);
    assert_answer(start(&fx.hosts[0], id, "hello"));
    answer *one = say_keyed(&fx.hosts[0], id, "hold_begun", "k1");
    run *r = held_run(&fx.hosts[0]);
    assert_refused(say(&fx.hosts[1], id, "two"), TM_ECONFLICT, "conversation.busy");
    answer *repeat = say_keyed(&fx.hosts[1], id, "hold_begun", "k1");
    answer *event = signal_it(&fx.hosts[1], id, TM_TURN_EVENT, "paid");
    assert_false(is_here(repeat));
    release(r);
    assert_answer(one);
    assert_answer(repeat);
    assert_string_equal(one->json, repeat->json);
    assert_answer(event);
  }
}

static void test_rejects_until_the_retry(void **unused) {
  (void)unused;
  EACH_OPENED(fx, open_reject) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    host_start(&fx, 1);
    fx.retry_ms = 100000;
    assert_answer(start(h, id, "hello"));
    answer *one = say(h, id, "suspend");
    await_active(&fx, id);
    assert_refused(say(&fx.hosts[1], id, "two"), TM_ECONFLICT, "conversation.busy");
    assert_refused(say(h, id, "two"), TM_ECONFLICT, "conversation.busy");
    turn_clock(&fx, fx.retry_ms);
    wake(h, id);
    assert_answer(one);
    assert_answer(say(h, id, "two"));
  }
}

/* ---- merge ---- */

static void test_merges_what_waits(void **unused) {
  (void)unused;
  EACH_STARTED(fx, open_merge, "hello") {
    answer *one = say_keyed(h, id, "hold", "k1");
    run *r = held_run(h);
    answer *two = say_keyed(h, id, "two", "k2");
    answer *again = say_keyed(h, id, "two", "k2");
    answer *three = say(h, id, "th\\\"ree");
    answer *four = say_keyed(h, id, "four", "k4");
    answer *repeat = say_keyed(h, id, "hold", "k1");
    answer *five = say(h, id, "five");
    int turns = fx.turns;
    release(r);
    assert_answer(one);
    assert_answer(two);
    assert_answer(again);
    assert_string_equal(two->json, again->json);
    assert_answer(repeat);
    assert_string_equal(one->json, repeat->json);
    assert_answer(five);
    assert_answer(three);
    assert_answer(four);
    assert_string_equal(three->json, four->json);
    int64_t count = count_of(&fx, id);
    assert_int_equal(count, 2 + fx.turns - turns);
    for (int i = 0; i < 2; i++) {
      answer *later = say_keyed(h, id, i == 0 ? "two" : "four", i == 0 ? "k2" : "k4");
      assert_answer(later);
      assert_string_equal(later->json, i == 0 ? two->json : four->json);
      assert_refused(say_keyed(h, id, "other", i == 0 ? "k2" : "k4"), TM_EREUSED,
                     "idempotency.key_reused");
      if (i == 0 && fixture_durable(&fx)) fixture_restart(&fx);
    }
    assert_int_equal(count_of(&fx, id), count);
  }
}

/* What others want has no input that could be joined, and ends what is. */
static void test_merges_messages_alone(void **unused) {
  (void)unused;
  EACH_STARTED(fx, open_merge, "hello") {
    answer *one = say(h, id, "hold");
    run *r = held_run(h);
    answer *two = say(h, id, "two");
    answer *goes_back = undo(h, id, 1, 0, false);
    answer *three = say(h, id, "three");
    wake(h, id);
    answer *pause = signal_it(h, id, TM_TURN_PAUSE, NULL);
    answer *stop = cancel(h, id);
    release(r);
    assert_answer(one);
    assert_answer(two);
    assert_answer(goes_back);
    assert_answer(three);
    assert_answer(pause);
    assert_answer(stop);
  }
}

static void test_merged_input(void **unused) {
  (void)unused;
  EACH_STARTED(fx, open_merge, "hello") {
    (void)say(h, id, "hold");
    run *r = held_run(h);
    answer *one = say(h, id, "one");
    answer *two = say(h, id, "t\\\"wo");
    release(r);
    assert_answer(two);
    assert_string_equal(fx.last_input, "\"one\\nt\\\"wo\"");
    assert_string_equal(one->json, two->json);
    (void)say(h, id, "hold");
    r = held_run(h);
    one = say_object(h, id, "{\"message\":\"call\",\"x\":{\"y\":1}}", "k1");
    two = say_object(h, id, "{\"a\":2,\"x\":3}", "k2");
    answer *text = say(h, id, "text"); /* of another kind: it waits */
    answer *event = signal_it(h, id, TM_TURN_EVENT, "paid");
    answer *last = say(h, id, "last"); /* behind another's */
    release(r);
    assert_answer(one);
    assert_answer(two);
    assert_string_equal(one->json, two->json);
    assert_answer(text);
    assert_answer(event);
    assert_answer(last);
    assert_int_equal(count_of(&fx, id), 8);
    assert_string_equal(fx.last_input, "\"last\"");
  }
}

/* The turn of several messages has begun when its host dies: each of them is known. */
static void test_merged_turn_is_resumed(void **unused) {
  (void)unused;
  EACH_OPENED(fx, open_merge) {
    char id[TM_ID_SIZE];
    host_start(&fx, 1);
    host *h = &fx.hosts[0], *other = &fx.hosts[1];
    assert_answer(start(h, id, "hello"));
    (void)say(h, id, "hold");
    run *r = held_run(h);
    answer *one = say_object(h, id, "{\"message\":\"hold_begun\"}", "k1");
    answer *two = say_object(h, id, "{\"x\":2}", "k2");
    answer *three = say_object(h, id, "{\"x\":3}", NULL);
    release(r);
    r = held_run(h);
    assert_refused(say_object(other, id, "{\"x\":4}", "k2"), TM_EREUSED, "idempotency.key_reused");
    turn_clock(&fx, LEASE_MS + 1);
    answer *repeat = say_object(other, id, "{\"x\":2}", "k2");
    assert_answer(repeat);
    assert_int_equal(fx.last_kind, TM_TURN_RESUME);
    assert_string_equal(fx.last_input, "{\"message\":\"hold_begun\",\"x\":3}");
    on_worker(h, call_now, r); /* the first owner finds out */
    assert_answer(one);
    assert_answer(two);
    assert_answer(three);
    assert_string_equal(one->json, repeat->json);
    assert_string_equal(two->json, repeat->json);
    assert_string_equal(three->json, repeat->json);
    assert_int_equal(count_of(&fx, id), 3);
  }
}

/* Overtaken before it began: all of them are said again, together with who came since. */
static void test_merged_turn_is_overtaken(void **unused) {
  (void)unused;
  EACH_OPENED(fx, open_merge) {
    char id[TM_ID_SIZE];
    host_start(&fx, 1);
    host *h = &fx.hosts[0];
    assert_answer(start(h, id, "hello"));
    (void)say(h, id, "hold");
    run *first = held_run(h);
    answer *one = say_object(h, id, "{\"message\":\"hold\"}", "k1");
    answer *two = say_object(h, id, "{\"x\":2}", "k2");
    release(first);
    run *r = held_run(h);
    assert_answer(say_object(&fx.hosts[1], id, "{\"x\":2}", "k2")); /* sent again elsewhere */
    answer *three = say_object(h, id, "{\"message\":\"quick\"}", "k3");
    release(r);
    r = held_run(h); /* one alone: two has been answered meanwhile */
    release(r);
    assert_answer(one);
    assert_answer(two);
    assert_answer(three);
    assert_int_equal(count_of(&fx, id), 2 + 1 + 2);
  }
}

/* It runs once more because of that, with all that it was. */
static void test_merged_turn_is_refused(void **unused) {
  (void)unused;
  EACH_OPENED(fx, open_merge) {
    char id[TM_ID_SIZE];
    host *h = &fx.hosts[0];
    fx.on_refused = "told";
    (void)start(h, id, "hold");
    run *r = held_run(h);
    answer *one = say_keyed(h, id, "back", "k1");
    answer *two = say_keyed(h, id, "back", "k2");
    int turns = fx.turns;
    release(r);
    assert_answer(one);
    assert_answer(two);
    assert_int_equal(fx.turns, turns + 2);
    assert_string_equal(fx.last_input, "\"back\\nback\"");
    assert_string_equal(one->json, two->json);
    assert_answer(say_keyed(h, id, "back", "k2"));
    assert_int_equal(count_of(&fx, id), 2);
  }
}

static void test_merged_turn_fails(void **unused) {
  (void)unused;
  EACH_STARTED(fx, open_merge, "hello") {
    (void)say(h, id, "hold");
    run *r = held_run(h);
    answer *one = say_object(h, id, "{\"message\":\"fail\"}", "k1");
    answer *two = say_object(h, id, "{\"x\":2}", "k2");
    release(r);
    assert_refused(one, TM_EINVAL, "input.invalid");
    assert_refused(two, TM_EINVAL, "input.invalid");
    (void)say(h, id, "hold");
    r = held_run(h);
    one = say_object(h, id, "{\"message\":\"hold\"}", NULL);
    two = say_object(h, id, "{\"x\":2}", NULL);
    release(r);
    (void)held_run(h);
    host_stop(h); /* with both under way */
    assert_refused(one, TM_EUNAVAILABLE, "host.stopping");
    assert_refused(two, TM_EUNAVAILABLE, "host.stopping");
    host_start(&fx, 0);
  }
}

static void test_merges_at_most_so_much(void **unused) {
  (void)unused;
  fixture fx;
  fixture_init(&fx, "sqlite");
  fx.concurrency = "merge";
  fx.queue_limit = 100;
  storage_start(&fx);
  host_start(&fx, 0);
  host *h = &fx.hosts[0];
  char id[TM_ID_SIZE], key[16];
  assert_answer(start(h, id, "hello"));
  (void)say(h, id, "hold");
  run *r = held_run(h);
  answer *all[10];
  for (int i = 0; i < 10; i++) { /* eight keys are remembered */
    (void)snprintf(key, sizeof(key), "k%d", i);
    all[i] = say_keyed(h, id, "x", key);
  }
  char *large = malloc(700001);
  memset(large, 'x', 700000);
  large[700000] = '\0';
  answer *most = say(h, id, large);
  answer *more = say(h, id, large);
  release(r);
  for (int i = 0; i < 10; i++)
    assert_answer(all[i]);
  assert_answer(most);
  assert_answer(more);
  for (int i = 1; i < 8; i++)
    assert_string_equal(all[0]->json, all[i]->json);
  assert_string_not_equal(all[7]->json, all[8]->json);
  assert_string_equal(all[8]->json, most->json);
  assert_string_not_equal(most->json, more->json);
  free(large);
  fixture_close(&fx);
}

/* ---- interrupt ---- */

static void test_interrupts_before_it_has_begun(void **unused) {
  (void)unused;
  EACH_STARTED(fx, open_interrupt, "hello") {
    answer *one = say_keyed(h, id, "hold", "k1");
    run *r = held_run(h);
    answer *two = say(h, id, "two");
    answer *three = say(h, id, "three");
    release(r); /* it commits: too late */
    assert_refused(one, TM_ECONFLICT, "conversation.interrupted");
    assert_refused(two, TM_ECONFLICT, "conversation.interrupted");
    assert_answer(three);
    assert_member(three, "revision", "2");
    one = say(h, id, "hold");
    r = held_run(h);
    two = say(h, id, "two");
    on_worker(h, begin_now, r); /* it wants to call: too late */
    assert_refused(one, TM_ECONFLICT, "conversation.interrupted");
    assert_answer(two);
    assert_true(r->cancelled);
    assert_int_equal(fx.outside_calls, 0);
    assert_int_equal(count_of(&fx, id), 3);
    assert_answer(say_keyed(h, id, "again", "k1")); /* its key is free */
  }
}

/* What it has written is undone: state, transcript and prompt are those of before. */
static void test_interrupts_what_has_begun(void **unused) {
  (void)unused;
  EACH_STARTED(fx, open_interrupt, "hello") {
    assert_answer(say(h, id, "before"));
    answer *one = say(h, id, "hold_begun");
    run *r = held_run(h);
    int64_t revision = stored_head(&fx, id).revision;
    answer *two = say(h, id, "finish");
    answer *repeat = say_keyed(h, id, "later", "k1");
    release(r);
    assert_refused(one, TM_ECONFLICT, "conversation.interrupted");
    assert_refused(two, TM_ECONFLICT, "conversation.interrupted");
    assert_answer(repeat);
    assert_holds(repeat, "later 3");
    tm_head head = stored_head(&fx, id);
    assert_int_equal(head.revision, revision + 2); /* undone, and the answer that counts */
    assert_int_equal(head.status, TM_WAITING_INPUT);
    assert_string_equal(head.claim, "");
    answer *said = read_it(&fx, id, TM_READ_MESSAGES, "", 0);
    assert_answer(said);
    assert_null(strstr(said->json, "one moment"));
    assert_holds(said, "before 2");
    if (!fixture_durable(&fx)) continue;
    fixture_restart(&fx); /* it is stored so */
    assert_int_equal(count_of(&fx, id), 3);
    assert_answer(undo(&fx.hosts[0], id, 1, 0, true));
    assert_int_equal(count_of(&fx, id), 2);
  }
}

/* Neither who repeats it, nor who is somebody else. */
static void test_not_interrupted_by(void **unused) {
  (void)unused;
  EACH_STARTED(fx, open_interrupt, "hello") {
    answer *one = say_keyed(h, id, "hold_begun", "k1");
    run *r = held_run(h);
    answer *repeat = say_keyed(h, id, "hold_begun", "k1");
    answer *event = signal_it(h, id, TM_TURN_EVENT, "paid");
    answer *pause = signal_it(h, id, TM_TURN_PAUSE, NULL);
    tm_request *foreign = request_new("t1", TM_REQUEST_MESSAGE, id);
    (void)snprintf(foreign->tenant, sizeof(foreign->tenant), "t2");
    foreign->input_json = strdup("\"x\"");
    answer *other = submit(h, foreign);
    release(r);
    assert_answer(one);
    assert_answer(repeat);
    assert_string_equal(one->json, repeat->json);
    assert_answer(event);
    assert_answer(pause);
    assert_refused(other, TM_ENOTFOUND, "conversation.not_found");
    assert_int_equal(count_of(&fx, id), 4);
  }
}

/* A command of the user takes the place as well; an event that runs is not touched. */
static void test_interrupted_by_a_command(void **unused) {
  (void)unused;
  EACH_STARTED(fx, open_interrupt, "hello") {
    answer *one = say(h, id, "hold_begun");
    run *r = held_run(h);
    answer *back = signal_it(h, id, TM_TURN_COMMAND, "skip");
    release(r);
    assert_refused(one, TM_ECONFLICT, "conversation.interrupted");
    assert_answer(back);
    answer *event = signal_it(h, id, TM_TURN_EVENT, "hold_begun");
    r = held_run(h);
    answer *two = say(h, id, "two");
    release(r);
    assert_answer(event);
    assert_answer(two);
    assert_int_equal(count_of(&fx, id), 4);
  }
}

/* What it has undone stays so: neither while it runs nor while it waits to try again. */
static void test_correction_is_not_interrupted(void **unused) {
  (void)unused;
  EACH_STARTED(fx, open_interrupt, "hello") {
    assert_answer(say(h, id, "answer"));
    fx.on_correct = "hold_begun";
    answer *one = signal_it(h, id, TM_TURN_COMMAND, "correct");
    run *r = held_run(h);
    answer *two = say(h, id, "two");
    release(r);
    assert_answer(one);
    assert_answer(two);
    fx.on_correct = "suspend";
    fx.retry_ms = 1000000;
    one = signal_it(h, id, TM_TURN_COMMAND, "correct");
    await_active(&fx, id);
    two = say(h, id, "two");
    fx.retry_ms = 0;
    turn_clock(&fx, 1000001);
    wake(h, id);
    assert_answer(one);
    assert_answer(two);
    fx.on_correct = NULL;
    one = say_object(h, id, "{\"message\":\"hold\",\"trail\":{}}", "k1"); /* no command */
    r = held_run(h);
    two = say(h, id, "two");
    release(r);
    assert_refused(one, TM_ECONFLICT, "conversation.interrupted");
    assert_answer(two);
  }
}

/* A retry that is far away is not waited for, here and elsewhere. */
static void test_interrupts_a_retry(void **unused) {
  (void)unused;
  EACH_OPENED(fx, open_interrupt) {
    host_start(&fx, 1);
    fx.retry_ms = 1000000;
    for (int where = 0; where < 2; where++) {
      host *h = &fx.hosts[0];
      char id[TM_ID_SIZE];
      assert_answer(start(h, id, "hello"));
      answer *one = say(h, id, "suspend");
      await_active(&fx, id);
      int turns = fx.turns;
      answer *two = say(&fx.hosts[where], id, "two");
      assert_answer(two);
      assert_holds(two, "two 2");
      assert_int_equal(fx.turns, turns + 1); /* the retry was not run */
      if (where == 0) assert_refused(one, TM_ECONFLICT, "conversation.interrupted");
      wake(h, id);
      if (where == 1) assert_refused(one, TM_ECONFLICT, "conversation.interrupted");
    }
  }
}

typedef struct late { /* comes while the row that suspends the turn is being written */
  run *r;
  const char *id;
  answer *answer;
} late;

static void suspend_then_say(void *ud) {
  late *l = ud;
  host *h = l->r->host;
  (void)snprintf(l->r->what, sizeof(l->r->what), "suspend");
  release_now(l->r);
  l->answer = say(h, l->id, "two");
}

static void test_interrupts_what_is_being_suspended(void **unused) {
  (void)unused;
  EACH_OPENED(fx, open_interrupt) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    fx.retry_ms = 1000000;
    assert_answer(start(h, id, "hello"));
    answer *one = say(h, id, "hold");
    late l = {.r = held_run(h), .id = id};
    on_worker(h, suspend_then_say, &l);
    assert_answer(l.answer);
    assert_holds(l.answer, "two 2");
    assert_refused(one, TM_ECONFLICT, "conversation.interrupted");
  }
}

/* The host of the turn has died: whoever takes it over gives it up without running it. */
static void test_interrupts_a_dead_hosts_turn(void **unused) {
  (void)unused;
  EACH_OPENED(fx, open_interrupt) {
    char id[TM_ID_SIZE];
    host_start(&fx, 1);
    assert_answer(start(&fx.hosts[0], id, "hello"));
    answer *one = say(&fx.hosts[0], id, "hold_begun");
    run *r = held_run(&fx.hosts[0]);
    answer *waits = say(&fx.hosts[1], id, "two"); /* runs elsewhere: it waits */
    assert_false(is_here(waits));
    turn_clock(&fx, LEASE_MS + 1);
    int turns = fx.turns;
    wake(&fx.hosts[1], id);
    assert_answer(waits);
    assert_holds(waits, "two 2");
    assert_int_equal(fx.turns, turns + 1);
    release(r); /* the first owner finds out */
    assert_refused(one, TM_ECONFLICT, "conversation.interrupted");
    assert_int_equal(count_of(&fx, id), 2);
  }
}

/* What was written cannot be read back: whoever waits is told, and nobody waits for ever. */
static void test_interrupt_fails(void **unused) {
  (void)unused;
  fixture fx;
  open_interrupt(&fx, "sqlite");
  host *h = &fx.hosts[0];
  char id[TM_ID_SIZE], sql[160];
  assert_answer(start(h, id, "hello"));
  int64_t row = stored_head(&fx, id).tip;
  answer *one = say(h, id, "hold_begun");
  run *r = held_run(h);
  answer *two = say(h, id, "two");
  (void)snprintf(sql, sizeof(sql), "UPDATE journal SET body = '{}' WHERE id = %lld",
                 (long long)row);
  sqlite3 *db = NULL;
  assert_int_equal(sqlite3_open(fx.options.location, &db), SQLITE_OK);
  assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
  assert_int_equal(sqlite3_close(db), SQLITE_OK);
  release(r);
  assert_refused(one, TM_ECORRUPT, "journal.damaged");
  assert_refused(two, TM_ECORRUPT, "journal.damaged");
  fixture_close(&fx);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_what_is_said_where),
      cmocka_unit_test(test_rejects_while_one_runs),
      cmocka_unit_test(test_rejects_what_comes_at_once),
      cmocka_unit_test(test_rejects_no_repeat),
      cmocka_unit_test(test_old_copy_is_not_busy),
      cmocka_unit_test(test_rejects_while_one_runs_elsewhere),
      cmocka_unit_test(test_rejects_until_the_retry),
      cmocka_unit_test(test_merges_what_waits),
      cmocka_unit_test(test_merges_messages_alone),
      cmocka_unit_test(test_merged_input),
      cmocka_unit_test(test_merged_turn_is_resumed),
      cmocka_unit_test(test_merged_turn_is_overtaken),
      cmocka_unit_test(test_merged_turn_is_refused),
      cmocka_unit_test(test_merged_turn_fails),
      cmocka_unit_test(test_merges_at_most_so_much),
      cmocka_unit_test(test_interrupts_before_it_has_begun),
      cmocka_unit_test(test_interrupts_what_has_begun),
      cmocka_unit_test(test_not_interrupted_by),
      cmocka_unit_test(test_interrupted_by_a_command),
      cmocka_unit_test(test_correction_is_not_interrupted),
      cmocka_unit_test(test_interrupts_a_retry),
      cmocka_unit_test(test_interrupts_what_is_being_suspended),
      cmocka_unit_test(test_interrupts_a_dead_hosts_turn),
      cmocka_unit_test(test_interrupt_fails),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
