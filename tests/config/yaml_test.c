/* yaml_test.c - YAML that must be refused with its place, and YAML that is fine. */
#include "fixture.h"

#include <fcntl.h>
#include <time.h>

#include "config/yaml.h"

static void empty_is_fine(void **state) {
  fixture *f = *state;
  assert_loads(f, "");
  assert_loads(f, "# only a comment\n");
  assert_loads(f, "---\n");
  assert_loads(f, "server:\nlimits: # nothing below\nlog: {}\n");
  assert_loads(f, "%YAML 1.2\n---\nserver: {workers: 2}\n...\n");
  assert_int_equal(tm__config_int(f->config, "server.workers"), 2);
  assert_loads(f, "\xEF\xBB\xBFserver: {workers: 3}\r\n");
  assert_int_equal(tm__config_int(f->config, "server.workers"), 3);
  assert_loads(f, "scripts:\n- a\n- \"b c\"\n");
}

static void tabs(void **state) {
  fixture *f = *state;
  assert_refused(f, "server:\n\tlisten: x\n", "2:1: ", "a tab cannot indent");
  assert_refused(f, "server:\n  workers: 1\n\tlisten: x\n", "3:1: ", "use spaces");
  assert_refused(f, "\t\n- x", "1:1: ", "tab");
}

static void duplicate_keys(void **state) {
  fixture *f = *state;
  assert_refused(f, "server: {}\nlog: {}\nserver: {}\n", "3:1: ", "duplicate key 'server'");
  assert_has(f->err.message, "line 1 ");
  assert_refused(f, "server:\n  workers: 1\n  workers: 1\n", "3:3: ", "line 2 already");
  assert_refused(f, "docker:\n  a: 1\n  \"a\": 2\n", "3:3: ", "duplicate key 'a'");
}

static void aliases(void **state) {
  fixture *f = *state;
  assert_refused(f,
                 "a: &a [x, x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a]\n"
                 "c: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b]\n",
                 "1:4: ", "anchors (&name) and aliases (*name) are not allowed");
  assert_refused(f, "server:\n  listen: *there\n", "2:11: ", "aliases");
  assert_refused(f, "server: &s\n  workers: 1\n", "1:9: ", "anchors");
  assert_refused(f, "server: &s {a: *s}\n", "1:9: ", "anchors");
  assert_refused(f, "log:\n  level: &l info\n", "2:10: ", "anchors");
}

static void tags_and_odd_keys(void **state) {
  fixture *f = *state;
  assert_refused(f, "server:\n  workers: !!int \"3\"\n", "2:12: ", "tags");
  assert_refused(f, "server: !x {}\n", "1:9: ", "tags");
  assert_refused(f, "scripts: !!seq [a]\n", "1:10: ", "tags");
  assert_refused(f, "? [a, b]\n: c\n", "1:3: ", "a key must be a plain name");
  assert_refused(f, "{a: b}: c\n", "1:1: ", "a key must be a plain name");
  assert_refused(f, "<<: {a: b}\n", "1:1: ", "unknown key '<<'");
  assert_refused(f, "\"\": 1\n", "1:1: ", "unknown key ''");
}

static void several_documents(void **state) {
  fixture *f = *state;
  assert_refused(f, "server: {}\n---\nlog: {}\n", "2:1: ", "second document");
}

static void wrong_shapes(void **state) {
  fixture *f = *state;
  assert_refused(f, "- server\n", "1:1: ", "expected sections such as 'server:', got a list");
  assert_refused(f, "hello\n", "1:1: ", "got a text");
  assert_refused(f, "server: 5\n", "1:9: ", "server: expected a section of keys, got a value");
  assert_refused(f, "server:\n- a\n", "2:1: ", "server: expected a section of keys, got a list");
  assert_refused(f, "server:\n  listen: [a]\n", "2:11: ", "server.listen: expected an address");
  assert_refused(f, "server:\n  workers: {a: 1}\n", "2:12: ", "got a section");
  assert_refused(f, "scripts: ./scripts\n", "1:10: ", "expected a list of 1 to 64 texts");
  assert_refused(f, "scripts: [a, [b]]\n", "1:14: ", "expected a text in the list");
  assert_refused(f, "scripts: [a, 5]\n", "1:14: ", "got the number; put it in quotes");
  assert_refused(f, "scripts: []\n", "1:10: ", "got 0");
  assert_refused(f, "scripts: [\"\"]\n", "1:10: ", "item 1 of the list is empty");
  assert_refused(f, "tenants:\n  acme: {}\n", "2:3: ", "unknown key 'acme' in 'tenants'");
  assert_refused(f, "tenants: [acme]\n", "1:10: ", "expected a section of keys, got a list");
}

static void broken_syntax(void **state) {
  fixture *f = *state;
  assert_refused(f, "server: [a\n", "2:1: ", "that began in line 1");
  assert_refused(f, "server:\n  a: b\n c: d\n", "3:2: ", "did not find expected");
  assert_refused(f, "a: \"b\n", NULL, "quoted scalar");
  assert_refused(f, "a: @b\n", "1:4: ", "cannot start any token");
  assert_refused(f, "a: b: c\n", "1:5: ", "mapping values are not allowed");
}

static void bad_bytes(void **state) {
  fixture *f = *state;
  assert_refused(f, "log: {}\nserver: {listen: \xFF}\n", "2:18: ", "UTF-8");
  assert_refused(f, "\xC3\xA4\xC3\xA4: \xC0\xAF\n", "1:5: ", "UTF-8");
  assert_refused(f, "a: \x01\n", "1:4: ", "control characters");
  assert_refused(f, "log:\n  level: \"in\\0fo\"\n", "2:10: ", "NUL");
  write_bytes(f->file, "a: b\0c\n", 7);
  assert_int_equal(load_now(f), TM_EINVAL);
  assert_has(f->err.message, "c.yaml:1:5: control characters");
}

