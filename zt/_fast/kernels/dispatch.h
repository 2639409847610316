/* The kernels one CPU level offers, and the choice among levels.
 *
 * A level is a bundle of instruction sets that come together in practice. Every level answers the
 * same table of functions with the same results on the same key material, so that levels can be
 * compared with each other and switched under live keys. All kernels run in time that depends on
 * lengths only, never on keys or data.
 *
 * Messages are given as pieces of any lengths and alignments, of whose concatenation they are the
 * first n bytes; none is read outside its bounds. Where a kernel writes, `dst` is one contiguous
 * stretch; a piece lies apart from it or exactly at its own place in it.
 *
 * The CPU is asked once (including whether the OS saves the wide registers) and the best level is
 * cached atomically. The environment variable ZT_CPU_LEVEL names another; zt_level_set does so at
 * run time, for tests and benchmarks. This state is private to each shared object the kernels are
 * linked into: each extension module resolves its own, and a zt_level_set in one does not reach
 * the others. */
#ifndef ZT_DISPATCH_H
#define ZT_DISPATCH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

enum { ZT_GHASH_POWERS = 33, ZT_AES256_ROUND_KEYS = 15 * 16 };

/* AES-256 schedules and GHASH key powers of suite 3, laid out alike for every level. */
typedef struct zt_aes_key {
    uint64_t h[ZT_GHASH_POWERS][2];       /* H^33 .. H^1, as POLYVAL elements {low, high} */
    uint8_t k0[ZT_AES256_ROUND_KEYS];     /* encryption round keys of K0 (GMAC), plain byte order */
    uint8_t k1[ZT_AES256_ROUND_KEYS];     /* of K1 (CTR and tag encryption) */
} zt_aes_key;

/* A cipher block as the two words it is in memory, so that it goes in one vector register. */
typedef uint64_t zt_block __attribute__((vector_size(16)));

/* A message to be encrypted, as aes_ctr takes it. */
typedef struct zt_ctr_text {
    const zt_aes_key *key;
    zt_block counter;
    uint8_t *dst;
    const struct iovec *pieces;
    size_t n;
} zt_ctr_text;

typedef struct zt_kernels {
    const char *name;

    /* dst = src ^ Salsa20 keystream, the keystream itself if src is NULL; dst is src or apart from
     * it. Starts at a block boundary; the counter in state[8..9] moves past the last block touched,
     * the unused rest of which is dropped. rounds: 12 or 20. */
    void (*salsa20)(uint32_t state[16], int rounds, uint8_t *dst, const uint8_t *src, size_t n);

    /* dst = src ^ mask; dst is src or apart from it. */
    void (*xor_bytes)(uint8_t *dst, const uint8_t *src, const uint8_t *mask, size_t n);

    /* RFC 8439 one-time authenticator. */
    void (*poly1305)(uint8_t tag[16], const uint8_t key[32], const struct iovec *pieces, size_t n);

    /* One AES-256 block under expanded encryption round keys. */
    zt_block (*aes_encrypt)(const uint8_t *round_keys, zt_block in);
    zt_block (*aes_decrypt)(const uint8_t *round_keys, zt_block in);

    /* dst = message ^ AES-256-CTR under K1. The 32-bit big-endian counter in the last 4 bytes of
     * `counter` must not wrap. */
    void (*aes_ctr)(const zt_aes_key *key, zt_block counter, uint8_t *dst,
                    const struct iovec *pieces, size_t n);

    /* GMAC under K0 of aad followed by the message (one byte or more). nonce: the 96-bit IV and the
     * 32-bit big-endian number 1. */
    zt_block (*gmac)(const zt_aes_key *key, zt_block nonce, zt_block aad,
                     const struct iovec *pieces, size_t n);

    /* aes_ctr, then gmac of what it wrote, in one pass. */
    zt_block (*ctr_gmac)(const zt_aes_key *key, zt_block counter, uint8_t *dst,
                         const struct iovec *pieces, size_t n, zt_block nonce, zt_block aad);

    /* gmac, and meanwhile aes_ctr of another message; neither writes what the other reads. */
    zt_block (*gmac_beside)(const zt_aes_key *key, zt_block nonce, zt_block aad,
                            const struct iovec *pieces, size_t n, const zt_ctr_text *other);

    /* Sum of n bytes taken as native-order 16-bit words, an odd last byte padded with zero;
     * congruent mod 0xffff, not folded. */
    uint64_t (*checksum)(const uint8_t *src, size_t n);
    /* The same while copying; dst lies apart from src. */
    uint64_t (*copy_checksum)(uint8_t *dst, const uint8_t *src, size_t n);
} zt_kernels;

extern _Atomic(const zt_kernels *) zt_kernels_chosen;
const zt_kernels *zt_kernels_resolve(void);

/* The kernels in use. Take it once per operation or batch. */
static inline const zt_kernels *zt_kernels_get(void)
{
    const zt_kernels *k = atomic_load_explicit(&zt_kernels_chosen, memory_order_acquire);
    return k ? k : zt_kernels_resolve();
}

/* Name of the i-th level this CPU has, weakest ("portable") first; NULL past the last. */
const char *zt_level_name(int i);
/* Uses the named level from now on; false if unknown or not on this CPU. */
bool zt_level_set(const char *name);

#endif
