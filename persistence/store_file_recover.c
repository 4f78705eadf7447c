/* store_file_recover.c - what dead processes left: groups of the redo log that logs and index do
 * not have yet, and an index that is missing or too old, which is made anew from the ends of the
 * logs, one log at a time. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/json.h"
#include "persistence/store_file.h"

/* ---- the redo log ---- */

/* What is there already may be followed by more: nothing of it goes. */
static tm_status apply_again(tm_store_conn *c, const tm_file_op *op, tm_error *err) {
  tm_file_op again = *op;
  if (again.kind == TM_FILE_APPEND) again.kind = TM_FILE_WRITE;
  return tm__file_apply_to_file(c->store, &again, err);
}

static tm_status apply_group(tm_store_conn *c, const tm_buf *group, int64_t seq, bool index,
                             tm_error *err) {
  tm_slice ops = {group->ptr + TM_FILE_GROUP_HEAD, group->len - TM_FILE_GROUP_HEAD};
  tm_file_op op;
  size_t at = 0;
  tm_status status = TM_OK;
  while (status == TM_OK && tm__file_op_next(ops, &at, &op)) {
    status = apply_again(c, &op, err);
    if (status == TM_OK && index) status = tm__file_apply_to_index(c, &op, seq, err);
  }
  if (status == TM_OK && at != ops.len)
    status = tm__file_damaged(err, c->store, "an entry of its redo log makes no sense");
  return status;
}

/* Where the next group would be: behind the last one, or first in a file that was begun. */
static tm_status find_next(tm_store_conn *c, tm_file_redo *next, tm_buf *group, bool *there,
                           tm_error *err) {
  const tm_file_redo *redo = &c->redo;
  tm_status status = TM_OK;
  *there = false;
  *next = *redo;
  next->seq++;
  if (redo->file >= 0)
    status = tm__file_redo_read(c->store, redo->file, redo->first, next->seq, redo->end, true,
                                group, there, err);
  for (int i = 0; status == TM_OK && !*there && i < 2; i++) {
    bool io = false;
    if (i == redo->file || tm__file_redo_first(c->store, i, &io) != next->seq) continue;
    next->file = i;
    next->first = next->seq;
    next->end = TM_FILE_REDO_BEGIN;
    status =
        tm__file_redo_read(c->store, i, next->first, next->seq, next->end, true, group, there, err);
  }
  next->end += (int64_t)group->len;
  return status;
}

tm_status tm__file_catch_up(tm_store_conn *c, tm_error *err) {
  tm_buf group = {0};
  tm_file_redo next;
  bool there = true, found = false;
  tm_status status = TM_OK;
  while (status == TM_OK && there) {
    status = find_next(c, &next, &group, &there, err);
    if (status != TM_OK || !there) break;
    found = true;
    status = apply_group(c, &group, next.seq, true, err);
    if (status == TM_OK) status = tm__file_meta_write(c, &next, err);
    if (status == TM_OK) c->redo = next;
  }
  tm__buf_free(&group);
  if (status != TM_OK || !found) return status;
  status = tm__file_do(c, TM_FSQL_COMMIT, err, "");
  if (status == TM_OK) status = tm__file_do(c, TM_FSQL_BEGIN, err, "");
  return status == TM_OK ? tm__file_meta_read(c, &c->redo, err) : status;
}

/* All groups of a file again, which changes nothing where they are known. *last: the newest. */
static tm_status replay(tm_store_conn *c, int file, int64_t first, bool index, int64_t *last,
                        tm_error *err) {
  tm_buf group = {0};
  tm_status status = tm__file_redo_settle(c->store, file, err);
  int64_t at = TM_FILE_REDO_BEGIN;
  *last = first - 1;
  for (bool there = true; status == TM_OK && there;) {
    status = tm__file_redo_read(c->store, file, first, *last + 1, at, false, &group, &there, err);
    if (status != TM_OK || !there) break;
    at += (int64_t)group.len;
    ++*last;
    status = apply_group(c, &group, *last, index, err);
  }
  tm__buf_free(&group);
  return status;
}

