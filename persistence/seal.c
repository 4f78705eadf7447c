/* seal.c - libsodium's AEAD around a body. Writes nothing but the envelope and allocates nothing
 * but the room for it. */
#include "persistence/seal.h"

#include <sodium.h>

#define NONCE 24
#define TAG   16

_Static_assert(crypto_aead_xchacha20poly1305_ietf_KEYBYTES == TM_SEAL_KEY_BYTES, "size of a key");
_Static_assert(crypto_aead_xchacha20poly1305_ietf_NPUBBYTES == NONCE, "size of a nonce");
_Static_assert(crypto_aead_xchacha20poly1305_ietf_ABYTES == TAG, "size of a tag");

typedef struct covered { /* by the tag, beside the ciphertext */
  unsigned char bytes[TM_SEAL_HEAD + TM_SEAL_BOUND];
  size_t len;
} covered;

static bool cover(covered *c, const unsigned char *head, tm_slice bound) {
  if (bound.len > TM_SEAL_BOUND) return false;
  memcpy(c->bytes, head, TM_SEAL_HEAD);
  if (bound.len > 0) memcpy(c->bytes + TM_SEAL_HEAD, bound.ptr, bound.len);
  c->len = TM_SEAL_HEAD + bound.len;
  return true;
}

bool tm__seal(tm_buf *out, const tm_seal_key *key, tm_slice bound, tm_slice plain) {
  unsigned char *at = (unsigned char *)tm__buf_room(out, plain.len + TM_SEAL_OVERHEAD);
  covered c;
  if (at == NULL) return false;
  at[0] = TM_SEAL_VERSION;
  memcpy(at + 1, key->id, TM_SEAL_ID_BYTES);
  unsigned char *nonce = at + TM_SEAL_HEAD;
  randombytes_buf(nonce, NONCE);
  if (!cover(&c, at, bound)) return false;
  (void)crypto_aead_xchacha20poly1305_ietf_encrypt(nonce + NONCE, NULL,
                                                   (const unsigned char *)plain.ptr, plain.len,
                                                   c.bytes, c.len, NULL, nonce, key->bytes);
  out->len += plain.len + TM_SEAL_OVERHEAD;
  return true;
}

const unsigned char *tm__seal_id(tm_slice envelope) {
  const unsigned char *at = (const unsigned char *)envelope.ptr;
  if (envelope.len < TM_SEAL_OVERHEAD || at[0] != TM_SEAL_VERSION) return NULL;
  return at + 1;
}

tm_status tm__unseal(tm_buf *out, const tm_seal_key *key, tm_slice bound, tm_slice envelope) {
  const unsigned char *at = (const unsigned char *)envelope.ptr;
  covered c;
  if (tm__seal_id(envelope) == NULL || !cover(&c, at, bound)) return TM_ECORRUPT;
  size_t len = envelope.len - TM_SEAL_OVERHEAD;
  unsigned char *plain = (unsigned char *)tm__buf_room(out, len);
  if (plain == NULL) return TM_ENOMEM;
  const unsigned char *nonce = at + TM_SEAL_HEAD;
  if (crypto_aead_xchacha20poly1305_ietf_decrypt(plain, NULL, NULL, nonce + NONCE, len + TAG,
                                                 c.bytes, c.len, nonce, key->bytes) != 0)
    return TM_ECORRUPT;
  out->len += len;
  return TM_OK;
}
