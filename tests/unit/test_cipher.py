"""Ciphers and packet armor against the recorded data, at every level this CPU has."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zt._fast import cipher
from zt._fast.cipher import PeerKey

Vectors = Callable[[str], Any]
unhex = bytes.fromhex


@pytest.fixture(params=cipher.levels(), autouse=True)
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    before = cipher.level()
    cipher.set_level(request.param)
    yield request.param
    cipher.set_level(before)


def salsa20(case: dict[str, Any], data: str, counter: int = 0) -> str:
    buffer = bytearray(unhex(data))
    cipher.salsa20_xor(buffer, unhex(case["key"]), unhex(case["iv"]), case["rounds"], counter)
    return buffer.hex()


def test_salsa20(vectors: Vectors) -> None:
    for case in vectors("crypto_salsa20.json")["cases"]:
        assert salsa20(case, case["input"]) == case["output"], case["name"]


def test_salsa20_restarts_at_the_next_block(vectors: Vectors) -> None:
    for case in vectors("crypto_salsa20.json")["chunked_cases"]:
        counter = 0
        for data, output in zip(case["inputs"], case["outputs"], strict=True):
            assert salsa20(case, data, counter) == output
            counter += -(-len(data) // 2 // 64)


def test_poly1305(vectors: Vectors) -> None:
    for case in vectors("crypto_poly1305.json")["cases"]:
        tag = cipher.poly1305(unhex(case["key"]), unhex(case["message"]))
        assert tag.hex() == case["tag"], case["name"]


def test_kbkdf(vectors: Vectors) -> None:
    for case in vectors("kbkdf.json")["cases"]:
        key = unhex(case["key"])
        out = cipher.kbkdf(key, case["label"], case["context"], case["iteration"])
        assert out.hex() == case["output"]


ARMOR = ["armor_salsa.json", "armor_aes_gmac_siv.json"]


@pytest.mark.parametrize("name", ARMOR)
def test_armor(vectors: Vectors, name: str) -> None:
    for case in vectors(name)["cases"]:
        key = PeerKey(unhex(case["key48"]))
        packet = bytearray(unhex(case["packet_plain"]))
        key.seal(packet, case.get("suite", 3))
        assert packet.hex() == case["packet_armored"], case["note"]
        assert key.open(packet), case["note"]
        assert packet.hex() == case["packet_dearmored"], case["note"]


@pytest.mark.parametrize("name", ARMOR)
def test_tampered_packets_fail(vectors: Vectors, name: str) -> None:
    for case in vectors(name)["tampered"]:
        packet = bytearray(unhex(case["packet"]))
        assert not PeerKey(unhex(case["key48"])).open(packet), case["reason"]
        body = packet[27:]
        assert body in (unhex(case["packet"])[27:], bytes(len(body)))


@pytest.mark.parametrize("name", ARMOR)
def test_relayed_packets_pass(vectors: Vectors, name: str) -> None:
    for case in vectors(name)["relayed"]:
        packet = bytearray(unhex(case["packet"]))
        assert PeerKey(unhex(case["key48"])).open(packet), case["note"]
        assert packet.hex() == case["packet_dearmored"]


def test_trusted_path_packets_are_never_armor(vectors: Vectors) -> None:
    for case in vectors("armor_salsa.json")["trusted_path"]:
        assert not PeerKey(bytes(48)).open(bytearray(unhex(case["packet_wire"])))


def test_hops_at_armor_time_break_suite_3(vectors: Vectors) -> None:
    for case in vectors("armor_aes_gmac_siv.json")["quirks"]:
        key = PeerKey(unhex(case["key48"]))
        packet = bytearray(unhex(case["packet_plain"]))
        key.seal(packet, 3)
        assert packet.hex() == case["packet_armored"]
        assert key.open(packet) is case["dearmor_ok"]


def test_hello_tail(vectors: Vectors) -> None:
    for case in vectors("hello_cryptfield.json")["cases"]:
        key = PeerKey(unhex(case["key48"]))
        packet = bytearray(unhex(case["packet_plain"]))
        start = case["crypted_start"]
        key.mask_hello(packet, start)
        assert packet[start:].hex() == case["tail_crypted"]
        key.seal(packet, 0)
        assert packet.hex() == case["packet_wire"]
        assert key.open(packet)
        key.mask_hello(packet, start)
        assert packet.hex() == case["packet_after_receive"]


@pytest.mark.parametrize("size", [28, 29, 43, 44, 45, 91, 130])
@pytest.mark.parametrize("suite", [0, 1, 3])
def test_one_flipped_bit_fails(suite: int, size: int) -> None:
    key = PeerKey(bytes(range(48)))
    sealed = bytearray(i * 7 & 0xFF for i in range(size))
    sealed[18] = 0
    key.seal(sealed, suite)
    for bit in range(8 * size):
        packet = bytearray(sealed)
        packet[bit // 8] ^= 1 << bit % 8
        is_hops = bit // 8 == 18 and bit % 8 < 3
        # the legacy "encrypted" bit is part of the key of suites 0 and 1, and of the AAD
        assert key.open(packet) is is_hops, bit


@pytest.mark.parametrize("suite", [0, 1, 3])
@given(
    key=st.binary(min_size=48, max_size=48),
    other=st.binary(min_size=48, max_size=48),
    header=st.binary(min_size=27, max_size=27),
    body=st.binary(min_size=1, max_size=3000),
)
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_sealed_opens(
    suite: int, key: bytes, other: bytes, header: bytes, body: bytes
) -> None:
    packet = bytearray(header + body)
    packet[18] &= 0xF8
    PeerKey(key).seal(packet, suite)
    assert packet[18] >> 3 & 7 == suite
    assert packet[8:18] == header[8:18]
    opened = bytearray(packet)
    assert PeerKey(key).open(opened)
    assert opened[27:] == body
    assert PeerKey(other).open(packet) is (other == key)


def test_level_from_the_environment() -> None:
    program = "from zt._fast import cipher; print(cipher.level())"

    def run(name: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "ZT_CPU_LEVEL": name}
        return subprocess.run(
            [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=False
        )

    for name in cipher.levels():
        assert run(name).stdout.strip() == name
    assert "this CPU has the levels" in run("abacus").stderr


def test_measure() -> None:
    for operation in ("salsa2012", "poly1305", "checksum", "seal1", "open0", "open3"):
        assert cipher.measure(operation, 100, 2) > 0
    for operation in ("seal2", "open", "aes"):
        with pytest.raises(ValueError):
            cipher.measure(operation, 100, 2)
    with pytest.raises(ValueError):
        cipher.measure("seal0", 27, 1)


def test_refused_arguments() -> None:
    with pytest.raises(ValueError):
        PeerKey(bytes(47))
    key = PeerKey(bytes(48))
    for suite in (-1, 2, 4, 7):
        with pytest.raises(ValueError):
            key.seal(bytearray(28), suite)
    with pytest.raises(ValueError):
        key.seal(bytearray(27), 0)
    assert not key.open(bytearray(27))
    assert not key.open(bytearray())
    with pytest.raises(ValueError):
        key.mask_hello(bytearray(28), 29)
    with pytest.raises((ValueError, BufferError)):
        key.seal(bytes(28), 0)  # type: ignore[arg-type]
    with pytest.raises(ValueError):
        cipher.salsa20_xor(bytearray(1), bytes(32), bytes(8), 8)
    with pytest.raises(ValueError):
        cipher.salsa20_xor(bytearray(1), bytes(31), bytes(8))
    with pytest.raises(ValueError):
        cipher.poly1305(bytes(31), b"")
    with pytest.raises(ValueError):
        cipher.set_level("none such")
