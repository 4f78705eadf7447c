/* Sessions and retention through the public library: rules of a system, idle sessions that end by
 * the clock, purges, all of it refused by a host that does not run. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/provoke.h"
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
  assert_int_equal(a->done, 0);
  a->done = 1;
  a->status = r->status;
  a->json = strdup(r->status == TM_OK ? r->json : r->error->message);
  (void)snprintf(a->code, sizeof(a->code), "%s", r->status == TM_OK ? "" : r->error->code);
  (void)pthread_cond_signal(&a->come);
  (void)pthread_mutex_unlock(&a->lock);
}

static answer asked(void) {
  return (answer){.lock = PTHREAD_MUTEX_INITIALIZER, .come = PTHREAD_COND_INITIALIZER};
}

static void await(answer *a) {
  (void)pthread_mutex_lock(&a->lock);
  while (!a->done)
    (void)pthread_cond_wait(&a->come, &a->lock);
  (void)pthread_mutex_unlock(&a->lock);
}

static answer begin(tm_host *h, const char *session) {
  answer a = asked();
  tm_begin b = TM_BEGIN_INIT;
  b.system = "desk";
  b.flow_id = "ask";
  b.session_id = session;
  tm_conversation_begin(h, &b, on_reply, &a);
  await(&a);
  return a;
}

static answer finish(tm_host *h, const char *id) {
  answer a = asked();
  tm_message_send(h, NULL, id, "\"yes\"", NULL, on_reply, &a);
  await(&a);
  return a;
}

static answer show(tm_host *h, const char *session) {
  answer a = asked();
  tm_session_read(h, NULL, session, on_reply, &a);
  await(&a);
  return a;
}

static answer end(tm_host *h, const char *session) {
  answer a = asked();
  tm_session_end(h, NULL, session, on_reply, &a);
  await(&a);
  return a;
}

static answer list(tm_host *h, const char *status, const char *cursor) {
  answer a = asked();
  tm_session_list(h, NULL, status, cursor, 0, on_reply, &a);
  await(&a);
  return a;
}

static answer purge(tm_host *h, int dry) {
  answer a = asked();
  tm_host_purge(h, dry, on_reply, &a);
  await(&a);
  return a;
}

static void expect(answer a, const char *text) {
  if (a.status != TM_OK || strstr(a.json, text) == NULL)
    fail_msg("no %s in %s %s", text, a.code, a.json);
  free(a.json);
}

static void expect_error(answer a, tm_status status, const char *code) {
  if (a.status != status || strcmp(a.code, code) != 0)
    fail_msg("expected %s, got %d %s %s", code, (int)a.status, a.code, a.json);
  provoke_note(code);
  free(a.json);
}

static void id_of(answer a, char id[40]) {
  const char *p = strstr(a.json, "\"conversation_id\":\"");
  if (a.status != TM_OK || p == NULL) {
    fail_msg("%s %s", a.code, a.json);
    return;
  }
  memcpy(id, p + 19, 36);
  id[36] = '\0';
  free(a.json);
}

/* ---- places and hosts ---- */

