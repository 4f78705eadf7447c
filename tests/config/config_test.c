/* config_test.c - which value wins, what the getters give, what is refused and in which words, what
 * is shown, and that secrets are not. */
#include "fixture.h"

#include "core/json.h"

#define SQLITE "workflow_persistence.sqlite."

static json_t *described(const fixture *f) {
  tm_buf text = {0};
  json_t *v = NULL;
  tm__config_describe(f->config, &text);
  assert_int_equal(tm__json_parse(&v, tm__buf_view(&text), 8, NULL), TM_OK);
  tm__buf_free(&text);
  return v;
}

/* One described key, "value origin", e.g. "1.5 file:2"; in a static buffer. */
static const char *item(const fixture *f, const char *key) {
  static char shown[256];
  json_t *all = described(f);
  json_t *one;
  size_t i;
  shown[0] = '\0';
  json_array_foreach(json_object_get(all, "items"), i, one) {
    if (strcmp(json_string_value(json_object_get(one, "key")), key) != 0) continue;
    char *value = json_dumps(json_object_get(one, "value"), JSON_ENCODE_ANY | JSON_COMPACT);
    (void)snprintf(shown, sizeof(shown), "%s %s", value,
                   json_string_value(json_object_get(one, "origin")));
    free(value);
  }
  json_decref(all);
  return shown;
}

static void defaults(void **state) {
  fixture *f = *state;
  const char *const *items;
  assert_loads(f, "");
  assert_string_equal(tm__config_text(f->config, "server.listen"), "127.0.0.1:8700");
  assert_int_equal(tm__config_int(f->config, "server.workers"), 0);
  assert_int_equal(tm__config_int(f->config, "server.body_limit"), 1048576);
  assert_int_equal(tm__config_int(f->config, "server.connection_limit"), 1024);
  assert_int_equal(tm__config_ms(f->config, "server.idle_timeout"), 60000);
  assert_int_equal(tm__config_ms(f->config, "server.request_timeout"), 30000);
  assert_int_equal(tm__config_ms(f->config, "server.lease"), 15000);
  assert_int_equal(tm__config_int(f->config, "server.queue_limit"), 64);
  assert_int_equal(tm__config_int(f->config, "server.cache_size"), 64 << 20);
  assert_int_equal(tm__config_list(f->config, "scripts", &items), 1);
  assert_string_equal(items[0], "./scripts");
  assert_int_equal(tm__config_int(f->config, "limits.memory"), 64 << 20);
  assert_int_equal(tm__config_int(f->config, "limits.step_memory"), 8 << 20);
  assert_int_equal(tm__config_ms(f->config, "limits.cpu_slice"), 50);
  assert_int_equal(tm__config_ms(f->config, "limits.load_time"), 2000);
  assert_int_equal(tm__config_int(f->config, "limits.operations"), 16);
  assert_int_equal(tm__config_int(f->config, "limits.system_operations"), 10000);
  assert_int_equal(tm__config_int(f->config, "limits.output"), 256 << 10);
  assert_int_equal(tm__config_int(f->config, "limits.http_response"), 1 << 20);
  assert_string_equal(tm__config_text(f->config, "log.level"), "info");
  assert_string_equal(tm__config_text(f->config, "log.format"), "text");
  assert_string_equal(tm__config_text(f->config, "llm.provider"), "offline");
  assert_int_equal(tm__config_ms(f->config, "orchestrator.session_config.default_timeout"), 0);
  assert_int_equal(tm__config_int(f->config, "orchestrator.error_config.max_retries"), 0);
  assert_int_equal(tm__config_ms(f->config, "orchestrator.error_config.retry_delay"), 1000);
  assert_int_equal(tm__config_ms(f->config, "orchestrator.performance_config.step_timeout"), 60000);
}

static void storage_defaults(void **state) {
  fixture *f = *state;
  assert_loads(f, "");
  assert_string_equal(tm__config_text(f->config, "workflow_persistence.backend"), "sqlite");
  assert_string_equal(tm__config_text(f->config, SQLITE "database_path"),
                      "./data/workflow_state.db");
  assert_true(tm__config_bool(f->config, SQLITE "enable_wal"));
  assert_int_equal(tm__config_ms(f->config, SQLITE "timeout"), 30000);
  assert_string_equal(tm__config_text(f->config, SQLITE "tables.steps"), "workflow_steps");
  assert_true(tm__config_bool(f->config, "workflow_persistence.general.auto_checkpoint"));
  assert_int_equal(tm__config_ms(f->config, "workflow_persistence.general.checkpoint_interval"),
                   30000);
  assert_false(tm__config_is_set(f->config, "workflow_persistence.backend"));
}

