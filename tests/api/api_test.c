/* api_test.c - the routes over real sockets, with a host that writes down what it was asked. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>

#include "api/api.h"
#include "core/json.h"
#include "tests/net/raw_client.h"
#include "tests/provoke.h"

#define ID   "0199c0de-0000-7000-8000-000000000001"
#define BASE "/v1/conversations/" ID

/* ---- a host that answers at once, or when it is told ---- */

#define KEPT_MOST 8

struct tm_host {
  pthread_mutex_t lock;
  pthread_cond_t changed;
  char asked[1024]; /* the last call, "" after it was looked at */
  tm_error fail;    /* status TM_OK: answers are good */
  bool later;       /* keeps answers back */
  size_t kept;
  struct {
    tm_reply_fn fn;
    void *ud;
  } backs[KEPT_MOST];
};

static void answer(const tm_host *h, tm_reply_fn fn, void *ud) {
  static const char json[] = "{\"fine\":true}";
  tm_reply good = {.status = TM_OK, .json = json, .size = sizeof(json) - 1};
  tm_reply bad = {.status = h->fail.status, .error = &h->fail};
  fn(ud, h->fail.status == TM_OK ? &good : &bad);
}

__attribute__((format(printf, 4, 5))) static void asked(tm_host *h, tm_reply_fn fn, void *ud,
                                                        const char *fmt, ...) {
  va_list ap;
  (void)pthread_mutex_lock(&h->lock);
  va_start(ap, fmt);
  (void)vsnprintf(h->asked, sizeof(h->asked), fmt, ap);
  va_end(ap);
  bool later = h->later;
  if (later) {
    assert_true(h->kept < KEPT_MOST);
    h->backs[h->kept].fn = fn;
    h->backs[h->kept++].ud = ud;
    (void)pthread_cond_signal(&h->changed);
  }
  (void)pthread_mutex_unlock(&h->lock);
  if (!later) answer(h, fn, ud);
}

static const char *or_dash(const char *text) {
  return text != NULL ? text : "-";
}

void tm_conversation_begin(tm_host *h, const tm_begin *b, tm_reply_fn fn, void *ud) {
  assert_int_equal(b->size, sizeof(*b));
  asked(h, fn, ud, "begin %s %s %s %s %s %s %s %s", or_dash(b->tenant), or_dash(b->system),
        or_dash(b->flow_id), or_dash(b->session_id), or_dash(b->user_id), or_dash(b->message),
        or_dash(b->metadata_json), or_dash(b->idempotency_key));
}

void tm_message_send(tm_host *h, const char *tenant, const char *id, const char *input,
                     const char *key, tm_reply_fn fn, void *ud) {
  asked(h, fn, ud, "message %s %s %s %s", tenant, id, input, or_dash(key));
}

void tm_conversation_read(tm_host *h, const char *tenant, const char *id, tm_read what,
                          const char *cursor, int limit, tm_reply_fn fn, void *ud) {
  asked(h, fn, ud, "read %s %s %d %s %d", tenant, id, (int)what, or_dash(cursor), limit);
}

void tm_conversation_list(tm_host *h, const tm_filter *f, tm_reply_fn fn, void *ud) {
  assert_int_equal(f->size, sizeof(*f));
  asked(h, fn, ud, "list %s %s %s %s %s %s %d", or_dash(f->tenant), or_dash(f->session_id),
        or_dash(f->system), or_dash(f->flow_id), or_dash(f->status), or_dash(f->cursor), f->limit);
}

void tm_conversation_rollback(tm_host *h, const char *tenant, const char *id, int steps,
                              const char *checkpoint, int force, const char *key, tm_reply_fn fn,
                              void *ud) {
  asked(h, fn, ud, "rollback %s %s %d %s %d %s", tenant, id, steps, or_dash(checkpoint), force,
        or_dash(key));
}

void tm_conversation_command(tm_host *h, const tm_command *c, tm_reply_fn fn, void *ud) {
  assert_int_equal(c->size, sizeof(*c));
  asked(h, fn, ud, "command %s %s %s %s %s %s", c->tenant, c->conversation_id, c->command,
        or_dash(c->name), or_dash(c->input_json), or_dash(c->idempotency_key));
}

void tm_conversation_approve(tm_host *h, const tm_approval *a, tm_reply_fn fn, void *ud) {
  assert_int_equal(a->size, sizeof(*a));
  asked(h, fn, ud, "approval %s %s %d %lld %s %s %s %s", a->tenant, a->conversation_id, a->approved,
        (long long)a->revision, or_dash(a->comment), or_dash(a->role), or_dash(a->user_id),
        or_dash(a->idempotency_key));
}

void tm_conversation_event(tm_host *h, const tm_event *e, tm_reply_fn fn, void *ud) {
  assert_int_equal(e->size, sizeof(*e));
  asked(h, fn, ud, "event %s %s %s %s %s", e->tenant, e->conversation_id, e->name,
        or_dash(e->data_json), or_dash(e->idempotency_key));
}

void tm_conversation_fork(tm_host *h, const char *tenant, const char *id, const char *checkpoint,
                          const char *key, tm_reply_fn fn, void *ud) {
  asked(h, fn, ud, "fork %s %s %s %s", tenant, id, or_dash(checkpoint), or_dash(key));
}

void tm_conversation_checkpoint(tm_host *h, const char *tenant, const char *id, const char *name,
                                const char *key, tm_reply_fn fn, void *ud) {
  asked(h, fn, ud, "checkpoint %s %s %s %s", tenant, id, name, or_dash(key));
}

void tm_conversation_pause(tm_host *h, const char *tenant, const char *id, tm_reply_fn fn,
                           void *ud) {
  asked(h, fn, ud, "pause %s %s", tenant, id);
}

void tm_conversation_resume(tm_host *h, const char *tenant, const char *id, tm_reply_fn fn,
                            void *ud) {
  asked(h, fn, ud, "resume %s %s", tenant, id);
}

void tm_conversation_cancel(tm_host *h, const char *tenant, const char *id, tm_reply_fn fn,
                            void *ud) {
  asked(h, fn, ud, "cancel %s %s", tenant, id);
}

