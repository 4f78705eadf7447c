/* http_framing.c - what a request must look like before anybody relies on it. */
#include "net/http_framing.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

static bool flawed(tm_http_flaw *flaw, int status, const char *code, const char *detail,
                   const char *name) {
  *flaw = (tm_http_flaw){.status = status, .code = code};
  (void)snprintf(flaw->detail, sizeof(flaw->detail), "%s%s", detail, name);
  return false;
}

static bool is_token(const char *text) {
  static const char marks[] = "!#$%&'*+-.^_`|~";
  for (const char *c = text; *c != '\0'; c++) {
    bool letter = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9');
    if (!letter && strchr(marks, *c) == NULL) return false;
  }
  return text[0] != '\0';
}

static enum MHD_Result visit_name(void *cls, enum MHD_ValueKind kind, const char *name,
                                  const char *value) {
  bool *good = cls;
  (void)kind;
  (void)value;
  *good = is_token(name);
  return *good ? MHD_YES : MHD_NO;
}

/* "Content-Length : 5" is another header here, and none or this one elsewhere. */
static bool names_are_tokens(const tm_http_exchange *x) {
  bool good = true;
  (void)MHD_get_connection_values(x->connection, MHD_HEADER_KIND, visit_name, &good);
  return good;
}

bool tm__http_framing(tm_http_flaw *flaw, const tm_http_exchange *x, const char *version) {
  static const char *const single[] = {"Host", "Content-Length", "Transfer-Encoding", NULL};
  const char *coding = tm__http_header(x, "Transfer-Encoding").ptr;
  const char *twice = tm__http_header_twice(x, single);
  if (x->bad_target)
    return flawed(flaw, 400, "request.target",
                  "the address holds a blank, %00, or a % without two hexadecimal digits", "");
  if (!names_are_tokens(x))
    return flawed(flaw, 400, "request.header", "the name of a header is malformed", "");
  if (twice != NULL)
    return flawed(flaw, 400, "request.header", "this header stands there twice: ", twice);
  if (tm__http_header(x, "Host").ptr == NULL && strcmp(version, "HTTP/1.0") != 0)
    return flawed(flaw, 400, "request.header", "this header is missing: ", "Host");
  if (coding != NULL && strcasecmp(coding, "chunked") != 0)
    return flawed(flaw, 501, "request.transfer_encoding",
                  "the only Transfer-Encoding that is understood is chunked", "");
  if (coding != NULL && tm__http_header(x, "Content-Length").ptr != NULL)
    return flawed(flaw, 400, "request.framing",
                  "Content-Length and Transfer-Encoding contradict each other", "");
  return true;
}
