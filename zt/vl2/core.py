"""VL2 of one node: joined networks, their configurations, and everything between members.

Sans-I/O as VL1 below it: what it wants done leaves as actions of `Vl1`.
"""

from collections.abc import Sequence

from zt._fast.filter import Trace
from zt._fast.tables import Tables
from zt.protocol.address import Address, MulticastGroup, NetworkId
from zt.protocol.credentials import Revocation
from zt.protocol.errors import DecodeError
from zt.protocol.messages import AuthenticationRequired, Error, NetworkConfigRequest, Ok
from zt.protocol.messages.network import ConfigReceived
from zt.protocol.netconf import ConfigChunk, NetworkConfig, RequestMetadata, Sso
from zt.protocol.packet import ErrorCode, Verb
from zt.vl1 import HANDLED, WAIT, Packet, Result, Vl1
from zt.vl1.actions import ConfigRequest, NetworkGone, Store
from zt.vl2 import adhoc, status
from zt.vl2.context import Context
from zt.vl2.credentials import Credentials
from zt.vl2.ethernet import HEADER_SIZE, Ethernet
from zt.vl2.inbound import Inbound
from zt.vl2.judge import Judge
from zt.vl2.listeners import Listeners
from zt.vl2.membership import NEVER
from zt.vl2.network import CHECK_MS, LOW_BANDWIDTH_CHECKS, Network, cache_file
from zt.vl2.outbound import Outbound
from zt.vl2.sender import Sender
from zt.vl2.status import NetworkStatus
from zt.vl2.trace import Tracer

HOUSEKEEPING_MS = 30000
FORGED_MS = 1000
"""How long chunks of a node are ignored after one with a bad signature: checking costs."""
MAX_FORGERS = 4096
UNKNOWN_CONFIG = b"\n"
"""Content of a cache file as long as there is no configuration."""


