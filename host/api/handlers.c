/* handlers.c - what the routes do: read the request, call the host. */
#include "api/handlers.h"

#include <stdio.h>
#include <string.h>

#include "api/body.h"
#include "api/query.h"
#include "persistence/store.h"

#define NAME_LIMIT    64
#define SESSION_LIMIT 128
#define USER_LIMIT    128
#define CURSOR_LIMIT  512

#define COUNT(fields) (sizeof(fields) / sizeof((fields)[0]))

static void reply_json(const tm_api_request *r, tm_slice json) {
  tm__http_reply(r->x, 200, "application/json", json, NULL);
}

tm_status tm__handler_json(tm_buf *out, const json_t *value, tm_error *err) {
  if (value == NULL) return TM_OK;
  tm__json_value(out, value);
  return tm__buf_ok(out) ? TM_OK : tm__fail_memory(err, "a request");
}

static tm_status not_a_conversation(const char *id, tm_error *err) {
  tm_status st =
      tm__fail(err, TM_ENOTFOUND, "conversation.not_found", "there is no conversation \"%s\"", id);
  (void)tm__copy(err->conversation_id, sizeof(err->conversation_id), tm__slice(id));
  return st;
}

static const char *key_or_none(const char *key) {
  return key[0] != '\0' ? key : NULL;
}

tm_status tm__handler_conversation(const char **id, const tm_api_request *r, tm_error *err) {
  *id = r->params[0];
  return tm__uuid_valid(tm__slice(*id)) ? TM_OK : not_a_conversation(*id, err);
}

tm_status tm__handler_owe_empty(void **owed, const tm_api_request *r, tm_error *err) {
  tm_body body;
  tm_status st = tm__body_parse(&body, tm__http_body(r->x), NULL, 0, err);
  if (st != TM_OK) return st;
  tm__body_free(&body);
  return tm__api_owe(owed, r, 200, err);
}

tm_status tm__handler_posted(tm_posted *out, const tm_api_request *r, const tm_field *fields,
                             size_t count, tm_error *err) {
  tm_status st = tm__handler_conversation(&out->id, r, err);
  if (st == TM_OK) st = tm__guard_key(out->key_text, r->x, err);
  if (st == TM_OK) st = tm__body_parse(&out->body, tm__http_body(r->x), fields, count, err);
  if (st == TM_OK) out->key = key_or_none(out->key_text);
  return st;
}

/* ---- start ---- */

enum { START_SYSTEM, START_FLOW, START_SESSION, START_USER, START_MESSAGE, START_METADATA };
static const tm_field start_fields[] = {
    [START_SYSTEM] = {"system", TM_FIELD_ID, true, NAME_LIMIT},
    [START_FLOW] = {"flow_id", TM_FIELD_ID, true, NAME_LIMIT},
    [START_SESSION] = {"session_id", TM_FIELD_ID, false, SESSION_LIMIT},
    [START_USER] = {"user_id", TM_FIELD_ID, false, USER_LIMIT},
    [START_MESSAGE] = {"message", TM_FIELD_TEXT, false, 0},
    [START_METADATA] = {"metadata", TM_FIELD_OBJECT, false, 0},
};

static tm_status start(const tm_api_request *r, const tm_body *body, const char *key,
                       tm_error *err) {
  tm_buf metadata = {0};
  tm_status st = tm__handler_json(&metadata, body->values[START_METADATA], err);
  void *owed = NULL;
  if (st == TM_OK) st = tm__api_owe(&owed, r, 201, err);
  if (st == TM_OK) {
    tm_begin begin = TM_BEGIN_INIT;
    begin.tenant = r->tenant;
    begin.system = tm__body_text(body, START_SYSTEM);
    begin.flow_id = tm__body_text(body, START_FLOW);
    begin.session_id = tm__body_text(body, START_SESSION);
    begin.user_id = tm__body_text(body, START_USER);
    begin.message = tm__body_text(body, START_MESSAGE);
    begin.metadata_json = metadata.ptr;
    begin.idempotency_key = key_or_none(key);
    tm_conversation_begin(r->host, &begin, tm__api_answer, owed);
  }
  tm__buf_free(&metadata);
  return st;
}

tm_status tm__handle_start(const tm_api_request *r, int argument, tm_error *err) {
  char key[TM_KEY_SIZE];
  tm_body body;
  (void)argument;
  tm_status st = tm__guard_key(key, r->x, err);
  if (st == TM_OK)
    st = tm__body_parse(&body, tm__http_body(r->x), start_fields, COUNT(start_fields), err);
  if (st != TM_OK) return st;
  st = start(r, &body, key, err);
  tm__body_free(&body);
  return st;
}

