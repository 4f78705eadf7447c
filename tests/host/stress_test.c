/* Many workers, clients, reloads, limits, slow and broken calls, clients that leave, and a host
 * that is stopped in the middle of it, again and again on the same file. Every request is answered
 * once, every acknowledged message is in the transcript after the restart and no other one, and
 * nothing is left behind: threads, descriptors, operations.
 *
 * STRESS_SEED repeats a run's choices (not its timing), STRESS_ROUNDS and TIDEMILL_NIGHTLY make it
 * longer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <sys/stat.h>

#include "tests/host/asks.h"
#include "tests/host/outside.h"
#include "tests/scratch.h"

#define CLIENTS   6
#define EACH      16  /* conversations of a client */
#define SAID_MOST 400 /* messages of a conversation */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define ROUNDS 4
#else
#define ROUNDS 6
#endif

typedef enum fate {
  FATE_UNKNOWN, /* it may be in the transcript, or not */
  FATE_VAGUE,   /* likewise, after a rollback whose outcome is not known */
  FATE_KEPT,
  FATE_ABSENT /* refused, or rolled back */
} fate;

typedef struct talk { /* a conversation, owned by one client */
  char id[40], key[40];
  bool in_memory, is_volatile, pipelined;
  fate said[SAID_MOST];
  ask *asked[SAID_MOST]; /* of this round, not looked at yet; pipelined talks only */
  size_t count;
} talk;

typedef struct client {
  pthread_t thread;
  uint32_t dice;
  talk talks[EACH];
  bool refused[2];   /* the host is stopping */
  char problem[400]; /* found on the client's thread; empty: none */
} client;

static char dir[40];
static asks all_asks = {.lock = PTHREAD_MUTEX_INITIALIZER, .come = PTHREAD_COND_INITIALIZER};
static outside other_side;
static client clients[CLIENTS];
static tm_host *hosts[2]; /* on SQLite, in memory */
static char url[64], reload_problem[256];
static atomic_int left_behind;

/* ---- what the clients say ---- */

static void complain(client *c, const char *what, const talk *t, const ask *a) {
  asks_over(&all_asks, true);
  if (c->problem[0] != '\0') return;
  (void)snprintf(c->problem, sizeof(c->problem), "%s: conversation %s: %s %s", what, t->id, a->code,
                 a->message);
}

static tm_host *host_of(const talk *t) {
  return hosts[t->in_memory];
}

static ask *send_message(const talk *t, size_t number, const char *what) {
  char input[64], key[64];
  ask *a = ask_new(&all_asks);
  (void)snprintf(input, sizeof(input), "\"%s #%zu#\"", what, number);
  (void)snprintf(key, sizeof(key), "%s-%zu", t->key, number);
  tm_message_send(host_of(t), NULL, t->id, input, key, ask_reply, a);
  return a;
}

static const char *any_deed(client *c) {
  static const char *const deeds[] = {
      "plain",      "plain",      "plain",     "plain",    "plain", "plain", "plain",
      "plain",      "plain",      "call/ok",   "call/ok",  "twice", "retry", "retry",
      "call/never", "call/reset", "call/half", "call/big", "boom",  "busy",  "hoard"};
  return deeds[outside_roll(&c->dice, sizeof(deeds) / sizeof(deeds[0]))];
}

/* Did the host stop, so that the outcome is not known? */
static bool is_lost(client *c, const talk *t, const ask *a) {
  if (strcmp(a->code, "host.stopping") == 0) c->refused[t->in_memory] = true;
  return a->status == TM_EUNAVAILABLE;
}

/* The same text and key again: an outcome that was lost is known afterwards. */
static const char *deed_of(const talk *t, size_t number) {
  static const char *const deeds[] = {"plain", "call/slow", "twice"};
  return deeds[(number + (size_t)t->key[0]) % 3];
}

static fate fate_of(client *c, const talk *t, const ask *a) {
  if (a->status == TM_OK) return FATE_KEPT;
  if (is_lost(c, t, a)) return FATE_UNKNOWN;
  if (strcmp(a->code, "conversation.busy") != 0) complain(c, "a message was refused", t, a);
  return FATE_ABSENT;
}

