/* http_exchange.c - reading a request, and answering it from any thread. */
#include "net/http_exchange.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#define NAME_MAX_LENGTH  64
#define VALUE_MAX_LENGTH 512
#define SMALL_ANSWER     (16U << 10)

tm_slice tm__http_method(const tm_http_exchange *x) {
  return tm__slice(x->method);
}
tm_slice tm__http_path(const tm_http_exchange *x) {
  return tm__slice(x->path);
}
tm_slice tm__http_body(const tm_http_exchange *x) {
  return tm__buf_view(&x->body);
}
tm_slice tm__http_header(const tm_http_exchange *x, const char *name) {
  return tm__slice(MHD_lookup_connection_value(x->connection, MHD_HEADER_KIND, name));
}

typedef struct search {
  const char *const *names;
  uint32_t seen;
  const char *twice;
} search;

static enum MHD_Result visit_header(void *cls, enum MHD_ValueKind kind, const char *key,
                                    const char *value) {
  search *s = cls;
  (void)kind;
  (void)value;
  for (unsigned i = 0; s->names[i] != NULL; i++) {
    if (strcasecmp(s->names[i], key) != 0) continue;
    if ((s->seen & (UINT32_C(1) << i)) != 0) s->twice = s->names[i];
    s->seen |= UINT32_C(1) << i;
  }
  return s->twice == NULL ? MHD_YES : MHD_NO;
}

const char *tm__http_header_twice(const tm_http_exchange *x, const char *const *names) {
  search s = {names, 0, NULL};
  (void)MHD_get_connection_values(x->connection, MHD_HEADER_KIND, visit_header, &s);
  return s.twice;
}

tm_slice tm__http_query(const tm_http_exchange *x, const char *name) {
  const char *value = NULL;
  size_t len = 0;
  if (MHD_lookup_connection_value_n(x->connection, MHD_GET_ARGUMENT_KIND, name, strlen(name),
                                    &value, &len) != MHD_YES)
    return (tm_slice){NULL, 0};
  return value != NULL ? tm__slice(value) : TM_S(""); /* "?name" is there, and empty */
}

typedef struct visit {
  bool (*fn)(void *ud, tm_slice name);
  void *ud;
} visit;

static enum MHD_Result visit_name(void *cls, enum MHD_ValueKind kind, const char *key,
                                  const char *value) {
  const visit *v = cls;
  (void)kind;
  (void)value;
  return v->fn(v->ud, tm__slice(key)) ? MHD_YES : MHD_NO;
}

void tm__http_query_names(const tm_http_exchange *x, bool (*fn)(void *ud, tm_slice name),
                          void *ud) {
  visit v = {fn, ud};
  (void)MHD_get_connection_values(x->connection, MHD_GET_ARGUMENT_KIND, visit_name, &v);
}

/* ---- answering ---- */

/* "Name: value\n" at *at into name and value, and *at behind it; false at the end or when it does
 * not fit. */
static bool next_line(const char **at, char name[NAME_MAX_LENGTH], char value[VALUE_MAX_LENGTH]) {
  const char *colon = strchr(*at, ':'), *end = strchr(*at, '\n');
  if (colon == NULL || end == NULL || colon > end) return false;
  const char *text = colon + 1 + (colon[1] == ' ');
  bool fits = tm__copy(name, NAME_MAX_LENGTH, (tm_slice){*at, (size_t)(colon - *at)}) &&
              tm__copy(value, VALUE_MAX_LENGTH, (tm_slice){text, (size_t)(end - text)});
  *at = end + 1;
  return fits;
}

static bool add_extra(struct MHD_Response *r, const char *extra) {
  char name[NAME_MAX_LENGTH], value[VALUE_MAX_LENGTH];
  for (const char *at = extra; at != NULL && *at != '\0';)
    if (!next_line(&at, name, value) || MHD_add_response_header(r, name, value) != MHD_YES)
      return false;
  return true;
}

