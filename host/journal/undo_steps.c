/* undo_steps.c - the executions that a rollback goes over: which of them cannot be taken back, and
 * which have a function that takes them back. What a step says about it is in its record: `undo`
 * (the flow whose step has the function), `irreversible`, `undoes` (it was such a function). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "journal/slot.h"

#define STEPS_MOST   65536             /* looked at for one rollback */
#define OUTPUTS_MOST (7 * 1024 * 1024) /* a part of a row has at most 8 MiB, the steps of one 6 */

enum { UNSAID, REVERSIBLE, IRREVERSIBLE };

typedef struct tm_undo_step {
  int64_t seq, undoes, attempt;
  int64_t first; /* of a subflow step: the first execution with effects in its flow; else 0 */
  char step_id[65], branch[65];
  char flow[65]; /* that it belongs to, where that is not the conversation's */
  bool completed, called, has_undo;
  bool aside;   /* it interrupted the flow that it was in, and is no part of it */
  bool decided; /* by somebody else than the user, or by the time that he had */
  int says;     /* about being irreversible */
  tm_buf text;  /* what its function gets; empty: it has none */
} tm_undo_step;

static tm_undo_step *append(tm_undo_steps *u) {
  if (u->count == u->cap) {
    size_t cap = u->cap == 0 ? 16 : u->cap * 2;
    tm_undo_step *items = realloc(u->items, cap * sizeof(*items));
    if (items == NULL) return NULL;
    u->items = items;
    u->cap = cap;
  }
  u->items[u->count] = (tm_undo_step){0};
  return &u->items[u->count++];
}

/* Of a JSON text, what stands in its quotes; of anything else nothing. */
static void copy_id(char *out, size_t size, tm_slice text) {
  if (text.len >= 2) (void)tm__copy(out, size, (tm_slice){text.ptr + 1, text.len - 2});
}

/* ---- the walk ---- */

/* The numbers fall along the walk. */
static tm_undo_step *find(const tm_undo_steps *u, int64_t seq) {
  size_t low = 0;
  size_t high = u->count;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (u->items[middle].seq > seq) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low < u->count && u->items[low].seq == seq ? &u->items[low] : NULL;
}

/* How far a branch has come, "SEQ:BRANCH:kept:N", is no call. */
static bool is_progress(tm_slice key) {
  static const tm_slice mark = {":kept:", 6};
  for (size_t i = 0; i + mark.len <= key.len; i++) {
    if (memcmp(key.ptr + i, mark.ptr, mark.len) == 0) return true;
  }
  return false;
}

/* The branch in a key "SEQ:BRANCH.NUMBER:…", and the number of its own execution; else 0. */
static int64_t branch_of(tm_slice key, tm_slice *branch) {
  const char *colon = memchr(key.ptr, ':', key.len);
  if (colon == NULL) return 0;
  const char *name = colon + 1;
  const char *dot = memchr(name, ':', (size_t)(key.ptr + key.len - name));
  while (dot != NULL && dot > name && *dot != '.')
    dot--;
  if (dot == NULL || dot == name) return 0;
  *branch = (tm_slice){name, (size_t)(dot - name)};
  return strtoll(dot + 1, NULL, 10);
}

/* Behind a step come the executions of its branches: of one branch the number-th. */
static tm_undo_step *find_in_branch(const tm_undo_steps *u, const tm_undo_step *step,
                                    tm_slice branch, int64_t number) {
  for (size_t i = (size_t)(step - u->items); i > 0 && u->items[i - 1].branch[0] != '\0'; i--) {
    tm_undo_step *inner = &u->items[i - 1];
    if (tm__slice_cmp(tm__slice(inner->branch), branch) == 0 && --number == 0) return inner;
  }
  return NULL;
}

/* A call whose step is not known (yet): its key is that of an attempt before, as ctx:once has it,
 * or the turn was cancelled within the step. */
