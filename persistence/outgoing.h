/* outgoing.h - events read from a backend, kept until they may be given out: a statement or a lock
 * is not held while somebody looks at them. Private to persistence/.
 */
#ifndef TM_PERSISTENCE_OUTGOING_H
#define TM_PERSISTENCE_OUTGOING_H

#include "persistence/store.h"

struct sqlite3_stmt;

typedef struct tm_outgoing_batch { /* zero-initialise */
  tm_outgoing *items;              /* their bodies lie in `bytes`, one behind the other */
  size_t count, room;
  tm_buf bytes;
} tm_outgoing_batch;

tm_status tm__outgoing_add(tm_outgoing_batch *b, const tm_outgoing *event,
                           tm_error *err); /* copies */
tm_status tm__outgoing_give(const tm_outgoing_batch *b, tm_outgoing_fn fn, void *ud);
/* Adds all rows of `st`, which selects TM_OUTGOING_COLUMNS and is then reset. *rc: what its last
 * step gave. */
tm_status tm__outgoing_read(tm_outgoing_batch *b, struct sqlite3_stmt *st, int *rc, tm_error *err);
void tm__outgoing_free(tm_outgoing_batch *b); /* idempotent */

#endif
