/* Suite 3 with the ARMv8 cryptographic extension (AES and PMULL): one block per instruction. */
#include "kernels.h"
#ifdef ZT_ARMV8
#include <arm_neon.h>

#include "bytes.h"
#include "reader.h"
#include "simd.h"

ZT_TARGET_BEGIN(ZT_ARM_CRYPTO)

#define LEVEL armv8
#define INLINE static inline __attribute__((always_inline))

INLINE zt_block block_load(const void *p) { return (zt_block)vld1q_u8(p); }
INLINE void block_store(void *p, zt_block x) { vst1q_u8(p, (uint8x16_t)x); }

INLINE zt_block block_reverse(zt_block x)
{
    uint8x16_t halves = vrev64q_u8((uint8x16_t)x);
    return (zt_block)vextq_u8(halves, halves, 8);
}

/* ARM adds the round key before SubBytes, x86 after MixColumns: here it is a zero before, and an
 * exclusive or after that compilers merge into the next round. */
INLINE zt_block block_round(zt_block x, zt_block key)
{
    return (zt_block)vaesmcq_u8(vaeseq_u8((uint8x16_t)x, vdupq_n_u8(0))) ^ key;
}

INLINE zt_block block_last(zt_block x, zt_block key)
{
    return (zt_block)vaeseq_u8((uint8x16_t)x, vdupq_n_u8(0)) ^ key;
}

INLINE zt_block block_unround(zt_block x, zt_block key)
{
    return (zt_block)vaesimcq_u8(vaesdq_u8((uint8x16_t)x, vdupq_n_u8(0))) ^ key;
}

INLINE zt_block block_unlast(zt_block x, zt_block key)
{
    return (zt_block)vaesdq_u8((uint8x16_t)x, vdupq_n_u8(0)) ^ key;
}

INLINE zt_block block_imc(zt_block key) { return (zt_block)vaesimcq_u8((uint8x16_t)key); }

INLINE zt_block block_clmul_low(zt_block a, zt_block b)
{
    return (zt_block)vmull_p64((poly64_t)a[0], (poly64_t)b[0]);
}

INLINE zt_block block_clmul_high(zt_block a, zt_block b)
{
    return (zt_block)vmull_high_p64((poly64x2_t)a, (poly64x2_t)b);
}

INLINE zt_block block_clmul_mid(zt_block a, zt_block b)
{
    return (zt_block)(vmull_p64((poly64_t)a[0], (poly64_t)b[1])
                      ^ vmull_p64((poly64_t)a[1], (poly64_t)b[0]));
}

#define block_keep(x) __asm__("" : "+w"(x))

#include "aes_single.h"

ZT_TARGET_END
#endif
