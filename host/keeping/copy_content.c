/* copy_content.c - one digest over everything in a store. A backup carries its own: a file that was
 * damaged later holds rows that look as good as any other. */
#include <sodium.h>
#include <string.h>

#include "keeping/copy_lane.h"
#include "keeping/copy_rest.h"
#include "keeping/copy_walk.h"

#define FORM  '2' /* of what is hashed, and how */
#define OLDER '1' /* without events */
#define PAGE  128

typedef struct content {
  tm_copy *copy;
  crypto_generichash_state hash;
  char before[TM_ID_SIZE];
  size_t count; /* in this page */
  char tenant[65], session[129];
  int64_t created;
  tm_outgoing_filter event; /* where the next page starts */
  tm_error *err;
  tm_status status; /* of what was done with one; that of the walk is another's */
} content;

static void add_int(content *k, int64_t v) {
  unsigned char bytes[8];
  for (int i = 0; i < 8; i++)
    bytes[i] = (unsigned char)((uint64_t)v >> (8 * i));
  (void)crypto_generichash_update(&k->hash, bytes, sizeof(bytes));
}

static void add_slice(content *k, tm_slice s) {
  add_int(k, s.ptr != NULL ? (int64_t)s.len : -1);
  if (s.len > 0) (void)crypto_generichash_update(&k->hash, (const unsigned char *)s.ptr, s.len);
}

/* ---- conversations ---- */

static tm_status on_head(void *ud, const tm_head *head) {
  content *k = ud;
  tm_copy_digests d;
  tm_head now;
  const tm_copy_side *from = &k->copy->from;
  k->status = tm__copy_pause(k->copy, k->err);
  if (k->status == TM_OK && tm__head_is_damaged(head)) { /* it cannot be read: why? */
    k->status = from->backend->head(from->conn, tm__slice(head->id), &now, k->err);
    head = &now;
  }
  if (k->status == TM_OK) k->status = tm__copy_walk(from, head, NULL, NULL, &d, NULL, k->err);
  if (k->status != TM_OK) return k->status;
  (void)crypto_generichash_update(&k->hash, d.whole, sizeof(d.whole));
  memcpy(k->before, head->id, sizeof(k->before));
  k->copy->counts.conversations++;
  k->count++;
  return TM_OK;
}

static tm_status add_conversations(content *k) {
  const tm_copy_side *from = &k->copy->from;
  tm_error local = {.status = TM_OK};
  tm_status status = TM_OK;
  do {
    tm_list_filter f = {.status = -1, .limit = PAGE};
    memcpy(f.before, k->before, sizeof(f.before));
    k->count = 0;
    status = from->backend->list(from->conn, &f, on_head, k, &local);
    if (k->status != TM_OK) return k->status;
  } while (status == TM_OK && k->count > 0);
  if (status != TM_OK) *k->err = local;
  return status;
}

/* ---- sessions ---- */

static tm_status on_session(void *ud, const tm_session *s) {
  content *k = ud;
  if (s->damaged) return k->status = tm__session_damaged(s, "the store", k->err);
  const tm_slice texts[] = {s->tenant, s->id, s->user_id, s->metadata};
  const int64_t numbers[] = {(int64_t)s->flags, s->created, s->look_at, s->ended};
  for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
    add_slice(k, texts[i]);
  for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
    add_int(k, numbers[i]);
  k->created = s->created;
  k->count++;
  (void)tm__copy(k->tenant, sizeof(k->tenant), s->tenant);
  (void)tm__copy(k->session, sizeof(k->session), s->id);
  return TM_OK;
}

static tm_status add_sessions(content *k) {
  const tm_copy_side *from = &k->copy->from;
  tm_status status = TM_OK;
  bool first = true;
  do {
    tm_session_filter f = {.ended = -1, .limit = PAGE};
    if (!first) {
      f.before_created = k->created;
      f.before_id = tm__slice(k->session);
      f.before_tenant = tm__slice(k->tenant);
    }
    first = false;
    k->count = 0;
    status = tm__copy_pause(k->copy, k->err);
    if (status != TM_OK) return status;
    tm_error local = {.status = TM_OK};
    status = from->backend->sessions(from->conn, &f, on_session, k, &local);
    if (status != TM_OK && k->status == TM_OK) *k->err = local;
  } while (status == TM_OK && k->count > 0);
  return status;
}

/* ---- scripts ---- */

static tm_status on_script(void *ud, tm_slice system, tm_slice version, int64_t used) {
  (void)used;
  content *k = ud;
  const tm_copy_side *from = &k->copy->from;
  tm_buf sources = {0};
  add_slice(k, system);
  add_slice(k, version);
  k->status = from->backend->script_get(from->conn, system, version, &sources, k->err);
  if (k->status == TM_OK && !tm__buf_ok(&sources)) k->status = tm__fail_memory(k->err, "a script");
  if (k->status == TM_OK) add_slice(k, tm__buf_view(&sources));
  tm__buf_free(&sources);
  return k->status;
}

