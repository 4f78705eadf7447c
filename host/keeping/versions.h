/* versions.h - the sources of versions in the store: kept while a conversation may need them, gone
 * afterwards.
 *
 * The store knows when each version was in use last. A host says so of those that it would begin
 * conversations in, and whoever looks says it of those that conversations run on: so nobody has to
 * look at all conversations often, and what no host and no conversation has used for a day goes. A
 * conversation counts while its head is there, also when it is over: it can be rolled back.
 */
#ifndef TM_KEEPING_VERSIONS_H
#define TM_KEEPING_VERSIONS_H

#include "journal/bundle.h"
#include "storage/access.h"

#define TM_VERSION_EVERY_MS (INT64_C(6) * 60 * 60 * 1000) /* from one pass to the next */
#define TM_VERSION_GONE_MS  (INT64_C(24) * 60 * 60 * 1000)

/* In a store job on a writer: the sources of those that the store does not have. */
tm_status tm__versions_put(const tm_store_access *a, tm_bundle *const *bundles, size_t count,
                           tm_error *err);
/* Likewise: they are in use now, where the store last heard of it a while ago. */
tm_status tm__versions_use(const tm_store_access *a, tm_bundle *const *bundles, size_t count,
                           int64_t now, tm_error *err);

/* ---- one pass, in pieces as tm_purge ---- */
typedef enum tm_versions_stage {
  TM_VERSIONS_KEEP, /* what this host would begin conversations in */
  TM_VERSIONS_LIST, /* what nobody has used for long */
  TM_VERSIONS_WALK, /* does a conversation use it? */
  TM_VERSIONS_TENANT,
  TM_VERSIONS_USE,
  TM_VERSIONS_DROP,
  TM_VERSIONS_DONE,
} tm_versions_stage;

typedef struct tm_kept_version {
  char system[65], version[33];
  int64_t used;
  bool in_use;
} tm_kept_version;

typedef struct tm_versions { /* zero-initialise with the first members */
  tm_registry *registry;
  int64_t now;
  bool dry;      /* only counts */
  bool isolated; /* as of tm_purge */
  int64_t dropped;
  /* internal */
  tm_versions_stage stage;
  tm_kept_version *items; /* owned: those that may go */
  size_t count, at, unused;
  char tenant[65]; /* whose store is looked at; "": the store of all */
  bool in_memory;  /* the store in memory is */
  char before[TM_ID_SIZE], newest[TM_ID_SIZE];
  char until[TM_ID_SIZE]; /* "": the first look; else a second one at what came since */
  size_t seen;
  bool caught_up;
} tm_versions;
bool tm__versions_writes(const tm_versions *v);        /* the next piece is for the writer */
const char *tm__versions_tenant(const tm_versions *v); /* and for the store of this tenant, or "" */
tm_status tm__versions_piece(tm_versions *v, const tm_store_access *a, tm_error *err);
/* Also when it is not done: nothing more of it happens. */
void tm__versions_end(tm_versions *v);

#endif
