/* store_postgres.h - what the files of the PostgreSQL backend share; private to persistence/.
 *
 * store_postgres.c        opening, closing, the registration table
 * store_postgres_place.c  where it is: the connection string, the schema, what may be said of them
 * store_postgres_error.c  what went wrong: status, code, advice
 * store_postgres_conn.c   one connection: its settings, prepared statements, connecting again
 * store_postgres_query.c  parameters, waiting for answers, results
 * store_postgres_write.c  transactions that are known to have happened or not
 * store_postgres_schema.c tables and migrations
 * store_postgres_views.c  the guide's tables as views
 * store_postgres_commit.c commits
 * store_postgres_read.c   heads, rows, lists, deadlines, start keys
 * store_postgres_sets.c   sessions, scripts, notes, tenants
 * store_postgres_purge.c  what goes: purging, sweeping, other bodies for rows
 * store_postgres_inspect.c what is wrong or unsafe
 * store_postgres_words.c  hints between the hosts of a store: LISTEN and NOTIFY
 */
#ifndef TM_PERSISTENCE_STORE_POSTGRES_H
#define TM_PERSISTENCE_STORE_POSTGRES_H

#include <libpq-fe.h>

#include "persistence/store.h"
#include "persistence/views.h"

#define TM_PG_NAME     64 /* an identifier and its NUL */
#define TM_PG_ARGS_MAX 40
#define TM_PG_NEVER    INT64_MAX

struct tm_store {            /* immutable once open, but for what is atomic */
  char **keywords, **values; /* of the connection, as PQconnectdbParams wants them */
  char place[192];           /* server and database, for messages: no user, no password */
  char schema[TM_PG_NAME], views[TM_VIEWS][TM_VIEW_NAME];
  int64_t id; /* random: whose the deadlines are that this opening of the store has taken */
  int64_t timeout_ms;
  size_t record_bytes_max;
  tm_store_opening opening;
  bool absent;       /* there are no tables, and none are to be made */
  bool down;         /* atomic: the server went away, and on_health was told */
  bool interrupted;  /* atomic: the process stops */
  unsigned arrivals; /* atomic: how often a connection was made */
  int64_t (*now_ms)(void *ud);
  void *now_ud;
  void (*on_health)(void *ud, const tm_error *err);
  void (*on_word)(void *ud, const char *word);
  void (*on_deaf)(void *ud, const tm_error *err);
  void *event_ud;
  struct tm_pg_words *words; /* NULL: this store neither hears nor tells */
};

typedef enum tm_pg_sql {
#define STATEMENT(name, types, text) TM_PG_##name,
#include "persistence/store_postgres.def"
#undef STATEMENT
  TM_PG_COUNT
} tm_pg_sql;

struct tm_store_conn {
  tm_store *store;
  tm_store_role role;
  PGconn *pg; /* NULL: not connected */
  /* The row of a writer in `writers`: a transaction takes its serial to the next number, so that
   * the number says afterwards whether it happened. */
  int64_t writer, serial;
  bool registered;   /* the row is there */
  bool doubt;        /* whether the transaction `serial` + 1 happened is not known yet */
  unsigned failures; /* attempts to connect in a row that failed */
  unsigned arrivals; /* the store's when the last of them began */
  int64_t retry_us;  /* monotonic; until then connecting is not tried again */
  tm_error failure;  /* of the newest attempt */
};

/* What has a name: the server keeps nothing but UTF-8 without NUL. */
#define TM_PG_TENANT_NAMED "octet_length(tenant) BETWEEN 1 AND 64"
#define TM_PG_PURGED_NAMED "octet_length(conversation) BETWEEN 1 AND 36"
#define TM_PG_EVENT_NAMED                                                                          \
  "octet_length(conversation) BETWEEN 1 AND 36 AND revision>0 AND idx BETWEEN 0 AND 2147483647 "   \
  "AND attempts BETWEEN 0 AND 2147483646"
#define TM_PG_SESSION_NAMED                                                                        \
  "octet_length(tenant) BETWEEN 1 AND 64 AND octet_length(id) BETWEEN 1 AND 128"

/* The columns of a head, a session and a journal row in the order in which they are read. */
#define TM_PG_HEAD_COLUMNS                                                                         \
  "id,tenant,session,system,flow,version,step,claim,status,revision,tip,wake_at,created,ended,"    \
  "recent"
