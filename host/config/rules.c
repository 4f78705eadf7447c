/* rules.c - what must hold between keys. Runs when every single value is good. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "config/load.h"

static tm_slot *slot(tm_loader *l, const char *path) {
  return &l->config->slots[tm__key_find(tm__slice(path))];
}

/* enable_wal and journal_mode say the same thing; whoever is given decides the other. */
static void agree_on_wal(tm_loader *l) {
  size_t enable = tm__key_find(TM_S("workflow_persistence.sqlite.enable_wal"));
  size_t mode = tm__key_find(TM_S("workflow_persistence.sqlite.journal_mode"));
  const tm_slot *e = &l->config->slots[enable], *m = &l->config->slots[mode];
  bool wal = strcmp(m->value.text, "WAL") == 0;
  if ((e->value.number != 0) == wal) return;
  if (e->origin == NULL) {
    tm__load_text(l, enable, wal ? TM_S("true") : TM_S("false"), TM_STYLE_LOOSE, "", m->origin);
  } else if (m->origin == NULL) {
    tm_slice word = e->value.number != 0 ? TM_S("WAL") : TM_S("DELETE");
    tm__load_text(l, mode, word, TM_STYLE_LOOSE, "", e->origin);
  } else {
    char here[TM_CONFIG_PLACE], there[TM_CONFIG_PLACE];
    tm__slot_place(l->config, m, here);
    tm__slot_place(l->config, e, there);
    tm__load_problem(
        l, here,
        "workflow_persistence.sqlite.journal_mode: %s contradicts enable_wal: %s in %s;"
        " remove one",
        m->value.text, e->value.number != 0 ? "true" : "false", there);
  }
}

/* ---- names for the same setting ---- */

/* Which of two sources wins; 0: the default. */
static int strength(const tm_slot *s) {
  static const char *const sources[] = {"file:", "env file ", "env ", "set"};
  for (int i = 0; s->origin != NULL && i < 4; i++)
    if (strncmp(s->origin, sources[i], strlen(sources[i])) == 0) return i + 1;
  return 0;
}

/* The one of the strongest source; NULL: all have their defaults. */
static const tm_slot *strongest(tm_loader *l, const char *const *paths, size_t *which) {
  const tm_slot *found = NULL;
  for (size_t i = 0; paths[i] != NULL; i++) {
    const tm_slot *s = slot(l, paths[i]);
    if (strength(s) <= (found != NULL ? strength(found) : 0)) continue;
    *which = i;
    found = s;
  }
  return found;
}

static void contradiction(tm_loader *l, const char *path, const char *given) {
  char here[TM_CONFIG_PLACE], there[TM_CONFIG_PLACE];
  tm__slot_place(l->config, slot(l, path), here);
  tm__slot_place(l->config, slot(l, given), there);
  tm__load_problem(l, here, "%s contradicts %s in %s, which means the same; remove one", path,
                   given, there);
}

/* No list. */
static void adopt(tm_loader *l, tm_slot *to, const tm_slot *from) {
  tm_value copy = from->value;
  char *origin = strdup(from->origin);
  if (copy.text != NULL) copy.text = strdup(copy.text);
  if (origin == NULL || (copy.text == NULL && from->value.text != NULL)) {
    l->no_memory = true;
    free(origin);
    free(copy.text);
    return;
  }
  tm__value_free(&to->value);
  free(to->origin);
  to->value = copy;
  to->origin = origin;
}

/* What `leader` was given holds for `path`, unless that was given by a stronger source. */
static void follow(tm_loader *l, const char *path, const char *leader) {
  size_t key = tm__key_find(tm__slice(path));
  tm_slot *other = &l->config->slots[key];
  const tm_slot *given = slot(l, leader);
  if (tm__value_equal(&other->value, &given->value, tm__key_at(key))) return;
  if (strength(other) == strength(given))
    contradiction(l, path, leader);
  else if (strength(other) < strength(given))
    adopt(l, other, given);
}

/* What `paths` (up to a NULL) mean is one value, whoever of them is given; the stronger source
 * wins. */
static void agree(tm_loader *l, const char *const *paths) {
  size_t which;
  const tm_slot *given = strongest(l, paths, &which);
  for (size_t i = 0; given != NULL && paths[i] != NULL; i++)
    follow(l, paths[i], paths[which]);
}

/* A secret is kept once, where it is forgotten later. */
static void agree_on_secret(tm_loader *l, const char *path, const char *other_path) {
  tm_slot *kept = slot(l, path), *other = slot(l, other_path), weaker;
  if (other->value.text == NULL) return;
  if (kept->value.text != NULL && strength(kept) == strength(other) &&
      strcmp(kept->value.text, other->value.text) != 0)
    contradiction(l, other_path, path);
  if (strength(other) > strength(kept)) {
    weaker = *kept;
    *kept = *other;
    *other = weaker;
  }
  if (other->value.text != NULL) explicit_bzero(other->value.text, strlen(other->value.text));
  tm__value_free(&other->value);
  free(other->origin);
  other->origin = NULL;
}

