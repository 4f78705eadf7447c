/* http_request.c - a request from its first byte to the handler and to its answer, as libmicrohttpd
 * calls for it. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "net/http_framing.h"
#include "net/http_thread.h"

#define CONNECTION_BYTES (32U << 10) /* request line, headers and read buffer: more is 431 */
#define GROW_BYTES       4096U

void tm__http_refuse_raw(tm_http_exchange *x, int status, const char *code, const char *detail) {
  x->raw = true;
  x->step = TM_HTTP_DROPPED;
  x->link->linger = true;
  x->server->o.refuse(x->server->o.ud, x, status, code, detail);
}

static void enter(tm_http_exchange *x, tm_connection_stage stage) {
  tm_http_server *s = x->server;
  tm__connections_move(&s->connections, x->link, stage, tm__http_now_us(s));
}

/* What `x` keeps in memory now. */
static void hold(tm_http_exchange *x, size_t bytes) {
  x->server->held += bytes - x->held;
  x->held = bytes;
}

/* ---- step by step ---- */

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
  x->target_len = uri != NULL ? strlen(uri) : 0;
  x->bad_target = uri == NULL || strchr(uri, ' ') != NULL;
  x->server = s;
  x->connection = connection;
  x->link = link;
  x->last = &s->quiesced;
  x->answered = &s->answered;
  link->request = x;
  enter(x, TM_CONNECTION_RECEIVING);
  return x;
}

/* The answer is the HTTP thread's to count from now on. */
static void take_over(tm_http_exchange *x) {
  (void)atomic_fetch_sub(&x->answered->bytes, x->counted);
  x->counted = 0;
}

/* An answer that finds no room goes nonetheless: it is there already, and the next one gives way.
 */
static enum MHD_Result queue_answer(tm_http_exchange *x) {
  if (x->declined)
    x->server->o.refuse(x->server->o.ud, x, 503, "server.busy",
                        "the answers to other requests take all memory there is for them; try "
                        "again later");
  hold(x, 0);
  tm__buf_free(&x->body);
  take_over(x);
  if (x->response == NULL) return MHD_NO;
  (void)tm__http_make_room(x->server, x, x->size);
  hold(x, x->size);
  enum MHD_Result r = MHD_queue_response(x->connection, (unsigned)x->status, x->response);
  MHD_destroy_response(x->response);
  x->response = NULL;
  enter(x, TM_CONNECTION_SENDING);
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
  enter(x, TM_CONNECTION_WORKING);
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
  tm__http_refuse_raw(x, 413, "body.too_large", detail);
  return MHD_NO;
}

static void be_the_last(tm_http_exchange *x) {
  x->final = true;
  x->link->linger = true;
}

static enum MHD_Result malformed(tm_http_exchange *x, const tm_http_flaw *flaw) {
  be_the_last(x);
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
  x->chunked = tm__http_header(x, "Transfer-Encoding").ptr != NULL;
  x->seen = SIZE_MAX;
  tm_slice length = tm__http_header(x, "Content-Length");
  if (length.ptr != NULL && strtoull(length.ptr, NULL, 10) > s->o.body_limit)
    return too_large(x, false);
  return MHD_YES;
}

static enum MHD_Result on_body(tm_http_exchange *x, const char *data, size_t *size) {
  if (*size > x->server->o.body_limit - x->body.len) return too_large(x, true);
  if (!tm__http_make_room(x->server, x, *size)) {
    tm__http_refuse_raw(x, 503, "server.busy",
                        "the bodies of other requests take all memory there is for them; try again "
                        "later");
    return MHD_NO;
  }
  tm__buf_add(&x->body, data, *size);
  hold(x, x->body.len);
  *size = 0;
  if (tm__buf_ok(&x->body)) return MHD_YES;
  tm__http_refuse_raw(x, 503, "host.memory",
                      "out of memory: no room for the body; try again later");
  return MHD_NO;
}

/* libmicrohttpd takes chunks whose lines LF alone ends, with anything for extensions, and shows us
 * none of that. Another server before this one may see the end of such a body elsewhere: what
 * follows it is never read as a request. */
static enum MHD_Result on_request(void *cls, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *data,
                                  size_t *size, void **request) {
  tm_http_server *s = cls;
  tm_http_exchange *x = *request;
  tm_http_flaw flaw;
  (void)connection;
  s->busy = true;
  if (x == NULL || x->step == TM_HTTP_DROPPED) return MHD_NO;
  if (x->step == TM_HTTP_HEAD) return on_headers(x, method, url, version);
  if (x->step == TM_HTTP_HANDED) return settle(x);
  if (*size > 0) return on_body(x, data, size);
  if (!tm__http_framing_of_end(&flaw, x)) return malformed(x, &flaw);
  if (x->chunked) be_the_last(x);
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
  take_over(x);
  hold(x, 0);
  x->link->request = NULL;
  enter(x, TM_CONNECTION_IDLE);
  tm__buf_free(&x->body);
  free(x);
  *request = NULL;
}

static void on_connection(void *cls, struct MHD_Connection *connection, void **link,
                          enum MHD_ConnectionNotificationCode code) {
  tm_http_server *s = cls;
  s->busy = true;
  if (code == MHD_CONNECTION_NOTIFY_CLOSED) {
    if (*link != NULL) tm__connections_closed(&s->connections, *link, tm__http_now_us(s));
    *link = NULL;
    return;
  }
  const union MHD_ConnectionInfo *info =
      MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
  if (info != NULL)
    *link = tm__connections_add(&s->connections, info->connect_fd, tm__http_now_us(s));
}

/* ---- what libmicrohttpd asks for ---- */

static int hex(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  c = (char)(c | 0x20);
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* %HH in place, for the path and for each part of the query. What is no escape, %00, and in a path
 * %2F and %25, stays as it is: a slash that was encoded parts nothing. */
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
    bool escape = c != 0 && !(path && (c == '/' || c == '%'));
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

/* Without its own limit of connections, of which version 0.9.75 would lock itself up, without its
 * own listening socket and without its own timeouts: these are ours. */
struct MHD_Daemon *tm__http_daemon_start(tm_http_server *s) {
  const unsigned flags = MHD_USE_EPOLL | MHD_USE_ITC | MHD_ALLOW_SUSPEND_RESUME |
                         MHD_USE_ERROR_LOG | MHD_USE_NO_LISTEN_SOCKET;
  return MHD_start_daemon(
      flags, 0, NULL, NULL, on_request, s, MHD_OPTION_EXTERNAL_LOGGER, log_line, s,
      MHD_OPTION_STRICT_FOR_CLIENT, 0, MHD_OPTION_CONNECTION_LIMIT, UINT_MAX,
      MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_BYTES,
      MHD_OPTION_CONNECTION_MEMORY_INCREMENT, (size_t)GROW_BYTES, MHD_OPTION_URI_LOG_CALLBACK,
      on_request_line, s, MHD_OPTION_UNESCAPE_CALLBACK, unescape, s, MHD_OPTION_NOTIFY_COMPLETED,
      on_completed, s, MHD_OPTION_NOTIFY_CONNECTION, on_connection, s, MHD_OPTION_END);
}
