/* host.json - exact JSON: what may be kept, and what it was made of.
 *
 *   json.encode(value) -> text | nil, err     json.decode(text, max_values?) -> value | nil, err
 *   json.check(value) -> true | nil, err      json.raw(text) -> value that encodes as this text
 *   json.restore(text) -> value: of text that encode made, faster than decode
 *   json.array(t?) -> t                       json.is_array(t) -> boolean        json.null
 */
#include <string.h>

#include "bind/bind.h"
#include "core/json.h"

static bool encode_argument(lua_State *L, tm_error *err) {
  tm_buf *text = &tm__vm(L)->json.text;
  luaL_checkany(L, 1);
  tm__buf_clear(text);
  return tm__json_encode(L, 1, "value", false, text, err);
}

static int json_encode(lua_State *L) {
  tm_error err = {0};
  if (!encode_argument(L, &err)) return tm__push_fail(L, &err);
  tm_slice text = tm__buf_view(&tm__vm(L)->json.text);
  lua_pushlstring(L, text.ptr, text.len);
  return 1;
}

static int json_check(lua_State *L) {
  tm_error err = {0};
  if (!encode_argument(L, &err)) return tm__push_fail(L, &err);
  lua_pushboolean(L, 1);
  return 1;
}

static int json_decode(lua_State *L) {
  tm_error err = {0};
  tm_slice text;
  text.ptr = luaL_checklstring(L, 1, &text.len);
  lua_Integer max = luaL_optinteger(L, 2, LUA_MAXINTEGER);
  luaL_argcheck(L, max >= 0, 2, "a number of values");
  return tm__json_decode(L, text, (size_t)max, &err) == TM_OK ? 1 : tm__push_fail(L, &err);
}

static int json_restore(lua_State *L) {
  tm_error err = {0};
  tm_slice text;
  text.ptr = luaL_checklstring(L, 1, &text.len);
  return tm__json_restore(L, text, &err) == TM_OK ? 1 : tm__raise(L, &err);
}

static void push_mark(lua_State *L, const void *mark) {
  (void)lua_rawgetp(L, LUA_REGISTRYINDEX, mark);
}

static int json_make_array(lua_State *L) {
  if (lua_isnoneornil(L, 1)) {
    lua_settop(L, 0);
    lua_newtable(L);
  }
  luaL_checktype(L, 1, LUA_TTABLE);
  const void *mark = tm__vm(L)->json.array_mark;
  if (lua_getmetatable(L, 1) && lua_topointer(L, -1) != mark)
    return luaL_argerror(L, 1, "a table with a metatable cannot become an array");
  lua_settop(L, 1);
  push_mark(L, mark);
  lua_setmetatable(L, 1);
  return 1;
}

static int json_has_mark(lua_State *L) {
  luaL_checkany(L, 1);
  bool marked = lua_type(L, 1) == LUA_TTABLE && lua_getmetatable(L, 1) != 0;
  lua_pushboolean(L, marked && lua_topointer(L, -1) == tm__vm(L)->json.array_mark);
  return 1;
}

static int json_raw(lua_State *L) {
  (void)luaL_checkstring(L, 1);
  (void)lua_newuserdatauv(L, 0, 1);
  lua_pushvalue(L, 1);
  (void)lua_setiuservalue(L, -2, 1);
  push_mark(L, tm__vm(L)->json.raw_mark);
  lua_setmetatable(L, -2);
  return 1;
}

static int null_text(lua_State *L) {
  bool null = lua_touserdata(L, 1) == NULL;
  lua_pushstring(L, null ? "null" : "userdata");
  return 1;
}

/* A locked metatable that C knows by its address; it stays in the registry under it. */
static const void *make_mark(lua_State *L, const char *name) {
  lua_createtable(L, 0, 2);
  const void *mark = lua_topointer(L, -1);
  lua_pushstring(L, name);
  lua_setfield(L, -2, "__name");
  lua_pushboolean(L, 0);
  lua_setfield(L, -2, "__metatable");
  lua_rawsetp(L, LUA_REGISTRYINDEX, mark);
  return mark;
}

void tm__json_open(lua_State *L) {
  tm_json *j = &tm__vm(L)->json;
  j->array_mark = make_mark(L, "array");
  j->raw_mark = make_mark(L, "json");
  tm__json_push_null(L); /* all light userdata of a state share one metatable */
  lua_createtable(L, 0, 2);
  lua_pushcfunction(L, null_text);
  lua_setfield(L, -2, "__tostring");
  lua_pushboolean(L, 0);
  lua_setfield(L, -2, "__metatable");
  lua_setmetatable(L, -2);
  lua_pop(L, 1);
}

int tm__open_json(lua_State *L) {
  static const luaL_Reg funcs[] = {
      {"encode", json_encode},    {"decode", json_decode},
      {"restore", json_restore},  {"check", json_check},
      {"array", json_make_array}, {"is_array", json_has_mark},
      {"raw", json_raw},          {NULL, NULL},
  };
  luaL_newlib(L, funcs);
  tm__json_push_null(L);
  lua_setfield(L, -2, "null");
  return 1;
}
