/* tenant.c - everything of one tenant goes: what lies with that of others, and the tenant's own
 * store. Nothing is read but names, so no key is needed. A host may serve the store meanwhile: what
 * it has in memory of these conversations loses its next commit. */
#include <stdlib.h>
#include <string.h>

#include "store_place.h"

#define PAGE       64
#define SWEEP_SIZE 256
#define TRIES      8 /* a conversation whose turns go on meanwhile */

typedef struct removal {
  tm_store_place place;
  const char *tenant;
  bool dry;
  /* of the store that is looked at */
  tm_store *store;
  tm_store_conn *conn;
  bool own; /* all of it is the tenant's, also what cannot be read */
  /* counts */
  int64_t conversations, sessions, events;
  bool listed; /* there is an own store */
  bool kept;   /* it is empty and stays */
} removal;

static tm_slice filter_of(const removal *r) {
  return r->own ? (tm_slice){NULL, 0} : tm__slice(r->tenant);
}

/* ---- conversations, with their events ---- */

typedef struct head_page {
  tm_head heads[PAGE];
  size_t count;
} head_page;

static tm_status on_head(void *ud, const tm_head *head) {
  head_page *p = ud;
  if (p->count < PAGE) p->heads[p->count++] = *head;
  return TM_OK;
}

/* One whose turn goes on is read again; one that is gone is no fault. */
static tm_status remove_conversation(removal *r, tm_head *h, tm_error *err) {
  const tm_store_backend *b = r->place.backend;
  tm_slice id = tm__slice(h->id);
  tm_status status = TM_ECONFLICT;
  for (int i = 0; status == TM_ECONFLICT && i < TRIES; i++) {
    status = b->purge(r->conn, id, h->revision, true, err);
    tm_head now = *h;
    if (status == TM_ECONFLICT && b->head(r->conn, id, &now, NULL) == TM_OK) *h = now;
  }
  r->conversations += status == TM_OK;
  return status == TM_ENOTFOUND ? TM_OK : status;
}

static tm_status conversations(removal *r, tm_error *err) {
  const tm_store_backend *b = r->place.backend;
  tm_list_filter f = {.tenant = filter_of(r), .status = -1, .limit = PAGE};
  head_page *p = calloc(1, sizeof(*p));
  if (p == NULL) return tm__fail_memory(err, "a list of conversations");
  tm_status status;
  do {
    p->count = 0;
    status = b->list(r->conn, &f, on_head, p, err);
    for (size_t i = 0; status == TM_OK && i < p->count; i++) {
      memcpy(f.before, p->heads[i].id, sizeof(f.before));
      r->conversations += r->dry;
      if (!r->dry) status = remove_conversation(r, &p->heads[i], err);
    }
  } while (status == TM_OK && p->count > 0);
  free(p);
  return status;
}

typedef struct event_page {
  tm_outgoing_filter *next;
  size_t count;
} event_page;

static tm_status on_event(void *ud, const tm_outgoing *event) {
  event_page *p = ud;
  memcpy(p->next->before, event->conversation, sizeof(p->next->before));
  p->next->before_revision = event->revision;
  p->next->before_index = event->index;
  p->count++;
  return TM_OK;
}

/* They go with their conversations. */
static tm_status count_events(removal *r, tm_error *err) {
  tm_outgoing_filter next = {.tenant = filter_of(r), .dead = -1, .limit = PAGE};
  event_page p = {.next = &next};
  tm_status status = TM_OK;
  do {
    p.count = 0;
    tm_outgoing_filter f = next;
    status = r->place.backend->outbox_list(r->conn, &f, on_event, &p, err);
    r->events += (int64_t)p.count;
  } while (status == TM_OK && p.count > 0);
  return status;
}

/* ---- sessions ---- */

typedef struct session_name {
  char tenant[65], id[129];
  int64_t created;
} session_name;

typedef struct session_page {
  session_name names[PAGE];
  size_t count;
} session_page;

static tm_status on_session(void *ud, const tm_session *s) {
  session_page *p = ud;
  session_name *n = &p->names[p->count];
  if (p->count == PAGE || !tm__copy(n->tenant, sizeof(n->tenant), s->tenant) ||
      !tm__copy(n->id, sizeof(n->id), s->id))
    return TM_OK;
  n->created = s->created;
  p->count++;
  return TM_OK;
}

/* One in which a conversation began meanwhile stays with it. */
static tm_status remove_session(removal *r, const session_name *n, tm_error *err) {
  tm_status status =
      r->place.backend->session_drop(r->conn, tm__slice(n->tenant), tm__slice(n->id), err);
  r->sessions += status == TM_OK;
  return status == TM_ECONFLICT || status == TM_ENOTFOUND ? TM_OK : status;
}

static tm_status sessions(removal *r, tm_error *err) {
  session_name last = {.created = 0};
  session_page *p = calloc(1, sizeof(*p));
  if (p == NULL) return tm__fail_memory(err, "a list of sessions");
  tm_status status;
  do {
    p->count = 0;
    tm_session_filter f = {.tenant = filter_of(r), .ended = -1, .limit = PAGE};
    if (last.created != 0) {
      f.before_created = last.created;
      f.before_id = tm__slice(last.id);
      f.before_tenant = tm__slice(last.tenant);
    }
    status = r->place.backend->sessions(r->conn, &f, on_session, p, err);
    for (size_t i = 0; status == TM_OK && i < p->count; i++) {
      last = p->names[i];
      r->sessions += r->dry;
      if (!r->dry) status = remove_session(r, &last, err);
    }
  } while (status == TM_OK && p->count > 0);
  free(p);
  return status;
}

