/* A server that goes away at any moment, and connections that break between a commit and its
 * answer: what was acknowledged is there, once; what was refused is not; nobody waits for ever who
 * is not in doubt. */
#include "fixture.h"

#include <pthread.h>
#include <stdatomic.h>

#include "own_postgres.h"
#include "persistence/store_postgres.h"
#include "proxy.h"

#define MARKER "COMMIT" /* the name of the statement, in the message that runs it */

typedef struct place { /* a store behind a proxy */
  fixture fx;
  proxy proxy;
  char url[256];
  atomic_int went, came; /* on_health */
} place;

static void on_health(void *ud, const tm_error *err) {
  place *p = ud;
  (void)atomic_fetch_add(err != NULL ? &p->went : &p->came, 1);
}

static void behind_proxy(place *p) {
  const char *at = strrchr(p->fx.url, '@');
  int port = atoi(strrchr(at, ':') + 1);
  proxy_start(&p->proxy, port, MARKER);
  (void)snprintf(p->url, sizeof(p->url), "%.*s@127.0.0.1:%d%s", (int)(at - p->fx.url), p->fx.url,
                 p->proxy.port, strrchr(p->fx.url, '/'));
  p->fx.options.location = p->url;
  p->fx.options.on_health = on_health;
  p->fx.options.event_ud = p;
}

static int set_up(void **state) {
  place *p = calloc(1, sizeof(*p));
  if (p == NULL) return -1;
  fixture_make(&p->fx, &tm__store_postgres);
  behind_proxy(p);
  fixture_open(&p->fx);
  *state = p;
  return 0;
}

static int tear_down(void **state) {
  place *p = *state;
  p->fx.options.location = p->fx.url;
  fixture_remove(&p->fx);
  proxy_stop(&p->proxy);
  free(p);
  return 0;
}

static tm_status count_row(void *ud, const tm_row *row) {
  (void)row;
  (*(int *)ud)++;
  return TM_OK;
}

static int rows_of(fixture *fx, int n, int64_t tip) {
  int count = 0;
  assert_ok(fx, fx->backend->chain(fx->reader, tm__slice(nth(n).text), tip, false, count_row,
                                   &count, &fx->err));
  return count;
}

/* ---- between a commit and its answer ---- */

/* A group in which one item loses: what each was told is true, whatever became of the connection.
 */
static void cut_in_a_commit(place *p, proxy_mode mode) {
  fixture *fx = &p->fx;
  int64_t tip = turn(fx, nth(1).text, 0, 0, "{}");
  (void)turn(fx, nth(2).text, 0, 0, "{}");
  tm_row row = row_of(fx, tip, "{\"n\":2}");
  tm_commit good = commit_of(fx, nth(1).text, 1, &row), stale = commit_of(fx, nth(2).text, 5, &row);
  tm_commit fresh = commit_of(fx, nth(3).text, 0, &row);
  tm_commit *items[] = {&good, &stale, &fresh};
  atomic_store(&p->proxy.mode, mode);
  assert_ok(fx, fx->backend->commit(fx->writer, items, 3, &fx->err));
  assert_int_equal(atomic_load(&p->proxy.cuts), 1);
  assert_int_equal(good.status, TM_OK);
  assert_int_equal(stale.status, TM_ECONFLICT);
  assert_int_equal(fresh.status, TM_OK);
  assert_int_equal(atomic_load(&p->went), 1);
  assert_int_equal(atomic_load(&p->came), 1);
  assert_int_equal(head_of(fx, nth(1).text).revision, 2);
  assert_int_equal(head_of(fx, nth(2).text).revision, 1);
  assert_int_equal(rows_of(fx, 1, good.row_id), 2);
  assert_int_equal(turn(fx, nth(1).text, 2, good.row_id, "{}"), 3);
}

static void commits_that_did_not_arrive_are_made_again(void **state) {
  cut_in_a_commit(*state, PROXY_CUT_REQUEST);
}

static void commits_whose_answer_is_lost_are_not(void **state) {
  cut_in_a_commit(*state, PROXY_CUT_ANSWER);
}

static void a_silent_connection_is_given_up(void **state) {
  place *p = *state;
  p->fx.backend->disconnect(p->fx.writer);
  p->fx.backend->disconnect(p->fx.reader);
  p->fx.backend->close(p->fx.store);
  p->fx.options.timeout_ms = 300;
  fixture_open(&p->fx);
  cut_in_a_commit(p, PROXY_SILENT);
}

/* Two hosts race for one revision while the answers get lost: the number of each writer tells its
 * own commit from the other's. */
