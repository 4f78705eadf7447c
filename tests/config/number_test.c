/* number_test.c - numbers with units: exactly, or not at all. */
#include "fixture.h"

#include "config/value.h"

#define NOTHING INT64_MIN

static int64_t size_of(const char *text) {
  int64_t n;
  return tm__parse_size(&n, tm__slice(text)) ? n : NOTHING;
}

static int64_t duration_of(const char *text) {
  int64_t n;
  return tm__parse_duration(&n, tm__slice(text)) ? n : NOTHING;
}

static int64_t int_of(const char *text) {
  int64_t n;
  return tm__parse_int(&n, tm__slice(text)) ? n : NOTHING;
}

static void integers(void **state) {
  (void)state;
  assert_int_equal(int_of("0"), 0);
  assert_int_equal(int_of("9223372036854775807"), INT64_MAX);
  const char *const none[] = {"",
                              "-1",
                              "+1",
                              "01",
                              "1.0",
                              "1.",
                              " 1",
                              "1 ",
                              "0x1",
                              "1e3",
                              "a",
                              "1_000",
                              "9223372036854775808",
                              "99999999999999999999"};
  for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++) {
    assert_int_equal(int_of(none[i]), NOTHING);
  }
}

static void sizes(void **state) {
  (void)state;
  assert_int_equal(size_of("65536"), 65536);
  assert_int_equal(size_of("64k"), 65536);
  assert_int_equal(size_of("64 KiB"), 65536);
  assert_int_equal(size_of("64KB"), 65536);
  assert_int_equal(size_of("1MiB"), 1 << 20);
  assert_int_equal(size_of("10MB"), 10485760);
  assert_int_equal(size_of("10m"), 10485760);
  assert_int_equal(size_of("1.5GiB"), 3 * (INT64_C(1) << 29));
  assert_int_equal(size_of("7b"), 7);
  const char *const none[] = {"k", "1.5", "0.3k", "1kk", "1 k b", "9000000000G", "1.1234567k"};
  for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++) {
    assert_int_equal(size_of(none[i]), NOTHING);
  }
}

static void durations(void **state) {
  (void)state;
  assert_int_equal(duration_of("30"), 30000);
  assert_int_equal(duration_of("30.0"), 30000);
  assert_int_equal(duration_of("0.001"), 1);
  assert_int_equal(duration_of("500ms"), 500);
  assert_int_equal(duration_of("1.5s"), 1500);
  assert_int_equal(duration_of("30m"), 1800000);
  assert_int_equal(duration_of("2h"), 7200000);
  assert_int_equal(duration_of("1D"), 86400000);
  const char *const none[] = {"0.0005", "1.5ms", "1w", "1:30", ".5", "5.", "-1", "inf", "1h30m"};
  for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++) {
    assert_int_equal(duration_of(none[i]), NOTHING);
  }
}

static void numbers(void **state) {
  double n = 0;
  (void)state;
  assert_true(tm__parse_number(&n, TM_S("0.25")));
  assert_true(n >= 0.25 && n <= 0.25);
  assert_false(tm__parse_number(&n, TM_S("0,25")));
  assert_false(tm__parse_number(&n, TM_S("1e2")));
}

static void plain_words(void **state) {
  (void)state;
  const char *const text[] = {"a", "1.2.3", "127.0.0.1:80", "./a", "1e", "--1", "1a",
                              "-", ".",     "yes"};
  const char *const number[] = {"1", "-1", "+1.5", ".5", "5.", "1e9", "1.5E-3", "007"};
  for (size_t i = 0; i < sizeof(text) / sizeof(text[0]); i++) {
    assert_null(tm__plain_kind(tm__slice(text[i])));
  }
  for (size_t i = 0; i < sizeof(number) / sizeof(number[0]); i++) {
    assert_string_equal(tm__plain_kind(tm__slice(number[i])), "the number");
  }
  assert_string_equal(tm__plain_kind(TM_S("True")), "the boolean");
  assert_string_equal(tm__plain_kind(TM_S("~")), "null");
}

static void shown_text_is_short_and_whole(void **state) {
  (void)state;
  tm_buf out = {0};
  tm__show(&out, TM_S("a\x1B\nb"));
  assert_string_equal(out.ptr, "'a??b'");
  tm__buf_clear(&out);
  char text[128];
  (void)memset(text, 'x', 59);
  (void)snprintf(text + 59, 8, "\xC3\xA4\xC3\xA4"); /* the cut would be within a character */
  tm__show(&out, tm__slice(text));
  assert_int_equal(out.len, 1 + 59 + 3 + 1);
  assert_has(out.ptr, "xx...'");
  tm__buf_free(&out);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(integers),    cmocka_unit_test(sizes),
      cmocka_unit_test(durations),   cmocka_unit_test(numbers),
      cmocka_unit_test(plain_words), cmocka_unit_test(shown_text_is_short_and_whole),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
