/* What a further version of a shipped system takes in a state beyond the runtime's own code: at
 * most 150 KiB, as much as bench/ may measure of the whole process. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bind/bind.h"

#define MOST ((size_t)150 << 10)

static char folder[300]; /* of the system that is loaded */

static tm_status read_file(void *ud, tm_slice path, tm_buf *out, tm_error *err) {
  (void)ud;
  return tm__folder_read(folder, path, out, err);
}

static size_t loaded(tm_vm *vm, const char *of, const char *name) {
  tm_error err;
  tm_slice system = tm__slice(name);
  (void)snprintf(folder, sizeof(folder), "%s/%s", of, name);
  tm_status status = tm__vm_call(vm, "load", &system, 1, NULL, &err);
  if (status != TM_OK) print_error("%s\n", err.message);
  assert_int_equal(status, TM_OK);
  for (int i = 0; i < 3; i++)
    (void)lua_gc(vm->L, LUA_GCCOLLECT);
  return vm->bytes;
}

static void measure(const char *name) {
  tm_error err;
  tm_vm *vm;
  const tm_vm_options o = {.read_file = read_file,
                           .root = "scripts/x",
                           .config_json = "{\"llm\":{\"provider\":\"offline\"}}"};
  assert_int_equal(tm__vm_new(&vm, &o, &err), TM_OK);
  size_t runtime = loaded(vm, "bench/systems", "least");
  size_t own = loaded(vm, "scripts", name) - runtime;
  print_message("%s: %zu KiB beyond the runtime's %zu KiB\n", name, own >> 10, runtime >> 10);
  assert_in_range(own, 1, MOST);
  tm__vm_free(vm);
}

static void test_shipped_systems(void **state) {
  (void)state;
  DIR *d = opendir("scripts");
  assert_non_null(d);
  for (const struct dirent *e = readdir(d); e != NULL; e = readdir(d))
    if (e->d_name[0] != '.') measure(e->d_name);
  assert_int_equal(closedir(d), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_shipped_systems)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
