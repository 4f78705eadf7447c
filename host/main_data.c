/* main_data.c - the commands that ask the library once and print what it answers. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "main.h"

/* ---- check, config ---- */

int run_check(cli *c) {
  int code = open_host(c, false);
  if (code != EXIT_OK) return code;
  answer a;
  answer_init(&a);
  tm_scripts_check(c->host, c->arg, c->args, answer_come, &a);
  json_t *json = answer_json(&a);
  code = json != NULL ? print_answer(c, "check", &a) : EXIT_FAILED;
  if (json_integer_value(json_object_get(json, "errors")) > 0) code = EXIT_FAILED;
  json_decref(json);
  answer_deinit(&a);
  close_host(c);
  return code;
}

/* Asks the library once, and shows what it answers. */
static int show_once(cli *c, const char *view, void (*ask)(cli *c, answer *a)) {
  answer a;
  answer_init(&a);
  ask(c, &a);
  int code = show_answer(c, view, &a);
  answer_deinit(&a);
  return code;
}

/* The same on a host that is started for it. */
static int show_started(cli *c, const char *view, void (*ask)(cli *c, answer *a)) {
  int code = start_host(c, false);
  if (code == EXIT_OK) code = show_once(c, view, ask);
  close_host(c);
  return code;
}

static void read_config(cli *c, answer *a) {
  tm_config_read(c->host, answer_come, a);
}

int run_config(cli *c) {
  int code = open_host(c, true);
  if (code == EXIT_OK) code = show_once(c, "config", read_config);
  close_host(c);
  return code;
}

/* ---- systems, flows ---- */

static void read_systems(cli *c, answer *a) {
  tm_systems_read(c->host, c->tenant, NULL, NULL, answer_come, a);
}

int run_systems(cli *c) {
  return show_started(c, "systems", read_systems);
}

/* Appends the flows of `system` to `items`, each with the system's name. */
static int add_flows(cli *c, const char *system, json_t *items) {
  answer a;
  answer_init(&a);
  tm_systems_read(c->host, c->tenant, system, NULL, answer_come, &a);
  json_t *json = answer_json(&a), *flow;
  answer_deinit(&a);
  if (json == NULL) return EXIT_FAILED;
  size_t i;
  json_array_foreach(json_object_get(json, "items"), i, flow) {
    (void)json_object_set_new(flow, "system", json_string(system));
    (void)json_array_append(items, flow);
  }
  json_decref(json);
  return EXIT_OK;
}

static int add_all_flows(cli *c, json_t *items) {
  answer a;
  answer_init(&a);
  tm_systems_read(c->host, c->tenant, NULL, NULL, answer_come, &a);
  json_t *json = answer_json(&a), *system;
  answer_deinit(&a);
  int code = json != NULL ? EXIT_OK : EXIT_FAILED;
  size_t i;
  json_array_foreach(json_object_get(json, "items"), i, system) {
    if (code == EXIT_OK) code = add_flows(c, json_text(system, "name"), items);
  }
  json_decref(json);
  return code;
}

static int print_json(const json_t *json) {
  (void)json_dumpf(json, stdout, JSON_COMPACT);
  print_text("\n");
  return EXIT_OK;
}

int run_flows(cli *c) {
  int code = start_host(c, false);
  json_t *flows = json_pack("{s:[],s:n}", "items", "next"),
         *items = json_object_get(flows, "items");
  if (code == EXIT_OK)
    code = c->args > 0 ? add_flows(c, c->arg[0], items) : add_all_flows(c, items);
  if (code == EXIT_OK) code = c->json ? print_json(flows) : show(c, "flows", flows);
  json_decref(flows);
  close_host(c);
  return code;
}

/* ---- conversations ---- */

/* A whole number between 1 and `max` into c->number; 0 when it was not given. */
static int read_number(cli *c, const char *option, const char *text, long max) {
  c->number = 0;
  if (text == NULL) return EXIT_OK;
  char *end;
  errno = 0;
  long n = strtol(text, &end, 10);
  if (errno != 0 || *end != '\0' || n < 1 || n > max)
    return usage("--%s wants a whole number from 1 to %ld, not `%s`", option, max, text);
  c->number = (int)n;
  return EXIT_OK;
}

/* As show_started(), of at most --limit items. */
static int show_page(cli *c, const char *view, void (*ask)(cli *c, answer *a)) {
  int code = read_number(c, "limit", c->limit, 200);
  return code == EXIT_OK ? show_started(c, view, ask) : code;
}

static void list_conversations(cli *c, answer *a) {
  tm_filter f = TM_FILTER_INIT;
  f.tenant = c->tenant;
  f.session_id = c->session;
  f.system = c->system;
  f.flow_id = c->flow;
  f.status = c->status;
  f.cursor = c->cursor;
  f.limit = c->number;
  tm_conversation_list(c->host, &f, answer_come, a);
}

int run_conversations(cli *c) {
  return show_page(c, "conversations", list_conversations);
}

static tm_read what_to_read(const char *command) {
  if (strcmp(command, "steps") == 0) return TM_READ_STEPS;
  if (strcmp(command, "messages") == 0) return TM_READ_MESSAGES;
  if (strcmp(command, "checkpoints") == 0) return TM_READ_CHECKPOINTS;
  return TM_READ_CONVERSATION;
}

