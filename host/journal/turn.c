/* turn.c - the life of a turn: each row it appends is a compare-and-set of the head, and nothing is
 * answered or called before that is durable. */
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "journal/render.h"
#include "journal/slot.h"

#define ATTEMPTS_MAX 8     /* runs of a turn that other processes overtake */
#define PAUSE_MAX_MS 60000 /* a retry further away is left to the scheduler */

const tm_turn_view *tm__turn_view(const tm_turn *t) {
  return &t->view;
}

/* ---- beginning and end of a turn ---- */

static tm_turn *turn_new(tm_slot *s, tm_turn_kind kind) {
  tm_turn *t = calloc(1, sizeof(*t));
  if (t == NULL) return NULL;
  t->slot = s;
  t->view = (tm_turn_view){.id = ++s->journal->turns,
                           .kind = kind,
                           .began_as = kind,
                           .head = &s->record.head,
                           .state = tm__buf_view(&s->record.state),
                           .runtime = tm__buf_view(&s->record.runtime),
                           .input = TM_S("null"),
                           .calls = TM_S("{}"),
                           .unsealed = s->record.unsealed,
                           .bundle = s->record.bundle,
                           .now = tm__journal_now(s->journal)};
  s->turn = t;
  s->journal->running++;
  return t;
}

void tm__turn_free(tm_turn *t) {
  if (t == NULL) return;
  tm__lease_stop(t);
  tm__word_ended(t);
  t->slot->turn = NULL;
  t->slot->journal->running--;
  tm__request_free(t->request);
  tm__bundle_unref(t->target);
  tm__texts_free(&t->rows);
  tm_buf *all[] = {&t->input, &t->calls,       &t->state,        &t->runtime,
                   &t->undo,  &t->append.body, &t->append.state, &t->append.runtime};
  for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
    tm__buf_free(all[i]);
  }
  tm__append_forget_events(&t->append);
  free(t);
}

/* ---- running ---- */

tm_status tm__version_missing(const tm_slot *s, tm_error *err) {
  return tm__fail(
      err, TM_ESCRIPT, "system.version_missing",
      "conversation %s runs on version %s of the system %s, which is neither loaded nor "
      "stored; bring back the scripts of that version",
      s->id, s->record.head.version, s->record.head.system);
}

static tm_bundle *current_version(const tm_slot *s, const char *system, const char *tenant,
                                  tm_error *err) {
  tm_bundle *b = tm__registry_offered(s->journal->o.registry, tm__slice(system), tm__slice(tenant));
  if (b == NULL)
    (void)tm__fail(err, TM_ENOTFOUND, "system.not_found",
                   "there is no system '%s'; `tidemill systems` lists what is loaded", system);
  return b;
}

/* The record of a conversation that does not exist yet. */
static tm_status start_record(tm_slot *s, const tm_request *r, tm_error *err) {
  tm__slot_forget(s);
  tm_record *rec = &s->record;
  tm_head *h = &rec->head;
  rec->bundle = current_version(s, r->system, r->tenant, err);
  if (rec->bundle == NULL) return TM_ENOTFOUND;
  memcpy(h->id, r->conversation, sizeof(h->id));
  memcpy(h->tenant, r->tenant, sizeof(h->tenant));
  memcpy(h->session, r->session, sizeof(h->session));
  memcpy(h->system, r->system, sizeof(h->system));
  memcpy(h->flow, r->flow, sizeof(h->flow));
  memcpy(h->version, rec->bundle->version, sizeof(h->version));
  h->status = TM_ACTIVE;
  h->created = tm__journal_now(s->journal);
  tm__buf_text(&rec->state, "{}");
  tm__buf_text(&rec->runtime, "{}");
  if (tm__buf_ok(&rec->state) && tm__buf_ok(&rec->runtime)) return TM_OK;
  return tm__fail_memory(err, "a conversation");
}

/* Whose keys the turn answers goes on with it; else it ends, and the request is decided then. */
static void set_taken(tm_turn *t, tm_request *r, int64_t retry_at) {
  r->takes = false;
  t->view.retry_at = retry_at;
  t->view.forced = r == t->request;
  if (t->view.forced) (void)tm__keys_add(&t->keys, r->key, r->body);
}

