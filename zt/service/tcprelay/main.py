"""``zerotier-tcp-relay``: a relay server for nodes whose UDP is blocked."""

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Iterator, Sequence

import prometheus_client
import uvloop
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from zt.service.tcprelay.server import MAX_CLIENTS, Relay


def _endpoint(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":" if "/" not in text else "/")
    if not host or not port.isdigit() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no ADDRESS:PORT")
    return host, int(port)


class _State(Collector):
    """The relay's counters as metrics."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay

    def collect(self) -> Iterator[Metric]:
        clients = len(self.relay.clients)
        yield GaugeMetricFamily("zt_tcp_relay_clients", "connected clients", value=clients)
        for name, value in self.relay.counters.items():
            text = name.replace("_", " ")
            yield CounterMetricFamily(f"zt_tcp_relay_{name}", text, value=value)


async def _serve(arguments: argparse.Namespace) -> int:
    relay = Relay(max_clients=arguments.max_clients, loopback=arguments.allow_loopback)
    host, port = arguments.listen
    try:
        host, port = await relay.start(host, port)
    except OSError as problem:
        print(f"zerotier-tcp-relay: cannot listen on {host}:{port}: {problem}", file=sys.stderr)
        return 1
    if arguments.metrics:
        prometheus_client.REGISTRY.register(_State(relay))
        prometheus_client.start_http_server(arguments.metrics[1], arguments.metrics[0])
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    print(f"relaying for clients of {host}:{port}", flush=True)
    await stopped.wait()
    await relay.stop()
    for name, value in relay.counters.items():
        if value:
            print(f"{name.replace('_', ' ')}: {value}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the relay until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(
        prog="zerotier-tcp-relay",
        description="Relays datagrams for nodes that reach the network by TCP only: set "
        'their "tcpFallbackRelay" to this machine\'s address.',
    )
    parser.add_argument(
        "--listen",
        type=_endpoint,
        default=("0.0.0.0", 443),
        metavar="ADDRESS:PORT",
        help="where clients connect (default 0.0.0.0:443)",
    )
    parser.add_argument(
        "--metrics", type=_endpoint, metavar="ADDRESS:PORT", help="serve Prometheus metrics there"
    )
    parser.add_argument("--max-clients", type=int, default=MAX_CLIENTS, metavar="N")
    parser.add_argument(
        "--allow-loopback",
        action="store_true",
        help="let clients reach 127.0.0.0/8 of this machine",
    )
    parser.add_argument("-v", "--verbose", action="store_true")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.DEBUG if arguments.verbose else logging.WARNING)
    return uvloop.run(_serve(arguments))


if __name__ == "__main__":
    sys.exit(main())
