/* json.c - strict reading by Jansson, and writing of scalars and Jansson values. */
#include "core/json.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- reading ---- */

typedef struct extent {
  size_t depth, values;
} extent;

/* Counted before a tree is built, so that nesting costs nobody a stack and many values no time.
 * Every comma and every opening bracket stands for a value. */
static extent measure(tm_slice text) {
  extent e = {0};
  size_t depth = 0;
  bool quoted = false;
  for (size_t i = 0; i < text.len; i++) {
    char c = text.ptr[i];
    if (quoted) {
      if (c == '\\') i++;
      quoted = c != '"';
    } else if (c == '"') {
      quoted = true;
    } else if (c == ',') {
      e.values++;
    } else if (c == '[' || c == '{') {
      e.values++;
      if (++depth > e.depth) e.depth = depth;
    } else if ((c == ']' || c == '}') && depth > 0) {
      depth--;
    }
  }
  return e;
}

static tm_status check_extent(tm_slice text, int max_depth, size_t max_values, tm_error *err) {
  extent e = measure(text);
  if (max_depth < 0 || e.depth > (size_t)max_depth)
    return tm__fail(err, TM_EINVAL, "json.depth",
                    "the JSON is nested %zu levels deep; at most %d are allowed", e.depth,
                    max_depth);
  if (e.values > max_values)
    return tm__fail(err, TM_EINVAL, "json.too_many",
                    "the JSON has %zu values; at most %zu are allowed", e.values, max_values);
  return TM_OK;
}

tm_status tm__json_parse(json_t **out, tm_slice text, int max_depth, tm_error *err) {
  return tm__json_parse_bounded(out, text, max_depth, SIZE_MAX, err);
}

tm_status tm__json_parse_bounded(json_t **out, tm_slice text, int max_depth, size_t max_values,
                                 tm_error *err) {
  *out = NULL;
  tm_status st = check_extent(text, max_depth, max_values, err);
  if (st != TM_OK) return st;
  json_error_t e = {0};
  errno = 0;
  *out = json_loadb(text.len == 0 ? "" : text.ptr, text.len,
                    JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, &e);
  if (*out != NULL) return TM_OK;
  if (errno == ENOMEM || e.line < 0) /* Jansson has no word for it, or a wrong one */
    return tm__fail_memory(err, "a JSON value");
  return tm__fail(err, TM_EINVAL, "json.invalid", "not valid JSON: line %d, column %d: %s", e.line,
                  e.column, e.text);
}

/* ---- strings ---- */

#define EVERY(byte) (UINT64_C(0x0101010101010101) * (byte))
#define HAS_ZERO(w) (((w)-EVERY(1)) & ~(w)&EVERY(0x80))

/* Does any of the eight bytes need an escape? (bit tricks: control characters, '"', '\\') */
static inline bool needs_escape8(const char *p) {
  uint64_t w;
  memcpy(&w, p, sizeof(w));
  uint64_t control = (w - EVERY(0x20)) & ~w & EVERY(0x80);
  return (control | HAS_ZERO(w ^ EVERY('"')) | HAS_ZERO(w ^ EVERY('\\'))) != 0;
}

static inline bool needs_escape(char c) {
  return (unsigned char)c < 0x20 || c == '"' || c == '\\';
}

static size_t plain_run(const char *p, size_t len) {
  size_t n = 0;
  while (n + 8 <= len && !needs_escape8(p + n)) {
    n += 8;
  }
  if (n + 8 > len && len >= 8 && !needs_escape8(p + len - 8)) return len;
  while (n < len && !needs_escape(p[n])) {
    n++;
  }
  return n;
}

static void add_escape(tm_buf *b, char c) {
  static const char from[] = "\"\\\b\f\n\r\t";
  static const char to[] = "\"\\bfnrt";
  const char *at = c == '\0' ? NULL : strchr(from, c);
  if (at != NULL) {
    tm__buf_add(b, (char[]){'\\', to[at - from]}, 2);
  } else {
    static const char hex[] = "0123456789abcdef";
    tm__buf_add(b, (char[]){'\\', 'u', '0', '0', hex[(unsigned char)c >> 4], hex[c & 15]}, 6);
  }
}

static void escape_from(tm_buf *b, tm_slice s, size_t at) {
  while (at < s.len) {
    add_escape(b, s.ptr[at++]);
    size_t n = plain_run(s.ptr + at, s.len - at);
    tm__buf_add(b, s.ptr + at, n);
    at += n;
  }
}

void tm__json_escaped(tm_buf *b, tm_slice s) {
  size_t plain = plain_run(s.ptr, s.len);
  tm__buf_add(b, s.ptr, plain);
  escape_from(b, s, plain);
}

void tm__json_string(tm_buf *b, tm_slice s) {
  char *room = tm__buf_room(b, s.len + 2);
  if (room == NULL) return;
  size_t plain = s.len > 0 ? plain_run(s.ptr, s.len) : 0;
  room[0] = '"';
  if (plain > 0) memcpy(room + 1, s.ptr, plain);
  b->len += plain + 1;
  escape_from(b, s, plain);
  tm__buf_byte(b, '"');
}

/* ---- numbers ---- */

