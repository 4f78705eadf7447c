/* problem.h - errors as application/problem+json, for every answer that is not what was asked for.
 */
#ifndef TM_API_PROBLEM_H
#define TM_API_PROBLEM_H

#include "api/api.h"

/* Answers `x` with this HTTP status; `extra` as in tm__http_reply. */
void tm__problem_reply(tm_http_exchange *x, int http_status, const tm_error *err,
                       const char *extra);
/* The same with the status that belongs to the error. */
void tm__problem_answer(tm_http_exchange *x, const tm_error *err, const char *extra);

#endif
