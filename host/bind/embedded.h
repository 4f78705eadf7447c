/* embedded.h - the Lua runtime as text inside the library, made by host/tools/embed.lua. */
#ifndef TM_BIND_EMBEDDED_H
#define TM_BIND_EMBEDDED_H

#include <stddef.h>

struct tm__embedded {
  const char *name;  /* "tidemill.task" */
  const char *chunk; /* "@lua/tidemill/task.lua" */
  const char *text;
  size_t size;
};
extern const struct tm__embedded tm__embedded[]; /* sorted by name of file; ends with name NULL */

#endif
