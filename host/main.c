/* main.c - the program `tidemill`: argv, signals and exit codes over tidemill.h.
 *
 * Here are the tables of commands and options, the parser of the command line and `serve`; the
 * commands that print data are in main_data.c, the conversation in the terminal is in main_chat.c.
 */
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "main.h"

/* How long running turns may take after SIGTERM; the rest of ten seconds is for closing. */
#define DRAIN_MS 8000

/* ---- options ---- */

enum { /* who takes an option */
       FOR_ALL = 1 << 0,
       FOR_DATA = 1 << 1,
       FOR_SERVE = 1 << 2,
       FOR_CHAT = 1 << 3,
       FOR_STEER = 1 << 4, /* what is asked as a tenant */
       FOR_LIST = 1 << 5,
       FOR_PAGE = 1 << 6,
       FOR_ROLLBACK = 1 << 7,
       FOR_COPY = 1 << 8,
       FOR_FORCE = 1 << 9,
       FOR_DOCTOR = 1 << 10,
       FOR_PURGE = 1 << 11,
       FOR_SESSIONS = 1 << 12,
       FOR_RELOAD = 1 << 13,
       FOR_APPROVAL = 1 << 14,
       FOR_EVENT = 1 << 15,
       FOR_FORK = 1 << 16,
       FOR_MIGRATE = 1 << 17,
};

typedef struct option {
  const char *name, *value; /* value NULL: a flag */
  unsigned takers;
  size_t offset; /* of the text or flag in cli; `set` is a list */
  const char *help;
} option;

static const option options[] = {
    {"config", "FILE", FOR_ALL, offsetof(cli, config), "configuration (./agent_config.yaml)"},
    {"env-file", "FILE", FOR_ALL, offsetof(cli, env_file), "NAME=value lines for the environment"},
    {"set", "KEY=VALUE", FOR_ALL, offsetof(cli, set), "overrides one setting; may be repeated"},
    {"json", NULL, FOR_DATA, offsetof(cli, json), "prints JSON"},
    {"listen", "HOST:PORT", FOR_SERVE | FOR_RELOAD, offsetof(cli, listen),
     "where the server is (server.listen)"},
    {"watch", NULL, FOR_SERVE, offsetof(cli, watch), "loads scripts anew when they change"},
    {"session", "ID", FOR_CHAT | FOR_LIST, offsetof(cli, session), "the session"},
    {"resume", "CONVERSATION", FOR_CHAT, offsetof(cli, resume), "goes on with a conversation"},
    {"tenant", "NAME", FOR_STEER | FOR_PURGE, offsetof(cli, tenant), "the tenant (default)"},
    {"status", "STATUS", FOR_LIST | FOR_SESSIONS, offsetof(cli, status),
     "only those of this status"},
    {"system", "SYSTEM", FOR_LIST | FOR_MIGRATE, offsetof(cli, system),
     "only conversations of this system"},
    {"flow", "FLOW", FOR_LIST, offsetof(cli, flow), "only conversations of this flow"},
    {"limit", "N", FOR_PAGE, offsetof(cli, limit), "how many at most, up to 200 (50)"},
    {"cursor", "CURSOR", FOR_PAGE, offsetof(cli, cursor), "goes on where a page ended"},
    {"steps", "N", FOR_ROLLBACK, offsetof(cli, steps), "how many answered prompts to go back"},
    {"checkpoint", "ID", FOR_ROLLBACK | FOR_FORK, offsetof(cli, checkpoint),
     "the checkpoint to go to or to go on from, or its name"},
    {"revision", "N", FOR_APPROVAL, offsetof(cli, revision),
     "the revision decided on, as `show` has it (any)"},
    {"role", "ROLE", FOR_APPROVAL, offsetof(cli, role), "as which role (none)"},
    {"user", "ID", FOR_APPROVAL, offsetof(cli, user), "who decides"},
    {"comment", "TEXT", FOR_APPROVAL, offsetof(cli, comment), "why"},
    {"data", "JSON", FOR_EVENT, offsetof(cli, data), "what the event brings with it"},
    {"from", "URL", FOR_COPY, offsetof(cli, from), "the store to copy (the configured one)"},
    {"to", "URL", FOR_COPY, offsetof(cli, to), "the store to copy into (the configured one)"},
    {"deep", NULL, FOR_DOCTOR, offsetof(cli, deep), "reads the whole store"},
    {"force", NULL, FOR_FORCE, offsetof(cli, force), "goes on where it would refuse, see above"},
    {"dry-run", NULL, FOR_PURGE | FOR_MIGRATE, offsetof(cli, dry_run),
     "only says what would come of it"},
    {"help", NULL, FOR_ALL, offsetof(cli, help), "explains the command"},
    {"version", NULL, FOR_ALL, offsetof(cli, version), "prints the version"},
};

