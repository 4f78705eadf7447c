/* The annotation files are the manual of host.*: they name exactly what the C modules export. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <lualib.h>
#include <stdio.h>
#include <string.h>

#include "bind/bind.h"

#define FOLDER "lua/meta/host"

static const luaL_Reg modules[] = {
#define MODULE(name) {#name, tm__open_##name},
#include "bind/modules.def"
#undef MODULE
    {NULL, NULL},
};

static tm_vm vm;
static lua_State *L;

static int set_up(void **state) {
  (void)state;
  L = luaL_newstate();
  if (L == NULL) return -1;
  luaL_openlibs(L);
  tm__vm_adopt(&vm, L);
  tm__json_open(L);
  return 0;
}

static int tear_down(void **state) {
  (void)state;
  lua_close(L);
  tm__vm_release(&vm);
  return 0;
}

static void push_documented(const char *name) {
  char path[128];
  (void)snprintf(path, sizeof(path), FOLDER "/%s.lua", name);
  if (luaL_dofile(L, path) != LUA_OK) fail_msg("%s", lua_tostring(L, -1));
  if (!lua_istable(L, -1)) fail_msg("%s returns no table", path);
}

/* Every name of the table at `in` has the same type in the table at `other`. */
static void expect_names(const char *module, int in, int other, const char *problem) {
  lua_pushnil(L);
  while (lua_next(L, in)) {
    lua_pushvalue(L, -2);
    int type = lua_rawget(L, other);
    bool function = lua_isfunction(L, -2);
    if (type == LUA_TNIL || function != (type == LUA_TFUNCTION))
      fail_msg("host.%s.%s is %s", module, lua_tostring(L, -3), problem);
    lua_pop(L, 2);
  }
}

static void test_names(void **state) {
  (void)state;
  for (const luaL_Reg *m = modules; m->name != NULL; m++) {
    push_documented(m->name);
    lua_pushcfunction(L, m->func);
    lua_call(L, 0, 1);
    expect_names(m->name, 1, 2, "documented but not exported as that");
    expect_names(m->name, 2, 1, "exported but not documented as that");
    lua_settop(L, 0);
  }
}

static bool is_module(const char *file) {
  size_t len = strcspn(file, ".");
  for (const luaL_Reg *m = modules; m->name != NULL; m++)
    if (strlen(m->name) == len && memcmp(m->name, file, len) == 0) return true;
  return false;
}

static void test_files(void **state) {
  (void)state;
  DIR *dir = opendir(FOLDER);
  assert_non_null(dir);
  size_t count = 0;
  for (struct dirent *e; (e = readdir(dir)) != NULL;) {
    if (e->d_name[0] == '.') continue;
    if (!is_module(e->d_name)) fail_msg(FOLDER "/%s documents no module", e->d_name);
    count++;
  }
  (void)closedir(dir);
  assert_int_equal(count, sizeof(modules) / sizeof(modules[0]) - 1);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_names), cmocka_unit_test(test_files)};
  return cmocka_run_group_tests(tests, set_up, tear_down);
}
