/* backup_file.h - the files of a backup: made under another name, given their own when complete. */
#ifndef TM_BACKUP_FILE_H
#define TM_BACKUP_FILE_H

#include <stdbool.h>

#include "core/err.h"

#define TM_DRAFT ".partial" /* after the name of a backup while it is incomplete */

bool tm__file_exists(const char *path);

/* Makes the closed draft of `file`, and those of tenants beside it, durable; gives them their
 * names in place of what was there. TM_EUNAVAILABLE "backup.io". */
tm_status tm__backup_publish(const char *file, tm_error *err);

#endif
