/* Sealing anew: after a change of keys, of a plain store, with a tenant's own key; while turns run,
 * while another host does the same, after a stop in the middle, when the store fails. */
#include "tests/journal/fixture.h"

#include <sqlite3.h>

#include "keeping/reseal.h"
#include "persistence/seal.h"
#include "tests/provoke.h"

#define KEY_B "Yl7cVH1m9d2+R/3qAvQyW3iX1Jm2rC6y8q5Gm0sTn0M="

static const char *const old_keys[] = {FIXTURE_KEY};

/* ---- what is stored ---- */

typedef struct survey { /* of all rows and sessions */
  tm_store_job job;
  uv_sem_t done;
  const tm_store_access *a;
  tm_error *err;
  tm_head head;
  size_t rows, plain, sessions, events;
  char id[TM_SEAL_ID_HEX]; /* of the key that those which are sealed have in common */
  bool mixed;
} survey;

static void look_at(survey *s, uint32_t flags, tm_slice bytes) {
  char id[TM_SEAL_ID_HEX];
  if ((flags & TM_BODY_SEALED) == 0) {
    s->plain++;
    return;
  }
  assert_non_null(tm__seal_id(bytes));
  tm__seal_id_hex(id, tm__seal_id(bytes));
  if (s->id[0] != '\0' && strcmp(s->id, id) != 0) s->mixed = true;
  memcpy(s->id, id, sizeof(id));
}

static tm_status survey_row(void *ud, const tm_row *row) {
  survey *s = ud;
  s->rows++;
  look_at(s, row->flags, row->body);
  return TM_OK;
}

static tm_status survey_session(void *ud, const tm_session *session) {
  survey *s = ud;
  s->sessions++;
  if (session->user_id.ptr != NULL) look_at(s, session->flags, session->user_id);
  if (session->metadata.ptr != NULL) look_at(s, session->flags, session->metadata);
  return TM_OK;
}

static tm_status survey_event(void *ud, const tm_outgoing *event) {
  survey *s = ud;
  s->events++;
  look_at(s, event->flags, event->body);
  return TM_OK;
}

static tm_status survey_head(void *ud, const tm_head *head) {
  survey *s = ud;
  s->head = *head;
  return TM_ECANCELLED;
}

static tm_status survey_work(tm_store_job *job, const tm_store_access *a, tm_error *err) {
  survey *s = (survey *)(void *)job;
  tm_list_filter f = {.status = -1, .limit = 1};
  tm_status status;
  while ((status = a->backend->list(a->conn, &f, survey_head, s, err)) == TM_ECANCELLED) {
    memcpy(f.before, s->head.id, sizeof(f.before));
    status =
        a->backend->chain(a->conn, tm__slice(s->head.id), s->head.tip, false, survey_row, s, err);
    if (status != TM_OK) return status;
  }
  const tm_outgoing_filter told = {.dead = -1, .limit = 1000};
  if (status == TM_OK) status = a->backend->outbox_list(a->conn, &told, survey_event, s, err);
  const tm_session_filter all = {.ended = -1, .limit = 1000};
  return status == TM_OK ? a->backend->sessions(a->conn, &all, survey_session, s, err) : status;
}

static void survey_done(tm_message *m) {
  uv_sem_post(&((survey *)(void *)m)->done);
}

static survey survey_of(fixture *fx) {
  survey s = {.job = {.work = survey_work, .message.run = survey_done}};
  if (fx->isolated) (void)snprintf(s.job.tenant, sizeof(s.job.tenant), "%s", fx->tenant);
  assert_int_equal(uv_sem_init(&s.done, 0), 0);
  tm__storage_run(fx->storage, &s.job);
  uv_sem_wait(&s.done);
  uv_sem_destroy(&s.done);
  assert_int_equal(s.job.status, TM_OK);
  return s;
}

