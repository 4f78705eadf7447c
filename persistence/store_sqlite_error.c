/* store_sqlite_error.c - what went wrong with SQLite's file. */
#include "persistence/store_sqlite.h"

static const tm_fault damaged = {TM_ECORRUPT, "store.damaged",
                                 "the file is damaged; restore a backup"};

tm_status tm__sqlite_fail(tm_error *err, const char *path, sqlite3 *db, int rc, const char *doing) {
  if ((rc & 0xff) == SQLITE_TOOBIG)
    return tm__fail(err, TM_ETOOLARGE, "store.too_large", "store %s: %s: the record is too large",
                    path, doing);
  return tm__disk_sql_fail(err, path, db, rc, doing, &damaged);
}

tm_status tm__sqlite_damaged(tm_error *err, const char *path, const char *what) {
  return tm__fail(err, TM_ECORRUPT, "store.damaged",
                  "store %s is damaged: %s; it was left as it is: restore a backup, or name "
                  "another file",
                  path, what);
}
