/* store_file_change.c - what is written besides commits: what goes, other bodies for rows,
 * sessions, scripts, notes, tenants. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/json.h"
#include "persistence/store_file.h"

/* ---- what goes ---- */

/* Has it an event that is neither delivered nor dead? */
static tm_status waits(tm_store_conn *c, tm_slice id, bool *out, tm_error *err) {
  sqlite3_stmt *st;
  tm_status status = tm__file_bind(c, TM_FSQL_WAITING, &st, err, "t", id);
  if (status == TM_OK) status = tm__file_step(c, st, out, err);
  if (status == TM_OK) sqlite3_reset(st);
  return status;
}

static tm_status drop_conversation(tm_store_conn *c, tm_slice id, int64_t expect_revision,
                                   bool undelivered, tm_error *err) {
  tm_file_entry entry = {0};
  bool stays = false;
  tm_status status = tm__file_entry(c, id, &entry, err);
  if (status == TM_ECORRUPT)
    entry.found = true; /* what cannot be read can still be removed */
  else if (status != TM_OK)
    return status;
  else if (!entry.found)
    return tm__file_not_found(err, "conversation");
  else if (entry.state.head.revision != expect_revision)
    return tm__purge_conflict(id, err);
  status = undelivered ? TM_OK : waits(c, id, &stays, err);
  if (status == TM_OK && stays) return tm__purge_conflict(id, err);
  if (status == TM_OK) status = tm__file_drop_events(c, id, err);
  if (status != TM_OK) return status;
  return tm__file_add_remove(c, &(tm_file_name){TM_FILE_CONVERSATION, id, {0}}, err);
}

tm_status tm__file_purge(tm_store_conn *c, tm_slice id, int64_t expect_revision, bool undelivered,
                         tm_error *err) {
  tm_status status = tm__file_begin(c, err);
  if (status != TM_OK) return status;
  return tm__file_finish(c, drop_conversation(c, id, expect_revision, undelivered, err), err);
}

/* A purge has removed the log already; what is left are start keys that nobody knows any more. They
 * are in the index only: a frame of today does not have them. */
static tm_status expire_keys(tm_store_conn *c, size_t limit, bool *more, tm_error *err) {
  sqlite3_stmt *st;
  int64_t since = c->store->now_ms(c->store->now_ud) - TM_KEY_AGE_MS;
  tm_status status = tm__file_do(c, TM_FSQL_EXPIRE_KEYS, err, "ii", since,
                                 limit > INT32_MAX ? INT32_MAX : (int64_t)limit);
  if (status == TM_OK) status = tm__file_bind(c, TM_FSQL_OLD_KEY, &st, err, "i", since);
  if (status == TM_OK) status = tm__file_step(c, st, more, err);
  if (status != TM_OK) return status;
  sqlite3_reset(st);
  return tm__file_do(c, TM_FSQL_COMMIT, err, "");
}

tm_status tm__file_sweep(tm_store_conn *c, size_t limit, bool *more, tm_error *err) {
  *more = false;
  tm_status status = tm__file_begin(c, err);
  if (status != TM_OK) return status;
  status = expire_keys(c, limit, more, err);
  if (tm__file_redo_is_full(&c->redo)) tm__file_drain_want(c->store);
  c->ops = 0;
  return tm__file_finish(c, status, err);
}

/* ---- other bodies ---- */

static tm_status find_frame(tm_store_conn *c, int fd, tm_slice id, int64_t row, tm_file_frame *f,
                            tm_error *err) {
  f->moved = row;
  do {
    int64_t at = f->moved;
    tm_file_look look = tm__file_frame_read(f, &c->frame, fd, id, at);
    if (look == TM_FILE_FAILED) return tm__disk_fail(err, "read", "a log");
    if (look != TM_FILE_GOOD || (f->moved != 0 && f->moved <= at))
      return tm__file_log_damaged(err, c->store, id, at, "a row of the journal");
  } while (f->moved != 0);
  return TM_OK;
}

/* Where there is room it takes the old one's place; else it goes to the end, and its place says so.
 * Nothing is cut: the newest frame is the last one always. */
