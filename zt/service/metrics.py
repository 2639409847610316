"""Metrics: names, labels and types that Prometheus set-ups know, and ours (ch. 06, section 10).

Nothing is counted here but latencies: counters live in the data plane, the node and the controller,
and are read when the text is made, every few seconds. The values are prometheus_client's families;
only the text is ours, because that library appends `_total` to the names of counters.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from zt.protocol.address import Address
from zt.service.lean import bare
from zt.vl1.counters import REPEAT
from zt.vl1.status import PeerStatus

with bare("prometheus_client"):
    from prometheus_client.metrics_core import Metric

if TYPE_CHECKING:
    from zt.service.daemon import Daemon

FILE = "metrics.prom"
BOUNDS = (1, 3, 6, 10, 30, 60, 100, 300, 600, 1000)
"""Upper bounds of the latency histogram, ms, inclusive; +Inf follows."""

FRAME_COUNTERS = {
    "packet.rx.frame": "frames_in",
    "packet.rx.ext_frame": "ext_frames_in",
    "packet.tx.frame": "frames_out",
    "packet.tx.ext_frame": "ext_frames_out",
}
GREETING_COUNTERS = {"packet.rx.hello": "greeted", "packet.tx.ok": "greeted"}
"""What the data plane handles itself is added to what the node counted."""

CONTROLLER = (
    ("controller_network_count", "gauge", "number of networks the controller is serving"),
    ("controller_member_count", "gauge", "number of network members the controller is serving"),
    (
        "controller_network_change_count",
        "counter",
        "number of times a network configuration is changed",
    ),
    (
        "controller_member_change_count",
        "counter",
        "number of times a network member configuration is changed",
    ),
    ("controller_member_auth_count", "counter", "number of network member auths"),
    ("controller_member_deauth_count", "counter", "number of network member deauths"),
    (
        "controller_network_config_request_queue",
        "gauge",
        "number of entries in the request queue for network configurations",
    ),
    ("controller_sso_expiration_checks", "counter", "number of sso expiration checks done"),
    ("controller_sso_timeouts", "counter", "number of sso timeouts"),
    ("controller_network_config_request", "counter", "count of config requests handled"),
    (
        "controller_network_config_request_threads",
        "gauge",
        "number of active network config handling threads",
    ),
    ("controller_db_get_network", "counter", "counter"),
    ("controller_db_get_network_and_member", "counter", "counter"),
    ("controller_db_get_networK_and_member_summary", "counter", "counter"),
    ("controller_db_get_member_list", "counter", "counter"),
    ("controller_db_get_network_list", "counter", "counter"),
    ("controller_db_member_change", "counter", "counter"),
    ("controller_db_network_change", "counter", "counter"),
)
"""Name, type and help of the controller's families; the odd spelling of one is its name."""


PEER_SERIES = 1_000
"""With more peers than this, as roots have, there are no series per peer: 19 samples for each of
20,000 would keep the main loop busy all the time, and no dashboard wants them."""


