/* AES-256-CTR and GMAC for vectors of LANES blocks; included once per level.
 *
 * GHASH is POLYVAL on byte-reversed blocks (see ghash_portable.c). A group of 16 blocks is
 * multiplied by H^16 .. H^1 and reduced once. The message is padded at its front to whole groups
 * with absent blocks: zeros there change nothing, and the length block then ends a group. CTR, in
 * groups from the front of the body, leads GHASH by at least what that shifts.
 *
 * The including file defines
 *   LANES           1, 2 or 4
 *   vec             LANES blocks, and on them load, store, xor_, broadcast(__m128i), aes_round,
 *                   aes_last, clmul_low, clmul_high, shuffle_bytes, swap_halves, add_counters,
 *                   lane_numbers(): 0 .. LANES - 1 as 32-bit words that lead each block,
 *                   fold(vec): the xor of all lanes as __m128i, lowest(__m128i): others zero */

enum {
    ROUNDS = 14,
    GROUP = 256,                       /* bytes in 16 blocks */
    STEP = 16 * LANES,                 /* bytes in one vec */
    VECS = GROUP / STEP,               /* vecs in a group */
    BATCH = VECS < 8 ? VECS : 8,       /* vecs in flight in CTR */
};

/* ---- single blocks ---- */

INLINE __m128i block_load(const void *p)
{
    return _mm_loadu_si128((const __m128i *)p);
}

INLINE void block_store(void *p, __m128i x)
{
    _mm_storeu_si128((__m128i *)p, x);
}

INLINE __m128i reversal(void)
{
    return _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}

INLINE __m128i block_reverse(__m128i x)
{
    return _mm_shuffle_epi8(x, reversal());
}

INLINE __m128i encrypt_block(const uint8_t *round_keys, __m128i x)
{
    x = _mm_xor_si128(x, block_load(round_keys));
    for (int i = 1; i < ROUNDS; i++)
        x = _mm_aesenc_si128(x, block_load(round_keys + 16 * i));
    return _mm_aesenclast_si128(x, block_load(round_keys + 16 * ROUNDS));
}

INLINE __m128i decrypt_block(const uint8_t *round_keys, __m128i x)
{
    x = _mm_xor_si128(x, block_load(round_keys + 16 * ROUNDS));
    for (int i = ROUNDS - 1; i > 0; i--)
        x = _mm_aesdec_si128(x, _mm_aesimc_si128(block_load(round_keys + 16 * i)));
    return _mm_aesdeclast_si128(x, block_load(round_keys));
}

/* ---- CTR ---- */

typedef struct {
    vec key[ROUNDS + 1];
    vec next;            /* byte-reversed counter blocks, so that the counter is their first word */
} ctr_state;

INLINE ctr_state ctr_start(const uint8_t *round_keys, const uint8_t counter[16])
{
    ctr_state s;
    for (int i = 0; i <= ROUNDS; i++)
        s.key[i] = broadcast(block_load(round_keys + 16 * i));
    s.next = add_counters(broadcast(block_reverse(block_load(counter))), lane_numbers());
    return s;
}

INLINE void ctr_keystream(ctr_state *s, vec stream[BATCH])
{
    const vec reverse = broadcast(reversal()), step = broadcast(_mm_set_epi32(0, 0, 0, LANES));
    for (int j = 0; j < BATCH; j++) {
        stream[j] = xor_(shuffle_bytes(s->next, reverse), s->key[0]);
        s->next = add_counters(s->next, step);
    }
    for (int i = 1; i < ROUNDS; i++)
        for (int j = 0; j < BATCH; j++)
            stream[j] = aes_round(stream[j], s->key[i]);
    for (int j = 0; j < BATCH; j++)
        stream[j] = aes_last(stream[j], s->key[ROUNDS]);
}

INLINE void ctr_group(ctr_state *s, uint8_t *dst, const uint8_t *src)
{
    for (int k = 0; k < VECS; k += BATCH) {
        vec stream[BATCH];
        ctr_keystream(s, stream);
        for (int j = 0; j < BATCH; j++)
            store(dst + STEP * (k + j), xor_(stream[j], load(src + STEP * (k + j))));
    }
}

