/* undo_row.c - the row that ends a rollback: it restores the target, or what was there before the
 * functions ran when one of them has failed for good. Likewise that of a turn that is given up. */
#include <string.h>

#include "core/json.h"
#include "journal/slot.h"

/* ---- the plan ---- */

static tm_slice or_null(const tm_buf *json) {
  return json->len == 0 ? tm__slice(NULL) : tm__buf_view(json);
}

static void add_place(tm_buf *out, const char *name, const tm_record *r, const tm_tip *tip,
                      int64_t row, bool with_state) {
  tm__json_key(out, name);
  tm__buf_byte(out, '{');
  tm__json_member_int(out, "created", tip->created);
  tm__json_member_int(out, "deadline", r->deadline);
  tm__json_member_raw(out, "error", or_null(&tip->error));
  tm__json_member_raw(out, "prompt", or_null(&tip->prompt));
  tm__json_member_int(out, "row", row);
  tm__json_member_raw(out, "runtime", tm__buf_view(&r->runtime));
  if (with_state) tm__json_member_raw(out, "state", tm__buf_view(&r->state));
  tm__json_member_text(out, "status", tm__conversation_status_name(tip->status));
  tm__json_member(out, "step", tm__buf_view(&tip->step));
  tm__buf_byte(out, '}');
}

void tm__undo_plan(tm_buf *out, const tm_record *from, const tm_tip *from_tip,
                   const tm_record *target, const tm_tip *target_tip, int64_t target_row, int back,
                   tm_slice undone) {
  tm__buf_byte(out, '{');
  if (back > 0) tm__json_member_int(out, "back", back);
  add_place(out, "from", from, from_tip, from->head.tip, false);
  add_place(out, "target", target, target_tip, target_row, true);
  if (undone.len > 0) tm__json_member_raw(out, "undone", undone);
  tm__buf_byte(out, '}');
}

/* ---- the row ---- */

static void add_member(tm_buf *out, tm_slice key) {
  tm__json_comma(out);
  tm__buf_add(out, key.ptr - 1, key.len + 2);
  tm__buf_byte(out, ':');
}

/* What became of a place since it was left. */
typedef struct moved {
  int64_t by;        /* ms */
  int64_t revision;  /* with which an approval is asked anew; 0: it is not */
  int64_t step_seq;  /* executions since the conversation began */
  int64_t inherited; /* those of them that a fork found */
  int64_t forked;    /* when another conversation was made of it; 0: none */
  tm_slice usage;    /* what the conversation has used; {NULL,0}: not known */
  int64_t workflow;  /* when the conversation's whole time is over; 0: not said */
  tm_slice origin;   /* what it is a fork of, as long as that is being made; ptr NULL */
} moved;

/* The prompt is asked again: its time to answer begins anew. */
static void move_prompt(tm_buf *out, tm_slice prompt, const moved *m) {
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
      tm__json_int(out, expires + m->by);
    } else if (m->revision > 0 && tm__slice_is(key, "revision")) {
      tm__json_int(out, m->revision);
    } else {
      tm__buf_slice(out, value);
    }
  }
  tm__buf_byte(out, '}');
}

static void write_restored(tm_buf *out, tm_slice before, const moved *m) {
  int64_t forked = m->forked > 0 ? m->forked : tm__json_get_int(before, "forked", 0);
  int64_t revision = m->revision > 0 ? m->revision : tm__json_get_int(before, "revision", 0);
  tm__buf_byte(out, '{');
  if (forked > 0) tm__json_member_int(out, "forked", forked);
  if (m->inherited > 0) tm__json_member_int(out, "inherited", m->inherited);
  tm__json_member_int(out, "moved", m->by + tm__json_get_int(before, "moved", 0));
  if (revision > 0) tm__json_member_int(out, "revision", revision);
  tm__json_member_int(out, "step_seq", m->step_seq);
  if (m->usage.ptr != NULL) tm__json_member_raw(out, "usage", m->usage);
  if (m->workflow > 0) tm__json_member_int(out, "workflow", m->workflow);
  tm__buf_byte(out, '}');
}

/* When the time of the whole conversation is over: it counts from the start, so that going back
 * does not move it; while the conversation was paused it stood still. Of a fork that has done
 * nothing yet the runtime finds it. */
static int64_t whole_time(tm_slice runtime, int64_t now) {
  tm_slice restored = tm__json_get(runtime, "restored");
  int64_t own = tm__json_get_int(tm__json_get(runtime, "deadlines"), "workflow", 0);
  if (tm__json_get_int(restored, "forked", 0) > 0) own = 0;
  int64_t at = tm__json_get_int(restored, "workflow", own);
  return at > 0 ? at + now - tm__json_get_int(tm__json_get(runtime, "paused"), "since", now) : 0;
}

