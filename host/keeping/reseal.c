/* reseal.c - the walk: a batch is gathered on a reader's thread, written on the writer's, and then
 * others have their turn for as long as it took. What cannot be read is left as it is and counted.
 */
#include "keeping/reseal_work.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"

#define BATCH      64
#define BATCH_SIZE ((size_t)4 << 20) /* bytes of a batch, about */
#define LOOK_MAX   512               /* rows read at once */
#define NOTE_EVERY 8                 /* batches */
#define RETRY_MS   5000
#define WARN_MAX   10
#define TRIES_MAX  3 /* in a row, with the store of one tenant */
#define SESSIONS   "sessions"
#define TENANT     '@' /* before the name of the tenant whose own store is at hand */

static void set_progress(tm_reseal *r, const char *text) {
  tm__buf_clear(&r->note.progress);
  tm__buf_text(&r->note.progress, text);
}

/* ---- one record ---- */

void tm__reseal_unreadable(tm_reseal *r, const tm_error *err) {
  if (r->unreadable++ < WARN_MAX)
    tm__log_error(r->o.log, TM_LOG_WARNING, "a record cannot be sealed anew", err);
}

/* A tenant without a key: what nobody can read is gone, what somebody can needs the keys it has. */
void tm__reseal_not_renewed(tm_reseal *r, const tm_place *at, const tm_stored *stored,
                            const tm_error *err) {
  tm_slice plain;
  bool no_key = strcmp(err->code, "seal.key_missing") == 0;
  if (no_key && tm__codec_decode(r->o.codec, at, stored, &r->scratch, &plain, NULL) != TM_OK) {
    r->keyless++;
  } else {
    tm__reseal_unreadable(r, err);
  }
}

/* TM_OK and fresh->bytes.ptr NULL: it stays as it is. Only what concerns all records is an error.
 */
static tm_status renew(tm_reseal *r, const tm_place *at, const tm_stored *stored, tm_buf *out,
                       tm_stored *fresh, tm_error *err) {
  tm_slice plain;
  bool current = false;
  *fresh = (tm_stored){0};
  tm_status status = tm__codec_is_current(r->o.codec, at->tenant, stored, &current, err);
  if (status == TM_OK && current) return TM_OK;
  if (status == TM_OK) status = tm__codec_decode(r->o.codec, at, stored, &r->scratch, &plain, err);
  if (status == TM_OK)
    status = tm__codec_encode(r->o.codec, at, plain, (stored->flags & TM_BODY_ZSTD) != 0, true, out,
                              fresh, err);
  if (status == TM_OK || status == TM_ENOMEM) return status;
  tm__reseal_not_renewed(r, at, stored, err);
  *fresh = (tm_stored){0};
  return TM_OK;
}

/* ---- conversations ---- */

static tm_status on_row(void *ud, const tm_row *row) {
  tm_reseal_batch *b = ud;
  tm_reseal *r = b->r;
  if (row->created < r->note.since) return TM_ECANCELLED; /* as are all above it */
  const tm_place at = {.tenant = tm__slice(r->head.tenant),
                       .conversation = tm__slice(r->head.id),
                       .revision = row->revision,
                       .kind = row->kind};
  const tm_stored stored = {row->flags, row->body};
  tm_stored fresh;
  tm_buf *bytes = &b->bytes[b->count];
  tm__buf_clear(bytes);
  tm_status status = renew(r, &at, &stored, bytes, &fresh, &b->job.error);
  if (status != TM_OK) return status;
  if (fresh.bytes.ptr != NULL) {
    b->rows[b->count] = *row;
    b->rows[b->count].flags = fresh.flags;
    b->rows[b->count++].body = fresh.bytes;
    b->size += fresh.bytes.len;
  }
  r->from = row->parent;
  b->full = b->count == r->o.batch || b->size >= BATCH_SIZE || ++b->looked >= LOOK_MAX;
  return b->full ? TM_ECANCELLED : TM_OK;
}

static tm_status on_head(void *ud, const tm_head *head) {
  tm_reseal *r = ud;
  r->head = *head;
  r->from = head->tip;
  r->at_end = false;
  return TM_OK;
}

