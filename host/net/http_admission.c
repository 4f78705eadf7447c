/* http_admission.c - who gets in and who gives way: connections, descriptors, memory, deadlines.
 *
 * Whoever lets us wait longest gives way to whoever comes: a client that behaves is done in
 * moments, one that holds what it has is the oldest soon. Nobody gives way while we work for him.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/clock.h"
#include "net/http_thread.h"

#define ACCEPT_AT_ONCE 64
#define STILL_AT_ONCE  16
#define STILL_US       INT64_C(200000) /* between looks which bodies stand still */
#define GRACE_US       INT64_C(100000) /* nobody gives way before */
#define DEAF_US        INT64_C(10000)
#define LOOK_US        INT64_C(1000000) /* between looks who has hung up */

static const char busy[] = "server.busy";

int64_t tm__http_now_us(const tm_http_server *s) {
  return s->o.now_us != NULL ? s->o.now_us(s->o.ud) : tm__clock_monotonic_us();
}

/* ---- giving way ---- */

/* Its memory counts as free from now on; libmicrohttpd gives it back within this round. */
static void release(tm_http_server *s, tm_http_exchange *x) {
  tm__buf_free(&x->body);
  s->held -= x->held;
  x->held = 0;
}

static void give_way(tm_http_server *s, tm_connection *c) {
  tm_http_exchange *x = c->request;
  if (x != NULL && c->stage == TM_CONNECTION_RECEIVING)
    tm__http_refuse_raw(x, 503, busy,
                        "the server is busy and this request took longest to arrive; send it again "
                        "later");
  if (x != NULL) release(s, x);
  tm__connections_end(&s->connections, c, tm__http_now_us(s));
}

/* ---- memory ---- */

static tm_connection *oldest_holder(const tm_http_server *s, tm_connection_stage stage,
                                    const tm_http_exchange *but) {
  for (tm_connection *c = s->connections.stages[stage].oldest; c != NULL; c = c->newer) {
    const tm_http_exchange *x = c->request;
    if (x != NULL && x != but && x->held > 0) return c;
  }
  return NULL;
}

bool tm__http_make_room(tm_http_server *s, const tm_http_exchange *x, size_t size) {
  while (s->held + atomic_load(&s->answered.bytes) + size > s->o.memory_limit) {
    tm_connection *in = oldest_holder(s, TM_CONNECTION_RECEIVING, x);
    tm_connection *out = oldest_holder(s, TM_CONNECTION_SENDING, x);
    if (in == NULL && out == NULL) return false;
    give_way(s, in == NULL || (out != NULL && out->since_us <= in->since_us) ? out : in);
  }
  return true;
}

/* ---- deadlines ---- */

