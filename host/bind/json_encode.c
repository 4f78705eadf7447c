/* json_encode.c - Lua values as canonical JSON: sorted keys, exact numbers, or a refusal that names
 * the place. Appends to a buffer that the state owns, so raising in the middle loses nothing.
 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bind/libs.h"
#include "core/json.h"

#define MAX_BYTES   (8u << 20) /* also ends what shares tables over and over */
#define TABLE_UNITS 20         /* besides what it holds it may have room for what it has no more */
#define VALUE_UNITS 3
#define REAL_UNITS  150 /* it is written with more and more digits until it reads back */
#define FEW_KEYS    12
#define TEXT_PART   ((size_t)16 << 10)

typedef struct place { /* where an encoding is: on the C stack, linked upwards */
  const struct place *up;
  tm_slice key; /* ptr NULL: an array's element */
  size_t index;
  int depth;
} place;

typedef struct encoder {
  lua_State *L;
  tm_vm *vm;
  tm_buf *out;
  tm_error *err;
  size_t end; /* of out->len, at most */
  tm_toll toll;
} encoder;

static bool encode(encoder *e, int idx, const place *at);

/* ---- refusals ---- */

static void path_text(tm_buf *b, const place *at) {
  if (at->up != NULL) path_text(b, at->up);
  if (at->key.ptr == NULL) {
    tm__buf_printf(b, "[%zu]", at->index);
    return;
  }
  if (b->len > 0) tm__buf_byte(b, '.');
  tm__buf_add(b, at->key.ptr, at->key.len < 64 ? at->key.len : 64);
}

static bool refuse(encoder *e, const place *at, const char *code, const char *why) {
  tm_buf path = {0};
  path_text(&path, at);
  (void)tm__fail(e->err, TM_EINVAL, code, "%s: %s", tm__buf_ok(&path) ? path.ptr : "?", why);
  tm__buf_free(&path);
  return false;
}

static bool refuse_size(encoder *e, const place *at) {
  return refuse(e, at, "json.too_large", "values of more than 8 MiB of JSON cannot be kept");
}

static bool refuse_value(encoder *e, const place *at, const char *why) {
  return refuse(e, at, "json.value", why);
}

static bool refuse_type(encoder *e, const place *at, int idx) {
  char why[64];
  (void)snprintf(why, sizeof(why), "a %s cannot be kept", luaL_typename(e->L, idx));
  return refuse_value(e, at, why);
}

/* ---- scalars ---- */

static bool encode_number(encoder *e, int idx, const place *at) {
  if (lua_isinteger(e->L, idx)) {
    tm__json_int(e->out, lua_tointeger(e->L, idx));
    return true;
  }
  double v = lua_tonumber(e->L, idx);
  if (isnan(v)) return refuse_value(e, at, "NaN cannot be kept");
  if (isinf(v)) return refuse_value(e, at, "an infinite number cannot be kept");
  tm__toll_pay(&e->toll, REAL_UNITS);
  tm__json_double(e->out, v);
  return true;
}

static size_t room_left(const encoder *e) {
  return e->out->len < e->end ? e->end - e->out->len : 0;
}

/* The first bytes of a text, up to where a character begins, are charged. */
static tm_slice next_part(encoder *e, tm_slice rest) {
  tm_slice part = rest;
  if (rest.len > TEXT_PART) {
    part.len = TEXT_PART;
    while (part.len > TEXT_PART - 3 && ((unsigned char)rest.ptr[part.len] & 0xC0) == 0x80)
      part.len--;
  }
  tm__toll_pay(&e->toll, tm__reading_units(part.len));
  return part;
}

static bool refuse_bytes(encoder *e, const place *at) {
  return refuse_value(e, at, "text that is not valid UTF-8 cannot be kept");
}

static bool encode_long_text(encoder *e, tm_slice s, const place *at) {
  tm_slice part;
  tm__buf_byte(e->out, '"');
  for (; s.len > 0; s.ptr += part.len, s.len -= part.len) {
    if (s.len > room_left(e)) return refuse_size(e, at);
    part = next_part(e, s);
    if (!tm__utf8_valid(part)) return refuse_bytes(e, at);
    tm__json_escaped(e->out, part);
  }
  tm__buf_byte(e->out, '"');
  return true;
}

