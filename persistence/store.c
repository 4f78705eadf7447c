/* store.c - the list of backends and the names of a conversation's status. */
#include "persistence/store.h"

#include <string.h>

#include "core/utf8.h"

static const char *const status_names[] = {
    [TM_ACTIVE] = "active",
    [TM_WAITING_INPUT] = "waiting_input",
    [TM_WAITING_APPROVAL] = "waiting_approval",
    [TM_WAITING_EVENT] = "waiting_event",
    [TM_WAITING_AGENT] = "waiting_agent",
    [TM_SLEEPING] = "sleeping",
    [TM_PAUSED] = "paused",
    [TM_COMPLETED] = "completed",
    [TM_FAILED] = "failed",
    [TM_EXPIRED] = "expired",
    [TM_CANCELLED] = "cancelled",
};
#define STATUS_COUNT (sizeof(status_names) / sizeof(status_names[0]))

const char *tm__conversation_status_name(tm_conversation_status s) {
  return (size_t)s < STATUS_COUNT ? status_names[s] : "unknown";
}

bool tm__conversation_status_parse(tm_conversation_status *out, tm_slice name) {
  for (size_t i = 0; i < STATUS_COUNT; i++) {
    if (!tm__slice_is(name, status_names[i])) continue;
    *out = (tm_conversation_status)i;
    return true;
  }
  return false;
}

bool tm__conversation_is_over(tm_conversation_status s) {
  return s == TM_COMPLETED || s == TM_FAILED || s == TM_EXPIRED || s == TM_CANCELLED;
}

tm_status tm__commit_check(const tm_commit *item, size_t most) {
  int64_t before = item->expect_revision, now = item->head.revision;
  if (most == 0) most = TM_ROW_MAX;
  if (before < 0 || (item->replay ? now <= before : now != before + 1)) return TM_EINVAL;
  if (item->row == NULL) return item->event_count == 0 ? TM_OK : TM_EINVAL;
  if (item->row->parent == TM_TIP && !item->replay) return TM_EINVAL;
  for (size_t i = 0; i < item->event_count; i++)
    if (item->events[i].body.len > most) return TM_ETOOLARGE;
  return item->row->body.len > most ? TM_ETOOLARGE : TM_OK;
}

bool tm__name_fits(tm_slice name, size_t most) {
  return name.len > 0 && name.len <= most && memchr(name.ptr, '\0', name.len) == NULL &&
         tm__utf8_valid(name);
}

/* What is no name is shown as far as people can read it. */
typedef struct shown_name {
  char text[129];
} shown_name;

static shown_name show(tm_slice name) {
  shown_name s = {""};
  size_t most = sizeof(s.text) - 1, len = name.len < most ? name.len : most;
  bool as_it_is = tm__name_fits((tm_slice){name.ptr, len}, most);
  for (size_t i = 0; i < len; i++) {
    unsigned char c = (unsigned char)name.ptr[i];
    s.text[i] = as_it_is || (c >= ' ' && c <= '~') ? name.ptr[i] : '?';
  }
  return s;
}

bool tm__head_is_damaged(const tm_head *h) {
  return h->tenant[0] == '\0';
}

bool tm__head_is_sound(const tm_head *h) {
  const char *const texts[] = {h->tenant,  h->session, h->system, h->flow,
                               h->version, h->step,    h->claim};
  for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
    if (!tm__utf8_valid(tm__slice(texts[i]))) return false;
  return h->id[0] != '\0' && h->tenant[0] != '\0' && h->revision > 0;
}

void tm__head_spoil(tm_head *h, tm_slice id) {
  *h = (tm_head){.revision = -1, .wake_at = h->wake_at, .created = h->created, .ended = h->ended};
  if (id.len >= sizeof(h->id)) id.len = sizeof(h->id) - 1;
  (void)tm__copy(h->id, sizeof(h->id), id);
}

void tm__head_behind(char out[TM_BEHIND_SIZE], const tm_head *h) {
  static const char last[] = "\xf4\x8f\xbf\xbf"; /* of all characters */
  bool cut = h->revision < 0 && strlen(h->id) == TM_ID_SIZE - 1;
  memcpy(out, h->id, TM_ID_SIZE);
  if (cut) memcpy(out + TM_ID_SIZE - 1, last, sizeof(last));
}

tm_status tm__head_damaged(tm_slice id, const char *place, tm_error *err) {
  return tm__fail(
      err, TM_ECORRUPT, "journal.damaged",
      "the record of conversation %.*s in %.200s is damaged, and was left as it is; the "
      "others go on; restore a backup to have it back",
      TM_ID_SIZE - 1, show(id).text, place);
}

static bool same_text(tm_slice a, tm_slice b) {
  return (a.ptr == NULL) == (b.ptr == NULL) && tm__slice_eq(a, b);
}

tm_status tm__session_is(void *ud, const tm_session *stored) {
  const tm_session *expect = *(const tm_session **)ud;
  bool same = same_text(stored->user_id, expect->user_id) &&
              same_text(stored->metadata, expect->metadata) && stored->flags == expect->flags &&
              stored->created == expect->created && stored->look_at == expect->look_at &&
              stored->ended == expect->ended;
  return same ? TM_OK : TM_ECONFLICT;
}

tm_status tm__store_nameless(const char *what, tm_slice name, const char *place, tm_error *err) {
  return tm__fail(err, TM_ECORRUPT, "store.damaged",
                  "%s in %.200s cannot be named, \"%s\" is damaged; it was left as it is and is in "
                  "no list, the others go on; restore a backup to have it back",
                  what, place, show(name).text);
}

bool tm__session_is_named(const tm_session *s) {
  return tm__name_fits(s->tenant, 64) && tm__name_fits(s->id, 128);
}

