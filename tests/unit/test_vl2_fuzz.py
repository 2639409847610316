"""Nothing in a configuration, packet or frame can crash or hang a member.

Threat: a hostile controller signs what it likes, a hostile member sends what it likes, a hostile
program writes frames to our TAP. The only error that may escape a handler is `DecodeError`, which
drops the packet. ``ZT_FUZZ_RUNS`` and ``ZT_FUZZ_SEED`` as in tests/fuzz.
"""

import os
from contextlib import suppress
from random import Random

import pytest

from tests.sim.identity import cheap_identity
from tests.unit.vl2_recorder import RecordingVl1, tables_of
from zt._fast.switch import Switch
from zt.protocol.address import Mac, MulticastGroup, NetworkId
from zt.protocol.credentials import Capability, Com, Ownership, Tag, revoke_com, things_of
from zt.protocol.errors import DecodeError
from zt.protocol.inet import InetAddress
from zt.protocol.messages import (
    Error,
    ExtFrame,
    Frame,
    GatherResults,
    Members,
    MulticastFrame,
    MulticastFrameResults,
    MulticastGather,
    MulticastLike,
    NetworkConfigRequest,
    NetworkCredentials,
    Ok,
)
from zt.protocol.netconf import ACTIVE_BRIDGE, REPLICATOR, NetworkConfig, split
from zt.protocol.packet import Verb
from zt.vl2 import Vl2

RUNS = int(os.environ.get("ZT_FUZZ_RUNS", "400"))
SEED = int(os.environ.get("ZT_FUZZ_SEED", "1"))
NOW_MS = 1700000000000

US, CONTROLLER, PEER, OTHER = (cheap_identity(Random(seed).randbytes) for seed in range(4))
NWID = NetworkId(CONTROLLER.address << 24 | 0xC0FFEE)
GROUP = MulticastGroup(Mac(0x3333FF000002))
RULES = bytes.fromhex("24011128040035003501003008000000050000000100000100")


def full_config(timestamp=NOW_MS, **options):
    """Every list filled."""
    address = US.address
    return NetworkConfig(
        nwid=NWID,
        issued_to=address,
        timestamp=timestamp,
        revision=1,
        flags=0x06,
        multicast_limit=32,
        rules=RULES,
        com=Com.issue(NWID, US, timestamp, 1800000).sign(CONTROLLER),
        tags=(Tag(NWID, timestamp, 5, 1, address).sign(CONTROLLER),),
        capabilities=(Capability(NWID, timestamp, 1, RULES).grant(CONTROLLER, address),),
        ownerships=(
            Ownership(NWID, timestamp, 1, things_of([bytes(4)]), address).sign(CONTROLLER),
        ),
        specialists=(PEER.address | ACTIVE_BRIDGE, OTHER.address | REPLICATOR),
        static_ips=(InetAddress(b"\x0a\0\0\1", 24), InetAddress()),
        **options,
    )


def member(public=True):
    vl1 = RecordingVl1(US, [CONTROLLER, PEER, OTHER], [OTHER.address])
    vl2 = Vl2(vl1, tables_of(vl1), now_ms=NOW_MS)
    vl2.join(NWID, NOW_MS)
    vl2._install(vl2._networks[NWID], full_config(public=public), NOW_MS)
    return vl1, vl2


def mutated(random, data):
    """The data with a few bytes changed, cut out, put in or repeated."""
    data = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 5))):
        at = random.randrange(len(data) + 1)
        match random.randrange(5):
            case 0 if data:
                data[at % len(data)] ^= 1 << random.randrange(8)
            case 1:
                data[at:at] = random.randbytes(random.randrange(1, 9))
            case 2:
                del data[at : at + random.randrange(1, 30)]
            case 3:
                data[at:at] = data[at : at + random.randrange(1, 60)]
            case _ if data:
                data[at % len(data)] = random.choice((0, 1, 0x7F, 0x80, 0xFF, 10, 61, 92))
    return bytes(data)


def frames(nwid, random):
    """Frames of every kind, mutated behind the MACs."""
    us, peer = Mac.of(US.address, nwid).encode(), Mac.of(PEER.address, nwid).encode()
    dest = random.choice((peer, us, b"\xff" * 6, GROUP.mac.encode(), random.randbytes(6)))
    body = random.choice(
        (
            bytes.fromhex("0800450000210001000040115fbe0a0102030a04050604d20035000d0000"),
            bytes.fromhex("080600010800060400010211223344550a0102030000000000000a040506"),
            bytes.fromhex("86dd6000000000203a40") + bytes(32) + b"\x87" + bytes(40),
            bytes.fromhex("86dd6000000000203a40") + bytes(32) + b"\x2b\xff" + bytes(60),
        )
    )
    return dest + us + mutated(random, body)