void tm_conversation_migrate(tm_host *h, const char *tenant, const char *id, int dry_run,
                             tm_reply_fn fn, void *ud) {
  asked(h, fn, ud, "migrate %s %s %d", tenant, id, dry_run);
}

void tm_session_list(tm_host *h, const char *tenant, const char *status, const char *cursor,
                     int limit, tm_reply_fn fn, void *ud) {
  asked(h, fn, ud, "sessions %s %s %s %d", tenant, or_dash(status), or_dash(cursor), limit);
}

void tm_session_read(tm_host *h, const char *tenant, const char *id, tm_reply_fn fn, void *ud) {
  asked(h, fn, ud, "session %s %s", tenant, id);
}

void tm_session_end(tm_host *h, const char *tenant, const char *id, tm_reply_fn fn, void *ud) {
  asked(h, fn, ud, "end %s %s", tenant, id);
}

void tm_outbox_list(tm_host *h, const char *tenant, const char *status, const char *cursor,
                    int limit, tm_reply_fn fn, void *ud) {
  asked(h, fn, ud, "outbox %s %s %s %d", tenant, or_dash(status), or_dash(cursor), limit);
}

void tm_outbox_retry(tm_host *h, const char *tenant, const char *id, tm_reply_fn fn, void *ud) {
  asked(h, fn, ud, "again %s %s", tenant, id);
}

void tm_systems_read(tm_host *h, const char *tenant, const char *system, const char *flow,
                     tm_reply_fn fn, void *ud) {
  asked(h, fn, ud, "systems %s %s %s", tenant, or_dash(system), or_dash(flow));
}

void tm_host_reload(tm_host *h, tm_reply_fn fn, void *ud) {
  asked(h, fn, ud, "reload");
}

/* ---- the fixture ---- */

typedef struct fixture {
  tm_host host;
  tm_api *api;
  const char *not_ready; /* NULL: ready */
  int fd;                /* a kept connection */
} fixture;

static bool is_ready(void *ud, const char **why_not) {
  const fixture *f = ud;
  *why_not = f->not_ready;
  return f->not_ready == NULL;
}

static tm_api_options options(fixture *f) {
  return (tm_api_options){.host = &f->host,
                          .address = "127.0.0.1:0",
                          .body_limit = 32768,
                          .memory_limit = 64U << 20,
                          .connection_limit = 50,
                          .idle_timeout_s = 30,
                          .request_timeout_s = 30,
                          .ready = is_ready,
                          .ud = f};
}

static int set_up(void **state) {
  fixture *f = calloc(1, sizeof(*f));
  tm_api_options o = options(f);
  tm_error err;
  (void)pthread_mutex_init(&f->host.lock, NULL);
  (void)pthread_cond_init(&f->host.changed, NULL);
  if (tm__api_start(&f->api, &o, &err) != TM_OK) return -1;
  f->fd = raw_connect(tm__api_port(f->api));
  *state = f;
  return f->fd >= 0 ? 0 : -1;
}

static int tear_down(void **state) {
  fixture *f = *state;
  tm__api_stop(f->api);
  (void)close(f->fd);
  (void)pthread_mutex_destroy(&f->host.lock);
  (void)pthread_cond_destroy(&f->host.changed);
  free(f);
  return 0;
}

static void say(fixture *f, const char *line, const char *headers, const char *body) {
  tm_buf b = {0};
  tm__buf_printf(&b, "%s HTTP/1.1\r\n%s%s", line,
                 strcasestr(headers, "Host:") != NULL ? "" : "Host: localhost\r\n", headers);
  if (body != NULL) tm__buf_printf(&b, "Content-Length: %zu\r\n", strlen(body));
  tm__buf_printf(&b, "\r\n%s", body != NULL ? body : "");
  assert_true(raw_send(f->fd, b.ptr, b.len));
  tm__buf_free(&b);
}

/* Sends a request; the whole answer, which the caller frees. */
static char *ask(fixture *f, const char *line, const char *headers, const char *body) {
  f->host.asked[0] = '\0';
  say(f, line, headers, body);
  return raw_answer(f->fd, strncmp(line, "HEAD", 4) == 0);
}

/* The request must reach the host as `what`. */
static void reaches(fixture *f, const char *line, const char *headers, const char *body, int status,
                    const char *what) {
  char *got = ask(f, line, headers, body);
  if (raw_status(got) != status || strcmp(raw_body(got), "{\"fine\":true}") != 0)
    fail_msg("%s: %s", line, got);
  assert_non_null(strstr(got, "Content-Type: application/json\r\n"));
  assert_string_equal(f->host.asked, what);
  free(got);
}

/* The request must not reach the host; the problem's detail must hold `text`. */
static void refused(fixture *f, const char *line, const char *headers, const char *body, int status,
                    const char *code, const char *text) {
  char *got = ask(f, line, headers, body);
  json_t *p = json_loads(raw_body(got), 0, NULL);
  if (raw_status(got) != status || p == NULL ||
      strcmp(json_string_value(json_object_get(p, "code")), code) != 0 ||
      strstr(json_string_value(json_object_get(p, "detail")), text) == NULL)
    fail_msg("%s %s: wanted %d %s \"%s\", got: %s", line, body != NULL ? body : "", status, code,
             text, got);
  assert_int_equal(json_integer_value(json_object_get(p, "status")), status);
  assert_true(json_is_string(json_object_get(p, "title")));
  assert_non_null(strstr(json_string_value(json_object_get(p, "type")), code));
  assert_non_null(strstr(got, "Content-Type: application/problem+json\r\n"));
  assert_string_equal(f->host.asked, "");
  json_decref(p);
  free(got);
}

/* ---- routes ---- */

static void starts_conversations(void **state) {
  fixture *f = *state;
  reaches(f, "POST /v1/conversations", "", "{\"system\":\"s\",\"flow_id\":\"f\"}", 201,
          "begin default s f - - - - -");
  reaches(f, "POST /v1/conversations",
          "X-Tidemill-Tenant: a-1_B.c\r\nX-Tidemill-Role: agent\r\nIdempotency-Key: k/1\r\n"
          "Content-Type: application/json; charset=utf-8\r\n",
          "{\"system\":\"s\",\"flow_id\":\"f\",\"session_id\":\"x\",\"user_id\":\"u\","
          "\"message\":\"h\\u00e9 \\\"\",\"metadata\":{\"b\":[1,2.5],\"a\":{}}}",
          201, "begin a-1_B.c s f x u h\xc3\xa9 \" {\"a\":{},\"b\":[1,2.5]} k/1");
  reaches(f, "POST /v1/conversations", "Content-Type: APPLICATION/JSON\r\n",
          "{\"system\":\"s\",\"flow_id\":\"f\",\"session_id\":null,\"message\":\"\"}", 201,
          "begin default s f - -  - -");
}

