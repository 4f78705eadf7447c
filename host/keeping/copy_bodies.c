/* copy_bodies.c - rows that are there, with other bodies than the source has by now: a key was
 * changed, and they were sealed anew. Both sides are walked from new to old, piece by piece. */
#include <stdlib.h>

#include "keeping/copy_lane.h"

typedef struct piece {
  tm_copy_lane *lane;
  int64_t from, to; /* the rows at which the next piece begins; 0: the end */
  tm_row *rows;     /* what is written; owned */
  size_t count;
  bool no_memory;
} piece;

static tm_status on_source(void *ud, const tm_row *row) {
  piece *p = ud;
  p->from = row->id;
  if (tm__copy_lane_is_full(p->lane)) return TM_ECANCELLED;
  p->no_memory = !tm__copy_lane_keep(p->lane, row);
  p->from = 0; /* unless another one comes */
  return p->no_memory ? TM_ENOMEM : TM_OK;
}

static tm_status on_target(void *ud, const tm_row *row) {
  piece *p = ud;
  p->to = row->id;
  if (p->count == p->lane->row_count) return TM_ECANCELLED;
  const tm_copy_row *source = &p->lane->rows[p->count];
  if (source->row.revision != row->revision) return TM_ECANCELLED; /* it went on: seen later */
  tm_row *out = &p->rows[p->count++];
  *out = source->row;
  out->id = row->id;
  out->body.ptr = tm__buf_view(&p->lane->bodies).ptr + source->body;
  p->to = 0;
  return TM_OK;
}

static tm_status read_piece(const tm_copy *c, piece *p, tm_error *err) {
  tm_slice id = tm__slice(p->lane->head.id);
  tm__copy_lane_clear(p->lane);
  p->count = 0;
  tm_status status = c->from.backend->chain(c->from.conn, id, p->from, false, on_source, p, err);
  if (p->no_memory) return tm__fail_memory(err, "the rows of a conversation");
  if (status != TM_OK && status != TM_ECANCELLED) return status;
  free(p->rows);
  p->rows = calloc(p->lane->row_count + 1, sizeof(*p->rows));
  if (p->rows == NULL) return tm__fail_memory(err, "the rows of a conversation");
  status = c->to.backend->chain(c->to.conn, id, p->to, false, on_target, p, err);
  return status == TM_ECANCELLED ? TM_OK : status;
}

tm_status tm__copy_bodies(tm_copy *c, tm_copy_lane *lane, int64_t tip, tm_error *err) {
  piece p = {.lane = lane, .from = lane->head.tip, .to = tip};
  tm_status status = TM_OK;
  while (status == TM_OK && p.from != 0 && p.to != 0) {
    status = tm__copy_pause(c, err);
    if (status == TM_OK) status = read_piece(c, &p, err);
    if (status == TM_OK && p.count == 0) break;
    if (status == TM_OK) status = c->to.backend->rewrite(c->to.conn, p.rows, p.count, err);
    if (status == TM_OK) c->counts.rewritten += (int64_t)p.count;
  }
  lane->changed = true;
  free(p.rows);
  tm__copy_lane_clear(lane);
  return status;
}
