/* limits.c - CPU time by a count hook, and guards so that no script can outlive its budget.
 *
 * The hook sees each coroutine by itself. So the functions that start, resume (lib_coroutine.c) or
 * protect code look at the budget too: neither a swarm of short coroutines nor a pcall gets around
 * it. Once tripped, everything raises until the door is reached.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "bind/bind.h"
#include "bind/libs.h"
#include "core/clock.h"

#define LOOK_US              1000
#define FEW_NAMES            ((size_t)8 << 10)
#define LARGE_BYTES          ((size_t)256 << 10)
#define PER_LOOK_WHERE_LARGE 50
#define TEXT_BYTES           ((size_t)2 << 10)
#define NODE_BYTES           24 /* of Lua's tables: a name and its value */
#define NAMES_LEAST          16 /* of those that are counted */
#define COLLECT_NS           64 /* a block: what collecting takes, where all are short texts */
#define COMPARE_NS           7  /* a byte: what comparing takes, where all are NULs */

_Static_assert(TM_COUNTED_BYTES <= NAMES_LEAST * NODE_BYTES, "what has names is counted");
_Static_assert(TM_COUNTED_BYTES <= TEXT_BYTES, "long texts are counted");

static void on_count(lua_State *L, lua_Debug *ar);

/* texts_of[i]: of at least TEXT_BYTES << i. Comparing two of them is one instruction. */
static int text_size(size_t size) {
  int i = 0;
  while (i < TM_TEXT_SIZES - 1 && size >= TEXT_BYTES << (i + 1))
    i++;
  return i;
}

static int instructions_per_look(const tm_vm *vm) {
  if (vm->tripped != TM_TRIP_NONE) return 1; /* whatever catches this meets the next one */
  int count = vm->per_look;
  if (vm->large > 0 && count > PER_LOOK_WHERE_LARGE) count = PER_LOOK_WHERE_LARGE;
  if (vm->texts.count == 0) return count;
  int longest = TM_TEXT_SIZES - 1;
  while (longest > 0 && vm->texts_of[longest] == 0)
    longest--;
  int among_texts = longest < 9 ? 512 >> longest : 1;
  return among_texts < count ? among_texts : count;
}

static void look_often_enough(const tm_vm *vm, lua_State *L) {
  int count = instructions_per_look(vm);
  if (lua_gethookcount(L) != count) lua_sethook(L, on_count, LUA_MASKCOUNT, count);
}

void tm__limits_turn_to(tm_vm *vm, lua_State *L) {
  vm->running = L;
  look_often_enough(vm, L);
}

void tm__limits_start(tm_vm *vm, int64_t budget_ms, size_t memory) {
  size_t most = vm->o.limits.memory != 0 ? vm->o.limits.memory : SIZE_MAX;
  bool less = memory != 0 && vm->bytes < most && memory < most - vm->bytes;
  vm->ceiling = less ? vm->bytes + memory : most;
  vm->budget_ms = budget_ms;
  vm->began_us = vm->looked_us = 0;
  vm->collected = 0;
  vm->refused = 0;
  vm->refusal = TM_TRIP_NONE;
  vm->refused_at[0] = '\0';
  vm->where[0] = '\0';
  vm->json.key_count = 0;
  vm->writes = false;
  vm->tripped = TM_TRIP_NONE;
  look_often_enough(vm, vm->L);
}

/* Two texts that are longer are not let be: comparing them might take more than half of a slice. */
static size_t text_most(const tm_vm *vm) {
  int64_t slice_ms = vm->o.limits.cpu_slice_ms;
  return slice_ms > 0 ? (size_t)slice_ms * 500000 / COMPARE_NS : SIZE_MAX;
}

/* What comparing the two longest texts may take. */
static int64_t comparing_us(const tm_vm *vm) {
  size_t count = 0, size = text_most(vm);
  int i = TM_TEXT_SIZES;
  while (i > 0 && count < 2)
    count += vm->texts_of[--i];
  if (count < 2) return 0;
  if (i < TM_TEXT_SIZES - 1 && TEXT_BYTES << (i + 1) < size) size = TEXT_BYTES << (i + 1);
  return (int64_t)(size / 1000 * COMPARE_NS);
}

/* What used up the slice may be followed by a single instruction that collects all garbage, or
 * compares two long texts: its time is kept back. */
static int64_t slice_us(const tm_vm *vm) {
  int64_t all = vm->budget_ms * 1000, kept = (int64_t)(vm->blocks * COLLECT_NS / 1000);
  if (vm->loads) return all;
  int64_t compares = comparing_us(vm);
  if (compares > kept) kept = compares;
  return kept < all / 2 ? all - kept : all / 2;
}

