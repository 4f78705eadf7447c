/* What every backend must do with events that are to be delivered: they are committed with their
 * row or not at all, go out one by one in order, belong to whoever took them until a lease ends,
 * and go with their conversation; the same cases over all of backends.def. */
#include "contract.h"

#include <pthread.h>

#define EVENTS_MAX 32

typedef struct got { /* what a walk gave */
  tm_outgoing events[EVENTS_MAX];
  char bodies[EVENTS_MAX][128];
  size_t count, stop_at; /* stop_at 0: never */
} got;

static tm_status see_event(void *ud, const tm_outgoing *event) {
  got *g = ud;
  assert_true(g->count < EVENTS_MAX);
  assert_true(tm__copy(g->bodies[g->count], sizeof(g->bodies[0]), event->body));
  g->events[g->count++] = *event;
  return g->count == g->stop_at ? TM_ECANCELLED : TM_OK;
}

/* Conversation n at `expect` gets a row and `count` events with the bodies "n.revision.index". */
static tm_status emit(fixture *fx, int n, int64_t expect, size_t count) {
  static char bodies[EVENTS_MAX][64];
  tm_outgoing events[EVENTS_MAX] = {{.revision = 0}};
  tm_row row = row_of(fx, 0, "{}");
  row.parent = 0;
  for (size_t i = 0; i < count; i++) {
    (void)snprintf(bodies[i], sizeof(bodies[i]), "%d.%d.%d", n, (int)expect + 1, (int)i);
    events[i] = (tm_outgoing){.created = fx->now, .body = tm__slice(bodies[i])};
  }
  tm_commit c = commit_of(fx, nth(n).text, expect, &row);
  c.events = events;
  c.event_count = count;
  return commit_one(fx, &c);
}

static got take(fixture *fx, int64_t until, size_t limit) {
  got g = {.count = 0};
  assert_ok(fx,
            fx->backend->outbox_take(fx->writer, fx->now, until, limit, see_event, &g, &fx->err));
  return g;
}

/* Takes what is due, which must be the event of this body. */
static tm_outgoing take_one(fixture *fx, const char *body) {
  got g = take(fx, fx->now + 1000, 10);
  assert_int_equal(g.count, 1);
  assert_string_equal(g.bodies[0], body);
  return g.events[0];
}

static tm_status settle(fixture *fx, const tm_outgoing *e, tm_outcome outcome, int64_t at) {
  return fx->backend->outbox_settle(fx->writer, e, outcome, at, &fx->err);
}

static int64_t next(fixture *fx) {
  int64_t at = -1;
  assert_ok(fx, fx->backend->outbox_next(fx->reader, &at, &fx->err));
  return at;
}

static got list(fixture *fx, int dead, const tm_outgoing *before, size_t limit) {
  got g = {.count = 0};
  tm_outgoing_filter f = {.tenant = TM_S("default"), .dead = dead, .limit = limit};
  if (before != NULL) {
    memcpy(f.before, before->conversation, sizeof(f.before));
    f.before_revision = before->revision;
    f.before_index = before->index;
  }
  assert_ok(fx, fx->backend->outbox_list(fx->reader, &f, see_event, &g, &fx->err));
  return g;
}

static void reopen(fixture *fx) {
  if (!fx->backend->durable) return;
  fixture_close(fx);
  fixture_open(fx);
}

/* ---- commits ---- */

