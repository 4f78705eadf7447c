/* order.c - the treap: random priorities keep it shallow whatever the order of insertion. */
#include "persistence/order.h"

static int compare(int64_t number, tm_slice text, const tm_order_node *n) {
  if (number != n->number) return number < n->number ? -1 : 1;
  return tm__slice_cmp(text, n->text);
}

static uint32_t next_priority(tm_order *o) { /* xorshift32 */
  uint32_t x = o->seed != 0 ? o->seed : 2463534242U;
  x ^= x << 13;
  x ^= x >> 17;
  x ^= x << 5;
  return o->seed = x;
}

/* Distributes the tree `t` around n's pair into n's two branches. */
static void split(tm_order_node *t, tm_order_node *n) {
  tm_order_node **left = &n->left, **right = &n->right;
  while (t != NULL) {
    if (compare(n->number, n->text, t) > 0) {
      *left = t;
      left = &t->right;
      t = t->right;
    } else {
      *right = t;
      right = &t->left;
      t = t->left;
    }
  }
  *left = *right = NULL;
}

void tm__order_insert(tm_order *o, tm_order_node *n) {
  n->priority = next_priority(o);
  tm_order_node **p = &o->root;
  while (*p != NULL && (*p)->priority >= n->priority)
    p = compare(n->number, n->text, *p) < 0 ? &(*p)->left : &(*p)->right;
  split(*p, n);
  *p = n;
}

void tm__order_remove(tm_order *o, tm_order_node *n) {
  tm_order_node **p = &o->root;
  while (*p != n)
    p = compare(n->number, n->text, *p) < 0 ? &(*p)->left : &(*p)->right;
  tm_order_node *left = n->left, *right = n->right;
  while (left != NULL && right != NULL) {
    if (left->priority >= right->priority) {
      *p = left;
      p = &left->right;
      left = left->right;
    } else {
      *p = right;
      p = &right->left;
      right = right->left;
    }
  }
  *p = left != NULL ? left : right;
}

tm_order_node *tm__order_find(const tm_order *o, int64_t number, tm_slice text) {
  tm_order_node *n = o->root;
  for (int c; n != NULL && (c = compare(number, text, n)) != 0;)
    n = c < 0 ? n->left : n->right;
  return n;
}

tm_order_node *tm__order_below(const tm_order *o, int64_t number, tm_slice text) {
  tm_order_node *best = NULL;
  for (tm_order_node *n = o->root; n != NULL;) {
    bool smaller = compare(number, text, n) > 0;
    if (smaller) best = n;
    n = smaller ? n->right : n->left;
  }
  return best;
}

tm_order_node *tm__order_above(const tm_order *o, int64_t number, tm_slice text) {
  tm_order_node *best = NULL;
  for (tm_order_node *n = o->root; n != NULL;) {
    bool greater = compare(number, text, n) < 0;
    if (greater) best = n;
    n = greater ? n->left : n->right;
  }
  return best;
}
