/* reseal_note.c - the note is the text "KEYS BEGUN SINCE PROGRESS". */
#include "keeping/reseal_note.h"

#include <string.h>

#define MARGIN_MS (INT64_C(24) * 60 * 60 * 1000) /* by which clocks of hosts may differ */

static tm_slice word(tm_slice *rest) {
  const char *end = rest->len > 0 ? memchr(rest->ptr, ' ', rest->len) : NULL;
  tm_slice w = {rest->ptr, end != NULL ? (size_t)(end - rest->ptr) : rest->len};
  size_t used = w.len + (end != NULL);
  *rest = (tm_slice){rest->ptr + used, rest->len - used};
  return w;
}

static int64_t number(tm_slice text) {
  int64_t n = 0;
  for (size_t i = 0; i < text.len && i < 15 && text.ptr[i] >= '0' && text.ptr[i] <= '9'; i++) {
    n = n * 10 + (text.ptr[i] - '0');
  }
  return n;
}

static tm_status get(const tm_store_access *a, tm_buf *out, tm_error *err) {
  tm_status status = a->backend->note_get(a->common, TM_NOTE_SEAL, out, err);
  if (status == TM_ENOTFOUND) return TM_OK;
  return status == TM_OK && !tm__buf_ok(out) ? tm__fail_memory(err, "a note") : status;
}

static void parse(tm_reseal_note *n, tm_slice text) {
  n->stands = tm__slice_is(word(&text), n->keys);
  if (!n->stands) return;
  n->begun = number(word(&text));
  n->since = number(word(&text));
  tm__buf_slice(&n->progress, text);
}

/* A host that had other keys until today may have written after a walk was done. */
static void begin_anew(tm_reseal_note *n, int64_t now) {
  bool done = tm__slice_is(tm__buf_view(&n->progress), TM_RESEAL_DONE);
  n->since = done && n->begun > MARGIN_MS ? n->begun - MARGIN_MS : 0;
  n->begun = now;
  tm__buf_clear(&n->progress);
}

tm_status tm__reseal_note_read(tm_reseal_note *n, const tm_store_access *a, int64_t now,
                               tm_error *err) {
  tm_buf text = {0};
  tm_status status = get(a, &text, err);
  if (status == TM_OK) parse(n, tm__buf_view(&text));
  tm__buf_free(&text);
  if (status != TM_OK) return status;
  if (!n->stands || tm__slice_is(tm__buf_view(&n->progress), TM_RESEAL_DONE)) begin_anew(n, now);
  return tm__buf_ok(&n->progress) ? TM_OK : tm__fail_memory(err, "a note");
}

/* Does another host's stand where ours was? */
static tm_status look(tm_reseal_note *n, const tm_store_access *a, tm_error *err) {
  tm_buf text = {0};
  tm_status status = get(a, &text, err);
  tm_slice rest = tm__buf_view(&text);
  if (status == TM_OK && !tm__slice_is(word(&rest), n->keys)) n->disturbed = true;
  tm__buf_free(&text);
  return status;
}

tm_status tm__reseal_note_write(tm_reseal_note *n, const tm_store_access *a, bool over,
                                tm_error *err) {
  tm_status status = n->stands ? look(n, a, err) : TM_OK;
  if (status != TM_OK || n->disturbed) return status;
  tm_buf text = {0};
  tm__buf_printf(&text, "%s %lld %lld ", n->keys, (long long)n->begun, (long long)n->since);
  if (!over) tm__buf_slice(&text, tm__buf_view(&n->progress));
  status = tm__buf_ok(&text)
               ? a->backend->note_put(a->common, TM_NOTE_SEAL, tm__buf_view(&text), err)
               : tm__fail_memory(err, "a note");
  n->stands = n->stands || status == TM_OK;
  tm__buf_free(&text);
  return status;
}
