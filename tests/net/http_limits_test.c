/* http_limits_test.c - what the HTTP server does when there is too much, or it takes too long:
 * deadlines, who gives way, memory, descriptors. Its clock is the test's. */
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <sys/resource.h>

#include "tests/net/http_fixture.h"

#define SECOND    INT64_C(1000000)
#define IDLE_S    60
#define REQUEST_S 30
#define GET       "GET /a HTTP/1.1\r\nHost: h\r\n\r\n"
#define LATER     "GET /later HTTP/1.1\r\nHost: h\r\n\r\n"
#define HALF_HEAD "GET /p HTTP/1.1\r\nHost: h\r\nX-Slow: "
#define POST      "POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 65536\r\n\r\n"

static tm_http_options limits(void) {
  tm_http_options o = options(NULL);
  o.idle_timeout_s = IDLE_S;
  o.request_timeout_s = REQUEST_S;
  return o;
}

static int open_descriptors(void) {
  int n = 0;
  DIR *all = opendir("/proc/self/fd");
  while (readdir(all) != NULL)
    n++;
  (void)closedir(all);
  return n;
}

/* The server has gone through two rounds, so all that was sent and is due has been seen. */
static void rounds(const fixture *f) {
  for (int i = 0; i < 2; i++) {
    int fd = dial(f);
    expect(fd, "GET /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", 200, "/a");
    assert_true(raw_closed(fd));
    (void)close(fd);
  }
}

static void pass(fixture *f, int64_t us) {
  (void)atomic_fetch_add(&f->later_us, us);
  rounds(f);
}

/* Nobody is new any more. */
static void settle(fixture *f) {
  (void)atomic_fetch_add(&f->later_us, SECOND);
}

static bool is_open(int fd) {
  char c;
  return recv(fd, &c, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN;
}

/* An answer of this status that holds `text`, then the end. */
static void expect_last(int fd, int status, const char *text) {
  expect(fd, "", status, text);
  assert_true(raw_closed(fd));
}

/* How many bytes still come; fails unless the end comes too. */
static size_t drain(int fd) {
  static char rest[1U << 16];
  size_t size = 0;
  ssize_t n;
  while ((n = recv(fd, rest, sizeof(rest), 0)) > 0)
    size += (size_t)n;
  assert_true(n == 0 || errno == ECONNRESET);
  return size;
}

/* ---- deadlines ---- */

/* A byte comes every second; no byte buys time. */
static void trickle(fixture *f, int fd, const char *first, int seconds) {
  assert_true(raw_say(fd, first));
  for (int i = 0; i < seconds - 1; i++) {
    pass(f, SECOND);
    assert_true(is_open(fd));
    assert_true(raw_say(fd, "x"));
  }
  pass(f, SECOND);
}

static void ends_requests_that_trickle(void **state) {
  (void)state;
  tm_http_options o = limits();
  fixture *f = fixture_new(&o);
  static const char *const heads[] = {
      HALF_HEAD, POST, "POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n",
      "GET /p HTTP/1.1\r\n"};
  for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++) {
    int fd = dial(f);
    f->refused[0] = '\0';
    trickle(f, fd, heads[i], REQUEST_S);
    expect_last(fd, 408, "30 seconds");
    assert_string_equal(f->refused, "request.timeout");
    (void)close(fd);
  }
  int fd = dial(f);
  trickle(f, fd, "GE", IDLE_S); /* no request line yet: nothing to answer */
  assert_true(raw_closed(fd));
  (void)close(fd);
  fixture_free(f);
}

