/* Salsa20 with 256-bit keys (Bernstein, "Salsa20 specification"; docs/protocol/01, 2.1). */
#ifndef ZT_SALSA20_H
#define ZT_SALSA20_H

#include "bytes.h"
#include "dispatch.h"

/* State in matrix order: the constants are words 0, 5, 10, 15, the counter is words 8 and 9. */
static inline void zt_salsa20_init(uint32_t state[16], const uint8_t key[32], const uint8_t iv[8],
                                   uint64_t counter)
{
    state[0] = 0x61707865;
    state[5] = 0x3320646e;
    state[10] = 0x79622d32;
    state[15] = 0x6b206574;
    for (int i = 0; i < 4; i++) {
        state[1 + i] = load32_le(key + 4 * i);
        state[11 + i] = load32_le(key + 16 + 4 * i);
    }
    state[6] = load32_le(iv);
    state[7] = load32_le(iv + 4);
    state[8] = (uint32_t)counter;
    state[9] = (uint32_t)(counter >> 32);
}

static inline void zt_salsa20_advance(uint32_t state[16], uint64_t blocks)
{
    uint64_t counter = (state[8] | (uint64_t)state[9] << 32) + blocks;
    state[8] = (uint32_t)counter;
    state[9] = (uint32_t)(counter >> 32);
}

#endif
