/* http_server_test.c - the HTTP server over real sockets: limits, deadlines, late answers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <curl/curl.h>

#include "tests/net/http_fixture.h"

/* ---- plain requests ---- */

static void answers_at_once(void **state) {
  (void)state;
  fixture *f = fixture_new(NULL);
  int fd = dial(f);
  expect(fd, "GET /a HTTP/1.1\r\nHost: h\r\n\r\n", 200, "Content-Type: text/plain");
  expect(fd, "GET /a HTTP/1.1\r\nHost: h\r\n\r\n", 200, "Content-Length: 22");
  expect(fd, "GET /a HTTP/1.1\r\nHost: h\r\n\r\n", 200, "Cache-Control: no-store");
  expect(fd, "GET /a HTTP/1.1\r\nHost: h\r\n\r\n", 200, "X-Content-Type-Options: nosniff");
  expect(fd, "GET /a HTTP/1.1\r\nHost: h\r\n\r\n", 200, "X-One: 1\r\nX-Two: two words\r\n");
  expect(fd, "GET /empty HTTP/1.1\r\nHost: h\r\n\r\n", 200, "Content-Length: 0\r\n");
  expect(fd, "HEAD /a HTTP/1.1\r\nHost: h\r\n\r\n", 200, "Content-Length: 23");
  expect(fd, "GET /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", 200, "Connection: close");
  assert_true(raw_closed(fd));
  (void)close(fd);
  fixture_free(f);
}

static void decodes_paths_and_queries(void **state) {
  (void)state;
  fixture *f = fixture_new(NULL);
  int fd = dial(f);
  expect(fd, "GET /%41b%c3%a9?q=x%20y+z&r&s=1 HTTP/1.1\r\nHost: h\r\nX-Test: t\r\n\r\n", 200,
         "GET /Ab\xc3\xa9 q=x y z h=t names=q;r;s; ");
  expect(fd, "GET /a%2fb%2F%2520?q=c%2fd%2500 HTTP/1.1\r\nHost: h\r\n\r\n", 200,
         "GET /a%2fb%2F%2520 q=c/d%00 h=-");
  (void)close(fd);
  fixture_free(f);
}

static void takes_bodies(void **state) {
  (void)state;
  fixture *f = fixture_new(NULL);
  int fd = dial(f);
  expect(fd, "POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello", 200, " hello");
  expect(fd,
         "POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
         "5\r\nhello\r\n7\r\n, world\r\n0\r\n\r\n",
         200, " hello, world");
  assert_true(raw_closed(fd));
  (void)close(fd);
  fd = dial(f);
  expect(fd, "POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", 200, "POST /p");
  expect(fd, "POST /p HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n",
         100, "Continue");
  expect(fd, "ok", 200, " ok");
  (void)close(fd);
  fixture_free(f);
}

static void answers_pipelined_requests_in_order(void **state) {
  (void)state;
  fixture *f = fixture_new(NULL);
  int fd = dial(f);
  expect(fd,
         "GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\n"
         "POST /3 HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nxrubbish\r\n\r\n",
         200, "/1");
  expect(fd, "", 200, "/2");
  expect(fd, "", 200, "/3 q=- h=- names= x");
  assert_true(raw_closed(fd));
  (void)close(fd);
  fixture_free(f);
}

/* ---- too much ---- */

static void takes_a_body_of_the_limit(void **state) {
  (void)state;
  fixture *f = fixture_new(NULL);
  int fd = dial(f);
  assert_true(raw_say(fd, "POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 65536\r\n\r\n"));
  say_body(fd, BODY_LIMIT);
  expect(fd, "", 200, "xxxxxxxx");
  assert_true(
      raw_say(fd, "POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n10000\r\n"));
  say_body(fd, BODY_LIMIT);
  expect(fd, "\r\n0\r\n\r\n", 200, "xxxxxxxx");
  (void)close(fd);
  fixture_free(f);
}

static void refuses_an_announced_body_before_it_comes(void **state) {
  (void)state;
  fixture *f = fixture_new(NULL);
  int fd = dial(f);
  expect(fd, "POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 65537\r\n\r\n", 413,
         "X-Code: refused");
  assert_true(raw_closed(fd));
  assert_string_equal(f->refused, "body.too_large");
  (void)close(fd);
  fd = dial(f);
  expect(fd,
         "POST /p HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n"
         "Content-Length: 18446744073709551615\r\n\r\n",
         413, "65536 bytes");
  (void)close(fd);
  fixture_free(f);
}

