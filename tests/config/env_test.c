/* env_test.c - variables: conversion, ${NAME}, secrets in files, the env file, unknown ones. */
#include "fixture.h"

#define LISTEN "server.listen"

static const char *listen_of(fixture *f, const char *yaml) {
  assert_loads(f, yaml);
  return tm__config_text(f->config, LISTEN);
}

static void converted_by_type(void **state) {
  fixture *f = *state;
  const char *const *items;
  f->env[0] = "AMBIVO_AGENTS_WORKFLOW_PERSISTENCE_SQLITE_ENABLE_WAL=false";
  f->env[1] = "AMBIVO_AGENTS_WORKFLOW_PERSISTENCE_GENERAL_CHECKPOINT_INTERVAL=45";
  f->env[2] = "AMBIVO_AGENTS_SCRIPTS=./scripts, ./more";
  f->env[3] = "AMBIVO_AGENTS_LIMITS_OUTPUT=64k";
  f->env[4] = "AMBIVO_AGENTS_WORKFLOW_PERSISTENCE_SQLITE_DATABASE_PATH=12345";
  f->env[5] = "NO_EQUALS_SIGN";
  assert_loads(f, "");
  assert_false(tm__config_bool(f->config, "workflow_persistence.sqlite.enable_wal"));
  assert_int_equal(tm__config_ms(f->config, "workflow_persistence.general.checkpoint_interval"),
                   45000);
  assert_int_equal(tm__config_list(f->config, "scripts", &items), 2);
  assert_string_equal(items[1], "./more");
  assert_int_equal(tm__config_int(f->config, "limits.output"), 65536);
  assert_string_equal(tm__config_text(f->config, "workflow_persistence.sqlite.database_path"),
                      "12345");
  assert_int_equal(f->warned, 0);
}

static void refused_by_name(void **state) {
  fixture *f = *state;
  f->env[0] = "AMBIVO_AGENTS_WORKFLOW_PERSISTENCE_SQLITE_ENABLE_WAL=perhaps";
  assert_int_equal(load_yaml(f, ""), TM_EINVAL);
  assert_has(f->err.message, "AMBIVO_AGENTS_WORKFLOW_PERSISTENCE_SQLITE_ENABLE_WAL: "
                             "workflow_persistence.sqlite.enable_wal: expected true or false, got "
                             "'perhaps'");
  f->env[0] = "AMBIVO_AGENTS_MEMORY_BACKEND=redis";
  assert_int_equal(load_yaml(f, ""), TM_EINVAL);
  assert_has(f->err.message, "not supported yet");
  f->env[0] = "AMBIVO_AGENTS_SERVER_WORKERS=";
  assert_int_equal(load_yaml(f, ""), TM_EINVAL);
  assert_has(f->err.message, "got nothing");
  f->env[0] = "AMBIVO_AGENTS_WORKFLOW_PERSISTENCE_SQLITE_DATABASE_PATH=\xFF";
  assert_int_equal(load_yaml(f, ""), TM_EINVAL);
  assert_has(f->err.message, "not valid UTF-8");
  static char big[6000] = "AMBIVO_AGENTS_WORKFLOW_PERSISTENCE_SQLITE_DATABASE_PATH=";
  (void)memset(big + strlen(big), 'x', sizeof(big) - strlen(big) - 1);
  f->env[0] = big;
  assert_int_equal(load_yaml(f, ""), TM_EINVAL);
  assert_has(f->err.message, "at most 4096 are allowed");
}

