/* seal.h - the envelope of a sealed body: XChaCha20-Poly1305 with a random nonce.
 *
 *   version (1) | id of the key (8) | nonce (24) | ciphertext and tag (16)
 *
 * The tag also covers version, id and `bound`, which is not stored: an envelope opens only where it
 * belongs. Knows keys, nothing of rows.
 */
#ifndef TM_PERSISTENCE_SEAL_H
#define TM_PERSISTENCE_SEAL_H

#include "persistence/keyring.h"

#define TM_SEAL_VERSION  1
#define TM_SEAL_HEAD     (1 + TM_SEAL_ID_BYTES)
#define TM_SEAL_OVERHEAD (TM_SEAL_HEAD + 24 + 16)
#define TM_SEAL_BOUND    512 /* bytes of `bound` at most */

/* Appends the envelope; false: out of memory, or `bound` is too long. */
bool tm__seal(tm_buf *out, const tm_seal_key *key, tm_slice bound, tm_slice plain);

/* The id of the key that opens it; NULL when this is no envelope of a version that we know. */
const unsigned char *tm__seal_id(tm_slice envelope);

/* Appends what was sealed. TM_ECORRUPT: another key, another `bound`, or a byte was altered;
 * TM_ENOMEM. */
tm_status tm__unseal(tm_buf *out, const tm_seal_key *key, tm_slice bound, tm_slice envelope);

#endif
