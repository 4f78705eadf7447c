/* store_sqlite_conn.c - one handle: its settings, prepared statements, reopening. */
#include <errno.h>
#include <stdlib.h>

#include "persistence/store_sqlite.h"

/* EXTRA: without a write-ahead log a commit is durable when the removal of its journal is. The log
 * may grow to 16 MiB before it is copied into the file, so that a page that is hot is copied once
 * for many turns; after a longer transaction it shrinks to 32 MiB again. */
#ifndef TM_SQLITE_LOG_PAGES /* a test has the first copy early */
#define TM_SQLITE_LOG_PAGES 4000
#endif
#define TEXT_OF(x) #x
#define NUMBER(x)  TEXT_OF(x)
#define SETTINGS                                                                                   \
  "PRAGMA synchronous=EXTRA;PRAGMA temp_store=MEMORY;PRAGMA journal_size_limit=33554432;"          \
  "PRAGMA wal_autocheckpoint=" NUMBER(TM_SQLITE_LOG_PAGES) ";"
#define WRITER_SETTINGS SETTINGS "PRAGMA cache_size=-8192"
#define READER_SETTINGS SETTINGS "PRAGMA cache_size=-1024;PRAGMA query_only=ON"

static const char *const statement_texts[] = {
#define STATEMENT(name, text) text,
#include "persistence/store_sqlite.def"
#undef STATEMENT
};

/* A full disk or a lock passes by itself; after anything else a new handle may do better. */
static bool wants_reopening(int rc) {
  int kind = rc & 0xff;
  return kind == SQLITE_IOERR || kind == SQLITE_CANTOPEN || kind == SQLITE_READONLY ||
         kind == SQLITE_PERM || kind == SQLITE_NOTADB || kind == SQLITE_CORRUPT ||
         kind == SQLITE_PROTOCOL;
}

tm_status tm__sqlite_conn_fail(tm_store_conn *c, int rc, const char *doing, tm_error *err) {
  if (wants_reopening(rc)) c->stale = true;
  if (rc == SQLITE_IOERR_DIR_FSYNC) tm__sqlite_doubt(c->store);
  return tm__sqlite_fail(err, c->store->path, c->db, rc, doing);
}

/* ---- the log ---- */

/* Whoever reads keeps the log from beginning anew, and readers that relieve each other would keep
 * it for ever. Twice as long as it should be, it waits for those that read at that moment (no read
 * takes long: see store_sqlite_read.c); who comes meanwhile finds all in the file. */
#define LOG_WAIT_MS 100

static int note_log(void *ud, sqlite3 *db, const char *name, int pages) {
  (void)db, (void)name;
  ((tm_store_conn *)ud)->log_pages = pages;
  return SQLITE_OK;
}

