/* reseal_sessions.c - the walk through the sessions: which of them are sealed with an older key,
 * and sealing those anew. */
#include "keeping/reseal_work.h"

static tm_status check_text(tm_reseal *r, const tm_session *s, const char *field, tm_slice text,
                            bool *current) {
  bool it_is = true;
  tm_error err;
  const tm_place at = {.tenant = s->tenant, .session = s->id, .field = tm__slice(field)};
  const tm_stored stored = {s->flags, text};
  tm_status status = TM_OK;
  if (text.ptr != NULL) status = tm__codec_is_current(r->o.codec, s->tenant, &stored, &it_is, &err);
  if (status != TM_OK) tm__reseal_not_renewed(r, &at, &stored, &err);
  *current = *current && it_is;
  return status;
}

static tm_status on_session(void *ud, const tm_session *s) {
  tm_reseal_batch *b = ud;
  tm_reseal *r = b->r;
  tm_reseal_session *id = &b->sessions[b->count];
  bool current = true;
  tm_status status = check_text(r, s, "user_id", s->user_id, &current);
  if (status == TM_OK) status = check_text(r, s, "metadata", s->metadata, &current);
  (void)tm__copy(r->last.tenant, sizeof(r->last.tenant), s->tenant);
  (void)tm__copy(r->last.id, sizeof(r->last.id), s->id);
  r->page.before_created = s->created;
  r->at_end = false;
  b->looked++;
  if (status != TM_OK || current) return TM_OK;
  *id = r->last;
  b->count++;
  return TM_OK;
}

tm_status tm__reseal_gather_sessions(tm_store_job *job, const tm_store_access *a, tm_error *err) {
  tm_reseal_batch *b = (tm_reseal_batch *)(void *)job;
  tm_reseal *r = b->r;
  r->page.ended = -1;
  r->page.limit = r->o.batch;
  r->after = r->last;
  r->page.before_id = tm__slice(r->after.id);
  r->page.before_tenant = tm__slice(r->after.tenant);
  r->at_end = true;
  return a->backend->sessions(a->conn, &r->page, on_session, b, err);
}

typedef struct renewal { /* of one session, on the writer's thread */
  tm_reseal_batch *b;
  tm_session fresh; /* its texts lie in the batch's first two `bytes` */
  bool ready;
} renewal;

static tm_status renew_text(renewal *w, const tm_session *s, const char *field, tm_buf *out,
                            tm_slice *text) {
  const tm_place at = {.tenant = s->tenant, .session = s->id, .field = tm__slice(field)};
  const tm_stored stored = {s->flags, *text};
  tm_stored fresh;
  tm_slice plain;
  tm_reseal *r = w->b->r;
  tm_error *err = &w->b->job.error;
  if (text->ptr == NULL) return TM_OK;
  tm__buf_clear(out);
  tm_status status = tm__codec_decode(r->o.codec, &at, &stored, &r->scratch, &plain, err);
  if (status == TM_OK)
    status = tm__codec_encode(r->o.codec, &at, plain, false, true, out, &fresh, err);
  if (status != TM_OK) return status;
  *text = fresh.bytes;
  w->fresh.flags = fresh.flags;
  return TM_OK;
}

/* Both texts or none: they have their flags in common. */
static tm_status on_stale(void *ud, const tm_session *s) {
  renewal *w = ud;
  w->fresh = *s;
  tm_status status = renew_text(w, s, "user_id", &w->b->bytes[0], &w->fresh.user_id);
  if (status == TM_OK) status = renew_text(w, s, "metadata", &w->b->bytes[1], &w->fresh.metadata);
  w->ready = status == TM_OK;
  if (status == TM_OK || status == TM_ENOMEM) return status;
  tm__reseal_unreadable(w->b->r, &w->b->job.error);
  return TM_OK;
}

/* Read once more: it may have been changed since it was found. */
tm_status tm__reseal_write_sessions(tm_store_job *job, const tm_store_access *a, tm_error *err) {
  tm_reseal_batch *b = (tm_reseal_batch *)(void *)job;
  tm_status status = TM_OK;
  for (size_t i = 0; status == TM_OK && i < b->count; i++) {
    renewal w = {.b = b};
    tm_slice tenant = tm__slice(b->sessions[i].tenant);
    tm_slice id = tm__slice(b->sessions[i].id);
    status = a->backend->session(a->conn, tenant, id, on_stale, &w, err);
    if (status == TM_ENOTFOUND) status = TM_OK;
    w.fresh.tenant = tenant;
    w.fresh.id = id;
    if (status == TM_OK && w.ready) status = a->backend->session_put(a->conn, &w.fresh, err);
  }
  return status;
}
