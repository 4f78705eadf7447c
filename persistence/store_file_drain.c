/* store_file_drain.c - makes durable in the logs themselves what a redo log holds, so that it is
 * free again: in a thread of its own while commits go on into the other one, and at the end. Each
 * log is synced once, however many commits it got. After a sync that failed the system takes what
 * it could not write for clean: everything is then written again first, and whoever syncs says so
 * in the index beforehand, so that every process knows of it, whatever becomes of him. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "core/map.h"
#include "persistence/store_file.h"

#define RETRY_MS 500
#ifndef TM_FILE_SYNC_MANY /* a test has them synced together early */
#define TM_FILE_SYNC_MANY 64
#endif

/* ---- one redo log ---- */

typedef struct gathered {
  tm_map files, folders; /* paths; the value says nothing */
  int64_t last;          /* seq of the newest group */
  bool failed;           /* out of memory */
} gathered;

static void gather_op(const tm_store *s, gathered *g, const tm_file_op *op, tm_buf *path) {
  tm__file_path(path, s, &op->name);
  bool ok = tm__buf_ok(path);
  if (ok && op->kind != TM_FILE_REMOVE) ok = tm__map_set(&g->files, tm__buf_view(path), g);
  for (int i = 0; ok && i < 2 && op->kind != TM_FILE_WRITE; i++) { /* its folder, and that of all */
    path->len = (size_t)(strrchr(path->ptr, '/') - path->ptr);
    path->ptr[path->len] = '\0';
    ok = tm__map_set(&g->folders, tm__buf_view(path), g);
  }
  g->failed = g->failed || !ok;
}

typedef tm_status (*group_fn)(tm_store_conn *c, gathered *g, const tm_file_op *op, tm_error *err);

static tm_status gather(tm_store_conn *c, gathered *g, const tm_file_op *op, tm_error *err) {
  gather_op(c->store, g, op, &c->text);
  return g->failed ? tm__fail_memory(err, "the files to sync") : TM_OK;
}

/* A log is longer by now; nothing of it may go. */
static tm_status write_again(tm_store_conn *c, gathered *g, const tm_file_op *op, tm_error *err) {
  (void)g;
  tm_file_op again = *op;
  if (again.kind == TM_FILE_APPEND) again.kind = TM_FILE_WRITE;
  return tm__file_apply_to_file(c->store, &again, err);
}

static tm_status for_each_op(tm_store_conn *c, int file, int64_t first, gathered *g, group_fn fn,
                             tm_error *err) {
  tm_buf group = {0};
  tm_status status = TM_OK;
  int64_t at = TM_FILE_REDO_BEGIN;
  g->last = first - 1;
  for (bool there = true; status == TM_OK && there;) {
    tm_file_op op;
    status = tm__file_redo_read(c->store, file, first, g->last + 1, at, false, &group, &there, err);
    if (status != TM_OK || !there) break;
    tm_slice ops = {group.ptr + TM_FILE_GROUP_HEAD, group.len - TM_FILE_GROUP_HEAD};
    for (size_t i = 0; status == TM_OK && tm__file_op_next(ops, &i, &op);)
      status = fn(c, g, &op, err);
    at += (int64_t)group.len;
    g->last++;
  }
  tm__buf_free(&group);
  return status;
}

/* Both, older first. */
static tm_status write_all_again(tm_store_conn *c, tm_error *err) {
  gathered g = {0};
  bool io = false;
  tm_status status = TM_OK;
  int64_t first[2] = {tm__file_redo_first(c->store, 0, &io), 0};
  if (!io) first[1] = tm__file_redo_first(c->store, 1, &io);
  int older = first[1] != 0 && (first[0] == 0 || first[1] < first[0]) ? 1 : 0;
  if (io) status = tm__disk_fail(err, "read the redo log of", c->store->root);
  for (int i = 0; status == TM_OK && i < 2; i++) {
    int file = i == 0 ? older : 1 - older;
    if (first[file] != 0) status = for_each_op(c, file, first[file], &g, write_again, err);
  }
  return status == TM_OK ? tm__file_index_settle(c->store, err) : status;
}

