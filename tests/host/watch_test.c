/* What a look at folders of scripts sees, and what it does not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host.h"
#include "tests/scratch.h"

static char dir[40];

static const char *at(const char *name) {
  static char path[2][256];
  static int turn;
  turn = 1 - turn;
  (void)snprintf(path[turn], sizeof(path[turn]), "%s/%s", dir, name);
  return path[turn];
}

static uint64_t print_of(const char *folder) {
  return tm__scripts_fingerprint(&folder, 1);
}

static void write_file(const char *name, const char *text) {
  FILE *f = fopen(at(name), "w");
  assert_non_null(f);
  assert_true(fputs(text, f) >= 0);
  assert_int_equal(fclose(f), 0);
}

static void make_dir(const char *name) {
  assert_int_equal(mkdir(at(name), 0700), 0);
}

/* `changes`: is the print another one since the last call? */
static void expect(bool changes) {
  static uint64_t last;
  uint64_t now = print_of(dir);
  assert_int_equal(now, print_of(dir));
  assert_int_equal(now != last, changes);
  last = now;
}

static void test_what_counts(void **state) {
  (void)state;
  const struct timespec old[] = {{1, 0}, {1, 0}};
  expect(true);
  make_dir("a");
  write_file("a/init.lua", "return 1");
  expect(true);
  write_file("a/init.lua", "return 2"); /* as long as before */
  assert_int_equal(utimensat(AT_FDCWD, at("a/init.lua"), old, 0), 0);
  expect(true);
  write_file("a/other.lua", "return 1");
  expect(true);
  assert_int_equal(rename(at("a/other.lua"), at("a/init.lua")), 0);
  expect(true);
  assert_int_equal(rename(at("a"), at("b")), 0);
  expect(true);
  assert_int_equal(unlink(at("b/init.lua")), 0);
  expect(true);
}

static void test_what_does_not_count(void **state) {
  (void)state;
  make_dir("c");
  expect(true);
  write_file("c/.init.lua.swp", "x");
  write_file("c/init.lua~", "x");
  write_file("c/.lua", "x");
  write_file("c/notes.txt", "x");
  make_dir(".git");
  write_file(".git/x.lua", "x");
  expect(false);
}

static void test_links_in_circles(void **state) {
  (void)state;
  make_dir("d");
  make_dir("d/e");
  for (int i = 0; i < 8; i++) {
    char name[32];
    (void)snprintf(name, sizeof(name), "d/e/up%d", i);
    assert_int_equal(symlink("../..", at(name)), 0);
  }
  expect(true);
  assert_int_not_equal(print_of(at("nowhere")), 0);
  assert_int_not_equal(print_of(at("nowhere")), print_of(dir));
}

static int set_up(void **state) {
  (void)state;
  return scratch_make(dir, sizeof(dir), "watch") ? 0 : -1;
}

static int tear_down(void **state) {
  char command[128];
  (void)state;
  (void)snprintf(command, sizeof(command), "rm -rf %s", dir);
  return system(command);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_what_counts),
      cmocka_unit_test(test_what_does_not_count),
      cmocka_unit_test(test_links_in_circles),
  };
  return cmocka_run_group_tests(tests, set_up, tear_down);
}
