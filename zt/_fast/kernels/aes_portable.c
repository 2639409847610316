/* AES-256 in constant time without special instructions: four blocks bit-sliced into eight 64-bit
 * words. Word b holds bit b of every byte; the byte at row r, column c of block k sits at position
 * 16r + 4c + k, so that ShiftRows is a rotation within 16-bit fields and MixColumns works on words
 * rotated by 16. */
#include "aes_key.h"
#include "bytes.h"
#include "kernels.h"
#include "reader.h"

enum { ROUNDS = 14 };

typedef uint64_t slices[8];

/* The S-box of J. Boyar and R. Peralta, "A depth-16 circuit for the AES S-box" (2011), names as
 * there; its input and output bit 0 is the most significant. */
static void sub_bytes(slices q)
{
    const uint64_t x0 = q[7], x1 = q[6], x2 = q[5], x3 = q[4];
    const uint64_t x4 = q[3], x5 = q[2], x6 = q[1], x7 = q[0];

    /* top linear layer */
    const uint64_t y14 = x3 ^ x5, y13 = x0 ^ x6, y9 = x0 ^ x3, y8 = x0 ^ x5, t0 = x1 ^ x2,
        y1 = t0 ^ x7, y4 = y1 ^ x3, y12 = y13 ^ y14, y2 = y1 ^ x0, y5 = y1 ^ x6, y3 = y5 ^ y8,
        t1 = x4 ^ y12, y15 = t1 ^ x5, y20 = t1 ^ x1, y6 = y15 ^ x7, y10 = y15 ^ t0, y11 = y20 ^ y9,
        y7 = x7 ^ y11, y17 = y10 ^ y11, y19 = y10 ^ y8, y16 = t0 ^ y11, y21 = y13 ^ y16,
        y18 = x0 ^ y16;
    /* inversion in GF(2^8) */
    const uint64_t t2 = y12 & y15, t3 = y3 & y6, t4 = t3 ^ t2, t5 = y4 & x7, t6 = t5 ^ t2,
        t7 = y13 & y16, t8 = y5 & y1, t9 = t8 ^ t7, t10 = y2 & y7, t11 = t10 ^ t7, t12 = y9 & y11,
        t13 = y14 & y17, t14 = t13 ^ t12, t15 = y8 & y10, t16 = t15 ^ t12, t17 = t4 ^ t14,
        t18 = t6 ^ t16, t19 = t9 ^ t14, t20 = t11 ^ t16, t21 = t17 ^ y20, t22 = t18 ^ y19,
        t23 = t19 ^ y21, t24 = t20 ^ y18, t25 = t21 ^ t22, t26 = t21 & t23, t27 = t24 ^ t26,
        t28 = t25 & t27, t29 = t28 ^ t22, t30 = t23 ^ t24, t31 = t22 ^ t26, t32 = t31 & t30,
        t33 = t32 ^ t24, t34 = t23 ^ t33, t35 = t27 ^ t33, t36 = t24 & t35, t37 = t36 ^ t34,
        t38 = t27 ^ t36, t39 = t29 & t38, t40 = t25 ^ t39, t41 = t40 ^ t37, t42 = t29 ^ t33,
        t43 = t29 ^ t40, t44 = t33 ^ t37, t45 = t42 ^ t41, z0 = t44 & y15, z1 = t37 & y6,
        z2 = t33 & x7, z3 = t43 & y16, z4 = t40 & y1, z5 = t29 & y7, z6 = t42 & y11,
        z7 = t45 & y17, z8 = t41 & y10, z9 = t44 & y12, z10 = t37 & y3, z11 = t33 & y4,
        z12 = t43 & y13, z13 = t40 & y5, z14 = t29 & y2, z15 = t42 & y9, z16 = t45 & y14,
        z17 = t41 & y8;
    /* bottom linear layer */
    const uint64_t t46 = z15 ^ z16, t47 = z10 ^ z11, t48 = z5 ^ z13, t49 = z9 ^ z10,
        t50 = z2 ^ z12, t51 = z2 ^ z5, t52 = z7 ^ z8, t53 = z0 ^ z3, t54 = z6 ^ z7,
        t55 = z16 ^ z17, t56 = z12 ^ t48, t57 = t50 ^ t53, t58 = z4 ^ t46, t59 = z3 ^ t54,
        t60 = t46 ^ t57, t61 = z14 ^ t57, t62 = t52 ^ t58, t63 = t49 ^ t58, t64 = z4 ^ t59,
        t65 = t61 ^ t62, t66 = z1 ^ t63, t67 = t64 ^ t65, s3 = t53 ^ t66;
    q[7] = t59 ^ t63;
    q[6] = t64 ^ ~s3;
    q[5] = t55 ^ ~t67;
    q[4] = s3;
    q[3] = t51 ^ t66;
    q[2] = t47 ^ t65;
    q[1] = t56 ^ ~t62;
    q[0] = t48 ^ ~t60;
}

