/* store_sqlite.h - what the files of the SQLite backend share; private to persistence/.
 *
 * store_sqlite.c        opening, closing, the registration table
 * store_sqlite_file.c   the place: directories, the lock that says who is alive, a new file
 * store_sqlite_check.c  is this file ours and undamaged? Looks, never writes
 * store_sqlite_settle.c what a dead process left is made durable
 * store_sqlite_schema.c tables, migrations, the guide's tables as views
 * store_sqlite_error.c  what went wrong: status, code, advice
 * store_sqlite_conn.c   one handle: settings, prepared statements, reopening
 * store_sqlite_write.c  commits
 * store_sqlite_read.c   heads, rows, lists, deadlines, start keys
 * store_sqlite_purge.c  what goes: purging, sweeping, other bodies for rows
 * store_sqlite_sets.c   sessions, scripts, notes, tenants
 * store_sqlite_outbox.c events to be delivered
 * store_sqlite_inspect.c what is wrong or unsafe
 */
#ifndef TM_PERSISTENCE_STORE_SQLITE_H
#define TM_PERSISTENCE_STORE_SQLITE_H

#include <sqlite3.h>

#include "persistence/disk.h"
#include "persistence/sql_names.h"
#include "persistence/store.h"
#include "persistence/views.h"

#define TM_SQLITE_APPLICATION 0x54694d6c /* "TiMl" */

typedef struct tm_sqlite_file {
  uint64_t device, inode;
} tm_sqlite_file;

struct tm_store {           /* immutable once open, but for `dead` (the writer's) */
  char *path;               /* absolute */
  int lock;                 /* descriptor of <path>.lock, shared while the store is open */
  bool alone;               /* when it was opened, no other process had it open */
  tm_sqlite_file file, log; /* those that were opened; names can come to mean others */
  tm_buf dead;     /* claims found then, TM_ID_SIZE bytes each: nobody holds them any more */
  sqlite3 *anchor; /* keeps the write-ahead log's index alive while connections come and go */
  int timeout_ms;
  bool wal, auto_vacuum;
  tm_store_opening opening;
  size_t record_bytes_max;
  unsigned doubts, settled; /* atomic: commits that everybody sees and a power cut takes back */
  char views[TM_VIEWS][TM_VIEW_NAME];
  int64_t (*now_ms)(void *ud);
  void *now_ud;
};

typedef enum tm_sql {
#define STATEMENT(name, text) TM_SQL_##name,
#include "persistence/store_sqlite.def"
#undef STATEMENT
  TM_SQL_COUNT
} tm_sql;

struct tm_store_conn {
  tm_store *store;
  tm_store_role role;
  sqlite3 *db;
  int log_pages, log_next; /* in the log after the newest commit; when it is looked at again */
  bool stale; /* something went wrong that a new handle may mend: reopen before the next use */
  sqlite3_stmt *statements[TM_SQL_COUNT]; /* prepared at first use */
};

/* The columns of a head, a session and a journal row in the order in which they are read. */
#define TM_HEAD_COLUMNS                                                                            \
  "id,tenant,session,system,flow,version,step,claim,status,revision,tip,wake_at,created,recent,"   \
  "ended"
#define TM_SESSION_COLUMNS "tenant,id,user_id,metadata,flags,created,look_at,ended"
#define TM_ROW_COLUMNS     "id,parent,base,conversation,revision,kind,created,checkpoint,flags,body"

#define TM_OUTGOING_COLUMNS                                                                        \
  "conversation,revision,idx,tenant,created,due_at,dead_at,attempts,note,flags,body"

/* ---- error ---- */
/* tm__disk_sql_fail, where a file that is not what it should be is damaged. */
tm_status tm__sqlite_fail(tm_error *err, const char *path, sqlite3 *db, int rc, const char *doing);
tm_status tm__sqlite_damaged(tm_error *err, const char *path, const char *what);

