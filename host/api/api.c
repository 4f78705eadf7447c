/* api.c - the HTTP interface's life: from the server's hooks to routes, and what is still owed. */
#include "api/api.h"

#include <stdlib.h>
#include <string.h>

#include "api/owing.h"
#include "api/problem.h"
#include "api/routes.h"

#define RETRY_MS 1000 /* what a client waits that was refused because too much goes on */

struct tm_api {
  tm_api_options o;
  tm_guard guard;
  tm_http_server *server;
  tm_owing owing;
};

typedef struct owed {
  tm_api *api;
  tm_http_exchange *x;
  tm_owing_tenant *to;
  int http_status;
} owed;

/* ---- answers that come later ---- */

tm_status tm__api_owe(void **out, const tm_api_request *r, int http_status, tm_error *err) {
  owed *o = malloc(sizeof(*o));
  *out = NULL;
  if (o == NULL) return tm__fail_memory(err, "a request");
  *o = (owed){.api = r->api, .x = r->x, .http_status = http_status};
  tm_status status = tm__owing_add(&r->api->owing, r->tenant, r->brief, &o->to, err);
  if (status == TM_OK)
    *out = o;
  else
    free(o);
  return status;
}

void tm__api_answer(void *ud, const tm_reply *reply) {
  owed *o = ud;
  tm_api *a = o->api;
  tm_owing_tenant *to = o->to;
  if (reply->status == TM_OK)
    tm__http_reply(o->x, o->http_status, "application/json", (tm_slice){reply->json, reply->size},
                   NULL);
  else
    tm__problem_answer(o->x, reply->error, NULL);
  free(o);
  tm__owing_settle(&a->owing, to); /* last: the server may be stopped after this */
}

bool tm__api_is_ready(const tm_api *a, const char **why_not) {
  return a->o.ready == NULL || a->o.ready(a->o.ud, why_not);
}

/* ---- the server's hooks ---- */

static void handle(void *ud, tm_http_exchange *x) {
  tm_api *a = ud;
  tm_api_request r = {.api = a, .host = a->o.host, .x = x};
  char allow[TM_ALLOW_SIZE] = "";
  tm_error err;
  tm_status st = tm__guard_origin(&a->guard, x, &err);
  if (st == TM_OK) st = tm__guard_single(x, &err);
  if (st == TM_OK) st = tm__guard_tenant(r.tenant, x, &err);
  if (st == TM_OK) st = tm__route(&r, allow, &err);
  if (st != TM_OK) tm__problem_answer(x, &err, allow[0] != '\0' ? allow : NULL);
}

static void refuse(void *ud, tm_http_exchange *x, int status, const char *code,
                   const char *detail) {
  tm_error err;
  (void)ud;
  (void)tm__fail(&err, TM_EINVAL, code, "%s", detail);
  if (status == 503) err.retry_after_ms = RETRY_MS;
  tm__problem_reply(x, status, &err, NULL);
}

/* ---- life ---- */

/* Headers say who asks, and everybody who reaches the address may send them. */
static void warn_if_open(const tm_api *a) {
  if (a->guard.loopback) return;
  tm__log(a->o.log, TM_LOG_WARNING,
          "there is no authentication: whoever reaches this address may act for every tenant; "
          "listen on 127.0.0.1 behind a proxy that authenticates",
          "listen", a->o.address, NULL);
}

static tm_status start_server(tm_api *a, tm_error *err) {
  tm_http_options http = {
      .host = a->guard.host,
      .body_limit = a->o.body_limit,
      .memory_limit = a->o.memory_limit,
      .connection_limit = a->o.connection_limit,
      .idle_timeout_s = a->o.idle_timeout_s,
      .request_timeout_s = a->o.request_timeout_s,
      .log = a->o.log,
      .handler = handle,
      .refuse = refuse,
      .ud = a,
  };
  tm_status st = tm__guard_init(&a->guard, &http.port, a->o.address, err);
  if (st == TM_OK) st = tm__http_server_start(&a->server, &http, err);
  if (st == TM_OK) warn_if_open(a);
  return st;
}

static void release(tm_api *a) {
  tm__owing_deinit(&a->owing);
  free(a);
}

tm_status tm__api_start(tm_api **out, const tm_api_options *o, tm_error *err) {
  *out = NULL;
  tm_api *a = calloc(1, sizeof(*a));
  if (a == NULL) return tm__fail_memory(err, "the HTTP interface");
  a->o = *o;
  tm__owing_init(&a->owing, o->connection_limit);
  tm_status st = start_server(a, err);
  if (st == TM_OK)
    *out = a;
  else
    release(a);
  return st;
}

uint16_t tm__api_port(const tm_api *a) {
  return tm__http_server_port(a->server);
}

void tm__api_quiesce(tm_api *a) {
  tm__http_server_quiesce(a->server);
}

void tm__api_stop(tm_api *a) {
  if (a == NULL) return;
  tm__api_quiesce(a);
  tm__owing_finish(&a->owing);
  tm__http_server_stop(a->server);
  release(a);
}
