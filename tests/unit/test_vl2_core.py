"""Requests, answers, refusals and the controller's side of one node (ch. 04, 5 and 6)."""

from dataclasses import replace
from itertools import pairwise
from random import Random

import pytest

from tests.sim.identity import cheap_identity
from tests.unit.vl2_recorder import RecordingVl1, tables_of
from zt.protocol import netconf
from zt.protocol.address import Mac, NetworkId
from zt.protocol.credentials import Capability, Com, Tag, revoke_com
from zt.protocol.messages import (
    AuthenticationRequired,
    Error,
    ExtFrame,
    NetworkConfigRequest,
    NetworkCredentials,
    Ok,
)
from zt.protocol.netconf import ANCHOR, REPLICATOR, ConfigChunk, NetworkConfig, RequestMetadata
from zt.protocol.packet import ErrorCode, Verb
from zt.vl1 import WAIT
from zt.vl1.actions import ConfigRequest, NetworkChanged, NetworkGone, Store
from zt.vl1.status import Settings
from zt.vl2 import Vl2, status

NOW_MS = 1700000000000


US, CONTROLLER, PEER, OTHER = (cheap_identity(Random(seed).randbytes) for seed in range(4))
NWID = NetworkId(CONTROLLER.address << 24 | 0xC0FFEE)


@pytest.fixture
def vl1():
    return RecordingVl1(US, [CONTROLLER, PEER, OTHER])


@pytest.fixture
def vl2(vl1):
    node = Vl2(vl1, tables_of(vl1), now_ms=NOW_MS, platform="linux/x86_64")
    node.join(NWID, NOW_MS)
    return node


def config(**options):
    base = NetworkConfig(
        nwid=NWID, issued_to=US.address, timestamp=NOW_MS, revision=1, rules=b"\1\0",
        multicast_limit=32,
        com=Com.issue(NWID, US, NOW_MS, 1800000).sign(CONTROLLER),
    )  # fmt: skip
    return replace(base, **options)


def chunks(config, update=7, signer=CONTROLLER):
    return netconf.split(NWID, config.encode(), update, signer)


def push(vl1, *parts, source=CONTROLLER, now_ms=NOW_MS):
    for part in parts:
        vl1.deliver(source.address, Verb.NETWORK_CONFIG, part.encode(), now_ms)


def answer(vl1, part, source=CONTROLLER, now_ms=NOW_MS):
    reply = Ok(Verb.NETWORK_CONFIG_REQUEST, 5, part.encode())
    vl1.deliver(source.address, Verb.OK, reply.encode(), now_ms)


def refuse(vl1, code, source=CONTROLLER, verb=Verb.NETWORK_CONFIG_REQUEST, data=None):
    error = Error(verb, 0, code, NWID.encode() if data is None else data)
    vl1.deliver(source.address, Verb.ERROR, error.encode(), NOW_MS)


# -- configurations ------------------------------------------------------------------------------


def test_forged_foreign_and_damaged_configurations_are_counted(vl1, vl2):
    push(vl1, *chunks(config(), signer=PEER))
    assert vl2.counters()["vl2.config.forged"] == 1
    push(vl1, *netconf.split(NWID, b"no dictionary", 8, CONTROLLER))
    assert vl2.counters()["vl2.config.damaged"] == 1
    push(vl1, *chunks(config(issued_to=PEER.address), 9))
    push(vl1, *chunks(config(nwid=NetworkId(NWID + 1)), 10))
    assert vl2.counters()["vl2.config.refused"] == 2
    assert vl2.network(NWID).config is None
    push(vl1, *chunks(config(), 11))
    assert vl2.network(NWID).config == config()


def test_controller_unknown_yet(vl1, vl2):
    known = vl1.identities.pop(CONTROLLER.address)
    (part,) = chunks(config())
    found = vl1.deliver(PEER.address, Verb.NETWORK_CONFIG, part.encode(), NOW_MS)
    assert found is WAIT
    assert vl1.asked == [CONTROLLER.address]
    vl1.identities[CONTROLLER.address] = known
    vl1.retry(NOW_MS + 100)
    assert vl2.network(NWID).status == status.OK


def test_old_configurations_come_back_only_from_the_controller_when_asked(vl1, vl2):
    new, old = config(timestamp=NOW_MS + 60000), config(timestamp=NOW_MS)
    push(vl1, *chunks(new, 1))
    push(vl1, *chunks(old, 2), source=PEER)
    push(vl1, *chunks(old, 3))
    answer(vl1, chunks(old, 4)[0], source=PEER)
    assert vl2.network(NWID).config == new
    assert vl2.counters()["vl2.config.old"] == 3
    answer(vl1, chunks(old, 5)[0])  # its clock was set back
    assert vl2.network(NWID).config == old


