/* routes.h - the table of routes: which method on which path does what. */
#ifndef TM_API_ROUTES_H
#define TM_API_ROUTES_H

#include "api/request.h"

/* Finds the route for r->x, fills r->params, and runs it. Returns 0 when an answer was given or is
 * owed, else the HTTP status for *err; `allow` then may hold an Allow line for the answer. */
#define TM_ALLOW_SIZE 64
int tm__route(tm_api_request *r, char allow[TM_ALLOW_SIZE], tm_error *err);

#endif
