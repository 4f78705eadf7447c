/* systems.c - the states of one worker: one per version of a system, where tenants are isolated one
 * per version and tenant; loaded beside the worker's loop when a turn first needs it, dropped when
 * it is old or full. A tenant's is dropped when nothing uses it, too.
 */
#include <stdlib.h>
#include <string.h>

#include "bind/executor.h"
#include "core/json.h"

#define KEEP_OLD 8     /* states of versions that are not current and run nothing */
#define HEAVY    16384 /* blocks: closing such a state takes as long as some turns */
#define LOOK_MS  30000 /* such a state, or a tenant's, goes when two looks find it unused */

/* ---- loading: on another thread, with nothing of the worker's in hand ---- */

/* Sources are what we have written: {"files":{path:text},"root":text}. A text is long and has many
 * escapes, which Jansson takes for broken when memory ends within it. */
static tm_status read_source(void *ud, tm_slice path, tm_buf *out, tm_error *err) {
  const tm_system *s = ud;
  tm_json_walk w;
  tm_slice key, value;
  bool there = false;
  if (tm__json_walk(&w, tm__json_get(s->bundle->sources, "files")))
    while (!there && tm__json_next(&w, &key, &value))
      there = tm__slice_eq(key, path) && tm__json_unquote(value, out);
  if (there) return TM_OK;
  if (!tm__buf_ok(out)) return tm__fail_memory(err, "a script file");
  return tm__fail(err, TM_ENOTFOUND, "file.not_found", "version %s of %s has no file %.*s",
                  s->bundle->version, s->bundle->system, (int)path.len, path.ptr);
}

static tm_status find_root(tm_system *s, tm_error *err) {
  tm_buf root = {0};
  bool there = tm__json_get_text(s->bundle->sources, "root", &root);
  bool short_of_memory = !tm__buf_ok(&root);
  s->root = there ? tm__buf_take(&root) : NULL;
  tm__buf_free(&root);
  if (short_of_memory || (there && s->root == NULL))
    return tm__fail_memory(err, "the sources of a system");
  return TM_OK;
}

static tm_status load(tm_system *s, tm_error *err) {
  tm_status st = find_root(s, err);
  if (st != TM_OK) return st;
  s->o.read_file = read_source;
  s->o.read_ud = s;
  s->o.root = s->root;
  st = tm__vm_new(&s->vm, &s->o, err);
  tm_slice name = tm__slice(s->bundle->system);
  if (st == TM_OK) st = tm__vm_call(s->vm, "load", &name, 1, NULL, err);
  if (st == TM_OK) (void)lua_gc(s->vm->L, LUA_GCCOLLECT); /* loading leaves a third behind */
  return st;
}

static void load_work(tm_beside *job) {
  tm_system *s = (tm_system *)(void *)job;
  s->failure.status = load(s, &s->failure);
}

static void load_done(tm_beside *job) {
  tm_system *s = (tm_system *)(void *)job;
  s->loading = false;
  if (s->lua == NULL) {
    tm__system_free(s);
    return;
  }
  if (s->vm != NULL) s->vm->door = &s->lua->door;
  tm__system_loaded(s->lua, s);
}

/* ---- life ---- */

static void unlink_system(tm_system *s) {
  tm_system **at = &s->lua->systems;
  while (*at != NULL && *at != s)
    at = &(*at)->next;
  if (*at != NULL) *at = s->next;
  tm__rooms_leave(s);
  s->lua = NULL;
}

tm_lua_wait *tm__system_take_waits(tm_system *s) {
  tm_lua_wait *waits = s->waits;
  s->waits = NULL;
  return waits;
}

void tm__system_tell(tm_lua_wait *waits, const tm_error *err) {
  for (tm_lua_wait *w = waits, *next; w != NULL; w = next) {
    next = w->next;
    w->ready(w, err);
  }
}

static void give_up(tm_system *s) {
  tm_error err;
  (void)tm__fail(&err, TM_EUNAVAILABLE, "host.stopping", "the host is stopping: try again later");
  tm__system_tell(tm__system_take_waits(s), &err);
}

static void drop(tm_system *s) {
  tm__vm_free(s->vm);
  free(s->root);
  tm__bundle_unref(s->bundle);
  (void)s->o.alloc(s->o.alloc_ud, s, sizeof(*s), 0);
}

static void close_work(tm_beside *job) {
  tm_system *s = (tm_system *)(void *)job;
  tm__vm_free(s->vm);
  s->vm = NULL;
}

