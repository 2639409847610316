/* Runs every kernel level of this CPU over recorded cases and against the portable level.
 *
 * Cases come on standard input, a word and hexadecimal arguments a line ("-" is an empty string):
 *
 *     salsa20 ROUNDS KEY IV COUNTER INPUT OUTPUT
 *     poly1305 KEY MESSAGE TAG
 *     gmac KEY IV DATA TAG                     (DATA of more than one block)
 *     kbkdf KEY LABEL CONTEXT ITERATION OUTPUT
 *     seal KEY48 SUITE PLAIN ARMORED
 *     open KEY48 ARMORED CLEAR
 *     fail KEY48 PACKET
 *     hello KEY48 PACKET OFFSET MASKED
 *     memhash PUBLIC DIGEST
 *
 * Then random inputs of all short and some long lengths, in pieces and alignments of all kinds, go
 * through each level and through the portable one. Every buffer ends where an inaccessible page
 * begins. Exit status 0 if all agree. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "aes_key.h"
#include "armor.h"
#include "bytes.h"
#include "checksum.h"
#include "dispatch.h"
#include "memhash.h"
#include "salsa20.h"
#include "sha512.h"

enum { MOST = 20000, PIECES = 5 };

static const char *what;   /* what is being checked, for the message */
static long checks;

static void expect(bool good, size_t n)
{
    checks++;
    if (good)
        return;
    printf("%s: %s differs, %zu bytes\n", zt_kernels_get()->name, what, n);
    exit(1);
}

static void expect_same(const void *a, const void *b, size_t n)
{
    expect(n == 0 || memcmp(a, b, n) == 0, n);
}

/* ---- memory ---- */

/* Room for MOST bytes before an inaccessible page; take(slot, n) is its last n. */
static uint8_t *slot_end[16];

static void make_slots(void)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), room = (MOST + 2 * page - 1) / page * page;
    for (size_t i = 0; i < sizeof slot_end / sizeof *slot_end; i++) {
        uint8_t *p = mmap(NULL, room + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                          -1, 0);
        if (p == MAP_FAILED || mprotect(p + room, page, PROT_NONE)) {
            perror("mmap");
            exit(2);
        }
        slot_end[i] = p + room;
    }
}

static uint8_t *take(int slot, size_t n)
{
    return slot_end[slot] - n;
}

static uint64_t seed = 1;

/* xorshift64* */
static uint32_t draw(uint32_t below)
{
    seed ^= seed >> 12;
    seed ^= seed << 25;
    seed ^= seed >> 27;
    return (uint32_t)((seed * 0x2545f4914f6cdd1dULL) >> 32) % below;
}

/* Random bytes, or now and then all ones, where carries go furthest. */
static void fill(void *p, size_t n)
{
    bool ones = draw(8) == 0;
    for (size_t i = 0; i < n; i++)
        ((uint8_t *)p)[i] = ones ? 0xff : (uint8_t)draw(256);
}

/* Cuts n bytes into pieces, each at the end of a slot of its own from `slot` on. */
static int cut(struct iovec pieces[PIECES], int slot, const uint8_t *message, size_t n)
{
    int count = 1 + (int)draw(PIECES);
    for (int i = 0; i < count; i++) {
        size_t take_n = i + 1 == count ? n : draw(4) == 0 ? draw(40) : draw((uint32_t)n + 1);
        if (take_n > n)
            take_n = n;
        pieces[i].iov_base = take(slot + i, take_n);
        pieces[i].iov_len = take_n;
        if (take_n)
            memcpy(pieces[i].iov_base, message, take_n);
        message += take_n;
        n -= take_n;
    }
    return count;
}

/* ---- recorded cases ---- */

typedef struct {
    uint8_t *p;
    size_t n;
} bytes;

