#include "armor.h"

#include "aes_key.h"
#include "bytes.h"
#include "reader.h"
#include "salsa20.h"
#include "sha512.h"
#include "simd.h"

enum {
    FLAGS = 18,
    MAC = 19,
    KEPT_FLAGS = 0x47,       /* fragmented, hops */
    ENCRYPTED = 0x80,        /* legacy bit of suite 1 */
    HOPS = 0x07,
    BLOCK = 64,              /* of Salsa20 */
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

/* A body: where it is read and where it goes. */
typedef struct {
    const struct iovec *pieces;
    size_t n;
    uint8_t *dst;
} text;

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
 * were made before: all that the body needs, or whole blocks. */
static void apply_salsa(const zt_kernels *k, uint32_t state[16], const uint8_t *ahead, size_t ready,
                        const text *t)
{
    uint8_t *dst = t->dst;
    size_t left = t->n, step = ready - BLOCK;
    zt_reader r = zt_reader_start(t->pieces);
    k->xor_bytes(dst, zt_read(&r, step, dst), ahead + BLOCK, step);
    for (dst += step, left -= step; left > 0; dst += step, left -= step) {
        step = r.left >= left ? left : left < AHEAD ? left : AHEAD;
        k->salsa20(state, 12, dst, zt_read(&r, step, dst), step);
    }
}

/* The clear body of suite 0 moves as it is. */
static void copy_text(const text *t)
{
    zt_reader r = zt_reader_start(t->pieces);
    if (t->pieces->iov_base != t->dst)
        zt_read_across(&r, t->n, t->dst);
}

static void seal_salsa(const zt_key *key, uint8_t *packet, const text *t, bool encrypt)
{
    const zt_kernels *k = zt_kernels_get();
    uint32_t state[16];
    uint8_t ahead[AHEAD], tag[16];
    const struct iovec body = {t->dst, t->n};
    size_t ready = !encrypt ? BLOCK : t->n + BLOCK < AHEAD ? t->n + BLOCK : AHEAD;

    start_salsa(state, key, packet, ZT_BODY + t->n);
    k->salsa20(state, 12, ahead, NULL, ready);
    if (encrypt)
        apply_salsa(k, state, ahead, ready, t);
    else
        copy_text(t);
    k->poly1305(tag, ahead, &body, t->n);
    memcpy(packet + MAC, tag, 8);
    zt_wipe(ahead, ready);
    zt_wipe(state, sizeof state);
}

static bool open_salsa(const zt_key *key, const uint8_t *packet, const text *t, bool decrypt)
{
    const zt_kernels *k = zt_kernels_get();
    uint32_t state[16];
    uint8_t ahead[AHEAD], tag[16];
    size_t ready = !decrypt ? BLOCK : t->n + BLOCK < AHEAD ? t->n + BLOCK : AHEAD;

    start_salsa(state, key, packet, ZT_BODY + t->n);
    k->salsa20(state, 12, ahead, NULL, ready);
    k->poly1305(tag, ahead, t->pieces, t->n);
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
static zt_block make_aad(const uint8_t *packet, uint8_t flags)
{
    uint64_t rest = ZT_LE16(load16(packet + 16)) | (uint64_t)flags << 16;
    return (zt_block){load64(packet + 8), ZT_LE64(rest)};
}

/* GMAC's first counter block: packet ID, four zeros, the number 1. */
static zt_block make_nonce(uint64_t id)
{
    return (zt_block){id, ZT_BE64(1)};
}

/* The first counter block of CTR: the encrypted ID and tag, as on the wire, with the top bit of the
 * 32-bit counter cleared so that it does not wrap within a packet. */
static zt_block make_counter(zt_block encrypted)
{
    return encrypted & (zt_block){~0ULL, ZT_BE64(0xffffffff7fffffff)};
}

/* The tag on the wire, in both words. */
static zt_block fold_tag(zt_block tag)
{
    return tag ^ ZT_SHUFFLE(zt_block, tag, tag, 1, 0);
}

/* Completes the header; what is to be encrypted then. Meanwhile encrypts `other`, if any. */
static zt_ctr_text authenticate(const zt_key *key, uint8_t *packet, const text *t,
                                const zt_ctr_text *other)
{
    const zt_kernels *k = zt_kernels_get();
    const zt_block id = {load64(packet), 0}, nonce = make_nonce(id[0]);
    const zt_block aad = make_aad(packet, packet[FLAGS]);
    zt_block tag = other ? k->gmac_beside(&key->aes, nonce, aad, t->pieces, t->n, other)
                         : k->gmac(&key->aes, nonce, aad, t->pieces, t->n);
    zt_block clear = ZT_SHUFFLE(zt_block, id, fold_tag(tag), 0, 2);
    zt_block encrypted = k->aes_encrypt(key->aes.k1, clear);
    store64(packet, encrypted[0]);
    store64(packet + MAC, encrypted[1]);
    return (zt_ctr_text){&key->aes, make_counter(encrypted), t->dst, t->pieces, t->n};
}

static void encrypt(const zt_ctr_text *c)
{
    zt_kernels_get()->aes_ctr(c->key, c->counter, c->dst, c->pieces, c->n);
}

static void seal_aes(const zt_key *key, uint8_t *packet, const text *t)
{
    zt_ctr_text rest = authenticate(key, packet, t, NULL);
    encrypt(&rest);
}

static bool open_aes(const zt_key *key, const uint8_t *packet, const text *t)
{
    const zt_kernels *k = zt_kernels_get();
    const zt_block encrypted = {load64(packet), load64(packet + MAC)};
    zt_block clear = k->aes_decrypt(key->aes.k1, encrypted);
    zt_block tag = k->ctr_gmac(&key->aes, make_counter(encrypted), t->dst, t->pieces, t->n,
                               make_nonce(clear[0]),
                               make_aad(packet, packet[FLAGS] & (uint8_t)~HOPS));
    if (equal_64(fold_tag(tag)[1], clear[1]))
        return true;
    zt_wipe(t->dst, t->n);
    return false;
}

/* ---- any suite ---- */

void zt_seal(const zt_key *key, uint8_t *packet, size_t n, int suite)
{
    struct iovec body = {packet + ZT_BODY, n - ZT_BODY};
    zt_seal_iov(key, packet, suite, &body, 1);
}

bool zt_open(const zt_key *key, uint8_t *packet, size_t n)
{
    if (n < ZT_PACKET_MIN)
        return false;
    struct iovec body = {packet + ZT_BODY, n - ZT_BODY};
    return zt_open_iov(key, packet, &body, 1);
}

static void set_suite(uint8_t *packet, int suite)
{
    packet[FLAGS] = (uint8_t)((packet[FLAGS] & KEPT_FLAGS) | suite << 3
                              | (suite == ZT_SUITE_SALSA ? ENCRYPTED : 0));
}

void zt_seal_iov(const zt_key *key, uint8_t *packet, int suite, const struct iovec *body, int count)
{
    const text t = {body, zt_total(body, count), packet + ZT_BODY};
    set_suite(packet, suite);
    if (suite == ZT_SUITE_AES)
        seal_aes(key, packet, &t);
    else
        seal_salsa(key, packet, &t, suite == ZT_SUITE_SALSA);
}

void zt_seal_next(zt_sealing *s, const zt_key *key, uint8_t *packet, int suite,
                  const struct iovec *body, int count)
{
    if (suite != ZT_SUITE_AES) {
        zt_seal_end(s);
        zt_seal_iov(key, packet, suite, body, count);
        return;
    }
    const text t = {body, zt_total(body, count), packet + ZT_BODY};
    set_suite(packet, suite);
    zt_ctr_text rest = authenticate(key, packet, &t, s->text.n ? &s->text : NULL);
    memcpy(s->body, body, (size_t)count * sizeof *body);
    rest.pieces = s->body;
    s->text = rest;
}

void zt_seal_end(zt_sealing *s)
{
    if (s->text.n)
        encrypt(&s->text);
    s->text.n = 0;
}

bool zt_open_iov(const zt_key *key, uint8_t *packet, const struct iovec *body, int count)
{
    const text t = {body, zt_total(body, count), packet + ZT_BODY};
    if (t.n == 0)
        return false;
    switch (packet[FLAGS] >> 3 & 7) {
    case ZT_SUITE_MAC:
        return open_salsa(key, packet, &t, false);
    case ZT_SUITE_SALSA:
        return open_salsa(key, packet, &t, true);
    case ZT_SUITE_AES:
        return open_aes(key, packet, &t);
    default:
        return false;
    }
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

void zt_aes256_ctr(const uint8_t key[32], const uint8_t counter[16], uint8_t *p, size_t n)
{
    zt_aes_key schedule;
    const struct iovec piece = {p, n};
    const zt_block first = {load64(counter), load64(counter + 8)};
    zt_aes_key_init(&schedule, key, key);
    zt_kernels_get()->aes_ctr(&schedule, first, p, &piece, n);
    zt_wipe(&schedule, sizeof schedule);
}
