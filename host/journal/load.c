/* load.c - a record made of its rows: walks from the newest row back to one with the whole state,
 * and to the beginning of an unfinished turn; never further. */
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "journal/slot.h"
#include "journal/state.h"

void tm__record_clear(tm_record *r) {
  tm__buf_free(&r->state);
  tm__buf_free(&r->runtime);
  tm__buf_free(&r->input);
  tm__buf_free(&r->calls);
  tm__buf_free(&r->undo);
  tm__texts_free(&r->rows);
  tm__bundle_unref(r->bundle);
  *r = (tm_record){0};
}

void tm__tip_clear(tm_tip *t) {
  tm__buf_free(&t->step);
  tm__buf_free(&t->prompt);
  tm__buf_free(&t->error);
  *t = (tm_tip){0};
}

/* ---- the walk ---- */

typedef struct walk {
  tm_record *record;
  tm_tip *tip;
  tm_texts deltas, calls; /* newest first; a call as "key":result */
  bool any, tip_seen, state_seen, begin_seen;
  bool unfinished; /* still within the unfinished turn */
  bool memory_failed;
  tm_error *err;
} walk;

static tm_status damaged(walk *w, const tm_row *row, const char *what) {
  return tm__fail(w->err, TM_ECORRUPT, "journal.damaged",
                  "row %lld of conversation %s is damaged: %s; restore a backup",
                  (long long)row->id, row->conversation, what);
}

static tm_status read_tip(walk *w, const tm_row *row, const tm_row_fields *f) {
  w->tip_seen = true;
  w->record->deadline = tm__json_get_int(row->body, "wake_at", 0);
  tm__buf_slice(&w->record->runtime, f->runtime);
  tm_tip *tip = w->tip;
  if (tip == NULL) return TM_OK;
  tip->created = row->created;
  tm__buf_slice(&tip->prompt, f->prompt);
  tm__buf_slice(&tip->error, f->error);
  if (!tm__row_status(f, &tip->status)) return damaged(w, row, "it has no status");
  if (tm__json_unquote(f->step, &tip->step) || !tm__buf_ok(&tip->step)) return TM_OK;
  return damaged(w, row, "it has no step");
}

/* Rows of the unfinished turn, until the row that ended the turn before. */
static void read_unfinished(walk *w, const tm_row *row, const tm_row_fields *f) {
  tm_record *r = w->record;
  if (row->kind == TM_ROW_CALL) {
    tm_buf call = {0};
    tm__buf_slice(&call, tm__json_get(f->call, "key"));
    tm__buf_byte(&call, ':');
    tm__buf_slice(&call, tm__json_get(f->call, "result"));
    if (!w->begin_seen && !tm__texts_take(&w->calls, &call)) w->memory_failed = true;
    tm__buf_free(&call);
  } else if (row->kind == TM_ROW_BEGIN) {
    w->begin_seen = true;
    r->begun = row->revision;
    if (!tm__texts_add(&r->rows, row->body)) w->memory_failed = true;
    tm__buf_clear(&r->input);
    tm__buf_slice(&r->input, f->input);
    tm__buf_clear(&r->undo);
    tm__buf_slice(&r->undo, f->undo);
    r->keys.count = 0;
    tm__row_keys(f, &r->keys);
    r->before = row->parent;
    r->began_as = tm__row_turn(f);
  } else {
    w->unfinished = false;
  }
}

static tm_status read_state(walk *w, const tm_row *row, const tm_row_fields *f) {
  if (f->state.ptr != NULL) {
    w->state_seen = true;
    tm__buf_slice(&w->record->state, f->state);
    if (!tm__buf_ok(&w->record->state)) w->memory_failed = true;
    return TM_OK;
  }
  w->record->rows_since_full++;
  if (row->kind == TM_ROW_CALL) return TM_OK;
  if (f->delta.ptr == NULL) return damaged(w, row, "it has neither state nor delta");
  if (!tm__texts_add(&w->deltas, f->delta)) w->memory_failed = true;
  return TM_OK;
}

