/* journal.h - turns: one at a time per conversation, durable before they are answered.
 *
 * A tm_journal belongs to one worker and owns the conversations whose id hashes to it: their hot
 * copies, the requests that wait for them, the turn that runs. What a turn *does* is decided by an
 * executor (the Lua runtime); what it may never get wrong is decided here: order, claims, leases,
 * compare-and-set, idempotency, resumption, deadlines. No Lua, no HTTP.
 *
 * Life of a turn: submitted -> record loaded -> executor->run -> any number of tm__turn_begin and
 * tm__turn_call -> exactly one of tm__turn_commit, tm__turn_suspend, tm__turn_fail -> answered.
 * A turn whose record was changed by another process is cancelled (executor->cancel) and, when
 * nothing was begun, run again on the new record.
 */
#ifndef TM_JOURNAL_JOURNAL_H
#define TM_JOURNAL_JOURNAL_H

#include "journal/bundle.h"
#include "journal/checkpoint.h"
#include "journal/rates.h"
#include "storage/storage.h"

typedef struct tm_journal tm_journal;
typedef struct tm_turn tm_turn;

typedef enum tm_turn_kind {
  TM_TURN_START,
  TM_TURN_MESSAGE,
  TM_TURN_RESUME, /* an unfinished turn goes on: after a crash, or because its retry is due */
  TM_TURN_WAKE,   /* a deadline of a waiting conversation passed */
  TM_TURN_UNDO,   /* a rollback whose `undo` functions run */
  /* signals: what steers a conversation, or comes from somebody else than its user */
  TM_TURN_COMMAND,
  TM_TURN_APPROVAL,
  TM_TURN_EVENT,
  TM_TURN_PAUSE,
  TM_TURN_UNPAUSE,
  TM_TURN_MIGRATE, /* runs in the current version of its system, to which the conversation goes */
  TM_TURN_CHECKPOINT,
} tm_turn_kind;
const char *tm__turn_kind_name(tm_turn_kind kind); /* "command"; static */
bool tm__turn_kind_parse(tm_turn_kind *out, tm_slice name);

/* ---- what comes in ---- */
typedef enum tm_request_kind {
  TM_REQUEST_START,
  TM_REQUEST_MESSAGE,
  TM_REQUEST_SIGNAL, /* `signal` says which; whatever it waits for, the executor decides about it */
  TM_REQUEST_UNDO,   /* rollback */
  TM_REQUEST_FORK,   /* a new one that goes on from where `origin` waited, or from a checkpoint */
  TM_REQUEST_CANCEL, /* ends it as it stands, after the turn that runs; answered also when it is
                        over */
  TM_REQUEST_WAKE,   /* a deadline or a lease may have passed; no reply */
  TM_REQUEST_FORGET, /* it was purged: its hot copy goes; no reply */
  TM_REQUEST_WANTED, /* another host waits for the end of its turn; no reply */
  TM_REQUEST_ENDED,  /* its turn on another host has ended, as was wanted; no reply */
} tm_request_kind;

/* What happens to a message of the user that comes while another one, or the start, is unfinished:
 * the runtime part of a record says which in `concurrency`, else the journal's options do. */
typedef enum tm_concurrency {
  TM_CONCURRENCY_QUEUE,     /* it waits, and is the answer to what is asked then */
  TM_CONCURRENCY_REJECT,    /* 409 conversation.busy */
  TM_CONCURRENCY_MERGE,     /* those that wait when a turn begins are one input */
  TM_CONCURRENCY_INTERRUPT, /* the turn is given up at its next row, as if it had not been */
} tm_concurrency;
bool tm__concurrency_parse(tm_concurrency *out, tm_slice name); /* "queue" */

