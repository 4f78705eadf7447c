/* stores.c - which stores are open. A tenant's store is opened outside the lock by the first thread
 * that needs it, while others wait for that one only; those that nobody has used for longest are
 * closed when more than `open_limit` are open, and when connections or descriptors run out. A store
 * that nothing outlives is never closed. */
#include "storage/stores.h"

#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "core/map.h"

#define TRIES_MAX 16 /* stores closed in favour of one */

typedef enum place { PLACE_OPENING, PLACE_OPEN, PLACE_FAILED } place;

typedef struct tm_tenant_store {
  char tenant[65];
  place place;
  size_t users;    /* threads between enter and leave */
  tm_store *store; /* NULL until it is open */
  bool listed;     /* atomic: the store of all knows that there is one */
  bool idle;       /* in the list */
  struct tm_tenant_store *newer, *older;
  tm_store_conn *conns[]; /* by thread; each touched by its thread only while users > 0 */
} tm_tenant_store;

struct tm_stores {
  const tm_store_backend *backend;
  tm_store_options options;
  char *location, *password, *tables[4];
  bool isolated;
  size_t threads, open_limit;
  tm_store *common;
  tm_store_conn **conns; /* of the store of all, by thread */
  uv_mutex_t lock;
  uv_cond_t opened;
  bool made;
  tm_map tenants;                   /* of tm_tenant_store */
  tm_tenant_store *newest, *oldest; /* idle ones */
  size_t idle;
};

/* ---- idle ones; under the lock ---- */

static void list_remove(tm_stores *s, tm_tenant_store *t) {
  if (!t->idle) return;
  *(t->newer != NULL ? &t->newer->older : &s->newest) = t->older;
  *(t->older != NULL ? &t->older->newer : &s->oldest) = t->newer;
  t->newer = t->older = NULL;
  t->idle = false;
  s->idle--;
}

static void list_add(tm_stores *s, tm_tenant_store *t) {
  t->older = s->newest;
  *(s->newest != NULL ? &s->newest->newer : &s->oldest) = t;
  s->newest = t;
  t->idle = true;
  s->idle++;
}

/* ---- one tenant's store ---- */

static void tenant_free(const tm_stores *s, tm_tenant_store *t) {
  for (size_t i = 0; i < s->threads; i++) {
    s->backend->disconnect(t->conns[i]);
  }
  s->backend->close(t->store);
  free(t);
}

static tm_tenant_store *tenant_new(tm_stores *s, const char *tenant) {
  tm_tenant_store *t = calloc(1, sizeof(*t) + s->threads * sizeof(t->conns[0]));
  if (t == NULL) return NULL;
  if (!tm__copy(t->tenant, sizeof(t->tenant), tm__slice(tenant)) ||
      !tm__map_set(&s->tenants, tm__slice(t->tenant), t)) {
    free(t);
    return NULL;
  }
  return t;
}

/* Nobody finds a store that could not be opened; the last one who waited for it frees it. */
static void drop_failed(tm_tenant_store *t) {
  if (--t->users == 0) free(t);
}

static tm_status open_tenant(tm_stores *s, tm_tenant_store *t, tm_error *err) {
  tm_store_options o = s->options;
  o.tenant = t->tenant;
  o.on_health = NULL; /* the host is as ready as the store of all */
  o.on_word = NULL;   /* there they are told */
  uv_mutex_unlock(&s->lock);
  tm_status status = s->backend->open(&t->store, &o, err);
  uv_mutex_lock(&s->lock);
  t->place = status == TM_OK ? PLACE_OPEN : PLACE_FAILED;
  if (status != TM_OK) (void)tm__map_remove(&s->tenants, tm__slice(t->tenant));
  uv_cond_broadcast(&s->opened);
  return status;
}

/* The tenant's store with one more user, once it is open; NULL: the thread that opened it failed.
 */
static tm_tenant_store *join_tenant(tm_stores *s, tm_tenant_store *t) {
  t->users++;
  list_remove(s, t);
  while (t->place == PLACE_OPENING) {
    uv_cond_wait(&s->opened, &s->lock);
  }
  if (t->place == PLACE_OPEN) return t;
  drop_failed(t);
  return NULL;
}

/* Under the lock; with TM_OK the store is open and has one more user. */
static tm_status use_tenant(tm_stores *s, const char *tenant, tm_tenant_store **out,
                            tm_error *err) {
  tm_tenant_store *t;
  *out = NULL;
  while ((t = tm__map_get(&s->tenants, tm__slice(tenant))) != NULL) {
    *out = join_tenant(s, t);
    if (*out != NULL) return TM_OK;
  }
  t = tenant_new(s, tenant);
  if (t == NULL) return tm__fail_memory(err, "the store of a tenant");
  t->users++;
  tm_status status = open_tenant(s, t, err);
  if (status == TM_OK) {
    *out = t;
  } else {
    drop_failed(t);
  }
  return status;
}

