/* codec.c - what is done to a body between journal and store, and what is said when it cannot be
 * undone. Whoever encodes or decodes takes a set of tools from a shelf and puts it back. */
#include "persistence/codec.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "persistence/compress.h"
#include "persistence/seal.h"

#define SHELF_MAX   64
#define SCRATCH_MAX ((size_t)1 << 20) /* kept from one body to the next */
#define KNOWN_FLAGS (TM_BODY_ZSTD | TM_BODY_SEALED)

typedef struct tools {
  struct tools *next;
  tm_press *press;
  tm_buf scratch; /* what is compressed and not sealed */
} tools;

struct tm_codec {
  tm_codec_options o;
  pthread_mutex_t lock;
  bool lock_made;
  tools *shelf;
  size_t count;
};

/* ---- tools ---- */

static void tools_free(tools *t) {
  if (t == NULL) return;
  tm__press_free(t->press);
  tm__buf_free(&t->scratch);
  free(t);
}

static tools *tools_new(void) {
  tools *t = calloc(1, sizeof(*t));
  if (t == NULL) return NULL;
  t->press = tm__press_new();
  if (t->press != NULL) return t;
  tools_free(t);
  return NULL;
}

static tools *tools_take(tm_codec *c) {
  (void)pthread_mutex_lock(&c->lock);
  tools *t = c->shelf;
  if (t != NULL) {
    c->shelf = t->next;
    c->count--;
  }
  (void)pthread_mutex_unlock(&c->lock);
  return t != NULL ? t : tools_new();
}

static void tools_put(tm_codec *c, tools *t) {
  if (t->scratch.cap > SCRATCH_MAX) tm__buf_free(&t->scratch);
  (void)pthread_mutex_lock(&c->lock);
  bool kept = c->count < SHELF_MAX;
  if (kept) {
    t->next = c->shelf;
    c->shelf = t;
    c->count++;
  }
  (void)pthread_mutex_unlock(&c->lock);
  if (!kept) tools_free(t);
}

tm_status tm__codec_new(tm_codec **out, const tm_codec_options *o, tm_error *err) {
  *out = NULL;
  tm_codec *c = calloc(1, sizeof(*c));
  if (c == NULL) return tm__fail_memory(err, "a codec");
  c->o = *o;
  c->lock_made = pthread_mutex_init(&c->lock, NULL) == 0;
  if (!c->lock_made) {
    tm__codec_free(c);
    return tm__fail_memory(err, "a codec");
  }
  *out = c;
  return TM_OK;
}

void tm__codec_free(tm_codec *c) {
  if (c == NULL) return;
  while (c->shelf != NULL) {
    tools *t = c->shelf;
    c->shelf = t->next;
    tools_free(t);
  }
  if (c->lock_made) (void)pthread_mutex_destroy(&c->lock);
  free(c);
}

const tm_codec_options *tm__codec_options(const tm_codec *c) {
  return &c->o;
}

/* ---- where a body belongs ---- */

typedef struct bound {
  char bytes[TM_SEAL_BOUND];
  size_t len;
  bool failed;
} bound;

static void add_number(bound *b, uint64_t n) {
  if (b->failed || sizeof(b->bytes) - b->len < 8) {
    b->failed = true;
    return;
  }
  for (int i = 0; i < 8; i++) {
    b->bytes[b->len++] = (char)(unsigned char)(n >> (8 * i));
  }
}

/* Behind its length: no two lists of texts give the same bytes. */
static void add_text(bound *b, tm_slice text) {
  add_number(b, text.len);
  if (b->failed || text.len > sizeof(b->bytes) - b->len) {
    b->failed = true;
    return;
  }
  if (text.len > 0) memcpy(b->bytes + b->len, text.ptr, text.len);
  b->len += text.len;
}

static tm_slice bind_to(bound *b, const tm_place *at, uint32_t flags) {
  bool row = at->conversation.ptr != NULL;
  *b = (bound){.len = 0};
  add_text(b, !row        ? TM_S("tidemill session")
              : at->event ? TM_S("tidemill event")
                          : TM_S("tidemill row"));
  add_text(b, at->tenant);
  if (row) {
    add_text(b, at->conversation);
    add_number(b, (uint64_t)at->revision);
    add_number(b, at->event ? (uint64_t)at->index : (uint64_t)at->kind);
  } else {
    add_text(b, at->session);
    add_text(b, at->field);
  }
  add_number(b, flags);
  return b->failed ? (tm_slice){NULL, SIZE_MAX} : (tm_slice){b->bytes, b->len};
}

