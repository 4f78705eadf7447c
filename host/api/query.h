/* query.h - checked values of the query part of a request. */
#ifndef TM_API_QUERY_H
#define TM_API_QUERY_H

#include "net/http_server.h"

/* Every name must be among `known` ("limit,cursor"), and stand there once: TM_EINVAL
 * "request.query". */
tm_status tm__query_known(const tm_http_exchange *x, const char *known, tm_error *err);
/* *out: NULL when absent, else 1 to `max` bytes of UTF-8, borrowed until the reply. */
tm_status tm__query_text(const char **out, const tm_http_exchange *x, const char *name, size_t max,
                         tm_error *err);
/* `limit`: 0 when absent, else 1 to 200. */
tm_status tm__query_limit(int *out, const tm_http_exchange *x, tm_error *err);

#endif