#define TM_PG_SESSION_COLUMNS "tenant,id,user_id,metadata,flags,created,look_at,ended"
#define TM_PG_ROW_COLUMNS     "conversation,revision,parent,base,kind,created,checkpoint,flags,body"

#define TM_PG_OUTGOING_COLUMNS                                                                     \
  "conversation,revision,idx,tenant,created,due_at,dead_at,attempts,note,flags,body"

/* ---- place ---- */
/* Keywords, values, place and schema from the options. */
tm_status tm__pg_place(tm_store *s, const tm_store_options *o, tm_error *err);
void tm__pg_place_free(tm_store *s);
int64_t tm__pg_monotonic_us(void);
bool tm__pg_interrupted(const tm_store *s);
/* Sleeps about `ms`, half of it at least; false: interrupted. */
bool tm__pg_pause(const tm_store *s, int64_t ms);

/* ---- error ---- */
typedef enum tm_pg_kind {
  TM_PG_DONE,
  TM_PG_REFUSED, /* the server said no: nothing of the transaction was applied */
  TM_PG_AGAIN,   /* likewise, but another attempt may do */
  TM_PG_LOST,    /* there is no connection any more */
} tm_pg_kind;
/* The status for what the server said (`r`, may be NULL) or for the connection's loss; the message
 * has the place, what was being done, PostgreSQL's words without a password. */
tm_status tm__pg_fail(tm_error *err, const tm_store *s, const PGconn *pg, const PGresult *r,
                      const char *doing);
tm_pg_kind tm__pg_kind_of(const PGconn *pg, const PGresult *r);
tm_status tm__pg_damaged(tm_error *err, const tm_store *s, const char *what);
tm_status tm__pg_not_found(tm_error *err, const char *what);

/* ---- conn ---- */
/* A connection with this store's settings and nothing prepared. */
tm_status tm__pg_dial(PGconn **out, const tm_store *s, tm_store_role role, tm_error *err);
/* Connected, prepared, and a writer registered: at once, or why not. */
tm_status tm__pg_ready(tm_store_conn *c, tm_error *err);
void tm__pg_drop(tm_store_conn *c); /* closes; the next use connects again */
void tm__pg_note_down(tm_store *s, const tm_error *err);
tm_status tm__pg_connect(tm_store_conn **out, tm_store *s, tm_store_role role, tm_error *err);
void tm__pg_disconnect(tm_store_conn *c);

int64_t tm__pg_retry_ms(unsigned failures); /* until it is tried again, part of it by chance */

/* ---- words ---- */
typedef struct tm_pg_words tm_pg_words;
/* A store that is open listens from now on. Where that cannot be done on_deaf is told why. */
void tm__pg_words_start(tm_store *s);
void tm__pg_words_stop(tm_store *s); /* after what is left to be said */

/* ---- query ---- */
typedef struct tm_pg_args { /* zero-initialise; what is pointed to is borrowed */
  int count;
  const char *values[TM_PG_ARGS_MAX];
  int lengths[TM_PG_ARGS_MAX], formats[TM_PG_ARGS_MAX];
  char numbers[TM_PG_ARGS_MAX][8];
} tm_pg_args;
void tm__pg_int(tm_pg_args *a, int64_t value);
void tm__pg_bytes(tm_pg_args *a, tm_slice bytes); /* ptr NULL: NULL */
void tm__pg_text(tm_pg_args *a, const char *text);
/* Can PostgreSQL keep it as a text? What it cannot, it does not have either. */
bool tm__pg_is_text(tm_slice text);

int64_t tm__pg_get_int(const PGresult *r, int row, int column);
tm_slice tm__pg_get(const PGresult *r, int row, int column); /* ptr NULL: NULL; until PQclear */
bool tm__pg_get_text(const PGresult *r, int row, int column, char *out, size_t size);

/* Statements without parameters; *out (may be NULL) is the last one's result: clear it. */
tm_status tm__pg_exec(const tm_store *s, PGconn *pg, const char *sql, PGresult **out,
                      const char *doing, tm_error *err);
/* The same without a result, however long it takes; `state` becomes the SQLSTATE of what failed, or
 * "". */
tm_status tm__pg_exec_state(const tm_store *s, PGconn *pg, const char *sql, char state[6],
                            const char *doing, tm_error *err);
