/* What every backend must do with heads and rows: the same cases over all of backends.def. */
#include "contract.h"

#include <pthread.h>

/* ---- heads and rows ---- */

static void head_comes_back_whole(void **state) {
  fixture *fx = *state;
  tm_row row = row_of(fx, 0, "{}");
  tm_commit c = commit_of(fx, nth(1).text, 0, &row);
  memset(c.head.tenant, 't', sizeof(c.head.tenant) - 1);
  memset(c.head.session, 's', sizeof(c.head.session) - 1);
  memset(c.head.system, 'y', sizeof(c.head.system) - 1);
  memset(c.head.flow, 'f', sizeof(c.head.flow) - 1);
  memset(c.head.version, 'v', sizeof(c.head.version) - 1);
  set_text(c.head.step, sizeof(c.head.step), "it's \"x\" \xc3\xa9\xe2\x82\xac%;--");
  set_text(c.head.claim, sizeof(c.head.claim), nth(900).text);
  c.head.status = TM_ACTIVE;
  c.head.wake_at = 77;
  c.head.ended = 78;
  for (size_t i = 0; i < TM_RECENT_KEYS; i++)
    c.head.recent[i] = (tm_recent_key){UINT64_MAX - i, UINT64_C(1) << 63, TM_THIS_ROW};
  c.head.recent[5].row = 1234;
  assert_ok(fx, commit_one(fx, &c));
  for (size_t i = 0; i < TM_RECENT_KEYS; i++)
    if (i != 5) c.head.recent[i].row = c.row_id;
  c.head.tip = c.row_id;
  tm_head head = head_of(fx, nth(1).text);
  assert_string_equal(head.tenant, c.head.tenant);
  assert_string_equal(head.session, c.head.session);
  assert_string_equal(head.system, c.head.system);
  assert_string_equal(head.flow, c.head.flow);
  assert_string_equal(head.version, c.head.version);
  assert_string_equal(head.step, c.head.step);
  assert_string_equal(head.claim, c.head.claim);
  assert_int_equal(head.status, TM_ACTIVE);
  assert_int_equal(head.revision, 1);
  assert_int_equal(head.tip, c.row_id);
  assert_int_equal(head.wake_at, 77);
  assert_int_equal(head.created, fx->now);
  assert_int_equal(head.ended, 78);
  assert_memory_equal(head.recent, c.head.recent, sizeof(head.recent));
}

static void update_changes_what_may_change(void **state) {
  fixture *fx = *state;
  int64_t tip = turn(fx, nth(1).text, 0, 0, "{}");
  tm_commit c = commit_of(fx, nth(1).text, 1, NULL);
  set_text(c.head.tenant, sizeof(c.head.tenant), "other");
  set_text(c.head.session, sizeof(c.head.session), "other");
  set_text(c.head.system, sizeof(c.head.system), "other");
  set_text(c.head.flow, sizeof(c.head.flow), "flow2");
  set_text(c.head.version, sizeof(c.head.version), "v2");
  set_text(c.head.step, sizeof(c.head.step), "step2");
  set_text(c.head.claim, sizeof(c.head.claim), nth(900).text);
  c.head.created = 5;
  c.head.tip = 999;
  c.head.status = TM_PAUSED;
  c.head.recent[0] = (tm_recent_key){3, 4, 5};
  assert_ok(fx, commit_one(fx, &c));
  assert_int_equal(c.row_id, 0);
  tm_head head = head_of(fx, nth(1).text);
  assert_string_equal(head.tenant, "default"); /* where it lives never changes */
  assert_string_equal(head.session, "s1");
  assert_string_equal(head.system, "shop");
  assert_int_equal(head.created, fx->now);
  assert_int_equal(head.tip, tip); /* no row: the tip stays */
  assert_string_equal(head.flow, "flow2");
  assert_string_equal(head.version, "v2");
  assert_string_equal(head.step, "step2");
  assert_string_equal(head.claim, nth(900).text);
  assert_int_equal(head.status, TM_PAUSED);
  assert_int_equal(head.revision, 2);
  assert_int_equal(head.recent[0].row, 5);
}