static void an_event_is_as_it_was_committed(void **state) {
  fixture *fx = *state;
  assert_int_equal(next(fx), 0);
  tm_row row = row_of(fx, 0, "{}");
  const char bytes[] = {'a', 0, (char)0xff, '\n', '"', '\\', ' '};
  tm_outgoing events[2] = {{.created = 77, .flags = 3, .body = {bytes, sizeof(bytes)}},
                           {.created = 78, .body = TM_S("{\"x\":\"\xc3\xa9\"}")}};
  tm_commit c = commit_of(fx, nth(1).text, 0, &row);
  c.events = events;
  c.event_count = 2;
  assert_ok(fx, commit_one(fx, &c));
  reopen(fx);
  assert_int_equal(next(fx), 77);
  got all = list(fx, -1, NULL, 10);
  assert_int_equal(all.count, 2);
  assert_string_equal(all.bodies[0], "{\"x\":\"\xc3\xa9\"}");
  const tm_outgoing *e = &all.events[1];
  assert_string_equal(e->conversation, nth(1).text);
  assert_string_equal(e->tenant, "default");
  assert_true(e->revision == 1 && e->index == 0 && e->created == 77 && e->due_at == 77);
  assert_true(e->dead_at == 0 && e->attempts == 0 && e->flags == 3 && e->note[0] == '\0');
  assert_int_equal(e->body.len, sizeof(bytes));
  assert_memory_equal(all.bodies[1], bytes, sizeof(bytes));
  assert_true(all.events[0].index == 1 && all.events[0].due_at == 0 && all.events[0].flags == 0);
}

static void a_refused_commit_leaves_none(void **state) {
  fixture *fx = *state;
  assert_ok(fx, emit(fx, 1, 0, 0));
  assert_int_equal(emit(fx, 1, 4, 2), TM_ECONFLICT);
  assert_int_equal(emit(fx, 1, 0, 2), TM_ECONFLICT); /* it exists */
  tm_outgoing event = {.created = fx->now, .body = TM_S("x")};
  tm_commit bare = commit_of(fx, nth(1).text, 1, NULL);
  bare.events = &event;
  bare.event_count = 1;
  assert_int_equal(commit_one(fx, &bare), TM_EINVAL); /* no row */
  assert_int_equal(list(fx, -1, NULL, 10).count, 0);
  assert_int_equal(next(fx), 0);
  assert_ok(fx, emit(fx, 1, 1, 1));
  assert_int_equal(list(fx, -1, NULL, 10).count, 1);
}

/* The loser of a race within one group: it would have made the same revision. */
static void a_race_in_one_group_has_one_winner(void **state) {
  fixture *fx = *state;
  assert_ok(fx, emit(fx, 1, 0, 0));
  tm_row row = row_of(fx, 0, "{}");
  tm_outgoing events[2] = {{.created = 5, .body = TM_S("winner")},
                           {.created = 5, .body = TM_S("loser")}};
  tm_commit a = commit_of(fx, nth(1).text, 1, &row), b = commit_of(fx, nth(1).text, 1, &row);
  a.events = &events[0];
  b.events = &events[1];
  a.event_count = b.event_count = 1;
  tm_commit *items[] = {&a, &b};
  assert_ok(fx, fx->backend->commit(fx->writer, items, 2, &fx->err));
  assert_int_equal(a.status, TM_OK);
  assert_int_equal(b.status, TM_ECONFLICT);
  got all = list(fx, -1, NULL, 10);
  assert_int_equal(all.count, 1);
  assert_string_equal(all.bodies[0], "winner");
}

static void too_large_an_event_is_refused(void **state) {
  fixture *fx = *state;
  fixture_close(fx);
  fx->options.record_bytes_max = 1000;
  fixture_open(fx);
  tm_row row = row_of(fx, 0, "{}");
  char large[1001];
  memset(large, 'x', sizeof(large));
  tm_outgoing event = {.created = 5, .body = {large, sizeof(large)}};
  tm_commit c = commit_of(fx, nth(1).text, 0, &row);
  c.events = &event;
  c.event_count = 1;
  assert_int_equal(commit_one(fx, &c), TM_ETOOLARGE);
  assert_int_equal(list(fx, -1, NULL, 10).count, 0);
}

/* ---- order ---- */

