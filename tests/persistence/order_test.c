/* An ordered set against a sorted array, with insertions and removals in no order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "persistence/order.h"

enum { COUNT = 500 };

typedef struct pair {
  tm_order_node node;
  char text[16];
} pair;

/* Number n % 7 with text n: many texts per number. */
static void make(pair *p, int n) {
  *p = (pair){.node.number = n % 7 - 3};
  (void)snprintf(p->text, sizeof(p->text), "%04d", n);
  p->node.text = tm__slice(p->text);
}

static bool is_less(const pair *a, const pair *b) {
  if (a->node.number != b->node.number) return a->node.number < b->node.number;
  return strcmp(a->text, b->text) < 0;
}

/* What the set should answer, found the slow way. */
static const tm_order_node *nearest(const pair *all, const bool *in, const pair *of, bool above) {
  const pair *best = NULL;
  for (int i = 0; i < COUNT; i++) {
    if (!in[i] || !(above ? is_less(of, &all[i]) : is_less(&all[i], of))) continue;
    if (best == NULL || (above ? is_less(&all[i], best) : is_less(best, &all[i]))) best = &all[i];
  }
  return best != NULL ? &best->node : NULL;
}

static void check_all(const tm_order *o, const pair *all, const bool *in) {
  for (int i = 0; i < COUNT; i++) {
    const tm_order_node *n = &all[i].node;
    assert_ptr_equal(tm__order_find(o, n->number, n->text), in[i] ? n : NULL);
    assert_ptr_equal(tm__order_below(o, n->number, n->text), nearest(all, in, &all[i], false));
    assert_ptr_equal(tm__order_above(o, n->number, n->text), nearest(all, in, &all[i], true));
  }
}

static void it_stays_sorted(void **state) {
  (void)state;
  static pair all[COUNT];
  bool in[COUNT] = {false};
  tm_order o = {0};
  uint32_t seed = 12345;
  for (int i = 0; i < COUNT; i++)
    make(&all[i], i);
  for (int step = 0; step < 4000; step++) {
    seed = seed * 1664525U + 1013904223U;
    int i = (int)(seed >> 8) % COUNT;
    if (in[i])
      tm__order_remove(&o, &all[i].node);
    else
      tm__order_insert(&o, &all[i].node);
    in[i] = !in[i];
    if (step % 400 == 0) check_all(&o, all, in);
  }
  check_all(&o, all, in);
  while (o.root != NULL)
    tm__order_remove(&o, o.root);
  assert_null(tm__order_above(&o, INT64_MIN, TM_S("")));
}

static int depth(const tm_order_node *n) {
  if (n == NULL) return 0;
  int left = depth(n->left), right = depth(n->right);
  return 1 + (left > right ? left : right);
}

static void it_stays_shallow(void **state) {
  (void)state;
  static pair all[COUNT];
  tm_order o = {0};
  for (int i = 0; i < COUNT; i++) { /* the worst order for a plain tree */
    make(&all[i], i);
    all[i].node.number = i;
    tm__order_insert(&o, &all[i].node);
  }
  assert_in_range(depth(o.root), 9, 40);
}

static void an_empty_set_has_nothing(void **state) {
  (void)state;
  tm_order o = {0};
  assert_null(tm__order_find(&o, 0, TM_S("")));
  assert_null(tm__order_below(&o, INT64_MAX, TM_S("x")));
  assert_null(tm__order_above(&o, INT64_MIN, TM_S("")));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(it_stays_sorted),
      cmocka_unit_test(it_stays_shallow),
      cmocka_unit_test(an_empty_set_has_nothing),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
