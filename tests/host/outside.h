/* outside.h - the other side of a script's calls: a small HTTP server on a thread of its own that
 * answers at once, late, badly or never, by the path. Included once per test program.
 *
 *   /ok  answers     /slow  answers within 60 ms     /never  keeps the connection and is silent
 *   /reset  resets   /half  closes in the middle     /big  answers with 200 KB
 *   /flaky  is one of /ok, /reset and a 500
 */
#ifndef TESTS_HOST_OUTSIDE_H
#define TESTS_HOST_OUTSIDE_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define OUTSIDE_CALLS 1000
#define OUTSIDE_BIG   200000

typedef struct outside_call {
  int fd;
  char head[2048];
  size_t len;
  int64_t due; /* when a slow one is answered; 0: not slow */
} outside_call;

typedef struct outside {
  int listener, stop;
  uint16_t port;
  pthread_t thread;
  uint32_t dice;
  outside_call calls[OUTSIDE_CALLS];
  size_t count;
  int (*heard)(const char *head); /* of each request: the status of its answer; or NULL: 200 */
  char big[OUTSIDE_BIG];
} outside;

static inline int64_t outside_now(void) {
  struct timespec t;
  (void)clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static inline uint32_t outside_roll(uint32_t *dice, uint32_t sides) {
  *dice = *dice * 1664525U + 1013904223U;
  return (*dice >> 8) % sides;
}

static inline void outside_end(outside *o, size_t i, bool reset) {
  struct linger at_once = {.l_onoff = 1, .l_linger = 0};
  if (reset) (void)setsockopt(o->calls[i].fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
  (void)close(o->calls[i].fd);
  o->calls[i] = o->calls[--o->count];
}

/* A peer that has left is no concern of ours. */
static inline void outside_send(int fd, const char *text, size_t size) {
  while (size > 0) {
    ssize_t n = send(fd, text, size, MSG_NOSIGNAL);
    if (n <= 0) return;
    text += n;
    size -= (size_t)n;
  }
}

static inline void outside_answer(const outside_call *c, int status, const char *body,
                                  size_t size) {
  char head[128];
  int len = snprintf(head, sizeof(head),
                     "HTTP/1.1 %d Said\r\nContent-Type: application/json\r\n"
                     "Content-Length: %zu\r\n\r\n",
                     status, size);
  outside_send(c->fd, head, (size_t)len);
  outside_send(c->fd, body, size);
}

static inline bool outside_asks(const outside_call *c, const char *path) {
  size_t len = strlen(path);
  return strncmp(c->head + 4, path, len) == 0 && c->head[4 + len] == ' '; /* after "GET " */
}

/* The head is complete; false: the connection is gone. */
static inline bool outside_serve(outside *o, size_t i) {
  outside_call *c = &o->calls[i];
  int status = o->heard != NULL ? o->heard(c->head) : 200;
  uint32_t luck = outside_asks(c, "/flaky") ? outside_roll(&o->dice, 3) : 3;
  c->len = 0;
  if (outside_asks(c, "/slow")) {
    c->due = outside_now() + outside_roll(&o->dice, 60);
  } else if (outside_asks(c, "/reset") || luck == 0) {
    outside_end(o, i, true);
    return false;
  } else if (outside_asks(c, "/half")) {
    outside_send(c->fd, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{\"a\"", 43);
    outside_end(o, i, false);
    return false;
  } else if (outside_asks(c, "/big")) {
    outside_answer(c, 200, o->big, sizeof(o->big));
  } else if (!outside_asks(c, "/never")) {
    outside_answer(c, luck == 1 ? 500 : status, "{\"ok\":true}", 11);
  }
  return true;
}

static inline void outside_read(outside *o, size_t i) {
  outside_call *c = &o->calls[i];
  ssize_t n = recv(c->fd, c->head + c->len, sizeof(c->head) - 1 - c->len, 0);
  if (n <= 0) {
    outside_end(o, i, false);
    return;
  }
  c->len += (size_t)n;
  c->head[c->len] = '\0';
  if (strstr(c->head, "\r\n\r\n") != NULL) (void)outside_serve(o, i);
}

static inline void outside_accept(outside *o) {
  int fd = accept4(o->listener, NULL, NULL, SOCK_CLOEXEC);
  if (fd < 0) return;
  if (o->count == OUTSIDE_CALLS) {
    (void)close(fd);
    return;
  }
  o->calls[o->count++] = (outside_call){.fd = fd};
}

/* From the last to the first: ending one moves the last into its place. */
static inline void outside_look(outside *o, const struct pollfd *ready) {
  int64_t now = outside_now();
  for (size_t i = o->count; i-- > 0;) {
    outside_call *c = &o->calls[i];
    if (c->due != 0 && c->due <= now) {
      c->due = 0;
      outside_answer(c, 200, "{\"ok\":true}", 11);
    }
    if (ready[i].revents != 0) outside_read(o, i);
  }
}

static inline void *outside_main(void *arg) {
  outside *o = arg;
  static struct pollfd fds[OUTSIDE_CALLS + 2];
  for (;;) {
    size_t n = o->count;
    for (size_t i = 0; i < n; i++)
      fds[i] = (struct pollfd){.fd = o->calls[i].fd, .events = POLLIN};
    fds[n] = (struct pollfd){.fd = o->listener, .events = POLLIN};
    fds[n + 1] = (struct pollfd){.fd = o->stop, .events = POLLIN};
    (void)poll(fds, n + 2, 5);
    if (fds[n + 1].revents != 0) return NULL;
    bool knock = fds[n].revents != 0;
    outside_look(o, fds);
    if (knock) outside_accept(o);
  }
}

static inline bool outside_open(outside *o, uint32_t seed) {
  *o = (outside){.dice = seed};
  memset(o->big, '1', sizeof(o->big));
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof(at);
  o->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  o->stop = eventfd(0, EFD_CLOEXEC);
  bool ok = bind(o->listener, (struct sockaddr *)&at, sizeof(at)) == 0 &&
            listen(o->listener, 128) == 0 &&
            getsockname(o->listener, (struct sockaddr *)&at, &size) == 0;
  o->port = ntohs(at.sin_port);
  return ok;
}

static inline bool outside_start(outside *o, uint32_t seed) {
  return outside_open(o, seed) && pthread_create(&o->thread, NULL, outside_main, o) == 0;
}

/* Ends every connection; the counters of descriptors and threads are as before the start. */
static inline void outside_stop(outside *o) {
  uint64_t one = 1;
  (void)write(o->stop, &one, sizeof(one));
  (void)pthread_join(o->thread, NULL);
  while (o->count > 0)
    outside_end(o, 0, false);
  (void)close(o->listener);
  (void)close(o->stop);
}

#endif
