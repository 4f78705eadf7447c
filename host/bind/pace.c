/* pace.c - rest after work: as long as the work took, at most a second. */
#include "bind/pace.h"

#include "core/clock.h"

#define LONGEST_REST_US INT64_C(1000000)

size_t tm__pace_slot(const char *conversation_id) {
  uint32_t hash = 2166136261u; /* FNV-1a */
  for (const char *p = conversation_id; *p != '\0'; p++)
    hash = (hash ^ (uint8_t)*p) * 16777619u;
  return (hash ^ hash >> 16) % TM_PACE_SLOTS;
}

static void free_at(tm_pace *p, size_t slot, int64_t now, int64_t at) {
  p->free_at_us[slot] = at < now + LONGEST_REST_US ? at : now + LONGEST_REST_US;
}

void tm__pace_charge(tm_pace *p, size_t slot, int64_t used_us) {
  if (used_us <= 0) return;
  int64_t now = tm__clock_monotonic_us(), began = now - used_us;
  int64_t from = p->free_at_us[slot] > began ? p->free_at_us[slot] : began;
  free_at(p, slot, now, from + 2 * used_us);
}

void tm__pace_punish(tm_pace *p, size_t slot, int64_t slice_ms) {
  int64_t now = tm__clock_monotonic_us(), at = now + slice_ms * 1000;
  if (p->free_at_us[slot] < at) free_at(p, slot, now, at);
}

/* Half a slice may be used before a rest: short entries never wait. */
uint64_t tm__pace_wait_ms(const tm_pace *p, size_t slot, int64_t slice_ms) {
  int64_t ahead = p->free_at_us[slot] - tm__clock_monotonic_us();
  if (slice_ms <= 0 || ahead <= slice_ms * 500) return 0;
  return (uint64_t)(ahead + 999) / 1000;
}