static tm_status replace(tm_store_conn *c, tm_file_entry *entry, const tm_file_frame *f,
                         const tm_row *other, tm_error *err) {
  tm_file_state then;
  tm_row row = f->row;
  tm_slice id = tm__slice(entry->state.head.id);
  tm_file_op op = {.kind = TM_FILE_WRITE, .name = {TM_FILE_CONVERSATION, id, {0}}, .at = f->at};
  int64_t at = f->at, size = f->size;
  if (!tm__file_state_decode(&then, f->head, &c->text))
    return tm__file_log_damaged(err, c->store, id, f->at, "a head");
  row.flags = other->flags;
  row.body = other->body;
  if (row.id == at) row.id = 0;
  size_t undo = c->group.len, begun = tm__file_op_begin(&c->group, &op), content = c->group.len;
  tm__file_frame_encode(&c->group, at, &then, &row, size);
  if (tm__buf_ok(&c->group) && (int64_t)(c->group.len - content) != size) {
    c->group.len = undo; /* too long */
    tm_file_entry before = *entry;
    int64_t end = entry->size;
    row.id = f->row.id;
    tm_status status = tm__file_add_frame(c, entry, &before, &row, err);
    if (status != TM_OK) return status;
    begun = tm__file_op_begin(&c->group, &op);
    tm__file_frame_move(&c->group, id, at, end, size);
  }
  tm__file_op_end(&c->group, begun);
  if (!tm__buf_ok(&c->group)) return tm__fail_memory(err, "a row");
  c->ops++;
  return TM_OK;
}

static tm_status rewrite_in(tm_store_conn *c, tm_file_entry *entry, int fd, const tm_row *row,
                            tm_error *err) {
  tm_file_frame f;
  tm_slice id = tm__slice(entry->state.head.id);
  bool there = true;
  if (row->id <= 0 || row->id >= entry->size) return TM_OK;
  tm_status status = find_frame(c, fd, id, row->id, &f, err);
  if (status == TM_ECORRUPT &&
      tm__file_frame_starts(c, fd, entry, row->id, &there, NULL) == TM_OK && !there)
    return TM_OK;
  if (status != TM_OK) return status;
  return f.has_row && f.row.id == row->id ? replace(c, entry, &f, row, err) : TM_OK;
}

static tm_status rewrite(tm_store_conn *c, const tm_row *row, tm_error *err) {
  tm_file_entry entry = {0};
  if (row->body.len > c->store->row_max)
    return tm__fail(err, TM_ETOOLARGE, "store.too_large",
                    "row %lld of conversation %s would have %zu bytes, more than a store keeps",
                    (long long)row->id, row->conversation, row->body.len);
  tm_status status = tm__file_entry(c, tm__slice(row->conversation), &entry, err);
  if (status != TM_OK || !entry.found) return status;
  tm_buf path = {0};
  tm__file_path(&path, c->store,
                &(tm_file_name){TM_FILE_CONVERSATION, tm__slice(row->conversation), {0}});
  if (!tm__buf_ok(&path)) return tm__fail_memory(err, "the store's path");
  int fd = open(path.ptr, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) status = tm__disk_fail(err, "read", path.ptr);
  if (status == TM_OK) status = rewrite_in(c, &entry, fd, row, err);
  if (fd >= 0) (void)close(fd);
  tm__buf_free(&path);
  return status;
}

tm_status tm__file_rewrite(tm_store_conn *c, const tm_row *rows, size_t count, tm_error *err) {
  tm_status status = tm__file_begin(c, err);
  if (status != TM_OK) return status;
  for (size_t i = 0; status == TM_OK && i < count; i++)
    status = rewrite(c, &rows[i], err);
  return tm__file_finish(c, status, err);
}

/* ---- sessions ---- */

tm_status tm__file_session_keep(tm_store_conn *c, const tm_session *session, tm_error *err) {
  tm_buf json = {0};
  tm__file_session_encode(&json, session);
  tm_status status =
      tm__buf_ok(&json)
          ? tm__file_add_small(c, &(tm_file_name){TM_FILE_SESSION, session->tenant, session->id},
                               tm__buf_view(&json), err)
          : tm__fail_memory(err, "a session");
  tm__buf_free(&json);
  return status;
}

void tm__file_session_encode(tm_buf *b, const tm_session *s) {
  tm__buf_byte(b, '{');
  tm__file_text(b, "user_id", s->user_id);
  tm__file_text(b, "metadata", s->metadata);
  if (s->flags != 0) tm__json_member_int(b, "flags", s->flags);
  tm__json_member_int(b, "created", s->created);
  if (s->look_at != 0) tm__json_member_int(b, "look_at", s->look_at);
  if (s->ended != 0) tm__json_member_int(b, "ended", s->ended);
  tm__buf_byte(b, '}');
}

static tm_status check_session(tm_store_conn *c, const tm_session *expect, const tm_session *s,
                               tm_error *err) {
  if (expect == NULL) return TM_OK;
  tm_status status = tm__file_session(c, s->tenant, s->id, tm__session_is, &expect, err);
  bool moved = status == TM_ECONFLICT || status == TM_ENOTFOUND;
  return moved ? tm__session_moved(s->id, err) : status;
}

