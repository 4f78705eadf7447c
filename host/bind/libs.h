/* libs.h - Lua's libraries written anew, so that each charges the entry for the work it does.
 *
 * No hook runs inside C. Results and messages are those of Lua 5.4.4; what differs is only that a
 * limit of the entry may end any of these functions.
 */
#ifndef TM_BIND_LIBS_H
#define TM_BIND_LIBS_H

#include "bind/bind.h"

#define TM_TOLL_PORTION 64 /* units */

/* Each sets its functions in the table on top of the stack, over what is there. */
void tm__lib_string(lua_State *L);
void tm__lib_table(lua_State *L);
void tm__lib_utf8(lua_State *L);
void tm__lib_coroutine(lua_State *L);

/* Parts of the above that have files of their own. */
void tm__lib_search(lua_State *L); /* sets find, match, gmatch and gsub */
int tm__string_format(lua_State *L);
int tm__table_sort(lua_State *L);

static inline char *tm__buffer(lua_State *L, luaL_Buffer *b, size_t size) {
  tm__limits_room(L, size);
  return luaL_buffinitsize(L, b, size);
}

/* What copying so many bytes costs. */
static inline size_t tm__copy_units(size_t bytes) {
  return bytes / 32;
}

/* What reading so many bytes as Lua or as a number costs. */
static inline size_t tm__reading_units(size_t bytes) {
  return bytes / 8;
}

/* As luaL_checkinteger, for functions that take any number of them: each may be a long text. */
static inline lua_Integer tm__charged_integer(lua_State *L, int arg) {
  if (lua_type(L, arg) == LUA_TSTRING) tm__limits_spend(L, tm__reading_units(lua_rawlen(L, arg)));
  return luaL_checkinteger(L, arg);
}

/* A position as the string library counts them: 1 is the first byte, -1 the last. The start of a
 * range is at least 1. */
size_t tm__range_start(lua_Integer at, size_t len);

/* As lua_seti and lua_rawset, on behalf of a script: the table may grow (see limits.c). */
void tm__seti(lua_State *L, int table, lua_Integer i);
int tm__rawset(lua_State *L);

/* Room for `count` results. False: there is none, or they are more than a stack should hold at once
 * (see grown_stack in vm.c). */
#define TM_RESULTS_MOST 2000
static inline bool tm__has_room(lua_State *L, uint64_t count) {
  return count <= TM_RESULTS_MOST && lua_checkstack(L, (int)count);
}

/* The length of argument `arg`, which must be a table or behave like one. */
lua_Integer tm__table_length(lua_State *L, int arg, bool write);

/* What is due for passing the elements of a table: it is spent in portions. */
typedef struct tm_toll {
  lua_State *L;
  size_t cost, due; /* units: for each access; not spent yet */
} tm_toll;
tm_toll tm__toll(lua_State *L, int arg);

static inline void tm__toll_end(tm_toll *t) {
  tm__limits_spend(t->L, t->due + 1);
  t->due = 0;
}

static inline void tm__toll_pay(tm_toll *t, size_t extra) {
  t->due += t->cost + extra;
  if (t->due >= TM_TOLL_PORTION) tm__toll_end(t);
}

#endif
