/* Nothing that a script does outlives its budget, and the state is usable afterwards. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/clock.h"
#include "tests/bind/fixture.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SPENT_MOST_US = 8000000 };
#else
enum { SPENT_MOST_US = 2000000 };
#endif

static tm_vm *vm;
static tm_buf out;

static int set_up(void **state) {
  (void)state;
  tm_vm_options o = fixture_options();
  return tm__vm_new(&vm, &o, NULL) == TM_OK ? 0 : -1;
}

static int tear_down(void **state) {
  (void)state;
  tm__vm_free(vm);
  tm__buf_free(&out);
  return 0;
}

static void expect_result(const char *code, const char *result) {
  tm_error err = {0};
  tm_status st = run_code(vm, code, &out, &err);
  if (st != TM_OK) print_message("%s\n-> %s\n", code, err.message);
  assert_int_equal(st, TM_OK);
  assert_string_equal(out.ptr, result);
}

/* Over a limit, in time, saying so; and the next entry works. */
static tm_error expect_limit(const char *code, const char *error_code) {
  tm_error err = {0};
  int64_t start = tm__clock_thread_cpu_us();
  tm_status st = run_code(vm, code, &out, &err);
  int64_t spent = tm__clock_thread_cpu_us() - start;
  if (st != TM_ELIMIT || strcmp(err.code, error_code) != 0 || spent >= SPENT_MOST_US)
    print_message("%s\n-> %s %s after %lld us\n", code, err.code, err.message, (long long)spent);
  assert_int_equal(st, TM_ELIMIT);
  assert_string_equal(err.code, error_code);
  assert_true(spent < SPENT_MOST_US);
  expect_result("return 1 + 1", "2");
  return err;
}

static void test_cpu(void **state) {
  (void)state;
  static const char *const endless[] = {
      "while true do end",
      "::a:: goto a",
      "local function f() return f() end f()",
      "for i = 1, math.huge do end",
      "while true do pcall(function() while true do end end) end",
      "while true do pcall(pcall, pcall, error) end",
      "while true do xpcall(error, function() while true do end end) end",
      "local function f() pcall(f) return f() end f()",
      "while true do pcall(string.rep, 'x', 1 << 30) end",
      "local co = coroutine.wrap(function() while true do end end) while true do pcall(co) end",
      "while true do local co = coroutine.create(function() while true do end end)"
      " coroutine.resume(co) end",
      "while true do coroutine.wrap(function() local x <close> = setmetatable({}, {__close ="
      " function() while true do end end}) end)() end",
      "local function f(n) for i = 1, 100 do local co = coroutine.create(f)"
      " coroutine.resume(co, n - 1) end end while true do f(90) end",
      "local function f() for i = 1, 100 do pcall(coroutine.wrap(f)) end end while true do f() end",
      "local cos = {} for i = 1, 3000 do cos[i] = coroutine.wrap(function() while true do for i = "
      "1,"
      " 200 do end coroutine.yield() end end) end while true do for i = 1, 3000 do cos[i]() end "
      "end",
      "local t = setmetatable({}, {__index = function(t, k) return t[k + 1] end})"
      " while true do pcall(function() return t[1] end) end",
      "local t = setmetatable({}, {__add = function() while true do end end}) return t + 1",
      "table.sort({1, 2, 3}, function() while true do end end)",
      "string.gsub('aaa', 'a', function() while true do end end)",
      "return tostring(setmetatable({}, {__tostring = function() while true do end end}))",
      "while true do pcall(error, setmetatable({}, {__tostring = error})) end",
      "while true do load('x = 1')() end",
      "while true do pcall(load, ('('):rep(100000)) end",
      "local t = {} while true do pcall(setmetatable, t, {__gc = print}) end",
      "error(setmetatable({}, {__index = function() while true do end end}), (function() while true"
      " do end end)())",
  };
  for (size_t i = 0; i < sizeof(endless) / sizeof(endless[0]); i++)
    (void)expect_limit(endless[i], "script.cpu");
}