/* Who gets the answer of a resumed turn: the request that was parked for it, if it is still here.
 */
static tm_request *resumed_request(tm_slot *s) {
  const tm_request *r = s->first;
  if (r == NULL || (r->floor == 0 && r->kind != TM_REQUEST_WAKE)) return NULL;
  tm_request *own = tm__slot_pop(s);
  if (own->kind != TM_REQUEST_WAKE) return own;
  tm__request_free(own);
  return NULL;
}

static void set_resumed(tm_turn *t, tm_record *rec) {
  t->begun = true;
  t->compress = (rec->flags & TM_BODY_ZSTD) != 0;
  t->view.began_as = rec->began_as;
  t->keys = rec->keys;
  t->before = rec->before;
  t->input = rec->input;
  t->calls = rec->calls;
  t->rows = rec->rows;
  t->undo = rec->undo;
  rec->undo = (tm_buf){0};
  rec->input = (tm_buf){0};
  rec->calls = (tm_buf){0};
  rec->rows = (tm_texts){0};
  t->view.input = tm__buf_view(&t->input);
  t->view.calls = tm__buf_view(&t->calls);
}

static void set_requested(tm_turn *t) {
  const tm_request *r = t->request;
  t->before = t->slot->record.head.tip;
  (void)tm__keys_add(&t->keys, r->key, r->body);
  for (const tm_request *one = r->joined; one != NULL; one = one->joined)
    (void)tm__keys_add(&t->keys, one->key, one->body);
  if (r->input_json != NULL) t->view.input = tm__slice(r->input_json);
  if (r->trail != NULL) t->view.input = tm__slice(r->trail);
  t->view.refused = tm__slice(r->refused);
  if (t->view.kind != TM_TURN_UNDO) return;
  t->view.input = tm__slice(r->undo_steps);
  tm__buf_slice(&t->undo, tm__slice(r->undo_plan));
}

/* The version that the turn runs in is at hand. One that migrates needs that of before no more. */
static tm_bundle *find_version(tm_slot *s, tm_turn_kind kind, tm_error *err) {
  const tm_head *h = &s->record.head;
  if (kind == TM_TURN_MIGRATE) return current_version(s, h->system, h->tenant, err);
  if (kind == TM_TURN_START) (void)start_record(s, s->first, err);
  if (err->status == TM_OK && s->record.bundle == NULL) (void)tm__version_missing(s, err);
  return NULL;
}

void tm__turn_run(tm_slot *s, tm_turn_kind kind) {
  tm_error err = {0};
  tm_turn *t = NULL;
  tm_bundle *target = find_version(s, kind, &err);
  if (err.status == TM_OK) {
    t = turn_new(s, kind);
    if (t == NULL) (void)tm__fail_memory(&err, "a turn");
  }
  if (t == NULL) {
    tm__bundle_unref(target);
    tm__slot_fail(s, &err);
    tm__slot_forget(s);
    return;
  }
  t->target = target;
  if (target != NULL) t->view.bundle = target;
  t->fresh = s->fresh;
  tm_request *taker = s->first != NULL && s->first->takes ? s->first : NULL;
  t->request = kind == TM_TURN_RESUME ? resumed_request(s) : tm__slot_pop(s);
  if (kind == TM_TURN_RESUME) {
    set_resumed(t, &s->record);
    if (taker != NULL) set_taken(t, taker, s->record.deadline);
    tm__lease_start(t);
  } else {
    set_requested(t);
    if (kind == TM_TURN_MESSAGE) tm__together_join(s, t);
  }
  s->phase = TM_SLOT_RUNNING;
  tm__together_look(s);
  if (kind == TM_TURN_RESUME && t->interrupted) {
    t->ended = true; /* nobody has it */
    tm__turn_interrupt(t);
    return;
  }
  s->journal->o.executor.run(s->journal->o.executor.ud, t);
}

void tm__turn_undo(tm_slot *s) {
  tm_turn *t = turn_new(s, TM_TURN_UNDO);
  if (t == NULL) {
    tm_error err;
    (void)tm__fail_memory(&err, "a rollback");
    tm__slot_fail(s, &err);
    return;
  }
  t->request = tm__slot_pop(s);
  set_requested(t);
  const tm_draft nothing = {.runtime = t->view.runtime,
                            .compress = (s->record.flags & TM_BODY_ZSTD) != 0};
  tm__turn_undone(t, &nothing, NULL);
}