/* The only key that anything is sealed with, "" none; and so many texts are plain. */
static void check_store(fixture *fx, const char *key, size_t plain) {
  survey s = survey_of(fx);
  tm_error err;
  tm_buf ids = {0};
  tm_keyring *k = NULL;
  const tm_keyring_options o = {.current = key, .current_name = "key"};
  assert_int_equal(tm__keyring_new(&k, &o, &err), TM_OK);
  assert_int_equal(tm__keyring_ids(k, (tm_slice){0}, &ids, &err), TM_OK);
  assert_string_equal(s.id, tm__buf_view(&ids).ptr);
  assert_false(s.mixed);
  assert_int_equal(s.plain, plain);
  assert_true(s.rows > 0 && s.sessions > 0);
  tm__buf_free(&ids);
  tm__keyring_free(k);
}

/* ---- the work, and what it says ---- */

typedef struct work {
  tm_reseal *reseal;
  tm_log log;
  uv_mutex_t lock;
  uv_cond_t changed;
  tm_buf said;
} work;

static void on_line(void *ud, const char *line, size_t size) {
  work *w = ud;
  uv_mutex_lock(&w->lock);
  tm__buf_add(&w->said, line, size);
  tm__buf_byte(&w->said, '\n');
  uv_cond_broadcast(&w->changed);
  uv_mutex_unlock(&w->lock);
}

static void work_start(work *w, fixture *fx, size_t batch) {
  tm_error err = {0};
  *w = (work){.log = {.sink = on_line, .ud = w, .clock = {fixture_now, fx}}};
  assert_int_equal(uv_mutex_init(&w->lock), 0);
  assert_int_equal(uv_cond_init(&w->changed), 0);
  const tm_reseal_options o = {
      .storage = fx->storage, .codec = fx->codec, .log = &w->log, .batch = batch, .retry_ms = 5};
  assert_int_equal(tm__reseal_start(&w->reseal, &o, &err), TM_OK);
}

static void work_await(work *w, const char *text) {
  uv_mutex_lock(&w->lock);
  while (w->said.ptr == NULL || strstr(w->said.ptr, text) == NULL) {
    if (uv_cond_timedwait(&w->changed, &w->lock, PATIENCE) != 0) fail_msg("never said: %s", text);
  }
  uv_mutex_unlock(&w->lock);
}

static void work_stop(work *w) {
  tm__reseal_stop(w->reseal);
  uv_cond_destroy(&w->changed);
  uv_mutex_destroy(&w->lock);
  tm__buf_free(&w->said);
}

#define ALL_DONE "all that has to be is sealed with the keys of today"

static void seal_anew(fixture *fx, size_t batch) {
  work w;
  work_start(&w, fx, batch);
  assert_non_null(w.reseal);
  work_await(&w, ALL_DONE);
  work_stop(&w);
}

/* ---- stores ---- */

enum { TALKS = 3 };
static char talks[TALKS][TM_ID_SIZE];

static answer *start_in(host *h, char id[TM_ID_SIZE], int n) {
  tm__uuid7(id, fixture_now(h->fx) + n);
  tm_request *r = request_new("t1", TM_REQUEST_START, id);
  (void)snprintf(r->system, sizeof(r->system), "shop");
  (void)snprintf(r->flow, sizeof(r->flow), "orders");
  (void)snprintf(r->session, sizeof(r->session), "s%d", n);
  r->user_id = strdup("ann@example.org");
  if (n % 2 == 0) r->metadata_json = strdup("{\"from\":\"here\"}");
  r->input_json = strdup("{\"message\":\"one\",\"metadata\":null,\"user_id\":\"u\"}");
  return submit(h, r);
}

static void fill(fixture *fx) {
  host *h = &fx->hosts[0];
  for (int i = 0; i < TALKS; i++) {
    assert_answer(start_in(h, talks[i], i));
    assert_answer(say(h, talks[i], "call2"));
    assert_answer(say(h, talks[i], "emit"));
    for (int n = 0; n < 2 * i; n++)
      assert_answer(say(h, talks[i], "more"));
    assert_answer(undo(h, talks[i], 1, 0, true));
  }
}