/* A client that sends everything before it reads must find the answer, not a reset. */
static void a_client_that_sends_too_much_can_read_why(void **state) {
  (void)state;
  fixture *f = fixture_new(NULL);
  static const char *const heads[] = {
      "POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 4194304\r\n\r\n",
      "POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n400000\r\n"};
  for (size_t i = 0; i < 2; i++) {
    int fd = dial(f);
    assert_true(raw_say(fd, heads[i]));
    say_body(fd, 4U << 20);
    expect(fd, "", 413, "larger than 65536 bytes");
    assert_true(raw_closed(fd));
    (void)close(fd);
  }
  int fd = dial(f);
  expect(fd, "GET /still HTTP/1.1\r\nHost: h\r\n\r\n", 200, "/still");
  (void)close(fd);
  fixture_free(f);
}

static void refuses_huge_headers_and_rubbish(void **state) {
  (void)state;
  fixture *f = fixture_new(NULL);
  char *huge = malloc(70000);
  memset(huge, 'h', 70000);
  memcpy(huge, "GET / HTTP/1.1\r\nHost: h\r\nX-Huge: ", 33);
  huge[69999] = '\0';
  int fd = dial(f);
  (void)raw_say(fd, huge);
  char *answer = raw_answer(fd, false);
  assert_true(raw_status(answer) == 431 || raw_status(answer) == 413 || answer[0] == '\0');
  free(answer);
  free(huge);
  (void)close(fd);
  static const char *const rubbish[] = {
      "\x16\x03\x01\x02 tls?\r\n\r\n", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: many\r\n\r\n",
      "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n",
      "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
      "GET / HTTP/9.9\r\nHost: h\r\n\r\n"};
  for (size_t i = 0; i < sizeof(rubbish) / sizeof(rubbish[0]); i++) {
    fd = dial(f);
    assert_true(raw_say(fd, rubbish[i]));
    answer = raw_answer(fd, false);
    if (raw_status(answer) / 100 == 2 || !raw_closed(fd))
      fail_msg("%s was taken: %s", rubbish[i], answer);
    free(answer);
    (void)close(fd);
  }
  assert_string_equal(f->refused, "");
  fixture_free(f);
}

/* What a proxy before us could read as another request, or as two. */
static const struct {
  const char *request, *code;
  int status;
} read_in_two_ways[] = {
    {"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nContent-Length: 40\r\n\r\n",
     "request.header", 400},
    {"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
     "0\r\n\r\n",
     "request.framing", 400},
    {"POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n", "request.transfer_encoding",
     501},
    {"POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
     "request.transfer_encoding", 501},
    {"POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n"
     "transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
     "request.header", 400},
    {"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length : 40\r\n\r\n", "request.header", 400},
    {"GET /p HTTP/1.1\r\nHost: h\r\nX\tY: 1\r\n\r\n", "request.header", 400},
    {"GET /p HTTP/1.1\r\nHost: h\r\nhost: i\r\n\r\n", "request.header", 400},
    {"GET /p HTTP/1.1\r\nX-Test: t\r\n\r\n", "request.header", 400},
    {"GET /p HTTP/1.1\r\nHost: h\r\n: x\r\nX-Test: t\r\n\r\n", "request.header", 400},
    {"GET /p HTTP/1.1\r\nHost: h\r\n:\r\n\r\n", "request.header", 400},
    {"POST /p HTTP/1.1\r\nHost: h\r\nX: 1\nContent-Length: 40\r\n\r\n", "request.header", 400},
    {"GET /p HTTP/1.1\nHost: h\n\n", "request.header", 400},
    {"GET /p HTTP/1.1\r\nHost: h\r\n\n", "request.header", 400},
    {"GET /p HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n", "request.header", 400},
    {"POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
     "request.header", 400},
    {"GET /p HTTP/1.1\r\n X: y\r\nHost: h\r\n\r\n", "request.header", 400},
    {"GET /p HTTP/1.1\r\nHost: h\r\nX: a\rContent-Length: 5\r\n\r\n", "request.header", 400},
    {"GET /p HTTP/1.1\r\nHost: h\r\nX: \x7f\r\n\r\n", "request.header", 400},
    {"GET  /p HTTP/1.1\r\nHost: h\r\n\r\n", "request.header", 400},
    {"POST /p HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
     "request.framing", 400},
    {"POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
     "0\r\nContent-Length: 5\r\n\r\n",
     "request.framing", 400},
    {"GET /p q HTTP/1.1\r\nHost: h\r\n\r\n", "request.target", 400},
    {"GET /p%00q HTTP/1.1\r\nHost: h\r\n\r\n", "request.target", 400},
    {"GET /p?q=%00 HTTP/1.1\r\nHost: h\r\n\r\n", "request.target", 400},
    {"GET /p?q=%zz HTTP/1.1\r\nHost: h\r\n\r\n", "request.target", 400},
    {"GET /p%2 HTTP/1.1\r\nHost: h\r\n\r\n", "request.target", 400}};

