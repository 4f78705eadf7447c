/* host.clock - what time it is, by the host's clock.
 *
 *   clock.now() -> ms since 1970, UTC     clock.monotonic() -> ms, for spans only
 */
#include "bind/bind.h"

static int clock_now(lua_State *L) {
  lua_pushinteger(L, tm__clock_now(&tm__vm(L)->o.clock));
  return 1;
}

static int clock_monotonic(lua_State *L) {
  lua_pushinteger(L, tm__clock_monotonic_us() / 1000);
  return 1;
}

int tm__open_clock(lua_State *L) {
  static const luaL_Reg funcs[] = {
      {"now", clock_now},
      {"monotonic", clock_monotonic},
      {NULL, NULL},
  };
  luaL_newlib(L, funcs);
  return 1;
}
