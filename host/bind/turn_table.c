/* turn_table.c - a turn as the table that the runtime gets. */
#include "bind/bind.h"

static void set_text(lua_State *L, const char *name, const char *text) {
  lua_pushstring(L, text);
  lua_setfield(L, -2, name);
}

static void set_integer(lua_State *L, const char *name, int64_t v) {
  lua_pushinteger(L, v);
  lua_setfield(L, -2, name);
}

/* Canonical text: what the journal holds, and what came in, written anew when it was checked. */
static void set_json(lua_State *L, const char *name, tm_slice json) {
  tm_error err;
  if (json.ptr == NULL) json = TM_S("null");
  if (tm__json_restore(L, json, &err) != TM_OK) (void)tm__raise(L, &err);
  lua_setfield(L, -2, name);
}

int tm__push_turn(lua_State *L, void *run) {
  const tm_turn_view *v = tm__turn_view(((const tm_run *)run)->turn);
  const tm_head *h = v->head;
  lua_createtable(L, 0, 21);
  set_text(L, "kind", tm__turn_kind_name(v->kind));
  set_text(L, "began_as", tm__turn_kind_name(v->began_as));
  set_text(L, "conversation_id", h->id);
  set_text(L, "tenant", h->tenant);
  set_text(L, "session_id", h->session);
  set_text(L, "system", h->system);
  set_text(L, "flow_id", h->flow);
  set_text(L, "version", h->version);
  set_text(L, "status", tm__conversation_status_name(h->status));
  set_text(L, "step", h->step);
  set_integer(L, "revision", h->revision);
  set_integer(L, "created", h->created);
  set_integer(L, "now", v->now);
  lua_pushboolean(L, v->unsealed);
  lua_setfield(L, -2, "unsealed");
  if (v->retry_at > 0) set_integer(L, "retry_at", v->retry_at);
  lua_pushboolean(L, v->forced);
  lua_setfield(L, -2, "forced");
  if (v->refused.ptr != NULL) set_json(L, "refused", v->refused);
  set_json(L, "input", v->input);
  set_json(L, "state", v->state);
  set_json(L, "runtime", v->runtime);
  set_json(L, "calls", v->calls);
  return 1;
}
