/* slot.h - inside host/journal only: a conversation at work, its hot copy, the turn that runs.
 *
 * A slot exists while a conversation is at work, and afterwards for as long as its hot copy fits
 * the cache. All of it belongs to the journal's worker; store jobs get copies. The parts:
 *   slot.c     slots, their queues, the cache          decide.c  what the next request needs
 *   turn.c     the life of a turn                      append.c  the rows a turn appends
 *   claim.c    claims, leases, moved deadlines         scheduler.c  who is woken when
 *   load.c     reading a record from its rows          row.c     the body of a row
 *   answer.c   answers that rows give                  undo.c    rollback
 *   undo_row.c the rows that end one                   undo_steps.c  what stands in its way
 *   fork.c     a new conversation from another's row   compensation.c  undoing before a failure
 *   trail.c    what was done since an answer that is to be corrected
 *   request.c  requests, their replies, their kinds    journal.c the journal, draining, stopping
 *   quota.c    limits on turns                         rates.c  the turns of a minute
 *   together.c messages that come at once              interrupt.c giving a turn up for another
 *   transcript.c what was said before              word.c    what hosts tell each other
 */
#ifndef TM_JOURNAL_SLOT_H
#define TM_JOURNAL_SLOT_H

#include "core/map.h"
#include "journal/journal.h"

typedef struct tm_slot tm_slot;

/* ---- row.c: the body of a row ---- */
typedef struct tm_row_fields { /* raw values within a body; ptr NULL: absent */
  tm_slice call, checkpoint, delta, error, fork, input, key, keys, messages, prompt, runtime, start,
      state, status, step, steps, turn, undo, wake_at;
} tm_row_fields;
void tm__row_fields(tm_row_fields *out, tm_slice body);
bool tm__row_status(const tm_row_fields *f, tm_conversation_status *out);
tm_turn_kind tm__row_turn(const tm_row_fields *f); /* first begin row: what its turn began as */

typedef struct tm_keys { /* idempotency keys of the messages that a turn answers; `row` unused */
  size_t count;
  tm_recent_key list[TM_RECENT_KEYS];
} tm_keys;
bool tm__keys_add(tm_keys *k, uint64_t key, uint64_t body); /* key 0: nothing; false: no room */
const tm_recent_key *tm__keys_find(const tm_keys *k, uint64_t key); /* NULL: none, or key 0 */
void tm__row_keys(const tm_row_fields *f, tm_keys *out); /* adds; first begin row of a turn */

typedef struct tm_row_plan {
  const tm_draft *draft;
  tm_conversation_status status;
  tm_slice before;     /* the state of the row before; ptr NULL: write the state in full */
  tm_slice input;      /* first begin row of a turn; ptr NULL: none */
  const tm_keys *keys; /* likewise */
  tm_turn_kind turn;   /* likewise */
  tm_slice fork;       /* first row of a fork: what it goes on from */
  tm_slice undo;       /* of a rollback: the plan in its first row, the outcome in its last one */
  bool start;          /* first row of a conversation */
} tm_row_plan;
/* Appends the body; `full` says whether it holds the whole state. */
void tm__row_compose(tm_buf *out, const tm_row_plan *p, bool *full);
void tm__row_compose_call(tm_buf *out, tm_slice key, tm_slice result);

typedef struct tm_texts { /* a list of owned texts; zero-initialise */
  tm_slice *items;
  size_t count, cap;
} tm_texts;
bool tm__texts_add(tm_texts *t, tm_slice text); /* copies; false: out of memory */
bool tm__texts_take(tm_texts *t, tm_buf *text); /* takes the bytes; the buffer is empty then */
void tm__texts_reverse(tm_texts *t);
void tm__texts_free(tm_texts *t);

/* ---- load.c: a record made of its rows ---- */
#define TM_FULL_EVERY 16 /* rows from one whole state to the next */

