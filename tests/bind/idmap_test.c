/* The id table against a plain array, with removals in any order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>

#include "bind/idmap.h"

#define IDS 500

static void *plain_alloc(void *ud, void *p, size_t old_size, size_t new_size) {
  (void)ud;
  (void)old_size;
  if (new_size != 0) return realloc(p, new_size);
  free(p);
  return NULL;
}

static void *no_alloc(void *ud, void *p, size_t old_size, size_t new_size) {
  (void)ud;
  (void)p;
  (void)old_size;
  (void)new_size;
  return NULL;
}

static void test_empty(void **state) {
  (void)state;
  tm_idmap m = {.alloc = plain_alloc};
  assert_null(tm__idmap_get(&m, 1));
  assert_null(tm__idmap_get(&m, 0));
  assert_null(tm__idmap_remove(&m, 1));
  assert_null(tm__idmap_any(&m));
  tm__idmap_free(&m);
}

static void test_against_an_array(void **state) {
  (void)state;
  static char values[IDS];
  bool present[IDS] = {false};
  size_t count = 0;
  uint32_t seed = 7;
  tm_idmap m = {.alloc = plain_alloc};
  for (int round = 0; round < 20000; round++) {
    seed = seed * 1664525 + 1013904223;
    size_t i = (seed >> 8) % IDS;
    uint64_t id = (uint64_t)(i + 1) << (i % 3 * 16); /* far apart, and beside each other */
    void *want = present[i] ? &values[i] : NULL;
    assert_ptr_equal(tm__idmap_get(&m, id), want);
    if (present[i])
      assert_ptr_equal(tm__idmap_remove(&m, id), want);
    else
      assert_true(tm__idmap_add(&m, id, &values[i]));
    present[i] = !present[i];
    count = present[i] ? count + 1 : count - 1;
    assert_int_equal(m.count, count);
  }
  for (void *value; (value = tm__idmap_any(&m)) != NULL; count--) {
    size_t i = (size_t)((char *)value - values);
    assert_true(present[i]);
    assert_ptr_equal(tm__idmap_remove(&m, (uint64_t)(i + 1) << (i % 3 * 16)), value);
  }
  assert_int_equal(count, 0);
  tm__idmap_free(&m);
}

static void test_out_of_memory(void **state) {
  (void)state;
  char value;
  tm_idmap m = {.alloc = no_alloc};
  assert_false(tm__idmap_add(&m, 1, &value));
  m.alloc = plain_alloc;
  for (uint64_t id = 1; id <= 12; id++)
    assert_true(tm__idmap_add(&m, id, &value));
  m.alloc = no_alloc;
  assert_false(tm__idmap_reserve(&m)); /* it has to grow */
  assert_ptr_equal(tm__idmap_get(&m, 12), &value);
  m.alloc = plain_alloc;
  tm__idmap_free(&m);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_empty),
      cmocka_unit_test(test_against_an_array),
      cmocka_unit_test(test_out_of_memory),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
