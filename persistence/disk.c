/* disk.c - folders that are made and made durable, and a lock. */
#include "persistence/disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/clock.h"

/* ---- folders ---- */

tm_status tm__disk_make_folders(char *path, tm_error *err) {
  for (char *slash = strchr(path + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
    *slash = '\0';
    int rc = mkdir(path, 0700);
    tm_status status =
        rc == 0 || errno == EEXIST ? TM_OK : tm__disk_fail(err, "make the folder", path);
    *slash = '/';
    if (status != TM_OK) return status;
  }
  return TM_OK;
}

bool tm__disk_sync_folder(const char *path) {
  int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return false;
  bool ok = fsync(fd) == 0 || errno == EINVAL || errno == ENOTSUP;
  int error = errno;
  (void)close(fd);
  errno = error;
  return ok;
}

static bool was_not_ours(int error) {
  return error == EACCES || error == EPERM || error == EROFS;
}

tm_status tm__disk_sync_upwards(const char *path, tm_error *err) {
  tm_status status = TM_OK;
  char *folder = tm__slice_dup(tm__slice(path));
  if (folder == NULL) return tm__fail_memory(err, "the store's path");
  for (char *slash = strrchr(folder, '/'); status == TM_OK && slash != NULL;
       slash = strrchr(folder, '/')) {
    *slash = '\0';
    const char *name = slash == folder ? "/" : folder;
    if (!tm__disk_sync_folder(name) && !was_not_ours(errno))
      status = tm__disk_fail(err, "sync the folder", name);
  }
  free(folder);
  return status;
}

static tm_status remove_entry(const char *path, tm_error *err) {
  if (unlink(path) == 0 || errno == ENOENT) return TM_OK;
  if (errno != EISDIR) return tm__disk_fail(err, "remove", path);
  tm_status status = tm__disk_empty_folder(path, NULL, err);
  if (status != TM_OK || rmdir(path) == 0) return status;
  return tm__disk_fail(err, "remove", path);
}

tm_status tm__disk_empty_folder(const char *path, const char *kept, tm_error *err) {
  DIR *dir = opendir(path);
  tm_status status = TM_OK;
  tm_buf name = {0};
  if (dir == NULL) return errno == ENOENT ? TM_OK : tm__disk_fail(err, "read the folder", path);
  for (const struct dirent *d; status == TM_OK && (d = readdir(dir)) != NULL;) {
    bool stays = kept != NULL && strcmp(d->d_name, kept) == 0;
    if (stays || strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0) continue;
    tm__buf_clear(&name);
    tm__buf_printf(&name, "%s/%s", path, d->d_name);
    status =
        tm__buf_ok(&name) ? remove_entry(name.ptr, err) : tm__fail_memory(err, "the store's path");
  }
  tm__buf_free(&name);
  (void)closedir(dir);
  return status;
}

/* ---- the lock ---- */

/* Another process holds it exclusively only while it opens or closes the store. */
static tm_status wait_for_lock(int fd, bool *alone, const char *name, const char *what,
                               int timeout_ms, tm_error *err) {
  const struct timespec pause = {0, 5 * 1000 * 1000};
  int64_t end = tm__clock_monotonic_us() + (int64_t)timeout_ms * 1000;
  for (;;) {
    *alone = flock(fd, LOCK_EX | LOCK_NB) == 0;
    if (*alone || flock(fd, LOCK_SH | LOCK_NB) == 0) return TM_OK;
    if (errno != EWOULDBLOCK && errno != EINTR) return tm__disk_fail(err, "lock", name);
    if (tm__clock_monotonic_us() >= end)
      return tm__fail(err, TM_EUNAVAILABLE, "store.busy",
                      "store %s: another process has been opening it for %d ms; try again", what,
                      timeout_ms);
    (void)nanosleep(&pause, NULL);
  }
}

tm_status tm__disk_lock(int *fd, bool *alone, const char *name, const char *what, int timeout_ms,
                        tm_error *err) {
  *fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (*fd < 0) return tm__disk_fail(err, "open", name);
  return wait_for_lock(*fd, alone, name, what, timeout_ms, err);
}

tm_status tm__disk_in_use(const char *what, tm_error *err) {
  return tm__fail(err, TM_EUNAVAILABLE, "store.in_use",
                  "store %s is in use by another process: stop that one first", what);
}

tm_status tm__disk_lock_share(int fd, const char *what, tm_error *err) {
  return flock(fd, LOCK_SH) == 0 ? TM_OK : tm__disk_fail(err, "share the lock of", what);
}
