/* The host's find, gmatch and gsub against Lua's, on any bytes: flags, a pattern up to a NUL, a
 * replacement up to a NUL, the subject. Small sizes and few repetitions, so that Lua's ends as
 * well. */
#include <stdlib.h>
#include <string.h>

#include "bind/embedded.h"
#include "bind/libs.h"
#include <lualib.h>

#define MAX_SUBJECT 24
#define MAX_PATTERN 16
#define MAX_REPEATS 3 /* of * + - ? in a pattern: Lua takes 24^3 steps from each place */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

const struct tm__embedded tm__embedded[] = {{0, 0, 0, 0}};

static const char program[] =
    "local theirs, ours, call = string, ...\n"
    "local function all(lib, name, ...)\n"
    "  if name ~= 'gmatch' then return lib[name](...) end\n"
    "  local found = {}\n"
    "  for a, b in lib.gmatch(...) do found[#found + 1] = tostring(a) .. '/' .. tostring(b) end\n"
    "  return table.concat(found, ' ')\n"
    "end\n"
    "local function same(name, ...)\n"
    "  local a = table.pack(pcall(all, theirs, name, ...))\n"
    "  local b = table.pack(pcall(all, ours, name, ...))\n"
    "  local equal = a.n == b.n\n"
    "  for i = 1, a.n do equal = equal and a[i] == b[i] end\n"
    "  if not equal then\n"
    "    error(('%s: Lua %s %s %s, ours %s %s %s'):format(name, a[1], a[2], a[3], b[1], b[2], "
    "b[3]))\n"
    "  end\n"
    "end\n"
    "return function(s, pattern, replacement, init, plain)\n"
    "  same('find', s, pattern, init, plain)\n"
    "  same('match', s, pattern, init)\n"
    "  same('gmatch', s, pattern, init)\n"
    "  same('gsub', s, pattern, replacement, init > 0 and init or nil)\n"
    "  same('gsub', s, pattern, { a = 'x', [replacement] = false })\n"
    "end\n";

/* A state with Lua's libraries, the host's beside them, and the function above at stack index 1. */
static lua_State *begin(tm_vm *vm) {
  lua_State *L = luaL_newstate();
  if (L == NULL) abort();
  memset(vm, 0, sizeof(*vm));
  tm__vm_adopt(vm, L);
  luaL_openlibs(L);
  if (luaL_loadstring(L, program) != LUA_OK) abort();
  lua_newtable(L);
  tm__lib_string(L);
  if (lua_pcall(L, 1, 1, 0) != LUA_OK) abort();
  return L;
}

static tm_slice take(const uint8_t **data, size_t *size, size_t most) {
  const uint8_t *end = memchr(*data, 0, *size);
  size_t len = end != NULL ? (size_t)(end - *data) : *size;
  tm_slice taken = {(const char *)*data, len < most ? len : most};
  size_t used = end != NULL ? len + 1 : len;
  *data += used;
  *size -= used;
  return taken;
}

static size_t repeats(tm_slice pattern) {
  size_t n = 0;
  for (size_t i = 0; i < pattern.len; i++)
    n += memchr("*+-?", pattern.ptr[i], 4) != NULL;
  return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static lua_State *L;
  static tm_vm vm;
  if (L == NULL) L = begin(&vm);
  if (size < 2) return 0;
  lua_Integer init = (lua_Integer)(data[0] % 32) - 8;
  bool plain = data[0] >= 224;
  data++;
  size--;
  tm_slice pattern = take(&data, &size, MAX_PATTERN), replacement = take(&data, &size, MAX_PATTERN);
  if (repeats(pattern) > MAX_REPEATS) return 0;
  lua_pushvalue(L, 1);
  lua_pushlstring(L, (const char *)data, size < MAX_SUBJECT ? size : MAX_SUBJECT);
  lua_pushlstring(L, pattern.ptr, pattern.len);
  lua_pushlstring(L, replacement.ptr, replacement.len);
  lua_pushinteger(L, init);
  lua_pushboolean(L, plain);
  if (lua_pcall(L, 5, 0, 0) != LUA_OK) {
    (void)fprintf(stderr, "%s\n", lua_tostring(L, -1));
    abort();
  }
  lua_settop(L, 1);
  return 0;
}
