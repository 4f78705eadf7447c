/* store_redis_key.c - the names of keys: readable, without collisions whatever the ids hold. */
#include <stdio.h>

#include "persistence/store_redis.h"

#define PART_MAX 128 /* no field of a record is longer */

void tm__redis_key_text(tm_redis_key *k, const char *text) {
  size_t len = strlen(text);
  if (len >= sizeof(k->text) - k->len) len = sizeof(k->text) - k->len - 1;
  memcpy(k->text + k->len, text, len);
  k->len += len;
  k->text[k->len] = '\0';
}

static bool starts_with(tm_slice key, const char *text) {
  size_t len = strlen(text);
  return key.len > len && memcmp(key.ptr, text, len) == 0;
}

/* No name of a tenant has a colon in it, and no key of the store of all begins with "t:". */
bool tm__redis_store_of(tm_store *out, const tm_store *own, tm_slice key) {
  tm_slice prefix = {key.ptr, strlen(TM_REDIS_PREFIX)};
  if (!starts_with(key, TM_REDIS_PREFIX)) return false;
  if (starts_with(key, TM_REDIS_TENANTS)) {
    size_t from = strlen(TM_REDIS_TENANTS);
    const char *end = memchr(key.ptr + from, ':', key.len - from);
    if (end == NULL) return false;
    prefix.len = (size_t)(end + 1 - key.ptr);
  }
  *out = *own;
  return tm__copy(out->prefix, sizeof(out->prefix), prefix);
}

void tm__redis_common_key(tm_redis_key *k, const char *name) {
  k->len = 0;
  tm__redis_key_text(k, TM_REDIS_PREFIX);
  tm__redis_key_text(k, name);
}

void tm__redis_key(tm_redis_key *k, const tm_store *s, const char *name) {
  k->len = 0;
  tm__redis_key_text(k, s->prefix);
  tm__redis_key_text(k, name);
}

static bool is_plain(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         c == '-' || c == '.';
}

/* Nothing stored is longer than PART_MAX: such a part names nothing, and is only told apart. */
static void add_digest(tm_redis_key *k, tm_slice part) {
  char hex[41];
  tm__digest_hex(hex, sizeof(hex) - 1, &part, 1);
  tm__redis_key_text(k, "%%");
  tm__redis_key_text(k, hex);
}

void tm__redis_key_part(tm_redis_key *k, tm_slice part) {
  if (part.len == 0) tm__redis_key_text(k, "%");
  if (part.len > PART_MAX) {
    add_digest(k, part);
    return;
  }
  for (size_t i = 0; i < part.len; i++) {
    char one[4] = {part.ptr[i], '\0'};
    if (!is_plain(part.ptr[i]))
      (void)snprintf(one, sizeof(one), "%%%02X", (unsigned)(unsigned char)part.ptr[i]);
    tm__redis_key_text(k, one);
  }
}

static void conversation_key(tm_redis_key *k, const tm_store *s, const char *kind, tm_slice id) {
  tm__redis_key(k, s, kind);
  tm__redis_key_part(k, id);
  tm__redis_key_text(k, "}");
}

void tm__redis_head_key(tm_redis_key *k, const tm_store *s, tm_slice id) {
  conversation_key(k, s, "h:{", id);
}

void tm__redis_rows_key(tm_redis_key *k, const tm_store *s, tm_slice id) {
  conversation_key(k, s, "j:{", id);
}

void tm__redis_events_key(tm_redis_key *k, const tm_store *s, tm_slice id) {
  conversation_key(k, s, "e:{", id);
}

void tm__redis_list_key(tm_redis_key *k, const tm_store *s, tm_redis_list which, tm_slice tenant,
                        tm_slice value) {
  static const char *const names[TM_LISTS] = {
      [TM_LIST_ALL] = "l:all",          [TM_LIST_TENANT] = "l:tenant:",
      [TM_LIST_SESSION] = "l:session:", [TM_LIST_SYSTEM] = "l:system:",
      [TM_LIST_FLOW] = "l:flow:",       [TM_LIST_STATUS] = "l:status:",
  };
  tm__redis_key(k, s, names[which]);
  if (which == TM_LIST_ALL) return;
  tm__redis_key_part(k, tenant);
  if (which == TM_LIST_TENANT) return;
  tm__redis_key_text(k, ":");
  tm__redis_key_part(k, value);
}

void tm__redis_list_of(tm_redis_key *k, const tm_store *s, tm_redis_list which, const tm_head *h) {
  const char *values[TM_LISTS] = {
      [TM_LIST_ALL] = "",
      [TM_LIST_TENANT] = "",
      [TM_LIST_SESSION] = h->session,
      [TM_LIST_SYSTEM] = h->system,
      [TM_LIST_FLOW] = h->flow,
      [TM_LIST_STATUS] = tm__conversation_status_name(h->status),
  };
  tm__redis_list_key(k, s, which, tm__slice(h->tenant), tm__slice(values[which]));
}

void tm__redis_start_key_of(tm_redis_key *k, const tm_store *s, tm_slice tenant, uint64_t key) {
  char hex[20];
  (void)snprintf(hex, sizeof(hex), ":%016llx", (unsigned long long)key);
  tm__redis_key(k, s, "k:");
  tm__redis_key_part(k, tenant);
  tm__redis_key_text(k, hex);
}