static bool encode_string(encoder *e, int idx, const place *at) {
  tm_slice s;
  s.ptr = lua_tolstring(e->L, idx, &s.len);
  if (s.len > TEXT_PART) return encode_long_text(e, s, at);
  tm__toll_pay(&e->toll, tm__reading_units(s.len));
  if (!tm__utf8_valid(s)) return refuse_bytes(e, at);
  tm__json_string(e->out, s);
  return true;
}

static bool encode_userdata(encoder *e, int idx, const place *at) {
  lua_State *L = e->L;
  bool raw = lua_getmetatable(L, idx) != 0;
  if (raw) {
    raw = lua_topointer(L, -1) == e->vm->json.raw_mark;
    lua_pop(L, 1);
  }
  if (!raw) return refuse_type(e, at, idx);
  tm_slice text;
  (void)lua_getiuservalue(L, idx, 1);
  text.ptr = lua_tolstring(L, -1, &text.len);
  tm__toll_pay(&e->toll, tm__copy_units(text.len));
  tm__buf_slice(e->out, text);
  lua_pop(L, 1);
  return true;
}

/* ---- tables ---- */

typedef struct shape {
  size_t keys, list_keys; /* all, and integers from 1 */
  lua_Integer highest;
  char why[96]; /* about a key that is neither */
} shape;

static bool has_meta_field(lua_State *L, int metatable, const char *name) {
  lua_pushstring(L, name);
  bool found = lua_rawget(L, metatable) != LUA_TNIL;
  lua_pop(L, 1);
  return found;
}

/* False: the metatable shows what raw access does not find, as that of a view or an object does. */
static bool has_plain_face(encoder *e, int idx, bool *marked) {
  lua_State *L = e->L;
  *marked = false;
  if (!lua_getmetatable(L, idx)) return true;
  int metatable = lua_gettop(L);
  *marked = lua_topointer(L, metatable) == e->vm->json.array_mark;
  bool plain = *marked || !(has_meta_field(L, metatable, "__index") ||
                            has_meta_field(L, metatable, "__pairs"));
  lua_pop(L, 1);
  return plain;
}

static shape look_at(encoder *e, int idx) {
  lua_State *L = e->L;
  shape s = {0};
  lua_pushnil(L);
  while (lua_next(L, idx)) {
    lua_pop(L, 1);
    tm__toll_pay(&e->toll, 0);
    s.keys++;
    lua_Integer i = lua_isinteger(L, -1) ? lua_tointeger(L, -1) : 0;
    if (i >= 1) {
      s.list_keys++;
      if (i > s.highest) s.highest = i;
    } else if (lua_type(L, -1) != LUA_TSTRING) {
      (void)snprintf(s.why, sizeof(s.why), "a key that is a %s cannot be kept; keys are text",
                     luaL_typename(L, -1));
    }
  }
  return s;
}

static bool encode_list(encoder *e, int idx, size_t count, const place *at) {
  tm__buf_byte(e->out, '[');
  for (size_t i = 1; i <= count; i++) {
    if (i > 1) tm__buf_byte(e->out, ',');
    place here = {.up = at, .index = i, .depth = at->depth + 1};
    (void)lua_rawgeti(e->L, idx, (lua_Integer)i);
    if (!encode(e, lua_gettop(e->L), &here)) return false;
    lua_pop(e->L, 1);
  }
  tm__buf_byte(e->out, ']');
  return true;
}

static bool check_key(encoder *e, int idx, const place *at, tm_slice *key) {
  key->ptr = lua_tolstring(e->L, idx, &key->len);
  for (tm_slice rest = *key, part; rest.len > 0; rest.ptr += part.len, rest.len -= part.len) {
    part = next_part(e, rest);
    if (!tm__utf8_valid(part))
      return refuse(e, at, "json.key", "a key that is not valid UTF-8 cannot be kept");
    if (memchr(part.ptr, '\0', part.len) != NULL)
      return refuse(e, at, "json.key", "a key with a NUL byte cannot be kept");
  }
  return true;
}

