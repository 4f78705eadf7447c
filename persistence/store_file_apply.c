/* store_file_apply.c - what an op of the redo log does to the files and to the index. Doing it
 * again changes nothing, so that what a crash interrupted is simply done again, from the first op
 * that may be missing to the last. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/json.h"
#include "persistence/store_file.h"

/* ---- files ---- */

/* The folder above is made when it is missing. */
static int open_to_write(char *path) {
  const int flags = O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW;
  int fd = open(path, flags, 0600);
  if (fd >= 0 || errno != ENOENT) return fd;
  char *slash = strrchr(path, '/');
  *slash = '\0';
  int rc = mkdir(path, 0700);
  *slash = '/';
  return rc == 0 || errno == EEXIST ? open(path, flags, 0600) : -1;
}

/* What lies behind the end of a log is left of a commit that failed, or comes again. */
static bool write_op(int fd, const tm_file_op *op) {
  struct stat st;
  if (fstat(fd, &st) != 0) return false;
  int64_t end = op->kind == TM_FILE_APPEND ? op->at : INT64_MAX;
  if (op->kind == TM_FILE_PUT) end = (int64_t)op->bytes.len;
  if (st.st_size > end && ftruncate(fd, end) != 0) return false;
  return tm__file_write_all(fd, op->bytes, op->at);
}

static tm_status change_file(char *path, const tm_file_op *op, tm_error *err) {
  if (op->kind == TM_FILE_REMOVE)
    return unlink(path) == 0 || errno == ENOENT || errno == ENOTDIR
               ? TM_OK
               : tm__disk_fail(err, "remove", path);
  int fd = open_to_write(path);
  bool ok = fd >= 0 && write_op(fd, op);
  tm_status status = ok ? TM_OK : tm__disk_fail(err, "write", path);
  if (fd >= 0) (void)close(fd);
  return status;
}

tm_status tm__file_apply_to_file(const tm_store *s, const tm_file_op *op, tm_error *err) {
  tm_buf path = {0};
  tm__file_path(&path, s, &op->name);
  tm_status status =
      tm__buf_ok(&path) ? change_file(path.ptr, op, err) : tm__fail_memory(err, "the store's path");
  tm__buf_free(&path);
  return status;
}

