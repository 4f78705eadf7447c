/* fixture.h - states whose runtime is tests/bind/lua/task.lua; included once per test program. */
#ifndef TESTS_BIND_FIXTURE_H
#define TESTS_BIND_FIXTURE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bind/bind.h"
#include "bind/embedded.h"

#define SCRIPTS "tests/bind/lua"

static const char boot_text[] =
    "local text, chunk = require('host.file').read 'task.lua'\nreturn assert(load(text, chunk))()";
const struct tm__embedded tm__embedded[] = {
    {"tidemill.task", "@boot", boot_text, sizeof(boot_text) - 1},
    {0, 0, 0, 0},
};

static inline tm_status read_fixture(void *ud, tm_slice path, tm_buf *out, tm_error *err) {
  (void)ud;
  return tm__folder_read(SCRIPTS, path, out, err);
}

static inline tm_vm_options fixture_options(void) {
  return (tm_vm_options){
      .limits = {.memory = 16 << 20, .step_memory = 4 << 20, .cpu_slice_ms = 50, .load_ms = 1000},
      .config_json = "{\"max_retries\":2}",
      .read_file = read_fixture,
      .root = SCRIPTS};
}

/* Runs a chunk with text arguments; its first value as text, or the error. */
static inline tm_status run_code(tm_vm *vm, const char *code, tm_buf *out, tm_error *err) {
  tm_slice text = tm__slice(code);
  tm__buf_clear(out);
  return tm__vm_call(vm, "run", &text, 1, out, err);
}

#endif
