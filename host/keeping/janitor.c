/* janitor.c - looks at the clock, makes passes piece by piece, rests as long as each piece took. */
#include "keeping/janitor.h"

#include <stdlib.h>

#include "core/json.h"
#include "keeping/purge.h"
#include "keeping/versions.h"

#define REST_MAX_MS 500
#define PIECES_MAX  8     /* of a tenant's sessions in one job */
#define AFTER_FAULT 60000 /* ms to the next pass when one could not be finished */

typedef struct wish { /* somebody waits for a pass */
  tm_message message;
  tm_janitor *janitor;
  struct wish *next;
  bool dry;
  tm_reply_fn fn;
  void *ud;
} wish;

struct tm_janitor {
  tm_janitor_options o;
  tm_message start, poke;
  bool poked; /* atomic: the message is under way */
  wish *first, *last;
  tm_purge pass;
  tm_versions versions; /* behind it, in a pass that has them */
  tm_error fault;       /* the first of the pass */
  wish *asked;          /* who asked for this pass; NULL: the clock */
  int64_t next_pass;    /* host time; likewise: */
  int64_t next_versions;
  bool seen_all;              /* every session was looked at since the start */
  bool passing, out, stopped; /* out: a piece is on a store thread */
  bool armed;
  uint64_t timer;
  int64_t began; /* the piece, monotonic microseconds */
  tm_store_job job;
  tm_message landed;
  uv_sem_t has_landed; /* nothing of the piece is on a store thread any more */
};

static void look(tm_janitor *j);

/* ---- when ---- */

static void on_timer(void *ud) {
  tm_janitor *j = ud;
  j->armed = false;
  look(j);
}

void tm__janitor_poke(tm_janitor *j) {
  if (!__atomic_exchange_n(&j->poked, true, __ATOMIC_ACQ_REL)) {
    tm__worker_post(j->o.worker, &j->poke);
  }
}

static void arm(tm_janitor *j, int64_t ms) {
  tm_error err;
  if (j->armed) (void)tm__timer_cancel(j->o.worker, j->timer);
  j->armed = tm__timer_start(j->o.worker, (uint64_t)(ms < 1 ? 1 : ms), on_timer, j, &j->timer,
                             &err) == TM_OK;
  if (!j->armed) tm__janitor_poke(j); /* without memory for a timer there is no rest */
}

static void on_start(tm_message *m) {
  tm_janitor *j = (tm_janitor *)((char *)m - offsetof(tm_janitor, start));
  if (!j->stopped) arm(j, j->o.tick_ms);
}

static void on_poke(tm_message *m) {
  tm_janitor *j = (tm_janitor *)((char *)m - offsetof(tm_janitor, poke));
  __atomic_store_n(&j->poked, false, __ATOMIC_RELEASE);
  look(j);
}

/* ---- whoever waits for a pass ---- */

static void refuse(wish *w, const tm_error *err) {
  w->fn(w->ud, &(tm_reply){.status = err->status, .error = err});
  free(w);
}

static void answer(tm_janitor *j, wish *w) {
  tm_buf out = {0};
  tm_error err;
  tm__buf_byte(&out, '{');
  tm__json_member_bool(&out, "dry_run", w->dry);
  tm__json_member_int(&out, "conversations", j->pass.conversations);
  tm__json_member_int(&out, "sessions", j->pass.sessions);
  tm__json_member_int(&out, "sessions_ended", j->pass.sessions_ended);
  tm__json_member_int(&out, "versions", j->versions.dropped);
  tm__json_member_int(&out, "events", j->pass.events);
  tm__buf_byte(&out, '}');
  if (tm__buf_ok(&out)) {
    w->fn(w->ud, &(tm_reply){.status = TM_OK, .json = out.ptr, .size = out.len});
    free(w);
  } else {
    (void)tm__fail_memory(&err, "an answer");
    refuse(w, &err);
  }
  tm__buf_free(&out);
}

static void on_wish(tm_message *m) {
  wish *w = (wish *)(void *)m;
  tm_janitor *j = w->janitor;
  tm_error err;
  if (j->stopped) {
    (void)tm__journal_stopping(&err);
    refuse(w, &err);
    return;
  }
  if (j->first == NULL) {
    j->first = w;
  } else {
    j->last->next = w;
  }
  j->last = w;
  look(j);
}

void tm__janitor_run(tm_janitor *j, bool dry, tm_reply_fn fn, void *ud) {
  wish *w = calloc(1, sizeof(*w));
  if (w == NULL) {
    tm_error err;
    (void)tm__fail_memory(&err, "a purge");
    fn(ud, &(tm_reply){.status = err.status, .error = &err});
    return;
  }
  *w = (wish){.message.run = on_wish, .janitor = j, .dry = dry, .fn = fn, .ud = ud};
  tm__worker_post(j->o.worker, &w->message);
}

