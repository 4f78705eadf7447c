/* main_migrate.c - `conversations migrate`: of one conversation, or of all of a system that wait.
 */
#include <stdio.h>
#include <string.h>

#include "main.h"

#define PAGE 200

typedef struct fleet { /* of all conversations of a system */
  cli *c;
  char version[64]; /* the current one */
  json_t *items;
  json_int_t moved, refused;
} fleet;

/* ---- one ---- */

static int migrate_one(cli *c) {
  answer a;
  answer_init(&a);
  tm_conversation_migrate(c->host, c->tenant, c->arg[0], c->dry_run ? 1 : 0, answer_come, &a);
  int code = show_answer(c, "turn", &a);
  answer_deinit(&a);
  return code;
}

/* ---- all ---- */

static json_t *read_systems(const fleet *f, const char *name) {
  answer a;
  answer_init(&a);
  tm_systems_read(f->c->host, f->c->tenant, name, NULL, answer_come, &a);
  json_t *json = answer_json(&a);
  answer_deinit(&a);
  return json;
}

static int find_version(fleet *f) {
  json_t *named = read_systems(f, f->c->system); /* says so when there is none */
  json_t *json = named != NULL ? read_systems(f, NULL) : NULL, *system;
  json_decref(named);
  if (json == NULL) return EXIT_FAILED;
  size_t i;
  json_array_foreach(json_object_get(json, "items"), i, system) {
    if (strcmp(json_text(system, "name"), f->c->system) == 0)
      (void)snprintf(f->version, sizeof(f->version), "%s", json_text(system, "version"));
  }
  json_decref(json);
  return EXIT_OK;
}

static void add(fleet *f, const json_t *item, const tm_error *err) {
  json_t *one = json_object();
  (void)json_object_set_new(one, "conversation_id",
                            json_string(json_text(item, "conversation_id")));
  (void)json_object_set_new(one, "from_version", json_string(json_text(item, "flow_version")));
  (void)json_object_set_new(one, "current_step", json_string(json_text(item, "current_step")));
  if (err != NULL) {
    (void)json_object_set_new(one, "code", json_string(err->code));
    (void)json_object_set_new(one, "message", json_string(err->message));
  }
  (void)json_array_append_new(f->items, one);
  f->moved += err == NULL;
  f->refused += err != NULL;
}

static bool is_one_of(const char *text, const char *const *list) {
  for (; *list != NULL; list++)
    if (strcmp(text, *list) == 0) return true;
  return false;
}

/* A turn that is unfinished may take long: that conversation is for the next run. */
static void migrate_listed(fleet *f, const json_t *item) {
  static const char *const over[] = {"completed", "failed", "expired", "cancelled", NULL};
  const char *status = json_text(item, "status");
  if (is_one_of(status, over) || strcmp(json_text(item, "flow_version"), f->version) == 0) return;
  tm_error busy = {.code = "conversation.busy",
                   .message = "a turn of it is unfinished; try again later"};
  if (strcmp(status, "active") == 0) {
    add(f, item, &busy);
    return;
  }
  answer a;
  answer_init(&a);
  tm_conversation_migrate(f->c->host, f->c->tenant, json_text(item, "conversation_id"),
                          f->c->dry_run ? 1 : 0, answer_come, &a);
  add(f, item, answer_wait(&a) == TM_OK ? NULL : &a.error);
  answer_deinit(&a);
}

/* One page; its cursor becomes that of the next one, "" at the end. */
static int migrate_page(fleet *f, char *cursor, size_t size) {
  tm_filter filter = TM_FILTER_INIT;
  filter.tenant = f->c->tenant;
  filter.system = f->c->system;
  filter.limit = PAGE;
  filter.cursor = cursor[0] != '\0' ? cursor : NULL;
  answer a;
  answer_init(&a);
  tm_conversation_list(f->c->host, &filter, answer_come, &a);
  json_t *json = answer_json(&a), *item;
  answer_deinit(&a);
  if (json == NULL) return EXIT_FAILED;
  size_t i;
  json_array_foreach(json_object_get(json, "items"), i, item) {
    migrate_listed(f, item);
  }
  (void)snprintf(cursor, size, "%s", json_text(json, "next"));
  json_decref(json);
  return EXIT_OK;
}

static int show_fleet(fleet *f) {
  json_t *all =
      json_pack("{s:O,s:s,s:b,s:I,s:I}", "items", f->items, "version", f->version, "dry_run",
                f->c->dry_run ? 1 : 0, "migrated", f->moved, "refused", f->refused);
  int code = EXIT_OK;
  if (f->c->json) {
    (void)json_dumpf(all, stdout, JSON_COMPACT);
    print_text("\n");
  } else {
    code = show(f->c, "migrate", all);
  }
  json_decref(all);
  return code == EXIT_OK && f->refused > 0 ? EXIT_FAILED : code;
}

static int migrate_all(cli *c) {
  char cursor[512] = "";
  fleet f = {.c = c, .items = json_array()};
  int code = find_version(&f);
  do {
    if (code == EXIT_OK) code = migrate_page(&f, cursor, sizeof(cursor));
  } while (code == EXIT_OK && cursor[0] != '\0');
  if (code == EXIT_OK) code = show_fleet(&f);
  json_decref(f.items);
  return code;
}

int run_migrate(cli *c) {
  if ((c->args == 1) == (c->system != NULL))
    return usage("`conversations migrate` wants either a conversation or --system NAME");
  int code = start_host(c, false);
  if (code == EXIT_OK) code = c->args == 1 ? migrate_one(c) : migrate_all(c);
  close_host(c);
  return code;
}