tm_status tm__file_session_put(tm_store_conn *c, const tm_session *expect,
                               const tm_session *session, tm_error *err) {
  tm_status status = tm__file_begin(c, err);
  if (status != TM_OK) return status;
  status = check_session(c, expect, session, err);
  if (status == TM_OK) status = tm__file_session_keep(c, session, err);
  return tm__file_finish(c, status, err);
}

static tm_status is_there(tm_store_conn *c, tm_file_sql which, tm_slice a, tm_slice b, bool *found,
                          tm_error *err) {
  sqlite3_stmt *st;
  tm_status status = tm__file_bind(c, which, &st, err, "tt", a, b);
  if (status == TM_OK) status = tm__file_step(c, st, found, err);
  if (status == TM_OK) sqlite3_reset(st);
  return status;
}

static tm_status drop_session(tm_store_conn *c, tm_slice tenant, tm_slice id, tm_error *err) {
  bool used = false, there = false;
  tm_status status = is_there(c, TM_FSQL_SESSION_IN_USE, tenant, id, &used, err);
  if (status == TM_OK && used)
    return tm__fail(err, TM_ECONFLICT, "store.session_in_use",
                    "session %.*s has conversations: they go first", (int)id.len, id.ptr);
  if (status == TM_OK) status = is_there(c, TM_FSQL_SESSION, tenant, id, &there, err);
  if (status != TM_OK || !there) return status;
  return tm__file_add_remove(c, &(tm_file_name){TM_FILE_SESSION, tenant, id}, err);
}

tm_status tm__file_session_drop(tm_store_conn *c, tm_slice tenant, tm_slice id, tm_error *err) {
  tm_status status = tm__file_begin(c, err);
  if (status != TM_OK) return status;
  return tm__file_finish(c, drop_session(c, tenant, id, err), err);
}

/* ---- scripts, notes, tenants ---- */

tm_status tm__file_script_put(tm_store_conn *c, tm_slice system, tm_slice version, tm_slice sources,
                              tm_error *err) {
  bool there = false;
  tm_status status = tm__file_begin(c, err);
  if (status != TM_OK) return status;
  status = is_there(c, TM_FSQL_SCRIPT, system, version, &there, err);
  if (status == TM_OK && !there)
    status = tm__file_add_small(c, &(tm_file_name){TM_FILE_SCRIPT, system, version}, sources, err);
  return tm__file_finish(c, status, err);
}

/* Writing it again notes the time. */
static tm_status use_script(tm_store_conn *c, tm_slice system, tm_slice version, tm_error *err) {
  tm_buf sources = {0};
  tm_status status = tm__file_script_get(c, system, version, &sources, err);
  if (status == TM_OK)
    status = tm__file_add_small(c, &(tm_file_name){TM_FILE_SCRIPT, system, version},
                                tm__buf_view(&sources), err);
  tm__buf_free(&sources);
  return status;
}

tm_status tm__file_script_use(tm_store_conn *c, tm_slice system, tm_slice version, tm_error *err) {
  tm_status status = tm__file_begin(c, err);
  return status == TM_OK ? tm__file_finish(c, use_script(c, system, version, err), err) : status;
}

static tm_status drop_script(tm_store_conn *c, tm_slice system, tm_slice version, int64_t before,
                             tm_error *err) {
  sqlite3_stmt *st;
  bool found;
  int64_t used = 0;
  tm_status status = tm__file_bind(c, TM_FSQL_SCRIPT, &st, err, "tt", system, version);
  if (status == TM_OK) status = tm__file_step(c, st, &found, err);
  if (status != TM_OK) return status;
  if (found) used = sqlite3_column_int64(st, 0);
  sqlite3_reset(st);
  if (!found) return tm__file_not_found(err, "version of the system");
  if (used > before) return tm__script_used(system, version, err);
  return tm__file_add_remove(c, &(tm_file_name){TM_FILE_SCRIPT, system, version}, err);
}

tm_status tm__file_script_drop(tm_store_conn *c, tm_slice system, tm_slice version, int64_t before,
                               tm_error *err) {
  tm_status status = tm__file_begin(c, err);
  if (status != TM_OK) return status;
  return tm__file_finish(c, drop_script(c, system, version, before, err), err);
}

static tm_status has_note(tm_store_conn *c, tm_slice name, bool *found, tm_error *err) {
  sqlite3_stmt *st;
  tm_status status = tm__file_bind(c, TM_FSQL_NOTE, &st, err, "t", name);
  if (status == TM_OK) status = tm__file_step(c, st, found, err);
  if (status == TM_OK) sqlite3_reset(st);
  return status;
}

