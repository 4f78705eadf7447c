/* state.c - deltas between two canonical objects: both are sorted, so one merge finds them all. */
#include "journal/state.h"

#include "core/json.h"

/* ---- members in order ---- */

typedef struct cursor { /* one member ahead of an object's walk */
  tm_json_walk walk;
  tm_slice key, value;
  bool more;
} cursor;

static void step(cursor *c) {
  c->more = tm__json_next(&c->walk, &c->key, &c->value);
}

static bool open_object(cursor *c, tm_slice json) {
  *c = (cursor){0};
  if (!tm__json_walk(&c->walk, json) || !c->walk.object) return false;
  step(c);
  return true;
}

/* A walk that stopped before the closing bracket met something malformed. */
static bool closed(const tm_json_walk *w) {
  tm_slice rest = {w->at, (size_t)(w->end - w->at)};
  return tm__slice_is(rest, "}") || tm__slice_is(rest, "{}");
}

static bool has_escape(tm_slice key) {
  for (size_t i = 0; i < key.len; i++) {
    if (key.ptr[i] == '\\') return true;
  }
  return false;
}

/* Keys are sorted by what they mean, not by how they are escaped. Without the memory to know that,
 * `out` fails. */
static int key_order(tm_buf *out, tm_slice a, tm_slice b) {
  if (!has_escape(a) && !has_escape(b)) return tm__slice_cmp(a, b);
  tm_buf x = {0};
  tm_buf y = {0};
  (void)tm__json_unquote((tm_slice){a.ptr - 1, a.len + 2}, &x);
  (void)tm__json_unquote((tm_slice){b.ptr - 1, b.len + 2}, &y);
  int order = tm__slice_cmp(tm__buf_view(&x), tm__buf_view(&y));
  if (!tm__buf_ok(&x) || !tm__buf_ok(&y)) out->failed = true;
  tm__buf_free(&x);
  tm__buf_free(&y);
  return order;
}

/* The order of two cursors' keys; one that is through comes last. */
static int cursor_order(tm_buf *out, const cursor *a, const cursor *b) {
  if (!a->more || !b->more) return (int)b->more - (int)a->more;
  return key_order(out, a->key, b->key);
}

static void add_quoted(tm_buf *out, tm_slice key) { /* as it stands between its quotes */
  tm__buf_slice(out, (tm_slice){key.ptr - 1, key.len + 2});
}

static void add_member(tm_buf *out, const cursor *c) {
  tm__json_comma(out);
  add_quoted(out, c->key);
  tm__buf_byte(out, ':');
  tm__buf_slice(out, c->value);
}

/* ---- making a delta ---- */

static void add_set(tm_buf *out, tm_slice from, tm_slice to) {
  cursor a;
  cursor b;
  if (!open_object(&a, from) || !open_object(&b, to)) return;
  while (b.more) {
    int order = cursor_order(out, &a, &b);
    if (order > 0 || (order == 0 && !tm__slice_eq(a.value, b.value))) add_member(out, &b);
    if (order >= 0) step(&b);
    if (order <= 0) step(&a);
  }
}

static void add_unset(tm_buf *out, tm_slice from, tm_slice to) {
  cursor a;
  cursor b;
  if (!open_object(&a, from) || !open_object(&b, to)) return;
  while (a.more) {
    int order = cursor_order(out, &a, &b);
    if (order < 0) {
      tm__json_comma(out);
      add_quoted(out, a.key);
    }
    if (order <= 0) step(&a);
    if (order >= 0) step(&b);
  }
}

void tm__state_delta(tm_buf *out, tm_slice from, tm_slice to) {
  tm__buf_text(out, "{\"set\":{");
  add_set(out, from, to);
  tm__buf_text(out, "},\"unset\":[");
  add_unset(out, from, to);
  tm__buf_text(out, "]}");
}

/* ---- applying one ---- */

static bool names_next(tm_json_walk *unset, tm_slice *name) {
  tm_slice none;
  tm_slice value;
  *name = (tm_slice){0};
  if (!tm__json_next(unset, &none, &value)) return false;
  if (value.len >= 2 && value.ptr[0] == '"') *name = (tm_slice){value.ptr + 1, value.len - 2};
  return true;
}

/* Is `key` the next of the names that go? They are sorted as the members are. */
static bool is_unset(tm_buf *out, tm_json_walk *unset, tm_slice *name, tm_slice key) {
  while (name->ptr != NULL) {
    int order = key_order(out, *name, key);
    if (order >= 0) return order == 0;
    (void)names_next(unset, name);
  }
  return false;
}

bool tm__state_apply(tm_buf *out, tm_slice from, tm_slice delta) {
  cursor old;
  cursor set;
  tm_json_walk unset;
  tm_slice name;
  if (!open_object(&old, from) || !open_object(&set, tm__json_get(delta, "set"))) return false;
  if (!tm__json_walk(&unset, tm__json_get(delta, "unset")) || unset.object) return false;
  (void)names_next(&unset, &name);
  tm__buf_byte(out, '{');
  while (old.more || set.more) {
    int order = cursor_order(out, &old, &set);
    if (order >= 0) {
      add_member(out, &set);
    } else if (!is_unset(out, &unset, &name, old.key)) {
      add_member(out, &old);
    }
    if (order >= 0) step(&set);
    if (order <= 0) step(&old);
  }
  tm__buf_byte(out, '}');
  return tm__buf_ok(out) && closed(&old.walk) && closed(&set.walk);
}
