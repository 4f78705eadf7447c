/* reload.c - loading the scripts anew while turns run: beside the control thread the sources are
 * read, checked and made durable; every worker makes a state for each version that is new; then all
 * is switched in one move. Any error on the way leaves everything as it was.
 *
 * One reload runs at a time. Whoever asks meanwhile gets the answer of the one that begins
 * afterwards: it sees what he has changed.
 */
#include <stdlib.h>
#include <string.h>

#include "host.h"

typedef struct wish { /* somebody waits for a reload */
  tm_message message;
  tm_reload *reload;
  struct wish *next;
  tm_reply_fn fn;
  void *ud;
} wish;

typedef struct wishes {
  wish *first, *last;
} wishes;

typedef struct part { /* what one worker does for a reload */
  tm_message message;
  tm_reload *reload;
  tm_host_worker *worker;
  struct state *states;
  size_t left; /* states that are not ready */
  tm_error error;
} part;

typedef struct state { /* of one version on one worker */
  tm_lua_wait wait;
  part *part;
} state;

struct tm_reload {
  tm_beside job; /* first: the sources are being loaded */
  tm_host *host;
  wishes asked, later;       /* of this reload; of the next one */
  bool runs, loads, stopped; /* loads: the job is out, and uses the store */
  void (*stopped_fn)(void *ud);
  void *stopped_ud;
  tm_scripts scripts;
  tm_bundle **fresh; /* of those, borrowed: what the workers have to load */
  size_t fresh_count;
  part *parts; /* one for each worker */
  state *states;
  size_t out; /* parts that have not come back */
  tm_error error;
};

/* ---- whoever waits ---- */

static void add(wishes *w, wish *one) {
  one->next = NULL;
  if (w->first == NULL)
    w->first = one;
  else
    w->last->next = one;
  w->last = one;
}

static void answer_all(wishes *w, const tm_buf *report, const tm_error *err) {
  wish *next = w->first;
  *w = (wishes){0};
  for (wish *one = next; one != NULL; one = next) {
    next = one->next;
    if (err == NULL)
      tm__host_answer(one->fn, one->ud, report);
    else
      tm__host_refuse(one->fn, one->ud, err);
    free(one);
  }
}

/* ---- the end of a reload ---- */

static void begin(tm_reload *r);

static void clear(tm_reload *r) {
  tm__scripts_free(&r->scripts);
  free(r->fresh);
  free(r->parts);
  free(r->states);
  r->fresh = NULL;
  r->parts = NULL;
  r->states = NULL;
  r->fresh_count = 0;
}

static void finish(tm_reload *r) {
  tm_buf report = {0};
  tm_error err = r->error;
  tm_status s = err.status;
  if (s == TM_OK && !r->stopped) s = tm__scripts_switch(&r->scripts, r->host, &report, &err);
  if (s != TM_OK && !r->stopped)
    tm__log_error(&r->host->log, TM_LOG_ERROR, "the scripts were not loaded anew, nothing changed",
                  &err);
  clear(r);
  r->runs = false;
  answer_all(&r->asked, &report, s != TM_OK ? &err : NULL);
  tm__buf_free(&report);
  if (r->later.first != NULL) begin(r);
}

/* ---- states on the workers ---- */

static void on_part_ready(tm_message *m) {
  part *p = (part *)(void *)m;
  tm_reload *r = p->reload;
  if (p->error.status != TM_OK && r->error.status == TM_OK) r->error = p->error;
  if (--r->out == 0) finish(r);
}

static void state_ready(part *p, const tm_error *err) {
  if (err != NULL && p->error.status == TM_OK) p->error = *err;
  if (--p->left > 0) return;
  p->message.run = on_part_ready;
  tm__worker_post(p->reload->host->control, &p->message);
}

static void on_state_ready(tm_lua_wait *w, const tm_error *err) {
  state_ready(((state *)(void *)w)->part, err);
}

static void stopping(tm_error *err) {
  (void)tm__fail(err, TM_EUNAVAILABLE, "host.stopping", "the host is stopping: try again later");
  err->retry_after_ms = 1000;
}

/* On the worker's thread. */
static void prepare(tm_message *m) {
  part *p = (part *)(void *)m;
  tm_reload *r = p->reload;
  tm_error err;
  p->left = 1; /* none of them may end it before all are asked for */
  if (p->worker->lua == NULL) {
    stopping(&err);
    state_ready(p, &err);
    return;
  }
  p->left += r->fresh_count;
  for (size_t i = 0; i < r->fresh_count; i++) {
    p->states[i] = (state){.wait.ready = on_state_ready, .part = p};
    tm__lua_prepare(p->worker->lua, r->fresh[i], &p->states[i].wait);
  }
  state_ready(p, NULL);
}

