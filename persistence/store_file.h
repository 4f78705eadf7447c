/* store_file.h - what the files of the file backend share; private to persistence/.
 *
 * store_file.c         opening, closing, the registration table
 * store_file_place.c   folders, names, the lock that says who is alive
 * store_file_frame.c   how a commit lies in a conversation's log
 * store_file_state.c   a head as JSON
 * store_file_redo.c    the redo log, which makes a group of commits durable with one sync
 * store_file_apply.c   what a group does to the logs and to the index
 * store_file_group.c   begin, finish: a group from its first look at a head to its durability
 * store_file_commit.c  commits
 * store_file_change.c  everything else that writes
 * store_file_index.c   the index: a SQLite file that can be made anew from the logs
 * store_file_entry.c   what it knows of a conversation, and of the redo log
 * store_file_recover.c at open: what a dead process left, and a new index
 * store_file_drain.c   in the background: logs made durable, so that a redo log is free again
 * store_file_read.c    heads, rows, lists
 * store_file_outbox.c  events to be delivered, a small file each
 * store_file_sets.c    sessions, start keys, scripts, notes, tenants
 * store_file_inspect.c what is wrong or unsafe
 * store_file_error.c   what went wrong: status, code, advice
 */
#ifndef TM_PERSISTENCE_STORE_FILE_H
#define TM_PERSISTENCE_STORE_FILE_H

#include <pthread.h>
#include <sqlite3.h>

#include "persistence/disk.h"
#include "persistence/sql_names.h"
#include "persistence/store.h"

#define TM_FILE_SUM 16 /* bytes of a checksum: BLAKE2b (libsodium's generichash) */

/* ---- what lies in the store ---- */
typedef enum tm_file_what {
  TM_FILE_CONVERSATION, /* a: id. A log */
  TM_FILE_SESSION,      /* a: tenant, b: id. This and those below: small files, written anew */
  TM_FILE_SCRIPT,       /* a: system, b: version */
  TM_FILE_NOTE,         /* a: name */
  TM_FILE_TENANT,       /* a: tenant */
  TM_FILE_EVENT,        /* a: conversation, b: "revision.index" */
  TM_FILE_WHATS
} tm_file_what;

typedef struct tm_file_name {
  tm_file_what what;
  tm_slice a, b;
} tm_file_name;

typedef enum tm_file_kind {
  TM_FILE_APPEND = 1, /* to a log whose end is at `at`; what lies behind goes */
  TM_FILE_WRITE,      /* over bytes of a log */
  TM_FILE_PUT,        /* a small file, whole */
  TM_FILE_REMOVE
} tm_file_kind;

typedef struct tm_file_op {
  tm_file_kind kind;
  tm_file_name name;
  int64_t at;
  tm_slice bytes;
} tm_file_op;

typedef struct tm_file_state { /* what the newest frame of a log says */
  tm_head head;
  uint64_t start_key, start_body; /* key 0: none, or forgotten */
  int64_t start_row, start_created;
} tm_file_state;

/* What the index knows: also where the log ends, and which group wrote it last. */
typedef struct tm_file_entry {
  tm_file_state state;
  int64_t size, seq;
  bool found;
} tm_file_entry;

/* ---- the redo log: two files that take turns ---- */
typedef struct tm_file_redo {
  int file;      /* which of the two is written, -1: none */
  int64_t first; /* seq of its first group; 0: none */
  int64_t seq;   /* of the newest group that logs and index have */
  int64_t end;   /* where that one ends */
  int64_t upto;  /* groups up to this one are durable elsewhere: a file with them is free */
  int64_t syncs; /* odd: somebody syncs logs or index; if nobody does, he failed or died */
} tm_file_redo;

#define TM_SESSION_COLUMNS "tenant,id,user_id,metadata,flags,created,look_at,ended"
#define TM_OUTGOING_COLUMNS                                                                        \
  "conversation,revision,idx,tenant,created,due_at,dead_at,attempts,note,flags,body"
