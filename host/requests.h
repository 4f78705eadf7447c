/* requests.h - what the public requests share: their arguments, checked and copied, and their way
 * to the worker that owns the conversation. */
#ifndef TM_REQUESTS_H
#define TM_REQUESTS_H

#include "host.h"

/* A fresh request within the running host, to be handed to tm__request_submit; NULL: refused. */
tm_request *tm__request_enter(tm_host *h, tm_request_kind kind, tm_reply_fn fn, void *ud);
/* Submits `r`, or answers with `err` where `s` says that it could not be made. Takes `r`. */
void tm__request_submit(tm_host *h, tm_request *r, tm_status s, const tm_error *err, tm_reply_fn fn,
                        void *ud);

/* 1 to `max` bytes of UTF-8 without control characters. */
tm_status tm__request_check_text(const char *name, tm_slice text, size_t max, tm_error *err);
/* A versioned struct has the size that this library knows; `init` is the macro that sets it. */
tm_status tm__request_check_size(const char *type, const char *init, size_t given, size_t known,
                                 tm_error *err);
/* tenant NULL: "default". */
tm_status tm__request_take_conversation(tm_request *r, const char *tenant, const char *id,
                                        tm_error *err);
/* key NULL: none. `body` is what a repeat must have in common with the first. */
tm_status tm__request_take_key(tm_request *r, const char *key, const tm_slice *body, size_t count,
                               tm_error *err);
/* Writes a string or an object in canonical form. */
tm_status tm__request_write_input(tm_buf *out, const char *input_json, tm_error *err);

#endif
