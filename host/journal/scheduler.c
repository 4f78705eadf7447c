/* scheduler.c - asks the store which deadlines have passed: at each tick, at a deadline that was
 * announced, or when poked; never twice at once. Where tenants have stores of their own, the store
 * of all says which of them to ask; a page of them is asked at once, so that one whose store must
 * be opened, or stands in a queue behind turns, does not hold up the others of its page. */
#include <stdlib.h>
#include <string.h>

#include "journal/journal.h"

#define PAGE        256
#define TENANTS     16 /* asked in one look */
#define TENANT_PAGE 32
#define NEVER       INT64_MAX
#define HOLD_MS     5000 /* how long other hosts leave us what we were given */
/* Until a tenant without deadlines is asked again, and one whose store fails or whose events wait
 * for somebody to be told. */
#define CALM_MS (INT64_C(6) * 60 * 60 * 1000)
#define FAIL_MS (INT64_C(60) * 1000)
/* Until the next look where not even that can be noted. */
#define STUCK_MS (INT64_C(10) * 1000)

/* A tenant that is asked, with the job that does it. */
typedef struct due_tenant {
  tm_scheduler *scheduler;
  char name[65];
  int64_t wake_at; /* as the store of all has it */
  tm_store_job job;
  tm_message landed;
  bool postpones;  /* it could not be asked; the job notes that */
  bool has_events; /* some are due */
  tm_head heads[TENANT_PAGE];
  size_t count;
} due_tenant;

struct tm_scheduler {
  tm_scheduler_options o;
  tm_message poke, hint;
  bool poked, hinted; /* atomic: the message is under way */
  int64_t next;       /* atomic; host time of the next look; NEVER while one is out */
  int64_t wanted;     /* atomic; the earliest deadline announced before `next`; NEVER: none */
  int64_t aim;        /* the one that the timer is for; NEVER: none */
  uint64_t timer;
  bool armed, again, stopped;
  size_t out; /* jobs that have not come back: of the store of all, then of tenants */
  tm_store_job job;
  tm_message landed;   /* it has come back */
  uv_sem_t has_landed; /* for each job: nothing of it is on a store's thread any more */
  int64_t now;         /* of the look that is out */
  due_tenant tenants[TENANTS];
  size_t tenant_count;
  int64_t rest; /* until the next look */
  bool stuck;   /* this look could not note what failed in it */
  bool failing; /* nor could the one before: it has been told */
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
  s->aim = wanted < now + ms ? wanted : NEVER;
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
  if (s->stopped || s->out > 0) return; /* what is out looks at `wanted` when it comes back */
  int64_t left = __atomic_load_n(&s->next, __ATOMIC_RELAXED) - tm__clock_now(&s->o.clock);
  arm(s, left < s->o.poll_ms ? left : s->o.poll_ms); /* more: the clock was turned back */
}

void tm__scheduler_poke(tm_scheduler *s) {
  if (!__atomic_exchange_n(&s->poked, true, __ATOMIC_ACQ_REL)) {
    tm__worker_post(s->o.worker, &s->poke);
  }
}

/* False: an earlier one is wanted. */
static bool want(tm_scheduler *s, int64_t when) {
  int64_t wanted = __atomic_load_n(&s->wanted, __ATOMIC_RELAXED);
  while (when < wanted && !__atomic_compare_exchange_n(&s->wanted, &wanted, when, true,
                                                       __ATOMIC_ACQ_REL, __ATOMIC_RELAXED)) {
  }
  return when < wanted;
}

