/* tidemill.h - embed the workflow host in a program.
 *
 * One tm_host owns its configuration, store, scripts and threads; several hosts can live in one
 * process. Every function that can fail returns a tm_status and says in `err` (which belongs to the
 * caller and may be NULL) what happened. Requests are answered through a callback, exactly once, on
 * a thread of the host: copy what you need and return, never block in it. Strings are UTF-8; times
 * are milliseconds since 1970, UTC. The JSON that comes back is the JSON of the HTTP interface.
 */
#ifndef TIDEMILL_H
#define TIDEMILL_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TM_ABI_VERSION 1

#if defined(__GNUC__)
#define TM_API       __attribute__((visibility("default")))
#define TM_NODISCARD __attribute__((warn_unused_result))
#else
#define TM_API
#define TM_NODISCARD
#endif

/* What the TM_..._INIT macros below are made of. */
#ifdef __cplusplus
#define TM_INIT(type)                                                                              \
  ([] {                                                                                            \
    type v = {};                                                                                   \
    v.size = sizeof(v);                                                                            \
    return v;                                                                                      \
  }())
#else
#define TM_INIT(type)                                                                              \
  { .size = sizeof(type) }
#endif

typedef struct tm_host tm_host;

typedef enum tm_status {
  TM_OK = 0,
  TM_EINVAL = -1,       /* a wrong call or malformed input (HTTP 400) */
  TM_ENOTFOUND = -2,    /* no such system, flow, conversation (404) */
  TM_ECONFLICT = -3,    /* the record does not allow it now (409) */
  TM_ETOOLARGE = -4,    /* over a size limit (413) */
  TM_EREUSED = -5,      /* an idempotency key with another body (422) */
  TM_ELIMIT = -6,       /* a quota, rate or script limit (429) */
  TM_EUNAVAILABLE = -7, /* the store cannot answer, or the host is stopping (503) */
  TM_EUNSUPPORTED = -8, /* known, but not supported yet (501) */
  TM_ENOMEM = -9,
  TM_EIO = -10,
  TM_ESCRIPT = -11,  /* a script failed */
  TM_ECORRUPT = -12, /* stored data is damaged or from a newer version */
  TM_ECANCELLED = -13,
} tm_status;

/* Plain data, nothing to free. Fields that do not apply are empty or 0. */
typedef struct tm_error {
  tm_status status;
  char code[48];     /* stable, for programs: "conversation.not_found" */
  char message[640]; /* for people: what happened, where, what to do */
  char conversation_id[40];
  char step_id[68];
  int64_t retry_after_ms;
} tm_error;

/* ---- options ---- */

typedef int64_t (*tm_clock_fn)(void *ud);                           /* ms since 1970 */
typedef void (*tm_log_fn)(void *ud, const char *line, size_t size); /* one line, no newline */

/* Zero-initialise with TM_OPTIONS_INIT; `size` lets the struct grow. */
typedef struct tm_options {
  size_t size;
  const char *config_file; /* NULL: ./agent_config.yaml if it exists, else defaults */
  const char *env_file;    /* NULL: none; lines NAME=value, weaker than the environment */
  const char *const *set;  /* NULL-terminated "path.to.key=value", stronger than everything */
  tm_clock_fn clock;       /* NULL: the system's clock */
  void *clock_ud;
  tm_log_fn log; /* NULL: nothing is logged; called from any thread */
  void *log_ud;
} tm_options;
#define TM_OPTIONS_INIT TM_INIT(tm_options)

/* ---- life ---- */

/* Reads and checks the configuration; starts nothing. On failure *out is NULL. */
TM_API TM_NODISCARD tm_status tm_host_new(tm_host **out, const tm_options *options, tm_error *err);

/* Opens the store, loads the systems, starts the threads, takes up unfinished turns. */
TM_API TM_NODISCARD tm_status tm_host_start(tm_host *host, tm_error *err);

/* Serves HTTP on "HOST:PORT" (NULL: server.listen; port 0: any free one), after start.
 * `url_out` (may be NULL) receives "http://host:port". */
TM_API TM_NODISCARD tm_status tm_host_listen(tm_host *host, const char *address, char *url_out,
                                             size_t url_size, tm_error *err);

/* Refuses new requests, lets running turns finish for up to `timeout_ms`, commits, stops threads.
 * Turns that are still running then are taken up at the next start. Idempotent. */
TM_API void tm_host_stop(tm_host *host, int timeout_ms);
TM_API void tm_host_free(tm_host *host); /* stops first; NULL is allowed */

/* Looks at deadlines now instead of at the next tick: for tests that turn the clock. */
TM_API void tm_host_wake(tm_host *host);

