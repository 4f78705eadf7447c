/* Retention: what goes when, in a clock that the test turns; what never goes; who is in between. */
#include "keeping/purge.h"
#include "tests/journal/fixture.h"
#include "tests/provoke.h"

#define DAY INT64_C(86400000)

/* ---- one pass, piece by piece or as a whole ---- */

typedef struct piece {
  tm_store_job job;
  uv_sem_t done;
  tm_purge *purge;
} piece;

/* What another host does between the reading of a session and the writing of it. */
static struct {
  const tm_store_backend *store;
  int64_t look_at;
  int times;    /* it does so; of the sessions that are read next */
  bool refuses; /* likewise all the time */
} other_host;

static tm_status move_look(tm_store_conn *c, tm_slice tenant, tm_slice id, tm_error *err) {
  const tm_store_access a = {.backend = other_host.store, .conn = c};
  tm_kept_session k = {0};
  (void)tm__copy(k.tenant, sizeof(k.tenant), tenant);
  (void)tm__copy(k.id, sizeof(k.id), id);
  tm_status status = tm__session_fetch(&k, &a, false, err);
  k.s.look_at = other_host.look_at;
  if (status == TM_OK) status = tm__session_put(&a, false, &k, err);
  tm__session_release(&k);
  return status;
}

static tm_status session_before_other(tm_store_conn *c, tm_slice tenant, tm_slice id,
                                      tm_session_fn fn, void *ud, tm_error *err) {
  tm_status status = other_host.store->session(c, tenant, id, fn, ud, err);
  if (status != TM_OK || other_host.times == 0) return status;
  other_host.times--;
  return move_look(c, tenant, id, err);
}

static tm_status put_after_other(tm_store_conn *c, const tm_session *expect,
                                 const tm_session *session, tm_error *err) {
  if (other_host.refuses) return tm__session_moved(session->id, err);
  return other_host.store->session_put(c, expect, session, err);
}

/* The store as a host sees it beside that other one. */
static tm_store_access beside_other(const tm_store_access *a, tm_store_backend *seen) {
  tm_store_access mine = *a;
  other_host.store = a->backend;
  *seen = *a->backend;
  seen->session = session_before_other;
  seen->session_put = put_after_other;
  mine.backend = seen;
  return mine;
}

static tm_status piece_work(tm_store_job *job, const tm_store_access *a, tm_error *err) {
  tm_store_backend seen;
  const tm_store_access mine = beside_other(a, &seen);
  bool disturbed = job->write && (other_host.times > 0 || other_host.refuses);
  return tm__purge_piece(((piece *)job)->purge, disturbed ? &mine : a, err);
}

static void piece_done(tm_message *m) {
  uv_sem_post(&((piece *)m)->done);
}

static void do_piece(fixture *fx, tm_purge *p) {
  piece one = {
      .job = {.message = {.run = piece_done}, .write = tm__purge_writes(p), .work = piece_work},
      .purge = p};
  (void)snprintf(one.job.tenant, sizeof(one.job.tenant), "%s", tm__purge_tenant(p));
  assert_int_equal(uv_sem_init(&one.done, 0), 0);
  tm__storage_run(fx->storage, &one.job);
  uv_sem_wait(&one.done);
  uv_sem_destroy(&one.done);
  if (one.job.status != TM_OK) print_error("%s: %s\n", one.job.error.code, one.job.error.message);
  assert_int_equal(one.job.status, TM_OK);
}

static tm_purge pass_new(fixture *fx) {
  return (tm_purge){.keep = &fx->keep,
                    .registry = fx->registry,
                    .now = fixture_now(fx),
                    .all_sessions = true,
                    .isolated = fx->isolated};
}

static tm_purge pass(fixture *fx, bool dry) {
  tm_purge p = pass_new(fx);
  p.dry = dry;
  for (int i = 0; p.stage != TM_PURGE_DONE; i++) {
    assert_true(i < 1000);
    do_piece(fx, &p);
  }
  return p;
}

#define assert_pass(fx, conversations_, sessions_, ended_)                                         \
  do {                                                                                             \
    tm_purge pass_ = pass(fx, false);                                                              \
    assert_int_equal(pass_.conversations, conversations_);                                         \
    assert_int_equal(pass_.sessions, sessions_);                                                   \
    assert_int_equal(pass_.sessions_ended, ended_);                                                \
  } while (0)

static void assert_gone(fixture *fx, const char *id) {
  for (tm_read what = TM_READ_CONVERSATION; what <= TM_READ_CHECKPOINTS; what++)
    assert_refused(read_it(fx, id, what, NULL, 0), TM_ENOTFOUND, "conversation.not_found");
}

static void assert_there(fixture *fx, const char *id) {
  for (tm_read what = TM_READ_CONVERSATION; what <= TM_READ_CHECKPOINTS; what++)
    assert_answer(read_it(fx, id, what, NULL, 0));
}

/* ---- conversations ---- */

static void test_ended_conversations_go(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char over[TM_ID_SIZE], open[TM_ID_SIZE], later[TM_ID_SIZE];
    fx.keep.conversation_ms = 30 * DAY;
    assert_answer(start(h, over, "finish"));
    assert_answer(start(h, open, "hello"));
    assert_answer(start(h, later, "hello"));
    turn_clock(&fx, 30 * DAY - 1);
    assert_answer(say(h, later, "finish"));
    assert_pass(&fx, 0, 0, 0);
    assert_there(&fx, over);
    turn_clock(&fx, 1);
    tm_purge dry = pass(&fx, true);
    assert_int_equal(dry.conversations, 1);
    assert_there(&fx, over); /* it only counted */
    assert_pass(&fx, 1, 0, 0);
    assert_gone(&fx, over);
    assert_refused(say(h, over, "x"), TM_ENOTFOUND, "conversation.not_found");
    assert_refused(undo(h, over, 1, 0, false), TM_ENOTFOUND, "conversation.not_found");
    assert_refused(cancel(h, over), TM_ENOTFOUND, "conversation.not_found");
    assert_there(&fx, later);
    turn_clock(&fx, 365 * DAY);
    assert_pass(&fx, 1, 0, 0);
    assert_there(&fx, open); /* never */
    assert_answer(say(h, open, "still here"));
    assert_pass(&fx, 0, 0, 0);
  }
}

