"""What somebody without any credentials can make a node do: little, and bounded."""

from random import Random

import pytest

from tests.sim import Host, Network
from tests.sim.host import DATA
from tests.sim.identity import cheap_identity
from zt._fast.cipher import PeerKey
from zt.protocol.address import Address
from zt.protocol.identity import PUBLIC_SIZE, Identity
from zt.protocol.inet import InetAddress
from zt.protocol.messages import OWN_VERSION, Error, Hello, Ok
from zt.protocol.packet import (
    FLAGS,
    HEADER_SIZE,
    MAC,
    PAYLOAD,
    SUITE_MAC,
    SUITE_SALSA,
    SUITE_TRUSTED,
    VERB,
    ErrorCode,
    Header,
    Verb,
    new_packet,
)
from zt.vl1.actions import COLLISION, Event, Load, Send, Validate
from zt.vl1.cache import CachedPeer
from zt.vl1.hello import IDENTITY_AT, PENDING_LIMIT
from zt.vl1.status import PhysicalPath, Settings

RANDOM = Random(5)
FROM = InetAddress.parse("45.0.0.1/9993")
MTU_ONLY = PhysicalPath(mtu=1400)


@pytest.fixture
def net() -> Network:
    net = Network(seed=41)
    net.add_roots()
    return net


def hello(identity: Identity, to: Host, *, damage: bool = False) -> bytes:
    message = Hello(OWN_VERSION, 1, identity, FROM)
    payload = message.encode()
    packet = new_packet(RANDOM.randbytes(8), to.address, identity.address, Verb.HELLO, payload)
    key = PeerKey(identity.agree(to.identity))
    key.mask_hello(packet, HEADER_SIZE + Hello.tail_offset(payload))
    key.seal(packet, SUITE_MAC)
    if damage:
        packet[-1] ^= 1
    return bytes(packet)


def knock(host: Host, data: bytes, source: InetAddress = FROM) -> list[object]:
    """Everything that a datagram makes the node do at once, but for a look into the home folder;
    checks stay unanswered."""
    now_ms = host.net.now_ms
    host.switch.datagram(1, source.ip, source.port, data, now_ms)
    for punt in host.switch.take_punts():
        host.node.punt(punt, now_ms)
    actions = [action for action in host.node.actions() if not isinstance(action, Load)]
    return [*actions, *host.switch.take_datagrams()]


def sent(actions: list[object]) -> list[Send]:
    return [action for action in actions if isinstance(action, Send)]


def test_nothing_is_answered_before_the_proof_of_work(net: Network) -> None:
    host = net.add_host()
    stranger = cheap_identity(RANDOM.randbytes)
    (check,) = knock(host, hello(stranger, host))
    assert isinstance(check, Validate)
    assert check.identity == stranger
    host.node.validated(check.ticket, False, net.now_ms)
    assert host.node.actions() == []
    assert stranger.address not in host.node.vl1.peers


@pytest.mark.parametrize("himself", [True, False])
def test_who_was_here_before_needs_no_check(net: Network, himself: bool) -> None:
    """A node that was restarted finds its peers in its home folder when they say HELLO; somebody
    else with such an address gets nothing of it."""
    host = net.add_host()
    friend, other = cheap_identity(RANDOM.randbytes), cheap_identity(RANDOM.randbytes)
    who = friend if himself else other
    caller = Identity(friend.address, who.public_key, bytes(who.private_key))
    now_ms = net.now_ms
    host.switch.datagram(1, FROM.ip, FROM.port, hello(caller, host), now_ms)
    (punt,) = host.switch.take_punts()
    host.node.punt(punt, now_ms)
    load, check = host.node.actions()
    assert isinstance(load, Load)
    assert isinstance(check, Validate)
    host.node.stored(load.name, CachedPeer(friend, OWN_VERSION, ()).encode(), now_ms)
    assert host.node.awaits(check.ticket) is not himself
    assert bool(sent(host.node.actions())) is himself
    assert host.node.vl1.peers[friend.address].identity == friend


def test_copies_wait_for_one_check(net: Network) -> None:
    """A node says HELLO from all its sockets: one check, and every copy is answered."""
    host = net.add_host()
    stranger = cheap_identity(RANDOM.randbytes)
    (check,) = knock(host, hello(stranger, host))
    for port in (2, 3):
        assert knock(host, hello(stranger, host), InetAddress(FROM.ip, port)) == []
    assert isinstance(check, Validate)
    host.node.validated(check.ticket, True, net.now_ms)
    ports = [send.port for send in sent(host.node.actions()) if Header.decode(send.data).suite != 0]
    assert ports == [FROM.port, 2, 3]


