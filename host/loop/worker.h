/* worker.h - a thread with a libuv loop and an inbox of messages.
 *
 * Threads share nothing but messages: post one, and its `run` is called on the worker's thread, in
 * posting order. Knows nothing about conversations, Lua or HTTP.
 */
#ifndef TM_LOOP_WORKER_H
#define TM_LOOP_WORKER_H

#include <stdbool.h>
#include <uv.h>

#include "core/err.h"

typedef struct tm_worker tm_worker;

/* Embedded in what it carries; owned by whoever posted it until `run` is called, then by `run`. */
typedef struct tm_message {
  struct tm_message *next;
  void (*run)(struct tm_message *m);
} tm_message;

/* ---- a queue of messages, any number of writers, one reader ---- */
typedef struct tm_queue {
  uv_mutex_t lock;
  tm_message *first, *last;
  bool closed;
} tm_queue;

int tm__queue_init(tm_queue *q); /* 0, or a libuv error */
void tm__queue_deinit(tm_queue *q);
/* true when the queue was empty: the reader has to be woken; *ok false: closed, m not taken. */
bool tm__queue_push(tm_queue *q, tm_message *m, bool *ok);
bool tm__queue_push_locked(tm_queue *q, tm_message *m, bool *ok); /* the caller holds q->lock */
tm_message *tm__queue_take(tm_queue *q); /* everything, oldest first, linked by next; or NULL */
bool tm__queue_close(tm_queue *q);       /* takes nothing any more; false, and open, if not empty */

/* ---- workers ---- */
tm_status tm__worker_start(tm_worker **out, const char *name, tm_error *err);
uv_loop_t *tm__worker_loop(tm_worker *w);
bool tm__worker_here(const tm_worker *w); /* is the caller on its thread? */

/* Any thread, for as long as the worker exists. Never fails: messages posted while it stops are
 * still run before the thread ends. */
void tm__worker_post(tm_worker *w, tm_message *m);

/* Runs what is in the inbox until it stays empty, then ends the thread. Every handle that somebody
 * opened on the loop must have been closed by its owner (in a posted message) before. Call from
 * another thread; frees w. NULL is allowed. Returns how many timers were still armed and handles
 * still open: 0 when everybody has cleaned up. */
size_t tm__worker_stop(tm_worker *w);

/* Work that would hold up the loop: `work` runs on some other thread, then `done` on the
 * worker's. Embedded in what it carries, which must stay until `done`; a worker that stops waits
 * for it. Call on the worker's thread. */
typedef struct tm_beside {
  uv_work_t internal;
  void (*work)(struct tm_beside *b);
  void (*done)(struct tm_beside *b);
} tm_beside;
void tm__worker_beside(tm_worker *w, tm_beside *b);

/* One-shot timers on the loop, by id; call on the worker's thread. Where none runs, one can always
 * be started; a further one may want memory. They do not keep a worker that
 * stops from ending: what has not run by then never runs. */
typedef void (*tm_timer_fn)(void *ud);
tm_status tm__timer_start(tm_worker *w, uint64_t ms, tm_timer_fn fn, void *ud, uint64_t *id,
                          tm_error *err);
bool tm__timer_cancel(tm_worker *w, uint64_t id); /* false: unknown or already run */

#endif
