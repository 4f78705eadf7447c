/* timer.c - an id is index and generation, so an id that has run or was cancelled is never mistaken
 * for the timer that uses the handle next. */
#include "loop/timer.h"

#include <stdlib.h>

struct tm_timer {
  uv_timer_t handle;
  tm_timers *owner;
  struct tm_timer *next_free;
  uint32_t index, generation; /* generation 0 is never used, so no id is 0 */
  bool running;
  tm_timer_fn fn;
  void *ud;
};

void tm__timers_init(tm_timers *t, uv_loop_t *loop) {
  *t = (tm_timers){.loop = loop};
}

static void release(struct tm_timer *timer) {
  timer->running = false;
  timer->next_free = timer->owner->free;
  timer->owner->free = timer;
}

static bool make_slot(tm_timers *t) {
  if (t->count < t->cap) return true;
  uint32_t cap = t->cap == 0 ? 16 : t->cap * 2;
  struct tm_timer **all = cap > t->cap ? realloc(t->all, cap * sizeof(struct tm_timer *)) : NULL;
  if (all == NULL) return false;
  t->all = all;
  t->cap = cap;
  return true;
}

static bool add_timer(tm_timers *t) {
  if (!make_slot(t)) return false;
  struct tm_timer *timer = calloc(1, sizeof(*timer));
  if (timer == NULL) return false;
  (void)uv_timer_init(t->loop, &timer->handle); /* cannot fail */
  uv_unref((uv_handle_t *)&timer->handle);      /* the inbox keeps the loop alive, not a timer */
  timer->handle.data = timer;
  timer->owner = t;
  timer->index = t->count;
  t->all[t->count++] = timer;
  release(timer);
  return true;
}

bool tm__timers_reserve(tm_timers *t) {
  return t->free != NULL || add_timer(t);
}

static void on_timer(uv_timer_t *handle) {
  struct tm_timer *timer = handle->data;
  tm_timer_fn fn = timer->fn;
  void *ud = timer->ud;
  release(timer);
  fn(ud);
}

tm_status tm__timers_start(tm_timers *t, uint64_t ms, tm_timer_fn fn, void *ud, uint64_t *id,
                           tm_error *err) {
  if (!tm__timers_reserve(t)) return tm__fail_memory(err, "a timer");
  struct tm_timer *timer = t->free;
  /* From now, not from when the loop last looked; and never at once, so that a timer which starts
   * the next one cannot keep the loop from everything else. */
  uv_update_time(t->loop);
  int failed = uv_timer_start(&timer->handle, on_timer, ms == 0 ? 1 : ms, 0);
  if (failed != 0) {
    return tm__fail(err, TM_EUNAVAILABLE, "timer.start", "start a timer: %s", uv_strerror(failed));
  }
  t->free = timer->next_free;
  timer->running = true;
  timer->fn = fn;
  timer->ud = ud;
  if (++timer->generation == 0) timer->generation = 1;
  *id = (uint64_t)timer->generation << 32 | timer->index;
  return TM_OK;
}

bool tm__timers_cancel(tm_timers *t, uint64_t id) {
  uint32_t index = (uint32_t)id;
  if (index >= t->count) return false;
  struct tm_timer *timer = t->all[index];
  if (!timer->running || timer->generation != id >> 32) return false;
  (void)uv_timer_stop(&timer->handle);
  release(timer);
  return true;
}

size_t tm__timers_close(tm_timers *t) {
  size_t armed = 0;
  for (uint32_t i = 0; i < t->count; i++) {
    armed += t->all[i]->running;
    uv_close((uv_handle_t *)&t->all[i]->handle, NULL);
  }
  return armed;
}

void tm__timers_deinit(tm_timers *t) {
  for (uint32_t i = 0; i < t->count; i++) {
    free(t->all[i]);
  }
  free(t->all);
  *t = (tm_timers){0};
}