static void every_status_is_kept(void **state) {
  fixture *fx = *state;
  for (int s = TM_ACTIVE; s <= TM_CANCELLED; s++) {
    tm_commit c = commit_of(fx, nth(1).text, s, NULL);
    c.head.status = (tm_conversation_status)s;
    assert_ok(fx, commit_one(fx, &c));
    assert_int_equal(head_of(fx, nth(1).text).status, s);
  }
}

static void unknown_head_is_not_found(void **state) {
  fixture *fx = *state;
  tm_head head;
  assert_int_equal(fx->backend->head(fx->reader, TM_S("none"), &head, &fx->err), TM_ENOTFOUND);
  assert_string_equal(fx->err.code, "store.not_found");
  assert_int_equal(fx->backend->head(fx->reader, TM_S(""), &head, NULL), TM_ENOTFOUND);
}

static void conflict_stops_nobody_else(void **state) {
  fixture *fx = *state;
  int64_t tip = turn(fx, nth(1).text, 0, 0, "{\"n\":1}");
  tm_row row = row_of(fx, tip, "{\"n\":2}"), first = row_of(fx, 0, "{}");
  tm_commit good = commit_of(fx, nth(1).text, 1, &row);
  tm_commit stale = commit_of(fx, nth(1).text, 1, &row);
  tm_commit exists = commit_of(fx, nth(1).text, 0, &row);
  tm_commit absent = commit_of(fx, nth(9).text, 4, &row);
  tm_commit fresh = commit_of(fx, nth(2).text, 0, &first);
  tm_commit again = commit_of(fx, nth(1).text, 2, &row);
  tm_commit *items[] = {&good, &stale, &exists, &absent, &fresh, &again};
  set_text(stale.head.step, sizeof(stale.head.step), "stale");
  assert_ok(fx, fx->backend->commit(fx->writer, items, 6, &fx->err));
  assert_int_equal(good.status, TM_OK);
  assert_int_equal(stale.status, TM_ECONFLICT);
  assert_int_equal(exists.status, TM_ECONFLICT);
  assert_int_equal(absent.status, TM_ECONFLICT);
  assert_int_equal(fresh.status, TM_OK);
  assert_int_equal(again.status, TM_OK);
  assert_int_equal(stale.row_id + exists.row_id + absent.row_id, 0);
  assert_true(fresh.row_id > 0 && again.row_id > good.row_id);
  seen rows = {0};
  assert_ok(fx, fx->backend->chain(fx->reader, tm__slice(nth(1).text), again.row_id, false, see_row,
                                   &rows, &fx->err));
  assert_int_equal(rows.count, 2); /* losers left no row */
  tm_head head = head_of(fx, nth(1).text);
  assert_int_equal(head.revision, 3);
  assert_int_equal(head.tip, again.row_id);
  assert_string_equal(head.step, "ask");
  assert_int_equal(head_of(fx, nth(2).text).revision, 1);
  assert_int_equal(fx->backend->head(fx->reader, tm__slice(nth(9).text), &head, NULL),
                   TM_ENOTFOUND);
}

static void nonsense_is_refused(void **state) {
  fixture *fx = *state;
  tm_row row = row_of(fx, 0, "{}");
  tm_commit skips = commit_of(fx, nth(1).text, 0, &row);
  skips.head.revision = 2;
  assert_int_equal(commit_one(fx, &skips), TM_EINVAL);
  row.body.len = TM_ROW_MAX + 1; /* refused before it is read */
  tm_commit huge = commit_of(fx, nth(1).text, 0, &row);
  assert_int_equal(commit_one(fx, &huge), TM_ETOOLARGE);
  tm_head head;
  assert_int_equal(fx->backend->head(fx->reader, tm__slice(nth(1).text), &head, NULL),
                   TM_ENOTFOUND);
  assert_ok(fx, fx->backend->commit(fx->writer, NULL, 0, &fx->err));
}

