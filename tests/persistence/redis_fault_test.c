/* Redis that goes away: connections cut before, within and behind a commit, a server that is killed
 * and started again under load. Nothing is doubled, nothing is lost, nobody is answered early. */
#include "redis_server.h"

#define GROUP 40

typedef struct setting {
  fixture fx; /* through the proxy */
  fixture direct;
  redis_server server;
  proxy proxy;
  atomic_int aways, backs;
} setting;

static void on_health(void *ud, const tm_error *err) {
  setting *s = ud;
  atomic_fetch_add(err != NULL ? &s->aways : &s->backs, 1);
}

static int make(void **state) {
  setting *s = calloc(1, sizeof(*s));
  if (s == NULL) return -1;
  server_make(&s->server, &s->direct);
  fixture_open(&s->direct);
  proxy_start(&s->proxy, s->server.port);
  s->fx = (fixture){.backend = &tm__store_redis, .now = s->direct.now};
  server_options(&s->fx, s->proxy.port);
  s->fx.options.on_health = on_health;
  s->fx.options.event_ud = s;
  fixture_open(&s->fx);
  *state = s;
  return 0;
}

static int unmake(void **state) {
  setting *s = *state;
  fixture_close(&s->fx);
  proxy_stop(&s->proxy);
  server_remove(&s->server, &s->direct);
  free(s);
  return 0;
}

/* ---- a commit in a thread of its own ---- */

typedef struct attempt {
  setting *s;
  pthread_t thread;
  tm_commit commits[GROUP], *items[GROUP];
  tm_row row;
  size_t count;
  tm_error err;
  tm_status status;
  atomic_bool over;
} attempt;

static void *run_attempt(void *ud) {
  attempt *a = ud;
  a->status = tm__store_redis.commit(a->s->fx.writer, a->items, a->count, &a->err);
  atomic_store(&a->over, true);
  return NULL;
}

/* Takes the conversations 0 to count - 1 from revision `expect` to the next. */
static attempt *attempt_of(setting *s, int64_t expect, size_t count, const char *body) {
  attempt *a = calloc(1, sizeof(*a));
  assert_non_null(a);
  a->s = s;
  a->count = count;
  a->row = row_of(&s->fx, expect, body);
  for (size_t i = 0; i < count; i++) {
    a->commits[i] = commit_of(&s->fx, nth((int)i).text, expect, &a->row);
    a->items[i] = &a->commits[i];
  }
  return a;
}

static void attempt_start(attempt *a) {
  assert_int_equal(pthread_create(&a->thread, NULL, run_attempt, a), 0);
}

static void attempt_end(attempt *a) {
  assert_int_equal(pthread_join(a->thread, NULL), 0);
}

static void attempt_now(attempt *a) {
  attempt_start(a);
  attempt_end(a);
}

/* Until somebody was turned away `times` times: the commit tries again and again. */
static void await_refusals(setting *s, int times) {
  int from = atomic_load(&s->proxy.refused);
  while (atomic_load(&s->proxy.refused) < from + times)
    pause_ms(5);
}

typedef struct walked {
  size_t count;
  int64_t next;
} walked;

static tm_status count_row(void *ud, const tm_row *row) {
  walked *r = ud;
  r->count++;
  assert_int_equal(row->id, r->next);
  r->next = row->parent;
  return TM_OK;
}

/* Conversation n stands at the revision, with a row for each. */
static void assert_stands(setting *s, int n, int64_t revision) {
  tm_head head = head_of(&s->direct, nth(n).text);
  walked r = {0, revision};
  char key[64];
  assert_int_equal(head.revision, revision);
  assert_int_equal(head.tip, revision);
  assert_ok(&s->direct, s->direct.backend->chain(s->direct.reader, tm__slice(nth(n).text), revision,
                                                 false, count_row, &r, &s->direct.err));
  assert_int_equal(r.count, revision);
  (void)snprintf(key, sizeof(key), "tidemill:j:{%s}", nth(n).text);
  assert_int_equal(server_ask(&s->server, "HLEN %s", key), revision);
}

/* ---- cuts ---- */

static const proxy_cut cuts[] = {CUT_BEFORE, CUT_HALF, CUT_AFTER, CUT_MIDDLE};
#define CUTS (sizeof(cuts) / sizeof(cuts[0]))

