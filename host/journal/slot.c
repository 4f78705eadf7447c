/* slot.c - slots by conversation, the requests that queue in them, and the cache of hot copies. */
#include "journal/slot.h"

#include <stdlib.h>
#include <string.h>

#ifndef TM_WAIT_MIN_MS
#define TM_WAIT_MIN_MS 20
#define TM_WAIT_MAX_MS 1000
#endif
#define WORTH_MS    100                          /* a pause that is worth ending by a word */
#define WAIT_FOR_US (INT64_C(300) * 1000 * 1000) /* another's turn */
#define PUT_OFF_MS  1000 /* a deadline whose turn cannot run, doubled each time … */
#define PUT_OFF_MAX 10   /* ... so often at most: 17 minutes */
#define TELL_MS     (INT64_C(10) * 60 * 1000) /* until the log says the same again */

/* ---- the cache ---- */

static void uncache(tm_slot *s) {
  tm_journal *j = s->journal;
  if (s->newer != NULL) s->newer->older = s->older;
  if (s->older != NULL) s->older->newer = s->newer;
  if (j->newest == s) j->newest = s->older;
  if (j->oldest == s) j->oldest = s->newer;
  s->newer = NULL;
  s->older = NULL;
  s->cached = false;
  j->cached_bytes -= s->charge;
}

static void cache(tm_slot *s) {
  tm_journal *j = s->journal;
  s->charge = sizeof(*s) + 128 + s->record.state.cap + s->record.runtime.cap;
  j->cached_bytes += s->charge;
  s->cached = true;
  s->older = j->newest;
  if (j->newest != NULL) j->newest->newer = s;
  j->newest = s;
  if (j->oldest == NULL) j->oldest = s;
  while (j->cached_bytes > j->o.cache_bytes && j->oldest != NULL) {
    tm_slot *oldest = j->oldest;
    uncache(oldest); /* NOLINT(clang-analyzer-unix.Malloc): it takes the list for a ring */
    tm__slot_free(oldest);
  }
}

/* ---- slots ---- */

tm_slot *tm__slot_get(tm_journal *j, tm_slice id) {
  tm_slot *s = tm__map_get(&j->slots, id);
  if (s != NULL) {
    if (s->cached) uncache(s);
    return s;
  }
  s = calloc(1, sizeof(*s));
  if (s == NULL) return NULL;
  s->journal = j;
  s->concurrency = j->o.concurrency;
  if (tm__copy(s->id, sizeof(s->id), id) && tm__map_set(&j->slots, id, s)) return s;
  free(s);
  return NULL;
}

void tm__slot_free(tm_slot *s) {
  if (s->cached) uncache(s);
  (void)tm__map_remove(&s->journal->slots, tm__slice(s->id));
  for (tm_request *r = tm__slot_pop(s); r != NULL; r = tm__slot_pop(s)) {
    tm__request_free(r);
  }
  tm__turn_free(s->turn);
  tm__record_clear(&s->record);
  free(s);
}

void tm__slot_forget(tm_slot *s) {
  tm__record_clear(&s->record);
  s->fresh = false;
}

/* ---- the queue ---- */

void tm__slot_push(tm_slot *s, tm_request *r) {
  r->queue = NULL;
  if (s->first == NULL) {
    s->first = r;
  } else {
    s->last->queue = r;
  }
  s->last = r;
  s->waiting++;
}

void tm__slot_push_front(tm_slot *s, tm_request *r) {
  r->queue = s->first;
  s->first = r;
  if (s->last == NULL) s->last = r;
  s->waiting++;
}

tm_request *tm__slot_pop(tm_slot *s) {
  tm_request *r = s->first;
  if (r == NULL) return NULL;
  s->first = r->queue;
  if (s->first == NULL) s->last = NULL;
  s->waiting--;
  s->fresh = false;
  return r;
}

tm_request *tm__slot_take_behind(tm_slot *s, tm_request *before) {
  if (before == NULL) return tm__slot_pop(s);
  tm_request *r = before->queue;
  if (r == NULL) return NULL;
  before->queue = r->queue;
  if (s->last == r) s->last = before;
  s->waiting--;
  return r;
}

/* Is somebody likely to ask for it soon? */
static bool is_hot(const tm_slot *s) {
  tm_conversation_status status = s->record.head.status;
  return s->record.loaded && status != TM_SLEEPING && !tm__conversation_is_over(status);
}

void tm__slot_go(tm_slot *s) {
  if (s->deciding) return;
  tm_journal *j = s->journal;
  s->deciding = true;
  while (s->phase == TM_SLOT_IDLE && s->first != NULL) {
    tm__slot_decide(s);
  }
  s->deciding = false;
  if (s->phase == TM_SLOT_IDLE && !s->cached) {
    if (is_hot(s) && !j->abandoned) {
      cache(s);
    } else {
      tm__slot_free(s);
    }
  }
  tm__journal_check(j);
}

void tm__slot_enter(tm_slot *s) {
  s->deciding = true;
}

void tm__slot_leave(tm_slot *s) {
  s->deciding = false;
  tm__slot_go(s);
}

/* ---- deadlines that cannot be met ---- */

/* What is not mended by trying again is told of seldom: a key that is missing for its tenant, a
 * record that is damaged for its conversation. */