static void wrong_questions(void **state) {
  fixture *f = *state;
  const char *const *items;
  assert_loads(f, "server: {workers: 3}\nscripts: [a, b]\nlog: {level: debug}\n");
  assert_string_equal(tm__config_text(f->config, "server.workers"), "");
  assert_int_equal(tm__config_int(f->config, "log.level"), 0);
  assert_int_equal(tm__config_ms(f->config, "server.workers"), 0);
  assert_false(tm__config_bool(f->config, "server.workers"));
  assert_true(tm__config_number(f->config, "server.workers") <= 0);
  assert_int_equal(tm__config_list(f->config, "server.workers", &items), 0);
  assert_string_equal(tm__config_text(f->config, "no.such.key"), "");
  assert_false(tm__config_is_set(f->config, "no.such.key"));
  assert_int_equal(tm__config_list(f->config, "scripts", &items), 2);
  assert_string_equal(items[1], "b");
  assert_true(tm__config_is_set(f->config, "scripts"));
}

static void who_wins(void **state) {
  fixture *f = *state;
  const char *key = "server.queue_limit";
  assert_loads(f, "");
  assert_string_equal(item(f, key), "64 default");
  assert_loads(f, "server:\n\n  queue_limit: 1\n");
  assert_string_equal(item(f, key), "1 file:3");
  write_text(f->env_file, "AMBIVO_AGENTS_SERVER_QUEUE_LIMIT=2\n");
  assert_int_equal(load_now(f), TM_OK);
  assert_string_equal(item(f, key), "2 env file AMBIVO_AGENTS_SERVER_QUEUE_LIMIT");
  f->env[0] = "AMBIVO_AGENTS_SERVER_QUEUE_LIMIT=3";
  assert_int_equal(load_now(f), TM_OK);
  assert_string_equal(item(f, key), "3 env AMBIVO_AGENTS_SERVER_QUEUE_LIMIT");
  f->set[0] = "server.queue_limit=4";
  assert_int_equal(load_now(f), TM_OK);
  assert_string_equal(item(f, key), "4 set");
  assert_int_equal(tm__config_int(f->config, key), 4);
  assert_int_equal(f->warned, 0);
}

static void a_weak_value_is_checked_too(void **state) {
  fixture *f = *state;
  f->set[0] = "server.queue_limit=4";
  assert_refused(f, "server:\n  queue_limit: many\n", "2:16: ", "server.queue_limit: expected");
}

static void types_in_the_file(void **state) {
  fixture *f = *state;
  assert_loads(f, "server: {body_limit: 64k, lease: 1.5, idle_timeout: \"2m\"}\n"
                  "limits: {memory: \"10MB\", step_memory: 1MiB, cpu_slice: 500ms}\n"
                  "log: {level: WARNING}\nworkflow_persistence: {sqlite: {auto_vacuum: False}}\n");
  assert_string_equal(item(f, "server.body_limit"), "65536 file:1");
  assert_string_equal(item(f, "server.lease"), "1.5 file:1");
  assert_string_equal(item(f, "server.idle_timeout"), "120 file:1");
  assert_string_equal(item(f, "limits.memory"), "10485760 file:2");
  assert_string_equal(item(f, "limits.step_memory"), "1048576 file:2");
  assert_string_equal(item(f, "limits.cpu_slice"), "0.5 file:2");
  assert_string_equal(item(f, "log.level"), "\"warning\" file:3");
  assert_string_equal(item(f, SQLITE "auto_vacuum"), "false file:4");
  assert_string_equal(item(f, "scripts"), "[\"./scripts\"] default");
  assert_string_equal(item(f, "llm.model"), "null default");
}