/* Half of the messages can be repeated by deed_of; their outcome is always known in the end. */
static void say(client *c, talk *t) {
  size_t n = t->count;
  bool repeats = n % 2 == 0;
  const char *what = repeats ? deed_of(t, n) : any_deed(c);
  t->count++;
  ask *a = send_message(t, n, what);
  ask *again = repeats && outside_roll(&c->dice, 4) == 0 ? send_message(t, n, what) : NULL;
  if (t->pipelined && again == NULL) {
    t->asked[n] = a;
    return;
  }
  t->said[n] = fate_of(c, t, ask_wait(a));
  if (again == NULL || ask_wait(again)->status != TM_OK) return;
  if (t->said[n] == FATE_KEPT && strcmp(a->json, again->json) != 0)
    complain(c, "a repeat was answered differently", t, again);
  t->said[n] = FATE_KEPT;
}

static void begin(client *c, talk *t) {
  ask *a = ask_new(&all_asks);
  tm_begin b = TM_BEGIN_INIT;
  b.system = "stress";
  b.flow_id = t->is_volatile ? "volatile" : "kept";
  b.session_id = "stress";
  b.idempotency_key = t->key;
  tm_conversation_begin(host_of(t), &b, ask_reply, a);
  if (ask_wait(a)->status == TM_OK)
    memcpy(t->id, strstr(a->json, "\"conversation_id\":\"") + 19, 36);
  else if (!is_lost(c, t, a))
    complain(c, "it could not begin", t, a);
}

static void read_something(client *c, const talk *t) {
  ask *a = ask_new(&all_asks);
  if (outside_roll(&c->dice, 4) == 0) {
    tm_filter f = TM_FILTER_INIT;
    f.session_id = "stress";
    tm_conversation_list(host_of(t), &f, ask_reply, a);
  } else {
    tm_conversation_read(host_of(t), NULL, t->id, (tm_read)outside_roll(&c->dice, 4), NULL, 0,
                         ask_reply, a);
  }
}

/* Kept messages at the end of the transcript, as many as an unknown outcome allows to tell. */
static void roll_back(client *c, talk *t) {
  int steps = 1 + (int)outside_roll(&c->dice, 3);
  ask *a = ask_new(&all_asks);
  tm_conversation_rollback(host_of(t), NULL, t->id, steps, NULL, 1, NULL, ask_reply, a);
  (void)ask_wait(a);
  if (a->status != TM_OK && !is_lost(c, t, a)) {
    if (strncmp(a->code, "rollback.", 9) != 0) complain(c, "a rollback was refused", t, a);
    return;
  }
  bool vague = a->status != TM_OK;
  for (size_t i = t->count; i-- > 0 && steps > 0;) {
    if (t->said[i] == FATE_UNKNOWN || t->said[i] == FATE_VAGUE) vague = true;
    if (t->said[i] == FATE_KEPT) {
      t->said[i] = vague ? FATE_VAGUE : FATE_ABSENT;
      steps--;
    }
  }
}

/* A client that sends its message and is gone before the answer. */
static void say_and_leave(talk *t) {
  char request[512], body[64];
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  at.sin_port = htons((uint16_t)atoi(strrchr(url, ':') + 1));
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  int size = snprintf(body, sizeof(body), "{\"input\":\"call/slow #%zu#\"}", t->count++);
  int len = snprintf(request, sizeof(request),
                     "POST /v1/conversations/%s/messages HTTP/1.1\r\nHost: localhost\r\n"
                     "Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
                     t->id, size, body);
  if (connect(fd, (struct sockaddr *)&at, sizeof(at)) == 0)
    outside_send(fd, request, (size_t)len - (t->count % 3 == 0 ? 5 : 0));
  (void)close(fd);
}