static tm_status next_head(tm_reseal *r, const tm_store_access *a, tm_error *err) {
  tm_list_filter f = {.status = -1, .limit = 1};
  memcpy(f.before, r->head.id, sizeof(f.before));
  if (!tm__storage_isolated(r->o.storage)) set_progress(r, r->head.id);
  r->at_end = true;
  tm_status status = tm__access_list(a, false, &f, on_head, r, err);
  if (status != TM_OK || r->at_end || !tm__head_is_damaged(&r->head)) return status;
  tm_error damage;
  (void)tm__head_damaged(tm__slice(r->head.id), "the store", &damage);
  tm__reseal_unreadable(r, &damage);
  return TM_OK;
}

static tm_status gather_rows(tm_store_job *job, const tm_store_access *a, tm_error *err) {
  tm_reseal_batch *b = (tm_reseal_batch *)(void *)job;
  tm_reseal *r = b->r;
  tm_status status = TM_OK;
  while (status == TM_OK && !r->at_end && b->count < r->o.batch && b->looked < LOOK_MAX) {
    if (r->from == 0) {
      status = next_head(r, a, err);
      b->looked++;
      continue;
    }
    int64_t from = r->from;
    r->from = 0;
    status = a->backend->chain(a->conn, tm__slice(r->head.id), from, false, on_row, b, err);
    if (status == TM_ECANCELLED && b->full) return TM_OK;
    if (status == TM_ECORRUPT) tm__reseal_unreadable(r, err);
    bool over = status == TM_ECANCELLED || status == TM_ENOTFOUND || status == TM_ECORRUPT;
    if (over) status = TM_OK; /* or purged meanwhile */
    r->from = status == TM_OK ? 0 : r->from != 0 ? r->from : from;
  }
  return status;
}

/* One that is damaged keeps none of the others from being sealed. */
static tm_status write_each(tm_reseal_batch *b, const tm_store_access *a, tm_error *err) {
  tm_status status = TM_OK;
  size_t from = 0, to = 0;
  for (; status == TM_OK && from < b->count; from = to) {
    while (to < b->count && strcmp(b->rows[to].conversation, b->rows[from].conversation) == 0)
      to++;
    status = a->backend->rewrite(a->conn, &b->rows[from], to - from, err);
    if (status != TM_ECORRUPT) continue;
    tm__reseal_unreadable(b->r, err);
    status = TM_OK;
  }
  return status;
}

static tm_status write_rows(tm_store_job *job, const tm_store_access *a, tm_error *err) {
  tm_reseal_batch *b = (tm_reseal_batch *)(void *)job;
  tm_status status = a->backend->rewrite(a->conn, b->rows, b->count, err);
  return status == TM_ECORRUPT ? write_each(b, a, err) : status;
}

/* ---- tenants with stores of their own ---- */

static tm_status on_tenant(void *ud, tm_slice tenant, int64_t wake_at) {
  tm_reseal *r = ud;
  (void)wake_at;
  if (!tm__copy(r->tenant, sizeof(r->tenant), tenant)) return TM_OK;
  r->at_end = false;
  r->head = (tm_head){0};
  r->from = 0;
  r->page = (tm_session_filter){0};
  r->last = (tm_reseal_session){0};
  tm__buf_clear(&r->note.progress);
  tm__buf_byte(&r->note.progress, TENANT);
  tm__buf_slice(&r->note.progress, tenant);
  return TM_OK;
}

static tm_status find_tenant(tm_store_job *job, const tm_store_access *a, tm_error *err) {
  tm_reseal *r = ((tm_reseal_batch *)(void *)job)->r;
  tm_reseal_session after = {"", ""};
  memcpy(after.tenant, r->tenant, sizeof(after.tenant));
  r->at_end = true;
  return a->backend->tenants(a->common, tm__slice(after.tenant), 1, on_tenant, r, err);
}

/* ---- batches ---- */

static void on_done(tm_message *m) {
  uv_sem_post(&((tm_reseal_batch *)(void *)m)->done);
}

