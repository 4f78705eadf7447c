/* undo.c - rollback: finds the row where the conversation waited for somebody, and what cannot be
 * taken back on the way there; then has the `undo` functions run, and the row restored. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "journal/slot.h"

#define STEPS_MAX 100
#define ROWS_MAX  4096 /* looked at for one rollback */

typedef struct undo_job {
  tm_slot_job base;
  tm_head head;
  bool in_memory, force, by_user;
  int steps;
  int64_t checkpoint;
  char name[TM_CHECKPOINT_NAME]; /* of the checkpoint; "": by its id, or none */
  /* while walking */
  int prompts_left; /* prompts to pass before the target */
  int answered;     /* prompts whose answers are taken back so far */
  int back;         /* those that rollbacks since the last answer have taken back before */
  int allowed;      /* that the flow lets one pass: `rollback` in the runtime part; 0: none */
  int rows;
  bool migrated; /* the walk came to a migration: what lies behind is another version's */
  tm_checkpoints listed;
  tm_undo_steps between;
  int64_t target, target_created;
  /* what is restored, and what is there */
  tm_record record, from;
  tm_tip tip, from_tip;
  size_t count;           /* of `undo` functions to run */
  tm_buf functions, plan; /* see tm_request */
} undo_job;

/* ---- the walk back ---- */

static bool is_target(undo_job *job, const tm_row *row, const tm_row_fields *f) {
  if (job->checkpoint != 0)
    return tm__ends_waiting(row, f) && row->revision == job->checkpoint && row->checkpoint;
  return tm__is_new_prompt(row, f) && job->prompts_left-- == 0;
}

/* The flow's enable_rollback and max_rollback_steps, as the newest row has them. Where steps were
 * undone before the conversation failed, what a target says of them is not true any more. */
static bool may_go_back(undo_job *job, const tm_row_fields *f) {
  if (!job->force && tm__json_get(f->error, "compensation").ptr != NULL) {
    (void)tm__fail(&job->base.job.error, TM_ECONFLICT, "rollback.compensated",
                   "conversation %s has failed, and what its steps did was undone "
                   "(compensate_on_failure); start anew, or roll back with force: its state then "
                   "says otherwise",
                   job->head.id);
    return false;
  }
  job->allowed = (int)tm__json_get_int(f->runtime, "rollback", STEPS_MAX);
  if (job->allowed > 0) return true;
  (void)tm__fail(&job->base.job.error, TM_ECONFLICT, "rollback.disabled",
                 "the flow of conversation %s does not let one go back (enable_rollback)",
                 job->head.id);
  return false;
}

/* One can go to a checkpoint only while it is listed. */
static tm_status take_target(undo_job *job, const tm_row *row, tm_listing listing) {
  if (job->checkpoint != 0 && listing == TM_NOT_LISTED) return TM_ECANCELLED;
  job->target = row->id;
  job->target_created = row->created;
  bool looks = job->checkpoint != 0 && listing == TM_LISTED_IF_LAST && !job->migrated;
  return looks ? TM_OK : TM_ECANCELLED;
}

/* Behind a target that is listed only if nothing older can be gone to. */
static tm_status look_behind(undo_job *job, tm_listing listing) {
  if (listing == TM_LISTED_IF_LAST) job->target = 0;
  bool enough = listing == TM_LISTED_IF_LAST || job->migrated || tm__checkpoints_done(&job->listed);
  return enough || ++job->rows >= ROWS_MAX ? TM_ECANCELLED : TM_OK;
}

/* Whether it waits for an answer, or did when it was paused. */
static bool awaits_answer(const undo_job *job, const tm_row_fields *newest) {
  tm_conversation_status status = job->head.status;
  tm_slice was = tm__json_get(tm__json_get(newest->runtime, "paused"), "status");
  if (status == TM_PAUSED && was.len > 2)
    (void)tm__conversation_status_parse(&status, (tm_slice){was.ptr + 1, was.len - 2});
  return tm__is_waiting(status);
}

/* The prompt of one that waits has no answer that could be taken back. */
static bool begin_walk(undo_job *job, const tm_row_fields *newest) {
  job->answered = awaits_answer(job, newest) ? 0 : 1;
  job->prompts_left = job->steps - job->answered;
  return may_go_back(job, newest);
}

