/* disk.c - a disk that fails on demand and forgets what was not synced, by LD_PRELOAD.
 *
 * Works on the files under $TM_DISK_ROOT; everything else is left alone. $TM_DISK_STATE is a folder
 * beside it, on the same file system:
 *   control   a page that a test writes while the program runs: which call fails how (struct
 * control) log       what every change since the last sync replaced; it is there before the change
 * is, and survives SIGKILL, so that disk.mjs can take back what a power cut would saved/    links
 * to files that lost their names, by inode A sync only writes a line into the log: what is durable
 * is decided here, the real disk is never waited for. Files that end in -shm are shared memory:
 * they can fail, they are never durable. A way to write that is not below does not exist for these
 * files: it is refused. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define EXPORT  __attribute__((visibility("default")))
#define FD_MAX  65536
#define FAULTS  4
#define FOREVER UINT32_MAX

enum {
  OP_WRITE = 1,
  OP_SYNC = 2,
  OP_CREATE = 4,
  OP_RENAME = 8,
  OP_UNLINK = 16,
  OP_TRUNCATE = 32,
  OP_MKDIR = 64,
  OP_CHANGES = 127,
  OP_OPEN = 128, /* to write */
  OP_READ = 256,
  OP_LOOK = 512 /* open to read */
};
enum {
  FAIL,
  TORN,
  SHORT
}; /* a torn write does half and fails, a short one does half and says so */
enum {
  LOG_WRITE = 1,
  LOG_TRUNCATE,
  LOG_SYNC,
  LOG_LOST,
  LOG_CREATE,
  LOG_UNLINK,
  LOG_RENAME,
  LOG_MKDIR,
  LOG_FOLDER_SYNC,
  LOG_SYNC_ALL, /* everything under the root */
  LOG_LOST_ALL
};

struct fault { /* disk.mjs knows this layout */
  uint32_t ops, error, effect;
  uint32_t after;  /* calls that go well before */
  uint32_t count;  /* calls that still fail; FOREVER: all */
  uint32_t met;    /* calls that failed */
  char suffix[40]; /* of the names it is for; "" all */
};
struct control {
  uint32_t calls;   /* changing calls until now */
  uint32_t cut_at;  /* the call that is not made any more: the program is killed; 0: never */
  uint32_t halt_at; /* before this one the program is stopped; 0: never */
  uint32_t unused[5];
  struct fault faults[FAULTS];
};

struct record { /* followed by `size` bytes: old content, or the path(s), NUL-terminated */
  uint32_t kind, size;
  uint64_t inode, at, length, old_size; /* LOG_RENAME: `at` is the inode that lost its name */
};

/* What could not be written: each descriptor that was open then hears of it once, and so does one
 * that is opened before anybody has. */
struct errors {
  uint32_t count;
  bool heard; /* of the last one */
};

struct node { /* an inode; never freed */
  struct node *next;
  uint64_t inode;
  bool dirty;
  struct errors errors;
};

struct file {
  struct node *node;
  uint32_t heard, heard_all; /* errors of the node and of all, when this was last told */
  bool folder, appends, memory;
  char path[];
};

static char *root, *state;
static size_t root_length;
static int log_fd = -1;
static struct control *control;
static struct file *files[FD_MAX];
static struct node *nodes[1024];
static struct errors all_errors;
static pthread_mutex_t mutex =
    PTHREAD_MUTEX_INITIALIZER; /* of all above and the order of the log */

/* ---- start ---- */

__attribute__((noreturn)) static void die(const char *what) {
  (void)fprintf(stderr, "disk.so: %s: %s\n", what, strerror(errno));
  _exit(99);
}

