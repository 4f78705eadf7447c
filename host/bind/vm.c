/* vm.c - a Lua state, its allocator, and the one protected door into it.
 *
 * lua_pcall from C stands here and nowhere else. Whatever is raised inside is turned into a
 * tm_error while still inside, so that nothing outside the door can raise.
 */
#include <stdlib.h>
#include <string.h>

#include "bind/bind.h"
#include "core/json.h"

#define STACK_MOST                                                                                 \
  ((size_t)128 << 10) /* bytes of a coroutine's stack; what doubles beyond is the last */

#define KEPT_BYTES ((size_t)64 << 10) /* of a buffer, from one entry to the next */

/* A block for each 256 bytes, but always so many that they are collected in some milliseconds. */
#define BLOCK_BYTES ((size_t)256)
#define FEW_BLOCKS  ((size_t)128 << 10)

/* ---- memory ---- */

static void *default_alloc(void *ud, void *p, size_t old_size, size_t new_size) {
  (void)ud;
  (void)old_size;
  if (new_size != 0) return p == NULL ? malloc(new_size) : realloc(p, new_size);
  free(p);
  return NULL;
}

static void trip(tm_vm *vm, tm_trip by) {
  if (vm->tripped != TM_TRIP_NONE) return;
  vm->tripped = by;
  if (vm->running != NULL) tm__limits_place(vm, vm->running); /* allocates nothing */
}

/* Lua collects garbage and asks once more before it gives up: only the second refusal counts. Its
 * buffers ask once, and raise at once: for them the place is noted. */
static void refuse(tm_vm *vm, size_t size, tm_trip by) {
  vm->refusal = by;
  if (vm->tripped == TM_TRIP_NONE && vm->running != NULL) {
    tm__limits_place(vm, vm->running); /* allocates nothing */
    memcpy(vm->refused_at, vm->where, sizeof(vm->where));
    vm->where[0] = '\0';
  }
  if (vm->refused == size) trip(vm, by);
  vm->refused = size;
}

static void trip_late(tm_vm *vm) {
  vm->tripped = vm->refusal;
  memcpy(vm->where, vm->refused_at, sizeof(vm->where));
}

/* Some of Lua's single instructions take time by the depth of the stack, squared: a stack is cut
 * short. Its growth is known by a new block for twice the slots (16 bytes each, and 5 spare ones)
 * and the old one's release right after. JSON is made on it without a script's code. */
static size_t grown_stack(size_t old) {
  return 2 * old - (size_t)5 * 16;
}

static void note_release(tm_vm *vm, size_t size) {
  bool scripted = !vm->loads && vm->json.key_count == 0;
  if (!scripted || vm->fresh <= STACK_MOST || vm->fresh != grown_stack(size)) return;
  vm->stack = vm->fresh;
  trip(vm, TM_TRIP_STACK);
}

static bool is_refused_stack(const tm_vm *vm) {
  return vm->stack != 0 && vm->fresh == grown_stack(vm->stack) && !vm->loads &&
         vm->json.key_count == 0;
}

static void *count_block(tm_vm *vm, void *q, size_t old, size_t new_size) {
  vm->bytes += new_size - old;
  vm->blocks += (size_t)(new_size != 0) - (size_t)(old != 0);
  if (vm->bytes > vm->peak) vm->peak = vm->bytes;
  if (new_size > old) vm->refused = 0;
  return q;
}

/* Most blocks are small: no stack, table or text that a limit counts beside the memory. */
static bool is_plain(const tm_vm *vm, size_t old, size_t new_size) {
  return old < TM_COUNTED_BYTES && new_size < TM_COUNTED_BYTES &&
         vm->bytes + new_size <= vm->ceiling;
}

static void *plain_block(tm_vm *vm, void *p, size_t old_size, size_t new_size) {
  size_t old = p != NULL ? old_size : 0;
  vm->fresh = 0;
  if (p != NULL && new_size == 0) tm__crowd_gone(&vm->crowd, p, old);
  void *q = vm->o.alloc(vm->o.alloc_ud, p, old, new_size);
  if (p == NULL && old_size == LUA_TSTRING && tm__crowd_is_text(new_size)) vm->crowd.newest = q;
  if (q != NULL || new_size == 0) return count_block(vm, q, old, new_size);
  refuse(vm, new_size, TM_TRIP_HOST_MEMORY);
  return NULL;
}

