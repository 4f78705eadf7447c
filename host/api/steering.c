/* steering.c - the routes that change the course of a conversation: rollback, fork, checkpoint,
 * approval, event, pause, resume, cancel, migrate. Who decides is said by the headers. */
#include <stdio.h>

#include "api/handlers.h"

#define NAME_LIMIT     64
#define USER_LIMIT     128
#define ROLLBACK_LIMIT 10000

#define COUNT(fields) (sizeof(fields) / sizeof((fields)[0]))

/* ---- rollback ---- */

enum { ROLLBACK_STEPS, ROLLBACK_CHECKPOINT, ROLLBACK_FORCE };
static const tm_field rollback_fields[] = {
    [ROLLBACK_STEPS] = {"steps", TM_FIELD_COUNT, false, ROLLBACK_LIMIT},
    [ROLLBACK_CHECKPOINT] = {"checkpoint_id", TM_FIELD_KEY, false, NAME_LIMIT},
    [ROLLBACK_FORCE] = {"force", TM_FIELD_FLAG, false, 0},
};

/* An id as text; a number of JSON is written into `number`. */
static const char *checkpoint_of(const json_t *given, char number[24]) {
  if (json_is_string(given)) return json_string_value(given);
  if (!json_is_integer(given)) return NULL;
  (void)snprintf(number, 24, "%lld", (long long)json_integer_value(given));
  return number;
}

static tm_status rollback(const tm_api_request *r, const tm_posted *p, tm_error *err) {
  const json_t *steps = p->body.values[ROLLBACK_STEPS];
  const json_t *checkpoint = p->body.values[ROLLBACK_CHECKPOINT];
  char number[24];
  if ((steps == NULL) == (checkpoint == NULL))
    return tm__fail(err, TM_EINVAL, "request.member_value",
                    "give either \"steps\" or \"checkpoint_id\"");
  const char *to = checkpoint_of(checkpoint, number);
  void *owed;
  tm_status st = tm__api_owe(&owed, r, 200, err);
  if (st != TM_OK) return st;
  tm_conversation_rollback(r->host, r->tenant, p->id, (int)json_integer_value(steps), to,
                           json_is_true(p->body.values[ROLLBACK_FORCE]), p->key, tm__api_answer,
                           owed);
  return TM_OK;
}

tm_status tm__handle_rollback(const tm_api_request *r, int argument, tm_error *err) {
  tm_posted p;
  (void)argument;
  tm_status st = tm__handler_posted(&p, r, rollback_fields, COUNT(rollback_fields), err);
  if (st != TM_OK) return st;
  st = rollback(r, &p, err);
  tm__body_free(&p.body);
  return st;
}

/* ---- fork ---- */

static const tm_field fork_fields[] = {{"checkpoint_id", TM_FIELD_KEY, false, NAME_LIMIT}};

tm_status tm__handle_fork(const tm_api_request *r, int argument, tm_error *err) {
  char number[24];
  tm_posted p;
  void *owed;
  (void)argument;
  tm_status st = tm__handler_posted(&p, r, fork_fields, COUNT(fork_fields), err);
  if (st != TM_OK) return st;
  st = tm__api_owe(&owed, r, 201, err);
  if (st == TM_OK)
    tm_conversation_fork(r->host, r->tenant, p.id, checkpoint_of(p.body.values[0], number), p.key,
                         tm__api_answer, owed);
  tm__body_free(&p.body);
  return st;
}

/* ---- checkpoint ---- */

static const tm_field checkpoint_fields[] = {{"name", TM_FIELD_TEXT, true, 0}};

tm_status tm__handle_checkpoint(const tm_api_request *r, int argument, tm_error *err) {
  tm_posted p;
  void *owed;
  (void)argument;
  tm_status st = tm__handler_posted(&p, r, checkpoint_fields, COUNT(checkpoint_fields), err);
  if (st != TM_OK) return st;
  st = tm__api_owe(&owed, r, 201, err);
  if (st == TM_OK)
    tm_conversation_checkpoint(r->host, r->tenant, p.id, tm__body_text(&p.body, 0), p.key,
                               tm__api_answer, owed);
  tm__body_free(&p.body);
  return st;
}

/* ---- approval ---- */

enum { APPROVAL_APPROVED, APPROVAL_REVISION, APPROVAL_COMMENT, APPROVAL_USER };
static const tm_field approval_fields[] = {
    [APPROVAL_APPROVED] = {"approved", TM_FIELD_FLAG, true, 0},
    [APPROVAL_REVISION] = {"revision", TM_FIELD_COUNT, false, INT64_MAX},
    [APPROVAL_COMMENT] = {"comment", TM_FIELD_TEXT, false, 0},
    [APPROVAL_USER] = {"user_id", TM_FIELD_ID, false, USER_LIMIT},
};

