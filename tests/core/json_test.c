/* Strict reading and canonical writing: what is refused, and what survives exactly. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <float.h>
#include <locale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"

/* Reads `text` and writes it again. */
static void check_becomes(tm_slice text, const char *expected) {
  tm_error err = {0};
  json_t *v;
  if (tm__json_parse(&v, text, TM_JSON_DEPTH, &err) != TM_OK) {
    fail_msg("%.*s: %s", (int)text.len, text.ptr, err.message);
  }
  tm_buf b = {0};
  tm__json_value(&b, v);
  json_decref(v);
  assert_string_equal(b.ptr, expected);
  assert_true(tm__json_parse(&v, tm__buf_view(&b), TM_JSON_DEPTH, &err) == TM_OK);
  json_decref(v);
  tm__buf_free(&b);
}

static void check_refused(tm_slice text, const char *code) {
  tm_error err = {0};
  json_t *v;
  if (tm__json_parse(&v, text, 4, &err) != TM_EINVAL) fail_msg("%.*s", (int)text.len, text.ptr);
  assert_null(v);
  assert_string_equal(err.code, code);
}

static void test_any_value(void **state) {
  (void)state;
  check_becomes(TM_S("null"), "null");
  check_becomes(TM_S(" true "), "true");
  check_becomes(TM_S("\"x\""), "\"x\"");
  check_becomes(TM_S("-7"), "-7");
  check_becomes(TM_S("[ ]"), "[]");
  check_becomes(TM_S("{ }"), "{}");
  check_becomes(TM_S("[{},[],\"\",false]"), "[{},[],\"\",false]");
}

static void test_numbers(void **state) {
  (void)state;
  check_becomes(TM_S("[9223372036854775807,-9223372036854775808]"),
                "[9223372036854775807,-9223372036854775808]");
  check_becomes(TM_S("[1.0,1e2,-0.0,0.1,1E-7,123456789012345680000.0]"),
                "[1.0,100.0,-0.0,0.1,1e-07,1.2345678901234568e+20]");
  check_refused(TM_S("9223372036854775808"), "json.invalid");
  check_refused(TM_S("-9223372036854775809"), "json.invalid");
  check_refused(TM_S("1e999"), "json.invalid");
  check_refused(TM_S("NaN"), "json.invalid");
  check_refused(TM_S("Infinity"), "json.invalid");
  check_refused(TM_S("01"), "json.invalid");
  check_refused(TM_S("1."), "json.invalid");
  check_refused(TM_S("+1"), "json.invalid");
  check_refused(TM_S("0x10"), "json.invalid");
}

static void test_strings(void **state) {
  (void)state;
  check_becomes(TM_S("\"a\\u0000b\""), "\"a\\u0000b\"");
  check_becomes(TM_S("\"\\ud83d\\ude00 \\u00e4 \\/\""), "\"\xF0\x9F\x98\x80 \xC3\xA4 /\"");
  check_becomes(TM_S("\"\\b\\f\\n\\r\\t\\\"\\\\\\u001f\\u007f\""),
                "\"\\b\\f\\n\\r\\t\\\"\\\\\\u001f\x7F\"");
  check_refused(TM_S("\"\\ud83d\""), "json.invalid");
  check_refused(TM_S("\"\\ude00\""), "json.invalid");
  check_refused(TM_S("\"\\ud83d\\u0041\""), "json.invalid");
  check_refused(TM_S("\"\\x\""), "json.invalid");
  check_refused(TM_S("\"a\nb\""), "json.invalid");
  check_refused(TM_S("\"\xFF\""), "json.invalid");
  check_refused(TM_S("\"\xC0\x80\""), "json.invalid");
  check_refused(TM_S("\"\xED\xA0\x80\""), "json.invalid");
  check_refused(TM_S("\"open"), "json.invalid");
}

static void test_keys(void **state) {
  (void)state;
  check_becomes(TM_S("{\"b\":1,\"a\":2,\"\":3,\"ab\":4,\"\\u00e4\":5,\"\\\"\":6}"),
                "{\"\":3,\"\\\"\":6,\"a\":2,\"ab\":4,\"b\":1,\"\xC3\xA4\":5}");
  check_refused(TM_S("{\"a\":1,\"a\":2}"), "json.invalid");
  check_refused(TM_S("{\"a\":1,\"\\u0061\":2}"), "json.invalid");
  check_refused(TM_S("{\"a\\u0000\":1}"), "json.invalid");
  check_refused(TM_S("{a:1}"), "json.invalid");
}

