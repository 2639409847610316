/* AES and carry-less multiplication of single blocks, for aes_single.h and aes_vector.h on x86-64.
 * Included after ZT_TARGET_BEGIN of at least "sse4.1,aes,pclmul". */

#define INLINE static inline __attribute__((always_inline))

/* Shuffle control that reverses the bytes of a block. */
#define REVERSAL _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)

INLINE zt_block block_load(const void *p)
{
    return (zt_block)_mm_loadu_si128((const __m128i *)p);
}

INLINE void block_store(void *p, zt_block x)
{
    _mm_storeu_si128((__m128i *)p, (__m128i)x);
}

INLINE zt_block block_reverse(zt_block x)
{
    return (zt_block)_mm_shuffle_epi8((__m128i)x, REVERSAL);
}

INLINE zt_block block_round(zt_block x, zt_block key)
{
    return (zt_block)_mm_aesenc_si128((__m128i)x, (__m128i)key);
}

INLINE zt_block block_last(zt_block x, zt_block key)
{
    return (zt_block)_mm_aesenclast_si128((__m128i)x, (__m128i)key);
}

INLINE zt_block block_unround(zt_block x, zt_block key)
{
    return (zt_block)_mm_aesdec_si128((__m128i)x, (__m128i)key);
}

INLINE zt_block block_unlast(zt_block x, zt_block key)
{
    return (zt_block)_mm_aesdeclast_si128((__m128i)x, (__m128i)key);
}

INLINE zt_block block_imc(zt_block key)
{
    return (zt_block)_mm_aesimc_si128((__m128i)key);
}

INLINE zt_block block_clmul_low(zt_block a, zt_block b)
{
    return (zt_block)_mm_clmulepi64_si128((__m128i)a, (__m128i)b, 0x00);
}

INLINE zt_block block_clmul_high(zt_block a, zt_block b)
{
    return (zt_block)_mm_clmulepi64_si128((__m128i)a, (__m128i)b, 0x11);
}

INLINE zt_block block_clmul_mid(zt_block a, zt_block b)
{
    return (zt_block)_mm_clmulepi64_si128((__m128i)a, (__m128i)b, 0x01)
           ^ (zt_block)_mm_clmulepi64_si128((__m128i)a, (__m128i)b, 0x10);
}

#define block_keep(x) __asm__("" : "+x"(x))
