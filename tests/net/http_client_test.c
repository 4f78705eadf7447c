/* http_client_test.c - the HTTP client on a worker, against our own server and worse ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/http_client.h"
#include "net/http_server.h"
#include "net/listen.h"
#include "tests/provoke.h"

#define PENDING 300
#define AT_ONCE 250

/* ---- the other side ---- */

typedef struct peer {
  tm_http_server *server;
  char base[64];
  uv_mutex_t lock;
  tm_http_exchange *silent[PENDING]; /* answered only when the peer goes away */
  size_t count;
  bool leaving;
} peer;

static void echo(tm_http_exchange *x) {
  tm_buf b = {0};
  static const char *const shown[] = {"User-Agent", "Content-Type", "X-Test",
                                      "X-Empty",    "Expect",       "Content-Length"};
  tm__buf_slice(&b, tm__http_method(x));
  for (size_t i = 0; i < sizeof(shown) / sizeof(shown[0]); i++) {
    tm_slice v = tm__http_header(x, shown[i]);
    tm__buf_printf(&b, " %s=%s", shown[i], v.ptr != NULL ? v.ptr : "-");
  }
  tm__buf_printf(&b, " body=%.*s", (int)tm__http_body(x).len,
                 tm__http_body(x).len > 0 ? tm__http_body(x).ptr : "");
  tm__http_reply(x, 201, "text/plain", tm__buf_view(&b), "X-Answer: yes\n");
  tm__buf_free(&b);
}

/* /hops/N goes to /hops/N-1 by redirects; /hops/0 is the end. */
static void hop(tm_http_exchange *x, const char *path) {
  char to[64];
  int left = atoi(path + 6);
  (void)snprintf(to, sizeof(to), "Location: /hops/%d\n", left - 1);
  if (left == 0)
    tm__http_reply(x, 200, "text/plain", TM_S("arrived"), "X-Hop: last\n");
  else
    tm__http_reply(x, 302, "text/plain", TM_S("go on"), to);
}

/* /headers/N has N headers of its own, beside the server's. */
static void many_headers(tm_http_exchange *x, const char *path) {
  tm_buf extra = {0};
  for (int i = atoi(path + 9); i > 0; i--)
    tm__buf_text(&extra, "a: b\n");
  tm__buf_byte(&extra, '\0');
  tm__http_reply(x, 200, "text/plain", TM_S("done"), extra.ptr);
  tm__buf_free(&extra);
}

static void stay_silent(peer *p, tm_http_exchange *x) {
  uv_mutex_lock(&p->lock);
  bool leaving = p->leaving;
  assert_true(p->count < PENDING);
  if (!leaving) p->silent[p->count++] = x;
  uv_mutex_unlock(&p->lock);
  if (leaving) tm__http_reply(x, 200, "text/plain", TM_S(""), NULL);
}

static void leave(peer *p) {
  uv_mutex_lock(&p->lock);
  p->leaving = true;
  uv_mutex_unlock(&p->lock);
  for (size_t i = 0; i < p->count; i++)
    tm__http_reply(p->silent[i], 200, "text/plain", TM_S(""), NULL);
  tm__http_server_stop(p->server);
}

static void on_request(void *ud, tm_http_exchange *x) {
  peer *p = ud;
  const char *path = tm__http_path(x).ptr;
  if (strcmp(path, "/silent") == 0) {
    stay_silent(p, x);
  } else if (strncmp(path, "/hops/", 6) == 0) {
    hop(x, path);
  } else if (strncmp(path, "/headers/", 9) == 0) {
    many_headers(x, path);
  } else if (strcmp(path, "/elsewhere") == 0) {
    tm__http_reply(x, 302, "text/plain", TM_S(""), "Location: file:///etc/hostname\n");
  } else if (strcmp(path, "/astray") == 0) { /* the same server by another name */
    char to[80];
    (void)snprintf(to, sizeof(to), "Location: http://localhost:%u/a\n",
                   tm__http_server_port(p->server));
    tm__http_reply(x, 302, "text/plain", TM_S(""), to);
  } else if (strcmp(path, "/loop") == 0) {
    tm__http_reply(x, 302, "text/plain", TM_S(""), "Location: /loop\n");
  } else if (strcmp(path, "/large") == 0) {
    char *big = calloc(1, 1U << 20);
    tm__http_reply(x, 200, "text/plain", (tm_slice){big, 1U << 20}, NULL);
    free(big);
  } else {
    echo(x);
  }
}

