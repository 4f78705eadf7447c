/* main_chat.c - `chat`: a conversation in the terminal.
 *
 * Shows each turn, reads answers from standard input, one per line, and sends them as they are: a
 * structured prompt takes plain answers field by field, and the host says which field is next. A
 * line that begins with one slash is a command. At the end of input, and in a terminal where
 * somebody else is waited for, the conversation stays as it is: durable, to be resumed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "main.h"

/* The longest answer that is read; the library may allow less. */
#define LINE_LIMIT 65536

typedef struct chat {
  cli *cli;
  char id[64];
  bool echo;   /* input is no terminal: the transcript shows what was read */
  bool ended;  /* end of input */
  bool asked;  /* the last turn has a prompt */
  int64_t seq; /* of the newest reply that was shown */
  char *line;  /* owned, LINE_LIMIT bytes */
} chat;

/* ---- lines ---- */

static bool is_command(const char *line) {
  return line[0] == '/' && line[1] != '/';
}

/* Of two slashes at the beginning the first one only says that the line is no command. */
static json_t *said(const json_t *line) {
  const char *text = json_string_value(line);
  size_t skip = text[0] == '/' && text[1] == '/';
  return json_stringn(text + skip, json_string_length(line) - skip);
}

/* Does the line name a command? If not, says which there are. */
static bool names_command(const char *line) {
  static const char *const known[] = {"back", "skip", "cancel", "restart", "help", "correct"};
  size_t length = strcspn(line + 1, " ");
  for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
    if (strlen(known[i]) == length && memcmp(line + 1, known[i], length) == 0) return true;
  (void)puts("(commands are /back, /skip, /cancel, /restart, /help, /correct NAME ANSWER;\n"
             " an answer that begins with a slash begins with two)");
  return false;
}

/* ---- reading ---- */

/* Reads to the end of the line, keeps LINE_LIMIT bytes; the line's whole size, or -1 at the end. */
static long read_bytes(char *line) {
  long size = 0;
  int ch;
  while ((ch = getchar()) != EOF && ch != '\n') {
    if (size < LINE_LIMIT) line[size] = (char)ch;
    size++;
  }
  return ch == EOF && size == 0 ? -1 : size;
}

/* Shows an answer that nobody typed here as the transcript does. */
static void echo(const chat *t, const json_t *line) {
  json_t *shown = json_pack("{s:[{s:s,s:o}]}", "items", "role", "user", "text", said(line));
  (void)show(t->cli, "messages", shown);
  json_decref(shown);
}

/* The next line as JSON text, or NULL: at the end of input (then `ended`), or because the line is
 * no answer (then it is asked again). */
static json_t *read_line(chat *t) {
  if (!t->echo) (void)fputs("> ", stdout);
  (void)fflush(stdout);
  long size = read_bytes(t->line);
  t->ended = size < 0;
  if (t->ended && !t->echo) (void)putchar('\n'); /* what follows stands on a line of its own */
  if (size > LINE_LIMIT) (void)printf("(an answer has at most %d bytes)\n", LINE_LIMIT);
  if (size < 0 || size > LINE_LIMIT) return NULL;
  if (size > 0 && t->line[size - 1] == '\r') size--;
  json_t *text = json_stringn(t->line, (size_t)size);
  if (text == NULL) (void)puts("(that is not valid UTF-8)");
  if (text != NULL && is_command(json_string_value(text)) &&
      !names_command(json_string_value(text))) {
    json_decref(text);
    text = NULL;
  }
  if (text != NULL && t->echo) echo(t, text);
  return text;
}

/* The same, asked until there is an answer; NULL at the end of input. */
static json_t *read_answer(chat *t) {
  json_t *text;
  do
    text = read_line(t);
  while (text == NULL && !t->ended);
  return text;
}

/* ---- asking the library ---- */

static json_t *read_record(chat *t, tm_read what, int limit) {
  answer a;
  answer_init(&a);
  tm_conversation_read(t->cli->host, t->cli->tenant, t->id, what, NULL, limit, answer_come, &a);
  json_t *json = answer_json(&a);
  answer_deinit(&a);
  return json;
}

