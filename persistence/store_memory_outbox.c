/* store_memory_outbox.c - events to be delivered, of the store in memory. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "persistence/store_memory.h"

/* ---- records; under the lock ---- */

static void name_of(tm_event_name *out, const char *conversation, int64_t revision, int index) {
  size_t id = strlen(conversation);
  memcpy(out->text, conversation, id + 1);
  (void)snprintf(out->text + id + 1, sizeof(out->text) - id - 1, "%016llx%08x",
                 (unsigned long long)revision, (unsigned)index);
  out->len = id + 1 + 16 + 8;
}

tm_event_record *tm__memory_event_new(const tm_outgoing *event) {
  tm_event_record *r = malloc(sizeof(*r) + event->body.len);
  if (r == NULL) return NULL;
  r->event = *event;
  r->event.due_at = 0;
  if (event->body.len > 0) memcpy(r->bytes, event->body.ptr, event->body.len);
  r->event.body.ptr = r->bytes;
  name_of(&r->name, event->conversation, event->revision, event->index);
  r->by_name.number = 0;
  r->by_name.text = (tm_slice){r->name.text, r->name.len};
  r->by_due.text = tm__slice(r->event.conversation);
  return r;
}

static size_t size_of(const tm_event_record *r) {
  return sizeof(*r) + r->event.body.len;
}

void tm__memory_event_add(tm_store *s, tm_event_record *r) {
  s->bytes += size_of(r);
  tm__order_insert(&s->events, &r->by_name);
}

static void set_due(tm_store *s, tm_event_record *r, int64_t due_at) {
  if (r->event.due_at > 0) tm__order_remove(&s->events_due, &r->by_due);
  r->event.due_at = r->by_due.number = due_at;
  if (due_at > 0) tm__order_insert(&s->events_due, &r->by_due);
}

/* Out of all sets; freed when nobody walks. */
static void drop(tm_store *s, tm_event_record *r) {
  set_due(s, r, 0);
  s->bytes -= size_of(r);
  tm__order_remove(&s->events, &r->by_name);
  r->leftover.next = s->leftovers;
  s->leftovers = &r->leftover;
}

static tm_event_record *find(const tm_store *s, const tm_outgoing *event) {
  tm_event_name name;
  name_of(&name, event->conversation, event->revision, event->index);
  tm_order_node *n = tm__order_find(&s->events, 0, (tm_slice){name.text, name.len});
  return n != NULL ? TM_RECORD(tm_event_record, by_name, n) : NULL;
}

/* The conversation's event behind `after`, or its first one. */
static tm_event_record *next_of(const tm_store *s, tm_slice conversation,
                                const tm_event_record *after) {
  tm_event_name name;
  char id[TM_ID_SIZE];
  if (!tm__copy(id, sizeof(id), conversation)) return NULL;
  name_of(&name, id, 0, 0);
  tm_slice from = {name.text, name.len};
  tm_order_node *n = tm__order_above(&s->events, 0, after != NULL ? after->by_name.text : from);
  tm_event_record *r = n != NULL ? TM_RECORD(tm_event_record, by_name, n) : NULL;
  return r != NULL && tm__slice_is(conversation, r->event.conversation) ? r : NULL;
}

void tm__memory_events_arm(tm_store *s, tm_slice conversation, int64_t at) {
  tm_event_record *oldest = NULL;
  for (tm_event_record *r = next_of(s, conversation, NULL); r != NULL;
       r = next_of(s, conversation, r)) {
    if (r->event.due_at > 0) return;
    if (oldest == NULL && r->event.dead_at == 0) oldest = r;
  }
  if (oldest != NULL) set_due(s, oldest, at > 0 ? at : 1);
}

bool tm__memory_events_wait(const tm_store *s, tm_slice conversation) {
  const tm_event_record *r = next_of(s, conversation, NULL);
  while (r != NULL && r->event.dead_at != 0)
    r = next_of(s, conversation, r);
  return r != NULL;
}

