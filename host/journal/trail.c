/* trail.c - what a conversation has done since an answer: the executions, the recorded calls and
 * the state in which it was asked, for a turn that changes the answer (the command `correct`). What
 * of it is to run again, the runtime finds out. */
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "journal/slot.h"

#define ROWS_MAX   4096      /* looked at for one answer */
#define BYTES_MOST (1 << 20) /* of executions and calls */

typedef struct trail_job {
  tm_slot_job base;
  tm_head head;
  bool in_memory;
  char *steps; /* ["ids", …] whose answer it may be */
  char *input; /* of the command */
  /* while walking */
  int rows;
  size_t bytes;
  bool found;    /* the answer */
  int64_t first; /* the oldest execution that is needed; 0: not known yet */
  bool reached;  /* its row was passed */
  /* The way was another one from the execution `turn` on: those from `dropped` up to `turned` are
   * no part of it any more. */
  int64_t turn, dropped, turned;
  int64_t target;             /* the row before, where it was asked; 0: none */
  uint32_t flags;             /* how the newest row was stored */
  tm_texts executions, calls; /* newest first */
  tm_texts undone;            /* seqs of executions that rollbacks have undone and left there */
  /* what comes of it */
  tm_record record;
  tm_buf trail;
} trail_job;

/* ---- the walk back ---- */

static bool is_named(const trail_job *job, tm_slice step_id) {
  tm_json_walk w;
  tm_slice key;
  tm_slice id;
  bool more = tm__json_walk(&w, tm__slice(job->steps));
  while (more && tm__json_next(&w, &key, &id)) {
    if (tm__slice_cmp(id, step_id) == 0) return true;
  }
  return false;
}

static bool is_answer(const trail_job *job, tm_slice step) {
  return tm__slice_is(tm__json_get(step, "type"), "\"user_input\"") &&
         tm__slice_is(tm__json_get(step, "status"), "\"completed\"") &&
         tm__json_get(step, "flow").ptr == NULL && tm__json_get(step, "branch").ptr == NULL &&
         is_named(job, tm__json_get(step, "step_id"));
}

static void need(trail_job *job, int64_t seq) {
  if (job->first == 0 || seq < job->first) job->first = seq;
}

/* What lies behind a turn of the way, as path.lua has it; where that was a failure, it is gone,
 * too. The turn may itself stand for an older execution. */
static void note_turn(trail_job *job, tm_slice step, int64_t seq, int64_t corrects) {
  if (tm__slice_is(tm__json_get(step, "turns"), "true")) {
    bool completed = tm__slice_is(tm__json_get(step, "status"), "\"completed\"");
    int64_t dropped = completed ? corrects + 1 : corrects;
    bool within = seq >= job->dropped && seq < job->turned;
    if (within && dropped >= job->dropped) return;
    if (!within) job->turned = seq;
    job->dropped = dropped;
    job->turn = corrects;
  } else if (seq == job->turn) {
    job->dropped += corrects - job->turn;
    job->turn = corrects;
  }
}

/* One that stands for an older one needs that, too: whatever was corrected before is where the
 * trail has to begin. */
static bool add_step(trail_job *job, tm_slice step) {
  int64_t seq = tm__json_get_int(step, "seq", 0);
  int64_t corrects = tm__json_get_int(step, "corrects", 0);
  bool dropped = seq >= job->dropped && seq < job->turned;
  if (corrects > 0) {
    need(job, corrects);
    note_turn(job, step, seq, corrects);
  } else if (!job->found && !dropped && is_answer(job, step)) {
    job->found = true;
    need(job, seq);
  }
  job->bytes += step.len;
  if (job->found && seq <= job->first) job->reached = true;
  return tm__texts_add(&job->executions, step);
}

static bool add_steps(trail_job *job, tm_slice steps) {
  tm_texts own = {0};
  tm_json_walk w;
  tm_slice key;
  tm_slice step;
  bool ok = true;
  bool more = tm__json_walk(&w, steps);
  while (ok && more && tm__json_next(&w, &key, &step)) {
    ok = tm__texts_add(&own, step);
  }
  for (size_t i = own.count; i > 0 && ok; i--) {
    ok = add_step(job, own.items[i - 1]);
  }
  tm__texts_free(&own);
  return ok;
}

static bool add_undone(trail_job *job, tm_slice seqs) {
  tm_json_walk w;
  tm_slice key;
  tm_slice seq;
  bool ok = true;
  bool more = tm__json_walk(&w, seqs);
  while (ok && more && tm__json_next(&w, &key, &seq)) {
    ok = tm__texts_add(&job->undone, seq);
  }
  return ok;
}

static bool add_row(trail_job *job, const tm_row *row, const tm_row_fields *f) {
  if (row->kind == TM_ROW_UNDO) return add_undone(job, tm__json_get(f->undo, "undone"));
  if (row->kind != TM_ROW_CALL) return add_steps(job, f->steps);
  job->bytes += f->call.len;
  return tm__texts_add(&job->calls, f->call);
}

