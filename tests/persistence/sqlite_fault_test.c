/* A disk that fails, at every operation in turn: nothing that was acknowledged is lost, nothing
 * that failed is applied, and when the disk is mended the same connections go on. */
#include "fault_vfs.h"
#include "file_bytes.h"

#include <signal.h>
#include <sys/resource.h>

static char body[6000];

typedef struct kind {
  const char *code; /* what our error must say */
  int rc;
} kind;
static const kind kinds[] = {
    {"store.full", SQLITE_FULL},
    {"store.io", SQLITE_IOERR_WRITE},
    {"store.read_only", SQLITE_READONLY},
};
#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

/* Two conversations: 1 gets a turn, 2 is new. True when it was applied. */
static bool try_commit(fixture *fx, int n, int64_t revision, int64_t *row_id) {
  tm_row row = row_of(fx, 0, body);
  tm_commit a = commit_of(fx, nth(1).text, revision, &row);
  tm_commit b = commit_of(fx, nth(n).text, 0, &row);
  tm_commit *items[] = {&a, &b};
  memset(&fx->err, 0, sizeof(fx->err));
  tm_status status = fx->backend->commit(fx->writer, items, 2, &fx->err);
  if (status == TM_OK) {
    assert_int_equal(a.status, TM_OK);
    assert_int_equal(b.status, TM_OK);
    *row_id = a.row_id;
    return true;
  }
  if (status != TM_EUNAVAILABLE) print_error("%s\n", fx->err.message);
  assert_int_equal(status, TM_EUNAVAILABLE);
  assert_int_equal(a.status, TM_EUNAVAILABLE);
  assert_int_equal(b.row_id, 0);
  assert_non_null(strstr(fx->err.message, "x.db"));
  return false;
}

static void must_be_whole(fixture *fx, int64_t revision, int64_t tip, int absent) {
  tm_head head = head_of(fx, nth(1).text);
  assert_int_equal(head.revision, revision);
  assert_int_equal(head.tip, tip);
  assert_int_equal(fx->backend->head(fx->reader, tm__slice(nth(absent).text), &head, NULL),
                   TM_ENOTFOUND);
}

/* Fails the n-th operation of a commit for n = 0, 1, … until a commit gets through untouched. */
static void sweep_commits(fixture *fx, const kind *k, bool for_good) {
  int64_t revision = head_of(fx, nth(1).text).revision, tip = head_of(fx, nth(1).text).tip;
  int fresh = 100 + 2 * (int)revision; /* of this sweep only */
  for (int n = 0;; n++, fresh++) {
    assert_true(n < 300);
    fault_set(k->rc, n, for_good);
    bool applied = try_commit(fx, fresh, revision, &tip);
    int met = fault.met;
    if (!applied) assert_true(met > 0);
    if (!applied && for_good) assert_false(try_commit(fx, fresh, revision, &tip)); /* still bad */
    fault_set(0, 0, false);
    if (applied) {
      revision++;
      fresh++;
    }
    must_be_whole(fx, revision, tip, fresh);
    assert_true(try_commit(fx, fresh, revision, &tip)); /* mended */
    must_be_whole(fx, ++revision, tip, fresh + 1);
    if (met == 0) return;
  }
}

static void every_operation_fails_once(void **state) {
  fixture *fx = *state;
  for (int wal = 0; wal < 2; wal++) {
    fx->options.wal = wal != 0;
    (void)snprintf(fx->file, sizeof(fx->file), "%s/%d/x.db", fx->dir, wal);
    fixture_open(fx);
    turn(fx, nth(1).text, 0, 0, body);
    for (size_t k = 0; k < KINDS; k++) {
      sweep_commits(fx, &kinds[k], false);
      sweep_commits(fx, &kinds[k], true);
    }
    fixture_close(fx);
    sql_must_give(fx->file, "PRAGMA integrity_check", "ok\n");
  }
}

/* Nobody but the writer is connected; the log takes the commit but cannot be made durable. The new
 * handle that replaces the writer's must not find the failed commit in the log. */
