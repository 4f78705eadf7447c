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

typedef struct survey {
  int count;
  bool names_good, values_good;
} survey;

static enum MHD_Result visit(void *cls, enum MHD_ValueKind kind, const char *name,
                             const char *value) {
  survey *s = cls;
  (void)kind;
  s->count++;
  s->names_good = s->names_good && is_token(name);
  for (const char *c = value != NULL ? value : ""; *c != '\0'; c++)
    if (((unsigned char)*c < ' ' && *c != '\t') || *c == 0x7f) s->values_good = false;
  return MHD_YES;
}

static size_t head_size(const tm_http_exchange *x) {
  const union MHD_ConnectionInfo *info =
      MHD_get_connection_info(x->connection, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
  return info != NULL ? info->header_size : 0;
}

/* libmicrohttpd takes the head apart where it stands, with a NUL for each byte that ended a part.
 * What it passed over in silence still stands there: text behind a NUL, lines ended by LF alone,
 * lines that begin with a colon or with the rest of the one before. The head must be nothing but
 * the `headers` that it reports, each "name NUL value NUL NUL". */
static bool head_is_plain(const tm_http_exchange *x, const char *version, int headers) {
  const char *end = x->method + head_size(x), *at = version + strlen(version);
  if (x->target != x->method + strlen(x->method) + 1 || version != x->target + x->target_len + 1)
    return false;
  for (int i = 0; end - at >= 4 && at[0] == '\0' && at[1] == '\0'; i++) {
    at += 2;
    if (end - at == 2) return at[0] == '\0' && at[1] == '\0' && i == headers;
    at += strnlen(at, (size_t)(end - at)) + 1;
    if (at < end) at += strnlen(at, (size_t)(end - at));
  }
  return false;
}

/* What a head looks like before its meaning is asked for. */
static bool check_head(tm_http_flaw *flaw, const tm_http_exchange *x, const char *version) {
  survey s = {0, true, true};
  (void)MHD_get_connection_values(x->connection, MHD_HEADER_KIND, visit, &s);
  if (x->bad_target)
    return flawed(flaw, 400, "request.target",
                  "the address holds a blank, %00, or a % without two hexadecimal digits", "");
  if (!s.names_good) /* "Content-Length : 5" is another header here, and none or this one elsewhere
                      */
    return flawed(flaw, 400, "request.header", "the name of a header is malformed", "");
  if (!s.values_good)
    return flawed(flaw, 400, "request.header", "the value of a header holds a control character",
                  "");
  if (!head_is_plain(x, version, s.count))
    return flawed(
        flaw, 400, "request.header",
        "the head holds a NUL, a line that CR and LF do not end, a line without a name, or "
        "one that continues another",
        "");
  return true;
}

bool tm__http_framing(tm_http_flaw *flaw, const tm_http_exchange *x, const char *version) {
  static const char *const single[] = {"Host", "Content-Length", "Transfer-Encoding", NULL};
  if (!check_head(flaw, x, version)) return false;
  const char *coding = tm__http_header(x, "Transfer-Encoding").ptr;
  const char *twice = tm__http_header_twice(x, single);
  bool old = strcmp(version, "HTTP/1.0") == 0;
  if (twice != NULL)
    return flawed(flaw, 400, "request.header", "this header stands there twice: ", twice);
  if (tm__http_header(x, "Host").ptr == NULL && !old)
    return flawed(flaw, 400, "request.header", "this header is missing: ", "Host");
  if (coding != NULL && strcasecmp(coding, "chunked") != 0)
    return flawed(flaw, 501, "request.transfer_encoding",
                  "the only Transfer-Encoding that is understood is chunked", "");
  if (coding != NULL && tm__http_header(x, "Content-Length").ptr != NULL)
    return flawed(flaw, 400, "request.framing",
                  "Content-Length and Transfer-Encoding contradict each other", "");
  if (coding != NULL && old)
    return flawed(flaw, 400, "request.framing", "HTTP/1.0 has no Transfer-Encoding", "");
  return true;
}

bool tm__http_framing_of_end(tm_http_flaw *flaw, const tm_http_exchange *x) {
  if (MHD_get_connection_values(x->connection, MHD_FOOTER_KIND, NULL, NULL) == 0) return true;
  return flawed(flaw, 400, "request.framing", "headers behind a body are not taken", "");
}
