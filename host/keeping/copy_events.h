/* copy_events.h - events that are to be delivered: each goes over in the commit of its row, so that
 * the target has it once. From then on one that a store has no more was delivered by it.
 */
#ifndef TM_KEEPING_COPY_EVENTS_H
#define TM_KEEPING_COPY_EVENTS_H

#include "keeping/copy.h"

typedef struct tm_copy_told { /* the events of one row; zero-initialise */
  tm_outgoing *items;         /* in their order; those that are dead come later */
  size_t count, room;
  tm_buf bodies;
} tm_copy_told;

/* The revision of the newest of a conversation of the source; 0: it has none. */
tm_status tm__copy_newest_event(const tm_copy *c, const char *conversation, int64_t *out,
                                tm_error *err);
/* Reads those of the row of that revision. */
tm_status tm__copy_told_read(tm_copy_told *t, const tm_copy *c, const char *conversation,
                             int64_t revision, tm_error *err);
void tm__copy_told_free(tm_copy_told *t);

/* What became of them in the source: attempts, and which were given up. What the target has not, it
 * has delivered; a mirror has it nevertheless. */
tm_status tm__copy_events(tm_copy *c, tm_error *err);
/* Those that the source has delivered go from the target, but for conversations that went on there
 * by themselves; from a mirror all that the source does not have. */
tm_status tm__copy_delivered(tm_copy *c, tm_error *err);

#endif