typedef struct tm_request { /* made by tm__request_new, owned by the journal once submitted */
  tm_message message;       /* internal */
  tm_request_kind kind;
  char conversation[TM_ID_SIZE]; /* START, FORK: the new id */
  char tenant[65];
  /* START */
  char system[65], flow[65], session[129];
  char *user_id, *metadata_json;             /* owned; NULL: none */
  int64_t session_look;                      /* of a new session; ms, 0: never */
  int64_t sessions_max, tenant_sessions_max; /* open ones; 0: no limit */
  tm_turn_kind signal;                       /* SIGNAL: the kind of its turn */
  /* START: {"message":text|null,"user_id":..,"metadata":{..}}; MESSAGE: the input, any JSON value;
   * SIGNAL: what belongs to it, an object, or NULL */
  char *input_json;   /* owned */
  uint64_t key, body; /* digests of the idempotency key and of the body; key 0: none */
  bool dry_run;       /* SIGNAL: answered with what would come of it; nothing is stored */
  /* UNDO */
  int steps;
  int64_t checkpoint; /* its revision; 0: use steps. Also of a FORK; 0: where it waits now */
  char checkpoint_name[TM_CHECKPOINT_NAME]; /* instead of that; "": not given */
  bool force;
  char origin[TM_ID_SIZE]; /* FORK */
  tm_reply_fn reply;       /* NULL: nobody listens */
  void *reply_ud;
  /* internal */
  tm_journal *journal;
  struct tm_request *queue;  /* the next one that waits for the conversation */
  struct tm_request *joined; /* MESSAGE: others that its turn answers too; owned */
  int64_t floor;  /* > 0: its turn goes on elsewhere or later; rows above this revision answer it */
  int64_t since;  /* when it began to wait for another's turn, microseconds; 0: it does not */
  int attempts;   /* runs that were overtaken by another process */
  int64_t ran_on; /* the newest row when it was overtaken; 0: it was not */
  int back;       /* > 0: its turn asked for a rollback over so many answered prompts */
  char *undo_steps, *undo_plan; /* of a rollback: what its turn gets, and what it may restore */
  char *trail_of, *trail; /* its turn asked for what was done since an answer of one of these steps;
                             the command with it. Owned; likewise: */
  char *command;          /* MESSAGE: that its turn took it for, then */
  char *refused;          /* what its turn asked for, and why not: it runs once more, to say so */
  bool takes;             /* the unfinished turn is taken for it: see tm_turn_view */
  bool looked;            /* START, FORK: its key is known to be unused */
  bool counted;           /* its session has steps left; likewise: */
  int64_t rated;          /* its turn is one of this minute's; 0: of none */
} tm_request;

tm_request *tm__request_new(tm_request_kind kind); /* zeroed; NULL: out of memory */
void tm__request_free(tm_request *r);
/* WANTED or ENDED, as another host's word says; NULL: it says neither, or there is no memory. */
tm_request *tm__request_of_word(const char *word);

/* ---- what executes ---- */
typedef struct tm_turn_view { /* valid until the turn ends */
  uint64_t id;                /* unique in the worker; even after the turn ended */
  tm_turn_kind kind;
  tm_turn_kind began_as;   /* RESUME: the kind of the unfinished turn; else `kind` */
  const tm_head *head;     /* as stored; revision 0 for a START */
  tm_slice state, runtime; /* canonical JSON objects; "{}" for a START */
  bool unsealed;           /* they were read from rows that anybody could have written */
  tm_slice input;    /* the request's input; UNDO: {"steps":[{"output","seq","step_id","undo"}]},
                        the executions to undo, newest first; RESUME: that of the unfinished turn, or
                        null */
  tm_slice calls;    /* RESUME: {"key": result, ...} since the newest begin row; else {} */
  tm_bundle *bundle; /* the version to run; borrowed */
  int64_t now;
  tm_slice refused; /* {"code","message"}: of the rollback or trail that this request asked for when
                       it ran before; ptr NULL: nothing was refused */
  int64_t retry_at; /* RESUME: > 0: somebody takes the turn, whose retry would be due then. It ends
                       at once: the conversation sleeps until then; a rollback is given up … */
  bool forced;      /* ... or goes on, and leaves as it is what waited to be undone */
} tm_turn_view;
const tm_turn_view *tm__turn_view(const tm_turn *t);

