/* Words between the openings of one store: who hears them, and that nothing waits for them. */
#include "fixture.h"

#include <pthread.h>

#include "core/clock.h"

#define HEARD_MAX    20004
#define GAP_US       100000 /* between two notifications */
#define WORDS_IN_ONE 700    /* of those here, at most */

typedef struct listener { /* an opening of the store */
  tm_store_options options;
  tm_store *store;
  pthread_mutex_t lock;
  pthread_cond_t came;
  char words[HEARD_MAX][TM_WORD_MAX + 1];
  size_t count;
} listener;

typedef struct place {
  fixture fx;
  listener a, b;
} place;

static void on_word(void *ud, const char *word) {
  listener *l = ud;
  (void)pthread_mutex_lock(&l->lock);
  if (l->count < HEARD_MAX)
    (void)tm__copy(l->words[l->count++], sizeof(l->words[0]), tm__slice(word));
  (void)pthread_cond_signal(&l->came);
  (void)pthread_mutex_unlock(&l->lock);
}

static void open_listener(const place *p, listener *l) {
  tm_error err;
  l->options = p->fx.options;
  l->options.on_word = on_word;
  l->options.event_ud = l;
  if (p->fx.backend->open(&l->store, &l->options, &err) != TM_OK) fail_msg("%s", err.message);
}

static void close_listener(const place *p, listener *l) {
  p->fx.backend->close(l->store);
  l->store = NULL;
}

static size_t count_now(const listener *l, const char *word) {
  size_t n = 0;
  for (size_t i = 0; i < l->count; i++)
    n += word == NULL || strcmp(l->words[i], word) == 0;
  return n;
}

/* How often it has heard the word, or any (NULL). */
static size_t count_of(listener *l, const char *word) {
  (void)pthread_mutex_lock(&l->lock);
  size_t n = count_now(l, word);
  (void)pthread_mutex_unlock(&l->lock);
  return n;
}

static bool hears_within(listener *l, const char *word, int ms) {
  struct timespec end;
  (void)clock_gettime(CLOCK_REALTIME, &end);
  int64_t ns = end.tv_nsec + (int64_t)ms * 1000000;
  end.tv_sec += ns / 1000000000;
  end.tv_nsec = ns % 1000000000;
  (void)pthread_mutex_lock(&l->lock);
  int late = 0;
  while (late == 0 && count_now(l, word) == 0)
    late = pthread_cond_timedwait(&l->came, &l->lock, &end);
  bool heard = count_now(l, word) > 0;
  (void)pthread_mutex_unlock(&l->lock);
  return heard;
}

static void wait_for(listener *l, const char *word) {
  if (!hears_within(l, word, 60000)) fail_msg("nobody has said %s", word);
}

/* How many sessions of the server listen now. */
static int count_listeners(const place *p, const char *what) {
  char sql[256];
  (void)snprintf(sql, sizeof(sql),
                 "SELECT %s FROM pg_stat_activity WHERE datname=current_database() AND "
                 "pid<>pg_backend_pid() AND query ~ '(LISTEN|NOTIFY) ' AND state='idle'",
                 what);
  PGconn *pg = PQconnectdb(p->fx.url);
  PGresult *r = PQexec(pg, sql);
  if (PQresultStatus(r) != PGRES_TUPLES_OK) fail_msg("%s", PQerrorMessage(pg));
  int n = PQntuples(r) > 0 ? atoi(PQgetvalue(r, 0, 0)) : 0;
  PQclear(r);
  PQfinish(pg);
  return n;
}

static void wait_listeners(const place *p, const char *what, int n) {
  int64_t end = tm__clock_monotonic_us() + 60 * 1000000;
  while (count_listeners(p, what) != n)
    if (tm__clock_monotonic_us() > end) fail_msg("never were %d listening", n);
}

static void listener_init(listener *l) {
  (void)pthread_mutex_init(&l->lock, NULL);
  (void)pthread_cond_init(&l->came, NULL);
}

static int set_up(void **state) {
  place *p = calloc(1, sizeof(*p));
  if (p == NULL) return -1;
  fixture_make(&p->fx, &tm__store_postgres);
  listener_init(&p->a);
  listener_init(&p->b);
  open_listener(p, &p->a);
  open_listener(p, &p->b);
  wait_listeners(p, "count(*)", 2);
  *state = p;
  return 0;
}

