/* store_postgres.c - a PostgreSQL server that several hosts share: opening, closing, and what the
 * backend provides. */
#include <limits.h>
#include <stdlib.h>

#include "persistence/store_postgres.h"

static void postgres_close(tm_store *s) {
  if (s == NULL) return;
  tm__pg_words_stop(s);
  tm__pg_place_free(s);
  free(s);
}

static tm_status set_options(tm_store *s, const tm_store_options *o, tm_error *err) {
  int64_t timeout = o->timeout_ms;
  s->timeout_ms = timeout < 0 ? 0 : timeout > INT_MAX ? INT_MAX : timeout;
  s->record_bytes_max = o->record_bytes_max;
  s->opening = o->opening;
  s->now_ms = o->now_ms;
  s->now_ud = o->now_ud;
  s->on_health = o->on_health;
  s->on_word = o->on_word;
  s->on_deaf = o->on_deaf;
  s->event_ud = o->event_ud;
  tm__random_bytes(&s->id, sizeof(s->id));
  tm_status status = tm__pg_view_names(s, o->tables, err);
  return status == TM_OK ? tm__pg_place(s, o, err) : status;
}

/* Tables are made as a writer does it, without a limit on a statement's time. */
static tm_status make_tables(tm_store *s, tm_error *err) {
  PGconn *pg;
  tm_status status = tm__pg_dial(&pg, s, TM_STORE_WRITER, err);
  if (status != TM_OK) return status;
  if (s->opening != TM_STORE_MAKE) status = tm__pg_look(s, pg, err);
  bool changes = s->opening != TM_STORE_AS_IS;
  if (status == TM_OK && changes) status = tm__pg_migrate(s, pg, err);
  if (status == TM_OK && changes) status = tm__pg_views(s, pg, err);
  PQfinish(pg);
  return status;
}

static tm_status postgres_open(tm_store **out, const tm_store_options *o, tm_error *err) {
  *out = NULL;
  tm_store *s = calloc(1, sizeof(*s));
  if (s == NULL) return tm__fail_memory(err, "the store");
  tm_status status = set_options(s, o, err);
  if (status == TM_OK) status = make_tables(s, err);
  if (status == TM_OK)
    *out = s;
  else
    postgres_close(s);
  if (status == TM_OK && o->on_word != NULL) tm__pg_words_start(s);
  return status;
}

static void postgres_interrupt(tm_store *s) {
  __atomic_store_n(&s->interrupted, true, __ATOMIC_RELEASE);
}

/* A claim is dead when its lease has run out: other machines' processes cannot be seen from here.
 */
static tm_status postgres_recover(tm_store_conn *c, int64_t now, int64_t *taken, tm_error *err) {
  (void)c, (void)now, (void)err;
  *taken = 0;
  return TM_OK;
}

const tm_store_backend tm__store_postgres = {
    .abi = TM_STORE_ABI,
    .scheme = "postgres",
    .durable = true,
    .shared = true,
    .writers = 4,
    .open = postgres_open,
    .close = postgres_close,
    .interrupt = postgres_interrupt,
    .tell = tm__pg_tell,
    .connect = tm__pg_connect,
    .disconnect = tm__pg_disconnect,
    .recover = postgres_recover,
    .probe = tm__pg_probe,
    .commit = tm__pg_commit,
    .head = tm__pg_head,
    .chain = tm__pg_chain,
    .list = tm__pg_list,
    .due = tm__pg_due,
    .next_due = tm__pg_next_due,
    .start_key = tm__pg_start_key,
    .key_of = tm__pg_key_of,
    .session = tm__pg_session,
    .sessions = tm__pg_sessions,
    .sessions_due = tm__pg_sessions_due,
    .session_put = tm__pg_session_put,
    .session_drop = tm__pg_session_drop,
    .outbox_take = tm__pg_outbox_take,
    .outbox_settle = tm__pg_outbox_settle,
    .outbox_next = tm__pg_outbox_next,
    .outbox_list = tm__pg_outbox_list,
    .outbox_put = tm__pg_outbox_put,
    .outbox_rewrite = tm__pg_outbox_rewrite,
    .ended = tm__pg_ended,
    .purge = tm__pg_purge,
    .sweep = tm__pg_sweep,
    .rewrite = tm__pg_rewrite,
    .script_put = tm__pg_script_put,
    .script_get = tm__pg_script_get,
    .script_use = tm__pg_script_use,
    .script_drop = tm__pg_script_drop,
    .scripts = tm__pg_scripts,
    .note_put = tm__pg_note_put,
    .note_get = tm__pg_note_get,
    .note_swap = tm__pg_note_swap,
    .tenant_wake = tm__pg_tenant_wake,
    .tenants_due = tm__pg_tenants_due,
    .tenants = tm__pg_tenants,
    .unreadable = tm__pg_unreadable,
    .inspect = tm__pg_inspect,
};