static bool is_backend(tm_loader *l, const char *name) {
  return strcmp(slot(l, "workflow_persistence.backend")->value.text, name) == 0;
}

#define RETENTION        "workflow_persistence.retention."
#define SQLITE_RETENTION "workflow_persistence.sqlite.retention."

/* The guide's spelling counts for its own backend. */
static void agree_on_retention(tm_loader *l) {
  static const char *const names[][3] = {
      {RETENTION "conversation_ttl", SQLITE_RETENTION "conversation_ttl", NULL},
      {RETENTION "checkpoint_ttl", SQLITE_RETENTION "checkpoint_ttl", NULL},
      {RETENTION "cleanup_interval", SQLITE_RETENTION "cleanup_interval", NULL},
  };
  bool sqlite = is_backend(l, "sqlite");
  for (size_t i = 0; sqlite && i < sizeof(names) / sizeof(names[0]); i++)
    agree(l, names[i]);
  const char *own = sqlite                   ? SQLITE_RETENTION "session_ttl"
                    : is_backend(l, "redis") ? "workflow_persistence.redis.session_ttl"
                                             : NULL;
  const char *const sessions[] = {RETENTION "session_ttl",
                                  "orchestrator.persistence_config.session_ttl", own, NULL};
  agree(l, sessions);
}

#define PERSISTENCE "workflow_persistence."
#define FLAT        "orchestrator.persistence_config."

/* What the guide passes to the orchestrator means the same. */
static void agree_on_flat_form(tm_loader *l) {
  static const char *const names[][3] = {
      {PERSISTENCE "backend", FLAT "backend", NULL}, /* first: others depend on it */
      {PERSISTENCE "sqlite.database_path", FLAT "database_path", NULL},
      {"workflow_persistence.file.storage_directory", FLAT "state_directory", NULL},
      {PERSISTENCE "redis.host", FLAT "redis_host", NULL},
      {PERSISTENCE "redis.port", FLAT "redis_port", NULL},
      {PERSISTENCE "redis.db", FLAT "redis_db", NULL},
      {PERSISTENCE "general.auto_checkpoint", FLAT "auto_checkpoint", NULL},
      {PERSISTENCE "general.checkpoint_interval", FLAT "checkpoint_interval", NULL},
      {PERSISTENCE "general.max_checkpoints_per_session", FLAT "max_checkpoints", NULL},
      {PERSISTENCE "general.enable_encryption", FLAT "encryption", NULL},
      {"tenants.isolation", FLAT "tenant_isolation", NULL},
  };
  for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
    agree(l, names[i]);
  const char *compression = is_backend(l, "file") ? "workflow_persistence.file.compression"
                                                  : PERSISTENCE "general.enable_compression";
  agree(l, (const char *const[]){compression, FLAT "compression", NULL});
  agree_on_secret(l, PERSISTENCE "general.encryption_key", FLAT "encryption_key");
}

/* The guide's is for SQLite alone: nothing else follows it. */
static void agree_on_timeout(tm_loader *l) {
  static const char all[] = "workflow_persistence.general.timeout";
  if (is_backend(l, "sqlite") && slot(l, all)->value.present)
    follow(l, "workflow_persistence.sqlite.timeout", all);
}

/* A generated id follows it. */
static void short_prefix(tm_loader *l) {
  const tm_slot *s = slot(l, "orchestrator.session_config.session_prefix");
  const char *text = s->value.text != NULL ? s->value.text : "";
  bool good = strlen(text) <= TM_SESSION_PREFIX_MAX;
  for (const char *at = text; *at != '\0'; at++)
    good = good && (unsigned char)*at >= ' ';
  if (good) return;
  char place[TM_CONFIG_PLACE];
  tm__slot_place(l->config, s, place);
  tm__load_problem(l, place,
                   "orchestrator.session_config.session_prefix has at most %d bytes and no "
                   "control characters",
                   TM_SESSION_PREFIX_MAX);
}

static void different_tables(tm_loader *l) {
  static const char *const tables[] = {"workflow_persistence.sqlite.tables.conversations",
                                       "workflow_persistence.sqlite.tables.steps",
                                       "workflow_persistence.sqlite.tables.checkpoints",
                                       "workflow_persistence.sqlite.tables.sessions"};
  for (size_t i = 0; i < 4; i++) {
    for (size_t j = 0; j < i; j++) {
      const tm_slot *a = slot(l, tables[i]), *b = slot(l, tables[j]);
      if (strcasecmp(a->value.text, b->value.text) != 0) continue;
      char place[TM_CONFIG_PLACE];
      tm__slot_place(l->config, a->origin != NULL ? a : b, place);
      tm__load_problem(l, place, "%s and %s have the same name '%s'; choose another", tables[j],
                       tables[i], a->value.text);
    }
  }
}

