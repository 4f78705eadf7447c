/* Folders become bundles: versions, sources, and everything that a folder must not be. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bind/bind.h"
#include "bind/embedded.h"
#include "core/json.h"
#include "tests/scratch.h"

static const char runtime[] =
    "local file = require 'host.file'\n"
    "local M = {}\n"
    "local commands = {}\n"
    "function commands.load(name)\n"
    "  local text, chunk = file.read 'init.lua'\n"
    "  if not text then error(chunk) end\n"
    "  local f, err = load(text, chunk)\n"
    "  if not f then error({ code = 'test.syntax', message = err }, 0) end\n"
    "  return f(file) or '{\"name\":\"' .. name .. '\",\"a\":1}'\n"
    "end\n"
    "function commands.check(name) return '{\"items\":[\"' .. name .. '\"]}' end\n"
    "function M.dispatch(op, event, ...) return commands[event](...) end\n"
    "return M\n";
const struct tm__embedded tm__embedded[] = {
    {"tidemill.task", "@lua/tidemill/task.lua", runtime, sizeof(runtime) - 1},
    {0, 0, 0, 0},
};

static char root[64], dir[80];

static int set_up(void **state) {
  (void)state;
  if (!scratch_make(root, sizeof(root), "loader")) return -1;
  (void)snprintf(dir, sizeof(dir), "%s/shop", root);
  return mkdir(dir, 0700);
}

static int tear_down(void **state) {
  (void)state;
  char command[128];
  (void)snprintf(command, sizeof(command), "rm -rf '%s'", root);
  return system(command);
}

static void write_bytes(const char *name, const char *bytes, size_t size) {
  char path[200];
  (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
  FILE *f = fopen(path, "wb");
  assert_non_null(f);
  assert_int_equal(fwrite(bytes, 1, size, f), size);
  assert_int_equal(fclose(f), 0);
}

static void write_text(const char *name, const char *text) {
  write_bytes(name, text, strlen(text));
}

static tm_vm_options options(void) {
  return (tm_vm_options){
      .limits = {.memory = 64 << 20, .step_memory = 8 << 20, .cpu_slice_ms = 100, .load_ms = 2000}};
}

static tm_status load_from(const char *from, tm_bundle **b, tm_error *err) {
  tm_vm_options o = options();
  memset(err, 0, sizeof(*err));
  return tm__bundle_load(b, from, &o, err);
}

static void expect_failure(const char *from, tm_status status, const char *code, const char *text) {
  tm_bundle *b;
  tm_error err;
  tm_status st = load_from(from, &b, &err);
  if (st != status || strcmp(err.code, code) != 0 || strstr(err.message, text) == NULL)
    print_message("%s: %s\n", err.code, err.message);
  assert_int_equal(st, status);
  assert_string_equal(err.code, code);
  assert_non_null(strstr(err.message, text));
  assert_null(b);
}

static void test_bundle(void **state) {
  (void)state;
  tm_bundle *b, *again;
  tm_error err;
  write_text("init.lua", "local file = ...\nassert(file.read 'a-1/b_2.lua' == 'return \"é\"')\n"
                         "assert(select(2, file.read 'init.lua'):match '^@.*/shop/init.lua$')\n"
                         "assert(file.read 'none.lua' == nil)");
  (void)mkdir(dir, 0700);
  char sub[120];
  (void)snprintf(sub, sizeof(sub), "%s/a-1", dir);
  assert_int_equal(mkdir(sub, 0700), 0);
  write_text("a-1/b_2.lua", "return \"é\"");
  write_text("unread.lua", "x");
  assert_int_equal(load_from(dir, &b, &err), TM_OK);
  assert_string_equal(b->system, "shop");
  assert_int_equal(strlen(b->version), 16);
  tm_slice files = tm__json_get(b->sources, "files");
  assert_true(tm__slice_is(tm__json_get(files, "a-1/b_2.lua"), "\"return \\\"é\\\"\""));
  assert_null(tm__json_get(files, "unread.lua").ptr);
  assert_null(tm__json_get(files, "none.lua").ptr);
  tm_buf root_text = {0};
  assert_true(tm__json_get_text(b->sources, "root", &root_text));
  assert_string_equal(root_text.ptr, dir);
  tm__buf_free(&root_text);
  char want[80];
  (void)snprintf(want, sizeof(want), "{\"a\":1,\"name\":\"shop\",\"version\":\"%s\"}", b->version);
  assert_true(tm__slice_is(b->description, want));

  char with_slash[120];
  (void)snprintf(with_slash, sizeof(with_slash), "%s///", dir);
  write_text("unread.lua", "y");
  assert_int_equal(load_from(with_slash, &again, &err), TM_OK);
  assert_string_equal(again->version, b->version);
  tm__bundle_unref(again);
  write_text("a-1/b_2.lua", "return \"é\" ");
  expect_failure(dir, TM_ESCRIPT, "script.error", "assertion failed");
  write_text("init.lua", "local file = ... file.read 'a-1/b_2.lua'");
  assert_int_equal(load_from(dir, &again, &err), TM_OK);
  assert_string_not_equal(again->version, b->version);
  tm__bundle_unref(again);
  tm__bundle_unref(b);
}

