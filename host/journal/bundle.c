/* bundle.c - versions of systems and who knows them: two tables under one lock. */
#include "journal/bundle.h"

#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "core/json.h"
#include "core/map.h"

struct tm_registry {
  uv_mutex_t lock;
  tm_map current;  /* system -> bundle, borrowed from `versions` */
  tm_map versions; /* "system\nversion" -> bundle, one reference each */
};

/* ---- one bundle ---- */

static tm_quotas quotas_of(tm_slice description) {
  tm_slice rules = tm__json_get(description, "session_config");
  return (tm_quotas){.session_steps = tm__json_get_int(rules, "steps_most", -1),
                     .turns_per_minute = tm__json_get_int(rules, "rate_most", -1)};
}

static bool take_tenant(tm_bundle *b, tm_slice description) {
  tm_buf tenant = {0};
  bool there = tm__json_get_text(description, "tenant_id", &tenant);
  bool good = tm__buf_ok(&tenant);
  if (there && good) good = tm__copy(b->tenant, sizeof(b->tenant), tm__buf_view(&tenant));
  tm__buf_free(&tenant);
  return good;
}

/* The texts follow the struct in one block of memory. */
tm_bundle *tm__bundle_new(tm_slice system, tm_slice version, tm_slice sources,
                          tm_slice description) {
  tm_bundle *b = malloc(sizeof(*b) + sources.len + description.len);
  if (b == NULL) return NULL;
  *b = (tm_bundle){.quotas = quotas_of(description), .refs = 1};
  if (!tm__copy(b->system, sizeof(b->system), system) ||
      !tm__copy(b->version, sizeof(b->version), version) || !take_tenant(b, description)) {
    free(b);
    return NULL;
  }
  char *text = (char *)(b + 1);
  if (sources.len > 0) memcpy(text, sources.ptr, sources.len);
  b->sources = (tm_slice){text, sources.len};
  if (description.ptr == NULL) return b;
  if (description.len > 0) memcpy(text + sources.len, description.ptr, description.len);
  b->description = (tm_slice){text + sources.len, description.len};
  return b;
}

tm_bundle *tm__bundle_ref(tm_bundle *b) {
  (void)__atomic_add_fetch(&b->refs, 1, __ATOMIC_RELAXED);
  return b;
}

void tm__bundle_unref(tm_bundle *b) {
  if (b != NULL && __atomic_sub_fetch(&b->refs, 1, __ATOMIC_ACQ_REL) == 0) free(b);
}

/* ---- the registry ---- */

tm_registry *tm__registry_new(void) {
  tm_registry *r = calloc(1, sizeof(*r));
  if (r == NULL) return NULL;
  if (uv_mutex_init(&r->lock) == 0) return r;
  free(r);
  return NULL;
}

void tm__registry_free(tm_registry *r) {
  if (r == NULL) return;
  size_t at = 0;
  tm_slice key;
  void *bundle;
  while (tm__map_next(&r->versions, &at, &key, &bundle)) {
    tm__bundle_unref(bundle);
  }
  tm__map_free(&r->versions);
  tm__map_free(&r->current);
  uv_mutex_destroy(&r->lock);
  free(r);
}

typedef struct version_key {
  char text[128];
  size_t len;
} version_key;

static tm_slice key_of(version_key *k, tm_slice system, tm_slice version) {
  k->len = system.len + 1 + version.len;
  if (k->len > sizeof(k->text)) return (tm_slice){0};
  if (system.len > 0) memcpy(k->text, system.ptr, system.len);
  k->text[system.len] = '\n';
  if (version.len > 0) memcpy(k->text + system.len + 1, version.ptr, version.len);
  return (tm_slice){k->text, k->len};
}

/* Under the lock. The bundle that is kept: a described one takes the place of one that was read
 * from the store. NULL: out of memory. */
static tm_bundle *remember(tm_registry *r, tm_bundle *b) {
  version_key k;
  tm_slice key = key_of(&k, tm__slice(b->system), tm__slice(b->version));
  tm_bundle *known = tm__map_get(&r->versions, key);
  if (known != NULL && b->description.ptr == NULL) return known;
  if (!tm__map_set(&r->versions, key, b)) return NULL;
  (void)tm__bundle_ref(b);
  if (known == NULL) return b;
  tm_slice system = tm__slice(known->system);
  if (tm__map_get(&r->current, system) == known) (void)tm__map_set(&r->current, system, b);
  tm__bundle_unref(known);
  return b;
}

