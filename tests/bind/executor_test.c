/* Turns in Lua: their ends, their operations, failures, loss, reentry, versions, no memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/json.h"
#include "tests/bind/fake_turns.h"

#define LOOK_MS 30000 /* the executor's own timer */

static char somewhere; /* for pointers that only the fakes get */
static tm_lua *lua;
static tm_executor executor;
static tm_bundle *bundle;
static tm_registry *registry;

static tm_vm_options options(void) {
  tm_vm_options o = fixture_options();
  o.read_file = NULL;
  o.root = NULL;
  o.worker = (tm_worker *)(void *)&somewhere;
  o.client = (tm_http_client *)(void *)&somewhere;
  return o;
}

static int set_up_slice(int64_t cpu_slice_ms) {
  tm_vm_options o = options();
  o.limits.cpu_slice_ms = cpu_slice_ms;
  o.registry = registry;
  if (tm__lua_new(&lua, &o, NULL) != TM_OK) return -1;
  executor = tm__lua_executor(lua);
  bundle = fake_bundle("v1", "");
  http.refuse = false;
  http.cancelled = 0;
  timer_count = 0;
  memset(timers, 0, sizeof(timers));
  return bundle != NULL ? 0 : -1;
}

static int set_up(void **state) {
  (void)state;
  return set_up_slice(50);
}

/* For what is about memory: time must not run out first, however slow the allocator is. */
static int set_up_patient(void **state) {
  (void)state;
  return set_up_slice(1500);
}

/* Some versions are current, others are not; elsewhere all of them are. */
static int set_up_versions(void **state) {
  (void)state;
  registry = tm__registry_new();
  return registry != NULL ? set_up_slice(50) : -1;
}

static int tear_down(void **state) {
  (void)state;
  tm__lua_free(lua);
  tm__registry_free(registry);
  registry = NULL;
  tm__bundle_unref(bundle);
  return 0;
}

static tm_turn *run_turn(const char *code) {
  tm_turn *t = fake_turn(bundle, code);
  executor.run(executor.ud, t);
  return t;
}

/* The fixture's chunks begin with this. */
#define BEGIN                                                                                      \
  "local turn, id, await = ... local journal, timer, http, json, op = require 'host.journal', "    \
  "require 'host.timer', require 'host.http', require 'host.json', require 'host.op' "             \
  "local function draft(state) return { status = 'waiting_input', state = state or turn.state, "   \
  "runtime = turn.runtime } end "

static void expect_end(tm_turn *t, const char *how) {
  if (strcmp(t->end, how) != 0) print_message("%s: %s\n", t->error.code, t->error.message);
  assert_string_equal(t->end, how);
}

static void expect_failure(tm_turn *t, tm_status status, const char *code, const char *text) {
  expect_end(t, "fail");
  if (strstr(t->error.message, text) == NULL) print_message("%s\n", t->error.message);
  assert_int_equal(t->error.status, status);
  assert_string_equal(t->error.code, code);
  assert_non_null(strstr(t->error.message, text));
  assert_string_equal(t->error.conversation_id, t->head.id);
}

static tm_timer_fn last_timer(void **ud) {
  size_t i = (timer_count + 63) % 64;
  *ud = timers[i].ud;
  return timers[i].fn;
}

static void fire_timer(void) {
  void *ud;
  tm_timer_fn fn = last_timer(&ud);
  fn(ud);
}

/* The turn has gone too far: what follows does not run in the same breath. */
static void end_rest(tm_turn *t) {
  assert_string_equal(t->end, "");
  assert_in_range(timers[(timer_count + 63) % 64].ms, 1, 1000);
  fire_timer();
}

static void test_commit(void **state) {
  (void)state;
  tm_turn *t =
      run_turn(BEGIN "assert(turn.kind == 'message' and turn.revision == 7 and turn.now == 2000)"
                     " assert(turn.conversation_id == 'conversation-' .. turn.conversation_id"
                     ":match '%d+' and turn.created == 1000 and turn.tenant == 'default')"
                     " assert(turn.status == 'active' and json.is_array(turn.state.list))"
                     " turn.state.z, turn.state.a = 1.5, { json.null }"
                     " assert(journal.commit(id, { status = 'waiting_input', step = 'ask',"
                     " wake_at = 99, checkpoint = true, in_memory = true, steps = {},"
                     " messages = { { seq = 1, text = 'x' } }, state = turn.state,"
                     " runtime = turn.runtime, prompt = { text = '?', hint = json.null } }))");
  expect_end(t, "commit");
  assert_string_equal(t->text.ptr, "ask|[]|[{\"seq\":1,\"text\":\"x\"}]|{\"a\":[null],\"list\":[],"
                                   "\"n\":1,\"z\":1.5}|{}|{\"hint\":null,\"text\":\"?\"}|null|");
  assert_int_equal(t->draft.status, TM_WAITING_INPUT);
  assert_int_equal(t->draft.wake_at, 99);
  assert_true(t->draft.checkpoint);
  assert_true(t->draft.in_memory);
  free_turn(t);
}

static void test_suspend_and_fail(void **state) {
  (void)state;
  tm_turn *t = run_turn(BEGIN "local d = draft() d.status, d.wake_at = 'active', 5"
                              " assert(journal.suspend(id, d))");
  expect_end(t, "suspend");
  assert_int_equal(t->draft.wake_at, 5);
  free_turn(t);
  t = run_turn(BEGIN "assert(journal.fail(id, { code = 'test.over', status = 'conflict',"
                     " message = 'it is over', step_id = 's' }))"
                     " local ok, e = journal.fail(id, 'again') assert(e.code == 'journal.gone')"
                     " ok, e = journal.commit(id, draft()) assert(e.code == 'journal.gone')");
  expect_failure(t, TM_ECONFLICT, "test.over", "it is over");
  assert_string_equal(t->error.step_id, "s");
  free_turn(t);
}

static void test_refused_drafts(void **state) {
  (void)state;
  static const char *const drafts[][2] = {
      {"draft { cart = { 1, print or error } }", "state.cart[2]: a function cannot be kept"},
      {"draft { cart = { price = 0/0 } }", "state.cart.price: NaN cannot be kept"},
      {"draft { 1 }", "state: must be an object"},
      {"draft(json.null)", "state: must be an object"},
      {"draft(json.array())", "state: must be an object"},
      {"{ status = 'waiting_input', runtime = {} }", "state: must be"},
      {"{ status = 'waiting', state = {}, runtime = {} }", "status: 'waiting' is none"},
      {"{ state = {}, runtime = {} }", "status: '' is none"},
      {"{ status = 'active', state = {}, runtime = {}, steps = { a = 1 } }",
       "steps: must be an array"},
      {"{ status = 'active', state = {}, runtime = {}, prompt = 'x' }",
       "prompt: must be an object"},
  };
  for (size_t i = 0; i < sizeof(drafts) / sizeof(drafts[0]); i++) {
    char code[2048];
    (void)snprintf(code, sizeof(code),
                   BEGIN "local d = %s for _, f in ipairs { 'commit', 'suspend', 'begin' } do"
                         " local ok, e = journal[f](id, d) assert(ok == nil) REFUSED = e end"
                         " journal.fail(id, { code = REFUSED.code, message = REFUSED.message })",
                   drafts[i][0]);
    tm_turn *t = run_turn(code);
    expect_failure(t, TM_ESCRIPT, i < 2 ? "json.value" : "journal.draft", drafts[i][1]);
    free_turn(t);
  }
}

