/* store_postgres_words.c - words between the hosts of a store: a thread with a connection of its
 * own that listens on the channel of the schema, and says what waits, a few times a second at most.
 * No commit has a NOTIFY in it, for that takes a lock of the whole server. A word is a hint: what
 * is lost with a connection, or has no room, is found by whoever looks. */
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "persistence/store_postgres.h"

#define GAP_US     (INT64_C(100) * 1000)       /* between two notifications */
#define CONNECT_US (INT64_C(60) * 1000 * 1000) /* to all addresses; each has its own limit */
#define SLICE_US   (INT64_C(200) * 1000)
#define LAST_US    (INT64_C(1000) * 1000) /* for the last words of a process */
#define UNSAID_MAX 4000                   /* a notification has less than 8000 bytes */

struct tm_pg_words {
  tm_store *store;
  pthread_t thread;
  pthread_mutex_t lock;
  int wake; /* an eventfd: there is something to do */
  /* under the lock */
  char unsaid[UNSAID_MAX]; /* " word word " */
  bool closing, deaf;      /* deaf: the server carries no words */
  int64_t end_us;          /* monotonic; of a process that closes */
  /* of the thread */
  PGconn *pg; /* NULL: not connected */
  unsigned failures;
  int64_t retry_us, say_us; /* monotonic; not before */
};

/* ---- what is to be said ---- */

static void wake(const tm_pg_words *w) {
  const uint64_t one = 1;
  if (write(w->wake, &one, sizeof(one)) < 0) return; /* it has been woken often enough */
}

static bool is_word(const char *word) {
  size_t len = strlen(word);
  return len > 0 && strspn(word, "abcdefghijklmnopqrstuvwxyz0123456789-/") == len;
}

static void add(char *unsaid, const char *word) {
  char spaced[TM_WORD_MAX + 3];
  if (snprintf(spaced, sizeof(spaced), " %s ", word) >= (int)sizeof(spaced)) return;
  size_t len = strlen(unsaid), more = strlen(word) + 1;
  if (strstr(unsaid, spaced) != NULL || len + more + 1 >= UNSAID_MAX) return;
  memcpy(unsaid + len, len == 0 ? spaced : spaced + 1, len == 0 ? more + 2 : more + 1);
}

void tm__pg_tell(tm_store *s, const char *word) {
  tm_pg_words *w = s->words;
  if (w == NULL || !is_word(word)) return;
  (void)pthread_mutex_lock(&w->lock);
  if (!w->deaf) add(w->unsaid, word);
  (void)pthread_mutex_unlock(&w->lock);
  wake(w);
}

static bool has_unsaid(tm_pg_words *w) {
  (void)pthread_mutex_lock(&w->lock);
  bool has = w->unsaid[0] != '\0';
  (void)pthread_mutex_unlock(&w->lock);
  return has;
}

/* Whoever closes says what is left, where that can be done soon. */
static bool goes_on(tm_pg_words *w) {
  (void)pthread_mutex_lock(&w->lock);
  bool last = w->unsaid[0] != '\0' && (w->pg != NULL || w->failures == 0) &&
              tm__pg_monotonic_us() < w->end_us;
  bool goes = !w->deaf && (!w->closing || last);
  (void)pthread_mutex_unlock(&w->lock);
  return goes;
}

/* ---- the connection ---- */

/* Until `fd` (-1: none) is ready for `events`, or there is something to do, or `until_us`. */
static bool wait_for(const tm_pg_words *w, int fd, short events, int64_t until_us) {
  struct pollfd p[] = {{.fd = w->wake, .events = POLLIN}, {.fd = fd, .events = events}};
  int64_t left_ms = until_us == TM_PG_NEVER ? -1 : (until_us - tm__pg_monotonic_us()) / 1000 + 1;
  if (until_us != TM_PG_NEVER && left_ms < 0) left_ms = 0;
  uint64_t count;
  if (poll(p, 2, (int)left_ms) <= 0) return false;
  if (p[0].revents != 0 && read(w->wake, &count, sizeof(count)) < 0) return false;
  return p[1].revents != 0;
}

static void lose(tm_pg_words *w) {
  if (w->pg != NULL) PQfinish(w->pg);
  w->pg = NULL;
  w->retry_us = tm__pg_monotonic_us() + tm__pg_retry_ms(w->failures++) * 1000;
}

/* As PQconnectdbParams, but that it ends soon when the store closes. */
static bool reach(tm_pg_words *w) {
  const tm_store *s = w->store;
  int64_t end_us = tm__pg_monotonic_us() + CONNECT_US;
  PostgresPollingStatusType next = PGRES_POLLING_WRITING;
  w->pg = PQconnectStartParams((const char *const *)s->keywords, (const char *const *)s->values, 0);
  if (w->pg == NULL || PQstatus(w->pg) == CONNECTION_BAD) return false;
  while (next != PGRES_POLLING_OK && next != PGRES_POLLING_FAILED) {
    short events = next == PGRES_POLLING_READING ? POLLIN : POLLOUT;
    int64_t now = tm__pg_monotonic_us();
    bool ready = wait_for(w, PQsocket(w->pg), events, now + SLICE_US);
    if (!goes_on(w) || now >= end_us) return false;
    if (ready) next = PQconnectPoll(w->pg);
  }
  return next == PGRES_POLLING_OK && PQsetnonblocking(w->pg, 1) == 0;
}