static void events_go_out_one_by_one(void **state) {
  fixture *fx = *state;
  assert_ok(fx, emit(fx, 1, 0, 2));
  assert_ok(fx, emit(fx, 1, 1, 1));
  for (int i = 0; i < 12; i++) /* 10 sorts behind 9 */
    assert_ok(fx, emit(fx, 1, 2 + i, 1));
  tm_outgoing e = take_one(fx, "1.1.0");
  assert_int_equal(e.attempts, 1);
  assert_int_equal(take(fx, fx->now + 1, 10).count, 0); /* the others wait for it */
  fx->now += 10;
  assert_ok(fx, settle(fx, &e, TM_OUTCOME_DELIVERED, fx->now));
  assert_int_equal(next(fx), fx->now);
  e = take_one(fx, "1.1.1");
  assert_ok(fx, settle(fx, &e, TM_OUTCOME_DELIVERED, fx->now));
  for (int i = 2; i < 15; i++) {
    char body[32];
    (void)snprintf(body, sizeof(body), "1.%d.0", i);
    e = take_one(fx, body);
    assert_ok(fx, settle(fx, &e, TM_OUTCOME_DELIVERED, fx->now));
  }
  assert_int_equal(next(fx), 0);
  assert_int_equal(list(fx, -1, NULL, 10).count, 0);
  assert_ok(fx, emit(fx, 1, 14, 1)); /* and it goes on */
  (void)take_one(fx, "1.15.0");
}

typedef struct long_list {
  fixture *fx;
  size_t count;
} long_list;

/* With the first of them the last goes. */
static tm_status settle_the_last(void *ud, const tm_outgoing *event) {
  long_list *l = ud;
  tm_outgoing last = {.revision = 1};
  memcpy(last.conversation, event->conversation, sizeof(last.conversation));
  if (l->count++ == 0) assert_ok(l->fx, settle(l->fx, &last, TM_OUTCOME_DELIVERED, l->fx->now));
  return TM_OK;
}

/* However many there are of a conversation, they are not held all at once. */
static void long_lists_are_read_in_pieces(void **state) {
  fixture *fx = *state;
  const tm_outgoing_filter all = {.dead = -1, .limit = 1000};
  long_list l = {.fx = fx};
  for (int i = 0; i < 80; i++)
    assert_ok(fx, emit(fx, 1, i, 1));
  assert_ok(fx, fx->backend->outbox_list(fx->reader, &all, settle_the_last, &l, &fx->err));
  assert_int_equal(l.count, 79);
}

static void conversations_do_not_wait_for_each_other(void **state) {
  fixture *fx = *state;
  for (int i = 0; i < 5; i++) {
    assert_ok(fx, emit(fx, 9 - i, 0, 2));
    fx->now += 10;
  }
  got g = take(fx, fx->now + 1000, 3);
  assert_int_equal(g.count, 3);
  for (int i = 0; i < 3; i++) { /* earliest first */
    assert_string_equal(g.events[i].conversation, nth(9 - i).text);
    assert_true(g.events[i].index == 0 && g.events[i].due_at == fx->now + 1000);
  }
  assert_int_equal(take(fx, fx->now + 1000, 10).count, 2);
  assert_int_equal(take(fx, fx->now + 1000, 10).count, 0);
  got one = {.stop_at = 1};
  fx->now += 1000;
  assert_int_equal(
      fx->backend->outbox_take(fx->writer, fx->now, fx->now + 9, 9, see_event, &one, NULL),
      TM_ECANCELLED);
}

/* An event that comes while the one before it is under way waits for that. */
static void what_comes_meanwhile_waits(void **state) {
  fixture *fx = *state;
  assert_ok(fx, emit(fx, 1, 0, 1));
  tm_outgoing first = take_one(fx, "1.1.0");
  assert_ok(fx, emit(fx, 1, 1, 1));
  assert_int_equal(take(fx, fx->now + 10, 10).count, 0);
  assert_int_equal(next(fx), fx->now + 1000);
  assert_ok(fx, settle(fx, &first, TM_OUTCOME_LATER, fx->now + 50));
  assert_int_equal(next(fx), fx->now + 50);
  fx->now += 50;
  first = take_one(fx, "1.1.0");
  assert_ok(fx, settle(fx, &first, TM_OUTCOME_DELIVERED, fx->now));
  (void)take_one(fx, "1.2.0");
}

