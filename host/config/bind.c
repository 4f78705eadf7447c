/* bind.c - from the YAML tree to keys: unknown ones, sections, lists, ${NAME}. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/load.h"

#define PLACE_SIZE (TM_NAME_SIZE + 48)

static void place_of(const tm_loader *l, size_t line, size_t column, char out[PLACE_SIZE]) {
  (void)snprintf(out, PLACE_SIZE, "%s:%zu:%zu", l->config->file, line, column);
}

static void origin_of(const tm_yaml_node *n, char out[PLACE_SIZE]) {
  (void)snprintf(out, PLACE_SIZE, "file:%zu", n->line);
}

static void unknown_key(tm_loader *l, tm_slice parent, const tm_yaml_node *n) {
  char place[PLACE_SIZE];
  tm_buf shown = {0};
  tm_slice key = tm__slice(n->key), nearest = tm__key_nearest(parent, key);
  tm__show(&shown, key);
  if (parent.len > 0) {
    tm__buf_text(&shown, " in ");
    tm__show(&shown, parent);
  }
  if (strchr(n->key, '.') != NULL) {
    tm__buf_text(&shown, "; keys are nested, one name to a line");
  } else {
    tm__key_hint(&shown, nearest);
  }
  place_of(l, n->key_line, n->key_column, place);
  tm__load_problem(l, place, "unknown key %s", tm__buf_ok(&shown) ? shown.ptr : "");
  tm__buf_free(&shown);
}

static tm_status expand(tm_loader *l, const char *place, const tm_key *key, const char *text,
                        tm_buf *out, bool *changed) {
  tm_buf why = {0};
  tm_status s = tm__env_expand(&l->env, out, tm__slice(text), changed, &why);
  if (s == TM_EINVAL) tm__load_problem(l, place, "%s: %s", key->path, tm__buf_view(&why).ptr);
  if (s == TM_ENOMEM) l->no_memory = true;
  tm__buf_free(&why);
  return s;
}

static void bind_scalar(tm_loader *l, size_t index, const tm_yaml_node *n) {
  char place[PLACE_SIZE], origin[PLACE_SIZE];
  tm_buf text = {0};
  bool changed;
  place_of(l, n->line, n->column, place);
  origin_of(n, origin);
  if (expand(l, place, tm__key_at(index), n->text, &text, &changed) == TM_OK) {
    tm_style style = n->plain ? TM_STYLE_PLAIN : TM_STYLE_QUOTED;
    tm__load_text(l, index, tm__buf_view(&text), changed ? TM_STYLE_LOOSE : style, place, origin);
  }
  tm__buf_free(&text);
}

/* One item of a list, expanded into *out; false: a problem was noted. */
static bool list_item(tm_loader *l, const tm_key *key, const tm_yaml_node *item, tm_buf *out) {
  char place[PLACE_SIZE];
  bool changed;
  place_of(l, item->line, item->column, place);
  if (item->kind != TM_YAML_SCALAR) {
    tm__load_problem(l, place, "%s: expected a text in the list", key->path);
    return false;
  }
  tm_slice text = tm__slice(item->text);
  if (item->plain && text.len > 0 && tm__plain_kind(text) != NULL) {
    tm__load_problem(l, place, "%s: expected a text in the list, got %s; put it in quotes",
                     key->path, tm__plain_kind(text));
    return false;
  }
  return expand(l, place, key, item->text, out, &changed) == TM_OK;
}

static void bind_items(tm_loader *l, size_t index, const tm_yaml_node *n, tm_buf *texts,
                       tm_slice *items) {
  char place[PLACE_SIZE], origin[PLACE_SIZE];
  size_t count = 0;
  for (const tm_yaml_node *item = n->first; item != NULL; item = item->next, count++) {
    if (!list_item(l, tm__key_at(index), item, &texts[count])) return;
    items[count] = tm__buf_view(&texts[count]);
  }
  place_of(l, n->line, n->column, place);
  origin_of(n, origin);
  tm__load_list(l, index, items, count, place, origin);
}

