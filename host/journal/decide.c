/* decide.c - what the request at hand needs: an answer from a row, a refusal, patience, or a turn.
 * Whatever refuses is decided on a record that was just read, never on an old hot copy. */
#include <string.h>

#include "journal/slot.h"

#define MOMENTS_MS 5000 /* a retry that is due within them is waited for */

static void refuse(tm_slot *s, const tm_error *err) {
  if (s->fresh) {
    tm__slot_fail(s, err);
  } else {
    tm__slot_forget(s);
  }
}

static void refuse_reused(tm_slot *s) {
  tm_error err;
  (void)tm__fail(&err, TM_EREUSED, "idempotency.key_reused",
                 "this Idempotency-Key came with another body before; use a new key for a new "
                 "request");
  tm__slot_fail(s, &err);
}

static void refuse_unknown(tm_slot *s) {
  tm_error err;
  (void)tm__fail(&err, TM_ENOTFOUND, "conversation.not_found", "there is no conversation %s",
                 s->id);
  tm__slot_fail(s, &err);
}

static void refuse_over(tm_slot *s) {
  tm_error err;
  (void)tm__fail(&err, TM_ECONFLICT, "conversation.finished",
                 "conversation %s is over (%s); start a new one", s->id,
                 tm__conversation_status_name(s->record.head.status));
  refuse(s, &err);
}

/* Does the executor decide about it? */
static bool is_turn(const tm_request *r) {
  return r->kind == TM_REQUEST_MESSAGE || r->kind == TM_REQUEST_SIGNAL;
}

/* Does a repeat of it get the first one's answer? */
static bool has_key(const tm_request *r) {
  return r->key != 0 && (is_turn(r) || r->kind == TM_REQUEST_UNDO);
}

/* Answers what came with a key that was seen before; false: it was not. */
static bool answered_before(tm_slot *s, const tm_request *r) {
  if (!has_key(r)) return false;
  const tm_head *h = &s->record.head;
  for (size_t i = 0; i < TM_RECENT_KEYS; i++) {
    if (h->recent[i].key != r->key) continue;
    if (h->recent[i].body == r->body) {
      tm__answer_row(s, h->recent[i].row);
    } else {
      refuse_reused(s);
    }
    return true;
  }
  return false;
}

/* ---- an unfinished turn ---- */

/* When the turn, at which nobody works, is tried again; 0: soon, or somebody works. */
static int64_t rests_until(const tm_slot *s) {
  const tm_head *h = &s->record.head;
  bool rests = s->record.loaded && h->status == TM_ACTIVE && h->claim[0] == '\0';
  return rests && h->wake_at > tm__journal_now(s->journal) + MOMENTS_MS ? h->wake_at : 0;
}

/* Nobody waits for a retry that is far away but whose turn it is. */
bool tm__slot_passes(const tm_slot *s, const tm_request *r) {
  if (r->kind == TM_REQUEST_CANCEL) return true;
  const tm_recent_key *same = has_key(r) ? tm__keys_find(&s->record.keys, r->key) : NULL;
  bool parked = r->floor > 0 || (same != NULL && same->body == r->body);
  return r->kind != TM_REQUEST_WAKE && !parked && rests_until(s) > 0;
}

/* What an operator wants of the conversation goes before such a retry. */
static bool may_take(const tm_slot *s, const tm_request *r) {
  bool steers =
      r->kind == TM_REQUEST_UNDO || (r->kind == TM_REQUEST_SIGNAL &&
                                     (r->signal == TM_TURN_PAUSE || r->signal == TM_TURN_MIGRATE));
  return steers && tm__slot_passes(s, r) && !tm__together_holds(s);
}

/* A rollback with force goes on with the one that waits, and gets its answer. */
static void take(tm_slot *s, tm_request *r) {
  bool joins = r->force && s->record.began_as == TM_TURN_UNDO;
  r->takes = true;
  if (joins) r->floor = s->record.head.revision;
  tm__claim_take(s);
}

static void refuse_resting(tm_slot *s) {
  int64_t ms = rests_until(s) - tm__journal_now(s->journal);
  tm_error err;
  (void)tm__fail(&err, TM_ECONFLICT, "conversation.busy",
                 "a step of conversation %s has failed, and is tried again in %lld s; try again "
                 "when it has",
                 s->id, (long long)((ms + 999) / 1000));
  err.retry_after_ms = ms;
  tm__slot_fail(s, &err);
}

/* A turn is unfinished and does not run here. */
static void decide_unfinished(tm_slot *s, tm_request *r) {
  const tm_record *rec = &s->record;
  int64_t now = tm__journal_now(s->journal);
  bool due = rec->head.wake_at > 0 && rec->head.wake_at <= now;
  bool ours = strcmp(rec->head.claim, s->journal->o.host_id) == 0;
  bool given_up = rec->head.claim[0] == '\0' && tm__together_interrupts(s);
  const tm_recent_key *same = has_key(r) ? tm__keys_find(&rec->keys, r->key) : NULL;
  r->takes = false;
  if (same != NULL && r->body != same->body) {
    refuse_reused(s);
  } else if (may_take(s, r)) {
    take(s, r);
  } else if (due || ours || given_up) {
    tm__claim_take(s);
  } else if (!s->fresh) {
    tm__slot_forget(s);
  } else if (tm__slot_passes(s, r)) {
    refuse_resting(s);
  } else if (tm__together_is_busy(s, r)) {
    tm__together_refuse(s);
  } else {
    tm__slot_wait(s, rec->head.wake_at > 0 ? rec->head.wake_at - now : INT64_MAX);
  }
}

