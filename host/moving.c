/* moving.c - a whole store into another: which ones, in which order with those of tenants, and what
 * a backup and a restore want besides. The copying itself is keeping/copy.c. */
#include <sodium.h>
#include <stdlib.h>

#include "backup_file.h"
#include "keeping/copy.h"
#include "store_place.h"

#define MAX_NAMED 100 /* failures that are named in the answer */
#define TENANTS   64  /* in one page */

typedef struct end {
  tm_store_place place;
  tm_store *store;
  tm_store_conn *conn;
} end;

typedef struct moving {
  const tm_move *move;
  end from, to;
  bool alone;     /* the target must not be in use */
  bool published; /* the backup has its name */
  tm_copy copy;
  tm_buf failed; /* JSON objects */
  int64_t tenants;
} moving;

/* ---- opening ---- */

static void close_end(end *e) {
  if (e->place.backend == NULL) return;
  e->place.backend->disconnect(e->conn);
  e->place.backend->close(e->store);
  e->conn = NULL;
  e->store = NULL;
}

/* A file keeps the settings that it was made with, and the configuration speaks of another. */
static tm_status open_store(end *e, tm_store_options *o, tm_error *err) {
  tm_error local = {.status = TM_OK};
  tm_status status = e->place.backend->open(&e->store, o, &local);
  if (!e->place.configured && strcmp(local.code, "store.auto_vacuum") == 0) {
    o->auto_vacuum = !o->auto_vacuum;
    status = e->place.backend->open(&e->store, o, &local);
  }
  if (!e->place.configured && strcmp(local.code, "store.journal_mode") == 0) {
    o->wal = !o->wal;
    status = e->place.backend->open(&e->store, o, &local);
  }
  if (status != TM_OK) *err = local;
  return status;
}

/* The store of all (tenant ""), or a tenant's own. */
static tm_status open_end(end *e, tm_store_role role, const char *tenant, bool alone,
                          tm_error *err) {
  tm_store_options o = e->place.options;
  o.tenant = tenant;
  o.alone = alone;
  o.opening = role == TM_STORE_READER ? TM_STORE_EXISTING : TM_STORE_MAKE;
  tm_status status = open_store(e, &o, err);
  if (status == TM_OK) status = e->place.backend->connect(&e->conn, e->store, role, err);
  if (status != TM_OK) close_end(e);
  return status;
}

/* ---- failures ---- */

static void name_failure(moving *m, const tm_error *e) {
  tm_buf *b = &m->failed;
  if (b->len > 0) tm__buf_byte(b, ',');
  tm__buf_byte(b, '{');
  tm__json_member_text(b, "conversation_id", e->conversation_id);
  tm__json_member_text(b, "code", e->code);
  tm__json_member_text(b, "message", e->message);
  tm__buf_byte(b, '}');
}

static void add_failure(void *ud, const tm_error *e) {
  moving *m = ud;
  if (m->copy.counts.failed <= MAX_NAMED) name_failure(m, e);
}

/* ---- tenants with stores of their own ---- */

typedef struct tenant_page {
  char names[TENANTS][65];
  int64_t wake_at[TENANTS];
  size_t count;
} tenant_page;

static tm_status on_tenant(void *ud, tm_slice tenant, int64_t wake_at) {
  tenant_page *p = ud;
  if (p->count == TENANTS || !tm__copy(p->names[p->count], sizeof(p->names[0]), tenant))
    return TM_ECANCELLED;
  p->wake_at[p->count++] = wake_at;
  return TM_OK;
}

typedef tm_status (*tenant_fn)(moving *m, const char *tenant, int64_t wake_at, void *ud,
                               tm_error *err);

static tm_status each_tenant(moving *m, tenant_fn fn, void *ud, tm_error *err) {
  tenant_page p;
  char after[65] = "";
  for (;;) {
    p.count = 0;
    tm_status status =
        m->from.place.backend->tenants(m->from.conn, tm__slice(after), TENANTS, on_tenant, &p, err);
    if (status != TM_OK || p.count == 0) return status;
    memcpy(after, p.names[p.count - 1], sizeof(after));
    for (size_t i = 0; status == TM_OK && i < p.count; i++)
      status = fn(m, p.names[i], p.wake_at[i], ud, err);
    if (status != TM_OK) return status;
  }
}