static void references(void **state) {
  fixture *f = *state;
  f->env[0] = "HOST=10.0.0.1";
  f->env[1] = "EMPTY=";
  f->env[2] = "NESTED=${HOST}";
  assert_string_equal(listen_of(f, "server:\n  listen: ${HOST}:80\n"), "10.0.0.1:80");
  assert_string_equal(listen_of(f, "server: {listen: \"${HOST:x}:80\"}\n"), "10.0.0.1:80");
  assert_string_equal(listen_of(f, "server:\n  listen: ${NO:h}:80\n"), "h:80");
  assert_string_equal(listen_of(f, "server: {listen: '${NO:127.0.0.1:8701}'}\n"), "127.0.0.1:8701");
  assert_string_equal(listen_of(f, "server:\n  listen: a${EMPTY:b}${NO:}:80\n"), "a:80");
  assert_string_equal(listen_of(f, "server:\n  listen: $${HOST}$:80\n"), "${HOST}$:80");
  assert_string_equal(listen_of(f, "server:\n  listen: ${NESTED}:80\n"), "${HOST}:80"); /* once */
  assert_loads(f, "server:\n  workers: ${NO:7}\nscripts: [\"${HOST}/s\", b]\n");
  assert_int_equal(tm__config_int(f->config, "server.workers"), 7);
  const char *const *items;
  assert_int_equal(tm__config_list(f->config, "scripts", &items), 2);
  assert_string_equal(items[0], "10.0.0.1/s");
  assert_loads(f, "server: {workers: \"${NO:8}\"}\n");
  assert_loads(f, "workflow_persistence:\n  redis: {password: \"${NO:}\"}\n");
  assert_loads(f, "workflow_persistence:\n  redis:\n    password: ${NO:12345}\n");
  assert_string_equal(tm__config_text(f->config, "workflow_persistence.redis.password"), "12345");
}

static void wrong_references(void **state) {
  fixture *f = *state;
  assert_refused(f, "server:\n  listen: ${NO_SUCH_NAME}:80\n", "2:11: ",
                 "server.listen: the variable NO_SUCH_NAME is not set; set it, or write "
                 "${NO_SUCH_NAME:default}");
  assert_refused(f, "server:\n  listen: ${HOST\n", "2:11: ", "a ${ is not closed by }");
  assert_refused(f, "server:\n  listen: ${}\n", "2:11: ", "write ${NAME} or ${NAME:default}");
  assert_refused(f, "server:\n  listen: ${1A}\n", "2:11: ", "write ${NAME}");
  assert_refused(f, "server:\n  listen: ${A B}\n", "2:11: ", "write ${NAME}");
  assert_refused(f, "server:\n  listen: ${A:${B:c}}\n", "2:11: ", "cannot contain another ${");
  assert_refused(f, "scripts: [a, \"${GONE}\"]\n", "1:14: ", "GONE is not set");
  assert_refused(f, "server:\n  workers: ${NO:many}\n", "2:12: ", "got 'many'");
}

static void references_cannot_explode(void **state) {
  fixture *f = *state;
  static char value[4000] = "A=";
  (void)memset(value + 2, 'x', sizeof(value) - 3);
  f->env[0] = value;
  tm_buf yaml = {0};
  tm__buf_text(&yaml, "server:\n  listen: ");
  for (int i = 0; i < 200000; i++) {
    tm__buf_text(&yaml, "${A}");
  }
  assert_refused(f, yaml.ptr, "2:11: ", "more than 65536 bytes");
  tm__buf_free(&yaml);
}

static void secrets_in_files(void **state) {
  fixture *f = *state;
  char variable[400];
  const char *key = "workflow_persistence.redis.password";
  (void)snprintf(variable, sizeof(variable),
                 "AMBIVO_AGENTS_WORKFLOW_PERSISTENCE_REDIS_PASSWORD_FILE=%s", f->secret);
  f->env[0] = variable;
  write_text(f->secret, "hunter2\n");
  assert_loads(f, "");
  assert_string_equal(tm__config_text(f->config, key), "hunter2");
  tm_buf shown = {0};
  tm__config_describe(f->config, &shown);
  assert_has(shown.ptr, "\"env AMBIVO_AGENTS_WORKFLOW_PERSISTENCE_REDIS_PASSWORD_FILE\"");
  assert_lacks(shown.ptr, "hunter2");
  tm__buf_free(&shown);
  write_text(f->secret, "a\nb\r\n");
  assert_loads(f, "");
  assert_string_equal(tm__config_text(f->config, key), "a\nb");
  f->env[1] = "AMBIVO_AGENTS_WORKFLOW_PERSISTENCE_REDIS_PASSWORD=x";
  assert_int_equal(load_now(f), TM_EINVAL);
  assert_has(f->err.message, "AMBIVO_AGENTS_WORKFLOW_PERSISTENCE_REDIS_PASSWORD_FILE is set too");
  f->env[1] = NULL;
  write_bytes(f->secret, "hun\0ter", 7);
  assert_int_equal(load_now(f), TM_EINVAL);
  assert_has(f->err.message, "NUL");
  assert_lacks(f->err.message, "hun");
  (void)unlink(f->secret);
  assert_int_equal(load_now(f), TM_EINVAL);
  assert_has(f->err.message, "secret: No such file or directory");
}

