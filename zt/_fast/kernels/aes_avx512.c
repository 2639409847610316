/* Suite 3 with 512-bit VAES and VPCLMULQDQ. */
#ifdef __x86_64__
#include <immintrin.h>

#include "bytes.h"
#include "kernels.h"
#include "reader.h"
#include "simd.h"

ZT_TARGET_BEGIN("avx512f,avx512bw,avx512vl,avx512dq,bmi2,aes,pclmul,vaes,vpclmulqdq")

#define LEVEL avx512
#define LANES 4
#include "aes_x86.h"

typedef uint64_t vec __attribute__((vector_size(64)));

INLINE vec load(const void *p) { return (vec)_mm512_loadu_si512(p); }
INLINE void store(void *p, vec x) { _mm512_storeu_si512(p, (__m512i)x); }
INLINE vec broadcast(zt_block x) { return (vec)_mm512_broadcast_i32x4((__m128i)x); }
INLINE vec reverse_blocks(vec x)
{
    return (vec)_mm512_shuffle_epi8((__m512i)x, _mm512_broadcast_i32x4(REVERSAL));
}
INLINE vec aes_round(vec x, vec key)
{
    return (vec)_mm512_aesenc_epi128((__m512i)x, (__m512i)key);
}
INLINE vec aes_last(vec x, vec key)
{
    return (vec)_mm512_aesenclast_epi128((__m512i)x, (__m512i)key);
}
INLINE vec clmul_low(vec a, vec b)
{
    return (vec)_mm512_clmulepi64_epi128((__m512i)a, (__m512i)b, 0x00);
}
INLINE vec clmul_high(vec a, vec b)
{
    return (vec)_mm512_clmulepi64_epi128((__m512i)a, (__m512i)b, 0x11);
}
INLINE vec low_halves(vec a, vec b) { return ZT_SHUFFLE(vec, a, b, 0, 8, 2, 10, 4, 12, 6, 14); }
INLINE vec high_halves(vec a, vec b) { return ZT_SHUFFLE(vec, a, b, 1, 9, 3, 11, 5, 13, 7, 15); }
INLINE vec lane_numbers(void) { return (vec){0, 0, 1, 0, 2, 0, 3, 0}; }
INLINE zt_block fold(vec x)
{
    __m256i half = _mm512_castsi512_si256((__m512i)x);
    half = _mm256_xor_si256(half, _mm512_extracti64x4_epi64((__m512i)x, 1));
    return (zt_block)_mm256_castsi256_si128(half) ^ (zt_block)_mm256_extracti128_si256(half, 1);
}
INLINE vec lowest(zt_block x) { return (vec)_mm512_zextsi128_si512((__m128i)x); }

/* Which bytes of vec i of a group are among its first n. */
INLINE __mmask64 part_mask(int i, size_t n)
{
    size_t start = 64 * (size_t)i, bytes = n < start ? 0 : n - start < 64 ? n - start : 64;
    return _bzhi_u64(~0ULL, (unsigned)bytes);
}

/* Bytes masked off are never touched; but an address wholly past the end could cost a fault that
 * the CPU has to suppress, so those are skipped. */
INLINE void load_part(vec x[4], const uint8_t *p, size_t n)
{
    for (int i = 0; i < 4; i++)
        x[i] = n > 64 * (size_t)i ? (vec)_mm512_maskz_loadu_epi8(part_mask(i, n), p + 64 * i)
                                  : (vec){0};
}

INLINE void store_part(uint8_t *p, const vec x[4], size_t n)
{
    for (int i = 0; i < 4; i++)
        if (n > 64 * (size_t)i)
            _mm512_mask_storeu_epi8(p + 64 * i, part_mask(i, n), (__m512i)x[i]);
}

INLINE void clear_after(vec x[4], size_t n)
{
    for (int i = 0; i < 4; i++)
        x[i] = (vec)_mm512_maskz_mov_epi8(part_mask(i, n), (__m512i)x[i]);
}

#include "aes_vector.h"

ZT_TARGET_END
#endif
