/* rates.h - how many turns may begin in a minute, on all hosts of a store together.
 *
 * A host takes them from the store in shares, each a part of what is left, so that most turns cost
 * no access to it; what it has is good until the minute ends. Any thread may call.
 */
#ifndef TM_JOURNAL_RATES_H
#define TM_JOURNAL_RATES_H

#include "core/err.h"
#include "storage/access.h"

typedef struct tm_rates tm_rates; /* of one host */
tm_rates *tm__rates_new(void);    /* NULL: out of memory */
void tm__rates_free(tm_rates *r); /* NULL is allowed */

typedef enum tm_rate {
  TM_RATE_TAKEN,
  TM_RATE_NONE, /* the minute has no more */
  TM_RATE_ASK   /* after tm__rates_fetch it may have */
} tm_rate;

/* One turn of what the host has. `who` is counted by itself, up to `most`; `now` is ms; *minute:
 * when it was taken, of which. */
tm_rate tm__rates_take(tm_rates *r, tm_slice who, int64_t most, int64_t now, int64_t *minute);
/* One that was taken, and nobody used. */
void tm__rates_return(tm_rates *r, tm_slice who, int64_t most, int64_t minute);
int64_t tm__rates_wait(int64_t now); /* ms until the minute is over; > 0 */

/* In a store job, on a writer's thread: a share for the host, unless it has one by now. */
tm_status tm__rates_fetch(tm_rates *r, const tm_store_access *a, tm_slice who, int64_t most,
                          int64_t now, tm_error *err);

#endif
