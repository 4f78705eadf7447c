/* pace.h - how much of a worker one conversation may take in one go.
 *
 * What a conversation has used it leaves to the others for as long, so that a neighbour meets at
 * most one slice of it. Kept by a digest of the conversation's id: it holds across its turns.
 */
#ifndef TM_BIND_PACE_H
#define TM_BIND_PACE_H

#include <stddef.h>
#include <stdint.h>

#define TM_PACE_SLOTS 1024

typedef struct tm_pace {
  int64_t free_at_us[TM_PACE_SLOTS]; /* by the monotonic clock */
} tm_pace;

size_t tm__pace_slot(const char *conversation_id);
/* The conversation has just used so much CPU time. */
void tm__pace_charge(tm_pace *p, size_t slot, int64_t used_us);
/* It went over a limit: whatever it has used, the others come first for `slice_ms`. */
void tm__pace_punish(tm_pace *p, size_t slot, int64_t slice_ms);
/* For how long it has to wait before it may go on; 0: not at all. */
uint64_t tm__pace_wait_ms(const tm_pace *p, size_t slot, int64_t slice_ms);

#endif
