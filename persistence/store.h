/* store.h - what a persistence backend provides.
 *
 * A conversation is a branch, a journal row is a commit: a small head of fixed size points at its
 * newest row, rows point at their parents and are never changed. A backend is plain blocking code.
 * A tm_store is shared; every thread that uses it has its own tm_store_conn, and one connection is
 * used by one thread at a time. A backend knows no event loop and never sees Lua. It is finished
 * when tests/persistence/contract*_test.c pass for it.
 *
 * What a store gives for a row's id is the conversation's own: two conversations may have rows of
 * the same id. Within one, later rows have greater ids.
 */
#ifndef TM_PERSISTENCE_STORE_H
#define TM_PERSISTENCE_STORE_H

#include "core/buf.h"
#include "core/err.h"
#include "core/id.h"

#define TM_STORE_ABI   7
#define TM_RECENT_KEYS 8
#define TM_WORD_MAX    63
#define TM_ROW_MAX     ((size_t)512 << 20)            /* bytes of one row's body */
#define TM_KEY_AGE_MS  (INT64_C(24) * 60 * 60 * 1000) /* how long a start key is known */

typedef enum tm_conversation_status {
  TM_ACTIVE, /* a turn is unfinished: it runs, waits for a retry, or its host died */
  TM_WAITING_INPUT,
  TM_WAITING_APPROVAL,
  TM_WAITING_EVENT,
  TM_WAITING_AGENT,
  TM_SLEEPING,
  TM_PAUSED,
  TM_COMPLETED,
  TM_FAILED,
  TM_EXPIRED,
  TM_CANCELLED,
} tm_conversation_status;
const char *tm__conversation_status_name(tm_conversation_status s); /* "waiting_input"; static */
bool tm__conversation_status_parse(tm_conversation_status *out, tm_slice name);
bool tm__conversation_is_over(tm_conversation_status s); /* completed, failed, expired, cancelled */

/* The last idempotency keys of a conversation, as hashes; key 0: unused. */
typedef struct tm_recent_key {
  uint64_t key, body;
  int64_t row; /* the row of the first answer; TM_THIS_ROW in a commit: the row it appends */
} tm_recent_key;
#define TM_THIS_ROW INT64_C(-1)

typedef struct tm_head { /* all text NUL-terminated, within the contract's lengths */
  char id[TM_ID_SIZE];
  char tenant[65], session[129], system[65], flow[65], version[33], step[65];
  char claim[TM_ID_SIZE]; /* the host that runs a turn with outside calls; "" none */
  tm_conversation_status status;
  int64_t revision; /* commits of this head; 0: not stored yet */
  int64_t tip;      /* id of the newest row */
  int64_t wake_at;  /* ms; 0: never. Earliest deadline, or the end of the lease while claimed */
  int64_t created;  /* ms */
  int64_t ended;    /* ms; 0: not over. Set and taken back by commits */
  tm_recent_key recent[TM_RECENT_KEYS]; /* newest first */
} tm_head;
/* Walks give also what cannot be read: of such a head only the id counts, as far as that fits. Its
 * tenant is "". */
bool tm__head_is_damaged(const tm_head *h);

typedef enum tm_row_kind {
  TM_ROW_BEGIN = 1, /* a turn got here and goes on: outside calls, or a retry, may follow */
  TM_ROW_CALL,      /* one recorded call */
  TM_ROW_TURN,      /* a turn ended: the conversation waits or is over */
  TM_ROW_UNDO,      /* rollback: state and transcript continue at `base` */
  TM_ROW_FORK,
  TM_ROW_MIGRATE,
} tm_row_kind;

typedef struct tm_row {
  int64_t id;     /* > 0, given by the store; 0 in a commit */
  int64_t parent; /* the conversation's tip before it; 0: the first. In a replay also TM_TIP */
  int64_t base;   /* 0, or the row where readers of state and transcript continue */
  char conversation[TM_ID_SIZE];
  int64_t revision;
  tm_row_kind kind;
  int64_t created;
  bool checkpoint; /* listed as checkpoint */
  uint32_t flags;  /* 0: body is plain JSON; else TM_BODY_* of persistence/codec.h */
  tm_slice body;   /* opaque here; borrowed */
} tm_row;