static void takes_messages(void **state) {
  fixture *f = *state;
  static const char *const inputs[][2] = {{"\"yes\"", "\"yes\""},
                                          {"\"\"", "\"\""},
                                          {"{\"b\":1,\"a\":[]}", "{\"a\":[],\"b\":1}"},
                                          {"\"a\\u0000b\"", "\"a\\u0000b\""}};
  for (size_t i = 0; i < sizeof(inputs) / sizeof(inputs[0]); i++) {
    char body[100], want[200];
    (void)snprintf(body, sizeof(body), "{\"input\": %s}", inputs[i][0]);
    (void)snprintf(want, sizeof(want), "message default " ID " %s -", inputs[i][1]);
    reaches(f, "POST " BASE "/messages", "", body, 200, want);
  }
  reaches(f, "POST " BASE "/messages", "Idempotency-Key: abc\r\nX-Tidemill-Tenant: t\r\n",
          "{\"input\":\"x\"}", 200, "message t " ID " \"x\" abc");
}

static void reads(void **state) {
  fixture *f = *state;
  reaches(f, "GET " BASE, "", NULL, 200, "read default " ID " 0 - 0");
  reaches(f, "GET " BASE "/steps", "", NULL, 200, "read default " ID " 1 - 0");
  reaches(f, "GET " BASE "/messages?limit=200", "", NULL, 200, "read default " ID " 2 - 200");
  reaches(f, "GET " BASE "/checkpoints?cursor=a%2Bb&limit=1", "X-Tidemill-Tenant: t\r\n", NULL, 200,
          "read t " ID " 3 a+b 1");
  reaches(f, "GET /v1/conversations", "", NULL, 200, "list default - - - - - 0");
  reaches(f, "GET /v1/sessions", "", NULL, 200, "sessions default - - 0");
  reaches(f, "GET /v1/sessions?status=ended&limit=3&cursor=1f-61", "X-Tidemill-Tenant: t\r\n", NULL,
          200, "sessions t ended 1f-61 3");
  reaches(f, "GET /v1/sessions/a%20b", "", NULL, 200, "session default a b");
  reaches(f, "GET /v1/sessions/a%2Fb%2fc%252F%25", "", NULL, 200, "session default a/b/c%2F%");
  reaches(f, "GET /v1/outbox", "", NULL, 200, "outbox default - - 0");
  reaches(f, "GET /v1/outbox?status=dead&limit=3&cursor=a:1:0", "X-Tidemill-Tenant: t\r\n", NULL,
          200, "outbox t dead a:1:0 3");
  reaches(f, "POST /v1/outbox/a:1:0/retry", "X-Tidemill-Tenant: t\r\n", "{}", 200, "again t a:1:0");
  reaches(f, "DELETE /v1/sessions/s1", "X-Tidemill-Tenant: t\r\n", NULL, 200, "end t s1");
  reaches(f,
          "GET /v1/conversations?session_id=s%201&status=waiting_input&system=x&flow_id=y"
          "&limit=7&cursor=c",
          "", NULL, 200, "list default s 1 x y waiting_input c 7");
  reaches(f, "GET /v1/systems", "", NULL, 200, "systems default - -");
  reaches(f, "GET /v1/systems/shop/flows", "", NULL, 200, "systems default shop -");
  reaches(f, "GET /v1/systems/shop/flows/a%20b", "X-Tidemill-Tenant: t\r\n", NULL, 200,
          "systems t shop a b");
}

static void steers(void **state) {
  fixture *f = *state;
  reaches(f, "POST " BASE "/rollback", "", "{\"steps\":2}", 200, "rollback default " ID " 2 - 0 -");
  reaches(f, "POST " BASE "/rollback", "", "{\"checkpoint_id\":\"17\",\"force\":true}", 200,
          "rollback default " ID " 0 17 1 -");
  reaches(f, "POST " BASE "/rollback", "", "{\"checkpoint_id\":17,\"force\":false}", 200,
          "rollback default " ID " 0 17 0 -");
  reaches(f, "POST " BASE "/rollback", "Idempotency-Key: r1\r\n", "{\"steps\":2}", 200,
          "rollback default " ID " 2 - 0 r1");
  reaches(f, "POST " BASE "/migrate", "", NULL, 200, "migrate default " ID " 0");
  reaches(f, "POST " BASE "/migrate", "X-Tidemill-Tenant: t\r\n", "{\"dry_run\":true}", 200,
          "migrate t " ID " 1");
  reaches(f, "POST " BASE "/fork", "", NULL, 201, "fork default " ID " - -");
  reaches(f, "POST " BASE "/fork", "Idempotency-Key: k\r\nX-Tidemill-Tenant: t\r\n",
          "{\"checkpoint_id\":17}", 201, "fork t " ID " 17 k");
  reaches(f, "POST " BASE "/checkpoints", "Idempotency-Key: k\r\nX-Tidemill-Tenant: t\r\n",
          "{\"name\":\"here\"}", 201, "checkpoint t " ID " here k");
  refused(f, "POST " BASE "/checkpoints", "", "{}", 400, "request.member_missing", "\"name\"");
  reaches(f, "POST /v1/admin/reload", "", NULL, 200, "reload");
  reaches(f, "POST /v1/admin/reload", "", "{}", 200, "reload");
  reaches(f, "POST " BASE "/pause", "", NULL, 200, "pause default " ID);
  reaches(f, "POST " BASE "/resume", "X-Tidemill-Tenant: t\r\n", "{}", 200, "resume t " ID);
  reaches(f, "POST " BASE "/cancel", "", NULL, 200, "cancel default " ID);
}

