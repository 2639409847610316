# cython: freethreading_compatible=True
"""The identity proof of work (docs/protocol/01, 4.2)."""

from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport free, malloc


cdef extern from "memhash.h" nogil:
    enum:
        ZT_MEMHASH_TABLE
    void zt_memory_hard_hash(uint8_t *digest, const uint8_t *public_key, uint64_t *table) noexcept


def memory_hard_hash(const uint8_t[::1] public64 not None):
    """The 64-byte digest of a 64-byte public key.

    Takes 2 MiB of memory and some milliseconds, without the GIL.
    """
    cdef uint8_t digest[64]
    cdef const uint8_t *key
    cdef uint64_t *table
    if public64.shape[0] != 64:
        raise ValueError("a public key has 64 bytes")
    table = <uint64_t *> malloc(ZT_MEMHASH_TABLE)
    if table is NULL:
        raise MemoryError
    key = &public64[0]
    with nogil:
        zt_memory_hard_hash(digest, key, table)
    free(table)
    return bytes(digest[:64])
