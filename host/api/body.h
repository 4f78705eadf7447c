/* body.h - request bodies: JSON objects whose members are declared, checked, and nothing else. */
#ifndef TM_API_BODY_H
#define TM_API_BODY_H

#include "core/json.h"

#define TM_BODY_FIELDS 8
#define TM_BODY_DEPTH  32

typedef enum tm_field_kind {
  TM_FIELD_ID,     /* text of 1 to `max` bytes */
  TM_FIELD_TEXT,   /* text */
  TM_FIELD_OBJECT, /* an object */
  TM_FIELD_INPUT,  /* text, number, boolean or object */
  TM_FIELD_COUNT,  /* an integer from 1 to `max` */
  TM_FIELD_KEY,    /* text of 1 to `max` bytes, or an integer */
  TM_FIELD_FLAG,   /* true or false */
  TM_FIELD_ANY,    /* any value */
} tm_field_kind;

typedef struct tm_field {
  const char *name;
  tm_field_kind kind;
  bool required;
  size_t max;
} tm_field;

typedef struct tm_body {          /* zero-initialise */
  json_t *root;                   /* owned */
  json_t *values[TM_BODY_FIELDS]; /* by the field's index; NULL: not given, or null */
} tm_body;

/* `fields` has `count` <= TM_BODY_FIELDS entries. Empty text counts as {}. Errors are TM_EINVAL:
 * "json.invalid", "json.depth", "json.too_many", "request.body", "request.member_unknown",
 * "request.member_missing", "request.member_type", "request.member_value". */
tm_status tm__body_parse(tm_body *out, tm_slice text, const tm_field *fields, size_t count,
                         tm_error *err);
void tm__body_free(tm_body *b);
const char *tm__body_text(const tm_body *b, size_t field); /* borrowed; NULL: not given */

#endif