static json_t *begin(chat *t) {
  char system[65];
  const char *path = t->cli->arg[0], *slash = strchr(path, '/');
  tm_begin b = TM_BEGIN_INIT;
  (void)snprintf(system, sizeof(system), "%.*s", (int)(slash - path), path);
  b.tenant = t->cli->tenant;
  b.system = system;
  b.flow_id = slash + 1;
  b.session_id = t->cli->session;
  answer a;
  answer_init(&a);
  tm_conversation_begin(t->cli->host, &b, answer_come, &a);
  json_t *turn = answer_json(&a);
  answer_deinit(&a);
  return turn;
}

static json_t *send_input(chat *t, const json_t *input) {
  char *text = json_dumps(input, JSON_COMPACT | JSON_ENCODE_ANY);
  answer a;
  answer_init(&a);
  tm_message_send(t->cli->host, t->cli->tenant, t->id, text != NULL ? text : "null", NULL,
                  answer_come, &a);
  json_t *turn = answer_json(&a);
  answer_deinit(&a);
  free(text);
  return turn;
}

/* A command that is refused at a prompt is told; the conversation is as it was. */
static json_t *send_command(chat *t, const char *line) {
  char word[16], name[65];
  int from = 0;
  tm_command c = TM_COMMAND_INIT;
  c.tenant = t->cli->tenant;
  c.conversation_id = t->id;
  c.command = word;
  char *input = NULL;
  if (sscanf(line, "/%15s %64s %n", word, name, &from) == 2) {
    json_t *rest = json_string(line + from);
    input = json_dumps(rest, JSON_COMPACT | JSON_ENCODE_ANY);
    json_decref(rest);
    c.name = name;
    c.input_json = input;
  }
  answer a;
  answer_init(&a);
  tm_conversation_command(t->cli->host, &c, answer_come, &a);
  json_t *turn = answer_json(&a);
  answer_deinit(&a);
  free(input);
  return turn != NULL || !t->asked ? turn : read_record(t, TM_READ_CONVERSATION, 0);
}

static json_t *send_line(chat *t, const json_t *line) {
  const char *text = json_string_value(line);
  if (is_command(text)) return send_command(t, text);
  json_t *input = said(line), *turn = send_input(t, input);
  json_decref(input);
  return turn;
}

/* ---- following a conversation ---- */

static bool is_running(const json_t *turn) {
  const char *status = json_text(turn, "status");
  return strcmp(status, "active") == 0 || strcmp(status, "sleeping") == 0;
}

static void pause_ms(long ms) {
  struct timespec span = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
  (void)nanosleep(&span, NULL);
}

/* Puts into `turn` the replies that came while nobody listened. */
static void add_replies(chat *t, json_t *turn) {
  json_t *messages = read_record(t, TM_READ_MESSAGES, 50), *message;
  json_t *replies = json_array();
  size_t i;
  json_array_foreach(json_object_get(messages, "items"), i, message) {
    int64_t seq = json_integer_value(json_object_get(message, "seq"));
    if (seq > t->seq && strcmp(json_text(message, "role"), "agent") == 0)
      (void)json_array_insert(replies, 0, message);
  }
  (void)json_object_set_new(turn, "replies", replies);
  json_decref(messages);
}

/* Waits until a turn that another thread or process runs, or that will be retried, has ended. */
static json_t *follow(chat *t, json_t *turn) {
  while (turn != NULL && is_running(turn)) {
    json_decref(turn);
    pause_ms(200);
    turn = read_record(t, TM_READ_CONVERSATION, 0);
    if (turn != NULL && !is_running(turn)) add_replies(t, turn);
  }
  return turn;
}

static void note_replies(chat *t, const json_t *turn) {
  const json_t *reply;
  size_t i;
  json_array_foreach(json_object_get(turn, "replies"), i, reply) {
    int64_t seq = json_integer_value(json_object_get(reply, "seq"));
    if (seq > t->seq) t->seq = seq;
  }
}

