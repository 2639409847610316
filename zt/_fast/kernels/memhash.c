#include "memhash.h"

#include "bytes.h"
#include "salsa20.h"
#include "sha512.h"

enum {
    BLOCK_WORDS = 8,
    TABLE_WORDS = ZT_MEMHASH_TABLE / 8,
    BATCH = 8192,   /* keystream bytes made at a time; stays in the first-level cache */
};

/* Everything hashed here is public, so that table accesses may depend on it. */
void zt_memory_hard_hash(uint8_t digest[64], const uint8_t public_key[64], uint64_t *table)
{
    const zt_kernels *k = zt_kernels_get();
    uint32_t state[16];
    uint64_t d[BLOCK_WORDS], stream[BATCH / 8];

    zt_sha512(digest, public_key, 64);
    zt_salsa20_init(state, digest, digest + 32, 0);
    memcpy(d, digest, sizeof d);

    /* Fill: each block is the one before ^ the next of the keystream. */
    k->salsa20(state, 20, (uint8_t *)table, NULL, ZT_MEMHASH_TABLE);
    for (int i = BLOCK_WORDS; i < TABLE_WORDS; i++)
        table[i] ^= table[i - BLOCK_WORDS];

    /* Mix: two words name a word of the digest and one of the table to swap. */
    for (int i = 0; i < TABLE_WORDS; i += 2 * (BATCH / 64)) {
        k->salsa20(state, 20, (uint8_t *)stream, NULL, BATCH);
        for (int j = 0; j < BATCH / 64; j++) {
            uint64_t *a = &d[ZT_BE64(table[i + 2 * j]) % BLOCK_WORDS];
            uint64_t *b = &table[ZT_BE64(table[i + 2 * j + 1]) % TABLE_WORDS];
            uint64_t swapped = *a;
            *a = *b;
            *b = swapped;
            for (int w = 0; w < BLOCK_WORDS; w++)
                d[w] ^= stream[BLOCK_WORDS * j + w];
        }
    }
    memcpy(digest, d, sizeof d);
}
