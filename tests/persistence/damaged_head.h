/* damaged_head.h - a conversation whose head in the store is damaged: it is given by its id alone,
 * asking for it says so, and nobody else waits for it. Include from one test file.
 */
#ifndef TM_TESTS_DAMAGED_HEAD_H
#define TM_TESTS_DAMAGED_HEAD_H

#include "fixture.h"

typedef struct seen_heads {
  size_t count;
  tm_head items[8];
} seen_heads;

static inline tm_status see_a_head(void *ud, const tm_head *head) {
  seen_heads *s = ud;
  assert_true(s->count < 8);
  s->items[s->count++] = *head;
  return TM_OK;
}

/* Due and over at a time of its own. */
static inline void begin_nth(fixture *fx, int n, bool timed) {
  tm_row row = row_of(fx, 0, "{}");
  tm_commit c = commit_of(fx, nth(n).text, 0, &row);
  if (timed) c.head.wake_at = c.head.ended = fx->now - 10 + n;
  assert_ok(fx, commit_one(fx, &c));
}

/* The `whole` conversations are there as they are, the first only by its id. */
static inline void assert_one_damaged(const seen_heads *s, int whole) {
  int damaged = 0, others = 0;
  for (size_t i = 0; i < s->count; i++) {
    bool first = strcmp(s->items[i].id, nth(1).text) == 0;
    assert_true(first == tm__head_is_damaged(&s->items[i]));
    if (!first) assert_string_equal(s->items[i].flow, "returns");
    damaged += first;
    others += !first;
  }
  assert_int_equal(damaged, 1);
  assert_int_equal(others, whole);
}

/* Whatever its revision was; another has one, and what is said of it. Its name is free then. */
static inline void damaged_head_goes(fixture *fx, const char *id) {
  const tm_store_backend *b = fx->backend;
  const tm_slice whole = tm__slice(nth(2).text);
  bool more = true;
  for (int revision = -1; revision <= 0; revision++)
    assert_int_equal(b->purge(fx->writer, whole, revision, true, &fx->err), TM_ECONFLICT);
  assert_ok(fx, b->purge(fx->writer, tm__slice(id), 0, true, &fx->err));
  for (int i = 0; more; i++) {
    assert_true(i < 1000);
    assert_ok(fx, b->sweep(fx->writer, 100, &more, &fx->err));
  }
  begin_nth(fx, 1, true);
  assert_int_equal(head_of(fx, id).revision, 1);
}

/* `damage` changes the head of conversation 1, the earliest of three that are due and over, of
 * which it gets the id. */
static inline void damaged_head(fixture *fx, void (*damage)(void *ud, const char *id), void *ud) {
  const tm_store_backend *b = fx->backend;
  const char *id = nth(1).text;
  tm_list_filter all = {.status = -1, .limit = 8};
  seen_heads s = {0};
  tm_head head;
  int64_t next;
  for (int n = 1; n <= 4; n++)
    begin_nth(fx, n, n < 4);
  damage(ud, id);
  assert_int_equal(b->head(fx->reader, tm__slice(id), &head, &fx->err), TM_ECORRUPT);
  assert_string_equal(fx->err.code, "journal.damaged");
  assert_non_null(strstr(fx->err.message, id));
  assert_ok(fx, b->list(fx->reader, &all, see_a_head, &s, &fx->err));
  assert_one_damaged(&s, 3);
  (void)tm__copy(all.before, sizeof(all.before), tm__slice(id)); /* behind it */
  s.count = 0;
  assert_ok(fx, b->list(fx->reader, &all, see_a_head, &s, &fx->err));
  assert_int_equal(s.count, 0);
  /* It takes no place of those that can be worked on. */
  for (size_t limit = 1; limit <= 2; limit++) {
    s.count = 0;
    assert_ok(fx, b->due(fx->writer, fx->now, 0, limit, see_a_head, &s, &fx->err));
    assert_one_damaged(&s, (int)limit);
    s.count = 0;
    assert_ok(fx, b->ended(fx->reader, fx->now, limit, see_a_head, &s, &fx->err));
    assert_one_damaged(&s, (int)limit);
  }
  s.count = 0;
  assert_ok(fx, b->due(fx->writer, fx->now, 1000, 8, see_a_head, &s, &fx->err));
  assert_one_damaged(&s, 2);
  assert_ok(fx, b->next_due(fx->reader, &next, &fx->err));
  turn(fx, nth(4).text, 1, head_of(fx, nth(4).text).tip, "{}");
  damaged_head_goes(fx, id);
}

#endif
