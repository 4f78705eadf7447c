/* The write-ahead log and the file stay small: readers that come and go, or stay, do not let the
 * log grow, nor slow a commit; what is purged gives its space back. The log of this program is
 * short: store_sqlite_conn.c is built into it with another limit. */
#define TM_SQLITE_LOG_PAGES 48
#include "persistence/store_sqlite_conn.c" /* NOLINT(bugprone-suspicious-include) */

#include <pthread.h>

#include "file_bytes.h"

#define FRAME    (4096 + 24)
#define LOG_MOST ((int64_t)8 * TM_SQLITE_LOG_PAGES * FRAME)

static char body[3000];

static void fill(fixture *fx, int from, int count, int rows) {
  for (int n = from; n < from + count; n++) {
    int64_t tip = 0;
    for (int i = 0; i < rows; i++)
      tip = turn(fx, nth(n).text, i, tip, body);
  }
}

/* Goes on with conversation 0; the log's greatest size. */
static int64_t go_on(fixture *fx, int turns) {
  tm_head head = head_of(fx, nth(0).text);
  int64_t most = 0;
  for (int i = 0; i < turns; i++) {
    head.tip = turn(fx, nth(0).text, head.revision++, head.tip, body);
    int64_t size = file_size(fx->file, "-wal");
    if (size > most) most = size;
  }
  return most;
}

/* ---- somebody stays in a list ---- */

typedef struct visitor {
  fixture *fx;
  int count;
  int64_t log;
} visitor;

static tm_status commit_during_head(void *ud, const tm_head *head) {
  visitor *v = ud;
  (void)head;
  if (v->count++ == 3) v->log = go_on(v->fx, v->fx->options.wal ? 300 : 30);
  return TM_OK;
}

static tm_status commit_during_session(void *ud, const tm_session *session) {
  visitor *v = ud;
  assert_true(session->id.len > 0);
  if (v->count++ == 3) v->log = go_on(v->fx, v->fx->options.wal ? 300 : 30);
  return TM_OK;
}

static void put_sessions(fixture *fx, int count) {
  for (int i = 0; i < count; i++) {
    const tm_session s = {.tenant = TM_S("default"),
                          .id = tm__slice(nth(i).text),
                          .created = i + 1,
                          .look_at = i + 1};
    assert_ok(fx, fx->backend->session_put(fx->writer, NULL, &s, &fx->err));
  }
}

/* With a log and without, where a reader that stayed would lock all writers out. */
static void a_long_list_slows_no_commit(void **state) {
  fixture *fx = *state;
  const tm_list_filter list = {.tenant = TM_S("default"), .status = -1, .limit = SIZE_MAX};
  const tm_session_filter sessions = {.tenant = TM_S("default"), .ended = -1, .limit = SIZE_MAX};
  for (int wal = 0; wal < 2; wal++) {
    (void)snprintf(fx->file, sizeof(fx->file), "%s/%d/x.db", fx->dir, wal);
    fx->options.wal = wal != 0;
    fixture_open(fx);
    fill(fx, 0, 200, 1);
    put_sessions(fx, 50);
    visitor v = {.fx = fx};
    assert_ok(fx, fx->backend->list(fx->reader, &list, commit_during_head, &v, &fx->err));
    assert_int_equal(v.count, 200);
    assert_true(v.log <= LOG_MOST);
    v = (visitor){.fx = fx};
    assert_ok(fx,
              fx->backend->sessions(fx->reader, &sessions, commit_during_session, &v, &fx->err));
    assert_int_equal(v.count, 50);
    assert_true(v.log <= LOG_MOST);
    v = (visitor){.fx = fx};
    assert_ok(fx, fx->backend->sessions_due(fx->reader, 1000, SIZE_MAX, commit_during_session, &v,
                                            &fx->err));
    assert_int_equal(v.count, 50);
    assert_true(v.log <= LOG_MOST);
    fixture_close(fx);
  }
}

/* ---- readers relieve each other ---- */

typedef struct reader {
  fixture *fx;
  bool stop; /* atomic */
  int rounds;
  bool failed;
} reader;

static tm_status ignore_head(void *ud, const tm_head *head) {
  (void)ud, (void)head;
  return TM_OK;
}

static tm_status ignore_row(void *ud, const tm_row *row) {
  (void)ud, (void)row;
  return TM_OK;
}

