/* recent.c - three numbers for each key. */
#include "persistence/recent.h"

#define KEY_BYTES (3 * sizeof(uint64_t))

static void put_u64(char *p, uint64_t v) {
  for (int i = 0; i < 8; i++)
    p[i] = (char)(v >> (8 * i) & 0xff);
}

static uint64_t get_u64(const char *p) {
  uint64_t v = 0;
  for (int i = 7; i >= 0; i--)
    v = v << 8 | (unsigned char)p[i];
  return v;
}

tm_slice tm__recent_encode(char out[TM_RECENT_BYTES], const tm_head *h, int64_t row_id) {
  size_t count = TM_RECENT_KEYS;
  while (count > 0 && h->recent[count - 1].key == 0)
    count--;
  for (size_t i = 0; i < count; i++) {
    const tm_recent_key *k = &h->recent[i];
    put_u64(out + i * KEY_BYTES, k->key);
    put_u64(out + i * KEY_BYTES + 8, k->body);
    put_u64(out + i * KEY_BYTES + 16, (uint64_t)(k->row == TM_THIS_ROW ? row_id : k->row));
  }
  return (tm_slice){out, count * KEY_BYTES};
}

bool tm__recent_decode(tm_head *h, tm_slice bytes) {
  if (bytes.len % KEY_BYTES != 0 || bytes.len > TM_RECENT_BYTES) return false;
  for (size_t i = 0; i < bytes.len / KEY_BYTES; i++) {
    const char *p = bytes.ptr + i * KEY_BYTES;
    h->recent[i] = (tm_recent_key){get_u64(p), get_u64(p + 8), (int64_t)get_u64(p + 16)};
  }
  return true;
}
