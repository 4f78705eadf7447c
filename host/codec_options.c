/* codec_options.c - what the configuration says about how bodies are kept, and the keys for it. */
#include <stdio.h>
#include <string.h>

#include "host.h"

static bool in_files(const tm_config *c) {
  return strcmp(tm__config_text(c, "workflow_persistence.backend"), "file") == 0;
}

#define NAME_SIZE (TM_CONFIG_PLACE + 64)

/* A key with where its value comes from. */
static const char *name_of(const tm_config *c, const char *path, char out[NAME_SIZE]) {
  char place[TM_CONFIG_PLACE];
  tm__config_place(c, path, place);
  (void)snprintf(out, NAME_SIZE, "%s: %s", place, path);
  return out;
}

/* The guide's switches of the backend `file` mean the same for it. */
bool tm__host_compresses(const tm_config *c) {
  return tm__config_bool(c, "workflow_persistence.general.enable_compression") ||
         (in_files(c) && tm__config_bool(c, "workflow_persistence.file.compression"));
}

#define SEALS "workflow_persistence.general.enable_encryption"

bool tm__host_seals(const tm_config *c) {
  return tm__config_bool(c, SEALS) ||
         (in_files(c) && tm__config_bool(c, "workflow_persistence.file.encryption"));
}

static tm_status no_key(const tm_config *c, tm_error *err) {
  char name[NAME_SIZE];
  bool all = tm__config_bool(c, SEALS);
  return tm__keyring_none(name_of(c, all ? SEALS : "workflow_persistence.file.encryption", name),
                          err);
}

static tm_status open_keyring(tm_host *h, tm_error *err) {
  static const char current[] = "workflow_persistence.general.encryption_key";
  static const char previous[] = "workflow_persistence.general.previous_encryption_keys";
  char current_name[NAME_SIZE], previous_name[NAME_SIZE];
  tm_keyring_options o = {
      .current = tm__config_text(h->config, current),
      .current_name = name_of(h->config, current, current_name),
      .previous_name = name_of(h->config, previous, previous_name),
      .tenants = tm__config_text(h->config, "workflow_persistence.general.tenant_keys"),
  };
  o.previous_count = tm__config_list(h->config, previous, &o.previous);
  tm_status s = tm__keyring_new(&h->keys, &o, err);
  tm__config_forget(h->config, current);
  tm__config_forget(h->config, previous);
  return s;
}

tm_status tm__host_open_keys(tm_host *h, tm_error *err) {
  tm_status s = open_keyring(h, err);
  if (s != TM_OK) return s;
  const tm_codec_options o = {
      .keys = h->keys,
      .seal = tm__host_seals(h->config),
      .accept_plaintext =
          tm__config_bool(h->config, "workflow_persistence.general.accept_plaintext"),
  };
  if (o.seal && !tm__keyring_can_seal(h->keys)) return no_key(h->config, err);
  return tm__codec_new(&h->codec, &o, err);
}
