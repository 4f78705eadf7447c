/* copy_lane.c - one conversation: the segments of its rows, and the commits that replay them. */
#include "keeping/copy_lane.h"

#include <stdlib.h>

#define PAUSE_ROWS 1024 /* between two questions whether to go on */

typedef struct scan { /* a walk over the source that fills the lane */
  const tm_copy *copy;
  tm_copy_lane *lane;
  const tm_row *top; /* the target's newest row: what it must be like in the source; NULL: none */
  int64_t seen;
  int64_t above; /* revision of the oldest row above the floor; 0: none */
  bool same;     /* the source has the target's newest row */
  bool first;    /* the first walk: notes the segments */
  bool no_memory, stopped;
} scan;

static tm_status stop(tm_error *err) {
  return tm__fail(err, TM_ECANCELLED, "copy.stopped",
                  "stopped; what has been copied is good: run the same again to go on");
}

tm_status tm__copy_pause(const tm_copy *c, tm_error *err) {
  return c->go_on == NULL || c->go_on(c->ud, &c->counts) ? TM_OK : stop(err);
}

/* ---- segments ---- */

static bool add_segment(tm_copy_lane *lane, int64_t id) {
  if (lane->segment_count == lane->segment_cap) {
    size_t cap = lane->segment_cap == 0 ? 4 : lane->segment_cap * 2;
    int64_t *segments = realloc(lane->segments, cap * sizeof(*segments));
    if (segments == NULL) return false;
    lane->segments = segments;
    lane->segment_cap = cap;
  }
  lane->segments[lane->segment_count++] = id;
  return true;
}

bool tm__copy_lane_keep(tm_copy_lane *lane, const tm_row *row) {
  if (lane->row_count == lane->row_cap) {
    size_t cap = lane->row_cap == 0 ? 16 : lane->row_cap * 2;
    tm_copy_row *rows = realloc(lane->rows, cap * sizeof(*rows));
    if (rows == NULL) return false;
    lane->rows = rows;
    lane->row_cap = cap;
  }
  lane->rows[lane->row_count++] = (tm_copy_row){*row, lane->bodies.len};
  tm__buf_slice(&lane->bodies, row->body);
  return tm__buf_ok(&lane->bodies);
}

void tm__copy_lane_clear(tm_copy_lane *lane) {
  lane->row_count = 0;
  if (lane->bodies.cap > 4 * TM_COPY_SEGMENT_BYTES) /* one that was far larger than others */
    tm__buf_free(&lane->bodies);
  tm__buf_clear(&lane->bodies);
}

bool tm__copy_lane_is_full(const tm_copy_lane *lane) {
  return lane->row_count >= TM_COPY_SEGMENT_ROWS || lane->bodies.len >= TM_COPY_SEGMENT_BYTES;
}

static bool is_same_row(const tm_row *a, const tm_row *b) {
  return a->revision == b->revision && a->kind == b->kind && a->created == b->created &&
         a->checkpoint == b->checkpoint;
}

static tm_status keep(scan *s, const tm_row *row) {
  tm_copy_lane *lane = s->lane;
  if (s->first && (lane->segment_count == 0 || tm__copy_lane_is_full(lane))) {
    tm__copy_lane_clear(lane);
    s->no_memory = !add_segment(lane, row->id);
  }
  s->no_memory = s->no_memory || !tm__copy_lane_keep(lane, row);
  s->above = row->revision;
  return s->no_memory ? TM_ENOMEM : TM_OK;
}

static bool is_stopped(scan *s) {
  s->stopped = ++s->seen % PAUSE_ROWS == 0 && tm__copy_pause(s->copy, NULL) != TM_OK;
  return s->stopped;
}

static tm_status on_row(void *ud, const tm_row *row) {
  scan *s = ud;
  if (is_stopped(s)) return TM_ECANCELLED;
  if (!s->first && row->revision <= s->lane->floor) return TM_ECANCELLED;
  if (row->revision > s->lane->floor) return keep(s, row);
  if (row->revision == s->lane->floor && s->top != NULL) s->same = is_same_row(row, s->top);
  return TM_OK;
}

static tm_status result(const scan *s, tm_status status, tm_error *err) {
  if (s->no_memory) return tm__fail_memory(err, "the rows of a conversation");
  if (s->stopped) return stop(err);
  return status == TM_ECANCELLED ? TM_OK : status;
}

/* The last of the segments into memory. */
static tm_status load_segment(const tm_copy *c, tm_copy_lane *lane, tm_error *err) {
  scan s = {.copy = c, .lane = lane};
  size_t last = lane->segment_count - 1;
  tm__copy_lane_clear(lane);
  tm_status status = c->from.backend->chain(c->from.conn, tm__slice(lane->head.id),
                                            lane->segments[last], false, on_row, &s, err);
  status = result(&s, status, err);
  if (status != TM_OK || s.above != 0) return status;
  return tm__fail(err, TM_ENOTFOUND, "store.not_found", "conversation %s was purged meanwhile",
                  lane->head.id);
}

