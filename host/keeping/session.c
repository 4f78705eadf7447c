/* session.c - what the conversations of a session say about it, and the rules of its system. A
 * session is a name that conversations share: it is idle when none of them is open. */
#include "keeping/session.h"

#include <string.h>

#include "core/json.h"

#define PAGE      64
#define PAGES_MAX 16 /* looked at for people */
#define TRIES     4  /* to end one that others change meanwhile */

/* ---- rules ---- */

tm_session_rules tm__session_rules(const tm_session_rules *defaults, const tm_bundle *b) {
  tm_session_rules r = *defaults;
  tm_slice own = {0};
  if (b != NULL) own = tm__json_get(b->description, "session_config");
  if (own.ptr == NULL) return r;
  r.idle_ms = tm__json_get_int(own, "idle_ms", r.idle_ms);
  r.look_ms = tm__json_get_int(own, "look_ms", r.look_ms);
  r.most = tm__json_get_int(own, "most", r.most);
  r.tenant_most = tm__json_get_int(own, "tenant_most", r.tenant_most);
  tm_buf prefix = {0};
  if (tm__json_get_text(own, "prefix", &prefix) && tm__buf_ok(&prefix))
    (void)tm__copy(r.prefix, sizeof(r.prefix), tm__buf_view(&prefix));
  tm__buf_free(&prefix);
  return r;
}

int64_t tm__session_first_look(const tm_retention *keep, const tm_session_rules *rules,
                               int64_t now) {
  int64_t after = rules->idle_ms > 0 ? rules->idle_ms : keep->session_ms;
  if (after == 0) return 0;
  return now + (after > rules->look_ms ? after : rules->look_ms);
}

/* ---- its conversations ---- */

typedef struct look {
  tm_session_look *out;
  const tm_store_access *access;
  tm_error *err;
  bool in_memory, exactly;
  int64_t open_max;
  size_t count; /* heads of the page */
  char last[TM_ID_SIZE], newest[TM_ID_SIZE];
} look;

static tm_status note_time(look *l, const tm_head *h) {
  int64_t at = h->ended > 0 ? h->ended : h->created;
  if (h->ended == 0 && l->exactly) {
    tm_status status = tm__access_updated(l->access, l->in_memory, h, &at, l->err);
    if (status != TM_OK && status != TM_ENOTFOUND) return status;
  }
  if (at > l->out->last) l->out->last = at;
  return TM_OK;
}

static tm_status on_head(void *ud, const tm_head *h) {
  look *l = ud;
  l->count++;
  (void)tm__copy(l->last, sizeof(l->last), tm__slice(h->id));
  if (tm__head_is_damaged(h)) return TM_OK;
  if (strcmp(h->id, l->newest) > 0) {
    (void)tm__copy(l->newest, sizeof(l->newest), tm__slice(h->id));
    (void)tm__copy(l->out->system, sizeof(l->out->system), tm__slice(h->system));
  }
  l->out->open += h->ended == 0;
  tm_status status = note_time(l, h);
  if (status != TM_OK) return status;
  return l->out->open >= l->open_max ? TM_ECANCELLED : TM_OK;
}

static tm_status look_in(look *l, tm_slice tenant, tm_slice id) {
  tm_list_filter f = {.tenant = tenant, .session = id, .status = -1, .limit = PAGE};
  tm_status status = TM_OK;
  int pages = 0;
  do {
    l->count = 0;
    status = tm__access_list(l->access, l->in_memory, &f, on_head, l, l->err);
    memcpy(f.before, l->last, sizeof(f.before));
  } while (status == TM_OK && l->count == PAGE && (!l->exactly || ++pages < PAGES_MAX));
  return status == TM_ECANCELLED ? TM_OK : status;
}

tm_status tm__session_look(tm_session_look *out, const tm_store_access *a, tm_slice tenant,
                           tm_slice id, int64_t open_max, bool exactly, tm_error *err) {
  *out = (tm_session_look){0};
  look l = {.out = out, .access = a, .err = err, .exactly = exactly, .open_max = open_max};
  tm_status status = look_in(&l, tenant, id);
  l.in_memory = true;
  if (status == TM_OK && out->open < open_max) status = look_in(&l, tenant, id);
  return status;
}

