/* own_postgres.h - a PostgreSQL server that a test may kill, on a free port of the loopback. The
 * ones of tests/servers.sh are everybody's. */
#ifndef TM_TESTS_PERSISTENCE_OWN_POSTGRES_H
#define TM_TESTS_PERSISTENCE_OWN_POSTGRES_H

#include <libpq-fe.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/scratch.h"

typedef struct own_postgres {
  char dir[64], bin[128], as[96], url[128];
  int port;
} own_postgres;

/* The first line that a command prints; false: it failed. */
static inline bool own_line(const char *command, char *out, size_t size) {
  FILE *f = popen(command, "r");
  out[0] = '\0';
  if (f == NULL) return false;
  if (fgets(out, (int)size, f) != NULL) out[strcspn(out, "\n")] = '\0';
  while (fgetc(f) != EOF) {
  }
  return pclose(f) == 0;
}

static inline void own_start(own_postgres *p) {
  char command[768], line[256];
  (void)snprintf(command, sizeof(command),
                 "cd %s && %s %s/pg_ctl -s -w -t 60 -D data -l log -o \"-h 127.0.0.1 -p %d -k '' "
                 "-c max_connections=40 -c shared_buffers=16MB\" start >pg_ctl.log 2>&1",
                 p->dir, p->as, p->bin, p->port);
  if (!own_line(command, line, sizeof(line))) {
    (void)snprintf(command, sizeof(command), "tail -n 20 %s/log %s/pg_ctl.log >&2", p->dir, p->dir);
    (void)system(command);
    abort();
  }
}

/* initdb refuses root: then it runs as the user that Debian's package made. */
static inline void own_make(own_postgres *p, int port) {
  char command[768], line[256];
  *p = (own_postgres){.port = port};
  if (!scratch_make(p->dir, sizeof(p->dir), "pg") || chmod(p->dir, 0755) != 0) abort();
  if (!own_line("dirname $(find /usr/lib/postgresql -name initdb -path '*/bin/*' | sort -V | "
                "tail -n 1)",
                p->bin, sizeof(p->bin)))
    abort();
  if (getuid() == 0) {
    (void)snprintf(p->as, sizeof(p->as),
                   "setpriv --reuid=postgres --regid=postgres --clear-groups --");
    (void)snprintf(command, sizeof(command), "chown postgres %s", p->dir);
    if (!own_line(command, line, sizeof(line))) abort();
  }
  (void)snprintf(command, sizeof(command),
                 "cd %s && %s %s/initdb -D data -U tidemill -A trust -E UTF8 --locale=C --no-sync "
                 ">/dev/null 2>&1",
                 p->dir, p->as, p->bin);
  if (!own_line(command, line, sizeof(line))) abort();
  (void)snprintf(p->url, sizeof(p->url), "postgresql://tidemill@127.0.0.1:%d/postgres", port);
  own_start(p);
}

static inline pid_t own_pid(const own_postgres *p) {
  char path[96], line[32] = "";
  (void)snprintf(path, sizeof(path), "%s/data/postmaster.pid", p->dir);
  FILE *f = fopen(path, "r");
  if (f == NULL) return 0;
  if (fgets(line, sizeof(line), f) == NULL) line[0] = '\0';
  (void)fclose(f);
  return (pid_t)atoi(line);
}

/* SIGKILL to the server and all its processes; returns when they are gone. */
static inline void own_kill(own_postgres *p) {
  char command[256], line[32];
  pid_t pid = own_pid(p);
  if (pid <= 1) return;
  (void)snprintf(command, sizeof(command),
                 "kill -STOP %d; kill -KILL $(ps -o pid= --ppid %d) %d 2>/dev/null; "
                 "while kill -0 %d 2>/dev/null; do sleep 0.01; done",
                 (int)pid, (int)pid, (int)pid, (int)pid);
  (void)own_line(command, line, sizeof(line));
}

static inline void own_remove(own_postgres *p) {
  char command[128], line[32];
  own_kill(p);
  (void)snprintf(command, sizeof(command), "rm -rf %s", p->dir);
  (void)own_line(command, line, sizeof(line));
}

#endif
