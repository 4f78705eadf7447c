/* Tenants with stores of their own: they never meet, deadlines are found in stores that are closed,
 * and one whose store fails is alone with it. */
#include <sqlite3.h>

#include "tests/journal/fixture.h"

#include "journal/reader.h"

#define TENANTS 40

static void isolated_open(fixture *fx, const char *backend) {
  fixture_init(fx, backend);
  fx->isolated = true;
  storage_start(fx);
  host_start(fx, 0);
}

#define EACH_ISOLATED(fx) EACH_OPENED(fx, isolated_open)

static answer *list_of(fixture *fx, const char *tenant) {
  answer *a = answer_new(fx);
  tm_filter f = TM_FILTER_INIT;
  f.tenant = tenant;
  tm__reader_list(fx->storage, &f, on_reply, a);
  return await(a);
}

/* ---- what the store of all knows ---- */

typedef struct listing {
  tm_store_job job;
  uv_sem_t done;
  char names[TENANTS + 8][65];
  int64_t wake_at[TENANTS + 8];
  size_t count;
} listing;

static tm_status on_tenant(void *ud, tm_slice tenant, int64_t wake_at) {
  listing *l = ud;
  assert_true(l->count < TENANTS + 8);
  assert_true(tm__copy(l->names[l->count], 65, tenant));
  l->wake_at[l->count++] = wake_at;
  return TM_OK;
}

static tm_status list_work(tm_store_job *job, const tm_store_access *a, tm_error *err) {
  return a->backend->tenants(a->common, TM_S(""), TENANTS + 8, on_tenant, job, err);
}

static void list_done(tm_message *m) {
  uv_sem_post(&((listing *)m)->done);
}

static size_t listed(fixture *fx, listing *l) {
  *l = (listing){.job = {.message = {.run = list_done}, .work = list_work}};
  assert_int_equal(uv_sem_init(&l->done, 0), 0);
  tm__storage_run(fx->storage, &l->job);
  uv_sem_wait(&l->done);
  uv_sem_destroy(&l->done);
  assert_int_equal(l->job.status, TM_OK);
  return l->count;
}

/* ---- apart ---- */

static void test_apart(void **unused) {
  (void)unused;
  EACH_ISOLATED(fx) {
    host *h = &fx.hosts[0];
    char one[TM_ID_SIZE], two[TM_ID_SIZE];
    assert_answer(start_keyed(h, one, "hello", "the same key"));
    fx.tenant = "t2";
    assert_answer(start_keyed(h, two, "hello", "the same key"));
    assert_refused(say(h, one, "more"), TM_ENOTFOUND, "conversation.not_found");
    assert_refused(undo(h, one, 1, 0, false), TM_ENOTFOUND, "conversation.not_found");
    for (tm_read what = TM_READ_CONVERSATION; what <= TM_READ_CHECKPOINTS; what++)
      assert_refused(read_it(&fx, one, what, NULL, 0), TM_ENOTFOUND, "conversation.not_found");
    assert_answer(say(h, two, "more"));
    answer *mine = list_of(&fx, "t2"), *its = list_of(&fx, "t1");
    assert_holds(mine, two);
    assert_null(strstr(mine->json, one));
    assert_holds(its, one);
    assert_null(strstr(its->json, two));
    fx.tenant = "t1";
    assert_answer(say(h, one, "more"));
  }
}

/* The files themselves: what is t1's lies in the store that is opened for t1, and nowhere else. */
static void test_stores_are_apart(void **unused) {
  (void)unused;
  fixture fx;
  isolated_open(&fx, "sqlite");
  char id[TM_ID_SIZE];
  assert_answer(start(&fx.hosts[0], id, "hello"));
  fx.tenant = "t2";
  char other[TM_ID_SIZE];
  assert_answer(start(&fx.hosts[0], other, "hello"));
  fixture_stop(&fx);
  const tm_store_backend *b = tm__store_backend(TM_S("sqlite"));
  const char *const tenants[] = {NULL, "t1", "t2"};
  for (size_t i = 0; i < 3; i++) {
    tm_store_options o = fx.options;
    o.tenant = tenants[i];
    tm_store *s;
    tm_store_conn *c;
    tm_head head;
    tm_error err;
    assert_int_equal(b->open(&s, &o, &err), TM_OK);
    assert_int_equal(b->connect(&c, s, TM_STORE_READER, &err), TM_OK);
    assert_int_equal(b->head(c, tm__slice(id), &head, &err), i == 1 ? TM_OK : TM_ENOTFOUND);
    assert_int_equal(b->head(c, tm__slice(other), &head, &err), i == 2 ? TM_OK : TM_ENOTFOUND);
    b->disconnect(c);
    b->close(s);
  }
  fixture_close(&fx);
}

