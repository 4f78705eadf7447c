/* Random flows and random inputs against a reference model: the files of
 * tests/host/model make flows, say what is done with a conversation, and know
 * how it must stand after each input. This file is their hands: a host in a
 * process of its own, in a clock that they turn, which can be killed at a
 * commit of its store and started again on what it left.
 *
 * TIDEMILL_SEED repeats a seed, TIDEMILL_CASE one case of it, TIDEMILL_CASES the first so many. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dlfcn.h>
#include <jansson.h>
#include <lauxlib.h>
#include <lualib.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "asks.h"
#include "outside.h"
#include "tests/scratch.h"

enum { TEXT_BYTES = 1024, REPLY_BYTES = 1 << 17, AT_ONCE = 4 };

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { CASES = 60, CASES_AT_NIGHT = 600 };
#else
enum { CASES = 500, CASES_AT_NIGHT = 10000 };
#endif

/* What is asked of the process of the host, in one packet. */
typedef struct request {
  char op[16];
  char id[40], key[24];
  char text[TEXT_BYTES];
  char name[40], input[TEXT_BYTES]; /* of a correction */
  int flag;
  int64_t now;
  bool more; /* another one is sent with it, before it is answered */
  int cut;   /* the process dies at that commit from now on; 0: it does not */
  bool cut_is_done;
} request;

typedef struct reply {
  int status;
  char code[48], message[200];
  char json[REPLY_BYTES];
} reply;

static char dir[40];

/* ---- in the process of the host ---- */

static asks all = {.lock = PTHREAD_MUTEX_INITIALIZER, .come = PTHREAD_COND_INITIALIZER};
static _Atomic int64_t now_ms;
static atomic_int commits_left;
static atomic_bool cut_is_done;

static int64_t turned_clock(void *ud) {
  (void)ud;
  return atomic_load(&now_ms);
}

/* Processes die here, not machines: what was written is there. */
int fsync(int fd) {
  (void)fd;
  return 0;
}
int fdatasync(int fd) {
  (void)fd;
  return 0;
}

/* Stands before SQLite's: a commit may be the last thing the process did. */
int sqlite3_step(sqlite3_stmt *st) {
  static _Atomic(int (*)(sqlite3_stmt *)) real;
  if (atomic_load(&real) == NULL) {
    void *found = dlsym(RTLD_NEXT, "sqlite3_step");
    int (*step)(sqlite3_stmt *);
    memcpy(&step, &found, sizeof(step));
    atomic_store(&real, step);
  }
  const char *sql = sqlite3_sql(st);
  bool last = sql != NULL && strcmp(sql, "COMMIT") == 0 && atomic_load(&commits_left) > 0 &&
              atomic_fetch_sub(&commits_left, 1) == 1;
  if (last && !atomic_load(&cut_is_done)) (void)raise(SIGKILL);
  int rc = atomic_load(&real)(st);
  if (last) (void)raise(SIGKILL);
  return rc;
}

__attribute__((noreturn)) static void give_up(const char *message) {
  (void)fprintf(stderr, "the host: %s\n", message);
  _exit(1);
}

static tm_host *start_host(const char *store) {
  char config[64], scripts[64], backend[64], path[128];
  (void)snprintf(config, sizeof(config), "%s/config.yaml", dir);
  (void)snprintf(scripts, sizeof(scripts), "scripts=%s/scripts", dir);
  (void)snprintf(backend, sizeof(backend), "workflow_persistence.backend=%s", store);
  (void)snprintf(path, sizeof(path), "workflow_persistence.sqlite.database_path=%s/s.db", dir);
  const char *set[] = {scripts, backend, path, "server.workers=1", NULL};
  tm_options o = TM_OPTIONS_INIT;
  o.config_file = config;
  o.set = set;
  o.clock = turned_clock;
  tm_error err;
  tm_host *h = NULL;
  if (tm_host_new(&h, &o, &err) != TM_OK || tm_host_start(h, &err) != TM_OK) give_up(err.message);
  return h;
}

static void begin(tm_host *h, const request *r, ask *a) {
  tm_begin b = TM_BEGIN_INIT;
  b.system = "drawn";
  b.flow_id = "main";
  b.session_id = "s1";
  b.idempotency_key = r->key;
  tm_conversation_begin(h, &b, ask_reply, a);
}

static void say(tm_host *h, const request *r, ask *a) {
  tm_message_send(h, NULL, r->id, r->text, r->key, ask_reply, a);
}

