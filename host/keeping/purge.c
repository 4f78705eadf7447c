/* purge.c - one pass over the stores that removes what is due: ended conversations, idle sessions
 * with theirs, events that were given up, then what hung on them. Each piece is small; what a piece
 * found on a reader is looked at once more by the piece on the writer that acts, so that what has
 * changed meanwhile stays. */
#include "keeping/purge.h"

#include <limits.h>
#include <string.h>

#include "keeping/session.h"
#include "keeping/untold.h"

#define COUNT_MAX  1000000 /* conversations that a dry run counts */
#define SWEEP_SIZE 256
#define DEAD_PAGE  256   /* events that a piece looks at */
#define LATER_MS   60000 /* a session that cannot go yet */

typedef enum verdict { STAYS, ENDS, GOES, MOVES } verdict;

/* ---- where a pass stands ---- */

static const tm_store_backend *backend_of(const tm_purge *p, const tm_store_access *a) {
  return p->in_memory ? a->memory_backend : a->backend;
}

static tm_store_conn *conn_of(const tm_purge *p, const tm_store_access *a) {
  return p->in_memory ? a->memory_conn : a->conn;
}

static void reset(tm_purge *p) {
  p->acts = false;
  p->count = 0;
  p->at = 0;
  p->last_page = false;
  p->before_created = 0;
  p->before = (tm_session_key){0};
  p->before_event = (tm_outgoing){.index = 0};
  p->in_memory = false;
}

/* The same of the store in memory, or the next stage. */
static void next_part(tm_purge *p) {
  bool both = p->in_memory || p->tenant[0] != '\0';
  reset(p);
  p->in_memory = !both;
  if (!both) return;
  p->stage++;
  bool no_events = p->sessions_only || p->keep->dead_event_ms == 0;
  if (p->stage == TM_PURGE_EVENTS && no_events) p->stage++;
  bool all_told = p->dry || p->sessions_only || p->keep->untold_ms == 0;
  if (p->stage == TM_PURGE_UNTOLD && all_told) p->stage++;
  if (p->stage == TM_PURGE_SWEEP && (p->dry || p->sessions_only)) p->stage++;
  if (p->stage == TM_PURGE_TENANT && !p->isolated) p->stage = TM_PURGE_DONE;
}

bool tm__purge_writes(const tm_purge *p) {
  return p->acts || p->stage == TM_PURGE_SWEEP;
}

const char *tm__purge_tenant(const tm_purge *p) {
  return p->stage == TM_PURGE_TENANT ? "" : p->tenant;
}

void tm__purge_skip(tm_purge *p) {
  reset(p);
  p->stage = TM_PURGE_TENANT;
}

/* ---- conversations ---- */

static tm_status on_head(void *ud, const tm_head *h) {
  tm_purge *p = ud;
  if (p->head_count < TM_PURGE_BATCH) p->heads[p->head_count++] = *h;
  return TM_OK;
}

static tm_status on_counted(void *ud, const tm_head *h) {
  tm_purge *p = ud;
  (void)h;
  p->conversations++;
  return TM_OK;
}

static tm_status find_ended(tm_purge *p, const tm_store_access *a, tm_error *err) {
  int64_t before = p->now - p->keep->conversation_ms;
  if (p->dry) {
    tm_status status = tm__access_ended(a, p->in_memory, before, COUNT_MAX, on_counted, p, err);
    next_part(p);
    return status;
  }
  p->head_count = 0;
  tm_status status = tm__access_ended(a, p->in_memory, before, TM_PURGE_BATCH, on_head, p, err);
  p->acts = status == TM_OK && p->head_count > 0;
  if (status == TM_OK && !p->acts) next_part(p);
  return status;
}

/* TM_OK also when it was changed meanwhile, is gone, or has events that wait. */
static tm_status purge_one(tm_purge *p, const tm_store_access *a, const tm_head *h, tm_error *err) {
  tm_status status =
      backend_of(p, a)->purge(conn_of(p, a), tm__slice(h->id), h->revision, false, err);
  if (status == TM_OK) {
    memcpy(p->purged[p->purged_count++], h->id, sizeof(h->id));
    p->conversations++;
  }
  return status == TM_ECONFLICT || status == TM_ENOTFOUND ? TM_OK : status;
}

