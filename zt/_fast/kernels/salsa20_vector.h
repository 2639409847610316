/* Salsa20 on vectors of LANES 32-bit words, one block per lane; included once per width.
 *
 * The including file defines LANES (4, 8 or 16) and NAME(x), which makes a name of that width.
 * NAME(blocks)(state, rounds, dst, src, n) does the work of up to LANES blocks and leaves the
 * counter alone. */

typedef uint32_t NAME(vec) __attribute__((vector_size(4 * LANES)));
typedef uint64_t NAME(pairs) __attribute__((vector_size(4 * LANES)));

#if LANES == 4
#define IOTA 0, 1, 2, 3
#define LOW_WORDS 0, 4, 1, 5
#define HIGH_WORDS 2, 6, 3, 7
#define LOW_PAIRS 0, 2
#define HIGH_PAIRS 1, 3
#elif LANES == 8
#define IOTA 0, 1, 2, 3, 4, 5, 6, 7
#define LOW_WORDS 0, 8, 1, 9, 4, 12, 5, 13
#define HIGH_WORDS 2, 10, 3, 11, 6, 14, 7, 15
#define LOW_PAIRS 0, 4, 2, 6
#define HIGH_PAIRS 1, 5, 3, 7
#define LOW_HALVES 0, 1, 2, 3, 8, 9, 10, 11
#define HIGH_HALVES 4, 5, 6, 7, 12, 13, 14, 15
#else
#define IOTA 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
#define LOW_WORDS 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29
#define HIGH_WORDS 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31
#define LOW_PAIRS 0, 8, 2, 10, 4, 12, 6, 14
#define HIGH_PAIRS 1, 9, 3, 11, 5, 13, 7, 15
#define EVEN_QUARTERS 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27
#define ODD_QUARTERS 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31
#endif

#define SHUFFLED(a, b, ...) ZT_SHUFFLE(NAME(vec), a, b, __VA_ARGS__)
#define PAIRED(a, b, ...) \
    (NAME(vec)) ZT_SHUFFLE(NAME(pairs), (NAME(pairs))(a), (NAME(pairs))(b), __VA_ARGS__)
#define ROTATED(v, n) ((v) << (n) | (v) >> (32 - (n)))
#define QUARTER(a, b, c, d)                                 \
    do {                                                    \
        NAME(vec) sum = x[a] + x[d];                        \
        x[b] ^= ROTATED(sum, 7);                            \
        sum = x[b] + x[a];                                  \
        x[c] ^= ROTATED(sum, 9);                            \
        sum = x[c] + x[b];                                  \
        x[d] ^= ROTATED(sum, 13);                           \
        sum = x[d] + x[c];                                  \
        x[a] ^= ROTATED(sum, 18);                           \
    } while (0)

/* Word w of every block, in x[w], becomes the keystream in order, in x[0..15]. */
static inline __attribute__((always_inline)) void NAME(transpose)(NAME(vec) x[16])
{
    NAME(vec) r[16];   /* r[4k + i]: in each 128-bit part L, words 4k .. 4k + 3 of block 4L + i */
#pragma GCC unroll 4
    for (int k = 0; k < 16; k += 4) {
        NAME(vec) ab = SHUFFLED(x[k], x[k + 1], LOW_WORDS);
        NAME(vec) cd = SHUFFLED(x[k + 2], x[k + 3], LOW_WORDS);
        r[k] = PAIRED(ab, cd, LOW_PAIRS);
        r[k + 1] = PAIRED(ab, cd, HIGH_PAIRS);
        ab = SHUFFLED(x[k], x[k + 1], HIGH_WORDS);
        cd = SHUFFLED(x[k + 2], x[k + 3], HIGH_WORDS);
        r[k + 2] = PAIRED(ab, cd, LOW_PAIRS);
        r[k + 3] = PAIRED(ab, cd, HIGH_PAIRS);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
#if LANES == 4
        for (int k = 0; k < 4; k++)
            x[4 * i + k] = r[4 * k + i];
#elif LANES == 8
        x[2 * i] = SHUFFLED(r[i], r[4 + i], LOW_HALVES);
        x[2 * i + 1] = SHUFFLED(r[8 + i], r[12 + i], LOW_HALVES);
        x[2 * i + 8] = SHUFFLED(r[i], r[4 + i], HIGH_HALVES);
        x[2 * i + 9] = SHUFFLED(r[8 + i], r[12 + i], HIGH_HALVES);
#else
        NAME(vec) even01 = SHUFFLED(r[i], r[4 + i], EVEN_QUARTERS);
        NAME(vec) odd01 = SHUFFLED(r[i], r[4 + i], ODD_QUARTERS);
        NAME(vec) even23 = SHUFFLED(r[8 + i], r[12 + i], EVEN_QUARTERS);
        NAME(vec) odd23 = SHUFFLED(r[8 + i], r[12 + i], ODD_QUARTERS);
        x[i] = SHUFFLED(even01, even23, EVEN_QUARTERS);
        x[4 + i] = SHUFFLED(odd01, odd23, EVEN_QUARTERS);
        x[8 + i] = SHUFFLED(even01, even23, ODD_QUARTERS);
        x[12 + i] = SHUFFLED(odd01, odd23, ODD_QUARTERS);
#endif
    }
}

static void NAME(blocks)(const uint32_t state[16], int rounds, uint8_t *dst, const uint8_t *src,
                         size_t n)
{
    const NAME(vec) counter_low = (NAME(vec)){IOTA} + state[8];
    const NAME(vec) carry = (NAME(vec))(counter_low < state[8]);   /* -1 where true */
    const NAME(vec) counter_high = (NAME(vec)){0} + state[9] - carry;
    NAME(vec) x[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++)
        x[i] = (NAME(vec)){0} + state[i];
    x[8] = counter_low;
    x[9] = counter_high;

    for (int i = 0; i < rounds; i += 2) {
        QUARTER(0, 4, 8, 12);
        QUARTER(5, 9, 13, 1);
        QUARTER(10, 14, 2, 6);
        QUARTER(15, 3, 7, 11);
        QUARTER(0, 1, 2, 3);
        QUARTER(5, 6, 7, 4);
        QUARTER(10, 11, 8, 9);
        QUARTER(15, 12, 13, 14);
    }
    /* Taken from memory again: there are not registers for both. */
    __asm__("" : : : "memory");
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++)
        x[i] += i == 8 ? counter_low : i == 9 ? counter_high : (NAME(vec)){0} + state[i];
    NAME(transpose)(x);

    if (n < 64 * LANES) {
        NAME(vec) stream[16];
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++)
            stream[i] = x[i];
        if (src)
            xor_bytes(dst, src, (const uint8_t *)stream, n);
        else
            memcpy(dst, stream, n);
        zt_wipe(stream, sizeof stream);
        return;
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) {
        if (src) {
            NAME(vec) text;
            memcpy(&text, src + sizeof text * i, sizeof text);
            x[i] ^= text;
        }
        memcpy(dst + sizeof x[i] * i, &x[i], sizeof x[i]);
    }
}

#undef IOTA
#undef LOW_WORDS
#undef HIGH_WORDS
#undef LOW_PAIRS
#undef HIGH_PAIRS
#undef LOW_HALVES
#undef HIGH_HALVES
#undef EVEN_QUARTERS
#undef ODD_QUARTERS
#undef SHUFFLED
#undef PAIRED
#undef ROTATED
#undef QUARTER