static void refuses_what_can_be_read_in_two_ways(void **state) {
  (void)state;
  fixture *f = fixture_new(NULL);
  for (size_t i = 0; i < sizeof(read_in_two_ways) / sizeof(read_in_two_ways[0]); i++) {
    int fd = dial(f);
    f->refused[0] = '\0';
    assert_true(raw_say(fd, read_in_two_ways[i].request));
    assert_true(raw_say(fd, "GET /hidden HTTP/1.1\r\nHost: h\r\n\r\n"));
    expect(fd, "", read_in_two_ways[i].status, "Connection: close");
    char *second = raw_answer(fd, false);
    if (strcmp(f->refused, read_in_two_ways[i].code) != 0 || second[0] != '\0')
      fail_msg("%s: %s, then %s", read_in_two_ways[i].request, f->refused, second);
    free(second);
    (void)close(fd);
  }
  int fd = dial(f);
  expect(fd, "GET /old HTTP/1.0\r\n\r\n", 200, "/old");
  (void)close(fd);
  fixture_free(f);
}

/* Chunks of which another server may see the end elsewhere: what follows is no request. */
static void reads_nothing_behind_chunks(void **state) {
  (void)state;
  static const char head[] = "POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
  static const char *const bodies[] = {"5\r\nhello\r\n0\r\n\r\n",      "5\nhello\n0\n\n",
                                       "5;a\nhello\r\n0\r\n\r\n",      "5\r\nhello\n0\r\n\r\n",
                                       "5;a\rb\r\nhello\r\n0\r\n\r\n", "5\r\nhello\r\n0\r\n\n",
                                       "5\r\nhello\r\n0;\n\r\n"};
  fixture *f = fixture_new(NULL);
  for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
    int fd = dial(f);
    assert_true(raw_say(fd, head) && raw_say(fd, bodies[i]));
    assert_true(raw_say(fd, "GET /hidden HTTP/1.1\r\nHost: h\r\n\r\n"));
    expect(fd, "", 200, "Connection: close");
    char *second = raw_answer(fd, false);
    assert_string_equal(second, "");
    free(second);
    (void)close(fd);
  }
  fixture_free(f);
}

/* A NUL hides what follows from whoever reads strings. */
static void refuses_heads_with_a_nul(void **state) {
  (void)state;
  static const struct {
    const char *request;
    size_t len;
  } cases[] = {
#define CASE(text) {text, sizeof(text) - 1}
      CASE("GET /p HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n"),
      CASE("GET /p HTTP/1.1\r\nHost: h\r\nX: a\0\0b: c\r\n\r\n"),
      CASE("GET /p HTTP/1.1\r\nHost: h\r\nX: a\0\0b\0c\r\n\r\n"),
      CASE("GET /p HTTP/1.1\r\nHost: h\r\n\0X: a\r\n\r\n"),
      CASE("GET /p HTTP/1.1\r\nHost: h\0\0\0\0\r\n\r\n"),
      CASE("GET /p HTTP/1.1\r\nHost: h\r\nX\0: a\r\n\r\n"),
      CASE("GET /p\0q HTTP/1.1\r\nHost: h\r\n\r\n"),
      CASE("G\0T /p HTTP/1.1\r\nHost: h\r\n\r\n"),
      CASE("POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\0x\r\n\r\n0\r\n\r\n"),
      CASE("POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 2\0003\r\n\r\n{}"),
#undef CASE
  };
  fixture *f = fixture_new(NULL);
  for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
    int fd = dial(f);
    assert_true(raw_send(fd, cases[i].request, cases[i].len));
    assert_true(raw_say(fd, "GET /hidden HTTP/1.1\r\nHost: h\r\n\r\n"));
    char *answer = raw_answer(fd, false);
    if (raw_status(answer) != 400 || !raw_closed(fd)) fail_msg("case %zu: %s", i, answer);
    free(answer);
    (void)close(fd);
  }
  fixture_free(f);
}

