/* Any bytes as text: UTF-8 against a plain decoder, numbers with units, ids, and as the
 * value of a configuration key. The first byte chooses the key, the second how it is written. */
#include <ctype.h>
#include <inttypes.h>

#include "bind/text.h"
#include "config/value.h"
#include "core/id.h"
#include "core/utf8.h"
#include "tests/fuzz/must.h"

/* ---- UTF-8, written down once more, by the ranges of the standard ---- */

static size_t plain_step(const uint8_t *s, size_t n) {
  static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
  if (n == 0) return 0;
  size_t len = s[0] < 0x80 ? 1 : s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : s[0] >= 0xc0 ? 2 : 0;
  if (len == 0 || len > n || s[0] > 0xf7) return 0;
  uint32_t c = len == 1 ? s[0] : s[0] & (0xffu >> (len + 1));
  for (size_t i = 1; i < len; i++) {
    if ((s[i] & 0xc0) != 0x80) return 0;
    c = c << 6 | (s[i] & 0x3f);
  }
  return c < least[len] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000) ? 0 : len;
}

static void check_utf8(const uint8_t *s, size_t n) {
  bool valid = true;
  size_t characters = 0;
  for (size_t at = 0; at < n;) {
    size_t len = plain_step(s + at, n - at);
    MUST(tm__utf8_step((tm_slice){(const char *)s + at, n - at}) == len);
    valid = valid && len > 0;
    at += len > 0 ? len : 1;
    characters++;
  }
  tm_slice text = {(const char *)s, n};
  MUST(tm__utf8_valid(text) == valid);
  if (!valid) return;
  MUST(tm__utf8_length(text) == characters);
  for (size_t at = 0; at < n;) {
    char again[4];
    size_t before = at;
    uint32_t c = tm__text_next(text, &at);
    MUST(tm__utf8_encode(again, c) == at - before && memcmp(again, s + before, at - before) == 0);
    (void)tm__text_is_space(c);
    size_t lower = tm__utf8_encode(again, tm__text_lower(c));
    MUST(tm__utf8_valid((tm_slice){again, lower}));
  }
}

/* ---- numbers ---- */

static void check_numbers(tm_slice text) {
  char again[32];
  int64_t n, other;
  double real;
  if (tm__parse_int(&n, text)) {
    int len = snprintf(again, sizeof(again), "%" PRId64, n);
    MUST(tm__slice_eq(text, (tm_slice){again, (size_t)len}));
    MUST(tm__parse_size(&other, text) && other == n);
    if (n < INT64_MAX / 1000) MUST(tm__parse_duration(&other, text) && other == n * 1000);
    MUST(tm__parse_number(&real, text) && real >= 0);
  }
  if (tm__parse_size(&n, text)) MUST(n >= 0);
  if (tm__parse_duration(&n, text)) MUST(n >= 0);
}

static void check_id(tm_slice text) {
  if (!tm__uuid_valid(text)) return;
  MUST(text.len == 36);
  for (size_t i = 0; i < text.len; i++)
    MUST(text.ptr[i] == '-' || isdigit(text.ptr[i]) || (text.ptr[i] >= 'a' && text.ptr[i] <= 'f'));
}

/* ---- values of keys ---- */

static void check_value(const tm_key *key, tm_slice text, tm_style style) {
  tm_value v = {0};
  tm_buf why = {0};
  tm_status s = tm__value_scalar(&v, key, text, style, &why);
  MUST(s == TM_OK || (s == TM_EINVAL && why.len > 0));
  MUST(s == TM_OK || (!v.present && v.text == NULL && v.items == NULL));
  MUST(tm__utf8_valid(tm__buf_view(&why)));
  if (s == TM_OK && v.present) MUST(tm__value_equal(&v, &v, key));
  tm__value_free(&v);
  tm__buf_free(&why);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 2 || size > 5000) return 0;
  tm_slice text = {(const char *)data + 2, size - 2};
  check_utf8(data + 2, size - 2);
  check_numbers(text);
  check_id(text);
  (void)tm__plain_kind(text);
  check_value(tm__key_at(data[0] % tm__key_count()), text, (tm_style)(data[1] % 3));
  return 0;
}
