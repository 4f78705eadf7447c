/* raw_client.h - a socket and a little HTTP, for tests that send what no library would send. */
#ifndef TM_TESTS_RAW_CLIENT_H
#define TM_TESTS_RAW_CLIENT_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "core/buf.h"

/* A socket connected to 127.0.0.1 whose reads wait at most ten seconds; -1: refused. */
static inline int raw_connect(uint16_t port) {
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
  struct timeval patience = {10, 0};
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
  if (connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0) return fd;
  (void)close(fd);
  return -1;
}

/* false when the other side did not take all of it. */
static inline bool raw_send(int fd, const char *bytes, size_t len) {
  for (size_t at = 0; at < len;) {
    ssize_t n = send(fd, bytes + at, len - at, MSG_NOSIGNAL);
    if (n <= 0) return false;
    at += (size_t)n;
  }
  return true;
}

static inline bool raw_say(int fd, const char *text) {
  return raw_send(fd, text, strlen(text));
}

/* Reads one answer, its body as long as Content-Length says unless `head`; "" when there is none.
 * The caller frees. */
static inline char *raw_answer(int fd, bool head) {
  tm_buf b = {0};
  size_t want = SIZE_MAX;
  char c;
  while (b.len < want && recv(fd, &c, 1, 0) == 1) {
    tm__buf_byte(&b, c);
    if (want != SIZE_MAX || b.len < 4 || memcmp(b.ptr + b.len - 4, "\r\n\r\n", 4) != 0) continue;
    const char *length = strcasestr(b.ptr, "\r\nContent-Length:");
    want = b.len + (length != NULL && !head ? strtoul(length + 17, NULL, 10) : 0);
  }
  return tm__buf_take(&b);
}

static inline int raw_status(const char *answer) {
  return strncmp(answer, "HTTP/1.1 ", 9) == 0 ? atoi(answer + 9) : 0;
}

static inline const char *raw_body(const char *answer) {
  const char *end = strstr(answer, "\r\n\r\n");
  return end != NULL ? end + 4 : "";
}

/* true: the other side has closed the connection, all that it sent has been read. */
static inline bool raw_closed(int fd) {
  char rest[4096];
  ssize_t n;
  do
    n = recv(fd, rest, sizeof(rest), 0);
  while (n > 0);
  return n == 0;
}

#endif
