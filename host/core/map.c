/* map.c - open addressing with linear probing; keys are hashed with a secret seed (SipHash). */
#include "core/map.h"

#include <sodium.h>
#include <stdlib.h>

#include "core/id.h"

#define MIN_CAP 16

_Static_assert(sizeof(((tm_map *)0)->seed) == crypto_shorthash_KEYBYTES, "seed is a SipHash key");

/* key NULL: free; then `removed` tells a tombstone, which a search walks over. */
struct tm_map_slot {
  char *key;
  size_t len;
  uint64_t hash;
  void *value;
  bool removed;
};

static uint64_t hash_of(const tm_map *m, tm_slice key) {
  uint64_t hash;
  (void)crypto_shorthash((unsigned char *)&hash, (const unsigned char *)key.ptr, key.len,
                         (const unsigned char *)m->seed);
  return hash;
}

/* The slot of `key`, or NULL; the table is never full, so the search ends. */
static struct tm_map_slot *find(const tm_map *m, tm_slice key, uint64_t hash) {
  for (size_t i = hash & (m->cap - 1);; i = (i + 1) & (m->cap - 1)) {
    struct tm_map_slot *s = &m->slots[i];
    if (s->key == NULL && !s->removed) return NULL;
    if (s->key != NULL && s->hash == hash && tm__slice_eq((tm_slice){s->key, s->len}, key)) {
      return s;
    }
  }
}

static struct tm_map_slot *find_free(const tm_map *m, uint64_t hash) {
  size_t i = hash & (m->cap - 1);
  while (m->slots[i].key != NULL) {
    i = (i + 1) & (m->cap - 1);
  }
  return &m->slots[i];
}

/* Makes room for one more; drops tombstones; shrinks a table that has become too large. */
static bool rehash(tm_map *m) {
  size_t cap = MIN_CAP;
  while (cap < 2 * (m->count + 1)) {
    cap *= 2;
  }
  struct tm_map_slot *slots = calloc(cap, sizeof(*slots));
  if (slots == NULL) return false;
  tm_map old = *m;
  m->slots = slots;
  m->cap = cap;
  m->used = m->count;
  for (size_t i = 0; i < old.cap; i++) {
    if (old.slots[i].key != NULL) *find_free(m, old.slots[i].hash) = old.slots[i];
  }
  free(old.slots);
  return true;
}

void *tm__map_get(const tm_map *m, tm_slice key) {
  if (m->count == 0) return NULL;
  const struct tm_map_slot *s = find(m, key, hash_of(m, key));
  return s == NULL ? NULL : s->value;
}

bool tm__map_set(tm_map *m, tm_slice key, void *value) {
  if (m->cap == 0) tm__random_bytes(m->seed, sizeof(m->seed));
  uint64_t hash = hash_of(m, key);
  struct tm_map_slot *s = m->count == 0 ? NULL : find(m, key, hash);
  if (s != NULL) {
    s->value = value;
    return true;
  }
  if ((m->used + 1) * 4 > m->cap * 3 && !rehash(m)) return false;
  char *copy = tm__slice_dup(key);
  if (copy == NULL) return false;
  s = find_free(m, hash);
  if (!s->removed) m->used++;
  *s = (struct tm_map_slot){.key = copy, .len = key.len, .hash = hash, .value = value};
  m->count++;
  return true;
}

/* Tombstones before an empty slot serve no search. */
static void sweep_back(tm_map *m, size_t i) {
  if (m->slots[(i + 1) & (m->cap - 1)].key != NULL) return;
  if (m->slots[(i + 1) & (m->cap - 1)].removed) return;
  for (; m->slots[i].removed; i = (i - 1) & (m->cap - 1)) {
    m->slots[i].removed = false;
    m->used--;
  }
}

void *tm__map_remove(tm_map *m, tm_slice key) {
  struct tm_map_slot *s = m->count == 0 ? NULL : find(m, key, hash_of(m, key));
  if (s == NULL) return NULL;
  void *value = s->value;
  free(s->key);
  *s = (struct tm_map_slot){.removed = true};
  m->count--;
  sweep_back(m, (size_t)(s - m->slots));
  return value;
}

bool tm__map_next(const tm_map *m, size_t *at, tm_slice *key, void **value) {
  while (*at < m->cap) {
    const struct tm_map_slot *s = &m->slots[(*at)++];
    if (s->key == NULL) continue;
    *key = (tm_slice){s->key, s->len};
    *value = s->value;
    return true;
  }
  return false;
}

void tm__map_free(tm_map *m) {
  for (size_t i = 0; i < m->cap; i++) {
    free(m->slots[i].key);
  }
  free(m->slots);
  *m = (tm_map){0};
}