/* What came of two hosts making the same tables at the same time. */
bool tm__pg_is_race(const char *state);
/* One statement with parameters that is not prepared. */
tm_status tm__pg_exec_args(const tm_store *s, PGconn *pg, const char *sql, const tm_pg_args *a,
                           PGresult **out, const char *doing, tm_error *err);
/* What the statements of a pipeline gave, until its end, to `fn` (may be NULL) as far as they were
 * good. */
typedef void (*tm_pg_result_fn)(void *ud, size_t index, PGresult *r);
tm_pg_kind tm__pg_results(const tm_store *s, PGconn *pg, tm_pg_result_fn fn, void *ud,
                          const char *doing, tm_error *err);
tm_status tm__pg_prepare_all(const tm_store *s, PGconn *pg, tm_error *err);
bool tm__pg_send(PGconn *pg, tm_pg_sql which, const tm_pg_args *a); /* false: PQerrorMessage */
/* One prepared statement outside of a pipeline. */
tm_pg_kind tm__pg_run(const tm_store *s, PGconn *pg, tm_pg_sql which, const tm_pg_args *a,
                      PGresult **out, const char *doing, tm_error *err);
/* One prepared statement, or `sql` where that is not NULL, that changes nothing which must last;
 * tried again when others came in between, and on a new connection when this one was closed. *out:
 * clear it. */
tm_status tm__pg_read(tm_store_conn *c, tm_pg_sql which, const char *sql, const tm_pg_args *a,
                      PGresult **out, const char *doing, tm_error *err);

/* ---- write ---- */
/* What a transaction consists of. `send` is called for each attempt, and calls tm__pg_send for each
 * statement; `take` gets the result of each, in order. Neither counts before tm__pg_write returns
 * TM_OK. */
typedef struct tm_pg_work {
  const char *doing;
  bool (*send)(struct tm_pg_work *w, PGconn *pg);                /* false: see PQerrorMessage */
  void (*take)(struct tm_pg_work *w, size_t index, PGresult *r); /* NULL is allowed */
} tm_pg_work;
/* Begins, does the work, makes it durable. What fails has left nothing; where the server went away
 * in the middle it waits until it is known whether the transaction happened, unless it is
 * interrupted: store.outcome_unknown. */
tm_status tm__pg_write(tm_store_conn *c, tm_pg_work *w, tm_error *err);
/* A transaction of one statement; *number (may be NULL): the first column of its first row, or how
 * many rows it changed. */
tm_status tm__pg_write_one(tm_store_conn *c, tm_pg_sql which, const tm_pg_args *a, int64_t *number,
                           const char *doing, tm_error *err);
void tm__pg_unregister(tm_store_conn *c); /* the writer's row is no longer needed */

/* ---- schema ---- */
/* Makes the tables or brings them to this version; a newer one is TM_ECORRUPT. */
tm_status tm__pg_migrate(const tm_store *s, PGconn *pg, tm_error *err);
/* For a store that is not to be made: is it there, and of this version? */
tm_status tm__pg_look(tm_store *s, PGconn *pg, tm_error *err);

/* ---- views ---- */
tm_status tm__pg_view_names(tm_store *s, const char *const *names, tm_error *err);
tm_status tm__pg_views(const tm_store *s, PGconn *pg, tm_error *err);

/* ---- outbox ---- */
void tm__pg_events_json(tm_buf *b, const tm_commit *item); /* as NEW_EVENTS reads them */

/* ---- as the members of tm_store_backend ---- */
tm_status tm__pg_commit(tm_store_conn *c, tm_commit *const *items, size_t count, tm_error *err);
tm_status tm__pg_probe(tm_store_conn *c, tm_error *err);
tm_status tm__pg_head(tm_store_conn *c, tm_slice id, tm_head *out, tm_error *err);
tm_status tm__pg_chain(tm_store_conn *c, tm_slice conversation, int64_t row, bool follow_base,
                       tm_row_fn fn, void *ud, tm_error *err);
tm_status tm__pg_list(tm_store_conn *c, const tm_list_filter *f, tm_head_fn fn, void *ud,
                      tm_error *err);
tm_status tm__pg_due(tm_store_conn *c, int64_t now, int64_t hold_ms, size_t limit, tm_head_fn fn,
                     void *ud, tm_error *err);