static void on_refuse(void *ud, tm_http_exchange *x, int status, const char *code,
                      const char *detail) {
  (void)ud;
  (void)code;
  tm__http_reply(x, status, "text/plain", tm__slice(detail), NULL);
}

/* ---- this side: calls are made on the worker, results are awaited here ---- */

typedef struct side {
  peer peer;
  tm_worker *worker;
  tm_http_client *client;
  uv_mutex_t lock;
  uv_cond_t changed;
  size_t open; /* messages and calls that have not come back */
  bool closed; /* by a callback */
  size_t back_after_close;
} side;

typedef struct call {
  tm_message message;
  side *s;
  tm_http_call what;
  tm_status started;
  uint64_t id;
  int times; /* how often the callback came */
  int status;
  char code[48], text[700];
  size_t asked; /* room for so many bytes */
  tm_buf body, headers;
  void (*then)(struct call *c); /* within the callback */
  struct call *other;
} call;

static void come_back(side *s) {
  uv_mutex_lock(&s->lock);
  s->open--;
  if (s->closed) s->back_after_close++;
  uv_cond_signal(&s->changed);
  uv_mutex_unlock(&s->lock);
}

static void await_all(side *s) {
  uv_mutex_lock(&s->lock);
  while (s->open > 0)
    assert_int_equal(uv_cond_timedwait(&s->changed, &s->lock, UINT64_C(20000000000)), 0);
  uv_mutex_unlock(&s->lock);
}

static void on_done(void *ud, const tm_http_result *r) {
  call *c = ud;
  c->times++;
  c->status = r->status;
  if (r->error != NULL) {
    (void)snprintf(c->code, sizeof(c->code), "%s", r->error->code);
    (void)snprintf(c->text, sizeof(c->text), "%s", r->error->message);
  }
  tm__buf_slice(&c->body, r->body);
  tm__buf_slice(&c->headers, r->headers);
  if (c->then != NULL) c->then(c);
  come_back(c->s);
}

static void start_call(call *c) {
  tm_error err = {0};
  c->started = tm__http_start(c->s->client, &c->what, on_done, c, &c->id, &err);
  if (c->started == TM_OK) return;
  (void)snprintf(c->code, sizeof(c->code), "%s", err.code);
  (void)snprintf(c->text, sizeof(c->text), "%s", err.message);
  come_back(c->s);
}

static void run_start(tm_message *m) {
  start_call((call *)m);
}

static void post(side *s, call *c, void (*run)(tm_message *m)) {
  uv_mutex_lock(&s->lock);
  s->open++;
  uv_mutex_unlock(&s->lock);
  c->s = s;
  c->message.run = run;
  tm__worker_post(s->worker, &c->message);
}

static call make(const char *method, const char *url) {
  return (call){.what = {.method = method, .url = url, .timeout_ms = 10000, .max_response = 65536}};
}

/* One call from start to end. */
static void perform(side *s, call *c) {
  post(s, c, run_start);
  await_all(s);
}

static void clear(call *c) {
  tm__buf_free(&c->body);
  tm__buf_free(&c->headers);
}

static const char *url_of(const side *s, const char *path) {
  static _Thread_local char url[4][200];
  static _Thread_local unsigned turn;
  char *out = url[turn++ % 4];
  (void)snprintf(out, 200, "%s%s", s->peer.base, path);
  return out;
}

static void run_open(tm_message *m) {
  call *c = (call *)m;
  c->started = tm__http_client_new(&c->s->client, c->s->worker, AT_ONCE, NULL);
  come_back(c->s);
}

