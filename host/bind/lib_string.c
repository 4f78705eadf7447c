/* lib_string.c - the string library but for patterns (lib_search.c). */
#include "bind/libs.h"

#include <string.h>

#include "bind/bind.h"

size_t tm__range_start(lua_Integer at, size_t len) {
  if (at > 0) return (size_t)at;
  if (at == 0 || at < -(lua_Integer)len) return 1;
  return len - (size_t)-at + 1;
}

size_t tm__range_end(lua_Integer at, size_t len) {
  if (at > (lua_Integer)len) return len;
  if (at >= 0) return (size_t)at;
  return at < -(lua_Integer)len ? 0 : len - (size_t)-at + 1;
}

void tm__lib_string(lua_State *L) {
  tm__lib_search(L);
}