typedef struct tm_record {
  tm_head head; /* as stored; revision 0: not stored yet */
  bool loaded, in_memory;
  int64_t newest; /* revision of the newest row; 0: it cannot be read */
  uint32_t flags; /* how that was stored */
  bool unsealed;  /* some of the rows were not sealed, and there is no leave for that … */
  int64_t plain;  /* ... and the revision of the newest of them */
  int rows_since_full;
  int64_t deadline; /* what the newest row says; the head's wake_at may be earlier */
  tm_buf state, runtime;
  tm_bundle *bundle; /* NULL: its version is neither loaded nor stored */
  /* of the unfinished turn, when it was read with status `active` */
  tm_turn_kind began_as;
  tm_keys keys;
  int64_t begun;  /* revision of its first row */
  int64_t before; /* the row before that; 0: none */
  tm_buf input, calls, undo;
  tm_texts rows; /* bodies of its begin rows, oldest first */
} tm_record;

typedef struct tm_tip { /* the newest row that is no call */
  tm_conversation_status status;
  tm_buf step, prompt, error; /* step: plain text; the others raw, empty: null */
  int64_t created;
} tm_tip;

void tm__record_clear(tm_record *r);
void tm__tip_clear(tm_tip *t);
/* In a store job: state and runtime at row `row` of the conversation that r->head and r->in_memory
 * name, and with `unfinished` the turn it belongs to. `tip` may be NULL. */
tm_status tm__record_rows(tm_record *r, tm_tip *tip, const tm_store_access *a, int64_t row,
                          bool unfinished, tm_error *err);
/* TM_OK, or "seal.plaintext": the conversation seals, as `flags` of its newest row say or those of
 * the record, and the record was read from rows that anybody could have written. What somebody goes
 * back to is not looked at by the executor, and would be sealed when it is written anew. */
tm_status tm__record_trust(const tm_record *r, uint32_t flags, tm_error *err);
/* Reads the record of the request at hand, then decides anew. */
void tm__record_load(tm_slot *s);

/* ---- slot.c ---- */
typedef enum tm_slot_phase {
  TM_SLOT_IDLE,
  TM_SLOT_READING,    /* a store job is out */
  TM_SLOT_RUNNING,    /* the executor has the turn */
  TM_SLOT_COMMITTING, /* a commit is out and nobody has the turn */
  TM_SLOT_WAITING,    /* for a turn that runs elsewhere or later; the timer is armed */
} tm_slot_phase;

struct tm_slot {
  tm_journal *journal;
  char id[TM_ID_SIZE];
  tm_slot_phase phase;
  bool deciding;   /* on the stack: who finishes something need not start the next */
  bool fresh;      /* the record was read for the request at hand */
  char tenant[65]; /* of the conversation; "" while nothing is known about it; likewise: */
  tm_concurrency concurrency;
  tm_record record;
  tm_request *first, *last; /* the request at hand, and those behind it */
  size_t waiting;
  tm_turn *turn;
  uint64_t timer;
  bool cached; /* in the list of hot copies that nobody uses */
  size_t charge;
  tm_slot *newer, *older;
};

#define TM_TOLD 16

struct tm_journal {
  tm_journal_options o;
  tm_map slots; /* by conversation */
  tm_slot *newest, *oldest;
  size_t cached_bytes;
  struct {         /* faults of deadlines that the log has */
    uint64_t what; /* a digest */
    int64_t at;
  } told[TM_TOLD];
  size_t told_next; /* to be overwritten */
  uint64_t turns;   /* the id of the newest turn */
  size_t running;   /* turns */
  size_t pending;   /* commits and jobs that are out */
  bool draining, abandoned;
  void (*drained)(void *ud);
  void *drained_ud;
  void (*finished)(void *ud);
  void *finished_ud;
};

tm_slot *tm__slot_get(tm_journal *j, tm_slice id); /* made when absent; NULL: out of memory */
void tm__slot_free(tm_slot *s);
void tm__slot_push(tm_slot *s, tm_request *r);                    /* behind all others */
void tm__slot_push_front(tm_slot *s, tm_request *r);              /* becomes the request at hand */
tm_request *tm__slot_pop(tm_slot *s);                             /* NULL: there is none */
tm_request *tm__slot_take_behind(tm_slot *s, tm_request *before); /* NULL: the first; likewise */
/* Decides about requests until something has to be waited for. The slot may be gone afterwards. */
void tm__slot_go(tm_slot *s);
/* Around what comes back from a thread or timer: the slot lives until `leave`, which goes on. */
void tm__slot_enter(tm_slot *s);
void tm__slot_leave(tm_slot *s);
/* Nothing is known about the record any more. */
void tm__slot_forget(tm_slot *s);
void tm__slot_pause(tm_slot *s, int64_t ms); /* forgets the record, looks again in `ms` */
/* Looks again in `ms` or sooner; fails the request at hand when it has waited for too long. */
void tm__slot_wait(tm_slot *s, int64_t ms);
void tm__slot_wait_end(tm_slot *s);
/* Takes the request at hand off the queue and answers it with the error; a WAKE is put off. */
void tm__slot_fail(tm_slot *s, const tm_error *err);

