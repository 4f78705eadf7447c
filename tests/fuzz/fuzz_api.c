/* Reads any bytes as the address to listen on, and as a request's body; what is accepted has only
 * the declared members, of the declared types and sizes. */
#include <stdlib.h>
#include <string.h>

#include "api/body.h"
#include "api/guard.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const tm_field fields[] = {
    {"id", TM_FIELD_ID, true, 8},          {"text", TM_FIELD_TEXT, false, 0},
    {"object", TM_FIELD_OBJECT, false, 0}, {"input", TM_FIELD_INPUT, false, 0},
    {"count", TM_FIELD_COUNT, false, 100}, {"key", TM_FIELD_KEY, false, 8},
    {"flag", TM_FIELD_FLAG, false, 0},     {"any", TM_FIELD_ANY, false, 0},
};
#define FIELDS (sizeof(fields) / sizeof(fields[0]))

static void must(bool holds) {
  if (!holds) abort();
}

static void check_accepted(const tm_body *b) {
  size_t members = 0;
  for (size_t i = 0; i < FIELDS; i++)
    members += json_object_get(b->root, fields[i].name) != NULL;
  must(json_object_size(b->root) == members);
  const char *id = tm__body_text(b, 0);
  must(id != NULL && strlen(id) >= 1 && strlen(id) <= 8);
  must(b->values[1] == NULL || json_is_string(b->values[1]));
  must(b->values[2] == NULL || json_is_object(b->values[2]));
  must(!json_is_array(b->values[3]) && !json_is_null(b->values[3]));
  json_int_t count = b->values[4] != NULL ? json_integer_value(b->values[4]) : 1;
  must(count >= 1 && count <= 100);
  must(b->values[5] == NULL || json_is_integer(b->values[5]) || json_is_string(b->values[5]));
  must(b->values[6] == NULL || json_is_boolean(b->values[6]));
}

static void check_address(tm_slice text) {
  tm_guard g;
  uint16_t port;
  tm_error err = {0};
  char *address = tm__slice_dup(text);
  if (tm__guard_init(&g, &port, address, &err) == TM_OK)
    must(g.host[0] != '\0');
  else
    must(err.code[0] != '\0');
  free(address);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  tm_body b;
  tm_error err = {0};
  tm_slice text = {(const char *)data, size};
  check_address(text);
  if (tm__body_parse(&b, text, fields, FIELDS, &err) != TM_OK) {
    must(err.status == TM_EINVAL && err.code[0] != '\0' && tm__utf8_valid(tm__slice(err.message)));
    must(b.root == NULL);
    return 0;
  }
  check_accepted(&b);
  tm__body_free(&b);
  return 0;
}