static bool add_call(tm_undo_steps *u, const tm_row_fields *f) {
  tm_slice key = tm__json_get(f->call, "key");
  if (is_progress(key)) return true;
  int64_t seq = key.len > 1 ? strtoll(key.ptr + 1, NULL, 10) : 0; /* behind the quote; it ends */
  tm_undo_step *step = find(u, seq);
  tm_slice branch;
  int64_t number = step != NULL ? branch_of(key, &branch) : 0;
  tm_undo_step *inner = number > 0 ? find_in_branch(u, step, branch, number) : NULL;
  if (inner != NULL) step = inner;
  if (step == NULL) {
    step = append(u);
    if (step == NULL) return false;
    step->seq = seq;
  }
  step->called = true;
  return true;
}

/* Somebody was about to call the outside, and where nothing is recorded of that step, the host died
 * behind that or the turn was given up: it may have left. Else its record says. */
static bool add_begin(tm_undo_steps *u, const tm_row_fields *f) {
  if (tm__json_get(f->runtime, "started").ptr == NULL) return true;
  int64_t seq = tm__json_get_int(f->runtime, "step_seq", 0) + 1;
  if (u->count > 0 && u->items[u->count - 1].seq < seq) return true; /* an attempt before it */
  tm_undo_step *step = find(u, seq);
  if (step != NULL && step->step_id[0] != '\0') return true;
  if (step == NULL) step = append(u);
  if (step == NULL) return false;
  step->seq = seq;
  step->called = true;
  step->says = tm__json_get(f->runtime, "stays").ptr != NULL ? REVERSIBLE : UNSAID;
  copy_id(step->step_id, sizeof(step->step_id), f->step);
  copy_id(step->flow, sizeof(step->flow), tm__json_get(f->runtime, "flow"));
  return true;
}

static tm_slice said(tm_slice messages, int64_t seq) {
  tm_json_walk w;
  tm_slice key;
  tm_slice message;
  bool more = tm__json_walk(&w, messages);
  while (more && tm__json_next(&w, &key, &message)) {
    if (tm__json_get_int(message, "seq", 0) == seq) return tm__json_get(message, "text");
  }
  return (tm_slice){NULL, 0};
}

static bool keep_text(tm_undo_steps *u, tm_undo_step *step, tm_slice json, tm_slice undo,
                      tm_slice messages) {
  int64_t reply = tm__json_get_int(json, "reply", 0);
  tm_slice output = reply > 0 ? said(messages, reply) : tm__json_get(json, "output");
  tm_buf *text = &step->text;
  tm__buf_byte(text, '{');
  tm__json_member_raw(text, "output", output);
  tm__json_member_int(text, "seq", step->seq);
  tm__json_member_raw(text, "step_id", tm__json_get(json, "step_id"));
  tm__json_member_raw(text, "undo", undo);
  tm__buf_byte(text, '}');
  u->bytes += text->len;
  return tm__buf_ok(text);
}

static int says(tm_slice irreversible) {
  if (irreversible.ptr == NULL) return UNSAID;
  return tm__slice_is(irreversible, "true") ? IRREVERSIBLE : REVERSIBLE;
}

/* By its role or its time; or an event has come, which nobody sends again. */
static bool is_decided(tm_slice json, bool completed) {
  tm_slice type = tm__json_get(json, "type");
  bool came = tm__json_get(json, "input").ptr != NULL;
  return tm__slice_is(type, "\"approval\"") ? completed || came
                                            : tm__slice_is(type, "\"wait\"") && came;
}

