/* store_file_index.c - the index: who waits for what, which is the newest frame of which log. A
 * SQLite file, since it must be searched in many orders by many processes and not live in memory: a
 * conversation that waits costs disk only. It has nothing that the logs do not have, needs no sync
 * when a turn is committed, and is made anew when it is missing, damaged or older than the logs.
 * Its write lock is the store's: one process writes at a time. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "persistence/store_file.h"

#define APPLICATION 0x54694d66 /* "TiMf" */
#define VERSION     3
#ifndef TM_FILE_INDEX_PAGES /* a test has its log copied early */
#define TM_FILE_INDEX_PAGES 1000
#endif
#define SMALL_ENOUGH (INT64_C(8) << 20) /* files up to here are looked through when opened */

/* A head's indexes have only columns that a turn rarely changes. */
static const char schema[] =
    "CREATE TABLE heads(id TEXT NOT NULL PRIMARY KEY,tenant TEXT NOT NULL,session TEXT NOT NULL,"
    "system TEXT NOT NULL,flow TEXT NOT NULL,status INTEGER NOT NULL,claim TEXT NOT NULL,"
    "wake_at INTEGER NOT NULL,ended INTEGER NOT NULL,revision INTEGER NOT NULL,"
    "size INTEGER NOT NULL,seq INTEGER NOT NULL,head TEXT NOT NULL) STRICT,WITHOUT ROWID;"
    "CREATE INDEX heads_tenant ON heads(tenant,id);"
    "CREATE INDEX heads_session ON heads(tenant,session,id);"
    "CREATE INDEX heads_system ON heads(tenant,system,id);"
    "CREATE INDEX heads_status ON heads(tenant,status,id);"
    "CREATE INDEX heads_wake ON heads(wake_at) WHERE wake_at>0;"
    "CREATE INDEX heads_ended ON heads(ended) WHERE ended>0;"
    "CREATE INDEX heads_claim ON heads(claim) WHERE claim<>'';"
    "CREATE TABLE damaged(id TEXT NOT NULL PRIMARY KEY,\"at\" INTEGER NOT NULL,what TEXT NOT NULL)"
    "STRICT;"
    "CREATE TABLE start_keys(tenant TEXT NOT NULL,key INTEGER NOT NULL,conversation TEXT NOT NULL,"
    "body INTEGER NOT NULL,answer INTEGER NOT NULL,created INTEGER NOT NULL,"
    "PRIMARY KEY(tenant,key)) STRICT,WITHOUT ROWID;"
    "CREATE INDEX start_keys_created ON start_keys(created);"
    "CREATE INDEX start_keys_conversation ON start_keys(conversation);"
    "CREATE TABLE sessions(tenant TEXT NOT NULL,id TEXT NOT NULL,user_id BLOB,metadata BLOB,"
    "flags INTEGER NOT NULL,created INTEGER NOT NULL,look_at INTEGER NOT NULL,"
    "ended INTEGER NOT NULL,PRIMARY KEY(tenant,id)) STRICT,WITHOUT ROWID;"
    "CREATE INDEX sessions_look ON sessions(look_at) WHERE look_at>0;"
    "CREATE INDEX sessions_open ON sessions(tenant,created,id) WHERE ended=0;"
    "CREATE INDEX sessions_ended ON sessions(tenant,created,id) WHERE ended>0;"
    "CREATE TABLE session_counts(scope INTEGER NOT NULL,tenant TEXT NOT NULL,"
    "open INTEGER NOT NULL,PRIMARY KEY(scope,tenant)) STRICT,WITHOUT ROWID;"
    "CREATE TRIGGER sessions_in AFTER INSERT ON sessions WHEN new.ended=0 BEGIN "
    "INSERT INTO session_counts VALUES(0,'',1),(1,new.tenant,1) ON CONFLICT DO UPDATE SET "
    "open=open+1;END;"
    "CREATE TRIGGER sessions_out AFTER DELETE ON sessions WHEN old.ended=0 BEGIN "
    "INSERT INTO session_counts VALUES(0,'',-1),(1,old.tenant,-1) ON CONFLICT DO UPDATE SET "
    "open=open-1;DELETE FROM session_counts WHERE scope=1 AND tenant=old.tenant AND open=0;END;"
    "CREATE TRIGGER sessions_over AFTER UPDATE ON sessions WHEN (old.ended=0)<>(new.ended=0) BEGIN "
    "INSERT INTO session_counts VALUES(0,'',iif(new.ended=0,1,-1)),"
    "(1,new.tenant,iif(new.ended=0,1,-1)) ON CONFLICT DO UPDATE SET open=open+excluded.open;"
    "DELETE FROM session_counts WHERE scope=1 AND tenant=new.tenant AND open=0;END;"
    "CREATE TABLE scripts(system TEXT NOT NULL,version TEXT NOT NULL,used INTEGER NOT NULL,"
    "PRIMARY KEY(system,version)) STRICT,WITHOUT ROWID;"
    "CREATE TABLE notes(name TEXT NOT NULL PRIMARY KEY,text BLOB NOT NULL) STRICT;"
    "CREATE TABLE tenants(tenant TEXT NOT NULL PRIMARY KEY,wake_at INTEGER NOT NULL) STRICT;"
    "CREATE INDEX tenants_wake ON tenants(wake_at) WHERE wake_at>0;"
    "CREATE TABLE outbox(conversation TEXT NOT NULL,revision INTEGER NOT NULL,idx INTEGER NOT NULL,"
    "tenant TEXT NOT NULL,created INTEGER NOT NULL,due_at INTEGER NOT NULL,"
    "dead_at INTEGER NOT NULL,attempts INTEGER NOT NULL,note TEXT NOT NULL,flags INTEGER NOT NULL,"
    "body BLOB NOT NULL,PRIMARY KEY(conversation,revision,idx)) STRICT,WITHOUT ROWID;"
    "CREATE INDEX outbox_due ON outbox(due_at) WHERE due_at>0;"
    /* One row, when the index is complete: what the logs and it have of the redo log. */
    "CREATE TABLE meta(one INTEGER PRIMARY KEY CHECK(one=1),seq INTEGER NOT NULL,"
    "first INTEGER NOT NULL,file INTEGER NOT NULL,\"end\" INTEGER NOT NULL,"
    "drained INTEGER NOT NULL,upto INTEGER NOT NULL) STRICT;";

