/* copy.h - everything of one store into another: conversations with all rows, sessions, scripts.
 *
 * Rows travel as they are, oldest first, in groups of commits; only their ids become those of the
 * other store. What has been copied stays: stopped anywhere, copying goes on from there when it is
 * started again. Each conversation is copied as it was when its head was read, and is compared by
 * digest with what the target gives back. The source may be in use meanwhile; what happened since
 * comes with the next run. Nobody serves a conversation in the target before it is complete.
 */
#ifndef TM_KEEPING_COPY_H
#define TM_KEEPING_COPY_H

#include "persistence/store.h"

#define TM_COPIER      "00000000-0000-7000-8000-636f70696572" /* who claims what is incomplete */
#define TM_COPY_DIGEST 32

typedef struct tm_copy_side {
  const tm_store_backend *backend;
  tm_store_conn *conn; /* of the target: a writer */
} tm_copy_side;

typedef struct tm_copy_counts {
  int64_t conversations, total; /* looked at; how many there were at the beginning */
  int64_t copied, rows;         /* of those: changed in the target; rows that were written */
  int64_t rewritten;            /* rows whose bodies were taken over again: sealed anew since */
  int64_t sessions;             /* looked at */
  int64_t scripts;              /* written */
  int64_t events;               /* looked at */
  int64_t removed; /* by `mirror` and `set_back`, and events that the source has delivered */
  int64_t failed;
} tm_copy_counts;

typedef struct tm_copy {
  /* in */
  tm_copy_side from, to;
  bool set_back; /* what went on in the target by itself is replaced instead of being an error */
  bool mirror;   /* what the source does not have is removed from the target */
  bool events;   /* only for tm__content_add(): it adds what is to be delivered, too */
  /* Called often, and where stopping is safe; false stops with TM_ECANCELLED. NULL: goes on. */
  bool (*go_on)(void *ud, const tm_copy_counts *now);
  /* One conversation (err->conversation_id), script or session could not be copied, or a record of
   * which not even that can be told; the others are. */
  void (*failed)(void *ud, const tm_error *err);
  void *ud;
  /* in and out: zero-initialise; several stores may be added up */
  tm_copy_counts counts;
  uint8_t digest[TM_COPY_DIGEST]; /* over the source's conversations in the order of their ids */
} tm_copy;

/* TM_OK also when some could not be copied: see counts.failed. Otherwise a store could not be read
 * or written, or TM_ECANCELLED "copy.stopped": what is there is good, run it again to go on. */
tm_status tm__store_copy(tm_copy *c, tm_error *err);

/* What the target has and the source does not: conversations that it does not know (`foreign`),
 * and of those it knows, how many are newer in the target (`ahead`). */
tm_status tm__store_compare(const tm_copy_side *from, const tm_copy_side *to, int64_t *foreign,
                            int64_t *ahead, tm_error *err);

/* ---- copy_content.c: the digest of everything in a store; a backup carries its own in a note ----
 */
/* Adds all of c->from, called `name`, to the digest: conversations with their rows, sessions,
 * scripts, events if `c` says so. Not start keys, which grow old by themselves. c->counts tells how
 * far it came. */
tm_status tm__content_add(tm_copy *c, tm_slice name, uint8_t digest[TM_COPY_DIGEST], tm_error *err);
/* Writes the note. */
tm_status tm__content_sign(const tm_copy_side *to, const uint8_t digest[TM_COPY_DIGEST],
                           tm_error *err);
/* Appends the note; nothing when there is none. */
tm_status tm__content_signed(const tm_copy_side *from, tm_buf *out, tm_error *err);
/* Is that digest one with events? Those of older programs are without. */
bool tm__content_has_events(const tm_buf *signed_);
bool tm__content_is(const tm_buf *signed_, const uint8_t digest[TM_COPY_DIGEST]);

#endif
