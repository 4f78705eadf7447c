/* copy_rest.c - scripts and sessions, compared first, so that a repeat writes nothing. */
#include "keeping/copy_rest.h"

#include <stdlib.h>
#include <string.h>

#include "keeping/copy_events.h"
#include "keeping/copy_lane.h"

#define PAGE       128
#define SWEEP_SIZE 1000

void tm__copy_failed(tm_copy *c, const char *conversation, tm_error *err) {
  (void)tm__copy(err->conversation_id, sizeof(err->conversation_id), tm__slice(conversation));
  c->counts.failed++;
  if (c->failed != NULL) c->failed(c->ud, err);
}

bool tm__copy_is_local(tm_status status) {
  return status == TM_ECORRUPT || status == TM_ECONFLICT || status == TM_ETOOLARGE ||
         status == TM_EINVAL || status == TM_ELIMIT || status == TM_ENOTFOUND;
}

/* ---- scripts ---- */

/* Into a tm_buf: system, NUL, version, NUL. */
static tm_status on_script(void *ud, tm_slice system, tm_slice version, int64_t used) {
  (void)used;
  tm_buf *b = ud;
  tm__buf_slice(b, system);
  tm__buf_byte(b, '\0');
  tm__buf_slice(b, version);
  tm__buf_byte(b, '\0');
  return tm__buf_ok(b) ? TM_OK : TM_ENOMEM;
}

/* The same sources on both sides, or TM_ENOTFOUND: the target has none. */
static tm_status compare_script(tm_copy *c, tm_slice system, tm_slice version, tm_slice sources,
                                tm_error *err) {
  tm_buf there = {0};
  tm_status status = c->to.backend->script_get(c->to.conn, system, version, &there, err);
  if (status == TM_OK && !tm__buf_ok(&there)) status = tm__fail_memory(err, "a script");
  if (status == TM_OK && !tm__slice_eq(tm__buf_view(&there), sources))
    status = tm__fail(err, TM_ECORRUPT, "copy.differs",
                      "version %.*s of system %.*s has other sources in the target: one of both is "
                      "damaged",
                      (int)version.len, version.ptr, (int)system.len, system.ptr);
  tm__buf_free(&there);
  return status;
}

static tm_status copy_script(tm_copy *c, tm_slice system, tm_slice version, tm_error *err) {
  tm_buf sources = {0};
  tm_status status = c->from.backend->script_get(c->from.conn, system, version, &sources, err);
  if (status == TM_OK && !tm__buf_ok(&sources)) status = tm__fail_memory(err, "a script");
  if (status == TM_OK) status = compare_script(c, system, version, tm__buf_view(&sources), err);
  if (status == TM_ENOTFOUND && sources.ptr != NULL) {
    tm_slice text = tm__buf_view(&sources);
    status = c->to.backend->script_put(c->to.conn, system, version, text, err);
    if (status == TM_OK) status = compare_script(c, system, version, text, err);
    if (status == TM_OK) c->counts.scripts++;
  }
  tm__buf_free(&sources);
  if (status == TM_OK || !tm__copy_is_local(status)) return status;
  tm__copy_failed(c, "", err);
  return TM_OK;
}

tm_status tm__copy_scripts(tm_copy *c, tm_error *err) {
  tm_buf list = {0};
  tm_status status = c->from.backend->scripts(c->from.conn, on_script, &list, err);
  if (status == TM_ENOMEM) status = tm__fail_memory(err, "the list of scripts");
  for (size_t at = 0; status == TM_OK && at < list.len;) {
    tm_slice system = tm__slice(list.ptr + at);
    tm_slice version = tm__slice(list.ptr + at + system.len + 1);
    at += system.len + version.len + 2;
    status = tm__copy_pause(c, err);
    if (status == TM_OK) status = copy_script(c, system, version, err);
  }
  tm__buf_free(&list);
  return status;
}

/* ---- sessions ---- */

typedef struct session_name {
  char tenant[65], id[129];
  int64_t created;
} session_name;

typedef struct session_page {
  tm_copy *copy;
  session_name last; /* where the next page starts */
  size_t count;
  session_name names[PAGE]; /* for the caller, when it only wants names */
  bool started, names_only, same;
  const tm_session *expected;
  tm_status status; /* of what was done with one; that of the walk is another's */
  tm_error *err;
} session_page;

static bool is_same_text(tm_slice a, tm_slice b) {
  return (a.ptr == NULL) == (b.ptr == NULL) && tm__slice_eq(a, b);
}

static tm_status on_there(void *ud, const tm_session *there) {
  session_page *p = ud;
  const tm_session *s = p->expected;
  p->same = is_same_text(s->user_id, there->user_id) &&
            is_same_text(s->metadata, there->metadata) && s->flags == there->flags &&
            s->created == there->created && s->look_at == there->look_at &&
            s->ended == there->ended;
  return TM_OK;
}

