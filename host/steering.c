/* steering.c - the public requests that steer a conversation: each checks what it is given and
 * makes it the input of a turn of its own kind; what that means is decided by the runtime. */
#include <string.h>

#include "requests.h"

enum { NAME_BYTES = 64, USER_BYTES = 128, COMMENT_BYTES = 4096, DATA_DEPTH = 32 };

/* Takes `input` (an object, or nothing) and submits the signal with it. */
static void send_signal(tm_host *h, tm_request *r, tm_status s, tm_buf *input, const char *key,
                        tm_error *err, tm_reply_fn fn, void *ud) {
  if (s == TM_OK && !tm__buf_ok(input)) s = tm__fail_memory(err, "request");
  if (s == TM_OK) {
    const tm_slice body[] = {tm__slice(tm__turn_kind_name(r->signal)), tm__buf_view(input)};
    s = tm__request_take_key(r, key, body, 2, err);
  }
  if (s == TM_OK && input->len > 0) {
    r->input_json = tm__buf_take(input);
    if (r->input_json == NULL) s = tm__fail_memory(err, "request");
  }
  tm__buf_free(input);
  tm__request_submit(h, r, s, err, fn, ud);
}

static tm_request *enter_signal(tm_host *h, tm_turn_kind kind, tm_reply_fn fn, void *ud) {
  tm_request *r = tm__request_enter(h, TM_REQUEST_SIGNAL, fn, ud);
  if (r != NULL) r->signal = kind;
  return r;
}

static tm_status check_given(const char *name, const char *text, size_t max, tm_error *err) {
  return text == NULL ? TM_OK : tm__request_check_text(name, tm__slice(text), max, err);
}

static void write_given(tm_buf *out, const char *name, const char *text) {
  if (text != NULL) tm__json_member(out, name, tm__slice(text));
}

/* ---- command ---- */

static tm_status check_command(const tm_command *c, tm_error *err) {
  static const char *const known[] = {"back", "skip", "cancel", "restart", "help", "correct"};
  const char *name = c->command != NULL ? c->command : "";
  size_t i = 0;
  while (i < sizeof(known) / sizeof(known[0]) && strcmp(name, known[i]) != 0)
    i++;
  if (i == sizeof(known) / sizeof(known[0]))
    return tm__fail(err, TM_EINVAL, "command.unknown",
                    "there is no command \"%.64s\"; known are back, skip, cancel, restart, help, "
                    "correct",
                    name);
  bool corrects = strcmp(name, "correct") == 0;
  if (corrects && (c->name == NULL || c->input_json == NULL))
    return tm__fail(err, TM_EINVAL, "request.invalid",
                    "the command \"correct\" wants a name and an input: which answer, and what it "
                    "should have been");
  if (!corrects && (c->name != NULL || c->input_json != NULL))
    return tm__fail(err, TM_EINVAL, "request.invalid",
                    "a name and an input belong to the command \"correct\", not to \"%s\"", name);
  return check_given("name", c->name, NAME_BYTES, err);
}

static tm_status write_command(tm_buf *out, const tm_command *c, tm_error *err) {
  tm_status s = TM_OK;
  tm__buf_byte(out, '{');
  tm__json_member_text(out, "command", c->command);
  if (c->input_json != NULL) {
    tm__json_key(out, "input");
    s = tm__request_write_input(out, c->input_json, err);
  }
  write_given(out, "name", c->name);
  tm__buf_byte(out, '}');
  return s;
}

void tm_conversation_command(tm_host *h, const tm_command *c, tm_reply_fn fn, void *ud) {
  tm_request *r = enter_signal(h, TM_TURN_COMMAND, fn, ud);
  if (r == NULL) return;
  tm_error err;
  tm_buf input = {0};
  tm_status s = tm__request_check_size("tm_command", "TM_COMMAND_INIT", c->size, sizeof(*c), &err);
  if (s == TM_OK) s = tm__request_take_conversation(r, c->tenant, c->conversation_id, &err);
  if (s == TM_OK) s = check_command(c, &err);
  if (s == TM_OK) s = write_command(&input, c, &err);
  send_signal(h, r, s, &input, s == TM_OK ? c->idempotency_key : NULL, &err, fn, ud);
}

/* ---- approval ---- */

static tm_status check_approval(const tm_approval *a, tm_error *err) {
  tm_slice comment = tm__slice(a->comment);
  if (a->revision < 0)
    return tm__fail(err, TM_EINVAL, "request.invalid",
                    "the revision of an approval is a positive number, or 0 for none");
  if (comment.len > COMMENT_BYTES || !tm__utf8_valid(comment))
    return tm__fail(err, TM_EINVAL, "request.invalid",
                    "a comment has at most %d bytes of UTF-8, this one has %zu", COMMENT_BYTES,
                    comment.len);
  tm_status s = check_given("role", a->role, NAME_BYTES, err);
  return s == TM_OK ? check_given("user_id", a->user_id, USER_BYTES, err) : s;
}

static void write_approval(tm_buf *out, const tm_approval *a) {
  tm__buf_byte(out, '{');
  tm__json_member_bool(out, "approved", a->approved != 0);
  write_given(out, "comment", a->comment);
  if (a->revision > 0) tm__json_member_int(out, "revision", a->revision);
  write_given(out, "role", a->role);
  write_given(out, "user_id", a->user_id);
  tm__buf_byte(out, '}');
}