static void test_many_keys_are_sorted(void **state) {
  (void)state;
  tm_buf text = {0};
  tm__buf_byte(&text, '{');
  for (int i = 199; i >= 100; i--) {
    tm__buf_printf(&text, "%s\"k%d\":%d", i == 199 ? "" : ",", i, i);
  }
  tm__buf_byte(&text, '}');
  tm_buf sorted = {0};
  tm__buf_byte(&sorted, '{');
  for (int i = 100; i < 200; i++) {
    tm__buf_printf(&sorted, "%s\"k%d\":%d", i == 100 ? "" : ",", i, i);
  }
  tm__buf_byte(&sorted, '}');
  check_becomes(tm__buf_view(&text), sorted.ptr);
  tm__buf_free(&text);
  tm__buf_free(&sorted);
}

static void test_junk(void **state) {
  (void)state;
  check_refused(tm__slice(NULL), "json.invalid");
  check_refused(TM_S(""), "json.invalid");
  check_refused(TM_S("  "), "json.invalid");
  check_refused(TM_S("1 2"), "json.invalid");
  check_refused(TM_S("[1,]"), "json.invalid");
  check_refused(TM_S("[1}"), "json.invalid");
  check_refused(TM_S("]]]]]]]]"), "json.invalid");
  check_refused(TM_S("{\"a\":1}\0"), "json.invalid");
  check_refused(TM_S("\xEF\xBB\xBF{}"), "json.invalid");
}

static void test_depth(void **state) {
  (void)state;
  json_t *v;
  assert_int_equal(tm__json_parse(&v, TM_S("[[[{\"[[[[\\\"[[[[\":\"{{{{\"}]]]"), 4, NULL), TM_OK);
  json_decref(v);
  check_refused(TM_S("[[[[[]]]]]"), "json.depth");
  check_refused(TM_S("{\"a\":[{\"b\":[{}]}]}"), "json.depth");
  assert_int_equal(tm__json_parse(&v, TM_S("1"), 0, NULL), TM_OK);
  json_decref(v);
  assert_int_equal(tm__json_parse(&v, TM_S("[]"), 0, NULL), TM_EINVAL);
  assert_int_equal(tm__json_parse(&v, TM_S("1"), -1, NULL), TM_EINVAL);
}

static void test_many_values(void **state) {
  (void)state;
  json_t *v;
  tm_error err = {0};
  const char *four = "[1,\"a,b,[[{\\\",\",{\"c\":2}]";
  assert_int_equal(tm__json_parse_bounded(&v, tm__slice(four), 4, 4, &err), TM_OK);
  json_decref(v);
  assert_int_equal(tm__json_parse_bounded(&v, tm__slice(four), 4, 3, &err), TM_EINVAL);
  assert_null(v);
  assert_string_equal(err.code, "json.too_many");
  assert_non_null(strstr(err.message, "4 values; at most 3"));
  assert_int_equal(tm__json_parse_bounded(&v, TM_S("1"), 4, 0, &err), TM_OK);
  json_decref(v);
  assert_int_equal(tm__json_parse_bounded(&v, TM_S("{}"), 4, 0, &err), TM_EINVAL);
}

static void test_very_deep(void **state) {
  (void)state;
  tm_buf b = {0};
  size_t size = 4 << 20;
  char *room = tm__buf_room(&b, size);
  assert_non_null(room);
  memset(room, '[', size);
  b.len = size;
  check_refused(tm__buf_view(&b), "json.depth");
  tm__buf_free(&b);
}

static void test_position(void **state) {
  (void)state;
  json_t *v;
  tm_error err;
  assert_int_equal(tm__json_parse(&v, TM_S("{\n  \"a\": tru\n}"), 4, &err), TM_EINVAL);
  assert_non_null(strstr(err.message, "line 2, column 10"));
}

static void test_doubles(void **state) {
  (void)state;
  static const struct {
    double value;
    const char *text;
  } cases[] = {{0.0, "0.0"},
               {-0.0, "-0.0"},
               {1.0, "1.0"},
               {0.1, "0.1"},
               {1e15, "1e+15"},
               {123456789012345.0, "123456789012345.0"},
               {0.1 + 0.2, "0.30000000000000004"},
               {DBL_MAX, "1.7976931348623157e+308"},
               {DBL_MIN, "2.2250738585072014e-308"},
               {5e-324, "4.94065645841247e-324"}};
  for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
    tm_buf b = {0};
    tm__json_double(&b, cases[i].value);
    assert_string_equal(b.ptr, cases[i].text);
    tm__buf_free(&b);
  }
}

static void test_not_finite(void **state) {
  (void)state;
  const double bad[] = {(double)NAN, (double)INFINITY, (double)-INFINITY};
  for (size_t i = 0; i < 3; i++) {
    tm_buf b = {0};
    tm__json_double(&b, bad[i]);
    assert_false(tm__buf_ok(&b));
    tm__buf_free(&b);
  }
}

