/* redis_server.h - a redis-server of a test's own that can be killed and started again, a way to
 * ask it directly, and a proxy in front of it that cuts connections where a test wants it. */
#ifndef TM_TESTS_PERSISTENCE_REDIS_SERVER_H
#define TM_TESTS_PERSISTENCE_REDIS_SERVER_H

#include "fixture.h"
#include "tests/scratch.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

/* ---- the server ---- */

typedef struct redis_server {
  pid_t pid;
  int port;
  char dir[128];
  const char *options[12]; /* more arguments, NULL at the end */
} redis_server;

#define PORT_MAX 55000 /* a node of a cluster takes another one, 10000 above */

/* A socket that listens on a free port of the loopback. */
static inline int listen_somewhere(int *port) {
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof(at);
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  assert_true(fd >= 0);
  assert_int_equal(bind(fd, (struct sockaddr *)&at, size), 0);
  assert_int_equal(listen(fd, 16), 0);
  assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &size), 0);
  *port = ntohs(at.sin_port);
  return fd;
}

static inline void pause_ms(int ms) {
  (void)poll(NULL, 0, ms);
}

static inline redisContext *server_connection(const redis_server *s) {
  const struct timeval patience = {30, 0};
  redisContext *c = redisConnectWithTimeout("127.0.0.1", s->port, patience);
  if (c != NULL && c->err == 0 && redisSetTimeout(c, patience) == REDIS_OK) return c;
  redisFree(c);
  return NULL;
}

/* It accepts connections, and has read its data. */
static inline bool server_answers(const redis_server *s) {
  redisContext *c = server_connection(s);
  if (c == NULL) return false;
  redisReply *r = redisCommand(c, "PING");
  bool ready = r != NULL && (r->type != REDIS_REPLY_ERROR || strncmp(r->str, "NOAUTH", 6) == 0);
  freeReplyObject(r);
  redisFree(c);
  return ready;
}

static inline void server_launch(redis_server *s) {
  char port[16];
  const char *argv[40] = {"redis-server",
                          "--bind",
                          "127.0.0.1",
                          "--port",
                          port,
                          "--dir",
                          s->dir,
                          "--save",
                          "",
                          "--appendonly",
                          "yes",
                          "--appendfsync",
                          "always",
                          "--daemonize",
                          "no",
                          "--logfile",
                          "log",
                          "--databases",
                          "16"};
  size_t n = 19;
  (void)snprintf(port, sizeof(port), "%d", s->port);
  for (size_t i = 0; s->options[i] != NULL; i++)
    argv[n++] = s->options[i];
  s->pid = fork();
  assert_true(s->pid >= 0);
  if (s->pid == 0) {
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that is killed leaves nothing */
    (void)execvp(argv[0], (char *const *)(uintptr_t)argv);
    _exit(127);
  }
}

/* Starts it, again on the port it had. */
static inline void server_start(redis_server *s) {
  const int had = s->port;
  for (int attempt = 0; attempt < 20; attempt++) {
    for (s->port = had; s->port == 0 || s->port > PORT_MAX;)
      (void)close(listen_somewhere(&s->port));
    server_launch(s);
    for (;;) {
      int how;
      if (server_answers(s)) return;
      if (waitpid(s->pid, &how, WNOHANG) == s->pid) break; /* the port was taken */
      pause_ms(10);
    }
    pause_ms(100);
  }
  fail_msg("redis-server does not start: see %s/log", s->dir);
}

static inline void server_kill(redis_server *s) {
  int how;
  if (s->pid == 0) return;
  assert_int_equal(kill(s->pid, SIGKILL), 0);
  assert_int_equal(waitpid(s->pid, &how, 0), s->pid);
  s->pid = 0;
}

/* Sends a command to the server's database 0, past the store; the reply as an integer, or of a text
 * whether there is one. An error fails the test. */