static void run_close(tm_message *m) {
  call *c = (call *)m;
  tm__http_client_close(c->s->client);
  come_back(c->s);
}

static int set_up(void **state) {
  side *s = calloc(1, sizeof(*s));
  call c = {0};
  peer *p = &s->peer;
  tm_http_options o = {.host = "127.0.0.1",
                       .body_limit = 4U << 20,
                       .memory_limit = 64U << 20,
                       .connection_limit = 400,
                       .idle_timeout_s = 30,
                       .request_timeout_s = 30,
                       .handler = on_request,
                       .refuse = on_refuse,
                       .ud = p};
  (void)uv_mutex_init(&p->lock);
  (void)uv_mutex_init(&s->lock);
  (void)uv_cond_init(&s->changed);
  if (tm__http_server_start(&p->server, &o, NULL) != TM_OK) return -1;
  (void)snprintf(p->base, sizeof(p->base), "http://127.0.0.1:%u", tm__http_server_port(p->server));
  if (tm__worker_start(&s->worker, "client", NULL) != TM_OK) return -1;
  post(s, &c, run_open);
  await_all(s);
  *state = s;
  return c.started == TM_OK ? 0 : -1;
}

static int tear_down(void **state) {
  side *s = *state;
  call c = {0};
  post(s, &c, run_close);
  await_all(s);
  assert_int_equal(tm__worker_stop(s->worker), 0);
  leave(&s->peer);
  uv_mutex_destroy(&s->peer.lock);
  uv_mutex_destroy(&s->lock);
  uv_cond_destroy(&s->changed);
  free(s);
  return 0;
}

/* ---- answers ---- */

static void needs_a_complete_library(void **state) {
  side *s = *state;
  tm_http_client *client = NULL;
  tm_error err;
  atomic_store(&provoke.plain_curl, true);
  assert_int_equal(tm__http_client_new(&client, s->worker, 1, &err), TM_EUNSUPPORTED);
  atomic_store(&provoke.plain_curl, false);
  assert_null(client);
  assert_string_equal(err.code, "http.library");
}

static void sends_what_it_is_told(void **state) {
  side *s = *state;
  static const char *const headers[] = {"X-Test: t", "X-Empty:", "Content-Type: text/x", NULL};
  call c = make("POST", url_of(s, "/a"));
  c.what.headers = headers;
  c.what.body = TM_S("some body");
  perform(s, &c);
  assert_string_equal(c.code, "");
  assert_int_equal(c.status, 201);
  assert_string_equal(c.body.ptr, "POST User-Agent=tidemill/" TM_VERSION
                                  " Content-Type=text/x X-Test=t X-Empty= Expect=- "
                                  "Content-Length=9 body=some body");
  assert_non_null(strstr(c.headers.ptr, "X-Answer: yes\r\n"));
  assert_null(strstr(c.headers.ptr, "HTTP/1.1"));
  assert_memory_equal(c.headers.ptr + c.headers.len - 2, "\r\n", 2);
  assert_int_equal(c.times, 1);
  clear(&c);
}

static void knows_the_methods(void **state) {
  side *s = *state;
  static const struct {
    const char *method, *body, *answer;
  } cases[] = {
      {"GET", NULL,
       "GET User-Agent=tidemill/" TM_VERSION " Content-Type=- X-Test=- X-Empty=- "
       "Expect=- Content-Length=- body="},
      {"DELETE", NULL, "DELETE User"},
      {"PUT", "in", "Content-Length=2 body=in"},
      {"PATCH", "p", "PATCH User"},
      {"POST", NULL, "Content-Length=0 body="},
      {"GET", "b", "Content-Length=1 body=b"},
      {"HEAD", NULL, ""},
  };
  for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
    call c = make(cases[i].method, url_of(s, "/a"));
    c.what.body = tm__slice(cases[i].body);
    perform(s, &c);
    assert_string_equal(c.code, "");
    assert_int_equal(c.status, 201);
    tm__buf_byte(&c.body, '.');
    if (strstr(c.body.ptr, cases[i].answer) == NULL)
      fail_msg("%s: %s", cases[i].method, c.body.ptr);
    if (strcmp(cases[i].method, "HEAD") == 0) assert_string_equal(c.body.ptr, ".");
    clear(&c);
  }
}

