/* store.h - what a persistence backend provides.
 *
 * A conversation is a branch, a journal row is a commit: a small head of fixed size points at its
 * newest row, rows point at their parents and are never changed. A backend is plain blocking code.
 * A tm_store is shared; every thread that uses it has its own tm_store_conn, and one connection is
 * used by one thread at a time. A backend knows no event loop and never sees Lua. It is finished
 * when tests/persistence/contract_test.c passes for it.
 */
#ifndef TM_PERSISTENCE_STORE_H
#define TM_PERSISTENCE_STORE_H

#include "core/buf.h"
#include "core/err.h"
#include "core/id.h"

#define TM_STORE_ABI   1
#define TM_RECENT_KEYS 8
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
  tm_recent_key recent[TM_RECENT_KEYS]; /* newest first */
} tm_head;

typedef enum tm_row_kind {
  TM_ROW_BEGIN = 1, /* a turn got here and goes on: outside calls, or a retry, may follow */
  TM_ROW_CALL,      /* one recorded call */
  TM_ROW_TURN,      /* a turn ended: the conversation waits or is over */
  TM_ROW_UNDO,      /* rollback: state and transcript continue at `base` */
  TM_ROW_FORK,
  TM_ROW_MIGRATE,
} tm_row_kind;

typedef struct tm_row {
  int64_t id;     /* given by the store; 0 in a commit */
  int64_t parent; /* 0: the first */
  int64_t base;   /* 0, or the row where readers of state and transcript continue */
  char conversation[TM_ID_SIZE];
  int64_t revision;
  tm_row_kind kind;
  int64_t created;
  bool checkpoint; /* listed as checkpoint */
  uint32_t flags;  /* 0: body is plain JSON; bits for compression and sealing come later */
  tm_slice body;   /* opaque here; borrowed */
} tm_row;

typedef struct tm_session {
  tm_slice user_id;  /* ptr NULL: none */
  tm_slice metadata; /* JSON object; ptr NULL: none */
} tm_session;

/* One commit: a head by compare-and-set, with the row it points at. */
typedef struct tm_commit {
  /* in */
  tm_head head; /* as it will be, revision = expect_revision + 1 (else TM_EINVAL). `tip` is
                   set by the store when there is a row and kept when there is none;
                   tenant, session, system and created are kept from the first commit */
  int64_t expect_revision; /* of the stored head; 0: it must not exist */
  const tm_row *row;       /* NULL: the head only. Conversation and revision are the head's */
  uint64_t start_key;      /* with expect_revision 0: remembered for the tenant; 0: none */
  uint64_t start_body;
  bool start_answer; /* the row is the answer to the conversation's start; the first counts */
  const tm_session *session; /* with expect_revision 0: made unless it exists; NULL: none */
  /* out */
  tm_status status; /* TM_OK; TM_ECONFLICT: revision differs, or the start key is taken; TM_EINVAL;
                       TM_ETOOLARGE: a body over TM_ROW_MAX; TM_ELIMIT: no room for a new
                       conversation; or what commit() itself returned */
  int64_t row_id;   /* of the appended row; 0: none */
} tm_commit;

/* For backends: TM_OK, or what an item is refused with whatever is stored. */
tm_status tm__commit_check(const tm_commit *item);

typedef struct tm_start_key {
  char conversation[TM_ID_SIZE];
  uint64_t body;
  int64_t row; /* of the answer; 0: the first turn is not finished */
  int64_t created;
} tm_start_key;

typedef struct tm_list_filter {
  tm_slice tenant;                /* always given */
  tm_slice session, system, flow; /* ptr NULL: any */
  int status;                     /* tm_conversation_status, or -1: any */
  char before[TM_ID_SIZE];        /* "" or the id after which the page starts */
  size_t limit;
} tm_list_filter;

typedef struct tm_store_options {
  const char *location; /* sqlite: the file; "" for memory */
  int64_t timeout_ms;   /* how long to wait for another process's lock */
  bool auto_vacuum;
  bool wal;
  const char *tables[4];       /* names of the views: conversations, steps, checkpoints, sessions;
                                  NULL: workflow_<that> */
  size_t memory_bytes;         /* memory: how much it may hold; beyond that the conversations that
                                  have ended leave, oldest first, and while none has, new ones are
                                  refused; 0: no limit */
  int64_t (*now_ms)(void *ud); /* the host's clock */
  void *now_ud;
} tm_store_options;