static inline long long server_ask(const redis_server *s, const char *format, ...) {
  va_list ap;
  redisContext *c = server_connection(s);
  assert_non_null(c);
  va_start(ap, format);
  redisReply *r = redisvCommand(c, format, ap);
  va_end(ap);
  if (r == NULL || r->type == REDIS_REPLY_ERROR)
    fail_msg("%s: %s", format, r != NULL ? r->str : c->errstr);
  long long answer = r->type == REDIS_REPLY_INTEGER ? r->integer
                     : r->type == REDIS_REPLY_ARRAY ? (long long)r->elements
                                                    : r->type != REDIS_REPLY_NIL;
  freeReplyObject(r);
  redisFree(c);
  return answer;
}

/* ---- a store on it ---- */

static inline void server_options(fixture *fx, int port) {
  (void)snprintf(fx->url, sizeof(fx->url), "127.0.0.1:%d/0", port);
  fx->options = (tm_store_options){
      .location = fx->url, .timeout_ms = 5000, .now_ms = fixture_now, .now_ud = fx};
}

/* A server in a folder of its own, and the options of a store on it; nothing is opened. */
static inline void server_make(redis_server *s, fixture *fx) {
  *fx = (fixture){.backend = &tm__store_redis, .now = 1763802000000};
  assert_true(scratch_make(s->dir, sizeof(s->dir), "redis"));
  server_start(s);
  server_options(fx, s->port);
}

static inline void server_remove(redis_server *s, fixture *fx) {
  if (fx->store != NULL) fixture_close(fx);
  server_kill(s);
  assert_int_equal(nftw(s->dir, fixture_unlink, 8, FTW_DEPTH | FTW_PHYS), 0);
}

/* ---- the proxy ---- */

typedef enum proxy_cut {
  CUT_NOTHING,
  CUT_BEFORE, /* the next commit does not reach the server */
  CUT_HALF,   /* half of it does */
  CUT_AFTER,  /* the server has answered it, the answer does not get through */
  CUT_MIDDLE, /* half of the answer gets through */
  CUT_AT,     /* so many bytes of it do: `at` */
} proxy_cut;

typedef struct proxy {
  int listener, port;
  atomic_int server; /* the port of who is behind it */
  pthread_t thread;
  atomic_int cut;         /* proxy_cut; set back when it happened */
  atomic_bool down;       /* from the cut on: who connects is turned away */
  atomic_bool stays_down; /* what `down` becomes with the cut */
  atomic_int refused;     /* connections that were turned away */
  atomic_int at;
  atomic_int links; /* that are open */
  atomic_bool over;
} proxy;

#define PROXY_LINKS 8

typedef struct proxy_link {
  int client, server; /* -1: free */
  bool doomed;        /* the answer is still to come */
} proxy_link;

static inline void link_close(proxy *p, proxy_link *l) {
  (void)close(l->client);
  (void)close(l->server);
  atomic_fetch_sub(&p->links, 1);
  *l = (proxy_link){-1, -1, false};
}

static inline bool send_all(int fd, const char *bytes, size_t size) {
  while (size > 0) {
    ssize_t n = send(fd, bytes, size, MSG_NOSIGNAL);
    if (n <= 0) return false;
    bytes += n;
    size -= (size_t)n;
  }
  return true;
}

static inline void cut_now(proxy *p, proxy_link *l) {
  atomic_store(&p->down, atomic_load(&p->stays_down));
  atomic_store(&p->cut, CUT_NOTHING);
  link_close(p, l);
}

static inline void from_client(proxy *p, proxy_link *l) {
  static _Thread_local char bytes[1 << 18];
  ssize_t n = recv(l->client, bytes, sizeof(bytes), 0);
  int cut = atomic_load(&p->cut);
  if (n <= 0) {
    link_close(p, l);
    return;
  }
  bool commit = memmem(bytes, (size_t)n, "EVALSHA", 7) != NULL;
  if (commit && cut == CUT_BEFORE) {
    cut_now(p, l);
    return;
  }
  bool half = commit && cut == CUT_HALF;
  if (!send_all(l->server, bytes, half ? (size_t)n / 2 : (size_t)n)) {
    link_close(p, l);
    return;
  }
  if (half)
    cut_now(p, l);
  else if (commit && (cut == CUT_AFTER || cut == CUT_MIDDLE || cut == CUT_AT))
    l->doomed = true;
}