typedef enum tm_file_sql {
#define STATEMENT(name, text) TM_FSQL_##name,
#include "persistence/store_file.def"
#undef STATEMENT
  TM_FSQL_COUNT
} tm_file_sql;

typedef struct tm_file_index { /* one handle */
  sqlite3 *db;
  bool stale;                              /* something went wrong that a new handle may mend */
  sqlite3_stmt *statements[TM_FSQL_COUNT]; /* prepared at first use */
} tm_file_index;

struct tm_store_conn {
  tm_store *store;
  tm_store_role role;
  tm_file_index index;
  tm_file_redo redo; /* as the index says, between begin and finish */
  tm_buf group;      /* what the redo log will get */
  tm_buf old;        /* what takes it back from the small files */
  size_t ops;
  bool copying;       /* the index's log into its file */
  tm_buf frame, text; /* scratch */
};

struct tm_store {
  char *root; /* absolute, without links */
  int lock;   /* descriptor of <root>/lock, shared while the store is open */
  tm_store_opening opening;
  bool alone;   /* when it was opened, no other process had it open */
  bool rebuilt; /* when it was opened, the index was made anew */
  int64_t cut;  /* logs whose end was torn and was dropped then */
  int redo[2];  /* descriptors */
  uint64_t redo_inode[2], index_inode;
  tm_buf dead; /* claims found then, TM_ID_SIZE bytes each: nobody holds them any more */
  int timeout_ms;
  size_t row_max; /* bytes of a body */
  int64_t (*now_ms)(void *ud);
  void *now_ud;
  tm_store_conn *keeper;   /* opens, drains, closes; keeps the index's log in place */
  pthread_mutex_t writing; /* held from begin to finish: threads wait in turn, without a timeout */
  pthread_mutex_t mutex;   /* of all below */
  pthread_cond_t wake;
  pthread_t drainer;
  bool made, started, wanted, closing;
  bool doubt[2]; /* the drainer's: a redo log is free, but that may not be durable */
};

/* ---- error ---- */
tm_status tm__file_damaged(tm_error *err, const tm_store *s, const char *what);
/* Likewise of one file, `name` below the root. */
tm_status tm__file_small_damaged(tm_error *err, const tm_store *s, tm_slice name, tm_slice what);
/* journal.damaged, naming the conversation and its log. */
tm_status tm__file_log_damaged(tm_error *err, const tm_store *s, tm_slice id, int64_t at,
                               const char *what);
/* There is none where one should be: store.moved where the whole store is not there either. */
tm_status tm__file_log_missing(tm_error *err, const tm_store *s, tm_slice id);
tm_status tm__file_not_found(tm_error *err, const char *what);
tm_status tm__file_sql_fail(tm_error *err, const tm_store *s, sqlite3 *db, int rc,
                            const char *doing);

/* ---- place ---- */
tm_status tm__file_place(tm_store *s, const tm_store_options *o, tm_error *err);
tm_status tm__file_lock(tm_store *s, tm_error *err); /* alone or with others */
tm_status tm__file_lock_share(tm_store *s, tm_error *err);
bool tm__file_lock_alone(tm_store *s); /* nobody else has it open, from now on */
/* The store's own folders and the file that says what it is. */
tm_status tm__file_furnish(tm_store *s, tm_error *err);
void tm__file_path(tm_buf *out, const tm_store *s, const tm_file_name *name);
void tm__file_beside(tm_buf *out, const tm_store *s, const char *name); /* <root>/<name> */
const char *tm__file_folder(tm_file_what what);
tm_status tm__file_sync_folder(const char *path, tm_error *err); /* one that is gone is fine */
/* Every file of a kind, in no order. */
typedef tm_status (*tm_file_fn)(void *ud, tm_file_what what, const char *path, const char *name,
                                tm_error *err);
tm_status tm__file_each(const tm_store *s, tm_file_what what, tm_file_fn fn, void *ud,
                        tm_error *err);
