/* retention.h - how long what is kept, as the configuration says.
 *
 * Nothing of an open conversation is ever removed. purge.h does it, janitor.h says when.
 */
#ifndef TM_KEEPING_RETENTION_H
#define TM_KEEPING_RETENTION_H

#include "journal/checkpoint.h"

typedef struct tm_session_rules { /* of a system; 0: no limit, never */
  int64_t idle_ms; /* a session without open conversations ends so long after the last of them */
  int64_t look_ms; /* a session is looked at again after so long at the earliest */
  int64_t most, tenant_most; /* open sessions, of the store and of a tenant */
  char prefix[65];           /* before generated ids */
} tm_session_rules;

typedef struct tm_retention { /* ms; 0: kept for ever */
  int64_t conversation_ms;    /* since it ended */
  tm_checkpoint_rules checkpoints;
  int64_t session_ms;        /* since it ended or was idle */
  int64_t dead_event_ms;     /* since it was given up */
  int64_t untold_ms;         /* since an event was due that nobody is to be told of: given up then;
                                0: somebody is, and gives up what he cannot deliver */
  int64_t cleanup_ms;        /* from one pass to the next */
  tm_session_rules sessions; /* where a system says nothing */
} tm_retention;

#endif
