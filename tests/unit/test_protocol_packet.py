"""Headers and compression: chapter 02, 1 and 2; chapter 01, 6.1 and 7."""

import pytest

from zt.protocol import packet
from zt.protocol.errors import DecodeError
from zt.protocol.packet import FragmentHeader, Header, Kind, Verb

ID = bytes(range(8))


def build(verb_byte: int, payload: bytes) -> bytearray:
    return packet.new_packet(ID, 0x1122334455, 0x66778899AA, verb_byte, payload)


def test_compress(vectors):
    """The bytes may differ from the reference's; the decision and the contents may not."""
    for case in vectors("lz4.json")["compress"]:
        payload = bytes.fromhex(case["payload"])
        plain = build(case["verb_byte_before"], payload)
        packed = bytearray(plain)
        assert packet.compress(packed) == case["compressed"], case["name"]
        assert bool(packed[packet.VERB] & packet.FLAG_COMPRESSED) == case["compressed"]
        assert packed[packet.VERB] == case["verb_byte_after"]
        assert (len(packed) < len(plain)) == case["compressed"]
        packet.decompress(packed)
        assert packed == plain
        theirs = build(case["verb_byte_after"], bytes.fromhex(case["payload_after"]))
        packet.decompress(theirs)
        assert theirs == plain


def test_decompress(vectors):
    data = vectors("lz4.json")
    for case in data["uncompress"]:
        packed = build(case["verb_byte"], bytes.fromhex(case["block"]))
        packet.decompress(packed)
        assert packed == build(case["verb_byte_after"], bytes.fromhex(case["payload"])), case[
            "name"
        ]
    for case in data["uncompress_fail"]:
        packed = build(case["verb_byte"], bytes.fromhex(case["block"]))
        before = bytes(packed)
        with pytest.raises(DecodeError):
            packet.decompress(packed)
        assert packed == before


def test_compress_is_done_once():
    packed = build(Verb.USER_MESSAGE, bytes(500))
    assert packet.compress(packed)
    once = bytes(packed)
    assert packet.compress(packed)
    assert packed == once


def test_header():
    p = build(Verb.OK | packet.FLAG_COMPRESSED, b"payload")
    p[packet.FLAGS] = packet.FLAG_FRAGMENTED | packet.SUITE_AES << 3 | 5
    p[packet.MAC : packet.MAC + 8] = b"12345678"
    header = Header.decode(p)
    assert header.packet_id == int.from_bytes(ID) == packet.id_of(p)
    assert str(header.destination) == "1122334455"
    assert str(header.source) == "66778899aa"
    assert (header.fragmented, header.suite, header.hops) == (True, packet.SUITE_AES, 5)
    assert header.mac == b"12345678"
    assert (header.verb, header.compressed) == (Verb.OK, True)
    assert packet.verb_of(p) == Verb.OK
    with pytest.raises(DecodeError):
        Header.decode(p[:27])


def test_header_of_recorded_datagrams(vectors):
    for name in ("capture/startup_join_ping.json", "capture/relay_moon_chunks.json"):
        for entry in vectors(name)["entries"]:
            datagram = bytes.fromhex(entry["datagram"])
            kind = packet.classify(datagram)
            if "header" in entry:
                want = entry["header"]
                header = Header.decode(datagram)
                assert kind == Kind.HEAD
                assert f"{header.packet_id:016x}" == want["packet_id"]
                assert str(header.destination) == want["dest"]
                assert str(header.source) == want["source"]
                assert header.flags == want["flags_byte"]
                assert header.fragmented == want["fragmented"]
                assert bool(header.flags & packet.FLAG_ENCRYPTED) == want["legacy_encrypted_flag"]
                assert (header.suite, header.hops) == (want["cipher"], want["hops"])
                assert header.mac.hex() == want["mac"]
            elif "fragment" in entry:
                want = entry["fragment"]
                fragment = FragmentHeader.decode(datagram)
                assert kind == Kind.FRAGMENT
                assert f"{fragment.packet_id:016x}" == want["packet_id"]
                assert str(fragment.destination) == want["dest"]
                assert (fragment.total, fragment.number) == (want["total"], want["number"])
                assert fragment.hops == want["hops"]
                assert len(datagram) - packet.FRAGMENT_HEADER_SIZE == want["data_length"]
            else:
                assert kind is None
                assert entry["kind"] == "rendezvous_probe"


def test_classify():
    fragment = bytearray(40)
    fragment[packet.SOURCE] = packet.FRAGMENT_INDICATOR
    assert packet.classify(bytes(13)) == Kind.BEACON
    assert packet.classify(fragment) == Kind.FRAGMENT
    assert packet.classify(fragment[:17]) == Kind.FRAGMENT
    assert packet.classify(bytes(28)) == Kind.HEAD
    for size in (0, 4, 12, 14, 16, 17, 27):
        assert packet.classify(bytes(size)) is None
    for wrong in (bytes(40), fragment[:16]):
        with pytest.raises(DecodeError):
            FragmentHeader.decode(wrong)