/* The turn of a host that lives goes first; one that waits for a retry is not waited for. */
static void decide_cancel(tm_slot *s) {
  const tm_head *h = &s->record.head;
  int64_t now = tm__journal_now(s->journal);
  bool runs = h->status == TM_ACTIVE && h->claim[0] != '\0' && h->wake_at > now &&
              strcmp(h->claim, s->journal->o.host_id) != 0;
  bool over = tm__conversation_is_over(h->status);
  if ((runs || over) && !s->fresh) {
    tm__slot_forget(s);
  } else if (over) {
    tm__answer_tip(s);
  } else if (runs) {
    tm__slot_wait(s, h->wake_at - now);
  } else {
    tm__turn_cancel(s);
  }
}

static void drop_wake(tm_slot *s) {
  tm__request_free(tm__slot_pop(s));
}

static void decide_wake(tm_slot *s) {
  const tm_record *rec = &s->record;
  int64_t now = tm__journal_now(s->journal);
  tm_conversation_status status = rec->head.status;
  if (rec->head.wake_at <= 0 || rec->head.wake_at > now) {
    if (s->fresh) {
      drop_wake(s);
    } else {
      tm__slot_forget(s);
    }
  } else if (status == TM_ACTIVE) {
    tm__claim_take(s);
  } else if (status == TM_PAUSED || tm__conversation_is_over(status)) {
    drop_wake(s);
    tm__head_arm(s, 0);
  } else if (rec->deadline <= 0 || rec->deadline > now) {
    drop_wake(s);
    tm__head_arm(s, rec->deadline > 0 ? rec->deadline : 0);
  } else {
    tm__turn_run(s, TM_TURN_WAKE);
  }
}

/* A conversation that has the current version already is answered as it stands. */
static void decide_migrate(tm_slot *s) {
  const tm_head *h = &s->record.head;
  tm_bundle *now =
      tm__registry_offered(s->journal->o.registry, tm__slice(h->system), tm__slice(h->tenant));
  bool there = now != NULL && strcmp(now->version, h->version) == 0;
  tm__bundle_unref(now);
  if (there && !s->fresh) {
    tm__slot_forget(s);
  } else if (there) {
    tm__answer_tip(s);
  } else {
    tm__migrate(s);
  }
}

static bool goes_back(const tm_request *r) {
  return r->kind == TM_REQUEST_UNDO || r->back > 0;
}

/* One goes back from an end, too, but not who waited already when it was cancelled. */
static bool is_over_for(const tm_head *h, const tm_request *r) {
  bool waited = h->status == TM_CANCELLED && r->since > 0;
  return tm__conversation_is_over(h->status) && (waited || !goes_back(r));
}

static void decide_loaded(tm_slot *s, tm_request *r) {
  const tm_head *h = &s->record.head;
  if (strcmp(r->tenant, h->tenant) != 0) {
    refuse_unknown(s);
  } else if (r->floor > 0 && (h->status != TM_ACTIVE || s->record.begun > r->floor)) {
    tm__answer_lost(s); /* its turn has ended, whatever turn is unfinished now */
  } else if (answered_before(s, r)) {
    return;
  } else if (r->kind == TM_REQUEST_CANCEL) {
    decide_cancel(s);
  } else if (h->status == TM_ACTIVE) {
    decide_unfinished(s, r);
  } else if (is_over_for(h, r)) {
    refuse_over(s);
  } else if (goes_back(r)) {
    tm__undo_find(s);
  } else if (r->trail_of != NULL) {
    tm__trail_find(s);
  } else if (tm__together_was_overtaken(s, r)) {
    tm__together_refuse(s);
  } else if (tm__together_wants_newest(s, r) && !s->fresh) {
    tm__slot_forget(s);
  } else if (r->kind == TM_REQUEST_SIGNAL && r->signal == TM_TURN_MIGRATE) {
    decide_migrate(s);
  } else if (!tm__quota_holds(s, h->system)) {
    tm__turn_run(s, r->kind == TM_REQUEST_SIGNAL ? r->signal : TM_TURN_MESSAGE);
  }
}

void tm__slot_decide(tm_slot *s) {
  tm_request *r = s->first;
  tm_error err;
  if (s->journal->draining) {
    (void)tm__journal_stopping(&err);
    tm__slot_fail(s, &err);
  } else if ((r->kind == TM_REQUEST_START || r->kind == TM_REQUEST_FORK) && r->floor == 0) {
    if (r->key != 0 && !r->looked) {
      tm__answer_start(s);
    } else if (r->kind == TM_REQUEST_FORK) {
      tm__fork_find(s);
    } else if (!tm__quota_holds(s, r->system)) {
      tm__turn_run(s, TM_TURN_START);
    }
  } else if (!s->record.loaded) {
    tm__record_load(s);
  } else if (r->kind == TM_REQUEST_WAKE) {
    decide_wake(s);
  } else {
    decide_loaded(s, r);
  }
}
