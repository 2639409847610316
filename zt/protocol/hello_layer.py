"""The layer that later versions of the original can put around a HELLO (chapter 02, 9.1.1).

It hides identity and version from whoever looks on; it authenticates nothing. What is under it is
an ordinary HELLO with its own MAC. We remove the layer and never add it.
"""

from zt._fast.cipher import aes256_ctr_xor
from zt.protocol import keys
from zt.protocol.errors import DecodeError
from zt.protocol.packet import FLAGS, MAC, PAYLOAD, SOURCE, SUITE_MASK, VERB, Verb

FLAG_LAYERED = 0x80
"""In the flags byte, with suite 0."""
KEY_SIZE = 32
_ADDRESS = PAYLOAD + 13
"""Where a HELLO has the address of its identity, 5 bytes."""


def is_layered(packet: bytes | bytearray) -> bool:
    """Whether an armored packet (28 bytes or more) carries the layer."""
    return packet[FLAGS] & (FLAG_LAYERED | SUITE_MASK) == FLAG_LAYERED


def remove(packet: bytes, private_key: bytes | bytearray) -> bytearray:
    """The HELLO under the layer, still armored. Costs an X25519 agreement.

    :param private_key: the receiver's, 64 bytes.
    :raises DecodeError: too short, an unusable one-time key, or no HELLO of the packet's source.
    """
    end = len(packet) - KEY_SIZE
    if end < _ADDRESS + 5:
        raise DecodeError(f"layered HELLO of {len(packet)} bytes")
    key = keys.agree(private_key, packet[end:])[:KEY_SIZE]
    # Public sources differ in how the counter starts; the plaintext tells which one it was.
    for counter in (packet[:12] + bytes(4), packet[:16]):
        inner = bytearray(packet[:end])
        aes256_ctr_xor(memoryview(inner)[MAC:], key, counter)
        if inner[VERB] == Verb.HELLO and inner[_ADDRESS : _ADDRESS + 5] == inner[SOURCE:FLAGS]:
            return inner
    raise DecodeError("no HELLO of its source under the layer")