static tm_status on_row(void *ud, const tm_row *row) {
  trail_job *job = ud;
  tm_row_fields f;
  tm__row_fields(&f, row->body);
  if (job->reached && tm__ends_waiting(row, &f)) {
    job->target = row->id;
    return TM_ECANCELLED;
  }
  if (!add_row(job, row, &f)) return tm__fail_memory(&job->base.job.error, "a correction");
  bool enough = row->kind == TM_ROW_MIGRATE || job->bytes > BYTES_MOST || ++job->rows >= ROWS_MAX;
  return enough ? TM_ECANCELLED : TM_OK;
}

/* ---- what the turn gets ---- */

static void write_list(tm_buf *out, const char *name, const tm_texts *newest_first) {
  tm__json_key(out, name);
  tm__buf_byte(out, '[');
  for (size_t i = newest_first->count; i > 0; i--) {
    tm__json_comma(out);
    tm__buf_slice(out, newest_first->items[i - 1]);
  }
  tm__buf_byte(out, ']');
}

/* The command's input, and behind it the trail: canonical, for the name is its last member. */
static void write_trail(trail_job *job) {
  tm_buf *out = &job->trail;
  tm__buf_add(out, job->input, strlen(job->input) - 1);
  tm__json_key(out, "trail");
  tm__buf_byte(out, '{');
  write_list(out, "calls", &job->calls);
  tm__json_member_raw(out, "runtime", tm__buf_view(&job->record.runtime));
  tm__json_member_raw(out, "state", tm__buf_view(&job->record.state));
  write_list(out, "steps", &job->executions);
  write_list(out, "undone", &job->undone);
  tm__buf_text(out, "}}");
}

static tm_status not_found(const trail_job *job, tm_error *err) {
  if (job->bytes > BYTES_MOST || job->rows >= ROWS_MAX)
    return tm__fail(err, TM_ECONFLICT, "rollback.limit",
                    "conversation %s has done too much since that answer (more than %d rows, or %d "
                    "bytes of steps and calls): it cannot be corrected any more",
                    job->head.id, ROWS_MAX, BYTES_MOST);
  return tm__fail(err, TM_ECONFLICT, "command.refused",
                  "conversation %s has no answer of that name that could be corrected: none was "
                  "given, or only before a fork or a migration",
                  job->head.id);
}

static tm_status trail_work(tm_store_job *base, const tm_store_access *a, tm_error *err) {
  trail_job *job = (trail_job *)(void *)base;
  tm_status status =
      tm__access_chain(a, job->in_memory, &job->head, job->head.tip, true, on_row, job, err);
  if (status != TM_OK && status != TM_ECANCELLED) return status;
  if (job->target == 0) return not_found(job, err);
  status = tm__record_rows(&job->record, NULL, a, job->target, false, err);
  if (status == TM_OK) status = tm__record_trust(&job->record, job->flags, err);
  if (status != TM_OK) return status;
  write_trail(job);
  return tm__buf_ok(&job->trail) ? TM_OK : tm__fail_memory(err, "a correction");
}

/* ---- the request ---- */

/* Whatever refuses is found on a record that was just read. */
static void trail_found(tm_slot *s, trail_job *job) {
  tm_error *err = &job->base.job.error;
  tm_status status = job->base.job.status;
  char *trail = status == TM_OK ? tm__buf_take(&job->trail) : NULL;
  if (status == TM_ECONFLICT && !s->fresh) {
    tm__slot_forget(s);
  } else if (status == TM_ECONFLICT) {
    tm__turn_refused(s, err);
  } else if (trail == NULL) {
    if (status == TM_OK) (void)tm__fail_memory(err, "a correction");
    tm__slot_fail(s, err);
  } else {
    free(s->first->trail);
    s->first->trail = trail;
    tm__turn_run(s, TM_TURN_COMMAND);
  }
}

static void job_clear(trail_job *job) {
  tm__record_clear(&job->record);
  tm__texts_free(&job->executions);
  tm__texts_free(&job->calls);
  tm__texts_free(&job->undone);
  tm__buf_free(&job->trail);
  free(job->steps);
  free(job->input);
}

static void trail_done(tm_slot *s, tm_slot_job *base) {
  trail_job *job = (trail_job *)(void *)base;
  if (s->first != NULL) trail_found(s, job);
  job_clear(job);
}

void tm__trail_find(tm_slot *s) {
  const tm_request *r = s->first;
  trail_job *job = calloc(1, sizeof(*job));
  if (job != NULL) {
    job->steps = strdup(r->trail_of);
    job->input = strdup(r->command != NULL ? r->command : r->input_json);
  }
  if (job == NULL || job->steps == NULL || job->input == NULL) {
    tm_error err;
    (void)tm__fail_memory(&err, "a correction");
    if (job != NULL) job_clear(job);
    free(job);
    tm__slot_fail(s, &err);
    return;
  }
  job->head = job->record.head = s->record.head;
  job->in_memory = job->record.in_memory = s->record.in_memory;
  job->flags = s->record.flags;
  job->base.job.work = trail_work;
  job->base.done = trail_done;
  tm__slot_read(s, &job->base);
}
