/* keys_test.c - what must hold for keys.def as a whole, and that the manual, the shipped file and
 * the code that asks for keys agree with it. Reads the checkout: run in its root. */
#include "fixture.h"

#include <dirent.h>

#include "config/value.h"

#define MANUAL "docs/configuration.md"

static char *read_file(const char *path) {
  tm_buf text = {0};
  FILE *in = fopen(path, "rb");
  if (in == NULL) fail_msg("cannot open %s: run in the root of the checkout", path);
  char part[4096];
  for (size_t n = sizeof(part); n == sizeof(part);) {
    n = fread(part, 1, sizeof(part), in);
    tm__buf_add(&text, part, n);
  }
  (void)fclose(in);
  return tm__buf_take(&text);
}

static void one_variable_each(void **state) {
  (void)state;
  for (size_t i = 0; i < tm__key_count(); i++) {
    char a[TM_VARIABLE_SIZE], a_file[TM_VARIABLE_SIZE + 8];
    tm__key_variable(tm__key_at(i), a);
    (void)snprintf(a_file, sizeof(a_file), "%s_FILE", a);
    for (size_t j = 0; j < tm__key_count(); j++) {
      char b[TM_VARIABLE_SIZE];
      tm__key_variable(tm__key_at(j), b);
      if (i != j && strcmp(a, b) == 0) fail_msg("two keys share %s", a);
      if (strcmp(a_file, b) == 0) fail_msg("%s is a key's and a secret's file", b);
    }
  }
}

static void the_guides_variables(void **state) {
  (void)state;
  const char *const pairs[][2] = {
      {"workflow_persistence.backend", "AMBIVO_AGENTS_WORKFLOW_PERSISTENCE_BACKEND"},
      {"workflow_persistence.sqlite.database_path",
       "AMBIVO_AGENTS_WORKFLOW_PERSISTENCE_SQLITE_DATABASE_PATH"},
      {"workflow_persistence.sqlite.enable_wal",
       "AMBIVO_AGENTS_WORKFLOW_PERSISTENCE_SQLITE_ENABLE_WAL"},
      {"workflow_persistence.general.auto_checkpoint",
       "AMBIVO_AGENTS_WORKFLOW_PERSISTENCE_GENERAL_AUTO_CHECKPOINT"},
      {"workflow_persistence.general.checkpoint_interval",
       "AMBIVO_AGENTS_WORKFLOW_PERSISTENCE_GENERAL_CHECKPOINT_INTERVAL"},
  };
  for (size_t i = 0; i < 5; i++) {
    char variable[TM_VARIABLE_SIZE];
    size_t key = tm__key_find(tm__slice(pairs[i][0]));
    assert_true(key != TM_NO_KEY);
    tm__key_variable(tm__key_at(key), variable);
    assert_string_equal(variable, pairs[i][1]);
  }
}

static void paths_are_names_and_no_section_is_a_key(void **state) {
  (void)state;
  for (size_t i = 0; i < tm__key_count(); i++) {
    const char *path = tm__key_at(i)->path;
    assert_true(strspn(path, "abcdefghijklmnopqrstuvwxyz_.") == strlen(path));
    assert_false(tm__key_is_section(tm__slice(path)));
    assert_false(tm__key_is_skipped(tm__slice(path)));
    assert_int_equal(tm__key_find(tm__slice(path)), i); /* once */
  }
}

static void defaults_are_values(void **state) {
  (void)state;
  for (size_t i = 0; i < tm__key_count(); i++) {
    const tm_key *key = tm__key_at(i);
    tm_value v;
    if (tm__value_default(&v, key) != TM_OK) fail_msg("the default of %s is no value", key->path);
    assert_int_equal(v.present, key->fallback != NULL);
    assert_true(tm__value_equal(&v, &v, key));
    assert_true(!key->secret || key->fallback == NULL || key->fallback[0] == '\0');
    assert_true((key->type == TM_KEY_CHOICE) == (key->choices != NULL));
    tm__value_free(&v);
  }
}

