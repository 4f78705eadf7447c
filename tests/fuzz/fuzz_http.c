/* Any bytes on a connection to a real host, which must answer, if at all, with a status of ours and
 * a body that is as long as its head says, and never with 500. "{id}" stands for a conversation's
 * id. */
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/json.h"
#include "tests/fuzz/must.h"
#include "tests/net/raw_client.h"
#include "tidemill.h"

#define REQUEST_MOST 30000

/* What lives as long as the process is no leak. */
const char *__asan_default_options(void);
const char *__asan_default_options(void) {
  return "detect_leaks=0";
}

static tm_host *host;
static uint16_t port;
static char conversation[40];
static char dir[] = "/tmp/tidemill-fuzz-XXXXXX";

static const char script[] =
    "local tm = require 'tidemill'\n"
    "local a = { respond = function(ctx) return 'hello ' .. (ctx.state.said or '') end }\n"
    "return tm.system { name = 'talk', agents = { a = a }, flows = { tm.ConversationFlow {\n"
    "  flow_id = 'talk', pattern = tm.ConversationPattern.STEP_BY_STEP_PROCESS,\n"
    "  start_step = 'greet', settings = { enable_rollback = true }, steps = {\n"
    "    tm.ConversationStep { step_id = 'greet', step_type = 'agent_response', agent = a,\n"
    "      prompt = 'greet', next_steps = { 'ask' } },\n"
    "    tm.ConversationStep { step_id = 'ask', step_type = 'user_input', prompt = 'So?',\n"
    "      input_schema = { type = 'text', required = true }, save_as = 'said',\n"
    "      next_steps = { 'greet' } } } } } }\n";

/* ---- the host ---- */

static void write_file(const char *name, const char *text) {
  char path[128];
  (void)snprintf(path, sizeof(path), "%s/talk/%s", dir, name);
  FILE *f = fopen(path, "w");
  MUST(f != NULL && fputs(text, f) >= 0 && fclose(f) == 0);
}

static void write_script(void) {
  char path[128];
  MUST(mkdtemp(dir) != NULL);
  (void)snprintf(path, sizeof(path), "%s/talk", dir);
  MUST(mkdir(path, 0700) == 0);
  write_file("init.lua", script);
  write_file("none.yaml", "");
}

static void remove_script(void) {
  char path[128];
  (void)snprintf(path, sizeof(path), "%s/talk/init.lua", dir);
  (void)unlink(path);
  (void)snprintf(path, sizeof(path), "%s/talk/none.yaml", dir);
  (void)unlink(path);
  (void)snprintf(path, sizeof(path), "%s/talk", dir);
  (void)rmdir(path);
  (void)rmdir(dir);
}

/* The host has read the scripts; a reload finds none then, and says so. */
static void start_host(void) {
  char scripts[128], config[128], url[64];
  (void)snprintf(scripts, sizeof(scripts), "scripts=%s", dir);
  (void)snprintf(config, sizeof(config), "%s/talk/none.yaml", dir);
  const char *set[] = {scripts,
                       "workflow_persistence.backend=memory",
                       "server.workers=1",
                       "server.idle_timeout=1",
                       "server.request_timeout=1",
                       "server.body_limit=8KiB",
                       NULL};
  tm_options o = TM_OPTIONS_INIT;
  o.config_file = config;
  o.set = set;
  tm_error err;
  if (tm_host_new(&host, &o, &err) != TM_OK || tm_host_start(host, &err) != TM_OK ||
      tm_host_listen(host, "127.0.0.1:0", url, sizeof(url), &err) != TM_OK) {
    (void)fprintf(stderr, "%s\n", err.message);
    abort();
  }
  port = (uint16_t)atoi(strrchr(url, ':') + 1);
}

/* ---- one connection ---- */

typedef struct answer {
  int status;
  bool is_json;
  tm_slice body;
} answer;

/* `text`, which is NUL-terminated, without the words that the body may come. */
static tm_slice behind_interim(tm_slice text) {
  static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
  size_t interim = sizeof(go_on) - 1;
  while (text.len >= interim && memcmp(text.ptr, go_on, interim) == 0)
    text = (tm_slice){text.ptr + interim, text.len - interim};
  return text;
}

/* The first answer in `text`, which is NUL-terminated; false: it is not whole. That to HEAD has no
 * body, whatever its head says. */
