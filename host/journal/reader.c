/* reader.c - one conversation's record, journal, transcript and checkpoints, for people and
 * programs. Pages walk the rows from the newest; a cursor says in which row, and where in it, the
 * next page begins. What a fork goes on from is read on in the conversation where it happened, for
 * as long as that is there. */
#include "journal/reader.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "journal/render.h"
#include "journal/slot.h"

#define CURSOR_SIZE  112
#define PAGE_DEFAULT 50
#define PAGE_MAX     200
#define ROWS_MAX     4096               /* looked at for one page */
#define BYTES_MAX    (2 * 1024 * 1024)  /* a page that has as many takes nothing more; likewise: */
#define SAID_BYTES   (128 * 1024)       /* of what a turn reads */
#define SEEN_MAX     (INT64_C(1) << 24) /* checkpoints that a cursor counts */
#define PASSED_MAX   128                /* prompts that it counts: more than one may go back */

typedef struct cursor { /* the first element of the page: the `index`th of that row */
  int64_t row;
  size_t index;
  int64_t left; /* of steps: that row lies on a branch that was left for this one; 0: on none */
  char in[TM_ID_SIZE]; /* the conversation that a fork goes on from; "": the one that is read */
} cursor;

typedef struct read_job {
  tm_store_job job;
  tm_storage *storage;
  tm_reply_fn fn;
  void *ud;
  tm_read what;
  char tenant[65], id[TM_ID_SIZE];
  size_t limit, bytes;
  cursor from; /* row 0: the newest */
  tm_head head;
  tm_buf out;
  /* while walking */
  size_t count;
  int rows;
  cursor next;  /* row 0: there is no more */
  cursor older; /* what a fork goes on from; row 0: nothing */
  cursor fork;  /* the row that says so … */
  tm_buf asked; /* ... and what it waits with, as a message */
  int64_t left; /* as in a cursor, of the row at hand */
  tm_checkpoints listed;
  tm_buf candidate; /* a checkpoint that is listed if none behind it is */
} read_job;

/* ---- answering ---- */

static void answer(read_job *job, tm_status status, const tm_error *err) {
  const tm_reply reply = {.status = status,
                          .json = status == TM_OK ? job->out.ptr : NULL,
                          .size = status == TM_OK ? job->out.len : 0,
                          .error = status == TM_OK ? NULL : err};
  job->fn(job->ud, &reply);
  tm__buf_free(&job->out);
  tm__buf_free(&job->candidate);
  tm__buf_free(&job->asked);
  free(job);
}

static void on_read(tm_message *m) {
  read_job *job = (read_job *)((char *)m - offsetof(read_job, job.message));
  tm_error *err = &job->job.error;
  tm_status status = job->job.status;
  if (status == TM_OK && !tm__buf_ok(&job->out)) status = tm__fail_memory(err, "an answer");
  if (status != TM_OK) {
    (void)tm__copy(err->conversation_id, sizeof(err->conversation_id), tm__slice(job->id));
  }
  answer(job, status, err);
}

static read_job *job_new(tm_storage *s, tm_reply_fn fn, void *ud) {
  read_job *job = calloc(1, sizeof(*job));
  if (job == NULL) {
    tm_error err;
    (void)tm__fail_memory(&err, "a read");
    const tm_reply reply = {.status = err.status, .error = &err};
    fn(ud, &reply);
    return NULL;
  }
  job->storage = s;
  job->fn = fn;
  job->ud = ud;
  job->job.message.run = on_read;
  return job;
}

/* ---- pages of what rows hold ---- */

static size_t page_size(int limit) {
  if (limit <= 0) return PAGE_DEFAULT;
  return limit > PAGE_MAX ? PAGE_MAX : (size_t)limit;
}

static tm_status cursor_invalid(tm_error *err) {
  return tm__fail(err, TM_EINVAL, "cursor.invalid",
                  "this cursor does not belong to this list; use the `next` of its last page");
}

/* "LIST-ROW-INDEX", and perhaps ".LEFT" and "-CONVERSATION", so that a cursor of one list is
 * refused by another. */
