/* lib_sort.c - table.sort: quicksort with the middle of three as pivot, as Lua's, so that the order
 * of equal elements is the same; each comparison is charged, and nothing is left to chance.
 *
 * A comparator that contradicts itself gets an error or some order. It is handed elements only, and
 * no index leaves the range that was asked for.
 */
#include <limits.h>

#include "bind/libs.h"

#define COMPARE_UNITS 4
#define CALL_UNITS    16 /* of a comparator, besides what a hook sees of it */
#define LARGE         100

typedef struct sorting {
  tm_toll toll;
  bool comparator; /* is there one, at stack index 2 */
} sorting;

/* Is the value at stack index a before the one at b? Both are negative. */
static bool is_less(sorting *s, int a, int b) {
  lua_State *L = s->toll.L;
  if (!s->comparator) {
    bool text = lua_type(L, a) == LUA_TSTRING;
    tm__toll_pay(&s->toll, COMPARE_UNITS + (text ? tm__copy_units(lua_rawlen(L, a)) : 0));
    return lua_compare(L, a, b, LUA_OPLT);
  }
  tm__toll_pay(&s->toll, CALL_UNITS);
  lua_pushvalue(L, 2);
  lua_pushvalue(L, a - 1);
  lua_pushvalue(L, b - 2);
  lua_call(L, 2, 1);
  bool less = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return less;
}

/* The two values on top go to i (the topmost) and j. */
static void set_two(lua_State *L, lua_Integer i, lua_Integer j) {
  lua_seti(L, 1, i);
  lua_seti(L, 1, j);
}

/* Puts the elements at i < j in order. */
static void order_two(sorting *s, lua_Integer i, lua_Integer j) {
  lua_State *L = s->toll.L;
  (void)lua_geti(L, 1, i);
  (void)lua_geti(L, 1, j);
  if (is_less(s, -1, -2))
    set_two(L, i, j);
  else
    lua_pop(L, 2);
}

/* Puts the element at p in order with those at low and high, which are. */
static void order_middle(sorting *s, lua_Integer low, lua_Integer p, lua_Integer high) {
  lua_State *L = s->toll.L;
  (void)lua_geti(L, 1, p);
  (void)lua_geti(L, 1, low);
  if (is_less(s, -2, -1)) {
    set_two(L, p, low);
    return;
  }
  lua_pop(L, 1);
  (void)lua_geti(L, 1, high);
  if (is_less(s, -1, -2))
    set_two(L, p, high);
  else
    lua_pop(L, 2);
}

/* The pivot is on top of the stack and at high - 1; elements at low and high are on their sides
 * already. Pops the pivot and returns where it now is. */
static lua_Integer partition(sorting *s, lua_Integer low, lua_Integer high) {
  lua_State *L = s->toll.L;
  lua_Integer i = low, j = high - 1;
  for (;;) {
    while ((void)lua_geti(L, 1, ++i), is_less(s, -1, -2)) {
      if (i == high - 1) (void)luaL_error(L, "invalid order function for sorting");
      lua_pop(L, 1);
    }
    while ((void)lua_geti(L, 1, --j), is_less(s, -3, -1)) {
      if (j < i) (void)luaL_error(L, "invalid order function for sorting");
      lua_pop(L, 1);
    }
    if (j < i) {
      lua_pop(L, 1);
      set_two(L, high - 1, i);
      return i;
    }
    set_two(L, i, j);
  }
}

/* The middle, or, after a bad partition, a place somewhere around it that no script chose. */
static lua_Integer choose_pivot(lua_Integer low, lua_Integer high, lua_Unsigned scatter) {
  if (scatter == 0 || high - low < LARGE) return low + (high - low) / 2;
  lua_Integer quarter = (high - low) / 4;
  return low + quarter + (lua_Integer)(scatter % (lua_Unsigned)(quarter * 2));
}

/* Recurs into the smaller part: at most 31 levels. */
static void sort(sorting *s, lua_Integer low, lua_Integer high, lua_Unsigned scatter) {
  lua_State *L = s->toll.L;
  while (low < high) {
    order_two(s, low, high);
    if (high - low == 1) return;
    lua_Integer p = choose_pivot(low, high, scatter);
    order_middle(s, low, p, high);
    if (high - low == 2) return;
    (void)lua_geti(L, 1, p);
    lua_pushvalue(L, -1);
    (void)lua_geti(L, 1, high - 1);
    set_two(L, p, high - 1);
    p = partition(s, low, high);
    lua_Integer below = p - low, above = high - p, smaller = below < above ? below : above;
    if (below < above) {
      sort(s, low, p - 1, scatter);
      low = p + 1;
    } else {
      sort(s, p + 1, high, scatter);
      high = p - 1;
    }
    if ((high - low) / 128 > smaller)
      scatter = scatter * 6364136223846793005U + 1442695040888963407U;
  }
}

int tm__table_sort(lua_State *L) {
  lua_Integer n = tm__table_length(L, 1, true);
  if (n < 2) return 0;
  luaL_argcheck(L, n < INT_MAX, 1, "array too big");
  if (!lua_isnoneornil(L, 2)) luaL_checktype(L, 2, LUA_TFUNCTION);
  lua_settop(L, 2);
  sorting s = {tm__toll(L, 1), !lua_isnil(L, 2)};
  sort(&s, 1, n, 0);
  tm__toll_end(&s.toll);
  return 0;
}
