/* access.c - chooses the store that has a conversation, and makes plain what it keeps. */
#include "storage/access.h"

#include <stdio.h>

#include "core/json.h"

static const tm_store_backend *backend_of(const tm_store_access *a, bool in_memory) {
  return in_memory ? a->memory_backend : a->backend;
}

static tm_store_conn *conn_of(const tm_store_access *a, bool in_memory) {
  return in_memory ? a->memory_conn : a->conn;
}

tm_status tm__access_head(const tm_store_access *a, tm_slice id, tm_head *out, bool *in_memory,
                          tm_error *err) {
  *in_memory = true;
  tm_status status = a->memory_backend->head(a->memory_conn, id, out, err);
  if (status != TM_ENOTFOUND) return status;
  *in_memory = false;
  return a->backend->head(a->conn, id, out, err);
}

bool tm__access_is_gone(const tm_store_access *a, tm_slice id) {
  tm_head head;
  bool in_memory;
  tm_error err;
  return tm__access_head(a, id, &head, &in_memory, &err) == TM_ENOTFOUND;
}

/* ---- rows ---- */

typedef struct row_walk {
  tm_codec *codec; /* NULL: of the store in memory, where all is plain */
  const tm_head *head;
  tm_row_fn fn;
  void *ud;
  tm_error *err;
  tm_buf body;
  int64_t above;  /* revision of the row before; 0: this is the first */
  tm_place plain; /* of the newest row that was not sealed; revision 0: none */
} row_walk;

/* Once a conversation has sealed rows no plain one may follow; and its rows come in their order. */
static tm_status check_order(row_walk *w, const tm_place *at, bool sealed) {
  bool in_order = w->above == 0 || at->revision < w->above;
  w->above = at->revision;
  if (!sealed && w->plain.revision == 0) w->plain = *at;
  if (!sealed) return TM_OK;
  if (w->plain.revision != 0 && !tm__codec_options(w->codec)->accept_plaintext)
    return tm__codec_plaintext(&w->plain, w->err);
  return in_order ? TM_OK : tm__codec_forged(at, w->err);
}

static tm_status on_row(void *ud, const tm_row *row) {
  row_walk *w = ud;
  const tm_place at = {.tenant = tm__slice(w->head->tenant),
                       .conversation = tm__slice(w->head->id),
                       .revision = row->revision,
                       .kind = row->kind};
  const tm_stored stored = {row->flags, row->body};
  tm_row plain = *row;
  tm_status status = tm__codec_decode(w->codec, &at, &stored, &w->body, &plain.body, w->err);
  if (status == TM_OK) status = check_order(w, &at, (row->flags & TM_BODY_SEALED) != 0);
  return status == TM_OK ? w->fn(w->ud, &plain) : status;
}

tm_status tm__access_chain(const tm_store_access *a, bool in_memory, const tm_head *head,
                           int64_t row, bool follow_base, tm_row_fn fn, void *ud, tm_error *err) {
  row_walk w = {.codec = in_memory ? NULL : a->codec, .head = head, .fn = fn, .ud = ud, .err = err};
  tm_status status =
      backend_of(a, in_memory)
          ->chain(conn_of(a, in_memory), tm__slice(head->id), row, follow_base, on_row, &w, err);
  tm__buf_free(&w.body);
  return status;
}

static void name_damaged(const tm_store_access *a, const tm_head *head) {
  tm__damage_name(a->damage,
                  "the record of a conversation is damaged, the others go on: restore a backup",
                  "conversation", head->id);
}

static tm_status on_tip(void *ud, const tm_row *row) {
  *(int64_t *)ud = row->created;
  return TM_ECANCELLED;
}

tm_status tm__access_updated(const tm_store_access *a, bool in_memory, const tm_head *head,
                             int64_t *out, tm_error *err) {
  tm_status status =
      backend_of(a, in_memory)
          ->chain(conn_of(a, in_memory), tm__slice(head->id), head->tip, true, on_tip, out, err);
  if (status == TM_ECORRUPT) {
    name_damaged(a, head);
    *out = head->created;
    return TM_OK;
  }
  return status == TM_ECANCELLED ? TM_OK : status;
}

