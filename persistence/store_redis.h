/* store_redis.h - what the files of the Redis backend share; private to persistence/.
 *
 * store_redis.c         opening, closing, the registration table
 * store_redis_conn.c    one connection: commands out, replies in, reconnecting
 * store_redis_error.c   what went wrong: status, code, advice
 * store_redis_key.c     the names of keys
 * store_redis_record.c  heads and rows as Redis keeps them
 * store_redis_commit.c  commits, and finding out what became of one
 * store_redis_start.c   start keys
 * store_redis_session.c, store_redis_sessions.c  sessions, written and read
 * store_redis_hint.c    lists and deadlines: hints that commits write and reads check
 * store_redis_read.c    heads, rows, lists
 * store_redis_due.c     deadlines
 * store_redis_outbox.c, store_redis_outbox_list.c  events to be delivered
 * store_redis_misc.c    scripts, notes, tenants
 * store_redis_purge.c   what goes
 * store_redis_sweep.c   housekeeping
 * store_redis_inspect.c is the server's own durability what it should be?
 * store_redis.def       what runs in the server
 *
 * All keys of a conversation have its id as hash tag; every command and script touches keys of one
 * slot only.
 */
#ifndef TM_PERSISTENCE_STORE_REDIS_H
#define TM_PERSISTENCE_STORE_REDIS_H

#include <hiredis/hiredis.h>

#include "persistence/store.h"

#define TM_REDIS_FORMAT     1
#define TM_REDIS_PREFIX     "tidemill:"
#define TM_REDIS_TENANTS    TM_REDIS_PREFIX "t:" /* who has a store of his own */
#define TM_REDIS_TOKEN      17                   /* 16 hex digits and the NUL */
#define TM_REDIS_KEY_SIZE   1024
#define TM_REDIS_ROW_HEADER 160

typedef enum tm_redis_script {
#define SCRIPT(name, text) TM_REDIS_##name,
#include "persistence/store_redis.def"
#undef SCRIPT
  TM_REDIS_SCRIPTS
} tm_redis_script;

typedef struct tm_redis_life { /* all of it atomic */
  bool interrupted;
  bool away;         /* told to on_health */
  unsigned arrivals; /* how often a connection was made */
  unsigned moves;    /* ... by one that a replica had refused: the primary may be elsewhere */
} tm_redis_life;

struct tm_store { /* immutable once open */
  char *host, *password;
  int port, db;
  char place[288]; /* for messages */
  char prefix[88];
  int timeout_ms;
  size_t row_max;
  tm_store_opening opening;
  bool absent; /* there is no store, and none is to be made */
  int64_t (*now_ms)(void *ud);
  void *now_ud;
  void *event_ud;
  void (*on_health)(void *ud, const tm_error *err);
  tm_redis_life *life; /* of the server, for all who have keys on it */
};

#define TM_REDIS_KNOWN 16384
typedef struct tm_redis_known { /* the lists that have a conversation at a revision */
  uint64_t id, lists;
  int64_t revision;
} tm_redis_known;

struct tm_store_conn {
  tm_store *store;
  redisContext *redis; /* NULL: not connected */
  bool replica;        /* it said that it takes no writes: the next use connects again */
  tm_buf out;          /* commands that were not sent yet */
  size_t awaited;      /* replies that are still to come */
  int patience_ms;     /* how long an answer may take */
  char sha[TM_REDIS_SCRIPTS][41];
  int pause_ms;          /* the last wait before reconnecting; 0: the last attempt worked */
  int64_t retry_at;      /* monotonic us */
  unsigned arrivals;     /* the store's when the last attempt began */
  unsigned moves;        /* the store's when this was connected; reads follow the commits */
  tm_error why;          /* of the attempt before */
  tm_buf parted;         /* hints that commits made lies (store_redis_hint.c) */
  tm_redis_known *known; /* TM_REDIS_KNOWN of them, by id; NULL before the first commit */
};

typedef struct tm_redis_key {
  size_t len;
  char text[TM_REDIS_KEY_SIZE];
} tm_redis_key;

