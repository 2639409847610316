"""Key agreement and signatures with 64-byte keys (chapter 01, 3).

A key is an X25519 half followed by an Ed25519 half; private halves are the raw scalar and the seed.
"""

from collections.abc import Callable
from hashlib import sha512
from hmac import compare_digest
from typing import Self

from nacl.bindings import (
    crypto_scalarmult,
    crypto_scalarmult_base,
    crypto_sign,
    crypto_sign_open,
    crypto_sign_seed_keypair,
)
from nacl.exceptions import BadSignatureError

from zt.protocol.errors import DecodeError

KEY_SIZE = 64
SIGNATURE_SIZE = 96
AGREED_SIZE = 48


class Secret(bytearray):
    """Key bytes that are overwritten when they are released, as far as Python allows.

    The bindings of the crypto library take ``bytes``, so short-lived copies do remain.
    """

    def wipe(self) -> None:
        self[:] = bytes(len(self))

    def __del__(self) -> None:
        self.wipe()

    def __repr__(self) -> str:
        return "Secret(...)"


def public_of(private: bytes | bytearray) -> bytes:
    """The 64-byte public key of a private one."""
    return x25519_public_of(private[:32]) + ed25519_public_of(private[32:])


def x25519_public_of(scalar: bytes | bytearray) -> bytes:
    return crypto_scalarmult_base(bytes(scalar))


def ed25519_public_of(seed: bytes | bytearray) -> bytes:
    return crypto_sign_seed_keypair(bytes(seed))[0]


def agree(private: bytes | bytearray, public: bytes) -> bytes:
    """The 48 bytes that two nodes share.

    :raises DecodeError: the public key is of low order, which no honest identity has.
    """
    try:
        raw = crypto_scalarmult(bytes(private[:32]), public[:32])
    except RuntimeError:
        raise DecodeError("public key of low order") from None
    return sha512(raw).digest()[:AGREED_SIZE]


def sign(private: bytes | bytearray, public: bytes, message: bytes) -> bytes:
    """The 96-byte signature R || S || digest; deterministic."""
    digest = sha512(message).digest()[:32]
    return crypto_sign(digest, bytes(private[32:]) + public[32:])


def verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """Strict Ed25519 verification, digest first."""
    if len(signature) != SIGNATURE_SIZE:
        return False
    if not compare_digest(sha512(message).digest()[:32], signature[64:]):
        return False
    try:
        crypto_sign_open(signature, public[32:])
    except BadSignatureError:
        return False
    return True


class KeyPair:
    """A bare signing key without address and proof of work, as worlds are signed with."""

    __slots__ = ("_private", "public")

    def __init__(self, private: bytes | bytearray, public: bytes | None = None) -> None:
        if len(private) != KEY_SIZE:
            raise DecodeError(f"private key of {len(private)} bytes")
        self._private = Secret(private)
        self.public = public_of(private) if public is None else public

    @classmethod
    def generate(cls, random: Callable[[int], bytes]) -> Self:
        """From 64 bytes of ``random``."""
        return cls(random(KEY_SIZE))

    @property
    def private(self) -> bytes:
        """A copy, for storing."""
        return bytes(self._private)

    def sign(self, message: bytes) -> bytes:
        return sign(self._private, self.public, message)