static void test_cpu_says_where(void **state) {
  (void)state;
  tm_error err =
      expect_limit("local x = 1\nlocal function f()\n  while true do end\nend\nf()", "script.cpu");
  assert_non_null(strstr(err.message, "50 ms"));
  assert_non_null(strstr(err.message, "scripts/test/code.lua:3"));
  err = expect_limit("\n\nlocal co = coroutine.create(function()\n while true do end end)\n"
                     "while true do coroutine.resume(co) end",
                     "script.cpu");
  assert_non_null(strstr(err.message, "scripts/test/code.lua:4"));
}

static void test_budget_is_per_entry(void **state) {
  (void)state;
  expect_result("CO = coroutine.wrap(function() while true do for i = 1, 200000 do end"
                " coroutine.yield(1) end end) return CO()",
                "1");
  for (int i = 0; i < 40; i++)
    expect_result("return CO()", "1");
}

static void test_memory(void **state) {
  (void)state;
  static const char *const greedy[] = {
      "local t = {} for i = 1, 1e9 do t[i] = {} end",
      "local s = 'x' while true do s = s .. s end",
      "return ('x'):rep(1 << 30)",
      "return ('x'):rep(1 << 24, 'yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy')",
      "local t = {} while true do pcall(function() while true do t[#t + 1] = {} end end) end",
      "local t = {} while true do t[#t + 1] = coroutine.create(function() end) end",
      "local t = {} while true do t[#t + 1] = function() return t end end",
      "local t = {} for i = 1, 2e5 do t[i] = 'abcdefghij' end return table.concat(t, t[1])",
      "local function f() return 1 + f() end return f()",
      "local t = {} for i = 1, 1e8 do t['k' .. i] = true end",
      "coroutine.wrap(function() local t = {} for i = 1, 1e9 do t[i] = i end end)()",
      "local text = '{' .. ('{},'):rep(1e6) .. '}' return load('return ' .. text)()",
      "return require('host.json').decode('[' .. ('[],'):rep(200000) .. '1]')",
  };
  vm->o.limits.cpu_slice_ms = 10000;
  for (size_t i = 0; i < sizeof(greedy) / sizeof(greedy[0]); i++)
    (void)expect_limit(greedy[i], "script.memory");
}

static void test_memory_says_where(void **state) {
  (void)state;
  static const char *const greedy[][2] = {
      {"\nlocal t = {} while true do t[#t + 1] = {#t} end", "code.lua:2"},
      {"\n\nlocal s = 'x' while true do s = s .. s end", "code.lua:3"},
      {"local t = {} for i = 1, 1e5 do t[i] = 'abcdefghij' end\n"
       "local s = table.concat(t, t[1]) return s",
       "code.lua:2"},
      {"local function f()\nlocal t = {} while true do t[#t + 1] = {} end end\ncoroutine.wrap(f)()",
       "code.lua:2"},
      {"coroutine.wrap(function() end)() local t = {}\nwhile true do t[#t + 1] = {} end",
       "code.lua:2"},
      {"pcall(coroutine.wrap(error)) local t = {}\nwhile true do t[#t + 1] = {} end", "code.lua:2"},
  };
  vm->o.limits.cpu_slice_ms = 1500;
  for (size_t i = 0; i < sizeof(greedy) / sizeof(greedy[0]); i++) {
    tm_error err = expect_limit(greedy[i][0], "script.memory");
    if (strstr(err.message, greedy[i][1]) == NULL)
      print_message("%s: %s\n", greedy[i][0], err.message);
    assert_non_null(strstr(err.message, greedy[i][1]));
    assert_non_null(strstr(err.message, "4194304 bytes"));
    assert_non_null(strstr(err.message, "limits.step_memory"));
  }
}

