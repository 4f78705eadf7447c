/* store_file.c - a folder with one append-only log per conversation: opening, closing, and what the
 * backend provides. Any number of processes of one machine may use it at the same time; one of them
 * writes at a time, the others wait for it, up to the timeout. */
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

#include "persistence/store_file.h"

/* ---- connections ---- */

static tm_status make_conn(tm_store_conn **out, tm_store *s, tm_store_role role, tm_error *err) {
  *out = calloc(1, sizeof(**out));
  if (*out == NULL) return tm__fail_memory(err, "a connection of the store");
  (*out)->store = s;
  (*out)->role = role;
  return TM_OK;
}

static void disconnect(tm_store_conn *c) {
  if (c == NULL) return;
  tm__file_index_close(c);
  tm__buf_free(&c->group);
  tm__buf_free(&c->old);
  tm__buf_free(&c->frame);
  tm__buf_free(&c->text);
  free(c);
}

static tm_status connect_store(tm_store_conn **out, tm_store *s, tm_store_role role,
                               tm_error *err) {
  tm_status status = make_conn(out, s, role, err);
  if (status == TM_OK) status = tm__file_index_open(*out, err);
  if (status == TM_OK) return TM_OK;
  disconnect(*out);
  *out = NULL;
  return status;
}

/* ---- opening ---- */

static bool make_locks(tm_store *s) {
  if (pthread_mutex_init(&s->mutex, NULL) != 0) return false;
  bool writing = pthread_mutex_init(&s->writing, NULL) == 0;
  s->made = writing && pthread_cond_init(&s->wake, NULL) == 0;
  if (s->made) return true;
  if (writing) (void)pthread_mutex_destroy(&s->writing);
  (void)pthread_mutex_destroy(&s->mutex);
  return false;
}

static tm_status set_options(tm_store *s, const tm_store_options *o, tm_error *err) {
  int64_t timeout = o->timeout_ms;
  s->timeout_ms = timeout < 0 ? 0 : timeout > INT_MAX ? INT_MAX : (int)timeout;
  s->row_max = o->record_bytes_max != 0 && o->record_bytes_max < TM_ROW_MAX ? o->record_bytes_max
                                                                            : TM_ROW_MAX;
  s->opening = o->opening;
  s->now_ms = o->now_ms;
  s->now_ud = o->now_ud;
  if (!make_locks(s)) return tm__fail_memory(err, "the store's locks");
  return tm__file_place(s, o, err);
}

/* Nobody else has the store open, so whoever holds a claim now is dead. */
static tm_status note_dead_claims(tm_store *s, tm_error *err) {
  sqlite3_stmt *st;
  bool found = true;
  tm_status status = tm__file_bind(s->keeper, TM_FSQL_CLAIMS, &st, err, "");
  while (status == TM_OK && found) {
    char claim[TM_ID_SIZE] = "";
    status = tm__file_step(s->keeper, st, &found, err);
    if (status == TM_OK && found && tm__copy(claim, sizeof(claim), tm__file_column(st, 0)))
      tm__buf_add(&s->dead, claim, sizeof(claim));
  }
  if (status != TM_OK) return status;
  sqlite3_reset(st);
  return tm__buf_ok(&s->dead) ? TM_OK : tm__fail_memory(err, "the claims of dead hosts");
}

static tm_status open_shared(tm_store *s, tm_error *err) {
  tm_status status = tm__file_index_check(s, err);
  if (status == TM_ENOTFOUND)
    return tm__fail(err, TM_EUNAVAILABLE, "store.busy",
                    "store %s: its index must be made anew, but another process uses it: stop that "
                    "one first",
                    s->root);
  if (status == TM_OK) status = tm__file_identify(s, err);
  return status == TM_OK ? tm__file_index_open(s->keeper, err) : status;
}

static tm_status open_store(tm_store *s, tm_error *err) {
  tm_status status = make_conn(&s->keeper, s, TM_STORE_WRITER, err);
  if (status == TM_OK) status = tm__file_furnish(s, err);
  if (status == TM_OK) status = tm__file_redo_open(s, err);
  if (status != TM_OK) return status;
  status = s->alone ? tm__file_recover_store(s, err) : open_shared(s, err);
  if (status == TM_OK && s->alone) status = tm__file_sync_folder(s->root, err);
  if (status == TM_OK && s->alone) status = note_dead_claims(s, err);
  return status;
}

