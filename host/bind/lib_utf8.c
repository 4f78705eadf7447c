/* lib_utf8.c - the utf8 library. Sequences of up to six bytes decode, as in Lua, where a caller is
 * lax about them. */
#include <limits.h>
#include <string.h>

#include "bind/libs.h"

#define MAX_UNICODE 0x10FFFFU
#define MAX_CODE    0x7FFFFFFFU

static bool continues(const char *s) {
  return (*s & 0xC0) == 0x80;
}

/* An offset as an argument has it: negative counts from the end; 0 when it is before the start. */
static lua_Integer position(lua_Integer at, size_t len) {
  if (at >= 0) return at;
  return 0U - (size_t)at > len ? 0 : (lua_Integer)len + at + 1;
}

/* Behind the sequence at s, which ends before a NUL; NULL: it is none. */
static const char *decode(const char *s, uint32_t *code, bool lax) {
  static const uint32_t least[] = {UINT32_MAX, 0x80, 0x800, 0x10000, 0x200000, 0x4000000};
  uint32_t first = (unsigned char)*s, value = 0, more = 0;
  *code = first;
  if (first < 0x80) return s + 1;
  for (; first & 0x40; first <<= 1) {
    if (!continues(s + ++more)) return NULL;
    value = (value << 6) | ((unsigned char)s[more] & 0x3F);
  }
  value |= (first & 0x7F) << (more * 5);
  if (more > 5 || value > MAX_CODE || value < least[more]) return NULL;
  if (!lax && (value > MAX_UNICODE || (value >= 0xD800 && value <= 0xDFFF))) return NULL;
  *code = value;
  return s + more + 1;
}

static int utf8_len(lua_State *L) {
  size_t len;
  lua_Integer count = 0;
  const char *s = luaL_checklstring(L, 1, &len);
  lua_Integer at = position(luaL_optinteger(L, 2, 1), len);
  lua_Integer last = position(luaL_optinteger(L, 3, -1), len);
  bool lax = lua_toboolean(L, 4);
  luaL_argcheck(L, 1 <= at && --at <= (lua_Integer)len, 2, "initial position out of bounds");
  luaL_argcheck(L, --last < (lua_Integer)len, 3, "final position out of bounds");
  for (lua_Integer start = at; at <= last; count++) {
    uint32_t code;
    const char *next = decode(s + at, &code, lax);
    if (next == NULL) {
      tm__limits_spend(L, (size_t)(at - start));
      lua_pushnil(L);
      lua_pushinteger(L, at + 1);
      return 2;
    }
    at = next - s;
  }
  tm__limits_spend(L, (size_t)count);
  lua_pushinteger(L, count);
  return 1;
}

static int utf8_codepoint(lua_State *L) {
  size_t len;
  const char *s = luaL_checklstring(L, 1, &len);
  lua_Integer from = position(luaL_optinteger(L, 2, 1), len);
  lua_Integer to = position(luaL_optinteger(L, 3, from), len);
  bool lax = lua_toboolean(L, 4);
  luaL_argcheck(L, from >= 1, 2, "out of bounds");
  luaL_argcheck(L, to <= (lua_Integer)len, 3, "out of bounds");
  if (from > to) return 0;
  if (!tm__has_room(L, (uint64_t)(to - from) + 1)) return luaL_error(L, "string slice too long");
  int count = 0;
  for (const char *at = s + from - 1, *end = s + to; at < end; count++) {
    uint32_t code;
    at = decode(at, &code, lax);
    if (at == NULL) return luaL_error(L, "invalid UTF-8 code");
    lua_pushinteger(L, code);
  }
  tm__limits_spend(L, (size_t)count);
  return count;
}

/* ---- char ---- */

/* The bytes of a code of up to 31 bits; returns how many. */
static size_t encode(char out[6], uint32_t code) {
  if (code < 0x80) {
    out[0] = (char)code;
    return 1;
  }
  size_t more = 1;
  while (more < 5 && code >> (5 * more + 6) != 0)
    more++;
  for (size_t i = more; i > 0; i--, code >>= 6)
    out[i] = (char)(0x80 | (code & 0x3F));
  out[0] = (char)((0xFFU << (7 - more) & 0xFF) | code);
  return more + 1;
}

