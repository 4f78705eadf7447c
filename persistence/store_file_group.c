/* store_file_group.c - a group, from its first look at a head to its durability. Between begin and
 * finish the index is locked for all other writers, of other processes too. Until the redo log has
 * the group it is taken back as if it had never been; from then on it happened, and what is missing
 * in logs and index is done by whoever comes next. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "persistence/store_file.h"

#define LARGE ((size_t)4 << 20) /* a buffer that is not kept for the next group */

/* ---- begin ---- */

static void roll_back(tm_store_conn *c) {
  if (c->index.db == NULL || sqlite3_get_autocommit(c->index.db) != 0) return;
  (void)sqlite3_exec(c->index.db, "ROLLBACK", NULL, NULL, NULL);
  if (sqlite3_get_autocommit(c->index.db) != 0) return;
  tm__file_index_close(c); /* without the memory for saying so, this does it */
  c->index.stale = true;
}

/* Ends what lock() began. */
static void unlock(tm_store_conn *c) {
  roll_back(c);
  (void)pthread_mutex_unlock(&c->store->writing);
}

/* Among threads first, then among processes. */
static tm_status lock(tm_store_conn *c, tm_error *err) {
  (void)pthread_mutex_lock(&c->store->writing);
  tm_status status = tm__file_do(c, TM_FSQL_BEGIN, err, "");
  if (status != TM_OK) unlock(c);
  return status;
}

tm_status tm__file_begin(tm_store_conn *c, tm_error *err) {
  static const char nothing[TM_FILE_GROUP_HEAD];
  if (c->group.cap > LARGE) tm__buf_free(&c->group);
  tm__buf_clear(&c->group);
  tm__buf_add(&c->group, nothing, sizeof(nothing));
  c->ops = 0;
  tm_status status = tm__file_in_place(c->store, err);
  if (status == TM_OK) status = lock(c, err);
  if (status != TM_OK) return status;
  status = tm__file_meta_read(c, &c->redo, err);
  if (status == TM_OK) status = tm__file_catch_up(c, err);
  if (status != TM_OK) unlock(c);
  return status;
}

tm_status tm__file_barrier(tm_store_conn *c, tm_error *err) {
  tm_status status = lock(c, err);
  if (status == TM_OK) unlock(c);
  return status;
}

/* ---- what is added ---- */

/* A log that is shorter than the index knows has lost what was durable. */
static tm_status check_log(tm_store_conn *c, const tm_file_entry *entry, tm_error *err) {
  struct stat st;
  tm_slice id = tm__slice(entry->state.head.id);
  if (entry->size == 0 || entry->seq == c->redo.seq + 1) return TM_OK; /* not written yet */
  tm__file_path(&c->text, c->store, &(tm_file_name){TM_FILE_CONVERSATION, id, {0}});
  if (!tm__buf_ok(&c->text)) return tm__fail_memory(err, "the store's path");
  if (stat(c->text.ptr, &st) == 0) {
    if (st.st_size >= entry->size) return TM_OK;
    return tm__file_log_damaged(err, c->store, id, st.st_size, "its end is missing");
  }
  if (errno == ENOENT) return tm__file_log_missing(err, c->store, id);
  return tm__disk_fail(err, "look at", c->text.ptr);
}

/* Who was started by a key is forgotten with it. */
static void forget_start(tm_file_state *s, int64_t now) {
  if (s->start_key == 0 || s->start_created >= now - TM_KEY_AGE_MS) return;
  s->start_key = s->start_body = 0;
  s->start_row = s->start_created = 0;
}

tm_status tm__file_add_frame(tm_store_conn *c, tm_file_entry *entry, const tm_file_entry *before,
                             const tm_row *row, tm_error *err) {
  tm_slice id = tm__slice(entry->state.head.id);
  tm_file_op op = {.kind = TM_FILE_APPEND, .name = {TM_FILE_CONVERSATION, id, {0}}};
  tm_status status = check_log(c, entry, err);
  if (status != TM_OK) return status;
  forget_start(&entry->state, c->store->now_ms(c->store->now_ud));
  op.at = entry->size;
  size_t begun = tm__file_op_begin(&c->group, &op), content = c->group.len;
  if (op.at == 0) tm__file_log_begin(&c->group, id);
  int64_t at = op.at + (int64_t)(c->group.len - content);
  tm__file_frame_encode(&c->group, at, &entry->state, row, 0);
  tm__file_op_end(&c->group, begun);
  if (!tm__buf_ok(&c->group)) return tm__fail_memory(err, "a commit");
  c->ops++;
  entry->size = op.at + (int64_t)(c->group.len - content);
  entry->seq = c->redo.seq + 1;
  entry->found = true;
  return tm__file_entry_put(c, entry, before, err);
}

tm_status tm__file_add_small(tm_store_conn *c, const tm_file_name *name, tm_slice content,
                             tm_error *err) {
  tm_file_op op = {.kind = TM_FILE_PUT, .name = *name};
  size_t begun = tm__file_op_begin(&c->group, &op);
  tm__file_small_encode(&c->group, name, content);
  tm__file_op_end(&c->group, begun);
  if (!tm__buf_ok(&c->group)) return tm__fail_memory(err, "a record");
  c->ops++;
  return tm__file_apply_small(c, name, content, err);
}

tm_status tm__file_add_remove(tm_store_conn *c, const tm_file_name *name, tm_error *err) {
  tm_file_op op = {.kind = TM_FILE_REMOVE, .name = *name};
  tm__file_op_end(&c->group, tm__file_op_begin(&c->group, &op));
  if (!tm__buf_ok(&c->group)) return tm__fail_memory(err, "a removal");
  c->ops++;
  return tm__file_apply_to_index(c, &op, c->redo.seq + 1, err);
}