static bool set_current(tm_registry *r, tm_bundle **bundles, size_t count) {
  tm_map current = {0};
  for (size_t i = 0; i < count; i++) {
    tm_bundle *kept = remember(r, bundles[i]);
    if (kept == NULL || !tm__map_set(&current, tm__slice(kept->system), kept)) {
      tm__map_free(&current);
      return false;
    }
  }
  tm__map_free(&r->current);
  r->current = current;
  return true;
}

tm_status tm__registry_switch(tm_registry *r, tm_bundle **bundles, size_t count, tm_error *err) {
  uv_mutex_lock(&r->lock);
  bool ok = set_current(r, bundles, count);
  uv_mutex_unlock(&r->lock);
  for (size_t i = 0; i < count; i++) {
    tm__bundle_unref(bundles[i]);
  }
  return ok ? TM_OK : tm__fail_memory(err, "the table of systems");
}

tm_bundle *tm__registry_add(tm_registry *r, tm_bundle *b, tm_error *err) {
  uv_mutex_lock(&r->lock);
  tm_bundle *kept = remember(r, b);
  if (kept != NULL && kept != b) (void)tm__bundle_ref(kept);
  uv_mutex_unlock(&r->lock);
  if (kept != b) tm__bundle_unref(b);
  if (kept == NULL) (void)tm__fail_memory(err, "the table of versions");
  return kept;
}

tm_bundle *tm__registry_current(tm_registry *r, tm_slice system) {
  uv_mutex_lock(&r->lock);
  tm_bundle *b = tm__map_get(&r->current, system);
  if (b != NULL) (void)tm__bundle_ref(b);
  uv_mutex_unlock(&r->lock);
  return b;
}

static bool is_for(const tm_bundle *b, tm_slice tenant) {
  return b->tenant[0] == '\0' || tm__slice_is(tenant, b->tenant);
}

tm_bundle *tm__registry_offered(tm_registry *r, tm_slice system, tm_slice tenant) {
  tm_bundle *b = tm__registry_current(r, system);
  if (b == NULL || is_for(b, tenant)) return b;
  tm__bundle_unref(b);
  return NULL;
}

tm_bundle *tm__registry_find(tm_registry *r, tm_slice system, tm_slice version) {
  version_key k;
  tm_slice key = key_of(&k, system, version);
  if (key.ptr == NULL) return NULL;
  uv_mutex_lock(&r->lock);
  tm_bundle *b = tm__map_get(&r->versions, key);
  if (b != NULL) (void)tm__bundle_ref(b);
  uv_mutex_unlock(&r->lock);
  return b;
}

void tm__registry_tidy(tm_registry *r) {
  size_t at = 0;
  tm_slice key;
  void *value;
  uv_mutex_lock(&r->lock);
  while (tm__map_next(&r->versions, &at, &key, &value)) {
    tm_bundle *b = value; /* a further reference can only be had under the lock */
    if (tm__map_get(&r->current, tm__slice(b->system)) == b) continue;
    if (__atomic_load_n(&b->refs, __ATOMIC_ACQUIRE) > 1) continue;
    (void)tm__map_remove(&r->versions, key);
    tm__bundle_unref(b);
  }
  uv_mutex_unlock(&r->lock);
}

static int by_name(const void *a, const void *b) {
  const tm_bundle *const *x = a;
  const tm_bundle *const *y = b;
  return strcmp((*x)->system, (*y)->system);
}

bool tm__registry_all(tm_registry *r, tm_bundle ***out, size_t *count) {
  size_t n = 0, at = 0;
  tm_slice key;
  void *bundle;
  uv_mutex_lock(&r->lock);
  tm_bundle **all = *out = calloc(r->current.count + 1, sizeof(tm_bundle *));
  while (all != NULL && tm__map_next(&r->current, &at, &key, &bundle))
    all[n++] = tm__bundle_ref(bundle);
  uv_mutex_unlock(&r->lock);
  *count = n;
  if (all != NULL) qsort(all, n, sizeof(tm_bundle *), by_name);
  return all != NULL;
}

void tm__registry_describe(tm_registry *r, tm_slice tenant, tm_buf *out) {
  tm_bundle **all;
  size_t n;
  if (!tm__registry_all(r, &all, &n)) out->failed = true;
  tm__buf_text(out, "{\"items\":[");
  for (size_t i = 0; i < n; i++) {
    if (is_for(all[i], tenant)) {
      tm__json_comma(out);
      tm__buf_slice(out, all[i]->description);
    }
    tm__bundle_unref(all[i]);
  }
  tm__buf_text(out, "]}");
  free(all);
}
