/* utf8.c - checks by hand-written ranges; runs of ASCII go eight bytes at a time. */
#include "core/utf8.h"

#include <string.h>

#define HIGH_BITS UINT64_C(0x8080808080808080)

static bool in(unsigned char c, unsigned char low, unsigned char high) {
  return c >= low && c <= high;
}

static bool is_tail(const unsigned char *p, size_t count) {
  for (size_t i = 0; i < count; i++) {
    if (!in(p[i], 0x80, 0xBF)) return false;
  }
  return true;
}

/* The second byte's range rules out overlong forms, surrogates and what is over U+10FFFF. */
static size_t step_long(const unsigned char *p, size_t len) {
  if (in(p[0], 0xC2, 0xDF)) return len >= 2 && is_tail(p + 1, 1) ? 2 : 0;
  if (in(p[0], 0xE0, 0xEF)) {
    if (len < 3 || !is_tail(p + 1, 2)) return 0;
    if ((p[0] == 0xE0 && p[1] < 0xA0) || (p[0] == 0xED && p[1] > 0x9F)) return 0;
    return 3;
  }
  if (in(p[0], 0xF0, 0xF4)) {
    if (len < 4 || !is_tail(p + 1, 3)) return 0;
    if ((p[0] == 0xF0 && p[1] < 0x90) || (p[0] == 0xF4 && p[1] > 0x8F)) return 0;
    return 4;
  }
  return 0;
}

size_t tm__utf8_step(tm_slice s) {
  if (s.len == 0) return 0;
  const unsigned char *p = (const unsigned char *)s.ptr;
  return p[0] < 0x80 ? 1 : step_long(p, s.len);
}

static size_t ascii_run(const char *p, size_t len) {
  size_t n = 0;
  for (uint64_t word; n + sizeof(word) <= len; n += sizeof(word)) {
    memcpy(&word, p + n, sizeof(word));
    if ((word & HIGH_BITS) != 0) break;
  }
  while (n < len && (unsigned char)p[n] < 0x80) {
    n++;
  }
  return n;
}

bool tm__utf8_valid(tm_slice s) {
  size_t at = 0;
  while (at < s.len) {
    at += ascii_run(s.ptr + at, s.len - at);
    if (at == s.len) break;
    size_t n = tm__utf8_step((tm_slice){s.ptr + at, s.len - at});
    if (n == 0) return false;
    at += n;
  }
  return true;
}

size_t tm__utf8_length(tm_slice s) {
  size_t n = 0;
  for (size_t i = 0; i < s.len; i++) {
    n += ((unsigned char)s.ptr[i] & 0xC0) != 0x80;
  }
  return n;
}

size_t tm__utf8_encode(char out[4], uint32_t c) {
  size_t tails = c < 0x80 ? 0 : c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
  static const unsigned char first[] = {0x00, 0xC0, 0xE0, 0xF0};
  for (size_t i = tails; i > 0; i--) {
    out[i] = (char)(0x80 | (c & 0x3F));
    c >>= 6;
  }
  out[0] = (char)(first[tails] | c);
  return tails + 1;
}