static void takes_commands(void **state) {
  fixture *f = *state;
  reaches(f, "POST " BASE "/messages", "", "{\"command\":\"back\"}", 200,
          "command default " ID " back - - -");
  reaches(f, "POST " BASE "/messages", "Idempotency-Key: k\r\nX-Tidemill-Tenant: t\r\n",
          "{\"command\":\"correct\",\"name\":\"colour\",\"input\":\"red\"}", 200,
          "command t " ID " correct colour \"red\" k");
  reaches(f, "POST " BASE "/messages", "",
          "{\"command\":\"correct\",\"name\":\"colour\",\"input\":{\"b\":1,\"a\":2}}", 200,
          "command default " ID " correct colour {\"a\":2,\"b\":1} -");
}

static void takes_approvals(void **state) {
  fixture *f = *state;
  reaches(f, "POST " BASE "/approval", "", "{\"approved\":false}", 200,
          "approval default " ID " 0 0 - - - -");
  reaches(f, "POST " BASE "/approval",
          "X-Tidemill-Role: head.of-sales\r\nX-Tidemill-Tenant: t\r\nIdempotency-Key: k\r\n",
          "{\"approved\":true,\"comment\":\"fine\",\"user_id\":\"u 1\",\"revision\":7}", 200,
          "approval t " ID " 1 7 fine head.of-sales u 1 k");
  static const char *const bad[][3] = {
      {"{}", "request.member_missing", "\"approved\""},
      {"{\"approved\":\"yes\"}", "request.member_type", "true or false"},
      {"{\"approved\":true,\"comment\":\"\\u0000\"}", "request.member_value", "NUL"},
      {"{\"approved\":true,\"revision\":\"7\"}", "request.member_type", "an integer"},
      {"{\"approved\":true,\"revision\":0}", "request.member_value", "from 1"},
      {"{\"approved\":true,\"user_id\":\"\"}", "request.member_value", "1 to 128"},
      {"{\"approved\":true,\"role\":\"boss\"}", "request.member_unknown", "\"role\""}};
  for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
    refused(f, "POST " BASE "/approval", "", bad[i][0], 400, bad[i][1], bad[i][2]);
  refused(f, "POST " BASE "/approval", "X-Tidemill-Role: the boss\r\n", "{\"approved\":true}", 400,
          "request.role", "X-Tidemill-Role");
  refused(f, "POST " BASE "/approval", "Idempotency-Key: a b\r\n", "{\"approved\":true}", 400,
          "request.idempotency_key", "");
}

static void takes_events(void **state) {
  fixture *f = *state;
  static const char *const data[][2] = {{"", "-"},
                                        {",\"data\":null", "-"},
                                        {",\"data\":\"a\\u0000b\"", "\"a\\u0000b\""},
                                        {",\"data\":7", "7"},
                                        {",\"data\":[1,2]", "[1,2]"},
                                        {",\"data\":{\"b\":1}", "{\"b\":1}"},
                                        {",\"data\":false", "false"}};
  for (size_t i = 0; i < sizeof(data) / sizeof(data[0]); i++) {
    char body[100], want[200];
    (void)snprintf(body, sizeof(body), "{\"name\":\"paid\"%s}", data[i][0]);
    (void)snprintf(want, sizeof(want), "event default " ID " paid %s k", data[i][1]);
    reaches(f, "POST " BASE "/event", "Idempotency-Key: k\r\n", body, 200, want);
  }
  static const char *const bad[][2] = {{"{}", "request.member_missing"},
                                       {"{\"name\":\"\"}", "request.member_value"},
                                       {"{\"name\":7}", "request.member_type"},
                                       {"{\"name\":\"a\\u0000b\"}", "request.member_value"},
                                       {"{\"name\":\"a\",\"dat\":1}", "request.member_unknown"}};
  for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
    refused(f, "POST " BASE "/event", "", bad[i][0], 400, bad[i][1], "\"");
}

static void is_alive_and_ready(void **state) {
  fixture *f = *state;
  char *got = ask(f, "GET /livez", "", NULL);
  assert_int_equal(raw_status(got), 200);
  free(got);
  got = ask(f, "GET /readyz", "", NULL);
  assert_int_equal(raw_status(got), 200);
  free(got);
  f->not_ready = "the disk is full";
  refused(f, "GET /readyz", "", NULL, 503, "host.not_ready", "the disk is full");
  got = ask(f, "GET /livez", "", NULL);
  assert_int_equal(raw_status(got), 200);
  free(got);
}

static void answers_head_like_get(void **state) {
  fixture *f = *state;
  char *got = ask(f, "HEAD " BASE, "", NULL);
  assert_int_equal(raw_status(got), 200);
  assert_non_null(strstr(got, "Content-Length: 13\r\n"));
  assert_string_equal(raw_body(got), "");
  assert_string_equal(f->host.asked, "read default " ID " 0 - 0");
  free(got);
}

/* ---- routes that are not there ---- */

static void knows_what_is_not_there(void **state) {
  fixture *f = *state;
  static const char *const missing[] = {"GET /",
                                        "GET /v1",
                                        "GET /v2/x",
                                        "GET /v1/conversations/",
                                        "GET " BASE "/",
                                        "GET " BASE "/nothing",
                                        "GET /livez/",
                                        "GET /v1%2fsystems",
                                        "GET /v1/systems/shop/flows/a/b",
                                        "GET //v1/conversations",
                                        "POST " BASE "/messages/1",
                                        "GET /v1/systems//flows",
                                        "GET /v1/systems/%ff/flows"};
  for (size_t i = 0; i < sizeof(missing) / sizeof(missing[0]); i++)
    refused(f, missing[i], "", NULL, 404, "route.not_found", "nothing at /");
  static const char *const later[] = {
      "POST " BASE "/takeover", "POST " BASE "/handback",
      "GET " BASE "/events",    "GET /v1/systems/a/flows/b/graph?format=svg",
      "GET /metrics",           "GET /openapi.json"};
  for (size_t i = 0; i < sizeof(later) / sizeof(later[0]); i++)
    refused(f, later[i], "", NULL, 501, "route.unsupported", "not supported yet");
  refused(f, "POST " BASE "/messages", "Accept: text/event-stream\r\n", "{\"input\":\"x\"}", 501,
          "route.unsupported", "text/event-stream");
}

