/* How long a store is waited for: what the configuration says, for the configured store and for one
 * that a URL names. */
#include "tests/config/fixture.h"

#include "host.h"
#include "store_place.h"

static void assert_waits(fixture *f, const char *url, int64_t ms) {
  struct tm_host host = {.config = f->config};
  tm_store_place place;
  tm_error err;
  assert_int_equal(tm__store_place_parse(&place, url, &host, &err), TM_OK);
  assert_int_equal(place.options.timeout_ms, ms);
  tm__store_place_free(&place);
}

#define URL "workflow_persistence: {backend: postgres, postgres: {url: 'postgres://h/d'}}\n"

static void each_backend_has_its_own_unless_one_is_given(void **state) {
  fixture *f = *state;
  assert_loads(f, "");
  assert_waits(f, NULL, 30000);
  assert_waits(f, "sqlite:x.db", 30000);
  assert_waits(f, "file:x", 30000);
  assert_waits(f, "redis://h", 5000);
  assert_waits(f, "postgres://h/d", 10000);
  assert_loads(f, "workflow_persistence: {backend: file}\n");
  assert_waits(f, NULL, 30000);
  assert_loads(f, "workflow_persistence: {backend: redis}\n");
  assert_waits(f, NULL, 5000);
  assert_loads(f, URL);
  assert_waits(f, NULL, 10000);
}

static void the_general_one_is_everybodys(void **state) {
  fixture *f = *state;
  static const char *const backends[] = {"sqlite", "file", "redis"};
  static const char *const urls[] = {NULL, "sqlite:x.db", "file:x", "redis://h", "postgres://h/d"};
  for (size_t i = 0; i < sizeof(backends) / sizeof(backends[0]); i++) {
    char text[120];
    (void)snprintf(text, sizeof(text),
                   "workflow_persistence: {backend: %s, general: {timeout: 7}}\n", backends[i]);
    assert_loads(f, text);
    for (size_t j = 0; j < sizeof(urls) / sizeof(urls[0]); j++)
      assert_waits(f, urls[j], 7000);
  }
}

static void the_guides_is_for_sqlite_only(void **state) {
  fixture *f = *state;
  assert_loads(f, "workflow_persistence: {sqlite: {timeout: 0}}\n");
  assert_waits(f, NULL, 0);
  assert_waits(f, "sqlite:x.db", 0);
  assert_waits(f, "file:x", 30000);
  assert_waits(f, "redis://h", 5000);
  assert_loads(f, "workflow_persistence: {backend: file, sqlite: {timeout: 3}}\n");
  assert_has(f->warnings.ptr, "workflow_persistence.sqlite.* has no effect");
  assert_waits(f, NULL, 30000);
  assert_waits(f, "sqlite:x.db", 3000);
  assert_loads(f, "workflow_persistence: {backend: file, general: {timeout: 7},"
                  " sqlite: {timeout: 3}}\n");
  assert_waits(f, NULL, 7000);
  assert_waits(f, "sqlite:x.db", 3000);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      WITH_FIXTURE(each_backend_has_its_own_unless_one_is_given),
      WITH_FIXTURE(the_general_one_is_everybodys),
      WITH_FIXTURE(the_guides_is_for_sqlite_only),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
