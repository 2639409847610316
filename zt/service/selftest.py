"""`zerotier-one --selftest`: does this machine compute, keep time and pass packets as it must?

Known-answer tests of every kernel level the CPU has, the identity proof of work, X25519 and
Ed25519, the random source and the clock, TAP devices with their offloads, UDP segmentation; and
the speed of each kernel. Nothing is changed on the host; probes that need rights they do not have
say so and fail nothing.
"""

import hashlib
import itertools
import os
import socket
import time
from collections.abc import Callable, Iterator

from zt._fast import cipher
from zt._fast.cipher import PeerKey
from zt.protocol import keys
from zt.protocol.world import World
from zt.service.clock import Clock
from zt.service.home import BUILT_IN_PLANET

SIZES = (28, 29, 43, 60, 92, 93, 107, 156, 300, 1028, 1400, 2800)
KNOWN = {
    "armor 0 (Poly1305)": "37ff9a2e1ade690520937dc52a23198119bf7962174138c54f6a20d04e726f17",
    "armor 1 (Salsa20/12)": "296bfdedf0a8a88930ca88f977c88842956221b0d5b754dcb5e9c637f0cda68c",
    "armor 3 (AES-GMAC-SIV)": "c1ac188453e0c00e8cc25a98cbf3ef52af1be91d460694cae932c83de2f54bdc",
    "Salsa20/20": "c38d566aa5256cd348c90b2d0c57dfed7e33eb16da4c8e9acfa2c6f8b470d82a",
    "Poly1305": "e6352e7b45494a42c27576ebfca33a0ffb60945e44d31b10d72f44357023a998",
}
"""SHA-256 over the outputs of `_answers`, the same on every level of every CPU."""

SPEED_S = 0.25
PACKET = 1400
UDP_SEGMENT = 103
UDP_GRO = 104
TUNSETOFFLOAD = 0x400454D0
TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6 = 0x01, 0x02, 0x04
TUN_F_USO4, TUN_F_USO6 = 0x20, 0x40

Result = tuple[bool | None, str]
"""Passed, failed, or None for what could not be tried; and what to say."""


def selftest() -> int:
    """Print one line per check; 0 when none failed."""
    failed = 0
    for name, check in checks():
        try:
            good, text = check()
        except Exception as error:  # whatever it is, it is what this command is to find
            good, text = False, f"{type(error).__name__}: {error}"
        word = {True: "ok", False: "FAILED", None: "skipped"}[good]
        print(f"{name:<44} {word:<8} {text}".rstrip(), flush=True)
        failed += good is False
    print(f"{failed} checks failed" if failed else "all checks passed")
    return 1 if failed else 0


def checks() -> Iterator[tuple[str, Callable[[], Result]]]:
    best = cipher.level()
    for level in cipher.levels():
        for name in KNOWN:
            yield f"{level}: {name}", lambda level=level, name=name: _known(level, name, best)  # type: ignore[misc]
    yield "identity proof of work", _proof_of_work
    yield "X25519 and Ed25519", _public_key
    yield "random source", _random
    yield "clock", _clock
    yield "TAP device", _tap
    yield "TAP offloads", _tap_offloads
    yield "UDP segmentation offload", _udp_offload
    for level in cipher.levels():
        yield f"speed of {level}", lambda level=level: _speed(level, best)  # type: ignore[misc]


# --- kernels -----------------------------------------------------------------------------------


def _stream(label: str, size: int) -> bytes:
    """Bytes that look random and are the same everywhere."""
    return hashlib.shake_256(label.encode()).digest(size)


