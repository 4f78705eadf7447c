/* checkpoint.c - which rows are listed as checkpoints: those that are young and few enough, and the
 * oldest one that the flow's rollback limit still reaches. A rule of whoever reads: no row is
 * changed. */
#include "journal/checkpoint.h"

#include <stdio.h>

#include "core/json.h"
#include "journal/slot.h"

#define ROLLBACK_MOST 100  /* where the runtime part says nothing */
#define ROWS_MAX      4096 /* looked at for one name */

bool tm__checkpoint_name_valid(tm_slice name) {
  bool ok = name.len > 0 && name.len < TM_CHECKPOINT_NAME;
  for (size_t i = 0; ok && i < name.len; i++) {
    char c = name.ptr[i];
    bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
    ok = letter || (i > 0 && c >= '0' && c <= '9');
  }
  return ok;
}

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

static tm_listing judge(tm_checkpoints *c, const tm_row *row) {
  bool few = c->most == 0 || c->seen < c->most;
  c->seen++;
  if (few && row->created >= c->since) return TM_LISTED;
  c->over = true;
  bool needed = c->allowed > 0 && c->passed <= c->allowed;
  return needed ? TM_LISTED_IF_LAST : TM_NOT_LISTED;
}

tm_listing tm__checkpoints_next(tm_checkpoints *c, const tm_row *row, const tm_row_fields *f) {
  if (c->allowed < 0 && f->runtime.ptr != NULL) { /* as the newest row has them */
    c->allowed = (int)tm__json_get_int(f->runtime, "rollback", ROLLBACK_MOST);
    c->most = tm__json_get_int(f->runtime, "checkpoints", c->most);
  }
  bool marked = row->checkpoint && tm__ends_waiting(row, f);
  tm_listing listing = marked ? judge(c, row) : TM_NOT_LISTED;
  if (tm__is_new_prompt(row, f)) c->passed++;
  return listing;
}

bool tm__checkpoints_done(const tm_checkpoints *c) {
  return c->over && c->passed > c->allowed;
}

/* ---- by name ---- */

typedef struct search {
  tm_checkpoints listed;
  tm_slice name;
  int64_t revision;
  int rows;
  bool found; /* for sure */
} search;

/* Of those that are listed only if they are the last one the last one counts. */
static tm_status on_row(void *ud, const tm_row *row) {
  search *s = ud;
  tm_row_fields f;
  tm__row_fields(&f, row->body);
  tm_listing listing = tm__checkpoints_next(&s->listed, row, &f);
  bool named = tm__slice_eq(f.checkpoint, s->name);
  s->found = listing == TM_LISTED && named;
  if (s->found || listing == TM_LISTED_IF_LAST) s->revision = named ? row->revision : 0;
  bool enough = s->found || row->kind == TM_ROW_MIGRATE || tm__checkpoints_done(&s->listed);
  return enough || ++s->rows >= ROWS_MAX ? TM_ECANCELLED : TM_OK;
}

tm_status tm__checkpoint_named(int64_t *revision, const char *name, const tm_checkpoints *rules,
                               const tm_store_access *a, bool in_memory, const tm_head *head,
                               tm_error *err) {
  char quoted[TM_CHECKPOINT_NAME + 2];
  search s = {.listed = *rules};
  (void)snprintf(quoted, sizeof(quoted), "\"%s\"", name);
  s.name = tm__slice(quoted);
  tm_status status = tm__access_chain(a, in_memory, head, head->tip, true, on_row, &s, err);
  *revision = s.revision;
  return status == TM_ECANCELLED ? TM_OK : status;
}