static void test_check(void **state) {
  (void)state;
  tm_buf out = {0};
  tm_vm_options o = options();
  assert_int_equal(tm__system_check(dir, &o, &out, NULL), TM_OK);
  assert_string_equal(out.ptr, "{\"items\":[\"shop\"]}");
  tm__buf_free(&out);
}

static void test_bad_scripts(void **state) {
  (void)state;
  char line[200];
  expect_failure(dir, TM_ENOTFOUND, "file.not_found", "shop/init.lua: no such file");
  write_text("init.lua", "x = = 1");
  expect_failure(dir, TM_ESCRIPT, "test.syntax", "shop/init.lua:1:");
  write_text("init.lua", "\n\nerror 'here'");
  expect_failure(dir, TM_ESCRIPT, "script.error", "shop/init.lua:3: here");
  write_text("init.lua", "while true do end");
  expect_failure(dir, TM_ESCRIPT, "script.cpu", "shop/init.lua:1; do less at load");
  write_text("init.lua", "local t = {} for i = 1, 1e9 do t[i] = { i } end");
  expect_failure(dir, TM_ESCRIPT, "script.memory", "limits.memory");
  write_text("init.lua", "return 'no json'");
  expect_failure(dir, TM_EINVAL, "json.invalid", "line 1");
  write_text("init.lua", "return '[]'");
  expect_failure(dir, TM_ESCRIPT, "script.description", "described no system");
  write_text("init.lua", "\xff");
  expect_failure(dir, TM_EINVAL, "file.text", "shop/init.lua is not UTF-8 text");
  write_bytes("init.lua", "x=1\0", 4);
  expect_failure(dir, TM_EINVAL, "file.text", "not UTF-8 text");
  write_text("init.lua", "\x1bLua");
  expect_failure(dir, TM_ESCRIPT, "test.syntax", "binary chunk");
  (void)snprintf(line, sizeof(line), "%s/none", root);
  expect_failure(line, TM_ENOTFOUND, "file.not_found", "none/init.lua: no such file");
  (void)snprintf(line, sizeof(line), "%s/a b", root);
  expect_failure(line, TM_EINVAL, "script.name", "a system is named by its folder");
  expect_failure("/", TM_EINVAL, "script.name", "a system is named by its folder");
  expect_failure("", TM_EINVAL, "script.name", "a system is named by its folder");
  expect_failure("..", TM_EINVAL, "script.name", "a system is named by its folder");
}