static tm_status add_scripts(content *k) {
  const tm_copy_side *from = &k->copy->from;
  tm_error local = {.status = TM_OK};
  tm_status status = from->backend->scripts(from->conn, on_script, k, &local);
  if (k->status != TM_OK) return k->status;
  if (status != TM_OK) *k->err = local;
  return status;
}

/* ---- events ---- */

static tm_status on_event(void *ud, const tm_outgoing *e) {
  content *k = ud;
  const tm_slice texts[] = {tm__slice(e->conversation), tm__slice(e->tenant), tm__slice(e->note),
                            e->body};
  const int64_t numbers[] = {e->revision, e->index,    e->created,
                             e->dead_at,  e->attempts, (int64_t)e->flags};
  for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
    add_slice(k, texts[i]);
  for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
    add_int(k, numbers[i]);
  memcpy(k->event.before, e->conversation, sizeof(k->event.before));
  k->event.before_revision = e->revision;
  k->event.before_index = e->index;
  k->count++;
  return TM_OK;
}

static tm_status add_events(content *k) {
  const tm_copy_side *from = &k->copy->from;
  tm_status status = TM_OK;
  k->event = (tm_outgoing_filter){.dead = -1, .limit = PAGE};
  do {
    tm_outgoing_filter f = k->event;
    k->count = 0;
    status = tm__copy_pause(k->copy, k->err);
    if (status == TM_OK) status = from->backend->outbox_list(from->conn, &f, on_event, k, k->err);
  } while (status == TM_OK && k->count > 0);
  return status;
}

/* ---- what is in no list ---- */

static tm_status on_unreadable(void *ud, const tm_error *why) {
  content *k = ud;
  *k->err = *why;
  k->status = why->status;
  return k->status;
}

static tm_status refuse_unreadable(content *k) {
  const tm_copy_side *from = &k->copy->from;
  tm_error local = {.status = TM_OK};
  if (from->backend->unreadable == NULL) return TM_OK;
  tm_status status = from->backend->unreadable(from->conn, on_unreadable, k, &local);
  if (status != TM_OK && k->status == TM_OK) *k->err = local;
  return status;
}

/* ---- all of it ---- */

tm_status tm__content_add(tm_copy *c, tm_slice name, uint8_t digest[TM_COPY_DIGEST],
                          tm_error *err) {
  tm_error local = {.status = TM_OK};
  content k = {.copy = c, .err = &local};
  if (sodium_init() < 0) return tm__fail_memory(err, "a digest");
  (void)crypto_generichash_init(&k.hash, NULL, 0, TM_COPY_DIGEST);
  (void)crypto_generichash_update(&k.hash, digest, TM_COPY_DIGEST);
  add_slice(&k, name);
  tm_status status = tm__copy_count(c, &local);
  if (status == TM_OK) status = add_conversations(&k);
  if (status == TM_OK) status = add_sessions(&k);
  if (status == TM_OK) status = add_scripts(&k);
  if (status == TM_OK && c->events) status = add_events(&k);
  if (status == TM_OK) status = refuse_unreadable(&k);
  (void)crypto_generichash_final(&k.hash, digest, TM_COPY_DIGEST);
  if (status != TM_OK && err != NULL) *err = local;
  return status;
}

/* ---- the note ---- */

typedef struct note {
  char text[2 * TM_COPY_DIGEST + 2];
} note;

static note note_of(char form, const uint8_t digest[TM_COPY_DIGEST]) {
  note n = {{form}};
  (void)sodium_bin2hex(n.text + 1, sizeof(n.text) - 1, digest, TM_COPY_DIGEST);
  return n;
}

tm_status tm__content_sign(const tm_copy_side *to, const uint8_t digest[TM_COPY_DIGEST],
                           tm_error *err) {
  note n = note_of(FORM, digest);
  return to->backend->note_put(to->conn, TM_S(TM_NOTE_BACKUP), tm__slice(n.text), err);
}

tm_status tm__content_signed(const tm_copy_side *from, tm_buf *out, tm_error *err) {
  tm_status status = from->backend->note_get(from->conn, TM_S(TM_NOTE_BACKUP), out, err);
  if (status == TM_OK && !tm__buf_ok(out)) return tm__fail_memory(err, "a note");
  return status == TM_ENOTFOUND ? TM_OK : status;
}

bool tm__content_has_events(const tm_buf *signed_) {
  return signed_->len == 0 || signed_->ptr[0] != OLDER;
}

bool tm__content_is(const tm_buf *signed_, const uint8_t digest[TM_COPY_DIGEST]) {
  note n = note_of(tm__content_has_events(signed_) ? FORM : OLDER, digest);
  return tm__slice_eq(tm__buf_view(signed_), tm__slice(n.text));
}