static void read_conversation(cli *c, answer *a) {
  tm_conversation_read(c->host, c->tenant, c->arg[0], what_to_read(c->command), c->cursor,
                       c->number, answer_come, a);
}

int run_conversation(cli *c) {
  bool whole = what_to_read(c->command) == TM_READ_CONVERSATION;
  return show_page(c, whole ? "conversation" : c->command, read_conversation);
}

static void roll_back(cli *c, answer *a) {
  tm_conversation_rollback(c->host, c->tenant, c->arg[0], c->number, c->checkpoint, c->force, NULL,
                           answer_come, a);
}

int run_rollback(cli *c) {
  if ((c->steps == NULL) == (c->checkpoint == NULL))
    return usage("`conversations rollback` wants either --steps N or --checkpoint ID");
  int code = read_number(c, "steps", c->steps, 1000000);
  return code == EXIT_OK ? show_started(c, "turn", roll_back) : code;
}

/* ---- steering ---- */

static void steer(cli *c, answer *a) {
  if (strcmp(c->command, "pause") == 0) {
    tm_conversation_pause(c->host, c->tenant, c->arg[0], answer_come, a);
  } else if (strcmp(c->command, "checkpoint") == 0) {
    tm_conversation_checkpoint(c->host, c->tenant, c->arg[0], c->arg[1], NULL, answer_come, a);
  } else if (strcmp(c->command, "resume") == 0) {
    tm_conversation_resume(c->host, c->tenant, c->arg[0], answer_come, a);
  } else {
    tm_conversation_cancel(c->host, c->tenant, c->arg[0], answer_come, a);
  }
}

static void decide(cli *c, answer *a) {
  tm_approval v = TM_APPROVAL_INIT;
  v.tenant = c->tenant;
  v.conversation_id = c->arg[0];
  v.approved = strcmp(c->command, "approve") == 0;
  v.revision = c->number;
  v.comment = c->comment;
  v.role = c->role;
  v.user_id = c->user;
  tm_conversation_approve(c->host, &v, answer_come, a);
}

static void tell(cli *c, answer *a) {
  tm_event e = TM_EVENT_INIT;
  e.tenant = c->tenant;
  e.conversation_id = c->arg[0];
  e.name = c->arg[1];
  e.data_json = c->data;
  tm_conversation_event(c->host, &e, answer_come, a);
}

static void fork_it(cli *c, answer *a) {
  tm_conversation_fork(c->host, c->tenant, c->arg[0], c->checkpoint, NULL, answer_come, a);
}

int run_fork(cli *c) {
  return show_started(c, "fork", fork_it);
}

int run_steer(cli *c) {
  return show_started(c, "turn", steer);
}

int run_approval(cli *c) {
  int code = read_number(c, "revision", c->revision, INT_MAX);
  return code == EXIT_OK ? show_started(c, "turn", decide) : code;
}

int run_event(cli *c) {
  return show_started(c, "turn", tell);
}

/* ---- sessions ---- */

static void list_sessions(cli *c, answer *a) {
  tm_session_list(c->host, c->tenant, c->status, c->cursor, c->number, answer_come, a);
}

int run_sessions(cli *c) {
  return show_page(c, "sessions", list_sessions);
}

static void one_session(cli *c, answer *a) {
  bool ends = strcmp(c->command, "end") == 0;
  (ends ? tm_session_end : tm_session_read)(c->host, c->tenant, c->arg[0], answer_come, a);
}

int run_session(cli *c) {
  return show_started(c, "session", one_session);
}

/* ---- events that were not delivered ---- */

static void list_outbox(cli *c, answer *a) {
  tm_outbox_list(c->host, c->tenant, c->status, c->cursor, c->number, answer_come, a);
}

int run_outbox(cli *c) {
  return show_page(c, "outbox", list_outbox);
}

static void retry_event(cli *c, answer *a) {
  tm_outbox_retry(c->host, c->tenant, c->arg[0], answer_come, a);
}

int run_outbox_retry(cli *c) {
  return show_started(c, "event", retry_event);
}

/* ---- retention ---- */

static void purge(cli *c, answer *a) {
  tm_host_purge(c->host, c->dry_run ? 1 : 0, answer_come, a);
}

static void purge_tenant(cli *c, answer *a) {
  tm_tenant_purge(c->host, c->tenant, c->dry_run ? 1 : 0, answer_come, a);
}

static int run_tenant_purge(cli *c) {
  if (!c->force && !c->dry_run)
    return usage("`purge --tenant` removes everything of the tenant for ever: look with --dry-run, "
                 "then say --force");
  int code = open_host(c, false);
  if (code == EXIT_OK) code = show_once(c, "purge", purge_tenant);
  close_host(c);
  return code;
}

int run_purge(cli *c) {
  if (c->tenant != NULL) return run_tenant_purge(c);
  if (c->force) return usage("`purge` takes --force with --tenant only");
  return show_started(c, "purge", purge);
}

/* ---- the running server ---- */

static void reload(cli *c, answer *a) {
  tm_server_reload(c->host, c->listen, answer_come, a);
}

int run_reload(cli *c) {
  int code = open_host(c, false);
  if (code == EXIT_OK) code = show_once(c, "reload", reload);
  close_host(c);
  return code;
}
