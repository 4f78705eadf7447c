/* Out of memory, anywhere: each allocation of starting, loading, turning and stopping fails in
 * turn. The operation succeeds or fails with a clear error; afterwards everything works, nothing is
 * lost and nothing is done twice. See sweep.h for how. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/scratch.h"
#include "world.h"

static void sweep_all(const scenario *s) {
  assert_int_equal(sweep_run(s), 0);
}

static void begin_shipped(void) {
  begin_well("customer_service", "comprehensive_workflow");
}

/* ---- start and stop ---- */

static void start_and_end(void) {
  start();
  expect_clear();
  end();
}

static void start_and_talk(void) {
  start_well();
  begin_shipped();
  end();
}

static void start_with_a_conversation(void) {
  start_well();
  begin_shipped();
}

static void test_start_memory(void **state) {
  (void)state;
  sweep_all(&(scenario){.name = "start and load, memory store",
                        .run = start_and_end,
                        .verify = start_and_talk,
                        .starts = true,
                        .sample = 3});
}

static void test_start_sqlite(void **state) {
  (void)state;
  backend = "workflow_persistence.backend=sqlite";
  sweep_all(&(scenario){.name = "start and load, SQLite",
                        .run = start_and_end,
                        .verify = start_and_talk,
                        .starts = true,
                        .rest = true,
                        .sample = 10});
}

static void test_first_start(void **state) {
  (void)state;
  sweep_all(&(scenario){.name = "the first start of a process",
                        .run = start_and_end,
                        .verify = start_and_talk,
                        .starts = true,
                        .rest = true,
                        .cold = true,
                        .sample = 6});
}

static void test_stop_memory(void **state) {
  (void)state;
  sweep_all(
      &(scenario){.name = "stop, memory store", .prepare = start_with_a_conversation, .run = end});
}

/* ---- turns on a host that stays ---- */

static void open_world(void) {
  outside_start();
  start_well();
}

static void begin_small(void) {
  begin("small", "count");
  expect_clear();
}

/* The same key again: the conversation that there is, or the one that failed to begin. */
static void begin_small_again(void) {
  tm_filter f = TM_FILTER_INIT;
  begin("small", "count");
  expect_ok("begin again");
  f.session_id = key;
  tm_conversation_list(host, &f, on_reply, ask());
  await();
  expect_ok("list");
  const char *first = strstr(last.json, "\"conversation_id\"");
  if (first == NULL || strstr(first + 1, "\"conversation_id\"") != NULL)
    complain("not one conversation: %s", last.json);
}

/* The state that runs a system's turns is there. */
static void open_hot_world(void) {
  open_world();
  begin_well("small", "count");
}

static void test_begin(void **state) {
  (void)state;
  sweep_all(&(scenario){.name = "begin",
                        .set_up = open_hot_world,
                        .prepare = next_key,
                        .run = begin_small,
                        .verify = begin_small_again,
                        .tear_down = end});
}

static void begin_count(void) {
  begin_well("small", "count");
  next_key();
}

static void begin_fetch(void) {
  begin_well("small", "fetch");
  next_key();
}

static void tell_word(void) {
  tell("\"word\"");
  expect_clear();
}

/* Told again with the same key it was told once. */
static void tell_word_again(void) {
  tell("\"word\"");
  expect_ok("message again");
  look(TM_READ_CONVERSATION);
  expect_ok("read");
  expect_text("\"count\":1");
  expect_text("\"status\":\"waiting_input\"");
}

static void test_message(void **state) {
  (void)state;
  sweep_all(&(scenario){.name = "message",
                        .set_up = open_world,
                        .prepare = begin_count,
                        .run = tell_word,
                        .verify = tell_word_again,
                        .tear_down = end});
}

static void test_message_outside(void **state) {
  (void)state;
  sweep_all(&(scenario){.name = "message with a call to the outside",
                        .set_up = open_world,
                        .prepare = begin_fetch,
                        .run = tell_word,
                        .verify = tell_word_again,
                        .sample = 3,
                        .tear_down = end});
}

/* ---- a deadline ---- */

static void let_expire(void) {
  (void)atomic_fetch_add(&now_ms, 700000);
  tm_host_wake(host);
  look(TM_READ_CONVERSATION);
  expect_clear();
}

/* A deadline that could not be met comes again a little later. */
static void expect_expired(void) {
  do {
    (void)atomic_fetch_add(&now_ms, 1000);
    tm_host_wake(host);
    look(TM_READ_CONVERSATION);
    expect_ok("read");
  } while (strstr(last.json, "\"status\":\"expired\"") == NULL);
}

