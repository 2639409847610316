/* HELLOs that repeat what their sender said before, and the answer to them (docs/protocol/02, 9.1).
 *
 * A root hears from every peer each minute or so, and nearly always the same: the control plane
 * reads what is new, the data plane answers the rest.
 */
#ifndef ZT_GREETING_H
#define ZT_GREETING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "armor.h"
#include "table_place.h"

enum { GREETING_OK_MAX = 71, GREETING_VERSION = 5 };

/* What one peer said on one path when the control plane answered it last. */
typedef struct {
    uint8_t digest[16]; /* of all but the ID, the armor and the time */
    int64_t time;       /* atomic: the sender's clock, of the latest one answered here */
    int64_t until;      /* ms: from then on the control plane answers again; 0: nothing is known */
    uint32_t era;       /* counts only in this one */
    uint16_t tail;      /* where its masked part begins */
} zt_greeting;

/* Notes an authentic HELLO of n bytes whose masked part is in the clear. `secret`: 32 bytes, of this
 * node alone. The time never goes back, so that what was recorded is not answered here once more.
 * False: it is too short, nothing is noted. The caller sets `until` and `era`. */
bool zt_greeting_note(zt_greeting *g, const uint8_t secret[32], const uint8_t *packet, size_t n, size_t tail);

/* Whether an authentic HELLO says the same as the one noted, and later. It is unmasked in place. */
bool zt_greeting_repeats(const zt_greeting *g, const uint8_t secret[32], const zt_key *key, uint8_t *packet,
                         size_t n);

/* Takes the time of a HELLO that repeats; false if another thread answered it or a later one. */
bool zt_greeting_take(zt_greeting *g, const uint8_t *packet);

/* Writes the OK, still without armor, and returns its size. `id`: its packet ID, `seen`: where the
 * HELLO came from, `version`: ours as it stands in a HELLO. */
size_t zt_greeting_ok(uint8_t ok[GREETING_OK_MAX], const uint8_t *hello, uint64_t id, const zt_place *seen,
                      const uint8_t version[GREETING_VERSION]);

#endif