tm_status tm__file_identify(tm_store *s, tm_error *err); /* remembers which index was opened */
/* Do the names still mean what was opened? */
tm_status tm__file_in_place(const tm_store *s, tm_error *err);
bool tm__file_write_all(int fd, tm_slice bytes, int64_t at); /* false: errno */
/* What can be read, up to `size`; -1: errno. */
int64_t tm__file_read_all(int fd, void *out, size_t size, int64_t at);
/* Every byte over itself, then one sync: who wrote it may have died before it was durable, or
 * because it could not be. false: errno */
bool tm__file_write_again(int fd);

/* ---- state ---- */
void tm__file_state_encode(tm_buf *b, const tm_file_state *state);
bool tm__file_state_decode(tm_file_state *out, tm_slice json, tm_buf *scratch);
/* A member that is text, or base64 where it is no UTF-8; ptr NULL writes nothing. */
void tm__file_text(tm_buf *b, const char *key, tm_slice text);
/* Appends it; false: damaged. *there: is there such a member? */
bool tm__file_text_decode(tm_slice json, const char *key, tm_buf *out, bool *there);
void tm__file_sum(unsigned char out[TM_FILE_SUM], const tm_slice *parts, size_t count);

/* ---- frame ---- */
typedef enum tm_file_look { TM_FILE_GOOD, TM_FILE_CUT, TM_FILE_BAD, TM_FILE_FAILED } tm_file_look;
typedef struct tm_file_frame {
  int64_t at, size;
  tm_slice head; /* JSON */
  bool has_row;
  tm_row row;    /* its id is the frame's place, or that of the frame it was moved from */
  int64_t moved; /* 0, or the frame that has this one's row now */
} tm_file_frame; /* slices point into the buffer it was read to */

void tm__file_log_begin(tm_buf *b, tm_slice id); /* a log's first line */
/* A frame that begins at `at` of the log. `row` NULL: none. `size` 0, or the bytes it must have. */
void tm__file_frame_encode(tm_buf *b, int64_t at, const tm_file_state *state, const tm_row *row,
                           int64_t size);
/* Stands where a row was that lies at `moved` now. */
void tm__file_frame_move(tm_buf *b, tm_slice id, int64_t at, int64_t moved, int64_t size);
/* TM_FILE_CUT: the log ends before the frame does. TM_FILE_FAILED: errno (ENOMEM too). */
tm_file_look tm__file_frame_read(tm_file_frame *f, tm_buf *bytes, int fd, tm_slice id, int64_t at);
/* How long the frame says it is. */
tm_file_look tm__file_frame_size(int fd, int64_t at, int64_t *size);
/* The same in memory; `bytes` begins with it. */
tm_file_look tm__file_frame_parse(tm_file_frame *f, tm_slice bytes, tm_slice id, int64_t at);
/* Where the newest frame begins; TM_FILE_BAD: not to be told from the end. */
tm_file_look tm__file_frame_last(int fd, int64_t end, int64_t *at);
/* Does a frame of the conversation's log begin at `at`? */
tm_status tm__file_frame_starts(tm_store_conn *c, int fd, const tm_file_entry *entry, int64_t at,
                                bool *there, tm_error *err);
/* The log's first line; *size: where the first frame begins. */
tm_file_look tm__file_log_check(int fd, tm_slice id, int64_t *size);

/* ---- small files: a line that says what it is, then the content ---- */
void tm__file_small_encode(tm_buf *b, const tm_file_name *name, tm_slice content);
/* What it is and has; slices into `names` and `bytes`. */
bool tm__file_small_decode(tm_file_name *name, tm_slice *content, tm_slice bytes, tm_buf *names);

tm_status tm__file_small_read(const char *path, tm_buf *out, tm_error *err);

/* ---- redo ---- */
tm_status tm__file_redo_open(tm_store *s, tm_error *err);
#define TM_FILE_GROUP_HEAD 64
/* Begins in `group` an op whose bytes are appended next. */
size_t tm__file_op_begin(tm_buf *group, const tm_file_op *op);
void tm__file_op_end(tm_buf *group, size_t begun);
/* The next op of a group; false at the end, or when it makes no sense (*at is then not the end). */
bool tm__file_op_next(tm_slice group, size_t *at, tm_file_op *out);
/* Makes the group durable behind redo->end; *end: where it ends. On failure it is taken back. */
tm_status tm__file_redo_append(tm_store *s, tm_file_redo *redo, tm_buf *group, size_t ops,
                               tm_error *err);
