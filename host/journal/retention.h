/* retention.h - what is removed when: the settings, the rule by which checkpoints are listed, what
 * becomes of a session, and one pass over the store that removes what is due.
 *
 * Nothing of an open conversation is ever removed. A pass is done in pieces, each a small store
 * job, so that others get in between; two hosts may do one at the same time.
 */
#ifndef TM_JOURNAL_RETENTION_H
#define TM_JOURNAL_RETENTION_H

#include "journal/access.h"
#include "journal/bundle.h"

struct tm_row_fields; /* slot.h */

/* ---- sessions ---- */
typedef struct tm_session_rules { /* of a system; 0: no limit, never */
  int64_t idle_ms; /* a session without open conversations ends so long after the last of them */
  int64_t look_ms; /* a session is looked at again after so long at the earliest */
  int64_t most, tenant_most; /* open sessions, of the store and of a tenant */
  char prefix[65];           /* before generated ids */
} tm_session_rules;
/* What the bundle's description says under "session_config", else what `defaults` has. */
tm_session_rules tm__session_rules(const tm_session_rules *defaults, const tm_bundle *b);

typedef struct tm_retention { /* ms; 0: kept for ever */
  int64_t conversation_ms;    /* since it ended */
  int64_t checkpoint_ms;      /* since it was made */
  int64_t checkpoints;        /* listed of one conversation; 0: all */
  int64_t session_ms;         /* since it ended or was idle */
  int64_t cleanup_ms;         /* from one pass to the next */
  tm_session_rules sessions;  /* where a system says nothing */
} tm_retention;

/* When a new session has to be looked at for the first time; 0: never. */
int64_t tm__session_first_look(const tm_retention *keep, const tm_session_rules *rules,
                               int64_t now);

/* ---- checkpoint.c: which rows are listed as checkpoints ---- */
typedef enum tm_listing {
  TM_NOT_LISTED,
  TM_LISTED,
  TM_LISTED_IF_LAST, /* too old or one too many, but listed when nothing older can be gone to */
} tm_listing;

typedef struct tm_checkpoints { /* a walk from the newest row along the bases; internal */
  int64_t since, most;          /* 0: no limit */
  int64_t seen;                 /* checkpoints passed */
  int allowed;                  /* answered prompts that the flow lets one go back; -1: not known */
  int passed;                   /* prompts passed */
  bool over;                    /* one was not listed: neither are older ones */
} tm_checkpoints;
/* `keep` NULL: everything is listed. */
tm_checkpoints tm__checkpoints(const tm_retention *keep, int64_t now);
/* The next row, each once. */
tm_listing tm__checkpoints_next(tm_checkpoints *c, const tm_row *row,
                                const struct tm_row_fields *f);
bool tm__checkpoints_done(const tm_checkpoints *c); /* nothing older is listed */
bool tm__is_waiting(tm_conversation_status status); /* for somebody */
bool tm__ends_waiting(const tm_row *row, const struct tm_row_fields *f);
bool tm__is_new_prompt(const tm_row *row,
                       const struct tm_row_fields *f); /* not one that is repeated */

/* ---- session.c: for use inside store jobs ---- */
typedef struct tm_session_look { /* what a session's conversations say about it */
  int64_t open;                  /* open conversations, counted up to the limit given */
  int64_t last;                  /* ms; the last activity that is known */
  char system[65];               /* of the newest conversation; "" */
} tm_session_look;
/* Of both stores. With `exactly`, for people, open ones count by their newest rows, and no more
 * than the newest 1024 conversations are looked at; else until `open_max` open ones are found. */
tm_status tm__session_look(tm_session_look *out, const tm_store_access *a, tm_slice tenant,
                           tm_slice id, int64_t open_max, bool exactly, tm_error *err);

typedef struct tm_kept_session { /* a session, out of the store's hands; bodies as they are stored
                                  */
  tm_session s;
  char tenant[65], id[129];
  tm_buf user_id, metadata;
} tm_kept_session;
/* Of k->tenant and k->id; TM_ENOTFOUND. */
tm_status tm__session_fetch(tm_kept_session *k, const tm_store_access *a, bool in_memory,
                            tm_error *err);
tm_status tm__session_put(const tm_store_access *a, bool in_memory, const tm_kept_session *k,
                          tm_error *err);
/* Writes k->s, which has ended; TM_ECONFLICT, and it stays open: a conversation of it is open. */
tm_status tm__session_put_end(const tm_store_access *a, bool in_memory, tm_kept_session *k,
                              tm_error *err);
void tm__session_release(tm_kept_session *k);

#define TM_OPEN_COUNTED 1000 /* open conversations of a session, for people */
/* Appends the session as the API shows it; TM_ENOTFOUND "session.not_found". */
tm_status tm__session_render(tm_buf *out, const tm_store_access *a, tm_slice tenant, tm_slice id,
                             tm_error *err); /* session_list.c */
tm_status tm__session_not_found(tm_slice id, tm_error *err);
/* Marks it as ended, in both stores, unless a conversation of it is open: TM_ECONFLICT. Writer. */
tm_status tm__session_end(const tm_store_access *a, const tm_retention *keep, tm_slice tenant,
                          tm_slice id, int64_t now, tm_error *err);

/* ---- purge.c: one pass ---- */
#define TM_PURGE_BATCH 16

typedef struct tm_session_key {
  char tenant[65], id[129];
} tm_session_key;

typedef enum tm_purge_stage {
  TM_PURGE_CONVERSATIONS,
  TM_PURGE_SESSIONS,
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
  int64_t conversations, sessions, sessions_ended;
  /* of the last piece: whose hot copies are worth nothing any more */
  char purged[TM_PURGE_BATCH][TM_ID_SIZE];
  size_t purged_count;
  /* internal */
  tm_purge_stage stage;
  char tenant[65]; /* whose store it is; "": the store of all */
  bool in_memory;  /* the store that is looked at; the configured one first */
  bool acts;       /* the batch was found and is to be acted upon */
  size_t head_count, count, at;
  tm_head heads[TM_PURGE_BATCH];
  tm_session_key keys[TM_PURGE_BATCH];
  int64_t before_created; /* where the next page of sessions starts */
  tm_session_key before;
  bool last_page;
} tm_purge;
bool tm__purge_writes(const tm_purge *p);        /* the next piece is for the writer */
const char *tm__purge_tenant(const tm_purge *p); /* and for the store of this tenant, or "" */
void tm__purge_skip(tm_purge *p); /* goes on with the next tenant: this one's store fails */
tm_status tm__purge_piece(tm_purge *p, const tm_store_access *a, tm_error *err);

#endif