static void test_state_memory(void **state) {
  (void)state;
  tm_error err = {0};
  const char *hoard =
      "KEPT = KEPT or {} for i = 1, 20000 do KEPT[#KEPT + 1] = {i} end return #KEPT";
  tm_status st = TM_OK;
  vm->o.limits.cpu_slice_ms = 1500;
  for (int i = 0; i < 100 && st == TM_OK; i++)
    st = run_code(vm, hoard, &out, &err);
  assert_int_equal(st, TM_ELIMIT);
  assert_string_equal(err.code, "script.memory");
  assert_non_null(strstr(err.message, "limits.memory"));
  tm_slice cleaning = TM_S("KEPT = nil");
  assert_int_equal(tm__vm_call(vm, "cancel", &cleaning, 1, NULL, &err), TM_OK);
  expect_result("local t = {} for i = 1, 20000 do t[i] = {i} end return #t", "20000");
}

/* The time that collecting many small things takes is not the script's. */
static void test_many_blocks(void **state) {
  (void)state;
  vm->o.limits.step_memory = vm->o.limits.memory;
  vm->o.limits.cpu_slice_ms = 5000;
  expect_result("KEPT = {} for i = 1, 150000 do KEPT[i] = {} end return #KEPT", "150000");
  assert_true(tm__vm_weight(vm) > vm->o.limits.memory);
  vm->o.limits.cpu_slice_ms = 50;
  tm_error err = expect_limit("while true do end", "script.cpu");
  assert_non_null(strstr(err.message, "kept back for collecting"));
  expect_result("KEPT = nil return 1", "1");
}

/* Each short text is counted as long as it lives, by its digest: those of a loop lie evenly. */
static void test_short_texts_are_counted(void **state) {
  (void)state;
  vm->o.limits.cpu_slice_ms = 5000;
  expect_result("return 'warm'", "warm");
  tm__vm_collect(vm);
  uint64_t before = vm->crowd.texts;
  expect_result("KEPT = {} for i = 1, 10000 do KEPT[i] = 'a' .. i end return #KEPT", "10000");
  tm__vm_collect(vm);
  assert_in_range(vm->crowd.texts, before + 10000, before + 10100);
  uint64_t texts = 0, squares = 0;
  for (size_t i = 0; i < TM_CROWD_PLACES; i++) {
    texts += vm->crowd.at[i];
    squares += (uint64_t)vm->crowd.at[i] * vm->crowd.at[i];
    assert_in_range(vm->crowd.at[i], 0, 20);
  }
  assert_int_equal(texts, vm->crowd.texts);
  assert_int_equal(squares, vm->crowd.squares);
  expect_result("KEPT = nil return 'none'", "none");
  tm__vm_collect(vm);
  assert_in_range(vm->crowd.texts, before, before + 100);
}

/* The lines of a function can be chosen so that their block looks like a text. */
static void test_only_texts_are_counted(void **state) {
  (void)state;
  unsigned char lines[50] = {[TM_CROWD_KIND_AT] = LUA_TSTRING, [TM_CROWD_LENGTH_AT] = 25};
  uint32_t place = 0;
  while (vm->crowd.at[place] == 0)
    place++;
  memcpy(lines + TM_CROWD_DIGEST_AT, &place, sizeof(place));
  uint64_t texts = vm->crowd.texts;
  tm__crowd_gone(&vm->crowd, lines, sizeof(lines));
  assert_int_equal(vm->crowd.texts, texts);
  place = tm__crowd_make_digest(vm->crowd.seed, lines + TM_CROWD_TEXT_AT, 25);
  vm->crowd.at[place % TM_CROWD_PLACES] += 1;
  memcpy(lines + TM_CROWD_DIGEST_AT, &place, sizeof(place));
  tm__crowd_gone(&vm->crowd, lines, sizeof(lines)); /* nobody can tell it from one */
  assert_int_equal(vm->crowd.texts, texts - 1);
}

/* What a step has let go never counts, however the texts were made. */
/* One text after another is as long as may be; none is refused for one that nothing refers to. */
static void test_long_texts_one_at_a_time(void **state) {
  (void)state;
  vm->o.limits.step_memory = 15 << 20;
  vm->o.limits.memory = 64 << 20;
  for (int n = 0; n < 3; n++)
    expect_result("return #('x'):rep(1 << 16):rep(64)", "4194304");
  tm_error err =
      expect_limit("local s = ('x'):rep(1 << 16)\nreturn s:rep(64) .. s:rep(65)", "script.cpu");
  assert_non_null(strstr(err.message, "3571428 bytes"));
  assert_non_null(strstr(err.message, "code.lua:2"));
}

