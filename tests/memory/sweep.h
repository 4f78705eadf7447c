/* sweep.h - fails each allocation of an operation in turn, in child processes.
 *
 * A first child runs the operation undisturbed and notes the paths of its allocations. The trials
 * then fail the first and one later occurrence of each path alone, and the first with everything
 * that follows until the operation is over; a scenario that takes long tries only
 * some of the paths. With TIDEMILL_NIGHTLY set every single allocation fails alone (of what the
 * sweep before has not seen: every path). A trial that crashes, hangs or complains ends its child;
 * the next child goes on behind it. What still lives when a child's world has been torn down must
 * be what lived before.
 */
#ifndef TEST_MEMORY_SWEEP_H
#define TEST_MEMORY_SWEEP_H

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "alloc.h"

#define PATIENCE_S    60 /* for one trial, however busy the machine */
#define VERIFY_ONE_IN 16 /* at night, where verifying is a second start */
#define MAX_FAULTS    12 /* then a sweep ends: one fault has many paths */

typedef struct scenario {
  const char *name;
  void (*set_up)(void);    /* once per child, undisturbed; NULL: nothing */
  void (*prepare)(void);   /* before each trial, undisturbed; NULL: nothing */
  void (*run)(void);       /* the operation */
  void (*verify)(void);    /* after each trial, with memory back */
  void (*tear_down)(void); /* the end of what set_up made; NULL: nothing */
  bool starts;             /* a host starts in it: what libuv makes then is spared */
  bool rest;               /* only paths that the last sweep without this has not seen */
  bool by_path;            /* at night ten times as many paths, not every single allocation */
  bool cold;               /* each trial in a child of its own, in which nothing has run before */
  unsigned sample;         /* one of so many paths, the rest at night (see by_path); 0: all */
} scenario;

typedef struct trial {
  alloc_point point;
  alloc_mode mode;
} trial;

typedef struct sweep_state { /* shared with the children */
  uint32_t allocations, paths, count, known;
  bool each;           /* every single allocation is tried */
  uint64_t seen[4096]; /* paths of the sweep before, sorted */
  _Atomic uint32_t at; /* the trial under way */
  _Atomic uint32_t hits;
  trial trials[4 * ALLOC_POINTS];
} sweep_state;

static sweep_state *sweep;
static const char *sweep_name; /* of the scenario */

/* ---- complaints ---- */

/* A child that dies by a signal says what it still can: there is nothing left to lose. */
/* NOLINTBEGIN(bugprone-signal-handler) */

__attribute__((format(printf, 1, 2))) static void say(const char *fmt, ...) {
  char text[2048];
  va_list ap;
  va_start(ap, fmt);
  int n = vsnprintf(text, sizeof(text), fmt, ap);
  va_end(ap);
  if (n > (int)sizeof(text) - 1) n = (int)sizeof(text) - 1;
  if (write(STDERR_FILENO, text, n > 0 ? (size_t)n : 0) < 0) _exit(2);
}

static void show_failed(void) {
  const trial *t = &sweep->trials[atomic_load(&sweep->at)];
  say("%s: trial %u, allocation %u%s failed here:\n", sweep_name, atomic_load(&sweep->at),
      t->point.at, t->mode == ALLOC_FROM ? " and all after it" : "");
  backtrace_symbols_fd(alloc.frames, alloc.depth, STDERR_FILENO);
}

static void on_signal(int sig) {
  void *frames[ALLOC_FRAMES];
  alloc_disarm();
  say("\n%s\n", sig == SIGALRM ? "hangs" : strsignal(sig));
  backtrace_symbols_fd(frames, backtrace(frames, ALLOC_FRAMES), STDERR_FILENO);
  show_failed();
  if (sig == SIGALRM && getenv("SWEEP_HOLD") != NULL) (void)pause();
  _exit(3);
}
/* NOLINTEND(bugprone-signal-handler) */

/* Ends the child. */
__attribute__((format(printf, 1, 2), noreturn)) static void complain(const char *fmt, ...) {
  char text[1024];
  va_list ap;
  alloc_disarm();
  va_start(ap, fmt);
  (void)vsnprintf(text, sizeof(text), fmt, ap);
  va_end(ap);
  say("\n%s\n", text);
  show_failed();
  _exit(1);
}

