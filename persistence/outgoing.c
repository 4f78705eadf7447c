/* outgoing.c - a batch of events, and how it is read from a table of SQLite. */
#include "persistence/outgoing.h"

#include <sqlite3.h>
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

static tm_slice column(sqlite3_stmt *st, int at) {
  const char *bytes = sqlite3_column_blob(st, at); /* NULL for "" too */
  return (tm_slice){bytes != NULL ? bytes : "", (size_t)sqlite3_column_bytes(st, at)};
}

/* The body is borrowed until the next step. */
static bool read_row(sqlite3_stmt *st, tm_outgoing *e) {
  *e = (tm_outgoing){.revision = sqlite3_column_int64(st, 1),
                     .index = sqlite3_column_int(st, 2),
                     .created = sqlite3_column_int64(st, 4),
                     .due_at = sqlite3_column_int64(st, 5),
                     .dead_at = sqlite3_column_int64(st, 6),
                     .attempts = sqlite3_column_int(st, 7),
                     .flags = (uint32_t)sqlite3_column_int64(st, 9),
                     .body = column(st, 10)};
  return tm__outgoing_texts(e, column(st, 0), column(st, 3), column(st, 8));
}

tm_status tm__outgoing_read(tm_outgoing_batch *b, sqlite3_stmt *st, int *rc, tm_error *err) {
  tm_outgoing event;
  tm_status status = TM_OK;
  while (status == TM_OK && (*rc = sqlite3_step(st)) == SQLITE_ROW)
    if (read_row(st, &event)) status = tm__outgoing_add(b, &event, err);
  sqlite3_reset(st);
  return status;
}

void tm__outgoing_free(tm_outgoing_batch *b) {
  free(b->items);
  tm__buf_free(&b->bytes);
  *b = (tm_outgoing_batch){0};
}
