/* checkpoint.h - which rows are listed as checkpoints, and at which of them a rollback may stop. */
#ifndef TM_JOURNAL_CHECKPOINT_H
#define TM_JOURNAL_CHECKPOINT_H

#include "storage/access.h"

struct tm_row_fields; /* slot.h */

#define TM_CHECKPOINT_NAME 65 /* bytes of a name, with the NUL */
/* Letters, digits and _, not beginning with a digit, for that is how an id begins. */
bool tm__checkpoint_name_valid(tm_slice name);

typedef struct tm_checkpoint_rules { /* 0: no limit */
  int64_t ms;                        /* since it was made */
  int64_t most;                      /* of one conversation */
} tm_checkpoint_rules;

typedef enum tm_listing {
  TM_NOT_LISTED,
  TM_LISTED,
  TM_LISTED_IF_LAST, /* too old or one too many, but listed when nothing older can be gone to */
} tm_listing;

typedef struct tm_checkpoints { /* a walk from the newest row along the bases; internal */
  int64_t since, most;          /* 0: no limit */
  int64_t seen;                 /* checkpoints passed */
  int allowed;                  /* answered prompts that the flow lets one go back; -1: not known */
  int passed;                   /* prompts passed */
  bool over;                    /* one was not listed: neither are older ones */
} tm_checkpoints;
/* `rules` NULL: everything is listed. */
tm_checkpoints tm__checkpoints(const tm_checkpoint_rules *rules, int64_t now);
/* The next row, each once. */
tm_listing tm__checkpoints_next(tm_checkpoints *c, const tm_row *row,
                                const struct tm_row_fields *f);
bool tm__checkpoints_done(const tm_checkpoints *c); /* nothing older is listed */
/* In a store job: the revision of the newest checkpoint of that name that is listed, as `rules`
 * has it; 0: none is. */
tm_status tm__checkpoint_named(int64_t *revision, const char *name, const tm_checkpoints *rules,
                               const tm_store_access *a, bool in_memory, const tm_head *head,
                               tm_error *err);
bool tm__is_waiting(tm_conversation_status status); /* for somebody */
bool tm__ends_waiting(const tm_row *row, const struct tm_row_fields *f);
bool tm__is_new_prompt(const tm_row *row,
                       const struct tm_row_fields *f); /* not one that is repeated */

#endif