static void a_file_of_secrets(void **state) {
  fixture *f = *state;
  char variable[400];
  const char *const *items;
  const char *key = "workflow_persistence.general.previous_encryption_keys";
  (void)snprintf(variable, sizeof(variable),
                 "AMBIVO_AGENTS_WORKFLOW_PERSISTENCE_GENERAL_PREVIOUS_ENCRYPTION_KEYS_FILE=%s",
                 f->secret);
  f->env[0] = variable;
  write_text(f->secret, "one\r\ntwo\nthree, four\n\n");
  assert_loads(f, "");
  assert_int_equal(tm__config_list(f->config, key, &items), 4);
  assert_string_equal(items[0], "one");
  assert_string_equal(items[3], "four");
  write_text(f->secret, "");
  assert_loads(f, "");
  assert_int_equal(tm__config_list(f->config, key, &items), 0);
}

static void secrets_are_bounded(void **state) {
  fixture *f = *state;
  char variable[400], *text = calloc(1, 65538);
  assert_non_null(text);
  (void)memset(text, 's', 65537);
  (void)snprintf(variable, sizeof(variable), "AMBIVO_AGENTS_MEMORY_REDIS_PASSWORD_FILE=%s",
                 f->secret);
  f->env[0] = variable;
  write_bytes(f->secret, text, 65537);
  assert_int_equal(load_yaml(f, ""), TM_EINVAL);
  assert_has(f->err.message, "is too large: it has 65537 bytes, at most 65536");
  write_bytes(f->secret, text, 65536);
  assert_loads(f, "");
  assert_int_equal(strlen(tm__config_text(f->config, "memory.redis.password")), 65536);
  free(text);
}

static void only_secrets_have_files(void **state) {
  fixture *f = *state;
  f->env[0] = "AMBIVO_AGENTS_SERVER_LISTEN_FILE=/etc/hostname";
  assert_string_equal(listen_of(f, ""), "127.0.0.1:8700");
  assert_int_equal(f->warned, 1);
  assert_has(f->warnings.ptr, "AMBIVO_AGENTS_SERVER_LISTEN_FILE: unknown variable");
}

static void unknown_variables(void **state) {
  fixture *f = *state;
  f->env[0] = "AMBIVO_AGENTS_SERVER_LISTN=x";
  f->env[1] = "AMBIVO_AGENTS_REDIS_HOST=h"; /* referred to below: known */
  f->env[2] = "OTHER=1";
  f->env[3] = "AMBIVO_AGENTS_COLOUR_OF_TEA=1";
  write_text(f->env_file, "AMBIVO_AGENTS_LOG_LEVL=secret-text\nOTHER2=1\n");
  assert_loads(f, "memory: {redis: {host: \"${AMBIVO_AGENTS_REDIS_HOST:localhost}\"}}\n");
  assert_string_equal(tm__config_text(f->config, "memory.redis.host"), "h");
  assert_int_equal(f->warned, 4); /* these three, and that memory.redis is not in use */
  assert_has(f->warnings.ptr, "AMBIVO_AGENTS_SERVER_LISTN: unknown variable, nothing is set by it; "
                              "did you mean AMBIVO_AGENTS_SERVER_LISTEN?");
  assert_has(f->warnings.ptr, "e.env:1): unknown variable");
  assert_has(f->warnings.ptr, "did you mean AMBIVO_AGENTS_LOG_LEVEL?");
  assert_has(f->warnings.ptr,
             "AMBIVO_AGENTS_COLOUR_OF_TEA: unknown variable, nothing is set by it; "
             "`tidemill config` shows all keys");
  assert_lacks(f->warnings.ptr, "secret-text");
}

