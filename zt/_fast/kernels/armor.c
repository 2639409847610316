#include "armor.h"

#include "aes_key.h"
#include "bytes.h"
#include "salsa20.h"
#include "sha512.h"

enum {
    FLAGS = 18,
    MAC = 19,
    KEPT_FLAGS = 0x47,       /* fragmented, hops */
    ENCRYPTED = 0x80,        /* legacy bit of suite 1 */
    HOPS = 0x07,
    GRAIN = 64,              /* what every run but the last is a multiple of */
    MAX_RUNS = 32,
    AHEAD = 1024,            /* Salsa20 keystream made together with the one-time key */
};

void zt_key_init(zt_key *key, const uint8_t key48[48])
{
    uint8_t k0[48], k1[48];
    memcpy(key->salsa, key48, sizeof key->salsa);
    zt_kbkdf(k0, key48, '0', 0, 0);
    zt_kbkdf(k1, key48, '1', 0, 0);
    zt_aes_key_init(&key->aes, k0, k1);
    zt_wipe(k0, sizeof k0);
    zt_wipe(k1, sizeof k1);
}

void zt_key_wipe(zt_key *key)
{
    zt_wipe(key, sizeof *key);
}

/* The body as the kernels read it, and where it goes. */
typedef struct {
    zt_run runs[MAX_RUNS];
    int count;
    size_t n;
    uint8_t *dst;
} text;

static void append(text *t, const uint8_t *src, size_t n)
{
    zt_run *last = t->count ? &t->runs[t->count - 1] : NULL;
    if (last && last->src + last->n == src)
        last->n += n;
    else
        t->runs[t->count++] = (zt_run){src, n};
    t->n += n;
}

static void append_copied(text *t, const uint8_t *src, size_t n)
{
    memcpy(t->dst + t->n, src, n);
    append(t, t->dst + t->n, n);
}

/* Pieces become runs that are read where they are. Only what straddles a border between pieces is
 * first copied to its place in dst; the runs then work there in place. */
static void gather(text *t, uint8_t *dst, const struct iovec *pieces, int count)
{
    t->count = 0;
    t->n = 0;
    t->dst = dst;
    for (int i = 0; i < count; i++) {
        const uint8_t *p = pieces[i].iov_base;
        size_t left = pieces[i].iov_len, fill = -t->n % GRAIN;
        if (left == 0)
            continue;
        /* Room for two more runs and one copied: beyond that, one run takes all that follows. */
        size_t take = left < fill || t->count > MAX_RUNS - 3 ? left : fill;
        if (take)
            append_copied(t, p, take);
        p += take;
        left -= take;
        size_t whole = i + 1 < count ? left - left % GRAIN : left;
        if (whole)
            append(t, p, whole);
        if (left > whole)
            append_copied(t, p + whole, left - whole);
    }
}

/* ---- suites 0 and 1 ---- */

/* The per-packet key of docs/protocol/01, 6.2. n: length of the whole packet. */
static void start_salsa(uint32_t state[16], const zt_key *key, const uint8_t *packet, size_t n)
{
    uint8_t mangled[32];
    memcpy(mangled, key->salsa, sizeof mangled);
    xor_bytes(mangled, mangled, packet, FLAGS);
    mangled[FLAGS] ^= packet[FLAGS] & (uint8_t)~HOPS;
    mangled[19] ^= (uint8_t)n;
    mangled[20] ^= (uint8_t)(n >> 8);
    zt_salsa20_init(state, mangled, packet, 0);
    zt_wipe(mangled, sizeof mangled);
}

/* dst = text ^ keystream from block 1 on. The first `ready` bytes of the keystream from block 0 on
 * were made before; more only if that did not cover the body. */
static void apply_salsa(const zt_kernels *k, uint32_t state[16], const uint8_t *ahead, size_t ready,
                        const text *t)
{
    uint8_t *dst = t->dst;
    size_t used = GRAIN;
    for (int i = 0; i < t->count; i++) {
        const uint8_t *src = t->runs[i].src;
        size_t n = t->runs[i].n, take = n < ready - used ? n : ready - used;
        xor_bytes(dst, src, ahead + used, take);
        used += take;
        if (take < n)
            k->salsa20(state, 12, dst + take, src + take, n - take);
        dst += n;
    }
}

/* The clear body of suite 0 moves as it is. */
static void copy_text(const text *t)
{
    uint8_t *dst = t->dst;
    for (int i = 0; i < t->count; dst += t->runs[i++].n)
        if (t->runs[i].src != dst)
            memcpy(dst, t->runs[i].src, t->runs[i].n);
}

static void seal_salsa(const zt_key *key, uint8_t *packet, const text *t, bool encrypt)
{
    const zt_kernels *k = zt_kernels_get();
    uint32_t state[16];
    uint8_t ahead[AHEAD], tag[16];
    const zt_run body = {t->dst, t->n};
    size_t ready = !encrypt ? GRAIN : t->n + GRAIN < AHEAD ? t->n + GRAIN : AHEAD;

    start_salsa(state, key, packet, ZT_BODY + t->n);
    k->salsa20(state, 12, ahead, NULL, ready);
    if (encrypt)
        apply_salsa(k, state, ahead, ready, t);
    else
        copy_text(t);
    k->poly1305(tag, ahead, &body, 1);
    memcpy(packet + MAC, tag, 8);
    zt_wipe(ahead, ready);
    zt_wipe(state, sizeof state);
}