class Vl2:
    """Made once per node; registers its handlers with `vl1`."""

    def __init__(
        self,
        vl1: Vl1,
        tables: Tables,
        *,
        now_ms: int,
        platform: str = "",
        controller: bool = False,
    ) -> None:
        """`platform`: what controllers are told, like ``linux/x86_64``; `controller`: somebody
        answers `ConfigRequest`."""
        self.controller = controller
        self._platform = platform
        self._context = context = Context(vl1, tables)
        self._vl1 = vl1
        self._networks = context.networks
        tracer = self._tracer = Tracer(context)
        self._judge = Judge(context, tracer)
        self._credentials = Credentials(context, tracer.credential_rejected)
        self._listeners = Listeners(context, self._credentials)
        self._sender = Sender(context, self._credentials, self._judge, tracer)
        parts = (
            context, self._credentials, self._judge, self._sender, self._listeners, tracer,
        )  # fmt: skip
        self._outbound = Outbound(*parts)
        self._inbound = Inbound(*parts)
        self._forged_ms: dict[Address, int] = {}
        """Who sent a chunk with a bad signature, and when."""
        self._housekeeping_ms = now_ms + HOUSEKEEPING_MS
        vl1.register(Verb.NETWORK_CONFIG_REQUEST, self._on_config_request)
        vl1.register(Verb.NETWORK_CONFIG, self._on_config)
        vl1.register_ok(Verb.NETWORK_CONFIG_REQUEST, self._on_config_reply)
        vl1.register_error(self._on_error)

    # -- networks ----------------------------------------------------------------------------

    def join(self, nwid: NetworkId, now_ms: int, cached: bytes | None = None) -> None:
        """Joins a network (5.2). `cached`: content of its cache file."""
        if nwid in self._networks:
            return
        network = self._networks[nwid] = Network(self._context, nwid, now_ms)
        config = None
        if cached is not None and len(cached) > 1:
            try:
                config = NetworkConfig.decode(cached)
            except DecodeError:
                config = None
        if config is None:
            self._vl1.emit(Store(cache_file(nwid), UNKNOWN_CONFIG))
        elif network.install(config, now_ms, save=False):
            network.updated_ms = 0
        self._changed(now_ms)

    def leave(self, nwid: NetworkId, now_ms: int) -> None:
        """Leaves a network and forgets its configuration (5.3)."""
        network = self._networks.pop(nwid, None)
        if network is None:
            return
        self._context.tables.network_remove(nwid)
        self._context.groups.forget(nwid)
        self._vl1.emit(NetworkGone(nwid))
        self._vl1.emit(Store(cache_file(nwid), None))
        self._changed(now_ms)

    def networks(self) -> list[NetworkId]:
        """Joined networks, ascending."""
        return sorted(self._networks)

    def network(self, nwid: NetworkId) -> NetworkStatus | None:
        network = self._networks.get(nwid)
        return network.status() if network else None

    def groups_changed(self, nwid: NetworkId, groups: set[MulticastGroup], now_ms: int) -> None:
        """The groups that the TAP of a network listens to now. New ones are announced, lost ones
        expire at the others."""
        network = self._networks.get(nwid)
        if network is None:
            return
        new = sorted(groups - network.subscriptions)
        network.subscriptions = set(groups)
        for group in new:
            self._listeners.announce(network, now_ms, group)

    def frame(self, nwid: int, frame: bytes, now_ms: int) -> None:
        """A frame from a TAP that the data plane did not handle."""
        self._outbound.frame(NetworkId(nwid), frame, now_ms)

    def tell_drops(self, telling: bool) -> None:
        """Whether each drop here leaves an action `Dropped`."""
        self._tracer.telling = telling

    def judged(
        self, nwid: NetworkId, peer: Address, frame: bytes, *, inbound: bool
    ) -> Trace | None:
        """What the rules say now of a frame from or to a member, with the log of how they came to
        it. None: no such network, or it has no rules yet."""
        network = self._networks.get(nwid)
        if network is None or network.program is None or len(frame) <= HEADER_SIZE:
            return None
        head = Ethernet.decode(frame)
        fields = (peer, head.source, head.dest, head.ethertype, head.payload)
        remote = network.remotes.get(peer)
        if inbound:
            return network.program.inbound(*fields, remote, trace=True)
        return network.program.outbound(*fields, remote, trace=True)

    def counters(self) -> dict[str, int]:
        """What was dropped, refused or passed here, by reason; the data plane has its own."""
        return {f"vl2.{name}": count for name, count in sorted(self._context.counters.items())}

    def packets(self, nwid: NetworkId) -> tuple[int, int, int, int]:
        """Frames that the rules accepted and dropped: tx yes and no, rx yes and no (16)."""
        network = self._networks.get(nwid)
        if network is None:
            return 0, 0, 0, 0
        fast = self._context.tables.network_frames(nwid)
        accepted, dropped = network.accepted, network.dropped
        return (
            fast[0] + accepted["tx"],
            fast[1] + dropped["tx"],
            fast[2] + accepted["rx"],
            fast[3] + dropped["rx"],
        )

    # -- time --------------------------------------------------------------------------------

    def timer(self, now_ms: int) -> None:
        """Everything that is due."""
        low = self._context.low_bandwidth
        for network in list(self._networks.values()):
            network.catch_up()
            if now_ms >= network.check_ms:
                network.check_ms = now_ms + CHECK_MS * (LOW_BANDWIDTH_CHECKS if low else 1)
                if network.stale(now_ms):
                    self._request(network, now_ms)
                if not low:
                    self._listeners.announce(network, now_ms)
        self._credentials.timer(now_ms)
        self._sender.timer(now_ms)
        if now_ms >= self._housekeeping_ms:
            self._housekeeping_ms = now_ms + HOUSEKEEPING_MS
            self._context.groups.clean(now_ms)
            self._credentials.clean(now_ms)
            self._listeners.clean(now_ms)
            for network in self._networks.values():
                network.clean(now_ms)

    def deadline(self) -> int:
        """The next instant that `timer` wants."""
        due_ms = self._housekeeping_ms
        for network in self._networks.values():
            due_ms = min(due_ms, network.updated_ms if network.behind else network.check_ms)
        for other_ms in (self._credentials.deadline(), self._sender.deadline()):
            if other_ms is not None:
                due_ms = min(due_ms, other_ms)
        return due_ms

    # -- asking for a configuration ----------------------------------------------------------

    def _request(self, network: Network, now_ms: int) -> None:
        """Asks the controller, our own one, or nobody for an ad-hoc network."""
        nwid, config = network.nwid, network.config
        if nwid.ad_hoc:
            self._make_adhoc(network, now_ms)
            return
        metadata = RequestMetadata.own(self._platform).encode()
        if nwid.controller != self._context.us:
            request = NetworkConfigRequest(
                nwid,
                metadata,
                config.revision if config else 0,
                config.timestamp if config else 0,
            )
            self._vl1.send(
                nwid.controller,
                Verb.NETWORK_CONFIG_REQUEST,
                request.encode(),
                now_ms,
                compress=True,
            )
        elif self.controller:
            identity = self._vl1.identity(self._context.us)
            assert identity is not None
            self._vl1.emit(ConfigRequest(nwid, identity, metadata, None, 0))
        else:
            network.fail(status.NOT_FOUND)

    def _make_adhoc(self, network: Network, now_ms: int) -> None:
        try:
            config = adhoc.config(network.nwid, self._context.us, now_ms)
        except adhoc.NoSuchNetwork:
            network.fail(status.NOT_FOUND)
            return
        if config is not None:
            self._install(network, config, now_ms, save=False)

    def _install(
        self, network: Network, config: NetworkConfig, now_ms: int, *, save: bool = True
    ) -> None:
        if network.install(config, now_ms, save=save):
            self._changed(now_ms)
            self._vl1.retry_parked(now_ms)
        else:
            self._context.counters["config.refused"] += 1

    def _changed(self, now_ms: int) -> None:
        """Tells VL1 what follows from the networks together."""
        networks = list(self._networks.values())
        self._vl1.set_contacts({a for network in networks for a in network.anchors})
        prefixes = {
            ip
            for network in networks
            if network.config is not None
            for ip in network.config.static_ips
            if ip
        }
        self._vl1.set_own_networks(prefixes, now_ms)

    # -- configurations coming in ------------------------------------------------------------

    def _on_config_reply(self, packet: Packet, request_id: int, body: bytes, now_ms: int) -> Result:
        chunk = ConfigChunk.decode(body)
        network = self._networks.get(chunk.nwid)
        if network is None:
            return HANDLED
        result, _ = self._chunk(network, chunk, packet, now_ms, reply=True)
        return result

    def _on_config(self, packet: Packet, now_ms: int) -> Result:
        chunk = ConfigChunk.decode(packet.payload)
        network = self._networks.get(chunk.nwid)
        if network is None:
            return HANDLED
        result, completed = self._chunk(network, chunk, packet, now_ms)
        if completed is not None:
            received = ConfigReceived(network.nwid, completed)
            # Naming ECHO is what controllers are used to (Q3).
            self._vl1.send_ok(packet, received.encode(), now_ms, verb=Verb.ECHO)
        return result

    def _chunk(
        self,
        network: Network,
        chunk: ConfigChunk,
        packet: Packet,
        now_ms: int,
        *,
        reply: bool = False,
    ) -> tuple[Result, int | None]:
        """Takes a chunk (6.3). The update ID, if that completed a configuration that decodes."""
        from_controller = packet.source == network.nwid.controller
        if chunk.signature is None:
            if not from_controller:
                return HANDLED, None
            chunk = ConfigChunk(
                chunk.nwid, chunk.data, 0, packet.packet_id, len(chunk.data), 0, None
            )
        else:
            if network.updates.has(chunk):
                return HANDLED, None
            controller = self._vl1.identity(network.nwid.controller)
            if controller is None:
                self._vl1.whois(network.nwid.controller, now_ms)
                return WAIT, None
            forged_ms = self._forged_ms.get(packet.source, NEVER)
            if not from_controller and now_ms - forged_ms < FORGED_MS:
                return HANDLED, None
            if not chunk.verify(controller):
                self._context.counters["config.forged"] += 1
                if len(self._forged_ms) >= MAX_FORGERS:
                    self._forged_ms.clear()
                self._forged_ms[packet.source] = now_ms
                return HANDLED, None
            if chunk.fast_propagate:
                self._pass_on(network, chunk, packet.source, now_ms)
        whole = network.updates.add(chunk)
        if whole is None:
            return HANDLED, None
        try:
            config = NetworkConfig.decode(whole)
        except DecodeError:
            self._context.counters["config.damaged"] += 1
            return HANDLED, None
        held = network.config
        # Anybody may repeat what was once signed; only the controller itself, asked, may go back in
        # time (Q4).
        asked = reply and from_controller
        if held is not None and config.timestamp < held.timestamp and not asked:
            self._context.counters["config.old"] += 1
            return HANDLED, chunk.update_id
        self._install(network, config, now_ms)
        return HANDLED, chunk.update_id

    def _pass_on(self, network: Network, chunk: ConfigChunk, origin: Address, now_ms: int) -> None:
        for address in list(network.members):
            if address not in (origin, network.nwid.controller):
                self._vl1.send(address, Verb.NETWORK_CONFIG, chunk.encode(), now_ms)

    def _on_error(
        self, packet: Packet, in_re: int, request_id: int, code: int, data: bytes, now_ms: int
    ) -> Result:
        """Refusals of our own requests and frames (5.6)."""
        if len(data) < 8:
            return HANDLED
        nwid = NetworkId.decode(data)
        network = self._networks.get(nwid)
        if network is None:
            return HANDLED
        if code == ErrorCode.NEED_MEMBERSHIP_CERTIFICATE:
            if network.com:
                member = network.member(packet.source, now_ms)
                self._credentials.asked(network, member, now_ms)
        elif code == ErrorCode.UNWANTED_MULTICAST:
            self._listeners.unwanted(packet, data, now_ms)
        elif packet.source == nwid.controller:
            self._refused(network, in_re, code, data)
        return HANDLED

    def _refused(self, network: Network, in_re: int, code: int, data: bytes) -> None:
        if code in (ErrorCode.OBJECT_NOT_FOUND, ErrorCode.UNSUPPORTED_OPERATION):
            if in_re == Verb.NETWORK_CONFIG_REQUEST:
                network.fail(status.NOT_FOUND)
        elif code == ErrorCode.NETWORK_ACCESS_DENIED:
            network.fail(status.ACCESS_DENIED)
        elif code == ErrorCode.AUTHENTICATION_REQUIRED:
            try:
                sso = Sso.of_error(AuthenticationRequired.decode(data).data)
            except DecodeError:
                return
            if sso is not None:
                network.fail(status.AUTHENTICATION_REQUIRED, sso)

    # -- the controller's side ---------------------------------------------------------------

    def _on_config_request(self, packet: Packet, now_ms: int) -> Result:
        request = NetworkConfigRequest.decode(packet.payload)
        if not self.controller:
            self._vl1.send_error(
                packet, ErrorCode.UNSUPPORTED_OPERATION, request.nwid.encode(), now_ms
            )
            return HANDLED
        identity = self._vl1.identity(packet.source)
        if request.metadata is not None and identity is not None:
            remote = packet.path.address if packet.hops == 0 else None
            self._vl1.emit(
                ConfigRequest(request.nwid, identity, request.metadata, remote, packet.packet_id)
            )
        return HANDLED

    def send_config(
        self,
        member: Address,
        nwid: NetworkId,
        chunks: Sequence[bytes],
        request_id: int | None,
        now_ms: int,
    ) -> None:
        """Sends a signed configuration, as answer to a request or unasked (None)."""
        self._listeners.configured(nwid, member, now_ms)
        if member == self._context.us:
            self._config_for_us(nwid, chunks, now_ms)
            return
        for chunk in chunks:
            if request_id is None:
                verb, payload = Verb.NETWORK_CONFIG, chunk
            else:
                verb = Verb.OK
                payload = Ok(Verb.NETWORK_CONFIG_REQUEST, request_id, chunk).encode()
            self._vl1.send(member, verb, payload, now_ms, compress=True)

    def _config_for_us(self, nwid: NetworkId, chunks: Sequence[bytes], now_ms: int) -> None:
        network = self._networks.get(nwid)
        if network is None:
            return
        try:
            data = b"".join(ConfigChunk.decode(chunk).data for chunk in chunks)
            config = NetworkConfig.decode(data)
        except DecodeError:
            self._context.counters["config.damaged"] += 1
            return
        self._install(network, config, now_ms)

    def send_config_error(
        self,
        member: Address,
        nwid: NetworkId,
        request_id: int,
        code: ErrorCode,
        data: bytes,
        now_ms: int,
    ) -> None:
        """Refuses a request. `data`: what follows the network ID."""
        body = nwid.encode() + data
        if member == self._context.us:
            network = self._networks.get(nwid)
            if network is not None:
                self._refused(network, Verb.NETWORK_CONFIG_REQUEST, code, body)
            return
        error = Error(Verb.NETWORK_CONFIG_REQUEST, request_id, code, body)
        self._vl1.send(member, Verb.ERROR, error.encode(), now_ms)

    def send_revocation(
        self, member: Address, revocations: Sequence[Revocation], now_ms: int
    ) -> None:
        """Sends revocations to a member, at the pace that it takes them, several times."""
        if member != self._context.us:
            self._credentials.send_revocations(member, revocations, now_ms)
            return
        for revocation in revocations:
            network = self._networks.get(revocation.nwid)
            if network is not None:
                self._credentials.add(network, revocation, now_ms)
