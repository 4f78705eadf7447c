/* store_file_redo.c - the redo log: a group of commits is durable when it is, with one sync,
 * however many logs it is for. The logs get their parts right afterwards and are synced in the
 * background; what a crash leaves undone is done again from here. Two files take turns: while one
 * is written, the logs of the other are synced, and it is free again. They are overwritten, not
 * cut, so that a sync has no new length to make durable. A group's checksum has a random secret of
 * its file's head in it: nothing older, and nothing that somebody said, is taken for a group. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "persistence/store_file.h"

#ifndef TM_FILE_REDO_BYTES /* a test has the files take turns early */
#define TM_FILE_REDO_BYTES (INT64_C(8) << 20)
#endif

#define MAGIC   "TMredo1\n"
#define SALT    16
#define OP_HEAD 24

/* A file: magic 8, first 8, salt 16, checksum 16, unused 16. A group: magic 8, seq 8, ops 8,
 * bytes 8, checksum 16, unused 16; the checksum covers the 32 bytes before it and the ops. */
typedef struct block {
  unsigned char bytes[TM_FILE_GROUP_HEAD];
} block;

static void put_u64(unsigned char *p, uint64_t v) { /* little-endian: files travel */
  for (int i = 0; i < 8; i++)
    p[i] = (unsigned char)(v >> (8 * i));
}

static uint64_t get_u64(const unsigned char *p) {
  uint64_t v = 0;
  for (int i = 0; i < 8; i++)
    v |= (uint64_t)p[i] << (8 * i);
  return v;
}

static void put_u16(unsigned char *p, size_t v) {
  p[0] = (unsigned char)v;
  p[1] = (unsigned char)(v >> 8);
}

static size_t get_u16(const unsigned char *p) {
  return p[0] | (size_t)p[1] << 8;
}

static tm_slice bytes_of(const void *p, size_t len) {
  return (tm_slice){p, len};
}

static const char *const file_names[] = {"0.redo", "1.redo"};

static tm_status fail(const tm_store *s, int file, const char *doing, tm_error *err) {
  int error = errno;
  tm_buf path = {0};
  tm__file_beside(&path, s, file_names[file]);
  errno = error;
  tm_status status = tm__disk_fail(err, doing, tm__buf_ok(&path) ? path.ptr : file_names[file]);
  tm__buf_free(&path);
  return status;
}

