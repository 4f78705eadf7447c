/* ops.c - operations in flight: each ends exactly once, by done, failed or cancel.
 *
 * Timers and requests end from the loop. The journal may answer while an entry is still under way;
 * its answer then waits until the door is free. What goes on with the script's own code (timers and
 * the journal's answers) waits as well while the turn has to rest.
 */
#include "bind/bind.h"

static void link_op(tm_op *op, tm_op **list) {
  op->next = *list;
  op->link = list;
  if (op->next != NULL) op->next->link = &op->next;
  *list = op;
}

static void unlink_op(tm_op *op) {
  *op->link = op->next;
  if (op->next != NULL) op->next->link = op->link;
}

/* The journal's are the runtime's, one at a time for each turn. */
static bool counts(tm_op_kind kind) {
  return kind != TM_OP_JOURNAL;
}

static void count_op(const tm_op *op, int change) {
  if (op->run == NULL || !counts(op->kind)) return; /* its turn has ended: not counted any more */
  op->run->op_count += (size_t)change;
  op->vm->op_count += (size_t)change;
}

static bool has_room(const tm_vm *vm, tm_error *err) {
  const tm_vm_limits *l = &vm->o.limits;
  if (l->operations != 0 && vm->run->op_count >= l->operations) {
    (void)tm__fail(err, TM_ELIMIT, "script.operations",
                   "the step has %zu operations in flight, and no more are allowed; wait for some "
                   "of them first, or raise limits.operations",
                   l->operations);
    return false;
  }
  if (l->system_operations == 0 || vm->op_count < l->system_operations) return true;
  (void)tm__fail(err, TM_EUNAVAILABLE, "script.operations",
                 "the conversations of this system have %zu operations in flight, and no more are "
                 "allowed; try again later, or raise limits.system_operations",
                 l->system_operations);
  return false;
}

tm_op *tm__op_new(tm_vm *vm, tm_op_kind kind, tm_error *err) {
  if (vm->run == NULL || vm->run->turn == NULL || vm->o.worker == NULL) {
    (void)tm__fail(err, TM_EUNSUPPORTED, "op.outside_turn",
                   "nothing that takes time can be started here: only a running turn can wait");
    return NULL;
  }
  if (counts(kind) && !has_room(vm, err)) return NULL;
  tm_op *op = tm__idmap_reserve(&vm->ops) ? tm__xalloc(vm, sizeof(*op)) : NULL;
  if (op == NULL) {
    (void)tm__fail_memory(err, "an operation");
    return NULL;
  }
  *op = (tm_op){.vm = vm, .run = vm->run, .kind = kind, .id = ++vm->last_id};
  (void)tm__idmap_add(&vm->ops, op->id, op); /* reserved */
  link_op(op, &vm->run->ops);
  count_op(op, 1);
  return op;
}

/* What arrives is no matter of what the state's scripts hold: it fills no state, and refuses no
 * memory to anybody. */
tm_status tm__op_receive(tm_op *op, size_t bytes) {
  tm_vm *vm = op->vm;
  const tm_vm_limits *l = &vm->o.limits;
  if (l->step_memory != 0 && op->run->held + bytes > l->step_memory) return TM_ETOOLARGE;
  if (l->memory != 0 && vm->arriving + bytes > TM_ARRIVING * l->memory) return TM_EUNAVAILABLE;
  op->received += bytes;
  op->run->held += bytes;
  vm->arriving += bytes;
  return TM_OK;
}

static void let_go(tm_op *op) {
  tm_vm *vm = op->vm;
  lua_State *L = vm->running != NULL ? vm->running : vm->L;
  vm->arriving -= op->received;
  if (op->run != NULL) op->run->held -= op->received < op->run->held ? op->received : op->run->held;
  op->received = 0;
  if (op->body != 0) luaL_unref(L, LUA_REGISTRYINDEX, op->body); /* allocates nothing */
  op->body = 0;
}

void tm__op_free(tm_op *op) {
  tm_vm *vm = op->vm;
  let_go(op);
  (void)tm__idmap_remove(&vm->ops, op->id);
  unlink_op(op);
  count_op(op, -1);
  tm__xfree(vm, op->error, sizeof(*op->error));
  tm__xfree(vm, op, sizeof(*op));
}

/* The journal still holds it: it is freed when the journal answers, at the latest with the state.
 */
