/* Poly1305 over LANES blocks at a time, one per 64-bit lane. Each lane runs Horner's rule over
 * every LANES-th block with r^LANES (two groups at a time with r^(2 LANES)); at the end the lanes
 * are multiplied by r^LANES .. r^1 and added.
 *
 * The first group is filled up with absent blocks at its front: zeros there change nothing, and
 * the message then ends with a group.
 *
 * The including file defines
 *   LANES, FACTOR_BITS = log2 LANES, TOP_SHIFT: where the bit above a block is in the top limb
 *   vec             LANES times uint64_t
 *   number          LANES numbers in limbs
 *   factor          a number prepared for multiplication, by make_factor(number)
 *   columns         sums of products, from zero by multiply_add(&columns, number, &factor)
 *   reduce(&columns)                a number of limbs small enough for all of these
 *   add(number, number)             without carries
 *   load_blocks(p, top)             LANES blocks; `top` holds the bit above each
 *   lane_order()                    which block of a group load_blocks puts into each lane
 *   choose(mask, number, number)    the first in the lanes of all ones, else the second
 *   split_r(low, high), one()       r and 1 in every lane
 *   total(number, uint64_t h[3])    the sum of all lanes, below 2^131, as 64-bit words */

enum { GROUP = 16 * LANES };

static inline __attribute__((always_inline)) number multiply(number a, const factor *f)
{
    columns d = {0};
    multiply_add(&d, a, f);
    return reduce(&d);
}

/* Block i of a group needs r^(LANES - i), which is r times r^1, r^2, r^4 for each bit of
 * LANES - 1 - i. r1 and r2: r^LANES and r^(2 LANES) in every lane. */
static inline __attribute__((always_inline)) void powers(number r, number *lanes, number *r1,
                                                         number *r2)
{
    const vec exponent = LANES - 1 - lane_order();
    factor f = make_factor(r);
    number power = r, square = multiply(r, &f), product = r;
    for (int bit = 0; bit < FACTOR_BITS; bit++) {
        f = make_factor(choose(-(exponent >> bit & 1), power, one()));
        product = multiply(product, &f);
        power = square;
        f = make_factor(square);
        square = multiply(square, &f);
    }
    *lanes = product;
    *r1 = power;
    *r2 = square;
}

/* The bit above each of the blocks first .. LANES - 1 - without_last. */
static inline __attribute__((always_inline)) vec top_bits(uint64_t first, bool without_last)
{
    const vec order = lane_order(), bit = (vec){0} + (1ULL << TOP_SHIFT);
    return bit & (vec)(order >= first) & (vec)(order < LANES - (uint64_t)without_last);
}

/* For messages of at least one group. */
static inline __attribute__((always_inline)) void poly1305_vector(
    uint8_t tag[16], const uint8_t key[32], const struct iovec *pieces, size_t n)
{
    number lanes, r1, r2;
    powers(split_r(load64_le(key) & ZT_CLAMP_LOW, load64_le(key + 8) & ZT_CLAMP_HIGH), &lanes, &r1,
           &r2);
    const factor f1 = make_factor(r1), f2 = make_factor(r2), f_lanes = make_factor(lanes);
    const vec top = top_bits(0, false);
    zt_reader reader = zt_reader_start(pieces);
    uint8_t buffer[2 * GROUP];

    size_t present = ((n + 15) / 16 - 1) % LANES + 1, absent = LANES - present;
    memset(buffer, 0, 16 * absent);
    zt_read_across(&reader, 16 * present, buffer + 16 * absent);
    number h = load_blocks(buffer, top_bits(absent, false));

    size_t left = n - 16 * present;
    for (; left >= 2 * GROUP; left -= 2 * GROUP) {
        const uint8_t *p = zt_read(&reader, 2 * GROUP, buffer);
        columns d = {0};
        multiply_add(&d, load_blocks(p, top), &f1);
        multiply_add(&d, h, &f2);
        h = add(reduce(&d), load_blocks(p + GROUP, top));
    }
    if (left >= GROUP) {
        const uint8_t *p = zt_read(&reader, GROUP, buffer);
        h = add(multiply(h, &f1), load_blocks(p, top));
        left -= GROUP;
    }
    if (left) {
        memset(buffer, 0, GROUP);
        zt_read_across(&reader, left, buffer);
        buffer[left] = 1;
        h = add(multiply(h, &f1), load_blocks(buffer, top_bits(0, true)));
    }
    uint64_t sum[3];
    total(multiply(h, &f_lanes), sum);
    zt_poly1305_finish(sum[0], sum[1], sum[2], key + 16, tag);
}