static tm_status on_newest(void *ud, const tm_row *row) {
  *(int64_t *)ud = row->revision;
  return TM_ECANCELLED;
}

int64_t tm__access_newest(const tm_store_access *a, bool in_memory, const tm_head *head) {
  int64_t revision = 0;
  tm_error err;
  (void)backend_of(a, in_memory)
      ->chain(conn_of(a, in_memory), tm__slice(head->id), head->tip, true, on_newest, &revision,
              &err);
  return revision;
}

bool tm__access_takes_plaintext(const tm_store_access *a) {
  return a->codec != NULL && tm__codec_options(a->codec)->accept_plaintext;
}

/* ---- sessions ---- */

typedef struct session_walk {
  const tm_store_access *access;
  tm_codec *codec; /* NULL: of the store in memory */
  tm_session_fn fn;
  void *ud;
  tm_error *err;
  tm_buf texts[2];
} session_walk;

static tm_status open_text(const session_walk *w, const tm_session *s, const char *field,
                           tm_buf *out, tm_slice *text, tm_error *err) {
  const tm_place at = {.tenant = s->tenant, .session = s->id, .field = tm__slice(field)};
  const tm_stored stored = {s->flags, *text};
  if (text->ptr == NULL) return TM_OK;
  return tm__codec_decode(w->codec, &at, &stored, out, text, err);
}

void tm__access_name_session(const tm_store_access *a, const tm_session *s) {
  tm_buf name = {0};
  tm__buf_printf(&name, "%.*s of %.*s", (int)s->id.len, s->id.ptr, (int)s->tenant.len,
                 s->tenant.ptr);
  if (tm__buf_ok(&name))
    tm__damage_name(a->damage,
                    s->damaged ? "the record of a session is damaged, the others go on: restore a "
                                 "backup"
                               : "the texts of a session cannot be read",
                    "session", name.ptr);
  tm__buf_free(&name);
}

/* One that cannot be opened keeps nobody from the others, nor from its end. */
static void conceal(const session_walk *w, tm_session *s, const tm_error *why) {
  tm__access_name_session(w->access, s);
  s->user_id = s->metadata = (tm_slice){NULL, 0};
  s->fault = why->code;
}

/* Plain texts may have been altered as well: what is no text and no JSON cannot be shown. */
static tm_status check_texts(const tm_session *s, tm_error *why) {
  json_t *value = NULL;
  tm_error no_json;
  bool sound = !s->damaged && (s->user_id.ptr == NULL || tm__utf8_valid(s->user_id));
  if (sound && s->metadata.len > 0) {
    sound = tm__json_parse(&value, s->metadata, TM_JSON_DEPTH, &no_json) == TM_OK;
    if (!sound && no_json.status == TM_ENOMEM) {
      *why = no_json;
      return TM_ENOMEM;
    }
  }
  json_decref(value);
  return sound ? TM_OK : tm__session_damaged(s, "the store", why);
}

static tm_status on_session(void *ud, const tm_session *session) {
  session_walk *w = ud;
  tm_session plain = *session;
  tm_error why;
  plain.fault = NULL;
  tm_status status = open_text(w, session, "user_id", &w->texts[0], &plain.user_id, &why);
  if (status == TM_OK)
    status = open_text(w, session, "metadata", &w->texts[1], &plain.metadata, &why);
  if (status == TM_OK) status = check_texts(&plain, &why);
  if (status != TM_OK && !tm__codec_is_of_record(&why)) {
    if (w->err != NULL) *w->err = why;
    return status;
  }
  if (status != TM_OK) conceal(w, &plain, &why);
  return w->fn(w->ud, &plain);
}

static tm_status end_sessions(session_walk *w, tm_status status) {
  tm__buf_free(&w->texts[0]);
  tm__buf_free(&w->texts[1]);
  return status;
}