static void test_operations(void **state) {
  (void)state;
  tm_turn *t = run_turn(
      BEGIN "assert(await(journal.begin(id, draft { at = 'begin' })))"
            " assert(await(timer.start(1500)))"
            " local ok, r = await(http.request { method = 'POST', url = 'http://x/', body = 'b',"
            " timeout_ms = 1000, max_bytes = 10, headers = { A = '1' } })"
            " assert(ok and r.status == 200 and r.body == 'hello' and r.headers['x-a'] == '1, 2')"
            " assert(r.headers.empty == '' and r.headers.host == 'h:1')"
            " assert(await(journal.call(id, 'k1', r.body)))"
            " assert(await(journal.call(id, 'k2')))"
            " assert(journal.commit(id, draft { ok = true }))");
  assert_string_equal(t->text.ptr, "|[]|[]|{\"at\":\"begin\"}|{}|null|null|");
  t->done(t->done_ud, NULL);
  assert_int_equal(timers[(timer_count + 63) % 64].ms, 1500);
  fire_timer();
  assert_string_equal(http.request, "POST http://x/ b 1000 10|A: 1");
  tm_http_result r = {.status = 200,
                      .body = TM_S("hello"),
                      .headers = TM_S("X-A: 1\r\nx-a:2\r\nEmpty:\r\nHost: h:1\r\nnonsense\r\n")};
  http.fn(http.ud, &r);
  assert_string_equal(t->call_key, "k1");
  assert_string_equal(t->text.ptr, "\"hello\"");
  t->done(t->done_ud, NULL);
  assert_string_equal(t->text.ptr, "null");
  t->done(t->done_ud, NULL);
  expect_end(t, "commit");
  assert_non_null(strstr(t->text.ptr, "{\"ok\":true}"));
  free_turn(t);
}

static void test_messages(void **state) {
  (void)state;
  tm_turn *t = run_turn(BEGIN "local _, page = await(journal.messages(id)) assert(page == '{1}')"
                              " _, page = await(journal.messages(id, '{2}')) assert(page == '')"
                              " local ok, e = await(journal.messages(id))"
                              " assert(not ok and e.code == 'store.full')"
                              " ok, e = journal.messages(id, 'refuse') assert(not ok)"
                              " assert(op.cancel(journal.messages(id)))"
                              " journal.messages(id) journal.commit(id, draft())");
  tm_error full = {0};
  (void)tm__fail(&full, TM_EUNAVAILABLE, "store.full", "no room");
  assert_string_equal(messages.cursor, "");
  messages.fn(messages.ud, TM_S("{1}"), NULL);
  assert_string_equal(messages.cursor, "{2}");
  messages.fn(messages.ud, TM_S(""), NULL);
  messages.fn(messages.ud, (tm_slice){NULL, 0}, &full);
  expect_end(t, "commit");
  assert_true(messages.cancelled); /* the turn is over: nobody hears it */
  free_turn(t);
}

static void test_failed_operations(void **state) {
  (void)state;
  tm_error lost = {0};
  (void)tm__fail(&lost, TM_EUNAVAILABLE, "store.full", "no room");
  tm_turn *t = run_turn(BEGIN "local ok, e = await(journal.begin(id, draft()))"
                              " assert(ok == nil and e.code == 'store.full' and e.retryable)"
                              " assert(e.status == 'unavailable' and tostring(e) == 'no room')"
                              " ok, e = await(http.request { method = 'GET', url = 'u',"
                              " timeout_ms = 1, max_bytes = 1 })"
                              " assert(e.code == 'http.connect') ok, e = timer.start(77)"
                              " assert(ok == nil and e.code == 'timer.start') journal.fail(id, e)");
  t->done(t->done_ud, &lost);
  (void)tm__fail(&lost, TM_EIO, "http.connect", "nobody there");
  tm_http_result r = {.error = &lost};
  http.fn(http.ud, &r);
  expect_failure(t, TM_EUNAVAILABLE, "timer.start", "no timer");
  free_turn(t);
  http.refuse = true;
  t = run_turn(BEGIN "local ok, e = http.request { method = 'GET', url = 'u', timeout_ms = 1,"
                     " max_bytes = 1 } assert(ok == nil) journal.fail(id, e)");
  expect_failure(t, TM_EINVAL, "http.invalid", "a bad URL");
  free_turn(t);
}

static void test_wrong_arguments_raise(void **state) {
  (void)state;
  static const char *const wrong[] = {
      "timer.start(-1)",
      "timer.start(1 << 40)",
      "timer.start('x')",
      "http.request 'x'",
      "http.request { url = 'u', timeout_ms = 1, max_bytes = 1 }",
      "http.request { method = 'G', url = 'u', timeout_ms = 0, max_bytes = 1 }",
      "http.request { method = 'G', url = 'u', timeout_ms = 1, max_bytes = 1 << 30 }",
      "http.request { method = 'G', url = 'u\\n', timeout_ms = 1, max_bytes = 1 }",
      "http.request { method = 'G\\r', url = 'u', timeout_ms = 1, max_bytes = 1 }",
      "http.request { method = 'G', url = 'u', timeout_ms = 1, max_bytes = 1, body = 5 }",
      "http.request { method = 'G', url = 'u', timeout_ms = 1, max_bytes = 1, headers = 5 }",
      "http.request { method = 'G', url = 'u', timeout_ms = 1, max_bytes = 1, headers = {5} }",
      "get { headers = { A = '1\\r\\nB: 2' } }",
      "get { headers = { ['A:b'] = '1' } }",
      "journal.commit(id)",
      "journal.commit('x', {})",
      "journal.fail(id)",
      "journal.call(id)",
      "op.cancel()",
  };
  for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
    char code[2048];
    (void)snprintf(
        code, sizeof(code),
        BEGIN "local function get(t) t.method, t.url, t.timeout_ms, t.max_bytes = 'G', 'u', 1, 1"
              " return http.request(t) end assert(get {}) "
              "local ok, e = pcall(function() %s end) journal.fail(id, { code = tostring"
              "(ok), message = 'x' })",
        wrong[i]);
    tm_turn *t = run_turn(code);
    if (strcmp(t->error.code, "false") != 0) print_message("%s\n", wrong[i]);
    assert_string_equal(t->error.code, "false");
    free_turn(t);
  }
}

static void test_answers_at_once(void **state) {
  (void)state;
  tm_error err = {0};
  (void)tm__fail(&err, TM_EIO, "store.io", "broken");
  tm_turn *t =
      fake_turn(bundle, BEGIN "local begin = journal.begin(id, draft()) BEGUN = begin"
                              " assert(await(begin)) assert(await(journal.call(id, 'k', 1)))"
                              " assert(journal.commit(id, draft()))");
  t->answer_at_once = true;
  executor.run(executor.ud, t);
  expect_end(t, "commit");
  free_turn(t);
  t = fake_turn(bundle,
                BEGIN "local ok, e = await(journal.begin(id, draft())) journal.fail(id, e)");
  t->answer_at_once = true;
  t->answer = &err;
  executor.run(executor.ud, t);
  expect_failure(t, TM_EIO, "store.io", "broken");
  free_turn(t);
}

