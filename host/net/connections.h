/* connections.h - what open connections are about: their deadlines, and who gives way to others.
 *
 * libmicrohttpd's own timeout is reset by every byte, so a request that trickles would live for
 * ever: here a connection may stay at a stage for so long and no longer. Each stage is a queue in
 * the order of arrival, so the first one is both the next to be late and the first to give way. A
 * connection that is closed while its client still sends would be reset, and the client could lose
 * the answer: it lingers for a moment, reading and forgetting. One thread; knows no HTTP.
 */
#ifndef TM_NET_CONNECTIONS_H
#define TM_NET_CONNECTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum tm_connection_stage {
  TM_CONNECTION_IDLE,      /* no request, or not the whole of its first line */
  TM_CONNECTION_RECEIVING, /* a request is arriving */
  TM_CONNECTION_WORKING,   /* it is being answered: stays as long as that takes */
  TM_CONNECTION_SENDING,   /* its answer is being taken */
  TM_CONNECTION_ENDING,    /* shut down; the owner of the socket will notice */
  TM_CONNECTION_LINGERING, /* owned by this list alone */
} tm_connection_stage;
#define TM_CONNECTION_STAGES 6

typedef struct tm_connection {
  struct tm_connection *older, *newer; /* at the same stage */
  tm_connection_stage stage;
  int64_t since_us; /* when that began */
  int fd;
  void *request;    /* what is being received or answered; NULL: nothing */
  bool linger;      /* close gently */
  size_t forgotten; /* bytes read while it lingers */
} tm_connection;

typedef struct tm_connection_queue {
  tm_connection *oldest, *newest;
  size_t count;
  int64_t patience_us; /* how long one may stay; 0: for ever */
} tm_connection_queue;

typedef struct tm_connections { /* zero-initialise, then set the patience of each stage */
  tm_connection_queue stages[TM_CONNECTION_STAGES];
} tm_connections;

tm_connection *tm__connections_add(tm_connections *all, int fd, int64_t now_us); /* NULL: memory */
void tm__connections_move(tm_connections *all, tm_connection *c, tm_connection_stage to,
                          int64_t now_us);
/* Shuts the socket down; its owner will notice. */
void tm__connections_end(tm_connections *all, tm_connection *c, int64_t now_us);
/* The owner of the socket is about to close it; `c` is freed now or when it has lingered. */
void tm__connections_closed(tm_connections *all, tm_connection *c, int64_t now_us);
/* Takes `fd` over, which was never added: closes it gently. */
void tm__connections_dismiss(tm_connections *all, int fd, int64_t now_us);
/* Those that take room: neither ending nor lingering. */
size_t tm__connections_count(const tm_connections *all);
/* One that is over its time; it must be ended before the next is asked for. NULL: none is. */
tm_connection *tm__connections_late(const tm_connections *all, int64_t now_us);
/* Ends those that have owed us the rest of a request for `wait_us` and have hung up: the owner of
 * the socket does not notice a hang-up that comes along with bytes. */
void tm__connections_end_gone(tm_connections *all, int64_t now_us, int64_t wait_us);
/* Who gives way: who has let us wait longest, idling, sending or taking; nobody who waits for our
 * answer. NULL: all do. */
tm_connection *tm__connections_weakest(const tm_connections *all);
bool tm__connections_linger(const tm_connections *all); /* does any? */
/* Reads from those that linger; call often while any does. */
void tm__connections_forget(tm_connections *all, int64_t now_us);
void tm__connections_free(tm_connections *all); /* ends those that linger */

#endif