static void wrong_types(void **state) {
  fixture *f = *state;
  assert_refused(f, "workflow_persistence:\n  sqlite:\n    auto_vacuum: yes\n", "3:18: ",
                 SQLITE "auto_vacuum: expected true or false, got 'yes' (yes, no, on and off");
  assert_refused(f, "workflow_persistence: {sqlite: {auto_vacuum: \"true\"}}\n",
                 "1:46: ", "got 'true' in quotes; remove them");
  assert_refused(f, "workflow_persistence: {sqlite: {auto_vacuum: 1}}\n", NULL,
                 "expected true or false, got the number '1'");
  assert_refused(f, "server: {workers: \"4\"}\n", "1:19: ", "got '4' in quotes; remove them");
  assert_refused(f, "server: {workers: 4.5}\n", NULL, "expected an integer from 0 to 256");
  assert_refused(f, "server: {workers: 0x10}\n", NULL, "expected an integer");
  assert_refused(f, "server: {workers: 010}\n", NULL, "expected an integer");
  assert_refused(f, "server: {workers: true}\n", NULL, "got the boolean 'true'");
  assert_refused(f, "server:\n  workers:\n", "2:11: ", "expected an integer from 0 to 256, got no");
  assert_refused(f, "server: {workers: ~}\n", NULL, "got null '~'");
  assert_refused(f, "server: {lease: soon}\n", NULL, "expected a duration, or such as \"30s\"");
  assert_refused(f, "server: {body_limit: 1TB}\n", NULL, "expected a size in bytes, or such as");
  assert_refused(f, "workflow_persistence: {sqlite: {database_path: 5}}\n", NULL,
                 "got the number '5'; put it in quotes if it is text");
  assert_refused(
      f, "log: {level: warn}\n",
      "1:14: ", "expected one of debug, info, warning, error, got 'warn'; did you mean 'warning'?");
}

static void out_of_range(void **state) {
  fixture *f = *state;
  assert_refused(f, "server: {workers: -1}\n", NULL, "from 0 to 256, got the number '-1'");
  assert_refused(f, "server: {workers: 257}\n", NULL, "from 0 to 256");
  assert_refused(f, "server: {workers: 99999999999999999999}\n", NULL, "from 0 to 256");
  assert_refused(f, "server: {body_limit: 65MiB}\n", NULL, "from 1KiB to 64MiB, got '65MiB'");
  assert_refused(f, "server: {body_limit: 99999999999999999999}\n", NULL, "from 1KiB");
  assert_refused(f, "server: {lease: 2h}\n", NULL, "from 1s to 1h, got '2h'");
  assert_refused(f, "server: {lease: 500ms}\n", NULL, "from 1s to 1h");
  assert_refused(f, "server: {idle_timeout: 1.5}\n", NULL, "in whole seconds");
  assert_refused(f, "server: {lease: 1.0005}\n", NULL, "expected a duration"); /* half a ms */
}

static void forms(void **state) {
  fixture *f = *state;
  assert_loads(f, "server: {listen: \"[::1]:0\"}\n");
  assert_loads(f, "server: {listen: localhost:65535}\n");
  assert_refused(f, "server: {listen: \"8700\"}\n", NULL, "expected an address such as");
  assert_refused(f, "server: {listen: \":8700\"}\n", NULL, "expected an address");
  assert_refused(f, "server: {listen: \"a:65536\"}\n", NULL, "expected an address");
  assert_refused(f, "server: {listen: \"::1:80\"}\n", NULL, "expected an address");
  assert_refused(f, "server: {listen: \"a b:80\"}\n", NULL, "expected an address");
  assert_refused(f, "workflow_persistence: {sqlite: {database_path: \"\"}}\n", NULL, "got nothing");
  assert_refused(f, "workflow_persistence: {sqlite: {database_path: \":memory:\"}}\n", NULL,
                 "expected the path of a file");
  assert_refused(f, "workflow_persistence: {sqlite: {database_path: \"file:x?mode=ro\"}}\n", NULL,
                 "expected the path of a file");
  assert_loads(f, "workflow_persistence: {sqlite: {tables: {steps: _Steps2}}}\n");
  assert_refused(f, "workflow_persistence: {sqlite: {tables: {steps: \"a; DROP\"}}}\n", NULL,
                 "expected a name of letters");
  assert_refused(f, "workflow_persistence: {sqlite: {tables: {steps: 2a}}}\n", NULL, "letters");
  assert_refused(f, "workflow_persistence: {sqlite: {tables: {steps: SQLITE_x}}}\n", NULL, "name");
}

static void unknown_keys(void **state) {
  fixture *f = *state;
  assert_refused(f, "workflow_persistance:\n  backend: sqlite\n", "1:1: ",
                 "unknown key 'workflow_persistance'; did you mean 'workflow_persistence'?");
  assert_refused(f, "server:\n  lisen: x\n",
                 "2:3: ", "unknown key 'lisen' in 'server'; did you mean 'server.listen'?");
  assert_refused(f, "listen: x\n", "1:1: ", "did you mean 'server.listen'?");
  assert_refused(f, "Server: {}\n", "1:1: ", "did you mean 'server'?");
  assert_refused(f, "server.listen: x\n", "1:1: ", "keys are nested");
  assert_refused(f, "database: {}\n", "1:1: ", "'database'; `tidemill config` shows all keys");
  assert_refused(f, "memory:\n  redis:\n    prot: 1\n", "3:5: ", "'memory.redis.port'?");
  f->set[0] = "server.lsten=x";
  assert_int_equal(load_yaml(f, ""), TM_EINVAL);
  assert_has(f->err.message, "set server.lsten: unknown key; did you mean 'server.listen'?");
  f->set[0] = "workers=4";
  assert_int_equal(load_yaml(f, ""), TM_EINVAL);
  assert_has(f->err.message, "set workers: unknown key; did you mean 'server.workers'?");
  f->set[0] = "foo.bar=x";
  assert_int_equal(load_yaml(f, ""), TM_EINVAL);
  assert_has(f->err.message, "set foo.bar: unknown key; `tidemill config` shows all keys");
  f->set[0] = "server.listen";
  assert_int_equal(load_yaml(f, ""), TM_EINVAL);
  assert_has(f->err.message, "expected server.listen=value");
}

