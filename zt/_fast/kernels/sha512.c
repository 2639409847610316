#include "sha512.h"

#include "bytes.h"

/* Fractional parts of the cube roots of the first 80 primes, 64 bits each. */
static const uint64_t K[80] = {
    0x428a2f98d728ae22, 0x7137449123ef65cd, 0xb5c0fbcfec4d3b2f, 0xe9b5dba58189dbbc,
    0x3956c25bf348b538, 0x59f111f1b605d019, 0x923f82a4af194f9b, 0xab1c5ed5da6d8118,
    0xd807aa98a3030242, 0x12835b0145706fbe, 0x243185be4ee4b28c, 0x550c7dc3d5ffb4e2,
    0x72be5d74f27b896f, 0x80deb1fe3b1696b1, 0x9bdc06a725c71235, 0xc19bf174cf692694,
    0xe49b69c19ef14ad2, 0xefbe4786384f25e3, 0x0fc19dc68b8cd5b5, 0x240ca1cc77ac9c65,
    0x2de92c6f592b0275, 0x4a7484aa6ea6e483, 0x5cb0a9dcbd41fbd4, 0x76f988da831153b5,
    0x983e5152ee66dfab, 0xa831c66d2db43210, 0xb00327c898fb213f, 0xbf597fc7beef0ee4,
    0xc6e00bf33da88fc2, 0xd5a79147930aa725, 0x06ca6351e003826f, 0x142929670a0e6e70,
    0x27b70a8546d22ffc, 0x2e1b21385c26c926, 0x4d2c6dfc5ac42aed, 0x53380d139d95b3df,
    0x650a73548baf63de, 0x766a0abb3c77b2a8, 0x81c2c92e47edaee6, 0x92722c851482353b,
    0xa2bfe8a14cf10364, 0xa81a664bbc423001, 0xc24b8b70d0f89791, 0xc76c51a30654be30,
    0xd192e819d6ef5218, 0xd69906245565a910, 0xf40e35855771202a, 0x106aa07032bbd1b8,
    0x19a4c116b8d2d0c8, 0x1e376c085141ab53, 0x2748774cdf8eeb99, 0x34b0bcb5e19b48a8,
    0x391c0cb3c5c95a63, 0x4ed8aa4ae3418acb, 0x5b9cca4f7763e373, 0x682e6ff3d6b2b8a3,
    0x748f82ee5defb2fc, 0x78a5636f43172f60, 0x84c87814a1f0ab72, 0x8cc702081a6439ec,
    0x90befffa23631e28, 0xa4506cebde82bde9, 0xbef9a3f7b2c67915, 0xc67178f2e372532b,
    0xca273eceea26619c, 0xd186b8c721c0c207, 0xeada7dd6cde0eb1e, 0xf57d4f7fee6ed178,
    0x06f067aa72176fba, 0x0a637dc5a2c898a6, 0x113f9804bef90dae, 0x1b710b35131c471b,
    0x28db77f523047d84, 0x32caab7b40c72493, 0x3c9ebe0a15c9bebc, 0x431d67c49c100d4c,
    0x4cc5d4becb3e42b6, 0x597f299cfc657e2a, 0x5fcb6fab3ad6faec, 0x6c44198c4a475817,
};

/* Of the square roots of the first 8 primes, and of the 9th to 16th. */
static const uint64_t START_512[8] = {
    0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
    0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179,
};
static const uint64_t START_384[8] = {
    0xcbbb9d5dc1059ed8, 0x629a292a367cd507, 0x9159015a3070dd17, 0x152fecd8f70e5939,
    0x67332667ffc00b31, 0x8eb44a8768581511, 0xdb0c2e0d64f98fa7, 0x47b5481dbefa4fa4,
};

typedef struct {
    uint64_t h[8];
    uint8_t block[128];
    size_t length;   /* bytes so far */
} sha512;

static void compress(uint64_t h[8], const uint8_t block[128])
{
    uint64_t w[80], s[8];
    for (int i = 0; i < 16; i++)
        w[i] = load64_be(block + 8 * i);
    for (int i = 16; i < 80; i++) {
        uint64_t x = w[i - 15], y = w[i - 2];
        w[i] = w[i - 16] + w[i - 7] + (rotr64(x, 1) ^ rotr64(x, 8) ^ x >> 7)
               + (rotr64(y, 19) ^ rotr64(y, 61) ^ y >> 6);
    }
    memcpy(s, h, sizeof s);
    for (int i = 0; i < 80; i++) {
        uint64_t a = s[0], b = s[1], c = s[2], e = s[4];
        uint64_t t1 = s[7] + (rotr64(e, 14) ^ rotr64(e, 18) ^ rotr64(e, 41))
                      + ((e & s[5]) ^ (~e & s[6])) + K[i] + w[i];
        uint64_t t2 = (rotr64(a, 28) ^ rotr64(a, 34) ^ rotr64(a, 39))
                      + ((a & b) ^ (a & c) ^ (b & c));
        memmove(s + 1, s, 7 * sizeof s[0]);
        s[4] += t1;
        s[0] = t1 + t2;
    }
    for (int i = 0; i < 8; i++)
        h[i] += s[i];
    zt_wipe(w, sizeof w);
    zt_wipe(s, sizeof s);
}

static void begin(sha512 *c, const uint64_t start[8])
{
    memcpy(c->h, start, sizeof c->h);
    c->length = 0;
}

static void update(sha512 *c, const uint8_t *data, size_t n)
{
    while (n) {
        size_t used = c->length % 128, take = n < 128 - used ? n : 128 - used;
        memcpy(c->block + used, data, take);
        c->length += take;
        data += take;
        n -= take;
        if (used + take == 128)
            compress(c->h, c->block);
    }
}

/* Pads, writes all eight words and wipes the context. */
static void end(sha512 *c, uint8_t digest[64])
{
    uint64_t bits = (uint64_t)c->length * 8;
    size_t used = c->length % 128;
    memset(c->block + used, 0, 128 - used);
    c->block[used] = 0x80;
    if (used >= 112) {
        compress(c->h, c->block);
        memset(c->block, 0, 128);
    }
    store64_be(c->block + 120, bits);
    compress(c->h, c->block);
    for (int i = 0; i < 8; i++)
        store64_be(digest + 8 * i, c->h[i]);
    zt_wipe(c, sizeof *c);
}

void zt_sha512(uint8_t digest[64], const uint8_t *data, size_t n)
{
    sha512 c;
    begin(&c, START_512);
    update(&c, data, n);
    end(&c, digest);
}

void zt_kbkdf(uint8_t out[48], const uint8_t key48[48], uint8_t label, uint8_t context,
              uint32_t iteration)
{
    uint8_t message[13] = {0, 0, 0, 0, 'Z', 'T', label, 0, context, 0, 0, 0x01, 0x80};
    uint8_t pad[128], digest[64];
    sha512 c;
    store32_be(message, iteration);

    memset(pad, 0x36, sizeof pad);
    xor_bytes(pad, pad, key48, 48);
    begin(&c, START_384);
    update(&c, pad, sizeof pad);
    update(&c, message, sizeof message);
    end(&c, digest);

    memset(pad, 0x5c, sizeof pad);
    xor_bytes(pad, pad, key48, 48);
    begin(&c, START_384);
    update(&c, pad, sizeof pad);
    update(&c, digest, 48);
    end(&c, digest);
    memcpy(out, digest, 48);
    zt_wipe(pad, sizeof pad);
    zt_wipe(digest, sizeof digest);
}
