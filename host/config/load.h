/* load.h - what the parts of loading share: the configuration as it grows, and what is wrong.
 *
 * Problems are collected, so that one run names all of them; loading fails when there is one.
 */
#ifndef TM_CONFIG_LOAD_H
#define TM_CONFIG_LOAD_H

#include "config/config.h"
#include "config/env.h"
#include "config/file.h"
#include "config/value.h"
#include "config/yaml.h"

typedef struct tm_slot {
  tm_value value;
  char *origin; /* owned; NULL: the default */
} tm_slot;

struct tm_config {
  tm_slot *slots;          /* one for each key, in the order of keys.def */
  char file[TM_NAME_SIZE]; /* the configuration file, for messages */
};

typedef struct tm_loader {
  tm_config *config;
  const tm_config_options *options;
  tm_env env;
  tm_buf problems; /* a line each, as many as fit a message */
  size_t problem_count, left_out;
  bool no_memory;
} tm_loader;

/* "WHERE: text" */
void tm__load_problem(tm_loader *l, const char *where, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void tm__load_warn(tm_loader *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Where a value comes from, for people. */
void tm__slot_place(const tm_config *c, const tm_slot *s, char out[TM_CONFIG_PLACE]);

/* Converts and keeps a value, or notes the problem. A value kept earlier is replaced. */
void tm__load_text(tm_loader *l, size_t key, tm_slice text, tm_style style, const char *where,
                   const char *origin);
void tm__load_list(tm_loader *l, size_t key, const tm_slice *items, size_t count, const char *where,
                   const char *origin);

void tm__load_tree(tm_loader *l, const tm_yaml_node *root); /* bind.c; root NULL: nothing */
void tm__load_variables(tm_loader *l);                      /* sources.c */
void tm__load_set(tm_loader *l);                            /* sources.c */
void tm__load_rules(tm_loader *l); /* rules.c: what must hold between keys; last */

#endif
