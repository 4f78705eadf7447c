/* api.h - the HTTP interface: routes, who asks, problem+json. A client of tidemill.h. */
#ifndef TM_API_API_H
#define TM_API_API_H

#include "core/log.h"
#include "net/http_server.h"

typedef struct tm_api tm_api;
typedef struct tm_api_options {
  tm_host *host;
  const tm_log *log;
  const char *address; /* "127.0.0.1:8700" */
  size_t body_limit, memory_limit;
  int connection_limit, idle_timeout_s, request_timeout_s;
  bool (*ready)(void *ud, const char **why_not); /* any thread: for /readyz */
  void *ud;
} tm_api_options;

tm_status tm__api_start(tm_api **out, const tm_api_options *o, tm_error *err);
uint16_t tm__api_port(const tm_api *a);
void tm__api_quiesce(tm_api *a);
/* Waits for the answers that are still due, then stops. NULL allowed. */
void tm__api_stop(tm_api *a);

/* What core/errors.def says of err->code, else what belongs to err->status. */
int tm__api_http_status(const tm_error *err);

#endif
