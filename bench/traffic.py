"""Traffic for the demonstration and the benchmarks, cheap enough not to be the limit.

    python -m bench.traffic tcp-sink PORT --streams 4
    python -m bench.traffic tcp-source ADDRESS PORT --streams 4 --seconds 5

Each command prints one JSON object on stdout when it is done. Only the standard library is used;
senders hand the kernel whole files or batches of datagrams, receivers have it drop what they count.
A sink makes the file ``--ready`` (when given) once it listens.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import errno
import json
import mmap
import os
import random
import select
import signal
import socket
import struct
import sys
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

BLOCK = 4 << 20  # bytes of pseudo-random data that a TCP source sends over and over
BATCH = 64  # datagrams per system call
RING = 4096  # datagrams before their identifications begin again
DONT_FRAGMENT = 0x4000
ETHERNET_HEADER = 14
IPV4_UDP_HEADERS = 28
ETHERTYPE_IPV4 = 0x0800
TICK_S = 0.00025  # a paced source sends what is due this often
# Of <asm-generic/socket.h> and <linux/sock_diag.h>; the socket module does not name them.
SO_ATTACH_FILTER, SO_TIMESTAMPNS, SO_MEMINFO, MEMINFO_DROPS = 26, 35, 55, 8
# Of <linux/udp.h>.
UDP_SEGMENT = 103
TRAIN_BYTES = 60_000  # payload of one such call, below what an IP packet takes
# Of <linux/if_packet.h>.
SOL_PACKET, PACKET_QDISC_BYPASS = 263, 20
ECHO = {socket.AF_INET: (8, 0, socket.IPPROTO_ICMP), socket.AF_INET6: (128, 129, 58)}
FLOW_BYTES = 4096  # one small flow: a request and an answer of this size each


def block() -> bytes:
    """The data every TCP source repeats; incompressible, the same in each run."""
    return random.Random(1).randbytes(BLOCK)


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def listen(port: int, backlog: int, ready: str | None) -> socket.socket:
    """A listening TCP socket for both families."""
    server = socket.create_server(
        ("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=backlog
    )
    announce(ready)
    return server


def announce(ready: str | None) -> None:
    if ready:
        Path(ready).touch()


# --- TCP -----------------------------------------------------------------------------------------


def tcp_sink(args: argparse.Namespace) -> dict[str, Any]:
    """Takes ``--streams`` connections to their end; with ``--verify`` sums up what they bring."""
    server = listen(args.port, args.streams, args.ready)
    connections = [server.accept()[0] for _ in range(args.streams)]
    spans: list[tuple[float, float, int, int]] = []

    def take(connection: socket.socket) -> None:
        buffer = bytearray(1 << 20)
        checksum = 0
        # With MSG_TRUNC the kernel drops the data instead of copying it to us.
        flags = 0 if args.verify else socket.MSG_TRUNC
        total, first = 0, 0.0
        while size := connection.recv_into(buffer, 0, flags):
            first = first or time.monotonic()
            total += size
            if args.verify:
                checksum = zlib.crc32(memoryview(buffer)[:size], checksum)
        spans.append((first, time.monotonic(), total, checksum))

    parallel(take, connections)
    size = sum(span[2] for span in spans)
    seconds = max(span[1] for span in spans) - min(span[0] for span in spans)
    return {"bytes": size, "seconds": seconds, "checksums": sorted(span[3] for span in spans)}


def tcp_source(args: argparse.Namespace) -> dict[str, Any]:
    """Sends ``--bytes`` (over all streams) or for ``--seconds``."""
    data = block()
    source = os.memfd_create("block")
    os.write(source, data)
    share = args.bytes // args.streams if args.bytes else sys.maxsize
    connections = [
        socket.create_connection((args.address, args.port), args.timeout)
        for _ in range(args.streams)
    ]
    started = time.monotonic()
    checksums: list[int] = []

    def give(connection: socket.socket) -> None:
        connection.settimeout(None)
        sent = checksum = 0
        while sent < share and (args.bytes or time.monotonic() - started < args.seconds):
            at = sent % BLOCK
            size = os.sendfile(
                connection.fileno(), source, at, min(BLOCK - at, share - sent, 1 << 20)
            )
            if args.verify:
                checksum = zlib.crc32(memoryview(data)[at : at + size], checksum)
            sent += size
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)  # the other end closes once it has everything
        checksums.append(checksum)

    parallel(give, connections)
    return {"seconds": time.monotonic() - started, "checksums": sorted(checksums)}


def parallel(function: Callable[[socket.socket], None], sockets: Sequence[socket.socket]) -> None:
    """Runs the function on each socket in a thread of its own, then closes them."""

    def work(one: socket.socket) -> None:
        with one:
            function(one)

    threads = [threading.Thread(target=work, args=(one,)) for one in sockets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# --- UDP -----------------------------------------------------------------------------------------


class Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class Msghdr(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("namelen", ctypes.c_uint32),
        ("iov", ctypes.POINTER(Iovec)),
        ("iovlen", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("controllen", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class Mmsghdr(ctypes.Structure):
    _fields_ = (("header", Msghdr), ("length", ctypes.c_uint32))


class Ring:
    """IPv4 packets that differ in their identification only, for sendmmsg in a circle."""

    def __init__(self, headers: Sequence[bytes], payload: bytes, address: bytes) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM)
        self._socket.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._address = ctypes.create_string_buffer(address, len(address))
        self._payload = ctypes.create_string_buffer(payload, len(payload))
        self._headers = ctypes.create_string_buffer(b"".join(headers))
        self._pieces = (Iovec * 2 * len(headers))()
        self._messages = (Mmsghdr * len(headers))()
        self._next = 0
        size = len(headers[0])
        for index, (message, pieces) in enumerate(zip(self._messages, self._pieces, strict=True)):
            pieces[0] = Iovec(ctypes.addressof(self._headers) + index * size, size)
            pieces[1] = Iovec(ctypes.addressof(self._payload), len(payload))
            message.header.name = ctypes.addressof(self._address)
            message.header.namelen = len(address)
            message.header.iov = pieces
            message.header.iovlen = len(pieces)

    def send(self, count: int) -> int:
        """How many were sent; one that a full queue refused counts, as it is lost."""
        count = min(count, BATCH, len(self._messages) - self._next)
        first = ctypes.byref(self._messages, self._next * ctypes.sizeof(Mmsghdr))
        sent: int = self._libc.sendmmsg(self._socket.fileno(), first, count, 0)
        if sent < 0:
            code = ctypes.get_errno()
            if code not in (errno.EAGAIN, errno.ENOBUFS):
                raise OSError(code, os.strerror(code))
            sent = 1
        self._next = (self._next + sent) % len(self._messages)
        return sent


class Trains:
    """Datagrams of one connected socket, given to the kernel many at once (UDP_SEGMENT), as QUIC
    does; who can take them undivided does so, before others the kernel divides them."""

    def __init__(self, address: str, port: int, size: int) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.connect((address, port))
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        self._socket.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, size)
        self._size = size
        self._payload = memoryview(os.urandom(TRAIN_BYTES // size * size))

    def send(self, count: int) -> int:
        """How many were sent; what a full buffer refused counts, as it is lost."""
        count = min(count, len(self._payload) // self._size)
        with contextlib.suppress(BlockingIOError):
            self._socket.send(self._payload[: count * self._size])
        return count


def udp_sink(args: argparse.Namespace) -> dict[str, Any]:
    """Counts datagrams into the file ``--counter`` (u64, native) until SIGTERM.

    A filter that accepts nothing makes the kernel drop and count what reaches the socket, so the
    count costs no system call per datagram.
    """
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    Path(args.counter).write_bytes(bytes(8))
    with (
        Path(args.counter).open("r+b") as file,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
    ):
        counter = memoryview(mmap.mmap(file.fileno(), 8)).cast("Q")
        reject = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0))  # BPF: return 0
        program = struct.pack("HxxxxxxP", 1, ctypes.addressof(reject))
        udp.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
        udp.bind(("", args.port))
        announce(args.ready)
        while not stopped.wait(0.002):
            counters = udp.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 36)
            counter[0] = struct.unpack("9I", counters)[MEMINFO_DROPS]
        return {"datagrams": counter[0]}


def udp_source(args: argparse.Namespace) -> dict[str, Any]:
    """Raises the rate step by step until the sink's counter stops following.

    The frames, ``--size`` bytes each with their headers, are given to the device ``--device``
    itself, so that the rate does not end at the limit of our own UDP sockets; or, with
    ``--trains``, to a UDP socket in trains. The answer names the most delivered per second, the
    most offered of which 99% arrived, and every step.
    """
    steps: list[tuple[float, float]] = []
    with Path(args.counter).open("rb") as file:
        counter = memoryview(mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)).cast("Q")
        size = args.size - ETHERNET_HEADER
        source: Ring | Trains
        if args.trains:
            source = Trains(args.address, args.port, size - IPV4_UDP_HEADERS)
        else:
            headers, payload = udp_packets(args.source, args.address, args.port, size)
            source = Ring(headers, payload, link_address(args.device, args.mac))
        rate, best, falling = float(args.rate), 0.0, 0
        while falling < 2:
            before = counter[0]
            offered = send_paced(source, rate, args.step) / args.step
            wait_until_still(lambda: counter[0])
            delivered = (counter[0] - before) / args.step
            steps.append((offered, delivered))
            # Two steps in a row that bring no more end the search: so does a source at its limit.
            falling = 0 if delivered > best * 1.02 else falling + 1
            best = max(best, delivered)
            rate *= 1.3
    clean = [offered for offered, delivered in steps if delivered >= 0.99 * offered]
    return {"delivered_per_s": best, "lossless_per_s": max(clean, default=0.0), "steps": steps}


def link_address(device: str, mac: str) -> bytes:
    """A sockaddr_ll for IPv4 frames to ``mac`` (empty for a device without) through a device."""
    hardware = bytes.fromhex(mac.replace(":", ""))
    protocol, index = socket.htons(ETHERTYPE_IPV4), socket.if_nametoindex(device)
    return struct.pack(
        "=HHiHBB8s", socket.AF_PACKET, protocol, index, 0, 0, len(hardware), hardware
    )


def udp_packets(source: str, target: str, port: int, size: int) -> tuple[list[bytes], bytes]:
    """``RING`` IPv4 packets of ``size`` bytes as a connected UDP socket makes them: their headers,
    which count in the identification, and the payload they share."""
    payload = os.urandom(size - IPV4_UDP_HEADERS)
    addresses = socket.inet_aton(source) + socket.inet_aton(target)
    ports = struct.pack("!HHH", port, port, size - 20)
    pseudo = addresses + struct.pack("!HH", socket.IPPROTO_UDP, size - 20)
    udp = ports + struct.pack("!H", checksum(pseudo + ports + payload) or 0xFFFF)
    headers = []
    for number in range(RING):
        ip = struct.pack("!BBHHHBB", 0x45, 0, size, number, DONT_FRAGMENT, 64, socket.IPPROTO_UDP)
        headers.append(ip + struct.pack("!H", checksum(ip + addresses)) + addresses + udp)
    return headers, payload


def send_paced(source: Ring | Trains, rate: float, seconds: float) -> int:
    """Sends at ``rate`` datagrams a second in small bursts; returns how many.

    What is due waits for a tick or a full batch, so that the processor is left to the others.
    """
    started = time.monotonic()
    sent = 0
    while (elapsed := time.monotonic() - started) < seconds:
        due = int(elapsed * rate) - sent
        if due > 0:
            sent += source.send(due)
        if due < BATCH:
            time.sleep(TICK_S)
    return sent


def wait_until_still(value: Callable[[], int], pause_s: float = 0.02) -> None:
    """Returns once the value does not change over one pause."""
    last = -1
    while (now := value()) != last:
        last = now
        time.sleep(pause_s)


# --- ping ----------------------------------------------------------------------------------------


def ping(args: argparse.Namespace) -> dict[str, Any]:
    """ICMP echo at a fixed interval. Times are microseconds, taken by the kernel on arrival."""
    family = family_of(args.address)
    request, answer, protocol = ECHO[family]
    token = os.urandom(8)
    times: list[float] = []
    sent: dict[int, int] = {}
    with socket.socket(family, socket.SOCK_RAW, protocol) as raw:
        raw.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        raw.connect((args.address, 0))
        raw.setblocking(False)
        offset = 20 if family == socket.AF_INET else 0  # raw IPv4 sockets show the IP header

        def collect() -> None:
            try:
                data, ancillary, _, _ = raw.recvmsg(2048, 64)
            except BlockingIOError:
                return
            kind, body = data[offset], data[offset + 8 :]
            if kind != answer or body[:8] != token:
                return
            seconds, nanoseconds = struct.unpack("qq", ancillary[0][2])
            began = sent.pop(struct.unpack("!I", body[8:12])[0], None)
            if began is not None:
                times.append((seconds * 10**9 + nanoseconds - began) / 1000)

        def collect_until(instant: float) -> None:
            while (left := instant - time.monotonic()) > 0 and sent:
                if select.select([raw], [], [], left)[0]:
                    collect()

        started = time.monotonic()
        for number in range(args.count):
            body = token + struct.pack("!I", number) + bytes(44)
            packet = struct.pack("!BBHHH", request, 0, 0, number & 0xFFFF, 0) + body
            packet = packet[:2] + struct.pack("!H", checksum(packet)) + packet[4:]
            sent[number] = time.time_ns()
            with contextlib.suppress(OSError):  # lost: a full queue, or no route yet
                raw.send(packet)
            deadline = started + (number + 1) * args.interval
            collect_until(deadline)
            time.sleep(max(0.0, deadline - time.monotonic()))
        collect_until(time.monotonic() + args.patience)
    times.sort()
    return {"sent": args.count, "received": len(times), **summary(times)}


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071); for ICMPv6 the kernel fills in its own."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def summary(times: Sequence[float]) -> dict[str, float]:
    """Mean and percentiles of sorted times; empty for none."""
    if not times:
        return {}
    last = len(times) - 1
    points = {"min": 0.0, "p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    return {
        "mean": sum(times) / len(times),
        **{name: times[round(point * last)] for name, point in points.items()},
    }


# --- many small flows ----------------------------------------------------------------------------


def flow_sink(args: argparse.Namespace) -> dict[str, Any]:
    """Answers each connection's request with as much, and closes it; until SIGTERM."""
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    server = listen(args.port, 1024, args.ready)
    server.setblocking(False)
    poll = select.epoll()
    poll.register(server.fileno(), select.EPOLLIN)
    waiting: dict[int, tuple[socket.socket, int]] = {}
    answer = bytes(FLOW_BYTES)
    flows = 0
    while not stopped.is_set():
        for fd, _ in poll.poll(0.1):
            if fd == server.fileno():
                try:
                    connection, _ = server.accept()
                except OSError:
                    continue
                connection.setblocking(False)
                waiting[connection.fileno()] = connection, FLOW_BYTES
                poll.register(connection.fileno(), select.EPOLLIN)
                continue
            connection, missing = waiting[fd]
            try:
                size = len(connection.recv(FLOW_BYTES))
                waiting[fd] = connection, missing - size
                if size and missing > size:
                    continue
                connection.send(answer)
                flows += 1
            except OSError:
                pass
            del waiting[fd]
            connection.close()
    return {"flows": flows}