static void test_cancelled_operations(void **state) {
  (void)state;
  tm_turn *t = run_turn(
      BEGIN
      "local a, b, c = timer.start(1), journal.begin(id, draft()), http.request { method = 'G',"
      " url = 'u', timeout_ms = 1, max_bytes = 1 } for _, o in ipairs { a, b, c } do"
      " assert(op.cancel(o)) assert(not op.cancel(o)) end assert(not op.cancel(id))"
      " assert(not op.cancel(-1)) assert(not op.cancel(0)) assert(not op.cancel(999))"
      " await(timer.start(2)) journal.commit(id, draft())");
  assert_int_equal(timers[(timer_count + 62) % 64].cancelled, timers[(timer_count + 62) % 64].id);
  assert_int_equal(http.cancelled, 5);
  t->done(t->done_ud, NULL); /* the journal could not be stopped; nobody hears it */
  assert_string_equal(t->end, "");
  fire_timer();
  expect_end(t, "commit");
  free_turn(t);
}

static void test_failures(void **state) {
  (void)state;
  tm_turn *t = run_turn("error('boom')");
  expect_failure(t, TM_ESCRIPT, "script.error", "scripts/test/code.lua:1: boom");
  free_turn(t);
  t = run_turn("while true do pcall(function() while true do end end) end");
  end_rest(t);
  expect_failure(t, TM_ELIMIT, "script.cpu", "scripts/test/code.lua:1");
  free_turn(t);
  t = run_turn("coroutine.yield()");
  expect_failure(t, TM_ESCRIPT, "script.stuck", "waits for nothing");
  free_turn(t);
  t = run_turn("return");
  expect_failure(t, TM_ESCRIPT, "script.stuck", "waits for nothing");
  free_turn(t);
  t = run_turn(BEGIN "await(timer.start(1)) error { code = 'a.b', message = 'later', step_id = 's',"
                     " status = 'invalid' }");
  fire_timer();
  expect_failure(t, TM_EINVAL, "a.b", "later");
  free_turn(t);
  t = run_turn(BEGIN "journal.commit(id, draft()) error 'too late'");
  expect_end(t, "commit");
  free_turn(t);
}

static void test_step_memory(void **state) {
  (void)state;
  tm_turn *t = run_turn("local s = ('x'):rep(999) local t = {} while true do pcall(function()"
                        " t[#t + 1] = s:rep(99) .. #t end) end");
  end_rest(t);
  expect_failure(t, TM_ELIMIT, "script.memory", "limits.step_memory");
  free_turn(t);
}

static void test_second_chance(void **state) {
  (void)state;
  tm_turn *t = run_turn("function on_failed(id, err) FAILED = err.code"
                        " require 'host.journal'.commit(id, { status = 'failed', state = {},"
                        " runtime = {}, error = { code = err.code } }) end while true do end");
  end_rest(t);
  expect_end(t, "commit");
  assert_int_equal(t->draft.status, TM_FAILED);
  assert_non_null(strstr(t->text.ptr, "{\"code\":\"script.cpu\"}"));
  free_turn(t);
  t = run_turn("function on_failed() while true do end end error 'first'");
  expect_failure(t, TM_ESCRIPT, "script.error", "first");
  free_turn(t);
}

/* ---- rest ---- */

/* Long enough that a slow machine does not end a rest before it is looked at. */
static void with_long_slices(void) {
  tm_vm_options o = options();
  o.limits.cpu_slice_ms = 400;
  tm__lua_free(lua);
  assert_int_equal(tm__lua_new(&lua, &o, NULL), TM_OK);
  executor = tm__lua_executor(lua);
}

static void test_others_go_first(void **state) {
  (void)state;
  with_long_slices();
  tm_turn *greedy = run_turn("function on_failed(id, err) require 'host.journal'.fail(id, err) end"
                             " while true do end");
  uint64_t rest = timer_count - 1;
  for (int i = 0; i < 3; i++) {
    tm_turn *t = run_turn(BEGIN "assert(not CANCELLED) journal.commit(id, draft())");
    expect_end(t, "commit");
    free_turn(t);
  }
  tm_turn *again = fake_turn(bundle, BEGIN "journal.commit(id, draft())");
  memcpy(again->head.id, greedy->head.id, sizeof(again->head.id));
  executor.run(executor.ud, again); /* the next turn of the same conversation rests too */
  end_rest(again);
  fire_timer(); /* no time has passed: it goes on resting */
  expect_end(again, "");
  timers[rest % 64].fn(timers[rest % 64].ud);
  expect_failure(greedy, TM_ELIMIT, "script.cpu", "400 ms");
  executor.cancel(executor.ud, again);
  assert_int_equal(timers[(timer_count + 63) % 64].cancelled, timer_count);
  free_turn(greedy);
  free_turn(again);
}

/* Answers that come while a turn rests are kept, and wake it once. */
static void test_answers_while_resting(void **state) {
  (void)state;
  with_long_slices();
  const char *code = BEGIN "function on_failed(id, err) local a, b = timer.start(5), journal.begin"
                           "(id, draft()) ENDED = 0 end while true do end";
  for (int how = 0; how < 3; how++) {
    tm_turn *t = run_turn(code);
    end_rest(t);
    size_t work = (timer_count + 63) % 64;
    uint64_t before = timer_count;
    assert_int_equal(timers[work].ms, 5);
    timers[work].fn(timers[work].ud);
    t->done(t->done_ud, NULL);
    assert_int_equal(timer_count, before + 1); /* one rest for both */
    if (how == 0) executor.cancel(executor.ud, t);
    if (how == 0) assert_int_equal(timers[before % 64].cancelled, before + 1);
    if (how == 1) fire_timer();
    assert_string_equal(t->end, "");
    if (how == 2) { /* freed while it rests */
      with_long_slices();
    }
    free_turn(t);
  }
}

static void test_lost_while_broken(void **state) {
  (void)state;
  tm_turn *t = run_turn("function on_failed() FAILED = true end while true do end");
  executor.cancel(executor.ud, t);
  assert_string_equal(t->end, "");
  assert_int_equal(timers[(timer_count + 63) % 64].cancelled, timer_count);
  free_turn(t);
  t = run_turn(BEGIN "assert(not FAILED and CANCELLED == 1) journal.commit(id, draft())");
  expect_end(t, "commit");
  free_turn(t);
}

static void test_lost_turns(void **state) {
  (void)state;
  tm_turn *t =
      run_turn(BEGIN "CANCELLED = CANCELLED or 0 timer.start(1) await(journal.begin(id, draft()))"
                     " error 'nobody wakes it'");
  executor.cancel(executor.ud, t);
  assert_int_equal(timers[(timer_count + 63) % 64].cancelled, timers[(timer_count + 63) % 64].id);
  assert_string_equal(t->end, "");
  executor.cancel(executor.ud, t); /* unknown by now */
  executor.run(executor.ud, t);    /* again, on the new record */
  t->done(t->done_ud, NULL);
  expect_failure(t, TM_ESCRIPT, "script.error", "nobody wakes it");
  free_turn(t);
  t = run_turn(BEGIN "journal.fail(id, { code = tostring(CANCELLED), message = 'x' })");
  assert_string_equal(t->error.code, "2"); /* the lost one, and the failed one */
  free_turn(t);
}

static void test_journal_answers_after_the_end(void **state) {
  (void)state;
  tm_turn *t = run_turn(BEGIN "journal.begin(id, draft()) journal.fail(id, 'enough')");
  expect_failure(t, TM_ESCRIPT, "script.error", "enough");
  t->done(t->done_ud, NULL);
  free_turn(t);
  t = run_turn(BEGIN "journal.begin(id, draft()) journal.fail(id, 'enough')");
  free_turn(t); /* never answered: freed with the state */
}

/* ---- the journal goes on within the end of a turn ---- */

static tm_turn *queue[200];
static size_t queued;

