/* storage.h - the store threads: writers that group commits, a few readers.
 *
 * The only caller of persistence/store.h at run time. Behind it stand the configured store, one in
 * memory for conversations whose flow says `persist_state = false` ("volatile"), and where tenants
 * are isolated a store for each of them.
 */
#ifndef TM_STORAGE_STORAGE_H
#define TM_STORAGE_STORAGE_H

#include "core/log.h"
#include "loop/worker.h"
#include "storage/access.h"
#include "storage/encode.h"

typedef struct tm_storage tm_storage;

typedef struct tm_storage_options {
  tm_slice backend;       /* a scheme */
  tm_store_options store; /* of the store of all */
  bool isolated;          /* each tenant has a store of its own */
  size_t tenants_open;    /* their stores that stay open while nobody uses them */
  /* A word that another host has told; any thread; must not block. NULL: nobody listens. */
  void (*on_word)(void *ud, const char *word);
  void *word_ud;
  const tm_log *log;
  tm_codec *codec; /* how bodies are kept; borrowed; NULL: as they are */
} tm_storage_options;

/* Opens the store, starts the threads. */
tm_status tm__storage_open(tm_storage **out, const tm_storage_options *options, tm_error *err);
/* The host stops: nobody waits for a server any more. Any thread. */
void tm__storage_interrupt(tm_storage *s);
/* Commits and answers what is queued, then stops the threads. NULL is allowed. */
void tm__storage_close(tm_storage *s);
/* Did the newest write and the newest read work? While writing fails it is tried again by itself.
 * Any thread. */
bool tm__storage_healthy(tm_storage *s);
bool tm__storage_durable(const tm_storage *s, bool in_memory); /* does a commit survive the host? */
bool tm__storage_isolated(const tm_storage *s);
bool tm__storage_shared(const tm_storage *s); /* hosts elsewhere may have the same store open */

/* To the other hosts of the store, where its backend carries words: tm_store_backend.tell. */
void tm__storage_tell(tm_storage *s, const char *word);

/* ---- commits: any thread ---- */
typedef struct tm_commit_job {
  tm_message message;   /* internal: how it travels; message.run is set by the caller to what is to
                           happen on `reply_to` when it is durable or failed */
  tm_worker *reply_to;  /* NULL: message.run is called on the thread that ended it */
  tm_commit commit;     /* in and out; commit.status says how it went */
  bool in_memory;       /* volatile conversation */
  bool compress, seal;  /* the bodies; sealed also where the configuration says so */
  uint32_t flags;       /* out: how the row was stored */
  tm_encoding encoding; /* internal */
  bool refused;         /* internal: it could not be encoded */
  tm_error error;       /* when commit.status is not TM_OK */
} tm_commit_job;
void tm__storage_commit(tm_storage *s, tm_commit_job *job);

/* ---- everything else: `work` runs on a reader (or, `write`, on a writer) thread ---- */
typedef struct tm_store_job {
  tm_message message; /* message.run: called on `reply_to` after work, or where work ran if NULL */
  tm_worker *reply_to;
  bool write;
  char tenant[65]; /* whose store `access->conn` leads to; "": the store of all */
  tm_status (*work)(struct tm_store_job *job, const tm_store_access *access, tm_error *err);
  tm_status status; /* of work */
  tm_error error;
} tm_store_job;
void tm__storage_run(tm_storage *s, tm_store_job *job);

#endif