/* ---- a pass ---- */

static void begin_pass(tm_janitor *j, bool whole) {
  const tm_retention *keep = j->o.keep;
  int64_t now = tm__clock_now(&j->o.clock);
  bool any = keep->session_ms > 0 || keep->sessions.idle_ms > 0;
  j->pass = (tm_purge){.keep = keep,
                       .registry = j->o.registry,
                       .now = now,
                       .dry = j->asked != NULL && j->asked->dry,
                       .all_sessions = j->asked != NULL || (whole && any && !j->seen_all),
                       .sessions_only = !whole,
                       .isolated = whole && tm__storage_isolated(j->o.storage)};
  j->fault = (tm_error){0};
  j->passing = true;
  if (whole) j->next_pass = now + keep->cleanup_ms;
}

/* Also after the clock was turned back. */
static bool is_due(int64_t when, int64_t every, int64_t now) {
  return now >= when || when > now + every;
}

static void begin_versions(tm_janitor *j, int64_t now) {
  bool due = j->asked != NULL || is_due(j->next_versions, TM_VERSION_EVERY_MS, now);
  j->versions = (tm_versions){.registry = j->o.registry,
                              .now = now,
                              .dry = j->pass.dry,
                              .isolated = tm__storage_isolated(j->o.storage),
                              .stage = due ? TM_VERSIONS_KEEP : TM_VERSIONS_DONE};
  if (due && !j->pass.dry) j->next_versions = now + TM_VERSION_EVERY_MS;
}

/* A whole pass where one is due or wanted; else what is due of the sessions. */
static void choose(tm_janitor *j) {
  j->asked = j->first;
  if (j->asked != NULL) j->first = j->asked->next;
  int64_t now = tm__clock_now(&j->o.clock);
  begin_pass(j, j->asked != NULL || is_due(j->next_pass, j->o.keep->cleanup_ms, now));
  begin_versions(j, now);
}

static void log_given_up(const tm_janitor *j, const tm_purge *p) {
  char count[24];
  (void)snprintf(count, sizeof(count), "%lld", (long long)p->given_up);
  if (p->given_up > 0)
    tm__log(j->o.log, TM_LOG_WARNING, "events were given up: webhooks.url is not set", "events",
            count, NULL);
}

static void log_pass(const tm_janitor *j, const tm_purge *p, int64_t dropped) {
  char conversations[24], sessions[24], ended[24], versions[24], events[24];
  int64_t all = p->conversations + p->sessions + p->sessions_ended + p->events + dropped;
  if (p->dry || all == 0) return;
  (void)snprintf(conversations, sizeof(conversations), "%lld", (long long)p->conversations);
  (void)snprintf(sessions, sizeof(sessions), "%lld", (long long)p->sessions);
  (void)snprintf(ended, sizeof(ended), "%lld", (long long)p->sessions_ended);
  (void)snprintf(versions, sizeof(versions), "%lld", (long long)dropped);
  (void)snprintf(events, sizeof(events), "%lld", (long long)p->events);
  tm__log(j->o.log, TM_LOG_INFO, "retention: removed", "conversations", conversations, "sessions",
          sessions, "sessions_ended", ended, "versions", versions, "events", events, NULL);
}

static void end_pass(tm_janitor *j) {
  wish *w = j->asked;
  const tm_error *fault = j->fault.status != TM_OK ? &j->fault : NULL;
  j->asked = NULL;
  j->passing = false;
  tm__versions_end(&j->versions);
  if (fault == NULL) {
    j->seen_all = j->seen_all || j->pass.all_sessions;
    log_pass(j, &j->pass, j->versions.dropped);
    log_given_up(j, &j->pass);
    if (w != NULL) answer(j, w);
  } else {
    int64_t soon = j->o.keep->cleanup_ms < AFTER_FAULT ? j->o.keep->cleanup_ms : AFTER_FAULT;
    j->next_pass = tm__clock_now(&j->o.clock) + soon;
    if (w != NULL) refuse(w, fault);
  }
}

static bool is_at_versions(const tm_janitor *j) {
  return j->pass.stage == TM_PURGE_DONE;
}

static bool is_done(const tm_janitor *j) {
  return is_at_versions(j) && j->versions.stage == TM_VERSIONS_DONE;
}

static tm_status work(tm_store_job *job, const tm_store_access *a, tm_error *err) {
  tm_janitor *j = (tm_janitor *)((char *)job - offsetof(tm_janitor, job));
  return is_at_versions(j) ? tm__versions_piece(&j->versions, a, err)
                           : tm__purge_piece(&j->pass, a, err);
}

