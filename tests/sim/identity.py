"""Identities for simulated nodes, made in microseconds."""

from collections.abc import Callable
from hashlib import sha512

from zt.protocol import keys
from zt.protocol.address import Address
from zt.protocol.identity import Identity


def cheap_identity(random: Callable[[int], bytes]) -> Identity:
    """Valid keys with an address that follows from them, but not by proof of work."""
    while True:
        private = random(keys.KEY_SIZE)
        public = keys.public_of(private)
        address = Address.decode(sha512(public).digest())
        if not address.reserved:
            return Identity(address, public, private)