static void test_sizes(void **state) {
  (void)state;
  size_t size = (1 << 20) + 1;
  char *big = malloc(size);
  assert_non_null(big);
  memset(big, '-', size);
  write_bytes("init.lua", big, size);
  expect_failure(dir, TM_ETOOLARGE, "file.too_large", "more than 1 MiB");
  write_bytes("big.lua", big, size - 1);
  write_text("init.lua", "local file = ... assert(#file.read 'big.lua' == 1 << 20)"
                         " for i = 1, 9 do local t, e = file.read('big' .. i .. '.lua')"
                         " if not t then error(e) end end");
  for (int i = 1; i < 10; i++) {
    char name[24];
    (void)snprintf(name, sizeof(name), "big%d.lua", i);
    write_bytes(name, big, size - 1);
  }
  free(big);
  expect_failure(dir, TM_ESCRIPT, "script.files", "more than 8 MiB");
  for (int i = 0; i < 256; i++) {
    char name[24];
    (void)snprintf(name, sizeof(name), "f%d.lua", i);
    write_text(name, "x");
  }
  write_text("init.lua", "local file = ... for i = 0, 255 do local t, e = file.read('f' .. i .. "
                         "'.lua') if not t then error(e) end end");
  expect_failure(dir, TM_ESCRIPT, "script.files", "more than 256 files");
}

static void test_names(void **state) {
  (void)state;
  write_text(
      "init.lua",
      "local file = ...\n"
      "for _, p in ipairs { '', '/etc/passwd', '../shop/init.lua', 'a/../init.lua', './init.lua',"
      " 'a//b.lua', 'a/', '.hidden', 'a/.b', 'init.lua\\0', 'a\\\\b', 'a b', 'é', '~/x', 'a:b',"
      " ('x'):rep(201), '..', '.', 'a/./b', 'CON*', '%s%n' } do\n"
      "  local text, err = file.read(p)\n"
      "  assert(text == nil and err.code == 'file.name', p)\n"
      "end\n");
  tm_bundle *b;
  tm_error err;
  tm_status st = load_from(dir, &b, &err);
  assert_string_equal(err.message, "");
  assert_int_equal(st, TM_OK);
  tm__bundle_unref(b);
}

static void test_kinds_and_links(void **state) {
  (void)state;
  char path[200], target[200];
  (void)snprintf(path, sizeof(path), "%s/secret", root);
  FILE *f = fopen(path, "wb");
  assert_non_null(f);
  (void)fclose(f);
  (void)snprintf(target, sizeof(target), "%s/link.lua", dir);
  assert_int_equal(symlink("../secret", target), 0);
  (void)snprintf(target, sizeof(target), "%s/out", dir);
  assert_int_equal(symlink(root, target), 0);
  (void)snprintf(target, sizeof(target), "%s/inner.lua", dir);
  assert_int_equal(symlink("real.lua", target), 0);
  (void)snprintf(target, sizeof(target), "%s/loop.lua", dir);
  assert_int_equal(symlink("loop.lua", target), 0);
  (void)snprintf(target, sizeof(target), "%s/pipe.lua", dir);
  assert_int_equal(mkfifo(target, 0600), 0);
  (void)snprintf(target, sizeof(target), "%s/folder.lua", dir);
  assert_int_equal(mkdir(target, 0700), 0);
  (void)snprintf(target, sizeof(target), "%s-other", dir);
  assert_int_equal(mkdir(target, 0700), 0); /* begins with the same letters */
  (void)snprintf(path, sizeof(path), "%s/sibling", dir);
  assert_int_equal(symlink(target, path), 0);
  write_text("sibling/x.lua", "x");
  write_text("real.lua", "real");
  write_text("init.lua",
             "local file = ...\n"
             "local function code(p) local t, e = file.read(p) return t or e.code end\n"
             "local got = {}\n"
             "for i, p in ipairs { 'link.lua', 'out/secret', 'inner.lua', 'loop.lua', 'pipe.lua',"
             " 'folder.lua', 'sibling/x.lua', 'init.lua/x' } do got[i] = code(p) end\n"
             "assert(table.concat(got, ' ') == 'file.outside file.outside real file.io file.kind "
             "file.kind file.outside file.not_found', table.concat(got, ' '))\n");
  tm_bundle *b;
  tm_error err;
  tm_status st = load_from(dir, &b, &err);
  assert_string_equal(err.message, "");
  assert_int_equal(st, TM_OK);
  tm__bundle_unref(b);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void) {
  const struct CMUnitTest tests[] = {
      CASE(test_bundle), CASE(test_check), CASE(test_bad_scripts),
      CASE(test_sizes),  CASE(test_names), CASE(test_kinds_and_links),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
