/* handlers.h - what the routes do: read the request, call the host. Those of handlers.c, and of
 * steering.c: what changes the course of a conversation. */
#ifndef TM_API_HANDLERS_H
#define TM_API_HANDLERS_H

#include "api/body.h"
#include "api/guard.h"
#include "api/request.h"

/* ---- tm_route_fn ---- */

tm_status tm__handle_start(const tm_api_request *r, int argument, tm_error *err);
tm_status tm__handle_message(const tm_api_request *r, int argument, tm_error *err);
tm_status tm__handle_reload(const tm_api_request *r, int argument, tm_error *err);
tm_status tm__handle_read(const tm_api_request *r, int argument, tm_error *err); /* a tm_read */
tm_status tm__handle_list(const tm_api_request *r, int argument, tm_error *err);
tm_status tm__handle_sessions(const tm_api_request *r, int argument, tm_error *err);
tm_status tm__handle_session(const tm_api_request *r, int argument, tm_error *err);
tm_status tm__handle_session_end(const tm_api_request *r, int argument, tm_error *err);
tm_status tm__handle_outbox(const tm_api_request *r, int argument, tm_error *err);
tm_status tm__handle_outbox_retry(const tm_api_request *r, int argument, tm_error *err);
/* How much the path names: 0 all systems, 1 a system's flows, 2 one flow. */
tm_status tm__handle_systems(const tm_api_request *r, int argument, tm_error *err);
tm_status tm__handle_live(const tm_api_request *r, int argument, tm_error *err);
tm_status tm__handle_ready(const tm_api_request *r, int argument, tm_error *err);

tm_status tm__handle_rollback(const tm_api_request *r, int argument, tm_error *err);
tm_status tm__handle_fork(const tm_api_request *r, int argument, tm_error *err);
tm_status tm__handle_checkpoint(const tm_api_request *r, int argument, tm_error *err);
tm_status tm__handle_approval(const tm_api_request *r, int argument, tm_error *err);
tm_status tm__handle_event(const tm_api_request *r, int argument, tm_error *err);
enum { TM_STEER_PAUSE, TM_STEER_RESUME, TM_STEER_CANCEL };
tm_status tm__handle_migrate(const tm_api_request *r, int argument, tm_error *err);
tm_status tm__handle_steer(const tm_api_request *r, int argument, tm_error *err);

/* ---- what they share ---- */

/* The id in the path. Ids are UUIDs; what is none cannot exist and need not be looked up. */
tm_status tm__handler_conversation(const char **id, const tm_api_request *r, tm_error *err);
typedef struct tm_posted { /* to a conversation */
  const char *id, *key;    /* key NULL: none */
  tm_body body;
  char key_text[TM_KEY_SIZE];
} tm_posted;
/* With TM_OK the body is the caller's to free. */
tm_status tm__handler_posted(tm_posted *out, const tm_api_request *r, const tm_field *fields,
                             size_t count, tm_error *err);
/* As tm__api_owe with 200, to a request whose body says nothing: {}, or no body at all. */
tm_status tm__handler_owe_empty(void **owed, const tm_api_request *r, tm_error *err);
/* A value as JSON text, NUL-terminated; empty when not given. */
tm_status tm__handler_json(tm_buf *out, const json_t *value, tm_error *err);

#endif
