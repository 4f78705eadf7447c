/* http_client.c - libcurl's multi interface on a worker's loop: sockets, its timer, completion.
 *
 * The loop watches one descriptor, an epoll set of curl's sockets: a request makes nothing that
 * libuv would have to find memory for, without which it calls abort().
 * Nothing of ours runs inside a callback of curl: transfers are delivered after curl has returned,
 * so whoever is called may start, cancel and close as it likes.
 */
#include "net/http_client.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "core/map.h"
#include "net/http_transfer.h"

#define IDLE_CONNECTIONS 64L
#define READY_AT_ONCE    64

struct tm_http_client {
  uv_loop_t *loop;
  uv_timer_t timer;
  uv_poll_t poll;
  int sockets;      /* the epoll set */
  CURLM *multi;     /* NULL: made when it is needed */
  tm_map transfers; /* bytes of the id -> tm_http_transfer */
  uint64_t last_id;
  size_t limit;   /* calls at once */
  size_t handles; /* open on the loop */
  bool unwatched; /* some transfer is */
  bool starved;   /* what fails in this turn of the loop fails for want of memory */
  bool stale;     /* `multi` was short of memory: another takes its place when nothing runs */
  bool broken;    /* ... and may not be used at all: its transfers end */
};

static tm_slice key_of(const uint64_t *id) {
  return (tm_slice){(const char *)id, sizeof(*id)};
}

static void release(tm_http_client *c) {
  tm__map_free(&c->transfers);
  (void)close(c->sockets);
  free(c);
  curl_global_cleanup();
}

/* ---- completion ---- */

static void detach(tm_http_client *c, tm_http_transfer *t) {
  (void)tm__map_remove(&c->transfers, key_of(&t->id));
  (void)curl_multi_remove_handle(c->multi, t->easy);
}

static void finish(tm_http_client *c, tm_http_transfer *t, CURLcode code) {
  detach(c, t);
  tm__http_transfer_deliver(t, code);
  tm__http_transfer_free(t);
}

static void drop_multi(tm_http_client *c) {
  (void)curl_multi_cleanup(c->multi); /* takes its sockets back by on_socket_change */
  (void)uv_timer_stop(&c->timer);
  c->multi = NULL;
  c->stale = c->broken = false;
}

static void end_unwatched(tm_http_client *c) {
  size_t at = 0;
  tm_slice key;
  void *transfer;
  while (c->unwatched && c->multi != NULL) {
    bool more = tm__map_next(&c->transfers, &at, &key, &transfer);
    c->unwatched = more;
    if (!more || !((tm_http_transfer *)transfer)->unwatched) continue;
    ((tm_http_transfer *)transfer)->starved = true;
    finish(c, transfer, CURLE_OUT_OF_MEMORY);
    at = 0; /* whoever was told may have changed the table */
  }
}

static void deliver_finished(tm_http_client *c) {
  int left;
  CURLMsg *message;
  while (c->multi != NULL && (message = curl_multi_info_read(c->multi, &left)) != NULL) {
    if (message->msg != CURLMSG_DONE) continue;
    CURLcode code = message->data.result;
    char *private = NULL;
    (void)curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &private);
    tm_http_transfer *t = (tm_http_transfer *)(void *)private;
    t->starved = c->starved;
    finish(c, t, code);
  }
  end_unwatched(c);
  c->starved = false;
  if (c->stale && c->transfers.count == 0) drop_multi(c);
}

/* ---- what curl wants to know ---- */

/* Where curl could not note what to wait for, it does not say for which transfer. */
static void mark_unwatched(tm_http_client *c) {
  size_t at = 0;
  tm_slice key;
  void *transfer;
  while (tm__map_next(&c->transfers, &at, &key, &transfer))
    ((tm_http_transfer *)transfer)->unwatched = c->unwatched = true;
}

/* curl does not always say that a transfer failed for want of memory; errno then does. A table of
 * curl's that could not grow is gone, and the next entry divides by its size: 0. */
static void act(tm_http_client *c, curl_socket_t fd, int flags) {
  int running;
  if (c->multi == NULL || c->broken) return;
  errno = 0;
  c->broken = curl_multi_socket_action(c->multi, fd, flags, &running) != CURLM_OK;
  if (c->broken) mark_unwatched(c);
  c->starved = c->starved || c->broken || errno == ENOMEM;
  c->stale = c->stale || c->starved;
}

