/* answer.c - answers that were given before: read from the rows that gave them. */
#include <stdlib.h>
#include <string.h>

#include "journal/render.h"
#include "journal/slot.h"

typedef struct answer_job {
  tm_slot_job base;
  tm_storage *storage;
  tm_head head;
  bool in_memory;
  bool undoes; /* a rollback is answered */
  int64_t row, floor;
  bool as_it_stands; /* whatever the row has refused */
  tm_buf out;
  /* of a START */
  char tenant[65];
  uint64_t key;
  tm_start_key found;
} answer_job;

static answer_job *job_new(tm_slot *s,
                           tm_status (*work)(tm_store_job *, const tm_store_access *, tm_error *),
                           void (*done)(tm_slot *, tm_slot_job *)) {
  answer_job *job = calloc(1, sizeof(*job));
  if (job == NULL) {
    tm_error err;
    (void)tm__fail_memory(&err, "an answer");
    tm__slot_fail(s, &err);
    return NULL;
  }
  job->storage = s->journal->o.storage;
  job->undoes = s->first->kind == TM_REQUEST_UNDO;
  job->head = s->record.head;
  job->in_memory = s->record.in_memory;
  job->base.job.work = work;
  job->base.done = done;
  return job;
}

static tm_status on_end(void *ud, const tm_row *row) {
  bool *undone = ud;
  *undone = row->kind == TM_ROW_UNDO;
  return TM_ECANCELLED;
}

/* The turn of a rollback ends in a row of its own, unless somebody has ended the conversation. */
static tm_status check_undone(const answer_job *job, const tm_store_access *a, tm_error *err) {
  bool undone = false;
  tm_status status =
      tm__access_chain(a, job->in_memory, &job->head, job->row, false, on_end, &undone, err);
  if (status != TM_ECANCELLED || undone) return status == TM_ECANCELLED ? TM_OK : status;
  return tm__fail(err, TM_ECONFLICT, "conversation.finished",
                  "conversation %s was cancelled before the rollback had come through; roll back "
                  "anew to bring it back",
                  job->head.id);
}

static tm_status render(answer_job *job, const tm_store_access *a, tm_error *err) {
  bool durable = tm__storage_durable(job->storage, job->in_memory);
  tm_error refusal = {0};
  tm_status status = job->undoes ? check_undone(job, a, err) : TM_OK;
  if (status != TM_OK) return status;
  status =
      tm__render_answer(&job->out, a, job->in_memory, &job->head, job->row, durable, &refusal, err);
  if (status != TM_OK || refusal.status == TM_OK || job->as_it_stands) return status;
  *err = refusal;
  return refusal.status;
}

static void answer_done(tm_slot *s, tm_slot_job *base) {
  answer_job *job = (answer_job *)(void *)base;
  if (base->job.status != TM_OK) {
    tm__slot_fail(s, &base->job.error);
  } else if (s->first != NULL) {
    tm__request_answer(tm__slot_pop(s), tm__buf_view(&job->out));
  }
  tm__buf_free(&job->out);
}

/* ---- a message whose key is known ---- */

/* The rows of a purged conversation may outlive it; its head does not. */
static tm_status row_work(tm_store_job *base, const tm_store_access *a, tm_error *err) {
  answer_job *job = (answer_job *)(void *)base;
  tm_head head;
  tm_status status = tm__access_head(a, tm__slice(job->head.id), &head, &job->in_memory, err);
  if (status == TM_ENOTFOUND)
    return tm__fail(err, status, "conversation.not_found", "there is no conversation %s",
                    job->head.id);
  job->head = head;
  return status == TM_OK ? render(job, a, err) : status;
}

static void answer_by(tm_slot *s, int64_t row, bool as_it_stands) {
  answer_job *job = job_new(s, row_work, answer_done);
  if (job == NULL) return;
  job->row = row;
  job->as_it_stands = as_it_stands;
  tm__slot_read(s, &job->base);
}

void tm__answer_row(tm_slot *s, int64_t row) {
  answer_by(s, row, false);
}

void tm__answer_tip(tm_slot *s) {
  answer_by(s, s->record.head.tip, true);
}

/* ---- a request whose turn went on elsewhere ---- */

static tm_status on_later_row(void *ud, const tm_row *row) {
  answer_job *job = ud;
  if (row->revision <= job->floor) return TM_ECANCELLED;
  if (row->kind != TM_ROW_BEGIN && row->kind != TM_ROW_CALL) job->row = row->id;
  return TM_OK;
}

/* The oldest end of a turn above the floor. */
static tm_status lost_work(tm_store_job *base, const tm_store_access *a, tm_error *err) {
  answer_job *job = (answer_job *)(void *)base;
  tm_status status =
      tm__access_chain(a, job->in_memory, &job->head, job->head.tip, false, on_later_row, job, err);
  if (status != TM_OK && status != TM_ECANCELLED) return status;
  if (job->row == 0) {
    return tm__fail(err, TM_ECORRUPT, "journal.damaged",
                    "the turn of conversation %s that was begun has no end; restore a backup",
                    job->head.id);
  }
  return render(job, a, err);
}

void tm__answer_lost(tm_slot *s) {
  answer_job *job = job_new(s, lost_work, answer_done);
  if (job == NULL) return;
  job->floor = s->first->floor;
  tm__slot_read(s, &job->base);
}

/* ---- a START with a key ---- */

static tm_status start_work(tm_store_job *base, const tm_store_access *a, tm_error *err) {
  answer_job *job = (answer_job *)(void *)base;
  tm_status status = tm__access_start_key(a, tm__slice(job->tenant), job->key, &job->found, err);
  if (status != TM_OK || job->found.row == 0) return status;
  status = tm__access_head(a, tm__slice(job->found.conversation), &job->head, &job->in_memory, err);
  if (status != TM_OK) return status;
  job->row = job->found.row;
  return render(job, a, err);
}

static void start_found(tm_slot *s, answer_job *job) {
  if (job->found.body != s->first->body) {
    (void)tm__fail(&job->base.job.error, TM_EREUSED, "idempotency.key_reused",
                   "this Idempotency-Key started another conversation before; use a new key");
    tm__slot_fail(s, &job->base.job.error);
  } else if (job->found.row == 0) {
    tm__slot_wait(s, INT64_MAX); /* its first turn is unfinished */
  } else {
    tm__request_answer(tm__slot_pop(s), tm__buf_view(&job->out));
  }
}

static void start_done(tm_slot *s, tm_slot_job *base) {
  answer_job *job = (answer_job *)(void *)base;
  if (s->first == NULL) {
    tm__buf_free(&job->out);
    return;
  }
  if (base->job.status == TM_OK) {
    start_found(s, job);
  } else if (base->job.status == TM_ENOTFOUND) {
    s->first->looked = true;
  } else {
    tm__slot_fail(s, &base->job.error);
  }
  tm__buf_free(&job->out);
}

void tm__answer_start(tm_slot *s) {
  answer_job *job = job_new(s, start_work, start_done);
  if (job == NULL) return;
  job->key = s->first->key;
  memcpy(job->tenant, s->first->tenant, sizeof(job->tenant));
  tm__slot_read(s, &job->base);
}
