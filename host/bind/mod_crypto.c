/* host.crypto - crypto.digest(text, n) -> n hex digits of its BLAKE2b-256 digest, 1 to 64. */
#include "bind/libs.h"
#include "core/id.h"

#define PIECE ((size_t)64 << 10)

static int crypto_digest(lua_State *L) {
  tm_slice text;
  text.ptr = luaL_checklstring(L, 1, &text.len);
  lua_Integer n = luaL_checkinteger(L, 2);
  luaL_argcheck(L, n >= 1 && n <= 64, 2, "1 to 64 digits");
  char hex[65];
  tm_digest d;
  tm__digest_begin(&d);
  tm__digest_part(&d, text.len);
  for (size_t at = 0; at < text.len; at += PIECE) {
    size_t len = text.len - at < PIECE ? text.len - at : PIECE;
    tm__limits_spend(L, tm__reading_units(len));
    tm__digest_add(&d, (tm_slice){text.ptr + at, len});
  }
  tm__digest_end(&d, hex, (size_t)n);
  lua_pushlstring(L, hex, (size_t)n);
  return 1;
}

int tm__open_crypto(lua_State *L) {
  static const luaL_Reg funcs[] = {{"digest", crypto_digest}, {NULL, NULL}};
  luaL_newlib(L, funcs);
  return 1;
}
