/* store_redis_error.c - what the server refused, or that it does not answer: a status, a code, and
 * what to do. */
#include "persistence/store_redis.h"

typedef struct failure {
  const char *word; /* with which the server's answer begins; of a general one: which is in it */
  tm_status status;
  const char *code, *advice;
} failure;

static const failure failures[] = {
    {"OOM", TM_EUNAVAILABLE, "store.full",
     "the server has reached maxmemory: give it more, nothing is lost"},
    {"READONLY", TM_EUNAVAILABLE, "store.read_only",
     "this server is a replica: name the primary in workflow_persistence.redis.host"},
    {"LOADING", TM_EUNAVAILABLE, "store.busy",
     "the server reads its data after a start; the host goes on by itself"},
    {"BUSY", TM_EUNAVAILABLE, "store.busy",
     "a script of another program keeps the server busy: SCRIPT KILL ends it"},
    {"MISCONF", TM_EUNAVAILABLE, "store.io",
     "the server cannot write its files: see its log, mend the disk"},
    {"MASTERDOWN", TM_EUNAVAILABLE, "store.away",
     "the replica has lost its primary: name the primary in workflow_persistence.redis.host"},
    {"NOREPLICAS", TM_EUNAVAILABLE, "store.away",
     "too few replicas are there for min-replicas-to-write"},
    {"WRONGPASS", TM_EUNAVAILABLE, "store.login", "correct workflow_persistence.redis.password"},
    {"NOAUTH", TM_EUNAVAILABLE, "store.login",
     "the server wants a password: set workflow_persistence.redis.password"},
    {"NOPERM", TM_EUNAVAILABLE, "store.login",
     "let the server's user run these commands on keys tidemill:* (ACL SETUSER)"},
    {"WRONGTYPE", TM_ECORRUPT, "store.foreign",
     "a key of ours holds what another program wrote: choose another "
     "workflow_persistence.redis.db"},
    {"without any password", TM_EUNAVAILABLE, "store.login",
     "the server has no password: leave workflow_persistence.redis.password away, or give the "
     "server one (requirepass)"},
    {"max number of clients", TM_EUNAVAILABLE, "store.connections",
     "raise `maxclients` in redis.conf; the host goes on by itself"},
    {"DB index is out of range", TM_EINVAL, "store.location",
     "choose a smaller workflow_persistence.redis.db, or raise `databases` in redis.conf"},
    {"SELECT is not allowed in cluster", TM_EINVAL, "store.location",
     "a node of a cluster has one database: set workflow_persistence.redis.db to 0"},
    {"MOVED", TM_EUNAVAILABLE, "store.cluster",
     "the server is one node of a cluster: name a proxy, or a server that has all slots"},
    {"CLUSTERDOWN", TM_EUNAVAILABLE, "store.cluster",
     "the server is one node of a cluster: name a proxy, or a server that has all slots"},
};

static const failure other = {"", TM_EUNAVAILABLE, "store.server", "see the server's log"};

/* Some versions put a script's error into words of their own: there the word is within them. */
static const failure *find(const char *words) {
  bool general = strncmp(words, "ERR ", 4) == 0;
  for (size_t i = 0; i < sizeof(failures) / sizeof(failures[0]); i++) {
    const char *word = failures[i].word;
    if (strncmp(words, word, strlen(word)) == 0) return &failures[i];
    if (general && strstr(words, word) != NULL) return &failures[i];
  }
  return &other;
}

tm_status tm__redis_refused(const tm_store *s, const char *words, tm_error *err) {
  const failure *f = find(words);
  return tm__fail(err, f->status, f->code, "redis %s answers \"%.300s\"; %s", s->place, words,
                  f->advice);
}

tm_status tm__redis_unreachable(const tm_store *s, const char *what, tm_error *err) {
  return tm__fail(err, TM_EUNAVAILABLE, "store.away",
                  "redis %s cannot be reached: %.200s; start it, or correct "
                  "workflow_persistence.redis; the host goes on by itself",
                  s->place, what);
}

tm_status tm__redis_damaged(const tm_store *s, const char *what, tm_error *err) {
  return tm__fail(err, TM_ECORRUPT, "store.damaged",
                  "redis %s: %s is damaged; it was left as it is: restore a backup", s->place,
                  what);
}

tm_status tm__redis_outcome_unknown(const tm_store *s, tm_error *err) {
  return tm__fail(err, TM_EUNAVAILABLE, "store.outcome_unknown",
                  "redis %s went away in the middle of a commit, and the host stops before it is "
                  "known whether it happened; repeat the request with the same Idempotency-Key, or "
                  "read the conversation",
                  s->place);
}

tm_status tm__redis_not_found(const char *what, tm_error *err) {
  return tm__fail(err, TM_ENOTFOUND, "store.not_found", "the store has no such %s", what);
}