static void *no_second_map(void *ud, void *p, size_t old_size, size_t new_size) {
  const bool *scarce = ud;
  if (new_size == 0) {
    free(p);
    return NULL;
  }
  bool second = p == NULL && old_size == 0 && new_size == 32 * sizeof(tm_idslot);
  return *scarce && second ? NULL : realloc(p, new_size);
}

/* No text is made that could not be counted, for it would be thought to live for ever. */
static void test_every_long_text_is_counted(void **state) {
  (void)state;
  bool scarce = false;
  tm_error err = {0};
  tm_vm_options o = fixture_options();
  o.alloc = no_second_map;
  o.alloc_ud = &scarce;
  tm__vm_free(vm);
  assert_int_equal(tm__vm_new(&vm, &o, NULL), TM_OK);
  expect_result("return 'warm'", "warm");
  tm__vm_collect(vm);
  size_t before = vm->texts_of[0];
  scarce = true;
  const char *many = "local t = {} for i = 1, 20 do t[i] = ('x'):rep(3000) .. i end return #t";
  assert_int_equal(run_code(vm, many, &out, &err), TM_ENOMEM);
  scarce = false;
  expect_result(many, "20");
  tm__vm_collect(vm);
  assert_int_equal(vm->texts_of[0], before);
}

static void test_garbage_is_no_reason(void **state) {
  (void)state;
  static const char *const makers[] = {
      "s:upper()",
      "s:rep(2)",
      "('%s'):format(s)",
      "s:gsub('^a', 'b')",
      "table.concat({ s, 'a' })",
      "string.char(s:byte(1, 1000)):rep(1100)",
      "s .. 'a'",
  };
  char code[200];
  vm->o.limits.cpu_slice_ms = 5000;
  for (size_t i = 0; i < sizeof(makers) / sizeof(makers[0]); i++) {
    (void)snprintf(code, sizeof(code),
                   "local s = ('a'):rep(1 << 20) for i = 1, 30 do local _ = %s end return 'ok'",
                   makers[i]);
    expect_result(code, "ok");
  }
}

static void expect_error(const char *code, const char *text) {
  tm_error err = {0};
  tm_status st = run_code(vm, code, &out, &err);
  if (st != TM_ESCRIPT || strstr(err.message, text) == NULL)
    print_message("%s\n-> %d %s: %s\n", code, st, err.code, err.message);
  assert_int_equal(st, TM_ESCRIPT);
  assert_non_null(strstr(err.message, text));
  expect_result("return 1 + 1", "2");
}

static void test_errors(void **state) {
  (void)state;
  expect_error("error('boom')", "scripts/test/code.lua:1: boom");
  expect_error("error('boom')", "stack traceback");
  expect_error("error()", "a nil instead of an error");
  expect_error("error(true)", "a boolean instead of an error");
  expect_error("error(print)", "a nil instead");
  expect_error("error({})", "an error without a message");
  expect_error("error(42)", "a number instead of an error");
  expect_error("error(setmetatable({}, {__index = error, __tostring = error}))",
               "without a message");
  expect_error("local function f() string.gsub('a', 'a', f) end f()", "overflow");
  expect_error(
      "local function f() local ok, e = coroutine.resume(coroutine.create(f)) error(e, 0) end f()",
      "overflow");
  expect_error("local t = setmetatable({}, {}) getmetatable(t).__index = t return t.x", "loop");
  expect_error("coroutine.yield()", "outside a coroutine");
  expect_error("coroutine.wrap(function() table.sort({1, 2}, coroutine.yield) end)()",
               "yield across");
  expect_error("syntax error", "syntax error");
}

