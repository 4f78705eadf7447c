/* world.h - what the sweeps work on: a host with the shipped system and a small one, somebody who
 * is called from outside, and answers that need no memory. */
#ifndef TEST_MEMORY_WORLD_H
#define TEST_MEMORY_WORLD_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "sweep.h"
#include "tidemill.h"

static char dir[40];
static _Atomic int64_t now_ms = 1800000000000;
static tm_host *host;
static const char *backend = "workflow_persistence.backend=memory";
static bool sealed; /* and compressed */
static bool told;   /* events go to somebody who is not there, once */

/* ---- answers ---- */

typedef struct answer { /* of a fixed size */
  pthread_mutex_t lock;
  pthread_cond_t come;
  bool done;
  tm_status status;
  tm_error error;
  char json[65536];
} answer;

static answer last = {.lock = PTHREAD_MUTEX_INITIALIZER, .come = PTHREAD_COND_INITIALIZER};

static void on_reply(void *ud, const tm_reply *r) {
  answer *a = ud;
  (void)pthread_mutex_lock(&a->lock);
  if (a->done) complain("answered twice");
  a->done = true;
  a->status = r->status;
  if (r->status != TM_OK) a->error = *r->error;
  (void)snprintf(a->json, sizeof(a->json), "%s", r->status == TM_OK ? r->json : "");
  (void)pthread_cond_signal(&a->come);
  (void)pthread_mutex_unlock(&a->lock);
}

static answer *ask(void) {
  last.done = false;
  return &last;
}

static void await(void) {
  (void)pthread_mutex_lock(&last.lock);
  while (!last.done)
    (void)pthread_cond_wait(&last.come, &last.lock);
  (void)pthread_mutex_unlock(&last.lock);
}

static void expect_ok(const char *what) {
  if (last.status != TM_OK)
    complain("with memory back, %s: %s: %s", what, last.error.code, last.error.message);
}

/* Success, or an error that says that the host cannot do it now. */
static void expect_clear(void) {
  if (last.status == TM_OK || last.status == TM_ENOMEM || last.status == TM_EUNAVAILABLE) return;
  complain("no clear error: %d %s: %s", (int)last.status, last.error.code, last.error.message);
}

static void expect_text(const char *text) {
  if (strstr(last.json, text) == NULL) complain("no %s in %s", text, last.json);
}

/* ---- hosts ---- */

static int64_t turned_clock(void *ud) {
  (void)ud;
  return atomic_load(&now_ms);
}

static void on_log(void *ud, const char *line, size_t size) {
  (void)ud;
  if (getenv("SWEEP_LOG") != NULL) say("%.*s\n", (int)size, line);
}

static void start(void) {
  char scripts[64], db[128];
  (void)snprintf(scripts, sizeof(scripts), "scripts=%s/scripts", dir);
  (void)snprintf(db, sizeof(db), "workflow_persistence.sqlite.database_path=%s/state.db", dir);
  static const char *const seals[] = {
      "workflow_persistence.general.enable_compression=true",
      "workflow_persistence.general.enable_encryption=true",
      "workflow_persistence.general.encryption_key=q83Wm0m2cMyaGZBjyNKsRRjKJvSaTdZ5Zkdkm0W4yqE="};
  static const char *const tells[] = {"webhooks.url=http://127.0.0.1:1/",
                                      "webhooks.secret=whispered", "webhooks.give_up_after=0"};
  const char *set[16] = {scripts, db, backend, "server.workers=1",
                         "workflow_persistence.retention.conversation_ttl=1"};
  for (size_t i = 0, n = 5; i < 3; i++) {
    if (sealed) set[n++] = seals[i];
    if (told) set[n++] = tells[i];
  }
  tm_options o = TM_OPTIONS_INIT;
  o.set = set;
  o.log = on_log;
  o.clock = turned_clock;
  last.status = tm_host_new(&host, &o, &last.error);
  if (last.status == TM_OK) last.status = tm_host_start(host, &last.error);
}

static void start_well(void) {
  start();
  expect_ok("start");
}

static void end(void) {
  tm_host_free(host);
  host = NULL;
}

/* ---- requests; each waits for its answer ---- */

static char key[32], id[40]; /* of the trial; the conversation it works on */

static void next_key(void) {
  static int trials;
  (void)snprintf(key, sizeof(key), "key-%d-%d", ++trials, (int)getpid());
}

static void begin(const char *system, const char *flow) {
  tm_begin b = TM_BEGIN_INIT;
  b.system = system;
  b.flow_id = flow;
  b.session_id = b.idempotency_key = key;
  b.user_id = "somebody";
  b.metadata_json = "{\"from\":\"a test\"}";
  tm_conversation_begin(host, &b, on_reply, ask());
  await();
}

static void begin_well(const char *system, const char *flow) {
  next_key();
  begin(system, flow);
  expect_ok("begin");
  const char *at = strstr(last.json, "\"conversation_id\":\"");
  if (at == NULL) complain("no id in %s", last.json);
  (void)snprintf(id, sizeof(id), "%.36s", at + 19);
}

static void tell(const char *input) {
  tm_message_send(host, NULL, id, input, key, on_reply, ask());
  await();
}

