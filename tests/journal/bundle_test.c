/* The registry: current and old versions, switched all at once; who holds a bundle keeps it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "journal/bundle.h"

static tm_bundle *make(const char *system, const char *version, const char *description) {
  tm_bundle *b = tm__bundle_new(tm__slice(system), tm__slice(version), TM_S("{\"files\":{}}"),
                                tm__slice(description));
  assert_non_null(b);
  return b;
}

static void assert_described_for(tm_registry *r, const char *tenant, const char *expected) {
  tm_buf out = {0};
  tm__registry_describe(r, tm__slice(tenant), &out);
  assert_string_equal(out.ptr, expected);
  tm__buf_free(&out);
}

static void assert_described(tm_registry *r, const char *expected) {
  assert_described_for(r, "default", expected);
}

static void assert_current(tm_registry *r, const char *system, const char *version) {
  tm_bundle *b = tm__registry_current(r, tm__slice(system));
  if (version == NULL) {
    assert_null(b);
  } else {
    assert_non_null(b);
    assert_string_equal(b->version, version);
  }
  tm__bundle_unref(b);
}

static void assert_known(tm_registry *r, const char *system, const char *version, bool expected) {
  tm_bundle *b = tm__registry_find(r, tm__slice(system), tm__slice(version));
  assert_int_equal(b != NULL, expected);
  tm__bundle_unref(b);
}

static void test_switch(void **unused) {
  (void)unused;
  tm_error err;
  tm_registry *r = tm__registry_new();
  assert_described(r, "{\"items\":[]}");
  assert_current(r, "a", NULL);
  tm_bundle *first[] = {make("b", "1", "{\"n\":\"b\"}"), make("a", "1", "{\"n\":\"a\"}")};
  assert_int_equal(tm__registry_switch(r, first, 2, &err), TM_OK);
  assert_described(r, "{\"items\":[{\"n\":\"a\"},{\"n\":\"b\"}]}");
  tm_bundle *held = tm__registry_current(r, TM_S("a"));
  tm_bundle *second[] = {make("a", "2", "{\"n\":\"a2\"}")}; /* b is gone from what can be started */
  assert_int_equal(tm__registry_switch(r, second, 1, &err), TM_OK);
  assert_described(r, "{\"items\":[{\"n\":\"a2\"}]}");
  assert_current(r, "a", "2");
  assert_current(r, "b", NULL);
  assert_known(r, "a", "1", true);
  assert_known(r, "b", "1", true);
  assert_known(r, "b", "2", false);
  tm_bundle *back[] = {make("a", "1", "{\"n\":\"back\"}")};
  assert_int_equal(tm__registry_switch(r, back, 1, &err), TM_OK);
  assert_described(r, "{\"items\":[{\"n\":\"back\"}]}");
  tm__registry_free(r);
  assert_string_equal(held->version, "1"); /* whoever holds it keeps it */
  assert_true(tm__slice_is(held->sources, "{\"files\":{}}"));
  tm__bundle_unref(held);
}

static void test_old_versions(void **unused) {
  (void)unused;
  tm_error err;
  tm_registry *r = tm__registry_new();
  tm_bundle *added = tm__registry_add(r, make("a", "0", NULL), &err);
  tm_bundle *known = tm__registry_add(r, make("a", "0", NULL), &err);
  assert_ptr_equal(added, known);
  tm__bundle_unref(added);
  tm__bundle_unref(known);
  assert_known(r, "a", "0", true);
  assert_current(r, "a", NULL);
  tm_bundle *now[] = {make("a", "0", "{}")};
  assert_int_equal(tm__registry_switch(r, now, 1, &err), TM_OK);
  assert_current(r, "a", "0");
  tm_bundle *again[] = {make("a", "0", NULL)}; /* the described one stays */
  assert_int_equal(tm__registry_switch(r, again, 1, &err), TM_OK);
  assert_described(r, "{\"items\":[{}]}");
  tm__registry_free(r);
}

