/* list.c - what the outbox holds, out of both stores as one list, and a second chance for what was
 * given up. */
#include "outbox/list.h"

#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "outbox/event_id.h"
#include "storage/reply_job.h"

#define PAGE_DEFAULT 50
#define PAGE_MAX     200
#define NAME_SIZE    65

typedef struct shown { /* an event, out of the store's hands */
  tm_outgoing event;   /* without its body */
  char name[NAME_SIZE];
} shown;

typedef struct outbox_job {
  tm_reply_job base;
  tm_outgoing_filter filter;
  size_t limit;
  shown *items; /* up to limit + 1 of each store */
  size_t count, memory_from;
  tm_outgoing wanted; /* by its key */
  int64_t now;
} outbox_job;

static void clear(tm_reply_job *base) {
  outbox_job *job = (outbox_job *)(void *)base;
  free(job->items);
}

static outbox_job *job_new(tm_slice tenant, tm_reply_fn fn, void *ud) {
  outbox_job *job = tm__reply_job_new(sizeof(*job), tenant, fn, ud);
  if (job == NULL) return NULL;
  job->base.clear = clear;
  job->filter = (tm_outgoing_filter){.tenant = tm__slice(job->base.job.tenant), .dead = -1};
  return job;
}

static void add_time(tm_buf *out, const char *key, int64_t at) {
  if (at > 0)
    tm__json_member_int(out, key, at);
  else
    tm__json_member_raw(out, key, (tm_slice){NULL, 0});
}

static void add_event(tm_buf *out, const shown *s) {
  const tm_outgoing *e = &s->event;
  char id[TM_EVENT_ID_SIZE];
  tm_slice none = {NULL, 0};
  tm__event_id(id, e);
  tm__json_comma(out);
  tm__buf_byte(out, '{');
  tm__json_member_text(out, "id", id);
  tm__json_member(out, "event", s->name[0] != '\0' ? tm__slice(s->name) : none);
  tm__json_member_text(out, "conversation_id", e->conversation);
  tm__json_member_text(out, "status", e->dead_at > 0 ? "dead" : "pending");
  tm__json_member_int(out, "attempts", e->attempts);
  tm__json_member_int(out, "created", e->created);
  add_time(out, "next_at", e->due_at);
  add_time(out, "dead_at", e->dead_at);
  tm__json_member(out, "last_error", e->note[0] != '\0' ? tm__slice(e->note) : none);
  tm__buf_byte(out, '}');
}

/* ---- a page: both lists are sorted, newest first, so one merge ---- */

static tm_status keep(shown *to, const tm_outgoing *event) {
  tm_buf name = {0};
  to->event = *event;
  to->event.body = (tm_slice){NULL, 0};
  if (tm__json_get_text(event->body, "event", &name))
    (void)tm__copy(to->name, sizeof(to->name), tm__buf_view(&name));
  bool ok = tm__buf_ok(&name);
  tm__buf_free(&name);
  return ok ? TM_OK : TM_ENOMEM;
}

static tm_status on_event(void *ud, const tm_outgoing *event) {
  outbox_job *job = ud;
  return keep(&job->items[job->count++], event);
}

static bool is_newer(const tm_outgoing *a, const tm_outgoing *b) {
  int order = strcmp(a->conversation, b->conversation);
  if (order != 0) return order > 0;
  return a->revision != b->revision ? a->revision > b->revision : a->index > b->index;
}

static void write_page(outbox_job *job) {
  size_t x = 0, y = job->memory_from;
  const shown *last = NULL;
  tm__buf_text(&job->base.out, "{\"items\":[");
  for (size_t n = 0; n < job->limit; n++) {
    bool more_x = x < job->memory_from, more_y = y < job->count;
    if (!more_x && !more_y) break;
    bool take_x = more_x && (!more_y || is_newer(&job->items[x].event, &job->items[y].event));
    last = &job->items[take_x ? x++ : y++];
    add_event(&job->base.out, last);
  }
  tm__buf_byte(&job->base.out, ']');
  char id[TM_EVENT_ID_SIZE];
  bool more = last != NULL && (x < job->memory_from || y < job->count);
  if (more) tm__event_id(id, &last->event);
  tm__json_member(&job->base.out, "next", more ? tm__slice(id) : (tm_slice){NULL, 0});
  tm__buf_byte(&job->base.out, '}');
}

static tm_status list_work(tm_store_job *base, const tm_store_access *a, tm_error *err) {
  outbox_job *job = (outbox_job *)(void *)base;
  job->filter.limit = job->limit + 1; /* one more tells whether there is a next page */
  job->items = calloc(2 * job->filter.limit, sizeof(*job->items));
  if (job->items == NULL) return tm__fail_memory(err, "a list");
  tm_status status = tm__access_events(a, false, &job->filter, on_event, job, err);
  job->memory_from = job->count;
  if (status == TM_OK) status = tm__access_events(a, true, &job->filter, on_event, job, err);
  if (status == TM_ENOMEM) return tm__fail_memory(err, "a list");
  if (status == TM_OK) write_page(job);
  return status;
}

