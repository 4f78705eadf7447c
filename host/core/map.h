/* map.h - a hash table from short byte strings to pointers. Keys are copied, values are not owned.
 */
#ifndef TM_CORE_MAP_H
#define TM_CORE_MAP_H

#include "core/buf.h"

typedef struct tm_map { /* zero-initialise */
  struct tm_map_slot *slots;
  size_t count, used, cap; /* used counts tombstones too */
  uint64_t seed[2];        /* random, so that nobody outside can choose keys that collide */
} tm_map;

void *tm__map_get(const tm_map *m, tm_slice key);       /* NULL when absent */
bool tm__map_set(tm_map *m, tm_slice key, void *value); /* value not NULL; false: out of memory */
void *tm__map_remove(tm_map *m, tm_slice key);          /* the old value or NULL */
/* Any order; *at starts at 0; false at the end. Removing the current key is allowed. */
bool tm__map_next(const tm_map *m, size_t *at, tm_slice *key, void **value);
void tm__map_free(tm_map *m);

#endif
