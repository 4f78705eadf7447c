/* store_sqlite.c - one file, survives anything: opening, closing, and what the backend provides. */

#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

#include "persistence/store_sqlite.h"

/* ---- opening ---- */

static tm_status set_options(tm_store *s, const tm_store_options *o, tm_error *err) {
  int64_t timeout = o->timeout_ms;
  s->timeout_ms = timeout < 0 ? 0 : timeout > INT_MAX ? INT_MAX : (int)timeout;
  s->wal = o->wal;
  s->opening = o->opening;
  s->auto_vacuum = o->auto_vacuum;
  s->record_bytes_max = o->record_bytes_max;
  s->now_ms = o->now_ms;
  s->now_ud = o->now_ud;
  tm_status status = tm__sqlite_view_names(s, o->tables, err);
  return status == TM_OK ? tm__sqlite_place(s, o->location, o->tenant, err) : status;
}

/* Sets the mode and reads back what it is. */
static tm_status set_journal_mode(const tm_store *s, tm_error *err) {
  const char *want = s->wal ? "wal" : "delete";
  sqlite3_stmt *st = NULL;
  tm_status status = TM_OK;
  int rc = sqlite3_prepare_v2(
      s->anchor, s->wal ? "PRAGMA journal_mode=WAL" : "PRAGMA journal_mode=DELETE", -1, &st, NULL);
  if (rc == SQLITE_OK) rc = sqlite3_step(st);
  if (rc != SQLITE_ROW) {
    status = tm__sqlite_fail(err, s->path, s->anchor, rc, "set the journal mode");
  } else if (sqlite3_stricmp((const char *)sqlite3_column_text(st, 0), want) != 0) {
    status = tm__fail(err, TM_EINVAL, "store.journal_mode",
                      "store %s: the journal mode is \"%s\", not \"%s\" as configured: stop other "
                      "programs that use the file, or change enable_wal / journal_mode",
                      s->path, (const char *)sqlite3_column_text(st, 0), want);
  }
  sqlite3_finalize(st);
  return status;
}

static tm_status see_journal_mode(tm_store *s, tm_error *err) {
  sqlite3_stmt *st = NULL;
  int rc = sqlite3_prepare_v2(s->anchor, "PRAGMA journal_mode", -1, &st, NULL);
  if (rc == SQLITE_OK) rc = sqlite3_step(st);
  if (rc == SQLITE_ROW)
    s->wal = sqlite3_stricmp((const char *)sqlite3_column_text(st, 0), "wal") == 0;
  sqlite3_finalize(st);
  return rc == SQLITE_ROW ? TM_OK
                          : tm__sqlite_fail(err, s->path, s->anchor, rc, "read the journal mode");
}

static tm_status check_auto_vacuum(const tm_store *s, tm_error *err) {
  int64_t mode = 0;
  int rc = tm__sqlite_int(s->anchor, "PRAGMA auto_vacuum", &mode);
  if (rc != SQLITE_OK) return tm__sqlite_fail(err, s->path, s->anchor, rc, "read auto_vacuum");
  if ((mode == 2) == s->auto_vacuum) return TM_OK;
  return tm__fail(err, TM_EINVAL, "store.auto_vacuum",
                  "store %s was made with auto_vacuum %s, the configuration says %s: change "
                  "auto_vacuum, or stop the host and run sqlite3 %s 'PRAGMA journal_mode=DELETE; "
                  "PRAGMA auto_vacuum=%d; VACUUM'",
                  s->path, mode == 0 ? "off" : "on", s->auto_vacuum ? "on" : "off", s->path,
                  s->auto_vacuum ? 2 : 0);
}

static tm_status migrate(const tm_store *s, tm_error *err) {
  int64_t version = 0;
  int rc = tm__sqlite_int(s->anchor, "PRAGMA user_version", &version);
  if (rc != SQLITE_OK) return tm__sqlite_fail(err, s->path, s->anchor, rc, "read the version");
  if (version < tm__sqlite_newest() && s->opening == TM_STORE_AS_IS)
    return tm__store_older(s->path, version, tm__sqlite_newest(), err);
  if (version < tm__sqlite_newest() && !s->alone)
    return tm__fail(
        err, TM_EUNAVAILABLE, "store.busy",
        "store %s must be brought to version %d of its tables, but another process uses "
        "it: stop that one first",
        s->path, tm__sqlite_newest());
  return tm__sqlite_migrate(s->anchor, s->path, tm__sqlite_migrations, tm__sqlite_migration_count,
                            err);
}

/* Nobody else has the store open, so whoever holds a claim now is dead. */
static tm_status note_dead_claims(tm_store *s, tm_error *err) {
  sqlite3_stmt *st = NULL;
  int rc = sqlite3_prepare_v2(
      s->anchor, "SELECT DISTINCT claim FROM heads INDEXED BY heads_claim WHERE claim<>''", -1, &st,
      NULL);
  while (rc == SQLITE_OK && (rc = sqlite3_step(st)) == SQLITE_ROW) {
    char claim[TM_ID_SIZE] = "";
    if (tm__copy(claim, sizeof(claim), tm__sqlite_column(st, 0)))
      tm__buf_add(&s->dead, claim, sizeof(claim));
    rc = SQLITE_OK;
  }
  (void)sqlite3_finalize(st);
  if (rc == SQLITE_DONE && tm__buf_ok(&s->dead)) return TM_OK;
  return tm__sqlite_fail(err, s->path, s->anchor, rc == SQLITE_DONE ? SQLITE_NOMEM : rc,
                         "read the claims");
}

