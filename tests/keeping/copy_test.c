/* Copying between any two backends: everything arrives, whatever stops it on the way. */
#include "copy_fixture.h"
#include "tests/persistence/file_store.h"

#include <time.h>

#define CONVERSATIONS 8
#define SESSIONS      9

typedef struct pair {
  fixture from, to;
  filler f;
  tm_error failed; /* the last that could not be copied */
} pair;

static void on_failed(void *ud, const tm_error *err) {
  ((pair *)ud)->failed = *err;
}

static tm_copy copy_of(pair *p) {
  return (tm_copy){.from = {p->from.backend, p->from.reader},
                   .to = {p->to.backend, p->to.writer},
                   .failed = on_failed,
                   .ud = p};
}

static void open_pair(pair *p, const tm_store_backend *from, const tm_store_backend *to) {
  fixture_make(&p->from, from);
  fixture_make(&p->to, to);
  fixture_open(&p->from);
  fixture_open(&p->to);
  p->f = (filler){.fx = &p->from, .seed = 1};
  p->failed = (tm_error){.status = TM_OK};
}

static void close_pair(pair *p) {
  fixture_remove(&p->from);
  fixture_remove(&p->to);
}

/* What a case does with one pair, over all pairs; a server of Redis has one database per process.
 */
static void each_pair(void (*fn)(pair *p)) {
  static const tm_store_backend *const all[] = {
#define BACKEND(name) &tm__store_##name,
#include "persistence/backends.def"
#undef BACKEND
  };
  const size_t count = sizeof(all) / sizeof(all[0]);
  pair *p = calloc(1, sizeof(*p));
  assert_non_null(p);
  for (size_t i = 0; i < count * count; i++) {
    const tm_store_backend *from = all[i / count], *to = all[i % count];
    if (from == to && strcmp(from->scheme, "redis") == 0) continue;
    print_message("%s -> %s\n", from->scheme, to->scheme);
    open_pair(p, from, to);
    fn(p);
    close_pair(p);
  }
  free(p);
}

/* From memory to each backend. */
static void each_target(void (*fn)(pair *p)) {
#define BACKEND(name) &tm__store_##name,
  static const tm_store_backend *const all[] = {
#include "persistence/backends.def"
  };
#undef BACKEND
  pair *p = calloc(1, sizeof(*p));
  assert_non_null(p);
  for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
    print_message("memory -> %s\n", all[i]->scheme);
    open_pair(p, &tm__store_memory, all[i]);
    fn(p);
    close_pair(p);
  }
  free(p);
}

static void fill(pair *p, int conversations, int commits) {
  for (int n = 0; n < conversations; n++)
    add_conversation(&p->f, n, 1 + below(&p->f.seed, commits), 300);
  add_sessions(&p->f, SESSIONS);
  add_scripts(&p->f);
}

static tm_copy copy_all(pair *p) {
  tm_copy c = copy_of(p);
  assert_ok(&p->to, tm__store_copy(&c, &p->to.err));
  if (c.counts.failed > 0) print_error("%s: %s\n", p->failed.code, p->failed.message);
  assert_int_equal(c.counts.failed, 0);
  return c;
}

static void same_stores(pair *p, int conversations) {
  for (int n = 0; n < conversations; n++)
    same_conversation(&p->from, &p->to, nth(n).text);
  same_sessions(&p->from, &p->to, SESSIONS);
  same_scripts(&p->to);
}

/* ---- all of it ---- */

static void check_arrival(pair *p) {
  const char *given = getenv("TIDEMILL_SEED");
  p->f.seed = given != NULL ? (uint32_t)strtoul(given, NULL, 10) : (uint32_t)time(NULL);
  print_message("TIDEMILL_SEED=%u\n", p->f.seed);
  fill(p, CONVERSATIONS, getenv("TIDEMILL_NIGHTLY") != NULL ? 60 : 16);
  tm_copy c = copy_all(p);
  assert_int_equal(c.counts.conversations, CONVERSATIONS);
  assert_int_equal(c.counts.total, CONVERSATIONS);
  assert_int_equal(c.counts.copied, CONVERSATIONS);
  assert_int_equal(c.counts.rows, p->f.total);
  assert_int_equal(c.counts.sessions, SESSIONS);
  assert_int_equal(c.counts.scripts, 2);
  same_stores(p, CONVERSATIONS);
  tm_copy again = copy_all(p);
  assert_int_equal(again.counts.copied + again.counts.rows, 0);
  assert_int_equal(again.counts.scripts, 0);
  assert_memory_equal(again.digest, c.digest, TM_COPY_DIGEST);
  same_stores(p, CONVERSATIONS);
}

static void everything_arrives(void **state) {
  (void)state;
  each_pair(check_arrival);
}

static void check_later(pair *p) {
  fill(p, 6, 20);
  tm_copy first = copy_all(p);
  int64_t before = p->f.total;
  for (int i = 0; i < 25; i++)
    add_commit(&p->f, 5, 300); /* the last one goes on, and another begins */
  add_conversation(&p->f, 6, 9, 300);
  tm_copy c = copy_all(p);
  assert_int_equal(c.counts.copied, 2);
  assert_int_equal(c.counts.rows, p->f.total - before);
  assert_true(memcmp(c.digest, first.digest, TM_COPY_DIGEST) != 0);
  same_stores(p, 7);
}

static void what_happened_since_comes_with_the_next_run(void **state) {
  (void)state;
  each_target(check_later);
}

/* A target that must be told each parent gets one row of a conversation at a time. */
static const tm_store_backend *hearing;

static tm_status commit_one_of_each(tm_store_conn *c, tm_commit *const *items, size_t count,
                                    tm_error *err) {
  for (size_t i = 0; i < count; i++) {
    assert_true(items[i]->row == NULL || items[i]->row->parent != TM_TIP);
    for (size_t k = 0; k < i; k++)
      assert_string_not_equal(items[i]->head.id, items[k]->head.id);
  }
  return hearing->commit(c, items, count, err);
}

