/* keys.h - keys for tests of sealing: texts of some, a keyring of them, a folder of tenants'. */
#ifndef TM_TESTS_PERSISTENCE_KEYS_H
#define TM_TESTS_PERSISTENCE_KEYS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "persistence/codec.h"
#include "tests/scratch.h"

/* As of `openssl rand -base64 32`; C in hex. */
#define KEY_A "q83Wm0m2cMyaGZBjyNKsRRjKJvSaTdZ5Zkdkm0W4yqE="
#define KEY_B "Yl7cVH1m9d2+R/3qAvQyW3iX1Jm2rC6y8q5Gm0sTn0M="
#define KEY_C "00112233445566778899AABBCCDDEEFFfedcba98765432100123456789abcdef"

#define assert_status(expected, call, err)                                                         \
  do {                                                                                             \
    tm_status status_ = (call);                                                                    \
    if (status_ != (expected)) print_error("%s: %s\n", (err)->code, (err)->message);               \
    assert_int_equal(status_, expected);                                                           \
  } while (0)

static inline tm_keyring *keys_of(const char *current, const char *previous, const char *folder) {
  tm_error err = {0};
  tm_keyring *k = NULL;
  const char *const others[] = {previous};
  const tm_keyring_options o = {.current = current,
                                .current_name = "encryption_key",
                                .previous_name = "previous_encryption_keys",
                                .previous = others,
                                .previous_count = previous != NULL,
                                .tenants = folder};
  assert_status(TM_OK, tm__keyring_new(&k, &o, &err), &err);
  return k;
}

typedef struct key_folder {
  char dir[128];
} key_folder;

static inline key_folder key_folder_make(void) {
  key_folder f = {0};
  assert_true(scratch_make(f.dir, sizeof(f.dir), "keys"));
  return f;
}

static inline void key_path(const key_folder *f, const char *tenant, char out[256]) {
  (void)snprintf(out, 256, "%s/%s.key", f->dir, tenant);
}

static inline void key_put(const key_folder *f, const char *tenant, const char *text) {
  char path[256];
  key_path(f, tenant, path);
  FILE *file = fopen(path, "w");
  assert_non_null(file);
  assert_true(fputs(text, file) >= 0);
  assert_int_equal(fclose(file), 0);
}

static inline void key_destroy(const key_folder *f, const char *tenant) {
  char path[256];
  key_path(f, tenant, path);
  assert_int_equal(unlink(path), 0);
}

#endif
