/* http_transfer.c - one outgoing request: checked, made a curl easy handle, collected, judged. */
#include "net/http_transfer.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define URL_LIMIT      8192U
#define METHOD_LIMIT   16U
#define HEADER_COUNT   100U
#define HEADER_BYTES   (64U << 10)
#define ANSWER_HEADERS 256U /* whoever joins equal ones copies what is there for each */
#define REDIRECT_LIMIT 5L

/* ---- checking ---- */

static tm_status invalid(tm_error *err, const char *what, const char *why) {
  return tm__fail(err, TM_EINVAL, "http.invalid", "%s: %s", what, why);
}

static bool is_token(const char *text, size_t len) {
  for (size_t i = 0; i < len; i++)
    if (text[i] <= ' ' || text[i] >= 0x7f || strchr("\"(),/:;<=>?@[\\]{}", text[i]) != NULL)
      return false;
  return len > 0;
}

static tm_status check_method(const tm_http_call *call, tm_error *err) {
  size_t len = call->method != NULL ? strlen(call->method) : 0;
  if (len == 0 || len > METHOD_LIMIT ||
      strspn(call->method, "ABCDEFGHIJKLMNOPQRSTUVWXYZ-") != len ||
      strcmp(call->method, "CONNECT") == 0)
    return invalid(err, "method", "give GET, POST or another HTTP method, in capitals");
  if (strcmp(call->method, "HEAD") == 0 && call->body.ptr != NULL)
    return invalid(err, "body", "a HEAD request has none");
  return TM_OK;
}

/* The caller frees *host with curl_free; NULL where it fails. */
static CURLUcode host_of(char **host, const char *url) {
  CURLU *parts = curl_url();
  *host = NULL;
  if (parts == NULL) return CURLUE_OUT_OF_MEMORY;
  CURLUcode bad = curl_url_set(parts, CURLUPART_URL, url, 0);
  if (bad == CURLUE_OK) bad = curl_url_get(parts, CURLUPART_HOST, host, 0);
  curl_url_cleanup(parts);
  return bad;
}

/* Names the host and nothing else of the URL: the rest may hold secrets. */
static tm_status check_url(tm_http_transfer *t, const tm_http_call *call, tm_error *err) {
  if (call->url == NULL || strlen(call->url) > URL_LIMIT)
    return invalid(err, "url", "missing, or longer than 8192 bytes");
  for (const char *c = call->url; *c != '\0'; c++)
    if ((unsigned char)*c <= ' ' || *c == 0x7f)
      return invalid(err, "url", "holds a blank or a control character; encode it as %HH");
  if (strncasecmp(call->url, "http://", 7) != 0 && strncasecmp(call->url, "https://", 8) != 0)
    return invalid(err, "url", "must begin with http:// or https://");
  CURLUcode bad = host_of(&t->host, call->url);
  if (bad == CURLUE_OUT_OF_MEMORY) return tm__fail_memory(err, "a URL");
  if (bad != CURLUE_OK) return invalid(err, "url", curl_url_strerror(bad));
  (void)snprintf(t->origin, sizeof(t->origin), "%s %s", call->method, t->host);
  return TM_OK;
}

static tm_status check_header(const char *line, tm_error *err) {
  static const char *const ours[] = {"Content-Length", "Transfer-Encoding", "Connection"};
  const char *colon = strchr(line, ':');
  if (colon == NULL || !is_token(line, (size_t)(colon - line)))
    return invalid(err, "header", "must be \"Name: value\"");
  for (const char *c = colon; *c != '\0'; c++)
    if (((unsigned char)*c < ' ' && *c != '\t') || *c == 0x7f)
      return invalid(err, "header", "its value holds a line break or another control character");
  for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++)
    if (strncasecmp(line, ours[i], (size_t)(colon - line)) == 0 && ours[i][colon - line] == '\0')
      return invalid(err, ours[i], "the host sets this header itself; leave it out");
  return TM_OK;
}

/* ---- making the handle ---- */

