/* Keys: which texts are one, what their ids are, where they lie, and the files of tenants as they
 * come, change and go. */
#include "keys.h"

#include <string.h>

#include "tests/provoke.h"

static tm_status make(const char *text, tm_error *err) {
  tm_keyring *k = NULL;
  const tm_keyring_options o = {.current = text, .current_name = "encryption_key"};
  tm_status status = tm__keyring_new(&k, &o, err);
  tm__keyring_free(k);
  return status;
}

static void it_takes_32_bytes_and_nothing_else(void **state) {
  (void)state;
  tm_error err = {0};
  static const char *const good[] = {KEY_A, KEY_B, KEY_C, " " KEY_A "\n"};
  static const char *const bad[] = {
      "correct horse battery staple",
      "q83Wm0m2cMyaGZBjyNKsRRjKJvSaTdZ5Zkdkm0W4yqE",      /* no padding */
      "q83Wm0m2cMyaGZBjyNKsRRjKJvSaTdZ5Zkdkm0W4yg==",     /* 31 bytes */
      "q83Wm0m2cMyaGZBjyNKsRRjKJvSaTdZ5Zkdkm0W4yqEA",     /* 33 */
      "q83Wm0m2cMyaGZBjyNKsRRjKJvSaTdZ5Zkdkm0W4yq!=",     /* another letter */
      "00112233445566778899AABBCCDDEEFFfedcba9876543210", /* 24 bytes in hex */
      "00112233445566778899AABBCCDDEEFFfedcba98765432100123456789abcdeg",
      "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", /* one byte, 32 times */
  };
  for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
    assert_status(TM_OK, make(good[i], &err), &err);
  for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
    assert_int_equal(make(bad[i], &err), TM_EINVAL);
    assert_string_equal(err.code, "seal.key_invalid");
    assert_non_null(strstr(err.message, "encryption_key"));
    assert_non_null(strstr(err.message, "openssl rand -base64 32"));
    assert_null(strstr(err.message, bad[i]));
  }
}

static void without_a_key_nothing_is_sealed(void **state) {
  (void)state;
  tm_error err = {0};
  tm_seal_key *key;
  tm_keyring *k = keys_of("", NULL, NULL);
  assert_false(tm__keyring_can_seal(k));
  assert_int_equal(tm__keyring_current(k, TM_S("t"), &key, &err), TM_EUNAVAILABLE);
  assert_string_equal(err.code, "seal.no_key");
  assert_non_null(strstr(err.message, "openssl rand -base64 32"));
  tm__keyring_free(k);
}

static void an_id_belongs_to_its_key(void **state) {
  (void)state;
  tm_error err = {0};
  tm_keyring *k = keys_of(KEY_A, KEY_B, NULL);
  tm_buf ids = {0};
  assert_true(tm__keyring_can_seal(k));
  assert_status(TM_OK, tm__keyring_ids(k, (tm_slice){0}, &ids, &err), &err);
  assert_string_equal(ids.ptr, "398a0217d856854e 32febe9e279d13f8");
  tm__buf_clear(&ids);
  assert_status(TM_OK, tm__keyring_old_ids(k, &ids, &err), &err);
  assert_string_equal(ids.ptr, "32febe9e279d13f8");
  tm_seal_key *current, *again;
  assert_status(TM_OK, tm__keyring_current(k, TM_S("t"), &current, &err), &err);
  assert_status(TM_OK, tm__keyring_find(k, TM_S("t"), current->id, &again, &err), &err);
  assert_ptr_equal(again, current);
  tm__seal_key_unref(again);
  unsigned char other[TM_SEAL_ID_BYTES] = "unknown";
  assert_int_equal(tm__keyring_find(k, TM_S("t"), other, &again, &err), TM_ENOTFOUND);
  assert_string_equal(err.code, "seal.key_unknown");
  tm__keyring_free(k); /* a key that somebody holds stays */
  assert_int_equal(current->bytes[0], 0xab);
  tm__seal_key_unref(current);
  k = keys_of(KEY_A, KEY_A, NULL); /* the key to seal with is none of before */
  tm__buf_clear(&ids);
  assert_status(TM_OK, tm__keyring_old_ids(k, &ids, &err), &err);
  assert_int_equal(ids.len, 0);
  tm__keyring_free(k);
  tm__buf_free(&ids);
}