/* ---- error ---- */
/* What the server answered instead of a result. */
tm_status tm__redis_refused(const tm_store *s, const char *words, tm_error *err);
tm_status tm__redis_unreachable(const tm_store *s, const char *what, tm_error *err);
tm_status tm__redis_damaged(const tm_store *s, const char *what, tm_error *err);
tm_status tm__redis_outcome_unknown(const tm_store *s, tm_error *err);
tm_status tm__redis_not_found(const char *what, tm_error *err);

/* ---- conn ---- */
tm_status tm__redis_connect(tm_store_conn **out, tm_store *s, tm_store_role role, tm_error *err);
void tm__redis_disconnect(tm_store_conn *c);
/* Before commands are added: connected, nothing is under way. Fails at once while the next attempt
 * to connect is not due; it is due as well when another connection was made since. */
tm_status tm__redis_ready(tm_store_conn *c, tm_error *err);
void tm__redis_drop(tm_store_conn *c);
/* Waits before the next attempt, twice as long each time (0 at first); false: interrupted. */
bool tm__redis_pause(tm_store_conn *c, int *pause_ms);
/* A command of `args` arguments, which are added after it. */
void tm__redis_command(tm_store_conn *c, const char *name, size_t args);
/* A script with `keys` keys and `args` arguments behind them. */
void tm__redis_run(tm_store_conn *c, tm_redis_script which, size_t keys, size_t args);
void tm__redis_arg(tm_store_conn *c, tm_slice s);
void tm__redis_arg_two(tm_store_conn *c, tm_slice a, tm_slice b); /* one argument of both */
void tm__redis_text(tm_store_conn *c, const char *text);
void tm__redis_int(tm_store_conn *c, int64_t n);
void tm__redis_key_arg(tm_store_conn *c, const tm_redis_key *k);
tm_status tm__redis_flush(tm_store_conn *c, tm_error *err);
/* The next reply, an error reply as well; the caller frees it. Failing drops the connection. */
tm_status tm__redis_next(tm_store_conn *c, redisReply **out, tm_error *err);
/* The same, but an error reply is an error. */
tm_status tm__redis_take(tm_store_conn *c, redisReply **out, tm_error *err);
/* Sends what was added, one command, and takes its reply; loads scripts that the server forgot. */
tm_status tm__redis_ask(tm_store_conn *c, redisReply **out, tm_error *err);
/* The same, the reply thrown away. */
tm_status tm__redis_tell(tm_store_conn *c, tm_error *err);
/* Takes `count` replies and throws them away; the first error counts. */
tm_status tm__redis_skip(tm_store_conn *c, size_t count, tm_error *err);
tm_status tm__redis_load(tm_store_conn *c, tm_error *err); /* all scripts; nothing is under way */
bool tm__redis_is_noscript(const redisReply *r);
bool tm__redis_is_error(const redisReply *r);
tm_slice tm__redis_slice(const redisReply *r);                    /* ptr NULL: nil or no text */
const redisReply *tm__redis_item(const redisReply *r, size_t at); /* NULL: there is none */
int64_t tm__redis_number(tm_slice text);                          /* 0 when it is none */
int64_t tm__redis_now(const tm_store *s);

/* ---- key ---- */
typedef enum tm_redis_list {
  TM_LIST_ALL,
  TM_LIST_TENANT,
  TM_LIST_SESSION,
  TM_LIST_SYSTEM,
  TM_LIST_FLOW,
  TM_LIST_STATUS,
  TM_LISTS
} tm_redis_list;
/* `own` with the prefix of whom `key` is of, the store of all or a tenant's; false: of neither. It
 * owns nothing. */
bool tm__redis_store_of(tm_store *out, const tm_store *own, tm_slice key);
void tm__redis_common_key(tm_redis_key *k, const char *name);             /* of the store of all */
void tm__redis_key(tm_redis_key *k, const tm_store *s, const char *name); /* prefix and name */
void tm__redis_key_part(tm_redis_key *k, tm_slice part); /* escaped: no ':', '{' or '}' stays */
void tm__redis_key_text(tm_redis_key *k, const char *text);
void tm__redis_head_key(tm_redis_key *k, const tm_store *s, tm_slice id);
void tm__redis_rows_key(tm_redis_key *k, const tm_store *s, tm_slice id);
void tm__redis_events_key(tm_redis_key *k, const tm_store *s, tm_slice id);
void tm__redis_list_key(tm_redis_key *k, const tm_store *s, tm_redis_list which, tm_slice tenant,
                        tm_slice value);