def test_answers_are_not_larger_than_questions(net: Network) -> None:
    """In bytes, over a burst of strangers: no amplifier, whoever forges whose address."""
    host = net.add_host()
    asked = answered = 0
    for number in range(40):
        source = InetAddress(bytes((45, 1, number, 1)), 1)
        data = hello(cheap_identity(RANDOM.randbytes), host)
        asked += len(data)
        for action in knock(host, data, source):
            if isinstance(action, Validate):
                host.node.validated(action.ticket, False, net.now_ms)
        answered += sum(len(send.data) for send in sent(host.node.actions()))
        asked += 100
        answered += sum(
            len(send.data)
            for send in sent(knock(host, garbage(host, RANDOM), source))
            if send.ip == source.ip
        )
    assert answered == 0


def garbage(host: Host, random: Random) -> bytes:
    packet = bytearray(random.randbytes(100))
    packet[8:13] = host.address.encode()
    packet[FLAGS] &= ~0x47
    return bytes(packet)


def test_checks_are_granted_by_source_network(net: Network) -> None:
    host = net.add_host()
    burst = host.settings.stranger_burst

    def checks(source: InetAddress) -> int:
        actions = knock(host, hello(cheap_identity(RANDOM.randbytes), host), source)
        return sum(isinstance(action, Validate) for action in actions)

    granted = sum(checks(InetAddress(bytes((45, 0, 0, i)), 1)) for i in range(50))
    assert granted == burst
    assert checks(InetAddress.parse("46.0.0.1/1")) == 1  # others are not affected
    net.now_ms += 2_000
    assert sum(checks(FROM) for _ in range(3)) == 1


def test_without_room_for_a_check_nobody_new_comes_up(net: Network) -> None:
    """The data plane keeps back what could only be refused, until one of the checks is done."""
    host = net.add_host()
    places = [InetAddress.parse(f"45.0.{number}.1/9993") for number in range(PENDING_LIMIT + 1)]
    strangers = [cheap_identity(RANDOM.randbytes) for _ in places]
    *first, last = zip(strangers, places, strict=True)
    checks = [knock(host, hello(identity, host), place)[0] for identity, place in first]
    identity, place = last
    dropped = host.switch.counters()["drop_stranger"]
    assert knock(host, hello(identity, host), place) == []
    assert host.switch.counters()["drop_stranger"] == dropped + 1
    assert isinstance(checks[0], Validate)
    host.node.validated(checks[0].ticket, False, net.now_ms)
    assert knock(host, hello(identity, host), place) != []


def test_a_damaged_hello_costs_its_sender_the_same(net: Network) -> None:
    host = net.add_host()
    for _ in range(host.settings.stranger_burst):
        assert knock(host, hello(cheap_identity(RANDOM.randbytes), host, damage=True)) == []
    assert knock(host, hello(cheap_identity(RANDOM.randbytes), host)) == []


def test_collision_is_told_to_the_newcomer_only(net: Network) -> None:
    (root,) = net.roots
    host = net.add_host()
    net.run(1_000)
    usurper = cheap_identity(RANDOM.randbytes)
    usurper = Identity(host.address, usurper.public_key, usurper.private_key)
    (answer,) = sent(knock(root, hello(usurper, root)))
    packet = bytearray(answer.data)
    assert PeerKey(usurper.agree(root.identity)).open(packet)
    assert Header.decode(packet).suite == SUITE_SALSA
    error = Error.decode(packet[PAYLOAD:])
    assert (error.verb, error.code) == (Verb.HELLO, ErrorCode.IDENTITY_COLLISION)
    assert root.node.vl1.peers[host.address].identity == host.identity


def collision(sender: Identity, host: Host, request_id: int) -> bytes:
    error = Error(Verb.HELLO, request_id, ErrorCode.IDENTITY_COLLISION)
    packet = new_packet(
        RANDOM.randbytes(8), host.address, sender.address, Verb.ERROR, error.encode()
    )
    PeerKey(sender.agree(host.identity)).seal(packet, SUITE_SALSA)
    return bytes(packet)


def test_collision_is_believed_of_an_upstream_that_was_asked(net: Network) -> None:
    (root,) = net.roots
    other, host = net.add_host(), net.add_host()
    net.run(1_000)
    host.send(other, b"x")
    net.run(1_000)
    hellos: list[int] = []

    def note(who: Host, source: InetAddress, to: InetAddress, data: bytes) -> None:
        if who is host and data[FLAGS] == 0:
            hellos.append(int.from_bytes(data[:8]))

    net.trace = note
    net.run_until(lambda: bool(hellos), 200_000)

    def events(sender: Identity, request_id: int) -> list[object]:
        data = collision(sender, host, request_id)
        return [action for action in knock(host, data) if isinstance(action, Event)]

    assert events(root.identity, 12345) == []  # never asked
    assert events(other.identity, hellos[-1]) == []  # not an upstream
    (event,) = events(root.identity, hellos[-1])
    assert isinstance(event, Event)
    assert event.kind == COLLISION


def test_unknown_sources_are_asked_for_at_a_bounded_rate(net: Network) -> None:
    host = net.add_host()
    net.run(1_000)
    lookups = 0
    for _ in range(5_000):
        lookups += len(sent(knock(host, garbage(host, RANDOM))))
    assert 0 < lookups <= 250
    assert host.node.vl1.inbound.pending <= 2_000
    net.run(10_000)
    assert host.node.vl1.inbound.pending == 0
    assert host.node.vl1.lookup.pending == 0


