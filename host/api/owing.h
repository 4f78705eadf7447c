/* owing.h - the answers that host functions still owe to clients, each of whom holds a connection
 * meanwhile. They are bounded below the number of connections, those of one tenant to half of it:
 * whatever waits, there is a place for other tenants, for what is brief, and for /livez. */
#ifndef TM_API_OWING_H
#define TM_API_OWING_H

#include <pthread.h>

#include "api/guard.h"
#include "core/map.h"

typedef struct tm_owing_tenant {
  size_t count;
  char tenant[TM_TENANT_SIZE];
} tm_owing_tenant;

typedef struct tm_owing {
  pthread_mutex_t lock;
  pthread_cond_t settled;
  size_t most, most_of_one, count;
  tm_map tenants; /* tm_owing_tenant, of those to whom something is owed */
  bool stopping;
} tm_owing;

void tm__owing_init(tm_owing *w, int connection_limit);
void tm__owing_deinit(tm_owing *w);
/* *out is for tm__owing_settle, once; `brief`: it waits for no turn, and may take a place beyond
 * the tenant's half. TM_EUNAVAILABLE (server.busy, host.stopping), TM_ENOMEM. */
tm_status tm__owing_add(tm_owing *w, const char *tenant, bool brief, tm_owing_tenant **out,
                        tm_error *err);
void tm__owing_settle(tm_owing *w, tm_owing_tenant *to); /* any thread */
void tm__owing_finish(tm_owing *w); /* nothing more; returns when nothing is owed any more */

#endif