static void a_failed_commit_never_comes_back(void **state) {
  fixture *fx = *state;
  int64_t tip = 0;
  fixture_open(fx);
  fx->backend->disconnect(fx->reader);
  fx->reader = NULL;
  turn(fx, nth(1).text, 0, 0, body);
  fault_of_syncs = SQLITE_IOERR_FSYNC;
  for (int i = 0; i < 3; i++)
    assert_false(try_commit(fx, 2, 1, &tip));
  fault_of_syncs = SQLITE_OK;
  assert_true(try_commit(fx, 2, 1, &tip));
  fixture_close(fx);
  fixture_open(fx);
  must_be_whole(fx, 2, tip, 3);
}

static void the_error_says_what_to_do(void **state) {
  fixture *fx = *state;
  int64_t tip = 0;
  fixture_open(fx);
  turn(fx, nth(1).text, 0, 0, body);
  for (size_t k = 0; k < KINDS; k++) {
    fault_set(kinds[k].rc, 0, true);
    assert_false(try_commit(fx, 2, 1, &tip));
    assert_string_equal(fx->err.code, kinds[k].code);
    assert_non_null(strstr(fx->err.message, "try again"));
    assert_non_null(strstr(fx->err.message, fx->file));
  }
  fault_set(0, 0, false);
  assert_true(try_commit(fx, 2, 1, &tip));
}

/* What is left of conversation n: -1 when its head is gone, else how many rows follow it. */
static tm_status count_row(void *ud, const tm_row *row) {
  (void)row;
  ++*(int *)ud;
  return TM_OK;
}

static int left_of(fixture *fx, int n) {
  tm_head head;
  int rows = 0;
  if (fx->backend->head(fx->reader, tm__slice(nth(n).text), &head, NULL) == TM_ENOTFOUND) return -1;
  assert_ok(fx, fx->backend->chain(fx->reader, tm__slice(nth(n).text), head.tip, false, count_row,
                                   &rows, &fx->err));
  return rows;
}

/* The n-th operation of a purge fails, then that of a sweep. False: there are not as many. */
static bool purge_with_fault(fixture *fx, const kind *k, int n) {
  enum { ROWS = 4 };
  bool more = true;
  int64_t tip = 0;
  for (int i = 0; i < ROWS; i++)
    tip = turn(fx, nth(2).text, i, tip, body);
  fault_set(k->rc, n, true);
  tm_status status = fx->backend->purge(fx->writer, tm__slice(nth(2).text), ROWS, true, &fx->err);
  int met = fault.met;
  assert_int_equal(status, met > 0 && status != TM_OK ? TM_EUNAVAILABLE : TM_OK);
  fault_set(0, 0, false);
  assert_int_equal(left_of(fx, 2), status == TM_OK ? -1 : ROWS); /* all or nothing */
  if (status != TM_OK)
    assert_ok(fx, fx->backend->purge(fx->writer, tm__slice(nth(2).text), ROWS, true, &fx->err));
  fault_set(k->rc, n, true);
  status = fx->backend->sweep(fx->writer, 2, &more, &fx->err);
  met += fault.met;
  assert_int_equal(status, fault.met > 0 && status != TM_OK ? TM_EUNAVAILABLE : TM_OK);
  fault_set(0, 0, false);
  for (more = true; more;)
    assert_ok(fx, fx->backend->sweep(fx->writer, 2, &more, &fx->err));
  assert_int_equal(left_of(fx, 1), 1);
  return met > 0;
}

static void purging_fails_at_every_operation(void **state) {
  fixture *fx = *state;
  fx->options.auto_vacuum = true;
  for (int wal = 0; wal < 2; wal++) {
    fx->options.wal = wal != 0;
    (void)snprintf(fx->file, sizeof(fx->file), "%s/%d/x.db", fx->dir, wal);
    fixture_open(fx);
    turn(fx, nth(1).text, 0, 0, body);
    for (size_t k = 0; k < KINDS; k++)
      for (int n = 0; purge_with_fault(fx, &kinds[k], n); n++)
        assert_true(n < 300);
    fixture_close(fx);
    sql_must_give(fx->file, "PRAGMA integrity_check", "ok\n");
    sql_must_give(fx->file, "SELECT count(*) FROM journal", "1\n");
    sql_must_give(fx->file, "SELECT count(*) FROM purged", "0\n");
  }
}

