/* Migrations: one row that takes a conversation to the current version of its system, or nothing;
 * what is shown before; who comes in between; and that there is no way back over one. */
#include "fixture.h"

static answer *migrate_as(host *h, const char *id, const char *what, bool dry) {
  tm_request *r = request_new(h->fx->tenant, TM_REQUEST_SIGNAL, id);
  r->signal = TM_TURN_MIGRATE;
  r->dry_run = dry;
  h->fx->on_migrate = what;
  return submit(h, r);
}

static answer *migrate(host *h, const char *id) {
  return migrate_as(h, id, "hello", false);
}

static void expect_version(fixture *fx, const char *id, const char *version, int64_t revision) {
  tm_head head = stored_head(fx, id);
  assert_string_equal(head.version, version);
  assert_int_equal(head.revision, revision);
}

/* ---- to the current version ---- */

static void test_one_row_takes_it_there(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    assert_answer(start(h, id, "hello"));
    assert_answer(say(h, id, "hello"));
    add_system(&fx, "v2");
    answer *a = migrate(h, id);
    assert_answer(a);
    assert_int_equal(fx.last_kind, TM_TURN_MIGRATE);
    assert_string_equal(fx.last_version, "v2");
    assert_member(a, "flow_version", "\"v2\"");
    assert_member(a, "revision", "3");
    expect_version(&fx, id, "v2", 3);
    assert_answer(say(h, id, "hello"));
    assert_string_equal(fx.last_version, "v2");
    host_stop(h);
    host_start(&fx, 0);
    assert_answer(say(h, id, "hello")); /* from its rows */
    assert_string_equal(fx.last_version, "v2");
    answer *shown = read_it(&fx, id, TM_READ_CONVERSATION, NULL, 0);
    assert_member(shown, "flow_version", "\"v2\"");
    assert_holds(shown, "\"count\":5");
  }
}

/* The new version has to be able to undo it: what was completed, once, and not undone since. */
static void test_what_it_has_done(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    assert_answer(start(h, id, "hello"));
    assert_answer(say(h, id, "paid"));
    assert_answer(say(h, id, "fixed"));
    assert_answer(say(h, id, "paid"));
    assert_answer(say(h, id, "paid"));
    fx.on_undo = "undo";
    assert_answer(undo(h, id, 1, 0, false));
    for (int i = 2; i < 4; i++) {
      add_system(&fx, i == 2 ? "v2" : "v3");
      assert_answer(migrate(h, id));
      assert_string_equal(fx.last_input, "{\"done\":[\"orders/step4\",\"orders/step2\"]}");
    }
  }
}

static void test_whatever_it_waits_for(void **unused) {
  (void)unused;
  static const char *const waits[] = {"approval", "event", "sleep", "pause"};
  EACH_BACKEND(fx) {
    char ids[4][TM_ID_SIZE];
    for (size_t i = 0; i < 4; i++)
      assert_answer(start(&fx.hosts[0], ids[i], waits[i]));
    add_system(&fx, "v2");
    for (size_t i = 0; i < 4; i++) {
      assert_answer(migrate_as(&fx.hosts[0], ids[i], waits[i], false));
      expect_version(&fx, ids[i], "v2", 2);
    }
  }
}

static void test_what_is_there_already(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    assert_answer(start(h, id, "hello"));
    int turns = fx.turns;
    for (int dry = 0; dry < 2; dry++) {
      answer *a = migrate_as(h, id, "broken", dry != 0);
      assert_answer(a);
      assert_member(a, "flow_version", "\"v1\"");
      assert_member(a, "status", "\"waiting_input\"");
    }
    assert_int_equal(fx.turns, turns);
    expect_version(&fx, id, "v1", 1);
  }
}

static void test_what_cannot_go(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    tm_error err;
    char over[TM_ID_SIZE], open[TM_ID_SIZE];
    assert_answer(start(h, over, "finish"));
    assert_answer(start(h, open, "hello"));
    add_system(&fx, "v2");
    assert_refused(migrate(h, over), TM_ECONFLICT, "conversation.finished");
    assert_refused(migrate_as(h, open, "broken", false), TM_ESCRIPT, "test.failed");
    assert_refused(migrate_as(h, open, "broken", true), TM_ESCRIPT, "test.failed");
    assert_refused(migrate_as(h, open, "refuse", false), TM_ECONFLICT, "test.refused");
    expect_version(&fx, open, "v1", 1);
    assert_answer(say(h, open, "hello"));
    assert_string_equal(fx.last_version, "v1");
    assert_int_equal(tm__registry_switch(fx.registry, NULL, 0, &err), TM_OK);
    assert_refused(migrate(h, open), TM_ENOTFOUND, "system.not_found");
    expect_version(&fx, open, "v1", 2);
  }
}