/* Every key that is not supported yet refuses a value other than the default, and takes that. */
static void later_keys_refuse(void **state) {
  (void)state;
  const char *const other[] = {
      [TM_KEY_TEXT] = "other", [TM_KEY_BOOL] = NULL,   [TM_KEY_INT] = "7",
      [TM_KEY_NUMBER] = "1.5", [TM_KEY_SIZE] = "7k",   [TM_KEY_DURATION] = "7",
      [TM_KEY_LIST] = NULL,    [TM_KEY_CHOICE] = NULL,
  };
  size_t seen = 0;
  for (size_t i = 0; i < tm__key_count(); i++) {
    const tm_key *key = tm__key_at(i);
    if (key->later == NULL || key->type == TM_KEY_LIST) continue;
    bool on = key->fallback != NULL && strcmp(key->fallback, "true") == 0;
    const char *text = key->type == TM_KEY_BOOL ? (on ? "false" : "true") : other[key->type];
    tm_value v;
    tm_buf why = {0};
    assert_int_equal(tm__value_scalar(&v, key, tm__slice(text), TM_STYLE_LOOSE, &why), TM_EINVAL);
    assert_has(why.ptr, "not supported yet: ");
    assert_has(why.ptr, key->later);
    tm__buf_clear(&why);
    tm_slice same = tm__slice(key->fallback == NULL ? "" : key->fallback);
    if (tm__value_scalar(&v, key, same, TM_STYLE_LOOSE, &why) != TM_OK) fail_msg("%s", key->path);
    tm__value_free(&v);
    tm__buf_free(&why);
    seen++;
  }
  assert_true(seen > 5);
}

static void distances(void **state) {
  (void)state;
  assert_int_equal(tm__edit_distance(TM_S("kitten"), TM_S("sitting")), 3);
  assert_int_equal(tm__edit_distance(TM_S(""), TM_S("abc")), 3);
  assert_int_equal(tm__edit_distance(TM_S("abc"), TM_S("abc")), 0);
  assert_int_equal(tm__edit_distance(TM_S("ABC"), TM_S("abd")), 1);
  assert_true(tm__slice_is(tm__key_nearest(TM_S(""), TM_S("SERVER")), "server"));
  assert_true(tm__slice_is(tm__key_nearest(TM_S("log"), TM_S("lvel")), "log.level"));
  assert_true(tm__slice_is(tm__key_nearest(TM_S(""), TM_S("database_path")),
                           "workflow_persistence.sqlite.database_path"));
}

/* ---- the manual ---- */

/* The row that the manual must have for a key, up to its meaning. */
static void row_of(const tm_key *key, char *out, size_t size) {
  char variable[TM_VARIABLE_SIZE];
  tm_buf fallback = {0};
  bool none = key->fallback == NULL || key->fallback[0] == '\0';
  tm__key_variable(key, variable);
  tm__buf_printf(&fallback, none ? "none" : "`%s`", none ? "" : key->fallback);
  (void)snprintf(out, size, "| `%s` | %s | %s | `%s` | ", key->path, tm__key_type_name(key),
                 fallback.ptr, variable);
  tm__buf_free(&fallback);
}

static void meaning_is_there(const tm_key *key, const char *manual) {
  char row[512], meaning[512];
  row_of(key, row, sizeof(row));
  const char *at = strstr(manual, row);
  if (at == NULL) {
    fail_msg("%s lacks the row %s", MANUAL, row);
    return;
  }
  at += strlen(row);
  (void)snprintf(meaning, sizeof(meaning), "%.*s", (int)strcspn(at, "\n"), at);
  assert_true(strlen(meaning) > 8);
  if (key->later != NULL) assert_has(meaning, "not supported yet: ");
  if (key->later == NULL && key->type != TM_KEY_CHOICE) assert_lacks(meaning, "not supported yet");
  const char *words = key->choices == NULL ? "" : key->choices;
  tm_slice word;
  bool works;
  while (tm__key_choice(&words, &word, &works)) {
    char quoted[80];
    (void)snprintf(quoted, sizeof(quoted), "`%.*s`", (int)word.len, word.ptr);
    assert_has(meaning, quoted);
  }
}

static void the_manual_is_true(void **state) {
  (void)state;
  char *manual = read_file(MANUAL);
  size_t rows = 0;
  for (size_t i = 0; i < tm__key_count(); i++) {
    meaning_is_there(tm__key_at(i), manual);
  }
  for (const char *at = manual; (at = strstr(at, "\n| `")) != NULL; at++) {
    rows++;
  }
  assert_int_equal(rows, tm__key_count()); /* and none that is no key */
  free(manual);
}