static tm_status run(tm_reseal *r, const char *tenant, bool write,
                     tm_status (*work)(tm_store_job *, const tm_store_access *, tm_error *)) {
  tm_reseal_batch *b = &r->batch;
  b->job = (tm_store_job){.write = write, .work = work, .message.run = on_done};
  (void)tm__copy(b->job.tenant, sizeof(b->job.tenant), tm__slice(tenant));
  tm__storage_run(r->o.storage, &b->job);
  uv_sem_wait(&b->done);
  if (b->job.status != TM_OK) r->error = b->job.error;
  return b->job.status;
}

/* Reads the next batch. */
static tm_status gather(tm_reseal *r) {
  tm_reseal_batch *b = &r->batch;
  b->size = b->looked = 0;
  b->full = false;
  if (r->phase == TM_IN_ROWS) return run(r, r->tenant, false, gather_rows);
  if (r->phase == TM_IN_SESSIONS) return run(r, r->tenant, false, tm__reseal_gather_sessions);
  if (r->phase == TM_IN_EVENTS) return run(r, r->tenant, true, tm__reseal_events);
  return run(r, "", false, find_tenant);
}

/* One batch is read and written. What was read before an error is not lost by it. */
static tm_status step(tm_reseal *r) {
  tm_reseal_batch *b = &r->batch;
  tm_status status = b->count == 0 ? gather(r) : TM_OK; /* else they could not be written before */
  if (b->count == 0) return status;
  tm_status written =
      run(r, r->tenant, true, r->phase == TM_IN_SESSIONS ? tm__reseal_write_sessions : write_rows);
  if (written == TM_ECORRUPT) {
    tm__reseal_unreadable(r, &r->error);
  } else if (written != TM_OK) {
    return written;
  }
  r->renewed += b->count;
  b->count = 0;
  return status;
}

/* The store of one tenant keeps no other from being sealed. */
static void skip_tenant(tm_reseal *r) {
  tm__reseal_unreadable(r, &r->error);
  r->batch.count = 0;
  r->tries = 0;
  r->phase = TM_NEXT_TENANT;
}

/* ---- how far it came ---- */

static tm_status get_note(tm_store_job *job, const tm_store_access *a, tm_error *err) {
  tm_reseal *r = ((tm_reseal_batch *)(void *)job)->r;
  return tm__reseal_note_read(&r->note, a, tm__clock_now(&r->o.log->clock), err);
}

static tm_status put_note(tm_store_job *job, const tm_store_access *a, tm_error *err) {
  tm_reseal *r = ((tm_reseal_batch *)(void *)job)->r;
  return tm__reseal_note_write(&r->note, a, r->unreadable > 0, err);
}

/* Other keys mean other work. */
static tm_status add_tenant(void *ud, tm_slice tenant) {
  tm_reseal *r = ud;
  tm_buf ids = {0};
  tm_status status = tm__keyring_ids(tm__codec_options(r->o.codec)->keys, tenant, &ids, NULL);
  if (status == TM_OK) {
    const tm_slice parts[] = {tenant, tm__buf_view(&ids)};
    r->fingerprint += tm__digest_u64(parts, 2); /* in whatever order they come */
  }
  tm__buf_free(&ids);
  return status == TM_ENOMEM ? status : TM_OK;
}

static tm_status name_keys(tm_reseal *r, tm_error *err) {
  const tm_codec_options *o = tm__codec_options(r->o.codec);
  tm_buf ids = {0};
  tm_status status = tm__keyring_ids(o->keys, (tm_slice){0}, &ids, err);
  if (status == TM_OK) {
    const tm_slice parts[] = {tm__buf_view(&ids), o->seal ? TM_S("all") : TM_S("some"),
                              o->accept_plaintext ? TM_S("plain") : TM_S("")};
    r->fingerprint = tm__digest_u64(parts, 3);
    status = tm__keyring_tenants(o->keys, add_tenant, r, err);
  }
  tm__buf_free(&ids);
  (void)snprintf(r->note.keys, sizeof(r->note.keys), "%016llx", (unsigned long long)r->fingerprint);
  return status;
}

/* ---- the thread ---- */

