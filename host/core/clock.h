/* clock.h - time is a function the host is given; nothing else asks the system for the date. */
#ifndef TM_CORE_CLOCK_H
#define TM_CORE_CLOCK_H

#include "tidemill.h"

typedef struct tm_clock {
  tm_clock_fn now; /* NULL: the system's */
  void *ud;
} tm_clock;

int64_t tm__clock_now(const tm_clock *clock); /* ms since 1970, UTC */
int64_t tm__clock_monotonic_us(void);         /* for measuring spans, never for deadlines */
int64_t tm__clock_thread_cpu_us(void);        /* CPU time of the calling thread */

#endif