/* ---- commands ---- */

typedef struct command {
  const char *name, *sub; /* sub NULL: a command of one word */
  const char *args;
  size_t min_args, max_args;
  unsigned takes;
  int (*run)(cli *c); /* NULL: not supported yet */
  const char *help;
} command;

static int run_serve(cli *c);

static const command commands[] = {
    {"serve", NULL, "", 0, 0, FOR_SERVE, run_serve,
     "Serves HTTP; prints one line `listening on http://...` when it is ready.\n"
     "SIGHUP loads the scripts anew; SIGTERM lets running turns finish, then ends."},
    {"chat", NULL, "[SYSTEM/FLOW]", 0, 1, FOR_CHAT | FOR_STEER, run_chat,
     "A conversation in the terminal. With piped input each line is one answer.\n"
     "/back, /skip, /cancel, /restart, /help and /correct NAME ANSWER are commands; an\n"
     "answer that begins with a slash begins with two."},
    {"check", NULL, "[PATH...]", 0, CLI_MAX_ARGS, FOR_DATA, run_check,
     "Checks scripts without running them; exit code 1 if there is any error."},
    {"systems", NULL, "", 0, 0, FOR_DATA | FOR_STEER, run_systems, "The systems that are loaded."},
    {"flows", NULL, "[SYSTEM]", 0, 1, FOR_DATA | FOR_STEER, run_flows,
     "The flows that are loaded."},
    {"config", NULL, "", 0, 0, FOR_DATA, run_config,
     "The configuration in force, with the origin of each value; secrets hidden."},
    {"conversations", "list", "", 0, 0, FOR_DATA | FOR_STEER | FOR_LIST | FOR_PAGE,
     run_conversations, "Conversations, newest first."},
    {"conversations", "show", "CONVERSATION", 1, 1, FOR_DATA | FOR_STEER, run_conversation,
     "One conversation with its state."},
    {"conversations", "steps", "CONVERSATION", 1, 1, FOR_DATA | FOR_STEER | FOR_PAGE,
     run_conversation, "The steps that a conversation has executed."},
    {"conversations", "messages", "CONVERSATION", 1, 1, FOR_DATA | FOR_STEER | FOR_PAGE,
     run_conversation, "The transcript of a conversation."},
    {"conversations", "checkpoints", "CONVERSATION", 1, 1, FOR_DATA | FOR_STEER | FOR_PAGE,
     run_conversation, "The checkpoints of a conversation."},
    {"conversations", "checkpoint", "CONVERSATION NAME", 2, 2, FOR_DATA | FOR_STEER, run_steer,
     "Lists where a conversation waits as checkpoint of that name."},
    {"conversations", "rollback", "CONVERSATION", 1, 1,
     FOR_DATA | FOR_STEER | FOR_ROLLBACK | FOR_FORCE, run_rollback,
     "Goes back by --steps or to a --checkpoint; --force also over irreversible\n"
     "steps."},
    {"conversations", "fork", "CONVERSATION", 1, 1, FOR_DATA | FOR_STEER | FOR_FORK, run_fork,
     "A new conversation that goes on from where this one waits, or from a\n"
     "--checkpoint."},
    {"conversations", "migrate", "[CONVERSATION]", 0, 1, FOR_DATA | FOR_STEER | FOR_MIGRATE,
     run_migrate,
     "Takes a conversation that waits, or with --system all of a system, to the\n"
     "version of the scripts; exit code 1 if one stays behind."},
    {"conversations", "pause", "CONVERSATION", 1, 1, FOR_DATA | FOR_STEER, run_steer,
     "Holds a conversation: no answer and no deadline moves it."},
    {"conversations", "resume", "CONVERSATION", 1, 1, FOR_DATA | FOR_STEER, run_steer,
     "Lets a paused conversation go on."},
    {"conversations", "cancel", "CONVERSATION", 1, 1, FOR_DATA | FOR_STEER, run_steer,
     "Ends a conversation as it stands, after the turn that runs."},
    {"conversations", "approve", "CONVERSATION", 1, 1, FOR_DATA | FOR_STEER | FOR_APPROVAL,
     run_approval, "Approves what a conversation waits for, as a --role."},
    {"conversations", "reject", "CONVERSATION", 1, 1, FOR_DATA | FOR_STEER | FOR_APPROVAL,
     run_approval, "Rejects what a conversation waits to have approved, as a --role."},
    {"conversations", "event", "CONVERSATION NAME", 2, 2, FOR_DATA | FOR_STEER | FOR_EVENT,
     run_event, "Tells a conversation that an event has happened."},
    {"sessions", "list", "", 0, 0, FOR_DATA | FOR_STEER | FOR_SESSIONS | FOR_PAGE, run_sessions,
     "Sessions, newest first."},
    {"sessions", "show", "SESSION", 1, 1, FOR_DATA | FOR_STEER, run_session,
     "One session, with the number of its open conversations."},
    {"sessions", "end", "SESSION", 1, 1, FOR_DATA | FOR_STEER, run_session,
     "Cancels the open conversations of a session and ends it."},
    {"outbox", "list", "", 0, 0, FOR_DATA | FOR_STEER | FOR_SESSIONS | FOR_PAGE, run_outbox,
     "Events that conversations have emitted and that were not delivered, newest\n"
     "first; --status is pending or dead."},
    {"outbox", "retry", "EVENT", 1, 1, FOR_DATA | FOR_STEER, run_outbox_retry,
     "Tries an event that was given up again."},
    {"purge", NULL, "", 0, 0, FOR_DATA | FOR_PURGE | FOR_FORCE, run_purge,
     "Removes now what the settings of retention let go; a server may run.\n"
     "With --tenant and --force it removes instead everything of that tenant, open\n"
     "conversations and events that were not delivered included, for ever. It needs\n"
     "no key; --dry-run says what that would be."},
    {"test", NULL, "", 0, 0, 0, NULL, ""},
    {"graph", NULL, "", 0, 0, 0, NULL, ""},
    {"reload", NULL, "", 0, 0, FOR_DATA | FOR_RELOAD, run_reload,
     "Tells the running server to load the scripts anew; prints the new\n"
     "versions, or why nothing changed. Finds the server by what it wrote beside\n"
     "the store, else by server.listen."},
    {"store", "copy", "", 0, 0, FOR_DATA | FOR_COPY | FOR_FORCE, run_store_copy,
     "Copies everything from one store to another and compares both by digest.\n"
     "A store is sqlite:PATH, file:FOLDER, redis://[:PASSWORD@]HOST[:PORT][/DB],\n"
     "postgres://USER@HOST/DATABASE or `config`. The source may be in use; what\n"
     "happens meanwhile comes with the next run. Stopped anywhere, the same command\n"
     "goes on.\n"
     "Conversations that went on by themselves in the target are left as they are and\n"
     "reported; --force replaces them."},
    {"new", NULL, "", 0, 0, 0, NULL, ""},
    {"backup", NULL, "FILE", 1, 1, FOR_DATA | FOR_FORCE, run_backup,
     "Copies the configured store, which may be in use, into a new SQLite file.\n"
     "The file is there when it is complete; stopped anywhere, the same command\n"
     "goes on.\n"
     "What is encrypted stays so. --force replaces an older file."},
    {"restore", NULL, "FILE", 1, 1, FOR_DATA | FOR_FORCE, run_restore,
     "Copies a backup into the configured store. Stop its servers first. A\n"
     "backup that is damaged is refused.\n"
     "A store with conversations that the backup does not have, or that went on\n"
     "since, is refused untouched. With --force the former stay as they are, and the\n"
     "latter are set back to the backup. Stopped anywhere, the same command goes on."},
    {"doctor", NULL, "", 0, 0, FOR_DATA | FOR_DOCTOR, run_doctor,
     "What is wrong or unsafe with this installation and how to mend it; exit\n"
     "code 1 if there is any error. Changes nothing; a server may be running."},
    {"bench", NULL, "", 0, 0, 0, NULL, ""},
};

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