/* ---- what the target has ---- */

typedef struct top {
  tm_row row;
  bool found;
} top;

static tm_status on_top(void *ud, const tm_row *row) {
  top *t = ud;
  *t = (top){*row, true};
  return TM_ECANCELLED;
}

static tm_status look_at_target(const tm_copy *c, tm_copy_lane *lane, tm_head *there, top *t,
                                tm_error *err) {
  const tm_store_backend *b = c->to.backend;
  tm_status status = b->head(c->to.conn, tm__slice(lane->head.id), there, err);
  lane->revision = lane->tip = lane->floor = 0;
  if (status == TM_ENOTFOUND) return TM_OK;
  if (status != TM_OK) return status;
  lane->revision = there->revision;
  lane->tip = there->tip;
  if (there->tip == 0) return TM_OK;
  status = b->chain(c->to.conn, tm__slice(there->id), there->tip, false, on_top, t, err);
  if (!t->found) return status;
  lane->floor = t->row.revision;
  return TM_OK;
}

typedef struct mapping {
  tm_copy_refs *refs;
  size_t at;
} mapping;

static tm_status on_copied(void *ud, const tm_row *row) {
  mapping *m = ud;
  while (m->at < m->refs->count && m->refs->items[m->at].revision > row->revision)
    m->at++;
  if (m->at == m->refs->count) return TM_ECANCELLED;
  if (m->refs->items[m->at].revision == row->revision) m->refs->items[m->at].to = row->id;
  return TM_OK;
}

/* The ids that rows which are there already have in the target. */
static tm_status map_refs(const tm_copy *c, tm_copy_lane *lane, tm_error *err) {
  mapping m = {.refs = &lane->refs};
  if (lane->tip == 0 || lane->refs.count == 0) return TM_OK;
  tm_status status = c->to.backend->chain(c->to.conn, tm__slice(lane->head.id), lane->tip, false,
                                          on_copied, &m, err);
  return status == TM_ECANCELLED ? TM_OK : status;
}

static tm_status find_start_key(const tm_copy *c, tm_copy_lane *lane, tm_error *err) {
  tm_status status = c->from.backend->key_of(c->from.conn, tm__slice(lane->head.id),
                                             &lane->start_key, &lane->start, err);
  if (status != TM_ENOTFOUND) return status;
  lane->start_key = 0;
  return TM_OK;
}

static tm_status on_session(void *ud, const tm_session *s) {
  tm_copy_lane *lane = ud;
  if (s->ended != 0) return TM_OK; /* a commit would open it; it comes with the sessions */
  tm_buf *b = &lane->session_text;
  lane->session = *s;
  tm__buf_clear(b);
  tm__buf_slice(b, s->tenant);
  tm__buf_slice(b, s->id);
  tm__buf_slice(b, s->user_id);
  tm__buf_slice(b, s->metadata);
  if (!tm__buf_ok(b)) return TM_ENOMEM;
  tm_slice *const texts[] = {&lane->session.tenant, &lane->session.id, &lane->session.user_id,
                             &lane->session.metadata};
  const char *at = b->ptr;
  for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
    if (texts[i]->ptr == NULL) continue;
    texts[i]->ptr = at != NULL ? at : "";
    at += texts[i]->len;
  }
  lane->has_session = true;
  return TM_OK;
}

static tm_status find_session(const tm_copy *c, tm_copy_lane *lane, tm_error *err) {
  tm_status status = c->from.backend->session(c->from.conn, tm__slice(lane->head.tenant),
                                              tm__slice(lane->head.session), on_session, lane, err);
  if (status == TM_ENOMEM) return tm__fail_memory(err, "a session");
  return status == TM_ENOTFOUND || status == TM_ECORRUPT ? TM_OK : status; /* that one is told */
}

/* What a list has only the id of is read once more: that says why. */
static tm_status read_source(const tm_copy *c, tm_copy_lane *lane, tm_error *err) {
  tm_head now;
  if (!tm__head_is_damaged(&lane->head)) return TM_OK;
  tm_status status = c->from.backend->head(c->from.conn, tm__slice(lane->head.id), &now, err);
  if (status == TM_OK) lane->head = now;
  return status;
}

/* The target's cannot be read: it may go if the source's can. */
static tm_status judge_damaged(const tm_copy *c, const tm_copy_lane *lane, tm_copy_state *out,
                               tm_error *err) {
  tm_copy_digests d;
  tm_error why;
  tm_status status = tm__copy_walk(&c->from, &lane->head, NULL, NULL, &d, NULL, &why);
  if (status == TM_OK) {
    *out = TM_COPY_MOVED;
    return TM_ECORRUPT;
  }
  *err = why;
  return status;
}

