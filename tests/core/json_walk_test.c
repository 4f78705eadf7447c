/* Walking canonical text: brackets and quotes in strings, and text that breaks off anywhere. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"

/* Walks one level into "key=value;" pieces. */
static char *walked(tm_slice json) {
  tm_json_walk w;
  tm_slice key;
  tm_slice value;
  tm_buf b = {0};
  if (!tm__json_walk(&w, json)) tm__buf_text(&b, "neither");
  while (tm__json_next(&w, &key, &value)) {
    if (key.ptr != NULL) tm__buf_slice(&b, key);
    tm__buf_byte(&b, '=');
    tm__buf_slice(&b, value);
    tm__buf_byte(&b, ';');
  }
  return tm__buf_take(&b);
}

static void check_walk(tm_slice json, const char *expected) {
  char *got = walked(json);
  assert_string_equal(got, expected);
  free(got);
}

static void test_shapes(void **state) {
  (void)state;
  check_walk(TM_S("{}"), "");
  check_walk(TM_S("[]"), "");
  check_walk(TM_S("[1,-2.5e+10,true,null]"), "=1;=-2.5e+10;=true;=null;");
  check_walk(TM_S("{\"a\":1,\"b\":[1,2],\"c\":{\"d\":{}}}"), "a=1;b=[1,2];c={\"d\":{}};");
  check_walk(TM_S("[[],{},\"\",[[]]]"), "=[];={};=\"\";=[[]];");
  check_walk(TM_S("1"), "neither");
  check_walk(TM_S("\"{}\""), "neither");
  check_walk(tm__slice(NULL), "neither");
}

static void test_strings_hide_structure(void **state) {
  (void)state;
  check_walk(TM_S("{\"a]}\":\"}],{[\",\"b\":[\"]\",\"\\\"]\",{\"}\":\"\\\\\"}]}"),
             "a]}=\"}],{[\";b=[\"]\",\"\\\"]\",{\"}\":\"\\\\\"}];");
  check_walk(TM_S("[\"\\\\\",\"\\\\\\\"\",\"\\\\\\\\\",\"x\"]"),
             "=\"\\\\\";=\"\\\\\\\"\";=\"\\\\\\\\\";=\"x\";");
  check_walk(TM_S("{\"\\\"\":1,\"\\\\\":2}"), "\\\"=1;\\\\=2;");
}

static void test_get(void **state) {
  (void)state;
  tm_slice json = TM_S("{\"a\":{\"b\":1},\"b\":\"two\",\"\":3,\"n\":null}");
  assert_true(tm__slice_is(tm__json_get(json, "b"), "\"two\""));
  assert_true(tm__slice_is(tm__json_get(json, "a"), "{\"b\":1}"));
  assert_true(tm__slice_is(tm__json_get(json, ""), "3"));
  assert_true(tm__slice_is(tm__json_get(json, "n"), "null"));
  assert_null(tm__json_get(json, "c").ptr);
  assert_null(tm__json_get(TM_S("[1]"), "").ptr);
  assert_null(tm__json_get(tm__slice(NULL), "a").ptr);
}

static void test_get_int(void **state) {
  (void)state;
  tm_slice json =
      TM_S("{\"a\":9223372036854775807,\"b\":-9223372036854775808,\"c\":1.0,\"d\":\"1\","
           "\"e\":9223372036854775808,\"f\":-9223372036854775809,\"g\":-0,\"h\":[1],"
           "\"i\":99999999999999999999999}");
  assert_true(tm__json_get_int(json, "a", 7) == INT64_MAX);
  assert_true(tm__json_get_int(json, "b", 7) == INT64_MIN);
  assert_int_equal(tm__json_get_int(json, "c", 7), 7);
  assert_int_equal(tm__json_get_int(json, "d", 7), 7);
  assert_int_equal(tm__json_get_int(json, "e", 7), 7);
  assert_int_equal(tm__json_get_int(json, "f", 7), 7);
  assert_int_equal(tm__json_get_int(json, "g", 7), 0);
  assert_int_equal(tm__json_get_int(json, "h", 7), 7);
  assert_int_equal(tm__json_get_int(json, "i", 7), 7);
  assert_int_equal(tm__json_get_int(json, "z", 7), 7);
}

static void check_text(tm_slice quoted, const char *expected, size_t len) {
  tm_buf b = {0};
  assert_true(tm__json_unquote(quoted, &b));
  assert_int_equal(b.len, len);
  if (len > 0) assert_memory_equal(b.ptr, expected, len);
  tm__buf_free(&b);
}

static void test_text(void **state) {
  (void)state;
  check_text(TM_S("\"\""), "", 0);
  check_text(TM_S("\"\\u0000\\u00e4\\u20AC\\ud83d\\uDE00\""),
             "\0\xC3\xA4\xE2\x82\xAC\xF0\x9F\x98\x80", 10);
  check_text(TM_S("\"a\\\"b\\\\c\\/\\b\\f\\n\\r\\t\""), "a\"b\\c/\b\f\n\r\t", 11);
  tm_buf b = {0};
  assert_true(tm__json_get_text(TM_S("{\"a\":\"x\\ny\"}"), "a", &b));
  assert_string_equal(b.ptr, "x\ny");
  assert_false(tm__json_get_text(TM_S("{\"a\":1}"), "a", &b));
  assert_false(tm__json_get_text(TM_S("{\"a\":\"\"}"), "b", &b));
  tm__buf_free(&b);
}

static void test_bad_text(void **state) {
  (void)state;
  static const char *const bad[] = {"",
                                    "\"",
                                    "x",
                                    "\"\\\"",
                                    "\"\\u12\"",
                                    "\"\\u12g4\"",
                                    "\"\\ud800\"",
                                    "\"\\ud800\\n12345\"",
                                    "\"\\ud800\\u0041\"",
                                    "\"\\udc00\"",
                                    "\"\\q\""};
  for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
    tm_buf b = {0};
    if (tm__json_unquote(tm__slice(bad[i]), &b)) fail_msg("%s", bad[i]);
    tm__buf_free(&b);
  }
}

/* No reading behind the end, and always an end, wherever the text breaks off or is overwritten. The
 * text is in a block of exactly its size, so that the sanitizers see a byte too many. */
static void test_broken_text(void **state) {
  (void)state;
  tm_slice whole = TM_S("{\"a\":\"\\\\\\\"}\",\"b\":[1,{\"c\":\"\\ud83d\\ude00\"}],\"d\":-12}");
  static const char junk[] = "\"\\{}[],:0";
  for (size_t len = 0; len <= whole.len; len++) {
    for (size_t at = 0; at < len; at++) {
      for (size_t j = 0; j + 1 < sizeof(junk); j++) {
        char *text = malloc(len);
        assert_non_null(text);
        memcpy(text, whole.ptr, len);
        text[at] = junk[j];
        tm_buf b = {0};
        free(walked((tm_slice){text, len}));
        (void)tm__json_get_text((tm_slice){text, len}, "d", &b);
        (void)tm__json_unquote((tm_slice){text, len}, &b);
        (void)tm__json_get_int((tm_slice){text, len}, "d", 0);
        tm__buf_free(&b);
        free(text);
      }
    }
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_shapes),      cmocka_unit_test(test_strings_hide_structure),
      cmocka_unit_test(test_get),         cmocka_unit_test(test_get_int),
      cmocka_unit_test(test_text),        cmocka_unit_test(test_bad_text),
      cmocka_unit_test(test_broken_text),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
