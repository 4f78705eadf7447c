/* The file backend under several processes and threads, dying ones among them, with redo logs that
 * take turns every few commits; and that a long conversation costs what a short one does. */
#include <unistd.h>

static int syncs; /* of the redo log */

static int counted_sync(int fd) {
  syncs++;
  return fdatasync(fd);
}

#define fdatasync          counted_sync
#define TM_FILE_REDO_BYTES 16384
#include "../../persistence/store_file_redo.c" /* NOLINT(bugprone-suspicious-include) */

#include <pthread.h>

#include "fault_vfs.h"
#include "file_store.h"

static int patient_set_up(void **state) {
  int rc = file_set_up(state);
  fixture *fx = *state;
  fixture_close(fx);
  fx->options.timeout_ms = 20000;
  fixture_open(fx);
  return rc;
}

#define PATIENT_CASE(f)                                                                            \
  { #f, f, patient_set_up, tear_down, NULL }

static int64_t counted(const char *name) {
  tm_buf io = content_of("/proc/self/io");
  const char *at = strstr(io.ptr, name);
  assert_non_null(at);
  int64_t n = strtoll(at + strlen(name), NULL, 10);
  tm__buf_free(&io);
  return n;
}

/* ---- several processes ---- */

#define WRITERS 4
#define EACH    25

static void count_up(fixture *fx, tm_store_conn *c, int times) {
  for (int done = 0; done < times;) {
    tm_head head = {0};
    tm_status status = fx->backend->head(c, tm__slice(nth(1).text), &head, &fx->err);
    assert_true(status == TM_OK || status == TM_ENOTFOUND);
    tm_row row = row_of(fx, head.tip, "{\"pad\":\"some text that makes the redo log full\"}");
    tm_commit one = commit_of(fx, nth(1).text, head.revision, &row);
    tm_commit *items[] = {&one};
    assert_ok(fx, fx->backend->commit(c, items, 1, &fx->err));
    assert_true(one.status == TM_OK || one.status == TM_ECONFLICT);
    if (one.status == TM_OK) done++;
  }
}

static void all_are_there(fixture *fx, int count) {
  tm_head head = head_of(fx, nth(1).text);
  assert_int_equal(head.revision, count);
  tm_file_entry entry;
  assert_ok(fx, tm__file_entry(fx->reader, tm__slice(nth(1).text), &entry, &fx->err));
  told t = inspect(fx, true);
  if (t.errors > 0) print_error("%s\n", t.text);
  assert_int_equal(t.errors, 0);
}

static void processes_count_together(void **state) {
  fixture *fx = *state;
  pid_t child[WRITERS];
  fixture_close(fx);
  for (int i = 0; i < WRITERS; i++) {
    child[i] = fork();
    assert_true(child[i] >= 0);
    if (child[i] != 0) continue;
    fixture_open(fx);
    count_up(fx, fx->writer, EACH);
    fixture_close(fx);
    _exit(0);
  }
  for (int i = 0; i < WRITERS; i++) {
    int how;
    assert_int_equal(waitpid(child[i], &how, 0), child[i]);
    assert_true(WIFEXITED(how) && WEXITSTATUS(how) == 0);
  }
  fixture_open(fx);
  all_are_there(fx, WRITERS * EACH);
}

typedef struct counter {
  fixture fx; /* a copy: errors are its own */
  tm_store_conn *c;
} counter;

static void *count_main(void *arg) {
  counter *k = arg;
  count_up(&k->fx, k->c, EACH);
  return NULL;
}

static void *read_main(void *arg) {
  counter *k = arg;
  for (int64_t revision = 0; revision < WRITERS * EACH;) {
    tm_head head = {0};
    seen s = {.stop_at = 3};
    tm_status status = k->fx.backend->head(k->c, tm__slice(nth(1).text), &head, &k->fx.err);
    if (status == TM_ENOTFOUND) continue;
    assert_int_equal(status, TM_OK);
    assert_true(head.revision >= revision);
    revision = head.revision;
    status = k->fx.backend->chain(k->c, tm__slice(nth(1).text), head.tip, false, see_row, &s,
                                  &k->fx.err);
    assert_true(status == TM_OK || status == TM_ECANCELLED);
  }
  return NULL;
}

static void threads_count_together(void **state) {
  fixture *fx = *state;
  counter k[WRITERS + 1];
  pthread_t thread[WRITERS + 1];
  for (int i = 0; i <= WRITERS; i++) {
    bool reads = i == WRITERS;
    k[i].fx = *fx;
    assert_ok(fx, fx->backend->connect(&k[i].c, fx->store,
                                       reads ? TM_STORE_READER : TM_STORE_WRITER, &fx->err));
    assert_int_equal(pthread_create(&thread[i], NULL, reads ? read_main : count_main, &k[i]), 0);
  }
  for (int i = 0; i <= WRITERS; i++) {
    assert_int_equal(pthread_join(thread[i], NULL), 0);
    fx->backend->disconnect(k[i].c);
  }
  all_are_there(fx, WRITERS * EACH);
}

/* ---- dying ---- */

#define LOGS 5

typedef struct told_of { /* what a process said before it died */
  int64_t revision[LOGS];
} told_of;

static void commit_until_killed(fixture *fx, int out) {
  fixture_open(fx);
  for (;;) {
    tm_row rows[LOGS];
    tm_commit commits[LOGS], *items[LOGS];
    told_of t;
    for (int i = 0; i < LOGS; i++) {
      tm_head head = {0};
      (void)fx->backend->head(fx->reader, tm__slice(nth(i).text), &head, NULL);
      rows[i] = row_of(fx, head.tip, "{\"pad\":\"some text that makes the redo log full\"}");
      commits[i] = commit_of(fx, nth(i).text, head.revision, &rows[i]);
      items[i] = &commits[i];
    }
    if (fx->backend->commit(fx->writer, items, LOGS, &fx->err) != TM_OK) _exit(1);
    for (int i = 0; i < LOGS; i++)
      t.revision[i] = commits[i].status == TM_OK ? commits[i].head.revision : -1;
    if (write(out, &t, sizeof(t)) != sizeof(t)) _exit(2);
  }
}

/* Everything that was said is there, and of what was under way all or nothing. */
static void killed_in_mid_commit(void **state) {
  fixture *fx = *state;
  fixture_close(fx);
  int64_t before = 0;
  for (int round = 0; round < 12; round++) {
    int pipes[2];
    told_of t = {{0}};
    for (int i = 0; i < LOGS; i++)
      t.revision[i] = before;
    assert_int_equal(pipe(pipes), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) commit_until_killed(fx, pipes[1]);
    (void)close(pipes[1]);
    for (int i = 0; i < 3 + round * 2; i++)
      assert_int_equal(read(pipes[0], &t, sizeof(t)), sizeof(t));
    (void)kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    for (told_of more; read(pipes[0], &more, sizeof(more)) == sizeof(more);)
      t = more;
    (void)close(pipes[0]);
    if (round % 4 == 3) drop_index(fx);
    fixture_open(fx);
    before = head_of(fx, nth(0).text).revision;
    assert_in_range(before, t.revision[0], t.revision[0] + 1);
    for (int i = 0; i < LOGS; i++)
      assert_int_equal(head_of(fx, nth(i).text).revision, before);
    assert_int_equal(inspect(fx, true).errors, 0);
    fixture_close(fx);
  }
  fixture_open(fx);
}

/* A group that is in the redo log and nowhere else: its process died there. */
static void leave_half(fixture *fx, tm_store_conn *c, const char *id, int64_t revision) {
  tm_file_entry before = {0};
  assert_ok(fx, tm__file_begin(c, &fx->err));
  assert_ok(fx, tm__file_entry(c, tm__slice(id), &before, &fx->err));
  tm_file_entry entry = before;
  tm_commit item = commit_of(fx, id, revision - 1, NULL);
  entry.state.head = item.head;
  entry.state.head.tip = before.state.head.tip;
  assert_ok(fx, tm__file_add_frame(c, &entry, &before, NULL, &fx->err));
  assert_ok(fx, tm__file_redo_append(fx->store, &c->redo, &c->group, c->ops, &fx->err));
  assert_int_equal(tm__file_finish(c, TM_ECANCELLED, NULL), TM_ECANCELLED);
}

static void the_next_one_finishes_what_another_began(void **state) {
  fixture *fx = *state;
  (void)turn(fx, nth(1).text, 0, 0, "{}");
  (void)turn(fx, nth(2).text, 0, 0, "{}");
  leave_half(fx, fx->writer, nth(1).text, 2);
  assert_int_equal(head_of(fx, nth(1).text).revision, 1);
  tm_commit late = commit_of(fx, nth(1).text, 1, NULL);
  assert_int_equal(commit_one(fx, &late), TM_ECONFLICT);
  assert_int_equal(head_of(fx, nth(1).text).revision, 2);
  assert_int_equal(inspect(fx, true).errors, 0);
  leave_half(fx, fx->writer, nth(2).text, 2);
  fixture_close(fx);
  fixture_open(fx);
  assert_int_equal(head_of(fx, nth(2).text).revision, 2);
}

/* ... also when it was the first in its file. */
static void a_group_that_begins_a_file_is_found(void **state) {
  fixture *fx = *state;
  (void)turn(fx, nth(1).text, 0, 0, "{}");
  char large[TM_FILE_REDO_BYTES];
  memset(large, 'x', sizeof(large));
  tm_row row = row_of(fx, 0, "");
  row.body = (tm_slice){large, sizeof(large)};
  tm_commit c = commit_of(fx, nth(1).text, 1, &row);
  assert_ok(fx, commit_one(fx, &c));
  leave_half(fx, fx->writer, nth(1).text, 3);
  tm_commit late = commit_of(fx, nth(1).text, 2, NULL);
  assert_int_equal(commit_one(fx, &late), TM_ECONFLICT);
  assert_int_equal(head_of(fx, nth(1).text).revision, 3);
}

static void many_turns_and_death(fixture *fx) {
  fixture_open(fx);
  count_up(fx, fx->writer, 200);
}

/* A disk may take long for a sync: a host that starts after a crash does a few, however many
 * commits it finds. */
static void a_crash_costs_few_syncs(void **state) {
  fixture *fx = *state;
  fixture_close(fx);
  in_a_dying_process(fx, many_turns_and_death);
  syncs = 0;
  fixture_open(fx);
  assert_in_range(syncs, 1, 8);
  all_are_there(fx, 200);
}

/* The writers may change to a file just when it is looked at to be freed. */
static void a_redo_log_that_is_written_stays(void **state) {
  fixture *fx = *state;
  tm_store_conn *c = fx->store->keeper;
  tm_file_redo before, after;
  bool io = false;
  (void)turn(fx, nth(1).text, 0, 0, "{}");
  assert_ok(fx, tm__file_meta_read(c, &before, &fx->err));
  assert_ok(fx, tm__file_drain(c, before.file, false, &fx->err));
  assert_ok(fx, tm__file_meta_read(c, &after, &fx->err));
  assert_int_equal(after.file, before.file);
  assert_true(after.upto < before.seq);
  assert_int_equal(tm__file_redo_first(fx->store, before.file, &io), before.first);
  (void)turn(fx, nth(2).text, 0, 0, "{}");
  fixture_close(fx);
  fixture_open(fx);
  assert_int_equal(head_of(fx, nth(2).text).revision, 1);
}

/* ---- syncs that fail ---- */

/* A log that cannot be opened to be synced. */
static void make_unsyncable(fixture *fx, int n) {
  path log = log_of(fx, n), away = beside(fx, "away");
  assert_int_equal(rename(log.text, away.text), 0);
  assert_int_equal(symlink(away.text, log.text), 0);
}

static void make_syncable(fixture *fx, int n) {
  path log = log_of(fx, n), away = beside(fx, "away");
  assert_int_equal(rename(away.text, log.text), 0);
}

static bool is_in_doubt(fixture *fx) {
  tm_file_redo redo;
  assert_ok(fx, tm__file_meta_read(fx->reader, &redo, &fx->err));
  return redo.syncs % 2 != 0;
}

/* One hears that the log could not be synced; for the other the next sync goes well, and only a
 * part of it is on the disk. */
static void what_another_could_not_sync_is_written_again(void **state) {
  fixture *fx = *state;
  tm_store *second = NULL;
  tm_file_redo redo;
  assert_ok(fx, fx->backend->open(&second, &fx->options, &fx->err));
  (void)turn(fx, nth(1).text, 0, 0, "{}");
  assert_ok(fx, tm__file_meta_read(fx->reader, &redo, &fx->err));
  tm_buf whole = content_of(log_of(fx, 1).text);
  make_unsyncable(fx, 1);
  assert_int_not_equal(tm__file_drain(fx->store->keeper, redo.file, false, NULL), TM_OK);
  make_syncable(fx, 1);
  assert_true(is_in_doubt(fx));
  set_content(log_of(fx, 1).text, whole.ptr, whole.len / 2);
  assert_ok(fx, tm__file_drain(second->keeper, redo.file, false, &fx->err));
  assert_false(is_in_doubt(fx));
  tm_buf again = content_of(log_of(fx, 1).text);
  assert_int_equal(again.len, whole.len);
  assert_memory_equal(again.ptr, whole.ptr, whole.len);
  tm__buf_free(&again);
  tm__buf_free(&whole);
  fx->backend->close(second);
}

static void begin_many(fixture *fx) {
  tm_commit commits[40], *items[40];
  for (int i = 0; i < 40; i++) {
    commits[i] = commit_of(fx, nth(i).text, 0, NULL);
    items[i] = &commits[i];
  }
  assert_ok(fx, fx->backend->commit(fx->writer, items, 40, &fx->err));
}

/* After a failed sync the next one says yes without what the index's log got before. */
static void a_log_of_the_index_that_could_not_be_synced_is_written_again(void **state) {
  fixture *fx = *state;
  tm_file_redo redo;
  begin_many(fx);
  tm__file_drain_stop(fx->store); /* the keeper is its own */
  fx->store->started = false;
  assert_ok(fx, tm__file_meta_read(fx->reader, &redo, &fx->err));
  __atomic_store_n(&fault_of_syncs, SQLITE_IOERR, __ATOMIC_RELAXED);
  assert_int_not_equal(tm__file_drain(fx->store->keeper, redo.file, false, NULL), TM_OK);
  __atomic_store_n(&fault_of_syncs, SQLITE_OK, __ATOMIC_RELAXED);
  assert_true(is_in_doubt(fx));
  int64_t log = size_of(beside(fx, "index.db-wal").text), before = counted("wchar: ");
  assert_ok(fx, tm__file_drain(fx->store->keeper, redo.file, false, &fx->err));
  assert_true(log > 40000 && counted("wchar: ") - before > log);
  assert_false(is_in_doubt(fx));
}

static bool has_content(const char *name, const tm_buf *expected) {
  tm_buf now = content_of(name);
  bool same = now.len == expected->len && memcmp(now.ptr, expected->ptr, now.len) == 0;
  tm__buf_free(&now);
  return same;
}

/* A power cut in the middle would make a mixture of it: what is in its log may not be on the disk.
 */
static void an_index_in_doubt_is_not_copied(void **state) {
  fixture *fx = *state;
  tm_file_redo redo;
  (void)turn(fx, nth(2).text, 0, 0, "{}");
  assert_ok(fx, tm__file_meta_read(fx->reader, &redo, &fx->err));
  make_unsyncable(fx, 2);
  assert_int_not_equal(tm__file_drain(fx->store->keeper, redo.file, false, NULL), TM_OK);
  tm_buf index = content_of(beside(fx, "index.db").text);
  while (size_of(beside(fx, "index.db-wal").text) < INT64_C(5) << 20)
    count_up(fx, fx->writer, 50);
  assert_true(is_in_doubt(fx));
  assert_true(has_content(beside(fx, "index.db").text, &index));
  make_syncable(fx, 2);
  while (has_content(beside(fx, "index.db").text, &index)) /* the drainer tries again */
    count_up(fx, fx->writer, 1);
  tm__buf_free(&index);
  fixture_close(fx);
  assert_int_equal(size_of(beside(fx, "index.db-wal").text), -1);
  fixture_open(fx);
  assert_int_equal(inspect(fx, true).errors, 0);
}

static void claim_and_die(fixture *fx) {
  fixture_open(fx);
  tm_commit c = commit_of(fx, nth(1).text, 0, NULL);
  set_text(c.head.claim, TM_ID_SIZE, nth(900).text);
  c.head.status = TM_ACTIVE;
  c.head.wake_at = fx->now + 60000;
  assert_ok(fx, commit_one(fx, &c));
}

static void claims_of_the_dead_are_taken(void **state) {
  fixture *fx = *state;
  int64_t taken = 0;
  fixture_close(fx);
  in_a_dying_process(fx, claim_and_die);
  fixture_open(fx);
  assert_ok(fx, fx->backend->recover(fx->writer, fx->now, &taken, &fx->err));
  assert_int_equal(taken, 1);
  assert_int_equal(head_of(fx, nth(1).text).wake_at, fx->now);
  assert_ok(fx, fx->backend->recover(fx->writer, fx->now, &taken, &fx->err));
  assert_int_equal(taken, 0);
  fixture_close(fx);
  drop_index(fx);
  fixture_open(fx);
  assert_int_equal(head_of(fx, nth(1).text).wake_at, fx->now);
  tm_store *second = NULL; /* not alone: who has a claim may live */
  assert_ok(fx, fx->backend->open(&second, &fx->options, &fx->err));
  tm_store_conn *c = NULL;
  assert_ok(fx, fx->backend->connect(&c, second, TM_STORE_WRITER, &fx->err));
  assert_ok(fx, fx->backend->recover(c, fx->now + 1, &taken, &fx->err));
  assert_int_equal(taken, 0);
  fx->backend->disconnect(c);
  fx->backend->close(second);
}

/* ---- what a turn costs ---- */

#define MANY 5000

static void grow(fixture *fx, int64_t from, int count) {
  static tm_commit commits[MANY], *items[MANY];
  assert_in_range(count, 1, MANY);
  tm_row row = row_of(fx, 0, "{\"n\":1}");
  for (int i = 0; i < count; i++) {
    commits[i] = commit_of(fx, nth(1).text, from + i, &row);
    items[i] = &commits[i];
  }
  assert_ok(fx, fx->backend->commit(fx->writer, items, (size_t)count, &fx->err));
  for (int i = 0; i < count; i++)
    assert_int_equal(commits[i].status, TM_OK);
}

static int64_t cost_of_turns(fixture *fx, int64_t from, const char *what) {
  int64_t before = counted(what);
  for (int i = 0; i < 60; i++)
    grow(fx, from + i, 1);
  return counted(what) - before;
}

/* Twice, so that the middle one of both ends is the same but for the length. */
static void a_turn_writes_the_same_in_a_long_conversation(void **state) {
  fixture *fx = *state;
  (void)cost_of_turns(fx, 0, "wchar: ");
  int64_t brief = cost_of_turns(fx, 60, "wchar: ");
  grow(fx, 120, 5000);
  assert_true(size_of(log_of(fx, 1).text) > 2000000);
  int64_t lengthy = cost_of_turns(fx, 5120, "wchar: ");
  print_message("60 turns write %lld bytes at 60 and %lld at 5,120\n", (long long)brief,
                (long long)lengthy);
  assert_true(lengthy < brief * 5 / 4);
}

static void a_conversation_is_opened_at_its_end(void **state) {
  fixture *fx = *state;
  grow(fx, 0, 5000);
  fixture_close(fx);
  fixture_open(fx);
  seen s = {.stop_at = 1};
  int64_t before = counted("rchar: ");
  tm_head head = head_of(fx, nth(1).text);
  assert_int_equal(fx->backend->chain(fx->reader, tm__slice(nth(1).text), head.tip, false, see_row,
                                      &s, &fx->err),
                   TM_ECANCELLED);
  assert_true(counted("rchar: ") - before < 65536);
}

static int64_t cost_of_rewriting(fixture *fx) {
  tm_row row = {.id = head_of(fx, nth(1).text).tip, .body = TM_S("{}")};
  set_text(row.conversation, sizeof(row.conversation), nth(1).text);
  int64_t before = counted("syscr: ");
  assert_ok(fx, fx->backend->rewrite(fx->writer, &row, 1, &fx->err));
  return counted("syscr: ") - before;
}

static void a_row_is_rewritten_where_it_is(void **state) {
  fixture *fx = *state;
  grow(fx, 0, 10);
  (void)cost_of_rewriting(fx);
  int64_t brief = cost_of_rewriting(fx);
  grow(fx, 10, 5000);
  int64_t lengthy = cost_of_rewriting(fx);
  assert_in_range(lengthy, 1, brief + 50);
}

/* An index is made anew from the ends of the logs, too. */
static void a_new_index_reads_ends(void **state) {
  fixture *fx = *state;
  grow(fx, 0, 5000);
  fixture_close(fx);
  drop_index(fx);
  int64_t before = counted("rchar: ");
  fixture_open(fx);
  assert_int_equal(head_of(fx, nth(1).text).revision, 5000);
  assert_true(counted("rchar: ") - before < 1000000);
}

int main(void) {
  fault_install();
  const struct CMUnitTest cases[] = {
      PATIENT_CASE(processes_count_together), /* a process that had threads forks none that may */
      PATIENT_CASE(killed_in_mid_commit),
      PATIENT_CASE(a_crash_costs_few_syncs),
      PATIENT_CASE(claims_of_the_dead_are_taken),
      PATIENT_CASE(threads_count_together),
      PATIENT_CASE(the_next_one_finishes_what_another_began),
      PATIENT_CASE(a_group_that_begins_a_file_is_found),
      PATIENT_CASE(a_redo_log_that_is_written_stays),
      PATIENT_CASE(what_another_could_not_sync_is_written_again),
      PATIENT_CASE(a_log_of_the_index_that_could_not_be_synced_is_written_again),
      PATIENT_CASE(an_index_in_doubt_is_not_copied),
      PATIENT_CASE(a_turn_writes_the_same_in_a_long_conversation),
      PATIENT_CASE(a_conversation_is_opened_at_its_end),
      PATIENT_CASE(a_row_is_rewritten_where_it_is),
      PATIENT_CASE(a_new_index_reads_ends),
  };
  return cmocka_run_group_tests_name("file, processes", cases, NULL, NULL);
}
