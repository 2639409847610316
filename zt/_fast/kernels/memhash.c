#include "memhash.h"

#include "bytes.h"
#include "salsa20.h"
#include "sha512.h"

enum {
    WORDS = 8,                             /* of a block */
    TABLE_WORDS = ZT_MEMHASH_TABLE / 8,
    BATCH = 1024,                          /* words of keystream made at a time, for the L1 cache */
};

/* Continues the keystream at `out`, each block of it with all blocks before it xored in; the one
 * before `out` is already so. */
static void chain(const zt_kernels *k, uint32_t state[16], uint64_t *out)
{
    k->salsa20(state, 20, (uint8_t *)out, NULL, 8 * BATCH);
    for (int i = 0; i < BATCH; i++)
        out[i] ^= out[i - WORDS];
}

/* Everything hashed here is public, so that table accesses may depend on it.
 *
 * The mixing xors each block of keystream to all of the digest. Here the sum of these is kept apart
 * (chain makes it), and the digest without it: a step then touches one word instead of eight. */
void zt_memory_hard_hash(uint8_t digest[64], const uint8_t public_key[64], uint64_t *table)
{
    const zt_kernels *k = zt_kernels_get();
    uint32_t state[16];
    uint64_t rest[WORDS], sums[WORDS + BATCH] = {0};

    zt_sha512(digest, public_key, 64);
    zt_salsa20_init(state, digest, digest + 32, 0);
    memcpy(rest, digest, sizeof rest);

    k->salsa20(state, 20, (uint8_t *)table, NULL, 8 * BATCH);
    for (int i = WORDS; i < BATCH; i++)
        table[i] ^= table[i - WORDS];
    for (int i = BATCH; i < TABLE_WORDS; i += BATCH)
        chain(k, state, table + i);

    const uint64_t *names = table;
    while (names < table + TABLE_WORDS) {
        chain(k, state, sums + WORDS);
        for (const uint64_t *sum = sums; sum < sums + BATCH; sum += WORDS, names += 2) {
            uint64_t a = ZT_BE64(names[0]) % WORDS;
            uint64_t *swapped = table + ZT_BE64(names[1]) % TABLE_WORDS;
            uint64_t old = *swapped;
            *swapped = rest[a] ^ sum[a];
            rest[a] = old ^ sum[a];
        }
        memcpy(sums, sums + BATCH, 8 * WORDS);
    }
    xor_bytes(digest, (uint8_t *)rest, (uint8_t *)sums, 64);
}
