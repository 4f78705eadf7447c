/* A state for each tenant: nobody sees what another's turns left, states are bounded, and what runs
 * in one is never disturbed; turns that find no room wait in order. */
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

static int open_with(size_t tenant_states) {
  tm_vm_options o = fixture_options();
  o.limits.cpu_slice_ms = 1500; /* time is not what is tested */
  o.read_file = NULL;
  o.root = NULL;
  o.worker = (tm_worker *)(void *)&somewhere;
  o.client = (tm_http_client *)(void *)&somewhere;
  o.tenant_states = tenant_states;
  if (tm__lua_new(&lua, &o, NULL) != TM_OK) return -1;
  executor = tm__lua_executor(lua);
  bundle = fake_bundle("v1", "");
  beside_waits = false;
  timer_count = 0;
  memset(timers, 0, sizeof(timers));
  return bundle != NULL ? 0 : -1;
}

static int set_up_shared(void **state) {
  (void)state;
  return open_with(0);
}

static int set_up_one(void **state) {
  (void)state;
  return open_with(1);
}

static int set_up_two(void **state) {
  (void)state;
  return open_with(2);
}

static int set_up_four(void **state) {
  (void)state;
  return open_with(4);
}

static int set_up_ten(void **state) {
  (void)state;
  return open_with(10);
}

static int tear_down(void **state) {
  (void)state;
  tm__lua_free(lua);
  tm__bundle_unref(bundle);
  return beside == NULL ? 0 : -1;
}

/* The fixture's chunks begin with this. */
#define BEGIN                                                                                      \
  "local turn, id, await = ... local journal, timer = require 'host.journal', require "            \
  "'host.timer' "                                                                                  \
  "local function draft(state) return { status = 'waiting_input', state = state or turn.state, "   \
  "runtime = turn.runtime } end "
/* OWNER is what the state remembers: whose turns ran in it. */
#define COUNT                                                                                      \
  "OWNER = OWNER or turn.tenant NTH = (NTH or 0) + 1 "                                             \
  "journal.commit(id, draft { n = NTH, owner = OWNER })"
#define WAIT "NTH = (NTH or 0) + 1 await(timer.start(1)) journal.commit(id, draft { n = NTH })"

static tm_turn *run_of(const char *tenant, tm_bundle *b, const char *code) {
  tm_turn *t = fake_turn(b, code);
  (void)snprintf(t->head.tenant, sizeof(t->head.tenant), "%s", tenant);
  executor.run(executor.ud, t);
  return t;
}

static void expect_end(const tm_turn *t, const char *how) {
  if (strcmp(t->end, how) != 0) print_message("%s: %s\n", t->error.code, t->error.message);
  assert_string_equal(t->end, how);
}

static void expect_state(const tm_turn *t, const char *json) {
  expect_end(t, "commit");
  if (strstr(t->text.ptr, json) == NULL) print_message("%s\n", t->text.ptr);
  assert_non_null(strstr(t->text.ptr, json));
}

/* How many turns ran in the state of the tenant, this one included; no other's is among them. */
static int count_in(const char *tenant, tm_bundle *b) {
  char owner[96];
  (void)snprintf(owner, sizeof(owner), "\"owner\":\"%s\"}", tenant);
  tm_turn *t = run_of(tenant, b, BEGIN COUNT);
  expect_state(t, owner);
  const char *n = strstr(t->text.ptr, "\"n\":");
  assert_non_null(n);
  int count = (int)strtol(n + 4, NULL, 10);
  free_turn(t);
  return count;
}

static int count_of(const char *tenant) {
  return count_in(tenant, bundle);
}

static void fire(uint64_t timer) {
  timers[timer % 64].fn(timers[timer % 64].ud);
}

/* A turn that waits for a timer, until `fire`. */
static tm_turn *waiting_in(const char *tenant, uint64_t *timer) {
  tm_turn *t = run_of(tenant, bundle, BEGIN WAIT);
  *timer = timer_count - 1;
  assert_int_equal(timers[*timer % 64].ms, 1);
  return t;
}

static void let_look(void) {
  for (uint64_t n = 0; n < 64 && n < timer_count; n++) {
    size_t i = (timer_count - 1 - n) % 64;
    if (timers[i].ms != LOOK_MS || timers[i].fn == NULL) continue;
    tm_timer_fn fn = timers[i].fn;
    timers[i].fn = NULL;
    fn(timers[i].ud);
    return;
  }
  fail_msg("nobody looks");
}

static void test_shared_states_are_seen_by_all(void **state) {
  (void)state;
  assert_int_equal(count_of("acme"), 1);
  tm_turn *t = run_of("umbrella", bundle, BEGIN COUNT);
  expect_state(t, "{\"n\":2,\"owner\":\"acme\"}"); /* what isolation is for */
  free_turn(t);
  assert_int_equal(tm__lua_states(lua), 1);
}

