/* event_id.h - the name of an event for the world: conversation:revision:index:created. After a
 * restore a conversation has revisions again that it had: the time tells their events from those
 * of before, which receivers know already. */
#ifndef TM_OUTBOX_EVENT_ID_H
#define TM_OUTBOX_EVENT_ID_H

#include "storage/storage.h"

#define TM_EVENT_ID_SIZE (TM_ID_SIZE + 64)

void tm__event_id(char out[TM_EVENT_ID_SIZE], const tm_outgoing *event);
/* Sets the key of `out` and when it was created; false: it is not as tm__event_id writes one. */
bool tm__event_id_read(tm_outgoing *out, tm_slice id);

#endif