static void test_error_tables(void **state) {
  (void)state;
  tm_error err = {0};
  tm_status st = run_code(vm,
                          "error { code = 'a.b', message = 'what, where', status = 'conflict',"
                          " step_id = 's1' }",
                          &out, &err);
  assert_int_equal(st, TM_ECONFLICT);
  assert_int_equal(err.status, TM_ECONFLICT);
  assert_string_equal(err.code, "a.b");
  assert_string_equal(err.message, "what, where");
  assert_string_equal(err.step_id, "s1");
  st = run_code(vm, "error { status = 'ok', message = 'no' }", &out, &err);
  assert_int_equal(st, TM_ESCRIPT);
}

static void test_coroutines_still_work(void **state) {
  (void)state;
  expect_result("local co = coroutine.wrap(function(a) local ok, b = pcall(function() local c ="
                " coroutine.yield(a + 1) error(c, 0) end) return b end) return co(1) .. co('x')",
                "2x");
  expect_result("local co = coroutine.create(function(...) return ... end)"
                " local r = table.pack(coroutine.resume(co, 1, nil, 3)) return r.n .. r[4]",
                "43");
  expect_result(
      "local co = coroutine.create(error) local ok, e = coroutine.resume(co, 'e')"
      " return tostring(ok) .. e .. coroutine.status(co) .. tostring(coroutine.close(co))",
      "falseedeadfalse");
  expect_result("return select('#', pcall(function() return 1, 2, nil end))", "4");
  expect_result("return xpcall(error, function(e) return e end, 'x') and 1 or"
                " select(2, xpcall(error, function(e) return e .. '!' end, 'x'))",
                "x!");
  expect_result("return pcall(coroutine.resume, 1) and 1 or 2", "2");
}

/* The sizes of three texts that lua_resume returns, as Lua allocates them. */
static void *without_messages(void *ud, void *p, size_t old_size, size_t size) {
  (void)ud;
  (void)old_size;
  if (p == NULL && (size == 24 + 17 || size == 24 + 29 || size == 24 + 38)) return NULL;
  if (size != 0) return realloc(p, size);
  free(p);
  return NULL;
}

/* Where Lua has no memory to say so, it does not leave the coroutines that wait for an answer. */
static void test_resume_fails_without_memory(void **state) {
  (void)state;
  vm->o.limits.cpu_slice_ms = 10000;
  vm->o.alloc = without_messages;
  expect_result("local co = coroutine.create(function() end) coroutine.resume(co)"
                " return select(2, coroutine.resume(co))",
                "cannot resume dead coroutine");
  expect_result("local co co = coroutine.create(function() return select(2, coroutine.resume(co))"
                " end) return select(2, coroutine.resume(co))",
                "cannot resume non-suspended coroutine");
  expect_result("local function f() return select(2, coroutine.resume(coroutine.create(f))) end"
                " return f()",
                "C stack overflow");
}

static void test_what_is_missing(void **state) {
  (void)state;
  expect_result("local t = {} for _, n in ipairs { 'io', 'os', 'package', 'dofile', 'loadfile',"
                " 'print', 'warn' } do t[#t + 1] = _G[n] and n end return #t",
                "0");
  expect_result("return collectgarbage('count') > 10 and not pcall(collectgarbage) and not"
                " pcall(collectgarbage, 'stop')",
                "true");
  expect_result("return string.dump == nil and ('').dump == nil", "true");
  expect_result("local n = 0 for k in pairs(debug) do n = n + 1 end return n .. ' ' .."
                " type(debug.traceback)",
                "1 function");
  expect_result("return load('\\27Lua') == nil and load('\\27Lua', 'x', 'b') == nil", "true");
  expect_result("return pcall(require, 'io') or pcall(require, 'nothing') or pcall(require, 'x.y')",
                "false");
  expect_result("return pcall(setmetatable, {}, { __gc = 1 })", "false");
  expect_result("return getmetatable(setmetatable({}, { __mode = 'k' })).__mode", "k");
  expect_result("return require('debug') == debug and require('string') == string", "true");
}