/* Whoever asks for it next reads it anew, with its version. */
void tm__turn_fork(tm_slot *s, tm_slice plan, tm_slice origin) {
  tm_turn *t = turn_new(s, TM_TURN_START);
  if (t == NULL) {
    tm_error err;
    (void)tm__fail_memory(&err, "a fork");
    tm__slot_fail(s, &err);
    return;
  }
  t->request = tm__slot_pop(s);
  set_requested(t);
  tm__buf_slice(&t->undo, plan);
  tm__turn_forked(t, origin);
}

/* An unfinished turn ends with the conversation: whoever asks for it again gets this row. */
void tm__turn_cancel(tm_slot *s) {
  tm_record *rec = &s->record;
  tm_turn *t = turn_new(s, TM_TURN_UNDO);
  if (t == NULL) {
    tm_error err;
    (void)tm__fail_memory(&err, "a cancellation");
    tm__slot_fail(s, &err);
    return;
  }
  t->request = tm__slot_pop(s);
  t->begun = rec->head.status == TM_ACTIVE;
  if (t->begun) t->view.began_as = rec->began_as;
  if (t->begun) t->keys = rec->keys;
  const tm_draft draft = {.status = TM_CANCELLED,
                          .state = tm__buf_view(&rec->state),
                          .runtime = tm__buf_view(&rec->runtime)};
  tm__turn_commit(t, &draft);
}

/* ---- ends ---- */

/* A refusal because of the record stands only on one that was just read. */
static bool refuses_old_copy(const tm_turn *t) {
  bool refuses = t->error.status == TM_ECONFLICT && t->request != NULL;
  bool may = !t->begun && !t->fresh && !t->interrupting;
  return refuses && may && t->view.kind != TM_TURN_START;
}

/* There is no such conversation. */
static void refuse_start(tm_turn *t) {
  bool no_session = strcmp(t->error.code, "session.limit") == 0;
  t->error.conversation_id[0] = '\0';
  if (no_session && t->request != NULL) tm__quota_return(t->slot, t->request);
}

void tm__turn_failed(tm_turn *t) {
  tm_slot *s = t->slot;
  if (refuses_old_copy(t)) {
    tm__turn_lost(t);
    return;
  }
  if (t->view.kind == TM_TURN_START && !t->begun) refuse_start(t);
  const tm_error err = t->error;
  if (t->begun) tm__journal_hint(s->journal, s->record.head.wake_at);
  bool requested = t->request != NULL;
  if (requested) tm__slot_push_front(s, t->request);
  t->request = NULL;
  tm__turn_free(t);
  s->phase = TM_SLOT_IDLE;
  if (requested) tm__slot_fail(s, &err);
  tm__slot_forget(s);
}

/* From the executor: ends the turn as soon as nothing is out. */
static void fail_now(tm_turn *t) {
  tm_slot *s = t->slot;
  t->ended = true;
  tm__lease_stop(t);
  if (t->append.out || t->renewing) return;
  tm__turn_failed(t);
  tm__slot_go(s);
}

void tm__turn_fail(tm_turn *t, const tm_error *err) {
  if (t->ended) return;
  t->error = *err;
  if (t->error.status == TM_OK) t->error.status = TM_ESCRIPT;
  fail_now(t);
}

void tm__turn_lost(tm_turn *t) {
  tm_slot *s = t->slot;
  tm_executor *x = &s->journal->o.executor;
  if (!t->ended) x->cancel(x->ud, t);
  tm_request *r = t->request;
  t->request = NULL;
  bool cancels = r != NULL && r->kind == TM_REQUEST_CANCEL;
  if (r != NULL && t->begun && !cancels) r->floor = s->record.head.revision;
  if (r != NULL && t->begun && r->kind == TM_REQUEST_WAKE) {
    tm__request_free(r);
    r = NULL;
  }
  if (r != NULL && !t->begun) r->ran_on = t->before;
  tm__turn_free(t);
  tm__slot_forget(s);
  s->phase = TM_SLOT_IDLE;
  if (r == NULL) return;
  r->looked = false;
  r->counted = false;
  tm__request_forget_asked(r);
  if (r->floor == 0) tm__together_part(s, r);
  tm__slot_push_front(s, r);
  if (++r->attempts < ATTEMPTS_MAX) return;
  tm_error err;
  (void)tm__fail(&err, TM_ECONFLICT, "conversation.conflict",
                 "other processes changed conversation %s each time this turn was run; try again",
                 s->id);
  tm__slot_fail(s, &err);
}