static bool add_step(tm_undo_steps *u, tm_slice json, tm_slice messages) {
  int64_t seq = tm__json_get_int(json, "seq", 0);
  tm_undo_step *step = find(u, seq);
  if (step == NULL || step->step_id[0] != '\0') step = append(u);
  if (step == NULL) return false;
  tm_slice undo = tm__json_get(json, "undo");
  step->seq = seq;
  step->undoes = tm__json_get_int(json, "undoes", 0);
  step->attempt = tm__json_get_int(json, "attempt", 1);
  step->first = tm__json_get_int(json, "first", 0);
  copy_id(step->step_id, sizeof(step->step_id), tm__json_get(json, "step_id"));
  copy_id(step->branch, sizeof(step->branch), tm__json_get(json, "branch"));
  copy_id(step->flow, sizeof(step->flow), tm__json_get(json, "flow"));
  step->completed = tm__slice_is(tm__json_get(json, "status"), "\"completed\"");
  step->called = step->called || tm__slice_is(tm__json_get(json, "called"), "true");
  step->aside = tm__slice_is(tm__json_get(json, "aside"), "true");
  step->decided = is_decided(json, step->completed);
  step->says = says(tm__json_get(json, "irreversible"));
  step->has_undo = undo.ptr != NULL;
  return !step->has_undo || !step->completed || keep_text(u, step, json, undo, messages);
}

static bool add_all(tm_texts *out, tm_slice array) {
  tm_json_walk w;
  tm_slice key;
  tm_slice value;
  bool more = tm__json_walk(&w, array);
  while (more && tm__json_next(&w, &key, &value)) {
    if (!tm__texts_add(out, value)) return false;
  }
  return true;
}

static bool add_undone(tm_undo_steps *u, const tm_row_fields *f) {
  return add_all(&u->undone, tm__json_get(f->undo, "undone")) &&
         add_all(&u->given_up, tm__json_get(f->undo, "called"));
}

static size_t length(tm_slice array) {
  tm_json_walk w;
  tm_slice key;
  tm_slice value;
  size_t n = 0;
  bool more = tm__json_walk(&w, array);
  while (more && tm__json_next(&w, &key, &value)) {
    n++;
  }
  return n;
}

/* A row has its executions the oldest first. */
static bool add_row(tm_undo_steps *u, const tm_row_fields *f) {
  tm_json_walk w;
  tm_slice key;
  size_t count = length(f->steps);
  if (count == 0) return true;
  tm_slice *steps = calloc(count, sizeof(*steps));
  if (steps == NULL || !tm__json_walk(&w, f->steps)) {
    free(steps);
    return false;
  }
  for (size_t i = 0; i < count; i++) {
    (void)tm__json_next(&w, &key, &steps[i]);
  }
  bool ok = true;
  for (size_t i = count; i > 0 && ok; i--) {
    ok = add_step(u, steps[i - 1], f->messages);
  }
  free(steps);
  return ok;
}

tm_status tm__undo_steps_add(tm_undo_steps *u, const tm_row *row, const tm_row_fields *f,
                             tm_error *err) {
  bool begun = row->kind != TM_ROW_BEGIN || add_begin(u, f); /* behind the steps that it holds */
  bool kept = row->kind == TM_ROW_CALL   ? add_call(u, f)
              : row->kind == TM_ROW_UNDO ? add_undone(u, f)
                                         : begun && add_row(u, f);
  if (!kept) return tm__fail_memory(err, "a rollback");
  if (u->count <= STEPS_MOST && u->bytes <= OUTPUTS_MOST) return TM_OK;
  return tm__fail(
      err, TM_ECONFLICT, "rollback.limit",
      "more than %d steps, or %d bytes of what they returned, lie before the target; go "
      "back less at once",
      STEPS_MOST, OUTPUTS_MOST);
}

/* ---- what is found ---- */

static bool is_undone(const tm_undo_steps *u, int64_t seq) {
  for (size_t i = 0; i < u->undone.count; i++) {
    if (strtoll(u->undone.items[i].ptr, NULL, 10) == seq) return true;
  }
  for (size_t i = 0; i < u->count && u->items[i].seq > seq; i++) {
    if (u->items[i].completed && u->items[i].undoes == seq) return true;
  }
  return false;
}

/* A failed attempt is taken back with the one that completed the step. */
static bool is_covered(const tm_undo_steps *u, size_t at) {
  for (size_t i = at; i > 0; i--) {
    const tm_undo_step *next = &u->items[i - 1];
    const tm_undo_step *step = &u->items[i];
    if (strcmp(next->step_id, step->step_id) != 0 || next->attempt != step->attempt + 1)
      return false;
    if (next->completed) return true;
  }
  return false;
}

