/* reseal.h - sealing anew, in the background: what is not sealed with the keys of today becomes so.
 *
 * For a change of keys, and for a store that was plain before. A thread of its own walks through
 * all conversations and sessions in small batches, remembers in the store how far it came, and ends
 * when all is done. Several hosts may do it at once: what they write means the same.
 */
#ifndef TM_KEEPING_RESEAL_H
#define TM_KEEPING_RESEAL_H

#include "storage/storage.h"

typedef struct tm_reseal tm_reseal;

typedef struct tm_reseal_options { /* all borrowed */
  tm_storage *storage;
  tm_codec *codec;
  const tm_log *log;
  size_t batch;     /* records rewritten at once; 0: 64 */
  int64_t retry_ms; /* after the store failed; 0: 5 s */
} tm_reseal_options;

/* *out is NULL when there can be nothing to do: no keys of before, and no plain records to accept.
 */
tm_status tm__reseal_start(tm_reseal **out, const tm_reseal_options *o, tm_error *err);
/* Ends it after the batch at hand; before the storage closes. NULL is allowed. */
void tm__reseal_stop(tm_reseal *r);

#endif
