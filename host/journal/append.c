/* append.c - the rows of a turn: what the executor hands in, made into a commit. */
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "journal/slot.h"

/* ---- preparing a commit ---- */

static tm_append *append_open(tm_turn *t, tm_append_kind kind, tm_row_kind row_kind) {
  tm_append *a = &t->append;
  const tm_record *rec = &t->slot->record;
  tm__buf_free(&a->body);
  tm__buf_free(&a->state);
  tm__buf_free(&a->runtime);
  tm__append_forget_events(a);
  *a = (tm_append){.kind = kind};
  a->job.in_memory = rec->in_memory;
  a->job.compress = t->compress;
  a->job.seal = t->seal || (rec->flags & TM_BODY_SEALED) != 0;
  a->job.commit.head = rec->head;
  a->row.kind = row_kind;
  a->row.parent = rec->head.tip;
  a->row.created = tm__journal_now(t->slot->journal);
  return a;
}

static tm_status canonical(tm_buf *out, tm_slice json, tm_error *err) {
  json_t *value;
  tm_status status = tm__json_parse(&value, json, TM_JSON_DEPTH, err);
  if (status != TM_OK) return status;
  tm__json_value(out, value);
  json_decref(value);
  return TM_OK;
}

static bool is_object(tm_slice json) {
  return json.len >= 2 && json.ptr[0] == '{';
}

/* The body of the row, and the record as it will be. */
static tm_status compose(tm_turn *t, const tm_draft *d, tm_conversation_status status,
                         tm_error *err) {
  tm_append *a = &t->append;
  const tm_record *rec = &t->slot->record;
  if (!is_object(d->state) || !is_object(d->runtime)) {
    return tm__fail(err, TM_ESCRIPT, "journal.draft", "state and runtime of a draft are objects");
  }
  bool start = t->view.began_as == TM_TURN_START;
  tm_row_plan plan = {.draft = d, .status = status, .start = start && !t->begun, .undo = a->undo};
  if (a->row.kind == TM_ROW_FORK) {
    plan.fork = a->undo;
    plan.undo = (tm_slice){0};
  }

  bool full = d->checkpoint || a->row.base != 0 || a->row.kind == TM_ROW_MIGRATE ||
              rec->head.tip == 0 || rec->rows_since_full + 1 >= TM_FULL_EVERY;
  if (!full) plan.before = tm__buf_view(&rec->state);
  tm_buf input = {0};
  if (!t->begun && a->row.kind == TM_ROW_BEGIN) {
    bool undoes = t->view.kind == TM_TURN_UNDO;
    if (undoes ||
        (t->request != NULL && t->request->trail != NULL)) { /* made here, of stored rows */
      tm__buf_slice(&input, t->view.input);
      if (undoes) plan.undo = tm__buf_view(&t->undo);
    } else if (canonical(&input, t->view.input, err) != TM_OK) {
      return TM_EINVAL;
    }
    plan.input = tm__buf_view(&input);
    plan.keys = &t->keys;
    plan.turn = t->view.kind;
  }
  tm__row_compose(&a->body, &plan, &a->full);
  bool ok = tm__buf_ok(&input);
  tm__buf_free(&input);
  tm__buf_slice(&a->state, d->state);
  tm__buf_slice(&a->runtime, d->runtime);
  a->deadline = d->wake_at;
  a->row.checkpoint = d->checkpoint;
  ok = ok && tm__buf_ok(&a->body) && tm__buf_ok(&a->state) && tm__buf_ok(&a->runtime);
  return ok ? TM_OK : tm__fail_memory(err, "a row of the journal");
}

void tm__append_forget_events(tm_append *a) {
  tm__buf_free(&a->told);
  free(a->events);
  a->events = NULL;
  a->job.commit.events = NULL;
  a->job.commit.event_count = 0;
}

static size_t count_values(tm_slice list) {
  size_t count = 0;
  tm_json_walk w;
  tm_slice key, value;
  if (!tm__json_walk(&w, list)) return 0;
  while (tm__json_next(&w, &key, &value))
    count++;
  return count;
}

/* The draft's events, each as it goes out but for what the store knows of it. */
static tm_status take_events(tm_append *a, const tm_draft *d, tm_error *err) {
  tm_json_walk w;
  tm_slice key, value;
  size_t count = count_values(d->events), i = 0;
  if (count == 0) return TM_OK;
  tm__buf_slice(&a->told, d->events);
  a->events = calloc(count, sizeof(*a->events));
  if (a->events == NULL || !tm__buf_ok(&a->told)) return tm__fail_memory(err, "events");
  (void)tm__json_walk(&w, tm__buf_view(&a->told));
  while (i < count && tm__json_next(&w, &key, &value)) {
    if (!is_object(value))
      return tm__fail(err, TM_ESCRIPT, "journal.draft", "events of a draft are objects");
    a->events[i].created = a->row.created;
    a->events[i++].body = value;
  }
  a->job.commit.events = a->events;
  a->job.commit.event_count = count;
  return TM_OK;
}

