/* The libraries end with the entry's CPU time, however long one call of them would take. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/clock.h"
#include "tests/bind/fixture.h"

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

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define MOST_US 1000000
#else
#define MOST_US 120000
#endif

/* Ends near its slice of 50 ms, of which long texts have up to half kept back: what is between two
 * looks takes a few milliseconds at most. */
static void expect_cpu_limit(const char *code) {
  tm_error err = {0};
  int64_t start = tm__clock_thread_cpu_us();
  tm_status st = run_code(vm, code, &out, &err);
  int64_t spent = tm__clock_thread_cpu_us() - start;
  if (st != TM_ELIMIT || strcmp(err.code, "script.cpu") != 0 || spent > MOST_US)
    print_message("%s\n-> %s %s after %lld us\n", code, err.code, err.message, (long long)spent);
  assert_int_equal(st, TM_ELIMIT);
  assert_string_equal(err.code, "script.cpu");
  assert_in_range(spent, 20000, MOST_US);
  assert_int_equal(run_code(vm, "return 1 + 1", &out, &err), TM_OK);
  assert_string_equal(out.ptr, "2");
}

static void test_patterns(void **state) {
  (void)state;
  static const char *const hostile[] = {
      "return (('a'):rep(40)):find(('a-'):rep(8) .. 'b')",
      "return (('a'):rep(40)):match(('a*'):rep(12) .. 'b')",
      "for _ in (('a'):rep(40)):gmatch(('a?'):rep(40) .. ('a-'):rep(8) .. 'b') do end",
      "return (('a'):rep(40)):gsub(('a-'):rep(8) .. 'b', '')",
      "return (('a'):rep(1 << 20)):find('.-b')",
      "return (('a'):rep(1 << 20)):find('(a*)%1%1b')",
      "return (('('):rep(1 << 20)):find('%b()')",
      "return (('a'):rep(1 << 20)):find('[' .. ('b'):rep(1 << 20) .. ']')",
      "while true do pcall(string.find, ('a'):rep(40), ('a-'):rep(8) .. 'b') end",
      "local s = ('a'):rep(1 << 20) while true do s:find('b', 1, true) end",
      "local s = ('a'):rep(1 << 20) while true do s:find(s .. 'b') end",
      "local s = ('a'):rep(1 << 20) while true do s:match('^.*$') end",
      "local s = ('a'):rep(1 << 18) while true do s:gsub('a', '%0') end",
      "local s = ('a'):rep(1 << 20) local f = s:gmatch('b*') while true do f() end",
      "return (('ab'):rep(1000)):gsub('a', function() while true do end end)",
      "return ('a'):gsub('a', setmetatable({}, {__index = function() while 1 do end end}))",
  };
  for (size_t i = 0; i < sizeof(hostile) / sizeof(hostile[0]); i++)
    expect_cpu_limit(hostile[i]);
}

/* Each of these instructions reads whole texts, and no function of a library is called. */
static void test_operators_on_large_texts(void **state) {
  (void)state;
  tm_vm_options o = fixture_options();
  o.limits.step_memory = 24 << 20;
  o.limits.memory = 64 << 20;
  tm__vm_free(vm);
  assert_int_equal(tm__vm_new(&vm, &o, NULL), TM_OK);
  static const char *const hostile[] = {
      "local s = ('a'):rep(3 << 20) local a, b = s .. 'x', s .. 'x' while true do local _ = a == b "
      "end",
      "local s = ('a'):rep(3 << 20) local a, b = s .. 'x', s .. 'y' while true do local _ = a < b "
      "end",
      "local s, t, i = ('a'):rep(1 << 20), {}, 0 while true do i = i + 1 local _ = t[s .. i] end",
      "local s = ('a'):rep(1 << 20) while true do local _ = s .. 'x' end",
      "local s = ('a'):rep(3 << 20) local a, b = s .. 'x', s .. 'x' "
      "local co = coroutine.wrap(function() while true do local _ = a == b end end) co()",
  };
  for (size_t i = 0; i < sizeof(hostile) / sizeof(hostile[0]); i++)
    expect_cpu_limit(hostile[i]);
}

static void test_string(void **state) {
  (void)state;
  static const char *const hostile[] = {
      "while true do ('x'):rep(1 << 20) end",
      "while true do (''):rep(1 << 60) end",
      "local s = ('a'):rep(1 << 20) while true do s:upper() end",
      "local s = ('a'):rep(1 << 20) while true do s:reverse() end",
      "local s = ('a'):rep(1 << 20) while true do s:sub(2) end",
      "local s = ('a'):rep(1 << 20) while true do ('%s'):format(s) end",
      "local s = ('\\1'):rep(1 << 18) while true do ('%q'):format(s) end",
      "local s = ('a'):rep(1999) while 1 do ('%.1g'):rep(1999):format(s:byte(1, -1)) end",
      "local s = ('a'):rep(1900) while true do string.char(s:byte(1, -1)) end",
      "while true do pcall(string.format, '%d', 'x') end",
  };
  for (size_t i = 0; i < sizeof(hostile) / sizeof(hostile[0]); i++)
    expect_cpu_limit(hostile[i]);
}

