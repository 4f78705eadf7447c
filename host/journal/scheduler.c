/* scheduler.c - asks the store which deadlines have passed: at each tick, at a deadline that was
 * announced, or when poked; never twice at once. Where tenants have stores of their own, the store
 * of all says which of them to ask; one after the other is asked then. */
#include <stdlib.h>
#include <string.h>

#include "journal/journal.h"

#define PAGE    256
#define TENANTS 16 /* asked in one look */
#define NEVER   INT64_MAX
#define HOLD_MS 5000 /* how long other hosts leave us what we were given */
/* Until a tenant without deadlines is asked again, and one whose store fails or whose events wait
 * for somebody to be told. */
#define CALM_MS (INT64_C(6) * 60 * 60 * 1000)
#define FAIL_MS (INT64_C(60) * 1000)

typedef struct due_tenant {
  char name[65];
  int64_t wake_at; /* as the store of all has it */
} due_tenant;

struct tm_scheduler {
  tm_scheduler_options o;
  tm_message poke, hint;
  bool poked, hinted; /* atomic: the message is under way */
  int64_t next;       /* atomic; host time of the next look; NEVER while one is out */
  int64_t wanted;     /* atomic; the earliest deadline announced before `next`; NEVER: none */
  uint64_t timer;
  bool armed, reading, again, stopped;
  tm_store_job job;
  tm_message landed;   /* the look has come back */
  uv_sem_t has_landed; /* ... and nothing of it is on a reader's thread any more */
  int64_t now;         /* of the look that is out */
  due_tenant tenants[TENANTS];
  size_t tenant_count, tenant; /* how many, and which is asked now: from 1 */
  bool asking;                 /* tenants; the store of all has answered */
  bool has_events;             /* the tenant that was asked: some are due */
  int64_t rest;                /* until the next look */
  tm_head heads[PAGE];
  size_t count;
  bool full;
  char first[TM_ID_SIZE]; /* the first head of the look before, when that was full */
  int64_t pause;          /* before the next look while pages are full */
};

static void look(tm_scheduler *s);

/* ---- when ---- */

static void on_timer(void *ud) {
  tm_scheduler *s = ud;
  s->armed = false;
  look(s);
}

/* The next look is in `ms`, or when the earliest announced deadline comes before. */
static void arm(tm_scheduler *s, int64_t ms) {
  int64_t now = tm__clock_now(&s->o.clock);
  int64_t wanted = __atomic_exchange_n(&s->wanted, NEVER, __ATOMIC_ACQ_REL);
  if (wanted < now + ms) ms = wanted - now;
  if (ms < 1) ms = 1;
  if (s->armed) (void)tm__timer_cancel(s->o.worker, s->timer);
  tm_error err;
  s->armed = tm__timer_start(s->o.worker, (uint64_t)ms, on_timer, s, &s->timer, &err) == TM_OK;
  if (!s->armed) tm__log_error(s->o.log, TM_LOG_ERROR, "deadlines cannot be watched", &err);
  __atomic_store_n(&s->next, now + ms, __ATOMIC_RELEASE);
}

static void on_poke(tm_message *m) {
  tm_scheduler *s = (tm_scheduler *)((char *)m - offsetof(tm_scheduler, poke));
  __atomic_store_n(&s->poked, false, __ATOMIC_RELEASE);
  look(s);
}

static void on_hint(tm_message *m) {
  tm_scheduler *s = (tm_scheduler *)((char *)m - offsetof(tm_scheduler, hint));
  (void)__atomic_exchange_n(&s->hinted, false, __ATOMIC_ACQ_REL);
  if (s->stopped || s->reading) return; /* what is out looks at `wanted` when it comes back */
  int64_t left = __atomic_load_n(&s->next, __ATOMIC_RELAXED) - tm__clock_now(&s->o.clock);
  arm(s, left < s->o.poll_ms ? left : s->o.poll_ms); /* more: the clock was turned back */
}

void tm__scheduler_poke(tm_scheduler *s) {
  if (!__atomic_exchange_n(&s->poked, true, __ATOMIC_ACQ_REL)) {
    tm__worker_post(s->o.worker, &s->poke);
  }
}

void tm__scheduler_hint(tm_scheduler *s, int64_t when) {
  if (when <= 0 || when >= __atomic_load_n(&s->next, __ATOMIC_ACQUIRE)) return;
  int64_t wanted = __atomic_load_n(&s->wanted, __ATOMIC_RELAXED);
  while (when < wanted && !__atomic_compare_exchange_n(&s->wanted, &wanted, when, true,
                                                       __ATOMIC_ACQ_REL, __ATOMIC_RELAXED)) {
  }
  if (when < wanted && !__atomic_exchange_n(&s->hinted, true, __ATOMIC_ACQ_REL)) {
    tm__worker_post(s->o.worker, &s->hint);
  }
}