static tm_status on_row(void *ud, const tm_row *row) {
  undo_job *job = ud;
  tm_row_fields f;
  tm__row_fields(&f, row->body);
  if (job->rows == 0 && !begin_walk(job, &f)) return TM_ECONFLICT;
  tm_listing listing = tm__checkpoints_next(&job->listed, row, &f);
  job->migrated = row->kind == TM_ROW_MIGRATE;
  if (job->target != 0) return look_behind(job, listing);
  if (is_target(job, row, &f)) return take_target(job, row, listing);
  if (job->migrated) return TM_ECANCELLED;
  if (row->kind == TM_ROW_UNDO && job->answered == 0 && job->back == 0)
    job->back = (int)tm__json_get_int(f.undo, "back", 0);
  job->answered += tm__is_new_prompt(row, &f);
  tm_status status = tm__undo_steps_add(&job->between, row, &f, &job->base.job.error);
  if (status != TM_OK) return status;
  return ++job->rows >= ROWS_MAX ? TM_ECANCELLED : TM_OK;
}

/* ---- what stands in the way ---- */

static tm_status no_checkpoint(const undo_job *job, tm_error *err) {
  char id[24];
  (void)snprintf(id, sizeof(id), "%lld", (long long)job->checkpoint);
  return tm__fail(err, TM_ENOTFOUND, "checkpoint.not_found",
                  "conversation %s has no checkpoint %s to go back to", job->head.id,
                  job->name[0] != '\0' ? job->name : id);
}

static tm_status no_target(const undo_job *job, tm_error *err) {
  if (job->migrated && job->rows < ROWS_MAX)
    return tm__fail(err, TM_ECONFLICT, "rollback.migrated",
                    "conversation %s has come to version %s since then: what lies before that is "
                    "of another version, and there is no way back to it",
                    job->head.id, job->head.version);
  if (job->checkpoint != 0 && job->rows < ROWS_MAX) return no_checkpoint(job, err);
  if (job->rows < ROWS_MAX) {
    if (job->steps == 1)
      return tm__fail(err, TM_ECONFLICT, "rollback.nothing",
                      "conversation %s has no answered prompt to go back to", job->head.id);
    return tm__fail(err, TM_ECONFLICT, "rollback.nothing",
                    "conversation %s has not had %d answered prompts to go back over", job->head.id,
                    job->steps);
  }
  return tm__fail(err, TM_ECONFLICT, "rollback.limit",
                  "conversation %s: the target is more than %d journal rows back", job->head.id,
                  ROWS_MAX);
}

/* What came from somebody else is not for the user to ask for again. */
static tm_status check_decided(const undo_job *job, tm_error *err) {
  const char *step_id = job->by_user ? tm__undo_steps_decided(&job->between) : NULL;
  if (step_id == NULL) return TM_OK;
  return tm__fail(err, TM_ECONFLICT, "rollback.decided",
                  "the step '%s' has been decided, or its event has come, and its user does not go "
                  "back over that; an operator can: tidemill conversations rollback %s",
                  step_id, job->head.id);
}

/* One after the other they go no further than one alone. */
static tm_status check_limit(const undo_job *job, tm_error *err) {
  if (job->back + job->answered <= job->allowed) return TM_OK;
  char before[48] = "";
  if (job->back > 0) (void)snprintf(before, sizeof(before), ", and it has gone %d", job->back);
  return tm__fail(err, TM_ECONFLICT, "rollback.limit",
                  "%d answered prompt%s back would be more than the flow allows: at most %d "
                  "(max_rollback_steps)%s",
                  job->answered, job->answered == 1 ? "" : "s", job->allowed, before);
}

static tm_status check_irreversible(const undo_job *job, tm_error *err) {
  tm_buf names = {0};
  tm_status status = TM_OK;
  tm__undo_steps_irreversible(&job->between, &names);
  tm_slice view = tm__buf_view(&names);
  if (view.len > 0) {
    status = tm__fail(err, TM_ECONFLICT, "rollback.irreversible",
                      "what these steps did cannot be taken back: %.*s; roll back with force to "
                      "leave them as they are",
                      (int)(view.len < 400 ? view.len : 400), view.ptr);
  }
  if (!tm__buf_ok(&names)) status = tm__fail_memory(err, "a rollback");
  tm__buf_free(&names);
  return status;
}

static tm_status make_plan(undo_job *job, const tm_store_access *a, tm_error *err) {
  tm_status status = tm__record_rows(&job->record, &job->tip, a, job->target, false, err);
  if (status == TM_OK)
    status = tm__record_rows(&job->from, &job->from_tip, a, job->head.tip, false, err);
  if (status == TM_OK) status = tm__record_trust(&job->record, job->from.flags, err);
  if (status == TM_OK) status = tm__record_trust(&job->from, 0, err);
  if (status != TM_OK) return status;
  tm__buf_byte(&job->functions, '{');
  if (job->force) tm__json_member_bool(&job->functions, "force", true);
  tm__json_key(&job->functions, "steps");
  bool more;
  job->count = tm__undo_steps_write(&job->between, SIZE_MAX, &more, &job->functions);
  tm__buf_byte(&job->functions, '}');
  tm_buf undone = {0};
  tm__undo_steps_before(&job->between, &undone);
  tm__undo_plan(&job->plan, &job->from, &job->from_tip, &job->record, &job->tip, job->target,
                job->back + job->answered, tm__buf_view(&undone));
  bool ok = tm__buf_ok(&job->functions) && tm__buf_ok(&undone) && tm__buf_ok(&job->plan);
  tm__buf_free(&undone);
  return ok ? TM_OK : tm__fail_memory(err, "a rollback");
}