tm_status tm__access_session(const tm_store_access *a, bool in_memory, tm_slice tenant, tm_slice id,
                             tm_session_fn fn, void *ud, tm_error *err) {
  session_walk w = {
      .access = a, .codec = in_memory ? NULL : a->codec, .fn = fn, .ud = ud, .err = err};
  tm_status status =
      backend_of(a, in_memory)->session(conn_of(a, in_memory), tenant, id, on_session, &w, err);
  return end_sessions(&w, status);
}

tm_status tm__access_sessions(const tm_store_access *a, bool in_memory, const tm_session_filter *f,
                              tm_session_fn fn, void *ud, tm_error *err) {
  session_walk w = {
      .access = a, .codec = in_memory ? NULL : a->codec, .fn = fn, .ud = ud, .err = err};
  tm_status status =
      backend_of(a, in_memory)->sessions(conn_of(a, in_memory), f, on_session, &w, err);
  return end_sessions(&w, status);
}

/* ---- heads, as they are ---- */

typedef struct head_walk {
  const tm_store_access *access;
  bool gives_damaged;
  tm_head_fn fn;
  void *ud;
} head_walk;

static tm_status on_any_head(void *ud, const tm_head *head) {
  const head_walk *w = ud;
  bool damaged = tm__head_is_damaged(head);
  if (damaged) name_damaged(w->access, head);
  return damaged && !w->gives_damaged ? TM_OK : w->fn(w->ud, head);
}

tm_status tm__access_list(const tm_store_access *a, bool in_memory, const tm_list_filter *f,
                          tm_head_fn fn, void *ud, tm_error *err) {
  head_walk w = {.access = a, .gives_damaged = true, .fn = fn, .ud = ud};
  return backend_of(a, in_memory)->list(conn_of(a, in_memory), f, on_any_head, &w, err);
}

tm_status tm__access_due(const tm_store_access *a, bool in_memory, int64_t now, int64_t hold_ms,
                         size_t limit, tm_head_fn fn, void *ud, tm_error *err) {
  head_walk w = {.access = a, .fn = fn, .ud = ud};
  return backend_of(a, in_memory)
      ->due(conn_of(a, in_memory), now, hold_ms, limit, on_any_head, &w, err);
}

tm_status tm__access_ended(const tm_store_access *a, bool in_memory, int64_t before, size_t limit,
                           tm_head_fn fn, void *ud, tm_error *err) {
  head_walk w = {.access = a, .fn = fn, .ud = ud};
  return backend_of(a, in_memory)
      ->ended(conn_of(a, in_memory), before, limit, on_any_head, &w, err);
}

/* ---- start keys ---- */

tm_status tm__access_start_key(const tm_store_access *a, tm_slice tenant, uint64_t key,
                               tm_start_key *out, tm_error *err) {
  tm_status status = a->memory_backend->start_key(a->memory_conn, tenant, key, out, err);
  return status == TM_ENOTFOUND ? a->backend->start_key(a->conn, tenant, key, out, err) : status;
}

/* ---- events ---- */

typedef struct event_walk {
  const tm_store_access *access;
  tm_codec *codec; /* NULL: of the store in memory */
  bool taken;      /* by somebody who sends them */
  tm_buf body;
  tm_outgoing_fn fn;
  void *ud;
} event_walk;

#define ROWS_MOST 64 /* that are looked at for one event */

typedef struct sealed_look {
  int64_t revision; /* of the event's row */
  int rows;
  bool sealed;
} sealed_look;

static tm_status on_flags(void *ud, const tm_row *row) {
  sealed_look *l = ud;
  l->sealed = l->sealed || (row->flags & TM_BODY_SEALED) != 0;
  bool enough = l->sealed || row->revision <= l->revision || ++l->rows == ROWS_MOST;
  return enough ? TM_ECANCELLED : TM_OK;
}

