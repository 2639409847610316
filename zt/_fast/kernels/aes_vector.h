/* AES-256-CTR and GMAC for vectors of LANES blocks; included once per level.
 *
 * GHASH is POLYVAL on byte-reversed blocks (see ghash_portable.c). The body is taken in groups of
 * 16 blocks, and these in pairs: the 32 blocks of a pair are multiplied by H^32 .. H^1 and their
 * sum is reduced once. In the last pair the powers end with H^2 at its last block, and the lengths
 * times H are added.
 *
 * The including file defines
 *   LANES           2 or 4
 *   vec             LANES blocks as uint64_t
 *   block_load, block_reverse (its bytes), block_round and block_last (of AES encryption with a
 *   round key, as x86 has them), block_unround, block_unlast, block_imc (of decryption),
 *   block_clmul_low and block_clmul_high (of the low and of the high halves)
 *                   on zt_block
 *   load, store, broadcast(zt_block), reverse_blocks, aes_round, aes_last, clmul_low, clmul_high,
 *   low_halves and high_halves of two vecs lane by lane, lane_numbers(): 0 .. LANES - 1 as 32-bit
 *   words that lead each block, fold(vec): the xor of all lanes, lowest(zt_block): others zero
 *                   on vec
 *   load_part(x, p, n), store_part(p, x, n), clear_after(x, n)
 *                   on a group x[VECS], its first n < GROUP bytes only; the first and the last
 *                   make all others zero */

#include "aes_block.h"

enum {
    GROUP = 256,                       /* bytes in 16 blocks */
    STEP = 16 * LANES,                 /* bytes in one vec */
    VECS = GROUP / STEP,               /* vecs in a group */
};

#if LANES < 4
#include "aes_parts.h"
#endif

/* ---- GHASH ---- */

/* Sums of products of low halves, of high halves, and of (low ^ high) halves (Karatsuba). */
typedef struct { vec low, mid, high; } hash_sum;

/* sum += r[0] * h[0] + r[1] * h[1], with h in memory; r is byte-reversed. */
INLINE void hash_two(hash_sum *s, const vec r[2], const uint8_t *h)
{
    const vec h0 = load(h), h1 = load(h + STEP);
    const vec r_mid = low_halves(r[0], r[1]) ^ high_halves(r[0], r[1]);
    const vec h_mid = low_halves(h0, h1) ^ high_halves(h0, h1);
    s->low ^= clmul_low(r[0], h0) ^ clmul_low(r[1], h1);
    s->high ^= clmul_high(r[0], h0) ^ clmul_high(r[1], h1);
    s->mid ^= clmul_low(r_mid, h_mid) ^ clmul_high(r_mid, h_mid);
}

/* The sum of one product. */
INLINE hash_sum hash_block(zt_block r, zt_block h)
{
    return (hash_sum){
        lowest(block_clmul_low(r, h)),
        lowest(block_clmul_low(r ^ swap_halves(r), h ^ swap_halves(h))),
        lowest(block_clmul_high(r, h)),
    };
}

INLINE zt_block hash_reduce(const hash_sum *s)
{
    return reduce(fold(s->low), fold(s->mid ^ s->low ^ s->high), fold(s->high));
}

/* GHASH in progress. */
typedef struct {
    const zt_aes_key *key;  /* borrowed */
    const uint8_t *powers;  /* of its h, for the next group */
    hash_sum sum;           /* of the present pair */
    zt_block y;             /* value after the last pair */
    zt_block mask;          /* what the value is masked with at the end */
    size_t n;               /* bytes of body */
    size_t left;            /* of them not taken yet */
    int groups;             /* left of the present pair */
} ghash;

INLINE void ghash_start(ghash *g, const zt_aes_key *key, zt_block nonce, zt_block aad, size_t n)
{
    g->key = key;
    g->mask = encrypt_block(key->k0, nonce);
    g->sum = hash_block(block_reverse(aad), block_load(power(key, 1)));
    g->y = hash_reduce(&g->sum);
    g->n = n;
    g->left = n;
    g->groups = 0;
}