/* Several rows of a conversation in one group, each behind the one before it. */
static void a_replay_follows_the_tip(void **state) {
  fixture *fx = *state;
  tm_row rows[4];
  tm_commit c[4];
  tm_commit *items[] = {&c[0], &c[1], &c[2], &c[3]};
  if (!fx->backend->takes_tip) skip();
  for (int i = 0; i < 4; i++) {
    rows[i] = row_of(fx, TM_TIP, "{}");
    c[i] = commit_of(fx, nth(1).text, i == 3 ? 7 : 2 * i, &rows[i]);
    c[i].head.revision = 2 * i + 2;
    c[i].replay = true;
  }
  assert_ok(fx, fx->backend->commit(fx->writer, items, 4, &fx->err));
  for (int i = 0; i < 3; i++)
    assert_int_equal(c[i].status, TM_OK);
  assert_int_equal(c[3].status, TM_ECONFLICT);
  seen s = {.count = 0};
  assert_ok(fx, fx->backend->chain(fx->reader, tm__slice(nth(1).text), c[2].row_id, false, see_row,
                                   &s, &fx->err));
  assert_int_equal(s.count, 3);
  for (size_t i = 0; i < 3; i++)
    assert_int_equal(s.rows[i], c[2 - i].row_id);
  tm_row next = row_of(fx, TM_TIP, "{}"); /* in a later group */
  tm_commit later = commit_of(fx, nth(1).text, 6, &next);
  assert_int_equal(commit_one(fx, &later), TM_EINVAL); /* only in a replay */
  later.replay = true;
  assert_ok(fx, commit_one(fx, &later));
  s = (seen){.count = 0};
  assert_ok(fx, fx->backend->chain(fx->reader, tm__slice(nth(1).text), later.row_id, false, see_row,
                                   &s, &fx->err));
  assert_int_equal(s.count, 4);
}

static void rows_come_back_whole(void **state) {
  fixture *fx = *state;
  tm_row row = {.parent = 0,
                .base = 0,
                .kind = TM_ROW_CALL,
                .created = 42,
                .checkpoint = true,
                .flags = UINT32_MAX,
                .body = {"\0\xff{'\"\x80", 6}};
  tm_commit c = commit_of(fx, nth(1).text, 0, &row);
  assert_ok(fx, commit_one(fx, &c));
  seen s = {0};
  assert_ok(fx, fx->backend->chain(fx->reader, tm__slice(nth(1).text), c.row_id, false, see_row, &s,
                                   &fx->err));
  assert_int_equal(s.count, 1);
  assert_memory_equal(s.body, row.body.ptr, 6);
}

typedef struct expected {
  tm_row row;
  size_t calls;
} expected;

static tm_status compare_row(void *ud, const tm_row *row) {
  expected *e = ud;
  assert_int_equal(row->id, e->row.id);
  assert_int_equal(row->parent, e->row.parent);
  assert_int_equal(row->base, e->row.base);
  assert_string_equal(row->conversation, e->row.conversation);
  assert_int_equal(row->revision, e->row.revision);
  assert_int_equal(row->kind, e->row.kind);
  assert_int_equal(row->created, e->row.created);
  assert_int_equal(row->checkpoint, e->row.checkpoint);
  assert_int_equal(row->flags, e->row.flags);
  assert_int_equal(row->body.len, e->row.body.len);
  if (row->body.len > 0) assert_memory_equal(row->body.ptr, e->row.body.ptr, row->body.len);
  e->calls++;
  return TM_ECANCELLED; /* the walk ends with what the callback says */
}

