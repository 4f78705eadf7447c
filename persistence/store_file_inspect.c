/* store_file_inspect.c - what is wrong or unsafe with the folder, for people: who else may read it,
 * where it lies, how full its disk is, what was found when it was opened; on demand every frame of
 * every log. */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "persistence/store_file.h"

#define FREE_LITTLE (UINT64_C(256) << 20)

typedef struct findings {
  tm_store_conn *c;
  tm_finding_fn fn;
  void *ud;
  bool failed; /* out of memory */
  int64_t logs, frames;
  tm_buf names, bytes;
} findings;

static void found(findings *f, tm_finding level, tm_buf *text) {
  if (tm__buf_ok(text))
    f->fn(f->ud, level, text->ptr);
  else
    f->failed = true;
  tm__buf_free(text);
}

/* ---- the place ---- */

static void look_at_mode(findings *f) {
  struct stat st;
  const char *root = f->c->store->root;
  tm_buf text = {0};
  if (stat(root, &st) != 0 || (st.st_mode & 077) == 0) return;
  tm__buf_printf(&text,
                 "%s: other users of this machine may open it (mode %03o), and it holds what "
                 "people said: chmod 700",
                 root, (unsigned)(st.st_mode & 0777));
  found(f, TM_FINDING_WARNING, &text);
}

static void look_at_disk(findings *f) {
  struct statvfs disk;
  const char *root = f->c->store->root;
  tm_buf text = {0};
  if (statvfs(root, &disk) != 0) return;
  uint64_t rest = (uint64_t)disk.f_bavail * disk.f_frsize;
  if (rest < FREE_LITTLE) {
    tm__buf_printf(&text,
                   "%s: its disk has %llu MiB left; when it is full, no turn is answered: make "
                   "room",
                   root, (unsigned long long)(rest >> 20));
    found(f, TM_FINDING_WARNING, &text);
  }
  if (disk.f_files == 0 || disk.f_favail * 20 > disk.f_files) return;
  tm__buf_printf(&text,
                 "%s: its disk has room for %llu more files only, and each conversation is one: "
                 "purge what has ended, or use another backend",
                 root, (unsigned long long)disk.f_favail);
  found(f, TM_FINDING_WARNING, &text);
}

/* Locks and shared memory do not reach over a network. */
static void look_at_network(findings *f) {
  static const uint32_t network[] = {0x6969 /* NFS */, 0xff534d42 /* CIFS */, 0xfe534d42 /* SMB2 */,
                                     0x517b /* SMB */};
  struct statfs fs;
  tm_buf text = {0};
  if (statfs(f->c->store->root, &fs) != 0) return;
  for (size_t i = 0; i < sizeof(network) / sizeof(network[0]); i++) {
    if ((uint32_t)fs.f_type != network[i]) continue;
    tm__buf_printf(&text,
                   "%s lies on a network file system, where two hosts can damage it: use a local "
                   "disk, or the backend postgres",
                   f->c->store->root);
    found(f, TM_FINDING_ERROR, &text);
  }
}

static void tell_opening(findings *f) {
  const tm_store *s = f->c->store;
  tm_buf text = {0};
  if (!s->rebuilt) return;
  tm__buf_printf(&text,
                 "%s: the index was missing, damaged or too old, and was made anew from the "
                 "logs",
                 s->root);
  found(f, TM_FINDING_INFO, &text);
  if (s->cut == 0) return;
  tm__buf_printf(&text,
                 "%s: %lld logs ended in the middle of a commit; that commit was dropped, what was "
                 "before it is whole",
                 s->root, (long long)s->cut);
  found(f, TM_FINDING_WARNING, &text);
}

/* ---- what is damaged ---- */

static tm_status tell_damaged(findings *f, tm_error *err) {
  sqlite3_stmt *st = NULL;
  tm_status status = tm__file_mend(f->c, err);
  if (status != TM_OK) return status;
  int rc = sqlite3_prepare_v2(f->c->index.db, "SELECT id,\"at\",what FROM damaged", -1, &st, NULL);
  while (rc == SQLITE_OK && (rc = sqlite3_step(st)) == SQLITE_ROW) {
    tm_slice id = tm__file_column(st, 0), what = tm__file_column(st, 2);
    tm_buf text = {0};
    tm__buf_printf(&text, "%s: %.*s is damaged at byte %lld: %.*s; restore it from a backup",
                   f->c->store->root, (int)id.len, id.ptr, (long long)sqlite3_column_int64(st, 1),
                   (int)what.len, what.ptr);
    found(f, TM_FINDING_ERROR, &text);
    rc = SQLITE_OK;
  }
  if (rc != SQLITE_DONE) status = tm__file_sql_conn_fail(f->c, rc, "look through it", err);
  sqlite3_finalize(st);
  return status;
}

/* Every frame up to where the index says that the log ends. */
static bool log_is_whole(findings *f, int fd, const tm_file_entry *entry, int64_t *at) {
  tm_slice id = tm__slice(entry->state.head.id);
  tm_file_frame frame = {0};
  bool tip = entry->state.head.tip == 0;
  tm_file_look look = tm__file_log_check(fd, id, at);
  if (look != TM_FILE_GOOD) *at = 0;
  while (look == TM_FILE_GOOD && *at < entry->size) {
    look = tm__file_frame_read(&frame, &f->bytes, fd, id, *at);
    if (look != TM_FILE_GOOD) break;
    tip = tip || *at == entry->state.head.tip;
    *at += frame.size;
    f->frames++;
  }
  return look == TM_FILE_GOOD && *at == entry->size && tip;
}