static bool add_line(tm_http_transfer *t, const char *line) {
  struct curl_slist *more = curl_slist_append(t->lines, line);
  if (more != NULL) t->lines = more;
  return more != NULL;
}

/* curl takes "Name:" as "leave Name out"; an empty value is "Name;" there. */
static bool add_header(tm_http_transfer *t, const char *line) {
  const char *colon = strchr(line, ':');
  if (colon[1 + strspn(colon + 1, " \t")] != '\0') return add_line(t, line);
  tm_buf empty = {0};
  tm__buf_add(&empty, line, (size_t)(colon - line));
  tm__buf_byte(&empty, ';');
  bool ok = tm__buf_ok(&empty) && add_line(t, empty.ptr);
  tm__buf_free(&empty);
  return ok;
}

/* Takes out what curl would add by itself: a form's content type, and waiting for 100-continue. */
static tm_status set_headers(tm_http_transfer *t, const tm_http_call *call, tm_error *err) {
  size_t bytes = 0;
  bool typed = false, ok = add_line(t, "Expect:");
  for (size_t i = 0; ok && call->headers != NULL && call->headers[i] != NULL; i++) {
    const char *line = call->headers[i];
    bytes += strlen(line);
    if (i >= HEADER_COUNT || bytes > HEADER_BYTES)
      return invalid(err, "headers", "more than 100, or more than 64 KiB");
    tm_status st = check_header(line, err);
    if (st != TM_OK) return st;
    typed = typed || strncasecmp(line, "Content-Type:", 13) == 0;
    ok = add_header(t, line);
  }
  if (ok && !typed) ok = add_line(t, "Content-Type:");
  if (!ok || curl_easy_setopt(t->easy, CURLOPT_HTTPHEADER, t->lines) != CURLE_OK)
    return tm__fail_memory(err, "a request");
  return TM_OK;
}

static bool set_body(tm_http_transfer *t, const tm_http_call *call) {
  tm_slice body = call->body.ptr != NULL ? call->body : TM_S("");
  return curl_easy_setopt(t->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body.len) == CURLE_OK &&
         curl_easy_setopt(t->easy, CURLOPT_POSTFIELDS, body.ptr) == CURLE_OK;
}

static bool set_method(tm_http_transfer *t, const tm_http_call *call) {
  CURL *e = t->easy;
  bool get = strcmp(call->method, "GET") == 0, head = strcmp(call->method, "HEAD") == 0;
  bool post = strcmp(call->method, "POST") == 0;
  bool ok = true;
  if (post || call->body.ptr != NULL) ok = set_body(t, call);
  if (ok && head) ok = curl_easy_setopt(e, CURLOPT_NOBODY, 1L) == CURLE_OK;
  if (ok && !head && !post && (!get || call->body.ptr != NULL))
    ok = curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, call->method) == CURLE_OK;
  if (ok && (get || head))
    ok = curl_easy_setopt(e, CURLOPT_FOLLOWLOCATION, 1L) == CURLE_OK &&
         curl_easy_setopt(e, CURLOPT_MAXREDIRS, REDIRECT_LIMIT) == CURLE_OK;
  return ok;
}

static bool has_room(const tm_http_transfer *t, size_t bytes) {
  return t->room == NULL || t->room(t->ud, bytes);
}

static size_t on_body(char *bytes, size_t one, size_t count, void *ud) {
  tm_http_transfer *t = ud;
  size_t len = one * count;
  if (t->discard) return len;
  t->too_large = len > t->max_response - t->body.len;
  if (t->too_large || !has_room(t, len)) return 0;
  tm__buf_add(&t->body, bytes, len);
  return tm__buf_ok(&t->body) ? len : 0;
}

