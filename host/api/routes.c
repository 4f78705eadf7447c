/* routes.c - the table of routes: which method on which path does what. */
#include "api/routes.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "api/handlers.h"
#include "api/query.h"
#include "core/json.h"

#define METHODS_SIZE (TM_ALLOW_SIZE - sizeof("Allow: \n"))
#define C            "/v1/conversations"

typedef struct route {
  const char *method, *path;
  tm_route_fn run; /* NULL: known, not supported yet */
  int argument;
  const char *query; /* the names that its query may have */
} route;

static const route routes[] = {
    {"POST", C "/{}/messages", tm__handle_message, 0, ""},
    {"POST", C, tm__handle_start, 0, ""},
    {"GET", C "/{}", tm__handle_read, TM_READ_CONVERSATION, ""},
    {"GET", C "/{}/steps", tm__handle_read, TM_READ_STEPS, "limit,cursor"},
    {"GET", C "/{}/messages", tm__handle_read, TM_READ_MESSAGES, "limit,cursor"},
    {"GET", C "/{}/checkpoints", tm__handle_read, TM_READ_CHECKPOINTS, "limit,cursor"},
    {"GET", C, tm__handle_list, 0, "session_id,status,system,flow_id,limit,cursor"},
    {"POST", C "/{}/rollback", tm__handle_rollback, 0, ""},
    {"POST", C "/{}/fork", tm__handle_fork, 0, ""},
    {"POST", C "/{}/checkpoints", tm__handle_checkpoint, 0, ""},
    {"POST", C "/{}/approval", tm__handle_approval, 0, ""},
    {"POST", C "/{}/event", tm__handle_event, 0, ""},
    {"POST", C "/{}/pause", tm__handle_steer, TM_STEER_PAUSE, ""},
    {"POST", C "/{}/resume", tm__handle_steer, TM_STEER_RESUME, ""},
    {"POST", C "/{}/cancel", tm__handle_steer, TM_STEER_CANCEL, ""},
    {"POST", C "/{}/migrate", tm__handle_migrate, 0, ""},
    {"GET", "/v1/sessions", tm__handle_sessions, 0, "status,limit,cursor"},
    {"GET", "/v1/sessions/{}", tm__handle_session, 0, ""},
    {"DELETE", "/v1/sessions/{}", tm__handle_session_end, 0, ""},
    {"GET", "/v1/outbox", tm__handle_outbox, 0, "status,limit,cursor"},
    {"POST", "/v1/outbox/{}/retry", tm__handle_outbox_retry, 0, ""},
    {"GET", "/v1/systems", tm__handle_systems, 0, ""},
    {"GET", "/v1/systems/{}/flows", tm__handle_systems, 1, ""},
    {"GET", "/v1/systems/{}/flows/{}", tm__handle_systems, 2, ""},
    {"POST", "/v1/admin/reload", tm__handle_reload, 0, ""},
    {"GET", "/livez", tm__handle_live, 0, ""},
    {"GET", "/readyz", tm__handle_ready, 0, ""},
    {"GET", C "/{}/events", NULL, 0, ""},
    {"POST", C "/{}/takeover", NULL, 0, ""},
    {"POST", C "/{}/handback", NULL, 0, ""},
    {"GET", "/v1/systems/{}/flows/{}/graph", NULL, 0, ""},
    {"GET", "/metrics", NULL, 0, ""},
    {"GET", "/openapi.json", NULL, 0, ""},
};
#define ROUTES (sizeof(routes) / sizeof(routes[0]))

/* ---- matching ---- */

/* What is left encoded in a path: what would part it, and what encodes. 0: `at` begins neither. */
static char encoded_at(const char *at, const char *end) {
  if (end - at < 3 || at[0] != '%' || at[1] != '2') return 0;
  return at[2] == 'F' || at[2] == 'f' ? '/' : at[2] == '5' ? '%' : 0;
}

static bool take_param(char out[TM_SEGMENT_SIZE], tm_slice segment) {
  const char *end = segment.ptr + segment.len;
  size_t len = 0;
  for (const char *at = segment.ptr; at < end; at++) {
    char encoded = encoded_at(at, end);
    if ((unsigned char)*at < ' ' || len + 1 == TM_SEGMENT_SIZE) return false;
    out[len++] = encoded != 0 ? encoded : *at;
    if (encoded != 0) at += 2;
  }
  out[len] = '\0';
  return len > 0 && tm__utf8_valid((tm_slice){out, len});
}

