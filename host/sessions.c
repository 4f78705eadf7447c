/* sessions.c - the public functions about sessions and retention. Ending a session takes several
 * steps, each on the thread that the one before ended on: the store says which of its conversations
 * are open, their workers cancel them, and so on until none is that was there before. */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "host.h"
#include "keeping/session.h"

#define BATCH 32

/* ---- reading ---- */

static tm_slice tenant_of(const char *tenant) {
  return tm__slice(tenant != NULL ? tenant : "default");
}

static bool enter(tm_host *h, tm_reply_fn fn, void *ud) {
  tm_error err;
  if (tm__host_enter(h, &err)) return true;
  tm__host_refuse(fn, ud, &err);
  return false;
}

void tm_session_list(tm_host *h, const char *tenant, const char *status, const char *cursor,
                     int limit, tm_reply_fn fn, void *ud) {
  if (!enter(h, fn, ud)) return;
  tm__session_list(h->storage, tenant_of(tenant), status, tm__slice(cursor), limit, fn, ud);
  tm__host_leave(h);
}

void tm_session_read(tm_host *h, const char *tenant, const char *session_id, tm_reply_fn fn,
                     void *ud) {
  if (!enter(h, fn, ud)) return;
  tm__session_show(h->storage, tenant_of(tenant), tm__slice(session_id), fn, ud);
  tm__host_leave(h);
}

/* ---- ending ---- */

typedef struct ending {
  tm_store_job job;
  tm_host *host;
  char tenant[65], id[129];
  tm_reply_fn fn;
  void *ud;
  char open[BATCH][TM_ID_SIZE]; /* conversations to be cancelled */
  size_t open_count;
  char last[TM_ID_SIZE]; /* conversation of a page that was looked at; "": none */
  atomic_size_t left;    /* of them */
  atomic_bool failed;
  tm_error error; /* of the first that failed */
  int64_t since;  /* conversations that begin later open the session again */
  tm_buf out;
} ending;

static void end_now(ending *e);

static void finish(ending *e, const tm_error *err) {
  if (err != NULL) {
    tm__host_refuse(e->fn, e->ud, err);
  } else {
    tm__host_answer(e->fn, e->ud, &e->out);
  }
  tm__buf_free(&e->out);
  free(e);
}

static tm_status on_open(void *ud, const tm_head *h) {
  ending *e = ud;
  if (!tm__head_is_damaged(h) && h->ended == 0 && h->created <= e->since)
    memcpy(e->open[e->open_count++], h->id, TM_ID_SIZE);
  memcpy(e->last, h->id, sizeof(e->last));
  return e->open_count < BATCH ? TM_OK : TM_ECANCELLED;
}

static tm_status find_open(ending *e, const tm_store_access *a, bool in_memory, tm_error *err) {
  tm_list_filter f = {
      .tenant = tm__slice(e->tenant), .session = tm__slice(e->id), .status = -1, .limit = BATCH};
  tm_status status;
  do {
    e->last[0] = '\0';
    status = tm__access_list(a, in_memory, &f, on_open, e, err);
    memcpy(f.before, e->last, sizeof(f.before));
  } while (status == TM_OK && f.before[0] != '\0');
  return status == TM_ECANCELLED ? TM_OK : status;
}

/* TM_OK: it has ended, or was opened again, and is in `out`. TM_ECONFLICT: those in `open` have to
 * go first. */
static tm_status end_work(tm_store_job *job, const tm_store_access *a, tm_error *err) {
  ending *e = (ending *)(void *)job;
  tm_slice tenant = tm__slice(e->tenant), id = tm__slice(e->id);
  int64_t now = tm__clock_now(&e->host->clock);
  tm_status status = tm__session_end(a, &e->host->keep, tenant, id, now, err);
  e->open_count = 0;
  if (status == TM_ECONFLICT) {
    status = find_open(e, a, false, err);
    if (status == TM_OK && e->open_count < BATCH) status = find_open(e, a, true, err);
  }
  if (status != TM_OK) return status;
  return e->open_count > 0 ? TM_ECONFLICT : tm__session_render(&e->out, a, tenant, id, err);
}