def test_identical_configuration_changes_nothing(vl1, vl2):
    push(vl1, *chunks(config(), 1))
    vl1.take_actions()
    push(vl1, *chunks(config(), 2), now_ms=NOW_MS + 5000)
    assert not any(isinstance(a, (NetworkChanged, Store)) for a in vl1.take_actions())
    assert vl2._networks[NWID].updated_ms == NOW_MS


def test_big_configuration_in_many_chunks_and_any_order(vl1, vl2):
    rules = b"\x25\x02\xff\xff\0\0" * 500 + b"\1\0"
    capabilities = tuple(
        Capability(NWID, NOW_MS, id, b"\x25\x02\xff\xff\0\0" * 32).grant(CONTROLLER, US.address)
        for id in range(100)
    )
    big = config(rules=rules, capabilities=capabilities)
    parts = chunks(big)
    assert len(parts) > 3
    Random(5).shuffle(parts)
    for part in parts:
        push(vl1, part, part, source=OTHER)
    assert vl2.network(NWID).config == big


def test_contacts_and_own_prefixes_follow(vl1, vl2):
    special = (PEER.address | ANCHOR, OTHER.address | REPLICATOR)
    push(vl1, *chunks(config(specialists=special)))
    assert vl1.contacts == {PEER.address, OTHER.address}
    vl2.leave(NWID, NOW_MS)
    assert vl1.contacts == set()
    actions = vl1.take_actions()
    assert NetworkGone(NWID) in actions
    assert Store(f"networks.d/{NWID}.conf", None) in actions
    assert vl2.network(NWID) is None


def test_low_bandwidth_asks_less(vl1, vl2):
    vl1.settings = Settings(low_bandwidth=True)
    push(vl1, *chunks(config(timestamp=NOW_MS)))
    now_ms, asked = NOW_MS, 0
    while now_ms < NOW_MS + 64 * 60000:
        vl2.timer(now_ms)
        asked += sum(s.verb == Verb.NETWORK_CONFIG_REQUEST for s in vl1.take_sent())
        now_ms += 1000
    assert asked == 0
    vl2.timer(now_ms + 25000)
    assert any(s.verb == Verb.NETWORK_CONFIG_REQUEST for s in vl1.take_sent())


def test_forgers_are_not_listened_to_for_a_while(vl1, vl2):
    """A signature check costs more than a packet does."""
    bad, good = chunks(config(), 1, PEER)[0], chunks(config(), 2)[0]
    for _ in range(100):
        push(vl1, bad, source=PEER)
    assert vl2.counters()["vl2.config.forged"] == 1
    push(vl1, good, source=PEER)
    assert vl2.network(NWID).config is None
    push(vl1, good, source=OTHER)
    assert vl2.network(NWID).config is not None
    later = chunks(config(timestamp=NOW_MS + 1), 3)[0]
    push(vl1, later, source=PEER, now_ms=NOW_MS + 1000)
    assert vl2.network(NWID).config.timestamp == NOW_MS + 1


# -- refusals ------------------------------------------------------------------------------------


def test_only_the_controller_refuses(vl1, vl2):
    refuse(vl1, ErrorCode.NETWORK_ACCESS_DENIED, source=PEER)
    assert vl2.network(NWID).status == status.REQUESTING_CONFIGURATION
    refuse(vl1, ErrorCode.OBJECT_NOT_FOUND, verb=Verb.FRAME)
    assert vl2.network(NWID).status == status.REQUESTING_CONFIGURATION
    for code, expected in (
        (ErrorCode.UNSUPPORTED_OPERATION, status.NOT_FOUND),
        (ErrorCode.NETWORK_ACCESS_DENIED, status.ACCESS_DENIED),
        (ErrorCode.OBJECT_NOT_FOUND, status.NOT_FOUND),
    ):
        refuse(vl1, code)
        assert vl2.network(NWID).status == expected
    push(vl1, *chunks(config()))
    assert vl2.network(NWID).status == status.OK


def test_authentication_url(vl1, vl2):
    data = AuthenticationRequired(NWID, b"aV=0\naU=https://sso.example/login").encode()
    refuse(vl1, ErrorCode.AUTHENTICATION_REQUIRED, data=data)
    found = vl2.network(NWID)
    assert found.status == status.AUTHENTICATION_REQUIRED
    assert found.authentication_url == "https://sso.example/login"