static void look(tm_read what) {
  tm_conversation_read(host, NULL, id, what, NULL, 0, on_reply, ask());
  await();
}

/* ---- files ---- */

static void write_file(const char *name, const char *text) {
  char path[128];
  (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
  FILE *f = fopen(path, "w");
  if (f == NULL || fputs(text, f) < 0 || fclose(f) != 0) abort();
}

static uint16_t outside_port;

static const char small_system[] =
    "local tm = require 'tidemill'\n"
    "local function ask(target) return tm.ConversationStep { step_id = 'ask',\n"
    "  step_type = 'user_input', prompt = 'So?', save_as = 'said', next_steps = { target },\n"
    "  input_schema = { type = 'text', required = true } } end\n"
    "local function count(ctx)\n"
    "  ctx.state.count = (ctx.state.count or 0) + 1 return { said = ctx.state.count } end\n"
    "local function act(name, run) return tm.ConversationStep { step_id = name,\n"
    "  step_type = 'action', run = run, next_steps = { 'ask' } } end\n"
    "local function call(ctx)\n"
    "  return ctx:http { method = 'POST', url = 'http://127.0.0.1:%d/', json = {} } end\n"
    "local function fetch(ctx)\n"
    "  local answer, err = call(ctx)\n"
    "  if not answer then return nil, err end\n"
    "  return count(ctx) end\n"
    "local function tell(ctx) ctx:emit('word', {}) return count(ctx) end\n"
    "local function flow(name, step) return tm.ConversationFlow { flow_id = name,\n"
    "  pattern = tm.ConversationPattern.STEP_BY_STEP_PROCESS, start_step = 'ask',\n"
    "  settings = { enable_rollback = true, max_rollback_steps = 5, interaction_timeout = 600 },\n"
    "  migrate = function(state) state.moved = true return state end,\n"
    "  steps = { ask(step.step_id), step } } end\n"
    "return tm.system { name = 'small', agents = {}, flows = {\n"
    "  flow('count', act('add', count)), flow('fetch', act('get', fetch)),\n"
    "  flow('tell', act('say', tell)),\n"
    "  tm.ConversationFlow { flow_id = 'fail', start_step = 'ask', compensate_on_failure = true,\n"
    "    steps = { ask('pay'), tm.ConversationStep { step_id = 'pay', step_type = 'action',\n"
    "      run = count, undo = call, next_steps = { 'break' } },\n"
    "    tm.ConversationStep { step_id = 'break', step_type = 'action', next_steps = { 'end' },\n"
    "      run = function() return nil, { code = 'test.broken', message = 'no' } end } } } } }\n";

/* Each time another version. */
static void write_small_system(void) {
  static unsigned version;
  char text[4096];
  int len = snprintf(text, sizeof(text), small_system, (int)outside_port);
  (void)snprintf(text + len, sizeof(text) - (size_t)len, "-- %u\n", ++version);
  write_file("scripts/small/init.lua", text);
}

static int write_systems(void) {
  char path[128], shipped[4096];
  (void)snprintf(path, sizeof(path), "%s/scripts", dir);
  (void)mkdir(path, 0700);
  (void)snprintf(path, sizeof(path), "%s/scripts/small", dir);
  (void)mkdir(path, 0700);
  write_small_system();
  (void)snprintf(path, sizeof(path), "%s/scripts/customer_service", dir);
  return realpath("scripts/customer_service", shipped) != NULL ? symlink(shipped, path) : -1;
}

/* ---- somebody outside, who answers every request, on a thread that never lacks memory ---- */

/* false: the other side has closed. */
static bool answer_one(int fd) {
  static const char ok[] = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                           "Content-Length: 13\r\n\r\n{\"said\":true}";
  char bytes[4096];
  return recv(fd, bytes, sizeof(bytes), 0) > 0 && send(fd, ok, sizeof(ok) - 1, MSG_NOSIGNAL) > 0;
}

static void *outside_main(void *ud) {
  struct pollfd fds[64] = {{.fd = *(int *)ud, .events = POLLIN}};
  nfds_t count = 1;
  alloc_inside = true;
  while (poll(fds, count, -1) >= 0) {
    for (nfds_t i = count - 1; i > 0; i--) {
      if (fds[i].revents == 0 || answer_one(fds[i].fd)) continue;
      (void)close(fds[i].fd);
      fds[i] = fds[--count];
    }
    if (fds[0].revents != 0 && count < 64)
      fds[count++] = (struct pollfd){.fd = accept(fds[0].fd, NULL, NULL), .events = POLLIN};
  }
  return NULL;
}

/* Once, in the parent: the port stays the same. */
static int outside_listener = -1;

static int outside_open(void) {
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof(at);
  outside_listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (bind(outside_listener, (struct sockaddr *)&at, sizeof(at)) != 0 ||
      listen(outside_listener, 64) != 0 ||
      getsockname(outside_listener, (struct sockaddr *)&at, &size) != 0)
    return -1;
  outside_port = ntohs(at.sin_port);
  return 0;
}

static void outside_start(void) { /* in a child */
  static bool runs;
  pthread_t thread;
  if (runs) return;
  runs = true;
  if (pthread_create(&thread, NULL, outside_main, &outside_listener) != 0) abort();
}

#endif