typedef struct tm_executor {
  void *ud;
  /* On the worker's thread; may end the turn at once or later. */
  void (*run)(void *ud, tm_turn *t);
  /* The turn is lost or the host stops: drop it without touching it again. */
  void (*cancel)(void *ud, tm_turn *t);
} tm_executor;

/* What is written; JSON text, copied. */
typedef struct tm_draft {
  tm_conversation_status status;
  tm_slice step;     /* current step; "" when over */
  int64_t wake_at;   /* the earliest deadline; 0: none */
  bool checkpoint;   /* list this row as checkpoint (stored with full state) */
  bool in_memory;    /* START only: persist_state = false */
  bool compress;     /* the row; likewise: */
  bool seal;         /* once a conversation has sealed rows, all that follow are */
  tm_slice steps;    /* array: executions since the last row */
  tm_slice messages; /* array: messages since the last row */
  tm_slice state;    /* object, whole */
  tm_slice runtime;  /* object, whole */
  tm_slice prompt;   /* object or null */
  tm_slice error;    /* {code,message,step_id} of a failed conversation, or null/{NULL,0} */
  tm_slice events;   /* array of objects: what the world is to be told; {NULL,0}: nothing */

  tm_slice checkpoint_name; /* of the row that is listed as checkpoint; {NULL,0}: none */
} tm_draft;

/* `err` NULL: durable. Not called when the turn is cancelled instead. */
typedef void (*tm_turn_done_fn)(void *ud, const tm_error *err);

/* tm__turn_begin and tm__turn_call: one at a time; a second one before `fn` gets its error at once,
 * otherwise `fn` is called later. */
/* Appends a begin row (input, keys, draft) and takes or keeps the claim. Needed before the first
 * outside call and again before a call that follows completed steps. draft->status is ignored
 * (it is `active`). */
void tm__turn_begin(tm_turn *t, const tm_draft *draft, tm_turn_done_fn fn, void *ud);
/* Appends a call row; only after begin. `result` is any JSON value. */
void tm__turn_call(tm_turn *t, tm_slice key, tm_slice result, tm_turn_done_fn fn, void *ud);

/* The ends. The turn must not be used afterwards. A TM_ECONFLICT of a turn that has not begun
 * refuses what came in because of the record: where that was no fresh copy, the turn runs again on
 * one, for another process may have changed it. */
void tm__turn_commit(tm_turn *t, const tm_draft *draft);  /* turn row, claim given back, answer */
void tm__turn_suspend(tm_turn *t, const tm_draft *draft); /* begin row without claim; goes on as
                                                             RESUME at draft->wake_at */
void tm__turn_fail(tm_turn *t, const tm_error *err); /* nothing more is written; an error is the
                                                        answer; a begun turn is taken up later */

/* The end of a turn that began as UNDO: what it goes back to is restored, or with `why` what was
 * there before it, and that is the answer. Of the draft steps, messages, compress and seal count,
 * and of its runtime `step_seq` and `undone`: [seq, ...]. */
void tm__turn_undone(tm_turn *t, const tm_draft *draft, const tm_error *why);
/* Ends a turn that has not begun: its request is answered by a rollback over `steps` answered
 * prompts. Where that is forbidden, it runs once more and is told so (`refused`). */
void tm__turn_rollback(tm_turn *t, int steps);
/* Ends a turn that has not begun, a command: it runs anew, with a `trail` in its input: what was
 * done since one of the steps (["ids", ...], the top flow's) was answered last; or as above. A
 * message that is to run as a command says which, a canonical object; of others ptr is NULL. */
void tm__turn_trail(tm_turn *t, tm_slice steps, tm_slice command);

