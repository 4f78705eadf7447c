/* host.crypto - crypto.digest(text, n) -> n hex digits of its BLAKE2b-256 digest, 1 to 64. */
#include "bind/bind.h"
#include "bind/libs.h"
#include "core/id.h"

static int crypto_digest(lua_State *L) {
  tm_slice text;
  text.ptr = luaL_checklstring(L, 1, &text.len);
  lua_Integer n = luaL_checkinteger(L, 2);
  luaL_argcheck(L, n >= 1 && n <= 64, 2, "1 to 64 digits");
  tm__limits_spend(L, tm__copy_units(text.len));
  char hex[65];
  tm__digest_hex(hex, (size_t)n, &text, 1);
  lua_pushlstring(L, hex, (size_t)n);
  return 1;
}

int tm__open_crypto(lua_State *L) {
  static const luaL_Reg funcs[] = {{"digest", crypto_digest}, {NULL, NULL}};
  luaL_newlib(L, funcs);
  return 1;
}
