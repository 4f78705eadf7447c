/* main_store.c - the commands that move whole stores: copying, backups, restoring. */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "main.h"

#define BAR_WIDTH 30
#define BAR_MS    100 /* between two pictures */

static volatile sig_atomic_t stopping;

/* ---- progress ---- */

typedef struct bar {
  bool shown; /* on a terminal only */
  int64_t next_ms;
} bar;

static int64_t monotonic_ms(void) {
  struct timespec t;
  (void)clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* At most 79 columns, so that it never wraps. */
static void draw(const tm_progress *p) {
  char filled[BAR_WIDTH + 1];
  double part = p->total > 0 ? (double)p->done / (double)p->total : 0;
  int width = part >= 1 ? BAR_WIDTH : (int)(part * BAR_WIDTH);
  memset(filled, ' ', BAR_WIDTH);
  memset(filled, '=', (size_t)width);
  filled[BAR_WIDTH] = '\0';
  (void)fprintf(stderr, "\r[%s] %3d %%  %" PRId64 " of %" PRId64 ", %" PRId64 " rows", filled,
                part >= 1 ? 100 : (int)(part * 100), p->done, p->total, p->rows);
  (void)fflush(stderr);
}

static int on_progress(void *ud, const tm_progress *p) {
  bar *b = ud;
  if (b->shown && monotonic_ms() >= b->next_ms) {
    b->next_ms = monotonic_ms() + BAR_MS;
    draw(p);
  }
  return stopping == 0;
}

static void clear(const bar *b) {
  if (!b->shown || b->next_ms == 0) return;
  (void)fprintf(stderr, "\r%78s\r", "");
  (void)fflush(stderr);
}

/* The first signal stops at a safe point, the second one at once. */
static void on_signal(int which) {
  (void)which;
  stopping = 1;
}

static void watch_signals(void) {
  struct sigaction a = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
  (void)sigaction(SIGINT, &a, NULL);
  (void)sigaction(SIGTERM, &a, NULL);
}

/* ---- results ---- */

static json_int_t number(const json_t *report, const char *key) {
  return json_integer_value(json_object_get(report, key));
}

static void print_report(const json_t *report) {
  (void)printf("%s -> %s\n", json_text(report, "from"), json_text(report, "to"));
  (void)printf("conversations %" JSON_INTEGER_FORMAT ", of those written %" JSON_INTEGER_FORMAT
               " (%" JSON_INTEGER_FORMAT " rows); sessions %" JSON_INTEGER_FORMAT
               "; events %" JSON_INTEGER_FORMAT "; scripts written %" JSON_INTEGER_FORMAT "\n",
               number(report, "conversations"), number(report, "copied"), number(report, "rows"),
               number(report, "sessions"), number(report, "events"), number(report, "scripts"));
  if (number(report, "rewritten") > 0)
    (void)printf("rows whose bodies had changed %" JSON_INTEGER_FORMAT "\n",
                 number(report, "rewritten"));
  if (number(report, "removed") > 0)
    (void)printf("conversations and delivered events removed from the target "
                 "%" JSON_INTEGER_FORMAT "\n",
                 number(report, "removed"));
  if (number(report, "tenants") > 0)
    (void)printf("tenants with stores of their own %" JSON_INTEGER_FORMAT "\n",
                 number(report, "tenants"));
  (void)printf("digest %s\n", json_text(report, "digest"));
}

/* The failures go to stderr, whether the rest is JSON or not. */
static int print_failures(const json_t *report) {
  const json_t *one, *failed = json_object_get(report, "failed");
  json_int_t count = number(report, "failures");
  size_t i;
  if (count == 0) return EXIT_OK;
  (void)fflush(stdout);
  json_array_foreach(failed, i, one)(void)
      fprintf(stderr, "tidemill: %s [%s]\n", json_text(one, "message"), json_text(one, "code"));
  (void)fprintf(stderr, "tidemill: %" JSON_INTEGER_FORMAT " could not be copied\n", count);
  return EXIT_FAILED;
}

typedef void (*move_fn)(tm_host *host, const tm_move *move, tm_reply_fn fn, void *ud);

static int run_move(cli *c, move_fn move, const char *from, const char *to) {
  int code = open_host(c, false);
  if (code != EXIT_OK) return code;
  answer a;
  bar b = {.shown = !c->json && isatty(STDERR_FILENO) != 0};
  tm_move m = TM_MOVE_INIT;
  m.from = from;
  m.to = to;
  m.force = c->force;
  m.progress = on_progress;
  m.progress_ud = &b;
  watch_signals();
  answer_init(&a);
  move(c->host, &m, answer_come, &a);
  clear(&b);
  if (answer_wait(&a) != TM_OK) {
    code = fail(&a.error);
  } else {
    json_t *report = answer_json(&a);
    if (c->json)
      print_text(a.text);
    else
      print_report(report);
    code = report != NULL ? print_failures(report) : EXIT_FAILED;
    json_decref(report);
  }
  answer_deinit(&a);
  close_host(c);
  return code;
}

/* ---- the commands ---- */

int run_store_copy(cli *c) {
  if (c->from == NULL && c->to == NULL)
    return usage("`store copy` wants --from URL or --to URL, or both");
  return run_move(c, tm_store_copy, c->from, c->to);
}

int run_backup(cli *c) {
  return run_move(c, tm_store_backup, NULL, c->arg[0]);
}

int run_restore(cli *c) {
  return run_move(c, tm_store_restore, c->arg[0], NULL);
}

/* ---- doctor ---- */

int run_doctor(cli *c) {
  answer a;
  tm_options o = TM_OPTIONS_INIT;
  o.config_file = c->config;
  o.env_file = c->env_file;
  o.set = c->set;
  answer_init(&a);
  tm_doctor(&o, c->deep, answer_come, &a);
  json_t *report = answer_json(&a), *one;
  size_t i;
  if (report != NULL && c->json) print_text(a.text);
  json_array_foreach(json_object_get(report, "items"), i, one) {
    if (c->json) break;
    (void)printf("%s: %s: %s\n", json_text(one, "level"), json_text(one, "area"),
                 json_text(one, "text"));
  }
  int code = report != NULL && number(report, "errors") == 0 ? EXIT_OK : EXIT_FAILED;
  if (code == EXIT_OK && !c->json && number(report, "warnings") == 0)
    (void)printf("nothing is wrong\n");
  json_decref(report);
  answer_deinit(&a);
  return code;
}
