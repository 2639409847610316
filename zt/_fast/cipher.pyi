"""Packet armor and the ciphers under it (docs/protocol/01, sections 2 and 6).

Everything works in place on buffers of the caller: writable contiguous bytes, such as bytearray or
a memoryview of one. A buffer must not be resized or written by others during a call.
"""

from typing import TypeAlias, final

_Writable: TypeAlias = bytearray | memoryview
_Readable: TypeAlias = bytes | bytearray | memoryview

@final
class PeerKey:
    """One peer's agreed key, expanded for every suite. Wiped on release.

    May be used from several threads at once.
    """

    def __init__(self, key48: _Readable) -> None: ...
    def seal(self, packet: _Writable, suite: int) -> None:
        """Armor a whole packet (28 bytes or more) in place under suite 0, 1 or 3.

        Sets the suite in the flags, leaves hops (which must be 0) and the fragmented flag. Suite 3
        replaces the packet ID, bytes 0 to 7, by the one that goes on the wire.
        """

    def open(self, packet: _Writable) -> bool:
        """Check and decrypt a whole packet in place, by the suite in its flags.

        False if it is not authentic, too short, or of another suite than 0, 1 and 3; no plaintext
        is left in it then: it is as it came, or with its body zeroed under suite 3.
        """

    def mask_hello(self, packet: _Writable, offset: int) -> None:
        """Encrypt or decrypt the tail of a HELLO, packet[offset:], in place (6.5).

        Under the packet ID as it stands in the packet.
        """

def salsa20_xor(
    buffer: _Writable, key: _Readable, iv: _Readable, rounds: int = 12, counter: int = 0
) -> None:
    """XOR the buffer in place with the Salsa20 keystream from block `counter` on (2.1).

    key is 32 bytes, iv 8, rounds 12 or 20.
    """

def aes256_ctr_xor(buffer: _Writable, key: _Readable, counter: _Readable) -> None:
    """XOR the buffer in place with the AES-256-CTR keystream (02, 9.1.1).

    key is 32 bytes, counter the first block of 16, whose last 4 bytes count and must not wrap.
    """

def poly1305(key: _Readable, data: _Readable) -> bytes:
    """The 16-byte Poly1305 tag of the data under a 32-byte one-time key (2.2)."""

def kbkdf(key48: _Readable, label: int, context: int, iteration: int) -> bytes:
    """48 bytes derived from an agreed key of 48 (2.5)."""

def measure(operation: str, size: int, count: int) -> float:
    """Seconds that `count` runs of an operation take back to back, without Python in between.

    Operations: "salsa2012", "poly1305" and "checksum" over `size` bytes; "seal0", "seal1",
    "seal3" and "open0", "open1", "open3", the armor of whole packets of `size` (28 or more) under
    that suite. Sealing works in place, on two buffers in turn and as the packets of a burst are
    sealed; opening reads one buffer and writes another.
    """

def levels() -> tuple[str, ...]:
    """Names of the kernel levels this CPU has, "portable" first and the best last."""

def level() -> str:
    """Name of the kernel level in use."""

def set_level(name: str) -> None:
    """Use another level, in this extension module only; each extension has its own choice.

    ZT_CPU_LEVEL in the environment at start reaches all of them. ValueError if this CPU has no
    such level.
    """