static inline void from_server(proxy *p, proxy_link *l) {
  static _Thread_local char bytes[1 << 16];
  ssize_t n = recv(l->server, bytes, sizeof(bytes), 0);
  if (n > 0 && !l->doomed) {
    if (!send_all(l->client, bytes, (size_t)n)) link_close(p, l);
    return;
  }
  if (n <= 0 || !l->doomed) {
    link_close(p, l);
    return;
  }
  int cut = atomic_load(&p->cut), at = atomic_load(&p->at);
  if (cut == CUT_AT && n < at) { /* there is more to come */
    atomic_store(&p->at, at - (int)n);
    if (!send_all(l->client, bytes, (size_t)n)) link_close(p, l);
    return;
  }
  size_t through = cut == CUT_MIDDLE ? (size_t)n / 2 : cut == CUT_AT ? (size_t)at : 0;
  (void)send_all(l->client, bytes, through);
  cut_now(p, l);
}

static inline void link_open(proxy *p, proxy_link *links) {
  int fd = accept(p->listener, NULL, NULL);
  if (fd < 0) return;
  if (atomic_load(&p->down)) {
    atomic_fetch_add(&p->refused, 1);
    (void)close(fd);
    return;
  }
  struct sockaddr_in at = {.sin_family = AF_INET,
                           .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                           .sin_port = htons((uint16_t)atomic_load(&p->server))};
  int up = socket(AF_INET, SOCK_STREAM, 0);
  size_t i = 0;
  while (i < PROXY_LINKS && links[i].client >= 0)
    i++;
  if (i == PROXY_LINKS || connect(up, (struct sockaddr *)&at, sizeof(at)) != 0) {
    (void)close(fd);
    (void)close(up);
    return;
  }
  links[i] = (proxy_link){fd, up, false};
  atomic_fetch_add(&p->links, 1);
}

static inline void *proxy_main(void *ud) {
  proxy *p = ud;
  proxy_link links[PROXY_LINKS];
  for (size_t i = 0; i < PROXY_LINKS; i++)
    links[i] = (proxy_link){-1, -1, false};
  while (!atomic_load(&p->over)) {
    struct pollfd fds[1 + 2 * PROXY_LINKS] = {{p->listener, POLLIN, 0}};
    for (size_t i = 0; i < PROXY_LINKS; i++) {
      fds[1 + 2 * i] = (struct pollfd){links[i].client, POLLIN, 0};
      fds[2 + 2 * i] = (struct pollfd){links[i].server, POLLIN, 0};
    }
    if (poll(fds, 1 + 2 * PROXY_LINKS, 20) <= 0) continue;
    for (size_t i = 0; i < PROXY_LINKS; i++) {
      if (fds[2 + 2 * i].revents != 0) from_server(p, &links[i]);
      if (fds[1 + 2 * i].revents != 0 && links[i].client == fds[1 + 2 * i].fd)
        from_client(p, &links[i]);
    }
    if (fds[0].revents != 0) link_open(p, links);
  }
  for (size_t i = 0; i < PROXY_LINKS; i++)
    if (links[i].client >= 0) link_close(p, &links[i]);
  return NULL;
}

static inline void proxy_start(proxy *p, int server) {
  memset(p, 0, sizeof(*p));
  p->listener = listen_somewhere(&p->port);
  atomic_store(&p->server, server);
  assert_int_equal(pthread_create(&p->thread, NULL, proxy_main, p), 0);
}

static inline void proxy_stop(proxy *p) {
  atomic_store(&p->over, true);
  assert_int_equal(pthread_join(p->thread, NULL), 0);
  (void)close(p->listener);
}

#endif