/* That of one that is over is not known any more. */
static int64_t time_left(tm_slice plan, int64_t now) {
  int64_t at = whole_time(tm__json_get(tm__json_get(plan, "from"), "runtime"), now);
  tm_slice target = tm__json_get(tm__json_get(plan, "target"), "runtime");
  return at > 0 ? at : whole_time(target, now);
}

/* The object with that member, which it may have already. */
static void put_member(tm_buf *out, tm_slice object, const char *name, tm_slice member) {
  tm_json_walk w;
  tm_slice key;
  tm_slice value;
  bool added = false;
  bool more = tm__json_walk(&w, object);
  tm__buf_byte(out, '{');
  while (more) {
    more = tm__json_next(&w, &key, &value);
    bool same = more && tm__slice_is(key, name);
    if (!added && (!more || same || tm__slice_cmp(key, tm__slice(name)) > 0)) {
      tm__json_member_raw(out, name, member);
      added = true;
    }
    if (!more || same) continue;
    add_member(out, key);
    tm__buf_slice(out, value);
  }
  tm__buf_byte(out, '}');
}

/* The runtime part as it was, and in `restored` what the next turn does to it. */
static void restore_runtime(tm_buf *out, tm_slice runtime, const moved *m) {
  tm_buf restored = {0};
  tm_buf fork = {0};
  write_restored(&restored, tm__json_get(runtime, "restored"), m);
  if (m->origin.ptr != NULL) {
    put_member(&fork, runtime, "forked_from", m->origin);
    runtime = tm__buf_view(&fork);
  }
  put_member(out, runtime, "restored", tm__buf_view(&restored));
  if (!tm__buf_ok(&restored) || !tm__buf_ok(&fork)) out->failed = true;
  tm__buf_free(&restored);
  tm__buf_free(&fork);
}

/* Nothing where nothing is to be said. */
static void write_outcome(tm_buf *out, const tm_error *why, int64_t back, tm_slice called,
                          tm_slice undone) {
  if (why == NULL && back == 0 && undone.len <= 2) return;
  tm__buf_byte(out, '{');
  if (back > 0) tm__json_member_int(out, "back", back);
  if (called.len > 2) tm__json_member_raw(out, "called", called);
  if (why != NULL) {
    tm__json_key(out, "error");
    tm__buf_byte(out, '{');
    tm__json_member_text(out, "code", why->code);
    tm__json_member_text(out, "message", why->message);
    tm__json_member_int(out, "status", why->status);
    tm__json_member_text(out, "step_id", why->step_id);
    tm__buf_byte(out, '}');
  }
  tm__json_member_raw(out, "undone", undone);
  tm__buf_byte(out, '}');
}

static bool read_member(tm_slice json, const char *name, char *out, size_t size) {
  tm_buf text = {0};
  bool ok = tm__json_get_text(json, name, &text) && tm__copy(out, size, tm__buf_view(&text));
  tm__buf_free(&text);
  return ok;
}

bool tm__undo_failed(tm_error *err, tm_slice body) {
  tm_row_fields f;
  tm__row_fields(&f, body);
  tm_slice error = tm__json_get(f.undo, "error");
  tm_error found = {.status = (tm_status)tm__json_get_int(error, "status", TM_ESCRIPT)};
  if (error.ptr == NULL || !read_member(error, "code", found.code, sizeof(found.code)) ||
      !read_member(error, "message", found.message, sizeof(found.message)))
    return false;
  (void)read_member(error, "step_id", found.step_id, sizeof(found.step_id));
  *err = found;
  return true;
}

typedef struct texts {
  tm_buf prompt, runtime, step, outcome;
} texts;

static int64_t next_deadline(tm_slice place, const moved *m) {
  int64_t deadline = tm__json_get_int(place, "deadline", 0);
  if (deadline == 0) return 0;
  deadline += m->by;
  return m->workflow > 0 && m->workflow < deadline ? m->workflow : deadline;
}