static void says_which_methods_a_path_has(void **state) {
  fixture *f = *state;
  char *got = ask(f, "DELETE /v1/conversations", "", NULL);
  assert_int_equal(raw_status(got), 405);
  assert_non_null(strstr(got, "Allow: POST, GET, HEAD\r\n"));
  free(got);
  got = ask(f, "PUT /v1/sessions/a", "", "{}");
  assert_non_null(strstr(got, "Allow: GET, HEAD, DELETE\r\n"));
  free(got);
  refused(f, "POST /livez", "", "{}", 405, "route.method", "GET, HEAD only");
  refused(f, "GET /v1/admin/reload", "", NULL, 405, "route.method", "POST only");
  refused(f, "OPTIONS " BASE "/messages", "", NULL, 405, "route.method", "POST");
}

/* ---- who asks ---- */

static void browsers_of_others_stay_out(void **state) {
  fixture *f = *state;
  char own[100];
  refused(f, "GET /livez", "Host: evil.example\r\n", NULL, 403, "request.host", "127.0.0.1");
  refused(f, "GET /livez", "Host: evil.example:8700\r\n", NULL, 403, "request.host", "loopback");
  refused(f, "GET /livez", "Host: 10.0.0.1\r\n", NULL, 403, "request.host", "");
  refused(f, "GET /livez", "Host: localhost.evil.example\r\n", NULL, 403, "request.host", "");
  refused(f, "GET /livez", "Host: [::2]:80\r\n", NULL, 403, "request.host", "");
  refused(f, "POST /v1/admin/reload", "Origin: http://evil.example\r\n", NULL, 403,
          "request.origin", "origin");
  refused(f, "GET /livez", "Host: localhost:1\r\nOrigin: http://localhost:2\r\n", NULL, 403,
          "request.origin", "");
  refused(f, "GET /livez", "Origin: null\r\n", NULL, 403, "request.origin", "");
  static const char *const fine[] = {"localhost",   "LocalHost:99", "127.0.0.1",
                                     "127.9.9.9:1", "[::1]",        "[::1]:8700"};
  for (size_t i = 0; i < sizeof(fine) / sizeof(fine[0]); i++) {
    (void)snprintf(own, sizeof(own), "Host: %s\r\nOrigin: http://%s\r\n", fine[i], fine[i]);
    char *got = ask(f, "GET /livez", own, NULL);
    if (raw_status(got) != 200) fail_msg("%s: %s", fine[i], got);
    free(got);
  }
}

static void checks_headers(void **state) {
  fixture *f = *state;
  char key[300] = "Idempotency-Key: ";
  static const char start[] = "{\"system\":\"s\",\"flow_id\":\"f\"}";
  refused(f, "GET /v1/systems", "X-Tidemill-Tenant: a b\r\n", NULL, 400, "request.tenant",
          "1 to 64");
  refused(f, "GET /v1/systems", "X-Tidemill-Tenant: ../x\r\n", NULL, 400, "request.tenant", "");
  refused(f, "GET /v1/systems", "X-Tidemill-Tenant:\r\n", NULL, 400, "request.tenant", "");
  refused(
      f, "GET /v1/systems",
      "X-Tidemill-Tenant: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n",
      NULL, 400, "request.tenant", "");
  refused(f, "GET /v1/systems", "X-Tidemill-Role: <admin>\r\n", NULL, 400, "request.role", "");
  refused(f, "POST /v1/conversations", "Idempotency-Key: a b\r\n", start, 400,
          "request.idempotency_key", "200");
  refused(f, "POST /v1/conversations", "Idempotency-Key:\r\n", start, 400,
          "request.idempotency_key", "");
  refused(f, "POST " BASE "/messages", "Idempotency-Key: \xc3\xa9\r\n", "{\"input\":\"x\"}", 400,
          "request.idempotency_key", "");
  memset(key + 17, 'k', 201);
  (void)snprintf(key + 218, 3, "\r\n");
  refused(f, "POST /v1/conversations", key, start, 400, "request.idempotency_key", "");
  refused(f, "POST /v1/conversations", "Content-Type: text/plain\r\n", start, 415,
          "request.content_type", "application/json");
  refused(f, "POST " BASE "/messages", "Content-Type: application/jsonp\r\n", "{\"input\":1}", 415,
          "request.content_type", "");
}

/* Whoever checked one of two may have checked the other. */
static void headers_that_say_who_asks_stand_there_once(void **state) {
  fixture *f = *state;
  static const char *const twice[] = {
      "X-Tidemill-Tenant: a\r\nx-tidemill-tenant: b\r\n",
      "X-Tidemill-Role: a\r\nX-Tidemill-Role: a\r\n",
      "Origin: http://localhost\r\nOrigin: http://evil.example\r\n",
      "Idempotency-Key: a\r\nIdempotency-Key: b\r\n",
      "Content-Type: application/json\r\nContent-Type: text/plain\r\n",
      "Content-Encoding: identity\r\nContent-Encoding: gzip\r\n"};
  for (size_t i = 0; i < sizeof(twice) / sizeof(twice[0]); i++)
    refused(f, "POST " BASE "/messages", twice[i], "{\"input\":\"x\"}", 400, "request.header",
            "twice");
  reaches(f, "GET " BASE, "Accept: a/b\r\nAccept: c/d\r\n", NULL, 200, "read default " ID " 0 - 0");
}

static void takes_no_compressed_bodies(void **state) {
  fixture *f = *state;
  refused(f, "POST " BASE "/messages", "Content-Encoding: gzip\r\n", "{\"input\":\"x\"}", 415,
          "request.content_encoding", "compressed");
  reaches(f, "POST " BASE "/messages", "Content-Encoding: identity\r\n", "{\"input\":\"x\"}", 200,
          "message default " ID " \"x\" -");
}

/* ---- bad bodies and queries ---- */

