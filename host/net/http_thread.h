/* http_thread.h - the HTTP thread's own: what http_server.c (its life), http_request.c (a request
 * from first byte to handler) and http_admission.c (who gets in, who gives way) share.
 */
#ifndef TM_NET_HTTP_THREAD_H
#define TM_NET_HTTP_THREAD_H

#include <pthread.h>

#include "net/http_exchange.h"

struct tm_http_server { /* HTTP thread only once it runs, but for `answered` and the last line */
  tm_http_options o;
  char host[64];
  struct MHD_Daemon *daemon;
  int epoll_fd;        /* the daemon's */
  int listen_fd;       /* stays open till the end */
  int spare_fd;        /* given up to answer clients when descriptors have run out; -1: gone */
  int64_t deaf_til_us; /* accepts nothing before */
  int64_t look_at_us;  /* when to look next who has hung up */
  int64_t still_at_us; /* when to look next which bodies stand still */
  uint16_t port;
  pthread_t thread;
  tm_http_answered answered;
  tm_connections connections;
  size_t held;          /* bytes of bodies and answers */
  size_t handed;        /* exchanges between handler and completion */
  bool busy;            /* something happened in this round */
  unsigned idle_rounds; /* rounds since something happened */
  atomic_bool quiesced, stopping;
};

int64_t tm__http_now_us(const tm_http_server *s);

/* ---- http_request.c ---- */

/* libmicrohttpd with what it calls for requests; NULL: it cannot start, errno says why. */
struct MHD_Daemon *tm__http_daemon_start(tm_http_server *s);
/* Answers past libmicrohttpd on the raw socket, which must not be written to by others: one try,
 * its buffer is empty and the connection ends anyway. */
void tm__http_refuse_raw(tm_http_exchange *x, int status, const char *code, const char *detail);

/* ---- http_admission.c ---- */

/* Takes new connections from the listening socket, on which somebody waits. */
void tm__http_accept(tm_http_server *s);
/* Makes room for `size` more bytes of a body or an answer of `x`. false: those that hold the memory
 * cannot give way. */
bool tm__http_make_room(tm_http_server *s, const tm_http_exchange *x, size_t size);
/* Ends what is over its deadline or has lingered; takes the spare descriptor back. */
void tm__http_sweep(tm_http_server *s);

#endif
