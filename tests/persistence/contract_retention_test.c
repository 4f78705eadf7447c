/* What every backend must do with what goes: ended conversations are found, a purge takes the head
 * at once and sweeps take the rows in small pieces, bodies are replaced; the same cases over all of
 * backends.def. */
#include "contract.h"

#include <pthread.h>

static void end(fixture *fx, int n, int64_t expect, int64_t ended) {
  tm_commit c = commit_of(fx, nth(n).text, expect, NULL);
  c.head.status = ended != 0 ? TM_COMPLETED : TM_WAITING_INPUT;
  c.head.ended = ended;
  assert_ok(fx, commit_one(fx, &c));
}

static seen ended_until(fixture *fx, int64_t before, size_t limit) {
  seen s = {0};
  assert_ok(fx, fx->backend->ended(fx->reader, before, limit, see_head, &s, &fx->err));
  return s;
}

/* Conversation n with `count` rows, all along their parents; the tip. */
static int64_t fill(fixture *fx, int n, int count) {
  int64_t tip = 0;
  for (int i = 0; i < count; i++)
    tip = turn(fx, nth(n).text, i, tip, "{\"x\":\"some text of a row\"}");
  return tip;
}

static tm_status purge(fixture *fx, int n, int64_t revision) {
  return fx->backend->purge(fx->writer, tm__slice(nth(n).text), revision, true, &fx->err);
}

static tm_status count_row(void *ud, const tm_row *row) {
  (void)row;
  ++*(int *)ud;
  return TM_OK;
}

/* -1: the conversation has no such row. */
static int rows_from(fixture *fx, int n, int64_t tip) {
  int rows = 0;
  tm_status status = fx->backend->chain(fx->reader, tm__slice(nth(n).text), tip, false, count_row,
                                        &rows, &fx->err);
  if (status == TM_ENOTFOUND) return -1;
  assert_ok(fx, status);
  return rows;
}

static int sweep_all(fixture *fx, size_t limit) {
  bool more = true;
  int pieces = 0;
  for (; more; pieces++) {
    assert_true(pieces < 100000);
    assert_ok(fx, fx->backend->sweep(fx->writer, limit, &more, &fx->err));
  }
  return pieces;
}

/* ---- what has ended ---- */

static void ended_ones_are_found(void **state) {
  fixture *fx = *state;
  const int64_t ends[] = {300, 100, 0, 200, 100};
  for (int i = 0; i < 5; i++)
    end(fx, i, 0, ends[i]);
  seen s = ended_until(fx, 300, 10);
  const int order[] = {1, 4, 3, 0};
  assert_int_equal(s.count, 4);
  for (int i = 0; i < 4; i++)
    assert_string_equal(s.ids[i], nth(order[i]).text);
  assert_int_equal(ended_until(fx, 200, 10).count, 3);
  assert_int_equal(ended_until(fx, 300, 2).count, 2);
  assert_int_equal(ended_until(fx, 300, 0).count, 0);
  assert_int_equal(ended_until(fx, 99, 10).count, 0);
  seen one = {.stop_at = 1};
  assert_int_equal(fx->backend->ended(fx->reader, 300, 10, see_head, &one, NULL), TM_ECANCELLED);
}

static void ends_are_taken_back(void **state) {
  fixture *fx = *state;
  end(fx, 1, 0, 100);
  assert_int_equal(head_of(fx, nth(1).text).ended, 100);
  end(fx, 1, 1, 0); /* a rollback */
  assert_int_equal(head_of(fx, nth(1).text).ended, 0);
  assert_int_equal(ended_until(fx, 1000, 10).count, 0);
  end(fx, 1, 2, 700);
  assert_int_equal(ended_until(fx, 699, 10).count, 0);
  assert_int_equal(ended_until(fx, 700, 10).count, 1);
  tm_commit same = commit_of(fx, nth(1).text, 3, NULL); /* the time alone */
  same.head.status = TM_COMPLETED;
  same.head.ended = 500;
  assert_ok(fx, commit_one(fx, &same));
  assert_int_equal(ended_until(fx, 500, 10).count, 1);
}