/* The flags of the mapping that holds `p`; "" when the system does not say. */
static void mapping_flags(const void *p, char out[256]) {
  char line[200];
  uintptr_t from, to;
  bool within = false;
  FILE *f = fopen("/proc/self/smaps", "r");
  out[0] = '\0';
  while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
    if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
      within = from <= (uintptr_t)p && (uintptr_t)p < to;
    if (within && strncmp(line, "VmFlags:", 8) == 0) (void)snprintf(out, 256, "%s", line + 8);
  }
  if (f != NULL) (void)fclose(f);
}

static void a_key_is_in_no_core_dump(void **state) {
  (void)state;
  tm_error err = {0};
  tm_keyring *k = keys_of(KEY_A, NULL, NULL);
  tm_seal_key *key;
  char flags[256];
  assert_status(TM_OK, tm__keyring_current(k, TM_S("t"), &key, &err), &err);
  mapping_flags(key, flags);
  if (flags[0] == '\0') skip();
  assert_non_null(strstr(flags, " dd"));
  tm__seal_key_unref(key);
  tm__keyring_free(k);
}

/* ---- tenants ---- */

static void check_current(tm_keyring *k, const char *tenant, int first_byte) {
  tm_error err = {0};
  tm_seal_key *key;
  assert_status(TM_OK, tm__keyring_current(k, tm__slice(tenant), &key, &err), &err);
  assert_int_equal(key->bytes[0], first_byte);
  tm__seal_key_unref(key);
}

static void check_missing(tm_keyring *k, const char *tenant) {
  tm_error err = {0};
  tm_seal_key *key;
  assert_int_equal(tm__keyring_current(k, tm__slice(tenant), &key, &err), TM_EUNAVAILABLE);
  assert_string_equal(err.code, "seal.key_missing");
  assert_null(key);
}

static void a_tenant_has_a_file(void **state) {
  (void)state;
  tm_error err = {0};
  key_folder f = key_folder_make();
  char path[256];
  key_put(&f, "ann", KEY_A "\n\n" KEY_B "\n");
  key_put(&f, "bob", KEY_C);
  tm_keyring *k = keys_of(NULL, NULL, f.dir);
  assert_true(tm__keyring_can_seal(k));
  check_current(k, "ann", 0xab);
  check_current(k, "bob", 0x00);

  tm_seal_key *key, *other;
  assert_int_equal(tm__keyring_current(k, TM_S("eve"), &key, &err), TM_EUNAVAILABLE);
  key_path(&f, "eve", path);
  assert_non_null(strstr(err.message, path));
  assert_non_null(strstr(err.message, "openssl rand -base64 32 > "));
  check_missing(k, "../ann");
  check_missing(k, "");

  assert_status(TM_OK, tm__keyring_current(k, TM_S("bob"), &key, &err), &err);
  assert_int_equal(tm__keyring_find(k, TM_S("ann"), key->id, &other, &err), TM_ENOTFOUND);
  assert_status(TM_OK, tm__keyring_find(k, TM_S("bob"), key->id, &other, &err), &err);
  tm__seal_key_unref(key);
  tm__seal_key_unref(other);
  tm__keyring_free(k);
  key_destroy(&f, "ann");
  key_destroy(&f, "bob");
  assert_int_equal(rmdir(f.dir), 0);
}

/* All that is kept is older than what the clock says. */
static void a_while_later(void) {
  (void)atomic_fetch_add(&provoke.hours, 1);
}