/* What was said before, as far as rows hold it: {"items":[messages, newest first],"next":cursor or
 * null}; `cursor` is that of the page before, or empty. `fn` is called once, on the worker's thread
 * and after this has returned, also when the turn has ended meanwhile; `page` is valid within it.
 * NULL: out of memory. */
typedef struct tm_messages_read tm_messages_read;
typedef void (*tm_messages_fn)(void *ud, tm_slice page, const tm_error *err); /* `err` NULL: done */
tm_messages_read *tm__turn_messages(const tm_turn *t, tm_slice cursor, tm_messages_fn fn, void *ud,
                                    tm_error *err);
void tm__messages_cancel(tm_messages_read *r); /* before `fn` was called: it never is */

/* ---- the journal of one worker ---- */
typedef void (*tm_scheduler_hint_fn)(void *ud, int64_t when);
typedef struct tm_journal_options {
  tm_worker *worker;
  tm_storage *storage;
  tm_registry *registry;
  const tm_log *log;
  tm_clock clock;
  tm_executor executor;
  char host_id[TM_ID_SIZE]; /* whose claims are ours */
  int64_t lease_ms;
  size_t cache_bytes; /* hot copies kept at most */
  tm_scheduler_hint_fn hint;
  void *hint_ud;                          /* called with each new wake_at; NULL: none */
  void (*emitted)(void *ud);              /* with hint_ud: events became durable; NULL: none */
  tm_concurrency concurrency;             /* where a record does not say */
  tm_quotas quotas;                       /* where a system does not say */
  tm_rates *rates;                        /* of the host; borrowed; NULL: none are counted */
  size_t queue_limit;                     /* requests that may wait for one conversation */
  const tm_checkpoint_rules *checkpoints; /* NULL: all stay listed */
} tm_journal_options;

tm_status tm__journal_new(tm_journal **out, const tm_journal_options *o, tm_error *err);
/* Any thread. Answers exactly once through r->reply. */
void tm__journal_submit(tm_journal *j, tm_request *r);
/* Worker thread. From now on requests are refused (503); `fn` is called on the worker when no turn
 * runs any more. */
void tm__journal_drain(tm_journal *j, void (*fn)(void *ud), void *ud);
/* Worker thread. Cancels what still runs, gives claims back so that the next start takes the turns
 * up at once, answers waiting requests 503. `fn` is called on the worker when all is written. */
void tm__journal_abandon(tm_journal *j, void (*fn)(void *ud), void *ud);
tm_status tm__journal_stopping(tm_error *err); /* what is refused now: TM_EUNAVAILABLE */
void tm__journal_free(tm_journal *j);          /* after abandon; worker stopped. NULL allowed */

/* ---- deadlines: one per host, on one worker ---- */
typedef struct tm_scheduler tm_scheduler;
typedef struct tm_scheduler_options { /* all borrowed */
  tm_worker *worker;
  tm_storage *storage;
  tm_clock clock;
  const tm_log *log;
  int64_t poll_ms;
  void (*wake)(void *ud, const tm_head *due); /* on `worker`; submits a WAKE */
  /* On a writer's thread, inside a job on the store of the tenant: does what is due of its
   * sessions. NULL: nothing is. */
  tm_status (*sessions)(void *ud, const tm_store_access *a, const char *tenant, tm_error *err);
  /* On `worker`: the store of the tenant has events that are due. NULL: nobody delivers them. */
  void (*events)(void *ud, const char *tenant);
  void *ud;
} tm_scheduler_options;
tm_status tm__scheduler_new(tm_scheduler **out, const tm_scheduler_options *o, tm_error *err);
void tm__scheduler_poke(tm_scheduler *s);               /* any thread: look now */
void tm__scheduler_hint(tm_scheduler *s, int64_t when); /* any thread: a deadline was set */
void tm__scheduler_stop(tm_scheduler *s); /* worker thread; nothing is called any more */
void tm__scheduler_free(tm_scheduler *s); /* worker stopped. NULL allowed */

#endif
