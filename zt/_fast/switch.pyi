from typing import NamedTuple

from zt._fast.tables import Tables

HELLO: int
UNKNOWN: int
TRUSTED: int
PACKET: int
RELAY: int
FRAME: int
INTRODUCE: int
RECEIVED: int
SEND: int
DROPPED: int
DROP_REASONS: tuple[str, ...]

class Punt(NamedTuple):
    kind: int
    socket: int
    ip: bytes
    port: int
    address: int
    nwid: int
    hops: int
    data: bytes

class Switch:
    tables: Tables
    def __init__(self, tables: Tables, *, seed: bytes | None = None) -> None: ...
    def datagram(self, socket: int, ip: bytes, port: int, data: bytes, now_ms: int) -> None: ...
    def frame(self, nwid: int, frame: bytes, now_ms: int) -> None: ...
    def frames_in(self, nwid: int, frames: list[bytes], now_ms: int) -> None: ...
    def datagrams_in(
        self,
        socket: int,
        ip: bytes,
        port: int,
        data: bytes,
        segment: int,
        now_ms: int,
        *,
        times: int = 1,
    ) -> None: ...
    def burst(
        self, nwid: int, vnet: bytes, frame: bytes, now_ms: int, *, times: int = 1
    ) -> None: ...
    def packet(self, socket: int, ip: bytes, port: int, packet: bytes, now_ms: int) -> bool: ...
    def take_datagrams(self) -> list[tuple[int, bytes, int, bytes]]: ...
    def take_frames(self) -> list[tuple[int, bytes]]: ...
    def take_punts(self) -> list[Punt]: ...
    def tell_drops(self, credit: int) -> None: ...
    def counters(self) -> dict[str, int]: ...
