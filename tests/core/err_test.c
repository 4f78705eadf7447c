/* Errors: one shape, always valid UTF-8, names there and back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "core/err.h"
#include "core/utf8.h"

static void test_fill(void **state) {
  (void)state;
  tm_error err = {.conversation_id = "old", .retry_after_ms = 5};
  assert_int_equal(tm__fail(&err, TM_EIO, "store.io", "open %s: %d", "x", 7), TM_EIO);
  assert_int_equal(err.status, TM_EIO);
  assert_string_equal(err.code, "store.io");
  assert_string_equal(err.message, "open x: 7");
  assert_string_equal(err.conversation_id, "");
  assert_int_equal(err.retry_after_ms, 0);
}

static void test_null(void **state) {
  (void)state;
  assert_int_equal(tm__fail(NULL, TM_ELIMIT, "a", "b"), TM_ELIMIT);
  assert_int_equal(tm__fail_memory(NULL, "a row"), TM_ENOMEM);
}

static void test_wraps_itself(void **state) {
  (void)state;
  tm_error err = {0};
  tm__fail(&err, TM_EIO, "inner.code", "inner");
  tm__fail(&err, TM_EIO, err.code, "outer: %s", err.message);
  assert_string_equal(err.code, "inner.code");
  assert_string_equal(err.message, "outer: inner");
}

static void test_cut_between_characters(void **state) {
  (void)state;
  char text[2000];
  for (size_t shift = 0; shift < 4; shift++) {
    memset(text, 'a', shift);
    for (size_t at = shift; at + 4 < sizeof(text); at += 4) {
      memcpy(text + at, "\xF0\x9F\x98\x80", 5);
    }
    tm_error err;
    tm__fail(&err, TM_EINVAL, "x", "%s", text);
    size_t len = strlen(err.message);
    assert_true(len >= sizeof(err.message) - 4);
    assert_true(tm__utf8_valid(tm__slice(err.message)));
    assert_null(strchr(err.message, '?'));
  }
}

static void test_bad_bytes(void **state) {
  (void)state;
  tm_error err;
  tm__fail(&err, TM_EINVAL, "x", "a%sz", "\xFF\xC3");
  assert_string_equal(err.message, "a??z");
}

static void test_names(void **state) {
  (void)state;
  for (int s = TM_ECANCELLED; s <= TM_OK; s++) {
    const char *name = tm_status_name((tm_status)s);
    assert_string_not_equal(name, "unknown");
    assert_int_equal(tm__status_from_name(name), s);
  }
  assert_string_equal(tm_status_name(TM_ENOTFOUND), "not_found");
  assert_string_equal(tm_status_name((tm_status)-99), "unknown");
  assert_int_equal(tm__status_from_name("no such name"), TM_ESCRIPT);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_fill),         cmocka_unit_test(test_null),
      cmocka_unit_test(test_wraps_itself), cmocka_unit_test(test_cut_between_characters),
      cmocka_unit_test(test_bad_bytes),    cmocka_unit_test(test_names),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
