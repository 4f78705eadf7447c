/* Slices and buffers, also when memory runs out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "core/buf.h"

static void test_slices(void **state) {
  (void)state;
  assert_null(tm__slice(NULL).ptr);
  assert_int_equal(tm__slice(NULL).len, 0);
  assert_true(tm__slice_eq(tm__slice(NULL), TM_S("")));
  assert_true(tm__slice_is(TM_S("abc"), "abc"));
  assert_false(tm__slice_is(TM_S("abc"), "ab"));
  assert_false(tm__slice_is(TM_S("a\0c"), "a"));
}

static void test_order(void **state) {
  (void)state;
  const tm_slice sorted[] = {TM_S(""),   TM_S("\0"), TM_S("a"),        TM_S("a\0"),
                             TM_S("aa"), TM_S("b"),  TM_S("\xC3\xA4"), TM_S("\xFF")};
  const int count = (int)(sizeof(sorted) / sizeof(sorted[0]));
  for (int i = 0; i < count; i++) {
    for (int j = 0; j < count; j++) {
      int order = tm__slice_cmp(sorted[i], sorted[j]);
      assert_int_equal((order > 0) - (order < 0), (i > j) - (i < j));
    }
  }
}

static void test_copy(void **state) {
  (void)state;
  char small[4] = "zzz";
  assert_true(tm__copy(small, sizeof(small), TM_S("abc")));
  assert_string_equal(small, "abc");
  assert_false(tm__copy(small, sizeof(small), TM_S("abcd")));
  assert_string_equal(small, "");
  assert_true(tm__copy(small, sizeof(small), tm__slice(NULL)));
  assert_false(tm__copy(small, 0, TM_S("")));
  char *copy = tm__slice_dup(TM_S("a\0b"));
  assert_memory_equal(copy, "a\0b", 4);
  free(copy);
}

static void test_append(void **state) {
  (void)state;
  tm_buf b = {0};
  tm__buf_add(&b, NULL, 0);
  assert_int_equal(tm__buf_view(&b).len, 0);
  assert_non_null(tm__buf_view(&b).ptr);
  for (int i = 0; i < 10000; i++) {
    tm__buf_byte(&b, (char)('a' + i % 26));
    assert_int_equal(b.ptr[b.len], '\0');
  }
  tm__buf_text(&b, "end");
  tm__buf_slice(&b, TM_S("\0!"));
  assert_int_equal(b.len, 10005);
  assert_memory_equal(b.ptr + 9999, "pend\0!", 7);
  tm__buf_clear(&b);
  assert_int_equal(b.len, 0);
  assert_string_equal(b.ptr, "");
  assert_true(tm__buf_ok(&b));
  tm__buf_free(&b);
  tm__buf_free(&b);
}

static void test_printf(void **state) {
  (void)state;
  tm_buf b = {0};
  char expected[400];
  size_t len = 0;
  for (int width = 1; width < 200; width += 40) { /* fits, and does not fit */
    tm__buf_printf(&b, "%*d|", width, width);
    len += (size_t)width + 1;
    assert_int_equal(b.len, len);
    assert_int_equal(strlen(b.ptr), len);
  }
  tm__buf_clear(&b);
  memset(expected, 'x', sizeof(expected));
  expected[sizeof(expected) - 1] = '\0';
  tm__buf_printf(&b, "%s", expected);
  assert_string_equal(b.ptr, expected);
  tm__buf_free(&b);
}

static void test_room(void **state) {
  (void)state;
  tm_buf b = {0};
  tm__buf_text(&b, "ab");
  memcpy(tm__buf_room(&b, 300), "cd", 2);
  b.len += 2;
  char *text = tm__buf_take(&b);
  assert_string_equal(text, "abcd");
  free(text);
  assert_null(b.ptr);
  text = tm__buf_take(&b);
  assert_string_equal(text, "");
  free(text);
}

static void test_out_of_memory(void **state) {
  (void)state;
  tm_buf b = {0};
  tm__buf_text(&b, "kept");
  assert_null(tm__buf_room(&b, SIZE_MAX - 2)); /* the sum wraps */
  assert_false(tm__buf_ok(&b));
  tm__buf_text(&b, "ignored");
  tm__buf_byte(&b, 'x');
  tm__buf_printf(&b, "%d", 1);
  assert_int_equal(b.len, 4);
  assert_null(tm__buf_take(&b));
  assert_true(tm__buf_ok(&b)); /* empty again */
  assert_null(tm__buf_room(&b, SIZE_MAX / 2));
  tm__buf_free(&b);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_slices),        cmocka_unit_test(test_order),
      cmocka_unit_test(test_copy),          cmocka_unit_test(test_append),
      cmocka_unit_test(test_printf),        cmocka_unit_test(test_room),
      cmocka_unit_test(test_out_of_memory),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
