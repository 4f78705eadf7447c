/* bundle.h - the loaded versions of systems, as text: what a conversation's version means.
 *
 * A bundle holds the exact sources of one version of one system. The registry knows the current
 * bundle of each system and those older ones that running conversations asked for. No Lua here.
 */
#ifndef TM_JOURNAL_BUNDLE_H
#define TM_JOURNAL_BUNDLE_H

#include "core/buf.h"
#include "core/err.h"

typedef struct tm_quotas {  /* of a system, or of all; 0: no limit */
  int64_t session_steps;    /* that all conversations of a session may have had */
  int64_t turns_per_minute; /* of a tenant */
} tm_quotas;

typedef struct tm_bundle { /* immutable, counted */
  char system[65], version[33];
  char tenant[65];      /* whose it is alone, as the description says; "": everybody's */
  tm_slice sources;     /* {"files":{"init.lua":"...","agents.lua":"..."},"root":"scripts/x"} */
  tm_slice description; /* what /v1/systems answers about it, JSON; {NULL,0} for old versions */
  tm_quotas quotas;     /* what the description says; -1: nothing */
  int refs;             /* internal, atomic */
} tm_bundle;

/* Copies; one reference belongs to the caller; NULL when out of memory. */
tm_bundle *tm__bundle_new(tm_slice system, tm_slice version, tm_slice sources,
                          tm_slice description);
tm_bundle *tm__bundle_ref(tm_bundle *b);
void tm__bundle_unref(tm_bundle *b); /* NULL is allowed */

typedef struct tm_registry tm_registry; /* any thread may call; locked inside */
tm_registry *tm__registry_new(void);    /* NULL: out of memory */
void tm__registry_free(tm_registry *r);

/* Makes `bundles` the current versions (all systems at once) and keeps the old ones findable.
 * Takes over the caller's references. */
tm_status tm__registry_switch(tm_registry *r, tm_bundle **bundles, size_t count, tm_error *err);
/* Remembers an old version that was read from the store; takes over the reference, gives one to
 * what is known of that version. NULL: out of memory. */
tm_bundle *tm__registry_add(tm_registry *r, tm_bundle *b, tm_error *err);
/* A new reference, or NULL; for the host's own ends. */
tm_bundle *tm__registry_current(tm_registry *r, tm_slice system);
tm_bundle *tm__registry_find(tm_registry *r, tm_slice system, tm_slice version);
/* The current version as a tenant has it: NULL, too, when the system is another's alone. */
tm_bundle *tm__registry_offered(tm_registry *r, tm_slice system, tm_slice tenant);
/* Forgets the versions that are not current and that nobody else has a reference to. */
void tm__registry_tidy(tm_registry *r);
/* A reference to each current version, by name, into *out, which the caller frees. False: out of
 * memory, and *out is empty. */
bool tm__registry_all(tm_registry *r, tm_bundle ***out, size_t *count);
/* {"items":[description,...]} of the current versions that a tenant has, by name. */
void tm__registry_describe(tm_registry *r, tm_slice tenant, tm_buf *out);

#endif