static tm_status purge_found(tm_purge *p, const tm_store_access *a, tm_error *err) {
  tm_status status = TM_OK;
  for (size_t i = 0; status == TM_OK && i < p->head_count; i++)
    status = purge_one(p, a, &p->heads[i], err);
  p->acts = false;
  if (p->purged_count == 0) next_part(p); /* all of them moved: the next pass sees */
  return status;
}

/* ---- one session ---- */

static bool is_due(int64_t since, int64_t after, int64_t now) {
  return after > 0 && since <= now - after;
}

/* A time that was altered may be any. */
static int64_t later(int64_t since, int64_t after) {
  return since > INT64_MAX - after ? INT64_MAX : since + after;
}

static int64_t earlier(int64_t a, int64_t b) {
  return a == 0 || (b != 0 && b < a) ? b : a;
}

static tm_session_rules rules_of(const tm_purge *p, const char *system) {
  tm_bundle *b = p->registry == NULL || system[0] == '\0'
                     ? NULL
                     : tm__registry_current(p->registry, tm__slice(system));
  tm_session_rules r = tm__session_rules(&p->keep->sessions, b);
  tm__bundle_unref(b);
  return r;
}

/* When a session without open conversations is due for something. */
static int64_t next_look(const tm_purge *p, const tm_session *s, const tm_session_rules *r,
                         int64_t since) {
  int64_t ttl = p->keep->session_ms > 0 ? later(since, p->keep->session_ms) : 0;
  int64_t idle = s->ended == 0 && r->idle_ms > 0 ? later(since, r->idle_ms) : 0;
  int64_t at = earlier(ttl, idle);
  return at != 0 && at < p->now + r->look_ms ? p->now + r->look_ms : at;
}

/* What becomes of the session; `s` becomes what is to be stored of it. */
static verdict judge(const tm_purge *p, tm_session *s, const tm_session_look *look) {
  const tm_session before = *s;
  tm_session_rules r = rules_of(p, look->system);
  int64_t last = look->last > s->created ? look->last : s->created;
  int64_t since = s->ended > 0 ? s->ended : last;
  bool unarmed = s->look_at <= p->now;
  if (look->open > 0) {
    s->ended = 0;
    if (unarmed) s->look_at = tm__session_first_look(p->keep, &r, p->now);
  } else if (is_due(since, p->keep->session_ms, p->now)) {
    return GOES;
  } else if (s->ended == 0 && is_due(last, r.idle_ms, p->now)) {
    s->ended = p->now;
    s->look_at = next_look(p, s, &r, p->now);
    return ENDS;
  } else {
    int64_t at = next_look(p, s, &r, since);
    if (unarmed || (at != 0 && at < s->look_at)) s->look_at = at;
  }
  return s->ended != before.ended || s->look_at != before.look_at ? MOVES : STAYS;
}

/* TM_OK also when it was changed meanwhile. */
static tm_status move_session(const tm_purge *p, const tm_store_access *a, tm_kept_session *k,
                              tm_error *err) {
  tm_status status = tm__session_put(a, p->in_memory, k, err);
  return status == TM_ECONFLICT ? TM_OK : status;
}

static tm_status end_session(tm_purge *p, const tm_store_access *a, tm_kept_session *k,
                             tm_error *err) {
  tm_status status = tm__session_put_end(a, p->in_memory, k, err);
  p->sessions_ended += status == TM_OK;
  return status == TM_ECONFLICT ? TM_OK : status;
}

