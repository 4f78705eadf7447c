/* listen.c - a listening TCP socket: bound here, so that its errors can be told apart. */
#include "net/listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BACKLOG     1024
#define SEND_BUFFER (256 << 10) /* of an answer on its way; autotuned it grows to megabytes */

static tm_status resolve(struct addrinfo **out, const char *host, uint16_t port, tm_error *err) {
  char service[8];
  struct addrinfo hints = {.ai_family = AF_UNSPEC,
                           .ai_socktype = SOCK_STREAM,
                           .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE};
  (void)snprintf(service, sizeof(service), "%u", port);
  const char *address = strcmp(host, "localhost") == 0 ? "127.0.0.1" : host;
  if (getaddrinfo(address, service, &hints, out) == 0) return TM_OK;
  return tm__fail(err, TM_EINVAL, "server.address",
                  "\"%s\" is no address to listen on: give an IPv4 or IPv6 address or localhost",
                  host);
}

static tm_status failed(const char *host, uint16_t port, tm_error *err) {
  if (errno == EADDRINUSE)
    return tm__fail(err, TM_EIO, "server.address_in_use",
                    "cannot listen on %s port %u: another program listens there; stop it or choose "
                    "another port",
                    host, port);
  return tm__fail(err, TM_EIO, "server.listen", "cannot listen on %s port %u: %s", host, port,
                  strerror(errno));
}

/* Accepted sockets inherit TCP_NODELAY and the size of the buffer. */
static bool bind_to(int fd, const struct addrinfo *a) {
  int on = 1, size = SEND_BUFFER;
  return setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == 0 &&
         setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) == 0 &&
         setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)) == 0 &&
         bind(fd, a->ai_addr, a->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0;
}

static bool port_of(int fd, uint16_t *port) {
  union {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
  } at = {.v6 = {0}};
  socklen_t len = sizeof(at);
  if (getsockname(fd, &at.any, &len) != 0) return false;
  *port = ntohs(at.any.sa_family == AF_INET6 ? at.v6.sin6_port : at.v4.sin_port);
  return true;
}

tm_status tm__listen(int *fd, uint16_t *bound, const char *host, uint16_t port, tm_error *err) {
  struct addrinfo *a = NULL;
  tm_status st = resolve(&a, host, port, err);
  if (st != TM_OK) return st;
  *fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
  if (*fd < 0 || !bind_to(*fd, a) || !port_of(*fd, bound)) {
    st = failed(host, port, err);
    if (*fd >= 0) (void)close(*fd);
    *fd = -1;
  }
  freeaddrinfo(a);
  return st;
}