static void a_disk_without_shared_memory(void **state) {
  fixture *fx = *state;
  tm_store *store = NULL;
  fault.unshared = true;
  assert_int_equal(fx->backend->open(&store, &fx->options, &fx->err), TM_EINVAL);
  assert_null(store);
  assert_string_equal(fx->err.code, "store.journal_mode");
  fx->options.wal = false;
  fixture_open(fx);
}

/* A probe fails whenever a commit would, and changes nothing. */
static void a_probe_writes(void **state) {
  fixture *fx = *state;
  fixture_open(fx);
  turn(fx, nth(1).text, 0, 0, body);
  for (size_t k = 0; k < KINDS; k++) {
    fault_set(kinds[k].rc, 0, true);
    assert_int_equal(fx->backend->probe(fx->writer, &fx->err), TM_EUNAVAILABLE);
    assert_string_equal(fx->err.code, kinds[k].code);
    assert_true(fault.met > 0);
    fault_set(0, 0, false);
    assert_int_equal(fx->backend->probe(fx->writer, &fx->err), TM_OK);
  }
  fixture_close(fx);
  fixture_open(fx);
  assert_int_equal(head_of(fx, nth(1).text).revision, 1);
}

static void reads_fail_and_recover(void **state) {
  fixture *fx = *state;
  fixture_open(fx);
  for (int i = 0; i < 200; i++)
    turn(fx, nth(i).text, 0, 0, body);
  tm_head head;
  for (int i = 0; i < 200; i += 20) {
    fault_set(SQLITE_IOERR_READ, 0, true);
    fault.reads_too = true;
    tm_status status = fx->backend->head(fx->reader, tm__slice(nth(i).text), &head, &fx->err);
    if (fault.met > 0) assert_int_equal(status, TM_EUNAVAILABLE);
    fault_set(0, 0, false);
    assert_int_equal(head_of(fx, nth(i).text).revision, 1);
  }
}

/* Making a new store is all or nothing. */
static void opening_fails_at_every_operation(void **state) {
  fixture *fx = *state;
  for (size_t k = 0; k < KINDS; k++) {
    for (int n = 0, met = 1; met > 0; n++) {
      assert_true(n < 300);
      (void)snprintf(fx->file, sizeof(fx->file), "%s/%zu-%d/x.db", fx->dir, k, n);
      fault_set(kinds[k].rc, n, true);
      tm_status status = fx->backend->open(&fx->store, &fx->options, &fx->err);
      met = fault.met;
      fx->backend->close(fx->store);
      fx->store = NULL;
      assert_int_equal(status, met > 0 && status != TM_OK ? TM_EUNAVAILABLE : TM_OK);
      fault_set(0, 0, false);
      assert_int_equal(file_size(fx->file, ".new"), -1);
      fixture_open(fx);
      turn(fx, nth(1).text, 0, 0, "{}");
      fixture_close(fx);
    }
  }
}

