#include "dispatch.h"

#include <stdlib.h>
#include <string.h>

#include "kernels.h"

_Atomic(const zt_kernels *) zt_kernels_chosen;

static const zt_kernels portable = {
    .name = "portable",
    .salsa20 = zt_salsa20_portable,
    .poly1305 = zt_poly1305_portable,
    .aes_encrypt = zt_aes_encrypt_portable,
    .aes_decrypt = zt_aes_decrypt_portable,
    .aes_ctr = zt_aes_ctr_portable,
    .gmac = zt_gmac_portable,
    .ctr_gmac = zt_ctr_gmac_portable,
    .checksum = zt_checksum_portable,
    .copy_checksum = zt_copy_checksum_portable,
};

enum { HAS_NOTHING = 0 };

static unsigned cpu_features(void) { return HAS_NOTHING; }

/* Weakest first; a level is on this CPU if all it needs is. */
static const struct level {
    const zt_kernels *kernels;
    unsigned needs;
} LEVELS[] = {
    {&portable, HAS_NOTHING},
};
enum { LEVEL_COUNT = sizeof LEVELS / sizeof LEVELS[0] };

static const zt_kernels *level_at(int i)
{
    unsigned have = cpu_features();
    for (int level = 0; level < LEVEL_COUNT; level++)
        if ((LEVELS[level].needs & ~have) == 0 && i-- == 0)
            return LEVELS[level].kernels;
    return NULL;
}

static const zt_kernels *level_named(const char *name)
{
    const zt_kernels *k;
    for (int i = 0; (k = level_at(i)) != NULL; i++)
        if (strcmp(k->name, name) == 0)
            return k;
    return NULL;
}

const char *zt_level_name(int i)
{
    const zt_kernels *k = level_at(i);
    return k ? k->name : NULL;
}

bool zt_level_set(const char *name)
{
    const zt_kernels *k = level_named(name);
    if (k == NULL)
        return false;
    atomic_store_explicit(&zt_kernels_chosen, k, memory_order_release);
    return true;
}

/* Threads that race here find the same answer, so the last store does no harm. */
const zt_kernels *zt_kernels_resolve(void)
{
    const char *forced = getenv("ZT_CPU_LEVEL");
    const zt_kernels *best = forced ? level_named(forced) : NULL;
    for (int i = 0; best == NULL || !forced; i++) {
        const zt_kernels *k = level_at(i);
        if (k == NULL)
            break;
        best = k;
    }
    atomic_store_explicit(&zt_kernels_chosen, best, memory_order_release);
    return best;
}
