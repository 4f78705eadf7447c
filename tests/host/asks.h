/* asks.h - requests of a stress test: each is kept until the end of its round, when it must have
 * been answered exactly once. Included once per test program. */
#ifndef TESTS_HOST_ASKS_H
#define TESTS_HOST_ASKS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tidemill.h"

typedef struct ask {
  struct ask *next;
  struct asks *all;
  atomic_int answers;
  tm_status status;
  char code[48], message[200];
  char *json;
} ask;

typedef struct asks {
  pthread_mutex_t lock;
  pthread_cond_t come;
  ask *first;
  size_t made, answered;
  bool over; /* nobody waits for numbers any more */
} asks;

static inline ask *ask_new(asks *all) {
  ask *a = calloc(1, sizeof(*a));
  if (a == NULL) abort();
  a->all = all;
  (void)pthread_mutex_lock(&all->lock);
  a->next = all->first;
  all->first = a;
  all->made++;
  (void)pthread_mutex_unlock(&all->lock);
  return a;
}

static inline void ask_reply(void *ud, const tm_reply *r) {
  ask *a = ud;
  asks *all = a->all;
  (void)pthread_mutex_lock(&all->lock);
  if (atomic_fetch_add(&a->answers, 1) == 0) {
    a->status = r->status;
    if (r->status == TM_OK) a->json = strdup(r->json);
    if (r->status != TM_OK) {
      (void)snprintf(a->code, sizeof(a->code), "%s", r->error->code);
      (void)snprintf(a->message, sizeof(a->message), "%.199s", r->error->message);
    }
    all->answered++;
  }
  (void)pthread_cond_broadcast(&all->come);
  (void)pthread_mutex_unlock(&all->lock);
}

static inline ask *ask_wait(ask *a) {
  (void)pthread_mutex_lock(&a->all->lock);
  while (a->answers == 0)
    (void)pthread_cond_wait(&a->all->come, &a->all->lock);
  (void)pthread_mutex_unlock(&a->all->lock);
  return a;
}

/* Waits until `count` more have been answered; false: it is over. */
static inline bool asks_wait(asks *all, size_t count) {
  (void)pthread_mutex_lock(&all->lock);
  size_t goal = all->answered + count;
  while (all->answered < goal && !all->over)
    (void)pthread_cond_wait(&all->come, &all->lock);
  bool over = all->over;
  (void)pthread_mutex_unlock(&all->lock);
  return !over;
}

static inline void asks_over(asks *all, bool over) {
  (void)pthread_mutex_lock(&all->lock);
  all->over = over;
  (void)pthread_cond_broadcast(&all->come);
  (void)pthread_mutex_unlock(&all->lock);
}

/* How many were not answered exactly once; forgets all. */
static inline size_t asks_end(asks *all) {
  size_t wrong = 0;
  while (all->first != NULL) {
    ask *a = all->first;
    all->first = a->next;
    wrong += a->answers != 1;
    free(a->json);
    free(a);
  }
  return wrong;
}

#endif