void tm__redis_list_of(tm_redis_key *k, const tm_store *s, tm_redis_list which, const tm_head *h);
void tm__redis_start_key_of(tm_redis_key *k, const tm_store *s, tm_slice tenant, uint64_t key);

/* ---- record ---- */
#define TM_REDIS_HEAD_FIELDS 17                         /* those that reads ask for */
void tm__redis_ask_head(tm_store_conn *c, tm_slice id); /* adds the command */
/* TM_ENOTFOUND without a message when there is none; TM_ECORRUPT. */
tm_status tm__redis_decode_head(const tm_store *s, const redisReply *r, tm_slice id, tm_head *out,
                                tm_error *err);
/* ... and the conversation's start key, and the row that answered it. */
tm_status tm__redis_decode_start(const redisReply *r, uint64_t *key, int64_t *answer);
/* How many arguments the fields of a head have, and adding them. */
size_t tm__redis_head_args(const tm_commit *item);
void tm__redis_add_head(tm_store_conn *c, const tm_commit *item);
/* The text before the body; `token` says whose it is. */
size_t tm__redis_row_header(char out[TM_REDIS_ROW_HEADER], const tm_row *row, const char *token);
tm_status tm__redis_decode_row(const tm_store *s, tm_slice stored, tm_slice conversation,
                               int64_t id, tm_row *out, tm_error *err);

/* ---- commit ---- */
typedef struct tm_redis_work {
  tm_commit *item;
  char token[TM_REDIS_TOKEN];
  bool done;             /* item->status says how it ended */
  bool sent, again;      /* it may have been applied; it was sent before */
  bool key, session;     /* reserved: given back when the commit fails */
  bool moved;            /* the hints are wrong: the head lives elsewhere than the item says */
  size_t before, behind; /* replies of hints to come before the commit's, and behind it */
} tm_redis_work;
tm_status tm__redis_commit(tm_store_conn *c, tm_commit *const *items, size_t count, tm_error *err);

/* ---- start ---- */
tm_status tm__redis_reserve_keys(tm_store_conn *c, tm_redis_work *works, size_t count,
                                 tm_error *err);
void tm__redis_release_key(tm_store_conn *c, const tm_redis_work *w); /* adds the command */
tm_status tm__redis_start_key(tm_store_conn *c, tm_slice tenant, uint64_t key, tm_start_key *out,
                              tm_error *err);

tm_status tm__redis_key_of(tm_store_conn *c, tm_slice conversation, uint64_t *key,
                           tm_start_key *out, tm_error *err);

/* ---- session, sessions ---- */
typedef struct tm_redis_name { /* of one session */
  tm_slice tenant, id;
} tm_redis_name;
void tm__redis_session_key(tm_redis_key *k, const tm_store *s, const char *name,
                           const tm_slice *tenant); /* NULL: of all */
void tm__redis_session_record(tm_redis_key *k, const tm_store *s, tm_redis_name n);
void tm__redis_session_order(char out[17], int64_t created); /* sorts as the time does */
tm_status tm__redis_reserve_sessions(tm_store_conn *c, tm_redis_work *works, size_t count,
                                     tm_error *err);
void tm__redis_release_session(tm_store_conn *c, const tm_redis_work *w); /* adds the command */
tm_status tm__redis_session(tm_store_conn *c, tm_slice tenant, tm_slice id, tm_session_fn fn,
                            void *ud, tm_error *err);
tm_status tm__redis_sessions(tm_store_conn *c, const tm_session_filter *f, tm_session_fn fn,
                             void *ud, tm_error *err);
