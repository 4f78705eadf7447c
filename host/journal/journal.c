/* journal.c - the journal of one worker: what comes in, and how it comes to rest. */
#include <stdlib.h>

#include "journal/slot.h"

tm_status tm__journal_new(tm_journal **out, const tm_journal_options *o, tm_error *err) {
  *out = calloc(1, sizeof(tm_journal));
  if (*out == NULL) return tm__fail_memory(err, "a journal");
  (*out)->o = *o;
  return TM_OK;
}

void tm__journal_free(tm_journal *j) {
  if (j == NULL) return;
  size_t at = 0;
  tm_slice id;
  void *slot;
  while (tm__map_next(&j->slots, &at, &id, &slot)) {
    tm__slot_free(slot);
  }
  tm__map_free(&j->slots);
  free(j);
}

int64_t tm__journal_now(const tm_journal *j) {
  return tm__clock_now(&j->o.clock);
}

void tm__journal_hint(const tm_journal *j, int64_t when) {
  if (when > 0 && j->o.hint != NULL) j->o.hint(j->o.hint_ud, when);
}

void tm__journal_emitted(const tm_journal *j) {
  if (j->o.emitted != NULL) j->o.emitted(j->o.hint_ud);
}

tm_status tm__journal_stopping(tm_error *err) {
  tm_status status = tm__fail(err, TM_EUNAVAILABLE, "host.stopping",
                              "the host is stopping; repeat the request with the same "
                              "Idempotency-Key in a moment");
  err->retry_after_ms = 1000;
  return status;
}

/* ---- what comes in ---- */

static void refuse_busy(tm_slot *s, tm_request *r) {
  tm_error err;
  (void)tm__fail(&err, TM_ELIMIT, "conversation.queue_full",
                 "%zu requests wait for conversation %s already; try again later", s->waiting,
                 s->id);
  err.retry_after_ms = 1000;
  tm__request_fail(r, &err);
}

/* A deadline of a conversation that is at work is looked at by whoever works. */
static void take_wake(tm_slot *s, tm_request *r) {
  if (s->phase == TM_SLOT_IDLE && s->first == NULL) {
    tm__slot_push(s, r);
  } else {
    tm__request_free(r);
    if (s->phase == TM_SLOT_WAITING) tm__slot_wait_end(s);
  }
  tm__slot_go(s);
}

/* A slot at work finds out by itself. */
static void take_forget(tm_journal *j, tm_request *r) {
  tm_slot *s = tm__map_get(&j->slots, tm__slice(r->conversation));
  if (s != NULL && s->cached) tm__slot_free(s);
  tm__request_free(r);
}

static void on_submit(tm_message *m) {
  tm_request *r = (tm_request *)((char *)m - offsetof(tm_request, message));
  tm_journal *j = r->journal;
  tm_error err;
  if (r->kind == TM_REQUEST_FORGET) {
    take_forget(j, r);
    return;
  }
  if (r->kind == TM_REQUEST_WANTED || r->kind == TM_REQUEST_ENDED) {
    tm__word_heard(j, r);
    return;
  }
  if (j->draining) {
    (void)tm__journal_stopping(&err);
    tm__request_fail(r, &err);
    return;
  }
  tm_slot *s = tm__slot_get(j, tm__slice(r->conversation));
  if (s == NULL) {
    (void)tm__fail_memory(&err, "a request");
    tm__request_fail(r, &err);
  } else if (r->kind == TM_REQUEST_WAKE) {
    take_wake(s, r);
  } else if (r->kind != TM_REQUEST_CANCEL && s->phase != TM_SLOT_IDLE &&
             s->waiting >= j->o.queue_limit) {
    refuse_busy(s, r);
  } else {
    tm__slot_push(s, r);
    tm__together_heed(s);
  }
}

void tm__journal_submit(tm_journal *j, tm_request *r) {
  r->journal = j;
  r->message.run = on_submit;
  tm__worker_post(j->o.worker, &r->message);
}

/* ---- coming to rest ---- */

void tm__journal_check(tm_journal *j) {
  if (j->running > 0 || j->pending > 0) return;
  void (*drained)(void *ud) = j->draining ? j->drained : NULL;
  void (*finished)(void *ud) = j->abandoned ? j->finished : NULL;
  if (drained != NULL) {
    j->drained = NULL;
    drained(j->drained_ud);
  }
  if (finished != NULL) {
    j->finished = NULL;
    finished(j->finished_ud);
  }
}

/* Requests whose turn has not begun get their answer now. */
static void refuse_waiting(tm_slot *s) {
  tm_error err;
  (void)tm__journal_stopping(&err);
  if (s->phase == TM_SLOT_WAITING) tm__slot_wait_end(s);
  for (tm_request *r = tm__slot_pop(s); r != NULL; r = tm__slot_pop(s)) {
    tm__request_fail(r, &err);
  }
}

static void stop_slots(tm_journal *j) {
  size_t at = 0;
  tm_slice id;
  void *slot;
  j->draining = true;
  while (tm__map_next(&j->slots, &at, &id, &slot)) {
    tm_slot *s = slot;
    refuse_waiting(s);
    if (j->abandoned && s->phase == TM_SLOT_RUNNING) tm__turn_abandon(s->turn);
    tm__slot_go(s);
  }
}

void tm__journal_drain(tm_journal *j, void (*fn)(void *ud), void *ud) {
  stop_slots(j);
  j->drained = fn;
  j->drained_ud = ud;
  tm__journal_check(j);
}

void tm__journal_abandon(tm_journal *j, void (*fn)(void *ud), void *ud) {
  j->abandoned = true;
  stop_slots(j);
  j->finished = fn;
  j->finished_ud = ud;
  tm__journal_check(j);
}