static void test_nothing_goes_by_default(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    char id[TM_ID_SIZE];
    assert_answer(start(&fx.hosts[0], id, "finish"));
    turn_clock(&fx, 3650 * DAY);
    assert_pass(&fx, 0, 0, 0);
    assert_there(&fx, id);
  }
}

/* What a fork goes on from may be gone: its transcript has what it waits with, and says so. */
static void test_a_fork_outlives_its_origin(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE], other[TM_ID_SIZE], cursor[112] = "", seen[512] = "", note[160];
    fx.keep.conversation_ms = DAY;
    fx.counts = true;
    assert_answer(start(h, id, "one"));
    tm__uuid7(other, fx.now);
    tm_request *r = request_new(fx.tenant, TM_REQUEST_FORK, other);
    (void)tm__copy(r->origin, sizeof(r->origin), tm__slice(id));
    assert_answer(submit(h, r));
    assert_answer(say(h, id, "finish"));
    turn_clock(&fx, DAY);
    assert_null(strstr(read_it(&fx, other, TM_READ_MESSAGES, "", 0)->json, "note"));
    assert_pass(&fx, 1, 0, 0);
    assert_answer(say(h, other, "two"));
    for (int page = 0; page < 9; page++) {
      answer *a = read_it(&fx, other, TM_READ_MESSAGES, cursor, 1);
      assert_answer(a);
      tm_buf said = {0};
      tm_slice items = tm__json_get(tm__slice(a->json), "items");
      (void)tm__json_get_text((tm_slice){items.ptr + 1, items.len - 2}, "text", &said);
      size_t length = strlen(seen);
      (void)snprintf(seen + length, sizeof(seen) - length, "%.200s,", said.ptr);
      tm__buf_free(&said);
      tm_slice next = tm__json_get(tm__slice(a->json), "next");
      if (tm__slice_is(next, "null")) break;
      assert_true(tm__copy(cursor, sizeof(cursor), (tm_slice){next.ptr + 1, next.len - 2}));
    }
    (void)snprintf(note, sizeof(note),
                   "?,two 2,?,What was said before is gone with conversation %s.,", id);
    assert_string_equal(seen, note);
    answer *a = read_it(&fx, other, TM_READ_MESSAGES, "", 0);
    assert_holds(a, "{\"role\":\"prompt\",\"seq\":3,\"step_id\":\"ask1\",\"text\":\"?\"}");
    assert_holds(a, "{\"role\":\"note\",\"seq\":0,\"text\":\"What was");
  }
}

/* ---- events that were given up ---- */

typedef struct events_look { /* what is left of them */
  tm_store_job job;
  uv_sem_t done;
  int64_t now;
  size_t dead, pending;
  bool in_memory;
} events_look;

static tm_status on_taken(void *ud, const tm_outgoing *event) {
  events_look *l = ud;
  if (event->dead_at != 0)
    l->dead++;
  else
    l->pending++;
  return TM_OK;
}

static tm_status give_up_one(void *ud, const tm_outgoing *event) {
  tm_outgoing *out = ud;
  *out = *event;
  return TM_OK;
}

/* Takes what is due until nothing is, and gives each up. */
static tm_status give_up_work(tm_store_job *job, const tm_store_access *a, tm_error *err) {
  const events_look *l = (events_look *)job;
  tm_status status = TM_OK;
  tm_outgoing one;
  do {
    one = (tm_outgoing){.index = -1};
    status = tm__access_take_events(a, l->in_memory, l->now, l->now + 1, 1, give_up_one, &one, err);
    if (status != TM_OK || one.index < 0) return status;
    status = tm__access_settle_event(a, l->in_memory, &one, TM_OUTCOME_DEAD, l->now, err);
  } while (status == TM_OK);
  return status;
}

static tm_status look_work(tm_store_job *job, const tm_store_access *a, tm_error *err) {
  events_look *l = (events_look *)job;
  const tm_outgoing_filter f = {.dead = -1, .limit = 1000};
  return tm__access_events(a, l->in_memory, &f, on_taken, l, err);
}

static void look_done(tm_message *m) {
  uv_sem_post(&((events_look *)m)->done);
}

static events_look with_events(fixture *fx, bool in_memory,
                               tm_status (*work)(tm_store_job *job, const tm_store_access *a,
                                                 tm_error *err)) {
  events_look l = {.job = {.message = {.run = look_done}, .write = true, .work = work},
                   .now = fixture_now(fx),
                   .in_memory = in_memory};
  if (fx->isolated) (void)snprintf(l.job.tenant, sizeof(l.job.tenant), "%s", fx->tenant);
  assert_int_equal(uv_sem_init(&l.done, 0), 0);
  tm__storage_run(fx->storage, &l.job);
  uv_sem_wait(&l.done);
  uv_sem_destroy(&l.done);
  assert_int_equal(l.job.status, TM_OK);
  return l;
}

static void assert_events(fixture *fx, bool in_memory, size_t dead, size_t pending) {
  events_look l = with_events(fx, in_memory, look_work);
  assert_int_equal(l.dead, dead);
  assert_int_equal(l.pending, pending);
}

/* More than a batch of them, in both stores; what is pending stays, however old. */
static void test_events_that_were_given_up_go(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE], hidden[TM_ID_SIZE];
    size_t count = TM_PURGE_BATCH + 2;
    for (size_t i = 0; i < count; i++)
      assert_answer(start(h, id, "emit"));
    assert_answer(start(h, hidden, "volatile"));
    assert_answer(say(h, hidden, "emit"));
    with_events(&fx, false, give_up_work);
    with_events(&fx, true, give_up_work);
    turn_clock(&fx, DAY);
    assert_answer(say(h, id, "emit"));
    assert_pass(&fx, 0, 0, 0); /* no limit: they stay */
    assert_events(&fx, false, 2 * count, 2);
    fx.keep.dead_event_ms = 2 * DAY;
    turn_clock(&fx, DAY - 1);
    assert_int_equal(pass(&fx, false).events, 0);
    turn_clock(&fx, 1);
    assert_int_equal(pass(&fx, true).events, 2 * count + 2);
    assert_events(&fx, false, 2 * count, 2);
    assert_int_equal(pass(&fx, false).events, 2 * count + 2);
    assert_events(&fx, false, 0, 2);
    assert_events(&fx, true, 0, 0);
    turn_clock(&fx, 365 * DAY);
    assert_int_equal(pass(&fx, false).events, 0);
    assert_events(&fx, false, 0, 2);
    assert_there(&fx, id);
  }
}

