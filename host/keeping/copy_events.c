/* copy_events.c - events with their rows, and what became of them since. */
#include "keeping/copy_events.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "keeping/copy_lane.h"
#include "keeping/copy_rest.h"

#define PAGE 128

/* ---- those of a row ---- */

static tm_outgoing_filter from_row_on(const char *conversation, int64_t revision, size_t limit) {
  tm_outgoing_filter f = {
      .before_revision = revision, .before_index = INT_MAX, .dead = -1, .limit = limit};
  (void)tm__copy(f.before, sizeof(f.before), tm__slice(conversation));
  return f;
}

static tm_status on_newest(void *ud, const tm_outgoing *event) {
  *(tm_outgoing *)ud = *event;
  return TM_OK;
}

tm_status tm__copy_newest_event(const tm_copy *c, const char *conversation, int64_t *out,
                                tm_error *err) {
  tm_outgoing newest = {.revision = 0};
  tm_outgoing_filter f = from_row_on(conversation, INT64_MAX, 1);
  tm_status status = c->from.backend->outbox_list(c->from.conn, &f, on_newest, &newest, err);
  *out = strcmp(newest.conversation, conversation) == 0 ? newest.revision : 0;
  return status;
}

typedef struct reading {
  tm_copy_told *told;
  const char *conversation;
  int64_t revision;
  bool no_memory;
} reading;

static bool has_room(tm_copy_told *t) {
  if (t->count < t->room) return true;
  size_t room = t->room == 0 ? 8 : t->room * 2;
  tm_outgoing *more = realloc(t->items, room * sizeof(*more));
  if (more == NULL) return false;
  t->items = more;
  t->room = room;
  return true;
}

static tm_status on_told(void *ud, const tm_outgoing *event) {
  reading *r = ud;
  tm_copy_told *t = r->told;
  if (event->revision != r->revision || strcmp(event->conversation, r->conversation) != 0)
    return TM_ECANCELLED;
  if (event->dead_at != 0 || event->tenant[0] == '\0') return TM_OK;
  r->no_memory = !has_room(t);
  if (r->no_memory) return TM_ENOMEM;
  t->items[t->count++] = *event;
  tm__buf_slice(&t->bodies, event->body);
  return TM_OK;
}

/* They came newest first; their bodies lie one behind the other. */
static void put_in_order(tm_copy_told *t) {
  const char *at = t->bodies.ptr != NULL ? t->bodies.ptr : "";
  for (size_t i = 0; i < t->count; i++) {
    t->items[i].body.ptr = at;
    at += t->items[i].body.len;
  }
  for (size_t i = 0; i < t->count / 2; i++) {
    tm_outgoing other = t->items[i];
    t->items[i] = t->items[t->count - 1 - i];
    t->items[t->count - 1 - i] = other;
  }
}

tm_status tm__copy_told_read(tm_copy_told *t, const tm_copy *c, const char *conversation,
                             int64_t revision, tm_error *err) {
  reading r = {.told = t, .conversation = conversation, .revision = revision};
  tm_outgoing_filter f = from_row_on(conversation, revision, 1000); /* a row has fewer */
  t->count = 0;
  tm__buf_clear(&t->bodies);
  tm_status status = c->from.backend->outbox_list(c->from.conn, &f, on_told, &r, err);
  if (r.no_memory || !tm__buf_ok(&t->bodies)) return tm__fail_memory(err, "events");
  put_in_order(t);
  return status == TM_ECANCELLED ? TM_OK : status;
}

void tm__copy_told_free(tm_copy_told *t) {
  free(t->items);
  tm__buf_free(&t->bodies);
  *t = (tm_copy_told){.count = 0};
}

/* ---- one of them on the other side ---- */

typedef struct one_event {
  const tm_outgoing *wanted;
  bool found;
  int attempts;
} one_event;

static tm_status on_one(void *ud, const tm_outgoing *event) {
  one_event *o = ud;
  const tm_outgoing *w = o->wanted;
  o->found = strcmp(event->conversation, w->conversation) == 0 && event->revision == w->revision &&
             event->index == w->index;
  o->attempts = event->attempts;
  return TM_OK;
}

static tm_status find(const tm_copy_side *side, one_event *o, tm_error *err) {
  const tm_outgoing *w = o->wanted;
  tm_outgoing_filter f = {.before_revision = w->revision,
                          .before_index = w->index + 1, /* from itself on */
                          .dead = -1,
                          .limit = 1};
  memcpy(f.before, w->conversation, sizeof(f.before));
  return side->backend->outbox_list(side->conn, &f, on_one, o, err);
}

/* ---- what became of them in the source ---- */

typedef struct event_page {
  tm_copy *copy;
  tm_outgoing_filter next; /* where the next page starts */
  size_t count;
  tm_status status;
  tm_error *err;
} event_page;

/* What the target tried more often is its own by now. */
static tm_status is_wanted(const tm_copy *c, const tm_outgoing *event, bool *out, tm_error *err) {
  one_event there = {.wanted = event};
  *out = true;
  if (c->mirror) return TM_OK;
  tm_status status = find(&c->to, &there, err);
  *out = there.found ? there.attempts <= event->attempts : event->dead_at != 0;
  return status;
}

