/* log.c - makes the line, hands it to the sink. Bad UTF-8 is replaced, long values are cut. */
#include "core/log.h"

#include <stdarg.h>
#include <string.h>
#include <time.h>

#include "core/json.h"

#define MAX_VALUE   2048
#define REPLACEMENT "\xEF\xBF\xBD"

static const char *level_name(tm_log_level level) {
  switch (level) {
  case TM_LOG_DEBUG: return "debug";
  case TM_LOG_INFO: return "info";
  case TM_LOG_WARNING: return "warning";
  case TM_LOG_ERROR: return "error";
  }
  return "error";
}

static void add_time(tm_buf *b, int64_t now) {
  int64_t ms = now % 1000;
  if (ms < 0) ms += 1000;
  time_t seconds = (time_t)((now - ms) / 1000);
  struct tm t = {0};
  (void)gmtime_r(&seconds, &t);
  tm__buf_printf(b, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", t.tm_year + 1900, t.tm_mon + 1,
                 t.tm_mday, t.tm_hour, t.tm_min, t.tm_sec, (int)ms);
}

/* Appends `text`, bounded and as valid UTF-8. */
static void add_clean(tm_buf *b, const char *text) {
  tm_slice rest = {text, strnlen(text, MAX_VALUE)};
  while (rest.len > 0) {
    size_t n = tm__utf8_step(rest);
    if (n > 0) tm__buf_add(b, rest.ptr, n);
    if (n == 0) tm__buf_text(b, REPLACEMENT);
    rest.ptr += n == 0 ? 1 : n;
    rest.len -= n == 0 ? 1 : n;
  }
}

static bool is_plain(tm_slice s) {
  for (size_t i = 0; i < s.len; i++) {
    unsigned char c = (unsigned char)s.ptr[i];
    if (c <= ' ' || c == '"' || c == '\\' || c == '=' || c == 0x7F) return false;
  }
  return s.len > 0;
}

/* The message of a text line: readable, but never a second line. */
static void add_message(tm_buf *b, tm_slice s) {
  for (size_t i = 0; i < s.len; i++) {
    unsigned char c = (unsigned char)s.ptr[i];
    tm__buf_byte(b, c < ' ' || c == 0x7F ? ' ' : (char)c);
  }
}

static void add_word(tm_buf *b, tm_slice s) {
  if (is_plain(s))
    tm__buf_slice(b, s);
  else
    tm__json_string(b, s);
}

static void add_pair(tm_buf *b, bool json, tm_slice key, tm_slice value) {
  if (json) {
    tm__buf_byte(b, ',');
    tm__json_string(b, key);
    tm__buf_byte(b, ':');
    tm__json_string(b, value);
    return;
  }
  tm__buf_byte(b, ' ');
  add_word(b, key);
  tm__buf_byte(b, '=');
  add_word(b, value);
}

static void add_start(tm_buf *b, bool json, int64_t now, tm_log_level level, tm_slice message) {
  if (json) tm__buf_text(b, "{\"time\":\"");
  add_time(b, now);
  if (json) {
    tm__buf_byte(b, '"');
    tm__json_member_text(b, "level", level_name(level));
    tm__json_member(b, "message", message);
  } else {
    tm__buf_printf(b, " %-5s ", level_name(level));
    add_message(b, message);
  }
}

void tm__log(const tm_log *log, tm_log_level level, const char *message, ...) {
  if (log == NULL || log->sink == NULL || level < log->level) return;
  tm_buf line = {0};
  tm_buf name = {0};
  tm_buf clean = {0};
  add_clean(&clean, message);
  add_start(&line, log->json, tm__clock_now(&log->clock), level, tm__buf_view(&clean));
  va_list ap;
  va_start(ap, message);
  for (const char *key; (key = va_arg(ap, const char *)) != NULL;) {
    const char *value = va_arg(ap, const char *);
    if (value == NULL) continue;
    tm__buf_clear(&name);
    tm__buf_clear(&clean);
    add_clean(&name, key);
    add_clean(&clean, value);
    add_pair(&line, log->json, tm__buf_view(&name), tm__buf_view(&clean));
  }
  va_end(ap);
  if (log->json) tm__buf_byte(&line, '}');
  if (tm__buf_ok(&line)) log->sink(log->ud, line.ptr, line.len);
  tm__buf_free(&name);
  tm__buf_free(&clean);
  tm__buf_free(&line);
}

static const char *given(const char *text) {
  return text[0] == '\0' ? NULL : text;
}

void tm__log_error(const tm_log *log, tm_log_level level, const char *what, const tm_error *err) {
  tm__log(log, level, what, "code", given(err->code), "error", given(err->message), "conversation",
          given(err->conversation_id), "step", given(err->step_id), NULL);
}
