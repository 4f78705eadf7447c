/* encode.h - the way out: what a commit holds, made into what the store keeps. */
#ifndef TM_STORAGE_ENCODE_H
#define TM_STORAGE_ENCODE_H

#include "persistence/codec.h"

typedef struct tm_encoding { /* zero-initialise; in the place of a commit's row, session, events */
  tm_row row;
  tm_session session;
  const tm_row *plain_row;
  const tm_session *plain_session;
  const tm_outgoing *plain_events;
  tm_outgoing *events;
  tm_buf bytes[4]; /* of the row, of the session's texts, of all events */
} tm_encoding;

/* The commit holds what the store keeps until tm__encoding_end gives it back what it held. */
tm_status tm__encoding_begin(tm_encoding *e, tm_codec *codec, tm_commit *commit, bool compress,
                             bool seal, tm_error *err);
void tm__encoding_end(tm_encoding *e, tm_commit *commit); /* idempotent */

#endif
