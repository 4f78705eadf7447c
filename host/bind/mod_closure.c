/* host.closure - what Lua knows about a function of a script, for checks: nothing here calls it.
 *
 *   closure.place(fn) -> chunk name, first line, last line | nil (it is no Lua function)
 *   closure.upvalue(fn, i) -> name, value | nil (it has no more)
 */
#include "bind/bind.h"

static int closure_place(lua_State *L) {
  lua_Debug ar;
  luaL_checktype(L, 1, LUA_TFUNCTION);
  lua_settop(L, 1);
  if (lua_iscfunction(L, 1) || lua_getinfo(L, ">S", &ar) == 0) {
    lua_pushnil(L);
    return 1;
  }
  lua_pushstring(L, ar.source);
  lua_pushinteger(L, ar.linedefined);
  lua_pushinteger(L, ar.lastlinedefined);
  return 3;
}

static int closure_upvalue(lua_State *L) {
  luaL_checktype(L, 1, LUA_TFUNCTION);
  int at = (int)luaL_checkinteger(L, 2);
  luaL_argcheck(L, at >= 1 && at <= 255, 2, "from 1 to 255");
  const char *name = lua_getupvalue(L, 1, at);
  lua_pushstring(L, name);
  if (name == NULL) return 1;
  lua_rotate(L, -2, 1);
  return 2;
}

int tm__open_closure(lua_State *L) {
  static const luaL_Reg funcs[] = {
      {"place", closure_place}, {"upvalue", closure_upvalue}, {NULL, NULL}};
  luaL_newlib(L, funcs);
  return 1;
}
