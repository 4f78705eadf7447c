/* Every script of this folder tries one thing against a host with one worker, beside a well-behaved
 * system. While its conversation runs, another one keeps talking: its longest wait, the memory of
 * the process and what the hostile script got are looked at. Each script has a host of its own.
 *
 *   hostile_test [NAME...]   all scripts, or these
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <limits.h>
#include <malloc.h>
#include <pthread.h>
#include <sys/wait.h>

#include "tests/hostile/script.h"
#include "tests/hostile/silent.h"
#include "tests/hostile/talk.h"
#include "tests/scratch.h"
#include "tidemill.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SANITIZED = 1 };
#else
enum { SANITIZED = 0 };
#endif

/* What a wait may exceed twice the normal time by: a slice, and the grain with which its end is
 * noticed and dealt with. With a sanitizer everything takes longer, allocating most of all. */
#define SLOWER (SANITIZED ? 4 : 1)
enum { SLICE_US = 50000 * SLOWER, LOAD_US = 250000 * SLOWER };
enum { GRAIN_US = SANITIZED ? 150000 : 15000 };

/* What the process may grow by: the state's memory (64 MiB), the step's (8 MiB), and outside of Lua
 * what a turn is written as: the texts of its state, rows and answer. */
enum { MEMORY_KB = (64 + 8 + 12) * 1024 };

enum { TRIES = 3, ANSWER_S = 20, MOST_SCRIPTS = 400 };

static char dir[40];
static char paths[MOST_SCRIPTS][300];
static bool verbose;
static silent server; /* ctx.session.metadata.silent */

/* Ends the process that runs the script, and with it whatever the script does still. */
__attribute__((format(printf, 1, 2))) static _Noreturn void die(const char *format, ...) {
  va_list args;
  va_start(args, format);
  (void)vfprintf(stderr, format, args);
  va_end(args);
  (void)fputc('\n', stderr);
  _exit(1);
}

/* ---- hosts ---- */

typedef struct kept_log {
  pthread_mutex_t lock;
  char last[2000];
  bool torn; /* a line had a control character in it */
} kept_log;

static kept_log lines = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void on_log(void *ud, const char *line, size_t size) {
  kept_log *l = ud;
  (void)pthread_mutex_lock(&l->lock);
  for (size_t i = 0; i < size; i++)
    l->torn = l->torn || (unsigned char)line[i] < 0x20;
  (void)snprintf(l->last, sizeof(l->last), "%.*s", (int)size, line);
  (void)pthread_mutex_unlock(&l->lock);
}

static tm_status start_host(tm_host **h, const char *scripts, tm_error *err) {
  char folders[300];
  (void)snprintf(folders, sizeof(folders), "scripts=%s", scripts);
  const char *set[] = {folders,
                       "workflow_persistence.backend=memory",
                       "server.workers=1",
                       SANITIZED ? "limits.cpu_slice=200ms" : "limits.cpu_slice=50ms",
                       SANITIZED ? "limits.load_time=1s" : "limits.load_time=250ms",
                       "limits.output=64KiB",
                       NULL};
  tm_options o = TM_OPTIONS_INIT;
  o.set = set;
  o.log = on_log;
  o.log_ud = &lines;
  tm_status st = tm_host_new(h, &o, err);
  return st == TM_OK ? tm_host_start(*h, err) : st;
}

/* ---- memory ---- */

static long status_kb(const char *name) {
  char line[128];
  long kb = 0;
  size_t n = strlen(name);
  FILE *f = fopen("/proc/self/status", "r");
  while (f != NULL && fgets(line, sizeof(line), f) != NULL)
    if (strncmp(line, name, n) == 0) kb = strtol(line + n, NULL, 10);
  if (f != NULL) (void)fclose(f);
  return kb;
}

/* The peak begins anew at what is resident now. */
static long reset_peak(void) {
  (void)malloc_trim(0);
  FILE *f = fopen("/proc/self/clear_refs", "w");
  if (f == NULL || fputs("5", f) < 0 || fclose(f) != 0) die("the peak of memory is not known");
  return status_kb("VmRSS:");
}

/* ---- one conversation ---- */

/* Two codes, "script.cpu|script.memory", where the speed decides which limit comes first. */
static bool tells_one(const char *text, const char *codes) {
  char member[80];
  bool told = false;
  for (const char *at = codes; at != NULL && !told; at = strchr(at, '|')) {
    at += *at == '|';
    (void)snprintf(member, sizeof(member), "\"code\":\"%.*s\"", (int)strcspn(at, "|"), at);
    told = strstr(text, member) != NULL;
  }
  return told;
}

