/* SHA-512, and the key derivation on SHA-384 (FIPS 180-4; docs/protocol/01, 2.3 to 2.5). */
#ifndef ZT_SHA512_H
#define ZT_SHA512_H

#include <stddef.h>
#include <stdint.h>

void zt_sha512(uint8_t digest[64], const uint8_t *data, size_t n);

/* KBKDF: HMAC-SHA-384 of the label, context and iteration under the agreed key. */
void zt_kbkdf(uint8_t out[48], const uint8_t key48[48], uint8_t label, uint8_t context,
              uint32_t iteration);

#endif