static void ignore_notice(void *ud, const PGresult *r) {
  (void)ud, (void)r;
}

/* A server that does not know the statement is not asked again. */
static void give_up(tm_pg_words *w, const tm_error *err) {
  (void)pthread_mutex_lock(&w->lock);
  w->deaf = true;
  (void)pthread_mutex_unlock(&w->lock);
  if (w->store->on_deaf != NULL) w->store->on_deaf(w->store->event_ud, err);
}

static void listen_to(tm_pg_words *w) {
  char sql[TM_PG_NAME + 64], state[6] = "";
  tm_error err = {0};
  bool ok = reach(w);
  if (ok) {
    (void)PQsetNoticeReceiver(w->pg, ignore_notice, NULL);
    (void)snprintf(sql, sizeof(sql), "SET synchronous_commit TO off;LISTEN \"%s\"",
                   w->store->schema);
    ok = tm__pg_exec_state(w->store, w->pg, sql, state, "listen", &err) == TM_OK;
  }
  if (ok) {
    w->failures = 0;
    return;
  }
  lose(w);
  if (strncmp(state, "42", 2) == 0 || strncmp(state, "0A", 2) == 0) give_up(w, &err);
}

/* ---- talking ---- */

static void say(tm_pg_words *w) {
  char words[UNSAID_MAX], sql[UNSAID_MAX + TM_PG_NAME + 16];
  (void)pthread_mutex_lock(&w->lock);
  memcpy(words, w->unsaid, sizeof(words));
  w->unsaid[0] = '\0';
  (void)pthread_mutex_unlock(&w->lock);
  (void)snprintf(sql, sizeof(sql), "NOTIFY \"%s\",'%s'", w->store->schema, words);
  w->say_us = tm__pg_monotonic_us() + GAP_US;
  if (tm__pg_exec(w->store, w->pg, sql, NULL, "notify", NULL) != TM_OK) lose(w);
}

static void hear_words(const tm_store *s, char *words) {
  char *rest = NULL;
  for (char *one = strtok_r(words, " ", &rest); one != NULL; one = strtok_r(NULL, " ", &rest))
    if (strlen(one) <= TM_WORD_MAX) s->on_word(s->event_ud, one);
}

/* Our own come back to us. */
static void hear(tm_pg_words *w) {
  bool ok = PQconsumeInput(w->pg) == 1 && PQstatus(w->pg) == CONNECTION_OK;
  for (PGnotify *n = PQnotifies(w->pg); n != NULL; n = PQnotifies(w->pg)) {
    if (n->be_pid != PQbackendPID(w->pg)) hear_words(w->store, n->extra);
    PQfreemem(n);
  }
  if (!ok) lose(w);
}

static void rest(tm_pg_words *w) {
  if (w->pg == NULL)
    (void)wait_for(w, -1, 0, w->retry_us);
  else
    (void)wait_for(w, PQsocket(w->pg), POLLIN, has_unsaid(w) ? w->say_us : TM_PG_NEVER);
}

static void *words_main(void *ud) {
  tm_pg_words *w = ud;
  while (goes_on(w)) {
    int64_t now = tm__pg_monotonic_us();
    if (w->pg == NULL && now >= w->retry_us) listen_to(w);
    if (w->pg != NULL && now >= w->say_us && has_unsaid(w)) say(w);
    if (w->pg != NULL) hear(w);
    if (goes_on(w)) rest(w);
  }
  if (w->pg != NULL) PQfinish(w->pg);
  return NULL;
}

/* ---- life ---- */

static void words_free(tm_pg_words *w) {
  if (w->wake >= 0) (void)close(w->wake);
  (void)pthread_mutex_destroy(&w->lock);
  free(w);
}

void tm__pg_words_start(tm_store *s) {
  tm_error err;
  tm_pg_words *w = calloc(1, sizeof(*w));
  bool made = w != NULL && pthread_mutex_init(&w->lock, NULL) == 0;
  bool runs = false;
  if (made) {
    w->store = s;
    w->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    runs = w->wake >= 0 && pthread_create(&w->thread, NULL, words_main, w) == 0;
  }
  if (runs) {
    s->words = w;
    return;
  }
  if (made)
    words_free(w);
  else
    free(w);
  (void)tm__fail_memory(&err, "the thread that listens");
  if (s->on_deaf != NULL) s->on_deaf(s->event_ud, &err);
}

void tm__pg_words_stop(tm_store *s) {
  tm_pg_words *w = s->words;
  if (w == NULL) return;
  (void)pthread_mutex_lock(&w->lock);
  w->closing = true;
  w->end_us = tm__pg_monotonic_us() + LAST_US;
  (void)pthread_mutex_unlock(&w->lock);
  wake(w);
  (void)pthread_join(w->thread, NULL);
  words_free(w);
  s->words = NULL;
}
