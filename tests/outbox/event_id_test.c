/* Names of events: one for each, also after a restore; what is no name is none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "outbox/event_id.h"

#define ID "01997f2e-0000-7000-8000-000000000001"

static tm_outgoing event(int64_t revision, int index, int64_t created) {
  return (tm_outgoing){
      .conversation = ID, .revision = revision, .index = index, .created = created};
}

static void names_are_read_as_written(void **state) {
  (void)state;
  const tm_outgoing all[] = {event(1, 0, 0), event(INT64_MAX, 1000000, INT64_MAX),
                             event(9, 3, 1763800000000)};
  for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
    char id[TM_EVENT_ID_SIZE];
    tm_outgoing got = {.revision = 0};
    tm__event_id(id, &all[i]);
    assert_true(tm__event_id_read(&got, tm__slice(id)));
    assert_string_equal(got.conversation, ID);
    assert_true(got.revision == all[i].revision && got.index == all[i].index &&
                got.created == all[i].created);
  }
}

static void a_revision_made_anew_has_other_names(void **state) {
  (void)state;
  char before[TM_EVENT_ID_SIZE], after[TM_EVENT_ID_SIZE];
  const tm_outgoing lost = event(9, 0, 1000), made = event(9, 0, 2000);
  tm__event_id(before, &lost);
  tm__event_id(after, &made);
  assert_string_not_equal(before, after);
}

static void others_are_none(void **state) {
  (void)state;
  static const char *const bad[] = {
      "",          ID,           ID ":",        ID ":1",           ID ":1:0",
      ID ":1:0:",  ID ":1:0:5:", ID ":1:0:5:6", ID ":01:0:5",      ID ":1:0: 5",
      ID ":0:0:5", ID ":-1:0:5", ID ":1:-1:5",  ID ":1:1000001:5", ID ":1:0:99999999999999999999",
      "a:1:0:5",   ":1:0:5"};
  for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
    tm_outgoing got = {.revision = 0};
    if (tm__event_id_read(&got, tm__slice(bad[i]))) fail_msg("%s", bad[i]);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(names_are_read_as_written),
      cmocka_unit_test(a_revision_made_anew_has_other_names),
      cmocka_unit_test(others_are_none),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
