"""Whatever bytes come, a decoder answers with a value or with `DecodeError`, and reads no further.

The short form runs with every test run, from a fixed seed. ``ZT_FUZZ_RUNS`` sets how many inputs
each decoder gets (default 400), ``ZT_FUZZ_SEED`` another seed.
"""

import json
import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.conftest import load_vectors
from zt.protocol import messages as m
from zt.protocol import packet, rules
from zt.protocol.address import Address, Mac, MulticastGroup, NetworkId
from zt.protocol.credentials import Capability, Com, Ownership, Revocation, Tag
from zt.protocol.dictionary import Dictionary
from zt.protocol.errors import DecodeError
from zt.protocol.identity import Identity
from zt.protocol.inet import InetAddress
from zt.protocol.netconf import NetworkConfig, RequestMetadata, Sso
from zt.protocol.world import World

RUNS = int(os.environ.get("ZT_FUZZ_RUNS", "400"))
SEED = int(os.environ.get("ZT_FUZZ_SEED", "1"))

CORPORA = (
    "world.json", "com.json", "tag.json", "capability.json", "coo.json", "revocation.json",
    "netconf_dictionary.json", "rules_encoding.json", "identity.json", "inetaddress.json",
)  # fmt: skip


def parse_latin(kind: Any) -> Callable[[bytes], Any]:
    return lambda data: kind.parse(data.decode("latin-1"))


def decompress(data: bytes) -> bytearray:
    whole = bytearray(packet.new_packet(bytes(8), 1, 2, packet.FLAG_COMPRESSED, data))
    packet.decompress(whole)
    assert packet.PAYLOAD <= len(whole) <= packet.MAX_PACKET
    return whole


def rule_from_json(data: bytes) -> object:
    try:
        value = json.loads(data)
    except ValueError:
        value = {"type": "MATCH_CHARACTERISTICS", "mask": data.decode("latin-1")}
    return rules.from_json(value)


BODIES = {*m.BY_VERB.values(), *m.OK_BODIES.values(), *m.ERROR_BODIES.values()}
VALUES = (*BODIES, World, Com, Tag, Capability, Ownership, Revocation, Identity, InetAddress,
          MulticastGroup, Address, NetworkId, Mac)  # fmt: skip
OTHERS: dict[str, Callable[[bytes], Any]] = {
    "Hello.claimed_identity": m.Hello.claimed_identity,
    "Hello.tail_offset": m.Hello.tail_offset,
    "OkHello.decode_worlds": lambda data: m.OkHello(0, m.OWN_VERSION, worlds=data).decode_worlds(),
    "Header": packet.Header.decode,
    "FragmentHeader": packet.FragmentHeader.decode,
    "decompress": decompress,
    "Dictionary": Dictionary.decode,
    "NetworkConfig": NetworkConfig.decode,
    "RequestMetadata": RequestMetadata.decode,
    "Sso": Sso.of_error,
    "rules": rules.decode,
    "rules from JSON": rule_from_json,
    "Identity text": parse_latin(Identity),
    "InetAddress text": parse_latin(InetAddress),
    "Address text": parse_latin(Address),
    "Mac text": parse_latin(Mac),
}
DECODERS: dict[str, Callable[[bytes], Any]] = {k.__name__: k.decode for k in VALUES} | OTHERS


def hex_strings(value: Any) -> Iterator[bytes]:
    """All the hex in recorded data, whatever it stands for."""
    if isinstance(value, dict):
        for inner in value.values():
            yield from hex_strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from hex_strings(inner)
    elif isinstance(value, str) and len(value) >= 20:
        try:
            yield bytes.fromhex(value)
        except ValueError:
            yield value.encode()


@pytest.fixture(scope="module")
def corpus(pytestconfig: pytest.Config) -> list[bytes]:
    """Real payloads and values, as many as were recorded, which mutations start from."""
    packets = load_vectors(pytestconfig, "packets_plain.json") or {"packets": []}
    samples = [bytes.fromhex(case["packet"])[packet.PAYLOAD :] for case in packets["packets"]]
    # Bodies of OK and ERROR begin behind their prefixes.
    samples += [sample[at:] for sample in samples[::3] for at in (9, 10)]
    for name in CORPORA:
        samples += list(hex_strings(load_vectors(pytestconfig, name)))[:60]
    return [sample for sample in samples if len(sample) < 20000] or [bytes(64)]


def mutate(chance: random.Random, sample: bytes) -> bytes:
    """A few of: bits flipped, bytes set to telling values, cut, doubled, stretched."""
    data = bytearray(sample)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data)) if data else 0
        match chance.randrange(6):
            case 0 if data:
                data[at] ^= 1 << chance.randrange(8)
            case 1 if data:
                data[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, 0x5C, 0x3D, 0x0A))
            case 2:
                del data[at:]
            case 3:
                del data[at : at + chance.randrange(1, 9)]
            case 4:
                data[at:at] = data[at : at + chance.randrange(1, 40)]
            case _:
                data += chance.randbytes(chance.randrange(1, 20))
    return bytes(data)


@pytest.mark.parametrize("name", sorted(DECODERS))
def test_decoder(name, corpus):
    decode = DECODERS[name]
    chance = random.Random(f"{name} {SEED}")
    for run in range(RUNS):
        if run % 4:
            data = mutate(chance, chance.choice(corpus))
        else:
            data = chance.randbytes(chance.randrange(200))
        try:
            value = decode(data)
        except DecodeError:
            continue
        kind = type(value)
        if kind in VALUES and kind is not Identity:
            assert kind.decode(value.encode()) == value, data.hex()


@pytest.mark.parametrize("verb", sorted(m.BY_VERB))
def test_recorded_payloads_cut_anywhere(verb, vectors):
    """Every prefix of every payload, with the decoder that it is for."""
    kind = m.BY_VERB[verb]
    for case in vectors("packets_plain.json")["packets"]:
        if case["verb"] != verb:
            continue
        payload = bytes.fromhex(case["packet"])[packet.PAYLOAD :]
        for size in range(min(len(payload), 600)):
            try:
                kind.decode(payload[:size])
            except DecodeError:
                continue