class Histogram:
    """Latencies of one peer."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0

    def observe(self, latency_ms: int) -> None:
        self.counts[bisect_left(BOUNDS, latency_ms)] += 1
        self.total += latency_ms


class Metrics:
    """Makes the exposition of one daemon."""

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon
        self._latencies: dict[Address, Histogram] = {}
        self.loop_lag_ms = 0.0
        """How late the last timer of the main loop came: what the loop was busy with."""

    def listed(self) -> Sequence[PeerStatus]:
        """The peers that have series of their own: all, or none if there are too many."""
        node, now_ms = self._daemon.node, self._daemon.clock.now_ms()
        return node.peers(now_ms) if node.peer_counts(now_ms).total() <= PEER_SERIES else ()

    def observe(self, peers: Iterable[PeerStatus]) -> None:
        """One pass over the peers; those that are gone take their series along."""
        kept: dict[Address, Histogram] = {}
        for peer in peers:
            histogram = self._latencies.get(peer.address) or Histogram()
            kept[peer.address] = histogram
            if peer.latency_ms is not None and peer.paths:
                histogram.observe(peer.latency_ms)
        self._latencies = kept

    def render(self) -> bytes:
        """The whole exposition, families in the order of ch. 06, then ours."""
        return render(self.families())

    def families(self) -> Iterator[Metric]:
        daemon = self._daemon
        node = daemon.node.counters()
        repeats = {"drop_repeat": node.get(REPEAT, 0)}
        plane = _sum(daemon.switch.counters(), daemon.pump.counters(), repeats)
        for key, counter in (FRAME_COUNTERS | GREETING_COUNTERS).items():
            node[key] = node.get(key, 0) + plane.get(counter, 0)
        yield _packets(node)
        yield _packet_errors(node)
        yield _data(plane)
        yield from self._networks()
        yield from self._peers()
        yield from _controller(daemon.controller.metrics())
        yield from self._ours(plane)
        yield _network_events(node)

    def _networks(self) -> Iterator[Metric]:
        joined = list(self._daemon.networks)
        count = _family("zt_num_networks", "gauge", "number of networks this instance is joined to")
        count.add_sample(count.name, {}, len(joined))
        yield count
        groups = _family(
            "zt_network_multicast_groups_subscribed",
            "gauge",
            "number of multicast groups networks are subscribed to",
        )
        packets = _family(
            "zt_network_packets", "counter", "number of incoming/outgoing packets per network"
        )
        for network in joined:
            nwid = str(network.nwid)
            groups.add_sample(groups.name, {"network_id": nwid}, len(network.groups))
            judged = self._daemon.node.packets(network.nwid)
            ways = (("yes", "tx"), ("no", "tx"), ("yes", "rx"), ("no", "rx"))
            for (accepted, direction), value in zip(ways, judged, strict=True):
                packets.add_sample(
                    packets.name,
                    {"accepted": accepted, "direction": direction, "network_id": nwid},
                    value,
                )
        yield groups
        yield packets

    def _peers(self) -> Iterator[Metric]:
        peers = self.listed()
        yield self._latency_family()
        paths = _family("zt_peer_path_count", "gauge", "number of paths to peer")
        packets = _family("zt_peer_packets", "counter", "number of packets to/from a peer")
        errors = _family(
            "zt_peer_packet_errors", "counter", "number of incoming packet errors from a peer"
        )
        for peer in peers:
            node_id = str(peer.address)
            for state, value in (("alive", len(peer.paths)), ("dead", 0)):
                paths.add_sample(paths.name, {"node_id": node_id, "status": state}, value)
            try:
                received, sent = self._daemon.tables.peer_packets(int(peer.address))
                failed = self._daemon.tables.peer_errors(int(peer.address))
            except KeyError:
                received = sent = failed = 0  # known, but not agreed with yet
            for direction, value in (("rx", received), ("tx", sent)):
                packets.add_sample(
                    packets.name, {"direction": direction, "node_id": node_id}, value
                )
            errors.add_sample(errors.name, {"node_id": node_id}, failed)
        yield from (paths, packets, errors)

    def _latency_family(self) -> Metric:
        family = _family("zt_peer_latency", "histogram", "peer latency (ms)")
        for address, histogram in self._latencies.items():
            labels = {"node_id": str(address)}
            family.add_sample(f"{family.name}_count", labels, sum(histogram.counts))
            family.add_sample(f"{family.name}_sum", labels, histogram.total)
            below = 0
            for bound, count in zip((*BOUNDS, "+Inf"), histogram.counts, strict=True):
                below += count
                family.add_sample(f"{family.name}_bucket", {**labels, "le": str(bound)}, below)
        return family

    def _ours(self, plane: Mapping[str, int]) -> Iterator[Metric]:
        """What the original does not tell (docs/operations.md explains each)."""
        drops = _family("zt_drops", "counter", "datagrams and frames dropped, by reason")
        other = _family("zt_plane", "counter", "data plane: batches, system calls and other events")
        for name, value in sorted(plane.items()):
            if name.startswith("drop_"):
                drops.add_sample(drops.name, {"reason": name.removeprefix("drop_")}, value)
            elif name not in ("bytes_in", "bytes_out", *FRAME_COUNTERS.values()):
                other.add_sample(other.name, {"event": name}, value)
        yield from (drops, other)
        kinds = _family("zt_peers", "gauge", "peers by how they are reached and by role")
        counts = self._daemon.node.peer_counts(self._daemon.clock.now_ms())
        for (direct, role), value in sorted(counts.items()):
            labels = {"path": "direct" if direct else "relayed", "role": role.lower()}
            kinds.add_sample(kinds.name, labels, value)
        yield kinds
        tables = _family("zt_tables", "gauge", "data plane tables: entries, and bytes they take")
        for name, value in sorted(self._daemon.tables.counters().items()):
            tables.add_sample(tables.name, {"table": name}, value)
        yield tables
        lag = _family("zt_loop_lag_ms", "gauge", "how late the control loop's last timer was (ms)")
        lag.add_sample(lag.name, {}, round(self.loop_lag_ms, 3))
        yield lag
        control = _family("zt_control", "counter", "control plane: events handled")
        for name, value in sorted(self._daemon.driver.counters.items()):
            control.add_sample(control.name, {"event": name}, value)
        yield control


# --- families of plain counters ----------------------------------------------------------------


def _family(name: str, kind: str, text: str) -> Metric:
    return Metric(name, text, kind)


def _packets(counters: Mapping[str, int]) -> Metric:
    family = _family("zt_packet", "counter", "ZeroTier packet type counts")
    for direction, name, value in _split(counters, "packet."):
        labels = {"direction": direction, "packet_type": name}
        family.add_sample(family.name, labels, value)
    return family


def _network_events(counters: Mapping[str, int]) -> Metric:
    """What became of frames, credentials and configurations in the control plane."""
    family = _family("zt_network_events", "counter", "networks: drops and refusals by reason")
    for key, value in sorted(counters.items()):
        if key.startswith("vl2."):
            family.add_sample(family.name, {"event": key.removeprefix("vl2.")}, value)
    return family


def _packet_errors(counters: Mapping[str, int]) -> Metric:
    family = _family("zt_packet_error", "counter", "ZeroTier packet errors")
    for direction, name, value in _split(counters, "packet_error."):
        labels = {"direction": direction, "error_type": name}
        family.add_sample(family.name, labels, value)
    return family


def _split(counters: Mapping[str, int], prefix: str) -> Iterator[tuple[str, str, int]]:
    for key, value in counters.items():
        if key.startswith(prefix):
            direction, _, name = key.removeprefix(prefix).partition(".")
            yield direction, name, value


def _data(plane: Mapping[str, int]) -> Metric:
    family = _family("zt_data", "counter", "number of bytes ZeroTier has transmitted or received")
    for direction, protocol, counter in (
        ("rx", "udp", "bytes_in"),
        ("tx", "udp", "bytes_out"),
        ("rx", "tcp", "tcp_bytes_in"),
        ("tx", "tcp", "tcp_bytes_out"),
    ):
        labels = {"direction": direction, "protocol": protocol}
        family.add_sample(family.name, labels, plane.get(counter, 0))
    return family


def _controller(values: Mapping[str, int]) -> Iterator[Metric]:
    for name, kind, text in CONTROLLER:
        family = _family(name, kind, text)
        family.add_sample(name, {}, values.get(name, 0))
        yield family


def _sum(*counters: Mapping[str, int]) -> dict[str, int]:
    total: dict[str, int] = {}
    for each in counters:
        for name, value in each.items():
            total[name] = total.get(name, 0) + value
    return total


# --- text ----------------------------------------------------------------------------------------


def render(families: Iterable[Metric]) -> bytes:
    """Prometheus text; labels by name with `le` last, no timestamps, empty families left out."""
    lines: list[str] = []
    for family in families:
        if not family.samples:
            continue
        lines.append(f"# HELP {family.name} {_escape(family.documentation)}")
        lines.append(f"# TYPE {family.name} {family.type}")
        for sample in family.samples:
            names = sorted(sample.labels, key=lambda name: (name == "le", name))
            pairs = ",".join(f'{name}="{_quote(sample.labels[name])}"' for name in names)
            labels = f"{{{pairs}}}" if pairs else ""
            lines.append(f"{sample.name}{labels} {sample.value:.16g}")
    return "".join(f"{line}\n" for line in lines).encode()


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


def _quote(text: str) -> str:
    return _escape(text).replace('"', r"\"")
