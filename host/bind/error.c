/* error.c - the one error shape, from C to Lua and back. */
#include <stdio.h>
#include <string.h>

#include "bind/bind.h"

#define ERROR_TYPE "tidemill.error"

static int error_text(lua_State *L) {
  lua_settop(L, 1);
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_pushliteral(L, "message");
  if (lua_rawget(L, 1) != LUA_TSTRING) lua_pushliteral(L, "unknown error");
  return 1;
}

static bool is_retryable(tm_status status) {
  return status == TM_EUNAVAILABLE || status == TM_EIO || status == TM_ENOMEM;
}

void tm__push_error(lua_State *L, const tm_error *err) {
  if (err->status == TM_ENOMEM) tm__limits_no_memory(L);
  lua_createtable(L, 0, 4);
  lua_pushstring(L, err->code);
  lua_setfield(L, -2, "code");
  lua_pushstring(L, err->message);
  lua_setfield(L, -2, "message");
  lua_pushstring(L, tm_status_name(err->status));
  lua_setfield(L, -2, "status");
  lua_pushboolean(L, is_retryable(err->status));
  lua_setfield(L, -2, "retryable");
  if (luaL_newmetatable(L, ERROR_TYPE)) {
    lua_pushcfunction(L, error_text);
    lua_setfield(L, -2, "__tostring");
  }
  lua_setmetatable(L, -2);
}

int tm__push_fail(lua_State *L, const tm_error *err) {
  lua_pushnil(L);
  tm__push_error(L, err);
  return 2;
}

int tm__raise(lua_State *L, const tm_error *err) {
  tm__push_error(L, err);
  return lua_error(L);
}

/* Pushes the text of a field, without metamethods; "" when it is no text. */
static const char *text_field(lua_State *L, int table, const char *name) {
  lua_pushstring(L, name);
  return lua_rawget(L, table) == LUA_TSTRING ? lua_tostring(L, -1) : "";
}

static void take_table(lua_State *L, int idx, tm_error *err) {
  const char *code = text_field(L, idx, "code");
  const char *message = text_field(L, idx, "message");
  const char *status = text_field(L, idx, "status");
  const char *step = text_field(L, idx, "step_id");
  tm_status st = status[0] != '\0' ? tm__status_from_name(status) : TM_ESCRIPT;
  if (st == TM_OK) st = TM_ESCRIPT;
  (void)tm__fail(err, st, code[0] != '\0' ? code : "script.error", "%s",
                 message[0] != '\0' ? message : "an error without a message");
  (void)snprintf(err->step_id, sizeof(err->step_id), "%s", step);
  lua_pop(L, 4);
}

static void take_text(lua_State *L, int idx, tm_error *err) {
  const char *text = lua_tostring(L, idx);
  luaL_traceback(L, L, NULL, 1);
  (void)tm__fail(err, TM_ESCRIPT, "script.error", "%s\n%s", text, lua_tostring(L, -1));
  lua_pop(L, 1);
}

void tm__take_error(lua_State *L, int idx, tm_error *err) {
  luaL_checkstack(L, 8, "no room for an error");
  idx = lua_absindex(L, idx);
  switch (lua_type(L, idx)) {
  case LUA_TTABLE: take_table(L, idx, err); break;
  case LUA_TSTRING: take_text(L, idx, err); break;
  default:
    (void)tm__fail(err, TM_ESCRIPT, "script.error", "a script raised a %s instead of an error",
                   luaL_typename(L, idx));
  }
}
