/* codec.h - bodies as a store keeps them: plain JSON, compressed, sealed, or both (first
 * compressed).
 *
 * Sits between the journal, which sees plain bodies only, and stores, which see opaque ones. A
 * sealed body is bound to where it belongs: it cannot be read in another place, and what was not
 * sealed is refused where sealing is demanded. Any thread may call; nothing is allocated per body
 * but the output. Knows no store.
 */
#ifndef TM_PERSISTENCE_CODEC_H
#define TM_PERSISTENCE_CODEC_H

#include "persistence/keyring.h"
#include "persistence/store.h"

#define TM_BODY_ZSTD   UINT32_C(1)
#define TM_BODY_SEALED UINT32_C(2)

typedef struct tm_codec_options {
  tm_keyring *keys;      /* borrowed; NULL: none */
  bool seal;             /* everything, whatever is asked for */
  bool accept_plaintext; /* `seal` was turned on for a store with plain bodies, which may be read
                            until they are sealed */
} tm_codec_options;

typedef struct tm_codec tm_codec;

tm_status tm__codec_new(tm_codec **out, const tm_codec_options *o, tm_error *err);
void tm__codec_free(tm_codec *c); /* when nobody calls any more; NULL allowed */
const tm_codec_options *tm__codec_options(const tm_codec *c);

/* Where a body belongs. All of it but `tenant`'s key is public. */
typedef struct tm_place {
  tm_slice tenant;
  tm_slice conversation; /* of a row or an event; ptr NULL: a session's text */
  int64_t revision;
  tm_row_kind kind;
  bool event; /* not the row of that revision but one of its events: */
  int index;
  tm_slice session, field; /* of a session: its id, "user_id" or "metadata" */
} tm_place;

typedef struct tm_stored {
  uint32_t flags; /* TM_BODY_* */
  tm_slice bytes;
} tm_stored;

/* Appends the body as the store keeps it, compressed and sealed where asked for or demanded, to
 * `out`, and says in `stored` what it is; that is `plain` itself when nothing was to be done. What
 * belongs to a session or is an event is never compressed. Errors: those of keys; TM_ENOMEM. */
tm_status tm__codec_encode(tm_codec *c, const tm_place *at, tm_slice plain, bool compress,
                           bool seal, tm_buf *out, tm_stored *stored, tm_error *err);

/* The plain body: `stored` itself, or in `out`, which is cleared. Without a codec (NULL) only plain
 * bodies are read. TM_ECORRUPT "seal.forged": altered, or moved from elsewhere; "seal.key_unknown";
 * "seal.plaintext"; "journal.damaged"; "journal.newer"; TM_EUNAVAILABLE "seal.key_missing";
 * TM_ENOMEM. */
tm_status tm__codec_decode(tm_codec *c, const tm_place *at, const tm_stored *stored, tm_buf *out,
                           tm_slice *plain, tm_error *err);
tm_status tm__codec_plaintext(const tm_place *at, tm_error *err); /* fails: "seal.plaintext" */
tm_status tm__codec_forged(const tm_place *at, tm_error *err);    /* fails: "seal.forged" */

/* Is it as it would be written now? A body that is sealed stays so, with the key of today. */
tm_status tm__codec_is_current(tm_codec *c, tm_slice tenant, const tm_stored *stored, bool *current,
                               tm_error *err);

/* Does an error speak of one record, so that it says nothing about the store? */
bool tm__codec_is_of_record(const tm_error *err);

#endif