/* Every answer on the way (100, redirects) begins anew; the last one stays. */
static size_t on_header(char *bytes, size_t one, size_t count, void *ud) {
  tm_http_transfer *t = ud;
  size_t len = one * count;
  if (len >= 5 && memcmp(bytes, "HTTP/", 5) == 0) {
    tm__buf_clear(&t->headers);
    t->header_count = 0;
    return len;
  }
  if (len <= 2) return len;
  t->headers_too_large = len > HEADER_BYTES - t->headers.len || ++t->header_count > ANSWER_HEADERS;
  if (t->headers_too_large || !has_room(t, len)) return 0;
  tm__buf_add(&t->headers, bytes, len);
  return tm__buf_ok(&t->headers) ? len : 0;
}

/* Before a request is sent. Its headers, which may hold secrets, are for the host that was asked
 * for, and who answers there does not choose whom else this machine talks to. */
static int on_connected(void *ud, char *their_ip, char *our_ip, int their_port, int our_port) {
  tm_http_transfer *t = ud;
  char *url = NULL, *host = NULL;
  (void)their_ip;
  (void)our_ip;
  (void)their_port;
  (void)our_port;
  (void)curl_easy_getinfo(t->easy, CURLINFO_EFFECTIVE_URL, &url);
  (void)host_of(&host, url != NULL ? url : "");
  t->strayed = host == NULL || strcasecmp(host, t->host) != 0;
  curl_free(host);
  return t->strayed ? CURL_PREREQFUNC_ABORT : CURL_PREREQFUNC_OK;
}

static bool set_limits(tm_http_transfer *t, const tm_http_call *call) {
  CURL *e = t->easy;
  const char *protocols = strncasecmp(call->url, "https", 5) == 0 ? "https" : "http,https";
  long timeout = call->timeout_ms < LONG_MAX ? (long)call->timeout_ms : LONG_MAX;
  return curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https") == CURLE_OK &&
         curl_easy_setopt(e, CURLOPT_REDIR_PROTOCOLS_STR, protocols) == CURLE_OK &&
         curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
         (!call->direct || curl_easy_setopt(e, CURLOPT_NOPROXY, "*") == CURLE_OK) &&
         /* without it, ending a transfer waits for its DNS thread, and the loop with it */
         curl_easy_setopt(e, CURLOPT_QUICK_EXIT, 1L) == CURLE_OK &&
         curl_easy_setopt(e, CURLOPT_TIMEOUT_MS, timeout) == CURLE_OK &&
         curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, timeout) == CURLE_OK;
}

static bool set_callbacks(tm_http_transfer *t) {
  CURL *e = t->easy;
  return curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body) == CURLE_OK &&
         curl_easy_setopt(e, CURLOPT_WRITEDATA, t) == CURLE_OK &&
         curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header) == CURLE_OK &&
         curl_easy_setopt(e, CURLOPT_HEADERDATA, t) == CURLE_OK &&
         curl_easy_setopt(e, CURLOPT_PREREQFUNCTION, on_connected) == CURLE_OK &&
         curl_easy_setopt(e, CURLOPT_PREREQDATA, t) == CURLE_OK &&
         curl_easy_setopt(e, CURLOPT_ERRORBUFFER, t->detail) == CURLE_OK &&
         curl_easy_setopt(e, CURLOPT_PRIVATE, t) == CURLE_OK;
}

static tm_status prepare(tm_http_transfer *t, const tm_http_call *call, tm_error *err) {
  tm_status st = check_method(call, err);
  if (st == TM_OK) st = check_url(t, call, err);
  if (st == TM_OK && call->timeout_ms <= 0)
    st = invalid(err, "timeout", "must be more than 0 milliseconds");
  if (st == TM_OK) st = set_headers(t, call, err);
  if (st != TM_OK) return st;
  if (set_limits(t, call) && set_callbacks(t) && set_method(t, call) &&
      curl_easy_setopt(t->easy, CURLOPT_USERAGENT, "tidemill/" TM_VERSION) == CURLE_OK &&
      curl_easy_setopt(t->easy, CURLOPT_URL, call->url) == CURLE_OK)
    return TM_OK;
  return tm__fail_memory(err, "a request");
}