/* *more: the next piece goes on with it. */
static tm_status remove_session(tm_purge *p, const tm_store_access *a, tm_kept_session *k,
                                bool *more, tm_error *err) {
  size_t room = TM_PURGE_BATCH - p->purged_count, before = p->purged_count;
  tm_list_filter f = {.tenant = k->s.tenant, .session = k->s.id, .status = -1, .limit = room};
  p->head_count = 0;
  tm_status status = tm__access_list(a, p->in_memory, &f, on_head, p, err);
  for (size_t i = 0; status == TM_OK && i < p->head_count; i++) {
    const tm_head *h = &p->heads[i];
    if (h->ended > 0 && !tm__head_is_damaged(h)) status = purge_one(p, a, &p->heads[i], err);
  }
  *more = p->head_count == room && p->purged_count - before == room;
  if (status != TM_OK || *more) return status;
  status = backend_of(p, a)->session_drop(conn_of(p, a), k->s.tenant, k->s.id, err);
  p->sessions += status == TM_OK;
  if (status != TM_ECONFLICT) return status == TM_ENOTFOUND ? TM_OK : status;
  k->s.look_at = p->now + LATER_MS; /* a conversation is open again, or waits for its events */
  return move_session(p, a, k, err);
}

static tm_status judge_stored(tm_purge *p, const tm_store_access *a, tm_kept_session *k,
                              verdict *out, tm_error *err) {
  tm_session_look look;
  tm_slice tenant = tm__slice(k->tenant), id = tm__slice(k->id);
  *out = STAYS;
  tm_status status = tm__session_fetch(k, a, p->in_memory, err);
  if (status == TM_ENOTFOUND || status == TM_ECORRUPT) return TM_OK; /* seen by the next pass */
  if (status == TM_OK) status = tm__session_look(&look, a, tenant, id, 1, false, err);
  if (status == TM_OK) *out = judge(p, &k->s, &look);
  return status;
}

static tm_kept_session kept_of(const tm_session_key *key) {
  tm_kept_session k = {0};
  memcpy(k.tenant, key->tenant, sizeof(k.tenant));
  memcpy(k.id, key->id, sizeof(k.id));
  return k;
}

static tm_status act_on(tm_purge *p, const tm_store_access *a, const tm_session_key *key,
                        bool *more, tm_error *err) {
  tm_kept_session k = kept_of(key);
  verdict v;
  tm_status status = judge_stored(p, a, &k, &v, err);
  *more = false;
  if (status == TM_OK && v == MOVES) status = move_session(p, a, &k, err);
  if (status == TM_OK && v == ENDS) status = end_session(p, a, &k, err);
  if (status == TM_OK && v == GOES) status = remove_session(p, a, &k, more, err);
  tm__session_release(&k);
  return status;
}

/* ---- sessions, page by page ---- */

static tm_status on_key(void *ud, const tm_session *s) {
  tm_purge *p = ud;
  p->seen++;
  p->before_created = s->created;
  (void)tm__copy(p->before.tenant, sizeof(p->before.tenant), s->tenant);
  (void)tm__copy(p->before.id, sizeof(p->before.id), s->id);
  if (s->damaged)
    tm__access_name_session(p->access, s);
  else if (p->count < TM_PURGE_BATCH)
    p->keys[p->count++] = p->before;
  return TM_OK;
}

static bool is_same(const tm_session_key *a, const tm_session_key *b) {
  return strcmp(a->tenant, b->tenant) == 0 && strcmp(a->id, b->id) == 0;
}

static tm_status find_sessions(tm_purge *p, const tm_store_access *a, tm_error *err) {
  tm_session_filter f = {.ended = -1, .limit = TM_PURGE_BATCH};
  const tm_session_key first = p->keys[0], before = p->before;
  bool again = before.id[0] != '\0';
  if (again) {
    f.before_created = p->before_created;
    f.before_id = tm__slice(before.id);
    f.before_tenant = tm__slice(before.tenant);
  }
  p->count = p->seen = p->at = 0;
  p->access = a;
  tm_status status =
      p->all_sessions
          ? backend_of(p, a)->sessions(conn_of(p, a), &f, on_key, p, err)
          : backend_of(p, a)->sessions_due(conn_of(p, a), p->now, TM_PURGE_BATCH, on_key, p, err);
  p->last_page = (p->all_sessions ? p->seen : p->count) < TM_PURGE_BATCH;
  bool stays = !p->all_sessions && again && p->count > 0 && is_same(&first, &p->keys[0]);
  p->last_page = p->last_page || stays;
  return status;
}

static tm_status on_waiting(void *ud, const tm_outgoing *event) {
  tm_outgoing *out = ud;
  *out = *event;
  return TM_OK;
}

