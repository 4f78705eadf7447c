/* The matcher by itself: what it finds, what it counts, and that it stops when told to. That it
 * does as Lua's is shown by tests/lua/pattern_spec.lua. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "bind/pattern.h"

typedef struct counter {
  size_t steps, calls, most, limit;
} counter;

static bool count(void *ud, size_t steps) {
  counter *c = ud;
  c->steps += steps;
  c->calls++;
  if (steps > c->most) c->most = steps;
  return c->limit == 0 || c->steps < c->limit;
}

static tm_pattern m;

static const char *find_from(tm_slice s, const char *pattern, const char **at, counter *c) {
  tm__pattern_init(&m, s, tm__slice(pattern), true);
  m.charge = count;
  m.ud = c;
  *at = s.ptr;
  const char *end = tm__pattern_next(&m, at, NULL);
  c->steps += m.steps;
  return end;
}

/* "2-5" for a match from the second byte to the fifth, the captures behind it, or the problem. */
static void expect_match(const char *s, const char *pattern, const char *expected) {
  counter c = {0};
  const char *at, *end = find_from(tm__slice(s), pattern, &at, &c);
  tm_buf got = {0};
  if (end != NULL)
    tm__buf_printf(&got, "%d-%d", (int)(at - s) + 1, (int)(end - s));
  else
    tm__buf_text(&got, m.failure != TM_PATTERN_FINE ? m.problem : "none");
  for (int i = 0; end != NULL && i < m.count; i++) {
    if (m.captures[i].len == TM_CAPTURE_POSITION)
      tm__buf_printf(&got, " @%d", (int)(m.captures[i].start - s) + 1);
    else
      tm__buf_printf(&got, " %.*s", (int)m.captures[i].len, m.captures[i].start);
  }
  assert_true(tm__buf_ok(&got));
  assert_string_equal(got.ptr, expected);
  tm__buf_free(&got);
}

static void test_matches(void **state) {
  (void)state;
  expect_match("hello world", "o%s(%w+)", "5-11 world");
  expect_match("key = value", "^(%w+)%s*=%s*(%w+)$", "1-11 key value");
  expect_match("abc", "()b()", "2-2 @2 @3");
  expect_match("THE (quick) fox", "%((%a+)%)", "5-11 quick");
  expect_match("THE (quick) fox", "%f[%a]%a+%f[%A]$", "13-15");
  expect_match("f(a(b)c)d", "%b()", "2-8");
  expect_match("abab", "(ab)%1", "1-4 ab");
  expect_match("aaa", "a-", "1-0");
  expect_match("aaa", "^b", "none");
  expect_match("x", "", "1-0");
  expect_match("a", "[a", "malformed pattern (missing ']')");
  expect_match("a", "a%", "malformed pattern (ends with '%')");
  expect_match("a", "%b(", "malformed pattern (missing arguments to '%b')");
  expect_match("a", "%f", "missing '[' after '%f' in pattern");
  expect_match("a", "a)", "invalid pattern capture");
  expect_match("a", "(a)%2", "invalid capture index %2");
}

static void test_next_goes_on(void **state) {
  (void)state;
  tm_slice s = TM_S("ab12cd");
  tm__pattern_init(&m, s, TM_S("%a*"), false);
  const char *at = s.ptr, *end = tm__pattern_next(&m, &at, NULL);
  assert_ptr_equal(end, s.ptr + 2);
  at = end;
  end = tm__pattern_next(&m, &at, end); /* not the empty match right behind it */
  assert_ptr_equal(at, s.ptr + 3);
  assert_ptr_equal(end, s.ptr + 3);
  at = end;
  end = tm__pattern_next(&m, &at, end);
  assert_ptr_equal(at, s.ptr + 4);
  assert_ptr_equal(end, s.ptr + 6);
}

/* Patterns that would take ages; each is asked often enough, and ends when it is told to. */
static void test_stops(void **state) {
  (void)state;
  static const char *const hostile[] = {"a-a-a-a-a-a-a-a-b",
                                        "a*a*a*a*a*a*a*a*b",
                                        "a?a?a?a?a?a?a?a?a?a?a?a-a-a-a-b",
                                        ".-.-.-x",
                                        "(a*)(a*)(a*)%3%2%1b",
                                        "(.-)%1b",
                                        ".-b.-b",
                                        "[^b]-[^b]-b",
                                        "a-%b()",
                                        ".-%f[b]"};
  size_t size = 1 << 16;
  char *subject = malloc(size);
  assert_non_null(subject);
  memset(subject, 'a', size);
  for (size_t i = 0; i < sizeof(hostile) / sizeof(hostile[0]); i++) {
    counter c = {.limit = 3000000};
    const char *at, *end = find_from((tm_slice){subject, size}, hostile[i], &at, &c);
    if (end != NULL || m.failure != TM_PATTERN_STOPPED) print_message("%s\n", hostile[i]);
    assert_null(end);
    assert_int_equal(m.failure, TM_PATTERN_STOPPED);
    assert_in_range(c.calls, 20, c.limit);
    assert_in_range(c.most, 1, TM_PATTERN_STEPS + size);
  }
  free(subject);
}

