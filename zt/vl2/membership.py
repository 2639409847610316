"""What one network knows of one remote member: its credentials and what was revoked.

Chapter 04, 7.7. The credentials are kept whoever delivered them; whether they count is asked at the
time of use, against our own configuration.
"""

from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple, TypeAlias, TypeVar

from zt._fast.filter import Remote
from zt.protocol.address import Address
from zt.protocol.credentials import (
    Capability,
    Com,
    FindIdentity,
    Kind,
    Ownership,
    Revocation,
    Tag,
    Verdict,
)
from zt.protocol.identity import Identity

MAX_TAGS = 128
MAX_CAPABILITIES = 128
MAX_OWNERSHIPS = 16
MAX_REVOCATIONS = 1024
"""Per member. Only the controller can sign any, so these bound its mistakes."""

NEVER = -(1 << 62)
"""A time before every other."""

C = TypeVar("C", Tag, Capability, Ownership)
Credential: TypeAlias = Com | Capability | Tag | Ownership | Revocation


class Added(Enum):
    """What became of a credential."""

    REJECTED = 0
    NEW = 1
    REDUNDANT = 2
    DEFERRED = 3
    """A signer's identity is not known yet."""


class Outcome(NamedTuple):
    result: Added
    reason: str = ""
    """Why it was rejected, in the words of remote traces."""


NEW = Outcome(Added.NEW)
REDUNDANT = Outcome(Added.REDUNDANT)
DEFERRED = Outcome(Added.DEFERRED)


def _rejected(reason: str) -> Outcome:
    return Outcome(Added.REJECTED, reason)


class Membership:
    """One remote member of one network. Times are local ms, `NEVER` if it did not happen."""

    __slots__ = (
        "address",
        "capabilities",
        "com",
        "com_threshold",
        "liked_ms",
        "ownerships",
        "pushed_ms",
        "revoked",
        "tags",
        "used_ms",
    )

    def __init__(self, address: Address, now_ms: int) -> None:
        self.address = address
        self.com = Com()
        self.com_threshold = 0
        """Certificates of membership up to this time are revoked."""
        self.tags: dict[int, Tag] = {}
        self.capabilities: dict[int, Capability] = {}
        self.ownerships: dict[int, Ownership] = {}
        self.revoked: dict[tuple[int, int], int] = {}
        """Threshold by (type, credential ID)."""
        self.pushed_ms = NEVER
        """When our credentials were last sent to it."""
        self.liked_ms = NEVER
        """When our multicast groups were last announced to it."""
        self.used_ms = now_ms
        """When something last passed between us on this network."""

    # -- taking credentials ------------------------------------------------------------------

    def add(self, credential: Credential, find: FindIdentity) -> Outcome:
        """Takes a credential that was issued to this member (a revocation: that targets it)."""
        match credential:
            case Com():
                return self._add_com(credential, find)
            case Tag():
                return self._add(Kind.TAG, self.tags, MAX_TAGS, credential, find)
            case Capability():
                return self._add(
                    Kind.CAPABILITY, self.capabilities, MAX_CAPABILITIES, credential, find
                )
            case Ownership():
                return self._add(Kind.OWNERSHIP, self.ownerships, MAX_OWNERSHIPS, credential, find)
            case Revocation():
                return self._add_revocation(credential, find)

    def _add_com(self, com: Com, find: FindIdentity) -> Outcome:
        if com.timestamp <= self.com_threshold:
            return _rejected("revoked")
        if com.timestamp < self.com.timestamp:
            return _rejected("old")
        if com == self.com:
            return REDUNDANT
        if (refused := _checked(com, find)) is not None:
            return refused
        self.com = com
        return NEW

    def _add(
        self, kind: Kind, held: dict[int, C], limit: int, credential: C, find: FindIdentity
    ) -> Outcome:
        present = held.get(credential.id)
        if present is not None and present.timestamp > credential.timestamp:
            return _rejected("old")
        if present == credential:
            return REDUNDANT
        threshold = self.revoked.get((kind, credential.id))
        if threshold is not None and threshold >= credential.timestamp:
            return _rejected("revoked")
        if present is None and len(held) >= limit:
            return _rejected("too many")
        if (refused := _checked(credential, find)) is not None:
            return refused
        held[credential.id] = credential
        return NEW

    def _add_revocation(self, revocation: Revocation, find: FindIdentity) -> Outcome:
        if (refused := _checked(revocation, find)) is not None:
            return refused
        kind, threshold = revocation.credential_type, revocation.threshold
        if kind == Kind.COM:
            if threshold <= self.com_threshold:
                return REDUNDANT
        elif kind in (Kind.CAPABILITY, Kind.TAG, Kind.OWNERSHIP):
            key = (kind, revocation.credential_id)
            if threshold <= self.revoked.get(key, NEVER):
                return REDUNDANT
            if key not in self.revoked and len(self.revoked) >= MAX_REVOCATIONS:
                return _rejected("too many")
            self.revoked[key] = threshold
        else:
            return _rejected("unknown type")
        # Revoking anything else counts against the certificate of membership too. Peers rely on it,
        # but a threshold never goes down (ch. 04, Q7).
        self.com_threshold = max(self.com_threshold, threshold)
        return NEW

    # -- using them --------------------------------------------------------------------------

    def agrees(self, ours: Com, holder: Identity) -> bool:
        """Whether our certificate accepts the member's, presented by `holder`."""
        return self.com.timestamp > self.com_threshold and ours.agrees(self.com, holder)

    def usable(self, timestamp_ms: int, max_delta_ms: int) -> Remote | None:
        """What the filter may count on under a config of that time; None if that is nothing."""

        def valid(kind: Kind, held: Mapping[int, Tag | Capability | Ownership]) -> list[int]:
            return [
                id
                for id, credential in held.items()
                if abs(credential.timestamp - timestamp_ms) <= max_delta_ms
                and credential.timestamp > self.revoked.get((kind, id), NEVER)
            ]

        tags = valid(Kind.TAG, self.tags)
        capabilities = valid(Kind.CAPABILITY, self.capabilities)
        ownerships = valid(Kind.OWNERSHIP, self.ownerships)
        if not tags and not capabilities and not ownerships:
            return None
        return Remote(
            tags=[(id, self.tags[id].value) for id in tags],
            capabilities=[(id, self.capabilities[id].rules) for id in capabilities],
            things=[thing for id in ownerships for thing in self.ownerships[id].things],
        )


def _checked(credential: Credential, find: FindIdentity) -> Outcome | None:
    """What stands against a credential's signature; None if nothing does."""
    match credential.verify(find):
        case Verdict.VALID:
            return None
        case Verdict.DEFERRED:
            return DEFERRED
        case _:
            return _rejected("invalid")
