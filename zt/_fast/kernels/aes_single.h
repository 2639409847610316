/* AES-256-CTR and GMAC for processors that take one block per instruction; included once per level.
 *
 * AES occupies one unit of such a processor for at least 14 cycles a block; the multiplications of
 * GHASH (POLYVAL on byte-reversed blocks, see ghash_portable.c) use another. So batches of the two
 * go in lockstep: of one message when it is opened, one batch behind; of two messages when they
 * are sealed, for the tag of each has to be there before its encryption begins.
 *
 * The including file defines, on zt_block:
 *   block_load, block_store, block_reverse (its bytes), block_round and block_last (of AES
 *   encryption with a round key, as x86 has them), block_unround, block_unlast, block_imc (of
 *   decryption), block_clmul_low, block_clmul_high and block_clmul_mid (of the low halves, of the
 *   high ones, and the sum of the mixed products)
 *   block_keep(x): x has its value here. Without it compilers first gather the products of a whole
 *   batch and then add them up, for which there are not enough registers. */

#include "aes_block.h"

enum {
    WIDE = 8,                  /* blocks in a batch */
    BATCH = 16 * WIDE,         /* bytes */
    NARROW = 4,                /* blocks that take no longer than one */
    FIRST_STEP = 3,            /* the AES round after which GHASH begins: the best of 1 to 5 */
};

/* ---- GHASH ---- */

/* Sums of products of low halves, mixed ones, and of high halves. */
typedef struct { zt_block low, mid, high; } hash_sum;

/* sum += r * h */
INLINE void hash_add(hash_sum *s, zt_block r, zt_block h)
{
    s->low ^= block_clmul_low(r, h);
    s->mid ^= block_clmul_mid(r, h);
    s->high ^= block_clmul_high(r, h);
    block_keep(s->low);
    block_keep(s->mid);
    block_keep(s->high);
}

INLINE zt_block hash_reduce(const hash_sum *s)
{
    return reduce(s->low, s->mid, s->high);
}

/* GHASH in progress. */
typedef struct {
    const zt_aes_key *key;     /* borrowed */
    zt_block y;                /* the value so far */
    zt_block mask;             /* what it is masked with at the end */
} ghash;

INLINE ghash ghash_start(const zt_aes_key *key, zt_block nonce, zt_block aad)
{
    hash_sum s = {0};
    hash_add(&s, block_reverse(aad), block_load(power(key, 1)));
    return (ghash){key, hash_reduce(&s), encrypt_block(key->k0, nonce)};
}

/* Adds block i of those that are multiplied by the powers from `first` down. What waits for the
 * value before is added last, with i = 0. */
INLINE void ghash_step(const ghash *g, hash_sum *s, const uint8_t *text, int i, int first)
{
    zt_block r = block_reverse(block_load(text + 16 * i));
    hash_add(s, i ? r : r ^ g->y, block_load(power(g->key, (size_t)(first - i))));
}

INLINE void ghash_batch(ghash *g, const uint8_t *text)
{
    hash_sum s = {0};
    UNROLLED for (int i = WIDE - 1; i >= 0; i--)
        ghash_step(g, &s, text, i, WIDE);
    g->y = hash_reduce(&s);
}

/* The last n < BATCH bytes of a body of `total`, and the tag. */
INLINE zt_block ghash_finish(ghash *g, const uint8_t *text, size_t n, size_t total)
{
    const int whole = (int)(n / 16), rest = (int)(n % 16), first = whole + (rest > 0) + 1;
    zt_block end = lengths(total);
    hash_sum s = {0};
    if (first == 1)
        end ^= g->y;
    hash_add(&s, end, block_load(power(g->key, 1)));
    if (rest) {
        uint8_t padded[16] = {0};
        memcpy(padded, text + 16 * whole, (size_t)rest);
        zt_block r = block_reverse(block_load(padded));
        hash_add(&s, whole ? r : r ^ g->y, block_load(power(g->key, 2)));
    }
    for (int i = whole - 1; i >= 0; i--)
        ghash_step(g, &s, text, i, first);
    return block_reverse(hash_reduce(&s)) ^ g->mask;
}

/* ---- CTR ---- */

typedef uint32_t words __attribute__((vector_size(16)));

typedef struct {
    const uint8_t *keys;       /* borrowed */
    zt_block next;             /* byte-reversed, so that the counter is the first word */
} ctr_state;

INLINE ctr_state ctr_start(const uint8_t *round_keys, zt_block counter)
{
    return (ctr_state){round_keys, block_reverse(counter)};
}