/* ---- in a child ---- */

static void call(void (*f)(void)) {
  if (f != NULL) f();
}

static void catch_signals(void) {
  static const int fatal[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL, SIGALRM};
  for (size_t i = 0; i < sizeof(fatal) / sizeof(fatal[0]); i++)
    (void)signal(fatal[i], on_signal);
  (void)signal(SIGPIPE, SIG_IGN);
}

/* Where a stack's path begins, whoever called. */
__attribute__((noinline)) static void run(const scenario *s) {
  s->run();
  alloc_disarm();
}

static void life(const scenario *s, alloc_mode mode) {
  call(s->set_up);
  call(s->prepare);
  atomic_store(&alloc.spared, 0);
  alloc_arm(mode, (alloc_point){0}, 0);
  run(s);
  call(s->verify);
  call(s->tear_down);
}

/* What the libraries keep for good is there after a life or two. */
static void warm_up(const scenario *s) {
  (void)alarm(PATIENCE_S);
  life(s, ALLOC_REST);
  life(s, ALLOC_REST);
}

static void add_trial(alloc_mode mode, uint64_t path, uint32_t at) {
  sweep->trials[sweep->count++] = (trial){{path, at}, mode};
}

static int path_order(const void *a, const void *b) {
  const uint64_t *x = a, *y = b;
  return (*x > *y) - (*x < *y);
}

static bool is_known(uint64_t path) {
  return bsearch(&path, sweep->seen, sweep->known, sizeof(path), path_order) != NULL;
}

static int point_order(const void *a, const void *b) {
  const alloc_point *x = a, *y = b;
  if (x->path != y->path) return x->path < y->path ? -1 : 1;
  return (x->at > y->at) - (x->at < y->at);
}

static int trial_order(const void *a, const void *b) {
  const trial *x = a, *y = b;
  if (x->mode != y->mode) return x->mode < y->mode ? -1 : 1;
  return (x->point.at > y->point.at) - (x->point.at < y->point.at);
}

static bool each_alone(const scenario *s, bool night) {
  return night && !s->rest && !s->by_path;
}

/* The places of one path: at[0 .. count-1], in order. */
static void add_path(const scenario *s, const alloc_point *at, uint32_t count, bool night) {
  unsigned by_day = s->sample == 0 ? 1 : s->sample;
  unsigned sample = !night ? by_day : s->by_path ? (by_day + 9) / 10 : 1;
  sweep->paths++;
  if ((s->rest && is_known(at->path)) || at->at % sample != 0) return;
  if (sweep->each) {
    add_trial(ALLOC_FROM, at->path, at->at);
    return;
  }
  add_trial(ALLOC_ONE, at->path, at->at);
  if (s->cold || (sample > 1 && at->at % (2 * sample) != 0)) return;
  add_trial(ALLOC_FROM, at->path, at->at);
  if (count > 1) add_trial(ALLOC_ONE, at->path, at[count / 2].at);
}

/* Of the first n points, which are sorted by path. */
static void remember_paths(uint32_t n) {
  sweep->known = 0;
  for (uint32_t i = 0; i < n && sweep->known < sizeof(sweep->seen) / sizeof(*sweep->seen); i++)
    if (sweep->known == 0 || sweep->seen[sweep->known - 1] != alloc_points[i].path)
      sweep->seen[sweep->known++] = alloc_points[i].path;
}

static void choose_trials(const scenario *s, bool night) {
  uint32_t n = atomic_load(&alloc.count);
  if (n > ALLOC_POINTS) n = ALLOC_POINTS;
  sweep->allocations = n;
  sweep->paths = sweep->count = 0;
  sweep->each = each_alone(s, night);
  for (uint32_t i = 0; sweep->each && i < n; i++)
    add_trial(ALLOC_ONE, 0, i);
  qsort(alloc_points, n, sizeof(*alloc_points), point_order);
  for (uint32_t i = 0, end; i < n; i = end) {
    for (end = i; end < n && alloc_points[end].path == alloc_points[i].path;)
      end++;
    add_path(s, &alloc_points[i], end - i, night);
  }
  if (!s->rest) remember_paths(n);
  qsort(sweep->trials, sweep->count, sizeof(*sweep->trials), trial_order);
}

