/* request.h - one request on its way to a route, and the answer a host function owes it. */
#ifndef TM_API_REQUEST_H
#define TM_API_REQUEST_H

#include "api/api.h"
#include "api/guard.h"

#define TM_PATH_PARAMS  2
#define TM_SEGMENT_SIZE 129

typedef struct tm_api_request { /* of the HTTP thread, for the time of the handler */
  tm_api *api;
  tm_host *host;
  tm_http_exchange *x;
  char tenant[TM_TENANT_SIZE];
  bool brief;                                   /* it waits for no turn */
  char params[TM_PATH_PARAMS][TM_SEGMENT_SIZE]; /* what stood for {…} in the path */
} tm_api_request;

/* A route answers: at once (and returns TM_OK), or by a host function with the callback and its
 * data from tm__api_owe, or by returning an error that becomes a problem. */
typedef tm_status (*tm_route_fn)(const tm_api_request *r, int argument, tm_error *err);

/* *out is data for tm__api_answer, which must then be called exactly once; it replies with
 * `http_status` when all went well. */
tm_status tm__api_owe(void **out, const tm_api_request *r, int http_status, tm_error *err);
void tm__api_answer(void *owed, const tm_reply *reply); /* a tm_reply_fn; any thread */

/* tm_api_options.ready */
bool tm__api_is_ready(const tm_api *a, const char **why_not);

#endif