static int utf8_char(lua_State *L) {
  int n = lua_gettop(L);
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  tm__limits_spend(L, (size_t)n);
  for (int i = 1; i <= n; i++) {
    char bytes[6];
    lua_Unsigned code = (lua_Unsigned)tm__charged_integer(L, i);
    luaL_argcheck(L, code <= MAX_CODE, i, "value out of range");
    luaL_addlstring(&b, bytes, encode(bytes, (uint32_t)code));
  }
  luaL_pushresult(&b);
  return 1;
}

/* ---- offset ---- */

/* The start of the character n characters away from the one that starts at `at`; -1: none. */
static lua_Integer walk(const char *s, lua_Integer len, lua_Integer at, lua_Integer n) {
  for (; n < 0 && at > 0; n++) {
    at--;
    while (at > 0 && continues(s + at))
      at--;
  }
  for (; n > 0 && at < len; n--) {
    at++;
    while (continues(s + at)) /* the NUL at the end does not */
      at++;
  }
  return n == 0 ? at : -1;
}

static int utf8_offset(lua_State *L) {
  size_t size;
  const char *s = luaL_checklstring(L, 1, &size);
  lua_Integer len = (lua_Integer)size, n = luaL_checkinteger(L, 2);
  lua_Integer at = position(luaL_optinteger(L, 3, n >= 0 ? 1 : len + 1), size);
  luaL_argcheck(L, 1 <= at && --at <= len, 3, "position out of bounds");
  lua_Integer start = at;
  if (n == 0) {
    while (at > 0 && continues(s + at))
      at--;
  } else {
    if (continues(s + at)) return luaL_error(L, "initial position is a continuation byte");
    at = walk(s, len, at, n > 0 ? n - 1 : n);
  }
  lua_Integer passed = at < 0 ? len : at > start ? at - start : start - at;
  tm__limits_spend(L, (size_t)passed / 2);
  if (at >= 0)
    lua_pushinteger(L, at + 1);
  else
    lua_pushnil(L);
  return 1;
}

/* ---- codes ---- */

static int next_code(lua_State *L, bool lax) {
  size_t len;
  const char *s = luaL_checklstring(L, 1, &len);
  lua_Unsigned start = (lua_Unsigned)lua_tointeger(L, 2), at = start;
  while (at < len && continues(s + at))
    at++;
  if (at >= len) {
    tm__limits_spend(L, at > start ? at - start : 0);
    return 0;
  }
  tm__limits_spend(L, at - start);
  uint32_t code;
  if (decode(s + at, &code, lax) == NULL) return luaL_error(L, "invalid UTF-8 code");
  lua_pushinteger(L, (lua_Integer)at + 1);
  lua_pushinteger(L, code);
  return 2;
}

static int next_strict(lua_State *L) {
  return next_code(L, false);
}

static int next_lax(lua_State *L) {
  return next_code(L, true);
}

static int utf8_codes(lua_State *L) {
  bool lax = lua_toboolean(L, 2);
  (void)luaL_checkstring(L, 1);
  lua_pushcfunction(L, lax ? next_lax : next_strict);
  lua_pushvalue(L, 1);
  lua_pushinteger(L, 0);
  return 3;
}

void tm__lib_utf8(lua_State *L) {
  static const luaL_Reg funcs[] = {
      {"len", utf8_len},       {"codepoint", utf8_codepoint}, {"char", utf8_char},
      {"offset", utf8_offset}, {"codes", utf8_codes},         {NULL, NULL},
  };
  static const char character[] = "[\0-\x7F\xC2-\xFD][\x80-\xBF]*";
  luaL_setfuncs(L, funcs, 0);
  lua_pushlstring(L, character, sizeof(character) - 1);
  lua_setfield(L, -2, "charpattern");
}
