/* Signatures as another program computes them, and when a failed event is tried again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "outbox/retry.h"
#include "outbox/sign.h"

#define LONG_AGO INT64_MAX

/* The text that is signed begins with seconds and a dot. */
static void signatures(void **state) {
  (void)state;
  static const struct {
    const char *secret, *previous;
    int64_t seconds;
    const char *body, *expect;
  } cases[] = {
      {"Jefe", NULL, 1700000000, "what do ya want for nothing?",
       "v1=1cdd0650c8be1cb0974b1788d458b1e781206cfef59b85faafc582d2e182c57e"},
      {"Jefe", "", 1700000000, "",
       "v1=80201faaa9258f8cfe66f88ad9fc60a52f73dd0e34d0aa77e8903d388732fc5e"},
      {"0123456789012345678901234567890123456789012345678901234567890123456789", "old", 5,
       "{\"x\":1}",
       "v1=3602d3b5b25eb45b5377225b10dcffcab00884f43cf9f62a1010ed98b9f2eb55,"
       "v1=403fbd2ec819e25866b438d95f5dba917be16a3fa7843b02a58ca59bd9d84293"},
  };
  for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
    tm_buf out = {0};
    tm__outbox_sign(&out, cases[i].secret, cases[i].previous, cases[i].seconds,
                    tm__slice(cases[i].body));
    tm__buf_byte(&out, '\0');
    assert_true(tm__buf_ok(&out));
    assert_string_equal(out.ptr, cases[i].expect);
    tm__buf_free(&out);
  }
}

static void pauses_double_to_an_hour(void **state) {
  (void)state;
  const int64_t day = 24 * 3600 * 1000;
  int64_t expect = 5000, sum = 0;
  int attempts = 1;
  for (; tm__outbox_retry_ms(attempts, LONG_AGO, day, TM_S("a:1:0")) > 0; attempts++) {
    int64_t ms = tm__outbox_retry_ms(attempts, LONG_AGO, day, TM_S("a:1:0"));
    assert_true(ms >= expect && ms < expect + expect / 4);
    assert_int_equal(ms, tm__outbox_retry_ms(attempts, LONG_AGO, day, TM_S("a:1:0")));
    sum += expect;
    expect = expect * 2 < 3600000 ? expect * 2 : 3600000;
    assert_true(attempts < 1000);
  }
  assert_true(sum >= day && sum < day + 2 * 3600000);
  assert_int_equal(tm__outbox_retry_ms(1, LONG_AGO, 0, TM_S("")), 0);
  assert_true(tm__outbox_retry_ms(1, LONG_AGO, 1, TM_S("")) > 0);
  assert_int_equal(tm__outbox_retry_ms(2, LONG_AGO, 1, TM_S("")), 0);
  assert_true(tm__outbox_retry_ms(3, LONG_AGO, day, TM_S("a:1:0")) !=
              tm__outbox_retry_ms(3, LONG_AGO, day, TM_S("b:1:0")));
}

/* Attempts that a host took with it into the grave are none that took an hour each. */
static void none_is_given_up_early(void **state) {
  (void)state;
  const int64_t hour = 3600 * 1000, day = 24 * hour;
  assert_int_equal(tm__outbox_retry_ms(99, day, day, TM_S("a:1:0")), 0);
  int64_t ms = tm__outbox_retry_ms(99, day - 1, day, TM_S("a:1:0"));
  assert_true(ms >= hour && ms < hour + hour / 4);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(signatures),
      cmocka_unit_test(pauses_double_to_an_hour),
      cmocka_unit_test(none_is_given_up_early),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