static void run_next(tm_turn *t) {
  (void)t;
  if (queued > 0) executor.run(executor.ud, queue[--queued]);
}

static void run_queue(const char *code, const char *how) {
  tm_turn *all[200];
  for (size_t i = 0; i < 200; i++) {
    all[i] = queue[i] = fake_turn(bundle, code);
    queue[i]->on_end = run_next;
  }
  queued = 199;
  executor.run(executor.ud, queue[199]);
  for (size_t i = 0; i < 200; i++) {
    expect_end(all[i], how);
    free_turn(all[i]);
  }
}

static void test_next_turn_within_the_end(void **state) {
  (void)state;
  run_queue(BEGIN "DEPTH = (DEPTH or 0) + 1 assert(DEPTH == 1) journal.commit(id, draft())"
                  " DEPTH = DEPTH - 1",
            "commit");
  run_queue(BEGIN "journal.fail(id, 'no')", "fail");
  run_queue("error 'no'", "fail");
}

static tm_turn *victim;

static void cancel_victim(tm_turn *t) {
  (void)t;
  executor.cancel(executor.ud, victim);
}

static void test_lost_within_an_entry(void **state) {
  (void)state;
  victim = run_turn(BEGIN "CANCELLED = 0 await(timer.start(1)) journal.commit(id, draft())");
  tm_turn *t = fake_turn(bundle, BEGIN "journal.commit(id, draft()) assert(CANCELLED == 0)");
  t->on_end = cancel_victim;
  executor.run(executor.ud, t);
  expect_end(t, "commit");
  assert_string_equal(victim->end, "");
  assert_int_equal(timers[(timer_count + 63) % 64].cancelled, timers[(timer_count + 63) % 64].id);
  free_turn(victim);
  free_turn(t);
  t = victim = fake_turn(bundle, BEGIN "journal.commit(id, draft())"); /* itself */
  t->on_end = cancel_victim;
  executor.run(executor.ud, t);
  expect_end(t, "commit");
  free_turn(t);
}

static void test_interleaved_turns(void **state) {
  (void)state;
  tm_turn *t[40];
  uint64_t first = timer_count;
  for (size_t i = 0; i < 40; i++)
    t[i] = run_turn(BEGIN "local n = turn.conversation_id for i = 1, 3 do local o = timer.start(i)"
                          " SEEN = SEEN or {} assert(not SEEN[o] and not SEEN[id]) SEEN[o] = true"
                          " await(o) end journal.commit(id, draft { n = n })");
  while (first < timer_count) {
    size_t i = first++ % 64;
    timers[i].fn(timers[i].ud);
  }
  for (size_t i = 0; i < 40; i++) {
    expect_end(t[i], "commit");
    assert_non_null(strstr(t[i]->text.ptr, t[i]->head.id));
    free_turn(t[i]);
  }
}

static tm_turn *run_in(tm_bundle *b, const char *code) {
  tm_turn *t = fake_turn(b, code);
  executor.run(executor.ud, t);
  return t;
}

static void test_versions(void **state) {
  (void)state;
  tm_bundle *b[14];
  tm_turn *t[14];
  b[0] = fake_bundle("w0", "VERSION = 'w0'");
  tm_turn *waiting = run_in(b[0], BEGIN "KEPT = true await(timer.start(1)) journal.commit(id,"
                                        " draft { v = VERSION, kept = KEPT })");
  for (int i = 0; i < 14; i++) {
    char version[16], init[40];
    (void)snprintf(version, sizeof(version), "w%d", i);
    (void)snprintf(init, sizeof(init), "VERSION = 'w%d'", i);
    if (i > 0) b[i] = fake_bundle(version, init);
    t[i] = run_in(b[i], BEGIN "COUNT = (COUNT or 0) + 1 journal.commit(id, draft { v = VERSION })");
    expect_end(t[i], "commit");
    assert_non_null(strstr(t[i]->text.ptr, version));
    free_turn(t[i]);
  }
  tm_turn *again = run_in(b[13], BEGIN "journal.commit(id, draft { c = COUNT })");
  assert_non_null(strstr(again->text.ptr, "{\"c\":1}")); /* the same state as before */
  free_turn(again);
  again = run_in(b[1], BEGIN "journal.commit(id, draft { c = COUNT, v = VERSION })");
  assert_non_null(strstr(again->text.ptr, "{\"v\":\"w1\"}")); /* dropped and made anew */
  free_turn(again);
  timers[(timer_count + 63) % 64].fn(timers[(timer_count + 63) % 64].ud);
  expect_end(waiting, "commit"); /* never dropped while a turn runs */
  assert_non_null(strstr(waiting->text.ptr, "{\"kept\":true,\"v\":\"w0\"}"));
  free_turn(waiting);
  for (int i = 0; i < 14; i++)
    tm__bundle_unref(b[i]);
}

static void test_bad_bundles(void **state) {
  (void)state;
  static const char *const bad[][2] = {
      {"error('at load')", "init.lua:1: at load"},
      {"nonsense(", "init.lua:1:"},
      {"while true do end", "1000 ms"},
      {"local t = {} while true do t[#t + 1] = {} end", "limits.memory"},
      {"KEPT = {} for i = 1, 25000 do KEPT[i] = ('x'):rep(400) .. i end", "bytes of memory once"},
      {"KEPT = {} for i = 1, 40000 do KEPT[i] = { i } end", "65536 may be kept"},
  };
  for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
    tm_bundle *b = fake_bundle("bad", bad[i][0]);
    tm_turn *t = run_in(b, "return");
    expect_end(t, "fail");
    assert_non_null(strstr(t->error.message, bad[i][1]));
    free_turn(t);
    tm__bundle_unref(b);
  }
}

/* What the script itself keeps: the state is given up, and no turn fails for it. */
static void test_full_state_is_replaced(void **state) {
  (void)state;
  const char *hoard = BEGIN "KEPT = KEPT or {} for i = 1, 20000 do KEPT[#KEPT + 1] = { i } end"
                            " journal.commit(id, draft { n = #KEPT })";
  tm_turn *waiting = run_turn(BEGIN "await(timer.start(1)) journal.fail(id, 'old one')");
  uint64_t timer = timer_count - 1;
  size_t fresh = 0;
  for (int i = 0; i < 60; i++) {
    tm_turn *t = run_turn(hoard);
    expect_end(t, "commit");
    fresh += strstr(t->text.ptr, "{\"n\":20000}") != NULL;
    free_turn(t);
  }
  assert_in_range(fresh, 3, 30);
  timers[timer % 64].fn(timers[timer % 64].ud);
  expect_failure(waiting, TM_ESCRIPT, "script.error", "old one");
  free_turn(waiting);
}

/* A full state in which nothing runs goes when the journal has answered the last of its turns. */
static void test_full_state_goes_with_its_last_operation(void **state) {
  (void)state;
  const char *hoard = BEGIN "KEPT = KEPT or {} for i = 1, 20000 do KEPT[#KEPT + 1] = { i } end"
                            " journal.begin(id, draft()) journal.fail(id, { code = 'test.full',"
                            " message = tostring(#KEPT) })";
  tm_turn *turns[64];
  size_t count = 0;
  for (bool fresh = false; !fresh; count++) {
    assert_in_range(count, 0, 63);
    turns[count] = run_turn(hoard);
    expect_end(turns[count], "fail");
    fresh = count > 0 && strcmp(turns[count]->error.message, "20000") == 0;
  }
  for (size_t i = 0; i + 1 < count; i++) {
    assert_int_equal(tm__lua_states(lua), 2);
    turns[i]->done(turns[i]->done_ud, NULL);
  }
  assert_int_equal(tm__lua_states(lua), 1);
  turns[count - 1]->done(turns[count - 1]->done_ud, NULL);
  assert_int_equal(tm__lua_states(lua), 1); /* the one that takes turns */
  for (size_t i = 0; i < count; i++)
    free_turn(turns[i]);
}

