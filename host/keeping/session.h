/* session.h - a session is a name that conversations share: what they say about it, the rules of
 * its system, its end, and what people and programs are shown.
 */
#ifndef TM_KEEPING_SESSION_H
#define TM_KEEPING_SESSION_H

#include "journal/bundle.h"
#include "keeping/retention.h"
#include "storage/storage.h"

/* What the bundle's description says under "session_config", else what `defaults` has. */
tm_session_rules tm__session_rules(const tm_session_rules *defaults, const tm_bundle *b);
/* When a new session has to be looked at for the first time; 0: never. */
int64_t tm__session_first_look(const tm_retention *keep, const tm_session_rules *rules,
                               int64_t now);

/* ---- for use inside store jobs ---- */
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
  tm_session was; /* what is stored, as far as it is known; of the same texts */
  char tenant[65], id[129];
  tm_buf user_id, metadata;
} tm_kept_session;
/* Of k->tenant and k->id; TM_ENOTFOUND. */
tm_status tm__session_fetch(tm_kept_session *k, const tm_store_access *a, bool in_memory,
                            tm_error *err);
/* Writes k->s; TM_ECONFLICT: what is stored was changed meanwhile, and stays. */
tm_status tm__session_put(const tm_store_access *a, bool in_memory, tm_kept_session *k,
                          tm_error *err);
/* Likewise, of one that has ended; TM_ECONFLICT, and it stays open: a conversation of it is open
 * too. */
tm_status tm__session_put_end(const tm_store_access *a, bool in_memory, tm_kept_session *k,
                              tm_error *err);
void tm__session_release(tm_kept_session *k);

#define TM_OPEN_COUNTED 1000 /* open conversations of a session, for people */
/* Appends the session as the API shows it; TM_ENOTFOUND "session.not_found". */
tm_status tm__session_render(tm_buf *out, const tm_store_access *a, tm_slice tenant, tm_slice id,
                             tm_error *err);
tm_status tm__session_not_found(tm_slice id, tm_error *err);
/* Marks it as ended, in both stores, unless a conversation of it is open: TM_ECONFLICT. Writer. */
tm_status tm__session_end(const tm_store_access *a, const tm_retention *keep, tm_slice tenant,
                          tm_slice id, int64_t now, tm_error *err);

/* ---- session_list.c: each answers `fn` once, on a reader thread; arguments are copied ---- */
/* status NULL: any; else "open" or "ended". */
void tm__session_list(tm_storage *s, tm_slice tenant, const char *status, tm_slice cursor,
                      int limit, tm_reply_fn fn, void *ud);
void tm__session_show(tm_storage *s, tm_slice tenant, tm_slice id, tm_reply_fn fn, void *ud);

#endif
