/* host.http - one request to the outside, without retries.
 *
 *   http.request{ method, url, headers?, body?, timeout_ms, max_bytes } -> op | nil, err
 *   done: { status, headers = { lower-case name = value }, body }
 */
#include <ctype.h>
#include <string.h>

#include "bind/bind.h"

#define MAX_HEADERS    64
#define MAX_URL        8192
#define MAX_TIMEOUT_MS INT64_C(3600000)
#define MAX_BODY       (64 << 20)

/* ---- the answer ---- */

static tm_slice trimmed(const char *from, const char *to) {
  while (from < to && (*from == ' ' || *from == '\t'))
    from++;
  while (to > from && (to[-1] == ' ' || to[-1] == '\t' || to[-1] == '\r'))
    to--;
  return (tm_slice){from, (size_t)(to - from)};
}

static void push_lower(lua_State *L, tm_slice name) {
  luaL_Buffer b;
  char *p = luaL_buffinitsize(L, &b, name.len);
  for (size_t i = 0; i < name.len; i++)
    p[i] = (char)tolower((unsigned char)name.ptr[i]);
  luaL_pushresultsize(&b, name.len);
}

/* Sets headers[name]; what is sent more than once is joined by commas. */
static void set_header(lua_State *L, int table, tm_slice name, tm_slice value) {
  push_lower(L, name);
  lua_pushvalue(L, -1);
  bool again = lua_rawget(L, table) == LUA_TSTRING;
  if (again)
    lua_pushliteral(L, ", ");
  else
    lua_pop(L, 1);
  lua_pushlstring(L, value.ptr, value.len);
  if (again) lua_concat(L, 3);
  lua_rawset(L, table);
}

static void push_headers(lua_State *L, tm_slice lines) {
  lua_newtable(L);
  int table = lua_gettop(L);
  const char *end = lines.ptr + lines.len;
  for (const char *at = lines.ptr; at != NULL && at < end;) {
    const char *eol = memchr(at, '\n', (size_t)(end - at));
    const char *stop = eol != NULL ? eol : end;
    const char *colon = memchr(at, ':', (size_t)(stop - at));
    if (colon != NULL) set_header(L, table, trimmed(at, colon), trimmed(colon + 1, stop));
    at = eol != NULL ? eol + 1 : end;
  }
}

static int push_answer(lua_State *L, void *ud) {
  const tm_http_result *r = ud;
  lua_createtable(L, 0, 3);
  lua_pushinteger(L, r->status);
  lua_setfield(L, -2, "status");
  lua_pushlstring(L, r->body.ptr != NULL ? r->body.ptr : "", r->body.len);
  lua_setfield(L, -2, "body");
  push_headers(L, r->headers);
  lua_setfield(L, -2, "headers");
  return 1;
}

/* What is on its way counts as what the step holds while it waits. */
static bool on_bytes(void *ud, size_t bytes) {
  tm_op *op = ud;
  op->refused = tm__op_receive(op, bytes);
  return op->refused == TM_OK;
}

static const tm_error *too_much(const tm_op *op, tm_error *err) {
  const tm_vm_limits *l = &op->vm->o.limits;
  if (op->refused == TM_EUNAVAILABLE)
    (void)tm__fail(err, TM_EUNAVAILABLE, "http.no_room",
                   "answers of %zu bytes arrive at once for conversations of the system, and more "
                   "may not: try again later, or raise limits.memory",
                   op->vm->arriving);
  else
    (void)tm__fail(err, TM_ETOOLARGE, "http.too_large",
                   "there is no room for the answer: while it waits a step may hold %zu bytes of "
                   "memory; ask for less, or raise limits.step_memory",
                   l->step_memory);
  return err;
}

static void on_answer(void *ud, const tm_http_result *result) {
  tm_op *op = ud;
  tm_http_result copy = *result;
  tm_error err;
  if (op->refused != TM_OK)
    tm__op_failed(op, too_much(op, &err));
  else if (result->error != NULL)
    tm__op_failed(op, result->error);
  else
    tm__op_done(op, push_answer, &copy);
}

/* ---- the request ---- */

static const char *text_field(lua_State *L, const char *name, size_t *len) {
  if (lua_getfield(L, 1, name) != LUA_TSTRING)
    luaL_error(L, "http.request: %s must be text, not %s", name, luaL_typename(L, -1));
  return lua_tolstring(L, -1, len); /* stays valid: the argument holds it */
}