void tm__session_spoil(tm_session *s) {
  *s = (tm_session){.tenant = s->tenant,
                    .id = s->id,
                    .created = s->created,
                    .look_at = s->look_at,
                    .damaged = true};
}

void tm__session_check(tm_session *s, int64_t flags) {
  s->flags = (uint32_t)flags;
  bool sound =
      flags >= 0 && flags <= UINT32_MAX && s->created >= 0 && s->look_at >= 0 && s->ended >= 0;
  if (!sound) tm__session_spoil(s);
}

tm_status tm__session_damaged(const tm_session *s, const char *place, tm_error *err) {
  return tm__fail(err, TM_ECORRUPT, "session.damaged",
                  "the record of session %s of tenant %s in %.200s is damaged, and was left as "
                  "it is; the others go on; restore a backup to have it back",
                  show(s->id).text, show(s->tenant).text, place);
}

tm_status tm__session_moved(tm_slice id, tm_error *err) {
  return tm__fail(err, TM_ECONFLICT, "store.conflict",
                  "session %.*s was changed by another process meanwhile",
                  (int)(id.len < 128 ? id.len : 128), id.ptr);
}

void tm__outgoing_of(tm_outgoing *out, const tm_commit *item, size_t index) {
  const tm_outgoing *e = &item->events[index];
  *out = (tm_outgoing){.revision = item->head.revision,
                       .index = item->replay ? e->index : (int)index,
                       .created = e->created,
                       .flags = e->flags,
                       .body = {e->body.ptr != NULL ? e->body.ptr : "", e->body.len}};
  memcpy(out->conversation, item->head.id, sizeof(out->conversation));
  memcpy(out->tenant, item->head.tenant, sizeof(out->tenant));
}

bool tm__outgoing_texts(tm_outgoing *out, tm_slice conversation, tm_slice tenant, tm_slice note) {
  (void)tm__copy(out->tenant, sizeof(out->tenant), tenant);
  (void)tm__copy(out->note, sizeof(out->note), note);
  return tm__copy(out->conversation, sizeof(out->conversation), conversation);
}

tm_status tm__outgoing_check(const tm_outgoing *event, size_t most, tm_error *err) {
  if (event->body.len <= (most != 0 ? most : TM_ROW_MAX)) return TM_OK;
  return tm__fail(err, TM_ETOOLARGE, "store.too_large",
                  "an event of conversation %s has %zu bytes, more than the store keeps",
                  event->conversation, event->body.len);
}

tm_status tm__outgoing_conflict(const tm_outgoing *event, tm_error *err) {
  return tm__fail(err, TM_ECONFLICT, "store.conflict",
                  "event %s:%lld:%d was settled or taken by another process meanwhile",
                  event->conversation, (long long)event->revision, event->index);
}

tm_status tm__purge_conflict(tm_slice id, tm_error *err) {
  return tm__fail(err, TM_ECONFLICT, "store.conflict",
                  "conversation %.*s was changed by another process meanwhile, or has events that "
                  "wait",
                  (int)(id.len < TM_ID_SIZE ? id.len : TM_ID_SIZE), id.ptr);
}

tm_status tm__store_tenant(const char *tenant, tm_error *err) {
  bool dotted = tenant[0] == '.' || tenant[0] == '-';
  size_t len = strspn(tenant, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-");
  if (!dotted && len > 0 && len <= 64 && tenant[len] == '\0') return TM_OK;
  return tm__fail(err, TM_EINVAL, "store.tenant",
                  "\"%.100s\" cannot be a tenant with a store of its own: use 1 to 64 of A-Z, a-z, "
                  "0-9, '_', '.' and '-', with none of the last two at the beginning",
                  tenant);
}

tm_status tm__store_absent(const char *place, tm_error *err) {
  return tm__fail(err, TM_ENOTFOUND, "store.absent", "there is no store at %s", place);
}

tm_status tm__store_older(const char *place, int64_t version, int newest, tm_error *err) {
  return tm__fail(err, TM_EUNSUPPORTED, "store.older",
                  "store %s has the tables of an older program (version %lld, this one writes %d): "
                  "the next `tidemill serve` brings it forward, and the older program refuses it "
                  "afterwards; keep a copy of it",
                  place, (long long)version, newest);
}

const tm_store_backend *tm__store_backend(tm_slice scheme) {
  static const tm_store_backend *const all[] = {
#define BACKEND(name) &tm__store_##name,
#include "persistence/backends.def"
#undef BACKEND
  };
  for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
    if (tm__slice_is(scheme, all[i]->scheme)) return all[i];
  return NULL;
}

tm_status tm__store_no_backup(const tm_store_backend *b, tm_store_conn *c, tm_error *err) {
  tm_buf text = {0};
  tm_status status = b->note_get(c, TM_S(TM_NOTE_BACKUP), &text, err);
  tm__buf_free(&text);
  if (status == TM_ENOTFOUND) return TM_OK;
  return status == TM_OK ? b->note_put(c, TM_S(TM_NOTE_BACKUP), (tm_slice){NULL, 0}, err) : status;
}

tm_status tm__script_used(tm_slice system, tm_slice version, tm_error *err) {
  return tm__fail(err, TM_ECONFLICT, "store.conflict",
                  "version %.*s of system %.*s was put to use meanwhile",
                  (int)(version.len < 32 ? version.len : 32), version.ptr,
                  (int)(system.len < 64 ? system.len : 64), system.ptr);
}

tm_status tm__store_note_moved(tm_slice name, tm_error *err) {
  return tm__fail(err, TM_ECONFLICT, "store.conflict",
                  "the note %.*s was changed by another process meanwhile", (int)name.len,
                  name.ptr);
}
