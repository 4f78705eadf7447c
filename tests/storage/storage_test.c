/* The store threads: groups, conflicts within a group, failing and working again, closing. */
#include <sqlite3.h>

#include "tests/journal/fixture.h"
#include "tests/provoke.h"

/* Another process's lock on the file: nothing can be written, as with a full disk. */
static sqlite3 *block(fixture *fx) {
  sqlite3 *db;
  assert_int_equal(sqlite3_open(fx->file, &db), SQLITE_OK);
  assert_int_equal(sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
  return db;
}

static void unblock(sqlite3 *db) {
  assert_int_equal(sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
  (void)sqlite3_close(db);
}

typedef struct read_probe {
  tm_store_job job;
  uv_sem_t *done;
} read_probe;

static void test_store_fails_and_is_mended(void **unused) {
  (void)unused;
  fixture fx;
  fixture_init(&fx, "sqlite");
  fx.options.timeout_ms = 20;
  storage_start(&fx);
  host_start(&fx, 0);
  host *h = &fx.hosts[0];
  char id[TM_ID_SIZE];
  char other[TM_ID_SIZE];
  assert_answer(start(h, id, "hello"));
  assert_answer(start(h, other, "hello"));
  answer *begun = say(h, other, "hold_begun");
  run *r = held_run(h);
  sqlite3 *db = block(&fx);
  answer *a = say_keyed(h, id, "two", "k");
  assert_refused(a, TM_EUNAVAILABLE, "store.busy");
  assert_string_equal(a->error.conversation_id, id);
  assert_false(tm__storage_healthy(fx.storage));
  assert_refused(say_keyed(h, id, "call", "k2"), TM_EUNAVAILABLE, "store.busy");
  assert_string_equal(fx.last_refused.code, "store.busy");
  release(r); /* a begun turn whose end cannot be written */
  assert_refused(begun, TM_EUNAVAILABLE, "store.busy");
  unblock(db);
  a = say_keyed(h, id, "two", "k"); /* the key was not consumed, the conversation goes on */
  assert_answer(a);
  assert_holds(a, "two 2");
  a = say(h, other, "three"); /* the unfinished turn is finished first */
  assert_answer(a);
  assert_holds(a, "three 3");
  assert_int_equal(fx.outside_calls, 1);
  fixture_close(&fx);
}

static tm_status read_work(tm_store_job *job, const tm_store_access *a, tm_error *err) {
  (void)job;
  int64_t next;
  return a->backend->next_due(a->conn, &next, err);
}

static void read_done(tm_message *m) {
  uv_sem_post(((read_probe *)(void *)m)->done);
}

static tm_status read_by(fixture *fx,
                         tm_status (*work)(tm_store_job *, const tm_store_access *, tm_error *)) {
  uv_sem_t done;
  assert_int_equal(uv_sem_init(&done, 0), 0);
  read_probe r = {.job = {.work = work, .message.run = read_done}, .done = &done};
  tm__storage_run(fx->storage, &r.job);
  uv_sem_wait(&done);
  uv_sem_destroy(&done);
  return r.job.status;
}

static tm_status read_something(fixture *fx) {
  return read_by(fx, read_work);
}

static tm_status damaged_record(tm_store_job *job, const tm_store_access *a, tm_error *err) {
  (void)job;
  (void)a;
  return tm__fail(err, TM_ECORRUPT, "journal.damaged", "one conversation");
}

static tm_status damaged_store(tm_store_job *job, const tm_store_access *a, tm_error *err) {
  (void)job;
  (void)a;
  return tm__fail(err, TM_ECORRUPT, "store.damaged", "the file");
}

/* Whoever asks for one damaged conversation again and again does not take the host out of service.
 */
static void test_a_damaged_record_is_no_damaged_store(void **unused) {
  (void)unused;
  fixture fx;
  fixture_init(&fx, "memory");
  storage_start(&fx);
  assert_int_equal(read_by(&fx, damaged_record), TM_ECORRUPT);
  assert_true(tm__storage_healthy(fx.storage));
  assert_int_equal(read_by(&fx, damaged_store), TM_ECORRUPT);
  assert_false(tm__storage_healthy(fx.storage));
  assert_int_equal(read_by(&fx, damaged_record), TM_ECORRUPT);
  assert_true(tm__storage_healthy(fx.storage)); /* it was read */
  fixture_close(&fx);
}

/* A read that works says nothing about writing; and nobody has to write for it to be found well. */
static void test_health_follows_writes(void **unused) {
  (void)unused;
  fixture fx;
  fixture_init(&fx, "sqlite");
  fx.options.timeout_ms = 20;
  storage_start(&fx);
  host_start(&fx, 0);
  host *h = &fx.hosts[0];
  char id[TM_ID_SIZE];
  assert_answer(start(h, id, "hello"));
  sqlite3 *db = block(&fx);
  assert_refused(say(h, id, "two"), TM_EUNAVAILABLE, "store.busy");
  for (int i = 0; i < 5; i++) {
    assert_int_equal(read_something(&fx), TM_OK);
    assert_false(tm__storage_healthy(fx.storage));
    uv_sleep(200);
  }
  unblock(db);
  for (int i = 0; i < 500 && !tm__storage_healthy(fx.storage); i++)
    uv_sleep(20);
  assert_true(tm__storage_healthy(fx.storage));
  fixture_close(&fx);
}

static void test_unknown_backend(void **unused) {
  (void)unused;
  fixture fx;
  fixture_init(&fx, "sqlite");
  tm_storage *s;
  tm_error err;
  assert_int_equal(storage_open(&s, &fx, "floppy", &err), TM_EUNSUPPORTED);
  assert_null(s);
  assert_string_equal(err.code, "store.unknown");
  FILE *f = fopen(fx.file, "w");
  assert_non_null(f);
  for (int i = 0; i < 1000; i++)
    (void)fputs("this is no database", f);
  (void)fclose(f);
  assert_int_equal(storage_open(&s, &fx, "sqlite", &err), TM_ECORRUPT);
  assert_null(s);
  tm__storage_close(NULL);
  fixture_close(&fx);
}

static void test_without_threads(void **unused) {
  (void)unused;
  fixture fx;
  fixture_init(&fx, "sqlite");
  for (int threads = 0; threads < 3; threads++) {
    tm_storage *s;
    tm_error err;
    atomic_store(&provoke.threads, threads);
    assert_int_equal(storage_open(&s, &fx, "sqlite", &err), TM_EUNAVAILABLE);
    assert_null(s);
    assert_string_equal(err.code, "store.start");
  }
  atomic_store(&provoke.threads, -1);
  fixture_close(&fx);
}

typedef struct odd_job {
  tm_commit_job job;
  uv_sem_t done;
} odd_job;

static void odd_done(tm_message *m) {
  uv_sem_post(&((odd_job *)m)->done);
}

static void expect_no_commit(fixture *fx, int64_t revision, tm_slice body, tm_status status,
                             const char *code) {
  tm_row row = {.kind = TM_ROW_TURN, .created = fx->now, .body = body};
  odd_job odd = {.job = {.message.run = odd_done, .in_memory = true, .commit.row = &row}};
  tm_head *h = &odd.job.commit.head;
  tm__uuid7(h->id, fx->now);
  (void)tm__copy(h->tenant, sizeof(h->tenant), TM_S("t1"));
  h->status = TM_WAITING_INPUT;
  h->revision = revision;
  assert_int_equal(uv_sem_init(&odd.done, 0), 0);
  tm__storage_commit(fx->storage, &odd.job);
  uv_sem_wait(&odd.done);
  uv_sem_destroy(&odd.done);
  assert_int_equal(odd.job.error.status, status);
  if (status != TM_OK) assert_string_equal(odd.job.error.code, code);
}

/* A row that no store takes, a commit that skips a revision, a memory that is full. */
static void test_commits_that_cannot_be(void **unused) {
  (void)unused;
  static const char text[100000];
  fixture fx;
  fixture_init(&fx, "sqlite");
  fx.options.memory_bytes = sizeof(text);
  storage_start(&fx);
  /* only its length is looked at */
  expect_no_commit(&fx, 1, (tm_slice){text, TM_ROW_MAX + 1}, TM_ETOOLARGE, "store.too_large");
  expect_no_commit(&fx, 2, TM_S("{}"), TM_EINVAL, "store.refused");
  expect_no_commit(&fx, 1, (tm_slice){text, sizeof(text)}, TM_OK, "");
  expect_no_commit(&fx, 1, TM_S("{}"), TM_ELIMIT, "store.no_room");
  fixture_close(&fx);
}

/* ---- whose words ---- */

typedef struct held_job {
  tm_commit_job job;
  tm_row row;
  uv_sem_t done, *hold; /* the writer goes on after it; NULL: at once */
} held_job;

static void held_done(tm_message *m) {
  held_job *j = (held_job *)(void *)m;
  uv_sem_post(&j->done);
  if (j->hold != NULL) uv_sem_wait(j->hold);
}

static void begin_held(fixture *fx, held_job *j, const char *id, const char *tenant,
                       uv_sem_t *hold) {
  *j = (held_job){.hold = hold};
  j->row = (tm_row){.kind = TM_ROW_TURN, .created = fx->now, .body = TM_S("{}")};
  j->job.message.run = held_done;
  j->job.commit.row = &j->row;
  tm_head *h = &j->job.commit.head;
  (void)tm__copy(h->id, sizeof(h->id), tm__slice(id));
  (void)tm__copy(h->tenant, sizeof(h->tenant), tm__slice(tenant));
  h->status = TM_WAITING_INPUT;
  h->revision = 1;
  assert_int_equal(uv_sem_init(&j->done, 0), 0);
  tm__storage_commit(fx->storage, &j->job);
}

static void await_held(held_job *j, const char *code) {
  uv_sem_wait(&j->done);
  uv_sem_destroy(&j->done);
  assert_int_equal(j->job.commit.status, TM_ECORRUPT);
  assert_string_equal(j->job.error.code, code);
  assert_string_equal(j->job.error.conversation_id, j->job.commit.head.id);
}

/* What a backend says of a commit is told to the client of that one alone: of several in one group
 * that it refuses alike it speaks of one, and nobody knows of which. */
static void test_whose_words(void **unused) {
  (void)unused;
  fixture fx;
  uv_sem_t hold;
  held_job alone, first, second;
  char id[TM_ID_SIZE];
  fixture_init(&fx, "redis");
  storage_start(&fx);
  assert_int_equal(uv_sem_init(&hold, 0), 0);
  tm__uuid7(id, fx.now);
  redis_run("SET tidemill:h:{%s} foreign", id);
  begin_held(&fx, &alone, id, "t1", &hold);
  await_held(&alone, "store.foreign");
  begin_held(&fx, &first, id, "t1", NULL); /* one group: they wait for the same writer */
  begin_held(&fx, &second, id, "t2", NULL);
  uv_sem_post(&hold);
  await_held(&first, "store.refused");
  await_held(&second, "store.refused");
  fixture_close(&fx);
  uv_sem_destroy(&hold);
}

#define MANY 2000

typedef struct counted_job {
  tm_commit_job job;
  tm_row row;
  int *answered; /* atomic */
} counted_job;

static void count(tm_message *m) {
  (void)__atomic_add_fetch(((counted_job *)(void *)m)->answered, 1, __ATOMIC_SEQ_CST);
}

/* Everything that is queued when the store is closed is still committed and answered. */
static void test_close_commits_all(void **unused) {
  (void)unused;
  for (size_t b = 0; b < FIXTURE_BACKENDS; b++) {
    fixture fx;
    int answered = 0;
    fixture_init(&fx, fixture_backends[b].scheme);
    storage_start(&fx);
    counted_job *jobs = calloc(MANY, sizeof(*jobs));
    assert_non_null(jobs);
    for (int i = 0; i < MANY; i++) {
      tm_commit_job *job = &jobs[i].job;
      tm_head *h = &job->commit.head;
      jobs[i].answered = &answered;
      jobs[i].row = (tm_row){.kind = TM_ROW_TURN, .created = fx.now, .body = TM_S("{}")};
      job->message.run = count;
      job->commit.row = &jobs[i].row;
      /* every tenth is a second first commit of the same conversation: it alone conflicts */
      if (i % 10 == 9) {
        *h = jobs[i - 1].job.commit.head;
      } else {
        tm__uuid7(h->id, fx.now);
        (void)tm__copy(h->tenant, sizeof(h->tenant), TM_S("t1"));
      }
      h->status = TM_WAITING_INPUT;
      h->revision = 1;
      job->in_memory = i % 3 == 0 && i % 10 < 8;
      tm__storage_commit(fx.storage, job);
    }
    tm__storage_close(fx.storage);
    fx.storage = NULL;
    assert_int_equal(answered, MANY);
    for (int i = 0; i < MANY; i++) {
      assert_int_equal(jobs[i].job.commit.status, i % 10 == 9 ? TM_ECONFLICT : TM_OK);
      assert_string_equal(jobs[i].job.error.code, i % 10 == 9 ? "store.conflict" : "");
    }
    free(jobs);
    fixture_close(&fx);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_store_fails_and_is_mended),
      cmocka_unit_test(test_health_follows_writes),
      cmocka_unit_test(test_a_damaged_record_is_no_damaged_store),
      cmocka_unit_test(test_unknown_backend),
      cmocka_unit_test(test_without_threads),
      cmocka_unit_test(test_commits_that_cannot_be),
      cmocka_unit_test(test_whose_words),
      cmocka_unit_test(test_close_commits_all),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