/* ---- the shipped file ---- */

static void the_shipped_file_says_the_defaults(void **state) {
  fixture *f = *state;
  char *text = read_file("agent_config.yaml");
  tm_buf shipped = {0}, bare = {0};
  assert_loads(f, text);
  assert_int_equal(f->warned, 0);
  for (size_t i = 0; i < tm__key_count(); i++) {
    const char *path = tm__key_at(i)->path;
    tm__buf_printf(&shipped, "%s %s %lld %lld %d\n", path, tm__config_text(f->config, path),
                   (long long)tm__config_int(f->config, path),
                   (long long)tm__config_ms(f->config, path), tm__config_bool(f->config, path));
  }
  assert_loads(f, "");
  for (size_t i = 0; i < tm__key_count(); i++) {
    const char *path = tm__key_at(i)->path;
    tm__buf_printf(&bare, "%s %s %lld %lld %d\n", path, tm__config_text(f->config, path),
                   (long long)tm__config_int(f->config, path),
                   (long long)tm__config_ms(f->config, path), tm__config_bool(f->config, path));
  }
  assert_string_equal(shipped.ptr, bare.ptr);
  tm__buf_free(&shipped);
  tm__buf_free(&bare);
  free(text);
}

/* ---- the guide's file ---- */

static const char guide[] = "workflow_persistence:\n"
                            "  backend: 'sqlite'\n"
                            "  sqlite:\n"
                            "    database_path: './data/workflow_state.db'\n"
                            "    enable_wal: true  # Write-Ahead Logging for better performance\n"
                            "    timeout: 30.0     # Connection timeout in seconds\n"
                            "    auto_vacuum: true # Automatic database cleanup\n"
                            "    journal_mode: 'WAL'  # Journal mode for concurrent access\n"
                            "    tables:\n"
                            "      conversations: 'workflow_conversations'\n"
                            "      steps: 'workflow_steps' \n"
                            "      checkpoints: 'workflow_checkpoints'\n"
                            "      sessions: 'workflow_sessions'\n"
                            "%s"
                            "  redis:\n"
                            "    host: 'localhost'\n"
                            "    port: 6379\n"
                            "    db: 2\n"
                            "    password: null\n"
                            "    ssl: false\n"
                            "    session_ttl: 3600\n"
                            "  file:\n"
                            "    storage_directory: './data/workflow_states'\n"
                            "    compression: true\n"
                            "    encryption: false\n"
                            "    max_file_size: 10485760  # 10MB\n"
                            "  general:\n"
                            "    auto_checkpoint: true\n"
                            "    checkpoint_interval: 30    # seconds\n"
                            "    enable_encryption: false\n"
                            "    encryption_key: null       # Set this for encryption\n"
                            "%s"
                            "  redis:\n"
                            "    host: ${AMBIVO_AGENTS_REDIS_HOST:localhost}\n"
                            "    port: ${AMBIVO_AGENTS_REDIS_PORT:6379}\n"
                            "    db: ${AMBIVO_AGENTS_REDIS_DB:0}\n"
                            "    password: ${AMBIVO_AGENTS_REDIS_PASSWORD:}\n";

static void the_guides_file(void **state) {
  fixture *f = *state;
  char text[4096];
  static const char retention[] = "    retention:\n"
                                  "      conversation_ttl: 2592000  # 30 days in seconds\n"
                                  "      checkpoint_ttl: 604800     # 7 days in seconds\n"
                                  "      session_ttl: 86400         # 24 hours in seconds\n"
                                  "      cleanup_interval: 3600     # 1 hour cleanup cycle\n";
  (void)snprintf(text, sizeof(text), guide, retention,
                 "    max_checkpoints_per_session: 100\n"
                 "    enable_compression: true\n"
                 "memory:\n"
                 "  shared_memory: true\n"
                 "  backend: 'redis'  # 'redis' or 'in_memory'\n");
  assert_refused(f, text, NULL, "memory.shared_memory: not supported yet: agents have no memory");
  (void)snprintf(text, sizeof(text), guide, retention,
                 "    max_checkpoints_per_session: 100\n"
                 "memory:\n");
  assert_loads(f, text);
  assert_int_equal(tm__config_ms(f->config, "workflow_persistence.retention.conversation_ttl"),
                   INT64_C(2592000000));
  assert_int_equal(tm__config_ms(f->config, "workflow_persistence.retention.checkpoint_ttl"),
                   604800000);
  assert_int_equal(tm__config_ms(f->config, "workflow_persistence.retention.session_ttl"),
                   86400000);
  assert_int_equal(tm__config_int(f->config, "orchestrator.persistence_config.max_checkpoints"),
                   100);
  assert_int_equal(f->warned, 3); /* the sections for other backends */
  assert_int_equal(tm__config_ms(f->config, "workflow_persistence.sqlite.timeout"), 30000);
  assert_int_equal(tm__config_int(f->config, "memory.redis.port"), 6379);
}