static tm_status make_file(const tm_store *s, tm_error *err) {
  return s->opening == TM_STORE_MAKE ? tm__sqlite_create(s, err) : tm__store_absent(s->path, err);
}

/* The journal mode, the tables and the views become what they are to be. */
static tm_status bring_up(tm_store *s, tm_error *err) {
  if (s->opening == TM_STORE_AS_IS) {
    tm_status status = see_journal_mode(s, err);
    return status == TM_OK ? migrate(s, err) : status;
  }
  tm_status status = set_journal_mode(s, err);
  if (status == TM_OK) status = migrate(s, err);
  return status == TM_OK ? tm__sqlite_views(s->anchor, s, err) : status;
}

static tm_status open_file(tm_store *s, tm_error *err) {
  bool is_new = false, recover = false;
  tm_status status = tm__sqlite_is_new(s, &is_new, err);
  if (status == TM_OK && is_new) status = make_file(s, err);
  if (status == TM_OK && !is_new) status = tm__sqlite_check(s, &recover, err);
  if (status == TM_OK) status = tm__sqlite_settle(s, err);
  if (status == TM_OK) status = tm__sqlite_handle(&s->anchor, s, TM_STORE_WRITER, err);
  if (status == TM_OK && recover) status = tm__sqlite_check_content(s->anchor, s->path, err);
  if (status == TM_OK) status = check_auto_vacuum(s, err);
  if (status == TM_OK) status = bring_up(s, err);
  if (status == TM_OK) status = tm__sqlite_identify(s, err); /* by now the log is open as well */
  if (status == TM_OK) status = tm__sqlite_settle_log(s, err);
  if (status == TM_OK && s->alone) status = note_dead_claims(s, err);
  if (status == TM_OK) sqlite3_db_release_memory(s->anchor);
  return status;
}

static void sqlite_close(tm_store *s) {
  if (s == NULL) return;
  sqlite3_close(s->anchor);
  if (s->lock >= 0) (void)close(s->lock);
  tm__buf_free(&s->dead);
  free(s->path);
  free(s);
}

static tm_status sqlite_open(tm_store **out, const tm_store_options *o, tm_error *err) {
  *out = NULL;
  tm_store *s = calloc(1, sizeof(*s));
  if (s == NULL) return tm__fail_memory(err, "the store");
  s->lock = -1;
  tm_status status = set_options(s, o, err);
  if (status == TM_OK) status = tm__sqlite_lock(s, err);
  if (status == TM_OK && o->alone && !s->alone) status = tm__disk_in_use(s->path, err);
  if (status == TM_OK) status = open_file(s, err);
  if (status == TM_OK) status = tm__sqlite_lock_share(s, err);
  if (status == TM_OK)
    *out = s;
  else
    sqlite_close(s);
  return status;
}

const tm_store_backend tm__store_sqlite = {
    .abi = TM_STORE_ABI,
    .scheme = "sqlite",
    .durable = true,
    .takes_tip = true,
    .writers = 1,
    .open = sqlite_open,
    .close = sqlite_close,
    .connect = tm__sqlite_connect,
    .disconnect = tm__sqlite_disconnect,
    .recover = tm__sqlite_recover,
    .probe = tm__sqlite_probe,
    .commit = tm__sqlite_commit,
    .head = tm__sqlite_head,
    .chain = tm__sqlite_chain,
    .list = tm__sqlite_list,
    .due = tm__sqlite_due,
    .next_due = tm__sqlite_next_due,
    .start_key = tm__sqlite_start_key,
    .key_of = tm__sqlite_key_of,
    .session = tm__sqlite_session,
    .sessions = tm__sqlite_sessions,
    .sessions_due = tm__sqlite_sessions_due,
    .session_put = tm__sqlite_session_put,
    .session_drop = tm__sqlite_session_drop,
    .outbox_take = tm__sqlite_outbox_take,
    .outbox_settle = tm__sqlite_outbox_settle,
    .outbox_next = tm__sqlite_outbox_next,
    .outbox_list = tm__sqlite_outbox_list,
    .outbox_put = tm__sqlite_outbox_put,
    .outbox_rewrite = tm__sqlite_outbox_rewrite,
    .ended = tm__sqlite_ended,
    .purge = tm__sqlite_purge,
    .sweep = tm__sqlite_sweep,
    .rewrite = tm__sqlite_rewrite,
    .script_put = tm__sqlite_script_put,
    .script_get = tm__sqlite_script_get,
    .script_use = tm__sqlite_script_use,
    .script_drop = tm__sqlite_script_drop,
    .scripts = tm__sqlite_scripts,
    .note_put = tm__sqlite_note_put,
    .note_get = tm__sqlite_note_get,
    .note_swap = tm__sqlite_note_swap,
    .tenant_wake = tm__sqlite_tenant_wake,
    .tenants_due = tm__sqlite_tenants_due,
    .tenants = tm__sqlite_tenants,
    .unreadable = tm__sqlite_unreadable,
    .tenant_drop = tm__sqlite_tenant_drop,
    .inspect = tm__sqlite_inspect,
};