/* ---- looking ---- */

static tm_status on_head(void *ud, const tm_head *head) {
  tm_scheduler *s = ud;
  if (s->count < PAGE) s->heads[s->count++] = *head;
  return TM_OK;
}

static tm_status on_tenant(void *ud, tm_slice tenant, int64_t wake_at) {
  tm_scheduler *s = ud;
  due_tenant *t = &s->tenants[s->tenant_count];
  if (s->tenant_count == TENANTS || !tm__copy(t->name, sizeof(t->name), tenant)) return TM_OK;
  t->wake_at = wake_at;
  s->tenant_count++;
  return TM_OK;
}

/* Half of a page for those in memory at most, so that neither store keeps the other waiting. */
static tm_status main_work(tm_store_job *job, const tm_store_access *a, tm_error *err) {
  tm_scheduler *s = (tm_scheduler *)((char *)job - offsetof(tm_scheduler, job));
  s->count = 0;
  tm_status status = a->memory_backend->due(a->memory_conn, s->now, 0, PAGE / 2, on_head, s, err);
  s->full = s->count == PAGE / 2;
  size_t rest = PAGE - s->count;
  size_t before = s->count;
  if (status == TM_OK) status = a->backend->due(a->conn, s->now, HOLD_MS, rest, on_head, s, err);
  s->full = s->full || s->count - before == rest;
  if (status == TM_OK && tm__storage_isolated(s->o.storage)) {
    status = a->backend->tenants_due(a->common, s->now, TENANTS, on_tenant, s, err);
  }
  return status;
}

/* ---- a tenant with a store of its own; on a writer's thread ---- */

/* When it is asked again: at its next deadline; soon while what is due has not been done. */
static int64_t next_look(const tm_scheduler *s, int64_t next_due) {
  if (next_due <= 0) return s->now + CALM_MS;
  return next_due > s->now + s->o.poll_ms ? next_due : s->now + s->o.poll_ms;
}

static tm_status set_wake(const tm_scheduler *s, const tm_store_access *a, int64_t wake_at,
                          tm_error *err) {
  const due_tenant *t = &s->tenants[s->tenant - 1];
  tm_status status =
      a->backend->tenant_wake(a->common, tm__slice(t->name), t->wake_at, wake_at, err);
  return status == TM_ECONFLICT ? TM_OK : status; /* an earlier one came */
}

static tm_status on_due_session(void *ud, const tm_session *session) {
  *(int64_t *)ud = session->look_at;
  return TM_ECANCELLED;
}

static int64_t earlier(int64_t a, int64_t b) {
  return a == 0 || (b > 0 && b < a) ? b : a;
}

/* When the next event is due. Without anybody to be told it waits, and is asked for now and then:
 * somebody may be named at the next start. */
static tm_status next_event(tm_scheduler *s, const tm_store_access *a, int64_t *out,
                            tm_error *err) {
  tm_status status = a->backend->outbox_next(a->conn, out, err);
  bool due = status == TM_OK && *out > 0 && *out <= s->now;
  if (s->o.events != NULL)
    s->has_events = s->has_events || due;
  else if (due)
    *out = s->now + FAIL_MS;
  return status;
}

/* The earliest deadline of a conversation, a session or an event; 0: there is none. */
static tm_status next_deadline(tm_scheduler *s, const tm_store_access *a, int64_t *out,
                               tm_error *err) {
  int64_t session = 0, event = 0;
  tm_status status = a->backend->next_due(a->conn, out, err);
  if (status != TM_OK) return status;
  status = a->backend->sessions_due(a->conn, INT64_MAX, 1, on_due_session, &session, err);
  if (status == TM_ECANCELLED) status = TM_OK;
  if (status == TM_OK) status = next_event(s, a, &event, err);
  *out = earlier(earlier(*out, session), event);
  return status;
}

/* What is committed before the wake-up is set is seen by the second look, what is committed later
 * announces itself after its commit (storage.c). */
static tm_status tenant_work(tm_store_job *job, const tm_store_access *a, tm_error *err) {
  tm_scheduler *s = (tm_scheduler *)((char *)job - offsetof(tm_scheduler, job));
  int64_t next = 0, again = 0;
  s->has_events = false;
  tm_status status = a->backend->due(a->conn, s->now, HOLD_MS, PAGE, on_head, s, err);
  if (status == TM_OK && s->o.sessions != NULL)
    status = s->o.sessions(s->o.ud, a, job->tenant, err);
  if (status == TM_OK) status = next_deadline(s, a, &next, err);
  int64_t wake_at = next_look(s, next);
  if (status == TM_OK) status = set_wake(s, a, wake_at, err);
  if (status == TM_OK) status = next_deadline(s, a, &again, err);
  if (status == TM_OK && again > s->now && again < wake_at) {
    status = a->backend->tenant_wake(a->common, tm__slice(job->tenant), -1, again, err);
  }
  return status;
}

