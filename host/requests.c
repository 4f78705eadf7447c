/* requests.c - the public requests: checks arguments, hands them to the worker or the readers. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "journal/reader.h"
#include "keeping/session.h"
#include "requests.h"

void tm__host_refuse(tm_reply_fn fn, void *ud, const tm_error *err) {
  fn(ud, &(tm_reply){.status = err->status, .error = err});
}

void tm__host_answer(tm_reply_fn fn, void *ud, const tm_buf *text) {
  tm_error err;
  if (!tm__buf_ok(text)) {
    (void)tm__fail_memory(&err, "answer");
    tm__host_refuse(fn, ud, &err);
    return;
  }
  fn(ud,
     &(tm_reply){.status = TM_OK, .json = text->ptr != NULL ? text->ptr : "", .size = text->len});
}

/* ---- arguments ---- */

tm_status tm__request_check_text(const char *name, tm_slice text, size_t max, tm_error *err) {
  if (text.len == 0 || text.len > max)
    return tm__fail(err, TM_EINVAL, "request.invalid", "%s must have 1 to %zu bytes", name, max);
  if (!tm__utf8_valid(text))
    return tm__fail(err, TM_EINVAL, "request.invalid", "%s is not valid UTF-8", name);
  for (size_t i = 0; i < text.len; i++)
    if ((unsigned char)text.ptr[i] < 0x20)
      return tm__fail(err, TM_EINVAL, "request.invalid", "%s has a control character", name);
  return TM_OK;
}

tm_status tm__request_check_size(const char *type, const char *init, size_t given, size_t known,
                                 tm_error *err) {
  if (given == known) return TM_OK;
  return tm__fail(err, TM_EINVAL, "options.size",
                  "%s has %zu bytes, not %zu: set it to %s and recompile", type, given, known,
                  init);
}

/* Copies a name into a fixed field of a request. */
static tm_status take_name(char *dst, size_t size, const char *name, const char *text,
                           tm_error *err) {
  tm_status s = tm__request_check_text(name, tm__slice(text), size - 1, err);
  if (s == TM_OK) (void)tm__copy(dst, size, tm__slice(text));
  return s;
}

static tm_status not_found(const char *id, tm_error *err) {
  tm_status s =
      tm__fail(err, TM_ENOTFOUND, "conversation.not_found", "there is no conversation %.40s", id);
  (void)tm__copy(err->conversation_id, sizeof(err->conversation_id), tm__slice(id));
  return s;
}

tm_status tm__request_take_conversation(tm_request *r, const char *tenant, const char *id,
                                        tm_error *err) {
  if (id == NULL || !tm__uuid_valid(tm__slice(id))) return not_found(id != NULL ? id : "", err);
  (void)tm__copy(r->conversation, sizeof(r->conversation), tm__slice(id));
  return take_name(r->tenant, sizeof(r->tenant), "tenant", tenant != NULL ? tenant : "default",
                   err);
}

tm_status tm__request_take_key(tm_request *r, const char *key, const tm_slice *body, size_t count,
                               tm_error *err) {
  if (key == NULL) return TM_OK;
  tm_slice k = tm__slice(key);
  tm_status s = tm__request_check_text("the idempotency key", k, 255, err);
  if (s != TM_OK) return s;
  r->key = tm__digest_u64(&k, 1);
  r->body = tm__digest_u64(body, count);
  return TM_OK;
}

static tm_status no_flow(const tm_bundle *b, const char *flow_id, tm_error *err) {
  tm_json_walk w;
  tm_slice key, flow;
  tm_buf known = {0};
  bool any = tm__json_walk(&w, tm__json_get(b->description, "flows"));
  while (any && tm__json_next(&w, &key, &flow)) {
    tm__buf_text(&known, known.len > 0 ? ", " : "");
    (void)tm__json_get_text(flow, "flow_id", &known);
  }
  tm_status s =
      tm__fail(err, TM_ENOTFOUND, "flow.not_found", "system '%s' has no flow '%.64s'; it has: %s",
               b->system, flow_id, known.len > 0 && tm__buf_ok(&known) ? known.ptr : "none");
  tm__buf_free(&known);
  return s;
}