static void take_spare(tm_http_server *s) {
  if (s->spare_fd < 0 && tm__http_now_us(s) >= s->deaf_til_us)
    s->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void end_late(tm_http_server *s, tm_connection *c, const char *why) {
  tm_http_exchange *x = c->request;
  if (x != NULL && c->stage == TM_CONNECTION_RECEIVING)
    tm__http_refuse_raw(x, 408, "request.timeout", why);
  tm__connections_end(&s->connections, c, tm__http_now_us(s));
}

static void end_gone(tm_http_server *s) {
  int64_t now = tm__http_now_us(s);
  if (now < s->look_at_us) return;
  s->look_at_us = now + LOOK_US;
  tm__connections_end_gone(&s->connections, now, LOOK_US);
}

/* Is it a chunked body of which nothing has come since the last look? */
static bool stands_still(const tm_connection *c) {
  tm_http_exchange *x = c->request;
  if (x == NULL || x->step != TM_HTTP_BODY || !x->chunked) return false;
  size_t before = x->seen;
  x->seen = x->body.len;
  return before == x->body.len;
}

/* A chunk whose head never ends fills libmicrohttpd's buffer, which then looks through all of it in
 * every round, for nothing. One such client costs nothing worth a rule, a thousand would slow
 * everybody down: only the newest few may stand still. */
static void end_those_that_stand_still(tm_http_server *s) {
  int64_t now = tm__http_now_us(s);
  size_t still = 0;
  if (now < s->still_at_us) return;
  s->still_at_us = now + STILL_US;
  tm_connection *c = s->connections.stages[TM_CONNECTION_RECEIVING].newest;
  for (tm_connection *older; c != NULL; c = older) {
    older = c->older;
    if (stands_still(c) && ++still > STILL_AT_ONCE)
      end_late(s, c, "too many chunked bodies stand still, and this one has longest");
  }
}

void tm__http_sweep(tm_http_server *s) {
  tm_connection *c;
  char why[120];
  (void)snprintf(why, sizeof(why), "the request was not complete after %d seconds",
                 s->o.request_timeout_s);
  while ((c = tm__connections_late(&s->connections, tm__http_now_us(s))) != NULL)
    end_late(s, c, why);
  end_gone(s);
  end_those_that_stand_still(s);
  if (tm__connections_linger(&s->connections))
    tm__connections_forget(&s->connections, tm__http_now_us(s));
  take_spare(s);
}

/* ---- new connections ---- */

typedef enum room { ROOM, ROOM_SOON, NO_ROOM } room;

/* Takes the place of whoever lets us wait longest, unless that began only now. */
static room make_way(tm_http_server *s) {
  tm_connection *weakest = tm__connections_weakest(&s->connections);
  if (weakest == NULL) return NO_ROOM;
  if (tm__http_now_us(s) - weakest->since_us < GRACE_US) return ROOM_SOON;
  give_way(s, weakest);
  return ROOM;
}

static bool is_full(const tm_http_server *s) {
  return tm__connections_count(&s->connections) >= (size_t)s->o.connection_limit;
}

/* Nothing is accepted for a moment. The listening socket stays ready, so asking it again at once
 * would only burn time. */
static void go_deaf(tm_http_server *s) {
  s->deaf_til_us = tm__http_now_us(s) + DEAF_US;
}

/* A quick 503, without a place among the connections. */
static void say_busy(tm_http_server *s, int fd) {
  tm_connection link = {.fd = fd};
  tm_http_exchange x = {.server = s, .link = &link, .last = &s->quiesced};
  tm__http_refuse_raw(&x, 503, busy,
                      "every connection that is allowed is being answered; try again later");
}

static void turn_away(tm_http_server *s, int fd) {
  say_busy(s, fd);
  tm__connections_dismiss(&s->connections, fd, tm__http_now_us(s));
}

static int accept_one(const tm_http_server *s, struct sockaddr_storage *from, socklen_t *size) {
  *size = sizeof(*from);
  return accept4(s->listen_fd, (struct sockaddr *)(void *)from, size, SOCK_NONBLOCK | SOCK_CLOEXEC);
}

/* The spare descriptor, lent to one client. */
static bool turn_away_by_spare(tm_http_server *s) {
  struct sockaddr_storage from;
  socklen_t size;
  if (s->spare_fd < 0) return false;
  (void)close(s->spare_fd);
  int fd = accept_one(s, &from, &size);
  if (fd >= 0) {
    say_busy(s, fd);
    (void)close(fd);
  }
  s->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
  return fd >= 0;
}

/* No descriptor is left, and somebody waits. Who gives way frees one by the end of this round;
 * where nobody does, the spare one tells a client so. */
static void run_dry(tm_http_server *s) {
  room r = make_way(s);
  if (r == ROOM_SOON || (r == NO_ROOM && !turn_away_by_spare(s))) go_deaf(s);
}

static bool is_short(int error) {
  return error == EMFILE || error == ENFILE || error == ENOMEM || error == ENOBUFS;
}

/* false: no more for now. */
static bool welcome(tm_http_server *s, room r) {
  struct sockaddr_storage from;
  socklen_t size;
  int fd = accept_one(s, &from, &size);
  if (fd < 0) return errno == EINTR || errno == ECONNABORTED;
  s->busy = true;
  if (r == ROOM)
    (void)MHD_add_connection(s->daemon, fd, (struct sockaddr *)(void *)&from, size);
  else
    turn_away(s, fd);
  return true;
}

/* That somebody waits is known of the first one only: without descriptors Linux says EMFILE before
 * it looks, and a place should not be made for nobody. */
void tm__http_accept(tm_http_server *s) {
  room r = is_full(s) ? make_way(s) : ROOM;
  if (r == ROOM_SOON) {
    go_deaf(s);
    return;
  }
  errno = 0;
  bool more = welcome(s, r);
  if (!more && is_short(errno)) run_dry(s);
  for (int i = 1; more && i < ACCEPT_AT_ONCE && !is_full(s); i++)
    more = welcome(s, ROOM);
}
