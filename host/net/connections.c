/* connections.c - what open connections are about: their deadlines, and who gives way to others. */
#include "net/connections.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define LINGER_US        INT64_C(2000000)
#define LINGER_BYTES     (32U << 20)
#define LINGER_AT_ONCE   64
#define LINGER_READ_SIZE (256U << 10)

/* ---- queues ---- */

static void append(tm_connections *all, tm_connection *c, tm_connection_stage stage,
                   int64_t now_us) {
  tm_connection_queue *q = &all->stages[stage];
  c->stage = stage;
  c->since_us = now_us;
  c->newer = NULL;
  c->older = q->newest;
  if (c->older != NULL) c->older->newer = c;
  q->newest = c;
  if (q->oldest == NULL) q->oldest = c;
  q->count++;
}

static void take_out(tm_connections *all, tm_connection *c) {
  tm_connection_queue *q = &all->stages[c->stage];
  if (c->older != NULL) c->older->newer = c->newer;
  if (c->newer != NULL) c->newer->older = c->older;
  if (q->oldest == c) q->oldest = c->newer;
  if (q->newest == c) q->newest = c->older;
  q->count--;
}

static void drop(tm_connections *all, tm_connection *c) {
  take_out(all, c);
  if (c->stage == TM_CONNECTION_LINGERING) (void)close(c->fd);
  free(c);
}

/* ---- coming and going ---- */

tm_connection *tm__connections_add(tm_connections *all, int fd, int64_t now_us) {
  tm_connection *c = calloc(1, sizeof(*c));
  if (c == NULL) return NULL;
  c->fd = fd;
  append(all, c, TM_CONNECTION_IDLE, now_us);
  return c;
}

void tm__connections_move(tm_connections *all, tm_connection *c, tm_connection_stage to,
                          int64_t now_us) {
  if (c->stage == TM_CONNECTION_ENDING) return;
  take_out(all, c);
  append(all, c, to, now_us);
}

void tm__connections_end(tm_connections *all, tm_connection *c, int64_t now_us) {
  (void)shutdown(c->fd, SHUT_RDWR);
  tm__connections_move(all, c, TM_CONNECTION_ENDING, now_us);
}

static bool may_linger(const tm_connections *all) {
  return all->stages[TM_CONNECTION_LINGERING].count < LINGER_AT_ONCE;
}

void tm__connections_closed(tm_connections *all, tm_connection *c, int64_t now_us) {
  int own = c->linger && may_linger(all) ? fcntl(c->fd, F_DUPFD_CLOEXEC, 0) : -1;
  if (own < 0) {
    drop(all, c);
    return;
  }
  take_out(all, c);
  c->fd = own;
  append(all, c, TM_CONNECTION_LINGERING, now_us);
  (void)shutdown(own, SHUT_WR);
}

void tm__connections_dismiss(tm_connections *all, int fd, int64_t now_us) {
  tm_connection *c = may_linger(all) ? tm__connections_add(all, fd, now_us) : NULL;
  if (c == NULL) {
    (void)close(fd);
    return;
  }
  tm__connections_move(all, c, TM_CONNECTION_LINGERING, now_us);
  (void)shutdown(fd, SHUT_WR);
}

void tm__connections_free(tm_connections *all) {
  for (int i = 0; i < TM_CONNECTION_STAGES; i++)
    while (all->stages[i].oldest != NULL)
      drop(all, all->stages[i].oldest);
}

/* ---- who is late, who gives way ---- */

size_t tm__connections_count(const tm_connections *all) {
  size_t n = 0;
  for (int i = 0; i < TM_CONNECTION_ENDING; i++)
    n += all->stages[i].count;
  return n;
}

tm_connection *tm__connections_late(const tm_connections *all, int64_t now_us) {
  for (int i = 0; i < TM_CONNECTION_ENDING; i++) {
    const tm_connection_queue *q = &all->stages[i];
    if (q->oldest != NULL && q->patience_us > 0 && now_us - q->oldest->since_us >= q->patience_us)
      return q->oldest;
  }
  return NULL;
}

/* All that it sent has been read, and no more will come. */
static bool is_gone(const tm_connection *c) {
  char byte;
  return recv(c->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

void tm__connections_end_gone(tm_connections *all, int64_t now_us, int64_t wait_us) {
  static const tm_connection_stage stages[] = {TM_CONNECTION_IDLE, TM_CONNECTION_RECEIVING};
  for (size_t i = 0; i < sizeof(stages) / sizeof(stages[0]); i++) {
    tm_connection *c = all->stages[stages[i]].oldest;
    for (tm_connection *newer; c != NULL && now_us - c->since_us >= wait_us; c = newer) {
      newer = c->newer;
      if (is_gone(c)) tm__connections_end(all, c, now_us);
    }
  }
}

tm_connection *tm__connections_weakest(const tm_connections *all) {
  static const tm_connection_stage stages[] = {TM_CONNECTION_IDLE, TM_CONNECTION_RECEIVING,
                                               TM_CONNECTION_SENDING};
  tm_connection *weakest = NULL;
  for (size_t i = 0; i < sizeof(stages) / sizeof(stages[0]); i++) {
    tm_connection *c = all->stages[stages[i]].oldest;
    if (c != NULL && (weakest == NULL || c->since_us < weakest->since_us)) weakest = c;
  }
  return weakest;
}

/* ---- a gentle end ---- */

bool tm__connections_linger(const tm_connections *all) {
  return all->stages[TM_CONNECTION_LINGERING].count > 0;
}

/* false: the client has nothing more to say, said too much or is gone. MSG_TRUNC throws the bytes
 * away. */
static bool forget(tm_connection *c) {
  ssize_t n = recv(c->fd, NULL, LINGER_READ_SIZE, MSG_DONTWAIT | MSG_TRUNC);
  if (n < 0) return errno == EAGAIN || errno == EINTR;
  c->forgotten += (size_t)n;
  return n > 0 && c->forgotten < LINGER_BYTES;
}

void tm__connections_forget(tm_connections *all, int64_t now_us) {
  for (tm_connection *c = all->stages[TM_CONNECTION_LINGERING].oldest, *newer; c != NULL;
       c = newer) {
    newer = c->newer;
    if (now_us - c->since_us >= LINGER_US || !forget(c)) drop(all, c);
  }
}