/* Takes the one that was idle for longest, if more than `keep` are; NULL: they are not. */
static tm_tenant_store *take_idle(tm_stores *s, size_t keep) {
  tm_tenant_store *t = s->oldest;
  if (t == NULL || s->idle <= keep || !s->backend->durable) return NULL;
  list_remove(s, t);
  (void)tm__map_remove(&s->tenants, tm__slice(t->tenant));
  return t;
}

/* ---- the doors ---- */

tm_status tm__stores_common(tm_stores *s, size_t thread, tm_store_role role, tm_store_conn **out,
                            tm_error *err) {
  tm_status status = TM_OK;
  if (s->conns[thread] == NULL) {
    status = s->backend->connect(&s->conns[thread], s->common, role, err);
  }
  *out = s->conns[thread];
  return status;
}

typedef struct search {
  tm_slice name;
  bool found;
} search;

static tm_status on_listed(void *ud, tm_slice tenant, int64_t wake_at) {
  search *f = ud;
  (void)wake_at;
  f->found = tm__slice_eq(tenant, f->name);
  return TM_ECANCELLED;
}

/* Asks the list for the first name above the greatest one that is below this: names are made of
 * letters, digits and _.-, of which 'z' is the greatest. */
static tm_status is_listed(tm_stores *s, size_t thread, const char *tenant, bool *out,
                           tm_error *err) {
  search f = {.name = tm__slice(tenant)};
  char below[65];
  memset(below, 'z', sizeof(below) - 1);
  memcpy(below, f.name.ptr, f.name.len);
  below[f.name.len - 1]--;
  tm_status status = s->backend->tenants(s->conns[thread], (tm_slice){below, sizeof(below) - 1}, 1,
                                         on_listed, &f, err);
  *out = f.found;
  return status == TM_ECANCELLED ? TM_OK : status;
}

static bool is_open(tm_stores *s, const char *tenant) {
  uv_mutex_lock(&s->lock);
  bool open = tm__map_get(&s->tenants, tm__slice(tenant)) != NULL;
  uv_mutex_unlock(&s->lock);
  return open;
}

tm_status tm__stores_enlist(tm_stores *s, size_t thread, const tm_stores_use *use, tm_error *err) {
  tm_tenant_store *t = use->tenant;
  if (t == NULL || __atomic_load_n(&t->listed, __ATOMIC_RELAXED)) return TM_OK;
  tm_status status = s->backend->tenant_wake(s->conns[thread], tm__slice(t->tenant), 0, 0, err);
  if (status == TM_ECONFLICT) status = TM_OK; /* it is listed, with a deadline */
  if (status == TM_OK) __atomic_store_n(&t->listed, true, __ATOMIC_RELAXED);
  return status;
}

/* With an error nothing is entered. */
static tm_status enter_tenant(tm_stores *s, size_t thread, tm_store_role role, const char *tenant,
                              tm_stores_use *out, tm_error *err) {
  uv_mutex_lock(&s->lock);
  tm_status status = use_tenant(s, tenant, &out->tenant, err);
  uv_mutex_unlock(&s->lock);
  tm_tenant_store *t = out->tenant;
  if (status != TM_OK || t == NULL) return status;
  if (t->conns[thread] == NULL) {
    status = s->backend->connect(&t->conns[thread], t->store, role, err);
  }
  out->conn = t->conns[thread];
  if (status != TM_OK) tm__stores_leave(s, out);
  return status;
}

/* The server takes no more connections, or the process has no more descriptors. */
static bool is_crowded(const tm_error *err) {
  return strcmp(err->code, "store.connections") == 0 || strcmp(err->code, "store.descriptors") == 0;
}

/* What is open while nobody uses it gives way; false: there is none. */
static bool make_room(tm_stores *s) {
  uv_mutex_lock(&s->lock);
  tm_tenant_store *t = take_idle(s, 0);
  uv_mutex_unlock(&s->lock);
  if (t != NULL) tenant_free(s, t);
  return t != NULL;
}

tm_status tm__stores_enter(tm_stores *s, size_t thread, tm_store_role role, const char *tenant,
                           tm_stores_use *out, tm_error *err) {
  *out = (tm_stores_use){0};
  tm_status status = tm__stores_common(s, thread, role, &out->conn, err);
  if (status != TM_OK || !s->isolated || tenant[0] == '\0') return status;
  if (role == TM_STORE_READER && !is_open(s, tenant)) {
    bool listed = false;
    status = is_listed(s, thread, tenant, &listed, err);
    if (status != TM_OK || !listed) return status;
  }
  for (int tries = 0; tries < TRIES_MAX; tries++) {
    status = enter_tenant(s, thread, role, tenant, out, err);
    if (status == TM_OK || !is_crowded(err) || !make_room(s)) return status;
  }
  return status;
}

void tm__stores_leave(tm_stores *s, tm_stores_use *use) {
  tm_tenant_store *t = use->tenant;
  *use = (tm_stores_use){0};
  if (t == NULL) return;
  uv_mutex_lock(&s->lock);
  if (--t->users == 0) list_add(s, t);
  tm_tenant_store *surplus = take_idle(s, s->open_limit);
  uv_mutex_unlock(&s->lock);
  if (surplus != NULL) tenant_free(s, surplus);
}

