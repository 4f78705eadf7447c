/* janitor.h - when passes of retention are made, and when the sources of versions go: on one worker
 * of a host, by the host's clock, in small store jobs with rests between them; a pass that somebody
 * asked for runs to its end. */
#ifndef TM_KEEPING_JANITOR_H
#define TM_KEEPING_JANITOR_H

#include "journal/journal.h"
#include "keeping/retention.h"

typedef struct tm_janitor tm_janitor;
typedef struct tm_janitor_options {
  tm_worker *worker;
  tm_storage *storage;
  tm_registry *registry;
  const tm_log *log;
  tm_clock clock;
  const tm_retention *keep; /* outlives the janitor */
  int64_t tick_ms;          /* real time from one look at the clock to the next */
  void (*purged)(void *ud, const char *conversation); /* any thread; a hot copy is to be dropped */
  void *ud;
} tm_janitor_options;

tm_status tm__janitor_new(tm_janitor **out, const tm_janitor_options *o, tm_error *err);
void tm__janitor_poke(tm_janitor *j); /* any thread: look at the clock now */
/* Any thread. A whole pass, now; answers
 * {"dry_run","conversations","sessions","sessions_ended","versions"}. */
void tm__janitor_run(tm_janitor *j, bool dry, tm_reply_fn fn, void *ud);
/* On a writer's thread, in a job on the store of the tenant: what is due of its sessions, in a few
 * pieces. What is left is due again. */
tm_status tm__janitor_sessions(tm_janitor *j, const tm_store_access *a, const char *tenant,
                               tm_error *err);
/* Worker thread. Waits for the piece that is out, refuses whoever waits for a pass. */
void tm__janitor_stop(tm_janitor *j);
void tm__janitor_free(tm_janitor *j); /* worker stopped. NULL allowed */

#endif
