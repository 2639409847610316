"""Frames and datagrams of a host, sent and seen below and beside its own programs."""

import contextlib
import os
import select
import socket
import struct
import time
from collections.abc import Iterator

from bench.lab import Host
from bench.traffic import checksum

ETH_P_ALL = 3
SOL_PACKET, PACKET_AUXDATA, VLAN_VALID = 263, 8, 0x10
IP_MTU_DISCOVER, IP_PMTUDISC_DO = 10, 2


def echo(host: Host, address: str, size: int = 16) -> bool:
    """Whether an ICMP echo of that many bytes behind its IP header, which must not be fragmented,
    is answered within a second."""

    def ask() -> bool:
        family, protocol, request, answer, start = (
            (socket.AF_INET6, socket.IPPROTO_ICMPV6, 128, 129, 0)
            if ":" in address
            else (socket.AF_INET, socket.IPPROTO_ICMP, 8, 0, 20)
        )
        token = os.urandom(8)
        packet = bytes([request, 0, 0, 0, 0, 1, 0, 1]) + token + bytes(size - 16)
        packet = packet[:2] + checksum(packet).to_bytes(2) + packet[4:]
        with socket.socket(family, socket.SOCK_RAW, protocol) as raw:
            if family == socket.AF_INET:
                raw.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
            raw.connect((address, 0))
            raw.send(packet)
            deadline = time.monotonic() + 1.0
            while (left := deadline - time.monotonic()) > 0:
                if select.select([raw], [], [], left)[0]:
                    data = raw.recv(65536)[start:]
                    if data[:1] == bytes([answer]) and data[8:16] == token:
                        return True
        return False

    try:
        return host.inside(ask)
    except OSError:
        return False  # no route, or too large


@contextlib.contextmanager
def capture(host: Host, device: str) -> Iterator[socket.socket]:
    """A socket that sees every frame that comes out of a device; to be read with `receive`."""

    def open_socket() -> socket.socket:
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        raw.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        raw.bind((device, ETH_P_ALL))
        return raw

    with host.inside(open_socket) as raw:
        yield raw


def receive(raw: socket.socket) -> bytes:
    """The next frame, whole."""
    data, ancillary, _, _ = raw.recvmsg(70_000, 64)
    for level, kind, content in ancillary:
        if (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
            status, _, _, _, _, tag, protocol = struct.unpack("IIIHHHH", content)
            if status & VLAN_VALID:  # the kernel took the tag off: put it back
                data = data[:12] + struct.pack("!HH", protocol or 0x8100, tag) + data[12:]
    return data


def arrives(raw: socket.socket, mark: bytes, timeout_s: float = 3.0) -> bytes:
    """The first frame with these bytes; empty if none comes within the time."""
    deadline = time.monotonic() + timeout_s
    while (left := deadline - time.monotonic()) > 0:
        if select.select([raw], [], [], left)[0] and mark in (data := receive(raw)):
            return data
    return b""


def frame(host: Host, device: str, data: bytes) -> None:
    """Sends an Ethernet frame."""

    def send() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind((device, 0))
            raw.send(data)

    host.inside(send)


def udp(host: Host, target: str, text: bytes, port: int = 4000) -> None:
    """Sends a datagram."""

    def send() -> None:
        family = socket.AF_INET6 if ":" in target else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as sender:
            sender.sendto(text, (target, port))

    host.inside(send)


def hears(receiver: socket.socket, text: bytes) -> bool:
    """Whether this datagram comes within a second."""
    deadline = time.monotonic() + 1.0
    while (left := deadline - time.monotonic()) > 0:
        if select.select([receiver], [], [], left)[0] and receiver.recv(1000) == text:
            return True
    return False
