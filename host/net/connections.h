/* connections.h - deadlines of open connections, and a gentle end for some of them.
 *
 * libmicrohttpd's own timeout is reset by every byte, so a request that trickles would live for
 * ever: each connection has a deadline here. A connection that is closed while its client still
 * sends would be reset, and the client could lose the answer: it lingers for a moment, reading and
 * forgetting. One thread.
 */
#ifndef TM_NET_CONNECTIONS_H
#define TM_NET_CONNECTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct tm_connection {
  struct tm_connection *prev, *next;
  int fd;
  int64_t due_us;   /* on the monotonic clock; 0: none */
  void *request;    /* what is being received or answered; NULL: nothing */
  bool linger;      /* close gently */
  bool gone;        /* owned by this list alone: it lingers */
  size_t forgotten; /* bytes read while it lingers */
} tm_connection;

typedef struct tm_connections { /* zero-initialise */
  tm_connection *first;
  size_t lingering;
} tm_connections;

tm_connection *tm__connections_add(tm_connections *all, int fd, int64_t due_us); /* NULL: memory */
/* The owner of the socket is about to close it; `c` is freed now or when it has lingered. */
void tm__connections_closed(tm_connections *all, tm_connection *c, int64_t now_us);
/* Calls `late` for every connection that is over its deadline, and sets that to 0. */
void tm__connections_sweep(tm_connections *all, int64_t now_us,
                           void (*late)(void *ud, tm_connection *c), void *ud);
void tm__connections_linger(tm_connections *all,
                            int64_t now_us);    /* call often while lingering > 0 */
void tm__connections_free(tm_connections *all); /* ends those that linger */

#endif