/* What only the first commit of a conversation carries. */
static void set_first(tm_turn *t, const tm_draft *d) {
  tm_append *a = &t->append;
  const tm_request *r = t->request;
  a->job.in_memory = d->in_memory;
  a->job.commit.start_key = t->keys.list[0].key;
  a->job.commit.start_body = t->keys.list[0].body;
  if (r == NULL) return;
  a->session.user_id = tm__slice(r->user_id);
  a->session.metadata = tm__slice(r->metadata_json);
  a->session.created = a->row.created;
  a->session.look_at = r->session_look;
  a->job.commit.sessions_max = r->sessions_max;
  a->job.commit.tenant_sessions_max = r->tenant_sessions_max;
  a->job.commit.session = &a->session;
}

static tm_status prepare(tm_turn *t, const tm_draft *d, tm_conversation_status status,
                         tm_error *err) {
  tm_append *a = &t->append;
  tm_head *h = &a->job.commit.head;
  h->status = status;
  h->ended = tm__conversation_is_over(status) ? a->row.created : 0;
  t->compress = a->job.compress = d->compress;
  t->seal = t->seal || d->seal;
  a->job.seal = a->job.seal || d->seal;
  if (!tm__copy(h->step, sizeof(h->step), d->step)) {
    return tm__fail(err, TM_ESCRIPT, "journal.draft", "a step id is longer than %zu bytes",
                    sizeof(h->step) - 1);
  }
  if (h->revision == 0) set_first(t, d);
  tm_status result = take_events(a, d, err);
  return result == TM_OK ? compose(t, d, status, err) : result;
}

static void post(tm_turn *t, void (*run)(tm_message *m)) {
  t->append.job.message.run = run;
  t->append.job.reply_to = t->slot->journal->o.worker;
}

void tm__turn_send(tm_turn *t) {
  tm_append *a = &t->append;
  tm_slot *s = t->slot;
  if (t->renewing) { /* one commit of a head at a time */
    a->held = true;
    return;
  }
  post(t, tm__turn_appended);
  a->held = false;
  a->out = true;
  a->row.body = tm__buf_view(&a->body);
  a->job.commit.row = &a->row;
  a->job.commit.expect_revision = s->record.head.revision;
  a->job.commit.head.revision = s->record.head.revision + 1;
  s->journal->pending++;
  tm__storage_commit(s->journal->o.storage, &a->job);
}

/* ---- rows after which the turn goes on ---- */

static bool is_busy(tm_turn *t, tm_turn_done_fn fn, void *ud) {
  if (!t->append.out && !t->append.held) return false;
  tm_error err;
  (void)tm__fail(&err, TM_ESCRIPT, "journal.busy",
                 "the row before is not durable yet; a turn appends one row at a time");
  fn(ud, &err);
  return true;
}

/* The error comes to `fn` as if from the store: later, and only if the turn still runs. */
static void refuse(tm_turn *t) {
  tm_append *a = &t->append;
  post(t, tm__turn_appended);
  a->out = true;
  a->job.commit.status = a->job.error.status;
  t->slot->journal->pending++;
  tm__worker_post(t->slot->journal->o.worker, &a->job.message);
}

static void keep_claim(tm_turn *t, tm_head *h) {
  const tm_journal *j = t->slot->journal;
  int64_t now = tm__journal_now(j);
  bool ours = strcmp(h->claim, j->o.host_id) == 0;
  int64_t left = h->wake_at - now; /* more than a lease: the clock was turned back */
  if (ours && left > j->o.lease_ms / 2 && left <= j->o.lease_ms) return;
  memcpy(h->claim, j->o.host_id, sizeof(h->claim));
  h->wake_at = now + j->o.lease_ms;
}

void tm__turn_begin(tm_turn *t, const tm_draft *draft, tm_turn_done_fn fn, void *ud) {
  if (t->ended || is_busy(t, fn, ud)) return;
  tm_append *a = append_open(t, TM_APPEND_BEGIN, TM_ROW_BEGIN);
  t->done = fn;
  t->done_ud = ud;
  if (t->interrupted) a->job.error.status = TM_ECANCELLED;
  if (t->interrupted || prepare(t, draft, TM_ACTIVE, &a->job.error) != TM_OK) {
    refuse(t);
    return;
  }
  keep_claim(t, &a->job.commit.head);
  tm__turn_send(t);
}

