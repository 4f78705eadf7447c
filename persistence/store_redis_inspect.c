/* store_redis_inspect.c - is the server's own durability what the first promise needs? And, deep:
 * can every record be read? */
#include <stdio.h>
#include <stdlib.h>

#include "persistence/store_redis.h"

#define OLDEST_MAJOR 6 /* 6.2: times that only move earlier, a random field */
#define OLDEST_MINOR 2

/* ---- what INFO says: lines of name:value ---- */

static tm_slice info(const redisReply *r, const char *name) {
  size_t len = strlen(name);
  const char *at = tm__redis_slice(r).ptr;
  for (; at != NULL; at = strchr(at, '\n')) {
    if (*at == '\n') at++;
    if (strncmp(at, name, len) == 0 && at[len] == ':')
      return (tm_slice){at + len + 1, strcspn(at + len + 1, "\r\n")};
  }
  return (tm_slice){NULL, 0};
}

static tm_status ask_info(tm_store_conn *c, redisReply **out, tm_error *err) {
  *out = NULL;
  tm_status status = tm__redis_ready(c, err);
  if (status != TM_OK) return status;
  tm__redis_command(c, "INFO", 0);
  return tm__redis_ask(c, out, err);
}

tm_status tm__redis_check_server(tm_store_conn *c, tm_error *err) {
  redisReply *reply;
  int major = 0, minor = 0;
  tm_status status = ask_info(c, &reply, err);
  if (status != TM_OK) return status;
  tm_slice version = info(reply, "redis_version");
  if (version.ptr != NULL) (void)sscanf(version.ptr, "%d.%d", &major, &minor);
  freeReplyObject(reply);
  if (major > OLDEST_MAJOR || (major == OLDEST_MAJOR && minor >= OLDEST_MINOR)) return TM_OK;
  return tm__fail(err, TM_EUNSUPPORTED, "store.server_version",
                  "redis %s is of version %d.%d; the host needs %d.%d or newer", c->store->place,
                  major, minor, OLDEST_MAJOR, OLDEST_MINOR);
}

/* ---- settings ---- */

typedef struct findings {
  tm_finding_fn fn;
  void *ud;
} findings;

/* A setting; empty when the server does not say. */
static tm_status setting(tm_store_conn *c, const char *name, char *out, size_t size,
                         tm_error *err) {
  redisReply *reply;
  out[0] = '\0';
  tm_status status = tm__redis_ready(c, err);
  if (status != TM_OK) return status;
  tm__redis_command(c, "CONFIG", 2);
  tm__redis_text(c, "GET");
  tm__redis_text(c, name);
  status = tm__redis_flush(c, err);
  if (status == TM_OK) status = tm__redis_next(c, &reply, err);
  if (status != TM_OK) return status;
  (void)tm__copy(out, size, tm__redis_slice(tm__redis_item(reply, 1)));
  freeReplyObject(reply);
  return TM_OK;
}

static void check_log(const findings *f, const redisReply *r, const char *fsync) {
  tm_slice aof = info(r, "aof_enabled"), written = info(r, "aof_last_write_status");
  if (tm__slice_is(aof, "0"))
    f->fn(f->ud, TM_FINDING_ERROR,
          "the server keeps no append-only file: a restart of it takes back turns that were "
          "answered; CONFIG SET appendonly yes and CONFIG SET appendfsync always, and both in "
          "redis.conf (CONFIG REWRITE)");
  else if (strcmp(fsync, "everysec") == 0)
    f->fn(f->ud, TM_FINDING_WARNING,
          "appendfsync is everysec: a power cut takes back up to two seconds of turns that were "
          "answered; CONFIG SET appendfsync always, and in redis.conf (CONFIG REWRITE)");
  else if (strcmp(fsync, "no") == 0)
    f->fn(f->ud, TM_FINDING_WARNING,
          "appendfsync is no: a power cut takes back turns that were answered; CONFIG SET "
          "appendfsync always, and in redis.conf (CONFIG REWRITE)");
  else if (fsync[0] == '\0')
    f->fn(
        f->ud, TM_FINDING_WARNING,
        "the server does not tell its appendfsync and no-appendfsync-on-rewrite (CONFIG GET is not "
        "allowed): make sure that they are always and no, or a power cut takes back turns that "
        "were answered");
  if (written.ptr != NULL && !tm__slice_is(written, "ok"))
    f->fn(f->ud, TM_FINDING_ERROR,
          "the server's last write to its append-only file failed: see its log, mend the disk");
}

/* With it, what is written while the server rewrites its file is synced when the system likes. */
static void check_rewrites(const findings *f, const redisReply *r, const char *fsync,
                           const char *unsynced) {
  if (tm__slice_is(info(r, "aof_enabled"), "0") || strcmp(fsync, "no") == 0) return;
  if (strcmp(unsynced, "yes") == 0)
    f->fn(f->ud, TM_FINDING_WARNING,
          "no-appendfsync-on-rewrite is yes: a power cut while the server rewrites its append-only "
          "file takes back turns that were answered; CONFIG SET no-appendfsync-on-rewrite no, and "
          "in redis.conf (CONFIG REWRITE)");
}

