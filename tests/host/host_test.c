/* The public library as an embedding program uses it: tidemill.h only, real SQLite, real scripts,
 * a clock that the test turns. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/scratch.h"
#include "tidemill.h"

static char dir[40];
static _Atomic int64_t now_ms = 1800000000000;

static int64_t turned_clock(void *ud) {
  (void)ud;
  return atomic_load(&now_ms);
}

/* ---- one question, one answer ---- */

typedef struct answer {
  pthread_mutex_t lock;
  pthread_cond_t come;
  int done;
  tm_status status;
  char code[48];
  char *json;
} answer;

static void on_reply(void *ud, const tm_reply *r) {
  answer *a = ud;
  (void)pthread_mutex_lock(&a->lock);
  assert_int_equal(a->done, 0); /* exactly once */
  a->done = 1;
  a->status = r->status;
  a->json = strdup(r->status == TM_OK ? r->json : r->error->message);
  (void)snprintf(a->code, sizeof(a->code), "%s", r->status == TM_OK ? "" : r->error->code);
  (void)pthread_cond_signal(&a->come);
  (void)pthread_mutex_unlock(&a->lock);
}

static answer ask_init(void) {
  return (answer){.lock = PTHREAD_MUTEX_INITIALIZER, .come = PTHREAD_COND_INITIALIZER};
}

static void ask_wait(answer *a) {
  (void)pthread_mutex_lock(&a->lock);
  while (!a->done)
    (void)pthread_cond_wait(&a->come, &a->lock);
  (void)pthread_mutex_unlock(&a->lock);
}

static answer begin(tm_host *h, const char *system) {
  answer a = ask_init();
  tm_begin b = TM_BEGIN_INIT;
  b.system = system;
  b.flow_id = "talk";
  tm_conversation_begin(h, &b, on_reply, &a);
  ask_wait(&a);
  return a;
}

static answer say(tm_host *h, const char *id, const char *json) {
  answer a = ask_init();
  tm_message_send(h, NULL, id, json, NULL, on_reply, &a);
  ask_wait(&a);
  return a;
}

static answer show(tm_host *h, const char *id, tm_read what) {
  answer a = ask_init();
  tm_conversation_read(h, NULL, id, what, NULL, 0, on_reply, &a);
  ask_wait(&a);
  return a;
}

static void id_of(const answer *a, char id[40]) {
  const char *p = strstr(a->json, "\"conversation_id\":\"");
  assert_non_null(p);
  memcpy(id, p + 19, 36);
  id[36] = '\0';
}

static void assert_has(const answer *a, const char *text) {
  if (a->status != TM_OK || strstr(a->json, text) == NULL)
    fail_msg("no %s in %s %s", text, a->code, a->json);
}

/* Takes the answer's memory with it. */
static void expect(answer a, const char *text) {
  assert_has(&a, text);
  free(a.json);
}

static void expect_error(answer a, tm_status status, const char *code) {
  if (a.status != status || strcmp(a.code, code) != 0)
    fail_msg("expected %s, got %d %s %s", code, (int)a.status, a.code, a.json);
  free(a.json);
}

/* ---- places and hosts ---- */

static void write_file(const char *path, const char *text) {
  FILE *f = fopen(path, "w");
  assert_non_null(f);
  assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
  assert_int_equal(fclose(f), 0);
}

/* A system `talk` that greets with `word` and echoes; `more` goes into the flow's settings. */
static void write_system(const char *word, const char *more) {
  char path[256], text[4096];
  (void)snprintf(path, sizeof(path), "%s/scripts", dir);
  (void)mkdir(path, 0700);
  (void)snprintf(path, sizeof(path), "%s/scripts/talk", dir);
  (void)mkdir(path, 0700);
  (void)snprintf(path, sizeof(path), "%s/scripts/talk/init.lua", dir);
  (void)snprintf(
      text, sizeof(text),
      "local tm = require 'tidemill'\n"
      "local a = { respond = function(ctx) return '%s ' .. (ctx.state.said or 'nobody') end }\n"
      "return tm.system { name = 'talk', agents = { a = a }, flows = { tm.ConversationFlow {\n"
      "  flow_id = 'talk', pattern = tm.ConversationPattern.STEP_BY_STEP_PROCESS, start_step = "
      "'greet',\n"
      "  settings = { %s }, steps = {\n"
      "    tm.ConversationStep { step_id = 'greet', step_type = 'agent_response', agent = a,\n"
      "      prompt = 'greet', next_steps = { 'ask' } },\n"
      "    tm.ConversationStep { step_id = 'ask', step_type = 'user_input', prompt = 'So?',\n"
      "      input_schema = { type = 'text', required = true }, save_as = 'said',\n"
      "      next_steps = { 'greet' } } } } } }\n",
      word, more);
  write_file(path, text);
}