static void on_done(tm_message *m) { /* on the store's thread */
  tm_janitor *j = (tm_janitor *)((char *)m - offsetof(tm_janitor, job.message));
  tm__worker_post(j->o.worker, &j->landed);
  uv_sem_post(&j->has_landed);
}

/* The store of one tenant keeps no other from being looked at. */
static void note_fault(tm_janitor *j) {
  const char *what = "retention is interrupted and goes on later";
  tm__log_error(j->o.log, TM_LOG_WARNING, what, &j->job.error);
  if (j->fault.status == TM_OK) j->fault = j->job.error;
  if (is_at_versions(j)) {
    tm__versions_end(&j->versions); /* of what was not looked at nothing is known */
    j->next_versions = j->versions.now + AFTER_FAULT;
  } else if (tm__purge_tenant(&j->pass)[0] != '\0') {
    tm__purge_skip(&j->pass);
  } else {
    j->pass.stage = TM_PURGE_DONE;
  }
}

static void on_landed(tm_message *m) {
  tm_janitor *j = (tm_janitor *)((char *)m - offsetof(tm_janitor, landed));
  if (j->stopped) return;
  uv_sem_wait(&j->has_landed);
  j->out = false;
  for (size_t i = 0; i < j->pass.purged_count; i++) {
    j->o.purged(j->o.ud, j->pass.purged[i]);
  }
  j->pass.purged_count = 0;
  if (j->job.status != TM_OK) note_fault(j);
  if (is_done(j)) end_pass(j);
  int64_t took = (tm__clock_monotonic_us() - j->began) / 1000;
  bool more = j->passing || j->first != NULL;
  arm(j, !more ? j->o.tick_ms : took < REST_MAX_MS ? took : REST_MAX_MS);
}

static void look(tm_janitor *j) {
  if (j->stopped || j->out) return;
  if (!j->passing) choose(j);
  tm__registry_tidy(j->o.registry);
  j->out = true;
  j->began = tm__clock_monotonic_us();
  bool versions = is_at_versions(j);
  const char *tenant = versions ? tm__versions_tenant(&j->versions) : tm__purge_tenant(&j->pass);
  j->job.write = versions ? tm__versions_writes(&j->versions) : tm__purge_writes(&j->pass);
  (void)tm__copy(j->job.tenant, sizeof(j->job.tenant), tm__slice(tenant));
  tm__storage_run(j->o.storage, &j->job);
}

/* ---- a tenant with a store of its own, whose sessions are due ---- */

tm_status tm__janitor_sessions(tm_janitor *j, const tm_store_access *a, const char *tenant,
                               tm_error *err) {
  tm_purge p = {.keep = j->o.keep,
                .registry = j->o.registry,
                .now = tm__clock_now(&j->o.clock),
                .sessions_only = true};
  (void)tm__copy(p.tenant, sizeof(p.tenant), tm__slice(tenant));
  tm_status status = TM_OK;
  for (int i = 0; status == TM_OK && p.stage != TM_PURGE_DONE && i < PIECES_MAX; i++) {
    status = tm__purge_piece(&p, a, err);
    for (size_t n = 0; n < p.purged_count; n++) {
      j->o.purged(j->o.ud, p.purged[n]);
    }
  }
  if (status == TM_OK) log_pass(j, &p, 0);
  return status;
}

/* ---- life ---- */

tm_status tm__janitor_new(tm_janitor **out, const tm_janitor_options *o, tm_error *err) {
  *out = NULL;
  tm_janitor *j = calloc(1, sizeof(*j));
  if (j == NULL || uv_sem_init(&j->has_landed, 0) != 0) {
    free(j);
    return tm__fail_memory(err, "the janitor");
  }
  j->o = *o;
  j->start.run = on_start;
  j->poke.run = on_poke;
  j->landed.run = on_landed;
  j->job.message.run = on_done;
  j->job.work = work;
  j->next_pass = j->next_versions = tm__clock_now(&o->clock);
  *out = j;
  tm__worker_post(o->worker, &j->start); /* whoever lives for less than a tick removes nothing */
  return TM_OK;
}

void tm__janitor_stop(tm_janitor *j) {
  tm_error err;
  if (j->stopped) return;
  j->stopped = true;
  if (j->armed) (void)tm__timer_cancel(j->o.worker, j->timer);
  j->armed = false;
  if (j->out) uv_sem_wait(&j->has_landed); /* one bounded piece */
  (void)tm__journal_stopping(&err);
  if (j->asked != NULL) refuse(j->asked, &err);
  while (j->first != NULL) {
    wish *w = j->first;
    j->first = w->next;
    refuse(w, &err);
  }
}

void tm__janitor_free(tm_janitor *j) {
  if (j == NULL) return;
  tm__versions_end(&j->versions);
  uv_sem_destroy(&j->has_landed);
  free(j);
}
