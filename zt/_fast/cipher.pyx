# cython: freethreading_compatible=True
"""Packet armor and the ciphers under it (docs/protocol/01, sections 2 and 6).

Everything works in place on buffers of the caller. Packets and keys are read and written through
writable contiguous buffers; a buffer must not be resized or written by others during a call.
"""

import os

cimport cython

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec


cdef extern from "dispatch.h" nogil:
    struct zt_kernels:
        const char *name
        uint64_t (*checksum)(const uint8_t *src, size_t n) noexcept nogil
        void (*salsa20)(uint32_t *state, int rounds, uint8_t *dst, const uint8_t *src, size_t n) noexcept nogil
        void (*poly1305)(uint8_t *tag, const uint8_t *key, const iovec *pieces, size_t n) noexcept nogil

    const zt_kernels *zt_kernels_get() noexcept
    const char *zt_level_name(int i) noexcept
    bint zt_level_set(const char *name) noexcept


cdef extern from "salsa20.h" nogil:
    void zt_salsa20_init(uint32_t *state, const uint8_t *key, const uint8_t *iv, uint64_t counter) noexcept


cdef extern from "sha512.h" nogil:
    void zt_kbkdf(uint8_t *out, const uint8_t *key48, uint8_t label, uint8_t context,
                  uint32_t iteration) noexcept


cdef extern from "bytes.h" nogil:
    void zt_wipe(void *p, size_t n) noexcept nogil


cdef enum:
    # Below this many bytes a call takes less than handing the GIL over and back.
    GIL_WORTH = 2048
    MAX_PACKET = 65535   # what the length in the per-packet key of suites 0 and 1 can tell apart


@cython.final
cdef class PeerKey:
    """One peer's agreed key, expanded for every suite. Wiped on release.

    May be used from several threads at once.
    """

    def __cinit__(self, const uint8_t[::1] key48 not None):
        if key48.shape[0] != 48:
            raise ValueError("an agreed key has 48 bytes")
        zt_key_init(&self.key, &key48[0])

    def __dealloc__(self):
        zt_key_wipe(&self.key)

    def seal(self, uint8_t[::1] packet not None, int suite):
        """Armor a whole packet (28 bytes or more) in place under suite 0, 1 or 3.

        Sets the suite in the flags, leaves hops (which must be 0) and the fragmented flag. Suite 3
        replaces the packet ID, bytes 0 to 7, by the one that goes on the wire.
        """
        cdef size_t n = packet.shape[0]
        cdef uint8_t *p
        if suite != ZT_SUITE_MAC and suite != ZT_SUITE_SALSA and suite != ZT_SUITE_AES:
            raise ValueError("the armored suites are 0, 1 and 3")
        if n < ZT_PACKET_MIN or n > MAX_PACKET:
            raise ValueError("a packet has 28 to 65535 bytes")
        p = &packet[0]
        if n < GIL_WORTH:
            zt_seal(&self.key, p, n, suite)
        else:
            with nogil:
                zt_seal(&self.key, p, n, suite)

    def open(self, uint8_t[::1] packet not None):
        """Check and decrypt a whole packet in place, by the suite in its flags.

        False if it is not authentic, too short, or of another suite than 0, 1 and 3; no plaintext
        is left in it then: it is as it came, or with its body zeroed under suite 3.
        """
        cdef size_t n = packet.shape[0]
        cdef uint8_t *p
        cdef bint authentic
        if n < ZT_PACKET_MIN or n > MAX_PACKET:
            return False
        p = &packet[0]
        if n < GIL_WORTH:
            authentic = zt_open(&self.key, p, n)
        else:
            with nogil:
                authentic = zt_open(&self.key, p, n)
        return authentic

    def mask_hello(self, uint8_t[::1] packet not None, Py_ssize_t offset):
        """Encrypt or decrypt the tail of a HELLO, packet[offset:], in place (6.5).

        Under the packet ID as it stands in the packet.
        """
        cdef size_t n = packet.shape[0]
        if n < ZT_PACKET_MIN or offset < 8 or <size_t> offset > n:
            raise ValueError("the tail of a HELLO lies in the packet, after the ID")
        zt_mask_hello(&self.key, &packet[0], n, offset)


def salsa20_xor(uint8_t[::1] buffer not None, const uint8_t[::1] key not None,
                const uint8_t[::1] iv not None, int rounds=12, uint64_t counter=0):
    """XOR the buffer in place with the Salsa20 keystream from block `counter` on (2.1).

    key is 32 bytes, iv 8, rounds 12 or 20.
    """
    cdef uint32_t state[16]
    cdef uint8_t *p
    cdef size_t n = buffer.shape[0]
    if key.shape[0] != 32 or iv.shape[0] != 8:
        raise ValueError("Salsa20 takes a 32-byte key and an 8-byte IV")
    if rounds != 12 and rounds != 20:
        raise ValueError("Salsa20 has 12 or 20 rounds")
    if n == 0:
        return
    zt_salsa20_init(state, &key[0], &iv[0], counter)
    p = &buffer[0]
    with nogil:
        zt_kernels_get().salsa20(state, rounds, p, p, n)
    zt_wipe(state, sizeof(state))


