/* compensation.c - a conversation that is failing: what of it is to be undone before it has failed
 * for good. It is one while its runtime part has `failing`; whoever takes its turn up gets the list
 * of what is not undone yet, from the start of the conversation on. Where a conversation goes to
 * another version, that has to have the functions of these steps, too. */
#include <stdlib.h>

#include "core/json.h"
#include "journal/slot.h"

#define ROWS_MAX  65536        /* looked at */
#define PART_MOST (128 * 1024) /* given at once: as Lua values they are many times larger */

typedef struct walk {
  tm_undo_steps found;
  int rows;
  bool limited; /* what lies further back is not looked at */
  tm_error *err;
} walk;

bool tm__is_failing(const tm_record *r) {
  return tm__json_get(tm__buf_view(&r->runtime), "failing").ptr != NULL;
}

static tm_status on_row(void *ud, const tm_row *row) {
  walk *w = ud;
  tm_row_fields f;
  tm__row_fields(&f, row->body);
  tm_status status = tm__undo_steps_add(&w->found, row, &f, w->err);
  w->limited = status == TM_ECONFLICT || (status == TM_OK && ++w->rows >= ROWS_MAX);
  return w->limited ? TM_ECANCELLED : status;
}

/* Those whose function has failed for good are not tried again. */
static bool add_left(tm_undo_steps *u, tm_slice runtime) {
  tm_json_walk w;
  tm_slice key;
  tm_slice left;
  bool ok = true;
  bool more = tm__json_walk(&w, tm__json_get(runtime, "left"));
  while (ok && more && tm__json_next(&w, &key, &left)) {
    ok = tm__texts_add(&u->undone, tm__json_get(left, "seq"));
  }
  return ok;
}

static void write_list(tm_buf *out, const walk *w) {
  tm_buf names = {0}, steps = {0};
  bool more;
  tm__undo_steps_irreversible(&w->found, &names);
  tm__buf_byte(out, '{');
  tm__json_member(out, "irreversible", tm__buf_view(&names));
  tm__json_member_bool(out, "limited", w->limited);
  (void)tm__undo_steps_write(&w->found, PART_MOST, &more, &steps);
  tm__json_member_bool(out, "more", more);
  tm__json_member_raw(out, "steps", tm__buf_view(&steps));
  tm__buf_byte(out, '}');
  out->failed = out->failed || !tm__buf_ok(&names) || !tm__buf_ok(&steps);
  tm__buf_free(&names);
  tm__buf_free(&steps);
}

tm_status tm__compensation(tm_record *r, const tm_store_access *a, tm_error *err) {
  walk w = {.err = err};
  tm_status status =
      tm__access_chain(a, r->in_memory, &r->head, r->head.tip, true, on_row, &w, err);
  if (status == TM_OK || status == TM_ECANCELLED) {
    bool known = add_left(&w.found, tm__buf_view(&r->runtime));
    tm__buf_clear(&r->input);
    write_list(&r->input, &w);
    status = known && tm__buf_ok(&r->input) ? TM_OK : tm__fail_memory(err, "what is to be undone");
  }
  tm__undo_steps_free(&w.found);
  return status;
}

/* ---- before a migration ---- */

typedef struct migrate_job {
  tm_slot_job base;
  tm_head head;
  bool in_memory;
  tm_buf input;
} migrate_job;

static tm_status migrate_work(tm_store_job *base, const tm_store_access *a, tm_error *err) {
  migrate_job *job = (migrate_job *)(void *)base;
  walk w = {.err = err};
  tm_status status =
      tm__access_chain(a, job->in_memory, &job->head, job->head.tip, true, on_row, &w, err);
  if (status == TM_OK || status == TM_ECANCELLED) {
    tm__buf_text(&job->input, "{\"done\":");
    bool known = tm__undo_steps_places(&w.found, &job->input);
    tm__buf_byte(&job->input, '}');
    status = known && tm__buf_ok(&job->input) ? TM_OK : tm__fail_memory(err, "a migration");
  }
  tm__undo_steps_free(&w.found);
  return status;
}

static void migrate_done(tm_slot *s, tm_slot_job *base) {
  migrate_job *job = (migrate_job *)(void *)base;
  char *input = base->job.status == TM_OK ? tm__buf_take(&job->input) : NULL;
  if (s->first == NULL) {
    free(input);
  } else if (input != NULL) {
    free(s->first->input_json);
    s->first->input_json = input;
    tm__turn_run(s, TM_TURN_MIGRATE);
  } else {
    if (base->job.status == TM_OK) (void)tm__fail_memory(&base->job.error, "a migration");
    tm__slot_fail(s, &base->job.error);
  }
  tm__buf_free(&job->input);
}

void tm__migrate(tm_slot *s) {
  migrate_job *job = calloc(1, sizeof(*job));
  if (job == NULL) {
    tm_error err;
    (void)tm__fail_memory(&err, "a migration");
    tm__slot_fail(s, &err);
    return;
  }
  job->head = s->record.head;
  job->in_memory = s->record.in_memory;
  job->base.job.work = migrate_work;
  job->base.done = migrate_done;
  tm__slot_read(s, &job->base);
}
