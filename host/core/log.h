/* log.h - one line per event, to the sink the host was given; safe from any thread.
 *
 * Text format: `2026-11-22T14:07:28.123Z info  message key=value key="two words"`; JSON format: one
 * object per line. Values are never secrets: callers log names, ids, sizes and error texts.
 */
#ifndef TM_CORE_LOG_H
#define TM_CORE_LOG_H

#include <stdbool.h>

#include "core/clock.h"

typedef enum tm_log_level { TM_LOG_DEBUG, TM_LOG_INFO, TM_LOG_WARNING, TM_LOG_ERROR } tm_log_level;

typedef struct tm_log {
  tm_log_fn sink; /* NULL: nothing is logged */
  void *ud;
  tm_log_level level;
  bool json;
  tm_clock clock;
} tm_log;

/* Pairs of (const char *key, const char *value), then NULL. */
void tm__log(const tm_log *log, tm_log_level level, const char *message, ...)
    __attribute__((sentinel));
/* Logs an error with its code, conversation and step. */
void tm__log_error(const tm_log *log, tm_log_level level, const char *what, const tm_error *err);

#endif