static tm_status on_dead_since(void *ud, const tm_outgoing *event) {
  const int64_t *since = ud;
  assert_int_equal(event->dead_at, *since);
  assert_string_equal(event->note, "nobody is to be told: webhooks.url is not set");
  return TM_OK;
}

static tm_status look_dead_work(tm_store_job *job, const tm_store_access *a, tm_error *err) {
  events_look *l = (events_look *)job;
  const tm_outgoing_filter f = {.dead = 1, .limit = 1000};
  return tm__access_events(a, l->in_memory, &f, on_dead_since, &l->now, err);
}

static tm_status take_work(tm_store_job *job, const tm_store_access *a, tm_error *err) {
  events_look *l = (events_look *)job;
  return tm__access_take_events(a, l->in_memory, l->now, l->now + 1000, 1, on_taken, l, err);
}

/* In both stores; of one conversation more than a page of them. */
static void test_events_of_nobody_are_given_up(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char many[TM_ID_SIZE], few[TM_ID_SIZE], tried[TM_ID_SIZE], hidden[TM_ID_SIZE];
    assert_answer(start(h, tried, "emit"));
    assert_answer(say(h, tried, "finish"));
    with_events(&fx, false, take_work); /* somebody is under way with it */
    assert_answer(start(h, many, "emit"));
    for (int i = 0; i < 35; i++)
      assert_answer(say(h, many, "emit"));
    assert_answer(say(h, many, "finish"));
    assert_answer(start(h, few, "emit"));
    assert_answer(say(h, few, "finish"));
    assert_answer(start(h, hidden, "volatile"));
    assert_answer(say(h, hidden, "emit"));
    fx.keep.conversation_ms = DAY;
    turn_clock(&fx, DAY);
    assert_pass(&fx, 0, 0, 0);
    assert_int_equal(pass(&fx, false).given_up, 0); /* there is one who tries */
    fx.keep.untold_ms = DAY + 1;
    assert_int_equal(pass(&fx, false).given_up, 0);
    turn_clock(&fx, 1);
    assert_int_equal(pass(&fx, true).given_up, 0); /* only counts what goes */
    assert_int_equal(pass(&fx, false).given_up, 36 * 2 + 2 + 2);
    assert_events(&fx, false, 36 * 2 + 2, 2);
    assert_events(&fx, true, 2, 0);
    with_events(&fx, false, look_dead_work);
    with_events(&fx, true, look_dead_work);
    assert_pass(&fx, 2, 0, 0);
    assert_gone(&fx, many);
    assert_gone(&fx, few);
    assert_there(&fx, tried);
    turn_clock(&fx, 1000);
    assert_int_equal(pass(&fx, false).given_up, 2);
    assert_pass(&fx, 1, 0, 0);
    assert_gone(&fx, tried);
  }
}

/* More than a batch; a piece removes no more than one. */
static void test_goes_in_pieces(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    char ids[2 * TM_PURGE_BATCH + 3][TM_ID_SIZE];
    size_t count = sizeof(ids) / sizeof(ids[0]);
    fx.keep.conversation_ms = DAY;
    for (size_t i = 0; i < count; i++)
      assert_answer(start(&fx.hosts[0], ids[i], i % 2 == 0 ? "finish" : "volatile"));
    for (size_t i = 1; i < count; i += 2)
      assert_answer(say(&fx.hosts[0], ids[i], "finish"));
    turn_clock(&fx, DAY);
    tm_purge p = pass_new(&fx);
    while (p.stage != TM_PURGE_DONE) {
      int64_t before = p.conversations;
      do_piece(&fx, &p);
      assert_true(p.conversations - before <= TM_PURGE_BATCH);
      assert_int_equal(p.purged_count, p.conversations - before);
    }
    assert_int_equal(p.conversations, count);
    for (size_t i = 0; i < count; i++)
      assert_gone(&fx, ids[i]);
  }
}

static void test_reopened_stays(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    fx.keep.conversation_ms = DAY;
    assert_answer(start(h, id, "hello"));
    assert_answer(say(h, id, "finish"));
    turn_clock(&fx, DAY);
    tm_purge p = pass_new(&fx);
    do_piece(&fx, &p);
    assert_true(tm__purge_writes(&p)); /* found, not yet removed */
    assert_answer(undo(h, id, 1, 0, false));
    while (p.stage != TM_PURGE_DONE)
      do_piece(&fx, &p);
    assert_int_equal(p.conversations, 0);
    assert_there(&fx, id);
    assert_answer(say(h, id, "finish"));
    assert_pass(&fx, 0, 0, 0); /* its time began anew */
    turn_clock(&fx, DAY);
    assert_pass(&fx, 1, 0, 0);
  }
}

/* A host that has a copy of it does not answer from that, nor from rows that are not swept yet. */
static void test_hot_copies_do_not_answer(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    char id[TM_ID_SIZE];
    fx.keep.conversation_ms = DAY;
    host_start(&fx, 1);
    assert_answer(start(&fx.hosts[0], id, "hello"));
    assert_answer(say_keyed(&fx.hosts[1], id, "one", "k1"));
    assert_answer(say(&fx.hosts[0], id, "finish"));
    assert_answer(say_keyed(&fx.hosts[0], id, "one", "k1")); /* known still */
    turn_clock(&fx, DAY);
    tm_purge p = pass_new(&fx);
    while (p.conversations == 0)
      do_piece(&fx, &p); /* not swept */
    for (int i = 0; i < 2; i++) {
      assert_refused(say_keyed(&fx.hosts[i], id, "one", "k1"), TM_ENOTFOUND,
                     "conversation.not_found");
      assert_refused(say(&fx.hosts[i], id, "two"), TM_ENOTFOUND, "conversation.not_found");
    }
    assert_gone(&fx, id);
  }
}

static void test_start_key_goes_too(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    char id[TM_ID_SIZE], again[TM_ID_SIZE];
    fx.keep.conversation_ms = 1000;
    assert_answer(start_keyed(&fx.hosts[0], id, "finish", "begin"));
    turn_clock(&fx, 1000);
    assert_pass(&fx, 1, 0, 0);
    answer *a = start_keyed(&fx.hosts[0], again, "finish", "begin");
    assert_answer(a);
    assert_holds(a, again);
  }
}

/* ---- checkpoints ---- */

