/* backup_file.c - a draft becomes a backup. The stores of tenants lie in a folder beside it, which
 * gets its name first: the file itself is the sign that all is there. */
#include "backup_file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/buf.h"

#define FOLDER   ".tenants"
#define REPLACED ".replaced"

bool tm__file_exists(const char *path) {
  struct stat st;
  return lstat(path, &st) == 0;
}

bool tm__file_is_plain(const char *path) {
  struct stat st;
  return stat(path, &st) == 0 ? S_ISREG(st.st_mode) : errno == ENOENT;
}

static tm_status io_fail(tm_error *err, const char *doing, const char *path) {
  return tm__fail(err, TM_EUNAVAILABLE, "backup.io", "%s %s: %s", doing, path, strerror(errno));
}

/* a + b + c, to be freed; NULL and an error when out of memory. */
static char *join(const char *a, const char *b, const char *c, tm_error *err) {
  tm_buf out = {0};
  tm__buf_printf(&out, "%s%s%s", a, b, c);
  char *text = tm__buf_take(&out);
  if (text == NULL) (void)tm__fail_memory(err, "the name of a file");
  return text;
}

/* ---- one file ---- */

static tm_status sync_path(const char *path, int flags, tm_error *err) {
  int fd = open(path, flags | O_CLOEXEC);
  if (fd < 0) return io_fail(err, "open", path);
  tm_status status = fsync(fd) == 0 ? TM_OK : io_fail(err, "sync", path);
  (void)close(fd);
  return status;
}

static tm_status sync_folder_of(const char *path, tm_error *err) {
  const char *slash = strrchr(path, '/');
  size_t len = slash == NULL ? 0 : slash == path ? 1 : (size_t)(slash - path);
  char *folder = len > 0 ? tm__slice_dup((tm_slice){path, len}) : tm__slice_dup(TM_S("."));
  if (folder == NULL) return tm__fail_memory(err, "the name of a folder");
  tm_status status = sync_path(folder, O_RDONLY | O_DIRECTORY, err);
  free(folder);
  return status;
}

/* A store that could not be closed well has part of its content in a log. */
static tm_status settle_file(const char *path, tm_error *err) {
  struct stat st;
  char *log = join(path, "-wal", "", err);
  if (log == NULL) return TM_ENOMEM;
  bool open_end = stat(log, &st) == 0 && st.st_size > 0;
  free(log);
  if (!open_end) return sync_path(path, O_RDONLY, err);
  return tm__fail(err, TM_EUNAVAILABLE, "backup.io",
                  "%s could not be written out: free space on the disk, then run the same again",
                  path);
}

/* What SQLite and the host put beside a file. */
static const char *const beside[] = {"-wal", "-shm", "-journal", ".lock"};

static void remove_beside(const char *path) {
  for (size_t i = 0; i < sizeof(beside) / sizeof(beside[0]); i++) {
    char *name = join(path, beside[i], "", NULL);
    if (name != NULL) (void)unlink(name);
    free(name);
  }
}

/* ---- the folder of tenants ---- */

typedef tm_status (*file_fn)(const char *path, tm_error *err);

static bool ends_with(const char *text, const char *end) {
  size_t n = strlen(text), m = strlen(end);
  return n >= m && strcmp(text + n - m, end) == 0;
}

static size_t stem_of(const char *path, const char *end) {
  return ends_with(path, end) ? strlen(path) - strlen(end) : 0;
}

size_t tm__file_stem(const char *path) {
  size_t len = stem_of(path, FOLDER);
  if (len == 0) len = stem_of(path, TM_DRAFT);
  for (size_t i = 0; len == 0 && i < sizeof(beside) / sizeof(beside[0]); i++)
    len = stem_of(path, beside[i]);
  return len;
}

/* Each file of a folder whose name ends with `end`; a folder that is not there has none. */
static tm_status each_file(const char *folder, const char *end, file_fn fn, tm_error *err) {
  DIR *d = opendir(folder);
  if (d == NULL) return errno == ENOENT ? TM_OK : io_fail(err, "read the folder", folder);
  tm_status status = TM_OK;
  for (struct dirent *e = readdir(d); status == TM_OK && e != NULL; e = readdir(d)) {
    if (e->d_name[0] == '.' || !ends_with(e->d_name, end)) continue;
    char *path = join(folder, "/", e->d_name, err);
    status = path != NULL ? fn(path, err) : TM_ENOMEM;
    free(path);
  }
  (void)closedir(d);
  return status;
}

static tm_status remove_file(const char *path, tm_error *err) {
  return unlink(path) == 0 || errno == ENOENT ? TM_OK : io_fail(err, "remove", path);
}

static tm_status remove_folder(const char *folder, tm_error *err) {
  tm_status status = each_file(folder, "", remove_file, err);
  if (status != TM_OK || rmdir(folder) == 0 || errno == ENOENT) return status;
  return io_fail(err, "remove", folder);
}

static tm_status move(const char *from, const char *to, tm_error *err) {
  if (!tm__file_exists(from) || rename(from, to) == 0) return TM_OK;
  return io_fail(err, "rename to", to);
}

/* ---- publishing ---- */

typedef struct names {
  char *draft, *draft_folder, *folder, *replaced;
} names;

static tm_status publish(const char *file, const names *n, tm_error *err) {
  tm_status status = settle_file(n->draft, err);
  if (status == TM_OK) status = each_file(n->draft_folder, ".db", settle_file, err);
  if (status == TM_OK) status = remove_folder(n->replaced, err); /* of a crash in here */
  if (status == TM_OK) status = move(n->folder, n->replaced, err);
  if (status == TM_OK) status = move(n->draft_folder, n->folder, err);
  if (status != TM_OK) return status;
  remove_beside(file); /* the log of an older file would be taken for this one's */
  status = rename(n->draft, file) == 0 ? TM_OK : io_fail(err, "rename to", file);
  if (status == TM_OK) status = sync_folder_of(file, err);
  if (status != TM_OK) return status;
  remove_beside(n->draft);
  return remove_folder(n->replaced, err);
}

tm_status tm__backup_publish(const char *file, tm_error *err) {
  names n = {.draft = join(file, TM_DRAFT, "", err),
             .draft_folder = join(file, TM_DRAFT, FOLDER, err),
             .folder = join(file, FOLDER, "", err),
             .replaced = join(file, FOLDER, REPLACED, err)};
  bool ok = n.draft != NULL && n.draft_folder != NULL && n.folder != NULL && n.replaced != NULL;
  tm_status status = ok ? publish(file, &n, err) : TM_ENOMEM;
  free(n.draft);
  free(n.draft_folder);
  free(n.folder);
  free(n.replaced);
  return status;
}
