/* fixture.h - for the tests of the configuration: a temporary folder, and loading with everything
 * that came of it kept: the configuration, the error, the warnings. */
#ifndef TM_TESTS_CONFIG_FIXTURE_H
#define TM_TESTS_CONFIG_FIXTURE_H

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

#include "config/config.h"
#include "tests/scratch.h"

typedef struct fixture {
  char folder[256], file[300], env_file[300], secret[300];
  const char *set[8], *env[16];
  tm_config *config;
  tm_error err;
  tm_buf warnings; /* a line each */
  size_t warned;
} fixture;

static inline int fixture_make(void **state) {
  fixture *f = calloc(1, sizeof(*f));
  if (f == NULL) return -1;
  if (!scratch_make(f->folder, sizeof(f->folder), "config")) {
    free(f);
    return -1;
  }
  (void)snprintf(f->file, sizeof(f->file), "%s/c.yaml", f->folder);
  (void)snprintf(f->env_file, sizeof(f->env_file), "%s/e.env", f->folder);
  (void)snprintf(f->secret, sizeof(f->secret), "%s/secret", f->folder);
  *state = f;
  return 0;
}

static inline void fixture_forget(fixture *f) {
  tm__config_free(f->config);
  f->config = NULL;
  tm__buf_clear(&f->warnings);
  f->warned = 0;
}

static inline int fixture_free(void **state) {
  fixture *f = *state;
  fixture_forget(f);
  tm__buf_free(&f->warnings);
  (void)unlink(f->file);
  (void)unlink(f->env_file);
  (void)unlink(f->secret);
  int rc = rmdir(f->folder);
  free(f);
  return rc;
}

static inline void write_bytes(const char *path, const void *bytes, size_t size) {
  FILE *out = fopen(path, "wb");
  assert_non_null(out);
  assert_int_equal(fwrite(bytes, 1, size, out), size);
  assert_int_equal(fclose(out), 0);
}

static inline void write_text(const char *path, const char *text) {
  write_bytes(path, text, strlen(text));
}

static inline void note_warning(void *ud, const char *text) {
  fixture *f = ud;
  tm__buf_text(&f->warnings, text);
  tm__buf_byte(&f->warnings, '\n');
  f->warned++;
}

/* Loads f->file with f->env and f->set, and the env file if there is one. */
static inline tm_status load_now(fixture *f) {
  fixture_forget(f);
  bool has_env_file = access(f->env_file, F_OK) == 0;
  tm_config_options o = {.file = f->file,
                         .env_file = has_env_file ? f->env_file : NULL,
                         .set = f->set,
                         .env = f->env,
                         .warn = note_warning,
                         .ud = f};
  f->err = (tm_error){0};
  tm_status s = tm__config_load(&f->config, &o, &f->err);
  assert_true((s == TM_OK) == (f->config != NULL));
  return s;
}

static inline tm_status load_yaml(fixture *f, const char *yaml) {
  write_text(f->file, yaml);
  return load_now(f);
}

static inline void assert_has(const char *text, const char *part) {
  if (strstr(text, part) != NULL) return;
  fail_msg("\"%s\"\ndoes not contain\n\"%s\"", text, part);
}

static inline void assert_lacks(const char *text, const char *part) {
  if (strstr(text, part) == NULL) return;
  fail_msg("\"%s\"\ncontains\n\"%s\"", text, part);
}

static inline void assert_loads(fixture *f, const char *yaml) {
  if (load_yaml(f, yaml) != TM_OK) fail_msg("refused:\n%s\n%s", yaml, f->err.message);
}

/* `where` is "line:column: " or the beginning of the message, or NULL. */
static inline void assert_refused(fixture *f, const char *yaml, const char *where,
                                  const char *part) {
  if (load_yaml(f, yaml) == TM_OK) fail_msg("taken:\n%s", yaml);
  assert_int_equal(f->err.status, TM_EINVAL);
  assert_string_equal(f->err.code, "config.invalid");
  if (where != NULL) {
    char place[400];
    (void)snprintf(place, sizeof(place), "/c.yaml:%s", where);
    assert_has(f->err.message, place);
  }
  assert_has(f->err.message, part);
}

#define WITH_FIXTURE(test) cmocka_unit_test_setup_teardown(test, fixture_make, fixture_free)

#endif