static tm_status look_at_log(findings *f, tm_slice id, tm_error *err) {
  tm_file_entry entry;
  tm_buf path = {0}, text = {0};
  int64_t at = 0;
  tm_status status = tm__file_entry(f->c, id, &entry, err);
  if (status != TM_OK || !entry.found) return status == TM_ECORRUPT ? TM_OK : status;
  tm__file_path(&path, f->c->store, &(tm_file_name){TM_FILE_CONVERSATION, id, {0}});
  if (!tm__buf_ok(&path)) return tm__fail_memory(err, "the store's path");
  int fd = open(path.ptr, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  bool whole = fd >= 0 && log_is_whole(f, fd, &entry, &at);
  f->logs++;
  if (!whole) { /* purged or rewritten meanwhile? */
    status = tm__file_barrier(f->c, err);
    if (status == TM_OK) status = tm__file_entry(f->c, id, &entry, err);
    if (status == TM_OK && entry.found) whole = fd >= 0 && log_is_whole(f, fd, &entry, &at);
  }
  if (status == TM_OK && entry.found && !whole) {
    tm__buf_printf(&text,
                   "%s, the log of a conversation, is damaged at byte %lld; restore it from "
                   "a backup",
                   path.ptr, (long long)at);
    found(f, TM_FINDING_ERROR, &text);
  }
  if (fd >= 0) (void)close(fd);
  tm__buf_free(&path);
  return status;
}

static tm_status look_at_logs(findings *f, tm_error *err) {
  tm_status status = tm__file_mend(f->c, err);
  char after[TM_ID_SIZE] = "";
  while (status == TM_OK) { /* a page of ids, so that no snapshot is held for long */
    sqlite3_stmt *st = NULL;
    tm_buf ids = {0};
    int rc = sqlite3_prepare_v2(
        f->c->index.db, "SELECT id FROM heads WHERE id>?1 ORDER BY id LIMIT 256", -1, &st, NULL);
    if (rc == SQLITE_OK) rc = sqlite3_bind_text(st, 1, after, -1, SQLITE_STATIC);
    while (rc == SQLITE_OK && (rc = sqlite3_step(st)) == SQLITE_ROW) {
      char id[TM_ID_SIZE] = "";
      (void)tm__copy(id, sizeof(id), tm__file_column(st, 0));
      tm__buf_add(&ids, id, sizeof(id));
      rc = SQLITE_OK;
    }
    if (rc != SQLITE_DONE) status = tm__file_sql_conn_fail(f->c, rc, "look through it", err);
    sqlite3_finalize(st);
    bool over = ids.len == 0;
    for (size_t at = 0; status == TM_OK && at < ids.len; at += TM_ID_SIZE) {
      memcpy(after, ids.ptr + at, sizeof(after));
      status = look_at_log(f, tm__slice(after), err);
    }
    tm__buf_free(&ids);
    if (over) break;
  }
  return status;
}

static tm_status look_at_small(void *ud, tm_file_what what, const char *path, const char *name,
                               tm_error *err) {
  findings *f = ud;
  tm_file_name is;
  tm_slice content;
  tm_buf text = {0};
  (void)name;
  tm__buf_clear(&f->bytes);
  tm_status status = tm__file_small_read(path, &f->bytes, err);
  if (status != TM_OK) return access(path, F_OK) == 0 ? status : TM_OK; /* removed since */
  if (tm__file_small_decode(&is, &content, tm__buf_view(&f->bytes), &f->names) && is.what == what)
    return TM_OK;
  tm__buf_printf(&text, "%s is damaged; restore it from a backup", path);
  found(f, TM_FINDING_ERROR, &text);
  return TM_OK;
}

static tm_status look_deep(findings *f, tm_error *err) {
  tm_buf text = {0};
  tm_status status = look_at_logs(f, err);
  for (int i = TM_FILE_SESSION; status == TM_OK && i < TM_FILE_WHATS; i++)
    status = tm__file_each(f->c->store, (tm_file_what)i, look_at_small, f, err);
  if (status != TM_OK) return status;
  tm__buf_printf(&text, "%s: %lld logs with %lld commits were read", f->c->store->root,
                 (long long)f->logs, (long long)f->frames);
  found(f, TM_FINDING_INFO, &text);
  return TM_OK;
}

tm_status tm__file_inspect(tm_store_conn *c, bool deep, tm_finding_fn fn, void *ud, tm_error *err) {
  findings f = {.c = c, .fn = fn, .ud = ud};
  look_at_mode(&f);
  look_at_disk(&f);
  look_at_network(&f);
  tell_opening(&f);
  tm_status status = tell_damaged(&f, err);
  if (status == TM_OK && deep) status = look_deep(&f, err);
  tm__buf_free(&f.names);
  tm__buf_free(&f.bytes);
  return status == TM_OK && f.failed ? tm__fail_memory(err, "a finding") : status;
}
