/* purge.h - one pass over the stores that removes what is due.
 *
 * A pass is done in pieces, each a small store job, so that others get in between; two hosts may do
 * one at the same time.
 */
#ifndef TM_KEEPING_PURGE_H
#define TM_KEEPING_PURGE_H

#include "journal/bundle.h"
#include "keeping/retention.h"

#define TM_PURGE_BATCH 16

typedef struct tm_session_key {
  char tenant[65], id[129];
} tm_session_key;

typedef enum tm_purge_stage {
  TM_PURGE_CONVERSATIONS,
  TM_PURGE_SESSIONS,
  TM_PURGE_EVENTS, /* that were given up */
  TM_PURGE_UNTOLD, /* events that nobody is to be told of are given up */
  TM_PURGE_SWEEP,
  TM_PURGE_TENANT, /* the next one with a store of his own */
  TM_PURGE_DONE,
} tm_purge_stage;

typedef struct tm_purge { /* zero-initialise with the first members */
  const tm_retention *keep;
  tm_registry *registry; /* NULL: no system has rules of its own */
  int64_t now;
  bool dry;          /* only counts */
  bool all_sessions; /* looks at each; else at those that are due */
  bool sessions_only;
  bool isolated; /* each tenant has a store of its own: all of them, one after the other */
  /* counts */
  int64_t conversations, sessions, sessions_ended, events, given_up;
  /* of the last piece: whose hot copies are worth nothing any more */
  char purged[TM_PURGE_BATCH][TM_ID_SIZE];
  size_t purged_count;
  /* internal */
  tm_purge_stage stage;
  char tenant[65]; /* whose store it is; "": the store of all */
  bool in_memory;  /* the store that is looked at; the configured one first */
  bool acts;       /* the batch was found and is to be acted upon */
  size_t head_count, count, at, event_count, seen;
  const tm_store_access *access; /* of the piece at hand */
  tm_head heads[TM_PURGE_BATCH];
  tm_session_key keys[TM_PURGE_BATCH];
  tm_outgoing events_found[TM_PURGE_BATCH];
  tm_outgoing before_event; /* where the next page of events starts */
  int64_t before_created;   /* where the next page of sessions starts: */
  tm_session_key before;    /* id "": it is the first */
  bool last_page;
} tm_purge;
bool tm__purge_writes(const tm_purge *p);        /* the next piece is for the writer */
const char *tm__purge_tenant(const tm_purge *p); /* and for the store of this tenant, or "" */
void tm__purge_skip(tm_purge *p); /* goes on with the next tenant: this one's store fails */
tm_status tm__purge_piece(tm_purge *p, const tm_store_access *a, tm_error *err);

#endif