/* The flow of a step had effects before the target, or before a fork: its `undo`, which takes them
 * all back, is none for those behind. */
static bool reaches_back(const tm_undo_steps *u, const tm_undo_step *step) {
  return step->completed && step->has_undo && step->first > 0 &&
         step->first < u->items[u->count - 1].seq;
}

static bool takes_all_back(const tm_undo_step *outer) {
  return outer->says == REVERSIBLE || (outer->has_undo && outer->completed);
}

/* What a flow did is also taken back, or may stay, where the step that it was called by says so:
 * for all that are older than it, from which execution on. */
static int64_t covered_from(const tm_undo_steps *u, const tm_undo_step *step, int64_t from) {
  bool covers = step->first > 0 && takes_all_back(step) && !reaches_back(u, step);
  return covers && step->first < from ? step->first : from;
}

/* Likewise the step of a branch, where its parallel step says so. */
static bool is_covered_outside(const tm_undo_steps *u, size_t at) {
  if (u->items[at].branch[0] == '\0') return false;
  while (at + 1 < u->count && u->items[at].branch[0] != '\0')
    at++;
  return takes_all_back(&u->items[at]);
}

static bool cannot_be_undone(const tm_undo_steps *u, size_t at, int64_t covered) {
  const tm_undo_step *step = &u->items[at];
  if (step->undoes != 0)
    return step->completed && u->count > 0 && step->undoes < u->items[u->count - 1].seq;
  if (step->says == IRREVERSIBLE) return step->completed || step->called;
  if (reaches_back(u, step)) return true;
  if (!step->called || step->says == REVERSIBLE || is_undone(u, step->seq)) return false;
  if ((step->seq >= covered && !step->aside) || is_covered_outside(u, at)) return false;
  return !step->has_undo || (!step->completed && !is_covered(u, at));
}

static bool is_listed(const tm_buf *names, tm_slice id) {
  for (const char *at = names->ptr, *end = at + names->len; at != NULL && at < end;) {
    const char *comma = memchr(at, ',', (size_t)(end - at));
    const char *over = comma == NULL ? end : comma;
    if (tm__slice_cmp((tm_slice){at, (size_t)(over - at)}, id) == 0) return true;
    at = comma == NULL ? NULL : comma + 2;
  }
  return false;
}

static void add_name(tm_buf *names, tm_slice id) {
  if (is_listed(names, id)) return;
  if (names->len > 0) tm__buf_text(names, ", ");
  tm__buf_slice(names, id);
}

enum { NAME_SIZE = sizeof(((tm_undo_step *)NULL)->flow) + sizeof(((tm_undo_step *)NULL)->step_id) };

static tm_slice name_of(const tm_undo_step *step, char name[NAME_SIZE]) {
  if (step->step_id[0] == '\0') {
    (void)snprintf(name, NAME_SIZE, "step %lld", (long long)step->seq);
  } else {
    const char *slash = step->flow[0] == '\0' ? "" : "/";
    (void)snprintf(name, NAME_SIZE, "%s%s%s", step->flow, slash, step->step_id);
  }
  return tm__slice(name);
}

void tm__undo_steps_irreversible(const tm_undo_steps *u, tm_buf *names) {
  char name[NAME_SIZE];
  int64_t covered = INT64_MAX;
  for (size_t i = 0; i < u->count; i++) {
    if (cannot_be_undone(u, i, covered)) add_name(names, name_of(&u->items[i], name));
    covered = covered_from(u, &u->items[i], covered);
  }
  for (size_t i = 0; i < u->given_up.count; i++) {
    tm_slice id = u->given_up.items[i];
    if (id.len > 2) add_name(names, (tm_slice){id.ptr + 1, id.len - 2});
  }
}

const char *tm__undo_steps_decided(const tm_undo_steps *u) {
  for (size_t i = 0; i < u->count; i++) {
    if (u->items[i].decided) return u->items[i].step_id;
  }
  return NULL;
}