static bool open_salsa(const zt_key *key, const uint8_t *packet, const text *t, bool decrypt)
{
    const zt_kernels *k = zt_kernels_get();
    uint32_t state[16];
    uint8_t ahead[AHEAD], tag[16];
    size_t ready = !decrypt ? GRAIN : t->n + GRAIN < AHEAD ? t->n + GRAIN : AHEAD;

    start_salsa(state, key, packet, ZT_BODY + t->n);
    k->salsa20(state, 12, ahead, NULL, ready);
    k->poly1305(tag, ahead, t->runs, t->count);
    bool authentic = equal_64(load64(tag), load64(packet + MAC));
    if (authentic && decrypt)
        apply_salsa(k, state, ahead, ready, t);
    else if (authentic)
        copy_text(t);
    zt_wipe(ahead, ready);
    zt_wipe(state, sizeof state);
    return authentic;
}

/* ---- suite 3 ---- */

/* Destination, source and flags, padded to one block. */
static void make_aad(uint8_t aad[16], const uint8_t *packet, uint8_t flags)
{
    memset(aad, 0, 16);
    memcpy(aad, packet + 8, 10);
    aad[10] = flags;
}

/* The first counter block: the encrypted ID and tag, as on the wire. */
static void make_counter(uint8_t counter[16], const uint8_t encrypted[16])
{
    memcpy(counter, encrypted, 16);
    counter[12] &= 0x7f;   /* no wrap of the low 32 bits within a packet */
}

static void seal_aes(const zt_key *key, uint8_t *packet, const text *t)
{
    const zt_kernels *k = zt_kernels_get();
    uint8_t iv[12] = {0}, aad[16], tag[16], block[16], counter[16];
    memcpy(iv, packet, 8);
    make_aad(aad, packet, packet[FLAGS]);
    k->gmac(&key->aes, iv, aad, t->runs, t->count, tag);

    store64(block, load64(packet));
    store64(block + 8, load64(tag) ^ load64(tag + 8));
    k->aes_encrypt(key->aes.k1, block, block);
    memcpy(packet, block, 8);
    memcpy(packet + MAC, block + 8, 8);
    make_counter(counter, block);
    k->aes_ctr(&key->aes, counter, t->dst, t->runs, t->count);
}

static bool open_aes(const zt_key *key, const uint8_t *packet, const text *t)
{
    const zt_kernels *k = zt_kernels_get();
    uint8_t iv[12] = {0}, aad[16], tag[16], block[16], counter[16];
    memcpy(block, packet, 8);
    memcpy(block + 8, packet + MAC, 8);
    make_counter(counter, block);
    k->aes_decrypt(key->aes.k1, block, block);
    memcpy(iv, block, 8);
    make_aad(aad, packet, packet[FLAGS] & (uint8_t)~HOPS);
    k->ctr_gmac(&key->aes, counter, t->dst, t->runs, t->count, iv, aad, tag);

    if (equal_64(load64(tag) ^ load64(tag + 8), load64(block + 8)))
        return true;
    zt_wipe(t->dst, t->n);
    return false;
}

/* ---- any suite ---- */

static void seal_text(const zt_key *key, uint8_t *packet, int suite, const text *t)
{
    packet[FLAGS] = (uint8_t)((packet[FLAGS] & KEPT_FLAGS) | suite << 3
                              | (suite == ZT_SUITE_SALSA ? ENCRYPTED : 0));
    if (suite == ZT_SUITE_AES)
        seal_aes(key, packet, t);
    else
        seal_salsa(key, packet, t, suite == ZT_SUITE_SALSA);
}

static bool open_text(const zt_key *key, const uint8_t *packet, const text *t)
{
    switch (packet[FLAGS] >> 3 & 7) {
    case ZT_SUITE_MAC:
        return open_salsa(key, packet, t, false);
    case ZT_SUITE_SALSA:
        return open_salsa(key, packet, t, true);
    case ZT_SUITE_AES:
        return open_aes(key, packet, t);
    default:
        return false;
    }
}

static void whole_text(text *t, uint8_t *packet, size_t n)
{
    t->dst = packet + ZT_BODY;
    t->n = n - ZT_BODY;
    t->count = 1;
    t->runs[0] = (zt_run){t->dst, t->n};
}

void zt_seal(const zt_key *key, uint8_t *packet, size_t n, int suite)
{
    text t;
    whole_text(&t, packet, n);
    seal_text(key, packet, suite, &t);
}

bool zt_open(const zt_key *key, uint8_t *packet, size_t n)
{
    text t;
    if (n < ZT_PACKET_MIN)
        return false;
    whole_text(&t, packet, n);
    return open_text(key, packet, &t);
}

void zt_seal_iov(const zt_key *key, uint8_t *packet, int suite, const struct iovec *body, int count)
{
    text t;
    gather(&t, packet + ZT_BODY, body, count);
    seal_text(key, packet, suite, &t);
}

bool zt_open_iov(const zt_key *key, uint8_t *packet, const struct iovec *body, int count)
{
    text t;
    gather(&t, packet + ZT_BODY, body, count);
    return t.n > 0 && open_text(key, packet, &t);
}

void zt_mask_hello(const zt_key *key, uint8_t *packet, size_t n, size_t offset)
{
    uint8_t iv[8];
    uint32_t state[16];
    memcpy(iv, packet, 8);
    iv[7] &= 0xf8;
    zt_salsa20_init(state, key->salsa, iv, 0);
    zt_kernels_get()->salsa20(state, 12, packet + offset, packet + offset, n - offset);
    zt_wipe(state, sizeof state);
}