tm_status tm__file_redo_open(tm_store *s, tm_error *err) {
  tm_buf path = {0};
  tm_status status = TM_OK;
  for (int i = 0; status == TM_OK && i < 2; i++) {
    struct stat st;
    tm__file_beside(&path, s, file_names[i]);
    if (!tm__buf_ok(&path)) {
      status = tm__fail_memory(err, "the store's path");
      break;
    }
    s->redo[i] = open(path.ptr, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (s->redo[i] < 0 || fstat(s->redo[i], &st) != 0)
      status = tm__disk_fail(err, "open", path.ptr);
    else
      s->redo_inode[i] = st.st_ino;
  }
  tm__buf_free(&path);
  return status;
}

/* ---- the head of a file ---- */

static bool read_head(const tm_store *s, int file, block *h, bool *io) {
  unsigned char sum[TM_FILE_SUM];
  int64_t n = tm__file_read_all(s->redo[file], h->bytes, sizeof(h->bytes), 0);
  *io = n < 0;
  if (n != sizeof(h->bytes) || memcmp(h->bytes, MAGIC, 8) != 0) return false;
  tm__file_sum(sum, (const tm_slice[]){bytes_of(h->bytes, 32)}, 1);
  return memcmp(sum, h->bytes + 32, sizeof(sum)) == 0;
}

int64_t tm__file_redo_first(const tm_store *s, int file, bool *io) {
  block h;
  return read_head(s, file, &h, io) ? (int64_t)get_u64(h.bytes + 8) : 0;
}

static bool write_head(const tm_store *s, int file, int64_t first, block *h) {
  memset(h->bytes, 0, sizeof(h->bytes));
  memcpy(h->bytes, MAGIC, 8);
  put_u64(h->bytes + 8, (uint64_t)first);
  tm__random_bytes(h->bytes + 16, SALT);
  tm__file_sum(h->bytes + 32, (const tm_slice[]){bytes_of(h->bytes, 32)}, 1);
  return tm__file_write_all(s->redo[file], bytes_of(h->bytes, sizeof(h->bytes)), 0);
}

tm_status tm__file_redo_free(tm_store *s, int file, tm_error *err) {
  const block none = {{0}};
  struct stat st;
  bool known = fstat(s->redo[file], &st) == 0;
  if (known && st.st_size == 0) return TM_OK; /* never used */
  bool ok = tm__file_write_all(s->redo[file], bytes_of(none.bytes, sizeof(none.bytes)), 0) &&
            fdatasync(s->redo[file]) == 0;
  if (ok && known && st.st_size > 4 * TM_FILE_REDO_BYTES) /* it waited for the other one long */
    ok = ftruncate(s->redo[file], TM_FILE_REDO_BYTES) == 0;
  return ok ? TM_OK : fail(s, file, "free", err);
}

tm_status tm__file_redo_settle(tm_store *s, int file, tm_error *err) {
  return tm__file_write_again(s->redo[file]) ? TM_OK : fail(s, file, "make durable", err);
}

/* ---- the ops of a group ---- */

size_t tm__file_op_begin(tm_buf *group, const tm_file_op *op) {
  unsigned char h[OP_HEAD] = {(unsigned char)op->kind, (unsigned char)op->name.what};
  put_u16(h + 2, op->name.a.len);
  put_u16(h + 4, op->name.b.len);
  put_u64(h + 8, (uint64_t)op->at);
  size_t begun = group->len;
  tm__buf_add(group, h, sizeof(h));
  tm__buf_slice(group, op->name.a);
  tm__buf_slice(group, op->name.b);
  return begun;
}

static size_t names_length(const unsigned char *op) {
  return get_u16(op + 2) + get_u16(op + 4);
}

void tm__file_op_end(tm_buf *group, size_t begun) {
  if (!tm__buf_ok(group)) return;
  unsigned char *op = (unsigned char *)group->ptr + begun;
  put_u64(op + 16, group->len - begun - OP_HEAD - names_length(op));
}

bool tm__file_op_next(tm_slice group, size_t *at, tm_file_op *out) {
  size_t left = group.len - *at;
  const unsigned char *op = (const unsigned char *)group.ptr + *at;
  if (left < OP_HEAD || op[0] < TM_FILE_APPEND || op[0] > TM_FILE_REMOVE || op[1] >= TM_FILE_WHATS)
    return false;
  uint64_t bytes = get_u64(op + 16);
  size_t before = OP_HEAD + names_length(op);
  if (before > left || bytes > left - before) return false;
  const char *p = group.ptr + *at + OP_HEAD;
  size_t a = get_u16(op + 2), b = get_u16(op + 4);
  *out = (tm_file_op){.kind = (tm_file_kind)op[0],
                      .name = {(tm_file_what)op[1], {p, a}, {p + a, b}},
                      .at = (int64_t)get_u64(op + 8),
                      .bytes = {group.ptr + *at + before, (size_t)bytes}};
  *at += before + (size_t)bytes;
  return true;
}

/* ---- groups ---- */

static void sum_group(unsigned char out[TM_FILE_SUM], const block *file, const unsigned char *group,
                      tm_slice ops) {
  tm__file_sum(
      out, (const tm_slice[]){bytes_of(file->bytes + 8, 8 + SALT), bytes_of(group, 32), ops}, 3);
}

bool tm__file_redo_is_full(const tm_file_redo *redo) {
  return redo->file >= 0 && redo->end > TM_FILE_REDO_BYTES;
}

/* The file for the next group: the one that is written, or the other when that is full and this is
 * free. */
static tm_status choose(tm_store *s, tm_file_redo *redo, block *file, tm_error *err) {
  bool io = false, fresh = redo->file < 0;
  for (int i = 0; i < 2 && redo->file < 0 && !io; i++)
    if (tm__file_redo_first(s, i, &io) == 0 && !io) redo->file = i;
  if (redo->file < 0 && !io) return tm__file_damaged(err, s, "both redo logs are in use");
  if (!fresh && tm__file_redo_is_full(redo)) {
    int other = 1 - redo->file;
    if (tm__file_redo_first(s, other, &io) == 0 && !io) {
      redo->file = other;
      fresh = true;
    }
  }
  if (io) return fail(s, redo->file < 0 ? 0 : redo->file, "read", err);
  if (!fresh) {
    if (read_head(s, redo->file, file, &io) && (int64_t)get_u64(file->bytes + 8) == redo->first)
      return TM_OK;
    return io ? fail(s, redo->file, "read", err) : tm__file_damaged(err, s, "its redo log");
  }
  redo->first = redo->seq + 1;
  redo->end = TM_FILE_REDO_BEGIN;
  return write_head(s, redo->file, redo->first, file) ? TM_OK : fail(s, redo->file, "write", err);
}

tm_status tm__file_redo_append(tm_store *s, tm_file_redo *redo, tm_buf *group, size_t ops,
                               tm_error *err) {
  block file;
  tm_file_redo before = *redo;
  unsigned char *h = (unsigned char *)group->ptr;
  tm_status status = choose(s, redo, &file, err);
  if (status == TM_OK) {
    tm_slice content = {group->ptr + TM_FILE_GROUP_HEAD, group->len - TM_FILE_GROUP_HEAD};
    memset(h, 0, TM_FILE_GROUP_HEAD);
    memcpy(h, MAGIC, 8);
    put_u64(h + 8, (uint64_t)redo->seq + 1);
    put_u64(h + 16, ops);
    put_u64(h + 24, content.len);
    sum_group(h + 32, &file, h, content);
    if (!tm__file_write_all(s->redo[redo->file], tm__buf_view(group), redo->end) ||
        fdatasync(s->redo[redo->file]) != 0)
      status = fail(s, redo->file, "write", err);
  }
  redo->end += (int64_t)group->len;
  redo->seq++;
  if (status == TM_OK) return TM_OK;
  tm__file_redo_cancel(s, &before, redo);
  *redo = before;
  return status;
}

/* It may still come back when not even this can be written; then it comes back whole. */
void tm__file_redo_cancel(tm_store *s, const tm_file_redo *before, const tm_file_redo *after) {
  const block none = {{0}};
  if (after->file < 0) return;
  bool fresh = after->file != before->file || after->first != before->first;
  int64_t at = fresh ? 0 : before->end;
  if (tm__file_write_all(s->redo[after->file], bytes_of(none.bytes, sizeof(none.bytes)), at))
    (void)fdatasync(s->redo[after->file]);
}

/* ---- reading ---- */

static tm_status read_ops(tm_store *s, int file, const block *f, int64_t at, tm_buf *group,
                          bool *there, tm_error *err) {
  unsigned char sum[TM_FILE_SUM];
  unsigned char h[TM_FILE_GROUP_HEAD];
  struct stat st;
  memcpy(h, group->ptr, sizeof(h));
  uint64_t size = get_u64(h + 24);
  if (fstat(s->redo[file], &st) != 0) return fail(s, file, "look at", err);
  if (size > (uint64_t)st.st_size) return TM_OK;
  char *room = tm__buf_room(group, (size_t)size + 1);
  if (room == NULL) return tm__fail_memory(err, "a group of commits");
  int64_t n = tm__file_read_all(s->redo[file], room, (size_t)size, at + TM_FILE_GROUP_HEAD);
  if (n < 0) return fail(s, file, "read", err);
  if ((uint64_t)n < size) return TM_OK;
  group->len += (size_t)size;
  sum_group(sum, f, h, bytes_of(group->ptr + TM_FILE_GROUP_HEAD, (size_t)size));
  *there = memcmp(sum, h + 32, sizeof(sum)) == 0;
  return TM_OK;
}

tm_status tm__file_redo_read(tm_store *s, int file, int64_t first, int64_t seq, int64_t at,
                             bool again, tm_buf *group, bool *there, tm_error *err) {
  block f;
  bool io = false;
  *there = false;
  tm__buf_clear(group);
  char *room = tm__buf_room(group, TM_FILE_GROUP_HEAD);
  if (room == NULL) return tm__fail_memory(err, "a group of commits");
  int64_t n = tm__file_read_all(s->redo[file], room, TM_FILE_GROUP_HEAD, at);
  if (n < 0) return fail(s, file, "read", err);
  const unsigned char *h = (const unsigned char *)room;
  if (n < TM_FILE_GROUP_HEAD || memcmp(h, MAGIC, 8) != 0 || (int64_t)get_u64(h + 8) != seq)
    return TM_OK;
  group->len = TM_FILE_GROUP_HEAD;
  bool ours = read_head(s, file, &f, &io) && (int64_t)get_u64(f.bytes + 8) == first;
  if (io) return fail(s, file, "read", err);
  tm_status status = ours ? read_ops(s, file, &f, at, group, there, err) : TM_OK;
  if (status != TM_OK || !*there || !again) return status;
  /* As in tm__file_write_again. */
  bool ok = tm__file_write_all(s->redo[file], bytes_of(f.bytes, sizeof(f.bytes)), 0) &&
            tm__file_write_all(s->redo[file], tm__buf_view(group), at);
  if (!ok && (errno == ENOSPC || errno == EDQUOT)) ok = true; /* a sync must do */
  return ok && fdatasync(s->redo[file]) == 0 ? TM_OK : fail(s, file, "make durable", err);
}
