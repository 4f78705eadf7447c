/* http_client.h - HTTP out: libcurl multi on a worker's loop. No retries, no policy. */
#ifndef TM_NET_HTTP_CLIENT_H
#define TM_NET_HTTP_CLIENT_H

#include "core/buf.h"
#include "core/err.h"
#include "loop/worker.h"

typedef struct tm_http_client tm_http_client;

typedef struct tm_http_call { /* copied by tm__http_start, but for the body */
  const char *method,
      *url; /* http and https only; redirects are followed for GET and HEAD, on the same host */
  const char *const *headers; /* NULL-terminated "Name: value" lines, or NULL */
  tm_slice body;              /* ptr NULL: none; borrowed until fn is called or it is cancelled */
  int64_t timeout_ms;         /* the whole request */
  size_t max_response;        /* bytes of the body; more is the error "http.too_large" */
  /* Asked with the ud of fn before so many bytes more are kept of the answer; false: the call
   * fails. NULL: any number. */
  bool (*room)(void *ud, size_t bytes);
  bool discard; /* nobody reads the body: it is empty, however long it was */
  bool direct;  /* past any proxy that the environment names */
} tm_http_call;

typedef struct tm_http_result {
  const tm_error *error; /* NULL: an answer came. Codes: http.timeout, http.connect, http.resolve,
                            http.tls, http.too_large, http.redirect, http.invalid, http.failed */
  int status;
  tm_slice body;
  tm_slice headers; /* raw "name: value\r\n" lines of the final answer */
} tm_http_result;
/* On the worker's thread; the result is valid during the call. */
typedef void (*tm_http_done_fn)(void *ud, const tm_http_result *result);

/* Any thread; waits for the worker's. At most `limit` calls are under way at once: each may take a
 * descriptor. */
tm_status tm__http_client_new(tm_http_client **out, tm_worker *w, size_t limit, tm_error *err);
/* All that follows on the worker's thread. */
/* fn is called later, never before this returns. A call that cannot be made (method, URL, header,
 * time) fails here with TM_EINVAL "http.invalid", one too many with TM_EUNAVAILABLE "http.busy". */
tm_status tm__http_start(tm_http_client *c, const tm_http_call *call, tm_http_done_fn fn, void *ud,
                         uint64_t *id, tm_error *err);
bool tm__http_cancel(tm_http_client *c,
                     uint64_t id);              /* fn is not called any more; false: unknown */
size_t tm__http_calls(const tm_http_client *c); /* how many are under way */
/* Cancels all, closes its handles on the loop; frees itself when the loop has let go. NULL allowed.
 */
void tm__http_client_close(tm_http_client *c);

#endif
