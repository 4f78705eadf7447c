/* executor.c - runs the turns of one worker in Lua: a state per system version.
 *
 * The journal may start or take away turns while an entry is under way (a commit can make room for
 * the next request). Such turns wait until the door is free; then they are started or forgotten.
 * A conversation that has used up its share of the worker rests before it goes on, and so does
 * whatever follows on a limit that was reached.
 */
#include <stdio.h>
#include <string.h>

#include "bind/bind.h"
#include "bind/pace.h"
#include "core/json.h"

#define KEEP_OLD 8 /* states of replaced versions that run nothing */

typedef struct tm_system {
  struct tm_system *next;
  tm_bundle *bundle;
  tm_vm *vm;
  json_t *sources;
  size_t running;
  uint64_t used;
  bool spent; /* too full to go on: freed when nothing runs in it */
} tm_system;

struct tm_lua {
  tm_vm_options o;
  tm_door door;
  tm_system *systems; /* newest first */
  tm_idmap runs;      /* by the id that the journal knows */
  tm_run *first, **end;
  bool draining;
  uint64_t uses;
  tm_pace pace;
};

/* ---- systems ---- */

static tm_status read_source(void *ud, tm_slice path, tm_buf *out, tm_error *err) {
  const tm_system *s = ud;
  const json_t *text = json_object_getn(json_object_get(s->sources, "files"), path.ptr, path.len);
  if (!json_is_string(text))
    return tm__fail(err, TM_ENOTFOUND, "file.not_found", "version %s of %s has no file %.*s",
                    s->bundle->version, s->bundle->system, (int)path.len, path.ptr);
  tm__buf_add(out, json_string_value(text), json_string_length(text));
  return TM_OK;
}

static void free_system(tm_lua *l, tm_system *s) {
  tm_system **at = &l->systems;
  while (*at != NULL && *at != s)
    at = &(*at)->next;
  if (*at != NULL) *at = s->next;
  tm__vm_free(s->vm);
  json_decref(s->sources);
  tm__bundle_unref(s->bundle);
  (void)l->o.alloc(l->o.alloc_ud, s, sizeof(*s), 0);
}

static tm_status load_system(tm_lua *l, tm_system *s, tm_error *err) {
  tm_status st = tm__json_parse(&s->sources, s->bundle->sources, 4, err);
  if (st != TM_OK) return st;
  tm_vm_options o = l->o;
  o.read_file = read_source;
  o.read_ud = s;
  o.root = json_string_value(json_object_get(s->sources, "root"));
  st = tm__vm_new(&s->vm, &o, err);
  if (st != TM_OK) return st;
  s->vm->door = &l->door;
  tm_slice name = tm__slice(s->bundle->system);
  return tm__vm_call(s->vm, "load", &name, 1, NULL, err);
}

static bool is_idle(const tm_system *s) {
  return s->running == 0 && s->vm->orphans == NULL;
}

static bool is_replaced(const tm_lua *l, const tm_system *s) {
  for (const tm_system *newer = l->systems; newer != s; newer = newer->next)
    if (strcmp(newer->bundle->system, s->bundle->system) == 0) return true;
  return false;
}

static void drop_old(tm_lua *l) {
  size_t count = 0;
  tm_system *oldest = NULL;
  for (tm_system *s = l->systems; s != NULL; s = s->next) {
    if (!is_idle(s) || !is_replaced(l, s)) continue;
    count++;
    if (oldest == NULL || s->used < oldest->used) oldest = s;
  }
  if (count > KEEP_OLD) free_system(l, oldest);
}

static tm_system *new_system(tm_lua *l, tm_bundle *bundle, tm_error *err) {
  tm_system *s = l->o.alloc(l->o.alloc_ud, NULL, 0, sizeof(*s));
  if (s == NULL) {
    (void)tm__fail_memory(err, "a system");
    return NULL;
  }
  *s = (tm_system){.bundle = tm__bundle_ref(bundle), .used = ++l->uses};
  if (load_system(l, s, err) != TM_OK) {
    free_system(l, s);
    return NULL;
  }
  s->next = l->systems;
  l->systems = s;
  drop_old(l);
  return s;
}

static bool holds(const tm_system *s, const tm_bundle *b) {
  return s->bundle == b ||
         (strcmp(s->bundle->version, b->version) == 0 && strcmp(s->bundle->system, b->system) == 0);
}

static tm_system *find_system(tm_lua *l, tm_bundle *bundle, tm_error *err) {
  for (tm_system *s = l->systems; s != NULL; s = s->next) {
    if (s->spent || !holds(s, bundle)) continue;
    s->used = ++l->uses;
    return s;
  }
  return new_system(l, bundle, err);
}