static void do_something(client *c) {
  talk *t = &c->talks[outside_roll(&c->dice, EACH)];
  uint32_t luck = outside_roll(&c->dice, 100);
  if (c->refused[t->in_memory]) return;
  if (t->id[0] == '\0')
    begin(c, t);
  else if (t->count == SAID_MOST || luck < 15)
    read_something(c, t);
  else if (luck < 22 && !t->pipelined)
    roll_back(c, t);
  else if (luck < 26 && t->pipelined && !t->in_memory)
    say_and_leave(t);
  else
    say(c, t);
}

static void *client_main(void *arg) {
  client *c = arg;
  while (!(c->refused[0] && c->refused[1]) && c->problem[0] == '\0')
    do_something(c);
  return NULL;
}

/* ---- after a round, and after a restart ---- */

/* All of the round's asks have come. */
static void settle(client *c) {
  for (size_t i = 0; i < EACH; i++) {
    talk *t = &c->talks[i];
    for (size_t n = 0; n < t->count; n++) {
      if (t->asked[n] == NULL) continue;
      t->said[n] = fate_of(c, t, ask_wait(t->asked[n]));
      t->asked[n] = NULL;
    }
  }
}

/* What lives in memory is gone with its host. */
static void forget(client *c) {
  for (size_t i = 0; i < EACH; i++) {
    talk *t = &c->talks[i];
    if (!t->in_memory && !t->is_volatile) continue;
    t->id[0] = '\0';
    t->count = 0;
    memset(t->said, 0, sizeof(t->said));
  }
}

/* The newest outcome that is open can be asked for again. */
static void repeat_last(client *c, talk *t) {
  size_t n = t->count;
  if (n == 0 || (n - 1) % 2 != 0 || t->said[n - 1] != FATE_UNKNOWN || t->pipelined) return;
  ask *a = ask_wait(send_message(t, n - 1, deed_of(t, n - 1)));
  if (a->status != TM_OK) complain(c, "a repeat after the restart was refused", t, a);
  t->said[n - 1] = FATE_KEPT;
}

static size_t occurrences(const char *text, size_t number) {
  char mark[32];
  size_t found = 0;
  (void)snprintf(mark, sizeof(mark), " #%zu#\"", number);
  for (const char *at = strstr(text, mark); at != NULL; at = strstr(at + 1, mark))
    found++;
  return found;
}

/* All pages of the transcript, one after the other. */
static char *transcript(client *c, const talk *t) {
  char cursor[200] = "", *text = strdup("");
  for (;;) {
    ask *a = ask_new(&all_asks);
    tm_conversation_read(host_of(t), NULL, t->id, TM_READ_MESSAGES,
                         cursor[0] != '\0' ? cursor : NULL, 200, ask_reply, a);
    if (ask_wait(a)->status != TM_OK) {
      complain(c, "the transcript cannot be read", t, a);
      return text;
    }
    size_t len = strlen(text), more = strlen(a->json) + 1;
    char *longer = realloc(text, len + more);
    if (longer == NULL) abort();
    text = longer;
    memcpy(text + len, a->json, more);
    const char *next = strstr(a->json, "\"next\":\"");
    if (next == NULL) return text;
    (void)snprintf(cursor, sizeof(cursor), "%.*s", (int)strcspn(next + 8, "\""), next + 8);
  }
}

static void check_talk(client *c, talk *t) {
  repeat_last(c, t);
  char *text = transcript(c, t);
  for (size_t n = 0; n < t->count; n++) {
    size_t found = occurrences(text, n), least = t->said[n] == FATE_KEPT;
    size_t most = t->said[n] == FATE_ABSENT ? 0 : 1;
    if (found >= least && found <= most) continue;
    if (c->problem[0] == '\0')
      (void)snprintf(c->problem, sizeof(c->problem),
                     "conversation %s: message %zu is there %zu times, expected %zu to %zu", t->id,
                     n, found, least, most);
  }
  free(text);
}

static void *check_main(void *arg) {
  client *c = arg;
  for (size_t i = 0; i < EACH; i++)
    if (c->talks[i].id[0] != '\0') check_talk(c, &c->talks[i]);
  return NULL;
}