static void check_memory(const findings *f, const redisReply *r) {
  tm_slice most = info(r, "maxmemory"), policy = info(r, "maxmemory_policy");
  if (policy.ptr == NULL || tm__slice_is(policy, "noeviction") || tm__slice_is(most, "0")) return;
  char text[320];
  (void)snprintf(text, sizeof(text),
                 "maxmemory-policy is %.*s: a full server throws conversations away; CONFIG SET "
                 "maxmemory-policy noeviction, and in redis.conf (CONFIG REWRITE)",
                 (int)(policy.len < 32 ? policy.len : 32), policy.ptr);
  bool all = policy.len > 8 && strncmp(policy.ptr, "allkeys-", 8) == 0;
  f->fn(f->ud, all ? TM_FINDING_ERROR : TM_FINDING_WARNING, text);
}

static void check_role(const findings *f, const redisReply *r) {
  if (tm__slice_is(info(r, "role"), "slave"))
    f->fn(f->ud, TM_FINDING_ERROR,
          "the server is a replica, what is written to it is refused or lost: name the primary in "
          "workflow_persistence.redis.host");
  if (tm__slice_is(info(r, "cluster_enabled"), "1"))
    f->fn(f->ud, TM_FINDING_WARNING,
          "the server is a node of a cluster: the host follows no redirections, so the node must "
          "have all slots, or a proxy stand before it");
}

static tm_status check_settings(tm_store_conn *c, const findings *f, tm_error *err) {
  redisReply *reply = NULL;
  char fsync[16], unsynced[8];
  tm_status status = setting(c, "appendfsync", fsync, sizeof(fsync), err);
  if (status == TM_OK)
    status = setting(c, "no-appendfsync-on-rewrite", unsynced, sizeof(unsynced), err);
  if (status == TM_OK) status = ask_info(c, &reply, err);
  if (status != TM_OK) return status;
  check_log(f, reply, fsync);
  check_rewrites(f, reply, fsync, unsynced);
  check_memory(f, reply);
  check_role(f, reply);
  freeReplyObject(reply);
  return TM_OK;
}

/* ---- everything ---- */

typedef struct deep {
  tm_store_conn *c;
  const findings *f;
  tm_error *err;
  int64_t conversations;
} deep;

static tm_status on_row(void *ud, const tm_row *row) {
  (void)ud, (void)row;
  return TM_OK;
}

static tm_status on_head(void *ud, const tm_head *h) {
  deep *d = ud;
  char text[320];
  d->conversations++;
  if (h->tip == 0) return TM_OK;
  tm_error err = {0};
  tm_status status = tm__redis_chain(d->c, tm__slice(h->id), h->tip, false, on_row, NULL, &err);
  if (status == TM_ECORRUPT || status == TM_ENOTFOUND) {
    (void)snprintf(text, sizeof(text),
                   "conversation %s cannot be read: %.200s; restore it from a backup", h->id,
                   status == TM_ENOTFOUND ? "its newest row is missing" : err.message);
    d->f->fn(d->f->ud, TM_FINDING_ERROR, text);
    return TM_OK;
  }
  if (status != TM_OK && d->err != NULL) *d->err = err;
  return status;
}

static tm_status tell_unreadable(void *ud, const tm_error *why) {
  const deep *d = ud;
  d->f->fn(d->f->ud, TM_FINDING_ERROR, why->message);
  return TM_OK;
}

static tm_status check_all(tm_store_conn *c, const findings *f, tm_error *err) {
  deep d = {c, f, err, 0};
  char text[80];
  const tm_list_filter all = {.status = -1, .limit = SIZE_MAX};
  tm_status status = tm__redis_list(c, &all, on_head, &d, err);
  if (status == TM_ECORRUPT) {
    f->fn(f->ud, TM_FINDING_ERROR, err != NULL ? err->message : "a conversation's head is damaged");
    return TM_OK;
  }
  (void)snprintf(text, sizeof(text), "%lld conversations were read", (long long)d.conversations);
  if (status == TM_OK) f->fn(f->ud, TM_FINDING_INFO, text);
  return status == TM_OK ? tm__redis_unreadable(c, tell_unreadable, &d, err) : status;
}

tm_status tm__redis_inspect(tm_store_conn *c, bool deep_, tm_finding_fn fn, void *ud,
                            tm_error *err) {
  const findings f = {fn, ud};
  tm_status status = check_settings(c, &f, err);
  if (status == TM_OK && c->store->absent) return tm__store_absent(c->store->place, err);
  return status == TM_OK && deep_ ? check_all(c, &f, err) : status;
}