/* ---- the nearest known word ---- */

static size_t least(size_t a, size_t b) {
  return a < b ? a : b;
}

/* The edit distance of two words of at most 31 bytes. */
static size_t distance(const char *a, const char *b) {
  size_t row[32], n = strlen(b);
  for (size_t j = 0; j <= n; j++)
    row[j] = j;
  for (size_t i = 1; a[i - 1] != '\0'; i++) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= n; j++) {
      size_t swap = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = least(swap, least(row[j - 1], diagonal) + 1);
    }
  }
  return row[n];
}

typedef struct nearest {
  const char *word, *best; /* best NULL: none is near */
  size_t cost;
} nearest;

static nearest nearest_to(const char *word) {
  size_t third = strlen(word) / 3;
  return (nearest){.word = word, .cost = (third > 2 ? third : 2) + 1};
}

static void offer(nearest *n, const char *candidate) {
  if (strlen(n->word) > 31) return;
  size_t d = distance(n->word, candidate);
  if (d >= n->cost) return;
  n->cost = d;
  n->best = candidate;
}

static int unknown(const char *what, const char *prefix, const nearest *n) {
  if (n->best == NULL)
    return usage("unknown %s `%s%s`; see `tidemill --help`", what, prefix, n->word);
  return usage("unknown %s `%s%s`; did you mean `%s%s`?", what, prefix, n->word, prefix, n->best);
}