static void run_clients(void *(*main_fn)(void *)) {
  for (size_t i = 0; i < CLIENTS; i++)
    assert_int_equal(pthread_create(&clients[i].thread, NULL, main_fn, &clients[i]), 0);
}

static void join_clients(void) {
  for (size_t i = 0; i < CLIENTS; i++)
    assert_int_equal(pthread_join(clients[i].thread, NULL), 0);
  for (size_t i = 0; i < CLIENTS; i++)
    if (clients[i].problem[0] != '\0') fail_msg("%s", clients[i].problem);
}

/* ---- scripts ---- */

static void write_word(const char *text) {
  char path[256], fresh[300];
  (void)snprintf(path, sizeof(path), "%s/scripts/stress/word.lua", dir);
  (void)snprintf(fresh, sizeof(fresh), "%s.new", path);
  FILE *f = fopen(fresh, "w");
  assert_non_null(f);
  assert_true(fputs(text, f) >= 0);
  assert_int_equal(fclose(f), 0);
  assert_int_equal(rename(fresh, path), 0);
}

static void write_good_word(unsigned number) {
  char text[128];
  (void)snprintf(text, sizeof(text), "return { word = 'w%u', url = 'http://127.0.0.1:%u' }\n",
                 number, (unsigned)other_side.port);
  write_word(text);
}

/* New states are made while old ones have turns; every fourth reload is refused. */
static void *reload_main(void *arg) {
  uint32_t *number = arg;
  while (asks_wait(&all_asks, 40)) {
    bool good = ++*number % 4 != 0;
    if (good)
      write_good_word(*number);
    else
      write_word("return nonsense(");
    for (size_t i = 0; i < 2; i++) {
      ask *a = ask_new(&all_asks);
      tm_host_reload(hosts[i], ask_reply, a);
      (void)ask_wait(a);
      if ((a->status == TM_OK) != good && a->status != TM_EUNAVAILABLE)
        (void)snprintf(reload_problem, sizeof(reload_problem), "%s %s", a->code, a->message);
    }
  }
  write_good_word(++*number);
  return NULL;
}

/* ---- hosts ---- */

static void on_log(void *ud, const char *line, size_t size) {
  (void)ud;
  if (memmem(line, size, "left behind", 11) == NULL) return;
  (void)fprintf(stderr, "%.*s\n", (int)size, line);
  atomic_fetch_add(&left_behind, 1);
}

static tm_host *start_host(const char *backend, const char *workers) {
  char scripts[256], path[256], config[256], kind[64], count[64];
  (void)snprintf(scripts, sizeof(scripts), "scripts=%s/scripts", dir);
  (void)snprintf(config, sizeof(config), "%s/none.yaml", dir);
  (void)snprintf(path, sizeof(path), "workflow_persistence.sqlite.database_path=%s/stress.db", dir);
  (void)snprintf(kind, sizeof(kind), "workflow_persistence.backend=%s", backend);
  (void)snprintf(count, sizeof(count), "server.workers=%s", workers);
  const char *set[] = {scripts,
                       path,
                       kind,
                       count,
                       "limits.cpu_slice=0.05",
                       "limits.load_time=20",
                       "limits.step_memory=1MiB",
                       "limits.http_response=64KiB",
                       NULL};
  FILE *f = fopen(config, "w");
  assert_non_null(f);
  assert_int_equal(fclose(f), 0);
  tm_options o = TM_OPTIONS_INIT;
  o.config_file = config;
  o.set = set;
  o.log = on_log;
  tm_error err;
  tm_host *h = NULL;
  if (tm_host_new(&h, &o, &err) != TM_OK || tm_host_start(h, &err) != TM_OK)
    fail_msg("%s", err.message);
  return h;
}

static void start_hosts(void) {
  tm_error err;
  hosts[0] = start_host("sqlite", "8");
  hosts[1] = start_host("memory", "8");
  if (tm_host_listen(hosts[0], "127.0.0.1:0", url, sizeof(url), &err) != TM_OK)
    fail_msg("%s", err.message);
}

/* ---- what is left ---- */

