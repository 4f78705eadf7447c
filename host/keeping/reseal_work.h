/* reseal_work.h - what the files of the walk share; private to it. */
#ifndef TM_KEEPING_RESEAL_WORK_H
#define TM_KEEPING_RESEAL_WORK_H

#include "keeping/reseal.h"
#include "keeping/reseal_note.h"

typedef enum tm_reseal_phase {
  TM_IN_ROWS,
  TM_IN_SESSIONS,
  TM_IN_EVENTS,
  TM_NEXT_TENANT
} tm_reseal_phase;

typedef struct tm_reseal_session {
  char tenant[65], id[129];
} tm_reseal_session;

typedef struct tm_reseal_batch {
  tm_store_job job;
  uv_sem_t done;
  struct tm_reseal *r;
  tm_row *rows;  /* of options.batch; their bodies lie in `bytes` */
  tm_buf *bytes; /* two more */
  tm_reseal_session *sessions;
  size_t count, size, looked;
  bool full;
} tm_reseal_batch;

struct tm_reseal {
  tm_reseal_options o;
  uv_thread_t thread;
  uv_mutex_t lock; /* of `stopping` */
  uv_cond_t wake;
  bool made, started, stopping;
  tm_reseal_note note;
  char tenant[65]; /* whose own store is at hand; "": the store of all */
  tm_reseal_phase phase;
  tm_head head; /* the conversation at hand */
  int64_t from; /* its row where to go on; 0: with the next conversation */
  bool at_end;
  tm_session_filter page;
  tm_reseal_session last, after; /* the newest one seen, and what the page begins behind */
  tm_outgoing_filter events;     /* where their next page begins */
  tm_buf scratch;
  uint64_t fingerprint; /* of the keys, and of what is to be sealed */
  size_t renewed, unreadable, keyless;
  unsigned tries;
  tm_error error; /* of the newest job that failed */
  tm_reseal_batch batch;
};

/* ---- reseal.c ---- */
/* Counts and tells what cannot be sealed anew. */
void tm__reseal_unreadable(tm_reseal *r, const tm_error *err);
void tm__reseal_not_renewed(tm_reseal *r, const tm_place *at, const tm_stored *stored,
                            const tm_error *err);

/* ---- reseal_sessions.c: jobs of a batch of sessions ---- */
tm_status tm__reseal_gather_sessions(tm_store_job *job, const tm_store_access *a, tm_error *err);
tm_status tm__reseal_write_sessions(tm_store_job *job, const tm_store_access *a, tm_error *err);

/* ---- reseal_events.c: the job of a batch of events, which looks and writes ---- */
tm_status tm__reseal_events(tm_store_job *job, const tm_store_access *a, tm_error *err);

#endif