static void check_one_by_one(pair *p) {
  fill(p, 5, 30);
  tm_store_backend b = *p->to.backend;
  hearing = p->to.backend;
  b.takes_tip = false;
  b.commit = commit_one_of_each;
  tm_copy c = copy_of(p);
  c.to.backend = &b;
  assert_ok(&p->to, tm__store_copy(&c, &p->to.err));
  assert_int_equal(c.counts.rows, p->f.total);
  assert_int_equal(c.counts.failed, 0);
  same_stores(p, 5);
}

static void a_target_may_want_to_be_told_parents(void **state) {
  (void)state;
  each_target(check_one_by_one);
}

/* Longer than what is held in memory; undo rows mean rows far away. */
static void check_long(pair *p) {
  add_conversation(&p->f, 1, 2600, 24);
  add_conversation(&p->f, 2, 40, 4000);
  add_sessions(&p->f, SESSIONS);
  add_scripts(&p->f);
  tm_copy c = copy_all(p);
  assert_int_equal(c.counts.rows, p->f.total);
  same_conversation(&p->from, &p->to, nth(1).text);
  same_conversation(&p->from, &p->to, nth(2).text);
  int64_t before = p->f.total;
  add_conversation(&p->f, 3, 2100, 24);
  for (int i = 0; i < 2100; i++)
    add_commit(&p->f, 3, 24);
  c = copy_all(p);
  assert_int_equal(c.counts.rows, p->f.total - before);
  same_conversation(&p->from, &p->to, nth(3).text);
}

static void long_conversations_arrive_in_pieces(void **state) {
  (void)state;
  pair *p = calloc(1, sizeof(*p));
  assert_non_null(p);
  open_pair(p, &tm__store_memory, &tm__store_memory);
  check_long(p);
  close_pair(p);
  free(p);
}

/* ---- stopped on the way ---- */

static struct {
  const tm_store_backend *real;
  int left;    /* commits that go well; negative: all */
  bool silent; /* the failing one is applied all the same: killed before it heard of it */
  int64_t commits;
} killer;

static tm_status commit_or_die(tm_store_conn *c, tm_commit *const *items, size_t count,
                               tm_error *err) {
  killer.commits++;
  if (killer.left != 0) {
    killer.left--;
    return killer.real->commit(c, items, count, err);
  }
  if (killer.silent) (void)killer.real->commit(c, items, count, err);
  return tm__fail(err, TM_EUNAVAILABLE, "store.io", "killed");
}

/* With small groups there are more points. */
static tm_store_backend killing(const tm_store_backend *real, int after, bool silent, bool small) {
  tm_store_backend b = *real;
  b.takes_tip = b.takes_tip && !small;
  killer.real = real;
  killer.left = after;
  killer.silent = silent;
  b.commit = commit_or_die;
  return b;
}

/* Is each conversation there whole, or marked as incomplete, so that nobody serves it? */
static void nobody_serves_a_part(pair *p, int first, int last) {
  for (int n = first; n <= last; n++) {
    tm_head head, whole = head_of(&p->from, nth(n).text);
    tm_status status = p->to.backend->head(p->to.writer, tm__slice(nth(n).text), &head, NULL);
    if (status == TM_ENOTFOUND || head.revision == whole.revision) continue;
    assert_string_equal(head.claim, TM_COPIER);
    assert_int_equal(head.status, TM_ACTIVE);
    assert_int_equal(head.wake_at, 0);
    assert_int_equal(head.ended, 0);
  }
}

static void check_kill(pair *p, int point, bool silent, bool small, int first, int last) {
  tm_store_backend broken = killing(p->to.backend, point, silent, small);
  tm_copy c = copy_of(p);
  c.to.backend = &broken;
  tm_status status = tm__store_copy(&c, &p->to.err);
  if (status == TM_OK) return;
  assert_int_equal(status, TM_EUNAVAILABLE);
  nobody_serves_a_part(p, first, last);
}

static void check_kills(pair *p) {
  for (int n = 0; n < 4; n++)
    add_conversation(&p->f, n, 2 + 2 * n, 100);
  add_sessions(&p->f, SESSIONS);
  add_scripts(&p->f);
  const tm_store_backend *to = p->to.backend;
  for (int round = 0; round < 4; round++) {
    for (int point = 0; point < (round >= 2 ? 9 : 3); point++) {
      check_kill(p, point, round % 2 == 1, round >= 2, 0, 3); /* after more and more of it */
      (void)copy_all(p);
      same_stores(p, 4);
      for (int n = 0; n < 4; n++) {
        tm_head head = head_of(&p->to, nth(n).text);
        assert_ok(&p->to,
                  to->purge(p->to.writer, tm__slice(head.id), head.revision, true, &p->to.err));
      }
      bool more = true;
      while (more)
        assert_ok(&p->to, to->sweep(p->to.writer, 100, &more, &p->to.err));
    }
  }
}

static void killed_anywhere_it_goes_on(void **state) {
  (void)state;
  each_target(check_kills);
}

/* Dies again and again, each time a little further: still no row is written twice. */
static void a_copy_that_dies_often_arrives(void **state) {
  (void)state;
  pair *p = calloc(1, sizeof(*p));
  assert_non_null(p);
  open_pair(p, &tm__store_memory, &tm__store_memory);
  fill(p, 5, 30);
  int64_t rows = 0;
  int runs = 0;
  tm_status status;
  do {
    tm_store_backend broken = killing(p->to.backend, 1, false, true);
    tm_copy c = copy_of(p);
    c.to.backend = &broken;
    status = tm__store_copy(&c, &p->to.err);
    rows += c.counts.rows;
    assert_true(++runs < 100);
  } while (status != TM_OK);
  assert_int_equal(rows, p->f.total);
  assert_true(runs > 3);
  same_stores(p, 5);
  close_pair(p);
  free(p);
}

