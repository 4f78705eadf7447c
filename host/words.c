/* words.c - what a host does when another one of its store tells it something, and its own last
 * word. All of it is found without words as well, by the look once a second. */
#include <string.h>

#include "host.h"

/* A process has ended, and others may have to see to what it has stored: deadlines, events, turns
 * that it has given back. */
#define LEFT "left"

void tm__host_leaves(tm_host *h) {
  __atomic_store_n(&h->leaves, true, __ATOMIC_RELAXED);
}

void tm__host_last_word(tm_host *h) {
  bool leaves = __atomic_load_n(&h->leaves, __ATOMIC_RELAXED);
  if (h->storage != NULL && leaves) tm__storage_tell(h->storage, LEFT);
}

void tm__host_word(void *ud, const char *word) {
  tm_host *h = ud;
  if (!__atomic_load_n(&h->hears, __ATOMIC_ACQUIRE)) return;
  if (strcmp(word, LEFT) == 0) {
    tm__scheduler_poke(h->scheduler);
    tm__deliver_hint(h->deliver);
    return;
  }
  tm_request *r = tm__request_of_word(word);
  if (r != NULL) tm__journal_submit(tm__host_worker(h, r->conversation)->journal, r);
}
