/* env.h - variables: the process's environment and, weaker, an env file; and ${NAME} in texts. */
#ifndef TM_CONFIG_ENV_H
#define TM_CONFIG_ENV_H

#include "core/buf.h"
#include "core/err.h"

#define TM_ENV_FILE_MAX ((size_t)1 << 20)

typedef struct tm_env_var { /* borrowed from the environment or from tm_env.text */
  tm_slice name, value;
  size_t line; /* in the env file; 0: from the environment */
  bool used;   /* somebody asked for it */
} tm_env_var;

typedef struct tm_env { /* zero-initialise */
  tm_env_var *vars;
  size_t count, cap;
  tm_buf text;      /* of the env file; values are unquoted in place */
  const char *file; /* borrowed; NULL: none */
} tm_env;

/* `environment`: NULL-terminated NAME=value, borrowed until close; `file` NULL: none. The file has
 * lines NAME=value, # comments, quotes ('verbatim', "with \n \t \" \\ \$"), optional `export`.
 * TM_EINVAL "config.invalid" with file:line; contents are never repeated. */
tm_status tm__env_open(tm_env *env, const char *const *environment, const char *file,
                       tm_error *err);
void tm__env_close(tm_env *env);

/* Marks it as used; NULL when there is none. */
const tm_env_var *tm__env_find(tm_env *env, tm_slice name, bool in_file);
const tm_env_var *tm__env_get(tm_env *env, tm_slice name); /* the environment first */

/* Appends `text` with ${NAME} and ${NAME:default} replaced ("$${" stands for "${"); what is put in
 * is not looked at again. *changed: something was replaced. TM_EINVAL: `why` got the reason. */
tm_status tm__env_expand(tm_env *env, tm_buf *out, tm_slice text, bool *changed, tm_buf *why);

#endif