/* ---- requests ---- */

typedef struct tm_reply {
  tm_status status;
  const char *json; /* NUL-terminated; NULL unless status is TM_OK; valid during the callback */
  size_t size;
  const tm_error *error; /* NULL when status is TM_OK */
} tm_reply;
typedef void (*tm_reply_fn)(void *ud, const tm_reply *reply);

/* NULL for what is not given. `tenant` NULL: "default". */
typedef struct tm_begin {
  size_t size;
  const char *tenant, *system, *flow_id, *session_id, *user_id;
  const char *message;       /* opens the transcript */
  const char *metadata_json; /* an object */
  const char *idempotency_key;
} tm_begin;
#define TM_BEGIN_INIT TM_INIT(tm_begin)

/* Starts a conversation and runs its first turn; answers with the turn. */
TM_API void tm_conversation_begin(tm_host *host, const tm_begin *begin, tm_reply_fn fn, void *ud);

/* Answers the prompt a conversation waits at. `input_json` is a JSON string or object. One that
 * waits for something else refuses it (TM_ECONFLICT), as one that is over does. */
TM_API void tm_message_send(tm_host *host, const char *tenant, const char *conversation_id,
                            const char *input_json, const char *idempotency_key, tm_reply_fn fn,
                            void *ud);

typedef enum tm_read {
  TM_READ_CONVERSATION,
  TM_READ_STEPS,
  TM_READ_MESSAGES,
  TM_READ_CHECKPOINTS,
} tm_read;

/* One record, or a page of one of its lists, newest first; cursor NULL: the first page; limit 0:
 * 50, at most 200. */
TM_API void tm_conversation_read(tm_host *host, const char *tenant, const char *conversation_id,
                                 tm_read what, const char *cursor, int limit, tm_reply_fn fn,
                                 void *ud);

typedef struct tm_filter {
  size_t size;
  const char *tenant, *session_id, *system, *flow_id, *status, *cursor;
  int limit;
} tm_filter;
#define TM_FILTER_INIT TM_INIT(tm_filter)
TM_API void tm_conversation_list(tm_host *host, const tm_filter *filter, tm_reply_fn fn, void *ud);

/* Goes back `steps` answered prompts, or to a checkpoint when `checkpoint_id` is not NULL: its id,
 * or its name, which stands for the newest of that name; answers with the turn. TM_ECONFLICT names
 * irreversible steps unless `force`. The idempotency key holds as for tm_message_send. */
TM_API void tm_conversation_rollback(tm_host *host, const char *tenant, const char *conversation_id,
                                     int steps, const char *checkpoint_id, int force,
                                     const char *idempotency_key, tm_reply_fn fn, void *ud);

/* A new conversation, in the same session and version, that goes on from where this one waits, or
 * from a checkpoint when `checkpoint_id` is not NULL; answers with its first turn. What came before
 * stays with the other one. The idempotency key holds as for tm_conversation_begin. */
TM_API void tm_conversation_fork(tm_host *host, const char *tenant, const char *conversation_id,
                                 const char *checkpoint_id, const char *idempotency_key,
                                 tm_reply_fn fn, void *ud);

/* ---- steering: answered with the turn ---- */

/* What is over refuses all of these but tm_conversation_cancel (TM_ECONFLICT). The structs are
 * zero-initialised with TM_..._INIT; `tenant` NULL: "default"; an idempotency key holds as for
 * tm_message_send. */

typedef struct tm_command {
  size_t size;
  const char *tenant, *conversation_id;
  const char *command;         /* "back", "skip", "cancel", "restart", "help" or "correct" */
  const char *name;            /* correct: which answer that was given before; else NULL */
  const char *input_json;      /* correct: what it should have been, string or object; else NULL */
  const char *idempotency_key; /* NULL: none */
} tm_command;
#define TM_COMMAND_INIT TM_INIT(tm_command)
/* What its user says about the conversation instead of answering; the flow says what it allows. */
TM_API void tm_conversation_command(tm_host *host, const tm_command *command, tm_reply_fn fn,
                                    void *ud);

typedef struct tm_approval {
  size_t size;
  const char *tenant, *conversation_id;
  int approved;
  int64_t revision;            /* waiting_for.revision that was decided on; 0: whichever */
  const char *comment;         /* why, at most 4096 bytes; NULL: none */
  const char *role, *user_id;  /* who decides; NULL: not known */
  const char *idempotency_key; /* NULL: none */
} tm_approval;
#define TM_APPROVAL_INIT TM_INIT(tm_approval)
/* Decides what a conversation waits for somebody to approve. */
TM_API void tm_conversation_approve(tm_host *host, const tm_approval *approval, tm_reply_fn fn,
                                    void *ud);