void tm__turn_abandon(tm_turn *t) {
  tm_slot *s = t->slot;
  tm_executor *x = &s->journal->o.executor;
  if (!t->ended) x->cancel(x->ud, t);
  t->ended = true;
  tm__lease_stop(t);
  if (t->request != NULL) {
    tm_error err;
    (void)tm__journal_stopping(&err);
    tm__request_fail(t->request, &err);
    t->request = NULL;
  }
  t->append.held = false;
  if (t->append.out || t->renewing) return;
  if (t->begun) {
    tm__claim_return(s, t);
  } else {
    tm__turn_free(t);
    s->phase = TM_SLOT_IDLE;
  }
}

/* ---- what a commit was good for ---- */

static void adopt_state(tm_turn *t, tm_record *rec) {
  tm_append *a = &t->append;
  if (t->state.ptr == NULL) { /* the view still shows them */
    t->state = rec->state;
    t->runtime = rec->runtime;
  } else {
    tm__buf_free(&rec->state);
    tm__buf_free(&rec->runtime);
  }
  rec->state = a->state;
  rec->runtime = a->runtime;
  a->state = (tm_buf){0};
  a->runtime = (tm_buf){0};
  rec->deadline = a->deadline;
}

static void adopt(tm_turn *t) {
  tm_append *a = &t->append;
  tm_record *rec = &t->slot->record;
  rec->head = a->job.commit.head;
  rec->head.tip = a->job.commit.row_id;
  rec->in_memory = a->job.in_memory;
  rec->newest = rec->head.revision;
  rec->flags = a->job.flags;
  for (size_t i = 0; i < TM_RECENT_KEYS; i++)
    if (rec->head.recent[i].row == TM_THIS_ROW) rec->head.recent[i].row = rec->head.tip;
  rec->rows_since_full = a->full ? 0 : rec->rows_since_full + 1;
  if (a->kind != TM_APPEND_CALL) adopt_state(t, rec);
  if (t->target != NULL) {
    tm__bundle_unref(rec->bundle);
    rec->bundle = tm__bundle_ref(t->target);
  }
  rec->loaded = true;
  if (a->kind != TM_APPEND_CALL) tm__together_learn(t->slot);
  t->begun = true;
}

/* The answer is made of rows that were just made durable; what cannot be kept in memory is read
 * back from them. */
static void answer(tm_turn *t) {
  tm_slot *s = t->slot;
  tm_request *r = t->request;
  t->request = NULL;
  if (r == NULL || (r->reply == NULL && r->joined == NULL)) {
    tm__request_free(r);
    return;
  }
  if (t->refusal.status != TM_OK) {
    tm__request_fail(r, &t->refusal);
    return;
  }
  const tm_head *h = &s->record.head;
  tm_buf out = {0};
  bool kept = tm__texts_take(&t->rows, &t->append.body);
  tm__render_turn(&out, h, h->revision, t->rows.items, t->rows.count,
                  tm__storage_durable(s->journal->o.storage, s->record.in_memory));
  if (kept && tm__buf_ok(&out) && !t->rows_lost) {
    tm__request_answer(r, tm__buf_view(&out));
  } else {
    r->floor = h->revision - 1;
    tm__slot_push_front(s, r);
  }
  tm__buf_free(&out);
}

/* What the commit that is prepared would make of the conversation. */
static void render_preview(const tm_turn *t, tm_buf *out) {
  const tm_append *a = &t->append;
  const tm_slice body = tm__buf_view(&a->body);
  tm__render_turn(out, &a->job.commit.head, t->slot->record.head.revision, &body, 1, false);
  if (!tm__buf_ok(out)) return;
  out->len--; /* the object goes on */
  tm__json_member_bool(out, "dry_run", true);
  tm__json_member_text(out, "from_version", t->slot->record.head.version);
  tm__json_member_raw(out, "state", tm__buf_view(&a->state));
  tm__buf_byte(out, '}');
}

