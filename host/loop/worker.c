/* worker.c - the thread: runs its loop, and its inbox from an async handle of the loop. */
#include "loop/worker.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "loop/timer.h"

struct tm_worker {
  uv_loop_t loop;
  uv_async_t wake;
  uv_thread_t thread; /* for joining */
  uv_thread_t self;   /* the same, written by the thread itself before `ready` */
  uv_sem_t ready;
  tm_queue inbox;
  tm_timers timers;
  tm_message stop;
  size_t left;   /* timers and handles that nobody closed */
  char name[16]; /* as long as the system allows */
};

/* What is posted meanwhile waits for the next time, so that the loop gets its turn too. */
static bool run_inbox(tm_worker *w) {
  tm_message *m = tm__queue_take(&w->inbox);
  bool any = m != NULL;
  while (m != NULL) {
    tm_message *next = m->next; /* run may free m */
    m->run(m);
    m = next;
  }
  return any;
}

static void on_wake(uv_async_t *handle) {
  (void)run_inbox(handle->data);
}

/* Signals are for the program's own threads. What a fault raises cannot be put off. */
static void block_signals(void) {
  static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS};
  sigset_t set;
  (void)sigfillset(&set);
  for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
    (void)sigdelset(&set, faults[i]);
  }
  (void)pthread_sigmask(SIG_BLOCK, &set, NULL);
}

static void close_left(uv_handle_t *handle, void *ud) {
  tm_worker *w = ud;
  if (uv_is_closing(handle)) return;
  w->left++;
  uv_close(handle, NULL);
}

static void worker_main(void *arg) {
  tm_worker *w = arg;
  block_signals();
  w->self = uv_thread_self();
  (void)pthread_setname_np(w->self, w->name);
  uv_sem_post(&w->ready);
  do {
    (void)uv_run(&w->loop, UV_RUN_DEFAULT); /* returns when `stop` has run and no handle is left */
  } while (run_inbox(w) || !tm__queue_close(&w->inbox));
  w->left = tm__timers_close(&w->timers);
  uv_close((uv_handle_t *)&w->wake, NULL);
  (void)uv_run(&w->loop, UV_RUN_DEFAULT);
  uv_walk(&w->loop, close_left, w);
  (void)uv_run(&w->loop, UV_RUN_DEFAULT);
}

static void on_stop(tm_message *m) {
  tm_worker *w = (tm_worker *)((char *)m - offsetof(tm_worker, stop));
  uv_unref((uv_handle_t *)&w->wake);
}

/* Each step undoes what came before it when it fails. */
static int open_thread(tm_worker *w) {
  int failed = uv_sem_init(&w->ready, 0);
  if (failed != 0) return failed;
  failed = uv_thread_create(&w->thread, worker_main, w);
  if (failed == 0) uv_sem_wait(&w->ready);
  uv_sem_destroy(&w->ready);
  return failed;
}

static int open_loop(tm_worker *w) {
  int failed = uv_loop_init(&w->loop);
  if (failed != 0) return failed;
  tm__timers_init(&w->timers, &w->loop);
  w->wake.data = w;
  failed = uv_async_init(&w->loop, &w->wake, on_wake);
  if (failed == 0) {
    failed = tm__timers_reserve(&w->timers) ? open_thread(w) : UV_ENOMEM;
    if (failed == 0) return 0;
    (void)tm__timers_close(&w->timers);
    uv_close((uv_handle_t *)&w->wake, NULL);
    (void)uv_run(&w->loop, UV_RUN_DEFAULT);
  }
  tm__timers_deinit(&w->timers);
  (void)uv_loop_close(&w->loop);
  return failed;
}

tm_status tm__worker_start(tm_worker **out, const char *name, tm_error *err) {
  *out = NULL;
  tm_worker *w = calloc(1, sizeof(*w));
  if (w == NULL) return tm__fail_memory(err, "a worker");
  (void)snprintf(w->name, sizeof(w->name), "%s", name);
  w->stop.run = on_stop;
  int failed = tm__queue_init(&w->inbox);
  if (failed == 0) {
    failed = open_loop(w);
    if (failed == 0) {
      *out = w;
      return TM_OK;
    }
    tm__queue_deinit(&w->inbox);
  }
  free(w);
  return tm__fail(err, TM_EUNAVAILABLE, "worker.start", "start the thread %s: %s", name,
                  uv_strerror(failed));
}

uv_loop_t *tm__worker_loop(tm_worker *w) {
  return &w->loop;
}

bool tm__worker_here(const tm_worker *w) {
  uv_thread_t here = uv_thread_self();
  return uv_thread_equal(&here, &w->self) != 0;
}

/* Waking under the lock: once the message is seen, somebody may stop the worker and free `wake`. */
void tm__worker_post(tm_worker *w, tm_message *m) {
  bool ok;
  uv_mutex_lock(&w->inbox.lock);
  if (tm__queue_push_locked(&w->inbox, m, &ok)) (void)uv_async_send(&w->wake);
  uv_mutex_unlock(&w->inbox.lock);
}

size_t tm__worker_stop(tm_worker *w) {
  if (w == NULL) return 0;
  tm__worker_post(w, &w->stop);
  (void)uv_thread_join(&w->thread);
  (void)uv_loop_close(&w->loop);
  tm__timers_deinit(&w->timers);
  tm__queue_deinit(&w->inbox);
  size_t left = w->left;
  free(w);
  return left;
}

static void on_beside(uv_work_t *work) {
  tm_beside *b = work->data;
  b->work(b);
}

static void on_beside_done(uv_work_t *work, int status) {
  (void)status; /* nobody cancels it */
  tm_beside *b = work->data;
  b->done(b);
}

void tm__worker_beside(tm_worker *w, tm_beside *b) {
  b->internal.data = b;
  (void)uv_queue_work(&w->loop, &b->internal, on_beside, on_beside_done); /* cannot fail */
}

tm_status tm__timer_start(tm_worker *w, uint64_t ms, tm_timer_fn fn, void *ud, uint64_t *id,
                          tm_error *err) {
  return tm__timers_start(&w->timers, ms, fn, ud, id, err);
}

bool tm__timer_cancel(tm_worker *w, uint64_t id) {
  return tm__timers_cancel(&w->timers, id);
}
