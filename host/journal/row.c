/* row.c - the body of a journal row: canonical JSON, written from a draft and read in one pass. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "journal/slot.h"
#include "journal/state.h"

/* ---- reading ---- */

#define FIELD(name)                                                                                \
  { #name, sizeof(#name) - 1, offsetof(tm_row_fields, name) }
static const struct {
  const char *name;
  size_t len, offset;
} fields[] = {
    FIELD(call),    FIELD(checkpoint), FIELD(delta), FIELD(error),    FIELD(fork),
    FIELD(input),   FIELD(key),        FIELD(keys),  FIELD(messages), FIELD(prompt),
    FIELD(runtime), FIELD(start),      FIELD(state), FIELD(status),   FIELD(step),
    FIELD(steps),   FIELD(turn),       FIELD(undo),  FIELD(wake_at),
};
#undef FIELD

void tm__row_fields(tm_row_fields *out, tm_slice body) {
  *out = (tm_row_fields){0};
  tm_json_walk w;
  tm_slice key;
  tm_slice value;
  if (!tm__json_walk(&w, body) || !w.object) return;
  while (tm__json_next(&w, &key, &value)) {
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
      if (key.len != fields[i].len || memcmp(key.ptr, fields[i].name, key.len) != 0) continue;
      *(tm_slice *)(void *)((char *)out + fields[i].offset) = value;
      break;
    }
  }
}

bool tm__row_status(const tm_row_fields *f, tm_conversation_status *out) {
  tm_slice quoted = f->status;
  if (quoted.len < 2) return false;
  return tm__conversation_status_parse(out, (tm_slice){quoted.ptr + 1, quoted.len - 2});
}

tm_turn_kind tm__row_turn(const tm_row_fields *f) {
  tm_turn_kind kind = f->start.ptr != NULL ? TM_TURN_START : TM_TURN_MESSAGE;
  tm_slice quoted = f->turn;
  if (quoted.len >= 2) (void)tm__turn_kind_parse(&kind, (tm_slice){quoted.ptr + 1, quoted.len - 2});
  return kind;
}

static bool hex_member(tm_slice json, const char *name, uint64_t *out) {
  tm_slice v = tm__json_get(json, name);
  char digits[17];
  if (v.len != 18 || !tm__copy(digits, sizeof(digits), (tm_slice){v.ptr + 1, 16})) return false;
  char *end = NULL;
  *out = strtoull(digits, &end, 16);
  return end == digits + 16;
}

static void read_key(tm_keys *out, tm_slice json) {
  uint64_t key = 0, body = 0;
  if (hex_member(json, "key", &key) && hex_member(json, "body", &body))
    (void)tm__keys_add(out, key, body);
}

void tm__row_keys(const tm_row_fields *f, tm_keys *out) {
  tm_json_walk w;
  tm_slice name, value;
  read_key(out, f->key);
  bool more = tm__json_walk(&w, f->keys);
  while (more && tm__json_next(&w, &name, &value))
    read_key(out, value);
}

bool tm__keys_add(tm_keys *k, uint64_t key, uint64_t body) {
  if (key == 0) return true;
  if (k->count == TM_RECENT_KEYS) return false;
  k->list[k->count++] = (tm_recent_key){.key = key, .body = body};
  return true;
}

const tm_recent_key *tm__keys_find(const tm_keys *k, uint64_t key) {
  for (size_t i = 0; i < k->count && key != 0; i++)
    if (k->list[i].key == key) return &k->list[i];
  return NULL;
}

/* ---- writing; members in canonical order ---- */

static void add_hex(tm_buf *out, const char *name, uint64_t value) {
  char digits[20];
  (void)snprintf(digits, sizeof(digits), "%016llx", (unsigned long long)value);
  tm__json_member_text(out, name, digits);
}

static void add_key(tm_buf *out, const tm_recent_key *k) {
  tm__buf_byte(out, '{');
  add_hex(out, "body", k->body);
  add_hex(out, "key", k->key);
  tm__buf_byte(out, '}');
}

