/* damaged_names.h - what has no name any more, of events, tenants and what was purged: it is in no
 * list, told by unreadable(), and nobody else waits for it. Include from one test file.
 */
#ifndef TM_TESTS_DAMAGED_NAMES_H
#define TM_TESTS_DAMAGED_NAMES_H

#include "damaged_event.h"

static inline tm_status count_nameless(void *ud, const tm_error *why) {
  assert_int_equal(why->status, TM_ECORRUPT);
  assert_string_equal(why->code, "store.damaged");
  assert_true(strlen(why->message) > 0);
  ++*(int *)ud;
  return TM_OK;
}

static inline int nameless(fixture *fx) {
  int count = 0;
  assert_ok(fx, fx->backend->unreadable(fx->reader, count_nameless, &count, &fx->err));
  return count;
}

/* `damage` takes the key of the first event of conversation 1, of which it gets the id. */
static inline void nameless_event(fixture *fx, void (*damage)(void *ud, const char *id), void *ud) {
  const tm_store_backend *b = fx->backend;
  int64_t next = 0;
  for (int n = 1; n <= 2; n++) {
    emit_two(fx, n);
    fx->now++;
  }
  damage(ud, nth(1).text);
  for (size_t limit = 1; limit <= 4; limit++) {
    tm_outgoing_filter f = {.dead = -1, .limit = limit};
    taken_events all = {.count = 0};
    size_t before;
    do {
      before = all.count;
      assert_ok(fx, b->outbox_list(fx->reader, &f, see_taken_event, &all, &fx->err));
      if (all.count == 0) break;
      memcpy(f.before, all.items[all.count - 1].conversation, sizeof(f.before));
      f.before_revision = all.items[all.count - 1].revision;
      f.before_index = all.items[all.count - 1].index;
    } while (all.count > before);
    assert_int_equal(all.count, 3);
    assert_string_equal(all.items[2].conversation, nth(1).text);
    assert_string_equal(all.bodies[2], "second");
  }
  assert_ok(fx, b->outbox_next(fx->writer, &next, &fx->err));
  assert_int_equal(next, fx->now - 1); /* of the other conversation */
  taken_events t = {.count = 0};
  assert_ok(fx,
            b->outbox_take(fx->writer, fx->now, fx->now + 1000, 1, see_taken_event, &t, &fx->err));
  assert_int_equal(t.count, 1);
  assert_string_equal(t.items[0].conversation, nth(2).text);
  assert_ok(fx, b->outbox_next(fx->writer, &next, &fx->err));
  assert_int_equal(next, fx->now + 1000);
  assert_int_equal(take_events(fx).count, 0);
  assert_int_equal(nameless(fx), 1);
  tm_row row = row_of(fx, head_of(fx, nth(1).text).tip, "{}"); /* the one behind it is next */
  const tm_outgoing event = {.created = fx->now, .body = TM_S("third")};
  tm_commit c = commit_of(fx, nth(1).text, 1, &row);
  c.events = &event;
  c.event_count = 1;
  assert_ok(fx, commit_one(fx, &c));
  t = take_events(fx);
  assert_int_equal(t.count, 1);
  assert_string_equal(t.bodies[0], "second");
}

static inline tm_status see_tenant_name(void *ud, tm_slice tenant, int64_t wake_at) {
  tm_buf *names = ud;
  (void)wake_at;
  tm__buf_slice(names, tenant);
  tm__buf_byte(names, ',');
  return TM_OK;
}

/* `damage` takes the name of the tenant acme, the first of three. */
static inline void nameless_tenant(fixture *fx, void (*damage)(void *ud), void *ud) {
  const tm_store_backend *b = fx->backend;
  static const char *const tenants[] = {"acme", "beta", "gamma"};
  for (int i = 0; i < 3; i++)
    assert_ok(fx, b->tenant_wake(fx->writer, tm__slice(tenants[i]), -1, 10 + i, &fx->err));
  damage(ud);
  for (size_t limit = 1; limit <= 3; limit++) {
    tm_buf names = {0}, due = {0};
    assert_ok(fx, b->tenants(fx->reader, TM_S(""), limit, see_tenant_name, &names, &fx->err));
    assert_string_equal(names.ptr, limit == 1 ? "beta," : "beta,gamma,");
    assert_ok(fx, b->tenants_due(fx->reader, 100, limit, see_tenant_name, &due, &fx->err));
    assert_string_equal(due.ptr, names.ptr);
    tm__buf_free(&names);
    tm__buf_free(&due);
  }
  assert_int_equal(nameless(fx), 1);
}

static inline void find_mark(void *ud, tm_finding level, const char *text) {
  *(int *)ud += level == TM_FINDING_ERROR && strstr(text, "mark of a purged") != NULL;
}

/* `damage` takes the name from the mark of conversation 1, which was purged as 2 was. */
static inline void nameless_mark(fixture *fx, void (*damage)(void *ud, const char *id), void *ud) {
  const tm_store_backend *b = fx->backend;
  bool more = true;
  int found = 0;
  for (int n = 1; n <= 2; n++)
    (void)turn(fx, nth(n).text, 0, 0, "{}");
  for (int n = 1; n <= 2; n++)
    assert_ok(fx, b->purge(fx->writer, tm__slice(nth(n).text), 1, true, &fx->err));
  damage(ud, nth(1).text);
  for (int i = 0; more; i++) {
    assert_true(i < 100);
    assert_ok(fx, b->sweep(fx->writer, 10, &more, &fx->err));
  }
  assert_int_equal(nameless(fx), 0); /* nothing is lost with it */
  assert_ok(fx, b->inspect(fx->reader, true, find_mark, &found, &fx->err));
  assert_int_equal(found, 1);
}

#endif
