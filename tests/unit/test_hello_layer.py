"""The layer around HELLO that later versions can add: an encoder by the text of chapter 02, 9.1.1,
and what a node makes of its output, of damaged output, and of a flood of it."""

from collections.abc import Callable
from hashlib import sha512
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.bindings import crypto_scalarmult, crypto_scalarmult_base

from tests.sim import Host, Network
from tests.sim.identity import cheap_identity
from zt._fast import cipher
from zt._fast.cipher import PeerKey
from zt.protocol import hello_layer
from zt.protocol.errors import DecodeError
from zt.protocol.identity import Identity
from zt.protocol.inet import InetAddress
from zt.protocol.messages import OWN_VERSION, Hello
from zt.protocol.packet import FLAGS, HEADER_SIZE, MAC, VERB, Header, Verb, new_packet
from zt.vl1 import hello as gates
from zt.vl1.actions import Load, Send, Validate
from zt.vl1.cache import file_name

RANDOM = Random(17)
FROM = InetAddress.parse("45.0.0.1/9993")
A, B = (cheap_identity(Random(seed).randbytes) for seed in (1, 2))


def counter_of_12(packet: bytes) -> bytes:
    return packet[:12] + bytes(4)


def counter_of_16(packet: bytes) -> bytes:
    return packet[:16]


def layered(
    sender: Identity,
    receiver: Identity,
    *,
    counter: Callable[[bytes], bytes] = counter_of_12,
    verb: Verb = Verb.HELLO,
) -> bytes:
    """A HELLO under the layer; the flag is set before the inner MAC is computed."""
    payload = Hello(OWN_VERSION, 1, sender, FROM).encode()
    packet = new_packet(RANDOM.randbytes(8), receiver.address, sender.address, verb, payload)
    packet[FLAGS] = 0x80
    shared = sender.agree(receiver)
    PeerKey(shared).mask_hello(packet, HEADER_SIZE + Hello.tail_offset(payload))
    mixed = packet[:18] + bytes((0x80,)) + len(packet).to_bytes(2, "little") + bytes(11)
    one_time = bytearray(32)
    key = bytes(a ^ b for a, b in zip(shared, mixed, strict=False))
    cipher.salsa20_xor(one_time, key, bytes(packet[:8]))
    packet[MAC:VERB] = cipher.poly1305(one_time, packet[VERB:])[:8]
    scalar = RANDOM.randbytes(32)
    outer = sha512(crypto_scalarmult(scalar, receiver.public_key[:32])).digest()[:32]
    cipher.aes256_ctr_xor(memoryview(packet)[MAC:], outer, counter(bytes(packet)))
    return bytes(packet) + crypto_scalarmult_base(scalar)


def test_aes_256_ctr() -> None:
    """NIST SP 800-38A, F.5.5."""
    key = bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
    counter = bytes.fromhex("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff")
    data = bytearray.fromhex(
        "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
        "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
    )
    best = cipher.level()
    try:
        for level in cipher.levels():
            cipher.set_level(level)
            out = bytearray(data)
            cipher.aes256_ctr_xor(out, key, counter)
            assert out.hex() == (
                "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5"
                "2b0930daa23de94ce87017ba2d84988ddfc9c58db67aada613c2dd08457941a6"
            )
            short = data[:5]
            cipher.aes256_ctr_xor(short, key, counter)
            assert short == out[:5]
    finally:
        cipher.set_level(best)
    for wrong in ((key[1:], counter), (key, counter[1:])):
        with pytest.raises(ValueError, match="32-byte key and a 16-byte counter"):
            cipher.aes256_ctr_xor(data, *wrong)


@pytest.mark.parametrize("counter", [counter_of_12, counter_of_16])
def test_what_is_under_the_layer_is_a_hello(counter: Callable[[bytes], bytes]) -> None:
    packet = layered(A, B, counter=counter)
    assert hello_layer.is_layered(packet)
    assert A.public_key not in packet
    inner = hello_layer.remove(packet, B.private_key)
    assert len(inner) == len(packet) - hello_layer.KEY_SIZE
    assert inner[:MAC] == packet[:MAC]
    assert PeerKey(B.agree(A)).open(inner)
    assert Hello.claimed_identity(inner[HEADER_SIZE:]) == A