static const char *setting; /* one more of new hosts, or NULL */

static tm_host *new_host(const char *db) {
  char config[256], scripts[256], path[256];
  (void)snprintf(config, sizeof(config), "%s/agent_config.yaml", dir);
  (void)snprintf(scripts, sizeof(scripts), "scripts=%s/scripts", dir);
  (void)snprintf(path, sizeof(path), "workflow_persistence.sqlite.database_path=%s/%s", dir, db);
  const char *set[] = {scripts, path, "server.workers=2", "limits.cpu_slice=5", setting, NULL};
  write_file(config, "log:\n  level: error\n");
  tm_options o = TM_OPTIONS_INIT;
  o.config_file = config;
  o.set = set;
  o.clock = turned_clock;
  tm_error err;
  tm_host *h = NULL;
  if (tm_host_new(&h, &o, &err) != TM_OK) fail_msg("%s", err.message);
  return h;
}

static tm_host *start_host(const char *db) {
  tm_host *h = new_host(db);
  tm_error err;
  if (tm_host_start(h, &err) != TM_OK) fail_msg("%s", err.message);
  return h;
}

static int setup(void **state) {
  (void)state;
  return !scratch_make(dir, sizeof(dir), "host");
}

static int teardown(void **state) {
  char command[128];
  (void)state;
  (void)snprintf(command, sizeof(command), "rm -rf %s", dir);
  return system(command);
}

/* ---- tests ---- */

static void test_a_conversation(void **state) {
  (void)state;
  char id[40];
  write_system("hello", "");
  tm_host *h = start_host("plain.db");
  answer a = begin(h, "talk");
  assert_has(&a, "hello nobody");
  assert_has(&a, "\"status\":\"waiting_input\"");
  id_of(&a, id);
  free(a.json);
  expect(say(h, id, "\"Ann\""), "hello Ann");
  expect(show(h, id, TM_READ_CONVERSATION), "\"said\":\"Ann\"");
  expect(show(h, id, TM_READ_STEPS), "\"step_id\":\"greet\"");
  expect(show(h, id, TM_READ_MESSAGES), "hello Ann");
  expect_error(say(h, id, "nonsense"), TM_EINVAL, "json.invalid");
  expect_error(say(h, "0199aaaa-0000-7000-8000-000000000000", "\"x\""), TM_ENOTFOUND,
               "conversation.not_found");
  expect_error(begin(h, "nobody"), TM_ENOTFOUND, "system.not_found");
  tm_host_stop(h, 1000);
  expect_error(say(h, id, "\"late\""), TM_EUNAVAILABLE, "host.stopping");
  tm_host_free(h);
  h = start_host("plain.db");
  expect(say(h, id, "\"Bob\""), "hello Bob");
  tm_host_free(h);
}

/* Deadlines are found by the real scheduler, so the test looks until they are. */
static void expect_soon(tm_host *h, const char *id, const char *text) {
  for (int i = 0; i < 500; i++) {
    answer a = show(h, id, TM_READ_CONVERSATION);
    int found = a.status == TM_OK && strstr(a.json, text) != NULL;
    free(a.json);
    if (found) return;
    tm_host_wake(h);
    (void)usleep(10000);
  }
  fail_msg("%s never came", text);
}