static void a_file_that_goes_takes_its_key_along(void **state) {
  (void)state;
  tm_error err = {0};
  key_folder f = key_folder_make();
  tm_seal_key *key, *again;
  key_put(&f, "ann", KEY_A);
  tm_keyring *k = keys_of(NULL, KEY_C, f.dir);
  assert_status(TM_OK, tm__keyring_current(k, TM_S("ann"), &key, &err), &err);
  key_destroy(&f, "ann");
  a_while_later();
  check_missing(k, "ann");
  assert_int_equal(tm__keyring_find(k, TM_S("ann"), key->id, &again, &err), TM_EUNAVAILABLE);
  key_put(&f, "ann", KEY_B "\n" KEY_A "\n"); /* brought back, as the older one */
  check_current(k, "ann", 0x62);
  assert_status(TM_OK, tm__keyring_find(k, TM_S("ann"), key->id, &again, &err), &err);
  assert_memory_equal(again->bytes, key->bytes, sizeof(key->bytes));
  tm__seal_key_unref(again);
  tm__seal_key_unref(key);
  key_put(&f, "ann", "secret\n");
  a_while_later();
  assert_int_equal(tm__keyring_current(k, TM_S("ann"), &key, &err), TM_EUNAVAILABLE);
  assert_string_equal(err.code, "seal.key_invalid");
  key_put(&f, "ann", "\n");
  assert_int_equal(tm__keyring_current(k, TM_S("ann"), &key, &err), TM_EUNAVAILABLE);
  tm__keyring_free(k);
  key_destroy(&f, "ann");
  assert_int_equal(rmdir(f.dir), 0);
}

static void many_tenants_are_not_all_kept(void **state) {
  (void)state;
  enum { TENANTS = 1100 };
  key_folder f = key_folder_make();
  char name[16];
  tm_keyring *k = keys_of(NULL, NULL, f.dir);
  for (int round = 0; round < 2; round++) {
    for (int i = 0; i < TENANTS; i++) {
      (void)snprintf(name, sizeof(name), "t%d", i);
      if (round == 0) key_put(&f, name, i % 2 == 0 ? KEY_A : KEY_B);
      check_current(k, name, i % 2 == 0 ? 0xab : 0x62);
    }
  }
  tm__keyring_free(k);
  for (int i = 0; i < TENANTS; i++) {
    (void)snprintf(name, sizeof(name), "t%d", i);
    key_destroy(&f, name);
  }
  assert_int_equal(rmdir(f.dir), 0);
}

static tm_status count_tenant(void *ud, tm_slice tenant) {
  int *sum = ud;
  *sum += tm__slice_is(tenant, "ann") ? 1 : tm__slice_is(tenant, "bob") ? 10 : 100;
  return TM_OK;
}

static void the_folder_says_who_has_one(void **state) {
  (void)state;
  tm_error err = {0};
  int sum = 0;
  key_folder f = key_folder_make();
  key_put(&f, "ann", KEY_A "\n" KEY_B);
  key_put(&f, "bob", KEY_A);
  tm_keyring *k = keys_of(KEY_C, NULL, f.dir);
  assert_status(TM_OK, tm__keyring_tenants(k, count_tenant, &sum, &err), &err);
  assert_int_equal(sum, 11);
  tm_buf ids = {0};
  assert_status(TM_OK, tm__keyring_ids(k, TM_S("ann"), &ids, &err), &err);
  assert_string_equal(ids.ptr, "398a0217d856854e 32febe9e279d13f8");
  tm__buf_free(&ids);
  key_destroy(&f, "ann");
  key_destroy(&f, "bob");
  assert_int_equal(rmdir(f.dir), 0);
  assert_int_equal(tm__keyring_tenants(k, count_tenant, &sum, &err), TM_EUNAVAILABLE);
  assert_string_equal(err.code, "seal.folder");
  tm__keyring_free(k);
  const tm_keyring_options o = {.tenants = f.dir};
  assert_int_equal(tm__keyring_new(&k, &o, &err), TM_EINVAL);
  assert_string_equal(err.code, "seal.folder");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(it_takes_32_bytes_and_nothing_else),
      cmocka_unit_test(without_a_key_nothing_is_sealed),
      cmocka_unit_test(an_id_belongs_to_its_key),
      cmocka_unit_test(a_key_is_in_no_core_dump),
      cmocka_unit_test(a_tenant_has_a_file),
      cmocka_unit_test(a_file_that_goes_takes_its_key_along),
      cmocka_unit_test(many_tenants_are_not_all_kept),
      cmocka_unit_test(the_folder_says_who_has_one),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
