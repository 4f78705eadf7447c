/* main.h - what the files of the program `tidemill` share. The program is a client of the library:
 * it knows tidemill.h and nothing else of it.
 */
#ifndef TM_MAIN_H
#define TM_MAIN_H

#include <jansson.h>
#include <pthread.h>
#include <stdbool.h>

#include "tidemill.h"

#define CLI_MAX_ARGS 256
#define CLI_MAX_SETS 64

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

typedef struct cli_log {
  pthread_mutex_t lock;
  int fd;
  bool socket, json, cut; /* cut: the last line is not whole */
  size_t lost;            /* lines */
  time_t waited_s;        /* by the monotonic clock */
} cli_log;

/* The command line, parsed. Texts are borrowed from argv. */
typedef struct cli {
  const char *config, *env_file, *tenant, *listen, *session, *resume;
  const char *status, *system, *flow, *limit, *cursor, *steps, *revision, *checkpoint, *from, *to;
  const char *role, *user, *comment, *data;
  bool json, force, deep, dry_run, watch, help, version;
  const char *set[CLI_MAX_SETS + 1];
  size_t sets;
  const char *arg[CLI_MAX_ARGS + 1]; /* what is no option, without the command; NULL-terminated */
  size_t args;
  int number;          /* what --limit, --steps or --revision says; 0: nothing */
  const char *command; /* the command's last word: "serve", "show" */
  int columns;         /* of the terminal */
  bool colour;
  tm_host *host;
  cli_log log;
} cli;

/* ---- main_log.c ---- */

void log_open(cli_log *log);
void log_close(cli_log *log);
void log_line(void *ud, const char *line, size_t size); /* ud: a cli_log; any thread */

/* ---- main_io.c: answers, output, errors ---- */

/* One answer of the library, brought from its thread to ours. */
typedef struct answer {
  pthread_mutex_t lock;
  pthread_cond_t done;
  bool has_come; /* one request, one answer */
  tm_status status;
  char *text; /* owned; NULL unless status is TM_OK */
  tm_error error;
} answer;

void answer_init(answer *a);
void answer_come(void *ud, const tm_reply *reply); /* a tm_reply_fn; `ud` is the answer */
tm_status answer_wait(answer *a);
void answer_deinit(answer *a);

/* Waits; a failure is printed. The JSON, which the caller json_decref()s, or NULL. */
json_t *answer_json(answer *a);

const char *json_text(const json_t *object, const char *key); /* "" when absent or no text */

/* Prints `tidemill: message [code]` to stderr; EXIT_FAILED; EXIT_USAGE for an argument. */
int fail(const tm_error *err);
/* The same for what the program itself found; EXIT_USAGE. */
int usage(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Makes the host of the command line's options; logs to stderr when `with_log`. */
int open_host(cli *c, bool with_log);
/* The same, and starts it. */
int start_host(cli *c, bool with_log);
void close_host(cli *c);

/* Prints a text; JSON as a view of lua/tidemill/cli shows it, from text and from a tree. */
void print_text(const char *text);
int show_text(cli *c, const char *view, const char *json);
int show(cli *c, const char *view, const json_t *json);
/* Prints a good answer: as it is with --json, else by the view. The second waits for it first. */
int print_answer(cli *c, const char *view, const answer *a);
int show_answer(cli *c, const char *view, answer *a);

void look_at_terminal(cli *c); /* columns and colour */
int flush_output(int code);    /* EXIT_FAILED when stdout could not be written, else `code` */

/* ---- main_data.c, main_chat.c, main_store.c: the commands; exit codes ---- */
int run_check(cli *c);
int run_systems(cli *c);
int run_flows(cli *c);
int run_config(cli *c);
int run_conversations(cli *c); /* list */
int run_conversation(cli *c);  /* show, steps, messages, checkpoints */
int run_rollback(cli *c);
int run_fork(cli *c);
int run_migrate(cli *c);  /* main_migrate.c */
int run_steer(cli *c);    /* pause, resume, cancel */
int run_approval(cli *c); /* approve, reject */
int run_event(cli *c);
int run_sessions(cli *c); /* list */
int run_session(cli *c);  /* show, end */
int run_outbox(cli *c);   /* list */
int run_outbox_retry(cli *c);
int run_purge(cli *c);
int run_reload(cli *c);
int run_chat(cli *c);
int run_store_copy(cli *c);
int run_backup(cli *c);
int run_restore(cli *c);
int run_doctor(cli *c);

#endif
