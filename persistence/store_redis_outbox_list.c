/* store_redis_outbox_list.c - lists of events: the conversations that have some page by page, of
 * each its keys, then the events themselves some at a time. And what of them has no name. */
#include <stdlib.h>

#include "persistence/store_redis.h"

#define PAGE 32

/* ---- lists ---- */

static tm_status ask_fields(tm_store_conn *c, tm_slice id, redisReply **out, tm_error *err) {
  tm_redis_key k;
  tm_status status = tm__redis_ready(c, err);
  *out = NULL;
  if (status != TM_OK) return status;
  tm__redis_command(c, "HKEYS", 1);
  tm__redis_events_key(&k, c->store, id);
  tm__redis_key_arg(c, &k);
  return tm__redis_ask(c, out, err);
}

static int later_first(const void *a, const void *b) {
  return memcmp(((const tm_slice *)b)->ptr, ((const tm_slice *)a)->ptr, TM_REDIS_EVENT_FIELD);
}

/* The fields that are keys of events, below `before` (or ""), newest first. */
static size_t sort_fields(const redisReply *r, const char *before, tm_slice *out) {
  size_t count = 0;
  for (size_t i = 0; i < r->elements; i++) {
    tm_slice field = tm__redis_slice(r->element[i]);
    if (tm__redis_is_event(field) &&
        (before[0] == '\0' || memcmp(field.ptr, before, TM_REDIS_EVENT_FIELD) < 0))
      out[count++] = field;
  }
  if (count > 0) qsort(out, count, sizeof(*out), later_first);
  return count;
}

static bool is_listed(const tm_outgoing *e, const tm_outgoing_filter *f) {
  if (f->tenant.ptr != NULL && !tm__slice_is(f->tenant, e->tenant)) return false;
  return f->dead < 0 || (e->dead_at != 0) == (f->dead != 0);
}

/* Where a list stands. */
typedef struct listing {
  const tm_outgoing_filter *filter;
  size_t left;
  tm_outgoing_fn fn;
  void *ud;
} listing;

/* Gives those of `count` events that are listed. */
static tm_status give_some(tm_store_conn *c, tm_slice id, const tm_slice *fields, size_t count,
                           listing *l, tm_error *err) {
  redisReply *reply;
  tm_redis_key k;
  tm_status status = tm__redis_ready(c, err);
  if (status != TM_OK) return status;
  tm__redis_command(c, "HMGET", 1 + count);
  tm__redis_events_key(&k, c->store, id);
  tm__redis_key_arg(c, &k);
  for (size_t i = 0; i < count; i++)
    tm__redis_arg(c, fields[i]);
  status = tm__redis_ask(c, &reply, err);
  if (status != TM_OK) return status;
  for (size_t i = 0; status == TM_OK && i < count && l->left > 0; i++) {
    tm_outgoing event;
    tm_slice value = tm__redis_slice(tm__redis_item(reply, i));
    if (value.ptr == NULL) continue; /* delivered meanwhile */
    status = tm__redis_decode_event(c->store, id, fields[i], value, &event, err);
    if (status != TM_OK || !is_listed(&event, l->filter)) continue;
    l->left--;
    status = l->fn(l->ud, &event);
  }
  freeReplyObject(reply);
  return status;
}

/* What another program wrote in their place has none. */
static tm_status list_of(tm_store_conn *c, tm_slice id, listing *l, tm_error *err) {
  redisReply *names;
  char before[32] = "";
  tm_error why;
  const tm_outgoing_filter *f = l->filter;
  tm_status status = ask_fields(c, id, &names, &why);
  if (status == TM_ECORRUPT) return TM_OK;
  if (status != TM_OK && err != NULL) *err = why;
  if (status != TM_OK) return status;
  if (tm__slice_is(id, f->before))
    (void)tm__redis_event_field(before, f->before_revision, f->before_index);
  tm_slice *fields = calloc(names->elements + 1, sizeof(*fields));
  size_t count = fields != NULL ? sort_fields(names, before, fields) : 0;
  if (fields == NULL) status = tm__fail_memory(err, "events");
  for (size_t at = 0; status == TM_OK && at < count && l->left > 0; at += PAGE)
    status = give_some(c, id, fields + at, count - at < PAGE ? count - at : PAGE, l, err);
  free(fields);
  freeReplyObject(names);
  return status;
}

