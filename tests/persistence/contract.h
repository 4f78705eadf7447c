/* contract.h - what the programs share that hold every backend to store.h: what a walk gave, and
 * running each case over all of backends.def. */
#ifndef TM_TESTS_PERSISTENCE_CONTRACT_H
#define TM_TESTS_PERSISTENCE_CONTRACT_H

#include "fixture.h"

typedef struct seen { /* what a walk gave */
  char ids[64][TM_ID_SIZE];
  int64_t rows[64];
  size_t count, stop_at; /* stop_at 0: never */
  char body[256];        /* of the newest row */
} seen;

static inline tm_status see_head(void *ud, const tm_head *head) {
  seen *s = ud;
  assert_true(s->count < 64);
  memcpy(s->ids[s->count++], head->id, TM_ID_SIZE);
  return s->count == s->stop_at ? TM_ECANCELLED : TM_OK;
}

static inline tm_status see_row(void *ud, const tm_row *row) {
  seen *s = ud;
  assert_true(s->count < 64);
  if (s->count == 0) (void)tm__copy(s->body, sizeof(s->body), row->body);
  s->rows[s->count++] = row->id;
  return s->count == s->stop_at ? TM_ECANCELLED : TM_OK;
}

static inline tm_list_filter filter_of(unsigned mask, const char *before, size_t limit) {
  tm_list_filter f = {.tenant = TM_S("default"), .status = -1, .limit = limit};
  if (mask & 1) f.session = TM_S("s1");
  if (mask & 2) f.system = TM_S("shop");
  if (mask & 4) f.flow = TM_S("returns");
  if (mask & 8) f.status = TM_COMPLETED;
  set_text(f.before, sizeof(f.before), before);
  return f;
}

static inline int set_up(void **state) {
  fixture *fx = malloc(sizeof(*fx));
  if (fx == NULL) return -1;
  const tm_store_backend *backend = *state;
  fixture_make(fx, backend);
  fixture_open(fx);
  *state = fx;
  return 0;
}

static inline int tear_down(void **state) {
  fixture_remove(*state);
  free(*state);
  return 0;
}

#define CASE(f)                                                                                    \
  { #f, f, set_up, tear_down, NULL }

#define MAX_CASES 64

static inline int run_for(const tm_store_backend *backend, const struct CMUnitTest *cases,
                          size_t count) {
  struct CMUnitTest mine[MAX_CASES];
  assert_true(count <= MAX_CASES);
  for (size_t i = 0; i < count; i++) {
    mine[i] = cases[i];
    mine[i].initial_state = (void *)(uintptr_t)backend;
  }
  return _cmocka_run_group_tests(backend->scheme, mine, count, NULL, NULL);
}

#endif