static void test_readers_make_no_store(void **unused) {
  (void)unused;
  EACH_ISOLATED(fx) {
    listing l;
    const char *const strangers[] = {"nobody", "t", "t11", "..", "../../x", "\xc3\xa9", "~", "a/b"};
    char id[TM_ID_SIZE];
    assert_answer(start(&fx.hosts[0], id, "hello"));
    for (size_t i = 0; i < sizeof(strangers) / sizeof(strangers[0]); i++) {
      answer *a = list_of(&fx, strangers[i]);
      assert_answer(a);
      assert_string_equal(a->json, "{\"items\":[],\"next\":null}");
    }
    assert_int_equal(listed(&fx, &l), 1);
    assert_string_equal(l.names[0], "t1");
  }
}

/* A name that cannot name a store is refused, and leaves nothing. */
static void test_names_are_checked(void **unused) {
  (void)unused;
  EACH_ISOLATED(fx) {
    listing l;
    const char *const names[] = {"../../x", "a/b", "\xc3\xa9", "..", "."};
    char id[TM_ID_SIZE];
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
      fx.tenant = names[i];
      answer *a = await(start(&fx.hosts[0], id, "hello"));
      assert_int_equal(a->status, TM_EINVAL);
      assert_string_equal(a->error.code, "store.tenant");
    }
    assert_int_equal(listed(&fx, &l), 0);
    fx.tenant = "t1";
    assert_answer(start(&fx.hosts[0], id, "hello"));
    assert_true(tm__storage_healthy(fx.storage));
  }
}

/* ---- deadlines ---- */

static void await_expired(fixture *fx, const char *tenant, const char *id) {
  fx->tenant = tenant;
  while (stored_head(fx, id).status != TM_EXPIRED) {
  }
}

/* Only one store of a tenant stays open while nobody uses it: the others are closed here. */
static void test_deadlines_of_closed_stores(void **unused) {
  (void)unused;
  EACH_ISOLATED(fx) {
    static char ids[TENANTS][TM_ID_SIZE], names[TENANTS][16];
    host *h = &fx.hosts[0];
    listing l;
    scheduler_start(h, 1000000);
    for (size_t i = 0; i < TENANTS; i++) {
      (void)snprintf(names[i], sizeof(names[i]), "tenant%zu", i);
      fx.tenant = names[i];
      assert_answer(start(h, ids[i], i % 2 == 0 ? "deadline" : "hello"));
    }
    assert_int_equal(listed(&fx, &l), TENANTS);
    turn_clock(&fx, 1000);
    tm__scheduler_poke(h->scheduler);
    for (size_t i = 0; i < TENANTS; i += 2)
      await_expired(&fx, names[i], ids[i]);
    for (size_t i = 1; i < TENANTS; i += 2) {
      fx.tenant = names[i];
      assert_int_equal(stored_head(&fx, ids[i]).status, TM_WAITING_INPUT);
    }
  }
}

/* A deadline that comes while its tenant has been put off for hours. */
static void test_deadline_after_a_calm(void **unused) {
  (void)unused;
  EACH_ISOLATED(fx) {
    host *h = &fx.hosts[0];
    char first[TM_ID_SIZE], second[TM_ID_SIZE];
    listing l;
    scheduler_start(h, 1000000);
    assert_answer(start(h, first, "deadline"));
    turn_clock(&fx, 1000);
    tm__scheduler_poke(h->scheduler);
    await_expired(&fx, "t1", first);
    do { /* the next look at the tenant finds nothing */
      turn_clock(&fx, 1000000);
      tm__scheduler_poke(h->scheduler);
      uv_sleep(1);
      (void)listed(&fx, &l);
    } while (l.wake_at[0] < fx.now + 3600000);
    assert_answer(start(h, second, "deadline"));
    (void)listed(&fx, &l);
    assert_int_equal(l.wake_at[0], fx.now + 1000);
    turn_clock(&fx, 1000);
    tm__scheduler_poke(h->scheduler);
    await_expired(&fx, "t1", second);
  }
}

static void test_deadlines_survive(void **unused) {
  (void)unused;
  fixture fx;
  isolated_open(&fx, "sqlite");
  char id[TM_ID_SIZE];
  assert_answer(start(&fx.hosts[0], id, "deadline"));
  fixture_stop(&fx);
  turn_clock(&fx, 5000);
  storage_start(&fx);
  host_start(&fx, 0);
  scheduler_start(&fx.hosts[0], 1000000);
  await_expired(&fx, "t1", id);
  fixture_close(&fx);
}

/* ---- trouble ---- */

