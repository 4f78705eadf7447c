/* reseal_sessions.c - the walk through the sessions: which of them are sealed with an older key,
 * and sealing those anew. */
#include <string.h>

#include "keeping/reseal_work.h"
#include "keeping/session.h"

#define TRIES 4 /* at one that others change meanwhile; then all of the batch is tried again */

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
  tm_error damage;
  tm_status status = s->damaged ? tm__session_damaged(s, "the store", &damage) : TM_OK;
  if (status != TM_OK) tm__reseal_unreadable(r, &damage);
  if (status == TM_OK) status = check_text(r, s, "user_id", s->user_id, &current);
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
  if (r->after.id[0] != '\0') r->page.before_id = tm__slice(r->after.id);
  r->page.before_tenant = tm__slice(r->after.tenant);
  r->at_end = true;
  return a->backend->sessions(a->conn, &r->page, on_session, b, err);
}

static tm_status renew_text(tm_reseal_batch *b, tm_kept_session *k, const char *field, tm_buf *out,
                            tm_slice *text, tm_error *err) {
  const tm_place at = {.tenant = k->s.tenant, .session = k->s.id, .field = tm__slice(field)};
  const tm_stored stored = {k->was.flags, *text};
  tm_stored fresh;
  tm_slice plain;
  tm_reseal *r = b->r;
  if (text->ptr == NULL) return TM_OK;
  tm__buf_clear(out);
  tm_status status = tm__codec_decode(r->o.codec, &at, &stored, &r->scratch, &plain, err);
  if (status == TM_OK)
    status = tm__codec_encode(r->o.codec, &at, plain, false, true, out, &fresh, err);
  if (status != TM_OK) return status;
  *text = fresh.bytes;
  k->s.flags = fresh.flags;
  return TM_OK;
}

/* Both texts or none: they have their flags in common. The new ones lie in the batch's first two
 * `bytes`. */
static tm_status renew(tm_reseal_batch *b, const tm_store_access *a, tm_kept_session *k,
                       tm_error *err) {
  tm_status status = renew_text(b, k, "user_id", &b->bytes[0], &k->s.user_id, err);
  if (status == TM_OK) status = renew_text(b, k, "metadata", &b->bytes[1], &k->s.metadata, err);
  if (status == TM_OK) return tm__session_put(a, false, k, err);
  if (status == TM_ENOMEM) return status;
  tm__reseal_unreadable(b->r, err);
  return TM_OK;
}

/* Read once more: it may have been changed since it was found, or is meanwhile. */
static tm_status write_one(tm_reseal_batch *b, const tm_store_access *a,
                           const tm_reseal_session *id, tm_error *err) {
  tm_kept_session k = {0};
  memcpy(k.tenant, id->tenant, sizeof(k.tenant));
  memcpy(k.id, id->id, sizeof(k.id));
  tm_status status = TM_ECONFLICT;
  for (int i = 0; status == TM_ECONFLICT && i < TRIES; i++) {
    status = tm__session_fetch(&k, a, false, err);
    if (status == TM_OK) status = renew(b, a, &k, err);
  }
  tm__session_release(&k);
  if (status == TM_ECORRUPT) tm__reseal_unreadable(b->r, err);
  return status == TM_ENOTFOUND || status == TM_ECORRUPT ? TM_OK : status;
}

tm_status tm__reseal_write_sessions(tm_store_job *job, const tm_store_access *a, tm_error *err) {
  tm_reseal_batch *b = (tm_reseal_batch *)(void *)job;
  tm_status status = TM_OK;
  for (size_t i = 0; status == TM_OK && i < b->count; i++)
    status = write_one(b, a, &b->sessions[i], err);
  return status;
}