static void expect_answer(const script *s, const answer *a) {
  char status[80];
  bool as_told;
  (void)snprintf(status, sizeof(status), "\"status\":\"%s\"", s->kind);
  if (strcmp(s->kind, "error") == 0)
    as_told = a->status != TM_OK && strcmp(a->code, s->code) == 0;
  else
    as_told = a->status == TM_OK && strstr(a->text, status) != NULL;
  if (strcmp(s->kind, "failed") == 0) as_told = as_told && tells_one(a->text, s->code);
  if (!as_told || strstr(a->text, s->told) == NULL)
    die("%s: expected %s %s %s, got %s %.600s", s->name, s->kind, s->code, s->told, a->code,
        a->text);
  bool limit = strncmp(s->code, "script.", 7) == 0 && strcmp(s->code, "script.error") != 0;
  if (limit && strstr(a->text, ".lua:") == NULL) die("%s: no place in %s", s->name, a->text);
}

/* The script from its start to its last answer, with the neighbour talking all the while. */
static void attack(tm_host *h, talk *t, const script *s) {
  answer a;
  char id[40], metadata[80];
  tm_begin b = TM_BEGIN_INIT;
  b.system = s->name;
  b.flow_id = "attack";
  b.message = "a message";
  (void)snprintf(metadata, sizeof(metadata), "{\"silent\":\"%s\"}", server.url);
  b.metadata_json = metadata;
  answer_init(&a);
  tm_conversation_begin(h, &b, on_answer, &a);
  bool came = talk_while(t, &a, ANSWER_S);
  for (int i = 0; came && i < s->says && strstr(a.text, "\"waiting_input\"") != NULL; i++) {
    (void)answer_id(&a, id);
    answer_free(&a);
    answer_init(&a);
    tm_message_send(h, NULL, id, s->say[i], NULL, on_answer, &a);
    came = talk_while(t, &a, ANSWER_S);
  }
  if (!came) die("%s: no answer within %d s", s->name, ANSWER_S);
  expect_answer(s, &a);
  answer_free(&a);
}

/* ---- one script ---- */

/* Twice: the second conversation finds what the first one left. */
static void attack_twice(tm_host *h, const script *s, int64_t *over_us, long *grown_kb) {
  static talk t; /* a late answer finds it in place */
  talk_init(&t, h);
  talk_measure(&t);
  long before = reset_peak();
  attack(h, &t, s);
  attack(h, &t, s);
  *grown_kb = status_kb("VmHWM:") - before;
  *over_us = t.longest_us - 2 * t.normal_us;
  if (silent_held(&server) > 0) die("%s: a call to the outside goes on", s->name);
  talk_once(&t);
  if (t.wrong[0] != '\0') die("%s: the neighbour heard %s", s->name, t.wrong);
}

static void run_beside(const script *s, const char *scripts) {
  int64_t over_us = INT64_MAX;
  long grown_kb = LONG_MAX;
  for (int i = 0; i < TRIES && over_us > SLICE_US + GRAIN_US; i++) {
    tm_host *h;
    tm_error err;
    if (start_host(&h, scripts, &err) != TM_OK) die("%s: %s", s->name, err.message);
    attack_twice(h, s, &over_us, &grown_kb);
    tm_host_stop(h, 1000);
    tm_host_free(h);
  }
  if (verbose)
    print_message("%-28s wait %6.1f ms, grew %6ld KiB\n", s->name, (double)over_us / 1e3, grown_kb);
  if (over_us > SLICE_US + GRAIN_US)
    die("%s: the neighbour waited %lld us over twice its normal time", s->name, (long long)over_us);
  if (!SANITIZED && grown_kb > MEMORY_KB) die("%s: the process grew by %ld KiB", s->name, grown_kb);
  if (lines.torn) die("%s: a torn line in the log", s->name);
}

/* The host refuses the whole, checking tells it too, and finds nothing wrong with the neighbour. */
static void run_refused(const script *s, const char *scripts) {
  tm_host *h = NULL;
  tm_error err = {0};
  int64_t start = cpu_us();
  tm_status st = start_host(&h, scripts, &err);
  int64_t spent = cpu_us() - start;
  bool as_told = st != TM_OK && strstr(s->code, err.code) != NULL; /* one of its codes */
  if (!as_told || strstr(err.message, s->told) == NULL)
    die("%s: expected %s %s, got %s %s", s->name, s->code, s->told, err.code, err.message);
  if (strstr(err.message, ".lua:") == NULL) die("%s: no place in %s", s->name, err.message);
  if (verbose) print_message("%-28s %s (%lld us)\n", s->name, err.message, (long long)spent);
  if (spent > 2 * (LOAD_US + GRAIN_US))
    die("%s: the refusal took %lld us", s->name, (long long)spent);
  answer a;
  char folder[2][400];
  const char *path = folder[0];
  (void)snprintf(folder[0], sizeof(folder[0]), "%s/%s", scripts, s->name);
  (void)snprintf(folder[1], sizeof(folder[1]), "%s/neighbour", scripts);
  answer_init(&a);
  tm_scripts_check(h, &path, 1, on_answer, &a);
  if (a.status == TM_OK && strstr(a.text, "\"errors\":0") != NULL)
    die("%s: check finds nothing: %s", s->name, a.text);
  answer_free(&a);
  path = folder[1];
  answer_init(&a);
  tm_scripts_check(h, &path, 1, on_answer, &a);
  if (a.status != TM_OK || strstr(a.text, "\"errors\":0") == NULL)
    die("%s: the neighbour does not check: %s", s->name, a.text);
  answer_free(&a);
  tm_host_free(h);
}