#define TM_TIP INT64_C(-1) /* whatever the tip is: that of an earlier item of the same group */

typedef struct tm_session {
  tm_slice tenant, id; /* not read in a commit: the head has them */
  tm_slice user_id;  /* ptr NULL: none. Opaque, as is metadata: both may be compressed or sealed */
  tm_slice metadata; /* ptr NULL: none */
  uint32_t flags;    /* as of a row, for both */
  bool damaged; /* its record cannot be read: its names count, and `created` where a walk is to go
                   on behind it */
  int64_t created;   /* ms */
  int64_t look_at;   /* ms; when the host looks whether it is idle; 0: never */
  int64_t ended;     /* ms; 0: open; not read in a commit */
  const char *fault; /* not the store's: why both texts cannot be read, an error's code; or NULL */
} tm_session;

/* What the world is to be told, until it was. Events of a conversation go out one after the other,
 * in the order of their keys (revision, index): of those that are not dead only the oldest has a
 * `due_at`, the next gets one when that is settled. */
#define TM_OUTGOING_NOTE 201
typedef struct tm_outgoing {
  char conversation[TM_ID_SIZE];
  int64_t revision; /* of the row it was committed with */
  int index;        /* among the events of that row, from 0 */
  char tenant[65];  /* "": the record is damaged; its key, attempts and times are all that counts */
  int64_t created;  /* ms */
  int64_t due_at;  /* ms; 0: it waits for an older one, or is dead. While somebody sends it, when he
                      is taken for dead */
  int64_t dead_at; /* ms; 0: not given up */
  int attempts;    /* how often it was taken */
  char note[TM_OUTGOING_NOTE]; /* why the last attempt failed */
  uint32_t flags;              /* as of a row */
  tm_slice body;               /* opaque here; borrowed */
} tm_outgoing;

typedef enum tm_outcome {
  TM_OUTCOME_DELIVERED, /* it goes, a dead one as well */
  TM_OUTCOME_LATER,     /* due again at the time that is given */
  TM_OUTCOME_DEAD,      /* given up at that time; the next one of its conversation is due then */
  TM_OUTCOME_AGAIN, /* a dead one is none any more, due at that time unless others are before it;
                     its attempts count anew */
} tm_outcome;

typedef struct tm_outgoing_filter {
  tm_slice tenant;         /* ptr NULL: all of them */
  int dead;                /* 0: those to be delivered, 1: those given up, -1: any */
  char before[TM_ID_SIZE]; /* "" or the event after which the page starts: its conversation … */
  int64_t before_revision; /* ... and these */
  int before_index;
  size_t limit;
} tm_outgoing_filter;

/* One commit: a head by compare-and-set, with the row it points at. */
typedef struct tm_commit {
  /* in */
  tm_head head; /* as it will be, revision = expect_revision + 1 (else TM_EINVAL). `tip` is
                   set by the store when there is a row and kept when there is none;
                   tenant, session, system and created are kept from the first commit */
  int64_t expect_revision; /* of the stored head; 0: it must not exist */
  bool replay; /* copied from another store: the head's revision may be any above expect_revision */
  const tm_row *row;         /* NULL: the head only. Conversation and revision are the head's */
  const tm_outgoing *events; /* with a row; of each only created, flags and body are read; of
                                those of a replay also the index */
  size_t event_count;
  uint64_t start_key; /* with expect_revision 0: remembered for the tenant; 0: none */
  uint64_t start_body;
  bool start_answer; /* the row is the answer to the conversation's start; the first counts */
  const tm_session *session; /* with expect_revision 0: made unless it exists; one that has ended is
                                open again, with this look_at; NULL: none */
  /* > 0: TM_ELIMIT when `session` would be one open session more, in the store or the tenant */
  int64_t sessions_max, tenant_sessions_max;
  /* out */
  tm_status status; /* TM_OK; TM_ECONFLICT: revision differs, or the start key is taken; TM_EINVAL;
                       TM_ETOOLARGE: a body over TM_ROW_MAX or record_bytes_max; TM_ELIMIT: no
                       room for a new conversation or session; or what commit() itself
                       returned */
  int64_t row_id;   /* of the appended row; 0: none */
} tm_commit;

/* For backends: TM_OK, or what an item is refused with whatever is stored. `most`: bytes of a body
 * that the store takes; 0: TM_ROW_MAX. */
