/* yaml.h - YAML text to a small tree with positions, by libyaml's events.
 *
 * Takes what a configuration needs: one document of maps, lists and scalars. Refused with
 * file:line:column: anchors and aliases, tags, duplicate keys, keys that are not plain names, depth
 * over 16, more than 4096 values, NUL in a text. Knows nothing about keys of ours.
 */
#ifndef TM_CONFIG_YAML_H
#define TM_CONFIG_YAML_H

#include "core/buf.h"
#include "core/err.h"

#define TM_YAML_DEPTH 16
#define TM_YAML_NODES 4096

typedef enum tm_yaml_kind { TM_YAML_SCALAR, TM_YAML_LIST, TM_YAML_MAP } tm_yaml_kind;

typedef struct tm_yaml_node { /* owns its texts and what is below it */
  tm_yaml_kind kind;
  char *key;           /* of a map's member, else NULL */
  char *text;          /* of a scalar, else NULL */
  bool plain;          /* a scalar without quotes */
  size_t line, column; /* of the value; from 1, in characters */
  size_t key_line, key_column;
  struct tm_yaml_node *parent, *first, *last, *next;
} tm_yaml_node;

/* `name` is the file's in messages. *out is NULL when the text holds nothing, else the caller's.
 * TM_EINVAL "config.invalid", TM_ENOMEM. */
tm_status tm__yaml_parse(tm_yaml_node **out, tm_slice text, const char *name, tm_error *err);
void tm__yaml_free(tm_yaml_node *node); /* NULL allowed */

#endif