static void sends_large_bodies(void **state) {
  side *s = *state;
  char *big = malloc(3U << 20);
  memset(big, 'x', 3U << 20);
  call c = make("PUT", url_of(s, "/a"));
  c.what.body = (tm_slice){big, 3U << 20};
  c.what.max_response = 4U << 20;
  post(s, &c, run_start);
  await_all(s);
  free(big);
  assert_string_equal(c.code, "");
  assert_non_null(strstr(c.body.ptr, "Expect=- Content-Length=3145728 body=xxxx"));
  clear(&c);
}

static void follows_some_redirects(void **state) {
  side *s = *state;
  call five = make("GET", url_of(s, "/hops/5"));
  perform(s, &five);
  assert_int_equal(five.status, 200);
  assert_string_equal(five.body.ptr, "arrived");
  assert_non_null(strstr(five.headers.ptr, "X-Hop: last"));
  assert_null(strstr(five.headers.ptr, "Location"));
  clear(&five);
  call six = make("GET", url_of(s, "/hops/6"));
  perform(s, &six);
  assert_string_equal(six.code, "http.failed");
  clear(&six);
  call loop = make("HEAD", url_of(s, "/loop"));
  perform(s, &loop);
  assert_string_equal(loop.code, "http.failed");
  clear(&loop);
  call post_call = make("POST", url_of(s, "/hops/1"));
  perform(s, &post_call);
  assert_int_equal(post_call.status, 302);
  assert_string_equal(post_call.body.ptr, "go on");
  clear(&post_call);
  call astray = make("GET", url_of(s, "/astray"));
  perform(s, &astray);
  assert_string_equal(astray.code, "http.redirect");
  assert_non_null(strstr(astray.text, "another host"));
  clear(&astray);
  call file = make("GET", url_of(s, "/elsewhere"));
  perform(s, &file);
  assert_string_equal(file.code, "http.invalid");
  clear(&file);
}

/* ---- what goes wrong ---- */

static void gives_up_in_time(void **state) {
  side *s = *state;
  call c = make("GET", url_of(s, "/silent"));
  c.what.timeout_ms = 100;
  perform(s, &c);
  assert_string_equal(c.code, "http.timeout");
  assert_memory_equal(c.text, "GET 127.0.0.1: ", 15);
  clear(&c);
}

static void keeps_answers_within_limits(void **state) {
  side *s = *state;
  call large = make("GET", url_of(s, "/large"));
  perform(s, &large);
  assert_string_equal(large.code, "http.too_large");
  assert_non_null(strstr(large.text, "65536 bytes"));
  assert_int_equal(large.body.len, 0);
  clear(&large);
  call fits = make("GET", url_of(s, "/large"));
  fits.what.max_response = 1U << 20;
  perform(s, &fits);
  assert_string_equal(fits.code, "");
  assert_int_equal(fits.body.len, 1U << 20);
  clear(&fits);
  call nothing = make("GET", url_of(s, "/hops/0"));
  nothing.what.max_response = 0;
  perform(s, &nothing);
  assert_string_equal(nothing.code, "http.too_large");
  clear(&nothing);
}

static bool has_room_for_half(void *ud, size_t bytes) {
  call *c = ud;
  c->asked += bytes;
  return c->asked <= 1U << 19;
}

static void asks_whether_there_is_room(void **state) {
  side *s = *state;
  call large = make("GET", url_of(s, "/large"));
  large.what.max_response = 1U << 20;
  large.what.room = has_room_for_half;
  perform(s, &large);
  assert_string_equal(large.code, "http.failed");
  assert_in_range(large.asked, 1U << 19, (1U << 19) + (64U << 10));
  clear(&large);
}

