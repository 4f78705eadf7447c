/* silent.h - a server that accepts and never answers: whoever called it is known by the
 * connections, and whether they have let go of them. */
#ifndef TM_TESTS_HOSTILE_SILENT_H
#define TM_TESTS_HOSTILE_SILENT_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <unistd.h>

typedef struct silent {
  int socket;
  char url[40];
} silent;

static bool silent_open(silent *s) {
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof(at);
  s->socket = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (s->socket < 0 || bind(s->socket, (struct sockaddr *)&at, sizeof(at)) != 0 ||
      listen(s->socket, 1024) != 0 || getsockname(s->socket, (struct sockaddr *)&at, &size) != 0)
    return false;
  (void)snprintf(s->url, sizeof(s->url), "http://127.0.0.1:%u/", (unsigned)ntohs(at.sin_port));
  return true;
}

/* False: somebody still holds the connection. */
static bool silent_ended(int connection) {
  char bytes[65536];
  struct pollfd wait = {.fd = connection, .events = POLLIN};
  for (;;) {
    if (poll(&wait, 1, 5000) <= 0) return false;
    if (recv(connection, bytes, sizeof(bytes), 0) <= 0) return true;
  }
}

/* How many connections are still held by those who made them. */
static int silent_held(const silent *s) {
  int held = 0;
  for (int c; (c = accept(s->socket, NULL, NULL)) >= 0;) {
    held += silent_ended(c) ? 0 : 1;
    (void)close(c);
  }
  return held;
}

#endif
