/* store_memory.h - what the files of the store in memory share; private to persistence/.
 *
 * store_memory.c        life, heads, rows, lists, deadlines, start keys
 * store_memory_write.c  commits, what goes
 * store_memory_sets.c   sessions, scripts, notes, tenants
 * store_memory_outbox.c events to be delivered
 *
 * One lock guards all. What a walk lends is not freed while any walk is under way: it waits among
 * the leftovers, which are out of every set.
 */
#ifndef TM_PERSISTENCE_STORE_MEMORY_H
#define TM_PERSISTENCE_STORE_MEMORY_H

#include <pthread.h>

#include "persistence/named_text.h"
#include "persistence/store.h"

typedef struct tm_leftover { /* first member of what may be lent */
  struct tm_leftover *next;
} tm_leftover;

typedef struct tm_body_record {
  tm_leftover leftover;
  char bytes[];
} tm_body_record;

typedef struct tm_row_record {
  tm_order_node by_id;          /* id, "" */
  struct tm_row_record *before; /* the conversation's row before it */
  tm_body_record *body;
  tm_row row;
} tm_row_record;

typedef struct tm_key_record { /* of a start */
  tm_order_node by_key;        /* key, tenant */
  tm_order_node by_age;        /* created, conversation */
  struct tm_head_record *head;
  uint64_t body;
  int64_t answer;
} tm_key_record;

/* "tenant NUL session" */
typedef struct tm_session_name {
  char text[65 + 129];
  size_t len;
} tm_session_name;

typedef struct tm_head_record {
  tm_order_node by_id;      /* 0, id */
  tm_order_node by_due;     /* wake_at, id; in the set while wake_at > 0 */
  tm_order_node by_over;    /* in which order they ended, id */
  tm_order_node by_end;     /* ended, id */
  tm_order_node by_session; /* 0, name NUL id */
  tm_key_record *key;       /* NULL: started without one, or it is forgotten */
  tm_row_record *newest;
  tm_head head;
  bool in_over, in_end; /* it is over, ended > 0, and no event of it waits: it is in the set */
  char session_name[65 + 129 + TM_ID_SIZE];
} tm_head_record;

typedef struct tm_session_record { /* replaced when it changes in more than numbers */
  tm_leftover leftover;
  tm_order_node by_name; /* 0, "tenant NUL id" */
  tm_order_node by_age;  /* created, "id NUL tenant" */
  tm_order_node by_look; /* look_at, "tenant NUL id"; in the set while look_at > 0 */
  size_t size;           /* of the block */
  tm_session session;    /* its texts are in `bytes` */
  char bytes[];          /* "tenant NUL id NUL tenant", user_id, metadata */
} tm_session_record;

/* "conversation NUL revision index", which sorts as they do */
typedef struct tm_event_name {
  char text[TM_ID_SIZE + 16 + 8 + 1];
  size_t len;
} tm_event_name;

typedef struct tm_event_record { /* replaced when its body changes */
  tm_leftover leftover;
  tm_order_node by_name; /* 0, name */
  tm_order_node by_due;  /* due_at, conversation; in the set while due_at > 0 */
  tm_event_name name;
  tm_outgoing event; /* its body is in `bytes` */
  char bytes[];
} tm_event_record;

typedef struct tm_tenant_record {
  tm_order_node by_name; /* 0, name */
  tm_order_node by_wake; /* wake_at, name; in the set while wake_at > 0 */
  int64_t sessions, wake_at;
  bool listed; /* among the tenants with stores of their own */
  size_t len;
  char name[];
} tm_tenant_record;

struct tm_store {
  pthread_mutex_t lock;
  tm_order heads, due, over, ended, in_session, keys, key_ages, rows;
  tm_order sessions, session_ages, session_looks, tenants, tenant_wakes;
  tm_order events, events_due;
  tm_order scripts, notes;   /* of tm_named_text */
  tm_row_record *purged;     /* rows of conversations that are gone, by `before` */
  tm_leftover *leftovers;    /* to be freed when nobody walks */
  int64_t newest_row, overs; /* how many there were */
  int64_t sessions_open;
  size_t walks;            /* under way, without the lock */
  size_t bytes, bytes_max; /* held by conversations and sessions; 0: no limit */
  size_t record_bytes_max;
  int64_t (*now_ms)(void *ud);
  void *now_ud;
};

struct tm_store_conn {
  tm_store *store;
};

#define TM_RECORD(type, member, node) ((type *)(void *)((char *)(node)-offsetof(type, member)))

tm_status tm__memory_not_found(tm_error *err, const char *what);
void tm__memory_lock(tm_store *s);
void tm__memory_unlock(tm_store *s);
/* What is lent between the two stays as it is. */
void tm__memory_begin_walk(tm_store *s);
void tm__memory_end_walk(tm_store *s);

/* ---- under the lock ---- */
tm_head_record *tm__memory_find_head(const tm_store *s, tm_slice id);
tm_row_record *tm__memory_find_row(const tm_store *s, int64_t id);
tm_key_record *tm__memory_find_key(const tm_store *s, tm_slice tenant, uint64_t key);
bool tm__memory_key_is_old(const tm_key_record *k, int64_t now);
/* Takes it out of the sets, rows included; frees what nobody can hold. `rows`: frees those too. */
void tm__memory_remove(tm_store *s, tm_head_record *h, bool rows);
/* Removes up to `limit` rows of purged conversations, and all leftovers, unless somebody walks. */
void tm__memory_tidy(tm_store *s, size_t limit);