static tm_status approve(const tm_api_request *r, const tm_posted *p, tm_error *err) {
  void *owed;
  tm_status st = tm__api_owe(&owed, r, 200, err);
  if (st != TM_OK) return st;
  tm_approval a = TM_APPROVAL_INIT;
  a.tenant = r->tenant;
  a.conversation_id = p->id;
  a.approved = json_is_true(p->body.values[APPROVAL_APPROVED]);
  a.revision = json_integer_value(p->body.values[APPROVAL_REVISION]);
  a.comment = tm__body_text(&p->body, APPROVAL_COMMENT);
  a.role = tm__http_header(r->x, "X-Tidemill-Role").ptr;
  a.user_id = tm__body_text(&p->body, APPROVAL_USER);
  a.idempotency_key = p->key;
  tm_conversation_approve(r->host, &a, tm__api_answer, owed);
  return TM_OK;
}

tm_status tm__handle_approval(const tm_api_request *r, int argument, tm_error *err) {
  tm_posted p;
  (void)argument;
  tm_status st = tm__handler_posted(&p, r, approval_fields, COUNT(approval_fields), err);
  if (st != TM_OK) return st;
  st = approve(r, &p, err);
  tm__body_free(&p.body);
  return st;
}

/* ---- event ---- */

enum { EVENT_NAME, EVENT_DATA };
static const tm_field event_fields[] = {
    [EVENT_NAME] = {"name", TM_FIELD_ID, true, NAME_LIMIT},
    [EVENT_DATA] = {"data", TM_FIELD_ANY, false, 0},
};

static tm_status tell(const tm_api_request *r, const tm_posted *p, tm_error *err) {
  tm_buf data = {0};
  tm_status st = tm__handler_json(&data, p->body.values[EVENT_DATA], err);
  void *owed = NULL;
  if (st == TM_OK) st = tm__api_owe(&owed, r, 200, err);
  if (st == TM_OK) {
    tm_event e = TM_EVENT_INIT;
    e.tenant = r->tenant;
    e.conversation_id = p->id;
    e.name = tm__body_text(&p->body, EVENT_NAME);
    e.data_json = data.ptr;
    e.idempotency_key = p->key;
    tm_conversation_event(r->host, &e, tm__api_answer, owed);
  }
  tm__buf_free(&data);
  return st;
}

tm_status tm__handle_event(const tm_api_request *r, int argument, tm_error *err) {
  tm_posted p;
  (void)argument;
  tm_status st = tm__handler_posted(&p, r, event_fields, COUNT(event_fields), err);
  if (st != TM_OK) return st;
  st = tell(r, &p, err);
  tm__body_free(&p.body);
  return st;
}

/* ---- pause, resume, cancel ---- */

tm_status tm__handle_steer(const tm_api_request *r, int argument, tm_error *err) {
  static void (*const acts[])(tm_host *, const char *, const char *, tm_reply_fn, void *) = {
      [TM_STEER_PAUSE] = tm_conversation_pause,
      [TM_STEER_RESUME] = tm_conversation_resume,
      [TM_STEER_CANCEL] = tm_conversation_cancel,
  };
  const char *id;
  void *owed;
  tm_status st = tm__handler_conversation(&id, r, err);
  if (st == TM_OK) st = tm__handler_owe_empty(&owed, r, err);
  if (st == TM_OK) acts[argument](r->host, r->tenant, id, tm__api_answer, owed);
  return st;
}

/* ---- migrate ---- */

static const tm_field migrate_fields[] = {{"dry_run", TM_FIELD_FLAG, false, 0}};

tm_status tm__handle_migrate(const tm_api_request *r, int argument, tm_error *err) {
  const char *id;
  tm_body body;
  (void)argument;
  tm_status st = tm__handler_conversation(&id, r, err);
  if (st == TM_OK)
    st = tm__body_parse(&body, tm__http_body(r->x), migrate_fields, COUNT(migrate_fields), err);
  if (st != TM_OK) return st;
  bool dry_run = json_is_true(body.values[0]);
  tm__body_free(&body);
  void *owed;
  st = tm__api_owe(&owed, r, 200, err);
  if (st == TM_OK) tm_conversation_migrate(r->host, r->tenant, id, dry_run, tm__api_answer, owed);
  return st;
}
