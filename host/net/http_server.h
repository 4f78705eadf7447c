/* http_server.h - HTTP in: bytes and connections, nothing about conversations.
 *
 * One thread (libmicrohttpd, epoll). The handler is called there once a request has arrived whole
 * and within limits; the answer may be given at once or later, from any thread.
 */
#ifndef TM_NET_HTTP_SERVER_H
#define TM_NET_HTTP_SERVER_H

#include "core/buf.h"
#include "core/err.h"
#include "core/log.h"

typedef struct tm_http_server tm_http_server;
typedef struct tm_http_exchange tm_http_exchange;

typedef struct tm_http_options {
  const char *host; /* an address, or "localhost" */
  uint16_t port;    /* 0: any */
  size_t body_limit;
  size_t
      memory_limit;     /* bytes of bodies that have come and answers that have not gone, together;
                           a quarter more while answers come faster than the HTTP thread takes them */
  int connection_limit; /* over it who waits longest gives way, else the new one is answered 503 */
  int idle_timeout_s;   /* for the first line of a request to come, and for an answer to be taken */
  int request_timeout_s; /* from that line to the end of the request */
  const tm_log *log;     /* must outlive the server */
  /* HTTP thread. Must see to it that tm__http_reply is called exactly once. */
  void (*handler)(void *ud, tm_http_exchange *x);
  /* HTTP thread, for a request that is not passed on: 400 "request.target", "request.header",
   * "request.framing", 501 "request.transfer_encoding", 413 "body.too_large", 408
   * "request.timeout", 503 "host.stopping", "host.memory" or "server.busy". Must reply, in the
   * application's own shape, before it returns; only method, path and headers may be asked for. */
  void (*refuse)(void *ud, tm_http_exchange *x, int status, const char *code, const char *detail);
  int64_t (*now_us)(void *ud); /* a monotonic clock for the deadlines; NULL: the system's */
  void *ud;
} tm_http_options;

/* Copies the options. Errors: TM_EINVAL "server.address", TM_EIO "server.address_in_use",
 * "server.listen". */
tm_status tm__http_server_start(tm_http_server **out, const tm_http_options *o, tm_error *err);
uint16_t tm__http_server_port(const tm_http_server *s);
/* Accepts no more connections; those that exist are closed after their next answer. */
void tm__http_server_quiesce(tm_http_server *s);
/* Every tm__http_reply must have returned. Sends what is not sent yet for up to two seconds, then
 * frees; NULL allowed. */
void tm__http_server_stop(tm_http_server *s);

/* ---- within the handler (all borrowed until the reply) ---- */
tm_slice tm__http_method(const tm_http_exchange *x);
/* Decoded, without query, and without a NUL; %2F and %25 stay, a slash always parts. */
tm_slice tm__http_path(const tm_http_exchange *x);
tm_slice tm__http_body(const tm_http_exchange *x);
tm_slice tm__http_header(const tm_http_exchange *x, const char *name); /* ptr NULL: absent */
/* The first of up to 32 `names`, ended by NULL, that stands twice; NULL: none does. */
const char *tm__http_header_twice(const tm_http_exchange *x, const char *const *names);
tm_slice tm__http_query(const tm_http_exchange *x,
                        const char *name); /* decoded; ptr NULL: absent */
/* Calls fn for every name of the query, in order, until it returns false. */
void tm__http_query_names(const tm_http_exchange *x, bool (*fn)(void *ud, tm_slice name), void *ud);

/* Any thread. Copies the body. `extra` is NULL or "Name: value" lines ended by \n. */
void tm__http_reply(tm_http_exchange *x, int status, const char *content_type, tm_slice body,
                    const char *extra);

#endif