static void command(tm_host *h, const request *r, ask *a) {
  tm_command c = TM_COMMAND_INIT;
  c.conversation_id = r->id;
  c.command = r->text;
  c.name = r->name[0] != '\0' ? r->name : NULL;
  c.input_json = r->input[0] != '\0' ? r->input : NULL;
  c.idempotency_key = r->key;
  tm_conversation_command(h, &c, ask_reply, a);
}

static void approve(tm_host *h, const request *r, ask *a) {
  tm_approval p = TM_APPROVAL_INIT;
  p.conversation_id = r->id;
  p.approved = r->flag;
  p.role = r->text;
  p.idempotency_key = r->key;
  tm_conversation_approve(h, &p, ask_reply, a);
}

static void event(tm_host *h, const request *r, ask *a) {
  tm_event e = TM_EVENT_INIT;
  e.conversation_id = r->id;
  e.name = r->text;
  e.data_json = "{\"sum\":7}";
  e.idempotency_key = r->key;
  tm_conversation_event(h, &e, ask_reply, a);
}

/* By force, if it says so. */
static void rollback(tm_host *h, const request *r, ask *a) {
  int force = strcmp(r->text, "force") == 0;
  tm_conversation_rollback(h, NULL, r->id, r->flag, NULL, force, r->key, ask_reply, a);
}

static void fork_it(tm_host *h, const request *r, ask *a) {
  const char *checkpoint = r->text[0] != '\0' ? r->text : NULL;
  tm_conversation_fork(h, NULL, r->id, checkpoint, r->key, ask_reply, a);
}

static void hold(tm_host *h, const request *r, ask *a) {
  tm_conversation_pause(h, NULL, r->id, ask_reply, a);
}

static void go_on(tm_host *h, const request *r, ask *a) {
  tm_conversation_resume(h, NULL, r->id, ask_reply, a);
}

static void cancel(tm_host *h, const request *r, ask *a) {
  tm_conversation_cancel(h, NULL, r->id, ask_reply, a);
}

static void migrate(tm_host *h, const request *r, ask *a) {
  tm_conversation_migrate(h, NULL, r->id, 0, ask_reply, a);
}

static void reload(tm_host *h, const request *r, ask *a) {
  (void)r;
  tm_host_reload(h, ask_reply, a);
}

static void head(tm_host *h, const request *r, ask *a) {
  tm_conversation_read(h, NULL, r->id, TM_READ_CONVERSATION, NULL, 0, ask_reply, a);
}

static void messages(tm_host *h, const request *r, ask *a) {
  tm_conversation_read(h, NULL, r->id, TM_READ_MESSAGES, NULL, 200, ask_reply, a);
}

static void checkpoints(tm_host *h, const request *r, ask *a) {
  tm_conversation_read(h, NULL, r->id, TM_READ_CHECKPOINTS, NULL, 200, ask_reply, a);
}

static void steps(tm_host *h, const request *r, ask *a) {
  tm_conversation_read(h, NULL, r->id, TM_READ_STEPS, NULL, 200, ask_reply, a);
}

/* Looks at deadlines, then reads. */
static void wake(tm_host *h, const request *r, ask *a) {
  tm_host_wake(h);
  (void)usleep(200);
  head(h, r, a);
}

static const struct op {
  const char *name;
  void (*act)(tm_host *h, const request *r, ask *a);
} ops[] = {{"begin", begin},
           {"say", say},
           {"command", command},
           {"approve", approve},
           {"event", event},
           {"fork", fork_it},
           {"checkpoints", checkpoints},
           {"rollback", rollback},
           {"pause", hold},
           {"resume", go_on},
           {"wake", wake},
           {"cancel", cancel},
           {"migrate", migrate},
           {"reload", reload},
           {"head", head},
           {"steps", steps},
           {"messages", messages}};
enum { OPS = sizeof(ops) / sizeof(ops[0]) };

static ask *act(tm_host *h, const request *r) {
  ask *a = ask_new(&all);
  size_t i = 0;
  while (i < OPS - 1 && strcmp(ops[i].name, r->op) != 0)
    i++;
  atomic_store(&cut_is_done, r->cut_is_done);
  atomic_store(&commits_left, r->cut);
  ops[i].act(h, r, a);
  return a;
}

