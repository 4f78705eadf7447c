/* session_list.c - sessions for people and programs: one of them, or a page of them, newest first.
 * A session may be known to both stores; then it is shown once. */
#include "keeping/session.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "storage/reply_job.h"

#define PAGE_DEFAULT 50
#define PAGE_MAX     200

typedef struct shown { /* a session, out of the store's hands */
  char id[129];
  int64_t created, ended;
  tm_buf user_id, metadata;
  bool has_user, has_metadata;
  char fault[64]; /* why these two cannot be read, a code; "": they can */
} shown;

typedef struct session_job {
  tm_reply_job base;
  char id[129];
  tm_session_filter filter;
  size_t limit;
  shown *items; /* up to limit + 1 of each store */
  size_t count, memory_from;
} session_job;

static void shown_clear(shown *s) {
  tm__buf_free(&s->user_id);
  tm__buf_free(&s->metadata);
}

static void clear(tm_reply_job *base) {
  session_job *job = (session_job *)(void *)base;
  for (size_t i = 0; i < job->count; i++)
    shown_clear(&job->items[i]);
  free(job->items);
}

static session_job *job_new(tm_slice tenant, tm_reply_fn fn, void *ud) {
  session_job *job = tm__reply_job_new(sizeof(*job), tenant, fn, ud);
  if (job != NULL) job->base.clear = clear;
  return job;
}

/* ---- one session ---- */

static tm_status keep(shown *to, const tm_session *s) {
  (void)tm__copy(to->id, sizeof(to->id), s->id);
  to->created = s->created;
  to->ended = s->ended;
  to->has_user = s->user_id.ptr != NULL;
  to->has_metadata = s->metadata.len > 0;
  if (s->fault != NULL) (void)tm__copy(to->fault, sizeof(to->fault), tm__slice(s->fault));
  tm__buf_slice(&to->user_id, s->user_id);
  tm__buf_slice(&to->metadata, s->metadata);
  return tm__buf_ok(&to->user_id) && tm__buf_ok(&to->metadata) ? TM_OK : TM_ENOMEM;
}

static tm_status write_session(tm_buf *out, const tm_store_access *a, tm_slice tenant,
                               const shown *s, tm_error *err) {
  tm_session_look look;
  tm_status status =
      tm__session_look(&look, a, tenant, tm__slice(s->id), TM_OPEN_COUNTED, true, err);
  if (status != TM_OK) return status;
  bool ended = s->ended > 0 && look.open == 0;
  tm_slice none = {NULL, 0};
  tm__json_comma(out);
  tm__buf_byte(out, '{');
  tm__json_member_text(out, "session_id", s->id);
  tm__json_member(out, "user_id", s->has_user ? tm__buf_view(&s->user_id) : none);
  tm__json_member_raw(out, "metadata", s->has_metadata ? tm__buf_view(&s->metadata) : none);
  if (s->fault[0] != '\0') tm__json_member_text(out, "unreadable", s->fault);
  tm__json_member_text(out, "status", ended ? "ended" : "open");
  tm__json_member_int(out, "open_conversations", look.open);
  tm__json_member_int(out, "created", s->created);
  tm__json_member_int(out, "last_activity", look.last > s->created ? look.last : s->created);
  tm__json_key(out, "ended");
  if (ended) {
    tm__json_int(out, s->ended);
  } else {
    tm__buf_text(out, "null");
  }
  tm__buf_byte(out, '}');
  return TM_OK;
}

static tm_status on_one(void *ud, const tm_session *s) {
  return keep(ud, s);
}

tm_status tm__session_not_found(tm_slice id, tm_error *err) {
  return tm__fail(err, TM_ENOTFOUND, "session.not_found", "there is no session %.*s",
                  (int)(id.len < 128 ? id.len : 128), id.ptr != NULL ? id.ptr : "");
}

tm_status tm__session_render(tm_buf *out, const tm_store_access *a, tm_slice tenant, tm_slice id,
                             tm_error *err) {
  shown s = {0};
  tm_status status = tm__access_session(a, false, tenant, id, on_one, &s, err);
  if (status == TM_ENOTFOUND) status = tm__access_session(a, true, tenant, id, on_one, &s, err);
  if (status == TM_ENOTFOUND) status = tm__session_not_found(id, err);
  if (status == TM_ENOMEM) status = tm__fail_memory(err, "a session");
  if (status == TM_OK) status = write_session(out, a, tenant, &s, err);
  shown_clear(&s);
  return status;
}

static tm_status one_work(tm_store_job *base, const tm_store_access *a, tm_error *err) {
  session_job *job = (session_job *)(void *)base;
  return tm__session_render(&job->base.out, a, tm__slice(job->base.job.tenant), tm__slice(job->id),
                            err);
}

void tm__session_show(tm_storage *s, tm_slice tenant, tm_slice id, tm_reply_fn fn, void *ud) {
  tm_error err;
  session_job *job = job_new(tenant, fn, ud);
  if (job == NULL) return;
  job->base.job.work = one_work;
  if (!tm__copy(job->id, sizeof(job->id), id)) {
    (void)tm__session_not_found(id, &err);
    tm__reply_job_refuse(&job->base, &err);
  } else {
    tm__reply_job_run(s, &job->base);
  }
}

/* ---- a page: both lists are sorted, newest first, so one merge ---- */

static tm_status on_session(void *ud, const tm_session *s) {
  session_job *job = ud;
  return keep(&job->items[job->count++], s);
}