typedef struct live { /* the redo logs that are not free, older first */
  int file[2], count;
  int64_t first[2];
} live;

/* Those of which everything is durable elsewhere are freed for good: who wanted to may have died,
 * or it may have come back with the power. */
static tm_status find_live(tm_store *s, int64_t upto, live *l, tm_error *err) {
  *l = (live){0};
  for (int i = 0; i < 2; i++) {
    bool io = false;
    int64_t first = tm__file_redo_first(s, i, &io);
    if (io) return tm__disk_fail(err, "read the redo log of", s->root);
    if (first <= upto) {
      tm_status status = tm__file_redo_free(s, i, err);
      if (status != TM_OK) return status;
      continue;
    }
    int at = l->count > 0 && first < l->first[0] ? 0 : l->count;
    if (at == 0 && l->count > 0) {
      l->file[1] = l->file[0];
      l->first[1] = l->first[0];
    }
    l->file[at] = i;
    l->first[at] = first;
    l->count++;
  }
  return TM_OK;
}

/* *last: the newest group there is, at least `known`. */
static tm_status replay_live(tm_store_conn *c, const live *l, bool index, int64_t *last,
                             tm_error *err) {
  int64_t known = *last;
  tm_status status = TM_OK;
  for (int i = 0; status == TM_OK && i < l->count; i++) {
    status = replay(c, l->file[i], l->first[i], index, last, err);
    if (status == TM_OK && i + 1 < l->count && *last + 1 != l->first[i + 1])
      status = tm__file_damaged(err, c->store, "its older redo log does not reach the newer one");
  }
  if (status == TM_OK && *last < known)
    status = tm__file_damaged(err, c->store, "its redo log ends before its index does");
  return status;
}

/* ---- a new index: conversations ---- */

static bool all_zero(int fd, int64_t at, int64_t end) {
  char bytes[4096];
  while (at < end) {
    int64_t n = tm__file_read_all(fd, bytes, sizeof(bytes), at);
    if (n <= 0) return false;
    for (int64_t i = 0; i < n; i++)
      if (bytes[i] != 0) return false;
    at += n;
  }
  return true;
}

typedef struct found { /* the end of a log */
  tm_file_entry entry;
  int64_t size; /* of the file */
  int64_t bad;  /* where it is damaged; -1: it is not */
} found;

static tm_status take_frame(tm_store_conn *c, found *f, const tm_file_frame *frame, tm_slice id,
                            tm_error *err) {
  f->entry.size = frame->at + frame->size;
  if (frame->moved != 0) return TM_OK;
  f->entry.found = tm__file_state_decode(&f->entry.state, frame->head, &c->text) &&
                   tm__slice_is(id, f->entry.state.head.id);
  if (!f->entry.found) f->bad = frame->at;
  return tm__buf_ok(&c->text) ? TM_OK : tm__fail_memory(err, "a head");
}

/* From the first frame to the last whole one: the end says nothing. */
static tm_status look_through(tm_store_conn *c, int fd, tm_slice id, found *f, tm_error *err) {
  int64_t at = 0;
  tm_status status = TM_OK;
  tm_file_look look = tm__file_log_check(fd, id, &at);
  if (look == TM_FILE_CUT) at = 0;
  while (status == TM_OK && f->bad < 0 && look == TM_FILE_GOOD && at < f->size) {
    tm_file_frame frame;
    look = tm__file_frame_read(&frame, &c->frame, fd, id, at);
    if (look != TM_FILE_GOOD) break;
    status = take_frame(c, f, &frame, id, err);
    at += frame.size;
  }
  if (look == TM_FILE_FAILED) return tm__disk_fail(err, "read", "a log");
  if (look == TM_FILE_BAD && !all_zero(fd, at, f->size)) f->bad = at;
  return status;
}