def test_forged_whois_answers_fill_nothing(net: Network) -> None:
    """Identities that we did not ask for are not taken, even from a root."""
    (root,) = net.roots
    host = net.add_host()
    net.run(1_000)
    request = host.node.vl1.send(root.address, Verb.ECHO, b"", net.now_ms)
    assert request is not None
    strangers = [cheap_identity(RANDOM.randbytes) for _ in range(20)]
    body = b"".join(stranger.encode() for stranger in strangers)
    ok = Ok(Verb.WHOIS, request, body).encode()
    packet = new_packet(RANDOM.randbytes(8), host.address, root.address, Verb.OK, ok)
    PeerKey(root.identity.agree(host.identity)).seal(packet, SUITE_SALSA)
    knock(host, bytes(packet), root.sockets[1])
    assert set(host.node.vl1.peers) == {root.address}


def test_an_identity_of_a_lying_root_is_dropped_after_the_check(net: Network) -> None:
    (root,) = net.roots
    a, b = net.add_host(), net.add_host()
    net.run(1_000)
    a.validate = lambda identity: identity != b.identity
    a.send(b, b"secret")
    net.run(1_000)
    assert b.address not in a.node.vl1.peers
    assert root.address in a.node.vl1.peers


def test_no_trusted_path_id_is_no_id(net: Network) -> None:
    """In the original an entry of `physical` without ID made 0 a trusted one (chapter 03, Q5)."""
    host = net.add_host(settings=Settings(physical={InetAddress.parse("0.0.0.0/0"): MTU_ONLY}))
    friend = net.add_host()
    net.run(1_000)
    friend.send(host, b"hello")
    net.run_until(lambda: host.got(b"hello"), 2_000)
    forged = new_packet(bytes(8), host.address, friend.address, DATA, b"forged")
    forged[FLAGS] |= SUITE_TRUSTED << 3
    for source in (friend.sockets[1], FROM):
        host.receive(host.sockets[1], source, bytes(forged))
    assert not host.got(b"forged")


@pytest.mark.parametrize("usable", [True, False])
def test_hello_in_the_clear_over_a_trusted_path(net: Network, usable: bool) -> None:
    """The first of a peer that there is no key with yet; with some there can be none."""
    trusted = PhysicalPath(trusted_id=7)
    host = net.add_host(settings=Settings(physical={InetAddress.parse("0.0.0.0/0"): trusted}))
    friend = cheap_identity(RANDOM.randbytes)
    named = friend.public() if usable else Identity(friend.address, bytes(64))
    host.node.vl1.add_peer(named, net.now_ms)
    packet = new_packet(
        RANDOM.randbytes(8),
        host.address,
        friend.address,
        Verb.HELLO,
        Hello(OWN_VERSION, 1, named, FROM).encode(),
    )
    packet[FLAGS] |= SUITE_TRUSTED << 3
    packet[MAC:VERB] = (7).to_bytes(8)
    if usable:
        PeerKey(friend.agree(host.identity)).mask_hello(packet, len(packet) - 2)
    assert bool(sent(knock(host, bytes(packet)))) == usable


def test_reserved_addresses_are_nobody(net: Network) -> None:
    host = net.add_host()
    net.run(1_000)
    for value in (0, 0xFF_0000_0001):
        keys = cheap_identity(RANDOM.randbytes)
        identity = Identity(Address(value), keys.public_key, keys.private_key)
        assert knock(host, hello(identity, host)) == []


def test_full_tables_forget_the_silent_first(net: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.sim.host.MAX_PEERS", 50)
    (root,) = net.roots
    root.start()
    busy = net.add_host()
    for number in range(200):
        host = net.add_host()
        net.run(200)
        assert len(root.node.vl1.peers) <= 50
        assert host.address in root.node.vl1.peers
        busy.send(root, b"%d" % number)
    assert busy.address in root.node.vl1.peers
    # Who was forgotten is still on disk.
    assert len([name for name in root.files if name.startswith("peers.d/")]) >= 150


@pytest.mark.parametrize("private", [False, True])
def test_a_known_peer_may_name_its_private_key(net: Network, private: bool) -> None:
    """What its HELLO names is not always byte for byte what we know of it."""
    host, peer = net.add_host(), net.add_host()
    host.node.vl1.add_peer(peer.identity.public(), net.now_ms)
    data = bytearray(hello(peer.identity, host))
    if private:
        end = IDENTITY_AT + PUBLIC_SIZE
        data[end - 1 : end] = peer.identity.encode(private=True)[PUBLIC_SIZE - 1 :]
        PeerKey(peer.identity.agree(host.identity)).seal(data, SUITE_MAC)
    answers = [action for action in sent(knock(host, bytes(data))) if action.ip == FROM.ip]
    assert [len(answer.data) > HEADER_SIZE for answer in answers] == [True, True]  # OK and HELLO
