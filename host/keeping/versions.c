/* versions.c - which versions of systems are in use: a list of those that nobody has used for long,
 * then a walk over the heads of all conversations until each of them was met or there are no more.
 */
#include "keeping/versions.h"

#include <stdlib.h>
#include <string.h>

#define FRESH_MS (TM_VERSION_GONE_MS / 4) /* the store heard of a use recently enough */
#define OLD_MS   (TM_VERSION_GONE_MS / 2) /* conversations are asked */
#define PAGE     256                      /* heads of one piece */
#define BATCH    16                       /* writes of one piece */

/* ---- what a host has loaded ---- */

typedef struct known {
  tm_bundle *const *bundles;
  size_t count;
  int64_t *used; /* of each; -1: the store does not have it */
} known;

static tm_status on_known(void *ud, tm_slice system, tm_slice version, int64_t used) {
  const known *k = ud;
  for (size_t i = 0; i < k->count; i++) {
    const tm_bundle *b = k->bundles[i];
    if (tm__slice_is(system, b->system) && tm__slice_is(version, b->version)) k->used[i] = used;
  }
  return TM_OK;
}

static tm_status ask_known(known *k, const tm_store_access *a, tm_error *err) {
  k->used = malloc((k->count + 1) * sizeof(*k->used));
  if (k->used == NULL) return tm__fail_memory(err, "versions");
  for (size_t i = 0; i < k->count; i++)
    k->used[i] = -1;
  return a->backend->scripts(a->common, on_known, k, err);
}

static tm_status put(const tm_store_access *a, const tm_bundle *b, tm_error *err) {
  return a->backend->script_put(a->common, tm__slice(b->system), tm__slice(b->version), b->sources,
                                err);
}

tm_status tm__versions_put(const tm_store_access *a, tm_bundle *const *bundles, size_t count,
                           tm_error *err) {
  known k = {.bundles = bundles, .count = count};
  tm_status status = ask_known(&k, a, err);
  for (size_t i = 0; status == TM_OK && i < count; i++)
    if (k.used[i] < 0) status = put(a, bundles[i], err);
  free(k.used);
  return status;
}

tm_status tm__versions_use(const tm_store_access *a, tm_bundle *const *bundles, size_t count,
                           int64_t now, tm_error *err) {
  known k = {.bundles = bundles, .count = count};
  tm_status status = ask_known(&k, a, err);
  for (size_t i = 0; status == TM_OK && i < count; i++) {
    if (k.used[i] + FRESH_MS > now) continue;
    status = a->backend->script_use(a->common, tm__slice(bundles[i]->system),
                                    tm__slice(bundles[i]->version), err);
    if (status == TM_ENOTFOUND) status = put(a, bundles[i], err);
  }
  free(k.used);
  return status;
}

static tm_status keep_loaded(tm_versions *v, const tm_store_access *a, tm_error *err) {
  tm_bundle **all;
  size_t count;
  if (!tm__registry_all(v->registry, &all, &count)) return tm__fail_memory(err, "versions");
  tm_status status = tm__versions_use(a, all, count, v->now, err);
  for (size_t i = 0; i < count; i++)
    tm__bundle_unref(all[i]);
  free(all);
  v->stage = TM_VERSIONS_LIST;
  return status;
}

/* ---- what may go ---- */

static bool is_loaded(const tm_versions *v, tm_slice system, tm_slice version) {
  tm_bundle *b = tm__registry_current(v->registry, system);
  bool same = b != NULL && tm__slice_is(version, b->version);
  tm__bundle_unref(b);
  return same;
}

static tm_status on_version(void *ud, tm_slice system, tm_slice version, int64_t used) {
  tm_versions *v = ud;
  if (used + OLD_MS > v->now || is_loaded(v, system, version)) return TM_OK;
  tm_kept_version *grown = realloc(v->items, (v->count + 1) * sizeof(*grown));
  if (grown == NULL) return TM_ENOMEM;
  v->items = grown;
  tm_kept_version *one = &grown[v->count];
  *one = (tm_kept_version){.used = used};
  bool fits = tm__copy(one->system, sizeof(one->system), system) &&
              tm__copy(one->version, sizeof(one->version), version);
  v->count += fits;
  return TM_OK;
}

static tm_status list_old(tm_versions *v, const tm_store_access *a, tm_error *err) {
  tm_status status = a->backend->scripts(a->common, on_version, v, err);
  if (status == TM_ENOMEM) (void)tm__fail_memory(err, "versions");
  v->unused = v->count;
  v->stage = v->count > 0 ? TM_VERSIONS_WALK : TM_VERSIONS_DONE;
  return status;
}

/* ---- the walk ---- */

static void begin_store(tm_versions *v) {
  v->before[0] = v->newest[0] = v->until[0] = '\0';
}

static void next_store(tm_versions *v) {
  bool common = v->tenant[0] == '\0' && !v->in_memory;
  begin_store(v);
  v->in_memory = common;
  if (!common) v->stage = v->isolated ? TM_VERSIONS_TENANT : TM_VERSIONS_USE;
}