/* ---- the code ---- */

static bool type_fits(const char *getter, const tm_key *key) {
  if (strcmp(getter, "text") == 0) return key->type == TM_KEY_TEXT || key->type == TM_KEY_CHOICE;
  if (strcmp(getter, "int") == 0) return key->type == TM_KEY_INT || key->type == TM_KEY_SIZE;
  if (strcmp(getter, "ms") == 0) return key->type == TM_KEY_DURATION;
  if (strcmp(getter, "number") == 0) return key->type == TM_KEY_NUMBER;
  if (strcmp(getter, "bool") == 0) return key->type == TM_KEY_BOOL;
  if (strcmp(getter, "list") == 0) return key->type == TM_KEY_LIST;
  return strcmp(getter, "is_set") == 0;
}

/* Checks each tm__config_GETTER(..., "path" in a source text; returns how many there are. */
static size_t check_uses(const char *path, const char *text) {
  size_t uses = 0;
  const char *at = text;
  while ((at = strstr(at, "tm__config_")) != NULL) {
    char getter[16], key[128];
    at += strlen("tm__config_");
    if (sscanf(at, "%15[a-z_](%*[^,;\"{],%*[ \n]\"%127[^\"]\"", getter, key) != 2) continue;
    size_t index = tm__key_find(tm__slice(key));
    if (index == TM_NO_KEY) fail_msg("%s asks for the unknown key %s", path, key);
    if (!type_fits(getter, tm__key_at(index))) fail_msg("%s asks for %s as %s", path, key, getter);
    uses++;
  }
  return uses;
}

static size_t check_folder(const char *folder) {
  size_t uses = 0;
  DIR *dir = opendir(folder);
  if (dir == NULL) {
    fail_msg("cannot open %s: run in the root of the checkout", folder);
    return 0;
  }
  for (const struct dirent *e; (e = readdir(dir)) != NULL;) {
    size_t len = strlen(e->d_name);
    char path[512];
    (void)snprintf(path, sizeof(path), "%s/%s", folder, e->d_name);
    if (len < 3 || strcmp(e->d_name + len - 2, ".c") != 0) continue;
    char *text = read_file(path);
    uses += check_uses(path, text);
    free(text);
  }
  (void)closedir(dir);
  return uses;
}

static void the_code_asks_for_known_keys(void **state) {
  (void)state;
  assert_int_equal(check_uses("x",
                              "tm__config_ms(c,\n  \"server.lease\") tm__config_bool(h->config, "
                              "\"workflow_persistence.sqlite.enable_wal\")"),
                   2);
  assert_true(check_folder("host") > 10);
  (void)check_folder("host/api");
  (void)check_folder("host/journal");
  (void)check_folder("host/keeping");
  (void)check_folder("host/storage");
  (void)check_folder("host/bind");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(one_variable_each),
      cmocka_unit_test(the_guides_variables),
      cmocka_unit_test(paths_are_names_and_no_section_is_a_key),
      cmocka_unit_test(defaults_are_values),
      cmocka_unit_test(later_keys_refuse),
      cmocka_unit_test(distances),
      cmocka_unit_test(the_manual_is_true),
      WITH_FIXTURE(the_shipped_file_says_the_defaults),
      WITH_FIXTURE(the_guides_file),
      cmocka_unit_test(the_code_asks_for_known_keys),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
