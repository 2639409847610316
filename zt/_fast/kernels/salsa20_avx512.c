#ifdef __x86_64__
#include "kernels.h"
#include "salsa20.h"
#include "simd.h"

ZT_TARGET_BEGIN("avx512f,avx512vl")

#define LANES 4
#define NAME(x) ZT_PASTE(x, _4)
#include "salsa20_vector.h"
#undef LANES
#undef NAME
#define LANES 8
#define NAME(x) ZT_PASTE(x, _8)
#include "salsa20_vector.h"
#undef LANES
#undef NAME
#define LANES 16
#define NAME(x) ZT_PASTE(x, _16)
#include "salsa20_vector.h"

/* A pass costs about the same at any width, so few blocks take a narrow one. */
ZT_SALSA20(avx512)
{
    while (n > 0) {
        size_t width = n <= 4 * 64 ? 4 : n <= 8 * 64 ? 8 : 16;
        size_t take = n < 64 * width ? n : 64 * width;
        if (width == 16)
            blocks_16(state, rounds, dst, src, take);
        else if (width == 8)
            blocks_8(state, rounds, dst, src, take);
        else
            blocks_4(state, rounds, dst, src, take);
        zt_salsa20_advance(state, (take + 63) / 64);
        dst += take;
        src = src ? src + take : NULL;
        n -= take;
    }
}

ZT_XOR_BYTES(avx512) { xor_bytes(dst, src, mask, n); }

ZT_TARGET_END
#endif