static int listed(fixture *fx, const char *id) {
  answer *a = read_it(fx, id, TM_READ_CHECKPOINTS, NULL, 200);
  assert_answer(a);
  int n = 0;
  for (const char *at = a->json; (at = strstr(at, "checkpoint_id")) != NULL; at++)
    n++;
  return n;
}

/* The same in pages of one; returns how many. */
static int listed_in_pages(fixture *fx, const char *id) {
  char cursor[64] = "";
  int n = 0;
  for (;; n++) {
    answer *a = read_it(fx, id, TM_READ_CHECKPOINTS, cursor[0] != '\0' ? cursor : NULL, 1);
    assert_answer(a);
    assert_non_null(strstr(a->json, "checkpoint_id"));
    tm_buf next = {0};
    bool more = tm__json_get_text(tm__slice(a->json), "next", &next);
    (void)tm__copy(cursor, sizeof(cursor), tm__buf_view(&next));
    tm__buf_free(&next);
    if (!more) return n + 1;
  }
}

static void test_old_checkpoints_are_unlisted(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    fx.keep.checkpoints.ms = 7 * DAY;
    fx.rollback = 2;
    assert_answer(start(h, id, "checkpoint")); /* revision 1 */
    assert_answer(say(h, id, "checkpoint"));
    turn_clock(&fx, 7 * DAY);
    assert_answer(say(h, id, "checkpoint"));
    assert_int_equal(listed(&fx, id), 3);
    turn_clock(&fx, 1); /* the rollback limit of two prompts still needs revision 1 alone */
    assert_int_equal(listed(&fx, id), 2);
    assert_int_equal(listed_in_pages(&fx, id), 2);
    assert_refused(undo(h, id, 0, 2, false), TM_ENOTFOUND, "checkpoint.not_found");
    assert_answer(say(h, id, "hello")); /* now it is revision 2 */
    assert_int_equal(listed(&fx, id), 2);
    assert_refused(undo(h, id, 0, 1, false), TM_ENOTFOUND, "checkpoint.not_found");
    assert_answer(say(h, id, "hello"));
    assert_answer(say(h, id, "hello")); /* both are out of its reach */
    assert_int_equal(listed(&fx, id), 1);
    assert_refused(undo(h, id, 0, 2, false), TM_ENOTFOUND, "checkpoint.not_found");
    fx.keep.checkpoints.ms = 0;
    assert_int_equal(listed(&fx, id), 3); /* no row was changed */
  }
}

static void test_needed_checkpoint_can_be_gone_to(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    fx.keep.checkpoints.most = 1;
    fx.rollback = 3;
    assert_answer(start(h, id, "checkpoint"));
    for (int i = 0; i < 3; i++)
      assert_answer(say(h, id, "checkpoint"));
    assert_int_equal(listed(&fx, id), 2); /* the newest, and what three prompts back need */
    assert_refused(undo(h, id, 0, 2, false), TM_ENOTFOUND, "checkpoint.not_found");
    assert_refused(undo(h, id, 0, 3, false), TM_ENOTFOUND, "checkpoint.not_found");
    assert_answer(undo(h, id, 0, 1, false));
  }
}

static void test_few_checkpoints_are_listed(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    fx.keep.checkpoints.most = 4;
    fx.rollback = 1;
    assert_answer(start(h, id, "checkpoint"));
    for (int i = 0; i < 9; i++)
      assert_answer(say(h, id, "checkpoint"));
    assert_int_equal(listed(&fx, id), 4);
    assert_int_equal(listed_in_pages(&fx, id), 4);
    assert_answer(undo(h, id, 0, 9, false));
  }
}

/* ---- sessions ---- */

typedef struct session_seen {
  tm_store_job job;
  uv_sem_t done;
  const char *tenant, *id;
  tm_session session; /* its numbers */
} session_seen;

/* What is said of it is kept through all changes. */
static tm_status on_seen(void *ud, const tm_session *session) {
  session_seen *s = ud;
  s->session = *session;
  bool kept =
      tm__slice_is(session->user_id, "u") && tm__slice_is(session->metadata, "{\"vip\":true}");
  return kept ? TM_OK : TM_ECORRUPT;
}

static tm_status seen_work(tm_store_job *job, const tm_store_access *a, tm_error *err) {
  session_seen *s = (session_seen *)job;
  return tm__access_session(a, false, tm__slice(s->tenant), tm__slice(s->id), on_seen, s, err);
}

static void seen_done(tm_message *m) {
  uv_sem_post(&((session_seen *)m)->done);
}

/* TM_ENOTFOUND when there is none. */
static tm_status stored_session(fixture *fx, const char *id, tm_session *out) {
  session_seen s = {
      .job = {.message = {.run = seen_done}, .work = seen_work}, .tenant = fx->tenant, .id = id};
  if (fx->isolated) (void)tm__copy(s.job.tenant, sizeof(s.job.tenant), tm__slice(fx->tenant));
  assert_int_equal(uv_sem_init(&s.done, 0), 0);
  tm__storage_run(fx->storage, &s.job);
  uv_sem_wait(&s.done);
  uv_sem_destroy(&s.done);
  *out = s.session;
  return s.job.status;
}

static void test_idle_sessions_end(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char first[TM_ID_SIZE], second[TM_ID_SIZE];
    tm_session s;
    fx.keep.sessions.idle_ms = 1000;
    fx.keep.sessions.look_ms = 10;
    fx.sessions = fx.keep.sessions;
    assert_answer(start(h, first, "hello"));
    assert_int_equal(stored_session(&fx, "s1", &s), TM_OK);
    assert_int_equal(s.look_at, fixture_now(&fx) + 1000);
    turn_clock(&fx, 1000);
    assert_pass(&fx, 0, 0, 0); /* a conversation is open: looked at later */
    assert_int_equal(stored_session(&fx, "s1", &s), TM_OK);
    assert_int_equal(s.ended, 0);
    assert_int_equal(s.look_at, fixture_now(&fx) + 1000);
    assert_answer(say(h, first, "finish"));
    turn_clock(&fx, 999);
    assert_pass(&fx, 0, 0, 0);
    turn_clock(&fx, 1);
    assert_pass(&fx, 0, 0, 1);
    assert_int_equal(stored_session(&fx, "s1", &s), TM_OK);
    assert_int_equal(s.ended, fixture_now(&fx));
    assert_int_equal(s.look_at, 0);
    assert_answer(start(h, second, "hello")); /* opens it again */
    assert_int_equal(stored_session(&fx, "s1", &s), TM_OK);
    assert_int_equal(s.ended, 0);
    assert_there(&fx, first);
  }
}