static int tear_down(void **state) {
  place *p = *state;
  close_listener(p, &p->a);
  close_listener(p, &p->b);
  fixture_remove(&p->fx);
  free(p);
  return 0;
}

static void tell(const place *p, const listener *l, const char *word) {
  p->fx.backend->tell(l->store, word);
}

static void others_hear_and_nobody_hears_himself(void **state) {
  place *p = *state;
  tell(p, &p->a, "want/1");
  wait_for(&p->b, "want/1");
  tell(p, &p->b, "done/1");
  wait_for(&p->a, "done/1");
  assert_int_equal(count_of(&p->a, "want/1"), 0);
  assert_int_equal(count_of(&p->b, "done/1"), 0);
}

static void what_is_no_word_is_not_said(void **state) {
  place *p = *state;
  char much[TM_WORD_MAX + 2];
  memset(much, 'x', sizeof(much) - 1);
  much[sizeof(much) - 1] = '\0';
  const char *const none[] = {"", "it's", "two words", "\\", "A", "\xc3\xa4", much};
  for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++)
    tell(p, &p->a, none[i]);
  tell(p, &p->a, much + 1);
  wait_for(&p->b, much + 1);
  assert_int_equal(count_of(&p->b, NULL), 1);
}

/* What nobody has room for is not said, and says nothing against what comes later; what is said
 * again and again is said once in a notification. */
static void a_flood_is_bounded(void **state) {
  place *p = *state;
  char word[32];
  int64_t began = tm__clock_monotonic_us();
  for (int i = 0; i < 10000; i++) {
    tell(p, &p->a, "same");
    (void)snprintf(word, sizeof(word), "want/%d", i);
    tell(p, &p->a, word);
  }
  int tries = 0;
  do {
    tell(p, &p->a, "left");
  } while (!hears_within(&p->b, "left", 100) && tries++ < 600);
  size_t notifications = (size_t)((tm__clock_monotonic_us() - began) / GAP_US) + 2;
  assert_true(count_of(&p->b, "left") > 0);
  assert_in_range(count_of(&p->b, "same"), 1, notifications);
  assert_in_range(count_of(&p->b, NULL), 2, notifications * WORDS_IN_ONE);
}

static void the_last_words_are_said(void **state) {
  place *p = *state;
  tell(p, &p->a, "want/1"); /* then it may not speak for a moment */
  wait_for(&p->b, "want/1");
  tell(p, &p->a, "left");
  p->fx.backend->interrupt(p->a.store);
  close_listener(p, &p->a);
  wait_for(&p->b, "left");
}

/* Whoever is gone before the connection is made has said what he had to say nevertheless. */
static void also_by_one_who_stays_for_a_moment(void **state) {
  place *p = *state;
  close_listener(p, &p->a);
  open_listener(p, &p->a);
  tell(p, &p->a, "left");
  p->fx.backend->interrupt(p->a.store);
  close_listener(p, &p->a);
  wait_for(&p->b, "left");
}

static void a_cut_is_mended(void **state) {
  place *p = *state;
  int old[] = {count_listeners(p, "min(pid)"), count_listeners(p, "max(pid)")};
  char others[128];
  (void)snprintf(others, sizeof(others), "count(*) FILTER (WHERE pid NOT IN (%d,%d))", old[0],
                 old[1]);
  assert_int_equal(count_listeners(p, "count(pg_terminate_backend(pid))"), 2);
  wait_listeners(p, others, 2);
  tell(p, &p->a, "want/2");
  wait_for(&p->b, "want/2");
}

/* A store that nobody listens for has no such connection, and one may be told something all the
 * same. */
static void who_does_not_listen_costs_nothing(void **state) {
  place *p = *state;
  close_listener(p, &p->a);
  wait_listeners(p, "count(*)", 1);
  fixture_open(&p->fx);
  p->fx.backend->tell(p->fx.store, "left");
  fixture_close(&p->fx);
  assert_int_equal(count_listeners(p, "count(*)"), 1);
  assert_int_equal(count_of(&p->b, NULL), 0);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
  const struct CMUnitTest cases[] = {
      CASE(others_hear_and_nobody_hears_himself),
      CASE(what_is_no_word_is_not_said),
      CASE(a_flood_is_bounded),
      CASE(the_last_words_are_said),
      CASE(also_by_one_who_stays_for_a_moment),
      CASE(a_cut_is_mended),
      CASE(who_does_not_listen_costs_nothing),
  };
  return cmocka_run_group_tests_name("postgres words", cases, NULL, NULL);
}