typedef struct tm_slot_job { /* a store job for a slot; freed after `done` */
  tm_store_job job;
  tm_slot *slot;
  void (*done)(tm_slot *s, struct tm_slot_job *job); /* worker; releases what the job holds */
} tm_slot_job;
void tm__slot_read(tm_slot *s, tm_slot_job *job);

/* ---- decide.c ---- */
/* Need it not wait for those before it, who wait for the record's turn? */
bool tm__slot_passes(const tm_slot *s, const tm_request *r);
void tm__slot_decide(tm_slot *s); /* answers the request at hand or changes the phase */

/* ---- request.c: both free `r` ---- */
void tm__request_answer(tm_request *r, tm_slice json); /* NUL-terminated */
void tm__request_fail(tm_request *r, const tm_error *err);
/* A rollback or a trail that its turn wanted, and what was said to that. */
void tm__request_forget_asked(tm_request *r);

/* ---- answer.c: the request at hand is answered by rows ---- */
void tm__answer_row(tm_slot *s, int64_t row);
void tm__answer_tip(tm_slot *s);   /* as the record stands, also where its last turn was refused */
void tm__answer_lost(tm_slot *s);  /* by the end of the turn that went on elsewhere */
void tm__answer_start(tm_slot *s); /* a START with a key: answered, refused, waiting or `looked` */

/* ---- claim.c: commits of the head alone ---- */
void tm__claim_take(tm_slot *s);               /* then resumes the unfinished turn */
void tm__head_arm(tm_slot *s, int64_t when);   /* sets wake_at; 0: none */
void tm__claim_return(tm_slot *s, tm_turn *t); /* the host stops */
void tm__lease_start(tm_turn *t);
void tm__lease_stop(tm_turn *t);

/* ---- quota.c ---- */
/* Does a limit of the system keep the request at hand, which is about to run, from that? Then it is
 * being looked at, or was refused. */
bool tm__quota_holds(tm_slot *s, const char *system);
/* May `r`, which waits, begin a turn in this minute? While that is being asked it may not; then
 * those that wait are looked at again. */
bool tm__quota_lets(const tm_slot *s, tm_request *r);
/* The start `r` was refused before it was anything: it was none of a minute's turns. */
void tm__quota_return(const tm_slot *s, tm_request *r);
int64_t tm__steps_counted(tm_slice runtime);   /* executions of steps, undone ones included */
int64_t tm__steps_inherited(tm_slice runtime); /* those of them that a fork found */
tm_slice tm__usage(tm_slice runtime);          /* what they have used, JSON; {NULL,0}: unknown */

/* ---- undo.c ---- */
void tm__undo_find(tm_slot *s); /* the request at hand is a rollback */

/* ---- fork.c ---- */
void tm__fork_find(tm_slot *s); /* the request at hand is a FORK */

/* ---- trail.c ---- */
void tm__trail_find(tm_slot *s); /* the turn of the request at hand asked for a trail */

/* ---- undo_steps.c: the executions that a rollback goes over ---- */
typedef struct tm_undo_steps { /* zero-initialise */
  struct tm_undo_step *items;  /* newest first */
  size_t count, cap, bytes;    /* of the outputs */
  tm_texts undone;             /* seqs, undone by rollbacks that did not go back over them */
  tm_texts given_up;           /* "ids" of what turns that were given up have done outside */
} tm_undo_steps;
/* The next row of the walk. TM_ENOMEM, or TM_ELIMIT with *err. */
tm_status tm__undo_steps_add(tm_undo_steps *u, const tm_row *row, const tm_row_fields *f,
                             tm_error *err);
