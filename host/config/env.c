/* env.c - collects variables; reads the env file. */
#include "config/env.h"

#include <stdlib.h>
#include <string.h>

#include "config/file.h"
#include "config/value.h"

typedef struct line_reader {
  tm_env *env;
  size_t line;
  char name[TM_NAME_SIZE]; /* of the file */
  tm_error *err;
} line_reader;

static bool is_blank(char c) {
  return c == ' ' || c == '\t';
}

static bool add(tm_env *env, tm_slice name, tm_slice value, size_t line) {
  if (env->count == env->cap) {
    size_t cap = env->cap == 0 ? 64 : env->cap * 2;
    tm_env_var *vars = realloc(env->vars, cap * sizeof(*vars));
    if (vars == NULL) return false;
    env->vars = vars;
    env->cap = cap;
  }
  env->vars[env->count++] = (tm_env_var){name, value, line, false};
  return true;
}

static bool add_environment(tm_env *env, const char *const *environment) {
  for (; *environment != NULL; environment++) {
    const char *equals = strchr(*environment, '=');
    if (equals == NULL) continue;
    tm_slice name = {*environment, (size_t)(equals - *environment)};
    if (!add(env, name, tm__slice(equals + 1), 0)) return false;
  }
  return true;
}

static tm_status refuse(const line_reader *r, const char *why) {
  return tm__fail(r->err, TM_EINVAL, "config.invalid", "%s:%zu: %s", r->name, r->line, why);
}

static char unescape(char c) {
  switch (c) {
  case 'n': return '\n';
  case 't': return '\t';
  case 'r': return '\r';
  case '"':
  case '\\':
  case '$': return c;
  default: return '\0';
  }
}

/* From the opening quote at *at: unquotes in place, moves *at behind the closing quote. */
static tm_status take_quoted(const line_reader *r, char **at, const char *end, tm_slice *value) {
  char quote = **at;
  char *read = *at + 1, *start = read, *write = read;
  for (; read < end && *read != quote; read++) {
    char c = *read;
    if (quote == '"' && c == '\\') {
      c = ++read < end ? unescape(*read) : '\0';
      if (c == '\0') return refuse(r, "unknown escape; known are \\n \\t \\r \\\" \\\\ \\$");
    }
    *write++ = c;
  }
  if (read == end) return refuse(r, "a quote is not closed in its line");
  *at = read + 1;
  *value = (tm_slice){start, (size_t)(write - start)};
  return TM_OK;
}

/* Up to a comment (blank and #) or the end, without blanks at the end. */
static tm_slice take_bare(char **at, const char *end) {
  char *start = *at, *p = start;
  while (p < end && !(*p == '#' && (p == start || is_blank(p[-1])))) {
    p++;
  }
  *at = p;
  while (p > start && is_blank(p[-1])) {
    p--;
  }
  return (tm_slice){start, (size_t)(p - start)};
}

static tm_status take_value(const line_reader *r, char *at, const char *end, tm_slice *value) {
  while (at < end && is_blank(*at)) {
    at++;
  }
  if (at < end && (*at == '"' || *at == '\'')) {
    tm_status s = take_quoted(r, &at, end, value);
    if (s != TM_OK) return s;
  } else {
    *value = take_bare(&at, end);
  }
  while (at < end && is_blank(*at)) {
    at++;
  }
  return at == end || *at == '#' ? TM_OK : refuse(r, "there is something behind the closing quote");
}

static tm_status check_new(const line_reader *r, tm_slice name) {
  for (size_t i = 0; i < r->env->count; i++) {
    const tm_env_var *v = &r->env->vars[i];
    if (v->line == 0 || !tm__slice_eq(v->name, name)) continue;
    return tm__fail(r->err, TM_EINVAL, "config.invalid",
                    "%s:%zu: this variable stands in line %zu already; remove one", r->name,
                    r->line, v->line);
  }
  return TM_OK;
}

static tm_status take_line(line_reader *r, char *at, char *end) {
  if (end > at && end[-1] == '\r') end--;
  while (at < end && is_blank(*at)) {
    at++;
  }
  if (at == end || *at == '#') return TM_OK;
  if (end - at > 7 && memcmp(at, "export ", 7) == 0) at += 7;
  char *equals = memchr(at, '=', (size_t)(end - at));
  if (equals == NULL) return refuse(r, "expected NAME=value");
  tm_slice key = {at, (size_t)(equals - at)}, value;
  if (!tm__is_name(key)) return refuse(r, "expected NAME=value");
  tm_status s = check_new(r, key);
  if (s == TM_OK) s = take_value(r, equals + 1, end, &value);
  if (s != TM_OK) return s;
  return add(r->env, key, value, r->line) ? TM_OK : tm__fail_memory(r->err, "the env file");
}

#define TM_ENV_LINES 4096

static tm_status take_lines(line_reader *r, tm_buf *text) {
  if (text->ptr == NULL) return TM_OK; /* an empty file */
  char *at = text->ptr, *end = at + text->len;
  while (at < end) {
    char *stop = memchr(at, '\n', (size_t)(end - at));
    if (stop == NULL) stop = end;
    if (++r->line > TM_ENV_LINES) return refuse(r, "more than 4096 lines");
    tm_status s = take_line(r, at, stop);
    if (s != TM_OK) return s;
    at = stop + 1;
  }
  return TM_OK;
}

static tm_status read_env_file(tm_env *env, const char *file, tm_error *err) {
  line_reader r = {.env = env, .err = err};
  tm__file_name(r.name, file);
  env->file = file;
  tm_status s = tm__small_file_read(&env->text, file, TM_ENV_FILE_MAX, err);
  if (s == TM_ENOTFOUND) {
    return tm__fail(err, TM_EINVAL, "config.invalid", "%s: there is no such env file", r.name);
  }
  return s == TM_OK ? take_lines(&r, &env->text) : s;
}

tm_status tm__env_open(tm_env *env, const char *const *environment, const char *file,
                       tm_error *err) {
  if (!add_environment(env, environment)) return tm__fail_memory(err, "the environment");
  return file == NULL ? TM_OK : read_env_file(env, file, err);
}

void tm__env_close(tm_env *env) {
  free(env->vars);
  tm__buf_free(&env->text);
  *env = (tm_env){0};
}

const tm_env_var *tm__env_find(tm_env *env, tm_slice name, bool in_file) {
  for (size_t i = 0; i < env->count; i++) {
    tm_env_var *v = &env->vars[i];
    if ((v->line > 0) != in_file || !tm__slice_eq(v->name, name)) continue;
    v->used = true;
    return v;
  }
  return NULL;
}

const tm_env_var *tm__env_get(tm_env *env, tm_slice name) {
  const tm_env_var *v = tm__env_find(env, name, false);
  return v != NULL ? v : tm__env_find(env, name, true);
}