static void *lua_alloc(void *ud, void *p, size_t old_size, size_t new_size) {
  tm_vm *vm = ud;
  size_t old = p != NULL ? old_size : 0; /* for a new block it is a type tag */
  if (vm->crowd.newest != NULL && !tm__crowd_count(&vm->crowd)) trip(vm, TM_TRIP_CROWD);
  if (is_plain(vm, old, new_size)) return plain_block(vm, p, old_size, new_size);
  if (p != NULL && new_size == 0) note_release(vm, old);
  vm->fresh = p == NULL && old_size == 0 ? new_size : 0;
  if (is_refused_stack(vm)) {
    refuse(vm, new_size, TM_TRIP_STACK);
    return NULL;
  }
  if (vm->fresh != 0 && !tm__limits_names(vm, new_size)) {
    refuse(vm, new_size, TM_TRIP_TABLE);
    return NULL;
  }
  size_t room = vm->ceiling > vm->bytes ? vm->ceiling - vm->bytes : 0;
  if (new_size > old && new_size - old > room) {
    bool state = vm->ceiling == vm->o.limits.memory;
    refuse(vm, new_size, state ? TM_TRIP_STATE_MEMORY : TM_TRIP_STEP_MEMORY);
    return NULL;
  }
  bool text = p == NULL && old_size == LUA_TSTRING;
  tm_trip no_text = text ? tm__limits_refuse_text(vm, new_size) : TM_TRIP_NONE;
  if (no_text != TM_TRIP_NONE) {
    refuse(vm, new_size, no_text);
    return NULL;
  }
  if (new_size == 0 && p != NULL) {
    tm__limits_gone(vm, p, old);
    tm__crowd_gone(&vm->crowd, p, old);
  }
  void *q = vm->o.alloc(vm->o.alloc_ud, p, old, new_size);
  if (q == NULL && new_size != 0) {
    refuse(vm, new_size, TM_TRIP_HOST_MEMORY);
    return NULL;
  }
  (void)count_block(vm, q, old, new_size);
  tm__limits_block(vm, old, new_size);
  if (text) tm__limits_text(vm, q, new_size);
  return q;
}

tm_vm *tm__vm(lua_State *L) {
  return *(tm_vm **)lua_getextraspace(L);
}

size_t tm__vm_weight(const tm_vm *vm) {
  size_t by_blocks = vm->blocks * vm->block_bytes;
  if (vm->block_bytes != 0 && tm__crowd_is_dense(&vm->crowd)) return SIZE_MAX;
  return by_blocks > vm->bytes ? by_blocks : vm->bytes;
}

void tm__vm_collect(tm_vm *vm) {
  vm->tripped = TM_TRIP_NONE;
  (void)lua_gc(vm->L, LUA_GCCOLLECT);
}

tm_realloc_fn tm__allocator(const tm_vm_options *o) {
  return o->alloc != NULL ? o->alloc : default_alloc;
}

void *tm__xalloc(tm_vm *vm, size_t size) {
  return vm->o.alloc(vm->o.alloc_ud, NULL, 0, size);
}

void tm__xfree(tm_vm *vm, void *p, size_t size) {
  if (p != NULL) (void)vm->o.alloc(vm->o.alloc_ud, p, size, 0);
}

/* ---- the door ---- */

static int on_error(lua_State *L) {
  tm__take_error(L, 1, &tm__vm(L)->failure);
  return 1;
}

static tm_status what_failed(tm_vm *vm, int rc, tm_error *err) {
  if (rc == LUA_ERRMEM && vm->tripped == TM_TRIP_NONE) trip_late(vm);
  if (vm->tripped != TM_TRIP_NONE) return tm__limits_error(vm, err);
  if (rc == LUA_ERRMEM) return tm__fail_memory(err, "a script's data");
  if (vm->failure.status == TM_OK)
    return tm__fail(err, TM_ESCRIPT, "script.error", "an error whose description failed as well");
  if (err != NULL) *err = vm->failure;
  return vm->failure.status;
}

static void shed(tm_buf *b) {
  if (b->cap > KEPT_BYTES) tm__buf_free(b);
}

/* The buffers are outside of Lua, where no limit counts: what one turn has grown is not kept. */
static void shed_all(tm_vm *vm) {
  tm_json *j = &vm->json;
  size_t keys = j->key_cap * sizeof(*j->keys);
  for (size_t i = 0; i < TM_DRAFT_PARTS; i++)
    shed(&vm->parts[i]);
  shed(&j->text);
  json_decref(j->tree);
  j->tree = NULL;
  if (keys <= KEPT_BYTES) return;
  tm__xfree(vm, j->keys, keys);
  j->keys = NULL;
  j->key_count = j->key_cap = 0;
}