/* Inverse of the affine map of the S-box, in place. */
static void inverse_affine(slices q)
{
    slices y;
    for (int b = 0; b < 8; b++)
        y[b] = (0x63 >> b & 1) ? ~q[b] : q[b];
    for (int b = 0; b < 8; b++)
        q[b] = y[(b + 2) & 7] ^ y[(b + 5) & 7] ^ y[(b + 7) & 7];
}

/* S = affine after inversion, so its inverse is: inverse affine, S, inverse affine. */
static void inverse_sub_bytes(slices q)
{
    inverse_affine(q);
    sub_bytes(q);
    inverse_affine(q);
}

/* Rotates the 4-bit column groups of the 16-bit row r: down by r columns, or up. */
static inline uint64_t rotate_row(uint64_t x, int r, int by)
{
    uint64_t row = x >> (16 * r) & 0xffff;
    return ((row >> 4 * by | row << (16 - 4 * by)) & 0xffff) << (16 * r);
}

static void shift_rows(slices q, int direction)
{
    for (int b = 0; b < 8; b++) {
        uint64_t x = q[b];
        q[b] = (x & 0xffff) | rotate_row(x, 1, direction & 3) | rotate_row(x, 2, 2)
               | rotate_row(x, 3, (3 * direction) & 3);
    }
}

/* Each byte times x in GF(2^8): the top slice moves to the bottom and into bits 1, 3, 4. */
static void times_x(slices out, const slices q)
{
    for (int b = 0; b < 8; b++)
        out[b] = q[(b + 7) & 7];
    out[1] ^= q[7];
    out[3] ^= q[7];
    out[4] ^= q[7];
}

/* a[r] = 2 a[r] + 3 a[r+1] + a[r+2] + a[r+3] = 2 (a[r] + a[r+1]) + a[r+1] + (a[r+2] + a[r+3]) */
static void mix_columns(slices q)
{
    slices pair, doubled;
    for (int b = 0; b < 8; b++)
        pair[b] = q[b] ^ rotr64(q[b], 16);
    times_x(doubled, pair);
    for (int b = 0; b < 8; b++)
        q[b] = doubled[b] ^ rotr64(q[b], 16) ^ rotr64(pair[b], 32);
}

/* MixColumns after the map a[r] = 5 a[r] + 4 a[r+2], since as polynomials
 * (14, 11, 13, 9) = (2, 3, 1, 1) x (5, 0, 4, 0). */
static void inverse_mix_columns(slices q)
{
    slices pair, doubled;
    for (int b = 0; b < 8; b++)
        pair[b] = q[b] ^ rotr64(q[b], 32);
    times_x(doubled, pair);
    times_x(pair, doubled);
    for (int b = 0; b < 8; b++)
        q[b] ^= pair[b];
    mix_columns(q);
}

/* Transposes the 8 x 8 bits at each byte position across the eight words; its own inverse. */
static void transpose(slices q)
{
    static const uint64_t MASKS[3] = {0x5555555555555555, 0x3333333333333333, 0x0f0f0f0f0f0f0f0f};
    for (int step = 0; step < 3; step++) {
        const int distance = 1 << step;
        const uint64_t mask = MASKS[step];
        for (int i = 0; i < 8; i++) {
            if (i & distance)
                continue;
            uint64_t a = q[i], b = q[i + distance];
            uint64_t moved = ((a >> distance) ^ b) & mask;
            q[i] = a ^ moved << distance;
            q[i + distance] = b ^ moved;
        }
    }
}

/* Bytes of x to the even bytes of the result, and back. */
static inline uint64_t spread(uint64_t x)
{
    x = (x | x << 16) & 0x0000ffff0000ffff;
    return (x | x << 8) & 0x00ff00ff00ff00ff;
}

static inline uint32_t gather(uint64_t x)
{
    x &= 0x00ff00ff00ff00ff;
    x = (x | x >> 8) & 0x0000ffff0000ffff;
    return (uint32_t)(x | x >> 16);
}

/* Columns 0 and 2 of block k go to word k, columns 1 and 3 to word k + 4. */
static void pack(slices q, const uint8_t blocks[64])
{
    for (int k = 0; k < 4; k++)
        for (int odd = 0; odd < 2; odd++)
            q[k + 4 * odd] = spread(load32_le(blocks + 16 * k + 4 * odd))
                             | spread(load32_le(blocks + 16 * k + 4 * odd + 8)) << 8;
    transpose(q);
}

