/* host.uuid - fresh ids: uuid.new() -> UUIDv7 as text. */
#include "bind/bind.h"
#include "core/id.h"

static int uuid_new(lua_State *L) {
  char id[TM_ID_SIZE];
  tm__uuid7(id, tm__clock_now(&tm__vm(L)->o.clock));
  lua_pushstring(L, id);
  return 1;
}

int tm__open_uuid(lua_State *L) {
  static const luaL_Reg funcs[] = {{"new", uuid_new}, {NULL, NULL}};
  luaL_newlib(L, funcs);
  return 1;
}