/* Which flows seal only the executor knows; a conversation's rows since the event tell as well. */
static tm_status check_sealed(const event_walk *w, const tm_outgoing *event, const tm_place *at,
                              tm_error *err) {
  const tm_store_access *a = w->access;
  sealed_look look = {.revision = event->revision};
  tm_head head;
  if (w->codec == NULL || tm__codec_options(w->codec)->keys == NULL ||
      (event->flags & TM_BODY_SEALED) != 0 || tm__access_takes_plaintext(a))
    return TM_OK;
  tm_status status = a->backend->head(a->conn, at->conversation, &head, err);
  if (status == TM_ENOTFOUND) return TM_OK;
  if (status == TM_OK)
    status = a->backend->chain(a->conn, at->conversation, head.tip, false, on_flags, &look, err);
  if (look.sealed) return tm__codec_plaintext(at, err);
  return status == TM_ECANCELLED || status == TM_ENOTFOUND ? TM_OK : status;
}

static tm_status on_event(void *ud, const tm_outgoing *event) {
  event_walk *w = ud;
  const tm_place at = {.tenant = tm__slice(event->tenant),
                       .conversation = tm__slice(event->conversation),
                       .revision = event->revision,
                       .event = true,
                       .index = event->index};
  const tm_stored stored = {event->flags, event->body};
  tm_outgoing plain = *event;
  tm_error why;
  tm_status status = tm__codec_decode(w->codec, &at, &stored, &w->body, &plain.body, &why);
  if (status == TM_OK && event->tenant[0] == '\0')
    status = tm__fail(&why, TM_ECORRUPT, "store.damaged", "its record in the store is damaged");
  if (status == TM_OK && w->taken) status = check_sealed(w, event, &at, &why);
  if (status != TM_OK) {
    plain.body = (tm_slice){NULL, 0};
    (void)snprintf(plain.note, sizeof(plain.note), "%.150s", why.message);
  }
  return w->fn(w->ud, &plain);
}

tm_status tm__access_take_events(const tm_store_access *a, bool in_memory, int64_t now,
                                 int64_t until, size_t limit, tm_outgoing_fn fn, void *ud,
                                 tm_error *err) {
  event_walk w = {
      .access = a, .codec = in_memory ? NULL : a->codec, .taken = true, .fn = fn, .ud = ud};
  tm_status status = backend_of(a, in_memory)
                         ->outbox_take(conn_of(a, in_memory), now, until, limit, on_event, &w, err);
  tm__buf_free(&w.body);
  return status;
}

tm_status tm__access_events(const tm_store_access *a, bool in_memory, const tm_outgoing_filter *f,
                            tm_outgoing_fn fn, void *ud, tm_error *err) {
  event_walk w = {.access = a, .codec = in_memory ? NULL : a->codec, .fn = fn, .ud = ud};
  tm_status status =
      backend_of(a, in_memory)->outbox_list(conn_of(a, in_memory), f, on_event, &w, err);
  tm__buf_free(&w.body);
  return status;
}

/* What a tenant's own store has next is found through the store of all. */
static tm_status announce(const tm_store_access *a, const char *tenant, tm_error *err) {
  int64_t next = 0;
  if (a->conn == a->common) return TM_OK;
  tm_status status = a->backend->outbox_next(a->conn, &next, err);
  if (status != TM_OK || next == 0) return status;
  return a->backend->tenant_wake(a->common, tm__slice(tenant), -1, next, err);
}

tm_status tm__access_settle_event(const tm_store_access *a, bool in_memory,
                                  const tm_outgoing *event, tm_outcome outcome, int64_t at,
                                  tm_error *err) {
  tm_status status =
      backend_of(a, in_memory)->outbox_settle(conn_of(a, in_memory), event, outcome, at, err);
  return status == TM_OK && !in_memory ? announce(a, event->tenant, err) : status;
}

tm_status tm__access_next_event(const tm_store_access *a, bool in_memory, int64_t *out,
                                tm_error *err) {
  return backend_of(a, in_memory)->outbox_next(conn_of(a, in_memory), out, err);
}
