/* compress.h - small JSON texts made smaller: one zstd frame each.
 *
 *   number of the words (1) | zstd frame with its size and a checksum
 *
 * Words are part of the format: the text of compress_words.def under its number, before which the
 * compressed one is thought to stand. A tm_press is what one thread works with at a time.
 */
#ifndef TM_PERSISTENCE_COMPRESS_H
#define TM_PERSISTENCE_COMPRESS_H

#include "core/buf.h"
#include "core/err.h"

typedef struct tm_press tm_press;
tm_press *tm__press_new(void);    /* NULL: out of memory */
void tm__press_free(tm_press *p); /* NULL allowed */

/* Appends the frame if it is smaller than `text`: *smaller says so. TM_ENOMEM. */
tm_status tm__compress(tm_press *p, tm_buf *out, tm_slice text, bool *smaller);

/* Appends the text, of at most `max` bytes, which the frame itself says how many they are.
 * TM_ECORRUPT: no such frame, more than one, damaged, or larger; TM_EUNSUPPORTED: words of a newer
 * program; TM_ENOMEM. */
tm_status tm__decompress(tm_press *p, tm_buf *out, tm_slice frame, size_t max);

#endif
