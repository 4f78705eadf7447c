/* file.h - reading a small file whole. */
#ifndef TM_CONFIG_FILE_H
#define TM_CONFIG_FILE_H

#include "core/buf.h"
#include "core/err.h"

/* Appends at most `limit` bytes; a larger file is refused before it is read. Folders, devices and
 * pipes are refused. TM_ENOTFOUND when there is none, TM_EINVAL otherwise, both "config.invalid".
 */
tm_status tm__small_file_read(tm_buf *out, const char *path, size_t limit, tm_error *err);

/* A path for a message: its end when it is long. */
#define TM_NAME_SIZE 128
void tm__file_name(char out[TM_NAME_SIZE], const char *path);

#endif
