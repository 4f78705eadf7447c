/* The bounded matcher against string.find on many patterns, its bound, and letters. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <lauxlib.h>
#include <lualib.h>
#include <string.h>

#include "bind/text.h"
#include "core/clock.h"
#include "core/utf8.h"

static lua_State *L;

static int set_up(void **state) {
  (void)state;
  L = luaL_newstate();
  if (L == NULL) return -1;
  luaL_openlibs(L);
  return 0;
}

static int tear_down(void **state) {
  (void)state;
  lua_close(L);
  return 0;
}

/* 1: found, 0: not, -1: malformed. */
static int find(tm_slice s, tm_slice pattern) {
  lua_getglobal(L, "string");
  lua_getfield(L, -1, "find");
  lua_pushlstring(L, s.ptr, s.len);
  lua_pushlstring(L, pattern.ptr, pattern.len);
  int result = lua_pcall(L, 2, 1, 0) != LUA_OK ? -1 : !lua_isnil(L, -1);
  lua_settop(L, 0);
  return result;
}

static int match(tm_slice s, tm_slice pattern) {
  bool found;
  tm_error err = {0};
  tm_status st = tm__text_match(s, pattern, &found, &err);
  if (st == TM_ELIMIT) return 2;
  if (st != TM_OK) assert_string_equal(err.code, "text.pattern");
  return st != TM_OK ? -1 : found;
}

static void expect_same(tm_slice s, tm_slice pattern) {
  int a = find(s, pattern), b = match(s, pattern);
  if (a != b)
    print_message("'%.*s' in '%.*s': %d, string.find: %d\n", (int)pattern.len, pattern.ptr,
                  (int)s.len, s.ptr, b, a);
  assert_int_equal(a, b);
}

static const char *const patterns[] = {
    "",
    "a",
    "^a",
    "a$",
    "^$",
    "^a*$",
    "^%u%d+$",
    "%a+",
    "%s",
    "[abc]",
    "[^abc]",
    "[a-c]+",
    "[]]",
    "[^]]",
    "[a-]",
    "[%a_][%w_]*",
    "a.c",
    "a*b",
    "a-b",
    "a+b",
    "a?b",
    "(a)(b)%2",
    "(a*)%1",
    "()a()",
    "%b()",
    "%b",
    "%bxy",
    "%f[%w]%w+",
    "%f",
    "%f[%W]",
    "[",
    "[a",
    "[%",
    "%",
    "a%",
    "(",
    ")",
    "(a",
    "a)",
    "(()())",
    "%1",
    "(a)%2",
    "%0",
    "x*",
    ".-",
    ".*",
    "^.-$",
    "%.",
    "%%",
    "%$",
    "$",
    "$a",
    "^^",
    "a^",
    "[a-z]+@[a-z]+%.[a-z]+",
    "^(%d%d%d%d)-(%d%d)-(%d%d)$",
    "%x%x",
    "%g+",
    "%p",
    "%c",
    "%l%u",
    "%L%U",
    "[%]]",
    "[%d-x]",
    "[z-a]",
    "[^%s]+$",
    "(.)%1",
    "((a)b)%1",
    "%z",
    "[[]",
    "a**",
    "^*",
    "*",
    "%a?%d-$",
    "(()",
    "%b((",
    "[a",
    "[]",
    "[^",
    "[a-",
    "^[%w._]+$",
    "\0",
    "[\0]",
    "a\xff",
    "[\x80-\xff]+",
};
static const char *const subjects[] = {
    "",        "a",    "b",        "ab",    "abc", "aab", "A123", "123",        "hello world",
    "(a(b)c)", "x_1",  "a.c",      "%",     "$",   "]",   "-",    "2026-11-22", "me@host.org",
    "aXbY",    "abab", "\xc3\xa9", " \t\n", "^a",  "a-",  "()",   "xx(yy",
};

static void test_known_patterns(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof(patterns) / sizeof(patterns[0]); i++)
    for (size_t j = 0; j < sizeof(subjects) / sizeof(subjects[0]); j++)
      expect_same(tm__slice(subjects[j]), tm__slice(patterns[i]));
  expect_same((tm_slice){"a\0b", 3}, (tm_slice){"a\0b", 3});
  expect_same((tm_slice){"a\0b", 3}, (tm_slice){"%z", 2});
  expect_same((tm_slice){"a\0b", 3}, (tm_slice){"[\0]b", 4});
  expect_same((tm_slice){"a\0b", 3}, (tm_slice){"%f[\0]", 5});
}

