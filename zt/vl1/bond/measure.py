"""What is measured on the paths of a bond: latency, deviation, relative quality (ch. 03, 9.4)."""

from collections import deque
from collections.abc import Iterable, Sequence
from math import exp, sqrt

WINDOW = 64
MIN_SAMPLES = 4
STEEPNESS = 4.0
PENDING_LIMIT = 420
HOLDING_LIMIT = 1 << 16


class Latency:
    """The last one-way latencies of a path, in ms."""

    def __init__(self) -> None:
        self._samples: deque[float] = deque(maxlen=WINDOW)

    def add(self, latency_ms: float) -> None:
        self._samples.append(latency_ms)

    @property
    def mean_ms(self) -> float:
        """0 until there are enough samples."""
        samples = self._samples
        return sum(samples) / len(samples) if len(samples) >= MIN_SAMPLES else 0.0

    @property
    def deviation_ms(self) -> float:
        mean_ms = self.mean_ms
        if len(self._samples) < MIN_SAMPLES:
            return 0.0
        return sqrt(sum((s - mean_ms) ** 2 for s in self._samples) / len(self._samples))


class Pending:
    """Packet IDs with their time (ms) that wait for a report, at most `PENDING_LIMIT`."""

    def __init__(self) -> None:
        self._times: dict[int, int] = {}  # in order of time

    def __len__(self) -> int:
        return len(self._times)

    def add(self, samples: Iterable[tuple[int, int]]) -> None:
        for packet_id, time_ms in samples:
            if len(self._times) >= PENDING_LIMIT:
                return
            self._times.setdefault(packet_id, time_ms)

    def expire(self, oldest_ms: int) -> None:
        for packet_id in [p for p, time_ms in self._times.items() if time_ms < oldest_ms]:
            del self._times[packet_id]

    def take(self, packet_id: int) -> int | None:
        """When the packet was sent, if it waits; it does not any more."""
        return self._times.pop(packet_id, None)

    def take_first(self, count: int) -> list[tuple[int, int]]:
        """Removes and returns the oldest ones."""
        first = list(self._times.items())[:count]
        for packet_id, _ in first:
            del self._times[packet_id]
        return first


def one_way_ms(sent_ms: int, holding_ms: int, now_ms: int) -> float | None:
    """Half of the time that a packet and the report of it were under way; None if that is
    nonsense."""
    under_way_ms = (now_ms - sent_ms) % HOLDING_LIMIT - holding_ms
    return under_way_ms / 2 if under_way_ms >= 0 else None


def relative_qualities(
    measured: Sequence[Latency], capacities: Sequence[int], settings: Sequence[float]
) -> list[float]:
    """The share of the whole that each path is good for; they add up to 1.

    :param settings: as `Policy.quality`.
    """
    latency_max, deviation_max, *_ = settings[:4]
    weights = settings[4:]
    latencies = _scores([m.mean_ms for m in measured], latency_max)
    deviations = _scores([m.deviation_ms for m in measured], deviation_max)
    # Loss and errors are not measured: everybody's are 0, which is the best score.
    known = [capacity for capacity in capacities if capacity > 0]
    # Paths without a capacity count as an average one: alone they are all equal (Q4).
    usual = sum(known) / len(known) if known else 1.0
    qualities = [
        (weights[0] * latency + weights[1] * deviation + weights[2] + weights[3])
        * (capacity or usual)
        for latency, deviation, capacity in zip(latencies, deviations, capacities, strict=True)
    ]
    total = sum(qualities)
    return [quality / total if total else 1 / len(qualities) for quality in qualities]


def _scores(values: Sequence[float], limit: float) -> list[float]:
    """1 for the best value, towards 0 the worse the others are, measured by the limit."""
    if limit <= 0:
        return [1.0] * len(values)
    best = min(values, default=0.0)
    return [exp(-STEEPNESS * (value - best) / limit) for value in values]