static void row_fields_are_kept(void **state) {
  fixture *fx = *state;
  int64_t first = turn(fx, nth(1).text, 0, 0, "{}");
  for (int kind = TM_ROW_BEGIN; kind <= TM_ROW_MIGRATE; kind++) {
    expected e = {.row = {.parent = first,
                          .base = kind == TM_ROW_UNDO ? first : 0,
                          .kind = (tm_row_kind)kind,
                          .created = INT64_MAX - kind,
                          .checkpoint = kind % 2 == 0,
                          .flags = kind % 3 == 0 ? 0x80000001U : 0,
                          .body = TM_S("{\"a\":\"\xc3\xa9 'q' \\\" \\u0000\"}")}};
    if (kind == TM_ROW_FORK) e.row.body = (tm_slice){NULL, 0};
    tm_commit c = commit_of(fx, nth(1).text, kind, &e.row);
    assert_ok(fx, commit_one(fx, &c));
    e.row.id = c.row_id;
    e.row.revision = kind + 1;
    set_text(e.row.conversation, sizeof(e.row.conversation), nth(1).text);
    assert_int_equal(fx->backend->chain(fx->reader, tm__slice(nth(1).text), c.row_id, false,
                                        compare_row, &e, NULL),
                     TM_ECANCELLED);
    assert_int_equal(e.calls, 1);
  }
}

static void chain_follows_parents_or_bases(void **state) {
  fixture *fx = *state;
  int64_t row[6] = {0};
  for (int i = 1; i <= 4; i++)
    row[i] = turn(fx, nth(1).text, i - 1, row[i - 1], "{}");
  turn(fx, nth(2).text, 0, 0, "{}"); /* another one's row in between */
  tm_row undo = row_of(fx, row[4], "{\"undo\":1}");
  undo.kind = TM_ROW_UNDO;
  undo.base = row[2];
  tm_commit c = commit_of(fx, nth(1).text, 4, &undo);
  assert_ok(fx, commit_one(fx, &c));
  seen all = {0}, story = {0}, one = {.stop_at = 1};
  assert_ok(fx, fx->backend->chain(fx->reader, tm__slice(nth(1).text), c.row_id, false, see_row,
                                   &all, &fx->err));
  assert_int_equal(all.count, 5);
  assert_int_equal(all.rows[0], c.row_id);
  for (size_t i = 1; i < 5; i++)
    assert_int_equal(all.rows[i], row[5 - i]);
  assert_string_equal(all.body, "{\"undo\":1}");
  assert_ok(fx, fx->backend->chain(fx->reader, tm__slice(nth(1).text), c.row_id, true, see_row,
                                   &story, &fx->err));
  assert_int_equal(story.count, 3);
  assert_int_equal(story.rows[1], row[2]);
  assert_int_equal(story.rows[2], row[1]);
  assert_int_equal(
      fx->backend->chain(fx->reader, tm__slice(nth(1).text), c.row_id, true, see_row, &one, NULL),
      TM_ECANCELLED);
  assert_int_equal(one.count, 1);
}

static void chain_from_nowhere(void **state) {
  fixture *fx = *state;
  seen s = {0};
  assert_ok(
      fx, fx->backend->chain(fx->reader, tm__slice(nth(1).text), 0, false, see_row, &s, &fx->err));
  assert_int_equal(
      fx->backend->chain(fx->reader, tm__slice(nth(1).text), 12345, false, see_row, &s, &fx->err),
      TM_ENOTFOUND);
  assert_int_equal(
      fx->backend->chain(fx->reader, tm__slice(nth(1).text), -3, false, see_row, &s, NULL),
      TM_ENOTFOUND);
  assert_int_equal(s.count, 0);
}

