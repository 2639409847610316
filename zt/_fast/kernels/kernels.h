/* Declarations of every level's functions, for dispatch.c and for levels that build on another. */
#ifndef ZT_KERNELS_H
#define ZT_KERNELS_H

#include "dispatch.h"

#define ZT_SALSA20(level) \
    void zt_salsa20_##level(uint32_t state[16], int rounds, uint8_t *dst, const uint8_t *src, \
                            size_t n)
#define ZT_XOR_BYTES(level) \
    void zt_xor_bytes_##level(uint8_t *dst, const uint8_t *src, const uint8_t *mask, size_t n)
#define ZT_POLY1305(level) \
    void zt_poly1305_##level(uint8_t tag[16], const uint8_t key[32], const struct iovec *pieces, \
                             size_t n)
#define ZT_AES_ENCRYPT(level) \
    zt_block zt_aes_encrypt_##level(const uint8_t *round_keys, zt_block in)
#define ZT_AES_DECRYPT(level) \
    zt_block zt_aes_decrypt_##level(const uint8_t *round_keys, zt_block in)
#define ZT_AES_CTR(level) \
    void zt_aes_ctr_##level(const zt_aes_key *key, zt_block counter, uint8_t *dst, \
                            const struct iovec *pieces, size_t n)
#define ZT_GMAC(level) \
    zt_block zt_gmac_##level(const zt_aes_key *key, zt_block nonce, zt_block aad, \
                             const struct iovec *pieces, size_t n)
#define ZT_CTR_GMAC(level) \
    zt_block zt_ctr_gmac_##level(const zt_aes_key *key, zt_block counter, uint8_t *dst, \
                                 const struct iovec *pieces, size_t n, zt_block nonce, \
                                 zt_block aad)
#define ZT_GMAC_BESIDE(level) \
    zt_block zt_gmac_beside_##level(const zt_aes_key *key, zt_block nonce, zt_block aad, \
                                    const struct iovec *pieces, size_t n, const zt_ctr_text *other)
#define ZT_CHECKSUM(level) uint64_t zt_checksum_##level(const uint8_t *src, size_t n)
#define ZT_COPY_CHECKSUM(level) \
    uint64_t zt_copy_checksum_##level(uint8_t *dst, const uint8_t *src, size_t n)

ZT_SALSA20(portable);
ZT_XOR_BYTES(portable);
ZT_POLY1305(portable);
ZT_AES_ENCRYPT(portable);
ZT_AES_DECRYPT(portable);
ZT_AES_CTR(portable);
ZT_GMAC(portable);
ZT_CTR_GMAC(portable);
ZT_GMAC_BESIDE(portable);
ZT_CHECKSUM(portable);
ZT_COPY_CHECKSUM(portable);

#ifdef __x86_64__
ZT_SALSA20(sse2);

ZT_AES_ENCRYPT(aesni);   /* AES-NI, PCLMULQDQ, SSE4.1 */
ZT_AES_DECRYPT(aesni);
ZT_AES_CTR(aesni);
ZT_GMAC(aesni);
ZT_CTR_GMAC(aesni);
ZT_GMAC_BESIDE(aesni);

ZT_SALSA20(avx2);
ZT_XOR_BYTES(avx2);
ZT_POLY1305(avx2);
ZT_CHECKSUM(avx2);
ZT_COPY_CHECKSUM(avx2);
ZT_AES_ENCRYPT(avx2);    /* with AES-NI and PCLMULQDQ */
ZT_AES_DECRYPT(avx2);
ZT_AES_CTR(avx2);
ZT_GMAC(avx2);
ZT_CTR_GMAC(avx2);
ZT_GMAC_BESIDE(avx2);

ZT_AES_ENCRYPT(vaes);    /* VAES and VPCLMULQDQ on 256 bits */
ZT_AES_DECRYPT(vaes);
ZT_AES_CTR(vaes);
ZT_GMAC(vaes);
ZT_CTR_GMAC(vaes);
ZT_GMAC_BESIDE(vaes);

ZT_SALSA20(avx512);      /* F, VL */
ZT_XOR_BYTES(avx512);
ZT_POLY1305(avx512);     /* F, BW, DQ, VL, IFMA */
ZT_AES_ENCRYPT(avx512);  /* VAES and VPCLMULQDQ on 512 bits */
ZT_AES_DECRYPT(avx512);
ZT_AES_CTR(avx512);
ZT_GMAC(avx512);
ZT_CTR_GMAC(avx512);
ZT_GMAC_BESIDE(avx512);
#endif

#ifdef __aarch64__
ZT_SALSA20(neon);
#endif

/* clang has the intrinsics only where the whole compilation may use them. */
#if defined(__aarch64__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ && defined(__linux__) \
    && (defined(__ARM_FEATURE_AES) || !defined(__clang__))
#define ZT_ARMV8
ZT_AES_ENCRYPT(armv8);   /* AES and PMULL */
ZT_AES_DECRYPT(armv8);
ZT_AES_CTR(armv8);
ZT_GMAC(armv8);
ZT_CTR_GMAC(armv8);
ZT_GMAC_BESIDE(armv8);
#endif

#endif
