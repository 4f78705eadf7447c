/* host.journal - what a turn makes durable.
 *
 *   journal.begin(id, draft) -> op | nil, err
 *   journal.call(id, key, result) -> op | nil, err
 *   journal.messages(id, cursor?) -> op | nil, err
 *   journal.commit(id, draft) -> true | nil, err
 *   journal.suspend(id, draft) -> true | nil, err
 *   journal.undone(id, draft, err?) -> true | nil, err
 *   journal.rollback(id, steps) -> true | nil, err
 *   journal.trail(id, step_ids, command?) -> true | nil, err
 *   journal.fail(id, err) -> true | nil, err
 *
 * The parts of a draft are encoded straight from the tables into buffers that the state keeps.
 */
#include <stdio.h>

#include "bind/bind.h"

enum { STEPS, MESSAGES, STATE, RUNTIME, PROMPT, FAILURE, EVENTS };

typedef enum part_kind { LIST, OBJECT, OBJECT_OR_NULL } part_kind;

static const struct {
  const char *name;
  part_kind kind;
} parts[TM_DRAFT_PARTS] = {
    [STEPS] = {"steps", LIST},
    [MESSAGES] = {"messages", LIST},
    [STATE] = {"state", OBJECT},
    [RUNTIME] = {"runtime", OBJECT},
    [PROMPT] = {"prompt", OBJECT_OR_NULL},
    [FAILURE] = {"error", OBJECT_OR_NULL},
    [EVENTS] = {"events", LIST},
};

/* The turn that Lua calls `id`, or NULL with `err`. */
static tm_run *check_run(lua_State *L, tm_error *err) {
  lua_Integer id = luaL_checkinteger(L, 1);
  tm_run *run = tm__idmap_get(&tm__vm(L)->runs, (uint64_t)id);
  if (run != NULL && run->turn != NULL) return run;
  (void)tm__fail(err, TM_ECANCELLED, "journal.gone", "the turn has ended or was taken away");
  return NULL;
}

static bool wrong_kind(tm_slice json, part_kind kind) {
  char first = json.len > 0 ? json.ptr[0] : '\0';
  if (kind == LIST) return first != '[';
  return first != '{' && !(kind == OBJECT_OR_NULL && first == 'n');
}

static bool encode_part(lua_State *L, int draft, int part, tm_error *err) {
  tm_buf *out = &tm__vm(L)->parts[part];
  part_kind kind = parts[part].kind;
  tm__buf_clear(out);
  int type = lua_getfield(L, draft, parts[part].name);
  bool ok = true;
  if (type == LUA_TNIL)
    tm__buf_text(out, kind == LIST ? "[]" : "null");
  else
    ok = tm__json_encode(L, -1, parts[part].name, kind == LIST, out, err);
  lua_pop(L, 1);
  if (!ok) return false;
  if (!tm__buf_ok(out)) return tm__fail_memory(err, "a draft") == TM_OK;
  if (!wrong_kind(tm__buf_view(out), kind)) return true;
  (void)tm__fail(err, TM_ESCRIPT, "journal.draft", "%s: must be %s", parts[part].name,
                 kind == LIST ? "an array" : "an object");
  return false;
}

static bool read_flag(lua_State *L, int draft, const char *name) {
  lua_getfield(L, draft, name);
  bool v = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return v;
}

static bool read_status(lua_State *L, int draft, tm_draft *d, tm_error *err) {
  tm_slice name = {NULL, 0};
  if (lua_getfield(L, draft, "status") == LUA_TSTRING) name.ptr = lua_tolstring(L, -1, &name.len);
  bool ok = name.ptr != NULL && tm__conversation_status_parse(&d->status, name);
  if (!ok)
    (void)tm__fail(err, TM_ESCRIPT, "journal.draft", "status: '%s' is none of the known ones",
                   name.ptr != NULL ? name.ptr : "");
  lua_pop(L, 1);
  return ok;
}

