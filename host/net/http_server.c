/* http_server.c - the HTTP thread: libmicrohttpd run by epoll, requests from first byte to handler.
 *
 * The thread is ours: deadlines are swept in it without a lock, and answers from other threads come
 * back through one list, so that many of them cost one wake-up.
 */
#include "net/http_server.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/clock.h"
#include "net/http_framing.h"
#include "net/listen.h"

#define TICK_MS          1000
#define LINGER_TICK_MS   10
#define FLUSH_US         INT64_C(2000000)
#define IDLE_ROUNDS      16
#define PACE_MS          10
#define CONNECTION_BYTES (32U << 10) /* request line, headers and read buffer: more is 431 */
#define GROW_BYTES       4096U

struct tm_http_server {
  tm_http_options o;
  char host[64];
  struct MHD_Daemon *daemon;
  int listen_fd, epoll_fd; /* the latter is the daemon's */
  uint16_t port;
  pthread_t thread;
  tm_http_answered answered;
  tm_connections connections; /* HTTP thread */
  bool listening;             /* the daemon still has the listening socket; HTTP thread */
  size_t handed;              /* exchanges between handler and completion; HTTP thread */
  bool busy;                  /* something happened in this round; HTTP thread */
  unsigned idle_rounds;       /* rounds since something happened; HTTP thread */
  int64_t next_sweep_us;      /* HTTP thread */
  atomic_bool quiesced, stopping;
};

/* ---- deadlines ---- */

static int64_t seconds(int s) {
  return (int64_t)s * 1000000;
}

/* For what cannot be told from idling: waiting for a request line, or for an answer to be read. */
static int64_t patience_us(const tm_http_server *s) {
  return tm__clock_monotonic_us() + seconds(s->o.idle_timeout_s) + seconds(s->o.request_timeout_s);
}

static void refuse_raw(tm_http_exchange *x, int status, const char *code, const char *detail) {
  x->raw = true;
  x->step = TM_HTTP_DROPPED;
  x->link->linger = true;
  x->server->o.refuse(x->server->o.ud, x, status, code, detail);
}

static void late(void *ud, tm_connection *c) {
  tm_http_server *s = ud;
  tm_http_exchange *x = c->request;
  char detail[120];
  (void)snprintf(detail, sizeof(detail), "the request was not complete after %d seconds",
                 s->o.request_timeout_s);
  if (x != NULL && (x->step == TM_HTTP_HEAD || x->step == TM_HTTP_BODY))
    refuse_raw(x, 408, "request.timeout", detail);
  (void)shutdown(c->fd, SHUT_RDWR);
}

/* ---- a request, step by step ---- */

static tm_connection *link_of(struct MHD_Connection *connection) {
  const union MHD_ConnectionInfo *info =
      MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
  return info != NULL ? info->socket_context : NULL;
}

static void *on_request_line(void *cls, const char *uri, struct MHD_Connection *connection) {
  tm_http_server *s = cls;
  tm_connection *link = link_of(connection);
  tm_http_exchange *x = link != NULL ? calloc(1, sizeof(*x)) : NULL;
  s->busy = true;
  if (x == NULL) return NULL;
  x->target = uri;
  x->bad_target = uri == NULL || strchr(uri, ' ') != NULL;
  x->server = s;
  x->connection = connection;
  x->link = link;
  x->last = &s->quiesced;
  x->answered = &s->answered;
  link->request = x;
  link->due_us = tm__clock_monotonic_us() + seconds(s->o.request_timeout_s);
  return x;
}

static enum MHD_Result queue_answer(tm_http_exchange *x) {
  tm__buf_free(&x->body);
  if (x->response == NULL) return MHD_NO;
  enum MHD_Result r = MHD_queue_response(x->connection, (unsigned)x->status, x->response);
  MHD_destroy_response(x->response);
  x->response = NULL;
  x->link->due_us = patience_us(x->server);
  return r;
}

/* The handler has been called: answers now, or suspends until tm__http_reply. libmicrohttpd
 * remembers over the suspension that it wanted to read, would read first, and take a client that
 * has said all for one that has left; only after one more round does it no longer want to. */
