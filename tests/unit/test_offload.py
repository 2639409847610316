"""Cutting bursts and joining segments, against a plain model that builds every frame anew."""

import random
import struct
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zt._fast.offload import cut, join

TCP, UDP = 6, 17
FIN, PSH, ACK, CWR = 0x01, 0x08, 0x10, 0x80
NEEDS_CHECKSUM, TCP4, TCP6, GSO_UDP, ECN = 1, 1, 4, 5, 0x80
MACS = bytes.fromhex("0200000000010200000000aa")


def checksum(data: bytes) -> int:
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@dataclass(frozen=True)
class Flow:
    """Everything about a frame but its payload."""

    version: int = 4
    protocol: int = TCP
    ports: tuple[int, int] = (1234, 80)
    sequence: int = 1000
    acknowledgement: int = 77
    flags: int = ACK
    identification: int = 5
    ttl: int = 64
    tos: int = 0
    window: int = 500
    ip_options: bytes = b""
    tcp_options: bytes = b""
    vlan: bytes = b""
    fragment: int = 0x4000

    @property
    def network(self) -> int:
        return 14 + len(self.vlan)

    @property
    def transport(self) -> int:
        return self.network + (20 + len(self.ip_options) if self.version == 4 else 40)

    @property
    def headers(self) -> int:
        return self.transport + (20 + len(self.tcp_options) if self.protocol == TCP else 8)

    def frame(self, payload: bytes, *, damage: bool = False) -> bytes:
        """A whole frame with right checksums (or a wrong one)."""
        if self.protocol == TCP:
            offset = (20 + len(self.tcp_options)) // 4 << 4
            head = struct.pack(
                ">HHIIBBHHH",
                *self.ports,
                self.sequence & 0xFFFFFFFF,
                self.acknowledgement,
                offset,
                self.flags,
                self.window,
                0,
                0,
            )
            head += self.tcp_options
            at = 16
        else:
            head = struct.pack(">HHHH", *self.ports, 8 + len(payload), 0)
            at = 6
        length = len(head) + len(payload)
        if self.version == 4:
            addresses = bytes((10, 0, 0, 1, 10, 0, 0, 2))
            pseudo = addresses + struct.pack(">BBH", 0, self.protocol, length)
            ip = struct.pack(
                ">BBHHHBBH",
                0x45 + len(self.ip_options) // 4,
                self.tos,
                20 + len(self.ip_options) + length,
                self.identification & 0xFFFF,
                self.fragment,
                self.ttl,
                self.protocol,
                0,
            )
            ip += addresses + self.ip_options
            ip = ip[:10] + checksum(ip).to_bytes(2, "big") + ip[12:]
            ethertype = b"\x08\x00"
        else:
            addresses = bytes(range(32))
            pseudo = addresses + struct.pack(">II", length, self.protocol)
            ip = struct.pack(">IHBB", 6 << 28 | self.tos << 20, length, self.protocol, self.ttl)
            ip += addresses
            ethertype = b"\x86\xdd"
        total = checksum(pseudo + head + payload)
        if self.protocol == UDP and total == 0:
            total = 0xFFFF
        total ^= 0x5555 if damage else 0
        head = head[:at] + total.to_bytes(2, "big") + head[at + 2 :]
        return MACS + self.vlan + ethertype + ip + head + payload

    def burst(self, payload: bytes, segment: int) -> tuple[bytes, bytes]:
        """What a TAP hands over: one frame for all, its checksum only begun."""
        kind = GSO_UDP if self.protocol == UDP else TCP4 if self.version == 4 else TCP6
        field = 16 if self.protocol == TCP else 6
        vnet = struct.pack(
            "=BBHHHH", NEEDS_CHECKSUM, kind, self.headers, segment, self.transport, field
        )
        whole = bytearray(self.frame(b""))
        if self.version == 4:
            size = self.headers - self.network + len(payload)
            whole[self.network + 2 : self.network + 4] = (size & 0xFFFF).to_bytes(2, "big")
        return vnet, bytes(whole) + payload

    def cut(self, payload: bytes, segment: int) -> list[bytes]:
        """The model: each segment as a frame of its own."""
        frames = []
        for index, at in enumerate(range(0, len(payload), segment)):
            last = at + segment >= len(payload)
            flags = self.flags
            if not last:
                flags &= ~(FIN | PSH)
            if index:
                flags &= ~CWR
            step = replace(
                self,
                flags=flags,
                sequence=self.sequence + at,
                identification=self.identification + index,
            )
            frames.append(step.frame(payload[at : at + segment]))
        return frames


