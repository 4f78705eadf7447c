/* script.h - one hostile script: its header, and the system folder that is made of it.
 *
 * A script is tests/hostile/NAME.lua. Its first lines are comments; these have a meaning:
 *
 *   -- expect: completed [TEXT]       the answer's status, and what the answer contains
 *   -- expect: waiting_input [TEXT]
 *   -- expect: failed CODE [TEXT]     the conversation failed with this error
 *   -- expect: error CODE [TEXT]      the request was refused
 *   -- expect: refused CODE [TEXT]    the host does not start with it, and says file:line
 *   -- say: JSON                      sent while the conversation waits; up to 32 of these
 *   -- as: init                       the script is the whole init.lua
 *   -- as: source                     plain Lua that returns the text of attack.lua
 *   -- link: NAME TARGET              a symbolic link in the system's folder
 *
 * Without `as` the script is a module that returns a function, the body of an action, or a table
 * with steps and what else the system has (agents, settings, variables, config).
 */
#ifndef TM_TESTS_HOSTILE_SCRIPT_H
#define TM_TESTS_HOSTILE_SCRIPT_H

#include <lauxlib.h>
#include <lualib.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SCRIPT_SAYS 32

typedef struct script {
  char name[64];
  char *text;
  char kind[24], code[48], told[400]; /* of expect */
  char as[16];
  char say[SCRIPT_SAYS][400];
  int says;
  char link[64], target[128];
} script;

static const char script_init[] =
    "local tm = require 'tidemill'\n"
    "local a = require 'attack'\n"
    "if type(a) == 'function' then\n"
    "  a = { steps = { tm.ConversationStep { step_id = 'attack', step_type = 'action', run = a,\n"
    "    save_as = 'output', next_steps = { 'show' } },\n"
    "    tm.ConversationStep { step_id = 'show', step_type = 'agent_response', agent = 'shows',\n"
    "      next_steps = { 'end' } } } }\n"
    "end\n"
    "local agents = a.agents or {}\n"
    "agents.shows = { respond = function(ctx) return tostring(ctx.state.output) end }\n"
    "return tm.system { agents = agents, config = a.config, flows = { tm.ConversationFlow {\n"
    "  flow_id = 'attack', pattern = tm.ConversationPattern.STEP_BY_STEP_PROCESS,\n"
    "  start_step = a.steps[1].step_id, steps = a.steps, settings = a.settings,\n"
    "  variables = a.variables } } }\n";

static char *script_read_file(const char *path) {
  FILE *f = fopen(path, "rb");
  if (f == NULL) return NULL;
  char *text = NULL;
  size_t room = 0;
  ssize_t len = getdelim(&text, &room, '\0', f);
  (void)fclose(f);
  if (len >= 0) return text;
  free(text);
  return NULL;
}

static bool script_write_file(const char *dir, const char *name, const char *text, size_t size) {
  char path[512];
  (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
  FILE *f = fopen(path, "wb");
  if (f == NULL) return false;
  bool written = fwrite(text, 1, size, f) == size;
  return fclose(f) == 0 && written;
}

/* ---- the header ---- */

static void script_line(script *s, const char *text) {
  char line[500], rest[400] = "";
  (void)snprintf(line, sizeof(line), "%.*s", (int)strcspn(text, "\n"), text);
  if (sscanf(line, "-- say: %399[^\n]", rest) == 1) {
    if (s->says < SCRIPT_SAYS) memcpy(s->say[s->says], rest, sizeof(rest));
    s->says++;
    return;
  }
  (void)sscanf(line, "-- as: %15s", s->as);
  (void)sscanf(line, "-- link: %63s %127s", s->link, s->target);
  if (sscanf(line, "-- expect: %23s %399[^\n]", s->kind, rest) < 1) return;
  bool has_code = strcmp(s->kind, "completed") != 0 && strcmp(s->kind, "waiting_input") != 0;
  const char *told = rest;
  if (has_code) {
    size_t n = strcspn(rest, " ");
    (void)snprintf(s->code, sizeof(s->code), "%.*s", (int)n, rest);
    told = rest + n + strspn(rest + n, " ");
  }
  (void)snprintf(s->told, sizeof(s->told), "%.*s", (int)sizeof(s->told) - 1, told);
}

/* False: there is no such file, it does not say what is expected, or it says too much. */
static bool script_load(script *s, const char *path) {
  const char *name = strrchr(path, '/');
  *s = (script){0};
  name = name != NULL ? name + 1 : path;
  (void)snprintf(s->name, sizeof(s->name), "%.*s", (int)strcspn(name, "."), name);
  s->text = script_read_file(path);
  for (const char *line = s->text; line != NULL && strncmp(line, "--", 2) == 0;) {
    script_line(s, line);
    const char *end = strchr(line, '\n');
    line = end != NULL ? end + 1 : NULL;
  }
  bool has_code = s->code[0] != '\0';
  if (s->says > SCRIPT_SAYS) return false;
  return has_code || strcmp(s->kind, "completed") == 0 || strcmp(s->kind, "waiting_input") == 0;
}

/* ---- the folder ---- */

static bool script_write_source(const script *s, const char *dir) {
  lua_State *L = luaL_newstate();
  if (L == NULL) return false;
  luaL_openlibs(L);
  bool done = false;
  if (luaL_dostring(L, s->text) == LUA_OK && lua_type(L, -1) == LUA_TSTRING) {
    size_t size;
    const char *source = lua_tolstring(L, -1, &size);
    done = script_write_file(dir, "attack.lua", source, size);
  } else {
    (void)fprintf(stderr, "%s: %s\n", s->name, lua_tostring(L, -1));
  }
  lua_close(L);
  return done;
}

static bool script_write(const script *s, const char *dir) {
  char link[512];
  if (mkdir(dir, 0700) != 0) return false;
  (void)snprintf(link, sizeof(link), "%s/%s", dir, s->link);
  if (s->link[0] != '\0' && symlink(s->target, link) != 0) return false;
  if (strcmp(s->as, "init") == 0)
    return script_write_file(dir, "init.lua", s->text, strlen(s->text));
  if (!script_write_file(dir, "init.lua", script_init, sizeof(script_init) - 1)) return false;
  if (strcmp(s->as, "source") == 0) return script_write_source(s, dir);
  return script_write_file(dir, "attack.lua", s->text, strlen(s->text));
}

#endif