static void read_answer(ask *a, reply *out) {
  out->status = a->status;
  (void)snprintf(out->code, sizeof(out->code), "%s", a->code);
  (void)snprintf(out->message, sizeof(out->message), "%s", a->message);
  (void)snprintf(out->json, sizeof(out->json), "%s", a->json != NULL ? a->json : "null");
}

static size_t reply_size(const reply *r) {
  return offsetof(reply, json) + strlen(r->json) + 1;
}

/* Answers them in their order. */
static bool answer_all(int fd, ask **asked, size_t count) {
  static reply out;
  for (size_t i = 0; i < count; i++)
    (void)ask_wait(asked[i]);
  atomic_store(&commits_left, 0);
  for (size_t i = 0; i < count; i++) {
    read_answer(asked[i], &out);
    if (i + 1 == count && asks_end(&all) != 0) give_up("a request was not answered once");
    if (send(fd, &out, reply_size(&out), MSG_NOSIGNAL) < 0) return false;
  }
  return true;
}

/* Until it is told to stop, or its parent is gone. */
__attribute__((noreturn)) static void live(int fd, const char *store) {
  static request r;
  ask *asked[AT_ONCE];
  size_t count = 0;
  tm_host *h = NULL;
  while (recv(fd, &r, sizeof(r), 0) == (ssize_t)sizeof(r)) {
    atomic_store(&now_ms, r.now);
    if (h == NULL) h = start_host(store);
    if (strcmp(r.op, "stop") == 0) break;
    asked[count++] = act(h, &r);
    if (r.more && count < AT_ONCE) continue;
    if (!answer_all(fd, asked, count)) break;
    count = 0;
  }
  tm_host_stop(h, 10000);
  tm_host_free(h);
  _exit(0);
}

/* ---- the outside: a process that hears what the flows call ---- */

enum { CALLS_HEARD = 4096 };

typedef struct heard {
  char path[40], key[40];
} heard;

static struct ears {
  atomic_bool refuses_undo;
  atomic_int count;
  heard calls[CALLS_HEARD];
} * ears; /* both processes have it */

static outside world;
static pid_t listener;

static void copy_until(char *out, size_t size, const char *from, const char *ends) {
  (void)snprintf(out, size, "%.*s", (int)strcspn(from, ends), from);
}

static int hear(const char *head) {
  static const char name[] = "Idempotency-Key: ";
  int i = atomic_load(&ears->count);
  const char *path = strchr(head, '/');
  const char *key = strcasestr(head, name);
  if (i == CALLS_HEARD || path == NULL || key == NULL) return 500;
  heard *call = &ears->calls[i];
  copy_until(call->path, sizeof(call->path), path, " ");
  copy_until(call->key, sizeof(call->key), key + sizeof(name) - 1, "\r");
  atomic_store(&ears->count, i + 1);
  bool undoes = strstr(call->path, "/undo") != NULL;
  return undoes && atomic_load(&ears->refuses_undo) ? 503 : 200;
}

static bool open_outside(void) {
  ears = mmap(NULL, sizeof(*ears), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (ears == MAP_FAILED || !outside_open(&world, 1)) return false;
  world.heard = hear;
  listener = fork();
  if (listener == 0) {
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)outside_main(&world);
    _exit(0);
  }
  (void)close(world.listener);
  (void)close(world.stop);
  return listener > 0;
}

static void close_outside(void) {
  (void)kill(listener, SIGKILL);
  (void)waitpid(listener, NULL, 0);
  (void)munmap(ears, sizeof(*ears));
}

/* ---- what the Lua side sees: `host` ---- */

static pid_t child;
static int peer = -1;

static int host_start(lua_State *L) {
  const char *store = luaL_checkstring(L, 1);
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
    return luaL_error(L, "no sockets");
  child = fork();
  if (child < 0) return luaL_error(L, "no process");
  if (child == 0) {
    (void)close(pair[0]);
    live(pair[1], store);
  }
  (void)close(pair[1]);
  peer = pair[0];
  return 0;
}

