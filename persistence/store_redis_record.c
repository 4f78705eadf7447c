/* store_redis_record.c - heads and rows as Redis keeps them. A head is a hash of readable fields; a
 * row is a field of the conversation's rows, named by its id, which is its revision: one line of
 * numbers, then the body as it is. */
#include <stdio.h>
#include <stdlib.h>

#include "persistence/recent.h"
#include "persistence/store_redis.h"

/* ---- heads ---- */

static const char *const head_fields[TM_REDIS_HEAD_FIELDS] = {
    "revision", "tip",     "status", "wake_at", "ended",  "created",   "claim",  "step", "flow",
    "version",  "session", "system", "tenant",  "recent", "start_key", "answer", "void"};

void tm__redis_ask_head(tm_store_conn *c, tm_slice id) {
  tm_redis_key k;
  tm__redis_head_key(&k, c->store, id);
  tm__redis_command(c, "HMGET", 1 + TM_REDIS_HEAD_FIELDS);
  tm__redis_key_arg(c, &k);
  for (size_t i = 0; i < TM_REDIS_HEAD_FIELDS; i++)
    tm__redis_text(c, head_fields[i]);
}

static tm_slice field(const redisReply *r, size_t at) {
  return tm__redis_slice(tm__redis_item(r, at));
}

static bool decode_texts(const redisReply *r, tm_head *h) {
  return tm__copy(h->claim, sizeof(h->claim), field(r, 6)) &&
         tm__copy(h->step, sizeof(h->step), field(r, 7)) &&
         tm__copy(h->flow, sizeof(h->flow), field(r, 8)) &&
         tm__copy(h->version, sizeof(h->version), field(r, 9)) &&
         tm__copy(h->session, sizeof(h->session), field(r, 10)) &&
         tm__copy(h->system, sizeof(h->system), field(r, 11)) &&
         tm__copy(h->tenant, sizeof(h->tenant), field(r, 12));
}

tm_status tm__redis_decode_head(const tm_store *s, const redisReply *r, tm_slice id, tm_head *out,
                                tm_error *err) {
  *out = (tm_head){0};
  if (!tm__copy(out->id, sizeof(out->id), id)) return TM_ENOTFOUND;
  if (field(r, 0).ptr == NULL) return TM_ENOTFOUND;
  out->revision = tm__redis_number(field(r, 0));
  out->tip = tm__redis_number(field(r, 1));
  out->wake_at = tm__redis_number(field(r, 3));
  out->ended = tm__redis_number(field(r, 4));
  out->created = tm__redis_number(field(r, 5));
  bool ok = tm__conversation_status_parse(&out->status, field(r, 2)) && decode_texts(r, out) &&
            tm__recent_decode(out, field(r, 13)) && tm__head_is_sound(out);
  return ok ? TM_OK : tm__head_damaged(id, s->place, err);
}

tm_status tm__redis_decode_start(const redisReply *r, uint64_t *key, int64_t *answer) {
  tm_slice hex = field(r, 14);
  *key = hex.ptr != NULL ? strtoull(hex.ptr, NULL, 16) : 0;
  *answer = tm__redis_number(field(r, 15));
  return field(r, 0).ptr != NULL ? TM_OK : TM_ENOTFOUND;
}

size_t tm__redis_head_args(const tm_commit *item) {
  bool starts = item->expect_revision == 0;
  return (size_t)16 + (item->row != NULL ? 2U : 0U) + (starts ? 8U : 0U) +
         (starts && item->start_key != 0 ? 2U : 0U);
}

static void add_text(tm_store_conn *c, const char *name, const char *value) {
  tm__redis_text(c, name);
  tm__redis_text(c, value);
}

static void add_int(tm_store_conn *c, const char *name, int64_t value) {
  tm__redis_text(c, name);
  tm__redis_int(c, value);
}

static void add_first(tm_store_conn *c, const tm_commit *item) {
  const tm_head *h = &item->head;
  char hex[20];
  add_text(c, "tenant", h->tenant);
  add_text(c, "session", h->session);
  add_text(c, "system", h->system);
  add_int(c, "created", h->created);
  if (item->start_key == 0) return;
  (void)snprintf(hex, sizeof(hex), "%016llx", (unsigned long long)item->start_key);
  add_text(c, "start_key", hex);
}

void tm__redis_add_head(tm_store_conn *c, const tm_commit *item) {
  const tm_head *h = &item->head;
  int64_t row_id = item->row != NULL ? h->revision : 0;
  char recent[TM_RECENT_BYTES];
  add_text(c, "status", tm__conversation_status_name(h->status));
  add_int(c, "wake_at", h->wake_at);
  add_int(c, "ended", h->ended);
  add_text(c, "claim", h->claim);
  add_text(c, "step", h->step);
  add_text(c, "flow", h->flow);
  add_text(c, "version", h->version);
  tm__redis_text(c, "recent");
  tm__redis_arg(c, tm__recent_encode(recent, h, row_id));
  if (row_id != 0) add_int(c, "tip", row_id);
  if (item->expect_revision == 0) add_first(c, item);
}

/* ---- rows ---- */

size_t tm__redis_row_header(char out[TM_REDIS_ROW_HEADER], const tm_row *row, const char *token) {
  int n =
      snprintf(out, TM_REDIS_ROW_HEADER, "%lld %lld %d %lld %d %lu %s\n", (long long)row->parent,
               (long long)row->base, (int)row->kind, (long long)row->created,
               row->checkpoint ? 1 : 0, (unsigned long)row->flags, token);
  return (size_t)n;
}

tm_status tm__redis_decode_row(const tm_store *s, tm_slice stored, tm_slice conversation,
                               int64_t id, tm_row *out, tm_error *err) {
  char header[TM_REDIS_ROW_HEADER], token[TM_REDIS_TOKEN];
  long long parent, base, created;
  unsigned long flags;
  int kind, checkpoint;
  const char *end = stored.len > 0 ? memchr(stored.ptr, '\n', stored.len) : NULL;
  bool ok = end != NULL &&
            tm__copy(header, sizeof(header), (tm_slice){stored.ptr, (size_t)(end - stored.ptr)});
  ok = ok && sscanf(header, "%lld %lld %d %lld %d %lu %16s", &parent, &base, &kind, &created,
                    &checkpoint, &flags, token) == 7;
  if (!ok || kind < TM_ROW_BEGIN || kind > TM_ROW_MIGRATE)
    return tm__redis_damaged(s, "a row of a journal", err);
  *out = (tm_row){.id = id,
                  .parent = parent,
                  .base = base,
                  .revision = id,
                  .kind = (tm_row_kind)kind,
                  .created = created,
                  .checkpoint = checkpoint != 0,
                  .flags = (uint32_t)flags,
                  .body = {end + 1, stored.len - (size_t)(end + 1 - stored.ptr)}};
  (void)tm__copy(out->conversation, sizeof(out->conversation), conversation);
  return TM_OK;
}
