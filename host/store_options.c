/* store_options.c - what the configuration says about the store, as its backend reads it. */
#include <stdlib.h>
#include <string.h>

#include "host.h"

#define KEY(name) "workflow_persistence." name

static tm_status sqlite_options(tm_host_store *s, const tm_config *c, tm_error *err) {
  (void)err;
  tm_store_options *o = &s->options;
  o->location = tm__config_text(c, KEY("sqlite.database_path"));
  o->auto_vacuum = tm__config_bool(c, KEY("sqlite.auto_vacuum"));
  o->wal = tm__config_bool(c, KEY("sqlite.enable_wal"));
  o->tables[0] = tm__config_text(c, KEY("sqlite.tables.conversations"));
  o->tables[1] = tm__config_text(c, KEY("sqlite.tables.steps"));
  o->tables[2] = tm__config_text(c, KEY("sqlite.tables.checkpoints"));
  o->tables[3] = tm__config_text(c, KEY("sqlite.tables.sessions"));
  return TM_OK;
}

static tm_status file_options(tm_host_store *s, const tm_config *c, tm_error *err) {
  (void)err;
  s->options.location = tm__config_text(c, KEY("file.storage_directory"));
  s->options.record_bytes_max = (size_t)tm__config_int(c, KEY("file.max_file_size"));
  return TM_OK;
}

static tm_status redis_options(tm_host_store *s, const tm_config *c, tm_error *err) {
  tm_buf b = {0};
  tm__buf_printf(&b, "%s:%lld/%lld", tm__config_text(c, KEY("redis.host")),
                 (long long)tm__config_int(c, KEY("redis.port")),
                 (long long)tm__config_int(c, KEY("redis.db")));
  s->location = tm__buf_take(&b);
  if (s->location == NULL) return tm__fail_memory(err, "the store's place");
  s->options.location = s->location;
  s->options.password = tm__config_text(c, KEY("redis.password"));
  return TM_OK;
}

static tm_status postgres_options(tm_host_store *s, const tm_config *c, tm_error *err) {
  (void)err;
  s->options.location = tm__config_text(c, KEY("postgres.url"));
  s->words = tm__config_bool(c, KEY("postgres.notify"));
  return TM_OK;
}

static tm_status memory_options(tm_host_store *s, const tm_config *c, tm_error *err) {
  (void)c, (void)err;
  s->options.location = "";
  return TM_OK;
}

static const struct kind {
  const char *backend;
  tm_status (*fill)(tm_host_store *s, const tm_config *c, tm_error *err);
  int64_t timeout_ms; /* where the configuration says nothing */
} kinds[] = {
    {"sqlite", sqlite_options, 30000},     {"memory", memory_options, 0},
    {"file", file_options, 30000},         {"redis", redis_options, 5000},
    {"postgres", postgres_options, 10000},
};

static const struct kind *kind_of(const char *backend) {
  for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
    if (strcmp(kinds[i].backend, backend) == 0) return &kinds[i];
  return NULL;
}

int64_t tm__host_store_timeout(const tm_config *c, const char *backend) {
  const struct kind *k = kind_of(backend);
  int64_t all = tm__config_ms(c, KEY("general.timeout"));
  if (strcmp(backend, "sqlite") == 0 && tm__config_is_set(c, KEY("sqlite.timeout")))
    return tm__config_ms(c, KEY("sqlite.timeout"));
  return all > 0 || k == NULL ? all : k->timeout_ms;
}

/* One of PostgreSQL has a process of the server for each of its connections. */
static size_t tenants_open(const tm_config *c, const char *backend) {
  int64_t set = tm__config_int(c, "tenants.open_stores");
  if (set > 0) return (size_t)set;
  return strcmp(backend, "postgres") == 0 ? 8 : 64;
}

tm_status tm__host_store(tm_host_store *out, const tm_host *h, tm_error *err) {
  const char *backend = tm__config_text(h->config, KEY("backend"));
  const struct kind *k = kind_of(backend);
  *out = (tm_host_store){.backend = backend,
                         .tenants_open = tenants_open(h->config, backend),
                         .options = {.location = "",
                                     .timeout_ms = tm__host_store_timeout(h->config, backend),
                                     .now_ms = h->clock.now,
                                     .now_ud = h->clock.ud}};
  return k != NULL ? k->fill(out, h->config, err) : TM_OK; /* tm__storage_open refuses it by name */
}

void tm__host_store_clear(tm_host_store *s) {
  free(s->location);
  *s = (tm_host_store){0};
}
