/* json.h - the one JSON codec: strict reading (Jansson), direct writing, raw walking.
 *
 * Reading refuses what cannot be kept exactly: duplicate keys, invalid UTF-8, NUL in keys, integers
 * beyond 64 bits, NaN, depth over the limit. Writing appends to a tm_buf; text that this module
 * wrote is canonical: no blanks, so it can be walked member by member without a tree.
 */
#ifndef TM_CORE_JSON_H
#define TM_CORE_JSON_H

#include <jansson.h>

#include "core/buf.h"
#include "core/err.h"
#include "core/utf8.h"

#define TM_JSON_DEPTH        64
#define TM_JSON_INPUT_VALUES 10000 /* of a request: it is read on the thread of all of them */

/* Any JSON value. On success the caller json_decref()s *out. Errors are TM_EINVAL "json.invalid",
 * with line and column, or "json.depth". */
tm_status tm__json_parse(json_t **out, tm_slice text, int max_depth, tm_error *err);
/* The same of text from outside, which must not cost much: more than `max_values` values are
 * "json.too_many". An empty list or object counts as two. */
tm_status tm__json_parse_bounded(json_t **out, tm_slice text, int max_depth, size_t max_values,
                                 tm_error *err);

/* ---- writing ---- */
void tm__json_string(tm_buf *b, tm_slice s);  /* quoted and escaped; s must be valid UTF-8 */
void tm__json_escaped(tm_buf *b, tm_slice s); /* what stands between the quotes, or a part of it */
void tm__json_int(tm_buf *b, int64_t v);
/* Up to 17 digits, as many as reading back exactly needs, always with '.' or 'e'. NaN and
 * infinities have no JSON: the buffer fails. */
void tm__json_double(tm_buf *b, double v);
void tm__json_bool(tm_buf *b, bool v);

/* Starts a member: a comma unless the buffer ends in '{' or '[', then "key": */
void tm__json_key(tm_buf *b, const char *key);
void tm__json_comma(tm_buf *b); /* the same before an array element */
/* Whole members; a NULL text or empty slice with ptr NULL writes null. */
void tm__json_member(tm_buf *b, const char *key, tm_slice text);
void tm__json_member_text(tm_buf *b, const char *key, const char *text);
void tm__json_member_int(tm_buf *b, const char *key, int64_t v);
void tm__json_member_bool(tm_buf *b, const char *key, bool v);
void tm__json_member_raw(tm_buf *b, const char *key, tm_slice json); /* ptr NULL: null */

/* Any Jansson value, keys sorted: the canonical form. */
void tm__json_value(tm_buf *b, const json_t *v);

/* ---- walking valid canonical text without a tree ---- */
typedef struct tm_json_walk {
  const char *at, *end;
  bool object;
} tm_json_walk;

/* `json` is an object or array; false when it is neither. */
bool tm__json_walk(tm_json_walk *w, tm_slice json);
/* The next element: key (object: still escaped, without quotes; array: {NULL,0}) and raw value. */
bool tm__json_next(tm_json_walk *w, tm_slice *key, tm_slice *value);
/* The raw value of a member; {NULL,0} when absent. `key` must need no escaping. */
tm_slice tm__json_get(tm_slice json, const char *key);
int64_t tm__json_get_int(tm_slice json, const char *key, int64_t fallback);
/* A string member's text, unescaped into `out`; false when absent or no string. */
bool tm__json_get_text(tm_slice json, const char *key, tm_buf *out);
/* The same for a raw value that is at hand: appends the string's text; false when it is none. */
bool tm__json_unquote(tm_slice value, tm_buf *out);

#endif