/* Whatever is allowed stays so, however much of it there is. */
static void takes_long_heads(void **state) {
  (void)state;
  fixture *f = fixture_new(NULL);
  int fd = dial(f);
  for (int n = 1; n <= 200; n += 7) {
    tm_buf b = {0};
    tm__buf_printf(&b, "GET /%%41b?q=%%20%0*d&&r HTTP/1.1\r\nHost:h\r\nX-Empty:\r\n", n * 10, 7);
    for (int i = 0; i < n; i++)
      tm__buf_printf(&b, "X-%d: \t %0*d  \r\n", i, n / 4 + 1, i);
    tm__buf_text(&b, "X-Test: t\xc3\xa9\tu\r\n\r\n");
    expect(fd, b.ptr, 200, "h=t\xc3\xa9\tu names=q;;r;");
    tm__buf_free(&b);
  }
  (void)close(fd);
  fixture_free(f);
}

/* A chunk whose head never ends fills libmicrohttpd's buffer, which then has nothing to do but is
 * never done. */
static void a_chunk_without_end_does_not_keep_the_processor(void **state) {
  (void)state;
  tm_http_options o = options(NULL);
  o.idle_timeout_s = 2;
  fixture *f = fixture_new(&o);
  int fd = dial(f);
  assert_true(raw_say(fd, "POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2;"));
  say_body(fd, 100000);
  double used = processor_seconds();
  int other = dial(f);
  expect(other, "GET /other HTTP/1.1\r\nHost: h\r\n\r\n", 200, "/other");
  char *answer = raw_answer(fd, false);
  used = processor_seconds() - used;
  if (used > 0.3) fail_msg("%.2f seconds of processor time were used", used);
  free(answer);
  (void)close(other);
  (void)close(fd);
  fixture_free(f);
}

/* ---- later ---- */

static void answers_later(void **state) {
  (void)state;
  fixture *f = fixture_new(NULL);
  int fd = dial(f);
  assert_true(raw_say(fd, "POST /later HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi"));
  tm_http_exchange *x = next_waiting(f);
  assert_true(tm__slice_is(tm__http_body(x), "hi"));
  answer_text(x, "at last");
  expect(fd, "", 200, "at last");
  expect(fd, "GET /a HTTP/1.1\r\nHost: h\r\n\r\n", 200, "/a");
  (void)close(fd);
  fixture_free(f);
}