static void all_problems_at_once(void **state) {
  fixture *f = *state;
  f->env[0] = "AMBIVO_AGENTS_SERVER_LEASE=never";
  f->set[0] = "log.format=xml";
  assert_refused(f, "a: 1\nserver: {workers: x}\n", "1:1: ", "unknown key 'a'");
  assert_has(f->err.message, "c.yaml:2:19: server.workers: ");
  assert_has(f->err.message, "\nAMBIVO_AGENTS_SERVER_LEASE: server.lease: expected a duration");
  assert_has(f->err.message, "\nset: log.format: expected one of text, json, got 'xml'");
  tm_buf many = {0};
  for (int i = 0; i < 50; i++) {
    tm__buf_printf(&many, "unknown_%d: 1\n", i);
  }
  assert_refused(f, many.ptr, "1:1: ", " more)");
  assert_true(strlen(f->err.message) < sizeof(f->err.message) - 1);
  tm__buf_free(&many);
}

static void not_supported_yet(void **state) {
  fixture *f = *state;
  assert_refused(f, "memory:\n  backend: redis\n",
                 "2:12: ", "'redis' is not supported yet; use one of in_memory");
  assert_refused(f, "llm: {api_key: sk-very-secret}\n", NULL, "llm.api_key: not supported yet");
  assert_lacks(f->err.message, "sk-very");
  assert_refused(f, "llm: {provider: openai}\n", NULL, "'openai' is not supported yet");
  assert_refused(f, "llm: {model: x}\n", NULL, "llm.model: not supported yet");
  assert_refused(f, "memory: {backend: redis}\n", NULL, "use one of in_memory");
  assert_loads(f, "orchestrator: {session_config: {concurrency: merge}}\n");
  assert_refused(f, "orchestrator: {session_config: {concurrency: merged}}\n", NULL, "interrupt");
  assert_loads(f, "workflow_persistence:\n  sqlite: {retention: {conversation_ttl: 0}}\n"
                  "  general: {enable_encryption: false, encryption_key: null}\n"
                  "llm: {provider: offline, api_key: \"\", model: }\ntenants: {isolation: false}\n"
                  "orchestrator: {session_config: {concurrency: queue, tenant_id: null}}\n");
}

#define KEPT "workflow_persistence.retention."

/* Two names of one setting. */
static void says_the_same_by_two_names(void **state) {
  fixture *f = *state;
  assert_loads(f, "workflow_persistence:\n  retention: {session_ttl: 60, cleanup_interval: 5}\n");
  assert_string_equal(item(f, "workflow_persistence.sqlite.retention.session_ttl"), "60 file:2");
  assert_string_equal(item(f, "orchestrator.persistence_config.session_ttl"), "60 file:2");
  assert_string_equal(item(f, "workflow_persistence.redis.session_ttl"), "0 default");
  assert_loads(f, "orchestrator: {persistence_config: {session_ttl: 1h, max_checkpoints: 3}}\n");
  assert_int_equal(tm__config_ms(f->config, KEPT "session_ttl"), 3600000);
  assert_int_equal(
      tm__config_int(f->config, "workflow_persistence.general.max_checkpoints_per_session"), 3);
  assert_loads(f, "workflow_persistence:\n  retention: {conversation_ttl: 1d}\n"
                  "  sqlite: {retention: {conversation_ttl: 86400}}\n");
  assert_refused(f,
                 "workflow_persistence:\n  retention: {conversation_ttl: 1d}\n"
                 "  sqlite: {retention: {conversation_ttl: 86401}}\n",
                 "3:",
                 "workflow_persistence.sqlite.retention.conversation_ttl contradicts " KEPT
                 "conversation_ttl in ");
  assert_has(f->err.message, "c.yaml:2");
  assert_refused(f,
                 "workflow_persistence: {general: {max_checkpoints_per_session: 1}}\n"
                 "orchestrator: {persistence_config: {max_checkpoints: 2}}\n",
                 "2:", "which means the same; remove one");
  assert_loads(f, "workflow_persistence:\n  backend: memory\n"
                  "  retention: {conversation_ttl: 7}\n"
                  "  sqlite: {retention: {conversation_ttl: 5}}\n"); /* for another backend */
  assert_int_equal(tm__config_ms(f->config, KEPT "conversation_ttl"), 7000);
  assert_loads(f, "workflow_persistence:\n  backend: redis\n  redis: {session_ttl: 90}\n");
  assert_int_equal(tm__config_ms(f->config, KEPT "session_ttl"), 90000);
  assert_refused(f, "workflow_persistence: {retention: {cleanup_interval: 0.5}}\n", "1:", "1");
}