static bytes argument(int slot)
{
    const char *word = strtok(NULL, " \n");
    if (word == NULL) {
        fprintf(stderr, "an argument is missing\n");
        exit(2);
    }
    size_t n = word[0] == '-' ? 0 : strlen(word) / 2;
    bytes b = {take(slot, n), n};
    for (size_t i = 0; i < n; i++) {
        unsigned value;
        if (sscanf(word + 2 * i, "%2x", &value) != 1) {
            fprintf(stderr, "not hexadecimal: %s\n", word);
            exit(2);
        }
        b.p[i] = (uint8_t)value;
    }
    return b;
}

static unsigned long number(void)
{
    const char *word = strtok(NULL, " \n");
    return word ? strtoul(word, NULL, 10) : 0;
}

static void case_salsa20(void)
{
    int rounds = (int)number();
    bytes key = argument(0), iv = argument(1);
    uint64_t counter = number();
    bytes input = argument(2), output = argument(3);
    uint32_t state[16];
    zt_salsa20_init(state, key.p, iv.p, counter);
    zt_kernels_get()->salsa20(state, rounds, input.p, input.p, input.n);
    expect_same(input.p, output.p, output.n);
}

static void case_poly1305(void)
{
    bytes key = argument(0), message = argument(1), tag = argument(2);
    struct iovec piece = {message.p, message.n};
    uint8_t got[16];
    zt_kernels_get()->poly1305(got, key.p, &piece, message.n);
    expect_same(got, tag.p, 16);
}

static void case_gmac(void)
{
    bytes key = argument(0), iv = argument(1), data = argument(2), tag = argument(3);
    struct iovec piece = {data.p + 16, data.n - 16};
    zt_aes_key aes;
    zt_block nonce, aad;
    zt_aes_key_init(&aes, key.p, key.p);
    memcpy(&nonce, iv.p, 12);
    store32_be((uint8_t *)&nonce + 12, 1);
    memcpy(&aad, data.p, 16);
    zt_block got = zt_kernels_get()->gmac(&aes, nonce, aad, &piece, data.n - 16);
    expect_same(&got, tag.p, 16);
}

static void case_kbkdf(void)
{
    bytes key = argument(0);
    unsigned long label = number(), context = number(), iteration = number();
    bytes output = argument(1);
    uint8_t got[48];
    zt_kbkdf(got, key.p, (uint8_t)label, (uint8_t)context, (uint32_t)iteration);
    expect_same(got, output.p, 48);
}

static void case_seal(void)
{
    bytes key48 = argument(0);
    int suite = (int)number();
    bytes packet = argument(1), armored = argument(2);
    zt_key key;
    zt_key_init(&key, key48.p);
    zt_seal(&key, packet.p, packet.n, suite);
    expect_same(packet.p, armored.p, armored.n);
    zt_key_wipe(&key);
}

static void case_open(bool good)
{
    bytes key48 = argument(0), packet = argument(1);
    zt_key key;
    zt_key_init(&key, key48.p);
    expect(zt_open(&key, packet.p, packet.n) == good, packet.n);
    if (good)
        expect_same(packet.p, argument(2).p, packet.n);
    zt_key_wipe(&key);
}

static void case_hello(void)
{
    bytes key48 = argument(0), packet = argument(1);
    size_t offset = number();
    bytes masked = argument(2);
    zt_key key;
    zt_key_init(&key, key48.p);
    zt_mask_hello(&key, packet.p, packet.n, offset);
    expect_same(packet.p + offset, masked.p, masked.n);
}

static void case_memhash(void)
{
    static uint64_t table[ZT_MEMHASH_TABLE / 8];
    bytes public_key = argument(0), digest = argument(1);
    uint8_t got[64];
    zt_memory_hard_hash(got, public_key.p, table);
    expect_same(got, digest.p, 64);
}

