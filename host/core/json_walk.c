/* json_walk.c - reads canonical JSON text (no blanks, known to be valid) in place. It never reads
 * behind the end, whatever the text is. */
#include "core/json.h"

#include <string.h>

/* `p` is behind the opening quote; the result is behind the closing one, or NULL. */
static const char *skip_string(const char *p, const char *end) {
  while (p < end) {
    const char *quote = memchr(p, '"', (size_t)(end - p));
    if (quote == NULL) return NULL;
    const char *back = quote;
    while (back > p && back[-1] == '\\') {
      back--;
    }
    if ((quote - back) % 2 == 0) return quote + 1;
    p = quote + 1;
  }
  return NULL;
}

/* `p` is behind the opening bracket; the result is behind its closing one, or NULL. */
static const char *skip_nested(const char *p, const char *end) {
  for (size_t depth = 1; p != NULL && p < end;) {
    switch (*p++) {
    case '"': p = skip_string(p, end); break;
    case '{':
    case '[': depth++; break;
    case '}':
    case ']':
      if (--depth == 0) return p;
      break;
    default: break;
    }
  }
  return NULL;
}

static const char *skip_value(const char *p, const char *end) {
  if (p >= end) return NULL;
  if (*p == '"') return skip_string(p + 1, end);
  if (*p == '{' || *p == '[') return skip_nested(p + 1, end);
  while (p < end && *p != ',' && *p != '}' && *p != ']') {
    p++;
  }
  return p;
}

bool tm__json_walk(tm_json_walk *w, tm_slice json) {
  *w = (tm_json_walk){0};
  if (json.len < 2 || (json.ptr[0] != '{' && json.ptr[0] != '[')) return false;
  *w = (tm_json_walk){json.ptr, json.ptr + json.len, json.ptr[0] == '{'};
  return true;
}

bool tm__json_next(tm_json_walk *w, tm_slice *key, tm_slice *value) {
  if (w->end - w->at < 2) return false;
  const char *p = w->at + 1; /* behind '{', '[' or ',' */
  *key = (tm_slice){0};
  if (*w->at == '}' || *w->at == ']' || *p == '}' || *p == ']') return false;
  if (w->object) {
    const char *end = *p == '"' ? skip_string(p + 1, w->end) : NULL;
    if (end == NULL || end == w->end || *end != ':') return false;
    *key = (tm_slice){p + 1, (size_t)(end - p) - 2};
    p = end + 1;
  }
  const char *end = skip_value(p, w->end);
  if (end == NULL || end == p) return false;
  *value = (tm_slice){p, (size_t)(end - p)};
  w->at = end;
  return true;
}

tm_slice tm__json_get(tm_slice json, const char *key) {
  tm_json_walk w;
  tm_slice name;
  tm_slice value;
  tm_slice wanted = tm__slice(key);
  if (json.len == 0 || json.ptr[0] != '{' || !tm__json_walk(&w, json)) return (tm_slice){0};
  while (tm__json_next(&w, &name, &value)) {
    if (tm__slice_eq(name, wanted)) return value;
  }
  return (tm_slice){0};
}

int64_t tm__json_get_int(tm_slice json, const char *key, int64_t fallback) {
  tm_slice v = tm__json_get(json, key);
  bool negative = v.len > 0 && v.ptr[0] == '-';
  uint64_t limit = negative ? (uint64_t)INT64_MAX + 1 : (uint64_t)INT64_MAX;
  uint64_t n = 0;
  size_t at = negative ? 1 : 0;
  if (at == v.len) return fallback;
  for (; at < v.len; at++) {
    if (v.ptr[at] < '0' || v.ptr[at] > '9') return fallback;
    uint64_t digit = (uint64_t)(v.ptr[at] - '0');
    if (n > (limit - digit) / 10) return fallback;
    n = n * 10 + digit;
  }
  return negative ? (int64_t)(0 - n) : (int64_t)n;
}

/* ---- strings ---- */

static bool hex4(tm_slice s, size_t at, uint32_t *out) {
  *out = 0;
  if (s.len - at < 4) return false;
  for (size_t i = at; i < at + 4; i++) {
    char c = s.ptr[i];
    uint32_t digit = 0;
    if (c >= '0' && c <= '9') {
      digit = (uint32_t)(c - '0');
    } else if (c >= 'a' && c <= 'f') {
      digit = (uint32_t)(c - 'a') + 10;
    } else if (c >= 'A' && c <= 'F') {
      digit = (uint32_t)(c - 'A') + 10;
    } else {
      return false;
    }
    *out = *out << 4 | digit;
  }
  return true;
}

/* Adds the character of the \u escape whose digits are at *at, and moves behind it. */
static bool add_unicode(tm_buf *out, tm_slice s, size_t *at) {
  uint32_t c;
  if (!hex4(s, *at, &c)) return false;
  *at += 4;
  if (c >= 0xDC00 && c <= 0xDFFF) return false;
  if (c >= 0xD800 && c <= 0xDBFF) {
    uint32_t low;
    if (s.len - *at < 6 || s.ptr[*at] != '\\' || s.ptr[*at + 1] != 'u') return false;
    if (!hex4(s, *at + 2, &low) || low < 0xDC00 || low > 0xDFFF) return false;
    c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
    *at += 6;
  }
  char bytes[4];
  tm__buf_add(out, bytes, tm__utf8_encode(bytes, c));
  return true;
}

static bool add_unescaped(tm_buf *out, tm_slice s, size_t *at) {
  static const char from[] = "\"\\/bfnrt";
  static const char to[] = "\"\\/\b\f\n\r\t";
  if (*at == s.len) return false;
  char c = s.ptr[(*at)++];
  if (c == 'u') return add_unicode(out, s, at);
  const char *known = c == '\0' ? NULL : strchr(from, c);
  if (known != NULL) tm__buf_byte(out, to[known - from]);
  return known != NULL;
}

bool tm__json_unquote(tm_slice value, tm_buf *out) {
  if (value.len < 2 || value.ptr[0] != '"' || value.ptr[value.len - 1] != '"') return false;
  tm_slice s = {value.ptr + 1, value.len - 2};
  for (size_t at = 0; at < s.len;) {
    const char *slash = memchr(s.ptr + at, '\\', s.len - at);
    size_t stop = slash == NULL ? s.len : (size_t)(slash - s.ptr);
    tm__buf_add(out, s.ptr + at, stop - at);
    at = stop + 1;
    if (slash != NULL && !add_unescaped(out, s, &at)) return false;
  }
  return tm__buf_ok(out);
}

bool tm__json_get_text(tm_slice json, const char *key, tm_buf *out) {
  return tm__json_unquote(tm__json_get(json, key), out);
}
