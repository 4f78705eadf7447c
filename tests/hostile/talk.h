/* talk.h - answers to wait for, and the neighbour: a conversation that keeps talking on the only
 * worker and notes how long it waited, in CPU time of the process, so that nothing else that the
 * machine does is counted. */
#ifndef TM_TESTS_HOSTILE_TALK_H
#define TM_TESTS_HOSTILE_TALK_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tidemill.h"

static pthread_mutex_t answers_lock = PTHREAD_MUTEX_INITIALIZER; /* of answers and talks */
static pthread_cond_t answers_come = PTHREAD_COND_INITIALIZER;

static int64_t cpu_us(void) {
  struct timespec t;
  (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* ---- answers ---- */

typedef struct answer {
  int done;
  tm_status status;
  char code[48];
  char *text; /* JSON, or the error's message */
} answer;

static void answer_init(answer *a) {
  *a = (answer){0};
}

static void answer_free(answer *a) {
  free(a->text);
  a->text = NULL;
}

static void on_answer(void *ud, const tm_reply *r) {
  answer *a = ud;
  (void)pthread_mutex_lock(&answers_lock);
  a->done++;
  a->status = r->status;
  free(a->text);
  a->text = strdup(r->status == TM_OK ? r->json : r->error->message);
  (void)snprintf(a->code, sizeof(a->code), "%s", r->status == TM_OK ? "" : r->error->code);
  (void)pthread_cond_signal(&answers_come);
  (void)pthread_mutex_unlock(&answers_lock);
}

static bool answer_id(const answer *a, char id[40]) {
  const char *p = a->status == TM_OK ? strstr(a->text, "\"conversation_id\":\"") : NULL;
  if (p == NULL) return false;
  memcpy(id, p + 19, 36);
  id[36] = '\0';
  return true;
}

/* Waits at most `ms`; the lock is held. */
static void answers_wait(int ms) {
  struct timespec until;
  (void)clock_gettime(CLOCK_REALTIME, &until);
  until.tv_nsec += (long)(ms % 1000) * 1000000;
  until.tv_sec += ms / 1000 + until.tv_nsec / 1000000000;
  until.tv_nsec %= 1000000000;
  (void)pthread_cond_timedwait(&answers_come, &answers_lock, &until);
}

/* ---- the neighbour ---- */

enum { TALK_TURNS = 15, TALK_BURST = 50 };

typedef struct talk {
  tm_host *host;
  char id[40];
  bool busy; /* a message is under way */
  int burst; /* how many more follow at once, from the answer itself */
  int said;
  int64_t posted_us, last_us, longest_us, normal_us;
  char wrong[700];
} talk;

static void talk_say(talk *t);

static void on_greeted(void *ud, const tm_reply *r) {
  talk *t = ud;
  int64_t now = cpu_us();
  char expected[40];
  const char *text = r->status == TM_OK ? r->json : r->error->message;
  (void)pthread_mutex_lock(&answers_lock);
  (void)snprintf(expected, sizeof(expected), "hello guest %d\"", t->said);
  if (strstr(text, expected) == NULL) (void)snprintf(t->wrong, sizeof(t->wrong), "%s", text);
  t->last_us = now - t->posted_us;
  if (t->last_us > t->longest_us) t->longest_us = t->last_us;
  bool again = t->burst > 0;
  t->burst -= again ? 1 : 0;
  t->busy = again;
  (void)pthread_cond_signal(&answers_come);
  (void)pthread_mutex_unlock(&answers_lock);
  if (again) talk_say(t);
}

/* Only by whoever made it busy. */
static void talk_say(talk *t) {
  char json[40];
  (void)snprintf(json, sizeof(json), "\"guest %d\"", ++t->said);
  t->posted_us = cpu_us();
  tm_message_send(t->host, NULL, t->id, json, NULL, on_greeted, t);
}

static void talk_once(talk *t) {
  t->busy = true;
  talk_say(t);
  (void)pthread_mutex_lock(&answers_lock);
  while (t->busy)
    (void)pthread_cond_wait(&answers_come, &answers_lock);
  (void)pthread_mutex_unlock(&answers_lock);
}

static void talk_init(talk *t, tm_host *h) {
  answer a;
  tm_begin b = TM_BEGIN_INIT;
  b.system = "neighbour";
  b.flow_id = "talk";
  *t = (talk){.host = h};
  answer_init(&a);
  tm_conversation_begin(h, &b, on_answer, &a);
  (void)pthread_mutex_lock(&answers_lock);
  while (!a.done)
    (void)pthread_cond_wait(&answers_come, &answers_lock);
  (void)pthread_mutex_unlock(&answers_lock);
  if (!answer_id(&a, t->id)) (void)snprintf(t->wrong, sizeof(t->wrong), "%s", a.text);
  answer_free(&a);
}

static int talk_by_value(const void *a, const void *b) {
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return x < y ? -1 : x > y;
}

/* The median of some turns, with nothing else to do. */
static void talk_measure(talk *t) {
  int64_t us[TALK_TURNS];
  for (int i = 0; i < TALK_TURNS; i++) {
    talk_once(t);
    us[i] = t->last_us;
  }
  qsort(us, TALK_TURNS, sizeof(us[0]), talk_by_value);
  t->normal_us = us[TALK_TURNS / 2];
  t->longest_us = 0;
}

/* Talks until `a` has come: first message upon message, then one every now and then. False: it has
 * not come in time. */
static bool talk_while(talk *t, answer *a, int seconds) {
  time_t end = time(NULL) + seconds;
  t->busy = true;
  t->burst = TALK_BURST;
  talk_say(t);
  (void)pthread_mutex_lock(&answers_lock);
  while ((!a->done || t->busy) && time(NULL) < end) {
    if (a->done) t->burst = 0;
    bool say = !a->done && !t->busy;
    t->busy = t->busy || say;
    if (say) {
      (void)pthread_mutex_unlock(&answers_lock);
      talk_say(t);
      (void)pthread_mutex_lock(&answers_lock);
    }
    answers_wait(2);
  }
  bool came = a->done == 1 && !t->busy;
  (void)pthread_mutex_unlock(&answers_lock);
  return came;
}

#endif
