/* keys.c - the table of keys and how to look things up in it. */
#include "config/keys.h"

#include <string.h>

#define KIB  INT64_C(1024)
#define MIB  (1024 * KIB)
#define GIB  (1024 * MIB)
#define HOUR INT64_C(3600000)
#define DAY  (24 * HOUR)
#define YEAR (365 * DAY)
#define NONE NULL

#define TEXT(p, d, f)          .path = p, .type = TM_KEY_TEXT, .fallback = d, .form = f
#define SECRET(p)              .path = p, .type = TM_KEY_TEXT, .secret = true
#define SECRETS(p, lo, hi)     RANGE(p, TM_KEY_LIST, "", lo, hi), .secret = true
#define CHOICE(p, d, c)        .path = p, .type = TM_KEY_CHOICE, .fallback = d, .choices = c
#define BOOL(p, d)             .path = p, .type = TM_KEY_BOOL, .fallback = d
#define RANGE(p, t, d, lo, hi) .path = p, .type = t, .fallback = d, .min = lo, .max = hi
#define INT(p, d, lo, hi)      RANGE(p, TM_KEY_INT, d, lo, hi)
#define NUMBER(p, d, lo, hi)   RANGE(p, TM_KEY_NUMBER, d, lo, hi)
#define SIZE(p, d, lo, hi)     RANGE(p, TM_KEY_SIZE, d, lo, hi)
#define DURATION(p, d, lo, hi) RANGE(p, TM_KEY_DURATION, d, lo, hi)
#define SECONDS(p, d, lo, hi)  RANGE(p, TM_KEY_DURATION, d, lo, hi), .form = TM_FORM_SECONDS
#define LIST(p, d, lo, hi)     RANGE(p, TM_KEY_LIST, d, lo, hi)
#define KEY(...)               {__VA_ARGS__},
#define LATER(key, reason)     {key, .later = reason},

static const tm_key keys[] = {
#include "config/keys.def"
};

#define KEYS (sizeof(keys) / sizeof(keys[0]))

size_t tm__key_count(void) {
  return KEYS;
}

const tm_key *tm__key_at(size_t index) {
  return &keys[index];
}

size_t tm__key_find(tm_slice path) {
  for (size_t i = 0; i < KEYS; i++) {
    if (tm__slice_is(path, keys[i].path)) return i;
  }
  return TM_NO_KEY;
}

bool tm__key_is_section(tm_slice path) {
  for (size_t i = 0; i < KEYS; i++) {
    if (strncmp(keys[i].path, path.ptr, path.len) == 0 && keys[i].path[path.len] == '.')
      return true;
  }
  return false;
}

bool tm__key_is_skipped(tm_slice name) {
  static const char *const skipped[] = {"redis",    "agent_capabilities", "knowledge_base",
                                        "docker",   "web_search",         "analytics",
                                        "api_agent"};
  for (size_t i = 0; i < sizeof(skipped) / sizeof(skipped[0]); i++) {
    if (tm__slice_is(name, skipped[i])) return true;
  }
  return false;
}

const char *tm__key_type_name(const tm_key *key) {
  static const char *const names[] = {
      [TM_KEY_TEXT] = "text",         [TM_KEY_CHOICE] = "choice", [TM_KEY_BOOL] = "boolean",
      [TM_KEY_INT] = "integer",       [TM_KEY_NUMBER] = "number", [TM_KEY_SIZE] = "size",
      [TM_KEY_DURATION] = "duration", [TM_KEY_LIST] = "list",
  };
  if (key->secret) return key->type == TM_KEY_LIST ? "secrets" : "secret";
  return names[key->type];
}

void tm__key_variable(const tm_key *key, char out[TM_VARIABLE_SIZE]) {
  size_t n = sizeof(TM_VARIABLE_PREFIX) - 1;
  memcpy(out, TM_VARIABLE_PREFIX, n);
  for (const char *p = key->path; *p != '\0' && n + 1 < TM_VARIABLE_SIZE; p++) {
    char c = *p == '.' ? '_' : *p;
    out[n++] = c >= 'a' && c <= 'z' ? (char)(c - 'a' + 'A') : c;
  }
  out[n] = '\0';
}

bool tm__key_choice(const char **at, tm_slice *word, bool *works) {
  if (**at == '\0') return false;
  *works = **at != '-';
  const char *start = *at + (*works ? 0 : 1);
  size_t len = strcspn(start, "|");
  *word = (tm_slice){start, len};
  *at = start + len + (start[len] == '|' ? 1 : 0);
  return true;
}
