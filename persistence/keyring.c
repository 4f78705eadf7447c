/* keyring.c - keys in guarded memory, and those of tenants from their files. What is read of a file
 * is kept for a while; whether the file is still the same is looked at once a second. */
#include "persistence/keyring.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/map.h"

#define FILE_MAX   4096 /* bytes of a tenant's file */
#define KEYS_MAX   32   /* in it */
#define KEPT_MAX   1024 /* tenants */
#define LOOK_US    1000000
#define SUFFIX     ".key"
#define HOW_TO     "openssl rand -base64 32"
#define TENANT_MAX 64

typedef struct key_list {
  tm_seal_key **keys;
  size_t count;
} key_list;

typedef struct tenant_keys {
  key_list list;
  struct stat file; /* as it was read */
  int64_t looked;   /* monotonic */
} tenant_keys;

struct tm_keyring {
  tm_seal_key *current; /* NULL: none */
  key_list previous;
  char *folder; /* NULL: tenants have no keys of their own */
  pthread_mutex_t lock;
  bool lock_made;
  tm_map tenants; /* name -> tenant_keys */
};

/* ---- one key ---- */

static tm_seal_key *key_ref(tm_seal_key *key) {
  (void)__atomic_add_fetch(&key->refs, 1, __ATOMIC_RELAXED);
  return key;
}

void tm__seal_key_unref(tm_seal_key *key) {
  if (key != NULL && __atomic_sub_fetch(&key->refs, 1, __ATOMIC_ACQ_REL) == 0) sodium_free(key);
}

void tm__seal_id_hex(char out[TM_SEAL_ID_HEX], const unsigned char *id) {
  (void)sodium_bin2hex(out, TM_SEAL_ID_HEX, id, TM_SEAL_ID_BYTES);
}

static void derive_id(tm_seal_key *key) {
  static const char purpose[] = "tidemill: id of a sealing key";
  unsigned char digest[crypto_generichash_BYTES_MIN];
  (void)crypto_generichash(digest, sizeof(digest), (const unsigned char *)purpose,
                           sizeof(purpose) - 1, key->bytes, sizeof(key->bytes));
  memcpy(key->id, digest, sizeof(key->id));
}

static bool decode(unsigned char bytes[TM_SEAL_KEY_BYTES], tm_slice text) {
  size_t len = 0;
  const char *end = text.ptr + text.len, *at = NULL;
  if (text.len == (size_t)2 * TM_SEAL_KEY_BYTES) {
    return sodium_hex2bin(bytes, TM_SEAL_KEY_BYTES, text.ptr, text.len, NULL, &len, &at) == 0 &&
           at == end && len == TM_SEAL_KEY_BYTES;
  }
  return sodium_base642bin(bytes, TM_SEAL_KEY_BYTES, text.ptr, text.len, NULL, &len, &at,
                           sodium_base64_VARIANT_ORIGINAL) == 0 &&
         at == end && len == TM_SEAL_KEY_BYTES;
}

static bool all_equal(const unsigned char *bytes, size_t len) {
  unsigned char different = 0;
  for (size_t i = 1; i < len; i++) {
    different |= bytes[i] ^ bytes[0];
  }
  return different == 0;
}

/* As in core/id.c: without it the portable implementations stay in use. */
static void prepare(void) {
  int failed = sodium_init();
  (void)failed;
}

/* `name`: where the text stands. */
static tm_status key_new(tm_seal_key **out, tm_slice text, const char *name, tm_error *err) {
  *out = NULL;
  prepare();
  tm_seal_key *key = sodium_malloc(sizeof(*key));
  if (key == NULL) return tm__fail_memory(err, "a key");
  key->refs = 1;
  if (!decode(key->bytes, text) || all_equal(key->bytes, sizeof(key->bytes))) {
    tm__seal_key_unref(key);
    return tm__fail(
        err, TM_EINVAL, "seal.key_invalid",
        "%s: this is no key; a key is 32 random bytes in base64 or hex, not a word that "
        "somebody chose: `" HOW_TO "` makes one",
        name);
  }
  derive_id(key);
  *out = key;
  return TM_OK;
}

/* ---- lists ---- */

static void list_free(key_list *l) {
  for (size_t i = 0; i < l->count; i++) {
    tm__seal_key_unref(l->keys[i]);
  }
  free(l->keys);
  *l = (key_list){0};
}

static tm_status list_add(key_list *l, size_t cap, tm_slice text, const char *name, tm_error *err) {
  if (l->keys == NULL) l->keys = calloc(cap, sizeof(tm_seal_key *));
  if (l->keys == NULL) return tm__fail_memory(err, "keys");
  tm_status status = key_new(&l->keys[l->count], text, name, err);
  if (status == TM_OK) l->count++;
  return status;
}

