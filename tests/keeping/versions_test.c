/* The sources of versions: how long they are in the store, on every backend, in a clock that the
 * test turns; hosts with other scripts, tenants with stores of their own, memory, and who comes in
 * between. */
#include "keeping/purge.h"
#include "keeping/versions.h"
#include "tests/journal/fixture.h"

#define DAY  INT64_C(86400000)
#define HOUR INT64_C(3600000)

/* ---- store jobs that are waited for ---- */

typedef struct piece {
  tm_store_job job;
  uv_sem_t done;
  tm_versions *versions;
  tm_purge *purge;
  const char *version; /* to put to use, or to find */
  bool found;
} piece;

static void piece_done(tm_message *m) {
  uv_sem_post(&((piece *)m)->done);
}

static tm_status do_job(fixture *fx, piece *p, bool write, const char *tenant) {
  p->job.message.run = piece_done;
  p->job.write = write;
  (void)snprintf(p->job.tenant, sizeof(p->job.tenant), "%s", tenant);
  assert_int_equal(uv_sem_init(&p->done, 0), 0);
  tm__storage_run(fx->storage, &p->job);
  uv_sem_wait(&p->done);
  uv_sem_destroy(&p->done);
  return p->job.status;
}

static tm_status versions_work(tm_store_job *job, const tm_store_access *a, tm_error *err) {
  return tm__versions_piece(((piece *)job)->versions, a, err);
}

static void do_piece(fixture *fx, tm_versions *v) {
  piece p = {.job.work = versions_work, .versions = v};
  tm_status status = do_job(fx, &p, tm__versions_writes(v), tm__versions_tenant(v));
  if (status != TM_OK) print_error("%s: %s\n", p.job.error.code, p.job.error.message);
  assert_int_equal(status, TM_OK);
}

static tm_versions pass_new(fixture *fx, tm_registry *registry) {
  return (tm_versions){.registry = registry, .now = fixture_now(fx), .isolated = fx->isolated};
}

static int64_t finish(fixture *fx, tm_versions *v) {
  for (int i = 0; v->stage != TM_VERSIONS_DONE; i++) {
    assert_true(i < 1000);
    do_piece(fx, v);
  }
  tm__versions_end(v);
  return v->dropped;
}

static int64_t pass_of(fixture *fx, tm_registry *registry) {
  tm_versions v = pass_new(fx, registry);
  return finish(fx, &v);
}

static int64_t pass(fixture *fx) {
  return pass_of(fx, fx->registry);
}

static tm_status get_work(tm_store_job *job, const tm_store_access *a, tm_error *err) {
  tm_buf sources = {0};
  tm_status status = a->backend->script_get(a->common, TM_S("shop"),
                                            tm__slice(((piece *)job)->version), &sources, err);
  if (status == TM_OK) assert_string_equal(sources.ptr, "{\"files\":{}}");
  tm__buf_free(&sources);
  return status;
}

static bool is_stored(fixture *fx, const char *version) {
  piece p = {.job.work = get_work, .version = version};
  tm_status status = do_job(fx, &p, false, "");
  assert_true(status == TM_OK || status == TM_ENOTFOUND);
  return status == TM_OK;
}

static tm_status use_work(tm_store_job *job, const tm_store_access *a, tm_error *err) {
  return a->backend->script_use(a->common, TM_S("shop"), tm__slice(((piece *)job)->version), err);
}

static void use(fixture *fx, const char *version) {
  piece p = {.job.work = use_work, .version = version};
  assert_int_equal(do_job(fx, &p, true, ""), TM_OK);
}

static tm_status drop_work(tm_store_job *job, const tm_store_access *a, tm_error *err) {
  return a->backend->script_drop(a->common, TM_S("shop"), tm__slice(((piece *)job)->version),
                                 INT64_MAX, err);
}

static tm_status purge_work(tm_store_job *job, const tm_store_access *a, tm_error *err) {
  return tm__purge_piece(((piece *)job)->purge, a, err);
}

/* Conversations that have ended go at once. */
static void purge(fixture *fx) {
  const tm_retention keep = {.conversation_ms = 1};
  tm_purge pass_ = {.keep = &keep, .now = fixture_now(fx) + 1, .isolated = fx->isolated};
  while (pass_.stage != TM_PURGE_DONE) {
    piece p = {.job.work = purge_work, .purge = &pass_};
    assert_int_equal(do_job(fx, &p, tm__purge_writes(&pass_), tm__purge_tenant(&pass_)), TM_OK);
  }
}

