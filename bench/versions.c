/* versions.c - what new versions of scripts cost while a server runs.
 *
 *   versions reload DB FOLDER SECONDS   64 busy conversations, first undisturbed, then while their
 *                                       system is loaded anew ten times a second
 *   versions memory DB FOLDER SYSTEM    what a further version of the system takes on a worker
 *
 * FOLDER is made, and receives systems. Uses tidemill.h only; run from the root of the tree. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tidemill.h"

enum {
  AT_ONCE = 64,
  TURNS_EACH = 20,
  TURNS_MAX = 4000000,
  RELOAD_MS = 100,
  WARM = 3,
  FURTHER = 6,
  WORKERS = 8
};
#define WORKERS_TEXT "8"

typedef struct bench {
  tm_host *host;
  pthread_mutex_t lock;
  pthread_cond_t changed;
  int running;      /* guarded by lock */
  float *latencies; /* ms, of `turns` */
  atomic_int turns, failures;
  atomic_bool stop;
} bench;

typedef struct client { /* one conversation after the other */
  bench *b;
  char id[40];
  int turns;
  double sent;
} client;

static void die(const char *what, const tm_error *err) {
  fprintf(stderr, "bench: %s: %s [%s]\n", what, err->message, err->code);
  exit(1);
}

static double now_ms(void) {
  struct timespec t;
  (void)clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static void rest(double ms) {
  struct timespec t = {(time_t)(ms / 1e3), (long)(ms * 1e6) % 1000000000};
  (void)nanosleep(&t, NULL);
}

/* ---- systems and hosts ---- */

/* A version of the system `name`: the files of `from`, and a number. */
static void write_version(const char *folder, const char *from, const char *name, int number) {
  char command[1024];
  (void)snprintf(command, sizeof(command),
                 "mkdir -p %s/%s && cp %s/*.lua %s/%s && echo '-- %d' >>%s/%s/init.lua", folder,
                 name, from, folder, name, number, folder, name);
  if (system(command) != 0) exit(1);
}

static void open_host(bench *b, const char *db, const char *folder, const char *workers) {
  char path[512], scripts[512], count[64];
  (void)snprintf(path, sizeof(path), "workflow_persistence.sqlite.database_path=%s", db);
  (void)snprintf(scripts, sizeof(scripts), "scripts=%s", folder);
  (void)snprintf(count, sizeof(count), "server.workers=%s", workers);
  const char *set[] = {scripts, path, count, NULL};
  tm_options o = TM_OPTIONS_INIT;
  tm_error err;
  o.config_file = "bench/agent_config.yaml";
  o.set = set;
  if (tm_host_new(&b->host, &o, &err) != TM_OK) die("configuration", &err);
  if (tm_host_start(b->host, &err) != TM_OK) die("start", &err);
}

static void ended(bench *b) {
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

static void on_reloaded(void *ud, const tm_reply *r) {
  if (r->status != TM_OK) die("reload", r->error);
  ended(ud);
}

static void reload(bench *b) {
  (void)pthread_mutex_lock(&b->lock);
  b->running++;
  (void)pthread_mutex_unlock(&b->lock);
  tm_host_reload(b->host, on_reloaded, b);
}

/* ---- busy conversations ---- */

static void next(client *c);

static void on_turn(void *ud, const tm_reply *r) {
  client *c = ud;
  bench *b = c->b;
  int n = atomic_fetch_add(&b->turns, 1);
  if (n < TURNS_MAX) b->latencies[n] = (float)(now_ms() - c->sent);
  if (r->status != TM_OK && atomic_fetch_add(&b->failures, 1) == 0)
    fprintf(stderr, "bench: %s [%s]\n", r->error->message, r->error->code);
  const char *id = r->status == TM_OK ? strstr(r->json, "\"conversation_id\":\"") : NULL;
  if (id != NULL) memcpy(c->id, id + 19, 36);
  c->turns = (c->turns + 1) % TURNS_EACH;
  if (atomic_load(&b->stop))
    ended(b);
  else
    next(c);
}

static void next(client *c) {
  c->sent = now_ms();
  if (c->turns > 0) {
    tm_message_send(c->b->host, NULL, c->id, "\"a note\"", NULL, on_turn, c);
    return;
  }
  tm_begin begin = TM_BEGIN_INIT;
  begin.system = "bench";
  begin.flow_id = "notes";
  tm_conversation_begin(c->b->host, &begin, on_turn, c);
}

static int by_value(const void *a, const void *b) {
  float d = *(const float *)a - *(const float *)b;
  return d < 0 ? -1 : d > 0;
}

static double percentile(const bench *b, int count, double part) {
  return (double)b->latencies[(int)((double)(count - 1) * part)];
}

/* `folder` NULL: nothing is loaded anew. */
static void run(bench *b, const char *what, const char *folder, double seconds) {
  static client clients[AT_ONCE];
  static int number;
  int reloads = 0;
  atomic_store(&b->turns, 0);
  atomic_store(&b->failures, 0);
  atomic_store(&b->stop, false);
  b->running = AT_ONCE;
  double began = now_ms();
  for (int i = 0; i < AT_ONCE; i++) {
    clients[i] = (client){.b = b};
    next(&clients[i]);
  }
  while (now_ms() - began < seconds * 1e3) {
    rest(RELOAD_MS);
    if (folder == NULL) continue;
    write_version(folder, "bench/systems/bench", "bench", ++number);
    reload(b);
    reloads++;
  }
  atomic_store(&b->stop, true);
  wait_all(b);
  double took = now_ms() - began;
  int turns = atomic_load(&b->turns), count = turns < TURNS_MAX ? turns : TURNS_MAX;
  qsort(b->latencies, (size_t)count, sizeof(*b->latencies), by_value);
  printf("%s: %.0f turns/s, %d reloads, %d of %d requests failed, latency ms: median %.2f, 99%% "
         "%.2f, longest %.2f\n",
         what, (double)turns / took * 1e3, reloads, atomic_load(&b->failures), turns,
         percentile(b, count, 0.5), percentile(b, count, 0.99), percentile(b, count, 1));
}

static void busy(bench *b, const char *db, const char *folder, double seconds) {
  b->latencies = calloc(TURNS_MAX, sizeof(*b->latencies));
  if (b->latencies == NULL) exit(1);
  write_version(folder, "bench/systems/bench", "bench", 0);
  open_host(b, db, folder, "0");
  run(b, "undisturbed", NULL, seconds);
  run(b, "with reloads", folder, seconds);
  tm_host_free(b->host);
  free(b->latencies);
}

/* ---- memory ---- */

static long resident_kib(void) {
  char line[128];
  long n = 0;
  FILE *f = fopen("/proc/self/status", "r");
  while (f != NULL && fgets(line, sizeof(line), f) != NULL)
    (void)sscanf(line, "VmRSS: %ld", &n);
  if (f != NULL) (void)fclose(f);
  return n;
}

/* What a further version of the system takes on a worker. The first ones fill what the process
 * keeps for itself. */
static void memory(bench *b, const char *db, const char *folder, const char *from) {
  const char *slash = strrchr(from, '/'), *name = slash != NULL ? slash + 1 : from;
  long before = 0;
  write_version(folder, from, name, 0);
  open_host(b, db, folder, WORKERS_TEXT);
  for (int i = 1; i <= WARM + FURTHER; i++) {
    write_version(folder, from, name, i);
    reload(b);
    wait_all(b);
    if (i == WARM) before = resident_kib();
  }
  printf("memory: %.0f KiB for a further version of %s on a worker\n",
         (double)(resident_kib() - before) / FURTHER / WORKERS, name);
  tm_host_free(b->host);
}

int main(int argc, char **argv) {
  bench b = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
  if (argc == 5 && strcmp(argv[1], "reload") == 0) {
    busy(&b, argv[2], argv[3], atof(argv[4]));
  } else if (argc == 5 && strcmp(argv[1], "memory") == 0) {
    memory(&b, argv[2], argv[3], argv[4]);
  } else {
    fprintf(stderr, "usage: versions reload DB FOLDER SECONDS | memory DB FOLDER SYSTEM\n");
    return 2;
  }
  return 0;
}