static void test_expiry(void **state) {
  (void)state;
  char id[40], other[40];
  write_system("hello", "interaction_timeout = 600");
  tm_host *h = start_host("expiry.db");
  answer a = begin(h, "talk"), b = begin(h, "talk");
  id_of(&a, id);
  id_of(&b, other);
  free(a.json);
  free(b.json);
  atomic_fetch_add(&now_ms, 500000);
  expect(say(h, id, "\"Ann\""), "\"status\":\"waiting_input\""); /* the deadline moves */
  atomic_fetch_add(&now_ms, 200000);
  tm_host_wake(h);
  expect_soon(h, other, "\"status\":\"expired\"");
  expect(show(h, id, TM_READ_CONVERSATION), "\"status\":\"waiting_input\"");
  expect_error(say(h, other, "\"late\""), TM_ECONFLICT, "conversation.finished");
  tm_host_free(h);
  atomic_fetch_add(&now_ms, 600000); /* while the host is down */
  h = start_host("expiry.db");
  expect_soon(h, id, "\"status\":\"expired\"");
  tm_host_free(h);
}

static void test_two_hosts_one_store(void **state) {
  (void)state;
  char id[40], said[32], hello[32];
  write_system("hello", "");
  tm_host *a = start_host("shared.db"), *b = start_host("shared.db");
  answer begun = begin(a, "talk");
  id_of(&begun, id);
  free(begun.json);
  for (int i = 0; i < 20; i++) { /* each time the other one's hot copy is stale */
    (void)snprintf(said, sizeof(said), "\"guest %d\"", i);
    (void)snprintf(hello, sizeof(hello), "hello guest %d", i);
    expect(say(i % 2 == 0 ? b : a, id, said), hello);
  }
  expect(show(a, id, TM_READ_CONVERSATION), "\"revision\":21");
  tm_host_free(a);
  expect(say(b, id, "\"Zoe\""), "hello Zoe");
  tm_host_free(b);
}

static answer reload(tm_host *h) {
  answer a = ask_init();
  tm_host_reload(h, on_reply, &a);
  ask_wait(&a);
  return a;
}

static void test_reload_keeps_versions(void **state) {
  (void)state;
  char old[40], fresh[40];
  write_system("hello", "");
  tm_host *h = start_host("reload.db");
  answer a = begin(h, "talk");
  id_of(&a, old);
  free(a.json);
  write_system("welcome", "");
  expect(reload(h), "\"previous\":\"");
  a = begin(h, "talk");
  assert_has(&a, "welcome nobody");
  id_of(&a, fresh);
  free(a.json);
  expect(say(h, old, "\"Ann\""), "hello Ann"); /* the version it began with */
  write_system("broken", "no_such_setting = 1");
  a = reload(h);
  assert_int_not_equal(a.status, TM_OK);
  free(a.json);
  expect(say(h, fresh, "\"Bob\""), "welcome Bob");
  tm_host_free(h);
  write_system("third", "");
  h = start_host("reload.db"); /* also after a restart */
  expect(say(h, old, "\"Cid\""), "hello Cid");
  expect(say(h, fresh, "\"Dot\""), "welcome Dot");
  tm_host_free(h);
}

static answer go_back(tm_host *h, const char *id, int steps) {
  answer a = ask_init();
  tm_conversation_rollback(h, NULL, id, steps, NULL, 0, NULL, on_reply, &a);
  ask_wait(&a);
  return a;
}

static void test_rollback_is_the_flows_to_allow(void **state) {
  (void)state;
  char id[40];
  write_system("hello", "enable_rollback = false");
  tm_host *h = start_host("no_rollback.db");
  answer a = begin(h, "talk");
  id_of(&a, id);
  free(a.json);
  expect(say(h, id, "\"Ann\""), "hello Ann");
  expect_error(go_back(h, id, 1), TM_ECONFLICT, "rollback.disabled");
  tm_host_free(h);
  write_system("hello", "enable_rollback = true, max_rollback_steps = 2");
  h = start_host("no_rollback.db");
  expect_error(go_back(h, id, 1), TM_ECONFLICT, "rollback.disabled"); /* it keeps its version */
  a = begin(h, "talk");
  id_of(&a, id);
  free(a.json);
  for (int i = 0; i < 3; i++)
    expect(say(h, id, "\"Bob\""), "hello Bob");
  expect_error(go_back(h, id, 3), TM_ECONFLICT, "rollback.limit");
  expect(go_back(h, id, 2), "\"current_step\":\"ask\"");
  tm_host_free(h);
}

typedef void steer_fn(tm_host *h, const char *tenant, const char *id, tm_reply_fn fn, void *ud);

static answer steer(steer_fn *fn, tm_host *h, const char *id) {
  answer a = ask_init();
  fn(h, NULL, id, on_reply, &a);
  ask_wait(&a);
  return a;
}

