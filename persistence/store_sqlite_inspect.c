/* store_sqlite_inspect.c - what is wrong or unsafe with the file, for people: who else may read it,
 * where it lies, how full its disk is; on demand every page and every record. */
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>

#include "persistence/store_sqlite.h"

#define FREE_LITTLE (UINT64_C(256) << 20)

typedef struct findings {
  tm_finding_fn fn;
  void *ud;
  const char *path;
  bool failed; /* out of memory */
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
  tm_buf text = {0};
  if (stat(f->path, &st) != 0 || (st.st_mode & 077) == 0) return;
  tm__buf_printf(
      &text,
      "%s: other users of this machine may open it (mode %03o), and it holds what people "
      "said: chmod 600",
      f->path, (unsigned)(st.st_mode & 0777));
  found(f, TM_FINDING_WARNING, &text);
}

static void look_at_disk(findings *f) {
  struct statvfs disk;
  tm_buf text = {0};
  if (statvfs(f->path, &disk) != 0) return;
  uint64_t rest = (uint64_t)disk.f_bavail * disk.f_frsize;
  if (rest >= FREE_LITTLE) return;
  tm__buf_printf(&text,
                 "%s: its disk has %llu MiB left; when it is full, no turn is answered: make room",
                 f->path, (unsigned long long)(rest >> 20));
  found(f, TM_FINDING_WARNING, &text);
}

/* Locks and shared memory do not reach over a network. */
static void look_at_network(findings *f) {
  static const uint32_t network[] = {0x6969 /* NFS */, 0xff534d42 /* CIFS */, 0xfe534d42 /* SMB2 */,
                                     0x517b /* SMB */};
  struct statfs fs;
  tm_buf text = {0};
  if (statfs(f->path, &fs) != 0) return;
  for (size_t i = 0; i < sizeof(network) / sizeof(network[0]); i++) {
    if ((uint32_t)fs.f_type != network[i]) continue;
    tm__buf_printf(&text,
                   "%s lies on a network file system, where two hosts can damage it: use a local "
                   "disk, or the backend postgres",
                   f->path);
    found(f, TM_FINDING_ERROR, &text);
  }
}

/* ---- the content ---- */

/* Every row that `sql` gives is a text that says what is wrong; `fine` is not told. */
static tm_status look_for(tm_store_conn *c, const char *sql, const char *fine, findings *f,
                          tm_error *err) {
  sqlite3_stmt *st = NULL;
  tm_status status = tm__sqlite_mend(c, err);
  if (status != TM_OK) return status;
  int rc = sqlite3_prepare_v2(c->db, sql, -1, &st, NULL);
  while (rc == SQLITE_OK && (rc = sqlite3_step(st)) == SQLITE_ROW) {
    tm_slice said = tm__sqlite_column(st, 0);
    tm_buf text = {0};
    rc = SQLITE_OK;
    if (tm__slice_is(said, fine)) continue;
    tm__buf_printf(&text, "%s is damaged: %.*s; restore a backup", f->path,
                   (int)(said.len < 400 ? said.len : 400), said.ptr != NULL ? said.ptr : "");
    found(f, TM_FINDING_ERROR, &text);
  }
  if (rc != SQLITE_DONE) {
    status = tm__sqlite_conn_fail(c, rc, "look through it", err);
    if (status == TM_ECORRUPT && err != NULL) f->fn(f->ud, TM_FINDING_ERROR, err->message);
    if (status == TM_ECORRUPT) status = TM_OK;
  }
  sqlite3_finalize(st);
  return status;
}

static tm_status tell_unreadable(void *ud, const tm_error *why) {
  const findings *f = ud;
  f->fn(f->ud, TM_FINDING_ERROR, why->message);
  return TM_OK;
}

static tm_status look_deep(tm_store_conn *c, findings *f, tm_error *err) {
  static const char *const looks[] = {
      "PRAGMA integrity_check(20)",
      "SELECT 'the newest row of conversation '||h.id||' is missing' FROM heads h LEFT JOIN "
      "journal j ON j.id=h.tip WHERE h.tip<>0 AND j.conversation IS NOT h.id LIMIT 20",
      "SELECT 'row '||j.id||' belongs to no conversation' FROM journal j LEFT JOIN heads h ON "
      "h.id=j.conversation WHERE h.id IS NULL AND j.conversation NOT IN "
      "(SELECT conversation FROM purged) LIMIT 20",
      "SELECT 'the mark of a purged conversation, '||tip||', cannot be read, its rows stay' FROM "
      "purged WHERE NOT (tip>0 AND fits(conversation,36)) LIMIT 20",
      "SELECT 'the count of open sessions of tenant '||c.tenant||' is wrong' FROM session_counts c "
      "WHERE c.open<>(SELECT count(*) FROM sessions s WHERE s.ended=0 AND "
      "(c.scope=0 OR s.tenant=c.tenant)) LIMIT 20",
  };
  tm_status status = TM_OK;
  for (size_t i = 0; status == TM_OK && i < sizeof(looks) / sizeof(looks[0]); i++)
    status = look_for(c, looks[i], "ok", f, err);
  return status == TM_OK ? tm__sqlite_unreadable(c, tell_unreadable, f, err) : status;
}

static tm_status tell_size(tm_store_conn *c, findings *f, tm_error *err) {
  int64_t pages = 0, unused = 0, size = 0;
  tm_buf text = {0};
  tm_status status = tm__sqlite_mend(c, err);
  if (status != TM_OK) return status;
  int rc = tm__sqlite_int(c->db, "PRAGMA page_count", &pages);
  if (rc == SQLITE_OK) rc = tm__sqlite_int(c->db, "PRAGMA freelist_count", &unused);
  if (rc == SQLITE_OK) rc = tm__sqlite_int(c->db, "PRAGMA page_size", &size);
  if (rc != SQLITE_OK) return tm__sqlite_conn_fail(c, rc, "read its size", err);
  tm__buf_printf(&text, "%s: %lld KiB, %lld KiB of them unused", f->path,
                 (long long)(pages * size / 1024), (long long)(unused * size / 1024));
  found(f, TM_FINDING_INFO, &text);
  return TM_OK;
}

tm_status tm__sqlite_inspect(tm_store_conn *c, bool deep, tm_finding_fn fn, void *ud,
                             tm_error *err) {
  findings f = {fn, ud, c->store->path, false};
  tm_status status = tell_size(c, &f, err);
  if (status != TM_OK) return status;
  look_at_mode(&f);
  look_at_disk(&f);
  look_at_network(&f);
  if (deep) status = look_deep(c, &f, err);
  return status == TM_OK && f.failed ? tm__fail_memory(err, "a finding") : status;
}
