/* hostlua.c - the C modules of the runtime inside a plain lua5.4, for specs.
 *
 * `require "hostlua"` makes every host.* loadable, and hostlua.string etc., which are the host's
 * own beside Lua's. There is no worker, no turn and no system here:
 * what needs one answers nil and an error. The context lives as long as the Lua state.
 */
#include <string.h>

#include "bind/bind.h"
#include "bind/libs.h"

__attribute__((visibility("default"))) int luaopen_hostlua(lua_State *L);

static tm_status read_nothing(void *ud, tm_slice path, tm_buf *out, tm_error *err) {
  (void)ud;
  (void)out;
  return tm__fail(err, TM_ENOTFOUND, "file.not_found", "%.*s: there is no system here",
                  (int)path.len, path.ptr);
}

static int release(lua_State *L) {
  tm__vm_release(lua_touserdata(L, 1));
  return 0;
}

static void adopt(lua_State *L) {
  tm_vm *vm = lua_newuserdatauv(L, sizeof(*vm), 0);
  memset(vm, 0, sizeof(*vm));
  vm->o.config_json = "{}";
  vm->o.read_file = read_nothing;
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, release);
  lua_setfield(L, -2, "__gc");
  lua_setmetatable(L, -2);
  (void)lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_MAINTHREAD);
  tm__vm_adopt(vm, lua_tothread(L, -1));
  lua_pop(L, 1);
  *(tm_vm **)lua_getextraspace(L) = vm; /* a coroutine that exists already */
  lua_setfield(L, LUA_REGISTRYINDEX, "hostlua");
}

static int open_string(lua_State *L) {
  lua_newtable(L);
  tm__lib_string(L);
  return 1;
}

static int open_table(lua_State *L) {
  lua_newtable(L);
  tm__lib_table(L);
  return 1;
}

static int open_utf8(lua_State *L) {
  lua_newtable(L);
  tm__lib_utf8(L);
  return 1;
}

int luaopen_hostlua(lua_State *L) {
  static const luaL_Reg modules[] = {
#define MODULE(name) {"host." #name, tm__open_##name},
#include "bind/modules.def"
#undef MODULE
      {"hostlua.string", open_string},
      {"hostlua.table", open_table},
      {"hostlua.utf8", open_utf8},
      {NULL, NULL},
  };
  adopt(L);
  tm__json_open(L);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  luaL_setfuncs(L, modules, 0);
  lua_pushboolean(L, 1);
  return 1;
}
