/* guard.h - what a request's headers must look like before anything is done for it. */
#ifndef TM_API_GUARD_H
#define TM_API_GUARD_H

#include "net/http_server.h"

#define TM_TENANT_SIZE 65
#define TM_KEY_SIZE    201

typedef struct tm_guard { /* plain data */
  char host[64];          /* the address listened on, without port and brackets */
  bool loopback;
} tm_guard;

/* "HOST:PORT", "[IPv6]:PORT". TM_EINVAL "server.address". */
tm_status tm__guard_init(tm_guard *g, uint16_t *port, const char *address, tm_error *err);

/* Headers that say who asks, and for what, stand there once: whoever checked one of two may have
 * checked the other. TM_EINVAL "request.header". */
tm_status tm__guard_single(const tm_http_exchange *x, tm_error *err);

/* Without authentication a browser must not be a way in: on loopback the Host header must name this
 * machine (DNS rebinding), and a page's Origin must be ourselves (CSRF). TM_EINVAL "request.host",
 * "request.origin": answer 403. */
tm_status tm__guard_origin(const tm_guard *g, const tm_http_exchange *x, tm_error *err);

/* X-Tidemill-Tenant ("default" when absent) and X-Tidemill-Role: TM_EINVAL "request.tenant",
 * "request.role". */
tm_status tm__guard_tenant(char tenant[TM_TENANT_SIZE], const tm_http_exchange *x, tm_error *err);

/* Idempotency-Key, "" when absent: TM_EINVAL "request.idempotency_key". */
tm_status tm__guard_key(char key[TM_KEY_SIZE], const tm_http_exchange *x, tm_error *err);

/* Absent or application/json, and not compressed: else TM_EINVAL "request.content_type" or
 * "request.content_encoding": answer 415. */
tm_status tm__guard_content_type(const tm_http_exchange *x, tm_error *err);

#endif
