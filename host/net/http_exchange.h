/* http_exchange.h - one request and its answer, as http_server.c and http_exchange.c share it. */
#ifndef TM_NET_HTTP_EXCHANGE_H
#define TM_NET_HTTP_EXCHANGE_H

#include <microhttpd.h>
#include <stdatomic.h>

#include "net/connections.h"
#include "net/http_server.h"

typedef enum tm_http_step {                  /* HTTP thread only */
                            TM_HTTP_HEAD,    /* the request line is there, headers are being read */
                            TM_HTTP_BODY,    /* headers are there, the body is being read */
                            TM_HTTP_HANDED,  /* the handler has it, or had it */
                            TM_HTTP_DROPPED, /* refused on the raw socket: nothing more may come of
                                                it */
} tm_http_step;

typedef enum tm_http_state { TM_HTTP_OPEN, TM_HTTP_SUSPENDED, TM_HTTP_ANSWERED } tm_http_state;

/* Exchanges that were suspended and are answered now, on their way back to the HTTP thread. */
typedef struct tm_http_answered {
  _Atomic(tm_http_exchange *) first; /* newest first, linked by `next` */
  int wake_fd;                       /* an eventfd */
  atomic_size_t bytes; /* of all answers that the HTTP thread has not taken over yet */
  size_t limit;        /* of these bytes */
} tm_http_answered;

/* Lives from the request line until libmicrohttpd has completed the request. That cannot happen
 * between suspension and reply, so whoever replies may touch it until `state` is ANSWERED. */
struct tm_http_exchange {
  tm_http_server *server;
  struct MHD_Connection *connection;
  tm_connection *link;
  const char *method, *path; /* of libmicrohttpd; NULL before the headers are there */
  const char *target;        /* where the path will stand, decoded; until the headers are there */
  size_t target_len;         /* before it was decoded, with the query */
  bool bad_target;           /* the address is malformed */
  tm_buf body;
  bool chunked;
  size_t seen; /* how much of a chunked body was there at the last look; SIZE_MAX: none yet */
  tm_http_step step;
  bool raw;                   /* reply by writing to the socket at once */
  bool yielded;               /* libmicrohttpd was given one more round before suspension */
  bool final;                 /* the connection is closed after this answer */
  const atomic_bool *last;    /* true: so it is, because the server stops */
  tm_http_answered *answered; /* where to go when answered while suspended */
  tm_http_exchange *next;
  size_t held; /* bytes of body or answer that count against the memory limit; HTTP thread */
  struct MHD_Response *response; /* written before `state` becomes ANSWERED; NULL: out of memory */
  int status;
  size_t size;    /* of the response's body */
  size_t counted; /* of it, in `answered->bytes` */
  bool declined;  /* the answer found no room: the HTTP thread says so instead */
  _Atomic tm_http_state state;
};

#endif
