/* copy.c - many conversations at once, some rows of each in a commit group, since a group costs as
 * much as a single commit; one row of each where the target must be told its parent's id. */
#include "keeping/copy.h"

#include <sodium.h>
#include <stdlib.h>

#include "keeping/copy_events.h"
#include "keeping/copy_lane.h"
#include "keeping/copy_rest.h"

#define LANES        128
#define GROUP        256                /* commits in one transaction */
#define BUFFER_BYTES ((size_t)32 << 20) /* of rows in memory; beyond it no lane is opened */

typedef struct slot { /* a commit on its way */
  tm_commit commit;
  tm_row row;
  size_t lane;
} slot;

typedef struct run {
  tm_copy *copy;
  tm_copy_lane lanes[LANES];
  size_t count;        /* the first `count` lanes are in use */
  tm_head page[LANES]; /* heads of the source that have no lane yet */
  size_t page_count, page_at;
  char before[TM_ID_SIZE];
  bool over; /* the source has no more */
  slot slots[GROUP];
  size_t slot_count;
} run;

/* ---- the source's conversations ---- */

static tm_status on_head(void *ud, const tm_head *head) {
  run *r = ud;
  if (r->page_count == LANES) return TM_ECANCELLED;
  r->page[r->page_count++] = *head;
  return TM_OK;
}

static tm_status next_page(run *r, tm_error *err) {
  const tm_copy_side *from = &r->copy->from;
  tm_list_filter f = {.status = -1, .limit = LANES};
  memcpy(f.before, r->before, sizeof(f.before));
  r->page_count = r->page_at = 0;
  tm_status status = from->backend->list(from->conn, &f, on_head, r, err);
  if (status != TM_OK) return status;
  r->over = r->page_count == 0;
  if (!r->over) memcpy(r->before, r->page[r->page_count - 1].id, sizeof(r->before));
  return TM_OK;
}

typedef struct counted {
  int64_t n, page;
  char last[TM_ID_SIZE];
} counted;

static tm_status count_head(void *ud, const tm_head *head) {
  counted *k = ud;
  k->page++;
  memcpy(k->last, head->id, sizeof(k->last));
  return TM_OK;
}

tm_status tm__copy_count(tm_copy *c, tm_error *err) {
  counted k = {0};
  tm_list_filter f = {.status = -1, .limit = 1000};
  tm_status status;
  do {
    memcpy(f.before, k.last, sizeof(f.before));
    k.page = 0;
    status = tm__copy_pause(c, err);
    if (status == TM_OK) status = c->from.backend->list(c->from.conn, &f, count_head, &k, err);
    c->counts.total += k.page;
  } while (status == TM_OK && k.page > 0);
  return status;
}

/* ---- one conversation ---- */

static void add_digest(tm_copy *c, const uint8_t digest[TM_COPY_DIGEST]) {
  crypto_generichash_state state;
  (void)crypto_generichash_init(&state, NULL, 0, TM_COPY_DIGEST);
  (void)crypto_generichash_update(&state, c->digest, TM_COPY_DIGEST);
  (void)crypto_generichash_update(&state, digest, TM_COPY_DIGEST);
  (void)crypto_generichash_final(&state, c->digest, TM_COPY_DIGEST);
}

static tm_status moved(const tm_copy_lane *lane, tm_error *err) {
  return tm__fail(err, TM_ECONFLICT, "copy.moved",
                  "conversation %s went on by itself in the target (revision %lld there, %lld in "
                  "the source): it is left as it is; --force replaces it",
                  lane->head.id, (long long)lane->revision, (long long)lane->head.revision);
}

/* The lane again, after what the target has of it was removed. */
static tm_status set_back(tm_copy *c, tm_copy_lane *lane, tm_copy_state *state, tm_error *err) {
  tm_head head = lane->head;
  tm_status status = tm__copy_remove(c, tm__slice(head.id), lane->revision, err);
  if (status != TM_OK) return status;
  tm__copy_lane_free(lane);
  lane->head = head;
  return tm__copy_lane_open(c, lane, state, err);
}