/* One connection commits while another delivers: whatever the two see of each other, the next event
 * becomes due. */
enum { RACES = 60 };

typedef struct committer {
  fixture *fx;
  tm_store_conn *conn;
  bool ok, done; /* atomic */
} committer;

static void *commit_all(void *arg) {
  committer *w = arg;
  w->ok = true;
  for (int i = 0; w->ok && i < RACES; i++) {
    tm_error err = {0};
    tm_row row = row_of(w->fx, 0, "{}");
    const tm_outgoing event = {.created = w->fx->now, .body = TM_S("x")};
    tm_commit c = commit_of(w->fx, nth(1).text, i + 1, &row);
    c.events = &event;
    c.event_count = 1;
    tm_commit *items[] = {&c};
    do
      w->ok = w->fx->backend->commit(w->conn, items, 1, &err) == TM_OK;
    while (!w->ok && err.status == TM_EUNAVAILABLE);
    w->ok = w->ok && c.status == TM_OK;
  }
  __atomic_store_n(&w->done, true, __ATOMIC_RELEASE);
  return NULL;
}

/* The revision of the event that was delivered; 0: none was due. */
static int64_t deliver_one(fixture *fx) {
  got g = {.count = 0};
  const tm_store_backend *b = fx->backend;
  while (b->outbox_take(fx->writer, fx->now, fx->now + 1000, 1, see_event, &g, &fx->err) != TM_OK)
    assert_int_equal(fx->err.status, TM_EUNAVAILABLE); /* the other one holds the lock */
  if (g.count == 0) return 0;
  while (settle(fx, &g.events[0], TM_OUTCOME_DELIVERED, fx->now) != TM_OK)
    assert_int_equal(fx->err.status, TM_EUNAVAILABLE);
  return g.events[0].revision;
}

static void commits_and_deliveries_meet(void **state) {
  fixture *fx = *state;
  committer w = {.fx = fx};
  pthread_t thread;
  assert_ok(fx, emit(fx, 1, 0, 0));
  assert_ok(fx, fx->backend->connect(&w.conn, fx->store, TM_STORE_WRITER, &fx->err));
  assert_int_equal(pthread_create(&thread, NULL, commit_all, &w), 0);
  int64_t last = 1;
  for (bool over = false; !over;) {
    bool done = __atomic_load_n(&w.done, __ATOMIC_ACQUIRE);
    int64_t revision = deliver_one(fx);
    over = done && revision == 0;
    if (revision == 0) continue;
    assert_int_equal(revision, last + 1);
    last = revision;
  }
  assert_int_equal(pthread_join(thread, NULL), 0);
  fx->backend->disconnect(w.conn);
  assert_true(w.ok);
  assert_int_equal(last, RACES + 1);
  assert_int_equal(list(fx, -1, NULL, 9).count, 0);
}

/* ---- leases ---- */

static void a_lease_ends(void **state) {
  fixture *fx = *state;
  assert_ok(fx, emit(fx, 1, 0, 2));
  tm_outgoing mine = take_one(fx, "1.1.0");
  reopen(fx);
  assert_int_equal(next(fx), fx->now + 1000);
  fx->now += 999;
  assert_int_equal(take(fx, fx->now + 1000, 10).count, 0);
  fx->now += 1;
  tm_outgoing theirs = take_one(fx, "1.1.0");
  assert_int_equal(theirs.attempts, 2);
  const tm_outcome all[] = {TM_OUTCOME_DELIVERED, TM_OUTCOME_LATER, TM_OUTCOME_DEAD,
                            TM_OUTCOME_AGAIN};
  for (int i = 0; i < 4; i++)
    assert_int_equal(settle(fx, &mine, all[i], fx->now), TM_ECONFLICT);
  assert_int_equal(next(fx), fx->now + 1000);
  assert_ok(fx, settle(fx, &theirs, TM_OUTCOME_DELIVERED, fx->now));
  assert_int_equal(settle(fx, &theirs, TM_OUTCOME_DELIVERED, fx->now), TM_ECONFLICT);
  tm_outgoing none = theirs;
  set_text(none.conversation, sizeof(none.conversation), nth(5).text);
  assert_int_equal(settle(fx, &none, TM_OUTCOME_LATER, fx->now), TM_ECONFLICT);
}

