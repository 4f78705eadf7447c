/* views.c - which names the guide's tables may have. */
#include "persistence/views.h"

#include <string.h>
#include <strings.h>

static const char *const guide[TM_VIEWS] = {"workflow_conversations", "workflow_steps",
                                            "workflow_checkpoints", "workflow_sessions"};

static bool is_identifier(const char *name) {
  size_t len = strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_");
  return len > 0 && len < TM_VIEW_NAME && name[len] == '\0' && (name[0] < '0' || name[0] > '9');
}

static bool fits(const char *name, const char *pattern) {
  size_t len = strlen(name), part = strlen(pattern) - 1;
  if (pattern[part] == '*') return strncasecmp(name, pattern, part) == 0;
  if (pattern[0] != '*') return strcasecmp(name, pattern) == 0;
  return len >= part && strcasecmp(name + len - part, pattern + 1) == 0;
}

static tm_status check(const char *name, const char *const *taken, char (*before)[TM_VIEW_NAME],
                       size_t count, tm_error *err) {
  bool is_taken = false;
  if (!is_identifier(name))
    return tm__fail(err, TM_EINVAL, "store.table_name",
                    "\"%.100s\" cannot name a table: use a letter or _, then letters, digits and "
                    "_, at most 63",
                    name);
  for (size_t i = 0; taken[i] != NULL; i++)
    is_taken = is_taken || fits(name, taken[i]);
  for (size_t i = 0; i < count; i++)
    is_taken = is_taken || strcasecmp(name, before[i]) == 0;
  if (!is_taken) return TM_OK;
  return tm__fail(err, TM_EINVAL, "store.table_name",
                  "the name \"%s\" is taken by another table of the store: choose another", name);
}

tm_status tm__view_names(char out[TM_VIEWS][TM_VIEW_NAME], const char *const *names,
                         const char *const *taken, tm_error *err) {
  for (size_t i = 0; i < TM_VIEWS; i++) {
    const char *name = names[i] != NULL ? names[i] : guide[i];
    tm_status status = check(name, taken, out, i, err);
    if (status != TM_OK) return status;
    (void)tm__copy(out[i], TM_VIEW_NAME, tm__slice(name));
  }
  return TM_OK;
}

void tm__view_sql(tm_buf *b, const char *name, const char *select) {
  tm__buf_printf(b, "CREATE VIEW \"%s\" AS ", name);
  tm__buf_text(b, select);
}