static void a_cut_is_found_out(void **state) {
  setting *s = *state;
  for (size_t i = 0; i < CUTS; i++) {
    attempt *a = attempt_of(s, (int64_t)i, GROUP, "{}");
    atomic_store(&s->proxy.cut, cuts[i]);
    attempt_now(a);
    assert_int_equal(a->status, TM_OK);
    for (size_t k = 0; k < GROUP; k++) {
      assert_int_equal(a->commits[k].status, TM_OK);
      assert_int_equal(a->commits[k].row_id, i + 1);
      assert_stands(s, (int)k, (int64_t)i + 1);
    }
    assert_int_equal(atomic_load(&s->proxy.cut), CUT_NOTHING); /* it did happen */
    free(a);
  }
}

/* The answer to a group of three is cut behind each of its bytes. */
static void wherever_an_answer_is_cut(void **state) {
  setting *s = *state;
  int64_t revision = 0;
  for (int at = 1; at < 200; at++) {
    attempt *a = attempt_of(s, revision, 3, "{}");
    for (size_t k = 0; k < 3; k++) /* hints of a status that is another one each time */
      a->commits[k].head.status = at % 2 == 0 ? TM_WAITING_INPUT : TM_PAUSED;
    atomic_store(&s->proxy.at, at);
    atomic_store(&s->proxy.cut, CUT_AT);
    attempt_now(a);
    atomic_store(&s->proxy.cut, CUT_NOTHING);
    assert_int_equal(a->status, TM_OK);
    for (size_t k = 0; k < 3; k++)
      assert_int_equal(a->commits[k].status, TM_OK);
    revision++;
    free(a);
  }
  for (int k = 0; k < 3; k++)
    assert_stands(s, k, revision);
}

/* Cuts, and lets nobody through again; the commit is in doubt from then on. */
static attempt *attempt_in_doubt(setting *s, proxy_cut cut, int64_t expect) {
  attempt *a = attempt_of(s, expect, 1, "{\"by\":\"us\"}");
  atomic_store(&s->proxy.stays_down, true);
  atomic_store(&s->proxy.cut, cut);
  attempt_start(a);
  await_refusals(s, 3);
  return a;
}

static void let_through(setting *s) {
  atomic_store(&s->proxy.stays_down, false);
  atomic_store(&s->proxy.down, false);
}

static void nothing_is_answered_before_it_is_known(void **state) {
  setting *s = *state;
  for (size_t i = 0; i < CUTS; i++) {
    attempt *a = attempt_in_doubt(s, cuts[i], (int64_t)i);
    assert_false(atomic_load(&a->over));
    assert_int_equal(atomic_load(&s->aways), i + 1);
    assert_int_equal(atomic_load(&s->backs), i);
    let_through(s);
    attempt_end(a);
    assert_int_equal(a->status, TM_OK);
    assert_int_equal(a->commits[0].status, TM_OK);
    assert_stands(s, 0, (int64_t)i + 1);
    assert_int_equal(atomic_load(&s->backs), i + 1);
    free(a);
  }
}

/* Another host's commit of the same revision is told apart from ours. */
static void who_came_first_is_found_out(void **state) {
  setting *s = *state;
  turn(&s->direct, nth(0).text, 0, 0, "{}");
  attempt *a = attempt_in_doubt(s, CUT_BEFORE, 1);
  turn(&s->direct, nth(0).text, 1, 1, "{\"by\":\"others\"}");
  let_through(s);
  attempt_end(a);
  assert_int_equal(a->status, TM_OK);
  assert_int_equal(a->commits[0].status, TM_ECONFLICT);
  assert_int_equal(a->commits[0].row_id, 0);
  assert_stands(s, 0, 2);
  free(a);
}

/* Ours happened, and others have gone on from it before we hear. */
static void what_others_built_on_did_happen(void **state) {
  setting *s = *state;
  turn(&s->direct, nth(0).text, 0, 0, "{}");
  attempt *a = attempt_in_doubt(s, CUT_AFTER, 1);
  turn(&s->direct, nth(0).text, 2, 2, "{\"by\":\"others\"}");
  let_through(s);
  attempt_end(a);
  assert_int_equal(a->commits[0].status, TM_OK);
  assert_int_equal(a->commits[0].row_id, 2);
  assert_stands(s, 0, 3);
  free(a);
}

