/* config.h - agent_config.yaml and the environment, checked against one table of keys.
 *
 * host/config/keys.def lists every key once: path, type, default, bounds, whether it is secret, and
 * whether it is not supported yet (then any value but the default is refused with the reason). A
 * value's origin is `default`, `file:LINE`, `env file NAME`, `env NAME` or `set`; each is stronger
 * than the one before.
 */
#ifndef TM_CONFIG_CONFIG_H
#define TM_CONFIG_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "core/buf.h"
#include "core/err.h"

#define TM_SESSION_PREFIX_MAX 64 /* bytes of orchestrator.session_config.session_prefix */

typedef struct tm_config tm_config;

typedef struct tm_config_options {
  const char *file;                         /* NULL: ./agent_config.yaml if it exists */
  const char *env_file;                     /* NULL: none */
  const char *const *set;                   /* NULL-terminated key=value, or NULL */
  const char *const *env;                   /* NULL: the process's environment */
  void (*warn)(void *ud, const char *text); /* NULL: dropped; one call per warning */
  void *ud;
} tm_config_options;

/* Errors: TM_EINVAL "config.invalid": a line for each problem, as many as fit, with
 * file:line:column or the variable's name, what is wrong and the nearest key; TM_ENOMEM. On failure
 * *out is NULL. The loaded configuration never changes and may be read by any thread. */
tm_status tm__config_load(tm_config **out, const tm_config_options *o, tm_error *err);
void tm__config_free(tm_config *c); /* NULL allowed */

/* Values by full path ("server.listen"). Asking for a key that keys.def does not have, or with
 * another type, is a programming error: the getter returns "" / 0 / false and a test finds it. */
const char *tm__config_text(const tm_config *c, const char *path);
int64_t tm__config_int(const tm_config *c, const char *path); /* integers and sizes in bytes */
int64_t tm__config_ms(const tm_config *c, const char *path);  /* durations, in milliseconds */
double tm__config_number(const tm_config *c, const char *path);
bool tm__config_bool(const tm_config *c, const char *path);
size_t tm__config_list(const tm_config *c, const char *path, const char *const **items);
/* Wipes a secret, or secrets, that somebody has taken over; it is still shown as hidden. The one
 * thing that changes after loading: before other threads read. */
void tm__config_forget(tm_config *c, const char *path);
bool tm__config_is_set(const tm_config *c, const char *path); /* not the default */
#define TM_CONFIG_PLACE 288
/* Where the value comes from, for people: "agent_config.yaml:12", "env NAME", "default". */
void tm__config_place(const tm_config *c, const char *path, char out[TM_CONFIG_PLACE]);

/* {"items":[{"key","value","origin","env"}]}, in the order of keys.def. Values are JSON of their
 * type: sizes in bytes, durations in seconds, null where there is none; secrets are "(hidden)". */
void tm__config_describe(const tm_config *c, tm_buf *out);

#endif