/* The last one leaves a folder that needs no redo log. What fails is done at the next opening. */
static void leave(tm_store *s) {
  tm_file_redo redo;
  if (s->keeper->index.db == NULL || !tm__file_lock_alone(s)) return;
  if (tm__file_meta_read(s->keeper, &redo, NULL) != TM_OK) return;
  if (redo.file < 0 || (tm__file_drain(s->keeper, 1 - redo.file, true, NULL) == TM_OK &&
                        tm__file_drain(s->keeper, redo.file, true, NULL) == TM_OK))
    tm__file_index_leave(s->keeper);
}

static void release(tm_store *s) {
  disconnect(s->keeper);
  for (int i = 0; i < 2; i++)
    if (s->redo[i] >= 0) (void)close(s->redo[i]);
  if (s->lock >= 0) (void)close(s->lock);
  if (s->made) {
    (void)pthread_cond_destroy(&s->wake);
    (void)pthread_mutex_destroy(&s->writing);
    (void)pthread_mutex_destroy(&s->mutex);
  }
  tm__buf_free(&s->dead);
  free(s->root);
  free(s);
}

static void file_close(tm_store *s) {
  if (s == NULL) return;
  tm__file_drain_stop(s);
  leave(s);
  release(s);
}

static tm_status file_open(tm_store **out, const tm_store_options *o, tm_error *err) {
  *out = NULL;
  tm_store *s = calloc(1, sizeof(*s));
  if (s == NULL) return tm__fail_memory(err, "the store");
  s->lock = s->redo[0] = s->redo[1] = -1;
  tm_status status = set_options(s, o, err);
  if (status == TM_OK) status = tm__file_lock(s, err);
  if (status == TM_OK && o->alone && !s->alone) status = tm__disk_in_use(s->root, err);
  if (status == TM_OK) status = open_store(s, err);
  if (status == TM_OK) status = tm__file_lock_share(s, err);
  if (status == TM_OK)
    *out = s;
  else
    release(s);
  return status;
}

const tm_store_backend tm__store_file = {
    .abi = TM_STORE_ABI,
    .scheme = "file",
    .durable = true,
    .takes_tip = true,
    .writers = 1, /* one sync makes a group durable, for however many conversations */
    .open = file_open,
    .close = file_close,
    .connect = connect_store,
    .disconnect = disconnect,
    .recover = tm__file_recover,
    .probe = tm__file_probe,
    .commit = tm__file_commit,
    .head = tm__file_head,
    .chain = tm__file_chain,
    .list = tm__file_list,
    .due = tm__file_due,
    .next_due = tm__file_next_due,
    .start_key = tm__file_start_key,
    .key_of = tm__file_key_of,
    .session = tm__file_session,
    .sessions = tm__file_sessions,
    .sessions_due = tm__file_sessions_due,
    .session_put = tm__file_session_put,
    .session_drop = tm__file_session_drop,
    .outbox_take = tm__file_outbox_take,
    .outbox_settle = tm__file_outbox_settle,
    .outbox_next = tm__file_outbox_next,
    .outbox_list = tm__file_outbox_list,
    .outbox_put = tm__file_outbox_put,
    .outbox_rewrite = tm__file_outbox_rewrite,
    .ended = tm__file_ended,
    .purge = tm__file_purge,
    .sweep = tm__file_sweep,
    .rewrite = tm__file_rewrite,
    .script_put = tm__file_script_put,
    .script_get = tm__file_script_get,
    .script_use = tm__file_script_use,
    .script_drop = tm__file_script_drop,
    .scripts = tm__file_scripts,
    .note_put = tm__file_note_put,
    .note_get = tm__file_note_get,
    .note_swap = tm__file_note_swap,
    .tenant_wake = tm__file_tenant_wake,
    .tenants_due = tm__file_tenants_due,
    .tenants = tm__file_tenants,
    .tenant_drop = tm__file_tenant_drop,
    .unreadable = tm__file_unreadable,
    .inspect = tm__file_inspect,
};
