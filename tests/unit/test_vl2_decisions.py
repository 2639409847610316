"""Where we do otherwise than the original (docs/networks.md), as far as no other test shows it."""

from dataclasses import replace
from itertools import pairwise

import pytest

from tests.sim import Network
from tests.unit.test_vl2_core import (
    CONTROLLER,
    NOW_MS,
    NWID,
    OTHER,
    PEER,
    US,
    chunks,
    config,
    push,
)
from tests.unit.vl2_recorder import RecordingVl1, tables_of
from tests.unit.vl2_world import add, make_world, unicast
from zt.protocol.address import Address, NetworkId
from zt.protocol.credentials import Com, Ownership, Tag, revoke_com, things_of
from zt.protocol.dictionary import Dictionary
from zt.protocol.errors import DecodeError
from zt.protocol.messages import Frame, NetworkCredentials
from zt.protocol.packet import Verb
from zt.vl1 import WAIT
from zt.vl1.actions import RemoteTrace
from zt.vl2 import Vl2
from zt.vl2.network import SYNC_SLICE


@pytest.fixture
def net():
    return Network(seed=11)


@pytest.fixture
def vl1():
    return RecordingVl1(US, [CONTROLLER, PEER, OTHER])


@pytest.fixture
def vl2(vl1):
    """A member of a private network."""
    node = Vl2(vl1, tables_of(vl1), now_ms=NOW_MS)
    node.join(NWID, NOW_MS)
    push(vl1, *chunks(config()))
    vl1.take_sent(), vl1.take_replies()
    return node


FRAME = Frame(NWID, 0x800, b"E" + bytes(40)).encode()


def test_need_for_a_certificate_is_told_rarely(vl1, vl2):
    """Not with every packet, but for every peer and again while it retries."""
    for at_ms in range(0, 400, 10):
        assert vl1.deliver(PEER.address, Verb.FRAME, FRAME, NOW_MS + at_ms) is WAIT
    vl1.deliver(OTHER.address, Verb.FRAME, FRAME, NOW_MS + 399)
    assert len(vl1.take_replies()) == 2
    vl1.deliver(PEER.address, Verb.FRAME, FRAME, NOW_MS + 500)
    assert len(vl1.take_replies()) == 1


def test_kept_frames_are_tried_again_when_a_credential_comes(vl1, vl2):
    vl1.deliver(PEER.address, Verb.FRAME, FRAME, NOW_MS)
    tag = Tag(NWID, NOW_MS, 1, 1, OTHER.address).sign(CONTROLLER)
    com = Com.issue(NWID, PEER, NOW_MS, 1800000).sign(CONTROLLER)
    gone = revoke_com(NWID, OTHER.address, NOW_MS, 1, CONTROLLER)
    for message, wanted in (
        (NetworkCredentials(revocations=(gone,)), False),  # opens nothing
        (NetworkCredentials(tags=(tag,)), True),
        (NetworkCredentials((com,)), True),
    ):
        vl1.retry_wanted = False
        vl2._credentials._taken_ms.clear()
        vl1.deliver(OTHER.address, Verb.NETWORK_CREDENTIALS, message.encode(), NOW_MS + 1)
        assert vl1.retry_wanted == wanted
    vl1.retry(NOW_MS + 2)
    assert not vl1.parked


def revocations(vl1, vl2, duration_ms):
    """(time, receiver, revoked nodes) of what is sent in that time."""
    found, now_ms = [], NOW_MS
    while now_ms < NOW_MS + duration_ms:
        for sent in vl1.take_sent():
            if sent.verb == Verb.NETWORK_CREDENTIALS:
                message = NetworkCredentials.decode(sent.payload)
                found.append((now_ms, sent.dest, [r.target for r in message.revocations]))
        now_ms = max(now_ms + 1, min(vl2.deadline(), now_ms + 500))
        vl2.timer(now_ms)
    return found


def test_a_controller_repeats_revocations_in_few_packets(vl1, vl2):
    gone = [Address(0x1000000001 + i) for i in range(70)]
    vl2.send_revocation(
        PEER.address, [revoke_com(NWID, a, NOW_MS, 1, CONTROLLER) for a in gone], NOW_MS
    )
    sent = revocations(vl1, vl2, 20_000)
    assert [len(targets) for _, _, targets in sent] == [60, 10] * 3
    assert sent[0][2] + sent[1][2] == gone
    assert all(later[0] - earlier[0] >= 1100 for earlier, later in pairwise(sent))


def test_new_revocations_do_not_wait_for_repeats_of_others(vl1, vl2):
    """Also if they come when the others' turn would be, as a controller spaces them."""
    first, second = Address(0x1000000001), Address(0x1000000002)
    vl2.send_revocation(PEER.address, [revoke_com(NWID, first, NOW_MS, 1, CONTROLLER)], NOW_MS)
    vl2.timer(NOW_MS + 1200)
    gone = revoke_com(NWID, second, NOW_MS, 2, CONTROLLER)
    vl2.send_revocation(PEER.address, [gone], NOW_MS + 1200)
    sent = [targets for _, _, targets in revocations(vl1, vl2, 20_000)]
    assert sent == [[first], [second], [first], [first], [second], [second]]


