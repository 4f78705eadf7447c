/* event_id.c - names of events, written and read. */
#include "outbox/event_id.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/id.h"

#define INDEX_MAX 1000000

void tm__event_id(char out[TM_EVENT_ID_SIZE], const tm_outgoing *event) {
  (void)snprintf(out, TM_EVENT_ID_SIZE, "%s:%lld:%d", event->conversation,
                 (long long)event->revision, event->index);
}

/* Other ways to write the same numbers are other names: what is read is written and compared. */
bool tm__event_id_read(tm_outgoing *out, tm_slice id) {
  char text[TM_EVENT_ID_SIZE], again[TM_EVENT_ID_SIZE];
  if (!tm__copy(text, sizeof(text), id)) return false;
  char *revision = strchr(text, ':'), *index = strrchr(text, ':');
  if (revision == NULL || index == revision) return false;
  tm_slice conversation = {text, (size_t)(revision - text)};
  if (!tm__uuid_valid(conversation)) return false;
  long long last = strtoll(index + 1, NULL, 10);
  if (last < 0 || last > INDEX_MAX) return false;
  (void)tm__copy(out->conversation, sizeof(out->conversation), conversation);
  out->revision = strtoll(revision + 1, NULL, 10);
  out->index = (int)last;
  tm__event_id(again, out);
  return out->revision > 0 && strcmp(again, text) == 0;
}
