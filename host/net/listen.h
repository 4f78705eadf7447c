/* listen.h - a listening TCP socket on a numeric address. */
#ifndef TM_NET_LISTEN_H
#define TM_NET_LISTEN_H

#include "core/err.h"

/* `host` is an IPv4 or IPv6 address or "localhost" (127.0.0.1); port 0: any free one. The caller
 * closes *fd. */
tm_status tm__listen(int *fd, uint16_t *bound, const char *host, uint16_t port, tm_error *err);

#endif