static void a_failure_is_noted(void **state) {
  fixture *fx = *state;
  assert_ok(fx, emit(fx, 1, 0, 1));
  tm_outgoing e = take_one(fx, "1.1.0");
  set_text(e.note, sizeof(e.note), "HTTP 500: \"a b\" \xc3\xa9\nsecond line %d");
  assert_ok(fx, settle(fx, &e, TM_OUTCOME_LATER, fx->now + 5));
  reopen(fx);
  got g = list(fx, 0, NULL, 5);
  assert_int_equal(g.count, 1);
  assert_string_equal(g.events[0].note, e.note);
  assert_string_equal(g.bodies[0], "1.1.0");
  assert_int_equal(g.events[0].attempts, 1);
  memset(e.note, 'n', sizeof(e.note) - 1);
  fx->now += 5;
  e.attempts = take_one(fx, "1.1.0").attempts;
  assert_ok(fx, settle(fx, &e, TM_OUTCOME_LATER, fx->now + 5));
  assert_string_equal(list(fx, 0, NULL, 5).events[0].note, e.note);
}

/* ---- dead ones ---- */

static void a_dead_one_lets_the_next_go(void **state) {
  fixture *fx = *state;
  assert_ok(fx, emit(fx, 1, 0, 2));
  tm_outgoing first = take_one(fx, "1.1.0");
  set_text(first.note, sizeof(first.note), "HTTP 410");
  assert_ok(fx, settle(fx, &first, TM_OUTCOME_DEAD, fx->now));
  reopen(fx);
  got dead = list(fx, 1, NULL, 5);
  assert_int_equal(dead.count, 1);
  assert_true(dead.events[0].dead_at == fx->now && dead.events[0].due_at == 0);
  assert_string_equal(dead.events[0].note, "HTTP 410");
  assert_int_equal(list(fx, 0, NULL, 5).count, 1);
  assert_int_equal(list(fx, -1, NULL, 5).count, 2);
  assert_int_equal(settle(fx, &first, TM_OUTCOME_LATER, fx->now), TM_ECONFLICT);
  assert_int_equal(settle(fx, &first, TM_OUTCOME_DEAD, fx->now), TM_ECONFLICT);
  tm_outgoing second = take_one(fx, "1.1.1");
  assert_int_equal(settle(fx, &second, TM_OUTCOME_AGAIN, fx->now), TM_ECONFLICT);
  assert_ok(fx, settle(fx, &second, TM_OUTCOME_DELIVERED, fx->now));
  assert_int_equal(next(fx), 0);
  assert_ok(fx, settle(fx, &dead.events[0], TM_OUTCOME_DELIVERED, fx->now)); /* for good */
  assert_int_equal(list(fx, -1, NULL, 5).count, 0);
}

static void a_dead_one_comes_back(void **state) {
  fixture *fx = *state;
  assert_ok(fx, emit(fx, 1, 0, 2));
  tm_outgoing first = take_one(fx, "1.1.0");
  assert_ok(fx, settle(fx, &first, TM_OUTCOME_DEAD, fx->now));
  tm_outgoing second = take_one(fx, "1.1.1");
  assert_ok(fx, settle(fx, &first, TM_OUTCOME_AGAIN, fx->now)); /* behind what is under way */
  assert_int_equal(take(fx, fx->now + 5, 5).count, 0);
  assert_int_equal(list(fx, 1, NULL, 5).count, 0);
  assert_ok(fx, settle(fx, &second, TM_OUTCOME_DELIVERED, fx->now));
  first = take_one(fx, "1.1.0");
  assert_int_equal(first.attempts, 1);
  assert_ok(fx, settle(fx, &first, TM_OUTCOME_DEAD, fx->now));
  assert_ok(fx, settle(fx, &first, TM_OUTCOME_AGAIN, fx->now + 30)); /* alone */
  assert_int_equal(next(fx), fx->now + 30);
}

