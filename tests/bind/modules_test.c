/* The modules without operations, and the sweep: a state is made and used while every allocation
 * fails once, in turn.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/json.h"
#include "tests/bind/fixture.h"

static char lines[4096];

static void keep_line(void *ud, const char *line, size_t size) {
  (void)ud;
  size_t n = strlen(lines);
  (void)snprintf(lines + n, sizeof(lines) - n, "%.*s\n", (int)size, line);
}

static int64_t fixed_time(void *ud) {
  (void)ud;
  return INT64_C(1763800000123);
}

static tm_log sink = {.sink = keep_line, .level = TM_LOG_INFO, .clock = {.now = fixed_time}};

static tm_vm_options options(void) {
  tm_vm_options o = fixture_options();
  o.clock.now = fixed_time;
  o.log = &sink;
  return o;
}

static void expect(const char *code, const char *result) {
  tm_vm *vm;
  tm_buf out = {0};
  tm_error err = {0};
  tm_vm_options o = options();
  lines[0] = '\0';
  assert_int_equal(tm__vm_new(&vm, &o, NULL), TM_OK);
  tm_status st = run_code(vm, code, &out, &err);
  if (st != TM_OK) print_message("%s\n-> %s\n", code, err.message);
  assert_int_equal(st, TM_OK);
  assert_string_equal(out.ptr, result);
  tm__buf_free(&out);
  tm__vm_free(vm);
}

static void test_clock_uuid_crypto(void **state) {
  (void)state;
  expect("return require 'host.clock'.now()", "1763800000123");
  expect("local m = require 'host.clock'.monotonic return math.type(m()) .. tostring(m() <= m())",
         "integertrue");
  expect("local u = require 'host.uuid'.new return (u():gsub('%x', 'x'))",
         "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx");
  expect("local u = require 'host.uuid'.new return tostring(u() ~= u()) .. u():sub(1, 13)",
         "true019aaaac-267b");
  expect(
      "local d = require 'host.crypto'.digest return tostring(d('a', 32) == d('a', 64):sub(1, 32))"
      " .. tostring(d('a', 8) ~= d('b', 8)) .. #d('', 64) .. #d('', 1)",
      "truetrue641");
  expect("local d = require 'host.crypto'.digest return pcall(d, 'a', 0) or pcall(d, 'a', 65) or"
         " pcall(d, 'a') or pcall(d, {}, 1)",
         "false");
}

static void test_config_and_file(void **state) {
  (void)state;
  expect("local get = require 'host.config'.get get().max_retries = 9 return get().max_retries",
         "2");
  expect("local t, chunk = require 'host.file'.read 'task.lua' return #t > 100 and chunk",
         "@tests/bind/lua/task.lua");
  expect("local t, e = require 'host.file'.read '../x' return e.code .. e.status",
         "file.nameinvalid");
}

static void test_nothing_takes_time_here(void **state) {
  (void)state;
  expect("local op, e = require 'host.timer'.start(5) return tostring(op) .. e.code",
         "nilop.outside_turn");
  expect("local op, e = require 'host.http'.request { method = 'G', url = 'u', timeout_ms = 1,"
         " max_bytes = 1 } return tostring(op) .. e.code",
         "nilop.outside_turn");
  expect("local j = require 'host.journal' local t = {} for _, f in ipairs { 'begin', 'commit',"
         " 'suspend', 'undone', 'fail' } do t[#t + 1] = select(2, j[f](1, {})).code end return"
         " table.concat(t, ' ') .. select(2, j.call(1, 'k', 1)).code ..  select(2, j.rollback(1, "
         "1)).code .. select(2, j.trail(1, { 'a' })).code",
         "journal.gone journal.gone journal.gone journal.gone journal.gonejournal.gonejournal.gone"
         "journal.gone");
}

static void test_log(void **state) {
  (void)state;
  expect("local w = require 'host.log'.write w('warning', 'what happened', { b = 2, a = 'x y',"
         " c = true }) w('debug', 'unseen') w('error', 'plain') return 1",
         "1");
  assert_non_null(strstr(lines, "what happened"));
  assert_non_null(strstr(lines, "a=\"x y\" b=2 c=true\n"));
  assert_non_null(strstr(lines, "plain\n"));
  assert_null(strstr(lines, "unseen"));
  expect("local w = require 'host.log'.write local n = 0 for _, f in ipairs { 5, { 1 }, { a = {} },"
         " { a = 1, b = 1, c = 1, d = 1, e = 1, f = 1, g = 1, h = 1, i = 1 } } do"
         " n = n + (pcall(w, 'info', 'm', f) and 1 or 0) end"
         " return n + (pcall(w, 'loud', 'm') and 1 or 0) + (pcall(w, 'info') and 1 or 0)",
         "0");
  expect("require 'host.log'.write('info', ('x'):rep(5000), { a = ('y'):rep(5000), b = 1, c = 1,"
         " d = 1, e = 1, f = 1, g = 1, h = 1 }) return 1",
         "1");
  assert_in_range(strlen(lines), 1024, 1500);
}

static void test_text(void **state) {
  (void)state;
  expect("local t = require 'host.text' local ok, e = t.match(('a'):rep(99), 'a*a*a*a*a*a*b')"
         " return tostring(ok) .. e.code .. e.status",
         "niltext.too_hardlimit");
  expect("local t = require 'host.text' return select(2, t.match('a', '[')).code", "text.pattern");
  expect("local t = require 'host.text' return tostring(t.match('é', '^.$')) .."
         " tostring(t.match('abc', 'b'))",
         "falsetrue");
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

static const char everything[] =
    "local json, text = require 'host.json', require 'host.text' "
    "local v = assert(json.decode '{\"a\":[1,2.5,{\"b\":null}],\"c\":\"text\"}') "
    "v.more = { json.raw '1', json.array() } "
    "assert(json.encode(v) == '{\"a\":[1,2.5,{\"b\":null}],\"c\":\"text\",\"more\":[1,[]]}') "
    "local none, err = json.encode { x = print or error } assert(tostring(err):find 'value.x') "
    "assert(text.lower 'ÄB' == 'äb' and text.trim ' x ' == 'x' and text.sub('abc', 2, 2) == 'b') "
    "assert(text.match('abc', '^%a+$') and text.distance('a', 'b') == 1) "
    "assert(#require 'host.uuid'.new() == 36 and #require 'host.crypto'.digest('', 9) == 9) "
    "assert(require 'host.config'.get().max_retries == 2 and require 'host.clock'.now() > 0) "
    "require 'host.log'.write('info', 'm', { a = 1 }) assert(require 'host.file'.read 'task.lua') "
    "assert(coroutine.wrap(function() return pcall(error, 'x') == false end)()) "
    "return 'all'";

static void test_out_of_memory(void **state) {
  (void)state;
  long n = 0;
  for (tm_status st = TM_ENOMEM; st != TM_OK; n++) {
    memory m = {.left = n};
    tm_vm *vm;
    tm_buf out = {0};
    tm_error err = {0};
    tm_vm_options o = options();
    o.alloc = scarce;
    o.alloc_ud = &m;
    lines[0] = '\0';
    st = tm__vm_new(&vm, &o, &err);
    if (st == TM_OK) st = run_code(vm, everything, &out, &err);
    if (st == TM_OK) assert_string_equal(out.ptr, "all");
    bool said = st == TM_OK || st == TM_ENOMEM || strstr(err.message, "memory") != NULL;
    if (!said) print_message("after %ld: %s\n", n, err.message);
    assert_true(said);
    tm__vm_free(vm);
    tm__buf_free(&out);
    assert_int_equal(m.blocks, 0);
  }
  assert_in_range(n, 200, 100000);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_clock_uuid_crypto),
      cmocka_unit_test(test_config_and_file),
      cmocka_unit_test(test_nothing_takes_time_here),
      cmocka_unit_test(test_log),
      cmocka_unit_test(test_text),
      cmocka_unit_test(test_out_of_memory),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
