/* http_server.c - the HTTP thread: libmicrohttpd run by epoll, its start, its rounds, its end.
 *
 * The thread is ours: connections are accepted and deadlines swept in it without a lock, and
 * answers from other threads come back through one list, so that many of them cost one wake-up.
 */
#include "net/http_server.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/clock.h"
#include "net/http_thread.h"
#include "net/listen.h"

#define TICK_MS       1000
#define SHORT_TICK_MS 10
#define FLUSH_US      INT64_C(2000000)
#define IDLE_ROUNDS   16
#define PACE_MS       10

/* ---- life ---- */

static bool start_daemon(tm_http_server *s) {
  s->daemon = tm__http_daemon_start(s);
  if (s->daemon == NULL) return false;
  const union MHD_DaemonInfo *info = MHD_get_daemon_info(s->daemon, MHD_DAEMON_INFO_EPOLL_FD);
  s->epoll_fd = info != NULL ? info->epoll_fd : -1;
  s->answered.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  return s->epoll_fd >= 0 && s->answered.wake_fd >= 0;
}

/* Nothing more is accepted once quiesced: a socket that was shut down would wake us for ever. */
static bool is_listening(const tm_http_server *s) {
  return !atomic_load_explicit(&s->quiesced, memory_order_relaxed);
}

static bool is_deaf(const tm_http_server *s) {
  return tm__http_now_us(s) < s->deaf_til_us;
}

/* Milliseconds until something must be done even if nothing happens. libmicrohttpd asks to be
 * called again at once for as long as a request fills its buffer and cannot go on: that gets a
 * pace, not the processor. */
static int wait_ms(const tm_http_server *s) {
  unsigned long long left;
  int tick = is_deaf(s) || tm__connections_linger(&s->connections) ? SHORT_TICK_MS : TICK_MS;
  bool limited = MHD_get_timeout(s->daemon, &left) == MHD_YES;
  if (limited && left == 0 && s->idle_rounds > IDLE_ROUNDS) return PACE_MS;
  return limited && left < (unsigned long long)tick ? (int)left : tick;
}

/* true: there is somebody to accept. */
static bool wait_for_events(const tm_http_server *s, int timeout_ms) {
  bool open = is_listening(s) && !is_deaf(s);
  struct pollfd fds[] = {{s->epoll_fd, POLLIN, 0},
                         {s->answered.wake_fd, POLLIN, 0},
                         {open ? s->listen_fd : -1, POLLIN, 0}};
  uint64_t count;
  if (poll(fds, 3, timeout_ms) <= 0) return false;
  if (fds[1].revents != 0) (void)!read(s->answered.wake_fd, &count, sizeof(count));
  return fds[2].revents != 0;
}

static void resume_answered(tm_http_server *s) {
  tm_http_exchange *x = atomic_exchange(&s->answered.first, NULL);
  if (x != NULL) s->busy = true;
  for (tm_http_exchange *next; x != NULL; x = next) {
    next = x->next;
    MHD_resume_connection(x->connection);
  }
}

static void turn(tm_http_server *s) {
  if (wait_for_events(s, wait_ms(s)) && is_listening(s)) tm__http_accept(s);
  resume_answered(s);
  (void)MHD_run(s->daemon);
  s->idle_rounds = s->busy ? 0 : s->idle_rounds + 1;
  s->busy = false;
  tm__http_sweep(s);
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

static void close_fd(int fd) {
  if (fd >= 0) (void)close(fd);
}

static void release(tm_http_server *s) {
  if (s->daemon != NULL) MHD_stop_daemon(s->daemon);
  close_fd(s->listen_fd);
  close_fd(s->spare_fd);
  close_fd(s->answered.wake_fd);
  tm__connections_free(&s->connections);
  free(s);
}

static int64_t seconds(int s) {
  return (int64_t)s * 1000000;
}

static void set_patience(tm_http_server *s) {
  tm_connection_queue *stages = s->connections.stages;
  stages[TM_CONNECTION_IDLE].patience_us = seconds(s->o.idle_timeout_s);
  stages[TM_CONNECTION_RECEIVING].patience_us = seconds(s->o.request_timeout_s);
  stages[TM_CONNECTION_SENDING].patience_us = seconds(s->o.idle_timeout_s);
}

tm_status tm__http_server_start(tm_http_server **out, const tm_http_options *o, tm_error *err) {
  *out = NULL;
  tm_http_server *s = calloc(1, sizeof(*s));
  if (s == NULL) return tm__fail_memory(err, "the HTTP server");
  s->o = *o;
  s->listen_fd = s->answered.wake_fd = -1;
  s->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
  s->answered.limit = o->memory_limit / 4;
  set_patience(s);
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