static void another_hosts_commit_is_told_apart(void **state) {
  place *p = *state;
  fixture *fx = &p->fx;
  tm_store *other = NULL;
  tm_store_conn *b = NULL;
  tm_store_options direct = fx->options;
  direct.location = fx->url;
  direct.on_health = NULL;
  assert_ok(fx, fx->backend->open(&other, &direct, &fx->err));
  assert_ok(fx, fx->backend->connect(&b, other, TM_STORE_WRITER, &fx->err));
  (void)turn(fx, nth(1).text, 0, 0, "{}");
  tm_row theirs = row_of(fx, 1, "{\"by\":\"b\"}"), ours = row_of(fx, 1, "{\"by\":\"a\"}");
  tm_commit x = commit_of(fx, nth(1).text, 1, &theirs), y = commit_of(fx, nth(1).text, 1, &ours);
  tm_commit *items[] = {&x};
  assert_ok(fx, fx->backend->commit(b, items, 1, &fx->err));
  assert_int_equal(x.status, TM_OK);
  atomic_store(&p->proxy.mode, PROXY_CUT_ANSWER);
  assert_int_equal(commit_one(fx, &y), TM_ECONFLICT);
  assert_int_equal(atomic_load(&p->proxy.cuts), 1);
  fx->backend->disconnect(b);
  fx->backend->close(other);
}

typedef struct waiter {
  place *p;
  tm_commit item;
  tm_status status;
  tm_error err;
  atomic_bool over;
} waiter;

static void *commit_one_item(void *ud) {
  waiter *w = ud;
  tm_commit *items[] = {&w->item};
  w->status = w->p->fx.backend->commit(w->p->fx.writer, items, 1, &w->err);
  atomic_store(&w->over, true);
  return NULL;
}

/* While it is not known nobody is answered; a host that stops says that it does not know. */
static void who_stops_says_that_it_is_unknown(void **state) {
  place *p = *state;
  fixture *fx = &p->fx;
  (void)turn(fx, nth(1).text, 0, 0, "{}");
  waiter w = {.p = p, .item = commit_of(fx, nth(1).text, 1, NULL)};
  pthread_t thread;
  atomic_store(&p->proxy.refuse, true);
  atomic_store(&p->proxy.mode, PROXY_CUT_ANSWER);
  assert_int_equal(pthread_create(&thread, NULL, commit_one_item, &w), 0);
  while (atomic_load(&p->went) == 0)
    (void)usleep(1000);
  assert_false(atomic_load(&w.over));
  fx->backend->interrupt(fx->store);
  assert_int_equal(pthread_join(thread, NULL), 0);
  assert_int_equal(w.status, TM_EUNAVAILABLE);
  assert_string_equal(w.err.code, "store.outcome_unknown");
  tm_head head;
  assert_int_equal(fx->backend->head(fx->reader, tm__slice(nth(1).text), &head, &fx->err), TM_OK);
  assert_int_equal(head.revision, 2); /* it had happened: the reader was connected before */
  tm_commit next = commit_of(fx, nth(1).text, 2, NULL);
  assert_int_equal(commit_one(fx, &next), TM_EUNAVAILABLE); /* at once */
  assert_string_equal(fx->err.code, "store.away");
  assert_int_equal(atomic_load(&p->went), 1);
  atomic_store(&p->proxy.refuse, false);
}

/* A transaction that the server is still at when its host asks about it is waited for. */
static void a_slow_transaction_is_waited_for(void **state) {
  place *p = *state;
  fixture *fx = &p->fx;
  (void)turn(fx, nth(1).text, 0, 0, "{}");
  PGconn *pg = PQconnectdb(fx->url);
  PQclear(PQexec(pg, "SET search_path TO tidemill"));
  PQclear(PQexec(pg, "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS "
                     "$$ BEGIN PERFORM pg_sleep(0.4); RETURN NULL; END $$"));
  PGresult *r = PQexec(pg, "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON journal DEFERRABLE "
                           "INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow()");
  assert_int_equal(PQresultStatus(r), PGRES_COMMAND_OK);
  PQclear(r);
  tm_row row = row_of(fx, 1, "{}");
  tm_commit c = commit_of(fx, nth(1).text, 1, &row);
  atomic_store(&p->proxy.mode, PROXY_CUT_AT_ONCE);
  assert_ok(fx, commit_one(fx, &c));
  assert_int_equal(atomic_load(&p->proxy.cuts), 1);
  assert_int_equal(rows_of(fx, 1, c.row_id), 2);
  PQfinish(pg);
}

/* ---- a server that is killed ---- */

typedef struct client { /* takes its own conversations from revision to revision */
  const fixture *fx;
  tm_store *store;
  int n;
  int64_t acknowledged, refused;
  char wrong[256];
  atomic_bool *over;
} client;

static void *take_turns(void *ud) {
  client *me = ud;
  const tm_store_backend *b = me->fx->backend;
  tm_store_conn *c = NULL;
  tm_error err;
  while (b->connect(&c, me->store, TM_STORE_WRITER, &err) != TM_OK)
    (void)usleep(10000);
  while (!atomic_load(me->over) && me->wrong[0] == '\0') {
    tm_row row = row_of(me->fx, me->acknowledged, "{}");
    tm_commit item = commit_of(me->fx, nth(me->n).text, me->acknowledged, &row);
    tm_commit *items[] = {&item};
    tm_status status = b->commit(c, items, 1, &err);
    if (status == TM_OK && item.status == TM_OK) {
      (void)__atomic_add_fetch(&me->acknowledged, 1, __ATOMIC_RELAXED);
    } else if (status == TM_EUNAVAILABLE) { /* then it has not happened */
      me->refused++;
      (void)usleep(5000);
    } else {
      (void)snprintf(me->wrong, sizeof(me->wrong), "after %lld: %d, item %d: %.150s",
                     (long long)me->acknowledged, (int)status, (int)item.status,
                     status != TM_OK ? err.message : "");
    }
  }
  b->disconnect(c);
  return NULL;
}