/* Says in the index that syncs begin. That it says so already is left of one that failed, maybe in
 * another process: everything is then written again, while nobody else writes. */
static tm_status begin_syncs(tm_store_conn *c, tm_error *err) {
  tm_status status = tm__file_begin(c, err);
  if (status != TM_OK) return status;
  int64_t syncs = c->redo.syncs, failed = syncs % 2;
  if (failed != 0) status = write_all_again(c, err);
  if (status == TM_OK) status = tm__file_do(c, TM_FSQL_SYNCS, err, "ii", syncs, syncs + 1 + failed);
  if (status == TM_OK) status = tm__file_do(c, TM_FSQL_COMMIT, err, "");
  c->ops = 0;
  return tm__file_finish(c, status, err);
}

/* Since Linux 5.8 it says whether something could not be written. */
static bool can_sync_together(void) {
  struct utsname u;
  long major = 0, minor = 0;
  if (uname(&u) != 0 || strcmp(u.sysname, "Linux") != 0) return false;
  char *rest;
  major = strtol(u.release, &rest, 10);
  if (*rest == '.') minor = strtol(rest + 1, NULL, 10);
  return major > 5 || (major == 5 && minor >= 8);
}

/* One sync of the file system costs what two of a file do. */
static bool sync_together(const tm_store *s, const gathered *g, tm_status *status, tm_error *err) {
  if (g->files.count + g->folders.count < TM_FILE_SYNC_MANY || !can_sync_together()) return false;
  *status = syncfs(s->lock) == 0 ? TM_OK : tm__disk_fail(err, "sync the disk of", s->root);
  return true;
}

static tm_status sync_all(const tm_store *s, const gathered *g, tm_error *err) {
  tm_slice path;
  void *value;
  tm_status status = TM_OK;
  if (sync_together(s, g, &status, err)) return status;
  for (size_t at = 0; status == TM_OK && tm__map_next(&g->files, &at, &path, &value);)
    status = tm__file_sync_path(path, err);
  for (size_t at = 0; status == TM_OK && tm__map_next(&g->folders, &at, &path, &value);) {
    char *folder = tm__slice_dup(path);
    status = folder != NULL ? tm__file_sync_folder(folder, err)
                            : tm__fail_memory(err, "the store's path");
    free(folder);
  }
  return status;
}

/* The index has it all, and survives a power cut: with this one commit, since it writes one log. It
 * also says that the syncs went well.
 * *others: the file is still needed. One that has become the one that is written meanwhile is not
 * taken from its writers, who may have no other, unless nobody writes. */
static tm_status sync_index(tm_store_conn *c, int file, bool alone, const gathered *g, bool *others,
                            tm_error *err) {
  tm_file_redo redo;
  errno = 0;
  int rc = sqlite3_exec(c->index.db, "PRAGMA synchronous=FULL", NULL, NULL, NULL);
  if (rc != SQLITE_OK) return tm__file_sql_conn_fail(c, rc, "sync it", err);
  tm_status status = tm__file_begin(c, err);
  if (status == TM_OK) {
    redo = c->redo;
    *others = redo.file == file && (!alone || redo.seq != g->last);
    if (redo.file == file && !*others) redo = (tm_file_redo){.file = -1, .seq = redo.seq};
    status = tm__file_meta_write(c, &redo, err);
    if (status == TM_OK)
      status = tm__file_do(c, TM_FSQL_DRAINED, err, "i", *others ? INT64_C(0) : g->last);
    if (status == TM_OK) status = tm__file_do(c, TM_FSQL_COMMIT, err, "");
    c->ops = 0;
    status = tm__file_finish(c, status, err);
  }
  if (c->index.db != NULL)
    (void)sqlite3_exec(c->index.db, "PRAGMA synchronous=NORMAL", NULL, NULL, NULL);
  return status;
}

/* Under the write lock, so that nobody begins to use it meanwhile. */
static tm_status set_free(tm_store_conn *c, int file, int64_t first, tm_error *err) {
  bool io = false;
  tm_status status = tm__file_begin(c, err);
  if (status != TM_OK) return status;
  if (c->redo.file != file && tm__file_redo_first(c->store, file, &io) == first) {
    status = tm__file_redo_free(c->store, file, err);
    c->store->doubt[file] = status != TM_OK;
  }
  c->ops = 0;
  return tm__file_finish(c, status, err);
}

