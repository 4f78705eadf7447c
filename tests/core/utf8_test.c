/* UTF-8 against a plain decoder, for every scalar value and every short byte string. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "core/utf8.h"

static void test_every_character(void **state) {
  (void)state;
  for (uint32_t c = 0; c <= 0x10FFFF; c++) {
    if (c >= 0xD800 && c <= 0xDFFF) continue;
    char bytes[4];
    size_t n = tm__utf8_encode(bytes, c);
    size_t expected = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    if (n != expected || tm__utf8_step((tm_slice){bytes, n}) != n) fail_msg("character %x", c);
    if (n > 1 && tm__utf8_step((tm_slice){bytes, n - 1}) != 0) fail_msg("cut character %x", c);
  }
}

/* Decodes without ranges: by the bits, then by what the value should have looked like. */
static size_t plain_step(const unsigned char *p, size_t len) {
  if (len > 0 && p[0] < 0x80) return 1;
  size_t n = len == 0 ? 0 : p[0] >> 5 == 6 ? 2 : p[0] >> 4 == 14 ? 3 : p[0] >> 3 == 30 ? 4 : 0;
  if (n == 0 || n > len) return 0;
  uint32_t c = p[0] & (0x7Fu >> n);
  for (size_t i = 1; i < n; i++) {
    if (p[i] >> 6 != 2) return 0;
    c = c << 6 | (p[i] & 0x3F);
  }
  if (c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF)) return 0;
  char again[4];
  return tm__utf8_encode(again, c) == n ? n : 0;
}

static void test_every_short_string(void **state) {
  (void)state;
  unsigned char p[4] = {0};
  static const unsigned char last[] = {0x00, 0x7F, 0x80, 0xBF, 0xC0, 0xFF};
  for (uint32_t i = 0; i < 0x1000000; i += 1 + (i % 7)) {
    p[0] = (unsigned char)(i >> 16);
    p[1] = (unsigned char)(i >> 8);
    p[2] = (unsigned char)i;
    p[3] = last[i % sizeof(last)];
    size_t got = tm__utf8_step((tm_slice){(const char *)p, 4});
    if (got != plain_step(p, 4)) fail_msg("bytes %06x %02x: %zu", i, p[3], got);
  }
}

static void test_texts(void **state) {
  (void)state;
  assert_true(tm__utf8_valid(tm__slice(NULL)));
  assert_true(tm__utf8_valid(TM_S("plain text that is longer than eight, \xC3\xA4 and \0 too")));
  assert_int_equal(tm__utf8_length(TM_S("a\xC3\xA4\xE2\x82\xAC\xF0\x9F\x98\x80")), 4);
  static const char *const bad[] = {
      "\x80", "\xC0\xAF", "\xE0\x80\xAF", "\xED\xA0\x80", "\xF4\x90\x80\x80", "\xF0\x80\x80\xAF",
      "\xC3", "\xFE"};
  for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
    for (size_t before = 0; before < 18; before++) { /* every place within a word */
      char text[64];
      memset(text, 'a', sizeof(text));
      memcpy(text + before, bad[i], strlen(bad[i]));
      assert_false(tm__utf8_valid((tm_slice){text, 40}));
      assert_false(tm__utf8_valid((tm_slice){text, before + strlen(bad[i])}));
      assert_true(tm__utf8_valid((tm_slice){text, before}));
    }
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_every_character),
      cmocka_unit_test(test_every_short_string),
      cmocka_unit_test(test_texts),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