static tm_status check(outbox_job *job, const char *status, tm_slice cursor, int limit,
                       tm_error *err) {
  tm_outgoing before = {.index = 0};
  job->limit = limit <= 0 ? PAGE_DEFAULT : limit > PAGE_MAX ? PAGE_MAX : (size_t)limit;
  if (status != NULL) job->filter.dead = strcmp(status, "dead") == 0;
  if (status != NULL && strcmp(status, "dead") != 0 && strcmp(status, "pending") != 0)
    return tm__fail(err, TM_EINVAL, "request.invalid",
                    "there is no status '%.64s'; an event is pending or dead", status);
  if (cursor.len == 0) return TM_OK;
  if (!tm__event_id_read(&before, cursor))
    return tm__fail(err, TM_EINVAL, "cursor.invalid",
                    "this cursor does not belong to this list; use the `next` of its last page");
  memcpy(job->filter.before, before.conversation, sizeof(job->filter.before));
  job->filter.before_revision = before.revision;
  job->filter.before_index = before.index;
  return TM_OK;
}

void tm__outbox_list(tm_storage *s, tm_slice tenant, const char *status, tm_slice cursor, int limit,
                     tm_reply_fn fn, void *ud) {
  tm_error err;
  outbox_job *job = job_new(tenant, fn, ud);
  if (job == NULL) return;
  job->base.job.work = list_work;
  if (check(job, status, cursor, limit, &err) != TM_OK) {
    tm__reply_job_refuse(&job->base, &err);
  } else {
    tm__reply_job_run(s, &job->base);
  }
}

/* ---- one that was given up ---- */

static tm_status not_found(tm_slice id, tm_error *err) {
  return tm__fail(err, TM_ENOTFOUND, "outbox.not_found",
                  "there is no event %.*s that was not delivered",
                  (int)(id.len < 128 ? id.len : 128), id.ptr != NULL ? id.ptr : "");
}

/* The wanted event as that store has it, as the first item; TM_ENOTFOUND. */
static tm_status find(outbox_job *job, const tm_store_access *a, bool in_memory, tm_error *err) {
  const tm_outgoing *w = &job->wanted, *e = &job->items[0].event;
  tm_outgoing_filter f = job->filter;
  memcpy(f.before, w->conversation, sizeof(f.before));
  f.before_revision = w->revision;
  f.before_index = w->index + 1;
  f.limit = 1;
  job->count = 0;
  tm_status status = tm__access_events(a, in_memory, &f, on_event, job, err);
  if (status != TM_OK) return status;
  bool found = job->count == 1 && strcmp(e->conversation, w->conversation) == 0 &&
               e->revision == w->revision && e->index == w->index && e->created == w->created;
  return found ? TM_OK : TM_ENOTFOUND;
}

static tm_status is_pending(const char *id, tm_error *err) {
  return tm__fail(err, TM_ECONFLICT, "outbox.pending",
                  "event %s is not given up: it is under way, or will be", id);
}

static tm_status retry_work(tm_store_job *base, const tm_store_access *a, tm_error *err) {
  outbox_job *job = (outbox_job *)(void *)base;
  bool in_memory = false;
  char id[TM_EVENT_ID_SIZE];
  tm__event_id(id, &job->wanted);
  job->items = calloc(1, sizeof(*job->items));
  if (job->items == NULL) return tm__fail_memory(err, "an event");
  tm_outgoing *e = &job->items[0].event;
  tm_status status = find(job, a, false, err);
  if (status == TM_ENOTFOUND) status = find(job, a, in_memory = true, err);
  if (status == TM_ENOTFOUND) return not_found(tm__slice(id), err);
  if (status == TM_ENOMEM) return tm__fail_memory(err, "an event");
  if (status != TM_OK) return status;
  if (e->dead_at == 0) return is_pending(id, err);
  status = tm__access_settle_event(a, in_memory, e, TM_OUTCOME_AGAIN, job->now, err);
  if (status == TM_ECONFLICT) return is_pending(id, err); /* somebody else was first */
  if (status == TM_OK) status = find(job, a, in_memory, err);
  if (status == TM_ENOTFOUND) return not_found(tm__slice(id), err);
  if (status == TM_OK) add_event(&job->base.out, &job->items[0]);
  return status;
}

void tm__outbox_retry(tm_storage *s, tm_slice tenant, tm_slice id, int64_t now, tm_reply_fn fn,
                      void *ud) {
  tm_error err;
  outbox_job *job = job_new(tenant, fn, ud);
  if (job == NULL) return;
  job->now = now;
  job->base.job.write = true;
  job->base.job.work = retry_work;
  if (!tm__event_id_read(&job->wanted, id)) {
    (void)not_found(id, &err);
    tm__reply_job_refuse(&job->base, &err);
  } else {
    tm__reply_job_run(s, &job->base);
  }
}
