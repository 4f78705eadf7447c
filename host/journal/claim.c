/* claim.c - commits of the head alone: taking over an unfinished turn, keeping the lease of one
 * that runs, giving a claim back, moving a deadline. */
#include <stdlib.h>

#include "journal/slot.h"

typedef struct head_job { /* a commit of the head, outside of a turn */
  tm_commit_job job;
  tm_slot *slot;
  tm_turn *turn; /* freed afterwards; NULL: none */
  bool take;     /* resume when it worked */
} head_job;

static void commit_head(tm_commit_job *job, tm_slot *s, void (*run)(tm_message *m)) {
  job->message.run = run;
  job->reply_to = s->journal->o.worker;
  job->in_memory = s->record.in_memory;
  job->commit.expect_revision = s->record.head.revision;
  job->commit.head.revision = s->record.head.revision + 1;
  job->error = (tm_error){0};
  s->journal->pending++;
  tm__storage_commit(s->journal->o.storage, job);
}

static tm_commit_job *commit_of(tm_message *m) {
  return (tm_commit_job *)((char *)m - offsetof(tm_commit_job, message));
}

/* ---- outside of turns ---- */

static void taken(tm_slot *s, tm_status status, const tm_error *err) {
  if (status == TM_OK && s->journal->draining) {
    tm__claim_return(s, NULL);
  } else if (status == TM_OK) {
    tm__turn_run(s, TM_TURN_RESUME);
  } else if (status != TM_ECONFLICT) {
    tm__slot_fail(s, err); /* a WAKE's head, which was not changed, is put off */
  }
}

static void head_done(tm_message *m) {
  head_job *job = (head_job *)(void *)commit_of(m);
  tm_slot *s = job->slot;
  tm_status status = job->job.commit.status;
  tm__slot_enter(s);
  s->journal->pending--;
  s->phase = TM_SLOT_IDLE;
  if (status == TM_OK) {
    s->record.head = job->job.commit.head;
    tm__journal_hint(s->journal, s->record.head.wake_at);
  }
  tm__turn_free(job->turn);
  if (job->take) taken(s, status, &job->job.error);
  if (status != TM_OK) tm__slot_forget(s);
  free(job);
  tm__slot_leave(s);
}

static head_job *head_job_new(tm_slot *s) {
  head_job *job = calloc(1, sizeof(*job));
  if (job == NULL) return NULL;
  job->slot = s;
  job->job.commit.head = s->record.head;
  return job;
}

void tm__head_arm(tm_slot *s, int64_t when) {
  head_job *job = head_job_new(s);
  if (job == NULL) return; /* the scheduler finds it again */
  job->job.commit.head.wake_at = when;
  s->phase = TM_SLOT_COMMITTING;
  commit_head(&job->job, s, head_done);
}

static void set_claim(tm_slot *s, tm_head *h, const char *claim, int64_t wake_at) {
  (void)tm__copy(h->claim, sizeof(h->claim), tm__slice(claim));
  h->wake_at = wake_at > 0 ? wake_at : tm__journal_now(s->journal);
}

void tm__claim_take(tm_slot *s) {
  tm_journal *j = s->journal;
  head_job *job = s->record.bundle == NULL ? NULL : head_job_new(s);
  if (job == NULL) {
    tm_error err;
    if (s->record.bundle == NULL) {
      (void)tm__version_missing(s, &err);
    } else {
      (void)tm__fail_memory(&err, "a claim");
    }
    tm__slot_fail(s, &err);
    tm__slot_forget(s);
    return;
  }
  job->take = true;
  set_claim(s, &job->job.commit.head, j->o.host_id, tm__journal_now(j) + j->o.lease_ms);
  s->phase = TM_SLOT_COMMITTING;
  commit_head(&job->job, s, head_done);
}

void tm__claim_return(tm_slot *s, tm_turn *t) {
  head_job *job = head_job_new(s);
  if (job == NULL) { /* its lease runs out */
    tm__turn_free(t);
    return;
  }
  job->turn = t;
  set_claim(s, &job->job.commit.head, "", 0);
  s->phase = TM_SLOT_COMMITTING;
  commit_head(&job->job, s, head_done);
}

/* ---- the lease of the turn that runs ---- */

static void renewed(tm_message *m) {
  tm_turn *t = (tm_turn *)((char *)commit_of(m) - offsetof(tm_turn, renewal));
  tm_slot *s = t->slot;
  tm__slot_enter(s);
  s->journal->pending--;
  t->renewing = false;
  tm_status status = t->renewal.commit.status;
  if (status == TM_OK) {
    s->record.head.revision = t->renewal.commit.head.revision;
    s->record.head.wake_at = t->renewal.commit.head.wake_at;
  }
  if (status == TM_ECONFLICT) {
    tm__turn_lost(t);
  } else if (t->append.held) {
    tm__turn_send(t);
  } else if (s->journal->abandoned) {
    tm__turn_abandon(t);
  } else if (t->interrupting) {
    tm__turn_interrupt(t);
  } else if (t->ended) {
    tm__turn_failed(t);
  } else {
    tm__lease_start(t);
  }
  tm__slot_leave(s);
}

static void on_lease(void *ud) {
  tm_turn *t = ud;
  tm_slot *s = t->slot;
  t->lease_armed = false;
  if (t->append.out) { /* what is out renews it, or ends the turn */
    tm__lease_start(t);
    return;
  }
  t->renewing = true;
  t->renewal.commit = (tm_commit){.head = s->record.head};
  t->renewal.commit.head.wake_at = tm__journal_now(s->journal) + s->journal->o.lease_ms;
  commit_head(&t->renewal, s, renewed);
}

void tm__lease_start(tm_turn *t) {
  const tm_journal *j = t->slot->journal;
  if (t->lease_armed || t->renewing || t->ended) return;
  uint64_t half = j->o.lease_ms < 2 ? 1 : (uint64_t)j->o.lease_ms / 2;
  tm_error err;
  t->lease_armed = tm__timer_start(j->o.worker, half, on_lease, t, &t->lease_timer, &err) == TM_OK;
  if (!t->lease_armed) tm__log_error(j->o.log, TM_LOG_WARNING, "a lease cannot be renewed", &err);
}

void tm__lease_stop(tm_turn *t) {
  if (t->lease_armed) (void)tm__timer_cancel(t->slot->journal->o.worker, t->lease_timer);
  t->lease_armed = false;
}
