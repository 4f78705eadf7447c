/* store_place.c - URLs of stores, strictly read: what is not understood is refused, never guessed.
 */
#include "store_place.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define FORMS                                                                                      \
  "sqlite:PATH, file:FOLDER, redis://[:PASSWORD@]HOST[:PORT][/DB], postgres://USER@HOST/DATABASE " \
  "or config"

static tm_status wrong(tm_error *err, const char *what) {
  return tm__fail(err, TM_EINVAL, "store.url", "%s; a store is %s", what, FORMS);
}

/* ---- options ---- */

static int64_t system_now(void *ud) {
  (void)ud;
  return tm__clock_now(&(const tm_clock){0});
}

/* What holds for every store, the configured one's own settings where they mean something. */
static tm_store_options common(const tm_host *h) {
  const tm_config *c = h->config;
  return (tm_store_options){
      .location = "",
      .now_ms = h->clock.now != NULL ? h->clock.now : system_now,
      .now_ud = h->clock.ud,
      .auto_vacuum = tm__config_bool(c, "workflow_persistence.sqlite.auto_vacuum"),
      .wal = tm__config_bool(c, "workflow_persistence.sqlite.enable_wal"),
      .tables = {tm__config_text(c, "workflow_persistence.sqlite.tables.conversations"),
                 tm__config_text(c, "workflow_persistence.sqlite.tables.steps"),
                 tm__config_text(c, "workflow_persistence.sqlite.tables.checkpoints"),
                 tm__config_text(c, "workflow_persistence.sqlite.tables.sessions")},
  };
}

static tm_status set_backend(tm_store_place *p, const char *scheme, tm_error *err) {
  p->backend = tm__store_backend(tm__slice(scheme));
  if (p->backend != NULL) return TM_OK;
  return tm__fail(err, TM_EUNSUPPORTED, "store.unknown",
                  "there is no backend \"%s\" in this build; set workflow_persistence.backend",
                  scheme);
}

static tm_status set_location(tm_store_place *p, tm_buf *location, tm_buf *shown, tm_error *err) {
  p->location = tm__buf_take(location);
  p->shown = tm__buf_take(shown);
  p->options.location = p->location;
  if (p->location != NULL && p->shown != NULL) return TM_OK;
  return tm__fail_memory(err, "the place of a store");
}

/* ---- URLs ---- */

/* What of a URL may be seen. A password may have characters in it that end a part of the URL
 * elsewhere, so it goes on to the last @ there is; a query may hold secrets too, and where an @ is
 * behind its question mark nobody knows which of the two that is. */
static void hide_password(tm_buf *out, const char *url) {
  const char *start = strstr(url, "://") + 3, *at = strrchr(start, '@');
  const char *end = start + strcspn(start, "?");
  if (at == NULL) {
    tm__buf_add(out, url, (size_t)(end - url));
    return;
  }
  const char *colon = memchr(start, ':', (size_t)(at - start));
  const char *open = end < at ? start : colon != NULL ? colon + 1 : at;
  tm__buf_add(out, url, (size_t)(open - url));
  if (open < at) tm__buf_text(out, "***");
  if (end > at) tm__buf_add(out, at, (size_t)(end - at));
}

static int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Percent-decodes; false: not valid. */
static bool decode(tm_buf *out, tm_slice s) {
  for (size_t i = 0; i < s.len; i++) {
    if (s.ptr[i] != '%') {
      tm__buf_byte(out, s.ptr[i]);
      continue;
    }
    int high = i + 2 < s.len ? hex_digit(s.ptr[i + 1]) : -1;
    int low = high >= 0 ? hex_digit(s.ptr[i + 2]) : -1;
    if (low < 0 || high * 16 + low == 0) return false;
    tm__buf_byte(out, (char)(high * 16 + low));
    i += 2;
  }
  return true;
}