/* A pair begins; of an odd number of groups the first stays alone. */
INLINE void ghash_pair(ghash *g)
{
    g->groups = (g->left + GROUP - 1) / GROUP % 2 ? 1 : 2;
    g->powers = power(g->key, 16 * (size_t)g->groups);
    g->sum = (hash_sum){0};
    if (g->left <= (size_t)g->groups * GROUP) {
        /* Past H^1, what follows in the key meets only zeros after the body. */
        g->powers = power(g->key, (g->left + 15) / 16 + 1);
        g->sum = hash_block(lengths(g->n), block_load(power(g->key, 1)));
    }
}

/* Takes the next group, zeros after the end of the body: ghash_step must then be done for vecs
 * VECS - 2, .., 2, 0, and ghash_end after them. */
INLINE void ghash_begin(ghash *g, vec r[VECS])
{
    UNROLLED for (int i = 0; i < VECS; i++)
        r[i] = reverse_blocks(r[i]);
    if (g->groups == 0) {
        ghash_pair(g);
        r[0] ^= lowest(g->y);
    }
}

/* What waits for the pair before comes last, with i = 0. */
INLINE void ghash_step(ghash *g, const vec r[VECS], int i)
{
    hash_two(&g->sum, r + i, g->powers + STEP * i);
}

INLINE void ghash_end(ghash *g)
{
    g->left -= g->left < GROUP ? g->left : GROUP;
    g->powers += GROUP;
    if (--g->groups == 0)
        g->y = hash_reduce(&g->sum);
}

/* Whether a pair begins that is whole and not the last. */
INLINE bool ghash_whole_pair(const ghash *g)
{
    return g->groups == 0 && g->left > 2 * GROUP && (g->left + GROUP - 1) / GROUP % 2 == 0;
}

/* Takes such a pair at once: without the bookkeeping above, a sixth faster. */
INLINE void ghash_take_pair(ghash *g, const uint8_t *p)
{
    const uint8_t *h = power(g->key, 32);
    hash_sum sum = {0};
    UNROLLED for (int i = 2 * VECS - 2; i >= 0; i -= 2) {
        vec r[2] = {reverse_blocks(load(p + STEP * i)), reverse_blocks(load(p + STEP * (i + 1)))};
        if (i == 0)
            r[0] ^= lowest(g->y);
        hash_two(&sum, r, h + STEP * i);
    }
    g->y = hash_reduce(&sum);
    g->left -= 2 * GROUP;
}

INLINE zt_block ghash_finish(const ghash *g)
{
    return block_reverse(g->y) ^ g->mask;
}

/* ---- CTR ---- */

typedef uint32_t words __attribute__((vector_size(STEP)));

INLINE vec add_words(vec a, vec b)
{
    return (vec)((words)a + (words)b);
}

typedef struct {
    vec key[ROUNDS + 1];
    vec next;            /* byte-reversed counter blocks, so that the counter is their first word */
} ctr_state;

INLINE void ctr_start(ctr_state *s, const uint8_t *round_keys, zt_block counter)
{
    UNROLLED for (int i = 0; i <= ROUNDS; i++)
        s->key[i] = broadcast(block_load(round_keys + 16 * i));
    s->next = add_words(broadcast(block_reverse(counter)), lane_numbers());
}

/* x ^= the keystream of the next group. With g, also does the steps of GHASH on r, one after every
 * other round, which occupies what waits for AES. */
INLINE void ctr_group(ctr_state *s, vec x[VECS], ghash *g, const vec r[VECS])
{
    const vec step = broadcast((zt_block){LANES, 0});
    vec stream[VECS];
    UNROLLED for (int j = 0; j < VECS; j++) {
        stream[j] = reverse_blocks(s->next) ^ s->key[0];
        s->next = add_words(s->next, step);
    }
    UNROLLED for (int i = 1; i < ROUNDS; i++) {
        UNROLLED for (int j = 0; j < VECS; j++)
            stream[j] = aes_round(stream[j], s->key[i]);
        if (g && i <= VECS && i % 2 == 0)
            ghash_step(g, r, VECS - i);
    }
    UNROLLED for (int j = 0; j < VECS; j++)
        x[j] ^= aes_last(stream[j], s->key[ROUNDS]);
}

/* ---- groups and memory ---- */

INLINE void load_group(vec x[VECS], const uint8_t *p, size_t n)
{
    if (n < GROUP) {
        load_part(x, p, n);
        return;
    }
    UNROLLED for (int i = 0; i < VECS; i++)
        x[i] = load(p + STEP * i);
}