/* The draft that brings a place of the plan back; false: t has failed. */
static bool make_draft(tm_turn *t, tm_slice place, const moved *m, tm_draft *draft, texts *x) {
  tm_slice status = tm__json_get(place, "status");
  move_prompt(&x->prompt, tm__json_get(place, "prompt"), m);
  restore_runtime(&x->runtime, tm__json_get(place, "runtime"), m);
  bool whole =
      status.len > 2 && tm__json_unquote(tm__json_get(place, "step"), &x->step) &&
      tm__conversation_status_parse(&draft->status, (tm_slice){status.ptr + 1, status.len - 2});
  tm_error err;
  if (!tm__buf_ok(&t->undo) || !tm__buf_ok(&x->prompt) || !tm__buf_ok(&x->runtime) ||
      !tm__buf_ok(&x->step) || !tm__buf_ok(&x->outcome)) {
    (void)tm__fail_memory(&err, "a rollback");
  } else if (!whole) {
    (void)tm__fail(&err, TM_ECORRUPT, "journal.damaged",
                   "the plan of a rollback of conversation %s is damaged; restore a backup",
                   t->slot->id);
  } else {
    draft->wake_at = next_deadline(place, m);
    draft->error = tm__json_get(place, "error");
    draft->prompt = tm__buf_view(&x->prompt);
    draft->runtime = tm__buf_view(&x->runtime);
    draft->step = tm__buf_view(&x->step);
    return true;
  }
  tm__turn_fail(t, &err);
  return false;
}

static void free_texts(texts *x) {
  tm__buf_free(&x->prompt);
  tm__buf_free(&x->runtime);
  tm__buf_free(&x->step);
  tm__buf_free(&x->outcome);
}

void tm__turn_undone(tm_turn *t, const tm_draft *made, const tm_error *why) {
  texts x = {0};
  if (t->ended) return;
  if (why != NULL) t->refusal = *why;
  tm_slice place = tm__json_get(tm__buf_view(&t->undo), why != NULL ? "from" : "target");
  int64_t now = tm__journal_now(t->slot->journal);
  moved m = {.by = why != NULL ? 0 : now - tm__json_get_int(place, "created", now),
             .revision = why != NULL ? 0 : t->slot->record.head.revision + 1,
             .workflow = why != NULL ? 0 : time_left(tm__buf_view(&t->undo), now),
             .usage = tm__usage(made->runtime),
             .step_seq = tm__steps_counted(made->runtime),
             .inherited = tm__steps_inherited(tm__json_get(place, "runtime"))};
  tm_draft draft = {.compress = made->compress,
                    .seal = made->seal,
                    .steps = made->steps,
                    .messages = made->messages,
                    .events = made->events,
                    .state = why != NULL ? tm__buf_view(&t->slot->record.state)
                                         : tm__json_get(place, "state")};
  int64_t back = why != NULL ? 0 : tm__json_get_int(tm__buf_view(&t->undo), "back", 0);
  write_outcome(&x.outcome, why, back, (tm_slice){0},
                tm__json_get(why != NULL ? made->runtime : tm__buf_view(&t->undo), "undone"));
  if (make_draft(t, place, &m, &draft, &x))
    tm__turn_restore(t, &draft, tm__json_get_int(place, "row", 0), tm__buf_view(&x.outcome));
  free_texts(&x);
}

void tm__turn_given_up(tm_turn *t, const tm_error *why, tm_slice called) {
  texts x = {0};
  const tm_record *rec = &t->slot->record;
  tm_slice place = tm__json_get(tm__buf_view(&t->undo), "target");
  int64_t now = tm__journal_now(t->slot->journal);
  moved m = {.by = now - tm__json_get_int(place, "created", now),
             .workflow = time_left(tm__buf_view(&t->undo), now),
             .usage = tm__usage(tm__buf_view(&rec->runtime)),
             .step_seq = tm__steps_counted(tm__buf_view(&rec->runtime)),
             .inherited = tm__steps_inherited(tm__json_get(place, "runtime"))};
  tm_draft draft = {.compress = (rec->flags & TM_BODY_ZSTD) != 0,
                    .state = tm__json_get(place, "state")};
  t->refusal = *why;
  write_outcome(&x.outcome, why, 0, called, TM_S("[]"));
  if (make_draft(t, place, &m, &draft, &x))
    tm__turn_restore(t, &draft, tm__json_get_int(place, "row", 0), tm__buf_view(&x.outcome));
  free_texts(&x);
}

void tm__turn_forked(tm_turn *t, tm_slice origin) {
  texts x = {0};
  const tm_record *rec = &t->slot->record;
  tm_slice place = tm__json_get(tm__buf_view(&t->undo), "target");
  int64_t now = tm__journal_now(t->slot->journal);
  int64_t steps = tm__steps_counted(tm__json_get(place, "runtime"));
  moved m = {.by = now - tm__json_get_int(place, "created", now),
             .revision = rec->head.revision + 1,
             .step_seq = steps,
             .inherited = steps,
             .forked = now,
             .origin = origin};
  tm_draft draft = {.compress = (rec->flags & TM_BODY_ZSTD) != 0,
                    .in_memory = rec->in_memory,
                    .state = tm__json_get(place, "state")};
  if (make_draft(t, place, &m, &draft, &x)) tm__turn_fork_row(t, &draft, origin);
  free_texts(&x);
}