static tm_status compare_session(session_page *p, const tm_session *s) {
  const tm_copy *c = p->copy;
  p->expected = s;
  p->same = false;
  tm_status status = c->to.backend->session(c->to.conn, s->tenant, s->id, on_there, p, p->err);
  bool other = status == TM_ENOTFOUND || status == TM_ECORRUPT; /* what is damaged there goes */
  return other ? TM_OK : status;
}

static tm_status copy_session(session_page *p, const tm_session *s) {
  tm_copy *c = p->copy;
  c->counts.sessions++;
  if (s->damaged) return tm__session_damaged(s, "the source", p->err);
  tm_status status = compare_session(p, s);
  if (status != TM_OK || p->same) return status;
  status = c->to.backend->session_put(c->to.conn, NULL, s, p->err);
  if (status == TM_OK) status = compare_session(p, s);
  if (status != TM_OK) return status;
  if (!p->same)
    return tm__fail(p->err, TM_ECORRUPT, "copy.differs",
                    "session %.*s of tenant %.*s is not the same in the target: it was changed or "
                    "damaged there; run the same again",
                    (int)s->id.len, s->id.ptr, (int)s->tenant.len, s->tenant.ptr);
  return TM_OK;
}

static tm_status on_session(void *ud, const tm_session *s) {
  session_page *p = ud;
  session_name name = {.created = s->created};
  if (!tm__copy(name.tenant, sizeof(name.tenant), s->tenant) ||
      !tm__copy(name.id, sizeof(name.id), s->id) || p->count == PAGE)
    return p->status = tm__fail(p->err, TM_ECORRUPT, "store.damaged",
                                "the store gives a session whose name is too long");
  p->last = p->names[p->count++] = name;
  if (p->names_only) return TM_OK;
  p->status = copy_session(p, s);
  if (p->status != TM_OK && tm__copy_is_local(p->status)) {
    tm__copy_failed(p->copy, "", p->err);
    p->status = TM_OK;
  }
  return p->status;
}

/* The next page of the sessions of all tenants; p->count 0: there are no more. */
static tm_status next_page(session_page *p, const tm_copy_side *side) {
  tm_session_filter f = {.ended = -1, .limit = PAGE};
  if (p->started) {
    f.before_created = p->last.created;
    f.before_id = tm__slice(p->last.id);
    f.before_tenant = tm__slice(p->last.tenant);
  }
  p->started = true;
  p->count = 0;
  p->status = TM_OK;
  tm_error local = {.status = TM_OK};
  tm_status status = tm__copy_pause(p->copy, p->err);
  if (status != TM_OK) return status;
  status = side->backend->sessions(side->conn, &f, on_session, p, &local);
  if (p->status != TM_OK || status == TM_OK) return p->status;
  *p->err = local;
  return status;
}

tm_status tm__copy_sessions(tm_copy *c, tm_error *err) {
  session_page *p = calloc(1, sizeof(*p));
  if (p == NULL) return tm__fail_memory(err, "sessions");
  *p = (session_page){.copy = c, .err = err};
  tm_status status;
  do {
    status = next_page(p, &c->from);
  } while (status == TM_OK && p->count > 0);
  free(p);
  return status;
}

/* ---- what cannot be read ---- */

typedef struct unreadable {
  tm_copy *copy;
  int64_t count;
} unreadable;

static tm_status on_unreadable(void *ud, const tm_error *why) {
  unreadable *u = ud;
  tm_error e = *why;
  u->count++;
  tm__copy_failed(u->copy, "", &e);
  return TM_OK;
}

tm_status tm__copy_unreadable(tm_copy *c, int64_t *count, tm_error *err) {
  unreadable u = {.copy = c};
  const tm_store_backend *b = c->from.backend;
  tm_status status =
      b->unreadable != NULL ? b->unreadable(c->from.conn, on_unreadable, &u, err) : TM_OK;
  *count = u.count;
  return status;
}

/* ---- notes ---- */

tm_status tm__copy_notes(tm_copy *c, tm_error *err) {
  return c->to.backend->note_put(c->to.conn, TM_NOTE_SEAL, (tm_slice){NULL, 0}, err);
}

/* ---- what goes ---- */

static tm_status sweep(const tm_copy *c, tm_error *err) {
  bool more = true;
  tm_status status = TM_OK;
  while (status == TM_OK && more) {
    status = tm__copy_pause(c, err);
    if (status == TM_OK) status = c->to.backend->sweep(c->to.conn, SWEEP_SIZE, &more, err);
  }
  return status;
}

