"""Identities: an address bound to a public key by proof of work (chapter 01, 4 and 5)."""

from collections.abc import Callable
from hashlib import sha384, sha512
from typing import Self

from zt._fast.memhash import memory_hard_hash
from zt.protocol import keys
from zt.protocol.address import Address
from zt.protocol.errors import DecodeError
from zt.protocol.keys import KEY_SIZE, Secret
from zt.protocol.text import HEX_DIGITS, hex_u64
from zt.protocol.wire import Reader, Value

PUBLIC_SIZE = 71
"""Size of the binary form without private key, the only one on the wire."""
POW_THRESHOLD = 17
TEXT_LIMIT = 384
"""Texts of this length or more are refused."""


class Identity(Value):
    """An address and a public key; with a private key if it is our own.

    Equality, order and hash look at address and public key only. Nothing here validates the proof
    of work except `validate`.
    """

    __slots__ = ("_private", "address", "public_key")

    address: Address
    public_key: bytes

    def __init__(
        self, address: Address, public_key: bytes, private_key: bytes | bytearray | None = None
    ) -> None:
        """Keys are 64 bytes each; the private one is copied and wiped with the object."""
        self.address = address
        self.public_key = public_key
        self._private = None if private_key is None else Secret(private_key)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Identity):
            return NotImplemented
        return self.address == other.address and self.public_key == other.public_key

    def __lt__(self, other: "Identity") -> bool:
        """Address first, then public key: the order of roots in a world."""
        return (self.address, self.public_key) < (other.address, other.public_key)

    def __hash__(self) -> int:
        return hash((self.address, self.public_key))

    def __repr__(self) -> str:
        return f"Identity({self.address}{', secret' if self.has_private else ''})"

    def __str__(self) -> str:
        """The public text form."""
        return self.to_text()

    @property
    def has_private(self) -> bool:
        return self._private is not None

    @property
    def private_key(self) -> Secret:
        """The 64 secret bytes themselves, not a copy. Only if `has_private`."""
        if self._private is None:
            raise ValueError(f"identity {self.address} has no private key")
        return self._private

    def public(self) -> "Identity":
        """The same identity without private key."""
        return Identity(self.address, self.public_key) if self.has_private else self

    def wipe(self) -> None:
        """Overwrite and forget the private key."""
        if self._private is not None:
            self._private.wipe()
            self._private = None

    # What it is for

    def hash(self) -> bytes:
        """SHA-384 of address and public key, 48 bytes; certificates of membership carry it."""
        return sha384(self.address.encode() + self.public_key).digest()

    def private_hash(self) -> bytes:
        """SHA-512 of the private key, used by controller storage only."""
        return sha512(self.private_key).digest()

    def agree(self, other: "Identity") -> bytes:
        """The 48-byte secret shared with another identity.

        :raises DecodeError: the other's public key is unusable.
        """
        return keys.agree(self.private_key, other.public_key)

    def sign(self, message: bytes) -> bytes:
        """Our 96-byte signature of a message."""
        return keys.sign(self.private_key, self.public_key, message)

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Did this identity sign the message?"""
        return keys.verify(self.public_key, message, signature)

    def validate(self) -> bool:
        """Does the address follow from the public key by proof of work? Costs tens of ms."""
        if self.address.reserved:
            return False
        digest = memory_hard_hash(self.public_key)
        return digest[0] < POW_THRESHOLD and digest[59:] == self.address.encode()

    def private_matches(self) -> bool:
        """Does the private key belong to the public key?"""
        return keys.public_of(self.private_key) == self.public_key

    @classmethod
    def generate(cls, random: Callable[[int], bytes]) -> Self:
        """A new identity; takes about 15 proof-of-work hashes.

        ``random(n)`` must return n bytes fit for keys.
        """
        while True:
            seed = Secret(random(32))
            ed25519 = keys.ed25519_public_of(seed)
            while True:
                private = Secret(random(32) + seed)
                public = keys.x25519_public_of(private[:32]) + ed25519
                digest = memory_hard_hash(public)
                if digest[0] < POW_THRESHOLD:
                    break
            address = Address.decode(digest[59:])
            if not address.reserved:
                return cls(address, public, private)

    # Forms

    def encode(self, private: bool = False) -> bytes:
        """Binary form, 71 bytes; 135 with the private key."""
        head = self.address.encode() + b"\0" + self.public_key
        return head + b"\x40" + self.private_key if private else head + b"\0"

    @classmethod
    def read(cls, reader: Reader) -> Self:
        address = Address.read(reader)
        kind = reader.u8()
        if kind != 0:
            raise DecodeError(f"unknown type of identity: {kind}")
        public_key = reader.take(KEY_SIZE)
        private_size = reader.u8()
        if private_size == 0:
            return cls(address, public_key)
        if private_size != KEY_SIZE:
            raise DecodeError(f"private key of {private_size} bytes")
        return cls(address, public_key, reader.take(KEY_SIZE))

    def to_text(self, private: bool = False) -> str:
        """Text form: 141 characters; 270 with the private key."""
        text = f"{self.address}:0:{self.public_key.hex()}"
        return f"{text}:{self.private_key.hex()}" if private else text

    @classmethod
    def parse(cls, text: str) -> Self:
        """From the text form, as leniently as files and command lines have always been read.

        Empty fields vanish, key characters that are not hexadecimal count as 0, excess is ignored.
        """
        if len(text) >= TEXT_LIMIT:
            raise DecodeError("identity text too long")
        fields = [field for field in text.split(":") if field]
        if len(fields) not in (3, 4):
            raise DecodeError(f"identity text of {len(fields)} fields")
        if fields[1] != "0":
            raise DecodeError(f"unknown type of identity: {fields[1]!r}")
        address = Address(hex_u64(fields[0]) & 0xFF_FFFF_FFFF)
        if address.reserved:
            raise DecodeError(f"reserved address in identity text: {address}")
        private_key = _parse_key(fields[3]) if len(fields) == 4 else None
        return cls(address, _parse_key(fields[2]), private_key)


def _parse_key(text: str) -> bytes:
    if len(text) < 2 * KEY_SIZE:
        raise DecodeError("key too short in identity text")
    return bytes.fromhex("".join(c if c in HEX_DIGITS else "0" for c in text[: 2 * KEY_SIZE]))
