/* undo.c - rollback: finds the row where the conversation waited for somebody, and what cannot be
 * taken back on the way there; then appends an undo row that restores it. */
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "journal/slot.h"

#define STEPS_MAX 100
#define ROWS_MAX  4096 /* looked at for one rollback */

typedef struct undo_job {
  tm_slot_job base;
  tm_head head;
  bool in_memory, force;
  int steps;
  int64_t checkpoint;
  /* while walking */
  int prompts_left; /* prompts to pass before the target */
  int passed;       /* prompts passed */
  int allowed;      /* that the flow lets one pass: `rollback` in the runtime part; 0: none */
  int rows;
  tm_checkpoints listed;
  tm_texts calls, executions; /* of the rows passed: step seqs of calls, and steps */
  int64_t target, target_created;
  /* the target */
  tm_record record;
  tm_tip tip;
} undo_job;

/* ---- the walk back ---- */

static bool is_target(undo_job *job, const tm_row *row, const tm_row_fields *f) {
  if (job->checkpoint != 0)
    return tm__ends_waiting(row, f) && row->revision == job->checkpoint && row->checkpoint;
  return tm__is_new_prompt(row, f) && job->prompts_left-- == 0;
}

static bool keep_call(undo_job *job, const tm_row_fields *f) {
  tm_slice key = tm__json_get(f->call, "key");
  size_t end = 1;
  while (end < key.len && key.ptr[end] >= '0' && key.ptr[end] <= '9') {
    end++;
  }
  tm_slice seq = {key.ptr + 1, end - 1};
  const tm_texts *calls = &job->calls;
  if (calls->count > 0 && tm__slice_eq(calls->items[calls->count - 1], seq)) return true;
  return tm__texts_add(&job->calls, seq);
}

static bool keep_executions(undo_job *job, const tm_row_fields *f) {
  tm_json_walk w;
  tm_slice key;
  tm_slice step;
  if (!tm__json_walk(&w, f->steps)) return true;
  while (tm__json_next(&w, &key, &step)) {
    if (!tm__texts_add(&job->executions, step)) return false;
  }
  return true;
}

/* The flow's enable_rollback and max_rollback_steps, as the newest row has them. */
static bool may_go_back(undo_job *job, const tm_row_fields *f) {
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
  return job->checkpoint != 0 && listing == TM_LISTED_IF_LAST ? TM_OK : TM_ECANCELLED;
}

/* Behind a target that is listed only if nothing older can be gone to. */
static tm_status look_behind(undo_job *job, tm_listing listing) {
  if (listing == TM_LISTED_IF_LAST) job->target = 0;
  bool enough = listing == TM_LISTED_IF_LAST || tm__checkpoints_done(&job->listed);
  return enough || ++job->rows >= ROWS_MAX ? TM_ECANCELLED : TM_OK;
}

static tm_status on_row(void *ud, const tm_row *row) {
  undo_job *job = ud;
  tm_row_fields f;
  tm__row_fields(&f, row->body);
  if (job->rows == 0 && !may_go_back(job, &f)) return TM_ECONFLICT;
  tm_listing listing = tm__checkpoints_next(&job->listed, row, &f);
  if (job->target != 0) return look_behind(job, listing);
  if (is_target(job, row, &f)) return take_target(job, row, listing);
  job->passed += tm__is_new_prompt(row, &f);
  bool kept = row->kind == TM_ROW_CALL ? keep_call(job, &f) : keep_executions(job, &f);
  if (!kept) return TM_ENOMEM;
  return ++job->rows >= ROWS_MAX ? TM_ECANCELLED : TM_OK;
}

/* ---- what stands in the way ---- */

static tm_status no_target(const undo_job *job, tm_error *err) {
  if (job->checkpoint != 0 && job->rows < ROWS_MAX) {
    return tm__fail(err, TM_ENOTFOUND, "checkpoint.not_found",
                    "conversation %s has no checkpoint %lld to go back to", job->head.id,
                    (long long)job->checkpoint);
  }
  if (job->rows < ROWS_MAX) {
    return tm__fail(err, TM_ECONFLICT, "rollback.nothing",
                    "conversation %s has not had %d answered prompts to go back", job->head.id,
                    job->steps);
  }
  return tm__fail(err, TM_ECONFLICT, "rollback.limit",
                  "conversation %s: the target is more than %d journal rows back", job->head.id,
                  ROWS_MAX);
}