/* Whoever found it dead does not remove what is under way again, nor what died anew. */
static void a_dead_one_goes_as_it_was_found(void **state) {
  fixture *fx = *state;
  assert_ok(fx, emit(fx, 1, 0, 1));
  tm_outgoing e = take_one(fx, "1.1.0");
  assert_ok(fx, settle(fx, &e, TM_OUTCOME_DEAD, fx->now));
  tm_outgoing found = list(fx, 1, NULL, 5).events[0];
  assert_ok(fx, settle(fx, &e, TM_OUTCOME_AGAIN, fx->now));
  e = take_one(fx, "1.1.0");
  assert_int_equal(e.attempts, found.attempts);
  assert_int_equal(settle(fx, &found, TM_OUTCOME_DELIVERED, fx->now), TM_ECONFLICT);
  assert_int_equal(list(fx, 0, NULL, 5).count, 1);
  assert_ok(fx, settle(fx, &e, TM_OUTCOME_DEAD, fx->now + 1));
  assert_int_equal(settle(fx, &found, TM_OUTCOME_DELIVERED, fx->now), TM_ECONFLICT);
  found = list(fx, 1, NULL, 5).events[0];
  assert_ok(fx, settle(fx, &found, TM_OUTCOME_DELIVERED, fx->now));
  assert_int_equal(list(fx, -1, NULL, 5).count, 0);
}

/* ---- lists ---- */

static void lists_have_pages(void **state) {
  fixture *fx = *state;
  for (int n = 1; n <= 3; n++) {
    assert_ok(fx, emit(fx, n, 0, 2));
    assert_ok(fx, emit(fx, n, 1, 1));
  }
  tm_row row = row_of(fx, 0, "{}");
  tm_outgoing event = {.created = 5, .body = TM_S("theirs")};
  tm_commit other = commit_of(fx, nth(4).text, 0, &row);
  set_text(other.head.tenant, sizeof(other.head.tenant), "other");
  other.events = &event;
  other.event_count = 1;
  assert_ok(fx, commit_one(fx, &other));
  const char *const order[] = {"3.2.0", "3.1.1", "3.1.0", "2.2.0", "2.1.1",
                               "2.1.0", "1.2.0", "1.1.1", "1.1.0"};
  for (size_t size = 1; size <= 10; size++) {
    got page = {.count = 0};
    size_t walked = 0;
    do {
      tm_outgoing last =
          page.count > 0 ? page.events[page.count - 1] : (tm_outgoing){.revision = 0};
      page = list(fx, -1, page.count > 0 ? &last : NULL, size);
      for (size_t i = 0; i < page.count; i++)
        assert_string_equal(page.bodies[i], order[walked++]);
    } while (page.count == size);
    assert_int_equal(walked, 9);
  }
  tm_outgoing_filter f = {.dead = 0, .limit = 20};
  got all = {.count = 0};
  assert_ok(fx, fx->backend->outbox_list(fx->reader, &f, see_event, &all, &fx->err));
  assert_int_equal(all.count, 10);
  assert_string_equal(all.events[0].tenant, "other");
  got one = {.stop_at = 1};
  assert_int_equal(fx->backend->outbox_list(fx->reader, &f, see_event, &one, NULL), TM_ECANCELLED);
}

/* ---- what goes, what moves ---- */

static void a_purge_takes_them(void **state) {
  fixture *fx = *state;
  assert_ok(fx, emit(fx, 1, 0, 3));
  assert_ok(fx, emit(fx, 2, 0, 1));
  tm_outgoing e = take(fx, fx->now + 1000, 1).events[0];
  assert_string_equal(e.conversation, nth(1).text);
  assert_int_equal(fx->backend->purge(fx->writer, tm__slice(nth(1).text), 7, true, &fx->err),
                   TM_ECONFLICT);
  assert_int_equal(list(fx, -1, NULL, 9).count, 4);
  assert_ok(fx, fx->backend->purge(fx->writer, tm__slice(nth(1).text), 1, true, &fx->err));
  assert_int_equal(settle(fx, &e, TM_OUTCOME_LATER, fx->now), TM_ECONFLICT);
  reopen(fx);
  assert_int_equal(list(fx, -1, NULL, 9).count, 1);
  (void)take_one(fx, "2.1.0");
  assert_ok(fx, emit(fx, 1, 0, 1)); /* the id again */
  (void)take_one(fx, "1.1.0");
}