static void test_table(void **state) {
  (void)state;
  static const char *const hostile[] = {
      "table.move({}, 1, 1e8 // 1 | 0, 2)",
      "table.move(setmetatable({}, {__newindex = function() end}), 1, math.maxinteger - 1, 2)",
      "table.insert(setmetatable({}, {__len = function() return 1 << 50 end}), 1, 1)",
      "table.remove(setmetatable({}, {__len = function() return 1 << 50 end}), 1)",
      "table.sort(setmetatable({}, {__len = function() return (1 << 31) - 2 end}),"
      " function() return false end)",
      "table.sort(setmetatable({}, {__len = function() return (1 << 31) - 2 end}), rawequal)",
      "local t = setmetatable({}, {__index = function() return '' end})"
      " table.concat(t, '', 1, 1 << 50)",
      "local t = {} for i = 1, 1900 do t = setmetatable({}, {__index = t}) end"
      " while true do table.unpack(t, 1, 1900) end",
      "local t = {} for i = 1, 1900 do t[i] = i end while true do table.unpack(t) end",
      "local t = {} for i = 1, 10000 do t[i] = i end while true do table.insert(t, 1, 1)"
      " table.remove(t, 1) end",
      "local t = {} for i = 1, 1000 do t[i] = 'abc' end while true do table.concat(t) end",
      "local t = {} for i = 1, 50000 do t[i] = i % 7 end while true do pcall(table.sort, t, "
      "rawequal)"
      " end",
      "local s = ('a'):rep(1 << 18) local t = {} for i = 1, 5 do t[i] = s .. i end"
      " while true do table.sort(t) end",
      "while true do table.pack(table.unpack({}, 1, 200)) end",
  };
  for (size_t i = 0; i < sizeof(hostile) / sizeof(hostile[0]); i++)
    expect_cpu_limit(hostile[i]);
}

/* A comparator that answers while it looks at what is asked makes each pivot the worst one. */
static void test_sort_with_an_adversary(void **state) {
  (void)state;
  expect_cpu_limit(
      "local solid, n, candidate, values, t = 0, 100000, 0, {}, {}\n"
      "for i = 1, n do t[i] = i end\n"
      "table.sort(t, function(a, b)\n"
      "  if not values[a] and not values[b] then\n"
      "    solid = solid + 1\n"
      "    values[a == candidate and a or b] = solid\n"
      "  end\n"
      "  if not values[a] then candidate = a elseif not values[b] then candidate = b end\n"
      "  return (values[a] or n) < (values[b] or n)\n"
      "end)");
}

static void test_utf8(void **state) {
  (void)state;
  static const char *const hostile[] = {
      "local s = ('a'):rep(1 << 20) while true do utf8.len(s) end",
      "local s = ('a'):rep(1 << 20) while true do utf8.offset(s, 1 << 20) end",
      "local s = ('a'):rep(1 << 20) while true do utf8.offset(s, -(1 << 20)) end",
      "local s = 'a' .. ('\\x80'):rep(1 << 20) while true do utf8.offset(s, 0, #s) end",
      "local s = 'a' .. ('\\x80'):rep(1 << 20) local f = utf8.codes('') while true do f(s, 1) end",
      "local s = ('a'):rep(1 << 20) while true do for _ in utf8.codes(s) do end end",
      "local s = ('a'):rep(1900) while true do utf8.codepoint(s, 1, -1) end",
      "local s = ('a'):rep(1900) while true do utf8.char(s:byte(1, -1)) end",
  };
  for (size_t i = 0; i < sizeof(hostile) / sizeof(hostile[0]); i++)
    expect_cpu_limit(hostile[i]);
}

/* One instruction, and megabytes are read: looks that only count instructions come too late. */
static void test_numbers_in_long_texts(void **state) {
  (void)state;
  static const char *const hostile[] = {
      "local s = '0x' .. ('f'):rep(3 << 20) while true do local _ = -s end",
      "local s = '0x' .. ('f'):rep(3 << 20) while true do local _ = s + s end",
      "local s, tonumber = '0x' .. ('f'):rep(3 << 20), tonumber while true do tonumber(s) end",
      "local s, load = 'return ' .. ('1'):rep(1 << 20), load while true do load(s) end",
  };
  vm->o.limits.step_memory = 15 << 20;
  for (size_t i = 0; i < sizeof(hostile) / sizeof(hostile[0]); i++)
    expect_cpu_limit(hostile[i]);
}

static void expect_result(const char *code, const char *result) {
  tm_error err = {0};
  if (run_code(vm, code, &out, &err) != TM_OK) fail_msg("%s\n-> %s", code, err.message);
  assert_string_equal(out.ptr, result);
}

/* Texts have the same functions, and nothing is left of the originals. */
static void test_they_replace_the_originals(void **state) {
  (void)state;
  expect_result("return getmetatable('').__index == string and ('x').rep == string.rep", "true");
  expect_result("return (('%d,%s'):format(1, 'x'):gsub(',', ';'))", "1;x");
  expect_result("return string.pack == nil and string.dump == nil and ('').unpack == nil", "true");
  expect_result("return table.concat(table.move({3, 1, 2}, 1, 3, 1, {}), '-')", "3-1-2");
  expect_result("return '10' + 5 .. ' ' .. -'2' * '0x10' .. ' ' .. 7 // '2'", "15 -32 3");
  expect_result("return select(2, pcall(function() return {} + '1' end))",
                "scripts/test/code.lua:1: attempt to add a 'table' with a 'string'");
  expect_result("return tonumber('ff', 16) .. tostring(tonumber('x')) .. tonumber(' 1e1 ')",
                "255nil10.0");
  expect_result("return math.max(2, 7.5, -1) .. ' ' .. math.min(2, 7, -1) .. ' ' .. "
                "math.max('10', '9') .. ' ' .. select(2, pcall(math.max, '10', 5))",
                "7.5 -1 9 attempt to compare string with number");
  expect_result("return select(2, pcall(math.min))",
                "bad argument #1 to 'math.min' (value expected)");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_patterns, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_operators_on_large_texts, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_string, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_table, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_sort_with_an_adversary, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_utf8, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_numbers_in_long_texts, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_they_replace_the_originals, set_up, tear_down),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
