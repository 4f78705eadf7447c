/* quota.c - what a limit refuses before anything runs or is written.
 *
 * The steps of a session are those of its conversations, each of which has its own count in its
 * newest row: it came there with the commit that holds the steps, so that nothing else is written,
 * a turn that is resumed counts once, and every host sees the same. */
#include <stdio.h>
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

tm_slice tm__usage(tm_slice runtime) {
  tm_slice restored = tm__json_get(runtime, "restored");
  return tm__json_get(restored.ptr != NULL ? restored : runtime, "usage");
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

/* On a fresh record, for the answer may be there by now. */
static void refuse(tm_slot *s, const tm_error *err) {
  if (s->record.loaded && !s->fresh && s->first->key != 0) {
    tm__slot_forget(s);
  } else {
    tm__slot_fail(s, err);
  }
}

static void count_done(tm_slot *s, tm_slot_job *base) {
  const quota_job *job = (const quota_job *)(const void *)base;
  tm_error err;
  if (s->first == NULL) return;
  if (base->job.status != TM_OK) {
    tm__slot_fail(s, &base->job.error);
  } else if (job->steps >= job->most) {
    (void)tm__fail(
        &err, TM_ELIMIT, "session.steps",
        "session %s has had %lld steps, and max_steps_per_session is %lld; begin another "
        "session",
        job->session, (long long)job->steps, (long long)job->most);
    refuse(s, &err);
  } else {
    s->first->counted = true;
  }
}

static void count(tm_slot *s, int64_t most) {
  const tm_request *r = s->first;
  quota_job *job = calloc(1, sizeof(*job));
  if (job == NULL) {
    tm_error err;
    (void)tm__fail_memory(&err, "a quota");
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

/* ---- the turns of a minute ---- */

typedef struct rate_job {
  tm_slot_job base;
  tm_rates *rates;
  char who[130];
  int64_t most, now;
} rate_job;

static tm_status rate_work(tm_store_job *base, const tm_store_access *a, tm_error *err) {
  const rate_job *job = (const rate_job *)(const void *)base;
  return tm__rates_fetch(job->rates, a, tm__slice(job->who), job->most, job->now, err);
}

static void rate_done(tm_slot *s, tm_slot_job *base) {
  if (base->job.status != TM_OK) tm__slot_fail(s, &base->job.error);
}

static void fetch(tm_slot *s, const char *who, int64_t most, int64_t now) {
  rate_job *job = calloc(1, sizeof(*job));
  if (job == NULL) {
    tm_error err;
    (void)tm__fail_memory(&err, "a quota");
    tm__slot_fail(s, &err);
    return;
  }
  job->rates = s->journal->o.rates;
  (void)tm__copy(job->who, sizeof(job->who), tm__slice(who));
  job->most = most;
  job->now = now;
  job->base.job.write = true;
  job->base.job.work = rate_work;
  job->base.done = rate_done;
  tm__slot_read(s, &job->base);
}

static void refuse_rate(tm_slot *s, int64_t most, int64_t now) {
  tm_error err;
  int64_t wait = tm__rates_wait(now);
  (void)tm__fail(&err, TM_ELIMIT, "turn.rate",
                 "rate_limit_per_minute allows %lld turns in this minute, and they have begun; try "
                 "again in %lld s",
                 (long long)most, (long long)(wait - 1) / 1000 + 1);
  err.retry_after_ms = wait;
  refuse(s, &err);
}

/* `system` "": the turns of all systems that say nothing themselves are counted together. */
static void set_who(char who[130], const tm_request *r, const char *system) {
  (void)snprintf(who, 130, "%s\n%s", r->tenant, system);
}

static bool rate_holds(tm_slot *s, const char *system, int64_t most) {
  char who[130];
  int64_t now = tm__journal_now(s->journal);
  set_who(who, s->first, system);
  tm_rate rate = tm__rates_take(s->journal->o.rates, tm__slice(who), most, now, &s->first->rated);
  if (rate == TM_RATE_NONE) {
    refuse_rate(s, most, now);
  } else if (rate == TM_RATE_ASK) {
    fetch(s, who, most, now);
  }
  return rate != TM_RATE_TAKEN;
}

/* ---- who is asked ---- */

/* What the current version of the system says; -1: nothing. */
static tm_quotas own_quotas(const tm_slot *s, const char *system) {
  tm_quotas own = {-1, -1};
  tm_bundle *b = tm__registry_current(s->journal->o.registry, tm__slice(system));
  if (b != NULL) own = b->quotas;
  tm__bundle_unref(b);
  return own;
}

/* Deadlines, decisions of others, events and what operators do are never refused. */
static bool is_limited(const tm_request *r) {
  return r->kind == TM_REQUEST_START || r->kind == TM_REQUEST_MESSAGE ||
         (r->kind == TM_REQUEST_SIGNAL && r->signal == TM_TURN_COMMAND);
}

/* Of how many in a minute its turn would be one, counted under *system; 0: nobody counts. */
static int64_t turns_of(const tm_slot *s, const tm_quotas *own, const char **system) {
  bool says = own->turns_per_minute >= 0;
  if (!says) *system = "";
  if (s->journal->o.rates == NULL) return 0;
  return says ? own->turns_per_minute : s->journal->o.quotas.turns_per_minute;
}

bool tm__quota_holds(tm_slot *s, const char *system) {
  const tm_request *r = s->first;
  if (!is_limited(r)) return false;
  const tm_quotas own = own_quotas(s, system), all = s->journal->o.quotas;
  int64_t steps = own.session_steps >= 0 ? own.session_steps : all.session_steps;
  if (steps > 0 && !r->counted) {
    count(s, steps);
    return true;
  }
  int64_t turns = r->rated != 0 ? 0 : turns_of(s, &own, &system);
  return turns > 0 && rate_holds(s, system, turns);
}

void tm__quota_return(const tm_slot *s, tm_request *r) {
  char who[130];
  const char *system = r->system;
  if (r->rated == 0) return;
  const tm_quotas own = own_quotas(s, system);
  int64_t turns = turns_of(s, &own, &system);
  set_who(who, r, system);
  if (turns > 0) tm__rates_return(s->journal->o.rates, tm__slice(who), turns, r->rated);
  r->rated = 0;
}

/* ---- who waits ---- */

typedef struct early_job { /* nobody's: the slot works, or may be gone when it comes back */
  tm_store_job job;
  tm_journal *journal;
  char conversation[TM_ID_SIZE];
  char who[130];
  int64_t most, now;
} early_job;

static tm_status early_work(tm_store_job *base, const tm_store_access *a, tm_error *err) {
  const early_job *e = (const early_job *)(const void *)base;
  return tm__rates_fetch(e->journal->o.rates, a, tm__slice(e->who), e->most, e->now, err);
}

static void on_early(tm_message *m) {
  early_job *e = (early_job *)((char *)m - offsetof(early_job, job.message));
  tm_journal *j = e->journal;
  tm_slot *s = tm__map_get(&j->slots, tm__slice(e->conversation));
  j->pending--;
  if (s != NULL && !j->draining && e->job.status == TM_OK) tm__together_heed(s);
  free(e);
  tm__journal_check(j);
}

/* Where that fails the message waits for its turn. */
static void ask_early(const tm_slot *s, const char *who, int64_t most, int64_t now) {
  early_job *e = calloc(1, sizeof(*e));
  if (e == NULL) return;
  *e = (early_job){.job = {.message.run = on_early,
                           .reply_to = s->journal->o.worker,
                           .write = true,
                           .work = early_work},
                   .journal = s->journal,
                   .most = most,
                   .now = now};
  memcpy(e->conversation, s->id, sizeof(e->conversation));
  memcpy(e->who, who, sizeof(e->who));
  s->journal->pending++;
  tm__storage_run(s->journal->o.storage, &e->job);
}

bool tm__quota_lets(const tm_slot *s, tm_request *r) {
  char who[130];
  const char *system = s->record.head.system;
  if (!s->record.loaded || !is_limited(r)) return true;
  const tm_quotas own = own_quotas(s, system);
  int64_t turns = turns_of(s, &own, &system), now = tm__journal_now(s->journal);
  if (turns <= 0 || r->rated != 0) return true;
  set_who(who, r, system);
  tm_rate rate = tm__rates_take(s->journal->o.rates, tm__slice(who), turns, now, &r->rated);
  if (rate == TM_RATE_ASK) ask_early(s, who, turns, now);
  return rate == TM_RATE_TAKEN;
}
