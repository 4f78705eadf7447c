/* sign.c - signatures of what is sent to webhooks. Secrets have any length. */
#include "outbox/sign.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>

static void sign(tm_buf *out, const char *secret, const char *seconds, tm_slice body) {
  crypto_auth_hmacsha256_state state;
  unsigned char sum[crypto_auth_hmacsha256_BYTES];
  char hex[2 * sizeof(sum) + 1];
  (void)crypto_auth_hmacsha256_init(&state, (const unsigned char *)secret, strlen(secret));
  (void)crypto_auth_hmacsha256_update(&state, (const unsigned char *)seconds, strlen(seconds));
  if (body.len > 0)
    (void)crypto_auth_hmacsha256_update(&state, (const unsigned char *)body.ptr, body.len);
  (void)crypto_auth_hmacsha256_final(&state, sum);
  sodium_memzero(&state, sizeof(state));
  (void)sodium_bin2hex(hex, sizeof(hex), sum, sizeof(sum));
  tm__buf_printf(out, "v1=%s", hex);
}

void tm__outbox_sign(tm_buf *out, const char *secret, const char *previous, int64_t seconds,
                     tm_slice body) {
  char time[24];
  (void)snprintf(time, sizeof(time), "%lld.", (long long)seconds);
  sign(out, secret, time, body);
  if (previous == NULL || previous[0] == '\0') return;
  tm__buf_byte(out, ',');
  sign(out, previous, time, body);
}