static void ends_idle_connections(void **state) {
  (void)state;
  tm_http_options o = limits();
  fixture *f = fixture_new(&o);
  int silent = dial(f), kept = dial(f), at_work = dial(f);
  expect(kept, GET, 200, "/a");
  assert_true(raw_say(at_work, LATER));
  tm_http_exchange *x = next_waiting(f);
  pass(f, (IDLE_S - 1) * SECOND);
  assert_true(is_open(silent));
  expect(kept, GET, 200, "/a");
  pass(f, SECOND);
  assert_true(raw_closed(silent));
  assert_true(is_open(kept)); /* its time began anew */
  pass(f, (IDLE_S - 1) * SECOND);
  assert_true(raw_closed(kept));
  pass(f, 3600 * SECOND);
  answer_text(x, "it took an hour"); /* our time, not the client's */
  expect(at_work, "", 200, "it took an hour");
  (void)close(silent);
  (void)close(kept);
  (void)close(at_work);
  fixture_free(f);
}

static void ends_clients_that_do_not_read(void **state) {
  (void)state;
  tm_http_options o = limits();
  fixture *f = fixture_new(&o);
  int fd = dial(f);
  assert_true(raw_say(fd, "GET /large HTTP/1.1\r\nHost: h\r\n\r\n"));
  rounds(f);
  pass(f, (IDLE_S - 1) * SECOND);
  pass(f, SECOND);
  size_t size = drain(fd);            /* what was on its way, and then the end */
  assert_in_range(size, 1, 1U << 20); /* the kernel's memory is bounded too */
  (void)close(fd);
  fixture_free(f);
}

#define CHUNKED "POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"

static void few_chunked_bodies_may_stand_still(void **state) {
  (void)state;
  tm_http_options o = limits();
  fixture *f = fixture_new(&o);
  int fds[60], honest, ended = 0;
  for (int i = 0; i < 60; i++) {
    fds[i] = dial(f);
    assert_true(raw_say(fds[i], CHUNKED "2;"));
    say_body(fds[i], 40000); /* the rest of the chunk's head, without end */
  }
  rounds(f);
  honest = dial(f);
  assert_true(raw_say(honest, CHUNKED "1\r\na\r\n"));
  rounds(f);
  for (int i = 0; i < 5; i++)
    pass(f, SECOND / 4);
  for (int i = 0; i < 60; i++) {
    if (!is_open(fds[i])) {
      expect_last(fds[i], 408, "stand still");
      ended++;
    }
    (void)close(fds[i]);
  }
  assert_in_range(ended, 44, 45);
  expect(honest, "1\r\nb\r\n0\r\n\r\n", 200, " ab"); /* it was not among the oldest */
  (void)close(honest);
  fixture_free(f);
}

/* ---- connections ---- */

static void who_waits_longest_gives_way(void **state) {
  (void)state;
  tm_http_options o = limits();
  o.connection_limit = 3;
  fixture *f = fixture_new(&o);
  int idle = dial(f), slow, kept;
  expect(idle, GET, 200, "/a");
  slow = dial(f);
  expect(slow, GET, 200, "/a");
  assert_true(raw_say(slow, HALF_HEAD));
  kept = dial(f);
  expect(kept, GET, 200, "/a");
  settle(f);
  int a = dial(f);
  expect(a, GET, 200, "/a");
  assert_true(raw_closed(idle));
  int b = dial(f);
  expect(b, GET, 200, "/a");
  expect_last(slow, 503, "longest");
  assert_string_equal(f->refused, "server.busy");
  expect(kept, GET, 200, "/a");
  expect(b, GET, 200, "/a");
  expect(a, GET, 200, "/a");
  (void)close(idle);
  (void)close(slow);
  (void)close(kept);
  (void)close(a);
  (void)close(b);
  fixture_free(f);
}

static void nobody_gives_way_while_we_work_for_him(void **state) {
  (void)state;
  tm_http_options o = limits();
  o.connection_limit = 2;
  fixture *f = fixture_new(&o);
  int a = dial(f), b = dial(f);
  assert_true(raw_say(a, LATER));
  tm_http_exchange *first = next_waiting(f);
  assert_true(raw_say(b, LATER));
  tm_http_exchange *second = next_waiting(f);
  for (int i = 0; i < 200; i++) { /* more than may linger */
    int more = dial(f);
    char *answer = raw_answer(more, false);
    if (raw_status(answer) != 503 || strstr(answer, "try again later") == NULL)
      fail_msg("%d: %s", i, answer);
    free(answer);
    (void)close(more);
  }
  assert_string_equal(f->refused, "server.busy");
  answer_text(first, "one");
  answer_text(second, "two");
  expect(a, "", 200, "one");
  expect(b, "", 200, "two");
  int c = dial(f);
  expect(c, GET, 200, "/a");
  (void)close(a);
  (void)close(b);
  (void)close(c);
  fixture_free(f);
}