static void circles_end(void **state) {
  fixture *fx = *state;
  int64_t first = turn(fx, nth(1).text, 0, 0, "{}");
  int64_t circle = turn(fx, nth(1).text, 1, first, "{}");
  tm_row row = row_of(fx, circle, "{}");
  row.base = circle + 1000; /* what is not older */
  tm_commit c = commit_of(fx, nth(1).text, 2, &row);
  assert_ok(fx, commit_one(fx, &c));
  seen s = {0};
  assert_int_equal(
      fx->backend->chain(fx->reader, tm__slice(nth(1).text), c.row_id, true, see_row, &s, &fx->err),
      TM_ECORRUPT);
  assert_int_equal(s.count, 1);
}

typedef struct big {
  const char *bytes;
  size_t len, calls;
} big;

static tm_status compare_big(void *ud, const tm_row *row) {
  big *b = ud;
  assert_int_equal(row->body.len, b->len);
  assert_memory_equal(row->body.ptr, b->bytes, b->len);
  b->calls++;
  return TM_OK;
}

static void big_bodies(void **state) {
  fixture *fx = *state;
  const size_t sizes[] = {1, 4000, 4060, 4061, 4062, 70000, 1 << 20};
  char *bytes = malloc(1 << 20);
  assert_non_null(bytes);
  for (size_t i = 0; i < 1 << 20; i++)
    bytes[i] = (char)('a' + (i * 31 + i / 4096) % 26);
  for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
    big b = {bytes, sizes[i], 0};
    tm_row row = row_of(fx, 0, "");
    row.body = (tm_slice){bytes, sizes[i]};
    tm_commit c = commit_of(fx, nth((int)i).text, 0, &row);
    assert_ok(fx, commit_one(fx, &c));
    assert_ok(fx, fx->backend->chain(fx->reader, tm__slice(nth((int)i).text), c.row_id, false,
                                     compare_big, &b, &fx->err));
    assert_int_equal(b.calls, 1);
  }
  free(bytes);
}

/* ---- connections ---- */

typedef struct racer {
  fixture *fx;
  int won;
} racer;

/* Tries to take conversation 1 from each revision to the next. */
static void *race(void *ud) {
  racer *r = ud;
  tm_store_conn *conn = NULL;
  const tm_store_backend *b = r->fx->backend;
  if (b->connect(&conn, r->fx->store, TM_STORE_WRITER, NULL) != TM_OK) return NULL;
  for (int64_t revision = 1; revision <= 100; revision++) {
    tm_commit c = commit_of(r->fx, nth(1).text, revision, NULL);
    tm_commit *items[] = {&c};
    tm_status status;
    do
      status = b->commit(conn, items, 1, NULL);
    while (status == TM_EUNAVAILABLE); /* the other one's lock */
    if (status == TM_OK && c.status == TM_OK) r->won++;
  }
  b->disconnect(conn);
  return NULL;
}

static void two_writers_never_both_win(void **state) {
  fixture *fx = *state;
  turn(fx, nth(1).text, 0, 0, "{}");
  racer racers[2] = {{fx, 0}, {fx, 0}};
  pthread_t threads[2];
  for (int i = 0; i < 2; i++)
    assert_int_equal(pthread_create(&threads[i], NULL, race, &racers[i]), 0);
  for (int i = 0; i < 2; i++)
    assert_int_equal(pthread_join(threads[i], NULL), 0);
  assert_int_equal(head_of(fx, nth(1).text).revision, 1 + racers[0].won + racers[1].won);
  assert_int_equal(racers[0].won + racers[1].won, 100);
}

static tm_status walk_inside(void *ud, const tm_head *head) {
  fixture *fx = ud;
  seen s = {0};
  tm_head again;
  assert_ok(fx, fx->backend->head(fx->reader, tm__slice(head->id), &again, &fx->err));
  assert_ok(fx, fx->backend->chain(fx->reader, tm__slice(head->id), head->tip, false, see_row, &s,
                                   &fx->err));
  assert_int_equal(s.count, 1);
  return TM_OK;
}