/* While it is paused its prompt has no answer either; when it is over the last one has. */
static void test_answers_are_counted(void **state) {
  (void)state;
  char id[40];
  write_system("hello", "enable_rollback = true, max_rollback_steps = 1");
  tm_host *h = start_host("counted.db");
  answer a = begin(h, "talk");
  id_of(&a, id);
  free(a.json);
  expect(say(h, id, "\"Ann\""), "hello Ann");
  expect(steer(tm_conversation_pause, h, id), "\"status\":\"paused\"");
  expect(go_back(h, id, 1), "\"revision\":4");
  expect_error(go_back(h, id, 1), TM_ECONFLICT, "rollback.nothing");
  expect(steer(tm_conversation_pause, h, id), "\"status\":\"paused\"");
  expect_error(go_back(h, id, 1), TM_ECONFLICT, "rollback.nothing");
  expect(steer(tm_conversation_resume, h, id), "\"status\":\"waiting_input\"");
  expect(say(h, id, "\"Ann\""), "hello Ann");
  expect(steer(tm_conversation_cancel, h, id), "\"status\":\"cancelled\"");
  expect_error(go_back(h, id, 2), TM_ECONFLICT, "rollback.limit");
  tm_host_free(h);
}

static void test_rollback(void **state) {
  (void)state;
  char id[40];
  write_system("hello", "enable_rollback = true");
  tm_host *h = start_host("rollback.db");
  answer a = begin(h, "talk");
  id_of(&a, id);
  free(a.json);
  expect(say(h, id, "\"Ann\""), "hello Ann");
  expect(say(h, id, "\"Bob\""), "hello Bob");
  expect(go_back(h, id, 1), "\"current_step\":\"ask\"");
  expect(show(h, id, TM_READ_CONVERSATION), "\"said\":\"Ann\"");
  expect(say(h, id, "\"Cid\""), "hello Cid");
  expect_error(go_back(h, id, 50), TM_ECONFLICT, "rollback.nothing");
  tm_host_free(h);
}

static void test_starting_twice_and_wrong_sizes(void **state) {
  (void)state;
  tm_error err;
  tm_host *h = new_host("twice.db");
  expect_error(say(h, "0199aaaa-0000-7000-8000-000000000000", "\"x\""), TM_EUNAVAILABLE,
               "host.stopping");
  assert_int_equal(tm_host_watch(h, &err), TM_EINVAL);
  assert_string_equal(err.code, "host.watch");
  assert_int_equal(tm_host_start(h, &err), TM_OK);
  assert_int_equal(tm_host_watch(h, &err), TM_OK);
  assert_int_equal(tm_host_watch(h, &err), TM_EINVAL);
  assert_int_equal(tm_host_start(h, &err), TM_EINVAL);
  assert_string_equal(err.code, "host.started");
  char url[64];
  assert_int_equal(tm_host_listen(h, "127.0.0.1:0", url, sizeof(url), &err), TM_OK);
  assert_memory_equal(url, "http://127.0.0.1:", 17);
  assert_int_equal(tm_host_listen(h, "127.0.0.1:0", url, sizeof(url), &err), TM_EINVAL);
  assert_string_equal(err.code, "host.listen");
  tm_host_stop(h, 100);
  tm_host_stop(h, 100);
  tm_host_free(h);
  tm_options o = {.size = 3};
  assert_int_equal(tm_host_new(&h, &o, &err), TM_EINVAL);
  assert_string_equal(err.code, "options.size");
  assert_null(h);
}

static answer check(tm_host *h, const char *path) {
  answer a = ask_init();
  tm_scripts_check(h, &path, 1, on_reply, &a);
  ask_wait(&a);
  return a;
}

