/* running_server.c - the server that runs on this store: it writes its address beside it, and
 * whoever has the same configuration finds it there and asks it for something over HTTP. Stores on
 * other machines have no such place: there the configured address has to do. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host.h"
#include "net/http_client.h"

#define ANSWER_MS  120000 /* loading many systems may take its time */
#define ANSWER_MAX ((size_t)4 << 20)
#define URL_SIZE   300

/* ---- the file ---- */

/* PATH.server beside an SQLite file or a folder; NULL: there is no such place, or no memory. */
static char *address_file(const tm_host *h) {
  tm_host_store s = {0};
  tm_error err;
  tm_buf path = {0};
  bool local = tm__host_store(&s, h, &err) == TM_OK &&
               (strcmp(s.backend, "sqlite") == 0 || strcmp(s.backend, "file") == 0);
  tm_slice at = tm__slice(local ? s.options.location : "");
  while (at.len > 1 && at.ptr[at.len - 1] == '/')
    at.len--;
  tm__buf_slice(&path, at);
  tm__buf_text(&path, ".server");
  tm__host_store_clear(&s);
  if (at.len > 0 && tm__buf_ok(&path)) return tm__buf_take(&path);
  tm__buf_free(&path);
  return NULL;
}

/* "" when there is none. */
static void read_address(char url[URL_SIZE], const char *path) {
  FILE *f = path != NULL ? fopen(path, "re") : NULL;
  url[0] = '\0';
  if (f == NULL) return;
  if (fgets(url, URL_SIZE, f) == NULL) url[0] = '\0';
  (void)fclose(f);
  url[strcspn(url, "\n")] = '\0';
}

static bool write_address(const char *path, const char *url) {
  tm_buf fresh = {0};
  tm__buf_printf(&fresh, "%s.%ld", path, (long)getpid());
  FILE *f = tm__buf_ok(&fresh) ? fopen(fresh.ptr, "we") : NULL;
  bool ok = f != NULL && fprintf(f, "%s\n", url) > 0;
  if (f != NULL) ok = fclose(f) == 0 && ok;
  ok = ok && rename(fresh.ptr, path) == 0;
  if (!ok && f != NULL) (void)unlink(fresh.ptr);
  tm__buf_free(&fresh);
  return ok;
}

void tm__server_listens(tm_host *h, const char *url) {
  char *path = address_file(h);
  h->url = tm__slice_dup(tm__slice(url));
  if (path != NULL && !write_address(path, url))
    tm__log(&h->log, TM_LOG_WARNING,
            "the address of this server could not be written: `tidemill reload` needs --listen",
            "file", path, "reason", strerror(errno), NULL);
  free(path);
}

void tm__server_ends(tm_host *h) {
  char url[URL_SIZE];
  char *path = h->url != NULL ? address_file(h) : NULL;
  read_address(url, path);
  if (path != NULL && strcmp(url, h->url) == 0) (void)unlink(path); /* else it is another's */
  free(path);
  free(h->url);
  h->url = NULL;
}

/* ---- asking ---- */

typedef struct question {
  tm_message message; /* travels to the worker that asks, and once more when it is over */
  tm_worker *worker;
  tm_http_client *client;
  const char *url;
  uv_sem_t done;
  tm_buf answer;
  int status;
  tm_error error; /* status TM_OK: something answered */
} question;

static void on_answer(void *ud, const tm_http_result *result) {
  question *q = ud;
  if (result->error != NULL) q->error = *result->error;
  q->status = result->status;
  if (result->error == NULL) tm__buf_slice(&q->answer, result->body);
  uv_sem_post(&q->done);
}

static void close_client(tm_message *m) {
  tm__http_client_close(((question *)(void *)m)->client);
}

static void ask(tm_message *m) {
  question *q = (question *)(void *)m;
  static const char *const headers[] = {"Content-Type: application/json", NULL};
  const tm_http_call call = {.method = "POST",
                             .url = q->url,
                             .headers = headers,
                             .body = TM_S("{}"),
                             .timeout_ms = ANSWER_MS,
                             .direct = true,
                             .max_response = ANSWER_MAX};
  uint64_t id;
  tm_error err;
  if (tm__http_start(q->client, &call, on_answer, q, &id, &err) == TM_OK) return;
  on_answer(q, &(tm_http_result){.error = &err});
}