static bool is_number(tm_slice s, long least, long most) {
  long n = 0;
  if (s.len == 0 || s.len > 5) return false;
  for (size_t i = 0; i < s.len; i++) {
    if (s.ptr[i] < '0' || s.ptr[i] > '9') return false;
    n = n * 10 + (s.ptr[i] - '0');
  }
  return n >= least && n <= most;
}

static bool is_host(tm_slice s) {
  bool brackets = s.len > 2 && s.ptr[0] == '[' && s.ptr[s.len - 1] == ']';
  for (size_t i = brackets ? 1 : 0; i < s.len - (brackets ? 1 : 0); i++) {
    char c = s.ptr[i];
    if (!isalnum((unsigned char)c) && c != '.' && c != '-' && c != '_' && !(brackets && c == ':'))
      return false;
  }
  return s.len > 0;
}

/* HOST[:PORT][/DB] into "HOST:PORT/DB". */
static bool redis_location(tm_buf *out, const char *text) {
  const char *slash = strchr(text, '/'), *end = slash != NULL ? slash : text + strlen(text);
  const char *from = text[0] == '[' ? memchr(text, ']', (size_t)(end - text)) : text;
  const char *colon = from != NULL ? memchr(from, ':', (size_t)(end - from)) : NULL;
  tm_slice host = {text, (size_t)((colon != NULL ? colon : end) - text)};
  tm_slice port = TM_S("6379"), db = TM_S("0");
  if (colon != NULL) port = (tm_slice){colon + 1, (size_t)(end - colon - 1)};
  if (slash != NULL) db = tm__slice(slash + 1);
  if (!is_host(host) || !is_number(port, 1, 65535) || !is_number(db, 0, 65535)) return false;
  tm__buf_slice(out, host);
  tm__buf_byte(out, ':');
  tm__buf_slice(out, port);
  tm__buf_byte(out, '/');
  tm__buf_slice(out, db);
  return true;
}

static tm_status parse_redis(tm_store_place *p, const char *url, tm_error *err) {
  tm_buf location = {0}, shown = {0}, password = {0};
  const char *rest = url + strlen("redis://"), *at = strrchr(rest, '@');
  bool ok = true;
  if (at != NULL) {
    if (rest[0] != ':') return wrong(err, "a Redis store takes a password, but no user");
    ok = decode(&password, (tm_slice){rest + 1, (size_t)(at - rest - 1)});
  }
  ok = ok && redis_location(&location, at != NULL ? at + 1 : rest);
  hide_password(&shown, url);
  tm_status status = ok ? set_location(p, &location, &shown, err)
                        : wrong(err, "the redis:// URL is not understood");
  if (status == TM_OK && at != NULL) {
    p->options.password = p->password = tm__buf_take(&password);
    if (p->password == NULL) status = tm__fail_memory(err, "a password");
  }
  tm__buf_free(&location);
  tm__buf_free(&shown);
  tm__buf_free(&password);
  return status == TM_OK ? set_backend(p, "redis", err) : status;
}

static tm_status parse_postgres(tm_store_place *p, const char *url, tm_error *err) {
  tm_buf location = {0}, shown = {0};
  if (strstr(url, "://")[3] == '\0') return wrong(err, "the postgres:// URL names no server");
  tm__buf_text(&location, url);
  hide_password(&shown, url);
  tm_status status = set_location(p, &location, &shown, err);
  return status == TM_OK ? set_backend(p, "postgres", err) : status;
}

static tm_status parse_path(tm_store_place *p, const char *scheme, const char *path,
                            tm_error *err) {
  tm_buf location = {0}, shown = {0};
  if (path[0] == '\0') return wrong(err, "the URL names no file");
  if (strncmp(path, "//", 2) == 0)
    return wrong(err, "after the colon of a file's URL comes its path, without //");
  tm__buf_text(&location, path);
  tm__buf_printf(&shown, "%s:%s", scheme, path);
  tm_status status = set_location(p, &location, &shown, err);
  return status == TM_OK ? set_backend(p, scheme, err) : status;
}

static bool begins(const char *text, const char *with) {
  return strncmp(text, with, strlen(with)) == 0;
}

