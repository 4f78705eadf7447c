/* lib_format.c - string.format: one item after the other, each charged for what it takes. */
#include <float.h>
#include <locale.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "bind/libs.h"

#define MAX_SPEC     32  /* of "%-099.99lld" with some room */
#define MAX_ITEM     120 /* bytes of any number or short text, but for %f */
#define MAX_F        (110 + DBL_MAX_10_EXP)
#define NUMBER_UNITS 50 /* what printing a number costs at most */

/* The specification has been checked against what it is given. */
static size_t print(char *to, size_t most, const char *spec, va_list args) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
  return (size_t)vsnprintf(to, most, spec, args);
#pragma GCC diagnostic pop
}

static void add_printed(luaL_Buffer *b, size_t most, const char *spec, ...) {
  va_list args;
  char *to = luaL_prepbuffsize(b, most);
  va_start(args, spec);
  luaL_addsize(b, print(to, most, spec, args));
  va_end(args);
}

/* ---- specifications ---- */

/* Copies the one behind the % before p; returns its last byte, the conversion. */
static const char *take_spec(lua_State *L, const char *p, char spec[MAX_SPEC]) {
  size_t len = strspn(p, "-+#0 123456789.") + 1;
  if (len >= MAX_SPEC - 10) (void)luaL_error(L, "invalid format (too long)");
  spec[0] = '%';
  memcpy(spec + 1, p, len);
  spec[len + 1] = '\0';
  return p + len - 1;
}

static const char *skip_two_digits(const char *p) {
  for (int i = 0; i < 2 && *p >= '0' && *p <= '9'; i++)
    p++;
  return p;
}

