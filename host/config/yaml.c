/* yaml.c - libyaml's events to a tree; every limit is checked before memory is taken for it. */
#include "config/yaml.h"

#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "config/value.h"

typedef struct reader {
  yaml_parser_t parser;
  yaml_event_t event; /* the current one */
  tm_slice text;
  const char *name;
  tm_yaml_node *root, *open; /* open: the innermost list or map */
  char *key;                 /* owned: waits for its value */
  yaml_mark_t key_mark;
  size_t nodes, depth, documents;
  tm_error *err;
} reader;

void tm__yaml_free(tm_yaml_node *node) {
  if (node == NULL) return;
  for (tm_yaml_node *child = node->first; child != NULL;) {
    tm_yaml_node *next = child->next;
    tm__yaml_free(child);
    child = next;
  }
  free(node->key);
  free(node->text);
  free(node);
}

static tm_status refuse_at(const reader *r, yaml_mark_t at, const char *why) {
  return tm__fail(r->err, TM_EINVAL, "config.invalid", "%s:%zu:%zu: %s", r->name, at.line + 1,
                  at.column + 1, why);
}

static tm_status refuse(const reader *r, const char *why) {
  return refuse_at(r, r->event.start_mark, why);
}

/* ---- what libyaml itself refuses ---- */

/* Line and column (in characters) of a byte: libyaml's reader gives offsets only. */
static yaml_mark_t mark_of(tm_slice text, size_t offset) {
  yaml_mark_t mark = {0, 0, 0};
  for (size_t i = 0; i < offset && i < text.len; i++) {
    if (text.ptr[i] == '\n') {
      mark.line++;
      mark.column = 0;
    } else if (((unsigned char)text.ptr[i] & 0xC0) != 0x80) {
      mark.column++;
    }
  }
  return mark;
}

static char byte_at(tm_slice text, yaml_mark_t mark) {
  size_t line = 0, column = 0;
  for (size_t i = 0; i < text.len; i++) {
    bool continues = ((unsigned char)text.ptr[i] & 0xC0) == 0x80;
    if (line == mark.line && column == mark.column && !continues) return text.ptr[i];
    if (text.ptr[i] == '\n') {
      line++;
      column = 0;
    } else if (!continues) {
      column++;
    }
  }
  return '\0';
}

static tm_status syntax_error(const reader *r) {
  const yaml_parser_t *p = &r->parser;
  const char *problem = p->problem == NULL ? "this is no YAML" : p->problem;
  if (p->error == YAML_MEMORY_ERROR) return tm__fail_memory(r->err, "the configuration");
  if (p->error == YAML_READER_ERROR) {
    return refuse_at(r, mark_of(r->text, p->problem_offset), problem);
  }
  if (byte_at(r->text, p->problem_mark) == '\t') {
    return refuse_at(r, p->problem_mark, "a tab cannot indent or separate in YAML; use spaces");
  }
  tm_buf why = {0};
  tm__buf_text(&why, problem);
  if (p->context != NULL) {
    tm__buf_printf(&why, " %s that began in line %zu", p->context, p->context_mark.line + 1);
  }
  tm_status s = refuse_at(r, p->problem_mark, tm__buf_ok(&why) ? why.ptr : problem);
  tm__buf_free(&why);
  return s;
}

/* ---- nodes ---- */

static tm_status refuse_extras(const reader *r, const yaml_char_t *anchor, const yaml_char_t *tag) {
  if (anchor != NULL) {
    return refuse(r, "anchors (&name) and aliases (*name) are not allowed; write the value out");
  }
  return tag == NULL ? TM_OK : refuse(r, "tags (!name) are not allowed; write the value itself");
}

static tm_status check_event(const reader *r) {
  const yaml_event_t *e = &r->event;
  if (e->type == YAML_SCALAR_EVENT) {
    if (memchr(e->data.scalar.value, '\0', e->data.scalar.length) != NULL) {
      return refuse(r, "a text contains a NUL character");
    }
    return refuse_extras(r, e->data.scalar.anchor, e->data.scalar.tag);
  }
  if (r->depth >= TM_YAML_DEPTH) return refuse(r, "nested deeper than 16 levels");
  if (e->type == YAML_SEQUENCE_START_EVENT) {
    return refuse_extras(r, e->data.sequence_start.anchor, e->data.sequence_start.tag);
  }
  return refuse_extras(r, e->data.mapping_start.anchor, e->data.mapping_start.tag);
}

static tm_status refuse_duplicate(const reader *r, size_t line) {
  tm_buf why = {0};
  tm__buf_text(&why, "duplicate key ");
  tm__show(&why, tm__slice(r->key));
  tm__buf_printf(&why, ": it stands in line %zu already; remove one", line);
  tm_status s = tm__buf_ok(&why) ? refuse(r, why.ptr) : tm__fail_memory(r->err, "an error");
  tm__buf_free(&why);
  return s;
}