tm_status tm__file_sync_path(tm_slice path, tm_error *err) {
  char *name = tm__slice_dup(path);
  if (name == NULL) return tm__fail_memory(err, "the store's path");
  int fd = open(name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  bool ok = fd >= 0 ? fsync(fd) == 0 : errno == ENOENT || errno == ENOTDIR;
  tm_status status = ok ? TM_OK : tm__disk_fail(err, "sync", name);
  if (fd >= 0) (void)close(fd);
  free(name);
  return status;
}

/* ---- the index ---- */

static tm_status refuse(tm_store_conn *c, tm_error *err) {
  return tm__file_damaged(err, c->store, "an entry of its redo log makes no sense");
}

static tm_status index_append(tm_store_conn *c, const tm_file_op *op, int64_t seq, tm_error *err) {
  tm_file_frame f;
  tm_file_entry entry = {.found = true, .seq = seq, .size = op->at + (int64_t)op->bytes.len};
  tm_slice bytes = op->bytes;
  int64_t at = op->at;
  const char *line = at == 0 ? memchr(bytes.ptr, '\n', bytes.len) : NULL;
  if (line != NULL) {
    size_t first = (size_t)(line - bytes.ptr) + 1;
    at += (int64_t)first;
    bytes = (tm_slice){bytes.ptr + first, bytes.len - first};
  }
  if (tm__file_frame_parse(&f, bytes, op->name.a, at) != TM_FILE_GOOD ||
      !tm__file_state_decode(&entry.state, f.head, &c->text))
    return refuse(c, err);
  return tm__file_entry_put(c, &entry, NULL, err);
}

static tm_status index_session(tm_store_conn *c, const tm_file_name *name, tm_slice json,
                               tm_error *err) {
  bool user, metadata;
  tm_buf b = {0};
  bool ok = tm__file_text_decode(json, "user_id", &b, &user);
  size_t middle = b.len;
  ok = ok && tm__file_text_decode(json, "metadata", &b, &metadata);
  if (!ok) {
    tm__buf_free(&b);
    return refuse(c, err);
  }
  const char *p = b.ptr != NULL ? b.ptr : "";
  tm_slice user_id = user ? (tm_slice){p, middle} : (tm_slice){0};
  tm_slice kept = metadata ? (tm_slice){p + middle, b.len - middle} : (tm_slice){0};
  tm_status status =
      tm__file_do(c, TM_FSQL_PUT_SESSION, err, "ttbbiiii", name->a, name->b, user_id, kept,
                  tm__json_get_int(json, "flags", 0), tm__json_get_int(json, "created", 0),
                  tm__json_get_int(json, "look_at", 0), tm__json_get_int(json, "ended", 0));
  tm__buf_free(&b);
  return status;
}

/* What could not be read under that name is replaced. */
static tm_status forget_damage(tm_store_conn *c, const tm_file_name *name, tm_error *err) {
  tm_buf path = {0};
  tm__file_path(&path, c->store, name);
  tm_status status = tm__buf_ok(&path) ? tm__file_do(c, TM_FSQL_DROP_DAMAGED, err, "s",
                                                     path.ptr + strlen(c->store->root) + 1)
                                       : tm__fail_memory(err, "the store's path");
  tm__buf_free(&path);
  return status;
}

static tm_status index_small(tm_store_conn *c, const tm_file_name *name, tm_slice content,
                             tm_error *err) {
  tm_slice text = content.ptr != NULL ? content : TM_S("");
  switch (name->what) {
  case TM_FILE_SESSION: return index_session(c, name, content, err);
  case TM_FILE_SCRIPT:
    return tm__file_do(c, TM_FSQL_PUT_SCRIPT, err, "tti", name->a, name->b,
                       c->store->now_ms(c->store->now_ud));
  case TM_FILE_NOTE: return tm__file_do(c, TM_FSQL_PUT_NOTE, err, "tb", name->a, text);
  case TM_FILE_TENANT:
    return tm__file_do(c, TM_FSQL_PUT_TENANT, err, "ti", name->a,
                       tm__json_get_int(content, "wake_at", 0));
  case TM_FILE_EVENT: return tm__file_event_index(c, name, content, err);
  case TM_FILE_CONVERSATION:
  case TM_FILE_WHATS: break;
  }
  return refuse(c, err);
}

tm_status tm__file_apply_small(tm_store_conn *c, const tm_file_name *name, tm_slice content,
                               tm_error *err) {
  tm_status status = index_small(c, name, content, err);
  return status == TM_OK ? forget_damage(c, name, err) : status;
}

static tm_status index_put(tm_store_conn *c, const tm_file_op *op, tm_error *err) {
  tm_file_name name;
  tm_slice content;
  tm_buf names = {0};
  tm_status status = tm__file_small_decode(&name, &content, op->bytes, &names)
                         ? tm__file_apply_small(c, &name, content, err)
                         : refuse(c, err);
  tm__buf_free(&names);
  return status;
}

static tm_status index_remove(tm_store_conn *c, const tm_file_name *name, tm_error *err) {
  tm_status status = TM_OK;
  switch (name->what) {
  case TM_FILE_CONVERSATION:
    status = tm__file_do(c, TM_FSQL_DROP_KEYS, err, "t", name->a);
    if (status == TM_OK) status = tm__file_do(c, TM_FSQL_DROP_HEAD, err, "t", name->a);
    return status == TM_OK ? tm__file_do(c, TM_FSQL_DROP_DAMAGED, err, "t", name->a) : status;
  case TM_FILE_SESSION: return tm__file_do(c, TM_FSQL_DROP_SESSION, err, "tt", name->a, name->b);
  case TM_FILE_NOTE: return tm__file_do(c, TM_FSQL_DROP_NOTE, err, "t", name->a);
  case TM_FILE_SCRIPT: return tm__file_do(c, TM_FSQL_DROP_SCRIPT, err, "tt", name->a, name->b);
  case TM_FILE_EVENT: return tm__file_event_unindex(c, name, err);
  case TM_FILE_TENANT: return tm__file_do(c, TM_FSQL_DROP_TENANT, err, "t", name->a);
  case TM_FILE_WHATS: break;
  }
  return refuse(c, err);
}

tm_status tm__file_apply_to_index(tm_store_conn *c, const tm_file_op *op, int64_t seq,
                                  tm_error *err) {
  switch (op->kind) {
  case TM_FILE_APPEND: return index_append(c, op, seq, err);
  case TM_FILE_PUT: return index_put(c, op, err);
  case TM_FILE_REMOVE: return index_remove(c, &op->name, err);
  case TM_FILE_WRITE: break; /* the row is the same to whoever looks for it */
  }
  return TM_OK;
}