void tm__file_redo_cancel(tm_store *s, const tm_file_redo *before, const tm_file_redo *after);
/* The seq of the file's first group; 0: it is free. *io: it could not be read. */
int64_t tm__file_redo_first(const tm_store *s, int file, bool *io);
/* The ops of the group `seq` at `at` of a file whose groups begin at `first`; `again`: and makes it
 * durable. *there: is it? */
tm_status tm__file_redo_read(tm_store *s, int file, int64_t first, int64_t seq, int64_t at,
                             bool again, tm_buf *group, bool *there, tm_error *err);
tm_status tm__file_redo_free(tm_store *s, int file, tm_error *err);
/* Makes durable what a dead process left in the file, while nobody writes. */
tm_status tm__file_redo_settle(tm_store *s, int file, tm_error *err);
#define TM_FILE_REDO_BEGIN INT64_C(64)
bool tm__file_redo_is_full(const tm_file_redo *redo);

/* ---- index ---- */
/* An index that is there and whole; TM_ENOTFOUND: it must be made anew. */
tm_status tm__file_index_check(tm_store *s, tm_error *err);
tm_status tm__file_index_create(tm_store *s, tm_error *err); /* empty, instead of what is there */
tm_status tm__file_index_complete(tm_store_conn *c, tm_error *err); /* from now on it is used */
tm_status tm__file_index_open(tm_store_conn *c, tm_error *err);
void tm__file_index_close(tm_store_conn *c);
/* The last handle that closes may copy the index's log into its file: no sync has failed. */
void tm__file_index_leave(tm_store_conn *c);
/* Makes durable what is in the index's log, while nobody writes. */
tm_status tm__file_index_settle(const tm_store *s, tm_error *err);
tm_status tm__file_mend(tm_store_conn *c, tm_error *err); /* a handle that may be used */
/* Binds the parameters by `types`: i int64_t, t tm_slice (NULL for ptr NULL), b the same as a blob,
 * s const char *. */
tm_status tm__file_bind(tm_store_conn *c, tm_file_sql which, sqlite3_stmt **out, tm_error *err,
                        const char *types, ...);
tm_status tm__file_sql_conn_fail(tm_store_conn *c, int rc, const char *doing, tm_error *err);
/* *found: a row is there; the statement is then to be reset. */
tm_status tm__file_step(tm_store_conn *c, sqlite3_stmt *st, bool *found, tm_error *err);
tm_status tm__file_run(tm_store_conn *c, sqlite3_stmt *st, tm_error *err);
/* Bind and run. */
tm_status tm__file_do(tm_store_conn *c, tm_file_sql which, tm_error *err, const char *types, ...);
tm_slice tm__file_column(sqlite3_stmt *st, int at); /* until the next step */
tm_status tm__file_meta_read(tm_store_conn *c, tm_file_redo *out, tm_error *err);
tm_status tm__file_meta_write(tm_store_conn *c, const tm_file_redo *redo, tm_error *err);
tm_status tm__file_entry(tm_store_conn *c, tm_slice id, tm_file_entry *out, tm_error *err);
/* `before` NULL: not known. */
tm_status tm__file_entry_put(tm_store_conn *c, const tm_file_entry *entry,
                             const tm_file_entry *before, tm_error *err);
/* A log that cannot be used; head() says why. */
tm_status tm__file_entry_damaged(tm_store_conn *c, tm_slice id, int64_t at, const char *what,
                                 tm_error *err);

/* ---- apply ---- */
tm_status tm__file_apply_to_file(const tm_store *s, const tm_file_op *op, tm_error *err);
tm_status tm__file_apply_to_index(tm_store_conn *c, const tm_file_op *op, int64_t seq,
                                  tm_error *err);