static void cursor_print(char out[CURSOR_SIZE], tm_read what, const cursor *c) {
  char left[20] = "";
  if (c->left != 0) (void)snprintf(left, sizeof(left), ".%" PRIx64, (uint64_t)c->left);
  (void)snprintf(out, CURSOR_SIZE, "%d-%" PRIx64 "-%zx%s%s%s", (int)what, (uint64_t)c->row,
                 c->index, left, c->in[0] != '\0' ? "-" : "", c->in);
}

/* Only what cursor_print writes is a cursor. */
static bool cursor_parse(cursor *c, tm_read what, tm_slice text) {
  char copy[CURSOR_SIZE];
  char again[CURSOR_SIZE];
  uint64_t row = 0, left = 0;
  if (!tm__copy(copy, sizeof(copy), text) || strlen(copy) != text.len) return false;
  if (sscanf(copy, "%*1d-%16" SCNx64 "-%8zx.%16" SCNx64 "-%36s", &row, &c->index, &left, c->in) <
          3 &&
      sscanf(copy, "%*1d-%16" SCNx64 "-%8zx-%36s", &row, &c->index, c->in) < 2)
    return false;
  if (c->in[0] != '\0' && !tm__uuid_valid(tm__slice(c->in))) return false;
  c->row = (int64_t)row;
  c->left = (int64_t)left;
  cursor_print(again, what, c);
  return c->row > 0 && strcmp(copy, again) == 0;
}

static void add_next(read_job *job) {
  char text[CURSOR_SIZE];
  if (job->next.row == 0) {
    tm__buf_text(&job->out, "],\"next\":null}");
    return;
  }
  memcpy(job->next.in, job->from.in, sizeof(job->next.in));
  cursor_print(text, job->what, &job->next);
  tm__buf_printf(&job->out, "],\"next\":\"%s\"}", text);
}

static tm_slice message_text(tm_slice messages, int64_t seq) {
  tm_json_walk w;
  tm_slice key;
  tm_slice message;
  bool any = tm__json_walk(&w, messages);
  while (any && tm__json_next(&w, &key, &message)) {
    if (tm__json_get_int(message, "seq", 0) == seq) return tm__json_get(message, "text");
  }
  return (tm_slice){NULL, 0};
}

/* The output of a step that only spoke stands among the messages of its row. What an `undo` did
 * lies beside the branch that it left, and counts. */
static void write_step(read_job *job, tm_slice step, tm_slice messages) {
  tm_buf *out = &job->out;
  int64_t reply = tm__json_get_int(step, "reply", 0);
  bool undone = job->left != 0 && tm__json_get_int(step, "undoes", 0) == 0;
  if (reply == 0 && !undone) {
    tm__buf_slice(out, step);
    return;
  }
  tm__buf_add(out, step.ptr, step.len - 1);
  if (reply != 0) tm__json_member_raw(out, "output", message_text(messages, reply));
  if (undone) tm__json_member_bool(out, "undone", true);
  tm__buf_byte(out, '}');
}

static bool add_element(read_job *job, const tm_row *row, size_t index, tm_slice element,
                        tm_slice messages) {
  if (job->count == job->limit || job->out.len > job->bytes) {
    job->next = (cursor){.row = row->id, .index = index, .left = job->left};
    return false;
  }
  tm__json_comma(&job->out);
  if (job->what == TM_READ_STEPS) {
    write_step(job, element, messages);
  } else {
    tm__buf_slice(&job->out, element);
  }
  job->count++;
  return true;
}

static size_t length(tm_slice array) {
  tm_json_walk w;
  tm_slice key;
  tm_slice value;
  size_t n = 0;
  if (!tm__json_walk(&w, array)) return 0;
  while (tm__json_next(&w, &key, &value)) {
    n++;
  }
  return n;
}

/* Elements of a row, the last first, without the `skip` last ones; false: the page is full. */
static bool add_elements(read_job *job, const tm_row *row, const tm_row_fields *f, size_t skip) {
  tm_slice array = job->what == TM_READ_STEPS ? f->steps : f->messages;
  size_t count = length(array);
  tm_slice *items = calloc(count + 1, sizeof(*items));
  tm_json_walk w;
  tm_slice key;
  bool more = items != NULL;
  if (items == NULL) job->out.failed = true;
  if (more && tm__json_walk(&w, array)) {
    for (size_t i = 0; i < count; i++) {
      (void)tm__json_next(&w, &key, &items[i]);
    }
  }
  for (size_t i = skip; more && i < count; i++) {
    more = add_element(job, row, i, items[count - 1 - i], f->messages);
  }
  free(items);
  return more;
}

