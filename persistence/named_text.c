/* named_text.c - the two parts of a name are joined by a NUL, which neither contains. */
#include "persistence/named_text.h"

#include <stdlib.h>
#include <string.h>

#define TEXT_OF(n) ((tm_named_text *)(void *)((char *)(n)-offsetof(tm_named_text, node)))

tm_named_text *tm__named_text_new(tm_slice a, tm_slice b, tm_slice text) {
  size_t name_len = a.len + 1 + b.len;
  tm_named_text *t = malloc(sizeof(*t) + name_len + text.len);
  if (t == NULL) return NULL;
  *t = (tm_named_text){.has_text = text.ptr != NULL, .name_len = name_len, .text_len = text.len};
  char *at = t->bytes;
  const tm_slice parts[] = {a, {"", 1}, b, text};
  for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
    if (parts[i].len > 0) memcpy(at, parts[i].ptr, parts[i].len);
    at += parts[i].len;
  }
  t->node.text = (tm_slice){t->bytes, name_len};
  return t;
}

tm_slice tm__named_text_get(const tm_named_text *t) {
  return (tm_slice){t->has_text ? t->bytes + t->name_len : NULL, t->text_len};
}

bool tm__named_text_insert(tm_order *set, tm_named_text *t) {
  if (tm__order_find(set, 0, t->node.text) != NULL) return false;
  tm__order_insert(set, &t->node);
  return true;
}

bool tm__named_text_find(const tm_order *set, tm_slice a, tm_slice b, const tm_named_text **out) {
  tm_buf name = {0};
  tm__buf_slice(&name, a);
  tm__buf_byte(&name, '\0');
  tm__buf_slice(&name, b);
  bool ok = tm__buf_ok(&name);
  tm_order_node *n = ok ? tm__order_find(set, 0, tm__buf_view(&name)) : NULL;
  *out = n != NULL ? TEXT_OF(n) : NULL;
  tm__buf_free(&name);
  return ok;
}

void tm__named_text_clear(tm_order *set) {
  while (set->root != NULL) {
    tm_named_text *t = TEXT_OF(set->root);
    tm__order_remove(set, set->root);
    free(t);
  }
}