/* Still nearly full after a collection: new turns get a new state. */
static void look_at_memory(tm_system *s) {
  const tm_vm_limits *limits = &s->vm->o.limits;
  if (s->vm->tripped != TM_TRIP_STATE_MEMORY) return;
  s->spent = s->vm->bytes > limits->memory / 2;
}

/* ---- turns ---- */

static void put(tm_lua *l, tm_run *run) {
  if (run->waits) return;
  run->waits = true;
  run->next = NULL;
  *l->end = run;
  l->end = &run->next;
}

static tm_run *take(tm_lua *l) {
  tm_run *run = l->first;
  if (run == NULL) return NULL;
  l->first = run->next;
  if (l->first == NULL) l->end = &l->first;
  run->waits = false;
  return run;
}

static void forget_run(tm_lua *l, tm_run *run) {
  if (tm__idmap_get(&l->runs, run->view_id) == run) (void)tm__idmap_remove(&l->runs, run->view_id);
  if (run->timer != 0) (void)tm__timer_cancel(l->o.worker, run->timer);
  if (run->vm != NULL) {
    tm_system *s = run->system;
    tm__ops_end(run);
    (void)tm__idmap_remove(&run->vm->runs, run->id);
    s->running--;
    if (s->spent && is_idle(s)) free_system(l, s);
  }
  (void)l->o.alloc(l->o.alloc_ud, run, sizeof(*run), 0);
}

static void log_failure(const tm_lua *l, const char *what, const tm_error *err) {
  if (l->o.log != NULL) tm__log_error(l->o.log, TM_LOG_ERROR, what, err);
}

/* The runtime drops what it knows of the turn. */
static void cancel_run(tm_lua *l, tm_run *run) {
  tm_error err = {0};
  tm_entry e = {.id = run->id, .event = "cancel"};
  if (run->vm != NULL && tm__vm_enter(run->vm, &e, &err) != TM_OK)
    log_failure(l, "a turn could not be cancelled", &err);
  forget_run(l, run);
}

/* The journal may go on with the next request at once: that waits as behind any door. */
static void fail_turn(tm_lua *l, tm_turn *turn, const tm_error *why) {
  tm_error err = *why;
  (void)snprintf(err.conversation_id, sizeof(err.conversation_id), "%s",
                 tm__turn_view(turn)->head->id);
  l->door.depth++;
  tm__turn_fail(turn, &err);
  l->door.depth--;
}

static void fail_run(tm_lua *l, tm_run *run, const tm_error *why) {
  tm_turn *turn = run->turn;
  run->turn = NULL;
  fail_turn(l, turn, why);
  cancel_run(l, run);
}

static int push_failure(lua_State *L, void *ud) {
  tm__push_error(L, ud);
  return 1;
}

/* An entry broke off: the runtime may end the turn well after all, once and within a fresh budget.
 */
static void tell_failure(tm_run *run) {
  tm_error why = run->failure;
  tm_entry e = {.id = run->id, .event = "failed", .push = push_failure, .ud = &why};
  tm__vm_dispatch(run->vm, run, &e);
}

/* ---- rest ---- */

static void drain(tm_lua *l);

static void on_rested(void *ud) {
  tm_run *run = ud;
  tm_lua *l = run->lua;
  run->timer = 0;
  if (run->vm == NULL)
    put(l, run);
  else if (run->broken)
    tell_failure(run);
  else
    tm__ops_wake(run);
  drain(l);
}

/* False: it need not, or cannot. */
static bool must_rest(void *ud, tm_run *run) {
  tm_lua *l = ud;
  if (run->timer != 0) return true;
  uint64_t ms = tm__pace_wait_ms(&l->pace, run->slot, l->o.limits.cpu_slice_ms);
  if (ms == 0 || l->o.worker == NULL) return false;
  return tm__timer_start(l->o.worker, ms, on_rested, run, &run->timer, NULL) == TM_OK;
}

static void break_off(tm_lua *l, tm_run *run, const tm_error *why) {
  tm__ops_end(run);
  run->broken = true;
  run->failure = *why;
  if (why->status == TM_ELIMIT) tm__pace_punish(&l->pace, run->slot, l->o.limits.cpu_slice_ms);
  if (!must_rest(l, run)) tell_failure(run);
}

/* ---- after an entry ---- */

static void settle_broken(tm_lua *l, tm_run *run, const tm_error *err) {
  if (err != NULL) log_failure(l, "the runtime could not deal with a failed turn", err);
  if (err != NULL || run->ops == NULL)
    fail_run(l, run, &run->failure);
  else
    run->broken = false;
}