/* ---- checkpoints: the index of a cursor says what the rule has counted before its row ---- */

static size_t counted(const tm_checkpoints *c) {
  size_t seen = (size_t)(c->seen < SEEN_MAX ? c->seen : SEEN_MAX);
  return seen * PASSED_MAX + (size_t)(c->passed < PASSED_MAX ? c->passed : PASSED_MAX - 1);
}

static void set_counted(tm_checkpoints *c, size_t index) {
  c->seen = (int64_t)(index / PASSED_MAX);
  c->passed = (int)(index % PASSED_MAX);
}

static void write_checkpoint(tm_buf *out, const tm_row *row, const tm_row_fields *f) {
  char id[24];
  (void)snprintf(id, sizeof(id), "%" PRId64, row->revision);
  tm__buf_byte(out, '{');
  tm__json_member_text(out, "checkpoint_id", id);
  tm__json_member_raw(out, "name", f->checkpoint);
  tm__json_member_raw(out, "step_id", f->step.len > 2 ? f->step : tm__slice(NULL));
  tm__json_member_raw(out, "status", f->status);
  tm__json_member_int(out, "revision", row->revision);
  tm__json_member_int(out, "created", row->created);
  tm__buf_byte(out, '}');
}

static bool add_checkpoint(read_job *job, const tm_row *row, const tm_row_fields *f) {
  size_t before = counted(&job->listed);
  tm_listing listing = tm__checkpoints_next(&job->listed, row, f);
  if (listing == TM_NOT_LISTED) return !tm__checkpoints_done(&job->listed);
  if (job->count == job->limit) {
    tm__buf_clear(&job->candidate);
    job->next = (cursor){.row = row->id, .index = before};
    return false;
  }
  if (listing == TM_LISTED_IF_LAST) {
    tm__buf_clear(&job->candidate);
    write_checkpoint(&job->candidate, row, f);
    return true;
  }
  tm__json_comma(&job->out);
  write_checkpoint(&job->out, row, f);
  job->count++;
  return true;
}

static void add_candidate(read_job *job) {
  if (job->candidate.len == 0) return;
  tm__json_comma(&job->out);
  tm__buf_slice(&job->out, tm__buf_view(&job->candidate));
  job->next = (cursor){0};
}

static void set_older(read_job *job, tm_slice fork) {
  tm_buf id = {0};
  bool ok = tm__json_get_text(fork, "conversation_id", &id) &&
            tm__copy(job->older.in, sizeof(job->older.in), tm__buf_view(&id));
  if (ok) job->older.row = tm__json_get_int(fork, "row", 0);
  tm__buf_free(&id);
}

/* The prompt of a row, as the message that it was; nothing where there was none. */
static void write_asked(tm_buf *out, const tm_row_fields *f) {
  tm_buf text = {0};
  tm_slice role = tm__json_get(f->prompt, "role");
  if (tm__json_get_text(f->prompt, "hint", &text)) tm__buf_byte(&text, '\n');
  if (tm__json_get_text(f->prompt, "text", &text)) {
    tm__buf_byte(out, '{');
    if (role.ptr != NULL) tm__json_member_raw(out, "agent", role);
    tm__json_member_text(out, "role", "prompt");
    tm__json_member_int(out, "seq", tm__json_get_int(f->runtime, "message_seq", 0));
    tm__json_member_raw(out, "step_id", tm__json_get(f->prompt, "step_id"));
    tm__json_member(out, "text", tm__buf_view(&text));
    tm__buf_byte(out, '}');
  }
  if (!tm__buf_ok(&text)) out->failed = true;
  tm__buf_free(&text);
}

static void pass_fork(read_job *job, const tm_row *row, const tm_row_fields *f, size_t skip) {
  set_older(job, f->fork);
  job->fork = (cursor){.row = row->id, .index = skip};
  memcpy(job->fork.in, job->from.in, sizeof(job->fork.in));
  tm__buf_clear(&job->asked);
  if (job->what == TM_READ_MESSAGES) write_asked(&job->asked, f);
}

