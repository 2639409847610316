/* Loads, stores and small constant-time helpers shared by the kernels.
 *
 * Every load and store goes through memcpy, so that no kernel demands an alignment of its caller;
 * compilers turn them into single instructions. */
#ifndef ZT_BYTES_H
#define ZT_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define ZT_LE16(x) __builtin_bswap16(x)
#define ZT_LE32(x) __builtin_bswap32(x)
#define ZT_LE64(x) __builtin_bswap64(x)
#define ZT_BE16(x) (x)
#define ZT_BE32(x) (x)
#define ZT_BE64(x) (x)
#else
#define ZT_LE16(x) (x)
#define ZT_LE32(x) (x)
#define ZT_LE64(x) (x)
#define ZT_BE16(x) __builtin_bswap16(x)
#define ZT_BE32(x) __builtin_bswap32(x)
#define ZT_BE64(x) __builtin_bswap64(x)
#endif

static inline uint16_t load16(const void *p) { uint16_t v; memcpy(&v, p, 2); return v; }
static inline uint32_t load32(const void *p) { uint32_t v; memcpy(&v, p, 4); return v; }
static inline uint64_t load64(const void *p) { uint64_t v; memcpy(&v, p, 8); return v; }
static inline void store32(void *p, uint32_t v) { memcpy(p, &v, 4); }
static inline void store64(void *p, uint64_t v) { memcpy(p, &v, 8); }

static inline uint32_t load32_le(const void *p) { return ZT_LE32(load32(p)); }
static inline uint64_t load64_le(const void *p) { return ZT_LE64(load64(p)); }
static inline uint32_t load32_be(const void *p) { return ZT_BE32(load32(p)); }
static inline uint64_t load64_be(const void *p) { return ZT_BE64(load64(p)); }
static inline void store32_le(void *p, uint32_t v) { store32(p, ZT_LE32(v)); }
static inline void store64_le(void *p, uint64_t v) { store64(p, ZT_LE64(v)); }
static inline void store32_be(void *p, uint32_t v) { store32(p, ZT_BE32(v)); }
static inline void store64_be(void *p, uint64_t v) { store64(p, ZT_BE64(v)); }

static inline uint32_t rotl32(uint32_t x, int n) { return (x << n) | (x >> (32 - n)); }
static inline uint64_t rotr64(uint64_t x, int n) { return (x >> n) | (x << (64 - n)); }

/* dst = src ^ mask; dst may be src, or else lies apart from it. */
static inline void xor_bytes(uint8_t *dst, const uint8_t *src, const uint8_t *mask, size_t n)
{
    typedef uint64_t chunk __attribute__((vector_size(64)));   /* whatever the target has for it */
    size_t i = 0;
    for (; i + sizeof(chunk) <= n; i += sizeof(chunk)) {
        chunk a, b;
        memcpy(&a, src + i, sizeof a);
        memcpy(&b, mask + i, sizeof b);
        a ^= b;
        memcpy(dst + i, &a, sizeof a);
    }
    for (; i + 8 <= n; i += 8)
        store64(dst + i, load64(src + i) ^ load64(mask + i));
    for (; i < n; i++)
        dst[i] = src[i] ^ mask[i];
}

/* Zeroes secrets; the barrier keeps the compiler from dropping a store nobody reads. */
static inline void zt_wipe(void *p, size_t n)
{
    memset(p, 0, n);
    __asm__ volatile("" : : "r"(p) : "memory");
}

/* Equality of two 64-bit MACs; time does not depend on where they differ. */
static inline bool equal_64(uint64_t a, uint64_t b)
{
    uint64_t d = a ^ b;
    return ((d | (0 - d)) >> 63) == 0;
}

#endif
