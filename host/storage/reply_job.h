/* reply_job.h - a store job that collects the answer to somebody who asked, as JSON. */
#ifndef TM_STORAGE_REPLY_JOB_H
#define TM_STORAGE_REPLY_JOB_H

#include "storage/storage.h"

typedef struct tm_reply_job { /* first member of what else the job holds */
  tm_store_job job;           /* `work` is the caller's to set; of one of them, `write` */
  tm_reply_fn fn;
  void *ud;
  void (*clear)(struct tm_reply_job *job); /* frees what else the job holds; NULL: nothing */
  tm_buf out;                              /* what is answered when work goes well */
} tm_reply_job;

/* Of so many bytes, zero but for this part; on the store of that tenant, "" where its name is none.
 * NULL: without memory, and `fn` was told. */
void *tm__reply_job_new(size_t size, tm_slice tenant, tm_reply_fn fn, void *ud);
/* It answers on a store thread, and is gone. */
void tm__reply_job_run(tm_storage *s, tm_reply_job *job);
/* Answers with this error instead. */
void tm__reply_job_refuse(tm_reply_job *job, const tm_error *err);

#endif