def test_errors_too_short_are_ignored(vl1, vl2):
    for size in range(8):
        refuse(vl1, ErrorCode.NETWORK_ACCESS_DENIED, data=NWID.encode()[:size])
    assert vl2.network(NWID).status == status.REQUESTING_CONFIGURATION


# -- credentials ---------------------------------------------------------------------------------


def test_many_credentials_are_sent_as_receivers_take_them(vl1, vl2):
    capabilities = tuple(
        Capability(NWID, NOW_MS, id, b"\x25\x02\xff\xff\0\0" * 32).grant(CONTROLLER, US.address)
        for id in range(60)
    )
    tags = tuple(Tag(NWID, NOW_MS, id, id, US.address).sign(CONTROLLER) for id in range(100))
    push(vl1, *chunks(config(capabilities=capabilities, tags=tags)))
    vl1.take_sent()
    network = vl2._networks[NWID]
    vl2._credentials.push(network, network.member(PEER.address, NOW_MS), NOW_MS)
    now_ms, times, received = NOW_MS, [], NetworkCredentials()
    while now_ms < NOW_MS + 20000:
        for sent in vl1.take_sent():
            if sent.verb == Verb.NETWORK_CREDENTIALS:
                times.append(now_ms)
                assert len(sent.payload) + 28 <= 10024
                message = NetworkCredentials.decode(sent.payload)
                received = NetworkCredentials(
                    received.coms + message.coms,
                    received.capabilities + message.capabilities,
                    received.tags + message.tags,
                )
        now_ms = max(now_ms + 100, min(vl2.deadline(), now_ms + 1000))
        vl2.timer(now_ms)
    assert received.coms == (config().com,)
    assert received.capabilities == capabilities
    assert received.tags == tags
    assert len(times) > 1
    assert all(later - earlier >= 1000 for earlier, later in pairwise(times))


def test_refused_credentials_are_counted_by_reason(vl1, vl2):
    push(vl1, *chunks(config()))
    now_ms = NOW_MS
    forged = Tag(NWID, NOW_MS, 1, 1, PEER.address, CONTROLLER.address, bytes(96))
    good = Com.issue(NWID, PEER, NOW_MS, 1800000).sign(CONTROLLER)
    older = Com.issue(NWID, PEER, NOW_MS - 1, 1800000).sign(CONTROLLER)
    gone = revoke_com(NWID, PEER.address, NOW_MS + 5, 1, CONTROLLER)
    for message in (
        NetworkCredentials(tags=(forged,)),
        NetworkCredentials((good,)),
        NetworkCredentials((older,)),
        NetworkCredentials(revocations=(gone,)),
        NetworkCredentials((good,)),
    ):
        now_ms += 1000
        vl1.deliver(PEER.address, Verb.NETWORK_CREDENTIALS, message.encode(), now_ms)
    counters = vl2.counters()
    for reason in ("invalid", "old", "revoked"):
        assert counters[f"vl2.credential.rejected.{reason}"] == 1
    assert counters["vl2.credential.new"] == 2


def test_credentials_of_a_later_signer_wait(vl1, vl2):
    push(vl1, *chunks(config()))
    known = vl1.identities.pop(CONTROLLER.address)
    com = Com.issue(NWID, PEER, NOW_MS, 1800000).sign(CONTROLLER)
    message = NetworkCredentials((com,)).encode()
    assert vl1.deliver(PEER.address, Verb.NETWORK_CREDENTIALS, message, NOW_MS) is WAIT
    vl1.identities[CONTROLLER.address] = known
    vl1.retry(NOW_MS + 10)  # not refused for coming too soon
    assert vl2._networks[NWID].is_member(PEER.address)


def test_forged_credentials_cost_little(vl1, vl2):
    push(vl1, *chunks(config()))
    forged = tuple(
        Tag(NWID, NOW_MS, id, 1, PEER.address, CONTROLLER.address, bytes(96)) for id in range(60)
    )
    message = NetworkCredentials(tags=forged).encode()
    vl1.deliver(PEER.address, Verb.NETWORK_CREDENTIALS, message, NOW_MS)
    assert vl2.counters()["vl2.credential.rejected.invalid"] == 4
    com = Com.issue(NWID, PEER, NOW_MS, 1800000)
    bad = ExtFrame(NWID, Mac(1), Mac(2), 0x800, bytes(20), com=com.sign(OTHER)).encode()
    for _ in range(50):
        vl1.deliver(PEER.address, Verb.EXT_FRAME, bad, NOW_MS)
    assert vl2.counters()["vl2.credential.rejected.invalid"] == 5


