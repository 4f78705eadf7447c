/* Workers: posting order, posting from many threads, stopping while messages still arrive. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#include "loop/worker.h"
#include "tests/provoke.h"

#define WRITERS 4
#define EACH    5000

typedef struct note {
  tm_message message;
  struct page *page;
  int writer, number;
} note;

/* What a worker's messages write down; read by the test after the worker has stopped. */
typedef struct page {
  tm_worker *worker;
  int next[WRITERS];
  int count;
  bool in_order, on_thread;
} page;

static void write_down(tm_message *m) {
  note *n = (note *)m;
  page *p = n->page;
  p->in_order = p->in_order && p->next[n->writer] == n->number;
  p->on_thread = p->on_thread && tm__worker_here(p->worker);
  p->next[n->writer] = n->number + 1;
  p->count++;
  free(n);
}

static void post_note(page *p, int writer, int number) {
  note *n = calloc(1, sizeof(*n));
  assert_non_null(n);
  *n = (note){.message.run = write_down, .page = p, .writer = writer, .number = number};
  tm__worker_post(p->worker, &n->message);
}

static page open_page(void) {
  page p = {.in_order = true, .on_thread = true};
  tm_error err = {0};
  assert_int_equal(tm__worker_start(&p.worker, "a name that is too long", &err), TM_OK);
  return p;
}

static void test_start_and_stop(void **state) {
  (void)state;
  for (int i = 0; i < 50; i++) {
    page p = open_page();
    assert_false(tm__worker_here(p.worker));
    assert_non_null(tm__worker_loop(p.worker));
    assert_int_equal(tm__worker_stop(p.worker), 0);
  }
  assert_int_equal(tm__worker_stop(NULL), 0);
}

static void test_without_threads(void **state) {
  (void)state;
  tm_worker *w = NULL;
  tm_error err;
  atomic_store(&provoke.threads, 0);
  assert_int_equal(tm__worker_start(&w, "w", &err), TM_EUNAVAILABLE);
  atomic_store(&provoke.threads, -1);
  assert_null(w);
  assert_string_equal(err.code, "worker.start");
}

static void test_order(void **state) {
  (void)state;
  page p = open_page();
  for (int i = 0; i < EACH; i++) {
    post_note(&p, 0, i);
  }
  (void)tm__worker_stop(p.worker);
  assert_int_equal(p.count, EACH);
  assert_true(p.in_order && p.on_thread);
}

typedef struct writer {
  page *page;
  int index;
  pthread_t thread;
} writer;

static void *write_many(void *arg) {
  writer *w = arg;
  for (int i = 0; i < EACH; i++) {
    post_note(w->page, w->index, i);
  }
  return NULL;
}

static void test_many_writers(void **state) {
  (void)state;
  page p = open_page();
  writer writers[WRITERS];
  for (int i = 0; i < WRITERS; i++) {
    writers[i] = (writer){.page = &p, .index = i};
    assert_int_equal(pthread_create(&writers[i].thread, NULL, write_many, &writers[i]), 0);
  }
  for (int i = 0; i < WRITERS; i++) {
    assert_int_equal(pthread_join(writers[i].thread, NULL), 0);
  }
  (void)tm__worker_stop(p.worker);
  assert_int_equal(p.count, WRITERS * EACH);
  assert_true(p.in_order && p.on_thread);
}

/* ---- messages that post the next one, also long after stop was asked for ---- */

typedef struct chain {
  tm_message message;
  tm_worker *here, *there;
  int left;
  uv_sem_t *last; /* told when none is left */
} chain;

static void pass_on(tm_message *m) {
  chain *c = (chain *)m;
  if (c->left-- > 0) {
    tm_worker *next = c->there != NULL ? c->there : c->here;
    c->there = c->there != NULL ? c->here : NULL;
    c->here = next;
    tm__worker_post(next, m);
  } else if (c->last != NULL) {
    uv_sem_post(c->last);
  }
}

static void test_posts_while_stopping(void **state) {
  (void)state;
  for (int round = 0; round < 20; round++) {
    page p = open_page();
    chain c = {.message.run = pass_on, .here = p.worker, .left = 1000};
    tm__worker_post(p.worker, &c.message);
    (void)tm__worker_stop(p.worker);
    assert_int_equal(c.left, -1);
  }
}

/* The reader of the last message stops the worker while its writer may still be inside post. */
static void test_stop_after_last_message(void **state) {
  (void)state;
  uv_sem_t last;
  assert_int_equal(uv_sem_init(&last, 0), 0);
  for (int round = 0; round < 200; round++) {
    page a = open_page();
    page b = open_page();
    chain c = {
        .message.run = pass_on, .here = a.worker, .there = b.worker, .left = 20, .last = &last};
    tm__worker_post(a.worker, &c.message);
    uv_sem_wait(&last);
    (void)tm__worker_stop(round % 2 == 0 ? a.worker : b.worker);
    (void)tm__worker_stop(round % 2 == 0 ? b.worker : a.worker);
    assert_int_equal(c.left, -1);
  }
  uv_sem_destroy(&last);
}

/* ---- a handle of an owner who closes it in a message that is posted while stopping ---- */

typedef struct owner {
  tm_message open, close;
  tm_worker *worker;
  uv_timer_t handle;
  bool closed;
} owner;

static void note_closed(uv_handle_t *handle) {
  owner *o = handle->data;
  o->closed = true;
}

