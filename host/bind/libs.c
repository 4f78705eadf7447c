/* libs.c - the libraries that exist in a state: nothing that reaches the machine, loads bytecode,
 * sets finalizers or writes to the terminal. `require` finds host.* and the embedded runtime.
 */
#include <lualib.h>
#include <string.h>

#include "bind/bind.h"
#include "bind/embedded.h"
#include "bind/libs.h"

#define PIECE 256 /* bytes that the parser is given at once */

static const char mode_key = 'm'; /* its address, in the registry */

/* No hook runs in the parser, and some texts take it time by their length squared: for each `or` it
 * follows the list so far. So it is given little at once, and the clock is asked before each. */
static const char *next_piece(lua_State *L, void *ud, size_t *size) {
  tm_slice *left = ud;
  tm_slice piece = {left->ptr, left->len < PIECE ? left->len : PIECE};
  tm__limits_spend(L, TM_PER_LOOK);
  *left = (tm_slice){left->ptr + piece.len, left->len - piece.len};
  *size = piece.len;
  return piece.ptr;
}

/* load(text [, chunk name [, ignored [, environment]]]): text only, whatever the mode asks for. */
static int load_text(lua_State *L) {
  tm_slice text;
  text.ptr = luaL_checklstring(L, 1, &text.len);
  const char *name = luaL_optstring(L, 2, "=load");
  bool env = !lua_isnone(L, 4);
  if (lua_load(L, next_piece, &text, name, "t") != LUA_OK) {
    tm__limits_check(L); /* the parser catches what is raised in there */
    lua_pushnil(L);
    lua_insert(L, -2);
    return 2;
  }
  if (env) {
    lua_pushvalue(L, 4);
    if (lua_setupvalue(L, -2, 1) == NULL) lua_pop(L, 1);
  }
  return 1;
}

/* The collector follows weak keys in time squared, and in one breath. A metatable can be changed
 * after it was set, so nothing that setmetatable looks at keeps a script from making them. But Lua
 * knows "__mode" by identity, by the one text that it made with the state: once its letters are
 * others, no text of a script is that one any more. It stays in the registry, for the runtime. */
static void hide_mode(lua_State *L) {
  union {
    const char *made;
    char *letters;
  } mode = {lua_pushliteral(L, "__mode")};
  mode.letters[0] = '\1';
  lua_rawsetp(L, LUA_REGISTRYINDEX, &mode_key);
}

/* What the runtime calls __mode is put under the name that works. */
static void set_mode(lua_State *L, int metatable) {
  lua_pushliteral(L, "__mode");
  if (lua_rawget(L, metatable) != LUA_TNIL) {
    (void)lua_rawgetp(L, LUA_REGISTRYINDEX, &mode_key);
    lua_insert(L, -2);
    lua_rawset(L, metatable);
  } else {
    lua_pop(L, 1);
  }
}

/* The runtime's. A finalizer would run outside every limit. */
static int set_metatable(lua_State *L) {
  if (lua_type(L, 2) == LUA_TTABLE) {
    lua_pushliteral(L, "__gc");
    luaL_argcheck(L, lua_rawget(L, 2) == LUA_TNIL, 2, "__gc is not available to scripts");
    lua_pop(L, 1);
    set_mode(L, 2);
  }
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  lua_call(L, lua_gettop(L) - 1, 1);
  return 1;
}

/* collectgarbage("count"), and nothing else of it: KiB in use. */
static int count_memory(lua_State *L) {
  static const char *const options[] = {"count", NULL};
  (void)luaL_checkoption(L, 1, NULL, options);
  lua_pushnumber(L, (lua_Number)tm__vm(L)->bytes / 1024);
  return 1;
}

/* Upvalue 1 is a function of Lua's without upvalues; it reads the numbers that its texts hold. */
static int read_numbers(lua_State *L) {
  size_t bytes = 0;
  for (int i = 1; i <= 2; i++)
    if (lua_type(L, i) == LUA_TSTRING) bytes += lua_rawlen(L, i);
  tm__limits_spend(L, tm__reading_units(bytes));
  return lua_tocfunction(L, lua_upvalueindex(1))(L);
}

/* tonumber, and what calculates with texts. */
static void charge_numbers(lua_State *L) {
  static const char *const operators[] = {"__add", "__sub",  "__mul", "__mod", "__pow",
                                          "__div", "__idiv", "__unm", NULL};
  lua_getglobal(L, "tonumber");
  lua_pushcclosure(L, read_numbers, 1);
  lua_setglobal(L, "tonumber");
  lua_pushliteral(L, "");
  (void)lua_getmetatable(L, -1);
  for (const char *const *name = operators; *name != NULL; name++) {
    lua_getfield(L, -1, *name);
    lua_pushcclosure(L, read_numbers, 1);
    lua_setfield(L, -2, *name);
  }
  lua_pop(L, 2);
}