static void unpack(uint8_t blocks[64], slices q)
{
    transpose(q);
    for (int k = 0; k < 4; k++)
        for (int odd = 0; odd < 2; odd++) {
            store32_le(blocks + 16 * k + 4 * odd, gather(q[k + 4 * odd]));
            store32_le(blocks + 16 * k + 4 * odd + 8, gather(q[k + 4 * odd] >> 8));
        }
}

typedef slices schedule[ROUNDS + 1];

/* Every round key in all four block positions. */
static void slice_keys(schedule keys, const uint8_t *round_keys)
{
    uint8_t blocks[64];
    for (int round = 0; round <= ROUNDS; round++) {
        for (int k = 0; k < 4; k++)
            memcpy(blocks + 16 * k, round_keys + 16 * round, 16);
        pack(keys[round], blocks);
    }
    zt_wipe(blocks, sizeof blocks);
}

static void add_key(slices q, const slices key)
{
    for (int b = 0; b < 8; b++)
        q[b] ^= key[b];
}

static void encrypt4(schedule keys, uint8_t blocks[64])
{
    slices q;
    pack(q, blocks);
    add_key(q, keys[0]);
    for (int round = 1; round < ROUNDS; round++) {
        sub_bytes(q);
        shift_rows(q, 1);
        mix_columns(q);
        add_key(q, keys[round]);
    }
    sub_bytes(q);
    shift_rows(q, 1);
    add_key(q, keys[ROUNDS]);
    unpack(blocks, q);
}

static void decrypt4(schedule keys, uint8_t blocks[64])
{
    slices q;
    pack(q, blocks);
    add_key(q, keys[ROUNDS]);
    for (int round = ROUNDS - 1; round > 0; round--) {
        shift_rows(q, -1);
        inverse_sub_bytes(q);
        add_key(q, keys[round]);
        inverse_mix_columns(q);
    }
    shift_rows(q, -1);
    inverse_sub_bytes(q);
    add_key(q, keys[0]);
    unpack(blocks, q);
}

ZT_AES_ENCRYPT(portable)
{
    schedule keys;
    uint8_t blocks[64] = {0};
    slice_keys(keys, round_keys);
    memcpy(blocks, &in, 16);
    encrypt4(keys, blocks);
    memcpy(&in, blocks, 16);
    zt_wipe(keys, sizeof keys);
    zt_wipe(blocks, sizeof blocks);
    return in;
}

ZT_AES_DECRYPT(portable)
{
    schedule keys;
    uint8_t blocks[64] = {0};
    slice_keys(keys, round_keys);
    memcpy(blocks, &in, 16);
    decrypt4(keys, blocks);
    memcpy(&in, blocks, 16);
    zt_wipe(keys, sizeof keys);
    zt_wipe(blocks, sizeof blocks);
    return in;
}

ZT_AES_CTR(portable)
{
    schedule keys;
    uint8_t stream[64];
    uint32_t next = load32_be((const uint8_t *)&counter + 12);
    slice_keys(keys, key->k1);
    zt_reader r = zt_reader_start(pieces);
    for (size_t take; n > 0; n -= take, dst += take) {
        take = n < 64 ? n : 64;
        for (int k = 0; k < 4; k++) {
            memcpy(stream + 16 * k, &counter, 12);
            store32_be(stream + 16 * k + 12, next++);
        }
        encrypt4(keys, stream);
        xor_bytes(dst, zt_read(&r, take, dst), stream, take);
    }
    zt_wipe(keys, sizeof keys);
    zt_wipe(stream, sizeof stream);
}

static uint32_t sub_word(uint32_t word)
{
    uint8_t blocks[64] = {0};
    slices q;
    store32_le(blocks, word);
    pack(q, blocks);
    sub_bytes(q);
    unpack(blocks, q);
    return load32_le(blocks);
}

void zt_aes256_expand(uint8_t round_keys[ZT_AES256_ROUND_KEYS], const uint8_t key[32])
{
    uint32_t last, constant = 1;
    memcpy(round_keys, key, 32);
    last = load32_le(key + 28);
    for (int i = 8; i < 4 * (ROUNDS + 1); i++) {
        if (i % 8 == 0) {
            last = sub_word(rotl32(last, 24)) ^ constant;
            constant <<= 1;
        } else if (i % 8 == 4) {
            last = sub_word(last);
        }
        last ^= load32_le(round_keys + 4 * (i - 8));
        store32_le(round_keys + 4 * i, last);
    }
}