static uint32_t seed = 1;
static uint32_t pick(uint32_t n) {
  seed = seed * 1664525 + 1013904223;
  return (seed >> 8) % n;
}

static size_t random_text(char *out, size_t max, const char *letters, size_t count) {
  size_t n = pick((uint32_t)max + 1);
  for (size_t i = 0; i < n; i++)
    out[i] = letters[pick((uint32_t)count)];
  return n;
}

static void test_random_patterns(void **state) {
  (void)state;
  static const char in_pattern[] = "aab%%.*+-?[]()^$1dwsbf";
  for (int i = 0; i < 40000; i++) {
    char s[12], p[10];
    tm_slice subject = {s, random_text(s, sizeof(s), "aab1 ()", 7)};
    tm_slice pattern = {p, random_text(p, sizeof(p), in_pattern, sizeof(in_pattern) - 1)};
    expect_same(subject, pattern);
  }
}

static void test_bound(void **state) {
  (void)state;
  char s[4096];
  memset(s, 'a', sizeof(s));
  int64_t start = tm__clock_thread_cpu_us();
  assert_int_equal(match((tm_slice){s, 40}, TM_S("a*a*a*a*a*a*a*a*b")), 2);
  assert_int_equal(match((tm_slice){s, sizeof(s)}, TM_S(".-.-.-x")), 2);
  assert_int_equal(match((tm_slice){s, sizeof(s)}, TM_S("(a*)%1%1%1x")), 2);
  assert_int_equal(match((tm_slice){s, sizeof(s)}, TM_S("%b()%b()x")), 0);
  char deep[600];
  memset(deep, '?', sizeof(deep));
  for (size_t i = 0; i < sizeof(deep); i += 2)
    deep[i] = 'a';
  assert_int_equal(match((tm_slice){s, sizeof(s)}, (tm_slice){deep, sizeof(deep)}), 2);
  assert_true(tm__clock_thread_cpu_us() - start < 1000000);
  assert_int_equal(match((tm_slice){s, sizeof(s)}, TM_S("^a+$")), 1); /* long is not hard */
}

/* Every letter's small form is one that has no smaller one, and the table is in order. */
static void test_lower(void **state) {
  (void)state;
  static const uint32_t pairs[][2] = {
      {'A', 'a'},     {'z', 'z'},       {0xC4, 0xE4},     {0xD7, 0xD7},
      {0x130, 'i'},   {0x178, 0xFF},    {0x17D, 0x17E},   {0x391, 0x3B1},
      {0x3A3, 0x3C3}, {0x410, 0x430},   {0x401, 0x451},   {0x531, 0x561},
      {0x1E9E, 0xDF}, {0x1F08, 0x1F00}, {0x4E00, 0x4E00}, {0x10FFFF, 0x10FFFF}};
  for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++)
    assert_int_equal(tm__text_lower(pairs[i][0]), pairs[i][1]);
  size_t changed = 0;
  for (uint32_t c = 0; c < 0x3000; c++) {
    uint32_t small = tm__text_lower(c);
    changed += small != c;
    assert_int_equal(tm__text_lower(small), small);
  }
  assert_in_range(changed, 500, 1000);
}

static void test_next(void **state) {
  (void)state;
  for (uint32_t c = 1; c < 0x110000; c += c < 0x3000 ? 1 : 97) {
    if (c >= 0xD800 && c < 0xE000) continue;
    char bytes[4];
    size_t at = 0, n = tm__utf8_encode(bytes, c);
    assert_int_equal(tm__text_next((tm_slice){bytes, n}, &at), c);
    assert_int_equal(at, n);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_known_patterns), cmocka_unit_test(test_random_patterns),
      cmocka_unit_test(test_bound),          cmocka_unit_test(test_lower),
      cmocka_unit_test(test_next),
  };
  return cmocka_run_group_tests(tests, set_up, tear_down);
}