static void profile(const scenario *s, bool night) {
  if (!s->cold) warm_up(s);
  int64_t live = atomic_load(&alloc.live);
  life(s, ALLOC_RECORD);
  int64_t more = atomic_load(&alloc.live) - live;
  if (!s->cold && more != 0) complain("%lld blocks stay although nothing failed", (long long)more);
  choose_trials(s, night);
  if (!s->starts && atomic_load(&alloc.spared) != 0) complain("libuv could have called abort()");
}

static void try_one(const scenario *s, uint32_t i) {
  const trial *t = &sweep->trials[i];
  atomic_store(&sweep->at, i);
  (void)alarm(PATIENCE_S);
  call(s->prepare);
  alloc_arm(t->mode, t->point, t->point.at / 16 + 256);
  run(s);
  if (atomic_load(&alloc.hit)) (void)atomic_fetch_add(&sweep->hits, 1);
  bool sampled = sweep->each && s->starts && i % VERIFY_ONE_IN != 0 && i + 1 < sweep->count;
  if (!sampled) call(s->verify);
}

static void try_from(const scenario *s, uint32_t first) {
  if (!s->cold) warm_up(s);
  int64_t live = atomic_load(&alloc.live);
  call(s->set_up);
  bool one = s->cold || getenv("SWEEP_TRIAL") != NULL;
  for (uint32_t i = first; i < sweep->count && (i == first || !one); i++) {
    try_one(s, i);
    if (s->set_up != NULL && !atomic_load(&alloc.hit)) { /* what is done once only in a world */
      call(s->tear_down);
      call(s->set_up);
      try_one(s, i);
    }
    int64_t more = atomic_load(&alloc.live) - live;
    if (s->set_up == NULL && !s->cold && more != 0) complain("%lld blocks leaked", (long long)more);
  }
  call(s->tear_down);
  int64_t more = atomic_load(&alloc.live) - live;
  if (!s->cold && more != 0) complain("%lld blocks leaked by some trial", (long long)more);
}

/* ---- the parent ---- */

static int in_child(const scenario *s, void (*f)(const scenario *, uint32_t), uint32_t argument) {
  int status = -1;
  pid_t child = fork();
  if (child == 0) {
    catch_signals();
    alloc.root = (range){(uintptr_t)run, (uintptr_t)run + 32};
    f(s, argument);
    _exit(0);
  }
  if (child > 0) (void)waitpid(child, &status, 0);
  return status;
}

static void profile_child(const scenario *s, uint32_t night) {
  profile(s, night != 0);
}

static bool map_state(void) {
  void *p = mmap(NULL, sizeof(*sweep), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  sweep = p != MAP_FAILED ? p : NULL;
  return sweep != NULL;
}

static double cpu_of_children(void) {
  struct rusage u;
  (void)getrusage(RUSAGE_CHILDREN, &u);
  return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
         (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* How many trials went wrong. */
static int sweep_run(const scenario *s) {
  sweep_name = s->name;
  double cpu = cpu_of_children();
  if (sweep == NULL && !map_state()) return 1;
  atomic_store(&sweep->at, 0);
  atomic_store(&sweep->hits, 0);
  int faults = in_child(s, profile_child, getenv("TIDEMILL_NIGHTLY") != NULL) != 0;
  const char *only = getenv("SWEEP_TRIAL");
  uint32_t next = only != NULL ? (uint32_t)atoi(only) : 0;
  while (next < sweep->count && faults < MAX_FAULTS) {
    faults += in_child(s, try_from, next) != 0;
    next = atomic_load(&sweep->at) + 1;
    if (only != NULL) break;
  }
  printf("%s: %u allocations on %u paths, %u trials, %u of them hit, %.1f s of CPU\n", s->name,
         sweep->allocations, sweep->paths, sweep->count, atomic_load(&sweep->hits),
         cpu_of_children() - cpu);
  (void)fflush(stdout);
  return faults;
}

#endif