static int key_order(const tm_key *x, const tm_key *y) {
  return tm__slice_cmp((tm_slice){x->ptr, x->len}, (tm_slice){y->ptr, y->len});
}

static bool reserve_keys(tm_vm *vm, size_t more) {
  tm_json *j = &vm->json;
  if (more <= j->key_cap - j->key_count) return true;
  size_t cap = j->key_cap * 2 > j->key_count + more ? j->key_cap * 2 : j->key_count + more + 32;
  tm_key *keys =
      vm->o.alloc(vm->o.alloc_ud, j->keys, j->key_cap * sizeof(*keys), cap * sizeof(*keys));
  if (keys == NULL) return false;
  j->keys = keys;
  j->key_cap = cap;
  return true;
}

static void insert_keys(tm_key *keys, size_t count) {
  for (size_t i = 1; i < count; i++) {
    tm_key key = keys[i];
    size_t j = i;
    for (; j > 0 && key_order(&keys[j - 1], &key) > 0; j--)
      keys[j] = keys[j - 1];
    keys[j] = key;
  }
}

/* Merges halves that are in order; there is room for half of them. No part takes long, so that all
 * of it is charged as it goes. */
static void merge_keys(encoder *e, tm_key *keys, size_t count, tm_key *room) {
  size_t half = count / 2;
  if (count <= FEW_KEYS) {
    insert_keys(keys, count);
    return;
  }
  merge_keys(e, keys, half, room);
  merge_keys(e, keys + half, count - half, room);
  tm__limits_spend(e->L, count);
  memcpy(room, keys, half * sizeof(*keys));
  for (size_t i = 0, left = 0, right = half; left < half; i++) {
    bool first = right == count || key_order(&room[left], &keys[right]) < 0;
    keys[i] = first ? room[left++] : keys[right++];
  }
}

/* Those that were noted from `first` on. */
static bool sort_keys(encoder *e, size_t first) {
  tm_json *j = &e->vm->json;
  size_t count = j->key_count - first;
  if (count > FEW_KEYS && !reserve_keys(e->vm, count / 2))
    return tm__fail_memory(e->err, "the keys of a table") == TM_OK;
  if (count > 1) merge_keys(e, j->keys + first, count, j->keys + j->key_count);
  return true;
}

/* Room for one more key, its value, and the key to go on from. */
static bool reserve_member(encoder *e, const place *at) {
  if (!lua_checkstack(e->L, 8))
    return refuse_value(e, at, "a table with so many keys cannot be kept");
  return reserve_keys(e->vm, 1) || tm__fail_memory(e->err, "the keys of a table") == TM_OK;
}

/* Pushes the members of a table whose keys are texts, and notes them at the end of json.keys.
 * *texts is false, and nothing is noted or pushed, when there is another key. */
static bool collect_members(encoder *e, int idx, const place *at, bool *texts) {
  lua_State *L = e->L;
  tm_json *j = &e->vm->json;
  size_t first = j->key_count;
  int top = lua_gettop(L);
  size_t bytes = 0;
  *texts = true;
  lua_pushnil(L);
  while (lua_next(L, idx)) {
    tm_slice key;
    if (lua_type(L, -2) != LUA_TSTRING) {
      *texts = false;
      j->key_count = first;
      lua_settop(L, top);
      return true;
    }
    if (!check_key(e, -2, at, &key) || !reserve_member(e, at)) return false;
    bytes += key.len;
    if (bytes > room_left(e)) return refuse_size(e, at);
    j->keys[j->key_count++] = (tm_key){key.ptr, key.len, lua_gettop(L) - 1};
    lua_pushvalue(L, -2);
  }
  return sort_keys(e, first);
}

/* What collect_members noted from `first` on. */
static bool encode_members(encoder *e, size_t first, const place *at) {
  const tm_json *j = &e->vm->json;
  size_t end = j->key_count;
  tm__buf_byte(e->out, '{');
  for (size_t i = first; i < end; i++) {
    tm_key key = j->keys[i]; /* the array may move below */
    place here = {.up = at, .key = {key.ptr, key.len}, .depth = at->depth + 1};
    if (i > first) tm__buf_byte(e->out, ',');
    if (key.len <= TEXT_PART)
      tm__json_string(e->out, here.key);
    else if (!encode_long_text(e, here.key, at))
      return false;
    tm__buf_byte(e->out, ':');
    if (!encode(e, key.at + 1, &here)) return false;
  }
  tm__buf_byte(e->out, '}');
  return true;
}