static size_t ended(fixture *fx) {
  seen s = {0};
  assert_ok(fx, fx->backend->ended(fx->reader, 1000, 10, see_head, &s, &fx->err));
  return s.count;
}

static void end(fixture *fx, int n, int64_t revision) {
  tm_commit c = commit_of(fx, nth(n).text, revision, NULL);
  c.head.status = TM_COMPLETED;
  c.head.ended = 500;
  assert_ok(fx, commit_one(fx, &c));
}

/* Whoever purges what has ended waits for what it has to tell. */
static void what_waits_keeps_its_conversation(void **state) {
  fixture *fx = *state;
  const tm_store_backend *b = fx->backend;
  tm_slice id = tm__slice(nth(1).text);
  assert_ok(fx, emit(fx, 1, 0, 2));
  end(fx, 1, 1);
  end(fx, 2, 0);
  assert_int_equal(ended(fx), 1);
  assert_int_equal(b->purge(fx->writer, id, 2, false, &fx->err), TM_ECONFLICT);
  tm_outgoing first = take_one(fx, "1.1.0");
  assert_int_equal(ended(fx), 1); /* somebody sends it */
  assert_ok(fx, settle(fx, &first, TM_OUTCOME_DEAD, fx->now));
  assert_int_equal(b->purge(fx->writer, id, 2, false, &fx->err), TM_ECONFLICT);
  tm_outgoing second = take_one(fx, "1.1.1");
  assert_ok(fx, settle(fx, &second, TM_OUTCOME_DELIVERED, fx->now));
  assert_int_equal(ended(fx), 2);
  assert_ok(fx, settle(fx, &first, TM_OUTCOME_AGAIN, fx->now));
  reopen(fx);
  assert_int_equal(ended(fx), 1);
  assert_int_equal(b->purge(fx->writer, id, 2, false, &fx->err), TM_ECONFLICT);
  first = take_one(fx, "1.1.0");
  assert_ok(fx, settle(fx, &first, TM_OUTCOME_DEAD, fx->now));
  assert_int_equal(ended(fx), 2);
  second.due_at = 0;
  second.body = TM_S("1.1.1");
  assert_ok(fx, b->outbox_put(fx->writer, &second, &fx->err));
  assert_int_equal(ended(fx), 1);
  second = take_one(fx, "1.1.1");
  assert_ok(fx, settle(fx, &second, TM_OUTCOME_DELIVERED, fx->now));
  assert_ok(fx, b->purge(fx->writer, id, 2, false, &fx->err));
  assert_int_equal(list(fx, -1, NULL, 9).count, 0);
  assert_ok(fx, b->purge(fx->writer, tm__slice(nth(2).text), 1, false, &fx->err));
}