/* "the row of revision 3 of conversation …", for messages. */
typedef struct place_name {
  char text[192];
} place_name;

static place_name name_of(const tm_place *at) {
  place_name n;
  if (at->conversation.ptr != NULL) {
    (void)snprintf(n.text, sizeof(n.text), "%s of revision %lld of conversation %.*s",
                   at->event ? "an event" : "the row", (long long)at->revision,
                   (int)(at->conversation.len < 64 ? at->conversation.len : 64),
                   at->conversation.ptr);
  } else {
    (void)snprintf(n.text, sizeof(n.text), "%.*s of session %.*s",
                   (int)(at->field.len < 16 ? at->field.len : 16), at->field.ptr,
                   (int)(at->session.len < 128 ? at->session.len : 128), at->session.ptr);
  }
  return n;
}

/* ---- writing ---- */

static tm_status seal(tm_codec *c, const tm_place *at, tm_stored *body, tm_buf *out,
                      tm_error *err) {
  tm_seal_key *key;
  bound b;
  tm_status status = tm__keyring_current(c->o.keys, at->tenant, &key, err);
  if (status != TM_OK) return status;
  uint32_t flags = body->flags | TM_BODY_SEALED;
  size_t from = out->len;
  bool ok = tm__seal(out, key, bind_to(&b, at, flags), body->bytes);
  tm__seal_key_unref(key);
  if (!ok) return tm__fail_memory(err, "a sealed body");
  *body = (tm_stored){flags, {out->ptr + from, out->len - from}};
  return TM_OK;
}

static tm_status compress(tm_press *press, tm_stored *body, tm_buf *out, tm_error *err) {
  bool smaller;
  size_t from = out->len;
  if (tm__compress(press, out, body->bytes, &smaller) != TM_OK)
    return tm__fail_memory(err, "a compressed body");
  if (smaller) *body = (tm_stored){TM_BODY_ZSTD, {out->ptr + from, out->len - from}};
  return TM_OK;
}

tm_status tm__codec_encode(tm_codec *c, const tm_place *at, tm_slice plain, bool do_compress,
                           bool do_seal, tm_buf *out, tm_stored *stored, tm_error *err) {
  do_compress = do_compress && at->conversation.ptr != NULL && !at->event;
  do_seal = do_seal || c->o.seal;
  *stored = (tm_stored){0, plain};
  if (do_seal && c->o.keys == NULL) return tm__keyring_none(NULL, err);
  if (!do_compress) return do_seal ? seal(c, at, stored, out, err) : TM_OK;
  tools *t = tools_take(c);
  if (t == NULL) return tm__fail_memory(err, "a compressed body");
  tm__buf_clear(&t->scratch);
  tm_status status = compress(t->press, stored, do_seal ? &t->scratch : out, err);
  if (status == TM_OK && do_seal) status = seal(c, at, stored, out, err);
  tools_put(c, t);
  return status;
}

/* ---- reading ---- */

tm_status tm__codec_forged(const tm_place *at, tm_error *err) {
  return tm__fail(err, TM_ECORRUPT, "seal.forged",
                  "%s is not what was sealed there: it was altered, or brought from elsewhere; "
                  "restore a backup",
                  name_of(at).text);
}

static tm_status newer(const tm_place *at, tm_error *err) {
  return tm__fail(err, TM_ECORRUPT, "journal.newer",
                  "%s was written by a newer program; install that one", name_of(at).text);
}

static tm_status damaged(const tm_place *at, tm_error *err) {
  return tm__fail(err, TM_ECORRUPT, "journal.damaged",
                  "%s is damaged: it cannot be decompressed; restore a backup", name_of(at).text);
}

static tm_status no_such_key(const tm_place *at, const unsigned char *id, tm_error *err) {
  char hex[TM_SEAL_ID_HEX];
  tm__seal_id_hex(hex, id);
  return tm__fail(err, TM_ECORRUPT, "seal.key_unknown",
                  "%s is sealed with the key %s, which is not configured; give it in "
                  "workflow_persistence.general.previous_encryption_keys, or as a line of the "
                  "tenant's file",
                  name_of(at).text, hex);
}