static tm_status enter(tm_vm *vm, lua_CFunction f, void *ud, tm_error *err) {
  lua_State *L = vm->L;
  int top = lua_gettop(L);
  if (!lua_checkstack(L, 4)) return tm__fail_memory(err, "the stack of a script");
  vm->failure.status = TM_OK;
  vm->door->depth++;
  vm->running = L;
  vm->c_stack = (uintptr_t)__builtin_frame_address(0);
  lua_pushcfunction(L, on_error); /* light C functions: cannot raise */
  lua_pushcfunction(L, f);
  lua_pushlightuserdata(L, ud);
  int rc = lua_pcall(L, 1, 0, top + 1);
  vm->running = NULL;
  lua_settop(L, top);
  shed_all(vm);
  vm->door->depth--;
  tm_status st = rc == LUA_OK ? TM_OK : what_failed(vm, rc, err);
  vm->ceiling = SIZE_MAX;
  return st;
}

static int take_text(lua_State *L, tm_buf *out) {
  if (lua_type(L, -1) != LUA_TSTRING)
    return luaL_error(L, "the runtime returned a %s instead of text", luaL_typename(L, -1));
  size_t len;
  const char *text = lua_tolstring(L, -1, &len);
  tm__buf_add(out, text, len);
  return 0;
}

static int call_dispatch(lua_State *L) {
  const tm_entry *e = lua_touserdata(L, 1);
  lua_rawgeti(L, LUA_REGISTRYINDEX, tm__vm(L)->dispatch);
  lua_pushinteger(L, (lua_Integer)e->id);
  lua_pushstring(L, e->event);
  int n = e->push != NULL ? e->push(L, e->ud) : 0;
  lua_call(L, n + 2, e->out != NULL ? 1 : 0);
  return e->out != NULL ? take_text(L, e->out) : 0;
}

/* What a step holds while it waits counts too; some room is left to end well. Whether the state has
 * room for it is looked after between entries. */
static size_t room_of(const tm_run *run, size_t step_memory) {
  size_t least = step_memory / 16;
  return run->held < step_memory - least ? step_memory - run->held : least;
}

/* Loading and checking may take long, and what they make belongs to the state, not to a step. What
 * cleans up must not be stopped by the very limit that made it necessary. */
static void start_limits(tm_vm *vm, const char *event) {
  const tm_vm_limits *limits = &vm->o.limits;
  vm->loads = strcmp(event, "load") == 0 || strcmp(event, "check") == 0;
  if (vm->loads)
    tm__limits_start(vm, limits->load_ms, 0);
  else
    tm__limits_start(vm, limits->cpu_slice_ms, limits->step_memory);
  if (strcmp(event, "cancel") == 0 || strcmp(event, "failed") == 0) {
    vm->ceiling = limits->step_memory != 0 ? vm->bytes + limits->step_memory : SIZE_MAX;
  } else if (vm->run != NULL && limits->step_memory != 0) {
    vm->ceiling = vm->bytes + room_of(vm->run, limits->step_memory);
  }
}

/* What a system keeps is there for good: turns need room beside it. */
static tm_status check_kept(tm_vm *vm, tm_error *err) {
  size_t most = vm->o.limits.memory / 2;
  if (most == 0 || tm__vm_weight(vm) <= most) return TM_OK;
  tm__vm_collect(vm);
  if (tm__vm_weight(vm) <= most) return TM_OK;
  if (vm->bytes <= most)
    return tm__fail(err, TM_ELIMIT, "script.memory",
                    "the system keeps %zu tables, texts and other values once it is loaded, and "
                    "%zu may be kept, one for each %zu bytes of half of limits.memory; keep fewer "
                    "in the script, or raise limits.memory",
                    vm->blocks, most / vm->block_bytes, vm->block_bytes);
  return tm__fail(err, TM_ELIMIT, "script.memory",
                  "the system keeps %zu bytes of memory once it is loaded, and half of the state's "
                  "%zu may be kept; keep less in the script, or raise limits.memory",
                  vm->bytes, vm->o.limits.memory);
}

tm_status tm__vm_enter(tm_vm *vm, const tm_entry *e, tm_error *err) {
  if (vm->tripped > TM_TRIP_STACK) tm__vm_collect(vm); /* not in the same breath */
  start_limits(vm, e->event);
  union { /* a light userdata is a plain pointer */
    const void *in;
    void *out;
  } entry = {e};
  tm_status st = enter(vm, call_dispatch, entry.out, err);
  return st == TM_OK && vm->loads ? check_kept(vm, err) : st;
}

void tm__vm_dispatch(tm_vm *vm, tm_run *run, const tm_entry *e) {
  tm_error err = {0};
  size_t before = vm->bytes;
  vm->run = run;
  vm->entered = before;
  tm__usage_begin(vm);
  tm_status st = tm__vm_enter(vm, e, &err);
  tm__usage_end(vm);
  vm->run = NULL;
  size_t held = run->held + vm->bytes;
  run->held = held > before ? held - before : 0;
  vm->door->after(vm->door->ud, run, st != TM_OK ? &err : NULL);
}

/* ---- calls with text arguments ---- */

