/* executor.c - runs the turns of one worker in Lua: a state per system version, or one per version
 * and tenant.
 *
 * The journal may start or take away turns while an entry is under way (a commit can make room for
 * the next request). Such turns wait until the door is free; then they are started or forgotten.
 * A conversation that has used up its share of the worker rests before it goes on, and so does
 * whatever follows on a limit that was reached.
 */
#include <stdio.h>
#include <string.h>

#include "bind/executor.h"

#define KEEP_SPENT 2

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
  if (run->awaited != NULL) tm__system_unwait(run);
  if (run->vm != NULL) {
    tm__ops_end(run);
    (void)tm__idmap_remove(&run->vm->runs, run->id);
    if (run->broken) tm__system_lighter(run->system, run->vm->o.limits.step_memory);
    tm__system_lighter(run->system, run->held);
  }
  if (run->system != NULL) tm__system_leave(run->system);
  (void)l->o.alloc(l->o.alloc_ud, run, sizeof(*run), 0);
}

static void log_failure(const tm_lua *l, const char *what, const tm_error *err) {
  if (l->o.log != NULL) tm__log_error(l->o.log, TM_LOG_ERROR, what, err);
}

/* The runtime drops what it knows of the turn. */
static void cancel_run(tm_lua *l, tm_run *run) {
  tm_error err = {0};
  tm_entry e = {.id = run->id, .event = "cancel"};
  if (run->vm != NULL && tm__vm_enter(run->vm, &e, &err) != TM_OK) {
    log_failure(l, "a turn could not be cancelled", &err);
    run->system->spent = true; /* what is left of the turn goes with the state */
  }
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

/* Where the host is short of memory no step is to blame: the turn fails as a whole, and can be had
 * again. */
static void break_off(tm_lua *l, tm_run *run, const tm_error *why) {
  tm__ops_end(run);
  if (why->status == TM_ENOMEM) {
    fail_run(l, run, why);
    return;
  }
  run->broken = true;
  run->failure = *why;
  run->held = 0;
  if (why->status == TM_ELIMIT) tm__pace_punish(&l->pace, run->slot, l->o.limits.cpu_slice_ms);
  if (!must_rest(l, run)) tell_failure(run);
}

/* ---- after an entry ---- */

static void settle_broken(tm_lua *l, tm_run *run, const tm_error *err) {
  tm_system *s = run->system; /* stays: after_entry holds it */
  if (err != NULL) log_failure(l, "the runtime could not deal with a failed turn", err);
  if (err != NULL || run->ops == NULL)
    fail_run(l, run, err != NULL && err->status == TM_ENOMEM ? err : &run->failure);
  else
    run->broken = false;
  if (err == NULL) tm__system_lighter(s, s->o.limits.step_memory);
}

static void settle(tm_lua *l, tm_run *run, const tm_error *err) {
  tm_error stuck;
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

/* One that was loaded for it is kept until now; by now it may be too full. */
static tm_system *take_place(tm_lua *l, tm_run *run, tm_error *err) {
  tm_system *s = run->system;
  if (s != NULL && (!s->spent || s->gave_way)) return s;
  run->system = NULL;
  if (s != NULL) tm__system_leave(s);
  s = tm__system_for(l, run, err);
  if (s == NULL) return NULL; /* it may have one by now, and is in the list then */
  s->running++;
  return run->system = s;
}

static void start_run(tm_lua *l, tm_run *run) {
  tm_error err;
  tm_system *s = take_place(l, run, &err);
  if (s == NULL && err.status == TM_OK) return; /* it waits */
  if (s != NULL && !tm__idmap_reserve(&s->vm->runs)) {
    (void)tm__fail_memory(&err, "a turn");
    s = NULL;
  }
  if (s == NULL) {
    fail_run(l, run, &err);
    return;
  }
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

void tm__system_loaded(tm_lua *l, tm_system *s) {
  tm_error why = s->failure;
  tm_run *first = NULL;
  for (tm_run *run; (run = s->first) != NULL;) { /* oldest first */
    tm__system_unwait(run);
    if (why.status == TM_OK) {
      run->system = s;
      s->running++;
    }
    run->next = first;
    first = run;
  }
  tm_lua_wait *waits = tm__system_take_waits(s);
  if (why.status != TM_OK) tm__system_free(s); /* first: who is told may ask for it again */
  tm__system_tell(waits, why.status != TM_OK ? &why : NULL);
  for (tm_run *run; (run = first) != NULL;) {
    first = run->next;
    if (why.status != TM_OK)
      fail_run(l, run, &why);
    else
      put(l, run);
  }
  tm__rooms_go_on(l);
  drain(l);
}

/* ---- memory ---- */

static void fail_for_memory(tm_lua *l, tm_run *run) {
  tm_error err;
  (void)tm__fail(&err, TM_ELIMIT, "script.memory",
                 "the step holds %zu bytes while it waits, and the %zu bytes of its system's "
                 "scripts are nearly full; keep less while waiting, or raise limits.memory",
                 run->held, run->vm->o.limits.memory);
  break_off(l, run, &err);
}

static bool is_full_one_of(const tm_system *s, const tm_system *newest) {
  return s->spent && !s->gave_way && strcmp(s->tenant, newest->tenant) == 0 &&
         strcmp(s->bundle->system, newest->bundle->system) == 0;
}

/* The oldest that is full and goes on, when all of them are more than there may be; or NULL. */
static tm_system *one_too_many(const tm_lua *l, const tm_system *newest) {
  size_t bytes = 0;
  tm_system *oldest = NULL;
  for (tm_system *s = l->systems; s != NULL; s = s->next) {
    if (!is_full_one_of(s, newest) || tm__system_unbroken(s) == NULL) continue;
    bytes += s->vm->bytes;
    oldest = s; /* newest first */
  }
  return bytes > KEEP_SPENT * l->o.limits.memory && oldest != newest ? oldest : NULL;
}

/* Full states whose turns still wait are memory beyond the limit: that of two for a system. */
static void end_oldest_spent(tm_lua *l, const tm_system *newest) {
  for (tm_system *s; (s = one_too_many(l, newest)) != NULL;) {
    s->running++;
    for (tm_run *run; (run = tm__system_unbroken(s)) != NULL;)
      fail_for_memory(l, run);
    tm__system_leave(s);
  }
}

static bool is_any_broken(const tm_system *s) {
  const tm_idmap *runs = &s->vm->runs;
  for (size_t i = 0; i < runs->cap; i++)
    if (runs->slots[i].id != 0 && ((const tm_run *)runs->slots[i].value)->broken) return true;
  return false;
}

/* A state without room for a whole step would fail steps that took little. So the turn that holds
 * most ends; what no turn holds, the script keeps: new turns get a new state. */
static void make_room(tm_lua *l, tm_system *s) {
  if (!tm__system_full(s) || is_any_broken(s)) return;
  tm_run *run = tm__system_greediest(s);
  if (run != NULL) {
    fail_for_memory(l, run);
  } else if (!s->spent) {
    s->spent = true;
    end_oldest_spent(l, s);
  }
}

static void after_entry(void *ud, tm_run *run, const tm_error *err) {
  tm_lua *l = ud;
  tm_system *s = run->system;
  tm__pace_charge(&l->pace, run->slot, tm__limits_used_us(run->vm));
  s->running++;                        /* it must not go meanwhile */
  if (!run->lost) settle(l, run, err); /* a lost one is in the list */
  make_room(l, s);
  tm__system_leave(s);
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
  if (run->awaited != NULL) tm__system_unwait(run);
  run->turn = NULL;
  run->lost = true;
  put(l, run);
  drain(l);
}

tm_executor tm__lua_executor(tm_lua *l) {
  return (tm_executor){.ud = l, .run = lua_run, .cancel = lua_cancel};
}

static void on_quiet(void *ud) {
  tm__systems_quiet(ud);
}

tm_status tm__lua_new(tm_lua **out, const tm_vm_options *o, tm_error *err) {
  tm_vm_options own = *o;
  own.alloc = tm__allocator(o);
  tm_lua *l = *out = own.alloc(own.alloc_ud, NULL, 0, sizeof(*l));
  if (l == NULL) return tm__fail_memory(err, "the executor");
  *l = (tm_lua){.o = own, .runs = {.alloc = own.alloc, .alloc_ud = own.alloc_ud}};
  l->end = &l->first;
  l->queue_end = &l->queue;
  l->door.ready_end = &l->door.ready;
  l->door.after = after_entry;
  l->door.rests = must_rest;
  l->door.quiet = on_quiet;
  l->door.ud = l;
  return TM_OK;
}

size_t tm__lua_turns(const tm_lua *l) {
  return l->runs.count;
}

size_t tm__lua_states(const tm_lua *l) {
  return l->states;
}

void tm__lua_free(tm_lua *l) {
  if (l == NULL) return;
  l->ending = true;
  for (tm_run *run; (run = tm__idmap_any(&l->runs)) != NULL;)
    forget_run(l, run);
  tm__systems_end(l);
  tm__idmap_free(&l->runs);
  (void)l->o.alloc(l->o.alloc_ud, l, sizeof(*l), 0);
}
