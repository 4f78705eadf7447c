/* store_place.h - where a store is: the configured one, or what a URL on the command line names. A
 * password is never in `shown` and in no message.
 */
#ifndef TM_STORE_PLACE_H
#define TM_STORE_PLACE_H

#include "host.h"
#include "persistence/store.h"

typedef struct tm_store_place {
  const tm_store_backend *backend;
  tm_store_options options;  /* its texts are the configuration's or this place's */
  tm_host_store own;         /* what the options of the configured one may point into */
  char *location, *password; /* owned; NULL: the configuration's */
  char *shown;               /* for people; owned */
  bool configured;           /* the one that `serve` uses */
} tm_store_place;

/* The configured store. */
tm_status tm__store_place_configured(tm_store_place *out, const tm_host *h, tm_error *err);
/* sqlite:PATH, file:FOLDER, redis://[:PASSWORD@]HOST[:PORT][/DB], postgres://..., or `config` (also
 * NULL) for the configured one. TM_EINVAL "store.url" says which forms there are. */
tm_status tm__store_place_parse(tm_store_place *out, const char *url, const tm_host *h,
                                tm_error *err);
bool tm__store_place_is_local(const tm_store_place *p); /* a file or folder */
/* Is there something at a place of the file system? TM_ENOTFOUND "store.absent". TM_OK for others.
 */
tm_status tm__store_place_exists(const tm_store_place *p, tm_error *err);
bool tm__store_place_same(const tm_store_place *a,
                          const tm_store_place *b); /* the same store, as far as one can see */
void tm__store_place_free(tm_store_place *p);

#endif
