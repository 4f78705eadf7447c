/* utf8.h - what is valid UTF-8 (no surrogates, no overlong forms, nothing over U+10FFFF). */
#ifndef TM_CORE_UTF8_H
#define TM_CORE_UTF8_H

#include "core/buf.h"

/* Bytes of the valid character that `s` begins with; 0 when it begins with none. */
size_t tm__utf8_step(tm_slice s);
bool tm__utf8_valid(tm_slice s);
size_t tm__utf8_length(tm_slice s);              /* characters; s must be valid */
size_t tm__utf8_encode(char out[4], uint32_t c); /* bytes written; c is a scalar value */

#endif
