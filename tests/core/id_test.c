/* Ids, random bytes and digests. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "core/id.h"
#include "core/map.h"

static void test_uuid_form(void **state) {
  (void)state;
  char id[TM_ID_SIZE];
  tm__uuid7(id, INT64_C(0x0123456789AB));
  assert_int_equal(strlen(id), 36);
  assert_memory_equal(id, "01234567-89ab-7", 15);
  assert_non_null(strchr("89ab", id[19]));
  assert_true(tm__uuid_valid(tm__slice(id)));
}

static void test_uuid_order(void **state) {
  (void)state;
  char before[TM_ID_SIZE];
  char after[TM_ID_SIZE];
  for (int64_t now = 1763802000000; now < 1763802000300; now++) {
    tm__uuid7(before, now);
    tm__uuid7(after, now + 1);
    assert_true(strcmp(before, after) < 0);
  }
}

static void test_uuid_differs(void **state) {
  (void)state;
  tm_map seen = {0};
  char id[TM_ID_SIZE];
  for (int i = 0; i < 2000; i++) {
    tm__uuid7(id, 1);
    assert_null(tm__map_get(&seen, tm__slice(id)));
    assert_true(tm__map_set(&seen, tm__slice(id), &seen));
  }
  tm__map_free(&seen);
}

static void test_uuid_refused(void **state) {
  (void)state;
  assert_true(tm__uuid_valid(TM_S("01234567-89ab-7cde-8f01-23456789abcd")));
  assert_false(tm__uuid_valid(TM_S("01234567-89ab-7cde-8f01-23456789abc")));
  assert_false(tm__uuid_valid(TM_S("01234567-89ab-7cde-8f01-23456789abcd0")));
  assert_false(tm__uuid_valid(TM_S("01234567-89AB-7cde-8f01-23456789abcd")));
  assert_false(tm__uuid_valid(TM_S("0123456789ab-7cde-8f01-23456789abcd-")));
  assert_false(tm__uuid_valid(TM_S("01234567-89ab-7cde-8f01-23456789abc\0")));
  assert_false(tm__uuid_valid(TM_S("01234567-89ab-7cde-8f01-2345678../..")));
  assert_false(tm__uuid_valid(tm__slice(NULL)));
}

static void test_digest(void **state) {
  (void)state;
  char a[65];
  char b[65];
  const tm_slice one[] = {TM_S("ab"), TM_S("c")};
  const tm_slice other[] = {TM_S("a"), TM_S("bc")};
  tm__digest_hex(a, 64, one, 2);
  tm__digest_hex(b, 64, other, 2);
  assert_int_equal(strlen(a), 64);
  assert_string_not_equal(a, b); /* parts are kept apart */
  tm__digest_hex(b, 64, one, 1);
  assert_string_not_equal(a, b);
  tm__digest_hex(b, 10, one, 2);
  assert_int_equal(strlen(b), 10);
  assert_memory_equal(a, b, 10);
}

/* Stored keys depend on these values: b2sum of `02 00 .. 00 "ab" 01 00 .. 00 "c"`. */
static void test_digest_in_pieces(void **state) {
  (void)state;
  char whole[65], pieces[65];
  tm_slice parts[] = {TM_S("one text"), TM_S("")};
  tm_digest d;
  tm__digest_hex(whole, 64, parts, 2);
  tm__digest_begin(&d);
  tm__digest_part(&d, 8);
  tm__digest_add(&d, TM_S("one "));
  tm__digest_add(&d, TM_S("text"));
  tm__digest_part(&d, 0);
  tm__digest_end(&d, pieces, 64);
  assert_string_equal(pieces, whole);
}

static void test_digest_is_fixed(void **state) {
  (void)state;
  const tm_slice parts[] = {TM_S("ab"), TM_S("c")};
  char hex[65];
  tm__digest_hex(hex, 64, parts, 2);
  assert_string_equal(hex, "20263e794775e4edf2b306c0f306af9e50175c831c857604b481e847f790bf95");
  assert_true(tm__digest_u64(parts, 2) == UINT64_C(0xEDE47547793E2620));
  tm__digest_hex(hex, 64, NULL, 0);
  assert_string_equal(hex, "0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8");
}

static void test_random(void **state) {
  (void)state;
  unsigned char a[32] = {0};
  unsigned char b[32] = {0};
  tm__random_bytes(a, sizeof(a));
  tm__random_bytes(b, sizeof(b));
  assert_memory_not_equal(a, b, sizeof(a));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_uuid_form),       cmocka_unit_test(test_uuid_order),
      cmocka_unit_test(test_uuid_differs),    cmocka_unit_test(test_uuid_refused),
      cmocka_unit_test(test_digest),          cmocka_unit_test(test_digest_in_pieces),
      cmocka_unit_test(test_digest_is_fixed), cmocka_unit_test(test_random),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