/* Fewer bytes than a group. */
INLINE void ctr_tail(ctr_state *s, uint8_t *dst, const uint8_t *src, size_t n)
{
    const size_t most = BATCH * STEP;
    while (n > 0) {
        vec stream[BATCH];
        ctr_keystream(s, stream);
        size_t take = n < most ? n : most;
        xor_bytes(dst, src, (const uint8_t *)stream, take);
        dst += take;
        src += take;
        n -= take;
    }
}

/* ---- GHASH ---- */

typedef struct {
    vec h[VECS];        /* H^16 .. H^1, lane by lane */
    vec mid[VECS];      /* low half ^ high half of each */
} hash_key;

INLINE hash_key hash_start(const zt_aes_key *key)
{
    hash_key k;
    for (int i = 0; i < VECS; i++) {
        k.h[i] = load((const uint8_t *)key->h + STEP * i);
        k.mid[i] = xor_(k.h[i], swap_halves(k.h[i]));
    }
    return k;
}

/* x^-128 of a 256-bit product, twice 64 bits by multiplication with x^63 + x^62 + x^57. */
INLINE __m128i hash_reduce(__m128i low, __m128i high)
{
    const __m128i poly = _mm_set_epi64x(0, (long long)0xc200000000000000);
    low = _mm_xor_si128(_mm_shuffle_epi32(low, 0x4e), _mm_clmulepi64_si128(low, poly, 0x00));
    low = _mm_xor_si128(_mm_shuffle_epi32(low, 0x4e), _mm_clmulepi64_si128(low, poly, 0x00));
    return _mm_xor_si128(low, high);
}

/* (y + first block) H^16 + .. + last block H; Karatsuba, the three parts summed before folding. */
INLINE __m128i hash_group(const hash_key *k, __m128i y, const uint8_t *p)
{
    const vec reverse = broadcast(reversal());
    vec x = xor_(shuffle_bytes(load(p), reverse), lowest(y));
    vec low = clmul_low(x, k->h[0]), high = clmul_high(x, k->h[0]);
    vec mid = clmul_low(xor_(x, swap_halves(x)), k->mid[0]);
    for (int i = 1; i < VECS; i++) {
        x = shuffle_bytes(load(p + STEP * i), reverse);
        low = xor_(low, clmul_low(x, k->h[i]));
        high = xor_(high, clmul_high(x, k->h[i]));
        mid = xor_(mid, clmul_low(xor_(x, swap_halves(x)), k->mid[i]));
    }
    mid = xor_(mid, xor_(low, high));
    __m128i l = fold(low), m = fold(mid), h = fold(high);
    l = _mm_xor_si128(l, _mm_slli_si128(m, 8));
    h = _mm_xor_si128(h, _mm_srli_si128(m, 8));
    return hash_reduce(l, h);
}

/* GHASH over AAD, body and lengths. The first group has `absent` bytes of zeros, the AAD and `first`
 * bytes of body; the last ends with the lengths; those between are body only. */
typedef struct {
    size_t n;           /* bytes of body */
    size_t absent;
    size_t first;
    size_t groups;
} layout;

INLINE layout make_layout(size_t n)
{
    size_t blocks = 2 + (n + 15) / 16, present = (blocks - 1) % 16 + 1;
    return (layout){
        .n = n,
        .absent = GROUP - 16 * present,
        .first = blocks <= 16 ? n : 16 * (present - 1),
        .groups = (blocks + 15) / 16,
    };
}

/* Zeros and lengths after the body, which ends at group + end. */
INLINE void put_lengths(uint8_t *group, size_t end, size_t n)
{
    memset(group + end, 0, GROUP - end);
    store64_be(group + GROUP - 16, 8 * (16 + (uint64_t)n));
}

