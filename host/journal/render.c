/* render.c - turns and conversations as JSON. */
#include "journal/render.h"

#include "core/json.h"
#include "journal/slot.h"

static void add_identity(tm_buf *out, const tm_head *head) {
  tm__buf_byte(out, '{');
  tm__json_member_text(out, "conversation_id", head->id);
  tm__json_member_text(out, "session_id", head->session);
  tm__json_member_text(out, "system", head->system);
  tm__json_member_text(out, "flow_id", head->flow);
  tm__json_member_text(out, "flow_version", head->version);
}

static tm_slice or_null(tm_slice json) {
  return json.len == 0 ? tm__slice(NULL) : json;
}

/* A conversation that is over has no step. */
static tm_slice step_or_null(tm_slice quoted) {
  return quoted.len <= 2 ? tm__slice(NULL) : quoted;
}

/* ---- a turn ---- */

static void add_reply(tm_buf *out, tm_slice message) {
  static const char *const members[] = {"seq", "step_id", "agent", "text", "provider"};
  tm__json_comma(out);
  tm__buf_byte(out, '{');
  for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++) {
    tm__json_member_raw(out, members[i], tm__json_get(message, members[i]));
  }
  tm__buf_byte(out, '}');
}

static void add_replies(tm_buf *out, tm_slice messages) {
  tm_json_walk w;
  tm_slice key;
  tm_slice message;
  if (!tm__json_walk(&w, messages)) return;
  while (tm__json_next(&w, &key, &message)) {
    if (tm__slice_is(tm__json_get(message, "role"), "\"agent\"")) add_reply(out, message);
  }
}

/* What is waited for: `prompt` is what the user is asked, `waiting_for` what a role is, the event,
 * or only until when. */
static void add_prompt(tm_buf *out, tm_slice prompt) {
  bool of_role = tm__json_get(prompt, "role").ptr != NULL;
  bool of_others = of_role || (tm__json_get(prompt, "expires_at").ptr != NULL &&
                               tm__json_get(prompt, "text").ptr == NULL);
  tm__json_member_raw(out, "prompt", of_others ? tm__slice(NULL) : prompt);
  if (of_others) tm__json_member_raw(out, "waiting_for", prompt);
}

/* Of the step that runs or waits, where it says how long it should take. Since a rollback it waits
 * for as long as it had waited then. */
static void add_progress(tm_buf *out, tm_slice runtime) {
  tm_slice progress = tm__json_get(runtime, "progress");
  if (progress.ptr == NULL) return;
  int64_t moved = tm__json_get_int(tm__json_get(runtime, "restored"), "moved", 0);
  tm__json_key(out, "progress");
  tm__buf_byte(out, '{');
  tm__json_member_int(out, "started", tm__json_get_int(progress, "started", 0) + moved);
  tm__json_member_int(out, "expected_ms", tm__json_get_int(progress, "expected_ms", 0));
  tm__buf_byte(out, '}');
}

void tm__render_turn(tm_buf *out, const tm_head *head, int64_t revision, const tm_slice *rows,
                     size_t count, bool durable) {
  tm_row_fields end = {0};
  if (count > 0) tm__row_fields(&end, rows[count - 1]);
  add_identity(out, head);
  tm__json_member_raw(out, "status", end.status);
  tm__json_member_int(out, "revision", revision);
  tm__json_member_raw(out, "current_step", step_or_null(end.step));
  tm__json_key(out, "replies");
  tm__buf_byte(out, '[');
  for (size_t i = 0; i + 1 < count; i++) {
    tm_row_fields f;
    tm__row_fields(&f, rows[i]);
    add_replies(out, f.messages);
  }
  add_replies(out, end.messages);
  tm__buf_byte(out, ']');
  add_prompt(out, end.prompt);
  add_progress(out, end.runtime);
  if (end.error.ptr != NULL) tm__json_member_raw(out, "error", end.error);
  tm__json_member_bool(out, "durable", durable);
  tm__buf_byte(out, '}');
}