tm_status tm__redis_unreadable(tm_store_conn *c, tm_unreadable_fn fn, void *ud, tm_error *err);
tm_status tm__redis_sessions_due(tm_store_conn *c, int64_t now, size_t limit, tm_session_fn fn,
                                 void *ud, tm_error *err);
tm_status tm__redis_session_put(tm_store_conn *c, const tm_session *expect,
                                const tm_session *session, tm_error *err);
tm_status tm__redis_session_drop(tm_store_conn *c, tm_slice tenant, tm_slice id, tm_error *err);

/* ---- hint ---- */
/* Adds the commands that make the hints of a commit; how many there were. `change`: without those
 * that the conversation is known to have. */
size_t tm__redis_add_hints(tm_store_conn *c, const tm_commit *item, bool change);
/* The commit happened, its hints stand. */
void tm__redis_know(tm_store_conn *c, const tm_head *h);
/* Makes sure that heads have all their hints. */
tm_status tm__redis_hint_heads(tm_store_conn *c, const tm_head *heads, size_t count, tm_error *err);
/* Remembers that a list has a conversation that is not, or no longer, of it. */
void tm__redis_part(tm_store_conn *c, tm_redis_list which, tm_slice tenant, tm_slice value,
                    tm_slice id);
void tm__redis_part_all(tm_store_conn *c, const tm_head *h);
/* Takes lies off the lists, as long as they are lies. */
tm_status tm__redis_settle_parted(tm_store_conn *c, tm_error *err);
/* Would the list of this key have the head? */
bool tm__redis_in_list(const tm_store *s, const tm_head *h, tm_slice list);
/* Takes ids off `list` and puts those back that belong there after all. */
tm_status tm__redis_drop_hints(tm_store_conn *c, tm_slice list, const tm_slice *ids, size_t count,
                               tm_error *err);
typedef enum tm_redis_times { TM_TIMES_DUE, TM_TIMES_ENDED } tm_redis_times;
int64_t tm__redis_time_of(tm_redis_times which, const tm_head *h);
void tm__redis_times_key(tm_redis_key *k, const tm_store *s, tm_redis_times which);
/* Sets the time of each id to what its head has (0: takes it off); a head that has an earlier one
 * by then gets that. */
tm_status tm__redis_mend_times(tm_store_conn *c, tm_redis_times which, const tm_head *heads,
                               size_t count, tm_error *err);

/* ---- read ---- */
tm_status tm__redis_head(tm_store_conn *c, tm_slice id, tm_head *out, tm_error *err);
/* The heads of `count` ids; one that is not there has revision 0 (and its id), a damaged one -1. */
tm_status tm__redis_heads(tm_store_conn *c, const tm_slice *ids, size_t count, tm_head *out,
                          tm_error *err);
tm_status tm__redis_chain(tm_store_conn *c, tm_slice conversation, int64_t row, bool follow_base,
                          tm_row_fn fn, void *ud, tm_error *err);
tm_status tm__redis_list(tm_store_conn *c, const tm_list_filter *f, tm_head_fn fn, void *ud,
                         tm_error *err);

/* ---- due ---- */
tm_status tm__redis_due(tm_store_conn *c, int64_t now, int64_t hold_ms, size_t limit, tm_head_fn fn,
                        void *ud, tm_error *err);
tm_status tm__redis_next_due(tm_store_conn *c, int64_t *out, tm_error *err);
tm_status tm__redis_ended(tm_store_conn *c, int64_t before, size_t limit, tm_head_fn fn, void *ud,
                          tm_error *err);

/* ---- purge, sweep ---- */
tm_status tm__redis_purge(tm_store_conn *c, tm_slice id, int64_t expect_revision, bool undelivered,
                          tm_error *err);
tm_status tm__redis_rewrite(tm_store_conn *c, const tm_row *rows, size_t count, tm_error *err);
tm_status tm__redis_sweep(tm_store_conn *c, size_t limit, bool *more, tm_error *err);

/* ---- outbox ---- */
/* How many arguments of a commit's script the events are, and adding them. */
size_t tm__redis_event_args(const tm_commit *item);
void tm__redis_add_events(tm_store_conn *c, const tm_commit *item);
/* Adds the commands that say that the conversation has events, one due `at`; how many there were.
 */
