/* Steering through the public library: what a wrong call is told, what is over or unknown, and
 * cancelling. What commands and signals mean to a flow is the runtime's (tests/lua). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sys/stat.h>
#include <unistd.h>

#include "asks.h"
#include "tests/provoke.h"
#include "tests/scratch.h"

static char dir[40];
static const char none[] = "01890000-0000-7000-8000-000000000000";
static asks all = {.lock = PTHREAD_MUTEX_INITIALIZER, .come = PTHREAD_COND_INITIALIZER};
static tm_host *host;

/* ---- a host ---- */

static void write_file(const char *name, const char *text) {
  char path[128];
  (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
  FILE *f = fopen(path, "w");
  assert_non_null(f);
  assert_true(fputs(text, f) >= 0);
  assert_int_equal(fclose(f), 0);
}

/* A system whose only step always fails. */
#define FRAGILE(name, more)                                                                        \
  "local tm = require 'tidemill'\n"                                                                \
  "return tm.system { name = '" name "', " more "\n"                                               \
  "  agents = { bot = { respond = function() error('odd') end } },\n"                              \
  "  flows = { tm.ConversationFlow { flow_id = 'ask', start_step = 'say',\n"                       \
  "    settings = { resume_on_failure = true },\n"                                                 \
  "    steps = { tm.ConversationStep { step_id = 'say', step_type = 'agent_response',\n"           \
  "      agent = 'bot', next_steps = { 'end' } } } } } }\n"

static bool make_folder(const char *name) {
  char path[128];
  (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
  return mkdir(path, 0700) == 0;
}

/* Two at a time have each their own store. */
static int start_host(const char *store_name, const char *setting) {
  char path[128], scripts[128], store[192];
  (void)snprintf(path, sizeof(path), "%s/config.yaml", dir);
  (void)snprintf(scripts, sizeof(scripts), "scripts=%s", dir);
  (void)snprintf(store, sizeof(store), "workflow_persistence.sqlite.database_path=%s/%s", dir,
                 store_name);
  const char *set[] = {scripts, store, "server.workers=1", setting, NULL};
  tm_options o = TM_OPTIONS_INIT;
  o.config_file = path;
  o.set = set;
  tm_error err;
  if (tm_host_new(&host, &o, &err) == TM_OK && tm_host_start(host, &err) == TM_OK) return 0;
  print_error("%s\n", err.message);
  return -1;
}

static int open_host(void **state) {
  (void)state;
  if (!scratch_make(dir, sizeof(dir), "steering")) return -1;
  if (!make_folder("desk") || !make_folder("fragile") || !make_folder("held")) return -1;
  write_file("config.yaml", "log:\n  level: error\n"
                            "orchestrator:\n  error_config:\n    auto_recovery: true\n"
                            "    fallback_responses:\n      agent_error: Odd.\n");
  write_file("fragile/init.lua", FRAGILE("fragile", ""));
  write_file("held/init.lua", FRAGILE("held", "orchestrator = { error_config = {\n"
                                              "  auto_recovery = false } },"));
  write_file("desk/init.lua",
             "local tm = require 'tidemill'\n"
             "return tm.system { name = 'desk', agents = {}, flows = { tm.ConversationFlow {\n"
             "  flow_id = 'ask', start_step = 'ask', steps = { tm.ConversationStep {\n"
             "    step_id = 'ask', step_type = 'user_input', prompt = 'So?', save_as = 'said',\n"
             "    input_schema = { type = 'text', required = true }, next_steps = { 'ask' }\n"
             "  } } } } }\n");
  return start_host("s.db", NULL);
}

static int close_host(void **state) {
  char command[128];
  (void)state;
  tm_host_free(host);
  (void)snprintf(command, sizeof(command), "rm -rf %s", dir);
  return system(command);
}

/* ---- asking ---- */

static ask *begin_in(const char *system, char id[40]) {
  ask *a = ask_new(&all);
  tm_begin b = TM_BEGIN_INIT;
  b.system = system;
  b.flow_id = "ask";
  tm_conversation_begin(host, &b, ask_reply, a);
  (void)ask_wait(a);
  if (a->status != TM_OK) fail_msg("%s: %s", a->code, a->message);
  (void)snprintf(id, 40, "%.36s", strstr(a->json, "\"conversation_id\":\"") + 19);
  return a;
}

static void begin(char id[40]) {
  (void)begin_in("desk", id);
}

static ask *command(const tm_command *c) {
  ask *a = ask_new(&all);
  tm_conversation_command(host, c, ask_reply, a);
  return ask_wait(a);
}

static ask *approve(const tm_approval *v) {
  ask *a = ask_new(&all);
  tm_conversation_approve(host, v, ask_reply, a);
  return ask_wait(a);
}

static ask *tell(const tm_event *e) {
  ask *a = ask_new(&all);
  tm_conversation_event(host, e, ask_reply, a);
  return ask_wait(a);
}

typedef void (*bare_fn)(tm_host *, const char *, const char *, tm_reply_fn, void *);

static ask *bare(bare_fn fn, const char *tenant, const char *id) {
  ask *a = ask_new(&all);
  fn(host, tenant, id, ask_reply, a);
  return ask_wait(a);
}

#define assert_refused(a, expected, code_text, part)                                               \
  do {                                                                                             \
    const ask *ask_ = (a);                                                                         \
    if (ask_->status != (expected) || strcmp(ask_->code, code_text) != 0 ||                        \
        strstr(ask_->message, part) == NULL)                                                       \
      fail_msg("%d %s: %s", (int)ask_->status, ask_->code, ask_->message);                         \
    provoke_note(code_text);                                                                       \
  } while (0)

/* ---- wrong calls ---- */

static void test_wrong_commands(void **state) {
  (void)state;
  char id[40], long_name[66];
  begin(id);
  memset(long_name, 'n', sizeof(long_name));
  long_name[65] = '\0';
  const struct {
    const char *command, *name, *input, *key, *code, *part;
  } wrong[] = {
      {NULL, NULL, NULL, NULL, "command.unknown", "\"\""},
      {"", NULL, NULL, NULL, "command.unknown", "\"\""},
      {"Back", NULL, NULL, NULL, "command.unknown", "known are back, skip"},
      {"correct", NULL, NULL, NULL, "request.invalid", "wants a name and an input"},
      {"correct", "colour", NULL, NULL, "request.invalid", "wants a name and an input"},
      {"correct", NULL, "\"red\"", NULL, "request.invalid", "wants a name and an input"},
      {"back", "colour", NULL, NULL, "request.invalid", "belong to the command \"correct\""},
      {"back", NULL, "\"red\"", NULL, "request.invalid", "belong to the command \"correct\""},
      {"correct", "", "\"red\"", NULL, "request.invalid", "name must have 1 to 64 bytes"},
      {"correct", long_name, "\"red\"", NULL, "request.invalid", "name must have 1 to 64 bytes"},
      {"correct", "colour", "3", NULL, "request.invalid", "a string, or an object"},
      {"correct", "colour", "{", NULL, "json.invalid", ""},
      {"back", NULL, NULL, "", "request.invalid", "the idempotency key"},
  };
  for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
    tm_command c = TM_COMMAND_INIT;
    c.conversation_id = id;
    c.command = wrong[i].command;
    c.name = wrong[i].name;
    c.input_json = wrong[i].input;
    c.idempotency_key = wrong[i].key;
    assert_refused(command(&c), TM_EINVAL, wrong[i].code, wrong[i].part);
  }
  tm_command old = {.size = sizeof(old) - 1, .conversation_id = id, .command = "back"};
  assert_refused(command(&old), TM_EINVAL, "options.size", "TM_COMMAND_INIT");
}

static void test_wrong_approvals(void **state) {
  (void)state;
  char id[40], comment[4098];
  begin(id);
  memset(comment, 'c', sizeof(comment));
  comment[4097] = '\0';
  tm_approval a = TM_APPROVAL_INIT;
  a.conversation_id = id;
  a.comment = comment;
  assert_refused(approve(&a), TM_EINVAL, "request.invalid", "4096 bytes of UTF-8, this one has");
  a.comment = "\xff";
  assert_refused(approve(&a), TM_EINVAL, "request.invalid", "comment");
  a.comment = NULL;
  a.role = "";
  assert_refused(approve(&a), TM_EINVAL, "request.invalid", "role must have 1 to 64 bytes");
  a.role = "boss\n";
  assert_refused(approve(&a), TM_EINVAL, "request.invalid", "role has a control character");
  a.role = "boss";
  a.revision = -1;
  assert_refused(approve(&a), TM_EINVAL, "request.invalid", "a positive number");
  a.revision = 0;
  a.user_id = "";
  assert_refused(approve(&a), TM_EINVAL, "request.invalid", "user_id must have 1 to 128 bytes");
  a.size = 3;
  assert_refused(approve(&a), TM_EINVAL, "options.size", "TM_APPROVAL_INIT");
}

static void test_wrong_events(void **state) {
  (void)state;
  char id[40];
  begin(id);
  tm_event e = TM_EVENT_INIT;
  e.conversation_id = id;
  assert_refused(tell(&e), TM_EINVAL, "request.invalid", "name must have 1 to 64 bytes");
  e.name = "paid";
  e.data_json = "{\"a\":1,\"a\":2}";
  assert_refused(tell(&e), TM_EINVAL, "json.invalid", "");
  e.data_json = "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]";
  assert_refused(tell(&e), TM_EINVAL, "json.depth", "");
  e.size = 3;
  assert_refused(tell(&e), TM_EINVAL, "options.size", "TM_EVENT_INIT");
}

static ask *mark(const char *tenant, const char *id, const char *name) {
  ask *a = ask_new(&all);
  tm_conversation_checkpoint(host, tenant, id, name, NULL, ask_reply, a);
  return ask_wait(a);
}

static void test_names_of_checkpoints(void **state) {
  (void)state;
  char id[40], longest[66];
  static const char *const wrong[] = {NULL, "", "1st", "a b", "a-b", "\xc3\xa4"};
  begin(id);
  for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
    assert_refused(mark(NULL, id, wrong[i]), TM_EINVAL, "request.invalid", "1 to 64 letters");
  memset(longest, 'x', sizeof(longest));
  longest[65] = '\0';
  assert_refused(mark(NULL, id, longest), TM_EINVAL, "request.invalid", "1 to 64 letters");
  longest[64] = '\0';
  assert_int_equal(mark(NULL, id, longest)->status, TM_OK);
  ask *a = ask_new(&all);
  tm_conversation_fork(host, NULL, id, "a-b", NULL, ask_reply, a);
  assert_refused(ask_wait(a), TM_EINVAL, "request.invalid", "neither the id of a checkpoint nor");
  a = ask_new(&all);
  tm_conversation_fork(host, NULL, id, longest, NULL, ask_reply, a);
  assert_int_equal(ask_wait(a)->status, TM_OK);
  a = ask_new(&all);
  tm_conversation_fork(host, NULL, id, "gone", NULL, ask_reply, a);
  assert_refused(ask_wait(a), TM_ENOTFOUND, "checkpoint.not_found", "has no checkpoint gone");
}

/* ---- what is unknown, of others, or over ---- */

static ask *steer(int which, const char *tenant, const char *id) {
  static const bare_fn plain[] = {tm_conversation_pause, tm_conversation_resume,
                                  tm_conversation_cancel};
  if (which < 3) return bare(plain[which], tenant, id);
  if (which == 6) return mark(tenant, id, "here");
  tm_command c = TM_COMMAND_INIT;
  tm_approval v = TM_APPROVAL_INIT;
  tm_event e = TM_EVENT_INIT;
  c.tenant = v.tenant = e.tenant = tenant;
  c.conversation_id = v.conversation_id = e.conversation_id = id;
  c.command = "back";
  e.name = "paid";
  return which == 3 ? command(&c) : which == 4 ? approve(&v) : tell(&e);
}

static void test_unknown(void **state) {
  (void)state;
  char id[40];
  begin(id);
  for (int i = 0; i < 7; i++) {
    assert_refused(steer(i, NULL, none), TM_ENOTFOUND, "conversation.not_found", none);
    assert_refused(steer(i, NULL, "paper"), TM_ENOTFOUND, "conversation.not_found", "paper");
    assert_refused(steer(i, NULL, NULL), TM_ENOTFOUND, "conversation.not_found", "");
    assert_refused(steer(i, "others", id), TM_ENOTFOUND, "conversation.not_found", id);
    assert_refused(steer(i, "", id), TM_EINVAL, "request.invalid", "tenant");
  }
}

static void test_cancel(void **state) {
  (void)state;
  char id[40];
  begin(id);
  ask *first = bare(tm_conversation_cancel, NULL, id);
  assert_int_equal(first->status, TM_OK);
  assert_non_null(strstr(first->json, "\"status\":\"cancelled\""));
  assert_non_null(strstr(first->json, "\"prompt\":null"));
  ask *again = bare(tm_conversation_cancel, NULL, id);
  assert_int_equal(again->status, TM_OK);
  assert_string_equal(first->json, again->json);
  for (int i = 0; i < 7; i++)
    if (i != 2)
      assert_refused(steer(i, NULL, id), TM_ECONFLICT, "conversation.finished", "cancelled");
}

/* ---- failed steps ---- */

#define assert_says(a, part)                                                                       \
  do {                                                                                             \
    if (strstr((a)->json, part) == NULL) fail_msg("no %s in %s", part, (a)->json);                 \
  } while (0)

static void test_failed_step_waits_for_its_user(void **state) {
  (void)state;
  char id[40];
  const ask *a = begin_in("fragile", id);
  assert_says(a, "\"status\":\"waiting_input\"");
  assert_says(a, "\"text\":\"Odd.\",\"provider\":\"fallback\"");
  ask *again = ask_new(&all);
  tm_message_send(host, NULL, id, "\"again\"", NULL, ask_reply, again);
  assert_says(ask_wait(again), "\"current_step\":\"say\",\"replies\":[{\"seq\":4");
}

static void test_failed_step_waits_for_an_operator(void **state) {
  (void)state;
  char id[40];
  const ask *a = begin_in("held", id);
  for (int i = 0; i < 2; i++) {
    assert_says(a, "\"status\":\"paused\"");
    assert_says(a, "\"current_step\":\"say\"");
    assert_says(a, "\"code\":\"script.error\"");
    a = bare(tm_conversation_resume, NULL, id);
  }
  ask *read = ask_new(&all);
  tm_conversation_read(host, NULL, id, TM_READ_CONVERSATION, NULL, 0, ask_reply, read);
  a = ask_wait(read);
  assert_says(a, "\"status\":\"paused\"");
  assert_says(a, "odd\",\"step_id\":\"say\"");
}

/* Its user comes, or its deadline, whichever is first. */
static void test_conversation_that_lasted_too_long(void **state) {
  (void)state;
  tm_host *running = host;
  char id[40];
  assert_int_equal(
      start_host("short.db", "orchestrator.performance_config.max_workflow_duration=1ms"), 0);
  begin(id);
  ask *a;
  do {
    a = ask_new(&all);
    tm_message_send(host, NULL, id, "\"more\"", NULL, ask_reply, a);
    (void)ask_wait(a);
  } while (a->status == TM_OK && strstr(a->json, "\"status\":\"waiting_input\"") != NULL);
  if (a->status != TM_OK) assert_refused(a, TM_ECONFLICT, "conversation.finished", "expired");
  a = ask_new(&all);
  tm_conversation_read(host, NULL, id, TM_READ_CONVERSATION, NULL, 0, ask_reply, a);
  assert_says(ask_wait(a), "\"status\":\"expired\"");
  assert_says(a, "\"code\":\"flow.timeout\"");
  tm_host_free(host);
  host = running;
}

static void test_host_that_does_not_run(void **state) {
  (void)state;
  tm_error err;
  tm_host *running = host;
  char path[128];
  tm_options o = TM_OPTIONS_INIT;
  (void)snprintf(path, sizeof(path), "%s/config.yaml", dir);
  o.config_file = path;
  assert_int_equal(tm_host_new(&host, &o, &err), TM_OK);
  for (int i = 0; i < 7; i++)
    assert_refused(steer(i, NULL, none), TM_EUNAVAILABLE, "host.stopping", "not been started");
  tm_host_free(host);
  host = running;
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_wrong_commands),
      cmocka_unit_test(test_wrong_approvals),
      cmocka_unit_test(test_wrong_events),
      cmocka_unit_test(test_names_of_checkpoints),
      cmocka_unit_test(test_unknown),
      cmocka_unit_test(test_cancel),
      cmocka_unit_test(test_failed_step_waits_for_its_user),
      cmocka_unit_test(test_failed_step_waits_for_an_operator),
      cmocka_unit_test(test_conversation_that_lasted_too_long),
      cmocka_unit_test(test_host_that_does_not_run),
  };
  int failed = cmocka_run_group_tests(tests, open_host, close_host);

  return failed + (int)asks_end(&all);
}
