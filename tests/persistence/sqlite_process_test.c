/* Several processes on one file: who is alone, whose claims are dead, what survives SIGKILL. The
 * processes are forked before this one opens anything. */
#include "file_bytes.h"

#include <signal.h>
#include <sys/wait.h>

typedef struct child {
  pid_t pid;
  int from, to; /* pipe ends of the parent */
} child;

typedef void (*child_fn)(fixture *fx, int out, int in);

static child child_start(fixture *fx, child_fn run) {
  int up[2], down[2];
  assert_int_equal(pipe(up), 0);
  assert_int_equal(pipe(down), 0);
  child c = {.pid = fork(), .from = up[0], .to = down[1]};
  assert_true(c.pid >= 0);
  if (c.pid == 0) {
    (void)close(up[0]);
    (void)close(down[1]);
    (void)alarm(60);
    run(fx, up[1], down[0]);
    _exit(0);
  }
  (void)close(up[1]);
  (void)close(down[0]);
  return c;
}

static void child_end(child *c, int signal_number) {
  int how;
  if (signal_number != 0) assert_int_equal(kill(c->pid, signal_number), 0);
  assert_int_equal(close(c->to), 0); /* a child that waits for a byte goes on */
  assert_int_equal(waitpid(c->pid, &how, 0), c->pid);
  if (signal_number == 0)
    assert_true(WIFEXITED(how) && WEXITSTATUS(how) == 0);
  else
    assert_true(WIFSIGNALED(how) && WTERMSIG(how) == signal_number);
  assert_int_equal(close(c->from), 0);
}

/* In a child: cmocka's assertions belong to the parent. */
static void need(bool ok) {
  if (!ok) _exit(3);
}

static void say(int out, int64_t what) {
  need(write(out, &what, sizeof(what)) == (ssize_t)sizeof(what));
}

/* The next number from the child; false when it ended. */
static bool hear(const child *c, int64_t *what) {
  return read(c->from, what, sizeof(*what)) == (ssize_t)sizeof(*what);
}

static void open_quietly(fixture *fx) {
  need(fx->backend->open(&fx->store, &fx->options, NULL) == TM_OK);
  need(fx->backend->connect(&fx->writer, fx->store, TM_STORE_WRITER, NULL) == TM_OK);
}

static tm_commit claim_of(fixture *fx, int n, int64_t expect, const char *host) {
  tm_commit c = commit_of(fx, nth(n).text, expect, NULL);
  set_text(c.head.claim, sizeof(c.head.claim), host);
  c.head.wake_at = fx->now + 3600000;
  c.head.status = TM_ACTIVE;
  return c;
}

static const char host_a[] = "aaaaaaaa-0000-7000-8000-000000000000";
static const char host_b[] = "bbbbbbbb-0000-7000-8000-000000000000";

/* Claims conversations 1 and 2, gives 2 back, says so, waits. */
static void claim_and_wait(fixture *fx, int out, int in) {
  char byte;
  open_quietly(fx);
  for (int n = 1; n <= 2; n++) {
    tm_commit c = claim_of(fx, n, 0, host_a);
    need(commit_one(fx, &c) == TM_OK);
  }
  tm_commit done = commit_of(fx, nth(2).text, 1, NULL);
  done.head.wake_at = fx->now + 9000;
  need(commit_one(fx, &done) == TM_OK);
  say(out, 1);
  (void)!read(in, &byte, 1);
}

static int64_t recovered(fixture *fx, int64_t now) {
  int64_t taken = -1;
  assert_ok(fx, fx->backend->recover(fx->writer, now, &taken, &fx->err));
  return taken;
}

static void claims_of_the_dead_are_due_at_once(void **state) {
  fixture *fx = *state;
  int64_t word;
  child c = child_start(fx, claim_and_wait);
  assert_true(hear(&c, &word));
  child_end(&c, SIGKILL);
  fixture_open(fx);
  assert_int_equal(recovered(fx, fx->now), 1);
  assert_int_equal(head_of(fx, nth(1).text).wake_at, fx->now);
  assert_string_equal(head_of(fx, nth(1).text).claim, host_a);
  assert_int_equal(head_of(fx, nth(1).text).revision, 1);
  assert_int_equal(head_of(fx, nth(2).text).wake_at, fx->now + 9000); /* a deadline, no claim */
  tm_commit mine = claim_of(fx, 3, 0, host_b);
  assert_ok(fx, commit_one(fx, &mine));
  assert_int_equal(recovered(fx, fx->now + 5), 0); /* once; and never the living */
}

static void claims_of_the_living_are_theirs(void **state) {
  fixture *fx = *state;
  int64_t word;
  child c = child_start(fx, claim_and_wait);
  assert_true(hear(&c, &word));
  fixture_open(fx); /* while the other one lives */
  assert_int_equal(recovered(fx, fx->now), 0);
  assert_int_equal(head_of(fx, nth(1).text).wake_at, fx->now + 3600000);
  child_end(&c, SIGKILL);
  assert_int_equal(recovered(fx, fx->now), 0); /* it may have had heirs: left to the lease */
}