#define FLAT(keys) "orchestrator: {persistence_config: {" keys "}}\n"

/* As the guide passes it to the orchestrator. */
static void takes_the_flat_form(void **state) {
  fixture *f = *state;
  assert_loads(f, FLAT("backend: sqlite, database_path: ./data/flat.db, auto_checkpoint: true,"
                       "checkpoint_interval: 31, max_checkpoints: 100, compression: true"));
  assert_string_equal(tm__config_text(f->config, "workflow_persistence.sqlite.database_path"),
                      "./data/flat.db");
  assert_string_equal(item(f, "workflow_persistence.general.checkpoint_interval"), "31 file:1");
  assert_string_equal(item(f, "workflow_persistence.general.enable_compression"), "true file:1");
  assert_loads(f, FLAT("backend: file, state_directory: ./flat/, auto_save: true, "
                       "compression: false"));
  assert_string_equal(tm__config_text(f->config, "workflow_persistence.backend"), "file");
  assert_string_equal(tm__config_text(f->config, "workflow_persistence.file.storage_directory"),
                      "./flat/");
  assert_false(tm__config_bool(f->config, "workflow_persistence.file.compression"));
  assert_loads(f, FLAT("backend: redis, redis_host: far, redis_port: 6380, redis_db: 3, "
                       "session_ttl: 3600"));
  assert_string_equal(tm__config_text(f->config, "workflow_persistence.redis.host"), "far");
  assert_int_equal(tm__config_int(f->config, "workflow_persistence.redis.port"), 6380);
  assert_int_equal(tm__config_int(f->config, "workflow_persistence.redis.db"), 3);
  assert_int_equal(tm__config_ms(f->config, KEPT "session_ttl"), 3600000);
  assert_loads(f, FLAT("tenant_isolation: true, encryption: true, encryption_key: s3cret, "
                       "auto_save: false"));
  assert_true(tm__config_bool(f->config, "tenants.isolation"));
  assert_true(tm__config_bool(f->config, "workflow_persistence.general.enable_encryption"));
  assert_string_equal(tm__config_text(f->config, "workflow_persistence.general.encryption_key"),
                      "s3cret");
  assert_string_equal(tm__config_text(f->config, "orchestrator.persistence_config.encryption_key"),
                      "");
  assert_false(tm__config_bool(f->config, "orchestrator.persistence_config.auto_save"));
}

static void refuses_a_flat_form_that_contradicts(void **state) {
  fixture *f = *state;
  assert_loads(f, "workflow_persistence: {backend: file}\n" FLAT("backend: FILE"));
  assert_refused(f, "workflow_persistence: {backend: file}\n" FLAT("backend: sqlite"), "2:",
                 "orchestrator.persistence_config.backend contradicts workflow_persistence.backend "
                 "in ");
  assert_refused(f, "workflow_persistence: {sqlite: {database_path: a}}\n" FLAT("database_path: b"),
                 "2:", "remove one");
  assert_refused(
      f,
      "workflow_persistence: {general: {encryption_key: first}}\n" FLAT("encryption_key: second"),
      "2:", "remove one");
  assert_lacks(f->err.message, "first");
  assert_lacks(f->err.message, "second");
  assert_loads(
      f, "workflow_persistence: {general: {encryption_key: same}}\n" FLAT("encryption_key: same"));
}