/* The conversation in the target is a beginning of the source's, or has gone its own way. */
static tm_copy_state compare(const tm_copy_lane *lane, const tm_head *there, const scan *s) {
  bool mine = strcmp(there->claim, TM_COPIER) == 0;
  if (lane->revision == 0) return TM_COPY_ROWS;
  if (lane->floor != 0 && !s->same) return TM_COPY_MOVED;
  if (s->above != 0 && lane->revision >= s->above) return TM_COPY_MOVED;
  if (lane->revision > lane->head.revision) return TM_COPY_MOVED;
  if (lane->revision < lane->head.revision) return TM_COPY_ROWS;
  return mine ? TM_COPY_MOVED : TM_COPY_THERE;
}

tm_status tm__copy_lane_open(const tm_copy *c, tm_copy_lane *lane, tm_copy_state *out,
                             tm_error *err) {
  tm_head there = {.revision = 0};
  top t = {.found = false};
  tm_status status = read_source(c, lane, err);
  if (status != TM_OK) return status;
  if (strcmp(lane->head.claim, TM_COPIER) == 0)
    return tm__fail(err, TM_ECORRUPT, "copy.unfinished",
                    "conversation %s has itself been copied in part only: finish that copy first",
                    lane->head.id);
  status = look_at_target(c, lane, &there, &t, err);
  if (status == TM_ECORRUPT) return judge_damaged(c, lane, out, err);
  if (status != TM_OK) return status;
  scan s = {.copy = c, .lane = lane, .top = t.found ? &t.row : NULL, .first = true};
  status = tm__copy_walk(&c->from, &lane->head, on_row, &s, &lane->digests, &lane->refs, err);
  status = result(&s, status, err);
  if (status == TM_OK) status = find_start_key(c, lane, err);
  if (status == TM_OK && lane->revision == 0) status = find_session(c, lane, err);
  *out = compare(lane, &there, &s);
  if (status != TM_OK || *out != TM_COPY_ROWS) return status;
  status = tm__copy_newest_event(c, lane->head.id, &lane->newest_event, err);
  return status == TM_OK ? map_refs(c, lane, err) : status;
}

/* ---- commits ---- */

static int64_t in_target(const tm_copy_lane *lane, int64_t row) {
  const tm_copy_ref *ref = tm__copy_ref(&lane->refs, row);
  return ref != NULL ? ref->to : 0;
}

/* The head as it will be, or as it is while rows are missing. `last`: the id of the row that is
 * appended with it, in the source. */
static void make_head(const tm_copy_lane *lane, tm_head *out, int64_t last, bool complete) {
  *out = lane->head;
  if (!complete) {
    out->status = TM_ACTIVE;
    out->wake_at = out->ended = 0;
    memset(out->recent, 0, sizeof(out->recent));
    memcpy(out->claim, TM_COPIER, sizeof(out->claim));
    return;
  }
  for (size_t i = 0; i < TM_RECENT_KEYS; i++) {
    tm_recent_key *k = &out->recent[i];
    if (k->key == 0) continue;
    k->row = k->row == last && last != 0 ? TM_THIS_ROW : in_target(lane, k->row);
  }
}

static bool is_known(const tm_copy_lane *lane, int64_t row) {
  const tm_copy_ref *ref = row != 0 ? tm__copy_ref(&lane->refs, row) : NULL;
  return ref == NULL || ref->to != 0;
}

/* Does the target know everything that this row, or the head with it, means? */
static bool can_follow(const tm_copy_lane *lane, const tm_row *row, bool complete) {
  if (!is_known(lane, row->base)) return false;
  for (size_t i = 0; complete && i < TM_RECENT_KEYS; i++) {
    const tm_recent_key *k = &lane->head.recent[i];
    if (k->key != 0 && k->row != row->id && !is_known(lane, k->row)) return false;
  }
  return true;
}

static void make_first(const tm_copy_lane *lane, tm_commit *item) {
  if (lane->has_session) item->session = &lane->session;
  if (lane->start_key == 0) return;
  item->start_key = lane->start_key;
  item->start_body = lane->start.body;
}

/* They are kept for one row at a time: *made false, it must come as the first of the next group. */
static tm_status add_events(const tm_copy *c, tm_copy_lane *lane, tm_commit *item, bool *made,
                            tm_error *err) {
  int64_t revision = item->head.revision;
  if (lane->prepared > 0 && lane->told.count > 0) *made = false;
  if (!*made || revision > lane->newest_event) return TM_OK;
  tm_status status = tm__copy_told_read(&lane->told, c, lane->head.id, revision, err);
  if (status != TM_OK || lane->told.count == 0) return status;
  *made = lane->prepared == 0;
  item->events = lane->told.items;
  item->event_count = lane->told.count;
  return TM_OK;
}