static tm_status look_at_end(tm_store_conn *c, int fd, tm_slice id, found *f, tm_error *err) {
  int64_t at = 0, first = 0;
  tm_file_frame frame;
  tm_file_look look = tm__file_log_check(fd, id, &first);
  if (look == TM_FILE_GOOD) look = tm__file_frame_last(fd, f->size, &at);
  if (look == TM_FILE_GOOD) look = tm__file_frame_read(&frame, &c->frame, fd, id, at);
  if (look == TM_FILE_FAILED) return tm__disk_fail(err, "read", "a log");
  if (look == TM_FILE_GOOD && frame.at + frame.size == f->size && frame.moved == 0)
    return take_frame(c, f, &frame, id, err);
  return look_through(c, fd, id, f, err);
}

/* The end of a commit that never was whole: nobody was told that it happened. */
static tm_status cut(tm_store_conn *c, int fd, const char *path, const found *f, tm_error *err) {
  c->store->cut++;
  bool ok =
      f->entry.found ? ftruncate(fd, f->entry.size) == 0 && fsync(fd) == 0 : unlink(path) == 0;
  return ok ? TM_OK : tm__disk_fail(err, "cut", path);
}

static tm_status take_log(tm_store_conn *c, const char *path, tm_slice id, tm_error *err) {
  struct stat st = {0};
  found f = {.bad = -1};
  int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
  tm_status status = fd >= 0 && fstat(fd, &st) == 0 ? TM_OK : tm__disk_fail(err, "read", path);
  if (status == TM_OK) {
    f.size = st.st_size;
    status = look_at_end(c, fd, id, &f, err);
  }
  if (status == TM_OK && f.bad >= 0)
    status = tm__file_entry_damaged(c, id, f.bad, "a commit in it cannot be read", err);
  else if (status == TM_OK && f.entry.size != f.size)
    status = cut(c, fd, path, &f, err);
  if (status == TM_OK && f.bad < 0 && f.entry.found)
    status = tm__file_entry_put(c, &f.entry, NULL, err);
  if (fd >= 0) (void)close(fd);
  return status;
}

/* The id is the file's name, or stands in its first line. */
static tm_status take_conversation(tm_store_conn *c, const char *path, const char *name,
                                   tm_error *err) {
  char line[256] = "";
  tm_buf id = {0};
  size_t length = strcspn(name, ".");
  tm__buf_add(&id, name, length);
  if (!tm__uuid_valid((tm_slice){name, length})) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    int64_t n = fd >= 0 ? tm__file_read_all(fd, line, sizeof(line) - 1, 0) : -1;
    if (fd >= 0) (void)close(fd);
    tm_buf said = {0};
    line[n > 0 ? strcspn(line, "\n") : 0] = '\0';
    if (tm__json_get_text(tm__slice(line), "id", &said)) {
      tm__buf_clear(&id);
      tm__buf_slice(&id, tm__buf_view(&said));
    }
    tm__buf_free(&said);
  }
  tm_status status = tm__buf_ok(&id) ? take_log(c, path, tm__buf_view(&id), err)
                                     : tm__fail_memory(err, "a log's name");
  tm__buf_free(&id);
  return status;
}

/* ---- a new index: small files ---- */

static tm_status take_small(tm_store_conn *c, const char *path, tm_error *err) {
  tm_buf bytes = {0}, names = {0};
  tm_file_name name;
  tm_slice content;
  tm_status status = tm__file_small_read(path, &bytes, err);
  if (status == TM_OK && tm__file_small_decode(&name, &content, tm__buf_view(&bytes), &names))
    status = tm__file_apply_small(c, &name, content, err);
  else if (status == TM_OK)
    status = tm__file_entry_damaged(c, tm__slice(path + strlen(c->store->root) + 1), 0,
                                    "a small file cannot be read", err);
  tm__buf_free(&bytes);
  tm__buf_free(&names);
  return status;
}

