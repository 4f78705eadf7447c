/* retry.c - a pause that doubles. */
#include "outbox/retry.h"

#include "core/id.h"

#define FIRST_MS   INT64_C(5000)
#define LONGEST_MS INT64_C(3600000)

static int64_t pause_ms(int attempt) {
  int64_t ms = FIRST_MS;
  for (int i = 1; i < attempt && ms < LONGEST_MS; i++)
    ms *= 2;
  return ms < LONGEST_MS ? ms : LONGEST_MS;
}

int64_t tm__outbox_retry_ms(int attempts, int64_t age_ms, int64_t give_up_ms, tm_slice id) {
  int64_t spent = 0;
  char digit = (char)attempts;
  for (int i = 1; i < attempts && spent < give_up_ms; i++)
    spent += pause_ms(i);
  if (spent >= give_up_ms && age_ms >= give_up_ms) return 0;
  const tm_slice seed[] = {id, {&digit, 1}};
  int64_t ms = pause_ms(attempts);
  return ms + (int64_t)(tm__digest_u64(seed, 2) % (uint64_t)(ms / 4));
}
