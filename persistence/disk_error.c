/* disk_error.c - what went wrong, from what the system and SQLite say: a status, a code, and what
 * to do. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "persistence/disk.h"

static const tm_fault busy = {TM_EUNAVAILABLE, "store.busy",
                              "another process holds the lock; try again"};
static const tm_fault full = {TM_EUNAVAILABLE, "store.full",
                              "nothing is lost; free space on the disk and try again"};
static const tm_fault read_only = {TM_EUNAVAILABLE, "store.read_only",
                                   "make the file and its folder writable and try again"};
static const tm_fault descriptors = {TM_EUNAVAILABLE, "store.descriptors",
                                     "raise the limit of open files (ulimit -n) and try again"};
static const tm_fault io = {TM_EUNAVAILABLE, "store.io",
                            "check the disk and the file's permissions, then try again"};

static const tm_fault *of_system(int error) {
  switch (error) {
  case ENOSPC:
  case EDQUOT:
  case EFBIG: return &full;
  case EROFS:
  case EACCES:
  case EPERM: return &read_only;
  case EMFILE:
  case ENFILE: return &descriptors;
  default: return &io;
  }
}

tm_status tm__disk_fail(tm_error *err, const char *doing, const char *path) {
  const tm_fault *f = of_system(errno);
  if (errno == ENOMEM) return tm__fail_memory(err, "the store");
  return tm__fail(err, f->status, f->code, "store: %s %s: %s; %s", doing, path, strerror(errno),
                  f->advice);
}

/* ---- SQLite ---- */

static const tm_fault *of_sqlite(int rc, const tm_fault *unusable) {
  switch (rc & 0xff) {
  case SQLITE_BUSY:
  case SQLITE_LOCKED: return &busy;
  case SQLITE_FULL: return &full;
  case SQLITE_READONLY:
  case SQLITE_PERM: return &read_only;
  case SQLITE_CORRUPT:
  case SQLITE_NOTADB:
  case SQLITE_CONSTRAINT:
  case SQLITE_MISMATCH:
  case SQLITE_ERROR: return unusable; /* our SQL does not fit the tables */
  default: return of_system(errno);
  }
}

/* Where SQLite cannot make a file it tries to read it, and says that there is none; errno is then
 * what making one beside `path` gives. */
static void ask_again(const char *path) {
  tm_buf b = {0};
  tm__buf_text(&b, path);
  tm__buf_text(&b, ".probe");
  char *name = tm__buf_take(&b);
  int fd = name != NULL ? open(name, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600) : -1;
  int error = errno;
  if (fd >= 0) {
    (void)close(fd);
    (void)unlink(name);
    error = ENOENT;
  }
  free(name);
  errno = error;
}

int tm__disk_sql_cause(int rc) {
  return rc == SQLITE_CORRUPT && errno == EIO ? SQLITE_IOERR_READ : rc;
}

tm_status tm__disk_sql_fail(tm_error *err, const char *path, sqlite3 *db, int rc, const char *doing,
                            const tm_fault *unusable) {
  if ((rc & 0xff) == SQLITE_NOMEM) return tm__fail_memory(err, "the store");
  if ((rc & 0xff) == SQLITE_CANTOPEN && errno == ENOENT) ask_again(path);
  const tm_fault *f = of_sqlite(tm__disk_sql_cause(rc), unusable);
  const char *words = db != NULL && sqlite3_errcode(db) == rc ? sqlite3_errmsg(db) : NULL;
  return tm__fail(err, f->status, f->code, "store %s: %s: %s (SQLite error %d); %s", path, doing,
                  words != NULL ? words : sqlite3_errstr(rc), rc, f->advice);
}