/* ---- the record ---- */

static tm_status on_session(void *ud, const tm_session *s) {
  tm_kept_session *k = ud;
  k->s = *s;
  k->s.tenant = tm__slice(k->tenant);
  k->s.id = tm__slice(k->id);
  tm__buf_slice(&k->user_id, s->user_id);
  tm__buf_slice(&k->metadata, s->metadata);
  if (s->user_id.ptr != NULL) k->s.user_id = tm__buf_view(&k->user_id);
  if (s->metadata.ptr != NULL) k->s.metadata = tm__buf_view(&k->metadata);
  k->was = k->s;
  return tm__buf_ok(&k->user_id) && tm__buf_ok(&k->metadata) ? TM_OK : TM_ENOMEM;
}

tm_status tm__session_fetch(tm_kept_session *k, const tm_store_access *a, bool in_memory,
                            tm_error *err) {
  const tm_store_backend *b = in_memory ? a->memory_backend : a->backend;
  tm__buf_clear(&k->user_id);
  tm__buf_clear(&k->metadata);
  tm_status status = b->session(in_memory ? a->memory_conn : a->conn, tm__slice(k->tenant),
                                tm__slice(k->id), on_session, k, err);
  return status == TM_ENOMEM ? tm__fail_memory(err, "a session") : status;
}

void tm__session_release(tm_kept_session *k) {
  tm__buf_free(&k->user_id);
  tm__buf_free(&k->metadata);
}

tm_status tm__session_put(const tm_store_access *a, bool in_memory, tm_kept_session *k,
                          tm_error *err) {
  const tm_store_backend *b = in_memory ? a->memory_backend : a->backend;
  tm_status status = b->session_put(in_memory ? a->memory_conn : a->conn, &k->was, &k->s, err);
  if (status == TM_OK) k->was = k->s;
  return status;
}

/* A conversation that began meanwhile has opened the session before, or is seen now. */
tm_status tm__session_put_end(const tm_store_access *a, bool in_memory, tm_kept_session *k,
                              tm_error *err) {
  tm_session_look seen = {0};
  tm_status status = tm__session_put(a, in_memory, k, err);
  if (status == TM_OK) status = tm__session_look(&seen, a, k->s.tenant, k->s.id, 1, false, err);
  if (status != TM_OK || seen.open == 0) return status;
  k->s.ended = 0;
  status = tm__session_put(a, in_memory, k, err);
  return status == TM_OK ? TM_ECONFLICT : status;
}

static tm_status end_in(const tm_store_access *a, bool in_memory, const tm_retention *keep,
                        tm_kept_session *k, int64_t now, tm_error *err) {
  tm_status status = TM_ECONFLICT;
  for (int i = 0; status == TM_ECONFLICT && i < TRIES; i++) {
    status = tm__session_fetch(k, a, in_memory, err);
    if (status != TM_OK || k->s.ended > 0) return status;
    k->s.ended = now;
    k->s.look_at = keep->session_ms > 0 ? now + keep->session_ms : 0;
    status = tm__session_put_end(a, in_memory, k, err);
  }
  return status;
}

tm_status tm__session_end(const tm_store_access *a, const tm_retention *keep, tm_slice tenant,
                          tm_slice id, int64_t now, tm_error *err) {
  tm_session_look seen;
  int known = 0;
  tm_status status = tm__session_look(&seen, a, tenant, id, 1, false, err);
  if (status == TM_OK && seen.open > 0) return TM_ECONFLICT;
  for (int i = 0; status == TM_OK && i < 2; i++) {
    tm_kept_session k = {0};
    (void)tm__copy(k.tenant, sizeof(k.tenant), tenant);
    (void)tm__copy(k.id, sizeof(k.id), id);
    status = end_in(a, i == 1, keep, &k, now, err);
    known += status != TM_ENOTFOUND;
    if (status == TM_ENOTFOUND) status = TM_OK;
    tm__session_release(&k);
  }
  return status == TM_OK && known == 0 ? tm__session_not_found(id, err) : status;
}