/* Failing while the log is copied into the file disturbs no commit. */
static void checkpoints_fail(void **state) {
  fixture *fx = *state;
  int64_t tip = 0, revision = 1;
  fixture_open(fx);
  turn(fx, nth(1).text, 0, 0, body);
  sqlite3 *db = sql_open(fx->file);
  for (int n = 0; n < 40; n++) {
    for (int i = 0; i < 3; i++, revision++)
      assert_true(try_commit(fx, 1000 + (int)revision, revision, &tip));
    fault_set(SQLITE_IOERR_WRITE, n, true);
    (void)sqlite3_wal_checkpoint_v2(db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
    fault_set(0, 0, false);
  }
  sqlite3_close(db);
  fixture_close(fx);
  sql_must_give(fx->file, "PRAGMA integrity_check", "ok\n");
  fixture_open(fx);
  must_be_whole(fx, revision, tip, 9999);
}

/* A real limit of the system instead of a pretended one. */
static void a_file_that_may_not_grow(void **state) {
  fixture *fx = *state;
  int64_t tip = 0;
  struct rlimit old, tight;
  fixture_open(fx);
  turn(fx, nth(1).text, 0, 0, body);
  assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
  tight = old;
  tight.rlim_cur = (rlim_t)file_size(fx->file, "-wal") + 5000;
  void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
  bool first = try_commit(fx, 2, 1, &tip), second = try_commit(fx, 2, 1, &tip);
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
  (void)signal(SIGXFSZ, handler);
  assert_false(first || second);
  assert_true(try_commit(fx, 2, 1, &tip));
  must_be_whole(fx, 2, tip, 3);
}

/* Nothing is written into a file that has lost its name, and no new one is made in its place. */
static void must_miss(fixture *fx, const char *suffix) {
  int64_t tip = 0;
  char name[256], away[sizeof(name) + 8];
  turn(fx, nth(1).text, 0, 0, body);
  (void)snprintf(name, sizeof(name), "%s%s", fx->file, suffix);
  (void)snprintf(away, sizeof(away), "%s.away", name);
  assert_int_equal(rename(name, away), 0);
  for (int i = 0; i < 2; i++) {
    assert_false(try_commit(fx, 2, 1, &tip));
    assert_string_equal(fx->err.code, "store.moved");
    assert_int_equal(fx->backend->probe(fx->writer, &fx->err), TM_EUNAVAILABLE);
    assert_int_equal(file_size(name, ""), -1);
  }
  file_write(name, body, sizeof(body)); /* another file of that name */
  assert_false(try_commit(fx, 2, 1, &tip));
  assert_string_equal(fx->err.code, "store.moved");
  assert_int_equal(file_size(name, ""), sizeof(body));
  assert_int_equal(rename(away, name), 0);
  assert_true(try_commit(fx, 2, 1, &tip));
  must_be_whole(fx, 2, tip, 3);
}

static void a_file_that_is_away(void **state) {
  fixture *fx = *state;
  fixture_open(fx);
  must_miss(fx, "");
}

static void a_log_that_is_away(void **state) {
  fixture *fx = *state;
  fixture_open(fx);
  must_miss(fx, "-wal");
}

static void a_file_without_a_log_that_is_away(void **state) {
  fixture *fx = *state;
  fx->options.wal = false;
  fixture_open(fx);
  must_miss(fx, "");
}

/* Without a log each commit makes a file. */
static void no_descriptors_left(void **state) {
  fixture *fx = *state;
  int64_t tip = 0;
  struct rlimit old, none;
  fx->options.wal = false;
  fixture_open(fx);
  turn(fx, nth(1).text, 0, 0, body);
  assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
  none = old;
  none.rlim_cur = 3;
  assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
  bool applied = try_commit(fx, 2, 1, &tip);
  assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
  assert_false(applied);
  assert_string_equal(fx->err.code, "store.descriptors");
  assert_true(try_commit(fx, 2, 1, &tip));
  must_be_whole(fx, 2, tip, 3);
}

static int set_up(void **state) {
  static fixture fx;
  memset(body, 'x', sizeof(body) - 1);
  fixture_make(&fx, &tm__store_sqlite);
  *state = &fx;
  return 0;
}

static int tear_down(void **state) {
  fault_set(0, 0, false);
  fixture_remove(*state);
  return 0;
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void) {
  const struct CMUnitTest tests[] = {
      CASE(every_operation_fails_once),
      CASE(purging_fails_at_every_operation),
      CASE(a_failed_commit_never_comes_back),
      CASE(the_error_says_what_to_do),
      CASE(a_probe_writes),
      CASE(reads_fail_and_recover),
      CASE(opening_fails_at_every_operation),
      CASE(checkpoints_fail),
      CASE(a_file_that_may_not_grow),
      CASE(a_file_that_is_away),
      CASE(a_log_that_is_away),
      CASE(a_file_without_a_log_that_is_away),
      CASE(no_descriptors_left),
      CASE(a_disk_without_shared_memory),
  };
  fault_install();
  return cmocka_run_group_tests(tests, NULL, NULL);
}