/* What was found idle and is used before it is ended stays open. */
static void test_used_session_stays_open(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    char first[TM_ID_SIZE], second[TM_ID_SIZE];
    tm_session s;
    fx.keep.sessions.idle_ms = 1000;
    fx.sessions = fx.keep.sessions;
    assert_answer(start(&fx.hosts[0], first, "finish"));
    turn_clock(&fx, 1000);
    tm_purge p = pass_new(&fx);
    while (!p.acts)
      do_piece(&fx, &p);
    assert_answer(start(&fx.hosts[0], second, "hello"));
    while (p.stage != TM_PURGE_DONE)
      do_piece(&fx, &p);
    assert_int_equal(p.sessions_ended, 0);
    assert_int_equal(stored_session(&fx, "s1", &s), TM_OK);
    assert_int_equal(s.ended, 0);
  }
}

/* What another host has written since the session was read stays. */
static void test_sessions_are_compared_first(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    char id[TM_ID_SIZE];
    tm_session s;
    fx.keep.sessions.idle_ms = 1000;
    fx.sessions = fx.keep.sessions;
    assert_answer(start(&fx.hosts[0], id, "hello"));
    turn_clock(&fx, 1000);
    other_host.look_at = fixture_now(&fx) + 12345;
    other_host.times = 1;
    assert_pass(&fx, 0, 0, 0); /* it has an open conversation, and would be looked at later */
    assert_int_equal(other_host.times, 0);
    assert_int_equal(stored_session(&fx, "s1", &s), TM_OK);
    assert_int_equal(s.look_at, other_host.look_at);
    assert_answer(say(&fx.hosts[0], id, "finish"));
    turn_clock(&fx, 1000);
    other_host.times = 1;
    other_host.look_at = fixture_now(&fx) + 54321;
    assert_pass(&fx, 0, 0, 0); /* it would have ended */
    assert_int_equal(other_host.times, 0);
    assert_int_equal(stored_session(&fx, "s1", &s), TM_OK);
    assert_int_equal(s.look_at, other_host.look_at);
    assert_int_equal(s.ended, 0);
    assert_pass(&fx, 0, 0, 1);
    assert_int_equal(stored_session(&fx, "s1", &s), TM_OK);
    assert_int_equal(s.ended, fixture_now(&fx));
  }
}

/* However often others are faster, a pass comes to its end. */
static void test_a_pass_that_others_outrun_ends(void **unused) {
  (void)unused;
  fixture fx;
  fixture_open(&fx, "memory");
  char id[TM_ID_SIZE], session[16];
  fx.keep.sessions.idle_ms = 1000;
  fx.sessions = fx.keep.sessions;
  for (int i = 0; i < TM_PURGE_BATCH + 1; i++) {
    (void)snprintf(session, sizeof(session), "s%d", i);
    fx.session = session;
    assert_answer(start(&fx.hosts[0], id, "finish"));
  }
  turn_clock(&fx, 1000);
  other_host.refuses = true;
  tm_purge p = pass_new(&fx);
  p.all_sessions = false;
  for (int i = 0; p.stage != TM_PURGE_DONE; i++) {
    assert_true(i < 100);
    do_piece(&fx, &p);
  }
  other_host.refuses = false;
  assert_int_equal(p.sessions_ended, 0);
  assert_pass(&fx, 0, 0, TM_PURGE_BATCH + 1);
  fixture_close(&fx);
}

typedef struct ending_beside {
  tm_store_job job;
  uv_sem_t done;
  fixture *fx;
} ending_beside;

static tm_status end_work(tm_store_job *job, const tm_store_access *a, tm_error *err) {
  const fixture *fx = ((ending_beside *)job)->fx;
  tm_store_backend seen;
  const tm_store_access mine = beside_other(a, &seen);
  return tm__session_end(&mine, &fx->keep, tm__slice(fx->tenant), TM_S("s1"), fx->now, err);
}

static void end_done(tm_message *m) {
  uv_sem_post(&((ending_beside *)m)->done);
}

/* Whoever ends a session has his way, also if the janitor is in between. */
static void test_a_session_ends_beside_others(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    char id[TM_ID_SIZE];
    tm_session s;
    assert_answer(start(&fx.hosts[0], id, "finish"));
    other_host.times = 1;
    other_host.look_at = fixture_now(&fx) + 12345;
    ending_beside e = {.job = {.message = {.run = end_done}, .write = true, .work = end_work},
                       .fx = &fx};
    assert_int_equal(uv_sem_init(&e.done, 0), 0);
    tm__storage_run(fx.storage, &e.job);
    uv_sem_wait(&e.done);
    uv_sem_destroy(&e.done);
    assert_int_equal(e.job.status, TM_OK);
    assert_int_equal(other_host.times, 0);
    assert_int_equal(stored_session(&fx, "s1", &s), TM_OK);
    assert_int_equal(s.ended, fixture_now(&fx));
  }
}

/* ---- sessions whose records are damaged ---- */

typedef struct session_put {
  tm_store_job job;
  uv_sem_t done;
  tm_session session;
} session_put;

static tm_status put_work(tm_store_job *job, const tm_store_access *a, tm_error *err) {
  return a->backend->session_put(a->conn, NULL, &((session_put *)(void *)job)->session, err);
}

static void put_done(tm_message *m) {
  uv_sem_post(&((session_put *)(void *)m)->done);
}

static void put_session(fixture *fx, const char *id, int64_t created, int64_t ended,
                        const char *metadata) {
  session_put p = {.job = {.message = {.run = put_done}, .write = true, .work = put_work},
                   .session = {.tenant = tm__slice(fx->tenant),
                               .id = tm__slice(id),
                               .metadata = tm__slice(metadata),
                               .created = created,
                               .look_at = 1,
                               .ended = ended}};
  assert_int_equal(uv_sem_init(&p.done, 0), 0);
  tm__storage_run(fx->storage, &p.job);
  uv_sem_wait(&p.done);
  uv_sem_destroy(&p.done);
  assert_int_equal(p.job.status, TM_OK);
}

typedef struct reply_seen {
  uv_sem_t done;
  tm_status status;
  char code[64], json[8192];
} reply_seen;

