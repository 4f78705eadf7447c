/* copy_walk.h - one pass over the rows of a conversation, newest first: its digest, and the rows
 * that undo rows and recent keys mean. In the digest revisions stand for ids, so that it is the
 * same in every store.
 */
#ifndef TM_KEEPING_COPY_WALK_H
#define TM_KEEPING_COPY_WALK_H

#include "keeping/copy.h"

typedef struct tm_copy_digests {
  uint8_t whole[TM_COPY_DIGEST];
  uint8_t shape[TM_COPY_DIGEST]; /* without the bodies: the same after they were sealed anew */
} tm_copy_digests;

typedef struct tm_copy_ref { /* a row that another one, or a key, means */
  int64_t id, revision;
  int64_t to; /* its id in the target; 0: not there yet */
} tm_copy_ref;

typedef struct tm_copy_refs { /* greatest id first */
  tm_copy_ref *items;         /* owned */
  size_t count, cap;
} tm_copy_refs;

/* Walks from head->tip. `fn` (or NULL) sees each row. `refs` (or NULL) is filled. TM_ENOTFOUND: the
 * conversation has been purged meanwhile; TM_ECORRUPT "journal.damaged": rows are missing. */
tm_status tm__copy_walk(const tm_copy_side *side, const tm_head *head, tm_row_fn fn, void *ud,
                        tm_copy_digests *digests, tm_copy_refs *refs, tm_error *err);

tm_copy_ref *tm__copy_ref(const tm_copy_refs *refs, int64_t id); /* NULL: nobody means it */
void tm__copy_refs_free(tm_copy_refs *refs);

#endif