/* Only the status counts, so that no answer is too long to be understood. */
static void lets_a_body_go_that_nobody_reads(void **state) {
  side *s = *state;
  call large = make("GET", url_of(s, "/large"));
  large.what.max_response = 0;
  large.what.discard = true;
  perform(s, &large);
  assert_string_equal(large.code, "");
  assert_int_equal(large.status, 200);
  assert_int_equal(large.body.len, 0);
  clear(&large);
}

/* ---- a hostile server: one connection, answered by hand ---- */

typedef struct villain {
  int fd;
  uint16_t port;
  pthread_t thread;
  const char *first, *again; /* what is said, and then said over and over */
  size_t times;
  int pace_ms; /* between two of them */
  bool reset;  /* ends so */
} villain;

static void *be_hostile(void *arg) {
  const villain *v = arg;
  int fd = accept(v->fd, NULL, NULL);
  char bytes[2048];
  const struct linger reset = {1, 0};
  assert_true(recv(fd, bytes, sizeof(bytes), 0) > 0);
  bool open = send(fd, v->first, strlen(v->first), MSG_NOSIGNAL) > 0;
  for (size_t i = 0; open && i < v->times; i++) {
    open = send(fd, v->again, strlen(v->again), MSG_NOSIGNAL) > 0;
    if (v->pace_ms > 0) (void)poll(NULL, 0, v->pace_ms);
  }
  if (v->reset) (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
  (void)close(fd);
  return NULL;
}

/* One call to it. */
static call call_villain(side *s, villain *v, int64_t timeout_ms) {
  char url[64];
  assert_int_equal(tm__listen(&v->fd, &v->port, "127.0.0.1", 0, NULL), TM_OK);
  (void)fcntl(v->fd, F_SETFL, 0); /* accept may wait */
  assert_int_equal(pthread_create(&v->thread, NULL, be_hostile, v), 0);
  (void)snprintf(url, sizeof(url), "http://127.0.0.1:%u/", v->port);
  call c = make("GET", url);
  c.what.timeout_ms = timeout_ms;
  perform(s, &c);
  (void)pthread_join(v->thread, NULL);
  (void)close(v->fd);
  return c;
}

#define OK_HEAD "HTTP/1.1 200 OK\r\n"
#define ENDLESS 1000000

/* Each is given up: by size as soon as that is known, else by time. */
static void gives_hostile_servers_up(void **state) {
  side *s = *state;
  static const struct {
    const char *first, *again, *code;
    size_t times;
    int pace_ms;
    bool reset;
  } cases[] = {
      {OK_HEAD, "X-Many: 0123456789\r\n", "http.too_large", ENDLESS, 0, false},
      {OK_HEAD "X-Long: ", "0123456789abcdef", NULL, ENDLESS, 0, false},
      {"", "HTTP/1.1 100 Continue\r\n\r\n", NULL, ENDLESS, 0, false},
      {"HTTP/1.1 100 Continue\r\n", "X-Many: 0123456789\r\n", "http.too_large", ENDLESS, 0, false},
      {OK_HEAD "\r\n", "0123456789abcdef", "http.too_large", ENDLESS, 0, false},
      {OK_HEAD "Transfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n", "http.too_large", ENDLESS, 0,
       false},
      {OK_HEAD "Transfer-Encoding: chunked\r\n\r\n0\r\n", "X-Behind: 1\r\n", "http.too_large",
       ENDLESS, 0, false},
      {OK_HEAD "Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n", "x", "http.failed", 1, 0,
       false},
      {OK_HEAD "Content-Length: -5\r\n\r\n", "x", NULL, 1, 0, false},
      {OK_HEAD "Content-Length: 1000\r\n\r\n", "x", "http.failed", 10, 0, false},
      {OK_HEAD "Content-Length: 1000\r\n\r\n", "x", "http.failed", 10, 0, true},
      {OK_HEAD "Content-Length: 1000\r\n\r\n", "x", "http.timeout", 100, 20, false},
      {OK_HEAD "X-Slow: ", "x", "http.timeout", 100, 20, false},
      {"HTTP", "x", NULL, 1, 0, true},
      {"\x16\x03\x01", "rubbish", NULL, 10, 0, false},
      {OK_HEAD "Content-Encoding: gzip\r\n\r\n", "0123456789abcdef", "http.too_large", ENDLESS, 0,
       false},
  };
  for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
    villain v = {.first = cases[i].first,
                 .again = cases[i].again,
                 .times = cases[i].times,
                 .pace_ms = cases[i].pace_ms,
                 .reset = cases[i].reset};
    call c = call_villain(s, &v, 1000);
    if (c.code[0] == '\0' || (cases[i].code != NULL && strcmp(c.code, cases[i].code) != 0))
      fail_msg("case %zu: %d %s %s", i, c.status, c.code, c.text);
    assert_int_equal(c.body.len, 0);
    clear(&c);
  }
  call after = make("GET", url_of(s, "/a"));
  perform(s, &after);
  assert_int_equal(after.status, 201);
  clear(&after);
}