def flow_source(args: argparse.Namespace) -> dict[str, Any]:
    """Keeps ``--streams`` short connections going for ``--seconds``; finished ones per second."""
    poll = select.epoll()
    open_flows: dict[int, tuple[socket.socket, int]] = {}
    request = bytes(FLOW_BYTES)
    finished = failed = 0

    def begin() -> None:
        flow = socket.socket(family_of(args.address), socket.SOCK_STREAM)
        flow.setblocking(False)
        flow.connect_ex((args.address, args.port))
        open_flows[flow.fileno()] = flow, -1
        poll.register(flow.fileno(), select.EPOLLOUT)

    started = time.monotonic()
    for _ in range(args.streams):
        begin()
    while time.monotonic() - started < args.seconds:
        for fd, _ in poll.poll(0.1):
            flow, got = open_flows[fd]
            try:
                if got < 0:
                    flow.send(request)
                    open_flows[fd] = flow, 0
                    poll.modify(fd, select.EPOLLIN)
                    continue
                size = len(flow.recv(FLOW_BYTES))
                if size:
                    open_flows[fd] = flow, got + size
                    continue
                finished += got == FLOW_BYTES
            except OSError:
                failed += 1
            del open_flows[fd]
            flow.close()
            begin()
    seconds = time.monotonic() - started
    return {"flows_per_s": finished / seconds, "failed": failed}