void tm__memory_events_purge(tm_store *s, tm_slice conversation) {
  tm_event_record *r;
  while ((r = next_of(s, conversation, NULL)) != NULL)
    drop(s, r);
}

/* ---- taking ---- */

static bool take_one(tm_store *s, int64_t now, int64_t until, tm_outgoing *out) {
  tm__memory_lock(s);
  tm_order_node *n = tm__order_above(&s->events_due, 0, TM_S(""));
  bool found = n != NULL && n->number <= now;
  if (found) {
    tm_event_record *r = TM_RECORD(tm_event_record, by_due, n);
    r->event.attempts++;
    set_due(s, r, until);
    *out = r->event;
  }
  tm__memory_unlock(s);
  return found;
}

tm_status tm__memory_outbox_take(tm_store_conn *c, int64_t now, int64_t until, size_t limit,
                                 tm_outgoing_fn fn, void *ud, tm_error *err) {
  (void)err;
  tm_outgoing event;
  tm_status status = TM_OK;
  tm__memory_begin_walk(c->store);
  for (size_t i = 0; status == TM_OK && i < limit && take_one(c->store, now, until, &event); i++)
    status = fn(ud, &event);
  tm__memory_end_walk(c->store);
  return status;
}

tm_status tm__memory_outbox_next(tm_store_conn *c, int64_t *out, tm_error *err) {
  (void)err;
  tm__memory_lock(c->store);
  const tm_order_node *n = tm__order_above(&c->store->events_due, 0, TM_S(""));
  *out = n != NULL ? n->number : 0;
  tm__memory_unlock(c->store);
  return TM_OK;
}

/* ---- settling ---- */

static void settle(tm_store *s, tm_event_record *r, const tm_outgoing *event, tm_outcome outcome,
                   int64_t at) {
  tm_outgoing *e = &r->event;
  char id[TM_ID_SIZE];
  memcpy(id, e->conversation, sizeof(id));
  memcpy(e->note, event->note, sizeof(e->note));
  if (outcome == TM_OUTCOME_AGAIN) e->attempts = 0;
  e->dead_at = outcome == TM_OUTCOME_DEAD ? at : 0;
  set_due(s, r, 0);
  if (outcome == TM_OUTCOME_LATER) set_due(s, r, at);
  if (outcome == TM_OUTCOME_DELIVERED) drop(s, r);
  tm__memory_events_arm(s, tm__slice(id), at);
  tm__memory_events_changed(s, tm__slice(id));
}

static bool may_settle(const tm_outgoing *have, const tm_outgoing *event, tm_outcome outcome) {
  bool dead = have->dead_at != 0;
  if (outcome == TM_OUTCOME_DELIVERED)
    return have->attempts == event->attempts && have->dead_at == event->dead_at;
  return have->attempts == event->attempts && dead == (outcome == TM_OUTCOME_AGAIN);
}

tm_status tm__memory_outbox_settle(tm_store_conn *c, const tm_outgoing *event, tm_outcome outcome,
                                   int64_t at, tm_error *err) {
  tm__memory_lock(c->store);
  tm_event_record *r = find(c->store, event);
  bool may = r != NULL && may_settle(&r->event, event, outcome);
  if (may) settle(c->store, r, event, outcome, at);
  tm__memory_tidy(c->store, 0);
  tm__memory_unlock(c->store);
  return may ? TM_OK : tm__outgoing_conflict(event, err);
}

/* ---- lists ---- */

static bool matches(const tm_outgoing *e, const tm_outgoing_filter *f) {
  return (f->tenant.ptr == NULL || tm__slice_is(f->tenant, e->tenant)) &&
         (f->dead < 0 || (e->dead_at != 0) == (f->dead != 0));
}

