/* host.config - config.get() -> a fresh table of the defaults that the host was configured with. */
#include "bind/bind.h"

static int config_get(lua_State *L) {
  tm_error err;
  const char *json = tm__vm(L)->o.config_json;
  tm_slice text = tm__slice(json != NULL ? json : "{}");
  return tm__json_decode(L, text, SIZE_MAX, &err) == TM_OK ? 1 : tm__raise(L, &err);
}

int tm__open_config(lua_State *L) {
  static const luaL_Reg funcs[] = {{"get", config_get}, {NULL, NULL}};
  luaL_newlib(L, funcs);
  return 1;
}
