/* event_id.c - names of events, written and read. */
#include "outbox/event_id.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/id.h"

#define INDEX_MAX 1000000

void tm__event_id(char out[TM_EVENT_ID_SIZE], const tm_outgoing *event) {
  (void)snprintf(out, TM_EVENT_ID_SIZE, "%s:%lld:%d:%lld", event->conversation,
                 (long long)event->revision, event->index, (long long)event->created);
}

/* Other ways to write the same numbers are other names: what is read is written and compared. */
bool tm__event_id_read(tm_outgoing *out, tm_slice id) {
  char text[TM_EVENT_ID_SIZE], again[TM_EVENT_ID_SIZE];
  if (!tm__copy(text, sizeof(text), id)) return false;
  char *at = text + strcspn(text, ":");
  tm_slice conversation = {text, (size_t)(at - text)};
  if (!tm__uuid_valid(conversation)) return false;
  long long numbers[3] = {0, 0, 0}; /* revision, index, created */
  for (int i = 0; i < 3 && *at == ':'; i++)
    numbers[i] = strtoll(at + 1, &at, 10);
  if (numbers[1] < 0 || numbers[1] > INDEX_MAX) return false;
  (void)tm__copy(out->conversation, sizeof(out->conversation), conversation);
  out->revision = numbers[0];
  out->index = (int)numbers[1];
  out->created = numbers[2];
  tm__event_id(again, out);
  return out->revision > 0 && strcmp(again, text) == 0;
}