static int64_t number_field(lua_State *L, const char *name, int64_t max) {
  lua_getfield(L, 1, name);
  int ok;
  lua_Integer v = lua_tointegerx(L, -1, &ok);
  if (!ok || v < 1 || v > max)
    luaL_error(L, "http.request: %s must be a whole number from 1 to %I", name, (LUAI_UACINT)max);
  lua_pop(L, 1);
  return v;
}

static void check_line(lua_State *L, const char *what, const char *text, size_t len) {
  for (size_t i = 0; i < len; i++)
    if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
      luaL_error(L, "http.request: %s has a control character", what);
}

/* Pushes "Name: value", so that the stack owns it. */
static const char *push_line(lua_State *L, int name_at) {
  luaL_argcheck(L, lua_type(L, name_at) == LUA_TSTRING, 1, "header names are text");
  size_t name_len, len;
  const char *name = lua_tolstring(L, name_at, &name_len);
  luaL_argcheck(L, name_len > 0 && memchr(name, ':', name_len) == NULL, 1, "a header's name");
  luaL_argcheck(L, lua_type(L, name_at + 1) == LUA_TSTRING, 1, "header values are text");
  lua_pushfstring(L, "%s: %s", name, lua_tostring(L, name_at + 1));
  const char *line = lua_tolstring(L, -1, &len);
  check_line(L, "a header", line, len);
  return line;
}

/* Pushes a userdata with the array of lines, and the lines. */
static const char **header_lines(lua_State *L) {
  if (lua_getfield(L, 1, "headers") == LUA_TNIL) return NULL;
  luaL_argcheck(L, lua_istable(L, -1), 1, "headers must be a table");
  int table = lua_gettop(L);
  luaL_checkstack(L, MAX_HEADERS + 8, "headers");
  const char **lines = lua_newuserdatauv(L, (MAX_HEADERS + 1) * sizeof(*lines), 0);
  size_t count = 0;
  lua_pushnil(L);
  while (lua_next(L, table)) {
    luaL_argcheck(L, count < MAX_HEADERS, 1, "at most 64 headers");
    lines[count++] = push_line(L, lua_gettop(L) - 1);
    lua_insert(L, -3); /* below key and value */
    lua_pop(L, 1);
  }
  lines[count] = NULL;
  return lines;
}

static int http_request(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  size_t method_len, url_len;
  tm_http_call call = {.method = text_field(L, "method", &method_len)};
  call.url = text_field(L, "url", &url_len);
  luaL_argcheck(L, method_len < 32 && url_len <= MAX_URL, 1, "method or url too long");
  check_line(L, "the method", call.method, method_len);
  check_line(L, "the url", call.url, url_len);
  if (lua_getfield(L, 1, "body") != LUA_TNIL) call.body.ptr = text_field(L, "body", &call.body.len);
  int body = lua_gettop(L);
  call.timeout_ms = number_field(L, "timeout_ms", MAX_TIMEOUT_MS);
  call.max_response = (size_t)number_field(L, "max_bytes", MAX_BODY);
  call.headers = header_lines(L);
  tm_vm *vm = tm__vm(L);
  luaL_argcheck(L, vm->o.client != NULL || vm->o.worker == NULL, 1, "there is no HTTP client here");
  call.room = on_bytes;
  lua_pushvalue(L, body);
  body = call.body.ptr != NULL ? luaL_ref(L, LUA_REGISTRYINDEX) : 0;
  tm_error err; /* nothing below this line raises before the operation is under way */
  tm_op *op = tm__op_new(vm, TM_OP_HTTP, &err);
  if (op == NULL) {
    if (body != 0) luaL_unref(L, LUA_REGISTRYINDEX, body);
    return tm__push_fail(L, &err);
  }
  op->body = body;
  lua_Integer id = (lua_Integer)op->id;
  if (tm__http_start(vm->o.client, &call, on_answer, op, &op->handle, &err) != TM_OK) {
    tm__op_free(op);
    return tm__push_fail(L, &err);
  }
  lua_pushinteger(L, id);
  return 1;
}

int tm__open_http(lua_State *L) {
  static const luaL_Reg funcs[] = {{"request", http_request}, {NULL, NULL}};
  luaL_newlib(L, funcs);
  return 1;
}
