/* The hash table against a plain array, with many deletes, and while walking. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "core/map.h"

#define KEYS 600

static int values[KEYS];

static tm_slice key_of(int i, char buf[32]) {
  int n = snprintf(buf, 32, "key-%d", i);
  return (tm_slice){buf, (size_t)n};
}

static void test_empty(void **state) {
  (void)state;
  tm_map m = {0};
  size_t at = 0;
  tm_slice key;
  void *value;
  assert_null(tm__map_get(&m, TM_S("a")));
  assert_null(tm__map_remove(&m, TM_S("a")));
  assert_false(tm__map_next(&m, &at, &key, &value));
  tm__map_free(&m);
}

static void test_keys_are_bytes(void **state) {
  (void)state;
  tm_map m = {0};
  char own[] = "mine";
  assert_true(tm__map_set(&m, tm__slice(NULL), &values[0]));
  assert_true(tm__map_set(&m, TM_S("a"), &values[1]));
  assert_true(tm__map_set(&m, TM_S("a\0b"), &values[2]));
  assert_true(tm__map_set(&m, tm__slice(own), &values[3]));
  memset(own, 'x', 4);
  assert_ptr_equal(tm__map_get(&m, TM_S("")), &values[0]);
  assert_ptr_equal(tm__map_get(&m, TM_S("a")), &values[1]);
  assert_ptr_equal(tm__map_get(&m, TM_S("a\0b")), &values[2]);
  assert_ptr_equal(tm__map_get(&m, TM_S("mine")), &values[3]);
  assert_true(tm__map_set(&m, TM_S("a"), &values[4]));
  assert_int_equal(m.count, 4);
  assert_ptr_equal(tm__map_get(&m, TM_S("a")), &values[4]);
  tm__map_free(&m);
  tm__map_free(&m);
}

/* The same random sets and removes on the table and on an array that cannot be wrong. */
static void test_against_array(void **state) {
  (void)state;
  tm_map m = {0};
  void *model[KEYS] = {0};
  size_t count = 0;
  uint32_t random = 7;
  char buf[32];
  for (int round = 0; round < 200000; round++) {
    random = random * 1664525 + 1013904223;
    int range = round < 100000 ? KEYS : 8; /* then few keys: mostly tombstones */
    int i = (int)((random >> 8) % (uint32_t)range);
    tm_slice key = key_of(i, buf);
    assert_ptr_equal(tm__map_get(&m, key), model[i]);
    if ((random >> 30) == 0) {
      count += model[i] == NULL;
      model[i] = &values[(random >> 4) % KEYS];
      assert_true(tm__map_set(&m, key, model[i]));
    } else {
      count -= model[i] != NULL;
      assert_ptr_equal(tm__map_remove(&m, key), model[i]);
      model[i] = NULL;
    }
    assert_int_equal(m.count, count);
    assert_true(m.used >= m.count && m.used < m.cap + (m.cap == 0));
  }
  tm__map_free(&m);
}

static void test_queue_of_keys_stays_small(void **state) {
  (void)state;
  tm_map m = {0};
  char buf[32];
  for (int i = 0; i < 100000; i++) { /* always ten keys, ever new ones */
    assert_true(tm__map_set(&m, key_of(i, buf), &values[0]));
    if (i >= 10) assert_non_null(tm__map_remove(&m, key_of(i - 10, buf)));
  }
  assert_int_equal(m.count, 10);
  assert_true(m.cap <= 64);
  tm__map_free(&m);
}

static void test_shrinks(void **state) {
  (void)state;
  tm_map m = {0};
  char buf[32];
  for (int i = 0; i < 10000; i++) {
    assert_true(tm__map_set(&m, key_of(i, buf), &values[0]));
  }
  size_t large = m.cap;
  for (int i = 0; i < 10000; i++) {
    assert_non_null(tm__map_remove(&m, key_of(i, buf)));
  }
  for (int i = 0; i < 20000; i++) {
    assert_true(tm__map_set(&m, key_of(i, buf), &values[0]));
    assert_non_null(tm__map_remove(&m, key_of(i, buf)));
  }
  assert_true(m.cap <= large);
  assert_int_equal(m.count, 0);
  tm__map_free(&m);
}

static void test_walk_and_remove(void **state) {
  (void)state;
  tm_map m = {0};
  char buf[32];
  for (int i = 0; i < KEYS; i++) {
    assert_true(tm__map_set(&m, key_of(i, buf), &values[i]));
  }
  bool seen[KEYS] = {false};
  size_t at = 0;
  size_t steps = 0;
  tm_slice key;
  void *value;
  while (tm__map_next(&m, &at, &key, &value)) {
    size_t i = (size_t)((int *)value - values);
    assert_false(seen[i]);
    assert_true(tm__slice_eq(key, key_of((int)i, buf)));
    seen[i] = true;
    steps++;
    if (i % 3 != 0) assert_ptr_equal(tm__map_remove(&m, key_of((int)i, buf)), value);
  }
  assert_int_equal(steps, KEYS);
  assert_int_equal(m.count, KEYS / 3);
  tm__map_free(&m);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_empty),         cmocka_unit_test(test_keys_are_bytes),
      cmocka_unit_test(test_against_array), cmocka_unit_test(test_queue_of_keys_stays_small),
      cmocka_unit_test(test_shrinks),       cmocka_unit_test(test_walk_and_remove),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