/* Folders of scripts that cannot be loaded, each told by its code. */
static void test_folders_that_are_no_systems(void **state) {
  char path[300], command[300];
  (void)state;
  tm_host *h = new_host("none.db");
  expect_error(check(h, "/nowhere"), TM_EIO, "script.folder");
  (void)snprintf(path, sizeof(path), "%s/empty", dir);
  assert_int_equal(mkdir(path, 0700), 0);
  expect_error(check(h, path), TM_ENOTFOUND, "script.none");
  (void)snprintf(command, sizeof(command),
                 "cd %s/empty && seq -f s%%g 1025 | xargs mkdir && "
                 "for d in s*; do : >$d/init.lua; done",
                 dir);
  assert_int_equal(system(command), 0);
  expect_error(check(h, path), TM_ELIMIT, "script.too_many");
  tm_host_free(h);
  write_system("hello", "");
  (void)snprintf(command, sizeof(command), "cp -r %s/scripts %s/again", dir, dir);
  assert_int_equal(system(command), 0);
  char scripts[512];
  (void)snprintf(scripts, sizeof(scripts), "scripts=%s/scripts,%s/again", dir, dir);
  const char *set[] = {scripts, "workflow_persistence.backend=memory", NULL};
  tm_options o = TM_OPTIONS_INIT;
  tm_error err;
  o.set = set;
  assert_int_equal(tm_host_new(&h, &o, &err), TM_OK);
  assert_int_equal(tm_host_start(h, &err), TM_EINVAL);
  assert_string_equal(err.code, "script.duplicate");
  tm_host_free(h);
}

static int stored_versions(const char *db) {
  char path[256];
  sqlite3 *c;
  sqlite3_stmt *st;
  (void)snprintf(path, sizeof(path), "%s/%s", dir, db);
  assert_int_equal(sqlite3_open(path, &c), SQLITE_OK);
  assert_int_equal(sqlite3_prepare_v2(c, "SELECT count(*) FROM scripts", -1, &st, NULL), SQLITE_OK);
  assert_int_equal(sqlite3_step(st), SQLITE_ROW);
  int count = sqlite3_column_int(st, 0);
  assert_int_equal(sqlite3_finalize(st), SQLITE_OK);
  assert_int_equal(sqlite3_close(c), SQLITE_OK);
  return count;
}

static answer purge(tm_host *h) {
  answer a = ask_init();
  tm_host_purge(h, 0, on_reply, &a);
  ask_wait(&a);
  return a;
}

static void session_of(const answer *a, char session[40]) {
  const char *p = strstr(a->json, "\"session_id\":\"");
  assert_non_null(p);
  (void)snprintf(session, 40, "%.*s", (int)strcspn(p + 14, "\""), p + 14);
}

/* The sources of a version are there for as long as a conversation may need them, across restarts
 * and on hosts that never had its scripts; then they go. */
static void test_sources_go_with_the_last_conversation(void **state) {
  (void)state;
  const int64_t hour = 3600000;
  char first[40], second[40], session[40];
  setting = "workflow_persistence.retention.conversation_ttl=86400";
  write_system("hello", "");
  tm_host *h = start_host("versions.db");
  answer a = begin(h, "talk");
  id_of(&a, first);
  session_of(&a, session);
  free(a.json);
  write_system("welcome", "");
  expect(reload(h), "\"previous\":\"");
  a = begin(h, "talk");
  id_of(&a, second);
  free(a.json);
  atomic_fetch_add(&now_ms, 40 * hour);
  expect(purge(h), "\"versions\":0,");
  tm_host_free(h);
  write_system("third", "");
  h = start_host("versions.db");
  tm_host *other = start_host("versions.db");
  assert_int_equal(stored_versions("versions.db"), 3);
  expect(say(h, first, "\"Ann\""), "hello Ann");
  expect(say(other, first, "\"Bob\""), "hello Bob");
  expect(say(other, second, "\"Cid\""), "welcome Cid");
  a = ask_init();
  tm_session_end(h, NULL, session, on_reply, &a);
  ask_wait(&a);
  expect(a, "\"status\":\"ended\"");
  atomic_fetch_add(&now_ms, 40 * hour);
  expect(purge(other),
         "\"conversations\":1,\"sessions\":0,\"sessions_ended\":0,\"versions\":1,\"events\":0}");
  assert_int_equal(stored_versions("versions.db"), 2);
  expect(say(h, second, "\"Dot\""), "welcome Dot");
  expect(begin(h, "talk"), "third nobody");
  tm_host_free(h);
  tm_host_free(other);
  setting = NULL;
}

typedef struct blocker {
  sem_t reached, go;
} blocker;

static void block(void *ud, const tm_reply *r) {
  blocker *b = ud;
  (void)r;
  (void)sem_post(&b->reached);
  while (sem_wait(&b->go) != 0) {
  }
}