VLAN = bytes.fromhex("81000005")
flows = st.builds(
    Flow,
    version=st.sampled_from([4, 6]),
    protocol=st.sampled_from([TCP, UDP]),
    ports=st.tuples(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF)),
    sequence=st.integers(0, 0xFFFFFFFF),
    acknowledgement=st.integers(0, 0xFFFFFFFF),
    flags=st.integers(0, 0xFF),
    identification=st.integers(0, 0xFFFF),
    ip_options=st.sampled_from([b"", bytes(4), bytes(40)]),
    tcp_options=st.sampled_from([b"", bytes(12), bytes(40)]),
    vlan=st.sampled_from([b"", VLAN, b"\x88\xa8\x00\x01" + VLAN]),
    fragment=st.sampled_from([0, 0x4000]),
)
seeds = st.integers(0, 1 << 32)


@given(flows, seeds, st.integers(1, 9000), st.integers(1, 60000))
@settings(max_examples=150, deadline=None)
def test_cutting_agrees_with_the_model(flow: Flow, seed: int, segment: int, size: int) -> None:
    segment = max(segment, size // 100 + 1)
    if flow.version == 6:
        flow = replace(flow, ip_options=b"")
    payload = random.Random(seed).randbytes(size)
    vnet, frame = flow.burst(payload, segment)
    assert cut(vnet, frame) == flow.cut(payload, segment)


@given(flows, st.binary(max_size=100))
def test_a_checksum_that_was_left_to_us(flow: Flow, payload: bytes) -> None:
    if flow.version == 6:
        flow = replace(flow, ip_options=b"")
    complete = flow.frame(payload)
    at = flow.transport + (16 if flow.protocol == TCP else 6)
    # The kernel leaves the sum of the pseudo header in the field.
    begun = bytearray(complete)
    begun[at : at + 2] = bytes(2)
    rest = ~checksum(bytes(begun[flow.transport :])) & 0xFFFF
    total = ~int.from_bytes(complete[at : at + 2], "big") & 0xFFFF
    begun[at : at + 2] = ((total - rest) % 0xFFFF).to_bytes(2, "big")
    vnet = struct.pack("=BBHHHH", NEEDS_CHECKSUM, 0, 0, 0, flow.transport, at - flow.transport)
    (result,) = cut(vnet, bytes(begun))
    assert result == complete or (
        # One's complement has two zeros; a TCP checksum may come out as either.
        flow.protocol == TCP
        and {result[at : at + 2], complete[at : at + 2]} == {b"\0\0", b"\xff\xff"}
    )


def test_an_ordinary_frame_passes() -> None:
    frame = bytes(range(60))
    assert cut(bytes(10), frame) == [frame]


@given(st.binary(min_size=10, max_size=10), st.binary(min_size=14, max_size=200))
@settings(max_examples=300)
def test_nonsense_is_refused_or_harmless(vnet: bytes, frame: bytes) -> None:
    try:
        frames = cut(vnet, frame)
    except ValueError:
        return
    assert sum(map(len, frames)) >= len(frame)


def test_a_burst_with_a_header_that_lies() -> None:
    flow = Flow()
    vnet, frame = flow.burst(bytes(3000), 1000)
    for at, value in ((0, 0), (1, 7), (1, TCP6), (4, 0), (6, 13), (6, 255)):
        broken = bytearray(vnet)
        broken[at : at + (2 if at >= 4 else 1)] = value.to_bytes(2 if at >= 4 else 1, "little")
        with pytest.raises(ValueError):
            cut(bytes(broken), frame)
    with pytest.raises(ValueError):
        cut(vnet, frame[: flow.headers])


# ---- joining ------------------------------------------------------------------------------------


def again(joined: list[tuple[bytes, bytes]]) -> list[bytes]:
    """What the kernel, or another cutter, makes of the joined frames."""
    return [frame for vnet, burst in joined for frame in cut(vnet, burst)]


plain_flows = st.builds(
    Flow,
    version=st.sampled_from([4, 6]),
    protocol=st.sampled_from([TCP, UDP]),
    sequence=st.integers(0, 0xFFFFFFFF),
    flags=st.sampled_from([ACK, ACK | PSH]),
    identification=st.integers(0, 0xFFFF),
    tcp_options=st.sampled_from([b"", bytes(12)]),
)


@given(plain_flows, seeds, st.integers(1, 3000), st.integers(1, 60000))
@settings(max_examples=150, deadline=None)
def test_joining_undoes_cutting(flow: Flow, seed: int, segment: int, size: int) -> None:
    segment = max(segment, size // 60 + 1)
    payload = random.Random(seed).randbytes(size)
    frames = flow.cut(payload, segment)
    joined = join(frames)
    assert len(joined) == 1
    assert again(joined) == frames
    vnet, frame = joined[0]
    assert frame[flow.headers :] == payload
    if len(frames) > 1:
        flags, _, headers, gso_size, start, _ = struct.unpack("=BBHHHH", vnet)
        assert (flags, headers, gso_size, start) == (
            NEEDS_CHECKSUM,
            flow.headers,
            segment,
            flow.transport,
        )
    else:
        assert vnet == bytes(10)


def test_features_can_be_left_out() -> None:
    for protocol in (TCP, UDP):
        frames = Flow(protocol=protocol).cut(bytes(5000), 1000)
        assert len(join(frames)) == 1
        assert [f for _, f in join(frames, tcp=protocol != TCP, udp=protocol != UDP)] == frames


UNUSUAL = {
    "another acknowledgement": {"acknowledgement": 78},
    "another window": {"window": 501},
    "another ttl": {"ttl": 63},
    "another tos": {"tos": 3},
    "a gap": {"sequence": 1000 + 2000},
    "a repeat": {"sequence": 1000},
    "FIN": {"flags": ACK | FIN},
    "SYN": {"flags": ACK | 2},
    "ECE": {"flags": ACK | 0x40},
    "no ACK": {"flags": 0},
    "another identification": {"identification": 9},
    "no DF": {"fragment": 0},
    "a fragment": {"fragment": 0x2000},
    "options": {"tcp_options": b"\1\1\1\1"},
    "IP options": {"ip_options": b"\1\1\1\1"},
    "VLAN": {"vlan": VLAN},
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_anything_unusual_stays_apart(name: str) -> None:
    first, second = Flow(), Flow(sequence=2000, identification=6)
    frames = [first.frame(bytes(1000)), replace(second, **UNUSUAL[name]).frame(bytes(1000))]
    assert join(frames) == [(bytes(10), frame) for frame in frames]


def test_what_ends_a_join() -> None:
    flow = Flow()
    short = [*flow.cut(bytes(2500), 1000)]
    more = replace(flow, sequence=3500, identification=8).cut(bytes(2000), 1000)
    joined = join(short + more)
    assert [len(frame) for _, frame in joined] == [54 + 2500, 54 + 2000]
    pushed = replace(flow, flags=ACK | PSH).cut(bytes(2000), 1000)
    after = replace(flow, sequence=3000, identification=7).cut(bytes(1000), 1000)
    assert len(join(pushed + after)) == 2
    longer = [
        flow.frame(bytes(500)),
        replace(flow, sequence=1500, identification=6).frame(bytes(600)),
    ]
    assert [frame for _, frame in join(longer)] == longer


@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_wrong_checksum_goes_through_untouched(position: int) -> None:
    flow = Flow()
    frames = [
        replace(flow, sequence=1000 + 100 * i, identification=5 + i).frame(
            bytes(100), damage=i == position
        )
        for i in range(3)
    ]
    joined = join(frames)
    assert (bytes(10), frames[position]) in joined
    assert again(joined) == frames


def test_udp_without_checksum_stays_apart() -> None:
    frame = bytearray(Flow(protocol=UDP).frame(bytes(100)))
    frame[40:42] = bytes(2)
    assert len(join([bytes(frame)] * 2)) == 2


def test_constant_identifications_count_only_where_they_mean_something() -> None:
    """Datagrams of an unconnected socket: the same but for the identification, which DF voids."""
    flow = Flow(protocol=UDP, identification=0)
    frames = [flow.frame(bytes([number]) * 100) for number in range(5)]
    ((vnet, burst),) = join(frames)
    expected = flow.cut(b"".join(bytes([number]) * 100 for number in range(5)), 100)
    assert cut(vnet, burst) == expected
    fragmentable = [replace(flow, fragment=0).frame(bytes(100))] * 2
    assert [frame for _, frame in join(fragmentable)] == fragmentable
    tcp = Flow()
    segments = [tcp.frame(bytes(100)), replace(tcp, sequence=1100).frame(bytes(100))]
    assert [frame for _, frame in join(segments)] == segments


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 1200), st.integers(0, 9)), max_size=60))
@settings(max_examples=100, deadline=None)
def test_flows_keep_their_order(steps: list[tuple[int, int, int]]) -> None:
    """Flows interleaved with odd frames: nothing lost, changed, or out of order in its flow."""
    flows = {
        n: Flow(ports=(n, 80), version=4 if n % 2 else 6, protocol=UDP if n == 4 else TCP)
        for n in range(6)
    }
    frames: list[bytes] = []
    for n, size, odd in steps:
        if odd == 9:
            frames.append(MACS + b"\x08\x06" + bytes(28))
            continue
        flow = flows[n]
        flags = ACK | FIN if odd == 8 else ACK
        frames.append(replace(flow, flags=flags).frame(bytes((n,)) * (size if odd > 4 else 700)))
        grown = len(frames[-1]) - flow.headers
        flows[n] = replace(
            flow, sequence=flow.sequence + grown, identification=flow.identification + 1
        )
    result = again(join(frames))
    assert sorted(result) == sorted(frames)

    def port(frame: bytes) -> bytes:
        return (
            b"" if frame[12:14] == b"\x08\x06" else frame[34:36] if frame[12] == 8 else frame[54:56]
        )

    for n in {port(frame) for frame in frames}:
        assert [f for f in result if port(f) == n] == [f for f in frames if port(f) == n]


@given(st.lists(st.binary(min_size=14, max_size=100), max_size=20))
def test_garbage_is_not_joined(frames: list[bytes]) -> None:
    assert join(frames) == [(bytes(10), frame) for frame in frames]
