"""Metric names, labels, types and help texts against the recorded expositions (ch. 06, 10)."""

import collections
import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import MISSING, vectors_dir
from zt.protocol.address import Address, NetworkId
from zt.protocol.inet import InetAddress
from zt.service.metrics import PEER_SERIES, Histogram, Metrics
from zt.vl1.counters import Counters
from zt.vl1.status import LEAF, PathStatus, PeerStatus

SAMPLE = re.compile(r"([A-Za-z_:]+)(?:\{(.*)\})? (\S+)")


def parse(text: str) -> Iterator[tuple[str, str, str, list[tuple[str, dict[str, str], float]]]]:
    """Name, type, help and samples of each family, in order."""
    blocks = re.split(r"(?m)^(?=# HELP )", text)
    for block in filter(None, blocks):
        head, kind, *lines = block.splitlines()
        samples = []
        for line in lines:
            match = SAMPLE.fullmatch(line)
            assert match is not None, line
            labels = dict(re.findall(r'(\w+)="([^"]*)"', match[2] or ""))
            samples.append((match[1], labels, float(match[3])))
        _, _, name, help_text = head.split(" ", 3)
        assert kind.startswith(f"# TYPE {name} ")
        yield name, kind.split()[-1], help_text, samples


def exposition(config: pytest.Config, name: str) -> str:
    path = vectors_dir(config) / name
    if not path.exists():
        MISSING.add(name)
        pytest.skip(f"no recorded data: {path} not found")
    return path.read_text()


def daemon_like(text: str) -> Any:
    """A daemon with the networks and peers that this exposition is about."""
    networks = sorted(set(re.findall(r'network_id="(\w+)"', text)))
    peers = sorted(set(re.findall(r'node_id="(\w+)"', text)))
    path = PathStatus(InetAddress(b"\1\2\3\4", 9993), 1, 1, 1, 0, True)
    return SimpleNamespace(
        node=SimpleNamespace(
            counters=lambda: Counters().as_dict() | {"vl2.drop.tx.not a bridge": 7},
            packets=lambda nwid: (1, 2, 3, 4),
            peers=lambda now_ms: [
                PeerStatus(Address(int(a, 16)), (1, 14, 1), 7, LEAF, (path,)) for a in peers
            ],
            peer_counts=lambda now_ms: collections.Counter({(True, LEAF): len(peers)}),
        ),
        switch=SimpleNamespace(counters=lambda: {"bytes_in": 1, "frames_in": 3, "drop_size_in": 2}),
        pump=SimpleNamespace(counters=lambda: {"bytes_in": 2, "batches": 5}),
        networks=[SimpleNamespace(nwid=NetworkId(int(n, 16)), groups={1}) for n in networks],
        tables=SimpleNamespace(
            peer_packets=lambda address: (5, 6),
            peer_errors=lambda address: 7,
            counters=lambda: {"peers": len(peers)},
        ),
        clock=SimpleNamespace(now_ms=lambda: 0),
        controller=SimpleNamespace(metrics=lambda: {"controller_network_count": 3}),
        driver=SimpleNamespace(counters={"punts": 1}),
    )


@pytest.mark.parametrize("name", ["metrics.txt", "metrics_member.txt"])
def test_recorded_families(pytestconfig: pytest.Config, name: str) -> None:
    """The same families in the same order, with the same types, texts and label sets."""
    text = exposition(pytestconfig, name)
    daemon = daemon_like(text)
    metrics = Metrics(daemon)
    metrics.observe(daemon.node.peers(0))
    ours = {family[0]: family for family in parse(metrics.render().decode())}
    recorded = list(parse(text))
    assert [name for name in ours if name in {f[0] for f in recorded}] == [f[0] for f in recorded]
    for family, kind, help_text, samples in recorded:
        assert ours[family][1:3] == (kind, help_text)
        our_series = [(n, tuple(labels.items())) for n, labels, _ in ours[family][3]]
        series = [(n, tuple(labels.items())) for n, labels, _ in samples]
        assert sorted(our_series) == sorted(series), family


def test_values_and_standard_parser(pytestconfig: pytest.Config) -> None:
    daemon = daemon_like(exposition(pytestconfig, "metrics.txt"))
    metrics = Metrics(daemon)
    text = metrics.render().decode()
    values = {
        (name, *labels.values()): value
        for _, _, _, samples in parse(text)
        for name, labels, value in samples
    }
    assert values["zt_data", "rx", "udp"] == 3
    assert values["zt_packet", "rx", "frame"] == 3
    assert values["zt_drops", "size_in"] == 2
    assert values["zt_network_events", "drop.tx.not a bridge"] == 7
    assert values["controller_network_count",] == 3
    assert "zt_peer_latency" not in text  # nothing observed yet
    names = {family.name for family in text_string_to_metric_families(text)}
    assert names >= {"zt_packet", "zt_num_networks", "zt_plane"}


def test_latency_histogram(pytestconfig: pytest.Config) -> None:
    """Upper bounds are inclusive; unknown latencies are not observed (Q23)."""
    histogram = Histogram()
    for latency_ms in (0, 1, 2, 1000, 1001):
        histogram.observe(latency_ms)
    assert histogram.counts == [2, 1, 0, 0, 0, 0, 0, 0, 0, 1, 1]
    assert histogram.total == 2004
    daemon = daemon_like(exposition(pytestconfig, "metrics.txt"))
    metrics = Metrics(daemon)
    peer = PeerStatus(Address(1), None, None, LEAF, ())
    metrics.observe([peer])
    text = metrics.render().decode()
    assert 'zt_peer_latency_count{node_id="0000000001"} 0' in text
    metrics.observe([])
    assert "zt_peer_latency_count" not in metrics.render().decode()


def test_a_root_with_many_peers_has_no_series_per_peer(pytestconfig: pytest.Config) -> None:
    daemon = daemon_like(exposition(pytestconfig, "metrics_member.txt"))
    metrics = Metrics(daemon)
    assert metrics.listed()
    for count, per_peer in ((PEER_SERIES, True), (PEER_SERIES + 1, False)):
        counts = collections.Counter({(True, LEAF): count - 1, (False, LEAF): 1})
        daemon.node.peer_counts = lambda now_ms, counts=counts: counts
        text = metrics.render().decode()
        assert ("zt_peer_packets{" in text) == per_peer
        assert f'zt_peers{{path="direct",role="leaf"}} {count - 1}' in text