static void note_failure(ending *e, const tm_error *err) {
  if (!atomic_exchange(&e->failed, true)) e->error = *err;
}

static void on_cancelled(void *ud, const tm_reply *reply) {
  ending *e = ud;
  if (reply->status != TM_OK && reply->status != TM_ENOTFOUND) note_failure(e, reply->error);
  if (atomic_fetch_sub(&e->left, 1) > 1) return;
  if (atomic_load(&e->failed)) {
    const tm_error err = e->error;
    finish(e, &err);
  } else {
    end_now(e);
  }
}

static void cancel_one(ending *e, const char *conversation) {
  tm_request *r = tm__request_new(TM_REQUEST_CANCEL);
  if (r == NULL) {
    tm_error err;
    (void)tm__fail_memory(&err, "a cancellation");
    note_failure(e, &err);
    atomic_fetch_sub(&e->left, 1); /* not the last: the loop's own is left */
    return;
  }
  memcpy(r->conversation, conversation, sizeof(r->conversation));
  memcpy(r->tenant, e->tenant, sizeof(r->tenant));
  r->reply = on_cancelled;
  r->reply_ud = e;
  tm__journal_submit(tm__host_worker(e->host, conversation)->journal, r);
}

static void cancel_open(ending *e) {
  tm_host *h = e->host;
  tm_error err;
  if (!tm__host_enter(h, &err)) {
    finish(e, &err);
    return;
  }
  size_t count = e->open_count;
  e->error = (tm_error){0};
  atomic_store(&e->left, count + 1); /* one for this loop */
  for (size_t i = 0; i < count; i++)
    cancel_one(e, e->open[i]);
  tm__host_leave(h);
  on_cancelled(e, &(tm_reply){.status = TM_OK});
}

static void on_ended(tm_message *m) {
  ending *e = (ending *)(void *)m;
  if (e->job.status == TM_OK) {
    finish(e, NULL);
  } else if (e->job.status == TM_ECONFLICT) {
    cancel_open(e);
  } else {
    finish(e, &e->job.error);
  }
}

static void end_now(ending *e) {
  tm_host *h = e->host;
  tm_error err;
  if (!tm__host_enter(h, &err)) {
    finish(e, &err);
    return;
  }
  e->job = (tm_store_job){.message.run = on_ended, .write = true, .work = end_work};
  memcpy(e->job.tenant, e->tenant, sizeof(e->job.tenant));
  tm__storage_run(h->storage, &e->job);
  tm__host_leave(h);
}

void tm_session_end(tm_host *h, const char *tenant, const char *session_id, tm_reply_fn fn,
                    void *ud) {
  tm_error err;
  ending *e = calloc(1, sizeof(*e));
  if (e == NULL) {
    (void)tm__fail_memory(&err, "the end of a session");
    tm__host_refuse(fn, ud, &err);
    return;
  }
  e->host = h;
  e->since = tm__clock_now(&h->clock);
  e->fn = fn;
  e->ud = ud;
  bool fits = tm__copy(e->tenant, sizeof(e->tenant), tenant_of(tenant)) &&
              tm__copy(e->id, sizeof(e->id), tm__slice(session_id));
  if (fits && e->id[0] != '\0') {
    end_now(e);
    return;
  }
  (void)tm__session_not_found(tm__slice(session_id), &err);
  finish(e, &err);
}

/* ---- retention ---- */

void tm_host_purge(tm_host *h, int dry_run, tm_reply_fn fn, void *ud) {
  if (!enter(h, fn, ud)) return;
  tm__janitor_run(h->janitor, dry_run != 0, fn, ud);
  tm__host_leave(h);
}
