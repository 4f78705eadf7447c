/* encode.c - compresses and seals the texts of a commit, on the thread of who commits. */
#include "storage/encode.h"

#include <stdlib.h>

static tm_status encode_row(tm_encoding *e, tm_codec *codec, const tm_head *head, bool compress,
                            bool seal, tm_error *err) {
  const tm_place at = {.tenant = tm__slice(head->tenant),
                       .conversation = tm__slice(head->id),
                       .revision = head->revision,
                       .kind = e->row.kind};
  tm_stored stored;
  if (e->row.flags != 0) return TM_OK; /* it comes as it is to be stored */
  tm_status status =
      tm__codec_encode(codec, &at, e->plain_row->body, compress, seal, &e->bytes[0], &stored, err);
  e->row.body = stored.bytes;
  e->row.flags = stored.flags;
  return status;
}

static tm_status encode_text(tm_slice *text, uint32_t *flags, tm_buf *bytes, tm_codec *codec,
                             const tm_place *at, bool seal, tm_error *err) {
  tm_stored stored;
  if (text->ptr == NULL) return TM_OK;
  tm_status status = tm__codec_encode(codec, at, *text, false, seal, bytes, &stored, err);
  *text = stored.bytes;
  *flags = stored.flags;
  return status;
}

/* A session as the store keeps it; its texts lie in `bytes`. */
static tm_status encode_session(tm_session *out, tm_buf bytes[2], tm_codec *codec, tm_slice tenant,
                                tm_slice id, const tm_session *plain, bool seal, tm_error *err) {
  tm_place at = {.tenant = tenant, .session = id, .field = TM_S("user_id")};
  *out = *plain;
  out->flags = 0;
  tm_status status = encode_text(&out->user_id, &out->flags, &bytes[0], codec, &at, seal, err);
  at.field = TM_S("metadata");
  if (status == TM_OK)
    status = encode_text(&out->metadata, &out->flags, &bytes[1], codec, &at, seal, err);
  return status;
}

static tm_status encode_event(tm_outgoing *event, tm_buf *bytes, tm_codec *codec, const tm_head *h,
                              size_t index, bool seal, tm_error *err) {
  const tm_place at = {.tenant = tm__slice(h->tenant),
                       .conversation = tm__slice(h->id),
                       .revision = h->revision,
                       .event = true,
                       .index = (int)index};
  tm_stored stored;
  tm_buf one = {0};
  tm_status status = tm__codec_encode(codec, &at, event->body, false, seal, &one, &stored, err);
  if (status == TM_OK) {
    tm__buf_slice(bytes, stored.bytes);
    event->flags = stored.flags;
    event->body.len = stored.bytes.len;
  }
  tm__buf_free(&one);
  return status;
}

/* Their bodies come to lie in one text, which moves until all are in it. */
static tm_status encode_events(tm_encoding *e, tm_codec *codec, tm_commit *commit, bool seal,
                               tm_error *err) {
  tm_buf *bytes = &e->bytes[3];
  tm_status status = TM_OK;
  size_t from = 0;
  e->events = calloc(commit->event_count, sizeof(*e->events));
  if (e->events == NULL) return tm__fail_memory(err, "events");
  for (size_t i = 0; status == TM_OK && i < commit->event_count; i++) {
    e->events[i] = commit->events[i];
    status = encode_event(&e->events[i], bytes, codec, &commit->head, i, seal, err);
  }
  if (status == TM_OK && !tm__buf_ok(bytes)) status = tm__fail_memory(err, "events");
  for (size_t i = 0; status == TM_OK && i < commit->event_count; i++) {
    e->events[i].body.ptr = bytes->ptr + from;
    from += e->events[i].body.len;
  }
  commit->events = e->events;
  return status;
}

tm_status tm__encoding_begin(tm_encoding *e, tm_codec *codec, tm_commit *commit, bool compress,
                             bool seal, tm_error *err) {
  const tm_head *h = &commit->head;
  tm_status status = TM_OK;
  e->plain_row = commit->row;
  e->plain_session = commit->session;
  e->plain_events = commit->events;
  if (commit->row != NULL) {
    e->row = *commit->row;
    commit->row = &e->row;
    status = encode_row(e, codec, h, compress, seal, err);
  }
  if (status == TM_OK && commit->session != NULL) {
    commit->session = &e->session;
    status = encode_session(&e->session, &e->bytes[1], codec, tm__slice(h->tenant),
                            tm__slice(h->session), e->plain_session, seal, err);
  }
  if (status == TM_OK && commit->event_count > 0)
    status = encode_events(e, codec, commit, seal, err);
  if (status != TM_OK) tm__encoding_end(e, commit);
  return status;
}

void tm__encoding_end(tm_encoding *e, tm_commit *commit) {
  if (commit->row == &e->row) commit->row = e->plain_row;
  if (commit->session == &e->session) commit->session = e->plain_session;
  if (e->events != NULL) commit->events = e->plain_events;
  free(e->events);
  e->events = NULL;
  for (size_t i = 0; i < sizeof(e->bytes) / sizeof(e->bytes[0]); i++) {
    tm__buf_free(&e->bytes[i]);
  }
}