static void waits_for_sqlite_as_for_any_store(void **state) {
  fixture *f = *state;
  assert_loads(f, "workflow_persistence:\n  general: {timeout: 7}\n");
  assert_string_equal(item(f, "workflow_persistence.sqlite.timeout"), "7 file:2");
  assert_loads(f, "workflow_persistence:\n  sqlite: {timeout: 0}\n");
  assert_string_equal(item(f, "workflow_persistence.general.timeout"), "null default");
  assert_refused(f, "workflow_persistence:\n  general: {timeout: 7}\n  sqlite: {timeout: 8}\n",
                 "3:",
                 "workflow_persistence.sqlite.timeout contradicts "
                 "workflow_persistence.general.timeout in ");
  assert_loads(f, "workflow_persistence:\n  general: {timeout: 7}\n  sqlite: {timeout: 7}\n");
  assert_loads(f, "workflow_persistence:\n  general: {timeout: }\n  sqlite: {timeout: 8}\n");
  assert_int_equal(tm__config_ms(f->config, "workflow_persistence.sqlite.timeout"), 8000);
  assert_loads(f, "workflow_persistence:\n  backend: file\n  general: {timeout: 7}\n");
  assert_int_equal(f->warned, 0); /* what follows from it is no section for another backend */
  assert_refused(f, "workflow_persistence: {general: {timeout: 0}}\n", "1:", "general.timeout");
}

static void bounds_the_prefix_of_sessions(void **state) {
  fixture *f = *state;
  char text[200];
  assert_loads(f, "orchestrator: {session_config: {session_prefix: tenant_7_}}\n");
  (void)snprintf(text, sizeof(text), "orchestrator: {session_config: {session_prefix: %065d}}\n",
                 0);
  (void)snprintf(strstr(text, "prefix: ") + 8, 80, "a%064d}}\n", 0);
  assert_refused(f, text, "1", "session_prefix has at most 64 bytes");
  assert_refused(f, "orchestrator: {session_config: {session_prefix: \"a\\tb\"}}\n", "1",
                 "no control characters");
}

#define WEBHOOK "webhooks: {url: \"https://x/hook\", secret: \"s\"}\n"

static void a_webhook_is_whole(void **state) {
  fixture *f = *state;
  assert_loads(f, WEBHOOK);
  assert_int_equal(tm__config_ms(f->config, "webhooks.give_up_after"), 24 * 3600 * 1000);
  assert_loads(f, WEBHOOK "workflow_persistence: {retention: {conversation_ttl: 24h}}\n");
  assert_loads(f, "workflow_persistence: {retention: {conversation_ttl: 1h}}\n");
  assert_refused(f, WEBHOOK "workflow_persistence: {retention: {conversation_ttl: 23h}}\n", "2",
                 "would be kept longer, for their events");
  assert_loads(f, WEBHOOK "workflow_persistence: {retention: {session_ttl: 24h}}\n");
  assert_refused(f, WEBHOOK "workflow_persistence: {retention: {session_ttl: 23h}}\n", "2",
                 "would be kept longer, for their events");
  assert_refused(f, "webhooks: {url: \"http://x\"}\n", "1", "belong together; set both");
  assert_refused(f, "webhooks: {secret: \"x\"}\n", "1", "belong together; set both");
  assert_refused(f, "webhooks: {url: \"ftp://x\", secret: \"s\"}\n", "1", "http:// or https://");
  assert_loads(f, WEBHOOK "tenants: {isolation: true}\n");
}

/* It often holds a password or a token. */
static void a_webhook_is_an_address_that_is_not_shown(void **state) {
  fixture *f = *state;
  static const char *const bad[] = {"http://a b",    "http://a/\\tb",  "http://",
                                    "https:///hook", "http://?x=a.de", "http://#a",
                                    "http://:80",    "httpx://a"};
  for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
    char text[128];
    (void)snprintf(text, sizeof(text), "webhooks: {url: \"%s\", secret: \"s\"}\n", bad[i]);
    assert_refused(f, text, "1", "http:// or https://");
  }
  char *text = calloc(1, 9000);
  (void)snprintf(text, 9000, "webhooks: {secret: \"s\", url: \"http://a/%08192d\"}\n", 0);
  assert_refused(f, text, "1", "8192 bytes");
  free(text);
  assert_loads(f, "webhooks: {url: \"HTTPS://u:pass@[::1]:80/t?a=b\", secret: \"s\"}\n");
  json_t *all = described(f);
  char *shown = json_dumps(all, 0);
  assert_null(strstr(shown, "pass@"));
  free(shown);
  json_decref(all);
}

