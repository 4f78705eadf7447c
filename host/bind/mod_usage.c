/* host.usage - what the turn that runs takes of the machine; measured from the first time on that
 * somebody asks for it. Nothing is counted between entries, when other turns run.
 *
 *   usage.read() -> CPU time so far, in microseconds; bytes that the turn holds now; the most that
 *                   it has held since it was asked last. Outside of turns: zeros
 */
#include "bind/bind.h"
#include "core/clock.h"

static size_t held(const tm_vm *vm, size_t bytes) {
  size_t all = vm->run->held + bytes;
  return all > vm->entered ? all - vm->entered : 0;
}

static void note_peak(tm_vm *vm) {
  size_t most = held(vm, vm->peak);
  if (most > vm->run->peak) vm->run->peak = most;
  vm->peak = vm->bytes;
}

void tm__usage_begin(tm_vm *vm) {
  if (!vm->run->metered) return;
  vm->peak = vm->bytes;
  vm->run->cpu_from = tm__clock_thread_cpu_us();
}

void tm__usage_end(tm_vm *vm) {
  if (!vm->run->metered) return;
  note_peak(vm);
  vm->run->cpu_us += tm__clock_thread_cpu_us() - vm->run->cpu_from;
}

static int usage_read(lua_State *L) {
  tm_vm *vm = tm__vm(L);
  tm_run *run = vm->run;
  if (run != NULL && !run->metered) {
    run->metered = true;
    tm__usage_begin(vm);
  }
  if (run != NULL) note_peak(vm);
  int64_t spent = run != NULL ? run->cpu_us + tm__clock_thread_cpu_us() - run->cpu_from : 0;
  lua_pushinteger(L, spent);
  lua_pushinteger(L, run != NULL ? (lua_Integer)held(vm, vm->bytes) : 0);
  lua_pushinteger(L, run != NULL ? (lua_Integer)run->peak : 0);
  if (run != NULL) run->peak = 0;
  return 3;
}

int tm__open_usage(lua_State *L) {
  static const luaL_Reg funcs[] = {
      {"read", usage_read},
      {NULL, NULL},
  };
  luaL_newlib(L, funcs);
  return 1;
}