typedef tm_status (*pair_fn)(moving *m, void *ud, tm_error *err);
typedef enum opened { NONE, SOURCE, BOTH } opened;

/* With both ends opened for a tenant's own store. */
static tm_status with_tenant(moving *m, const char *tenant, pair_fn fn, void *ud, opened *o,
                             tm_error *err) {
  end from = m->from, to = m->to; /* those of all stay open */
  m->from.store = m->to.store = NULL;
  m->from.conn = m->to.conn = NULL;
  *o = NONE;
  tm_status status = open_end(&m->from, TM_STORE_READER, tenant, false, err);
  if (status == TM_OK) *o = SOURCE;
  if (status == TM_OK) status = open_end(&m->to, TM_STORE_WRITER, tenant, m->alone, err);
  if (status == TM_OK) *o = BOTH;
  if (status == TM_OK) status = fn(m, ud, err);
  close_end(&m->from);
  close_end(&m->to);
  m->from = from;
  m->to = to;
  return status;
}

/* Is there nothing of the tenant to be had from the source? */
static bool is_lost(const tm_error *err, opened o) {
  return o == NONE && (err->status == TM_ECORRUPT || strcmp(err->code, "store.absent") == 0);
}

/* ---- copying ---- */

static bool go_on(void *ud, const tm_copy_counts *now) {
  moving *m = ud;
  tm_progress p = {.done = now->conversations, .total = now->total, .rows = now->rows};
  return m->move->progress == NULL || m->move->progress(m->move->progress_ud, &p) != 0;
}

static tm_status copy_pair(moving *m, void *ud, tm_error *err) {
  (void)ud;
  m->copy.from = (tm_copy_side){m->from.place.backend, m->from.conn};
  m->copy.to = (tm_copy_side){m->to.place.backend, m->to.conn};
  return tm__store_copy(&m->copy, err);
}

static tm_status copy_own(moving *m, void *ud, tm_error *err) {
  m->tenants++;
  return copy_pair(m, ud, err);
}

static void name_tenant(moving *m, const char *tenant, const tm_error *why, opened o) {
  tm_error e;
  bool missing = why->status == TM_ENOTFOUND;
  (void)tm__fail(&e, why->status, missing ? "copy.tenant_missing" : "copy.tenant_unreadable",
                 missing ? "the store of tenant %s is missing: %s"
                 : o == SOURCE
                     ? "the store of tenant %s in the target was not touched, since it does not "
                       "open: %s. Or move it away, and run the same again"
                     : "the store of tenant %s could not be copied, or in part only: %s",
                 tenant, why->message);
  m->copy.counts.failed++;
  add_failure(m, &e);
}

/* A store that is missing or damaged, on either side, is a failure; the others are copied. What
 * there is in the target is known there. */
static tm_status copy_tenant(moving *m, const char *tenant, int64_t wake_at, void *ud,
                             tm_error *err) {
  opened o;
  tm_status status = with_tenant(m, tenant, copy_own, ud, &o, err);
  if (status != TM_OK && !is_lost(err, o) && status != TM_ECORRUPT) return status;
  if (status != TM_OK) name_tenant(m, tenant, err, o);
  if (o != BOTH) return TM_OK;
  return m->to.place.backend->tenant_wake(m->to.conn, tm__slice(tenant), -1, wake_at, err);
}

static tm_status copy_all(moving *m, tm_error *err) {
  tm_status status = copy_pair(m, NULL, err);
  return status == TM_OK ? each_tenant(m, copy_tenant, NULL, err) : status;
}

static void init(moving *m, const tm_move *move) {
  *m = (moving){.move = move};
  m->copy.set_back = move->force != 0;
  m->copy.go_on = go_on;
  m->copy.failed = add_failure;
  m->copy.ud = m;
}

static void deinit(moving *m) {
  close_end(&m->from);
  close_end(&m->to);
  tm__store_place_free(&m->from.place);
  tm__store_place_free(&m->to.place);
  tm__buf_free(&m->failed);
}