def test_new_revocations_are_passed_on_together_and_once(vl1, vl2):
    network = vl2._networks[NWID]
    others = [Address(0x2000000001 + i) for i in range(3)]
    for address in (PEER.address, CONTROLLER.address, *others):
        network.member(address, NOW_MS)
    gone = [revoke_com(NWID, Address(0x1000000001 + i), NOW_MS, i, CONTROLLER) for i in range(5)]
    message = NetworkCredentials(revocations=tuple(gone)).encode()
    for at_ms in (0, 2000):  # the second time nothing is new
        vl1.deliver(PEER.address, Verb.NETWORK_CREDENTIALS, message, NOW_MS + at_ms)
    sent = revocations(vl1, vl2, 5_000)
    targets = [r.target for r in gone]
    # Those revoked became members by it, and hear of it as in the original.
    receivers = {str(address) for address in (*others, *targets)}
    assert {dest for _, dest, _ in sent} == receivers
    assert all(found == targets for _, _, found in sent)
    assert len(sent) == len(receivers)


def test_new_configuration_reaches_many_members_in_steps(vl1, vl2):
    network = vl2._networks[NWID]
    for number in range(3 * SYNC_SLICE):
        network.member(Address(0x3000000001 + number), NOW_MS)
    push(vl1, *chunks(config(timestamp=NOW_MS + 1, public=True, com=Com()), update=8))
    allowed = []
    while network.behind:
        allowed.append(len(network.allowed))
        assert vl2.deadline() <= NOW_MS
        vl2.timer(NOW_MS)
    assert allowed == [SYNC_SLICE, 2 * SYNC_SLICE]
    assert len(network.allowed) == 3 * SYNC_SLICE


def test_what_is_refused_without_a_look_is_counted(vl1, vl2):
    foreign = Com.issue(NetworkId(NWID ^ 1), PEER, NOW_MS, 1800000).sign(CONTROLLER)
    com = Com.issue(NWID, PEER, NOW_MS, 1800000).sign(CONTROLLER)
    for message in (NetworkCredentials((foreign,)), NetworkCredentials((com,))):
        vl1.deliver(PEER.address, Verb.NETWORK_CREDENTIALS, message.encode(), NOW_MS)
    counters = vl2.counters()
    assert counters["vl2.credential.foreign network"] == 1
    assert counters["vl2.credential.too soon"] == 1
    assert "vl2.credential.new" not in counters


def test_expired_credentials_do_not_count(vl1, vl2):
    """They are kept, because whether they count is a matter of the configuration in force."""
    network = vl2._networks[NWID]
    window_ms = 1800000
    old = NOW_MS - window_ms - 1
    com = Com.issue(NWID, PEER, old, window_ms).sign(CONTROLLER)
    tag = Tag(NWID, old, 1, 1, PEER.address).sign(CONTROLLER)
    for credential in (com, tag):
        vl2._credentials.add(network, credential, NOW_MS)
    assert not network.is_member(PEER.address)
    assert network.remotes[PEER.address] is None
    earlier = replace(config(), timestamp=old, com=Com.issue(NWID, US, old, window_ms))
    vl2._install(network, replace(earlier, com=earlier.com.sign(CONTROLLER)), NOW_MS)
    assert network.is_member(PEER.address)
    assert network.remotes[PEER.address] is not None


def test_ownership_of_too_many_things_is_malformed():
    """Not read in part (Q5)."""
    things = things_of([bytes((10, 0, 0, i)) for i in range(16)])
    whole = Ownership(NWID, NOW_MS, 1, things, PEER.address).sign(CONTROLLER).encode()
    assert Ownership.decode(whole).things == things
    count, first = whole.index(b"\0\x10"), whole.index(b"\x02\x0a")
    more = whole[:count] + b"\0\x11" + whole[count + 2 : first] + whole[first : first + 17]
    with pytest.raises(DecodeError, match="17 things"):
        Ownership.decode(more + whole[first:])


def test_observer_is_told_what_others_drop(net):
    """A trace arrives at the node that the configuration names, as a value for its application."""
    nwid, controller, a, b, observer = make_world(net, 3)
    heard = []

    def carry_out(action, carry_out=observer._carry_out):
        if isinstance(action, RemoteTrace):
            heard.append((action.origin, Dictionary.decode(action.data)))
        carry_out(action)

    observer._carry_out = carry_out
    controller.options = {
        "rules": b"\0\0", "trace_target": observer.address, "trace_level": 15,
    }  # fmt: skip
    net.run(61_000)
    a.write(nwid, unicast(nwid, a, b, b"E" + bytes(40) + b"seen"))
    net.run(2_000)
    assert {origin for origin, _ in heard} == {a.address}
    events = {trace.text("event"): trace for _, trace in heard}
    assert events["2000"].text("reason") == "filter blocked"
    assert events["2006"].u64("networkId") == nwid
    assert bytes(events["2006"].blob("frameData")).endswith(b"seen")


def test_a_member_that_comes_late_is_told_by_those_that_know(net):
    """Revoked before it had heard of the revoked one: the controller tells it again."""
    nwid, controller, a, _, bad = make_world(net, 3)
    revocation = revoke_com(nwid, bad.address, net.now_ms, 7, controller.identity)
    late = add(net, type(a))
    late.join(nwid)
    net.run_until(lambda: late.node.network(nwid).config, 10_000)
    controller.node.send_revocation(late.address, [revocation], net.now_ms)
    controller.settle()
    net.run(2_000)
    bad.write(nwid, unicast(nwid, bad, late))
    net.run(3_000)
    assert not late.tap
    a.write(nwid, unicast(nwid, a, late))
    net.run(3_000)
    assert len(late.tap) == 1