static void run_case(char *line)
{
    what = strtok(line, " \n");
    if (what == NULL)
        return;
    if (!strcmp(what, "salsa20"))
        case_salsa20();
    else if (!strcmp(what, "poly1305"))
        case_poly1305();
    else if (!strcmp(what, "gmac"))
        case_gmac();
    else if (!strcmp(what, "kbkdf"))
        case_kbkdf();
    else if (!strcmp(what, "seal"))
        case_seal();
    else if (!strcmp(what, "open"))
        case_open(true);
    else if (!strcmp(what, "fail"))
        case_open(false);
    else if (!strcmp(what, "hello"))
        case_hello();
    else if (!strcmp(what, "memhash"))
        case_memhash();
    else {
        fprintf(stderr, "no case of this name: %s\n", what);
        exit(2);
    }
}

/* ---- against the portable level ---- */

static void random_salsa20(const zt_kernels *a, const zt_kernels *b, size_t n)
{
    what = "random salsa20";
    int rounds = draw(2) ? 12 : 20;
    uint32_t one[16], two[16];
    fill(one, sizeof one);
    if (draw(2))
        one[8] = 0u - draw(64);   /* the low half of the counter wraps */
    memcpy(two, one, sizeof one);
    uint8_t *src = draw(4) ? take(0, n) : NULL, *x = take(1, n), *y = take(2, n);
    if (src)
        fill(src, n);
    b->salsa20(two, rounds, y, src, n);
    if (src && draw(2))
        memcpy(x, src, n);
    a->salsa20(one, rounds, x, src && draw(2) ? memcpy(x, src, n) : src, n);
    expect_same(x, y, n);
    expect_same(one, two, sizeof one);
}

static void random_xor(const zt_kernels *a, size_t n)
{
    what = "random xor_bytes";
    uint8_t *src = take(0, n), *mask = take(1, n), *dst = take(2, n);
    fill(src, n);
    fill(mask, n);
    a->xor_bytes(dst, src, mask, n);
    for (size_t i = 0; i < n; i++)
        mask[i] ^= src[i];
    expect_same(dst, mask, n);
}

static void random_poly1305(const zt_kernels *a, const zt_kernels *b, size_t n)
{
    what = "random poly1305";
    uint8_t key[32], x[16], y[16], *message = take(0, n);
    struct iovec whole = {message, n}, pieces[PIECES];
    fill(key, sizeof key);
    fill(message, n);
    cut(pieces, 3, message, n);
    b->poly1305(y, key, &whole, n);
    a->poly1305(x, key, pieces, n);
    expect_same(x, y, 16);
}

static void random_aes(const zt_kernels *a, const zt_kernels *b, const zt_aes_key *key, size_t n)
{
    uint8_t *message = take(0, n), *x = take(1, n), *y = take(2, n);
    struct iovec whole = {message, n}, pieces[PIECES];
    zt_block counter, nonce, aad;
    fill(&counter, 16);
    fill(&nonce, 16);
    fill(&aad, 16);
    ((uint8_t *)&counter)[12] &= 0x7f;
    fill(message, n);
    cut(pieces, 3, message, n);

    what = "random aes block";
    zt_block one = a->aes_encrypt(key->k1, counter), two = b->aes_encrypt(key->k1, counter);
    expect_same(&one, &two, 16);
    one = a->aes_decrypt(key->k1, two);
    expect_same(&one, &counter, 16);

    what = "random aes_ctr";
    b->aes_ctr(key, counter, y, &whole, n);
    a->aes_ctr(key, counter, x, pieces, n);
    expect_same(x, y, n);
    if (n == 0)
        return;
    what = "random gmac";
    one = a->gmac(key, nonce, aad, pieces, n);
    two = b->gmac(key, nonce, aad, &whole, n);
    expect_same(&one, &two, 16);
    what = "random ctr_gmac";
    memset(x, 0, n);
    one = a->ctr_gmac(key, counter, x, pieces, n, nonce, aad);
    two = b->ctr_gmac(key, counter, y, &whole, n, nonce, aad);
    expect_same(&one, &two, 16);
    expect_same(x, y, n);
    whole.iov_base = memcpy(x, message, n);
    one = a->ctr_gmac(key, counter, x, &whole, n, nonce, aad);
    expect_same(&one, &two, 16);
    expect_same(x, y, n);
}

