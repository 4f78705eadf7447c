/* store_file_state.c - a head as a JSON object that a person can read, with what the conversation
 * was started by while that is remembered. */
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "persistence/store_file.h"

void tm__file_sum(unsigned char out[TM_FILE_SUM], const tm_slice *parts, size_t count) {
  crypto_generichash_state state;
  (void)crypto_generichash_init(&state, NULL, 0, TM_FILE_SUM);
  for (size_t i = 0; i < count; i++)
    if (parts[i].len > 0)
      (void)crypto_generichash_update(&state, (const unsigned char *)parts[i].ptr, parts[i].len);
  (void)crypto_generichash_final(&state, out, TM_FILE_SUM);
}

/* ---- writing ---- */

static void base64(tm_buf *b, tm_slice bytes) {
  size_t size = sodium_base64_encoded_len(bytes.len, sodium_base64_VARIANT_ORIGINAL);
  char *room = tm__buf_room(b, size);
  if (room == NULL) return;
  (void)sodium_bin2base64(room, size, (const unsigned char *)bytes.ptr, bytes.len,
                          sodium_base64_VARIANT_ORIGINAL);
  b->len += size - 1;
}

void tm__file_text(tm_buf *b, const char *key, tm_slice text) {
  if (text.ptr == NULL) return;
  tm__json_key(b, key);
  if (tm__utf8_valid(text)) {
    tm__json_string(b, text);
    return;
  }
  tm__buf_text(b, "{\"base64\":\"");
  base64(b, text);
  tm__buf_text(b, "\"}");
}

static void put_text(tm_buf *b, const char *key, const char *text) {
  if (text[0] != '\0') tm__file_text(b, key, tm__slice(text));
}

static void put_number(tm_buf *b, const char *key, int64_t n) {
  if (n != 0) tm__json_member_int(b, key, n);
}

/* JSON has no unsigned 64 bits. */
static void put_keys(tm_buf *b, uint64_t key, uint64_t body, int64_t row) {
  tm__buf_printf(b, "[\"%016llx\",\"%016llx\",%lld", (unsigned long long)key,
                 (unsigned long long)body, (long long)row);
}

static void put_recent(tm_buf *b, const tm_head *h) {
  size_t count = TM_RECENT_KEYS;
  while (count > 0 && h->recent[count - 1].key == 0)
    count--;
  if (count == 0) return;
  tm__json_key(b, "recent");
  tm__buf_byte(b, '[');
  for (size_t i = 0; i < count; i++) {
    if (i > 0) tm__buf_byte(b, ',');
    put_keys(b, h->recent[i].key, h->recent[i].body, h->recent[i].row);
    tm__buf_byte(b, ']');
  }
  tm__buf_byte(b, ']');
}

void tm__file_state_encode(tm_buf *b, const tm_file_state *state) {
  const tm_head *h = &state->head;
  tm__buf_byte(b, '{');
  put_text(b, "id", h->id);
  put_text(b, "tenant", h->tenant);
  put_text(b, "session", h->session);
  put_text(b, "system", h->system);
  put_text(b, "flow", h->flow);
  put_text(b, "version", h->version);
  put_text(b, "step", h->step);
  put_text(b, "claim", h->claim);
  tm__json_member_text(b, "status", tm__conversation_status_name(h->status));
  tm__json_member_int(b, "revision", h->revision);
  put_number(b, "tip", h->tip);
  put_number(b, "wake_at", h->wake_at);
  put_number(b, "created", h->created);
  put_number(b, "ended", h->ended);
  put_recent(b, h);
  if (state->start_key != 0) {
    tm__json_key(b, "start");
    put_keys(b, state->start_key, state->start_body, state->start_row);
    tm__buf_printf(b, ",%lld]", (long long)state->start_created);
  }
  tm__buf_byte(b, '}');
}

/* ---- reading ---- */

static bool from_base64(tm_slice quoted, tm_buf *out) {
  size_t size = 0;
  if (quoted.len < 2) return false;
  char *room = tm__buf_room(out, quoted.len);
  if (room == NULL) return false;
  if (sodium_base642bin((unsigned char *)room, quoted.len, quoted.ptr + 1, quoted.len - 2, NULL,
                        &size, NULL, sodium_base64_VARIANT_ORIGINAL) != 0)
    return false;
  out->len += size;
  return true;
}

static bool decode_text(tm_slice value, tm_buf *out) {
  if (value.len > 0 && value.ptr[0] == '{') return from_base64(tm__json_get(value, "base64"), out);
  return tm__json_unquote(value, out);
}

