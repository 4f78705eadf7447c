/* turns.c - the library's turns: throughput, bytes written, latency, cost of a long conversation.
 *
 *   turns throughput DB SECONDS [IDS]   10,000 conversations, 64 turns at work at once
 *   turns latency DB TURNS              one at a time
 *   turns length DB                     CPU of a turn after 10 and after 10,000 steps
 *   turns grow DB TURNS [ID]            so many turns of one conversation, a new one without an ID;
 *                                       prints its id and the bytes written
 *   turns memory DB WORKERS             start, and what the process holds when all workers have run
 *   turns deadlines DB COUNT            CPU of a turn with so many sleeping conversations beside
 *
 * Uses tidemill.h only. IDS: a file that receives the conversations' ids, one per line. In the
 * environment, BENCH_STORE may hold settings of another store, KEY=VALUE, separated by blanks;
 * BENCH_GATE may name a FIFO: throughput then says "ready" and begins when it is opened. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "tidemill.h"

enum { CONVERSATIONS = 10000, AT_ONCE = 64, STEPS_PER_TURN = 3 };

typedef struct bench {
  tm_host *host;
  const char *flow; /* that is begun */
  char (*ids)[40];
  pthread_mutex_t lock;
  pthread_cond_t changed;
  int running;       /* requests under way, guarded by lock */
  int wanted;        /* conversations to begin */
  atomic_int next;   /* the next conversation to begin, or to visit */
  atomic_long turns; /* finished */
  atomic_bool stop;
} bench;

typedef struct usage {
  double turns, per_second, cpu_us; /* the latter per turn */
} usage;

typedef struct slot { /* one of the 64: its own conversations, in a random order */
  bench *b;
  int index;
  unsigned seed;
} slot;

static void die(const char *what, const tm_error *err) {
  fprintf(stderr, "bench: %s: %s [%s]\n", what, err->message, err->code);
  exit(1);
}