static void add_report(tm_buf *b, const moving *m) {
  const tm_copy_counts *n = &m->copy.counts;
  char digest[2 * TM_COPY_DIGEST + 1];
  sodium_bin2hex(digest, sizeof(digest), m->copy.digest, TM_COPY_DIGEST);
  tm__buf_byte(b, '{');
  tm__json_member_text(b, "from", m->from.place.shown);
  tm__json_member_text(b, "to", m->to.place.shown);
  tm__json_member_int(b, "conversations", n->conversations);
  tm__json_member_int(b, "copied", n->copied);
  tm__json_member_int(b, "rows", n->rows);
  tm__json_member_int(b, "rewritten", n->rewritten);
  tm__json_member_int(b, "sessions", n->sessions);
  tm__json_member_int(b, "scripts", n->scripts);
  tm__json_member_int(b, "events", n->events);
  tm__json_member_int(b, "removed", n->removed);
  tm__json_member_int(b, "tenants", m->tenants);
  tm__json_member_text(b, "digest", digest);
  tm__json_member_int(b, "failures", n->failed);
  tm__json_key(b, "failed");
  tm__buf_byte(b, '[');
  tm__buf_slice(b, tm__buf_view(&m->failed));
  tm__buf_text(b, "]}");
}

static void answer(moving *m, tm_status status, const tm_error *err, tm_reply_fn fn, void *ud) {
  tm_buf report = {0};
  if (status == TM_OK) add_report(&report, m);
  deinit(m);
  if (status == TM_OK) {
    tm__host_answer(fn, ud, &report);
  } else {
    tm__host_refuse(fn, ud, err);
  }
  tm__buf_free(&report);
}

static tm_status check_move(const tm_move *move, tm_error *err) {
  if (move->size == sizeof(*move)) return TM_OK;
  return tm__fail(err, TM_EINVAL, "options.size",
                  "tm_move has %zu bytes, this library knows %zu: recompile the program",
                  move->size, sizeof(*move));
}

/* ---- what a backup holds ---- */

static tm_status add_content(tm_copy *look, const end *e, const char *tenant, uint8_t *digest,
                             tm_error *err) {
  look->from = (tm_copy_side){e->place.backend, e->conn};
  return tm__content_add(look, tm__slice(tenant), digest, err);
}

static tm_status add_tenant(tm_copy *look, const end *e, const char *tenant, uint8_t *digest,
                            tm_error *err) {
  end own = {.place = e->place};
  tm_status status = open_end(&own, TM_STORE_READER, tenant, false, err);
  if (status == TM_OK) status = add_content(look, &own, tenant, digest, err);
  close_end(&own);
  return status;
}

/* The digest over the store of all and those of tenants. */
static tm_status digest_of(const moving *m, const end *e, bool events,
                           uint8_t digest[TM_COPY_DIGEST], tm_error *err) {
  tm_copy look = {.events = events, .go_on = m->copy.go_on, .ud = m->copy.ud};
  tenant_page p = {.count = 0};
  char after[65] = "";
  memset(digest, 0, TM_COPY_DIGEST);
  tm_status status = add_content(&look, e, "", digest, err);
  do {
    p.count = 0;
    if (status == TM_OK)
      status = e->place.backend->tenants(e->conn, tm__slice(after), TENANTS, on_tenant, &p, err);
    for (size_t i = 0; status == TM_OK && i < p.count; i++)
      status = add_tenant(&look, e, p.names[i], digest, err);
    if (p.count > 0) memcpy(after, p.names[p.count - 1], sizeof(after));
  } while (status == TM_OK && p.count > 0);
  return status;
}

static tm_status sign(const moving *m, tm_error *err) {
  uint8_t digest[TM_COPY_DIGEST];
  tm_copy_side to = {m->to.place.backend, m->to.conn};
  tm_status status = digest_of(m, &m->to, true, digest, err);
  return status == TM_OK ? tm__content_sign(&to, digest, err) : status;
}

static tm_status damaged(const moving *m, const tm_error *why, tm_error *err) {
  return tm__fail(err, TM_ECORRUPT, "backup.damaged",
                  "%s is damaged: %s; take another backup, or copy what can be read of it with "
                  "`tidemill store copy`",
                  m->from.place.shown, why->message);
}

