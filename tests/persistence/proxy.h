/* proxy.h - stands between a store and its server, passes everything on, and cuts the connection
 * where a test wants it: before a request reaches the server, or before its answer comes back. */
#ifndef TM_TESTS_PERSISTENCE_PROXY_H
#define TM_TESTS_PERSISTENCE_PROXY_H

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PROXY_PAIRS = 16, PROXY_CHUNK = 65536 };

typedef enum proxy_mode {
  PROXY_PASS,
  PROXY_CUT_REQUEST, /* the next request with `marker` in it is not passed on, both ends close */
  PROXY_CUT_ANSWER,  /* ... is passed on, and its answer is not */
  PROXY_CUT_AT_ONCE, /* ... is passed on, and both ends close without waiting for an answer */
  PROXY_SILENT,      /* from the next request with `marker` on its connection passes nothing */
} proxy_mode;

typedef struct proxy_pair {
  int client, server; /* -1: free */
  bool answer_lost, silent;
} proxy_pair;

typedef struct proxy {
  int listener, port, target;
  const char *marker;
  atomic_int mode;    /* PROXY_PASS again once it has happened */
  atomic_int cuts;    /* how often it has */
  atomic_bool refuse; /* new connections are closed at once */
  atomic_bool over;
  pthread_t thread;
  proxy_pair pairs[PROXY_PAIRS];
} proxy;

static inline void proxy_close(proxy_pair *p) {
  (void)close(p->client);
  (void)close(p->server);
  *p = (proxy_pair){.client = -1, .server = -1};
}

static inline struct sockaddr_in proxy_address(int port) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return a;
}

static inline void proxy_accept(proxy *x) {
  int client = accept(x->listener, NULL, NULL), one = 1;
  int server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  struct sockaddr_in to = proxy_address(x->target);
  proxy_pair *free_pair = NULL;
  for (int i = 0; i < PROXY_PAIRS; i++)
    if (x->pairs[i].client < 0) free_pair = &x->pairs[i];
  (void)setsockopt(server, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
  (void)setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
  if (free_pair != NULL && !atomic_load(&x->refuse) &&
      connect(server, (struct sockaddr *)&to, sizeof(to)) == 0) {
    *free_pair = (proxy_pair){.client = client, .server = server};
    return;
  }
  (void)close(client);
  (void)close(server);
}

static inline bool proxy_write(int fd, const char *bytes, ssize_t size) {
  for (ssize_t n; size > 0; size -= n, bytes += n)
    if ((n = send(fd, bytes, (size_t)size, MSG_NOSIGNAL)) <= 0) return false;
  return true;
}

static inline void proxy_request(proxy *x, proxy_pair *p) {
  static char bytes[PROXY_CHUNK];
  ssize_t n = recv(p->client, bytes, sizeof(bytes), 0);
  proxy_mode mode = (proxy_mode)atomic_load(&x->mode);
  bool hit =
      n > 0 && mode != PROXY_PASS && memmem(bytes, (size_t)n, x->marker, strlen(x->marker)) != NULL;
  if (hit) {
    atomic_store(&x->mode, PROXY_PASS);
    (void)atomic_fetch_add(&x->cuts, 1);
    p->answer_lost = mode == PROXY_CUT_ANSWER;
    p->silent = mode == PROXY_SILENT;
  }
  bool dead = n <= 0 || (hit && mode == PROXY_CUT_REQUEST);
  if (!dead && !p->silent) dead = !proxy_write(p->server, bytes, n);
  if (dead || (hit && mode == PROXY_CUT_AT_ONCE)) proxy_close(p);
}

static inline void proxy_answer(proxy_pair *p) {
  static char bytes[PROXY_CHUNK];
  ssize_t n = recv(p->server, bytes, sizeof(bytes), 0);
  if (n <= 0 || p->answer_lost || !proxy_write(p->client, bytes, n)) proxy_close(p);
}

static inline void *proxy_main(void *ud) {
  proxy *x = ud;
  while (!atomic_load(&x->over)) {
    struct pollfd fds[1 + 2 * PROXY_PAIRS] = {{.fd = x->listener, .events = POLLIN}};
    for (int i = 0; i < PROXY_PAIRS; i++) {
      fds[1 + 2 * i] = (struct pollfd){.fd = x->pairs[i].client, .events = POLLIN};
      fds[2 + 2 * i] = (struct pollfd){.fd = x->pairs[i].server, .events = POLLIN};
    }
    (void)poll(fds, 1 + 2 * PROXY_PAIRS, 20);
    for (int i = 0; i < PROXY_PAIRS; i++) {
      proxy_pair *p = &x->pairs[i];
      if (p->client >= 0 && fds[1 + 2 * i].revents != 0) proxy_request(x, p);
      if (p->client >= 0 && fds[2 + 2 * i].revents != 0) proxy_answer(p);
    }
    if (fds[0].revents != 0) proxy_accept(x);
  }
  return NULL;
}

/* Listens on a port of its own and connects to `target`, both on the loopback. */
static inline void proxy_start(proxy *x, int target, const char *marker) {
  struct sockaddr_in a = proxy_address(0);
  socklen_t size = sizeof(a);
  *x = (proxy){.target = target, .marker = marker};
  for (int i = 0; i < PROXY_PAIRS; i++)
    x->pairs[i] = (proxy_pair){.client = -1, .server = -1};
  x->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (bind(x->listener, (struct sockaddr *)&a, size) != 0 || listen(x->listener, 16) != 0 ||
      getsockname(x->listener, (struct sockaddr *)&a, &size) != 0 ||
      pthread_create(&x->thread, NULL, proxy_main, x) != 0)
    abort();
  x->port = ntohs(a.sin_port);
}

static inline void proxy_stop(proxy *x) {
  atomic_store(&x->over, true);
  (void)pthread_join(x->thread, NULL);
  for (int i = 0; i < PROXY_PAIRS; i++)
    if (x->pairs[i].client >= 0) proxy_close(&x->pairs[i]);
  (void)close(x->listener);
}

#endif
