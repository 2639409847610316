#include "dispatch.h"

#include <stdlib.h>
#include <string.h>

#include "kernels.h"

_Atomic(const zt_kernels *) zt_kernels_chosen;

static const zt_kernels portable = {
    .name = "portable",
    .salsa20 = zt_salsa20_portable,
    .xor_bytes = zt_xor_bytes_portable,
    .poly1305 = zt_poly1305_portable,
    .aes_encrypt = zt_aes_encrypt_portable,
    .aes_decrypt = zt_aes_decrypt_portable,
    .aes_ctr = zt_aes_ctr_portable,
    .gmac = zt_gmac_portable,
    .ctr_gmac = zt_ctr_gmac_portable,
    .gmac_beside = zt_gmac_beside_portable,
    .checksum = zt_checksum_portable,
    .copy_checksum = zt_copy_checksum_portable,
};

#ifdef __x86_64__
#include <cpuid.h>

static const zt_kernels sse2 = {
    .name = "sse2",
    .salsa20 = zt_salsa20_sse2,
    .xor_bytes = zt_xor_bytes_portable,
    .poly1305 = zt_poly1305_portable,
    .aes_encrypt = zt_aes_encrypt_portable,
    .aes_decrypt = zt_aes_decrypt_portable,
    .aes_ctr = zt_aes_ctr_portable,
    .gmac = zt_gmac_portable,
    .ctr_gmac = zt_ctr_gmac_portable,
    .gmac_beside = zt_gmac_beside_portable,
    .checksum = zt_checksum_portable,
    .copy_checksum = zt_copy_checksum_portable,
};

static const zt_kernels aesni = {
    .name = "aesni",
    .salsa20 = zt_salsa20_sse2,
    .xor_bytes = zt_xor_bytes_portable,
    .poly1305 = zt_poly1305_portable,
    .aes_encrypt = zt_aes_encrypt_aesni,
    .aes_decrypt = zt_aes_decrypt_aesni,
    .aes_ctr = zt_aes_ctr_aesni,
    .gmac = zt_gmac_aesni,
    .ctr_gmac = zt_ctr_gmac_aesni,
    .gmac_beside = zt_gmac_beside_aesni,
    .checksum = zt_checksum_portable,
    .copy_checksum = zt_copy_checksum_portable,
};

static const zt_kernels avx2 = {
    .name = "avx2",
    .salsa20 = zt_salsa20_avx2,
    .xor_bytes = zt_xor_bytes_avx2,
    .poly1305 = zt_poly1305_avx2,
    .aes_encrypt = zt_aes_encrypt_avx2,
    .aes_decrypt = zt_aes_decrypt_avx2,
    .aes_ctr = zt_aes_ctr_avx2,
    .gmac = zt_gmac_avx2,
    .ctr_gmac = zt_ctr_gmac_avx2,
    .gmac_beside = zt_gmac_beside_avx2,
    .checksum = zt_checksum_avx2,
    .copy_checksum = zt_copy_checksum_avx2,
};

static const zt_kernels avx512f = {
    .name = "avx512f",
    .salsa20 = zt_salsa20_avx512,
    .xor_bytes = zt_xor_bytes_avx512,
    .poly1305 = zt_poly1305_avx2,
    .aes_encrypt = zt_aes_encrypt_avx2,
    .aes_decrypt = zt_aes_decrypt_avx2,
    .aes_ctr = zt_aes_ctr_avx2,
    .gmac = zt_gmac_avx2,
    .ctr_gmac = zt_ctr_gmac_avx2,
    .gmac_beside = zt_gmac_beside_avx2,
    .checksum = zt_checksum_avx2,
    .copy_checksum = zt_copy_checksum_avx2,
};

static const zt_kernels vaes = {
    .name = "vaes",
    .salsa20 = zt_salsa20_avx2,
    .xor_bytes = zt_xor_bytes_avx2,
    .poly1305 = zt_poly1305_avx2,
    .aes_encrypt = zt_aes_encrypt_vaes,
    .aes_decrypt = zt_aes_decrypt_vaes,
    .aes_ctr = zt_aes_ctr_vaes,
    .gmac = zt_gmac_vaes,
    .ctr_gmac = zt_ctr_gmac_vaes,
    .gmac_beside = zt_gmac_beside_vaes,
    .checksum = zt_checksum_avx2,
    .copy_checksum = zt_copy_checksum_avx2,
};

static const zt_kernels avx512 = {
    .name = "avx512",
    .salsa20 = zt_salsa20_avx512,
    .xor_bytes = zt_xor_bytes_avx512,
    .poly1305 = zt_poly1305_avx512,
    .aes_encrypt = zt_aes_encrypt_avx512,
    .aes_decrypt = zt_aes_decrypt_avx512,
    .aes_ctr = zt_aes_ctr_avx512,
    .gmac = zt_gmac_avx512,
    .ctr_gmac = zt_ctr_gmac_avx512,
    .gmac_beside = zt_gmac_beside_avx512,
    .checksum = zt_checksum_avx2,
    .copy_checksum = zt_copy_checksum_avx2,
};

enum feature {
    AESNI = 1,      /* AES, PCLMULQDQ, SSSE3, SSE4.1 */
    AVX2 = 2,
    VAES = 4,       /* VAES, VPCLMULQDQ */
    AVX512F = 8,    /* F, VL */
    AVX512 = 16,    /* F, BW, DQ, VL, IFMA; BMI2 */
};