tm_status tm__pg_next_due(tm_store_conn *c, int64_t *out, tm_error *err);
tm_status tm__pg_ended(tm_store_conn *c, int64_t before, size_t limit, tm_head_fn fn, void *ud,
                       tm_error *err);
tm_status tm__pg_key_of(tm_store_conn *c, tm_slice conversation, uint64_t *key, tm_start_key *out,
                        tm_error *err);
tm_status tm__pg_start_key(tm_store_conn *c, tm_slice tenant, uint64_t key, tm_start_key *out,
                           tm_error *err);
tm_status tm__pg_outbox_take(tm_store_conn *c, int64_t now, int64_t until, size_t limit,
                             tm_outgoing_fn fn, void *ud, tm_error *err);
tm_status tm__pg_outbox_settle(tm_store_conn *c, const tm_outgoing *event, tm_outcome outcome,
                               int64_t at, tm_error *err);
tm_status tm__pg_outbox_next(tm_store_conn *c, int64_t *out, tm_error *err);
tm_status tm__pg_outbox_list(tm_store_conn *c, const tm_outgoing_filter *f, tm_outgoing_fn fn,
                             void *ud, tm_error *err);
tm_status tm__pg_outbox_put(tm_store_conn *c, const tm_outgoing *event, tm_error *err);
tm_status tm__pg_outbox_rewrite(tm_store_conn *c, const tm_outgoing *event, tm_error *err);
tm_status tm__pg_session(tm_store_conn *c, tm_slice tenant, tm_slice id, tm_session_fn fn, void *ud,
                         tm_error *err);
tm_status tm__pg_sessions(tm_store_conn *c, const tm_session_filter *f, tm_session_fn fn, void *ud,
                          tm_error *err);
tm_status tm__pg_unreadable(tm_store_conn *c, tm_unreadable_fn fn, void *ud, tm_error *err);
tm_status tm__pg_sessions_due(tm_store_conn *c, int64_t now, size_t limit, tm_session_fn fn,
                              void *ud, tm_error *err);
tm_status tm__pg_session_put(tm_store_conn *c, const tm_session *expect, const tm_session *session,
                             tm_error *err);
tm_status tm__pg_session_drop(tm_store_conn *c, tm_slice tenant, tm_slice id, tm_error *err);
tm_status tm__pg_purge(tm_store_conn *c, tm_slice id, int64_t expect_revision, bool undelivered,
                       tm_error *err);
tm_status tm__pg_sweep(tm_store_conn *c, size_t limit, bool *more, tm_error *err);
tm_status tm__pg_rewrite(tm_store_conn *c, const tm_row *rows, size_t count, tm_error *err);
tm_status tm__pg_script_put(tm_store_conn *c, tm_slice system, tm_slice version, tm_slice sources,
                            tm_error *err);
tm_status tm__pg_script_get(tm_store_conn *c, tm_slice system, tm_slice version, tm_buf *out,
                            tm_error *err);
tm_status tm__pg_script_use(tm_store_conn *c, tm_slice system, tm_slice version, tm_error *err);
tm_status tm__pg_script_drop(tm_store_conn *c, tm_slice system, tm_slice version, int64_t before,
                             tm_error *err);
tm_status tm__pg_scripts(tm_store_conn *c, tm_script_fn fn, void *ud, tm_error *err);
tm_status tm__pg_note_put(tm_store_conn *c, tm_slice name, tm_slice text, tm_error *err);
tm_status tm__pg_note_get(tm_store_conn *c, tm_slice name, tm_buf *out, tm_error *err);
tm_status tm__pg_note_swap(tm_store_conn *c, tm_slice name, tm_slice expect, tm_slice text,
                           tm_error *err);
tm_status tm__pg_tenant_wake(tm_store_conn *c, tm_slice tenant, int64_t expect, int64_t wake_at,
                             tm_error *err);
tm_status tm__pg_tenants_due(tm_store_conn *c, int64_t now, size_t limit, tm_tenant_fn fn, void *ud,
                             tm_error *err);
tm_status tm__pg_tenants(tm_store_conn *c, tm_slice after, size_t limit, tm_tenant_fn fn, void *ud,
                         tm_error *err);
void tm__pg_tell(tm_store *s, const char *word);
tm_status tm__pg_inspect(tm_store_conn *c, bool deep, tm_finding_fn fn, void *ud, tm_error *err);

#endif