tm_status tm__commit_check(const tm_commit *item, size_t most);
/* For backends: TM_ENOTFOUND "store.absent", and TM_EUNSUPPORTED "store.older". */
tm_status tm__store_absent(const char *place, tm_error *err);
tm_status tm__store_older(const char *place, int64_t version, int newest, tm_error *err);
/* For backends: TM_ECONFLICT, which says that a version was in use meanwhile. */
tm_status tm__script_used(tm_slice system, tm_slice version, tm_error *err);
/* For backends: whether what was read can be a head: texts that are text, a tenant, a revision. */
bool tm__head_is_sound(const tm_head *h);
/* For backends: what a walk gives of a head that cannot be read; its times are kept, its revision
 * is -1. */
void tm__head_spoil(tm_head *h, tm_slice id);
/* For backends: the id behind which a walk goes on after `h`: behind all that begin with what could
 * be read of it. */
#define TM_BEHIND_SIZE (TM_ID_SIZE + 4)
void tm__head_behind(char out[TM_BEHIND_SIZE], const tm_head *h);
/* TM_ECORRUPT, which says that the record of the conversation is damaged, and where. */
tm_status tm__head_damaged(tm_slice id, const char *place, tm_error *err);
/* For backends: whether what session() gives is the `const tm_session *` that `ud` points to, but
 * for the names: TM_OK or, without a message, TM_ECONFLICT. */
tm_status tm__session_is(void *ud, const tm_session *stored);
tm_status tm__session_moved(tm_slice id, tm_error *err); /* the TM_ECONFLICT of session_put() */
/* For backends: is it a name, 1 to `most` bytes of UTF-8 without NUL? */
bool tm__name_fits(tm_slice name, size_t most);
/* For backends: TM_ECORRUPT "store.damaged" for unreadable(): `what` has a name that is none. */
tm_status tm__store_nameless(const char *what, tm_slice name, const char *place, tm_error *err);
/* For backends: can it be named? Else it is in no list, and unreadable() tells of it. */
bool tm__session_is_named(const tm_session *s);
/* For backends: sets what is stored as its flags; it is damaged if that or a time can be none. */
void tm__session_check(tm_session *s, int64_t flags);
void tm__session_spoil(tm_session *s);
/* TM_ECORRUPT, which says that the record of the session is damaged, and where. */
tm_status tm__session_damaged(const tm_session *s, const char *place, tm_error *err);
/* For backends: an event of a commit as it is stored, not due yet. */
void tm__outgoing_of(tm_outgoing *out, const tm_commit *item, size_t index);
/* For backends: the texts of a stored one; what cannot be is "". False: so is the key. */
bool tm__outgoing_texts(tm_outgoing *out, tm_slice conversation, tm_slice tenant, tm_slice note);
/* For backends: TM_ETOOLARGE when its body has more bytes than the store takes; `most` as above. */
tm_status tm__outgoing_check(const tm_outgoing *event, size_t most, tm_error *err);
/* For backends: TM_ECONFLICT, which says that the event is another's. */
tm_status tm__outgoing_conflict(const tm_outgoing *event, tm_error *err);
/* For backends: TM_ECONFLICT, which says why the conversation is not purged. */
tm_status tm__purge_conflict(tm_slice id, tm_error *err);
/* For backends: TM_EINVAL when nobody of that name can have a store of his own. */
tm_status tm__store_tenant(const char *tenant, tm_error *err);
/* For backends: TM_ECONFLICT, which says that another process has written the note. */
tm_status tm__store_note_moved(tm_slice name, tm_error *err);

typedef struct tm_start_key {
  char conversation[TM_ID_SIZE];
  uint64_t body;
  int64_t row; /* of the answer; 0: the first turn is not finished */
  int64_t created;
} tm_start_key;

/* Without any condition heads that cannot be read are listed as well, by their ids alone: their
 * tenant is "", their revision -1. */
typedef struct tm_list_filter {
  tm_slice tenant;                /* ptr NULL: all of them, for programs that move everything */
  tm_slice session, system, flow; /* ptr NULL: any */
  int status;                     /* tm_conversation_status, or -1: any */
  char before[TM_ID_SIZE];        /* "" or the id after which the page starts */
  size_t limit;
} tm_list_filter;

