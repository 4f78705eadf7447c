/* Reads any bytes as JSON; what is accepted must survive writing and reading, and a
 * walk over its text must meet every value. */
#include <stdlib.h>

#include "core/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t walk_all(tm_slice json) {
  tm_json_walk w;
  tm_slice key, value;
  size_t n = 0;
  if (!tm__json_walk(&w, json)) return 1;
  while (tm__json_next(&w, &key, &value))
    n += walk_all(value);
  return n + 1;
}

static size_t count_all(json_t *v) {
  size_t n = 1, i;
  const char *key;
  json_t *item;
  json_object_foreach(v, key, item) n += count_all(item);
  json_array_foreach(v, i, item) n += count_all(item);
  return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  json_t *v = NULL, *again = NULL;
  tm_error err;
  tm_buf first = {0}, second = {0};
  if (tm__json_parse(&v, (tm_slice){(const char *)data, size}, TM_JSON_DEPTH, &err) != TM_OK)
    return 0;
  tm__json_value(&first, v);
  if (!tm__buf_ok(&first)) abort();
  if (tm__json_parse(&again, tm__buf_view(&first), TM_JSON_DEPTH, &err) != TM_OK) abort();
  tm__json_value(&second, again);
  if (!json_equal(v, again) || !tm__slice_eq(tm__buf_view(&first), tm__buf_view(&second))) abort();
  if (walk_all(tm__buf_view(&first)) != count_all(v)) abort();
  json_decref(v);
  json_decref(again);
  tm__buf_free(&first);
  tm__buf_free(&second);
  return 0;
}