bool tm__file_text_decode(tm_slice json, const char *key, tm_buf *out, bool *there) {
  tm_slice value = tm__json_get(json, key);
  *there = value.ptr != NULL;
  return !*there || decode_text(value, out);
}

static bool get_text(tm_slice value, char *out, size_t size, tm_buf *scratch) {
  tm__buf_clear(scratch);
  return decode_text(value, scratch) && tm__copy(out, size, tm__buf_view(scratch));
}

static bool get_number(tm_slice value, int64_t *out) {
  char text[24], *end;
  if (!tm__copy(text, sizeof(text), value)) return false;
  *out = strtoll(text, &end, 10);
  return end != text && *end == '\0';
}

static bool get_hex(tm_slice value, uint64_t *out) {
  char text[17], *end;
  if (value.len != 18 || !tm__copy(text, sizeof(text), (tm_slice){value.ptr + 1, 16})) return false;
  *out = strtoull(text, &end, 16);
  return *end == '\0';
}

/* [key, body, row, created]: `numbers` of the last two. */
static bool get_keys(tm_slice list, uint64_t *key, uint64_t *body, int64_t *numbers,
                     size_t number_count) {
  tm_json_walk w;
  tm_slice none, v;
  if (!tm__json_walk(&w, list)) return false;
  if (!tm__json_next(&w, &none, &v) || !get_hex(v, key)) return false;
  if (!tm__json_next(&w, &none, &v) || !get_hex(v, body)) return false;
  for (size_t i = 0; i < number_count; i++)
    if (!tm__json_next(&w, &none, &v) || !get_number(v, &numbers[i])) return false;
  return true;
}

static bool get_recent(tm_slice list, tm_head *h) {
  tm_json_walk w;
  tm_slice none, v;
  if (!tm__json_walk(&w, list)) return false;
  for (size_t i = 0; tm__json_next(&w, &none, &v); i++) {
    if (i == TM_RECENT_KEYS) return false;
    tm_recent_key *k = &h->recent[i];
    if (!get_keys(v, &k->key, &k->body, &k->row, 1)) return false;
  }
  return true;
}

static bool get_start(tm_slice list, tm_file_state *s) {
  int64_t numbers[2] = {0};
  if (!get_keys(list, &s->start_key, &s->start_body, numbers, 2)) return false;
  s->start_row = numbers[0];
  s->start_created = numbers[1];
  return true;
}

static bool get_status(tm_slice value, tm_head *h) {
  if (value.len < 2) return false;
  return tm__conversation_status_parse(&h->status, (tm_slice){value.ptr + 1, value.len - 2});
}

static bool get_member(tm_file_state *s, tm_slice key, tm_slice v, tm_buf *scratch) {
  tm_head *h = &s->head;
  const struct {
    const char *key;
    char *out;
    size_t size;
  } texts[] = {{"id", h->id, sizeof(h->id)},
               {"tenant", h->tenant, sizeof(h->tenant)},
               {"session", h->session, sizeof(h->session)},
               {"system", h->system, sizeof(h->system)},
               {"flow", h->flow, sizeof(h->flow)},
               {"version", h->version, sizeof(h->version)},
               {"step", h->step, sizeof(h->step)},
               {"claim", h->claim, sizeof(h->claim)}};
  const struct {
    const char *key;
    int64_t *out;
  } numbers[] = {{"revision", &h->revision},
                 {"tip", &h->tip},
                 {"wake_at", &h->wake_at},
                 {"created", &h->created},
                 {"ended", &h->ended}};
  for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
    if (tm__slice_is(key, texts[i].key)) return get_text(v, texts[i].out, texts[i].size, scratch);
  for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
    if (tm__slice_is(key, numbers[i].key)) return get_number(v, numbers[i].out);
  if (tm__slice_is(key, "status")) return get_status(v, h);
  if (tm__slice_is(key, "recent")) return get_recent(v, h);
  if (tm__slice_is(key, "start")) return get_start(v, s);
  return true;
}

bool tm__file_state_decode(tm_file_state *out, tm_slice json, tm_buf *scratch) {
  tm_json_walk w;
  tm_slice key, value;
  *out = (tm_file_state){0};
  if (!tm__json_walk(&w, json)) return false;
  while (tm__json_next(&w, &key, &value))
    if (!get_member(out, key, value, scratch)) return false;
  return out->head.id[0] != '\0' && out->head.revision > 0;
}