void tm__json_int(tm_buf *b, int64_t v) {
  char digits[24];
  size_t at = sizeof(digits);
  uint64_t rest = v < 0 ? -(uint64_t)v : (uint64_t)v;
  do {
    digits[--at] = (char)('0' + rest % 10);
    rest /= 10;
  } while (rest > 0);
  if (v < 0) digits[--at] = '-';
  tm__buf_add(b, digits + at, sizeof(digits) - at);
}

static bool reads_back(const char *text, double v) {
  return strtod(text, NULL) == v; /* the sign of a zero is written by any number of digits */
}

/* A locale may write the decimal point in other bytes: whatever is no number's character is it. */
static bool is_number_char(char c) {
  return (c >= '0' && c <= '9') || c == '-' || c == '+' || c == 'e';
}

void tm__json_double(tm_buf *b, double v) {
  char text[40];
  if (!isfinite(v)) {
    b->failed = true;
    return;
  }
  for (int digits = 15; digits <= 17; digits++) {
    (void)snprintf(text, sizeof(text), "%.*g", digits, v);
    if (reads_back(text, v)) break;
  }
  bool marked = false;
  for (const char *p = text; *p != '\0'; p++) {
    bool digit = is_number_char(*p);
    if (digit || !marked) tm__buf_byte(b, digit ? *p : '.');
    marked = marked || !digit || *p == 'e';
  }
  if (!marked) tm__buf_text(b, ".0");
}

void tm__json_bool(tm_buf *b, bool v) {
  tm__buf_text(b, v ? "true" : "false");
}

/* ---- members ---- */

void tm__json_comma(tm_buf *b) {
  if (b->len == 0) return;
  char last = b->ptr[b->len - 1];
  if (last != '{' && last != '[') tm__buf_byte(b, ',');
}

void tm__json_key(tm_buf *b, const char *key) {
  tm__json_comma(b);
  tm__json_string(b, tm__slice(key));
  tm__buf_byte(b, ':');
}

void tm__json_member(tm_buf *b, const char *key, tm_slice text) {
  tm__json_key(b, key);
  if (text.ptr == NULL) {
    tm__buf_text(b, "null");
  } else {
    tm__json_string(b, text);
  }
}

void tm__json_member_text(tm_buf *b, const char *key, const char *text) {
  tm__json_member(b, key, tm__slice(text));
}

void tm__json_member_int(tm_buf *b, const char *key, int64_t v) {
  tm__json_key(b, key);
  tm__json_int(b, v);
}

void tm__json_member_bool(tm_buf *b, const char *key, bool v) {
  tm__json_key(b, key);
  tm__json_bool(b, v);
}

void tm__json_member_raw(tm_buf *b, const char *key, tm_slice json) {
  tm__json_key(b, key);
  if (json.ptr == NULL) {
    tm__buf_text(b, "null");
  } else {
    tm__buf_slice(b, json);
  }
}

/* ---- Jansson values ---- */

typedef struct member {
  tm_slice key;
  const json_t *value;
} member;

static int member_order(const void *a, const void *b) {
  return tm__slice_cmp(((const member *)a)->key, ((const member *)b)->key);
}

static void write_members(tm_buf *b, const member *members, size_t count) {
  tm__buf_byte(b, '{');
  for (size_t i = 0; i < count; i++) {
    if (i > 0) tm__buf_byte(b, ',');
    tm__json_string(b, members[i].key);
    tm__buf_byte(b, ':');
    tm__json_value(b, members[i].value);
  }
  tm__buf_byte(b, '}');
}

#define FEW 16

static void write_object(tm_buf *b, const json_t *v) {
  union { /* Jansson's iterators want a pointer to what they do not change */
    const json_t *in;
    json_t *out;
  } object = {v};
  size_t count = json_object_size(v);
  member few[FEW];
  member *members = count <= FEW ? few : calloc(count, sizeof(*members));
  if (members == NULL) {
    b->failed = true;
    return;
  }
  size_t n = 0;
  for (void *it = json_object_iter(object.out); it != NULL && n < count;
       it = json_object_iter_next(object.out, it)) {
    members[n++] = (member){{json_object_iter_key(it), json_object_iter_key_len(it)},
                            json_object_iter_value(it)};
  }
  qsort(members, n, sizeof(*members), member_order);
  write_members(b, members, n);
  if (members != few) free(members);
}

static void write_array(tm_buf *b, const json_t *v) {
  tm__buf_byte(b, '[');
  for (size_t i = 0; i < json_array_size(v); i++) {
    if (i > 0) tm__buf_byte(b, ',');
    tm__json_value(b, json_array_get(v, i));
  }
  tm__buf_byte(b, ']');
}

void tm__json_value(tm_buf *b, const json_t *v) {
  switch (json_typeof(v)) {
  case JSON_OBJECT: write_object(b, v); break;
  case JSON_ARRAY: write_array(b, v); break;
  case JSON_STRING:
    tm__json_string(b, (tm_slice){json_string_value(v), json_string_length(v)});
    break;
  case JSON_INTEGER: tm__json_int(b, json_integer_value(v)); break;
  case JSON_REAL: tm__json_double(b, json_real_value(v)); break;
  case JSON_TRUE: tm__json_bool(b, true); break;
  case JSON_FALSE: tm__json_bool(b, false); break;
  case JSON_NULL: tm__buf_text(b, "null"); break;
  }
}
