/* The packet IDs lately seen from one peer, so that an exact repeat is recognized.
 *
 * IDs are random, so they are their own hash: 64 sets of one cache line with the last 8 IDs each,
 * newest first. A repeat among the last 128 packets is missed about once in a thousand times, one
 * among the last 64 practically never; 4 KiB per peer that sends frames, none for others.
 */
#ifndef ZT_TABLE_WINDOW_H
#define ZT_TABLE_WINDOW_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

enum { WINDOW_SETS = 64, WINDOW_WAYS = 8 };

typedef struct {
    uint64_t ids[WINDOW_SETS][WINDOW_WAYS]; /* 0: none yet */
} zt_window;

/* Whether the ID was there; it is the newest of its set afterwards. `*window` is made on first use.
 * Several threads may ask at once: then a repeat may be missed, no other ID is ever taken for one. */
static inline bool window_repeats(zt_window **window, uint64_t id)
{
    zt_window *w = __atomic_load_n(window, __ATOMIC_ACQUIRE);
    if (!w) {
        zt_window *fresh = (zt_window *)calloc(1, sizeof *fresh);
        if (!fresh)
            return false;
        if (__atomic_compare_exchange_n(window, &w, fresh, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
            w = fresh;
        else
            free(fresh);
    }
    uint64_t *set = w->ids[id % WINDOW_SETS], carried = id;
    for (int i = 0; i < WINDOW_WAYS; i++) {
        uint64_t old = __atomic_load_n(&set[i], __ATOMIC_RELAXED);
        if (old == id && id) {
            __atomic_store_n(&set[i], carried, __ATOMIC_RELAXED);
            return true;
        }
        __atomic_store_n(&set[i], carried, __ATOMIC_RELAXED);
        carried = old;
    }
    return false;
}

#endif
