/* lib_search.c - string.find, match, gmatch and gsub: the skin over the matcher of pattern.c. */
#include <string.h>

#include "bind/libs.h"
#include "bind/pattern.h"

#define STEPS_A_UNIT 4 /* a step of the matcher is less than an instruction */

static bool charge(void *ud, size_t steps) {
  return tm__limits_charge(ud, steps / STEPS_A_UNIT + 1);
}

static void begin(lua_State *L, tm_pattern *m, tm_slice s, tm_slice pattern, bool anchor) {
  tm__pattern_init(m, s, pattern, anchor);
  m->charge = charge;
  m->ud = tm__vm(L);
}

static tm_slice check_bytes(lua_State *L, int arg) {
  tm_slice s;
  s.ptr = luaL_checklstring(L, arg, &s.len);
  return s;
}

/* Argument `arg` as an offset into s; more than s.len: behind the end. */
static size_t opt_start(lua_State *L, int arg, tm_slice s) {
  return tm__range_start(luaL_optinteger(L, arg, 1), s.len) - 1;
}

/* As tm__pattern_next, and raises what failed. */
static const char *next(lua_State *L, tm_pattern *m, const char **at, const char *last_end) {
  const char *end = tm__pattern_next(m, at, last_end);
  tm__limits_spend(L, m->steps / STEPS_A_UNIT + 1);
  m->steps = 0;
  if (m->failure != TM_PATTERN_FINE) (void)luaL_error(L, "%s", m->problem);
  return end;
}

/* ---- captures ---- */

/* Capture i of the match from `start` to `end`; the whole match when it has none. False: it is a
 * position, which has been pushed. */
static bool take_capture(lua_State *L, const tm_pattern *m, int i, tm_slice whole, tm_slice *out) {
  *out = whole;
  if (i >= m->count) {
    if (i != 0) (void)luaL_error(L, "invalid capture index %%%d", i + 1);
    return true;
  }
  ptrdiff_t len = m->captures[i].len;
  if (len == TM_CAPTURE_OPEN) (void)luaL_error(L, "unfinished capture");
  if (len == TM_CAPTURE_POSITION) {
    lua_pushinteger(L, m->captures[i].start - m->subject + 1);
    return false;
  }
  *out = (tm_slice){m->captures[i].start, (size_t)len};
  return true;
}

static void push_capture(lua_State *L, const tm_pattern *m, int i, tm_slice whole) {
  tm_slice text;
  if (!take_capture(L, m, i, whole, &text)) return;
  tm__limits_spend(L, tm__copy_units(text.len));
  lua_pushlstring(L, text.ptr, text.len);
}

static int push_captures(lua_State *L, const tm_pattern *m, tm_slice whole) {
  int count = m->count == 0 && whole.ptr != NULL ? 1 : m->count;
  luaL_checkstack(L, count, "too many captures");
  for (int i = 0; i < count; i++)
    push_capture(L, m, i, whole);
  return count;
}

/* ---- find, match ---- */

static int find_plain(lua_State *L, tm_slice s, tm_slice what, size_t from) {
  tm__limits_spend(L, tm__copy_units(s.len - from + what.len));
  const char *at = tm__pattern_find_plain((tm_slice){s.ptr + from, s.len - from}, what);
  if (at == NULL) {
    lua_pushnil(L);
    return 1;
  }
  lua_pushinteger(L, at - s.ptr + 1);
  lua_pushinteger(L, at - s.ptr + (lua_Integer)what.len);
  return 2;
}

static int search(lua_State *L, bool find) {
  tm_slice s = check_bytes(L, 1), pattern = check_bytes(L, 2);
  size_t from = opt_start(L, 3, s);
  if (from > s.len) {
    lua_pushnil(L);
    return 1;
  }
  if (find && (lua_toboolean(L, 4) || tm__pattern_is_plain(pattern)))
    return find_plain(L, s, pattern, from);
  tm_pattern m;
  begin(L, &m, s, pattern, true);
  const char *at = s.ptr + from, *end = next(L, &m, &at, NULL);
  if (end == NULL) {
    lua_pushnil(L);
    return 1;
  }
  if (!find) return push_captures(L, &m, (tm_slice){at, (size_t)(end - at)});
  lua_pushinteger(L, at - s.ptr + 1);
  lua_pushinteger(L, end - s.ptr);
  return push_captures(L, &m, (tm_slice){0}) + 2;
}

static int string_find(lua_State *L) {
  return search(L, true);
}

static int string_match(lua_State *L) {
  return search(L, false);
}

/* ---- gmatch ---- */

typedef struct iteration { /* upvalue 3; subject and pattern are upvalues 1 and 2 */
  tm_pattern m;
  const char *at, *last_end;
} iteration;