def test_other_packets_have_no_layer() -> None:
    for flags in (0x00, 0x40, 0x88, 0x18, 0x98, 0x07):
        packet = bytearray(layered(A, B))
        packet[FLAGS] = flags
        assert not hello_layer.is_layered(packet)


def test_truncated_anywhere() -> None:
    packet = layered(A, B)
    for size in range(HEADER_SIZE, len(packet)):
        with pytest.raises(DecodeError):
            hello_layer.remove(packet[:size], B.private_key)


@given(st.integers(0, 8 * 168 - 1))
def test_one_flipped_bit(bit: int) -> None:
    """The layer has no MAC: what is damaged either shows at once or fails the one inside."""
    packet = bytearray(layered(A, B))
    packet[bit // 8 % len(packet)] ^= 1 << bit % 8
    try:
        inner = hello_layer.remove(bytes(packet), B.private_key)
    except DecodeError:
        return
    # Of the header only the hops may change.
    hops_only = bit // 8 == FLAGS and bit % 8 < 3
    assert PeerKey(B.agree(A)).open(inner) == hops_only


def test_for_somebody_else_of_another_verb_or_under_a_useless_key() -> None:
    packet = layered(A, B)
    useless = packet[: -hello_layer.KEY_SIZE] + bytes(hello_layer.KEY_SIZE)
    for data, receiver in ((packet, A), (layered(A, B, verb=Verb.ECHO), B), (useless, B)):
        with pytest.raises(DecodeError):
            hello_layer.remove(data, receiver.private_key)


# A node that gets one


@pytest.fixture
def host() -> Host:
    net = Network(seed=43)
    net.add_roots()
    host = net.add_host()
    net.run(1_000)
    return host


def knock(host: Host, data: bytes, source: InetAddress = FROM) -> list[object]:
    now_ms = host.net.now_ms
    host.switch.datagram(1, source.ip, source.port, data, now_ms)
    for punt in host.switch.take_punts():
        host.node.punt(punt, now_ms)
    return list(host.node.actions())


def answers(actions: list[object]) -> list[int]:
    """The verbs of what was sent, OK for those that are encrypted."""
    sent = [Header.decode(action.data) for action in actions if isinstance(action, Send)]
    return [Verb.OK if header.suite else header.verb for header in sent]


def test_a_stranger_is_checked_and_answered_as_ever(host: Host) -> None:
    stranger = cheap_identity(RANDOM.randbytes)
    looked, check = knock(host, layered(stranger, host.identity))
    assert looked == Load(file_name(stranger.address))
    assert isinstance(check, Validate)
    assert check.identity == stranger
    host.node.validated(check.ticket, True, host.net.now_ms)
    # We never send the layer ourselves.
    assert answers(list(host.node.actions())) == [Verb.OK, Verb.HELLO]
    assert answers(knock(host, layered(stranger, host.identity))) == [Verb.OK]


def test_damage_is_silent(host: Host) -> None:
    packet = layered(cheap_identity(RANDOM.randbytes), host.identity)
    for size in range(HEADER_SIZE, len(packet)):
        assert knock(host, packet[:size]) == []
    for at in range(FLAGS + 1, len(packet)):
        damaged = packet[:at] + bytes((packet[at] ^ 1,)) + packet[at + 1 :]
        assert knock(host, damaged) == []


@pytest.mark.parametrize("known", [False, True])
def test_agreements_are_bounded(host: Host, known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever the header names, one network and the whole world can make us agree only so often."""
    agreements = 0

    def remove(packet: bytes, private_key: bytes) -> bytearray:
        nonlocal agreements
        agreements += 1
        raise DecodeError("counted")

    monkeypatch.setattr(hello_layer, "remove", remove)
    (root,) = host.net.roots
    sender = root.identity if known else cheap_identity(RANDOM.randbytes)
    packet = layered(sender, host.identity)
    for _ in range(1_000):
        knock(host, packet)
    assert agreements == gates.LAYER_BURST
    for number in range(3_000):
        knock(host, packet, InetAddress(bytes((46, number >> 8, number & 255, 1)), 1))
    assert agreements == gates.AGREEMENT_BURST
    host.net.now_ms += 1_000
    for _ in range(1_000):
        knock(host, packet)
    assert agreements == gates.AGREEMENT_BURST + 1_000 // gates.LAYER_MS