/* For the runtime the collector knows __mode; what a script sets under that name is nothing. */
static void test_weak_tables_are_the_runtimes(void **state) {
  (void)state;
  const char *const count = " for i = 1, 200 do t[i] = {} end for i = 1, 1e5 do local _ = {} end"
                            " local n = 0 for _ in pairs(t) do n = n + 1 end return n == 200";
  char code[400];
  vm->o.limits.cpu_slice_ms = 10000;
  (void)snprintf(code, sizeof(code), "local t = setmetatable({}, { __mode = 'v' })%s", count);
  expect_result(code, "false");
  (void)snprintf(code, sizeof(code), "local m = {} local t = setmetatable({}, m) m.__mode = 'v'%s",
                 count);
  expect_result(code, "true");
}

/* What takes time by the depth of a stack, squared, finds no deep one. */
static void test_stacks_are_cut_short(void **state) {
  (void)state;
  static const char *const deep[] = {
      "local t = {} setmetatable(t, t) t.__call = t t()",
      "local function f() pcall(f) f() end f()",
      "local function f() return 1 + f() end f()",
      "local function f(...) return f(1, ...) + 1 end f()",
  };
  vm->o.limits.cpu_slice_ms = 1500;
  for (size_t i = 0; i < sizeof(deep) / sizeof(deep[0]); i++) {
    int64_t start = tm__clock_thread_cpu_us();
    tm_error err = expect_limit(deep[i], "script.memory");
    assert_non_null(strstr(err.message, "nested too deep"));
    assert_non_null(strstr(err.message, "code.lua:1"));
    assert_true(tm__clock_thread_cpu_us() - start < 500000);
  }
  expect_result("local function f(n) return n == 0 and 0 or 1 + f(n - 1) end return f(1000)",
                "1000");
}

static void test_load_has_an_environment(void **state) {
  (void)state;
  expect_result("return load('return x', 'n', 'b', { x = 5 })()", "5");
  expect_result("return pcall(load('return x.y', 'n', 't', nil))", "false");
  expect_result("X = 7 return load('return X')()", "7");
  expect_result("local f, e = load('return +', '@scripts/a.lua') return e:match('^(.-:%d+)')",
                "scripts/a.lua:1");
}

static tm_status read_nothing(void *ud, tm_slice path, tm_buf *text, tm_error *err) {
  (void)ud;
  (void)text;
  return tm__fail(err, TM_ENOTFOUND, "file.not_found", "no file %.*s", (int)path.len, path.ptr);
}

static void test_endless_boot(void **state) {
  (void)state;
  tm_vm *other;
  tm_error err = {0};
  tm_vm_options o = fixture_options();
  o.limits.memory = 20000;
  assert_int_equal(tm__vm_new(&other, &o, &err), TM_ELIMIT);
  assert_null(other);
  assert_string_equal(err.code, "script.memory");
  o = fixture_options();
  o.read_file = read_nothing;
  assert_int_equal(tm__vm_new(&other, &o, &err), TM_ESCRIPT);
  assert_null(other);
}

static void test_two_states_share_nothing(void **state) {
  (void)state;
  tm_vm *other;
  tm_vm_options o = fixture_options();
  assert_int_equal(tm__vm_new(&other, &o, NULL), TM_OK);
  expect_result("MINE = 1 string.mine = 1 return 'x'", "x");
  assert_int_equal(run_code(other, "return MINE or string.mine", &out, NULL), TM_OK);
  assert_string_equal(out.ptr, "nil");
  tm__vm_free(other);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_cpu, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_cpu_says_where, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_budget_is_per_entry, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_memory, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_memory_says_where, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_state_memory, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_many_blocks, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_short_texts_are_counted, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_only_texts_are_counted, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_long_texts_one_at_a_time, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_every_long_text_is_counted, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_garbage_is_no_reason, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_errors, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_error_tables, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_coroutines_still_work, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_resume_fails_without_memory, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_what_is_missing, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_weak_tables_are_the_runtimes, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_stacks_are_cut_short, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_load_has_an_environment, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_endless_boot, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_two_states_share_nothing, set_up, tear_down),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