tm_status tm__copy_lane_next(const tm_copy *c, tm_copy_lane *lane, tm_commit *item, tm_row *row,
                             bool *made, tm_error *err) {
  if (lane->row_count == 0 && lane->segment_count > 0) {
    tm_status status = load_segment(c, lane, err);
    if (status != TM_OK) return status;
  }
  size_t left = lane->row_count - lane->prepared;
  *made = left > 0 || lane->prepared == 0;
  if (!*made) return TM_OK;
  *item = (tm_commit){.expect_revision = lane->revision, .replay = true};
  if (lane->prepared > 0) item->expect_revision = lane->rows[left].row.revision;
  if (item->expect_revision == 0) make_first(lane, item);
  if (left == 0) {
    make_head(lane, &item->head, 0, true);
    return TM_OK;
  }
  const tm_copy_row *from = &lane->rows[left - 1];
  bool complete =
      left == 1 && lane->segment_count == 1 && from->row.revision == lane->head.revision;
  *made = lane->prepared == 0 || can_follow(lane, &from->row, complete);
  if (!*made) return TM_OK;
  *row = from->row;
  row->id = 0;
  row->parent = lane->prepared > 0 ? TM_TIP : lane->tip;
  row->base = from->row.base != 0 ? in_target(lane, from->row.base) : 0;
  row->body.ptr = tm__buf_view(&lane->bodies).ptr + from->body;
  item->row = row;
  item->start_answer = lane->start_key != 0 && from->row.id == lane->start.row;
  make_head(lane, &item->head, from->row.id, complete);
  item->head.revision = from->row.revision;
  if (lane->prepared == 0) lane->told.count = 0;
  tm_status status = add_events(c, lane, item, made, err);
  if (status == TM_OK && *made) lane->prepared++;
  return status;
}

void tm__copy_lane_advance(tm_copy_lane *lane, const tm_commit *item, bool *done) {
  lane->revision = item->head.revision;
  lane->changed = true;
  if (item->row != NULL) {
    tm_copy_ref *ref = tm__copy_ref(&lane->refs, lane->rows[lane->row_count - 1].row.id);
    if (ref != NULL) ref->to = item->row_id;
    lane->tip = item->row_id;
    lane->floor = lane->revision;
    lane->row_count--;
    lane->prepared--;
    if (lane->row_count == 0) lane->segment_count--;
  }
  *done = lane->row_count == 0 && lane->segment_count == 0 && lane->revision == lane->head.revision;
}

/* ---- afterwards ---- */

static tm_status on_checked(void *ud, const tm_row *row) {
  (void)row;
  return is_stopped(ud) ? TM_ECANCELLED : TM_OK;
}

static tm_status look_again(const tm_copy *c, const tm_copy_lane *lane, tm_head *there,
                            tm_copy_digests *out, tm_error *err) {
  tm_status status = c->to.backend->head(c->to.conn, tm__slice(lane->head.id), there, err);
  if (status != TM_OK) return status;
  scan s = {.copy = c};
  status = tm__copy_walk(&c->to, there, on_checked, &s, out, NULL, err);
  return result(&s, status, err);
}

static bool is_same(const uint8_t *a, const uint8_t *b) {
  return memcmp(a, b, TM_COPY_DIGEST) == 0;
}

tm_status tm__copy_lane_verify(tm_copy *c, tm_copy_lane *lane, tm_error *err) {
  tm_copy_digests found;
  tm_head there;
  tm_status status = look_again(c, lane, &there, &found, err);
  if (status == TM_OK && !is_same(found.whole, lane->digests.whole) &&
      is_same(found.shape, lane->digests.shape)) {
    status = tm__copy_bodies(c, lane, there.tip, err);
    if (status == TM_OK) status = look_again(c, lane, &there, &found, err);
  }
  if (status == TM_OK && is_same(found.whole, lane->digests.whole)) return TM_OK;
  if (status != TM_OK && status != TM_ENOTFOUND) return status;
  return tm__fail(err, TM_ECORRUPT, "copy.differs",
                  "conversation %s is not the same in the target: it was changed or damaged there; "
                  "--force replaces it",
                  lane->head.id);
}

size_t tm__copy_lane_bytes(const tm_copy_lane *lane) {
  return lane->bodies.cap + lane->row_cap * sizeof(*lane->rows) +
         lane->segment_cap * sizeof(*lane->segments) + lane->refs.cap * sizeof(*lane->refs.items);
}

void tm__copy_lane_free(tm_copy_lane *lane) {
  free(lane->segments);
  free(lane->rows);
  tm__buf_free(&lane->bodies);
  tm__buf_free(&lane->session_text);
  tm__copy_told_free(&lane->told);
  tm__copy_refs_free(&lane->refs);
  *lane = (tm_copy_lane){.revision = 0};
}
