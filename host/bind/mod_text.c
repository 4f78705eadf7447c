/* host.text - text by characters, and matching with a bound.
 *
 *   text.length(s) -> integer        text.valid(s) -> boolean     text.lower(s) -> text
 *   text.trim(s) -> text             text.sub(s, i, j?) -> text   text.distance(a, b) -> integer
 *   text.match(s, pattern) -> boolean | nil, err
 */
#include "bind/bind.h"
#include "bind/text.h"
#include "core/json.h"
#include "core/utf8.h"

#define MAX_COMPARED 128 /* characters; what is longer is no misspelled name */

static tm_slice check_bytes(lua_State *L, int arg) {
  tm_slice s;
  s.ptr = luaL_checklstring(L, arg, &s.len);
  return s;
}

static tm_slice check_text(lua_State *L, int arg) {
  tm_slice s = check_bytes(L, arg);
  luaL_argcheck(L, tm__utf8_valid(s), arg, "not valid UTF-8");
  return s;
}

static int text_length(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)tm__utf8_length(check_text(L, 1)));
  return 1;
}

static int text_valid(lua_State *L) {
  lua_pushboolean(L, tm__utf8_valid(check_bytes(L, 1)));
  return 1;
}

static int text_lower(lua_State *L) {
  tm_slice s = check_text(L, 1);
  luaL_Buffer b;
  tm__limits_room(L, s.len);
  (void)luaL_buffinitsize(L, &b, s.len);
  for (size_t at = 0; at < s.len;) {
    char c[4];
    unsigned char first = (unsigned char)s.ptr[at];
    if (first < 0x80) {
      luaL_addchar(&b, (char)(first >= 'A' && first <= 'Z' ? first + 'a' - 'A' : first));
      at++;
      continue;
    }
    luaL_addlstring(&b, c, tm__utf8_encode(c, tm__text_lower(tm__text_next(s, &at))));
  }
  luaL_pushresult(&b);
  return 1;
}

static int text_trim(lua_State *L) {
  tm_slice s = check_text(L, 1);
  size_t from = 0, to = s.len;
  for (size_t at = 0; at < to && tm__text_is_space(tm__text_next(s, &at));)
    from = at;
  while (to > from) {
    size_t last = to - 1;
    while (((unsigned char)s.ptr[last] & 0xC0) == 0x80)
      last--;
    size_t at = last;
    if (!tm__text_is_space(tm__text_next(s, &at))) break;
    to = last;
  }
  lua_pushlstring(L, s.ptr + from, to - from);
  return 1;
}

/* Byte offset of the n-th character, counted from 0; the end when there are fewer. */
static size_t offset_of(tm_slice s, lua_Integer n) {
  size_t at = 0;
  while (n-- > 0 && at < s.len)
    (void)tm__text_next(s, &at);
  return at;
}

static int text_sub(lua_State *L) {
  tm_slice s = check_text(L, 1);
  lua_Integer length = (lua_Integer)tm__utf8_length(s);
  lua_Integer i = luaL_checkinteger(L, 2), j = luaL_optinteger(L, 3, -1);
  if (i < 0) i = i < -length ? 1 : length + i + 1;
  if (i < 1) i = 1;
  if (j < 0) j = j < -length ? 0 : length + j + 1;
  if (j > length) j = length;
  size_t from = i > j ? 0 : offset_of(s, i - 1), to = i > j ? 0 : offset_of(s, j);
  lua_pushlstring(L, s.ptr + from, to - from);
  return 1;
}

static int text_match(lua_State *L) {
  tm_slice s = check_bytes(L, 1), pattern = check_bytes(L, 2);
  bool found;
  tm_error err;
  if (tm__text_match(s, pattern, &found, &err) != TM_OK) return tm__push_fail(L, &err);
  lua_pushboolean(L, found);
  return 1;
}

/* ---- distance ---- */

static void read_characters(tm_slice s, uint32_t out[MAX_COMPARED]) {
  size_t n = 0;
  for (size_t at = 0; at < s.len && n < MAX_COMPARED;)
    out[n++] = tm__text_next(s, &at);
}

static unsigned least(unsigned a, unsigned b) {
  return a < b ? a : b;
}

/* Insertions, deletions, replacements, and two neighbours changing places. */
static unsigned distance(const uint32_t *a, size_t n, const uint32_t *b, size_t m) {
  unsigned rows[3][MAX_COMPARED + 1];
  for (size_t j = 0; j <= m; j++)
    rows[0][j] = (unsigned)j;
  for (size_t i = 1; i <= n; i++) {
    unsigned *row = rows[i % 3];
    const unsigned *up = rows[(i + 2) % 3], *upper = rows[(i + 1) % 3];
    row[0] = (unsigned)i;
    for (size_t j = 1; j <= m; j++) {
      unsigned best = least(up[j], row[j - 1]) + 1;
      best = least(best, up[j - 1] + (a[i - 1] != b[j - 1]));
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        best = least(best, upper[j - 2] + 1);
      row[j] = best;
    }
  }
  return rows[n % 3][m];
}

static int text_distance(lua_State *L) {
  tm_slice a = check_text(L, 1), b = check_text(L, 2);
  size_t n = tm__utf8_length(a), m = tm__utf8_length(b);
  uint32_t x[MAX_COMPARED] = {0}, y[MAX_COMPARED] = {0};
  if (n > MAX_COMPARED || m > MAX_COMPARED) {
    lua_pushinteger(L, (lua_Integer)(n > m ? n : m));
    return 1;
  }
  read_characters(a, x);
  read_characters(b, y);
  lua_pushinteger(L, distance(x, n, y, m));
  return 1;
}

int tm__open_text(lua_State *L) {
  static const luaL_Reg funcs[] = {
      {"length", text_length},     {"valid", text_valid}, {"lower", text_lower},
      {"trim", text_trim},         {"sub", text_sub},     {"match", text_match},
      {"distance", text_distance}, {NULL, NULL},
  };
  luaL_newlib(L, funcs);
  return 1;
}