/* GMAC of n bytes beside CTR of about as many, under another key. */
static void random_beside(const zt_kernels *a, const zt_kernels *b, const zt_aes_key *key, size_t n)
{
    what = "random gmac_beside";
    uint8_t others_key[32], *mine = take(0, n + 1);
    size_t m = draw(3) ? n + draw(20) : draw((uint32_t)n + 200);
    uint8_t *others = take(8, m), *x = take(1, m), *y = take(2, m);
    struct iovec whole = {mine, n + 1}, others_whole = {others, m};
    struct iovec pieces[PIECES], others_pieces[PIECES];
    zt_aes_key second;
    zt_block counter, nonce, aad, one, two;
    fill(others_key, sizeof others_key);
    zt_aes_key_init(&second, others_key, others_key);
    fill(&counter, 16);
    fill(&nonce, 16);
    fill(&aad, 16);
    ((uint8_t *)&counter)[12] &= 0x7f;
    fill(mine, n + 1);
    fill(others, m);
    cut(pieces, 3, mine, n + 1);
    cut(others_pieces, 9, others, m);
    zt_ctr_text other = {&second, counter, x, others_pieces, m};
    one = a->gmac_beside(key, nonce, aad, pieces, n + 1, &other);
    two = b->gmac(key, nonce, aad, &whole, n + 1);
    b->aes_ctr(&second, counter, y, &others_whole, m);
    expect_same(&one, &two, 16);
    expect_same(x, y, m);
}

/* The sum by definition (RFC 1071, 1). */
static uint16_t plain_sum(const uint8_t *p, size_t n)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += i % 2 ? p[i] : p[i] << 8;
    while (sum >> 16)
        sum = (sum >> 16) + (sum & 0xffff);
    return (uint16_t)sum;
}

/* 0 and 0xffff are the same number. */
static bool same_sum(uint32_t a, uint32_t b)
{
    return a % 0xffff == b % 0xffff;
}

static void random_checksum(size_t n)
{
    what = "random checksum";
    uint8_t *message = take(0, n), *copy = take(1, n);
    fill(message, n);
    uint16_t sum = plain_sum(message, n);
    expect(same_sum(zt_checksum_add(0, message, n), sum), n);
    expect(same_sum(zt_checksum_copy(0, copy, message, n), sum), n);
    expect_same(copy, message, n);
    size_t k = draw((uint32_t)n + 1);
    uint32_t head = zt_checksum_add(0, message, k);
    uint32_t tail = zt_checksum_add(0, message + k, n - k);
    expect(same_sum(head + (k % 2 ? zt_checksum_swap(tail) : tail), sum), n);
}

/* Sealed in pieces by this level, opened in pieces by the portable one, and the other way round. */
static void random_armor(const char *level, const zt_key *key, size_t n)
{
    what = "random armor";
    static const int SUITES[] = {ZT_SUITE_MAC, ZT_SUITE_SALSA, ZT_SUITE_AES};
    size_t length = n + ZT_PACKET_MIN;
    int suite = SUITES[draw(3)], count;
    uint8_t *plain = take(0, length), *x = take(1, length), *y = take(2, length);
    struct iovec pieces[PIECES];
    fill(plain, length);
    plain[18] = draw(2) ? 0x40 : 0;
    memcpy(y, plain, length);

    memset(x, 0xaa, length);
    memcpy(x, plain, ZT_BODY);
    count = cut(pieces, 3, plain + ZT_BODY, n + 1);
    zt_seal_iov(key, x, suite, pieces, count);
    zt_level_set("portable");
    zt_seal(key, y, length, suite);
    zt_level_set(level);
    expect_same(x, y, length);

    memset(x + ZT_BODY, 0xaa, n + 1);
    x[18] |= draw(8);
    count = cut(pieces, 3, y + ZT_BODY, n + 1);
    expect(zt_open_iov(key, x, pieces, count), length);
    expect_same(x + ZT_BODY, plain + ZT_BODY, n + 1);
    y[18] = x[18];
    expect(zt_open(key, y, length), length);
    expect_same(x + ZT_BODY, y + ZT_BODY, n + 1);
}

