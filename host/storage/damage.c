/* damage.c - a table of digests without a lock: a place is taken once and never given back. */
#include "storage/damage.h"

#include "core/id.h"

/* False: it was there. */
static bool add(tm_damage *d, uint64_t digest, bool *full) {
  for (size_t i = 0; i < TM_DAMAGE_NAMED; i++) {
    uint64_t there = 0;
    if (__atomic_compare_exchange_n(&d->named[i], &there, digest, false, __ATOMIC_RELAXED,
                                    __ATOMIC_RELAXED))
      return true;
    if (there == digest) return false;
  }
  *full = true;
  return false;
}

void tm__damage_name(tm_damage *d, const char *what, const char *key, const char *id) {
  const tm_slice parts[] = {tm__slice(key), tm__slice(id)};
  uint64_t digest = tm__digest_u64(parts, 2);
  bool full = false;
  if (add(d, digest != 0 ? digest : 1, &full)) tm__log(d->log, TM_LOG_ERROR, what, key, id, NULL);
  if (full && !__atomic_exchange_n(&d->full, true, __ATOMIC_RELAXED))
    tm__log(d->log, TM_LOG_ERROR,
            "more records of the store are damaged: tidemill doctor --deep names them", NULL);
}
