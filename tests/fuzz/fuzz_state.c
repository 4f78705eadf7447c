/* Two states in, a delta between them; applied, it must give the second again. */
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "journal/state.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The canonical object in `text`; false when it is none. */
static bool canonical(tm_buf *out, tm_slice text) {
  json_t *v = NULL;
  tm_error err;
  if (tm__json_parse(&v, text, TM_JSON_DEPTH, &err) != TM_OK) return false;
  bool object = json_is_object(v);
  if (object) tm__json_value(out, v);
  json_decref(v);
  return object && tm__buf_ok(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const uint8_t *middle = size > 0 ? memchr(data, '\n', size) : NULL;
  if (middle == NULL) return 0;
  size_t left = (size_t)(middle - data);
  tm_buf from = {0}, to = {0}, delta = {0}, made = {0};
  if (canonical(&from, (tm_slice){(const char *)data, left}) &&
      canonical(&to, (tm_slice){(const char *)middle + 1, size - left - 1})) {
    tm__state_delta(&delta, tm__buf_view(&from), tm__buf_view(&to));
    if (!tm__state_apply(&made, tm__buf_view(&from), tm__buf_view(&delta))) abort();
    if (!tm__slice_eq(tm__buf_view(&made), tm__buf_view(&to))) abort();
  } else if (from.len > 0) { /* a delta nobody checked: refused or applied, never a crash */
    (void)tm__state_apply(&made, tm__buf_view(&from),
                          (tm_slice){(const char *)middle + 1, size - left - 1});
  }
  tm__buf_free(&from);
  tm__buf_free(&to);
  tm__buf_free(&delta);
  tm__buf_free(&made);
  return 0;
}
