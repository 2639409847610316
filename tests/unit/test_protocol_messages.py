"""Every message is what it was after encoding and decoding, and is refused where it must be."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zt.protocol import messages as m
from zt.protocol import rules
from zt.protocol.address import Address, Mac, MulticastGroup, NetworkId
from zt.protocol.credentials import (
    Capability,
    Com,
    Custody,
    Ownership,
    Qualifier,
    Revocation,
    Tag,
    Thing,
)
from zt.protocol.errors import DecodeError
from zt.protocol.identity import Identity
from zt.protocol.inet import NIL, InetAddress
from zt.protocol.messages.network import Members
from zt.protocol.netconf import ConfigChunk, Dns, NetworkConfig, RequestMetadata, Route, Sso
from zt.protocol.wire import Reader
from zt.protocol.world import Root, World, WorldType, WorldVersion


def uint(bits: int) -> st.SearchStrategy[int]:
    return st.integers(0, 2**bits - 1)


def exactly(size: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=size, max_size=size)


def few(values: st.SearchStrategy, most: int = 3) -> st.SearchStrategy:
    return st.lists(values, max_size=most).map(tuple)


i64 = st.integers(-(2**63), 2**63 - 1)
data = st.binary(max_size=60)
addresses = uint(40).map(Address)
somebody = st.integers(1, 2**40 - 1).map(Address)
nwids = uint(64).map(NetworkId)
macs = uint(48).map(Mac)
groups = st.builds(MulticastGroup, macs, uint(32))
real_inets = st.one_of(
    st.builds(InetAddress, exactly(4), uint(16)), st.builds(InetAddress, exactly(16), uint(16))
)
inets = st.one_of(st.just(NIL), real_inets)
identities = st.builds(Identity, addresses, exactly(64))
versions = st.builds(m.Version, uint(8), uint(8), uint(8), uint(16))
world_versions = st.builds(WorldVersion, uint(64), uint(64))
signatures = exactly(96)
worlds = st.builds(
    World, st.sampled_from(WorldType), uint(64), uint(64), exactly(64),
    few(st.builds(Root, identities, few(inets))), signatures,
)  # fmt: skip

qualifiers = st.builds(Qualifier, uint(64), uint(64), uint(64))
coms = st.builds(
    lambda q, signer, signature: Com(tuple(sorted(q)), signer, signature if signer else b""),
    st.lists(qualifiers, max_size=8), addresses, signatures,
)  # fmt: skip
tags = st.builds(Tag, nwids, i64, uint(32), uint(32), addresses, addresses, signatures)
tables = few(
    st.builds(
        lambda t, operands: rules.read(Reader(bytes((t, 19)) + operands)), uint(8), exactly(19)
    )
).map(b"".join)
capabilities = st.integers(1, 7).flatmap(
    lambda most: st.builds(
        Capability, nwids, i64, uint(32), tables, st.just(most),
        few(st.builds(Custody, somebody, addresses, signatures), most),
    )
)  # fmt: skip
things = st.builds(Thing, uint(8), exactly(16))
ownerships = st.builds(
    Ownership, nwids, i64, uint(32), few(things, 16), addresses, uint(64), addresses, signatures
)
revocations = st.builds(
    Revocation, nwids, uint(32), uint(8), uint(32), i64, addresses, uint(64), addresses, signatures
)

hellos = st.one_of(
    st.builds(m.Hello, versions, uint(64), identities, inets, world_versions, few(world_versions)),
    st.builds(m.Hello, versions, uint(64), identities, inets, world_versions, st.none()),
    st.builds(m.Hello, versions, uint(64), identities, inets, st.none(), st.none()),
    st.builds(m.Hello, versions, uint(64), identities, st.none(), st.none(), st.none()),
)
credentials = st.integers(1, 5).flatmap(
    lambda parts: st.builds(
        m.NetworkCredentials, few(coms),
        *(
            few(kind, 3 if part <= parts else 0)
            for part, kind in enumerate((capabilities, tags, revocations, ownerships), 2)
        ),
        st.just(parts),
    )
)  # fmt: skip
members = st.builds(Members, uint(32), few(addresses))
chunks = data.flatmap(
    lambda part: st.builds(
        ConfigChunk, nwids, st.just(part), uint(8), uint(64), st.integers(1000, 484519),
        st.integers(0, 900), signatures,
    )
)  # fmt: skip
old_chunks = st.builds(
    lambda nwid, part: ConfigChunk(nwid, part, 0, 0, len(part), 0, None), nwids, data
)

MESSAGES = {
    m.Nop: st.builds(m.Nop, data),
    m.Hello: hellos,
    m.OkHello: st.builds(m.OkHello, uint(64), versions, inets, data),
    m.Whois: st.builds(m.Whois, few(addresses)),
    m.OkWhois: st.builds(m.OkWhois, few(identities)),
    m.Rendezvous: st.builds(m.Rendezvous, addresses, real_inets, uint(8)),
    m.Frame: st.builds(m.Frame, nwids, uint(16), data),
    m.ExtFrame: st.builds(
        m.ExtFrame, nwids, macs, macs, uint(16), data,
        uint(8).map(lambda flags: flags & ~1), st.none() | coms,
    ),
    m.ExtFrameReceived: st.builds(m.ExtFrameReceived, nwids),
    m.Echo: st.builds(m.Echo, data),
    m.MulticastLike: st.builds(m.MulticastLike, few(st.tuples(nwids, groups))),
    m.NetworkCredentials: credentials,
    m.NetworkConfigRequest: st.one_of(
        st.builds(m.NetworkConfigRequest, nwids, data, uint(64), uint(64)),
        st.builds(m.NetworkConfigRequest, nwids, st.none()),
    ),
    ConfigChunk: st.one_of(chunks, old_chunks),
    m.ConfigReceived: st.builds(m.ConfigReceived, nwids, uint(64)),
    m.MulticastGather: st.builds(
        m.MulticastGather, nwids, groups, uint(32), uint(8).map(lambda flags: flags & ~1),
        st.none() | coms,
    ),
    m.GatherResults: st.builds(m.GatherResults, nwids, groups, members),
    m.MulticastFrame: st.builds(
        m.MulticastFrame, nwids, groups, uint(16), data, st.none() | macs, st.none() | uint(32),
        uint(8).map(lambda flags: flags & ~7), st.none() | coms,
    ),
    m.MulticastFrameResults: st.builds(
        m.MulticastFrameResults, nwids, groups, st.none() | members,
        uint(8).map(lambda flags: flags & ~3), st.none() | coms,
    ),
    m.PushDirectPaths: st.builds(
        m.PushDirectPaths, few(st.builds(m.DirectPath, inets, uint(8), data))
    ),
    m.Ack: st.builds(m.Ack, uint(32)),
    m.QosMeasurement: st.builds(
        m.QosMeasurement,
        st.lists(st.builds(m.QosRecord, uint(64), uint(16)), min_size=1, max_size=140).map(tuple),
    ),
    m.UserMessage: st.builds(m.UserMessage, uint(64), data),
    m.RemoteTrace: st.builds(
        m.RemoteTrace,
        few(st.binary(min_size=1, max_size=60).map(lambda text: text.replace(b"\0", b"-"))),
    ),
    m.PathNegotiationRequest: st.builds(
        m.PathNegotiationRequest, st.integers(-(2**15), 2**15 - 1)
    ),
    m.Ok: st.builds(m.Ok, uint(8), uint(64), data),
    m.Error: st.builds(m.Error, uint(8), uint(64), uint(8), data),
    m.NetworkError: st.builds(m.NetworkError, nwids),
    m.UnwantedMulticast: st.builds(m.UnwantedMulticast, nwids, groups),
    m.AuthenticationRequired: st.builds(
        m.AuthenticationRequired, nwids, st.none() | st.binary(min_size=1, max_size=60)
    ),
    World: worlds,
    Com: coms,
    Tag: tags,
    Capability: capabilities,
    Ownership: ownerships,
    Revocation: revocations,
    Identity: identities,
    InetAddress: inets,
    MulticastGroup: groups,
}  # fmt: skip


def test_every_message_is_here():
    bodies = {*m.BY_VERB.values(), *m.OK_BODIES.values(), *m.ERROR_BODIES.values()}
    assert bodies <= MESSAGES.keys()


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
def test_round_trip(kind):
    @settings(max_examples=50, deadline=None)
    @given(MESSAGES[kind])
    def check(value):
        wire = value.encode()
        reader = Reader(wire)
        again = kind.read(reader)
        assert again == value
        assert reader.remaining == 0
        assert kind.decode(bytearray(wire)) == value

    check()


short_text = st.text(max_size=10)
times = st.integers(0, 2**63 - 1)
configs = st.builds(
    NetworkConfig,
    nwid=st.integers(1, 2**64 - 1).map(NetworkId), issued_to=somebody, timestamp=times,
    window=times, revision=uint(64), trace_target=addresses, trace_level=uint(64), flags=uint(64),
    multicast_limit=uint(32), public=st.booleans(), name=short_text,
    mtu=st.integers(1280, 10000), com=st.none() | coms.filter(bool),
    capabilities=few(capabilities).map(lambda c: tuple(sorted(c, key=lambda v: v.id))),
    tags=few(tags).map(lambda t: tuple(sorted(t, key=lambda v: v.id))),
    ownerships=few(ownerships), specialists=few(uint(64)),
    routes=few(st.builds(Route, inets, inets, uint(16), uint(16))), static_ips=few(inets),
    rules=tables,
    dns=st.builds(Dns, st.just("a.b"), st.tuples(inets, inets, inets, inets)),
    sso=st.one_of(
        st.builds(Sso),
        st.builds(Sso, enabled=st.just(True), authentication_url=short_text, expiry_ms=times),
        st.builds(
            Sso, version=st.just(1), enabled=st.just(True), issuer_url=short_text,
            central_url=short_text, nonce=short_text, state=short_text, client_id=short_text,
            provider=short_text.filter(bool),
        ),
    ),
)  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(configs)
def test_config_round_trip(config):
    assert NetworkConfig.decode(config.encode()) == config


@given(st.builds(RequestMetadata, version=uint(64), rules_revision=uint(64), platform=short_text))
def test_metadata_round_trip(metadata):
    assert RequestMetadata.decode(metadata.encode()) == metadata


# Where a receiver has to be strict, and where it must not be


@pytest.mark.parametrize(
    ("kind", "wire"),
    [
        (m.QosMeasurement, bytes(9)),
        (m.QosMeasurement, bytes(1401)),
        (m.PathNegotiationRequest, bytes(3)),
        (m.UserMessage, bytes(7)),
        (Members, bytes.fromhex("00000001 0002 1122334455")),
        (m.Hello, bytes(83)),
        (m.Rendezvous, bytes.fromhex("00 1122334455 2709 04 0a0000")),
        (m.PushDirectPaths, bytes.fromhex("0001 00 0000 04 06 0a000001")),
        (m.PushDirectPaths, bytes.fromhex("0001 00 0000 04 07 0a0000012709")),
        (m.OkWhois, bytes(72)),
        (m.AuthenticationRequired, bytes.fromhex("0000000000000001 0009 00")),
    ],
)
def test_refused(kind, wire):
    with pytest.raises(DecodeError):
        kind.decode(wire)


def test_tolerated():
    assert m.Whois.decode(bytes(9)).addresses == (Address(0),)
    assert len(m.MulticastLike.decode(bytes(35)).groups) == 1
    assert len(m.QosMeasurement.decode(bytes(19)).records) == 1
    assert m.Frame.decode(bytes(9)) == m.Frame(NetworkId(0))
    assert m.ExtFrame.decode(bytes(22)).payload == b""
    assert m.Rendezvous.decode(bytes.fromhex("00 1122334455 2709 05 0a000001ff")).address == NIL
    assert m.NetworkConfigRequest.decode(bytes(9)).metadata is None
    assert m.NetworkConfigRequest.decode(bytes(8) + b"\0\5abc").metadata is None
    assert m.NetworkConfigRequest.decode(bytes(8) + b"\0\3abc").metadata == b"abc"
    assert m.NetworkCredentials.decode(b"") == m.NetworkCredentials(parts=1)
    assert m.RemoteTrace.decode(b"a=1\0\0b=2").dictionaries == (b"a=1",)
    assert m.AuthenticationRequired.decode(bytes(10)).data is None


def test_direct_path_lengths():
    """The address is where it belongs, the next record where the length says."""
    record = bytes.fromhex("02 0003 616263 04 08 0a0000012709 ffff")
    (first, second) = m.PushDirectPaths.decode(b"\0\2" + record * 2).paths
    assert first == second == m.DirectPath(InetAddress.parse("10.0.0.1/9993"), 2, b"abc")
    assert first.redirect
    assert not first.forget
    unknown = bytes.fromhex("0001 01 0000 05 02 abcd")
    (path,) = m.PushDirectPaths.decode(unknown).paths
    assert path == m.DirectPath(NIL, m.DirectPath.FORGET)


def test_gather_with_damaged_certificate():
    wire = m.MulticastGather(NetworkId(1), MulticastGroup(Mac(1)), 5).encode()
    damaged = wire[:8] + b"\1" + wire[9:] + b"\2junk"
    assert m.MulticastGather.decode(damaged).com is None


def test_moons_of_other_types_are_skipped():
    identity = Identity(Address(1), bytes(64))
    hello = m.Hello(m.OWN_VERSION, 1, identity, moons=(WorldVersion(1, 2), WorldVersion(3, 4)))
    wire = bytearray(hello.encode())
    wire[-34] = 1
    assert m.Hello.decode(wire).moons == (WorldVersion(3, 4),)
    assert m.Hello.tail_offset(wire) == len(wire) - 36


def test_worlds_of_an_ok():
    world = World(WorldType.PLANET, 1, 2, bytes(64), ())
    moon = World(WorldType.MOON, 3, 4, bytes(64), ())
    ok = m.OkHello(1, m.OWN_VERSION, worlds=world.encode() + moon.encode())
    assert m.OkHello.decode(ok.encode()).decode_worlds() == (world, moon)
    with pytest.raises(DecodeError):
        m.OkHello(1, m.OWN_VERSION, worlds=b"\2").decode_worlds()
