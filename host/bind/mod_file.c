/* host.file - the files of the system that is being loaded.
 *
 *   file.read(path) -> text, chunk name | nil, err     path within the system's folder: "init.lua"
 */
#include "bind/bind.h"

static int file_read(lua_State *L) {
  tm_vm *vm = tm__vm(L);
  tm_slice path;
  path.ptr = luaL_checklstring(L, 1, &path.len);
  tm_error err;
  tm_buf *text = &vm->json.text;
  tm__buf_clear(text);
  tm_status st = vm->o.read_file(vm->o.read_ud, path, text, &err);
  if (st == TM_OK && !tm__buf_ok(text)) st = tm__fail_memory(&err, "a script's text");
  if (st != TM_OK) return tm__push_fail(L, &err);
  tm_slice s = tm__buf_view(text);
  lua_pushlstring(L, s.ptr != NULL ? s.ptr : "", s.len);
  lua_pushfstring(L, "@%s/%s", vm->o.root != NULL ? vm->o.root : "scripts", path.ptr);
  return 2;
}

int tm__open_file(lua_State *L) {
  static const luaL_Reg funcs[] = {{"read", file_read}, {NULL, NULL}};
  luaL_newlib(L, funcs);
  return 1;
}
