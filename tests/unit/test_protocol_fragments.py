"""The formats of split packets: chapter 02, 2.1 to 2.4. Reassembly is tested with `_fast`."""

from zt.protocol import packet as wire
from zt.protocol.packet import FragmentHeader, Header, Kind


def test_splits(vectors):
    for case in vectors("fragments.json")["splits"]:
        if "datagrams" not in case:
            continue
        packet = bytes.fromhex(case["packet"])
        datagrams = [bytes.fromhex(datagram) for datagram in case["datagrams"]]
        assert len(packet) == case["packet_size"]
        assert [len(datagram) for datagram in datagrams] == case["datagram_sizes"]
        head = Header.decode(datagrams[0])
        assert head.flags == case["head_flags_byte"]
        assert head.fragmented == case["fragmented_flag"] == (len(datagrams) > 1)
        assert head.suite == case["cipher"]
        joined = datagrams[0]
        for number, datagram in enumerate(datagrams[1:], 1):
            assert wire.classify(datagram) == Kind.FRAGMENT
            piece = FragmentHeader.decode(datagram)
            assert (piece.packet_id, piece.destination) == (head.packet_id, head.destination)
            assert (piece.total, piece.number, piece.hops) == (len(datagrams), number, 0)
            joined += datagram[wire.FRAGMENT_HEADER_SIZE :]
        assert joined == packet
        assert case["reassemblable"] == (len(datagrams) <= wire.MAX_PIECES)


def test_relayed_pieces_differ_in_hops_only(vectors):
    for case in vectors("fragments.json")["relay_at_root"]:
        came = bytes.fromhex(case["in"])
        for out in case["out"]:
            if "relayed" not in out:
                continue
            went = bytes.fromhex(out["relayed"])
            if wire.classify(came) == Kind.FRAGMENT:
                before, after = FragmentHeader.decode(came), FragmentHeader.decode(went)
                at, hops = 15, (before.hops, after.hops)
            else:
                before, after = Header.decode(came), Header.decode(went)
                at, hops = wire.FLAGS, (before.hops, after.hops)
            assert came[:at] == went[:at]
            assert came[at + 1 :] == went[at + 1 :]
            assert hops[1] == (hops[0] + 1) & wire.HOPS_MASK
            assert hops[0] < wire.RELAY_MAX_HOPS