/* ---- the answer that a row was ---- */

typedef struct answer_walk {
  tm_texts rows; /* newest first */
  int64_t revision;
  bool failed;
} answer_walk;

static tm_status on_row(void *ud, const tm_row *row) {
  answer_walk *w = ud;
  bool within = row->kind == TM_ROW_BEGIN || row->kind == TM_ROW_CALL;
  if (w->rows.count == 0) {
    w->revision = row->revision;
  } else if (!within) {
    return TM_ECANCELLED; /* the end of the turn before */
  }
  if (row->kind != TM_ROW_CALL && !tm__texts_add(&w->rows, row->body)) {
    w->failed = true;
    return TM_ECANCELLED;
  }
  return TM_OK;
}

tm_status tm__render_answer(tm_buf *out, const tm_store_access *a, bool in_memory,
                            const tm_head *head, int64_t row_id, bool durable, tm_error *refusal,
                            tm_error *err) {
  answer_walk w = {0};
  tm_status status = tm__access_chain(a, in_memory, head, row_id, false, on_row, &w, err);
  if (status == TM_ECANCELLED) status = TM_OK;
  if (status == TM_OK && !w.failed) {
    tm__texts_reverse(&w.rows);
    tm__render_turn(out, head, w.revision, w.rows.items, w.rows.count, durable);
    w.failed = !tm__buf_ok(out);
    if (w.rows.count > 0) (void)tm__undo_failed(refusal, w.rows.items[w.rows.count - 1]);
  }
  tm__texts_free(&w.rows);
  return status == TM_OK && w.failed ? tm__fail_memory(err, "an answer") : status;
}

/* ---- a conversation ---- */

static void add_position(tm_buf *out, const tm_head *head) {
  tm__json_member_text(out, "status", tm__conversation_status_name(head->status));
  tm__json_member_int(out, "revision", head->revision);
  tm__json_member(out, "current_step", tm__slice(head->step[0] == '\0' ? NULL : head->step));
}

/* What a fork goes on from, as clients know it: the revision is also that of a checkpoint. */
static void add_origin(tm_buf *out, tm_slice forked_from) {
  if (forked_from.len == 0) return;
  tm__json_key(out, "forked_from");
  tm__buf_byte(out, '{');
  tm__json_member_raw(out, "conversation_id", tm__json_get(forked_from, "conversation_id"));
  tm__json_member_raw(out, "revision", tm__json_get(forked_from, "revision"));
  tm__buf_byte(out, '}');
}

void tm__render_conversation(tm_buf *out, const tm_head *head, const tm_render_record *r) {
  add_identity(out, head);
  add_position(out, head);
  add_prompt(out, or_null(r->prompt));
  add_progress(out, r->runtime);
  if (r->error.len > 0) tm__json_member_raw(out, "error", r->error);
  tm__json_member_bool(out, "durable", r->durable);
  tm__json_member_int(out, "created", head->created);
  tm__json_member_int(out, "updated", r->updated);
  add_origin(out, tm__json_get(r->runtime, "forked_from"));
  tm__json_member_raw(out, "state", r->state);
  tm__json_member_raw(out, "summary", tm__json_get(r->runtime, "summary"));
  tm__json_member_raw(out, "feedback", tm__json_get(r->runtime, "feedback"));
  tm__json_member_raw(out, "usage", tm__usage(r->runtime));
  tm__buf_byte(out, '}');
}

void tm__render_item(tm_buf *out, const tm_head *head, int64_t updated, tm_slice forked_from,
                     bool durable) {
  add_identity(out, head);
  add_position(out, head);
  tm__json_member_bool(out, "durable", durable);
  tm__json_member_int(out, "created", head->created);
  tm__json_member_int(out, "updated", updated);
  add_origin(out, forked_from);
  tm__buf_byte(out, '}');
}