/* The transcript of a fork whose origin is gone begins with what the fork found. */
static void add_lost(read_job *job) {
  const tm_row row = {.id = job->fork.row};
  tm_buf note = {0};
  tm__buf_printf(&note,
                 "{\"role\":\"note\",\"seq\":0,\"text\":\"What was said before is gone with "
                 "conversation %s.\"}",
                 job->from.in);
  const tm_slice items[] = {tm__buf_view(&job->asked), tm__buf_view(&note)};
  job->from = job->fork;
  bool more = job->what == TM_READ_MESSAGES;
  for (size_t i = job->fork.index; more && i < 2; i++)
    if (items[i].len > 0) more = add_element(job, &row, i, items[i], (tm_slice){0});
  if (!tm__buf_ok(&note) || !tm__buf_ok(&job->asked)) job->out.failed = true;
  tm__buf_free(&note);
}

/* Between a row that goes on from another one and that one lies a branch that was left. */
static bool add_steps(read_job *job, const tm_row *row, const tm_row_fields *f, size_t skip) {
  bool more = add_elements(job, row, f, skip);
  if (job->left == 0 && row->kind == TM_ROW_UNDO) job->left = row->base;
  return more;
}

static tm_status on_row(void *ud, const tm_row *row) {
  read_job *job = ud;
  if (row->id == job->left) job->left = 0;
  if (job->rows++ >= ROWS_MAX) {
    bool counts = job->what == TM_READ_CHECKPOINTS;
    job->next =
        (cursor){.row = row->id, .index = counts ? counted(&job->listed) : 0, .left = job->left};
    return TM_ECANCELLED;
  }
  tm_row_fields f;
  tm__row_fields(&f, row->body);
  size_t skip = row->id == job->from.row ? job->from.index : 0;
  if (row->kind == TM_ROW_FORK) pass_fork(job, row, &f, skip);
  bool more = false;
  switch (job->what) {
  case TM_READ_STEPS: more = add_steps(job, row, &f, skip); break;
  case TM_READ_MESSAGES: more = add_elements(job, row, &f, skip); break;
  case TM_READ_CHECKPOINTS: /* nobody can go back over a migration */
    more = add_checkpoint(job, row, &f) && row->kind != TM_ROW_MIGRATE;
    break;
  case TM_READ_CONVERSATION: break;
  }
  return more ? TM_OK : TM_ECANCELLED;
}

/* Another conversation of the same tenant; TM_ENOTFOUND: it was purged. */
static tm_status enter(read_job *job, const tm_store_access *a, bool *in_memory, tm_error *err) {
  tm_status status = tm__access_head(a, tm__slice(job->from.in), &job->head, in_memory, err);
  return status == TM_OK && strcmp(job->head.tenant, job->tenant) != 0 ? TM_ENOTFOUND : status;
}

/* Of checkpoints those of the fork itself: to others it cannot go back. */
static tm_status read_older(read_job *job, const tm_store_access *a, bool in_memory, bool story,
                            tm_error *err) {
  tm_status status = TM_OK;
  while (status == TM_OK && job->older.row != 0 && job->what != TM_READ_CHECKPOINTS) {
    job->from = job->older;
    job->left = 0;
    job->older = (cursor){0};
    status = enter(job, a, &in_memory, err);
    if (status == TM_OK)
      status = tm__access_chain(a, in_memory, &job->head, job->from.row, story, on_row, job, err);
    if (status == TM_ENOTFOUND) {
      add_lost(job);
      return TM_OK;
    }
  }
  return status;
}

/* The journal shows everything; transcript and checkpoints continue where a rollback went. */
static tm_status read_page(read_job *job, const tm_store_access *a, bool in_memory, tm_error *err) {
  tm_status status = job->from.in[0] != '\0' ? enter(job, a, &in_memory, err) : TM_OK;
  int64_t first = job->from.row != 0 ? job->from.row : job->head.tip;
  job->left = job->from.left;
  tm__buf_text(&job->out, "{\"items\":[");
  bool story = job->what != TM_READ_STEPS;
  if (status == TM_OK)
    status = tm__access_chain(a, in_memory, &job->head, first, story, on_row, job, err);
  if (status == TM_ENOTFOUND) return cursor_invalid(err);
  if (status == TM_OK) status = read_older(job, a, in_memory, story, err);
  if (status != TM_OK && status != TM_ECANCELLED) return status;
  add_candidate(job);
  add_next(job);
  return TM_OK;
}