static void add_name(tm_buf *names, const undo_job *job, tm_slice seq) {
  tm_slice name = {0};
  for (size_t i = 0; i < job->executions.count && name.ptr == NULL; i++) {
    if (tm__slice_eq(tm__json_get(job->executions.items[i], "seq"), seq)) {
      name = tm__json_get(job->executions.items[i], "step_id");
    }
  }
  if (names->len > 0) tm__buf_text(names, ", ");
  if (name.ptr != NULL && name.len >= 2) {
    tm__buf_add(names, name.ptr + 1, name.len - 2);
  } else {
    tm__buf_text(names, "step ");
    tm__buf_slice(names, seq);
  }
}

static tm_status irreversible(const undo_job *job, tm_error *err) {
  tm_buf names = {0};
  for (size_t i = 0; i < job->calls.count; i++) {
    add_name(&names, job, job->calls.items[i]);
  }
  tm_slice view = tm__buf_view(&names);
  (void)tm__fail(err, TM_ECONFLICT, "rollback.irreversible",
                 "these steps made calls to the outside that cannot be taken back: %.*s; roll back "
                 "with force to leave them as they are",
                 (int)(view.len < 400 ? view.len : 400), view.ptr);
  tm__buf_free(&names);
  return TM_ECONFLICT;
}

static tm_status undo_work(tm_store_job *base, const tm_store_access *a, tm_error *err) {
  undo_job *job = (undo_job *)(void *)base;
  tm_status status =
      tm__access_chain(a, job->in_memory, &job->head, job->head.tip, true, on_row, job, err);
  if (status == TM_ENOMEM) return tm__fail_memory(err, "a rollback");
  if (status != TM_OK && status != TM_ECANCELLED) return status;
  if (job->target == 0) return no_target(job, err);
  if (job->passed > job->allowed)
    return tm__fail(err, TM_ECONFLICT, "rollback.limit",
                    "%d answered prompts back are more than the flow allows: at most %d "
                    "(max_rollback_steps)",
                    job->passed, job->allowed);
  if (job->calls.count > 0 && !job->force) return irreversible(job, err);
  return tm__record_rows(&job->record, &job->tip, a, job->target, false, err);
}

/* ---- the undo row ---- */

static void add_member(tm_buf *out, tm_slice key) {
  tm__json_comma(out);
  tm__buf_add(out, key.ptr - 1, key.len + 2);
  tm__buf_byte(out, ':');
}

/* The prompt is asked again: its time to answer begins anew. */
static void move_prompt(tm_buf *out, tm_slice prompt, int64_t by) {
  tm_json_walk w;
  tm_slice key;
  tm_slice value;
  if (!tm__json_walk(&w, prompt) || !w.object) {
    tm__buf_slice(out, prompt);
    return;
  }
  int64_t expires = tm__json_get_int(prompt, "expires_at", 0);
  tm__buf_byte(out, '{');
  while (tm__json_next(&w, &key, &value)) {
    add_member(out, key);
    if (expires > 0 && tm__slice_is(key, "expires_at")) {
      tm__json_int(out, expires + by);
    } else {
      tm__buf_slice(out, value);
    }
  }
  tm__buf_byte(out, '}');
}

static int64_t steps_counted(tm_slice runtime) {
  int64_t own = tm__json_get_int(runtime, "step_seq", 0);
  int64_t before = tm__json_get_int(tm__json_get(runtime, "restored"), "step_seq", 0);
  return own > before ? own : before;
}