static void bind_list(tm_loader *l, size_t index, const tm_yaml_node *n) {
  size_t count = 0;
  for (const tm_yaml_node *item = n->first; item != NULL; item = item->next) {
    count++;
  }
  tm_buf *texts = calloc(count + 1, sizeof(*texts));
  tm_slice *items = calloc(count + 1, sizeof(*items));
  if (texts == NULL || items == NULL) {
    l->no_memory = true;
  } else {
    bind_items(l, index, n, texts, items);
  }
  for (size_t i = 0; texts != NULL && i < count; i++) {
    tm__buf_free(&texts[i]);
  }
  free(texts);
  free(items);
}

static void bind_key(tm_loader *l, size_t index, const tm_yaml_node *n) {
  const tm_key *key = tm__key_at(index);
  char place[PLACE_SIZE];
  place_of(l, n->line, n->column, place);
  if (n->kind == TM_YAML_SCALAR) {
    bind_scalar(l, index, n);
  } else if (key->later != NULL && n->first != NULL) {
    tm__load_problem(l, place, "%s: not supported yet: %s; leave it out", key->path, key->later);
  } else if (n->kind == TM_YAML_LIST && key->type == TM_KEY_LIST) {
    bind_list(l, index, n);
  } else {
    tm_buf expected = {0};
    tm__show_expected(&expected, key);
    tm__load_problem(l, place, "%s: expected %s, got %s", key->path, tm__buf_view(&expected).ptr,
                     n->kind == TM_YAML_LIST ? "a list" : "a section");
    tm__buf_free(&expected);
  }
}

static void bind_map(tm_loader *l, tm_slice parent, const tm_yaml_node *map);

static void bind_section(tm_loader *l, tm_slice path, const tm_yaml_node *n) {
  char place[PLACE_SIZE];
  if (n->kind == TM_YAML_MAP) {
    bind_map(l, path, n);
  } else if (n->kind == TM_YAML_LIST || n->text[0] != '\0') { /* an empty section is fine */
    place_of(l, n->line, n->column, place);
    tm__load_problem(l, place, "%.*s: expected a section of keys, got %s", (int)path.len, path.ptr,
                     n->kind == TM_YAML_LIST ? "a list" : "a value");
  }
}

static void bind_member(tm_loader *l, tm_slice parent, const tm_yaml_node *n) {
  tm_buf path = {0};
  tm__buf_slice(&path, parent);
  if (parent.len > 0) tm__buf_byte(&path, '.');
  tm__buf_text(&path, n->key);
  tm_slice view = tm__buf_view(&path);
  bool dotted = strchr(n->key, '.') != NULL || n->key[0] == '\0';
  size_t index = dotted ? TM_NO_KEY : tm__key_find(view);
  if (!tm__buf_ok(&path)) {
    l->no_memory = true;
  } else if (index != TM_NO_KEY) {
    bind_key(l, index, n);
  } else if (!dotted && tm__key_is_section(view)) {
    bind_section(l, view, n);
  } else if (parent.len == 0 && tm__key_is_skipped(view)) {
    tm__load_warn(l, "%s:%zu:%zu: the section '%s' means nothing here and is skipped; remove it",
                  l->config->file, n->key_line, n->key_column, n->key);
  } else {
    unknown_key(l, parent, n);
  }
  tm__buf_free(&path);
}

static void bind_map(tm_loader *l, tm_slice parent, const tm_yaml_node *map) {
  for (const tm_yaml_node *n = map->first; n != NULL; n = n->next) {
    bind_member(l, parent, n);
  }
}

void tm__load_tree(tm_loader *l, const tm_yaml_node *root) {
  char place[PLACE_SIZE];
  if (root == NULL) return;
  if (root->kind == TM_YAML_MAP) {
    bind_map(l, (tm_slice){"", 0}, root);
  } else if (root->kind == TM_YAML_LIST || root->text[0] != '\0') {
    place_of(l, root->line, root->column, place);
    tm__load_problem(l, place, "expected sections such as 'server:', got %s",
                     root->kind == TM_YAML_LIST ? "a list" : "a text");
  }
}