/* ---- purge ---- */

static void a_purge_takes_the_head_at_once(void **state) {
  fixture *fx = *state;
  tm_head head;
  tm_start_key key;
  tm_row row = row_of(fx, 0, "{}");
  tm_commit c = commit_of(fx, nth(1).text, 0, &row);
  c.start_key = 7;
  c.start_answer = true;
  c.head.wake_at = 50;
  c.head.ended = 60;
  assert_ok(fx, commit_one(fx, &c));
  int64_t other = fill(fx, 2, 3);
  assert_int_equal(purge(fx, 1, 2), TM_ECONFLICT);
  assert_int_equal(purge(fx, 9, 1), TM_ENOTFOUND);
  assert_int_equal(head_of(fx, nth(1).text).revision, 1);
  assert_ok(fx, purge(fx, 1, 1));
  assert_int_equal(purge(fx, 1, 1), TM_ENOTFOUND);
  const tm_store_backend *b = fx->backend;
  assert_int_equal(b->head(fx->reader, tm__slice(nth(1).text), &head, NULL), TM_ENOTFOUND);
  assert_int_equal(b->start_key(fx->reader, TM_S("default"), 7, &key, NULL), TM_ENOTFOUND);
  seen s = {0};
  assert_ok(fx, b->due(fx->writer, 1000, 0, 10, see_head, &s, &fx->err));
  assert_int_equal(s.count, 0);
  assert_int_equal(ended_until(fx, 1000, 10).count, 0);
  tm_list_filter all = filter_of(0, "", 10);
  assert_ok(fx, b->list(fx->reader, &all, see_head, &s, &fx->err));
  assert_int_equal(s.count, 1);
  assert_string_equal(s.ids[0], nth(2).text);
  tm_commit late = commit_of(fx, nth(1).text, 1, &row); /* who still worked on it has lost */
  assert_int_equal(commit_one(fx, &late), TM_ECONFLICT);
  (void)sweep_all(fx, 10);
  assert_int_equal(rows_from(fx, 1, c.row_id), -1);
  assert_int_equal(rows_from(fx, 2, other), 3); /* another one's stay */
  c = commit_of(fx, nth(3).text, 0, &row);
  c.start_key = 7; /* is free again */
  assert_ok(fx, commit_one(fx, &c));
}

static void what_has_no_rows_goes_too(void **state) {
  fixture *fx = *state;
  tm_commit c = commit_of(fx, nth(1).text, 0, NULL);
  assert_ok(fx, commit_one(fx, &c));
  assert_ok(fx, purge(fx, 1, 1));
  (void)sweep_all(fx, 10);
  assert_int_equal(purge(fx, 1, 1), TM_ENOTFOUND);
}

/* A long conversation goes in pieces, and a short one behind it, while a third goes on. */
static void long_ones_go_in_pieces(void **state) {
  fixture *fx = *state;
  enum { LONG = 2000, SHORT = 40, PIECE = 97 };
  int64_t tips[] = {fill(fx, 0, LONG), fill(fx, 1, SHORT)}, tip = 0;
  assert_ok(fx, purge(fx, 0, LONG));
  assert_ok(fx, purge(fx, 1, SHORT));
  bool more = true;
  int pieces = 0;
  for (; more; pieces++) {
    assert_true(pieces < 10000);
    assert_ok(fx, fx->backend->sweep(fx->writer, PIECE, &more, &fx->err));
    tip = turn(fx, nth(2).text, pieces, tip, "{}");
  }
  for (int n = 0; n < 2; n++)
    assert_int_equal(rows_from(fx, n, tips[n]), -1);
  assert_int_equal(rows_from(fx, 2, tip), pieces);
  assert_ok(fx, fx->backend->sweep(fx->writer, PIECE, &more, &fx->err));
  assert_false(more);
}

