/* host.h - what the files of the public library share: the host, and who is in it. */
#ifndef TM_HOST_H
#define TM_HOST_H

#include "api/api.h"
#include "bind/vm.h"
#include "config/config.h"
#include "core/json.h"
#include "journal/journal.h"
#include "keeping/janitor.h"
#include "keeping/reseal.h"
#include "outbox/deliver.h"
#include "persistence/codec.h"

struct tm_host_worker;
typedef struct tm_reload tm_reload; /* reload.c */
typedef struct tm_watch tm_watch;   /* watch.c */

/* One step of stopping, done on a worker's thread, waited for. */
typedef struct tm_stop_step {
  tm_message message;
  struct tm_host *host;
  struct tm_host_worker *worker;
  uv_sem_t *done;
  size_t left; /* turns and calls that nobody ended: none, unless there is a fault in the host */
} tm_stop_step;

typedef enum tm_stop_stage {
  TM_STOP_DRAIN,
  TM_STOP_ABANDON,
  TM_STOP_CLOSE,
  TM_STOP_STAGES,
} tm_stop_stage;

typedef struct tm_host_worker {
  tm_worker *worker;
  tm_http_client *client;
  tm_lua *lua;
  tm_journal *journal;
  tm_stop_step stop[TM_STOP_STAGES]; /* had from the start: stopping needs no memory */
} tm_host_worker;

typedef enum tm_host_state {
  TM_HOST_NEW,
  TM_HOST_RUNNING,
  TM_HOST_STOPPING,
  TM_HOST_STOPPED
} tm_host_state;

struct tm_host {
  tm_log log;
  tm_clock clock;
  tm_config *config;
  char id[TM_ID_SIZE]; /* whose claims are ours */
  char *script_config; /* what host.config.get() answers, JSON */
  uv_rwlock_t lock;    /* read: a request is being posted; write: the state changes */
  tm_host_state state;
  tm_keyring *keys;
  tm_codec *codec; /* uses the keys; the storage uses it */
  tm_storage *storage;
  tm_reseal *reseal; /* NULL: there is nothing to seal anew */
  tm_registry *registry;
  tm_rates *rates;
  tm_worker *control; /* deadlines, retention and reloads */
  tm_scheduler *scheduler;
  tm_http_client *webhooks; /* on the control thread, for the outbox alone */
  tm_deliver *deliver;      /* NULL: there is nobody to be told */
  tm_retention keep;
  tm_janitor *janitor;
  tm_host_worker *workers;
  size_t worker_count;
  tm_api *api;
  char *url; /* where it serves; NULL: nowhere */
  tm_reload *reload;
  tm_watch *watch; /* NULL: nobody looks whether scripts change */
  bool hears;      /* atomic: all parts are there, a word of another host is heeded */
  bool leaves;     /* atomic: it has stored what others may have to see to when it is gone */
};

/* The worker that owns a conversation. */
tm_host_worker *tm__host_worker(tm_host *h, const char *conversation_id);

/* Answers with an error, or with text. */
void tm__host_refuse(tm_reply_fn fn, void *ud, const tm_error *err);
void tm__host_answer(tm_reply_fn fn, void *ud, const tm_buf *text);

/* Holds the host in its running state until tm__host_leave; false (and nothing to leave): not
 * running, `err` says so. */
bool tm__host_enter(tm_host *h, tm_error *err);
void tm__host_leave(tm_host *h);

/* One flow's description within a bundle's (borrowed); TM_ENOTFOUND names the flows there are. */
tm_status tm__host_flow(tm_slice *out, const tm_bundle *b, const char *flow_id, tm_error *err);

/* How a system's scripts are run: limits, clock, configuration; nothing asynchronous. */
tm_vm_options tm__host_vm_options(const tm_host *h);

/* store_options.c: where the conversations are, as the configuration says. Texts are the
 * configuration's or the struct's own; clear it when the store is open. */
typedef struct tm_host_store {
  const char *backend; /* scheme */
  tm_store_options options;
  char *location;      /* made here; NULL: the configuration's */
  bool words;          /* hosts tell each other what there is to see to */
  size_t tenants_open; /* stores of tenants that stay open while nobody uses them */
} tm_host_store;
tm_status tm__host_store(tm_host_store *out, const tm_host *h, tm_error *err);
void tm__host_store_clear(tm_host_store *s);
/* ms; how long a store of that backend is waited for, the configured one or another. */
int64_t tm__host_store_timeout(const tm_config *c, const char *backend);

tm_retention tm__host_retention(const tm_config *c); /* retention.c */

/* webhooks.c: events of conversations are delivered from now on, if there is somebody to be told;
 * before any turn runs, which announces them. */
tm_status tm__host_start_outbox(tm_host *h, int64_t poll_ms, tm_error *err);

/* words.c: what hosts of one store tell each other. */
void tm__host_word(void *ud, const char *word); /* `ud` is the host; any thread */
void tm__host_leaves(tm_host *h);               /* any thread */
void tm__host_last_word(tm_host *h);            /* before its storage closes; NULL allowed there */

/* codec_options.c: what the configuration says about compressing and sealing. The texts of keys are
 * gone from the configuration afterwards. */
tm_status tm__host_open_keys(tm_host *h, tm_error *err);
bool tm__host_compresses(const tm_config *c);
bool tm__host_seals(const tm_config *c);

/* script_config.c: JSON; the caller frees it. NULL: no memory. */
char *tm__host_script_config(const tm_config *c, const tm_keyring *keys);

/* scripts.c: versions of all systems that the configured folders hold. */
typedef struct tm_scripts { /* zero-initialise */
  tm_bundle **bundles;      /* a reference each */
  size_t count;
} tm_scripts;
/* Loads and checks them; their sources are durable then. Blocks; not on a worker or store thread.
 * On failure there is nothing to free. */
tm_status tm__scripts_load(tm_scripts *out, tm_host *h, tm_error *err);
/* Of a reload: TM_EINVAL when no system is left of those that are loaded. */
tm_status tm__scripts_emptied(const tm_scripts *s, const tm_host *h, tm_error *err);
/* Makes them current, all at once or none, and logs what is new; `report` receives
 * {"systems":[...],"removed":[...]}. Frees them. */
tm_status tm__scripts_switch(tm_scripts *s, tm_host *h, tm_buf *report, tm_error *err);
void tm__scripts_free(tm_scripts *s);

/* reload.c: one at a time, on the control thread. */
tm_status tm__reload_new(tm_reload **out, tm_host *h, tm_error *err);
/* Control thread: whoever waits is refused now, nothing is switched any more. `fn` is called on it
 * when nothing of a reload uses the store. */
void tm__reload_stop(tm_reload *r, void (*fn)(void *ud), void *ud);
void tm__reload_free(tm_reload *r); /* the control thread has ended; NULL allowed */

/* watch.c: scripts that change are loaded anew. */
/* Stands for what is in the folders now: names, sizes and times of the .lua files; never 0. */
uint64_t tm__scripts_fingerprint(const char *const *folders, size_t count);
void tm__watch_stop(tm_watch *w); /* control thread; NULL allowed */
void tm__watch_free(tm_watch *w); /* the control thread has ended; NULL allowed */

/* running_server.c: the address of this server beside its store, while it serves. */
void tm__server_listens(tm_host *h, const char *url);
void tm__server_ends(tm_host *h);

#endif
