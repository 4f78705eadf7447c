/* damage.h - which records of the store were found damaged, so that each is named in the log once,
 * however often they are come across.
 */
#ifndef TM_STORAGE_DAMAGE_H
#define TM_STORAGE_DAMAGE_H

#include "core/log.h"

#define TM_DAMAGE_NAMED 64

typedef struct tm_damage { /* zero but for the log */
  const tm_log *log;
  uint64_t named[TM_DAMAGE_NAMED]; /* atomic: digests of what was named; 0: free */
  bool full;                       /* atomic: it was said that there are more */
} tm_damage;

/* `key` and `id` say which it is, as in a log line. Any thread. */
void tm__damage_name(tm_damage *d, const char *what, const char *key, const char *id);

#endif
