/* outgoing.c - a batch of events. */
#include "persistence/outgoing.h"

#include <stdlib.h>

tm_status tm__outgoing_add(tm_outgoing_batch *b, const tm_outgoing *event, tm_error *err) {
  if (b->count == b->room) {
    size_t room = b->room == 0 ? 16 : b->room * 2;
    tm_outgoing *more = realloc(b->items, room * sizeof(*more));
    if (more == NULL) return tm__fail_memory(err, "events");
    b->items = more;
    b->room = room;
  }
  tm__buf_slice(&b->bytes, event->body);
  if (!tm__buf_ok(&b->bytes)) return tm__fail_memory(err, "events");
  b->items[b->count++] = *event;
  return TM_OK;
}

tm_status tm__outgoing_give(const tm_outgoing_batch *b, tm_outgoing_fn fn, void *ud) {
  const char *at = b->bytes.ptr != NULL ? b->bytes.ptr : "";
  tm_status status = TM_OK;
  for (size_t i = 0; status == TM_OK && i < b->count; i++) {
    tm_outgoing event = b->items[i];
    event.body.ptr = at;
    at += event.body.len;
    status = fn(ud, &event);
  }
  return status;
}

void tm__outgoing_free(tm_outgoing_batch *b) {
  free(b->items);
  tm__buf_free(&b->bytes);
  *b = (tm_outgoing_batch){0};
}
