/* fork.c - a new conversation that goes on from where another one waited: a head of its own whose
 * first row has the whole state. What came before is named by that row, never copied; afterwards
 * the two know nothing of each other. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "journal/slot.h"

#define ROWS_MAX 4096 /* looked at for one fork */

typedef struct fork_job {
  tm_slot_job base;
  char origin[TM_ID_SIZE], tenant[65];
  int64_t checkpoint;
  char name[TM_CHECKPOINT_NAME]; /* of the checkpoint; "": by its id, or none */
  tm_head head;                  /* of the origin */
  bool in_memory;
  /* while walking */
  int rows;
  bool any;
  uint32_t flags; /* how the newest row was stored */
  tm_checkpoints listed;
  int64_t row, revision; /* that is forked; 0: none yet */
  /* what it holds */
  tm_record record;
  tm_tip tip;
} fork_job;

/* ---- the row to go on from ---- */

/* Without a checkpoint: the newest row at which it was for somebody or something else to go on. */
static bool waits(const tm_row *row, const tm_row_fields *f) {
  tm_conversation_status status;
  if (row->kind == TM_ROW_BEGIN || row->kind == TM_ROW_CALL) return false;
  return tm__row_status(f, &status) && status != TM_ACTIVE && !tm__conversation_is_over(status);
}

static bool is_row(const fork_job *job, const tm_row *row, const tm_row_fields *f) {
  if (job->checkpoint == 0) return waits(row, f);
  return tm__ends_waiting(row, f) && row->revision == job->checkpoint && row->checkpoint;
}

static tm_status on_row(void *ud, const tm_row *row) {
  fork_job *job = ud;
  tm_row_fields f;
  if (!job->any) job->flags = row->flags;
  job->any = true;
  tm__row_fields(&f, row->body);
  tm_listing listing = tm__checkpoints_next(&job->listed, row, &f);
  if (job->row != 0) { /* listed only if nothing older is */
    if (listing == TM_LISTED_IF_LAST) job->row = 0;
    bool enough =
        job->row == 0 || row->kind == TM_ROW_MIGRATE || tm__checkpoints_done(&job->listed);
    return enough || ++job->rows >= ROWS_MAX ? TM_ECANCELLED : TM_OK;
  }
  bool enough = row->kind == TM_ROW_MIGRATE || ++job->rows >= ROWS_MAX;
  if (!is_row(job, row, &f)) return enough ? TM_ECANCELLED : TM_OK; /* nor over a migration */
  if (job->checkpoint != 0 && listing == TM_NOT_LISTED) return TM_ECANCELLED;
  job->row = row->id;
  job->revision = row->revision;
  bool looks = job->checkpoint != 0 && listing == TM_LISTED_IF_LAST && !enough;
  return looks ? TM_OK : TM_ECANCELLED;
}

static tm_status no_origin(const fork_job *job, tm_error *err) {
  return tm__fail(err, TM_ENOTFOUND, "conversation.not_found", "there is no conversation %s",
                  job->origin);
}

static tm_status no_row(const fork_job *job, tm_error *err) {
  bool named = job->name[0] != '\0';
  char id[24];
  (void)snprintf(id, sizeof(id), "%lld", (long long)job->checkpoint);
  if (named || job->checkpoint != 0)
    return tm__fail(err, TM_ENOTFOUND, "checkpoint.not_found",
                    "conversation %s has no checkpoint %s to go on from", job->origin,
                    named ? job->name : id);
  return tm__fail(err, TM_ECONFLICT, "fork.nothing",
                  "conversation %s has not waited for anybody yet, so there is nothing to go on "
                  "from",
                  job->origin);
}

static tm_status find_named(fork_job *job, const tm_store_access *a, tm_error *err) {
  if (job->name[0] == '\0') return TM_OK;
  tm_status status = tm__checkpoint_named(&job->checkpoint, job->name, &job->listed, a,
                                          job->in_memory, &job->head, err);
  return status == TM_OK && job->checkpoint == 0 ? no_row(job, err) : status;
}