/* ---- one conversation ---- */

static tm_status read_record(read_job *job, const tm_store_access *a, bool in_memory,
                             tm_error *err) {
  tm_record record = {.head = job->head, .in_memory = in_memory};
  tm_tip tip = {0};
  tm_status status = tm__record_rows(&record, &tip, a, job->head.tip, false, err);
  if (status == TM_OK) {
    const tm_render_record r = {
        .prompt = tm__buf_view(&tip.prompt),
        .error = tm__buf_view(&tip.error),
        .state = tm__buf_view(&record.state),
        .runtime = tm__buf_view(&record.runtime),
        .updated = tip.created,
        .durable = tm__storage_durable(job->storage, in_memory),
    };
    tm__render_conversation(&job->out, &job->head, &r);
  }
  tm__tip_clear(&tip);
  tm__record_clear(&record);
  return status;
}

static tm_status not_found(const read_job *job, tm_error *err) {
  return tm__fail(err, TM_ENOTFOUND, "conversation.not_found", "there is no conversation %s",
                  job->id);
}

static tm_status conversation_work(tm_store_job *base, const tm_store_access *a, tm_error *err) {
  read_job *job = (read_job *)(void *)base;
  bool in_memory = false;
  tm_status status = tm__access_head(a, tm__slice(job->id), &job->head, &in_memory, err);
  if (status == TM_ENOTFOUND || (status == TM_OK && strcmp(job->head.tenant, job->tenant) != 0))
    return not_found(job, err);
  if (status != TM_OK) return status;
  status = job->what == TM_READ_CONVERSATION ? read_record(job, a, in_memory, err)
                                             : read_page(job, a, in_memory, err);
  bool gone = status != TM_OK && tm__access_is_gone(a, tm__slice(job->id));
  return gone ? not_found(job, err) : status; /* purged while its rows were read */
}

/* `row`: where the first page begins; 0: at the newest row. */
static tm_status prepare(read_job *job, tm_slice tenant, tm_slice id, tm_slice cursor_text,
                         int64_t row, tm_error *err) {
  job->bytes = BYTES_MAX;
  job->from.row = row;
  job->job.work = conversation_work;
  if (!tm__copy(job->tenant, sizeof(job->tenant), tenant) || !tm__uuid_valid(id) ||
      !tm__copy(job->id, sizeof(job->id), id))
    return tm__fail(err, TM_ENOTFOUND, "conversation.not_found", "there is no conversation %.*s",
                    (int)(id.len < 64 ? id.len : 64), id.ptr);
  memcpy(job->job.tenant, job->tenant, sizeof(job->tenant));
  if (cursor_text.len == 0 || cursor_parse(&job->from, job->what, cursor_text)) return TM_OK;
  return cursor_invalid(err);
}

void tm__reader_conversation(tm_storage *s, tm_slice tenant, tm_slice id, tm_read what,
                             tm_slice cursor_text, int limit, const tm_checkpoints *listed,
                             tm_reply_fn fn, void *ud) {
  tm_error err;
  read_job *job = job_new(s, fn, ud);
  if (job == NULL) return;
  job->listed = listed != NULL ? *listed : tm__checkpoints(NULL, 0);
  job->what = what;
  job->limit = page_size(limit);
  tm_status status = prepare(job, tenant, id, cursor_text, 0, &err);
  if (what == TM_READ_CHECKPOINTS) set_counted(&job->listed, job->from.index);
  if (status == TM_OK)
    tm__storage_run(s, &job->job);
  else
    answer(job, status, &err);
}

void tm__reader_messages(tm_storage *s, const tm_head *head, tm_slice cursor_text, tm_reply_fn fn,
                         void *ud) {
  tm_error err;
  read_job *job = job_new(s, fn, ud);
  if (job == NULL) return;
  job->what = TM_READ_MESSAGES;
  job->limit = PAGE_MAX;
  tm_status status =
      prepare(job, tm__slice(head->tenant), tm__slice(head->id), cursor_text, head->tip, &err);
  job->bytes = SAID_BYTES;
  if (status == TM_OK)
    tm__storage_run(s, &job->job);
  else
    answer(job, status, &err);
}
