/* retry.h - when an event that was not delivered is tried again, and when it is given up. */
#ifndef TM_OUTBOX_RETRY_H
#define TM_OUTBOX_RETRY_H

#include "core/buf.h"

/* ms until the next attempt, after `attempts` that failed: from 5 s, twice as long each time, up to
 * an hour, with a jitter that `id` decides. 0: those before took `give_up_ms`, and the event is as
 * old as that, it is given up. Time in which no host ran does not count; nor do attempts that were
 * short because their host died. */
int64_t tm__outbox_retry_ms(int attempts, int64_t age_ms, int64_t give_up_ms, tm_slice id);

#endif
