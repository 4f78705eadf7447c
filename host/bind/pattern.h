/* pattern.h - the patterns of string.find, counted: whatever a pattern does to a subject, somebody
 * is asked in time whether it may go on. No Lua state here.
 *
 * Results and messages are those of Lua 5.4.4. Subject and pattern are borrowed.
 */
#ifndef TM_BIND_PATTERN_H
#define TM_BIND_PATTERN_H

#include <stddef.h>

#include "core/buf.h"

#define TM_PATTERN_CAPTURES 32
#define TM_PATTERN_STEPS                                                                           \
  4096 /* at most so many, and one pass over the texts, between two charges */

#define TM_CAPTURE_OPEN     (-1) /* the ( has no ) yet */
#define TM_CAPTURE_POSITION (-2)

typedef enum tm_pattern_failure {
  TM_PATTERN_FINE,
  TM_PATTERN_MALFORMED,
  TM_PATTERN_DEEP,    /* nested more than 200 levels: "pattern too complex" */
  TM_PATTERN_STOPPED, /* `charge` said so */
} tm_pattern_failure;

typedef struct tm_pattern {
  const char *subject, *end; /* of the subject */
  const char *pattern, *pattern_end;
  bool (*charge)(void *ud, size_t steps); /* false: stop */
  void *ud;
  size_t steps; /* not charged yet; the caller may charge them after the last match */
  bool anchored;
  tm_pattern_failure failure;
  char problem[48]; /* what failed, in words */
  int depth;        /* levels left */
  int count;        /* of captures */
  struct {
    const char *start;
    ptrdiff_t len; /* or TM_CAPTURE_ */
  } captures[TM_PATTERN_CAPTURES];
} tm_pattern;

/* `anchor`: a ^ in front binds the pattern to where the search begins; otherwise it is a letter. */
void tm__pattern_init(tm_pattern *m, tm_slice subject, tm_slice pattern, bool anchor);

/* The first match that starts at *at or later and does not end at `last_end` (NULL: wherever it
 * ends). Moves *at to its start and returns its end; NULL: there is none, or m->failure says why.
 */
const char *tm__pattern_next(tm_pattern *m, const char **at, const char *last_end);

/* No character of it has a meaning: it can be looked for as it is. */
bool tm__pattern_is_plain(tm_slice pattern);
/* Where `what` is in s at first, or NULL; takes time in proportion to both. */
const char *tm__pattern_find_plain(tm_slice s, tm_slice what);

#endif
