/* order.h - an ordered set of (number, text) pairs: a treap whose nodes live inside the caller's
 * records, so inserting needs no memory and cannot fail. Not locked.
 */
#ifndef TM_PERSISTENCE_ORDER_H
#define TM_PERSISTENCE_ORDER_H

#include "core/buf.h"

typedef struct tm_order_node {
  struct tm_order_node *left, *right; /* internal, as is priority */
  uint32_t priority;
  int64_t number;
  tm_slice text; /* lives as long as the node is in a set */
} tm_order_node;

typedef struct tm_order { /* zero-initialise */
  tm_order_node *root;
  uint32_t seed;
} tm_order;

void tm__order_insert(tm_order *o, tm_order_node *n); /* its pair must be absent */
void tm__order_remove(tm_order *o, tm_order_node *n); /* must be in `o` */
/* The node of exactly this pair, the next smaller, the next greater; NULL when there is none. */
tm_order_node *tm__order_find(const tm_order *o, int64_t number, tm_slice text);
tm_order_node *tm__order_below(const tm_order *o, int64_t number, tm_slice text);
tm_order_node *tm__order_above(const tm_order *o, int64_t number, tm_slice text);

#endif