tm_status tm__host_flow(tm_slice *out, const tm_bundle *b, const char *flow_id, tm_error *err) {
  tm_json_walk w;
  tm_slice key, flow;
  tm_buf quoted = {0};
  tm__json_string(&quoted, tm__slice(flow_id));
  bool found = false, ok = tm__buf_ok(&quoted);
  bool any = tm__json_walk(&w, tm__json_get(b->description, "flows"));
  while (any && !found && tm__json_next(&w, &key, &flow))
    found = tm__slice_eq(tm__json_get(flow, "flow_id"), tm__buf_view(&quoted));
  tm__buf_free(&quoted);
  if (!ok) return tm__fail_memory(err, "a name");
  if (!found) return no_flow(b, flow_id, err);
  *out = flow;
  return TM_OK;
}

/* What the rules of its system say about the session of a START. */
static void take_rules(const tm_host *h, tm_request *r, const tm_session_rules *rules) {
  int64_t now = tm__clock_now(&h->clock);
  char id[TM_ID_SIZE];
  r->session_look = tm__session_first_look(&h->keep, rules, now);
  r->sessions_max = rules->most;
  r->tenant_sessions_max = rules->tenant_most;
  if (r->session[0] != '\0') return;
  tm__uuid7(id, now);
  (void)snprintf(r->session, sizeof(r->session), "%s%s", rules->prefix, id);
}

static tm_status check_flow(tm_host *h, tm_request *r, tm_error *err) {
  tm_bundle *b = tm__registry_offered(h->registry, tm__slice(r->system), tm__slice(r->tenant));
  if (b == NULL)
    return tm__fail(err, TM_ENOTFOUND, "system.not_found",
                    "there is no system '%s'; `tidemill systems` lists what is loaded", r->system);
  tm_slice flow;
  tm_status s = tm__host_flow(&flow, b, r->flow, err);
  const tm_session_rules rules = tm__session_rules(&h->keep.sessions, b);
  if (s == TM_OK) take_rules(h, r, &rules);
  tm__bundle_unref(b);
  return s;
}

/* ---- start ---- */

static tm_status take_metadata(tm_buf *input, const char *metadata_json, tm_error *err) {
  tm__json_key(input, "metadata");
  if (metadata_json == NULL) {
    tm__buf_text(input, "null");
    return TM_OK;
  }
  json_t *v = NULL;
  tm_status s = tm__json_parse_bounded(&v, tm__slice(metadata_json), 16, TM_JSON_INPUT_VALUES, err);
  if (s != TM_OK) return s;
  if (json_is_object(v))
    tm__json_value(input, v);
  else
    s = tm__fail(err, TM_EINVAL, "request.invalid", "metadata must be an object");
  json_decref(v);
  return s;
}

static tm_status start_input(tm_request *r, const tm_begin *b, tm_error *err) {
  tm_buf input = {0};
  tm_status s = TM_OK;
  if (b->message != NULL && !tm__utf8_valid(tm__slice(b->message)))
    s = tm__fail(err, TM_EINVAL, "request.invalid", "message is not valid UTF-8");
  if (s == TM_OK && b->user_id != NULL)
    s = tm__request_check_text("user_id", tm__slice(b->user_id), 128, err);
  tm__buf_byte(&input, '{');
  if (s == TM_OK) tm__json_member(&input, "message", tm__slice(b->message));
  if (s == TM_OK) s = take_metadata(&input, b->metadata_json, err);
  if (s == TM_OK) tm__json_member(&input, "user_id", tm__slice(b->user_id));
  tm__buf_byte(&input, '}');
  if (b->user_id != NULL) r->user_id = tm__slice_dup(tm__slice(b->user_id));
  tm_slice metadata = tm__json_get(tm__buf_view(&input), "metadata");
  if (b->metadata_json != NULL) r->metadata_json = tm__slice_dup(metadata);
  r->input_json = tm__buf_take(&input);
  bool all = r->input_json != NULL && (b->user_id == NULL || r->user_id != NULL) &&
             (b->metadata_json == NULL || r->metadata_json != NULL);
  return s != TM_OK || all ? s : tm__fail_memory(err, "request");
}

static tm_status make_start(tm_host *h, tm_request *r, const tm_begin *b, tm_error *err) {
  const char *tenant = b->tenant != NULL ? b->tenant : "default";
  tm_status s = tm__request_check_size("tm_begin", "TM_BEGIN_INIT", b->size, sizeof(*b), err);
  if (s == TM_OK) s = take_name(r->tenant, sizeof(r->tenant), "tenant", tenant, err);
  if (s == TM_OK) s = take_name(r->system, sizeof(r->system), "system", b->system, err);
  if (s == TM_OK) s = take_name(r->flow, sizeof(r->flow), "flow_id", b->flow_id, err);
  if (s == TM_OK && b->session_id != NULL)
    s = take_name(r->session, sizeof(r->session), "session_id", b->session_id, err);
  if (s == TM_OK) s = start_input(r, b, err);
  if (s == TM_OK) s = check_flow(h, r, err);
  if (s != TM_OK) return s;
  tm__uuid7(r->conversation, tm__clock_now(&h->clock));
  tm_slice body[] = {tm__slice(r->system), tm__slice(r->flow), tm__slice(b->session_id),
                     tm__slice(r->input_json)};
  return tm__request_take_key(r, b->idempotency_key, body, 4, err);
}

