/* Loads any bytes as agent_config.yaml, through a file in memory: what is taken must be described
 * as JSON with the secret hidden; what is refused must say why. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "config/config.h"
#include "core/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_described(const tm_config *config) {
  tm_buf text = {0};
  json_t *all = NULL, *item;
  size_t i, passwords = 0;
  tm__config_describe(config, &text);
  if (tm__json_parse(&all, tm__buf_view(&text), 8, NULL) != TM_OK) abort();
  json_array_foreach(json_object_get(all, "items"), i, item) {
    const char *key = json_string_value(json_object_get(item, "key"));
    if (strcmp(key, "memory.redis.password") != 0) continue;
    passwords++;
    if (strcmp(json_string_value(json_object_get(item, "value")), "(hidden)") != 0) abort();
  }
  if (passwords != 1) abort();
  json_decref(all);
  tm__buf_free(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const char *const env[] = {"A=1", "AMBIVO_AGENTS_LOG_LEVEL=debug",
                                    "AMBIVO_AGENTS_MEMORY_REDIS_PASSWORD=hunter2", NULL};
  char path[64];
  int fd = memfd_create("agent_config", 0);
  if (fd < 0 || write(fd, data, size) != (ssize_t)size) abort();
  (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
  tm_config_options o = {.file = path, .env = env};
  tm_config *config = NULL;
  tm_error err = {0};
  tm_status s = tm__config_load(&config, &o, &err);
  if ((s == TM_OK) != (config != NULL)) abort();
  if (s == TM_OK) check_described(config);
  if (s != TM_OK && (s != TM_EINVAL || err.message[0] == '\0')) abort();
  tm__config_free(config);
  (void)close(fd);
  return 0;
}
