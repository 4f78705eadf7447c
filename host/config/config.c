/* config.c - loads the configuration: defaults, file, env file, environment, set; each stronger
 * than the one before. Then nothing changes any more. */
#include "config/config.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config/load.h"

#define DEFAULT_FILE "agent_config.yaml"
#define FILE_MAX     ((size_t)1 << 20)

/* ---- what loading notes ---- */

void tm__load_problem(tm_loader *l, const char *where, const char *fmt, ...) {
  l->problem_count++;
  size_t room = sizeof(((tm_error *)NULL)->message) - 40; /* for "(and N more)" */
  tm_buf line = {0};
  char text[512];
  va_list ap;
  va_start(ap, fmt);
  (void)vsnprintf(text, sizeof(text), fmt, ap);
  va_end(ap);
  tm__buf_printf(&line, "%s%s: %s", l->problem_count > 1 ? "\n" : "", where, text);
  bool fits = l->problems.len + line.len < room || l->problem_count == 1;
  if (l->left_out == 0 && fits) {
    tm__buf_slice(&l->problems, tm__buf_view(&line));
  } else {
    l->left_out++;
  }
  if (!tm__buf_ok(&line) || !tm__buf_ok(&l->problems)) l->no_memory = true;
  tm__buf_free(&line);
}

void tm__load_warn(tm_loader *l, const char *fmt, ...) {
  if (l->options->warn == NULL) return;
  char text[640];
  va_list ap;
  va_start(ap, fmt);
  (void)vsnprintf(text, sizeof(text), fmt, ap);
  va_end(ap);
  l->options->warn(l->options->ud, text);
}

static void keep(tm_loader *l, size_t key, tm_value *value, const char *origin) {
  tm_slot *s = &l->config->slots[key];
  char *copy = tm__slice_dup(tm__slice(origin));
  if (copy == NULL) {
    l->no_memory = true;
    tm__value_free(value);
    return;
  }
  tm__value_free(&s->value);
  free(s->origin);
  *s = (tm_slot){*value, copy};
}

static void finish(tm_loader *l, size_t key, tm_status status, tm_value *value, tm_buf *why,
                   const char *where, const char *origin) {
  if (status == TM_OK) {
    keep(l, key, value, origin);
  } else if (status == TM_ENOMEM || !tm__buf_ok(why)) {
    l->no_memory = true;
  } else {
    tm__load_problem(l, where, "%s: %s", tm__key_at(key)->path, tm__buf_view(why).ptr);
  }
  tm__buf_free(why);
}

void tm__load_text(tm_loader *l, size_t key, tm_slice text, tm_style style, const char *where,
                   const char *origin) {
  tm_value value;
  tm_buf why = {0};
  tm_status s = tm__value_scalar(&value, tm__key_at(key), text, style, &why);
  finish(l, key, s, &value, &why, where, origin);
}

void tm__load_list(tm_loader *l, size_t key, const tm_slice *items, size_t count, const char *where,
                   const char *origin) {
  tm_value value;
  tm_buf why = {0};
  tm_status s = tm__value_list(&value, tm__key_at(key), items, count, &why);
  finish(l, key, s, &value, &why, where, origin);
}

/* ---- loading ---- */

static bool make_defaults(tm_config *c) {
  c->slots = calloc(tm__key_count(), sizeof(*c->slots));
  if (c->slots == NULL) return false;
  for (size_t i = 0; i < tm__key_count(); i++) {
    if (tm__value_default(&c->slots[i].value, tm__key_at(i)) != TM_OK) return false;
  }
  return true;
}

static tm_status missing_file(const tm_loader *l, tm_error *err) {
  if (l->options->file == NULL) return TM_OK;
  return tm__fail(err, TM_EINVAL, "config.invalid", "%s: there is no such configuration file",
                  l->config->file);
}

static tm_status load_file(tm_loader *l, tm_error *err) {
  const char *path = l->options->file != NULL ? l->options->file : DEFAULT_FILE;
  tm_buf text = {0};
  tm_yaml_node *root = NULL;
  tm__file_name(l->config->file, path);
  tm_status s = tm__small_file_read(&text, path, FILE_MAX, err);
  if (s == TM_ENOTFOUND) return missing_file(l, err);
  if (s == TM_OK) s = tm__yaml_parse(&root, tm__buf_view(&text), l->config->file, err);
  if (s == TM_OK) tm__load_tree(l, root);
  tm__yaml_free(root);
  tm__buf_free(&text);
  return s;
}

static tm_status verdict(tm_loader *l, tm_error *err) {
  if (l->no_memory) return tm__fail_memory(err, "the configuration");
  if (l->problem_count == 0) return TM_OK;
  const char *text = tm__buf_view(&l->problems).ptr;
  if (l->left_out == 0) return tm__fail(err, TM_EINVAL, "config.invalid", "%s", text);
  return tm__fail(err, TM_EINVAL, "config.invalid", "%s\n(and %zu more)", text, l->left_out);
}