/* Until a millisecond has passed since the last look only the clock on the wall is asked, which
 * costs no system call: a short entry makes none, unless an instruction of it may take long. */
static void look(tm_vm *vm) {
  if (vm->tripped != TM_TRIP_NONE || vm->budget_ms <= 0) return;
  int64_t wall = tm__clock_monotonic_us();
  bool begins = vm->began_us == 0 && instructions_per_look(vm) < TM_PER_LOOK;
  if (vm->looked_us == 0) vm->looked_us = wall;
  if (!begins && wall - vm->looked_us < LOOK_US) return;
  vm->looked_us = wall;
  int64_t now = tm__clock_thread_cpu_us();
  if (vm->began_us == 0)
    vm->began_us = now;
  else if (now - vm->began_us >= slice_us(vm))
    vm->tripped = TM_TRIP_CPU;
}

/* The runtime's own lines say nothing to a script writer. */
void tm__limits_place(tm_vm *vm, lua_State *L) {
  static const char runtime[] = "lua/tidemill/";
  lua_Debug ar;
  for (int level = 0; level < 20 && lua_getstack(L, level, &ar); level++) {
    if (lua_getinfo(L, "Sl", &ar) == 0 || ar.currentline <= 0) continue;
    if (strncmp(ar.short_src, runtime, sizeof(runtime) - 1) == 0) continue;
    (void)snprintf(vm->where, sizeof(vm->where), "%s:%d", ar.short_src, ar.currentline);
    return;
  }
}

static int raise_limit(lua_State *L) {
  lua_pushliteral(L, "over the limits of this entry");
  return lua_error(L);
}

static void on_count(lua_State *L, lua_Debug *ar) {
  (void)ar;
  tm_vm *vm = tm__vm(L);
  look(vm);
  look_often_enough(vm, L);
  if (vm->tripped == TM_TRIP_NONE) return;
  if (vm->where[0] == '\0') tm__limits_place(vm, L);
  (void)raise_limit(L);
}

/* While a system is loaded its first file stands for what no line of a script did. */
static void place_load(tm_vm *vm) {
  if (vm->loads && vm->where[0] == '\0' && vm->o.root != NULL)
    (void)snprintf(vm->where, sizeof(vm->where), "%.90s/init.lua:1", vm->o.root);
}

tm_status tm__limits_error(tm_vm *vm, tm_error *err) {
  const tm_vm_limits *l = &vm->o.limits;
  if (vm->tripped == TM_TRIP_HOST_MEMORY) return tm__fail_memory(err, "a script's data");
  place_load(vm);
  const char *in = vm->where[0] != '\0' ? " at " : "";
  if (vm->tripped == TM_TRIP_CPU && vm->loads)
    return tm__fail(err, TM_ELIMIT, "script.cpu",
                    "the system used more than %" PRId64 " ms of CPU time while it was loaded%s%s; "
                    "do less at load, or raise limits.load_time",
                    vm->budget_ms, in, vm->where);
  if (vm->tripped == TM_TRIP_CPU && slice_us(vm) < vm->budget_ms * 900)
    return tm__fail(err, TM_ELIMIT, "script.cpu",
                    "the script used more than %" PRId64 " ms of CPU time without waiting%s%s: of "
                    "%" PRId64 " ms the rest is kept back for collecting the %zu tables, texts and "
                    "other values that its system holds, or comparing the longest texts; let it "
                    "hold less, or raise limits.cpu_slice",
                    slice_us(vm) / 1000, in, vm->where, vm->budget_ms, vm->blocks);
  if (vm->tripped == TM_TRIP_CPU)
    return tm__fail(err, TM_ELIMIT, "script.cpu",
                    "the script used more than %" PRId64 " ms of CPU time without waiting%s%s; "
                    "do less in one step, or raise limits.cpu_slice",
                    vm->budget_ms, in, vm->where);
  if (vm->tripped == TM_TRIP_TABLE)
    return tm__fail(err, TM_ELIMIT, "script.cpu",
                    "a table with more than %zu names (lists do not count) may take more than what "
                    "is left of the %" PRId64 " ms of CPU time to put in order%s%s; use several "
                    "tables, or %s",
                    vm->names, vm->budget_ms, in, vm->where,
                    vm->loads ? "raise limits.load_time"
                              : "make it while the system loads, or raise limits.cpu_slice");
  if (vm->tripped == TM_TRIP_CROWD)
    return tm__fail(
        err, TM_ELIMIT, "script.cpu",
        "too many of the script's short texts are alike to Lua: releasing them may take "
        "more than the %" PRId64 " ms of CPU time%s%s; make fewer texts, or of more than "
        "40 bytes",
        vm->budget_ms, in, vm->where);
  if (vm->tripped == TM_TRIP_TEXT)
    return tm__fail(err, TM_ELIMIT, "script.cpu",
                    "two texts of more than %zu bytes: comparing them may take more than half of "
                    "the %" PRId64 " ms of CPU time%s%s; keep one such text at a time, or raise "
                    "limits.cpu_slice",
                    text_most(vm), l->cpu_slice_ms, in, vm->where);
  if (vm->tripped == TM_TRIP_STACK)
    return tm__fail(err, TM_ELIMIT, "script.memory",
                    "calls are nested too deep, or pass on too many values%s%s; let functions call "
                    "themselves less often, and give lists as tables",
                    in, vm->where);
  if (vm->tripped == TM_TRIP_STEP_MEMORY)
    return tm__fail(err, TM_ELIMIT, "script.memory",
                    "the step needs more than its %zu bytes of memory%s%s; keep less at once and "
                    "while it waits, or "
                    "raise limits.step_memory",
                    l->step_memory, in, vm->where);
  return tm__fail(err, TM_ELIMIT, "script.memory",
                  "the scripts of this system need more than their %zu bytes of memory%s%s; keep "
                  "less in them, or raise limits.memory",
                  l->memory, in, vm->where);
}

