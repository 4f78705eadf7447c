/* reply_job.c - made, run, answered, freed: once each. */
#include "storage/reply_job.h"

#include <stdlib.h>

static void answer(tm_reply_job *job, const tm_error *err) {
  tm_reply reply = {.status = TM_OK, .json = job->out.ptr, .size = job->out.len};
  if (err != NULL) reply = (tm_reply){.status = err->status, .error = err};
  job->fn(job->ud, &reply);
  if (job->clear != NULL) job->clear(job);
  tm__buf_free(&job->out);
  free(job);
}

static void on_done(tm_message *m) {
  tm_reply_job *job = (tm_reply_job *)((char *)m - offsetof(tm_reply_job, job.message));
  if (job->job.status == TM_OK && !tm__buf_ok(&job->out))
    job->job.status = tm__fail_memory(&job->job.error, "an answer");
  answer(job, job->job.status == TM_OK ? NULL : &job->job.error);
}

void *tm__reply_job_new(size_t size, tm_slice tenant, tm_reply_fn fn, void *ud) {
  tm_reply_job *job = calloc(1, size);
  if (job == NULL) {
    tm_error err;
    (void)tm__fail_memory(&err, "a list");
    fn(ud, &(tm_reply){.status = err.status, .error = &err});
    return NULL;
  }
  job->fn = fn;
  job->ud = ud;
  job->job.message.run = on_done;
  (void)tm__copy(job->job.tenant, sizeof(job->job.tenant), tenant); /* "" is nobody's */
  return job;
}

void tm__reply_job_run(tm_storage *s, tm_reply_job *job) {
  tm__storage_run(s, &job->job);
}

void tm__reply_job_refuse(tm_reply_job *job, const tm_error *err) {
  answer(job, err);
}
