/* libs.h - Lua's libraries written anew, so that each charges the entry for the work it does.
 *
 * No hook runs inside C. Results and messages are those of Lua 5.4.4; what differs is only that a
 * limit of the entry may end any of these functions.
 */
#ifndef TM_BIND_LIBS_H
#define TM_BIND_LIBS_H

#include <lauxlib.h>
#include <lua.h>

/* Each sets its functions in the table on top of the stack, over what is there. */
void tm__lib_string(lua_State *L);

/* Parts of the string library, called by no other: find, match, gmatch, gsub. */
void tm__lib_search(lua_State *L);

/* What copying so many bytes costs. */
static inline size_t tm__copy_units(size_t bytes) {
  return bytes / 32;
}

/* A position as the string library counts them: 1 is the first byte, -1 the last. The start of a
 * range is at least 1, its end at most `len`. */
size_t tm__range_start(lua_Integer at, size_t len);
size_t tm__range_end(lua_Integer at, size_t len);

#endif