static void see_reply(void *ud, const tm_reply *r) {
  reply_seen *s = ud;
  s->status = r->status;
  (void)snprintf(s->code, sizeof(s->code), "%s", r->status == TM_OK ? "" : r->error->code);
  (void)snprintf(s->json, sizeof(s->json), "%s", r->status == TM_OK ? r->json : r->error->message);
  uv_sem_post(&s->done);
}

/* How many sessions all pages show, `limit` to a page. */
static size_t sessions_shown(fixture *fx, int limit, size_t *unreadable) {
  char cursor[300] = "";
  size_t shown = 0;
  *unreadable = 0;
  for (int page = 0;; page++) {
    reply_seen r = {.status = TM_OK};
    json_t *v;
    tm_error err;
    assert_true(page < 100);
    assert_int_equal(uv_sem_init(&r.done, 0), 0);
    tm__session_list(fx->storage, tm__slice(fx->tenant), NULL, tm__slice(cursor), limit, see_reply,
                     &r);
    uv_sem_wait(&r.done);
    uv_sem_destroy(&r.done);
    if (r.status != TM_OK) print_error("%s: %s\n", r.code, r.json);
    assert_int_equal(r.status, TM_OK);
    assert_int_equal(tm__json_parse(&v, tm__slice(r.json), TM_JSON_DEPTH, &err), TM_OK);
    json_t *items = json_object_get(v, "items");
    shown += json_array_size(items);
    for (size_t i = 0; i < json_array_size(items); i++)
      *unreadable += json_object_get(json_array_get(items, i), "unreadable") != NULL;
    const char *next = json_string_value(json_object_get(v, "next"));
    if (next != NULL) (void)tm__copy(cursor, sizeof(cursor), tm__slice(next));
    json_decref(v);
    if (next == NULL) return shown;
  }
}

static void assert_session_refused(fixture *fx, const char *id) {
  reply_seen r = {.status = TM_OK};
  assert_int_equal(uv_sem_init(&r.done, 0), 0);
  tm__session_show(fx->storage, tm__slice(fx->tenant), tm__slice(id), see_reply, &r);
  uv_sem_wait(&r.done);
  uv_sem_destroy(&r.done);
  assert_int_equal(r.status, TM_ECORRUPT);
  assert_string_equal(r.code, "session.damaged");
  provoke_note(r.code);
  assert_non_null(strstr(r.json, id));
}

/* More of them than a batch, before and among the others: they stay, and keep nobody. */
static void test_damaged_sessions_stop_nobody(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    enum { DAMAGED = TM_PURGE_BATCH + 2, WHOLE = 3 };
    char id[16];
    size_t unreadable;
    if (fx.backend->coded || !fixture_durable(&fx)) continue;
    fx.keep.sessions.idle_ms = 1000;
    fx.sessions = fx.keep.sessions;
    for (int i = 0; i < DAMAGED + WHOLE; i++) {
      (void)snprintf(id, sizeof(id), "%c%d", i < DAMAGED ? 'a' : 'b', i);
      put_session(&fx, id, i == 0 ? 0 : 10 + i, i < DAMAGED ? -5 : 0, "{}");
    }
    put_session(&fx, "late", INT64_MAX - 1, 0, "{}");
    put_session(&fx, "torn", INT64_MAX, 0, "{\"vip\":");
    assert_int_equal(sessions_shown(&fx, 1, &unreadable), sessions_shown(&fx, 200, &unreadable));
    assert_true(unreadable == 1 || unreadable == DAMAGED + 1);
    assert_session_refused(&fx, "a1");
    tm_purge p = pass_new(&fx);
    p.all_sessions = false;
    while (p.stage != TM_PURGE_DONE)
      do_piece(&fx, &p);
    assert_int_equal(p.sessions_ended, WHOLE);
    for (int i = 0; i < WHOLE; i++) { /* behind them in the order of all as well */
      (void)snprintf(id, sizeof(id), "c%d", i);
      put_session(&fx, id, 5, 0, "{}");
    }
    assert_pass(&fx, 0, 0, WHOLE);
    fx.keep.session_ms = 1000;
    turn_clock(&fx, 1000);
    assert_pass(&fx, 0, 2 * WHOLE, 0);
    assert_session_refused(&fx, "a1");
  }
}

static void test_idle_sessions_go_with_all(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char ids[TM_PURGE_BATCH + 3][TM_ID_SIZE], other[TM_ID_SIZE];
    size_t count = sizeof(ids) / sizeof(ids[0]);
    tm_session s;
    fx.keep.session_ms = DAY;
    for (size_t i = 0; i < count; i++)
      assert_answer(start(h, ids[i], "finish"));
    fx.session = "s2";
    assert_answer(start(h, other, "hello"));
    turn_clock(&fx, DAY - 1);
    assert_pass(&fx, 0, 0, 0);
    turn_clock(&fx, 1);
    tm_purge dry = pass(&fx, true);
    assert_int_equal(dry.conversations, count);
    assert_int_equal(dry.sessions, 1);
    assert_pass(&fx, (int64_t)count, 1, 0);
    for (size_t i = 0; i < count; i++)
      assert_gone(&fx, ids[i]);
    assert_int_equal(stored_session(&fx, "s1", &s), TM_ENOTFOUND);
    assert_int_equal(stored_session(&fx, "s2", &s), TM_OK);
    assert_there(&fx, other);
    assert_pass(&fx, 0, 0, 0);
  }
}

/* What waits to be told keeps its conversation, and that its session; more of them than a batch
 * keep nobody else. */
static void test_events_keep_their_conversation(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char ids[TM_PURGE_BATCH + 1][TM_ID_SIZE], over[TM_ID_SIZE];
    size_t count = sizeof(ids) / sizeof(ids[0]);
    fx.keep.conversation_ms = DAY;
    for (size_t i = 0; i < count; i++) {
      assert_answer(start(h, ids[i], "emit"));
      assert_answer(say(h, ids[i], "finish"));
    }
    turn_clock(&fx, 1);
    assert_answer(start(h, over, "finish"));
    turn_clock(&fx, DAY);
    assert_int_equal(pass(&fx, true).conversations, 1);
    assert_pass(&fx, 1, 0, 0);
    assert_gone(&fx, over);
    assert_there(&fx, ids[0]);
    assert_events(&fx, false, 0, 2 * count);
    with_events(&fx, false, give_up_work);
    assert_pass(&fx, (int64_t)count, 0, 0);
    assert_events(&fx, false, 0, 0); /* those that were given up go along */
  }
}

