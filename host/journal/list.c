/* list.c - the list of conversations, newest first; a cursor is the id of the last one shown. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "journal/reader.h"
#include "journal/render.h"

#define PAGE_DEFAULT 50
#define PAGE_MAX     200

typedef struct list_job {
  tm_store_job job;
  tm_storage *storage;
  tm_reply_fn fn;
  void *ud;
  tm_list_filter filter;
  char tenant[65], session[129], system[65], flow[65];
  tm_head *heads;             /* up to limit + 1 of each store */
  size_t count, durable_from; /* from there on: of the configured store */
  tm_buf out;
} list_job;

static void answer(list_job *job, tm_status status, const tm_error *err) {
  const tm_reply reply = {.status = status,
                          .json = status == TM_OK ? job->out.ptr : NULL,
                          .size = status == TM_OK ? job->out.len : 0,
                          .error = status == TM_OK ? NULL : err};
  job->fn(job->ud, &reply);
  tm__buf_free(&job->out);
  free(job->heads);
  free(job);
}

static void on_read(tm_message *m) {
  list_job *job = (list_job *)((char *)m - offsetof(list_job, job.message));
  tm_status status = job->job.status;
  if (status == TM_OK && !tm__buf_ok(&job->out)) {
    status = tm__fail_memory(&job->job.error, "an answer");
  }
  answer(job, status, &job->job.error);
}

/* ---- reading ---- */

static tm_status on_head(void *ud, const tm_head *head) {
  list_job *job = ud;
  job->heads[job->count++] = *head;
  return TM_OK;
}

typedef struct newest {
  bool any;
  int64_t updated;
  tm_buf forked_from;
} newest;

static tm_status on_row(void *ud, const tm_row *row) {
  newest *n = ud;
  if (!n->any) n->updated = row->created;
  n->any = true;
  if (row->kind == TM_ROW_CALL) return TM_OK; /* it has no runtime part */
  tm__buf_slice(&n->forked_from, tm__json_get(tm__json_get(row->body, "runtime"), "forked_from"));
  return TM_ECANCELLED;
}

/* Of one whose row cannot be read at least the time is. */
static tm_status read_newest(newest *n, const tm_store_access *a, bool in_memory,
                             const tm_head *head, tm_error *err) {
  tm_error unreadable;
  n->updated = head->created;
  tm_status status = tm__access_chain(a, in_memory, head, head->tip, true, on_row, n, &unreadable);
  if (status == TM_OK || status == TM_ECANCELLED) return TM_OK;
  return tm__access_updated(a, in_memory, head, &n->updated, err);
}

static tm_status add_item(list_job *job, const tm_store_access *a, size_t index, tm_error *err) {
  const tm_head *head = &job->heads[index];
  bool in_memory = index < job->durable_from;
  newest n = {0};
  if (tm__head_is_damaged(head)) return TM_OK; /* the log has named it */
  tm_status status = read_newest(&n, a, in_memory, head, err);
  if (status == TM_OK) {
    tm__json_comma(&job->out);
    tm__render_item(&job->out, head, n.updated, tm__buf_view(&n.forked_from),
                    tm__storage_durable(job->storage, in_memory));
  }
  if (!tm__buf_ok(&n.forked_from)) job->out.failed = true;
  tm__buf_free(&n.forked_from);
  return status;
}

/* Both lists are sorted, newest first: one merge. */
static tm_status add_items(list_job *job, const tm_store_access *a, size_t limit, tm_error *err) {
  size_t x = 0;
  size_t y = job->durable_from;
  size_t last = 0;
  tm_status status = TM_OK;
  tm__buf_text(&job->out, "{\"items\":[");
  for (size_t n = 0; status == TM_OK && n < limit; n++) {
    bool more_x = x < job->durable_from;
    bool more_y = y < job->count;
    if (!more_x && !more_y) break;
    bool take_x = more_x && (!more_y || strcmp(job->heads[x].id, job->heads[y].id) > 0);
    last = take_x ? x++ : y++;
    status = add_item(job, a, last, err);
  }
  bool more = x < job->durable_from || y < job->count;
  tm__buf_byte(&job->out, ']');
  tm__json_member_text(&job->out, "next", more ? job->heads[last].id : NULL);
  tm__buf_byte(&job->out, '}');
  return status;
}

