"""Physical paths: (local socket, remote IP, remote port)."""

from dataclasses import dataclass

from zt.protocol.inet import InetAddress

UNKNOWN_LATENCY_MS = 65535


@dataclass(slots=True, eq=False)
class Path:
    """One physical path, shared by all peers seen on it (ch. 03, 4). Times in ms, 0 = never."""

    socket: int
    address: InetAddress
    last_out_ms: int = 0
    trusted_ms: int = 0
