/* idmap.c - open addressing with linear probing; removal closes the gap, so there are no
 * tombstones. */
#include "bind/idmap.h"

#include <string.h>

static size_t home(const tm_idmap *m, uint64_t id) {
  return (size_t)((id * UINT64_C(0x9E3779B97F4A7C15)) >> 20) & (m->cap - 1);
}

static size_t find(const tm_idmap *m, uint64_t id) {
  size_t i = home(m, id);
  while (m->slots[i].id != 0 && m->slots[i].id != id)
    i = (i + 1) & (m->cap - 1);
  return i;
}

void *tm__idmap_get(const tm_idmap *m, uint64_t id) {
  return m->cap != 0 && id != 0 ? m->slots[find(m, id)].value : NULL;
}

bool tm__idmap_reserve(tm_idmap *m) {
  if ((m->count + 1) * 4 <= m->cap * 3) return true;
  tm_idmap grown = *m;
  grown.cap = m->cap != 0 ? m->cap * 2 : 16;
  grown.slots = m->alloc(m->alloc_ud, NULL, 0, grown.cap * sizeof(*grown.slots));
  if (grown.slots == NULL) return false;
  memset(grown.slots, 0, grown.cap * sizeof(*grown.slots));
  for (size_t i = 0; i < m->cap; i++)
    if (m->slots[i].id != 0) grown.slots[find(&grown, m->slots[i].id)] = m->slots[i];
  tm__idmap_free(m);
  *m = grown;
  return true;
}

bool tm__idmap_add(tm_idmap *m, uint64_t id, void *value) {
  if (!tm__idmap_reserve(m)) return false;
  m->slots[find(m, id)] = (tm_idslot){id, value};
  m->count++;
  return true;
}

void *tm__idmap_remove(tm_idmap *m, uint64_t id) {
  if (m->cap == 0 || id == 0) return NULL;
  size_t gap = find(m, id), mask = m->cap - 1;
  void *value = m->slots[gap].value;
  if (m->slots[gap].id == 0) return NULL;
  for (size_t i = (gap + 1) & mask; m->slots[i].id != 0; i = (i + 1) & mask) {
    size_t from = home(m, m->slots[i].id);
    if (((i - from) & mask) < ((i - gap) & mask)) continue; /* its home lies behind the gap */
    m->slots[gap] = m->slots[i];
    gap = i;
  }
  m->slots[gap] = (tm_idslot){0, NULL};
  m->count--;
  return value;
}

void *tm__idmap_any(const tm_idmap *m) {
  for (size_t i = 0; m->count != 0 && i < m->cap; i++)
    if (m->slots[i].id != 0) return m->slots[i].value;
  return NULL;
}

void tm__idmap_free(tm_idmap *m) {
  if (m->slots != NULL) (void)m->alloc(m->alloc_ud, m->slots, m->cap * sizeof(*m->slots), 0);
  m->slots = NULL;
  m->count = m->cap = 0;
}
