/* guard.c - what a request's headers must look like before anything is done for it. */
#include "api/guard.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* ---- addresses ---- */

/* "host:port", "[v6]:port", "host" -> host and port text (NULL: none); false when malformed. */
static bool split(char *host, size_t size, const char **port, const char *text) {
  const char *end;
  *port = NULL;
  if (text[0] == '[') {
    text++;
    end = strchr(text, ']');
    if (end == NULL || (end[1] != '\0' && end[1] != ':')) return false;
    if (end[1] == ':') *port = end + 2;
  } else {
    end = strrchr(text, ':');
    if (end != NULL) *port = end + 1;
    if (end == NULL) end = text + strlen(text);
  }
  return tm__copy(host, size, (tm_slice){text, (size_t)(end - text)}) && host[0] != '\0';
}

static bool is_loopback(const char *host) {
  struct in_addr v4;
  struct in6_addr v6;
  if (strcasecmp(host, "localhost") == 0) return true;
  if (inet_pton(AF_INET, host, &v4) == 1) return (ntohl(v4.s_addr) >> 24) == 127;
  return inet_pton(AF_INET6, host, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

static bool parse_port(uint16_t *port, const char *text) {
  size_t len = text != NULL ? strlen(text) : 0;
  if (len == 0 || len > 5 || strspn(text, "0123456789") != len) return false;
  long n = strtol(text, NULL, 10);
  *port = (uint16_t)n;
  return n <= UINT16_MAX;
}

tm_status tm__guard_init(tm_guard *g, uint16_t *port, const char *address, tm_error *err) {
  const char *port_text;
  *g = (tm_guard){0};
  if (!split(g->host, sizeof(g->host), &port_text, address) || !parse_port(port, port_text))
    return tm__fail(err, TM_EINVAL, "server.address",
                    "\"%.80s\" is no address to listen on: give HOST:PORT, as 127.0.0.1:8700 or "
                    "[::1]:8700",
                    address);
  g->loopback = is_loopback(g->host);
  return TM_OK;
}

tm_status tm__guard_single(const tm_http_exchange *x, tm_error *err) {
  static const char *const single[] = {"Origin",
                                       "X-Tidemill-Tenant",
                                       "X-Tidemill-Role",
                                       "Idempotency-Key",
                                       "Content-Type",
                                       "Content-Encoding",
                                       NULL};
  const char *twice = tm__http_header_twice(x, single);
  if (twice == NULL) return TM_OK;
  return tm__fail(err, TM_EINVAL, "request.header", "the header %s stands there twice", twice);
}

/* ---- browsers ---- */

static tm_status check_host(const tm_guard *g, const char *given, tm_error *err) {
  char host[256];
  const char *port;
  if (given != NULL && split(host, sizeof(host), &port, given) &&
      (port == NULL || port[strspn(port, "0123456789")] == '\0') &&
      (is_loopback(host) || strcasecmp(host, g->host) == 0))
    return TM_OK;
  return tm__fail(err, TM_EINVAL, "request.host",
                  "the Host header must name localhost or a loopback address, because the server "
                  "listens on %s only",
                  g->host);
}

tm_status tm__guard_origin(const tm_guard *g, const tm_http_exchange *x, tm_error *err) {
  const char *host = tm__http_header(x, "Host").ptr;
  const char *origin = tm__http_header(x, "Origin").ptr;
  tm_status st = g->loopback ? check_host(g, host, err) : TM_OK;
  if (st != TM_OK || origin == NULL) return st;
  const char *authority = strstr(origin, "://");
  if (authority != NULL && host != NULL && strcasecmp(authority + 3, host) == 0) return TM_OK;
  return tm__fail(err, TM_EINVAL, "request.origin",
                  "a page of another origin may not use this server from a browser");
}

/* ---- who and how ---- */

static bool is_name(tm_slice s, size_t max) {
  for (size_t i = 0; i < s.len; i++) {
    char c = s.ptr[i];
    bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (!letter && c != '_' && c != '.' && c != '-') return false;
  }
  return s.len >= 1 && s.len <= max;
}

static tm_status bad_name(const char *header, const char *code, tm_error *err) {
  return tm__fail(err, TM_EINVAL, code,
                  "the header %s must have 1 to 64 letters, digits, dots, dashes or underscores",
                  header);
}

tm_status tm__guard_tenant(char tenant[TM_TENANT_SIZE], const tm_http_exchange *x, tm_error *err) {
  tm_slice given = tm__http_header(x, "X-Tidemill-Tenant");
  tm_slice role = tm__http_header(x, "X-Tidemill-Role");
  if (given.ptr == NULL) given = TM_S("default");
  if (!is_name(given, TM_TENANT_SIZE - 1))
    return bad_name("X-Tidemill-Tenant", "request.tenant", err);
  if (role.ptr != NULL && !is_name(role, 64))
    return bad_name("X-Tidemill-Role", "request.role", err);
  (void)tm__copy(tenant, TM_TENANT_SIZE, given);
  return TM_OK;
}

tm_status tm__guard_key(char key[TM_KEY_SIZE], const tm_http_exchange *x, tm_error *err) {
  tm_slice given = tm__http_header(x, "Idempotency-Key");
  bool good = given.len > 0 && given.len < TM_KEY_SIZE;
  key[0] = '\0';
  if (given.ptr == NULL) return TM_OK;
  for (size_t i = 0; good && i < given.len; i++)
    good = given.ptr[i] > ' ' && given.ptr[i] < 0x7f;
  if (good && tm__copy(key, TM_KEY_SIZE, given)) return TM_OK;
  return tm__fail(err, TM_EINVAL, "request.idempotency_key",
                  "the header Idempotency-Key must have 1 to 200 visible ASCII characters");
}

tm_status tm__guard_content_type(const tm_http_exchange *x, tm_error *err) {
  static const char json[] = "application/json";
  tm_slice type = tm__http_header(x, "Content-Type");
  tm_slice coding = tm__http_header(x, "Content-Encoding");
  size_t len = sizeof(json) - 1;
  if (coding.ptr != NULL && strcasecmp(coding.ptr, "identity") != 0)
    return tm__fail(err, TM_EINVAL, "request.content_encoding",
                    "the body must not be compressed: send it without Content-Encoding");
  if (type.ptr == NULL) return TM_OK;
  if (strncasecmp(type.ptr, json, len) == 0 && strchr("; \t", type.ptr[len]) != NULL) return TM_OK;
  return tm__fail(err, TM_EINVAL, "request.content_type",
                  "the body must be JSON: send Content-Type: application/json");
}