static tm_status on_known(void *ud, const tm_session *s) {
  (void)ud, (void)s;
  return TM_OK;
}

static bool is_newer(const shown *a, const shown *b) {
  return a->created != b->created ? a->created > b->created : strcmp(a->id, b->id) > 0;
}

static void write_cursor(tm_buf *out, const shown *s) {
  tm__json_key(out, "next");
  if (s == NULL) {
    tm__buf_text(out, "null");
    return;
  }
  tm__buf_printf(out, "\"%" PRIx64 "-", (uint64_t)s->created);
  for (const char *at = s->id; *at != '\0'; at++)
    tm__buf_printf(out, "%02x", (unsigned)(unsigned char)*at);
  tm__buf_byte(out, '"');
}

/* Adds an item; one that the configured store has too is there already, or will be. */
static tm_status add_item(session_job *job, const tm_store_access *a, size_t index, tm_error *err) {
  const shown *s = &job->items[index];
  tm_slice tenant = tm__slice(job->base.job.tenant);
  tm_status status = TM_ENOTFOUND;
  if (index >= job->memory_from)
    status = tm__access_session(a, false, tenant, tm__slice(s->id), on_known, NULL, err);
  if (status == TM_ECORRUPT) status = TM_OK; /* it is there, and listed */
  return status == TM_ENOTFOUND ? write_session(&job->base.out, a, tenant, s, err) : status;
}

static tm_status add_items(session_job *job, const tm_store_access *a, tm_error *err) {
  size_t x = 0, y = job->memory_from;
  const shown *last = NULL;
  tm_status status = TM_OK;
  tm__buf_text(&job->base.out, "{\"items\":[");
  for (size_t n = 0; status == TM_OK && n < job->limit; n++) {
    bool more_x = x < job->memory_from, more_y = y < job->count;
    if (!more_x && !more_y) break;
    bool take_x = more_x && (!more_y || is_newer(&job->items[x], &job->items[y]));
    size_t index = take_x ? x++ : y++;
    last = &job->items[index];
    status = add_item(job, a, index, err);
  }
  tm__buf_byte(&job->base.out, ']');
  write_cursor(&job->base.out, x < job->memory_from || y < job->count ? last : NULL);
  tm__buf_byte(&job->base.out, '}');
  return status;
}

static tm_status list_work(tm_store_job *base, const tm_store_access *a, tm_error *err) {
  session_job *job = (session_job *)(void *)base;
  job->filter.limit = job->limit + 1; /* one more tells whether there is a next page */
  job->items = calloc(2 * job->filter.limit, sizeof(*job->items));
  if (job->items == NULL) return tm__fail_memory(err, "a list");
  tm_status status = tm__access_sessions(a, false, &job->filter, on_session, job, err);
  job->memory_from = job->count;
  if (status == TM_OK) status = tm__access_sessions(a, true, &job->filter, on_session, job, err);
  if (status == TM_ENOMEM) return tm__fail_memory(err, "a list");
  return status == TM_OK ? add_items(job, a, err) : status;
}

/* ---- the request ---- */

static int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* "CREATED-ID", the id in hexadecimal; only what write_cursor writes. */
static bool read_cursor(session_job *job, tm_slice text) {
  uint64_t created = 0;
  size_t at = 0, len = 0;
  for (; at < text.len && at < 16 && hex_digit(text.ptr[at]) >= 0; at++)
    created = created * 16 + (uint64_t)hex_digit(text.ptr[at]);
  if (at == 0 || at == text.len || text.ptr[at] != '-') return false;
  for (at++; at + 1 < text.len && len + 1 < sizeof(job->id); at += 2) {
    int high = hex_digit(text.ptr[at]), low = hex_digit(text.ptr[at + 1]);
    if (high < 0 || low < 0) return false;
    job->id[len++] = (char)(high * 16 + low);
  }
  job->filter.before_created = (int64_t)created;
  job->filter.before_id = (tm_slice){job->id, len};
  return at == text.len && len > 0;
}

static tm_status check(session_job *job, const char *status, tm_slice cursor, int limit,
                       tm_error *err) {
  job->limit = limit <= 0 ? PAGE_DEFAULT : limit > PAGE_MAX ? PAGE_MAX : (size_t)limit;
  job->filter.tenant = tm__slice(job->base.job.tenant);
  job->filter.ended = status == NULL ? -1 : strcmp(status, "ended") == 0;
  if (status != NULL && strcmp(status, "ended") != 0 && strcmp(status, "open") != 0)
    return tm__fail(err, TM_EINVAL, "request.invalid",
                    "there is no status '%.64s'; a session is open or ended", status);
  if (cursor.len > 0 && !read_cursor(job, cursor))
    return tm__fail(err, TM_EINVAL, "cursor.invalid",
                    "this cursor does not belong to this list; use the `next` of its last page");
  return TM_OK;
}

void tm__session_list(tm_storage *s, tm_slice tenant, const char *status, tm_slice cursor,
                      int limit, tm_reply_fn fn, void *ud) {
  tm_error err;
  session_job *job = job_new(tenant, fn, ud);
  if (job == NULL) return;
  job->base.job.work = list_work;
  if (check(job, status, cursor, limit, &err) != TM_OK) {
    tm__reply_job_refuse(&job->base, &err);
  } else {
    tm__reply_job_run(s, &job->base);
  }
}