void tm__turn_preview(tm_turn *t) {
  tm_slot *s = t->slot;
  tm_request *r = t->request;
  tm_buf out = {0};
  render_preview(t, &out);
  if (tm__buf_ok(&out)) {
    t->request = NULL;
    tm__request_answer(r, tm__buf_view(&out));
    tm__turn_free(t);
    s->phase = TM_SLOT_IDLE;
  } else {
    (void)tm__fail_memory(&t->error, "an answer");
    tm__turn_failed(t);
  }
  tm__buf_free(&out);
  tm__slot_go(s);
}

static void committed(tm_turn *t) {
  tm_slot *s = t->slot;
  bool forked = t->append.row.kind == TM_ROW_FORK;
  tm__journal_hint(s->journal, s->record.head.wake_at);
  answer(t);
  tm__turn_free(t);
  s->phase = TM_SLOT_IDLE;
  if (forked) tm__slot_forget(s);
}

/* The client stays parked; without one a WAKE keeps the slot until the retry is due. */
static void suspended(tm_turn *t) {
  tm_slot *s = t->slot;
  tm_journal *j = s->journal;
  int64_t pause = t->append.deadline - tm__journal_now(j);
  tm_request *r = t->request;
  t->request = NULL;
  tm__journal_hint(j, t->append.deadline);
  if (r == NULL && pause <= PAUSE_MAX_MS) {
    r = tm__request_new(TM_REQUEST_WAKE);
    if (r != NULL) {
      memcpy(r->conversation, s->id, sizeof(r->conversation));
      memcpy(r->tenant, s->record.head.tenant, sizeof(r->tenant));
    }
  } else if (r != NULL) {
    r->floor = s->record.head.revision;
  }
  tm__turn_free(t);
  s->phase = TM_SLOT_IDLE;
  tm__slot_forget(s);
  if (r == NULL) return;
  tm__slot_push_front(s, r);
  if (!j->draining && s->first == s->last) /* else somebody behind may not have to wait */
    tm__slot_pause(s, pause < PAUSE_MAX_MS ? pause : PAUSE_MAX_MS);
}

/* The turn goes on after a begin or call row, or after failing to append one. */
static void continued(tm_turn *t) {
  tm_slot *s = t->slot;
  bool ok = t->append.job.commit.status == TM_OK;
  if (s->journal->abandoned) {
    tm__turn_abandon(t);
  } else if (t->ended) {
    tm__turn_failed(t);
  } else {
    if (t->begun) tm__lease_start(t);
    t->done(t->done_ud, ok ? NULL : &t->append.job.error);
  }
}

void tm__turn_appended(tm_message *m) {
  tm_turn *t = (tm_turn *)((char *)m - offsetof(tm_turn, append.job.message));
  tm_append *a = &t->append;
  tm_slot *s = t->slot;
  tm_status status = a->job.commit.status;
  tm__slot_enter(s);
  s->journal->pending--;
  a->out = false;
  if (status == TM_OK) {
    adopt(t);
    if (a->job.commit.event_count > 0) tm__journal_emitted(s->journal);
    if ((a->kind == TM_APPEND_BEGIN || a->kind == TM_APPEND_SUSPEND) &&
        !tm__texts_take(&t->rows, &a->body)) {
      t->rows_lost = true;
    }
  }
  bool gives_up = t->interrupted && status == TM_ECANCELLED && !t->ended;
  if (status == TM_ECONFLICT) {
    tm__turn_lost(t);
  } else if (gives_up && !s->journal->abandoned) {
    tm__turn_interrupt(t);
  } else if (a->kind == TM_APPEND_BEGIN || a->kind == TM_APPEND_CALL) {
    continued(t);
  } else if (status != TM_OK) {
    t->error = a->job.error;
    tm__turn_failed(t);
  } else if (a->kind == TM_APPEND_SUSPEND) {
    suspended(t);
  } else {
    committed(t);
  }
  tm__slot_leave(s);
}