static enum MHD_Result settle(tm_http_exchange *x) {
  tm_http_state open = TM_HTTP_OPEN;
  if (atomic_load(&x->state) == TM_HTTP_ANSWERED) return queue_answer(x);
  if (!x->yielded) {
    x->yielded = true;
    return MHD_YES;
  }
  if (!atomic_compare_exchange_strong(&x->state, &open, TM_HTTP_SUSPENDED)) return queue_answer(x);
  MHD_suspend_connection(x->connection);
  return MHD_YES;
}

static void hand(tm_http_exchange *x) {
  x->step = TM_HTTP_HANDED;
  x->link->due_us = 0;
  x->server->handed++;
}

static enum MHD_Result refuse(tm_http_exchange *x, int status, const char *code,
                              const char *detail) {
  hand(x);
  x->server->o.refuse(x->server->o.ud, x, status, code, detail);
  return queue_answer(x);
}

static enum MHD_Result too_large(tm_http_exchange *x, bool amidst) {
  char detail[120];
  (void)snprintf(detail, sizeof(detail), "the body is larger than %zu bytes, the limit here",
                 x->server->o.body_limit);
  x->link->linger = true;
  if (!amidst) return refuse(x, 413, "body.too_large", detail);
  refuse_raw(x, 413, "body.too_large", detail);
  return MHD_NO;
}

static enum MHD_Result malformed(tm_http_exchange *x, const tm_http_flaw *flaw) {
  x->final = true;
  x->link->linger = true;
  return refuse(x, flaw->status, flaw->code, flaw->detail);
}

static enum MHD_Result on_headers(tm_http_exchange *x, const char *method, const char *path,
                                  const char *version) {
  tm_http_server *s = x->server;
  tm_http_flaw flaw;
  x->method = method;
  x->path = path;
  x->step = TM_HTTP_BODY;
  if (!tm__http_framing(&flaw, x, version)) return malformed(x, &flaw);
  if (atomic_load_explicit(&s->stopping, memory_order_relaxed))
    return refuse(x, 503, "host.stopping", "the host is stopping: try again later");
  tm_slice length = tm__http_header(x, "Content-Length");
  if (length.ptr != NULL && strtoull(length.ptr, NULL, 10) > s->o.body_limit)
    return too_large(x, false);
  return MHD_YES;
}

static enum MHD_Result on_body(tm_http_exchange *x, const char *data, size_t *size) {
  if (*size > x->server->o.body_limit - x->body.len) return too_large(x, true);
  tm__buf_add(&x->body, data, *size);
  *size = 0;
  if (tm__buf_ok(&x->body)) return MHD_YES;
  refuse_raw(x, 503, "host.memory", "out of memory: no room for the body; try again later");
  return MHD_NO;
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *data,
                                  size_t *size, void **request) {
  tm_http_server *s = cls;
  tm_http_exchange *x = *request;
  (void)connection;
  s->busy = true;
  if (x == NULL || x->step == TM_HTTP_DROPPED) return MHD_NO;
  if (x->step == TM_HTTP_HEAD) return on_headers(x, method, url, version);
  if (x->step == TM_HTTP_HANDED) return settle(x);
  if (*size > 0) return on_body(x, data, size);
  hand(x);
  s->o.handler(s->o.ud, x);
  return settle(x);
}

static void on_completed(void *cls, struct MHD_Connection *connection, void **request,
                         enum MHD_RequestTerminationCode code) {
  tm_http_server *s = cls;
  tm_http_exchange *x = *request;
  (void)connection;
  (void)code;
  s->busy = true;
  if (x == NULL) return;
  if (x->step == TM_HTTP_HANDED) s->handed--;
  if (x->response != NULL) MHD_destroy_response(x->response);
  x->link->request = NULL;
  x->link->due_us = patience_us(s);
  tm__buf_free(&x->body);
  free(x);
  *request = NULL;
}

static void on_connection(void *cls, struct MHD_Connection *connection, void **link,
                          enum MHD_ConnectionNotificationCode code) {
  tm_http_server *s = cls;
  s->busy = true;
  if (code == MHD_CONNECTION_NOTIFY_CLOSED) {
    if (*link != NULL) tm__connections_closed(&s->connections, *link, tm__clock_monotonic_us());
    *link = NULL;
    return;
  }
  const union MHD_ConnectionInfo *info =
      MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
  if (info != NULL) *link = tm__connections_add(&s->connections, info->connect_fd, patience_us(s));
}

/* ---- what libmicrohttpd asks for ---- */