static bool is_postgres(const char *url) {
  return begins(url, "postgres://") || begins(url, "postgresql://");
}

static tm_status parse(tm_store_place *p, const char *url, tm_error *err) {
  if (begins(url, "sqlite:")) return parse_path(p, "sqlite", url + strlen("sqlite:"), err);
  if (begins(url, "file:")) return parse_path(p, "file", url + strlen("file:"), err);
  if (begins(url, "redis://")) return parse_redis(p, url, err);
  if (is_postgres(url)) return parse_postgres(p, url, err);
  if (begins(url, "rediss://"))
    return wrong(err, "there is no TLS for Redis here: let stunnel carry the connection");
  if (begins(url, "memory:"))
    return wrong(err, "what is in memory is gone with the process: nothing can be copied");
  return wrong(err, "the URL of the store is not understood");
}

tm_status tm__store_place_parse(tm_store_place *out, const char *url, const tm_host *h,
                                tm_error *err) {
  if (url == NULL || strcmp(url, "config") == 0) {
    tm_status status = tm__store_place_configured(out, h, err);
    if (status == TM_OK && !out->backend->durable) {
      tm__store_place_free(out);
      return wrong(err, "the configured store is in memory: nothing can be copied from or to it");
    }
    return status;
  }
  *out = (tm_store_place){.options = common(h)};
  tm_status status = parse(out, url, err);
  if (status == TM_OK)
    out->options.timeout_ms = tm__host_store_timeout(h->config, out->backend->scheme);
  else
    tm__store_place_free(out);
  return status;
}

/* ---- the configured one ---- */

static void show_configured(tm_buf *shown, const char *scheme, const char *location) {
  if (strcmp(scheme, "postgres") != 0)
    tm__buf_printf(shown, "%s:%s", scheme, location);
  else if (is_postgres(location))
    hide_password(shown, location);
  else
    tm__buf_text(shown, "postgres: by a connection string"); /* a password may be in it */
}

tm_status tm__store_place_configured(tm_store_place *out, const tm_host *h, tm_error *err) {
  tm_buf shown = {0};
  *out = (tm_store_place){.configured = true};
  tm_status status = tm__host_store(&out->own, h, err);
  const char *scheme = out->own.backend;
  out->options = out->own.options;
  if (status == TM_OK) status = set_backend(out, scheme, err);
  if (status == TM_OK) show_configured(&shown, scheme, out->options.location);
  if (out->options.now_ms == NULL) out->options.now_ms = system_now;
  out->shown = tm__buf_take(&shown);
  if (status == TM_OK && out->shown == NULL) status = tm__fail_memory(err, "the place of a store");
  if (status != TM_OK) tm__store_place_free(out);
  return status;
}

/* ---- more ---- */

bool tm__store_place_is_local(const tm_store_place *p) {
  return strcmp(p->backend->scheme, "sqlite") == 0 || strcmp(p->backend->scheme, "file") == 0;
}

tm_status tm__store_place_exists(const tm_store_place *p, tm_error *err) {
  struct stat st;
  if (!tm__store_place_is_local(p) || stat(p->options.location, &st) == 0) return TM_OK;
  return tm__fail(err, TM_ENOTFOUND, "store.absent", "there is no store at %s", p->shown);
}

bool tm__store_place_same(const tm_store_place *a, const tm_store_place *b) {
  struct stat one, other;
  if (a->backend != b->backend) return false;
  if (strcmp(a->options.location, b->options.location) == 0) return true;
  return tm__store_place_is_local(a) && stat(a->options.location, &one) == 0 &&
         stat(b->options.location, &other) == 0 && one.st_dev == other.st_dev &&
         one.st_ino == other.st_ino;
}

void tm__store_place_free(tm_store_place *p) {
  free(p->location);
  free(p->password);
  free(p->shown);
  tm__host_store_clear(&p->own);
  *p = (tm_store_place){.backend = NULL};
}