static tm_status find_key(const tm_codec *c, const tm_place *at, tm_slice envelope,
                          tm_seal_key **key, tm_error *err) {
  const unsigned char *id = tm__seal_id(envelope);
  *key = NULL;
  if (id == NULL) {
    bool known = envelope.len == 0 || envelope.ptr[0] <= TM_SEAL_VERSION;
    return known ? tm__codec_forged(at, err) : newer(at, err);
  }
  if (c->o.keys == NULL) return no_such_key(at, id, err);
  tm_status status = tm__keyring_find(c->o.keys, at->tenant, id, key, err);
  return status == TM_ENOTFOUND ? no_such_key(at, id, err) : status;
}

static tm_status unseal(const tm_codec *c, const tm_place *at, const tm_stored *stored, tm_buf *out,
                        tm_error *err) {
  tm_seal_key *key;
  bound b;
  tm_status status = find_key(c, at, stored->bytes, &key, err);
  if (status != TM_OK) return status;
  tm__buf_clear(out);
  status = tm__unseal(out, key, bind_to(&b, at, stored->flags), stored->bytes);
  tm__seal_key_unref(key);
  if (status == TM_ENOMEM) return tm__fail_memory(err, "a body");
  return status == TM_OK ? TM_OK : tm__codec_forged(at, err);
}

static tm_status decompress(tm_press *press, const tm_place *at, tm_slice frame, tm_buf *out,
                            tm_error *err) {
  tm__buf_clear(out);
  tm_status status = tm__decompress(press, out, frame, TM_ROW_MAX);
  if (status == TM_ENOMEM) return tm__fail_memory(err, "a body");
  if (status == TM_EUNSUPPORTED) return newer(at, err);
  return status == TM_OK ? TM_OK : damaged(at, err);
}

static tm_status expand(tm_codec *c, const tm_place *at, const tm_stored *stored, tm_buf *out,
                        tm_error *err) {
  tools *t = tools_take(c);
  if (t == NULL) return tm__fail_memory(err, "a body");
  tm_slice frame = stored->bytes;
  tm_status status = TM_OK;
  if ((stored->flags & TM_BODY_SEALED) != 0) {
    status = unseal(c, at, stored, &t->scratch, err);
    frame = tm__buf_view(&t->scratch);
  }
  if (status == TM_OK) status = decompress(t->press, at, frame, out, err);
  tools_put(c, t);
  return status;
}

tm_status tm__codec_plaintext(const tm_place *at, tm_error *err) {
  return tm__fail(err, TM_ECORRUPT, "seal.plaintext",
                  "%s is not sealed, although it has to be: somebody else wrote it, or sealing was "
                  "turned on later; in that case workflow_persistence.general.accept_plaintext: "
                  "true lets it be read until it is sealed",
                  name_of(at).text);
}

tm_status tm__codec_decode(tm_codec *c, const tm_place *at, const tm_stored *stored, tm_buf *out,
                           tm_slice *plain, tm_error *err) {
  uint32_t flags = stored->flags;
  *plain = stored->bytes;
  if ((flags & ~KNOWN_FLAGS) != 0 || (c == NULL && flags != 0)) return newer(at, err);
  bool sealed = (flags & TM_BODY_SEALED) != 0;
  if (c != NULL && c->o.seal && !c->o.accept_plaintext && !sealed)
    return tm__codec_plaintext(at, err);
  if (flags == 0) return TM_OK;
  tm_status status = (flags & TM_BODY_ZSTD) != 0 ? expand(c, at, stored, out, err)
                                                 : unseal(c, at, stored, out, err);
  *plain = status == TM_OK ? tm__buf_view(out) : (tm_slice){"", 0};
  return status;
}

tm_status tm__codec_is_current(tm_codec *c, tm_slice tenant, const tm_stored *stored, bool *current,
                               tm_error *err) {
  *current = !c->o.seal;
  if ((stored->flags & TM_BODY_SEALED) == 0) return TM_OK;
  const unsigned char *id = tm__seal_id(stored->bytes);
  *current = true; /* what nobody can open stays as it is */
  if (id == NULL || c->o.keys == NULL) return TM_OK;
  tm_seal_key *key;
  tm_status status = tm__keyring_current(c->o.keys, tenant, &key, err);
  if (status != TM_OK) return status;
  *current = memcmp(id, key->id, TM_SEAL_ID_BYTES) == 0;
  tm__seal_key_unref(key);
  return TM_OK;
}

bool tm__codec_is_of_record(const tm_error *err) {
  return strncmp(err->code, "seal.", 5) == 0 || strncmp(err->code, "journal.", 8) == 0 ||
         strcmp(err->code, "session.damaged") == 0;
}