/* ---- conn ---- */
/* A handle on the existing file with this store's settings. */
tm_status tm__sqlite_handle(sqlite3 **out, const tm_store *s, tm_store_role role, tm_error *err);
/* One integer from a statement without parameters; *out is 0 when there is no row. */
int tm__sqlite_int(sqlite3 *db, const char *sql, int64_t *out);
tm_status tm__sqlite_mend(tm_store_conn *c, tm_error *err); /* nothing is in doubt or stale */
/* After a commit: copies the log into the file when it has grown enough. */
void tm__sqlite_tidy_log(tm_store_conn *c);
/* Closes the handle, and with it a transaction; the next use opens another. */
void tm__sqlite_drop(tm_store_conn *c);
/* A statement ready to be bound; mends a stale connection first. */
tm_status tm__sqlite_statement(tm_store_conn *c, tm_sql which, sqlite3_stmt **out, tm_error *err);
/* tm__sqlite_fail, and remembers whether the handle needs to be reopened. */
tm_status tm__sqlite_conn_fail(tm_store_conn *c, int rc, const char *doing, tm_error *err);
/* Steps a statement that gives no rows, and resets it. */
tm_status tm__sqlite_run(tm_store_conn *c, sqlite3_stmt *st, const char *doing, tm_error *err);
int tm__sqlite_bind(sqlite3_stmt *st, int at, tm_slice text); /* NULL for ptr NULL */
int tm__sqlite_bind_text(sqlite3_stmt *st, int at, const char *text);
tm_slice tm__sqlite_column(sqlite3_stmt *st, int at); /* until the next step */
tm_status tm__sqlite_connect(tm_store_conn **out, tm_store *s, tm_store_role role, tm_error *err);
void tm__sqlite_disconnect(tm_store_conn *c);

/* ---- file ---- */
/* Path, directories. A tenant's own file lies beside that of all: x.db.tenants/NAME.db. */
tm_status tm__sqlite_place(tm_store *s, const char *location, const char *tenant, tm_error *err);
/* Alone or with others; waits while another process is busy opening the store. */
tm_status tm__sqlite_lock(tm_store *s, tm_error *err);
tm_status tm__sqlite_lock_share(tm_store *s, tm_error *err);
/* Is there nothing yet? An absent file beside a log with content is damage, not a new store. */
tm_status tm__sqlite_is_new(const tm_store *s, bool *is_new, tm_error *err);
/* Makes the file complete under another name, then gives it its own: a crash leaves all or nothing.
 */
tm_status tm__sqlite_create(const tm_store *s, tm_error *err);
int64_t tm__sqlite_beside(const char *path, const char *suffix); /* size; 0 when there is none */

/* Remembers which files the anchor has opened. */
tm_status tm__sqlite_identify(tm_store *s, tm_error *err);
/* Do the names still mean them? What is written into a file without a name is lost at the end. */
tm_status tm__sqlite_in_place(const tm_store *s, tm_error *err);

/* ---- settle ---- */
/* What earlier processes left of a store that exists, and its name, survive a power cut from now
 * on. */
tm_status tm__sqlite_settle(const tm_store *s, tm_error *err);
/* The same for the name of the log that was opened. */
tm_status tm__sqlite_settle_log(const tm_store *s, tm_error *err);
/* A commit became visible, but its folder could not be synced. */
void tm__sqlite_doubt(tm_store *s);
/* Before anything is read or written: no commit is in doubt. */
tm_status tm__sqlite_settle_doubts(tm_store *s, tm_error *err);

/* ---- check ---- */
/* Looks at the file without changing it or leaving anything beside it. *recover: it was left in
 * the middle of a write without a log; SQLite must mend it before `tm__sqlite_check_content`. */
tm_status tm__sqlite_check(const tm_store *s, bool *recover, tm_error *err);
tm_status tm__sqlite_check_content(sqlite3 *db, const char *path, tm_error *err);