static int unknown_command(const char *word) {
  nearest n = nearest_to(word);
  for (size_t i = 0; i < COUNT(commands); i++)
    offer(&n, commands[i].name);
  return unknown("command", "", &n);
}

static int unknown_sub(const char *name, const char *word) {
  char prefix[32];
  nearest n = nearest_to(word);
  for (size_t i = 0; i < COUNT(commands); i++)
    if (commands[i].sub != NULL && strcmp(commands[i].name, name) == 0) offer(&n, commands[i].sub);
  (void)snprintf(prefix, sizeof(prefix), "%s ", name);
  return unknown("command", prefix, &n);
}

static int unknown_option(const char *word) {
  nearest n = nearest_to(word);
  for (size_t i = 0; i < COUNT(options); i++)
    offer(&n, options[i].name);
  return unknown("option", "--", &n);
}

/* ---- reading argv ---- */

static const option *find_option(const char *name, size_t length) {
  for (size_t i = 0; i < COUNT(options); i++)
    if (strlen(options[i].name) == length && memcmp(options[i].name, name, length) == 0)
      return &options[i];
  return NULL;
}

static int add_set(cli *c, const char *value) {
  if (strchr(value, '=') == NULL || value[0] == '=')
    return usage("--set wants KEY=VALUE, not `%s`", value);
  if (c->sets == CLI_MAX_SETS) return usage("--set may be given %d times", CLI_MAX_SETS);
  c->set[c->sets++] = value;
  return EXIT_OK;
}

static int keep_option(cli *c, const option *o, const char *value) {
  if (o->offset == offsetof(cli, set)) return add_set(c, value);
  char *field = (char *)c + o->offset;
  if (o->value == NULL) {
    *(bool *)(void *)field = true;
  } else {
    *(const char **)(void *)field = value;
  }
  return EXIT_OK;
}

static bool is_option(const char *word) {
  return strncmp(word, "--", 2) == 0 || strcmp(word, "-h") == 0;
}

/* Reads argv[*i], an option, and the value behind it; `given` gets its bit. */
static int read_option(cli *c, char **argv, int *i, unsigned long *given) {
  const char *word = strcmp(argv[*i], "-h") == 0 ? "help" : argv[*i] + 2;
  const char *equals = strchr(word, '='), *value = NULL;
  const option *o = find_option(word, equals != NULL ? (size_t)(equals - word) : strlen(word));
  if (o == NULL || argv[*i][0] != '-') return unknown_option(word);
  if (o->value == NULL && equals != NULL) return usage("--%s takes no value", o->name);
  if (o->value != NULL) {
    value = equals != NULL ? equals + 1 : argv[++*i];
    bool is_next = equals == NULL && value != NULL && is_option(value);
    if (value == NULL || value[0] == '\0' || is_next)
      return usage("--%s wants %s", o->name, o->value);
  }
  *given |= 1UL << (o - options);
  return keep_option(c, o, value);
}

static int read_arguments(cli *c, char **argv, unsigned long *given) {
  for (int i = 1; argv[i] != NULL; i++) {
    int code = EXIT_OK;
    if (strcmp(argv[i], "--version") == 0) {
      c->version = true;
    } else if (is_option(argv[i])) {
      code = read_option(c, argv, &i, given);
    } else if (argv[i][0] == '-' && argv[i][1] != '\0') {
      code = usage("unknown option `%s`; see `tidemill --help`", argv[i]);
    } else if (c->args == CLI_MAX_ARGS) {
      code = usage("more than %d arguments", CLI_MAX_ARGS);
    } else {
      c->arg[c->args++] = argv[i];
    }
    if (code != EXIT_OK) return code;
  }
  return EXIT_OK;
}

/* ---- help ---- */