/* ---- guards: the library's function, and the budget before and after it ---- */

bool tm__limits_charge(tm_vm *vm, size_t units) {
  vm->work += units;
  if (vm->work >= (size_t)vm->per_look) {
    vm->work = 0;
    look(vm);
  }
  return vm->tripped == TM_TRIP_NONE;
}

/* How many names a table has room for in a block of that size; 0: few, or it is none of names. */
static size_t names_in(size_t size) {
  size_t names = size / NODE_BYTES;
  if (names < NAMES_LEAST || names * NODE_BYTES != size || (names & (names - 1)) != 0) return 0;
  return names;
}

/* One instruction may follow a chain of tables, and pass in each all of its names (see
 * tm__limits_names): the more names there are, the fewer instructions. */
static void count_names(tm_vm *vm, size_t old_size, size_t new_size) {
  size_t before = names_in(old_size), now = names_in(new_size);
  if (before == now) return;
  vm->named += now - before;
  int count = TM_PER_LOOK;
  for (size_t n = vm->named; n > FEW_NAMES && count > 1; n /= 2)
    count /= 2;
  bool fewer = count < vm->per_look;
  vm->per_look = count;
  if (fewer && vm->running != NULL) look_often_enough(vm, vm->running);
}

void tm__limits_block(tm_vm *vm, size_t old_size, size_t new_size) {
  count_names(vm, old_size, new_size);
  if (old_size < LARGE_BYTES && new_size < LARGE_BYTES) return;
  if (old_size >= LARGE_BYTES) vm->large--;
  if (new_size < LARGE_BYTES) return;
  vm->large++;
  (void)tm__limits_charge(vm, new_size / 64);
  if (vm->running != NULL) look_often_enough(vm, vm->running);
}

tm_trip tm__limits_refuse_text(tm_vm *vm, size_t size) {
  if (size < TEXT_BYTES) return TM_TRIP_NONE;
  if (!tm__idmap_reserve(&vm->texts)) return TM_TRIP_HOST_MEMORY;
  return vm->texts_over > 0 && size > text_most(vm) ? TM_TRIP_TEXT : TM_TRIP_NONE;
}

void tm__limits_text(tm_vm *vm, const void *text, size_t size) {
  if (size < TEXT_BYTES) return;
  (void)tm__idmap_add(&vm->texts, (uint64_t)(uintptr_t)text, vm); /* there is room */
  vm->texts_of[text_size(size)]++;
  vm->texts_over += size > text_most(vm);
  if (vm->running != NULL) look_often_enough(vm, vm->running);
}

void tm__limits_gone(tm_vm *vm, const void *block, size_t size) {
  if (size < TEXT_BYTES || vm->texts.count == 0) return;
  if (tm__idmap_remove(&vm->texts, (uint64_t)(uintptr_t)block) == NULL) return;
  vm->texts_of[text_size(size)]--;
  vm->texts_over -= size > text_most(vm);
}

void tm__seti(lua_State *L, int table, lua_Integer i) {
  tm__vm(L)->writes = true;
  lua_seti(L, table, i);
  tm__vm(L)->writes = false;
}

int tm__rawset(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  luaL_checkany(L, 3);
  lua_settop(L, 3);
  tm__vm(L)->writes = true;
  lua_rawset(L, 1);
  tm__vm(L)->writes = false;
  return 1;
}

int64_t tm__limits_used_us(const tm_vm *vm) {
  if (vm->began_us == 0) return 0;
  return tm__clock_thread_cpu_us() - vm->began_us;
}

/* Whether a script's code writes into a table: the innermost function of Lua is a script's (the
 * sandbox's work is done for scripts), and no function of C asks for something else. */