static void test_each_has_its_own(void **state) {
  (void)state;
  for (int i = 1; i <= 5; i++) {
    assert_int_equal(count_of("acme"), i);
    assert_int_equal(count_of("umbrella"), i);
    assert_int_equal(count_of("acm"), i);
  }
  assert_int_equal(tm__lua_states(lua), 3);
}

static void test_versions_have_their_own(void **state) {
  (void)state;
  tm_bundle *next = fake_bundle("v2", "");
  assert_int_equal(count_of("acme"), 1);
  assert_int_equal(count_in("acme", next), 1);
  assert_int_equal(count_of("acme"), 2);
  assert_int_equal(count_in("acme", next), 2);
  assert_int_equal(tm__lua_states(lua), 2);
  tm__bundle_unref(next);
}

static void test_many_tenants_few_states(void **state) {
  (void)state;
  char tenant[16];
  for (int round = 0; round < 2; round++)
    for (int i = 0; i < 300; i++) {
      (void)snprintf(tenant, sizeof(tenant), "t%d", i);
      assert_int_equal(count_of(tenant), 1);
      assert_int_equal(count_of(tenant), 2); /* it stays for the next one */
      assert_in_range(tm__lua_states(lua), 1, 4);
    }
  assert_int_equal(tm__lua_states(lua), 4);
}

static void test_the_least_used_one_goes(void **state) {
  (void)state;
  assert_int_equal(count_of("a"), 1);
  assert_int_equal(count_of("b"), 1);
  assert_int_equal(count_of("a"), 2);
  assert_int_equal(count_of("c"), 1); /* in the place of b */
  assert_int_equal(count_of("a"), 3);
  assert_int_equal(count_of("b"), 1); /* in the place of c */
  assert_int_equal(count_of("a"), 4);
}

static void test_unused_ones_go(void **state) {
  (void)state;
  uint64_t timer;
  assert_int_equal(count_of("a"), 1);
  tm_turn *b = waiting_in("b", &timer);
  let_look();
  assert_int_equal(count_of("a"), 2);
  let_look();
  assert_int_equal(tm__lua_states(lua), 2); /* it was used since the look before */
  let_look();
  assert_int_equal(tm__lua_states(lua), 1); /* what a turn waits in stays */
  fire(timer);
  expect_state(b, "{\"n\":1}");
  free_turn(b);
  let_look();
  assert_int_equal(tm__lua_states(lua), 0);
  assert_int_equal(count_of("a"), 1);
}

/* Two are in use: others wait until one is free, in the order in which they came. */
static void test_what_is_in_use_stays(void **state) {
  (void)state;
  uint64_t first, second;
  tm_turn *a = waiting_in("a", &first), *b = waiting_in("b", &second);
  tm_turn *c = run_of("c", bundle, BEGIN WAIT), *d = run_of("d", bundle, BEGIN COUNT);
  tm_turn *more = run_of("c", bundle, BEGIN WAIT);
  assert_int_equal(count_of("a"), 2); /* who has a state does not wait */
  assert_string_equal(c->end, "");
  assert_int_equal(timer_count, second + 1); /* nor has it begun */
  fire(first);
  expect_state(a, "{\"n\":2}");
  assert_int_equal(timer_count, second + 3); /* both of c */
  assert_string_equal(d->end, "");
  fire(second);
  expect_state(b, "{\"n\":1}");
  expect_state(d, "{\"n\":1,\"owner\":\"d\"}");
  fire(second + 1);
  fire(second + 2);
  expect_state(c, "{\"n\":2}");
  expect_state(more, "{\"n\":2}");
  assert_int_equal(tm__lua_states(lua), 2);
  tm_turn *all[] = {a, b, c, d, more};
  for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
    free_turn(all[i]);
}

/* A tenant whose turns overlap without end leaves its place to others after a while. */
static void test_nobody_keeps_a_place_for_ever(void **state) {
  (void)state;
  uint64_t timer, next;
  tm_turn *a = waiting_in("a", &timer), *b = run_of("b", bundle, BEGIN COUNT), *last = NULL;
  int turns = 0;
  for (; last == NULL && turns < 100; turns++) {
    tm_turn *t = run_of("a", bundle, BEGIN WAIT);
    next = timer_count - 1;
    assert_string_equal(b->end, "");
    fire(timer);
    expect_end(a, "commit");
    free_turn(a);
    a = t;
    if (b->end[0] != '\0') last = t;
    timer = next;
  }
  assert_in_range(turns, 2, 20);
  expect_state(b, "{\"n\":1,\"owner\":\"b\"}");
  assert_string_equal(last->end, ""); /* it waited for b, and goes on in a new one */
  assert_int_equal(tm__lua_states(lua), 1);
  fire(timer_count - 1);
  expect_state(last, "{\"n\":1}");
  free_turn(last);
  free_turn(b);
}