static void print_options(unsigned takes) {
  char left[40];
  for (size_t i = 0; i < COUNT(options); i++) {
    const option *o = &options[i];
    if ((o->takers & takes) == 0) continue;
    (void)snprintf(left, sizeof(left), "--%s %s", o->name, o->value != NULL ? o->value : "");
    (void)printf("  %-24s %s\n", left, o->help);
  }
}

/* Of a command's text its first sentence, below its name. */
static void print_summary(const char *text) {
  (void)fputs("      ", stdout);
  for (const char *at = text; *at != '\0'; at++) {
    bool ends = *at == '.' && (at[1] == ' ' || at[1] == '\n');
    (void)fputc(*at, stdout);
    if (ends) break;
    if (*at == '\n') (void)fputs("      ", stdout);
  }
  (void)fputc('\n', stdout);
}

static void print_help(void) {
  (void)printf("tidemill %s - durable conversations, scripted in Lua\n\n"
               "usage: tidemill COMMAND [OPTIONS]\n\n",
               tm_version());
  for (size_t i = 0; i < COUNT(commands); i++) {
    const command *k = &commands[i];
    if (k->run == NULL) continue;
    (void)printf("  %s%s%s%s%s\n", k->name, k->sub != NULL ? " " : "", k->sub != NULL ? k->sub : "",
                 k->args[0] != '\0' ? " " : "", k->args);
    print_summary(k->help);
  }
  (void)printf("\noptions of every command:\n");
  print_options(FOR_ALL);
  (void)printf("\n`tidemill COMMAND --help` lists the options of a command.\n");
}

static void print_command_help(const command *k) {
  (void)printf("usage: tidemill %s%s%s [OPTIONS]%s%s\n\n%s\n\n", k->name, k->sub != NULL ? " " : "",
               k->sub != NULL ? k->sub : "", k->args[0] != '\0' ? " " : "", k->args, k->help);
  print_options(k->takes | FOR_ALL);
}

static int print_group_help(const char *name) {
  for (size_t i = 0; i < COUNT(commands); i++) {
    const command *k = &commands[i];
    if (k->run == NULL || strcmp(k->name, name) != 0) continue;
    (void)printf("tidemill %s %s%s%s\n", name, k->sub, k->args[0] != '\0' ? " " : "", k->args);
    print_summary(k->help);
  }
  return EXIT_OK;
}

/* ---- serve ---- */

static void reloaded(void *ud, const tm_reply *reply) {
  (void)ud;
  (void)reply; /* the log has said it */
}

/* Blocks until SIGTERM or SIGINT; from then on either of them ends the process at once. */
static void wait_for_end(tm_host *host, const sigset_t *ends) {
  sigset_t set = *ends;
  int which = 0;
  (void)sigaddset(&set, SIGHUP);
  do {
    if (which == SIGHUP) tm_host_reload(host, reloaded, NULL);
    which = 0;
    (void)sigwait(&set, &which);
  } while (which == 0 || which == SIGHUP);
  (void)pthread_sigmask(SIG_UNBLOCK, ends, NULL);
}

static int listen_and_wait(cli *c, const sigset_t *set) {
  tm_error err;
  char url[256];
  if (tm_host_listen(c->host, c->listen, url, sizeof(url), &err) != TM_OK) {
    int code = fail(&err);
    return c->listen != NULL && strcmp(err.code, "server.address") == 0 ? EXIT_USAGE : code;
  }
  if (c->watch && tm_host_watch(c->host, &err) != TM_OK) return fail(&err);
  (void)printf("listening on %s\n", url);
  (void)fflush(stdout);
  wait_for_end(c->host, set);
  tm_host_stop(c->host, DRAIN_MS);
  return EXIT_OK;
}

typedef struct start_watch {
  sigset_t set;
  atomic_bool started;
} start_watch;

/* Until the host has started nothing is acknowledged, so a signal may end the process at once: a
 * script that never ends its loading cannot keep it. */
static void *watch_start(void *ud) {
  start_watch *w = ud;
  const struct timespec moment = {0, 20 * 1000 * 1000};
  while (!atomic_load(&w->started))
    if (sigtimedwait(&w->set, NULL, &moment) > 0) _exit(EXIT_OK);
  return NULL;
}

/* Starts the host while signals are looked for. */
static int start_watched(cli *c, const sigset_t *set) {
  start_watch w = {.set = *set};
  pthread_t watcher;
  bool watched = pthread_create(&watcher, NULL, watch_start, &w) == 0;
  int code = start_host(c, true);
  atomic_store(&w.started, true);
  if (watched) (void)pthread_join(watcher, NULL);
  return code;
}