/* The id of a purged conversation can be used again (a backup is restored) before it is swept. */
static void a_purged_one_comes_back(void **state) {
  fixture *fx = *state;
  int64_t old = fill(fx, 1, 40);
  assert_ok(fx, purge(fx, 1, 40));
  bool more;
  assert_ok(fx, fx->backend->sweep(fx->writer, 10, &more, &fx->err));
  int64_t tip = fill(fx, 1, 20);
  assert_int_equal(rows_from(fx, 1, tip), 20);
  (void)sweep_all(fx, 3);
  assert_int_equal(rows_from(fx, 1, tip), 20);
  assert_int_equal(head_of(fx, nth(1).text).revision, 20);
  assert_ok(fx, purge(fx, 1, 20));
  (void)sweep_all(fx, 1000);
  assert_int_equal(rows_from(fx, 1, tip), -1);
  assert_int_equal(rows_from(fx, 1, old), -1);
}

static void a_sweep_survives_reopening(void **state) {
  fixture *fx = *state;
  if (!fx->backend->durable) return;
  int64_t gone = fill(fx, 1, 30), stays = fill(fx, 2, 5);
  assert_ok(fx, purge(fx, 1, 30));
  bool more;
  assert_ok(fx, fx->backend->sweep(fx->writer, 7, &more, &fx->err));
  if (strcmp(fx->backend->scheme, "file") != 0) assert_true(more); /* a log goes as a whole */
  fixture_close(fx);
  fixture_open(fx);
  assert_ok(fx, fx->backend->sweep(fx->writer, 7, &more, &fx->err));
  (void)sweep_all(fx, 7);
  assert_int_equal(rows_from(fx, 1, gone), -1);
  assert_int_equal(rows_from(fx, 2, stays), 5);
}

static void old_start_keys_go(void **state) {
  fixture *fx = *state;
  tm_start_key key;
  for (int i = 0; i < 50; i++) {
    tm_commit c = commit_of(fx, nth(i).text, 0, NULL);
    c.start_key = (uint64_t)i + 1;
    assert_ok(fx, commit_one(fx, &c));
  }
  fx->now += TM_KEY_AGE_MS + 1;
  (void)sweep_all(fx, 20);
  fx->now -= TM_KEY_AGE_MS; /* the clock tells which ones are really gone */
  for (uint64_t i = 1; i <= 50; i++)
    assert_int_equal(fx->backend->start_key(fx->reader, TM_S("default"), i, &key, NULL),
                     TM_ENOTFOUND);
}

/* A walk that is under way ends, or goes on as it was. */
typedef struct walker {
  fixture *fx;
  int64_t tip;
  int rows;
} walker;

static tm_status purge_meanwhile(void *ud, const tm_row *row) {
  walker *w = ud;
  bool more;
  assert_int_equal(row->body.len, strlen("{\"x\":\"some text of a row\"}"));
  if (w->rows++ == 5) assert_ok(w->fx, purge(w->fx, 1, 50));
  assert_ok(w->fx, w->fx->backend->sweep(w->fx->writer, 5, &more, &w->fx->err));
  assert_memory_equal(row->body.ptr, "{\"x\":\"some text of a row\"}", row->body.len);
  return TM_OK;
}

static void a_walk_during_a_purge(void **state) {
  fixture *fx = *state;
  walker w = {.fx = fx, .tip = fill(fx, 1, 50)};
  assert_ok(fx, fx->backend->chain(fx->reader, tm__slice(nth(1).text), w.tip, false,
                                   purge_meanwhile, &w, &fx->err));
  assert_in_range(w.rows, 6, 50);
  (void)sweep_all(fx, 100);
  assert_int_equal(rows_from(fx, 1, w.tip), -1);
}

/* Commits, purges and sweeps on connections of their own: what is acknowledged is there, what is
 * purged is gone. */
typedef struct worker {
  fixture *fx;
  int first, committed;
} worker;