static void test_who_gives_up_is_forgotten(void **state) {
  (void)state;
  uint64_t timer;
  tm_turn *a = waiting_in("a", &timer), *b = run_of("b", bundle, "error 'it must not run'");
  tm_turn *c = run_of("c", bundle, BEGIN COUNT);
  executor.cancel(executor.ud, b);
  beside_waits = true;
  fire(timer);
  expect_end(a, "commit");
  assert_non_null(beside);
  assert_int_equal(beside_count, 0); /* b's is not even loaded */
  finish_beside();
  assert_null(beside);
  expect_state(c, "{\"n\":1,\"owner\":\"c\"}");
  tm_turn *all[] = {a, b, c};
  for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
    free_turn(all[i]);
}

/* What is being loaded has its place: others neither take it nor load beside it. */
static void test_loading_takes_room(void **state) {
  (void)state;
  beside_waits = true;
  tm_turn *a = run_of("a", bundle, BEGIN COUNT), *b = run_of("b", bundle, BEGIN COUNT);
  tm_turn *c = run_of("c", bundle, BEGIN COUNT), *again = run_of("a", bundle, BEGIN COUNT);
  assert_int_equal(beside_count, 1); /* two at once */
  finish_beside();
  expect_state(a, "{\"n\":1,\"owner\":\"a\"}");
  expect_state(again, "{\"n\":2,\"owner\":\"a\"}");
  assert_string_equal(b->end, "");
  finish_beside();
  expect_state(b, "{\"n\":1,\"owner\":\"b\"}");
  finish_beside();
  expect_state(c, "{\"n\":1,\"owner\":\"c\"}");
  assert_int_equal(tm__lua_states(lua), 2);
  tm_turn *all[] = {a, b, c, again};
  for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
    free_turn(all[i]);
}

static void test_what_cannot_be_loaded_makes_room(void **state) {
  (void)state;
  tm_bundle *bad = fake_bundle("bad", "error 'at load'");
  beside_waits = true;
  tm_turn *a = run_of("a", bad, "return"), *b = run_of("b", bad, "return");
  tm_turn *c = run_of("c", bundle, BEGIN COUNT);
  while (beside != NULL)
    finish_beside();
  expect_end(a, "fail");
  expect_end(b, "fail");
  expect_state(c, "{\"n\":1,\"owner\":\"c\"}");
  assert_int_equal(tm__lua_states(lua), 1);
  tm__bundle_unref(bad);
  tm_turn *all[] = {a, b, c};
  for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
    free_turn(all[i]);
}

/* The turn is over, but the journal still holds an operation of it: so does the state, until then.
 */
static void test_the_journal_holds_a_state(void **state) {
  (void)state;
  tm_turn *a = run_of("a", bundle, BEGIN "journal.begin(id, draft()) journal.commit(id, draft())");
  expect_end(a, "commit");
  tm_turn *b = run_of("b", bundle, BEGIN COUNT);
  assert_string_equal(b->end, "");
  a->done(a->done_ud, NULL);
  expect_state(b, "{\"n\":1,\"owner\":\"b\"}");
  free_turn(a);
  free_turn(b);
}

static void test_end_while_others_wait(void **state) {
  (void)state;
  uint64_t timer;
  tm_turn *a = waiting_in("a", &timer), *b = run_of("b", bundle, "error 'it must not run'");
  beside_waits = true;
  tm__lua_free(lua);
  lua = NULL;
  assert_null(beside);
  assert_string_equal(a->end, "");
  assert_string_equal(b->end, "");
  free_turn(a);
  free_turn(b);
}

/* ---- prepared for whoever comes ---- */

typedef struct prepared {
  tm_lua_wait wait;
  int told;
} prepared;

static void on_prepared(tm_lua_wait *w, const tm_error *err) {
  assert_null(err);
  ((prepared *)(void *)w)->told++;
}

static void test_prepared_for_the_first(void **state) {
  (void)state;
  tm_bundle *next = fake_bundle("v2", "");
  prepared p = {.wait.ready = on_prepared}, again = p;
  beside_waits = true;
  tm__lua_prepare(lua, next, &p.wait);
  tm__lua_prepare(lua, next, &again.wait);
  tm_turn *early = run_of("a", next, BEGIN COUNT); /* takes what is being loaded */
  assert_int_equal(beside_count, 0);
  finish_beside();
  assert_int_equal(p.told + again.told, 2);
  expect_state(early, "{\"n\":1,\"owner\":\"a\"}");
  free_turn(early);
  beside_waits = false;
  assert_int_equal(count_in("b", next), 1);
  assert_int_equal(count_in("a", next), 2);
  tm__lua_prepare(lua, bundle, &p.wait); /* another version: one of those has to go */
  assert_int_equal(p.told, 2);
  beside_waits = true;
  assert_int_equal(count_of("c"), 1); /* nothing is loaded for it */
  assert_int_equal(tm__lua_states(lua), 2);
  tm__bundle_unref(next);
}

