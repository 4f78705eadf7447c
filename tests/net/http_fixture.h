/* http_fixture.h - an HTTP server for tests: some paths are answered late, its clock can be set. */
#ifndef TM_TESTS_HTTP_FIXTURE_H
#define TM_TESTS_HTTP_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdatomic.h>

#include "core/clock.h"
#include "net/http_server.h"
#include "tests/net/raw_client.h"
#include "tests/provoke.h"

#define BODY_LIMIT 65536
#define LARGE      (8U << 20)
#define WAITING    64

/* Exchanges that a path asks to be answered by another thread, or by the test itself. */
typedef struct fixture {
  tm_http_server *server;
  pthread_mutex_t lock;
  pthread_cond_t changed;
  tm_http_exchange *waiting[WAITING];
  size_t count;
  bool answering; /* threads answer what waits */
  bool done;
  pthread_t answerers[2];
  char refused[64];         /* the last code; HTTP thread */
  _Atomic int64_t later_us; /* how much later it is for the server */
} fixture;

static inline void answer_text(tm_http_exchange *x, const char *text) {
  tm__http_reply(x, 200, "text/plain", tm__slice(text), NULL);
}

static inline bool list_name(void *ud, tm_slice name) {
  tm__buf_slice(ud, name);
  tm__buf_byte(ud, ';');
  return true;
}

static inline void echo(tm_http_exchange *x) {
  tm_buf b = {0};
  tm__buf_slice(&b, tm__http_method(x));
  tm__buf_byte(&b, ' ');
  tm__buf_slice(&b, tm__http_path(x));
  tm__buf_printf(&b, " q=%s h=%s names=",
                 tm__http_query(x, "q").ptr != NULL ? tm__http_query(x, "q").ptr : "-",
                 tm__http_header(x, "X-Test").ptr != NULL ? tm__http_header(x, "X-Test").ptr : "-");
  tm__http_query_names(x, list_name, &b);
  tm__buf_byte(&b, ' ');
  tm__buf_slice(&b, tm__http_body(x));
  tm__http_reply(x, 200, "text/plain", tm__buf_view(&b), "X-One: 1\nX-Two: two words\n");
  tm__buf_free(&b);
}

static inline void hold(fixture *f, tm_http_exchange *x) {
  (void)pthread_mutex_lock(&f->lock);
  assert_true(f->count < WAITING);
  f->waiting[f->count++] = x;
  (void)pthread_cond_broadcast(&f->changed);
  (void)pthread_mutex_unlock(&f->lock);
}

static inline void on_request(void *ud, tm_http_exchange *x) {
  if (tm__slice_is(tm__http_path(x), "/later"))
    hold(ud, x);
  else if (tm__slice_is(tm__http_path(x), "/empty"))
    tm__http_reply(x, 200, "text/plain", (tm_slice){NULL, 0}, NULL);
  else if (tm__slice_is(tm__http_path(x), "/large")) {
    char *big = calloc(1, LARGE);
    tm__http_reply(x, 200, "text/plain", (tm_slice){big, LARGE}, NULL);
    free(big);
  } else
    echo(x);
}

static inline void on_refuse(void *ud, tm_http_exchange *x, int status, const char *code,
                             const char *detail) {
  fixture *f = ud;
  provoke_note(code);
  (void)snprintf(f->refused, sizeof(f->refused), "%s", code);
  tm__http_reply(x, status, "text/plain", tm__slice(detail), "X-Code: refused\n");
}

/* The oldest exchange that waits; waits for one. NULL: done. */
static inline tm_http_exchange *next_waiting(fixture *f) {
  (void)pthread_mutex_lock(&f->lock);
  while (f->count == 0 && !f->done)
    (void)pthread_cond_wait(&f->changed, &f->lock);
  tm_http_exchange *x = f->count > 0 ? f->waiting[0] : NULL;
  if (x != NULL) memmove(f->waiting, f->waiting + 1, --f->count * sizeof(f->waiting[0]));
  (void)pthread_mutex_unlock(&f->lock);
  return x;
}

static inline void *answer_all(void *arg) {
  tm_http_exchange *x;
  while ((x = next_waiting(arg)) != NULL) {
    char *copy = tm__slice_dup(tm__http_body(x));
    answer_text(x, copy);
    free(copy);
  }
  return NULL;
}

static inline int64_t fixture_now_us(void *ud) {
  fixture *f = ud;
  return tm__clock_monotonic_us() + atomic_load(&f->later_us);
}

static inline tm_http_options options(fixture *f) {
  return (tm_http_options){.host = "127.0.0.1",
                           .body_limit = BODY_LIMIT,
                           .memory_limit = 64U << 20,
                           .connection_limit = 100,
                           .idle_timeout_s = 30,
                           .request_timeout_s = 30,
                           .now_us = fixture_now_us,
                           .handler = on_request,
                           .refuse = on_refuse,
                           .ud = f};
}

static inline fixture *fixture_new(const tm_http_options *o) {
  fixture *f = calloc(1, sizeof(*f));
  tm_http_options own = o != NULL ? *o : options(f);
  tm_error err = {0};
  own.ud = f;
  (void)pthread_mutex_init(&f->lock, NULL);
  (void)pthread_cond_init(&f->changed, NULL);
  if (tm__http_server_start(&f->server, &own, &err) != TM_OK) fail_msg("%s", err.message);
  return f;
}

static inline void start_answerers(fixture *f) {
  f->answering = true;
  for (int i = 0; i < 2; i++)
    assert_int_equal(pthread_create(&f->answerers[i], NULL, answer_all, f), 0);
}

static inline void fixture_free(fixture *f) {
  (void)pthread_mutex_lock(&f->lock);
  f->done = true;
  (void)pthread_cond_broadcast(&f->changed);
  (void)pthread_mutex_unlock(&f->lock);
  for (int i = 0; f->answering && i < 2; i++)
    (void)pthread_join(f->answerers[i], NULL);
  tm__http_server_stop(f->server);
  (void)pthread_mutex_destroy(&f->lock);
  (void)pthread_cond_destroy(&f->changed);
  free(f);
}

static inline int dial(const fixture *f) {
  int fd = raw_connect(tm__http_server_port(f->server));
  assert_true(fd >= 0);
  return fd;
}

/* Sends `request` on `fd`; the answer must have this status and hold `text`. */
static inline void expect(int fd, const char *request, int status, const char *text) {
  assert_true(raw_say(fd, request));
  char *answer = raw_answer(fd, strncmp(request, "HEAD", 4) == 0);
  if (raw_status(answer) != status || strstr(answer, text) == NULL)
    fail_msg("expected %d and \"%s\", got: %s", status, text, answer);
  free(answer);
}

static inline double processor_seconds(void) {
  struct timespec t;
  assert_int_equal(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t), 0);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static inline void say_body(int fd, size_t len) {
  char *body = malloc(len);
  memset(body, 'x', len);
  (void)raw_send(fd, body, len); /* the server may have had enough */
  free(body);
}

#endif
