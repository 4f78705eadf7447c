/* text.h - characters of UTF-8 text, and a bounded matcher of Lua patterns. No Lua state here. */
#ifndef TM_BIND_TEXT_H
#define TM_BIND_TEXT_H

#include "core/buf.h"
#include "core/err.h"

uint32_t tm__text_lower(uint32_t c); /* Latin, Greek, Cyrillic, Armenian; others stay */
bool tm__text_is_space(uint32_t c);
/* The character at *at of valid text, which moves behind it. */
uint32_t tm__text_next(tm_slice s, size_t *at);

/* Does the pattern match somewhere in s, by the rules of string.find? Errors: TM_EINVAL
 * "text.pattern" (malformed), TM_ELIMIT "text.too_hard" (over the bound on steps or depth). */
tm_status tm__text_match(tm_slice s, tm_slice pattern, bool *found, tm_error *err);

#endif