/* Consistent after a power cut, if not up to the last commit: the redo log has the rest. */
#define SETTINGS                                                                                   \
  "PRAGMA synchronous=NORMAL;PRAGMA temp_store=MEMORY;PRAGMA journal_size_limit=33554432;"
#define WRITER_SETTINGS SETTINGS "PRAGMA cache_size=-8192"
#define READER_SETTINGS SETTINGS "PRAGMA cache_size=-1024"

static const char *const statement_texts[] = {
#define STATEMENT(name, text) text,
#include "persistence/store_file.def"
#undef STATEMENT
};

/* ---- the file ---- */

static tm_status remove_beside(const tm_store *s, const char *name, tm_error *err) {
  tm_buf path = {0};
  tm__file_beside(&path, s, name);
  tm_status status = !tm__buf_ok(&path) ? tm__fail_memory(err, "the store's path") : TM_OK;
  if (status == TM_OK && unlink(path.ptr) != 0 && errno != ENOENT)
    status = tm__disk_fail(err, "remove", path.ptr);
  tm__buf_free(&path);
  return status;
}

/* The index is not to be trusted: the next open makes it anew. */
static void doubt(const tm_store *s) {
  tm_buf path = {0};
  tm__file_beside(&path, s, "index.doubt");
  int fd =
      tm__buf_ok(&path) ? open(path.ptr, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600) : -1;
  if (fd >= 0) {
    (void)fsync(fd);
    (void)close(fd);
  }
  tm__buf_free(&path);
}

static tm_status open_db(const tm_store *s, sqlite3 **out, tm_error *err) {
  tm_buf path = {0};
  tm__file_beside(&path, s, "index.db");
  *out = NULL;
  if (!tm__buf_ok(&path)) return tm__fail_memory(err, "the store's path");
  errno = 0;
  int rc = sqlite3_open_v2(path.ptr, out,
                           SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE |
                               SQLITE_OPEN_NOFOLLOW,
                           NULL);
  if (rc == SQLITE_OK && sqlite3_db_readonly(*out, "main") != 0) rc = SQLITE_READONLY;
  if (rc == SQLITE_OK) rc = sqlite3_busy_timeout(*out, s->timeout_ms);
  if (rc == SQLITE_OK) rc = tm__sql_names(*out);
  if (rc == SQLITE_OK)
    rc = sqlite3_db_config(*out, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, (int *)NULL);
  tm_status status = rc == SQLITE_OK ? TM_OK : tm__file_sql_fail(err, s, *out, rc, "open");
  tm__buf_free(&path);
  return status;
}