/* ---- message ---- */

enum { MESSAGE_INPUT, MESSAGE_COMMAND, MESSAGE_NAME };
static const tm_field message_fields[] = {
    [MESSAGE_INPUT] = {"input", TM_FIELD_INPUT, false, 0},
    [MESSAGE_COMMAND] = {"command", TM_FIELD_ID, false, NAME_LIMIT},
    [MESSAGE_NAME] = {"name", TM_FIELD_ID, false, NAME_LIMIT},
};

static tm_status check_message(const tm_body *body, tm_error *err) {
  if (body->values[MESSAGE_COMMAND] != NULL) return TM_OK;
  if (body->values[MESSAGE_NAME] != NULL)
    return tm__fail(err, TM_EINVAL, "request.member_value",
                    "\"name\" belongs to the command \"correct\"");
  if (body->values[MESSAGE_INPUT] == NULL)
    return tm__fail(err, TM_EINVAL, "request.member_missing",
                    "the body needs the member \"input\": a string, or an object for a structured "
                    "step");
  return TM_OK;
}

static tm_status send_message(const tm_api_request *r, const tm_posted *p, tm_error *err) {
  const tm_body *body = &p->body;
  tm_buf input = {0};
  tm_status st = tm__handler_json(&input, body->values[MESSAGE_INPUT], err);
  void *owed = NULL;
  if (st == TM_OK) st = tm__api_owe(&owed, r, 200, err);
  if (st == TM_OK && body->values[MESSAGE_COMMAND] != NULL) {
    tm_command c = TM_COMMAND_INIT;
    c.tenant = r->tenant;
    c.conversation_id = p->id;
    c.command = tm__body_text(body, MESSAGE_COMMAND);
    c.name = tm__body_text(body, MESSAGE_NAME);
    c.input_json = input.ptr;
    c.idempotency_key = p->key;
    tm_conversation_command(r->host, &c, tm__api_answer, owed);
  } else if (st == TM_OK) {
    tm_message_send(r->host, r->tenant, p->id, input.ptr, p->key, tm__api_answer, owed);
  }
  tm__buf_free(&input);
  return st;
}

tm_status tm__handle_message(const tm_api_request *r, int argument, tm_error *err) {
  tm_posted p;
  (void)argument;
  tm_status st = tm__handler_posted(&p, r, message_fields, COUNT(message_fields), err);
  if (st != TM_OK) return st;
  st = check_message(&p.body, err);
  if (st == TM_OK) st = send_message(r, &p, err);
  tm__body_free(&p.body);
  return st;
}

/* ---- reading ---- */

static tm_status page_of(int *limit, const char **cursor, const tm_api_request *r, tm_error *err) {
  tm_status st = tm__query_limit(limit, r->x, err);
  return st == TM_OK ? tm__query_text(cursor, r->x, "cursor", CURSOR_LIMIT, err) : st;
}

tm_status tm__handle_read(const tm_api_request *r, int argument, tm_error *err) {
  const char *id, *cursor;
  int limit;
  tm_status st = tm__handler_conversation(&id, r, err);
  if (st == TM_OK) st = page_of(&limit, &cursor, r, err);
  if (st != TM_OK) return st;
  void *owed;
  st = tm__api_owe(&owed, r, 200, err);
  if (st != TM_OK) return st;
  tm_conversation_read(r->host, r->tenant, id, (tm_read)argument, cursor, limit, tm__api_answer,
                       owed);
  return TM_OK;
}

static tm_status check_status(const char *status, tm_error *err) {
  tm_conversation_status ignored;
  if (status == NULL || tm__conversation_status_parse(&ignored, tm__slice(status))) return TM_OK;
  return tm__fail(err, TM_EINVAL, "request.query",
                  "status= must be active, waiting_input, waiting_approval, waiting_event, "
                  "waiting_agent, sleeping, paused, completed, failed, expired or cancelled");
}

