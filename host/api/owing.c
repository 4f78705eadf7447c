/* owing.c - how many answers are owed to whom. */
#include "api/owing.h"

#include <stdlib.h>

#define RETRY_MS 1000

void tm__owing_init(tm_owing *w, int connection_limit) {
  size_t places = (size_t)connection_limit;
  *w = (tm_owing){.most = places - (places + 7) / 8, .most_of_one = places - places / 2};
  if (w->most == 0) w->most = 1;
  (void)pthread_mutex_init(&w->lock, NULL);
  (void)pthread_cond_init(&w->settled, NULL);
}

void tm__owing_deinit(tm_owing *w) {
  tm__map_free(&w->tenants);
  (void)pthread_cond_destroy(&w->settled);
  (void)pthread_mutex_destroy(&w->lock);
}

/* ---- under the lock ---- */

static tm_status too_many(tm_error *err, const char *whose, size_t count) {
  (void)tm__fail(err, TM_EUNAVAILABLE, "server.busy",
                 "%zu requests %s wait for their answers, and more may not: try again later", count,
                 whose);
  err->retry_after_ms = RETRY_MS;
  return err->status;
}

static tm_owing_tenant *enter(tm_owing *w, tm_slice name) {
  tm_owing_tenant *t = calloc(1, sizeof(*t));
  if (t == NULL) return NULL;
  (void)tm__copy(t->tenant, sizeof(t->tenant), name);
  if (tm__map_set(&w->tenants, tm__slice(t->tenant), t)) return t;
  free(t);
  return NULL;
}

static tm_status add(tm_owing *w, const char *tenant, bool brief, tm_owing_tenant **out,
                     tm_error *err) {
  tm_slice name = tm__slice(tenant);
  if (w->stopping)
    return tm__fail(err, TM_EUNAVAILABLE, "host.stopping", "the host is stopping: try again later");
  if (w->count >= w->most) return too_many(err, "of all tenants", w->count);
  tm_owing_tenant *t = tm__map_get(&w->tenants, name);
  if (t == NULL) t = enter(w, name);
  if (t == NULL) return tm__fail_memory(err, "a request");
  if (!brief && t->count >= w->most_of_one) return too_many(err, "of this tenant", t->count);
  t->count++;
  w->count++;
  *out = t;
  return TM_OK;
}

/* ---- the doors ---- */

tm_status tm__owing_add(tm_owing *w, const char *tenant, bool brief, tm_owing_tenant **out,
                        tm_error *err) {
  (void)pthread_mutex_lock(&w->lock);
  tm_status status = add(w, tenant, brief, out, err);
  (void)pthread_mutex_unlock(&w->lock);
  return status;
}

void tm__owing_settle(tm_owing *w, tm_owing_tenant *to) {
  (void)pthread_mutex_lock(&w->lock);
  if (--to->count == 0) free(tm__map_remove(&w->tenants, tm__slice(to->tenant)));
  if (--w->count == 0) (void)pthread_cond_signal(&w->settled);
  (void)pthread_mutex_unlock(&w->lock);
}

void tm__owing_finish(tm_owing *w) {
  (void)pthread_mutex_lock(&w->lock);
  w->stopping = true;
  while (w->count > 0)
    (void)pthread_cond_wait(&w->settled, &w->lock);
  (void)pthread_mutex_unlock(&w->lock);
}