void tm__request_submit(tm_host *h, tm_request *r, tm_status s, const tm_error *err, tm_reply_fn fn,
                        void *ud) {
  if (s == TM_OK) {
    r->reply = fn;
    r->reply_ud = ud;
    tm__journal_submit(tm__host_worker(h, r->conversation)->journal, r);
  } else {
    tm__host_refuse(fn, ud, err);
    tm__request_free(r);
  }
  tm__host_leave(h);
}

tm_request *tm__request_enter(tm_host *h, tm_request_kind kind, tm_reply_fn fn, void *ud) {
  tm_error err;
  if (!tm__host_enter(h, &err)) {
    tm__host_refuse(fn, ud, &err);
    return NULL;
  }
  tm_request *r = tm__request_new(kind);
  if (r != NULL) return r;
  tm__host_leave(h);
  (void)tm__fail_memory(&err, "request");
  tm__host_refuse(fn, ud, &err);
  return NULL;
}

void tm_conversation_begin(tm_host *h, const tm_begin *begin, tm_reply_fn fn, void *ud) {
  tm_request *r = tm__request_enter(h, TM_REQUEST_START, fn, ud);
  if (r == NULL) return;
  tm_error err;
  tm_status s = make_start(h, r, begin, &err);
  tm__request_submit(h, r, s, &err, fn, ud);
}

/* ---- message, rollback ---- */

tm_status tm__request_write_input(tm_buf *out, const char *input_json, tm_error *err) {
  json_t *v = NULL;
  tm_status s = tm__json_parse_bounded(&v, tm__slice(input_json != NULL ? input_json : ""), 32,
                                       TM_JSON_INPUT_VALUES, err);
  if (s != TM_OK) return s;
  if (!json_is_string(v) && !json_is_object(v))
    s = tm__fail(err, TM_EINVAL, "request.invalid",
                 "input must be a string, or an object for a structured step");
  else
    tm__json_value(out, v);
  json_decref(v);
  return s;
}

static tm_status take_input(tm_request *r, const char *input_json, tm_error *err) {
  tm_buf input = {0};
  tm_status s = tm__request_write_input(&input, input_json, err);
  if (s != TM_OK) return s;
  r->input_json = tm__buf_take(&input);
  return r->input_json != NULL ? TM_OK : tm__fail_memory(err, "request");
}

void tm_message_send(tm_host *h, const char *tenant, const char *conversation_id,
                     const char *input_json, const char *idempotency_key, tm_reply_fn fn,
                     void *ud) {
  tm_request *r = tm__request_enter(h, TM_REQUEST_MESSAGE, fn, ud);
  if (r == NULL) return;
  tm_error err;
  tm_status s = tm__request_take_conversation(r, tenant, conversation_id, &err);
  if (s == TM_OK) s = take_input(r, input_json, &err);
  if (s == TM_OK) {
    tm_slice body = tm__slice(r->input_json);
    s = tm__request_take_key(r, idempotency_key, &body, 1, &err);
  }
  tm__request_submit(h, r, s, &err, fn, ud);
}

static tm_status take_target(tm_request *r, int steps, const char *checkpoint_id, tm_error *err) {
  if (checkpoint_id == NULL) {
    r->steps = steps;
    if (steps >= 1 && steps <= 10000) return TM_OK;
    return tm__fail(err, TM_EINVAL, "request.invalid", "steps must be 1 to 10000");
  }
  tm_slice name = tm__slice(checkpoint_id);
  if (tm__checkpoint_name_valid(name)) {
    (void)tm__copy(r->checkpoint_name, sizeof(r->checkpoint_name), name);
    return TM_OK;
  }
  char *end = NULL;
  r->checkpoint = strtoll(checkpoint_id, &end, 10);
  bool digit = checkpoint_id[0] >= '1' && checkpoint_id[0] <= '9';
  if (digit && r->checkpoint > 0 && *end == '\0') return TM_OK;
  return tm__fail(err, TM_EINVAL, "request.invalid",
                  "'%.40s' is neither the id of a checkpoint nor a name of one", checkpoint_id);
}