static void refuses_bad_bodies(void **state) {
  fixture *f = *state;
  static const struct {
    const char *body, *code, *text;
  } cases[] = {
      {"", "request.member_missing", "\"system\""},
      {"nonsense", "json.invalid", "line 1"},
      {"{\"system\":\"s\",", "json.invalid", ""},
      {"{\"system\":\"s\",\"system\":\"t\",\"flow_id\":\"f\"}", "json.invalid", ""},
      {"{\"system\":\"\xff\",\"flow_id\":\"f\"}", "json.invalid", ""},
      {"{} {}", "json.invalid", ""},
      {"[]", "request.body", "object"},
      {"\"text\"", "request.body", "object"},
      {"{\"flow_id\":\"f\"}", "request.member_missing", "\"system\""},
      {"{\"system\":null,\"flow_id\":\"f\"}", "request.member_missing", "\"system\""},
      {"{\"system\":\"s\",\"flow_id\":5}", "request.member_type", "\"flow_id\" must be a string"},
      {"{\"system\":\"s\",\"flow_id\":\"\"}", "request.member_value", "1 to 64"},
      {"{\"system\":\"s\",\"flow_id\":\"a\\u0000b\"}", "request.member_value", "NUL"},
      {"{\"system\":\"s\",\"flow_id\":\"f\",\"message\":\"\\u0000\"}", "request.member_value",
       "NUL"},
      {"{\"system\":\"s\",\"flow_id\":\"f\",\"message\":{}}", "request.member_type", "\"message\""},
      {"{\"system\":\"s\",\"flow_id\":\"f\",\"metadata\":[]}", "request.member_type", "an object"},
      {"{\"system\":\"s\",\"flow\":\"f\"}", "request.member_unknown",
       "known here: system, flow_id,"},
      {"{\"system\":\"sssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssss\","
       "\"flow_id\":\"f\"}",
       "request.member_value", "it has 65"},
      {"{\"system\":\"s\",\"flow_id\":\"f\",\"metadata\":{\"a\":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["
       "[["
       "]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]}}",
       "json.depth", "32"},
  };
  for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
    refused(f, "POST /v1/conversations", "", cases[i].body, 400, cases[i].code, cases[i].text);
}

static void refuses_many_values(void **state) {
  fixture *f = *state;
  tm_buf b = {0};
  tm__buf_text(&b, "{\"input\":{\"a\":[1");
  for (int i = 0; i < 9998; i++)
    tm__buf_text(&b, ",1");
  tm__buf_text(&b, "]}}");
  tm__buf_byte(&b, '\0');
  refused(f, "POST " BASE "/messages", "", b.ptr, 400, "json.too_many",
          "10001 values; at most 10000");
  tm__buf_free(&b);
}

static void refuses_bad_messages(void **state) {
  fixture *f = *state;
  static const struct {
    const char *body;
    int status;
    const char *code, *text;
  } cases[] = {
      {"{}", 400, "request.member_missing", "\"input\""},
      {"{\"input\":null}", 400, "request.member_missing", "\"input\""},
      {"{\"input\":[1]}", 400, "request.member_type", "\"input\" must be a string"},
      {"{\"input\":1.5}", 400, "request.member_type", "\"input\" must be a string"},
      {"{\"input\":true}", 400, "request.member_type", "\"input\" must be a string"},
      {"{\"inptu\":\"x\"}", 400, "request.member_unknown", "inptu"},
      {"{\"command\":7}", 400, "request.member_type", "\"command\""},
      {"{\"input\":\"x\",\"name\":\"n\"}", 400, "request.member_value", "\"correct\""},
  };
  for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
    refused(f, "POST " BASE "/messages", "", cases[i].body, cases[i].status, cases[i].code,
            cases[i].text);
  static const char *const rollbacks[][2] = {
      {"{}", "request.member_value"},
      {"{\"steps\":1,\"checkpoint_id\":\"1\"}", "request.member_value"},
      {"{\"steps\":0}", "request.member_value"},
      {"{\"steps\":10001}", "request.member_value"},
      {"{\"steps\":1.5}", "request.member_type"},
      {"{\"steps\":\"1\"}", "request.member_type"},
      {"{\"checkpoint_id\":\"\"}", "request.member_value"},
      {"{\"steps\":1,\"force\":1}", "request.member_type"}};
  for (size_t i = 0; i < sizeof(rollbacks) / sizeof(rollbacks[0]); i++)
    refused(f, "POST " BASE "/rollback", "", rollbacks[i][0], 400, rollbacks[i][1], "\"");
  refused(f, "POST /v1/admin/reload", "", "{\"all\":true}", 400, "request.member_unknown", "none");
  refused(f, "POST " BASE "/pause", "", "{\"why\":\"x\"}", 400, "request.member_unknown", "none");
}

static void refuses_bad_queries(void **state) {
  fixture *f = *state;
  static const char *const bad[] = {
      "limit=0",
      "limit=201",
      "limit=",
      "limit=1x",
      "limit=-1",
      "limit=99999999999",
      "status=x",
      "session_id=%ff",
      "statuss=active",
      "limit=1&limit=2",
      "cursor=a&limit=1&%63ursor=a",
      "system=sssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssss"};
  for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
    char line[200];
    (void)snprintf(line, sizeof(line), "GET /v1/conversations?%s", bad[i]);
    refused(f, line, "", NULL, 400, "request.query", "");
  }
  refused(f, "GET " BASE "/steps?status=active", "", NULL, 400, "request.query", "limit,cursor");
  refused(f, "GET " BASE "?limit=3", "", NULL, 400, "request.query", "none");
}

static void ids_that_are_none_do_not_exist(void **state) {
  fixture *f = *state;
  static const char *const lines[] = {"GET /v1/conversations/7", "GET /v1/conversations/" ID "0",
                                      "GET /v1/conversations/x/steps", "GET " BASE "%2Fsteps"};
  for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
    refused(f, lines[i], "", NULL, 404, "conversation.not_found", "there is no conversation");
  refused(f, "POST /v1/conversations/x/messages", "", "{\"input\":\"x\"}", 404,
          "conversation.not_found", "\"x\"");
  refused(f, "POST /v1/conversations/x/rollback", "", "{\"steps\":1}", 404,
          "conversation.not_found", "\"x\"");
  refused(f, "POST /v1/conversations/x/approval", "", "{\"approved\":true}", 404,
          "conversation.not_found", "\"x\"");
  refused(f, "POST /v1/conversations/x/event", "", "{\"name\":\"a\"}", 404,
          "conversation.not_found", "\"x\"");
  refused(f, "POST /v1/conversations/x/pause", "", NULL, 404, "conversation.not_found", "\"x\"");
}