static void orphan(tm_op *op) {
  tm_vm *vm = op->vm;
  (void)tm__idmap_remove(&vm->ops, op->id);
  unlink_op(op);
  count_op(op, -1);
  op->run = NULL;
  link_op(op, &vm->orphans);
}

static void stop(tm_op *op) {
  if (op->kind == TM_OP_TIMER)
    (void)tm__timer_cancel(op->vm->o.worker, op->handle);
  else if (op->kind == TM_OP_HTTP)
    (void)tm__http_cancel(op->vm->o.client, op->handle);
  else if (op->kind == TM_OP_MESSAGES)
    tm__messages_cancel(op->reading);
}

/* A lost turn hears nothing more from the journal, so nothing is kept for it. */
static void drop(tm_op *op) {
  bool expected = op->kind == TM_OP_JOURNAL && op->run != NULL && !op->run->lost;
  stop(op);
  if (expected || op->waits)
    orphan(op);
  else
    tm__op_free(op);
}

bool tm__op_cancel(tm_vm *vm, uint64_t id) {
  tm_op *op = tm__idmap_get(&vm->ops, id);
  if (op == NULL) return false;
  drop(op);
  return true;
}

static void finish(tm_op *op, const char *event, tm_push_fn push, void *ud) {
  tm_vm *vm = op->vm;
  tm_run *run = op->run;
  tm_entry e = {.id = op->id, .event = event, .push = push, .ud = ud};
  tm__op_free(op);
  if (run != NULL) tm__vm_dispatch(vm, run, &e);
}

void tm__op_done(tm_op *op, tm_push_fn push, void *ud) {
  finish(op, "done", push, ud);
}

static int push_error(lua_State *L, void *ud) {
  tm__push_error(L, ud);
  return 1;
}

void tm__op_failed(tm_op *op, const tm_error *err) {
  tm_error copy = *err; /* it may belong to the operation */
  finish(op, "failed", push_error, &copy);
}

static void wait_for_door(tm_op *op) {
  tm_door *door = op->vm->door;
  op->next_ready = NULL;
  *door->ready_end = op;
  door->ready_end = &op->next_ready;
}

static void note_end(tm_op *op, const tm_error *err) {
  op->waits = true;
  op->failed = err != NULL;
  if (err != NULL && (op->error = tm__xalloc(op->vm, sizeof(*op->error))) != NULL)
    *op->error = *err;
}

static void tell_end(tm_op *op) {
  tm_error err;
  if (!op->failed) {
    tm__op_done(op, NULL, NULL);
    return;
  }
  if (op->error != NULL)
    err = *op->error;
  else
    (void)tm__fail_memory(&err, "an error of an operation");
  tm__op_failed(op, &err);
}

/* What was kept for the journal's sake alone. */
static void forget_orphan(tm_op *op) {
  const tm_vm *vm = op->vm;
  const tm_door *door = vm->door;
  tm__op_free(op);
  if (vm->orphans == NULL && door->quiet != NULL) door->quiet(door->ud);
}

static void tell_or_park(tm_op *op) {
  const tm_door *door = op->vm->door;
  if (op->run == NULL) {
    forget_orphan(op);
  } else if (door->rests != NULL && door->rests(door->ud, op->run)) {
    op->next_ready = op->run->parked;
    op->run->parked = op;
  } else {
    tell_end(op);
  }
}

void tm__op_ended(tm_op *op, const tm_error *err) {
  note_end(op, err);
  if (op->vm->door->depth > 0)
    wait_for_door(op);
  else
    tell_or_park(op);
}

void tm__op_journal_done(void *ud, const tm_error *err) {
  tm_op *op = ud;
  if (op->run == NULL)
    forget_orphan(op);
  else
    tm__op_ended(op, err);
}

void tm__ops_ready(tm_door *door) {
  for (tm_op *op; (op = door->ready) != NULL;) {
    door->ready = op->next_ready;
    if (door->ready == NULL) door->ready_end = &door->ready;
    tell_or_park(op);
  }
}

static tm_op *unpark(tm_run *run) {
  tm_op *op = run->parked;
  if (op != NULL) run->parked = op->next_ready;
  return op;
}

void tm__ops_wake(tm_run *run) {
  for (tm_op *op; (op = unpark(run)) != NULL;)
    wait_for_door(op);
}

void tm__ops_end(tm_run *run) {
  for (tm_op *op; (op = unpark(run)) != NULL;)
    tm__op_free(op);
  for (tm_op *op; (op = run->ops) != NULL;)
    drop(op);
}
