/* What the kernels of suite 3 share: single blocks, and the products that GHASH sums up. Included
 * by aes_single.h and aes_vector.h, after the level's operations on blocks. */

enum { ROUNDS = 14 };

#define UNROLLED _Pragma("GCC unroll 16")

INLINE zt_block encrypt_block(const uint8_t *round_keys, zt_block x)
{
    x ^= block_load(round_keys);
    for (int i = 1; i < ROUNDS; i++)
        x = block_round(x, block_load(round_keys + 16 * i));
    return block_last(x, block_load(round_keys + 16 * ROUNDS));
}

INLINE zt_block decrypt_block(const uint8_t *round_keys, zt_block x)
{
    x ^= block_load(round_keys + 16 * ROUNDS);
    for (int i = ROUNDS - 1; i > 0; i--)
        x = block_unround(x, block_imc(block_load(round_keys + 16 * i)));
    return block_unlast(x, block_load(round_keys));
}

INLINE zt_block swap_halves(zt_block x)
{
    return ZT_SHUFFLE(zt_block, x, x, 1, 0);
}

/* x^-128 times low + mid * x^64 + high * x^128: twice 64 bits, by multiplication with
 * x^63 + x^62 + x^57. */
INLINE zt_block reduce(zt_block low, zt_block mid, zt_block high)
{
    const zt_block zero = {0, 0}, poly = {0xc200000000000000, 0};
    low ^= ZT_SHUFFLE(zt_block, zero, mid, 0, 2);
    high ^= ZT_SHUFFLE(zt_block, mid, zero, 1, 2);
    low = swap_halves(low) ^ block_clmul_low(low, poly);
    low = swap_halves(low) ^ block_clmul_low(low, poly);
    return low ^ high;
}

INLINE const uint8_t *power(const zt_aes_key *key, size_t exponent)
{
    return (const uint8_t *)key->h + 16 * (ZT_GHASH_POWERS - exponent);
}

/* GMAC's last block for a body of n bytes, reversed: all of it is associated data. */
INLINE zt_block lengths(size_t n)
{
    return (zt_block){0, 8 * (16 + (uint64_t)n)};
}