static void a_host_that_stops_says_that_it_does_not_know(void **state) {
  setting *s = *state;
  for (size_t i = 0; i < CUTS; i++) {
    attempt *a = attempt_in_doubt(s, cuts[i], 0);
    s->fx.backend->interrupt(s->fx.store);
    attempt_end(a);
    assert_int_equal(a->status, TM_EUNAVAILABLE);
    assert_string_equal(a->err.code, "store.outcome_unknown");
    assert_int_equal(a->commits[0].status, TM_EUNAVAILABLE);
    let_through(s);
    free(a);
    fixture_close(&s->fx);
    fixture_open(&s->fx);
    tm_head head;
    if (s->direct.backend->head(s->direct.reader, tm__slice(nth(0).text), &head, NULL) == TM_OK)
      assert_ok(&s->direct, s->direct.backend->purge(s->direct.writer, tm__slice(nth(0).text), 1,
                                                     true, &s->direct.err));
  }
}

/* The primary is another server from now on, under the address of the old one, which lives on as a
 * replica and closes nothing. */
static void the_primary_moves(void **state) {
  setting *s = *state;
  fixture other;
  redis_server server = {0};
  server_make(&server, &other);
  fixture_open(&other);
  turn(&s->fx, nth(0).text, 0, 0, "{}");
  turn(&other, nth(0).text, 0, 0, "{}");
  (void)server_ask(&s->server, "REPLICAOF 127.0.0.1 1");
  attempt *a = attempt_of(s, 1, 1, "{}");
  attempt_now(a);
  assert_string_equal(a->err.code, "store.read_only");
  assert_int_equal(head_of(&s->fx, nth(0).text).revision, 1);
  atomic_store(&s->proxy.server, server.port);
  attempt_now(a);
  assert_int_equal(a->status, TM_OK);
  assert_int_equal(head_of(&other, nth(0).text).revision, 2);
  assert_int_equal(head_of(&s->fx, nth(0).text).revision, 2); /* who reads has moved as well */
  free(a);
  server_remove(&server, &other);
}

/* Where nothing was sent, nothing is in doubt, and nobody waits. */
static void who_finds_nobody_fails_at_once(void **state) {
  setting *s = *state;
  turn(&s->fx, nth(0).text, 0, 0, "{}");
  atomic_store(&s->proxy.stays_down, true);
  server_kill(&s->server);
  atomic_store(&s->proxy.down, true);
  while (atomic_load(&s->proxy.links) > 0)
    pause_ms(1);
  for (int i = 0; i < 3; i++) {
    attempt *a = attempt_of(s, 1, 2, "{}");
    attempt_now(a);
    assert_int_equal(a->status, TM_EUNAVAILABLE);
    assert_string_equal(a->err.code, "store.away");
    assert_int_equal(a->commits[1].status, TM_EUNAVAILABLE);
    free(a);
  }
  server_start(&s->server);
  tm_head head;
  for (int from = atomic_load(&s->proxy.refused); atomic_load(&s->proxy.refused) < from + 7;)
    assert_int_equal(s->fx.backend->head(s->fx.reader, tm__slice(nth(0).text), &head, &s->fx.err),
                     TM_EUNAVAILABLE);
  assert_int_equal(atomic_load(&s->aways), 1);
  let_through(s);
  attempt *a = attempt_of(s, 1, 1, "{}");
  do /* the next attempt to connect is due soon: there were few */
    attempt_now(a);
  while (a->status == TM_EUNAVAILABLE);
  assert_int_equal(a->commits[0].status, TM_OK);
  assert_int_equal(head_of(&s->fx, nth(0).text).revision, 2); /* the reader's wait is over too */
  assert_stands(s, 0, 2);
  free(a);
}

/* The host hangs between its reservation and its commit, and another one takes the key. */
static void a_hanging_start_loses_its_key(void **state) {
  setting *s = *state;
  tm_row row = row_of(&s->fx, 0, "{}");
  attempt *a = attempt_of(s, 0, 1, "{}");
  a->commits[0].start_key = 7;
  tm_start_key found;
  atomic_store(&s->proxy.stays_down, true);
  atomic_store(&s->proxy.cut, CUT_AFTER); /* the reservation is made, and not answered */
  attempt_now(a);
  assert_int_equal(a->status, TM_EUNAVAILABLE); /* nothing was committed: this is known */
  assert_string_equal(a->err.code, "store.away");
  fixture *fx = &s->direct;
  tm_commit other = commit_of(fx, nth(1).text, 0, &row);
  other.start_key = 7;
  assert_ok(fx, fx->backend->start_key(fx->reader, TM_S("default"), 7, &found, &fx->err));
  assert_true(found.row == 0); /* it may still come */
  assert_int_equal(commit_one(fx, &other), TM_ECONFLICT);
  fx->now += 60000;
  assert_int_equal(fx->backend->start_key(fx->reader, TM_S("default"), 7, &found, NULL),
                   TM_ENOTFOUND);
  assert_ok(fx, commit_one(fx, &other));
  let_through(s);
  tm_commit late = commit_of(fx, nth(0).text, 0, &row); /* what the host would have sent */
  assert_int_equal(commit_one(fx, &late), TM_ECONFLICT);
  assert_ok(fx, fx->backend->start_key(fx->reader, TM_S("default"), 7, &found, &fx->err));
  assert_string_equal(found.conversation, nth(1).text);
  free(a);
}

