/* word.c - what hosts of a store tell each other about a conversation: that somebody waits for the
 * end of a turn that runs elsewhere, and to whoever said so that it has come. Words are hints: who
 * waits looks for himself now and then, and a word that is lost costs him that time. */
#include <string.h>

#include "journal/slot.h"

#define WANT "want/"
#define DONE "done/"

static void tell(const tm_slot *s, const char *what) {
  char word[sizeof(WANT) + TM_ID_SIZE];
  (void)snprintf(word, sizeof(word), "%s%s", what, s->id);
  tm__storage_tell(s->journal->o.storage, word);
}

/* A turn without a claim is one that nobody runs. */
void tm__word_want(const tm_slot *s) {
  if (s->record.loaded && !s->record.in_memory && s->record.head.claim[0] != '\0') tell(s, WANT);
}

void tm__word_ended(const tm_turn *t) {
  if (t->wanted) tell(t->slot, DONE);
}

tm_request *tm__request_of_word(const char *word) {
  tm_slice all = tm__slice(word);
  bool wanted = strncmp(word, WANT, strlen(WANT)) == 0;
  if (!wanted && strncmp(word, DONE, strlen(DONE)) != 0) return NULL;
  tm_request *r = tm__request_new(wanted ? TM_REQUEST_WANTED : TM_REQUEST_ENDED);
  tm_slice id = {all.ptr + strlen(WANT), all.len - strlen(WANT)};
  if (r == NULL || tm__copy(r->conversation, sizeof(r->conversation), id)) return r;
  tm__request_free(r);
  return NULL;
}

void tm__word_heard(tm_journal *j, tm_request *r) {
  tm_slot *s = tm__map_get(&j->slots, tm__slice(r->conversation));
  bool ended = r->kind == TM_REQUEST_ENDED;
  tm__request_free(r);
  if (s == NULL) return;
  if (!ended && s->turn != NULL) s->turn->wanted = true;
  if (!ended || s->phase != TM_SLOT_WAITING) return;
  tm__slot_wait_end(s);
  tm__slot_go(s);
}