static void write_file(const char *name, const char *text) {
  char path[256];
  (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
  FILE *f = fopen(path, "w");
  assert_non_null(f);
  assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
  assert_int_equal(fclose(f), 0);
}

/* A system `desk` whose orchestrator says `rules` about sessions. */
static void write_system(const char *rules) {
  char path[256], text[2048];
  (void)snprintf(path, sizeof(path), "%s/scripts", dir);
  (void)mkdir(path, 0700);
  (void)snprintf(path, sizeof(path), "%s/scripts/desk", dir);
  (void)mkdir(path, 0700);
  (void)snprintf(
      text, sizeof(text),
      "local tm = require 'tidemill'\n"
      "return tm.system { agents = {}, orchestrator = { session_config = { %s } },\n"
      "  flows = { tm.ConversationFlow { flow_id = 'ask', start_step = 'ask', end_steps = { 'ask' "
      "},\n"
      "    settings = { enable_rollback = true }, steps = {\n"
      "    tm.ConversationStep { step_id = 'ask', step_type = 'user_input', prompt = 'So?',\n"
      "      input_schema = { type = 'text', required = true } } } } } }\n",
      rules);
  write_file("scripts/desk/init.lua", text);
}

static tm_host *new_host(const char *db, const char *setting) {
  char config[256], scripts[256], path[256];
  (void)snprintf(config, sizeof(config), "%s/agent_config.yaml", dir);
  (void)snprintf(scripts, sizeof(scripts), "scripts=%s/scripts", dir);
  (void)snprintf(path, sizeof(path), "workflow_persistence.sqlite.database_path=%s/%s", dir, db);
  const char *set[] = {scripts, path, "server.workers=2", setting, NULL};
  write_file("agent_config.yaml", "log:\n  level: error\n");
  tm_options o = TM_OPTIONS_INIT;
  o.config_file = config;
  o.set = set;
  o.clock = turned_clock;
  tm_error err;
  tm_host *h = NULL;
  if (tm_host_new(&h, &o, &err) != TM_OK) fail_msg("%s", err.message);
  return h;
}

static tm_host *start_host(const char *db, const char *setting) {
  tm_host *h = new_host(db, setting);
  tm_error err;
  if (tm_host_start(h, &err) != TM_OK) fail_msg("%s", err.message);
  return h;
}

static int setup(void **state) {
  (void)state;
  return !scratch_make(dir, sizeof(dir), "sessions");
}

static int teardown(void **state) {
  char command[128];
  (void)state;
  (void)snprintf(command, sizeof(command), "rm -rf %s", dir);
  return system(command);
}

/* ---- tests ---- */

/* Looks until the janitor, which is told of the turned clock, has been there. */
static void expect_soon(tm_host *h, const char *session, const char *text) {
  for (;;) {
    tm_host_wake(h);
    answer a = show(h, session);
    bool found = strstr(a.status == TM_OK ? a.json : a.code, text) != NULL;
    free(a.json);
    if (found) return;
  }
}

static void test_a_systems_own_rules(void **state) {
  (void)state;
  char id[40];
  write_system("max_concurrent_sessions = 1, session_prefix = 'desk_', idle_session_timeout = 60,"
               " session_cleanup_interval = 1");
  tm_host *h = start_host("rules.db", "orchestrator.session_config.max_concurrent_sessions=9");
  answer a = begin(h, NULL);
  assert_non_null(strstr(a.json, "\"session_id\":\"desk_"));
  char session[64] = "";
  (void)sscanf(strstr(a.json, "\"session_id\":\"") + 14, "%63[^\"]", session);
  id_of(a, id);
  expect_error(begin(h, "other"), TM_ELIMIT, "session.limit");
  expect(show(h, session), "\"open_conversations\":1");
  atomic_fetch_add(&now_ms, 60000); /* the conversation is open: so is the session */
  expect_error(begin(h, "other"), TM_ELIMIT, "session.limit");
  expect(finish(h, id), "\"status\":\"completed\"");
  atomic_fetch_add(&now_ms, 59999);
  tm_host_wake(h);
  expect(show(h, session), "\"status\":\"open\"");
  atomic_fetch_add(&now_ms, 60001);
  expect_soon(h, session, "\"status\":\"ended\"");
  expect(begin(h, "other"), "\"session_id\":\"other\"");
  tm_host_free(h);
}

/* A limit refuses starts; what operators do opens a session again. */
static void test_limits_no_operator(void **state) {
  (void)state;
  char id[40], other[40];
  write_system("max_concurrent_sessions = 1");
  tm_host *h = start_host("operator.db", NULL);
  for (int i = 0; i < 2; i++) {
    char session[8] = {(char)('a' + i)};
    answer again = asked();
    id_of(begin(h, session), id);
    expect(finish(h, id), "\"status\":\"completed\"");
    expect(end(h, session), "\"status\":\"ended\"");
    id_of(begin(h, "other"), other);
    if (i == 0)
      tm_conversation_rollback(h, NULL, id, 1, NULL, 0, NULL, on_reply, &again);
    else
      tm_conversation_fork(h, NULL, id, NULL, NULL, on_reply, &again);
    await(&again);
    expect(again, "\"status\":\"waiting_input\"");
    expect(show(h, session), "\"status\":\"open\"");
    expect_error(begin(h, "third"), TM_ELIMIT, "session.limit");
    expect(end(h, session), "\"status\":\"ended\"");
    expect(end(h, "other"), "\"status\":\"ended\"");
  }
  tm_host_free(h);
}

static void test_goes_by_the_clock(void **state) {
  (void)state;
  char id[40], open[40];
  write_system("");
  tm_host *h = start_host("clock.db", "workflow_persistence.retention.session_ttl=1d");
  id_of(begin(h, "gone"), id);
  id_of(begin(h, "open"), open);
  expect(finish(h, id), "completed");
  atomic_fetch_add(&now_ms, INT64_C(86400000));
  expect_soon(h, "gone", "session.not_found");
  provoke_note("session.not_found");
  expect_error(finish(h, id), TM_ENOTFOUND, "conversation.not_found");
  expect(show(h, "open"), "\"status\":\"open\"");
  expect(finish(h, open), "completed");
  tm_host_free(h);
}

static void test_purges_at_once(void **state) {
  (void)state;
  char id[40];
  write_system("");
  tm_host *h = start_host("purge.db", "workflow_persistence.retention.conversation_ttl=30d");
  id_of(begin(h, "s"), id);
  expect(finish(h, id), "completed");
  expect(purge(h, 0), "\"conversations\":0");
  atomic_fetch_add(&now_ms, 30 * INT64_C(86400000));
  expect(purge(h, 1), "{\"dry_run\":true,\"conversations\":1,");
  expect(purge(h, 0), "{\"dry_run\":false,\"conversations\":1,");
  expect(purge(h, 0), "\"conversations\":0");
  expect(show(h, "s"), "\"status\":\"open\""); /* nobody said when sessions go */
  expect(end(h, "s"), "\"status\":\"ended\"");
  expect(list(h, "open", NULL), "{\"items\":[],\"next\":null}");
  expect(list(h, "ended", NULL), "\"session_id\":\"s\"");
  tm_host_free(h);
}

static void test_wrong_questions(void **state) {
  (void)state;
  char longest[140];
  memset(longest, 'x', sizeof(longest) - 1);
  longest[sizeof(longest) - 1] = '\0';
  write_system("");
  tm_host *h = new_host("wrong.db", NULL);
  expect_error(show(h, "s"), TM_EUNAVAILABLE, "host.stopping");
  expect_error(end(h, "s"), TM_EUNAVAILABLE, "host.stopping");
  expect_error(list(h, NULL, NULL), TM_EUNAVAILABLE, "host.stopping");
  expect_error(purge(h, 0), TM_EUNAVAILABLE, "host.stopping");
  tm_error err;
  assert_int_equal(tm_host_start(h, &err), TM_OK);
  static const char *const nobody[] = {"", "s", NULL};
  for (int i = 0; i < 3; i++) {
    expect_error(show(h, nobody[i]), TM_ENOTFOUND, "session.not_found");
    expect_error(end(h, nobody[i]), TM_ENOTFOUND, "session.not_found");
  }
  expect_error(show(h, longest), TM_ENOTFOUND, "session.not_found");
  expect_error(end(h, longest), TM_ENOTFOUND, "session.not_found");
  expect_error(list(h, "odd", NULL), TM_EINVAL, "request.invalid");
  static const char *const cursors[] = {"x", "-61",   "1-",    "1-6",  "1-6g",
                                        "-", "1-61 ", " 1-61", "1_61", "11112222333344445-61"};
  for (size_t i = 0; i < sizeof(cursors) / sizeof(cursors[0]); i++)
    expect_error(list(h, NULL, cursors[i]), TM_EINVAL, "cursor.invalid");
  tm_host_free(h);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_a_systems_own_rules), cmocka_unit_test(test_limits_no_operator),
      cmocka_unit_test(test_goes_by_the_clock),   cmocka_unit_test(test_purges_at_once),
      cmocka_unit_test(test_wrong_questions),
  };
  return cmocka_run_group_tests(tests, setup, teardown);
}
