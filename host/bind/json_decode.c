/* json_decode.c - JSON text as fresh Lua values: arrays are marked, null is null.
 *
 * Text from anywhere goes through the strict reader. What the journal kept is canonical and on the
 * path of every turn: it is walked without a tree, and only what does not look as it should is left
 * to the strict reader to judge.
 */
#include <string.h>

#include "bind/libs.h"
#include "core/json.h"

#define VALUE_UNITS 10 /* what is pushed is allocated too */

static void push_value(lua_State *L, const json_t *v);

void tm__json_push_null(lua_State *L) {
  lua_pushlightuserdata(L, NULL);
}

static void push_array(lua_State *L, const json_t *v) {
  size_t count = json_array_size(v);
  lua_createtable(L, (int)count, 0);
  for (size_t i = 0; i < count; i++) {
    push_value(L, json_array_get(v, i));
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  (void)lua_rawgetp(L, LUA_REGISTRYINDEX, tm__vm(L)->json.array_mark);
  lua_setmetatable(L, -2);
}

static void push_object(lua_State *L, const json_t *v) {
  union { /* Jansson's iterators want a pointer to what they do not change */
    const json_t *in;
    json_t *out;
  } object = {v};
  lua_createtable(L, 0, (int)json_object_size(v));
  for (void *it = json_object_iter(object.out); it != NULL;
       it = json_object_iter_next(object.out, it)) {
    lua_pushlstring(L, json_object_iter_key(it), json_object_iter_key_len(it));
    push_value(L, json_object_iter_value(it));
    lua_rawset(L, -3);
  }
}

static void push_value(lua_State *L, const json_t *v) {
  luaL_checkstack(L, 4, "no room to decode");
  tm__limits_spend(L, VALUE_UNITS);
  switch (json_typeof(v)) {
  case JSON_OBJECT: push_object(L, v); break;
  case JSON_ARRAY: push_array(L, v); break;
  case JSON_STRING: lua_pushlstring(L, json_string_value(v), json_string_length(v)); break;
  case JSON_INTEGER: lua_pushinteger(L, json_integer_value(v)); break;
  case JSON_REAL: lua_pushnumber(L, json_real_value(v)); break;
  case JSON_TRUE: lua_pushboolean(L, 1); break;
  case JSON_FALSE: lua_pushboolean(L, 0); break;
  case JSON_NULL: tm__json_push_null(L); break;
  }
}

/* The tree hangs on the state: pushing may raise, and then the end of the entry frees it. */
tm_status tm__json_decode(lua_State *L, tm_slice text, size_t max_values, tm_error *err) {
  tm_json *j = &tm__vm(L)->json;
  json_decref(j->tree);
  j->tree = NULL;
  tm__limits_spend(L, tm__reading_units(text.len));
  tm_status st = tm__json_parse_bounded(&j->tree, text, TM_JSON_DEPTH, max_values, err);
  if (st != TM_OK) return st;
  push_value(L, j->tree);
  json_decref(j->tree);
  j->tree = NULL;
  return TM_OK;
}

/* ---- canonical text ---- */

static bool restore(lua_State *L, tm_slice v, int depth);

static bool restore_string(lua_State *L, tm_slice v) {
  if (v.len < 2 || v.ptr[v.len - 1] != '"') return false;
  if (memchr(v.ptr, '\\', v.len) == NULL) {
    lua_pushlstring(L, v.ptr + 1, v.len - 2);
    return true;
  }
  tm_buf *text = &tm__vm(L)->json.text;
  tm__buf_clear(text);
  if (!tm__json_unquote(v, text)) return false;
  tm_slice s = tm__buf_view(text);
  lua_pushlstring(L, s.ptr != NULL ? s.ptr : "", s.len);
  return true;
}

static bool restore_number(lua_State *L, tm_slice v) {
  char digits[40];
  if (v.len >= sizeof(digits)) return false;
  bool whole = true;
  for (size_t i = 0; i < v.len; i++) {
    char c = v.ptr[i];
    bool digit = c >= '0' && c <= '9';
    if (!digit && c != '-' && c != '+' && c != '.' && c != 'e') return false;
    whole = whole && (digit || c == '-');
    digits[i] = c;
  }
  digits[v.len] = '\0';
  return lua_stringtonumber(L, digits) == v.len + 1 && lua_isinteger(L, -1) == whole;
}

static bool restore_word(lua_State *L, tm_slice v) {
  if (tm__slice_is(v, "null"))
    tm__json_push_null(L);
  else if (tm__slice_is(v, "true") || tm__slice_is(v, "false"))
    lua_pushboolean(L, v.ptr[0] == 't');
  else
    return false;
  return true;
}

static bool restore_members(lua_State *L, tm_json_walk *w, bool object, int depth) {
  tm_slice key, value;
  for (lua_Integer i = 1; tm__json_next(w, &key, &value); i++) {
    if (object && !restore_string(L, (tm_slice){key.ptr - 1, key.len + 2})) return false;
    if (!restore(L, value, depth)) return false;
    if (object)
      lua_rawset(L, -3);
    else
      lua_rawseti(L, -2, i);
  }
  return true;
}

static bool restore_table(lua_State *L, tm_slice v, int depth) {
  tm_json_walk w;
  bool object = v.ptr[0] == '{';
  char close = object ? '}' : ']';
  if (depth > TM_JSON_DEPTH || !tm__json_walk(&w, v) || !lua_checkstack(L, 8)) return false;
  lua_newtable(L);
  if (!restore_members(L, &w, object, depth + 1)) return false;
  const char *end = v.ptr + v.len - 1;
  if (*end != close || (w.at != end && v.len != 2)) return false; /* it stopped half-way */
  if (object) return true;
  (void)lua_rawgetp(L, LUA_REGISTRYINDEX, tm__vm(L)->json.array_mark);
  lua_setmetatable(L, -2);
  return true;
}

static bool restore(lua_State *L, tm_slice v, int depth) {
  tm__limits_spend(L, VALUE_UNITS + tm__reading_units(v.len));
  char c = v.len > 0 ? v.ptr[0] : '\0';
  if (c == '{' || c == '[') return restore_table(L, v, depth);
  if (c == '"') return restore_string(L, v);
  if (c == '-' || (c >= '0' && c <= '9')) return restore_number(L, v);
  return restore_word(L, v);
}

tm_status tm__json_restore(lua_State *L, tm_slice text, tm_error *err) {
  int top = lua_gettop(L);
  luaL_checkstack(L, 8, "no room to decode");
  if (restore(L, text, 1)) return TM_OK;
  lua_settop(L, top);
  return tm__json_decode(L, text, SIZE_MAX, err);
}
