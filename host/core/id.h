/* id.h - UUIDv7 ids, random bytes and digests (libsodium). */
#ifndef TM_CORE_ID_H
#define TM_CORE_ID_H

#include "core/buf.h"

#define TM_ID_SIZE 37 /* 36 characters and the NUL */

void tm__random_bytes(void *out, size_t len);

void tm__uuid7(char out[TM_ID_SIZE], int64_t now_ms);
bool tm__uuid_valid(tm_slice s); /* lower-case, 36 characters */

/* The first `hex_len` hex digits of the BLAKE2b-256 digest of the parts, each preceded by its
 * length; writes hex_len + 1 bytes. */
void tm__digest_hex(char *out, size_t hex_len, const tm_slice *parts, size_t count);
uint64_t tm__digest_u64(const tm_slice *parts, size_t count); /* never 0 */

/* The same piece by piece: begin, for each part its size and its bytes in any number of pieces,
 * end. It holds nothing that has to be released. */
typedef struct tm_digest {
  _Alignas(64) unsigned char state[384];
} tm_digest;
void tm__digest_begin(tm_digest *d);
void tm__digest_part(tm_digest *d, size_t size);
void tm__digest_add(tm_digest *d, tm_slice bytes);
void tm__digest_end(tm_digest *d, char *out, size_t hex_len); /* as tm__digest_hex */

#endif
