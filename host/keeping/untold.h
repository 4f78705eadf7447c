/* untold.h - events that nobody is to be told of. A host without a receiver gives up those that no
 * other has tried for so long either: they keep their conversation no longer than one that is tried
 * in vain does.
 */
#ifndef TM_KEEPING_UNTOLD_H
#define TM_KEEPING_UNTOLD_H

#include "storage/access.h"

/* Reader: is there one that has been due since then or longer? */
tm_status tm__untold_look(const tm_store_access *a, bool in_memory, int64_t since, bool *out,
                          tm_error *err);
/* Writer: gives up one of them with those behind it that were emitted by then. *count grows by
 * them; 0: there was none, or somebody else had it. */
tm_status tm__untold_give_up(const tm_store_access *a, bool in_memory, const char *tenant,
                             int64_t since, int64_t now, size_t *count, tm_error *err);

#endif
