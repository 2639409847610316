"""Turns medians of the end-to-end suite into a Markdown table and a picture."""

from __future__ import annotations

from dataclasses import dataclass
from xml.sax.saxutils import escape

Results = dict[str, dict[str, list[float]]]  # program -> measure -> one value per run
Medians = dict[str, dict[str, float]]
BASE = "original"  # ratios are against this one


@dataclass(frozen=True)
class Row:
    key: str
    title: str
    unit: str
    scale: float = 1.0  # of the value as shown
    digits: int = 2
    more_is_better: bool = True


ROWS = (
    Row("tcp_1", "TCP, 1 stream", "Gbit/s"),
    Row("tcp_1_back", "TCP, 1 stream, other way", "Gbit/s"),
    Row("tcp_4", "TCP, 4 streams", "Gbit/s"),
    Row("tcp_4_back", "TCP, 4 streams, other way", "Gbit/s"),
    Row("mtu_1500_tcp_1", "TCP, 1 stream, MTU 1500", "Gbit/s"),
    Row("suite_1_tcp_1", "TCP, 1 stream, cipher suite 1", "Gbit/s"),
    Row("relay_tcp_1", "TCP through a relay", "Gbit/s"),
    Row("cpu_per_gb", "CPU of both ends", "s/GB", more_is_better=False),
    Row("machine_cpu_per_gb", "CPU of the whole machine", "s/GB", more_is_better=False),
    Row("relay_cpu_per_gb", "CPU of both ends and the relay", "s/GB", more_is_better=False),
    Row("udp_64", "UDP, 64-byte frames", "1000/s", 1e-3, 0),
    Row("udp_512", "UDP, 512-byte frames", "1000/s", 1e-3, 0),
    Row("udp_1400", "UDP, 1400-byte frames", "1000/s", 1e-3, 0),
    Row("udp_trains", "UDP, 1400 bytes, with UDP_SEGMENT", "1000/s", 1e-3, 0),
    Row("udp_64_lossless", "UDP, 64 bytes, under 1% loss", "1000/s", 1e-3, 0),
    Row("udp_1400_lossless", "UDP, 1400 bytes, under 1% loss", "1000/s", 1e-3, 0),
    Row("udp_trains_lossless", "UDP, with UDP_SEGMENT, under 1% loss", "1000/s", 1e-3, 0),
    Row("flows", "short TCP connections", "1000/s", 1e-3, 1),
    Row("ping_mean", "ping, idle, mean", "ms", 1e-3, 3, False),
    Row("ping_p50", "ping, idle, median", "ms", 1e-3, 3, False),
    Row("ping_p99", "ping, idle, 99%", "ms", 1e-3, 3, False),
    Row("relay_ping_p50", "ping through a relay, median", "ms", 1e-3, 3, False),
    Row("ping_load_p50", "ping under TCP load, median", "ms", 1e-3, 2, False),
    Row("ping_load_p99", "ping under TCP load, 99%", "ms", 1e-3, 2, False),
    Row("memory", "resident memory of a node", "MB", 1.0, 0, False),
)
PICTURE = (
    "tcp_1",
    "tcp_4",
    "relay_tcp_1",
    "cpu_per_gb",
    "udp_64",
    "udp_1400",
    "ping_p50",
    "ping_load_p99",
)
COLOURS = ("#1b7f5c", "#b0413e", "#4a6fa5", "#c08a2d", "#7a5c99", "#5f7d8c", "#8c8c8c")


def markdown(medians: Medians) -> str:
    """One row per measure, one column per program, and ours over the original's."""
    names = list(medians)
    ratio = "ours" in medians and BASE in medians
    header = ["", *names, *(["ours / original"] if ratio else [])]
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    for row in ROWS:
        if not any(row.key in values for values in medians.values()):
            continue
        cells = [f"{row.title}, {row.unit}"]
        for name in names:
            value = medians[name].get(row.key)
            cells.append("" if value is None else f"{value * row.scale:.{row.digits}f}")
        if ratio:
            ours, base = medians["ours"].get(row.key), medians[BASE].get(row.key)
            cells.append(f"{ours / base:.2f}" if ours is not None and base else "")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def brief(values: dict[str, float]) -> str:
    """The first figures of one run, for a line of progress."""
    rows = [row for row in ROWS if row.key in values][:4]
    return ", ".join(
        f"{row.title} {values[row.key] * row.scale:.{row.digits}f} {row.unit}" for row in rows
    )


def svg(medians: Medians) -> str:
    """A panel of horizontal bars for each measure of ``PICTURE``."""
    names = [name for name in medians if name != "bare" and " to " not in name]
    colours = dict(zip(names, COLOURS, strict=False))
    rows = [row for row in ROWS if row.key in PICTURE]
    rows = [row for row in rows if any(row.key in medians[name] for name in names)]
    bar, gap, width, per_line = 18, 56, 420, 2
    panel = len(names) * bar + gap
    lines = (len(rows) + per_line - 1) // per_line
    total_width, total_height = per_line * width, lines * panel + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total_width} {total_height}"'
        ' font-family="sans-serif" font-size="12">',
        f'<rect width="{total_width}" height="{total_height}" fill="#ffffff"/>',
    ]
    for index, row in enumerate(rows):
        x, y = index % per_line * width + 16, index // per_line * panel + 30
        better = "more is better" if row.more_is_better else "less is better"
        title = escape(f"{row.title}, {row.unit} ({better})")
        parts.append(f'<text x="{x}" y="{y}" font-weight="bold">{title}</text>')
        measured = {name: medians[name][row.key] for name in names if row.key in medians[name]}
        largest = max(measured.values()) or 1.0
        for line, (name, value) in enumerate(measured.items()):
            top = y + 8 + line * bar
            parts.append(f'<text x="{x}" y="{top + 12}">{escape(name)}</text>')
            length = max(1.0, value / largest * (width - 190))
            parts.append(
                f'<rect x="{x + 92}" y="{top + 2}" width="{length:.1f}" height="{bar - 5}"'
                f' fill="{colours[name]}"/>'
            )
            text = f"{value * row.scale:.{row.digits}f}"
            parts.append(f'<text x="{x + 96 + length:.1f}" y="{top + 12}">{text}</text>')
    return "\n".join([*parts, "</svg>", ""])
