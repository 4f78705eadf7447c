/* copy_walk.c - digests. What a row means lies below it on the way, so what is meant waits in a
 * heap until the walk comes by: memory grows with the undo rows, not with the rows. */
#include "keeping/copy_walk.h"

#include <sodium.h>
#include <stdlib.h>

typedef struct meant {
  int64_t id;  /* of the row that is meant */
  int64_t tag; /* by whom: the revision of an undo row; or -1, -2, ...: a recent key */
} meant;

typedef struct walk {
  crypto_generichash_state hash, bodies;
  const tm_head *head;
  tm_row_fn fn;
  void *ud;
  tm_copy_refs *refs;
  meant *heap; /* greatest first */
  size_t count, cap;
  int64_t parent; /* of the last row seen: the next on the way */
  int64_t lost;   /* bits: the recent keys whose rows are not there */
  bool broken;    /* an undo row means one that is not there */
  bool no_memory;
} walk;

/* ---- hashing ---- */

static void hash_int(crypto_generichash_state *h, int64_t v) {
  unsigned char bytes[8];
  for (int i = 0; i < 8; i++)
    bytes[i] = (unsigned char)((uint64_t)v >> (8 * i));
  (void)crypto_generichash_update(h, bytes, sizeof(bytes));
}

static void hash_slice(crypto_generichash_state *h, tm_slice s) {
  hash_int(h, (int64_t)s.len);
  if (s.len > 0) (void)crypto_generichash_update(h, (const unsigned char *)s.ptr, s.len);
}

static void add_int(walk *w, int64_t v) {
  hash_int(&w->hash, v);
}

static void add_head(walk *w, const tm_head *h) {
  const char *const texts[] = {h->id,   h->tenant,  h->session, h->system,
                               h->flow, h->version, h->step,    h->claim};
  const int64_t numbers[] = {(int64_t)h->status, h->revision, h->wake_at, h->created, h->ended};
  for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
    hash_slice(&w->hash, tm__slice(texts[i]));
  for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
    add_int(w, numbers[i]);
  for (size_t i = 0; i < TM_RECENT_KEYS; i++) {
    add_int(w, (int64_t)h->recent[i].key);
    add_int(w, h->recent[i].key != 0 ? (int64_t)h->recent[i].body : 0);
  }
}

static void add_row(walk *w, const tm_row *r) {
  const int64_t numbers[] = {r->revision, (int64_t)r->kind, r->created, r->checkpoint,
                             r->base != 0};
  for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
    add_int(w, numbers[i]);
  hash_int(&w->bodies, (int64_t)r->flags);
  hash_slice(&w->bodies, r->body);
}

/* The whole is the shape and the bodies. */
static void finish(walk *w, tm_copy_digests *out) {
  (void)crypto_generichash_final(&w->hash, out->shape, TM_COPY_DIGEST);
  (void)crypto_generichash_update(&w->bodies, out->shape, TM_COPY_DIGEST);
  (void)crypto_generichash_final(&w->bodies, out->whole, TM_COPY_DIGEST);
}

/* ---- what is meant: a heap ---- */

static bool is_before(const meant *a, const meant *b) {
  return a->id != b->id ? a->id > b->id : a->tag > b->tag;
}

static void swap(meant *a, meant *b) {
  meant other = *a;
  *a = *b;
  *b = other;
}

static void push(walk *w, int64_t id, int64_t tag) {
  if (w->count == w->cap) {
    size_t cap = w->cap == 0 ? 16 : w->cap * 2;
    meant *heap = realloc(w->heap, cap * sizeof(*heap));
    if (heap == NULL) {
      w->no_memory = true;
      return;
    }
    w->heap = heap;
    w->cap = cap;
  }
  size_t at = w->count++;
  w->heap[at] = (meant){id, tag};
  for (; at > 0 && is_before(&w->heap[at], &w->heap[(at - 1) / 2]); at = (at - 1) / 2)
    swap(&w->heap[at], &w->heap[(at - 1) / 2]);
}

static meant pop(walk *w) {
  meant top = w->heap[0];
  w->heap[0] = w->heap[--w->count];
  for (size_t at = 0;;) {
    size_t best = at;
    for (size_t child = 2 * at + 1; child <= 2 * at + 2 && child < w->count; child++)
      if (is_before(&w->heap[child], &w->heap[best])) best = child;
    if (best == at) return top;
    swap(&w->heap[at], &w->heap[best]);
    at = best;
  }
}