/* Without its record nobody knows any more what an `undo` would have to take back. */
static bool stays_done(const tm_undo_step *step) {
  if (step->undoes != 0 || step->says == REVERSIBLE) return false;
  return step->called || (step->completed && (step->has_undo || step->says == IRREVERSIBLE));
}

void tm__undo_steps_called(const tm_undo_steps *u, tm_buf *out) {
  char name[NAME_SIZE];
  tm__buf_byte(out, '[');
  for (size_t i = 0; i < u->count; i++) {
    if (!stays_done(&u->items[i])) continue;
    tm__json_comma(out);
    tm__json_string(out, name_of(&u->items[i], name));
  }
  tm__buf_byte(out, ']');
}

size_t tm__undo_steps_write(const tm_undo_steps *u, size_t most, bool *more, tm_buf *out) {
  size_t written = 0, bytes = 0;
  *more = false;
  tm__buf_byte(out, '[');
  for (size_t i = 0; i < u->count; i++) {
    const tm_undo_step *step = &u->items[i];
    if (step->text.len == 0 || is_undone(u, step->seq) || reaches_back(u, step)) continue;
    bytes += step->text.len;
    *more = written > 0 && bytes > most;
    if (*more) break;
    if (written++ > 0) tm__buf_byte(out, ',');
    tm__buf_slice(out, tm__buf_view(&step->text));
  }
  tm__buf_byte(out, ']');
  return written;
}

static void add_place(tm_texts *out, bool *ok, const tm_undo_step *step) {
  tm_slice flow = tm__json_get(tm__buf_view(&step->text), "undo");
  tm_buf place = {0};
  if (flow.len > 2) tm__buf_add(&place, flow.ptr, flow.len - 1); /* with its quote */
  tm__buf_byte(&place, '/');
  tm__buf_text(&place, step->step_id);
  tm__buf_byte(&place, '"');
  for (size_t i = 0; i < out->count; i++) {
    if (tm__slice_cmp(out->items[i], tm__buf_view(&place)) != 0) continue;
    tm__buf_free(&place);
    return;
  }
  *ok = tm__texts_take(out, &place) && *ok;
}

bool tm__undo_steps_places(const tm_undo_steps *u, tm_buf *out) {
  tm_texts places = {0};
  bool ok = true;
  for (size_t i = 0; i < u->count; i++) {
    if (u->items[i].text.len > 0 && !is_undone(u, u->items[i].seq))
      add_place(&places, &ok, &u->items[i]);
  }
  tm__buf_byte(out, '[');
  for (size_t i = 0; i < places.count; i++) {
    tm__json_comma(out);
    tm__buf_slice(out, places.items[i]);
  }
  tm__buf_byte(out, ']');
  tm__texts_free(&places);
  return ok && tm__buf_ok(out);
}

static void add_seq(tm_buf *out, int64_t seq, int64_t first) {
  if (seq >= first) return;
  tm__json_comma(out);
  tm__json_int(out, seq);
}

void tm__undo_steps_before(const tm_undo_steps *u, tm_buf *out) {
  int64_t first = u->count > 0 ? u->items[u->count - 1].seq : INT64_MAX;
  tm__buf_byte(out, '[');
  for (size_t i = 0; i < u->undone.count; i++) {
    add_seq(out, strtoll(u->undone.items[i].ptr, NULL, 10), first);
  }
  for (size_t i = 0; i < u->count; i++) {
    const tm_undo_step *step = &u->items[i];
    if (step->undoes != 0 && step->completed) add_seq(out, step->undoes, first);
  }
  tm__buf_byte(out, ']');
}

void tm__undo_steps_free(tm_undo_steps *u) {
  for (size_t i = 0; i < u->count; i++) {
    tm__buf_free(&u->items[i].text);
  }
  free(u->items);
  tm__texts_free(&u->undone);
  tm__texts_free(&u->given_up);
  *u = (tm_undo_steps){0};
}