def aes256_ctr_xor(uint8_t[::1] buffer not None, const uint8_t[::1] key not None,
                   const uint8_t[::1] counter not None):
    """XOR the buffer in place with the AES-256-CTR keystream (02, 9.1.1).

    key is 32 bytes, counter the first block of 16, whose last 4 bytes count and must not wrap.
    """
    if key.shape[0] != 32 or counter.shape[0] != 16:
        raise ValueError("AES-256-CTR takes a 32-byte key and a 16-byte counter")
    if buffer.shape[0]:
        zt_aes256_ctr(&key[0], &counter[0], &buffer[0], buffer.shape[0])


def poly1305(const uint8_t[::1] key not None, const uint8_t[::1] data not None):
    """The 16-byte Poly1305 tag of the data under a 32-byte one-time key (2.2)."""
    cdef uint8_t tag[16]
    cdef const uint8_t *k
    cdef iovec piece
    if key.shape[0] != 32:
        raise ValueError("Poly1305 takes a 32-byte key")
    piece.iov_len = data.shape[0]
    piece.iov_base = <void *> &data[0] if piece.iov_len else tag
    k = &key[0]
    with nogil:
        zt_kernels_get().poly1305(tag, k, &piece, piece.iov_len)
    return bytes(tag[:16])


def kbkdf(const uint8_t[::1] key48 not None, uint8_t label, uint8_t context, uint32_t iteration):
    """48 bytes derived from an agreed key of 48 (2.5)."""
    cdef uint8_t out[48]
    if key48.shape[0] != 48:
        raise ValueError("an agreed key has 48 bytes")
    zt_kbkdf(out, &key48[0], label, context, iteration)
    try:
        return bytes(out[:48])
    finally:
        zt_wipe(out, sizeof(out))


def measure(str operation not None, Py_ssize_t size, int count):
    """Seconds that `count` runs of an operation take back to back, without Python in between.

    Operations: "salsa2012", "poly1305" and "checksum" over `size` bytes; "seal0", "seal1",
    "seal3" and "open0", "open1", "open3", the armor of whole packets of `size` (28 or more) under
    that suite. Sealing works in place, on two buffers in turn and as the packets of a burst are
    sealed; opening reads one buffer and writes another.
    """
    cdef int suite = -1
    cdef bint opening = False
    if operation[:-1] in ("seal", "open") and operation[-1] in "013":
        suite = int(operation[-1])
        opening = operation[:-1] == "open"
    elif operation not in ("salsa2012", "poly1305", "checksum"):
        raise ValueError(f"no operation {operation!r}")
    if size < ZT_PACKET_MIN or size > MAX_PACKET or count < 1:
        raise ValueError("size is 28 to 65535, count 1 or more")
    cdef bytearray text = bytearray(size), other = bytearray(size)
    cdef PeerKey peer = PeerKey(bytes(range(48)))
    cdef uint8_t *p = text
    cdef uint8_t *q = other
    cdef uint8_t tag[16]
    cdef uint32_t state[16]
    cdef size_t n = size
    cdef iovec piece
    cdef zt_sealing series
    cdef const zt_kernels *k = zt_kernels_get()
    cdef bint is_salsa = operation == "salsa2012", is_poly = operation == "poly1305"
    cdef bint authentic = True
    cdef uint64_t sum = 0
    cdef timespec start, end
    cdef int i
    piece.iov_base = p
    piece.iov_len = n
    memset(state, 0, sizeof(state))
    memset(tag, 0, sizeof(tag))
    memset(&series, 0, sizeof(series))
    if opening:
        zt_seal(&peer.key, p, n, suite)
        memcpy(q, p, ZT_BODY)
        piece.iov_base = p + ZT_BODY
        piece.iov_len = n - ZT_BODY
    with nogil:
        clock_gettime(CLOCK_MONOTONIC, &start)
        for i in range(count):
            if opening:
                authentic &= zt_open_iov(&peer.key, q, &piece, 1)
            elif suite >= 0:
                piece.iov_base = p + ZT_BODY
                piece.iov_len = n - ZT_BODY
                zt_seal_next(&series, &peer.key, p, suite, &piece, 1)
                p, q = q, p
            elif is_salsa:
                k.salsa20(state, 12, p, p, n)
            elif is_poly:
                k.poly1305(tag, <const uint8_t *> &peer.key, &piece, n)
            else:
                sum += k.checksum(p, n)
        zt_seal_end(&series)
        clock_gettime(CLOCK_MONOTONIC, &end)
    if not authentic:
        raise RuntimeError("a packet of our own did not open")
    return (end.tv_sec - start.tv_sec) + (end.tv_nsec - start.tv_nsec) * 1e-9


def levels():
    """Names of the kernel levels this CPU has, "portable" first and the best last."""
    names = []
    cdef const char *name
    while (name := zt_level_name(len(names))) is not NULL:
        names.append(name.decode())
    return tuple(names)


def level():
    """Name of the kernel level in use."""
    return zt_kernels_get().name.decode()


def set_level(str name not None):
    """Use another level, in this extension module only; each extension has its own choice.

    ZT_CPU_LEVEL in the environment at start reaches all of them. ValueError if this CPU has no
    such level.
    """
    if not zt_level_set(name.encode()):
        raise ValueError(f"this CPU has the levels {', '.join(levels())}, not {name!r}")


if (forced := os.environ.get("ZT_CPU_LEVEL")) is not None:
    set_level(forced)
