/* stores.h - the store of all, and beside it the stores of tenants: opened on demand, closed when
 * idle. For the store threads (storage.c) only: each has a number, and connections of its own.
 */
#ifndef TM_STORAGE_STORES_H
#define TM_STORAGE_STORES_H

#include "persistence/store.h"

typedef struct tm_stores tm_stores;

typedef struct tm_stores_options {
  const tm_store_backend *backend;
  const tm_store_options *store; /* of the store of all; copied, its texts too */
  bool isolated;                 /* a tenant has a store of its own */
  size_t open_limit;             /* tenants' stores that stay open while nobody uses them */
  size_t threads;                /* that will use it: numbered from 0 */
} tm_stores_options;

/* Opens the store of all. */
tm_status tm__stores_open(tm_stores **out, const tm_stores_options *o, tm_error *err);
void tm__stores_close(tm_stores *s); /* no thread uses it any more. NULL is allowed */

/* ---- thread `thread` only ---- */

/* Its connection to the store of all, made at the first use. */
tm_status tm__stores_common(tm_stores *s, size_t thread, tm_store_role role, tm_store_conn **out,
                            tm_error *err);

typedef struct tm_stores_use {
  tm_store_conn *conn;
  struct tm_tenant_store *tenant; /* NULL: the store of all */
} tm_stores_use;

/* The connection to where `tenant` is stored; "" is the store of all. A writer makes a tenant's
 * store when there is none; a reader gets the store of all then, where it finds nothing of the
 * tenant. When the result is TM_OK, tm__stores_leave must follow. */
tm_status tm__stores_enter(tm_stores *s, size_t thread, tm_store_role role, const char *tenant,
                           tm_stores_use *out, tm_error *err);
void tm__stores_leave(tm_stores *s, tm_stores_use *use);

/* The same for a tenant's store that the store of all does not list yet: does so, once. */
tm_status tm__stores_enlist(tm_stores *s, size_t thread, const tm_stores_use *use, tm_error *err);

/* Before the threads are there: what was stored in the other way would be there and never be seen.
 */
tm_status tm__stores_check_isolation(tm_stores *s, tm_error *err);

/* ---- any thread ---- */
void tm__stores_interrupt(tm_stores *s); /* tm_store_backend.interrupt, of all that are open */
void tm__stores_tell(tm_stores *s, const char *word); /* tm_store_backend.tell, in that of all */

#endif
