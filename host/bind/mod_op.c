/* host.op - op.cancel(op) -> boolean: nothing more comes for it; false: it was over already. */
#include "bind/bind.h"

static int op_cancel(lua_State *L) {
  lua_Integer id = luaL_checkinteger(L, 1);
  lua_pushboolean(L, tm__op_cancel(tm__vm(L), (uint64_t)id));
  return 1;
}

int tm__open_op(lua_State *L) {
  static const luaL_Reg funcs[] = {{"cancel", op_cancel}, {NULL, NULL}};
  luaL_newlib(L, funcs);
  return 1;
}
