/* Key material of suite 3, computed once per peer by portable constant-time code and laid out
 * alike for every level. */
#ifndef ZT_AES_KEY_H
#define ZT_AES_KEY_H

#include "dispatch.h"

/* FIPS 197 key expansion to plain round keys. */
void zt_aes256_expand(uint8_t round_keys[ZT_AES256_ROUND_KEYS], const uint8_t key[32]);

/* Schedules of both keys and the GHASH powers of K0. */
void zt_aes_key_init(zt_aes_key *key, const uint8_t k0[32], const uint8_t k1[32]);

#endif