static int hex(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  c = (char)(c | 0x20);
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* %HH in place, for the path and for each part of the query. What is no escape, %00, and in a path
 * %2F, stays as it is: a slash that was encoded parts nothing. */
static size_t unescape(void *cls, struct MHD_Connection *connection, char *text) {
  char *to = text;
  const tm_connection *link = link_of(connection);
  tm_http_exchange *x = link != NULL ? link->request : NULL;
  bool path = x != NULL && text == x->target;
  (void)cls;
  for (const char *from = text; *from != '\0';) {
    int high = from[0] == '%' ? hex(from[1]) : -1;
    int low = high >= 0 ? hex(from[2]) : -1;
    int c = low >= 0 ? high * 16 + low : 0;
    bool escape = c != 0 && !(path && c == '/');
    if (from[0] == '%' && c == 0 && x != NULL) x->bad_target = true;
    *to++ = escape ? (char)c : *from;
    from += escape ? 3 : 1;
  }
  *to = '\0';
  return (size_t)(to - text);
}

__attribute__((format(printf, 2, 0))) static void log_line(void *cls, const char *format,
                                                           va_list args) {
  const tm_http_server *s = cls;
  char line[256];
  int n = vsnprintf(line, sizeof(line), format, args);
  if (n <= 0 || s->o.log == NULL) return;
  line[strcspn(line, "\r\n")] = '\0';
  tm__log(s->o.log, TM_LOG_DEBUG, "http", "detail", line, NULL);
}

/* ---- life ---- */

static bool start_daemon(tm_http_server *s) {
  const unsigned flags = MHD_USE_EPOLL | MHD_USE_ITC | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG;
  s->daemon = MHD_start_daemon(
      flags, s->port, NULL, NULL, on_request, s, MHD_OPTION_EXTERNAL_LOGGER, log_line, s,
      MHD_OPTION_LISTEN_SOCKET, s->listen_fd, MHD_OPTION_STRICT_FOR_CLIENT, 0,
      MHD_OPTION_CONNECTION_LIMIT, (unsigned)s->o.connection_limit, MHD_OPTION_CONNECTION_TIMEOUT,
      (unsigned)s->o.idle_timeout_s, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_BYTES,
      MHD_OPTION_CONNECTION_MEMORY_INCREMENT, (size_t)GROW_BYTES, MHD_OPTION_URI_LOG_CALLBACK,
      on_request_line, s, MHD_OPTION_UNESCAPE_CALLBACK, unescape, s, MHD_OPTION_NOTIFY_COMPLETED,
      on_completed, s, MHD_OPTION_NOTIFY_CONNECTION, on_connection, s, MHD_OPTION_END);
  if (s->daemon == NULL) return false;
  s->listening = true;
  const union MHD_DaemonInfo *info = MHD_get_daemon_info(s->daemon, MHD_DAEMON_INFO_EPOLL_FD);
  s->epoll_fd = info != NULL ? info->epoll_fd : -1;
  s->answered.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  return s->epoll_fd >= 0 && s->answered.wake_fd >= 0;
}

/* Milliseconds until something must be done even if nothing happens. libmicrohttpd asks to be
 * called again at once for as long as a request fills its buffer and cannot go on: that gets a
 * pace, not the processor. */
static int wait_ms(const tm_http_server *s) {
  unsigned long long left;
  int tick = s->connections.lingering > 0 ? LINGER_TICK_MS : TICK_MS;
  bool limited = MHD_get_timeout(s->daemon, &left) == MHD_YES;
  if (limited && left == 0 && s->idle_rounds > IDLE_ROUNDS) return PACE_MS;
  return limited && left < (unsigned long long)tick ? (int)left : tick;
}

static void wait_for_events(const tm_http_server *s, int timeout_ms) {
  struct pollfd fds[] = {{s->epoll_fd, POLLIN, 0}, {s->answered.wake_fd, POLLIN, 0}};
  uint64_t count;
  if (timeout_ms == 0 || poll(fds, 2, timeout_ms) <= 0) return;
  if (fds[1].revents != 0) (void)!read(s->answered.wake_fd, &count, sizeof(count));
}

static void resume_answered(tm_http_server *s) {
  tm_http_exchange *x = atomic_exchange(&s->answered.first, NULL);
  if (x != NULL) s->busy = true;
  for (tm_http_exchange *next; x != NULL; x = next) {
    next = x->next;
    MHD_resume_connection(x->connection);
  }
}

/* libmicrohttpd would be woken by a listening socket that was shut down, again and again. */
static void stop_listening(tm_http_server *s) {
  if (s->listening && atomic_load_explicit(&s->quiesced, memory_order_relaxed)) {
    s->listening = false;
    (void)MHD_quiesce_daemon(s->daemon);
  }
}

static void turn(tm_http_server *s) {
  stop_listening(s);
  wait_for_events(s, wait_ms(s));
  resume_answered(s);
  (void)MHD_run(s->daemon);
  s->idle_rounds = s->busy ? 0 : s->idle_rounds + 1;
  s->busy = false;
  int64_t now = tm__clock_monotonic_us();
  if (s->connections.lingering > 0) tm__connections_linger(&s->connections, now);
  if (now < s->next_sweep_us) return;
  s->next_sweep_us = now + TICK_MS * INT64_C(1000);
  tm__connections_sweep(&s->connections, now, late, s);
}

static void *serve(void *arg) {
  tm_http_server *s = arg;
  while (!atomic_load_explicit(&s->stopping, memory_order_relaxed))
    turn(s);
  int64_t end = tm__clock_monotonic_us() + FLUSH_US;
  while (s->handed > 0 && tm__clock_monotonic_us() < end)
    turn(s);
  return NULL;
}

/* The thread takes no signals but faults: they are the program's, and SIGPIPE nobody's. */
static int start_thread(tm_http_server *s) {
  static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP};
  sigset_t all, before;
  (void)sigfillset(&all);
  for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++)
    (void)sigdelset(&all, faults[i]);
  (void)pthread_sigmask(SIG_SETMASK, &all, &before);
  int failed = pthread_create(&s->thread, NULL, serve, s);
  (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (failed == 0) (void)pthread_setname_np(s->thread, "tm-http");
  return failed;
}

