from collections.abc import Iterable
from typing import Literal, NamedTuple, TypeAlias, overload

Readable: TypeAlias = bytes | bytearray | memoryview

MAX_BASE_RULES: int
MAX_CAPABILITIES: int
MAX_CAPABILITY_RULES: int
MAX_TAGS: int

ACCEPTED: int
DROPPED: int
UNMATCHED: int
REDIRECTED: int

class Copy(NamedTuple):
    address: int
    length: int
    flags: int

class Verdict(NamedTuple):
    result: int
    reason: int
    copies: tuple[Copy, ...]

class Trace(NamedTuple):
    verdict: Verdict
    base: bytes
    capability: bytes | None
    capability_id: int | None

class Remote:
    def __init__(
        self,
        *,
        capabilities: Iterable[tuple[int, bytes]] = (),
        tags: Iterable[tuple[int, int]] = (),
        things: Iterable[tuple[int, bytes]] = (),
    ) -> None: ...
    @property
    def per_segment(self) -> bool: ...

class Program:
    def __init__(
        self,
        address: int,
        rules: bytes,
        *,
        capabilities: Iterable[tuple[int, bytes]] = (),
        tags: Iterable[tuple[int, int]] = (),
        things: Iterable[tuple[int, bytes]] = (),
        exempt: Iterable[bytes] = (),
        unsupported: bool = False,
    ) -> None: ...
    @property
    def per_segment(self) -> bool: ...
    @overload
    def outbound(
        self,
        dest: int,
        source_mac: int,
        dest_mac: int,
        ethertype: int,
        payload: Readable,
        remote: Remote | None = None,
        *,
        vlan: int = 0,
        no_tee: bool = False,
        random: int = 1,
        trace: Literal[False] = False,
    ) -> Verdict: ...
    @overload
    def outbound(
        self,
        dest: int,
        source_mac: int,
        dest_mac: int,
        ethertype: int,
        payload: Readable,
        remote: Remote | None = None,
        *,
        vlan: int = 0,
        no_tee: bool = False,
        random: int = 1,
        trace: Literal[True],
    ) -> Trace: ...
    @overload
    def inbound(
        self,
        source: int,
        source_mac: int,
        dest_mac: int,
        ethertype: int,
        payload: Readable,
        remote: Remote | None = None,
        *,
        vlan: int = 0,
        random: int = 1,
        trace: Literal[False] = False,
    ) -> Verdict: ...
    @overload
    def inbound(
        self,
        source: int,
        source_mac: int,
        dest_mac: int,
        ethertype: int,
        payload: Readable,
        remote: Remote | None = None,
        *,
        vlan: int = 0,
        random: int = 1,
        trace: Literal[True],
    ) -> Trace: ...
    def repeat(
        self,
        times: int,
        dest: int,
        source_mac: int,
        dest_mac: int,
        ethertype: int,
        payload: Readable,
        remote: Remote | None = None,
    ) -> int: ...