static struct { int left; } patience;

static bool lose_patience(void *ud, const tm_copy_counts *now) {
  (void)ud, (void)now;
  return patience.left-- > 0;
}

static void stopped_anywhere_it_goes_on(void **state) {
  (void)state;
  pair *p = calloc(1, sizeof(*p));
  assert_non_null(p);
  open_pair(p, &tm__store_memory, &tm__store_memory);
  fill(p, 5, 30);
  add_conversation(&p->f, 5, 2200, 20);
  tm_status status = TM_ECANCELLED;
  for (int n = 0; status != TM_OK; n++) {
    tm_copy c = copy_of(p);
    c.go_on = lose_patience;
    patience.left = 3 * n;
    status = tm__store_copy(&c, &p->to.err);
    if (status != TM_OK) assert_string_equal(p->to.err.code, "copy.stopped");
    assert_true(n < 3000);
  }
  same_stores(p, 6);
  close_pair(p);
  free(p);
}

/* ---- what is refused, by name ---- */

static void expect_failure(pair *p, tm_copy *c, const char *code, int n) {
  assert_ok(&p->to, tm__store_copy(c, &p->to.err));
  assert_int_equal(c->counts.failed, 1);
  assert_string_equal(p->failed.code, code);
  assert_string_equal(p->failed.conversation_id, nth(n).text);
  assert_non_null(strstr(p->failed.message, nth(n).text));
}

static void check_moved(pair *p) {
  fill(p, 4, 12);
  (void)copy_all(p);
  tm_head there = head_of(&p->to, nth(2).text);
  int64_t tip = turn(&p->to, nth(2).text, there.revision, there.tip, "{\"mine\":1}");
  tm_copy c = copy_of(p);
  expect_failure(p, &c, "copy.moved", 2);
  assert_int_equal(head_of(&p->to, nth(2).text).tip, tip); /* not overwritten */
  /* the source goes on as well, to the same revision: still another story */
  p->from.now += 5;
  tm_head here = head_of(&p->from, nth(2).text);
  (void)turn(&p->from, nth(2).text, here.revision, here.tip, "{\"other\":1}");
  c = copy_of(p);
  expect_failure(p, &c, "copy.moved", 2);
  assert_int_equal(head_of(&p->to, nth(2).text).tip, tip);
  c = copy_of(p);
  c.set_back = true;
  assert_ok(&p->to, tm__store_copy(&c, &p->to.err));
  assert_int_equal(c.counts.failed, 0);
  assert_int_equal(c.counts.removed, 1);
  assert_int_equal(c.counts.copied, 1);
  same_stores(p, 4);
}

static void what_went_on_in_the_target_is_not_overwritten(void **state) {
  (void)state;
  each_target(check_moved);
}

static void check_changed_head(pair *p) {
  fill(p, 3, 12);
  (void)copy_all(p);
  tm_head there = head_of(&p->to, nth(1).text);
  tm_commit mine = commit_of(&p->to, nth(1).text, there.revision, NULL);
  tm_head here = head_of(&p->from, nth(1).text);
  tm_commit other = commit_of(&p->from, nth(1).text, here.revision, NULL);
  mine.head.status = TM_PAUSED;
  assert_ok(&p->to, commit_one(&p->to, &mine));
  assert_ok(&p->from, commit_one(&p->from, &other));
  tm_copy c = copy_of(p);
  expect_failure(p, &c, "copy.differs", 1);
  c = copy_of(p);
  c.set_back = true;
  assert_ok(&p->to, tm__store_copy(&c, &p->to.err));
  assert_int_equal(c.counts.failed, 0);
  same_stores(p, 3);
}

static void a_head_that_differs_is_found(void **state) {
  (void)state;
  each_target(check_changed_head);
}

/* As when a key was changed: other bodies, the same rows. */
static void seal_anew(fixture *fx, const char *id, int64_t *rows) {
  tm_head head = head_of(fx, id);
  walked *w = malloc(sizeof(*w));
  assert_non_null(w);
  walk_chain(fx, &head, false, w);
  *rows += (int64_t)w->count;
  for (size_t i = 0; i < w->count; i++) {
    char body[32];
    (void)snprintf(body, sizeof(body), "sealed %zu", i);
    tm_row row = {.id = w->rows[i].id, .flags = 2, .body = tm__slice(body)};
    set_text(row.conversation, sizeof(row.conversation), id);
    assert_ok(fx, fx->backend->rewrite(fx->writer, &row, 1, &fx->err));
  }
  free(w);
}

static void check_sealed_anew(pair *p) {
  int64_t rows = 0;
  fill(p, 4, 20);
  add_conversation(&p->f, 4, 1300, 20);
  (void)copy_all(p);
  seal_anew(&p->from, nth(4).text, &rows);
  seal_anew(&p->from, nth(2).text, &rows);
  seal_anew(&p->to, nth(1).text, &rows); /* the source is what counts */
  tm_copy c = copy_all(p);
  assert_int_equal(c.counts.rewritten, rows);
  assert_int_equal(c.counts.rows, 0);
  assert_int_equal(c.counts.copied, 3);
  same_stores(p, 5);
  c = copy_all(p);
  assert_int_equal(c.counts.rewritten + c.counts.copied, 0);
}

static void bodies_that_were_sealed_anew_are_taken_over(void **state) {
  (void)state;
  each_target(check_sealed_anew);
}

/* ---- stores that lie ---- */

static struct {
  const tm_store_backend *real;
  const char *conversation;
  int64_t revision; /* of the row that is left out, or altered */
  bool alter;
  tm_row_fn fn;
  void *ud;
} liar;

static tm_status lie(void *ud, const tm_row *row) {
  (void)ud;
  tm_row altered = *row;
  bool here = strcmp(row->conversation, liar.conversation) == 0 && row->revision == liar.revision;
  if (here && !liar.alter) return TM_ENOTFOUND; /* ends the walk, as a missing row does */
  if (here) altered.body = TM_S("something else");
  return liar.fn(liar.ud, &altered);
}

