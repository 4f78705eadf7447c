/* backup_file.h - the files of a backup: made under another name, given their own when complete. */
#ifndef TM_BACKUP_FILE_H
#define TM_BACKUP_FILE_H

#include <stdbool.h>
#include <stddef.h>

#include "core/err.h"

#define TM_DRAFT ".partial" /* after the name of a backup while it is incomplete */

bool tm__file_exists(const char *path);
bool tm__file_is_plain(const char *path); /* no folder or device; a link may lead to nothing */

/* How much of the name of a file that lies beside a store, such as its log, is the store's; 0: it
 * is none. */
size_t tm__file_stem(const char *path);

/* Makes the closed draft of `file`, and those of tenants beside it, durable; gives them their
 * names in place of what was there. TM_EUNAVAILABLE "backup.io". */
tm_status tm__backup_publish(const char *file, tm_error *err);

#endif