static void release(tm_http_server *s) {
  if (s->daemon != NULL) MHD_stop_daemon(s->daemon); /* closes the socket unless quiesced */
  if (s->listen_fd >= 0 && (s->daemon == NULL || !s->listening)) (void)close(s->listen_fd);
  if (s->answered.wake_fd >= 0) (void)close(s->answered.wake_fd);
  tm__connections_free(&s->connections);
  free(s);
}

tm_status tm__http_server_start(tm_http_server **out, const tm_http_options *o, tm_error *err) {
  *out = NULL;
  tm_http_server *s = calloc(1, sizeof(*s));
  if (s == NULL) return tm__fail_memory(err, "the HTTP server");
  s->o = *o;
  s->listen_fd = s->answered.wake_fd = -1;
  tm_status st = TM_OK;
  if (!tm__copy(s->host, sizeof(s->host), tm__slice(o->host)))
    st = tm__fail(err, TM_EINVAL, "server.address", "the address to listen on is too long");
  else
    st = tm__listen(&s->listen_fd, &s->port, s->host, o->port, err);
  if (st == TM_OK && !start_daemon(s))
    st =
        tm__fail(err, TM_EIO, "server.listen", "cannot start the HTTP server: %s", strerror(errno));
  int failed = st == TM_OK ? start_thread(s) : 0;
  if (failed != 0)
    st = tm__fail(err, TM_EIO, "server.listen", "cannot start the HTTP thread: %s",
                  strerror(failed));
  if (st != TM_OK)
    release(s);
  else
    *out = s;
  return st;
}

uint16_t tm__http_server_port(const tm_http_server *s) {
  return s->port;
}

static void wake(const tm_http_server *s) {
  static const uint64_t one = 1;
  (void)!write(s->answered.wake_fd, &one, sizeof(one));
}

/* The socket is shut down, not closed: the thread may be about to accept from it. */
void tm__http_server_quiesce(tm_http_server *s) {
  if (atomic_exchange(&s->quiesced, true)) return;
  (void)shutdown(s->listen_fd, SHUT_RDWR);
  wake(s);
}

void tm__http_server_stop(tm_http_server *s) {
  if (s == NULL) return;
  tm__http_server_quiesce(s);
  atomic_store(&s->stopping, true);
  wake(s);
  (void)pthread_join(s->thread, NULL);
  release(s);
}