static void blocker_init(blocker *b) {
  assert_int_equal(sem_init(&b->reached, 0, 0), 0);
  assert_int_equal(sem_init(&b->go, 0, 0), 0);
}

static void blocker_wait(blocker *b) {
  while (sem_wait(&b->reached) != 0) {
  }
}

static void blocker_free(blocker *b) {
  (void)sem_destroy(&b->reached);
  (void)sem_destroy(&b->go);
}

/* While one reload runs two more are asked for: a single one answers both, so that the second of
 * them does not see what changes after the answer to the first. */
static void test_reloads_that_wait_become_one(void **state) {
  (void)state;
  blocker first, third;
  blocker_init(&first);
  blocker_init(&third);
  write_system("hello", "");
  tm_host *h = start_host("reload.db");
  answer second = ask_init(), fourth = ask_init();
  tm_host_reload(h, block, &first);
  blocker_wait(&first); /* the others come at once, when the thread is free */
  tm_host_reload(h, on_reply, &second);
  tm_host_reload(h, block, &third);
  tm_host_reload(h, on_reply, &fourth);
  (void)sem_post(&first.go);
  blocker_wait(&third);
  write_system("changed", "");
  (void)sem_post(&third.go);
  ask_wait(&second);
  ask_wait(&fourth);
  expect(begin(h, "talk"), "hello nobody");
  assert_string_equal(second.json, fourth.json);
  expect(second, "\"removed\":[]");
  free(fourth.json);
  expect(reload(h), "\"previous\"");
  expect(begin(h, "talk"), "changed nobody");
  tm_host_free(h);
  blocker_free(&first);
  blocker_free(&third);
}

/* A command in the folder of the system `talk`. */
static void change_talk(const char *how) {
  char command[600];
  (void)snprintf(command, sizeof(command), "cd %s/scripts/talk && %s", dir, how);
  assert_int_equal(system(command), 0);
}

static void expect_said(answer a, const char *code, const char *const *texts) {
  for (; *texts != NULL; texts++)
    if (strstr(a.json, *texts) == NULL) fail_msg("no %s in %s %s", *texts, a.code, a.json);
  expect_error(a, TM_EINVAL, code);
}

/* A folder whose init.lua is missing, or cannot be one, was not removed: nothing changes. */
static void test_folders_without_init(void **state) {
  static const char *const ways[][2] = {
      {"mv init.lua flows.lua", "Lua files, but no init.lua"},
      {"rm init.lua && ln -s gone.lua init.lua", "init.lua is a link to nothing"},
      {"rm init.lua && mkdir init.lua", "init.lua is no regular file"},
      {"cd .. && rm -r talk && ln -s /nowhere/talk talk", "is a link to nothing"},
  };
  char path[300], scripts[300];
  (void)state;
  (void)snprintf(path, sizeof(path), "%s/scripts/talk", dir);
  (void)snprintf(scripts, sizeof(scripts), "%s/scripts", dir);
  for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
    write_system("hello", "");
    tm_host *h = start_host("reload.db");
    change_talk(ways[i][0]);
    const char *const said[] = {path, "'talk'", ways[i][1], NULL};
    expect_said(reload(h), "script.no_init", said);
    expect(begin(h, "talk"), "hello nobody");
    answer a = check(h, scripts);
    assert_has(&a, "script.no_init");
    assert_has(&a, ways[i][1]);
    assert_has(&a, "\"systems\":1,\"errors\":1");
    free(a.json);
    tm_host_free(h);
    (void)snprintf(path, sizeof(path), "rm -rf %s/scripts/talk", dir);
    assert_int_equal(system(path), 0);
    (void)snprintf(path, sizeof(path), "%s/scripts/talk", dir);
  }
}

/* That no system is left is a mistake more likely than a wish. */
static void test_emptied_scripts(void **state) {
  (void)state;
  write_system("hello", "");
  tm_host *h = start_host("reload.db");
  change_talk("mv ../talk ../../talk_away");
  const char *const said[] = {"none of the systems that are loaded (1)", "/scripts", NULL};
  expect_said(reload(h), "script.emptied", said);
  expect(begin(h, "talk"), "hello nobody");
  char back[300];
  (void)snprintf(back, sizeof(back), "mv %s/talk_away %s/scripts/talk", dir, dir);
  assert_int_equal(system(back), 0);
  expect(reload(h), "\"removed\":[]");
  tm_host_free(h);
}