static int number(sqlite3 *db, const char *sql, int64_t *out) {
  sqlite3_stmt *st = NULL;
  *out = -1;
  int rc = sqlite3_prepare_v2(db, sql, -1, &st, NULL);
  if (rc == SQLITE_OK && sqlite3_step(st) == SQLITE_ROW) *out = sqlite3_column_int64(st, 0);
  int end = sqlite3_finalize(st);
  return rc != SQLITE_OK ? rc : end;
}

static int is_whole(sqlite3 *db, bool *whole) {
  int64_t id = 0, version = 0, complete = 0, pages = 0, size = 0, bad = 0;
  *whole = false;
  int rc = number(db, "PRAGMA application_id", &id);
  if (rc == SQLITE_OK) rc = number(db, "PRAGMA user_version", &version);
  if (rc != SQLITE_OK || id != APPLICATION || version != VERSION) return rc;
  rc = number(db, "SELECT count(*) FROM meta", &complete);
  if (rc == SQLITE_OK) rc = number(db, "PRAGMA page_count", &pages);
  if (rc == SQLITE_OK) rc = number(db, "PRAGMA page_size", &size);
  if (rc == SQLITE_OK && pages * size <= SMALL_ENOUGH)
    rc = number(db, "SELECT count(*) FROM pragma_quick_check(1) WHERE quick_check<>'ok'", &bad);
  *whole = rc == SQLITE_OK && complete == 1 && bad == 0;
  return rc;
}

tm_status tm__file_index_check(tm_store *s, tm_error *err) {
  tm_buf path = {0};
  sqlite3 *db = NULL;
  bool whole = false, there, doubt;
  tm__file_beside(&path, s, "index.doubt");
  doubt = tm__buf_ok(&path) && access(path.ptr, F_OK) == 0;
  tm__file_beside(&path, s, "index.db");
  there = tm__buf_ok(&path) && access(path.ptr, F_OK) == 0;
  tm_status status = tm__buf_ok(&path) ? TM_OK : tm__fail_memory(err, "the store's path");
  tm__buf_free(&path);
  if (status != TM_OK) return status;
  if (!there || doubt) return TM_ENOTFOUND;
  status = open_db(s, &db, err);
  if (status == TM_OK) {
    int rc = is_whole(db, &whole);
    int kind = rc & 0xff;
    bool damaged = kind == SQLITE_CORRUPT || kind == SQLITE_NOTADB || kind == SQLITE_ERROR;
    if (rc != SQLITE_OK && (!damaged || errno == EIO))
      status = tm__file_sql_fail(err, s, db, rc, "look at it");
  }
  sqlite3_close(db);
  return status == TM_OK && !whole ? TM_ENOTFOUND : status;
}