/* Slices of *d stay valid until the next draft, or while the table is unchanged. */
static bool read_draft(lua_State *L, int draft, tm_draft *d, tm_error *err) {
  *d = (tm_draft){.status = TM_ACTIVE, .step = TM_S("")};
  luaL_checktype(L, draft, LUA_TTABLE);
  if (!read_status(L, draft, d, err)) return false;
  if (lua_getfield(L, draft, "step") == LUA_TSTRING)
    d->step.ptr = lua_tolstring(L, -1, &d->step.len);
  lua_pop(L, 1);
  lua_getfield(L, draft, "wake_at");
  d->wake_at = lua_tointeger(L, -1);
  lua_pop(L, 1);
  if (lua_getfield(L, draft, "checkpoint_name") == LUA_TSTRING)
    d->checkpoint_name.ptr = lua_tolstring(L, -1, &d->checkpoint_name.len);
  lua_pop(L, 1);
  d->checkpoint = read_flag(L, draft, "checkpoint");
  d->in_memory = read_flag(L, draft, "in_memory");
  d->compress = read_flag(L, draft, "compress");
  d->seal = read_flag(L, draft, "seal");
  for (int i = 0; i < TM_DRAFT_PARTS; i++)
    if (!encode_part(L, draft, i, err)) return false;
  const tm_buf *b = tm__vm(L)->parts;
  d->steps = tm__buf_view(&b[STEPS]);
  d->messages = tm__buf_view(&b[MESSAGES]);
  d->state = tm__buf_view(&b[STATE]);
  d->runtime = tm__buf_view(&b[RUNTIME]);
  d->prompt = tm__buf_view(&b[PROMPT]);
  d->error = tm__buf_view(&b[FAILURE]);
  d->events = tm__buf_view(&b[EVENTS]);
  return true;
}

static int journal_begin(lua_State *L) {
  tm_error err = {0};
  tm_draft draft;
  tm_run *run = check_run(L, &err);
  if (run == NULL || !read_draft(L, 2, &draft, &err)) return tm__push_fail(L, &err);
  tm_op *op = tm__op_new(tm__vm(L), TM_OP_JOURNAL, &err);
  if (op == NULL) return tm__push_fail(L, &err);
  lua_pushinteger(L, (lua_Integer)op->id);
  tm__turn_begin(run->turn, &draft, tm__op_journal_done, op);
  return 1;
}

static int journal_call(lua_State *L) {
  tm_error err = {0};
  tm_slice key;
  tm_run *run = check_run(L, &err);
  key.ptr = luaL_checklstring(L, 2, &key.len);
  lua_settop(L, 3);
  if (run == NULL) return tm__push_fail(L, &err);
  tm_buf *result = &tm__vm(L)->parts[0];
  tm__buf_clear(result);
  if (lua_isnil(L, 3)) tm__buf_text(result, "null");
  if (!lua_isnil(L, 3) && !tm__json_encode(L, 3, "result", false, result, &err))
    return tm__push_fail(L, &err);
  tm_op *op = tm__op_new(tm__vm(L), TM_OP_JOURNAL, &err);
  if (op == NULL) return tm__push_fail(L, &err);
  lua_pushinteger(L, (lua_Integer)op->id);
  tm__turn_call(run->turn, key, tm__buf_view(result), tm__op_journal_done, op);
  return 1;
}

static int push_page(lua_State *L, void *ud) {
  const tm_slice *page = ud;
  lua_pushlstring(L, page->ptr, page->len);
  return 1;
}

static void on_messages(void *ud, tm_slice page, const tm_error *err) {
  if (err != NULL)
    tm__op_failed(ud, err);
  else
    tm__op_done(ud, push_page, &page);
}

static int journal_messages(lua_State *L) {
  tm_error err = {0};
  tm_slice cursor;
  tm_run *run = check_run(L, &err);
  cursor.ptr = luaL_optlstring(L, 2, "", &cursor.len);
  if (run == NULL) return tm__push_fail(L, &err);
  tm_op *op = tm__op_new(tm__vm(L), TM_OP_MESSAGES, &err);
  if (op == NULL) return tm__push_fail(L, &err);
  lua_Integer id = (lua_Integer)op->id;
  op->reading = tm__turn_messages(run->turn, cursor, on_messages, op, &err);
  if (op->reading == NULL) {
    tm__op_free(op);
    return tm__push_fail(L, &err);
  }
  lua_pushinteger(L, id);
  return 1;
}