static void check_talks(fixture *fx) {
  for (int i = 0; i < TALKS; i++) {
    answer *a = read_it(fx, talks[i], TM_READ_STEPS, "", 200);
    assert_answer(a);
    assert_holds(a, "step1");
    assert_answer(say(&fx->hosts[0], talks[i], "again"));
  }
}

static void open_with(fixture *fx, const char *backend, bool seal) {
  fixture_init(fx, backend);
  fx->coding.seal = seal;
  fx->compress = true;
  storage_start(fx);
  host_start(fx, 0);
}

static void turn_keys(fixture *fx, const char *current, bool with_old) {
  fx->keys.current = current;
  fx->keys.previous = old_keys;
  fx->keys.previous_count = with_old;
}

/* ---- the tests ---- */

static void test_another_key(void **unused) {
  (void)unused;
  for (size_t batch = 1; batch < 70; batch = 16 * batch + 1) {
    fixture fx;
    open_with(&fx, "sqlite", true);
    fill(&fx);
    check_store(&fx, FIXTURE_KEY, 0);
    turn_keys(&fx, KEY_B, true);
    fixture_restart(&fx);
    seal_anew(&fx, batch);
    check_store(&fx, KEY_B, 0);
    assert_int_equal(survey_of(&fx).events, 2 * TALKS);
    turn_keys(&fx, KEY_B, false); /* nobody needs the old one */
    fixture_restart(&fx);
    check_talks(&fx);
    check_store(&fx, KEY_B, 0);
    fixture_close(&fx);
  }
}

static void test_of_flows_that_seal(void **unused) {
  (void)unused;
  fixture fx;
  open_with(&fx, "sqlite", false);
  assert_answer(start_in(&fx.hosts[0], talks[0], 0)); /* not sealed: 1 row, 2 texts */
  fx.seal = true;
  fill(&fx); /* the session of the first was there before */
  check_store(&fx, FIXTURE_KEY, 3);
  turn_keys(&fx, KEY_B, true);
  fixture_restart(&fx);
  seal_anew(&fx, 3);
  check_store(&fx, KEY_B, 3);
  fixture_close(&fx);
}

static void test_a_plain_store(void **unused) {
  (void)unused;
  fixture fx;
  open_with(&fx, "sqlite", false);
  fill(&fx);
  survey plain = survey_of(&fx);
  assert_int_equal(plain.id[0], '\0');
  fx.coding.seal = true;
  fixture_restart(&fx);
  answer *a = read_it(&fx, talks[0], TM_READ_CONVERSATION, "", 0);
  assert_refused(a, TM_ECORRUPT, "seal.plaintext");
  fx.coding.accept_plaintext = true;
  fixture_restart(&fx);
  check_talks(&fx);
  seal_anew(&fx, 4);
  check_store(&fx, FIXTURE_KEY, 0);
  fx.coding.accept_plaintext = false;
  fixture_restart(&fx);
  check_talks(&fx);
  fixture_close(&fx);
}

/* Sealing what somebody else has written would make it true. */
static void test_plaintext_is_not_laundered(void **unused) {
  (void)unused;
  fixture fx;
  work w;
  open_with(&fx, "sqlite", false);
  fill(&fx);
  survey plain = survey_of(&fx);
  turn_keys(&fx, KEY_B, true);
  fx.coding.seal = true;
  fixture_restart(&fx);
  work_start(&w, &fx, 4);
  work_await(&w, "not everything could be sealed");
  assert_non_null(strstr(w.said.ptr, "seal.plaintext"));
  work_stop(&w);
  check_store(&fx, "", plain.plain);
  fx.coding.accept_plaintext = true; /* then they are found again */
  fixture_restart(&fx);
  seal_anew(&fx, 4);
  check_store(&fx, KEY_B, 0);
  fixture_close(&fx);
}

