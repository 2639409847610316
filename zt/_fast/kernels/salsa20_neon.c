#ifdef __aarch64__
#include "kernels.h"
#include "salsa20.h"
#include "simd.h"

#define LANES 4
#define NAME(x) ZT_PASTE(x, _4)
#include "salsa20_vector.h"

ZT_SALSA20(neon)
{
    while (n > 64) {
        size_t take = n < 256 ? n : 256;
        blocks_4(state, rounds, dst, src, take);
        zt_salsa20_advance(state, (take + 63) / 64);
        dst += take;
        src = src ? src + take : NULL;
        n -= take;
    }
    if (n)   /* one block takes less alone than in company */
        zt_salsa20_portable(state, rounds, dst, src, n);
}
#endif
