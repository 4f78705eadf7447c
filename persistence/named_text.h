/* named_text.h - a text under a name of two parts, kept in a tm_order. Not locked. */
#ifndef TM_PERSISTENCE_NAMED_TEXT_H
#define TM_PERSISTENCE_NAMED_TEXT_H

#include "persistence/order.h"

typedef struct tm_named_text {
  tm_order_node node;
  bool has_text;
  int64_t time; /* 0, for whoever keeps it */
  size_t name_len, text_len;
  char bytes[]; /* name, text */
} tm_named_text;

/* A copy of all; a `text` with ptr NULL is absent. free() it; NULL when out of memory. */
tm_named_text *tm__named_text_new(tm_slice a, tm_slice b, tm_slice text);
tm_slice tm__named_text_get(const tm_named_text *t); /* ptr NULL: absent */

/* The set takes `t`; false: it has one of that name, and `t` stays the caller's. */
bool tm__named_text_insert(tm_order *set, tm_named_text *t);
/* *out NULL: there is none. False: out of memory. */
bool tm__named_text_find(const tm_order *set, tm_slice a, tm_slice b, const tm_named_text **out);
void tm__named_text_clear(tm_order *set); /* frees all */

#endif
