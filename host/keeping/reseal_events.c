/* reseal_events.c - the walk through events that are to be delivered: those that are sealed with an
 * older key are sealed anew. Their bodies never change otherwise, so that one that goes meanwhile
 * is the only thing that can come between. */
#include <stdlib.h>

#include "keeping/reseal_work.h"

typedef struct page {
  tm_reseal_batch *b;
  tm_outgoing *fresh; /* their bodies lie in the batch's `bytes` */
  size_t count, seen;
} page;

static tm_status renew(page *p, const tm_place *at, const tm_outgoing *event, tm_error *err) {
  tm_reseal *r = p->b->r;
  const tm_stored stored = {event->flags, event->body};
  tm_stored fresh;
  tm_slice plain;
  tm_buf *out = &p->b->bytes[p->count];
  tm__buf_clear(out);
  tm_status status = tm__codec_decode(r->o.codec, at, &stored, &r->scratch, &plain, err);
  if (status == TM_OK)
    status = tm__codec_encode(r->o.codec, at, plain, false, true, out, &fresh, err);
  if (status != TM_OK) return status;
  p->fresh[p->count] = *event;
  p->fresh[p->count].flags = fresh.flags;
  p->fresh[p->count++].body = fresh.bytes;
  return TM_OK;
}

static tm_status on_event(void *ud, const tm_outgoing *event) {
  page *p = ud;
  tm_reseal *r = p->b->r;
  bool current = true;
  tm_error err;
  const tm_place at = {.tenant = tm__slice(event->tenant),
                       .conversation = tm__slice(event->conversation),
                       .revision = event->revision,
                       .event = true,
                       .index = event->index};
  const tm_stored stored = {event->flags, event->body};
  memcpy(r->events.before, event->conversation, sizeof(r->events.before));
  r->events.before_revision = event->revision;
  r->events.before_index = event->index;
  p->seen++;
  tm_status status = tm__codec_is_current(r->o.codec, at.tenant, &stored, &current, &err);
  if (status != TM_OK)
    tm__reseal_not_renewed(r, &at, &stored, &err);
  else if (!current && (status = renew(p, &at, event, &err)) != TM_OK)
    tm__reseal_unreadable(r, &err);
  return status == TM_ENOMEM ? status : TM_OK;
}

tm_status tm__reseal_events(tm_store_job *job, const tm_store_access *a, tm_error *err) {
  tm_reseal_batch *b = (tm_reseal_batch *)(void *)job;
  tm_reseal *r = b->r;
  page p = {.b = b, .fresh = calloc(r->o.batch + 1, sizeof(tm_outgoing))};
  if (p.fresh == NULL) return tm__fail_memory(err, "events");
  tm_outgoing_filter f = r->events;
  f.limit = r->o.batch;
  tm_status status = a->backend->outbox_list(a->conn, &f, on_event, &p, err);
  for (size_t i = 0; status == TM_OK && i < p.count; i++)
    status = a->backend->outbox_rewrite(a->conn, &p.fresh[i], err);
  if (status == TM_OK)
    r->renewed += p.count;
  else
    r->events = (tm_outgoing_filter){.dead = -1}; /* again: those that are current stay */
  r->at_end = status == TM_OK && p.seen < r->o.batch;
  free(p.fresh);
  return status;
}