static tm_status take_rollback_key(tm_request *r, const char *key, tm_error *err) {
  char target[64];
  (void)snprintf(target, sizeof(target), "%d:%lld:%d", r->steps, (long long)r->checkpoint,
                 (int)r->force);
  const tm_slice body[] = {TM_S("rollback"), tm__slice(target), tm__slice(r->checkpoint_name)};
  return tm__request_take_key(r, key, body, r->checkpoint_name[0] != '\0' ? 3 : 2, err);
}

void tm_conversation_rollback(tm_host *h, const char *tenant, const char *conversation_id,
                              int steps, const char *checkpoint_id, int force,
                              const char *idempotency_key, tm_reply_fn fn, void *ud) {
  tm_request *r = tm__request_enter(h, TM_REQUEST_UNDO, fn, ud);
  if (r == NULL) return;
  tm_error err;
  r->force = force != 0;
  tm_status s = tm__request_take_conversation(r, tenant, conversation_id, &err);
  if (s == TM_OK) s = take_target(r, steps, checkpoint_id, &err);
  if (s == TM_OK) s = take_rollback_key(r, idempotency_key, &err);
  tm__request_submit(h, r, s, &err, fn, ud);
}

static tm_status make_fork(tm_host *h, tm_request *r, const char *tenant, const char *id,
                           const char *checkpoint_id, const char *key, tm_error *err) {
  int64_t now = tm__clock_now(&h->clock);
  tm_status s = tm__request_take_conversation(r, tenant, id, err);
  if (s == TM_OK && checkpoint_id != NULL) s = take_target(r, 0, checkpoint_id, err);
  if (s != TM_OK) return s;
  memcpy(r->origin, r->conversation, sizeof(r->origin));
  tm__uuid7(r->conversation, now);
  r->session_look = now; /* of a session that had ended: the janitor finds out its rules */
  const tm_slice body[] = {TM_S("fork"), tm__slice(r->origin), tm__slice(checkpoint_id)};
  return tm__request_take_key(r, key, body, 3, err);
}

void tm_conversation_fork(tm_host *h, const char *tenant, const char *conversation_id,
                          const char *checkpoint_id, const char *idempotency_key, tm_reply_fn fn,
                          void *ud) {
  tm_request *r = tm__request_enter(h, TM_REQUEST_FORK, fn, ud);
  if (r == NULL) return;
  tm_error err;
  tm_status s = make_fork(h, r, tenant, conversation_id, checkpoint_id, idempotency_key, &err);
  tm__request_submit(h, r, s, &err, fn, ud);
}

/* ---- reads ---- */

void tm_conversation_read(tm_host *h, const char *tenant, const char *conversation_id, tm_read what,
                          const char *cursor, int limit, tm_reply_fn fn, void *ud) {
  tm_error err;
  if (what < TM_READ_CONVERSATION || what > TM_READ_CHECKPOINTS) {
    (void)tm__fail(&err, TM_EINVAL, "request.invalid",
                   "there is nothing to read as %d: give one of tm_read", (int)what);
    tm__host_refuse(fn, ud, &err);
    return;
  }
  if (!tm__host_enter(h, &err)) {
    tm__host_refuse(fn, ud, &err);
    return;
  }
  if (conversation_id == NULL || !tm__uuid_valid(tm__slice(conversation_id))) {
    (void)not_found(conversation_id != NULL ? conversation_id : "", &err);
    tm__host_refuse(fn, ud, &err);
  } else {
    const tm_checkpoints listed = tm__checkpoints(&h->keep.checkpoints, tm__clock_now(&h->clock));
    tm__reader_conversation(h->storage, tm__slice(tenant != NULL ? tenant : "default"),
                            tm__slice(conversation_id), what, tm__slice(cursor), limit, &listed, fn,
                            ud);
  }
  tm__host_leave(h);
}

void tm_conversation_list(tm_host *h, const tm_filter *filter, tm_reply_fn fn, void *ud) {
  tm_error err;
  tm_filter f = filter != NULL ? *filter : (tm_filter)TM_FILTER_INIT;
  if (tm__request_check_size("tm_filter", "TM_FILTER_INIT", f.size, sizeof(f), &err) != TM_OK) {
    tm__host_refuse(fn, ud, &err);
    return;
  }
  if (!tm__host_enter(h, &err)) {
    tm__host_refuse(fn, ud, &err);
    return;
  }
  if (f.tenant == NULL) f.tenant = "default";
  tm__reader_list(h->storage, &f, fn, ud);
  tm__host_leave(h);
}
