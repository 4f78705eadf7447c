/* store_file_error.c - what went wrong with the logs and the index. */
#include <limits.h>
#include <stdio.h>

#include "persistence/store_file.h"

static const tm_fault stale = {TM_EUNAVAILABLE, "store.io",
                               "the index is damaged; restart the host, which makes it anew from "
                               "the logs, and try again"};

tm_status tm__file_damaged(tm_error *err, const tm_store *s, const char *what) {
  return tm__fail(err, TM_ECORRUPT, "store.damaged",
                  "store %s is damaged: %s; it was left as it is: restore a backup, or name "
                  "another folder",
                  s->root, what);
}

tm_status tm__file_small_damaged(tm_error *err, const tm_store *s, tm_slice name, tm_slice what) {
  return tm__fail(err, TM_ECORRUPT, "store.damaged",
                  "%s/%.*s is damaged: %.*s; it was left as it is, and what it was is in no list: "
                  "put it back from a backup and remove index.db while no host runs",
                  s->root, (int)name.len, name.ptr, (int)what.len, what.ptr);
}

tm_status tm__file_log_damaged(tm_error *err, const tm_store *s, tm_slice id, int64_t at,
                               const char *what) {
  tm_buf path = {0};
  tm__file_path(&path, s, &(tm_file_name){TM_FILE_CONVERSATION, id, {0}});
  int length = (int)(id.len < TM_ID_SIZE ? id.len : TM_ID_SIZE);
  tm_status status =
      tm__fail(err, TM_ECORRUPT, "journal.damaged",
               "the log of conversation %.*s, %s, is damaged at byte %lld: %s; restore it from a "
               "backup",
               length, id.ptr, tm__buf_ok(&path) ? path.ptr : "", (long long)at, what);
  if (err != NULL) (void)tm__copy(err->conversation_id, sizeof(err->conversation_id), id);
  tm__buf_free(&path);
  return status;
}

tm_status tm__file_log_missing(tm_error *err, const tm_store *s, tm_slice id) {
  tm_status status = tm__file_in_place(s, err);
  return status == TM_OK ? tm__file_log_damaged(err, s, id, 0, "the file is missing") : status;
}

tm_status tm__file_not_found(tm_error *err, const char *what) {
  return tm__fail(err, TM_ENOTFOUND, "store.not_found", "the store has no such %s", what);
}

tm_status tm__file_sql_fail(tm_error *err, const tm_store *s, sqlite3 *db, int rc,
                            const char *doing) {
  char path[PATH_MAX];
  (void)snprintf(path, sizeof(path), "%s/index.db", s->root); /* fits: tm__file_place */
  return tm__disk_sql_fail(err, path, db, rc, doing, &stale);
}