static int gmatch_next(lua_State *L) {
  iteration *it = lua_touserdata(L, lua_upvalueindex(3));
  if (it->at > it->m.end) return 0;
  const char *at = it->at;
  it->m.failure = TM_PATTERN_FINE;
  const char *end = next(L, &it->m, &at, it->last_end);
  if (end == NULL) return 0;
  it->at = it->last_end = end;
  return push_captures(L, &it->m, (tm_slice){at, (size_t)(end - at)});
}

static int string_gmatch(lua_State *L) {
  tm_slice s = check_bytes(L, 1), pattern = check_bytes(L, 2);
  size_t from = opt_start(L, 3, s);
  lua_settop(L, 2);
  iteration *it = lua_newuserdatauv(L, sizeof(*it), 0);
  begin(L, &it->m, s, pattern, false);
  it->at = s.ptr + (from > s.len ? s.len + 1 : from);
  it->last_end = NULL;
  lua_pushcclosure(L, gmatch_next, 3);
  return 1;
}

/* ---- gsub ---- */

static void add_bytes(lua_State *L, luaL_Buffer *b, tm_slice text) {
  tm__limits_spend(L, tm__copy_units(text.len));
  luaL_addlstring(b, text.ptr, text.len);
}

/* The replacement text, argument 3, with its %0 to %9 filled in. */
static void add_text(lua_State *L, const tm_pattern *m, luaL_Buffer *b, tm_slice whole) {
  tm_slice left, capture;
  left.ptr = lua_tolstring(L, 3, &left.len);
  const char *p;
  while ((p = memchr(left.ptr, '%', left.len)) != NULL) {
    add_bytes(L, b, (tm_slice){left.ptr, (size_t)(p - left.ptr)});
    tm__limits_spend(L, 1);
    char c = *++p; /* a NUL when % is the last */
    if (c == '%')
      luaL_addchar(b, '%');
    else if (c == '0')
      add_bytes(L, b, whole);
    else if (c < '1' || c > '9')
      (void)luaL_error(L, "invalid use of '%%' in replacement string");
    else if (take_capture(L, m, c - '1', whole, &capture))
      add_bytes(L, b, capture);
    else
      luaL_addvalue(b);
    left.len -= (size_t)(p + 1 - left.ptr);
    left.ptr = p + 1;
  }
  add_bytes(L, b, left);
}

/* What a table or a function says, on top of the stack. False: nothing, so the match stays. */
static bool add_answer(lua_State *L, luaL_Buffer *b, tm_slice whole) {
  if (!lua_toboolean(L, -1)) {
    lua_pop(L, 1);
    add_bytes(L, b, whole);
    return false;
  }
  if (!lua_isstring(L, -1))
    (void)luaL_error(L, "invalid replacement value (a %s)", luaL_typename(L, -1));
  tm__limits_spend(L, tm__copy_units(lua_rawlen(L, -1)));
  luaL_addvalue(b);
  return true;
}

/* True: something else may stand there now. */
static bool replace(lua_State *L, const tm_pattern *m, luaL_Buffer *b, tm_slice whole, int type) {
  switch (type) {
  case LUA_TFUNCTION:
    lua_pushvalue(L, 3);
    lua_call(L, push_captures(L, m, whole), 1);
    return add_answer(L, b, whole);
  case LUA_TTABLE:
    push_capture(L, m, 0, whole);
    (void)lua_gettable(L, 3);
    return add_answer(L, b, whole);
  default: add_text(L, m, b, whole); return true;
  }
}

static int string_gsub(lua_State *L) {
  tm_slice s = check_bytes(L, 1), pattern = check_bytes(L, 2);
  int type = lua_type(L, 3);
  lua_Integer most = luaL_optinteger(L, 4, (lua_Integer)s.len + 1), count = 0;
  luaL_argexpected(
      L, type == LUA_TNUMBER || type == LUA_TSTRING || type == LUA_TFUNCTION || type == LUA_TTABLE,
      3, "string/function/table");
  tm_pattern m;
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  begin(L, &m, s, pattern, true);
  const char *done = s.ptr, *last_end = NULL;
  bool changed = false;
  while (count < most) {
    const char *at = done, *end = next(L, &m, &at, last_end);
    if (end == NULL) break;
    count++;
    add_bytes(L, &b, (tm_slice){done, (size_t)(at - done)});
    changed |= replace(L, &m, &b, (tm_slice){at, (size_t)(end - at)}, type);
    done = last_end = end;
    if (m.anchored) break;
  }
  if (changed) {
    add_bytes(L, &b, (tm_slice){done, (size_t)(m.end - done)});
    luaL_pushresult(&b);
  } else {
    lua_pushvalue(L, 1);
  }
  lua_pushinteger(L, count);
  return 2;
}

void tm__lib_search(lua_State *L) {
  static const luaL_Reg funcs[] = {
      {"find", string_find},
      {"match", string_match},
      {"gmatch", string_gmatch},
      {"gsub", string_gsub},
      {NULL, NULL},
  };
  luaL_setfuncs(L, funcs, 0);
}
