#include "greeting.h"

#include "switch_wire.h"

enum {
    TIME = WIRE_PAYLOAD + 5, /* in a HELLO, behind the version */
    IDENTITY = TIME + 8,
    VERB_OK = 0x03,
};

/* Poly1305 is a universal hash: without the secret nobody finds two texts of one digest, and the
 * digests are shown to nobody. */
static void digest(uint8_t to[16], const uint8_t secret[32], const uint8_t *packet, size_t n)
{
    const struct iovec parts[2] = {
        {(void *)(packet + WIRE_VERB), TIME - WIRE_VERB},
        {(void *)(packet + IDENTITY), n - IDENTITY},
    };
    zt_kernels_get()->poly1305(to, secret, parts, n - WIRE_VERB - 8);
}

static int64_t time_of(const uint8_t *packet)
{
    return (int64_t)load64_be(packet + TIME);
}

bool zt_greeting_note(zt_greeting *g, const uint8_t secret[32], const uint8_t *packet, size_t n, size_t tail)
{
    int64_t time, last = shared_load(&g->time);
    if (n <= IDENTITY || tail < IDENTITY || tail > n)
        return false;
    time = time_of(packet);
    shared_store(&g->time, time > last ? time : last);
    digest(g->digest, secret, packet, n);
    g->tail = (uint16_t)tail;
    return true;
}

bool zt_greeting_repeats(const zt_greeting *g, const uint8_t secret[32], const zt_key *key, uint8_t *packet,
                         size_t n)
{
    uint8_t found[16];
    if (n <= IDENTITY || n < g->tail || time_of(packet) <= shared_load(&g->time))
        return false;
    zt_mask_hello(key, packet, n, g->tail);
    digest(found, secret, packet, n);
    return memcmp(found, g->digest, sizeof found) == 0;
}

bool zt_greeting_take(zt_greeting *g, const uint8_t *packet)
{
    int64_t time = time_of(packet), last = shared_load(&g->time);
    return time > last && shared_claim(&g->time, last, time);
}

size_t zt_greeting_ok(uint8_t ok[GREETING_OK_MAX], const uint8_t *hello, uint64_t id, const zt_place *seen,
                      const uint8_t version[GREETING_VERSION])
{
    uint8_t *p = ok + WIRE_PAYLOAD;
    store64(ok, id);
    memcpy(ok + WIRE_DESTINATION, hello + WIRE_SOURCE, 5);
    memcpy(ok + WIRE_SOURCE, hello + WIRE_DESTINATION, 5);
    ok[WIRE_FLAGS] = 0;
    memset(ok + WIRE_MAC, 0, 8);
    ok[WIRE_VERB] = VERB_OK;
    *p++ = VERB_HELLO;
    memcpy(p, hello, 8);
    memcpy(p += 8, hello + TIME, 8);
    memcpy(p += 8, version, GREETING_VERSION);
    p += GREETING_VERSION;
    *p++ = seen->ip_size == 4 ? 4 : 6;
    memcpy(p, seen->ip, seen->ip_size);
    p += seen->ip_size;
    *p++ = (uint8_t)(seen->port >> 8);
    *p++ = (uint8_t)seen->port;
    *p++ = 0; /* no worlds: */
    *p++ = 0; /* who lacks one is answered by the control plane */
    return (size_t)(p - ok);
}