/* SQLite gives its other files the mode of the first. */
static tm_status make_file(const tm_store *s, tm_error *err) {
  tm_buf path = {0};
  tm__file_beside(&path, s, "index.db");
  if (!tm__buf_ok(&path)) return tm__fail_memory(err, "the store's path");
  int fd = open(path.ptr, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
  tm_status status = fd >= 0 ? TM_OK : tm__disk_fail(err, "make", path.ptr);
  if (fd >= 0) (void)close(fd);
  tm__buf_free(&path);
  return status;
}

tm_status tm__file_index_create(tm_store *s, tm_error *err) {
  static const char *const old[] = {"index.db-wal", "index.db-shm", "index.db-journal", "index.db"};
  sqlite3 *db = NULL;
  char pragmas[96];
  tm_status status = TM_OK;
  for (size_t i = 0; status == TM_OK && i < sizeof(old) / sizeof(old[0]); i++)
    status = remove_beside(s, old[i], err);
  if (status == TM_OK) status = make_file(s, err);
  if (status == TM_OK) status = open_db(s, &db, err);
  if (status == TM_OK) {
    (void)snprintf(pragmas, sizeof(pragmas),
                   "PRAGMA application_id=%d;PRAGMA user_version=%d;PRAGMA journal_mode=WAL;",
                   APPLICATION, VERSION);
    errno = 0;
    int rc = sqlite3_exec(db, pragmas, NULL, NULL, NULL);
    if (rc == SQLITE_OK) rc = sqlite3_exec(db, schema, NULL, NULL, NULL);
    if (rc != SQLITE_OK) status = tm__file_sql_fail(err, s, db, rc, "make it");
  }
  sqlite3_close(db);
  return status;
}

tm_status tm__file_index_complete(tm_store_conn *c, tm_error *err) {
  errno = 0;
  int rc = sqlite3_exec(c->index.db, "INSERT OR REPLACE INTO meta VALUES(1,0,0,-1,0,0,0)", NULL,
                        NULL, NULL);
  if (rc != SQLITE_OK) return tm__file_sql_conn_fail(c, rc, "complete it", err);
  return remove_beside(c->store, "index.doubt", err);
}

/* ---- its log ---- */

tm_status tm__file_index_settle(const tm_store *s, tm_error *err) {
  tm_buf path = {0};
  tm__file_beside(&path, s, "index.db-wal");
  if (!tm__buf_ok(&path)) return tm__fail_memory(err, "the store's path");
  int fd = open(path.ptr, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
  bool ok = fd >= 0 ? tm__file_write_again(fd) : errno == ENOENT;
  tm_status status = ok ? TM_OK : tm__disk_fail(err, "make durable", path.ptr);
  if (fd >= 0) (void)close(fd);
  tm__buf_free(&path);
  return status;
}

/* Copies it into the file, as SQLite would after a commit, but not while somebody else syncs or
 * after a sync has failed: a part of the log may then be in the system's memory only, and if the
 * power fails in the middle, the file is a mixture. */
static int copy_log(void *ud, sqlite3 *db, const char *name, int pages) {
  tm_store_conn *c = ud;
  tm_file_redo redo;
  if (pages < TM_FILE_INDEX_PAGES || c->copying || c->index.stale) return SQLITE_OK;
  c->copying = true;
  bool ok = tm__file_meta_read(c, &redo, NULL) == TM_OK && redo.syncs % 2 == 0 &&
            tm__file_do(c, TM_FSQL_SYNCS, NULL, "ii", redo.syncs, redo.syncs + 1) == TM_OK &&
            sqlite3_changes(db) == 1;
  if (ok) {
    int rc = sqlite3_wal_checkpoint_v2(db, name, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
    if (rc == SQLITE_OK || rc == SQLITE_BUSY)
      (void)tm__file_do(c, TM_FSQL_SYNCS, NULL, "ii", redo.syncs + 1, redo.syncs + 2);
  }
  c->copying = false;
  return SQLITE_OK;
}

void tm__file_index_leave(tm_store_conn *c) {
  tm_file_redo redo;
  if (tm__file_meta_read(c, &redo, NULL) == TM_OK && redo.syncs % 2 == 0)
    (void)sqlite3_db_config(c->index.db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0, (int *)NULL);
}

/* ---- handles ---- */

void tm__file_index_close(tm_store_conn *c) {
  for (size_t i = 0; i < TM_FSQL_COUNT; i++) {
    sqlite3_finalize(c->index.statements[i]);
    c->index.statements[i] = NULL;
  }
  sqlite3_close(c->index.db);
  c->index.db = NULL;
}

tm_status tm__file_index_open(tm_store_conn *c, tm_error *err) {
  tm_status status = open_db(c->store, &c->index.db, err);
  if (status == TM_OK) {
    int rc =
        sqlite3_exec(c->index.db, c->role == TM_STORE_WRITER ? WRITER_SETTINGS : READER_SETTINGS,
                     NULL, NULL, NULL);
    if (rc != SQLITE_OK) status = tm__file_sql_fail(err, c->store, c->index.db, rc, "open");
    (void)sqlite3_wal_hook(c->index.db, copy_log, c);
  }
  c->index.stale = status != TM_OK;
  if (status != TM_OK) tm__file_index_close(c);
  return status;
}

/* A full disk or a lock passes by itself; after anything else a new handle may do better. */
tm_status tm__file_sql_conn_fail(tm_store_conn *c, int rc, const char *doing, tm_error *err) {
  int kind = rc & 0xff, error = errno;
  bool damaged = (kind == SQLITE_CORRUPT && error != EIO) || kind == SQLITE_NOTADB;
  c->index.stale = c->index.stale || damaged || kind == SQLITE_IOERR || kind == SQLITE_CANTOPEN ||
                   kind == SQLITE_READONLY || kind == SQLITE_PERM || kind == SQLITE_PROTOCOL;
  if (damaged) doubt(c->store);
  errno = error;
  return tm__file_sql_fail(err, c->store, c->index.db, rc, doing);
}

/* Not while a caller walks over a result of this handle. */
static bool is_idle(const tm_store_conn *c) {
  if (c->index.db == NULL) return true;
  for (sqlite3_stmt *st = NULL; (st = sqlite3_next_stmt(c->index.db, st)) != NULL;)
    if (sqlite3_stmt_busy(st) != 0) return false;
  return true;
}

tm_status tm__file_mend(tm_store_conn *c, tm_error *err) {
  if (!c->index.stale || !is_idle(c)) return TM_OK;
  tm__file_index_close(c);
  tm_status status = tm__file_in_place(c->store, err);
  return status == TM_OK ? tm__file_index_open(c, err) : status;
}

/* ---- statements ---- */

static int bind(sqlite3_stmt *st, const char *types, va_list args) {
  int rc = SQLITE_OK;
  for (int at = 1; *types != '\0' && rc == SQLITE_OK; at++, types++) {
    tm_slice text;
    switch (*types) {
    case 'i': rc = sqlite3_bind_int64(st, at, va_arg(args, int64_t)); break;
    case 's': rc = sqlite3_bind_text(st, at, va_arg(args, const char *), -1, SQLITE_STATIC); break;
    case 'b':
      text = va_arg(args, tm_slice);
      rc = text.ptr == NULL ? sqlite3_bind_null(st, at)
                            : sqlite3_bind_blob64(st, at, text.ptr, text.len, SQLITE_STATIC);
      break;
    default:
      text = va_arg(args, tm_slice);
      rc = sqlite3_bind_text64(st, at, text.ptr, text.len, SQLITE_STATIC, SQLITE_UTF8);
      break;
    }
  }
  return rc;
}

static tm_status prepare(tm_store_conn *c, tm_file_sql which, sqlite3_stmt **out, tm_error *err) {
  tm_status status = tm__file_mend(c, err);
  if (status != TM_OK) return status;
  errno = 0; /* what it is after the statement has failed, says why */
  if (c->index.statements[which] == NULL) {
    int rc = sqlite3_prepare_v3(c->index.db, statement_texts[which], -1, SQLITE_PREPARE_PERSISTENT,
                                &c->index.statements[which], NULL);
    if (rc != SQLITE_OK) return tm__file_sql_conn_fail(c, rc, "prepare a statement", err);
  }
  *out = c->index.statements[which];
  return TM_OK;
}

tm_status tm__file_bind(tm_store_conn *c, tm_file_sql which, sqlite3_stmt **out, tm_error *err,
                        const char *types, ...) {
  tm_status status = prepare(c, which, out, err);
  if (status != TM_OK) return status;
  va_list args;
  va_start(args, types);
  int rc = bind(*out, types, args);
  va_end(args);
  return rc == SQLITE_OK ? TM_OK : tm__file_sql_conn_fail(c, rc, "bind a statement", err);
}

tm_status tm__file_step(tm_store_conn *c, sqlite3_stmt *st, bool *found, tm_error *err) {
  int rc = sqlite3_step(st);
  *found = rc == SQLITE_ROW;
  if (rc == SQLITE_ROW || rc == SQLITE_DONE) return TM_OK;
  tm_status status = tm__file_sql_conn_fail(c, rc, "use it", err);
  sqlite3_reset(st);
  return status;
}

tm_status tm__file_run(tm_store_conn *c, sqlite3_stmt *st, tm_error *err) {
  bool found;
  tm_status status = tm__file_step(c, st, &found, err);
  sqlite3_reset(st);
  return status;
}

tm_status tm__file_do(tm_store_conn *c, tm_file_sql which, tm_error *err, const char *types, ...) {
  sqlite3_stmt *st = NULL;
  tm_status status = prepare(c, which, &st, err);
  if (status != TM_OK) return status;
  va_list args;
  va_start(args, types);
  int rc = bind(st, types, args);
  va_end(args);
  return rc == SQLITE_OK ? tm__file_run(c, st, err)
                         : tm__file_sql_conn_fail(c, rc, "bind a statement", err);
}

tm_slice tm__file_column(sqlite3_stmt *st, int at) {
  if (sqlite3_column_type(st, at) == SQLITE_NULL) return (tm_slice){NULL, 0};
  const char *bytes = sqlite3_column_blob(st, at); /* NULL for "" too */
  return (tm_slice){bytes != NULL ? bytes : "", (size_t)sqlite3_column_bytes(st, at)};
}