/* ---- with the last conversation ---- */

static void test_stays_for_its_conversations(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char old[TM_ID_SIZE], fresh[TM_ID_SIZE];
    assert_int_equal(pass(&fx), 0);
    assert_true(is_stored(&fx, "v1"));
    assert_answer(start(h, old, "hello"));
    add_system(&fx, "v2");
    assert_int_equal(pass(&fx), 0);
    assert_answer(start(h, fresh, "hello"));
    for (int day = 0; day < 30; day++) { /* it waits for its user */
      turn_clock(&fx, DAY);
      assert_int_equal(pass(&fx), 0);
    }
    assert_true(is_stored(&fx, "v1"));
    assert_answer(say(h, old, "finish"));
    turn_clock(&fx, 30 * DAY); /* what is over can be rolled back */
    assert_int_equal(pass(&fx), 0);
    assert_answer(undo(h, old, 1, 0, true));
    assert_answer(say(h, old, "finish"));
    assert_string_equal(fx.last_version, "v1");
    purge(&fx);
    assert_int_equal(pass(&fx), 0); /* it was in use a moment ago */
    turn_clock(&fx, DAY);
    assert_int_equal(pass(&fx), 1);
    assert_false(is_stored(&fx, "v1"));
    assert_true(is_stored(&fx, "v2"));
    assert_answer(say(h, fresh, "hello"));
    assert_int_equal(pass(&fx), 0);
  }
}

static void test_waits_a_day(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    assert_int_equal(pass(&fx), 0);
    add_system(&fx, "v2");
    assert_int_equal(pass(&fx), 0);
    turn_clock(&fx, DAY - 1);
    tm_versions dry = pass_new(&fx, fx.registry);
    dry.dry = true;
    assert_int_equal(finish(&fx, &dry), 0);
    assert_int_equal(pass(&fx), 0);
    turn_clock(&fx, 1);
    dry = pass_new(&fx, fx.registry);
    dry.dry = true;
    assert_int_equal(finish(&fx, &dry), 1);
    assert_true(is_stored(&fx, "v1"));
    assert_int_equal(pass(&fx), 1);
    assert_false(is_stored(&fx, "v1"));
  }
}

/* ---- several hosts ---- */

static tm_registry *other_host(const char *version) {
  tm_error err;
  tm_registry *r = tm__registry_new();
  assert_non_null(r);
  tm_bundle *b = tm__bundle_new(TM_S("shop"), tm__slice(version), TM_S("{\"files\":{}}"),
                                TM_S("{\"name\":\"shop\"}"));
  assert_non_null(b);
  assert_int_equal(tm__registry_switch(r, &b, 1, &err), TM_OK);
  return r;
}

/* What one host would begin conversations in stays while that host lives. */
static void test_other_hosts_are_heard(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    char id[TM_ID_SIZE];
    tm_registry *other = other_host("v9");
    for (int i = 0; i < 20; i++) {
      assert_int_equal(pass(&fx), 0);
      assert_int_equal(pass_of(&fx, other), 0);
      turn_clock(&fx, 6 * HOUR);
    }
    assert_true(is_stored(&fx, "v1"));
    assert_true(is_stored(&fx, "v9"));
    turn_clock(&fx, DAY); /* this one is gone */
    assert_int_equal(pass_of(&fx, other), 1);
    assert_false(is_stored(&fx, "v1"));
    assert_answer(start(&fx.hosts[0], id, "hello")); /* it had only been stopped for so long */
    assert_int_equal(pass(&fx), 0);
    assert_true(is_stored(&fx, "v1"));
    assert_int_equal(pass_of(&fx, other), 0);
    tm__registry_free(other);
  }
}

/* Somebody takes a version up again between the look and the removal. */
static void test_used_meanwhile(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    assert_int_equal(pass(&fx), 0);
    add_system(&fx, "v2");
    turn_clock(&fx, 2 * DAY);
    tm_versions v = pass_new(&fx, fx.registry);
    while (v.stage != TM_VERSIONS_DROP)
      do_piece(&fx, &v);
    use(&fx, "v1");
    assert_int_equal(finish(&fx, &v), 0);
    assert_true(is_stored(&fx, "v1"));
  }
}

