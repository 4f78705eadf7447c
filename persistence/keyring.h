/* keyring.h - the keys that bodies are sealed with.
 *
 * A key is 32 random bytes; its id is derived from it, so that ids need no configuration. Keys lie
 * in memory that is locked where the system allows it, that no core dump contains, and that is
 * wiped when they go. Any thread may call. Knows nothing of stores and bodies.
 */
#ifndef TM_PERSISTENCE_KEYRING_H
#define TM_PERSISTENCE_KEYRING_H

#include "core/buf.h"
#include "core/err.h"

#define TM_SEAL_KEY_BYTES 32
#define TM_SEAL_ID_BYTES  8
#define TM_SEAL_ID_HEX    (2 * TM_SEAL_ID_BYTES + 1)

typedef struct tm_seal_key { /* counted; lies in guarded memory itself */
  unsigned char bytes[TM_SEAL_KEY_BYTES];
  unsigned char id[TM_SEAL_ID_BYTES];
  int refs; /* internal, atomic */
} tm_seal_key;

typedef struct tm_keyring tm_keyring;

typedef struct tm_keyring_options { /* texts of keys: 32 bytes in base64 or hex */
  const char *current;              /* "" or NULL: none */
  const char *current_name;         /* where it was configured, for messages; likewise: */
  const char *previous_name;
  const char *const *previous; /* for reading only */
  size_t previous_count;
  const char *tenants; /* a folder: the keys of a tenant are the lines of the file <tenant>.key, the
                          first to seal with, the others for reading; "" or NULL: all tenants are
                          sealed with `current` */
} tm_keyring_options;

/* TM_EINVAL "seal.key_invalid" names the place and says how to make a key; "seal.folder". */
tm_status tm__keyring_new(tm_keyring **out, const tm_keyring_options *o, tm_error *err);
void tm__keyring_free(tm_keyring *k); /* keys that are in use go with their users; NULL allowed */
bool tm__keyring_can_seal(const tm_keyring *k); /* is there a key, or a folder of them? */

bool tm__keyring_has_old(const tm_keyring *k); /* may there be keys for reading only? */
/* "seal.no_key": sealing is wanted without one; `name`: where, or NULL. */
tm_status tm__keyring_none(const char *name, tm_error *err);

/* The key that this tenant's bodies are sealed with; the caller's reference. Without a file of the
 * tenant TM_EUNAVAILABLE "seal.key_missing". A file that goes is noticed within a second. */
tm_status tm__keyring_current(tm_keyring *k, tm_slice tenant, tm_seal_key **out, tm_error *err);
/* The key of that id, among the tenant's and those of all; TM_ENOTFOUND "seal.key_unknown". */
tm_status tm__keyring_find(tm_keyring *k, tm_slice tenant, const unsigned char *id,
                           tm_seal_key **out, tm_error *err);
void tm__seal_key_unref(tm_seal_key *key); /* NULL is allowed */

/* The id as people see it: it is no secret. */
void tm__seal_id_hex(char out[TM_SEAL_ID_HEX], const unsigned char *id);

/* ---- for the work of sealing anew ---- */
/* Ids in hex of the key to seal with (if any), then of those that are for reading only, joined by
 * blanks; of all tenants, or with `tenant` of that tenant's file. */
tm_status tm__keyring_ids(tm_keyring *k, tm_slice tenant, tm_buf *out, tm_error *err);
/* Of those for reading only, of all tenants, without the key to seal with. */
tm_status tm__keyring_old_ids(const tm_keyring *k, tm_buf *out, tm_error *err);
/* Tenants that have a file; `fn` returning anything but TM_OK ends it. */
tm_status tm__keyring_tenants(tm_keyring *k, tm_status (*fn)(void *ud, tm_slice tenant), void *ud,
                              tm_error *err);

#endif