void tm__sqlite_tidy_log(tm_store_conn *c) {
  if (c->log_pages < TM_SQLITE_LOG_PAGES) c->log_next = TM_SQLITE_LOG_PAGES;
  if (c->log_pages < c->log_next) return;
  bool wait = c->log_pages >= 2 * TM_SQLITE_LOG_PAGES;
  c->log_next = c->log_pages + TM_SQLITE_LOG_PAGES / 4;
  (void)sqlite3_busy_timeout(c->db, wait ? LOG_WAIT_MS : 0);
  (void)sqlite3_wal_checkpoint_v2(
      c->db, NULL, wait ? SQLITE_CHECKPOINT_RESTART : SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
  (void)sqlite3_busy_timeout(c->db, c->store->timeout_ms); /* a failure spoils nothing */
}

/* ---- handles ---- */

tm_status tm__sqlite_handle(sqlite3 **out, const tm_store *s, tm_store_role role, tm_error *err) {
  tm_status status = TM_OK;
  sqlite3 *db = NULL;
  errno = 0;
  int rc = sqlite3_open_v2(
      s->path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE, NULL);
  if (rc == SQLITE_OK && sqlite3_db_readonly(db, "main") != 0) rc = SQLITE_READONLY;
  if (rc == SQLITE_OK) rc = sqlite3_busy_timeout(db, s->timeout_ms);
  if (rc == SQLITE_OK) rc = tm__sql_names(db);
  if (rc == SQLITE_OK)
    rc = sqlite3_exec(db, role == TM_STORE_WRITER ? WRITER_SETTINGS : READER_SETTINGS, NULL, NULL,
                      NULL);
  if (rc != SQLITE_OK) {
    status = tm__sqlite_fail(err, s->path, db, rc, "open");
    sqlite3_close(db);
    db = NULL;
  }
  *out = db;
  return status;
}

int tm__sqlite_int(sqlite3 *db, const char *sql, int64_t *out) {
  sqlite3_stmt *st = NULL;
  *out = 0;
  int rc = sqlite3_prepare_v2(db, sql, -1, &st, NULL);
  if (rc == SQLITE_OK && sqlite3_step(st) == SQLITE_ROW) *out = sqlite3_column_int64(st, 0);
  int end = sqlite3_finalize(st);
  return rc != SQLITE_OK ? rc : end;
}

static void close_handle(tm_store_conn *c) {
  for (size_t i = 0; i < TM_SQL_COUNT; i++) {
    sqlite3_finalize(c->statements[i]);
    c->statements[i] = NULL;
  }
  sqlite3_close(c->db);
  c->db = NULL;
}

static tm_status open_handle(tm_store_conn *c, tm_error *err) {
  int64_t version = 0;
  tm_status status = tm__sqlite_handle(&c->db, c->store, c->role, err);
  if (status != TM_OK) return status;
  int rc = tm__sqlite_int(c->db, "PRAGMA user_version", &version);
  if (rc != SQLITE_OK)
    status = tm__sqlite_fail(err, c->store->path, c->db, rc, "read the version");
  else if (version > tm__sqlite_newest())
    status = tm__sqlite_newer(err, c->store->path, version);
  else if (c->role == TM_STORE_WRITER)
    (void)sqlite3_wal_hook(c->db, note_log, c);
  if (status != TM_OK) close_handle(c);
  return status;
}

/* Not while a caller walks over a result of this handle. */
static bool is_idle(const tm_store_conn *c) {
  if (c->db == NULL) return true;
  for (sqlite3_stmt *st = NULL; (st = sqlite3_next_stmt(c->db, st)) != NULL;)
    if (sqlite3_stmt_busy(st) != 0) return false;
  return true;
}

tm_status tm__sqlite_mend(tm_store_conn *c, tm_error *err) {
  tm_status status = tm__sqlite_settle_doubts(c->store, err);
  if (status != TM_OK || !c->stale || !is_idle(c)) return status;
  close_handle(c);
  status = tm__sqlite_in_place(c->store, err);
  if (status == TM_OK) status = open_handle(c, err);
  c->stale = status != TM_OK;
  return status;
}

void tm__sqlite_drop(tm_store_conn *c) {
  close_handle(c);
  c->stale = true;
}

tm_status tm__sqlite_connect(tm_store_conn **out, tm_store *s, tm_store_role role, tm_error *err) {
  *out = NULL;
  tm_store_conn *c = calloc(1, sizeof(*c));
  if (c == NULL) return tm__fail_memory(err, "a connection of the store");
  c->store = s;
  c->role = role;
  tm_status status = open_handle(c, err);
  if (status == TM_OK)
    *out = c;
  else
    free(c);
  return status;
}

void tm__sqlite_disconnect(tm_store_conn *c) {
  if (c == NULL) return;
  close_handle(c);
  free(c);
}

/* ---- statements ---- */

tm_status tm__sqlite_statement(tm_store_conn *c, tm_sql which, sqlite3_stmt **out, tm_error *err) {
  tm_status status = tm__sqlite_mend(c, err);
  if (status != TM_OK) return status;
  if (c->statements[which] == NULL) {
    int rc = sqlite3_prepare_v3(c->db, statement_texts[which], -1, SQLITE_PREPARE_PERSISTENT,
                                &c->statements[which], NULL);
    if (rc != SQLITE_OK) return tm__sqlite_conn_fail(c, rc, "prepare a statement", err);
  }
  *out = c->statements[which];
  errno = 0; /* what it is after the statement has failed, says why */
  return TM_OK;
}

tm_status tm__sqlite_run(tm_store_conn *c, sqlite3_stmt *st, const char *doing, tm_error *err) {
  int rc;
  do {
    rc = sqlite3_step(st);
  } while (rc == SQLITE_ROW);
  tm_status status = rc == SQLITE_DONE ? TM_OK : tm__sqlite_conn_fail(c, rc, doing, err);
  sqlite3_reset(st);
  return status;
}

int tm__sqlite_bind(sqlite3_stmt *st, int at, tm_slice text) {
  return sqlite3_bind_text64(st, at, text.ptr, text.len, SQLITE_STATIC, SQLITE_UTF8);
}

int tm__sqlite_bind_text(sqlite3_stmt *st, int at, const char *text) {
  return sqlite3_bind_text(st, at, text, -1, SQLITE_STATIC);
}

tm_slice tm__sqlite_column(sqlite3_stmt *st, int at) {
  if (sqlite3_column_type(st, at) == SQLITE_NULL) return (tm_slice){NULL, 0};
  const char *bytes = sqlite3_column_blob(st, at); /* NULL for "" too */
  return (tm_slice){bytes != NULL ? bytes : "", (size_t)sqlite3_column_bytes(st, at)};
}
