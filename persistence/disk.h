/* disk.h - what the stores on a disk have in common: folders, the lock that says who is alive, and
 * what went wrong in the words of the system; private to persistence/.
 */
#ifndef TM_PERSISTENCE_DISK_H
#define TM_PERSISTENCE_DISK_H

#include <sqlite3.h>

#include "core/buf.h"
#include "core/err.h"

/* ---- disk_error.c ---- */
tm_status tm__disk_fail(tm_error *err, const char *doing, const char *path); /* from errno */

typedef struct tm_fault {
  tm_status status;
  const char *code, *advice;
} tm_fault;
/* For SQLite's `rc`, with errno of the call that made it give up (before it was 0); `unusable`: the
 * file is not what it should be. The message has the path, what was being done, SQLite's words.
 * `db` may be NULL. */
tm_status tm__disk_sql_fail(tm_error *err, const char *path, sqlite3 *db, int rc, const char *doing,
                            const tm_fault *unusable);
/* SQLite takes a read that the disk refused for damage; what it was, while errno still says so. */
int tm__disk_sql_cause(int rc);

/* ---- disk.c: folders ---- */
/* Makes every folder of `path` that is missing; `path` is changed and restored meanwhile. */
tm_status tm__disk_make_folders(char *path, tm_error *err);
/* False and errno; a file system without such syncs is fine. */
bool tm__disk_sync_folder(const char *path);
/* The folders of `path` and all above: then its name is durable. One that may not be opened was not
 * ours to make names in. */
tm_status tm__disk_sync_upwards(const char *path, tm_error *err);

/* Removes what is in the folder, deeply, but for a file `kept` (NULL: none) in itself; one that is
 * not there is fine. */
tm_status tm__disk_empty_folder(const char *path, const char *kept, tm_error *err);

/* ---- disk.c: the lock ---- */
/* Opens the file `name` and locks it for as long as *fd is open: alone when nobody else has, else
 * with the others. Waits while another process is busy opening the store, `what` in messages. *fd
 * is to be closed also after a failure, unless it is -1. */
tm_status tm__disk_lock(int *fd, bool *alone, const char *name, const char *what, int timeout_ms,
                        tm_error *err);
tm_status tm__disk_in_use(const char *what, tm_error *err);             /* fails: "store.in_use" */
tm_status tm__disk_lock_share(int fd, const char *what, tm_error *err); /* lets others in */

#endif