/* Others have their turn; false: it is time to stop. */
static bool rest(tm_reseal *r, int64_t us) {
  uv_mutex_lock(&r->lock);
  if (!r->stopping) (void)uv_cond_timedwait(&r->wake, &r->lock, (uint64_t)us * 1000);
  bool goes_on = !r->stopping;
  uv_mutex_unlock(&r->lock);
  return goes_on;
}

static void report(const tm_reseal *r) {
  const tm_codec_options *o = tm__codec_options(r->o.codec);
  char renewed[24], left[24], keyless[24];
  tm_buf ids = {0};
  (void)tm__keyring_old_ids(o->keys, &ids, NULL);
  (void)snprintf(renewed, sizeof(renewed), "%zu", r->renewed);
  (void)snprintf(left, sizeof(left), "%zu", r->unreadable);
  (void)snprintf(keyless, sizeof(keyless), "%zu", r->keyless);
  if (r->unreadable > 0) {
    tm__log(r->o.log, TM_LOG_WARNING,
            "not everything could be sealed with the keys of today: keep those of before, and look "
            "at the records that are named above",
            "sealed", renewed, "left", left, "without_key", keyless, NULL);
  } else if (r->note.disturbed) {
    tm__log(r->o.log, TM_LOG_WARNING,
            "another host seals with other keys meanwhile: keep all of them, give it these and "
            "restart it; it then looks at everything once more",
            "sealed", renewed, "without_key", keyless, NULL);
  } else {
    tm__log(
        r->o.log, TM_LOG_INFO,
        "all that has to be is sealed with the keys of today: previous_encryption_keys, further "
        "lines in files of tenants and accept_plaintext are not needed any more",
        "sealed", renewed, "without_key", keyless, "not_needed", tm__buf_view(&ids).ptr, NULL);
  }
  tm__buf_free(&ids);
}

/* From rows to sessions to events to the next tenant's store; false: that was all. */
static bool next_phase(tm_reseal *r) {
  bool isolated = tm__storage_isolated(r->o.storage);
  if (!r->at_end && r->phase == TM_NEXT_TENANT) r->phase = TM_IN_ROWS;
  if (!r->at_end) return true;
  r->at_end = false;
  if (r->phase == TM_IN_ROWS) {
    r->phase = TM_IN_SESSIONS;
    if (!isolated) set_progress(r, SESSIONS);
    return true;
  }
  if (r->phase == TM_IN_SESSIONS) {
    r->phase = TM_IN_EVENTS;
    r->events = (tm_outgoing_filter){.dead = -1};
    return true;
  }
  if (r->phase == TM_IN_EVENTS && isolated) {
    r->phase = TM_NEXT_TENANT;
    return true;
  }
  set_progress(r, TM_RESEAL_DONE);
  return false;
}

static void complete(tm_reseal *r) {
  (void)run(r, "", true, put_note);
  report(r);
}

static void begin(tm_reseal *r) {
  tm_slice said = tm__buf_view(&r->note.progress);
  if (tm__slice_is(said, SESSIONS)) {
    r->phase = TM_IN_SESSIONS;
  } else if (said.len > 0 && said.ptr[0] == TENANT) {
    (void)tm__copy(r->tenant, sizeof(r->tenant), (tm_slice){said.ptr + 1, said.len - 1});
  } else {
    (void)tm__copy(r->head.id, sizeof(r->head.id), said);
  }
  if (r->note.since == 0)
    tm__log(r->o.log, TM_LOG_INFO, "sealing what is not sealed with the keys of today", NULL);
}

/* One batch; false: that was all. */
static bool advance(tm_reseal *r, bool *failing) {
  bool noted = r->note.stands;
  tm_status status = noted ? step(r) : run(r, "", true, put_note);
  bool own = noted && r->tenant[0] != '\0' && r->phase != TM_NEXT_TENANT;
  if (status != TM_OK && !*failing)
    tm__log_error(r->o.log, TM_LOG_WARNING, "sealing anew is interrupted", &r->error);
  *failing = status != TM_OK;
  if (status == TM_OK) {
    r->tries = 0;
    return !noted || next_phase(r);
  }
  if (own && (status == TM_ECORRUPT || ++r->tries >= TRIES_MAX)) {
    skip_tenant(r);
    *failing = false;
  }
  return true;
}

