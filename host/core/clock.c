/* clock.c - the system's clocks. Nothing else takes the date from it; a store may wait by it. */
#include "core/clock.h"

#include <time.h>

static int64_t read_us(clockid_t id) {
  struct timespec t;
  (void)clock_gettime(id, &t);
  return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

int64_t tm__clock_now(const tm_clock *clock) {
  if (clock != NULL && clock->now != NULL) return clock->now(clock->ud);
  return read_us(CLOCK_REALTIME) / 1000;
}

int64_t tm__clock_monotonic_us(void) {
  return read_us(CLOCK_MONOTONIC);
}

int64_t tm__clock_thread_cpu_us(void) {
  return read_us(CLOCK_THREAD_CPUTIME_ID);
}
