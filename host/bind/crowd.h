/* crowd.h - how evenly a state's short texts lie in Lua's table of them.
 *
 * Lua keeps each short text once, in a table by a digest of its bytes, and looks for it among those
 * of the same place: also to release it, and no hook runs then. A script can find out how the
 * digest was begun (`next` goes by it) and choose texts that all meet in one place; releasing n of
 * them takes time by n squared. So the squares of how many lie together are summed up, and bounded.
 *
 * The digest lies in Lua's TString, which no header of Lua's shows; it is the same in all of 5.4.
 */
#ifndef TM_BIND_CROWD_H
#define TM_BIND_CROWD_H

#include <lua.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

_Static_assert(LUA_VERSION_NUM == 504, "where do short texts keep their digest?");

enum {
  TM_CROWD_PLACES = 8192,
  TM_CROWD_KIND_AT = 8, /* in a TString: its type, its length, its digest, its bytes and a NUL */
  TM_CROWD_LENGTH_AT = 11,
  TM_CROWD_DIGEST_AT = 12,
  TM_CROWD_TEXT_AT = 24,
  TM_CROWD_LENGTH_MOST = 40,
};
#define TM_CROWD_MOST (UINT64_C(8) << 20) /* of the squares, beside what even texts come to */

typedef struct tm_crowd {
  uint32_t seed;      /* of the digests */
  const void *newest; /* a text that was made just now: its digest is written later; or NULL */
  uint64_t texts, squares;
  uint16_t at[TM_CROWD_PLACES];
} tm_crowd;

static inline bool tm__crowd_is_text(size_t size) {
  return size > TM_CROWD_TEXT_AT && size <= TM_CROWD_TEXT_AT + TM_CROWD_LENGTH_MOST + 1;
}

static inline uint32_t tm__crowd_digest(const void *text) {
  uint32_t digest;
  memcpy(&digest, (const char *)text + TM_CROWD_DIGEST_AT, sizeof(digest));
  return digest;
}

/* `empty` is the text "" of the state: its digest is what all begin with. */
static inline void tm__crowd_begin(tm_crowd *c, const char *empty) {
  c->seed = tm__crowd_digest(empty - TM_CROWD_TEXT_AT);
}

/* As Lua makes it. */
static inline uint32_t tm__crowd_make_digest(uint32_t seed, const unsigned char *bytes, size_t n) {
  uint32_t h = seed ^ (uint32_t)n;
  for (; n > 0; n--)
    h ^= (h << 5) + (h >> 2) + bytes[n - 1];
  return h;
}

/* So much that releasing all would take long? */
static inline bool tm__crowd_is_dense(const tm_crowd *c) {
  return c->squares > TM_CROWD_MOST + 2 * (c->texts * c->texts / TM_CROWD_PLACES);
}

/* Counts the newest text, if it was not counted yet. False: it makes a dense crowd denser. */
static inline bool tm__crowd_count(tm_crowd *c) {
  uint16_t *place = &c->at[tm__crowd_digest(c->newest) % TM_CROWD_PLACES];
  c->newest = NULL;
  if (*place == UINT16_MAX) return false;
  c->squares += 2 * (uint64_t)*place + 1;
  c->texts++;
  (*place)++;
  return *place < 32 + 2 * c->texts / TM_CROWD_PLACES || !tm__crowd_is_dense(c);
}

/* A block goes: is it a short text? Other blocks may look like one, and be made to: all bytes of
 * the lines of a function are its author's. But nobody knows the seed when a file is written. */
static inline void tm__crowd_gone(tm_crowd *c, const void *block, size_t size) {
  const unsigned char *p = block;
  if (!tm__crowd_is_text(size) || p[TM_CROWD_KIND_AT] != LUA_TSTRING) return;
  size_t length = size - TM_CROWD_TEXT_AT - 1;
  if (p[TM_CROWD_LENGTH_AT] != length) return;
  uint32_t digest = tm__crowd_digest(block);
  if (digest != tm__crowd_make_digest(c->seed, p + TM_CROWD_TEXT_AT, length)) return;
  uint16_t *place = &c->at[digest % TM_CROWD_PLACES];
  if (*place == 0 || c->texts == 0) return;
  (*place)--;
  c->texts--;
  c->squares -= 2 * (uint64_t)*place + 1;
}

#endif