/* Full states are not kept for ever by turns that wait in them. */
static void test_full_states_are_few(void **state) {
  (void)state;
  tm_turn *waiting[4];
  const char *hoard =
      BEGIN "KEPT = KEPT or {} for i = 1, 20000 do KEPT[#KEPT + 1] = ('x'):rep(100) .. i "
            "end journal.commit(id, draft { n = #KEPT })";
  for (int n = 0; n < 4; n++) {
    waiting[n] = run_turn(BEGIN "await(timer.start(1)) journal.fail(id, 'enough')");
    for (bool fresh = false; !fresh;) {
      tm_turn *t = run_turn(hoard);
      expect_end(t, "commit");
      fresh = strstr(t->text.ptr, "{\"n\":20000}") != NULL && n > 0;
      bool filled = strstr(t->text.ptr, "{\"n\":20000}") == NULL;
      free_turn(t);
      if (n == 0 && filled) break;
    }
  }
  size_t failed = 0;
  for (uint64_t i = 0; i < timer_count && i < 64; i++)
    if (timers[i].ms != 1 && timers[i].cancelled == 0) timers[i].fn(timers[i].ud);
  for (int n = 0; n < 4; n++)
    failed += waiting[n]->end[0] != '\0';
  assert_in_range(failed, 1, 3);
  expect_failure(waiting[0], TM_ELIMIT, "script.memory", "limits.memory");
  for (int n = 0; n < 4; n++)
    if (waiting[n]->end[0] == '\0') executor.cancel(executor.ud, waiting[n]);
  for (int n = 0; n < 4; n++)
    free_turn(waiting[n]);
}

static bool is_first_of_state(const char *hoard) {
  tm_turn *t = run_turn(hoard);
  expect_end(t, "commit");
  bool first = strstr(t->text.ptr, "{\"n\":20000}") != NULL;
  free_turn(t);
  return first;
}

/* Until a turn finds a new one. */
static void fill_state(const char *hoard) {
  while (is_first_of_state(hoard)) {
  }
  while (!is_first_of_state(hoard)) {
  }
}

/* However many light ones there are, heavy ones do not take their places one by one. */
static void test_full_states_are_bounded_by_bytes(void **state) {
  (void)state;
  enum { LIGHT = 6, HEAVY = 4 };
  tm_turn *waiting[LIGHT + HEAVY];
  const char *light = BEGIN "KEPT = KEPT or {} for i = 1, 20000 do KEPT[#KEPT + 1] = {} end"
                            " journal.commit(id, draft { n = #KEPT })";
  const char *heavy = BEGIN "KEPT = KEPT or {} for i = 1, 20000 do KEPT[#KEPT + 1] = "
                            "('x'):rep(100) .. i end journal.commit(id, draft { n = #KEPT })";
  for (int n = 0; n < LIGHT + HEAVY; n++) {
    waiting[n] = run_turn(BEGIN "await(timer.start(1)) journal.fail(id, 'enough')");
    fill_state(n < LIGHT ? light : heavy);
  }
  for (uint64_t i = 0; i < timer_count && i < 64; i++)
    if (timers[i].ms != 1 && timers[i].cancelled == 0) timers[i].fn(timers[i].ud);
  for (int n = 0; n < LIGHT + HEAVY; n++)
    if (n < LIGHT)
      expect_failure(waiting[n], TM_ELIMIT, "script.memory", "limits.memory");
    else if (waiting[n]->end[0] == '\0')
      executor.cancel(executor.ud, waiting[n]);
  for (int n = 0; n < LIGHT + HEAVY; n++)
    free_turn(waiting[n]);
}

/* A state that many small things fill is replaced, and nobody who waits in it is ended for them. */
static void test_many_blocks_end_nobody(void **state) {
  (void)state;
  enum { TURNS = 60 };
  tm_turn *waiting[TURNS];
  uint64_t timer[TURNS];
  for (int n = 0; n < TURNS; n++) {
    waiting[n] = run_turn(BEGIN "local t = {} for i = 1, 4000 do t[i] = {} end "
                                "await(timer.start(1)) journal.commit(id, draft { n = #t })");
    timer[n] = timer_count - 1;
    assert_string_equal(waiting[n]->end, "");
  }
  assert_in_range(tm__lua_states(lua), 3, 6);
  for (int n = 0; n < TURNS; n++) {
    timers[timer[n] % 64].fn(timers[timer[n] % 64].ud);
    expect_end(waiting[n], "commit");
    free_turn(waiting[n]);
  }
}

#define HOLD(kib) "local t = {} for i = 1, " kib " do t[i] = ('x'):rep(1000) .. i end "

/* What a step holds while it waits counts, however little each of its entries adds. */
static void test_held_memory_counts(void **state) {
  (void)state;
  tm_turn *t = run_turn(BEGIN "local all = {} for n = 1, 20 do " HOLD(
      "700") "all[n] = t await(timer.start(1)) end journal.commit(id, draft())");
  for (int i = 0; i < 19 && t->end[0] == '\0'; i++)
    fire_timer();
  expect_failure(t, TM_ELIMIT, "script.memory", "limits.step_memory");
  free_turn(t);
  t = run_turn(BEGIN "for n = 1, 20 do " HOLD("700") "await(timer.start(1)) end"
                                                     " journal.commit(id, draft())");
  for (int i = 0; i < 20; i++)
    fire_timer();
  expect_end(t, "commit"); /* garbage does not count */
  free_turn(t);
}

static void answer_http(void) {
  tm_error lost;
  (void)tm__fail(&lost, TM_EIO, "http.failed", "write error");
  http.fn(http.ud, &(tm_http_result){.error = &lost});
}

#define ANSWER(more)                                                                               \
  "http.request { method = 'POST', url = 'u', timeout_ms = 1, max_bytes = 1" more " }"

/* What comes in is outside of Lua, and counts all the same until it has come. */
static void test_answers_count_as_held(void **state) {
  (void)state;
  tm_turn *t = run_turn(
      BEGIN "local ok, e = await(" ANSWER("") ") assert(e.code == 'http.failed')"
                                              " ok, e = await(" ANSWER("") ") journal.fail(id, e)");
  size_t most = options().limits.step_memory, sixteenth = most / 16;
  for (int i = 0; i < 15; i++)
    assert_true(http.room(http.ud, sixteenth));
  answer_http();
  for (int i = 0; i < 15; i++)
    assert_true(http.room(http.ud, sixteenth)); /* what came before is gone */
  assert_false(http.room(http.ud, sixteenth));
  answer_http();
  expect_failure(t, TM_ETOOLARGE, "http.too_large", "limits.step_memory");
  free_turn(t);
}