/* What has begun goes on with its version; no way leads into one that is another tenant's. */
static void test_to_a_version_of_another_tenant(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE], other[TM_ID_SIZE];
    assert_answer(start(h, id, "hello"));
    describe_system(&fx, "v2", "{\"tenant_id\":\"t2\"}");
    assert_refused(migrate(h, id), TM_ENOTFOUND, "system.not_found");
    assert_refused(migrate_as(h, id, "hello", true), TM_ENOTFOUND, "system.not_found");
    assert_refused(start(h, other, "hello"), TM_ENOTFOUND, "system.not_found");
    assert_answer(say(h, id, "hello"));
    expect_version(&fx, id, "v1", 2);
    fx.tenant = "t2";
    assert_answer(start(h, other, "hello"));
    fx.tenant = "t1";
    describe_system(&fx, "v3", "{\"tenant_id\":\"t1\"}");
    assert_answer(migrate(h, id));
    expect_version(&fx, id, "v3", 3);
  }
}

/* Sources that are lost keep a conversation from going on, and not from going to a version that
 * there is. */
static void test_from_a_version_that_is_lost(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    assert_answer(start(h, id, "hello"));
    host_stop(h);
    tm__registry_free(fx.registry);
    fx.registry = tm__registry_new();
    assert_non_null(fx.registry);
    add_system(&fx, "v2");
    host_start(&fx, 0);
    assert_refused(say(h, id, "hello"), TM_ESCRIPT, "system.version_missing");
    assert_answer(migrate(h, id));
    assert_answer(say(h, id, "hello"));
    expect_version(&fx, id, "v2", 3);
  }
}

/* ---- shown before ---- */

static void test_dry_run(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    assert_answer(start(h, id, "hello"));
    add_system(&fx, "v2");
    answer *a = migrate_as(h, id, "approval", true);
    assert_answer(a);
    assert_member(a, "dry_run", "true");
    assert_member(a, "durable", "false");
    assert_member(a, "from_version", "\"v1\"");
    assert_member(a, "flow_version", "\"v2\"");
    assert_member(a, "status", "\"waiting_approval\"");
    assert_member(a, "revision", "1");
    assert_int_equal(tm__json_get_int(tm__json_get(tm__slice(a->json), "state"), "count", 0), 2);
    expect_version(&fx, id, "v1", 1);
    answer *next = say(h, id, "hello"); /* also the hot copy is as it was */
    assert_answer(next);
    assert_string_equal(fx.last_version, "v1");
    assert_member(next, "revision", "2");
    assert_holds(read_it(&fx, id, TM_READ_CONVERSATION, NULL, 0), "\"count\":2");
  }
}

/* ---- who comes in between ---- */

static void test_overtaken(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    char id[TM_ID_SIZE];
    host_start(&fx, 1);
    assert_answer(start(&fx.hosts[0], id, "hello"));
    assert_answer(say(&fx.hosts[1], id, "hello"));
    add_system(&fx, "v2");
    answer *a = migrate_as(&fx.hosts[0], id, "hold", false);
    run *held = held_run(&fx.hosts[0]);
    assert_answer(say(&fx.hosts[1], id, "hello")); /* on the version that it has */
    assert_string_equal(fx.last_version, "v1");
    release(held);
    release(held_run(&fx.hosts[0])); /* it runs again, on the record of now */
    assert_answer(a);
    assert_member(a, "revision", "4");
    expect_version(&fx, id, "v2", 4);
    assert_answer(say(&fx.hosts[1], id, "hello")); /* whose hot copy is stale */
    assert_string_equal(fx.last_version, "v2");
    expect_version(&fx, id, "v2", 5);
  }
}