/* What is neither current nor anybody's is forgotten; the store has it. */
static void test_tidy(void **unused) {
  (void)unused;
  tm_error err;
  tm_registry *r = tm__registry_new();
  tm_bundle *first[] = {make("a", "1", "{}"), make("b", "1", "{}")};
  assert_int_equal(tm__registry_switch(r, first, 2, &err), TM_OK);
  tm_bundle *second[] = {make("a", "2", "{}")};
  assert_int_equal(tm__registry_switch(r, second, 1, &err), TM_OK);
  tm_bundle *held = tm__registry_add(r, make("a", "0", NULL), &err);
  tm__registry_tidy(r);
  assert_known(r, "a", "2", true);
  assert_known(r, "a", "1", false);
  assert_known(r, "b", "1", false);
  assert_known(r, "a", "0", true);
  assert_described(r, "{\"items\":[{}]}");
  tm__bundle_unref(held);
  tm__registry_tidy(r);
  assert_known(r, "a", "0", false);
  assert_current(r, "a", "2");
  tm__registry_free(r);
}

static void assert_offered(tm_registry *r, const char *system, const char *tenant, bool expected) {
  tm_bundle *b = tm__registry_offered(r, tm__slice(system), tm__slice(tenant));
  assert_int_equal(b != NULL, expected);
  tm__bundle_unref(b);
}

static void test_owned(void **unused) {
  (void)unused;
  tm_error err;
  tm_registry *r = tm__registry_new();
  tm_bundle *all[] = {make("a", "1", "{\"tenant_id\":\"acme\"}"), make("b", "1", "{}"),
                      make("c", "1", "{\"tenant_id\":\"umbrella\"}")};
  assert_int_equal(tm__registry_switch(r, all, 3, &err), TM_OK);
  assert_described_for(r, "acme", "{\"items\":[{\"tenant_id\":\"acme\"},{}]}");
  assert_described_for(r, "umbrella", "{\"items\":[{},{\"tenant_id\":\"umbrella\"}]}");
  static const char *const others[] = {"default", "acm", "acmee", "ACME", "", "acme "};
  for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
    assert_offered(r, "a", others[i], false);
    assert_offered(r, "b", others[i], true);
    assert_described_for(r, others[i], "{\"items\":[{}]}");
  }
  assert_offered(r, "a", "acme", true);
  assert_current(r, "a", "1");                /* the host itself sees all */
  tm_bundle *next[] = {make("a", "2", "{}")}; /* and it is everybody's */
  assert_int_equal(tm__registry_switch(r, next, 1, &err), TM_OK);
  assert_offered(r, "a", "umbrella", true);
  tm__registry_free(r);
}

static void test_limits(void **unused) {
  (void)unused;
  char longest[66];
  memset(longest, 'x', sizeof(longest));
  longest[65] = '\0';
  assert_null(tm__bundle_new(tm__slice(longest), TM_S("1"), TM_S(""), TM_S("")));
  assert_null(tm__bundle_new(TM_S("a"), tm__slice(longest), TM_S(""), TM_S("")));
  tm_buf owned = {0};
  tm__buf_printf(&owned, "{\"tenant_id\":\"%s\"}", longest);
  assert_null(tm__bundle_new(TM_S("a"), TM_S("1"), TM_S(""), tm__buf_view(&owned)));
  tm__buf_free(&owned);
  tm__bundle_unref(NULL);
  tm__registry_free(NULL);
  tm_registry *r = tm__registry_new();
  char huge[400];
  memset(huge, 'x', sizeof(huge) - 1);
  huge[sizeof(huge) - 1] = '\0';
  assert_null(tm__registry_find(r, tm__slice(huge), TM_S("1")));
  tm__registry_free(r);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_switch), cmocka_unit_test(test_old_versions),
      cmocka_unit_test(test_tidy),   cmocka_unit_test(test_owned),
      cmocka_unit_test(test_limits),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
