/* lib_table.c - the table library but for sort (lib_sort.c). What __len says is never believed:
 * each element that is passed has been charged.
 */
#include <limits.h>
#include <string.h>

#include "bind/libs.h"

#define READ   1
#define WRITE  2
#define LENGTH 4

#define PLAIN_UNITS 1
#define META_UNITS  16 /* an access may follow a chain of tables, or call C */

/* ---- what a table costs ---- */

static bool has_field(lua_State *L, int metatable, const char *name) {
  lua_pushstring(L, name);
  bool has = lua_rawget(L, metatable) != LUA_TNIL;
  lua_pop(L, 1);
  return has;
}

/* A table, or what behaves like one where it is used. */
static void check_table(lua_State *L, int arg, int use) {
  if (lua_type(L, arg) == LUA_TTABLE) return;
  int top = lua_gettop(L);
  if (lua_getmetatable(L, arg) && (!(use & READ) || has_field(L, top + 1, "__index")) &&
      (!(use & WRITE) || has_field(L, top + 1, "__newindex")) &&
      (!(use & LENGTH) || has_field(L, top + 1, "__len")))
    lua_pop(L, 1);
  else
    luaL_checktype(L, arg, LUA_TTABLE);
}

static bool is_plain(lua_State *L, int arg) {
  if (lua_type(L, arg) != LUA_TTABLE) return false;
  if (!lua_getmetatable(L, arg)) return true;
  lua_pop(L, 1);
  return false;
}

tm_toll tm__toll(lua_State *L, int arg) {
  return (tm_toll){.L = L, .cost = is_plain(L, arg) ? PLAIN_UNITS : META_UNITS};
}

lua_Integer tm__table_length(lua_State *L, int arg, bool write) {
  if (is_plain(L, arg)) return (lua_Integer)lua_rawlen(L, arg);
  check_table(L, arg, READ | LENGTH | (write ? WRITE : 0));
  return luaL_len(L, arg);
}

/* to[at] = from[source] */
static void copy(tm_toll *t, int from, lua_Integer source, int to, lua_Integer at) {
  tm__toll_pay(t, 0);
  (void)lua_geti(t->L, from, source);
  tm__seti(t->L, to, at);
}

/* ---- insert, remove, move ---- */

static void make_room(lua_State *L, lua_Integer at, lua_Integer end) {
  tm_toll t = tm__toll(L, 1);
  for (lua_Integer i = end; i > at; i--)
    copy(&t, 1, i - 1, 1, i);
  tm__toll_end(&t);
}

static int table_insert(lua_State *L) {
  lua_Integer length = tm__table_length(L, 1, true);
  lua_Integer end = (lua_Integer)((lua_Unsigned)length + 1), at = end;
  switch (lua_gettop(L)) {
  case 2: tm__limits_spend(L, 1); break;
  case 3:
    at = luaL_checkinteger(L, 2);
    luaL_argcheck(L, (lua_Unsigned)at - 1U < (lua_Unsigned)end, 2, "position out of bounds");
    make_room(L, at, end);
    break;
  default: return luaL_error(L, "wrong number of arguments to 'insert'");
  }
  tm__seti(L, 1, at);
  return 0;
}

static int table_remove(lua_State *L) {
  lua_Integer size = tm__table_length(L, 1, true), at = luaL_optinteger(L, 2, size);
  if (at != size)
    luaL_argcheck(L, (lua_Unsigned)at - 1U <= (lua_Unsigned)size, 1, "position out of bounds");
  tm_toll t = tm__toll(L, 1);
  (void)lua_geti(L, 1, at);
  for (; at < size; at++)
    copy(&t, 1, at + 1, 1, at);
  tm__toll_end(&t);
  lua_pushnil(L);
  tm__seti(L, 1, at);
  return 1;
}

