# The C interface of packet armor, for the other extensions. armor.h has the rules.
cimport cython
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t


cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len


cdef extern from "armor.h" nogil:
    enum:
        ZT_BODY
        ZT_PACKET_MIN
        ZT_SUITE_MAC
        ZT_SUITE_SALSA
        ZT_SUITE_AES

    struct zt_key:
        pass

    struct zt_sealing:
        pass

    void zt_key_init(zt_key *key, const uint8_t *key48) noexcept
    void zt_key_wipe(zt_key *key) noexcept
    void zt_seal(const zt_key *key, uint8_t *packet, size_t n, int suite) noexcept
    bint zt_open(const zt_key *key, uint8_t *packet, size_t n) noexcept
    void zt_seal_iov(const zt_key *key, uint8_t *packet, int suite, const iovec *body, int count) noexcept
    void zt_seal_next(
        zt_sealing *s, const zt_key *key, uint8_t *packet, int suite, const iovec *body, int count
    ) noexcept
    void zt_seal_end(zt_sealing *s) noexcept
    bint zt_open_iov(const zt_key *key, uint8_t *packet, const iovec *body, int count) noexcept
    void zt_mask_hello(const zt_key *key, uint8_t *packet, size_t n, size_t offset) noexcept
    void zt_aes256_ctr(const uint8_t *key, const uint8_t *counter, uint8_t *p, size_t n) noexcept


@cython.final
cdef class PeerKey:
    cdef zt_key key      # owned; wiped on release. Copy it to keep it longer than the object
