/* value.h - one value of a key: from text to its type, with words for what is wrong.
 *
 * Knows nothing about where the text came from. A secret's text is never repeated in `why`.
 */
#ifndef TM_CONFIG_VALUE_H
#define TM_CONFIG_VALUE_H

#include "config/keys.h"
#include "core/err.h"

#define TM_VALUE_MAX  4096        /* bytes of a text */
#define TM_SECRET_MAX (64 * 1024) /* bytes of a secret */

typedef struct tm_value { /* zero-initialise; owns what it points to */
  bool present;           /* false: no value (a key without default) */
  char *text;             /* TEXT, CHOICE */
  int64_t number;         /* BOOL (0, 1), INT, SIZE, DURATION */
  double real;            /* NUMBER */
  char **items;           /* LIST */
  size_t count;
} tm_value;

typedef enum tm_style {
  TM_STYLE_PLAIN,  /* YAML without quotes: true, 5 and null are not text */
  TM_STYLE_QUOTED, /* YAML with quotes: text, whatever it looks like */
  TM_STYLE_LOOSE,  /* a variable's or setting's text: the key says what it is */
} tm_style;

/* TM_EINVAL: `why` got the reason, and *out is empty; TM_ENOMEM. */
tm_status tm__value_scalar(tm_value *out, const tm_key *key, tm_slice text, tm_style style,
                           tm_buf *why);
tm_status tm__value_list(tm_value *out, const tm_key *key, const tm_slice *items, size_t count,
                         tm_buf *why);
tm_status tm__value_default(tm_value *out, const tm_key *key);
bool tm__value_equal(const tm_value *a, const tm_value *b, const tm_key *key);
void tm__value_free(tm_value *v); /* idempotent */

/* A plain scalar that YAML 1.2 takes for null, a boolean or a number; NULL: it is text. */
const char *tm__plain_kind(tm_slice text);

bool tm__is_one_of(tm_slice text, const char *const *words); /* NULL-terminated */
bool tm__is_name(tm_slice s); /* letters, digits and _, not beginning with a digit */

/* ---- words for people (show.c) ---- */
void tm__show(tm_buf *out, tm_slice text);      /* quoted, cut, without control characters */
void tm__show_name(tm_buf *out, tm_slice text); /* the same without quotes */
void tm__show_expected(tm_buf *out, const tm_key *key); /* "an integer from 0 to 256" */
/* "expected ..., got ..."; nothing of a secret. */
void tm__show_mismatch(tm_buf *out, const tm_key *key, tm_slice text, tm_style style);

/* ---- numbers (number.c); false: no such number, or not exactly in the unit ---- */
bool tm__parse_int(int64_t *out, tm_slice text);
bool tm__parse_number(double *out, tm_slice text);    /* digits, at most 6 behind the point */
bool tm__parse_size(int64_t *out, tm_slice text);     /* bytes; k, kB, KiB and so on are 1024 */
bool tm__parse_duration(int64_t *out, tm_slice text); /* ms; a bare number is seconds */

#endif