/* Who is turned away finds the answer also when the request was sent first. */
static void a_client_that_is_turned_away_can_read_why(void **state) {
  (void)state;
  tm_http_options o = limits();
  o.connection_limit = 1;
  fixture *f = fixture_new(&o);
  int a = dial(f);
  assert_true(raw_say(a, LATER));
  tm_http_exchange *x = next_waiting(f);
  int b = dial(f);
  (void)raw_say(b, POST);
  say_body(b, 65536);
  expect_last(b, 503, "Content-Type: text/plain");
  answer_text(x, "done");
  expect(a, "", 200, "done");
  (void)close(a);
  (void)close(b);
  fixture_free(f);
}

/* ---- memory ---- */

static void bodies_are_bounded_together(void **state) {
  (void)state;
  tm_http_options o = limits();
  o.memory_limit = 3 * BODY_LIMIT + 4096;
  fixture *f = fixture_new(&o);
  int fds[6];
  for (int i = 0; i < 6; i++) { /* each all but a byte */
    fds[i] = dial(f);
    assert_true(
        raw_say(fds[i], "POST /empty HTTP/1.1\r\nHost: h\r\nContent-Length: 65536\r\n\r\n"));
    say_body(fds[i], BODY_LIMIT - 1);
    rounds(f);
  }
  for (int i = 0; i < 6; i++) {
    if (i < 3)
      expect_last(fds[i], 503, "longest");
    else
      expect(fds[i], "x", 200, "Content-Length: 0");
    (void)close(fds[i]);
  }
  fixture_free(f);
}

static void bodies_at_work_are_not_given_up(void **state) {
  (void)state;
  static const char later[] = "POST /later HTTP/1.1\r\nHost: h\r\nContent-Length: 65536\r\n\r\n";
  tm_http_options o = limits();
  o.memory_limit = 2 * BODY_LIMIT;
  fixture *f = fixture_new(&o);
  int a = dial(f), b = dial(f), c = dial(f);
  assert_true(raw_say(a, later));
  say_body(a, BODY_LIMIT);
  tm_http_exchange *first = next_waiting(f);
  assert_true(raw_say(b, later));
  say_body(b, BODY_LIMIT);
  tm_http_exchange *second = next_waiting(f);
  assert_true(raw_say(c, POST));
  (void)raw_say(c, "x");
  expect_last(c, 503, "memory");
  (void)close(c);
  answer_text(first, "one");
  answer_text(second, "two");
  expect(a, "", 200, "one");
  expect(b, "", 200, "two");
  c = dial(f);
  assert_true(raw_say(c, POST));
  say_body(c, BODY_LIMIT);
  expect(c, "", 200, "xxx");
  (void)close(a);
  (void)close(b);
  (void)close(c);
  fixture_free(f);
}

/* Twenty answers of eight megabytes, of which two may wait. */
static void answers_are_bounded_together(void **state) {
  (void)state;
  tm_http_options o = limits();
  o.memory_limit = 2 * LARGE;
  fixture *f = fixture_new(&o);
  int fds[20], whole = 0;
  for (int i = 0; i < 20; i++) {
    fds[i] = dial(f);
    assert_true(raw_say(fds[i], "GET /large HTTP/1.1\r\nHost: h\r\n\r\n"));
    rounds(f);
  }
  for (int i = 0; i < 20; i++) {
    (void)shutdown(fds[i], SHUT_WR);
    size_t size = drain(fds[i]);
    if (size >= LARGE) whole++;
    (void)close(fds[i]);
  }
  assert_in_range(whole, 1, 2);
  rounds(f);
  fixture_free(f);
}

