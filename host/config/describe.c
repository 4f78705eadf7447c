/* describe.c - the effective configuration as JSON; secrets stay hidden. */
#include <inttypes.h>

#include "config/load.h"
#include "core/json.h"

/* Seconds, exactly: 1500 ms is 1.5. */
static void seconds(tm_buf *out, int64_t ms) {
  if (ms % 1000 == 0) {
    tm__json_int(out, ms / 1000);
  } else {
    tm__json_double(out, (double)ms / 1000);
  }
}

#define HIDDEN TM_S("(hidden)")

static void list(tm_buf *out, const tm_key *key, const tm_value *v) {
  tm__buf_byte(out, '[');
  for (size_t i = 0; i < v->count; i++) {
    tm__json_comma(out);
    tm__json_string(out, key->secret ? HIDDEN : tm__slice(v->items[i]));
  }
  tm__buf_byte(out, ']');
}

static void value(tm_buf *out, const tm_key *key, const tm_value *v) {
  if (!v->present) {
    tm__buf_text(out, "null");
    return;
  }
  switch (key->type) {
  case TM_KEY_TEXT:
  case TM_KEY_CHOICE: tm__json_string(out, key->secret ? HIDDEN : tm__slice(v->text)); return;
  case TM_KEY_BOOL: tm__json_bool(out, v->number != 0); return;
  case TM_KEY_INT:
  case TM_KEY_SIZE: tm__json_int(out, v->number); return;
  case TM_KEY_NUMBER: tm__json_double(out, v->real); return;
  case TM_KEY_DURATION: seconds(out, v->number); return;
  case TM_KEY_LIST: list(out, key, v); return;
  }
}

void tm__config_describe(const tm_config *c, tm_buf *out) {
  tm__buf_text(out, "{\"items\":[");
  for (size_t i = 0; i < tm__key_count(); i++) {
    const tm_key *key = tm__key_at(i);
    const tm_slot *slot = &c->slots[i];
    char variable[TM_VARIABLE_SIZE];
    tm__key_variable(key, variable);
    tm__json_comma(out);
    tm__buf_byte(out, '{');
    tm__json_member_text(out, "key", key->path);
    tm__json_key(out, "value");
    value(out, key, &slot->value);
    tm__json_member_text(out, "origin", slot->origin == NULL ? "default" : slot->origin);
    tm__json_member_text(out, "env", variable);
    tm__buf_byte(out, '}');
  }
  tm__buf_text(out, "]}");
}