/* `depth` maps within each other, the innermost empty. */
static char *nested(size_t depth) {
  char *text = calloc(depth * 5 + 1, 1);
  assert_non_null(text);
  for (size_t i = 0; i < depth; i++) {
    (void)memcpy(text + i * 4, "{a: ", 4);
  }
  (void)memset(text + depth * 4, '}', depth);
  return text;
}

static void deep_nesting(void **state) {
  fixture *f = *state;
  tm_yaml_node *root;
  char *deepest = nested(TM_YAML_DEPTH), *deeper = nested(TM_YAML_DEPTH + 1);
  assert_int_equal(tm__yaml_parse(&root, tm__slice(deepest), "x", NULL), TM_OK);
  assert_non_null(root);
  tm__yaml_free(root);
  assert_refused(f, deeper, "1:65: ", "nested deeper than 16 levels");
  free(deepest);
  free(deeper);
  size_t size = 1000000;
  char *brackets = malloc(size + 1);
  assert_non_null(brackets);
  (void)memset(brackets, '[', size);
  brackets[size] = '\0';
  assert_refused(f, brackets, "1:17: ", "nested deeper than 16 levels");
  free(brackets);
}

static void too_many_values(void **state) {
  fixture *f = *state;
  tm_buf text = {0};
  tm__buf_text(&text, "docker:\n");
  for (int i = 0; i < 4000; i++) {
    tm__buf_printf(&text, "  k%d: 1\n", i);
  }
  assert_loads(f, text.ptr);
  for (int i = 4000; i < 4200; i++) {
    tm__buf_printf(&text, "  k%d: 1\n", i);
  }
  assert_refused(f, text.ptr, NULL, "more than 4096 values");
  tm__buf_free(&text);
}

static void a_hundred_megabytes(void **state) {
  fixture *f = *state;
  write_text(f->file, "log: {}\n");
  assert_int_equal(truncate(f->file, 100 * 1000 * 1000), 0); /* sparse */
  struct timespec before, after;
  (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
  assert_int_equal(load_now(f), TM_EINVAL);
  (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
  assert_has(f->err.message, "is too large: it has 100000000 bytes, at most 1048576");
  int64_t spent = (after.tv_sec - before.tv_sec) * 1000000000 + after.tv_nsec - before.tv_nsec;
  assert_true(spent < 20 * 1000 * 1000); /* refused before it was read */
}

static void just_fits(void **state) {
  fixture *f = *state;
  size_t size = 1 << 20;
  char *text = malloc(size + 2);
  assert_non_null(text);
  (void)memset(text, '#', size + 1);
  text[size] = '\0';
  assert_loads(f, text);
  text[size] = '#';
  text[size + 1] = '\0';
  assert_int_equal(load_yaml(f, text), TM_EINVAL);
  assert_has(f->err.message, "at most 1048576");
  free(text);
}

static void no_regular_file(void **state) {
  fixture *f = *state;
  tm_config_options o = {.file = f->folder, .env = f->env};
  assert_int_equal(tm__config_load(&f->config, &o, &f->err), TM_EINVAL);
  assert_has(f->err.message, "is a folder");
  assert_int_equal(load_now(f), TM_EINVAL);
  assert_has(f->err.message, "c.yaml: there is no such configuration file");
  assert_int_equal(mkfifo(f->file, 0600), 0);
  assert_int_equal(load_now(f), TM_EINVAL); /* and does not wait for a writer */
  assert_has(f->err.message, "is not a regular file");
  assert_int_equal(unlink(f->file), 0);
  assert_int_equal(symlink("c.yaml", f->file), 0);
  assert_int_equal(load_now(f), TM_EINVAL);
  assert_has(f->err.message, "symbolic links");
  o.file = "/dev/null/x";
  assert_int_equal(tm__config_load(&f->config, &o, &f->err), TM_EINVAL);
  assert_has(f->err.message, "/dev/null/x: Not a directory");
}

static void unreadable_file(void **state) {
  fixture *f = *state;
  write_text(f->file, "log: {}\n");
  assert_int_equal(chmod(f->file, 0), 0);
  if (geteuid() == 0) skip(); /* root may read everything */
  assert_int_equal(load_now(f), TM_EINVAL);
  assert_has(f->err.message, "c.yaml: Permission denied");
}

static void long_names_are_cut(void **state) {
  fixture *f = *state;
  char path[2000];
  (void)memset(path, 'x', sizeof(path) - 1);
  path[sizeof(path) - 1] = '\0';
  tm_config_options o = {.file = path, .env = f->env};
  assert_int_equal(tm__config_load(&f->config, &o, &f->err), TM_EINVAL);
  assert_has(f->err.message, "...xxx");
  assert_has(f->err.message, ": File name too long");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      WITH_FIXTURE(empty_is_fine),     WITH_FIXTURE(tabs),
      WITH_FIXTURE(duplicate_keys),    WITH_FIXTURE(aliases),
      WITH_FIXTURE(tags_and_odd_keys), WITH_FIXTURE(several_documents),
      WITH_FIXTURE(wrong_shapes),      WITH_FIXTURE(broken_syntax),
      WITH_FIXTURE(bad_bytes),         WITH_FIXTURE(deep_nesting),
      WITH_FIXTURE(too_many_values),   WITH_FIXTURE(a_hundred_megabytes),
      WITH_FIXTURE(just_fits),         WITH_FIXTURE(no_regular_file),
      WITH_FIXTURE(unreadable_file),   WITH_FIXTURE(long_names_are_cut),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