static tm_status load(tm_loader *l, tm_error *err) {
  const char *const *environment = l->options->env;
  if (environment == NULL) environment = (const char *const *)(void *)environ;
  if (!make_defaults(l->config)) return tm__fail_memory(err, "the configuration");
  tm_status s = tm__env_open(&l->env, environment, l->options->env_file, err);
  if (s == TM_OK) s = load_file(l, err);
  if (s != TM_OK) return s;
  tm__load_variables(l);
  tm__load_set(l);
  tm__load_rules(l);
  return verdict(l, err);
}

tm_status tm__config_load(tm_config **out, const tm_config_options *o, tm_error *err) {
  tm_loader l = {.options = o};
  *out = NULL;
  l.config = calloc(1, sizeof(*l.config));
  if (l.config == NULL) return tm__fail_memory(err, "the configuration");
  tm_status s = load(&l, err);
  tm__env_close(&l.env);
  tm__buf_free(&l.problems);
  if (s == TM_OK) {
    *out = l.config;
  } else {
    tm__config_free(l.config);
  }
  return s;
}

void tm__config_free(tm_config *c) {
  if (c == NULL) return;
  for (size_t i = 0; c->slots != NULL && i < tm__key_count(); i++) {
    tm__value_free(&c->slots[i].value);
    free(c->slots[i].origin);
  }
  free(c->slots);
  free(c);
}

/* ---- reading ---- */

static const tm_slot *find(const tm_config *c, const char *path, unsigned types) {
  size_t i = tm__key_find(tm__slice(path));
  if (i == TM_NO_KEY || (types & (1U << tm__key_at(i)->type)) == 0) return NULL;
  return &c->slots[i];
}

#define ANY_TYPE UINT32_MAX
#define TYPE(t)  (1U << (t))

const char *tm__config_text(const tm_config *c, const char *path) {
  const tm_slot *s = find(c, path, TYPE(TM_KEY_TEXT) | TYPE(TM_KEY_CHOICE));
  return s == NULL || s->value.text == NULL ? "" : s->value.text;
}

int64_t tm__config_int(const tm_config *c, const char *path) {
  const tm_slot *s = find(c, path, TYPE(TM_KEY_INT) | TYPE(TM_KEY_SIZE));
  return s == NULL ? 0 : s->value.number;
}

int64_t tm__config_ms(const tm_config *c, const char *path) {
  const tm_slot *s = find(c, path, TYPE(TM_KEY_DURATION));
  return s == NULL ? 0 : s->value.number;
}

double tm__config_number(const tm_config *c, const char *path) {
  const tm_slot *s = find(c, path, TYPE(TM_KEY_NUMBER));
  return s == NULL ? 0 : s->value.real;
}

bool tm__config_bool(const tm_config *c, const char *path) {
  const tm_slot *s = find(c, path, TYPE(TM_KEY_BOOL));
  return s != NULL && s->value.number != 0;
}

size_t tm__config_list(const tm_config *c, const char *path, const char *const **items) {
  const tm_slot *s = find(c, path, TYPE(TM_KEY_LIST));
  *items = s == NULL ? NULL : (const char *const *)(void *)s->value.items;
  return s == NULL ? 0 : s->value.count;
}

void tm__config_forget(tm_config *c, const char *path) {
  size_t i = tm__key_find(tm__slice(path));
  if (i == TM_NO_KEY || !tm__key_at(i)->secret) return;
  tm_value *v = &c->slots[i].value;
  if (v->text != NULL) explicit_bzero(v->text, strlen(v->text));
  for (size_t n = 0; n < v->count; n++) {
    explicit_bzero(v->items[n], strlen(v->items[n]));
  }
}

void tm__slot_place(const tm_config *c, const tm_slot *s, char out[TM_CONFIG_PLACE]) {
  const char *origin = s->origin == NULL ? "default" : s->origin;
  bool file = strncmp(origin, "file:", 5) == 0;
  (void)snprintf(out, TM_CONFIG_PLACE, "%s%s", file ? c->file : origin, file ? origin + 4 : "");
}

void tm__config_place(const tm_config *c, const char *path, char out[TM_CONFIG_PLACE]) {
  const tm_slot *s = find(c, path, ANY_TYPE);
  out[0] = '\0';
  if (s != NULL) tm__slot_place(c, s, out);
}

bool tm__config_is_set(const tm_config *c, const char *path) {
  const tm_slot *s = find(c, path, ANY_TYPE);
  return s != NULL && s->origin != NULL;
}