typedef struct tm_event {
  size_t size;
  const char *tenant, *conversation_id;
  const char *name;            /* at most 64 bytes */
  const char *data_json;       /* any JSON value; NULL: none */
  const char *idempotency_key; /* NULL: none */
} tm_event;
#define TM_EVENT_INIT TM_INIT(tm_event)
/* Tells a conversation what has happened outside. */
TM_API void tm_conversation_event(tm_host *host, const tm_event *event, tm_reply_fn fn, void *ud);

/* A paused conversation takes no answers and its deadlines stand still until it is resumed. */
TM_API void tm_conversation_pause(tm_host *host, const char *tenant, const char *conversation_id,
                                  tm_reply_fn fn, void *ud);
TM_API void tm_conversation_resume(tm_host *host, const char *tenant, const char *conversation_id,
                                   tm_reply_fn fn, void *ud);

/* Where it waits for somebody is listed as checkpoint of that name (letters, digits and _, at most
 * 64, not beginning with a digit). What waits for nobody refuses it (TM_ECONFLICT). */
TM_API void tm_conversation_checkpoint(tm_host *host, const char *tenant,
                                       const char *conversation_id, const char *name,
                                       const char *idempotency_key, tm_reply_fn fn, void *ud);

/* Ends it as it stands, after the turn that runs, whatever its flow says; answers with the turn
 * that ended it also when it is over. */
TM_API void tm_conversation_cancel(tm_host *host, const char *tenant, const char *conversation_id,
                                   tm_reply_fn fn, void *ud);

/* Takes a conversation that waits to the current version of its system, by its flows' `migrate`
 * functions: whole or not at all. Answers with the turn, also when it has that version already.
 * With `dry_run` nothing is stored, and the turn has `dry_run`, `from_version` and the `state` that
 * would come of it. */
TM_API void tm_conversation_migrate(tm_host *host, const char *tenant, const char *conversation_id,
                                    int dry_run, tm_reply_fn fn, void *ud);

/* ---- sessions ---- */

/* A page of them, newest first; status "open", "ended" or NULL: any. A session is
 * {"session_id","user_id","metadata","status","open_conversations","created","last_activity",
 * "ended"}. */
TM_API void tm_session_list(tm_host *host, const char *tenant, const char *status,
                            const char *cursor, int limit, tm_reply_fn fn, void *ud);
TM_API void tm_session_read(tm_host *host, const char *tenant, const char *session_id,
                            tm_reply_fn fn, void *ud);
/* Cancels its open conversations, each after the turn that runs, then ends it; answers with the
 * session, also when it had ended before. A conversation that begins in it opens it again. */
TM_API void tm_session_end(tm_host *host, const char *tenant, const char *session_id,
                           tm_reply_fn fn, void *ud);

/* ---- events that were not delivered ---- */

/* A page of what conversations have emitted (`ctx:emit`) and nobody has taken yet, newest
 * conversation first; status "pending", "dead" (given up) or NULL: any. An event is
 * {"id","event","conversation_id","status","attempts","created","next_at","dead_at","last_error"};
 * "next_at" is null while older ones of its conversation are before it. */
TM_API void tm_outbox_list(tm_host *host, const char *tenant, const char *status,
                           const char *cursor, int limit, tm_reply_fn fn, void *ud);
/* Tries one that was given up again, from now on and as often as the first time; answers with the
 * event. TM_ECONFLICT: it is not given up. */
TM_API void tm_outbox_retry(tm_host *host, const char *tenant, const char *event_id, tm_reply_fn fn,
                            void *ud);

/* ---- operating ---- */

/* Removes now, to the end, what the settings of retention let go; with `dry_run` only says what
 * that is: {"dry_run","conversations","sessions","sessions_ended","versions","events"}; the last
 * are events that were given up. Other hosts may run. */
TM_API void tm_host_purge(tm_host *host, int dry_run, tm_reply_fn fn, void *ud);

/* What is loaded for a tenant: system NULL: all systems; flow NULL: the system's flows; else one
 * flow. A system that is another tenant's alone is as one that is not there. */
TM_API void tm_systems_read(tm_host *host, const char *tenant, const char *system,
                            const char *flow_id, tm_reply_fn fn, void *ud);

/* Loads the scripts beside the running ones and switches if all of them are good; otherwise nothing
 * changes, and the error has file and line. Answers
 * {"systems":[{"name","version","previous"}],"removed":[name]}; a system whose version is its
 * previous one has not changed. Running conversations keep their version. */
TM_API void tm_host_reload(tm_host *host, tm_reply_fn fn, void *ud);