static void bounds_bodies(void **state) {
  fixture *f = *state;
  char *body = malloc(40000);
  memset(body, ' ', 40000);
  body[39999] = '\0';
  refused(f, "POST " BASE "/messages", "", body, 413, "body.too_large", "32768 bytes");
  free(body);
}

/* ---- what the host answers ---- */

static void shapes_errors(void **state) {
  fixture *f = *state;
  f->host.fail = (tm_error){.status = TM_ELIMIT,
                            .code = "session.limit",
                            .message = "say \"no\"\n\xc3\xa9",
                            .conversation_id = ID,
                            .step_id = "ask",
                            .retry_after_ms = 1001};
  char *got = ask(f, "GET " BASE, "", NULL);
  assert_int_equal(raw_status(got), 429);
  assert_non_null(strstr(got, "Retry-After: 2\r\n"));
  assert_string_equal(raw_body(got),
                      "{\"type\":\"urn:tidemill:error:session.limit\",\"title\":\"Too Many "
                      "Requests\",\"status\":429,\"code\":\"session.limit\",\"detail\":\"say "
                      "\\\"no\\\"\\n\xc3\xa9\",\"conversation_id\":\"" ID
                      "\",\"step_id\":\"ask\",\"retry_after\":2}");
  free(got);
}

/* What the server refuses before it asks anybody has the shape of every error too. */
static void shapes_what_the_server_refuses(void **state) {
  fixture *f = *state;
  refused(f, "POST /v1/conversations", "Transfer-Encoding: gzip\r\n", NULL, 501,
          "request.transfer_encoding", "chunked");
  (void)close(f->fd);
  f->fd = raw_connect(tm__api_port(f->api));
  refused(f, "POST /v1/conversations", "Transfer-Encoding: chunked\r\n", "0\r\n\r\n", 400,
          "request.framing", "contradict");
  (void)close(f->fd);
  f->fd = raw_connect(tm__api_port(f->api));
  static const char head[] = "HTTP/1.1 100 Continue\r\n\r\n";
  char went_on[sizeof(head)];
  assert_true(raw_say(f->fd, "POST /v1/conversations HTTP/1.1\r\nHost: localhost\r\n"
                             "Expect: 100-continue\r\nContent-Length: 5\r\n\r\n"));
  assert_int_equal(recv(f->fd, went_on, sizeof(head) - 1, MSG_WAITALL), sizeof(head) - 1);
  assert_memory_equal(went_on, head, sizeof(head) - 1);
  atomic_store(&provoke.hours, 1);
  char *got = raw_answer(f->fd, false);
  atomic_store(&provoke.hours, 0);
  assert_int_equal(raw_status(got), 408);
  assert_non_null(strstr(got, "\"code\":\"request.timeout\""));
  free(got);
}

static void maps_every_status(void **state) {
  fixture *f = *state;
  static const struct {
    tm_status status;
    int http;
  } cases[] = {{TM_EINVAL, 400},       {TM_ENOTFOUND, 404},    {TM_ECONFLICT, 409},
               {TM_ETOOLARGE, 413},    {TM_EREUSED, 422},      {TM_ELIMIT, 429},
               {TM_EUNAVAILABLE, 503}, {TM_EUNSUPPORTED, 501}, {TM_ENOMEM, 503},
               {TM_EIO, 500},          {TM_ESCRIPT, 500},      {TM_ECORRUPT, 500},
               {TM_ECANCELLED, 503}};
  assert_int_equal(tm__api_http_status(&(tm_error){0}), 200);
  for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
    assert_int_equal(tm__api_http_status(&(tm_error){.status = cases[i].status}), cases[i].http);
    f->host.fail = (tm_error){.status = cases[i].status, .code = "c", .message = "m"};
    char *got = ask(f, "POST /v1/conversations", "", "{\"system\":\"s\",\"flow_id\":\"f\"}");
    assert_int_equal(raw_status(got), cases[i].http);
    assert_non_null(strstr(got, "application/problem+json"));
    free(got);
  }
}

/* ---- life ---- */

static void wait_for_kept(tm_host *h, size_t count) {
  (void)pthread_mutex_lock(&h->lock);
  while (h->kept < count)
    (void)pthread_cond_wait(&h->changed, &h->lock);
  (void)pthread_mutex_unlock(&h->lock);
}

static void *answer_kept(void *arg) {
  tm_host *h = arg;
  wait_for_kept(h, 1);
  for (size_t i = 0; i < h->kept; i++)
    answer(h, h->backs[i].fn, h->backs[i].ud);
  h->kept = 0;
  return NULL;
}

static void stopping_waits_for_answers(void **state) {
  fixture *f = *state;
  tm_api_options o = options(f);
  tm_api *api = NULL;
  pthread_t thread;
  assert_int_equal(tm__api_start(&api, &o, NULL), TM_OK);
  int fd = raw_connect(tm__api_port(api));
  f->host.later = true;
  assert_true(raw_say(fd, "GET " BASE " HTTP/1.1\r\nHost: localhost\r\n\r\n"));
  wait_for_kept(&f->host, 1);
  tm__api_quiesce(api);
  assert_int_equal(pthread_create(&thread, NULL, answer_kept, &f->host), 0);
  tm__api_stop(api);
  char *got = raw_answer(fd, false);
  assert_string_equal(raw_body(got), "{\"fine\":true}");
  assert_non_null(strstr(got, "Connection: close\r\n"));
  free(got);
  (void)pthread_join(thread, NULL);
  (void)close(fd);
  f->host.later = false;
  tm__api_stop(NULL);
}

static void ask_as(int fd, const char *tenant, const char *line, const char *body) {
  char request[300];
  (void)snprintf(request, sizeof(request),
                 "%s HTTP/1.1\r\nHost: localhost\r\nX-Tidemill-Tenant: %s\r\n"
                 "Content-Length: %zu\r\n\r\n%s",
                 line, tenant, strlen(body), body);
  assert_true(raw_say(fd, request));
}

static void say_as(int fd, const char *tenant) {
  ask_as(fd, tenant, "POST " BASE "/messages", "{\"input\":\"x\"}");
}