/* The names of those that cannot be taken back, each once, with ", " between; nothing: all can. */
void tm__undo_steps_irreversible(const tm_undo_steps *u, tm_buf *names);
/* The newest of them that is a decision of somebody else than the user; NULL: none is. */
const char *tm__undo_steps_decided(const tm_undo_steps *u);
/* [{"output","seq","step_id","undo"}], `most` bytes of it or one; returns how many. */
size_t tm__undo_steps_write(const tm_undo_steps *u, size_t most, bool *more, tm_buf *out);
/* ["ids"] of those that have done something outside, with or without `undo`: nobody has it run. */
void tm__undo_steps_called(const tm_undo_steps *u, tm_buf *out);
/* ["flow/step"] of those that are completed and have an `undo`, each once; false: no memory. */
bool tm__undo_steps_places(const tm_undo_steps *u, tm_buf *out);
/* [seq] of those before all of these that were undone all the same. */
void tm__undo_steps_before(const tm_undo_steps *u, tm_buf *out);
void tm__undo_steps_free(tm_undo_steps *u);

/* ---- compensation.c ---- */
bool tm__is_failing(const tm_record *r);
/* In a store job: `input` of a record that is failing becomes {"irreversible": names, "limited":
 * was too much to look at?, "more": is this only a part?, "steps": as above}. */
tm_status tm__compensation(tm_record *r, const tm_store_access *a, tm_error *err);
/* The request at hand is a migration: it gets {"done": the places of what may have to be undone}.
 */
void tm__migrate(tm_slot *s);

/* ---- undo_row.c ---- */
/* What a rollback goes back to, and where it stays when that fails; canonical JSON. The target's
 * state is its record's, the other's is that of the slot. `back`: the answered prompts that have
 * been gone back over since the last answer; `undone`: seqs that lie before the target, raw or
 * nothing. */
void tm__undo_plan(tm_buf *out, const tm_record *from, const tm_tip *from_tip,
                   const tm_record *target, const tm_tip *target_tip, int64_t target_row, int back,
                   tm_slice undone);
/* The error that a row holds: of a rollback that failed, of a turn that was given up; false: none.
 */
bool tm__undo_failed(tm_error *err, tm_slice body);

/* ---- together.c ---- */
void tm__together_learn(tm_slot *s); /* the record's concurrency and tenant */
/* A turn runs, or begins, while others wait: refuses those, or marks it as interrupted. */
void tm__together_look(tm_slot *s);
/* Must the message at hand be refused, for another one's turn has come between? */
bool tm__together_was_overtaken(const tm_slot *s, const tm_request *r);
/* Only then is that known. */
bool tm__together_wants_newest(const tm_slot *s, const tm_request *r);
/* The same, for another one's turn is unfinished elsewhere. */
bool tm__together_is_busy(const tm_slot *s, const tm_request *r);
void tm__together_refuse(tm_slot *s); /* the request at hand, which it is told */
/* The unfinished turn can neither stop half way nor be as it was. */
bool tm__together_holds(const tm_slot *s);
/* Somebody waits whose message ends the unfinished turn. */
bool tm__together_interrupts(const tm_slot *s);
void tm__together_heed(tm_slot *s); /* somebody new waits, or may run by now */
/* Joins those that wait to the message of `t`, where the system says so. */
void tm__together_join(tm_slot *s, tm_turn *t);
void tm__together_part(tm_slot *s, tm_request *r); /* they wait again, as the first in the queue */

/* ---- interrupt.c ---- */
void tm__turn_interrupt(tm_turn *t); /* gives it up; the slot may be gone afterwards */

/* ---- turn.c ---- */
typedef enum tm_append_kind {
  TM_APPEND_BEGIN,
  TM_APPEND_CALL,
  TM_APPEND_SUSPEND,
  TM_APPEND_END
} tm_append_kind;