static void walk(tm_reseal *r) {
  bool goes_on = true, failing = false;
  for (unsigned n = 1; goes_on; n++) {
    int64_t started = tm__clock_monotonic_us();
    if (!advance(r, &failing)) {
      complete(r);
      return;
    }
    if (!failing && n % NOTE_EVERY == 0) (void)run(r, "", true, put_note);
    int64_t took = tm__clock_monotonic_us() - started;
    goes_on = rest(r, failing ? r->o.retry_ms * 1000 : took + 100);
  }
  (void)run(r, "", true, put_note); /* so far */
}

static void main_of(void *arg) {
  tm_reseal *r = arg;
  tm_error err;
  tm_status status = name_keys(r, &err);
  if (status == TM_OK) {
    status = run(r, "", false, get_note);
    err = r->error;
  }
  if (status != TM_OK) {
    tm__log_error(r->o.log, TM_LOG_WARNING, "nothing is sealed anew until the next start", &err);
    return;
  }
  begin(r);
  walk(r);
}

/* ---- life ---- */

static void reseal_free(tm_reseal *r) {
  for (size_t i = 0; r->batch.bytes != NULL && i < r->o.batch + 2; i++) {
    tm__buf_free(&r->batch.bytes[i]);
  }
  free(r->batch.bytes);
  free(r->batch.rows);
  free(r->batch.sessions);
  tm__buf_free(&r->note.progress);
  tm__buf_free(&r->scratch);
  if (r->made) {
    uv_sem_destroy(&r->batch.done);
    uv_cond_destroy(&r->wake);
    uv_mutex_destroy(&r->lock);
  }
  free(r);
}

static bool make_locks(tm_reseal *r) {
  if (uv_mutex_init(&r->lock) != 0) return false;
  if (uv_cond_init(&r->wake) == 0) {
    r->made = uv_sem_init(&r->batch.done, 0) == 0;
    if (!r->made) uv_cond_destroy(&r->wake);
  }
  if (!r->made) uv_mutex_destroy(&r->lock);
  return r->made;
}

static bool make_batch(tm_reseal *r) {
  tm_reseal_batch *b = &r->batch;
  b->r = r;
  b->rows = calloc(r->o.batch, sizeof(*b->rows));
  b->bytes = calloc(r->o.batch + 2, sizeof(*b->bytes)); /* a session has two */
  b->sessions = calloc(r->o.batch, sizeof(*b->sessions));
  return b->rows != NULL && b->bytes != NULL && b->sessions != NULL;
}

static tm_status start(tm_reseal *r, tm_error *err) {
  if (!make_locks(r) || !make_batch(r)) return tm__fail_memory(err, "sealing anew");
  int failed = uv_thread_create(&r->thread, main_of, r);
  r->started = failed == 0;
  if (failed == 0) return TM_OK;
  return tm__fail(err, TM_EUNAVAILABLE, "store.start", "start a thread for sealing anew: %s",
                  uv_strerror(failed));
}

tm_status tm__reseal_start(tm_reseal **out, const tm_reseal_options *o, tm_error *err) {
  *out = NULL;
  const tm_codec_options *co = tm__codec_options(o->codec);
  bool plain = co->seal && co->accept_plaintext;
  if (co->keys == NULL || !tm__keyring_can_seal(co->keys)) return TM_OK;
  if (!plain && !tm__keyring_has_old(co->keys)) return TM_OK;
  tm_reseal *r = calloc(1, sizeof(*r));
  if (r == NULL) return tm__fail_memory(err, "sealing anew");
  r->o = *o;
  if (r->o.batch == 0) r->o.batch = BATCH;
  if (r->o.retry_ms == 0) r->o.retry_ms = RETRY_MS;
  tm_status status = start(r, err);
  if (status == TM_OK) {
    *out = r;
  } else {
    reseal_free(r);
  }
  return status;
}

void tm__reseal_stop(tm_reseal *r) {
  if (r == NULL) return;
  uv_mutex_lock(&r->lock);
  r->stopping = true;
  uv_cond_signal(&r->wake);
  uv_mutex_unlock(&r->lock);
  (void)uv_thread_join(&r->thread);
  reseal_free(r);
}