static void *read_on(void *ud) {
  reader *r = ud;
  tm_store_conn *conn = NULL;
  const tm_store_backend *b = r->fx->backend;
  const tm_list_filter list = {.tenant = TM_S("default"), .status = -1, .limit = 1000};
  r->failed = b->connect(&conn, r->fx->store, TM_STORE_READER, NULL) != TM_OK;
  while (!r->failed && !__atomic_load_n(&r->stop, __ATOMIC_ACQUIRE)) {
    tm_head head;
    r->failed =
        b->list(conn, &list, ignore_head, NULL, NULL) != TM_OK ||
        b->head(conn, tm__slice(nth(0).text), &head, NULL) != TM_OK ||
        b->chain(conn, tm__slice(nth(0).text), head.tip, false, ignore_row, NULL, NULL) != TM_OK;
    r->rounds++;
  }
  b->disconnect(conn);
  return NULL;
}

static void the_log_stays_bounded(void **state) {
  fixture *fx = *state;
  enum { READERS = 4 };
  reader readers[READERS];
  pthread_t threads[READERS];
  fixture_open(fx);
  fill(fx, 0, 100, 1);
  for (int i = 0; i < READERS; i++) {
    readers[i] = (reader){.fx = fx};
    assert_int_equal(pthread_create(&threads[i], NULL, read_on, &readers[i]), 0);
  }
  int64_t most = go_on(fx, 1000);
  for (int i = 0; i < READERS; i++)
    __atomic_store_n(&readers[i].stop, true, __ATOMIC_RELEASE);
  for (int i = 0; i < READERS; i++) {
    assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_false(readers[i].failed);
    assert_true(readers[i].rounds > 0);
  }
  print_message("the log had %lld KiB at most\n", (long long)most / 1024);
  assert_true(most <= LOG_MOST);
}

/* ---- space comes back ---- */

static void sweep_all(fixture *fx, int64_t *log) {
  bool more = true;
  while (more) {
    assert_ok(fx, fx->backend->sweep(fx->writer, 50, &more, &fx->err));
    int64_t size = file_size(fx->file, "-wal");
    if (size > *log) *log = size;
  }
}

static void a_purge_gives_space_back(void **state) {
  fixture *fx = *state;
  int64_t log = 0;
  fx->options.auto_vacuum = true;
  fixture_open(fx);
  fill(fx, 0, 60, 20);
  fixture_close(fx);
  int64_t full = file_size(fx->file, "");
  assert_true(full > 60 * 20 * 3000);
  fixture_open(fx);
  for (int n = 5; n < 60; n++)
    assert_ok(fx, fx->backend->purge(fx->writer, tm__slice(nth(n).text), 20, true, &fx->err));
  sweep_all(fx, &log);
  (void)go_on(fx, 100); /* a served file shrinks, too: with the next copy of the log */
  assert_true(file_size(fx->file, "") < full / 4);
  assert_true(log <= 2 * LOG_MOST); /* a piece moves at most a MiB */
  fixture_close(fx);
  sql_must_give(fx->file, "PRAGMA freelist_count", "0\n");
  sql_must_give(fx->file, "PRAGMA integrity_check", "ok\n");
  sql_must_give(fx->file, "SELECT count(*) FROM purged", "0\n");
  sql_must_give(fx->file, "SELECT count(*) FROM journal", "200\n"); /* 5 x 20, and 100 */
}

/* Without auto_vacuum the file keeps its size and uses it again. */
static void without_vacuum_space_is_used_again(void **state) {
  fixture *fx = *state;
  int64_t log = 0;
  fixture_open(fx);
  fill(fx, 0, 60, 20);
  for (int n = 5; n < 60; n++)
    assert_ok(fx, fx->backend->purge(fx->writer, tm__slice(nth(n).text), 20, true, &fx->err));
  sweep_all(fx, &log);
  fixture_close(fx);
  int64_t full = file_size(fx->file, "");
  fixture_open(fx);
  fill(fx, 100, 50, 20);
  fixture_close(fx);
  assert_int_equal(file_size(fx->file, ""), full);
}

/* ---- a tenant's own file ---- */

static void a_tenants_file_lies_beside(void **state) {
  fixture *fx = *state;
  char folder[256], file[320], other[320];
  fixture_open(fx);
  fill(fx, 0, 1, 1);
  fixture own = *fx;
  own.options.tenant = "acme";
  own.options.now_ud = &own;
  fixture_open(&own);
  (void)snprintf(folder, sizeof(folder), "%s.tenants", fx->file);
  (void)snprintf(file, sizeof(file), "%s/acme.db", folder);
  (void)snprintf(other, sizeof(other), "%s/acme.db-wal", folder);
  struct stat st;
  assert_int_equal(stat(folder, &st), 0);
  assert_int_equal(st.st_mode & 0777, 0700);
  assert_int_equal(stat(file, &st), 0);
  assert_int_equal(st.st_mode & 0777, 0600);
  assert_true(file_size(other, "") >= 0);
  fill(&own, 1, 1, 3);
  fixture_close(&own);
  sql_must_give(file, "SELECT count(*) FROM journal", "3\n");
  sql_must_give(fx->file, "SELECT count(*) FROM journal", "1\n");
}