/* TM_ECORRUPT: the source is a backup, and holds something else than it was made with. */
static tm_status check_signed(const moving *m, tm_error *err) {
  uint8_t digest[TM_COPY_DIGEST];
  tm_buf text = {0};
  tm_copy_side from = {m->from.place.backend, m->from.conn};
  tm_status status = tm__content_signed(&from, &text, err);
  if (status == TM_OK && text.len > 0) {
    tm_error why = {.message = "it does not hold what was written into it"};
    status = digest_of(m, &m->from, tm__content_has_events(&text), digest, &why);
    bool differs = status == TM_OK && !tm__content_is(&text, digest);
    if (differs || status == TM_ECORRUPT || status == TM_ENOTFOUND)
      status = damaged(m, &why, err);
    else
      *err = why;
  }
  tm__buf_free(&text);
  return status;
}

/* ---- store copy ---- */

static tm_status refuse_same(const moving *m, tm_error *err) {
  if (!tm__store_place_same(&m->from.place, &m->to.place)) return TM_OK;
  return tm__fail(err, TM_EINVAL, "store.same", "%s and %s are the same store", m->from.place.shown,
                  m->to.place.shown);
}

typedef struct layout {
  bool together, apart; /* conversations in the store of all; tenants with stores of their own */
} layout;

static tm_status on_any_head(void *ud, const tm_head *head) {
  (void)head;
  ((layout *)ud)->together = true;
  return TM_ECANCELLED;
}

static tm_status on_any_tenant(void *ud, tm_slice tenant, int64_t wake_at) {
  (void)tenant, (void)wake_at;
  ((layout *)ud)->apart = true;
  return TM_ECANCELLED;
}

/* What serve would refuse afterwards is not written. */
static tm_status refuse_layout(moving *m, const tm_host *h, tm_error *err) {
  layout l = {0};
  tm_list_filter f = {.status = -1, .limit = 1};
  const tm_store_backend *b = m->from.place.backend;
  bool isolated = tm__config_bool(h->config, "tenants.isolation");
  if (!m->to.place.configured) return TM_OK;
  tm_status status = b->list(m->from.conn, &f, on_any_head, &l, err);
  if (status == TM_OK || status == TM_ECANCELLED)
    status = b->tenants(m->from.conn, TM_S(""), 1, on_any_tenant, &l, err);
  if (status != TM_OK && status != TM_ECANCELLED) return status;
  if (!(isolated ? l.together : l.apart)) return TM_OK;
  return tm__fail(err, TM_EINVAL, "store.isolation",
                  isolated
                      ? "tenants.isolation is true, but in %s the conversations of all tenants "
                        "lie together: set it to false to copy it into this store"
                      : "tenants.isolation is false, but in %s tenants have stores of their "
                        "own: set it to true to copy it into this store",
                  m->from.place.shown);
}

static tm_status open_ends(moving *m, const tm_host *h, tm_error *err) {
  tm_status status = tm__store_place_exists(&m->from.place, err);
  if (status == TM_OK) status = refuse_same(m, err);
  if (status == TM_OK) status = open_end(&m->from, TM_STORE_READER, "", false, err);
  if (status == TM_OK) status = refuse_layout(m, h, err);
  if (status == TM_OK) status = open_end(&m->to, TM_STORE_WRITER, "", m->alone, err);
  if (status == TM_OK) status = tm__store_no_backup(m->to.place.backend, m->to.conn, err);
  return status;
}

/* Of a damaged backup everything is copied that can be read, and it is a failure. */
static tm_status name_damage(moving *m, tm_error *err) {
  tm_error damage = {.status = TM_OK};
  tm_status status = check_signed(m, &damage);
  if (status == TM_ECORRUPT) {
    m->copy.counts.failed++;
    add_failure(m, &damage);
    return TM_OK;
  }
  if (status != TM_OK) *err = damage;
  return status;
}

