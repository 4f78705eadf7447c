/* copy_rest.h - what is copied beside conversations: scripts, sessions, notes; and what a mirror
 * removes. */
#ifndef TM_KEEPING_COPY_REST_H
#define TM_KEEPING_COPY_REST_H

#include "keeping/copy.h"

/* A conversation, session or script that could not be copied: counted and told. */
void tm__copy_failed(tm_copy *c, const char *conversation, tm_error *err);
/* Is it a fault of one record only, so that the others can be copied? */
bool tm__copy_is_local(tm_status status);

/* Adds the number of the source's conversations to counts.total. */
tm_status tm__copy_count(tm_copy *c, tm_error *err); /* copy.c */
tm_status tm__copy_scripts(tm_copy *c, tm_error *err);
tm_status tm__copy_sessions(tm_copy *c, tm_error *err);
/* What of the source is in no list, since it cannot be read: each a failure. *count: of them. */
tm_status tm__copy_unreadable(tm_copy *c, int64_t *count, tm_error *err);
tm_status tm__copy_notes(tm_copy *c, tm_error *err); /* the target's are of what it had before */
/* Removes the conversation from the target at once, and its rows. */
tm_status tm__copy_remove(tm_copy *c, tm_slice id, int64_t revision, tm_error *err);
/* Removes what the source does not have; `lost`: of sessions and events that cannot be told. */
tm_status tm__copy_mirror(tm_copy *c, bool lost, tm_error *err);

#endif