/* ---- one store ---- */

static tm_status sweep(removal *r, tm_error *err) {
  bool more = true;
  tm_status status = TM_OK;
  while (status == TM_OK && more)
    status = r->place.backend->sweep(r->conn, SWEEP_SIZE, &more, err);
  return status;
}

static tm_status empty(removal *r, tm_error *err) {
  tm_status status = count_events(r, err);
  if (status == TM_OK) status = conversations(r, err);
  if (status == TM_OK) status = sessions(r, err);
  return status == TM_OK && !r->dry ? sweep(r, err) : status;
}

static tm_status open_store(removal *r, const char *tenant, tm_error *err) {
  const tm_store_backend *b = r->place.backend;
  tm_store_options o = r->place.options;
  o.tenant = tenant;
  o.opening = TM_STORE_EXISTING;
  tm_status status = b->open(&r->store, &o, err);
  return status == TM_OK ? b->connect(&r->conn, r->store, TM_STORE_WRITER, err) : status;
}

static void close_store(removal *r) {
  r->place.backend->disconnect(r->conn);
  r->place.backend->close(r->store);
  r->conn = NULL;
  r->store = NULL;
}

typedef struct name_page {
  removal *removal;
  char last[65];
  size_t count;
} name_page;

static tm_status on_listed(void *ud, tm_slice tenant, int64_t wake_at) {
  name_page *p = ud;
  (void)wake_at;
  p->removal->listed = p->removal->listed || tm__slice_is(tenant, p->removal->tenant);
  p->count++;
  return tm__copy(p->last, sizeof(p->last), tenant) ? TM_OK : TM_EINVAL;
}

static tm_status find_own(removal *r, tm_error *err) {
  name_page p = {.removal = r};
  tm_status status = TM_OK;
  do {
    char after[sizeof(p.last)];
    memcpy(after, p.last, sizeof(after));
    p.count = 0;
    status = r->place.backend->tenants(r->conn, tm__slice(after), PAGE, on_listed, &p, err);
  } while (status == TM_OK && p.count > 0 && !r->listed);
  return status;
}

static tm_status look_into_own(removal *r, tm_error *err) {
  r->own = true;
  tm_status status = open_store(r, r->tenant, err);
  if (status == TM_OK) status = empty(r, err);
  close_store(r);
  return status;
}

/* With the store of all open. */
static tm_status drop_own(removal *r, tm_error *err) {
  const tm_store_backend *b = r->place.backend;
  tm_store_options o = r->place.options;
  o.tenant = r->tenant;
  tm_status status = b->tenant_drop != NULL ? b->tenant_drop(r->conn, &o, err) : TM_OK;
  r->kept = b->tenant_drop == NULL || strcmp(err->code, "store.in_use") == 0;
  return r->kept ? TM_OK : status;
}

/* The tenant's own store, which the store of all knows of. What cannot be counted can be removed,
 * unless somebody has it open. */
static tm_status remove_own(removal *r, tm_error *err) {
  tm_status status = look_into_own(r, err);
  bool lost = status == TM_ECORRUPT || status == TM_ENOTFOUND;
  if (r->dry || (status != TM_OK && !lost)) return status;
  tm_error why = {.status = TM_OK};
  tm_status dropped = open_store(r, NULL, &why);
  if (dropped == TM_OK) dropped = drop_own(r, &why);
  close_store(r);
  if (dropped == TM_OK) return r->kept ? status : TM_OK;
  *err = why;
  return dropped;
}

static tm_status remove_all(removal *r, tm_error *err) {
  tm_status status = tm__store_place_exists(&r->place, err);
  if (status == TM_OK) status = open_store(r, NULL, err);
  if (status == TM_OK) status = find_own(r, err);
  if (status == TM_OK) status = empty(r, err);
  close_store(r);
  if (status == TM_OK && r->listed) status = remove_own(r, err);
  if (status != TM_OK || r->listed || r->conversations + r->sessions + r->events > 0) return status;
  return tm__fail(err, TM_ENOTFOUND, "tenant.not_found", "%s has nothing of a tenant \"%.64s\"",
                  r->place.shown, r->tenant);
}

/* ---- the answer ---- */

static void answer(const removal *r, tm_reply_fn fn, void *ud) {
  tm_buf b = {0};
  tm__buf_byte(&b, '{');
  tm__json_member_text(&b, "tenant", r->tenant);
  tm__json_member_bool(&b, "dry_run", r->dry);
  tm__json_member_int(&b, "conversations", r->conversations);
  tm__json_member_int(&b, "sessions", r->sessions);
  tm__json_member_int(&b, "events", r->events);
  tm__json_member_bool(&b, "store_stays", r->kept);
  tm__buf_byte(&b, '}');
  tm__host_answer(fn, ud, &b);
  tm__buf_free(&b);
}

void tm_tenant_purge(tm_host *h, const char *tenant, int dry_run, tm_reply_fn fn, void *ud) {
  removal r = {.tenant = tenant, .dry = dry_run != 0};
  tm_error err;
  tm_status status = tm__store_place_configured(&r.place, h, &err);
  if (status == TM_OK) status = remove_all(&r, &err);
  if (status == TM_OK)
    answer(&r, fn, ud);
  else
    tm__host_refuse(fn, ud, &err);
  tm__store_place_free(&r.place);
}