/* However much arrives for a state, its scripts' memory is theirs; but that is bounded, too. */
static void test_answers_count_for_all(void **state) {
  (void)state;
  enum { TURNS = 64 };
  tm_vm_limits limits = options().limits;
  size_t most = TM_ARRIVING * limits.memory, piece = most / TURNS;
  tm_turn *turns[TURNS], *more;
  void *uds[TURNS];
  assert_true(piece < limits.step_memory);
  for (size_t i = 0; i < TURNS; i++) {
    turns[i] = run_turn(BEGIN "await(" ANSWER("") ")");
    uds[i] = http.ud;
  }
  for (size_t i = 0; i < TURNS; i++)
    assert_true(http.room(uds[i], piece));
  more = run_turn(BEGIN "local keep = ('x'):rep(100000) local ok, e = await(" ANSWER(
      "") ") assert(e.retryable) journal.fail(id, e)");
  assert_false(http.room(http.ud, most % TURNS + 1));
  answer_http();
  expect_failure(more, TM_EUNAVAILABLE, "http.no_room", "limits.memory");
  free_turn(more);
  for (size_t i = 0; i < TURNS; i++) {
    executor.cancel(executor.ud, turns[i]);
    free_turn(turns[i]);
  }
  more = run_turn(BEGIN "await(" ANSWER("") ") journal.commit(id, draft())");
  assert_true(http.room(http.ud, piece)); /* with its turn all that it held is gone */
  answer_http();
  expect_end(more, "commit");
  free_turn(more);
}

/* What is sent is the script's own text: it stays where it is, whoever else forgets it. */
static void test_a_body_stays_while_it_is_sent(void **state) {
  (void)state;
  tm_turn *t = run_turn(BEGIN "local op = " ANSWER(
      ", body = ('ab'):rep(50000)") " await(timer.start(1)) for i = 1, 1e5 do local t = "
                                    "('y'):rep(99) .. i"
                                    " end await(op) journal.commit(id, draft())");
  fire_timer();
  assert_int_equal(http.body.len, 100000);
  for (size_t i = 0; i < http.body.len; i++)
    assert_int_equal(http.body.ptr[i], i % 2 == 0 ? 'a' : 'b');
  answer_http();
  expect_end(t, "commit");
  free_turn(t);
}

/* ---- what turns use ---- */

#define READ "local read = require 'host.usage'.read local cpu, bytes, peak = read() "

/* CPU time that passes between its entries is others'. */
static void test_cpu_of_a_turn(void **state) {
  (void)state;
  with_long_slices();
  tm_turn *t = run_turn(BEGIN READ "await(timer.start(1)) local still = read() - cpu"
                                   " for i = 1, 1e6 do end local busy = read() - cpu"
                                   " journal.commit(id, draft { still = still, busy = busy })");
  tm_turn *other = run_turn(BEGIN "for i = 1, 3e6 do end journal.commit(id, draft())");
  expect_end(other, "commit");
  void *ud;
  tm_timer_fn fn = last_timer(&ud);
  int64_t before = tm__clock_thread_cpu_us();
  while (tm__clock_thread_cpu_us() - before < 50000)
    continue;
  fn(ud);
  expect_end(t, "commit");
  int64_t still = tm__json_get_int(t->draft.state, "still", -1);
  int64_t busy = tm__json_get_int(t->draft.state, "busy", -1);
  assert_in_range(still, 0, 49999);
  assert_in_range(busy, still + 500, INT64_MAX);
  free_turn(t);
  free_turn(other);
}

static void test_memory_of_a_turn(void **state) {
  (void)state;
  tm_turn *t = run_turn(
      BEGIN READ "do local t = {} for i = 1, 20 do t[i] = ('x'):rep(50000) .. i end end"
                 " await(timer.start(1)) local _, _, first = read()"
                 " local _, left, second = read()"
                 " journal.commit(id, draft { first = first - bytes, second = second - left })");
  fire_timer();
  expect_end(t, "commit");
  assert_in_range(tm__json_get_int(t->draft.state, "first", -1), 1000000, 3000000);
  assert_in_range(tm__json_get_int(t->draft.state, "second", -1), 0, 99999); /* asked anew */
  free_turn(t);
}

static void test_use_of_what_was_stopped(void **state) {
  (void)state;
  tm_turn *t = run_turn(BEGIN READ "function on_failed(id) local cpu_now, _, most = read()"
                                   " journal.commit(id, draft { cpu = cpu_now - cpu,"
                                   " memory = most - bytes }) end"
                                   " local s = ('x'):rep(999) local t = {} while true do"
                                   " t[#t + 1] = s:rep(99) .. #t end");
  end_rest(t);
  expect_end(t, "commit");
  assert_in_range(tm__json_get_int(t->draft.state, "cpu", -1), 1, INT64_MAX);
  assert_in_range(tm__json_get_int(t->draft.state, "memory", -1), 3 << 20, 4 << 20);
  free_turn(t);
}

/* Many that hold much are bounded by their own failures; who holds little never pays. */
static void test_greedy_turns_make_room(void **state) {
  (void)state;
  tm_turn *greedy[12];
  tm_turn *modest = run_turn(BEGIN "await(timer.start(7)) journal.commit(id, draft())");
  uint64_t timer = timer_count - 1;
  size_t failed = 0;
  for (int i = 0; i < 12; i++) {
    greedy[i] = run_turn(BEGIN HOLD("3000") "await(timer.start(9)) journal.commit(id, draft())");
    for (uint64_t k = 0; k < timer_count; k++) {
      bool rest = timers[k].ms != 7 && timers[k].ms != 9 && timers[k].cancelled == 0;
      timers[k].cancelled += rest ? 1000 : 0;
      if (rest) timers[k].fn(timers[k].ud);
    }
    tm_turn *t = run_turn(BEGIN "journal.commit(id, draft())");
    expect_end(t, "commit");
    free_turn(t);
  }
  for (int i = 0; i < 12; i++) {
    if (greedy[i]->end[0] == '\0') continue;
    failed++;
    expect_failure(greedy[i], TM_ELIMIT, "script.memory", "holds");
  }
  assert_in_range(failed, 7, 11);
  timers[timer % 64].fn(timers[timer % 64].ud);
  expect_end(modest, "commit");
  free_turn(modest);
  for (int i = 0; i < 12; i++) {
    if (greedy[i]->end[0] == '\0') executor.cancel(executor.ud, greedy[i]);
    free_turn(greedy[i]);
  }
}

static void test_operations_are_counted(void **state) {
  (void)state;
  tm_vm_options o = options();
  o.limits.operations = 3;
  o.limits.system_operations = 5;
  tm__lua_free(lua);
  assert_int_equal(tm__lua_new(&lua, &o, NULL), TM_OK);
  executor = tm__lua_executor(lua);
  tm_turn *a = run_turn(BEGIN "local last for i = 1, 3 do last = assert(timer.start(i)) end"
                              " local none, e = timer.start(4)"
                              " assert(none == nil and e.code == 'script.operations')"
                              " assert(e.message:find('3 operations', 1, true))"
                              " assert(e.message:find('limits.operations', 1, true))"
                              " assert(journal.begin(id, draft()))"
                              " assert(op.cancel(last) and timer.start(5))"
                              " local none, e = timer.start(6) assert(none == nil)");
  assert_string_equal(a->end, "");
  tm_turn *b = run_turn(BEGIN "assert(timer.start(1) and timer.start(2))"
                              " local none, e = timer.start(3)"
                              " assert(e.code == 'script.operations' and e.status == 'unavailable')"
                              " assert(e.message:find('limits.system_operations', 1, true))");
  assert_string_equal(b->end, "");
  executor.cancel(executor.ud, a);
  tm_turn *c = run_turn(BEGIN "for i = 1, 3 do assert(timer.start(i)) end journal.fail(id, 'ok')");
  expect_failure(c, TM_ESCRIPT, "script.error", "ok");
  c->error.message[0] = '\0';
  executor.cancel(executor.ud, b);
  free_turn(a);
  free_turn(b);
  free_turn(c);
}

