/* store_file_place.c - where the store lies: its folders, the names in them, and the lock that says
 * who is alive. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "persistence/store_file.h"

#define MARK "{\"tidemill\":\"file store\",\"format\":1}\n"

/* ---- names ---- */

const char *tm__file_folder(tm_file_what what) {
  static const char *const folders[] = {"conversations", "sessions", "scripts",
                                        "notes",         "tenants",  "outbox"};
  return folders[what];
}

void tm__file_beside(tm_buf *out, const tm_store *s, const char *name) {
  tm__buf_clear(out);
  tm__buf_printf(out, "%s/%s", s->root, name);
}

/* A million conversations make 4,096 folders of some 250: the last characters of an id are random,
 * the first ones are the time. What could not be a file's name is named by its digest. */
void tm__file_path(tm_buf *out, const tm_store *s, const tm_file_name *name) {
  char digest[33];
  const char *folder = tm__file_folder(name->what);
  tm__buf_clear(out);
  if (name->what == TM_FILE_CONVERSATION && tm__uuid_valid(name->a)) {
    tm__buf_printf(out, "%s/%s/%.3s/%.36s.log", s->root, folder, name->a.ptr + 33, name->a.ptr);
    return;
  }
  tm__digest_hex(digest, 32, (const tm_slice[]){name->a, name->b}, 2);
  tm__buf_printf(out, "%s/%s/%.3s/%s.%s", s->root, folder, digest, digest,
                 name->what == TM_FILE_CONVERSATION ? "log" : "txt");
}

/* ---- bytes ---- */

bool tm__file_write_all(int fd, tm_slice bytes, int64_t at) {
  while (bytes.len > 0) {
    ssize_t n = pwrite(fd, bytes.ptr, bytes.len, at);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    bytes.ptr += n;
    bytes.len -= (size_t)n;
    at += n;
  }
  return true;
}

