/* main_io.c - how the program waits for the library's answers and prints them. */
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "main.h"

/* ---- answers ---- */

void answer_init(answer *a) {
  *a = (answer){.has_come = false};
  (void)pthread_mutex_init(&a->lock, NULL);
  (void)pthread_cond_init(&a->done, NULL);
}

void answer_come(void *ud, const tm_reply *reply) {
  answer *a = ud;
  (void)pthread_mutex_lock(&a->lock);
  a->status = reply->status;
  if (reply->status == TM_OK)
    a->text = strdup(reply->json);
  else
    a->error = *reply->error;
  a->has_come = true;
  (void)pthread_cond_signal(&a->done);
  (void)pthread_mutex_unlock(&a->lock);
}

tm_status answer_wait(answer *a) {
  (void)pthread_mutex_lock(&a->lock);
  while (!a->has_come)
    (void)pthread_cond_wait(&a->done, &a->lock);
  (void)pthread_mutex_unlock(&a->lock);
  if (a->status == TM_OK && a->text == NULL) {
    a->status = TM_ENOMEM;
    a->error = (tm_error){.status = TM_ENOMEM, .code = "host.memory", .message = "out of memory"};
  }
  return a->status;
}

void answer_deinit(answer *a) {
  free(a->text);
  (void)pthread_cond_destroy(&a->done);
  (void)pthread_mutex_destroy(&a->lock);
}

static int fail_memory(void) {
  return fail(&(tm_error){.status = TM_ENOMEM, .code = "host.memory", .message = "out of memory"});
}

json_t *answer_json(answer *a) {
  if (answer_wait(a) != TM_OK) {
    (void)fail(&a->error);
    return NULL;
  }
  json_t *json = json_loads(a->text, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
  if (json == NULL) (void)fail_memory(); /* the host answers with JSON and nothing else */
  return json;
}

const char *json_text(const json_t *object, const char *key) {
  const char *text = json_string_value(json_object_get(object, key));
  return text != NULL ? text : "";
}

/* ---- errors ---- */

/* What the library refuses because of how it was asked. */
static bool is_usage(const tm_error *err) {
  return strcmp(err->code, "request.invalid") == 0 || strcmp(err->code, "json.invalid") == 0 ||
         strcmp(err->code, "store.url") == 0;
}

int fail(const tm_error *err) {
  (void)fflush(stdout);
  (void)fprintf(stderr, "tidemill: %s [%s]\n", err->message,
                err->code[0] != '\0' ? err->code : tm_status_name(err->status));
  return is_usage(err) ? EXIT_USAGE : EXIT_FAILED;
}

int usage(const char *fmt, ...) {
  va_list args;
  (void)fflush(stdout);
  (void)fputs("tidemill: ", stderr);
  va_start(args, fmt);
  (void)vfprintf(stderr, fmt, args);
  va_end(args);
  (void)fputs(" [cli.usage]\n", stderr);
  return EXIT_USAGE;
}

/* ---- the host ---- */

int open_host(cli *c, bool with_log) {
  tm_error err;
  tm_options o = TM_OPTIONS_INIT;
  o.config_file = c->config;
  o.env_file = c->env_file;
  o.set = c->set;
  o.log = with_log ? log_line : NULL;
  o.log_ud = &c->log;
  return tm_host_new(&c->host, &o, &err) == TM_OK ? EXIT_OK : fail(&err);
}

int start_host(cli *c, bool with_log) {
  tm_error err;
  int code = open_host(c, with_log);
  if (code != EXIT_OK) return code;
  return tm_host_start(c->host, &err) == TM_OK ? EXIT_OK : fail(&err);
}

void close_host(cli *c) {
  tm_host_free(c->host);
  c->host = NULL;
}

/* ---- output ---- */

void print_text(const char *text) {
  size_t size = strlen(text);
  (void)fwrite(text, 1, size, stdout);
  if (size > 0 && text[size - 1] != '\n') (void)fputc('\n', stdout);
}

int show_text(cli *c, const char *view, const char *json) {
  answer a;
  answer_init(&a);
  tm_text_render(c->host, view, json, c->columns, c->colour ? 1 : 0, answer_come, &a);
  int code = answer_wait(&a) == TM_OK ? EXIT_OK : fail(&a.error);
  if (code == EXIT_OK) print_text(a.text);
  answer_deinit(&a);
  return code;
}

int show(cli *c, const char *view, const json_t *json) {
  char *text = json_dumps(json, JSON_COMPACT | JSON_ENCODE_ANY);
  int code = text != NULL ? show_text(c, view, text) : fail_memory();
  free(text);
  return code;
}

int print_answer(cli *c, const char *view, const answer *a) {
  if (!c->json) return show_text(c, view, a->text);
  print_text(a->text);
  return EXIT_OK;
}

int show_answer(cli *c, const char *view, answer *a) {
  return answer_wait(a) == TM_OK ? print_answer(c, view, a) : fail(&a->error);
}

void look_at_terminal(cli *c) {
  struct winsize size;
  const char *text = getenv("COLUMNS"), *plain = getenv("NO_COLOR");
  long columns = text != NULL ? strtol(text, NULL, 10) : 0;
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) columns = size.ws_col;
  c->columns = columns >= 20 && columns <= 1000 ? (int)columns : 80;
  c->colour = isatty(STDOUT_FILENO) && (plain == NULL || plain[0] == '\0');
}

/* Has whoever read our output left, as `head` does when it has seen enough? */
static bool reader_is_gone(void) {
  struct pollfd p = {.fd = STDOUT_FILENO};
  return poll(&p, 1, 0) == 1 && (p.revents & (POLLERR | POLLHUP)) != 0;
}

int flush_output(int code) {
  if (fflush(stdout) == 0 && !ferror(stdout)) return code;
  if (reader_is_gone()) return code;
  (void)fputs("tidemill: standard output could not be written [cli.output]\n", stderr);
  return EXIT_FAILED;
}