def test_idle_members_are_forgotten_but_not_too_early(vl1, vl2):
    push(vl1, *chunks(config()))
    network = vl2._networks[NWID]
    gone = revoke_com(NWID, PEER.address, NOW_MS + 5, 1, CONTROLLER)
    vl2._credentials.add(network, gone, NOW_MS)
    network.clean(NOW_MS + 2 * 7200000)
    assert PEER.address in network.members  # its revocation still counts
    network.clean(NOW_MS + 2 * 7200000 + 1)
    assert PEER.address not in network.members


# -- the controller's side -----------------------------------------------------------------------


def test_without_a_controller_requests_are_refused(vl1, vl2):
    request = NetworkConfigRequest(NetworkId(US.address << 24 | 1), b"")
    vl1.deliver(PEER.address, Verb.NETWORK_CONFIG_REQUEST, request.encode(), NOW_MS)
    ((verb, payload),) = vl1.take_replies()
    assert verb == Verb.ERROR
    assert Error.decode(payload).code == ErrorCode.UNSUPPORTED_OPERATION


def test_own_controller(vl1):
    own = NetworkId(US.address << 24 | 1)
    vl2 = Vl2(vl1, tables_of(vl1), now_ms=NOW_MS, platform="x/y")
    vl2.join(own, NOW_MS)
    vl2.timer(NOW_MS)
    assert vl2.network(own).status == status.NOT_FOUND
    vl2.controller = True
    vl2.timer(NOW_MS + 5000)
    (request,) = (a for a in vl1.take_actions() if isinstance(a, ConfigRequest))
    assert request.identity == US
    assert RequestMetadata.decode(request.metadata).platform == "x/y"
    mine = config(nwid=own, com=None)
    parts = netconf.split(own, mine.encode(), 3, US)
    vl2.send_config(US.address, own, [p.encode() for p in parts], request.request_id, NOW_MS)
    assert vl2.network(own).config == mine
    vl2.send_config_error(US.address, own, 0, ErrorCode.NETWORK_ACCESS_DENIED, b"", NOW_MS)
    assert vl2.network(own).status == status.ACCESS_DENIED
    assert not vl1.take_sent()


def test_answers_to_members(vl1, vl2):
    own = NetworkId(US.address << 24 | 1)
    vl2.controller = True
    request = NetworkConfigRequest(own, b"v=7")
    vl1.deliver(PEER.address, Verb.NETWORK_CONFIG_REQUEST, request.encode(), NOW_MS, 77)
    (asked,) = (a for a in vl1.take_actions() if isinstance(a, ConfigRequest))
    assert (asked.nwid, asked.identity, asked.metadata, asked.request_id) == (own, PEER, b"v=7", 77)
    vl2.send_config(PEER.address, own, [b"one", b"two"], 77, NOW_MS)
    vl2.send_config(PEER.address, own, [b"three"], None, NOW_MS)
    vl2.send_config_error(PEER.address, own, 77, ErrorCode.OBJECT_NOT_FOUND, b"x", NOW_MS)
    first, second, third, fourth = vl1.take_sent()
    assert first.verb == second.verb == Verb.OK
    assert Ok.decode(second.payload) == Ok(Verb.NETWORK_CONFIG_REQUEST, 77, b"two")
    assert (third.verb, third.payload) == (Verb.NETWORK_CONFIG, b"three")
    refusal = Error.decode(fourth.payload)
    assert refusal == Error(Verb.NETWORK_CONFIG_REQUEST, 77, 3, own.encode() + b"x")


def test_configured_members_may_gather_for_three_minutes(vl1, vl2):
    own = NetworkId(US.address << 24 | 1)
    vl2.controller = True
    record = own.encode() + bytes.fromhex("3333ff000002") + bytes(4)
    groups = vl2._context.groups
    vl1.deliver(PEER.address, Verb.MULTICAST_LIKE, record, NOW_MS)
    assert len(groups) == 0
    vl2.send_config(PEER.address, own, [b""], None, NOW_MS)
    vl1.deliver(PEER.address, Verb.MULTICAST_LIKE, record, NOW_MS + 180000)
    assert len(groups) == 0
    vl1.deliver(PEER.address, Verb.MULTICAST_LIKE, record, NOW_MS + 179999)
    assert len(groups) == 1


def test_chunk_value_survives():
    part = chunks(config())[0]
    assert ConfigChunk.decode(part.encode()) == part