/* The runtime part as it was, and in `restored` what the next turn does to it. */
static void restore_runtime(tm_buf *out, tm_slice runtime, int64_t by, int64_t step_seq) {
  static const char name[] = "restored";
  tm_json_walk w;
  tm_slice key;
  tm_slice value;
  bool added = false;
  bool more = tm__json_walk(&w, runtime);
  by += tm__json_get_int(tm__json_get(runtime, name), "moved", 0);
  tm__buf_byte(out, '{');
  while (more) {
    more = tm__json_next(&w, &key, &value);
    bool same = more && tm__slice_is(key, name);
    if (!added && (!more || same || tm__slice_cmp(key, TM_S("restored")) > 0)) {
      tm__json_key(out, name);
      tm__buf_printf(out, "{\"moved\":%lld,\"step_seq\":%lld}", (long long)by, (long long)step_seq);
      added = true;
    }
    if (!more || same) continue;
    add_member(out, key);
    tm__buf_slice(out, value);
  }
  tm__buf_byte(out, '}');
}

static void append_undo(tm_slot *s, undo_job *job) {
  int64_t by = tm__journal_now(s->journal) - job->target_created;
  tm_buf prompt = {0};
  tm_buf runtime = {0};
  move_prompt(&prompt, tm__buf_view(&job->tip.prompt), by);
  restore_runtime(&runtime, tm__buf_view(&job->record.runtime), by,
                  steps_counted(tm__buf_view(&s->record.runtime)));
  tm_draft draft = {
      .status = job->tip.status,
      .step = tm__buf_view(&job->tip.step),
      .wake_at = job->record.deadline > 0 ? job->record.deadline + by : 0,
      .state = tm__buf_view(&job->record.state),
      .runtime = tm__buf_view(&runtime),
      .prompt = tm__buf_view(&prompt),
      .compress = (s->record.flags & TM_BODY_ZSTD) != 0,
  };
  if (tm__buf_ok(&prompt) && tm__buf_ok(&runtime)) {
    tm__turn_undo(s, &draft, job->target);
  } else {
    tm_error err;
    (void)tm__fail_memory(&err, "a rollback");
    tm__slot_fail(s, &err);
  }
  tm__buf_free(&prompt);
  tm__buf_free(&runtime);
}

static void undo_done(tm_slot *s, tm_slot_job *base) {
  undo_job *job = (undo_job *)(void *)base;
  if (base->job.status != TM_OK) {
    tm__slot_fail(s, &base->job.error);
  } else if (s->first != NULL) {
    append_undo(s, job);
  }
  tm__record_clear(&job->record);
  tm__tip_clear(&job->tip);
  tm__texts_free(&job->calls);
  tm__texts_free(&job->executions);
}

/* ---- the request ---- */

static tm_status check_steps(const tm_request *r, tm_error *err) {
  if (r->checkpoint != 0) return TM_OK;
  if (r->steps < 1) {
    return tm__fail(err, TM_EINVAL, "request.invalid",
                    "say how many answered prompts to go back (1 or more), or a checkpoint_id");
  }
  if (r->steps > STEPS_MAX) {
    return tm__fail(err, TM_ECONFLICT, "rollback.limit",
                    "at most %d answered prompts can be taken back at once", STEPS_MAX);
  }
  return TM_OK;
}

void tm__undo_find(tm_slot *s) {
  const tm_request *r = s->first;
  tm_error err;
  if (check_steps(r, &err) != TM_OK) {
    tm__slot_fail(s, &err);
    return;
  }
  undo_job *job = calloc(1, sizeof(*job));
  if (job == NULL) {
    (void)tm__fail_memory(&err, "a rollback");
    tm__slot_fail(s, &err);
    return;
  }
  job->head = s->record.head;
  job->record.head = s->record.head;
  job->record.in_memory = job->in_memory = s->record.in_memory;
  job->force = r->force;
  job->steps = r->steps;
  job->checkpoint = r->checkpoint;
  job->listed = tm__checkpoints(s->journal->o.checkpoints, tm__journal_now(s->journal));
  job->prompts_left = tm__is_waiting(s->record.head.status) ? r->steps : r->steps - 1;
  job->base.job.work = undo_work;
  job->base.done = undo_done;
  tm__slot_read(s, &job->base);
}
