/* store_sqlite_file.c - where the store lies: its folders, the lock that says who is alive, and a
 * new file. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "persistence/store_sqlite.h"

/* path + suffix, to be freed; NULL when out of memory. */
static char *join(const char *path, const char *suffix) {
  tm_buf b = {0};
  tm__buf_text(&b, path);
  tm__buf_text(&b, suffix);
  return tm__buf_take(&b);
}

/* ---- the path ---- */

/* The folder of `path` without links, then its last part. NULL and errno when there is none. */
static char *resolve(const char *path) {
  char *whole = realpath(path, NULL);
  if (whole != NULL || errno != ENOENT) return whole;
  const char *slash = strrchr(path, '/');
  const char *name = slash != NULL ? slash + 1 : path;
  tm_buf b = {0};
  tm__buf_add(&b, path, (size_t)(name - path));
  tm__buf_text(&b, ".");
  char *relative = tm__buf_take(&b);
  char *folder = relative != NULL ? realpath(relative, NULL) : NULL;
  free(relative);
  if (folder == NULL) return NULL;
  tm__buf_text(&b, folder);
  if (strcmp(folder, "/") != 0) tm__buf_text(&b, "/");
  tm__buf_text(&b, name);
  free(folder);
  return tm__buf_take(&b);
}

/* Where the store lies; NULL when out of memory. */
static char *file_of(const char *location, const char *tenant) {
  tm_buf b = {0};
  tm__buf_text(&b, location);
  if (tenant[0] != '\0') tm__buf_printf(&b, ".tenants/%s.db", tenant);
  return tm__buf_take(&b);
}

tm_status tm__sqlite_place(tm_store *s, const char *location, const char *tenant, tm_error *err) {
  size_t len = location != NULL ? strlen(location) : 0;
  if (len == 0 || location[len - 1] == '/' || len > PATH_MAX - 96)
    return tm__fail(err, TM_EINVAL, "store.location",
                    "store: \"%.200s\" is no name of a file; set workflow_persistence.sqlite."
                    "database_path",
                    location != NULL ? location : "");
  if (tenant == NULL) tenant = "";
  if (tenant[0] != '\0' && tm__store_tenant(tenant, err) != TM_OK) return TM_EINVAL;
  char *path = file_of(location, tenant);
  if (path == NULL) return tm__fail_memory(err, "the store's path");
  tm_status status = tm__disk_make_folders(path, err);
  if (status == TM_OK && (s->path = resolve(path)) == NULL)
    status = tm__disk_fail(err, "find", path);
  free(path);
  return status;
}

int64_t tm__sqlite_beside(const char *path, const char *suffix) {
  struct stat st;
  char *name = join(path, suffix);
  int64_t size = name != NULL && stat(name, &st) == 0 ? (int64_t)st.st_size : 0;
  free(name);
  return size;
}

/* ---- is it still there? ---- */

static bool identify(tm_sqlite_file *out, const char *path, const char *suffix) {
  struct stat st;
  char name[PATH_MAX];
  (void)snprintf(name, sizeof(name), "%s%s", path, suffix); /* fits: tm__sqlite_place */
  bool there = stat(name, &st) == 0;
  *out = there ? (tm_sqlite_file){(uint64_t)st.st_dev, (uint64_t)st.st_ino} : (tm_sqlite_file){0};
  return there;
}

static bool is_file(const tm_sqlite_file *f, const char *path, const char *suffix) {
  tm_sqlite_file now;
  return identify(&now, path, suffix) && now.device == f->device && now.inode == f->inode;
}

tm_status tm__sqlite_identify(tm_store *s, tm_error *err) {
  if (identify(&s->file, s->path, "") && (!s->wal || identify(&s->log, s->path, "-wal")))
    return TM_OK;
  return tm__disk_fail(err, "look at", s->path);
}

tm_status tm__sqlite_in_place(const tm_store *s, tm_error *err) {
  bool file = is_file(&s->file, s->path, "");
  if (file && (!s->wal || is_file(&s->log, s->path, "-wal"))) return TM_OK;
  return tm__fail(err, TM_EUNAVAILABLE, "store.moved",
                  "store %s%s was moved, deleted or replaced while the host uses it: put the same "
                  "file back and try again; a restart starts from what lies there",
                  s->path, file ? "-wal" : "");
}

/* ---- the lock ---- */

tm_status tm__sqlite_lock(tm_store *s, tm_error *err) {
  char *name = join(s->path, ".lock");
  if (name == NULL) return tm__fail_memory(err, "the store's lock");
  tm_status status = tm__disk_lock(&s->lock, &s->alone, name, s->path, s->timeout_ms, err);
  free(name);
  return status;
}

tm_status tm__sqlite_lock_share(tm_store *s, tm_error *err) {
  return s->alone ? tm__disk_lock_share(s->lock, s->path, err) : TM_OK;
}

/* ---- a new file ---- */