static tm_status lying_chain(tm_store_conn *c, tm_slice conversation, int64_t row, bool follow_base,
                             tm_row_fn fn, void *ud, tm_error *err) {
  liar.fn = fn;
  liar.ud = ud;
  tm_status status = liar.real->chain(c, conversation, row, follow_base, lie, NULL, err);
  return status == TM_ENOTFOUND ? TM_OK : status;
}

static tm_store_backend lying(const tm_store_backend *real, const char *id, int64_t revision,
                              bool alter) {
  tm_store_backend b = *real;
  liar.real = real;
  liar.conversation = id;
  liar.revision = revision;
  liar.alter = alter;
  b.chain = lying_chain;
  return b;
}

static void rows_that_are_missing_are_told(void **state) {
  (void)state;
  pair *p = calloc(1, sizeof(*p));
  assert_non_null(p);
  open_pair(p, &tm__store_memory, &tm__store_memory);
  fill(p, 3, 2);
  add_conversation(&p->f, 3, 9, 10);
  conversation_id id = nth(3);
  tm_store_backend broken = lying(p->from.backend, id.text, 1, false);
  tm_copy c = copy_of(p);
  c.from.backend = &broken;
  expect_failure(p, &c, "journal.damaged", 3);
  assert_int_equal(c.counts.copied, 3); /* the others are there */
  assert_int_equal(p->to.backend->head(p->to.writer, tm__slice(id.text), &(tm_head){0}, NULL),
                   TM_ENOTFOUND);
  close_pair(p);
  free(p);
}

/* The last commit of its log, once the index does not know its head. */
static void damage_log(fixture *fx, int n) {
  char byte;
  path log = log_of(fx, n);
  fixture_close(fx);
  int fd = open(log.text, O_RDWR);
  assert_true(fd >= 0);
  assert_int_equal(pread(fd, &byte, 1, size_of(log.text) - 60), 1);
  byte = (char)(byte ^ 0x20);
  assert_int_equal(pwrite(fd, &byte, 1, size_of(log.text) - 60), 1);
  (void)close(fd);
  drop_index(fx);
  fixture_open(fx);
}

static void check_unreadable(pair *p) {
  int64_t foreign, ahead;
  fill(p, 4, 12);
  tm_copy c = copy_all(p);
  tm_head there = head_of(&p->to, nth(2).text);
  damage_log(&p->from, 2);
  add_conversation(&p->f, 4, 3, 300);
  c = copy_of(p);
  c.mirror = true;
  expect_failure(p, &c, "journal.damaged", 2);
  assert_int_equal(c.counts.conversations, 5);
  assert_int_equal(c.counts.total, 5);
  assert_int_equal(c.counts.copied, 1);
  assert_int_equal(c.counts.removed, 0);
  assert_int_equal(head_of(&p->to, nth(2).text).revision, there.revision); /* what was good */
  assert_ok(&p->to, tm__store_compare(&c.from, &c.to, &foreign, &ahead, &p->to.err));
  assert_int_equal(foreign + ahead, 0);
  uint8_t digest[TM_COPY_DIGEST] = {0};
  assert_int_equal(tm__content_add(&c, TM_S(""), digest, &p->from.err), TM_ECORRUPT);
  assert_string_equal(p->from.err.conversation_id, nth(2).text);
}

static tm_status note_there(void *ud, const tm_session *session) {
  (void)session;
  *(bool *)ud = true;
  return TM_OK;
}

/* What is in no list is a failure as well, and what the target has of it stays. */
static void check_unlisted(pair *p) {
  fill(p, 4, 6);
  (void)copy_all(p);
  path session = small_file(&p->from, TM_FILE_SESSION, "default", "s5");
  path script = small_file(&p->from, TM_FILE_SCRIPT, "shop", "77");
  fixture_close(&p->from);
  set_content(session.text, "x", 1);
  set_content(script.text, "x", 1);
  drop_index(&p->from);
  fixture_open(&p->from);
  tm_copy c = copy_of(p);
  c.mirror = true;
  assert_ok(&p->to, tm__store_copy(&c, &p->to.err));
  assert_int_equal(c.counts.failed, 2);
  assert_int_equal(c.counts.removed, 0);
  assert_int_equal(c.counts.conversations, 4);
  assert_string_equal(p->failed.code, "store.damaged");
  assert_non_null(strstr(p->failed.message, session.text));
  bool there = false;
  assert_ok(&p->to, p->to.backend->session(p->to.reader, TM_S("default"), TM_S("s5"), note_there,
                                           &there, &p->to.err));
  assert_true(there);
  uint8_t digest[TM_COPY_DIGEST] = {0};
  assert_int_equal(tm__content_add(&c, TM_S(""), digest, &p->from.err), TM_ECORRUPT);
}

static tm_status note_user(void *ud, const tm_session *session) {
  *(bool *)ud = session->user_id.ptr != NULL;
  return TM_OK;
}

