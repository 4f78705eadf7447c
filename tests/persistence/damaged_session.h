/* damaged_session.h - a session whose record in the store is damaged: asking for it names it, lists
 * give it as damaged, and nobody else waits for it. Include from one test file.
 */
#ifndef TM_TESTS_DAMAGED_SESSION_H
#define TM_TESTS_DAMAGED_SESSION_H

#include "fixture.h"

typedef struct seen_sessions {
  size_t count;
  struct {
    char tenant[65], id[129];
    int64_t created;
    bool damaged, has_user;
  } items[8];
} seen_sessions;

static inline tm_status see_a_session(void *ud, const tm_session *s) {
  seen_sessions *seen = ud;
  assert_true(seen->count < 8);
  size_t at = seen->count++;
  assert_true(tm__copy(seen->items[at].tenant, sizeof(seen->items[at].tenant), s->tenant));
  assert_true(tm__copy(seen->items[at].id, sizeof(seen->items[at].id), s->id));
  seen->items[at].created = s->created;
  seen->items[at].damaged = s->damaged;
  seen->items[at].has_user = s->user_id.ptr != NULL;
  return TM_OK;
}

/* The sessions s1 to s4, the first three due one after the other. */
static inline void put_sessions(fixture *fx) {
  for (int n = 1; n <= 4; n++) {
    char id[16];
    (void)snprintf(id, sizeof(id), "s%d", n);
    const tm_session s = {.tenant = TM_S("default"),
                          .id = tm__slice(id),
                          .user_id = TM_S("ann"),
                          .created = fx->now - n,
                          .look_at = n < 4 ? fx->now - 10 + n : 0};
    assert_ok(fx, fx->backend->session_put(fx->writer, NULL, &s, &fx->err));
  }
}

/* Of those that are seen the first is damaged (or, `whole` only, not there), the rest as they are.
 */
static inline void assert_first_damaged(const seen_sessions *s, size_t count) {
  size_t damaged = 0;
  assert_int_equal(s->count, count);
  for (size_t i = 0; i < count; i++) {
    bool first = strcmp(s->items[i].id, "s1") == 0;
    assert_string_equal(s->items[i].tenant, "default");
    assert_true(s->items[i].damaged == first && s->items[i].has_user == !first);
    damaged += first;
  }
  assert_int_equal(damaged, 1);
}

/* All of them, `limit` at a time; of all tenants where `tenant` is NULL. */
static inline seen_sessions list_sessions(fixture *fx, const char *tenant, size_t limit) {
  seen_sessions all = {.count = 0};
  size_t before;
  do {
    tm_session_filter f = {.tenant = tenant != NULL ? tm__slice(tenant) : (tm_slice){NULL, 0},
                           .ended = -1,
                           .limit = limit};
    before = all.count;
    if (before > 0) {
      f.before_created = all.items[before - 1].created;
      f.before_id = tm__slice(all.items[before - 1].id);
      f.before_tenant = tm__slice(all.items[before - 1].tenant);
    }
    assert_ok(fx, fx->backend->sessions(fx->reader, &f, see_a_session, &all, &fx->err));
  } while (all.count > before);
  return all;
}

static inline seen_sessions due_sessions(fixture *fx, size_t limit) {
  seen_sessions s = {.count = 0};
  assert_ok(fx, fx->backend->sessions_due(fx->reader, fx->now, limit, see_a_session, &s, &fx->err));
  return s;
}

/* A conversation of the damaged one, and one of another session, in the same group. */
static inline tm_status start_in_both(fixture *fx) {
  const tm_session session = {.created = fx->now};
  tm_commit in_it = commit_of(fx, nth(1).text, 0, NULL),
            other = commit_of(fx, nth(2).text, 0, NULL);
  tm_commit *items[] = {&in_it, &other};
  in_it.session = other.session = &session;
  in_it.sessions_max = other.sessions_max = 100;
  set_text(other.head.session, sizeof(other.head.session), "s9");
  assert_ok(fx, fx->backend->commit(fx->writer, items, 2, &fx->err));
  assert_ok(fx, other.status);
  return in_it.status;
}

static inline tm_status count_unreadable(void *ud, const tm_error *why) {
  assert_int_equal(why->status, TM_ECORRUPT);
  assert_non_null(strstr(why->message, "s1"));
  ++*(int *)ud;
  return TM_OK;
}

static inline int unreadable_sessions(fixture *fx) {
  int count = 0;
  assert_ok(fx, fx->backend->unreadable(fx->reader, count_unreadable, &count, &fx->err));
  return count;
}

/* `damage` changes the record of s1 of the tenant default; `lists`: the one of the tenant gives it
 * as well; `starts`: conversations can begin in it. */
static inline void damaged_session(fixture *fx, void (*damage)(void *ud), void *ud, bool lists,
                                   bool starts) {
  const tm_store_backend *b = fx->backend;
  seen_sessions s = {.count = 0};
  put_sessions(fx);
  damage(ud);
  assert_int_equal(b->session(fx->reader, TM_S("default"), TM_S("s1"), see_a_session, &s, &fx->err),
                   TM_ECORRUPT);
  assert_string_equal(fx->err.code, "session.damaged");
  assert_non_null(strstr(fx->err.message, "s1 of tenant default"));
  for (size_t limit = 1; limit <= 5; limit++) {
    s = list_sessions(fx, NULL, limit);
    assert_first_damaged(&s, 4);
    s = list_sessions(fx, "default", limit);
    if (lists)
      assert_first_damaged(&s, 4);
    else
      assert_int_equal(s.count, 3);
  }
  for (size_t limit = 1; limit <= 2; limit++) { /* it takes no place of those that are whole */
    s = due_sessions(fx, limit);
    assert_first_damaged(&s, limit + 1);
  }
  assert_int_equal(unreadable_sessions(fx), 0);
  assert_int_equal(start_in_both(fx), starts ? TM_OK : TM_ECORRUPT);
}

/* `damage` leaves s1 without a name. */
static inline void nameless_session(fixture *fx, void (*damage)(void *ud), void *ud) {
  put_sessions(fx);
  damage(ud);
  for (size_t limit = 1; limit <= 4; limit++) {
    assert_int_equal(list_sessions(fx, NULL, limit).count, 3);
    assert_int_equal(list_sessions(fx, "default", limit).count, 3);
  }
  seen_sessions s = due_sessions(fx, 1);
  assert_int_equal(s.count, 1);
  assert_string_equal(s.items[0].id, "s2");
  assert_int_equal(unreadable_sessions(fx), 1);
}

#endif