static int table_move(lua_State *L) {
  lua_Integer first = luaL_checkinteger(L, 2), last = luaL_checkinteger(L, 3);
  lua_Integer at = luaL_checkinteger(L, 4);
  int to = lua_isnoneornil(L, 5) ? 1 : 5;
  check_table(L, 1, READ);
  check_table(L, to, WRITE);
  if (last >= first) {
    luaL_argcheck(L, first > 0 || last < LUA_MAXINTEGER + first, 3, "too many elements to move");
    lua_Integer n = last - first + 1;
    luaL_argcheck(L, at <= LUA_MAXINTEGER - n + 1, 4, "destination wrap around");
    tm_toll t = tm__toll(L, 1);
    t.cost += tm__toll(L, to).cost;
    bool apart = at > last || at <= first || (to != 1 && !lua_compare(L, 1, to, LUA_OPEQ));
    for (lua_Integer i = 0; i < n; i++) {
      lua_Integer step = apart ? i : n - 1 - i;
      copy(&t, 1, first + step, to, at + step);
    }
    tm__toll_end(&t);
  }
  lua_pushvalue(L, to);
  return 1;
}

/* ---- concat ---- */

static void add_element(tm_toll *t, luaL_Buffer *b, lua_Integer i) {
  lua_State *L = t->L;
  (void)lua_geti(L, 1, i);
  if (!lua_isstring(L, -1))
    (void)luaL_error(L, "invalid value (%s) at index %I in table for 'concat'",
                     luaL_typename(L, -1), (LUAI_UACINT)i);
  tm__toll_pay(t, tm__copy_units(lua_rawlen(L, -1)));
  luaL_addvalue(b);
}

static int table_concat(lua_State *L) {
  lua_Integer last = tm__table_length(L, 1, false);
  size_t separator_len;
  const char *separator = luaL_optlstring(L, 2, "", &separator_len);
  lua_Integer i = luaL_optinteger(L, 3, 1);
  last = luaL_optinteger(L, 4, last);
  tm_toll t = tm__toll(L, 1);
  t.cost += tm__copy_units(separator_len);
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  for (; i < last; i++) {
    add_element(&t, &b, i);
    luaL_addlstring(&b, separator, separator_len);
  }
  if (i == last) add_element(&t, &b, i);
  tm__toll_end(&t);
  luaL_pushresult(&b);
  return 1;
}

/* ---- pack, unpack ---- */

static int table_pack(lua_State *L) {
  int n = lua_gettop(L);
  tm__limits_spend(L, (size_t)n);
  lua_createtable(L, n, 1);
  lua_insert(L, 1);
  for (int i = n; i >= 1; i--)
    lua_seti(L, 1, i);
  lua_pushinteger(L, n);
  lua_setfield(L, 1, "n");
  return 1;
}

static int table_unpack(lua_State *L) {
  lua_Integer first = luaL_optinteger(L, 2, 1);
  lua_Integer last = lua_isnoneornil(L, 3) ? luaL_len(L, 1) : luaL_checkinteger(L, 3);
  if (first > last) return 0;
  lua_Unsigned more = (lua_Unsigned)last - (lua_Unsigned)first;
  if (more >= TM_RESULTS_MOST || !tm__has_room(L, more + 1))
    return luaL_error(L, "too many results to unpack");
  tm_toll t = tm__toll(L, 1);
  for (lua_Unsigned i = 0; i <= more; i++) {
    tm__toll_pay(&t, 0);
    (void)lua_geti(L, 1, (lua_Integer)((lua_Unsigned)first + i));
  }
  tm__toll_end(&t);
  return (int)more + 1;
}

void tm__lib_table(lua_State *L) {
  static const luaL_Reg funcs[] = {
      {"insert", table_insert}, {"remove", table_remove},
      {"move", table_move},     {"concat", table_concat},
      {"pack", table_pack},     {"unpack", table_unpack},
      {"sort", tm__table_sort}, {NULL, NULL},
  };
  luaL_setfuncs(L, funcs, 0);
}