/* ---- loading beside the worker ---- */

static void test_loading_does_not_hold_up(void **state) {
  (void)state;
  tm_turn *warm = run_turn(BEGIN "journal.commit(id, draft())");
  expect_end(warm, "commit");
  tm_bundle *slow = fake_bundle("slow", "VERSION = 'slow'");
  beside_waits = true;
  tm_turn *a = run_in(slow, BEGIN "COUNT = 1 journal.commit(id, draft { v = VERSION })");
  tm_turn *b = run_in(slow, BEGIN "assert(COUNT == 1) journal.commit(id, draft())");
  tm_turn *lost = run_in(slow, "error 'it must not run'");
  assert_string_equal(a->end, "");
  assert_non_null(beside);
  tm_turn *other = run_turn(BEGIN "journal.commit(id, draft())");
  expect_end(other, "commit"); /* others do not wait */
  executor.cancel(executor.ud, lost);
  finish_beside();
  expect_end(a, "commit");
  expect_end(b, "commit");
  assert_non_null(strstr(a->text.ptr, "{\"v\":\"slow\"}"));
  assert_string_equal(lost->end, "");
  beside_waits = false;
  tm__bundle_unref(slow);
  tm_turn *all[] = {warm, a, b, lost, other};
  for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
    free_turn(all[i]);
}

static void test_loading_fails_for_all_that_wait(void **state) {
  (void)state;
  tm_bundle *bad = fake_bundle("bad", "error 'at load'");
  beside_waits = true;
  tm_turn *a = run_in(bad, "return"), *b = run_in(bad, "return");
  finish_beside();
  expect_failure(a, TM_ESCRIPT, "script.error", "at load");
  expect_failure(b, TM_ESCRIPT, "script.error", "at load");
  beside_waits = false;
  tm_turn *c = run_in(bad, "return"); /* the next one tries again */
  expect_failure(c, TM_ESCRIPT, "script.error", "at load");
  tm__bundle_unref(bad);
  free_turn(a);
  free_turn(b);
  free_turn(c);
}

static void test_end_while_loading(void **state) {
  (void)state;
  tm_bundle *slow = fake_bundle("slow", "VERSION = 'slow'");
  beside_waits = true;
  tm_turn *a = run_in(slow, "error 'it must not run'");
  tm_turn *lost = run_in(slow, "error 'it must not run'");
  executor.cancel(executor.ud, lost);
  tm__lua_free(lua);
  lua = NULL;
  finish_beside(); /* nobody is left to hear of it */
  assert_string_equal(a->end, "");
  beside_waits = false;
  tm__bundle_unref(slow);
  free_turn(a);
  free_turn(lost);
}

/* ---- prepared for turns that are to come ---- */

typedef struct prepared {
  tm_lua_wait wait;
  int told;
  tm_error error;
} prepared;

static void on_prepared(tm_lua_wait *w, const tm_error *err) {
  prepared *p = (prepared *)(void *)w;
  p->told++;
  if (err != NULL) p->error = *err;
}

static prepared to_prepare(void) {
  return (prepared){.wait.ready = on_prepared};
}

static void test_prepared_states(void **state) {
  (void)state;
  tm_bundle *next = fake_bundle("next", "VERSION = 'next'");
  prepared first = to_prepare(), second = to_prepare(), third = to_prepare();
  beside_waits = true;
  tm__lua_prepare(lua, next, &first.wait);
  tm_turn *waits = run_in(next, BEGIN "COUNT = 1 journal.commit(id, draft { v = VERSION })");
  tm__lua_prepare(lua, next, &second.wait);
  assert_int_equal(first.told + second.told, 0);
  finish_beside();
  assert_int_equal(first.told, 1);
  assert_int_equal(second.told, 1);
  assert_int_equal(first.error.status, TM_OK);
  expect_end(waits, "commit");
  tm__lua_prepare(lua, next, &third.wait); /* it is there: nothing is loaded */
  assert_int_equal(third.told, 1);
  tm_turn *t = run_in(next, BEGIN "assert(COUNT == 1) journal.commit(id, draft())");
  expect_end(t, "commit");
  beside_waits = false;
  tm__bundle_unref(next);
  free_turn(waits);
  free_turn(t);
}

static void test_prepared_states_that_fail(void **state) {
  (void)state;
  tm_bundle *bad = fake_bundle("bad", "error 'at load'");
  prepared p = to_prepare(), left = to_prepare();
  tm__lua_prepare(lua, bad, &p.wait);
  assert_int_equal(p.told, 1);
  assert_int_equal(p.error.status, TM_ESCRIPT);
  assert_non_null(strstr(p.error.message, "at load"));
  tm_bundle *slow = fake_bundle("slow", "");
  beside_waits = true;
  tm__lua_prepare(lua, slow, &left.wait);
  tm__lua_free(lua); /* the host stops meanwhile */
  lua = NULL;
  assert_int_equal(left.told, 1);
  assert_string_equal(left.error.code, "host.stopping");
  finish_beside();
  assert_int_equal(left.told, 1);
  beside_waits = false;
  tm__bundle_unref(bad);
  tm__bundle_unref(slow);
}

typedef struct insistent { /* prepares it once more when it hears that it cannot be had */
  prepared first, second;
  tm_bundle *bundle;
} insistent;

static void on_refused(tm_lua_wait *w, const tm_error *err) {
  insistent *i = (insistent *)(void *)w;
  on_prepared(w, err);
  tm__lua_prepare(lua, i->bundle, &i->second.wait);
}

static void test_nobody_gets_a_state_that_was_not_loaded(void **state) {
  (void)state;
  insistent i = {.first.wait.ready = on_refused, .second = to_prepare()};
  i.bundle = fake_bundle("bad", "error 'at load'");
  tm__lua_prepare(lua, i.bundle, &i.first.wait);
  assert_int_equal(i.first.told, 1);
  assert_int_equal(i.first.error.status, TM_ESCRIPT);
  assert_int_equal(i.second.told, 1);
  assert_int_equal(i.second.error.status, TM_ESCRIPT);
  tm__bundle_unref(i.bundle);
}

/* Once it is loaded a state has no copy of its sources, and still finds them. */
static void test_sources_of_a_loaded_state(void **state) {
  (void)state;
  tm_turn *t = run_turn(BEGIN "local file = require 'host.file' local text, chunk ="
                              " file.read('task.lua') assert(chunk == '@scripts/test/task.lua')"
                              " local none, err = file.read('other.lua') assert(not none)"
                              " journal.commit(id, draft { size = #text, code = err.code })");
  expect_end(t, "commit");
  assert_non_null(strstr(t->text.ptr, "{\"code\":\"file.not_found\",\"size\":"));
  free_turn(t);
}

/* ---- states of old versions ---- */

static void make_current(tm_bundle *b) {
  tm_error err;
  tm_bundle *all[] = {tm__bundle_ref(b)};
  assert_int_equal(tm__registry_switch(registry, all, 1, &err), TM_OK);
}

/* The executor looks after what nobody uses; false: it does not intend to. */
static bool let_look(void) {
  for (uint64_t n = 0; n < 64 && n < timer_count; n++) {
    size_t i = (timer_count - 1 - n) % 64;
    if (timers[i].ms != LOOK_MS) continue;
    bool armed = timers[i].cancelled == 0 && timers[i].fn != NULL;
    tm_timer_fn fn = timers[i].fn;
    timers[i].fn = NULL;
    if (armed) fn(timers[i].ud);
    return armed;
  }
  return false;
}

