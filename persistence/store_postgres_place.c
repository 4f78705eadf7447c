/* store_postgres_place.c - where the store is: what the configuration says, made into the
 * parameters of a connection, and the words for it that messages may have. libpq's own words about
 * a string that it cannot read repeat parts of it, so nobody sees them. */
#include <ctype.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/clock.h"
#include "persistence/store_postgres.h"

#define CONNECT_MIN_S 2
#define CONNECT_MAX_S 10

int64_t tm__pg_monotonic_us(void) {
  return tm__clock_monotonic_us();
}

bool tm__pg_interrupted(const tm_store *s) {
  return __atomic_load_n(&s->interrupted, __ATOMIC_ACQUIRE);
}

/* In pieces, so that a host that stops need not wait long. */
bool tm__pg_pause(const tm_store *s, int64_t ms) {
  uint32_t random;
  tm__random_bytes(&random, sizeof(random));
  int64_t left = ms / 2 + (int64_t)(random % (uint32_t)(ms / 2 + 1));
  for (; left > 0 && !tm__pg_interrupted(s); left -= 20)
    (void)poll(NULL, 0, left < 20 ? (int)left : 20);
  return !tm__pg_interrupted(s);
}

/* ---- the connection string ---- */

static tm_status unreadable(tm_error *err, const char *why) {
  return tm__fail(err, TM_EINVAL, "store.location",
                  "store: the address of PostgreSQL cannot be read: %s; write it as "
                  "postgresql://USER:PASSWORD@HOST:PORT/DATABASE, in user and password %%40 for @, "
                  "%%2F for /, %%3A for :, and set workflow_persistence.postgres.url",
                  why);
}

/* A password with a bare @ or / would be taken for a host or a database, and told in messages. */
static bool is_ambiguous(const char *location) {
  const char *after = strstr(location, "://");
  if (after == NULL) return false;
  after += 3;
  size_t end = strcspn(after, "?");
  const char *at = memchr(after, '@', end), *slash = memchr(after, '/', end);
  if (at == NULL) return false;
  bool again = memchr(at + 1, '@', end - (size_t)(at + 1 - after)) != NULL;
  return again || (slash != NULL && slash < at);
}

static PQconninfoOption *find(PQconninfoOption *list, const char *keyword) {
  for (PQconninfoOption *o = list; o->keyword != NULL; o++)
    if (strcmp(o->keyword, keyword) == 0) return o;
  return NULL;
}

static const char *value_of(PQconninfoOption *list, const char *keyword) {
  const PQconninfoOption *o = find(list, keyword);
  return o != NULL && o->val != NULL ? o->val : "";
}

static bool is_ports(const char *text) {
  return strspn(text, "0123456789,") == strlen(text);
}

static bool set_pair(tm_store *s, size_t *at, const char *keyword, const char *value) {
  s->keywords[*at] = tm__slice_dup(tm__slice(keyword));
  s->values[*at] = tm__slice_dup(tm__slice(value));
  (*at)++;
  return s->keywords[*at - 1] != NULL && s->values[*at - 1] != NULL;
}

/* What stands in the string counts; what does not is set so that a server that went away without a
 * word is noticed. */