def _answers(name: str) -> Iterator[bytes]:
    """Outputs of one primitive at sizes around every block and lane boundary."""
    key = _stream("key", 48)
    for size in SIZES:
        data = bytearray(_stream(f"{name}{size}", size))
        if name.startswith("armor"):
            data[18] &= 0xC0  # no suite, no hops
            peer = PeerKey(key)
            peer.seal(data, int(name.split()[1]))
            yield bytes(data)
            if not peer.open(data):
                raise ValueError(f"{size} bytes do not open again")
            data[size // 2] ^= 1
            if peer.open(bytearray(data)):
                raise ValueError(f"{size} bytes open although they were changed")
        elif name == "Poly1305":
            yield cipher.poly1305(key[:32], bytes(data))
        else:
            cipher.salsa20_xor(data, key[:32], key[32:40], 20, size)
            yield bytes(data)


def digest(name: str) -> str:
    return hashlib.sha256(b"".join(_answers(name))).hexdigest()


def _known(level: str, name: str, best: str) -> Result:
    cipher.set_level(level)
    try:
        return digest(name) == KNOWN[name], ""
    finally:
        cipher.set_level(best)


def _speed(level: str, best: str) -> Result:
    cipher.set_level(level)
    try:
        texts = []
        for suite, name in ((1, "Salsa20/12+Poly1305"), (3, "AES-GMAC-SIV")):
            peer, packet, sealed = PeerKey(_stream("key", 48)), bytearray(PACKET), 0
            begin = time.perf_counter()
            while (elapsed := time.perf_counter() - begin) < SPEED_S:
                for _ in range(100):
                    packet[18] = 0
                    peer.seal(packet, suite)
                sealed += 100
            texts.append(f"{name} {sealed * PACKET / elapsed / (1 << 30):.2f} GiB/s")
        return True, ", ".join(texts)
    finally:
        cipher.set_level(best)


# --- keys, randomness, time ----------------------------------------------------------------------


def _proof_of_work() -> Result:
    """The roots of the built-in planet are valid identities, and not with a bit changed."""
    planet = World.decode(BUILT_IN_PLANET.read_bytes())
    root = planet.roots[0].identity
    begin = time.perf_counter()
    good = root.validate()
    elapsed = time.perf_counter() - begin
    other = type(root)(root.address, bytes([root.public_key[0] ^ 1]) + root.public_key[1:])
    return good and not other.validate(), f"{elapsed * 1000:.0f} ms"


def _public_key() -> Result:
    a, b = (keys.KeyPair(_stream(f"pair {name}", 64)) for name in "ab")
    agreed = keys.agree(a.private, b.public) == keys.agree(b.private, a.public)
    signature = a.sign(b"message")
    signed = keys.verify(a.public, b"message", signature)
    forged = keys.verify(a.public, b"massage", signature) or keys.verify(
        b.public, b"message", signature
    )
    return agreed and signed and not forged, ""


def _random() -> Result:
    """The source answers without waiting, and not with the same bytes."""
    try:
        samples = {os.getrandom(32, os.GRND_NONBLOCK) for _ in range(64)}
    except BlockingIOError:
        return False, "the kernel's random source is not ready"
    ones = sum(bin(int.from_bytes(sample)).count("1") for sample in samples)
    return len(samples) == 64 and 0.47 < ones / (64 * 256) < 0.53, ""


def _clock() -> Result:
    """Never backwards, and not far from the wall clock's pace."""
    clock, wall = Clock(), time.time()
    readings = [clock.now_ms() for _ in range(1000)]
    time.sleep(0.05)
    passed = clock.now_ms() - readings[0]
    steady = all(a <= b for a, b in itertools.pairwise(readings))
    sane = time.gmtime(wall).tm_year >= 2024
    text = "" if sane else "the wall clock is wrong: certificates of networks depend on it"
    return steady and 45 <= passed <= 500 and sane, text


# --- devices and sockets ------------------------------------------------------------------------


def _tap() -> Result:
    return _with_tap(lambda fd: (True, ""))


def _tap_offloads() -> Result:
    def probe(fd: int) -> Result:
        import fcntl

        found = []
        for name, flags in (
            ("checksum", TUN_F_CSUM),
            ("TSO", TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6),
            ("USO", TUN_F_CSUM | TUN_F_USO4 | TUN_F_USO6),
        ):
            try:
                fcntl.ioctl(fd, TUNSETOFFLOAD, flags)
            except OSError:
                continue
            found.append(name)
        return bool(found) or None, ", ".join(found) or "none: slower, but it works"

    return _with_tap(probe)


def _with_tap(probe: Callable[[int], Result]) -> Result:
    from zt.service.tap import open_tap

    try:
        tap = open_tap("", vnet_hdr=True)
    except PermissionError:
        return None, "needs root or CAP_NET_ADMIN"
    except OSError as error:
        return False, f"{error.strerror}: networks will show PORT_ERROR"
    try:
        return probe(tap.fds[0])
    finally:
        tap.close()


def _udp_offload() -> Result:
    """Two datagrams by one call, received in one buffer, over loopback."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
    ):
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(1)
        try:
            receiver.setsockopt(socket.SOL_UDP, UDP_GRO, 1)
            sender.setsockopt(socket.SOL_UDP, UDP_SEGMENT, 1000)
            sender.sendto(bytes(2000), receiver.getsockname())
        except OSError as error:
            return None, f"{error.strerror}: slower, but it works"
        received = len(receiver.recv(65536))
        return received in (1000, 2000), "joined" if received == 2000 else "split only"