/* Looks at the folders of scripts from now on and reloads what has changed there; the log says what
 * became of it. After start, once. */
TM_API TM_NODISCARD tm_status tm_host_watch(tm_host *host, tm_error *err);

/* ---- without start ---- */

/* The effective configuration, with the origin of each value, secrets hidden:
 * {"items":[{"key","value","origin","env"}]}. Calls back before it returns. */
TM_API void tm_config_read(tm_host *host, tm_reply_fn fn, void *ud);

/* Has the server that runs on the configured store, perhaps in another process, load its scripts
 * anew, and answers as that does (see tm_host_reload). `address` NULL: found by what it wrote
 * beside the store, else by server.listen; else "HOST:PORT". Calls back before it returns. */
TM_API void tm_server_reload(tm_host *host, const char *address, tm_reply_fn fn, void *ud);

/* Checks scripts (paths of system folders or of folders that hold them; none: the configured
 * ones): {"items":[{"file","line","level","text","rule"}],"systems":n,"errors":n,"warnings":n}.
 * Calls back before it returns. */
TM_API void tm_scripts_check(tm_host *host, const char *const *paths, size_t count, tm_reply_fn fn,
                             void *ud);

/* ---- stores as a whole, without start; each calls back before it returns ---- */

/* Removes everything of a tenant from the configured store, whether it can be read or not, open
 * conversations and events that were not delivered included; with `dry_run` only says what that is:
 * {"tenant","dry_run","conversations","sessions","events","store_stays"}; the last: the tenant's
 * own store is empty and was left there. TM_ENOTFOUND: there is nothing. Hosts may run. */
TM_API void tm_tenant_purge(tm_host *host, const char *tenant, int dry_run, tm_reply_fn fn,
                            void *ud);

typedef struct tm_progress {
  int64_t done, total; /* conversations: looked at, and how many there were at the beginning */
  int64_t rows;        /* written */
} tm_progress;
/* Called often, on the thread of the caller; 0 stops where that is safe (TM_ECANCELLED). */
typedef int (*tm_progress_fn)(void *ud, const tm_progress *progress);

/* Zero-initialise with TM_MOVE_INIT. */
typedef struct tm_move {
  size_t size;
  const char *from, *to; /* sqlite:PATH, file:FOLDER, redis://..., postgres://..., or NULL: the
                            configured store. For a backup and a restore: a file */
  int force;
  tm_progress_fn progress; /* NULL: none */
  void *progress_ud;
} tm_move;
#define TM_MOVE_INIT TM_INIT(tm_move)

/* Copies everything from one store to another; both stay. What is there already is compared, so a
 * run that was stopped goes on, and a second one brings what happened since. With `force`
 * conversations that went on by themselves in the target are replaced. Answers
 * {"from","to","conversations","copied","rows","rewritten","sessions","scripts","removed","tenants","digest",
 * "failures","failed":[{"conversation_id","code","message"}]}; `failed` names the first hundred. */
TM_API void tm_store_copy(tm_host *host, const tm_move *move, tm_reply_fn fn, void *ud);

/* Copies the configured store, which may be in use, into a new SQLite file `to`, which is there
 * only when it is complete. With `force` an older file is replaced. Answers as tm_store_copy. */
TM_API void tm_store_backup(tm_host *host, const tm_move *move, tm_reply_fn fn, void *ud);

/* Copies the backup `from` into the configured store, which nobody may be using. A store that has
 * conversations the backup does not have, or newer ones, is refused untouched; with `force` the
 * former stay and the latter are set back. Answers as tm_store_copy. */
TM_API void tm_store_restore(tm_host *host, const tm_move *move, tm_reply_fn fn, void *ud);

/* What is wrong or unsafe with an installation, whether a server runs or not:
 * {"items":[{"level","area","text"}],"errors":n,"warnings":n}; level is error, warning or info.
 * `deep` reads the whole store. A configuration that cannot be loaded is a finding. */
TM_API void tm_doctor(const tm_options *options, int deep, tm_reply_fn fn, void *ud);

/* ---- texts ---- */

/* Turns an answer's JSON into text for a terminal of `columns` columns; `view` is a name of
 * lua/tidemill/cli ("systems", "conversations", "steps", "config", "check", "turn", ...).
 * The reply's `json` is then that text. Calls back before it returns. */
TM_API void tm_text_render(tm_host *host, const char *view, const char *json, int columns,
                           int colour, tm_reply_fn fn, void *ud);

TM_API const char *tm_status_name(tm_status status); /* "not_found"; static */
TM_API const char *tm_version(void);                 /* "0.1.0"; static */

#ifdef __cplusplus
}
#endif
#endif