/* dst = src ^ keystream, `blocks` of both. With g, one batch of GHASH meanwhile. */
INLINE void ctr_blocks(ctr_state *c, uint8_t *dst, const uint8_t *src, const int blocks, ghash *g,
                       const uint8_t *text)
{
    zt_block x[WIDE], key = block_load(c->keys);
    hash_sum s = {0};
    UNROLLED for (int j = 0; j < blocks; j++) {
        x[j] = block_reverse(c->next) ^ key;
        c->next = (zt_block)((words)c->next + (words){1});
    }
    UNROLLED for (int i = 1; i < ROUNDS; i++) {
        key = block_load(c->keys + 16 * i);
        UNROLLED for (int j = 0; j < blocks; j++)
            x[j] = block_round(x[j], key);
        if (g && i >= FIRST_STEP && i < FIRST_STEP + WIDE)
            ghash_step(g, &s, text, WIDE - 1 - (i - FIRST_STEP), WIDE);
    }
    key = block_load(c->keys + 16 * ROUNDS);
    UNROLLED for (int j = 0; j < blocks; j++)
        block_store(dst + 16 * j, block_last(x[j], key) ^ block_load(src + 16 * j));
    if (g)
        g->y = hash_reduce(&s);
}

/* The last n < BATCH bytes; with g, one batch of GHASH meanwhile. */
INLINE void ctr_finish(ctr_state *c, uint8_t *dst, const uint8_t *src, size_t n, ghash *g,
                       const uint8_t *text)
{
    uint8_t part[BATCH];
    if (n == 0) {
        if (g)
            ghash_batch(g, text);
        return;
    }
    memcpy(part, src, n);
    if (n > 16 * NARROW)
        ctr_blocks(c, part, part, WIDE, g, text);
    else
        ctr_blocks(c, part, part, NARROW, g, text);
    memcpy(dst, part, n);
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

/* What of a message is left where its reader is. */
INLINE void ctr_take(ctr_state *c, uint8_t *dst, zt_reader *text, size_t n)
{
    for (; n >= BATCH; n -= BATCH, dst += BATCH)
        ctr_blocks(c, dst, zt_read(text, BATCH, dst), WIDE, NULL, NULL);
    ctr_finish(c, dst, zt_read(text, n, dst), n, NULL, NULL);
}

/* The same, of a body of `total` bytes. */
INLINE zt_block ghash_take(ghash *g, zt_reader *body, size_t n, size_t total)
{
    uint8_t buffer[BATCH];
    for (; n >= BATCH; n -= BATCH)
        ghash_batch(g, zt_read(body, BATCH, buffer));
    return ghash_finish(g, zt_read(body, n, buffer), n, total);
}

FUNCTION(ZT_AES_CTR, LEVEL)
{
    ctr_state c = ctr_start(key->k1, counter);
    zt_reader text = zt_reader_start(pieces);
    ctr_take(&c, dst, &text, n);
}

FUNCTION(ZT_GMAC, LEVEL)
{
    ghash g = ghash_start(key, nonce, aad);
    zt_reader body = zt_reader_start(pieces);
    return ghash_take(&g, &body, n, n);
}

FUNCTION(ZT_CTR_GMAC, LEVEL)
{
    ctr_state c = ctr_start(key->k1, counter);
    ghash g = ghash_start(key, nonce, aad);
    zt_reader text = zt_reader_start(pieces);
    size_t left = n;
    for (; left >= BATCH; left -= BATCH, dst += BATCH) {
        const uint8_t *src = zt_read(&text, BATCH, dst);
        if (left == n)
            ctr_blocks(&c, dst, src, WIDE, NULL, NULL);
        else
            ctr_blocks(&c, dst, src, WIDE, &g, dst - BATCH);
    }
    const uint8_t *src = zt_read(&text, left, dst);
    if (n < BATCH)
        ctr_finish(&c, dst, src, left, NULL, NULL);
    else
        ctr_finish(&c, dst, src, left, &g, dst - BATCH);
    return ghash_finish(&g, dst, left, n);
}

FUNCTION(ZT_GMAC_BESIDE, LEVEL)
{
    ctr_state c = ctr_start(other->key->k1, other->counter);
    ghash g = ghash_start(key, nonce, aad);
    zt_reader body = zt_reader_start(pieces), text = zt_reader_start(other->pieces);
    uint8_t buffer[BATCH], *dst = other->dst;
    size_t mine = n, others = other->n;
    for (; mine >= BATCH && others >= BATCH; mine -= BATCH, others -= BATCH, dst += BATCH)
        ctr_blocks(&c, dst, zt_read(&text, BATCH, dst), WIDE, &g, zt_read(&body, BATCH, buffer));
    ctr_take(&c, dst, &text, others);
    return ghash_take(&g, &body, mine, n);
}