static bool is_for_script(const tm_vm *vm) {
  lua_State *L = vm->running;
  lua_Debug ar;
  for (int level = 0; lua_getstack(L, level, &ar); level++) {
    if (lua_getinfo(L, "S", &ar) == 0) continue;
    if (*ar.what == 'C' && level == 0 && !vm->writes) return false;
    if (*ar.what == 'C') continue;
    if (strcmp(ar.short_src, "lua/tidemill/sandbox.lua") == 0) continue;
    return strncmp(ar.short_src, "lua/tidemill/", 13) != 0;
  }
  return false;
}

/* A table that grows puts its names in order again, in one instruction. Lua orders whole numbers
 * without a seed, so a script can choose names that all meet in one place; then this takes time by
 * their number squared. What it may take has to be left of the slice. */
bool tm__limits_names(tm_vm *vm, size_t size) {
  size_t names = names_in(size);
  if (names < 1024) return true;
  if (vm->budget_ms <= 0 || vm->running == NULL) return true;
  int64_t worst_us =
      (int64_t)(names / 8 * names / 250); /* half of them, squared, halved: 4 ns each */
  if (!is_for_script(vm)) return true;
  look(vm);
  if (tm__limits_used_us(vm) + worst_us < slice_us(vm)) return true;
  vm->names = names / 2;
  return false;
}

/* A buffer that grows doubles: where it has less than half of a step it could not have more. Not
 * again before there can be garbage that is worth it. */
void tm__limits_room(lua_State *L, size_t size) {
  tm_vm *vm = tm__vm(L);
  size_t step = vm->o.limits.step_memory;
  size_t room = vm->ceiling > vm->bytes ? vm->ceiling - vm->bytes : 0;
  if (room >= step / 2 && room >= size) return;
  if (vm->bytes < vm->collected + step / 16) return;
  (void)lua_gc(L, LUA_GCCOLLECT);
  vm->collected = vm->bytes;
}

void tm__limits_check(lua_State *L) {
  tm_vm *vm = tm__vm(L);
  tm__limits_room(L, 0);
  if (tm__limits_charge(vm, 0)) return;
  if (vm->where[0] == '\0') tm__limits_place(vm, L);
  (void)raise_limit(L);
}

void tm__limits_no_memory(lua_State *L) {
  tm_vm *vm = tm__vm(L);
  if (vm->tripped == TM_TRIP_NONE) vm->tripped = TM_TRIP_HOST_MEMORY;
  (void)raise_limit(L);
}

void tm__limits_before(lua_State *L) {
  tm_vm *vm = tm__vm(L);
  look(vm);
  if (vm->tripped == TM_TRIP_NONE) return;
  if (vm->where[0] == '\0') tm__limits_place(vm, L);
  (void)raise_limit(L);
}

void tm__limits_after(lua_State *L, lua_State *ran) {
  tm_vm *vm = tm__vm(L);
  if (vm->tripped == TM_TRIP_NONE) return;
  if (vm->where[0] == '\0') tm__limits_place(vm, ran);
  (void)raise_limit(L);
}

static int after_call(lua_State *L, int status, lua_KContext context) {
  (void)status;
  (void)context;
  tm__limits_after(L, L);
  return lua_gettop(L);
}

static int guarded_call(lua_State *L) {
  tm__limits_before(L);
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  lua_callk(L, lua_gettop(L) - 1, LUA_MULTRET, 0, after_call);
  return after_call(L, LUA_OK, 0);
}

/* A handler is called where the error is raised; for our own that is inside the hook, where no hook
 * would ever stop it. */
static int handler(lua_State *L) {
  if (tm__vm(L)->tripped != TM_TRIP_NONE) return 1;
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  lua_call(L, lua_gettop(L) - 1, 1);
  return 1;
}

static int guarded_xpcall(lua_State *L) {
  if (lua_type(L, 2) == LUA_TFUNCTION) {
    lua_pushvalue(L, 2);
    lua_pushcclosure(L, handler, 1);
    lua_replace(L, 2);
  }
  return guarded_call(L);
}

/* table[name] becomes f, with the library's function as upvalue. */
static void guard(lua_State *L, const char *table, const char *name, lua_CFunction f) {
  lua_getglobal(L, table);
  lua_getfield(L, -1, name);
  lua_pushcclosure(L, f, 1);
  lua_setfield(L, -2, name);
  lua_pop(L, 1);
}

void tm__limits_install(lua_State *L) {
  lua_sethook(L, on_count, LUA_MASKCOUNT, TM_PER_LOOK);
  guard(L, "_G", "pcall", guarded_call);
  guard(L, "_G", "xpcall", guarded_xpcall);
}