/* A process that comes while we are alone, before we recover, keeps what it claims. */
static void claims_made_after_the_opening_are_kept(void **state) {
  fixture *fx = *state;
  fixture other;
  int64_t word;
  child c = child_start(fx, claim_and_wait);
  assert_true(hear(&c, &word));
  child_end(&c, SIGKILL);
  fixture_open(fx);
  other = *fx;
  other.options.now_ud = &other;
  fixture_open(&other); /* not alone: we have it */
  assert_int_equal(recovered(&other, fx->now), 0);
  tm_commit theirs = claim_of(&other, 1, 1, host_b); /* takes the dead one's turn over */
  assert_ok(&other, commit_one(&other, &theirs));
  assert_int_equal(recovered(fx, fx->now), 0);
  assert_int_equal(head_of(fx, nth(1).text).wake_at, fx->now + 3600000);
  fixture_close(&other);
}

enum { BATCH = 8 };

/* Commits batches until it is killed; says each revision when it is durable. */
static void commit_for_ever(fixture *fx, int out, int in) {
  (void)in;
  tm_head head = {0};
  open_quietly(fx);
  tm_status found = fx->backend->head(fx->writer, tm__slice(nth(0).text), &head, NULL);
  int64_t revision = found == TM_OK ? head.revision : 0;
  char body[3000];
  memset(body, 'x', sizeof(body));
  for (;; revision++) {
    tm_commit commits[BATCH], *items[BATCH];
    tm_row row = {.kind = TM_ROW_TURN, .created = revision, .body = {body, sizeof(body)}};
    for (int i = 0; i < BATCH; i++) {
      commits[i] = commit_of(fx, nth(i).text, revision, &row);
      items[i] = &commits[i];
    }
    need(fx->backend->commit(fx->writer, items, BATCH, NULL) == TM_OK);
    for (int i = 0; i < BATCH; i++)
      need(commits[i].status == TM_OK);
    say(out, revision + 1);
  }
}

static tm_status count_row(void *ud, const tm_row *row) {
  assert_int_equal(row->body.len, 3000);
  ++*(int64_t *)ud;
  return TM_OK;
}

/* Killed in the middle of commits again and again: what was said to be durable is there, and what
 * is there is whole. */
static void acknowledged_commits_survive_sigkill(void **state) {
  fixture *fx = *state;
  int64_t durable = 0;
  for (int round = 0; round < 12; round++) {
    child c = child_start(fx, commit_for_ever);
    for (int i = 0; i < 1 + round * 7 % 30; i++)
      assert_true(hear(&c, &durable));
    assert_int_equal(kill(c.pid, SIGKILL), 0);
    while (hear(&c, &durable)) {
    } /* what it managed to say before it died */
    child_end(&c, SIGKILL);
    fixture_open(fx);
    int64_t revision = head_of(fx, nth(0).text).revision;
    assert_true(revision == durable || revision == durable + 1);
    for (int i = 0; i < BATCH; i++) { /* all of a batch or nothing */
      int64_t rows = 0;
      tm_head head = head_of(fx, nth(i).text);
      assert_int_equal(head.revision, revision);
      assert_ok(fx, fx->backend->chain(fx->reader, tm__slice(head.id), head.tip, false, count_row,
                                       &rows, &fx->err));
      assert_int_equal(rows, 1);
    }
    fixture_close(fx);
  }
  sql_must_give(fx->file, "SELECT (SELECT count(*) FROM journal)=(SELECT sum(revision) FROM heads)",
                "1\n");
  sql_must_give(fx->file, "PRAGMA integrity_check", "ok\n");
}

/* Killed while it makes the store: the next one makes or finds a whole one. */
static void open_and_tell(fixture *fx, int out, int in) {
  (void)in;
  say(out, 0);
  open_quietly(fx);
  say(out, 1);
}

static void killed_while_making_the_store(void **state) {
  fixture *fx = *state;
  for (int round = 0; round < 10; round++) {
    int64_t word;
    (void)snprintf(fx->file, sizeof(fx->file), "%s/%d/x.db", fx->dir, round);
    child c = child_start(fx, open_and_tell);
    assert_true(hear(&c, &word));
    for (volatile int spin = 0; spin < round * 300000; spin++) {
    }
    (void)kill(c.pid, SIGKILL);
    while (hear(&c, &word)) {
    }
    int how;
    assert_int_equal(waitpid(c.pid, &how, 0), c.pid);
    (void)close(c.from);
    (void)close(c.to);
    fixture_open(fx);
    turn(fx, nth(1).text, 0, 0, "{}");
    fixture_close(fx);
  }
}

/* Takes conversation 0 from the revision it sees to the next, until it won fifty times. */
static void compete(fixture *fx, int out, int in) {
  char byte;
  int64_t won = 0;
  open_quietly(fx);
  say(out, 0);
  need(read(in, &byte, 1) == 1);
  while (won < 50) {
    tm_head head;
    tm_row row = row_of(fx, 0, "{}");
    need(fx->backend->head(fx->writer, tm__slice(nth(0).text), &head, NULL) == TM_OK);
    tm_commit c = commit_of(fx, nth(0).text, head.revision, &row);
    tm_commit *items[] = {&c};
    tm_status status = fx->backend->commit(fx->writer, items, 1, NULL);
    need(status == TM_OK || status == TM_EUNAVAILABLE);
    if (status == TM_OK && c.status == TM_OK) won++;
  }
  fx->backend->disconnect(fx->writer);
  fx->backend->close(fx->store);
}