/* TM_OK and *open: there are rows to write. */
static tm_status open_lane(tm_copy *c, tm_copy_lane *lane, bool *open, tm_error *err) {
  tm_copy_state state = TM_COPY_ROWS;
  tm_status status = tm__copy_lane_open(c, lane, &state, err);
  bool lost = status == TM_ECORRUPT && state == TM_COPY_MOVED;
  if (status == TM_OK) add_digest(c, lane->digests.whole);
  if (status == TM_OK && state == TM_COPY_THERE) {
    status = tm__copy_lane_verify(c, lane, err);
    if (status == TM_ECORRUPT && c->set_back) state = TM_COPY_MOVED;
  }
  if (state == TM_COPY_MOVED && c->set_back && (status == TM_OK || status == TM_ECORRUPT))
    status = set_back(c, lane, &state, err);
  if (status == TM_OK && lost) add_digest(c, lane->digests.whole);
  if (status == TM_OK && state == TM_COPY_MOVED) status = moved(lane, err);
  *open = status == TM_OK && state == TM_COPY_ROWS;
  return status;
}

/* What happened to a conversation of which nothing is left to do. Its status, if it ends all. */
static tm_status finish(tm_copy *c, tm_copy_lane *lane, tm_status status, tm_error *err) {
  tm_head now;
  if (status == TM_ENOTFOUND &&
      c->from.backend->head(c->from.conn, tm__slice(lane->head.id), &now, NULL) == TM_ENOTFOUND)
    status = lane->revision != 0 && c->mirror
                 ? tm__copy_remove(c, tm__slice(lane->head.id), lane->revision, err)
                 : TM_OK; /* purged meanwhile: there is nothing to copy */
  if (status != TM_OK && !tm__copy_is_local(status)) return status;
  c->counts.conversations++;
  if (status == TM_OK && lane->changed) c->counts.copied++;
  if (status != TM_OK) tm__copy_failed(c, lane->head.id, err);
  tm__copy_lane_free(lane);
  return TM_OK;
}

/* ---- all of them ---- */

static size_t buffered(const run *r) {
  size_t bytes = 0;
  for (size_t i = 0; i < r->count; i++)
    bytes += tm__copy_lane_bytes(&r->lanes[i]);
  return bytes;
}

static tm_status fill(run *r, tm_error *err) {
  tm_copy *c = r->copy;
  tm_status status = TM_OK;
  while (status == TM_OK && !r->over && r->count < LANES && buffered(r) < BUFFER_BYTES) {
    if (r->page_at == r->page_count) {
      status = next_page(r, err);
      continue;
    }
    tm_copy_lane *lane = &r->lanes[r->count];
    bool open = false;
    lane->head = r->page[r->page_at++];
    status = tm__copy_pause(c, err);
    if (status != TM_OK) return status;
    status = open_lane(c, lane, &open, err);
    if (open) {
      r->count++;
    } else {
      status = finish(c, lane, status, err);
    }
  }
  return status;
}

/* Lanes that are over give their places to those behind them. */
static void compact(run *r) {
  size_t kept = 0;
  for (size_t i = 0; i < r->count; i++) {
    if (r->lanes[i].over) continue;
    if (i != kept) r->lanes[kept] = r->lanes[i];
    kept++;
  }
  for (size_t i = kept; i < r->count; i++)
    r->lanes[i] = (tm_copy_lane){.revision = 0};
  r->count = kept;
}

static tm_status end_lane(run *r, size_t at, tm_status status, tm_error *err) {
  status = finish(r->copy, &r->lanes[at], status, err);
  r->lanes[at].over = true;
  return status;
}

/* Up to `most` commits of a lane. */
static tm_status prepare_lane(run *r, size_t at, size_t most, tm_error *err) {
  bool made = true;
  for (size_t n = 0; made && n < most && r->slot_count < GROUP; n++) {
    slot *s = &r->slots[r->slot_count];
    tm_status status = tm__copy_lane_next(r->copy, &r->lanes[at], &s->commit, &s->row, &made, err);
    if (status != TM_OK) return end_lane(r, at, status, err);
    if (!made) return TM_OK;
    s->lane = at;
    r->slot_count++;
    if (s->commit.row == NULL) return TM_OK; /* the head alone is the last */
  }
  return TM_OK;
}