/* ---- a new index: folders ---- */

static tm_status take_file(void *ud, tm_file_what what, const char *path, const char *name,
                           tm_error *err) {
  return what == TM_FILE_CONVERSATION ? take_conversation(ud, path, name, err)
                                      : take_small(ud, path, err);
}

static tm_status fill(tm_store_conn *c, tm_error *err) {
  tm_status status = tm__file_do(c, TM_FSQL_BEGIN, err, "");
  for (int i = 0; status == TM_OK && i < TM_FILE_WHATS; i++)
    status = tm__file_each(c->store, (tm_file_what)i, take_file, c, err);
  return status == TM_OK ? tm__file_index_complete(c, err) : status;
}

/* ---- opening ---- */

static tm_status remake(tm_store *s, const live *l, tm_error *err) {
  tm_store_conn *c = s->keeper;
  int64_t last = 0;
  tm__file_index_close(c);
  tm_status status = tm__file_index_create(s, err);
  if (status == TM_OK) status = tm__file_index_open(c, err);
  if (status == TM_OK) status = tm__file_identify(s, err);
  if (status == TM_OK) status = replay_live(c, l, false, &last, err);
  if (status == TM_OK) status = fill(c, err);
  if (status == TM_OK)
    status = tm__file_meta_write(c, &(tm_file_redo){.file = -1, .seq = last}, err);
  if (status == TM_OK) status = tm__file_do(c, TM_FSQL_COMMIT, err, "");
  s->rebuilt = status == TM_OK;
  return status;
}

/* *old: the redo log begins behind what the index has. */
static tm_status compare(tm_store_conn *c, live *l, bool *old, tm_error *err) {
  tm_status status = tm__file_meta_read(c, &c->redo, err);
  if (status == TM_OK) status = find_live(c->store, c->redo.upto, l, err);
  if (status != TM_OK) return status;
  *old = l->count > 0 && l->first[0] > c->redo.seq + 1;
  if (c->redo.first <= c->redo.upto || l->count > 0) return TM_OK;
  return tm__file_damaged(err, c->store,
                          "its redo log, 0.redo or 1.redo, is missing or another's. If it is lost, "
                          "remove index.db as well: what the logs have is then used");
}

static tm_status repeat(tm_store_conn *c, const live *l, tm_error *err) {
  int64_t last = c->redo.seq;
  tm_status status = tm__file_do(c, TM_FSQL_BEGIN, err, "");
  if (status == TM_OK) status = replay_live(c, l, true, &last, err);
  if (status == TM_OK)
    status = tm__file_meta_write(c, &(tm_file_redo){.file = -1, .seq = last}, err);
  if (status == TM_OK) return tm__file_do(c, TM_FSQL_COMMIT, err, "");
  (void)sqlite3_exec(c->index.db, "ROLLBACK", NULL, NULL, NULL);
  return status;
}

tm_status tm__file_recover_store(tm_store *s, tm_error *err) {
  live l = {0};
  bool old = false;
  tm_status status = tm__file_index_settle(s, err);
  if (status == TM_OK) status = tm__file_index_check(s, err);
  if (status == TM_OK) status = tm__file_identify(s, err);
  if (status == TM_OK) status = tm__file_index_open(s->keeper, err);
  if (status == TM_OK) status = compare(s->keeper, &l, &old, err);
  if (status == TM_ENOTFOUND || (status == TM_OK && old)) {
    status = find_live(s, 0, &l, err);
    if (status == TM_OK) status = remake(s, &l, err);
  } else if (status == TM_OK && l.count > 0) {
    status = repeat(s->keeper, &l, err);
  }
  if (status == TM_OK) (void)tm__file_do(s->keeper, TM_FSQL_SETTLED, NULL, ""); /* all is written */
  for (int i = 0; status == TM_OK && i < l.count; i++)
    status = tm__file_drain(s->keeper, l.file[i], true, err);
  return status;
}
