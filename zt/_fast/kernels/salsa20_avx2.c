#ifdef __x86_64__
#include "kernels.h"
#include "salsa20.h"
#include "simd.h"

ZT_TARGET_BEGIN("avx2")

#define LANES 4
#define NAME(x) ZT_PASTE(x, _4)
#include "salsa20_vector.h"
#undef LANES
#undef NAME
#define LANES 8
#define NAME(x) ZT_PASTE(x, _8)
#include "salsa20_vector.h"

ZT_SALSA20(avx2)
{
    while (n > 64) {
        size_t width = n <= 4 * 64 ? 4 : 8, take = n < 64 * width ? n : 64 * width;
        if (width == 8)
            blocks_8(state, rounds, dst, src, take);
        else
            blocks_4(state, rounds, dst, src, take);
        zt_salsa20_advance(state, (take + 63) / 64);
        dst += take;
        src = src ? src + take : NULL;
        n -= take;
    }
    if (n)   /* one block takes less alone than in company */
        zt_salsa20_portable(state, rounds, dst, src, n);
}

ZT_XOR_BYTES(avx2) { xor_bytes(dst, src, mask, n); }

ZT_TARGET_END
#endif