/* A system whose folder is gone takes no new conversations; those that there are go on. */
static void test_a_removed_system_goes_on(void **state) {
  (void)state;
  char id[40], from[300], to[300];
  write_system("hello", "");
  change_talk("mkdir -p ../other && sed s/\"'talk'\"/\"'other'\"/ init.lua >../other/init.lua");
  tm_host *h = start_host("reload.db");
  answer a = begin(h, "talk");
  id_of(&a, id);
  free(a.json);
  (void)snprintf(from, sizeof(from), "%s/scripts/talk", dir);
  (void)snprintf(to, sizeof(to), "%s/talk", dir);
  assert_int_equal(rename(from, to), 0);
  expect(reload(h), "],\"removed\":[\"talk\"]}");
  expect_error(begin(h, "talk"), TM_ENOTFOUND, "system.not_found");
  expect(say(h, id, "\"Ann\""), "hello Ann");
  assert_int_equal(rename(to, from), 0);
  expect(reload(h), "\"previous\":null");
  expect(begin(h, "talk"), "hello nobody");
  tm_host_free(h);
  change_talk("rm -r ../other");
}

/* No file may grow beyond `bytes`, as on a full disk; 0: there is room again. */
static void limit_files(rlim_t bytes) {
  struct rlimit limit;
  (void)signal(SIGXFSZ, SIG_IGN);
  assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
  limit.rlim_cur = bytes != 0 ? bytes : limit.rlim_max;
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

/* A claim of a dead process is left, the disk is full: the host starts, reads, and refuses what it
 * cannot make durable, until there is room. */
static void test_starting_on_a_full_disk(void **state) {
  (void)state;
  char id[40], path[256], big[60000];
  write_system("hello", "");
  tm_host *h = start_host("full.db");
  answer a = begin(h, "talk");
  id_of(&a, id);
  free(a.json);
  memset(big, 'x', sizeof(big));
  big[0] = big[sizeof(big) - 2] = '"';
  big[sizeof(big) - 1] = '\0';
  expect(say(h, id, big), "hello xxx");
  (void)snprintf(path, sizeof(path), "%s/full.db", dir);
  sqlite3 *db; /* keeps the write-ahead log in place, which is longer than the limit below */
  assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
  assert_int_equal(sqlite3_exec(db, "SELECT count(*) FROM heads", NULL, NULL, NULL), SQLITE_OK);
  tm_host_stop(h, 1000);
  tm_host_free(h);
  assert_int_equal(sqlite3_exec(db, "UPDATE heads SET claim='dead', wake_at=1", NULL, NULL, NULL),
                   SQLITE_OK);
  limit_files(32768);
  h = start_host("full.db");
  expect(show(h, id, TM_READ_CONVERSATION), "\"said\":\"xxx");
  expect_error(say(h, id, "\"Bob\""), TM_EUNAVAILABLE, "store.full");
  expect_error(begin(h, "talk"), TM_EUNAVAILABLE, "store.full");
  limit_files(0);
  expect(say(h, id, "\"Bob\""), "hello Bob");
  tm_host_stop(h, 1000);
  tm_host_free(h);
  (void)sqlite3_close(db);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_a_conversation),
      cmocka_unit_test(test_expiry),
      cmocka_unit_test(test_two_hosts_one_store),
      cmocka_unit_test(test_reload_keeps_versions),
      cmocka_unit_test(test_rollback),
      cmocka_unit_test(test_answers_are_counted),
      cmocka_unit_test(test_rollback_is_the_flows_to_allow),
      cmocka_unit_test(test_starting_on_a_full_disk),
      cmocka_unit_test(test_starting_twice_and_wrong_sizes),
      cmocka_unit_test(test_folders_that_are_no_systems),
      cmocka_unit_test(test_sources_go_with_the_last_conversation),
      cmocka_unit_test(test_reloads_that_wait_become_one),
      cmocka_unit_test(test_folders_without_init),
      cmocka_unit_test(test_emptied_scripts),
      cmocka_unit_test(test_a_removed_system_goes_on),
  };
  return cmocka_run_group_tests(tests, setup, teardown);
}