static void on_timer(uv_timer_t *timer) {
  tm_http_client *c = timer->data;
  act(c, CURL_SOCKET_TIMEOUT, 0);
  deliver_finished(c);
}

static int on_timer_change(CURLM *multi, long timeout_ms, void *ud) {
  tm_http_client *c = ud;
  (void)multi;
  if (timeout_ms < 0) return uv_timer_stop(&c->timer);
  return uv_timer_start(&c->timer, on_timer, (uint64_t)timeout_ms, 0) == 0 ? 0 : -1;
}

/* What is not taken now is still ready at the next turn of the loop. A socket that curl has closed
 * meanwhile is unknown to it, and that is all. */
static void on_ready(uv_poll_t *poll, int status, int events) {
  tm_http_client *c = poll->data;
  struct epoll_event ready[READY_AT_ONCE];
  (void)status;
  (void)events;
  int n = epoll_wait(c->sockets, ready, READY_AT_ONCE, 0);
  for (int i = 0; i < n; i++) {
    int flags = (ready[i].events & EPOLLERR) != 0 ? CURL_CSELECT_ERR : 0;
    if ((ready[i].events & (EPOLLIN | EPOLLHUP)) != 0) flags |= CURL_CSELECT_IN;
    if ((ready[i].events & EPOLLOUT) != 0) flags |= CURL_CSELECT_OUT;
    act(c, ready[i].data.fd, flags);
  }
  deliver_finished(c);
}

static bool watch(tm_http_client *c, curl_socket_t fd, int what) {
  struct epoll_event e = {.data.fd = fd};
  if (what != CURL_POLL_OUT) e.events |= EPOLLIN;
  if (what != CURL_POLL_IN) e.events |= EPOLLOUT;
  return epoll_ctl(c->sockets, EPOLL_CTL_MOD, fd, &e) == 0 ||
         (errno == ENOENT && epoll_ctl(c->sockets, EPOLL_CTL_ADD, fd, &e) == 0);
}

/* Saying no to curl would end every transfer of the client, and each later one: this one ends. */
static int on_socket_change(CURL *easy, curl_socket_t fd, int what, void *ud, void *socket_ud) {
  tm_http_client *c = ud;
  char *private = NULL;
  (void)socket_ud;
  if (what == CURL_POLL_REMOVE) {
    (void)epoll_ctl(c->sockets, EPOLL_CTL_DEL, fd, NULL);
  } else if (!watch(c, fd, what)) {
    (void)curl_easy_getinfo(easy, CURLINFO_PRIVATE, &private);
    tm_http_transfer *t = (tm_http_transfer *)(void *)private;
    if (t != NULL) t->unwatched = c->unwatched = true;
  }
  return 0;
}

static bool set_up_multi(tm_http_client *c) {
  c->multi = curl_multi_init();
  bool ok = c->multi != NULL &&
            curl_multi_setopt(c->multi, CURLMOPT_SOCKETFUNCTION, on_socket_change) == CURLM_OK &&
            curl_multi_setopt(c->multi, CURLMOPT_SOCKETDATA, c) == CURLM_OK &&
            curl_multi_setopt(c->multi, CURLMOPT_TIMERFUNCTION, on_timer_change) == CURLM_OK &&
            curl_multi_setopt(c->multi, CURLMOPT_TIMERDATA, c) == CURLM_OK &&
            curl_multi_setopt(c->multi, CURLMOPT_MAXCONNECTS, IDLE_CONNECTIONS) == CURLM_OK;
  if (ok) return true;
  (void)curl_multi_cleanup(c->multi);
  c->multi = NULL;
  return false;
}

/* ---- calls ---- */

