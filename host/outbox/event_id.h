/* event_id.h - the name of an event for the world: conversation:revision:index. */
#ifndef TM_OUTBOX_EVENT_ID_H
#define TM_OUTBOX_EVENT_ID_H

#include "storage/storage.h"

#define TM_EVENT_ID_SIZE (TM_ID_SIZE + 32)

void tm__event_id(char out[TM_EVENT_ID_SIZE], const tm_outgoing *event);
/* Sets the key of `out`; false: it is not as tm__event_id writes one. */
bool tm__event_id_read(tm_outgoing *out, tm_slice id);

#endif
