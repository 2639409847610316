"""What is shown of peers: everything about each for the API, counts of them for the metrics."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from zt.vl1.path import UNKNOWN_LATENCY_MS
from zt.vl1.peer import Peer
from zt.vl1.status import PathStatus, PeerStatus

if TYPE_CHECKING:
    from zt.vl1.core import Vl1


def statuses(vl1: Vl1, now_ms: int) -> list[PeerStatus]:
    """All peers, by address."""
    return [status(vl1, vl1.peers[address], now_ms) for address in sorted(vl1.peers)]


def counts(vl1: Vl1, now_ms: int) -> Counter[tuple[bool, str]]:
    """Peers by whether they have a direct path, and by role; for many peers."""
    return Counter(
        (
            any(not (path.expired(now_ms) or path.in_doubt) for path in peer.paths),
            vl1.roots.role(peer.address),
        )
        for peer in vl1.peers.values()
    )


def status(vl1: Vl1, peer: Peer, now_ms: int) -> PeerStatus:
    main = peer.main_path(now_ms)
    bond = vl1.bonds.status(peer, now_ms)
    paths = []
    for known in peer.paths:
        path = known.path
        last_in_ms, last_out_ms = vl1.tables.path_times(path.handle)
        if known.expired(now_ms) or (known.in_doubt and peer.bond is None):
            continue
        paths.append(
            PathStatus(
                address=path.address,
                socket=path.socket,
                last_send_ms=max(path.last_out_ms, last_out_ms),
                last_receive_ms=max(known.last_in_ms, last_in_ms),
                trusted_id=path.trusted_id,
                preferred=path is main,
                bond=vl1.bonds.path_status(peer, path),
            )
        )
    latency_ms = peer.latency_ms(now_ms)
    return PeerStatus(
        address=peer.address,
        version=peer.version[1:] if peer.version else None,
        latency_ms=None if latency_ms == UNKNOWN_LATENCY_MS else latency_ms,
        role=vl1.roots.role(peer.address),
        paths=tuple(paths),
        bond=bond,
    )