static void close_done(tm_beside *job) {
  drop((tm_system *)(void *)job);
}

/* What is full takes long to close: beside the loop, unless it ends anyway. */
static bool close_beside(tm_system *s) {
  if (s->vm == NULL || s->vm->blocks < HEAVY || s->o.worker == NULL) return false;
  if (s->vm->ops.count > 0 || s->vm->orphans != NULL) return false;
  s->job.work = close_work;
  s->job.done = close_done;
  tm__worker_beside(s->o.worker, &s->job);
  return true;
}

void tm__system_free(tm_system *s) {
  if (s->waits != NULL) give_up(s);
  if (s->lua != NULL) unlink_system(s);
  if (s->loading) return; /* load_done frees it */
  if (!close_beside(s)) drop(s);
}

bool tm__system_idle(const tm_system *s) {
  return !s->queued && !s->loading && s->running == 0 && s->vm->orphans == NULL;
}

void tm__system_leave(tm_system *s) {
  tm_lua *l = s->lua;
  s->running--;
  if (s->spent && tm__system_idle(s)) tm__system_free(s);
  tm__rooms_go_on(l);
}

void tm__systems_quiet(tm_lua *l) {
  for (tm_system *s = l->systems, *next; s != NULL; s = next) {
    next = s->next;
    if (s->spent && tm__system_idle(s)) tm__system_free(s);
  }
  tm__rooms_go_on(l);
}

static bool are_isolated(const tm_lua *l) {
  return l->o.tenant_states > 0;
}

static bool is_old(const tm_lua *l, const tm_system *s) {
  if (l->o.registry == NULL) return false;
  tm_bundle *now = tm__registry_current(l->o.registry, tm__slice(s->bundle->system));
  bool same = now != NULL && strcmp(now->version, s->bundle->version) == 0;
  tm__bundle_unref(now);
  return !same;
}

static void drop_old(tm_lua *l) {
  if (are_isolated(l)) return; /* all of them are bounded together */
  size_t count = 0;
  tm_system *oldest = NULL;
  for (tm_system *s = l->systems; s != NULL; s = s->next) {
    if (!tm__system_idle(s) || !is_old(l, s)) continue;
    count++;
    if (oldest == NULL || s->used < oldest->used) oldest = s;
  }
  if (count > KEEP_OLD) tm__system_free(oldest);
}

static void start_look(tm_lua *l);

/* A conversation that needs it has it made anew, from sources that the store keeps. */
static void on_look(void *ud) {
  tm_lua *l = ud;
  l->look = 0;
  for (tm_system *s = l->systems, *next; s != NULL; s = next) {
    next = s->next;
    if (tm__system_idle(s) && s->seen == s->used && (are_isolated(l) || is_old(l, s)))
      tm__system_free(s);
    else
      s->seen = s->used;
  }
  if (l->systems != NULL) start_look(l);
}

static void start_look(tm_lua *l) {
  if (l->o.registry == NULL && !are_isolated(l)) return;
  if (tm__timer_start(l->o.worker, LOOK_MS, on_look, l, &l->look, NULL) != TM_OK) l->look = 0;
}

void tm__systems_end(tm_lua *l) {
  if (l->look != 0) (void)tm__timer_cancel(l->o.worker, l->look);
  while (l->systems != NULL)
    tm__system_free(l->systems);
}

static tm_system *new_system(tm_lua *l, tm_bundle *bundle, const char *tenant) {
  tm_system *s = l->o.alloc(l->o.alloc_ud, NULL, 0, sizeof(*s));
  if (s == NULL) return NULL;
  *s = (tm_system){.lua = l, .o = l->o, .bundle = tm__bundle_ref(bundle)};
  (void)tm__copy(s->tenant, sizeof(s->tenant), tm__slice(tenant));
  s->job.work = load_work;
  s->job.done = load_done;
  s->next = l->systems;
  l->systems = s;
  tm__rooms_wait(s);
  drop_old(l);
  if (l->look == 0) start_look(l);
  return s;
}

/* ---- finding ---- */

static bool holds(const tm_system *s, const tm_bundle *b) {
  return s->bundle == b ||
         (strcmp(s->bundle->version, b->version) == 0 && strcmp(s->bundle->system, b->system) == 0);
}