/* ---- schema ---- */
typedef struct tm_sqlite_migration {
  int version; /* user_version after it */
  const char *sql;
} tm_sqlite_migration;
extern const tm_sqlite_migration tm__sqlite_migrations[];
extern const size_t tm__sqlite_migration_count;
int tm__sqlite_newest(void); /* the version that this program writes */
tm_status tm__sqlite_newer(tm_error *err, const char *path, int64_t version);
/* Brings the file to the newest of `list`, in one transaction; a newer file is TM_ECORRUPT. */
tm_status tm__sqlite_migrate(sqlite3 *db, const char *path, const tm_sqlite_migration *list,
                             size_t count, tm_error *err);
/* Copies and checks the names of the views. */
tm_status tm__sqlite_view_names(tm_store *s, const char *const *names, tm_error *err);
/* Makes the views anew when their names or definitions changed. */
tm_status tm__sqlite_views(sqlite3 *db, const tm_store *s, tm_error *err);

/* ---- write ---- */
/* A transaction for writing, and its ends. `end` commits when `status` is TM_OK, else rolls back.
 */
tm_status tm__sqlite_begin(tm_store_conn *c, tm_error *err);
tm_status tm__sqlite_end(tm_store_conn *c, tm_status status, tm_error *err);
/* A statement without parameters and rows. */
tm_status tm__sqlite_do(tm_store_conn *c, tm_sql which, const char *doing, tm_error *err);
int tm__sqlite_bind_body(sqlite3_stmt *st, int at, uint32_t flags, tm_slice body);
/* Forgets at most 32 old keys; *count: how many. */
tm_status tm__sqlite_expire_keys(tm_store_conn *c, int64_t now, int *count, tm_error *err);
tm_status tm__sqlite_commit(tm_store_conn *c, tm_commit *const *items, size_t count, tm_error *err);
tm_status tm__sqlite_probe(tm_store_conn *c, tm_error *err);
tm_status tm__sqlite_recover(tm_store_conn *c, int64_t now, int64_t *taken, tm_error *err);

/* ---- what goes: as the members of tm_store_backend ---- */
tm_status tm__sqlite_purge(tm_store_conn *c, tm_slice id, int64_t expect_revision, bool undelivered,
                           tm_error *err);
tm_status tm__sqlite_sweep(tm_store_conn *c, size_t limit, bool *more, tm_error *err);
tm_status tm__sqlite_rewrite(tm_store_conn *c, const tm_row *rows, size_t count, tm_error *err);
tm_status tm__sqlite_inspect(tm_store_conn *c, bool deep, tm_finding_fn fn, void *ud,
                             tm_error *err);

/* ---- read: likewise ---- */
tm_status tm__sqlite_head(tm_store_conn *c, tm_slice id, tm_head *out, tm_error *err);
tm_status tm__sqlite_chain(tm_store_conn *c, tm_slice conversation, int64_t row, bool follow_base,
                           tm_row_fn fn, void *ud, tm_error *err);
tm_status tm__sqlite_list(tm_store_conn *c, const tm_list_filter *f, tm_head_fn fn, void *ud,
                          tm_error *err);
tm_status tm__sqlite_due(tm_store_conn *c, int64_t now, int64_t hold_ms, size_t limit,
                         tm_head_fn fn, void *ud, tm_error *err);
tm_status tm__sqlite_ended(tm_store_conn *c, int64_t before, size_t limit, tm_head_fn fn, void *ud,
                           tm_error *err);
tm_status tm__sqlite_next_due(tm_store_conn *c, int64_t *out, tm_error *err);
tm_status tm__sqlite_start_key(tm_store_conn *c, tm_slice tenant, uint64_t key, tm_start_key *out,
                               tm_error *err);
tm_status tm__sqlite_key_of(tm_store_conn *c, tm_slice conversation, uint64_t *key,
                            tm_start_key *out, tm_error *err);
tm_status tm__sqlite_find_key(tm_store_conn *c, tm_slice tenant, uint64_t key, tm_start_key *out,
                              bool *found, tm_error *err);
tm_status tm__sqlite_not_found(tm_error *err, const char *what);
/* A column of text, copied; false: it does not fit. */
bool tm__sqlite_text(sqlite3_stmt *st, int at, char *out, size_t size);