/* `why` ends the sentence. */
static void within(tm_loader *l, const char *part, const char *whole, const char *why) {
  const tm_slot *p = slot(l, part), *w = slot(l, whole);
  if (p->value.number <= w->value.number) return;
  char place[TM_CONFIG_PLACE];
  tm__slot_place(l->config, p->origin != NULL ? p : w, place);
  tm__load_problem(l, place, "%s (%" PRId64 ") is more than %s (%" PRId64 "); %s", part,
                   p->value.number, whole, w->value.number, why);
}

/* A section for another backend is known and has no effect: that is said once. */
static void warn_if_unused(tm_loader *l, const char *section, const char *selector) {
  const char *backend = slot(l, selector)->value.text;
  size_t length = strlen(section);
  for (size_t i = 0; i < tm__key_count(); i++) {
    const tm_slot *s = &l->config->slots[i];
    const char *path = tm__key_at(i)->path;
    if (s->origin == NULL || strncmp(path, section, length) != 0 || path[length] != '.') continue;
    char place[TM_CONFIG_PLACE];
    tm__slot_place(l->config, s, place);
    tm__load_warn(l, "%s: %s.* has no effect: %s is '%s'", place, section, selector, backend);
    return;
  }
}

#define ADDRESS_MAX 8192

/* With a host, and as the HTTP client takes it. */
static bool is_address(const char *text) {
  size_t scheme = strncasecmp(text, "http://", 7) == 0    ? 7
                  : strncasecmp(text, "https://", 8) == 0 ? 8
                                                          : 0;
  for (const char *c = text; *c != '\0'; c++)
    if ((unsigned char)*c <= ' ' || *c == 0x7f) return false;
  return scheme > 0 && text[scheme] != '\0' && strchr("/?#:@", text[scheme]) == NULL &&
         strlen(text) <= ADDRESS_MAX;
}

/* Its address and its secret belong together; what waits to be delivered keeps
 * its conversation. */
static void whole_webhook(tm_loader *l) {
  static const char url[] = "webhooks.url", secret[] = "webhooks.secret";
  const tm_slot *u = slot(l, url), *s = slot(l, secret);
  static const char *const ttls[] = {PERSISTENCE "retention.conversation_ttl",
                                     PERSISTENCE "retention.session_ttl"};
  const char *address = u->value.text != NULL ? u->value.text : "";
  char place[TM_CONFIG_PLACE];
  tm__slot_place(l->config, u->value.text != NULL ? u : s, place);
  if ((u->value.text != NULL) != (s->value.text != NULL))
    tm__load_problem(l, place, "%s and %s belong together; set both", url, secret);
  if (u->value.text == NULL) return;
  if (!is_address(address))
    tm__load_problem(l, place,
                     "%s must be http:// or https:// with a host behind it, without blanks, of at "
                     "most %d bytes",
                     url, ADDRESS_MAX);
  for (size_t i = 0; i < 2; i++)
    if (slot(l, ttls[i])->value.number > 0)
      within(l, "webhooks.give_up_after", ttls[i],
             "conversations would be kept longer, for their events");
}

static void no_encrypted_redis(tm_loader *l) {
  const tm_slot *s = slot(l, "workflow_persistence.redis.ssl");
  if (s->value.number == 0) return;
  char place[TM_CONFIG_PLACE];
  tm__slot_place(l->config, s, place);
  tm__load_problem(l, place,
                   "workflow_persistence.redis.ssl: connections to Redis are not encrypted by the "
                   "host; run stunnel beside it, name its end as redis.host and redis.port, and "
                   "write false");
}

static void unused_sections(tm_loader *l) {
  static const char persistence[] = "workflow_persistence.backend";
  if (strcmp(slot(l, persistence)->value.text, "redis") == 0)
    no_encrypted_redis(l);
  else
    warn_if_unused(l, "workflow_persistence.redis", persistence);
  if (strcmp(slot(l, persistence)->value.text, "file") != 0)
    warn_if_unused(l, "workflow_persistence.file", persistence);
  if (strcmp(slot(l, persistence)->value.text, "postgres") != 0)
    warn_if_unused(l, "workflow_persistence.postgres", persistence);
  warn_if_unused(l, "memory.redis", "memory.backend");
  if (strcmp(slot(l, persistence)->value.text, "sqlite") != 0)
    warn_if_unused(l, "workflow_persistence.sqlite", persistence);
}

void tm__load_rules(tm_loader *l) {
  if (l->problem_count > 0 || l->no_memory) return;
  agree_on_wal(l);
  agree_on_flat_form(l);
  agree_on_retention(l);
  agree_on_timeout(l);
  short_prefix(l);
  different_tables(l);
  whole_webhook(l);
  within(l, "limits.step_memory", "limits.memory", "a step runs within the state's memory");
  within(l, "server.body_limit", "server.memory_limit", "a body of that size could never arrive");
  unused_sections(l);
}
