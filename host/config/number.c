/* number.c - numbers with units, exactly and independent of the locale. */
#include <string.h>
#include <strings.h>

#include "config/value.h"

typedef struct decimal {
  int64_t whole;
  int64_t part; /* behind the point, in units of 1 / scale */
  int64_t scale;
} decimal;

static bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

static bool add_digit(int64_t *n, char c) {
  return !__builtin_mul_overflow(*n, 10, n) && !__builtin_add_overflow(*n, c - '0', n);
}

/* Reads "12", "12.5" from the front of *text. No sign, no leading zeros, no exponent. */
static bool take_decimal(decimal *d, tm_slice *text) {
  const char *p = text->ptr, *end = p + text->len;
  *d = (decimal){.scale = 1};
  if (p == end || !is_digit(*p)) return false;
  if (*p == '0' && p + 1 < end && is_digit(p[1])) return false;
  for (; p < end && is_digit(*p); p++) {
    if (!add_digit(&d->whole, *p)) return false;
  }
  if (p < end && *p == '.') {
    const char *point = p++;
    for (; p < end && is_digit(*p); p++) {
      if (p - point > 6 || !add_digit(&d->part, *p)) return false;
      d->scale *= 10;
    }
    if (p == point + 1) return false;
  }
  *text = (tm_slice){p, (size_t)(end - p)};
  return true;
}

static bool in_units(int64_t *out, const decimal *d, int64_t unit) {
  int64_t whole, part;
  if (__builtin_mul_overflow(d->whole, unit, &whole)) return false;
  if (__builtin_mul_overflow(d->part, unit, &part) || part % d->scale != 0) return false;
  return !__builtin_add_overflow(whole, part / d->scale, out);
}

bool tm__parse_int(int64_t *out, tm_slice text) {
  decimal d;
  if (!take_decimal(&d, &text) || text.len > 0 || d.scale != 1) return false;
  *out = d.whole;
  return true;
}

bool tm__parse_number(double *out, tm_slice text) {
  decimal d;
  if (!take_decimal(&d, &text) || text.len > 0) return false;
  *out = (double)d.whole + (double)d.part / (double)d.scale;
  return true;
}

typedef struct unit {
  const char *name;
  int64_t size;
} unit;

static bool with_unit(int64_t *out, tm_slice text, const unit *units, size_t count) {
  decimal d;
  if (!take_decimal(&d, &text)) return false;
  while (text.len > 0 && text.ptr[0] == ' ') {
    text = (tm_slice){text.ptr + 1, text.len - 1};
  }
  for (size_t i = 0; i < count; i++) {
    bool same = strlen(units[i].name) == text.len;
    if (same && strncasecmp(units[i].name, text.ptr, text.len) == 0) {
      return in_units(out, &d, units[i].size);
    }
  }
  return false;
}

bool tm__parse_size(int64_t *out, tm_slice text) {
  static const unit units[] = {
      {"", 1},          {"B", 1},        {"k", 1 << 10},   {"kB", 1 << 10},
      {"KiB", 1 << 10}, {"M", 1 << 20},  {"MB", 1 << 20},  {"MiB", 1 << 20},
      {"G", 1 << 30},   {"GB", 1 << 30}, {"GiB", 1 << 30},
  };
  return with_unit(out, text, units, sizeof(units) / sizeof(units[0]));
}

bool tm__parse_duration(int64_t *out, tm_slice text) {
  static const unit units[] = {
      {"", 1000}, {"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000},
  };
  return with_unit(out, text, units, sizeof(units) / sizeof(units[0]));
}