void tm__turn_call(tm_turn *t, tm_slice key, tm_slice result, tm_turn_done_fn fn, void *ud) {
  if (t->ended || is_busy(t, fn, ud)) return;
  tm_append *a = append_open(t, TM_APPEND_CALL, TM_ROW_CALL);
  t->done = fn;
  t->done_ud = ud;
  tm__row_compose_call(&a->body, key, result);
  if (!t->begun) {
    (void)tm__fail(&a->job.error, TM_ESCRIPT, "journal.not_begun",
                   "a call is recorded only in a turn that was begun");
  } else if (!tm__buf_ok(&a->body)) {
    (void)tm__fail_memory(&a->job.error, "a recorded call");
  }
  if (a->job.error.status != TM_OK) {
    refuse(t);
    return;
  }
  keep_claim(t, &a->job.commit.head);
  tm__turn_send(t);
}

/* ---- rows that end the execution ---- */

/* A deadline in the index is only moved earlier; when it comes too early it is armed again. */
static int64_t next_wake(const tm_turn *t, const tm_draft *d) {
  int64_t old = t->slot->record.head.wake_at;
  if (tm__conversation_is_over(d->status)) return 0;
  if (t->begun || old <= tm__journal_now(t->slot->journal)) return d->wake_at;
  return d->wake_at > 0 && d->wake_at < old ? d->wake_at : old;
}

static void remember_keys(tm_head *h, const tm_keys *k) {
  for (size_t i = 0; i < k->count; i++) {
    memmove(h->recent + 1, h->recent, sizeof(h->recent) - sizeof(h->recent[0]));
    h->recent[0] = k->list[i];
    h->recent[0].row = TM_THIS_ROW;
  }
}

/* Instead of what it wanted to write. */
static bool gives_up(tm_turn *t) {
  if (!t->interrupted || t->ended || t->append.out || t->append.held) return false;
  t->ended = true;
  tm__turn_interrupt(t);
  return true;
}

static const tm_slice NOTHING = {NULL, 0};

/* Opens the row that ends the execution; false: the turn has failed instead. */
static bool end(tm_turn *t, const tm_draft *d, tm_append_kind kind, tm_row_kind row_kind,
                int64_t base, tm_slice undo) {
  tm_slot *s = t->slot;
  tm_append *a = &t->append;
  bool busy = a->out || a->held;
  t->ended = true;
  tm__lease_stop(t);
  tm_conversation_status status = kind == TM_APPEND_SUSPEND ? TM_ACTIVE : d->status;
  if (busy) {
    (void)tm__fail(&t->error, TM_ESCRIPT, "journal.busy",
                   "the turn ended while a row was still being written");
    return false;
  }
  if (kind == TM_APPEND_END && status == TM_ACTIVE) {
    (void)tm__fail(&t->error, TM_ESCRIPT, "journal.draft", "a turn cannot end as active");
  } else {
    (void)append_open(t, kind, row_kind);
    a->row.base = base;
    a->undo = undo;
    (void)prepare(t, d, status, &t->error);
  }
  if (t->error.status == TM_OK) return true;
  if (t->renewing) return false; /* it fails when that has come back */
  tm__turn_failed(t);
  tm__slot_go(s);
  return false;
}

static void send_end(tm_turn *t, int64_t wake_at) {
  tm_head *h = &t->append.job.commit.head;
  h->claim[0] = '\0';
  h->wake_at = wake_at;
  t->slot->phase = TM_SLOT_COMMITTING;
  tm__turn_send(t);
}

void tm__turn_commit(tm_turn *t, const tm_draft *draft) {
  if (gives_up(t)) return;
  tm_row_kind kind = t->target != NULL ? TM_ROW_MIGRATE : TM_ROW_TURN;
  if (t->ended || !end(t, draft, TM_APPEND_END, kind, 0, NOTHING)) return;
  tm_commit *c = &t->append.job.commit;
  if (t->target != NULL) memcpy(c->head.version, t->target->version, sizeof(c->head.version));
  if (t->request != NULL && t->request->dry_run) {
    tm__turn_preview(t);
    return;
  }
  c->start_answer = t->view.began_as == TM_TURN_START;
  if (!c->start_answer) remember_keys(&c->head, &t->keys);
  send_end(t, next_wake(t, draft));
}

void tm__turn_suspend(tm_turn *t, const tm_draft *draft) {
  if (gives_up(t)) return;
  if (t->ended || !end(t, draft, TM_APPEND_SUSPEND, TM_ROW_BEGIN, 0, NOTHING)) return;
  send_end(t, draft->wake_at > 0 ? draft->wake_at : t->append.row.created);
}

void tm__turn_restore(tm_turn *t, const tm_draft *draft, int64_t base, tm_slice undo) {
  if (t->ended || !end(t, draft, TM_APPEND_END, TM_ROW_UNDO, base, undo)) return;
  if (t->refusal.status == TM_OK) remember_keys(&t->append.job.commit.head, &t->keys);
  send_end(t, next_wake(t, draft));
}

void tm__turn_fork_row(tm_turn *t, const tm_draft *draft, tm_slice origin) {
  if (t->ended || !end(t, draft, TM_APPEND_END, TM_ROW_FORK, 0, origin)) return;
  t->append.job.commit.start_answer = true;
  send_end(t, draft->wake_at);
}