static tm_status prepare(run *r, tm_error *err) {
  tm_status status = TM_OK;
  size_t share = r->copy->to.backend->takes_tip ? GROUP / r->count : 1;
  r->slot_count = 0;
  for (size_t i = 0; status == TM_OK && i < r->count; i++)
    status = prepare_lane(r, i, share, err);
  return status;
}

static tm_status refused(const tm_copy *c, const tm_copy_lane *lane, const tm_commit *item,
                         tm_error *err) {
  const char *id = lane->head.id;
  tm_start_key key;
  if (item->status != TM_ECONFLICT)
    return tm__fail(err, item->status, "copy.refused",
                    "the target refuses revision %lld of conversation %s (%s)",
                    (long long)item->head.revision, id, tm_status_name(item->status));
  if (item->start_key != 0 &&
      c->to.backend->start_key(c->to.conn, tm__slice(lane->head.tenant), item->start_key, &key,
                               NULL) == TM_OK &&
      strcmp(key.conversation, id) != 0)
    return tm__fail(err, TM_ECONFLICT, "copy.key_taken",
                    "conversation %s was started with the Idempotency-Key that started %s in the "
                    "target: run the same again in 24 hours",
                    id, key.conversation);
  return tm__fail(err, TM_ECONFLICT, "copy.busy",
                  "conversation %s was written in the target by somebody else meanwhile: let only "
                  "one copy run, then run it again",
                  id);
}

/* What became of a commit; those behind one that was refused were refused as well. */
static tm_status settle(run *r, const slot *s, tm_error *err) {
  tm_copy *c = r->copy;
  tm_copy_lane *lane = &r->lanes[s->lane];
  bool done = false;
  if (lane->over) return TM_OK;
  if (s->commit.status != TM_OK)
    return end_lane(r, s->lane, refused(c, lane, &s->commit, err), err);
  if (s->commit.row != NULL) c->counts.rows++;
  tm__copy_lane_advance(lane, &s->commit, &done);
  return done ? end_lane(r, s->lane, tm__copy_lane_verify(c, lane, err), err) : TM_OK;
}

static tm_status commit_round(run *r, tm_error *err) {
  tm_commit *items[GROUP];
  tm_copy *c = r->copy;
  tm_status status = prepare(r, err);
  if (status == TM_OK) status = tm__copy_pause(c, err);
  for (size_t i = 0; i < r->slot_count; i++)
    items[i] = &r->slots[i].commit;
  if (status == TM_OK && r->slot_count > 0)
    status = c->to.backend->commit(c->to.conn, items, r->slot_count, err);
  for (size_t i = 0; status == TM_OK && i < r->slot_count; i++)
    status = settle(r, &r->slots[i], err);
  compact(r);
  return status;
}

static tm_status copy_conversations(tm_copy *c, tm_error *err) {
  run *r = calloc(1, sizeof(*r));
  if (r == NULL) return tm__fail_memory(err, "copying");
  r->copy = c;
  tm_status status;
  do {
    status = fill(r, err);
    if (status == TM_OK && r->count > 0) status = commit_round(r, err);
  } while (status == TM_OK && (r->count > 0 || !r->over));
  for (size_t i = 0; i < LANES; i++)
    tm__copy_lane_free(&r->lanes[i]);
  free(r);
  return status;
}

/* Scripts first, so that what is served early finds them, and last: some came meanwhile. */
tm_status tm__store_copy(tm_copy *c, tm_error *err) {
  tm_error local;
  int64_t lost = 0;
  tm_status status = tm__copy_count(c, &local);
  if (status == TM_OK) status = tm__copy_scripts(c, &local);
  if (status == TM_OK) status = copy_conversations(c, &local);
  if (status == TM_OK) status = tm__copy_sessions(c, &local);
  if (status == TM_OK) status = tm__copy_events(c, &local);
  if (status == TM_OK) status = tm__copy_scripts(c, &local);
  if (status == TM_OK) status = tm__copy_unreadable(c, &lost, &local);
  if (status == TM_OK) status = tm__copy_notes(c, &local);
  if (status == TM_OK && !c->mirror && lost == 0) status = tm__copy_delivered(c, &local);
  if (status == TM_OK && c->mirror) status = tm__copy_mirror(c, lost > 0, &local);
  if (status != TM_OK && err != NULL) *err = local;
  return status;
}