static bool set_pairs(tm_store *s, PQconninfoOption *list) {
  char seconds[24], ms[24];
  int64_t wait = s->timeout_ms / 1000;
  wait = wait < CONNECT_MIN_S ? CONNECT_MIN_S : wait > CONNECT_MAX_S ? CONNECT_MAX_S : wait;
  (void)snprintf(seconds, sizeof(seconds), "%d", (int)wait);
  (void)snprintf(ms, sizeof(ms), "%d", (int)(s->timeout_ms < 1000 ? 1000 : s->timeout_ms));
  const char *const defaults[][2] = {{"connect_timeout", seconds},    {"keepalives", "1"},
                                     {"keepalives_idle", "30"},       {"keepalives_interval", "10"},
                                     {"keepalives_count", "3"},       {"tcp_user_timeout", ms},
                                     {"application_name", "tidemill"}};
  size_t count = 0, at = 0;
  while (list[count].keyword != NULL)
    count++;
  size_t more = sizeof(defaults) / sizeof(defaults[0]) + 2;
  s->keywords = calloc(count + more, sizeof(*s->keywords));
  s->values = calloc(count + more, sizeof(*s->values));
  bool ok = s->keywords != NULL && s->values != NULL;
  for (PQconninfoOption *o = list; ok && o->keyword != NULL; o++)
    if (o->val != NULL && strcmp(o->keyword, "client_encoding") != 0)
      ok = set_pair(s, &at, o->keyword, o->val);
  for (size_t i = 0; ok && i < sizeof(defaults) / sizeof(defaults[0]); i++)
    if (value_of(list, defaults[i][0])[0] == '\0')
      ok = set_pair(s, &at, defaults[i][0], defaults[i][1]);
  return ok && set_pair(s, &at, "client_encoding", "UTF8");
}

static void set_place(tm_store *s, PQconninfoOption *list) {
  const char *host = value_of(list, "host"), *port = value_of(list, "port");
  const char *database = value_of(list, "dbname");
  if (host[0] == '\0') host = value_of(list, "hostaddr");
  (void)snprintf(s->place, sizeof(s->place), "PostgreSQL at %.60s%s%.20s, database \"%.60s\"",
                 host[0] != '\0' ? host : "the local socket", port[0] != '\0' ? ":" : "", port,
                 database);
}

static tm_status read_location(tm_store *s, const char *location, tm_error *err) {
  if (location == NULL || location[0] == '\0') return unreadable(err, "it is empty");
  if (is_ambiguous(location)) return unreadable(err, "it has more than one @, or a / before it");
  PQconninfoOption *list = PQconninfoParse(location, NULL);
  if (list == NULL) return unreadable(err, "it has another form");
  tm_status status = TM_OK;
  if (!is_ports(value_of(list, "port")))
    status = unreadable(err, "its port is no number");
  else if (strchr(value_of(list, "host"), '@') != NULL)
    status = unreadable(err, "its host has an @");
  else if (!set_pairs(s, list))
    status = tm__fail_memory(err, "the store's address");
  else
    set_place(s, list);
  PQconninfoFree(list);
  return status;
}

/* ---- the schema ---- */

/* A name that is too long for an identifier keeps its beginning and gets a digest, under another
 * prefix, so that it cannot be that of another tenant. */
static void name_schema(tm_store *s, const char *tenant) {
  if (tenant == NULL || tenant[0] == '\0') {
    (void)tm__copy(s->schema, sizeof(s->schema), TM_S("tidemill"));
  } else if (snprintf(s->schema, sizeof(s->schema), "tidemill_t_%s", tenant) >=
             (int)sizeof(s->schema)) {
    char digest[21];
    tm_slice whole = tm__slice(tenant);
    tm__digest_hex(digest, 20, &whole, 1);
    (void)snprintf(s->schema, sizeof(s->schema), "tidemill_h_%s_%.31s", digest, tenant);
  }
}

tm_status tm__pg_place(tm_store *s, const tm_store_options *o, tm_error *err) {
  if (o->tenant != NULL && o->tenant[0] != '\0') {
    tm_status status = tm__store_tenant(o->tenant, err);
    if (status != TM_OK) return status;
  }
  name_schema(s, o->tenant);
  return read_location(s, o->location, err);
}

void tm__pg_place_free(tm_store *s) {
  for (size_t i = 0; s->keywords != NULL && s->keywords[i] != NULL; i++)
    free(s->keywords[i]);
  for (size_t i = 0; s->values != NULL && s->values[i] != NULL; i++)
    free(s->values[i]);
  free(s->keywords);
  free(s->values);
}