static bool parse_answer(answer *a, tm_slice text, bool head) {
  text = behind_interim(text);
  const char *end = strstr(text.ptr, "\r\n\r\n");
  if (strncmp(text.ptr, "HTTP/1.1 ", 9) != 0 || end == NULL) return false;
  const char *length = strcasestr(text.ptr, "\r\nContent-Length: ");
  const char *type = strcasestr(text.ptr, "\r\nContent-Type: application/");
  size_t have = text.len - (size_t)(end + 4 - text.ptr);
  size_t said = length != NULL && length < end ? strtoul(length + 18, NULL, 10) : have;
  if (head) said = 0;
  if (have < said) return false;
  a->status = atoi(text.ptr + 9);
  a->is_json = type != NULL && type < end;
  a->body = (tm_slice){end + 4, said};
  return true;
}

typedef struct talk {
  tm_buf text; /* what was said to us */
  bool head;   /* an answer may be without its body */
  bool over;   /* that was all, and the other side said so */
} talk;

/* Sends everything and reads the first answer. One that has no end never gets one: nothing is
 * waited for long. */
static talk talk_to_host(tm_slice request, int patience_ms) {
  talk t = {.head = memmem(request.ptr, request.len, "HEAD", 4) != NULL};
  answer a;
  char piece[4096];
  int fd = raw_connect(port);
  if (fd < 0) return t; /* too many at once: those before have not been given up yet */
  (void)raw_send(fd, request.ptr, request.len);
  (void)shutdown(fd, SHUT_WR);
  struct pollfd ready = {.fd = fd, .events = POLLIN};
  while (!(t.text.len > 0 && parse_answer(&a, tm__buf_view(&t.text), t.head)) &&
         poll(&ready, 1, patience_ms) > 0) {
    ssize_t n = recv(fd, piece, sizeof(piece), 0);
    t.over = n == 0;
    if (n <= 0) break;
    tm__buf_add(&t.text, piece, (size_t)n);
    MUST(tm__buf_ok(&t.text));
  }
  (void)close(fd);
  return t;
}

static bool is_expected(int status) {
  static const int known[] = {200, 201, 400, 403, 404, 405, 408, 409, 411, 413,
                              414, 415, 417, 422, 429, 431, 501, 503, 505};
  for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
    if (known[i] == status) return true;
  return false;
}

static void check_answer(const talk *t) {
  answer a;
  json_t *v = NULL;
  tm_slice text = tm__buf_view(&t->text);
  if (text.len == 0) return;
  if (!parse_answer(&a, text, t->head)) {
    MUST(!t->over || behind_interim(text).len == 0);
    return;
  }
  if (!is_expected(a.status)) (void)fprintf(stderr, "%s\n", text.ptr);
  MUST(is_expected(a.status));
  if (!a.is_json || t->head || a.body.len == 0) return;
  MUST(tm__json_parse(&v, a.body, TM_JSON_DEPTH, NULL) == TM_OK);
  if (a.status >= 400) {
    MUST(json_integer_value(json_object_get(v, "status")) == a.status);
    MUST(json_string_length(json_object_get(v, "code")) > 0);
    MUST(json_string_length(json_object_get(v, "detail")) > 0);
  }
  json_decref(v);
}

static void begin_conversation(void) {
  static const char begin[] = "POST /v1/conversations HTTP/1.1\r\nHost: localhost\r\n"
                              "Connection: close\r\nContent-Length: 34\r\n\r\n"
                              "{\"system\":\"talk\",\"flow_id\":\"talk\"}";
  talk t = talk_to_host((tm_slice){begin, sizeof(begin) - 1}, 10000);
  const char *id = strstr(t.text.ptr, "\"conversation_id\":\"");
  MUST(id != NULL);
  memcpy(conversation, id + 19, 36);
  tm__buf_free(&t.text);
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
  (void)argc;
  (void)argv;
  write_script();
  start_host();
  remove_script();
  begin_conversation();
  return 0;
}

/* The first "{id}" becomes the conversation's. */
static tm_buf fill_in(tm_slice data) {
  tm_buf out = {0};
  const char *mark = memmem(data.ptr, data.len, "{id}", 4);
  size_t before = mark != NULL ? (size_t)(mark - data.ptr) : data.len;
  tm__buf_add(&out, data.ptr, before);
  if (mark == NULL) return out;
  tm__buf_text(&out, conversation);
  tm__buf_add(&out, mark + 4, data.len - before - 4);
  return out;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size == 0 || size > REQUEST_MOST) return 0;
  tm_buf request = fill_in((tm_slice){(const char *)data, size});
  talk t = talk_to_host(tm__buf_view(&request), 20);
  check_answer(&t);
  tm__buf_free(&request);
  tm__buf_free(&t.text);
  return 0;
}
