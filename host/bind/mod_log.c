/* host.log - log.write(level, message, fields?): one line in the host's log.
 *
 * level is "debug", "info", "warning" or "error"; fields: at most 8, names to text, numbers or
 * booleans, written in the order of their names.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bind/bind.h"

#define MAX_FIELDS 8

typedef struct field {
  const char *name;
  char value[256];
} field;

static int field_order(const void *a, const void *b) {
  return strcmp(((const field *)a)->name, ((const field *)b)->name);
}

/* Names stay valid: the table at idx holds them. */
static size_t read_fields(lua_State *L, int idx, field out[MAX_FIELDS]) {
  size_t count = 0;
  if (lua_isnoneornil(L, idx)) return 0;
  luaL_checktype(L, idx, LUA_TTABLE);
  lua_pushnil(L);
  while (lua_next(L, idx)) {
    luaL_argcheck(L, lua_type(L, -2) == LUA_TSTRING, idx, "field names are text");
    luaL_argcheck(L, count < MAX_FIELDS, idx, "at most 8 fields");
    const char *value = lua_type(L, -1) == LUA_TBOOLEAN ? (lua_toboolean(L, -1) ? "true" : "false")
                                                        : lua_tostring(L, -1);
    luaL_argcheck(L, value != NULL, idx, "fields are text, numbers or booleans");
    out[count].name = lua_tostring(L, -2);
    (void)snprintf(out[count++].value, sizeof(out->value), "%s", value);
    lua_pop(L, 1);
  }
  qsort(out, count, sizeof(*out), field_order);
  return count;
}

static int log_write(lua_State *L) {
  static const char *const names[] = {"debug", "info", "warning", "error", NULL};
  static const tm_log_level levels[] = {TM_LOG_DEBUG, TM_LOG_INFO, TM_LOG_WARNING, TM_LOG_ERROR};
  tm_log_level level = levels[luaL_checkoption(L, 1, NULL, names)];
  char message[1024];
  (void)snprintf(message, sizeof(message), "%s", luaL_checkstring(L, 2));
  field f[MAX_FIELDS];
  size_t count = read_fields(L, 3, f);
  for (size_t i = count; i < MAX_FIELDS; i++)
    f[i].name = NULL; /* ends the list */
  const tm_log *log = tm__vm(L)->o.log;
  if (log != NULL)
    tm__log(log, level, message, f[0].name, f[0].value, f[1].name, f[1].value, f[2].name,
            f[2].value, f[3].name, f[3].value, f[4].name, f[4].value, f[5].name, f[5].value,
            f[6].name, f[6].value, f[7].name, f[7].value, (char *)NULL);
  return 0;
}

int tm__open_log(lua_State *L) {
  static const luaL_Reg funcs[] = {{"write", log_write}, {NULL, NULL}};
  luaL_newlib(L, funcs);
  return 1;
}