size_t tm__redis_hint_events(tm_store_conn *c, const char *id, int64_t at);
/* Adds those that take it off. */
void tm__redis_part_events(tm_store_conn *c, const char *id);
/* Whose events are neither all delivered nor dead. */
tm_status tm__redis_events_wait(tm_store_conn *c, const tm_head *heads, size_t count, bool *out,
                                tm_error *err);
/* What is said of the conversation's events is made true. */
tm_status tm__redis_mend_events(tm_store_conn *c, const char *id, tm_error *err);
#define TM_REDIS_EVENT_FIELD 25 /* characters of the key of an event, a field */
const char *tm__redis_event_field(char out[32], int64_t revision, int index);
bool tm__redis_is_event(tm_slice field);
/* The texts are copied, the body is the value's; TM_ECORRUPT: the field is no key. */
tm_status tm__redis_decode_event(const tm_store *s, tm_slice id, tm_slice field, tm_slice value,
                                 tm_outgoing *e, tm_error *err);
/* unreadable() of events, and of tenants. */
tm_status tm__redis_nameless_events(tm_store_conn *c, tm_unreadable_fn fn, void *ud, tm_error *err);
tm_status tm__redis_nameless_tenants(tm_store_conn *c, tm_unreadable_fn fn, void *ud,
                                     tm_error *err);
tm_status tm__redis_outbox_take(tm_store_conn *c, int64_t now, int64_t until, size_t limit,
                                tm_outgoing_fn fn, void *ud, tm_error *err);
tm_status tm__redis_outbox_settle(tm_store_conn *c, const tm_outgoing *event, tm_outcome outcome,
                                  int64_t at, tm_error *err);
tm_status tm__redis_outbox_next(tm_store_conn *c, int64_t *out, tm_error *err);
tm_status tm__redis_outbox_list(tm_store_conn *c, const tm_outgoing_filter *f, tm_outgoing_fn fn,
                                void *ud, tm_error *err);
tm_status tm__redis_outbox_put(tm_store_conn *c, const tm_outgoing *event, tm_error *err);
tm_status tm__redis_outbox_rewrite(tm_store_conn *c, const tm_outgoing *event, tm_error *err);

/* ---- misc ---- */
tm_status tm__redis_script_put(tm_store_conn *c, tm_slice system, tm_slice version,
                               tm_slice sources, tm_error *err);
tm_status tm__redis_script_get(tm_store_conn *c, tm_slice system, tm_slice version, tm_buf *out,
                               tm_error *err);
tm_status tm__redis_script_use(tm_store_conn *c, tm_slice system, tm_slice version, tm_error *err);
tm_status tm__redis_script_drop(tm_store_conn *c, tm_slice system, tm_slice version, int64_t before,
                                tm_error *err);
tm_status tm__redis_script_list(tm_store_conn *c, tm_script_fn fn, void *ud, tm_error *err);
tm_status tm__redis_note_put(tm_store_conn *c, tm_slice name, tm_slice text, tm_error *err);
tm_status tm__redis_note_get(tm_store_conn *c, tm_slice name, tm_buf *out, tm_error *err);
tm_status tm__redis_note_swap(tm_store_conn *c, tm_slice name, tm_slice expect, tm_slice text,
                              tm_error *err);
tm_status tm__redis_tenant_wake(tm_store_conn *c, tm_slice tenant, int64_t expect, int64_t wake_at,
                                tm_error *err);
tm_status tm__redis_tenants_due(tm_store_conn *c, int64_t now, size_t limit, tm_tenant_fn fn,
                                void *ud, tm_error *err);
tm_status tm__redis_tenants(tm_store_conn *c, tm_slice after, size_t limit, tm_tenant_fn fn,
                            void *ud, tm_error *err);

/* ---- inspect ---- */
/* The server is of a version that knows all commands; for opening. */
tm_status tm__redis_check_server(tm_store_conn *c, tm_error *err);
tm_status tm__redis_inspect(tm_store_conn *c, bool deep, tm_finding_fn fn, void *ud, tm_error *err);

#endif