/* What stands behind `edge`, which moves on. */
static tm_status page_of_ids(tm_store_conn *c, tm_buf *edge, redisReply **out, tm_error *err) {
  tm_redis_key k;
  tm_status status = tm__redis_ready(c, err);
  *out = NULL;
  if (status != TM_OK) return status;
  tm__redis_key(&k, c->store, "outbox:ids");
  tm__redis_command(c, "ZREVRANGEBYLEX", 6);
  tm__redis_key_arg(c, &k);
  tm__redis_arg(c, tm__buf_view(edge));
  tm__redis_text(c, "-");
  tm__redis_text(c, "LIMIT");
  tm__redis_int(c, 0);
  tm__redis_int(c, PAGE);
  status = tm__redis_ask(c, out, err);
  if (status != TM_OK || (*out)->elements == 0) return status;
  tm__buf_clear(edge);
  tm__buf_byte(edge, '(');
  tm__buf_slice(edge, tm__redis_slice((*out)->element[(*out)->elements - 1]));
  return tm__buf_ok(edge) ? TM_OK : tm__fail_memory(err, "events");
}

/* What is done with an id of the list, which may be none. */
typedef tm_status (*id_fn)(tm_store_conn *c, tm_slice id, void *ud, tm_error *err);

static tm_status each_id(tm_store_conn *c, const char *before, const size_t *left, id_fn fn,
                         void *ud, tm_error *err) {
  tm_buf edge = {0};
  size_t count = PAGE;
  tm_status status = TM_OK;
  tm__buf_text(&edge, before[0] != '\0' ? "[" : "+");
  tm__buf_text(&edge, before);
  while (status == TM_OK && *left > 0 && count == PAGE) {
    redisReply *ids;
    status = page_of_ids(c, &edge, &ids, err);
    count = status == TM_OK ? ids->elements : 0;
    for (size_t i = 0; status == TM_OK && i<count && * left> 0; i++)
      status = fn(c, tm__redis_slice(ids->element[i]), ud, err);
    freeReplyObject(ids);
  }
  tm__buf_free(&edge);
  return status;
}

static tm_status list_id(tm_store_conn *c, tm_slice id, void *ud, tm_error *err) {
  listing *l = ud;
  if (!tm__name_fits(id, TM_ID_SIZE - 1)) return TM_OK;
  return list_of(c, id, l, err);
}

tm_status tm__redis_outbox_list(tm_store_conn *c, const tm_outgoing_filter *f, tm_outgoing_fn fn,
                                void *ud, tm_error *err) {
  listing l = {f, f->limit, fn, ud};
  return each_id(c, f->before, &l.left, list_id, &l, err);
}

/* ---- what has no name ---- */

typedef struct nameless {
  tm_unreadable_fn fn;
  void *ud;
} nameless;

static tm_status tell_of(tm_store_conn *c, tm_slice id, void *ud, tm_error *err) {
  const nameless *n = ud;
  redisReply *fields;
  tm_error why = {.status = TM_OK};
  tm_outgoing event;
  if (!tm__name_fits(id, TM_ID_SIZE - 1)) {
    (void)tm__store_nameless("an event", id, c->store->place, &why);
    return n->fn(n->ud, &why);
  }
  tm_status status = ask_fields(c, id, &fields, &why);
  if (status == TM_ECORRUPT) return n->fn(n->ud, &why); /* what another program wrote */
  if (status != TM_OK && err != NULL) *err = why;
  for (size_t i = 0; status == TM_OK && i < fields->elements; i++) {
    tm_slice field = tm__redis_slice(fields->element[i]);
    if (tm__redis_decode_event(c->store, id, field, TM_S(""), &event, NULL) == TM_OK) continue;
    (void)tm__store_nameless("an event", field, c->store->place, &why);
    (void)tm__copy(why.conversation_id, sizeof(why.conversation_id), id);
    status = n->fn(n->ud, &why);
  }
  freeReplyObject(fields);
  return status;
}

tm_status tm__redis_nameless_events(tm_store_conn *c, tm_unreadable_fn fn, void *ud,
                                    tm_error *err) {
  const size_t all = SIZE_MAX;
  nameless n = {fn, ud};
  return each_id(c, "", &all, tell_of, &n, err);
}