void tm_conversation_approve(tm_host *h, const tm_approval *a, tm_reply_fn fn, void *ud) {
  tm_request *r = enter_signal(h, TM_TURN_APPROVAL, fn, ud);
  if (r == NULL) return;
  tm_error err;
  tm_buf input = {0};
  tm_status s =
      tm__request_check_size("tm_approval", "TM_APPROVAL_INIT", a->size, sizeof(*a), &err);
  if (s == TM_OK) s = tm__request_take_conversation(r, a->tenant, a->conversation_id, &err);
  if (s == TM_OK) s = check_approval(a, &err);
  if (s == TM_OK) write_approval(&input, a);
  send_signal(h, r, s, &input, s == TM_OK ? a->idempotency_key : NULL, &err, fn, ud);
}

/* ---- event ---- */

static tm_status write_event(tm_buf *out, const tm_event *e, tm_error *err) {
  json_t *data = NULL;
  tm_status s = TM_OK;
  if (e->data_json != NULL)
    s = tm__json_parse_bounded(&data, tm__slice(e->data_json), DATA_DEPTH, TM_JSON_INPUT_VALUES,
                               err);
  if (s != TM_OK) return s;
  tm__buf_byte(out, '{');
  if (data != NULL) {
    tm__json_key(out, "data");
    tm__json_value(out, data);
  }
  tm__json_member_text(out, "name", e->name);
  tm__buf_byte(out, '}');
  json_decref(data);
  return TM_OK;
}

void tm_conversation_event(tm_host *h, const tm_event *e, tm_reply_fn fn, void *ud) {
  tm_request *r = enter_signal(h, TM_TURN_EVENT, fn, ud);
  if (r == NULL) return;
  tm_error err;
  tm_buf input = {0};
  tm_status s = tm__request_check_size("tm_event", "TM_EVENT_INIT", e->size, sizeof(*e), &err);
  if (s == TM_OK) s = tm__request_take_conversation(r, e->tenant, e->conversation_id, &err);
  if (s == TM_OK) s = tm__request_check_text("name", tm__slice(e->name), NAME_BYTES, &err);
  if (s == TM_OK) s = write_event(&input, e, &err);
  send_signal(h, r, s, &input, s == TM_OK ? e->idempotency_key : NULL, &err, fn, ud);
}

/* ---- pause, resume, cancel ---- */

static void send_bare(tm_host *h, tm_request *r, const char *tenant, const char *id, tm_reply_fn fn,
                      void *ud) {
  tm_error err;
  if (r == NULL) return;
  tm_status s = tm__request_take_conversation(r, tenant, id, &err);
  tm__request_submit(h, r, s, &err, fn, ud);
}

void tm_conversation_pause(tm_host *h, const char *tenant, const char *conversation_id,
                           tm_reply_fn fn, void *ud) {
  send_bare(h, enter_signal(h, TM_TURN_PAUSE, fn, ud), tenant, conversation_id, fn, ud);
}

void tm_conversation_resume(tm_host *h, const char *tenant, const char *conversation_id,
                            tm_reply_fn fn, void *ud) {
  send_bare(h, enter_signal(h, TM_TURN_UNPAUSE, fn, ud), tenant, conversation_id, fn, ud);
}

void tm_conversation_cancel(tm_host *h, const char *tenant, const char *conversation_id,
                            tm_reply_fn fn, void *ud) {
  tm_request *r = tm__request_enter(h, TM_REQUEST_CANCEL, fn, ud);
  send_bare(h, r, tenant, conversation_id, fn, ud);
}

/* ---- checkpoint ---- */

void tm_conversation_checkpoint(tm_host *h, const char *tenant, const char *conversation_id,
                                const char *name, const char *idempotency_key, tm_reply_fn fn,
                                void *ud) {
  tm_request *r = enter_signal(h, TM_TURN_CHECKPOINT, fn, ud);
  if (r == NULL) return;
  tm_error err;
  tm_buf input = {0};
  tm_status s = tm__request_take_conversation(r, tenant, conversation_id, &err);
  if (s == TM_OK && !tm__checkpoint_name_valid(tm__slice(name)))
    s = tm__fail(&err, TM_EINVAL, "request.invalid",
                 "the name of a checkpoint has 1 to %d letters, digits and _, and does not begin "
                 "with a digit",
                 TM_CHECKPOINT_NAME - 1);
  tm__buf_byte(&input, '{');
  write_given(&input, "name", name);
  tm__buf_byte(&input, '}');
  send_signal(h, r, s, &input, idempotency_key, &err, fn, ud);
}

/* ---- migrate ---- */

void tm_conversation_migrate(tm_host *h, const char *tenant, const char *conversation_id,
                             int dry_run, tm_reply_fn fn, void *ud) {
  tm_request *r = enter_signal(h, TM_TURN_MIGRATE, fn, ud);
  if (r != NULL) r->dry_run = dry_run != 0;
  send_bare(h, r, tenant, conversation_id, fn, ud);
}