static size_t entries(const char *path) {
  DIR *d = opendir(path);
  assert_non_null(d);
  size_t n = 0;
  while (readdir(d) != NULL)
    n++;
  assert_int_equal(closedir(d), 0);
  return n;
}

/* A thread that was joined is listed until the kernel has buried it. */
static void expect_entries(const char *path, size_t count) {
  for (int i = 0; i < 2000 && entries(path) != count; i++)
    (void)usleep(1000);
  assert_int_equal(entries(path), count);
}

/* ---- rounds ---- */

static void run_round(uint32_t *dice) {
  static const int patience[] = {0, 0, 20, 200, 5000};
  static uint32_t reloads;
  pthread_t reloader;
  start_hosts();
  run_clients(check_main);
  join_clients();
  asks_over(&all_asks, false);
  run_clients(client_main);
  assert_int_equal(pthread_create(&reloader, NULL, reload_main, &reloads), 0);
  asks_wait(&all_asks, 300 + outside_roll(dice, 500));
  size_t first = outside_roll(dice, 2);
  tm_host_stop(hosts[first], patience[outside_roll(dice, 5)]);
  tm_host_stop(hosts[1 - first], patience[outside_roll(dice, 5)]);
  join_clients();
  asks_over(&all_asks, true);
  assert_int_equal(pthread_join(reloader, NULL), 0);
  assert_string_equal(reload_problem, "");
  tm_host_free(hosts[0]);
  tm_host_free(hosts[1]);
  for (size_t i = 0; i < CLIENTS; i++) {
    settle(&clients[i]);
    forget(&clients[i]);
    clients[i].refused[0] = clients[i].refused[1] = false;
  }
  assert_int_equal(asks_end(&all_asks), 0);
  assert_int_equal(atomic_load(&left_behind), 0);
}

static uint32_t number_from(const char *name, uint32_t otherwise) {
  const char *text = getenv(name);
  return text != NULL ? (uint32_t)strtoul(text, NULL, 10) : otherwise;
}

static void prepare_clients(uint32_t seed) {
  for (size_t i = 0; i < CLIENTS; i++) {
    clients[i].dice = seed + (uint32_t)i * 7919;
    for (size_t k = 0; k < EACH; k++) {
      talk *t = &clients[i].talks[k];
      t->in_memory = k % 4 == 3;
      t->is_volatile = k % 8 == 2;
      t->pipelined = k % 3 == 1;
      (void)snprintf(t->key, sizeof(t->key), "%c-%zu-%zu", (char)('a' + k), i, k);
    }
  }
}

static void test_stress(void **state) {
  (void)state;
  uint32_t seed = number_from("STRESS_SEED", (uint32_t)outside_now()), dice = seed;
  uint32_t usual = getenv("TIDEMILL_NIGHTLY") != NULL ? 10 * ROUNDS : ROUNDS;
  uint32_t rounds = number_from("STRESS_ROUNDS", usual);
  (void)fprintf(stderr, "STRESS_SEED=%u STRESS_ROUNDS=%u\n", seed, rounds);
  prepare_clients(seed);
  assert_true(outside_start(&other_side, seed));
  write_good_word(0);
  size_t threads = 0, descriptors = 0;
  for (uint32_t round = 0; round < rounds; round++) {
    run_round(&dice);
    if (round > 0) expect_entries("/proc/self/task", threads);
    if (round > 0) expect_entries("/proc/self/fd", descriptors);
    threads = entries("/proc/self/task"); /* the first round starts what libraries keep */
    descriptors = entries("/proc/self/fd");
  }
  outside_stop(&other_side);
}

static int setup(void **state) {
  char command[256];
  (void)state;
  if (!scratch_make(dir, sizeof(dir), "stress")) return -1;
  (void)snprintf(command, sizeof(command), "mkdir %s/scripts && cp -r tests/host/stress %s/scripts",
                 dir, dir);
  return system(command);
}

static int teardown(void **state) {
  char command[128];
  (void)state;
  (void)snprintf(command, sizeof(command), "rm -rf %s", dir);
  return system(command);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_stress)};
  return cmocka_run_group_tests(tests, setup, teardown);
}
