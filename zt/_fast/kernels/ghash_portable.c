/* GHASH in constant time without carry-less multiplication instructions.
 *
 * GHASH is computed as POLYVAL (RFC 8452, appendix A): on byte-reversed blocks, with a key that is
 * the byte-reversed H times x. Elements are then plain little-endian 128-bit numbers, and the
 * reduction is a Montgomery one without any bit shift of the product. */
#include "aes_key.h"
#include "bytes.h"
#include "kernels.h"
#include "reader.h"

typedef struct { uint64_t low, high; } element;

/* Low 64 bits of the carry-less product. Integer multiplication of operands with three-bit holes
 * cannot carry from one used bit into the next: 16 terms at most, 4 bits apart. */
static uint64_t multiply_low(uint64_t x, uint64_t y)
{
    const uint64_t m = 0x1111111111111111;
    uint64_t x0 = x & m, x1 = x & m << 1, x2 = x & m << 2, x3 = x & m << 3;
    uint64_t y0 = y & m, y1 = y & m << 1, y2 = y & m << 2, y3 = y & m << 3;
    uint64_t z0 = (x0 * y0) ^ (x1 * y3) ^ (x2 * y2) ^ (x3 * y1);
    uint64_t z1 = (x0 * y1) ^ (x1 * y0) ^ (x2 * y3) ^ (x3 * y2);
    uint64_t z2 = (x0 * y2) ^ (x1 * y1) ^ (x2 * y0) ^ (x3 * y3);
    uint64_t z3 = (x0 * y3) ^ (x1 * y2) ^ (x2 * y1) ^ (x3 * y0);
    return (z0 & m) | (z1 & m << 1) | (z2 & m << 2) | (z3 & m << 3);
}

static uint64_t reverse_bits(uint64_t x)
{
    x = (x & 0x5555555555555555) << 1 | (x >> 1 & 0x5555555555555555);
    x = (x & 0x3333333333333333) << 2 | (x >> 2 & 0x3333333333333333);
    x = (x & 0x0f0f0f0f0f0f0f0f) << 4 | (x >> 4 & 0x0f0f0f0f0f0f0f0f);
    return __builtin_bswap64(x);
}

/* The 128-bit carry-less product; its high half is the low half of the reversed product. */
static element multiply_64(uint64_t x, uint64_t y)
{
    return (element){
        multiply_low(x, y),
        reverse_bits(multiply_low(reverse_bits(x), reverse_bits(y))) >> 1,
    };
}

/* a * b * x^-128 mod x^128 + x^127 + x^126 + x^121 + 1 */
static element dot(element a, element b)
{
    element low = multiply_64(a.low, b.low), high = multiply_64(a.high, b.high);
    element mid = multiply_64(a.low ^ a.high, b.low ^ b.high);
    mid.low ^= low.low ^ high.low;
    mid.high ^= low.high ^ high.high;
    uint64_t z0 = low.low, z1 = low.high ^ mid.low, z2 = high.low ^ mid.high, z3 = high.high;
    z1 ^= z0 << 63 ^ z0 << 62 ^ z0 << 57;
    z2 ^= z0 ^ z0 >> 1 ^ z0 >> 2 ^ z0 >> 7;
    z2 ^= z1 << 63 ^ z1 << 62 ^ z1 << 57;
    z3 ^= z1 ^ z1 >> 1 ^ z1 >> 2 ^ z1 >> 7;
    return (element){z2, z3};
}

static element absorb(element y, element h, const uint8_t block[16])
{
    y.low ^= load64_be(block + 8);
    y.high ^= load64_be(block);
    return dot(y, h);
}

void zt_aes_key_init(zt_aes_key *key, const uint8_t k0[32], const uint8_t k1[32])
{
    zt_aes256_expand(key->k0, k0);
    zt_aes256_expand(key->k1, k1);
    zt_block start = zt_aes_encrypt_portable(key->k0, (zt_block){0, 0});

    element h = {ZT_BE64(start[1]), ZT_BE64(start[0])};
    uint64_t carry = 0 - (h.high >> 63);
    h.high = (h.high << 1 | h.low >> 63) ^ (carry & 0xc200000000000000);
    h.low = h.low << 1 ^ (carry & 1);
    element power = h;
    for (int i = ZT_GHASH_POWERS - 1; i >= 0; i--) {
        key->h[i][0] = power.low;
        key->h[i][1] = power.high;
        power = dot(power, h);
    }
    zt_wipe(&start, sizeof start);
}

ZT_GMAC(portable)
{
    const uint64_t *h1 = key->h[ZT_GHASH_POWERS - 1];
    const element h = {h1[0], h1[1]};
    uint8_t block[16];
    size_t left = n;
    zt_reader r = zt_reader_start(pieces);
    element y = absorb((element){0, 0}, h, (const uint8_t *)&aad);
    for (; left >= 16; left -= 16)
        y = absorb(y, h, zt_read(&r, 16, block));
    if (left) {
        memset(block, 0, sizeof block);
        zt_read_across(&r, left, block);
        y = absorb(y, h, block);
    }
    store64_be(block, (16 + (uint64_t)n) * 8);
    store64_be(block + 8, 0);
    y = absorb(y, h, block);

    zt_block mask = zt_aes_encrypt_portable(key->k0, nonce);
    return mask ^ (zt_block){ZT_BE64(y.high), ZT_BE64(y.low)};
}

ZT_CTR_GMAC(portable)
{
    struct iovec written = {dst, n};
    zt_aes_ctr_portable(key, counter, dst, pieces, n);
    return zt_gmac_portable(key, nonce, aad, &written, n);
}

ZT_GMAC_BESIDE(portable)
{
    zt_aes_ctr_portable(other->key, other->counter, other->dst, other->pieces, other->n);
    return zt_gmac_portable(key, nonce, aad, pieces, n);
}
