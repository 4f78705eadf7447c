/* http_client.c - libcurl's multi interface on a worker's loop: sockets, its timer, completion.
 *
 * Nothing of ours runs inside a callback of curl: transfers are delivered after curl has returned,
 * so whoever is called may start, cancel and close as it likes.
 */
#include "net/http_client.h"

#include <stdlib.h>

#include "core/map.h"
#include "net/http_transfer.h"

#define IDLE_CONNECTIONS 64L

typedef struct watch { /* one socket of curl */
  uv_poll_t poll;
  tm_http_client *client;
  curl_socket_t fd;
} watch;

struct tm_http_client {
  uv_loop_t *loop;
  uv_timer_t timer;
  CURLM *multi;     /* NULL once closed */
  tm_map transfers; /* bytes of the id -> tm_http_transfer */
  uint64_t last_id;
  size_t limit;   /* calls at once */
  size_t handles; /* open on the loop */
};

static tm_slice key_of(const uint64_t *id) {
  return (tm_slice){(const char *)id, sizeof(*id)};
}

static void release(tm_http_client *c) {
  tm__map_free(&c->transfers);
  free(c);
  curl_global_cleanup();
}

/* ---- completion ---- */

static void detach(tm_http_client *c, tm_http_transfer *t) {
  (void)tm__map_remove(&c->transfers, key_of(&t->id));
  (void)curl_multi_remove_handle(c->multi, t->easy);
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
    detach(c, t);
    tm__http_transfer_deliver(t, code);
    tm__http_transfer_free(t);
  }
}

/* ---- what curl wants to know ---- */

static void on_timer(uv_timer_t *timer) {
  tm_http_client *c = timer->data;
  int running;
  (void)curl_multi_socket_action(c->multi, CURL_SOCKET_TIMEOUT, 0, &running);
  deliver_finished(c);
}

static int on_timer_change(CURLM *multi, long timeout_ms, void *ud) {
  tm_http_client *c = ud;
  (void)multi;
  if (timeout_ms < 0) return uv_timer_stop(&c->timer);
  return uv_timer_start(&c->timer, on_timer, (uint64_t)timeout_ms, 0) == 0 ? 0 : -1;
}

static void on_ready(uv_poll_t *poll, int status, int events) {
  const watch *w = poll->data;
  tm_http_client *c = w->client;
  int flags = status < 0 ? CURL_CSELECT_ERR : 0, running;
  if ((events & UV_READABLE) != 0) flags |= CURL_CSELECT_IN;
  if ((events & UV_WRITABLE) != 0) flags |= CURL_CSELECT_OUT;
  (void)curl_multi_socket_action(c->multi, w->fd, flags, &running);
  deliver_finished(c);
}

static void handle_closed(tm_http_client *c) {
  if (--c->handles == 0 && c->multi == NULL) release(c);
}

static void on_watch_closed(uv_handle_t *handle) {
  watch *w = handle->data;
  tm_http_client *c = w->client;
  free(w);
  handle_closed(c);
}

static watch *watch_new(tm_http_client *c, curl_socket_t fd) {
  watch *w = calloc(1, sizeof(*w));
  if (w == NULL || uv_poll_init_socket(c->loop, &w->poll, fd) != 0) {
    free(w);
    return NULL;
  }
  w->poll.data = w;
  w->client = c;
  w->fd = fd;
  c->handles++;
  (void)curl_multi_assign(c->multi, fd, w);
  return w;
}

static int on_socket_change(CURL *easy, curl_socket_t fd, int what, void *ud, void *socket_ud) {
  tm_http_client *c = ud;
  watch *w = socket_ud;
  (void)easy;
  if (what == CURL_POLL_REMOVE) {
    if (w == NULL) return 0;
    (void)curl_multi_assign(c->multi, fd, NULL);
    uv_close((uv_handle_t *)&w->poll, on_watch_closed);
    return 0;
  }
  if (w == NULL) w = watch_new(c, fd);
  if (w == NULL) return -1;
  int events = 0;
  if (what != CURL_POLL_OUT) events |= UV_READABLE;
  if (what != CURL_POLL_IN) events |= UV_WRITABLE;
  return uv_poll_start(&w->poll, events, on_ready) == 0 ? 0 : -1;
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

static bool set_up_multi(tm_http_client *c) {
  c->multi = curl_multi_init();
  return c->multi != NULL &&
         curl_multi_setopt(c->multi, CURLMOPT_SOCKETFUNCTION, on_socket_change) == CURLM_OK &&
         curl_multi_setopt(c->multi, CURLMOPT_SOCKETDATA, c) == CURLM_OK &&
         curl_multi_setopt(c->multi, CURLMOPT_TIMERFUNCTION, on_timer_change) == CURLM_OK &&
         curl_multi_setopt(c->multi, CURLMOPT_TIMERDATA, c) == CURLM_OK &&
         curl_multi_setopt(c->multi, CURLMOPT_MAXCONNECTS, IDLE_CONNECTIONS) == CURLM_OK;
}

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

tm_status tm__http_client_new(tm_http_client **out, tm_worker *w, size_t limit, tm_error *err) {
  *out = NULL;
  tm_status st = start_curl(err);
  if (st != TM_OK) return st;
  tm_http_client *c = calloc(1, sizeof(*c));
  if (c == NULL || !set_up_multi(c)) {
    if (c != NULL) (void)curl_multi_cleanup(c->multi);
    free(c);
    curl_global_cleanup();
    return tm__fail_memory(err, "the HTTP client");
  }
  c->limit = limit;
  c->loop = tm__worker_loop(w);
  (void)uv_timer_init(c->loop, &c->timer);
  c->timer.data = c;
  c->handles = 1;
  *out = c;
  return TM_OK;
}

static void on_timer_closed(uv_handle_t *handle) {
  handle_closed(handle->data);
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
  (void)curl_multi_cleanup(c->multi); /* takes its sockets back by on_socket_change */
  c->multi = NULL;
  uv_close((uv_handle_t *)&c->timer, on_timer_closed);
}