static tm_status take_key(reader *r) {
  if (r->event.type != YAML_SCALAR_EVENT) return refuse(r, "a key must be a plain name");
  r->key = tm__slice_dup(
      (tm_slice){(const char *)r->event.data.scalar.value, r->event.data.scalar.length});
  if (r->key == NULL) return tm__fail_memory(r->err, "the configuration");
  r->key_mark = r->event.start_mark;
  for (const tm_yaml_node *n = r->open->first; n != NULL; n = n->next) {
    if (strcmp(n->key, r->key) == 0) return refuse_duplicate(r, n->key_line);
  }
  return TM_OK;
}

static void attach(reader *r, tm_yaml_node *node) {
  node->parent = r->open;
  if (r->open == NULL) {
    r->root = node;
  } else if (r->open->last == NULL) {
    r->open->first = r->open->last = node;
  } else {
    r->open->last->next = node;
    r->open->last = node;
  }
  if (node->kind != TM_YAML_SCALAR) {
    r->open = node;
    r->depth++;
  }
}

static tm_yaml_node *make_node(reader *r) {
  const yaml_event_t *e = &r->event;
  tm_yaml_node *node = calloc(1, sizeof(*node));
  if (node == NULL) return NULL;
  node->line = e->start_mark.line + 1;
  node->column = e->start_mark.column + 1;
  node->key = r->key;
  node->key_line = r->key_mark.line + 1;
  node->key_column = r->key_mark.column + 1;
  r->key = NULL;
  if (e->type == YAML_SEQUENCE_START_EVENT) node->kind = TM_YAML_LIST;
  if (e->type == YAML_MAPPING_START_EVENT) node->kind = TM_YAML_MAP;
  if (e->type != YAML_SCALAR_EVENT) return node;
  node->plain = e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
  node->text = tm__slice_dup((tm_slice){(const char *)e->data.scalar.value, e->data.scalar.length});
  if (node->text != NULL) return node;
  tm__yaml_free(node);
  return NULL;
}

static tm_status take_node(reader *r) {
  tm_status s = check_event(r);
  if (s != TM_OK) return s;
  if (++r->nodes > 2 * TM_YAML_NODES) return refuse(r, "more than 4096 values");
  if (r->open != NULL && r->open->kind == TM_YAML_MAP && r->key == NULL) return take_key(r);
  tm_yaml_node *node = make_node(r);
  if (node == NULL) return tm__fail_memory(r->err, "the configuration");
  attach(r, node);
  return TM_OK;
}

static tm_status take_event(reader *r) {
  switch (r->event.type) {
  case YAML_DOCUMENT_START_EVENT:
    if (++r->documents > 1) return refuse(r, "a second document; only one is allowed");
    return TM_OK;
  case YAML_ALIAS_EVENT: return refuse(r, "aliases (*name) are not allowed; write the value out");
  case YAML_SCALAR_EVENT:
  case YAML_SEQUENCE_START_EVENT:
  case YAML_MAPPING_START_EVENT: return take_node(r);
  case YAML_SEQUENCE_END_EVENT:
  case YAML_MAPPING_END_EVENT:
    r->open = r->open->parent;
    r->depth--;
    return TM_OK;
  case YAML_NO_EVENT:
  case YAML_STREAM_START_EVENT:
  case YAML_STREAM_END_EVENT:
  case YAML_DOCUMENT_END_EVENT: break;
  }
  return TM_OK;
}

static tm_status read_events(reader *r) {
  for (bool more = true; more;) {
    if (!yaml_parser_parse(&r->parser, &r->event)) return syntax_error(r);
    tm_status s = take_event(r);
    more = r->event.type != YAML_STREAM_END_EVENT;
    yaml_event_delete(&r->event);
    if (s != TM_OK) return s;
  }
  return TM_OK;
}

tm_status tm__yaml_parse(tm_yaml_node **out, tm_slice text, const char *name, tm_error *err) {
  reader r = {.text = text, .name = name, .err = err};
  *out = NULL;
  if (!yaml_parser_initialize(&r.parser)) return tm__fail_memory(err, "the YAML parser");
  yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
  yaml_parser_set_input_string(&r.parser, (const unsigned char *)text.ptr, text.len);
  tm_status s = read_events(&r);
  yaml_parser_delete(&r.parser);
  free(r.key);
  if (s != TM_OK) {
    tm__yaml_free(r.root);
    r.root = NULL;
  }
  *out = r.root;
  return s;
}