static void a_client_that_left_hurts_nobody(void **state) {
  (void)state;
  fixture *f = fixture_new(NULL);
  for (int i = 0; i < 20; i++) {
    int fd = dial(f);
    struct linger reset = {1, 0};
    assert_true(raw_say(fd, "GET /later HTTP/1.1\r\nHost: h\r\n\r\n"));
    tm_http_exchange *x = next_waiting(f);
    if (i % 2 == 0) (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    (void)close(fd);
    answer_text(x, "too late");
  }
  for (int i = 0; i < 5; i++) { /* and in the middle of a body */
    int fd = dial(f);
    assert_true(raw_say(fd, "POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhalf"));
    (void)close(fd);
  }
  int fd = dial(f);
  expect(fd, "GET /still HTTP/1.1\r\nHost: h\r\n\r\n", 200, "/still");
  (void)close(fd);
  fixture_free(f);
}

/* A hang-up that comes along with bytes is noticed too, long before patience ends. */
static void a_client_that_left_within_a_request_is_let_go(void **state) {
  (void)state;
  static const char *const parts[] = {
      "GET /a", "GET /a HTTP/1.1\r\nHost: h", "GET /a HTTP/1.1\r\nHost: h\r\xfa\r\n",
      "POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhalf"};
  fixture *f = fixture_new(NULL);
  for (int i = 0; i < 40; i++) {
    int fd = dial(f);
    assert_true(raw_say(fd, parts[i % 4]));
    (void)shutdown(fd, SHUT_WR);
    atomic_fetch_add(&f->later_us, 2000000);
    assert_true(raw_closed(fd));
    (void)close(fd);
  }
  fixture_free(f);
}

static void answers_a_client_that_has_said_all(void **state) {
  (void)state;
  fixture *f = fixture_new(NULL);
  int fd = dial(f);
  assert_true(raw_say(fd, "GET /later HTTP/1.1\r\nHost: h\r\n\r\n"));
  (void)shutdown(fd, SHUT_WR);
  answer_text(next_waiting(f), "here it is");
  expect(fd, "", 200, "here it is");
  (void)close(fd);
  fixture_free(f);
}

/* ---- many ---- */

static size_t collect(char *bytes, size_t one, size_t count, void *ud) {
  tm__buf_add(ud, bytes, one * count);
  return one * count;
}

typedef struct load {
  const fixture *f;
  const char *path;
  int requests, connects, wrong;
} load;

/* POSTs a number each time and wants it back, on one kept connection. */
static void *run_load(void *arg) {
  load *l = arg;
  CURL *e = curl_easy_init();
  char url[80], body[32];
  tm_buf got = {0};
  (void)snprintf(url, sizeof(url), "http://127.0.0.1:%u%s", tm__http_server_port(l->f->server),
                 l->path);
  curl_easy_setopt(e, CURLOPT_URL, url);
  curl_easy_setopt(e, CURLOPT_PROXY, "");
  curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, collect);
  curl_easy_setopt(e, CURLOPT_WRITEDATA, &got);
  curl_easy_setopt(e, CURLOPT_POSTFIELDS, body);
  for (int i = 0; i < l->requests; i++) {
    long connects = 0, status = 0;
    (void)snprintf(body, sizeof(body), "%p-%d", arg, i);
    tm__buf_clear(&got);
    CURLcode code = curl_easy_perform(e);
    curl_easy_getinfo(e, CURLINFO_NUM_CONNECTS, &connects);
    curl_easy_getinfo(e, CURLINFO_RESPONSE_CODE, &status);
    l->connects += (int)connects;
    if (code != CURLE_OK || status != 200 || strstr(got.ptr, body) == NULL) l->wrong++;
  }
  tm__buf_free(&got);
  curl_easy_cleanup(e);
  return NULL;
}

static void keeps_connections_alive(void **state) {
  (void)state;
  fixture *f = fixture_new(NULL);
  load l = {.f = f, .path = "/p", .requests = 1000};
  (void)run_load(&l);
  assert_int_equal(l.wrong, 0);
  assert_int_equal(l.connects, 1);
  fixture_free(f);
}

static void answers_from_many_threads(void **state) {
  (void)state;
  fixture *f = fixture_new(NULL);
  load loads[8];
  pthread_t threads[8];
  start_answerers(f);
  for (int i = 0; i < 8; i++) {
    loads[i] = (load){.f = f, .path = "/later", .requests = 200};
    assert_int_equal(pthread_create(&threads[i], NULL, run_load, &loads[i]), 0);
  }
  for (int i = 0; i < 8; i++) {
    (void)pthread_join(threads[i], NULL);
    assert_int_equal(loads[i].wrong, 0);
    assert_int_equal(loads[i].connects, 1);
  }
  fixture_free(f);
}

/* ---- life ---- */

static void quiet_servers_take_no_connections(void **state) {
  (void)state;
  fixture *f = fixture_new(NULL);
  int kept = dial(f);
  expect(kept, "GET /a HTTP/1.1\r\nHost: h\r\n\r\n", 200, "/a");
  assert_true(raw_say(kept, "GET /later HTTP/1.1\r\nHost: h\r\n\r\n"));
  tm_http_exchange *x = next_waiting(f);
  tm__http_server_quiesce(f->server);
  tm__http_server_quiesce(f->server);
  int fd = raw_connect(tm__http_server_port(f->server));
  if (fd >= 0) {
    (void)raw_say(fd, "GET /a HTTP/1.1\r\nHost: h\r\n\r\n");
    char *answer = raw_answer(fd, false);
    assert_string_equal(answer, "");
    free(answer);
    (void)close(fd);
  }
  answer_text(x, "the last");
  expect(kept, "", 200, "Connection: close");
  assert_true(raw_closed(kept));
  (void)close(kept);
  fixture_free(f);
}

