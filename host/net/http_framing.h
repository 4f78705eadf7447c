/* http_framing.h - is it plain what a request is and where it ends? libmicrohttpd is lenient; what
 * a proxy before us could read differently is refused, or one request could hide in another.
 */
#ifndef TM_NET_HTTP_FRAMING_H
#define TM_NET_HTTP_FRAMING_H

#include "net/http_exchange.h"

typedef struct tm_http_flaw {
  int status;
  const char *code; /* "request.header" */
  char detail[160];
} tm_http_flaw;

/* Once the headers are there. false: refuse with *flaw, and close the connection. */
bool tm__http_framing(tm_http_flaw *flaw, const tm_http_exchange *x, const char *version);
/* The same once the body is there. */
bool tm__http_framing_of_end(tm_http_flaw *flaw, const tm_http_exchange *x);

#endif