/* Posts `{}` to the URL on a thread of its own, and waits. */
static void question_run(question *q) {
  if (uv_sem_init(&q->done, 0) != 0) {
    (void)tm__fail_memory(&q->error, "a request");
    return;
  }
  q->message.run = ask;
  tm_status s = tm__worker_start(&q->worker, "ask", &q->error);
  if (s == TM_OK) s = tm__http_client_new(&q->client, q->worker, 1, &q->error);
  if (s == TM_OK) {
    tm__worker_post(q->worker, &q->message);
    uv_sem_wait(&q->done);
    q->message.run = close_client;
    tm__worker_post(q->worker, &q->message);
  }
  (void)tm__worker_stop(q->worker);
  uv_sem_destroy(&q->done);
}

/* What is bound to every address answers on the machine's own. */
static void make_url(char out[URL_SIZE], const char *address) {
  static const char *const any[][2] = {{"0.0.0.0:", "127.0.0.1:"}, {"[::]:", "[::1]:"}};
  const char *scheme = strstr(address, "://") != NULL ? "" : "http://";
  const char *host = scheme[0] == '\0' ? strstr(address, "://") + 3 : address, *shown = "";
  for (size_t i = 0; i < sizeof(any) / sizeof(any[0]); i++) {
    if (strncmp(host, any[i][0], strlen(any[i][0])) != 0) continue;
    host += strlen(any[i][0]);
    shown = any[i][1];
  }
  (void)snprintf(out, URL_SIZE, "http://%s%s/v1/admin/reload", shown, host);
}

static tm_status is_refused(const question *q, tm_error *err) {
  tm_slice body = tm__buf_view(&q->answer);
  json_t *value = NULL;
  bool known = q->status >= 400 && tm__json_parse(&value, body, 8, NULL) == TM_OK;
  const char *c = json_string_value(json_object_get(value, "code"));
  const char *text = json_string_value(json_object_get(value, "detail"));
  tm_status s = known && c != NULL && text != NULL
                    ? tm__fail(err, TM_EIO, c, "%s", text)
                    : tm__fail(err, TM_EIO, "reload.answer",
                               "what answers at %s is no tidemill server, or an older one; name "
                               "the server's address with --listen",
                               q->url);
  json_decref(value);
  return s;
}

/* TM_EUNAVAILABLE: nobody is there. */
static tm_status ask_at(const char *address, tm_buf *out, tm_error *err) {
  char url[URL_SIZE];
  make_url(url, address);
  question q = {.url = url};
  question_run(&q);
  tm_status s = q.error.status;
  if (s != TM_OK && err != NULL) *err = q.error;
  if (s != TM_OK && strcmp(q.error.code, "http.connect") == 0) s = TM_EUNAVAILABLE;
  if (s == TM_OK && !tm__buf_ok(&q.answer)) s = tm__fail_memory(err, "an answer");
  bool ours = tm__json_get(tm__buf_view(&q.answer), "systems").ptr != NULL;
  if (s == TM_OK && (q.status != 200 || !ours)) s = is_refused(&q, err);
  if (s == TM_OK) tm__buf_slice(out, tm__buf_view(&q.answer));
  tm__buf_free(&q.answer);
  return s;
}

static tm_status nobody(const char *first, const char *second, tm_error *err) {
  return tm__fail(err, TM_EUNAVAILABLE, "reload.no_server",
                  "no server answers at %s%s%s; start it with `tidemill serve`, or name its "
                  "address with --listen",
                  first, second[0] != '\0' ? " or " : "", second);
}

/* The address that a server wrote beside this store may be that of one that died. */
static tm_status ask_running(const tm_host *h, tm_buf *out, tm_error *err) {
  char written[URL_SIZE];
  char *path = address_file(h);
  const char *configured = tm__config_text(h->config, "server.listen");
  read_address(written, path);
  free(path);
  tm_status s = written[0] != '\0' ? ask_at(written, out, err) : TM_EUNAVAILABLE;
  if (s != TM_EUNAVAILABLE) return s;
  s = ask_at(configured, out, err);
  return s == TM_EUNAVAILABLE ? nobody(configured, written, err) : s;
}

void tm_server_reload(tm_host *h, const char *address, tm_reply_fn fn, void *ud) {
  tm_buf out = {0};
  tm_error err;
  tm_status s;
  if (address == NULL)
    s = ask_running(h, &out, &err);
  else if ((s = ask_at(address, &out, &err)) == TM_EUNAVAILABLE)
    (void)nobody(address, "", &err);
  if (s == TM_OK)
    tm__host_answer(fn, ud, &out);
  else
    tm__host_refuse(fn, ud, &err);
  tm__buf_free(&out);
}