/* Three packets of a series, against each of them by itself at the portable level. */
static void random_series(const char *level, const zt_key *key, size_t n)
{
    what = "random series";
    zt_sealing series = {0};
    uint8_t other48[48], *x[3], *y[3];
    size_t length[3];
    zt_key other;
    fill(other48, sizeof other48);
    zt_key_init(&other, other48);
    for (int i = 0; i < 3; i++) {
        struct iovec pieces[2];
        const zt_key *used = draw(4) ? key : &other;
        int suite = draw(4) ? ZT_SUITE_AES : draw(2) ? ZT_SUITE_SALSA : ZT_SUITE_MAC;
        size_t body = draw(3) ? n + 1 : 1 + draw((uint32_t)n + 200), head = draw((uint32_t)body + 1);
        length[i] = ZT_BODY + body;
        x[i] = take(i, length[i]);
        y[i] = take(3 + i, length[i]);
        fill(y[i], length[i]);
        y[i][18] = draw(2) ? 0x40 : 0;
        memset(x[i], 0xaa, length[i]);
        memcpy(x[i], y[i], ZT_BODY);
        pieces[0] = (struct iovec){take(6 + 2 * i, head), head};
        pieces[1] = (struct iovec){take(7 + 2 * i, body - head), body - head};
        memcpy(pieces[0].iov_base, y[i] + ZT_BODY, head);
        memcpy(pieces[1].iov_base, y[i] + ZT_BODY + head, body - head);
        zt_seal_next(&series, used, x[i], suite, pieces, 2);
        zt_level_set("portable");
        zt_seal(used, y[i], length[i], suite);
        zt_level_set(level);
        expect_same(x[i], y[i], ZT_BODY);
    }
    zt_seal_end(&series);
    zt_seal_end(&series);
    for (int i = 0; i < 3; i++)
        expect_same(x[i], y[i], length[i]);
}

static void random_all(const char *level, size_t n)
{
    zt_level_set("portable");
    const zt_kernels *b = zt_kernels_get();
    zt_level_set(level);
    const zt_kernels *a = zt_kernels_get();
    uint8_t key48[48];
    zt_key key;
    fill(key48, sizeof key48);
    zt_key_init(&key, key48);
    random_salsa20(a, b, n);
    random_xor(a, n);
    random_poly1305(a, b, n);
    random_aes(a, b, &key.aes, n);
    random_beside(a, b, &key.aes, n);
    random_checksum(n);
    random_armor(level, &key, n);
    random_series(level, &key, n);
}

int main(int argc, char **argv)
{
    static char line[8 * MOST];
    const char *level;
    long cases = 0;
    int rounds = argc > 1 ? atoi(argv[1]) : 1;
    make_slots();
    while (fgets(line, sizeof line, stdin)) {
        for (int i = 0; (level = zt_level_name(i)) != NULL; i++) {
            static char copy[sizeof line];
            memcpy(copy, line, sizeof line);
            zt_level_set(level);
            run_case(copy);
        }
        cases++;
    }
    for (int round = 0; round < rounds; round++)
        for (int i = 0; (level = zt_level_name(i)) != NULL; i++) {
            for (size_t n = 0; n <= 300; n++)
                random_all(level, n);
            for (int k = 0; k < 20; k++)
                random_all(level, 301 + draw(k % 4 ? 3000 : 9000));
        }
    printf("%ld recorded cases and %ld checks at the levels", cases, checks);
    for (int i = 0; (level = zt_level_name(i)) != NULL; i++)
        printf(" %s", level);
    printf("\n");
    return 0;
}