INLINE __m128i hash_first(const hash_key *k, const layout *l, const uint8_t aad[16],
                          zt_reader *body, uint8_t *group)
{
    memset(group, 0, l->absent);
    memcpy(group + l->absent, aad, 16);
    zt_read_across(body, l->first, group + l->absent + 16);
    if (l->groups == 1)
        put_lengths(group, l->absent + 16 + l->first, l->n);
    return hash_group(k, _mm_setzero_si128(), group);
}

INLINE __m128i hash_last(const hash_key *k, const layout *l, __m128i y, zt_reader *body,
                         uint8_t *group)
{
    if (l->groups == 1)
        return y;
    size_t rest = l->n - l->first - GROUP * (l->groups - 2);
    zt_read_across(body, rest, group);
    put_lengths(group, rest, l->n);
    return hash_group(k, y, group);
}

INLINE void finish_tag(const zt_aes_key *key, const uint8_t iv[12], __m128i y, uint8_t tag[16])
{
    uint8_t block[16];
    memcpy(block, iv, 12);
    store32_be(block + 12, 1);
    block_store(tag, _mm_xor_si128(block_reverse(y), encrypt_block(key->k0, block_load(block))));
}

/* ---- the level's functions ---- */

#define FUNCTION(declaration, level) declaration(level)

FUNCTION(ZT_AES_ENCRYPT, LEVEL)
{
    block_store(out, encrypt_block(round_keys, block_load(in)));
}

FUNCTION(ZT_AES_DECRYPT, LEVEL)
{
    block_store(out, decrypt_block(round_keys, block_load(in)));
}

FUNCTION(ZT_AES_CTR, LEVEL)
{
    ctr_state s = ctr_start(key->k1, counter);
    zt_reader body = zt_reader_start(pieces);
    size_t left = zt_total(pieces, count);
    for (; left >= GROUP; left -= GROUP, dst += GROUP)
        ctr_group(&s, dst, zt_read(&body, GROUP, dst));
    ctr_tail(&s, dst, zt_read(&body, left, dst), left);
}

FUNCTION(ZT_GMAC, LEVEL)
{
    const hash_key k = hash_start(key);
    const layout l = make_layout(zt_total(pieces, count));
    zt_reader body = zt_reader_start(pieces);
    uint8_t group[GROUP];
    __m128i y = hash_first(&k, &l, aad, &body, group);
    for (size_t i = 2; i < l.groups; i++)
        y = hash_group(&k, y, zt_read(&body, GROUP, group));
    finish_tag(key, iv, hash_last(&k, &l, y, &body, group), tag);
}

FUNCTION(ZT_CTR_GMAC, LEVEL)
{
    ctr_state s = ctr_start(key->k1, counter);
    const hash_key k = hash_start(key);
    const layout l = make_layout(zt_total(pieces, count));
    zt_reader body = zt_reader_start(pieces);
    const struct iovec written = {dst, l.n};
    zt_reader clear = zt_reader_start(&written);
    uint8_t group[GROUP];

    /* A group of CTR covers the body in the first group of GHASH, each further one the next. */
    const bool leads = l.n >= GROUP;
    size_t left = l.n, between = l.groups > 2 ? l.groups - 2 : 0;
    __m128i y = _mm_setzero_si128();
    if (leads) {
        ctr_group(&s, dst, zt_read(&body, GROUP, dst));
        dst += GROUP;
        left -= GROUP;
        y = hash_first(&k, &l, aad, &clear, group);
    }
    for (; left >= GROUP; left -= GROUP, dst += GROUP, between--) {
        ctr_group(&s, dst, zt_read(&body, GROUP, dst));
        y = hash_group(&k, y, zt_read(&clear, GROUP, group));
    }
    ctr_tail(&s, dst, zt_read(&body, left, dst), left);
    if (!leads)
        y = hash_first(&k, &l, aad, &clear, group);
    for (; between > 0; between--)
        y = hash_group(&k, y, zt_read(&clear, GROUP, group));
    finish_tag(key, iv, hash_last(&k, &l, y, &clear, group), tag);
}
