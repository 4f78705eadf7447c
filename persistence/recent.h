/* recent.h - a head's recent keys as bytes, little-endian wherever they are written and read;
 * private to persistence/. */
#ifndef TM_PERSISTENCE_RECENT_H
#define TM_PERSISTENCE_RECENT_H

#include "persistence/store.h"

#define TM_RECENT_BYTES (TM_RECENT_KEYS * 3 * sizeof(uint64_t))

/* The keys without unused ones at the end, in `out`; `row_id`: what TM_THIS_ROW is. */
tm_slice tm__recent_encode(char out[TM_RECENT_BYTES], const tm_head *h, int64_t row_id);
/* Those that the bytes have; the others stay. False: the bytes are damaged. */
bool tm__recent_decode(tm_head *h, tm_slice bytes);

#endif