static void test_deadline(void **state) {
  (void)state;
  sweep_all(&(scenario){.name = "a deadline",
                        .set_up = open_world,
                        .prepare = begin_count,
                        .run = let_expire,
                        .verify = expect_expired,
                        .tear_down = end});
}

/* ---- rollback ---- */

static void go_back(void) {
  tm_conversation_rollback(host, NULL, id, 1, NULL, 0, NULL, on_reply, ask());
  await();
}

static void tell_three(void) {
  begin_well("small", "count");
  for (int i = 0; i < 3; i++) {
    next_key();
    tell("\"word\"");
    expect_ok("message");
  }
}

static void roll_back(void) {
  go_back();
  expect_clear();
}

/* It was done, or it was not; then it is done now. */
static void expect_rolled_back(void) {
  bool failed = last.status != TM_OK;
  look(TM_READ_CONVERSATION);
  expect_ok("read");
  if (failed && strstr(last.json, "\"count\":3") != NULL) {
    go_back();
    expect_ok("rollback");
    look(TM_READ_CONVERSATION);
  }
  expect_text("\"count\":2");
}

static void test_rollback(void **state) {
  (void)state;
  sweep_all(&(scenario){.name = "rollback",
                        .set_up = open_world,
                        .prepare = tell_three,
                        .run = roll_back,
                        .verify = expect_rolled_back,
                        .tear_down = end});
}

/* ---- a failure, before which what was done is undone ---- */

static void begin_fail(void) {
  begin_well("small", "fail");
  next_key();
}

static void expect_undone(void) {
  tell("\"word\"");
  expect_ok("message again");
  expect_text("\"status\":\"failed\"");
  expect_text("\"compensation\":{\"failed\":[],\"irreversible\":[],\"undone\":1}");
}

static void test_compensation(void **state) {
  (void)state;
  sweep_all(&(scenario){.name = "a compensation",
                        .set_up = open_world,
                        .prepare = begin_fail,
                        .run = tell_word,
                        .verify = expect_undone,
                        .tear_down = end});
}

/* ---- reading ---- */

static void read_all(void (*expect)(void)) {
  tm_filter f = TM_FILTER_INIT;
  for (int what = TM_READ_CONVERSATION; what <= TM_READ_CHECKPOINTS; what++) {
    look((tm_read)what);
    expect();
  }
  f.status = "waiting_input";
  tm_conversation_list(host, &f, on_reply, ask());
  await();
  expect();
  tm_session_list(host, NULL, "open", NULL, 0, on_reply, ask());
  await();
  expect();
  tm_systems_read(host, NULL, NULL, NULL, on_reply, ask());
  expect();
  tm_systems_read(host, NULL, "small", "count", on_reply, ask());
  expect();
}

static void read_well(void) {
  expect_ok("read");
}

static void read_clear(void) {
  read_all(expect_clear);
}

static void read_again(void) {
  read_all(read_well);
}

static void open_world_and_talk(void) {
  open_world();
  tell_three();
}

static void test_read(void **state) {
  (void)state;
  sweep_all(&(scenario){.name = "reading",
                        .set_up = open_world_and_talk,
                        .run = read_clear,
                        .verify = read_again,
                        .by_path = true,
                        .tear_down = end});
}

/* ---- sessions and retention ---- */

static char session[32];

/* Each trial costs syncs. */
static bool on_disk(void) {
  return strstr(backend, "sqlite") != NULL;
}

static void begin_session(void) {
  begin_well("small", "count");
  (void)snprintf(session, sizeof(session), "%s", key);
}

static void end_it(void) {
  tm_session_end(host, NULL, session, on_reply, ask());
  await();
}

static void end_session(void) {
  end_it();
  expect_clear();
}

static void expect_ended(void) {
  end_it();
  expect_ok("end a session");
  expect_text("\"status\":\"ended\"");
  look(TM_READ_CONVERSATION);
  expect_text("\"status\":\"cancelled\"");
}

static void test_session_end(void **state) {
  (void)state;
  sweep_all(&(scenario){.name = "the end of a session",
                        .set_up = open_hot_world,
                        .prepare = begin_session,
                        .run = end_session,
                        .verify = expect_ended,
                        .by_path = true,
                        .tear_down = end,
                        .sample = on_disk() ? 40 : 1});
}

static void end_and_wait(void) {
  begin_session();
  expect_ended();
  now_ms += 2000;
}

static void purge_it(void) {
  tm_host_purge(host, 0, on_reply, ask());
  await();
}

static void purge(void) {
  purge_it();
  expect_clear();
}