/* Is the conversation kept by an event? */
static tm_status waits(const tm_purge *p, const tm_store_access *a, const tm_head *h, bool *out,
                       tm_error *err) {
  tm_outgoing newest = {.index = 0};
  tm_outgoing_filter f = {
      .before_revision = INT64_MAX, .before_index = INT_MAX, .dead = 0, .limit = 1};
  memcpy(f.before, h->id, sizeof(f.before));
  tm_status status = backend_of(p, a)->outbox_list(conn_of(p, a), &f, on_waiting, &newest, err);
  *out = strcmp(newest.conversation, h->id) == 0;
  return status;
}

/* The conversations that would go with a session, but for those that would go anyway; *all: nothing
 * keeps it. */
static tm_status count_with(tm_purge *p, const tm_store_access *a, const tm_kept_session *k,
                            bool *all, tm_error *err) {
  tm_list_filter f = {
      .tenant = k->s.tenant, .session = k->s.id, .status = -1, .limit = TM_PURGE_BATCH};
  tm_status status = TM_OK;
  p->head_count = TM_PURGE_BATCH;
  *all = true;
  while (status == TM_OK && p->head_count == TM_PURGE_BATCH) {
    p->head_count = 0;
    status = tm__access_list(a, p->in_memory, &f, on_head, p, err);
    for (size_t i = 0; status == TM_OK && i < p->head_count; i++) {
      bool stays = tm__head_is_damaged(&p->heads[i]);
      if (!stays) status = waits(p, a, &p->heads[i], &stays, err);
      p->conversations += !stays && !is_due(p->heads[i].ended, p->keep->conversation_ms, p->now);
      *all = *all && !stays;
    }
    if (p->head_count > 0) memcpy(f.before, p->heads[p->head_count - 1].id, sizeof(f.before));
  }
  return status;
}

/* Of those that were found only the ones that something is to be done with; a dry run counts them.
 */
static tm_status sift(tm_purge *p, const tm_store_access *a, tm_error *err) {
  size_t kept_count = 0;
  tm_status status = TM_OK;
  for (size_t i = 0; status == TM_OK && i < p->count; i++) {
    tm_kept_session k = kept_of(&p->keys[i]);
    verdict v;
    status = judge_stored(p, a, &k, &v, err);
    bool goes = p->dry && v == GOES;
    p->sessions_ended += p->dry && v == ENDS;
    if (status == TM_OK && goes) status = count_with(p, a, &k, &goes, err);
    p->sessions += goes;
    if (v != STAYS) p->keys[kept_count++] = p->keys[i];
    tm__session_release(&k);
  }
  p->count = p->dry ? 0 : kept_count;
  return status;
}

static tm_status look_at_sessions(tm_purge *p, const tm_store_access *a, tm_error *err) {
  tm_status status = find_sessions(p, a, err);
  if (status == TM_OK) status = sift(p, a, err);
  p->acts = status == TM_OK && p->count > 0;
  if (status == TM_OK && !p->acts && p->last_page) next_part(p);
  return status;
}

static tm_status act_on_sessions(tm_purge *p, const tm_store_access *a, tm_error *err) {
  tm_status status = TM_OK;
  while (status == TM_OK && p->at < p->count && p->purged_count < TM_PURGE_BATCH) {
    bool more;
    status = act_on(p, a, &p->keys[p->at], &more, err);
    p->at += !more;
    if (more) break;
  }
  if (p->at < p->count) return status;
  p->acts = false;
  if (p->last_page) next_part(p);
  return status;
}

/* ---- events that were given up ---- */

static tm_status on_dead(void *ud, const tm_outgoing *event) {
  tm_purge *p = ud;
  p->seen++;
  p->before_event = *event;
  p->before_event.body = (tm_slice){NULL, 0};
  if (!is_due(event->dead_at, p->keep->dead_event_ms, p->now)) return TM_OK;
  p->events_found[p->event_count++] = p->before_event;
  return p->event_count < TM_PURGE_BATCH ? TM_OK : TM_ECANCELLED;
}

