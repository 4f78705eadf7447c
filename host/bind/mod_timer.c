/* host.timer - timer.start(ms) -> op | nil, err: completes with no values. */
#include "bind/bind.h"

#define LONGEST_MS INT64_C(86400000) /* what is longer is a deadline of the conversation */

static void on_timer(void *ud) {
  tm__op_ended(ud, NULL);
}

static int timer_start(lua_State *L) {
  lua_Integer ms = luaL_checkinteger(L, 1);
  luaL_argcheck(L, ms >= 0 && ms <= LONGEST_MS, 1, "0 to 86400000 milliseconds");
  tm_vm *vm = tm__vm(L);
  tm_error err;
  tm_op *op = tm__op_new(vm, TM_OP_TIMER, &err);
  if (op == NULL) return tm__push_fail(L, &err);
  uint64_t id = op->id;
  if (tm__timer_start(vm->o.worker, (uint64_t)ms, on_timer, op, &op->handle, &err) != TM_OK) {
    tm__op_free(op);
    return tm__push_fail(L, &err);
  }
  lua_pushinteger(L, (lua_Integer)id);
  return 1;
}

int tm__open_timer(lua_State *L) {
  static const luaL_Reg funcs[] = {{"start", timer_start}, {NULL, NULL}};
  luaL_newlib(L, funcs);
  return 1;
}