tm_status tm__file_note_put(tm_store_conn *c, tm_slice name, tm_slice text, tm_error *err) {
  bool there = true;
  tm_file_name note = {TM_FILE_NOTE, name, {0}};
  tm_status status = tm__file_begin(c, err);
  if (status != TM_OK) return status;
  if (text.ptr == NULL) status = has_note(c, name, &there, err);
  if (status == TM_OK && text.ptr != NULL) status = tm__file_add_small(c, &note, text, err);
  if (status == TM_OK && text.ptr == NULL && there) status = tm__file_add_remove(c, &note, err);
  return tm__file_finish(c, status, err);
}

static tm_status swap_note(tm_store_conn *c, tm_slice name, tm_slice expect, tm_slice text,
                           tm_error *err) {
  sqlite3_stmt *st;
  bool found, same;
  tm_status status = tm__file_bind(c, TM_FSQL_NOTE, &st, err, "t", name);
  if (status == TM_OK) status = tm__file_step(c, st, &found, err);
  if (status != TM_OK) return status;
  same = found == (expect.ptr != NULL);
  if (same && found) same = tm__slice_eq(tm__file_column(st, 0), expect);
  sqlite3_reset(st);
  if (!same) return tm__store_note_moved(name, err);
  return tm__file_add_small(c, &(tm_file_name){TM_FILE_NOTE, name, {0}}, text, err);
}

tm_status tm__file_note_swap(tm_store_conn *c, tm_slice name, tm_slice expect, tm_slice text,
                             tm_error *err) {
  tm_status status = tm__file_begin(c, err);
  if (status != TM_OK) return status;
  return tm__file_finish(c, swap_note(c, name, expect, text, err), err);
}

/* *now: what stands, -1: nothing is known. */
static tm_status find_wake(tm_store_conn *c, tm_slice tenant, int64_t *now, tm_error *err) {
  sqlite3_stmt *st;
  bool found;
  *now = -1;
  tm_status status = tm__file_bind(c, TM_FSQL_TENANT, &st, err, "t", tenant);
  if (status == TM_OK) status = tm__file_step(c, st, &found, err);
  if (status != TM_OK) return status;
  if (found) *now = sqlite3_column_int64(st, 0);
  sqlite3_reset(st);
  return TM_OK;
}

static tm_status wake_tenant(tm_store_conn *c, tm_slice tenant, int64_t expect, int64_t wake_at,
                             tm_error *err) {
  int64_t now;
  char json[48];
  tm_buf text = {0};
  tm_status status = find_wake(c, tenant, &now, err);
  if (status != TM_OK) return status;
  bool known = now >= 0;
  if (expect >= 0 && (known ? now : 0) != expect)
    return tm__fail(err, TM_ECONFLICT, "store.conflict",
                    "the wake-up of tenant %.*s was changed by another process meanwhile",
                    (int)tenant.len, tenant.ptr);
  if (known && expect < 0 && now > 0 && now <= wake_at) return TM_OK;
  if (known && now == wake_at) return TM_OK;
  tm__buf_printf(&text, "{\"wake_at\":%lld}", (long long)wake_at);
  bool fits = tm__copy(json, sizeof(json), tm__buf_view(&text));
  tm__buf_free(&text);
  if (!fits) return tm__fail_memory(err, "a tenant");
  return tm__file_add_small(c, &(tm_file_name){TM_FILE_TENANT, tenant, {0}}, tm__slice(json), err);
}

tm_status tm__file_tenant_wake(tm_store_conn *c, tm_slice tenant, int64_t expect, int64_t wake_at,
                               tm_error *err) {
  tm_status status = tm__file_begin(c, err);
  if (status != TM_OK) return status;
  return tm__file_finish(c, wake_tenant(c, tenant, expect, wake_at, err), err);
}

static tm_status forget_tenant(tm_store_conn *c, tm_slice tenant, tm_error *err) {
  int64_t now;
  tm_status status = find_wake(c, tenant, &now, err);
  if (status != TM_OK || now < 0) return status;
  return tm__file_add_remove(c, &(tm_file_name){TM_FILE_TENANT, tenant, {0}}, err);
}

/* The lock stays: who waits for it must get the one that others get. */
tm_status tm__file_tenant_drop(tm_store_conn *c, const tm_store_options *own, tm_error *err) {
  tm_store s = {.lock = -1, .timeout_ms = c->store->timeout_ms};
  tm_status status = tm__file_place(&s, own, err);
  if (status == TM_OK) status = tm__file_lock(&s, err);
  if (status == TM_OK && !s.alone) status = tm__disk_in_use(s.root, err);
  if (status == TM_OK) status = tm__disk_empty_folder(s.root, "lock", err);
  if (status == TM_OK) status = tm__file_begin(c, err);
  if (status == TM_OK)
    status = tm__file_finish(c, forget_tenant(c, tm__slice(own->tenant), err), err);
  if (s.lock >= 0) (void)close(s.lock);
  free(s.root);
  return status;
}