typedef struct tm_store tm_store;           /* each backend defines its own */
typedef struct tm_store_conn tm_store_conn; /* likewise */
typedef enum tm_store_role { TM_STORE_READER, TM_STORE_WRITER } tm_store_role;

/* Returning anything but TM_OK stops the walk, which then returns it. */
typedef tm_status (*tm_head_fn)(void *ud, const tm_head *head);
typedef tm_status (*tm_row_fn)(void *ud, const tm_row *row);
typedef tm_status (*tm_session_fn)(void *ud, const tm_session *session);

/* Every function blocks, may fail with TM_EUNAVAILABLE (busy, full, read-only, I/O; may work
 * later), TM_ECORRUPT or TM_ENOMEM besides what is said, and leaves the connection usable. */
typedef struct tm_store_backend {
  uint32_t abi;       /* TM_STORE_ABI */
  const char *scheme; /* "sqlite" */
  bool durable;

  /* Makes or checks the store; migrates an older one; refuses a damaged or newer one
   * (TM_ECORRUPT) without touching it. Any thread. */
  tm_status (*open)(tm_store **out, const tm_store_options *o, tm_error *err);
  void (*close)(tm_store *s); /* after all connections; NULL allowed */
  tm_status (*connect)(tm_store_conn **out, tm_store *s, tm_store_role role, tm_error *err);
  void (*disconnect)(tm_store_conn *c); /* NULL allowed */

  /* Claims of hosts that are certainly dead get wake_at = now (their turns are then taken up at
   * once). A backend that cannot know leaves them to their lease. Writer. */
  tm_status (*recover)(tm_store_conn *c, int64_t now, int64_t *taken, tm_error *err);

  /* Makes something durable that changes nothing: can the store be written (again)? Writer. */
  tm_status (*probe)(tm_store_conn *c, tm_error *err);

  /* One transaction: each item is applied or gets its own status (a conflict stops nobody else);
   * TM_OK when all that was applied is durable; otherwise nothing was applied. Writer. */
  tm_status (*commit)(tm_store_conn *c, tm_commit *const *items, size_t count, tm_error *err);

  /* TM_ENOTFOUND when there is none. */
  tm_status (*head)(tm_store_conn *c, tm_slice id, tm_head *out, tm_error *err);
  /* Rows from `row` along the parents, newest first; with `follow_base` an undo row is followed by
   * its base instead of its parent. TM_ENOTFOUND when `row` itself is unknown; an ancestor that was
   * purged ends the walk. */
  tm_status (*chain)(tm_store_conn *c, int64_t row, bool follow_base, tm_row_fn fn, void *ud,
                     tm_error *err);
  tm_status (*list)(tm_store_conn *c, const tm_list_filter *f, tm_head_fn fn, void *ud,
                    tm_error *err); /* newest first by id */
  /* Heads with 0 < wake_at <= now, earliest first. */
  tm_status (*due)(tm_store_conn *c, int64_t now, size_t limit, tm_head_fn fn, void *ud,
                   tm_error *err);
  /* The earliest wake_at > 0, or 0. */
  tm_status (*next_due)(tm_store_conn *c, int64_t *out, tm_error *err);
  /* TM_ENOTFOUND when unknown or older than 24 h. */
  tm_status (*start_key)(tm_store_conn *c, tm_slice tenant, uint64_t key, tm_start_key *out,
                         tm_error *err);
  /* What is kept of a session, while `fn` runs; TM_ENOTFOUND when there is none. */
  tm_status (*session)(tm_store_conn *c, tm_slice tenant, tm_slice id, tm_session_fn fn, void *ud,
                       tm_error *err);

  /* The sources of a system's version, one opaque text; put is durable, a repeat changes nothing.
   */
  tm_status (*script_put)(tm_store_conn *c, tm_slice system, tm_slice version, tm_slice sources,
                          tm_error *err); /* writer */
  tm_status (*script_get)(tm_store_conn *c, tm_slice system, tm_slice version, tm_buf *out,
                          tm_error *err); /* appends; TM_ENOTFOUND when unknown */
} tm_store_backend;

/* NULL when no backend of that scheme is built in. */
const tm_store_backend *tm__store_backend(tm_slice scheme);

#define BACKEND(name) extern const tm_store_backend tm__store_##name;
#include "persistence/backends.def"
#undef BACKEND

#endif
