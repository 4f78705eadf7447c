/* become.c - a turn that becomes another one before it has begun: its script asks for a rollback,
 * or for the trail of a correction, and what its request says now is decided anew; what is refused
 * then is told to the turn that asked. */
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "journal/slot.h"

/* The turn ends, and is another one: what its request says now is decided anew, on this record. */
static void decide_anew(tm_turn *t) {
  tm_slot *s = t->slot;
  tm_request *r = t->request;
  bool fresh = t->fresh;
  t->ended = true;
  t->request = NULL;
  tm__turn_free(t);
  s->phase = TM_SLOT_IDLE;
  tm__slot_push_front(s, r);
  s->fresh = fresh;
  tm__slot_go(s);
}

/* Fails the turn where it cannot be another one. */
static bool may_become(tm_turn *t, bool may, const char *what) {
  if (t->ended) return false;
  if (may && !t->begun && t->request != NULL) return true;
  tm_error err;
  (void)tm__fail(&err, TM_ESCRIPT, "journal.draft",
                 "a turn that has begun, or that nobody asked for, cannot become a %s", what);
  tm__turn_fail(t, &err);
  return false;
}

void tm__turn_rollback(tm_turn *t, int steps) {
  if (!may_become(t, true, "rollback")) return;
  t->request->back = steps;
  decide_anew(t);
}

void tm__turn_trail(tm_turn *t, tm_slice steps, tm_slice command) {
  tm_turn_kind kind = t->view.kind;
  bool may = kind == TM_TURN_COMMAND || (kind == TM_TURN_MESSAGE && command.ptr != NULL);
  may = may && t->request != NULL && t->request->input_json != NULL;
  if (!may_become(t, may, "correction")) return;
  tm_request *r = t->request;
  tm__request_forget_asked(r);
  r->trail_of = strndup(steps.ptr, steps.len);
  if (command.ptr != NULL) r->command = strndup(command.ptr, command.len);
  if (r->trail_of != NULL && (command.ptr == NULL || r->command != NULL)) {
    decide_anew(t);
  } else {
    tm_error err;
    (void)tm__fail_memory(&err, "a correction");
    tm__turn_fail(t, &err);
  }
}

void tm__turn_refused(tm_slot *s, const tm_error *why) {
  tm_request *r = s->first;
  tm_buf out = {0};
  tm_error err;
  tm__request_forget_asked(r);
  tm__buf_byte(&out, '{');
  tm__json_member_text(&out, "code", why->code);
  tm__json_member_text(&out, "message", why->message);
  tm__buf_byte(&out, '}');
  r->refused = tm__buf_take(&out);
  if (r->refused != NULL) {
    tm__turn_run(s, r->kind == TM_REQUEST_SIGNAL ? r->signal : TM_TURN_MESSAGE);
  } else {
    (void)tm__fail_memory(&err, "a turn");
    tm__slot_fail(s, &err);
  }
}