/* Does `path` have the pattern's shape? "{}" stands for one segment. */
static bool matches(const char *pattern, tm_slice path, char params[][TM_SEGMENT_SIZE]) {
  const char *at = path.ptr, *end = path.ptr + path.len;
  for (size_t n = 0; *pattern != '\0';) {
    if (pattern[0] == '{') {
      const char *stop = at < end ? memchr(at, '/', (size_t)(end - at)) : NULL;
      if (stop == NULL) stop = end;
      if (!take_param(params[n++], (tm_slice){at, (size_t)(stop - at)})) return false;
      at = stop;
      pattern += 2;
    } else if (at == end || *at++ != *pattern++) {
      return false;
    }
  }
  return at == end;
}

/* HEAD is a GET whose body stays here. */
static bool has_method(const route *r, tm_slice method) {
  return tm__slice_is(method, r->method) ||
         (tm__slice_is(method, "HEAD") && strcmp(r->method, "GET") == 0);
}

static void add_method(char methods[METHODS_SIZE], const char *method) {
  size_t len = strlen(methods);
  (void)snprintf(methods + len, METHODS_SIZE - len, "%s%s%s", len > 0 ? ", " : "", method,
                 strcmp(method, "GET") == 0 ? ", HEAD" : "");
}

/* NULL: none; `methods` then names those that the path has. */
static const route *find(tm_api_request *r, tm_slice method, tm_slice path,
                         char methods[METHODS_SIZE]) {
  methods[0] = '\0';
  for (size_t i = 0; i < ROUTES; i++) {
    if (!matches(routes[i].path, path, r->params)) continue;
    if (has_method(&routes[i], method)) return &routes[i];
    add_method(methods, routes[i].method);
  }
  return NULL;
}

/* ---- running ---- */

/* A stream was asked for: answering with something else would be a surprise. */
static bool wants_stream(const tm_http_exchange *x) {
  const char *accept = tm__http_header(x, "Accept").ptr;
  return accept != NULL && strcasestr(accept, "text/event-stream") != NULL;
}

static tm_status unsupported(const tm_http_exchange *x, const char *what, tm_error *err) {
  return tm__fail(err, TM_EUNSUPPORTED, "route.unsupported", "%s %.200s%s is not supported yet",
                  tm__http_method(x).ptr, tm__http_path(x).ptr, what);
}

/* Looks, or ends what waits: who may not do that any more could not get out of a jam. */
static bool is_brief(const route *found) {
  return strcmp(found->method, "POST") != 0 || found->run == tm__handle_reload ||
         (found->run == tm__handle_steer && found->argument != TM_STEER_RESUME);
}

static tm_status run(const tm_api_request *r, const route *found, tm_error *err) {
  if (found->run == NULL) return unsupported(r->x, "", err);
  bool post = strcmp(found->method, "POST") == 0;
  if (post && wants_stream(r->x)) return unsupported(r->x, " as text/event-stream", err);
  tm_status st = tm__query_known(r->x, found->query, err);
  if (st == TM_OK && post) st = tm__guard_content_type(r->x, err);
  return st == TM_OK ? found->run(r, found->argument, err) : st;
}

tm_status tm__route(tm_api_request *r, char allow[TM_ALLOW_SIZE], tm_error *err) {
  char methods[METHODS_SIZE];
  tm_slice path = tm__http_path(r->x), method = tm__http_method(r->x);
  allow[0] = '\0';
  const route *found = find(r, method, path, methods);
  r->brief = found != NULL && is_brief(found);
  if (found != NULL) return run(r, found, err);
  if (methods[0] == '\0')
    return tm__fail(err, TM_ENOTFOUND, "route.not_found", "there is nothing at %.200s", path.ptr);
  (void)snprintf(allow, TM_ALLOW_SIZE, "Allow: %s\n", methods);
  return tm__fail(err, TM_EINVAL, "route.method", "%.200s takes %s only", path.ptr, methods);
}