static void test_events_keep_their_session(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char told[TM_ID_SIZE], over[TM_ID_SIZE];
    tm_session s;
    fx.keep.session_ms = DAY;
    assert_answer(start(h, told, "emit"));
    assert_answer(say(h, told, "finish"));
    assert_answer(start(h, over, "finish"));
    turn_clock(&fx, DAY);
    tm_purge dry = pass(&fx, true);
    assert_int_equal(dry.conversations, 1);
    assert_int_equal(dry.sessions, 0);
    assert_pass(&fx, 1, 0, 0);
    assert_gone(&fx, over);
    assert_there(&fx, told);
    assert_events(&fx, false, 0, 2);
    assert_int_equal(stored_session(&fx, "s1", &s), TM_OK);
    with_events(&fx, false, give_up_work);
    assert_pass(&fx, 1, 1, 0);
    assert_gone(&fx, told);
    assert_int_equal(stored_session(&fx, "s1", &s), TM_ENOTFOUND);
  }
}

/* A session of both stores goes when neither has an open conversation of it. */
static void test_session_of_both_stores(void **unused) {
  (void)unused;
  fixture fx;
  fixture_open(&fx, "sqlite");
  char durable[TM_ID_SIZE], in_memory[TM_ID_SIZE];
  tm_session s;
  fx.keep.session_ms = DAY;
  assert_answer(start(&fx.hosts[0], durable, "finish"));
  assert_answer(start(&fx.hosts[0], in_memory, "volatile"));
  turn_clock(&fx, DAY);
  assert_pass(&fx, 0, 0, 0);
  assert_answer(say(&fx.hosts[0], in_memory, "finish"));
  turn_clock(&fx, DAY);
  assert_pass(&fx, 2, 2, 0);
  assert_gone(&fx, durable);
  assert_gone(&fx, in_memory);
  assert_int_equal(stored_session(&fx, "s1", &s), TM_ENOTFOUND);
  fixture_close(&fx);
}

/* Tenants with stores of their own are cleaned up one after the other_host. */
static void test_isolated_tenants(void **unused) {
  (void)unused;
  fixture fx;
  static const char *const tenants[] = {"ann", "bob", "cid"};
  char over[3][TM_ID_SIZE], open[3][TM_ID_SIZE];
  fixture_init(&fx, "sqlite");
  fx.isolated = true;
  storage_start(&fx);
  host_start(&fx, 0);
  fx.keep.conversation_ms = DAY;
  for (int i = 0; i < 3; i++) {
    fx.tenant = tenants[i];
    assert_answer(start(&fx.hosts[0], over[i], "finish"));
    assert_answer(start(&fx.hosts[0], open[i], "hello"));
  }
  turn_clock(&fx, DAY);
  tm_purge dry = pass(&fx, true);
  assert_int_equal(dry.conversations, 3);
  assert_pass(&fx, 3, 0, 0);
  fx.keep = (tm_retention){.session_ms = DAY};
  for (int i = 0; i < 3; i++) {
    fx.tenant = tenants[i];
    assert_gone(&fx, over[i]);
    assert_answer(say(&fx.hosts[0], open[i], "finish"));
  }
  turn_clock(&fx, DAY);
  assert_pass(&fx, 3, 3, 0);
  fixture_close(&fx);
}

/* ---- the janitor ---- */

static void on_purged(void *ud, const char *conversation) {
  host *h = ud;
  tm__journal_submit(h->journal, request_new(h->fx->tenant, TM_REQUEST_FORGET, conversation));
}

static tm_janitor *janitor_start(host *h, int64_t tick_ms) {
  tm_error err;
  tm_janitor *j;
  const tm_janitor_options o = {.worker = h->worker,
                                .storage = h->fx->storage,
                                .registry = h->fx->registry,
                                .log = &h->fx->log,
                                .clock = {fixture_now, h->fx},
                                .keep = &h->fx->keep,
                                .tick_ms = tick_ms,
                                .purged = on_purged,
                                .ud = h};
  assert_int_equal(tm__janitor_new(&j, &o, &err), TM_OK);
  return j;
}

static void stop_now(void *ud) {
  tm__janitor_stop(ud);
}

static void janitor_stop(host *h, tm_janitor *j) {
  on_worker(h, stop_now, j);
  on_worker(h, stop_now, j); /* idempotent */
  host_stop(h);
  tm__janitor_free(j);
}

static void await_gone(fixture *fx, const char *id) {
  while (await(read_it(fx, id, TM_READ_CONVERSATION, NULL, 0))->status == TM_OK) {
  }
}

static void test_by_the_clock(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char first[TM_ID_SIZE], second[TM_ID_SIZE];
    fx.keep.conversation_ms = 30 * DAY;
    fx.keep.cleanup_ms = DAY;
    tm_janitor *j = janitor_start(h, 1);
    assert_answer(start(h, first, "finish"));
    turn_clock(&fx, 15 * DAY);
    assert_answer(start(h, second, "finish"));
    turn_clock(&fx, 15 * DAY);
    await_gone(&fx, first);
    assert_there(&fx, second);
    turn_clock(&fx, 15 * DAY);
    await_gone(&fx, second);
    turn_clock(&fx, -45 * DAY); /* a clock that is turned back keeps nothing from going later */
    assert_answer(start(h, first, "finish"));
    turn_clock(&fx, 30 * DAY);
    await_gone(&fx, first);
    janitor_stop(h, j);
  }
}

/* Between two passes the sessions that are due are looked at. */
static void test_sessions_by_the_clock(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    tm_session s;
    fx.keep.cleanup_ms = 365 * DAY;
    fx.keep.sessions.idle_ms = 1000;
    fx.sessions = fx.keep.sessions;
    assert_answer(start(h, id, "finish"));
    tm_janitor *j = janitor_start(h, 1);
    answer *a = answer_new(&fx);
    tm__janitor_run(j, false, on_reply, a); /* the whole pass is done */
    assert_answer(a);
    turn_clock(&fx, 1000);
    do {
      assert_int_equal(stored_session(&fx, "s1", &s), TM_OK);
    } while (s.ended == 0);
    janitor_stop(h, j);
  }
}