static tm_status list_work(tm_store_job *base, const tm_store_access *a, tm_error *err) {
  list_job *job = (list_job *)(void *)base;
  size_t limit = job->filter.limit;
  job->filter.limit = limit + 1; /* one more tells whether there is a next page */
  job->heads = calloc(2 * (limit + 1), sizeof(*job->heads));
  if (job->heads == NULL) return tm__fail_memory(err, "a list");
  tm_status status = tm__access_list(a, true, &job->filter, on_head, job, err);
  job->durable_from = job->count;
  if (status == TM_OK) status = tm__access_list(a, false, &job->filter, on_head, job, err);
  return status == TM_OK ? add_items(job, a, limit, err) : status;
}

/* ---- the request ---- */

/* A name that does not fit cannot be anyone's: then the list is empty, not wrong. */
static bool copy_name(tm_slice *out, char *dst, size_t size, const char *text) {
  if (text == NULL) return true;
  if (!tm__copy(dst, size, tm__slice(text))) return false;
  *out = tm__slice(dst);
  return true;
}

static bool copy_names(list_job *job, const tm_filter *f) {
  tm_list_filter *to = &job->filter;
  return copy_name(&to->tenant, job->tenant, sizeof(job->tenant),
                   f->tenant == NULL ? "default" : f->tenant) &&
         copy_name(&to->session, job->session, sizeof(job->session), f->session_id) &&
         copy_name(&to->system, job->system, sizeof(job->system), f->system) &&
         copy_name(&to->flow, job->flow, sizeof(job->flow), f->flow_id);
}

static tm_status check(list_job *job, const tm_filter *f, tm_error *err) {
  job->filter.status = -1;
  job->filter.limit = f->limit <= 0         ? PAGE_DEFAULT
                      : f->limit > PAGE_MAX ? PAGE_MAX
                                            : (size_t)f->limit;
  if (f->status != NULL) {
    tm_conversation_status status;
    if (!tm__conversation_status_parse(&status, tm__slice(f->status))) {
      return tm__fail(
          err, TM_EINVAL, "request.invalid",
          "there is no status '%.64s'; a conversation is active, waiting_input, waiting_approval, "
          "waiting_event, waiting_agent, sleeping, paused, completed, failed, expired or cancelled",
          f->status);
    }
    job->filter.status = (int)status;
  }
  if (f->cursor != NULL && f->cursor[0] != '\0' &&
      (!tm__uuid_valid(tm__slice(f->cursor)) ||
       !tm__copy(job->filter.before, sizeof(job->filter.before), tm__slice(f->cursor)))) {
    return tm__fail(err, TM_EINVAL, "cursor.invalid",
                    "this cursor does not belong to this list; use the `next` of its last page");
  }
  return TM_OK;
}

void tm__reader_list(tm_storage *s, const tm_filter *filter, tm_reply_fn fn, void *ud) {
  tm_error err;
  list_job *job = calloc(1, sizeof(*job));
  if (job == NULL) {
    (void)tm__fail_memory(&err, "a list");
    const tm_reply reply = {.status = err.status, .error = &err};
    fn(ud, &reply);
    return;
  }
  job->storage = s;
  job->fn = fn;
  job->ud = ud;
  job->job.message.run = on_read;
  job->job.work = list_work;
  tm_status status = check(job, filter, &err);
  if (status != TM_OK) {
    answer(job, status, &err);
  } else if (!copy_names(job, filter)) {
    tm__buf_text(&job->out, "{\"items\":[],\"next\":null}");
    answer(job, TM_OK, NULL);
  } else {
    memcpy(job->job.tenant, job->tenant, sizeof(job->tenant));
    tm__storage_run(s, &job->job);
  }
}