static const char *env_file_value(fixture *f, const char *line) {
  char text[256];
  (void)snprintf(text, sizeof(text), "# c\n\nV=%s\n", line);
  write_text(f->env_file, text);
  assert_loads(f, "workflow_persistence: {sqlite: {database_path: \"x${V}x\"}}\n");
  return tm__config_text(f->config, "workflow_persistence.sqlite.database_path");
}

static void env_file_values(void **state) {
  fixture *f = *state;
  assert_string_equal(env_file_value(f, "a b"), "xa bx");
  assert_string_equal(env_file_value(f, "  a b  "), "xa bx");
  assert_string_equal(env_file_value(f, "a#b # c"), "xa#bx");
  assert_string_equal(env_file_value(f, "# nothing"), "xx");
  assert_string_equal(env_file_value(f, ""), "xx");
  assert_string_equal(env_file_value(f, "'a \\n $b' # c"), "xa \\n $bx");
  assert_string_equal(env_file_value(f, "\"a\\t\\\"b\\\\ \\$c#\"  "), "xa\t\"b\\ $c#x");
  assert_string_equal(env_file_value(f, "a\r"), "xax");
  write_text(f->env_file, "");
  assert_loads(f, "");
  write_text(f->env_file, "  export V=1\nW='2'"); /* no newline at the end */
  assert_loads(f, "workflow_persistence: {sqlite: {database_path: \"${V}${W}\"}}\n");
  assert_string_equal(tm__config_text(f->config, "workflow_persistence.sqlite.database_path"),
                      "12");
}

static void env_file_refused(fixture *f, const char *text, const char *part) {
  write_text(f->env_file, text);
  assert_int_equal(load_yaml(f, ""), TM_EINVAL);
  assert_string_equal(f->err.code, "config.invalid");
  assert_has(f->err.message, part);
  assert_lacks(f->err.message, "hunter2");
}

static void wrong_env_files(void **state) {
  fixture *f = *state;
  env_file_refused(f, "A=1\nhunter2\n", "e.env:2: expected NAME=value");
  env_file_refused(f, "A = hunter2\n", "e.env:1: expected NAME=value");
  env_file_refused(f, "1A=hunter2\n", "e.env:1: expected NAME=value");
  env_file_refused(f, "A=\"hunter2\n", "e.env:1: a quote is not closed");
  env_file_refused(f, "A=\"hunter2\\q\"\n", "e.env:1: unknown escape");
  env_file_refused(f, "A='hunter2' x\n", "e.env:1: there is something behind");
  env_file_refused(f, "A=1\n\nA=hunter2\n", "e.env:3: this variable stands in line 1 already");
  env_file_refused(f, "AMBIVO_AGENTS_LOG_LEVEL=x\n", "AMBIVO_AGENTS_LOG_LEVEL (");
  assert_has(f->err.message, "e.env:1): log.level: expected one of");
  assert_int_equal(truncate(f->env_file, 100 * 1000 * 1000), 0);
  assert_int_equal(load_yaml(f, ""), TM_EINVAL);
  assert_has(f->err.message, "e.env: is too large");
  tm_config_options o = {.file = f->file, .env_file = "/nowhere/e.env", .env = f->env};
  assert_int_equal(tm__config_load(&f->config, &o, &f->err), TM_EINVAL);
  assert_has(f->err.message, "/nowhere/e.env: there is no such env file");
}

static void too_many_lines(void **state) {
  fixture *f = *state;
  tm_buf text = {0};
  for (int i = 0; i < 4097; i++) {
    tm__buf_text(&text, "\n");
  }
  env_file_refused(f, text.ptr, "e.env:4097: more than 4096 lines");
  tm__buf_free(&text);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      WITH_FIXTURE(converted_by_type),
      WITH_FIXTURE(refused_by_name),
      WITH_FIXTURE(references),
      WITH_FIXTURE(wrong_references),
      WITH_FIXTURE(references_cannot_explode),
      WITH_FIXTURE(secrets_in_files),
      WITH_FIXTURE(a_file_of_secrets),
      WITH_FIXTURE(secrets_are_bounded),
      WITH_FIXTURE(only_secrets_have_files),
      WITH_FIXTURE(unknown_variables),
      WITH_FIXTURE(env_file_values),
      WITH_FIXTURE(wrong_env_files),
      WITH_FIXTURE(too_many_lines),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