static void *commit_many(void *ud) {
  worker *w = ud;
  tm_store_conn *conn = NULL;
  const tm_store_backend *b = w->fx->backend;
  if (b->connect(&conn, w->fx->store, TM_STORE_WRITER, NULL) != TM_OK) return NULL;
  for (int n = w->first; n < w->first + 10; n++) {
    int64_t tip = 0;
    for (int i = 0; i < 10; i++) {
      tm_row row = row_of(w->fx, tip, "{}");
      tm_commit c = commit_of(w->fx, nth(n).text, i, &row);
      tm_commit *items[] = {&c};
      tm_status status;
      do
        status = b->commit(conn, items, 1, NULL);
      while (status == TM_EUNAVAILABLE);
      if (status != TM_OK || c.status != TM_OK) break;
      tip = c.row_id;
      w->committed++;
    }
  }
  b->disconnect(conn);
  return NULL;
}

static void purges_among_commits(void **state) {
  fixture *fx = *state;
  worker workers[3] = {{fx, 100, 0}, {fx, 200, 0}, {fx, 300, 0}};
  pthread_t threads[3];
  for (int n = 0; n < 5; n++)
    (void)fill(fx, n, 30);
  for (int i = 0; i < 3; i++)
    assert_int_equal(pthread_create(&threads[i], NULL, commit_many, &workers[i]), 0);
  for (int n = 0; n < 5; n++) {
    tm_status status;
    bool more = true;
    while ((status = purge(fx, n, 30)) == TM_EUNAVAILABLE) {
    }
    assert_ok(fx, status);
    while (more) {
      status = fx->backend->sweep(fx->writer, 10, &more, &fx->err);
      if (status == TM_EUNAVAILABLE)
        more = true;
      else
        assert_ok(fx, status);
    }
  }
  for (int i = 0; i < 3; i++)
    assert_int_equal(pthread_join(threads[i], NULL), 0);
  for (int i = 0; i < 3; i++) {
    assert_int_equal(workers[i].committed, 100);
    for (int n = 0; n < 10; n++) {
      tm_head head = head_of(fx, nth(workers[i].first + n).text);
      assert_int_equal(head.revision, 10);
      assert_int_equal(rows_from(fx, workers[i].first + n, head.tip), 10);
    }
  }
}

/* ---- other bodies ---- */

typedef struct body {
  char text[64];
  uint32_t flags;
  int rows;
} body;

static tm_status see_body(void *ud, const tm_row *row) {
  body *b = ud;
  if (b->rows++ == 0) {
    assert_true(tm__copy(b->text, sizeof(b->text), row->body));
    b->flags = row->flags;
  }
  return TM_OK;
}

static body body_of(fixture *fx, int n, int64_t id) {
  body b = {0};
  assert_ok(fx, fx->backend->chain(fx->reader, tm__slice(nth(n).text), id, false, see_body, &b,
                                   &fx->err));
  return b;
}

static tm_row other_body(int n, int64_t id, const char *text, uint32_t flags) {
  tm_row row = {.id = id, .flags = flags, .body = tm__slice(text)};
  memcpy(row.conversation, nth(n).text, sizeof(row.conversation));
  return row;
}

static void rows_get_other_bodies(void **state) {
  fixture *fx = *state;
  int64_t first = turn(fx, nth(1).text, 0, 0, "one"),
          second = turn(fx, nth(1).text, 1, first, "two");
  int64_t other = turn(fx, nth(2).text, 0, 0, "other");
  tm_row rows[] = {other_body(1, first, "ONE is longer now", 3), other_body(2, other, "", 0),
                   other_body(1, second + 1000, "nowhere", 1), other_body(3, first, "nobody", 1)};
  assert_ok(fx, fx->backend->rewrite(fx->writer, rows, 4, &fx->err));
  body b = body_of(fx, 1, first);
  assert_string_equal(b.text, "ONE is longer now");
  assert_int_equal(b.flags, 3);
  b = body_of(fx, 1, second);
  assert_string_equal(b.text, "two");
  assert_int_equal(b.flags, 0);
  assert_int_equal(b.rows, 2); /* parents are as they were */
  b = body_of(fx, 2, other);
  assert_string_equal(b.text, "");
  tm_head head = head_of(fx, nth(1).text);
  assert_true(head.revision == 2 && head.tip == second);
  assert_int_equal(purge(fx, 2, 1), TM_OK);
  assert_ok(fx, fx->backend->rewrite(fx->writer, rows, 4, &fx->err)); /* or between the two */
  (void)sweep_all(fx, 10);
  assert_ok(fx, fx->backend->rewrite(fx->writer, rows, 4, &fx->err));
  assert_int_equal(rows_from(fx, 2, other), -1);
}

