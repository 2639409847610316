#include "kernels.h"
#include "salsa20.h"

#define QUARTER(a, b, c, d)               \
    do {                                  \
        x[b] ^= rotl32(x[a] + x[d], 7);   \
        x[c] ^= rotl32(x[b] + x[a], 9);   \
        x[d] ^= rotl32(x[c] + x[b], 13);  \
        x[a] ^= rotl32(x[d] + x[c], 18);  \
    } while (0)

static void block(const uint32_t state[16], int rounds, uint8_t out[64])
{
    uint32_t x[16];
    memcpy(x, state, sizeof x);
    for (int i = 0; i < rounds; i += 2) {
        QUARTER(0, 4, 8, 12);
        QUARTER(5, 9, 13, 1);
        QUARTER(10, 14, 2, 6);
        QUARTER(15, 3, 7, 11);
        QUARTER(0, 1, 2, 3);
        QUARTER(5, 6, 7, 4);
        QUARTER(10, 11, 8, 9);
        QUARTER(15, 12, 13, 14);
    }
    for (int i = 0; i < 16; i++)
        store32_le(out + 4 * i, x[i] + state[i]);
    zt_wipe(x, sizeof x);
}

ZT_SALSA20(portable)
{
    uint8_t stream[64];
    for (size_t done = 0; done < n; done += 64) {
        size_t take = n - done < 64 ? n - done : 64;
        block(state, rounds, stream);
        zt_salsa20_advance(state, 1);
        if (src)
            xor_bytes(dst + done, src + done, stream, take);
        else
            memcpy(dst + done, stream, take);
    }
    zt_wipe(stream, sizeof stream);
}

ZT_XOR_BYTES(portable) { xor_bytes(dst, src, mask, n); }