tm_status tm__copy_remove(tm_copy *c, tm_slice id, int64_t revision, tm_error *err) {
  tm_status status = c->to.backend->purge(c->to.conn, id, revision, true, err);
  if (status != TM_OK) return status;
  c->counts.removed++;
  return sweep(c, err);
}

typedef struct head_page {
  tm_head heads[PAGE];
  size_t count;
} head_page;

static tm_status on_head(void *ud, const tm_head *head) {
  head_page *p = ud;
  if (p->count == PAGE) return TM_ECANCELLED;
  p->heads[p->count++] = *head;
  return TM_OK;
}

static tm_status heads_before(head_page *p, const tm_copy_side *side, const char *before,
                              tm_error *err) {
  tm_list_filter f = {.status = -1, .limit = PAGE};
  memcpy(f.before, before, sizeof(f.before));
  p->count = 0;
  return side->backend->list(side->conn, &f, on_head, p, err);
}

typedef tm_status (*pair_fn)(void *ud, const tm_head *there, const tm_head *here, tm_error *err);

/* Each conversation of `to` with what `from` has of it; `here` NULL: nothing. One that `from`
 * cannot read is passed over. */
static tm_status each_pair(const tm_copy_side *from, const tm_copy_side *to, pair_fn fn, void *ud,
                           tm_error *err) {
  char before[TM_ID_SIZE] = "";
  head_page *p = calloc(1, sizeof(*p));
  if (p == NULL) return tm__fail_memory(err, "a list of conversations");
  tm_status status;
  while ((status = heads_before(p, to, before, err)) == TM_OK && p->count > 0) {
    memcpy(before, p->heads[p->count - 1].id, sizeof(before));
    for (size_t i = 0; status == TM_OK && i < p->count; i++) {
      tm_head here;
      status = from->backend->head(from->conn, tm__slice(p->heads[i].id), &here, err);
      if (status != TM_OK && status != TM_ENOTFOUND && status != TM_ECORRUPT) break;
      if (status == TM_ECORRUPT)
        status = TM_OK;
      else
        status = fn(ud, &p->heads[i], status == TM_OK ? &here : NULL, err);
    }
    if (status != TM_OK) break;
  }
  free(p);
  return status;
}

typedef struct compared {
  int64_t foreign, ahead;
} compared;

static tm_status count_pair(void *ud, const tm_head *there, const tm_head *here, tm_error *err) {
  (void)err;
  compared *n = ud;
  if (here == NULL) n->foreign++;
  if (here != NULL && there->revision > here->revision) n->ahead++;
  return TM_OK;
}

tm_status tm__store_compare(const tm_copy_side *from, const tm_copy_side *to, int64_t *foreign,
                            int64_t *ahead, tm_error *err) {
  compared n = {0};
  tm_status status = each_pair(from, to, count_pair, &n, err);
  *foreign = n.foreign;
  *ahead = n.ahead;
  return status;
}

static tm_status remove_foreign(void *ud, const tm_head *there, const tm_head *here,
                                tm_error *err) {
  tm_copy *c = ud;
  tm_status status = tm__copy_pause(c, err);
  if (status != TM_OK || here != NULL) return status;
  return tm__copy_remove(c, tm__slice(there->id), there->revision, err);
}

static tm_status mirror_sessions(tm_copy *c, session_page *p, tm_error *err) {
  tm_status status;
  while ((status = next_page(p, &c->to)) == TM_OK && p->count > 0) {
    for (size_t i = 0; status == TM_OK && i < p->count; i++) {
      tm_slice tenant = tm__slice(p->names[i].tenant), id = tm__slice(p->names[i].id);
      p->expected = &(tm_session){.tenant = tenant, .id = id};
      status = c->from.backend->session(c->from.conn, tenant, id, on_there, p, err);
      if (status == TM_ENOTFOUND) status = c->to.backend->session_drop(c->to.conn, tenant, id, err);
      /* A conversation of it came meanwhile; what it is in the source cannot be read. */
      if (status == TM_ECONFLICT || status == TM_ECORRUPT) status = TM_OK;
    }
    if (status != TM_OK) break;
  }
  return status;
}

tm_status tm__copy_mirror(tm_copy *c, bool lost, tm_error *err) {
  session_page *p = calloc(1, sizeof(*p));
  if (p == NULL) return tm__fail_memory(err, "sessions");
  *p = (session_page){.copy = c, .err = err, .names_only = true};
  tm_status status = each_pair(&c->from, &c->to, remove_foreign, c, err);
  if (status == TM_OK && !lost) status = mirror_sessions(c, p, err);
  if (status == TM_OK && !lost) status = tm__copy_delivered(c, err);
  free(p);
  return status;
}
