/* folder.c - reading script files: inside one folder, regular, small, and text. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bind/bind.h"
#include "core/json.h"

#define MAX_FILE (1u << 20)
#define MAX_PATH 200

static bool is_path_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         c == '-' || c == '.' || c == '/';
}

/* Names joined by single slashes; none begins with a dot. */
static bool is_path(tm_slice path) {
  if (path.len == 0 || path.len > MAX_PATH || path.ptr[path.len - 1] == '/') return false;
  for (size_t i = 0; i < path.len; i++) {
    bool begins = i == 0 || path.ptr[i - 1] == '/';
    if (!is_path_char(path.ptr[i])) return false;
    if (begins && (path.ptr[i] == '/' || path.ptr[i] == '.')) return false;
  }
  return true;
}

/* Symbolic links are followed, but not out of the folder. */
static tm_status resolve(const char *dir, const char *path, char out[PATH_MAX], tm_error *err) {
  char real_dir[PATH_MAX];
  tm_buf full = {0};
  tm__buf_printf(&full, "%s/%s", dir, path);
  bool found =
      tm__buf_ok(&full) && realpath(dir, real_dir) != NULL && realpath(full.ptr, out) != NULL;
  int why = tm__buf_ok(&full) ? errno : ENOMEM;
  tm__buf_free(&full);
  if (!found && (why == ENOENT || why == ENOTDIR))
    return tm__fail(err, TM_ENOTFOUND, "file.not_found", "%s/%s: no such file", dir, path);
  if (!found && why == ENOMEM) return tm__fail_memory(err, "a path");
  if (!found) return tm__fail(err, TM_EIO, "file.io", "%s/%s: %s", dir, path, strerror(why));
  size_t len = strlen(real_dir);
  if (strncmp(out, real_dir, len) == 0 && out[len] == '/') return TM_OK;
  return tm__fail(err, TM_EINVAL, "file.outside", "%s/%s leads out of its folder, to %s", dir, path,
                  out);
}

static tm_status read_all(int fd, const char *name, tm_buf *out, tm_error *err) {
  size_t start = out->len;
  for (;;) {
    char *room = tm__buf_room(out, 16384);
    if (room == NULL) return tm__fail_memory(err, "a script's text");
    ssize_t n = read(fd, room, 16384);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return tm__fail(err, TM_EIO, "file.io", "read %s: %s", name, strerror(errno));
    if (n == 0) return TM_OK;
    out->len += (size_t)n;
    if (out->len - start > MAX_FILE)
      return tm__fail(err, TM_ETOOLARGE, "file.too_large", "%s has more than 1 MiB", name);
  }
}

static tm_status read_regular(const char *file, const char *name, tm_buf *out, tm_error *err) {
  struct stat st;
  int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW | O_NOCTTY);
  if (fd < 0) return tm__fail(err, TM_EIO, "file.io", "open %s: %s", name, strerror(errno));
  tm_status status;
  if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
    status = tm__fail(err, TM_EINVAL, "file.kind", "%s is not a regular file", name);
  else
    status = read_all(fd, name, out, err);
  (void)close(fd);
  return status;
}

tm_status tm__folder_read(const char *dir, tm_slice path, tm_buf *out, tm_error *err) {
  char name[MAX_PATH + 1], file[PATH_MAX];
  if (!is_path(path) || !tm__copy(name, sizeof(name), path))
    return tm__fail(err, TM_EINVAL, "file.name",
                    "'%.*s' is no name of a script file: letters, digits, _ - . and /, within the "
                    "system's folder",
                    (int)(path.len < MAX_PATH ? path.len : MAX_PATH), path.ptr);
  tm_status st = resolve(dir, name, file, err);
  size_t start = out->len;
  if (st == TM_OK) st = read_regular(file, name, out, err);
  if (st != TM_OK) return st;
  tm_slice text = {out->ptr + start, out->len - start};
  if (text.len > 0 && (!tm__utf8_valid(text) || memchr(text.ptr, '\0', text.len) != NULL))
    return tm__fail(err, TM_EINVAL, "file.text", "%s/%s is not UTF-8 text", dir, name);
  return TM_OK;
}