tm_status tm__http_transfer_new(tm_http_transfer **out, const tm_http_call *call, tm_error *err) {
  *out = NULL;
  tm_http_transfer *t = calloc(1, sizeof(*t));
  if (t == NULL || (t->easy = curl_easy_init()) == NULL) {
    free(t);
    return tm__fail_memory(err, "a request");
  }
  t->max_response = call->max_response;
  t->discard = call->discard;
  t->room = call->room;
  tm_status st = prepare(t, call, err);
  if (st == TM_OK)
    *out = t;
  else
    tm__http_transfer_free(t);
  return st;
}

void tm__http_transfer_free(tm_http_transfer *t) {
  if (t == NULL) return;
  curl_easy_cleanup(t->easy);
  curl_slist_free_all(t->lines);
  curl_free(t->host);
  tm__buf_free(&t->body);
  tm__buf_free(&t->headers);
  free(t);
}

/* ---- judging ---- */

static const struct {
  CURLcode curl;
  tm_status status;
  const char *code;
} failures[] = {
    {CURLE_OPERATION_TIMEDOUT, TM_EIO, "http.timeout"},
    {CURLE_COULDNT_CONNECT, TM_EIO, "http.connect"},
    {CURLE_COULDNT_RESOLVE_HOST, TM_EIO, "http.resolve"},
    {CURLE_COULDNT_RESOLVE_PROXY, TM_EIO, "http.resolve"},
    {CURLE_SSL_CONNECT_ERROR, TM_EIO, "http.tls"},
    {CURLE_PEER_FAILED_VERIFICATION, TM_EIO, "http.tls"},
    {CURLE_SSL_CERTPROBLEM, TM_EIO, "http.tls"},
    {CURLE_SSL_CIPHER, TM_EIO, "http.tls"},
    {CURLE_SSL_CACERT_BADFILE, TM_EIO, "http.tls"},
    {CURLE_SSL_ISSUER_ERROR, TM_EIO, "http.tls"},
    {CURLE_URL_MALFORMAT, TM_EINVAL, "http.invalid"},
    {CURLE_UNSUPPORTED_PROTOCOL, TM_EINVAL, "http.invalid"},
};

static void judge(const tm_http_transfer *t, CURLcode code, tm_error *err) {
  const char *detail = t->detail[0] != '\0' ? t->detail : curl_easy_strerror(code);
  if (t->too_large) {
    (void)tm__fail(err, TM_ETOOLARGE, "http.too_large",
                   "%s: the answer is larger than the limit of %zu bytes", t->origin,
                   t->max_response);
    return;
  }
  if (t->headers_too_large) {
    (void)tm__fail(err, TM_ETOOLARGE, "http.too_large",
                   "%s: the answer has more than %u headers, or more than 64 KiB of them",
                   t->origin, ANSWER_HEADERS);
    return;
  }
  if (t->starved || !tm__buf_ok(&t->body) || !tm__buf_ok(&t->headers)) {
    (void)tm__fail_memory(err, "a request to the outside");
    return;
  }
  if (t->strayed) {
    (void)tm__fail(err, TM_EIO, "http.redirect",
                   "%s: redirects to another host, which is not followed: ask that host itself",
                   t->origin);
    return;
  }
  if (code == CURLE_OUT_OF_MEMORY) detail = "out of memory, or a header of the answer has no end";
  for (size_t i = 0; i < sizeof(failures) / sizeof(failures[0]); i++)
    if (failures[i].curl == code) {
      (void)tm__fail(err, failures[i].status, failures[i].code, "%s: %s", t->origin, detail);
      return;
    }
  (void)tm__fail(err, TM_EIO, "http.failed", "%s: %s", t->origin, detail);
}

void tm__http_transfer_deliver(tm_http_transfer *t, CURLcode code) {
  tm_error error;
  tm_http_result result = {0};
  long status = 0;
  if (code == CURLE_OK) (void)curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
  if (code != CURLE_OK) {
    judge(t, code, &error);
    result.error = &error;
  } else {
    result.status = (int)status;
    result.body = tm__buf_view(&t->body);
    result.headers = tm__buf_view(&t->headers);
  }
  t->fn(t->ud, &result);
}