static void test_random_doubles_survive(void **state) {
  (void)state;
  uint64_t random = 88172645463325252u;
  for (int i = 0; i < 20000; i++) {
    random ^= random << 13;
    random ^= random >> 7;
    random ^= random << 17;
    double v;
    memcpy(&v, &random, sizeof(v));
    if (!isfinite(v)) continue;
    tm_buf b = {0};
    tm__json_double(&b, v);
    double again = strtod(b.ptr, NULL);
    assert_memory_equal(&again, &v, sizeof(v));
    assert_non_null(strpbrk(b.ptr, ".e"));
    tm__buf_free(&b);
  }
}

static void test_other_locale(void **state) {
  (void)state;
  static const char *const names[] = {"de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8", "fr_FR.utf8"};
  const char *found = NULL;
  for (size_t i = 0; found == NULL && i < sizeof(names) / sizeof(names[0]); i++) {
    found = setlocale(LC_NUMERIC, names[i]);
  }
  if (found == NULL) skip(); /* none is installed */
  check_becomes(TM_S("[0.5,1.0,1e300]"), "[0.5,1.0,1e+300]");
  (void)setlocale(LC_NUMERIC, "C");
}

static void test_ints(void **state) {
  (void)state;
  static const struct {
    int64_t value;
    const char *text;
  } cases[] = {{0, "0"},
               {-1, "-1"},
               {10, "10"},
               {INT64_MAX, "9223372036854775807"},
               {INT64_MIN, "-9223372036854775808"}};
  for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
    tm_buf b = {0};
    tm__json_int(&b, cases[i].value);
    assert_string_equal(b.ptr, cases[i].text);
    tm__buf_free(&b);
  }
}

/* Every byte that needs an escape, at every place within and behind a word of eight. */
static void test_escape_everywhere(void **state) {
  (void)state;
  for (int c = 0; c < 0x80; c++) {
    for (size_t at = 0; at < 20; at++) {
      char text[20];
      memset(text, 0x7F, sizeof(text));
      text[at] = (char)c;
      tm_buf b = {0};
      tm__json_string(&b, (tm_slice){text, sizeof(text)});
      bool escaped = c < 0x20 || c == '"' || c == '\\';
      assert_int_equal(b.len > sizeof(text) + 2, escaped);
      tm_buf back = {0};
      assert_true(tm__json_unquote(tm__buf_view(&b), &back));
      assert_int_equal(back.len, sizeof(text));
      assert_memory_equal(back.ptr, text, sizeof(text));
      tm__buf_free(&back);
      tm__buf_free(&b);
    }
  }
}

static void test_members(void **state) {
  (void)state;
  tm_buf b = {0};
  tm__json_comma(&b);
  tm__buf_byte(&b, '{');
  tm__json_member_text(&b, "a", "x\"y");
  tm__json_member_text(&b, "b", NULL);
  tm__json_member(&b, "c", (tm_slice){"", 0});
  tm__json_member(&b, "d", (tm_slice){NULL, 0});
  tm__json_member_int(&b, "e", -5);
  tm__json_member_bool(&b, "f", false);
  tm__json_member_raw(&b, "g", TM_S("[1]"));
  tm__json_member_raw(&b, "h", (tm_slice){NULL, 0});
  tm__json_key(&b, "i");
  tm__buf_byte(&b, '[');
  tm__json_comma(&b);
  tm__json_int(&b, 1);
  tm__json_comma(&b);
  tm__json_double(&b, 2);
  tm__buf_text(&b, "]}");
  assert_string_equal(b.ptr,
                      "{\"a\":\"x\\\"y\",\"b\":null,\"c\":\"\",\"d\":null,\"e\":-5,\"f\":false,"
                      "\"g\":[1],\"h\":null,\"i\":[1,2.0]}");
  tm__buf_free(&b);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_any_value),
      cmocka_unit_test(test_numbers),
      cmocka_unit_test(test_strings),
      cmocka_unit_test(test_keys),
      cmocka_unit_test(test_many_keys_are_sorted),
      cmocka_unit_test(test_junk),
      cmocka_unit_test(test_depth),
      cmocka_unit_test(test_many_values),
      cmocka_unit_test(test_very_deep),
      cmocka_unit_test(test_position),
      cmocka_unit_test(test_doubles),
      cmocka_unit_test(test_not_finite),
      cmocka_unit_test(test_random_doubles_survive),
      cmocka_unit_test(test_other_locale),
      cmocka_unit_test(test_ints),
      cmocka_unit_test(test_escape_everywhere),
      cmocka_unit_test(test_members),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
