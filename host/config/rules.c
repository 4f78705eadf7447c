/* rules.c - what must hold between keys. Runs when every single value is good. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "config/load.h"

#define PLACE_SIZE (TM_NAME_SIZE + TM_VARIABLE_SIZE + 16)

static tm_slot *slot(tm_loader *l, const char *path) {
  return &l->config->slots[tm__key_find(tm__slice(path))];
}

/* Where a value comes from, for people. */
static void place_of(const tm_loader *l, const tm_slot *s, char out[PLACE_SIZE]) {
  const char *origin = s->origin == NULL ? "default" : s->origin;
  bool file = strncmp(origin, "file:", 5) == 0;
  (void)snprintf(out, PLACE_SIZE, "%s%s", file ? l->file : origin, file ? origin + 4 : "");
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
    char here[PLACE_SIZE], there[PLACE_SIZE];
    place_of(l, m, here);
    place_of(l, e, there);
    tm__load_problem(
        l, here,
        "workflow_persistence.sqlite.journal_mode: %s contradicts enable_wal: %s in %s;"
        " remove one",
        m->value.text, e->value.number != 0 ? "true" : "false", there);
  }
}

/* ---- names for the same setting ---- */

static const tm_slot *first_given(tm_loader *l, const char *const *paths, size_t *which) {
  for (size_t i = 0; paths[i] != NULL; i++) {
    *which = i;
    if (slot(l, paths[i])->origin != NULL) return slot(l, paths[i]);
  }
  return NULL;
}

/* What `paths` (up to a NULL) mean is one number, whoever of them is given. */
static void agree(tm_loader *l, const char *const *paths) {
  size_t which;
  const tm_slot *given = first_given(l, paths, &which);
  for (size_t i = 0; given != NULL && paths[i] != NULL; i++) {
    tm_slot *other = slot(l, paths[i]);
    if (other->value.number == given->value.number) continue;
    if (other->origin != NULL) {
      char here[PLACE_SIZE], there[PLACE_SIZE];
      place_of(l, other, here);
      place_of(l, given, there);
      tm__load_problem(l, here, "%s contradicts %s in %s, which means the same; remove one",
                       paths[i], paths[which], there);
    } else {
      other->value.number = given->value.number;
      other->origin = strdup(given->origin);
      if (other->origin == NULL) l->no_memory = true;
    }
  }
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
  const char *const checkpoints[] = {"workflow_persistence.general.max_checkpoints_per_session",
                                     "orchestrator.persistence_config.max_checkpoints", NULL};
  agree(l, sessions);
  agree(l, checkpoints);
}

/* A generated id follows it. */
static void short_prefix(tm_loader *l) {
  const tm_slot *s = slot(l, "orchestrator.session_config.session_prefix");
  const char *text = s->value.text != NULL ? s->value.text : "";
  bool good = strlen(text) <= TM_SESSION_PREFIX_MAX;
  for (const char *at = text; *at != '\0'; at++)
    good = good && (unsigned char)*at >= ' ';
  if (good) return;
  char place[PLACE_SIZE];
  place_of(l, s, place);
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
      char place[PLACE_SIZE];
      place_of(l, a->origin != NULL ? a : b, place);
      tm__load_problem(l, place, "%s and %s have the same name '%s'; choose another", tables[j],
                       tables[i], a->value.text);
    }
  }
}

/* `why` ends the sentence. */
static void within(tm_loader *l, const char *part, const char *whole, const char *why) {
  const tm_slot *p = slot(l, part), *w = slot(l, whole);
  if (p->value.number <= w->value.number) return;
  char place[PLACE_SIZE];
  place_of(l, p->origin != NULL ? p : w, place);
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
    char place[PLACE_SIZE];
    place_of(l, s, place);
    tm__load_warn(l, "%s: %s.* has no effect: %s is '%s'", place, section, selector, backend);
    return;
  }
}

static void no_encrypted_redis(tm_loader *l) {
  const tm_slot *s = slot(l, "workflow_persistence.redis.ssl");
  if (s->value.number == 0) return;
  char place[PLACE_SIZE];
  place_of(l, s, place);
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
  agree_on_retention(l);
  short_prefix(l);
  different_tables(l);
  within(l, "limits.step_memory", "limits.memory", "a step runs within the state's memory");
  within(l, "server.body_limit", "server.memory_limit", "a body of that size could never arrive");
  unused_sections(l);
}
