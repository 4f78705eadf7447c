/* list.h - events that were not delivered, for people and programs: a page of them, newest first,
 * and one that was given up, to be tried again. Each answers `fn` once, on a thread of the storage;
 * arguments are copied.
 */
#ifndef TM_OUTBOX_LIST_H
#define TM_OUTBOX_LIST_H

#include "storage/storage.h"
#include "tidemill.h"

/* status NULL: any; else "pending" or "dead". */
void tm__outbox_list(tm_storage *s, tm_slice tenant, const char *status, tm_slice cursor, int limit,
                     tm_reply_fn fn, void *ud);
/* It is due `now`, unless others of its conversation are before it, and its attempts count anew.
 * Answers with the event; TM_ECONFLICT "outbox.pending": it is not given up. */
void tm__outbox_retry(tm_storage *s, tm_slice tenant, tm_slice id, int64_t now, tm_reply_fn fn,
                      void *ud);

#endif