typedef struct tm_session_filter {
  tm_slice tenant;        /* ptr NULL: all of them, in an order of the store's own */
  int ended;              /* 0: open ones, 1: ended ones, -1: any */
  int64_t before_created; /* where the page starts: after the session of this `created` … */
  tm_slice before_id;     /* ... and id (ptr NULL: the first page); of all tenants: and tenant */
  tm_slice before_tenant;
  size_t limit;
} tm_session_filter;

typedef enum tm_finding { TM_FINDING_INFO, TM_FINDING_WARNING, TM_FINDING_ERROR } tm_finding;

typedef enum tm_store_opening {
  TM_STORE_MAKE,     /* one that is not there is made */
  TM_STORE_EXISTING, /* TM_ENOTFOUND "store.absent" when there is none */
  TM_STORE_AS_IS,    /* for inspect(): the same, and nothing is changed but what a crash has left
                        unfinished; TM_EUNSUPPORTED "store.older" instead of a migration. A server
                        without a store is opened nevertheless, and inspect() says store.absent */
} tm_store_opening;

typedef struct tm_store_options {
  const char *location; /* sqlite: the file; file: the folder; redis: "host:port/db"; postgres: a
                           libpq URL or connection string; "" for memory */
  const char *password; /* redis; NULL: none. Never in a message, as little as one in `location` */
  const char *tenant;   /* NULL or "": the store of all. Else this tenant's own: a file or folder
                           beside it, a key prefix, a schema. 1-64 of [A-Za-z0-9_.-], checked */
  bool alone;           /* refuse with TM_EUNAVAILABLE "store.in_use" while another process has it
                           open, where that can be told */
  tm_store_opening opening;
  int64_t timeout_ms; /* how long to wait for another process's lock, a server's answer */
  bool auto_vacuum;
  bool wal;
  const char *tables[4];       /* names of the views: conversations, steps, checkpoints, sessions;
                                  NULL: workflow_<that> */
  size_t memory_bytes;         /* memory: how much it may hold; beyond that the conversations that
                                  have ended leave, oldest first, and while none has, new ones are
                                  refused; 0: no limit */
  size_t record_bytes_max;     /* a larger row is refused with TM_ETOOLARGE; 0: TM_ROW_MAX */
  int64_t (*now_ms)(void *ud); /* the host's clock */
  void *now_ud;
  /* Called from any thread, or never; must not block. NULL is allowed. `on_health`: a server went
   * away (err), or is back (NULL). `on_word`: another process told it to the store. `on_deaf`: why
   * this server carries no words, at most once. */
  void (*on_health)(void *ud, const tm_error *err);
  void (*on_word)(void *ud, const char *word);
  void (*on_deaf)(void *ud, const tm_error *err);
  void *event_ud;
} tm_store_options;

typedef struct tm_store tm_store;           /* each backend defines its own */
typedef struct tm_store_conn tm_store_conn; /* likewise */
typedef enum tm_store_role { TM_STORE_READER, TM_STORE_WRITER } tm_store_role;

/* Returning anything but TM_OK stops the walk, which then returns it. */
typedef tm_status (*tm_head_fn)(void *ud, const tm_head *head);
typedef tm_status (*tm_row_fn)(void *ud, const tm_row *row);
typedef tm_status (*tm_session_fn)(void *ud, const tm_session *session);
typedef tm_status (*tm_outgoing_fn)(void *ud, const tm_outgoing *event);
typedef tm_status (*tm_script_fn)(void *ud, tm_slice system, tm_slice version, int64_t used);
typedef tm_status (*tm_tenant_fn)(void *ud, tm_slice tenant, int64_t wake_at);
typedef tm_status (*tm_unreadable_fn)(void *ud, const tm_error *why); /* TM_ECORRUPT, and where */
/* The note that says what is sealed with which keys; what comes by a copy may have others. */
#define TM_NOTE_SEAL TM_S("seal")
/* `text` says what is wrong or unsafe and how to mend it. */
typedef void (*tm_finding_fn)(void *ud, tm_finding level, const char *text);

/* Every function blocks, may fail with TM_EUNAVAILABLE (busy, full, read-only, I/O; may work
 * later), TM_ECORRUPT or TM_ENOMEM besides what is said, and leaves the connection usable. */