COMMANDS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "tcp-sink": tcp_sink,
    "tcp-source": tcp_source,
    "udp-sink": udp_sink,
    "udp-source": udp_source,
    "flow-sink": flow_sink,
    "flow-source": flow_source,
    "ping": ping,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.traffic", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in COMMANDS:
        command = commands.add_parser(name)
        if not name.endswith("-sink"):
            command.add_argument("address")
        if name != "ping":
            command.add_argument("port", type=int)
        add_options(command)
    args = parser.parse_args()
    print(json.dumps(COMMANDS[args.command](args)))


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--streams", type=int, default=1)
    command.add_argument("--bytes", type=int, default=0, help="instead of --seconds")
    command.add_argument("--seconds", type=float, default=5.0)
    command.add_argument("--timeout", type=float, default=20.0, help="s, for connecting")
    command.add_argument("--verify", action="store_true", help="hash the data on both sides")
    command.add_argument("--size", type=int, default=64, help="of a UDP frame with its headers")
    command.add_argument("--rate", type=float, default=10_000, help="frames/s of the first step")
    command.add_argument("--step", type=float, default=0.4, help="seconds per step")
    command.add_argument("--counter", help="file through which udp-sink tells its count")
    command.add_argument("--device", help="of udp-source")
    command.add_argument("--trains", action="store_true", help="udp-source: with UDP_SEGMENT")
    command.add_argument("--source", help="udp-source: IPv4 address in the packets")
    command.add_argument("--mac", default="", help="udp-source: where the frames go")
    command.add_argument("--count", type=int, default=100, help="echo requests")
    command.add_argument("--interval", type=float, default=0.01, help="seconds between them")
    command.add_argument("--patience", type=float, default=1.0, help="s for the last answers")
    command.add_argument("--ready", help="file that a sink makes once it listens")


if __name__ == "__main__":
    main()