tm_status tm__http_start(tm_http_client *c, const tm_http_call *call, tm_http_done_fn fn, void *ud,
                         uint64_t *id, tm_error *err) {
  tm_http_transfer *t = NULL;
  if (tm__http_calls(c) >= c->limit)
    return tm__fail(
        err, TM_EUNAVAILABLE, "http.busy",
        "%zu outgoing requests are under way, as many as a worker may make at once; try "
        "again later",
        c->limit);
  if (c->stale && c->transfers.count == 0) drop_multi(c);
  if (c->broken || (c->multi == NULL && !set_up_multi(c)))
    return tm__fail_memory(err, "the HTTP client");
  tm_status st = tm__http_transfer_new(&t, call, err);
  if (st != TM_OK) return st;
  t->id = ++c->last_id;
  t->fn = fn;
  t->ud = ud;
  if (!tm__map_set(&c->transfers, key_of(&t->id), t)) {
    tm__http_transfer_free(t);
    return tm__fail_memory(err, "a request");
  }
  if (curl_multi_add_handle(c->multi, t->easy) != CURLM_OK) {
    (void)tm__map_remove(&c->transfers, key_of(&t->id));
    tm__http_transfer_free(t);
    return tm__fail_memory(err, "a request");
  }
  *id = t->id;
  return TM_OK;
}

bool tm__http_cancel(tm_http_client *c, uint64_t id) {
  tm_http_transfer *t = tm__map_get(&c->transfers, key_of(&id));
  if (t == NULL) return false;
  detach(c, t);
  tm__http_transfer_free(t);
  return true;
}

size_t tm__http_calls(const tm_http_client *c) {
  return c->transfers.count;
}

/* ---- life ---- */

/* Counted by libcurl, one cleanup for each; threads may call it at once if it says so. */
static tm_status start_curl(tm_error *err) {
  const curl_version_info_data *v = curl_version_info(CURLVERSION_NOW);
  if ((v->features & CURL_VERSION_THREADSAFE) == 0 || (v->features & CURL_VERSION_ASYNCHDNS) == 0)
    return tm__fail(err, TM_EUNSUPPORTED, "http.library",
                    "libcurl %s was built without thread-safe start or without asynchronous DNS",
                    v->version);
  if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
    return tm__fail_memory(err, "the HTTP client");
  return TM_OK;
}

typedef struct opening {
  tm_message message;
  tm_http_client *client;
  uv_sem_t done;
  int failed;
} opening;

/* On the worker's thread, which alone touches its loop. */
static void open_handles(tm_message *m) {
  opening *o = (opening *)(void *)m;
  tm_http_client *c = o->client;
  o->failed = uv_poll_init(c->loop, &c->poll, c->sockets);
  if (o->failed == 0) {
    (void)uv_timer_init(c->loop, &c->timer);              /* cannot fail */
    (void)uv_poll_start(&c->poll, UV_READABLE, on_ready); /* nor this, on a fresh handle */
    c->poll.data = c->timer.data = c;
    c->handles = 2;
  }
  uv_sem_post(&o->done);
}

static bool open_on(tm_http_client *c, tm_worker *w) {
  opening o = {.message.run = open_handles, .client = c};
  c->loop = tm__worker_loop(w);
  c->sockets = epoll_create1(EPOLL_CLOEXEC);
  if (c->sockets < 0 || uv_sem_init(&o.done, 0) != 0) return false;
  if (tm__worker_here(w))
    open_handles(&o.message);
  else
    tm__worker_post(w, &o.message);
  uv_sem_wait(&o.done);
  uv_sem_destroy(&o.done);
  return o.failed == 0;
}

tm_status tm__http_client_new(tm_http_client **out, tm_worker *w, size_t limit, tm_error *err) {
  *out = NULL;
  tm_status st = start_curl(err);
  if (st != TM_OK) return st;
  tm_http_client *c = calloc(1, sizeof(*c));
  if (c != NULL) *c = (tm_http_client){.sockets = -1, .limit = limit};
  if (c != NULL && set_up_multi(c) && open_on(c, w)) {
    *out = c;
    return TM_OK;
  }
  if (c != NULL) {
    (void)curl_multi_cleanup(c->multi);
    if (c->sockets >= 0) (void)close(c->sockets);
  }
  free(c);
  curl_global_cleanup();
  return tm__fail_memory(err, "the HTTP client");
}

static void on_closed(uv_handle_t *handle) {
  tm_http_client *c = handle->data;
  if (--c->handles == 0) release(c);
}

void tm__http_client_close(tm_http_client *c) {
  if (c == NULL) return;
  size_t at = 0;
  tm_slice key;
  void *transfer;
  while (tm__map_next(&c->transfers, &at, &key, &transfer)) {
    detach(c, transfer);
    tm__http_transfer_free(transfer);
  }
  drop_multi(c);
  uv_close((uv_handle_t *)&c->timer, on_closed);
  uv_close((uv_handle_t *)&c->poll, on_closed);
}