typedef struct tm_store_backend {
  uint32_t abi;       /* TM_STORE_ABI */
  const char *scheme; /* "sqlite" */
  bool durable;
  bool shared; /* hosts on several machines may have it open; who is dead is told by leases only */
  bool takes_tip; /* commit() takes TM_TIP; else a replay appends a row of a conversation per group
                   */
  int writers;    /* connections that gain from writing at the same time; 1 or more */

  /* Makes or checks the store; migrates an older one; refuses a damaged or newer one
   * (TM_ECORRUPT) without touching it. Any thread. */
  tm_status (*open)(tm_store **out, const tm_store_options *o, tm_error *err);
  void (*close)(tm_store *s); /* after all connections; NULL allowed */
  /* Whoever waits for a server, or to learn whether a commit happened, gives up soon: the process
   * stops. Any thread. NULL: nobody waits for long. */
  void (*interrupt)(tm_store *s);
  /* Says a word (1 to TM_WORD_MAX of [a-z0-9/-]) to the others that have the store open with an
   * `on_word`, once this one is too: soon, together with other words, or never. A hint: nothing may
   * depend on it. Does not block. Any thread. NULL: nobody hears. */
  void (*tell)(tm_store *s, const char *word);
  tm_status (*connect)(tm_store_conn **out, tm_store *s, tm_store_role role, tm_error *err);
  void (*disconnect)(tm_store_conn *c); /* NULL allowed */

  /* Claims of hosts that are certainly dead get wake_at = now (their turns are then taken up at
   * once). A backend that cannot know leaves them to their lease. Writer. */
  tm_status (*recover)(tm_store_conn *c, int64_t now, int64_t *taken, tm_error *err);

  /* Makes something durable that changes nothing: can the store be written (again)? Writer. */
  tm_status (*probe)(tm_store_conn *c, tm_error *err);

  /* One transaction: each item is applied or gets its own status (a conflict stops nobody else);
   * TM_OK when all that was applied is durable, `err` then says why items have a status other than
   * TM_ECONFLICT, TM_EINVAL, TM_ETOOLARGE or TM_ELIMIT; otherwise nothing was applied, unless the
   * code is store.outcome_unknown: it was interrupted while that was in doubt. Writer. */
  tm_status (*commit)(tm_store_conn *c, tm_commit *const *items, size_t count, tm_error *err);

  /* TM_ENOTFOUND when there is none; TM_ECORRUPT "journal.damaged" when its record is damaged. */
  tm_status (*head)(tm_store_conn *c, tm_slice id, tm_head *out, tm_error *err);
  /* Rows of the conversation from `row` along the parents, newest first; with `follow_base` an undo
   * row is followed by its base instead of its parent. TM_ENOTFOUND when the conversation has no
   * `row`; an ancestor that is no longer there ends the walk. */
  tm_status (*chain)(tm_store_conn *c, tm_slice conversation, int64_t row, bool follow_base,
                     tm_row_fn fn, void *ud, tm_error *err);
  /* Newest first by id. Without any condition also those whose heads cannot be read, which head()
   * says why: of such a head the id is all that counts, its tenant is "". */
  tm_status (*list)(tm_store_conn *c, const tm_list_filter *f, tm_head_fn fn, void *ud,
                    tm_error *err);
  /* Heads with 0 < wake_at <= now, earliest first; those that are damaged are given besides
   * `limit` others. A store with several hosts keeps what it gave
   * from the others for `hold_ms`, without changing a head. Writer, if `shared`. */
  tm_status (*due)(tm_store_conn *c, int64_t now, int64_t hold_ms, size_t limit, tm_head_fn fn,
                   void *ud, tm_error *err);
  /* The earliest wake_at > 0, or 0. */
  tm_status (*next_due)(tm_store_conn *c, int64_t *out, tm_error *err);
  /* TM_ENOTFOUND when unknown or older than 24 h. */
  tm_status (*start_key)(tm_store_conn *c, tm_slice tenant, uint64_t key, tm_start_key *out,
                         tm_error *err);

  /* The key that the conversation was started with: for copying. TM_ENOTFOUND when there was none
   * or it is older than 24 h. */
  tm_status (*key_of)(tm_store_conn *c, tm_slice conversation, uint64_t *key, tm_start_key *out,
                      tm_error *err);

  /* ---- sessions ---- */
  /* What is kept of a session, while `fn` runs; TM_ENOTFOUND when there is none; TM_ECORRUPT
   * "session.damaged" when its record is damaged. Walks give those that are damaged as well. */
  tm_status (*session)(tm_store_conn *c, tm_slice tenant, tm_slice id, tm_session_fn fn, void *ud,
                       tm_error *err);
  /* Newest first by created, then by id (bytes, descending). */
  tm_status (*sessions)(tm_store_conn *c, const tm_session_filter *f, tm_session_fn fn, void *ud,
                        tm_error *err);
  /* Sessions with 0 < look_at <= now, earliest first; those that are damaged besides `limit`
   * others. */
  tm_status (*sessions_due)(tm_store_conn *c, int64_t now, size_t limit, tm_session_fn fn, void *ud,
                            tm_error *err);
  /* Writes it as it is: with `expect` NULL new or not, else if that is what is stored, whatever
   * its names are, or TM_ECONFLICT. Writer. */
  tm_status (*session_put)(tm_store_conn *c, const tm_session *expect, const tm_session *session,
                           tm_error *err);
  /* Removes it, if there is one; TM_ECONFLICT while a conversation is in it. Writer. */
  tm_status (*session_drop)(tm_store_conn *c, tm_slice tenant, tm_slice id, tm_error *err);

  /* ---- events to be delivered ---- */
  /* Those with 0 < due_at <= now, one of a conversation at most, earliest first; with the same
   * write each gets due_at = until and one attempt more, as `fn` sees it. So nobody else takes it
   * before `until`, and whoever dies with it needs no successor. Writer. */
  tm_status (*outbox_take)(tm_store_conn *c, int64_t now, int64_t until, size_t limit,
                           tm_outgoing_fn fn, void *ud, tm_error *err);
  /* What became of one that was taken, is dead, or waits; of `event` its key, attempts, note and,
   * when it goes, dead_at are read. TM_ECONFLICT: it is gone, or those two are others: somebody
   * else has taken it meanwhile.
   * When it goes or dies the oldest of its conversation that is left is due `at`. Writer. */
  tm_status (*outbox_settle)(tm_store_conn *c, const tm_outgoing *event, tm_outcome outcome,
                             int64_t at, tm_error *err);
  /* The earliest due_at > 0, or 0. */
  tm_status (*outbox_next)(tm_store_conn *c, int64_t *out, tm_error *err);
  /* Newest first: by conversation, revision, index. */
  tm_status (*outbox_list)(tm_store_conn *c, const tm_outgoing_filter *f, tm_outgoing_fn fn,
                           void *ud, tm_error *err);
  /* Writes it as it is, new or not, but for due_at, which only the oldest has: for copying.
   * TM_ECONFLICT when there is no such conversation, or it has not come as far as the event's
   * revision. Writer. */
  tm_status (*outbox_put)(tm_store_conn *c, const tm_outgoing *event, tm_error *err);
  /* As rewrite(): another body and flags for an event that exists. Writer. */
  tm_status (*outbox_rewrite)(tm_store_conn *c, const tm_outgoing *event, tm_error *err);

  /* ---- what goes ---- */
  /* Heads with 0 < ended <= before, earliest first, but for those with an event that is neither
   * delivered nor dead; those that are damaged besides `limit` others. */
  tm_status (*ended)(tm_store_conn *c, int64_t before, size_t limit, tm_head_fn fn, void *ud,
                     tm_error *err);
  /* The conversation, its start key and its events are gone at once, its rows with later sweeps.
   * TM_ECONFLICT: revision differs, or an event is neither delivered nor dead and `undelivered` is
   * false; TM_ENOTFOUND. A head that cannot be read has any revision. Writer. */
  tm_status (*purge)(tm_store_conn *c, tm_slice id, int64_t expect_revision, bool undelivered,
                     tm_error *err);
  /* One small piece of housekeeping, at most some `limit` records: rows of purged conversations,
   * old start keys, hints that lie; gives space back. *more: there is work left. Writer. */
  tm_status (*sweep)(tm_store_conn *c, size_t limit, bool *more, tm_error *err);
  /* Other bodies and flags for rows that exist (conversation and id say which); all or none, and
   * nothing for those that are gone. For sealing with a new key. Writer. */
  tm_status (*rewrite)(tm_store_conn *c, const tm_row *rows, size_t count, tm_error *err);

  /* ---- versions of systems: their sources, one opaque text, and when they were in use last ----
   */
  /* Durable, in use now; a repeat changes nothing. */
  tm_status (*script_put)(tm_store_conn *c, tm_slice system, tm_slice version, tm_slice sources,
                          tm_error *err); /* writer */
  tm_status (*script_get)(tm_store_conn *c, tm_slice system, tm_slice version, tm_buf *out,
                          tm_error *err); /* appends; TM_ENOTFOUND when unknown */
  /* It is in use now; TM_ENOTFOUND. Writer. */
  tm_status (*script_use)(tm_store_conn *c, tm_slice system, tm_slice version, tm_error *err);
  /* Removes it; TM_ECONFLICT when it was in use after `before`; TM_ENOTFOUND. Writer. */
  tm_status (*script_drop)(tm_store_conn *c, tm_slice system, tm_slice version, int64_t before,
                           tm_error *err);
  tm_status (*scripts)(tm_store_conn *c, tm_script_fn fn, void *ud, tm_error *err); /* all */

  /* ---- small texts of the host under a name of 1-64 [a-z0-9_.] ---- */
  /* Durable; text.ptr NULL removes. Writer. */
  tm_status (*note_put)(tm_store_conn *c, tm_slice name, tm_slice text, tm_error *err);
  tm_status (*note_get)(tm_store_conn *c, tm_slice name, tm_buf *out,
                        tm_error *err); /* appends; TM_ENOTFOUND */
  /* Writes `text` if the note is `expect` to the byte (ptr NULL: if there is none), else
   * TM_ECONFLICT. Durable. Writer. */
  tm_status (*note_swap)(tm_store_conn *c, tm_slice name, tm_slice expect, tm_slice text,
                         tm_error *err);

  /* ---- tenants with stores of their own: in the store of all, who must be looked at when ---- */
  /* A tenant of which nothing is known is added. `expect` -1: set unless what stands is > 0 and not
   * later than `wake_at`; else set if `expect` is what stands, or TM_ECONFLICT. 0: nothing is due.
   * Durable. Writer. */
  tm_status (*tenant_wake)(tm_store_conn *c, tm_slice tenant, int64_t expect, int64_t wake_at,
                           tm_error *err);
  /* 0 < wake_at <= now, earliest first. */
  tm_status (*tenants_due)(tm_store_conn *c, int64_t now, size_t limit, tm_tenant_fn fn, void *ud,
                           tm_error *err);
  tm_status (*tenants)(tm_store_conn *c, tm_slice after, size_t limit, tm_tenant_fn fn, void *ud,
                       tm_error *err); /* by name (bytes), those above `after` */
  /* Removes the own store of own->tenant, whatever state it is in, then what is known of it here;
   * TM_EUNAVAILABLE "store.in_use" while somebody has that open. NULL: nobody can tell whether
   * somebody has, so that it stays. Writer. */
  tm_status (*tenant_drop)(tm_store_conn *c, const tm_store_options *own, tm_error *err);

  /* What is there beside conversations and in no list, since not even its name can be read:
   * sessions, events, tenants. NULL: there is no such thing. */
  tm_status (*unreadable)(tm_store_conn *c, tm_unreadable_fn fn, void *ud, tm_error *err);

  /* What is wrong or unsafe with the store, its server's own settings included. Also called once
   * when a host starts. `deep`: reads everything. TM_OK also when there are findings. */
  tm_status (*inspect)(tm_store_conn *c, bool deep, tm_finding_fn fn, void *ud, tm_error *err);
} tm_store_backend;

/* NULL when no backend of that scheme is built in. */
const tm_store_backend *tm__store_backend(tm_slice scheme);

/* The note by which a backup says what it holds. */
#define TM_NOTE_BACKUP "backup_content"
/* Removes it, if there is one, before anything else is written. Writer. */
tm_status tm__store_no_backup(const tm_store_backend *b, tm_store_conn *c, tm_error *err);

#define BACKEND(name) extern const tm_store_backend tm__store_##name;
#include "persistence/backends.def"
#undef BACKEND

#endif
