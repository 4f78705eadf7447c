/* sources.c - values from variables (the env file, then the environment, which is stronger) and
 * from `set`; secrets from files that a variable names. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/load.h"

#define PLACE_SIZE (TM_VARIABLE_SIZE + TM_NAME_SIZE + 32)

static tm_slice trim(tm_slice s) {
  while (s.len > 0 && s.ptr[0] == ' ') {
    s = (tm_slice){s.ptr + 1, s.len - 1};
  }
  while (s.len > 0 && s.ptr[s.len - 1] == ' ') {
    s.len--;
  }
  return s;
}

static size_t to_comma(tm_slice text) {
  const char *comma = text.len == 0 ? NULL : memchr(text.ptr, ',', text.len);
  return comma == NULL ? text.len : (size_t)(comma - text.ptr);
}

/* "a, b" for a list; nothing at all is an empty list. */
static void load_commas(tm_loader *l, size_t key, tm_slice text, const char *where,
                        const char *origin) {
  size_t count = text.len == 0 ? 0 : 1;
  for (size_t i = 0; i < text.len; i++) {
    count += text.ptr[i] == ',';
  }
  tm_slice *items = calloc(count + 1, sizeof(*items));
  if (items == NULL) {
    l->no_memory = true;
    return;
  }
  for (size_t i = 0; i < count; i++) {
    size_t len = to_comma(text);
    items[i] = trim((tm_slice){text.ptr, len});
    size_t used = len < text.len ? len + 1 : len;
    text = (tm_slice){text.ptr + used, text.len - used};
  }
  tm__load_list(l, key, items, count, where, origin);
  free(items);
}

static void load_loose(tm_loader *l, size_t key, tm_slice text, const char *where,
                       const char *origin) {
  if (tm__key_at(key)->type == TM_KEY_LIST) {
    load_commas(l, key, text, where, origin);
  } else {
    tm__load_text(l, key, text, TM_STYLE_LOOSE, where, origin);
  }
}

/* "NAME" or, in an env file, "NAME (.env:3)". */
static void place_of(const tm_loader *l, const tm_env_var *v, char out[PLACE_SIZE]) {
  int len = v->name.len < TM_VARIABLE_SIZE ? (int)v->name.len : TM_VARIABLE_SIZE;
  if (v->line == 0) {
    (void)snprintf(out, PLACE_SIZE, "%.*s", len, v->name.ptr);
  } else {
    char file[TM_NAME_SIZE];
    tm__file_name(file, l->env.file);
    (void)snprintf(out, PLACE_SIZE, "%.*s (%s:%zu)", len, v->name.ptr, file, v->line);
  }
}

static void origin_of(const tm_env_var *v, char out[PLACE_SIZE]) {
  int len = v->name.len < TM_VARIABLE_SIZE ? (int)v->name.len : TM_VARIABLE_SIZE;
  (void)snprintf(out, PLACE_SIZE, "%s %.*s", v->line == 0 ? "env" : "env file", len, v->name.ptr);
}

/* In a file secrets may also stand on a line each. */
static void lines_to_commas(tm_buf *text) {
  while (text->len > 0 && strchr("\r\n", text->ptr[text->len - 1]) != NULL) {
    text->len--;
  }
  for (size_t i = 0; i < text->len; i++) {
    if (text->ptr[i] == '\n') text->ptr[i] = ',';
    if (text->ptr[i] == '\r') text->ptr[i] = ' ';
  }
}