static void make_folder(const script *s, const char *scripts) {
  char folder[300];
  if (mkdir(scripts, 0700) != 0) die("%s cannot be made", scripts);
  (void)snprintf(folder, sizeof(folder), "%s/%s", scripts, s->name);
  if (!script_write(s, folder)) die("%s: its folder cannot be made", s->name);
  (void)snprintf(folder, sizeof(folder), "%s/neighbour", scripts);
  char *text = script_read_file("tests/hostile/neighbour.lua");
  if (text == NULL || mkdir(folder, 0700) != 0 ||
      !script_write_file(folder, "init.lua", text, strlen(text)))
    die("the neighbour's folder cannot be made");
  free(text);
}

static void run_script(const char *path) {
  script s;
  char scripts[200];
  if (!script_load(&s, path)) die("%s: no script, or it expects nothing", path);
  (void)snprintf(scripts, sizeof(scripts), "%s/%s", dir, s.name);
  make_folder(&s, scripts);
  if (!silent_open(&server)) die("no server can be opened");
  if (strcmp(s.kind, "refused") == 0)
    run_refused(&s, scripts);
  else
    run_beside(&s, scripts);
  free(s.text);
  (void)close(server.socket);
}

/* In a process of its own: what it leaves, or breaks, is no other script's. */
static void test_script(void **state) {
  (void)fflush(NULL);
  pid_t pid = fork();
  assert_true(pid >= 0);
  if (pid == 0) {
    (void)alarm(TRIES * 3 * ANSWER_S);
    run_script(*state);
    exit(0);
  }
  int status = 0;
  assert_int_equal(waitpid(pid, &status, 0), pid);
  if (WIFSIGNALED(status)) fail_msg("killed by signal %d", WTERMSIG(status));
  assert_int_equal(WEXITSTATUS(status), 0);
}

/* ---- all scripts ---- */

static int by_name(const void *a, const void *b) {
  return strcmp(a, b);
}

/* What ThreadSanitizer cannot run. */
static bool is_skipped(const char *name) {
  static const char *const skipped[] = {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    "load_template_many.lua", /* with the time it has then, memory may run out first */
#endif
#ifdef __SANITIZE_THREAD__
    "error_huge.lua",      /* copying bytes takes so long that time runs out first */
    "load_names_many.lua", /* likewise */
    "pcall_of_pcall.lua",  /* it takes our functions that an error of Lua leaves for running
                              still, and gives up at 65536 of them */
#endif
    NULL
  };
  for (size_t i = 0; skipped[i] != NULL; i++)
    if (strcmp(name, skipped[i]) == 0) return true;
  return false;
}

static size_t find_scripts(void) {
  size_t n = 0;
  DIR *d = opendir("tests/hostile");
  for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;) {
    const char *end = strrchr(e->d_name, '.');
    if (end == NULL || strcmp(end, ".lua") != 0 || strcmp(e->d_name, "neighbour.lua") == 0 ||
        is_skipped(e->d_name))
      continue;
    if (n < MOST_SCRIPTS)
      (void)snprintf(paths[n++], sizeof(paths[0]), "tests/hostile/%s", e->d_name);
  }
  if (d != NULL) (void)closedir(d);
  qsort(paths, n, sizeof(paths[0]), by_name);
  return n;
}

static int set_up(void **state) {
  (void)state;
  return scratch_make(dir, sizeof(dir), "hostile") ? 0 : -1;
}

static int tear_down(void **state) {
  (void)state;
  char command[100];
  (void)snprintf(command, sizeof(command), "rm -rf %s", dir);
  return system(command);
}

int main(int argc, char **argv) {
  static struct CMUnitTest tests[MOST_SCRIPTS];
  size_t n = 0;
  verbose = argc > 1;
  if (argc == 1 || strcmp(argv[1], "all") == 0) {
    n = find_scripts();
  } else {
    for (int i = 1; i < argc && n < MOST_SCRIPTS; i++)
      (void)snprintf(paths[n++], sizeof(paths[0]), "tests/hostile/%s.lua", argv[i]);
  }
  for (size_t i = 0; i < n; i++)
    tests[i] = (struct CMUnitTest){
        .name = strrchr(paths[i], '/') + 1, .test_func = test_script, .initial_state = paths[i]};
  return _cmocka_run_group_tests("hostile scripts", tests, n, set_up, tear_down);
}
