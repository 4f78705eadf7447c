/* request.c - requests, the one reply that each of them gets, and the kinds of turns by name. */
#include <stdlib.h>

#include "journal/slot.h"

static const char *const kinds[] = {
    [TM_TURN_START] = "start",       [TM_TURN_MESSAGE] = "message",
    [TM_TURN_RESUME] = "resume",     [TM_TURN_WAKE] = "wake",
    [TM_TURN_UNDO] = "undo",         [TM_TURN_COMMAND] = "command",
    [TM_TURN_APPROVAL] = "approval", [TM_TURN_EVENT] = "event",
    [TM_TURN_PAUSE] = "pause",       [TM_TURN_UNPAUSE] = "unpause",
    [TM_TURN_MIGRATE] = "migrate",   [TM_TURN_CHECKPOINT] = "checkpoint",
};

const char *tm__turn_kind_name(tm_turn_kind kind) {
  return kinds[kind];
}

bool tm__turn_kind_parse(tm_turn_kind *out, tm_slice name) {
  for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
    if (!tm__slice_is(name, kinds[i])) continue;
    *out = (tm_turn_kind)i;
    return true;
  }
  return false;
}

tm_request *tm__request_new(tm_request_kind kind) {
  tm_request *r = calloc(1, sizeof(*r));
  if (r != NULL) r->kind = kind;
  return r;
}

void tm__request_free(tm_request *r) {
  while (r != NULL) {
    tm_request *next = r->joined;
    free(r->user_id);
    free(r->metadata_json);
    free(r->input_json);
    free(r->undo_steps);
    free(r->undo_plan);
    free(r->trail_of);
    free(r->trail);
    free(r->command);
    free(r->refused);
    free(r);
    r = next;
  }
}

void tm__request_forget_asked(tm_request *r) {
  char **const texts[] = {&r->trail_of, &r->trail, &r->command, &r->refused};
  r->back = 0;
  for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
    free(*texts[i]);
    *texts[i] = NULL;
  }
}

static void reply_to_all(const tm_request *r, const tm_reply *reply) {
  for (; r != NULL; r = r->joined) {
    if (r->reply != NULL) r->reply(r->reply_ud, reply);
  }
}

void tm__request_answer(tm_request *r, tm_slice json) {
  const tm_reply reply = {.status = TM_OK, .json = json.ptr, .size = json.len};
  reply_to_all(r, &reply);
  tm__request_free(r);
}

void tm__request_fail(tm_request *r, const tm_error *err) {
  tm_error own = *err;
  if (own.status == TM_OK) own.status = TM_ESCRIPT; /* an error whoever raised it left unnamed */
  if (r->kind == TM_REQUEST_FORK)
    (void)tm__copy(own.conversation_id, sizeof(own.conversation_id), tm__slice(r->origin));
  if (own.conversation_id[0] == '\0' && (r->kind != TM_REQUEST_START || r->floor > 0)) {
    (void)tm__copy(own.conversation_id, sizeof(own.conversation_id), tm__slice(r->conversation));
  }
  const tm_reply reply = {.status = own.status, .error = &own};
  reply_to_all(r, &reply);
  tm__request_free(r);
}