static void processes_take_turns(void **state) {
  fixture *fx = *state;
  int64_t word;
  fixture_open(fx);
  turn(fx, nth(0).text, 0, 0, "{}");
  fixture_close(fx);
  child both[] = {child_start(fx, compete), child_start(fx, compete)};
  for (int i = 0; i < 2; i++)
    assert_true(hear(&both[i], &word));
  for (int i = 0; i < 2; i++)
    assert_int_equal(write(both[i].to, "x", 1), 1);
  for (int i = 0; i < 2; i++)
    child_end(&both[i], 0);
  fixture_open(fx);
  assert_int_equal(head_of(fx, nth(0).text).revision, 101);
  sql_must_give(fx->file, "SELECT count(*),max(id) FROM journal", "101|101\n");
}

enum { GOING = 40, ROWS = 6 };

/* Purges one conversation after the other and sweeps what they leave, in small pieces; says each
 * when it is gone. */
static void purge_and_sweep(fixture *fx, int out, int in) {
  (void)in;
  open_quietly(fx);
  for (int n = 0; n < GOING;) {
    bool more;
    tm_status status = fx->backend->purge(fx->writer, tm__slice(nth(n).text), ROWS, true, NULL);
    need(status == TM_OK || status == TM_ENOTFOUND || status == TM_EUNAVAILABLE);
    if (status != TM_EUNAVAILABLE) say(out, n++);
    status = fx->backend->sweep(fx->writer, 2, &more, NULL);
    need(status == TM_OK || status == TM_EUNAVAILABLE);
  }
}

static tm_status count_any(void *ud, const tm_row *row) {
  (void)row;
  ++*(int *)ud;
  return TM_OK;
}

/* One process makes conversations and goes on with another one; a second one purges and sweeps, and
 * is killed in the middle of it again and again. Nothing of the purged ones is left in the end, and
 * nothing else is missing. */
static void purges_of_another_process(void **state) {
  fixture *fx = *state;
  int64_t gone = -1, tip = 0, at = 0;
  fixture_open(fx);
  for (int n = 0; n < GOING; n++) {
    int64_t row = 0;
    for (int i = 0; i < ROWS; i++)
      row = turn(fx, nth(n).text, i, row, "{\"x\":\"a row that goes\"}");
  }
  fixture_close(fx);
  for (int round = 0; round < 8; round++) {
    child c = child_start(fx, purge_and_sweep);
    fixture_open(fx);
    for (int i = 0; i < 10; i++, at++)
      tip = turn(fx, nth(1000).text, at, tip, "{}");
    for (int i = 0; i < 3 && hear(&c, &gone); i++)
      tip = turn(fx, nth(1000).text, at++, tip, "{}");
    (void)kill(c.pid, SIGKILL);
    while (hear(&c, &gone)) {
    }
    int how;
    assert_int_equal(waitpid(c.pid, &how, 0), c.pid);
    assert_true(WIFSIGNALED(how) || (WIFEXITED(how) && WEXITSTATUS(how) == 0));
    (void)close(c.from);
    (void)close(c.to);
    tm_head head;
    for (int n = 0; n <= gone; n++)
      assert_int_equal(fx->backend->head(fx->reader, tm__slice(nth(n).text), &head, NULL),
                       TM_ENOTFOUND);
    fixture_close(fx);
  }
  fixture_open(fx);
  for (int n = 0; n < GOING; n++) {
    tm_status status = fx->backend->purge(fx->writer, tm__slice(nth(n).text), ROWS, true, &fx->err);
    assert_true(status == TM_OK || status == TM_ENOTFOUND);
  }
  bool more = true;
  int rows = 0;
  while (more)
    assert_ok(fx, fx->backend->sweep(fx->writer, 7, &more, &fx->err));
  assert_ok(fx, fx->backend->chain(fx->reader, tm__slice(nth(1000).text), tip, false, count_any,
                                   &rows, &fx->err));
  assert_int_equal(rows, at);
  sql_must_give(fx->file, "SELECT count(DISTINCT conversation) FROM journal", "1\n");
  sql_must_give(fx->file, "SELECT count(*) FROM purged", "0\n");
  sql_must_give(fx->file, "PRAGMA integrity_check", "ok\n");
}

static int set_up(void **state) {
  static fixture fx;
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
      CASE(claims_of_the_dead_are_due_at_once),
      CASE(claims_of_the_living_are_theirs),
      CASE(claims_made_after_the_opening_are_kept),
      CASE(acknowledged_commits_survive_sigkill),
      CASE(killed_while_making_the_store),
      CASE(processes_take_turns),
      CASE(purges_of_another_process),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