/* One of the source is a failure, and what the target has of it stays; one of the target goes. */
static void check_damaged_sessions(pair *p) {
  bool there = false;
  if (strcmp(p->from.backend->scheme, "memory") == 0) return;
  fill(p, 2, 3);
  (void)copy_all(p);
  tm_session s = {
      .tenant = TM_S("default"), .id = TM_S("s2"), .user_id = TM_S("x"), .created = 7, .ended = -5};
  assert_ok(&p->from, p->from.backend->session_put(p->from.writer, NULL, &s, &p->from.err));
  s.id = TM_S("s4");
  assert_ok(&p->to, p->to.backend->session_put(p->to.writer, NULL, &s, &p->to.err));
  s.id = TM_S("s10");
  s.ended = 0;
  assert_ok(&p->from, p->from.backend->session_put(p->from.writer, NULL, &s, &p->from.err));
  tm_copy c = copy_of(p);
  c.mirror = true;
  assert_ok(&p->to, tm__store_copy(&c, &p->to.err));
  assert_int_equal(c.counts.failed, 1);
  assert_string_equal(p->failed.code, "session.damaged");
  assert_non_null(strstr(p->failed.message, "session s2 of tenant default"));
  const char *const ids[] = {"s2", "s4", "s10"};
  for (int i = 0; i < 3; i++) {
    there = false;
    assert_ok(&p->to, p->to.backend->session(p->to.reader, TM_S("default"), tm__slice(ids[i]),
                                             note_user, &there, &p->to.err));
    assert_true(there);
  }
  uint8_t digest[TM_COPY_DIGEST] = {0};
  assert_int_equal(tm__content_add(&c, TM_S(""), digest, &p->from.err), TM_ECORRUPT);
  assert_string_equal(p->from.err.code, "session.damaged");
}