int64_t tm__file_read_all(int fd, void *out, size_t size, int64_t at) {
  char *p = out;
  size_t done = 0;
  while (done < size) {
    ssize_t n = pread(fd, p + done, size - done, at + (int64_t)done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return -1;
    if (n == 0) break;
    done += (size_t)n;
  }
  return (int64_t)done;
}

bool tm__file_write_again(int fd) {
  char bytes[65536];
  int64_t n = 0;
  bool ok = true;
  for (int64_t at = 0; ok; at += n) {
    n = tm__file_read_all(fd, bytes, sizeof(bytes), at);
    if (n <= 0) break;
    ok = tm__file_write_all(fd, (tm_slice){bytes, (size_t)n}, at);
  }
  ok = ok && n == 0;
  if (!ok && (errno == ENOSPC || errno == EDQUOT || errno == EFBIG)) ok = true; /* a sync must do */
  return ok && fdatasync(fd) == 0;
}

tm_status tm__file_sync_folder(const char *path, tm_error *err) {
  if (tm__disk_sync_folder(path) || errno == ENOENT || errno == ENOTDIR) return TM_OK;
  return tm__disk_fail(err, "sync the folder", path);
}

/* ---- the root ---- */

static tm_status find_root(tm_store *s, const char *location, const char *tenant, tm_error *err) {
  tm_buf b = {0};
  tm__buf_printf(&b, "%s/", location);
  if (tenant[0] != '\0') tm__buf_printf(&b, "tenant_%s/", tenant);
  if (!tm__buf_ok(&b)) return tm__fail_memory(err, "the store's path");
  tm_status status = tm__disk_make_folders(b.ptr, err);
  if (status == TM_OK && (s->root = realpath(b.ptr, NULL)) == NULL)
    status = tm__disk_fail(err, "find", b.ptr);
  tm__buf_free(&b);
  return status;
}

tm_status tm__file_place(tm_store *s, const tm_store_options *o, tm_error *err) {
  size_t len = o->location != NULL ? strlen(o->location) : 0;
  const char *tenant = o->tenant != NULL ? o->tenant : "";
  if (len == 0 || len > PATH_MAX - 256)
    return tm__fail(err, TM_EINVAL, "store.location",
                    "store: \"%.200s\" is no name of a folder; set workflow_persistence.file."
                    "storage_directory",
                    o->location != NULL ? o->location : "");
  tm_status status = tenant[0] != '\0' ? tm__store_tenant(tenant, err) : TM_OK;
  return status == TM_OK ? find_root(s, o->location, tenant, err) : status;
}

/* ---- the lock ---- */

tm_status tm__file_lock(tm_store *s, tm_error *err) {
  tm_buf name = {0};
  tm__file_beside(&name, s, "lock");
  tm_status status = tm__buf_ok(&name)
                         ? tm__disk_lock(&s->lock, &s->alone, name.ptr, s->root, s->timeout_ms, err)
                         : tm__fail_memory(err, "the store's lock");
  tm__buf_free(&name);
  return status;
}

tm_status tm__file_lock_share(tm_store *s, tm_error *err) {
  return s->alone ? tm__disk_lock_share(s->lock, s->root, err) : TM_OK;
}

bool tm__file_lock_alone(tm_store *s) {
  return flock(s->lock, LOCK_EX | LOCK_NB) == 0;
}

/* ---- what is in the root ---- */

static tm_status check_mark(const tm_store *s, int fd, const char *name, tm_error *err) {
  char bytes[sizeof(MARK)] = "";
  int64_t n = tm__file_read_all(fd, bytes, sizeof(bytes), 0);
  if (n < 0) return tm__disk_fail(err, "read", name);
  if (n == sizeof(MARK) - 1 && memcmp(bytes, MARK, sizeof(MARK) - 1) == 0) return TM_OK;
  if (strncmp(bytes, MARK, strlen("{\"tidemill\":\"file store\",\"format\":")) == 0)
    return tm__fail(err, TM_ECORRUPT, "store.newer",
                    "store %s was written by a newer program (%.*s); it was left as it is: install "
                    "the newer program",
                    s->root, (int)strcspn(bytes, "\n"), bytes);
  return tm__fail(err, TM_ECORRUPT, "store.foreign",
                  "%s is not the mark of a file store; it was left as it is: name another folder",
                  name);
}

/* Complete under another name first: a crash leaves all of it or nothing. */
static tm_status make_mark(const tm_store *s, const char *name, tm_error *err) {
  tm_buf draft = {0};
  tm__file_beside(&draft, s, "tidemill.json.new");
  if (!tm__buf_ok(&draft)) return tm__fail_memory(err, "the store's path");
  int fd = open(draft.ptr, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
  bool ok = fd >= 0 && tm__file_write_all(fd, TM_S(MARK), 0) && fsync(fd) == 0;
  ok = ok && rename(draft.ptr, name) == 0;
  tm_status status = ok ? TM_OK : tm__disk_fail(err, "make", name);
  if (fd >= 0) (void)close(fd);
  if (!ok) (void)unlink(draft.ptr);
  tm__buf_free(&draft);
  return status;
}

static tm_status furnish_mark(const tm_store *s, tm_error *err) {
  tm_buf name = {0};
  tm__file_beside(&name, s, "tidemill.json");
  if (!tm__buf_ok(&name)) return tm__fail_memory(err, "the store's path");
  int fd = open(name.ptr, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  tm_status status = TM_OK;
  if (fd >= 0)
    status = check_mark(s, fd, name.ptr, err);
  else if (errno != ENOENT)
    status = tm__disk_fail(err, "read", name.ptr);
  else if (s->opening != TM_STORE_MAKE)
    status = tm__store_absent(s->root, err);
  else
    status = make_mark(s, name.ptr, err);
  if (fd >= 0) (void)close(fd);
  tm__buf_free(&name);
  return status;
}

/* The root's name is durable when all folders above it are. */
static tm_status sync_root(const tm_store *s, tm_error *err) {
  tm_buf name = {0};
  tm__file_beside(&name, s, "");
  tm_status status = tm__buf_ok(&name) ? tm__disk_sync_upwards(name.ptr, err)
                                       : tm__fail_memory(err, "the store's path");
  tm__buf_free(&name);
  return status;
}

tm_status tm__file_furnish(tm_store *s, tm_error *err) {
  tm_buf name = {0};
  tm_status status = furnish_mark(s, err);
  for (int i = 0; status == TM_OK && i < TM_FILE_WHATS; i++) {
    tm__file_beside(&name, s, tm__file_folder((tm_file_what)i));
    if (!tm__buf_ok(&name))
      status = tm__fail_memory(err, "the store's path");
    else if (mkdir(name.ptr, 0700) != 0 && errno != EEXIST)
      status = tm__disk_fail(err, "make the folder", name.ptr);
  }
  tm__buf_free(&name);
  return status == TM_OK && s->alone ? sync_root(s, err) : status;
}

/* ---- every file ---- */

typedef struct each {
  tm_file_what what;
  tm_file_fn fn;
  void *ud;
} each;

/* `deep`: the folders in this one, else the files. */
static tm_status walk_folder(const char *folder, bool deep, const each *e, tm_error *err) {
  DIR *dir = opendir(folder);
  tm_buf path = {0};
  int error = errno;
  tm_status status =
      dir != NULL || error == ENOTDIR ? TM_OK : tm__disk_fail(err, "read the folder", folder);
  errno = 0;
  for (struct dirent *d; status == TM_OK && dir != NULL && (d = readdir(dir)) != NULL; errno = 0) {
    size_t length = strlen(d->d_name);
    const char *end = e->what == TM_FILE_CONVERSATION ? ".log" : ".txt";
    bool file = length > 4 && strcmp(d->d_name + length - 4, end) == 0;
    if (d->d_name[0] == '.' || (!deep && !file)) continue;
    tm__buf_clear(&path);
    tm__buf_printf(&path, "%s/%s", folder, d->d_name);
    if (!tm__buf_ok(&path))
      status = tm__fail_memory(err, "the store's path");
    else
      status = deep ? walk_folder(path.ptr, false, e, err)
                    : e->fn(e->ud, e->what, path.ptr, d->d_name, err);
  }
  if (status == TM_OK && dir != NULL && errno != 0)
    status = tm__disk_fail(err, "read the folder", folder);
  if (dir != NULL) (void)closedir(dir);
  tm__buf_free(&path);
  return status;
}

tm_status tm__file_each(const tm_store *s, tm_file_what what, tm_file_fn fn, void *ud,
                        tm_error *err) {
  tm_buf folder = {0};
  tm__file_beside(&folder, s, tm__file_folder(what));
  tm_status status = tm__buf_ok(&folder) ? walk_folder(folder.ptr, true, &(each){what, fn, ud}, err)
                                         : tm__fail_memory(err, "the store's path");
  tm__buf_free(&folder);
  return status;
}

/* ---- is it still there? ---- */

tm_status tm__file_identify(tm_store *s, tm_error *err) {
  struct stat st;
  char path[PATH_MAX];
  (void)snprintf(path, sizeof(path), "%s/index.db", s->root);
  if (stat(path, &st) != 0) return tm__disk_fail(err, "look at", path);
  s->index_inode = st.st_ino;
  return TM_OK;
}

tm_status tm__file_in_place(const tm_store *s, tm_error *err) {
  static const char *const names[] = {"0.redo", "1.redo", "index.db"};
  const uint64_t inodes[] = {s->redo_inode[0], s->redo_inode[1], s->index_inode};
  for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
    char path[PATH_MAX];
    struct stat st;
    (void)snprintf(path, sizeof(path), "%s/%s", s->root, names[i]); /* fits: tm__file_place */
    if (stat(path, &st) == 0 && st.st_ino == inodes[i]) continue;
    return tm__fail(err, TM_EUNAVAILABLE, "store.moved",
                    "store %s was moved, deleted or replaced while the host uses it: put the same "
                    "file back and try again; a restart starts from what lies there",
                    path);
  }
  return TM_OK;
}