static bool is_told(tm_journal *j, const tm_slot *s, const tm_error *err) {
  bool keyless = strcmp(err->code, "seal.key_missing") == 0;
  int64_t now = tm__journal_now(j);
  const tm_slice what[] = {tm__slice(err->code),
                           tm__slice(keyless ? s->record.head.tenant : s->id)};
  uint64_t digest = tm__digest_u64(what, 2);
  if (!keyless && err->status != TM_ECORRUPT) return false;
  for (size_t i = 0; i < TM_TOLD; i++)
    if (j->told[i].what == digest && now < j->told[i].at + TELL_MS) return true;
  j->told[j->told_next].what = digest;
  j->told[j->told_next].at = now;
  j->told_next = (j->told_next + 1) % TM_TOLD;
  return false;
}

/* It goes behind all others, further each time: every time is a commit of the head alone. */
static void put_off(tm_slot *s) {
  const tm_head *h = &s->record.head;
  int64_t now = tm__journal_now(s->journal), times = h->revision - s->record.newest;
  if (h->wake_at <= 0 || h->wake_at > now || s->journal->draining) return;
  if (times > PUT_OFF_MAX) times = PUT_OFF_MAX;
  tm__head_arm(s, now + ((int64_t)PUT_OFF_MS << times));
}

void tm__slot_fail(tm_slot *s, const tm_error *err) {
  tm_request *r = tm__slot_pop(s);
  if (r == NULL) return;
  bool wakes = r->kind == TM_REQUEST_WAKE;
  if (wakes && !is_told(s->journal, s, err))
    tm__log_error(s->journal->o.log, TM_LOG_ERROR, "a deadline could not be met", err);
  tm__request_fail(r, err);
  if (wakes) put_off(s);
}

/* ---- waiting for a turn that runs elsewhere or later ---- */

static void on_timer(void *ud) {
  tm_slot *s = ud;
  s->phase = TM_SLOT_IDLE;
  tm__slot_go(s);
}

static void waited_enough(tm_slot *s, const tm_request *r) {
  tm_error err;
  if (r->floor > 0) {
    (void)tm__fail(&err, TM_EUNAVAILABLE, "conversation.unfinished",
                   "the turn of conversation %s is not finished yet; it goes on without this "
                   "request: read the conversation, or repeat the request with the same "
                   "Idempotency-Key",
                   s->id);
  } else {
    (void)tm__fail(&err, TM_ECONFLICT, "conversation.busy",
                   "another turn of conversation %s is still unfinished; try again later", s->id);
  }
  err.retry_after_ms = TM_WAIT_MAX_MS;
  tm__slot_fail(s, &err);
}

/* Looks seldom at what takes long. */
static int64_t pause_after(int64_t waited_us) {
  int64_t ms = TM_WAIT_MIN_MS + waited_us / 4000;
  return ms > TM_WAIT_MAX_MS ? TM_WAIT_MAX_MS : ms;
}

static void note_waiting(tm_slot *s) {
  int64_t now = tm__clock_monotonic_us();
  for (tm_request *r = s->first; r != NULL; r = r->queue) {
    if (r->since == 0) r->since = now;
  }
}

/* Who waits keeps nobody from what need not wait; false: nobody behind him wants such. */
static bool raise_passing(tm_slot *s) {
  tm_request *before = s->first;
  if (before == NULL || tm__slot_passes(s, before)) return false;
  while (before->queue != NULL && !tm__slot_passes(s, before->queue))
    before = before->queue;
  tm_request *r = tm__slot_take_behind(s, before);
  if (r != NULL) tm__slot_push_front(s, r);
  return r != NULL;
}

void tm__slot_pause(tm_slot *s, int64_t ms) {
  note_waiting(s);
  bool raised = raise_passing(s);
  tm__slot_forget(s);
  if (raised) return;
  tm_error err;
  if (tm__timer_start(s->journal->o.worker, ms < 1 ? 1 : (uint64_t)ms, on_timer, s, &s->timer,
                      &err) == TM_OK) {
    s->phase = TM_SLOT_WAITING;
  } else {
    tm__slot_fail(s, &err);
  }
}

void tm__slot_wait(tm_slot *s, int64_t ms) {
  tm_request *r = s->first;
  if (r == NULL) return;
  note_waiting(s);
  int64_t waited = tm__clock_monotonic_us() - r->since;
  if (waited > WAIT_FOR_US) {
    waited_enough(s, r);
    return;
  }
  int64_t pause = pause_after(waited);
  if (ms < pause) pause = ms;
  if (pause >= WORTH_MS) tm__word_want(s);
  tm__slot_pause(s, pause);
}

void tm__slot_wait_end(tm_slot *s) {
  (void)tm__timer_cancel(s->journal->o.worker, s->timer);
  s->phase = TM_SLOT_IDLE;
}

/* ---- store jobs ---- */

static void on_read(tm_message *m) {
  tm_slot_job *job = (tm_slot_job *)((char *)m - offsetof(tm_slot_job, job.message));
  tm_slot *s = job->slot;
  tm__slot_enter(s);
  s->journal->pending--;
  s->phase = TM_SLOT_IDLE;
  job->done(s, job);
  free(job);
  tm__slot_leave(s);
}

void tm__slot_read(tm_slot *s, tm_slot_job *job) {
  job->slot = s;
  job->job.message.run = on_read;
  job->job.reply_to = s->journal->o.worker;
  const char *tenant = s->first != NULL ? s->first->tenant : s->record.head.tenant;
  memcpy(job->job.tenant, tenant, sizeof(job->job.tenant));
  s->phase = TM_SLOT_READING;
  s->journal->pending++;
  tm__storage_run(s->journal->o.storage, &job->job);
}