static void expect_purged(void) {
  purge_it();
  expect_ok("purge");
  look(TM_READ_CONVERSATION);
  if (last.status != TM_ENOTFOUND) complain("what was purged is there: %s", last.json);
}

static void test_purge(void **state) {
  (void)state;
  sweep_all(&(scenario){.name = "a purge",
                        .set_up = open_hot_world,
                        .prepare = end_and_wait,
                        .run = purge,
                        .verify = expect_purged,
                        .by_path = true,
                        .tear_down = end,
                        .sample = on_disk() ? 40 : 1});
}

/* ---- the outbox ---- */

static char event[128];

static void list_events(const char *status) {
  tm_outbox_list(host, NULL, status, NULL, 5, on_reply, ask());
  await();
}

static void retry_event(void) {
  tm_outbox_retry(host, NULL, event, on_reply, ask());
  await();
}

/* A conversation, the newest, whose event was given up. */
static void begin_told(void) {
  char first[64];
  (void)atomic_fetch_add(&now_ms, 1);
  begin_well("small", "tell");
  next_key();
  tell("\"word\"");
  expect_ok("message");
  (void)snprintf(first, sizeof(first), "\"id\":\"%s", id);
  const char *at;
  do {
    list_events("dead");
    expect_ok("list");
    at = strstr(last.json, first);
  } while (at == NULL);
  (void)snprintf(event, sizeof(event), "%.*s", (int)strcspn(at + 6, "\""), at + 6);
}

static void list_and_retry(void) {
  list_events(NULL);
  expect_clear();
  retry_event();
  expect_clear();
}

/* It is there, and can be tried again unless it is already. */
static void expect_event(void) {
  list_events(NULL);
  expect_ok("list");
  expect_text(event);
  retry_event();
  if (last.status != TM_ECONFLICT) expect_ok("retry");
}

static void test_outbox(void **state) {
  (void)state;
  told = true;
  sweep_all(&(scenario){.name = "events that were given up",
                        .set_up = open_hot_world,
                        .prepare = begin_told,
                        .run = list_and_retry,
                        .verify = expect_event,
                        .by_path = true,
                        .tear_down = end,
                        .sample = on_disk() ? 20 : 1});
  told = false;
}

/* ---- over HTTP ---- */

static uint16_t api_port;

static void listen_well(void) {
  char url[64] = "";
  tm_error err;
  open_hot_world();
  if (tm_host_listen(host, "127.0.0.1:0", url, sizeof(url), &err) != TM_OK)
    complain("listen: %s", err.message);
  api_port = (uint16_t)atoi(strrchr(url, ':') + 1);
}

/* The status of the answer; 0: the connection ended without one. */
static int post_begin(void) {
  static const char body[] = "{\"system\":\"small\",\"flow_id\":\"count\"}";
  char text[512], said[4096];
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(api_port)};
  size_t got = 0;
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  int len = snprintf(text, sizeof(text),
                     "POST /v1/conversations HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                     "Content-Type: application/json\r\nIdempotency-Key: %s\r\n"
                     "Content-Length: %zu\r\n\r\n%s",
                     key, sizeof(body) - 1, body);
  if (connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0 &&
      send(fd, text, (size_t)len, MSG_NOSIGNAL) == len)
    for (ssize_t n; got < sizeof(said) - 1; got += (size_t)n)
      if ((n = recv(fd, said + got, sizeof(said) - 1 - got, 0)) <= 0) break;
  said[got] = '\0';
  (void)close(fd);
  return strncmp(said, "HTTP/1.1 ", 9) == 0 ? atoi(said + 9) : 0;
}

/* Without memory for an answer there is none: the connection ends. */
static void begin_http(void) {
  int status = post_begin();
  if (status != 201 && status != 503 && status != 0) complain("the answer is %d", status);
}

static void begin_http_again(void) {
  int status = post_begin();
  if (status != 201) complain("with memory back, the answer is %d", status);
}

static void test_http(void **state) {
  (void)state;
  sweep_all(&(scenario){.name = "begin over HTTP",
                        .set_up = listen_well,
                        .prepare = next_key,
                        .run = begin_http,
                        .verify = begin_http_again,
                        .by_path = true,
                        .tear_down = end});
}

/* ---- reload: of one system that has changed, and one that has not ---- */

static void reload(void) {
  tm_host_reload(host, on_reply, ask());
  await();
  expect_clear();
}

static void reload_again(void) {
  tm_host_reload(host, on_reply, ask());
  await();
  expect_ok("reload");
  begin_count();
  tell_word_again();
}

static void test_reload(void **state) {
  (void)state;
  sweep_all(&(scenario){.name = "reload",
                        .set_up = open_world,
                        .prepare = write_small_system,
                        .run = reload,
                        .by_path = true,
                        .sample = 5,
                        .verify = reload_again,
                        .tear_down = end});
}