static void test_nothing_to_do(void **unused) {
  (void)unused;
  fixture fx;
  work w;
  open_with(&fx, "sqlite", true);
  fill(&fx);
  work_start(&w, &fx, 0); /* no keys of before */
  assert_null(w.reseal);
  work_stop(&w);
  turn_keys(&fx, KEY_B, true);
  fixture_restart(&fx);
  seal_anew(&fx, 0);
  for (int i = 0; i < 2; i++) { /* done before: what is newer is looked at */
    work_start(&w, &fx, 0);
    work_await(&w, ALL_DONE);
    assert_non_null(strstr(w.said.ptr, "sealed=0"));
    work_stop(&w);
  }
  fixture_close(&fx);
}

static void test_stopped_in_the_middle(void **unused) {
  (void)unused;
  fixture fx;
  work w;
  open_with(&fx, "sqlite", true);
  fill(&fx);
  turn_keys(&fx, KEY_B, true);
  fixture_restart(&fx);
  for (int i = 0; i < 4; i++) { /* each start gets a row further at least */
    work_start(&w, &fx, 1);
    work_stop(&w);
  }
  fixture_restart(&fx);
  seal_anew(&fx, 1);
  check_store(&fx, KEY_B, 0);
  check_talks(&fx);
  fixture_close(&fx);
}

static void test_two_at_once_while_turns_run(void **unused) {
  (void)unused;
  fixture fx;
  work one, two;
  open_with(&fx, "sqlite", true);
  fill(&fx);
  turn_keys(&fx, KEY_B, true);
  fixture_restart(&fx);
  work_start(&one, &fx, 2);
  work_start(&two, &fx, 3);
  check_talks(&fx);
  check_talks(&fx);
  work_await(&one, ALL_DONE);
  work_await(&two, ALL_DONE);
  work_stop(&one);
  work_stop(&two);
  check_store(&fx, KEY_B, 0);
  turn_keys(&fx, KEY_B, false);
  fixture_restart(&fx);
  check_talks(&fx);
  fixture_close(&fx);
}