static void expect_busy(int fd, const char *tenant, const char *text) {
  say_as(fd, tenant);
  char *got = raw_answer(fd, false);
  if (raw_status(got) != 503 || strstr(got, "server.busy") == NULL || strstr(got, text) == NULL ||
      strstr(got, "Retry-After: 1\r\n") == NULL)
    fail_msg("%s: %s", tenant, got);
  free(got);
}

static void expect_good(int fd, const char *tenant, const char *line, const char *body) {
  ask_as(fd, tenant, line, body);
  char *got = raw_answer(fd, false);
  if (raw_status(got) != 200) fail_msg("%s: %s", line, got);
  free(got);
}

/* Whoever has many requests that wait leaves places to other tenants, and all together to those
 * who ask whether the host lives. */
static void who_waits_leaves_places(void **state) {
  fixture *f = *state;
  tm_api_options o = options(f);
  tm_api *api = NULL;
  int fds[7];
  o.connection_limit = 8;
  assert_int_equal(tm__api_start(&api, &o, NULL), TM_OK);
  int other = raw_connect(tm__api_port(api));
  f->host.later = true;
  for (size_t i = 0; i < 7; i++) {
    fds[i] = raw_connect(tm__api_port(api));
    say_as(fds[i], i < 4 ? "greedy" : "other");
    wait_for_kept(&f->host, i + 1);
    if (i == 3) {
      expect_busy(other, "greedy", "4 requests of this tenant");
      f->host.later = false; /* what waits can be looked at, and ended */
      expect_good(other, "greedy", "GET " BASE, "");
      expect_good(other, "greedy", "POST " BASE "/cancel", "{}");
      f->host.later = true;
    }
  }
  expect_busy(other, "third", "7 requests of all tenants");
  expect_good(other, "third", "GET /livez", "");
  f->host.later = false;
  (void)answer_kept(&f->host);
  for (size_t i = 0; i < 7; i++) {
    char *got = raw_answer(fds[i], false);
    assert_int_equal(raw_status(got), 200);
    free(got);
    (void)close(fds[i]);
  }
  expect_good(other, "greedy", "POST " BASE "/messages", "{\"input\":\"x\"}");
  (void)close(other);
  tm__api_stop(api);
}

static void keep_line(void *ud, const char *line, size_t size) {
  tm__buf_add(ud, line, size);
  tm__buf_byte(ud, '\n');
}

static void warns_when_everybody_may_come(void **state) {
  fixture *f = *state;
  static const char *const addresses[] = {"127.0.0.1:0", "localhost:0", "0.0.0.0:0"};
  tm_buf lines = {0};
  tm_log log = {.sink = keep_line, .ud = &lines, .level = TM_LOG_WARNING};
  for (size_t i = 0; i < 3; i++) {
    tm_api_options o = options(f);
    tm_api *api = NULL;
    tm_error err;
    o.log = &log;
    o.address = addresses[i];
    assert_int_equal(tm__api_start(&api, &o, &err), TM_OK);
    bool warned = lines.len > 0 && strstr(lines.ptr, "no authentication") != NULL;
    if (warned != (i == 2)) fail_msg("%s: %s", addresses[i], lines.len > 0 ? lines.ptr : "");
    tm__api_stop(api);
  }
  if (lines.ptr == NULL || strstr(lines.ptr, "listen=0.0.0.0:0") == NULL) fail_msg("no warning");
  tm__buf_free(&lines);
}

static void listens_where_it_can(void **state) {
  fixture *f = *state;
  static const char *const wrong[] = {
      "",           "127.0.0.1",       ":80",          "[::1]",          "[::1:80",  "host:80x",
      "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1", "example.org:80", "[::1]x:80"};
  tm_api_options o = options(f);
  tm_api *api = NULL;
  tm_error err;
  char taken[40];
  for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
    o.address = wrong[i];
    assert_int_equal(tm__api_start(&api, &o, &err), TM_EINVAL);
    assert_string_equal(err.code, "server.address");
    assert_null(api);
  }
  (void)snprintf(taken, sizeof(taken), "localhost:%u", tm__api_port(f->api));
  o.address = taken;
  assert_int_equal(tm__api_start(&api, &o, &err), TM_EIO);
  assert_string_equal(err.code, "server.address_in_use");
  o.address = "0.0.0.0:0"; /* not loopback: any Host will do, an Origin must still be ours */
  assert_int_equal(tm__api_start(&api, &o, &err), TM_OK);
  fixture open = {.api = api, .fd = raw_connect(tm__api_port(api))};
  char *got = ask(&open, "GET /livez", "Host: mill.example\r\n", NULL);
  assert_int_equal(raw_status(got), 200);
  free(got);
  refused(&open, "GET /livez", "Host: mill.example\r\nOrigin: http://evil.example\r\n", NULL, 403,
          "request.origin", "");
  tm__api_stop(api);
  (void)close(open.fd);
}

#define WITH_API(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void) {
  const struct CMUnitTest tests[] = {
      WITH_API(starts_conversations),
      WITH_API(takes_messages),
      WITH_API(reads),
      WITH_API(steers),
      WITH_API(takes_commands),
      WITH_API(takes_approvals),
      WITH_API(takes_events),
      WITH_API(is_alive_and_ready),
      WITH_API(answers_head_like_get),
      WITH_API(knows_what_is_not_there),
      WITH_API(says_which_methods_a_path_has),
      WITH_API(browsers_of_others_stay_out),
      WITH_API(checks_headers),
      WITH_API(headers_that_say_who_asks_stand_there_once),
      WITH_API(takes_no_compressed_bodies),
      WITH_API(refuses_bad_bodies),
      WITH_API(refuses_many_values),
      WITH_API(refuses_bad_messages),
      WITH_API(refuses_bad_queries),
      WITH_API(ids_that_are_none_do_not_exist),
      WITH_API(bounds_bodies),
      WITH_API(shapes_errors),
      WITH_API(shapes_what_the_server_refuses),
      WITH_API(maps_every_status),
      WITH_API(stopping_waits_for_answers),
      WITH_API(who_waits_leaves_places),
      WITH_API(warns_when_everybody_may_come),
      WITH_API(listens_where_it_can),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