def test_hostile_configurations():
    random = Random(SEED)
    vl1, vl2 = member()
    switch = Switch(vl2._context.tables)
    plain = full_config().encode()
    network = vl2._networks[NWID]
    taken = 0
    for number in range(RUNS):
        data = mutated(random, plain)
        for part in split(NWID, data, number + 1, CONTROLLER):
            vl1.deliver(CONTROLLER.address, Verb.NETWORK_CONFIG, part.encode(), NOW_MS)
        taken += network.config != full_config()
        for _ in range(3):
            frame = frames(NWID, random)
            vl2.frame(NWID, frame, NOW_MS)
            switch.frame(NWID, frame, NOW_MS)
            packet = Frame(NWID, 0x0800, frame[14:]).encode()
            vl1.deliver(PEER.address, Verb.FRAME, packet, NOW_MS)
        vl2.timer(NOW_MS + number)
        vl1.take_sent(), vl1.take_actions(), vl1.take_replies(), switch.take_punts()
        vl1.parked.clear()
        network.config = network.program = None
        vl2._install(network, full_config(public=True), NOW_MS)
    assert taken > RUNS // 20  # many mutations are still configurations


def test_hostile_cache_files():
    random = Random(SEED)
    plain = full_config().encode()
    for _ in range(RUNS // 4):
        vl1 = RecordingVl1(US, [CONTROLLER])
        vl2 = Vl2(vl1, tables_of(vl1), now_ms=NOW_MS)
        vl2.join(NWID, NOW_MS, random.choice((mutated(random, plain), random.randbytes(50))))
        vl2.timer(NOW_MS)
        vl2.leave(NWID, NOW_MS)


def credentials():
    com = Com.issue(NWID, PEER, NOW_MS, 1800000).sign(CONTROLLER)
    tag = Tag(NWID, NOW_MS, 5, 1, PEER.address).sign(CONTROLLER)
    capability = Capability(NWID, NOW_MS, 1, RULES).grant(CONTROLLER, PEER.address)
    gone = revoke_com(NWID, OTHER.address, NOW_MS, 1, CONTROLLER)
    owned = Ownership(NWID, NOW_MS, 1, things_of([bytes(16)]), PEER.address).sign(CONTROLLER)
    return NetworkCredentials((com,), (capability,), (tag,), (gone,), (owned,))


MAC_US, MAC_PEER = Mac.of(US.address, NWID), Mac.of(PEER.address, NWID)
COM = credentials().coms[0]
PACKETS = [
    (Verb.FRAME, Frame(NWID, 0x800, bytes(40))),
    (Verb.EXT_FRAME, ExtFrame(NWID, MAC_US, MAC_PEER, 0x800, bytes(40), 0x10, COM)),
    (Verb.MULTICAST_FRAME, MulticastFrame(NWID, GROUP, 0x86DD, bytes(60), MAC_PEER, 9, 8, COM)),
    (Verb.MULTICAST_LIKE, MulticastLike(((NWID, GROUP), (NetworkId(7), GROUP)))),
    (Verb.MULTICAST_GATHER, MulticastGather(NWID, GROUP, 100, com=COM)),
    (Verb.NETWORK_CREDENTIALS, credentials()),
    (Verb.NETWORK_CONFIG_REQUEST, NetworkConfigRequest(NWID, b"v=7")),
    (Verb.NETWORK_CONFIG, split(NWID, full_config().encode(), 5, CONTROLLER)[0]),
    (Verb.OK, Ok(Verb.NETWORK_CONFIG_REQUEST, 1, b"x" * 20)),
    (Verb.OK, Ok(Verb.MULTICAST_GATHER, 1,
                 GatherResults(NWID, GROUP, Members(2, (PEER.address,))).encode())),
    (Verb.OK, Ok(Verb.MULTICAST_FRAME, 1,
                 MulticastFrameResults(NWID, GROUP, Members(1, (US.address,)), com=COM).encode())),
    (Verb.ERROR, Error(Verb.FRAME, 1, 6, NWID.encode())),
    (Verb.ERROR, Error(Verb.MULTICAST_FRAME, 1, 8, NWID.encode() + GROUP.encode())),
    (Verb.ERROR, Error(Verb.NETWORK_CONFIG_REQUEST, 1, 9, NWID.encode() + b"\0\4aV=1")),
]  # fmt: skip


@pytest.mark.parametrize("public", [True, False])
def test_hostile_packets(public):
    random = Random(SEED)
    vl1, vl2 = member(public)
    now_ms = NOW_MS
    for _ in range(RUNS // 2):
        for verb, message in PACKETS:
            now_ms += random.choice((0, 1, 500, 1000))
            payload = random.choice((mutated(random, message.encode()), random.randbytes(30)))
            source = random.choice((PEER, OTHER, CONTROLLER)).address
            if verb == Verb.OK and payload[:1] not in (b"\x0b", b"\x0d", b"\x0e"):
                continue
            if verb in (Verb.OK, Verb.ERROR) and len(payload) < 10:
                continue
            with suppress(DecodeError):
                vl1.deliver(source, verb, payload, now_ms)
        with suppress(DecodeError):
            vl1.retry(now_ms)
        if now_ms >= vl2.deadline():
            vl2.timer(now_ms)
        vl1.take_sent(), vl1.take_actions(), vl1.take_replies()
    counters = vl2.counters()
    assert sum(counters.values()) > 0
    # still a working member
    vl2.frame(NWID, MAC_PEER.encode() + MAC_US.encode() + b"\x08\x06" + bytes(60), now_ms)
    assert vl2.network(NWID).config is not None