/* ---- migration ---- */

/* A conversation, and behind it a newer version of its system. */
static void begin_old(void) {
  begin_count();
  write_small_system();
  tm_host_reload(host, on_reply, ask());
  await();
  expect_ok("reload");
}

static void migrate(void) {
  tm_conversation_migrate(host, NULL, id, 0, on_reply, ask());
  await();
  expect_clear();
}

/* It is wholly there or wholly not; then it goes there. */
static void migrate_again(void) {
  look(TM_READ_CONVERSATION);
  expect_ok("read");
  bool moved = strstr(last.json, "\"moved\":true") != NULL;
  expect_text(moved ? "\"revision\":2" : "\"revision\":1");
  tm_conversation_migrate(host, NULL, id, 0, on_reply, ask());
  await();
  expect_ok("migrate again");
  expect_text("\"revision\":2");
  tell_word_again();
}

static void test_migrate(void **state) {
  (void)state;
  sweep_all(&(scenario){.name = "a migration",
                        .set_up = open_world,
                        .prepare = begin_old,
                        .run = migrate,
                        .verify = migrate_again,
                        .by_path = true,
                        .tear_down = end});
}

/* What one sweep has left in its file would make the next one slower. */
static int use_memory(void **state) {
  static const char *const files[] = {"state.db", "state.db-wal", "state.db-shm"};
  (void)state;
  backend = "workflow_persistence.backend=memory";
  for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
    char path[300];
    (void)snprintf(path, sizeof(path), "%s/%s", dir, files[i]);
    (void)unlink(path);
  }
  return 0;
}

static int use_sqlite(void **state) {
  (void)state;
  backend = "workflow_persistence.backend=sqlite";
  return 0;
}

static int open_place(void **state) {
  (void)state;
  return !scratch_make(dir, sizeof(dir), "memory") || outside_open() != 0 || write_systems() != 0
             ? -1
             : 0;
}

static int close_place(void **state) {
  char command[128];
  (void)state;
  (void)close(outside_listener);
  (void)snprintf(command, sizeof(command), "rm -rf %s", dir);
  return system(command);
}

static int use_seals(void **state) {
  (void)state;
  sealed = true;
  return 0;
}

static int use_no_seals(void **state) {
  (void)state;
  sealed = false;
  return 0;
}

int main(int argc, char **argv) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_start_memory),
      cmocka_unit_test_teardown(test_start_sqlite, use_memory),
      cmocka_unit_test(test_first_start),
      cmocka_unit_test(test_stop_memory),
      cmocka_unit_test(test_begin),
      cmocka_unit_test(test_message),
      cmocka_unit_test(test_message_outside),
      cmocka_unit_test(test_deadline),
      cmocka_unit_test(test_rollback),
      cmocka_unit_test(test_compensation),
      cmocka_unit_test(test_read),
      cmocka_unit_test(test_session_end),
      cmocka_unit_test(test_purge),
      cmocka_unit_test(test_outbox),
      cmocka_unit_test(test_http),
      cmocka_unit_test(test_reload),
      cmocka_unit_test(test_migrate),
      cmocka_unit_test_setup_teardown(test_begin, use_sqlite, use_memory),
      cmocka_unit_test_setup_teardown(test_message, use_sqlite, use_memory),
      cmocka_unit_test_setup_teardown(test_message_outside, use_sqlite, use_memory),
      cmocka_unit_test_setup_teardown(test_rollback, use_sqlite, use_memory),
      cmocka_unit_test_setup_teardown(test_read, use_sqlite, use_memory),
      cmocka_unit_test_setup_teardown(test_session_end, use_sqlite, use_memory),
      cmocka_unit_test_setup_teardown(test_purge, use_sqlite, use_memory),
      cmocka_unit_test_setup_teardown(test_outbox, use_sqlite, use_memory),
      cmocka_unit_test_setup_teardown(test_stop_memory, use_sqlite, use_memory),
      cmocka_unit_test_setup_teardown(test_message, use_seals, use_no_seals),
      cmocka_unit_test_setup_teardown(test_message_outside, use_seals, use_no_seals),
      cmocka_unit_test_setup_teardown(test_rollback, use_seals, use_no_seals),
      cmocka_unit_test_setup_teardown(test_read, use_seals, use_no_seals),
  };
  if (argc > 1) cmocka_set_test_filter(argv[1]);
  alloc_init();
  if (!ALLOC_OWNED) return 0;
  return cmocka_run_group_tests(tests, open_place, close_place);
}
