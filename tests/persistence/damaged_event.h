/* damaged_event.h - an event whose record in the store is damaged: it is given by its key alone and
 * can be set aside, and nobody else waits for it. Include from one test file.
 */
#ifndef TM_TESTS_DAMAGED_EVENT_H
#define TM_TESTS_DAMAGED_EVENT_H

#include "fixture.h"

typedef struct taken_events {
  size_t count;
  tm_outgoing items[4];
  char bodies[4][16];
} taken_events;

static inline tm_status see_taken_event(void *ud, const tm_outgoing *event) {
  taken_events *t = ud;
  assert_true(t->count < 4);
  t->items[t->count] = *event;
  (void)tm__copy(t->bodies[t->count++], sizeof(t->bodies[0]), event->body);
  return TM_OK;
}

static inline taken_events take_events(fixture *fx) {
  taken_events t = {.count = 0};
  assert_ok(fx, fx->backend->outbox_take(fx->writer, fx->now, fx->now + 1000, 4, see_taken_event,
                                         &t, &fx->err));
  return t;
}

static inline void emit_two(fixture *fx, int n) {
  tm_row row = row_of(fx, 0, "{}");
  const tm_outgoing events[2] = {{.created = fx->now, .body = TM_S("first")},
                                 {.created = fx->now, .body = TM_S("second")}};
  tm_commit c = commit_of(fx, nth(n).text, 0, &row);
  c.events = events;
  c.event_count = 2;
  assert_ok(fx, commit_one(fx, &c));
}

/* `damage` changes the record of the first event of conversation 1, of which it gets the id. */
static inline void damaged_event(fixture *fx, void (*damage)(void *ud, const char *id), void *ud) {
  for (int n = 1; n <= 2; n++)
    emit_two(fx, n);
  damage(ud, nth(1).text);
  taken_events t = take_events(fx);
  assert_int_equal(t.count, 2);
  int bad = strcmp(t.items[0].conversation, nth(1).text) == 0 ? 0 : 1;
  tm_outgoing *e = &t.items[bad];
  assert_string_equal(e->conversation, nth(1).text);
  assert_true(e->revision == 1 && e->index == 0 && e->attempts == 1);
  assert_string_equal(e->tenant, "");
  assert_string_equal(t.items[!bad].conversation, nth(2).text);
  assert_string_equal(t.bodies[!bad], "first");
  (void)tm__copy(e->note, sizeof(e->note), TM_S("damaged"));
  assert_ok(fx, fx->backend->outbox_settle(fx->writer, e, TM_OUTCOME_DEAD, fx->now, &fx->err));
  t = take_events(fx); /* the one behind it */
  assert_int_equal(t.count, 1);
  assert_string_equal(t.items[0].conversation, nth(1).text);
  assert_string_equal(t.bodies[0], "second");
  tm_outgoing_filter dead = {.dead = 1, .limit = 9};
  t = (taken_events){.count = 0};
  assert_ok(fx, fx->backend->outbox_list(fx->reader, &dead, see_taken_event, &t, &fx->err));
  assert_int_equal(t.count, 1);
  assert_string_equal(t.items[0].tenant, "");
  assert_string_equal(t.items[0].note, "damaged");
}

#endif