/* ---- sets ---- */
/* In a commit: *fits says whether there is room for the session; then it is joined. */
tm_status tm__sqlite_session_fits(tm_store_conn *c, const tm_commit *item, bool *fits,
                                  tm_error *err);
tm_status tm__sqlite_session_join(tm_store_conn *c, const tm_commit *item, tm_error *err);
tm_status tm__sqlite_session(tm_store_conn *c, tm_slice tenant, tm_slice id, tm_session_fn fn,
                             void *ud, tm_error *err);
tm_status tm__sqlite_sessions(tm_store_conn *c, const tm_session_filter *f, tm_session_fn fn,
                              void *ud, tm_error *err);
tm_status tm__sqlite_unreadable(tm_store_conn *c, tm_unreadable_fn fn, void *ud, tm_error *err);
tm_status tm__sqlite_sessions_due(tm_store_conn *c, int64_t now, size_t limit, tm_session_fn fn,
                                  void *ud, tm_error *err);
/* The events of an item that was applied. */
tm_status tm__sqlite_add_events(tm_store_conn *c, const tm_commit *item, tm_error *err);
tm_status tm__sqlite_outbox_take(tm_store_conn *c, int64_t now, int64_t until, size_t limit,
                                 tm_outgoing_fn fn, void *ud, tm_error *err);
tm_status tm__sqlite_outbox_settle(tm_store_conn *c, const tm_outgoing *event, tm_outcome outcome,
                                   int64_t at, tm_error *err);
tm_status tm__sqlite_outbox_next(tm_store_conn *c, int64_t *out, tm_error *err);
tm_status tm__sqlite_outbox_list(tm_store_conn *c, const tm_outgoing_filter *f, tm_outgoing_fn fn,
                                 void *ud, tm_error *err);
tm_status tm__sqlite_outbox_put(tm_store_conn *c, const tm_outgoing *event, tm_error *err);
tm_status tm__sqlite_outbox_rewrite(tm_store_conn *c, const tm_outgoing *event, tm_error *err);
tm_status tm__sqlite_session_put(tm_store_conn *c, const tm_session *expect,
                                 const tm_session *session, tm_error *err);
tm_status tm__sqlite_session_drop(tm_store_conn *c, tm_slice tenant, tm_slice id, tm_error *err);
tm_status tm__sqlite_script_put(tm_store_conn *c, tm_slice system, tm_slice version,
                                tm_slice sources, tm_error *err);
tm_status tm__sqlite_script_get(tm_store_conn *c, tm_slice system, tm_slice version, tm_buf *out,
                                tm_error *err);
tm_status tm__sqlite_script_use(tm_store_conn *c, tm_slice system, tm_slice version, tm_error *err);
tm_status tm__sqlite_script_drop(tm_store_conn *c, tm_slice system, tm_slice version,
                                 int64_t before, tm_error *err);
tm_status tm__sqlite_scripts(tm_store_conn *c, tm_script_fn fn, void *ud, tm_error *err);
tm_status tm__sqlite_note_put(tm_store_conn *c, tm_slice name, tm_slice text, tm_error *err);
tm_status tm__sqlite_note_get(tm_store_conn *c, tm_slice name, tm_buf *out, tm_error *err);
tm_status tm__sqlite_note_swap(tm_store_conn *c, tm_slice name, tm_slice expect, tm_slice text,
                               tm_error *err);
tm_status tm__sqlite_tenant_wake(tm_store_conn *c, tm_slice tenant, int64_t expect, int64_t wake_at,
                                 tm_error *err);
tm_status tm__sqlite_tenants_due(tm_store_conn *c, int64_t now, size_t limit, tm_tenant_fn fn,
                                 void *ud, tm_error *err);
tm_status tm__sqlite_tenants(tm_store_conn *c, tm_slice after, size_t limit, tm_tenant_fn fn,
                             void *ud, tm_error *err);
tm_status tm__sqlite_tenant_drop(tm_store_conn *c, const tm_store_options *own, tm_error *err);

#endif
