/* store_sqlite_settle.c - makes durable what an earlier process left, before anybody builds on it.
 *
 * A process that dies leaves its last writes in the system's memory. SQLite takes a transaction in
 * a log for committed when it can read it, synced or not, and answers given from it must survive a
 * power cut. A sync alone is not enough: where one has failed before, the system takes what it
 * could not write for clean, and the next sync succeeds without it. So the log is written again. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "persistence/store_sqlite.h"

#define CHUNK 65536

/* ---- logs ---- */

static bool write_all(int fd, const char *bytes, size_t size, off_t at) {
  while (size > 0) {
    ssize_t n = pwrite(fd, bytes, size, at);
    if (n < 0) return false;
    bytes += n;
    size -= (size_t)n;
    at += n;
  }
  return true;
}

/* Every byte of `fd` over itself. */
static bool rewrite(int fd) {
  char bytes[CHUNK];
  ssize_t n;
  for (off_t at = 0; (n = pread(fd, bytes, sizeof(bytes), at)) > 0; at += n)
    if (!write_all(fd, bytes, (size_t)n, at)) return false;
  return n == 0;
}

/* A file system that puts even the same bytes elsewhere may have no room for them: a host on a full
 * disk starts all the same, and a sync must do. */
static bool make_durable(int fd) {
  return (rewrite(fd) || errno == ENOSPC || errno == EDQUOT || errno == EFBIG) && fsync(fd) == 0;
}

static tm_status rewrite_log(const tm_store *s, const char *suffix, tm_error *err) {
  tm_buf b = {0};
  tm__buf_printf(&b, "%s%s", s->path, suffix);
  char *name = tm__buf_take(&b);
  if (name == NULL) return tm__fail_memory(err, "the store's path");
  int fd = open(name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
  bool absent = fd < 0 && errno == ENOENT;
  tm_status status =
      absent || (fd >= 0 && make_durable(fd)) ? TM_OK : tm__disk_fail(err, "make durable", name);
  if (fd >= 0) (void)close(fd);
  free(name);
  return status;
}

/* ---- folders ---- */

tm_status tm__sqlite_settle(const tm_store *s, tm_error *err) {
  if (!s->alone) return TM_OK; /* who has it open has done it, and writes into the log */
  tm_status status = tm__disk_sync_upwards(s->path, err);
  if (status == TM_OK) status = rewrite_log(s, "-wal", err);
  if (status == TM_OK) status = rewrite_log(s, "-journal", err);
  return status;
}

/* SQLite makes the log's name durable with its first sync, and does not look whether it could. */
tm_status tm__sqlite_settle_log(const tm_store *s, tm_error *err) {
  return s->alone && s->wal ? tm__disk_sync_upwards(s->path, err) : TM_OK;
}

/* ---- doubts ---- */

/* Without a log a commit is done when the name of its journal is gone. When only the folder's sync
 * fails, its client hears that it failed; but who repeats it finds it done, and the journal may
 * come back with the power. So nobody reads it before a sync went well that began after it. */
void tm__sqlite_doubt(tm_store *s) {
  (void)__atomic_add_fetch(&s->doubts, 1, __ATOMIC_ACQ_REL);
}

tm_status tm__sqlite_settle_doubts(tm_store *s, tm_error *err) {
  unsigned doubts = __atomic_load_n(&s->doubts, __ATOMIC_ACQUIRE);
  if (doubts == __atomic_load_n(&s->settled, __ATOMIC_ACQUIRE)) return TM_OK;
  tm_status status = tm__disk_sync_upwards(s->path, err);
  if (status == TM_OK) __atomic_store_n(&s->settled, doubts, __ATOMIC_RELEASE);
  return status;
}