typedef struct tm_append { /* a commit with a row */
  tm_commit_job job;
  tm_append_kind kind;
  bool out, held; /* held: until the renewal that is out has come back */
  tm_row row;
  tm_session session;
  tm_buf body, state, runtime; /* what the record becomes */
  tm_buf told;                 /* the bodies of `events`, one behind the other */
  tm_outgoing *events;
  int64_t deadline;
  tm_slice undo; /* borrowed, until the body is composed */
  bool full;
} tm_append;

struct tm_turn {
  tm_turn_view view;
  tm_bundle *target; /* MIGRATE: the version that it runs in; else NULL */
  tm_slot *slot;
  tm_request *request; /* who gets the answer; NULL: nobody */
  bool begun;          /* a row of the turn is stored */
  bool ended;          /* the executor must not be called any more */
  bool rows_lost;      /* `rows` is not complete: out of memory */
  bool fresh;          /* the record was read for its request */
  bool interrupted;    /* it is given up at its next row */
  bool interrupting;   /* it is being given up */
  bool wanted;         /* another host waits for its end */
  int64_t before;      /* the newest row when it began; 0: none */
  bool compress, seal; /* its rows */
  tm_keys keys;
  tm_texts rows;                       /* bodies of its begin rows */
  tm_buf input, calls, state, runtime; /* what the view shows, once the record has moved on */
  tm_buf undo;                         /* of a rollback: see tm__undo_plan */
  tm_append append;
  tm_turn_done_fn done; /* of the append that is out */
  void *done_ud;
  tm_commit_job renewal;
  bool renewing, lease_armed;
  uint64_t lease_timer;
  tm_error error;   /* why it failed, while a commit is still out */
  tm_error refusal; /* what its row answers: a rollback that failed, a turn that was given up */
};

tm_status tm__version_missing(const tm_slot *s, tm_error *err);
/* Takes the request at hand off the queue and runs its turn. */
void tm__turn_run(tm_slot *s, tm_turn_kind kind);
/* Likewise: the first row of the slot's record, whose head is made. */
void tm__turn_fork(tm_slot *s, tm_slice plan, tm_slice origin);
void tm__turn_undo(tm_slot *s);        /* likewise, a rollback without functions to run */
void tm__turn_cancel(tm_slot *s);      /* likewise: ends the conversation */
void tm__turn_preview(tm_turn *t);     /* answers with t->append and forgets it */
void tm__turn_appended(tm_message *m); /* t->append has come back */
void tm__turn_lost(tm_turn *t);        /* the record was changed by another process */
void tm__turn_failed(tm_turn *t);      /* with t->error; nothing is out any more */
void tm__turn_abandon(tm_turn *t);
void tm__turn_free(tm_turn *t); /* tells the slot; NULL allowed */

/* ---- become.c ---- */
/* Runs the turn of the request at hand once more: what it had asked for is refused. */
void tm__turn_refused(tm_slot *s, const tm_error *why);

/* ---- append.c ---- */
void tm__append_forget_events(tm_append *a);
void tm__turn_send(tm_turn *t); /* commits t->append, once the renewal that is out has come back */
/* Appends the first row of a fork: the target of t->undo, and what it goes on from. */
void tm__turn_forked(tm_turn *t, tm_slice origin);
/* Restores the target of t->undo; `called`: ["ids"] of steps that had done something outside; `why`
 * is what its client is told, now or by the row. */
void tm__turn_given_up(tm_turn *t, const tm_error *why, tm_slice called);
void tm__turn_fork_row(tm_turn *t, const tm_draft *draft, tm_slice origin);
/* Appends an undo row; `undo` is its outcome, raw or nothing. */
void tm__turn_restore(tm_turn *t, const tm_draft *draft, int64_t base, tm_slice undo);

/* ---- word.c ---- */
void tm__word_want(const tm_slot *s); /* the request at hand waits for a turn that runs elsewhere */
void tm__word_ended(const tm_turn *t);             /* to whoever wanted that */
void tm__word_heard(tm_journal *j, tm_request *r); /* WANTED or ENDED; frees it */

/* ---- journal.c ---- */
int64_t tm__journal_now(const tm_journal *j);
void tm__journal_hint(const tm_journal *j, int64_t when);
void tm__journal_emitted(const tm_journal *j);
void tm__journal_check(tm_journal *j); /* is draining or stopping complete? */

#endif
