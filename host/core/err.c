/* err.c - the one place where a tm_error is filled in; its text is always valid UTF-8. */
#include "core/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/utf8.h"

/* Text from outside may be in a message, and cutting may split a character. */
static void mend_utf8(char *text, size_t cut_size) {
  size_t len = strlen(text);
  for (size_t at = 0; at < len;) {
    size_t n = tm__utf8_step((tm_slice){text + at, len - at});
    if (n == 0 && len + 1 == cut_size && len - at < 4) {
      text[at] = '\0';
      return;
    }
    if (n == 0) text[at] = '?';
    at += n == 0 ? 1 : n;
  }
}

tm_status tm__fail(tm_error *err, tm_status status, const char *code, const char *fmt, ...) {
  if (err == NULL) return status;
  tm_error fresh = {.status = status}; /* the arguments may point into *err */
  (void)snprintf(fresh.code, sizeof(fresh.code), "%s", code);
  va_list ap;
  va_start(ap, fmt);
  (void)vsnprintf(fresh.message, sizeof(fresh.message), fmt, ap);
  va_end(ap);
  mend_utf8(fresh.message, sizeof(fresh.message));
  *err = fresh;
  return status;
}

tm_status tm__fail_memory(tm_error *err, const char *what) {
  return tm__fail(err, TM_ENOMEM, "host.memory", "out of memory: no room for %s", what);
}

static const struct {
  tm_status status;
  const char *name;
} names[] = {
    {TM_OK, "ok"},
    {TM_EINVAL, "invalid"},
    {TM_ENOTFOUND, "not_found"},
    {TM_ECONFLICT, "conflict"},
    {TM_ETOOLARGE, "too_large"},
    {TM_EREUSED, "reused"},
    {TM_ELIMIT, "limit"},
    {TM_EUNAVAILABLE, "unavailable"},
    {TM_EUNSUPPORTED, "unsupported"},
    {TM_ENOMEM, "memory"},
    {TM_EIO, "io"},
    {TM_ESCRIPT, "script"},
    {TM_ECORRUPT, "corrupt"},
    {TM_ECANCELLED, "cancelled"},
};
#define NAMES (sizeof(names) / sizeof(names[0]))

const char *tm_status_name(tm_status status) {
  for (size_t i = 0; i < NAMES; i++) {
    if (names[i].status == status) return names[i].name;
  }
  return "unknown";
}

tm_status tm__status_from_name(const char *name) {
  for (size_t i = 0; i < NAMES; i++) {
    if (strcmp(names[i].name, name) == 0) return names[i].status;
  }
  return TM_ESCRIPT;
}