static tm_status on_head(void *ud, const tm_head *h) {
  tm_versions *v = ud;
  v->seen++;
  if (v->until[0] != '\0' && strcmp(h->id, v->until) <= 0) v->caught_up = true;
  if (v->caught_up) return TM_OK;
  if (v->newest[0] == '\0') memcpy(v->newest, h->id, sizeof(h->id));
  memcpy(v->before, h->id, sizeof(h->id));
  for (size_t i = 0; i < v->count; i++) {
    tm_kept_version *one = &v->items[i];
    if (one->in_use || strcmp(one->version, h->version) != 0) continue;
    one->in_use = strcmp(one->system, h->system) == 0;
    v->unused -= one->in_use;
  }
  return TM_OK;
}

/* What is begun or forked during the first look lies behind it: that is what the second is for. */
static tm_status walk(tm_versions *v, const tm_store_access *a, tm_error *err) {
  tm_list_filter f = {.status = -1, .limit = PAGE};
  memcpy(f.before, v->before, sizeof(f.before));
  v->seen = 0;
  v->caught_up = false;
  tm_status status = tm__access_list(a, v->in_memory, &f, on_head, v, err);
  if (status != TM_OK) return status;
  if (v->unused == 0) {
    v->stage = TM_VERSIONS_USE;
  } else if (v->seen == PAGE && !v->caught_up) {
    return TM_OK;
  } else if (v->until[0] == '\0' && v->newest[0] != '\0') {
    memcpy(v->until, v->newest, sizeof(v->until));
    v->before[0] = v->newest[0] = '\0';
  } else {
    next_store(v);
  }
  return TM_OK;
}

static tm_status on_tenant(void *ud, tm_slice tenant, int64_t wake_at) {
  tm_versions *v = ud;
  (void)wake_at;
  v->stage = TM_VERSIONS_WALK;
  v->in_memory = false;
  begin_store(v);
  return tm__copy(v->tenant, sizeof(v->tenant), tenant) ? TM_OK : TM_EINVAL;
}

static tm_status next_tenant(tm_versions *v, const tm_store_access *a, tm_error *err) {
  char after[65];
  memcpy(after, v->tenant, sizeof(after));
  v->stage = TM_VERSIONS_USE;
  return a->backend->tenants(a->common, tm__slice(after), 1, on_tenant, v, err);
}

/* ---- what comes of it ---- */

static bool may_go(const tm_versions *v, const tm_kept_version *one) {
  return !one->in_use && one->used + TM_VERSION_GONE_MS <= v->now;
}

/* A version that went although somebody has it comes back. */
static tm_status use_one(tm_versions *v, const tm_store_access *a, const tm_kept_version *one,
                         tm_error *err) {
  tm_slice system = tm__slice(one->system), version = tm__slice(one->version);
  if (!one->in_use) return TM_OK;
  tm_status status = a->backend->script_use(a->common, system, version, err);
  if (status != TM_ENOTFOUND) return status;
  tm_bundle *b = tm__registry_find(v->registry, system, version);
  status = b != NULL ? put(a, b, err) : TM_OK;
  tm__bundle_unref(b);
  return status;
}

static tm_status drop_one(tm_versions *v, const tm_store_access *a, const tm_kept_version *one,
                          tm_error *err) {
  if (!may_go(v, one)) return TM_OK;
  tm_status status = a->backend->script_drop(a->common, tm__slice(one->system),
                                             tm__slice(one->version), one->used, err);
  v->dropped += status == TM_OK;
  return status == TM_ECONFLICT || status == TM_ENOTFOUND ? TM_OK : status;
}

static tm_status each(tm_versions *v, const tm_store_access *a,
                      tm_status (*fn)(tm_versions *v, const tm_store_access *a,
                                      const tm_kept_version *one, tm_error *err),
                      tm_error *err) {
  tm_status status = TM_OK;
  for (size_t n = 0; status == TM_OK && n < BATCH && v->at < v->count; n++)
    status = fn(v, a, &v->items[v->at++], err);
  if (v->at < v->count) return status;
  v->at = 0;
  v->stage++;
  return status;
}

static void count_only(tm_versions *v) {
  for (size_t i = 0; i < v->count; i++)
    v->dropped += may_go(v, &v->items[i]);
  v->stage = TM_VERSIONS_DONE;
}

/* ---- pieces ---- */

bool tm__versions_writes(const tm_versions *v) {
  if (v->dry) return false;
  return v->stage == TM_VERSIONS_KEEP || v->stage == TM_VERSIONS_USE ||
         v->stage == TM_VERSIONS_DROP;
}

const char *tm__versions_tenant(const tm_versions *v) {
  return v->stage == TM_VERSIONS_WALK ? v->tenant : "";
}

void tm__versions_end(tm_versions *v) {
  free(v->items);
  v->items = NULL;
  v->count = 0;
  v->stage = TM_VERSIONS_DONE;
}

tm_status tm__versions_piece(tm_versions *v, const tm_store_access *a, tm_error *err) {
  if (v->dry && v->stage == TM_VERSIONS_KEEP) v->stage = TM_VERSIONS_LIST;
  switch (v->stage) {
  case TM_VERSIONS_KEEP: return keep_loaded(v, a, err);
  case TM_VERSIONS_LIST: return list_old(v, a, err);
  case TM_VERSIONS_WALK: return walk(v, a, err);
  case TM_VERSIONS_TENANT: return next_tenant(v, a, err);
  case TM_VERSIONS_USE:
    if (!v->dry) return each(v, a, use_one, err);
    count_only(v);
    break;
  case TM_VERSIONS_DROP: return each(v, a, drop_one, err);
  case TM_VERSIONS_DONE: break;
  }
  return TM_OK;
}
