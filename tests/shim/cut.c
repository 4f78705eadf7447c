/* cut.c - a host that dies at a commit, for every_step.test.mjs: this stands between the host and
 * its store. Commits are counted by their kind; at one of them the process is killed, before it or
 * when it is done and nobody has heard of it. $TM_CUT is a page that cut.mjs writes and reads while
 * the host runs. A kill loses nothing that was written: nobody waits for the disk. */
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "persistence/store.h"

#define EXPORT __attribute__((visibility("default")))

typedef enum kind { ROW, HEAD, EVENT, KINDS } kind; /* EVENT: one is taken to be sent, or was */

struct control { /* cut.mjs knows this layout */
  atomic_uint counts[KINDS];
  uint32_t kind, at; /* the commit that is the last one; `at` 0: none is */
  uint32_t done;     /* it is done then */
};

static struct control *control;
static const tm_store_backend *real;
static tm_store_backend backend;

const tm_store_backend *__real_tm__store_backend(tm_slice scheme);
const tm_store_backend *__wrap_tm__store_backend(tm_slice scheme);

_Noreturn static void die(void) {
  (void)kill(getpid(), SIGKILL);
  for (;;)
    (void)pause();
}

/* Whether the process ends behind this one. */
static bool is_last(kind k) {
  uint32_t n = atomic_fetch_add(&control->counts[k], 1) + 1;
  bool last = control->kind == k && control->at == n;
  if (last && control->done == 0) die();
  return last;
}

static tm_status end(bool last, tm_status status) {
  if (last) die();
  return status;
}

static tm_status commit(tm_store_conn *c, tm_commit *const *items, size_t count, tm_error *err) {
  kind k = HEAD;
  for (size_t i = 0; i < count; i++)
    if (items[i]->row != NULL) k = ROW;
  bool last = is_last(k);
  return end(last, real->commit(c, items, count, err));
}

static tm_status outbox_take(tm_store_conn *c, int64_t now, int64_t until, size_t limit,
                             tm_outgoing_fn fn, void *ud, tm_error *err) {
  bool last = is_last(EVENT);
  return end(last, real->outbox_take(c, now, until, limit, fn, ud, err));
}

static tm_status outbox_settle(tm_store_conn *c, const tm_outgoing *event, tm_outcome outcome,
                               int64_t at, tm_error *err) {
  bool last = is_last(EVENT);
  return end(last, real->outbox_settle(c, event, outcome, at, err));
}

static void start(void) {
  const char *file = getenv("TM_CUT");
  int fd = open(file != NULL ? file : "", O_RDWR | O_CLOEXEC);
  control = mmap(NULL, sizeof(*control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (fd < 0 || control == MAP_FAILED) {
    perror("TM_CUT");
    exit(99);
  }
  (void)close(fd);
}

/* The host asks for its backend before it has threads. */
const tm_store_backend *__wrap_tm__store_backend(tm_slice scheme) {
  const tm_store_backend *found = __real_tm__store_backend(scheme);
  if (found == NULL || !found->durable) return found;
  if (control == NULL) start();
  real = found;
  backend = *found;
  backend.commit = commit;
  backend.outbox_take = outbox_take;
  backend.outbox_settle = outbox_settle;
  return &backend;
}

/* Before libc's, for SQLite's library too. */
EXPORT int fsync(int fd) {
  (void)fd;
  return 0;
}
EXPORT int fdatasync(int fd) {
  (void)fd;
  return 0;
}
EXPORT int syncfs(int fd) {
  (void)fd;
  return 0;
}