/* ---- what it says about itself ---- */

typedef struct told {
  tm_buf all[3]; /* by level */
} told;

static void hear(void *ud, tm_finding level, const char *text) {
  told *t = ud;
  tm__buf_text(&t->all[level], text);
  tm__buf_byte(&t->all[level], '\n');
}

static bool says(const told *t, tm_finding level, const char *text) {
  return t->all[level].ptr != NULL && strstr(t->all[level].ptr, text) != NULL;
}

static void forget(told *t) {
  for (int i = 0; i < 3; i++)
    tm__buf_free(&t->all[i]);
}

static void unsafe_places_are_told(void **state) {
  fixture *fx = *state;
  told t = {0};
  fixture_open(fx);
  assert_ok(fx, fx->backend->inspect(fx->reader, true, hear, &t, &fx->err));
  assert_true(says(&t, TM_FINDING_INFO, "KiB"));
  assert_false(says(&t, TM_FINDING_WARNING, "chmod") || t.all[TM_FINDING_ERROR].len > 0);
  forget(&t);
  assert_int_equal(chmod(fx->file, 0644), 0);
  assert_ok(fx, fx->backend->inspect(fx->reader, false, hear, &t, &fx->err));
  assert_true(says(&t, TM_FINDING_WARNING, "chmod 600"));
  forget(&t);
}

static void what_contradicts_itself_is_told(void **state) {
  fixture *fx = *state;
  told t = {0};
  fixture_open(fx);
  fill(fx, 0, 5, 2);
  put_sessions(fx, 3);
  sqlite3 *db = sql_open(fx->file);
  sql_run(db, "DELETE FROM journal WHERE id=4; DELETE FROM heads WHERE id LIKE '%3';"
              "UPDATE session_counts SET open=7 WHERE scope=1");
  sqlite3_close(db);
  assert_ok(fx, fx->backend->inspect(fx->reader, false, hear, &t, &fx->err));
  assert_int_equal(t.all[TM_FINDING_ERROR].len, 0);
  assert_ok(fx, fx->backend->inspect(fx->reader, true, hear, &t, &fx->err));
  assert_true(says(&t, TM_FINDING_ERROR, "the newest row of conversation"));
  assert_true(says(&t, TM_FINDING_ERROR, "belongs to no conversation"));
  assert_true(says(&t, TM_FINDING_ERROR, "open sessions of tenant default is wrong"));
  forget(&t);
}

static void damaged_pages_are_told(void **state) {
  fixture *fx = *state;
  told t = {0};
  fixture_open(fx);
  fill(fx, 0, 40, 3);
  fixture_close(fx);
  fixture_open(fx);
  file_bytes whole = file_read(fx->file);
  file_scribble(whole.ptr, whole.len / 2, whole.len / 2 + 8192);
  FILE *f = fopen(fx->file, "r+b");
  assert_non_null(f);
  assert_int_equal(fwrite(whole.ptr, 1, whole.len, f), whole.len);
  assert_int_equal(fclose(f), 0);
  free(whole.ptr);
  assert_ok(fx, fx->backend->inspect(fx->reader, true, hear, &t, &fx->err));
  assert_true(t.all[TM_FINDING_ERROR].len > 0);
  forget(&t);
}

static int set_up(void **state) {
  static fixture fx;
  memset(body, 'x', sizeof(body) - 1);
  fixture_make(&fx, &tm__store_sqlite);
  fx.options.timeout_ms = 5000;
  *state = &fx;
  return 0;
}

static int tear_down(void **state) {
  fixture_remove(*state);
  return 0;
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void) {
  const struct CMUnitTest tests[] = {
      CASE(a_long_list_slows_no_commit),     CASE(the_log_stays_bounded),
      CASE(a_purge_gives_space_back),        CASE(without_vacuum_space_is_used_again),
      CASE(a_tenants_file_lies_beside),      CASE(unsafe_places_are_told),
      CASE(what_contradicts_itself_is_told), CASE(damaged_pages_are_told),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
