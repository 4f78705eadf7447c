/* problem.c - errors as application/problem+json. */
#include "api/problem.h"

#include <stdio.h>
#include <string.h>

#include "core/json.h"

static const struct {
  const char *code;
  int status;
} listed[] = {
#define AREA(area, about)
#define ERROR(code, http, meaning, remedy) {code, http},
#define RULE(name, meaning, remedy)
#include "core/errors.def"
#undef AREA
#undef ERROR
#undef RULE
};

static int status_of(tm_status s) {
  switch (s) {
  case TM_OK: return 200;
  case TM_EINVAL: return 400;
  case TM_ENOTFOUND: return 404;
  case TM_ECONFLICT: return 409;
  case TM_ETOOLARGE: return 413;
  case TM_EREUSED: return 422;
  case TM_ELIMIT: return 429;
  case TM_EUNSUPPORTED: return 501;
  case TM_EUNAVAILABLE:
  case TM_ECANCELLED:
  case TM_ENOMEM: return 503;
  case TM_EIO:
  case TM_ESCRIPT:
  case TM_ECORRUPT: return 500;
  }
  return 500;
}

int tm__api_http_status(const tm_error *err) {
  for (size_t i = 0; i < sizeof(listed) / sizeof(listed[0]); i++)
    if (listed[i].status != 0 && strcmp(listed[i].code, err->code) == 0) return listed[i].status;
  return status_of(err->status);
}

static const struct {
  int status;
  const char *title;
} titles[] = {
    {400, "Bad Request"},
    {403, "Forbidden"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {408, "Request Timeout"},
    {409, "Conflict"},
    {413, "Content Too Large"},
    {415, "Unsupported Media Type"},
    {422, "Unprocessable Content"},
    {429, "Too Many Requests"},
    {500, "Internal Server Error"},
    {501, "Not Implemented"},
    {503, "Service Unavailable"},
};

static const char *title_of(int status) {
  for (size_t i = 0; i < sizeof(titles) / sizeof(titles[0]); i++)
    if (titles[i].status == status) return titles[i].title;
  return "Error";
}

static void write_problem(tm_buf *b, int status, const tm_error *err, int64_t retry_after_s) {
  char type[80];
  (void)snprintf(type, sizeof(type), "urn:tidemill:error:%s", err->code);
  tm__buf_byte(b, '{');
  tm__json_member_text(b, "type", type);
  tm__json_member_text(b, "title", title_of(status));
  tm__json_member_int(b, "status", status);
  tm__json_member_text(b, "code", err->code);
  tm__json_member_text(b, "detail", err->message);
  if (err->conversation_id[0] != '\0')
    tm__json_member_text(b, "conversation_id", err->conversation_id);
  if (err->step_id[0] != '\0') tm__json_member_text(b, "step_id", err->step_id);
  if (retry_after_s > 0) tm__json_member_int(b, "retry_after", retry_after_s);
  tm__buf_byte(b, '}');
}

/* Seconds; 0: nothing is gained by waiting. Who is told 503 is told when to come back. */
static int64_t retry_after(int http_status, const tm_error *err) {
  if (err->retry_after_ms > 0) return (err->retry_after_ms - 1) / 1000 + 1;
  return http_status == 503 ? 1 : 0;
}

void tm__problem_reply(tm_http_exchange *x, int http_status, const tm_error *err,
                       const char *extra) {
  int64_t retry_after_s = retry_after(http_status, err);
  tm_buf body = {0}, lines = {0};
  write_problem(&body, http_status, err, retry_after_s);
  if (extra != NULL) tm__buf_text(&lines, extra);
  if (retry_after_s > 0) tm__buf_printf(&lines, "Retry-After: %lld\n", (long long)retry_after_s);
  bool ok = tm__buf_ok(&body) && tm__buf_ok(&lines);
  tm__http_reply(x, ok ? http_status : 503, "application/problem+json",
                 ok ? tm__buf_view(&body) : TM_S("{\"status\":503,\"code\":\"host.memory\"}"),
                 ok ? lines.ptr : NULL);
  tm__buf_free(&body);
  tm__buf_free(&lines);
}

void tm__problem_answer(tm_http_exchange *x, const tm_error *err, const char *extra) {
  tm__problem_reply(x, tm__api_http_status(err), err, extra);
}