/* A failed conversation is a failure of `chat` too, for the same reason. */
static int end_of(const json_t *turn) {
  tm_error err = {.status = TM_ESCRIPT};
  const json_t *why = json_object_get(turn, "error");
  if (strcmp(json_text(turn, "status"), "failed") != 0) return EXIT_OK;
  (void)snprintf(err.code, sizeof(err.code), "%s", json_text(why, "code"));
  (void)snprintf(err.message, sizeof(err.message), "step `%s`: %s", json_text(why, "step_id"),
                 json_text(why, "message"));
  (void)fail(&err);
  return EXIT_FAILED;
}

/* What is piped is sent also where others are waited for: it is taken or refused, not lost. */
static bool takes_line(const chat *t, const json_t *turn) {
  return t->asked || (t->echo && json_is_object(json_object_get(turn, "waiting_for")));
}

/* Shows turns and sends answers until the conversation or the input ends; takes `turn`. */
static int talk(chat *t, json_t *turn) {
  for (;;) {
    note_replies(t, turn);
    if (is_running(turn)) (void)show(t->cli, "replies", turn);
    turn = follow(t, turn);
    if (turn == NULL || show(t->cli, "turn", turn) != EXIT_OK) break;
    t->asked = json_is_object(json_object_get(turn, "prompt"));
    json_t *input = takes_line(t, turn) ? read_answer(t) : NULL;
    if (input == NULL) {
      int code = end_of(turn);
      json_decref(turn);
      return code;
    }
    json_decref(turn);
    turn = send_line(t, input);
    json_decref(input);
    if (turn == NULL) break;
  }
  json_decref(turn);
  return EXIT_FAILED;
}

static int check_arguments(const cli *c) {
  if (c->resume != NULL && c->session != NULL)
    return usage("--resume goes without --session: the conversation has one");
  if (c->args == 0 && c->resume != NULL) return EXIT_OK;
  if (c->args == 0) return usage("`chat` wants SYSTEM/FLOW; see `tidemill flows`");
  const char *slash = strchr(c->arg[0], '/');
  if (slash == NULL || slash == c->arg[0] || slash - c->arg[0] > 64 || slash[1] == '\0')
    return usage("`chat` wants SYSTEM/FLOW, not `%s`; see `tidemill flows`", c->arg[0]);
  return EXIT_OK;
}

/* Is the conversation one of the flow that was asked for, if one was? */
static bool is_asked_for(const chat *t, const json_t *turn) {
  char path[160];
  (void)snprintf(path, sizeof(path), "%s/%s", json_text(turn, "system"),
                 json_text(turn, "flow_id"));
  if (t->cli->args == 0 || strcmp(path, t->cli->arg[0]) == 0) return true;
  tm_error err = {.status = TM_ECONFLICT, .code = "cli.flow"};
  (void)snprintf(err.message, sizeof(err.message),
                 "conversation %s is one of %s, not of %.128s; give --resume alone", t->id, path,
                 t->cli->arg[0]);
  (void)fail(&err);
  return false;
}

/* The conversation of --resume; replies up to here are not shown again. */
static json_t *resume(chat *t) {
  (void)snprintf(t->id, sizeof(t->id), "%s", t->cli->resume);
  json_t *turn = read_record(t, TM_READ_CONVERSATION, 0);
  if (turn != NULL && !is_asked_for(t, turn)) {
    json_decref(turn);
    return NULL;
  }
  json_t *messages = turn != NULL ? read_record(t, TM_READ_MESSAGES, 1) : NULL;
  const json_t *newest = json_array_get(json_object_get(messages, "items"), 0);
  t->seq = json_integer_value(json_object_get(newest, "seq"));
  json_decref(messages);
  return turn;
}

static int converse(chat *t) {
  json_t *turn = t->cli->resume != NULL ? resume(t) : begin(t);
  if (turn == NULL) return EXIT_FAILED;
  (void)snprintf(t->id, sizeof(t->id), "%s", json_text(turn, "conversation_id"));
  (void)printf("%s\n", t->id);
  return talk(t, turn);
}

int run_chat(cli *c) {
  chat t = {.cli = c, .echo = !isatty(STDIN_FILENO), .line = malloc(LINE_LIMIT)};
  int code = t.line != NULL ? check_arguments(c) : EXIT_FAILED;
  if (code == EXIT_OK) code = start_host(c, false);
  if (code == EXIT_OK) code = converse(&t);
  close_host(c);
  free(t.line);
  return code;
}
