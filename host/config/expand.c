/* expand.c - ${NAME} and ${NAME:default} in a text. One pass: nothing expands twice. */
#include <string.h>

#include "config/env.h"
#include "config/value.h"

#define EXPANDED_MAX ((size_t)TM_SECRET_MAX)

static bool starts(const char *at, const char *end, const char *with) {
  size_t n = strlen(with);
  return (size_t)(end - at) >= n && memcmp(at, with, n) == 0;
}

/* What stands between the braces. */
static tm_status replace(tm_env *env, tm_buf *out, tm_slice inner, tm_buf *why) {
  const char *colon = inner.len > 0 ? memchr(inner.ptr, ':', inner.len) : NULL;
  tm_slice name = {inner.ptr, colon == NULL ? inner.len : (size_t)(colon - inner.ptr)};
  if (!tm__is_name(name)) {
    tm__buf_text(why, "write ${NAME} or ${NAME:default}, or $${ for a plain ${");
    return TM_EINVAL;
  }
  const tm_env_var *v = tm__env_get(env, name);
  if (v != NULL) {
    tm__buf_slice(out, v->value);
  } else if (colon != NULL) {
    tm__buf_add(out, colon + 1, inner.len - name.len - 1);
  } else {
    tm__buf_text(why, "the variable ");
    tm__show_name(why, name);
    tm__buf_text(why, " is not set; set it, or write ${");
    tm__show_name(why, name);
    tm__buf_text(why, ":default}");
    return TM_EINVAL;
  }
  return TM_OK;
}

/* *at stands on "${"; moves behind the brace. */
static tm_status take_reference(tm_env *env, tm_buf *out, const char **at, const char *end,
                                tm_buf *why) {
  const char *inner = *at + 2;
  const char *close = memchr(inner, '}', (size_t)(end - inner));
  if (close == NULL) {
    tm__buf_text(why, "a ${ is not closed by }");
    return TM_EINVAL;
  }
  tm_slice text = {inner, (size_t)(close - inner)};
  if (memmem(text.ptr, text.len, "${", 2) != NULL) {
    tm__buf_text(why, "a default cannot contain another ${");
    return TM_EINVAL;
  }
  *at = close + 1;
  return replace(env, out, text, why);
}

tm_status tm__env_expand(tm_env *env, tm_buf *out, tm_slice text, bool *changed, tm_buf *why) {
  const char *at = text.ptr, *end = text.ptr + text.len;
  *changed = false;
  while (at < end) {
    if (starts(at, end, "$${")) {
      tm__buf_text(out, "${");
      at += 3;
    } else if (starts(at, end, "${")) {
      *changed = true;
      tm_status s = take_reference(env, out, &at, end, why);
      if (s != TM_OK) return s;
    } else {
      tm__buf_byte(out, *at++);
    }
    if (out->len > EXPANDED_MAX) {
      tm__buf_printf(why, "the text has more than %zu bytes", EXPANDED_MAX);
      return TM_EINVAL;
    }
  }
  return tm__buf_ok(out) ? TM_OK : TM_ENOMEM;
}
