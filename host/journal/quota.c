/* quota.c - what a limit refuses before anything runs or is written.
 *
 * The steps of a session are those of its conversations, each of which has its own count in its
 * newest row: it came there with the commit that holds the steps, so that nothing else is written,
 * a turn that is resumed counts once, and every host sees the same. */
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "journal/slot.h"

#define PAGE 64

typedef struct quota_job {
  tm_slot_job base;
  char tenant[65], session[129];
  tm_head own; /* the conversation at hand, of which `own_steps` is known; "" none */
  int64_t own_steps, most, steps;
  /* while walking */
  const tm_store_access *access;
  tm_error *err;
  bool in_memory;
  char last[TM_ID_SIZE];
} quota_job;

int64_t tm__steps_counted(tm_slice runtime) {
  int64_t own = tm__json_get_int(runtime, "step_seq", 0);
  int64_t before = tm__json_get_int(tm__json_get(runtime, "restored"), "step_seq", 0);
  return own > before ? own : before;
}

int64_t tm__steps_inherited(tm_slice runtime) {
  int64_t own = tm__json_get_int(runtime, "inherited", 0);
  return tm__json_get_int(tm__json_get(runtime, "restored"), "inherited", own);
}

/* ---- counting ---- */

static int64_t steps_of(tm_slice runtime) {
  return tm__steps_counted(runtime) - tm__steps_inherited(runtime);
}

static tm_status on_row(void *ud, const tm_row *row) {
  quota_job *job = ud;
  if (row->kind == TM_ROW_CALL) return TM_OK; /* it says nothing about steps */
  job->steps += steps_of(tm__json_get(row->body, "runtime"));
  return TM_ECANCELLED;
}

/* One that was purged meanwhile, or cannot be read, stands in nobody else's way. */
static tm_status count_rows(quota_job *job, const tm_head *h) {
  tm_status status =
      tm__access_chain(job->access, job->in_memory, h, h->tip, false, on_row, job, job->err);
  if (status == TM_OK || status == TM_ECANCELLED || status == TM_ENOTFOUND) return TM_OK;
  return status == TM_ECORRUPT || tm__codec_is_of_record(job->err) ? TM_OK : status;
}

static tm_status on_head(void *ud, const tm_head *h) {
  quota_job *job = ud;
  tm_status status = TM_OK;
  memcpy(job->last, h->id, sizeof(job->last));
  if (strcmp(h->id, job->own.id) == 0 && h->revision == job->own.revision) {
    job->steps += job->own_steps;
  } else {
    status = count_rows(job, h);
  }
  return status == TM_OK && job->steps >= job->most ? TM_ECANCELLED : status;
}

static tm_status count_in(quota_job *job, bool in_memory) {
  tm_list_filter f = {.tenant = tm__slice(job->tenant),
                      .session = tm__slice(job->session),
                      .status = -1,
                      .limit = PAGE};
  tm_status status;
  job->in_memory = in_memory;
  do {
    job->last[0] = '\0';
    status = tm__access_list(job->access, in_memory, &f, on_head, job, job->err);
    memcpy(f.before, job->last, sizeof(f.before));
  } while (status == TM_OK && f.before[0] != '\0');
  return status;
}

static tm_status count_work(tm_store_job *base, const tm_store_access *a, tm_error *err) {
  quota_job *job = (quota_job *)(void *)base;
  job->access = a;
  job->err = err;
  tm_status status = count_in(job, false);
  if (status == TM_OK) status = count_in(job, true);
  return status == TM_ECANCELLED ? TM_OK : status;
}

static void count_done(tm_slot *s, tm_slot_job *base) {
  const quota_job *job = (const quota_job *)(const void *)base;
  tm_error err;
  if (base->job.status != TM_OK) {
    tm__slot_fail(s, &base->job.error);
  } else if (job->steps >= job->most && s->record.loaded && !s->fresh) {
    tm__slot_forget(s); /* an answer may be there by now */
  } else if (job->steps >= job->most) {
    (void)tm__fail(
        &err, TM_ELIMIT, "session.steps",
        "session %s has had %lld steps, and max_steps_per_session is %lld; begin another "
        "session",
        job->session, (long long)job->steps, (long long)job->most);
    tm__slot_fail(s, &err);
  } else if (s->first != NULL) {
    s->first->counted = true;
  }
}

static void count(tm_slot *s, int64_t most) {
  const tm_request *r = s->first;
  quota_job *job = calloc(1, sizeof(*job));
  if (job == NULL) {
    tm_error err;
    (void)tm__fail_memory(&err, "the steps of a session");
    tm__slot_fail(s, &err);
    return;
  }
  bool starts = r->kind == TM_REQUEST_START;
  const tm_record *rec = &s->record;
  memcpy(job->tenant, r->tenant, sizeof(job->tenant));
  memcpy(job->session, starts ? r->session : rec->head.session, sizeof(job->session));
  if (!starts) job->own = rec->head;
  if (!starts) job->own_steps = steps_of(tm__buf_view(&rec->runtime));
  job->most = most;
  job->base.job.work = count_work;
  job->base.done = count_done;
  tm__slot_read(s, &job->base);
}

/* ---- who is asked ---- */

/* What the current version of the system says, else what the configuration does. */
static tm_quotas quotas_of(const tm_slot *s, const char *system) {
  tm_quotas q = s->journal->o.quotas;
  tm_bundle *b = tm__registry_current(s->journal->o.registry, tm__slice(system));
  if (b != NULL && b->quotas.session_steps >= 0) q.session_steps = b->quotas.session_steps;
  tm__bundle_unref(b);
  return q;
}

/* Deadlines, decisions of others, events and what operators do are never refused. */
static bool is_limited(const tm_request *r) {
  return r->kind == TM_REQUEST_START || r->kind == TM_REQUEST_MESSAGE ||
         (r->kind == TM_REQUEST_SIGNAL && r->signal == TM_TURN_COMMAND);
}

bool tm__quota_holds(tm_slot *s, const char *system) {
  const tm_request *r = s->first;
  if (!is_limited(r)) return false;
  const tm_quotas q = quotas_of(s, system);
  if (q.session_steps <= 0 || r->counted) return false;
  count(s, q.session_steps);
  return true;
}
