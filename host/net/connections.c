/* connections.c - deadlines of open connections, and a gentle end for some of them. */
#include "net/connections.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define LINGER_US        INT64_C(2000000)
#define LINGER_BYTES     (32U << 20)
#define LINGER_AT_ONCE   64
#define LINGER_READ_SIZE (256U << 10)

tm_connection *tm__connections_add(tm_connections *all, int fd, int64_t due_us) {
  tm_connection *c = calloc(1, sizeof(*c));
  if (c == NULL) return NULL;
  c->fd = fd;
  c->due_us = due_us;
  c->next = all->first;
  if (c->next != NULL) c->next->prev = c;
  all->first = c;
  return c;
}

static void drop(tm_connections *all, tm_connection *c) {
  if (c->gone) {
    (void)close(c->fd);
    all->lingering--;
  }
  if (c->prev != NULL) c->prev->next = c->next;
  if (c->next != NULL) c->next->prev = c->prev;
  if (all->first == c) all->first = c->next;
  free(c);
}

void tm__connections_closed(tm_connections *all, tm_connection *c, int64_t now_us) {
  int own = c->linger && all->lingering < LINGER_AT_ONCE ? fcntl(c->fd, F_DUPFD_CLOEXEC, 0) : -1;
  if (own < 0) {
    drop(all, c);
    return;
  }
  c->fd = own;
  c->gone = true;
  c->due_us = now_us + LINGER_US;
  all->lingering++;
  (void)shutdown(own, SHUT_WR);
}

void tm__connections_sweep(tm_connections *all, int64_t now_us,
                           void (*late)(void *ud, tm_connection *c), void *ud) {
  for (tm_connection *c = all->first, *next; c != NULL; c = next) {
    next = c->next;
    if (c->gone || c->due_us == 0 || now_us < c->due_us) continue;
    c->due_us = 0;
    late(ud, c);
  }
}

/* false: the client has nothing more to say, or said too much. MSG_TRUNC throws the bytes away. */
static bool forget(tm_connection *c) {
  ssize_t n = recv(c->fd, NULL, LINGER_READ_SIZE, MSG_DONTWAIT | MSG_TRUNC);
  if (n > 0) c->forgotten += (size_t)n;
  return n != 0 && c->forgotten < LINGER_BYTES;
}

void tm__connections_linger(tm_connections *all, int64_t now_us) {
  for (tm_connection *c = all->first, *next; c != NULL && all->lingering > 0; c = next) {
    next = c->next;
    if (c->gone && (now_us >= c->due_us || !forget(c))) drop(all, c);
  }
}

void tm__connections_free(tm_connections *all) {
  while (all->first != NULL)
    drop(all, all->first);
}