static tm_status find_named(undo_job *job, const tm_store_access *a, tm_error *err) {
  if (job->name[0] == '\0') return TM_OK;
  tm_status status = tm__checkpoint_named(&job->checkpoint, job->name, &job->listed, a,
                                          job->in_memory, &job->head, err);
  return status == TM_OK && job->checkpoint == 0 ? no_checkpoint(job, err) : status;
}

static tm_status undo_work(tm_store_job *base, const tm_store_access *a, tm_error *err) {
  undo_job *job = (undo_job *)(void *)base;
  tm_status status = find_named(job, a, err);
  if (status != TM_OK) return status;
  status = tm__access_chain(a, job->in_memory, &job->head, job->head.tip, true, on_row, job, err);
  if (status != TM_OK && status != TM_ECANCELLED) return status;
  if (job->target == 0) return no_target(job, err);
  status = check_decided(job, err);
  if (status == TM_OK) status = check_limit(job, err);
  if (status == TM_OK && !job->force) status = check_irreversible(job, err);
  return status == TM_OK ? make_plan(job, a, err) : status;
}

/* ---- the request ---- */

static bool set_plan(tm_request *r, undo_job *job) {
  free(r->undo_steps);
  free(r->undo_plan);
  r->undo_steps = tm__buf_take(&job->functions);
  r->undo_plan = tm__buf_take(&job->plan);
  return r->undo_steps != NULL && r->undo_plan != NULL;
}

/* Whatever refuses is found on a record that was just read. */
static void undo_found(tm_slot *s, undo_job *job) {
  tm_error *err = &job->base.job.error;
  tm_status status = job->base.job.status;
  bool by_record = status == TM_ECONFLICT || status == TM_ENOTFOUND;
  if (status != TM_OK && by_record && !s->fresh) {
    tm__slot_forget(s);
  } else if (by_record && s->first->back > 0) {
    tm__turn_refused(s, err);
  } else if (status != TM_OK) {
    tm__slot_fail(s, err);
  } else if (!set_plan(s->first, job)) {
    (void)tm__fail_memory(err, "a rollback");
    tm__slot_fail(s, err);
  } else {
    if (job->count > 0) {
      tm__turn_run(s, TM_TURN_UNDO);
    } else {
      tm__turn_undo(s);
    }
  }
}

static void undo_done(tm_slot *s, tm_slot_job *base) {
  undo_job *job = (undo_job *)(void *)base;
  if (s->first != NULL) undo_found(s, job);
  tm__record_clear(&job->record);
  tm__record_clear(&job->from);
  tm__tip_clear(&job->tip);
  tm__tip_clear(&job->from_tip);
  tm__undo_steps_free(&job->between);
  tm__buf_free(&job->functions);
  tm__buf_free(&job->plan);
}

static tm_status check_steps(const tm_request *r, int steps, tm_error *err) {
  if (r->checkpoint != 0 || r->checkpoint_name[0] != '\0') return TM_OK;
  if (steps < 1) {
    return tm__fail(err, TM_EINVAL, "request.invalid",
                    "say how many answered prompts to go back (1 or more), or a checkpoint_id");
  }
  if (steps > STEPS_MAX) {
    return tm__fail(err, TM_ECONFLICT, "rollback.limit",
                    "at most %d answered prompts can be taken back at once", STEPS_MAX);
  }
  return TM_OK;
}

void tm__undo_find(tm_slot *s) {
  const tm_request *r = s->first;
  int steps = r->back > 0 ? r->back : r->steps;
  tm_error err;
  if (check_steps(r, steps, &err) != TM_OK) {
    tm__slot_fail(s, &err);
    return;
  }
  undo_job *job = calloc(1, sizeof(*job));
  if (job == NULL) {
    (void)tm__fail_memory(&err, "a rollback");
    tm__slot_fail(s, &err);
    return;
  }
  job->head = job->record.head = job->from.head = s->record.head;
  job->in_memory = job->record.in_memory = job->from.in_memory = s->record.in_memory;
  job->force = r->force;
  job->by_user = r->back > 0;
  job->steps = steps;
  job->checkpoint = r->checkpoint;
  memcpy(job->name, r->checkpoint_name, sizeof(job->name));
  job->listed = tm__checkpoints(s->journal->o.checkpoints, tm__journal_now(s->journal));
  job->base.job.work = undo_work;
  job->base.done = undo_done;
  tm__slot_read(s, &job->base);
}
