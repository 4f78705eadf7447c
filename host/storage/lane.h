/* lane.h - what waits for a thread of the store: a lock, two queues of messages, a way to wait. */
#ifndef TM_STORAGE_LANE_H
#define TM_STORAGE_LANE_H

#include <uv.h>

#include "core/err.h"
#include "loop/worker.h"

typedef struct tm_lane_queue {
  tm_message *first, *last;
} tm_lane_queue;

typedef struct tm_lane {
  uv_mutex_t lock;
  uv_cond_t wake;
  tm_lane_queue commits, jobs; /* under the lock */
  bool busy;                   /* under the lock: its thread is at work */
  tm_error away;               /* under the lock: why that waits for a server; TM_OK: it does not */
  bool closing, made;
} tm_lane;

tm_status tm__lane_init(tm_lane *l, tm_error *err);
void tm__lane_deinit(tm_lane *l); /* one that was not made is allowed */
void tm__lane_close(tm_lane *l);  /* whoever waits is told once the queues are empty; any thread */
/* false: it was not added, since nobody knows when its turn would come: *away. NULL: it waits.
 * Any thread. */
bool tm__lane_add(tm_lane *l, tm_lane_queue *to, tm_message *m, tm_error *away);
/* The server went away (why), or is back (NULL). What waits behind work that may wait for it is
 * taken out. Any thread. */
void tm__lane_note(tm_lane *l, const tm_error *why, tm_lane_queue *commits, tm_lane_queue *jobs);

/* ---- under the lock ---- */
tm_message *tm__lane_pop(tm_lane_queue *q); /* NULL: it is empty */
/* For something to do, at most `ms`; 0: for ever. false: there is nothing, and it is closed. */
bool tm__lane_wait(tm_lane *l, int64_t ms);

#endif