static void test_one_store_fails(void **unused) {
  (void)unused;
  fixture fx;
  isolated_open(&fx, "sqlite");
  host *h = &fx.hosts[0];
  char good[TM_ID_SIZE], bad[TM_ID_SIZE];
  listing l;
  fx.tenant = "bad";
  assert_answer(start(h, bad, "deadline"));
  fx.tenant = "good";
  assert_answer(start(h, good, "hello")); /* bad's store is closed now */
  char path[256];
  (void)snprintf(path, sizeof(path), "%s.tenants/bad.db", fx.file);
  FILE *f = fopen(path, "r+");
  assert_non_null(f);
  assert_int_equal(fwrite("damaged damaged damaged", 1, 23, f), 23);
  assert_int_equal(fclose(f), 0);
  fx.tenant = "bad";
  answer *a = await(say(h, bad, "more"));
  assert_int_equal(a->status, TM_ECORRUPT);
  assert_true(tm__storage_healthy(fx.storage)); /* of all */
  turn_clock(&fx, 1000);
  scheduler_start(h, 1000000);
  do { /* it is not asked at every tick */
    (void)listed(&fx, &l);
  } while (l.wake_at[0] < fx.now + 30000);
  assert_string_equal(l.names[0], "bad");
  fx.tenant = "good";
  assert_answer(say(h, good, "more"));
  fixture_close(&fx);
}

static int complaints; /* atomic */

static void on_complaint(void *ud, const char *line, size_t size) {
  static const char words[] = "deadlines cannot be read";
  (void)ud;
  if (memmem(line, size, words, sizeof(words) - 1) != NULL)
    (void)__atomic_add_fetch(&complaints, 1, __ATOMIC_SEQ_CST);
}

/* The store of all can be read and not written: not even that a tenant failed can be noted. */
static void test_nothing_can_be_noted(void **unused) {
  (void)unused;
  fixture fx;
  sqlite3 *db;
  fixture_init(&fx, "sqlite");
  fx.options.timeout_ms = 100;
  fx.isolated = true;
  storage_start(&fx);
  host_start(&fx, 0);
  char names[16][16], id[TM_ID_SIZE];
  for (int i = 0; i < 16; i++) { /* a full page */
    (void)snprintf(names[i], sizeof(names[i]), "t%d", i);
    fx.tenant = names[i];
    assert_answer(start(&fx.hosts[0], id, "deadline"));
  }
  assert_int_equal(sqlite3_open(fx.file, &db), SQLITE_OK);
  assert_int_equal(sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
  turn_clock(&fx, 1000);
  fx.log.sink = on_complaint;
  scheduler_start(&fx.hosts[0], 1);
  while (__atomic_load_n(&complaints, __ATOMIC_SEQ_CST) < 32) /* asked, and not noted */
    uv_sleep(1);
  for (int i = 0; i < 5; i++) {
    tm__scheduler_poke(fx.hosts[0].scheduler);
    uv_sleep(20);
  }
  assert_in_range(__atomic_load_n(&complaints, __ATOMIC_SEQ_CST), 32, 64); /* told once */
  assert_int_equal(sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
  assert_int_equal(sqlite3_close(db), SQLITE_OK);
  do { /* each may be put off by a look at the end of the lock */
    turn_clock(&fx, 60000);
    tm__scheduler_poke(fx.hosts[0].scheduler);
    uv_sleep(1);
  } while (stored_head(&fx, id).status != TM_EXPIRED);
  fixture_close(&fx);
}

static void refused_open(fixture *fx) {
  tm_error err;
  tm_storage *s;
  assert_int_equal(storage_open(&s, fx, fx->backend->scheme, &err), TM_EINVAL);
  assert_null(s);
  assert_string_equal(err.code, "store.isolation");
  assert_non_null(strstr(err.message, "tenants.isolation"));
}

static void test_isolation_is_for_good(void **unused) {
  (void)unused;
  for (int first = 0; first < 2; first++) {
    fixture fx;
    char id[TM_ID_SIZE];
    fixture_init(&fx, "sqlite");
    fx.isolated = first == 1;
    storage_start(&fx);
    host_start(&fx, 0);
    assert_answer(start(&fx.hosts[0], id, "hello"));
    fixture_stop(&fx);
    fx.isolated = !fx.isolated;
    refused_open(&fx);
    fx.isolated = !fx.isolated;
    storage_start(&fx);
    host_start(&fx, 0);
    assert_answer(say(&fx.hosts[0], id, "more"));
    fixture_close(&fx);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_apart),
      cmocka_unit_test(test_stores_are_apart),
      cmocka_unit_test(test_readers_make_no_store),
      cmocka_unit_test(test_names_are_checked),
      cmocka_unit_test(test_deadlines_of_closed_stores),
      cmocka_unit_test(test_deadline_after_a_calm),
      cmocka_unit_test(test_deadlines_survive),
      cmocka_unit_test(test_one_store_fails),
      cmocka_unit_test(test_nothing_can_be_noted),
      cmocka_unit_test(test_isolation_is_for_good),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