/* A length that is shorter than what comes: the rest belongs to nobody. */
static void takes_no_more_than_was_announced(void **state) {
  side *s = *state;
  villain v = {.first = OK_HEAD "Content-Length: 2\r\n\r\n", .again = "xx", .times = 100};
  call c = call_villain(s, &v, 5000);
  assert_string_equal(c.code, "");
  assert_string_equal(c.body.ptr, "xx");
  clear(&c);
}

/* What is not asked for is not unpacked. */
static void asks_for_nothing_compressed(void **state) {
  side *s = *state;
  villain v = {.first = OK_HEAD "Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08z",
               .again = ""};
  call c = call_villain(s, &v, 5000);
  assert_string_equal(c.code, "");
  assert_int_equal(c.body.len, 4);
  clear(&c);
}

static void says_what_failed(void **state) {
  side *s = *state;
  int fd;
  uint16_t port;
  char url[64];
  assert_int_equal(tm__listen(&fd, &port, "127.0.0.1", 0, NULL), TM_OK);
  (void)close(fd);
  (void)snprintf(url, sizeof(url), "http://127.0.0.1:%u/secret?token=1", port);
  call refused = make("GET", url);
  perform(s, &refused);
  assert_string_equal(refused.code, "http.connect");
  assert_null(strstr(refused.text, "token"));
  clear(&refused);
  call lost = make("GET", "http://no-such-host.invalid/");
  perform(s, &lost);
  assert_string_equal(lost.code, "http.resolve");
  clear(&lost);
  (void)snprintf(url, sizeof(url), "https%s", s->peer.base + 4);
  call plain = make("GET", url);
  perform(s, &plain);
  assert_string_equal(plain.code, "http.tls");
  clear(&plain);
}

static void refuses_what_cannot_be_sent(void **state) {
  side *s = *state;
  static const struct {
    const char *method, *url, *header, *why;
  } cases[] = {
      {"GET", "", NULL, "http://"},
      {"GET", NULL, NULL, "url"},
      {"GET", "ftp://127.0.0.1/", NULL, "http://"},
      {"GET", "file:///etc/passwd", NULL, "http://"},
      {"GET", "http://127.0.0.1:99999/", NULL, "url"},
      {"GET", "http://", NULL, "url"},
      {"GET", "http://127.0.0.1/a b", NULL, "blank"},
      {"GET", "http://127.0.0.1/\r\nX: y", NULL, "blank"},
      {"", "http://127.0.0.1/", NULL, "method"},
      {"get", "http://127.0.0.1/", NULL, "method"},
      {"GET /", "http://127.0.0.1/", NULL, "method"},
      {"CONNECT", "http://127.0.0.1/", NULL, "method"},
      {"GET", "http://127.0.0.1/", "X-A: b\r\nX-C: d", "line break"},
      {"GET", "http://127.0.0.1/", "X-A: b\n", "line break"},
      {"GET", "http://127.0.0.1/", "X A: b", "Name: value"},
      {"GET", "http://127.0.0.1/", "no colon", "Name: value"},
      {"GET", "http://127.0.0.1/", ": b", "Name: value"},
      {"GET", "http://127.0.0.1/", "content-length: 5", "itself"},
      {"GET", "http://127.0.0.1/", "Transfer-Encoding: chunked", "itself"},
  };
  for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
    const char *headers[] = {cases[i].header, NULL};
    call c = make(cases[i].method, cases[i].url);
    c.what.headers = headers;
    perform(s, &c);
    assert_int_equal(c.started, TM_EINVAL);
    assert_string_equal(c.code, "http.invalid");
    if (strstr(c.text, cases[i].why) == NULL) fail_msg("case %zu: %s", i, c.text);
    assert_int_equal(c.times, 0);
  }
  call late = make("GET", "http://127.0.0.1/");
  late.what.timeout_ms = 0;
  perform(s, &late);
  assert_string_equal(late.code, "http.invalid");
}