tm_status tm__file_apply_small(tm_store_conn *c, const tm_file_name *name, tm_slice content,
                               tm_error *err);
tm_status tm__file_sync_path(tm_slice path, tm_error *err); /* one that is gone is fine */

/* ---- group ---- */
tm_status tm__file_begin(tm_store_conn *c, tm_error *err);
/* `status` TM_OK: makes durable and visible what was added since begin. Otherwise it never was. */
tm_status tm__file_finish(tm_store_conn *c, tm_status status, tm_error *err);
tm_status tm__file_finish_always(tm_store_conn *c, tm_error *err); /* also when nothing was added */
/* A frame at the end of the conversation's log; *entry becomes what it is then. */
tm_status tm__file_add_frame(tm_store_conn *c, tm_file_entry *entry, const tm_file_entry *before,
                             const tm_row *row, tm_error *err);
tm_status tm__file_add_small(tm_store_conn *c, const tm_file_name *name, tm_slice content,
                             tm_error *err);
tm_status tm__file_add_remove(tm_store_conn *c, const tm_file_name *name, tm_error *err);
/* Waits until no write is under way; what is read afterwards is whole. */
tm_status tm__file_barrier(tm_store_conn *c, tm_error *err);

/* ---- recover ---- */
tm_status tm__file_recover_store(tm_store *s, tm_error *err); /* alone */
/* The groups that logs and index do not have yet; within begin. */
tm_status tm__file_catch_up(tm_store_conn *c, tm_error *err);

/* ---- drain ---- */
void tm__file_drain_want(tm_store *s); /* in the background */
void tm__file_drain_stop(tm_store *s);
/* Everything that the redo log `file` holds is durable elsewhere, and it is free; not if it is the
 * one that is written, unless nobody but the caller has the store open (`alone`). One thread at a
 * time. */
tm_status tm__file_drain(tm_store_conn *c, int file, bool alone, tm_error *err);

/* ---- outbox: within begin, but for the first two ---- */
tm_status tm__file_event_index(tm_store_conn *c, const tm_file_name *name, tm_slice json,
                               tm_error *err); /* what an event's file says */
tm_status tm__file_event_unindex(tm_store_conn *c, const tm_file_name *name, tm_error *err);
tm_status tm__file_add_events(tm_store_conn *c, const tm_commit *item, tm_error *err);
tm_status tm__file_drop_events(tm_store_conn *c, tm_slice conversation, tm_error *err);

/* ---- the members of tm_store_backend ---- */
tm_status tm__file_recover(tm_store_conn *c, int64_t now, int64_t *taken, tm_error *err);
tm_status tm__file_probe(tm_store_conn *c, tm_error *err);
tm_status tm__file_commit(tm_store_conn *c, tm_commit *const *items, size_t count, tm_error *err);
tm_status tm__file_head(tm_store_conn *c, tm_slice id, tm_head *out, tm_error *err);
tm_status tm__file_chain(tm_store_conn *c, tm_slice conversation, int64_t row, bool follow_base,
                         tm_row_fn fn, void *ud, tm_error *err);
tm_status tm__file_list(tm_store_conn *c, const tm_list_filter *f, tm_head_fn fn, void *ud,
                        tm_error *err);
tm_status tm__file_due(tm_store_conn *c, int64_t now, int64_t hold_ms, size_t limit, tm_head_fn fn,
                       void *ud, tm_error *err);
tm_status tm__file_next_due(tm_store_conn *c, int64_t *out, tm_error *err);
tm_status tm__file_ended(tm_store_conn *c, int64_t before, size_t limit, tm_head_fn fn, void *ud,
                         tm_error *err);
tm_status tm__file_start_key(tm_store_conn *c, tm_slice tenant, uint64_t key, tm_start_key *out,
                             tm_error *err);
tm_status tm__file_key_of(tm_store_conn *c, tm_slice conversation, uint64_t *key, tm_start_key *out,
                          tm_error *err);