static void damaged_sessions_stop_no_copy(void **state) {
  (void)state;
  pair *p = calloc(1, sizeof(*p));
  assert_non_null(p);
#define BACKEND(name)                                                                              \
  open_pair(p, &tm__store_##name, tm__store_backend(TM_S("sqlite")));                              \
  check_damaged_sessions(p);                                                                       \
  close_pair(p);
#include "persistence/backends.def"
#undef BACKEND
  free(p);
}

static void what_is_in_no_list_is_told(void **state) {
  (void)state;
  pair *p = calloc(1, sizeof(*p));
  assert_non_null(p);
#define BACKEND(name)                                                                              \
  open_pair(p, tm__store_backend(TM_S("file")), &tm__store_##name);                                \
  check_unlisted(p);                                                                               \
  close_pair(p);
#include "persistence/backends.def"
#undef BACKEND
  free(p);
}

static void what_cannot_be_read_is_told(void **state) {
  (void)state;
  pair *p = calloc(1, sizeof(*p));
  assert_non_null(p);
#define BACKEND(name)                                                                              \
  open_pair(p, tm__store_backend(TM_S("file")), &tm__store_##name);                                \
  check_unreadable(p);                                                                             \
  close_pair(p);
#include "persistence/backends.def"
#undef BACKEND
  free(p);
}

/* By force, and never when the source has nothing better. */
static void what_cannot_be_read_in_the_target_is_replaced(void **state) {
  (void)state;
  pair *p = calloc(1, sizeof(*p));
  assert_non_null(p);
  open_pair(p, &tm__store_memory, tm__store_backend(TM_S("file")));
  fill(p, 4, 12);
  (void)copy_all(p);
  damage_log(&p->to, 2);
  tm_copy c = copy_of(p);
  expect_failure(p, &c, "journal.damaged", 2);
  tm_store_backend broken = lying(p->from.backend, nth(2).text, 1, false);
  c = copy_of(p);
  c.set_back = true;
  c.from.backend = &broken;
  expect_failure(p, &c, "journal.damaged", 2);
  assert_int_equal(c.counts.removed, 0);
  assert_true(size_of(log_of(&p->to, 2).text) > 0);
  c = copy_of(p);
  c.set_back = true;
  assert_ok(&p->to, tm__store_copy(&c, &p->to.err));
  assert_int_equal(c.counts.failed, 0);
  assert_int_equal(c.counts.removed, 1);
  assert_int_equal(c.counts.copied, 1);
  same_stores(p, 4);
  tm_copy again = copy_all(p);
  assert_memory_equal(again.digest, c.digest, TM_COPY_DIGEST);
  close_pair(p);
  free(p);
}

static void what_the_target_gives_back_is_compared(void **state) {
  (void)state;
  pair *p = calloc(1, sizeof(*p));
  assert_non_null(p);
  open_pair(p, &tm__store_memory, &tm__store_memory);
  fill(p, 3, 2);
  add_conversation(&p->f, 3, 9, 10);
  conversation_id id = nth(3);
  tm_store_backend broken = lying(p->to.backend, id.text, 1, true);
  tm_copy c = copy_of(p);
  c.to.backend = &broken;
  expect_failure(p, &c, "copy.differs", 3);
  c = copy_of(p); /* and again when all is there */
  c.to.backend = &broken;
  expect_failure(p, &c, "copy.differs", 3);
  (void)copy_all(p);
  close_pair(p);
  free(p);
}

/* ---- the target's own ways ---- */

static void check_taken_key(pair *p) {
  add_conversation(&p->f, 2, 5, 50); /* has a key */
  add_conversation(&p->f, 3, 5, 50);
  tm_row row = row_of(&p->to, 0, "{}");
  tm_commit c = commit_of(&p->to, nth(9).text, 0, &row);
  c.start_key = 1002;
  c.start_body = 1;
  assert_ok(&p->to, commit_one(&p->to, &c));
  tm_copy copy = copy_of(p);
  expect_failure(p, &copy, "copy.key_taken", 2);
  assert_non_null(strstr(p->failed.message, nth(9).text));
  same_conversation(&p->from, &p->to, nth(3).text);
  p->from.now += TM_KEY_AGE_MS + 1;
  p->to.now += TM_KEY_AGE_MS + 1;
  (void)copy_all(p);
  same_conversation(&p->from, &p->to, nth(2).text);
}

static void a_start_key_of_somebody_else_is_told(void **state) {
  (void)state;
  each_target(check_taken_key);
}

static tm_status commit_after_another(tm_store_conn *c, tm_commit *const *items, size_t count,
                                      tm_error *err) {
  if (killer.left-- == 0) {
    tm_commit first = *items[0];
    tm_commit *one[] = {&first};
    assert_int_equal(killer.real->commit(c, one, 1, err), TM_OK);
  }
  return killer.real->commit(c, items, count, err);
}

/* Both begin with the conversation's first row, which has its start key. */
static void check_two_first_rows(pair *p) {
  add_conversation(&p->f, 2, 5, 50); /* has a key */
  tm_store_backend shared = *p->to.backend;
  killer.real = p->to.backend;
  killer.left = 0;
  shared.commit = commit_after_another;
  tm_copy c = copy_of(p);
  c.to.backend = &shared;
  expect_failure(p, &c, "copy.busy", 2);
  (void)copy_all(p);
  same_conversation(&p->from, &p->to, nth(2).text);
}

static void two_copies_that_begin_at_once(void **state) {
  (void)state;
  each_target(check_two_first_rows);
}

static void check_two_copies(pair *p) {
  add_conversation(&p->f, 3, 6, 50);
  add_sessions(&p->f, SESSIONS);
  add_scripts(&p->f);
  tm_store_backend shared = *p->to.backend;
  killer.real = p->to.backend;
  killer.left = 2;
  shared.commit = commit_after_another;
  shared.takes_tip = false;
  tm_copy c = copy_of(p);
  c.to.backend = &shared;
  expect_failure(p, &c, "copy.busy", 3);
  (void)copy_all(p);
  same_conversation(&p->from, &p->to, nth(3).text);
}

static void two_copies_at_once_do_no_harm(void **state) {
  (void)state;
  each_target(check_two_copies);
}

static void a_part_is_no_source(void **state) {
  (void)state;
  pair *p = calloc(1, sizeof(*p));
  assert_non_null(p);
  open_pair(p, &tm__store_memory, &tm__store_memory);
  add_conversation(&p->f, 3, 6, 50);
  check_kill(p, 2, false, true, 3, 3);
  fixture other = p->from;
  p->from = p->to;
  p->to = other;
  tm_copy c = copy_of(p);
  expect_failure(p, &c, "copy.unfinished", 3);
  close_pair(p);
  free(p);
}

static void what_is_too_large_is_told(void **state) {
  (void)state;
  pair *p = calloc(1, sizeof(*p));
  assert_non_null(p);
  open_pair(p, &tm__store_memory, &tm__store_memory);
  fixture_close(&p->to);
  p->to.options.record_bytes_max = 1000;
  fixture_open(&p->to);
  char body[2000];
  memset(body, ' ', sizeof(body) - 1);
  body[sizeof(body) - 1] = '\0';
  int64_t tip = turn(&p->from, nth(1).text, 0, 0, "{}");
  (void)turn(&p->from, nth(1).text, 1, tip, body);
  tm_copy c = copy_of(p);
  expect_failure(p, &c, "copy.refused", 1);
  assert_non_null(strstr(p->failed.message, "too_large"));
  close_pair(p);
  free(p);
}

/* ---- what goes meanwhile, and what is not in the source ---- */

static struct {
  fixture *fx;
  int left;
} purger;

static bool purge_in_between(void *ud, const tm_copy_counts *now) {
  (void)ud, (void)now;
  if (purger.left-- != 0) return true;
  tm_head head;
  const tm_store_backend *b = purger.fx->backend;
  if (b->head(purger.fx->writer, tm__slice(nth(1).text), &head, NULL) != TM_OK) return true;
  assert_ok(purger.fx,
            b->purge(purger.fx->writer, tm__slice(head.id), head.revision, true, &purger.fx->err));
  bool more = true;
  while (more)
    assert_ok(purger.fx, b->sweep(purger.fx->writer, 100, &more, &purger.fx->err));
  return true;
}

static void check_purge(pair *p) {
  for (int n = 0; n < 3; n++)
    add_conversation(&p->f, n, 5 + n, 100);
  add_sessions(&p->f, SESSIONS);
  add_scripts(&p->f);
  for (int point = 0; point < 18; point++) {
    tm_copy c = copy_of(p);
    c.go_on = purge_in_between;
    c.mirror = true;
    purger.fx = &p->from;
    purger.left = point;
    assert_ok(&p->to, tm__store_copy(&c, &p->to.err));
    assert_int_equal(c.counts.failed, 0);
    tm_copy again = copy_of(p);
    again.mirror = true;
    assert_ok(&p->to, tm__store_copy(&again, &p->to.err));
    if (purger.left < 0) {
      assert_int_equal(
          p->to.backend->head(p->to.writer, tm__slice(nth(1).text), &(tm_head){0}, NULL),
          TM_ENOTFOUND);
      add_conversation(&p->f, 1, 6, 100);
    }
    same_conversation(&p->from, &p->to, nth(0).text);
    same_conversation(&p->from, &p->to, nth(2).text);
  }
}

static void what_is_purged_meanwhile_is_no_error(void **state) {
  (void)state;
  each_target(check_purge);
}

static void check_mirror(pair *p) {
  fill(p, 4, 12);
  (void)turn(&p->to, nth(50).text, 0, 0, "{}");
  tm_session s = {.tenant = TM_S("default"), .id = TM_S("extra"), .created = 5};
  assert_ok(&p->to, p->to.backend->session_put(p->to.writer, NULL, &s, &p->to.err));
  tm_copy c = copy_all(p);
  assert_int_equal(c.counts.removed, 0); /* a copy removes nothing */
  (void)head_of(&p->to, nth(50).text);
  int64_t foreign = 0, ahead = 0;
  assert_ok(&p->to, tm__store_compare(&c.from, &c.to, &foreign, &ahead, &p->to.err));
  assert_int_equal(foreign, 1);
  assert_int_equal(ahead, 0);
  c = copy_of(p);
  c.mirror = true;
  assert_ok(&p->to, tm__store_copy(&c, &p->to.err));
  assert_int_equal(c.counts.removed, 1);
  assert_ok(&p->to, tm__store_compare(&c.from, &c.to, &foreign, &ahead, &p->to.err));
  assert_int_equal(foreign + ahead, 0);
  same_stores(p, 4);
  tm_head there = head_of(&p->to, nth(1).text);
  (void)turn(&p->to, nth(1).text, there.revision, there.tip, "{}");
  assert_ok(&p->to, tm__store_compare(&c.from, &c.to, &foreign, &ahead, &p->to.err));
  assert_int_equal(ahead, 1);
}

static void a_mirror_has_nothing_of_its_own(void **state) {
  (void)state;
  each_target(check_mirror);
}

/* ---- events ---- */

static tm_status write_event(void *ud, const tm_outgoing *event) {
  tm_buf *b = ud;
  tm__buf_printf(b, "%s %lld.%d due %lld dead %lld attempts %d flags %u ", event->conversation,
                 (long long)event->revision, event->index, (long long)event->due_at,
                 (long long)event->dead_at, event->attempts, (unsigned)event->flags);
  tm__buf_slice(b, event->body);
  tm__buf_byte(b, '\n');
  return TM_OK;
}

static void list_events(fixture *fx, tm_buf *out) {
  const tm_outgoing_filter f = {.dead = -1, .limit = 1000};
  tm__buf_clear(out);
  assert_ok(fx, fx->backend->outbox_list(fx->reader, &f, write_event, out, &fx->err));
  tm__buf_byte(out, '\0');
  assert_true(tm__buf_ok(out));
}

static tm_status give_up(void *ud, const tm_outgoing *event) {
  tm_outgoing *dead = ud;
  *dead = *event;
  return TM_OK;
}

static void emit(pair *p, int conversations) {
  for (int n = 0; n < conversations; n++) {
    tm_row row = row_of(&p->from, 0, "{}");
    const tm_outgoing events[] = {{.created = 40 + n, .body = TM_S("{\"event\":\"a\"}")},
                                  {.created = 40 + n, .flags = 2, .body = TM_S("\1\2sealed")}};
    tm_commit c = commit_of(&p->from, nth(n).text, 0, &row);
    c.events = events;
    c.event_count = 2;
    assert_ok(&p->from, commit_one(&p->from, &c));
  }
}

static void check_events(pair *p) {
  enum { MANY = 150 }; /* more than a page */
  tm_buf here = {0}, there = {0};
  emit(p, MANY);
  tm_outgoing dead = {.revision = 0};
  assert_ok(&p->from, p->from.backend->outbox_take(p->from.writer, 100, 900, 1, give_up, &dead,
                                                   &p->from.err));
  assert_ok(&p->from, p->from.backend->outbox_settle(p->from.writer, &dead, TM_OUTCOME_DEAD, 101,
                                                     &p->from.err));
  for (int i = 0; i < 2; i++) {
    (void)copy_all(p);
    list_events(&p->from, &here);
    list_events(&p->to, &there);
    assert_string_equal(there.ptr, here.ptr);
  }
  tm__buf_free(&here);
  tm__buf_free(&there);
}

/* The oldest is delivered by one of both. */
static void deliver(fixture *fx) {
  tm_outgoing event = {.revision = 0};
  assert_ok(fx, fx->backend->outbox_take(fx->writer, 100, 900, 1, give_up, &event, &fx->err));
  assert_true(event.revision > 0);
  assert_ok(fx, fx->backend->outbox_settle(fx->writer, &event, TM_OUTCOME_DELIVERED, event.created,
                                           &fx->err));
}

static int events_in(fixture *fx) {
  tm_buf list = {0};
  int lines = 0;
  list_events(fx, &list);
  for (const char *at = list.ptr; (at = strchr(at, '\n')) != NULL; at++)
    lines++;
  tm__buf_free(&list);
  return lines;
}

static void must_have_same_events(pair *p) {
  tm_buf here = {0}, there = {0};
  list_events(&p->from, &here);
  list_events(&p->to, &there);
  assert_string_equal(there.ptr, here.ptr);
  tm__buf_free(&here);
  tm__buf_free(&there);
}

static tm_copy copy_mirrored(pair *p, bool mirror) {
  tm_copy c = copy_of(p);
  c.mirror = mirror;
  assert_ok(&p->to, tm__store_copy(&c, &p->to.err));
  assert_int_equal(c.counts.failed, 0);
  return c;
}

/* What the source has delivered since goes from the target: nobody is told twice. */
static void check_delivered(pair *p) {
  emit(p, 3);
  for (int i = 0; i < 4; i++) {
    tm_copy c = copy_mirrored(p, i == 3);
    assert_int_equal(c.counts.events, 6 - i);
    assert_int_equal(c.counts.removed, i > 0);
    must_have_same_events(p);
    deliver(&p->from);
  }
}

static void what_was_delivered_goes(void **state) {
  (void)state;
  each_target(check_delivered);
}

/* In the conversation 0, which goes on by it. */
static void emit_one(fixture *fx, const char *body) {
  tm_head head;
  assert_ok(fx, fx->backend->head(fx->writer, tm__slice(nth(0).text), &head, &fx->err));
  tm_row row = row_of(fx, head.tip, "{}");
  const tm_outgoing event = {.created = 60, .body = tm__slice(body)};
  tm_commit c = commit_of(fx, nth(0).text, head.revision, &row);
  c.events = &event;
  c.event_count = 1;
  assert_ok(fx, commit_one(fx, &c));
}

/* What the target has delivered does not come back, also beside what is new in the source; but for
 * a mirror, which has what the source has. */
static void check_delivered_there(pair *p) {
  tm_buf there = {0};
  emit(p, 2);
  (void)copy_all(p);
  deliver(&p->to);
  deliver(&p->to);
  (void)copy_all(p);
  assert_int_equal(events_in(&p->to), 2);
  emit_one(&p->from, "{\"event\":\"new\"}");
  (void)copy_all(p);
  assert_int_equal(events_in(&p->to), 3);
  list_events(&p->to, &there);
  assert_non_null(strstr(there.ptr, "\"new\""));
  assert_int_equal(events_in(&p->from), 5);
  (void)copy_mirrored(p, true);
  must_have_same_events(p);
  tm__buf_free(&there);
}

static void what_the_target_delivered_stays_away(void **state) {
  (void)state;
  each_target(check_delivered_there);
}

/* Those of a conversation that went on in the target by itself are its own. */
static void check_own_events(pair *p) {
  emit(p, 1);
  (void)copy_all(p);
  emit_one(&p->to, "{\"event\":\"own\"}");
  deliver(&p->from);
  tm_copy again = copy_of(p);
  assert_ok(&p->to, tm__store_copy(&again, &p->to.err));
  assert_int_equal(again.counts.failed, 1);
  assert_int_equal(events_in(&p->to), 3);
}

static void events_of_what_moved_stay(void **state) {
  (void)state;
  each_target(check_own_events);
}

/* Of all that is complete in the target. */
static int events_of_complete(pair *p, int conversations) {
  int count = 0;
  for (int n = 0; n < conversations; n++) {
    tm_head head;
    const tm_store_backend *b = p->to.backend;
    if (b->head(p->to.writer, tm__slice(nth(n).text), &head, NULL) != TM_OK) continue;
    count += strcmp(head.claim, TM_COPIER) != 0 ? 2 : 0;
  }
  return count;
}

/* Stopped anywhere, every conversation that is there has its events, and none that was delivered
 * comes back when it goes on. */
static void check_stopped(pair *p) {
  enum { MANY = 12 };
  int delivered = 0;
  tm_status status = TM_ECANCELLED;
  emit(p, MANY);
  for (int i = 1; status != TM_OK; i++) {
    tm_copy c = copy_of(p);
    c.go_on = lose_patience;
    patience.left = i;
    status = tm__store_copy(&c, &p->to.err);
    assert_int_equal(events_in(&p->to), events_of_complete(p, MANY) - delivered);
    if (i % 3 == 0 && events_in(&p->to) > 0) {
      deliver(&p->to);
      delivered++;
    }
  }
  (void)copy_all(p);
  assert_true(delivered > 0);
  assert_int_equal(events_in(&p->to), 2 * MANY - delivered);
}

static void stopped_anywhere_events_come_once(void **state) {
  (void)state;
  each_target(check_stopped);
}

static void digest_of(pair *p, bool events, uint8_t out[TM_COPY_DIGEST]) {
  tm_copy c = {.from = {p->from.backend, p->from.reader}, .events = events};
  memset(out, 0, TM_COPY_DIGEST);
  assert_ok(&p->from, tm__content_add(&c, TM_S(""), out, &p->from.err));
}

/* The digest of a backup tells other events from those that it was made with. */
static void check_digest(pair *p) {
  uint8_t before[2][TM_COPY_DIGEST], after[2][TM_COPY_DIGEST];
  tm_outgoing event = {.revision = 1, .index = 1, .body = TM_S("other")};
  emit(p, 2);
  (void)tm__copy(event.conversation, sizeof(event.conversation), tm__slice(nth(1).text));
  for (int i = 0; i < 2; i++)
    digest_of(p, i == 1, before[i]);
  assert_ok(&p->from, p->from.backend->outbox_rewrite(p->from.writer, &event, &p->from.err));
  for (int i = 0; i < 2; i++)
    digest_of(p, i == 1, after[i]);
  assert_memory_equal(before[0], after[0], TM_COPY_DIGEST);
  assert_memory_not_equal(before[1], after[1], TM_COPY_DIGEST);
  tm_buf older = {0};
  tm__buf_text(&older, "1");
  assert_false(tm__content_has_events(&older));
  tm__buf_free(&older);
}

static void a_digest_covers_events(void **state) {
  (void)state;
  each_target(check_digest);
}

static void events_go_along(void **state) {
  (void)state;
  each_target(check_events);
}

int main(void) {
  const struct CMUnitTest cases[] = {
      cmocka_unit_test(everything_arrives),
      cmocka_unit_test(events_go_along),
      cmocka_unit_test(what_was_delivered_goes),
      cmocka_unit_test(what_the_target_delivered_stays_away),
      cmocka_unit_test(events_of_what_moved_stay),
      cmocka_unit_test(stopped_anywhere_events_come_once),
      cmocka_unit_test(a_digest_covers_events),
      cmocka_unit_test(what_happened_since_comes_with_the_next_run),
      cmocka_unit_test(a_target_may_want_to_be_told_parents),
      cmocka_unit_test(long_conversations_arrive_in_pieces),
      cmocka_unit_test(killed_anywhere_it_goes_on),
      cmocka_unit_test(a_copy_that_dies_often_arrives),
      cmocka_unit_test(stopped_anywhere_it_goes_on),
      cmocka_unit_test(what_went_on_in_the_target_is_not_overwritten),
      cmocka_unit_test(a_head_that_differs_is_found),
      cmocka_unit_test(bodies_that_were_sealed_anew_are_taken_over),
      cmocka_unit_test(rows_that_are_missing_are_told),
      cmocka_unit_test(what_cannot_be_read_is_told),
      cmocka_unit_test(damaged_sessions_stop_no_copy),
      cmocka_unit_test(what_is_in_no_list_is_told),
      cmocka_unit_test(what_cannot_be_read_in_the_target_is_replaced),
      cmocka_unit_test(what_the_target_gives_back_is_compared),
      cmocka_unit_test(a_start_key_of_somebody_else_is_told),
      cmocka_unit_test(two_copies_at_once_do_no_harm),
      cmocka_unit_test(two_copies_that_begin_at_once),
      cmocka_unit_test(a_part_is_no_source),
      cmocka_unit_test(what_is_too_large_is_told),
      cmocka_unit_test(what_is_purged_meanwhile_is_no_error),
      cmocka_unit_test(a_mirror_has_nothing_of_its_own),
  };
  return cmocka_run_group_tests(cases, NULL, NULL);
}