static double now_us(clockid_t clock) {
  struct timespec t;
  (void)clock_gettime(clock, &t);
  return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

/* What was handed to write(2) and its like: the kernel's other figure, write_bytes, is of whole
 * folios, which may be many pages. */
static long long written_bytes(void) {
  char line[128];
  long long n = 0;
  FILE *f = fopen("/proc/self/io", "r");
  while (f != NULL && fgets(line, sizeof(line), f) != NULL)
    (void)sscanf(line, "wchar: %lld", &n);
  if (f != NULL) (void)fclose(f);
  return n;
}

static void finished(bench *b) {
  (void)pthread_mutex_lock(&b->lock);
  b->running--;
  (void)pthread_cond_signal(&b->changed);
  (void)pthread_mutex_unlock(&b->lock);
}

static void wait_all(bench *b) {
  (void)pthread_mutex_lock(&b->lock);
  while (b->running > 0)
    (void)pthread_cond_wait(&b->changed, &b->lock);
  (void)pthread_mutex_unlock(&b->lock);
}

static void begin_next(bench *b);

static void on_begun(void *ud, const tm_reply *r) {
  bench *b = ud;
  if (r->status != TM_OK) die("begin", r->error);
  const char *id = strstr(r->json, "\"conversation_id\":\"");
  int i = atomic_fetch_add(&b->next, 1);
  if (id != NULL && i < CONVERSATIONS) memcpy(b->ids[i], id + 19, 36);
  begin_next(b);
}

static void begin_next(bench *b) {
  if (atomic_fetch_add(&b->turns, 1) >= b->wanted) {
    finished(b);
    return;
  }
  tm_begin begin = TM_BEGIN_INIT;
  begin.system = "bench";
  begin.flow_id = b->flow;
  tm_conversation_begin(b->host, &begin, on_begun, b);
}

static void send_next(slot *s);

static void on_turn(void *ud, const tm_reply *r) {
  slot *s = ud;
  if (r->status != TM_OK) die("message", r->error);
  atomic_fetch_add(&s->b->turns, 1);
  if (atomic_load(&s->b->stop))
    finished(s->b);
  else
    send_next(s);
}

/* Every note is another one, so that the state really changes. */
static void note(char *out, size_t size, unsigned number) {
  (void)snprintf(out, size, "\"a note of some forty characters, no. %u\"", number);
}

static void send_next(slot *s) {
  char text[80];
  int i = s->index + AT_ONCE * (rand_r(&s->seed) % (CONVERSATIONS / AT_ONCE));
  note(text, sizeof(text), (unsigned)rand_r(&s->seed));
  tm_message_send(s->b->host, NULL, s->b->ids[i], text, NULL, on_turn, s);
}

enum { SETTINGS_MAX = 16 };

/* Adds the settings of BENCH_STORE, which is cut into pieces, to the `count` that are there. */
static void add_settings(const char **set, size_t count) {
  char *all = getenv("BENCH_STORE"), *rest = NULL;
  for (char *one = all != NULL ? strtok_r(all, " ", &rest) : NULL;
       one != NULL && count + 1 < SETTINGS_MAX; one = strtok_r(NULL, " ", &rest))
    set[count++] = one;
}

static void open_host(bench *b, const char *db, const char *workers) {
  char path[512], count[64];
  (void)snprintf(path, sizeof(path), "workflow_persistence.sqlite.database_path=%s", db);
  (void)snprintf(count, sizeof(count), "server.workers=%s", workers);
  const char *set[SETTINGS_MAX + 1] = {"scripts=bench/systems", path, count};
  add_settings(set, 3);
  tm_options o = TM_OPTIONS_INIT;
  tm_error err;
  o.config_file = "bench/agent_config.yaml";
  o.set = set;
  if (tm_host_new(&b->host, &o, &err) != TM_OK) die("configuration", &err);
  if (tm_host_start(b->host, &err) != TM_OK) die("start", &err);
}

static void begin_all(bench *b, int wanted) {
  atomic_store(&b->turns, 0);
  b->wanted = wanted;
  b->running = AT_ONCE;
  for (int i = 0; i < AT_ONCE; i++)
    begin_next(b);
  wait_all(b);
}

static void fill(bench *b) {
  begin_all(b, CONVERSATIONS);
}

/* 64 turns at once for so long. */
static usage busy(bench *b, double seconds) {
  slot slots[AT_ONCE];
  atomic_store(&b->turns, 0);
  atomic_store(&b->stop, false);
  b->running = AT_ONCE;
  double start = now_us(CLOCK_MONOTONIC);
  double cpu = now_us(CLOCK_PROCESS_CPUTIME_ID);
  for (int i = 0; i < AT_ONCE; i++) {
    slots[i] = (slot){b, i, (unsigned)i + 1};
    send_next(&slots[i]);
  }
  struct timespec t = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
  (void)nanosleep(&t, NULL);
  atomic_store(&b->stop, true);
  wait_all(b);
  double wall = now_us(CLOCK_MONOTONIC) - start;
  double turns = (double)atomic_load(&b->turns);
  cpu = now_us(CLOCK_PROCESS_CPUTIME_ID) - cpu;
  return (usage){turns, turns / wall * 1e6, cpu / turns};
}

/* Several processes that are measured together begin at the same time. */
static void pass_gate(void) {
  const char *gate = getenv("BENCH_GATE");
  if (gate == NULL) return;
  (void)puts("ready");
  (void)fflush(stdout);
  FILE *f = fopen(gate, "r"); /* waits for who opens it for writing */
  if (f != NULL) (void)fclose(f);
}

static void throughput(bench *b, double seconds, const char *ids_file) {
  fill(b);
  FILE *f = ids_file != NULL ? fopen(ids_file, "w") : NULL;
  for (int i = 0; f != NULL && i < CONVERSATIONS; i++)
    fprintf(f, "%s\n", b->ids[i]);
  if (f != NULL) (void)fclose(f);
  pass_gate();
  long long bytes = written_bytes();
  usage u = busy(b, seconds);
  tm_host_stop(b->host, 5000); /* a final checkpoint counts */
  printf("library: %.0f turns/s, %.0f bytes written per turn by the host, %.1f us CPU per turn\n",
         u.per_second, (double)(written_bytes() - bytes) / u.turns, u.cpu_us);
}

static void send_one(bench *b) {
  slot s = {b, 0, 1};
  char text[80];
  b->running = 1;
  note(text, sizeof(text), (unsigned)atomic_load(&b->turns));
  tm_message_send(b->host, NULL, b->ids[0], text, NULL, on_turn, &s);
  wait_all(b);
}

static int by_value(const void *a, const void *b) {
  double d = *(const double *)a - *(const double *)b;
  return d < 0 ? -1 : d > 0;
}

static void latency(bench *b, int turns) {
  double *us = calloc((size_t)turns, sizeof(*us));
  if (us == NULL) exit(1);
  fill(b);
  atomic_store(&b->stop, true);
  for (int i = 0; i < turns; i++) {
    double start = now_us(CLOCK_MONOTONIC);
    send_one(b);
    us[i] = now_us(CLOCK_MONOTONIC) - start;
  }
  qsort(us, (size_t)turns, sizeof(*us), by_value);
  printf("latency: median %.0f us of a single turn\n", us[turns / 2]);
  free(us);
}

static void grow(bench *b, int turns, const char *id) {
  atomic_store(&b->stop, true);
  if (id != NULL)
    (void)snprintf(b->ids[0], sizeof(b->ids[0]), "%s", id);
  else
    begin_all(b, 1);
  long long bytes = written_bytes();
  for (int i = 0; i < turns; i++)
    send_one(b);
  tm_host_stop(b->host, 5000); /* a final checkpoint counts */
  printf("%s %lld\n", b->ids[0], written_bytes() - bytes);
}

static long resident_kib(void) {
  char line[128];
  long n = 0;
  FILE *f = fopen("/proc/self/status", "r");
  while (f != NULL && fgets(line, sizeof(line), f) != NULL)
    (void)sscanf(line, "VmRSS: %ld", &n);
  if (f != NULL) (void)fclose(f);
  return n;
}

static void memory(bench *b, const char *db, const char *workers) {
  double wall = now_us(CLOCK_MONOTONIC);
  double cpu = now_us(CLOCK_PROCESS_CPUTIME_ID);
  open_host(b, db, workers);
  cpu = now_us(CLOCK_PROCESS_CPUTIME_ID) - cpu;
  wall = now_us(CLOCK_MONOTONIC) - wall;
  long started = resident_kib();
  fill(b);
  printf(
      "memory: %ld KiB with %s workers after %d starts; %ld KiB after a start of %.1f ms, %.1f ms "
      "of them CPU\n",
      resident_kib(), workers, CONVERSATIONS, started, wall / 1e3, cpu / 1e3);
}

static double cpu_of(bench *b, int turns) {
  double cpu = now_us(CLOCK_PROCESS_CPUTIME_ID);
  for (int i = 0; i < turns; i++)
    send_one(b);
  return (now_us(CLOCK_PROCESS_CPUTIME_ID) - cpu) / turns;
}

/* Each round: a fresh conversation from 10 steps on, against the long one; the median ratio. */
static void length(bench *b) {
  enum { ROUNDS = 7, TURNS = 300 };
  double ratio[ROUNDS], young_us = 0, old_us = 0;
  fill(b);
  atomic_store(&b->stop, true);
  char grown[40];
  memcpy(grown, b->ids[0], sizeof(grown));
  (void)cpu_of(b, CONVERSATIONS / STEPS_PER_TURN); /* 10,000 steps */
  for (int i = 0; i < ROUNDS; i++) {
    memcpy(b->ids[0], b->ids[i + 1], sizeof(grown));
    (void)cpu_of(b, 10 / STEPS_PER_TURN);
    young_us = cpu_of(b, TURNS);
    memcpy(b->ids[0], grown, sizeof(grown));
    old_us = cpu_of(b, TURNS);
    ratio[i] = old_us / young_us;
  }
  qsort(ratio, ROUNDS, sizeof(*ratio), by_value);
  printf("length: CPU of a turn after 10,000 steps / after 10: %.2f (last: %.0f / %.0f us)\n",
         ratio[ROUNDS / 2], old_us, young_us);
}

static void visit_next(bench *b);

static void on_visited(void *ud, const tm_reply *r) {
  if (r->status != TM_OK) die("message", r->error);
  visit_next(ud);
}

static void visit_next(bench *b) {
  int i = atomic_fetch_add(&b->next, 1);
  if (i >= CONVERSATIONS) {
    finished(b);
    return;
  }
  char text[80];
  note(text, sizeof(text), (unsigned)i);
  tm_message_send(b->host, NULL, b->ids[i], text, NULL, on_visited, b);
}

/* A turn of each conversation: all of them are in memory then. */
static void visit_all(bench *b) {
  atomic_store(&b->next, 0);
  b->running = AT_ONCE;
  for (int i = 0; i < AT_ONCE; i++)
    visit_next(b);
  wait_all(b);
}

/* Nothing is left of what was done so far but what is stored. */
static void restart(bench *b, const char *db) {
  tm_host_free(b->host);
  open_host(b, db, "0");
}

/* Two hosts, one of them with sleepers, take turns, each as often the first; the median ratio. */
static void compare(bench *with, bench *without, int count, const char *when) {
  enum { ROUNDS = 21 };
  double ratio[ROUNDS], us[2] = {0, 0};
  bench *const both[] = {without, with};
  visit_all(without);
  visit_all(with);
  for (int i = 0; i < ROUNDS; i++) {
    for (int n = 0; n < 2; n++) {
      int which = (i + n) % 2;
      us[which] = busy(both[which], 1).cpu_us;
    }
    ratio[i] = us[1] / us[0];
  }
  qsort(ratio, ROUNDS, sizeof(*ratio), by_value);
  printf("deadlines: CPU of a turn with %d of them / without, %s (quartiles %.2f and %.2f; last: "
         "%.0f / %.0f us): %.2f (at most 1.10)\n",
         count, when, ratio[ROUNDS / 4], ratio[ROUNDS - 1 - ROUNDS / 4], us[1], us[0],
         ratio[ROUNDS / 2]);
}

static void deadlines(bench *b, const char *db, int count) {
  static bench other = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
  char path[512];
  (void)snprintf(path, sizeof(path), "%s.beside.db", db);
  other.flow = "notes";
  other.ids = calloc(CONVERSATIONS, sizeof(*other.ids));
  if (other.ids == NULL) exit(1);
  open_host(&other, path, "0");
  fill(&other);
  fill(b);
  b->flow = "sleeper";
  begin_all(b, count);
  compare(b, &other, count, "in the host that began them");
  restart(&other, path);
  restart(b, db);
  compare(b, &other, count, "after a restart");
  tm_host_free(other.host);
  free(other.ids);
}

int main(int argc, char **argv) {
  if (argc < 3) {
    fprintf(stderr, "usage: turns throughput|latency|length|grow|memory|deadlines DB "
                    "[SECONDS|TURNS|WORKERS|COUNT] [IDS|ID]\n");
    return 2;
  }
  bench b = {
      .flow = "notes", .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
  b.ids = calloc(CONVERSATIONS, sizeof(*b.ids));
  if (b.ids == NULL) return 1;
  bool holds = strcmp(argv[1], "memory") == 0;
  if (!holds) open_host(&b, argv[2], "0");
  if (holds)
    memory(&b, argv[2], argc > 3 ? argv[3] : "2");
  else if (strcmp(argv[1], "throughput") == 0)
    throughput(&b, argc > 3 ? atof(argv[3]) : 5, argc > 4 ? argv[4] : NULL);
  else if (strcmp(argv[1], "latency") == 0)
    latency(&b, argc > 3 ? atoi(argv[3]) : 500);
  else if (strcmp(argv[1], "grow") == 0)
    grow(&b, argc > 3 ? atoi(argv[3]) : 500, argc > 4 ? argv[4] : NULL);
  else if (strcmp(argv[1], "deadlines") == 0)
    deadlines(&b, argv[2], argc > 3 ? atoi(argv[3]) : 1000000);
  else
    length(&b);
  tm_host_free(b.host);
  free(b.ids);
  return 0;
}
