/* http_transfer.h - one outgoing request: checked, made a curl easy handle, collected, judged.
 *
 * Knows nothing about the loop; http_client.c drives it.
 */
#ifndef TM_NET_HTTP_TRANSFER_H
#define TM_NET_HTTP_TRANSFER_H

#include <curl/curl.h>

#include "net/http_client.h"

typedef struct tm_http_transfer {
  uint64_t id;
  CURL *easy;
  struct curl_slist *lines;
  char *host;       /* of the URL; of curl */
  bool strayed;     /* a redirect led to another host */
  char origin[128]; /* "GET api.example.org": for errors; a path may hold secrets */
  tm_buf body, headers;
  size_t max_response;
  bool discard;
  bool too_large, headers_too_large;
  unsigned header_count;
  bool starved;   /* when it failed memory was short */
  bool unwatched; /* nobody would hear what its socket has to say */
  char detail[CURL_ERROR_SIZE];
  bool (*room)(void *ud, size_t bytes);
  tm_http_done_fn fn;
  void *ud;
} tm_http_transfer;

tm_status tm__http_transfer_new(tm_http_transfer **out, const tm_http_call *call, tm_error *err);
void tm__http_transfer_free(tm_http_transfer *t); /* must not be in a multi handle; NULL allowed */
/* Calls t->fn with what came of it. */
void tm__http_transfer_deliver(tm_http_transfer *t, CURLcode code);

#endif
