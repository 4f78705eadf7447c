/* idmap.h - a hash table from ids (never 0) to pointers; values are not owned. No Lua. */
#ifndef TM_BIND_IDMAP_H
#define TM_BIND_IDMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* As the allocator of tm_vm_options: frees when new_size is 0. */
typedef void *(*tm_realloc_fn)(void *ud, void *ptr, size_t old_size, size_t new_size);

typedef struct tm_idslot {
  uint64_t id; /* 0: free */
  void *value;
} tm_idslot;

typedef struct tm_idmap { /* zero-initialise, then set the allocator */
  tm_idslot *slots;
  size_t count, cap; /* cap is a power of two, or 0 */
  tm_realloc_fn alloc;
  void *alloc_ud;
} tm_idmap;

void *tm__idmap_get(const tm_idmap *m, uint64_t id); /* NULL when absent */
/* Room for one more, so that the next add cannot fail; false: out of memory. */
bool tm__idmap_reserve(tm_idmap *m);
bool tm__idmap_add(tm_idmap *m, uint64_t id,
                   void *value);                  /* id must be new; false: out of memory */
void *tm__idmap_remove(tm_idmap *m, uint64_t id); /* the value or NULL */
void *tm__idmap_any(const tm_idmap *m);           /* some value, NULL when empty */
void tm__idmap_free(tm_idmap *m);

#endif
