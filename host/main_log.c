/* main_log.c - the log, on stderr. Whoever reads it may stall, and the host must not: once a line
 * has waited for long, lines are left out until there is room again, and then their number is told.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

#include "main.h"

#define PIECE       4096 /* what a pipe takes at once when it takes anything: PIPE_BUF */
#define PATIENCE_MS 200

static bool has_room(int timeout_ms) {
  struct pollfd out = {.fd = STDERR_FILENO, .events = POLLOUT};
  int n;
  do
    n = poll(&out, 1, timeout_ms);
  while (n < 0 && errno == EINTR);
  return n != 0;
}

/* false: there is no room. What can be written nowhere is gone. */
static bool put(cli_log *log, const char *text, size_t size) {
  while (size > 0) {
    log->stalls = !has_room(log->stalls ? 0 : PATIENCE_MS);
    if (log->stalls) return false;
    ssize_t n = write(STDERR_FILENO, text, size < PIECE ? size : PIECE);
    if (n < 0 && errno != EINTR) return true;
    if (n > 0) text += n, size -= (size_t)n;
  }
  return true;
}

static bool tell_lost(cli_log *log) {
  char note[100];
  int n = snprintf(note, sizeof(note),
                   "tidemill: %zu lines of the log are left out: nobody read it\n", log->lost);
  if (!put(log, note, (size_t)n)) return false;
  log->lost = 0;
  return true;
}

void log_line(void *ud, const char *line, size_t size) {
  cli_log *log = ud;
  (void)pthread_mutex_lock(&log->lock);
  bool is_told = log->lost == 0 || tell_lost(log);
  if (!is_told || !put(log, line, size) || !put(log, "\n", 1)) log->lost++;
  (void)pthread_mutex_unlock(&log->lock);
}