static tm_turn *end_turn(tm_run *run) {
  tm_turn *turn = run->turn;
  run->turn = NULL;
  return turn;
}

static int journal_commit(lua_State *L) {
  tm_error err = {0};
  tm_draft draft;
  tm_run *run = check_run(L, &err);
  if (run == NULL || !read_draft(L, 2, &draft, &err)) return tm__push_fail(L, &err);
  tm__turn_commit(end_turn(run), &draft);
  lua_pushboolean(L, 1);
  return 1;
}

static int journal_suspend(lua_State *L) {
  tm_error err = {0};
  tm_draft draft;
  tm_run *run = check_run(L, &err);
  if (run == NULL || !read_draft(L, 2, &draft, &err)) return tm__push_fail(L, &err);
  tm__turn_suspend(end_turn(run), &draft);
  lua_pushboolean(L, 1);
  return 1;
}

static int journal_undone(lua_State *L) {
  tm_error err = {0};
  tm_error why = {0};
  tm_draft draft;
  lua_settop(L, 3);
  bool failed = !lua_isnil(L, 3);
  tm_run *run = check_run(L, &err);
  if (run == NULL || !read_draft(L, 2, &draft, &err)) return tm__push_fail(L, &err);
  if (failed) tm__take_error(L, 3, &why);
  tm__turn_undone(end_turn(run), &draft, failed ? &why : NULL);
  lua_pushboolean(L, 1);
  return 1;
}

static int journal_rollback(lua_State *L) {
  tm_error err = {0};
  lua_Integer steps = luaL_checkinteger(L, 2);
  luaL_argcheck(L, steps >= 1 && steps <= 100, 2, "from 1 to 100 answered prompts");
  tm_run *run = check_run(L, &err);
  if (run == NULL) return tm__push_fail(L, &err);
  tm__turn_rollback(end_turn(run), (int)steps);
  lua_pushboolean(L, 1);
  return 1;
}

static int journal_trail(lua_State *L) {
  tm_error err = {0};
  luaL_checktype(L, 2, LUA_TTABLE);
  lua_settop(L, 3);
  tm_run *run = check_run(L, &err);
  tm_buf *ids = &tm__vm(L)->parts[0], *command = &tm__vm(L)->parts[1];
  tm__buf_clear(ids);
  tm__buf_clear(command);
  if (run == NULL || !tm__json_encode(L, 2, "step_ids", true, ids, &err))
    return tm__push_fail(L, &err);
  if (!lua_isnil(L, 3) && !tm__json_encode(L, 3, "command", false, command, &err))
    return tm__push_fail(L, &err);
  if (!tm__buf_ok(ids) || !tm__buf_ok(command)) {
    (void)tm__fail_memory(&err, "a correction");
    return tm__push_fail(L, &err);
  }
  tm_slice none = {NULL, 0};
  tm__turn_trail(end_turn(run), tm__buf_view(ids), lua_isnil(L, 3) ? none : tm__buf_view(command));
  lua_pushboolean(L, 1);
  return 1;
}

static int journal_fail(lua_State *L) {
  tm_error err = {0}, why = {0};
  tm_run *run = check_run(L, &err);
  luaL_checkany(L, 2);
  if (run == NULL) return tm__push_fail(L, &err);
  tm__take_error(L, 2, &why);
  (void)snprintf(why.conversation_id, sizeof(why.conversation_id), "%s",
                 tm__turn_view(run->turn)->head->id);
  tm__turn_fail(end_turn(run), &why);
  lua_pushboolean(L, 1);
  return 1;
}

int tm__open_journal(lua_State *L) {
  static const luaL_Reg funcs[] = {
      {"begin", journal_begin},       {"call", journal_call},
      {"messages", journal_messages}, {"commit", journal_commit},
      {"suspend", journal_suspend},   {"undone", journal_undone},
      {"rollback", journal_rollback}, {"trail", journal_trail},
      {"fail", journal_fail},         {NULL, NULL},
  };
  luaL_newlib(L, funcs);
  return 1;
}