/* ---- the sources ---- */

static bool is_new(const tm_host *h, const tm_bundle *b) {
  tm_bundle *old = tm__registry_current(h->registry, tm__slice(b->system));
  bool same = old != NULL && strcmp(old->version, b->version) == 0;
  tm__bundle_unref(old);
  return !same;
}

static tm_status plan(tm_reload *r, tm_error *err) {
  const tm_host *h = r->host;
  size_t count = r->scripts.count;
  r->fresh = calloc(count + 1, sizeof(*r->fresh));
  r->parts = calloc(h->worker_count, sizeof(*r->parts));
  r->states = calloc(h->worker_count * count + 1, sizeof(*r->states));
  if (r->fresh == NULL || r->parts == NULL || r->states == NULL)
    return tm__fail_memory(err, "a reload");
  for (size_t i = 0; i < count; i++)
    if (is_new(h, r->scripts.bundles[i])) r->fresh[r->fresh_count++] = r->scripts.bundles[i];
  return TM_OK;
}

static void load(tm_beside *job) {
  tm_reload *r = (tm_reload *)(void *)job;
  tm_error err;
  tm_status s = tm__scripts_load(&r->scripts, r->host, &err);
  if (s == TM_OK) s = tm__scripts_emptied(&r->scripts, r->host, &err);
  if (s == TM_OK) s = plan(r, &err);
  if (s != TM_OK) r->error = err;
}

static void on_loaded(tm_beside *job) {
  tm_reload *r = (tm_reload *)(void *)job;
  tm_host *h = r->host;
  r->loads = false;
  if (r->stopped) r->stopped_fn(r->stopped_ud);
  if (r->error.status != TM_OK || r->stopped || r->fresh_count == 0) {
    finish(r);
    return;
  }
  r->out = h->worker_count;
  for (size_t i = 0; i < h->worker_count; i++) {
    r->parts[i] = (part){.message.run = prepare,
                         .reload = r,
                         .worker = &h->workers[i],
                         .states = r->states + i * r->fresh_count};
    tm__worker_post(h->workers[i].worker, &r->parts[i].message);
  }
}

static void begin(tm_reload *r) {
  r->asked = r->later;
  r->later = (wishes){0};
  r->runs = r->loads = true;
  r->error = (tm_error){0};
  tm__worker_beside(r->host->control, &r->job);
}

/* ---- what comes in ---- */

static void refuse_all(tm_reload *r) {
  tm_error err;
  stopping(&err);
  answer_all(&r->asked, NULL, &err);
  answer_all(&r->later, NULL, &err);
}

static void on_wish(tm_message *m) {
  wish *w = (wish *)(void *)m;
  tm_reload *r = w->reload;
  add(&r->later, w);
  if (r->stopped)
    refuse_all(r);
  else if (!r->runs)
    begin(r);
}

void tm_host_reload(tm_host *h, tm_reply_fn fn, void *ud) {
  tm_error err;
  if (!tm__host_enter(h, &err)) {
    tm__host_refuse(fn, ud, &err);
    return;
  }
  wish *w = calloc(1, sizeof(*w));
  if (w != NULL) {
    *w = (wish){.message.run = on_wish, .reload = h->reload, .fn = fn, .ud = ud};
    tm__worker_post(h->control, &w->message);
  } else {
    (void)tm__fail_memory(&err, "a reload");
    tm__host_refuse(fn, ud, &err);
  }
  tm__host_leave(h);
}

/* ---- life ---- */

tm_status tm__reload_new(tm_reload **out, tm_host *h, tm_error *err) {
  tm_reload *r = *out = calloc(1, sizeof(*r));
  if (r == NULL) return tm__fail_memory(err, "reloading");
  *r = (tm_reload){.job = {.work = load, .done = on_loaded}, .host = h};
  return TM_OK;
}

void tm__reload_stop(tm_reload *r, void (*fn)(void *ud), void *ud) {
  r->stopped = true;
  r->stopped_fn = fn;
  r->stopped_ud = ud;
  refuse_all(r);
  if (!r->loads) fn(ud);
}

void tm__reload_free(tm_reload *r) {
  free(r);
}
