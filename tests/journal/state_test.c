/* Deltas: any two states, there and back; malformed ones are refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/json.h"
#include "journal/state.h"

static void check(const char *from, const char *to, const char *expected) {
  tm_buf delta = {0};
  tm_buf made = {0};
  tm__state_delta(&delta, tm__slice(from), tm__slice(to));
  if (expected != NULL) assert_string_equal(delta.ptr, expected);
  assert_true(tm__state_apply(&made, tm__slice(from), tm__buf_view(&delta)));
  assert_string_equal(made.ptr, to);
  tm__buf_free(&delta);
  tm__buf_free(&made);
}

static void test_known(void **unused) {
  (void)unused;
  check("{}", "{}", "{\"set\":{},\"unset\":[]}");
  check("{}", "{\"a\":1}", "{\"set\":{\"a\":1},\"unset\":[]}");
  check("{\"a\":1}", "{}", "{\"set\":{},\"unset\":[\"a\"]}");
  check("{\"a\":1,\"b\":[]}", "{\"a\":1,\"b\":{}}", "{\"set\":{\"b\":{}},\"unset\":[]}");
  check("{\"a\":1,\"c\":3,\"e\":5}", "{\"b\":2,\"c\":3,\"d\":4}",
        "{\"set\":{\"b\":2,\"d\":4},\"unset\":[\"a\",\"e\"]}");
  check("{\"a\":\"x,}\"}", "{\"a\":\"x,}\",\"b\":null}", NULL);
  check("{\"\":1,\"b\":2}", "{\"b\":2}", NULL);
  check("{\"a\":{\"b\":[1,{\"c\":\"]\"}]}}", "{\"a\":{\"b\":[1,{\"c\":\"}\"}]}}", NULL);
}

/* Sorted by what the keys mean: '"' (0x22) comes before '#', though it is written with '\'. */
static void test_escaped_keys(void **unused) {
  (void)unused;
  check("{\"\\\"\":1,\"#\":2,\"[\":3,\"\\\\\":4,\"]\":5}",
        "{\"\\u0001\":0,\"\\n\":1,\"\\\"\":2,\"[\":3,\"]\":5}", NULL);
  check("{\"\\u0001\":0,\"\\n\":1,\"\\\"\":2,\"[\":3,\"]\":5}",
        "{\"\\\"\":1,\"#\":2,\"[\":3,\"\\\\\":4,\"]\":5}", NULL);
  check("{\"caf\xc3\xa9\":1}", "{\"cafe\":2,\"caf\xc3\xa9\":1}", NULL);
}

/* A random canonical object; the seed decides. */
static void random_object(tm_buf *out, uint32_t *seed) {
  json_t *o = json_object();
  for (int i = 0; i < 12; i++) {
    *seed = *seed * 1664525U + 1013904223U;
    char key[16];
    (void)snprintf(key, sizeof(key), "%c%u", (int)("\"a\\#\n~")[(*seed >> 8) % 6],
                   (*seed >> 12) % 3);
    if ((*seed >> 20) % 2 == 0) continue;
    (void)json_object_set_new(o, key, json_integer((*seed >> 24) % 4));
  }
  tm__json_value(out, o);
  json_decref(o);
}

static void test_random(void **unused) {
  (void)unused;
  uint32_t seed = 7;
  tm_buf from = {0};
  for (int i = 0; i < 3000; i++) {
    tm_buf to = {0};
    random_object(&to, &seed);
    if (from.ptr != NULL) check(from.ptr, to.ptr, NULL);
    tm__buf_free(&from);
    from = to;
  }
  tm__buf_free(&from);
}

static void test_malformed(void **unused) {
  (void)unused;
  static const char *const bad[][2] = {
      {"[]", "{\"set\":{},\"unset\":[]}"},
      {"", "{\"set\":{},\"unset\":[]}"},
      {"{\"a\":1", "{\"set\":{},\"unset\":[]}"},
      {"{}", "{}"},
      {"{}", "{\"set\":[],\"unset\":[]}"},
      {"{}", "{\"set\":{},\"unset\":{}}"},
      {"{}", "{\"set\":{\"a\"},\"unset\":[]}"},
      {"{}", "null"},
      {"{}", ""},
  };
  for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
    tm_buf out = {0};
    assert_false(tm__state_apply(&out, tm__slice(bad[i][0]), tm__slice(bad[i][1])));
    tm__buf_free(&out);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_known),
      cmocka_unit_test(test_escaped_keys),
      cmocka_unit_test(test_random),
      cmocka_unit_test(test_malformed),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
