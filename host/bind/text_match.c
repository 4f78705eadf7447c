/* text_match.c - does a pattern match? Within a fixed number of steps, whoever asks: the pattern is
 * text from a script and the subject text from anybody.
 */
#include "bind/pattern.h"
#include "bind/text.h"

#define MAX_STEPS 200000

static bool charge(void *ud, size_t steps) {
  size_t *left = ud;
  if (steps > *left) return false;
  *left -= steps;
  return true;
}

tm_status tm__text_match(tm_slice s, tm_slice pattern, bool *found, tm_error *err) {
  tm_pattern m;
  const char *at = s.ptr;
  size_t left = MAX_STEPS;
  if (tm__pattern_is_plain(pattern)) {
    *found = tm__pattern_find_plain(s, pattern) != NULL;
    return TM_OK;
  }
  tm__pattern_init(&m, s, pattern, true);
  m.charge = charge;
  m.ud = &left;
  *found = tm__pattern_next(&m, &at, NULL) != NULL;
  for (int i = 0; *found && i < m.count; i++) {
    if (m.captures[i].len != TM_CAPTURE_OPEN) continue;
    *found = false;
    return tm__fail(err, TM_EINVAL, "text.pattern", "unfinished capture");
  }
  switch (m.failure) {
  case TM_PATTERN_MALFORMED: return tm__fail(err, TM_EINVAL, "text.pattern", "%s", m.problem);
  case TM_PATTERN_DEEP:
    return tm__fail(err, TM_ELIMIT, "text.too_hard", "the pattern is nested too deeply");
  case TM_PATTERN_STOPPED:
    return tm__fail(err, TM_ELIMIT, "text.too_hard",
                    "the pattern needs too many steps on this text; make it more specific");
  case TM_PATTERN_FINE: break;
  }
  return TM_OK;
}
