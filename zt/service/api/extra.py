"""What the original's API does not have: explanations, round trips, rules in force, log levels.

Documented in docs/api.md. Paths are ones the original answers with 404.
"""

import base64
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from zt.protocol import rules as rule_tables
from zt.protocol.address import Address, NetworkId
from zt.protocol.errors import DecodeError
from zt.protocol.inet import Scope
from zt.service import logs
from zt.service.api.app import JsonError, answer, json_body
from zt.service.diagnosis import diagnose
from zt.service.trace import Listener
from zt.vl1.status import LEAF

if TYPE_CHECKING:
    from zt.service.daemon import Daemon

PING_TIMEOUT_S = (0.1, 30.0)
DEFAULT_PING_S = 3.0
MAX_CAPTURE_S = 30.0


class ExtraApi:
    """The handlers, bound to one daemon."""

    def __init__(self, daemon: "Daemon") -> None:
        self.daemon = daemon

    def routes(self) -> list[BaseRoute]:
        write = ["POST", "PUT"]
        return [
            Route("/diagnosis", self.diagnosis),
            Route("/netcheck", self.netcheck),
            Route("/ping/{address:address}", self.ping, methods=write),
            Route("/network/{nwid:nwid}/effective", self.effective),
            Route("/capture", self.capture, methods=write),
            Route("/trace", self.trace),
            Route("/log", self.log),
            Route("/log", self.log_set, methods=write),
        ]

    async def diagnosis(self, request: Request) -> Response:
        return answer([check.as_json() for check in diagnose(self.daemon)])

    async def ping(self, request: Request) -> Response:
        """`{"timeout": seconds}` -> `{"address", "reply", "ms", "path", "hops"}`."""
        try:
            body = await json_body(request)
        except JsonError:
            body = {}
        wanted = body.get("timeout") if isinstance(body, dict) else None
        timeout = float(wanted) if isinstance(wanted, int | float) else DEFAULT_PING_S
        timeout = min(max(timeout, PING_TIMEOUT_S[0]), PING_TIMEOUT_S[1])
        address = Address(request.path_params["address"])
        pong = await self.daemon.pinger.ping(address, timeout)
        shown: dict[str, Any] = {"address": str(address), "reply": pong is not None}
        if pong is not None:
            shown |= {"ms": round(pong.milliseconds, 3), "path": pong.path, "hops": pong.hops}
        return answer(shown)

    async def netcheck(self, request: Request) -> Response:
        """How this node looks from outside, and how far its roots are."""
        daemon = self.daemon
        surface = daemon.node.surface()
        local = {(b.ip, b.port) for _, b in daemon.sockets.bound()}
        peers = daemon.node.peers(daemon.clock.now_ms())
        roots = [p for p in peers if p.role != LEAF]
        return answer(
            {
                "listeningOn": [str(binding) for _, binding in daemon.sockets.bound()],
                "surfaceAddresses": list(dict.fromkeys(map(str, surface))),
                "nat": _nat_kind(surface, local),
                "ipv6": any(len(a.ip) == 16 and a.scope is Scope.GLOBAL for a in surface),
                "portMapping": daemon.conf.port_mapping,
                "mapped": [str(a) for a in daemon.mapped],
                "portMapper": daemon.portmap.state.as_json() if daemon.portmap else None,
                "tcpRelay": daemon.tunneled,
                "roots": [
                    {
                        "address": str(p.address),
                        "role": p.role,
                        "latency": -1 if p.latency_ms is None else p.latency_ms,
                        "paths": [str(path.address) for path in p.paths],
                    }
                    for p in roots
                ],
            }
        )

    async def effective(self, request: Request) -> Response:
        """Rules, capabilities and tags in force on a network, as JSON and as text."""
        # Imported when asked for: the rules language is not needed to run.
        from zt.rules.errors import RuleError
        from zt.rules.explain import explain

        view = self.daemon.node.network(NetworkId(request.path_params["nwid"]))
        if view is None or view.config is None:
            return answer({}, 404)
        config = view.config
        shown: dict[str, Any] = {
            "nwid": str(config.nwid),
            "revision": config.revision,
            "rules": _rules(config.rules),
            "capabilities": [
                {"id": capability.id, "rules": _rules(capability.rules)}
                for capability in config.capabilities
            ],
            "tags": [{"id": tag.id, "value": tag.value} for tag in config.tags],
        }
        source = {**shown, "tags": [{"id": tag.id} for tag in config.tags]}
        try:
            shown["text"] = explain(source)
        except RuleError as error:
            # Rules that somebody made without the language.
            shown["text"] = f"# {error}\n"
        return answer(shown)

    async def capture(self, request: Request) -> Response:
        """`{"seconds": n}` -> `{"pcap": base64}`: control packets of that time, decrypted."""
        body = await json_body(request)
        wanted = body.get("seconds") if isinstance(body, dict) else None
        seconds = float(wanted) if isinstance(wanted, int | float) else 1.0
        pcap = await self.daemon.capture.collect(min(max(seconds, 0.1), MAX_CAPTURE_S))
        return answer({"pcap": base64.b64encode(pcap).decode()})

    async def trace(self, request: Request) -> Response:
        """Drops as they happen, as server-sent events, of `network` and of `peer` if given."""
        listener = Listener()
        try:
            if network := request.query_params.get("network"):
                listener.nwid = NetworkId.parse(network)
            if peer := request.query_params.get("peer"):
                listener.peer = Address.parse(peer)
        except DecodeError:
            return answer({}, 400)
        if self.daemon.tracing.full:
            return answer({}, 503)

        async def events() -> AsyncIterator[bytes]:
            async for record in self.daemon.tracing.records(listener):
                yield b"data: " + msgspec.json.encode(record) + b"\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    async def log(self, request: Request) -> Response:
        return answer(logs.levels())

    async def log_set(self, request: Request) -> Response:
        """`{"<subsystem>" or "*": "<level>"}`; 400 for an unknown one."""
        body = await json_body(request)
        pairs = body.items() if isinstance(body, dict) else ()
        good = [logs.set_level(str(name), str(level)) for name, level in pairs]
        return answer(logs.levels(), 200 if good and all(good) else 400)


def _rules(table: bytes) -> list[Any]:
    return [rule.to_json() for rule in rule_tables.decode(table)]


def _nat_kind(surface: list[Any], local: set[tuple[bytes, int]]) -> str:
    """What the addresses that peers report tell about a NAT in front of us (IPv4)."""
    v4 = [a for a in surface if len(a.ip) == 4]
    if not v4:
        return "unknown"
    if all((a.ip, a.port) in local for a in v4):
        return "none"
    ports = {port for _, port in local}
    if all(a.port in ports for a in v4):
        return "port preserving"
    # A NAT that keeps one mapping per socket shows at most one address for each of our ports.
    return "endpoint independent" if len(set(v4)) <= len(ports) else "symmetric"