/* Returns the signal that ended it, or 0. */
static int ended(lua_State *L) {
  int status = 0;
  (void)close(peer);
  peer = -1;
  if (waitpid(child, &status, 0) != child) return luaL_error(L, "the process is lost");
  if (WIFEXITED(status) && WEXITSTATUS(status) != 0)
    return luaL_error(L, "the process of the host has failed: %d", WEXITSTATUS(status));
  return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static int host_kill(lua_State *L) {
  (void)kill(child, SIGKILL);
  (void)ended(L);
  return 0;
}

static void push(lua_State *L, const json_t *value) {
  luaL_checkstack(L, 4, NULL);
  const char *name;
  size_t i;
  json_t *member;
  switch (json_typeof(value)) {
  case JSON_OBJECT:
    lua_newtable(L);
    json_object_foreach((json_t *)(uintptr_t)value, name, member) {
      push(L, member);
      lua_setfield(L, -2, name);
    }
    break;
  case JSON_ARRAY:
    lua_newtable(L);
    json_array_foreach(value, i, member) {
      push(L, member);
      lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    break;
  case JSON_STRING: lua_pushstring(L, json_string_value(value)); break;
  case JSON_INTEGER: lua_pushinteger(L, json_integer_value(value)); break;
  case JSON_REAL: lua_pushnumber(L, json_real_value(value)); break;
  case JSON_TRUE:
  case JSON_FALSE: lua_pushboolean(L, json_is_true(value)); break;
  case JSON_NULL: lua_pushlightuserdata(L, NULL); break;
  default: luaL_error(L, "no JSON");
  }
}

static void copy_field(lua_State *L, const char *name, char *out, size_t size) {
  lua_getfield(L, 1, name);
  const char *text = luaL_optstring(L, -1, "");
  if ((size_t)snprintf(out, size, "%s", text) >= size) luaL_error(L, "'%s' is too long", name);
  lua_pop(L, 1);
}

static lua_Integer integer_field(lua_State *L, const char *name) {
  lua_getfield(L, 1, name);
  lua_Integer value = luaL_optinteger(L, -1, 0);
  lua_pop(L, 1);
  return value;
}

static request read_request(lua_State *L) {
  request r = {.flag = (int)integer_field(L, "flag"),
               .now = integer_field(L, "now"),
               .cut = (int)integer_field(L, "cut")};
  copy_field(L, "op", r.op, sizeof(r.op));
  copy_field(L, "id", r.id, sizeof(r.id));
  copy_field(L, "key", r.key, sizeof(r.key));
  copy_field(L, "text", r.text, sizeof(r.text));
  copy_field(L, "name", r.name, sizeof(r.name));
  copy_field(L, "input", r.input, sizeof(r.input));
  lua_getfield(L, 1, "cut_is_done");
  r.cut_is_done = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return r;
}

static bool may_die; /* since a commit was named */

/* It is gone, as it should be. */
static int died(lua_State *L, const char *op) {
  int signal = ended(L);
  if (strcmp(op, "stop") == 0 && signal == 0) return 0;
  if (signal != SIGKILL || !may_die) return luaL_error(L, "the host has died: %d", signal);
  may_die = false;
  return 0;
}

/* A request, and whether another one follows at once. Returns whether it could be sent. */
static int host_send(lua_State *L) {
  request r = read_request(L);
  r.more = lua_toboolean(L, 2);
  may_die = may_die || r.cut != 0;
  lua_pushboolean(L, send(peer, &r, sizeof(r), MSG_NOSIGNAL) >= 0);
  return 1;
}

/* host.ask { op, id, key, text, name, input, flag, now, cut, cut_is_done } returns the
 * answer, nil and its text, or nil, code and message, or nothing: the process
 * was killed as it should. */
static int host_ask(lua_State *L) {
  static reply out;
  request r = read_request(L);
  may_die = may_die || r.cut != 0;
  if (send(peer, &r, sizeof(r), MSG_NOSIGNAL) < 0 || recv(peer, &out, sizeof(out), 0) <= 0)
    return died(L, r.op);
  if (out.status != TM_OK) {
    lua_pushnil(L);
    lua_pushstring(L, out.code);
    lua_pushstring(L, out.message);
    return 3;
  }
  json_t *tree = json_loads(out.json, JSON_DECODE_ANY, NULL);
  if (tree == NULL) return luaL_error(L, "no JSON: %s", out.json);
  push(L, tree);
  json_decref(tree);
  lua_pushnil(L);
  lua_pushstring(L, out.json);
  return 3;
}

/* host.ask_all { request, … } sends them at once; returns { { code, text }, … }, or nothing: the
 * process was killed as it should. */
static int host_ask_all(lua_State *L) {
  static reply out;
  lua_Integer count = luaL_len(L, 1);
  luaL_argcheck(L, count <= AT_ONCE, 1, "too many");
  for (lua_Integer i = 1; i <= count; i++) {
    lua_pushcfunction(L, host_send);
    lua_rawgeti(L, 1, i);
    lua_pushboolean(L, i < count);
    lua_call(L, 2, 1);
    if (!lua_toboolean(L, -1)) return died(L, "say");
    lua_pop(L, 1);
  }
  lua_newtable(L);
  for (lua_Integer i = 1; i <= count; i++) {
    if (recv(peer, &out, sizeof(out), 0) <= 0) return died(L, "say");
    lua_newtable(L);
    if (out.status != TM_OK) {
      lua_pushstring(L, out.code);
      lua_setfield(L, -2, "code");
    }
    lua_pushstring(L, out.status != TM_OK ? out.code : out.json);
    lua_setfield(L, -2, "text");
    lua_rawseti(L, -2, i);
  }
  return 1;
}

/* Returns the calls that came since the last host_forget: { { path, key }, ... } */
static int host_heard(lua_State *L) {
  int count = atomic_load(&ears->count);
  if (count == CALLS_HEARD) return luaL_error(L, "too many calls");
  lua_createtable(L, count, 0);
  for (int i = 0; i < count; i++) {
    lua_createtable(L, 2, 0);
    lua_pushstring(L, ears->calls[i].path);
    lua_rawseti(L, -2, 1);
    lua_pushstring(L, ears->calls[i].key);
    lua_rawseti(L, -2, 2);
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

static int host_forget(lua_State *L) {
  (void)L;
  atomic_store(&ears->count, 0);
  return 0;
}

/* host.refuse(whether calls that undo something are refused from now on) */
static int host_refuse(lua_State *L) {
  atomic_store(&ears->refuses_undo, lua_toboolean(L, 1));
  return 0;
}

static const luaL_Reg functions[] = {{"start", host_start},   {"kill", host_kill},
                                     {"ask", host_ask},       {"ask_all", host_ask_all},
                                     {"heard", host_heard},   {"forget", host_forget},
                                     {"refuse", host_refuse}, {NULL, NULL}};

/* ---- the cases ---- */

static lua_Integer number_of(const char *variable, lua_Integer otherwise) {
  const char *given = getenv(variable);
  return given != NULL ? strtoll(given, NULL, 10) : otherwise;
}

static lua_Integer draw_seed(void) {
  uint32_t seed = 1;
  (void)getrandom(&seed, sizeof(seed), 0);
  return seed;
}

static void test_random_flows(void **state) {
  (void)state;
  bool night = number_of("TIDEMILL_NIGHTLY", 0) == 1;
  lua_State *L = luaL_newstate();
  assert_non_null(L);
  luaL_openlibs(L);
  luaL_newlib(L, functions);
  lua_pushlightuserdata(L, NULL);
  lua_setfield(L, -2, "null");
  lua_pushinteger(L, world.port);
  lua_setfield(L, -2, "port");
  lua_setglobal(L, "host");
  if (luaL_loadfile(L, "tests/host/model/cases.lua") != LUA_OK) fail_msg("%s", lua_tostring(L, -1));
  lua_pushstring(L, dir);
  lua_pushinteger(L, number_of("TIDEMILL_SEED", draw_seed()));
  lua_pushinteger(L, number_of("TIDEMILL_CASE", 0));
  lua_pushinteger(L, number_of("TIDEMILL_CASES", night ? CASES_AT_NIGHT : CASES));
  if (lua_pcall(L, 4, 1, 0) != LUA_OK || lua_type(L, -1) == LUA_TSTRING) {
    (void)fputs(lua_tostring(L, -1), stderr);
    fail();
  }
  lua_close(L);
}

static int setup(void **state) {
  (void)state;
  char path[64];
  if (!scratch_make(dir, sizeof(dir), "model") || !open_outside()) return -1;
  (void)snprintf(path, sizeof(path), "mkdir -p %s/scripts/drawn", dir);
  if (system(path) != 0) return -1;
  (void)snprintf(path, sizeof(path), "%s/config.yaml", dir);
  FILE *f = fopen(path, "w");
  return f == NULL || fputs("log:\n  level: error\n", f) < 0 || fclose(f) != 0;
}

static int teardown(void **state) {
  char remove[64];
  (void)state;
  close_outside();
  (void)snprintf(remove, sizeof(remove), "rm -rf %s", dir);
  return system(remove);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_random_flows)};
  return cmocka_run_group_tests(tests, setup, teardown);
}