static void refuses_too_many_headers(void **state) {
  side *s = *state;
  const char *headers[102];
  for (size_t i = 0; i < 101; i++)
    headers[i] = "X-Many: yes";
  headers[101] = NULL;
  call c = make("GET", url_of(s, "/a"));
  c.what.headers = headers;
  perform(s, &c);
  assert_string_equal(c.code, "http.invalid");
}

static void takes_no_more_than_256_headers(void **state) {
  side *s = *state;
  call few = make("GET", url_of(s, "/headers/240"));
  perform(s, &few);
  assert_int_equal(few.status, 200);
  call many = make("GET", url_of(s, "/headers/257"));
  perform(s, &many);
  assert_string_equal(many.code, "http.too_large");
  clear(&few);
  clear(&many);
}

/* ---- cancelling ---- */

static void run_cancel(tm_message *m) {
  call *c = (call *)m;
  call *victim = c->other;
  assert_true(tm__http_cancel(c->s->client, victim->id));
  assert_false(tm__http_cancel(c->s->client, victim->id));
  assert_false(tm__http_cancel(c->s->client, 999999));
  come_back(c->s);
  come_back(c->s); /* the victim never will */
}

static void cancels(void **state) {
  side *s = *state;
  call victim = make("GET", url_of(s, "/silent")), killer = {.other = &victim};
  post(s, &victim, run_start);
  post(s, &killer, run_cancel);
  await_all(s);
  assert_int_equal(victim.times, 0);
  call dns = make("GET", "http://no-such-host.invalid/"), dns_killer = {.other = &dns};
  post(s, &dns, run_start);
  post(s, &dns_killer, run_cancel);
  await_all(s);
  assert_int_equal(dns.times, 0);
}

/* Within its own callback a call is unknown; another one can be cancelled and a new one started. */
static void kill_other(call *c) {
  assert_false(tm__http_cancel(c->s->client, c->id));
  if (c->other->times == 0 && tm__http_cancel(c->s->client, c->other->id)) come_back(c->s);
}

static void cancels_from_a_callback(void **state) {
  side *s = *state;
  for (int i = 0; i < 20; i++) { /* both may finish in the same round */
    call a = make("GET", url_of(s, "/hops/0")), b = make("GET", url_of(s, "/hops/0"));
    a.then = b.then = kill_other;
    a.other = &b;
    b.other = &a;
    post(s, &a, run_start);
    post(s, &b, run_start);
    await_all(s);
    assert_in_range(a.times + b.times, 1, 2);
    clear(&a);
    clear(&b);
  }
}

static void start_other(call *c) {
  uv_mutex_lock(&c->s->lock);
  c->s->open++;
  uv_mutex_unlock(&c->s->lock);
  c->other->s = c->s;
  start_call(c->other);
}

static void starts_from_a_callback(void **state) {
  side *s = *state;
  call first = make("GET", url_of(s, "/hops/0")), second = make("GET", url_of(s, "/a"));
  first.then = start_other;
  first.other = &second;
  perform(s, &first);
  assert_int_equal(second.status, 201);
  clear(&first);
  clear(&second);
}

static void close_client(call *c) {
  tm__http_client_close(c->s->client);
  c->s->client = NULL;
  uv_mutex_lock(&c->s->lock);
  c->s->closed = true;
  uv_mutex_unlock(&c->s->lock);
}