/* One that nobody has had yet becomes the tenant's. */
static tm_system *find(tm_lua *l, const tm_bundle *bundle, const char *tenant) {
  tm_system *nobodys = NULL;
  for (tm_system *s = l->systems; s != NULL; s = s->next) {
    if (s->spent || !holds(s, bundle)) continue;
    if (strcmp(s->tenant, tenant) == 0) return s;
    if (s->tenant[0] == '\0') nobodys = s;
  }
  if (nobodys != NULL) (void)tm__copy(nobodys->tenant, sizeof(nobodys->tenant), tm__slice(tenant));
  return nobodys;
}

static void wait_for(tm_system *s, tm_run *run) {
  run->next = s->first;
  s->first = run;
  run->awaited = s;
}

void tm__system_unwait(tm_run *run) {
  tm_run **at = &run->awaited->first;
  while (*at != run)
    at = &(*at)->next;
  *at = run->next;
  tm_system *s = run->awaited;
  run->awaited = NULL;
  if (s->queued && s->first == NULL && s->waits == NULL) tm__system_free(s);
}

/* The state of that version and tenant, loaded or not. */
static tm_system *have(tm_lua *l, tm_bundle *bundle, const char *tenant, tm_error *err) {
  tm_system *s = find(l, bundle, tenant);
  if (s == NULL || !tm__rooms_share(s)) s = new_system(l, bundle, tenant);
  if (s == NULL)
    (void)tm__fail_memory(err, "a system");
  else
    s->used = ++l->uses;
  return s;
}

static bool is_loaded(const tm_system *s) {
  return !s->queued && !s->loading;
}

tm_system *tm__system_for(tm_lua *l, tm_run *run, tm_error *err) {
  const tm_turn_view *v = tm__turn_view(run->turn);
  tm_system *s = have(l, v->bundle, are_isolated(l) ? v->head->tenant : "", err);
  if (s == NULL || is_loaded(s)) return s;
  err->status = TM_OK;
  wait_for(s, run);
  tm__rooms_go_on(l);
  return NULL;
}

void tm__lua_prepare(tm_lua *l, tm_bundle *b, tm_lua_wait *w) {
  tm_error err;
  bool full = tm__rooms_full(l); /* of what tenants use: each has its own made when it comes */
  tm_system *s = full ? NULL : have(l, b, "", &err);
  if (s == NULL || is_loaded(s)) {
    w->ready(w, s == NULL && !full ? &err : NULL);
    return;
  }
  w->next = s->waits;
  s->waits = w;
  tm__rooms_go_on(l);
}

/* ---- memory ---- */

void tm__system_lighter(tm_system *s, size_t bytes) {
  if (bytes >= s->o.limits.step_memory / 4) s->collected = 0;
}

/* Of limits.memory, without the room of a step. */
static size_t most_weight(const tm_vm_limits *limits) {
  size_t step = limits->step_memory;
  return limits->memory > 2 * step ? limits->memory - step : limits->memory / 2;
}

bool tm__system_full(tm_system *s) {
  const tm_vm_limits *limits = &s->o.limits;
  if (limits->memory == 0 || limits->step_memory == 0) return false;
  size_t step = limits->step_memory, most = most_weight(limits);
  size_t weight = tm__vm_weight(s->vm);
  if (weight > most && weight > s->collected && weight - s->collected > step / 4) {
    tm__vm_collect(s->vm);
    s->collected = weight = tm__vm_weight(s->vm);
  }
  return weight > most;
}

static bool waits_outside(const tm_run *run) {
  if (run->turn == NULL || run->lost || run->broken || run->ops == NULL) return false;
  for (const tm_op *op = run->ops; op != NULL; op = op->next)
    if (op->kind == TM_OP_JOURNAL) return false;
  return true;
}

tm_run *tm__system_greediest(const tm_system *s) {
  tm_run *most = NULL;
  if (s->vm->bytes <= most_weight(&s->o.limits)) return NULL; /* many blocks harm nobody's memory */
  size_t held = s->o.limits.step_memory / 4;
  const tm_idmap *runs = &s->vm->runs;
  for (size_t i = 0; i < runs->cap; i++) {
    tm_run *run = runs->slots[i].id != 0 ? runs->slots[i].value : NULL;
    if (run == NULL || run->held < held || !waits_outside(run)) continue;
    most = run;
    held = run->held;
  }
  return most;
}

tm_run *tm__system_unbroken(const tm_system *s) {
  const tm_idmap *runs = &s->vm->runs;
  for (size_t i = 0; i < runs->cap; i++) {
    tm_run *run = runs->slots[i].id != 0 ? runs->slots[i].value : NULL;
    if (run != NULL && run->turn != NULL && !run->lost && !run->broken) return run;
  }
  return NULL;
}
