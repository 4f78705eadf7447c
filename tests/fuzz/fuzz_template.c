/* Templates and answers in a real Lua state with the runtime's own modules; what must hold is in
 * template.lua. The lines that Lua runs count as coverage. */
#include <lualib.h>

#include "tests/fuzz/must.h"
#include "tests/lua/hostlua.c" // NOLINT(bugprone-suspicious-include): the modules, linked in

static uint8_t lines[1 << 15] __attribute__((section("__libfuzzer_extra_counters")));
static lua_State *L;

/* What lives as long as the process is no leak. */
const char *__asan_default_options(void);
const char *__asan_default_options(void) {
  return "detect_leaks=0";
}

static void on_line(lua_State *state, lua_Debug *ar) {
  static uint32_t last;
  uint32_t hash = 2166136261u;
  (void)lua_getinfo(state, "S", ar);
  for (const char *p = ar->short_src; *p != '\0'; p++)
    hash = (hash ^ (uint8_t)*p) * 16777619u;
  hash = (hash ^ (uint32_t)ar->currentline) * 16777619u;
  lines[(hash ^ last) % sizeof(lines)]++;
  last = hash >> 1;
}

static void fail_with(const char *what) {
  (void)fprintf(stderr, "%s: %s\n", what, lua_tostring(L, -1));
  abort();
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
  (void)argc;
  (void)argv;
  L = luaL_newstate();
  MUST(L != NULL);
  luaL_openlibs(L);
  luaL_requiref(L, "hostlua", luaopen_hostlua, 0);
  lua_settop(L, 0);
  if (luaL_dofile(L, "tests/fuzz/template.lua") != LUA_OK) fail_with("template.lua");
  lua_setglobal(L, "run");
  lua_sethook(L, on_line, LUA_MASKLINE, 0);
  return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size > 4000) return 0;
  (void)lua_getglobal(L, "run");
  lua_pushlstring(L, (const char *)data, size);
  if (lua_pcall(L, 1, 0, 0) != LUA_OK) fail_with("it does not hold");
  return 0;
}