static tm_status drain(tm_store_conn *c, int file, int64_t first, bool alone, tm_error *err) {
  gathered g = {0};
  bool others = false;
  tm_status status = begin_syncs(c, err);
  if (status == TM_OK) status = for_each_op(c, file, first, &g, gather, err);
  if (status == TM_OK) status = sync_all(c->store, &g, err);
  if (status == TM_OK) status = tm__file_sync_folder(c->store->root, err); /* the index's names */
  if (status == TM_OK) status = sync_index(c, file, alone, &g, &others, err);
  if (status == TM_OK && !others) status = set_free(c, file, first, err);
  tm__map_free(&g.files);
  tm__map_free(&g.folders);
  return status;
}

/* One process at a time does this; the others need not wait for it. */
tm_status tm__file_drain(tm_store_conn *c, int file, bool alone, tm_error *err) {
  tm_store *s = c->store;
  bool io = false;
  tm_status status = TM_OK;
  if (flock(s->redo[0], LOCK_EX | LOCK_NB) != 0)
    return errno == EWOULDBLOCK ? TM_OK : tm__disk_fail(err, "lock the redo log of", s->root);
  int64_t first = tm__file_redo_first(s, file, &io);
  if (io)
    status = tm__disk_fail(err, "read the redo log of", s->root);
  else if (first != 0)
    status = drain(c, file, first, alone, err);
  else if (s->doubt[file])
    status = set_free(c, file, 0, err);
  (void)flock(s->redo[0], LOCK_UN);
  return status;
}

/* ---- the thread ---- */

/* The one that is not written. What fails is tried again: until then the other one grows. */
static bool drain_idle(tm_store *s) {
  tm_file_redo redo;
  if (tm__file_meta_read(s->keeper, &redo, NULL) != TM_OK) return false;
  bool ok = true;
  for (int i = 0; i < 2; i++)
    if (i != redo.file) ok = tm__file_drain(s->keeper, i, false, NULL) == TM_OK && ok;
  return ok;
}

static void wait_before_retry(tm_store *s) { /* under the lock */
  struct timespec until;
  (void)clock_gettime(CLOCK_REALTIME, &until);
  until.tv_nsec += (long)RETRY_MS * 1000000;
  until.tv_sec += until.tv_nsec / 1000000000;
  until.tv_nsec %= 1000000000;
  (void)pthread_cond_timedwait(&s->wake, &s->mutex, &until);
}

static void *drainer_main(void *arg) {
  tm_store *s = arg;
  (void)pthread_mutex_lock(&s->mutex);
  while (!s->closing) {
    if (!s->wanted) {
      (void)pthread_cond_wait(&s->wake, &s->mutex);
      continue;
    }
    s->wanted = false;
    (void)pthread_mutex_unlock(&s->mutex);
    bool ok = drain_idle(s);
    (void)pthread_mutex_lock(&s->mutex);
    if (ok || s->closing) continue;
    s->wanted = true;
    wait_before_retry(s);
  }
  (void)pthread_mutex_unlock(&s->mutex);
  return NULL;
}

/* Without the thread it is wanted again at the next commit. */
void tm__file_drain_want(tm_store *s) {
  (void)pthread_mutex_lock(&s->mutex);
  s->wanted = true;
  if (!s->started && !s->closing)
    s->started = pthread_create(&s->drainer, NULL, drainer_main, s) == 0;
  (void)pthread_cond_signal(&s->wake);
  (void)pthread_mutex_unlock(&s->mutex);
}

void tm__file_drain_stop(tm_store *s) {
  (void)pthread_mutex_lock(&s->mutex);
  s->closing = true;
  bool started = s->started;
  (void)pthread_cond_signal(&s->wake);
  (void)pthread_mutex_unlock(&s->mutex);
  if (started) (void)pthread_join(s->drainer, NULL);
}