/* ---- kills under load ---- */

#define WRITERS 2
#define EACH    16
#define KILLS   5

typedef struct load {
  setting *s;
  int index;
  tm_store_conn *conn;
  int64_t revisions[EACH]; /* acknowledged */
  atomic_int acknowledged;
  atomic_bool *over;
} load;

/* Commits turns of conversations of its own; repeats what was refused. */
static void *work(void *ud) {
  load *l = ud;
  char body[64];
  while (!atomic_load(l->over)) {
    tm_commit commits[EACH], *items[EACH];
    tm_row rows[EACH];
    for (int i = 0; i < EACH; i++) {
      (void)snprintf(body, sizeof(body), "{}");
      rows[i] = row_of(&l->s->direct, l->revisions[i], body);
      commits[i] =
          commit_of(&l->s->direct, nth(l->index * EACH + i).text, l->revisions[i], &rows[i]);
      items[i] = &commits[i];
    }
    tm_error err;
    tm_status status = tm__store_redis.commit(l->conn, items, EACH, &err);
    for (int i = 0; i < EACH; i++) {
      if (status == TM_OK && commits[i].status == TM_OK) {
        l->revisions[i]++;
        atomic_fetch_add(&l->acknowledged, 1);
      } else if (commits[i].status != TM_EUNAVAILABLE) {
        return (void *)1; /* somebody else's? There is nobody else */
      }
    }
    if (status != TM_OK) pause_ms(5);
  }
  return NULL;
}

static void what_was_acknowledged_survives_kills(void **state) {
  setting *s = *state;
  atomic_bool over = false;
  load loads[WRITERS];
  pthread_t threads[WRITERS];
  for (int i = 0; i < WRITERS; i++) {
    loads[i] = (load){.s = s, .index = i, .over = &over};
    assert_ok(&s->direct, s->direct.backend->connect(&loads[i].conn, s->direct.store,
                                                     TM_STORE_WRITER, &s->direct.err));
    assert_int_equal(pthread_create(&threads[i], NULL, work, &loads[i]), 0);
  }
  for (int i = 0; i < KILLS; i++) {
    for (int w = 0; w < WRITERS; w++) {
      int from = atomic_load(&loads[w].acknowledged);
      while (atomic_load(&loads[w].acknowledged) < from + 4 * EACH)
        pause_ms(1);
    }
    server_kill(&s->server);
    server_start(&s->server);
  }
  atomic_store(&over, true);
  for (int i = 0; i < WRITERS; i++) {
    void *failed;
    assert_int_equal(pthread_join(threads[i], &failed), 0);
    assert_null(failed);
    s->direct.backend->disconnect(loads[i].conn);
  }
  tm_head head; /* the reader's connection notices at its next use */
  while (s->direct.backend->head(s->direct.reader, tm__slice(nth(0).text), &head, NULL) != TM_OK)
    pause_ms(5);
  for (int i = 0; i < WRITERS * EACH; i++)
    assert_stands(s, i, loads[i / EACH].revisions[i % EACH]);
}

#define FAULT(f)                                                                                   \
  { #f, f, make, unmake, NULL }

int main(void) {
  const struct CMUnitTest tests[] = {
      FAULT(a_cut_is_found_out),
      FAULT(wherever_an_answer_is_cut),
      FAULT(nothing_is_answered_before_it_is_known),
      FAULT(who_came_first_is_found_out),
      FAULT(what_others_built_on_did_happen),
      FAULT(a_host_that_stops_says_that_it_does_not_know),
      FAULT(the_primary_moves),
      FAULT(who_finds_nobody_fails_at_once),
      FAULT(a_hanging_start_loses_its_key),
      FAULT(what_was_acknowledged_survives_kills),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