static void too_large_a_body_changes_nothing(void **state) {
  fixture *fx = *state;
  fixture_close(fx);
  fx->options.record_bytes_max = 1024;
  fixture_open(fx);
  static char large[1026];
  memset(large, 'x', 1025);
  tm_row row = row_of(fx, 0, large);
  tm_commit c = commit_of(fx, nth(1).text, 0, &row);
  assert_int_equal(commit_one(fx, &c), TM_ETOOLARGE);
  large[1024] = '\0';
  row.body.len = 1024;
  assert_ok(fx, commit_one(fx, &c));
  large[1024] = 'x';
  int64_t second = turn(fx, nth(1).text, 1, c.row_id, "two");
  tm_row rows[] = {other_body(1, second, "TWO", 1), other_body(1, c.row_id, large, 1)};
  assert_int_equal(fx->backend->rewrite(fx->writer, rows, 2, &fx->err), TM_ETOOLARGE);
  assert_string_equal(fx->err.code, "store.too_large");
  assert_string_equal(body_of(fx, 1, second).text, "two"); /* all or none */
}

/* ---- copied from another store ---- */

static void a_replay_may_skip_revisions(void **state) {
  fixture *fx = *state;
  tm_row row = row_of(fx, 0, "{}");
  tm_commit c = commit_of(fx, nth(1).text, 0, &row);
  c.head.revision = 41;
  assert_int_equal(commit_one(fx, &c), TM_EINVAL);
  c.replay = true;
  c.head.ended = 9;
  assert_ok(fx, commit_one(fx, &c));
  tm_head head = head_of(fx, nth(1).text);
  assert_true(head.revision == 41 && head.tip == c.row_id && head.ended == 9);
  tm_row next = row_of(fx, c.row_id, "{}");
  tm_commit on = commit_of(fx, nth(1).text, 41, &next);
  on.replay = true;
  on.head.revision = 41;
  assert_int_equal(commit_one(fx, &on), TM_EINVAL); /* above what stands */
  on.head.revision = 60;
  on.expect_revision = 40;
  assert_int_equal(commit_one(fx, &on), TM_ECONFLICT);
  on.expect_revision = 41;
  assert_ok(fx, commit_one(fx, &on));
  assert_int_equal(head_of(fx, nth(1).text).revision, 60);
  assert_int_equal(rows_from(fx, 1, on.row_id), 2);
  (void)turn(fx, nth(1).text, 60, on.row_id, "{}"); /* and goes on */
}

static const struct CMUnitTest cases[] = {
    CASE(ended_ones_are_found),           CASE(ends_are_taken_back),
    CASE(a_purge_takes_the_head_at_once), CASE(what_has_no_rows_goes_too),
    CASE(long_ones_go_in_pieces),         CASE(a_purged_one_comes_back),
    CASE(a_sweep_survives_reopening),     CASE(old_start_keys_go),
    CASE(a_walk_during_a_purge),          CASE(purges_among_commits),
    CASE(rows_get_other_bodies),          CASE(too_large_a_body_changes_nothing),
    CASE(a_replay_may_skip_revisions),
};

int main(void) {
  int failed = 0;
#define BACKEND(name) failed += run_for(&tm__store_##name, cases, sizeof(cases) / sizeof(cases[0]));
#include "persistence/backends.def"
#undef BACKEND
  return failed;
}