static void stopping_sends_what_was_answered(void **state) {
  (void)state;
  fixture *f = fixture_new(NULL);
  int idle = dial(f), half = dial(f), waiting = dial(f), deaf = dial(f);
  expect(idle, "GET /a HTTP/1.1\r\nHost: h\r\n\r\n", 200, "/a");
  assert_true(raw_say(half, "POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhalf"));
  assert_true(raw_say(deaf, "GET /large HTTP/1.1\r\nHost: h\r\n\r\n"));
  assert_true(raw_say(waiting, "GET /later HTTP/1.1\r\nHost: h\r\n\r\n"));
  answer_text(next_waiting(f), "before the end");
  int64_t before = tm__clock_monotonic_us();
  fixture_free(f);
  assert_in_range(tm__clock_monotonic_us() - before, 0, 5000000);
  expect(waiting, "", 200, "before the end");
  assert_true(raw_closed(idle));
  (void)close(idle);
  (void)close(half);
  (void)close(waiting);
  (void)close(deaf);
}

static void says_why_it_cannot_listen(void **state) {
  (void)state;
  fixture *f = fixture_new(NULL);
  tm_http_options o = options(f);
  tm_http_server *s = NULL;
  tm_error err;
  o.port = tm__http_server_port(f->server);
  assert_int_equal(tm__http_server_start(&s, &o, &err), TM_EIO);
  assert_string_equal(err.code, "server.address_in_use");
  assert_null(s);
  o.port = 0;
  static const char *const wrong[] = {"example.org", "", "300.1.1.1", "[::1]"};
  for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
    o.host = wrong[i];
    assert_int_equal(tm__http_server_start(&s, &o, &err), TM_EINVAL);
    assert_string_equal(err.code, "server.address");
  }
  o.host = "192.0.2.1"; /* not of this machine */
  assert_int_equal(tm__http_server_start(&s, &o, &err), TM_EIO);
  assert_string_equal(err.code, "server.listen");
  fixture_free(f);
}

static void listens_where_it_is_told(void **state) {
  (void)state;
  tm_http_options o = options(NULL);
  o.host = "localhost";
  fixture *f = fixture_new(&o);
  int fd = dial(f);
  expect(fd, "GET /a HTTP/1.1\r\nHost: h\r\n\r\n", 200, "/a");
  (void)close(fd);
  fixture_free(f);
  o.host = "::1";
  int six = socket(AF_INET6, SOCK_STREAM, 0);
  struct sockaddr_in6 to = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
  if (six < 0 || bind(six, (struct sockaddr *)&to, sizeof(to)) != 0) {
    (void)close(six); /* a machine without IPv6 */
    return;
  }
  (void)close(six);
  f = fixture_new(&o);
  six = socket(AF_INET6, SOCK_STREAM, 0);
  to.sin6_port = htons(tm__http_server_port(f->server));
  assert_int_equal(connect(six, (struct sockaddr *)&to, sizeof(to)), 0);
  expect(six, "GET /six HTTP/1.1\r\nHost: h\r\n\r\n", 200, "/six");
  (void)close(six);
  fixture_free(f);
  tm__http_server_stop(NULL);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(answers_at_once),
      cmocka_unit_test(decodes_paths_and_queries),
      cmocka_unit_test(takes_bodies),
      cmocka_unit_test(answers_pipelined_requests_in_order),
      cmocka_unit_test(takes_a_body_of_the_limit),
      cmocka_unit_test(refuses_an_announced_body_before_it_comes),
      cmocka_unit_test(a_client_that_sends_too_much_can_read_why),
      cmocka_unit_test(refuses_huge_headers_and_rubbish),
      cmocka_unit_test(refuses_what_can_be_read_in_two_ways),
      cmocka_unit_test(reads_nothing_behind_chunks),
      cmocka_unit_test(refuses_heads_with_a_nul),
      cmocka_unit_test(takes_long_heads),
      cmocka_unit_test(a_chunk_without_end_does_not_keep_the_processor),
      cmocka_unit_test(answers_later),
      cmocka_unit_test(a_client_that_left_hurts_nobody),
      cmocka_unit_test(a_client_that_left_within_a_request_is_let_go),
      cmocka_unit_test(answers_a_client_that_has_said_all),
      cmocka_unit_test(keeps_connections_alive),
      cmocka_unit_test(answers_from_many_threads),
      cmocka_unit_test(quiet_servers_take_no_connections),
      cmocka_unit_test(stopping_sends_what_was_answered),
      cmocka_unit_test(says_why_it_cannot_listen),
      cmocka_unit_test(listens_where_it_is_told),
  };
  curl_global_init(CURL_GLOBAL_DEFAULT);
  int failed = cmocka_run_group_tests(tests, NULL, NULL);
  curl_global_cleanup();
  return failed;
}