/* Without its conversation, which could not be copied or was purged meanwhile, there is no event.
 */
static tm_status on_event(void *ud, const tm_outgoing *event) {
  event_page *p = ud;
  tm_copy *c = p->copy;
  bool wanted;
  memcpy(p->next.before, event->conversation, sizeof(p->next.before));
  p->next.before_revision = event->revision;
  p->next.before_index = event->index;
  p->count++;
  c->counts.events++;
  p->status = is_wanted(c, event, &wanted, p->err);
  if (p->status == TM_OK && wanted)
    p->status = c->to.backend->outbox_put(c->to.conn, event, p->err);
  if (p->status == TM_ECONFLICT) p->status = TM_OK;
  if (p->status != TM_OK && tm__copy_is_local(p->status)) {
    tm__copy_failed(c, event->conversation, p->err);
    p->status = TM_OK;
  }
  return p->status;
}

tm_status tm__copy_events(tm_copy *c, tm_error *err) {
  event_page p = {.copy = c, .next = {.dead = -1, .limit = PAGE}, .err = err};
  tm_status status = TM_OK;
  do {
    tm_error local = {.status = TM_OK};
    p.count = 0;
    p.status = TM_OK;
    status = tm__copy_pause(c, err);
    if (status != TM_OK) return status;
    tm_outgoing_filter f = p.next;
    status = c->from.backend->outbox_list(c->from.conn, &f, on_event, &p, &local);
    if (status != TM_OK && p.status == TM_OK) *err = local;
  } while (status == TM_OK && p.count > 0);
  return status;
}

/* ---- what the source has delivered ---- */

typedef struct tip {
  tm_head head;
  tm_row row;
} tip;

static tm_status on_tip(void *ud, const tm_row *row) {
  ((tip *)ud)->row = *row;
  return TM_ECANCELLED;
}

/* Of one that cannot be read nothing is known: revision 0. */
static tm_status read_tip(const tm_copy_side *side, const char *id, tip *out, tm_error *err) {
  *out = (tip){.head = {.revision = 0}};
  tm_status status = side->backend->head(side->conn, tm__slice(id), &out->head, err);
  if (status == TM_OK)
    status =
        side->backend->chain(side->conn, tm__slice(id), out->head.tip, false, on_tip, out, err);
  bool unknown = status == TM_ENOTFOUND || status == TM_ECORRUPT;
  if (unknown) out->head.revision = 0;
  return unknown || status == TM_ECANCELLED ? TM_OK : status;
}

/* Is the conversation the same on both sides? Then what the source has not was delivered there. */
static tm_status is_same(const tm_copy *c, const char *id, bool *out, tm_error *err) {
  tip here, there;
  tm_status status = read_tip(&c->from, id, &here, err);
  if (status == TM_OK) status = read_tip(&c->to, id, &there, err);
  if (status != TM_OK) return status;
  *out = here.head.revision > 0 && here.head.revision == there.head.revision &&
         here.row.revision == there.row.revision && here.row.created == there.row.created &&
         here.row.kind == there.row.kind;
  return TM_OK;
}

static tm_status remove_delivered(tm_copy *c, const tm_outgoing *event, tm_error *err) {
  one_event here = {.wanted = event};
  bool goes = c->mirror;
  tm_status status = find(&c->from, &here, err);
  if (status != TM_OK || here.found) return status;
  if (!goes) status = is_same(c, event->conversation, &goes, err);
  if (status != TM_OK || !goes) return status;
  status =
      c->to.backend->outbox_settle(c->to.conn, event, TM_OUTCOME_DELIVERED, event->created, err);
  c->counts.removed += status == TM_OK;
  return status == TM_ECONFLICT ? TM_OK : status;
}

typedef struct events_there {
  tm_outgoing items[PAGE];
  size_t count;
} events_there;

static tm_status on_event_there(void *ud, const tm_outgoing *event) {
  events_there *e = ud;
  if (e->count == PAGE) return TM_ECANCELLED;
  e->items[e->count] = *event;
  e->items[e->count++].body = (tm_slice){NULL, 0};
  return TM_OK;
}

tm_status tm__copy_delivered(tm_copy *c, tm_error *err) {
  tm_outgoing_filter f = {.dead = -1, .limit = PAGE};
  tm_status status = TM_OK;
  events_there *e = calloc(1, sizeof(*e));
  if (e == NULL) return tm__fail_memory(err, "events");
  do {
    e->count = 0;
    status = tm__copy_pause(c, err);
    if (status == TM_OK)
      status = c->to.backend->outbox_list(c->to.conn, &f, on_event_there, e, err);
    for (size_t i = 0; status == TM_OK && i < e->count; i++) {
      const tm_outgoing *event = &e->items[i];
      memcpy(f.before, event->conversation, sizeof(f.before));
      f.before_revision = event->revision;
      f.before_index = event->index;
      status = remove_delivered(c, event, err);
    }
  } while (status == TM_OK && e->count > 0);
  free(e);
  return status;
}