/* The HTTP thread stands still in the handler while `closed` is held. */
typedef struct gate {
  pthread_mutex_t closed;
  atomic_bool reached;
} gate;

static gate the_gate = {.closed = PTHREAD_MUTEX_INITIALIZER};

static void stand_or_serve(void *ud, tm_http_exchange *x) {
  if (tm__slice_is(tm__http_path(x), "/stand")) {
    atomic_store(&the_gate.reached, true);
    (void)pthread_mutex_lock(&the_gate.closed);
    (void)pthread_mutex_unlock(&the_gate.closed);
  }
  on_request(ud, x);
}

/* Forty answers of a megabyte are made while the HTTP thread takes none: two have room. */
static void answers_that_nobody_takes_over_are_bounded(void **state) {
  (void)state;
  static char mebibyte[1U << 20];
  tm_http_options o = limits();
  o.memory_limit = 8U << 20;
  o.handler = stand_or_serve;
  fixture *f = fixture_new(&o);
  tm_http_exchange *late[41];
  int fds[41], stand = dial(f), whole = 0;
  for (int i = 0; i < 41; i++) {
    fds[i] = dial(f);
    assert_true(raw_say(fds[i], LATER));
    late[i] = next_waiting(f);
  }
  rounds(f); /* all of them are suspended */
  (void)pthread_mutex_lock(&the_gate.closed);
  atomic_store(&the_gate.reached, false);
  assert_true(raw_say(stand, "GET /stand HTTP/1.1\r\nHost: h\r\n\r\n"));
  while (!atomic_load(&the_gate.reached))
    (void)sched_yield();
  for (int i = 0; i < 40; i++)
    tm__http_reply(late[i], 200, "text/plain", (tm_slice){mebibyte, sizeof(mebibyte)}, NULL);
  answer_text(late[40], "small");
  (void)pthread_mutex_unlock(&the_gate.closed);
  for (int i = 0; i < 40; i++) {
    char *answer = raw_answer(fds[i], false);
    if (raw_status(answer) == 200) whole++;
    if (raw_status(answer) != 200 && strstr(answer, "try again later") == NULL)
      fail_msg("%d: %s", i, answer);
    free(answer);
    (void)close(fds[i]);
  }
  assert_int_equal(whole, 2);
  assert_string_equal(f->refused, "server.busy");
  expect(fds[40], "", 200, "small");
  expect(stand, "", 200, "/stand");
  int after = dial(f);
  expect(after, GET, 200, "/a");
  (void)close(after);
  (void)close(fds[40]);
  (void)close(stand);
  fixture_free(f);
}

/* ---- descriptors ---- */

static rlim_t allow_descriptors(rlim_t count) {
  struct rlimit limit;
  assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
  rlim_t before = limit.rlim_cur;
  limit.rlim_cur = count;
  assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
  return before;
}

/* Not one more than there are. */
static rlim_t allow_no_more(void) {
  int fd = dup(0);
  assert_true(fd >= 0);
  (void)close(fd);
  return allow_descriptors((rlim_t)fd);
}

static void dial_with(int fd, const fixture *f) {
  struct sockaddr_in to = {.sin_family = AF_INET,
                           .sin_port = htons(tm__http_server_port(f->server))};
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
}

