/* Who used much rests as long; who used little never waits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "bind/pace.h"

static tm_pace pace;

static int set_up(void **state) {
  (void)state;
  pace = (tm_pace){0};
  return 0;
}

static void test_short_work_never_waits(void **state) {
  (void)state;
  tm__pace_charge(&pace, 5, 0);
  tm__pace_charge(&pace, 5, 20000);
  assert_int_equal(tm__pace_wait_ms(&pace, 5, 50), 0);
  assert_int_equal(tm__pace_wait_ms(&pace, 5, 0), 0); /* no slices, no rest */
}

static void test_long_work_rests(void **state) {
  (void)state;
  tm__pace_charge(&pace, 5, 900000);
  assert_in_range(tm__pace_wait_ms(&pace, 5, 50), 1, 900);
  assert_int_equal(tm__pace_wait_ms(&pace, 6, 50), 0); /* others do not */
  assert_int_equal(tm__pace_wait_ms(&pace, 5, 0), 0);
}

static void test_much_short_work_is_long(void **state) {
  (void)state;
  for (int i = 0; i < 45; i++)
    tm__pace_charge(&pace, 7, 20000);
  assert_in_range(tm__pace_wait_ms(&pace, 7, 50), 1, 1000);
}

static void test_no_rest_is_longer_than_a_second(void **state) {
  (void)state;
  tm__pace_charge(&pace, 5, INT64_C(3600000000));
  assert_in_range(tm__pace_wait_ms(&pace, 5, 50), 1, 1000);
  tm__pace_punish(&pace, 6, 3600000);
  assert_in_range(tm__pace_wait_ms(&pace, 6, 50), 1, 1000);
}

static void test_punished_although_it_used_nothing(void **state) {
  (void)state;
  tm__pace_punish(&pace, 5, 900);
  assert_in_range(tm__pace_wait_ms(&pace, 5, 50), 1, 900);
}

static void test_slots_differ(void **state) {
  (void)state;
  size_t a = tm__pace_slot("0197c1a0-0000-7000-8000-000000000001");
  size_t b = tm__pace_slot("0197c1a0-0000-7000-8000-000000000002");
  assert_true(a < TM_PACE_SLOTS && b < TM_PACE_SLOTS && a != b);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup(test_short_work_never_waits, set_up),
      cmocka_unit_test_setup(test_long_work_rests, set_up),
      cmocka_unit_test_setup(test_much_short_work_is_long, set_up),
      cmocka_unit_test_setup(test_no_rest_is_longer_than_a_second, set_up),
      cmocka_unit_test_setup(test_punished_although_it_used_nothing, set_up),
      cmocka_unit_test(test_slots_differ),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
