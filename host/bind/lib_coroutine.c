/* lib_coroutine.c - what makes, resumes and closes coroutines; the rest of the library is Lua's.
 *
 * The limits have to know which coroutine runs: each has a hook of its own, which is kept as dense
 * as it must be only in that one. From one tm__limits_turn_to to the next nothing is raised:
 * lua_resume and lua_resetthread keep a coroutine's errors to themselves, and need no memory for
 * their own.
 */
#include "bind/libs.h"

#define C_STACK_MOST ((size_t)256 << 10) /* bytes; what Lua allows itself takes 512 KiB at most */

static lua_State *to_coroutine(lua_State *L) {
  lua_State *co = lua_tothread(L, 1);
  luaL_argcheck(L, co != NULL, 1, "coroutine expected");
  return co;
}

/* What ended inside the hook has no hooks any more, even when a later entry runs its __close
 * functions. This one marks it: without allocating, and it is never called. */
static void stopped(lua_State *L, lua_Debug *ar) {
  (void)L;
  (void)ar;
}

static void mark_stopped(const tm_vm *vm, lua_State *co) {
  if (vm->tripped != TM_TRIP_NONE && lua_status(co) > LUA_YIELD)
    lua_sethook(co, stopped, LUA_MASKCOUNT, 1);
}

static bool is_stopped(lua_State *co) {
  return lua_gethook(co) == stopped;
}

static int coroutine_create(lua_State *L) {
  luaL_checktype(L, 1, LUA_TFUNCTION);
  tm__limits_before(L);
  lua_State *co = lua_newthread(L);
  lua_pushvalue(L, 1);
  lua_xmove(L, co, 1);
  return 1;
}

static bool fail(lua_State *L, const char *why) {
  lua_settop(L, 1);
  lua_pushstring(L, why);
  return false;
}

/* Passes what is above index 1 to the coroutine there; in its place is then what that gave, or the
 * error. The coroutine stays on the stack: when it died, its own stack says where. */
static bool go_on(lua_State *L) {
  lua_State *co = to_coroutine(L);
  tm_vm *vm = tm__vm(L);
  int count = lua_gettop(L) - 1;
  tm__limits_before(L);
  if (is_stopped(co)) return fail(L, "cannot resume dead coroutine");
  if (!lua_checkstack(co, count)) return fail(L, "too many arguments to resume");
  lua_xmove(L, co, count);
  tm__limits_turn_to(vm, co);
  int status = lua_resume(co, L, count, &count);
  tm__limits_turn_to(vm, L);
  bool well = status <= LUA_YIELD;
  mark_stopped(vm, co);
  if (well && vm->tripped != TM_TRIP_NONE) lua_pop(co, count); /* nobody takes them */
  tm__limits_after(L, co);
  if (well && !lua_checkstack(L, count + 1)) {
    lua_pop(co, count);
    return fail(L, "too many results to resume");
  }
  lua_xmove(co, L, well ? count : 1);
  return well;
}

static int coroutine_resume(lua_State *L) {
  lua_pushboolean(L, go_on(L));
  lua_insert(L, 2);
  return lua_gettop(L) - 1;
}

/* How deep C functions call each other Lua bounds itself, but for a coroutine that is closed it
 * goes on from where that was resumed last. */
static bool is_deep(const tm_vm *vm) {
  uintptr_t here = (uintptr_t)__builtin_frame_address(0);
  return (here < vm->c_stack ? vm->c_stack - here : here - vm->c_stack) > C_STACK_MOST;
}

static int end(lua_State *L, lua_State *co) {
  tm_vm *vm = tm__vm(L);
  if (is_deep(vm)) return luaL_error(L, "C stack overflow");
  tm__limits_turn_to(vm, co);
  int status = lua_resetthread(co);
  tm__limits_turn_to(vm, L);
  tm__limits_after(L, L);
  return status;
}

static int coroutine_close(lua_State *L) {
  lua_State *co = to_coroutine(L);
  lua_Debug ar;
  tm__limits_before(L);
  if (is_stopped(co)) {
    lua_pushboolean(L, 0);
    lua_pushliteral(L, "the coroutine was stopped by a limit");
    return 2;
  }
  if (lua_status(co) == LUA_OK && lua_getstack(co, 0, &ar) != 0)
    return luaL_error(L, "cannot close a %s coroutine", co == L ? "running" : "normal");
  bool well = end(L, co) == LUA_OK;
  lua_pushboolean(L, well);
  if (!well) lua_xmove(co, L, 1);
  return well ? 1 : 2;
}

/* As the library's, but a coroutine that broke a limit is not closed: its __close functions would
 * run without a hook. */
static int wrapped(lua_State *L) {
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  if (go_on(L)) return lua_gettop(L) - 1;
  lua_State *co = lua_tothread(L, 1);
  if (lua_status(co) > LUA_YIELD && !is_stopped(co)) {
    (void)end(L, co);
    lua_xmove(co, L, 1);
  }
  if (lua_type(L, -1) == LUA_TSTRING) {
    luaL_where(L, 1);
    lua_insert(L, -2);
    lua_concat(L, 2);
  }
  return lua_error(L);
}

static int coroutine_wrap(lua_State *L) {
  (void)coroutine_create(L);
  lua_pushcclosure(L, wrapped, 1);
  return 1;
}

/* What lua_resume and lua_resetthread say outside of a coroutine: short texts, each of which is
 * there once. If one had to be made and there were no memory, Lua would leave all coroutines at
 * once for the door. */
static void keep_messages(lua_State *L) {
  static const char *const messages[] = {"cannot resume dead coroutine",
                                         "cannot resume non-suspended coroutine",
                                         "C stack overflow", "error in error handling", NULL};
  for (size_t i = 0; messages[i] != NULL; i++) {
    lua_pushstring(L, messages[i]);
    (void)luaL_ref(L, LUA_REGISTRYINDEX);
  }
}

void tm__lib_coroutine(lua_State *L) {
  static const luaL_Reg funcs[] = {
      {"create", coroutine_create},
      {"resume", coroutine_resume},
      {"close", coroutine_close},
      {"wrap", coroutine_wrap},
      {NULL, NULL},
  };
  luaL_setfuncs(L, funcs, 0);
  keep_messages(L);
}