static struct MHD_Response *with_body(tm_slice body) {
  if (body.len == 0) return MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
  char *copy = malloc(body.len);
  if (copy == NULL) return NULL;
  memcpy(copy, body.ptr, body.len);
  struct MHD_Response *r = MHD_create_response_from_buffer(body.len, copy, MHD_RESPMEM_MUST_FREE);
  if (r == NULL) free(copy);
  return r;
}

static struct MHD_Response *make_response(const tm_http_exchange *x, const char *content_type,
                                          tm_slice body, const char *extra) {
  struct MHD_Response *r = with_body(body);
  if (r == NULL) return NULL;
  if (MHD_add_response_header(r, "Content-Type", content_type) == MHD_YES &&
      MHD_add_response_header(r, "Cache-Control", "no-store") == MHD_YES &&
      MHD_add_response_header(r, "X-Content-Type-Options", "nosniff") == MHD_YES &&
      ((!x->final && !atomic_load_explicit(x->last, memory_order_relaxed)) ||
       MHD_add_response_header(r, "Connection", "close") == MHD_YES) &&
      add_extra(r, extra))
    return r;
  MHD_destroy_response(r);
  return NULL;
}

/* libmicrohttpd takes an answer before or after a body, not amidst; there the answer is written
 * past it. One try: the socket's buffer is empty then, and the connection ends anyway. */
static void write_raw(const tm_http_exchange *x, int status, const char *content_type,
                      tm_slice body, const char *extra) {
  tm_buf out = {0};
  tm__buf_printf(&out,
                 "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
                 "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"
                 "Connection: close\r\n",
                 status, MHD_get_reason_phrase_for((unsigned)status), content_type, body.len);
  char name[NAME_MAX_LENGTH], value[VALUE_MAX_LENGTH];
  for (const char *at = extra; at != NULL && *at != '\0' && next_line(&at, name, value);)
    tm__buf_printf(&out, "%s: %s\r\n", name, value);
  tm__buf_text(&out, "\r\n");
  tm__buf_slice(&out, body);
  if (tm__buf_ok(&out)) (void)send(x->link->fd, out.ptr, out.len, MSG_NOSIGNAL | MSG_DONTWAIT);
  tm__buf_free(&out);
}

/* Whoever finds the list empty wakes the HTTP thread: one write for many answers. `x` is the HTTP
 * thread's as soon as it is in the list. */
static void hand_back(tm_http_answered *answered, tm_http_exchange *x) {
  static const uint64_t one = 1;
  tm_http_exchange *first = atomic_load_explicit(&answered->first, memory_order_relaxed);
  do
    x->next = first;
  while (!atomic_compare_exchange_weak(&answered->first, &first, x));
  if (first != NULL) return;
  while (write(answered->wake_fd, &one, sizeof(one)) < 0 && errno == EINTR)
    ;
}

/* Whoever makes answers may be faster than the HTTP thread, which alone can make room for them.
 * Small ones always pass, and a large one that is alone. */
static bool count(tm_http_answered *answered, size_t size) {
  size_t before = atomic_fetch_add(&answered->bytes, size);
  if (size <= SMALL_ANSWER || before == 0 || before + size <= answered->limit) return true;
  (void)atomic_fetch_sub(&answered->bytes, size);
  return false;
}

void tm__http_reply(tm_http_exchange *x, int status, const char *content_type, tm_slice body,
                    const char *extra) {
  if (x->raw) {
    write_raw(x, status, content_type, body, extra);
    return;
  }
  tm_http_answered *answered = x->answered;
  x->declined = !count(answered, body.len);
  x->response = x->declined ? NULL : make_response(x, content_type, body, extra);
  x->status = status;
  x->size = x->counted = x->declined ? 0 : body.len;
  if (atomic_exchange(&x->state, TM_HTTP_ANSWERED) == TM_HTTP_SUSPENDED) hand_back(answered, x);
}
