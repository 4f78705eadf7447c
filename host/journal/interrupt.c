/* interrupt.c - a turn that another message takes the place of: the conversation is again as it was
 * before the turn. What the turn has called outside stays called, and whoever goes back over it has
 * to know. */
#include <stdlib.h>

#include "journal/slot.h"

typedef struct interrupt_job {
  tm_slot_job base;
  uint32_t flags; /* how the newest row was stored */
  tm_undo_steps done;
  tm_buf called; /* ["ids"] of the turn's steps */
  int64_t row;   /* that is restored, and what it holds: */
  tm_record record;
  tm_tip tip;
} interrupt_job;

static tm_status on_row(void *ud, const tm_row *row) {
  interrupt_job *job = ud;
  tm_row_fields f;
  if (row->id == job->row) return TM_ECANCELLED;
  tm__row_fields(&f, row->body);
  return tm__undo_steps_add(&job->done, row, &f, &job->base.job.error);
}

/* Of a turn that did more than that the newest steps are known. */
static tm_status find_called(interrupt_job *job, const tm_store_access *a, tm_error *err) {
  const tm_record *r = &job->record;
  tm_status status =
      tm__access_chain(a, r->in_memory, &r->head, r->head.tip, true, on_row, job, err);
  if (status != TM_OK && status != TM_ECANCELLED && status != TM_ECONFLICT) return status;
  tm__undo_steps_called(&job->done, &job->called);
  return tm__buf_ok(&job->called) ? TM_OK : tm__fail_memory(err, "what a turn has called");
}

static tm_status restore_work(tm_store_job *base, const tm_store_access *a, tm_error *err) {
  interrupt_job *job = (interrupt_job *)(void *)base;
  tm_status status = find_called(job, a, err);
  if (status != TM_OK) return status;
  status = tm__record_rows(&job->record, &job->tip, a, job->row, false, err);
  return status == TM_OK ? tm__record_trust(&job->record, job->flags, err) : status;
}

/* The turn stays unfinished; whoever interrupted it is told why, and nobody tries for ever. */
static void fail_both(tm_slot *s, const tm_error *err) {
  if (s->turn != NULL) {
    s->turn->error = *err;
    tm__turn_failed(s->turn);
  }
  tm__slot_fail(s, err);
}

static void set_interrupted(const tm_slot *s, tm_error *err) {
  (void)tm__fail(err, TM_ECONFLICT, "conversation.interrupted",
                 "a later message to conversation %s has taken the place of this one; read what "
                 "came of it",
                 s->id);
}

static void restore(tm_slot *s, const interrupt_job *job) {
  tm_turn *t = s->turn;
  tm_error err;
  set_interrupted(s, &err);
  tm__buf_clear(&t->undo);
  tm__undo_plan(&t->undo, &job->record, &job->tip, &job->record, &job->tip, job->row, 0,
                (tm_slice){0});
  bool made = tm__buf_ok(&t->undo);
  t->ended = false;
  if (made) tm__turn_given_up(t, &err, tm__buf_view(&job->called));
  if (made && s->turn == t) return;
  (void)tm__fail_memory(&err, "a conversation as it was");
  fail_both(s, &err);
}

static void restored(tm_slot *s, tm_slot_job *base) {
  interrupt_job *job = (interrupt_job *)(void *)base;
  if (base->job.status == TM_OK) {
    restore(s, job);
  } else {
    fail_both(s, &base->job.error);
  }
  tm__record_clear(&job->record);
  tm__tip_clear(&job->tip);
  tm__undo_steps_free(&job->done);
  tm__buf_free(&job->called);
}

static void read_row(tm_turn *t) {
  tm_slot *s = t->slot;
  interrupt_job *job = calloc(1, sizeof(*job));
  if (job == NULL) {
    tm_error err;
    (void)tm__fail_memory(&err, "a conversation as it was");
    fail_both(s, &err);
    return;
  }
  job->row = t->before;
  job->flags = s->record.flags;
  job->record.head = s->record.head;
  job->record.in_memory = s->record.in_memory;
  job->base.job.work = restore_work;
  job->base.done = restored;
  tm__slot_read(s, &job->base);
}

void tm__turn_interrupt(tm_turn *t) {
  tm_slot *s = t->slot;
  tm_executor *x = &s->journal->o.executor;
  if (!t->ended) x->cancel(x->ud, t);
  t->ended = true;
  t->interrupting = true;
  tm__lease_stop(t);
  if (t->renewing) return; /* comes again */
  if (t->begun) {
    read_row(t);
  } else {
    set_interrupted(s, &t->error);
    tm__turn_failed(t);
  }
  tm__slot_go(s);
}
