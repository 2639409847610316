"""Datagrams for others that the data plane could not forward (ch. 02, 2.8)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zt.protocol.address import Address
from zt.protocol.packet import (
    DESTINATION,
    FLAGS,
    FRAGMENT_HEADER_SIZE,
    FRAGMENT_INDICATOR,
    HOPS_MASK,
    RELAY_MAX_HOPS,
    SOURCE,
)
from zt.vl1.actions import Send
from zt.vl1.path import Path

if TYPE_CHECKING:
    from zt.vl1.core import Vl1

FRAGMENT_HOPS = 15


class Relay:
    """Forwarding is the data plane's: for everybody if we are a root, else for paths that are
    trusted (`Vl1.trust_path`). What is left are destinations without a way, perhaps known on disk
    only."""

    def __init__(self, vl1: Vl1) -> None:
        self._vl1 = vl1

    def forward(self, path: Path, data: bytes, now_ms: int) -> None:
        vl1 = self._vl1
        if len(data) <= FRAGMENT_HEADER_SIZE:
            return
        fragment = data[SOURCE] == FRAGMENT_INDICATOR
        at = FRAGMENT_HOPS if fragment else FLAGS
        if data[at] & HOPS_MASK >= RELAY_MAX_HOPS:
            return
        destination = Address.decode(data[DESTINATION:SOURCE])
        peer = vl1.peers.get(destination)
        if peer is None:
            vl1.look_up(destination, now_ms)
            relay = vl1.contact.relay_for(None)
            way = relay
        else:
            way = peer.route[0]
        if way is None or way is path:
            return
        datagram = bytearray(data)
        datagram[at] += 1
        ip, port = way.address
        vl1.emit(Send(way.socket, ip, port, bytes(datagram)))
        if peer is not None and not fragment:
            source = Address.decode(data[SOURCE:FLAGS])
            vl1.nat.introduce(source, destination, now_ms)