INLINE void store_group(uint8_t *p, const vec x[VECS], size_t n)
{
    if (n < GROUP) {
        store_part(p, x, n);
        return;
    }
    UNROLLED for (int i = 0; i < VECS; i++)
        store(p + STEP * i, x[i]);
}

/* ---- whole messages, from where their readers are ---- */

INLINE void ctr_take(ctr_state *ctr, uint8_t *dst, zt_reader *text, size_t n)
{
    for (size_t take; n > 0; n -= take, dst += take) {
        vec x[VECS];
        take = n < GROUP ? n : GROUP;
        load_group(x, zt_read(text, take, dst), take);
        ctr_group(ctr, x, NULL, NULL);
        store_group(dst, x, take);
    }
}

INLINE void ghash_take(ghash *g, zt_reader *body)
{
    uint8_t buffer[2 * GROUP];
    while (g->left > 0) {
        while (ghash_whole_pair(g))
            ghash_take_pair(g, zt_read(body, 2 * GROUP, buffer));
        vec r[VECS];
        size_t take = g->left < GROUP ? g->left : GROUP;
        load_group(r, zt_read(body, take, buffer), take);
        ghash_begin(g, r);
        UNROLLED for (int i = VECS - 2; i >= 0; i -= 2)
            ghash_step(g, r, i);
        ghash_end(g);
    }
}

/* ---- the level's functions ---- */

#define FUNCTION(declaration, level) declaration(level)

FUNCTION(ZT_AES_ENCRYPT, LEVEL)
{
    return encrypt_block(round_keys, in);
}

FUNCTION(ZT_AES_DECRYPT, LEVEL)
{
    return decrypt_block(round_keys, in);
}

FUNCTION(ZT_AES_CTR, LEVEL)
{
    ctr_state ctr;
    ctr_start(&ctr, key->k1, counter);
    zt_reader text = zt_reader_start(pieces);
    ctr_take(&ctr, dst, &text, n);
}

FUNCTION(ZT_GMAC, LEVEL)
{
    ghash g;
    ghash_start(&g, key, nonce, aad, n);
    zt_reader body = zt_reader_start(pieces);
    ghash_take(&g, &body);
    return ghash_finish(&g);
}

/* GHASH follows CTR one group behind. */
FUNCTION(ZT_CTR_GMAC, LEVEL)
{
    ghash g;
    ctr_state ctr;
    ctr_start(&ctr, key->k1, counter);
    ghash_start(&g, key, nonce, aad, n);
    zt_reader body = zt_reader_start(pieces);
    vec behind[VECS] = {0};
    for (size_t left = n, take; left > 0; left -= take, dst += take) {
        vec x[VECS];
        take = left < GROUP ? left : GROUP;
        load_group(x, zt_read(&body, take, dst), take);
        if (left == n) {
            ctr_group(&ctr, x, NULL, NULL);
        } else {
            ghash_begin(&g, behind);
            ctr_group(&ctr, x, &g, behind);
            ghash_end(&g);
        }
        store_group(dst, x, take);
        if (take < GROUP)
            clear_after(x, take);
        UNROLLED for (int j = 0; j < VECS; j++)
            behind[j] = x[j];
    }
    ghash_begin(&g, behind);
    UNROLLED for (int i = VECS - 2; i >= 0; i -= 2)
        ghash_step(&g, behind, i);
    ghash_end(&g);
    return ghash_finish(&g);
}

FUNCTION(ZT_GMAC_BESIDE, LEVEL)
{
    ghash g;
    ctr_state ctr;
    ctr_start(&ctr, other->key->k1, other->counter);
    ghash_start(&g, key, nonce, aad, n);
    zt_reader body = zt_reader_start(pieces), text = zt_reader_start(other->pieces);
    uint8_t buffer[GROUP], *dst = other->dst;
    size_t left = other->n;
    while (g.left > 0 && left > 0) {
        vec r[VECS], x[VECS];
        size_t mine = g.left < GROUP ? g.left : GROUP, others = left < GROUP ? left : GROUP;
        load_group(r, zt_read(&body, mine, buffer), mine);
        load_group(x, zt_read(&text, others, dst), others);
        ghash_begin(&g, r);
        ctr_group(&ctr, x, &g, r);
        ghash_end(&g);
        store_group(dst, x, others);
        left -= others;
        dst += others;
    }
    ctr_take(&ctr, dst, &text, left);
    ghash_take(&g, &body);
    return ghash_finish(&g);
}
