/* id.c - UUIDv7 (RFC 9562) and BLAKE2b digests. */
#include "core/id.h"

#include <sodium.h>
#include <string.h>

#define DIGEST_SIZE 32

/* Thread-safe and cheap when repeated. It chooses the fast implementations; on failure the portable
 * ones stay in use, so there is nothing to report. */
static void prepare(void) {
  int failed = sodium_init();
  (void)failed;
}

void tm__random_bytes(void *out, size_t len) {
  prepare();
  randombytes_buf(out, len);
}

void tm__uuid7(char out[TM_ID_SIZE], int64_t now_ms) {
  unsigned char raw[16];
  tm__random_bytes(raw + 6, sizeof(raw) - 6);
  for (int i = 0; i < 6; i++) {
    raw[i] = (unsigned char)((uint64_t)now_ms >> (40 - 8 * i));
  }
  raw[6] = (unsigned char)(0x70 | (raw[6] & 0x0F));
  raw[8] = (unsigned char)(0x80 | (raw[8] & 0x3F));
  char hex[2 * sizeof(raw) + 1];
  sodium_bin2hex(hex, sizeof(hex), raw, sizeof(raw));
  static const unsigned char groups[] = {8, 4, 4, 4, 12};
  size_t from = 0;
  for (size_t g = 0; g < sizeof(groups); g++) {
    if (g > 0) *out++ = '-';
    memcpy(out, hex + from, groups[g]);
    out += groups[g];
    from += groups[g];
  }
  *out = '\0';
}

bool tm__uuid_valid(tm_slice s) {
  if (s.len != TM_ID_SIZE - 1) return false;
  for (size_t i = 0; i < s.len; i++) {
    char c = s.ptr[i];
    bool dash = i == 8 || i == 13 || i == 18 || i == 23;
    bool hex = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
    if (dash ? c != '-' : !hex) return false;
  }
  return true;
}

_Static_assert(sizeof(crypto_generichash_state) <= sizeof(tm_digest), "its state fits");
_Static_assert(_Alignof(crypto_generichash_state) <= _Alignof(tm_digest), "and is aligned");

void tm__digest_begin(tm_digest *d) {
  prepare();
  (void)crypto_generichash_init((void *)d->state, NULL, 0, DIGEST_SIZE);
}

void tm__digest_part(tm_digest *d, size_t size) {
  unsigned char len[8];
  for (size_t j = 0; j < sizeof(len); j++)
    len[j] = (unsigned char)((uint64_t)size >> (8 * j));
  (void)crypto_generichash_update((void *)d->state, len, sizeof(len));
}

void tm__digest_add(tm_digest *d, tm_slice bytes) {
  if (bytes.len == 0) return;
  (void)crypto_generichash_update((void *)d->state, (const unsigned char *)bytes.ptr, bytes.len);
}

static void end(tm_digest *d, unsigned char out[DIGEST_SIZE]) {
  (void)crypto_generichash_final((void *)d->state, out, DIGEST_SIZE);
}

void tm__digest_end(tm_digest *d, char *out, size_t hex_len) {
  unsigned char raw[DIGEST_SIZE];
  char hex[2 * DIGEST_SIZE + 1];
  end(d, raw);
  sodium_bin2hex(hex, sizeof(hex), raw, sizeof(raw));
  if (hex_len > 2 * DIGEST_SIZE) hex_len = 2 * DIGEST_SIZE;
  memcpy(out, hex, hex_len);
  out[hex_len] = '\0';
}

static void add_parts(tm_digest *d, const tm_slice *parts, size_t count) {
  tm__digest_begin(d);
  for (size_t i = 0; i < count; i++) {
    tm__digest_part(d, parts[i].len);
    tm__digest_add(d, parts[i]);
  }
}

void tm__digest_hex(char *out, size_t hex_len, const tm_slice *parts, size_t count) {
  tm_digest d;
  add_parts(&d, parts, count);
  tm__digest_end(&d, out, hex_len);
}

uint64_t tm__digest_u64(const tm_slice *parts, size_t count) {
  unsigned char raw[DIGEST_SIZE];
  tm_digest d;
  add_parts(&d, parts, count);
  end(&d, raw);
  uint64_t value = 0;
  for (int i = 0; i < 8; i++) {
    value |= (uint64_t)raw[i] << (8 * i);
  }
  return value == 0 ? 1 : value;
}