/* Others are still under way, one of them asks for a name. */
static void closes_from_a_callback(void **state) {
  side *s = *state;
  call silent = make("GET", url_of(s, "/silent")), dns = make("GET", "http://no-such.invalid/");
  call last = make("GET", url_of(s, "/hops/0"));
  last.then = close_client;
  post(s, &silent, run_start);
  post(s, &dns, run_start);
  post(s, &last, run_start);
  uv_mutex_lock(&s->lock);
  while (s->back_after_close == 0)
    assert_int_equal(uv_cond_timedwait(&s->changed, &s->lock, UINT64_C(20000000000)), 0);
  s->open = 0;
  uv_mutex_unlock(&s->lock);
  assert_int_equal(silent.times, 0);
  assert_int_equal(last.times, 1);
  clear(&last);
}

static void refuses_one_too_many(void **state) {
  side *s = *state;
  static call calls[AT_ONCE + 1];
  char url[200];
  (void)snprintf(url, sizeof(url), "%s", url_of(s, "/silent"));
  for (size_t i = 0; i <= AT_ONCE; i++) {
    calls[i] = make("GET", url);
    calls[i].what.timeout_ms = 300;
    post(s, &calls[i], run_start);
  }
  await_all(s);
  for (size_t i = 0; i <= AT_ONCE; i++) {
    assert_string_equal(calls[i].code, i < AT_ONCE ? "http.timeout" : "http.busy");
    clear(&calls[i]);
  }
  call after = make("GET", url_of(s, "/a"));
  perform(s, &after);
  assert_int_equal(after.status, 201);
  clear(&after);
}

static void many_at_once(void **state) {
  side *s = *state;
  static call calls[200];
  char url[200];
  (void)snprintf(url, sizeof(url), "%s", url_of(s, "/a"));
  for (size_t i = 0; i < 200; i++) {
    calls[i] = make("POST", url);
    calls[i].what.body = TM_S("x");
    post(s, &calls[i], run_start);
  }
  await_all(s);
  for (size_t i = 0; i < 200; i++) {
    assert_int_equal(calls[i].times, 1);
    assert_int_equal(calls[i].status, 201);
    clear(&calls[i]);
  }
}

#define WITH_BOTH_SIDES(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void) {
  const struct CMUnitTest tests[] = {
      WITH_BOTH_SIDES(needs_a_complete_library),
      WITH_BOTH_SIDES(sends_what_it_is_told),
      WITH_BOTH_SIDES(knows_the_methods),
      WITH_BOTH_SIDES(sends_large_bodies),
      WITH_BOTH_SIDES(follows_some_redirects),
      WITH_BOTH_SIDES(gives_up_in_time),
      WITH_BOTH_SIDES(keeps_answers_within_limits),
      WITH_BOTH_SIDES(asks_whether_there_is_room),
      WITH_BOTH_SIDES(lets_a_body_go_that_nobody_reads),
      WITH_BOTH_SIDES(gives_hostile_servers_up),
      WITH_BOTH_SIDES(takes_no_more_than_was_announced),
      WITH_BOTH_SIDES(asks_for_nothing_compressed),
      WITH_BOTH_SIDES(says_what_failed),
      WITH_BOTH_SIDES(refuses_what_cannot_be_sent),
      WITH_BOTH_SIDES(refuses_too_many_headers),
      WITH_BOTH_SIDES(takes_no_more_than_256_headers),
      WITH_BOTH_SIDES(cancels),
      WITH_BOTH_SIDES(cancels_from_a_callback),
      WITH_BOTH_SIDES(starts_from_a_callback),
      WITH_BOTH_SIDES(closes_from_a_callback),
      WITH_BOTH_SIDES(refuses_one_too_many),
      WITH_BOTH_SIDES(many_at_once),
  };
  (void)unsetenv("http_proxy");
  (void)unsetenv("https_proxy");
  (void)unsetenv("all_proxy");
  return cmocka_run_group_tests(tests, NULL, NULL);
}
