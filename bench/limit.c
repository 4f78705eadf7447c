/* limit.c - what SQLite alone can do on this machine, to compare our figures with: per turn one
 * journal row of 2.3 KB is appended and one head is updated; WAL, synchronous=FULL, 64 turns to a
 * transaction, 10,000 conversations, no index. Nothing of ours is in it.
 *
 *   limit NEW_FILE [SECONDS]            turns per second and bytes written per turn
 *   limit --single NEW_FILE [SECONDS]   median time of one turn in a durable commit of its own
 */
#include <sqlite3.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { CONVERSATIONS = 10000, BATCH = 64, BODY = 2300, MAX_TIMES = 100000 };

static sqlite3 *db;
static sqlite3_stmt *append, *update, *begin, *commit;
static char body[BODY];
static uint32_t seed = 1;
static int64_t times[MAX_TIMES];

static void need(int rc, int want) {
  if (rc == want) return;
  fprintf(stderr, "limit: %s\n", sqlite3_errmsg(db));
  exit(1);
}

static void run(const char *sql) {
  need(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
}

static sqlite3_stmt *prepare(const char *sql) {
  sqlite3_stmt *st = NULL;
  need(sqlite3_prepare_v3(db, sql, -1, SQLITE_PREPARE_PERSISTENT, &st, NULL), SQLITE_OK);
  return st;
}

static void step(sqlite3_stmt *st) {
  need(sqlite3_step(st), SQLITE_DONE);
  need(sqlite3_reset(st), SQLITE_OK);
}

static int64_t now_ns(void) {
  struct timespec t;
  (void)clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int64_t bytes_written(void) {
  long long bytes = 0;
  char line[128];
  FILE *f = fopen("/proc/self/io", "r");
  while (f != NULL && fgets(line, sizeof(line), f) != NULL)
    if (sscanf(line, "write_bytes: %lld", &bytes) == 1) break;
  if (f != NULL) (void)fclose(f);
  return bytes;
}

static void id_of(char id[37], uint32_t n) {
  (void)snprintf(id, 37, "019a0000-0000-7000-8000-%012u", n);
}

static void open_store(const char *path) {
  char id[37];
  need(sqlite3_open(path, &db), SQLITE_OK);
  run("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
      "CREATE TABLE heads(id TEXT PRIMARY KEY, revision INTEGER, tip INTEGER, rest BLOB) WITHOUT "
      "ROWID; CREATE TABLE journal(id INTEGER PRIMARY KEY, conversation TEXT, body TEXT);");
  append = prepare("INSERT INTO journal(conversation, body) VALUES(?1, ?2)");
  update = prepare("UPDATE heads SET revision=revision+1, tip=?2 WHERE id=?1");
  begin = prepare("BEGIN IMMEDIATE");
  commit = prepare("COMMIT");
  sqlite3_stmt *add = prepare("INSERT INTO heads VALUES(?1, 0, 0, zeroblob(150))");
  memset(body, 'x', sizeof(body));
  step(begin);
  for (uint32_t i = 0; i < CONVERSATIONS; i++) {
    id_of(id, i);
    need(sqlite3_bind_text(add, 1, id, 36, SQLITE_STATIC), SQLITE_OK);
    step(add);
  }
  step(commit);
  run("PRAGMA wal_checkpoint(TRUNCATE)");
}

static void turn(void) {
  char id[37];
  seed = seed * 1664525U + 1013904223U;
  id_of(id, (seed >> 8) % CONVERSATIONS);
  need(sqlite3_bind_text(append, 1, id, 36, SQLITE_STATIC), SQLITE_OK);
  need(sqlite3_bind_text(append, 2, body, BODY, SQLITE_STATIC), SQLITE_OK);
  step(append);
  need(sqlite3_bind_text(update, 1, id, 36, SQLITE_STATIC), SQLITE_OK);
  need(sqlite3_bind_int64(update, 2, sqlite3_last_insert_rowid(db)), SQLITE_OK);
  step(update);
}

static void transaction(int turns) {
  step(begin);
  for (int i = 0; i < turns; i++)
    turn();
  step(commit);
}

static int by_time(const void *a, const void *b) {
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x > y) - (x < y);
}

static void measure_single(int64_t end) {
  size_t count = 0;
  for (int64_t from = now_ns(), to; from < end && count < MAX_TIMES; from = to) {
    transaction(1);
    to = now_ns();
    times[count++] = to - from;
  }
  qsort(times, count, sizeof(times[0]), by_time);
  double median_ns = (double)times[count >> 1];
  printf("limit: median %.1f us for one durable turn (%zu turns)\n", median_ns / 1000.0, count);
}

static void measure_batches(int64_t start, int64_t end) {
  int64_t turns = 0, before = bytes_written(), now = start;
  for (; now < end; now = now_ns(), turns += BATCH)
    transaction(BATCH);
  run("PRAGMA wal_checkpoint(TRUNCATE)");
  printf("limit: %.0f turns/s, %.0f bytes written per turn\n",
         (double)turns * 1e9 / (double)(now - start),
         (double)(bytes_written() - before) / (double)turns);
}

int main(int argc, char **argv) {
  int single = argc > 1 && strcmp(argv[1], "--single") == 0;
  const char *path = argc > 1 + single ? argv[1 + single] : NULL;
  double seconds = argc > 2 + single ? atof(argv[2 + single]) : 3.0;
  if (path == NULL || seconds <= 0 || seconds > 600 || access(path, F_OK) == 0) {
    fprintf(stderr, "usage: limit [--single] NEW_FILE [SECONDS]\n");
    return 2;
  }
  open_store(path);
  int64_t start = now_ns(), end = start + (int64_t)(seconds * 1e9);
  single ? measure_single(end) : measure_batches(start, end);
  for (sqlite3_stmt *st; (st = sqlite3_next_stmt(db, NULL)) != NULL;)
    sqlite3_finalize(st);
  return sqlite3_close(db) == SQLITE_OK ? 0 : 1;
}
