/* routes.h - the table of routes: which method on which path does what. */
#ifndef TM_API_ROUTES_H
#define TM_API_ROUTES_H

#include "api/request.h"

/* Finds the route for r->x, fills r->params, and runs it. TM_OK: an answer was given or is owed;
 * otherwise `allow` may hold an Allow line for the answer that says *err. */
#define TM_ALLOW_SIZE 64
tm_status tm__route(tm_api_request *r, char allow[TM_ALLOW_SIZE], tm_error *err);

#endif