/* Has a turn in that version counted before, in the same state? */
static bool is_warm(tm_bundle *b) {
  tm_turn *t = run_in(b, BEGIN "COUNT = (COUNT or 0) + 1 journal.commit(id, draft { n = COUNT })");
  expect_end(t, "commit");
  bool warm = strstr(t->text.ptr, "{\"n\":1}") == NULL;
  free_turn(t);
  return warm;
}

static void test_old_states_are_closed(void **state) {
  (void)state;
  tm_bundle *next = fake_bundle("next", "");
  make_current(bundle);
  assert_false(is_warm(bundle));
  assert_true(let_look());
  assert_true(let_look());
  assert_true(is_warm(bundle)); /* a current one stays */
  make_current(next);
  assert_false(is_warm(next));
  for (int i = 0; i < 5; i++) { /* one that is used stays */
    assert_true(is_warm(bundle));
    assert_true(let_look());
  }
  tm_turn *waits = run_in(bundle, BEGIN "await(timer.start(1)) journal.commit(id, draft())");
  void *ud;
  tm_timer_fn fn = last_timer(&ud);
  for (int i = 0; i < 3; i++)
    assert_true(let_look());
  fn(ud);
  expect_end(waits, "commit"); /* as does one that has a turn */
  free_turn(waits);
  assert_true(let_look());
  assert_true(let_look());
  assert_false(is_warm(bundle)); /* closed, and made anew */
  assert_true(is_warm(next));
  tm__bundle_unref(next);
}

/* A system that was removed has no current version. */
static void test_states_of_removed_systems_are_closed(void **state) {
  (void)state;
  tm_error err;
  make_current(bundle);
  assert_false(is_warm(bundle));
  assert_int_equal(tm__registry_switch(registry, NULL, 0, &err), TM_OK);
  assert_true(let_look());
  assert_true(let_look());
  assert_false(let_look()); /* there is nothing left to look at */
  assert_false(is_warm(bundle));
  assert_true(let_look());
}

/* ---- no memory ---- */

typedef struct memory {
  long left, blocks;
} memory;

static void *scarce(void *ud, void *p, size_t old_size, size_t new_size) {
  memory *m = ud;
  if (new_size == 0) {
    m->blocks -= p != NULL;
    free(p);
    return NULL;
  }
  if (p != NULL && new_size <= old_size) return realloc(p, new_size); /* shrinking never fails */
  if (m->left == 0) return NULL;
  if (m->left > 0) m->left--;
  void *q = realloc(p, new_size);
  m->blocks += q != NULL && p == NULL;
  return q;
}

/* Every allocation fails once, in turn: the turn still ends exactly once, and nothing is left. */
static void test_out_of_memory(void **state) {
  (void)state;
  const char *code = BEGIN "assert(await(journal.begin(id, draft { at = 1 })))"
                           " assert(await(timer.start(1)))"
                           " local ok, r = assert(await(http.request { method = 'G', url = 'u',"
                           " timeout_ms = 1, max_bytes = 1, headers = { A = 'b' } }))"
                           " assert(await(journal.call(id, 'k', r)))"
                           " assert(journal.commit(id, draft { r = r }))";
  long n = 0;
  for (bool done = false; !done; n++) {
    memory m = {.left = n};
    tm_vm_options o = options();
    o.alloc = scarce;
    o.alloc_ud = &m;
    if (tm__lua_new(&lua, &o, NULL) == TM_OK) {
      executor = tm__lua_executor(lua);
      http.fn = NULL;
      timer_count = 0;
      tm_turn *t = fake_turn(bundle, code);
      t->answer_at_once = true;
      executor.run(executor.ud, t);
      if (timer_count > 0 && t->end[0] == '\0') fire_timer();
      tm_http_result r = {.status = 200, .body = TM_S("b"), .headers = TM_S("A: b\r\n")};
      if (http.fn != NULL && t->end[0] == '\0') http.fn(http.ud, &r);
      done = strcmp(t->end, "commit") == 0;
      if (!done) expect_end(t, "fail");
      if (!done && strstr(t->error.message, "memory") == NULL)
        print_message("%s\n", t->error.message);
      assert_true(done || strstr(t->error.message, "memory") != NULL);
      free_turn(t);
      tm__lua_free(lua);
    }
    if (m.blocks != 0) print_message("%ld blocks left after %ld\n", m.blocks, n);
    assert_int_equal(m.blocks, 0);
  }
  assert_in_range(n, 100, 100000);
  lua = NULL;
}

static int set_up_bundle(void **state) {
  (void)state;
  bundle = fake_bundle("v1", "");
  return bundle != NULL ? 0 : -1;
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void) {
  const struct CMUnitTest tests[] = {
      CASE(test_commit),
      CASE(test_suspend_and_fail),
      CASE(test_refused_drafts),
      CASE(test_operations),
      CASE(test_messages),
      CASE(test_failed_operations),
      CASE(test_wrong_arguments_raise),
      CASE(test_answers_at_once),
      CASE(test_cancelled_operations),
      CASE(test_failures),
      cmocka_unit_test_setup_teardown(test_step_memory, set_up_patient, tear_down),
      CASE(test_second_chance),
      CASE(test_others_go_first),
      CASE(test_answers_while_resting),
      CASE(test_lost_while_broken),
      CASE(test_lost_turns),
      CASE(test_journal_answers_after_the_end),
      CASE(test_next_turn_within_the_end),
      CASE(test_lost_within_an_entry),
      CASE(test_interleaved_turns),
      cmocka_unit_test_setup_teardown(test_versions, set_up_versions, tear_down),
      CASE(test_bad_bundles),
      cmocka_unit_test_setup_teardown(test_full_state_is_replaced, set_up_patient, tear_down),
      cmocka_unit_test_setup_teardown(test_full_states_are_few, set_up_patient, tear_down),
      cmocka_unit_test_setup_teardown(test_many_blocks_end_nobody, set_up_patient, tear_down),
      cmocka_unit_test_setup_teardown(test_full_states_are_bounded_by_bytes, set_up_patient,
                                      tear_down),
      cmocka_unit_test_setup_teardown(test_full_state_goes_with_its_last_operation, set_up_patient,
                                      tear_down),
      cmocka_unit_test_setup_teardown(test_cpu_of_a_turn, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_memory_of_a_turn, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_use_of_what_was_stopped, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_held_memory_counts, set_up_patient, tear_down),
      cmocka_unit_test_setup_teardown(test_answers_count_as_held, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_answers_count_for_all, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_a_body_stays_while_it_is_sent, set_up_patient,
                                      tear_down),
      cmocka_unit_test_setup_teardown(test_greedy_turns_make_room, set_up_patient, tear_down),
      CASE(test_operations_are_counted),
      CASE(test_loading_does_not_hold_up),
      CASE(test_loading_fails_for_all_that_wait),
      CASE(test_end_while_loading),
      CASE(test_sources_of_a_loaded_state),
      CASE(test_prepared_states),
      CASE(test_prepared_states_that_fail),
      CASE(test_nobody_gets_a_state_that_was_not_loaded),
      cmocka_unit_test_setup_teardown(test_old_states_are_closed, set_up_versions, tear_down),
      cmocka_unit_test_setup_teardown(test_states_of_removed_systems_are_closed, set_up_versions,
                                      tear_down),
      cmocka_unit_test_setup_teardown(test_out_of_memory, set_up_bundle, tear_down),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