static int raw_open(const char *path, int flags, mode_t mode) {
  return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

__attribute__((constructor)) static void start(void) {
  const char *place = getenv("TM_DISK_ROOT"), *beside = getenv("TM_DISK_STATE");
  char name[PATH_MAX];
  if (place == NULL || beside == NULL) return;
  state = realpath(beside, NULL);
  if (state == NULL) die(beside);
  (void)snprintf(name, sizeof(name), "%s/log", state);
  log_fd = raw_open(name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  (void)snprintf(name, sizeof(name), "%s/control", state);
  int fd = raw_open(name, O_RDWR | O_CLOEXEC, 0);
  if (log_fd < 0 || fd < 0) die(name);
  control = mmap(NULL, sizeof(*control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (control == MAP_FAILED) die("mmap");
  (void)syscall(SYS_close, fd);
  root = realpath(place, NULL);
  if (root == NULL) die(place);
  root_length = strlen(root);
}

/* ---- what is ours ---- */

/* The absolute path in `out` when it is the folder's or below it. */
static bool is_ours(char out[PATH_MAX], const char *path) {
  char here[PATH_MAX] = "";
  if (root == NULL) return false;
  if (path[0] != '/' && getcwd(here, sizeof(here)) == NULL) return false;
  int n = path[0] == '/' ? snprintf(out, PATH_MAX, "%s", path)
                         : snprintf(out, PATH_MAX, "%s/%s", here, path);
  if (n <= 0 || n >= PATH_MAX) return false;
  while (n > 1 && (out[n - 1] == '/' || (out[n - 1] == '.' && out[n - 2] == '/')))
    out[--n] = '\0';
  return strncmp(out, root, root_length) == 0 &&
         (out[root_length] == '/' || out[root_length] == '\0');
}

static struct file *file_of(int fd) {
  return root != NULL && fd >= 0 && fd < FD_MAX ? files[fd] : NULL;
}

static bool ends_with(const char *text, const char *end) {
  size_t n = strlen(text), m = strlen(end);
  return n >= m && strcmp(text + n - m, end) == 0;
}

static struct node *node_of(uint64_t inode) {
  struct node **list = &nodes[inode % (sizeof(nodes) / sizeof(nodes[0]))], *n = *list;
  while (n != NULL && n->inode != inode)
    n = n->next;
  if (n != NULL) return n;
  n = malloc(sizeof(*n));
  if (n == NULL) die("track an inode");
  *n = (struct node){.next = *list, .inode = inode};
  return *list = n;
}

static uint32_t heard_when_opened(const struct errors *e) {
  return e->count == 0 || e->heard ? e->count : e->count - 1;
}

static void track(int fd, const char *path, int flags) {
  struct stat st;
  size_t length = strlen(path) + 1;
  struct file *f = fd < FD_MAX && fstat(fd, &st) == 0 ? malloc(sizeof(*f) + length) : NULL;
  if (f == NULL) die("track a file");
  f->node = node_of(st.st_ino);
  f->heard = heard_when_opened(&f->node->errors);
  f->heard_all = heard_when_opened(&all_errors);
  f->folder = S_ISDIR(st.st_mode);
  f->appends = (flags & O_APPEND) != 0;
  f->memory = ends_with(path, "-shm");
  memcpy(f->path, path, length);
  free(files[fd]);
  files[fd] = f;
}

/* ---- the log ---- */

static void note(struct record r, const void *bytes) {
  struct iovec parts[2] = {{&r, sizeof(r)}, {(void *)(uintptr_t)bytes, r.size}};
  if (syscall(SYS_writev, log_fd, parts, 2) != (long)(sizeof(r) + r.size)) die("write the log");
}

static void note_path(uint32_t kind, uint64_t inode, const char *path) {
  note((struct record){.kind = kind, .size = (uint32_t)strlen(path) + 1, .inode = inode}, path);
}

/* The bytes from `at` to `end` as they are, before they change. */
static void note_change(uint32_t kind, int fd, uint64_t at, uint64_t length, uint64_t end) {
  struct stat st;
  if (files[fd]->memory) return;
  if (fstat(fd, &st) != 0) die("look at a file");
  uint64_t size = (uint64_t)st.st_size;
  if (end > size) end = size;
  size_t old = end > at ? end - at : 0;
  char *bytes = malloc(old + 1);
  if (bytes == NULL || syscall(SYS_pread64, fd, bytes, old, at) != (long)old) die("read old bytes");
  note((struct record){.kind = kind,
                       .size = (uint32_t)old,
                       .inode = files[fd]->node->inode,
                       .at = at,
                       .length = length,
                       .old_size = size},
       bytes);
  free(bytes);
  files[fd]->node->dirty = true;
}

/* A link that outlives the name; 0: there is no such file. */
static uint64_t save(const char *path) {
  struct stat st;
  char name[PATH_MAX];
  if (lstat(path, &st) != 0) return 0;
  (void)snprintf(name, sizeof(name), "%s/saved/%llu", state, (unsigned long long)st.st_ino);
  if (syscall(SYS_linkat, AT_FDCWD, path, AT_FDCWD, name, 0) != 0 && errno != EEXIST)
    die("save a file");
  return st.st_ino;
}

/* ---- faults ---- */

/* Counts a call and says what becomes of it: NULL, or the fault, with errno. */
static const struct fault *judge(uint32_t op, const char *path) {
  bool changes = (op & OP_CHANGES) != 0;
  if (changes && ++control->calls == control->cut_at) {
    (void)kill(getpid(), SIGKILL);
    for (;;)
      (void)pause();
  }
  if (changes && control->calls == control->halt_at) (void)kill(getpid(), SIGSTOP);
  for (size_t i = 0; i < FAULTS; i++) {
    struct fault *f = &control->faults[i];
    if ((f->ops & op) == 0 || f->count == 0 || !ends_with(path, f->suffix)) continue;
    if (f->after > 0) {
      f->after--;
      continue;
    }
    if (f->count != FOREVER) f->count--;
    f->met++;
    errno = (int)f->error;
    return f;
  }
  return NULL;
}

/* ---- opening and closing ---- */

static int open_ours(const char *path, int flags, mode_t mode) {
  struct stat st;
  bool creates = (flags & O_CREAT) != 0 && lstat(path, &st) != 0;
  bool looks = (flags & O_ACCMODE) == O_RDONLY;
  if (judge(creates ? OP_CREATE : looks ? OP_LOOK : OP_OPEN, path) != NULL) return -1;
  if (creates && !ends_with(path, "-shm")) note_path(LOG_CREATE, 0, path);
  if ((flags & O_ACCMODE) == O_WRONLY) flags = (flags & ~O_ACCMODE) | O_RDWR; /* to read it back */
  int fd = raw_open(path, flags & ~O_TRUNC, mode);
  if (fd < 0) return fd;
  track(fd, path, flags);
  if ((flags & O_TRUNC) != 0) {
    note_change(LOG_TRUNCATE, fd, 0, 0, UINT64_MAX);
    if (syscall(SYS_ftruncate, fd, 0) != 0) die("truncate");
  }
  return fd;
}

static int open_any(const char *path, int flags, mode_t mode) {
  char whole[PATH_MAX];
  if (!is_ours(whole, path)) return raw_open(path, flags, mode);
  (void)pthread_mutex_lock(&mutex);
  int fd = open_ours(whole, flags, mode);
  (void)pthread_mutex_unlock(&mutex);
  return fd;
}

#define MODE_OF(flags, mode)                                                                       \
  mode_t mode = 0;                                                                                 \
  if (((flags)&O_CREAT) != 0) {                                                                    \
    va_list args;                                                                                  \
    va_start(args, flags);                                                                         \
    mode = va_arg(args, mode_t);                                                                   \
    va_end(args);                                                                                  \
  }

EXPORT int open(const char *path, int flags, ...) {
  MODE_OF(flags, mode)
  return open_any(path, flags, mode);
}
EXPORT int open64(const char *path, int flags, ...) {
  MODE_OF(flags, mode)
  return open_any(path, flags, mode);
}
EXPORT int openat(int folder, const char *path, int flags, ...) {
  MODE_OF(flags, mode)
  if (folder == AT_FDCWD || path[0] == '/') return open_any(path, flags, mode);
  return (int)syscall(SYS_openat, folder, path, flags, mode);
}
EXPORT int openat64(int folder, const char *path, int flags, ...) {
  MODE_OF(flags, mode)
  return openat(folder, path, flags, mode);
}
EXPORT int creat(const char *path, mode_t mode) {
  return open_any(path, O_WRONLY | O_CREAT | O_TRUNC, mode);
}

EXPORT int close(int fd) {
  if (file_of(fd) != NULL) {
    (void)pthread_mutex_lock(&mutex);
    free(files[fd]);
    files[fd] = NULL;
    (void)pthread_mutex_unlock(&mutex);
  }
  return (int)syscall(SYS_close, fd);
}

/* ---- content ---- */

/* Under the lock. */
static ssize_t write_ours(int fd, const void *bytes, size_t size, uint64_t at) {
  const struct fault *f = judge(OP_WRITE, files[fd]->path);
  int error = errno;
  if (f != NULL && (f->effect == FAIL || size < 2)) return -1;
  if (f != NULL) size /= 2;
  note_change(LOG_WRITE, fd, at, size, at + size);
  if (syscall(SYS_pwrite64, fd, bytes, size, at) != (long)size) die("write");
  errno = error;
  return f != NULL && f->effect == TORN ? -1 : (ssize_t)size;
}

static ssize_t write_at(int fd, const void *bytes, size_t size, off_t at) {
  if (file_of(fd) == NULL) return syscall(SYS_pwrite64, fd, bytes, size, at);
  (void)pthread_mutex_lock(&mutex);
  ssize_t n = write_ours(fd, bytes, size, (uint64_t)at);
  (void)pthread_mutex_unlock(&mutex);
  return n;
}

EXPORT ssize_t pwrite(int fd, const void *bytes, size_t size, off_t at) {
  return write_at(fd, bytes, size, at);
}
EXPORT ssize_t pwrite64(int fd, const void *bytes, size_t size, off64_t at) {
  return write_at(fd, bytes, size, at);
}

EXPORT ssize_t write(int fd, const void *bytes, size_t size) {
  const struct file *f = file_of(fd);
  if (f == NULL) return syscall(SYS_write, fd, bytes, size);
  (void)pthread_mutex_lock(&mutex);
  long at = syscall(SYS_lseek, fd, 0, f->appends ? SEEK_END : SEEK_CUR);
  ssize_t n = write_ours(fd, bytes, size, (uint64_t)at);
  if (n > 0) (void)syscall(SYS_lseek, fd, at + n, SEEK_SET);
  (void)pthread_mutex_unlock(&mutex);
  return n;
}

EXPORT ssize_t writev(int fd, const struct iovec *parts, int count) {
  ssize_t done = 0;
  if (file_of(fd) == NULL) return syscall(SYS_writev, fd, parts, count);
  for (int i = 0; i < count; i++) {
    ssize_t n = write(fd, parts[i].iov_base, parts[i].iov_len);
    if (n < 0) return done > 0 ? done : n;
    done += n;
    if ((size_t)n < parts[i].iov_len) break;
  }
  return done;
}

static int truncate_ours(int fd, off_t size) {
  if (file_of(fd) == NULL) return (int)syscall(SYS_ftruncate, fd, size);
  (void)pthread_mutex_lock(&mutex);
  int rc = -1;
  if (judge(OP_TRUNCATE, files[fd]->path) == NULL) {
    note_change(LOG_TRUNCATE, fd, (uint64_t)size, 0, UINT64_MAX);
    rc = (int)syscall(SYS_ftruncate, fd, size);
  }
  (void)pthread_mutex_unlock(&mutex);
  return rc;
}

EXPORT int ftruncate(int fd, off_t size) {
  return truncate_ours(fd, size);
}
EXPORT int ftruncate64(int fd, off64_t size) {
  return truncate_ours(fd, size);
}

static ssize_t read_at(int fd, void *bytes, size_t size, off_t at) {
  if (file_of(fd) != NULL) {
    (void)pthread_mutex_lock(&mutex);
    bool bad = judge(OP_READ, files[fd]->path) != NULL;
    (void)pthread_mutex_unlock(&mutex);
    if (bad) return -1;
  }
  return syscall(SYS_pread64, fd, bytes, size, at);
}

EXPORT ssize_t pread(int fd, void *bytes, size_t size, off_t at) {
  return read_at(fd, bytes, size, at);
}
EXPORT ssize_t pread64(int fd, void *bytes, size_t size, off64_t at) {
  return read_at(fd, bytes, size, at);
}

/* After a failed sync the system takes the pages for clean: a later one writes none of them
 * (LOG_LOST), and says yes to whoever has heard of it. */
static void lose(struct node *n) {
  if (!n->dirty) return;
  n->dirty = false;
  n->errors = (struct errors){.count = n->errors.count + 1};
  all_errors = (struct errors){.count = all_errors.count + 1};
}

static bool hear(struct errors *e, uint32_t *heard) {
  if (*heard == e->count) return false;
  *heard = e->count;
  return e->heard = true;
}

static void each_node(void (*fn)(struct node *n)) {
  for (size_t i = 0; i < sizeof(nodes) / sizeof(nodes[0]); i++)
    for (struct node *n = nodes[i]; n != NULL; n = n->next)
      fn(n);
}

static void clean(struct node *n) {
  n->dirty = false;
}

/* Under the lock. What was lost before is told now, although what is dirty now becomes durable. */
static int sync_file(struct file *f) {
  bool bad = judge(OP_SYNC, f->path) != NULL;
  int error = bad ? errno : EIO;
  if (f->folder && !bad) note_path(LOG_FOLDER_SYNC, f->node->inode, f->path);
  if (!f->folder) {
    note((struct record){.kind = bad ? LOG_LOST : LOG_SYNC, .inode = f->node->inode}, "");
    (bad ? lose : clean)(f->node);
    bad = hear(&f->node->errors, &f->heard) || bad;
  }
  errno = error;
  return bad ? -1 : 0;
}

static int sync_everything(struct file *f) {
  bool bad = judge(OP_SYNC, f->path) != NULL;
  int error = bad ? errno : EIO;
  note((struct record){.kind = bad ? LOG_LOST_ALL : LOG_SYNC_ALL}, "");
  each_node(bad ? lose : clean);
  bad = hear(&all_errors, &f->heard_all) || bad;
  errno = error;
  return bad ? -1 : 0;
}

static int sync_ours(int fd, long number, int (*fn)(struct file *f)) {
  struct file *f = file_of(fd);
  if (f == NULL) return (int)syscall(number, fd);
  (void)pthread_mutex_lock(&mutex);
  int rc = fn(f), error = errno;
  (void)pthread_mutex_unlock(&mutex);
  errno = error;
  return rc;
}

EXPORT int fsync(int fd) {
  return sync_ours(fd, SYS_fsync, sync_file);
}
EXPORT int fdatasync(int fd) {
  return sync_ours(fd, SYS_fdatasync, sync_file);
}

/* The whole file system; a fault finds it by the name of what was opened for it. */
EXPORT int syncfs(int fd) {
  return sync_ours(fd, SYS_syncfs, sync_everything);
}

/* ---- names ---- */

static void note_rename(const char *from, const char *to) {
  struct stat st;
  char both[2 * PATH_MAX];
  size_t n = strlen(from) + 1, m = strlen(to) + 1;
  if (lstat(from, &st) != 0) return;
  memcpy(both, from, n);
  memcpy(both + n, to, m);
  note(
      (struct record){
          .kind = LOG_RENAME, .size = (uint32_t)(n + m), .inode = st.st_ino, .at = save(to)},
      both);
}

EXPORT int rename(const char *from, const char *to) {
  char a[PATH_MAX], b[PATH_MAX];
  if (!is_ours(a, from) || !is_ours(b, to)) return (int)syscall(SYS_rename, from, to);
  (void)pthread_mutex_lock(&mutex);
  int rc = -1;
  if (judge(OP_RENAME, b) == NULL) {
    note_rename(a, b);
    rc = (int)syscall(SYS_rename, a, b);
  }
  (void)pthread_mutex_unlock(&mutex);
  return rc;
}

EXPORT int unlink(const char *path) {
  char whole[PATH_MAX];
  struct stat st;
  if (!is_ours(whole, path) || lstat(whole, &st) != 0) return (int)syscall(SYS_unlink, path);
  (void)pthread_mutex_lock(&mutex);
  int rc = -1;
  if (judge(OP_UNLINK, whole) == NULL) {
    if (!ends_with(whole, "-shm")) note_path(LOG_UNLINK, save(whole), whole);
    rc = (int)syscall(SYS_unlink, whole);
  }
  (void)pthread_mutex_unlock(&mutex);
  return rc;
}

EXPORT int mkdir(const char *path, mode_t mode) {
  char whole[PATH_MAX];
  struct stat st;
  if (!is_ours(whole, path) || lstat(whole, &st) == 0) return (int)syscall(SYS_mkdir, path, mode);
  (void)pthread_mutex_lock(&mutex);
  int rc = -1;
  if (judge(OP_MKDIR, whole) == NULL) {
    note_path(LOG_MKDIR, 0, whole);
    rc = (int)syscall(SYS_mkdir, whole, mode);
  }
  (void)pthread_mutex_unlock(&mutex);
  return rc;
}

/* ---- what nobody here uses ---- */

static int refuse_ours(int fd, long number, int mode, off_t at, off_t size) {
  if (file_of(fd) == NULL) return (int)syscall(number, fd, mode, at, size);
  errno = EOPNOTSUPP;
  return -1;
}

EXPORT int fallocate(int fd, int mode, off_t at, off_t size) {
  return refuse_ours(fd, SYS_fallocate, mode, at, size);
}
EXPORT int fallocate64(int fd, int mode, off64_t at, off64_t size) {
  return refuse_ours(fd, SYS_fallocate, mode, at, size);
}
