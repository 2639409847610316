"""What the benchmarks write."""

import socket
import struct
from xml.etree import ElementTree

from bench import report, traffic

MEDIANS = {
    "ours": {"tcp_1": 4.0, "cpu_per_gb": 2.0, "ping_p50": 100.0},
    "original": {"tcp_1": 0.8, "cpu_per_gb": 12.0},
    "a & b": {"tcp_1": 0.4},
}


def test_the_table_has_a_row_per_measure_and_ratios() -> None:
    lines = report.markdown(MEDIANS).splitlines()
    assert lines[0] == "|  | ours | original | a & b | ours / original |"
    assert "| TCP, 1 stream, Gbit/s | 4.00 | 0.80 | 0.40 | 5.00 |" in lines
    assert "| CPU of both ends, s/GB | 2.00 | 12.00 |  | 0.17 |" in lines
    assert "| ping, idle, median, ms | 0.100 |  |  |  |" in lines


def test_the_picture_is_well_formed_and_shows_every_program() -> None:
    picture = ElementTree.fromstring(report.svg(MEDIANS))
    texts = [element.text for element in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert texts.count("ours") == 3
    assert texts.count("original") == 2
    assert texts.count("a & b") == 1


def test_udp_packets_are_valid() -> None:
    headers, payload = traffic.udp_packets("10.0.0.1", "10.0.0.2", 5000, 50)
    assert len({header[4:6] for header in headers}) == len(headers) == traffic.RING
    for header in (headers[0], headers[-1]):
        packet = header + payload
        assert len(packet) == 50
        assert traffic.checksum(packet[:20]) == 0
        assert packet[12:20] == socket.inet_aton("10.0.0.1") + socket.inet_aton("10.0.0.2")
        assert struct.unpack("!HHH", packet[20:26]) == (5000, 5000, 30)
        pseudo = packet[12:20] + struct.pack("!HH", socket.IPPROTO_UDP, 30)
        assert traffic.checksum(pseudo + packet[20:]) == 0


def test_percentiles() -> None:
    assert traffic.summary([]) == {}
    summary = traffic.summary([float(n) for n in range(1, 102)])
    assert summary["mean"] == summary["p50"] == 51.0
    assert (summary["min"], summary["p99"], summary["max"]) == (1.0, 100.0, 101.0)