static void read_flags(walk *w, const tm_row *row) {
  tm_record *r = w->record;
  if (!w->any) {
    r->newest = row->revision;
    r->flags = row->flags;
  }
  w->any = true;
  if ((row->flags & TM_BODY_SEALED) != 0) return;
  if (!r->unsealed) r->plain = row->revision;
  r->unsealed = true;
}

static tm_status on_row(void *ud, const tm_row *row) {
  walk *w = ud;
  tm_row_fields f;
  tm_status status = TM_OK;
  tm__row_fields(&f, row->body);
  read_flags(w, row);
  if (!w->tip_seen && row->kind != TM_ROW_CALL) status = read_tip(w, row, &f);
  if (status == TM_OK && w->unfinished) read_unfinished(w, row, &f);
  if (status == TM_OK && !w->state_seen) status = read_state(w, row, &f);
  if (status != TM_OK) return status;
  return w->state_seen && !w->unfinished ? TM_ECANCELLED : TM_OK; /* far enough */
}

/* ---- putting it together ---- */

static bool apply_deltas(walk *w) {
  tm_record *r = w->record;
  for (size_t i = w->deltas.count; i > 0; i--) {
    tm_buf next = {0};
    bool ok = tm__state_apply(&next, tm__buf_view(&r->state), w->deltas.items[i - 1]);
    tm__buf_free(&r->state);
    r->state = next;
    if (!tm__buf_ok(&next)) w->memory_failed = true;
    if (!ok) return false;
  }
  return true;
}

static void join_calls(walk *w) {
  tm_buf *out = &w->record->calls;
  tm__buf_byte(out, '{');
  for (size_t i = w->calls.count; i > 0; i--) {
    if (i < w->calls.count) tm__buf_byte(out, ',');
    tm__buf_slice(out, w->calls.items[i - 1]);
  }
  tm__buf_byte(out, '}');
}

static tm_status finish(walk *w, int64_t row) {
  tm_record *r = w->record;
  bool applied = w->state_seen && apply_deltas(w);
  join_calls(w);
  tm__texts_reverse(&r->rows);
  if (r->input.len == 0) tm__buf_text(&r->input, "null");
  const tm_buf *made[] = {&r->state, &r->runtime, &r->input, &r->calls, &r->undo};
  for (size_t i = 0; i < sizeof(made) / sizeof(made[0]); i++) {
    if (!tm__buf_ok(made[i])) w->memory_failed = true;
  }
  if (w->tip != NULL &&
      (!tm__buf_ok(&w->tip->step) || !tm__buf_ok(&w->tip->prompt) || !tm__buf_ok(&w->tip->error))) {
    w->memory_failed = true;
  }
  if (w->memory_failed) return tm__fail_memory(w->err, "a conversation's record");
  if (applied && w->tip_seen) return TM_OK;
  return tm__fail(
      w->err, TM_ECORRUPT, "journal.damaged",
      "the state at row %lld of conversation %s cannot be put together; restore a backup",
      (long long)row, r->head.id);
}

tm_status tm__record_rows(tm_record *r, tm_tip *tip, const tm_store_access *a, int64_t row,
                          bool unfinished, tm_error *err) {
  walk w = {.record = r, .tip = tip, .unfinished = unfinished, .err = err};
  tm_status status = tm__access_chain(a, r->in_memory, &r->head, row, true, on_row, &w, err);
  if (r->in_memory || tm__access_takes_plaintext(a)) r->unsealed = false;
  if (status == TM_OK || status == TM_ECANCELLED) status = finish(&w, row);
  tm__texts_free(&w.deltas);
  tm__texts_free(&w.calls);
  return status;
}

tm_status tm__record_trust(const tm_record *r, uint32_t flags, tm_error *err) {
  const tm_place at = {.tenant = tm__slice(r->head.tenant),
                       .conversation = tm__slice(r->head.id),
                       .revision = r->plain};
  bool seals = ((r->flags | flags) & TM_BODY_SEALED) != 0;
  return r->unsealed && seals ? tm__codec_plaintext(&at, err) : TM_OK;
}