static bool encode_other(encoder *e, int idx, const place *at, bool marked) {
  shape s = look_at(e, idx);
  bool dense = s.list_keys == s.keys && (size_t)s.highest == s.keys;
  if (dense) return encode_list(e, idx, s.keys, at);
  if (s.list_keys == s.keys)
    return refuse_value(e, at,
                        "an array with holes cannot be kept; use tm.null for what is absent");
  if (marked || s.list_keys > 0)
    return refuse_value(e, at, "a table that is both array and object cannot be kept");
  return refuse(e, at, "json.key", s.why);
}

static bool encode_texts(encoder *e, size_t first, const place *at, bool list, bool marked) {
  if (e->vm->json.key_count == first) {
    tm__buf_text(e->out, marked || list ? "[]" : "{}");
    return true;
  }
  if (marked) return refuse_value(e, at, "a table that is both array and object cannot be kept");
  return encode_members(e, first, at);
}

static bool encode_table(encoder *e, int idx, const place *at, bool list) {
  if (at->depth > TM_JSON_DEPTH)
    return refuse(e, at, "json.depth",
                  "tables nested deeper than 64 levels, or in a circle, "
                  "cannot be kept");
  if (!lua_checkstack(e->L, 8)) return refuse_value(e, at, "the stack is too small to keep this");
  tm__limits_spend(e->L, e->vm->large > 0 ? TM_PER_LOOK : TABLE_UNITS);
  bool marked, texts;
  if (!has_plain_face(e, idx, &marked))
    return refuse_value(e, at,
                        "a table whose metatable has __index or __pairs, such as an object or a "
                        "read-only view, cannot be kept; copy what you need of it");
  size_t first = e->vm->json.key_count;
  int top = lua_gettop(e->L);
  if (!collect_members(e, idx, at, &texts)) return false;
  if (!texts) return encode_other(e, idx, at, marked);
  bool ok = encode_texts(e, first, at, list, marked);
  e->vm->json.key_count = first;
  lua_settop(e->L, top);
  return ok;
}

static bool encode(encoder *e, int idx, const place *at) {
  if (e->out->len > e->end) return refuse_size(e, at);
  tm__toll_pay(&e->toll, 0);
  switch (lua_type(e->L, idx)) {
  case LUA_TNUMBER: return encode_number(e, idx, at);
  case LUA_TSTRING: return encode_string(e, idx, at);
  case LUA_TBOOLEAN: tm__json_bool(e->out, lua_toboolean(e->L, idx)); return true;
  case LUA_TTABLE: return encode_table(e, idx, at, false);
  case LUA_TUSERDATA: return encode_userdata(e, idx, at);
  case LUA_TLIGHTUSERDATA:
    if (lua_touserdata(e->L, idx) != NULL) return refuse_type(e, at, idx);
    tm__buf_text(e->out, "null");
    return true;
  default: return refuse_type(e, at, idx);
  }
}

bool tm__json_encode(lua_State *L, int idx, const char *name, bool list, tm_buf *out,
                     tm_error *err) {
  tm_vm *vm = tm__vm(L);
  encoder e = {L, vm, out, err, out->len + MAX_BYTES, {L, VALUE_UNITS, 0}};
  place root = {.key = tm__slice(name), .depth = 1};
  int top = lua_gettop(L);
  luaL_checkstack(L, 8, "no room to encode");
  idx = lua_absindex(L, idx);
  vm->json.key_count = 0;
  bool ok =
      list && lua_istable(L, idx) ? encode_table(&e, idx, &root, true) : encode(&e, idx, &root);
  lua_settop(L, top);
  vm->json.key_count = 0;
  if (ok && out->len > e.end) ok = refuse_size(&e, &root);
  if (ok && !tm__buf_ok(out)) ok = tm__fail_memory(err, "the JSON of a value") == TM_OK;
  return ok;
}