/* Those of tenants with stores of their own too: who has some that are due is known. */
static void test_sessions_of_isolated_tenants(void **unused) {
  (void)unused;
  fixture fx;
  fixture_init(&fx, "sqlite");
  fx.isolated = true;
  storage_start(&fx);
  host_start(&fx, 0);
  host *h = &fx.hosts[0];
  char id[TM_ID_SIZE];
  tm_session s;
  fx.keep.cleanup_ms = 365 * DAY;
  fx.keep.sessions.idle_ms = 1000;
  fx.sessions = fx.keep.sessions;
  h->janitor = janitor_start(h, 1000000);
  tm_janitor *j = h->janitor;
  scheduler_start(h, 1);
  for (int i = 0; i < 2; i++) {
    fx.tenant = i == 0 ? "t1" : "t2";
    assert_answer(start(h, id, i == 0 ? "finish" : "hello"));
  }
  turn_clock(&fx, 1000);
  fx.tenant = "t1";
  do {
    assert_int_equal(stored_session(&fx, "s1", &s), TM_OK);
  } while (s.ended == 0);
  fx.tenant = "t2"; /* a conversation is open */
  assert_answer(say(h, id, "finish"));
  assert_int_equal(stored_session(&fx, "s1", &s), TM_OK);
  assert_int_equal(s.ended, 0);
  do {
    turn_clock(&fx, 1000);
    assert_int_equal(stored_session(&fx, "s1", &s), TM_OK);
  } while (s.ended == 0);
  janitor_stop(h, j);
  fixture_close(&fx);
}

static void test_on_request(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    char id[TM_ID_SIZE];
    fx.keep.conversation_ms = DAY;
    fx.keep.cleanup_ms = DAY;
    tm_janitor *j = janitor_start(h, 1000000);
    assert_answer(start(h, id, "finish"));
    turn_clock(&fx, DAY);
    answer *dry = answer_new(&fx), *real = answer_new(&fx), *none = answer_new(&fx);
    tm__janitor_run(j, true, on_reply, dry);
    tm__janitor_run(j, false, on_reply, real);
    tm__janitor_run(j, false, on_reply, none);
    assert_answer(none);
    assert_string_equal(await(dry)->json, "{\"dry_run\":true,\"conversations\":1,\"sessions\":0,"
                                          "\"sessions_ended\":0,\"versions\":0,\"events\":0}");
    assert_string_equal(await(real)->json, "{\"dry_run\":false,\"conversations\":1,\"sessions\":0,"
                                           "\"sessions_ended\":0,\"versions\":0,\"events\":0}");
    assert_member(none, "conversations", "0");
    assert_gone(&fx, id);
    janitor_stop(h, j);
  }
}

typedef struct last_wish {
  tm_janitor *janitor;
  answer *a;
} last_wish;

static void wish_and_stop(void *ud) {
  last_wish *w = ud;
  tm__janitor_run(w->janitor, false, on_reply, w->a);
  tm__janitor_stop(w->janitor);
}

static void test_stops_quickly(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    host *h = &fx.hosts[0];
    tm_janitor *j = janitor_start(h, 1);
    last_wish w = {j, answer_new(&fx)};
    on_worker(h, wish_and_stop, &w);
    assert_refused(w.a, TM_EUNAVAILABLE, "host.stopping");
    janitor_stop(h, j);
  }
}

/* Two hosts that clean up at once remove everything once. */
static void test_two_janitors(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    char ids[3 * TM_PURGE_BATCH][TM_ID_SIZE];
    int64_t count = sizeof(ids) / sizeof(ids[0]), sum = 0;
    fx.keep.conversation_ms = DAY;
    fx.keep.session_ms = DAY;
    fx.keep.cleanup_ms = DAY;
    host_start(&fx, 1);
    for (int64_t i = 0; i < count; i++)
      assert_answer(start(&fx.hosts[i % 2], ids[i], "finish"));
    turn_clock(&fx, DAY);
    tm_janitor *j[2];
    answer *a[2];
    for (int i = 0; i < 2; i++) {
      j[i] = janitor_start(&fx.hosts[i], 1000000);
      a[i] = answer_new(&fx);
    }
    for (int i = 0; i < 2; i++)
      tm__janitor_run(j[i], false, on_reply, a[i]);
    for (int i = 0; i < 2; i++) {
      assert_answer(a[i]);
      sum += tm__json_get_int(tm__slice(a[i]->json), "conversations", 0);
    }
    assert_int_equal(sum, count);
    for (int64_t i = 0; i < count; i++)
      assert_gone(&fx, ids[i]);
    for (int i = 0; i < 2; i++)
      janitor_stop(&fx.hosts[i], j[i]);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_ended_conversations_go),
      cmocka_unit_test(test_nothing_goes_by_default),
      cmocka_unit_test(test_a_fork_outlives_its_origin),
      cmocka_unit_test(test_goes_in_pieces),
      cmocka_unit_test(test_events_that_were_given_up_go),
      cmocka_unit_test(test_events_of_nobody_are_given_up),
      cmocka_unit_test(test_reopened_stays),
      cmocka_unit_test(test_hot_copies_do_not_answer),
      cmocka_unit_test(test_start_key_goes_too),
      cmocka_unit_test(test_old_checkpoints_are_unlisted),
      cmocka_unit_test(test_needed_checkpoint_can_be_gone_to),
      cmocka_unit_test(test_few_checkpoints_are_listed),
      cmocka_unit_test(test_idle_sessions_end),
      cmocka_unit_test(test_used_session_stays_open),
      cmocka_unit_test(test_sessions_are_compared_first),
      cmocka_unit_test(test_a_pass_that_others_outrun_ends),
      cmocka_unit_test(test_a_session_ends_beside_others),
      cmocka_unit_test(test_damaged_sessions_stop_nobody),
      cmocka_unit_test(test_idle_sessions_go_with_all),
      cmocka_unit_test(test_events_keep_their_conversation),
      cmocka_unit_test(test_events_keep_their_session),
      cmocka_unit_test(test_session_of_both_stores),
      cmocka_unit_test(test_isolated_tenants),
      cmocka_unit_test(test_by_the_clock),
      cmocka_unit_test(test_sessions_by_the_clock),
      cmocka_unit_test(test_sessions_of_isolated_tenants),
      cmocka_unit_test(test_on_request),
      cmocka_unit_test(test_stops_quickly),
      cmocka_unit_test(test_two_janitors),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