/* ---- finish ---- */

static tm_slice ops_of(const tm_store_conn *c) {
  return (tm_slice){c->group.ptr + TM_FILE_GROUP_HEAD, c->group.len - TM_FILE_GROUP_HEAD};
}

/* Those that append, or those that do not. *count: how many. */
static tm_status apply_to_files(tm_store_conn *c, bool appends, size_t *count, tm_error *err) {
  tm_file_op op;
  tm_status status = TM_OK;
  for (size_t at = 0; status == TM_OK && tm__file_op_next(ops_of(c), &at, &op);) {
    if ((op.kind == TM_FILE_APPEND) != appends) continue;
    ++*count;
    status = tm__file_apply_to_file(c->store, &op, err);
  }
  return status;
}

static void shorten(const char *path, int64_t size) {
  struct stat st;
  int fd = open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) return;
  if (fstat(fd, &st) == 0 && st.st_size > size) (void)!ftruncate(fd, size);
  (void)close(fd);
}

/* What a group that is taken back had appended already; what stays behind an end is never read. */
static void shorten_logs(tm_store_conn *c) {
  tm_file_op op;
  for (size_t at = 0; tm__file_op_next(ops_of(c), &at, &op);) {
    if (op.kind != TM_FILE_APPEND) continue;
    tm__file_path(&c->text, c->store, &op.name);
    if (!tm__buf_ok(&c->text)) return;
    if (op.at == 0)
      (void)unlink(c->text.ptr);
    else
      shorten(c->text.ptr, op.at);
  }
}

/* What the small files have that the group is going to write, as ops that put it back. */
static tm_status note_old(tm_store_conn *c, tm_error *err) {
  tm_file_op op;
  tm_status status = TM_OK;
  if (c->old.cap > LARGE) tm__buf_free(&c->old);
  tm__buf_clear(&c->old);
  for (size_t at = 0; status == TM_OK && tm__file_op_next(ops_of(c), &at, &op);) {
    if (op.kind != TM_FILE_PUT) continue;
    tm__file_path(&c->text, c->store, &op.name);
    if (!tm__buf_ok(&c->text)) return tm__fail_memory(err, "the store's path");
    bool there = access(c->text.ptr, F_OK) == 0 || (errno != ENOENT && errno != ENOTDIR);
    if (!there) op.kind = TM_FILE_REMOVE;
    size_t begun = tm__file_op_begin(&c->old, &op);
    if (there) status = tm__file_small_read(c->text.ptr, &c->old, err);
    tm__file_op_end(&c->old, begun);
  }
  return status == TM_OK && !tm__buf_ok(&c->old) ? tm__fail_memory(err, "a small file") : status;
}

/* For good, before the redo log forgets the group. */
static bool put_back(tm_store_conn *c) {
  tm_file_op op;
  for (size_t at = 0; tm__file_op_next(tm__buf_view(&c->old), &at, &op);) {
    if (tm__file_apply_to_file(c->store, &op, NULL) != TM_OK) return false;
    tm__file_path(&c->text, c->store, &op.name);
    if (!tm__buf_ok(&c->text)) return false;
    if (tm__file_sync_path(tm__buf_view(&c->text), NULL) != TM_OK) return false;
    *strrchr(c->text.ptr, '/') = '\0';
    if (tm__file_sync_folder(c->text.ptr, NULL) != TM_OK) return false;
  }
  return true;
}

static bool has_commits_only(const tm_store_conn *c) {
  tm_file_op op;
  for (size_t at = 0; tm__file_op_next(ops_of(c), &at, &op);)
    if (op.kind != TM_FILE_APPEND && op.kind != TM_FILE_PUT) return false;
  return true;
}

/* The redo log has the group. When the rest fails, a commit is taken back: its client is told that
 * nothing happened. What was removed, or written over rows, stays, and is done by whoever comes
 * next. */
static tm_status settle(tm_store_conn *c, const tm_file_redo *before, tm_error *err) {
  size_t appends = 0, others = 0;
  tm_status status = apply_to_files(c, true, &appends, err);
  if (status == TM_OK) status = apply_to_files(c, false, &others, err);
  if (status == TM_OK) status = tm__file_do(c, TM_FSQL_COMMIT, err, "");
  if (status == TM_OK) {
    bool switched = c->redo.file != before->file && before->file >= 0;
    if (switched || tm__file_redo_is_full(&c->redo)) tm__file_drain_want(c->store);
    return TM_OK;
  }
  if (others == 0 || (has_commits_only(c) && put_back(c))) {
    tm__file_redo_cancel(c->store, before, &c->redo);
    shorten_logs(c);
  }
  return status;
}

static tm_status make_durable(tm_store_conn *c, tm_error *err) {
  tm_file_redo before = c->redo;
  if (!tm__buf_ok(&c->group)) return tm__fail_memory(err, "a group of commits");
  tm_status status = note_old(c, err);
  if (status == TM_OK) status = tm__file_redo_append(c->store, &c->redo, &c->group, c->ops, err);
  if (status != TM_OK) return status;
  status = tm__file_meta_write(c, &c->redo, err);
  if (status == TM_OK) return settle(c, &before, err);
  tm__file_redo_cancel(c->store, &before, &c->redo);
  return status;
}

tm_status tm__file_finish_always(tm_store_conn *c, tm_error *err) {
  tm_status status = make_durable(c, err);
  unlock(c);
  return status;
}

tm_status tm__file_finish(tm_store_conn *c, tm_status status, tm_error *err) {
  if (status == TM_OK && c->ops > 0) return tm__file_finish_always(c, err);
  unlock(c);
  return status;
}
