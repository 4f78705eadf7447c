/* sign.h - how the other side can tell that an event is ours: HMAC-SHA256 over the time and the
 * body. */
#ifndef TM_OUTBOX_SIGN_H
#define TM_OUTBOX_SIGN_H

#include "core/buf.h"

/* Appends "v1=<hex>" of "<seconds>.<body>"; with `previous` (NULL or "": none) a second one, by
 * that secret, after a comma. */
void tm__outbox_sign(tm_buf *out, const char *secret, const char *previous, int64_t seconds,
                     tm_slice body);

#endif
