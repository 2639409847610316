/* Packet armor: suites 0, 1 and 3 (docs/protocol/01, section 6).
 *
 * A packet is header (27 bytes) and body; the verb is byte 0 of the body. Nothing here needs any
 * alignment, and nothing is read or written outside the lengths given. All calls are safe from
 * several threads at once on one key, which they only read. */
#ifndef ZT_ARMOR_H
#define ZT_ARMOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "dispatch.h"

enum {
    ZT_BODY = 27,                /* offset of the body */
    ZT_PACKET_MIN = 28,          /* header and verb */
    ZT_SUITE_MAC = 0,            /* clear body, Poly1305 */
    ZT_SUITE_SALSA = 1,          /* Salsa20/12 and Poly1305 */
    ZT_SUITE_AES = 3,            /* AES-GMAC-SIV */
};

/* What one peer's agreed key expands to: 1040 bytes, no pointers, may be moved with memcpy. */
typedef struct zt_key {
    uint8_t salsa[32];
    zt_aes_key aes;
} zt_key;

/* key48 is the agreed key of docs/protocol/01, 3.3. Costs some microseconds. */
void zt_key_init(zt_key *key, const uint8_t key48[48]);
void zt_key_wipe(zt_key *key);

/* Armors a whole packet of n >= 28 bytes in place under suite 0, 1 or 3. Sets the suite in the
 * flags; hops must be 0. Suite 3 replaces the packet ID. */
void zt_seal(const zt_key *key, uint8_t *packet, size_t n, int suite);

/* Checks and decrypts a whole packet in place, by the suite in its flags; the header stays as
 * received. On false (too short, not authentic, suite 2 or undefined) the packet is as it came,
 * except that under suite 3 its body is zeroed. */
bool zt_open(const zt_key *key, uint8_t *packet, size_t n);

/* The same with the body read from pieces and written to packet + 27 in one pass. packet holds the
 * header and has room for all of the body, of which there is at least the verb byte. The pieces
 * may have any lengths, zero included, and lie apart from the packet. zt_open_iov leaves no
 * plaintext in the packet on false, but its body is otherwise unspecified then. */
void zt_seal_iov(const zt_key *key, uint8_t *packet, int suite, const struct iovec *body,
                 int count);
bool zt_open_iov(const zt_key *key, uint8_t *packet, const struct iovec *body, int count);

/* The last packet of a series that is being sealed. Zero it before the first. */
typedef struct zt_sealing {
    zt_ctr_text text;            /* what has to be encrypted yet; n is 0 for nothing */
    struct iovec body[2];
} zt_sealing;

/* As zt_seal_iov, of up to two pieces, for packet after packet: the header is complete on return,
 * but encrypting the body may be left to the next call, which does both at once in less time, or to
 * zt_seal_end. Until then key, packet, and what the pieces hold (not the array) must stay. */
void zt_seal_next(zt_sealing *s, const zt_key *key, uint8_t *packet, int suite,
                  const struct iovec *body, int count);
void zt_seal_end(zt_sealing *s);

/* Encrypts or decrypts the tail of a HELLO, packet[offset:n] (docs/protocol/01, 6.5). */
void zt_mask_hello(const zt_key *key, uint8_t *packet, size_t n, size_t offset);

/* AES-256-CTR over n bytes in place, for the layer around a HELLO (docs/protocol/02, 9.1.1). The
 * counter is the last 4 bytes of the block, big-endian, and must not wrap. */
void zt_aes256_ctr(const uint8_t key[32], const uint8_t counter[16], uint8_t *p, size_t n);

#endif
