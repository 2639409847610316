"""The recorded captures, decoded from the raw files and compared with their transcripts.

Everything on the way from Ethernet to fields: chapter 02, 1, 2, 9 and 10; chapter 01, 6 and 7.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transcript import describe

from zt._fast.cipher import PeerKey
from zt.protocol import packet as wire
from zt.protocol.identity import Identity
from zt.protocol.inet import InetAddress
from zt.protocol.messages import Hello, Ok
from zt.protocol.netconf import Assembler, ConfigChunk, NetworkConfig
from zt.protocol.packet import FragmentHeader, Header, Kind, Verb

RECORDED = ("startup_join_ping", "relay_moon_chunks")

Datagram = tuple[InetAddress, InetAddress, bytes]


def read_pcap(path: Path) -> Iterator[Datagram]:
    """Source, destination and contents of every UDP datagram in a capture of Ethernet frames."""
    data = path.read_bytes()
    magic, *_, link_type = struct.unpack_from("<IHHiIII", data)
    assert magic == 0xA1B2C3D4
    assert link_type == 1
    offset = 24
    while offset < len(data):
        size = struct.unpack_from("<IIII", data, offset)[2]
        frame = data[offset + 16 : offset + 16 + size]
        offset += 16 + size
        ethertype = int.from_bytes(frame[12:14])
        ip = frame[14:]
        if ethertype == 0x0800:
            header = 4 * (ip[0] & 15)
            ends, protocol = (ip[12:16], ip[16:20]), ip[9]
        else:
            assert ethertype == 0x86DD
            header = 40
            ends, protocol = (ip[8:24], ip[24:40]), ip[6]
        assert protocol == 17
        source, destination, length = struct.unpack_from(">HHH", ip, header)
        payload = ip[header + 8 : header + length]
        yield InetAddress(ends[0], source), InetAddress(ends[1], destination), payload


class Reassembly:
    """As chapter 02, 2.6 has it, but for a table without bounds. Keyed by way and packet ID."""

    def __init__(self) -> None:
        self.pieces: dict[Any, dict[int, bytes]] = {}
        self.totals: dict[Any, int] = {}
        self.numbers: dict[Any, list[int]] = {}

    def add(self, way: Any, number: int, total: int, data: bytes, n: int) -> bytearray | None:
        pieces = self.pieces.setdefault(way, {})
        pieces.setdefault(number, data)
        self.numbers.setdefault(way, []).append(n)
        if total:
            self.totals[way] = total
        if len(pieces) != self.totals.get(way):
            return None
        return bytearray(b"".join(pieces[i] for i in range(len(pieces))))


class Decoder:
    """Decodes the datagrams of one capture in order."""

    def __init__(self, identities: dict[int, Identity]) -> None:
        self.identities = identities
        self.keys: dict[tuple[int, int], PeerKey] = {}
        self.reassembly = Reassembly()
        self.chunks: list[ConfigChunk] = []

    def key(self, a: int, b: int) -> PeerKey:
        if (a, b) not in self.keys:
            self.keys[a, b] = PeerKey(self.identities[a].agree(self.identities[b]))
        return self.keys[a, b]

    def datagram(self, n: int, datagram: Datagram) -> dict[str, Any]:
        source, destination, data = datagram
        kind = wire.classify(data)
        out: dict[str, Any] = {
            "n": n,
            "from": str(source),
            "to": str(destination),
            "length": len(data),
            "datagram": data.hex(),
        }
        if kind is None:
            return out | {"kind": "rendezvous_probe"}
        if kind == Kind.FRAGMENT:
            piece = FragmentHeader.decode(data)
            content = data[wire.FRAGMENT_HEADER_SIZE :]
            out["kind"] = "fragment"
            out["fragment"] = {
                "packet_id": f"{piece.packet_id:016x}",
                "dest": str(piece.destination),
                "total": piece.total,
                "number": piece.number,
                "hops": piece.hops,
                "data_length": len(content),
            }
            way = (source, destination, piece.packet_id)
            whole = self.reassembly.add(way, piece.number, piece.total, content, n)
            return out | self.assembled(way, whole)
        header = Header.decode(data)
        out["header"] = {
            "packet_id": f"{header.packet_id:016x}",
            "dest": str(header.destination),
            "source": str(header.source),
            "flags_byte": header.flags,
            "fragmented": header.fragmented,
            "legacy_encrypted_flag": bool(header.flags & wire.FLAG_ENCRYPTED),
            "cipher": header.suite,
            "hops": header.hops,
            "mac": header.mac.hex(),
        }
        if header.fragmented:
            way = (source, destination, header.packet_id)
            whole = self.reassembly.add(way, 0, 0, data, n)
            return out | {"kind": "head"} | self.assembled(way, whole)
        return out | {"kind": "packet"} | self.packet(bytearray(data))

    def assembled(self, way: Any, whole: bytearray | None) -> dict[str, Any]:
        if whole is None:
            return {}
        return {"reassembled_from": self.reassembly.numbers[way]} | self.packet(whole)

    def packet(self, packet: bytearray) -> dict[str, Any]:
        header = Header.decode(packet)
        key = self.key(header.source, header.destination)
        assert key.open(packet), "not authentic"
        opened = Header.decode(packet)
        wire.decompress(packet)
        payload = bytes(packet[wire.PAYLOAD :])
        out: dict[str, Any] = {
            "verb": opened.verb,
            "verb_name": Verb(opened.verb).name,
            "compressed": opened.compressed,
            "plaintext": packet[wire.VERB :].hex(),
        }
        masked = {}
        if opened.verb == Verb.HELLO:
            offset = Hello.tail_offset(payload)
            masked["masked_tail"] = payload[offset:].hex()
            key.mask_hello(packet, wire.PAYLOAD + offset)
            payload = bytes(packet[wire.PAYLOAD :])
            masked["tail_plain"] = payload[offset:].hex()
        out["fields"] = describe(opened.verb, payload, self.identities.get) | masked
        if opened.verb == Verb.NETWORK_CONFIG:
            self.chunks.append(ConfigChunk.decode(payload))
        if opened.verb == Verb.OK and payload[0] == Verb.NETWORK_CONFIG_REQUEST:
            self.chunks.append(ConfigChunk.decode(Ok.decode(payload).body))
        if opened.hops:
            out["relayed_hops"] = opened.hops
        return out


@pytest.fixture(scope="module")
def identities(vectors):
    nodes = vectors("capture/identities.json")["nodes"]
    found = {}
    for node in nodes.values():
        identity = Identity.parse(node["identity_secret"])
        assert str(identity.address) == node["address"]
        found[identity.address] = identity
    return found


def pytest_generate_tests(metafunc):
    """Every capture of the folder; where there is none, those that are missed."""
    if "name" in metafunc.fixturenames:
        folder = Path(metafunc.config.getoption("--vectors"), "capture")
        found = sorted(path.stem for path in folder.glob("*.pcap"))
        metafunc.parametrize("name", found or RECORDED)


@pytest.fixture
def datagrams(name, pytestconfig):
    path = Path(pytestconfig.getoption("--vectors"), "capture", f"{name}.pcap")
    if not path.exists():
        pytest.skip(f"no recorded data: {path} not found")
    return list(read_pcap(path))


def test_capture(name, datagrams, vectors, identities):
    transcript = vectors(f"capture/{name}.json")
    decoder = Decoder(identities)
    entries = transcript["entries"]
    counts: dict[str, int] = {}
    assert len(datagrams) == transcript["datagrams"] == len(entries)
    for n, (datagram, want) in enumerate(zip(datagrams, entries, strict=True), 1):
        got = decoder.datagram(n, datagram)
        assert sorted(got.get("reassembled_from", [])) == sorted(want.get("reassembled_from", []))
        for key in want.keys() - {"t", "direction", "note", "same_packet_as", "reassembled_from"}:
            assert got.get(key) == want[key], (n, key)
        assert ("fields" in got) == ("fields" in want), n
        label = got.get("verb_name", got["kind"])
        if label in ("OK", "ERROR"):
            label += "/" + got["fields"]["in_re_verb_name"]
        counts[label] = counts.get(label, 0) + 1
    assert counts == transcript["packet_counts"]
    assert transcript["undecodable"] == 0


def test_configurations_of_a_capture(datagrams, identities):
    """Chunks join to configurations that decode, encode to the same bytes, and verify."""
    decoder = Decoder(identities)
    for n, datagram in enumerate(datagrams, 1):
        decoder.datagram(n, datagram)
    assembler = Assembler()
    configs = []
    for chunk in decoder.chunks:
        if assembler.has(chunk):
            continue  # the second leg of a relayed one
        whole = assembler.add(chunk)
        if whole is not None:
            assert len(whole) == chunk.total
            config = NetworkConfig.decode(whole)
            assert config.encode() == whole
            configs.append(config)
    assert configs
    for config in configs:
        assert config.nwid.controller in identities
        credentials = [config.com, *config.tags, *config.capabilities, *config.ownerships]
        for credential in credentials:
            if credential is not None:
                assert credential.verify(identities.get) == 0
                assert credential.issued_to == config.issued_to