static tm_seal_key *list_find(const key_list *l, const unsigned char *id) {
  for (size_t i = 0; i < l->count; i++) {
    if (memcmp(l->keys[i]->id, id, TM_SEAL_ID_BYTES) == 0) return l->keys[i];
  }
  return NULL;
}

static tm_slice trim(tm_slice s) {
  while (s.len > 0 && strchr(" \t\r\n", s.ptr[0]) != NULL) {
    s = (tm_slice){s.ptr + 1, s.len - 1};
  }
  while (s.len > 0 && strchr(" \t\r\n", s.ptr[s.len - 1]) != NULL) {
    s.len--;
  }
  return s;
}

/* ---- a tenant's file ---- */

static tm_status missing(const char *path, tm_slice tenant, int why, tm_error *err) {
  return tm__fail(err, TM_EUNAVAILABLE, "seal.key_missing",
                  "the key of tenant %.*s cannot be read: %s: %s; bring the file back, or for a "
                  "tenant without data make one: `" HOW_TO " > %s`",
                  (int)(tenant.len < TENANT_MAX ? tenant.len : TENANT_MAX), tenant.ptr, path,
                  strerror(why), path);
}

static bool is_file_name(tm_slice tenant) {
  return tenant.len > 0 && tenant.len <= TENANT_MAX &&
         memchr(tenant.ptr, '/', tenant.len) == NULL &&
         memchr(tenant.ptr, '\0', tenant.len) == NULL;
}

static tm_status file_of(const tm_keyring *k, tm_slice tenant, tm_buf *out, tm_error *err) {
  if (!is_file_name(tenant)) return missing(k->folder, tenant, EINVAL, err);
  tm__buf_text(out, k->folder);
  tm__buf_byte(out, '/');
  tm__buf_slice(out, tenant);
  tm__buf_text(out, SUFFIX);
  return tm__buf_ok(out) ? TM_OK : tm__fail_memory(err, "the name of a key's file");
}

/* The text goes from here into guarded memory; nothing else sees it. */
static tm_status read_lines(key_list *l, char *text, size_t len, const char *path, tm_error *err) {
  tm_status status = TM_OK;
  tm_slice rest = {text, len};
  while (status == TM_OK && rest.len > 0 && l->count < KEYS_MAX) {
    const char *end = memchr(rest.ptr, '\n', rest.len);
    size_t line = end != NULL ? (size_t)(end - rest.ptr) : rest.len;
    tm_slice key = trim((tm_slice){rest.ptr, line});
    size_t used = end != NULL ? line + 1 : line;
    rest = (tm_slice){rest.ptr + used, rest.len - used};
    if (key.len > 0) status = list_add(l, KEYS_MAX, key, path, err);
  }
  if (status == TM_OK && l->count == 0) {
    status = tm__fail(err, TM_EINVAL, "seal.key_invalid",
                      "%s: the file is empty; `" HOW_TO "` makes a key", path);
  }
  return status;
}

static tm_status read_file(tenant_keys *t, const char *path, tm_slice tenant, tm_error *err) {
  char text[FILE_MAX];
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return missing(path, tenant, errno, err);
  size_t len = 0;
  ssize_t n = fstat(fd, &t->file) == 0 ? 0 : -1;
  if (n == 0 && !S_ISREG(t->file.st_mode)) {
    errno = EISDIR;
    n = -1;
  }
  while (n >= 0 && len < sizeof(text)) {
    n = read(fd, text + len, sizeof(text) - len);
    if (n == 0) break;
    if (n > 0) len += (size_t)n;
  }
  int why = errno;
  (void)close(fd);
  tm_status status =
      n < 0 ? missing(path, tenant, why, err) : read_lines(&t->list, text, len, path, err);
  explicit_bzero(text, sizeof(text));
  if (status != TM_EINVAL) return status;
  if (err != NULL) err->status = TM_EUNAVAILABLE; /* not the request's fault */
  return TM_EUNAVAILABLE;
}

static void tenant_free(tenant_keys *t) {
  if (t == NULL) return;
  list_free(&t->list);
  free(t);
}