void tm_store_copy(tm_host *h, const tm_move *move, tm_reply_fn fn, void *ud) {
  moving m;
  tm_error err;
  init(&m, move);
  tm_status status = check_move(move, &err);
  if (status == TM_OK) status = tm__store_place_parse(&m.from.place, move->from, h, &err);
  if (status == TM_OK) status = tm__store_place_parse(&m.to.place, move->to, h, &err);
  if (status == TM_OK) status = open_ends(&m, h, &err);
  if (status == TM_OK) status = name_damage(&m, &err);
  if (status == TM_OK) status = copy_all(&m, &err);
  answer(&m, status, &err, fn, ud);
}

/* ---- backup ---- */

static tm_status check_file(const char *path, tm_error *err) {
  if (path != NULL && path[0] != '\0') return TM_OK;
  return tm__fail(err, TM_EINVAL, "store.url", "a backup wants the name of a file");
}

/* A store in a file of its own; the text of `path` is copied. */
static tm_status place_file(tm_store_place *out, const tm_host *h, const char *path,
                            tm_error *err) {
  tm_buf url = {0};
  tm__buf_printf(&url, "sqlite:%s", path);
  tm_status status = tm__buf_ok(&url) ? tm__store_place_parse(out, url.ptr, h, err)
                                      : tm__fail_memory(err, "the name of a file");
  tm__buf_free(&url);
  return status;
}

static tm_status refuse_existing(const tm_move *move, tm_error *err) {
  if (!tm__file_exists(move->to)) return TM_OK;
  if (!tm__file_is_plain(move->to))
    return tm__fail(err, TM_ECONFLICT, "backup.exists",
                    "%s is no file that a backup may replace: name another", move->to);
  if (move->force != 0) return TM_OK;
  return tm__fail(err, TM_ECONFLICT, "backup.exists",
                  "%s exists: name another file, or replace it with --force", move->to);
}

static tm_status refuse_source(const tm_move *move, tm_error *err) {
  return tm__fail(err, TM_EINVAL, "store.same",
                  "%s is the store that is to be backed up, or a part of it", move->to);
}

/* What lies beside the store that is backed up is a part of it. */
static tm_status refuse_beside(const tm_host *h, const tm_move *move, const tm_store_place *from,
                               tm_error *err) {
  size_t len = tm__file_stem(move->to);
  if (len == 0) return TM_OK;
  tm_store_place store = {.backend = NULL};
  char *name = tm__slice_dup((tm_slice){move->to, len});
  tm_status status =
      name != NULL ? place_file(&store, h, name, err) : tm__fail_memory(err, "the name of a file");
  free(name);
  if (status == TM_OK && tm__store_place_same(&store, from)) status = refuse_source(move, err);
  tm__store_place_free(&store);
  return status;
}

/* The older file that is to be replaced may be damaged, but it must not be a store in use. */
static tm_status refuse_used(const tm_host *h, const tm_move *move, const tm_store_place *from,
                             tm_error *err) {
  end old = {.conn = NULL};
  if (!tm__file_exists(move->to)) return TM_OK;
  tm_status status = place_file(&old.place, h, move->to, err);
  if (status != TM_OK || old.place.backend == NULL) return status;
  if (tm__store_place_same(&old.place, from)) status = refuse_source(move, err);
  if (status == TM_OK) {
    tm_error why = {.status = TM_OK};
    if (open_end(&old, TM_STORE_READER, "", true, &why) != TM_OK &&
        strcmp(why.code, "store.in_use") == 0) {
      *err = why;
      status = why.status;
    }
  }
  close_end(&old);
  tm__store_place_free(&old.place);
  return status;
}

/* Where the backup is made until it is complete. */
static tm_status place_draft(tm_store_place *out, const tm_host *h, const char *file,
                             tm_error *err) {
  tm_buf draft = {0};
  tm__buf_printf(&draft, "%s" TM_DRAFT, file);
  tm_status status = tm__buf_ok(&draft) ? place_file(out, h, draft.ptr, err)
                                        : tm__fail_memory(err, "the name of a file");
  tm__buf_free(&draft);
  return status;
}