static void they_move_to_another_store(void **state) {
  fixture *fx = *state;
  assert_ok(fx, emit(fx, 1, 0, 0));
  tm_outgoing e = {.revision = 1, .created = 11, .body = TM_S("moved")};
  set_text(e.conversation, sizeof(e.conversation), nth(1).text);
  set_text(e.tenant, sizeof(e.tenant), "default");
  set_text(e.note, sizeof(e.note), "HTTP 503");
  e.attempts = 3;
  const tm_store_backend *b = fx->backend;
  for (e.index = 3; e.index >= 0; e.index--) { /* in whatever order they come */
    e.dead_at = e.index == 1 ? 500 : 0;
    e.due_at = e.index == 0 ? 40 : 0;
    assert_ok(fx, b->outbox_put(fx->writer, &e, &fx->err));
    assert_ok(fx, b->outbox_put(fx->writer, &e, &fx->err)); /* again: it is the same */
  }
  reopen(fx);
  got all = list(fx, -1, NULL, 9);
  assert_int_equal(all.count, 4);
  assert_true(all.events[2].dead_at == 500 && all.events[2].attempts == 3);
  assert_string_equal(all.events[2].note, "HTTP 503");
  for (int i = 0; i < 4; i++) /* the oldest, which came last */
    assert_int_equal(all.events[i].due_at, i == 3 ? 40 : 0);
  set_text(e.conversation, sizeof(e.conversation), nth(7).text);
  assert_int_equal(b->outbox_put(fx->writer, &e, &fx->err), TM_ECONFLICT);
}

/* Of a commit that the source made after its head was copied: it is copied with that. */
static void none_comes_before_its_commit(void **state) {
  fixture *fx = *state;
  assert_ok(fx, emit(fx, 1, 0, 0));
  tm_outgoing e = {.revision = 2, .created = 11, .body = TM_S("not yet")};
  set_text(e.conversation, sizeof(e.conversation), nth(1).text);
  set_text(e.tenant, sizeof(e.tenant), "default");
  assert_int_equal(fx->backend->outbox_put(fx->writer, &e, &fx->err), TM_ECONFLICT);
  assert_int_equal(list(fx, -1, NULL, 9).count, 0);
  assert_int_equal(next(fx), 0);
  assert_ok(fx, emit(fx, 1, 1, 1)); /* a commit of its own, of that revision */
  (void)take_one(fx, "1.2.0");
}

static void they_get_other_bodies(void **state) {
  fixture *fx = *state;
  assert_ok(fx, emit(fx, 1, 0, 2));
  tm_outgoing mine = take_one(fx, "1.1.0");
  tm_outgoing other = mine;
  other.attempts = 9; /* not looked at, as all but key, flags and body */
  other.due_at = 4;
  other.flags = 2;
  other.body = TM_S("sealed anew");
  assert_ok(fx, fx->backend->outbox_rewrite(fx->writer, &other, &fx->err));
  other.index = 5;
  assert_ok(fx, fx->backend->outbox_rewrite(fx->writer, &other, &fx->err)); /* there is none */
  reopen(fx);
  got all = list(fx, -1, NULL, 9);
  assert_int_equal(all.count, 2);
  assert_string_equal(all.bodies[1], "sealed anew");
  assert_true(all.events[1].flags == 2 && all.events[1].attempts == 1 &&
              all.events[1].due_at == mine.due_at);
  assert_ok(fx, settle(fx, &mine, TM_OUTCOME_DELIVERED, fx->now));
  (void)take_one(fx, "1.1.1");
}

static const struct CMUnitTest cases[] = {
    CASE(an_event_is_as_it_was_committed),
    CASE(a_refused_commit_leaves_none),
    CASE(a_race_in_one_group_has_one_winner),
    CASE(too_large_an_event_is_refused),
    CASE(events_go_out_one_by_one),
    CASE(long_lists_are_read_in_pieces),
    CASE(conversations_do_not_wait_for_each_other),
    CASE(what_comes_meanwhile_waits),
    CASE(commits_and_deliveries_meet),
    CASE(a_lease_ends),
    CASE(a_failure_is_noted),
    CASE(a_dead_one_lets_the_next_go),
    CASE(a_dead_one_comes_back),
    CASE(a_dead_one_goes_as_it_was_found),
    CASE(lists_have_pages),
    CASE(a_purge_takes_them),
    CASE(what_waits_keeps_its_conversation),
    CASE(they_move_to_another_store),
    CASE(none_comes_before_its_commit),
    CASE(they_get_other_bodies),
};

int main(void) {
  int failed = 0;
#define BACKEND(name) failed += run_for(&tm__store_##name, cases, sizeof(cases) / sizeof(cases[0]));
#include "persistence/backends.def"
#undef BACKEND
  return failed;
}