static bool same_file(const struct stat *a, const struct stat *b) {
  return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
         a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

static void make_room(tm_keyring *k) {
  if (k->tenants.count < KEPT_MAX) return;
  size_t at = 0;
  tm_slice name;
  tm_slice oldest = {0};
  void *value;
  int64_t looked = INT64_MAX;
  while (tm__map_next(&k->tenants, &at, &name, &value)) {
    const tenant_keys *t = value;
    if (t->looked >= looked) continue;
    looked = t->looked;
    oldest = name;
  }
  tenant_free(tm__map_remove(&k->tenants, oldest));
}

/* Under the lock: what is kept of the tenant, if its file is still the one that was read. */
static tenant_keys *kept(tm_keyring *k, tm_slice tenant, const char *path) {
  tenant_keys *t = tm__map_get(&k->tenants, tenant);
  if (t == NULL) return NULL;
  int64_t now = tm__clock_monotonic_us();
  if (now - t->looked < LOOK_US) return t;
  struct stat file;
  if (stat(path, &file) == 0 && same_file(&file, &t->file)) {
    t->looked = now;
    return t;
  }
  tenant_free(tm__map_remove(&k->tenants, tenant));
  return NULL;
}

/* Under the lock. */
static tm_status keep(tm_keyring *k, tm_slice tenant, const char *path, tenant_keys **out,
                      tm_error *err) {
  tenant_keys *t = calloc(1, sizeof(*t));
  if (t == NULL) return tm__fail_memory(err, "a tenant's keys");
  tm_status status = read_file(t, path, tenant, err);
  t->looked = tm__clock_monotonic_us();
  if (status == TM_OK) {
    make_room(k);
    if (!tm__map_set(&k->tenants, tenant, t)) status = tm__fail_memory(err, "a tenant's keys");
  }
  if (status == TM_OK) {
    *out = t;
  } else {
    tenant_free(t);
  }
  return status;
}

/* Under the lock. */
static tm_status tenant_get(tm_keyring *k, tm_slice tenant, const tenant_keys **out,
                            tm_error *err) {
  tm_buf path = {0};
  tenant_keys *t = NULL;
  tm_status status = file_of(k, tenant, &path, err);
  if (status == TM_OK) {
    const char *name = tm__buf_view(&path).ptr;
    t = kept(k, tenant, name);
    if (t == NULL) status = keep(k, tenant, name, &t, err);
  }
  tm__buf_free(&path);
  *out = t;
  return status;
}

/* ---- asking ---- */

tm_status tm__keyring_none(const char *name, tm_error *err) {
  return tm__fail(err, TM_EUNAVAILABLE, "seal.no_key",
                  "%s%snothing can be sealed without a key; make one with `" HOW_TO "` and set "
                  "workflow_persistence.general.encryption_key, or the variable with _FILE",
                  name != NULL ? name : "", name != NULL ? ": " : "");
}

tm_status tm__keyring_current(tm_keyring *k, tm_slice tenant, tm_seal_key **out, tm_error *err) {
  *out = NULL;
  if (k->folder == NULL) {
    if (k->current == NULL) return tm__keyring_none(NULL, err);
    *out = key_ref(k->current);
    return TM_OK;
  }
  const tenant_keys *t;
  (void)pthread_mutex_lock(&k->lock);
  tm_status status = tenant_get(k, tenant, &t, err);
  if (status == TM_OK) *out = key_ref(t->list.keys[0]);
  (void)pthread_mutex_unlock(&k->lock);
  return status;
}

static tm_seal_key *shared_find(const tm_keyring *k, const unsigned char *id) {
  if (k->current != NULL && memcmp(k->current->id, id, TM_SEAL_ID_BYTES) == 0) return k->current;
  return list_find(&k->previous, id);
}

tm_status tm__keyring_find(tm_keyring *k, tm_slice tenant, const unsigned char *id,
                           tm_seal_key **out, tm_error *err) {
  tm_seal_key *key = shared_find(k, id);
  tm_status status = TM_OK;
  if (key != NULL) (void)key_ref(key);
  if (key == NULL && k->folder != NULL) {
    const tenant_keys *t;
    (void)pthread_mutex_lock(&k->lock);
    status = tenant_get(k, tenant, &t, err);
    if (status == TM_OK) key = list_find(&t->list, id);
    if (key != NULL) (void)key_ref(key);
    (void)pthread_mutex_unlock(&k->lock);
  }
  *out = key;
  if (status != TM_OK || key != NULL) return status;
  char hex[TM_SEAL_ID_HEX];
  tm__seal_id_hex(hex, id);
  return tm__fail(err, TM_ENOTFOUND, "seal.key_unknown", "there is no key %s", hex);
}

static void add_id(tm_buf *out, const tm_seal_key *key) {
  char hex[TM_SEAL_ID_HEX];
  tm__seal_id_hex(hex, key->id);
  if (out->len > 0) tm__buf_byte(out, ' ');
  tm__buf_text(out, hex);
}

tm_status tm__keyring_old_ids(const tm_keyring *k, tm_buf *out, tm_error *err) {
  for (size_t i = 0; i < k->previous.count; i++) {
    const tm_seal_key *key = k->previous.keys[i];
    bool current = k->current != NULL && memcmp(k->current->id, key->id, TM_SEAL_ID_BYTES) == 0;
    if (!current) add_id(out, key);
  }
  return tm__buf_ok(out) ? TM_OK : tm__fail_memory(err, "the ids of keys");
}

tm_status tm__keyring_ids(tm_keyring *k, tm_slice tenant, tm_buf *out, tm_error *err) {
  if (tenant.ptr == NULL) {
    if (k->current != NULL) add_id(out, k->current);
    return tm__keyring_old_ids(k, out, err);
  }
  const tenant_keys *t;
  (void)pthread_mutex_lock(&k->lock);
  tm_status status = tenant_get(k, tenant, &t, err);
  for (size_t i = 0; status == TM_OK && i < t->list.count; i++) {
    add_id(out, t->list.keys[i]);
  }
  (void)pthread_mutex_unlock(&k->lock);
  if (status == TM_OK && !tm__buf_ok(out)) status = tm__fail_memory(err, "the ids of keys");
  return status;
}

tm_status tm__keyring_tenants(tm_keyring *k, tm_status (*fn)(void *ud, tm_slice tenant), void *ud,
                              tm_error *err) {
  if (k->folder == NULL) return TM_OK;
  DIR *dir = opendir(k->folder);
  if (dir == NULL) {
    return tm__fail(err, TM_EUNAVAILABLE, "seal.folder", "%s: %s", k->folder, strerror(errno));
  }
  tm_status status = TM_OK;
  const struct dirent *entry;
  while (status == TM_OK && (entry = readdir(dir)) != NULL) {
    tm_slice name = tm__slice(entry->d_name);
    size_t suffix = sizeof(SUFFIX) - 1;
    if (name.len <= suffix || memcmp(name.ptr + name.len - suffix, SUFFIX, suffix) != 0) continue;
    if (name.len - suffix <= TENANT_MAX) status = fn(ud, (tm_slice){name.ptr, name.len - suffix});
  }
  (void)closedir(dir);
  return status;
}

/* ---- making ---- */

bool tm__keyring_can_seal(const tm_keyring *k) {
  return k->current != NULL || k->folder != NULL;
}

bool tm__keyring_has_old(const tm_keyring *k) {
  return k->previous.count > 0 || k->folder != NULL;
}

static tm_status read_options(tm_keyring *k, const tm_keyring_options *o, tm_error *err) {
  tm_status status = TM_OK;
  if (o->current != NULL && o->current[0] != '\0') {
    status = key_new(&k->current, trim(tm__slice(o->current)), o->current_name, err);
  }
  for (size_t i = 0; status == TM_OK && i < o->previous_count; i++) {
    status = list_add(&k->previous, o->previous_count, trim(tm__slice(o->previous[i])),
                      o->previous_name, err);
  }
  if (status != TM_OK || o->tenants == NULL || o->tenants[0] == '\0') return status;
  k->folder = tm__slice_dup(tm__slice(o->tenants));
  if (k->folder == NULL) return tm__fail_memory(err, "keys");
  struct stat st;
  if (stat(k->folder, &st) == 0 && S_ISDIR(st.st_mode)) return TM_OK;
  return tm__fail(err, TM_EINVAL, "seal.folder",
                  "%s: there is no such folder; it holds the keys of tenants, <tenant>.key each",
                  k->folder);
}

tm_status tm__keyring_new(tm_keyring **out, const tm_keyring_options *o, tm_error *err) {
  *out = NULL;
  tm_keyring *k = calloc(1, sizeof(*k));
  if (k == NULL) return tm__fail_memory(err, "keys");
  k->lock_made = pthread_mutex_init(&k->lock, NULL) == 0;
  tm_status status = k->lock_made ? read_options(k, o, err) : tm__fail_memory(err, "keys");
  if (status == TM_OK) {
    *out = k;
  } else {
    tm__keyring_free(k);
  }
  return status;
}

void tm__keyring_free(tm_keyring *k) {
  if (k == NULL) return;
  size_t at = 0;
  tm_slice name;
  void *t;
  while (tm__map_next(&k->tenants, &at, &name, &t)) {
    tenant_free(t);
  }
  tm__map_free(&k->tenants);
  tm__seal_key_unref(k->current);
  list_free(&k->previous);
  if (k->lock_made) (void)pthread_mutex_destroy(&k->lock);
  free(k->folder);
  free(k);
}