/* ---- the job ---- */

typedef struct load_job {
  tm_slot_job base;
  char id[TM_ID_SIZE];
  tm_registry *registry;
  tm_record record;
} load_job;

/* The bundle of the record's version; a version that nobody has any more is found missing only when
 * a turn has to run. */
static tm_status find_bundle(load_job *job, const tm_store_access *a, tm_error *err) {
  tm_record *r = &job->record;
  tm_slice system = tm__slice(r->head.system);
  tm_slice version = tm__slice(r->head.version);
  r->bundle = tm__registry_find(job->registry, system, version);
  if (r->bundle != NULL) return TM_OK;
  tm_buf sources = {0};
  tm_status status = a->backend->script_get(a->common, system, version, &sources, err);
  if (status == TM_OK) {
    tm_bundle *b = tm__bundle_new(system, version, tm__buf_view(&sources), (tm_slice){0});
    if (b != NULL && tm__buf_ok(&sources)) {
      r->bundle = tm__registry_add(job->registry, b, err);
    } else {
      tm__bundle_unref(b);
      (void)tm__fail_memory(err, "the sources of a system");
    }
    if (r->bundle == NULL) status = TM_ENOMEM;
  }
  tm__buf_free(&sources);
  return status == TM_ENOTFOUND ? TM_OK : status;
}

static tm_status load_work(tm_store_job *base, const tm_store_access *a, tm_error *err) {
  load_job *job = (load_job *)(void *)base;
  tm_record *r = &job->record;
  tm_status status = tm__access_head(a, tm__slice(job->id), &r->head, &r->in_memory, err);
  if (status != TM_OK) return status;
  status = tm__record_rows(r, NULL, a, r->head.tip, r->head.status == TM_ACTIVE, err);
  if (status == TM_OK && r->head.status == TM_ACTIVE && tm__is_failing(r))
    status = tm__compensation(r, a, err);
  if (status != TM_OK && tm__access_is_gone(a, tm__slice(job->id))) {
    r->head.revision = 0; /* purged while its rows were read */
    return TM_ENOTFOUND;
  }
  if (status == TM_OK) return find_bundle(job, a, err);
  if (r->newest == 0) r->newest = tm__access_newest(a, r->in_memory, &r->head);
  return status;
}

/* The head of a record that cannot be put together is kept, so that its deadline can be put off. */
static void load_failed(tm_slot *s, load_job *job) {
  tm_error *err = &job->base.job.error;
  if (job->record.head.revision > 0) {
    s->record.head = job->record.head;
    s->record.newest = job->record.newest;
    s->record.in_memory = job->record.in_memory;
  } else if (err->status == TM_ENOTFOUND) {
    (void)tm__fail(err, TM_ENOTFOUND, "conversation.not_found", "there is no conversation %s",
                   s->id);
  }
  tm__record_clear(&job->record);
  tm__slot_fail(s, err);
}

static void load_done(tm_slot *s, tm_slot_job *base) {
  load_job *job = (load_job *)(void *)base;
  tm__slot_forget(s);
  if (job->base.job.status != TM_OK) {
    load_failed(s, job);
    return;
  }
  s->record = job->record;
  s->record.loaded = true;
  s->fresh = true;
  tm__together_learn(s);
}

void tm__record_load(tm_slot *s) {
  load_job *job = calloc(1, sizeof(*job));
  if (job == NULL) {
    tm_error err;
    (void)tm__fail_memory(&err, "reading a conversation");
    tm__slot_fail(s, &err);
    return;
  }
  memcpy(job->id, s->id, sizeof(job->id));
  job->registry = s->journal->o.registry;
  job->base.job.work = load_work;
  job->base.done = load_done;
  tm__slot_read(s, &job->base);
}
