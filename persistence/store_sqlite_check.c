/* store_sqlite_check.c - is this file ours, of a version we know, undamaged? Looks without changing
 * a byte of it or leaving a log beside it: damage is for a person to look at. The file is read
 * through SQLite's own handle only, since closing another one would drop this process's locks. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "persistence/store_sqlite.h"

#define HEADER_SIZE  100
#define SMALL_ENOUGH (INT64_C(8) << 20) /* files up to here are looked through page by page */
#define READ_ONLY    (SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE)

/* ---- the header ---- */

typedef struct header {
  unsigned char bytes[HEADER_SIZE];
  int64_t size; /* of the file */
} header;

static uint32_t number_at(const header *h, size_t at) {
  const unsigned char *p = h->bytes + at;
  return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static uint32_t page_size(const header *h) {
  uint32_t n = (uint32_t)h->bytes[16] << 8 | h->bytes[17];
  return n == 1 ? 65536 : n;
}

static tm_status read_header(const char *path, header *h, tm_error *err) {
  sqlite3 *db = NULL;
  sqlite3_file *file = NULL;
  int rc = sqlite3_open_v2(path, &db, READ_ONLY, NULL);
  if (rc == SQLITE_OK) rc = sqlite3_file_control(db, "main", SQLITE_FCNTL_FILE_POINTER, &file);
  if (rc == SQLITE_OK) {
    sqlite3_int64 size = 0;
    rc = file->pMethods->xFileSize(file, &size);
    h->size = size;
  }
  if (rc == SQLITE_OK && h->size >= HEADER_SIZE)
    rc = file->pMethods->xRead(file, h->bytes, HEADER_SIZE, 0);
  tm_status status =
      rc == SQLITE_OK ? TM_OK : tm__sqlite_fail(err, path, db, rc, "read the header");
  sqlite3_close(db);
  return status;
}

static tm_status check_header(const tm_store *s, const header *h, bool log, tm_error *err) {
  uint32_t page = page_size(h);
  if (h->size < HEADER_SIZE || memcmp(h->bytes, "SQLite format 3", 16) != 0)
    return tm__sqlite_damaged(err, s->path, "it is no SQLite database");
  if (number_at(h, 68) != TM_SQLITE_APPLICATION)
    return tm__fail(err, TM_ECORRUPT, "store.foreign",
                    "%s is a database of another program (application_id %u); it was left as it is:"
                    " name another file",
                    s->path, number_at(h, 68));
  if (number_at(h, 60) > (uint32_t)tm__sqlite_newest())
    return tm__sqlite_newer(err, s->path, number_at(h, 60));
  if (page < 512 || (page & (page - 1)) != 0 || h->bytes[18] > 2 || h->bytes[19] > 2)
    return tm__sqlite_damaged(err, s->path, "its header makes no sense");
  if (!log && h->size % page != 0) /* half a page; SQLite itself misses whole ones */
    return tm__sqlite_damaged(err, s->path, "its end is missing");
  return TM_OK;
}

/* ---- the content ---- */

/* A statement whose rows must be readable; `first` (may be NULL): an answer the first must give. */
static int look(sqlite3 *db, const char *sql, const char *first) {
  sqlite3_stmt *st = NULL;
  int rc = sqlite3_prepare_v2(db, sql, -1, &st, NULL);
  if (rc != SQLITE_OK) return rc;
  errno = 0; /* a check that ran out of memory calls the pages bad that it could not look at */
  rc = sqlite3_step(st);
  if (rc == SQLITE_ROW && first != NULL) {
    const unsigned char *text = sqlite3_column_text(st, 0);
    bool same = text != NULL && strcmp((const char *)text, first) == 0;
    if (!same) rc = errno == ENOMEM ? SQLITE_NOMEM : SQLITE_CORRUPT;
  }
  while (rc == SQLITE_ROW) {
    for (int i = 0; i < sqlite3_column_count(st); i++)
      (void)sqlite3_column_blob(st, i);
    rc = sqlite3_step(st);
  }
  int end = sqlite3_finalize(st);
  return rc == SQLITE_DONE ? end : rc;
}

/* Every table and index can be entered, and the newest rows and their heads agree. */
static const char *const looks[][2] = {
    {"SELECT " TM_ROW_COLUMNS " FROM journal ORDER BY id DESC LIMIT 8", NULL},
    {"SELECT " TM_HEAD_COLUMNS " FROM heads ORDER BY id DESC LIMIT 8", NULL},
    {"SELECT " TM_HEAD_COLUMNS " FROM heads ORDER BY id LIMIT 8", NULL},
    {"SELECT " TM_HEAD_COLUMNS " FROM heads INDEXED BY heads_wake WHERE wake_at>0 "
     "ORDER BY wake_at LIMIT 8",
     NULL},
    {"SELECT count(*) FROM (SELECT j.id,h.tip FROM (SELECT id,conversation FROM journal ORDER BY "
     "id "
     "DESC LIMIT 1) j LEFT JOIN heads h ON h.id=j.conversation) n WHERE n.id IS NOT n.tip "
     "AND n.id NOT IN (SELECT p.tip FROM purged p WHERE p.tip=n.id)",
     "0"},
    {"SELECT tenant,key,conversation,body,answer,created FROM start_keys ORDER BY created LIMIT 8",
     NULL},
    {"SELECT " TM_SESSION_COLUMNS " FROM sessions LIMIT 8", NULL},
    {"SELECT " TM_HEAD_COLUMNS " FROM heads INDEXED BY heads_ended WHERE ended>0 "
     "ORDER BY ended LIMIT 8",
     NULL},
    {"SELECT tenant,id FROM sessions INDEXED BY sessions_look WHERE look_at>0 "
     "ORDER BY look_at LIMIT 8",
     NULL},
    {"SELECT scope,tenant,open FROM session_counts LIMIT 8", NULL},
    {"SELECT tip,conversation FROM purged LIMIT 8", NULL},
    {"SELECT conversation,revision,idx,due_at FROM outbox INDEXED BY outbox_due WHERE due_at>0 "
     "LIMIT 8",
     NULL},
    {"SELECT tenant,wake_at FROM tenants INDEXED BY tenants_wake WHERE wake_at>0 LIMIT 8", NULL},
    {"SELECT name,text FROM notes LIMIT 8", NULL},
    {"SELECT system,version,length(sources),created FROM scripts LIMIT 8", NULL},
    {"SELECT kind,name,sql FROM views", NULL},
};

static tm_status look_around(sqlite3 *db, const char *path, tm_error *err) {
  int rc = SQLITE_OK;
  int64_t pages = 0, bytes = 0;
  errno = 0;
  for (size_t i = 0; rc == SQLITE_OK && i < sizeof(looks) / sizeof(looks[0]); i++)
    rc = look(db, looks[i][0], looks[i][1]);
  if (rc == SQLITE_OK) rc = tm__sqlite_int(db, "PRAGMA page_count", &pages);
  if (rc == SQLITE_OK) rc = tm__sqlite_int(db, "PRAGMA page_size", &bytes);
  if (rc == SQLITE_OK && pages * bytes <= SMALL_ENOUGH)
    rc = look(db, "PRAGMA quick_check(1)", "ok");
  rc = tm__disk_sql_cause(rc);
  switch (rc & 0xff) {
  case SQLITE_OK: return TM_OK;
  case SQLITE_CORRUPT:
  case SQLITE_NOTADB:
  case SQLITE_ERROR: /* a table or column is not there */
    return tm__sqlite_damaged(
        err, path, rc == SQLITE_CORRUPT ? "its pages contradict each other" : sqlite3_errmsg(db));
  default: return tm__sqlite_fail(err, path, db, rc, "check the content");
  }
}

tm_status tm__sqlite_check_content(sqlite3 *db, const char *path, tm_error *err) {
  int64_t version = 0, tables = 0;
  int rc = tm__sqlite_int(db, "PRAGMA user_version", &version);
  if (rc == SQLITE_OK) rc = tm__sqlite_int(db, "SELECT count(*) FROM sqlite_schema", &tables);
  if (rc != SQLITE_OK) return tm__sqlite_fail(err, path, db, rc, "read the schema");
  if (version > tm__sqlite_newest()) return tm__sqlite_newer(err, path, version);
  if (version < tm__sqlite_newest()) return TM_OK; /* its tables are another version's */
  return look_around(db, path, err);
}

/* ---- both ---- */

/* "file:<path>?<query>" with every byte escaped that could mean something. */
static char *uri(const char *path, const char *query) {
  tm_buf b = {0};
  tm__buf_text(&b, "file:");
  for (const char *p = path; *p != '\0'; p++) {
    bool plain = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9') ||
                 *p == '/' || *p == '.' || *p == '-' || *p == '_';
    if (plain)
      tm__buf_byte(&b, *p);
    else
      tm__buf_printf(&b, "%%%02x", (unsigned char)*p);
  }
  tm__buf_text(&b, query);
  return tm__buf_take(&b);
}

/* Without a log nothing but the file is needed: `immutable` keeps SQLite from making one. With the
 * log of a crashed or living process its content counts; a reader leaves both as they are. */
static tm_status open_to_look(const tm_store *s, bool log, sqlite3 **out, tm_error *err) {
  char *name = uri(s->path, log ? "?mode=ro" : "?mode=ro&immutable=1");
  if (name == NULL) return tm__fail_memory(err, "the store's path");
  int rc = sqlite3_open_v2(name, out, READ_ONLY | SQLITE_OPEN_URI, NULL);
  free(name);
  if (rc == SQLITE_OK) rc = sqlite3_busy_timeout(*out, s->timeout_ms);
  return rc == SQLITE_OK ? TM_OK : tm__sqlite_fail(err, s->path, *out, rc, "open to look");
}

tm_status tm__sqlite_check(const tm_store *s, bool *recover, tm_error *err) {
  header h = {0};
  sqlite3 *db = NULL;
  bool journal = tm__sqlite_beside(s->path, "-journal") > 0;
  bool log = tm__sqlite_beside(s->path, "-wal") > 0;
  *recover = false;
  tm_status status = read_header(s->path, &h, err);
  if (status == TM_OK) status = check_header(s, &h, log || journal, err);
  if (status != TM_OK) return status;
  if (journal) { /* only a writer can roll it back */
    *recover = true;
    return TM_OK;
  }
  bool others_write_into_it = !s->alone && h.bytes[18] == 1;
  status = open_to_look(s, log || others_write_into_it, &db, err);
  if (status == TM_OK) status = tm__sqlite_check_content(db, s->path, err);
  sqlite3_close(db);
  return status;
}
