/* timer.h - a worker's one-shot timers: ids instead of pointers, handles used again. */
#ifndef TM_LOOP_TIMER_H
#define TM_LOOP_TIMER_H

#include "loop/worker.h"

typedef struct tm_timers {
  uv_loop_t *loop;
  struct tm_timer **all; /* by index; each stays where it is until the end */
  uint32_t count, cap;
  struct tm_timer *free; /* list of those that do not run */
} tm_timers;

void tm__timers_init(tm_timers *t, uv_loop_t *loop);
/* There is one to start; false: out of memory. */
bool tm__timers_reserve(tm_timers *t);
tm_status tm__timers_start(tm_timers *t, uint64_t ms, tm_timer_fn fn, void *ud, uint64_t *id,
                           tm_error *err);
bool tm__timers_cancel(tm_timers *t, uint64_t id);
/* Cancels all, says how many those were, and closes the handles; run the loop once more, then
 * deinit. */
size_t tm__timers_close(tm_timers *t);
void tm__timers_deinit(tm_timers *t);

#endif