static void contradictions(void **state) {
  fixture *f = *state;
  assert_refused(f,
                 "workflow_persistence:\n  sqlite:\n    enable_wal: true\n"
                 "    journal_mode: DELETE\n",
                 "4: ", "journal_mode: DELETE contradicts enable_wal: true in ");
  assert_has(f->err.message, "c.yaml:3; remove one");
  assert_loads(f, "workflow_persistence: {sqlite: {journal_mode: delete}}\n");
  assert_false(tm__config_bool(f->config, SQLITE "enable_wal"));
  assert_string_equal(item(f, SQLITE "enable_wal"), "false file:1");
  assert_loads(f, "workflow_persistence: {sqlite: {enable_wal: false}}\n");
  assert_string_equal(item(f, SQLITE "journal_mode"), "\"DELETE\" file:1");
  assert_loads(f, "workflow_persistence: {sqlite: {enable_wal: true, journal_mode: wal}}\n");
  assert_refused(f, "workflow_persistence: {sqlite: {journal_mode: \"OFF\"}}\n", NULL,
                 "expected one of WAL, DELETE");
  assert_refused(f, "workflow_persistence: {sqlite: {tables: {steps: Workflow_Sessions}}}\n",
                 "1: ", "have the same name");
  assert_refused(f, "limits: {memory: 8MiB, step_memory: 9MiB}\n", "1: ", "is more than");
  assert_refused(f, "workflow_persistence:\n  backend: redis\n  redis:\n    ssl: true\n",
                 "4: ", "run stunnel beside it");
}

static void skipped_sections(void **state) {
  fixture *f = *state;
  assert_loads(f, "redis: {host: \"${NOT_LOOKED_AT}\"}\ndocker:\n  images: [a]\nanalytics: 1\n"
                  "agent_capabilities: {}\nknowledge_base:\nweb_search: {}\napi_agent: {}\n");
  assert_int_equal(f->warned, 7);
  assert_has(f->warnings.ptr, "c.yaml:2:1: the section 'docker' means nothing here and is skipped");
  assert_refused(f, "server: {docker: 1}\n", NULL, "unknown key 'docker'");
}

static void unused_sections(void **state) {
  fixture *f = *state;
  assert_loads(f, "workflow_persistence:\n  backend: sqlite\n  file: {encryption: true}\n"
                  "  redis:\n    ssl: true\n    db: 3\n  sqlite: {timeout: 5}\n");
  assert_int_equal(f->warned, 2);
  assert_has(f->warnings.ptr, "c.yaml:3: workflow_persistence.file.* has no effect: "
                              "workflow_persistence.backend is 'sqlite'");
  assert_has(f->warnings.ptr, "c.yaml:6: workflow_persistence.redis.* has no effect");
  assert_loads(f, "workflow_persistence: {backend: memory, sqlite: {timeout: 5}}\n");
  assert_has(f->warnings.ptr, "c.yaml:1: workflow_persistence.sqlite.* has no effect: "
                              "workflow_persistence.backend is 'memory'");
}

static void secrets_stay_hidden(void **state) {
  fixture *f = *state;
  assert_loads(f, "workflow_persistence: {redis: {password: hunter2}}\n");
  assert_string_equal(item(f, "workflow_persistence.redis.password"), "\"(hidden)\" file:1");
  assert_string_equal(tm__config_text(f->config, "workflow_persistence.redis.password"), "hunter2");
  json_t *all = described(f);
  char *text = json_dumps(all, 0);
  assert_lacks(text, "hunter2");
  free(text);
  json_decref(all);
  assert_refused(f, "workflow_persistence: {redis: {password: 4711}}\n", NULL,
                 "got something else (hidden); put it in quotes");
  assert_lacks(f->err.message, "4711");
  assert_refused(f, "workflow_persistence: {redis: {pasword: hunter2}}\n", NULL, "redis.password'");
  assert_lacks(f->err.message, "hunter2");
  f->set[0] = "redis.password=hunter2";
  f->set[1] = "llm.api_key=hunter2";
  assert_int_equal(load_yaml(f, ""), TM_EINVAL);
  assert_has(f->err.message, "set redis.password: unknown key");
  assert_has(f->err.message, "llm.api_key: not supported yet");
  assert_lacks(f->err.message, "hunter2");
}

