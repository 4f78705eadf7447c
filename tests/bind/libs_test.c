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

/* Ends near its slice of 50 ms; the bound is so far off because sanitizers make C ten times slower
 * and a look happens between passes over texts, but each of these would take minutes at least. */
static void expect_cpu_limit(const char *code) {
  tm_error err = {0};
  int64_t start = tm__clock_thread_cpu_us();
  tm_status st = run_code(vm, code, &out, &err);
  int64_t spent = tm__clock_thread_cpu_us() - start;
  if (st != TM_ELIMIT || strcmp(err.code, "script.cpu") != 0 || spent > 1000000)
    print_message("%s\n-> %s %s after %lld us\n", code, err.code, err.message, (long long)spent);
  assert_int_equal(st, TM_ELIMIT);
  assert_string_equal(err.code, "script.cpu");
  assert_in_range(spent, 50000, 1000000);
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

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_patterns, set_up, tear_down),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