/* The newest below `name` that matches, lent; false at the end. */
static bool next_match(tm_store *s, const tm_outgoing_filter *f, tm_event_name *name, bool first,
                       tm_outgoing *out) {
  tm__memory_lock(s);
  tm_order_node *n = first ? tm__order_below(&s->events, 1, TM_S(""))
                           : tm__order_below(&s->events, 0, (tm_slice){name->text, name->len});
  while (n != NULL && !matches(&TM_RECORD(tm_event_record, by_name, n)->event, f))
    n = tm__order_below(&s->events, 0, n->text);
  if (n != NULL) {
    const tm_event_record *r = TM_RECORD(tm_event_record, by_name, n);
    *out = r->event;
    *name = r->name;
  }
  tm__memory_unlock(s);
  return n != NULL;
}

tm_status tm__memory_outbox_list(tm_store_conn *c, const tm_outgoing_filter *f, tm_outgoing_fn fn,
                                 void *ud, tm_error *err) {
  (void)err;
  tm_outgoing event;
  tm_event_name name = {.len = 0};
  tm_status status = TM_OK;
  bool first = f->before[0] == '\0';
  if (!first) name_of(&name, f->before, f->before_revision, f->before_index);
  tm__memory_begin_walk(c->store);
  for (size_t i = 0; status == TM_OK && i < f->limit; i++, first = false) {
    if (!next_match(c->store, f, &name, first, &event)) break;
    status = fn(ud, &event);
  }
  tm__memory_end_walk(c->store);
  return status;
}

/* ---- copying, other bodies ---- */

/* It comes before one that is due already. */
static void disarm_behind(tm_store *s, const tm_event_record *r) {
  tm_slice conversation = tm__slice(r->event.conversation);
  tm_event_record *next = next_of(s, conversation, r);
  for (; next != NULL; next = next_of(s, conversation, next))
    set_due(s, next, 0);
}

tm_status tm__memory_outbox_put(tm_store_conn *c, const tm_outgoing *event, tm_error *err) {
  tm_store *s = c->store;
  if (tm__outgoing_check(event, s->record_bytes_max, err) != TM_OK) return TM_ETOOLARGE;
  tm_event_record *r = tm__memory_event_new(event);
  if (r == NULL) return tm__fail_memory(err, "an event");
  tm__memory_lock(s);
  const tm_head_record *h = tm__memory_find_head(s, tm__slice(event->conversation));
  bool known = h != NULL && h->head.revision >= event->revision;
  tm_event_record *old = known ? find(s, event) : NULL;
  if (old != NULL) drop(s, old);
  if (known) tm__memory_event_add(s, r);
  if (known && event->dead_at == 0) disarm_behind(s, r);
  if (known)
    tm__memory_events_arm(s, tm__slice(event->conversation),
                          event->due_at > 0 ? event->due_at : event->created);
  tm__memory_events_changed(s, tm__slice(event->conversation));
  tm__memory_tidy(s, 0);
  tm__memory_unlock(s);
  if (known) return TM_OK;
  free(r);
  return tm__outgoing_conflict(event, err);
}

tm_status tm__memory_outbox_rewrite(tm_store_conn *c, const tm_outgoing *event, tm_error *err) {
  tm_store *s = c->store;
  if (tm__outgoing_check(event, s->record_bytes_max, err) != TM_OK) return TM_ETOOLARGE;
  tm_event_record *r = tm__memory_event_new(event);
  if (r == NULL) return tm__fail_memory(err, "an event");
  tm__memory_lock(s);
  tm_event_record *old = find(s, event);
  if (old != NULL) {
    tm_outgoing was = old->event;
    drop(s, old);
    r->event = was;
    r->event.due_at = 0;
    r->event.flags = event->flags;
    r->event.body = (tm_slice){r->bytes, event->body.len};
    tm__memory_event_add(s, r);
    set_due(s, r, was.due_at);
  }
  tm__memory_tidy(s, 0);
  tm__memory_unlock(s);
  if (old == NULL) free(r);
  return TM_OK;
}
