/* deliver.h - tells the world what conversations have emitted: takes events that are due from the
 * store, posts them to the webhook, signed, and settles them. Knows the storage and the HTTP
 * client, and nothing of turns.
 *
 * An event goes out at least once: who dies between its answer and settling it lets it go out
 * again, with the same id. Of a conversation one is under way at a time.
 */
#ifndef TM_OUTBOX_DELIVER_H
#define TM_OUTBOX_DELIVER_H

#include "core/clock.h"
#include "core/log.h"
#include "net/http_client.h"
#include "storage/storage.h"

#define TM_DELIVER_MOST 32 /* under way at once */

typedef struct tm_deliver tm_deliver;
typedef struct tm_deliver_options { /* all borrowed */
  tm_worker *worker;
  tm_storage *storage;
  tm_http_client *client; /* of that worker, for nobody else */
  tm_clock clock;
  const tm_log *log;
  const char *url, *secret, *previous_secret; /* the last "" or NULL: none */
  int64_t timeout_ms;                         /* of one attempt; a lease is three of them */
  int64_t give_up_ms;
  int64_t poll_ms;  /* how often events of other processes are looked for */
  int64_t quiet_ms; /* for so long nothing is taken: who lives for less, as most commands in a
                       terminal do, takes nothing that it could not deliver */
} tm_deliver_options;

tm_status tm__deliver_new(tm_deliver **out, const tm_deliver_options *o, tm_error *err);
void tm__deliver_hint(tm_deliver *d); /* any thread: there are new ones. NULL allowed */
/* Worker thread: this tenant, who has a store of its own, has some that are due. Whoever says so
 * says it again while they are. */
void tm__deliver_tenant(tm_deliver *d, const char *tenant);
/* Worker thread: nothing is sent any more; what was under way is left to its lease. NULL allowed.
 */
void tm__deliver_stop(tm_deliver *d);
void tm__deliver_free(tm_deliver *d); /* worker stopped. NULL allowed */

#endif