static tm_status fork_work(tm_store_job *base, const tm_store_access *a, tm_error *err) {
  fork_job *job = (fork_job *)(void *)base;
  tm_status status = tm__access_head(a, tm__slice(job->origin), &job->head, &job->in_memory, err);
  if (status == TM_ENOTFOUND || (status == TM_OK && strcmp(job->head.tenant, job->tenant) != 0))
    return no_origin(job, err);
  if (status == TM_OK) status = find_named(job, a, err);
  if (status != TM_OK) return status;
  status = tm__access_chain(a, job->in_memory, &job->head, job->head.tip, true, on_row, job, err);
  if (status == TM_OK || status == TM_ECANCELLED) {
    if (job->row == 0) return no_row(job, err);
    job->record.head = job->head;
    job->record.in_memory = job->in_memory;
    status = tm__record_rows(&job->record, &job->tip, a, job->row, false, err);
    if (status == TM_OK) status = tm__record_trust(&job->record, job->flags, err);
  }
  bool gone = status != TM_OK && tm__access_is_gone(a, tm__slice(job->origin));
  return gone ? no_origin(job, err) : status; /* purged meanwhile */
}

/* ---- the new conversation ---- */

static void set_head(tm_slot *s, const fork_job *job) {
  tm_head *h = &s->record.head;
  *h = (tm_head){.status = TM_ACTIVE, .created = tm__journal_now(s->journal)};
  memcpy(h->id, s->id, sizeof(h->id));
  memcpy(h->tenant, job->head.tenant, sizeof(h->tenant));
  memcpy(h->session, job->head.session, sizeof(h->session));
  memcpy(h->system, job->head.system, sizeof(h->system));
  memcpy(h->flow, job->head.flow, sizeof(h->flow));
  memcpy(h->version, job->head.version, sizeof(h->version));
  s->record.in_memory = job->in_memory;
  s->record.flags = job->record.flags; /* what was sealed stays so */
}

static void write_origin(tm_buf *out, const fork_job *job) {
  tm__buf_byte(out, '{');
  tm__json_member_text(out, "conversation_id", job->origin);
  tm__json_member_int(out, "revision", job->revision);
  tm__json_member_int(out, "row", job->row);
  tm__buf_byte(out, '}');
}

static void append_fork(tm_slot *s, const fork_job *job) {
  tm_buf plan = {0};
  tm_buf origin = {0};
  write_origin(&origin, job);
  tm__undo_plan(&plan, &job->record, &job->tip, &job->record, &job->tip, job->row, 0,
                (tm_slice){0});
  if (tm__buf_ok(&plan) && tm__buf_ok(&origin)) {
    tm__slot_forget(s);
    set_head(s, job);
    tm__turn_fork(s, tm__buf_view(&plan), tm__buf_view(&origin));
  } else {
    tm_error err;
    (void)tm__fail_memory(&err, "a fork");
    tm__slot_fail(s, &err);
  }
  tm__buf_free(&plan);
  tm__buf_free(&origin);
}

static void fork_done(tm_slot *s, tm_slot_job *base) {
  fork_job *job = (fork_job *)(void *)base;
  if (base->job.status != TM_OK) {
    tm__slot_fail(s, &base->job.error);
  } else if (s->first != NULL) {
    append_fork(s, job);
  }
  tm__record_clear(&job->record);
  tm__tip_clear(&job->tip);
}

void tm__fork_find(tm_slot *s) {
  const tm_request *r = s->first;
  fork_job *job = calloc(1, sizeof(*job));
  if (job == NULL) {
    tm_error err;
    (void)tm__fail_memory(&err, "a fork");
    tm__slot_fail(s, &err);
    return;
  }
  memcpy(job->origin, r->origin, sizeof(job->origin));
  memcpy(job->tenant, r->tenant, sizeof(job->tenant));
  job->checkpoint = r->checkpoint;
  memcpy(job->name, r->checkpoint_name, sizeof(job->name));
  job->listed = tm__checkpoints(s->journal->o.checkpoints, tm__journal_now(s->journal));
  job->base.job.work = fork_work;
  job->base.done = fork_done;
  tm__slot_read(s, &job->base);
}