#define BITS(word, mask) (((word) & (mask)) == (mask))

/* Wide registers count only if the operating system saves them (XCR0). */
static unsigned cpu_features(void)
{
    enum { YMM_STATE = 0x06, ZMM_STATE = 0xe6 };
    unsigned a, b, c, d, state = 0, features = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d))
        return 0;
    if (BITS(c, bit_AES | bit_PCLMUL | bit_SSSE3 | bit_SSE4_1))
        features |= AESNI;
    if (c & bit_OSXSAVE) {
        unsigned high;
        __asm__("xgetbv" : "=a"(state), "=d"(high) : "c"(0));
    }
    if (!BITS(state, YMM_STATE) || !__get_cpuid_count(7, 0, &a, &b, &c, &d))
        return features;
    if (b & bit_AVX2)
        features |= AVX2;
    if (BITS(c, bit_VAES | bit_VPCLMULQDQ))
        features |= VAES;
    if (BITS(state, ZMM_STATE) && BITS(b, bit_AVX512F | bit_AVX512VL))
        features |= AVX512F;
    if (BITS(state, ZMM_STATE)
        && BITS(b, bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL | bit_AVX512IFMA
                   | bit_BMI2))
        features |= AVX512;
    return features;
}
#elif defined(__aarch64__)

static const zt_kernels neon = {
    .name = "neon",
    .salsa20 = zt_salsa20_neon,
    .xor_bytes = zt_xor_bytes_portable,
    .poly1305 = zt_poly1305_portable,
    .aes_encrypt = zt_aes_encrypt_portable,
    .aes_decrypt = zt_aes_decrypt_portable,
    .aes_ctr = zt_aes_ctr_portable,
    .gmac = zt_gmac_portable,
    .ctr_gmac = zt_ctr_gmac_portable,
    .gmac_beside = zt_gmac_beside_portable,
    .checksum = zt_checksum_portable,
    .copy_checksum = zt_copy_checksum_portable,
};

#ifdef ZT_ARMV8
#include <asm/hwcap.h>
#include <sys/auxv.h>

static const zt_kernels armv8 = {
    .name = "armv8",
    .salsa20 = zt_salsa20_neon,
    .xor_bytes = zt_xor_bytes_portable,
    .poly1305 = zt_poly1305_portable,
    .aes_encrypt = zt_aes_encrypt_armv8,
    .aes_decrypt = zt_aes_decrypt_armv8,
    .aes_ctr = zt_aes_ctr_armv8,
    .gmac = zt_gmac_armv8,
    .ctr_gmac = zt_ctr_gmac_armv8,
    .gmac_beside = zt_gmac_beside_armv8,
    .checksum = zt_checksum_portable,
    .copy_checksum = zt_copy_checksum_portable,
};

enum feature { ARM_AES = 1 };   /* AES, PMULL */

static unsigned cpu_features(void)
{
    const unsigned long both = HWCAP_AES | HWCAP_PMULL;
    return (getauxval(AT_HWCAP) & both) == both ? ARM_AES : 0;
}
#else
static unsigned cpu_features(void) { return 0; }
#endif
#else
static unsigned cpu_features(void) { return 0; }
#endif

/* Weakest first; a level is on this CPU if all it needs is. */
static const struct level {
    const zt_kernels *kernels;
    unsigned needs;
} LEVELS[] = {
    {&portable, 0},
#ifdef __x86_64__
    {&sse2, 0},
    {&aesni, AESNI},
    {&avx2, AESNI | AVX2},
    {&avx512f, AESNI | AVX2 | AVX512F},
    {&vaes, AESNI | AVX2 | VAES},
    {&avx512, AESNI | AVX2 | VAES | AVX512},
#elif defined(__aarch64__)
    {&neon, 0},
#ifdef ZT_ARMV8
    {&armv8, ARM_AES},
#endif
#endif
};
enum { LEVEL_COUNT = sizeof LEVELS / sizeof LEVELS[0] };

static const zt_kernels *level_at(int i)
{
    unsigned have = cpu_features();
    for (int level = 0; level < LEVEL_COUNT; level++)
        if ((LEVELS[level].needs & ~have) == 0 && i-- == 0)
            return LEVELS[level].kernels;
    return NULL;
}

static const zt_kernels *level_named(const char *name)
{
    const zt_kernels *k;
    for (int i = 0; (k = level_at(i)) != NULL; i++)
        if (strcmp(k->name, name) == 0)
            return k;
    return NULL;
}

const char *zt_level_name(int i)
{
    const zt_kernels *k = level_at(i);
    return k ? k->name : NULL;
}

bool zt_level_set(const char *name)
{
    const zt_kernels *k = level_named(name);
    if (k == NULL)
        return false;
    atomic_store_explicit(&zt_kernels_chosen, k, memory_order_release);
    return true;
}

/* Threads that race here find the same answer, so the last store does no harm. */
const zt_kernels *zt_kernels_resolve(void)
{
    const char *forced = getenv("ZT_CPU_LEVEL");
    const zt_kernels *best = forced ? level_named(forced) : NULL;
    for (int i = 0; best == NULL || !forced; i++) {
        const zt_kernels *k = level_at(i);
        if (k == NULL)
            break;
        best = k;
    }
    atomic_store_explicit(&zt_kernels_chosen, best, memory_order_release);
    return best;
}