static void load_secret(tm_loader *l, size_t key, const tm_env_var *v) {
  char place[PLACE_SIZE], origin[PLACE_SIZE];
  tm_buf text = {0};
  tm_error err = {0};
  place_of(l, v, place);
  origin_of(v, origin);
  char *path = tm__slice_dup(v->value);
  tm_status s = TM_ENOMEM;
  if (path != NULL) s = tm__small_file_read(&text, path, TM_SECRET_MAX, &err);
  if (s == TM_ENOMEM) {
    l->no_memory = true;
  } else if (s != TM_OK) {
    tm__load_problem(l, place, "%s", err.message);
  } else {
    if (tm__key_at(key)->type == TM_KEY_LIST) lines_to_commas(&text);
    tm_slice secret = tm__buf_view(&text);
    if (secret.len > 0 && secret.ptr[secret.len - 1] == '\n') secret.len--;
    if (secret.len > 0 && secret.ptr[secret.len - 1] == '\r') secret.len--;
    load_loose(l, key, secret, place, origin);
  }
  if (text.ptr != NULL) explicit_bzero(text.ptr, text.cap);
  tm__buf_free(&text);
  free(path);
}

static void load_variable(tm_loader *l, size_t key, bool in_file) {
  char name[TM_VARIABLE_SIZE], file_name[TM_VARIABLE_SIZE + 8];
  char place[PLACE_SIZE], origin[PLACE_SIZE];
  tm__key_variable(tm__key_at(key), name);
  (void)snprintf(file_name, sizeof(file_name), "%s_FILE", name);
  const tm_env_var *plain = tm__env_find(&l->env, tm__slice(name), in_file);
  const tm_env_var *file = NULL;
  if (tm__key_at(key)->secret) file = tm__env_find(&l->env, tm__slice(file_name), in_file);
  if (plain != NULL) place_of(l, plain, place);
  if (plain != NULL && file != NULL) {
    tm__load_problem(l, place, "%s is set too; unset one of them", file_name);
  } else if (file != NULL) {
    load_secret(l, key, file);
  } else if (plain != NULL) {
    origin_of(plain, origin);
    load_loose(l, key, plain->value, place, origin);
  }
}

static void warn_unknown(tm_loader *l) {
  for (size_t i = 0; i < l->env.count; i++) {
    const tm_env_var *v = &l->env.vars[i];
    size_t prefix = sizeof(TM_VARIABLE_PREFIX) - 1;
    if (v->used || v->name.len < prefix) continue;
    if (memcmp(v->name.ptr, TM_VARIABLE_PREFIX, prefix) != 0) continue;
    char place[PLACE_SIZE], nearest[TM_VARIABLE_SIZE];
    size_t near = tm__key_nearest_variable(v->name);
    place_of(l, v, place);
    if (near != TM_NO_KEY) tm__key_variable(tm__key_at(near), nearest);
    tm__load_warn(l, "%s: unknown variable, nothing is set by it; %s%s%s", place,
                  near != TM_NO_KEY ? "did you mean " : "`tidemill config` shows all keys",
                  near != TM_NO_KEY ? nearest : "", near != TM_NO_KEY ? "?" : "");
  }
}

void tm__load_variables(tm_loader *l) {
  for (size_t key = 0; key < tm__key_count(); key++) {
    load_variable(l, key, true);
    load_variable(l, key, false);
  }
  warn_unknown(l);
}

static void load_setting(tm_loader *l, const char *setting) {
  const char *equals = strchr(setting, '=');
  tm_slice path = {setting, equals == NULL ? strlen(setting) : (size_t)(equals - setting)};
  size_t key = tm__key_find(path);
  tm_buf where = {0};
  tm__buf_text(&where, "set ");
  tm__show_name(&where, path);
  if (!tm__buf_ok(&where)) {
    l->no_memory = true;
  } else if (key == TM_NO_KEY) {
    tm_buf hint = {0};
    tm__key_hint(&hint, tm__key_nearest_path(path));
    tm__load_problem(l, where.ptr, "unknown key%s", tm__buf_ok(&hint) ? hint.ptr : "");
    tm__buf_free(&hint);
  } else if (equals == NULL) {
    tm__load_problem(l, where.ptr, "expected %s=value", tm__key_at(key)->path);
  } else {
    load_loose(l, key, tm__slice(equals + 1), "set", "set");
  }
  tm__buf_free(&where);
}

void tm__load_set(tm_loader *l) {
  const char *const *set = l->options->set;
  for (; set != NULL && *set != NULL; set++) {
    load_setting(l, *set);
  }
}