/* Keys are taken over by somebody who keeps them better. */
static void secrets_are_forgotten(void **state) {
  fixture *f = *state;
  static const char one[] = "workflow_persistence.general.encryption_key";
  static const char many[] = "workflow_persistence.general.previous_encryption_keys";
  const char *const *items;
  assert_loads(f, "workflow_persistence:\n  general:\n    encryption_key: hunter2\n"
                  "    previous_encryption_keys: [hunter3, \"4711\"]\n");
  assert_string_equal(tm__config_text(f->config, one), "hunter2");
  assert_int_equal(tm__config_list(f->config, many, &items), 2);
  assert_string_equal(items[1], "4711");
  assert_string_equal(item(f, many), "[\"(hidden)\",\"(hidden)\"] file:4");
  tm__config_forget(f->config, one);
  tm__config_forget(f->config, many);
  assert_string_equal(tm__config_text(f->config, one), "");
  assert_int_equal(tm__config_list(f->config, many, &items), 2);
  assert_string_equal(items[0], "");
  assert_string_equal(items[1], "");
  assert_string_equal(item(f, one), "\"(hidden)\" file:3");
  tm__config_forget(f->config, "log.level"); /* no secret */
  assert_string_equal(tm__config_text(f->config, "log.level"), "info");
  assert_refused(f, "workflow_persistence: {general: {previous_encryption_keys: [4711]}}\n", NULL,
                 "put it in quotes");
  assert_lacks(f->err.message, "4711");
}

static void settings(void **state) {
  fixture *f = *state;
  const char *const *items;
  f->set[0] = "scripts=a , b/c";
  f->set[1] = "log.level=error";
  f->set[2] = "log.level=debug";
  assert_loads(f, "");
  assert_int_equal(tm__config_list(f->config, "scripts", &items), 2);
  assert_string_equal(items[0], "a");
  assert_string_equal(items[1], "b/c");
  assert_string_equal(tm__config_text(f->config, "log.level"), "debug"); /* the last one */
  f->set[0] = "scripts=";
  assert_int_equal(load_now(f), TM_EINVAL);
  assert_has(f->err.message, "scripts: expected a list of 1 to 64 texts, got 0");
  f->set[0] = "scripts=a,,b";
  assert_int_equal(load_now(f), TM_EINVAL);
  assert_has(f->err.message, "item 2 of the list is empty");
}

static void the_process_environment(void **state) {
  fixture *f = *state;
  tm_config_options o = {.file = f->file};
  write_text(f->file, "");
  assert_int_equal(setenv("AMBIVO_AGENTS_SERVER_QUEUE_LIMIT", "77", 1), 0);
  assert_int_equal(tm__config_load(&f->config, &o, NULL), TM_OK);
  assert_int_equal(unsetenv("AMBIVO_AGENTS_SERVER_QUEUE_LIMIT"), 0);
  assert_int_equal(tm__config_int(f->config, "server.queue_limit"), 77);
}

static void the_file_in_the_working_directory(void **state) {
  fixture *f = *state;
  char before[4096];
  tm_config_options o = {.env = f->env};
  assert_non_null(getcwd(before, sizeof(before)));
  assert_int_equal(chdir(f->folder), 0);
  tm_status absent = tm__config_load(&f->config, &o, NULL);
  tm__config_free(f->config);
  write_text("agent_config.yaml", "server: {queue_limit: 5}\n");
  tm_status present = tm__config_load(&f->config, &o, NULL);
  int64_t limit = present == TM_OK ? tm__config_int(f->config, "server.queue_limit") : 0;
  (void)unlink("agent_config.yaml");
  assert_int_equal(chdir(before), 0);
  assert_int_equal(absent, TM_OK);
  assert_int_equal(present, TM_OK);
  assert_int_equal(limit, 5);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      WITH_FIXTURE(defaults),
      WITH_FIXTURE(storage_defaults),
      WITH_FIXTURE(wrong_questions),
      WITH_FIXTURE(who_wins),
      WITH_FIXTURE(a_weak_value_is_checked_too),
      WITH_FIXTURE(types_in_the_file),
      WITH_FIXTURE(wrong_types),
      WITH_FIXTURE(out_of_range),
      WITH_FIXTURE(forms),
      WITH_FIXTURE(unknown_keys),
      WITH_FIXTURE(all_problems_at_once),
      WITH_FIXTURE(not_supported_yet),
      WITH_FIXTURE(says_the_same_by_two_names),
      WITH_FIXTURE(takes_the_flat_form),
      WITH_FIXTURE(refuses_a_flat_form_that_contradicts),
      WITH_FIXTURE(waits_for_sqlite_as_for_any_store),
      WITH_FIXTURE(bounds_the_prefix_of_sessions),
      WITH_FIXTURE(a_webhook_is_whole),
      WITH_FIXTURE(a_webhook_is_an_address_that_is_not_shown),
      WITH_FIXTURE(contradictions),
      WITH_FIXTURE(skipped_sections),
      WITH_FIXTURE(unused_sections),
      WITH_FIXTURE(secrets_stay_hidden),
      WITH_FIXTURE(secrets_are_forgotten),
      WITH_FIXTURE(settings),
      WITH_FIXTURE(the_process_environment),
      WITH_FIXTURE(the_file_in_the_working_directory),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