static void test_nothing_is_prepared_where_all_is_in_use(void **state) {
  (void)state;
  uint64_t timer;
  tm_turn *a = waiting_in("a", &timer);
  tm_bundle *next = fake_bundle("v2", "");
  prepared p = {.wait.ready = on_prepared};
  beside_waits = true;
  tm__lua_prepare(lua, next, &p.wait);
  assert_int_equal(p.told, 1);
  assert_null(beside);
  beside_waits = false;
  fire(timer);
  expect_end(a, "commit");
  assert_int_equal(count_in("a", next), 1);
  tm__bundle_unref(next);
  free_turn(a);
}

/* ---- memory ---- */

#define HOARD                                                                                      \
  "OWNER = OWNER or turn.tenant "                                                                  \
  "KEPT = KEPT or {} for i = 1, 20000 do KEPT[#KEPT + 1] = ('x'):rep(100) .. i end "               \
  "journal.commit(id, draft { n = #KEPT })"

/* Fills a state in which a turn waits, until the tenant gets another one. */
static tm_turn *fill(const char *tenant) {
  uint64_t timer;
  tm_turn *waiting = waiting_in(tenant, &timer);
  for (int i = 0; i < 100; i++) {
    tm_turn *t = run_of(tenant, bundle, BEGIN HOARD);
    expect_end(t, "commit");
    bool fresh = strstr(t->text.ptr, "{\"n\":20000}") != NULL && i > 0;
    free_turn(t);
    if (fresh) return waiting;
  }
  fail_msg("it never gets full");
  return NULL;
}

/* Whoever fills state after state pays with its own turns, and only with those. */
static void test_full_states_are_their_tenants(void **state) {
  (void)state;
  tm_turn *quiet = fill("b"), *greedy[3];
  for (int n = 0; n < 3; n++)
    greedy[n] = fill("a");
  assert_int_equal(tm__lua_states(lua), 2 + 4);
  for (uint64_t i = 0; i < timer_count && i < 64; i++) /* their rest, for the limit they met */
    if (timers[i].ms != 1 && timers[i].ms != LOOK_MS && timers[i].cancelled == 0) fire(i);
  expect_end(greedy[0], "fail");
  assert_string_equal(greedy[0]->error.code, "script.memory");
  assert_string_equal(quiet->end, "");
  for (int n = 0; n < 3; n++) {
    if (greedy[n]->end[0] == '\0') executor.cancel(executor.ud, greedy[n]);
    free_turn(greedy[n]);
  }
  executor.cancel(executor.ud, quiet);
  free_turn(quiet);
}

static void test_a_broken_one_disturbs_nobody(void **state) {
  (void)state;
  uint64_t timer;
  assert_int_equal(count_of("b"), 1);
  tm_turn *b = waiting_in("b", &timer);
  static const char *const bad[] = {
      BEGIN "local t = {} while true do t[#t + 1] = {} end",
      BEGIN "while true do end",
      BEGIN "error 'broken'",
  };
  for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
    tm_turn *a = run_of("a", bundle, bad[i]);
    uint64_t rest = timer_count - 1;
    if (a->end[0] == '\0') fire(rest);
    expect_end(a, "fail");
    free_turn(a);
    assert_int_equal(count_of("b"), 3 + (int)i);
  }
  fire(timer);
  expect_state(b, "{\"n\":5}");
  free_turn(b);
}

#define CASE(f, states) cmocka_unit_test_setup_teardown(f, set_up_##states, tear_down)

int main(void) {
  const struct CMUnitTest tests[] = {
      CASE(test_shared_states_are_seen_by_all, shared),
      CASE(test_each_has_its_own, four),
      CASE(test_versions_have_their_own, two),
      CASE(test_many_tenants_few_states, four),
      CASE(test_the_least_used_one_goes, two),
      CASE(test_unused_ones_go, two),
      CASE(test_what_is_in_use_stays, two),
      CASE(test_nobody_keeps_a_place_for_ever, one),
      CASE(test_who_gives_up_is_forgotten, one),
      CASE(test_loading_takes_room, two),
      CASE(test_what_cannot_be_loaded_makes_room, one),
      CASE(test_the_journal_holds_a_state, one),
      CASE(test_end_while_others_wait, one),
      CASE(test_prepared_for_the_first, two),
      CASE(test_nothing_is_prepared_where_all_is_in_use, one),
      CASE(test_full_states_are_their_tenants, ten),
      CASE(test_a_broken_one_disturbs_nobody, two),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
