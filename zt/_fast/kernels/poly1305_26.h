/* Numbers of five 26-bit limbs for poly1305_vector.h, where the widest product is 32 x 32 bits.
 *
 * The including file defines LANES, vec, number, factor, columns, MASK26 and product(a, b), the
 * products of the low 32 bits of each lane. */

INLINE number one(void)
{
    return (number){(vec){0} + 1, (vec){0}, (vec){0}, (vec){0}, (vec){0}};
}

/* 128-bit values in two words, and what stands above them. */
INLINE number split(vec low, vec high, vec top)
{
    return (number){
        low & MASK26, low >> 26 & MASK26, (low >> 52 | high << 12) & MASK26, high >> 14 & MASK26,
        high >> 40 | top,
    };
}

INLINE number split_r(uint64_t low, uint64_t high)
{
    return split((vec){0} + low, (vec){0} + high, (vec){0});
}

INLINE number choose(vec mask, number a, number b)
{
    return (number){
        (a.l0 & mask) | (b.l0 & ~mask), (a.l1 & mask) | (b.l1 & ~mask),
        (a.l2 & mask) | (b.l2 & ~mask), (a.l3 & mask) | (b.l3 & ~mask),
        (a.l4 & mask) | (b.l4 & ~mask),
    };
}

INLINE number add(number a, number b)
{
    return (number){a.l0 + b.l0, a.l1 + b.l1, a.l2 + b.l2, a.l3 + b.l3, a.l4 + b.l4};
}

INLINE factor make_factor(number n)
{
    return (factor){
        n.l0, n.l1, n.l2, n.l3, n.l4,
        n.l1 + (n.l1 << 2), n.l2 + (n.l2 << 2), n.l3 + (n.l3 << 2), n.l4 + (n.l4 << 2),
    };
}

INLINE void multiply_add(columns *d, number h, const factor *f)
{
    d->d0 += product(h.l0, f->r0);
    d->d1 += product(h.l0, f->r1);
    d->d2 += product(h.l0, f->r2);
    d->d3 += product(h.l0, f->r3);
    d->d4 += product(h.l0, f->r4);
    d->d0 += product(h.l1, f->s4);
    d->d1 += product(h.l1, f->r0);
    d->d2 += product(h.l1, f->r1);
    d->d3 += product(h.l1, f->r2);
    d->d4 += product(h.l1, f->r3);
    d->d0 += product(h.l2, f->s3);
    d->d1 += product(h.l2, f->s4);
    d->d2 += product(h.l2, f->r0);
    d->d3 += product(h.l2, f->r1);
    d->d4 += product(h.l2, f->r2);
    d->d0 += product(h.l3, f->s2);
    d->d1 += product(h.l3, f->s3);
    d->d2 += product(h.l3, f->s4);
    d->d3 += product(h.l3, f->r0);
    d->d4 += product(h.l3, f->r1);
    d->d0 += product(h.l4, f->s1);
    d->d1 += product(h.l4, f->s2);
    d->d2 += product(h.l4, f->s3);
    d->d3 += product(h.l4, f->s4);
    d->d4 += product(h.l4, f->r0);
}

/* Two carry chains side by side. Limbs end below 2^26 + 2^17, so that sums with a block, times a
 * factor times 5, ten such terms, fit 64 bits. */
INLINE number reduce(const columns *d)
{
    number h = {d->d0, d->d1, d->d2, d->d3, d->d4};
    h.l1 += h.l0 >> 26;
    h.l4 += h.l3 >> 26;
    h.l0 &= MASK26;
    h.l3 &= MASK26;
    h.l2 += h.l1 >> 26;
    vec wrap = h.l4 >> 26;
    h.l1 &= MASK26;
    h.l4 &= MASK26;
    h.l0 += wrap + (wrap << 2);
    h.l3 += h.l2 >> 26;
    h.l2 &= MASK26;
    h.l1 += h.l0 >> 26;
    h.l0 &= MASK26;
    h.l4 += h.l3 >> 26;
    h.l3 &= MASK26;
    return h;
}

INLINE void total(number n, uint64_t h[3])
{
    uint64_t l0 = 0, l1 = 0, l2 = 0, l3 = 0, l4 = 0;
    for (int i = 0; i < LANES; i++) {
        l0 += n.l0[i];
        l1 += n.l1[i];
        l2 += n.l2[i];
        l3 += n.l3[i];
        l4 += n.l4[i];
    }
    for (int pass = 0; pass < 2; pass++) {
        l1 += l0 >> 26;
        l0 &= MASK26;
        l2 += l1 >> 26;
        l1 &= MASK26;
        l3 += l2 >> 26;
        l2 &= MASK26;
        l4 += l3 >> 26;
        l3 &= MASK26;
        l0 += (l4 >> 26) * 5;
        l4 &= MASK26;
    }
    l1 += l0 >> 26;
    l2 += l1 >> 26;
    l3 += l2 >> 26;
    l4 += l3 >> 26;
    l0 &= MASK26;
    l1 &= MASK26;
    l2 &= MASK26;
    l3 &= MASK26;
    h[0] = l0 | l1 << 26 | l2 << 52;
    h[1] = l2 >> 12 | l3 << 14 | l4 << 40;
    h[2] = l4 >> 24;
}