/* The largest, or the smallest with `sign` -1; texts are compared as texts, as Lua's do. */
static int choose(lua_State *L, int sign) {
  int n = lua_gettop(L), chosen = 1;
  luaL_argcheck(L, n >= 1, 1, "value expected");
  for (int i = 2; i <= n; i++) {
    bool text = lua_type(L, i) == LUA_TSTRING;
    tm__limits_spend(L, 1 + (text ? tm__reading_units(lua_rawlen(L, i)) : 0));
    int small = sign > 0 ? chosen : i, large = sign > 0 ? i : chosen;
    if (lua_compare(L, small, large, LUA_OPLT)) chosen = i;
  }
  lua_pushvalue(L, chosen);
  return 1;
}

static int math_max(lua_State *L) {
  return choose(L, 1);
}

static int math_min(lua_State *L) {
  return choose(L, -1);
}

static void set_math(lua_State *L) {
  static const luaL_Reg funcs[] = {{"max", math_max}, {"min", math_min}, {NULL, NULL}};
  luaL_setfuncs(L, funcs, 0);
}

static const luaL_Reg host_modules[] = {
#define MODULE(name) {"host." #name, tm__open_##name},
#include "bind/modules.def"
#undef MODULE
    {NULL, NULL},
};

/* Pushes the function that makes the module; false when there is none of that name. */
static bool find_module(lua_State *L, const char *name) {
  for (const luaL_Reg *m = host_modules; m->name != NULL; m++) {
    if (strcmp(m->name, name) != 0) continue;
    lua_pushcfunction(L, m->func);
    return true;
  }
  for (const struct tm__embedded *e = tm__embedded; e->name != NULL; e++) {
    if (strcmp(e->name, name) != 0) continue;
    if (luaL_loadbufferx(L, e->text, e->size, e->chunk, "t") != LUA_OK) (void)lua_error(L);
    return true;
  }
  return false;
}

static int require(lua_State *L) {
  const char *name = luaL_checkstring(L, 1);
  lua_settop(L, 1);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  if (lua_getfield(L, 2, name) != LUA_TNIL) return 1;
  lua_pop(L, 1);
  if (!find_module(L, name)) return luaL_error(L, "there is no module '%s'", name);
  lua_pushvalue(L, 1);
  lua_call(L, 1, 1);
  if (lua_isnil(L, -1)) return luaL_error(L, "the module '%s' returned nothing", name);
  lua_pushvalue(L, -1);
  lua_setfield(L, 2, name);
  return 1;
}

static void remove_fields(lua_State *L, const char *table, const char *const *names) {
  lua_getglobal(L, table);
  for (; *names != NULL; names++) {
    lua_pushnil(L);
    lua_setfield(L, -2, *names);
  }
  lua_pop(L, 1);
}

static void open_debug(lua_State *L) {
  luaL_requiref(L, "debug", luaopen_debug, 0);
  lua_createtable(L, 0, 1);
  lua_getfield(L, -2, "traceback");
  lua_setfield(L, -2, "traceback");
  lua_pushvalue(L, -1);
  lua_setglobal(L, "debug");
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  lua_pushvalue(L, -2);
  lua_setfield(L, -2, "debug");
  lua_pop(L, 3);
}

/* What loops in Lua's own would run on behalf of a script, out of reach of its limits. */
static void replace_functions(lua_State *L, const char *table, void (*set)(lua_State *L)) {
  lua_getglobal(L, table);
  set(L);
  lua_pop(L, 1);
}

void tm__libs_open(lua_State *L) {
  static const luaL_Reg libs[] = {
      {"_G", luaopen_base},
      {"coroutine", luaopen_coroutine},
      {"table", luaopen_table},
      {"string", luaopen_string},
      {"math", luaopen_math},
      {"utf8", luaopen_utf8},
      {NULL, NULL},
  };
  static const char *const no_base[] = {"dofile", "loadfile", "print", "warn", NULL};
  static const char *const no_string[] = {"dump", "pack", "packsize", "unpack", NULL};
  hide_mode(L);
  for (const luaL_Reg *lib = libs; lib->name != NULL; lib++) {
    luaL_requiref(L, lib->name, lib->func, 1);
    lua_pop(L, 1);
  }
  replace_functions(L, "string", tm__lib_string);
  replace_functions(L, "table", tm__lib_table);
  replace_functions(L, "utf8", tm__lib_utf8);
  replace_functions(L, "coroutine", tm__lib_coroutine);
  replace_functions(L, "math", set_math);
  charge_numbers(L);
  open_debug(L);
  remove_fields(L, "_G", no_base);
  remove_fields(L, "string", no_string);
  lua_register(L, "load", load_text);
  lua_register(L, "rawset", tm__rawset);
  lua_register(L, "require", require);
  lua_register(L, "collectgarbage", count_memory);
  lua_getglobal(L, "setmetatable");
  lua_pushcclosure(L, set_metatable, 1);
  lua_setglobal(L, "setmetatable");
}