static void add_keys(tm_buf *out, const tm_keys *k) {
  if (k->count == 0) return;
  tm__json_key(out, "key");
  add_key(out, &k->list[0]);
  if (k->count == 1) return;
  tm__json_key(out, "keys");
  tm__buf_byte(out, '[');
  for (size_t i = 1; i < k->count; i++) {
    tm__json_comma(out);
    add_key(out, &k->list[i]);
  }
  tm__buf_byte(out, ']');
}

static bool is_given(tm_slice json) {
  return json.len > 0 && !tm__slice_is(json, "null") && !tm__slice_is(json, "[]");
}

static void add_given(tm_buf *out, const char *name, tm_slice json) {
  if (is_given(json)) tm__json_member_raw(out, name, json);
}

/* Adds the delta unless the state itself is as small. */
static bool add_delta(tm_buf *out, tm_slice before, tm_slice state) {
  if (before.ptr == NULL) return false;
  size_t start = out->len;
  tm__json_key(out, "delta");
  size_t value = out->len;
  tm__state_delta(out, before, state);
  if (!tm__buf_ok(out) || out->len - value < state.len) return true;
  out->len = start;
  return false;
}

void tm__row_compose(tm_buf *out, const tm_row_plan *p, bool *full) {
  const tm_draft *d = p->draft;
  tm__buf_byte(out, '{');
  if (d->checkpoint_name.len > 0) tm__json_member(out, "checkpoint", d->checkpoint_name);
  *full = !add_delta(out, p->before, d->state);
  add_given(out, "error", d->error);
  add_given(out, "fork", p->fork);
  if (p->input.ptr != NULL) tm__json_member_raw(out, "input", p->input);
  if (p->keys != NULL) add_keys(out, p->keys);
  add_given(out, "messages", d->messages);
  add_given(out, "prompt", d->prompt);
  tm__json_member_raw(out, "runtime", d->runtime);
  if (p->start) tm__json_member_bool(out, "start", true);
  if (*full) tm__json_member_raw(out, "state", d->state);
  tm__json_member_text(out, "status", tm__conversation_status_name(p->status));
  tm__json_member(out, "step", d->step.ptr == NULL ? TM_S("") : d->step);
  add_given(out, "steps", d->steps);
  if (p->input.ptr != NULL && p->turn != TM_TURN_START && p->turn != TM_TURN_MESSAGE)
    tm__json_member_text(out, "turn", tm__turn_kind_name(p->turn));
  add_given(out, "undo", p->undo);
  tm__json_member_int(out, "wake_at", d->wake_at);
  tm__buf_byte(out, '}');
}

void tm__row_compose_call(tm_buf *out, tm_slice key, tm_slice result) {
  tm__buf_text(out, "{\"call\":{");
  tm__json_member(out, "key", key);
  tm__json_member_raw(out, "result", result);
  tm__buf_text(out, "}}");
}

/* ---- lists of texts ---- */

static bool texts_add(tm_texts *t, char *owned, size_t len) {
  if (owned != NULL && t->count == t->cap) {
    size_t cap = t->cap == 0 ? 4 : t->cap * 2;
    tm_slice *items = realloc(t->items, cap * sizeof(*items));
    if (items != NULL) {
      t->items = items;
      t->cap = cap;
    }
  }
  if (owned == NULL || t->count == t->cap) {
    free(owned);
    return false;
  }
  t->items[t->count++] = (tm_slice){owned, len};
  return true;
}

bool tm__texts_add(tm_texts *t, tm_slice text) {
  return texts_add(t, tm__slice_dup(text), text.len);
}

bool tm__texts_take(tm_texts *t, tm_buf *text) {
  size_t len = text->len;
  return texts_add(t, tm__buf_take(text), len);
}

void tm__texts_reverse(tm_texts *t) {
  for (size_t i = 0; i < t->count / 2; i++) {
    tm_slice other = t->items[t->count - 1 - i];
    t->items[t->count - 1 - i] = t->items[i];
    t->items[i] = other;
  }
}

void tm__texts_free(tm_texts *t) {
  for (size_t i = 0; i < t->count; i++) {
    union {
      const char *in;
      char *out;
    } text = {t->items[i].ptr};
    free(text.out);
  }
  free(t->items);
  *t = (tm_texts){0};
}
