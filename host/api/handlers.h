/* handlers.h - what the routes do: read the request, call the host. All are tm_route_fn. */
#ifndef TM_API_HANDLERS_H
#define TM_API_HANDLERS_H

#include "api/request.h"

tm_status tm__handle_start(const tm_api_request *r, int argument, tm_error *err);
tm_status tm__handle_message(const tm_api_request *r, int argument, tm_error *err);
tm_status tm__handle_rollback(const tm_api_request *r, int argument, tm_error *err);
tm_status tm__handle_reload(const tm_api_request *r, int argument, tm_error *err);
tm_status tm__handle_read(const tm_api_request *r, int argument, tm_error *err); /* a tm_read */
tm_status tm__handle_list(const tm_api_request *r, int argument, tm_error *err);
tm_status tm__handle_sessions(const tm_api_request *r, int argument, tm_error *err);
tm_status tm__handle_session(const tm_api_request *r, int argument, tm_error *err);
tm_status tm__handle_session_end(const tm_api_request *r, int argument, tm_error *err);
/* How much the path names: 0 all systems, 1 a system's flows, 2 one flow. */
tm_status tm__handle_systems(const tm_api_request *r, int argument, tm_error *err);
tm_status tm__handle_live(const tm_api_request *r, int argument, tm_error *err);
tm_status tm__handle_ready(const tm_api_request *r, int argument, tm_error *err);

#endif