static void test_the_store_fails(void **unused) {
  (void)unused;
  fixture fx;
  work w;
  sqlite3 *db;
  fixture_init(&fx, "sqlite");
  fx.options.timeout_ms = 5;
  fx.coding.seal = true;
  storage_start(&fx);
  host_start(&fx, 0);
  fill(&fx);
  turn_keys(&fx, KEY_B, true);
  fixture_restart(&fx);
  assert_int_equal(sqlite3_open(fx.file, &db), SQLITE_OK);
  assert_int_equal(sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
  work_start(&w, &fx, 4);
  work_await(&w, "sealing anew is interrupted");
  assert_non_null(strstr(w.said.ptr, "store.busy"));
  assert_int_equal(sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
  (void)sqlite3_close(db);
  work_await(&w, ALL_DONE);
  work_stop(&w);
  check_store(&fx, KEY_B, 0);
  fixture_close(&fx);
}

static void put_key(const fixture *fx, const char *text) {
  char path[200];
  (void)snprintf(path, sizeof(path), "%s/t1.key", fx->dir);
  FILE *f = fopen(path, "w");
  assert_non_null(f);
  assert_true(fputs(text, f) >= 0);
  assert_int_equal(fclose(f), 0);
  (void)atomic_fetch_add(&provoke.hours, 1);
}

static void test_the_key_of_a_tenant(void **unused) {
  (void)unused;
  fixture fx;
  open_with(&fx, "sqlite", true);
  fill(&fx);
  fx.keys.tenants = fx.dir; /* from the key of all to one of its own */
  put_key(&fx, KEY_B "\n");
  fixture_restart(&fx);
  seal_anew(&fx, 4);
  check_store(&fx, KEY_B, 0);
  fx.keys.current = "";
  put_key(&fx, FIXTURE_KEY "\n" KEY_B "\n"); /* and to another */
  fixture_restart(&fx);
  seal_anew(&fx, 4);
  check_store(&fx, FIXTURE_KEY, 0);
  put_key(&fx,
          KEY_B "\n"); /* the right one is gone: nothing can be read, and all the rest is done */
  fixture_restart(&fx);
  work w;
  work_start(&w, &fx, 4);
  work_await(&w, "not everything could be sealed");
  work_stop(&w);
  check_store(&fx, FIXTURE_KEY, 0);
  fixture_close(&fx);
}

static void test_stores_of_tenants(void **unused) {
  (void)unused;
  fixture fx;
  fixture_init(&fx, "sqlite");
  fx.isolated = fx.coding.seal = fx.compress = true;
  storage_start(&fx);
  host_start(&fx, 0);
  fill(&fx);
  turn_keys(&fx, KEY_B, true);
  fixture_restart(&fx);
  seal_anew(&fx, 3);
  turn_keys(&fx, KEY_B, false);
  fixture_restart(&fx);
  check_talks(&fx); /* the old key is not needed */
  fixture_close(&fx);
}

/* Back to the key of before, and to the new one once more. */
static void test_to_and_fro(void **unused) {
  (void)unused;
  static const char *const keys[] = {FIXTURE_KEY, KEY_B};
  fixture fx;
  open_with(&fx, "sqlite", true);
  fill(&fx);
  for (int i = 1; i < 5; i++) {
    fx.keys.current = keys[i % 2];
    fx.keys.previous = &keys[(i + 1) % 2];
    fx.keys.previous_count = 1;
    fixture_restart(&fx);
    check_talks(&fx);
    seal_anew(&fx, 4);
    check_store(&fx, keys[i % 2], 0);
  }
  fixture_close(&fx);
}

/* A host that still has the keys of before writes behind one that is done. */
static void test_the_last_host_to_restart(void **unused) {
  (void)unused;
  static const char *const new_keys[] = {KEY_B};
  fixture fx;
  open_with(&fx, "sqlite", true);
  fill(&fx);
  turn_keys(&fx, KEY_B, true);
  fixture_restart(&fx);
  seal_anew(&fx, 4);
  turn_keys(&fx, FIXTURE_KEY, true);
  fx.keys.previous = new_keys;
  fixture_restart(&fx);
  turn_clock(&fx, 1000);
  check_talks(&fx);
  assert_true(survey_of(&fx).mixed);
  turn_keys(&fx, KEY_B, true);
  fixture_restart(&fx);
  seal_anew(&fx, 4);
  check_store(&fx, KEY_B, 0);
  fixture_close(&fx);
}

/* One with other keys begins to seal while this one does: neither may call a key superfluous. */
static void test_a_host_with_other_keys(void **unused) {
  (void)unused;
  fixture fx;
  work w;
  sqlite3 *db;
  open_with(&fx, "sqlite", true);
  fill(&fx);
  turn_keys(&fx, KEY_B, true);
  fixture_restart(&fx);
  assert_int_equal(sqlite3_open(fx.file, &db), SQLITE_OK);
  assert_int_equal(sqlite3_exec(db,
                                "CREATE TRIGGER other AFTER UPDATE ON journal BEGIN UPDATE notes "
                                "SET text = 'fedcba9876543210 1 0 ' WHERE name = 'seal'; END",
                                NULL, NULL, NULL),
                   SQLITE_OK);
  work_start(&w, &fx, 4);
  work_await(&w, "another host seals with other keys");
  work_stop(&w);
  assert_int_equal(sqlite3_exec(db, "DROP TRIGGER other", NULL, NULL, NULL), SQLITE_OK);
  (void)sqlite3_close(db);
  seal_anew(&fx, 4);
  check_store(&fx, KEY_B, 0);
  fixture_close(&fx);
}

static void damage(const char *path) {
  FILE *f = fopen(path, "r+");
  assert_non_null(f);
  assert_int_equal(fwrite("damaged damaged damaged", 1, 23, f), 23);
  assert_int_equal(fclose(f), 0);
}

/* The store of one tenant fails: those of the others are sealed, and the keys of before kept. */
static void test_one_tenants_store_fails(void **unused) {
  (void)unused;
  static const char *const tenants[] = {"ann", "bob", "cid"};
  fixture fx;
  work w;
  char id[TM_ID_SIZE], path[256];
  fixture_init(&fx, "sqlite");
  fx.isolated = fx.coding.seal = true;
  storage_start(&fx);
  host_start(&fx, 0);
  for (int i = 0; i < 3; i++) {
    fx.tenant = tenants[i];
    assert_answer(start(&fx.hosts[0], id, "hello"));
  }
  turn_keys(&fx, KEY_B, true);
  fixture_stop(&fx);
  (void)snprintf(path, sizeof(path), "%s.tenants/bob.db", fx.file);
  damage(path);
  storage_start(&fx);
  work_start(&w, &fx, 4);
  work_await(&w, "not everything could be sealed");
  assert_non_null(strstr(w.said.ptr, "bob.db"));
  work_stop(&w);
  for (int i = 0; i < 3; i += 2) {
    fx.tenant = tenants[i];
    check_store(&fx, KEY_B, 0);
  }
  fixture_close(&fx);
}

/* A tenant that has no key yet needs the one of all, by which its records can be read. */
static void test_a_tenant_without_a_key(void **unused) {
  (void)unused;
  fixture fx;
  work w;
  open_with(&fx, "sqlite", true);
  fill(&fx);
  fx.keys.tenants = fx.dir;
  turn_keys(&fx, "", true);
  fixture_restart(&fx);
  work_start(&w, &fx, 4);
  work_await(&w, "not everything could be sealed");
  assert_non_null(strstr(w.said.ptr, "t1.key"));
  work_stop(&w);
  turn_keys(&fx, "", false);
  fixture_restart(&fx);
  work_start(&w, &fx, 4);
  work_await(&w, ALL_DONE); /* what nobody can read needs no key */
  work_stop(&w);
  put_key(&fx, KEY_B "\n");
  turn_keys(&fx, "", true);
  fixture_restart(&fx);
  seal_anew(&fx, 4);
  check_store(&fx, KEY_B, 0);
  fixture_close(&fx);
}

static void test_threads(void **unused) {
  (void)unused;
  fixture fx;
  tm_error err = {0};
  tm_reseal *r = NULL;
  open_with(&fx, "memory", true);
  turn_keys(&fx, KEY_B, true);
  fixture_restart(&fx);
  const tm_reseal_options o = {.storage = fx.storage, .codec = fx.codec, .log = &fx.log};
  atomic_store(&provoke.threads, 0);
  assert_int_equal(tm__reseal_start(&r, &o, &err), TM_EUNAVAILABLE);
  atomic_store(&provoke.threads, -1);
  assert_string_equal(err.code, "store.start");
  assert_null(r);
  fixture_close(&fx);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_another_key),
      cmocka_unit_test(test_of_flows_that_seal),
      cmocka_unit_test(test_a_plain_store),
      cmocka_unit_test(test_plaintext_is_not_laundered),
      cmocka_unit_test(test_nothing_to_do),
      cmocka_unit_test(test_stopped_in_the_middle),
      cmocka_unit_test(test_two_at_once_while_turns_run),
      cmocka_unit_test(test_the_store_fails),
      cmocka_unit_test(test_the_key_of_a_tenant),
      cmocka_unit_test(test_stores_of_tenants),
      cmocka_unit_test(test_to_and_fro),
      cmocka_unit_test(test_the_last_host_to_restart),
      cmocka_unit_test(test_a_host_with_other_keys),
      cmocka_unit_test(test_one_tenants_store_fails),
      cmocka_unit_test(test_a_tenant_without_a_key),
      cmocka_unit_test(test_threads),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