void tm__stores_tell(tm_stores *s, const char *word) {
  if (s->backend->tell != NULL) s->backend->tell(s->common, word);
}

void tm__stores_interrupt(tm_stores *s) {
  tm_slice key;
  void *value;
  if (s->backend->interrupt == NULL) return;
  s->backend->interrupt(s->common);
  uv_mutex_lock(&s->lock);
  for (size_t at = 0; tm__map_next(&s->tenants, &at, &key, &value);) {
    tm_tenant_store *t = value;
    if (t->place == PLACE_OPEN) s->backend->interrupt(t->store);
  }
  uv_mutex_unlock(&s->lock);
}

/* ---- opening and closing ---- */

static bool copy_text(char **kept, const char **text) {
  if (*text == NULL) return true;
  *kept = tm__slice_dup(tm__slice(*text));
  *text = *kept;
  return *kept != NULL;
}

static tm_status copy_options(tm_stores *s, const tm_store_options *o, tm_error *err) {
  s->options = *o;
  s->options.tenant = NULL;
  bool ok = copy_text(&s->location, &s->options.location) &&
            copy_text(&s->password, &s->options.password);
  for (size_t i = 0; ok && i < 4; i++) {
    ok = copy_text(&s->tables[i], &s->options.tables[i]);
  }
  return ok ? TM_OK : tm__fail_memory(err, "the store's settings");
}

static tm_status make_lock(tm_stores *s, tm_error *err) {
  int failed = uv_mutex_init(&s->lock);
  if (failed == 0) {
    failed = uv_cond_init(&s->opened);
    if (failed != 0) uv_mutex_destroy(&s->lock);
  }
  s->made = failed == 0;
  if (failed == 0) return TM_OK;
  return tm__fail(err, TM_EUNAVAILABLE, "store.start", "start the store's lock: %s",
                  uv_strerror(failed));
}

tm_status tm__stores_open(tm_stores **out, const tm_stores_options *o, tm_error *err) {
  *out = NULL;
  tm_stores *s = calloc(1, sizeof(*s));
  if (s == NULL) return tm__fail_memory(err, "the stores");
  s->backend = o->backend;
  s->isolated = o->isolated;
  s->open_limit = o->open_limit;
  s->threads = o->threads;
  s->conns = calloc(o->threads, sizeof(s->conns[0]));
  tm_status status = s->conns == NULL ? tm__fail_memory(err, "the stores") : make_lock(s, err);
  if (status == TM_OK) status = copy_options(s, o->store, err);
  if (status == TM_OK) status = s->backend->open(&s->common, &s->options, err);
  if (status == TM_OK) {
    *out = s;
  } else {
    tm__stores_close(s);
  }
  return status;
}

static void close_tenants(tm_stores *s) {
  tm_slice key;
  void *value;
  for (size_t at = 0; tm__map_next(&s->tenants, &at, &key, &value);) {
    tenant_free(s, value);
  }
  tm__map_free(&s->tenants);
}

void tm__stores_close(tm_stores *s) {
  if (s == NULL) return;
  close_tenants(s);
  for (size_t i = 0; s->conns != NULL && i < s->threads; i++) {
    s->backend->disconnect(s->conns[i]);
  }
  s->backend->close(s->common);
  if (s->made) {
    uv_cond_destroy(&s->opened);
    uv_mutex_destroy(&s->lock);
  }
  free(s->conns);
  free(s->location);
  free(s->password);
  for (size_t i = 0; i < 4; i++) {
    free(s->tables[i]);
  }
  free(s);
}

/* ---- how they lie ---- */

static tm_status see_head(void *ud, const tm_head *head) {
  (void)head;
  *(bool *)ud = true;
  return TM_OK;
}

static tm_status see_tenant(void *ud, tm_slice tenant, int64_t wake_at) {
  (void)tenant, (void)wake_at;
  *(bool *)ud = true;
  return TM_OK;
}

tm_status tm__stores_check_isolation(tm_stores *s, tm_error *err) {
  tm_store_conn *c;
  bool other = false;
  const tm_list_filter any = {.status = -1, .limit = 1};
  tm_status status = tm__stores_common(s, 0, TM_STORE_WRITER, &c, err);
  if (status != TM_OK) return status;
  status = s->isolated ? s->backend->list(c, &any, see_head, &other, err)
                       : s->backend->tenants(c, TM_S(""), 1, see_tenant, &other, err);
  if (status != TM_OK || !other) return status;
  return tm__fail(err, TM_EINVAL, "store.isolation",
                  s->isolated
                      ? "tenants.isolation is true, but the conversations of this store lie "
                        "together: set it to false, or choose another store"
                      : "tenants.isolation is false, but the tenants of this store have stores of "
                        "their own: set it to true, or choose another store");
}