typedef struct texts {
  const tm_slice *args;
  size_t count;
} texts;

static int push_texts(lua_State *L, void *ud) {
  const texts *t = ud;
  luaL_checkstack(L, (int)t->count, "too many arguments");
  for (size_t i = 0; i < t->count; i++)
    lua_pushlstring(L, t->args[i].ptr != NULL ? t->args[i].ptr : "", t->args[i].len);
  return (int)t->count;
}

tm_status tm__vm_call(tm_vm *vm, const char *event, const tm_slice *args, size_t count, tm_buf *out,
                      tm_error *err) {
  texts t = {args, count};
  tm_entry e = {.event = event, .push = push_texts, .ud = &t, .out = out};
  tm_status st = tm__vm_enter(vm, &e, err);
  if (st != TM_OK || out == NULL || tm__buf_ok(out)) return st;
  return tm__fail_memory(err, "the runtime's answer");
}

/* ---- life ---- */

/* Most of what a turn makes is garbage when it ends, and what a system keeps stays: young blocks
 * are looked at alone. */
static int boot(lua_State *L) {
  tm__crowd_begin(&tm__vm(L)->crowd, lua_pushliteral(L, ""));
  lua_pop(L, 1);
  (void)lua_gc(L, LUA_GCGEN, 0, 0);
  tm__libs_open(L);
  tm__limits_install(L);
  tm__json_open(L);
  lua_getglobal(L, "require");
  lua_pushliteral(L, "tidemill.task");
  lua_call(L, 1, 1);
  if (lua_type(L, -1) != LUA_TTABLE || lua_getfield(L, -1, "dispatch") != LUA_TFUNCTION)
    return luaL_error(L, "tidemill.task has no function dispatch");
  tm__vm(L)->dispatch = luaL_ref(L, LUA_REGISTRYINDEX);
  return 0;
}

void tm__vm_adopt(tm_vm *vm, lua_State *L) {
  vm->L = L;
  vm->o.alloc = tm__allocator(&vm->o);
  vm->ceiling = SIZE_MAX;
  vm->block_bytes = vm->o.limits.memory / FEW_BLOCKS;
  if (vm->block_bytes > BLOCK_BYTES) vm->block_bytes = BLOCK_BYTES;
  vm->per_look = TM_PER_LOOK;
  vm->door = &vm->own_door;
  vm->own_door.ready_end = &vm->own_door.ready;
  vm->dispatch = LUA_NOREF;
  vm->runs = vm->ops = vm->texts = (tm_idmap){.alloc = vm->o.alloc, .alloc_ud = vm->o.alloc_ud};
  if (L != NULL) *(tm_vm **)lua_getextraspace(L) = vm;
}

static void end_ops(tm_vm *vm) {
  for (tm_op *op; (op = tm__idmap_any(&vm->ops)) != NULL;)
    (void)tm__op_cancel(vm, op->id);
  while (vm->orphans != NULL)
    tm__op_free(vm->orphans);
}

void tm__vm_release(tm_vm *vm) {
  end_ops(vm);
  tm__idmap_free(&vm->texts);
  tm__idmap_free(&vm->ops);
  tm__idmap_free(&vm->runs);
  json_decref(vm->json.tree);
  vm->json.tree = NULL;
  tm__xfree(vm, vm->json.keys, vm->json.key_cap * sizeof(*vm->json.keys));
  vm->json.keys = NULL;
  tm__buf_free(&vm->json.text);
  for (size_t i = 0; i < TM_DRAFT_PARTS; i++)
    tm__buf_free(&vm->parts[i]);
}

tm_status tm__vm_new(tm_vm **out, const tm_vm_options *o, tm_error *err) {
  *out = NULL;
  tm_vm *vm = tm__allocator(o)(o->alloc_ud, NULL, 0, sizeof(*vm));
  if (vm == NULL) return tm__fail_memory(err, "a script state");
  *vm = (tm_vm){.o = *o};
  tm__vm_adopt(vm, NULL);
  lua_State *L = lua_newstate(lua_alloc, vm);
  if (L == NULL) {
    tm__vm_free(vm);
    return tm__fail_memory(err, "a script state");
  }
  tm__vm_adopt(vm, L);
  tm__limits_start(vm, o->limits.load_ms, 0);
  tm_status st = enter(vm, boot, NULL, err);
  if (st == TM_OK)
    *out = vm;
  else
    tm__vm_free(vm);
  return st;
}

void tm__vm_free(tm_vm *vm) {
  if (vm == NULL) return;
  end_ops(vm); /* requests send texts of the state */
  if (vm->L != NULL) lua_close(vm->L);
  tm__vm_release(vm);
  (void)vm->o.alloc(vm->o.alloc_ud, vm, sizeof(*vm), 0);
}