/* A conversation that begins during the walk is met by the second look. */
static void test_begun_meanwhile(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    char id[TM_ID_SIZE];
    assert_int_equal(pass(&fx), 0);
    add_system(&fx, "v2");
    assert_answer(start(&fx.hosts[0], id, "hello"));
    turn_clock(&fx, 2 * DAY);
    tm_versions v = pass_new(&fx, fx.registry);
    while (v.stage != TM_VERSIONS_WALK)
      do_piece(&fx, &v);
    do_piece(&fx, &v); /* the first look */
    add_system(&fx, "v1");
    assert_answer(start(&fx.hosts[0], id, "hello"));
    assert_int_equal(finish(&fx, &v), 0);
    assert_true(is_stored(&fx, "v1"));
  }
}

/* Sources that went although a conversation needs them come back from a host that has them. */
static void test_comes_back(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    char id[TM_ID_SIZE];
    assert_int_equal(pass(&fx), 0);
    assert_answer(start(&fx.hosts[0], id, "hello"));
    add_system(&fx, "v2");
    turn_clock(&fx, DAY);
    tm_versions v = pass_new(&fx, fx.registry);
    while (v.stage != TM_VERSIONS_USE)
      do_piece(&fx, &v);
    piece p = {.job.work = drop_work, .version = "v1"};
    assert_int_equal(do_job(&fx, &p, true, ""), TM_OK);
    assert_int_equal(finish(&fx, &v), 0);
    assert_true(is_stored(&fx, "v1"));
  }
}

/* ---- wherever conversations are ---- */

static void test_conversations_in_memory(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    char id[TM_ID_SIZE];
    assert_int_equal(pass(&fx), 0);
    assert_answer(start(&fx.hosts[0], id, "volatile"));
    add_system(&fx, "v2");
    for (int day = 0; day < 3; day++) {
      turn_clock(&fx, DAY / 2);
      assert_int_equal(pass(&fx), 0);
    }
    assert_true(is_stored(&fx, "v1"));
    assert_answer(say(&fx.hosts[0], id, "finish"));
    purge(&fx);
    turn_clock(&fx, DAY);
    assert_int_equal(pass(&fx), 1);
  }
}

static void open_isolated(fixture *fx, const char *backend) {
  fixture_init(fx, backend);
  fx->isolated = true;
  storage_start(fx);
  host_start(fx, 0);
}

static void test_tenants_with_stores_of_their_own(void **unused) {
  (void)unused;
  EACH_OPENED(fx, open_isolated) {
    char ids[3][TM_ID_SIZE];
    static const char *const tenants[] = {"a", "b", "c"};
    assert_int_equal(pass(&fx), 0);
    for (int i = 0; i < 3; i++) {
      fx.tenant = tenants[i];
      if (i == 2) add_system(&fx, "v2");
      assert_answer(start(&fx.hosts[0], ids[i], "hello"));
    }
    turn_clock(&fx, 3 * DAY);
    assert_int_equal(pass(&fx), 0);
    assert_true(is_stored(&fx, "v1"));
    for (int i = 0; i < 2; i++) {
      fx.tenant = tenants[i];
      assert_answer(say(&fx.hosts[0], ids[i], "finish"));
      purge(&fx);
      turn_clock(&fx, DAY);
      assert_int_equal(pass(&fx), i);
    }
    assert_false(is_stored(&fx, "v1"));
  }
}

/* More than a page, the last of them on the old version. */
static void test_many_conversations(void **unused) {
  (void)unused;
  char id[TM_ID_SIZE];
  fixture fx;
  fixture_open(&fx, "memory");
  assert_int_equal(pass(&fx), 0);
  assert_answer(start(&fx.hosts[0], id, "hello"));
  add_system(&fx, "v2");
  for (int i = 0; i < 600; i++) {
    char other[TM_ID_SIZE];
    turn_clock(&fx, 1);
    assert_answer(start(&fx.hosts[0], other, "hello"));
  }
  turn_clock(&fx, 3 * DAY);
  assert_int_equal(pass(&fx), 0);
  assert_true(is_stored(&fx, "v1"));
  assert_answer(say(&fx.hosts[0], id, "finish"));
  purge(&fx);
  turn_clock(&fx, DAY);
  assert_int_equal(pass(&fx), 1);
  fixture_close(&fx);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_stays_for_its_conversations),
      cmocka_unit_test(test_waits_a_day),
      cmocka_unit_test(test_other_hosts_are_heard),
      cmocka_unit_test(test_used_meanwhile),
      cmocka_unit_test(test_begun_meanwhile),
      cmocka_unit_test(test_comes_back),
      cmocka_unit_test(test_conversations_in_memory),
      cmocka_unit_test(test_tenants_with_stores_of_their_own),
      cmocka_unit_test(test_many_conversations),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
