/* err.h - filling in tm_error: one shape, one constructor. */
#ifndef TM_CORE_ERR_H
#define TM_CORE_ERR_H

#include "tidemill.h"

/* Clears `err` (which may be NULL), records status, stable code and message, returns `status`:
 *   return tm__fail(err, TM_EIO, "store.io", "open %s: %s", path, strerror(errno)); */
tm_status tm__fail(tm_error *err, tm_status status, const char *code, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* For every "out of memory"; `what` names the thing that could not be had. */
tm_status tm__fail_memory(tm_error *err, const char *what);

/* A status for a stable name ("not_found") and back; TM_ESCRIPT when unknown. */
tm_status tm__status_from_name(const char *name);

#endif
