/* checkpoint.c - which rows are listed as checkpoints: those that are young and few enough, and the
 * oldest one that the flow's rollback limit still reaches. A rule of whoever reads: no row is
 * changed. */
#include "journal/checkpoint.h"

#include "core/json.h"
#include "journal/slot.h"

#define ROLLBACK_MOST 100 /* where the runtime part says nothing */

tm_checkpoints tm__checkpoints(const tm_checkpoint_rules *rules, int64_t now) {
  tm_checkpoints c = {.allowed = -1};
  if (rules == NULL) return c;
  if (rules->ms > 0) c.since = now - rules->ms;
  c.most = rules->most;
  return c;
}

bool tm__is_waiting(tm_conversation_status status) {
  return status == TM_WAITING_INPUT || status == TM_WAITING_APPROVAL ||
         status == TM_WAITING_EVENT || status == TM_WAITING_AGENT;
}

/* An undo row stands for its base, which comes next. */
bool tm__ends_waiting(const tm_row *row, const tm_row_fields *f) {
  tm_conversation_status status;
  return row->kind != TM_ROW_BEGIN && row->kind != TM_ROW_CALL && row->kind != TM_ROW_UNDO &&
         tm__row_status(f, &status) && tm__is_waiting(status);
}

/* A prompt that was repeated, after a refused answer or otherwise, is still the same prompt.
 * Nothing lies behind a fork or a migration that one could go to: what they repeat is a first one.
 */
bool tm__is_new_prompt(const tm_row *row, const tm_row_fields *f) {
  if (row->kind == TM_ROW_FORK || row->kind == TM_ROW_MIGRATE) return tm__ends_waiting(row, f);
  return tm__ends_waiting(row, f) &&
         tm__json_get_int(tm__json_get(f->runtime, "wait"), "shown", 1) <= 1;
}

static tm_listing judge(tm_checkpoints *c, const tm_row *row, const tm_row_fields *f) {
  bool few = c->most == 0 || c->seen < c->most;
  c->seen++;
  if (few && row->created >= c->since) return TM_LISTED;
  c->over = true;
  bool needed = c->allowed > 0 && c->passed <= c->allowed && tm__ends_waiting(row, f);
  return needed ? TM_LISTED_IF_LAST : TM_NOT_LISTED;
}

tm_listing tm__checkpoints_next(tm_checkpoints *c, const tm_row *row, const tm_row_fields *f) {
  if (c->allowed < 0 && f->runtime.ptr != NULL) { /* as the newest row has them */
    c->allowed = (int)tm__json_get_int(f->runtime, "rollback", ROLLBACK_MOST);
    c->most = tm__json_get_int(f->runtime, "checkpoints", c->most);
  }
  tm_listing listing = row->checkpoint ? judge(c, row, f) : TM_NOT_LISTED;
  if (tm__is_new_prompt(row, f)) c->passed++;
  return listing;
}

bool tm__checkpoints_done(const tm_checkpoints *c) {
  return c->over && c->passed > c->allowed;
}