tm_status tm__sqlite_is_new(const tm_store *s, bool *is_new, tm_error *err) {
  struct stat st;
  int rc = stat(s->path, &st);
  *is_new = false;
  if (rc != 0 && errno != ENOENT) return tm__disk_fail(err, "look at", s->path);
  if (rc == 0 && !S_ISREG(st.st_mode))
    return tm__fail(err, TM_EINVAL, "store.location", "store: %s is not a file", s->path);
  if (rc == 0 && st.st_size > 0) return TM_OK;
  if (tm__sqlite_beside(s->path, "-wal") > 0 || tm__sqlite_beside(s->path, "-journal") > 0)
    return tm__sqlite_damaged(err, s->path,
                              "the file is missing or empty, but the log of a file lies beside it");
  *is_new = true;
  return TM_OK;
}

static void remove_draft(const char *draft) {
  static const char *const suffixes[] = {"", "-journal", "-wal", "-shm"};
  for (size_t i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
    char *name = join(draft, suffixes[i]);
    if (name != NULL) (void)unlink(name);
    free(name);
  }
}

static tm_status fill(const tm_store *s, const char *draft, sqlite3 *db, tm_error *err) {
  tm_buf sql = {0};
  tm__buf_printf(&sql, "PRAGMA auto_vacuum=%s;PRAGMA application_id=%d;",
                 s->auto_vacuum ? "INCREMENTAL" : "NONE", TM_SQLITE_APPLICATION);
  int rc = tm__buf_ok(&sql) ? sqlite3_exec(db, sql.ptr, NULL, NULL, NULL) : SQLITE_NOMEM;
  tm__buf_free(&sql);
  if (rc != SQLITE_OK) return tm__sqlite_fail(err, draft, db, rc, "make a new file");
  tm_status status =
      tm__sqlite_migrate(db, draft, tm__sqlite_migrations, tm__sqlite_migration_count, err);
  if (status != TM_OK || !s->wal) return status;
  rc = sqlite3_exec(db, "PRAGMA journal_mode=WAL", NULL, NULL, NULL);
  return rc == SQLITE_OK ? TM_OK : tm__sqlite_fail(err, draft, db, rc, "make a new file");
}

static tm_status make_draft(const tm_store *s, const char *draft, tm_error *err) {
  int fd = open(draft, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return tm__disk_fail(err, "make", draft);
  (void)close(fd);
  sqlite3 *db = NULL;
  int rc = sqlite3_open_v2(
      draft, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE, NULL);
  tm_status status = rc == SQLITE_OK ? fill(s, draft, db, err)
                                     : tm__sqlite_fail(err, draft, db, rc, "make a new file");
  rc = sqlite3_close(db);
  return status != TM_OK || rc == SQLITE_OK
             ? status
             : tm__sqlite_fail(err, draft, NULL, rc, "close the new file");
}

tm_status tm__sqlite_create(const tm_store *s, tm_error *err) {
  char *draft = join(s->path, ".new");
  if (draft == NULL) return tm__fail_memory(err, "the store's path");
  remove_draft(draft);
  tm_status status = make_draft(s, draft, err);
  if (status == TM_OK && tm__sqlite_beside(draft, "-wal") > 0)
    status = tm__fail(err, TM_EUNAVAILABLE, "store.io",
                      "store %s: the new file could not be written out; check the disk", s->path);
  if (status == TM_OK && rename(draft, s->path) != 0) status = tm__disk_fail(err, "make", s->path);
  remove_draft(draft);
  free(draft);
  return status;
}

/* ---- a tenant's file goes ---- */

/* The lock stays: who waits for it must get the one that others get. */
static tm_status remove_files(const char *path, tm_error *err) {
  static const char *const suffixes[] = {"", "-journal", "-wal", "-shm", ".new"};
  tm_status status = TM_OK;
  for (size_t i = 0; status == TM_OK && i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
    char *name = join(path, suffixes[i]);
    if (name == NULL)
      status = tm__fail_memory(err, "the store's path");
    else if (unlink(name) != 0 && errno != ENOENT)
      status = tm__disk_fail(err, "remove", name);
    free(name);
  }
  return status;
}

static tm_status forget(tm_store_conn *c, const char *tenant, tm_error *err) {
  sqlite3_stmt *st;
  tm_status status = tm__sqlite_begin(c, err);
  if (status != TM_OK) return status;
  status = tm__sqlite_statement(c, TM_SQL_DROP_TENANT, &st, err);
  if (status == TM_OK) {
    int rc = tm__sqlite_bind_text(st, 1, tenant);
    status = rc == SQLITE_OK ? tm__sqlite_run(c, st, "forget a tenant", err)
                             : tm__sqlite_conn_fail(c, rc, "bind a tenant", err);
  }
  return tm__sqlite_end(c, status, err);
}

tm_status tm__sqlite_tenant_drop(tm_store_conn *c, const tm_store_options *own, tm_error *err) {
  tm_store s = {.lock = -1, .timeout_ms = c->store->timeout_ms};
  tm_status status = tm__sqlite_place(&s, own->location, own->tenant, err);
  if (status == TM_OK) status = tm__sqlite_lock(&s, err);
  if (status == TM_OK && !s.alone) status = tm__disk_in_use(s.path, err);
  if (status == TM_OK) status = remove_files(s.path, err);
  if (status == TM_OK) status = forget(c, own->tenant, err);
  if (s.lock >= 0) (void)close(s.lock);
  free(s.path);
  return status;
}
