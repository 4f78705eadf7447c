/* lib_string.c - the string library but for patterns (lib_search.c) and format (lib_format.c). */
#include <limits.h>
#include <string.h>

#include "bind/libs.h"

size_t tm__range_start(lua_Integer at, size_t len) {
  if (at > 0) return (size_t)at;
  if (at == 0 || at < -(lua_Integer)len) return 1;
  return len - (size_t)-at + 1;
}

/* The end of a range is at most `len`. */
static size_t range_end(lua_Integer at, size_t len) {
  if (at > (lua_Integer)len) return len;
  if (at >= 0) return (size_t)at;
  return at < -(lua_Integer)len ? 0 : len - (size_t)-at + 1;
}

static int string_len(lua_State *L) {
  size_t len;
  (void)luaL_checklstring(L, 1, &len);
  lua_pushinteger(L, (lua_Integer)len);
  return 1;
}

static int string_sub(lua_State *L) {
  size_t len;
  const char *s = luaL_checklstring(L, 1, &len);
  size_t from = tm__range_start(luaL_checkinteger(L, 2), len);
  size_t to = range_end(luaL_optinteger(L, 3, -1), len);
  size_t size = from <= to ? to - from + 1 : 0;
  tm__limits_spend(L, tm__copy_units(size));
  lua_pushlstring(L, size > 0 ? s + from - 1 : "", size);
  return 1;
}

static int string_byte(lua_State *L) {
  size_t len;
  const char *s = luaL_checklstring(L, 1, &len);
  lua_Integer first = luaL_optinteger(L, 2, 1);
  size_t from = tm__range_start(first, len);
  size_t to = range_end(luaL_optinteger(L, 3, first), len);
  if (from > to) return 0;
  if (!tm__has_room(L, to - from + 1)) return luaL_error(L, "string slice too long");
  int n = (int)(to - from) + 1;
  tm__limits_spend(L, (size_t)n);
  for (int i = 0; i < n; i++)
    lua_pushinteger(L, (unsigned char)s[from + (size_t)i - 1]);
  return n;
}

static int string_char(lua_State *L) {
  int n = lua_gettop(L);
  luaL_Buffer b;
  char *to = tm__buffer(L, &b, (size_t)n);
  tm__limits_spend(L, (size_t)n);
  for (int i = 1; i <= n; i++) {
    lua_Unsigned c = (lua_Unsigned)tm__charged_integer(L, i);
    luaL_argcheck(L, c <= UCHAR_MAX, i, "value out of range");
    to[i - 1] = (char)c;
  }
  luaL_pushresultsize(&b, (size_t)n);
  return 1;
}

/* ---- a new text as long as the old ---- */

static char *begin_copy(lua_State *L, luaL_Buffer *b, const char **s, size_t *len) {
  *s = luaL_checklstring(L, 1, len);
  tm__limits_spend(L, *len / 8);
  return tm__buffer(L, b, *len);
}

static int string_reverse(lua_State *L) {
  luaL_Buffer b;
  const char *s;
  size_t len;
  char *to = begin_copy(L, &b, &s, &len);
  for (size_t i = 0; i < len; i++)
    to[i] = s[len - i - 1];
  luaL_pushresultsize(&b, len);
  return 1;
}

static int string_lower(lua_State *L) {
  luaL_Buffer b;
  const char *s;
  size_t len;
  char *to = begin_copy(L, &b, &s, &len);
  for (size_t i = 0; i < len; i++)
    to[i] = (char)(s[i] >= 'A' && s[i] <= 'Z' ? s[i] + ('a' - 'A') : s[i]);
  luaL_pushresultsize(&b, len);
  return 1;
}

static int string_upper(lua_State *L) {
  luaL_Buffer b;
  const char *s;
  size_t len;
  char *to = begin_copy(L, &b, &s, &len);
  for (size_t i = 0; i < len; i++)
    to[i] = (char)(s[i] >= 'a' && s[i] <= 'z' ? s[i] - ('a' - 'A') : s[i]);
  luaL_pushresultsize(&b, len);
  return 1;
}

/* ---- rep ---- */

/* Fills all of `to` by repeating its first `period` bytes. */
static void repeat(char *to, size_t period, size_t size) {
  for (size_t done = period; done < size;) {
    size_t more = done < size - done ? done : size - done;
    memcpy(to + done, to, more);
    done += more;
  }
}

static int string_rep(lua_State *L) {
  size_t len, separator_len;
  const char *s = luaL_checklstring(L, 1, &len);
  lua_Integer n = luaL_checkinteger(L, 2);
  const char *separator = luaL_optlstring(L, 3, "", &separator_len);
  size_t unit = len + separator_len;
  if (n > 0 && unit > INT_MAX / (lua_Unsigned)n) return luaL_error(L, "resulting string too large");
  size_t size = n > 0 ? unit * (size_t)n - separator_len : 0;
  luaL_Buffer b;
  char *to = tm__buffer(L, &b, size);
  tm__limits_spend(L, tm__copy_units(size));
  if (size > 0) {
    memcpy(to, s, len);
    if (size > len) memcpy(to + len, separator, separator_len);
    repeat(to, n > 1 ? unit : size, size);
  }
  luaL_pushresultsize(&b, size);
  return 1;
}

void tm__lib_string(lua_State *L) {
  static const luaL_Reg funcs[] = {
      {"len", string_len},           {"sub", string_sub},
      {"byte", string_byte},         {"char", string_char},
      {"lower", string_lower},       {"upper", string_upper},
      {"reverse", string_reverse},   {"rep", string_rep},
      {"format", tm__string_format}, {NULL, NULL},
  };
  luaL_setfuncs(L, funcs, 0);
  tm__lib_search(L);
}