static void close_handle(tm_message *m) {
  owner *o = (owner *)((char *)m - offsetof(owner, close));
  uv_close((uv_handle_t *)&o->handle, note_closed);
}

static void never(uv_timer_t *handle) {
  (void)handle;
  fail_msg("%s", "a timer of an hour ran");
}

static void open_handle(tm_message *m) {
  owner *o = (owner *)m;
  assert_int_equal(uv_timer_init(tm__worker_loop(o->worker), &o->handle), 0);
  o->handle.data = o;
  assert_int_equal(uv_timer_start(&o->handle, never, 3600000, 0), 0);
  o->close.run = close_handle;
  tm__worker_post(o->worker, &o->close);
}

static void test_handles_close_while_stopping(void **state) {
  (void)state;
  page p = open_page();
  owner o = {.open.run = open_handle, .worker = p.worker};
  tm__worker_post(p.worker, &o.open);
  assert_int_equal(tm__worker_stop(p.worker), 0);
  assert_true(o.closed);
}

static void forget_handle(tm_message *m) {
  owner *o = (owner *)m;
  assert_int_equal(uv_timer_init(tm__worker_loop(o->worker), &o->handle), 0);
  assert_int_equal(uv_timer_start(&o->handle, never, 3600000, 0), 0);
  uv_unref((uv_handle_t *)&o->handle);
}

static void test_forgotten_handles_are_counted(void **state) {
  (void)state;
  page p = open_page();
  owner o = {.open.run = forget_handle, .worker = p.worker};
  tm__worker_post(p.worker, &o.open);
  assert_int_equal(tm__worker_stop(p.worker), 1);
}

/* ---- signals ---- */

typedef struct mask {
  tm_message message;
  sigset_t blocked;
} mask;

static void read_mask(tm_message *m) {
  (void)pthread_sigmask(SIG_BLOCK, NULL, &((mask *)m)->blocked);
}

static void test_signals_are_blocked(void **state) {
  (void)state;
  page p = open_page();
  mask k = {.message.run = read_mask};
  tm__worker_post(p.worker, &k.message);
  (void)tm__worker_stop(p.worker);
  assert_true(sigismember(&k.blocked, SIGTERM));
  assert_true(sigismember(&k.blocked, SIGPIPE));
  assert_false(sigismember(&k.blocked, SIGSEGV));
}

/* ---- the queue alone ---- */

typedef struct errand {
  tm_beside beside;
  tm_message start;
  tm_worker *worker;
  bool away, back, served;
  uv_sem_t serve;
} errand;

static void do_errand(tm_beside *b) {
  errand *e = (errand *)(void *)b;
  e->away = !tm__worker_here(e->worker);
  uv_sem_wait(&e->serve); /* posted by the worker, which must go on meanwhile */
}

static void errand_done(tm_beside *b) {
  errand *e = (errand *)(void *)b;
  e->back = tm__worker_here(e->worker);
}

static void send_away(tm_message *m) {
  errand *e = (errand *)(void *)((char *)m - offsetof(errand, start));
  tm__worker_beside(e->worker, &e->beside);
}

typedef struct service {
  tm_message message;
  errand *errand;
} service;

static void serve(tm_message *m) {
  errand *e = ((service *)(void *)m)->errand;
  e->served = !e->back;
  uv_sem_post(&e->serve);
}

/* The loop goes on meanwhile; a worker that stops waits for what is beside it. */
static void test_work_beside(void **state) {
  (void)state;
  page p = open_page();
  errand e = {.worker = p.worker, .start.run = send_away};
  service s = {.message.run = serve, .errand = &e};
  e.beside = (tm_beside){.work = do_errand, .done = errand_done};
  assert_int_equal(uv_sem_init(&e.serve, 0), 0);
  tm__worker_post(p.worker, &e.start);
  tm__worker_post(p.worker, &s.message);
  tm__worker_stop(p.worker);
  assert_true(e.away && e.served && e.back);
  uv_sem_destroy(&e.serve);
}

static void test_queue(void **state) {
  (void)state;
  tm_queue q;
  tm_message a = {0};
  tm_message b = {0};
  bool ok = false;
  assert_int_equal(tm__queue_init(&q), 0);
  assert_null(tm__queue_take(&q));
  assert_true(tm__queue_push(&q, &a, &ok) && ok);
  assert_false(tm__queue_push(&q, &b, &ok));
  assert_true(ok);
  assert_false(tm__queue_close(&q));
  assert_ptr_equal(tm__queue_take(&q), &a);
  assert_ptr_equal(a.next, &b);
  assert_null(b.next);
  assert_true(tm__queue_push(&q, &b, &ok) && ok);
  assert_ptr_equal(tm__queue_take(&q), &b);
  assert_true(tm__queue_close(&q));
  assert_false(tm__queue_push(&q, &a, &ok));
  assert_false(ok);
  assert_null(tm__queue_take(&q));
  tm__queue_deinit(&q);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_start_and_stop),
      cmocka_unit_test(test_without_threads),
      cmocka_unit_test(test_order),
      cmocka_unit_test(test_many_writers),
      cmocka_unit_test(test_posts_while_stopping),
      cmocka_unit_test(test_stop_after_last_message),
      cmocka_unit_test(test_handles_close_while_stopping),
      cmocka_unit_test(test_forgotten_handles_are_counted),
      cmocka_unit_test(test_signals_are_blocked),
      cmocka_unit_test(test_work_beside),
      cmocka_unit_test(test_queue),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