tm_status tm__handle_list(const tm_api_request *r, int argument, tm_error *err) {
  tm_filter filter = TM_FILTER_INIT;
  (void)argument;
  filter.tenant = r->tenant;
  tm_status st = page_of(&filter.limit, &filter.cursor, r, err);
  if (st == TM_OK) st = tm__query_text(&filter.session_id, r->x, "session_id", SESSION_LIMIT, err);
  if (st == TM_OK) st = tm__query_text(&filter.system, r->x, "system", NAME_LIMIT, err);
  if (st == TM_OK) st = tm__query_text(&filter.flow_id, r->x, "flow_id", NAME_LIMIT, err);
  if (st == TM_OK) st = tm__query_text(&filter.status, r->x, "status", NAME_LIMIT, err);
  if (st == TM_OK) st = check_status(filter.status, err);
  if (st != TM_OK) return st;
  void *owed;
  st = tm__api_owe(&owed, r, 200, err);
  if (st != TM_OK) return st;
  tm_conversation_list(r->host, &filter, tm__api_answer, owed);
  return TM_OK;
}

tm_status tm__handle_systems(const tm_api_request *r, int argument, tm_error *err) {
  void *owed;
  tm_status st = tm__api_owe(&owed, r, 200, err);
  if (st != TM_OK) return st;
  tm_systems_read(r->host, r->tenant, argument >= 1 ? r->params[0] : NULL,
                  argument >= 2 ? r->params[1] : NULL, tm__api_answer, owed);
  return TM_OK;
}

/* ---- sessions ---- */

typedef void (*list_fn)(tm_host *host, const char *tenant, const char *status, const char *cursor,
                        int limit, tm_reply_fn fn, void *ud);

/* A page of a list that can be had by one of two statuses. */
static tm_status list_by_status(const tm_api_request *r, list_fn list, const char *one,
                                const char *other, tm_error *err) {
  const char *cursor, *status;
  int limit;
  tm_status st = page_of(&limit, &cursor, r, err);
  if (st == TM_OK) st = tm__query_text(&status, r->x, "status", NAME_LIMIT, err);
  if (st != TM_OK) return st;
  if (status != NULL && strcmp(status, one) != 0 && strcmp(status, other) != 0)
    return tm__fail(err, TM_EINVAL, "request.query", "status= must be %s or %s", one, other);
  void *owed;
  st = tm__api_owe(&owed, r, 200, err);
  if (st == TM_OK) list(r->host, r->tenant, status, cursor, limit, tm__api_answer, owed);
  return st;
}

tm_status tm__handle_sessions(const tm_api_request *r, int argument, tm_error *err) {
  (void)argument;
  return list_by_status(r, tm_session_list, "open", "ended", err);
}

/* What the path names. */
static tm_status one_session(const tm_api_request *r,
                             void (*act)(tm_host *, const char *, const char *, tm_reply_fn,
                                         void *),
                             tm_error *err) {
  void *owed;
  tm_status st = tm__api_owe(&owed, r, 200, err);
  if (st == TM_OK) act(r->host, r->tenant, r->params[0], tm__api_answer, owed);
  return st;
}

tm_status tm__handle_session(const tm_api_request *r, int argument, tm_error *err) {
  (void)argument;
  return one_session(r, tm_session_read, err);
}

tm_status tm__handle_session_end(const tm_api_request *r, int argument, tm_error *err) {
  (void)argument;
  return one_session(r, tm_session_end, err);
}

/* ---- events that were not delivered ---- */

tm_status tm__handle_outbox(const tm_api_request *r, int argument, tm_error *err) {
  (void)argument;
  return list_by_status(r, tm_outbox_list, "pending", "dead", err);
}

tm_status tm__handle_outbox_retry(const tm_api_request *r, int argument, tm_error *err) {
  void *owed;
  (void)argument;
  tm_status st = tm__handler_owe_empty(&owed, r, err);
  if (st == TM_OK) tm_outbox_retry(r->host, r->tenant, r->params[0], tm__api_answer, owed);
  return st;
}

/* ---- operating ---- */

tm_status tm__handle_reload(const tm_api_request *r, int argument, tm_error *err) {
  void *owed;
  (void)argument;
  tm_status st = tm__handler_owe_empty(&owed, r, err);
  if (st == TM_OK) tm_host_reload(r->host, tm__api_answer, owed);
  return st;
}

tm_status tm__handle_live(const tm_api_request *r, int argument, tm_error *err) {
  (void)argument;
  (void)err;
  reply_json(r, TM_S("{\"status\":\"live\"}"));
  return TM_OK;
}

tm_status tm__handle_ready(const tm_api_request *r, int argument, tm_error *err) {
  const char *why_not = NULL;
  (void)argument;
  if (!tm__api_is_ready(r->api, &why_not))
    return tm__fail(err, TM_EUNAVAILABLE, "host.not_ready", "the host is not ready: %s",
                    why_not != NULL ? why_not : "it starts or stops");
  reply_json(r, TM_S("{\"status\":\"ready\"}"));
  return TM_OK;
}