static void check_spec(lua_State *L, const char *spec, const char *flags, bool precision) {
  const char *p = spec + 1;
  p += strspn(p, flags);
  if (*p != '0') {
    p = skip_two_digits(p);
    if (*p == '.' && precision) p = skip_two_digits(p + 1);
  }
  if (!((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z')))
    (void)luaL_error(L, "invalid conversion specification: '%s'", spec);
}

static void make_long_long(char spec[MAX_SPEC]) {
  size_t len = strlen(spec);
  char conversion = spec[len - 1];
  memcpy(spec + len - 1, "ll", 2);
  spec[len + 1] = conversion;
  spec[len + 2] = '\0';
}

/* ---- %q ---- */

static void add_control(luaL_Buffer *b, unsigned char c, bool digit_follows) {
  char text[4] = {'\\', (char)('0' + c / 100), (char)('0' + c / 10 % 10), (char)('0' + c % 10)};
  size_t skip = digit_follows || c >= 100 ? 0 : c >= 10 ? 1 : 2;
  luaL_addchar(b, text[0]);
  luaL_addlstring(b, text + 1 + skip, 3 - skip);
}

static void add_quoted(lua_State *L, luaL_Buffer *b, int arg) {
  size_t len;
  const char *s = lua_tolstring(L, arg, &len);
  tm__limits_spend(L, len);
  luaL_addchar(b, '"');
  for (size_t i = 0; i < len; i++) {
    unsigned char c = (unsigned char)s[i];
    if (c == '"' || c == '\\' || c == '\n') {
      luaL_addchar(b, '\\');
      luaL_addchar(b, (char)c);
    } else if (c < 32 || c == 127) {
      add_control(b, c, s[i + 1] >= '0' && s[i + 1] <= '9');
    } else {
      luaL_addchar(b, (char)c);
    }
  }
  luaL_addchar(b, '"');
}

/* As a numeral that Lua reads back exactly. */
static void add_float(luaL_Buffer *b, double x) {
  char text[MAX_ITEM];
  if (isnan(x))
    (void)snprintf(text, sizeof(text), "(0/0)");
  else if (isinf(x))
    (void)snprintf(text, sizeof(text), "%s", x > 0 ? "1e9999" : "-1e9999");
  else
    (void)snprintf(text, sizeof(text), "%a", x);
  char *point = strchr(text, localeconv()->decimal_point[0]);
  if (point != NULL) *point = '.';
  luaL_addstring(b, text);
}

static void add_literal(lua_State *L, luaL_Buffer *b, int arg) {
  switch (lua_type(L, arg)) {
  case LUA_TSTRING: add_quoted(L, b, arg); break;
  case LUA_TNUMBER:
    if (!lua_isinteger(L, arg))
      add_float(b, lua_tonumber(L, arg));
    else if (lua_tointeger(L, arg) == LUA_MININTEGER)
      luaL_addstring(b, "0x8000000000000000");
    else
      add_printed(b, MAX_ITEM, "%lld", lua_tointeger(L, arg));
    break;
  case LUA_TNIL:
  case LUA_TBOOLEAN:
    (void)luaL_tolstring(L, arg, NULL);
    luaL_addvalue(b);
    break;
  default: (void)luaL_argerror(L, arg, "value has no literal form");
  }
}

/* ---- the other items ---- */

static size_t print_text(char *to, const char *spec, ...) {
  va_list args;
  va_start(args, spec);
  size_t n = print(to, MAX_ITEM, spec, args);
  va_end(args);
  return n;
}

/* The room comes first: once the text is on the stack, the buffer cannot grow. */
static void add_text(lua_State *L, luaL_Buffer *b, int arg, const char *spec) {
  size_t len;
  char *to = luaL_prepbuffsize(b, MAX_ITEM);
  const char *s = luaL_tolstring(L, arg, &len);
  bool modified = spec[2] != '\0';
  tm__limits_spend(L, tm__copy_units(len));
  if (modified) {
    luaL_argcheck(L, len == strlen(s), arg, "string contains zeros");
    check_spec(L, spec, "-", true);
  }
  if (!modified || (strchr(spec, '.') == NULL && len >= 100)) { /* longer than any width */
    luaL_addvalue(b);
    return;
  }
  luaL_addsize(b, print_text(to, spec, s));
  lua_pop(L, 1);
}

static void add_pointer(lua_State *L, luaL_Buffer *b, int arg, char spec[MAX_SPEC]) {
  const void *p = lua_topointer(L, arg);
  check_spec(L, spec, "-", false);
  if (p == NULL) spec[strlen(spec) - 1] = 's';
  add_printed(b, MAX_ITEM, spec, p != NULL ? p : "(null)");
}

static void add_integer(lua_State *L, luaL_Buffer *b, int arg, char spec[MAX_SPEC],
                        const char *flags) {
  long long n = tm__charged_integer(L, arg);
  check_spec(L, spec, flags, true);
  make_long_long(spec);
  add_printed(b, MAX_ITEM, spec, n);
}

static void add_item(lua_State *L, luaL_Buffer *b, int arg, char spec[MAX_SPEC], char conversion) {
  switch (conversion) {
  case 'c':
    check_spec(L, spec, "-", false);
    add_printed(b, MAX_ITEM, spec, (int)tm__charged_integer(L, arg));
    break;
  case 'd':
  case 'i': add_integer(L, b, arg, spec, "-+0 "); break;
  case 'u': add_integer(L, b, arg, spec, "-0"); break;
  case 'o':
  case 'x':
  case 'X': add_integer(L, b, arg, spec, "-#0"); break;
  case 'a':
  case 'A': check_spec(L, spec, "-+#0 ", true); __attribute__((fallthrough));
  case 'f':
  case 'e':
  case 'E':
  case 'g':
  case 'G': {
    double x = luaL_checknumber(L, arg);
    check_spec(L, spec, "-+#0 ", true);
    add_printed(b, conversion == 'f' ? MAX_F : MAX_ITEM, spec, x);
    break;
  }
  case 'p': add_pointer(L, b, arg, spec); break;
  case 'q':
    if (spec[2] != '\0') (void)luaL_error(L, "specifier '%%q' cannot have modifiers");
    add_literal(L, b, arg);
    break;
  case 's': add_text(L, b, arg, spec); break;
  default: (void)luaL_error(L, "invalid conversion '%s' to 'format'", spec);
  }
}

int tm__string_format(lua_State *L) {
  int top = lua_gettop(L), arg = 1;
  size_t len;
  const char *p = luaL_checklstring(L, 1, &len), *end = p + len;
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  tm__limits_spend(L, tm__copy_units(len));
  for (;;) {
    char spec[MAX_SPEC];
    const char *percent = memchr(p, '%', (size_t)(end - p));
    luaL_addlstring(&b, p, (size_t)((percent != NULL ? percent : end) - p));
    if (percent == NULL) break;
    p = percent + 1;
    if (*p == '%') {
      luaL_addchar(&b, *p++);
      continue;
    }
    if (++arg > top) return luaL_argerror(L, arg, "no value");
    p = take_spec(L, p, spec) + 1;
    tm__limits_spend(L, NUMBER_UNITS);
    add_item(L, &b, arg, spec, p[-1]);
  }
  luaL_pushresult(&b);
  return 1;
}
