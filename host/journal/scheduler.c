/* scheduler.c - asks the store which deadlines have passed: at each tick, at a deadline that was
 * announced, or when poked; never twice at once. */
#include <stdlib.h>
#include <string.h>

#include "journal/journal.h"

#define PAGE    256
#define NEVER   INT64_MAX
#define HOLD_MS 5000 /* how long other hosts leave us what we were given */

struct tm_scheduler {
  tm_worker *worker;
  tm_storage *storage;
  tm_clock clock;
  const tm_log *log;
  int64_t poll_ms;
  tm_wake_fn fn;
  void *ud;
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
  int64_t now = tm__clock_now(&s->clock);
  int64_t wanted = __atomic_exchange_n(&s->wanted, NEVER, __ATOMIC_ACQ_REL);
  if (wanted < now + ms) ms = wanted - now;
  if (ms < 1) ms = 1;
  if (s->armed) (void)tm__timer_cancel(s->worker, s->timer);
  tm_error err;
  s->armed = tm__timer_start(s->worker, (uint64_t)ms, on_timer, s, &s->timer, &err) == TM_OK;
  if (!s->armed) tm__log_error(s->log, TM_LOG_ERROR, "deadlines cannot be watched", &err);
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
  int64_t left = __atomic_load_n(&s->next, __ATOMIC_RELAXED) - tm__clock_now(&s->clock);
  arm(s, left < s->poll_ms ? left : s->poll_ms); /* more: the clock was turned back */
}

void tm__scheduler_poke(tm_scheduler *s) {
  if (!__atomic_exchange_n(&s->poked, true, __ATOMIC_ACQ_REL)) {
    tm__worker_post(s->worker, &s->poke);
  }
}

void tm__scheduler_hint(tm_scheduler *s, int64_t when) {
  if (when <= 0 || when >= __atomic_load_n(&s->next, __ATOMIC_ACQUIRE)) return;
  int64_t wanted = __atomic_load_n(&s->wanted, __ATOMIC_RELAXED);
  while (when < wanted && !__atomic_compare_exchange_n(&s->wanted, &wanted, when, true,
                                                       __ATOMIC_ACQ_REL, __ATOMIC_RELAXED)) {
  }
  if (when < wanted && !__atomic_exchange_n(&s->hinted, true, __ATOMIC_ACQ_REL)) {
    tm__worker_post(s->worker, &s->hint);
  }
}

/* ---- looking ---- */

static tm_status on_head(void *ud, const tm_head *head) {
  tm_scheduler *s = ud;
  if (s->count < PAGE) s->heads[s->count++] = *head;
  return TM_OK;
}

/* Half of a page for those in memory at most, so that neither store keeps the other waiting. */
static tm_status work(tm_store_job *job, const tm_store_access *a, tm_error *err) {
  tm_scheduler *s = (tm_scheduler *)((char *)job - offsetof(tm_scheduler, job));
  s->count = 0;
  tm_status status = a->memory_backend->due(a->memory_conn, s->now, 0, PAGE / 2, on_head, s, err);
  s->full = s->count == PAGE / 2;
  size_t rest = PAGE - s->count;
  size_t before = s->count;
  if (status == TM_OK) status = a->backend->due(a->conn, s->now, HOLD_MS, rest, on_head, s, err);
  s->full = s->full || s->count - before == rest;
  return status;
}

/* A full page means that more is due: look again at once, and while the same heads come (their
 * turns are still under way) ever less often. */
static int64_t next_pause(tm_scheduler *s) {
  const char *first = s->full && s->count > 0 ? s->heads[0].id : "";
  bool same = strcmp(s->first, first) == 0;
  s->pause = same ? s->pause * 2 : 1;
  (void)tm__copy(s->first, sizeof(s->first), tm__slice(first));
  return s->full && s->pause < s->poll_ms ? s->pause : s->poll_ms;
}

static void on_read(tm_message *m) { /* on the reader's thread */
  tm_scheduler *s = (tm_scheduler *)((char *)m - offsetof(tm_scheduler, job.message));
  tm__worker_post(s->worker, &s->landed);
  uv_sem_post(&s->has_landed);
}

static void on_landed(tm_message *m) {
  tm_scheduler *s = (tm_scheduler *)((char *)m - offsetof(tm_scheduler, landed));
  if (s->stopped) return;
  uv_sem_wait(&s->has_landed);
  s->reading = false;
  if (s->job.status != TM_OK) {
    tm__log_error(s->log, TM_LOG_WARNING, "deadlines cannot be read", &s->job.error);
    s->count = 0;
    s->full = false;
  }
  for (size_t i = 0; i < s->count; i++) {
    s->fn(s->ud, &s->heads[i]);
  }
  int64_t pause = next_pause(s);
  if (s->again) {
    look(s);
  } else {
    arm(s, pause);
  }
}

static void look(tm_scheduler *s) {
  if (s->stopped) return;
  s->again = s->reading;
  if (s->reading) return;
  if (s->armed) (void)tm__timer_cancel(s->worker, s->timer);
  s->armed = false;
  s->reading = true;
  __atomic_store_n(&s->next, NEVER, __ATOMIC_RELEASE);
  s->now = tm__clock_now(&s->clock);
  tm__storage_run(s->storage, &s->job);
}

/* ---- life ---- */

tm_status tm__scheduler_new(tm_scheduler **out, tm_worker *worker, tm_storage *storage,
                            tm_clock clock, const tm_log *log, int64_t poll_ms, tm_wake_fn fn,
                            void *ud, tm_error *err) {
  *out = NULL;
  tm_scheduler *s = calloc(1, sizeof(*s));
  if (s == NULL || uv_sem_init(&s->has_landed, 0) != 0) {
    free(s);
    return tm__fail_memory(err, "the scheduler");
  }
  s->worker = worker;
  s->storage = storage;
  s->clock = clock;
  s->log = log;
  s->poll_ms = poll_ms;
  s->next = NEVER;
  s->wanted = NEVER;
  s->fn = fn;
  s->ud = ud;
  s->poke.run = on_poke;
  s->hint.run = on_hint;
  s->landed.run = on_landed;
  s->job.message.run = on_read;
  s->job.work = work;
  s->job.write = tm__storage_shared(storage);
  *out = s;
  tm__scheduler_poke(s); /* the first look, on the worker */
  return TM_OK;
}

void tm__scheduler_stop(tm_scheduler *s) {
  if (s->stopped) return;
  s->stopped = true;
  if (s->armed) (void)tm__timer_cancel(s->worker, s->timer);
  s->armed = false;
  if (s->reading) uv_sem_wait(&s->has_landed); /* one bounded read */
}

void tm__scheduler_free(tm_scheduler *s) {
  if (s == NULL) return;
  uv_sem_destroy(&s->has_landed);
  free(s);
}
