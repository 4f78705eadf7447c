/* disk_user.c - uses a disk as its arguments say, for the test of disk.so. Each is done in turn:
 * "write FILE AT TEXT", "truncate FILE SIZE", "sync PATH", "syncall PATH", "rename FROM TO",
 * "unlink FILE", "mkdir PATH", "keep FILE" opened, "synckept" what is, or "store FILE COUNT WHEN":
 * COUNT records of 600 bytes, each acknowledged on the output as soon as it was written and, WHEN
 * is "after", synced ("before" is the wrong way round). Prints "E..." for what fails. */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define RECORD 600

static int sync_path(const char *path) {
  int fd = open(path, O_RDONLY);
  int rc = fd < 0 ? -1 : fsync(fd);
  int error = errno;
  if (fd >= 0) (void)close(fd);
  errno = error;
  return rc;
}

static int sync_all(const char *path) {
  int fd = open(path, O_RDONLY);
  int rc = fd < 0 ? -1 : syncfs(fd);
  int error = errno;
  if (fd >= 0) (void)close(fd);
  errno = error;
  return rc;
}

static int write_file(const char *path, long at, const char *text) {
  int fd = open(path, O_RDWR | O_CREAT, 0600);
  size_t size = strlen(text);
  ssize_t n = fd < 0 ? -1 : pwrite(fd, text, size, at);
  int error = errno;
  if (fd >= 0) (void)close(fd);
  errno = error;
  if (n >= 0 && (size_t)n < size) (void)printf("short\n");
  return n < 0 ? -1 : 0;
}

static int truncate_file(const char *path, long size) {
  int fd = open(path, O_RDWR);
  int rc = fd < 0 ? -1 : ftruncate(fd, size);
  if (fd >= 0) (void)close(fd);
  return rc;
}

static int kept = -1;

static int keep(const char *path) {
  return (kept = open(path, O_RDWR)) < 0 ? -1 : 0;
}

static void acknowledge(long i) {
  (void)printf("%ld\n", i);
  (void)fflush(stdout);
}

static int store(const char *path, long count, const char *when) {
  char record[RECORD];
  bool after = strcmp(when, "after") == 0;
  int fd = open(path, O_RDWR | O_CREAT, 0600), rc = fd < 0 || sync_path(".") != 0 ? -1 : 0;
  for (long i = 1; rc == 0 && i <= count; i++) {
    memset(record, (int)('a' + i % 26), sizeof(record));
    if (pwrite(fd, record, sizeof(record), (i - 1) * RECORD) != RECORD) rc = -1;
    if (rc == 0 && !after) acknowledge(i);
    if (rc == 0) rc = fsync(fd);
    if (rc == 0 && after) acknowledge(i);
  }
  if (fd >= 0) (void)close(fd);
  return rc;
}

static int run(char *command) {
  const char *word[4] = {"", "", "", ""};
  size_t n = 0;
  for (char *w = strtok(command, " "); w != NULL && n < 4; w = strtok(NULL, " "))
    word[n++] = w;
  if (strcmp(word[0], "write") == 0) return write_file(word[1], atol(word[2]), word[3]);
  if (strcmp(word[0], "truncate") == 0) return truncate_file(word[1], atol(word[2]));
  if (strcmp(word[0], "sync") == 0) return sync_path(word[1]);
  if (strcmp(word[0], "syncall") == 0) return sync_all(word[1]);
  if (strcmp(word[0], "keep") == 0) return keep(word[1]);
  if (strcmp(word[0], "synckept") == 0) return fsync(kept);
  if (strcmp(word[0], "rename") == 0) return rename(word[1], word[2]);
  if (strcmp(word[0], "unlink") == 0) return unlink(word[1]);
  if (strcmp(word[0], "mkdir") == 0) return mkdir(word[1], 0700);
  if (strcmp(word[0], "store") == 0) return store(word[1], atol(word[2]), word[3]);
  errno = EINVAL;
  return -1;
}

int main(int argc, char **argv) {
  for (int i = 1; i < argc; i++)
    if (run(argv[i]) != 0) (void)printf("%s\n", strerrorname_np(errno));
  return 0;
}
