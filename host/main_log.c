/* main_log.c - the log, on stderr. Whoever reads it may stall, and the host must not: once a line
 * has waited for long, lines are left out until there is room again, and then their number is told.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "main.h"

#define PATIENCE_MS 200
#define BETWEEN_S   10 /* between waits: who reads slowly slows nobody down */

/* A terminal or a pipe is opened once more, for those who share it would not wait for it either. A
 * file takes what it is given. */
void log_open(cli_log *log) {
  struct stat st;
  log->fd = STDERR_FILENO;
  if (fstat(STDERR_FILENO, &st) != 0) return;
  log->socket = S_ISSOCK(st.st_mode);
  if (!S_ISFIFO(st.st_mode) && !isatty(STDERR_FILENO)) return;
  int own = open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  if (own >= 0) log->fd = own;
}

static bool has_room(cli_log *log) {
  struct pollfd out = {.fd = log->fd, .events = POLLOUT};
  struct timespec now;
  int n = poll(&out, 1, 0);
  if (n != 0) return true;
  (void)clock_gettime(CLOCK_MONOTONIC, &now);
  if (log->waited_s != 0 && now.tv_sec - log->waited_s < BETWEEN_S) return false;
  log->waited_s = now.tv_sec;
  return poll(&out, 1, PATIENCE_MS) != 0;
}

static ssize_t write_some(const cli_log *log, const char *text, size_t size) {
  return log->socket ? send(log->fd, text, size, MSG_DONTWAIT) : write(log->fd, text, size);
}

/* Returns how much of it was written; all of it where nothing can be written at all. */
static size_t put(cli_log *log, const char *text, size_t size) {
  size_t done = 0;
  while (done < size && has_room(log)) {
    ssize_t n = write_some(log, text + done, size - done);
    if (n < 0 && errno != EINTR && errno != EAGAIN) return size;
    if (n > 0) done += (size_t)n;
  }
  return done;
}

/* With its end, in one piece where there is room; one that was begun before is ended first. */
static bool put_line(cli_log *log, const char *line, size_t size) {
  char *text = malloc(size + 2);
  if (text == NULL) return false;
  size_t from = log->cut ? 0 : 1;
  text[0] = text[size + 1] = '\n';
  memcpy(text + 1, line, size);
  size_t done = from + put(log, text + from, size + 2 - from);
  if (done > from) log->cut = done < size + 2;
  free(text);
  return done == size + 2;
}

static bool tell_lost(cli_log *log, bool json) {
  char note[120];
  if (log->lost == 0) return true;
  int n = snprintf(note, sizeof(note), "%s%zu lines of the log are left out: nobody read it%s",
                   json ? "{\"level\":\"warning\",\"message\":\"" : "tidemill: ", log->lost,
                   json ? "\"}" : "");
  if (!put_line(log, note, (size_t)n)) return false;
  log->lost = 0;
  return true;
}

void log_line(void *ud, const char *line, size_t size) {
  cli_log *log = ud;
  (void)pthread_mutex_lock(&log->lock);
  log->json = size > 0 && line[0] == '{';
  if (!tell_lost(log, log->json) || !put_line(log, line, size)) log->lost++;
  (void)pthread_mutex_unlock(&log->lock);
}

void log_close(cli_log *log) {
  (void)tell_lost(log, log->json);
  if (log->fd > STDERR_FILENO) (void)close(log->fd);
}
