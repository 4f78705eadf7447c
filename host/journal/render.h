/* render.h - the JSON of the HTTP interface, made of stored records only: the same rows give the
 * same bytes. */
#ifndef TM_JOURNAL_RENDER_H
#define TM_JOURNAL_RENDER_H

#include "storage/storage.h"

/* A turn: the answer to start and message. `rows` are the bodies of the turn's rows, oldest first;
 * the last one is the row that ended it, with `revision`. Head gives only what never changes: id,
 * session, system, flow, version. */
void tm__render_turn(tm_buf *out, const tm_head *head, int64_t revision, const tm_slice *rows,
                     size_t count, bool durable);

/* The turn that row `row_id` ended, and in *refusal the error that its client was told instead, if
 * any: walks back to the turn's first row. For use inside a store job. */
tm_status tm__render_answer(tm_buf *out, const tm_store_access *a, bool in_memory,
                            const tm_head *head, int64_t row_id, bool durable, tm_error *refusal,
                            tm_error *err);

/* What GET of a conversation shows besides its head; raw JSON, empty: null. */
typedef struct tm_render_record {
  tm_slice prompt, error, state, runtime;
  int64_t updated;
  bool durable;
} tm_render_record;
void tm__render_conversation(tm_buf *out, const tm_head *head, const tm_render_record *r);

/* One element of a list of conversations. `forked_from`: what its runtime part says, raw; empty: it
 * is no fork. */
void tm__render_item(tm_buf *out, const tm_head *head, int64_t updated, tm_slice forked_from,
                     bool durable);

#endif
