/* file.c - reading a small file whole, whatever the path turns out to be. */
#include "config/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void tm__file_name(char out[TM_NAME_SIZE], const char *path) {
  size_t len = strlen(path);
  const char *from = path;
  if (len >= TM_NAME_SIZE) {
    from = path + len - (TM_NAME_SIZE - 4);
    while (((unsigned char)*from & 0xC0) == 0x80) {
      from++;
    }
  }
  (void)snprintf(out, TM_NAME_SIZE, "%s%s", from == path ? "" : "...", from);
}

static tm_status refuse(const char *path, tm_error *err, const char *why) {
  char name[TM_NAME_SIZE];
  tm__file_name(name, path);
  tm_status s = errno == ENOENT ? TM_ENOTFOUND : TM_EINVAL;
  return tm__fail(err, s, "config.invalid", "%s: %s", name, why);
}

static tm_status check_kind(int fd, const char *path, size_t limit, tm_error *err) {
  struct stat st;
  char text[96];
  if (fstat(fd, &st) != 0) return refuse(path, err, strerror(errno));
  errno = 0;
  if (S_ISDIR(st.st_mode)) return refuse(path, err, "is a folder; name a file");
  if (!S_ISREG(st.st_mode)) return refuse(path, err, "is not a regular file");
  if ((uintmax_t)st.st_size <= limit) return TM_OK;
  (void)snprintf(text, sizeof(text), "is too large: it has %jd bytes, at most %zu are read",
                 (intmax_t)st.st_size, limit);
  return refuse(path, err, text);
}

/* Files may grow while they are read, so one byte more than allowed is asked for. */
static tm_status read_all(tm_buf *out, int fd, const char *path, size_t limit, tm_error *err) {
  size_t start = out->len;
  for (;;) {
    size_t want = limit - (out->len - start) + 1;
    if (want > 16384) want = 16384;
    char *room = tm__buf_room(out, want);
    if (room == NULL) return tm__fail_memory(err, "a configuration file");
    ssize_t n = read(fd, room, want);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return refuse(path, err, strerror(errno));
    out->len += (size_t)n;
    errno = 0;
    if (out->len - start > limit) return refuse(path, err, "grew over the limit while it was read");
    if (n == 0) return TM_OK;
  }
}

tm_status tm__small_file_read(tm_buf *out, const char *path, size_t limit, tm_error *err) {
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return refuse(path, err, strerror(errno));
  tm_status s = check_kind(fd, path, limit, err);
  if (s == TM_OK) s = read_all(out, fd, path, limit, err);
  (void)close(fd);
  return s;
}
