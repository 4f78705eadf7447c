/* store_sqlite_error.c - what went wrong, from what SQLite and the system say: a status, a code,
 * and what to do. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "persistence/store_sqlite.h"

typedef struct failure {
  tm_status status;
  const char *code, *advice;
} failure;

static const failure busy = {TM_EUNAVAILABLE, "store.busy",
                             "another process holds the lock; try again"};
static const failure full = {TM_EUNAVAILABLE, "store.full",
                             "nothing is lost; free space on the disk and try again"};
static const failure read_only = {TM_EUNAVAILABLE, "store.read_only",
                                  "make the file and its folder writable and try again"};
static const failure descriptors = {TM_EUNAVAILABLE, "store.descriptors",
                                    "raise the limit of open files (ulimit -n) and try again"};
static const failure io = {TM_EUNAVAILABLE, "store.io",
                           "check the disk and the file's permissions, then try again"};
static const failure damaged = {TM_ECORRUPT, "store.damaged",
                                "the file is damaged; restore a backup"};

static failure of_system(int error) {
  switch (error) {
  case ENOSPC:
  case EDQUOT:
  case EFBIG: return full;
  case EROFS:
  case EACCES:
  case EPERM: return read_only;
  case EMFILE:
  case ENFILE: return descriptors;
  default: return io;
  }
}

/* errno is the one of the call that made SQLite give up: it was 0 before. */
static failure of_sqlite(int rc) {
  switch (rc & 0xff) {
  case SQLITE_BUSY:
  case SQLITE_LOCKED: return busy;
  case SQLITE_FULL: return full;
  case SQLITE_READONLY:
  case SQLITE_PERM: return read_only;
  case SQLITE_CORRUPT:
  case SQLITE_NOTADB:
  case SQLITE_CONSTRAINT:
  case SQLITE_MISMATCH:
  case SQLITE_ERROR: return damaged; /* our SQL does not fit the tables */
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

int tm__sqlite_cause(int rc) {
  return rc == SQLITE_CORRUPT && errno == EIO ? SQLITE_IOERR_READ : rc;
}

tm_status tm__sqlite_fail(tm_error *err, const char *path, sqlite3 *db, int rc, const char *doing) {
  if ((rc & 0xff) == SQLITE_NOMEM) return tm__fail_memory(err, "the store");
  if ((rc & 0xff) == SQLITE_TOOBIG)
    return tm__fail(err, TM_ETOOLARGE, "store.too_large", "store %s: %s: the record is too large",
                    path, doing);
  if ((rc & 0xff) == SQLITE_CANTOPEN && errno == ENOENT) ask_again(path);
  failure f = of_sqlite(tm__sqlite_cause(rc));
  const char *words = db != NULL && sqlite3_errcode(db) == rc ? sqlite3_errmsg(db) : NULL;
  return tm__fail(err, f.status, f.code, "store %s: %s: %s (SQLite error %d); %s", path, doing,
                  words != NULL ? words : sqlite3_errstr(rc), rc, f.advice);
}

tm_status tm__sqlite_io_fail(tm_error *err, const char *doing, const char *path) {
  failure f = of_system(errno);
  return tm__fail(err, f.status, f.code, "store: %s %s: %s; %s", doing, path, strerror(errno),
                  f.advice);
}

tm_status tm__sqlite_damaged(tm_error *err, const char *path, const char *what) {
  return tm__fail(err, TM_ECORRUPT, "store.damaged",
                  "store %s is damaged: %s; it was left as it is: restore a backup, or name "
                  "another file",
                  path, what);
}