static int make_socket(void) {
  struct timeval patience = {10, 0};
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  assert_true(fd >= 0);
  (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  return fd;
}

static void serves_on_when_descriptors_run_out(void **state) {
  (void)state;
  tm_http_options o = limits();
  fixture *f = fixture_new(&o);
  int idle = dial(f), a = make_socket(), b = make_socket(), c = make_socket();
  expect(idle, GET, 200, "/a");
  rlim_t before = allow_no_more();
  settle(f);
  dial_with(a, f);
  assert_true(raw_say(a, LATER));
  tm_http_exchange *x = next_waiting(f);
  assert_true(raw_closed(idle)); /* it gave way */
  dial_with(b, f);
  char *answer = raw_answer(b, false); /* nobody can: the spare descriptor says so */
  assert_int_equal(raw_status(answer), 503);
  free(answer);
  answer_text(x, "served");
  expect(a, "", 200, "served");
  dial_with(c, f);
  expect(c, GET, 200, "/a");
  (void)allow_descriptors(before);
  rounds(f);
  (void)close(idle);
  (void)close(a);
  (void)close(b);
  (void)close(c);
  fixture_free(f);
}

/* Not even what is given back can be used again: whoever comes waits, and so does the server. */
static void waits_without_burning_time_when_nothing_helps(void **state) {
  (void)state;
  tm_http_options o = limits();
  o.now_us = NULL;
  fixture *f = fixture_new(&o);
  int idle = dial(f), a = make_socket();
  expect(idle, GET, 200, "/a");
  rlim_t before = allow_descriptors(3);
  double used = processor_seconds();
  dial_with(a, f);
  assert_true(raw_say(a, GET));
  struct pollfd p = {a, POLLIN, 0};
  assert_int_equal(poll(&p, 1, 1000), 0);
  used = processor_seconds() - used;
  (void)allow_descriptors(before);
  if (used > 0.3) fail_msg("%.2f seconds of processor time were used in one", used);
  expect(a, "", 200, "/a");
  rounds(f);
  int b = make_socket(); /* the spare descriptor was lost, and is there again */
  (void)allow_no_more();
  assert_true(raw_say(a, LATER));
  tm_http_exchange *x = next_waiting(f);
  dial_with(b, f);
  expect_last(b, 503, "try again later");
  (void)allow_descriptors(before);
  answer_text(x, "served");
  expect(a, "", 200, "served");
  (void)close(idle);
  (void)close(a);
  (void)close(b);
  fixture_free(f);
}

/* Every way a connection can end, many times: as many descriptors are open as before. */
static void gives_everything_back(void **state) {
  (void)state;
  static const char *const sayings[] = {"",
                                        "G",
                                        HALF_HEAD,
                                        POST,
                                        "POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: x\r\n\r\n",
                                        GET,
                                        "GET /large HTTP/1.1\r\nHost: h\r\n\r\n",
                                        "GET / HTTP/1.1\r\n\r\n",
                                        (GET GET GET HALF_HEAD)};
  const struct linger reset = {1, 0};
  tm_http_options o = limits();
  o.connection_limit = 8;
  fixture *f = fixture_new(&o);
  rounds(f);
  int before = open_descriptors();
  for (int i = 0; i < 300; i++) {
    int fd = dial(f);
    (void)raw_say(fd, sayings[(size_t)i % (sizeof(sayings) / sizeof(sayings[0]))]);
    if (i % 3 == 0) (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    if (i % 3 == 1) (void)shutdown(fd, SHUT_WR);
    if (i % 7 == 0) rounds(f);
    (void)close(fd);
  }
  for (int i = 0; i < 100 && open_descriptors() > before; i++)
    pass(f, IDLE_S * SECOND); /* some of them were not even accepted yet, or linger */
  assert_in_range(open_descriptors(), 0, before);
  fixture_free(f);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(ends_requests_that_trickle),
      cmocka_unit_test(ends_idle_connections),
      cmocka_unit_test(ends_clients_that_do_not_read),
      cmocka_unit_test(few_chunked_bodies_may_stand_still),
      cmocka_unit_test(who_waits_longest_gives_way),
      cmocka_unit_test(nobody_gives_way_while_we_work_for_him),
      cmocka_unit_test(a_client_that_is_turned_away_can_read_why),
      cmocka_unit_test(bodies_are_bounded_together),
      cmocka_unit_test(bodies_at_work_are_not_given_up),
      cmocka_unit_test(answers_are_bounded_together),
      cmocka_unit_test(answers_that_nobody_takes_over_are_bounded),
      cmocka_unit_test(serves_on_when_descriptors_run_out),
      cmocka_unit_test(waits_without_burning_time_when_nothing_helps),
      cmocka_unit_test(gives_everything_back),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