static void reads_nest(void **state) {
  fixture *fx = *state;
  turn(fx, nth(1).text, 0, 0, "{}");
  turn(fx, nth(2).text, 0, 0, "{}");
  tm_list_filter f = filter_of(0, "", 10);
  assert_ok(fx, fx->backend->list(fx->reader, &f, walk_inside, fx, &fx->err));
}

static void thousands_of_conversations(void **state) {
  fixture *fx = *state;
  enum { COUNT = 5000, BATCH = 50 };
  tm_row row = row_of(fx, 0, "{}");
  for (int i = 0; i < COUNT; i += BATCH) {
    tm_commit commits[BATCH], *items[BATCH];
    for (int k = 0; k < BATCH; k++) { /* in an order that is no order */
      int n = (i + k) * 2333 % COUNT;
      commits[k] = commit_of(fx, nth(n).text, 0, &row);
      commits[k].head.wake_at = COUNT - n;
      items[k] = &commits[k];
    }
    assert_ok(fx, fx->backend->commit(fx->writer, items, BATCH, &fx->err));
  }
  for (int n = 0; n < COUNT; n += 7)
    assert_int_equal(head_of(fx, nth(n).text).wake_at, COUNT - n);
  seen newest = {0}, due = {0};
  tm_list_filter f = filter_of(0, nth(2500).text, 64);
  assert_ok(fx, fx->backend->list(fx->reader, &f, see_head, &newest, &fx->err));
  assert_ok(fx, fx->backend->due(fx->writer, COUNT, 0, 64, see_head, &due, &fx->err));
  for (int i = 0; i < 64; i++) {
    assert_string_equal(newest.ids[i], nth(2499 - i).text);
    assert_string_equal(due.ids[i], nth(COUNT - 1 - i).text);
  }
}

static void commits_survive_the_connection(void **state) {
  fixture *fx = *state;
  int64_t tip = turn(fx, nth(1).text, 0, 0, "{}");
  fx->backend->disconnect(fx->writer);
  fx->backend->disconnect(fx->reader);
  if (fx->backend->durable) {
    fx->backend->close(fx->store);
    assert_ok(fx, fx->backend->open(&fx->store, &fx->options, &fx->err));
  }
  assert_ok(fx, fx->backend->connect(&fx->writer, fx->store, TM_STORE_WRITER, &fx->err));
  assert_ok(fx, fx->backend->connect(&fx->reader, fx->store, TM_STORE_READER, &fx->err));
  assert_int_equal(head_of(fx, nth(1).text).revision, 1);
  turn(fx, nth(1).text, 1, tip, "{}");
}

/* ---- names ---- */

static void statuses_have_names(void **state) {
  (void)state;
  tm_conversation_status parsed;
  for (int s = TM_ACTIVE; s <= TM_CANCELLED; s++) {
    const char *name = tm__conversation_status_name((tm_conversation_status)s);
    assert_true(tm__conversation_status_parse(&parsed, tm__slice(name)));
    assert_int_equal(parsed, s);
    assert_int_equal(tm__conversation_is_over((tm_conversation_status)s), s >= TM_COMPLETED);
  }
  assert_string_equal(tm__conversation_status_name(TM_WAITING_INPUT), "waiting_input");
  assert_string_equal(tm__conversation_status_name((tm_conversation_status)99), "unknown");
  assert_false(tm__conversation_status_parse(&parsed, TM_S("waiting")));
  assert_false(tm__conversation_status_parse(&parsed, TM_S("")));
}

static void backends_are_found_by_scheme(void **state) {
  (void)state;
  assert_ptr_equal(tm__store_backend(TM_S("memory")), &tm__store_memory);
  assert_ptr_equal(tm__store_backend(TM_S("sqlite")), &tm__store_sqlite);
  assert_null(tm__store_backend(TM_S("sqlite3")));
  assert_null(tm__store_backend(TM_S("")));
#define BACKEND(name) assert_int_equal(tm__store_##name.abi, TM_STORE_ABI);
#include "persistence/backends.def"
#undef BACKEND
}

