/* state.h - a conversation's state as canonical JSON text: deltas between two, and back.
 *
 * A delta is {"set":{name:value,...},"unset":[name,...]} over the members of the object.
 */
#ifndef TM_JOURNAL_STATE_H
#define TM_JOURNAL_STATE_H

#include "core/buf.h"

/* Appends the delta that makes `to` out of `from`; both canonical objects with sorted keys. */
void tm__state_delta(tm_buf *out, tm_slice from, tm_slice to);
/* Appends the object that `delta` makes of `from`, canonical; false when either is malformed. */
bool tm__state_apply(tm_buf *out, tm_slice from, tm_slice delta);

#endif