/* Before any thread exists: all inherit what is blocked. */
static int run_serve(cli *c) {
  sigset_t set, hangup;
  (void)sigemptyset(&set);
  (void)sigaddset(&set, SIGINT);
  (void)sigaddset(&set, SIGTERM);
  (void)sigemptyset(&hangup);
  (void)sigaddset(&hangup, SIGHUP);
  (void)pthread_sigmask(SIG_BLOCK, &set, NULL);
  (void)pthread_sigmask(SIG_BLOCK, &hangup, NULL);
  int code = start_watched(c, &set);
  if (code == EXIT_OK) code = listen_and_wait(c, &set);
  close_host(c);
  return code;
}

/* ---- dispatch ---- */

static bool is_group(const char *name) {
  for (size_t i = 0; i < COUNT(commands); i++)
    if (commands[i].sub != NULL && strcmp(commands[i].name, name) == 0) return true;
  return false;
}

static const command *find_command(const char *name, const char *sub) {
  for (size_t i = 0; i < COUNT(commands); i++) {
    const command *k = &commands[i];
    if (strcmp(k->name, name) != 0) continue;
    if (k->sub == NULL || (sub != NULL && strcmp(k->sub, sub) == 0)) return k;
  }
  return NULL;
}

/* Takes the words of the command out of the arguments. */
static void shift(cli *c, size_t count) {
  c->args -= count;
  memmove(c->arg, c->arg + count, (c->args + 1) * sizeof(c->arg[0]));
}

static int check_usage(const cli *c, const command *k, unsigned long given) {
  const char *gap = k->sub != NULL ? " " : "", *sub = k->sub != NULL ? k->sub : "";
  if (k->run == NULL) return usage("`%s%s%s` is not supported yet", k->name, gap, sub);
  for (size_t i = 0; i < COUNT(options); i++)
    if ((given >> i & 1) != 0 && (options[i].takers & (k->takes | FOR_ALL)) == 0)
      return usage("`%s%s%s` takes no option --%s", k->name, gap, sub, options[i].name);
  if (c->help) return EXIT_OK;
  if (c->args < k->min_args)
    return usage("`%s%s%s` wants %s; see `tidemill %s%s%s --help`", k->name, gap, sub, k->args,
                 k->name, gap, sub);
  if (c->args > k->max_args)
    return usage("`%s%s%s` does not take the argument `%s`", k->name, gap, sub,
                 c->arg[k->max_args]);
  return EXIT_OK;
}

static int run_command(cli *c, unsigned long given) {
  const char *name = c->arg[0], *sub = c->arg[1];
  if (is_group(name) && sub == NULL)
    return c->help ? print_group_help(name)
                   : usage("`%s` wants a command; see `tidemill %s --help`", name, name);
  const command *k = find_command(name, sub);
  if (k == NULL) return is_group(name) ? unknown_sub(name, sub) : unknown_command(name);
  shift(c, k->sub != NULL ? 2 : 1);
  int code = check_usage(c, k, given);
  if (code != EXIT_OK) return code;
  if (c->help) {
    print_command_help(k);
    return EXIT_OK;
  }
  c->command = k->sub != NULL ? k->sub : k->name;
  return k->run(c);
}

static int run(cli *c, char **argv) {
  unsigned long given = 0;
  int code = read_arguments(c, argv, &given);
  if (code != EXIT_OK) return code;
  if (c->version) {
    (void)printf("tidemill %s\n", tm_version());
    return EXIT_OK;
  }
  if (c->args > 0) return run_command(c, given);
  if (!c->help) return usage("no command; see `tidemill --help`");
  print_help();
  return EXIT_OK;
}

/* As many descriptors as the system allows: the usual 1024 are only for programs that use select.
 */
static void raise_descriptor_limit(void) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  (void)setrlimit(RLIMIT_NOFILE, &limit);
}

int main(int argc, char **argv) {
  cli c = {.columns = 80, .log = {.lock = PTHREAD_MUTEX_INITIALIZER}};
  if (argc < 1) return EXIT_USAGE;
  raise_descriptor_limit();
  (void)signal(SIGPIPE, SIG_IGN);
  (void)signal(SIGXFSZ, SIG_IGN);
  look_at_terminal(&c);
  log_open(&c.log);
  int code = flush_output(run(&c, argv));
  log_close(&c.log);
  return code;
}
