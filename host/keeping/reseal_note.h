/* reseal_note.h - what the store remembers of sealing anew: the keys it was done with, and how far
 * it came. There is one note for all hosts of a store, so that one sees when another has other
 * keys.
 */
#ifndef TM_KEEPING_RESEAL_NOTE_H
#define TM_KEEPING_RESEAL_NOTE_H

#include "storage/access.h"

#define TM_RESEAL_DONE "done"

typedef struct tm_reseal_note {
  char keys[17];   /* says which keys this host has; set before the first use */
  int64_t begun;   /* ms; this walk */
  int64_t since;   /* ms; rows of before are known to be sealed with these keys; 0: none are */
  tm_buf progress; /* the walk's own words, TM_RESEAL_DONE at its end; freed by the caller */
  bool stands;     /* it is in the store */
  bool disturbed;  /* a host with other keys began to seal later than this walk */
} tm_reseal_note;

/* What is known of a walk with our keys; after one with others all begins anew. */
tm_status tm__reseal_note_read(tm_reseal_note *n, const tm_store_access *a, int64_t now,
                               tm_error *err);
/* Puts it there, unless another host's came meanwhile. With `over` the next walk begins anew. */
tm_status tm__reseal_note_write(tm_reseal_note *n, const tm_store_access *a, bool over,
                                tm_error *err);

#endif