static tm_status find_dead(tm_purge *p, const tm_store_access *a, tm_error *err) {
  const tm_outgoing *before = &p->before_event;
  tm_outgoing_filter f = {.dead = 1,
                          .before_revision = before->revision,
                          .before_index = before->index,
                          .limit = DEAD_PAGE};
  memcpy(f.before, before->conversation, sizeof(f.before));
  p->event_count = p->seen = 0;
  tm_status status = backend_of(p, a)->outbox_list(conn_of(p, a), &f, on_dead, p, err);
  p->last_page = status == TM_OK && p->seen < DEAD_PAGE;
  if (status == TM_ECANCELLED) status = TM_OK;
  if (p->dry && status == TM_OK) p->events += (int64_t)p->event_count;
  p->acts = status == TM_OK && !p->dry && p->event_count > 0;
  if (status == TM_OK && !p->acts && p->last_page) next_part(p);
  return status;
}

/* One that somebody has tried again meanwhile stays. */
static tm_status drop_dead(tm_purge *p, const tm_store_access *a, tm_error *err) {
  tm_status status = TM_OK;
  for (size_t i = 0; status == TM_OK && i < p->event_count; i++) {
    status = backend_of(p, a)->outbox_settle(conn_of(p, a), &p->events_found[i],
                                             TM_OUTCOME_DELIVERED, p->now, err);
    p->events += status == TM_OK;
    if (status == TM_ECONFLICT) status = TM_OK;
  }
  p->acts = false;
  if (p->last_page) next_part(p);
  return status;
}

/* ---- events that nobody is to be told of ---- */

static tm_status give_up_untold(tm_purge *p, const tm_store_access *a, tm_error *err) {
  int64_t since = p->now - p->keep->untold_ms;
  size_t count = 0;
  if (!p->acts) {
    tm_status status = tm__untold_look(a, p->in_memory, since, &p->acts, err);
    if (status == TM_OK && !p->acts) next_part(p);
    return status;
  }
  tm_status status = tm__untold_give_up(a, p->in_memory, p->tenant, since, p->now, &count, err);
  p->given_up += (int64_t)count;
  p->acts = false;
  if (count == 0) next_part(p); /* somebody else has it: the next pass sees */
  return status;
}

/* ---- the rest ---- */

static tm_status sweep(tm_purge *p, const tm_store_access *a, tm_error *err) {
  bool more = false;
  tm_status status = backend_of(p, a)->sweep(conn_of(p, a), SWEEP_SIZE, &more, err);
  if (!more) next_part(p);
  return status;
}

static tm_status on_tenant(void *ud, tm_slice tenant, int64_t wake_at) {
  tm_purge *p = ud;
  (void)wake_at;
  p->stage = TM_PURGE_CONVERSATIONS;
  return tm__copy(p->tenant, sizeof(p->tenant), tenant) ? TM_OK : TM_EINVAL;
}

static tm_status next_tenant(tm_purge *p, const tm_store_access *a, tm_error *err) {
  char after[65];
  memcpy(after, p->tenant, sizeof(after));
  p->stage = TM_PURGE_DONE;
  return a->backend->tenants(a->common, tm__slice(after), 1, on_tenant, p, err);
}

tm_status tm__purge_piece(tm_purge *p, const tm_store_access *a, tm_error *err) {
  p->purged_count = 0;
  bool skip = p->keep->conversation_ms == 0 || p->sessions_only;
  if (p->stage == TM_PURGE_CONVERSATIONS && skip) p->stage = TM_PURGE_SESSIONS;
  switch (p->stage) {
  case TM_PURGE_CONVERSATIONS: return p->acts ? purge_found(p, a, err) : find_ended(p, a, err);
  case TM_PURGE_SESSIONS: return p->acts ? act_on_sessions(p, a, err) : look_at_sessions(p, a, err);
  case TM_PURGE_EVENTS: return p->acts ? drop_dead(p, a, err) : find_dead(p, a, err);
  case TM_PURGE_UNTOLD: return give_up_untold(p, a, err);
  case TM_PURGE_SWEEP: return sweep(p, a, err);
  case TM_PURGE_TENANT: return next_tenant(p, a, err);
  case TM_PURGE_DONE: break;
  }
  return TM_OK;
}