/* ---- refs ---- */

static bool add_ref(tm_copy_refs *refs, int64_t id, int64_t revision) {
  if (refs->count > 0 && refs->items[refs->count - 1].id == id) return true;
  if (refs->count == refs->cap) {
    size_t cap = refs->cap == 0 ? 16 : refs->cap * 2;
    tm_copy_ref *items = realloc(refs->items, cap * sizeof(*items));
    if (items == NULL) return false;
    refs->items = items;
    refs->cap = cap;
  }
  refs->items[refs->count++] = (tm_copy_ref){.id = id, .revision = revision};
  return true;
}

tm_copy_ref *tm__copy_ref(const tm_copy_refs *refs, int64_t id) {
  size_t low = 0, high = refs->count;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (refs->items[middle].id == id) return &refs->items[middle];
    if (refs->items[middle].id > id) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return NULL;
}

void tm__copy_refs_free(tm_copy_refs *refs) {
  free(refs->items);
  *refs = (tm_copy_refs){0};
}

/* ---- the walk ---- */

/* The walk did not come by. A key without its row means nothing; an undo row cannot be read. */
static void lose(walk *w, meant m) {
  if (m.tag > 0) {
    w->broken = true;
  } else {
    w->lost |= INT64_C(1) << -m.tag;
  }
}

/* Everybody who means this row hears its revision. */
static void resolve(walk *w, const tm_row *row) {
  while (w->count > 0 && w->heap[0].id > row->id)
    lose(w, pop(w));
  while (w->count > 0 && w->heap[0].id == row->id) {
    meant m = pop(w);
    add_int(w, m.tag);
    add_int(w, row->revision);
    if (w->refs != NULL && !add_ref(w->refs, row->id, row->revision)) w->no_memory = true;
  }
}

static tm_status on_row(void *ud, const tm_row *row) {
  walk *w = ud;
  w->parent = row->parent;
  add_row(w, row);
  resolve(w, row);
  if (row->base != 0) push(w, row->base, row->revision);
  if (w->no_memory) return TM_ENOMEM;
  return w->fn != NULL ? w->fn(w->ud, row) : TM_OK;
}

/* The end of the walk; false: rows are missing. */
static bool settle(walk *w) {
  while (w->count > 0)
    lose(w, pop(w));
  add_int(w, w->lost);
  return w->parent == 0 && !w->broken;
}

static tm_status walk_rows(walk *w, const tm_copy_side *side, tm_error *err) {
  const tm_head *h = w->head;
  for (int64_t i = 0; i < TM_RECENT_KEYS; i++)
    if (h->recent[i].key != 0) push(w, h->recent[i].row, -i - 1);
  if (w->no_memory) return tm__fail_memory(err, "a conversation's keys");
  if (h->tip == 0) return TM_OK;
  tm_status status =
      side->backend->chain(side->conn, tm__slice(h->id), h->tip, false, on_row, w, err);
  if (w->no_memory) return tm__fail_memory(err, "the undo rows of a conversation");
  return status;
}

/* Rows that are missing: has somebody purged the conversation, or lost them? */
static tm_status missing(const tm_copy_side *side, const tm_head *head, tm_error *err) {
  tm_head now;
  tm_status status = side->backend->head(side->conn, tm__slice(head->id), &now, err);
  if (status != TM_OK) return status;
  return tm__fail(err, TM_ECORRUPT, "journal.damaged",
                  "rows of conversation %s are missing; restore a backup", head->id);
}

tm_status tm__copy_walk(const tm_copy_side *side, const tm_head *head, tm_row_fn fn, void *ud,
                        tm_copy_digests *digests, tm_copy_refs *refs, tm_error *err) {
  walk w = {.head = head, .fn = fn, .ud = ud, .refs = refs};
  if (sodium_init() < 0) return tm__fail_memory(err, "a digest");
  (void)crypto_generichash_init(&w.hash, NULL, 0, TM_COPY_DIGEST);
  (void)crypto_generichash_init(&w.bodies, NULL, 0, TM_COPY_DIGEST);
  add_head(&w, head);
  tm_status status = walk_rows(&w, side, err);
  if (status == TM_ENOTFOUND || (status == TM_OK && !settle(&w))) status = missing(side, head, err);
  finish(&w, digests);
  free(w.heap);
  return status;
}