/* The tenant's store fails: nobody asks it at every tick. */
static tm_status postpone_work(tm_store_job *job, const tm_store_access *a, tm_error *err) {
  const tm_scheduler *s = (tm_scheduler *)((char *)job - offsetof(tm_scheduler, job));
  return set_wake(s, a, s->now + FAIL_MS, err);
}

/* A full page means that more is due: look again at once, and while the same heads come (their
 * turns are still under way) ever less often. */
static int64_t next_pause(tm_scheduler *s) {
  const char *first = s->full && s->count > 0 ? s->heads[0].id : "";
  bool same = strcmp(s->first, first) == 0;
  s->pause = same ? s->pause * 2 : 1;
  (void)tm__copy(s->first, sizeof(s->first), tm__slice(first));
  return s->full && s->pause < s->o.poll_ms ? s->pause : s->o.poll_ms;
}

static void on_read(tm_message *m) { /* on the reader's thread */
  tm_scheduler *s = (tm_scheduler *)((char *)m - offsetof(tm_scheduler, job.message));
  tm__worker_post(s->o.worker, &s->landed);
  uv_sem_post(&s->has_landed);
}

static void run(tm_scheduler *s,
                tm_status (*work)(tm_store_job *, const tm_store_access *, tm_error *),
                const char *tenant, bool write) {
  s->reading = true;
  s->job.work = work;
  s->job.write = write;
  (void)tm__copy(s->job.tenant, sizeof(s->job.tenant), tm__slice(tenant));
  tm__storage_run(s->o.storage, &s->job);
}

/* Asks the next tenant, if there is one; `failed`: the one before could not be asked. */
static bool ask_tenants(tm_scheduler *s, bool failed) {
  bool own = s->asking && s->job.tenant[0] != '\0'; /* what failed was the tenant's store */
  s->count = 0;
  s->asking = true;
  if (failed && own) {
    run(s, postpone_work, "", true);
  } else if (s->tenant < s->tenant_count) {
    run(s, tenant_work, s->tenants[s->tenant++].name, true);
  } else {
    return false;
  }
  return true;
}

static void on_landed(tm_message *m) {
  tm_scheduler *s = (tm_scheduler *)((char *)m - offsetof(tm_scheduler, landed));
  if (s->stopped) return;
  uv_sem_wait(&s->has_landed);
  s->reading = false;
  bool failed = s->job.status != TM_OK;
  if (failed) {
    tm__log_error(s->o.log, TM_LOG_WARNING, "deadlines cannot be read", &s->job.error);
    if (!s->asking) s->full = false;
    s->count = 0;
  }
  for (size_t i = 0; i < s->count; i++) {
    s->o.wake(s->o.ud, &s->heads[i]);
  }
  if (s->has_events && !failed) s->o.events(s->o.ud, s->job.tenant);
  s->has_events = false;
  if (!s->asking) s->rest = s->tenant_count == TENANTS ? 1 : next_pause(s);
  if (ask_tenants(s, failed)) return;
  if (s->again) {
    look(s);
  } else {
    arm(s, s->rest);
  }
}

static void look(tm_scheduler *s) {
  if (s->stopped) return;
  s->again = s->reading;
  if (s->reading) return;
  if (s->armed) (void)tm__timer_cancel(s->o.worker, s->timer);
  s->armed = false;
  __atomic_store_n(&s->next, NEVER, __ATOMIC_RELEASE);
  s->now = tm__clock_now(&s->o.clock);
  s->tenant_count = s->tenant = 0;
  s->asking = false;
  run(s, main_work, "", tm__storage_shared(s->o.storage));
}

/* ---- life ---- */

tm_status tm__scheduler_new(tm_scheduler **out, const tm_scheduler_options *o, tm_error *err) {
  *out = NULL;
  tm_scheduler *s = calloc(1, sizeof(*s));
  if (s == NULL || uv_sem_init(&s->has_landed, 0) != 0) {
    free(s);
    return tm__fail_memory(err, "the scheduler");
  }
  s->o = *o;
  s->next = NEVER;
  s->wanted = NEVER;
  s->poke.run = on_poke;
  s->hint.run = on_hint;
  s->landed.run = on_landed;
  s->job.message.run = on_read;
  *out = s;
  tm__scheduler_poke(s); /* the first look, on the worker */
  return TM_OK;
}

void tm__scheduler_stop(tm_scheduler *s) {
  if (s->stopped) return;
  s->stopped = true;
  if (s->armed) (void)tm__timer_cancel(s->o.worker, s->timer);
  s->armed = false;
  if (s->reading) uv_sem_wait(&s->has_landed); /* one bounded read */
}

void tm__scheduler_free(tm_scheduler *s) {
  if (s == NULL) return;
  uv_sem_destroy(&s->has_landed);
  free(s);
}