static int free_port(void) {
  proxy x;
  proxy_start(&x, 1, "");
  int port = x.port;
  proxy_stop(&x);
  return port;
}

static int64_t total(const client *clients, int count) {
  int64_t n = 0;
  for (int i = 0; i < count; i++)
    n += __atomic_load_n(&clients[i].acknowledged, __ATOMIC_RELAXED);
  return n;
}

static void check_clients(fixture *fx, const client *clients, int count) {
  for (int i = 0; i < count; i++) {
    if (clients[i].wrong[0] != '\0') fail_msg("conversation %d: %s", i, clients[i].wrong);
    tm_head head = head_of(fx, nth(i).text);
    assert_int_equal(head.revision, clients[i].acknowledged);
    assert_int_equal(rows_of(fx, i, head.tip), clients[i].acknowledged);
  }
}

static void kills_lose_and_double_nothing(void **state) {
  (void)state;
  enum { CLIENTS = 4 };
  const int kills = getenv("TIDEMILL_NIGHTLY") != NULL ? 30 : 3;
  own_postgres server;
  own_make(&server, free_port());
  fixture fx = {.backend = &tm__store_postgres, .now = 1763802000000};
  fx.options = (tm_store_options){
      .location = server.url, .timeout_ms = 10000, .now_ms = fixture_now, .now_ud = &fx};
  fixture_open(&fx);
  client clients[CLIENTS];
  pthread_t threads[CLIENTS];
  atomic_bool over = false;
  for (int i = 0; i < CLIENTS; i++) {
    clients[i] = (client){.fx = &fx, .store = fx.store, .n = i, .over = &over};
    assert_int_equal(pthread_create(&threads[i], NULL, take_turns, &clients[i]), 0);
  }
  for (int i = 0; i < kills; i++) {
    for (int64_t until = total(clients, CLIENTS) + 200; total(clients, CLIENTS) < until;)
      (void)usleep(2000);
    own_kill(&server);
    own_start(&server);
  }
  for (int64_t until = total(clients, CLIENTS) + 50; total(clients, CLIENTS) < until;)
    (void)usleep(2000); /* service resumes by itself */
  atomic_store(&over, true);
  for (int i = 0; i < CLIENTS; i++)
    assert_int_equal(pthread_join(threads[i], NULL), 0);
  check_clients(&fx, clients, CLIENTS);
  fixture_close(&fx);
  own_remove(&server);
}

/* An idle host does not notice a restart. */
static void a_restart_while_idle_is_no_failure(void **state) {
  (void)state;
  own_postgres server;
  own_make(&server, free_port());
  fixture fx = {.backend = &tm__store_postgres, .now = 1763802000000};
  fx.options = (tm_store_options){
      .location = server.url, .timeout_ms = 10000, .now_ms = fixture_now, .now_ud = &fx};
  fixture_open(&fx);
  (void)turn(&fx, nth(1).text, 0, 0, "{}");
  own_kill(&server);
  tm_head head;
  tm_commit c = commit_of(&fx, nth(1).text, 1, NULL);
  assert_int_equal(fx.backend->head(fx.reader, tm__slice(nth(1).text), &head, &fx.err),
                   TM_EUNAVAILABLE);
  assert_string_equal(fx.err.code, "store.away");
  while (fx.reader->failures < 5)
    assert_int_equal(fx.backend->head(fx.reader, tm__slice(nth(1).text), &head, NULL),
                     TM_EUNAVAILABLE);
  assert_int_equal(commit_one(&fx, &c), TM_EUNAVAILABLE); /* at once: nothing is in doubt */
  own_start(&server);
  while (commit_one(&fx, &c) != TM_OK)
    (void)usleep(1000);
  (void)head_of(&fx, nth(1).text); /* the wait of the reader is over too */
  own_kill(&server);
  own_start(&server);
  (void)turn(&fx, nth(1).text, 2, 0, "{}");
  assert_int_equal(head_of(&fx, nth(1).text).revision, 3);
  fixture_close(&fx);
  own_remove(&server);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void) {
  const struct CMUnitTest cases[] = {
      CASE(commits_that_did_not_arrive_are_made_again),
      CASE(commits_whose_answer_is_lost_are_not),
      CASE(a_silent_connection_is_given_up),
      CASE(another_hosts_commit_is_told_apart),
      CASE(who_stops_says_that_it_is_unknown),
      CASE(a_slow_transaction_is_waited_for),
      cmocka_unit_test(kills_lose_and_double_nothing),
      cmocka_unit_test(a_restart_while_idle_is_no_failure),
  };
  return cmocka_run_group_tests_name("postgres faults", cases, NULL, NULL);
}