/* ---- sessions: under the lock ---- */
/* False: no session can have that name. */
bool tm__memory_session_name(tm_session_name *out, tm_slice tenant, tm_slice id);
tm_session_record *tm__memory_session_new(const tm_session *session); /* a copy; NULL: no memory */
tm_session_record *tm__memory_find_session(const tm_store *s, const tm_session_name *name);
/* The tenant must have a record. */
void tm__memory_session_add(tm_store *s, tm_session_record *r);
void tm__memory_session_remove(tm_store *s, tm_session_record *r);
void tm__memory_session_reopen(tm_store *s, tm_session_record *r, int64_t look_at);
bool tm__memory_session_in_use(const tm_store *s, const tm_session_name *name);
tm_tenant_record *tm__memory_tenant_new(tm_slice name); /* NULL: no memory */
tm_tenant_record *tm__memory_find_tenant(const tm_store *s, tm_slice name);
void tm__memory_tenant_add(tm_store *s, tm_tenant_record *t);

/* ---- events: under the lock ---- */
tm_event_record *tm__memory_event_new(const tm_outgoing *event); /* a copy; NULL: no memory */
void tm__memory_event_add(tm_store *s, tm_event_record *r);
/* The oldest of the conversation that is not dead is due at `at`, unless one is due already. */
void tm__memory_events_arm(tm_store *s, tm_slice conversation, int64_t at);
/* Is one of them not dead? */
bool tm__memory_events_wait(const tm_store *s, tm_slice conversation);
/* Whether one waits may be another answer now. */
void tm__memory_events_changed(tm_store *s, tm_slice conversation);
void tm__memory_events_purge(tm_store *s, tm_slice conversation);

/* ---- as the members of tm_store_backend ---- */
tm_status tm__memory_commit(tm_store_conn *c, tm_commit *const *items, size_t count, tm_error *err);
tm_status tm__memory_purge(tm_store_conn *c, tm_slice id, int64_t expect_revision, bool undelivered,
                           tm_error *err);
tm_status tm__memory_sweep(tm_store_conn *c, size_t limit, bool *more, tm_error *err);
tm_status tm__memory_rewrite(tm_store_conn *c, const tm_row *rows, size_t count, tm_error *err);
tm_status tm__memory_session(tm_store_conn *c, tm_slice tenant, tm_slice id, tm_session_fn fn,
                             void *ud, tm_error *err);
tm_status tm__memory_sessions(tm_store_conn *c, const tm_session_filter *f, tm_session_fn fn,
                              void *ud, tm_error *err);
tm_status tm__memory_sessions_due(tm_store_conn *c, int64_t now, size_t limit, tm_session_fn fn,
                                  void *ud, tm_error *err);
tm_status tm__memory_session_put(tm_store_conn *c, const tm_session *expect,
                                 const tm_session *session, tm_error *err);
tm_status tm__memory_session_drop(tm_store_conn *c, tm_slice tenant, tm_slice id, tm_error *err);
tm_status tm__memory_outbox_take(tm_store_conn *c, int64_t now, int64_t until, size_t limit,
                                 tm_outgoing_fn fn, void *ud, tm_error *err);
tm_status tm__memory_outbox_settle(tm_store_conn *c, const tm_outgoing *event, tm_outcome outcome,
                                   int64_t at, tm_error *err);
tm_status tm__memory_outbox_next(tm_store_conn *c, int64_t *out, tm_error *err);
tm_status tm__memory_outbox_list(tm_store_conn *c, const tm_outgoing_filter *f, tm_outgoing_fn fn,
                                 void *ud, tm_error *err);
tm_status tm__memory_outbox_put(tm_store_conn *c, const tm_outgoing *event, tm_error *err);
tm_status tm__memory_outbox_rewrite(tm_store_conn *c, const tm_outgoing *event, tm_error *err);
tm_status tm__memory_script_put(tm_store_conn *c, tm_slice system, tm_slice version,
                                tm_slice sources, tm_error *err);
tm_status tm__memory_script_get(tm_store_conn *c, tm_slice system, tm_slice version, tm_buf *out,
                                tm_error *err);
tm_status tm__memory_script_use(tm_store_conn *c, tm_slice system, tm_slice version, tm_error *err);
tm_status tm__memory_script_drop(tm_store_conn *c, tm_slice system, tm_slice version,
                                 int64_t before, tm_error *err);
tm_status tm__memory_scripts(tm_store_conn *c, tm_script_fn fn, void *ud, tm_error *err);
tm_status tm__memory_note_put(tm_store_conn *c, tm_slice name, tm_slice text, tm_error *err);
tm_status tm__memory_note_get(tm_store_conn *c, tm_slice name, tm_buf *out, tm_error *err);
tm_status tm__memory_note_swap(tm_store_conn *c, tm_slice name, tm_slice expect, tm_slice text,
                               tm_error *err);
tm_status tm__memory_tenant_wake(tm_store_conn *c, tm_slice tenant, int64_t expect, int64_t wake_at,
                                 tm_error *err);
tm_status tm__memory_tenants_due(tm_store_conn *c, int64_t now, size_t limit, tm_tenant_fn fn,
                                 void *ud, tm_error *err);
tm_status tm__memory_tenants(tm_store_conn *c, tm_slice after, size_t limit, tm_tenant_fn fn,
                             void *ud, tm_error *err);

#endif
