/* copy_lane.h - one conversation on its way from store to store: what is there already, which row
 * comes next. Rows are read in segments of bounded size; a walk goes from new to old, copying from
 * old to new, so the first walk notes where segments begin and ends with the one that is needed
 * first.
 */
#ifndef TM_KEEPING_COPY_LANE_H
#define TM_KEEPING_COPY_LANE_H

#include "keeping/copy_events.h"
#include "keeping/copy_walk.h"

#ifndef TM_COPY_SEGMENT_ROWS
#define TM_COPY_SEGMENT_ROWS 1024
#endif
#ifndef TM_COPY_SEGMENT_BYTES
#define TM_COPY_SEGMENT_BYTES ((size_t)256 << 10)
#endif

typedef struct tm_copy_row {
  tm_row row;  /* its body's pointer is set when the row is used */
  size_t body; /* where it begins in `bodies` */
} tm_copy_row;

typedef struct tm_copy_lane { /* zero-initialise */
  tm_head head;               /* the source's, read once */
  tm_copy_digests digests;
  /* the target's, as it is now */
  int64_t revision, tip; /* 0: none */
  int64_t floor;         /* revision of its newest row: up to here all is there */
  /* rows of the source above the floor */
  int64_t *segments; /* ids of the newest row of each, newest segment first; owned */
  size_t segment_count, segment_cap;
  tm_copy_row *rows; /* of the segment in memory, newest first; owned */
  size_t row_count, row_cap;
  tm_buf bodies;
  tm_copy_refs refs;
  uint64_t start_key; /* 0: none, or not known any more */
  tm_start_key start;
  tm_session session; /* of a conversation that is new there: made with it, in the same group */
  tm_buf session_text;
  bool has_session;
  int64_t newest_event; /* its revision in the source; 0: there is none */
  tm_copy_told told;    /* of the last row that is on its way */
  bool changed;         /* something was written */
  size_t prepared;      /* rows, the last of `rows`, that are on their way */
  bool over;            /* nothing is left to do */
} tm_copy_lane;

typedef enum tm_copy_state {
  TM_COPY_ROWS,  /* something is to be written */
  TM_COPY_THERE, /* the target has the revision of the source: compare */
  TM_COPY_MOVED, /* the target's conversation went on by itself */
} tm_copy_state;

/* Looks at both sides. lane->head is set. TM_ENOTFOUND: it has been purged meanwhile. TM_ECORRUPT
 * with *out TM_COPY_MOVED: the source can be read, but not what the target has. */
tm_status tm__copy_lane_open(const tm_copy *c, tm_copy_lane *lane, tm_copy_state *out,
                             tm_error *err);
/* Makes the next commit, with its row if it has one; only in state TM_COPY_ROWS. Without anything
 * on its way reads the next segment where one is used up. *made false: it needs to know ids that
 * those on their way will get. */
tm_status tm__copy_lane_next(const tm_copy *c, tm_copy_lane *lane, tm_commit *item, tm_row *row,
                             bool *made, tm_error *err);
/* After a commit was applied, in the order in which they were made; *done: it was the last. */
void tm__copy_lane_advance(tm_copy_lane *lane, const tm_commit *item, bool *done);
/* Does the target give back what the source has? Bodies that were sealed anew on one side since
 * they were copied are taken over again. TM_ECORRUPT "copy.differs". */
tm_status tm__copy_lane_verify(tm_copy *c, tm_copy_lane *lane, tm_error *err);
size_t tm__copy_lane_bytes(const tm_copy_lane *lane);
void tm__copy_lane_free(tm_copy_lane *lane); /* zeroed again; keeps no memory */

/* ---- for copy_bodies.c ---- */
bool tm__copy_lane_keep(tm_copy_lane *lane, const tm_row *row); /* false: out of memory */
bool tm__copy_lane_is_full(const tm_copy_lane *lane);
void tm__copy_lane_clear(tm_copy_lane *lane);
/* Writes all bodies of the source over those of the target, whose rows from `tip` on have the same
 * revisions; uses the lane's memory for rows. */
tm_status tm__copy_bodies(tm_copy *c, tm_copy_lane *lane, int64_t tip, tm_error *err);

/* Called with every row that is read: lets the caller stop. TM_ECANCELLED "copy.stopped". */
tm_status tm__copy_pause(const tm_copy *c, tm_error *err);

#endif