static void test_waits_for_the_turn_that_runs(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    assert_answer(start(h, id, "hello"));
    answer *first = say(h, id, "hold_begun");
    run *held = held_run(h);
    add_system(&fx, "v2");
    answer *second = migrate(h, id);
    release(held);
    assert_answer(first);
    assert_member(first, "flow_version", "\"v1\"");
    assert_answer(second);
    assert_member(second, "flow_version", "\"v2\"");
  }
}

/* ---- back ---- */

static void test_no_way_back_over_it(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    assert_answer(start(h, id, "hello"));
    assert_answer(say(h, id, "checkpoint"));
    add_system(&fx, "v2");
    assert_answer(migrate(h, id)); /* row 3 */
    assert_refused(undo(h, id, 1, 0, true), TM_ECONFLICT, "rollback.migrated");
    assert_refused(undo(h, id, 0, 2, true), TM_ECONFLICT, "rollback.migrated");
    assert_answer(say(h, id, "hello"));
    assert_answer(say(h, id, "hello"));
    assert_refused(undo(h, id, 3, 0, true), TM_ECONFLICT, "rollback.migrated");
    answer *a = undo(h, id, 2, 0, true);
    assert_answer(a);
    assert_member(a, "flow_version", "\"v2\"");
    assert_holds(read_it(&fx, id, TM_READ_CONVERSATION, NULL, 0), "\"count\":3");
    assert_answer(say(h, id, "hello"));
    assert_string_equal(fx.last_version, "v2");
    assert_refused(undo(h, id, 2, 0, true), TM_ECONFLICT, "rollback.migrated");
  }
}

static void test_checkpoints_end_there(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    assert_answer(start(h, id, "checkpoint"));
    assert_answer(say(h, id, "checkpoint"));
    add_system(&fx, "v2");
    assert_answer(migrate_as(h, id, "checkpoint", false));
    assert_answer(say(h, id, "checkpoint"));
    for (int limit = 1; limit <= 3; limit++) { /* in pages too */
      char cursor[256] = "";
      int seen = 0;
      do {
        answer *a = read_it(&fx, id, TM_READ_CHECKPOINTS, cursor, limit);
        assert_answer(a);
        for (const char *p = a->json; (p = strstr(p, "\"checkpoint_id\"")) != NULL; p++)
          seen++;
        tm_slice next = tm__json_get(tm__slice(a->json), "next");
        cursor[0] = '\0';
        if (next.ptr[0] == '"')
          assert_true(tm__copy(cursor, sizeof(cursor), (tm_slice){next.ptr + 1, next.len - 2}));
      } while (cursor[0] != '\0');
      assert_int_equal(seen, 2);
    }
    assert_refused(undo(h, id, 0, 1, true), TM_ECONFLICT, "rollback.migrated");
    assert_answer(undo(h, id, 0, 3, true));
  }
}

/* Where rules let only the oldest of the needed ones be listed, the migration ends that search. */
static void test_old_checkpoints_end_there(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    fx.rollback = 3;
    fx.keep.checkpoints.most = 1;
    assert_answer(start(h, id, "checkpoint"));
    add_system(&fx, "v2");
    assert_answer(migrate_as(h, id, "checkpoint", false)); /* row 2 */
    assert_answer(say(h, id, "checkpoint"));
    answer *a = read_it(&fx, id, TM_READ_CHECKPOINTS, NULL, 0);
    assert_holds(a, "\"checkpoint_id\":\"3\"");
    assert_holds(a, "\"checkpoint_id\":\"2\"");
    assert_null(strstr(a->json, "\"checkpoint_id\":\"1\""));
    assert_answer(undo(h, id, 0, 2, true));
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_one_row_takes_it_there),
      cmocka_unit_test(test_what_it_has_done),
      cmocka_unit_test(test_whatever_it_waits_for),
      cmocka_unit_test(test_what_is_there_already),
      cmocka_unit_test(test_what_cannot_go),
      cmocka_unit_test(test_to_a_version_of_another_tenant),
      cmocka_unit_test(test_from_a_version_that_is_lost),
      cmocka_unit_test(test_dry_run),
      cmocka_unit_test(test_overtaken),
      cmocka_unit_test(test_waits_for_the_turn_that_runs),
      cmocka_unit_test(test_no_way_back_over_it),
      cmocka_unit_test(test_checkpoints_end_there),
      cmocka_unit_test(test_old_checkpoints_end_there),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