/* A good backup gives way to a whole one only. */
static tm_status publish(moving *m, const char *file, tm_error *err) {
  tm_error e;
  m->published = m->copy.counts.failed == 0 || !tm__file_exists(file);
  if (m->published) return tm__backup_publish(file, err);
  (void)tm__fail(&e, TM_ECORRUPT, "backup.incomplete",
                 "%s is left as it was; what could be copied is in %s" TM_DRAFT
                 ". Mend what is named above and run the same again, or name another file",
                 file, file);
  name_failure(m, &e);
  return TM_OK;
}

static tm_status backup(moving *m, const tm_host *h, tm_error *err) {
  const char *file = m->move->to;
  m->alone = m->copy.mirror = m->copy.set_back = true;
  tm_status status = tm__store_place_parse(&m->from.place, NULL, h, err);
  if (status == TM_OK) status = refuse_beside(h, m->move, &m->from.place, err);
  if (status == TM_OK) status = refuse_existing(m->move, err);
  if (status == TM_OK) status = refuse_used(h, m->move, &m->from.place, err);
  if (status == TM_OK) status = place_draft(&m->to.place, h, file, err);
  if (status == TM_OK) status = open_ends(m, h, err);
  if (status == TM_OK) status = copy_all(m, err);
  if (status == TM_OK) status = sign(m, err);
  close_end(&m->from);
  close_end(&m->to);
  return status == TM_OK ? publish(m, file, err) : status;
}

void tm_store_backup(tm_host *h, const tm_move *move, tm_reply_fn fn, void *ud) {
  moving m;
  tm_error err;
  init(&m, move);
  tm_status status = check_move(move, &err);
  if (status == TM_OK) status = check_file(move->to, &err);
  if (status == TM_OK) status = backup(&m, h, &err);
  if (status == TM_OK && m.published) { /* by now it has its name */
    tm_store_place named;
    status = place_file(&named, h, move->to, &err);
    if (status == TM_OK) {
      tm__store_place_free(&m.to.place);
      m.to.place = named;
    }
  }
  answer(&m, status, &err, fn, ud);
}

/* ---- restore ---- */

typedef struct found {
  int64_t foreign, ahead;
} found;

static tm_status look(moving *m, void *ud, tm_error *err) {
  found *all = ud, one;
  tm_copy_side from = {m->from.place.backend, m->from.conn};
  tm_copy_side to = {m->to.place.backend, m->to.conn};
  tm_status status = tm__store_compare(&from, &to, &one.foreign, &one.ahead, err);
  all->foreign += one.foreign;
  all->ahead += one.ahead;
  return status;
}

static tm_status look_at_tenant(moving *m, const char *tenant, int64_t wake_at, void *ud,
                                tm_error *err) {
  (void)wake_at;
  opened o;
  tm_status status = with_tenant(m, tenant, look, ud, &o, err);
  return status != TM_OK && is_lost(err, o) ? TM_OK : status;
}

static tm_status refuse_loss(moving *m, tm_error *err) {
  found f = {0};
  tm_status status = look(m, &f, err);
  if (status == TM_OK) status = each_tenant(m, look_at_tenant, &f, err);
  if (status != TM_OK || f.foreign + f.ahead == 0) return status;
  return tm__fail(err, TM_ECONFLICT, "restore.not_empty",
                  "%s has %lld conversations that the backup does not have, and %lld that went on "
                  "since; nothing was written. With --force the former stay as they are and the "
                  "latter are set back",
                  m->to.place.shown, (long long)f.foreign, (long long)f.ahead);
}

void tm_store_restore(tm_host *h, const tm_move *move, tm_reply_fn fn, void *ud) {
  moving m;
  tm_error err;
  init(&m, move);
  m.alone = true;
  tm_status status = check_move(move, &err);
  if (status == TM_OK) status = check_file(move->from, &err);
  if (status == TM_OK) status = place_file(&m.from.place, h, move->from, &err);
  if (status == TM_OK) status = tm__store_place_parse(&m.to.place, NULL, h, &err);
  if (status == TM_OK) status = open_ends(&m, h, &err);
  if (status == TM_OK) status = check_signed(&m, &err);
  if (status == TM_OK && move->force == 0) status = refuse_loss(&m, &err);
  if (status == TM_OK) status = copy_all(&m, &err);
  answer(&m, status, &err, fn, ud);
}
