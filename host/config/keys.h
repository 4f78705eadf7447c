/* keys.h - the table of every key, made of keys.def: what a key is called, holds and defaults to.
 *
 * Knows nothing about files, variables or loaded values. Everything is constant and static.
 */
#ifndef TM_CONFIG_KEYS_H
#define TM_CONFIG_KEYS_H

#include "core/buf.h"

typedef enum tm_key_type {
  TM_KEY_TEXT,
  TM_KEY_CHOICE,
  TM_KEY_BOOL,
  TM_KEY_INT,
  TM_KEY_NUMBER,
  TM_KEY_SIZE,     /* bytes */
  TM_KEY_DURATION, /* milliseconds inside, seconds outside */
  TM_KEY_LIST,     /* of texts */
} tm_key_type;

typedef enum tm_key_form { /* what a text, or a duration, must look like */
                           TM_FORM_ANY,
                           TM_FORM_PATH,    /* a file or folder */
                           TM_FORM_NAME,    /* an SQL identifier */
                           TM_FORM_ADDRESS, /* HOST:PORT */
                           TM_FORM_SECONDS, /* a duration in whole seconds */
} tm_key_form;

typedef struct tm_key {
  const char *path; /* "server.listen" */
  tm_key_type type;
  tm_key_form form;
  bool secret;          /* never shown; may come from <variable>_FILE */
  const char *fallback; /* the default, as it would be written; NULL: no value */
  int64_t min, max;     /* integers, sizes, durations; a list's number of items */
  const char *choices;  /* "a|b|-c": c is known, but not supported yet */
  const char *later;    /* NULL, or: not supported yet, and what happens instead */
} tm_key;

#define TM_VARIABLE_SIZE   128
#define TM_NO_KEY          SIZE_MAX
#define TM_VARIABLE_PREFIX "AMBIVO_AGENTS_"

size_t tm__key_count(void);
const tm_key *tm__key_at(size_t index);
size_t tm__key_find(tm_slice path);     /* index or TM_NO_KEY */
bool tm__key_is_section(tm_slice path); /* are there keys below it? */
bool tm__key_is_skipped(tm_slice name); /* a section of the guide's library without meaning here */
const char *tm__key_type_name(const tm_key *key); /* "duration"; secret: "secret", "secrets" */

/* The key's environment variable. */
void tm__key_variable(const tm_key *key, char out[TM_VARIABLE_SIZE]);
/* Walks "a|b|-c"; false at the end. `*at` starts as key->choices. */
bool tm__key_choice(const char **at, tm_slice *word, bool *works);

/* ---- did you mean ---- */
size_t tm__edit_distance(tm_slice a,
                         tm_slice b); /* in letters of either case; looks at the first 96 bytes */
/* The known path that the unknown `name` below section `parent` ("" at the top) may be a slip of,
 * or that ends in it elsewhere; "" when there is none. */
tm_slice tm__key_nearest(tm_slice parent, tm_slice name);
tm_slice tm__key_nearest_path(tm_slice path);     /* for a whole unknown path */
size_t tm__key_nearest_variable(tm_slice name);   /* index, or TM_NO_KEY */
void tm__key_hint(tm_buf *out, tm_slice nearest); /* "; did you mean …", or where all keys are */

#endif
