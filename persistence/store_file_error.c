/* store_file_error.c - what went wrong, from what the system and the index say: a status, a code,
 * and what to do. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "persistence/store_file.h"

typedef struct failure {
  tm_status status;
  const char *code, *advice;
} failure;

static const failure busy = {TM_EUNAVAILABLE, "store.busy",
                             "another process writes or opens the store; try again"};
static const failure full = {TM_EUNAVAILABLE, "store.full",
                             "nothing is lost; free space on the disk and try again"};
static const failure read_only = {TM_EUNAVAILABLE, "store.read_only",
                                  "make the file and its folder writable and try again"};
static const failure descriptors = {TM_EUNAVAILABLE, "store.descriptors",
                                    "raise the limit of open files (ulimit -n) and try again"};
static const failure io = {TM_EUNAVAILABLE, "store.io",
                           "check the disk and the file's permissions, then try again"};
static const failure stale = {TM_EUNAVAILABLE, "store.io",
                              "the index is damaged; restart the host, which makes it anew from "
                              "the logs, and try again"};

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

tm_status tm__file_io_fail(tm_error *err, const char *doing, const char *path) {
  failure f = of_system(errno);
  if (errno == ENOMEM) return tm__fail_memory(err, "the store");
  return tm__fail(err, f.status, f.code, "store: %s %s: %s; %s", doing, path, strerror(errno),
                  f.advice);
}

tm_status tm__file_damaged(tm_error *err, const tm_store *s, const char *what) {
  return tm__fail(err, TM_ECORRUPT, "store.damaged",
                  "store %s is damaged: %s; it was left as it is: restore a backup, or name "
                  "another folder",
                  s->root, what);
}

tm_status tm__file_log_damaged(tm_error *err, const tm_store *s, tm_slice id, int64_t at,
                               const char *what) {
  tm_buf path = {0};
  tm__file_path(&path, s, &(tm_file_name){TM_FILE_CONVERSATION, id, {0}});
  int length = (int)(id.len < TM_ID_SIZE ? id.len : TM_ID_SIZE);
  tm_status status =
      tm__fail(err, TM_ECORRUPT, "journal.damaged",
               "the log of conversation %.*s, %s, is damaged at byte %lld: %s; restore it from a "
               "backup",
               length, id.ptr, tm__buf_ok(&path) ? path.ptr : "", (long long)at, what);
  if (err != NULL) (void)tm__copy(err->conversation_id, sizeof(err->conversation_id), id);
  tm__buf_free(&path);
  return status;
}

tm_status tm__file_not_found(tm_error *err, const char *what) {
  return tm__fail(err, TM_ENOTFOUND, "store.not_found", "the store has no such %s", what);
}

/* errno is the one of the call that made SQLite give up: it was 0 before. */
static failure of_sqlite(int rc) {
  switch (rc & 0xff) {
  case SQLITE_BUSY:
  case SQLITE_LOCKED: return busy;
  case SQLITE_FULL: return full;
  case SQLITE_READONLY:
  case SQLITE_PERM: return read_only;
  case SQLITE_CORRUPT: return errno == EIO ? io : stale;
  case SQLITE_NOTADB:
  case SQLITE_CONSTRAINT:
  case SQLITE_MISMATCH:
  case SQLITE_ERROR: return stale;
  default: return of_system(errno);
  }
}

/* Where SQLite cannot make a file it tries to read it, and says that there is none; errno is then
 * what making one beside it gives. */
static void ask_again(const tm_store *s) {
  tm_buf name = {0};
  tm__file_beside(&name, s, "index.probe");
  int fd =
      tm__buf_ok(&name) ? open(name.ptr, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600) : -1;
  int error = errno;
  if (fd >= 0) {
    (void)close(fd);
    (void)unlink(name.ptr);
    error = ENOENT;
  }
  tm__buf_free(&name);
  errno = error;
}

tm_status tm__file_sql_fail(tm_error *err, const tm_store *s, sqlite3 *db, int rc,
                            const char *doing) {
  if ((rc & 0xff) == SQLITE_NOMEM) return tm__fail_memory(err, "the store");
  if ((rc & 0xff) == SQLITE_CANTOPEN && errno == ENOENT) ask_again(s);
  failure f = of_sqlite(rc);
  const char *words = db != NULL && sqlite3_errcode(db) == rc ? sqlite3_errmsg(db) : NULL;
  return tm__fail(err, f.status, f.code, "store %s/index.db: %s: %s (SQLite error %d); %s", s->root,
                  doing, words != NULL ? words : sqlite3_errstr(rc), rc, f.advice);
}