tm_status tm__file_session(tm_store_conn *c, tm_slice tenant, tm_slice id, tm_session_fn fn,
                           void *ud, tm_error *err);
tm_status tm__file_sessions(tm_store_conn *c, const tm_session_filter *f, tm_session_fn fn,
                            void *ud, tm_error *err);
tm_status tm__file_sessions_due(tm_store_conn *c, int64_t now, size_t limit, tm_session_fn fn,
                                void *ud, tm_error *err);
/* What it is in its file. */
void tm__file_session_encode(tm_buf *b, const tm_session *session);
tm_status tm__file_session_keep(tm_store_conn *c, const tm_session *session, tm_error *err);
tm_status tm__file_unreadable(tm_store_conn *c, tm_unreadable_fn fn, void *ud, tm_error *err);
tm_status tm__file_session_put(tm_store_conn *c, const tm_session *expect,
                               const tm_session *session, tm_error *err);
tm_status tm__file_session_drop(tm_store_conn *c, tm_slice tenant, tm_slice id, tm_error *err);
tm_status tm__file_outbox_take(tm_store_conn *c, int64_t now, int64_t until, size_t limit,
                               tm_outgoing_fn fn, void *ud, tm_error *err);
tm_status tm__file_outbox_settle(tm_store_conn *c, const tm_outgoing *event, tm_outcome outcome,
                                 int64_t at, tm_error *err);
tm_status tm__file_outbox_next(tm_store_conn *c, int64_t *out, tm_error *err);
tm_status tm__file_outbox_list(tm_store_conn *c, const tm_outgoing_filter *f, tm_outgoing_fn fn,
                               void *ud, tm_error *err);
tm_status tm__file_outbox_put(tm_store_conn *c, const tm_outgoing *event, tm_error *err);
tm_status tm__file_outbox_rewrite(tm_store_conn *c, const tm_outgoing *event, tm_error *err);
tm_status tm__file_purge(tm_store_conn *c, tm_slice id, int64_t expect_revision, bool undelivered,
                         tm_error *err);
tm_status tm__file_sweep(tm_store_conn *c, size_t limit, bool *more, tm_error *err);
tm_status tm__file_rewrite(tm_store_conn *c, const tm_row *rows, size_t count, tm_error *err);
tm_status tm__file_script_put(tm_store_conn *c, tm_slice system, tm_slice version, tm_slice sources,
                              tm_error *err);
tm_status tm__file_script_get(tm_store_conn *c, tm_slice system, tm_slice version, tm_buf *out,
                              tm_error *err);
tm_status tm__file_script_use(tm_store_conn *c, tm_slice system, tm_slice version, tm_error *err);
tm_status tm__file_script_drop(tm_store_conn *c, tm_slice system, tm_slice version, int64_t before,
                               tm_error *err);
tm_status tm__file_scripts(tm_store_conn *c, tm_script_fn fn, void *ud, tm_error *err);
tm_status tm__file_note_put(tm_store_conn *c, tm_slice name, tm_slice text, tm_error *err);
tm_status tm__file_note_get(tm_store_conn *c, tm_slice name, tm_buf *out, tm_error *err);
tm_status tm__file_note_swap(tm_store_conn *c, tm_slice name, tm_slice expect, tm_slice text,
                             tm_error *err);
tm_status tm__file_tenant_wake(tm_store_conn *c, tm_slice tenant, int64_t expect, int64_t wake_at,
                               tm_error *err);
tm_status tm__file_tenants_due(tm_store_conn *c, int64_t now, size_t limit, tm_tenant_fn fn,
                               void *ud, tm_error *err);
tm_status tm__file_tenants(tm_store_conn *c, tm_slice after, size_t limit, tm_tenant_fn fn,
                           void *ud, tm_error *err);
tm_status tm__file_tenant_drop(tm_store_conn *c, const tm_store_options *own, tm_error *err);
tm_status tm__file_inspect(tm_store_conn *c, bool deep, tm_finding_fn fn, void *ud, tm_error *err);

#endif