/* Long is not hard: one pass over the subject costs no more steps than it has bytes. */
static void test_long_subjects(void **state) {
  (void)state;
  static const char *const easy[] = {"^a*$", "^.-$", "^[ab]+$", "x", "^.*x", "(a+)$", "%a+", "bb$"};
  size_t size = 1 << 20;
  char *subject = malloc(size);
  assert_non_null(subject);
  memset(subject, 'a', size);
  for (size_t i = 0; i < sizeof(easy) / sizeof(easy[0]); i++) {
    counter c = {0};
    const char *at;
    (void)find_from((tm_slice){subject, size}, easy[i], &at, &c);
    assert_int_equal(m.failure, TM_PATTERN_FINE);
    if (c.steps > 3 * size) print_message("%s: %zu steps\n", easy[i], c.steps);
    assert_in_range(c.steps, 1, 3 * size);
  }
  free(subject);
}

/* The pattern is counted like the subject: a set of a MiB is looked through for each byte. */
static void test_long_patterns(void **state) {
  (void)state;
  size_t size = 1 << 20;
  char *pattern = malloc(size), subject[2000];
  assert_non_null(pattern);
  memset(subject, 'a', sizeof(subject));
  memset(pattern, 'b', size);
  pattern[0] = '[';
  pattern[size - 2] = ']';
  pattern[size - 1] = '-';
  counter c = {.limit = 10 * size};
  const char *at = subject;
  tm__pattern_init(&m, (tm_slice){subject, sizeof(subject)}, (tm_slice){pattern, size}, false);
  m.charge = count;
  m.ud = &c;
  m.pattern_end--; /* without the - it fails everywhere */
  assert_null(tm__pattern_next(&m, &at, NULL));
  assert_int_equal(m.failure, TM_PATTERN_STOPPED);
  assert_in_range(c.most, 1, size);
  free(pattern);
}

static void test_depth(void **state) {
  (void)state;
  char pattern[603];
  for (size_t i = 0; i < 600; i += 2)
    memcpy(pattern + i, "a?", 2);
  pattern[398] = '\0';
  expect_match("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", pattern,
               "1-68");
  char subject[301];
  memset(subject, 'a', 300);
  subject[300] = '\0';
  expect_match(subject, pattern, "1-199");
  memcpy(pattern + 398, "a?a?", 5);
  expect_match(subject, pattern, "pattern too complex");
}

static void test_plain(void **state) {
  (void)state;
  assert_true(tm__pattern_is_plain(TM_S("")));
  assert_true(tm__pattern_is_plain(TM_S("a b]\0c")));
  assert_false(tm__pattern_is_plain(TM_S("a\0.")));
  char text[4000];
  for (size_t i = 0; i < sizeof(text); i++)
    text[i] = "abcab"[i % 5];
  tm_slice s = {text, sizeof(text)};
  memcpy(text + 3000, "abx", 3);
  assert_ptr_equal(tm__pattern_find_plain(s, TM_S("")), text);
  assert_ptr_equal(tm__pattern_find_plain(s, TM_S("cab")), text + 2);
  assert_ptr_equal(tm__pattern_find_plain(s, TM_S("abx")), text + 3000);
  assert_ptr_equal(tm__pattern_find_plain(s, TM_S("x")), text + 3002);
  assert_null(tm__pattern_find_plain(s, TM_S("aby")));
  assert_ptr_equal(tm__pattern_find_plain(s, s), text);
  assert_null(tm__pattern_find_plain((tm_slice){text, 3}, TM_S("abca")));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_matches),       cmocka_unit_test(test_next_goes_on),
      cmocka_unit_test(test_stops),         cmocka_unit_test(test_long_subjects),
      cmocka_unit_test(test_long_patterns), cmocka_unit_test(test_depth),
      cmocka_unit_test(test_plain),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