static void settle(tm_lua *l, tm_run *run, const tm_error *err) {
  tm_error stuck;
  look_at_memory(run->system);
  if (run->turn == NULL) {
    if (err != NULL) log_failure(l, "an error after the end of a turn", err);
    forget_run(l, run);
  } else if (run->broken) {
    settle_broken(l, run, err);
  } else if (err != NULL) {
    break_off(l, run, err);
  } else if (run->ops == NULL) {
    (void)tm__fail(&stuck, TM_ESCRIPT, "script.stuck",
                   "the turn waits for nothing that could go on: a coroutine was yielded outside "
                   "the functions that wait");
    fail_run(l, run, &stuck);
  }
}

/* ---- starting ---- */

static void start_run(tm_lua *l, tm_run *run) {
  tm_error err;
  tm_system *s = find_system(l, tm__turn_view(run->turn)->bundle, &err);
  if (s != NULL && !tm__idmap_reserve(&s->vm->runs)) {
    (void)tm__fail_memory(&err, "a turn");
    s = NULL;
  }
  if (s == NULL) {
    fail_run(l, run, &err);
    return;
  }
  s->running++;
  run->system = s;
  run->vm = s->vm;
  run->id = ++s->vm->last_id;
  (void)tm__idmap_add(&s->vm->runs, run->id, run); /* reserved */
  tm_entry e = {.id = run->id, .event = "turn", .push = tm__push_turn, .ud = run};
  tm__vm_dispatch(s->vm, run, &e);
}

static void drain(tm_lua *l) {
  if (l->draining || l->door.depth > 0) return;
  l->draining = true;
  for (;;) {
    tm__ops_ready(&l->door);
    tm_run *run = take(l);
    if (run == NULL) break;
    if (run->lost)
      cancel_run(l, run);
    else if (!must_rest(l, run))
      start_run(l, run);
  }
  l->draining = false;
}

static void after_entry(void *ud, tm_run *run, const tm_error *err) {
  tm_lua *l = ud;
  tm__pace_charge(&l->pace, run->slot, tm__limits_used_us(run->vm));
  if (!run->lost) settle(l, run, err); /* a lost one is in the list */
  drain(l);
}

/* ---- the executor ---- */

static void lua_run(void *ud, tm_turn *turn) {
  tm_lua *l = ud;
  tm_error err;
  uint64_t id = tm__turn_view(turn)->id;
  (void)tm__idmap_remove(&l->runs, id); /* it may run again before its first run is forgotten */
  tm_run *run =
      tm__idmap_reserve(&l->runs) ? l->o.alloc(l->o.alloc_ud, NULL, 0, sizeof(*run)) : NULL;
  if (run == NULL) {
    (void)tm__fail_memory(&err, "a turn");
    fail_turn(l, turn, &err);
    return;
  }
  *run = (tm_run){.turn = turn, .view_id = id, .lua = l};
  run->slot = tm__pace_slot(tm__turn_view(turn)->head->id);
  (void)tm__idmap_add(&l->runs, id, run); /* reserved */
  put(l, run);
  drain(l);
}

static void lua_cancel(void *ud, tm_turn *turn) {
  tm_lua *l = ud;
  tm_run *run = tm__idmap_remove(&l->runs, tm__turn_view(turn)->id);
  if (run == NULL || run->turn == NULL) return; /* unknown, or already at its end */
  run->turn = NULL;
  run->lost = true;
  put(l, run);
  drain(l);
}

tm_executor tm__lua_executor(tm_lua *l) {
  return (tm_executor){.ud = l, .run = lua_run, .cancel = lua_cancel};
}

tm_status tm__lua_new(tm_lua **out, const tm_vm_options *o, tm_error *err) {
  tm_vm_options own = *o;
  own.alloc = tm__allocator(o);
  tm_lua *l = *out = own.alloc(own.alloc_ud, NULL, 0, sizeof(*l));
  if (l == NULL) return tm__fail_memory(err, "the executor");
  *l = (tm_lua){.o = own, .runs = {.alloc = own.alloc, .alloc_ud = own.alloc_ud}};
  l->end = &l->first;
  l->door.ready_end = &l->door.ready;
  l->door.after = after_entry;
  l->door.rests = must_rest;
  l->door.ud = l;
  return TM_OK;
}

size_t tm__lua_turns(const tm_lua *l) {
  return l->runs.count;
}

void tm__lua_free(tm_lua *l) {
  if (l == NULL) return;
  for (tm_run *run; (run = tm__idmap_any(&l->runs)) != NULL;)
    forget_run(l, run);
  while (l->systems != NULL)
    free_system(l, l->systems);
  tm__idmap_free(&l->runs);
  (void)l->o.alloc(l->o.alloc_ud, l, sizeof(*l), 0);
}