void tm__scheduler_hint(tm_scheduler *s, int64_t when) {
  if (when <= 0 || when >= __atomic_load_n(&s->next, __ATOMIC_ACQUIRE)) return;
  if (want(s, when) && !__atomic_exchange_n(&s->hinted, true, __ATOMIC_ACQ_REL)) {
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
  tm_status status = tm__access_due(a, true, s->now, 0, PAGE / 2, on_head, s, err);
  s->full = s->count == PAGE / 2;
  size_t rest = PAGE - s->count;
  size_t before = s->count;
  if (status == TM_OK) status = tm__access_due(a, false, s->now, HOLD_MS, rest, on_head, s, err);
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

static tm_status set_wake(const due_tenant *t, const tm_store_access *a, int64_t wake_at,
                          tm_error *err) {
  tm_status status =
      a->backend->tenant_wake(a->common, tm__slice(t->name), t->wake_at, wake_at, err);
  return status == TM_ECONFLICT ? TM_OK : status; /* an earlier one came */
}

static tm_status on_due_session(void *ud, const tm_session *session) {
  if (session->damaged) return TM_OK; /* nobody can look at it */
  *(int64_t *)ud = session->look_at;
  return TM_ECANCELLED;
}

static int64_t earlier(int64_t a, int64_t b) {
  return a == 0 || (b > 0 && b < a) ? b : a;
}

/* When the next event is due. Without anybody to be told it waits, and is asked for now and then:
 * somebody may be named at the next start. */
static tm_status next_event(due_tenant *t, const tm_store_access *a, int64_t *out, tm_error *err) {
  const tm_scheduler *s = t->scheduler;
  tm_status status = a->backend->outbox_next(a->conn, out, err);
  bool due = status == TM_OK && *out > 0 && *out <= s->now;
  if (s->o.events != NULL)
    t->has_events = t->has_events || due;
  else if (due)
    *out = s->now + FAIL_MS;
  return status;
}

/* The earliest deadline of a conversation, a session or an event; 0: there is none. */
static tm_status next_deadline(due_tenant *t, const tm_store_access *a, int64_t *out,
                               tm_error *err) {
  int64_t session = 0, event = 0;
  tm_status status = a->backend->next_due(a->conn, out, err);
  if (status != TM_OK) return status;
  status = a->backend->sessions_due(a->conn, INT64_MAX, 1, on_due_session, &session, err);
  if (status == TM_ECANCELLED) status = TM_OK;
  if (status == TM_OK) status = next_event(t, a, &event, err);
  *out = earlier(earlier(*out, session), event);
  return status;
}

static tm_status on_tenant_head(void *ud, const tm_head *head) {
  due_tenant *t = ud;
  if (t->count < TENANT_PAGE) t->heads[t->count++] = *head;
  return TM_OK;
}

/* What is committed before the wake-up is set is seen by the second look, what is committed later
 * announces itself after its commit (storage.c). */
static tm_status tenant_work(tm_store_job *job, const tm_store_access *a, tm_error *err) {
  due_tenant *t = (due_tenant *)((char *)job - offsetof(due_tenant, job));
  const tm_scheduler *s = t->scheduler;
  int64_t next = 0, again = 0;
  tm_status status = tm__access_due(a, false, s->now, HOLD_MS, TENANT_PAGE, on_tenant_head, t, err);
  if (status == TM_OK && s->o.sessions != NULL) status = s->o.sessions(s->o.ud, a, t->name, err);
  if (status == TM_OK) status = next_deadline(t, a, &next, err);
  int64_t wake_at = next_look(s, next);
  if (status == TM_OK) status = set_wake(t, a, wake_at, err);
  if (status == TM_OK) status = next_deadline(t, a, &again, err);
  if (status == TM_OK && again > s->now && again < wake_at) {
    status = a->backend->tenant_wake(a->common, tm__slice(t->name), -1, again, err);
  }
  return status;
}

/* The tenant's store fails: nobody asks it at every tick. */
static tm_status postpone_work(tm_store_job *job, const tm_store_access *a, tm_error *err) {
  const due_tenant *t = (due_tenant *)((char *)job - offsetof(due_tenant, job));
  return set_wake(t, a, t->scheduler->now + FAIL_MS, err);
}

/* A full page means that more is due: look again at once, and while the same heads come (their
 * turns are still under way) ever less often. */
static int64_t next_pause(tm_scheduler *s) {
  const char *first = s->full && s->count > 0 ? s->heads[0].id : "";
  bool same = *first != '\0' && strcmp(s->first, first) == 0;
  if (!same)
    s->pause = 1;
  else if (s->pause < s->o.poll_ms)
    s->pause *= 2;
  (void)tm__copy(s->first, sizeof(s->first), tm__slice(first));
  return s->full && s->pause < s->o.poll_ms ? s->pause : s->o.poll_ms;
}

/* On the store's thread: back to the worker. */
static void come_back(tm_scheduler *s, tm_message *landed) {
  tm__worker_post(s->o.worker, landed);
  uv_sem_post(&s->has_landed);
}

static void on_read(tm_message *m) {
  tm_scheduler *s = (tm_scheduler *)((char *)m - offsetof(tm_scheduler, job.message));
  come_back(s, &s->landed);
}

static void on_asked(tm_message *m) {
  due_tenant *t = (due_tenant *)((char *)m - offsetof(due_tenant, job.message));
  come_back(t->scheduler, &t->landed);
}

/* On the worker again; false: nobody wants to know. */
static bool has_come(tm_scheduler *s, const tm_store_job *job) {
  if (s->stopped) return false;
  uv_sem_wait(&s->has_landed);
  s->out--;
  if (job->status != TM_OK && !s->failing)
    tm__log_error(s->o.log, TM_LOG_WARNING, "deadlines cannot be read", &job->error);
  return true;
}

static void ask(due_tenant *t) {
  tm_scheduler *s = t->scheduler;
  s->out++;
  t->count = 0;
  t->has_events = false;
  t->job.work = t->postpones ? postpone_work : tenant_work;
  t->job.write = true;
  (void)tm__copy(t->job.tenant, sizeof(t->job.tenant), tm__slice(t->postpones ? "" : t->name));
  tm__storage_run(s->o.storage, &t->job);
}

static void wake(const tm_scheduler *s, const tm_head *heads, size_t count) {
  for (size_t i = 0; i < count; i++)
    s->o.wake(s->o.ud, &heads[i]);
}

/* The look is over once everybody has answered. */
static void end_look(tm_scheduler *s) {
  if (s->out > 0) return;
  s->failing = s->stuck;
  if (s->again)
    look(s);
  else
    arm(s, s->stuck && s->rest < STUCK_MS ? STUCK_MS : s->rest);
}

static void on_tenant_landed(tm_message *m) {
  due_tenant *t = (due_tenant *)((char *)m - offsetof(due_tenant, landed));
  tm_scheduler *s = t->scheduler;
  if (!has_come(s, &t->job)) return;
  bool failed = t->job.status != TM_OK;
  if (!failed) wake(s, t->heads, t->count);
  if (!failed && t->has_events) s->o.events(s->o.ud, t->name);
  s->stuck = s->stuck || (failed && t->postpones);
  if (failed && !t->postpones) {
    t->postpones = true;
    ask(t);
  }
  end_look(s);
}

static void on_landed(tm_message *m) {
  tm_scheduler *s = (tm_scheduler *)((char *)m - offsetof(tm_scheduler, landed));
  if (!has_come(s, &s->job)) return;
  if (s->job.status != TM_OK) {
    s->full = false;
    s->count = s->tenant_count = 0;
  }
  wake(s, s->heads, s->count);
  s->rest = s->tenant_count == TENANTS ? 1 : next_pause(s);
  for (size_t i = 0; i < s->tenant_count; i++) {
    s->tenants[i].postpones = false;
    ask(&s->tenants[i]);
  }
  end_look(s);
}

static void look(tm_scheduler *s) {
  if (s->stopped) return;
  s->again = s->out > 0;
  if (s->out > 0) return;
  if (s->armed) (void)tm__timer_cancel(s->o.worker, s->timer);
  s->armed = false;
  __atomic_store_n(&s->next, NEVER, __ATOMIC_RELEASE);
  s->now = tm__clock_now(&s->o.clock);
  if (s->aim > s->now) (void)want(s, s->aim); /* a timer may be early, and pokes come at any time */
  s->aim = NEVER;
  s->tenant_count = 0;
  s->stuck = false;
  s->out = 1;
  s->job.work = main_work;
  s->job.write = tm__storage_shared(s->o.storage);
  tm__storage_run(s->o.storage, &s->job);
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
  s->wanted = s->aim = NEVER;
  s->poke.run = on_poke;
  s->hint.run = on_hint;
  s->landed.run = on_landed;
  s->job.message.run = on_read;
  for (size_t i = 0; i < TENANTS; i++) {
    s->tenants[i].scheduler = s;
    s->tenants[i].landed.run = on_tenant_landed;
    s->tenants[i].job.message.run = on_asked;
  }
  *out = s;
  tm__scheduler_poke(s); /* the first look, on the worker */
  return TM_OK;
}

void tm__scheduler_stop(tm_scheduler *s) {
  if (s->stopped) return;
  s->stopped = true;
  if (s->armed) (void)tm__timer_cancel(s->o.worker, s->timer);
  s->armed = false;
  for (; s->out > 0; s->out--)
    uv_sem_wait(&s->has_landed); /* bounded reads */
}

void tm__scheduler_free(tm_scheduler *s) {
  if (s == NULL) return;
  uv_sem_destroy(&s->has_landed);
  free(s);
}