static void nothing_may_be_given_back(void **state) {
  (void)state;
#define BACKEND(name)                                                                              \
  tm__store_##name.disconnect(NULL);                                                               \
  tm__store_##name.close(NULL);
#include "persistence/backends.def"
#undef BACKEND
  assert_true(tm__store_sqlite.durable);
  assert_false(tm__store_memory.durable);
}

/* ---- opening ---- */

static void ignore_finding(void *ud, tm_finding level, const char *text) {
  (void)ud, (void)level, (void)text;
}

static tm_status look_at_tenant(fixture *fx, tm_store_opening opening) {
  tm_store *store = NULL;
  tm_store_conn *c = NULL;
  tm_store_options o = fx->options;
  o.tenant = "nobody";
  o.opening = opening;
  fx->err.code[0] = '\0';
  tm_status status = fx->backend->open(&store, &o, &fx->err);
  if (status == TM_OK) status = fx->backend->connect(&c, store, TM_STORE_READER, &fx->err);
  if (status == TM_OK) status = fx->backend->inspect(c, true, ignore_finding, NULL, &fx->err);
  fx->backend->disconnect(c);
  fx->backend->close(store);
  return status;
}

static void what_is_not_there_is_not_made(void **state) {
  fixture *fx = *state;
  static const tm_store_opening openings[] = {TM_STORE_EXISTING, TM_STORE_AS_IS, TM_STORE_EXISTING};
  if (!fx->backend->durable) return;
  for (size_t i = 0; i < 3; i++) {
    assert_int_equal(look_at_tenant(fx, openings[i]), TM_ENOTFOUND);
    assert_string_equal(fx->err.code, "store.absent");
  }
  assert_ok(fx, look_at_tenant(fx, TM_STORE_MAKE));
  assert_ok(fx, look_at_tenant(fx, TM_STORE_EXISTING));
  assert_ok(fx, look_at_tenant(fx, TM_STORE_AS_IS));
}

static void as_it_is(void **state) {
  fixture *fx = *state;
  if (!fx->backend->durable) return;
  (void)turn(fx, nth(1).text, 0, 0, "{}");
  fixture_close(fx);
  fx->options.opening = TM_STORE_AS_IS;
  fixture_open(fx);
  assert_int_equal(head_of(fx, nth(1).text).revision, 1);
  assert_ok(fx, fx->backend->inspect(fx->reader, true, ignore_finding, NULL, &fx->err));
}

static const struct CMUnitTest cases[] = {
    CASE(head_comes_back_whole),
    CASE(update_changes_what_may_change),
    CASE(every_status_is_kept),
    CASE(unknown_head_is_not_found),
    CASE(conflict_stops_nobody_else),
    CASE(nonsense_is_refused),
    CASE(a_replay_follows_the_tip),
    CASE(rows_come_back_whole),
    CASE(row_fields_are_kept),
    CASE(chain_follows_parents_or_bases),
    CASE(chain_from_nowhere),
    CASE(circles_end),
    CASE(big_bodies),
    CASE(two_writers_never_both_win),
    CASE(reads_nest),
    CASE(thousands_of_conversations),
    CASE(commits_survive_the_connection),
    CASE(what_is_not_there_is_not_made),
    CASE(as_it_is),
};

int main(void) {
  const struct CMUnitTest names[] = {
      cmocka_unit_test(statuses_have_names),
      cmocka_unit_test(backends_are_found_by_scheme),
      cmocka_unit_test(nothing_may_be_given_back),
  };
  int failed = cmocka_run_group_tests_name("names", names, NULL, NULL);
#define BACKEND(name) failed += run_for(&tm__store_##name, cases, sizeof(cases) / sizeof(cases[0]));
#include "persistence/backends.def"
#undef BACKEND
  return failed;
}
